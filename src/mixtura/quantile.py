"""Quantiles of scalar mixtures: safeguarded Newton inside an exact bracket, for a whole batch at once."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution

from .families import ScalarFamily

_MAX_STEPS = 200
_STEPS_BY_DISTANCE = 20
"""Then bisection is by turns by distance and by the order of floating-point numbers: a bracket may span 1e-300 to 1."""
_STEPS_BETWEEN_SIEVES = 2
_ROUGH_STEPS = 3
ROWS_TO_SOLVE = 65_536
"""In a block: most of the operations are on one number a row."""


def solve_icdf(
    logits: Tensor,
    family: ScalarFamily,
    components: Distribution,
    level: Tensor,
    atoms: Tensor | None = None,
    from_above: bool = False,
) -> Tensor:
    """The least y at which F(y) = sum_k w_k F_k(y) reaches `level`, to floating-point precision; differentiable once.

    Parameters
    ----------
    logits
        Normalised log weights, shape (*B, K + A).
    components
        Batch_shape (*B, K).
    level
        Probabilities in [0, 1], shape (*S, *B).
    atoms
        Values that carry the last A weights, shape (*B, A).
    from_above
        Whether `level` is 1 - F(y), which keeps the digits of a small one.

    Notes
    -----
    The quantile lies between the smallest and the largest quantile of the components, which is the first bracket.
    The root sought is that of `excess`, F(y) - level, computed without cancellation, so that the answer is right in
    both tails and on stretches where F is constant to all digits. Newton's step is taken on log F (left of the
    median) or log(1 - F) (right of it), which are nearly straight in the tails, bent to a cubic through the step before
    (inverse Hermite interpolation); a step that leaves the bracket, or is not half as long as the last but one, is
    replaced by bisection (Dekker 1969). Quantiles that are found leave
    the batch, so that a few hard ones do not hold up the others.
    """
    asked = torch.promote_types(logits.dtype, level.dtype)
    dtype = torch.float64 if logits.device.type != "mps" else asked  # digits to spare for float32
    if dtype != logits.dtype:  # weights that sum to 1 in float32 do not in float64
        logits, components = logits.to(dtype).log_softmax(-1), family.map(components, lambda tensor: tensor.to(dtype))
    level = level.to(dtype)

    def flat(tensor: Tensor) -> Tensor:
        return tensor.expand(*level.shape, tensor.shape[-1]).reshape(-1, tensor.shape[-1])

    logits, components, flat_level = flat(logits), family.map(components, flat), level.reshape(-1)
    atoms = logits[:, :0] if atoms is None else flat(atoms.to(dtype))
    k = components.batch_shape[-1]
    is_upper = flat_level > 0.5
    tail = torch.where(is_upper, 1 - flat_level, flat_level)  # exact: 1 - level is, for level >= 1/2
    if from_above:
        is_upper, flat_level = ~is_upper, torch.where(tail > 0, (1 - flat_level).clamp(0, 1 - 1e-16), 1 - flat_level)
    inputs = (logits, flat_level, atoms, *family.parameters(components))
    differentiable = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    with torch.no_grad():
        if family.is_discrete:
            return _solve_whole(logits, family, components, tail, is_upper, atoms).reshape(level.shape).to(asked)
        if not atoms.shape[-1]:
            y, sought = _solve(logits, family, components, tail, is_upper), torch.ones_like(is_upper)
        else:
            inner, tail, is_upper, y = _between_atoms(logits, family, components, tail, is_upper, atoms)
            sought = y.isnan()
            if bool(sought.any()):
                parts = family.map(components, lambda tensor: tensor[sought])
                y = y.masked_scatter(sought, _solve(inner[sought], family, parts, tail[sought], is_upper[sought]))
            # Levels 0 and 1 are the ends of all that occurs.
            has_mass = logits[:, k:] > -torch.inf
            first = torch.where(has_mass, atoms, torch.inf).amin(-1)
            last = torch.where(has_mass, atoms, -torch.inf).amax(-1)
            is_nowhere = (logits[:, :k] == -torch.inf).all(-1)
            y = torch.where(flat_level <= 0, torch.where(is_nowhere, first, torch.minimum(y, first)), y)
            y = torch.where(flat_level >= 1, torch.where(is_nowhere, last, torch.maximum(y, last)), y)
    if differentiable:
        sought &= (flat_level > 0) & (flat_level < 1)
        below = torch.where(atoms < y[:, None], logits[:, k:].exp(), 0).sum(-1)
        moved = attach_gradient(torch.where(sought, y, torch.inf), logits[:, :k], family, components, flat_level, below)
        if atoms.shape[-1]:  # a quantile at an atom moves with it
            is_here = atoms == y[:, None]
            y = torch.where(is_here.any(-1), atoms.gather(-1, is_here.int().argmax(-1, keepdim=True))[:, 0], y)
        y = torch.where(sought, moved, y)
    return y.reshape(level.shape).to(asked)


def _between_atoms(
    logits: Tensor, family: ScalarFamily, components: Distribution, tail: Tensor, is_upper: Tensor, atoms: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where the level is not reached at an atom, the level of the continuous part at which it is.

    Returns the logits of the continuous part alone, the tail and side of its level, and the atom, NaN where it is none.
    """
    k = components.batch_shape[-1]
    masses, order = logits[:, k:].exp(), atoms.argsort(-1)
    atoms, masses = atoms.gather(-1, order), masses.gather(-1, order)
    log_share = logits[:, :k].logsumexp(-1, keepdim=True)
    share, inner = log_share.exp(), torch.where(log_share > -torch.inf, logits[:, :k] - log_share, -torch.inf)
    at = atoms.unsqueeze(-1)
    parts = family.map(components, lambda tensor: tensor.unsqueeze(1))
    weights = logits[:, None, :k].exp()
    below = (weights * family.cdf(parts, at)).sum(-1) + masses.cumsum(-1)  # P(Y <= atom)
    above = (weights * family.survival(parts, at)).sum(-1) + masses.flip(-1).cumsum(-1).flip(-1) - masses  # P(Y > atom)
    reached = torch.where(is_upper[:, None], above <= tail[:, None], below >= tail[:, None])
    is_nothing_left = (share <= 0)[:, 0]
    reached[:, -1] |= is_nothing_left & (tail > 0)
    n_below = (~reached).sum(-1)  # atoms left of the quantile, or all of them
    first = n_below.clamp(max=atoms.shape[-1] - 1)[:, None]
    jump = torch.where(is_upper[:, None], above + masses, below - masses).gather(-1, first)[:, 0]
    is_atom = reached.gather(-1, first)[:, 0] & torch.where(is_upper, jump > tail, jump < tail)
    is_left = torch.arange(atoms.shape[-1], device=atoms.device) < n_below[:, None]
    outside = torch.where(is_left == is_upper[:, None], 0, masses).sum(-1)  # atoms on the side that the tail counts
    inner_tail = ((tail - outside) / share[:, 0]).clamp(0, 1)
    atom = torch.where(is_atom, atoms.gather(-1, first)[:, 0], torch.nan)
    turn = inner_tail > 0.5
    return inner, torch.where(turn, 1 - inner_tail, inner_tail), is_upper ^ turn, atom


