"""Laws of loc + L z with L lower triangular: what the full normal and the full Student t law share."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .base import Law, VectorFamily
from .normal import positive, positive_and_growth, unpositive

_MOST_BY_SUBSTITUTION = 4
"""Up to this D, D vectorised steps are faster than torch's batched triangular solve (5 times at D = 2)."""


class TriangularFamily(VectorFamily[Law]):
    """A location, a triangle L positive on its diagonal (hence L L^T positive definite), perhaps parameters of shape.

    Raw parameters: D of loc, D of L_ii, D(D-1)/2 below the diagonal, row by row.
    L_ii is the scale of y_i given y_1..y_(i-1), so that the floor bounds the determinant too.
    The last two `parameters` are loc and L; those before them are left as they are.
    """

    covariance_type = "full"

    def n_raw(self, event_size: int | None) -> int:
        d = event_size or 1
        return d + d * (d + 1) // 2

    def affine(self, components, a, b):
        *shape, loc, scale_tril = self.parameters(components)
        # Columns take the sign of b so that the diagonal stays positive; L L^T does not see it.
        scale_tril = b[..., :, None] * scale_tril * b.sign()[..., None, :]
        return self.from_parameters(*shape, a + b * loc, scale_tril)

    def widen(self, components, factor):
        *shape, loc, scale_tril = self.parameters(components)
        return self.from_parameters(*shape, loc, factor * scale_tril)

    def take(self, components, dims: Sequence[int]):
        *shape, loc, scale_tril = self.parameters(components)
        # Rows of L in another order are no triangle; QR of their transpose turns them back into one, without squares.
        dims = list(dims)
        upper = torch.linalg.qr(scale_tril[..., dims, :].mT).R  # with Q, without which there is no gradient
        signs = torch.where(upper.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(upper)
        return self.from_parameters(*shape, loc[..., dims], (signs[..., :, None] * upper).mT.tril())

    def regress(self, components: Law, n_known: int, values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The first coordinates whitened, the diagonal of their L, and loc and L of the others given them."""
        *_, loc, scale_tril = self.parameters(components)
        known = scale_tril[..., :n_known, :n_known]
        z = whiten(known, values - loc[..., :n_known])
        others = loc[..., n_known:] + (scale_tril[..., n_known:, :n_known] @ z[..., None])[..., 0]
        factor = scale_tril[..., n_known:, n_known:].expand(*others.shape, others.shape[-1])
        return z, known.diagonal(dim1=-2, dim2=-1), others, factor


def triangle(covariance: Tensor) -> Tensor:
    """L of a covariance L L^T; one that rounding has made singular is widened by as much as that may have taken."""
    scale_tril, info = torch.linalg.cholesky_ex(covariance)
    widening = 4 * covariance.shape[-1] * torch.finfo(covariance.dtype).eps
    while bool(info.any()) and widening < 1:
        wider = covariance + torch.diag_embed(widening * covariance.diagonal(dim1=-2, dim2=-1))
        scale_tril, info = torch.linalg.cholesky_ex(torch.where((info > 0)[..., None, None], wider, covariance))
        widening *= 10
    return scale_tril


def triangle_from_raw(raw: Tensor, scale_floor: Tensor | float) -> tuple[Tensor, Tensor]:
    """loc and L from D(D+3)/2 raw parameters."""
    loc, raw_diagonal, below = _split(raw, -1)
    d = loc.shape[-1]
    scale_tril = torch.diag_embed(positive(raw_diagonal, scale_floor))
    rows, columns = torch.tril_indices(d, d, -1, device=raw.device)
    scale_tril[..., rows, columns] = below
    return loc, scale_tril


def _split(raw: Tensor, axis: int) -> Sequence[Tensor]:
    """Raw loc, diagonal, and what is below it."""
    d = (math.isqrt(9 + 8 * raw.shape[axis]) - 3) // 2
    return raw.split([d, d, d * (d - 1) // 2], axis)


def triangle_slopes(raw: Tensor, scale_floor: Tensor | float, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z = L^-1 (y - loc), L_ii, the derivatives of -|z|^2 / 2 in all raw parameters, and of log L_ii in its own.

    With w = L^-T z, that of -|z|^2 / 2 is w in loc and w_i z_j in L_ij. L is never put together: its rows are gone
    through one at a time, over all of the batch, which should be last in memory. Up to D = 10 that is ten times faster
    than to build L and call torch's batched triangular solve twice.
    """
    scale, growth = positive_and_growth(_split(raw, -1)[1], scale_floor)
    slopes = torch.empty_like(raw)
    (loc, _, below), (w, of_scale, of_below) = (_split(part.movedim(-1, 0), 0) for part in (raw, slopes))
    diagonal = scale.movedim(-1, 0)
    rows = [slice(i * (i - 1) // 2, i * (i + 1) // 2) for i in range(len(diagonal))]
    z = y.movedim(-1, 0).contiguous() - loc
    for i, row in enumerate(rows):
        z[i].sub_((below[row] * z[:i]).sum(0)).div_(diagonal[i])
    w.copy_(z)
    for i in reversed(range(len(z))):
        w[i].div_(diagonal[i])
        w[:i].addcmul_(below[rows[i]], w[i], value=-1)
        torch.mul(z[:i], w[i], out=of_below[rows[i]])
    torch.mul(z, w, out=of_scale).mul_(growth.movedim(-1, 0))
    return z.movedim(0, -1), scale, slopes, growth.div_(scale)


def raw_from_triangle(loc: Tensor, scale_tril: Tensor, scale_floor: Tensor | float) -> Tensor:
    """The inverse of `triangle_from_raw`."""
    d = loc.shape[-1]
    rows, columns = torch.tril_indices(d, d, -1, device=loc.device)
    diagonal = scale_tril.diagonal(dim1=-2, dim2=-1)
    return torch.cat([loc, unpositive(diagonal, scale_floor), scale_tril[..., rows, columns]], -1)


def whiten(scale_tril: Tensor, deviation: Tensor) -> Tensor:
    """Solve L z = deviation, row by row where there are few."""
    if deviation.shape[-1] > _MOST_BY_SUBSTITUTION:
        # Axes that only the deviation has become columns, so that L is not copied along them.
        n_extra = max(deviation.ndim + 1 - scale_tril.ndim, 0)
        extra, inner = deviation.shape[:n_extra], deviation.shape[n_extra:]
        columns = deviation.reshape(math.prod(extra), *inner).movedim(0, -1)
        z = torch.linalg.solve_triangular(scale_tril, columns, upper=False).movedim(-1, 0)
        return z.reshape(*extra, *z.shape[1:])
    z = deviation[..., :0]
    for i in range(deviation.shape[-1]):
        known = (scale_tril[..., i, :i] * z).sum(-1)
        z = torch.cat([z, ((deviation[..., i] - known) / scale_tril[..., i, i])[..., None]], -1)
    return z
