"""Regions of high density: the smallest sets that hold a given probability, as disjoint intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .blocks import check_draws, in_blocks, rows_to_draw
from .families import ScalarFamily
from .peaks import Peaks, by_row, find_peaks, log_height, log_prob_and_slope, support_ends, whole_numbers, widen

if TYPE_CHECKING:
    from .mixture import Mixture

_ROWS_IN_A_BLOCK = 8_192
_MOST_STEPS = 100
_ZOOMS, _CUTS = 12, 17


@dataclass(frozen=True)
class Region:
    """A set for each mixture of a batch: disjoint intervals in ascending order, padded with NaN."""

    lower: Float[Tensor, "*batch n"]
    upper: Float[Tensor, "*batch n"]
    size: Float[Tensor, "*batch"]
    """Total length; of counts, how many whole numbers."""

    @property
    def count(self) -> Int[Tensor, "*batch"]:
        """Number of intervals; an atom outside of the others is one of length 0."""
        return (~self.lower.isnan()).sum(-1)

    def contains(self, y: Tensor) -> Bool[Tensor, ...]:
        """Whether y, shape (*S, *B), is inside, ends included."""
        y = torch.as_tensor(y).unsqueeze(-1)
        return ((self.lower <= y) & (y <= self.upper)).any(-1)


@dataclass(frozen=True)
class JointRegion:
    """A set of vectors for each mixture of a batch: where it is at least as dense as a level."""

    mixture: Mixture
    log_level: Float[Tensor, "*batch"]
    """Log density at the edge; -inf where everything is inside."""
    size: Float[Tensor, "*batch"]
    """Volume, from draws."""
    size_error: Float[Tensor, "*batch"]
    """One standard error of the size."""

    def contains(self, y: Tensor) -> Bool[Tensor, ...]:
        """Whether y, shape (*S, *B, D), is inside, the edge included."""
        return self.mixture.log_prob(y) >= self.log_level


@dataclass(frozen=True)
class _Sides:
    """The two monotone sides of every peak of many rows, from a minimum up to the top; shape (m,) each."""

    row: Tensor
    minimum: Tensor
    top: Tensor
    log_minimum: Tensor
    log_top: Tensor
    is_outer: Tensor
    """Whether the minimum is an end of the support."""
    cdf_top: Tensor
    is_left: Tensor

    @classmethod
    def of(cls, family: ScalarFamily, mixture: Mixture, peaks: Peaks, log_lowest: Tensor) -> _Sides:
        """Infinite ends are replaced by points at which the density is below `log_lowest` of their row."""
        row = peaks.row.repeat(2)
        minimum, top = torch.cat([peaks.left, peaks.right]), peaks.top.repeat(2)
        is_left = torch.arange(len(row)) < len(peaks.row)
        low, high = support_ends(family, mixture)
        is_outer = minimum == torch.where(is_left, low[row], high[row])
        some = mixture[row]
        open_end = minimum.isinf()
        reach = mixture.components.stddev.amax(-1)[row]
        reach = torch.where(reach.isfinite(), reach, 1.0)
        while bool(open_end.any()):
            minimum = torch.where(open_end, top + torch.where(is_left, -reach, reach), minimum)
            open_end &= some.log_prob(minimum) >= log_lowest[row]
            reach = 2 * reach
        log_minimum = log_height(family, some, minimum)
        return cls(row, minimum, top, log_minimum, peaks.log_top.repeat(2), is_outer, some.cdf(top), is_left)

    def take(self, keep: Tensor) -> _Sides:
        """The sides of some of the rows, numbered anew."""
        parts = {name: part[keep[self.row]] for name, part in vars(self).items()}
        return _Sides(**parts | {"row": (keep.cumsum(0) - 1)[parts["row"]]})


def _crossings(
    family: ScalarFamily, mixture: Mixture, sides: _Sides, log_level: Tensor, guess: Tensor
) -> tuple[Tensor, Tensor]:
    """Where each side reaches its row's level of the log density, and how steep it is there (0 where it does not).

    By Newton steps inside the side, else bisection.

    The minimum, where the whole side is above the level; the top, where none of it is.
    """
    level = log_level[sides.row]
    y = torch.where(sides.log_minimum >= level, sides.minimum, sides.top)
    rate = torch.zeros_like(y)
    active = ((sides.log_minimum < level) & (level < sides.log_top)).nonzero()[:, 0]
    # The density is lower than the level at one end, and higher at the other.
    below, above, at = sides.minimum[active], sides.top[active], guess[active]
    at = torch.where((at - below) * (at - above) < 0, at, 0.5 * (below + above))
    eps = torch.finfo(y.dtype).eps
    last = torch.full_like(at, torch.inf)
    for _ in range(_MOST_STEPS):
        if not len(active):
            break
        log_prob, slope = log_prob_and_slope(family, mixture[sides.row[active]], at)
        excess = log_prob - level[active]
        log_top = sides.log_top[active]
        rounding = 4 * eps * (log_prob.abs().clamp(min=1) + slope.abs() * (at.abs() + sides.top[active].abs()))
        below, above = torch.where(excess < 0, at, below), torch.where(excess > 0, at, above)
        # For the square root of the depth below the top, which grows evenly with the distance from a normal peak.
        depth = (log_top - log_prob).clamp(min=0).sqrt()
        sought = (log_top - level[active]).clamp(min=0).sqrt()
        newton = at - 2 * depth / (depth + sought) * excess / slope
        # Without a top, the density is a power of the distance from there.
        distance = at - sides.top[active]
        power_law = sides.top[active] + distance * torch.exp(-excess / (slope * distance))
        newton = torch.where(log_top < torch.inf, newton, power_law)
        is_inside = ((newton - below) * (newton - above) < 0) & ((newton - at).abs() < 0.5 * last)
        proposal = torch.where(is_inside, newton, 0.5 * (below + above))
        step = (proposal - at).abs()
        is_met = excess.abs() <= rounding
        # Newton's steps shrink quadratically: the next one would be about step * (step / last)^2.
        following = torch.where(is_inside & last.isfinite(), 1e3 * step * (step / last).square(), step)
        is_found = is_met | (torch.minimum(step, following) <= 2 * eps * at.abs())
        y[active] = torch.where(is_met, at, proposal)
        rate[active] = slope
        keep = ~is_found
        active, at, last = active[keep], proposal[keep], torch.where(is_inside, step, torch.inf)[keep]
        below, above = below[keep], above[keep]
    return y, rate


def _mass(mixture: Mixture, sides: _Sides, y: Tensor) -> Tensor:
    """Probability of each row between the points y on the sides and the tops, shape (n,)."""
    parts = (mixture[sides.row].cdf(y) - sides.cdf_top).abs()
    return torch.zeros(len(mixture), dtype=y.dtype).index_add(0, sides.row, parts)


def _solve(family: ScalarFamily, mixture: Mixture, level: Tensor) -> tuple[_Sides, Tensor, Tensor]:
    """Sides, the points on them between which the densest region lies, and its log density at the edge.

    The edge is sought by Newton's method inside a bracket: d mass / d log t = -sum t / |slope|. Its lower end is
    rigorous: within an interval that holds all but half of what may be left out, a density below t has at most the mass
    t * length.
    """
    peaks = find_peaks(family, mixture)
    left_out = 0.25 * (1 - level)[:, None]
    present = mixture.logits > -torch.inf
    low = torch.where(present, family.icdf(mixture.components, left_out), torch.inf).amin(-1)
    high = torch.where(present, family.isf(mixture.components, left_out), -torch.inf).amax(-1)
    bottom = (2 * left_out[:, 0] / (high - low)).log()
    sides = _Sides.of(family, mixture, peaks, bottom)
    height = torch.full_like(bottom, -torch.inf).scatter_reduce(0, peaks.row, peaks.log_top, "amax")
    ceiling = torch.where(height.isfinite(), height, bottom + 700.0)
    low_edge, high_edge = bottom, ceiling
    # As if it were one normal peak.
    log_edge = (ceiling - 0.5 * torch.special.ndtri(0.5 + 0.5 * level).square()).maximum(0.5 * (bottom + ceiling))
    guess = 0.5 * (sides.minimum + sides.top)
    y = guess.clone()
    eps = torch.finfo(bottom.dtype).eps
    aim = torch.special.ndtri(0.5 + 0.5 * level).square()
    rows, some, last = torch.arange(len(mixture)), sides, torch.full_like(bottom, torch.inf)
    for _ in range(_MOST_STEPS):
        part, edge, places = mixture[rows], log_edge[rows], torch.isin(sides.row, rows)
        found, rate = _crossings(family, part, some, edge, guess[places])
        y[places] = found
        gap = _mass(part, some, found) - level[rows]
        low_edge, high_edge = (
            torch.where(gap > 0, edge, low_edge),
            torch.where(gap < 0, edge, high_edge),
        )
        per_side = torch.where(rate != 0, edge[some.row].exp() / rate.abs(), 0)
        # For the square of a normal law's two-sided quantile, which falls evenly with the level of its log density.
        quantile = torch.special.ndtri(0.5 + 0.5 * (gap + level[rows]))
        rise = quantile * math.sqrt(math.pi / 2) * (0.5 * quantile.square()).exp()
        rise = rise * torch.zeros_like(edge).index_add(0, some.row, per_side)
        newton = edge + 0.5 * (quantile.square() - aim[rows]) / rise
        is_inside = (newton > low_edge) & (newton < high_edge) & ((newton - edge).abs() < 0.5 * last)
        is_inside &= (gap.abs() < 1e-6) | ((newton - edge).abs() > 1e-6)  # a rise without bound is one by rounding
        proposal = torch.where(is_inside, newton, 0.5 * (low_edge + high_edge))
        step = (proposal - edge).abs()
        keep = (gap.abs() > 64 * eps) & (step > 4 * eps * edge.abs().clamp(min=1))
        log_edge[rows] = torch.where(keep, proposal, edge)
        guess[places] = found + torch.where(rate != 0, (log_edge[rows] - edge)[some.row] / rate, 0)
        if not bool(keep.any()):
            break
        some = some.take(keep)
        rows, last = rows[keep], torch.where(is_inside, step, torch.inf)[keep]
        low_edge, high_edge = low_edge[keep], high_edge[keep]
    return sides, y, log_edge


def _densest(family: ScalarFamily, mixture: Mixture, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lower and upper ends, (n, width), and the log density at the edge, (n,), of continuous mixtures."""
    sides, y, log_edge = _solve(family, mixture, level)
    return *_intervals(sides, y, log_edge), log_edge


