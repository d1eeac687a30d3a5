"""The normal law cut off at one or both ends."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from .base import BoundedFamily
from .normal import positive, smallest_scale, unpositive, weighted_moments

_FAR = 40.0
"""Standard deviations beyond which there is nothing of a normal law, nor of its tail beyond any point."""
_MILLS_FROM, _MILLS_LEVELS = 4.0, 24
"""Where erfcx gives way to a continued fraction, and how deep that goes."""
_HALF_RANGE = 38.0
"""Nats below its maximum at which a density has ended, for moments by quadrature."""
_DEEPEST = 760.0
"""The same for quantiles: below exp(-745) there are no numbers."""
_NODES, _NODE_WEIGHTS = (torch.as_tensor(part) for part in np.polynomial.legendre.leggauss(64))
_FEW_NODES, _FEW_WEIGHTS = (torch.as_tensor(part) / 2 for part in np.polynomial.legendre.leggauss(12))
_FIT_STEPS = 40
_MAX_STEPS = 200
_FARTHEST_LOC = 10.0
"""Scales between the parent's loc and the support that `fit` allows: beyond, the law hardly differs from an
exponential one, whose best loc may be infinitely far away."""


class TruncatedNormal(Distribution):
    """N(loc, scale^2) given that it falls between low and high, either of which may be infinite.

    `loc` and `scale` are those of the uncut law, its parent. All tensors have the batch's shape.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore

    def __init__(self, loc: Tensor, scale: Tensor, low: Tensor, high: Tensor, validate_args: bool | None = None):
        self.loc, self.scale, self.low, self.high = loc, scale, low, high
        super().__init__(loc.shape, validate_args=validate_args)

    @property
    def support(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return constraints.interval(self.low, self.high)

    @property
    def mode(self) -> Tensor:
        """The point of the support nearest to loc."""
        return torch.minimum(torch.maximum(self.loc, self.low), self.high)

    @property
    def mean(self) -> Tensor:
        points, masses = self.quadrature()
        return self.mode + self.scale * (masses * points).sum(-1)

    @property
    def variance(self) -> Tensor:
        return self.scale.square() * self.central_moment(2)

    def central_moment(self, order: int) -> Tensor:
        """E[(Y - E[Y])^order], in units of the scale."""
        points, masses = self.quadrature()
        deviation = points - (masses * points).sum(-1, keepdim=True)
        return (masses * deviation.pow(order)).sum(-1)

    def quadrature(self) -> tuple[Tensor, Tensor]:
        """Points (y - mode)/scale along a last axis, and masses at them that sum to 1."""
        offset = ((self.mode - self.loc) / self.scale)[..., None]
        below, above = (reach[..., None] for reach in self.reach(_HALF_RANGE))
        points = 0.5 * (above - below) + 0.5 * (above + below) * _NODES.to(offset)
        masses = (-points * (offset + 0.5 * points)).exp() * _NODE_WEIGHTS.to(offset)
        return points, masses / masses.sum(-1, keepdim=True)

    def reach(self, drop: float) -> tuple[Tensor, Tensor]:
        """How far, in scales, the law extends below and above its mode before log density has fallen by `drop`."""
        offset, root = (self.mode - self.loc) / self.scale, math.sqrt(2 * drop)
        steepness = (-offset).clamp(min=0), offset.clamp(min=0)
        below, above = (root * (root / (x + torch.hypot(x, x.new_tensor(root)))) for x in steepness)
        below = torch.minimum(ratio(self.mode - self.low, self.scale), below)
        return below, torch.minimum(ratio(self.high - self.mode, self.scale), above)

    def expand(self, batch_shape, _instance=None) -> "TruncatedNormal":
        tensors = (self.loc, self.scale, self.low, self.high)
        return TruncatedNormal(*(tensor.expand(batch_shape) for tensor in tensors), validate_args=False)


@dataclass(frozen=True, repr=False)
class TruncatedNormalFamily(BoundedFamily[TruncatedNormal]):
    """N(loc, scale^2) given that it falls within bounds: 2 raw parameters, of loc and of scale of the uncut law.

    Its loc may lie far outside the bounds, where the law nears an exponential one; everything is computed relative to
    the density's maximum within them, so that it stays right hundreds of scales away. Quantiles are found by
    iteration and carry no gradients; those of a mixture do.
    """

    bounds: tuple[float, float] = (0.0, math.inf)
    """The ends of the support; either may be infinite."""

    name = "truncated_normal"

    def owns(self, components: Distribution) -> bool:
        return type(components) is TruncatedNormal

    def n_raw(self, event_size: int | None) -> int:
        return 2

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> TruncatedNormal:
        return self._bounded(raw[..., 0], positive(raw[..., 1], scale_floor))

    def _bounded(self, loc: Tensor, scale: Tensor) -> TruncatedNormal:
        low, high = (torch.full_like(loc, end) for end in self.bounds)
        return self.from_parameters(loc, scale, low, high)

    def unbuild(self, components, scale_floor: Tensor | float = 0.0):
        return torch.stack([components.loc, unpositive(components.scale, scale_floor)], -1)

    def fit(self, y, weights) -> TruncatedNormal:
        # Newton's method in the natural parameters, where the likelihood is concave; of each step, the best fraction.
        mean, covariance = weighted_moments(y.clamp(*self.bounds)[:, None], weights)
        mean, variance, smallest = mean[:, 0].clamp(*self.bounds), covariance[:, 0, 0], smallest_scale(y[:, None])
        fractions = torch.cat([0.5 ** torch.arange(12, dtype=y.dtype, device=y.device), torch.zeros_like(y[:1])])

        def likelihood(law: TruncatedNormal) -> Tensor:
            """Mean log-likelihood, but for a constant."""
            spread = variance + (mean - law.mode) * (mean + law.mode - 2 * law.loc)
            return -0.5 * spread / law.scale.square() - law.scale.log() - _log_whole(law)

        law = self._bounded(mean, variance.sqrt())
        for _ in range(_FIT_STEPS):
            points, masses = law.quadrature()
            centre = (law.mode - mean)[:, None]
            x = centre + law.scale[:, None] * points  # y - mean of the rows
            expected = (masses * x).sum(-1), (masses * x.square()).sum(-1)
            first, second = x - expected[0][:, None], x.square() - expected[1][:, None]
            aa, ab, bb = ((masses * p).sum(-1) for p in (first.square(), first * second, second.square()))
            determinant = (aa * bb - ab.square()).clamp(min=torch.finfo(y.dtype).tiny)
            gaps = -expected[0], variance - expected[1]
            steps = (bb * gaps[0] - ab * gaps[1]) / determinant, (aa * gaps[1] - ab * gaps[0]) / determinant
            precision = (law.scale.pow(-2) - 2 * fractions[:, None] * steps[1]).clamp(min=0)
            loc = ((law.loc - mean) / law.scale.square() + fractions[:, None] * steps[0]) / precision + mean
            tried = self._bounded(loc, precision.rsqrt())
            distance = (tried.loc - tried.mode).abs() / tried.scale
            is_allowed = (tried.scale >= smallest) & tried.scale.isfinite() & (distance <= _FARTHEST_LOC)
            # The last fraction is 0, the law as it is, which is always allowed.
            is_allowed[-1] = True
            tried = self.map(tried, lambda tensor, ok=is_allowed: torch.where(ok, tensor, tensor[-1]))
            best = likelihood(tried).argmax(0, keepdim=True)
            law = self.map(tried, lambda tensor, rows=best: tensor.gather(0, rows)[0])
        return law

    def parameters(self, components):
        return components.loc, components.scale, components.low, components.high

    def from_parameters(self, *parameters: Tensor) -> TruncatedNormal:
        return TruncatedNormal(*parameters, validate_args=False)

    def log_prob(self, components, y):
        is_inside = (y >= components.low) & (y <= components.high) & y.isfinite()
        drop = _log_drop(components, torch.where(is_inside, y, components.mode))
        inside = drop - components.scale.log() - _log_whole(components)
        return torch.where(is_inside, inside, -torch.inf)

    def cdf(self, components, y):
        return torch.where(y < components.high, self._log_lower(components, y).exp(), 1)

    def survival(self, components, y):
        return self.cdf(_mirrored(components), -y)

    def log_cdf(self, components, y):
        lower, upper = self._log_lower(components, y), self._log_lower(_mirrored(components), -y)
        is_near = (y < components.high) & (upper < lower)
        near = torch.log1p(-torch.where(is_near, upper, -1).exp())
        return torch.where(y < components.high, torch.where(is_near, near, lower), 0)

    def log_survival(self, components, y):
        return self.log_cdf(_mirrored(components), -y)

    def _log_lower(self, components: TruncatedNormal, y: Tensor) -> Tensor:
        """log P(Y <= y) for y below the upper end, -inf elsewhere."""
        is_inside = (y > components.low) & (y < components.high)
        y = torch.where(is_inside, y, _inner_point(components))
        z = (y - components.loc) / components.scale
        part = log_mass(
            ratio(components.low - components.loc, components.scale), z, ratio(y - components.low, components.scale)
        )
        # Up to y the density has its maximum at y where that is below loc.
        drop = torch.where(z < 0, _log_drop(components, y), 0)
        total = drop + part - _log_whole(components)
        return torch.where(is_inside, total - total.detach().clamp(min=0), -torch.inf)

    def icdf(self, components, q):
        return self._quantile(components, q, q > 0.5)

    def isf(self, components, q):
        return self._quantile(components, q, q <= 0.5)

    def _quantile(self, components: TruncatedNormal, q: Tensor, is_upper: Tensor) -> Tensor:
        """The point with mass min(q, 1 - q) beyond it, at the upper or the lower end."""
        with torch.no_grad():
            mirrored = zip(self.parameters(components), self.parameters(_mirrored(components)), strict=True)
            law = self.from_parameters(*(torch.where(is_upper, there, here) for here, there in mirrored))
            below, above = law.reach(_DEEPEST)
            y = invert(
                lambda y: self._log_lower(law, y),
                lambda y: self.log_prob(law, y),
                torch.maximum(law.mode - law.scale * below, law.low),
                torch.minimum(law.mode + law.scale * above, law.high),
                torch.minimum(q, 1 - q),
            )
            y = torch.where((q > 0) & (q < 1), y, law.low)
            return torch.where(is_upper, -y, y)

    def third_moment(self, components):
        return components.scale.pow(3) * components.central_moment(3)

    def sample(self, components, generator=None):
        loc = components.loc
        level = torch.rand(loc.shape, dtype=loc.dtype, device=loc.device, generator=generator)
        return self.icdf(components, level)

    def affine(self, components, a, b) -> TruncatedNormal:
        low, high = self.moved_ends(components, a, b)
        return self.from_parameters(a + b * components.loc, b.abs() * components.scale, low, high)

    def widen(self, components, factor) -> TruncatedNormal:
        """The normal law that is cut off, about its own mean."""
        loc, scale, *ends = self.parameters(components)
        return self.from_parameters(loc, factor * scale, *ends)


def ratio(difference: Tensor, scale: Tensor) -> Tensor:
    """difference/scale, without NaN in the gradient where the difference is infinite."""
    is_finite = difference.isfinite()
    return torch.where(is_finite, torch.where(is_finite, difference, 0) / scale, difference)


def log_mass(low: Tensor, high: Tensor, width: Tensor) -> Tensor:
    """log of the integral of exp(-(x^2 - m^2)/2) over low < x < high, m being the point there that is nearest to 0.

    `width` is high - low, with all its digits.
    """
    is_mirrored = low + high < 0
    near, far = torch.where(is_mirrored, -high, low), torch.where(is_mirrored, -low, high)
    is_tail = near > 0
    root = math.sqrt(0.5)
    around = torch.erf(root * torch.where(is_tail, 1, far)) + torch.erf(-root * torch.where(is_tail, 0, near))
    near, width = torch.where(is_tail, near, 1), torch.where(is_tail, width, 1).clamp(max=_FAR)
    drop = width * (near + 0.5 * width)
    is_short = drop < 1  # a difference of Mills ratios would cancel
    points = torch.where(is_short, width, 1)[..., None] * (0.5 + _FEW_NODES.to(near))
    slope = torch.where(is_short, near, 0)[..., None]
    short = torch.where(is_short, width, 1) * ((-points * (slope + 0.5 * points)).exp() @ _FEW_WEIGHTS.to(near))
    near, width = torch.where(is_short, 1, near), torch.where(is_short, 1, width)
    drop = width * (near + 0.5 * width)
    long = mills_ratio(near) - (-drop).exp() * mills_ratio(near + width)
    return torch.where(is_tail, torch.where(is_short, short, long), math.sqrt(0.5 * math.pi) * around).log()


def mills_ratio(x: Tensor) -> Tensor:
    """(1 - Phi(x))/phi(x) for x >= 0; by Laplace's continued fraction where erfcx's gradient would cancel."""
    is_small = x < _MILLS_FROM
    near, far = torch.where(is_small, x, 0), torch.where(is_small, _MILLS_FROM, x)
    fraction = 2 * _MILLS_LEVELS / (far + torch.hypot(far, far.new_tensor(2 * math.sqrt(_MILLS_LEVELS))))
    for level in range(_MILLS_LEVELS - 1, 0, -1):
        fraction = level / (far + fraction)
    scaled = math.sqrt(0.5 * math.pi) * torch.special.erfcx(math.sqrt(0.5) * near)
    return torch.where(is_small, scaled, 1 / (far + fraction))


def invert(
    log_lower: Callable[[Tensor], Tensor],
    log_density: Callable[[Tensor], Tensor],
    low: Tensor,
    high: Tensor,
    level: Tensor,
) -> Tensor:
    """The y between low and high at which a cdf reaches `level`, by Newton's method.

    A step that leaves the bracket, or is not half as long as the last but one, is replaced by bisection (Dekker 1969).
    """
    log_level = level.log()
    low, high, log_level = torch.broadcast_tensors(low, high, log_level)
    # Where the density starts at an end, the tangent there.
    y = torch.minimum(low + (log_level - log_density(low)).exp(), low + 0.5 * (high - low))
    eps = torch.finfo(y.dtype).eps
    before = last = torch.full_like(y, torch.inf)
    is_end = (log_level == -torch.inf) | (log_level == 0)
    y = torch.where(is_end, torch.where(log_level == 0, high, low), y)
    is_found = is_end.clone()
    for _ in range(_MAX_STEPS):
        reached = log_lower(y)
        excess = reached - log_level
        low, high = torch.where(excess < 0, y, low), torch.where(excess > 0, y, high)
        slope = (reached - log_density(y)).exp()
        # Straight on the logarithm in a tail, and on the cdf itself where the density starts at an end.
        newton, linear = y - excess * slope, y + torch.expm1(-excess) * slope
        newton = torch.where((newton >= low) & (newton <= high), newton, linear)
        is_trusted = (newton >= low) & (newton <= high) & ((newton - y).abs() <= 0.5 * before)
        proposal = torch.where(is_trusted, newton, low + 0.5 * (high - low))
        before, last = last, (proposal - y).abs()
        is_found = is_found | (excess.abs() <= 2 * eps)
        y = torch.where(is_found, y, proposal)
        is_found = is_found | (last <= eps * y.abs())
        if bool(is_found.all()):
            break
    return y


def _mirrored(law: TruncatedNormal) -> TruncatedNormal:
    """The law of -Y."""
    return TruncatedNormal(-law.loc, law.scale, -law.high, -law.low, validate_args=False)


def _log_drop(law: TruncatedNormal, y: Tensor) -> Tensor:
    """Log density at y less that at the mode."""
    z = (y - law.mode) / law.scale
    return -z * ((law.mode - law.loc) / law.scale + 0.5 * z)


def _log_whole(law: TruncatedNormal) -> Tensor:
    """`log_mass` of the whole support."""
    ends = (ratio(end - law.loc, law.scale) for end in (law.low, law.high))
    return log_mass(*ends, width=ratio(law.high - law.low, law.scale))


def _inner_point(law: TruncatedNormal) -> Tensor:
    """Some point between the ends."""
    step = law.scale + 1e-3 * law.mode.abs()
    low = torch.where(law.low.isfinite(), law.low, law.mode - step)
    high = torch.where(law.high.isfinite(), law.high, law.mode + step)
    return (low + 0.5 * (high - low)).detach()
