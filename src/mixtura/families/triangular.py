"""Laws of loc + L z with L lower triangular: what the full normal and the full Student t law share."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .base import Law, VectorFamily
from .normal import positive, unpositive

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
    d = (math.isqrt(9 + 8 * raw.shape[-1]) - 3) // 2
    loc, raw_diagonal, below = raw.split([d, d, d * (d - 1) // 2], -1)
    scale_tril = torch.diag_embed(positive(raw_diagonal, scale_floor))
    rows, columns = torch.tril_indices(d, d, -1, device=raw.device)
    scale_tril[..., rows, columns] = below
    return loc, scale_tril


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