def _intervals(sides: _Sides, y: Tensor, log_edge: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper ends, (n, width), of the sides' points that are ends of intervals above the edge, (n,)."""
    m = len(y) // 2
    edge = log_edge[sides.row]
    is_end = (sides.log_top > edge) & ((sides.log_minimum < edge) | sides.is_outer)
    is_lower, is_upper = is_end[:m], is_end[m:]
    (lower,) = by_row(sides.row[:m][is_lower], len(log_edge), y[:m][is_lower])
    (upper,) = by_row(sides.row[m:][is_upper], len(log_edge), y[m:][is_upper])
    return lower, upper


def _scalar_region(family: ScalarFamily, mixture: Mixture, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lower and upper ends of mixtures with one batch axis, and their log density at the edge."""
    if family.is_discrete:
        return _densest_numbers(family, mixture, level)
    mixture = mixture.merged_atoms()
    if mixture.atoms is None:
        return _densest(family, mixture, level)
    masses, k = mixture.weights[:, mixture.n_components :], mixture.n_components
    share = mixture.weights[:, :k].sum(-1)
    # Atoms are infinitely dense: the heaviest come first, the continuous part when all are in.
    heaviest = masses.argsort(dim=-1, descending=True, stable=True)
    before = masses.gather(-1, heaviest).cumsum(-1) - masses.gather(-1, heaviest)
    is_in = torch.zeros_like(masses, dtype=torch.bool).scatter(-1, heaviest, before < level[:, None])
    is_in = _with_equals(masses, is_in) & (masses > 0)
    inner_level = (level - masses.sum(-1)) / share
    has_inner = inner_level > 0
    lower, upper, log_edge = _densest(family, mixture.continuous, torch.where(has_inner, inner_level, 0.5))
    lower, upper = (torch.where(has_inner[:, None], end, torch.nan) for end in (lower, upper))
    lower, upper = _joined(lower, upper, torch.where(is_in, mixture.atoms, torch.nan))
    return lower, upper, torch.where(has_inner, log_edge + share.log(), torch.inf)


def _joined(lower: Tensor, upper: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
    """Intervals, and those atoms, (n, A), NaN where there is none, that are in none of them."""
    is_covered = ((lower[:, None] <= atoms[..., None]) & (atoms[..., None] <= upper[:, None])).any(-1)
    atoms = torch.where(is_covered, torch.nan, atoms)
    lower, upper = (torch.cat([end, atoms], -1).sort(-1).values for end in (lower, upper))  # NaN comes last
    return lower, upper


def _densest_numbers(family: ScalarFamily, mixture: Mixture, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    y, mass = whole_numbers(family, mixture)
    lower, upper, lightest = heaviest_numbers(y, mass, level)
    return lower, upper, lightest.log()


def heaviest_numbers(y: Tensor, mass: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Runs of whole numbers y, (m,), the most probable first until the level is reached, and the least mass of them."""
    order = mass.argsort(dim=-1, descending=True, stable=True)
    sorted_mass = mass.gather(-1, order)
    is_in = torch.zeros_like(mass, dtype=torch.bool)
    is_in.scatter_(-1, order, sorted_mass.cumsum(-1) - sorted_mass < level[:, None])
    lower, upper = _runs(y, _with_equals(mass, is_in))
    return lower, upper, torch.where(is_in, mass, torch.inf).amin(-1)


def _with_equals(mass: Tensor, is_in: Tensor) -> Tensor:
    """What is as heavy as the lightest that is in: it belongs to the region, as all that is as dense as its edge."""
    least = torch.where(is_in, mass, torch.inf).amin(-1, keepdim=True)
    return mass >= least * (1 - 1e-12)


def _runs(y: Tensor, is_in: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the last of neighbouring numbers y, (m,), that are in, (n, m)."""
    padded = torch.nn.functional.pad(is_in, (1, 1))
    starts, ends = (
        (padded[:, 1:-1] & ~padded[:, :-2]).nonzero(as_tuple=True),
        (padded[:, 1:-1] & ~padded[:, 2:]).nonzero(as_tuple=True),
    )
    (lower,), (upper,) = (by_row(row, len(is_in), y[place]) for row, place in (starts, ends))
    return lower, upper


@torch.no_grad()
def densest_region(family: ScalarFamily, mixture: Mixture, level: Tensor) -> tuple[Region, Tensor]:
    """The highest-density region of scalar mixtures, and the log density at its edge; see `Mixture`.

    Parameters
    ----------
    level
        In (0, 1), shape batch_shape.
    """
    flat = mixture.detach().flat()
    step = 64 if family.is_discrete else _ROWS_IN_A_BLOCK
    levels = level.reshape(-1)
    blocks = range(0, len(flat), step) if len(flat) else [0]
    parts = [_scalar_region(family, flat[start : start + step], levels[start : start + step]) for start in blocks]
    width = max(lower.shape[1] for lower, _, _ in parts)
    lower, upper = (torch.cat([widen(part[i], width) for part in parts]) for i in (0, 1))
    size = (upper - lower + (1 if family.is_discrete else 0)).nansum(-1)
    log_edge = torch.cat([part[2] for part in parts]).reshape(mixture.batch_shape)
    lower, upper = (end.reshape(*mixture.batch_shape, width) for end in (lower, upper))
    return Region(lower, upper, size.reshape(mixture.batch_shape)), log_edge


def _scalar_region_above(family: ScalarFamily, mixture: Mixture, log_level: Tensor) -> tuple[Tensor, Tensor]:
    """Where mixtures with one batch axis are at least as dense as a level; atoms by their masses."""
    if family.is_discrete:
        y, mass = whole_numbers(family, mixture)
        return _runs(y, mass.log() >= log_level[:, None])
    mixture = mixture.merged_atoms()
    inner, k = mixture.continuous, mixture.n_components
    log_inner = log_level - mixture.logits[:, :k].logsumexp(-1)
    sides = _Sides.of(family, inner, find_peaks(family, inner), log_inner)
    ends, _ = _crossings(family, inner, sides, log_inner, 0.5 * (sides.minimum + sides.top))
    lower, upper = _intervals(sides, ends, log_inner)
    if mixture.atoms is None:
        return lower, upper
    return _joined(lower, upper, torch.where(mixture.logits[:, k:] >= log_level[:, None], mixture.atoms, torch.nan))


@torch.no_grad()
def region_above(family: ScalarFamily, mixture: Mixture, log_level: Tensor) -> Region:
    """All y with log density (at an atom or of a count, log mass) of at least `log_level`, shape (n,); it may be empty.

    Of scalar mixtures with one batch axis. Of counts among the numbers that carry all but 2e-12 of the probability.
    """
    step = 64 if family.is_discrete else _ROWS_IN_A_BLOCK
    blocks = range(0, len(mixture), step) if len(mixture) else [0]
    parts = [
        _scalar_region_above(family, mixture[start : start + step], log_level[start : start + step]) for start in blocks
    ]
    width = max(lower.shape[1] for lower, _ in parts)
    lower, upper = (torch.cat([widen(part[i], width) for part in parts]) for i in (0, 1))
    return Region(lower, upper, (upper - lower + (1 if family.is_discrete else 0)).nansum(-1))


@torch.no_grad()
def denser_mass(family: ScalarFamily, mixture: Mixture, y: Tensor) -> Tensor:
    """P(p(Y) > p(y)) of scalar mixtures with one batch axis, y of shape (n,): exact."""
    if family.is_discrete:
        _, mass = whole_numbers(family, mixture)
        here = mixture.log_prob(y).exp()[:, None]
        return torch.where(mass > here * (1 + 1e-12), mass, 0).sum(-1)
    inner = mixture.continuous
    log_level = inner.log_prob(y)
    is_possible = log_level.isfinite()
    # Elsewhere any level will do: all of the continuous part is denser, or none of it where the density is infinite.
    lowest = torch.where(is_possible, log_level, inner.log_prob(inner.median))
    sides = _Sides.of(family, inner, find_peaks(family, inner), lowest)
    points, _ = _crossings(family, inner, sides, lowest, 0.5 * (sides.minimum + sides.top))
    inside = torch.where(is_possible, _mass(inner, sides, points), (log_level < 0).to(y))
    mixture = mixture.merged_atoms()
    if mixture.atoms is None:
        return inside
    masses = mixture.weights[:, mixture.n_components :]
    is_here = mixture.atoms == y[:, None]
    mass_here = torch.where(is_here, masses, 0).sum(-1, keepdim=True)
    heavier = torch.where(masses > mass_here, masses, 0).sum(-1)
    return torch.where(is_here.any(-1), heavier, masses.sum(-1) + (1 - masses.sum(-1)) * inside)


@torch.no_grad()
def drawn_threshold(mixture: Mixture, level: Tensor, n_draws: int, generator: torch.Generator | None) -> Tensor:
    """The log density that a draw exceeds with probability `level`, from draws, shape batch_shape."""
    check_draws(n_draws, 1)
    own = generator or mixture.own_generator()

    def answer(rows: Mixture, index: Tensor) -> Tensor:
        log_probs = rows.log_prob(rows.sample((n_draws,), own)).sort(0, descending=True).values
        return log_probs.gather(0, index[..., 0][None])[0]

    index = (level * n_draws).ceil().long().clamp(1, n_draws) - 1
    index = index[..., None].expand(*mixture.batch_shape, *mixture.event_shape)
    return in_blocks(answer, mixture, index, block=rows_to_draw(mixture, n_draws))


@torch.no_grad()
def joint_region(mixture: Mixture, log_level: Tensor, n_draws: int = 4096) -> JointRegion:
    """All vectors whose log density is at least `log_level`, shape batch_shape: everything where it is -inf.

    Its size is the mean of 1/p(Y) over draws Y of the mixture that are inside.
    """
    own = mixture.own_generator()

    def answer(rows: Mixture, level: Tensor) -> Tensor:
        log_probs = rows.log_prob(rows.sample((n_draws,), own))
        inverse = torch.where(log_probs >= level[..., 0], (-log_probs).exp(), 0)
        return torch.stack([inverse.mean(0), inverse.std(0) / math.sqrt(n_draws)], -1)

    levels = log_level[..., None].expand(*mixture.batch_shape, *mixture.event_shape)
    size, error = in_blocks(answer, mixture, levels, n_event_axes=1, block=rows_to_draw(mixture, n_draws)).unbind(-1)
    is_whole = log_level == -torch.inf
    return JointRegion(
        mixture, log_level, torch.where(is_whole, torch.inf, size), torch.where(is_whole, torch.nan, error)
    )


@torch.no_grad()
def shortest(mixture: Mixture, level: Tensor) -> tuple[Tensor, Tensor]:
    """Ends of the shortest interval with this probability: over its lower level, on grids that close in."""
    start, span = torch.zeros_like(level), 1 - level
    for _ in range(_ZOOMS):
        shares = torch.linspace(0, 1, _CUTS, dtype=level.dtype).reshape(-1, *[1] * level.ndim)
        below = start + shares * span
        length = mixture.icdf((below + level).clamp(max=1)) - mixture.icdf(below)
        best = length.nan_to_num(torch.inf).argmin(0)
        cell = span / (_CUTS - 1)
        start, span = start + (best - 1).clamp(min=0) * cell, torch.where((best > 0) & (best < _CUTS - 1), 2, 1) * cell
    below = start + 0.5 * span
    candidates = torch.stack([start, below, start + span])
    lower, upper = mixture.icdf(candidates), mixture.icdf((candidates + level).clamp(max=1))
    best = (upper - lower).nan_to_num(torch.inf).argmin(0, keepdim=True)
    return lower.gather(0, best)[0], upper.gather(0, best)[0]
