"""Densities of vectors as landscapes, and the ascents to their tops."""

from __future__ import annotations

from itertools import islice, product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .families import LowRankNormal, ProductFamily, ScalarFamily, VectorFamily
from .families.triangular import TriangularFamily, whiten
from .peaks import by_row, find_peaks, quantiles, support_ends

if TYPE_CHECKING:
    from .mixture import Mixture

_MOST_IN_PAIRS = 16
_MOST_CORNERS = 64
_MOST_ASCENTS = 100
_ARRIVED = 1e-9
"""Steps as short as this, in units of the density's own width there, end an ascent."""
_PROBE = 1e-3
"""As far from a maximum, in these units, the density is no higher."""
_SAME = 1e-4
"""Two ascents that end so near, in these units, have found one mode."""
_TAIL = 0.16
"""Levels of quantiles that are about a standard deviation from the median."""


class _Landscape:
    """The densities of vectors, one for each row, and how to walk there; in its methods y[i] is of the row row[i]."""

    def __init__(self, family: VectorFamily, mixture: Mixture):
        self.mixture = mixture
        self.centre, self.factor = self._measure(family, mixture.components)

    def _measure(self, family: Any, components: Any) -> tuple[Tensor, Tensor]:
        """Where each component is, (n, K, D), and a root L of how it spreads, L L^T, which is a triangle."""
        if isinstance(components, LowRankNormal):
            both = torch.cat([torch.diag_embed(components.scale), components.cov_factor], -1)
            upper = torch.linalg.qr(both.mT, mode="r").R
            return components.loc, (upper * upper.diagonal(dim1=-2, dim2=-1).sign()[..., None]).mT
        *_, loc, scale = family.parameters(components)
        return loc, scale if isinstance(family, TriangularFamily) else torch.diag_embed(scale)

    def starts(self) -> Tensor:
        """The places of all components, and points between heavy ones, where another mode may hide; (n, P, D)."""
        heavy = self.mixture.logits.topk(min(self.mixture.n_components, _MOST_IN_PAIRS), -1).indices
        row = torch.arange(len(heavy))[:, None]
        centre, factor = self.centre[row, heavy], self.factor[row, heavy]
        first, second = torch.triu_indices(heavy.shape[1], heavy.shape[1], 1)
        # The ridge between two normal laws (Ray and Lindsay 2005) at equal shares: m1 + C1 (C1 + C2)^-1 (m2 - m1).
        # Without squares: with [L1 L2]^T = Q R, C1 + C2 is R^T R, and C1 is L1 Q1 R.
        q, r = torch.linalg.qr(torch.cat([factor[:, first], factor[:, second]], -1).mT)
        gap = self.difference(row, centre[:, second], centre[:, first])[..., None]
        z = torch.linalg.solve_triangular(r.mT, gap, upper=False)
        between = centre[:, first] + (factor[:, first] @ q[..., : gap.shape[-2], :] @ z)[..., 0]
        between = self.inside(row, between)
        is_there = self.mixture.log_prob(between.transpose(0, 1)).mT > -torch.inf
        return torch.cat([self.centre, torch.where(is_there[..., None], between, centre[:, first])], 1)

    def difference(self, row: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """y - x."""
        return y - x

    def inside(self, row: Tensor, y: Tensor) -> Tensor:
        """The point of the support that y stands for."""
        return y

    def settle(self, row: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """A higher point if one is easily found, and lengths: the columns of the leading component's L, (m, D, D)."""
        return y, self.factor[row, self._joint(row, y).argmax(-1)]

    def _joint(self, row: Tensor, y: Tensor) -> Tensor:
        some = self.mixture[row]
        return some.logits + some.family.log_prob(some.components, y[:, None])

    def summit(self, row: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Where a maximum that was found at y is, and the log density there."""
        return y, self.mixture[row].log_prob(y)


class _ProductLandscape(_Landscape):
    """The same for independent coordinates: along each, the density is that of a scalar mixture.

    So a point climbs to the top of the peak on which it is, exactly, be that a kink or an end of the support. There the
    coordinate rests while Newton's method moves the others. At an end, densities are those just inside.
    """

    def __init__(self, family: ProductFamily, mixture: Mixture):
        components: Any = mixture.components
        self.families, laws = family.families, components.laws
        super().__init__(family, mixture)
        self.is_circular = torch.tensor([part.is_circular for part in self.families])
        parts = [mixture._with(mixture.logits, law) for law in laws]
        ends = [support_ends(part, line) for part, line in zip(self.families, parts, strict=True)]
        self.low, self.high = (torch.stack(column, -1) for column in zip(*ends, strict=True))
        finfo = torch.finfo(mixture.dtype)
        spread = finfo.tiny**0.25 * self.factor.diagonal(dim1=-2, dim2=-1).amax(1)
        self.inset = [torch.maximum(4 * finfo.eps * end.abs(), spread) for end in (self.low, self.high)]
        self.points = [quantiles(part, law) for part, law in zip(self.families, laws, strict=True)]
        self.kinks = [part.kinks(law).flatten(1) for part, law in zip(self.families, laws, strict=True)]
        self.centre = self.inside(torch.arange(len(mixture))[:, None], self.centre)

    def _measure(self, family: Any, components: Any) -> tuple[Tensor, Tensor]:
        parts = list(zip(family.families, components.laws, strict=True))
        level = self.mixture.logits.new_tensor(_TAIL)
        middle = torch.stack([part.icdf(law, level.new_tensor(0.5)) for part, law in parts], -1)
        half = torch.stack([0.5 * (part.isf(law, level) - part.icdf(law, level)) for part, law in parts], -1)
        mean, spread = components.mean, torch.fmin(components.stddev, half)  # either may not exist
        spread = spread.clamp(min=torch.finfo(spread.dtype).tiny)
        return torch.where(mean.isfinite(), mean, middle), torch.diag_embed(spread)

    def starts(self) -> Tensor:
        """Also from the corners of components with more than one mode."""
        n, k, _ = self.centre.shape
        laws: Any = self.mixture.components
        tops = []
        for part, law, points in zip(self.families, laws.laws, self.points, strict=True):
            alone = part.map(law, lambda tensor: tensor.reshape(n * k, 1, *tensor.shape[2:]))
            logits = self.mixture.logits.new_zeros(n * k, 1)
            peaks = find_peaks(part, self.mixture._with(logits, alone), points.reshape(-1, n * k, 1))
            (top,) = by_row(peaks.row, n * k, peaks.top)
            tops.append(torch.where(top.isnan(), top[:, :1], top).reshape(n, k, -1).unbind(-1))
        corners = [torch.stack(corner, -1) for corner in islice(product(*tops), _MOST_CORNERS)]
        corners = [self.inside(torch.arange(n)[:, None], corner) for corner in corners if len(corners) > 1]
        return torch.cat([super().starts(), *corners], 1)

    def difference(self, row: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """y - x, of angles the short way round."""
        period = torch.where(self.is_circular, self.high - self.low, 1)[row]
        return torch.where(self.is_circular, (y - x) - period * ((y - x) / period).round(), y - x)

    def inside(self, row: Tensor, y: Tensor) -> Tensor:
        period = torch.where(self.is_circular, self.high - self.low, 1)[row]
        low, high = self.low[row], self.high[row]
        turned = torch.where((y < low) | (y >= high), low + (y - low).remainder(period), y)
        from_low, from_high = (inset[row] for inset in self.inset)
        clamped = torch.where(low.isfinite(), torch.maximum(y, low + from_low), y)
        clamped = torch.where(high.isfinite(), torch.minimum(clamped, high - from_high), clamped)
        return torch.where(self.is_circular, turned, clamped)

    def settle(self, row: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """One coordinate after the other to the top of its peak; lengths are 0 along those that cannot move from it."""
        some, y = self.mixture[row], y.clone()
        laws: Any = some.components
        parts = list(zip(self.families, laws.laws, strict=True))
        joint = torch.stack([part.log_prob(law, y[:, d, None]) for d, (part, law) in enumerate(parts)])
        for d, (part, law) in enumerate(parts):
            others = some.logits + joint[:d].sum(0) + joint[d + 1 :].sum(0)
            y[:, d] = _top_of_peak(part, some._with(others.log_softmax(-1), law), y[:, d], self.points[d][:, row])
            y = self.inside(row, y)
            joint[d] = part.log_prob(law, y[:, d, None])
        unit = self.factor[row, (some.logits + joint.sum(0)).argmax(-1)]
        is_fixed = self._is_at_end(row, y)
        for d, kinks in enumerate(self.kinks):
            if kinks.shape[1]:
                gap = (kinks[row] - y[:, d, None]).abs()
                kink = kinks[row].gather(1, gap.argmin(-1, keepdim=True))[:, 0]
                is_near = gap.amin(-1) <= 64 * torch.finfo(y.dtype).eps * (kink.abs() + unit[:, d, d])
                y[:, d] = torch.where(is_near, kink, y[:, d])
                is_fixed[:, d] |= is_near
        return y, torch.where(is_fixed[:, None], 0, unit)

    def _is_at_end(self, row: Tensor, y: Tensor) -> Tensor:
        low, high = self.low[row], self.high[row]
        is_at_end = (y <= low + self.inset[0][row]) | (y >= high - self.inset[1][row])
        return is_at_end & (low.isfinite() | high.isfinite()) & ~self.is_circular

    def summit(self, row: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        low, high = self.low[row], self.high[row]
        is_at_end, is_low = self._is_at_end(row, y), y - low < high - y
        some = self.mixture[row]
        height = some.log_prob(y)
        step = torch.where(is_low, self.inset[0][row], -self.inset[1][row])
        further = some.log_prob(torch.where(is_at_end, y + 63 * step, y))
        loc = torch.where(is_at_end, torch.where(is_low, low, high), y)
        return loc, torch.where(is_at_end.any(-1) & (height - further > 1e-3), torch.inf, height)


def _top_of_peak(family: ScalarFamily, mixture: Mixture, y: Tensor, points: Tensor) -> Tensor:
    """The top of the peak on which y is, one for each row; points are the components' `quantiles`."""
    peaks = find_peaks(family, mixture, points)
    top, right = by_row(peaks.row, len(mixture), peaks.top, peaks.right)
    last = top.take_along_dim((~top.isnan()).sum(-1, keepdim=True) - 1, 1)[:, 0]
    top, first = top.take_along_dim((y[:, None] > right).sum(-1, keepdim=True), 1)[:, 0], top[:, 0]
    if not family.is_circular:
        return top
    low, high = support_ends(family, mixture)  # the same point: what rises towards one goes on at the other
    return torch.where(top == high, first, torch.where((top == low) & (last < high), last, top))


def vector_modes(family: VectorFamily, mixture: Mixture) -> tuple[Tensor, Tensor, Tensor]:
    """Ascents from all components, and from between heavy ones, where a full covariance may hide a mode."""
    k = mixture.n_components
    if not len(mixture):
        nothing = mixture.logits[:, :0]
        return nothing[..., None].expand(0, 0, *mixture.event_shape), nothing, nothing
    shift = _shift(family, mixture)
    mixture = mixture.affine(-shift, 1.0)
    land = _ProductLandscape(family, mixture) if isinstance(family, ProductFamily) else _Landscape(family, mixture)
    points = land.starts()
    n, p, d = points.shape
    row = torch.arange(n)[:, None].expand(n, p)
    y, unit, is_top = _ascend(land, row.reshape(-1), points.reshape(-1, d))
    loc, height = land.summit(row.reshape(-1), y)
    points, unit, is_top = y.reshape(n, p, d), unit.reshape(n, p, d, d), is_top.reshape(n, p)
    # Each point is the mode of the first of the points that are as near as rounding allows.
    gap = land.difference(row[:, :1], points.transpose(0, 1)[:, :, None], points)
    distance = whiten(unit, gap).abs().amax(-1).permute(1, 2, 0)
    leader = torch.where((distance < _SAME) & is_top[:, None], torch.arange(p), p).amin(-1)
    is_leader = is_top & (leader == torch.arange(p))
    climbed = torch.where(is_top[:, :k], leader[:, :k], 0)
    weights = torch.where(is_top[:, :k], mixture.weights, 0)
    mass = torch.zeros(n, p, dtype=y.dtype).scatter_add(-1, climbed, weights)
    mass = torch.where(is_leader, mass, torch.nan)
    order = torch.where(is_leader, mass, -1).argsort(dim=-1, descending=True, stable=True)
    width = int(is_leader.sum(-1).max())
    order = order[:, :width]
    loc = loc.reshape(n, p, d) + shift[:, None]
    loc = torch.where(is_leader[..., None], loc, torch.nan).take_along_dim(order[..., None], 1)
    height = torch.where(is_leader, height.reshape(n, p).exp(), torch.nan)
    return loc, height.gather(1, order), mass.gather(1, order)


def _shift(family: VectorFamily, mixture: Mixture) -> Tensor:
    """Where the heaviest component is, (n, D), for coordinates to begin there: far from 0 their last digits are lost.

    0 in coordinates whose support ends, since rounding would move the end.
    """
    heaviest = mixture.logits.argmax(-1)[:, None, None]
    if isinstance(family, ProductFamily):
        laws: Any = mixture.components
        columns = []
        for part, law in zip(family.families, laws.laws, strict=True):
            low, high = part.support(law)
            is_free = (low == -torch.inf) & (high == torch.inf) & (part.closed_under == "affine")
            columns.append(torch.where(is_free, part.icdf(law, mixture.logits.new_tensor(0.5)), 0))
        middle = torch.stack(columns, -1)
    else:
        middle = _Landscape(family, mixture).centre
    return middle.take_along_dim(heaviest, 1)[:, 0]


def _ascend(land: _Landscape, row: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Climb from points y, (m, D); where it ends, lengths of the density there, and whether it is a maximum.

    Newton's method for maxima: curvatures count with their absolute values, so that every step goes uphill, and a step
    that does not is halved. Where it ends the density must fall to both sides of its flattest axis, or the climb goes
    on there: that was a saddle.
    """
    y, is_top = y.clone(), torch.zeros(len(y), dtype=torch.bool)
    d, finfo = y.shape[-1], torch.finfo(y.dtype)
    units, active = torch.eye(d, dtype=y.dtype).repeat(len(y), 1, 1), torch.arange(len(y))
    for _ in range(_MOST_ASCENTS):
        if not len(active):
            break
        at, some = row[active], land.mixture[row[active]]
        here, unit = land.settle(at, y[active])
        drift = land.difference(at, here, y[active]).abs()
        value, gradient, hessian = _derivatives(some, here, unit)
        is_fixed = unit.diagonal(dim1=-2, dim2=-1) == 0
        length = hessian.diagonal(dim1=-2, dim2=-1).abs().rsqrt().clamp(max=1)
        unit, gradient = unit * length[:, None], gradient * length
        hessian = hessian * length[:, :, None] * length[:, None] - torch.diag_embed(is_fixed.to(y))
        sound = (hessian.isfinite().all(-1).all(-1) & gradient.isfinite().all(-1))[:, None]
        curvature, axes = torch.linalg.eigh(torch.where(sound[..., None], hessian, -torch.eye(d).to(y)))
        along = (axes.mT @ torch.where(sound, gradient, 0)[..., None])[..., 0] / curvature.abs().clamp(min=1e-10)
        step = (axes @ along[..., None])[..., 0]
        step = step * (4 / step.abs().amax(-1, keepdim=True).clamp(min=4))

        size = unit.diagonal(dim1=-2, dim2=-1).clamp(min=finfo.tiny)
        noise = torch.where(is_fixed, 0, 8 * finfo.eps * here.abs() / size).amax(-1)
        floor, near = value - noise - 1e-14 * (1 + value.abs()), noise.clamp(min=_ARRIVED)
        there = _moved(land, at, here, unit, step)
        length = torch.ones_like(value)
        is_lower = some.log_prob(there) < floor
        for _ in range(30):
            if not bool(is_lower.any()):
                break
            length = torch.where(is_lower, 0.5 * length, length)
            there = _moved(land, at, here, unit, length[:, None] * step)
            is_lower = some.log_prob(there) < floor
        there = torch.where(is_lower[:, None], here, there)
        y[active], units[active] = there, unit + torch.diag_embed(finfo.tiny * is_fixed.to(y))

        is_flat = (step * gradient).sum(-1) < 0.01 * near.square()  # there is nothing left to rise
        is_flat = sound[:, 0] & (is_flat | (is_lower & (step.abs().amax(-1) < 1e-4)))
        is_done = (drift <= near[:, None] * size).all(-1) & (is_flat | is_lower)
        reach = (10 * noise.sqrt()).clamp(min=_PROBE)[:, None] * axes[..., -1]
        probes = torch.stack([_moved(land, at, here, unit, side * reach) for side in (-1, 1)])
        heights = some.log_prob(probes)
        highest, side = heights.max(0)
        is_saddle = is_done & is_flat & (highest > value + (value - floor))
        y[active[is_saddle]] = probes[side, torch.arange(len(active))][is_saddle]
        is_top[active] = is_done & is_flat & ~is_saddle
        active = active[~is_done | is_saddle]
    return y, units, is_top


def _moved(land: _Landscape, row: Tensor, y: Tensor, unit: Tensor, step: Tensor) -> Tensor:
    """One step, in units, from y."""
    return land.inside(row, y + (unit @ step[..., None])[..., 0])


def _derivatives(mixture: Mixture, y: Tensor, unit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log p(y + unit @ z) at z = 0, its gradient in z and its matrix of second derivatives, row by row."""
    with torch.enable_grad():
        z = torch.zeros_like(y).requires_grad_()
        value = mixture.log_prob(y + (unit @ z[..., None])[..., 0])
        (gradient,) = torch.autograd.grad(value.sum(), z, create_graph=True)
        columns = [torch.autograd.grad(gradient[:, i].sum(), z, retain_graph=True)[0] for i in range(y.shape[-1])]
    hessian = torch.stack(columns, -1)
    return value.detach(), gradient.detach(), 0.5 * (hessian + hessian.mT)