def _solve_whole(
    logits: Tensor, family: ScalarFamily, components: Distribution, tail: Tensor, is_upper: Tensor, atoms: Tensor
) -> Tensor:
    """The least whole number at which F reaches the level, by bisection between the components' own."""
    k = components.batch_shape[-1]
    weights, masses = logits[:, :k].exp(), logits[:, k:].exp()
    is_present = logits > -torch.inf
    ends = torch.cat([_own_quantiles(family, components, tail, is_upper), atoms], -1)
    low = torch.where(is_present, ends, torch.inf).amin(-1) - 2
    high = torch.where(is_present, ends, -torch.inf).amax(-1) + 2
    is_open = (tail <= 0) | ~(low.isfinite() & high.isfinite())
    y = torch.where(is_upper, torch.inf, family.support(components)[0].amin(-1))
    low, high = torch.where(is_open, 0, low), torch.where(is_open, 0, high)
    eps = 4 * torch.finfo(tail.dtype).eps  # sums of weights are rounded
    while bool((high - low > 1).any()):
        middle = ((low + high) / 2).floor()
        at = middle[:, None]
        cdf = (weights * family.cdf(components, at)).sum(-1) + (masses * (atoms <= at)).sum(-1)
        survival = (weights * family.survival(components, at)).sum(-1) + (masses * (atoms > at)).sum(-1)
        is_reached = torch.where(is_upper, survival <= tail * (1 + eps), cdf >= tail * (1 - eps))
        low, high = torch.where(is_reached, low, middle), torch.where(is_reached, middle, high)
    return torch.where(is_open, y, high)


