"""The beta law of a scalar target on an interval: shares, percentages, bounded scores."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from .base import BoundedFamily
from .gamma import standard_gamma
from .normal import shares, smallest_scale
from .special import betainc, betaincinv, log_beta_density, log_betainc

_SMALLEST_CONCENTRATION, _LARGEST_CONCENTRATION = 1e-3, 1e8
_FIT_MARGIN = 1e-6
"""Of the support's width, between a row at one of its ends and where `fit` takes it to be."""
_NEWTON_STEPS = 20


class ScaledBeta(Distribution):
    """low + (high - low)*X, where X has a density proportional to x^(concentration1-1) (1-x)^(concentration0-1).

    Parameters
    ----------
    concentration1, concentration0
        Positive; the first pulls towards `high`, the other towards `low`.
    low, high
        The ends of its support, low < high.
    """

    arg_constraints = {}  # noqa: RUF012  # pyright: ignore
    has_rsample = False

    def __init__(self, concentration1: Tensor, concentration0: Tensor, low: Tensor | float, high: Tensor | float):
        low, high = (torch.as_tensor(end).to(concentration1) for end in (low, high))
        parts = torch.broadcast_tensors(concentration1, concentration0, low, high)
        self.concentration1, self.concentration0, self.low, self.high = parts
        super().__init__(parts[0].shape, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        parts = (self.concentration1, self.concentration0, self.low, self.high)
        return ScaledBeta(*(part.expand(batch_shape) for part in parts))

    @property
    def support(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        """The interval, as a torch constraint."""
        return constraints.interval(self.low, self.high)

    @property
    def mean(self) -> Tensor:
        """E[Y]."""
        return self.low + (self.high - self.low) * self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def variance(self) -> Tensor:
        """Var[Y]."""
        total = self.concentration1 + self.concentration0
        share = self.concentration1 / total * (self.concentration0 / total)
        return (self.high - self.low).square() * share / (total + 1)


@dataclass(frozen=True, repr=False)
class BetaFamily(BoundedFamily[ScaledBeta]):
    """The beta law on an interval: 2 raw parameters, of its mean and of its spread, both through a sigmoid.

    The spread is the standard deviation that a law centred in the support would have, as a fraction of half the
    support's width, sqrt(1/(concentration1 + concentration0 + 1)); it is what `scale_floor` keeps from below.
    The support is open: a target at one of its ends, or beyond, has density 0 (a beta density may be infinite there).

    References
    ----------
    Ferrari and Cribari-Neto (2004), Beta regression for modelling rates and proportions, J. Appl. Stat. 31.
    """

    name = "beta"

    bounds: tuple[float, float] = (0.0, 1.0)
    """The ends of the support, both finite."""

    def owns(self, components: Distribution) -> bool:
        return type(components) is ScaledBeta

    def n_raw(self, event_size: int | None) -> int:
        return 2

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> ScaledBeta:
        floor = self._smallest_spread(raw, scale_floor)
        spread = floor + (1 - floor) * raw[..., 1].sigmoid()
        rest = (1 - floor) * (-raw[..., 1]).sigmoid()  # 1 - spread
        total = rest * (1 + spread) / spread.square()
        shape1, shape0 = (
            (total * (sign * raw[..., 0]).sigmoid()).clamp(_SMALLEST_CONCENTRATION, _LARGEST_CONCENTRATION)
            for sign in (1, -1)
        )
        return self._bounded(shape1, shape0)

    def unbuild(self, components, scale_floor: Tensor | float = 0.0):
        shape1, shape0 = components.concentration1, components.concentration0
        total = shape1 + shape0
        spread = (1 + total).rsqrt()
        rest = total / ((1 + total) * (1 + spread))
        above = torch.maximum(spread - self._smallest_spread(spread, scale_floor), 1e-6 * spread)
        return torch.stack([shape1.log() - shape0.log(), above.log() - rest.log()], -1)

    def _smallest_spread(self, like: Tensor, scale_floor: Tensor | float) -> Tensor:
        half_width = 0.5 * (self.bounds[1] - self.bounds[0])
        return (torch.as_tensor(scale_floor).to(like) / half_width).clamp(_LARGEST_CONCENTRATION**-0.5, 0.5)

    def _bounded(self, shape1: Tensor, shape0: Tensor) -> ScaledBeta:
        low, high = (torch.full_like(shape1, end, requires_grad=False) for end in self.bounds)
        return self.from_parameters(shape1, shape0, low, high)

    def fit(self, y, weights) -> ScaledBeta:
        """Moments, then Newton's method on the likelihood, which is concave; rows at an end count as just inside."""
        low, high = self.bounds
        x, xc = (
            torch.where(part > 0, part, _FIT_MARGIN) for part in ((y - low) / (high - low), (high - y) / (high - low))
        )
        share = shares(weights)
        log_x, log_xc = (share * x.log()[:, None]).sum(0), (share * xc.log()[:, None]).sum(0)
        mean, mean_c = (share * x[:, None]).sum(0), (share * xc[:, None]).sum(0)
        variance = (share * (x[:, None] - mean).square()).sum(0)
        smallest = smallest_scale(x[:, None]).square()
        largest = (mean * mean_c / smallest).clamp(max=_LARGEST_CONCENTRATION)
        total = (mean * mean_c / torch.maximum(variance, smallest) - 1).clamp(min=0.1).minimum(largest)
        a, b = total * mean, total * mean_c
        for _ in range(_NEWTON_STEPS):
            digamma_total, curve_total = torch.digamma(a + b), torch.polygamma(1, a + b)
            curve_a, curve_b = torch.polygamma(1, a), torch.polygamma(1, b)
            slope_a, slope_b = digamma_total - torch.digamma(a) + log_x, digamma_total - torch.digamma(b) + log_xc
            rise = (slope_a / curve_a + slope_b / curve_b) / (1 - curve_total / curve_a - curve_total / curve_b)
            new_a = a + ((slope_a + curve_total * rise) / curve_a).nan_to_num()
            new_b = b + ((slope_b + curve_total * rise) / curve_b).nan_to_num()
            a, b = torch.maximum(new_a, a / 4).minimum(4 * a), torch.maximum(new_b, b / 4).minimum(4 * b)
            excess = ((a + b) / largest).clamp(min=1)
            a, b = (a / excess).clamp(min=_SMALLEST_CONCENTRATION), (b / excess).clamp(min=_SMALLEST_CONCENTRATION)
        return self._bounded(a, b)

    def parameters(self, components):
        return components.concentration1, components.concentration0, components.low, components.high

    def from_parameters(self, *parameters: Tensor) -> ScaledBeta:
        return ScaledBeta(*parameters)

    def log_prob(self, components, y):
        a, b, x, xc, inside = _standardise(components, y)
        log_prob = log_beta_density(a, b, x, xc) - (components.high.double() - components.low.double()).log()
        return torch.where(inside, log_prob, -torch.inf).to(_dtype(components, y))

    def cdf(self, components, y):
        a, b, x, xc, inside = _standardise(components, y)
        outside = torch.where(y > components.low, 1.0, 0.0)
        return torch.where(inside, betainc(a, b, x, xc), outside).to(_dtype(components, y))

    def survival(self, components, y):
        a, b, x, xc, inside = _standardise(components, y)
        outside = torch.where(y > components.low, 0.0, 1.0)
        return torch.where(inside, betainc(b, a, xc, x), outside).to(_dtype(components, y))

    def log_cdf(self, components, y):
        a, b, x, xc, inside = _standardise(components, y)
        outside = torch.where(y > components.low, 0.0, -torch.inf)
        return torch.where(inside, log_betainc(a, b, x, xc), outside).to(_dtype(components, y))

    def log_survival(self, components, y):
        a, b, x, xc, inside = _standardise(components, y)
        outside = torch.where(y > components.low, -torch.inf, 0.0)
        return torch.where(inside, log_betainc(b, a, xc, x), outside).to(_dtype(components, y))

    def icdf(self, components, q):
        a, b = components.concentration1.double(), components.concentration0.double()
        x, xc = betaincinv(a, b, q.double())
        return _place(components, x, xc, (q > 0) & (q < 1), _dtype(components, q))

    def isf(self, components, q):
        a, b = components.concentration1.double(), components.concentration0.double()
        xc, x = betaincinv(b, a, q.double())
        return _place(components, x, xc, (q > 0) & (q < 1), _dtype(components, q))

    def third_moment(self, components):
        a, b = components.concentration1, components.concentration0
        total = a + b
        share = 2 * (a / total) * (b / total) * ((b - a) / total)
        return (components.high - components.low) ** 3 * share / ((total + 1) * (total + 2))

    def sample(self, components, generator=None):
        shapes = components.concentration1, components.concentration0
        # Logarithms, because draws from small concentrations underflow: G(a) is G(a + 1) * U^(1/a) in law.
        uniform = (torch.rand(a.shape, dtype=a.dtype, device=a.device, generator=generator) for a in shapes)
        first, last = (
            standard_gamma(a + 1, generator).log() + torch.log1p(-u) / a for a, u in zip(shapes, uniform, strict=True)
        )
        x, xc = (first - last).sigmoid(), (last - first).sigmoid()
        return _place(components, x, xc, torch.ones_like(x, dtype=torch.bool), x.dtype)

    def affine(self, components, a, b) -> ScaledBeta:
        shape1, shape0 = components.concentration1, components.concentration0
        first, last = torch.where(b > 0, shape1, shape0), torch.where(b > 0, shape0, shape1)
        return self.from_parameters(first, last, *self.moved_ends(components, a, b))

    def widen(self, components, factor) -> ScaledBeta:
        """With its mean as it is; a narrow one is `factor` times as wide."""
        first, last, *ends = self.parameters(components)
        return self.from_parameters(first / factor**2, last / factor**2, *ends)


def _dtype(components: ScaledBeta, y: Tensor) -> torch.dtype:
    return torch.promote_types(components.low.dtype, y.dtype)


def _standardise(components: ScaledBeta, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Concentrations, x and 1 - x in float64, and where y is inside the support (elsewhere it is put in its middle)."""
    inside = (y > components.low) & (y < components.high)
    low, high = components.low.double(), components.high.double()
    y = torch.where(inside, y.double(), 0.5 * (low + high))
    x, xc = (y - low) / (high - low), (high - y) / (high - low)
    return components.concentration1.double(), components.concentration0.double(), x, xc, inside


def _place(components: ScaledBeta, x: Tensor, xc: Tensor, is_inside: Tensor, dtype: torch.dtype) -> Tensor:
    """From the unit interval into the support; what rounding would put at an end stays just inside."""
    low, high = components.low.to(dtype), components.high.to(dtype)
    y = torch.where(x < xc, low + (high - low) * x, high - (high - low) * xc).to(dtype)
    tiny = torch.finfo(y.dtype).tiny
    least = torch.maximum(torch.nextafter(low, high), low + tiny)
    most = torch.minimum(torch.nextafter(high, low), high - tiny)
    return torch.where(is_inside, torch.minimum(torch.maximum(y, least), most), y)
