"""The von Mises law of an angle, or of anything else that comes back to where it began: the hour, the day of year."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from .base import BoundedFamily
from .normal import positive, shares, unpositive
from .truncated_normal import invert

_LEAST_CONCENTRATION, _LARGEST_CONCENTRATION = 1e-8, 1e12
_SERIES_FROM, _SERIES_TERMS = 50.0, 15
"""Where the Bessel functions' asymptotic series are exact to all digits."""
_NODES, _NODE_WEIGHTS = (torch.as_tensor(part) / 2 for part in np.polynomial.legendre.leggauss(40))
_HALF_RANGE = 38.0
"""Nats below its maximum at which an integrand has ended."""
_SHORTEST = 1e-6
"""Raw directions shorter than this are none."""
_FIT_STEPS = 20
_FIT_LEAST_CONCENTRATION = 1e-2


class VonMises(Distribution):
    """Density exp(concentration*cos(2 pi (y - loc)/period))/(period*I0(concentration)) from low to high.

    The period is high - low, and loc counts modulo the period. `mean` is the circular mean and `variance` the square
    of the circular standard deviation (Mardia 1972), in the target's unit. All tensors have the batch's shape.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore

    def __init__(
        self, loc: Tensor, concentration: Tensor, low: Tensor, high: Tensor, validate_args: bool | None = None
    ):
        self.loc, self.concentration, self.low, self.high = loc, concentration, low, high
        super().__init__(loc.shape, validate_args=validate_args)

    @property
    def support(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return constraints.interval(self.low, self.high)

    @property
    def unit(self) -> Tensor:
        """One radian, in the target's unit."""
        return (self.high - self.low) / (2 * math.pi)

    @property
    def mean(self) -> Tensor:
        return wrap(self.loc, self.low, self.high)

    @property
    def variance(self) -> Tensor:
        return -2 * self.unit.square() * log_resultant(self.concentration)

    def expand(self, batch_shape, _instance=None) -> "VonMises":
        tensors = (self.loc, self.concentration, self.low, self.high)
        return VonMises(*(tensor.expand(batch_shape) for tensor in tensors), validate_args=False)


