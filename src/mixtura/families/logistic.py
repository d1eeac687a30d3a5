"""The logistic law of a scalar target."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import logsigmoid

from .base import ScalarFamily
from .laplace import exponential_pair
from .normal import positive, shares, smallest_scale, unpositive, weighted_moments

_STANDARD_DEVIATION = math.pi / math.sqrt(3)
"""Of the standard law."""
_FIT_STEPS = 30


class Logistic(Distribution):
    """The law whose cdf is sigmoid((y - loc)/scale); both tensors have the batch's shape."""

    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = None):
        self.loc, self.scale = loc, scale
        super().__init__(loc.shape, validate_args=validate_args)

    @property
    def support(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return constraints.real

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return (_STANDARD_DEVIATION * self.scale).square()

    def expand(self, batch_shape, _instance=None) -> "Logistic":
        return Logistic(self.loc.expand(batch_shape), self.scale.expand(batch_shape), validate_args=False)


class LogisticFamily(ScalarFamily[Logistic]):
    """The law whose cdf is sigmoid((y - loc)/scale): 2 raw parameters, of loc and of scale.

    The standard deviation is pi/sqrt(3) = 1.81 of `scale`.
    """

    name = "logistic"

    def owns(self, components: Distribution) -> bool:
        return type(components) is Logistic

    def n_raw(self, event_size: int | None) -> int:
        return 2

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> Logistic:
        return Logistic(raw[..., 0], positive(raw[..., 1], scale_floor), validate_args=False)

    def unbuild(self, components, scale_floor: Tensor | float = 0.0):
        return torch.stack([components.loc, unpositive(components.scale, scale_floor)], -1)

    def fit(self, y, weights) -> Logistic:
        # Fisher scoring in loc and log scale, whose information matrix is diagonal and the same everywhere.
        share = shares(weights)
        mean, covariance = weighted_moments(y[:, None], weights)
        loc, log_scale = mean[:, 0], (covariance[:, 0, 0].sqrt() / _STANDARD_DEVIATION).log()
        lowest = smallest_scale(y[:, None]).log()
        for _ in range(_FIT_STEPS):
            z = (y[:, None] - loc) / log_scale.exp()
            pull = torch.tanh(0.5 * z)
            loc = loc + 3 * log_scale.exp() * (share * pull).sum(0)
            step = ((share * z * pull).sum(0) - 1) * 9 / (3 + math.pi**2)
            log_scale = torch.maximum(log_scale + step.clamp(-1, 1), lowest)
        return Logistic(loc, log_scale.exp(), validate_args=False)

    def parameters(self, components):
        return components.loc, components.scale

    def from_parameters(self, *parameters: Tensor) -> Logistic:
        return Logistic(*parameters, validate_args=False)

    def log_prob(self, components, y):
        z = (y - components.loc) / components.scale
        return logsigmoid(z) + logsigmoid(-z) - components.scale.log()

    def cdf(self, components, y):
        return torch.sigmoid((y - components.loc) / components.scale)

    def survival(self, components, y):
        return torch.sigmoid((components.loc - y) / components.scale)

    def log_cdf(self, components, y):
        return logsigmoid((y - components.loc) / components.scale)

    def log_survival(self, components, y):
        return logsigmoid((components.loc - y) / components.scale)

    def icdf(self, components, q):
        return components.loc + components.scale * (q.log() - torch.log1p(-q))

    def isf(self, components, q):
        return components.loc - components.scale * (q.log() - torch.log1p(-q))

    def third_moment(self, components):
        return torch.zeros_like(components.loc)

    def slope(self, components, y):
        return -torch.tanh(0.5 * (y - components.loc) / components.scale) / components.scale

    def sample(self, components, generator=None):
        first, second = exponential_pair(components.loc, generator)
        return components.loc + components.scale * (first.log() - second.log())

    def affine(self, components, a, b) -> Logistic:
        return Logistic(a + b * components.loc, b.abs() * components.scale, validate_args=False)
