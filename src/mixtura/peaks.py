"""Peaks of scalar densities: every maximum between its two minima."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import elementwise
from torch import Tensor
from torch.distributions import Distribution

from .families import ScalarFamily

if TYPE_CHECKING:
    from .mixture import Mixture

_IN_CACHE = 65_536
"""How many numbers are computed with at once."""
_NO_SHARE = -700.0
_TAILS = (0.42, 0.27, 0.14, 0.055, 0.014, 0.0026, 0.00023, 3.4e-06, 6e-09, 6.8e-14)
"""Levels, from both ends, of the quantiles of every component at which the slope is looked at: half a scale apart, and
wider in the tails, where a narrow component hands over to a broad one."""
_NEAR_AN_END = (1e-12, 1e-8, 1e-4, 1e-2, 0.2)
"""Between the end of a support and the first quantile, as shares of that distance."""
_CUTS, _ZOOMS = 9, 2
"""Where the slope comes near 0: 8 steps on both sides of that point, and again around the least of these."""


@dataclass(frozen=True)
class Peaks:
    """The maxima of many scalar densities, by row and then from left to right, each between its minima; shape (m,).

    The outermost minima are the ends of the support, infinite ones included.
    """

    row: Tensor
    left: Tensor
    top: Tensor
    log_top: Tensor
    right: Tensor


def log_prob_and_slope(family: ScalarFamily, mixture: Mixture, y: Tensor) -> tuple[Tensor, Tensor]:
    """The log density of a continuous mixture and its derivative in y, shape (*S, *B).

    The latter is the mean of the components' slopes by their responsibilities.
    """
    return _weigh(family, mixture.logits, mixture.components, y.unsqueeze(-1), -1)


def _weigh(
    family: ScalarFamily, logits: Tensor, components: Distribution, y: Tensor, axis: int
) -> tuple[Tensor, Tensor]:
    """The same, with the components along `axis` of logits, components and y."""
    joint = logits + family.log_prob(components, y)
    highest = joint.amax(axis, keepdim=True)
    # exp takes ten times as long where it underflows, and e^-700 of the largest share is none either.
    shares = (joint - highest).clamp(min=_NO_SHARE).exp()
    total, slopes = shares.sum(axis), family.slope(components, y)
    mean = (shares * slopes).sum(axis) / total
    if bool(mean.isnan().any()):  # an infinite slope where there is no share
        mean = torch.where(joint - highest > _NO_SHARE, shares * slopes, 0).sum(axis) / total
    return highest.squeeze(axis) + total.log(), mean


def _slopes_at(family: ScalarFamily, mixture: Mixture, points: Tensor) -> Tensor:
    """The slopes of n mixtures at m points each, shape (n, m).

    For as many rows at once as a processor's cache holds, components first, so that a point's neighbours in memory are
    points of the same row.
    """
    step = max(1, _IN_CACHE // max(1, points.shape[-1] * mixture.n_components))

    def first(tensor: Tensor) -> Tensor:
        return tensor.mT.unsqueeze(-1)

    parts = []
    for start in range(0, max(1, len(points)), step):
        some = mixture[start : start + step]
        components = family.map(some.components, first)
        parts.append(_weigh(family, first(some.logits), components, points[start : start + step], 0)[1])
    return torch.cat(parts)


def support_ends(family: ScalarFamily, mixture: Mixture) -> tuple[Tensor, Tensor]:
    """The two ends of the support of mixtures, shape batch_shape."""
    low, high = family.support(mixture.components)
    present = mixture.logits > -torch.inf
    return torch.where(present, low, torch.inf).amin(-1), torch.where(present, high, -torch.inf).amax(-1)


def log_height(family: ScalarFamily, mixture: Mixture, y: Tensor) -> Tensor:
    """The log density of continuous mixtures; at an end of the support its limit from inside, which may be infinite.

    A density without bound grows as a power of the distance, and so between any two points close to the end.
    """
    log_prob = mixture.log_prob(y)
    low, high = support_ends(family, mixture)
    at_end = ((y == low) | (y == high)) & (log_prob == -torch.inf)
    if not bool(at_end.any()):
        return log_prob
    finfo = torch.finfo(y.dtype)
    inside = mixture.icdf(0.5) - y
    step = inside.sign() * torch.maximum(4 * finfo.eps * y.abs(), finfo.tiny**0.5 * inside.abs())
    near, further = (mixture.log_prob(torch.where(at_end, y + n * step, y)) for n in (1, 64))
    return torch.where(at_end, torch.where(near - further > 1e-3, torch.inf, near), log_prob)


def quantiles(family: ScalarFamily, components: Distribution) -> Tensor:
    """Points that resolve every component at its own scale, shape (m, n, K)."""
    tails = components.mean.new_tensor(_TAILS)[:, None, None]
    return torch.cat([family.icdf(components, tails), family.isf(components, tails)])


def find_peaks(family: ScalarFamily, mixture: Mixture, points: Tensor | None = None) -> Peaks:
    """All peaks of continuous scalar mixtures with one batch axis, without gradient.

    The slope is evaluated at quantiles of every component, which resolve each at its own scale, and more closely where
    it comes near 0 and turns away. Wherever its sign changes, the root is found by Chandrupatla's method. At a finite
    end of the support towards which the density rises, there is a peak. `points` are the `quantiles`, where known.
    """
    present = mixture.logits > -torch.inf
    points = quantiles(family, mixture.components) if points is None else points
    some = points.gather(-1, mixture.logits.argmax(-1)[None, :, None].expand(len(points), len(mixture), 1))
    grid = torch.where(present, points, some).permute(1, 0, 2).flatten(1)
    low, high = support_ends(family, mixture)
    share = mixture.logits.new_tensor(_NEAR_AN_END)
    for end in (low[:, None], high[:, None]):
        if bool(end.isfinite().any()):
            nearest = grid.gather(-1, (grid - end).abs().argmin(-1, keepdim=True))
            grid = torch.cat([grid, torch.where(end.isfinite(), end + share * (nearest - end), nearest)], -1)
    grid = grid.sort(-1).values
    # NaN where a point is rounded to the end of the support.
    steep = _slopes_at(family, mixture, grid).nan_to_num(0)
    row, left, right, is_top = _sign_changes(grid, steep)

    size = steep.abs()
    is_dip = (size[:, 1:-1] < size[:, :-2]) & (size[:, 1:-1] <= size[:, 2:])
    is_dip &= (steep[:, :-2].sign() == steep[:, 1:-1].sign()) & (steep[:, 1:-1].sign() == steep[:, 2:].sign())
    dip_row, dip = is_dip.nonzero(as_tuple=True)
    before, at, after = (grid[dip_row, dip + shift] for shift in range(3))
    cuts = torch.linspace(0, 1, _CUTS, dtype=grid.dtype)
    for _ in range(_ZOOMS):
        steps = cuts * (at - before)[:, None], cuts[1:] * (after - at)[:, None]
        finer = torch.cat([before[:, None] + steps[0], at[:, None] + steps[1]], -1)
        slopes = _slopes_at(family, mixture[dip_row], finer)
        found = _sign_changes(finer, slopes)
        row, left, right, is_top = (
            torch.cat(pair) for pair in zip((row, left, right, is_top), (dip_row[found[0]], *found[1:]), strict=True)
        )
        lowest = 1 + slopes[:, 1:-1].abs().argmin(-1, keepdim=True)
        stays = torch.ones_like(dip_row, dtype=torch.bool).index_fill(0, found[0], False)
        before, at, after = (finer.gather(1, lowest + shift)[stays, 0] for shift in (-1, 0, 1))
        dip_row = dip_row[stays]

    turns = _roots(family, mixture, row, left, right)
    # The ends of the support are peaks where the density rises to them.
    rises_first, rises_last = (_carried(steep)[:, i] > 0 for i in (0, -1))
    all_rows = torch.arange(len(mixture))
    row = torch.cat([row, all_rows[~rises_first], all_rows[rises_last]])
    first, last = torch.where(low.isfinite(), low, grid[:, 0]), torch.where(high.isfinite(), high, grid[:, -1])
    turns = torch.cat([turns, first[~rises_first], last[rises_last]])
    is_top = torch.cat([is_top, torch.ones(len(row) - len(is_top), dtype=torch.bool)])
    order = turns.argsort(stable=True)
    order = order[row[order].argsort(stable=True)]
    row, turns, is_top = row[order], turns[order], is_top[order]  # alternately tops and minima, first and last a top
    row, tops, minima = row[is_top], turns[is_top], turns[~is_top]
    is_first = row != row.roll(1)
    is_first[:1] = True
    is_last = is_first.roll(-1)
    left, right = torch.empty_like(tops), torch.empty_like(tops)
    left[is_first], left[~is_first] = low, minima
    right[is_last], right[~is_last] = high, minima
    return Peaks(row, left, tops, log_height(family, mixture[row], tops), right)


def _carried(steep: Tensor) -> Tensor:
    """Signs; a slope of exactly 0 goes on as before (at first as after), so that a point of inflection is no mode."""
    sign = steep.sign()
    first = sign.gather(-1, (sign != 0).int().argmax(-1, keepdim=True))
    sign = torch.cat([torch.where(first == 0, 1.0, first), sign], -1)
    place = torch.where(sign != 0, torch.arange(sign.shape[-1]), 0).cummax(-1).values
    return sign.gather(-1, place)[:, 1:]


def _sign_changes(grid: Tensor, steep: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Row, ends, and whether it holds a top, of every cell of a grid in which the slope changes its sign."""
    sign = _carried(steep)
    row, cell = (sign[:, 1:] != sign[:, :-1]).nonzero(as_tuple=True)
    return row, grid[row, cell], grid[row, cell + 1], sign[row, cell] > 0


