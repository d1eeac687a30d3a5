"""The lognormal law of a positive target."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, LogNormal

from .base import ScalarFamily
from .normal import (
    normal_log_density,
    normal_slopes,
    standard_cdf,
    standard_normal,
    weighted_moments,
)

_NODES, _NODE_WEIGHTS = (torch.as_tensor(part) / 2 for part in np.polynomial.legendre.leggauss(16))
_WIDEST, _SMALLEST_RAW = 2.0, -40.0
_WIDE = 1.5
"""Above it the mass of an interval is found as a difference, below it by quadrature."""


def _bounded(raw: Tensor, floor: Tensor | float) -> tuple[Tensor, Tensor]:
    """A scale between the floor and 2 more, and its derivative in the raw parameter."""
    above = _WIDEST * raw.clamp(min=_SMALLEST_RAW).sigmoid()
    return floor + above, above * (1 - above / _WIDEST)


def _unbounded(scale: Tensor, floor: Tensor | float) -> Tensor:
    """The inverse of `_bounded`; a scale outside of the bounds is taken as just inside."""
    above = torch.maximum(scale - floor, 1e-6 * scale).clamp(max=(1 - 1e-6) * _WIDEST)
    return torch.logit(above / _WIDEST)


@dataclass(frozen=True, repr=False)
class LogNormalFamily(ScalarFamily[LogNormal]):
    """exp(N(loc, scale^2)), positive: 2 raw parameters, of loc and of scale, both of log y.

    The floor bounds the scale of log y, a relative error of y, whatever the target's unit. A network's scale is at most
    2 above the floor: a component that no row needs would otherwise grow wide, and its mean, exp(loc + scale^2/2),
    outweigh all others at any weight. Nor is its loc beyond `loc_bounds`, of log y, if there are any. Values of
    0 and below are impossible.
    """

    name = "lognormal"
    loc_bounds: tuple[float, float] | None = None
    closed_under = "scale"
    has_distances = True

    def owns(self, components: Distribution) -> bool:
        return type(components) is LogNormal

    def n_raw(self, event_size: int | None) -> int:
        return 2

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> LogNormal:
        loc, scale = raw[..., 0], _bounded(raw[..., 1], scale_floor)[0]
        if self.loc_bounds is not None:
            loc = loc.clamp(*self.loc_bounds)
        return LogNormal(loc, scale, validate_args=False)

    def moved(self, a: Sequence[float], b: Sequence[float]) -> "LogNormalFamily":
        if self.loc_bounds is None:
            return self
        low, high = (end + math.log(b[0]) for end in self.loc_bounds)
        return replace(self, loc_bounds=(low, high))

    def unbuild(self, components, scale_floor: Tensor | float = 0.0):
        return torch.stack([components.loc, _unbounded(components.scale, scale_floor)], -1)

    def log_prob_and_slopes(self, raw, scale_floor, y):
        is_inside = y > 0
        log_y = torch.where(is_inside, y, 1).log()
        scale_and_growth = _bounded(raw[..., 1], scale_floor)
        loc = raw[..., 0] if self.loc_bounds is None else raw[..., 0].clamp(*self.loc_bounds)
        log_prob, of_loc, of_scale = normal_slopes(loc, scale_and_growth, log_y)
        of_loc = torch.where(loc == raw[..., 0], of_loc, 0)
        return torch.where(is_inside, log_prob - log_y, -torch.inf), torch.stack([of_loc, of_scale], -1)

    def fit(self, y, weights) -> LogNormal:
        is_inside = y > 0
        log_y = y[is_inside].log()
        if not len(log_y):  # no law is likely
            log_y, is_inside = torch.zeros_like(y), torch.ones_like(is_inside)
        loc, covariance = weighted_moments(log_y[:, None], weights[is_inside])
        return LogNormal(loc[:, 0], covariance[:, 0, 0].sqrt(), validate_args=False)

    def parameters(self, components):
        return components.loc, components.scale

    def from_parameters(self, *parameters: Tensor) -> LogNormal:
        return LogNormal(*parameters, validate_args=False)

    def support(self, components):
        zero = torch.zeros_like(components.loc)
        return zero, zero + torch.inf

    def log_prob(self, components, y):
        is_inside, log_y, z = self._standardise(components, y)
        return torch.where(is_inside, normal_log_density(z, components.scale.log()) - log_y, -torch.inf)

    def cdf(self, components, y):
        is_inside, _, z = self._standardise(components, y)
        return torch.where(is_inside, standard_cdf(z), 0)

    def survival(self, components, y):
        is_inside, _, z = self._standardise(components, y)
        return torch.where(is_inside, standard_cdf(-z), 1)

    def log_cdf(self, components, y):
        is_inside, _, z = self._standardise(components, y)
        return torch.where(is_inside, torch.special.log_ndtr(z), -torch.inf)

    def log_survival(self, components, y):
        is_inside, _, z = self._standardise(components, y)
        return torch.where(is_inside, torch.special.log_ndtr(-z), 0)

    @staticmethod
    def _standardise(components: LogNormal, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Whether y is positive, its logarithm (0 where there is none), and that standardised."""
        is_inside = y > 0
        log_y = torch.where(is_inside, y, 1).log()
        return is_inside, log_y, (log_y - components.loc) / components.scale

    def icdf(self, components, q):
        return (components.loc + components.scale * torch.special.ndtri(q)).exp()

    def isf(self, components, q):
        return (components.loc - components.scale * torch.special.ndtri(q)).exp()

    def third_moment(self, components):
        square = components.scale.square()
        growth = torch.expm1(square)
        return (3 * components.loc + 1.5 * square).exp() * growth.square() * (growth + 3)

    def mean_distance(self, components, y):
        is_inside, log_y, _ = self._standardise(components, y)
        log_mean = components.loc + 0.5 * components.scale.square()
        inside = _mean_gap(log_y, log_mean, components.scale)
        return torch.where(is_inside, inside, log_mean.exp() - y)

    def mean_difference(self, first, second):
        log_mean, other = (law.loc + 0.5 * law.scale.square() for law in (first, second))
        return _mean_gap(log_mean, other, torch.hypot(first.scale, second.scale))

    def sample(self, components, generator=None):
        return (components.loc + components.scale * standard_normal(components.loc, generator)).exp()

    def affine(self, components, a, b) -> LogNormal:
        return LogNormal(components.loc + b.log(), components.scale, validate_args=False)

    def widen(self, components, factor) -> LogNormal:
        """The logarithm, about its own mean."""
        return LogNormal(components.loc, factor * components.scale, validate_args=False)