@dataclass(frozen=True, repr=False)
class VonMisesFamily(BoundedFamily[VonMises]):
    """The normal law's counterpart on a circle: 3 raw parameters, a direction (2) and of scale (Mardia 1972).

    The first two point from the centre towards loc, so that no wrap is in the way of learning; (1, 0) is the middle of
    the support. The scale, at which the concentration is (period/(2 pi scale))^2, is the standard deviation where that
    is small. Quantiles are found by iteration and carry no gradients; those of a mixture do.
    """

    bounds: tuple[float, float] = (-math.pi, math.pi)
    """Where the circle is cut open: both ends are the same point, and their distance is the period."""

    name = "von_mises"
    is_circular = True

    def owns(self, components: Distribution) -> bool:
        return type(components) is VonMises

    def n_raw(self, event_size: int | None) -> int:
        return 3

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> VonMises:
        x, y = raw[..., 0], raw[..., 1]
        is_direction = torch.maximum(x.abs(), y.abs()) > _SHORTEST
        angle = torch.atan2(torch.where(is_direction, y, 0), torch.where(is_direction, x, 1))
        low, high = (torch.full_like(angle, end) for end in self.bounds)
        unit = (self.bounds[1] - self.bounds[0]) / (2 * math.pi)
        concentration = (unit / positive(raw[..., 2], scale_floor)).square()
        concentration = concentration.clamp(_LEAST_CONCENTRATION, _LARGEST_CONCENTRATION)
        return self.from_parameters(low + 0.5 * (high - low) + unit * angle, concentration, low, high)

    def unbuild(self, components, scale_floor: Tensor | float = 0.0):
        middle = components.low + 0.5 * (components.high - components.low)
        angle = (components.loc - middle) / components.unit
        scale = components.unit * components.concentration.rsqrt()
        return torch.stack([angle.cos(), angle.sin(), unpositive(scale, scale_floor)], -1)

    def fit(self, y, weights) -> VonMises:
        low, high = (torch.full_like(weights[0], end) for end in self.bounds)
        unit = (self.bounds[1] - self.bounds[0]) / (2 * math.pi)
        angle = ((y - self.bounds[0]) / unit)[:, None]
        share = shares(weights)

        def direction(share: Tensor) -> tuple[Tensor, Tensor]:
            """Of the mean resultant, and 1 less its length."""
            towards = torch.atan2((share * angle.sin()).sum(0), (share * angle.cos()).sum(0))
            return towards, (2 * share * (0.5 * (angle - towards)).sin().square()).sum(0)

        towards, shortfall = direction(share)
        _, whole = direction(torch.full_like(angle, 1 / len(y)))
        # 1e-3 of the target's own scale, as in the other families.
        largest = (1e6 / (2 * torch.where(whole > torch.finfo(y.dtype).eps, whole, 0.5))).clamp(
            max=_LARGEST_CONCENTRATION
        )
        shortfall = shortfall.clamp(min=0.5 / largest)
        length = 1 - shortfall
        # Newton's method for A(concentration) = length from the start of Banerjee et al. (2005).
        concentration = length * (1 + shortfall * (1 + length)) / (shortfall * (1 + length))
        for _ in range(_FIT_STEPS):
            concentration = torch.minimum(concentration.clamp(min=_FIT_LEAST_CONCENTRATION), largest)
            log_ratio = log_resultant(concentration)
            gap = shortfall + torch.expm1(log_ratio)
            slope = -torch.expm1(2 * log_ratio) - log_ratio.exp() / concentration
            step = gap / slope
            concentration = concentration - torch.where(concentration < 1e4, step, 0).clamp(max=0.5 * concentration)
        loc = wrap(low + unit * towards, low, high)
        concentration = torch.minimum(concentration.clamp(min=_FIT_LEAST_CONCENTRATION), largest)
        return self.from_parameters(loc, concentration, low, high)

    def parameters(self, components):
        return components.loc, components.concentration, components.low, components.high

    def from_parameters(self, *parameters: Tensor) -> VonMises:
        return VonMises(*parameters, validate_args=False)

    def mean(self, weights, components):
        """Direction of the mean resultant."""
        anchor, towards, _ = self._resultant(weights, components)
        low, high = components.low[..., 0], components.high[..., 0]
        return wrap(anchor + components.unit[..., 0] * towards, low, high)

    def variance(self, weights, components, mean):
        """Square of the circular standard deviation, from the mean resultant's length."""
        _, _, shortfall = self._resultant(weights, components)
        return -2 * components.unit[..., 0].square() * torch.log1p(-shortfall)

    @staticmethod
    def _resultant(weights: Tensor, components: VonMises) -> tuple[Tensor, Tensor, Tensor]:
        """The first loc, the direction of the mean resultant seen from there, and 1 less its length."""
        anchor = components.loc[..., 0]
        angle = (components.loc - anchor.unsqueeze(-1)) / components.unit
        log_length = log_resultant(components.concentration)
        weighted = weights * log_length.exp()
        towards = torch.atan2((weighted * angle.sin()).sum(-1), (weighted * angle.cos()).sum(-1))
        miss = 2 * (0.5 * (angle - towards.unsqueeze(-1))).sin().square()
        return anchor, towards, (weighted * miss - weights * torch.expm1(log_length)).sum(-1)

    def log_prob(self, components, y):
        is_inside = (y >= components.low) & (y <= components.high)
        turn = (torch.where(is_inside, y, components.loc) - components.loc) / (components.high - components.low)
        # As -2 sin^2 of half the angle, not cos - 1, which would cancel.
        drop = -2 * components.concentration * (math.pi * (turn - turn.detach().round())).sin().square()
        inside = drop - log_bessel(components.concentration) - (components.high - components.low).log()
        return torch.where(is_inside, inside, -torch.inf)

    def cdf(self, components, y):
        return torch.where(y < components.high, _log_lower(components, y).exp(), 1)

    def survival(self, components, y):
        return self.cdf(_mirrored(components), -y)

    def log_cdf(self, components, y):
        lower, upper = _log_lower(components, y), _log_lower(_mirrored(components), -y)
        is_near = (y < components.high) & (upper < lower)
        near = torch.log1p(-torch.where(is_near, upper, -1).exp())
        return torch.where(y < components.high, torch.where(is_near, near, lower), 0)

    def log_survival(self, components, y):
        return self.log_cdf(_mirrored(components), -y)

    def icdf(self, components, q):
        return self._quantile(components, q, q > 0.5)

    def isf(self, components, q):
        return self._quantile(components, q, q <= 0.5)

    def _quantile(self, components: VonMises, q: Tensor, is_upper: Tensor) -> Tensor:
        """The point with mass min(q, 1 - q) beyond it, at the upper or the lower end."""
        with torch.no_grad():
            mirrored = zip(self.parameters(components), self.parameters(_mirrored(components)), strict=True)
            law = self.from_parameters(*(torch.where(is_upper, there, here) for here, there in mirrored))
            level = torch.minimum(q, 1 - q)
            y = invert(lambda y: _log_lower(law, y), lambda y: self.log_prob(law, y), law.low, law.high, level)
            y = torch.where((q > 0) & (q < 1), y, law.low)
            return torch.where(is_upper, -y, y)

    def third_moment(self, components):
        return torch.full_like(components.loc, torch.nan)

    def sample(self, components, generator=None):
        # Rejection from a wrapped Cauchy law (Best and Fisher 1979), in terms of 1 - cos, which keeps its digits.
        kappa = components.concentration.detach().double()
        r = (1 + (1 + 4 * kappa.square()).sqrt()) / (2 * kappa)
        excess = r / (kappa * (r + 1))  # r - 1
        drop, is_drawn = torch.zeros_like(r), torch.zeros_like(r, dtype=torch.bool)
        while not bool(is_drawn.all()):
            u, v = (torch.rand(r.shape, dtype=r.dtype, device=r.device, generator=generator) for _ in range(2))
            fall = 2 * (0.5 * math.pi * u).sin().square()
            proposed = excess * fall / (excess + 2 - fall)
            c = kappa * (excess + proposed)
            is_accepted = (c / v).log() + 1 - c >= 0
            drop = torch.where(is_drawn, drop, proposed)
            is_drawn = is_drawn | is_accepted
        sign = torch.rand(r.shape, dtype=r.dtype, device=r.device, generator=generator) < 0.5
        angle = 2 * (0.5 * drop).sqrt().clamp(max=1).asin()
        deviation = (torch.where(sign, -angle, angle)).to(components.loc) * components.unit
        return wrap(components.mean + deviation, components.low, components.high)

    def affine(self, components, a, b) -> VonMises:
        low, high = self.moved_ends(components, a, b)
        return self.from_parameters(a + b * components.loc, components.concentration, low, high)

    def widen(self, components, factor) -> VonMises:
        """About its own direction; a narrow one is `factor` times as wide."""
        loc, concentration, *ends = self.parameters(components)
        return self.from_parameters(loc, concentration / factor**2, *ends)


