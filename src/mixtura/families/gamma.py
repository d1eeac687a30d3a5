"""The gamma law of a positive scalar target: rainfall, durations, amounts."""

import torch
from torch import Tensor
from torch.distributions import Distribution, Gamma

from .base import ScalarFamily
from .normal import positive, shares, unpositive
from .special import (
    gammainc,
    gammaincc,
    gammainccinv,
    gammaincinv,
    log_gamma_density,
    log_gammainc,
    log_gammaincc,
)

_SMALLEST_CONCENTRATION, _LARGEST_CONCENTRATION = 1e-3, 1e8
_NEWTON_STEPS = 12


class GammaFamily(ScalarFamily[Gamma]):
    """Gamma(concentration, rate) on (0, inf): 2 raw parameters, of its mean and of sd/mean (on top of the floor).

    concentration = (mean/sd)^2 is kept within [1e-3, 1e8], by raising whichever of the two is too small.
    A target of 0 or below has density 0.
    """

    name = "gamma"
    closed_under = "scale"

    def owns(self, components: Distribution) -> bool:
        return type(components) is Gamma

    def n_raw(self, event_size: int | None) -> int:
        return 2

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> Gamma:
        mean = positive(raw[..., 0], 0.0)
        sd = scale_floor + positive(raw[..., 1], 0.0) * mean
        mean = torch.maximum(mean, _SMALLEST_CONCENTRATION**0.5 * sd)
        sd = torch.maximum(sd, _LARGEST_CONCENTRATION**-0.5 * mean)
        ratio = mean / sd
        return self.from_parameters(ratio.square(), ratio / sd)

    def unbuild(self, components, scale_floor: Tensor | float = 0.0):
        mean, sd = components.mean, components.concentration.sqrt() / components.rate
        above = torch.maximum(sd - scale_floor, 1e-6 * sd)
        return torch.stack([unpositive(mean, 0.0), unpositive(above / mean, 0.0)], -1)

    def fit(self, y, weights) -> Gamma:
        """Maximum likelihood by Newton's method on 1/concentration (Minka 2002, Estimating a gamma distribution)."""
        typical = y.abs().mean().clamp(min=1e-100)
        spread = y.std(correction=0)
        spread = torch.where(spread > 0, spread, 1)
        y = torch.where(y > 0, y, 1e-6 * typical)
        share = shares(weights)
        mean = (share * y[:, None]).sum(0)
        # log E[Y] - E[log Y], from logarithms of ratios so that narrow laws keep it
        gap = -(share * (y[:, None] / mean).log()).sum(0)
        largest = (mean / (1e-3 * spread)).square().clamp(_SMALLEST_CONCENTRATION, _LARGEST_CONCENTRATION)
        concentration = (0.5 / gap.clamp(min=1e-12)).clamp(min=_SMALLEST_CONCENTRATION).minimum(largest)
        for _ in range(_NEWTON_STEPS):
            a = concentration
            excess = a.log() - torch.digamma(a) - gap
            inverse = 1 / a + excess / (a.square() * (1 / a - torch.polygamma(1, a)))
            a = torch.where(inverse > 0, 1 / inverse, 2 * a)
            concentration = a.clamp(min=_SMALLEST_CONCENTRATION).minimum(largest)
        return self.from_parameters(concentration, concentration / mean)

    def parameters(self, components):
        return components.concentration, components.rate

    def from_parameters(self, *parameters: Tensor) -> Gamma:
        return Gamma(*parameters, validate_args=False)

    def log_prob(self, components, y):
        a, x, inside = _standardise(components, y)
        log_prob = log_gamma_density(a, x) + components.rate.double().log()
        return torch.where(inside, log_prob, -torch.inf).to(_dtype(components, y))

    def cdf(self, components, y):
        a, x, inside = _standardise(components, y)
        return torch.where(inside, gammainc(a, x), torch.where(y > 0, 1.0, 0.0)).to(_dtype(components, y))

    def survival(self, components, y):
        a, x, inside = _standardise(components, y)
        return torch.where(inside, gammaincc(a, x), torch.where(y > 0, 0.0, 1.0)).to(_dtype(components, y))

    def log_cdf(self, components, y):
        a, x, inside = _standardise(components, y)
        return torch.where(inside, log_gammainc(a, x), torch.where(y > 0, 0.0, -torch.inf)).to(_dtype(components, y))

    def log_survival(self, components, y):
        a, x, inside = _standardise(components, y)
        return torch.where(inside, log_gammaincc(a, x), torch.where(y > 0, -torch.inf, 0.0)).to(_dtype(components, y))

    def icdf(self, components, q):
        return _quantile(gammaincinv(components.concentration.double(), q.double()), q > 0, components, q)

    def isf(self, components, q):
        return _quantile(gammainccinv(components.concentration.double(), q.double()), q < 1, components, q)

    def third_moment(self, components):
        return 2 * components.concentration / components.rate**3

    def support(self, components):
        return torch.zeros_like(components.rate), torch.full_like(components.rate, torch.inf)

    def sample(self, components, generator=None):
        x = standard_gamma(components.concentration, generator)
        return (x / components.rate).clamp(min=torch.finfo(x.dtype).tiny)

    def affine(self, components, a, b) -> Gamma:
        return self.from_parameters(components.concentration.expand((b / components.rate).shape), components.rate / b)

    def widen(self, components, factor) -> Gamma:
        return self.from_parameters(components.concentration / factor**2, components.rate / factor**2)


def standard_gamma(concentration: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draws from gamma laws of rate 1."""
    return torch._standard_gamma(concentration, generator=generator)  # pyright: ignore[reportPrivateImportUsage]


def _dtype(components: Gamma, y: Tensor) -> torch.dtype:
    return torch.promote_types(components.rate.dtype, y.dtype)


def _standardise(components: Gamma, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The concentration and rate*y in float64, and where y is inside the support (elsewhere it is taken as 1)."""
    inside = (y > 0) & (y < torch.inf)
    x = components.rate.double() * torch.where(inside, y, 1).double()
    return components.concentration.double(), x.clamp(torch.finfo(x.dtype).tiny, 1e300), inside


def _quantile(x: Tensor, is_inside: Tensor, components: Gamma, level: Tensor) -> Tensor:
    """From that of rate 1, kept off 0, where no mass is, should it underflow."""
    dtype = _dtype(components, level)
    y = (x / components.rate.double()).to(dtype)
    return torch.where(is_inside, y.clamp(min=torch.finfo(dtype).tiny), y)
