"""The normal law of a scalar target (Bishop 1994, eq. 23)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Normal

from .base import ScalarFamily

_ROOT_2PI = math.sqrt(2 * math.pi)
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_FARTHEST = {torch.float32: 12.9, torch.float64: 37.5}
"""Scales from the mean beyond which exp(-z^2/2) is below the smallest normal number: as good as 0, but to let it
underflow takes up to twenty times as long."""
_SMALLEST_RAW = -40.0
"""Of a scale without a floor: below it, one unit away, a squared deviation overflows float32."""
_FIT_SCALE_FLOOR = 1e-3
"""Smallest scale that `fit` returns, as a fraction of the target's own."""


def normal_log_density(z: Tensor, log_scale: Tensor) -> Tensor:
    """Log density of loc + scale*Z at standardised z. Subtracting before scaling keeps float32 exact far from 0."""
    return -0.5 * z.square() - log_scale - _HALF_LOG_2PI


def standard_cdf(z: Tensor) -> Tensor:
    """P(Z <= z) of a standard normal, by erfc: `torch.special.ndtr` loses the lower tail (it is 0 at z = -10)."""
    return 0.5 * torch.special.erfc(-math.sqrt(0.5) * z)


def mean_absolute(loc: Tensor, scale: Tensor) -> Tensor:
    """E|X| of a normal X."""
    farthest = _FARTHEST.get(loc.dtype, torch.inf) * math.sqrt(0.5)
    x = (loc / (math.sqrt(2) * scale)).clamp(-farthest, farthest)
    return torch.addcmul(loc * torch.erf(x), scale, torch.exp(-x.square()), value=math.sqrt(2 / math.pi))


def positive(raw: Tensor, floor: Tensor | float) -> Tensor:
    """floor + (exp(raw) below 0, 1 + raw above): a positive scale that never falls below its floor.

    It is exponential where scales are small and must be learned over orders of magnitude, and linear beyond 1 (the
    target's own scale, where that is standardised), so that it does not explode outside the range of the features.
    """
    return floor + torch.where(raw < 0, raw.clamp(_SMALLEST_RAW, 0).exp(), 1 + raw)


def positive_and_growth(raw: Tensor, floor: Tensor | float) -> tuple[Tensor, Tensor]:
    """`positive` and its derivative; where `raw` is so small that this is 0, that of the bound, so that it can grow."""
    growth = raw.clamp(_SMALLEST_RAW, 0).exp_()
    return (growth + floor).add_(raw.clamp(min=0)), growth