def _own_quantiles(family: ScalarFamily, components: Distribution, tail: Tensor, is_upper: Tensor) -> Tensor:
    """Each component's quantile at the level, shape (n, K)."""
    at = tail[:, None]
    if not bool(is_upper.any()):
        return family.icdf(components, at)
    if bool(is_upper.all()):
        return family.isf(components, at)
    return torch.where(is_upper[:, None], family.isf(components, at), family.icdf(components, at))


def attach_gradient(
    y: Tensor,
    logits: Tensor,
    family: ScalarFamily,
    components: Distribution,
    level: Tensor | None,
    below: Tensor | float = 0.0,
) -> Tensor:
    """The same y with the gradient of the implicit function theorem, dy = -d(F - level) / density.

    Formed from logarithms, so that it stays right where cdf and density have both underflown; where the gradient
    itself is beyond all numbers (a level exactly between two far modes), it is large and finite.

    Parameters
    ----------
    y
        Quantiles or draws, shape (n,).
    logits
        Log weights of the components, shape (n, K).
    level
        Shape (n,); None where it is constant.
    below
        Weight of the atoms below y.
    """
    largest = 0.25 * math.log(torch.finfo(y.dtype).max)
    inside = y.isfinite()
    at = torch.where(inside, y, family.icdf(components, torch.full_like(logits, 0.5))[:, 0].detach())[:, None]
    log_density = torch.logsumexp(logits + family.log_prob(components, at), -1, keepdim=True).detach()
    log_cdf, log_survival = logits + family.log_cdf(components, at), logits + family.log_survival(components, at)
    is_left = (log_survival < log_cdf).detach()
    log_tail = torch.where(is_left, log_survival, log_cdf)
    share = (log_tail.detach() - log_density).clamp(max=largest).exp()
    tails = (torch.where(is_left, -share, share) * torch.where(share > 0, log_tail, 0)).sum(-1)
    per_density = (-log_density[:, 0]).clamp(max=largest).exp()
    whole = (torch.where(is_left, logits.exp(), 0).sum(-1) + below - (0 if level is None else level)) * per_density
    gap = whole + tails
    return torch.where(inside, torch.where(inside, y, 0) - (gap - gap.detach()), y)