def _roots(family: ScalarFamily, mixture: Mixture, row: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Where the slope, of different signs at low and high, changes them."""

    def at(y: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        some = mixture[torch.as_tensor(rows)]
        return log_prob_and_slope(family, some, torch.as_tensor(y).to(some.dtype))[1].double().numpy()

    if not len(row):
        return low
    ends, rows = (low.double().numpy(), high.double().numpy()), row.numpy()
    found = elementwise.find_root(at, ends, args=(rows,))
    # An end of a cell may be the root itself, and its slope, computed again, of another sign by rounding.
    nearer = np.where(np.abs(at(ends[0], rows)) < np.abs(at(ends[1], rows)), *ends)
    return torch.as_tensor(np.where(found.success, found.x, nearer)).to(low.dtype)


def widen(part: Tensor, width: int) -> Tensor:
    """(rows, n, ...) filled up to (rows, width, ...) with NaN."""
    filler = part.new_full((part.shape[0], width - part.shape[1], *part.shape[2:]), torch.nan)
    return torch.cat([part, filler], 1)


def by_row(row: Tensor, n_rows: int, *values: Tensor) -> list[Tensor]:
    """Values listed by ascending row, (m,) each, as tables (n_rows, width) filled up with NaN."""
    count = torch.bincount(row, minlength=n_rows)
    place = torch.arange(len(row)) - (count.cumsum(0) - count)[row]
    tables = [value.new_full((n_rows, int(count.max()) if n_rows else 0), torch.nan) for value in values]
    for table, value in zip(tables, values, strict=True):
        table[row, place] = value
    return tables


def whole_numbers(family: ScalarFamily, mixture: Mixture) -> tuple[Tensor, Tensor]:
    """The whole numbers that carry all but 2e-12 of each row's probability, and their masses, (m,) and (n, m)."""
    tail = mixture.logits.new_tensor(1e-12)
    ends = torch.cat([family.icdf(mixture.components, tail), family.isf(mixture.components, tail)])
    if mixture.atoms is not None:
        ends = torch.cat([ends.flatten(), mixture.atoms.flatten()])
    y = torch.arange(ends.min().item(), ends.max().item() + 1, dtype=mixture.dtype)
    return y, mixture.log_prob(y[:, None]).exp().mT