def normal_slopes(loc: Tensor, scale_and_growth: tuple[Tensor, Tensor], y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log density of N(loc, scale^2) at y, and its derivatives in loc and in the raw parameter that scale grows with.

    Both of the pair are overwritten.
    """
    scale, growth = scale_and_growth
    precision = scale.reciprocal_()
    z = (y - loc).mul_(precision)
    squared = z.square()
    log_density = torch.sub(precision.log().sub_(_HALF_LOG_2PI), squared, alpha=0.5)
    return log_density, z * precision, squared.sub_(1).mul_(growth.mul_(precision))


def unpositive(scale: Tensor, floor: Tensor | float) -> Tensor:
    """The inverse of `positive`; a scale at the floor is taken as just above it."""
    above = torch.maximum(scale - floor, 1e-6 * scale)
    return torch.where(above < 1, above.log(), above - 1)


def shares(weights: Tensor) -> Tensor:
    """Each column of weights divided by its sum; a column of zeros counts all rows alike."""
    total = weights.sum(0)
    return torch.where(total > 0, weights / torch.where(total > 0, total, 1), 1 / len(weights))


def weighted_moments(
    y: Float[Tensor, "n d"], weights: Float[Tensor, "n k"]
) -> tuple[Float[Tensor, "k d"], Float[Tensor, "k d d"]]:
    """Weighted mean and covariance of each column of weights, the covariance kept away from singular."""
    share = shares(weights)
    loc = torch.einsum("nk,nd->kd", share, y)
    deviation = y[:, None, :] - loc
    covariance = torch.einsum("nk,nkd,nke->kde", share, deviation, deviation)
    return loc, covariance + torch.diag_embed(smallest_scale(y).square())


def smallest_scale(y: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """Of each coordinate, the smallest scale that `fit` returns."""
    spread, is_constant = y.std(0, correction=0), y.amax(0) == y.amin(0)  # whose rounded spread need not be 0
    return _FIT_SCALE_FLOOR * torch.where(is_constant | (spread == 0), 1, spread)


class NormalFamily(ScalarFamily[Normal]):
    """N(loc, scale^2): 2 raw parameters, of loc and of scale."""

    name = "normal"
    has_distances = True

    def owns(self, components: Distribution) -> bool:
        return type(components) is Normal

    def n_raw(self, event_size: int | None) -> int:
        return 2

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> Normal:
        return Normal(raw[..., 0], positive(raw[..., 1], scale_floor), validate_args=False)

    def unbuild(self, components, scale_floor: Tensor | float = 0.0):
        return torch.stack([components.loc, unpositive(components.scale, scale_floor)], -1)

    def log_prob_and_slopes(self, raw, scale_floor, y):
        log_prob, *slopes = normal_slopes(raw[..., 0], positive_and_growth(raw[..., 1], scale_floor), y)
        return log_prob, torch.stack(slopes).movedim(0, -1)

    def fit(self, y, weights) -> Normal:
        loc, covariance = weighted_moments(y[:, None], weights)
        return Normal(loc[:, 0], covariance[:, 0, 0].sqrt(), validate_args=False)

    def parameters(self, components):
        return components.loc, components.scale

    def from_parameters(self, *parameters: Tensor) -> Normal:
        return Normal(*parameters, validate_args=False)

    def log_prob(self, components, y):
        return normal_log_density((y - components.loc) / components.scale, components.scale.log())

    def cdf(self, components, y):
        return standard_cdf((y - components.loc) / components.scale)

    def survival(self, components, y):
        return standard_cdf((components.loc - y) / components.scale)

    def log_cdf(self, components, y):
        return torch.special.log_ndtr((y - components.loc) / components.scale)

    def log_survival(self, components, y):
        return torch.special.log_ndtr((components.loc - y) / components.scale)

    def icdf(self, components, q):
        return components.loc + components.scale * torch.special.ndtri(q)

    def isf(self, components, q):
        return components.loc - components.scale * torch.special.ndtri(q)

    def tail_and_density(self, components, y):
        z = (y - components.loc) / components.scale
        distance = z.abs()
        tail = 0.5 * torch.special.erfc(math.sqrt(0.5) * distance)
        farthest = _FARTHEST.get(y.dtype, torch.inf)
        density = torch.exp(-0.5 * distance.clamp(max=farthest).square())
        density = torch.threshold(density, 1.001 * math.exp(-0.5 * farthest**2), 0) / (_ROOT_2PI * components.scale)
        return tail, torch.copysign(z.new_ones(()), z), density

    def third_moment(self, components):
        return torch.zeros_like(components.loc)

    def slope(self, components, y):
        return (components.loc - y) / components.scale / components.scale

    def mean_distance(self, components, y):
        return mean_absolute(y - components.loc, components.scale)

    def mean_difference(self, first, second):
        return mean_absolute(first.loc - second.loc, torch.hypot(first.scale, second.scale))

    def sample(self, components, generator=None):
        return components.loc + components.scale * standard_normal(components.loc, generator)

    def affine(self, components, a, b) -> Normal:
        return Normal(a + b * components.loc, b.abs() * components.scale, validate_args=False)


def standard_normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal draws with the shape, dtype and device of `like`, by pairs (Box and Muller 1958).

    So does torch's own `randn`, but in float64 half as fast, since on one thread.
    """
    n_pairs = (like.numel() + 1) // 2
    u, angle = torch.rand(2, n_pairs, dtype=like.dtype, device=like.device, generator=generator)
    distance = (-2 * torch.log1p(-u)).sqrt()
    angle = 2 * math.pi * angle
    draws = torch.cat([distance * angle.cos(), distance * angle.sin()])
    return draws[: like.numel()].reshape(like.shape)