def _mean_gap(log_first: Tensor, log_second: Tensor, scale: Tensor) -> Tensor:
    """E|X - Y| of positive X and Y with these log means, where log X - log Y is normal with this scale.

    In units of the larger mean, and with d >= 0 between the logarithms, it is erf(u) + exp(-d) erf(v) with
    u = (s/2 + d/s)/sqrt 2 and v = (s/2 - d/s)/sqrt 2. Where v is negative the two cancel, and
    (1 - exp(-d)) erf(-v) + [erf(u) - erf(-v)] does not.
    """
    distance = (log_first - log_second).abs()
    near, far = scale / 2 - distance / scale, scale / 2 + distance / scale
    both = torch.erf(math.sqrt(0.5) * far) + (-distance).exp() * torch.erf(math.sqrt(0.5) * near)
    beyond = -torch.expm1(-distance) * torch.erf(-math.sqrt(0.5) * near) + 2 * _normal_mass(-near, far, scale)
    return torch.maximum(log_first, log_second).exp() * torch.where(near > 0, both, beyond)


def _normal_mass(low: Tensor, high: Tensor, width: Tensor) -> Tensor:
    """P(low < Z < high) of a standard normal, with 0 <= low = high - width where it is asked."""
    is_narrow = width < _WIDE
    narrow = torch.where(is_narrow, width, 0)
    points = torch.where(is_narrow, low, 0)[..., None] + narrow[..., None] * (0.5 + _NODES.to(low))
    density = (-0.5 * points.square()).exp() @ _NODE_WEIGHTS.to(low) / math.sqrt(2 * math.pi)
    return torch.where(is_narrow, narrow * density, standard_cdf(-low) - standard_cdf(-high))