@dataclass
class _Search:
    """The quantiles still sought, one to a row; all but `family` have N as their first axis."""

    family: ScalarFamily
    weights: Tensor
    components: Distribution
    tail: Tensor
    """min(level, 1 - level)."""
    sign: Tensor
    """-1 where the level is above one half, so that 1 - F is what must be met, else 1."""
    low: Tensor
    high: Tensor
    y: Tensor
    smallest_spread: Tensor
    """Interquartile range of the narrowest component."""
    step_before: Tensor
    last_step: Tensor
    was_trusted: Tensor
    last_y: Tensor
    last_gap: Tensor
    """Logarithm of what the last y reached over what is sought."""
    last_slope: Tensor
    """Of y along that logarithm."""
    is_found: Tensor
    is_tie: Tensor
    ends: Tensor | None = None
    """Of the supports, shape (N, 2K), where any is finite."""

    def take(self, rows: Tensor) -> "_Search":
        """The search for some of the rows."""
        parts = {name: part[rows] for name, part in vars(self).items() if isinstance(part, Tensor)}
        return _Search(self.family, components=self.family.map(self.components, lambda t: t[rows]), **parts)

    def approach(self) -> None:
        """Steps in float32, which cost half, towards a better guess; where they fail, as for far tails, it stays."""
        parts = {name: part for name, part in vars(self).items() if isinstance(part, Tensor)}
        rough = {name: part.float() if part.is_floating_point() else part for name, part in parts.items()}
        search = _Search(self.family, components=self.family.map(self.components, Tensor.float), **rough)
        for _ in range(_ROUGH_STEPS):
            search.step(in_order=False)
        y = search.y.to(self.y)
        self.y = torch.where((y >= self.low) & (y <= self.high), y, self.y)

    def evaluate(self) -> tuple[Tensor, Tensor, Tensor]:
        """F(y) - level without cancellation, the density, and whether the components left of y weigh just the level.

        A component left of y contributes w_k - w_k S_k(y), one right of it w_k F_k(y). The whole weights are summed
        and compared with the level first; what is left are small tails, each known to full relative precision. Weights
        are rounded, so a difference of a few ulp is none.
        """
        tails, side, density = self.family.tail_and_density(self.components, self.y[:, None])
        # Of the side of the level, the components that lie there wholly, and the tails of all.
        outside = side * self.sign[:, None]
        whole = torch.linalg.vecdot(self.weights, outside.clamp(min=0)) - self.tail
        is_even = whole.abs() <= 8 * torch.finfo(whole.dtype).eps * self.tail
        excess = torch.where(is_even, 0, whole) - torch.linalg.vecdot(self.weights, tails * outside)
        return self.sign * excess, torch.linalg.vecdot(self.weights, density), is_even

    def step(self, in_order: bool) -> None:
        """One Newton or bisection step for every row, the latter by distance or by the order of the numbers."""
        eps, tiny = torch.finfo(self.y.dtype).eps, torch.finfo(self.y.dtype).tiny
        excess, density, is_even = self.evaluate()
        self.low = torch.where(excess < 0, self.y, self.low)
        self.high = torch.where(excess > 0, self.y, self.high)
        signed = self.sign * excess
        gap = torch.log1p(signed / self.tail)
        slope = (signed + self.tail) * self.sign / density
        newton = self.y - gap * slope
        # The cubic through this point and the last, with their slopes: one order better than Newton's tangent.
        run = gap - self.last_gap
        chord = (self.y - self.last_y) / run
        bend = (slope - chord - self.last_gap * (slope + self.last_slope - 2 * chord) / run) / run
        cubic = newton + gap.square() * bend
        is_near = (cubic - newton).abs() <= 0.5 * (newton - self.y).abs()
        proposal = torch.where(is_near, cubic, newton)
        is_trusted = (proposal >= self.low) & (proposal <= self.high)
        is_trusted &= (proposal - self.y).abs() <= 0.5 * self.step_before
        proposal = torch.where(is_trusted, proposal, _halfway(self.low, self.high, in_order))
        step = (proposal - self.y).abs()
        is_tie = is_even & (density * self.smallest_spread < tiny**0.5) & ~self.is_found
        stays = self.is_found | is_tie | (excess == 0)
        self.last_y, self.last_gap, self.last_slope = self.y, gap, slope
        self.y = torch.where(stays, self.y, proposal)
        self.is_tie = self.is_tie | is_tie
        # Trusted steps shrink at least quadratically: the next one will be about step * (step / last_step)^2.
        following = torch.where(is_trusted & self.was_trusted, 1e3 * step * (step / self.last_step).square(), step)
        grain = torch.maximum(self.y.abs(), self.smallest_spread)
        if self.ends is not None:  # near a finite end of the support, where the density may be infinite
            grain = torch.minimum(grain, (self.y[:, None] - self.ends).abs().amin(-1))
        self.is_found = stays | (torch.minimum(step, following) <= eps * grain)
        self.was_trusted = is_trusted
        self.step_before, self.last_step = self.last_step, step


def _halfway(low: Tensor, high: Tensor, in_order: bool) -> Tensor:
    """The middle of two numbers, or of all the floating-point numbers between them: 64 such halvings leave one."""
    kind = {torch.float64: torch.int64, torch.float32: torch.int32}.get(low.dtype)
    if not in_order or kind is None:
        return low + 0.5 * (high - low)
    first, last = (
        torch.where(bits < 0, torch.iinfo(kind).min - bits, bits) for bits in (low.view(kind), high.view(kind))
    )
    middle = (first >> 1) + (last >> 1) + (first & last & 1)
    return torch.where(middle < 0, torch.iinfo(kind).min - middle, middle).view(low.dtype)


def _solve(logits: Tensor, family: ScalarFamily, components: Distribution, tail: Tensor, is_upper: Tensor) -> Tensor:
    search = _start(logits, family, components, tail, is_upper)
    if tail.dtype == torch.float64:
        search.approach()
    y, is_tie = search.y.clone(), search.is_tie.clone()
    rows = torch.arange(len(y), device=y.device)
    for n_steps in range(_MAX_STEPS):
        search.step(in_order=n_steps > _STEPS_BY_DISTANCE and n_steps % 2 == 1)
        is_last = n_steps == _MAX_STEPS - 1 or bool(search.is_found.all())
        if is_last or n_steps % _STEPS_BETWEEN_SIEVES == _STEPS_BETWEEN_SIEVES - 1:
            y[rows], is_tie[rows] = search.y, search.is_tie
            if is_last:
                break
            sought = (~search.is_found).nonzero()[:, 0]
            rows, search = rows[sought], search.take(sought)
    if bool(is_tie.any()):
        parts = family.map(components, lambda tensor: tensor[is_tie])
        y[is_tie] = _solve_tie(logits[is_tie], family, parts, y[is_tie])
    return y


