"""Integrals over scalar laws that have no closed form: Gauss-Legendre between the quantiles of all components."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from .base import ScalarFamily

_MANY_POINTS, _ENOUGH_POINTS = 192, 96
"""Quantiles between which is integrated: all those of seven components. Of more components, fewer may serve all, more
of those with more weight: the work would otherwise grow with the square of their number."""
_TAILS = (1e-32, 1e-26, 1e-20, 1e-15, 1e-11, 1e-8, 1e-6, 1e-4, 1e-3, 0.01, 0.05, 0.15, 0.3)


@torch.no_grad()
def quadrature(
    family: ScalarFamily,
    components: Distribution,
    breaks: Tensor | None = None,
    n_nodes: int = 12,
    weights: Tensor | None = None,
    n_points: int = _ENOUGH_POINTS,
) -> tuple[Tensor, Tensor]:
    """Nodes and weights for an integral over the line of what is smooth between the quantiles of each component.

    Parameters
    ----------
    components
        Batch_shape (*B, K), continuous.
    breaks
        Points at which the integrand may jump or bend, shape (*B, m), besides the kinks of the density.
    n_nodes
        Between neighbouring points.
    weights
        Of the components, shape (*B, K): where components are many, fewer points serve all. That is for what grows with
        the distance, such as the CRPS; where a density is squared, no narrow component may be passed over. Else None.
    n_points
        How many these are.

    Returns
    -------
    nodes, weights
        Shape (P, *B). What lies beyond the components' quantiles of 1e-32 is left out.
    """
    tails = components.mean.new_tensor(_TAILS).reshape(-1, *[1] * (len(components.batch_shape)))
    middle = family.icdf(components, 0.5 * torch.ones_like(tails[:1]))
    points = torch.cat([family.icdf(components, tails), middle, family.isf(components, tails)]).movedim(0, -1)
    if weights is not None and points.shape[-2:].numel() > _MANY_POINTS:
        points = _fewer(points, weights, n_points)
    points = torch.cat([points.flatten(-2), family.kinks(components).flatten(-2)], -1)
    if breaks is not None:
        points = torch.cat([points, breaks.expand(*points.shape[:-1], breaks.shape[-1])], -1)
    points = points.clamp(torch.finfo(points.dtype).min / 4, torch.finfo(points.dtype).max / 4).sort(-1).values
    left, right = points[..., :-1].movedim(-1, 0), points[..., 1:].movedim(-1, 0)
    # Towards a finite end, where the density may be infinite, by the logarithm of the distance to it.
    low, high = family.support(components)
    low, high, centre = low.amin(-1), high.amax(-1), middle[0].mean(-1)
    from_low = low.isfinite() & (left > low) & (right <= centre)
    from_high = high.isfinite() & (right < high) & (left >= centre)
    is_curved = from_low | from_high
    end = torch.where(from_low, low, torch.where(from_high, high, left - 1))
    start, stop = ((part - end).abs().log() for part in (left, torch.where(is_curved, right, left)))
    rule = np.polynomial.legendre.leggauss(n_nodes)
    at, mass = (torch.as_tensor(part).to(points).reshape(-1, 1, *[1] * (left.ndim - 1)) for part in rule)
    at, mass = 0.5 + 0.5 * at, 0.5 * mass
    distance = (start + at * (stop - start)).exp()
    curved = torch.where(from_low, low + distance, high - distance)
    nodes = torch.where(is_curved, curved, left + at * (right - left))
    mass = mass * torch.where(is_curved, distance * (stop - start).abs(), right - left)
    return nodes.flatten(0, 1), mass.flatten(0, 1)


def _fewer(points: Tensor, weights: Tensor, n_points: int) -> Tensor:
    """Of the points of K components, (*B, K, m), some for all, (*B, 1, n), sorted: each component has a share of them
    that is half the same for all, and half its weight."""
    equal = torch.full_like(points[..., 0], 1 / points.shape[-2])
    share = 0.5 * (equal + weights.detach().to(points))
    points, order = points.flatten(-2).sort(-1)
    reached = share.repeat_interleave(len(_TAILS) * 2 + 1, -1).gather(-1, order).cumsum(-1)
    levels = torch.linspace(0, 1, n_points, dtype=points.dtype, device=points.device) * reached[..., -1:]
    chosen = torch.searchsorted(reached, levels.contiguous()).clamp(max=points.shape[-1] - 1)
    return points.gather(-1, chosen).unsqueeze(-2)