def wrap(y: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """y brought between low and high by whole periods."""
    period = high - low
    wrapped = y - period * ((y - low) / period).floor().detach()
    return wrapped.clamp(low, high)


def log_bessel(x: Tensor) -> Tensor:
    """log(I0(x) exp(-x)) for x >= 0; the gradient of `torch.special.i0e` cancels where x is large."""
    is_small = x < _SERIES_FROM
    far = torch.where(is_small, _SERIES_FROM, x)
    series = _bessel_series(0, far).log1p() - 0.5 * (2 * math.pi * far).log()
    return torch.where(is_small, torch.special.i0e(torch.where(is_small, x, 0)).log(), series)


def log_resultant(x: Tensor) -> Tensor:
    """log(I1(x)/I0(x)), of the length of the mean resultant, for x > 0."""
    is_small = x < _SERIES_FROM
    near, far = torch.where(is_small, x, 1), torch.where(is_small, _SERIES_FROM, x)
    ratio = torch.special.i1e(near) / torch.special.i0e(near)
    return torch.where(is_small, ratio.log(), _bessel_series(1, far).log1p() - _bessel_series(0, far).log1p())


def _bessel_series(order: int, x: Tensor) -> Tensor:
    """sqrt(2 pi x) I(x) exp(-x) - 1 for large x (DLMF 10.40.1)."""
    total, term = torch.zeros_like(x), torch.ones_like(x)
    for k in range(1, _SERIES_TERMS + 1):
        term = term * ((2 * k - 1) ** 2 - 4 * order**2) / (8 * k * x)
        total = total + term
    return total


def _mirrored(law: VonMises) -> VonMises:
    """The law of -Y."""
    return VonMises(-law.loc, law.concentration, -law.high, -law.low, validate_args=False)


def _log_lower(law: VonMises, y: Tensor) -> Tensor:
    """log P(Y <= y) for y below the upper end, -inf elsewhere.

    The way from low to y runs over at most three stretches on which the density only rises or only falls. The mass of
    each is found by quadrature and all are summed, so that nothing cancels.
    """
    is_inside = (y > law.low) & (y < law.high)
    y = torch.where(is_inside, y, (law.low + 0.5 * (law.high - law.low)).detach())
    kappa, pi = law.concentration, math.pi
    start, end = (law.low - law.mean) / law.unit, (y - law.mean) / law.unit  # angles from loc; -2 pi <= start <= 0
    way = (y - law.low) / law.unit
    # Where the way starts beyond the density's minimum before loc, up to there; else what lies beyond that after loc.
    is_early = start < -pi
    early = torch.where(is_early, torch.where(end <= -pi, way, -pi - start), 0)
    beyond = torch.where(is_early, law.high - law.mean, (law.mean - law.low) + (law.high - y)) / law.unit
    beyond_width = torch.where(is_early, early, (end - pi).clamp(min=0))
    rising = (-end).clamp(min=0)
    rising_width = torch.where(end <= 0, way - early, (-start).clamp(max=pi))
    falling_width = end.clamp(min=0, max=pi)
    nearest = torch.stack(torch.broadcast_tensors(beyond, rising, torch.zeros_like(end)), -1).clamp(0, pi)
    width = torch.stack(torch.broadcast_tensors(beyond_width, rising_width, falling_width), -1)
    parts = _log_stretch(nearest, width.clamp(min=0), kappa.unsqueeze(-1))
    total = torch.logsumexp(parts, -1) - log_bessel(kappa) - math.log(2 * pi)
    return torch.where(is_inside, total - total.detach().clamp(min=0), -torch.inf)


def _log_stretch(nearest: Tensor, width: Tensor, kappa: Tensor) -> Tensor:
    """log of the integral of exp(-2 kappa sin^2(x/2)) over nearest < x < nearest + width <= pi; -inf if width is 0."""
    is_there = width > 0
    nearest, width = torch.where(is_there, nearest, 0), torch.where(is_there, width, 1)
    with torch.no_grad():
        # Beyond sin^2(x/2) = sin^2(nearest/2) + rise there is no mass; the difference of the two angles by its sine.
        rise = 0.5 * _HALF_RANGE / kappa
        sine, cosine = (0.5 * nearest).sin(), (0.5 * nearest).cos()
        slant = (sine.square() + rise).sqrt() * cosine + (cosine.square() - rise).clamp(min=0).sqrt() * sine
        reach = 2 * (rise / slant).clamp(max=1).asin()
        cut = torch.where(rise < cosine.square(), torch.minimum(reach, width), width)
        last = (-2 * kappa * (0.5 * width).sin() * (nearest + 0.5 * width).sin()).exp()
    u = 0.5 * cut[..., None] * (0.5 + _NODES.to(width))
    drop = 2 * kappa[..., None] * u.sin() * (nearest[..., None] + u).sin()
    # The gradient in the width is the integrand there, however little it is.
    mass = cut * ((-drop).exp() @ _NODE_WEIGHTS.to(width)) + last * (width - width.detach())
    return torch.where(is_there, mass.log() - 2 * kappa * (0.5 * nearest).sin().square(), -torch.inf)