def _start(logits: Tensor, family: ScalarFamily, components: Distribution, tail: Tensor, is_upper: Tensor) -> _Search:
    """The bracket between the components' own quantiles, and a first guess.

    The guess is the weighted mean of these quantiles, moved away from the centre as far as the components' distances
    from each other widen the mixture.
    """
    weights, is_absent = logits.exp(), logits == -torch.inf
    n_absent = int(is_absent.sum())

    def but_absent(values: Tensor, instead: float) -> Tensor:
        return values.masked_fill(is_absent, instead) if n_absent else values

    quantiles = _own_quantiles(family, components, tail, is_upper)
    low, high = but_absent(quantiles, torch.inf).amin(-1), but_absent(quantiles, -torch.inf).amax(-1)
    is_found = (tail <= 0) | (low >= high)  # levels 0 and 1, a single law, none
    largest = 0.25 * torch.finfo(tail.dtype).max  # a component's own quantile may be beyond all numbers
    low = torch.where(is_found, low, low.clamp(-largest, largest))
    high = torch.where(is_found, high, high.clamp(-largest, largest))
    quarter = logits.new_full((1, 1), 0.25)
    lower, upper = family.icdf(components, quarter), family.isf(components, quarter)
    spread, middle = upper - lower, 0.5 * (lower + upper)

    def average(values: Tensor) -> Tensor:
        return torch.linalg.vecdot(weights, but_absent(values, 0))

    centre = average(middle)
    between, within = average((middle - centre[:, None]).square()), average(spread.square())
    widening = torch.sqrt(1 + 2 * between / within)  # a normal law has within = 1.82 variances
    guess = centre + (average(quantiles) - centre) * widening
    ends = torch.where(is_upper, high, low)
    y = torch.where(is_found, ends, torch.where(guess.isfinite(), guess, low + 0.5 * (high - low)).clamp(low, high))
    first, last = family.support(components)
    has_ends = bool((first.isfinite() | last.isfinite()).any())
    margin = 4 * torch.finfo(y.dtype).eps  # the quantiles are rounded
    return _Search(
        family=family,
        weights=weights,
        components=components,
        tail=tail,
        sign=torch.where(is_upper, -torch.ones_like(tail), torch.ones_like(tail)),
        low=low - margin * low.abs(),
        high=high + margin * high.abs(),
        y=y,
        ends=torch.cat([first, last], -1) if has_ends else None,
        # A component narrower than the grain of its own place is as wide as that.
        smallest_spread=but_absent(torch.maximum(spread, margin * middle.abs()), torch.inf).amin(-1),
        step_before=torch.full_like(y, torch.inf),
        last_step=torch.full_like(y, torch.inf),
        was_trusted=torch.zeros_like(is_found),
        last_y=torch.full_like(y, torch.nan),  # no cubic passes through it
        last_gap=torch.zeros_like(y),
        last_slope=torch.zeros_like(y),
        is_found=is_found,
        is_tie=torch.zeros_like(is_found),
    )


def _solve_tie(logits: Tensor, family: ScalarFamily, components: Distribution, y: Tensor) -> Tensor:
    """The quantile where the components left of y weigh just the level, and F is constant to all digits around y.

    It is the point at which the upper tail of the left components equals the lower tail of the right ones; both have
    underflown, so their logarithms are compared, by bisection.
    """
    medians = family.icdf(components, torch.full_like(logits, 0.5))
    is_left = medians < y[:, None]
    is_present = logits > -torch.inf
    low = torch.where(is_left & is_present, medians, -torch.inf).amax(-1)
    high = torch.where(~is_left & is_present, medians, torch.inf).amin(-1)
    for _ in range(_MAX_STEPS):
        middle = low + 0.5 * (high - low)
        if bool(((middle == low) | (middle == high) | (middle == y)).all()):
            break
        y = middle
        above_left = torch.where(is_left, logits + family.log_survival(components, y[:, None]), -torch.inf)
        below_right = torch.where(is_left, -torch.inf, logits + family.log_cdf(components, y[:, None]))
        is_high = below_right.logsumexp(-1) >= above_left.logsumexp(-1)
        low, high = torch.where(is_high, low, y), torch.where(is_high, y, high)
    return y
