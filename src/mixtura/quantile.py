"""Quantiles of scalar mixtures: safeguarded Newton inside an exact bracket, for a whole batch at once."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from .families import ScalarFamily

_MAX_STEPS = 200
"""Bisection alone needs about 75 steps from a bracket 1e6 scales wide; the rest is margin."""


def solve_icdf(logits: Tensor, family: ScalarFamily, components: Distribution, level: Tensor) -> Tensor:
    """The y at which sum_k w_k F_k(y) = level, to floating-point precision; differentiable once.

    Parameters
    ----------
    logits : normalised log weights, shape (*B, K).
    components : batch_shape (*B, K).
    level : probabilities in [0, 1], shape (*S, *B).

    Notes
    -----
    The quantile lies between the smallest and the largest quantile of the components, which is the first bracket.
    The root sought is that of `excess`, F(y) - level, computed without cancellation, so that the answer is right in
    both tails and on stretches where F is constant to all digits. Newton's step is taken on log F (left of the
    median) or log(1 - F) (right of it), which are nearly straight in the tails; a step that leaves the bracket, or
    is not half as long as the last but one, is replaced by bisection (Dekker 1969).
    """
    differentiable = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in (logits, level, *family.parameters(components))
    )
    with torch.no_grad():
        y = _solve(logits, family, components, level)
    if differentiable:  # implicit function theorem: dy = -d(F - level) / density
        log_densities = logits + family.log_prob(components, y[..., None])
        density = torch.logsumexp(log_densities, -1).exp().detach()
        gap = (logits.exp() * family.cdf(components, y[..., None])).sum(-1) - level
        y = y - (gap - gap.detach()) / density
    return y


def _solve(logits: Tensor, family: ScalarFamily, components: Distribution, level: Tensor) -> Tensor:
    dtype = torch.promote_types(logits.dtype, level.dtype)
    eps = torch.finfo(dtype).eps
    weights = logits.exp()
    present = weights > 0
    upper_half = level > 0.5
    tail = torch.where(upper_half, 1 - level, level)  # exact: 1 - level is, for level >= 1/2

    quantiles = torch.where(
        upper_half[..., None], family.isf(components, tail[..., None]), family.icdf(components, tail[..., None])
    ).to(dtype)
    low = torch.where(present, quantiles, torch.inf).amin(-1)
    high = torch.where(present, quantiles, -torch.inf).amax(-1)
    settled = ~(low.isfinite() & high.isfinite())  # levels 0 and 1
    y = torch.where(present, weights * quantiles, 0).sum(-1).clamp(low, high)
    y = torch.where(settled, low, y)
    low, high = low - 4 * eps * low.abs(), high + 4 * eps * high.abs()  # the quantiles are rounded
    quarter = torch.full_like(weights, 0.25)
    spread = family.isf(components, quarter) - family.icdf(components, quarter)
    smallest_spread = torch.where(present, spread, torch.inf).amin(-1)
    resolution = eps * smallest_spread  # for quantiles near 0

    step_before = last_step = torch.full_like(y, torch.inf)
    tie = torch.zeros_like(settled)
    for _ in range(_MAX_STEPS):
        excess, density, is_tie = _excess(weights, logits, family, components, tail, upper_half, y)
        tie = torch.where(settled, tie, is_tie & (density * smallest_spread < torch.finfo(dtype).tiny ** 0.5))
        low = torch.where(excess < 0, y, low)
        high = torch.where(excess > 0, y, high)
        reached = torch.where(upper_half, tail - excess, tail + excess)
        log_ratio = torch.where(upper_half, -torch.log1p(-excess / tail), torch.log1p(excess / tail))
        newton = y - log_ratio * reached / density
        trusted = (newton >= low) & (newton <= high) & ((newton - y).abs() <= 0.5 * step_before)
        proposal = torch.where(trusted, newton, low + 0.5 * (high - low))
        step = (proposal - y).abs()
        y = torch.where(settled | tie | (excess == 0), y, proposal)
        settled = settled | tie | (excess == 0) | (step <= torch.maximum(eps * y.abs(), resolution))
        if bool(settled.all()):
            break
        step_before, last_step = last_step, step
    if bool(tie.any()):
        axes = y.shape + logits.shape[-1:]
        parts = family.map(components, lambda tensor: tensor.expand(axes)[tie])
        y[tie] = _solve_tie(logits.expand(axes)[tie], family, parts, y[tie])
    return y


def _solve_tie(logits: Tensor, family: ScalarFamily, components: Distribution, y: Tensor) -> Tensor:
    """The quantile where the components left of y weigh exactly the level, and F is constant to all digits around y.

    It is the point at which the upper tail of the left components equals the lower tail of the right ones; both have
    underflown, so their logarithms are compared, by bisection.
    """
    half = torch.full_like(logits, 0.5)
    medians = family.icdf(components, half)
    is_left = medians < y[:, None]
    present = logits > -torch.inf
    low = torch.where(is_left & present, medians, -torch.inf).amax(-1)
    high = torch.where(~is_left & present, medians, torch.inf).amin(-1)
    for _ in range(_MAX_STEPS):
        y = low + 0.5 * (high - low)
        above_left = torch.where(is_left, logits + family.log_survival(components, y[:, None]), -torch.inf)
        below_right = torch.where(is_left, -torch.inf, logits + family.log_cdf(components, y[:, None]))
        is_high = below_right.logsumexp(-1) >= above_left.logsumexp(-1)
        low, high = torch.where(is_high, low, y), torch.where(is_high, y, high)
    return y


def _excess(
    weights: Tensor,
    logits: Tensor,
    family: ScalarFamily,
    components: Distribution,
    tail: Tensor,
    upper_half: Tensor,
    y: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """F(y) - level without cancellation, the density at y, and whether the components left of y weigh the level.

    A component left of y contributes w_k - w_k S_k(y), one right of it w_k F_k(y). The whole weights are summed and
    compared with the level first; what is left are small tails, each known to full relative precision.
    """
    cdf = family.cdf(components, y[..., None])
    is_left = cdf > 0.5
    tails = torch.where(is_left, -weights * family.survival(components, y[..., None]), weights * cdf).sum(-1)
    weight_left = torch.where(is_left, weights, 0).sum(-1)
    weight_right = torch.where(is_left, 0, weights).sum(-1)
    whole = torch.where(upper_half, tail - weight_right, weight_left - tail)
    density = torch.logsumexp(logits + family.log_prob(components, y[..., None]), -1).exp()
    return whole + tails, density, whole == 0
