"""Laplace laws, symmetric and asymmetric: two exponential tails that meet in a peak."""

import math
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, Laplace, constraints

from .base import ScalarFamily
from .normal import positive, shares, smallest_scale, unpositive

_LOG_2 = math.log(2)
_LARGEST_LOG_ASYMMETRY = 4.0
"""Beyond it the shorter tail is less than 1/3000 of the longer one."""
_NODES, _NODE_WEIGHTS = (torch.as_tensor(part) / 2 for part in np.polynomial.legendre.leggauss(8))


def decay(w: Tensor) -> Tensor:
    """(1 - exp(-w))/w for w >= 0, the mean of exp(-wu) over u in [0, 1]; by quadrature where that would cancel."""
    is_small = w < 1
    near = torch.where(is_small, w, 0)[..., None] * (0.5 + _NODES.to(w))
    far = torch.where(is_small, 1, w)
    return torch.where(is_small, (-near).exp() @ _NODE_WEIGHTS.to(w), -torch.expm1(-far) / far)


def exponential_pair(like: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Two independent standard exponential draws with the shape, dtype and device of `like`."""
    first, second = (torch.empty_like(like, requires_grad=False).exponential_(generator=generator) for _ in range(2))
    return first, second


class LaplaceFamily(ScalarFamily[Laplace]):
    """Density exp(-|y - loc|/scale)/(2 scale): 2 raw parameters, of loc and of scale.

    `scale` is the mean absolute deviation; the standard deviation is sqrt(2) of it.
    """

    name = "laplace"
    has_distances = True

    def owns(self, components: Distribution) -> bool:
        return type(components) is Laplace

    def n_raw(self, event_size: int | None) -> int:
        return 2

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> Laplace:
        return Laplace(raw[..., 0], positive(raw[..., 1], scale_floor), validate_args=False)

    def unbuild(self, components, scale_floor: Tensor | float = 0.0):
        return torch.stack([components.loc, unpositive(components.scale, scale_floor)], -1)

    def fit(self, y, weights) -> Laplace:
        share = shares(weights)
        ordered, order = y.sort()
        below = share[order].cumsum(0)
        median = ordered[(below < 0.5 * below[-1]).sum(0)]
        deviation = (share * (y[:, None] - median).abs()).sum(0)
        return Laplace(median, deviation + smallest_scale(y[:, None]), validate_args=False)

    def parameters(self, components):
        return components.loc, components.scale

    def from_parameters(self, *parameters: Tensor) -> Laplace:
        return Laplace(*parameters, validate_args=False)

    def log_prob(self, components, y):
        return -((y - components.loc) / components.scale).abs() - components.scale.log() - _LOG_2

    def cdf(self, components, y):
        return _half_sided((y - components.loc) / components.scale)

    def survival(self, components, y):
        return _half_sided((components.loc - y) / components.scale)

    def log_cdf(self, components, y):
        return _log_half_sided((y - components.loc) / components.scale)

    def log_survival(self, components, y):
        return _log_half_sided((components.loc - y) / components.scale)

    def icdf(self, components, q):
        return components.loc + components.scale * _inverse_half_sided(q)

    def isf(self, components, q):
        return components.loc - components.scale * _inverse_half_sided(q)

    def third_moment(self, components):
        return torch.zeros_like(components.loc)

    def kinks(self, components):
        return components.loc[..., None]

    def slope(self, components, y):
        return (components.loc - y).sign() / components.scale

    def mean_distance(self, components, y):
        distance = (y - components.loc).abs()
        return distance + components.scale * (-distance / components.scale).exp()

    def mean_difference(self, first, second):
        # |d| + (s^3 exp(-|d|/s) - t^3 exp(-|d|/t))/(s^2 - t^2), divided by s - t before it can cancel.
        s, t = torch.maximum(first.scale, second.scale), torch.minimum(first.scale, second.scale)
        distance = (first.loc - second.loc).abs()
        z = distance / s
        inner = s.square() + s * t + t.square() * (1 + z * decay(distance / t * ((s - t) / s)))
        return distance + (-z).exp() * inner / (s + t)

    def sample(self, components, generator=None):
        first, second = exponential_pair(components.loc, generator)
        return components.loc + components.scale * (first - second)

    def affine(self, components, a, b) -> Laplace:
        return Laplace(a + b * components.loc, b.abs() * components.scale, validate_args=False)


def _half_sided(z: Tensor) -> Tensor:
    """The cdf of the standard law."""
    # Clamped apart from each other, not by abs, whose gradient is 0 at 0.
    return torch.where(z < 0, 0.5 * z.clamp(max=0).exp(), 1 - 0.5 * (-z.clamp(min=0)).exp())


def _log_half_sided(z: Tensor) -> Tensor:
    return torch.where(z < 0, z.clamp(max=0) - _LOG_2, torch.log1p(-0.5 * (-z.clamp(min=0)).exp()))


def _inverse_half_sided(q: Tensor) -> Tensor:
    return torch.where(q < 0.5, (2 * q).log(), -(2 * (1 - q)).log())


class AsymmetricLaplace(Distribution):
    """Density exp(-asymmetry z) above loc and exp(z/asymmetry) below, over scale (asymmetry + 1/asymmetry).

    z = (y - loc)/scale; the tails have the lengths scale/asymmetry and scale*asymmetry, as in
    `scipy.stats.laplace_asymmetric`. All tensors have the batch's shape.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore

    def __init__(self, loc: Tensor, scale: Tensor, asymmetry: Tensor, validate_args: bool | None = None):
        self.loc, self.scale, self.asymmetry = loc, scale, asymmetry
        super().__init__(loc.shape, validate_args=validate_args)

    @property
    def support(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return constraints.real

    @property
    def upper(self) -> Tensor:
        """Length of the upper tail."""
        return self.scale / self.asymmetry

    @property
    def lower(self) -> Tensor:
        """Length of the lower tail."""
        return self.scale * self.asymmetry

    @property
    def mean(self) -> Tensor:
        return self.loc + (self.upper - self.lower)

    @property
    def variance(self) -> Tensor:
        return self.upper.square() + self.lower.square()

    def expand(self, batch_shape, _instance=None) -> "AsymmetricLaplace":
        tensors = (self.loc, self.scale, self.asymmetry)
        return AsymmetricLaplace(*(tensor.expand(batch_shape) for tensor in tensors), validate_args=False)


class AsymmetricLaplaceFamily(ScalarFamily[AsymmetricLaplace]):
    """The law of loc + upper*E - lower*E', E and E' standard exponential: raw of loc, of scale, of log asymmetry.

    `scale` is the geometric mean of the lengths of the tails, asymmetry^2 the ratio of the lower to the upper one.
    It is the usual component of mixtures in hydrology (Klotz et al. 2022); the law is that of Kotz, Kozubowski and
    Podgórski (2001).
    """

    name = "asymmetric_laplace"
    has_distances = True

    def owns(self, components: Distribution) -> bool:
        return type(components) is AsymmetricLaplace

    def n_raw(self, event_size: int | None) -> int:
        return 3

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> AsymmetricLaplace:
        asymmetry = raw[..., 2].clamp(-_LARGEST_LOG_ASYMMETRY, _LARGEST_LOG_ASYMMETRY).exp()
        return self.from_parameters(raw[..., 0], positive(raw[..., 1], scale_floor), asymmetry)

    def unbuild(self, components, scale_floor: Tensor | float = 0.0):
        scale = unpositive(components.scale, scale_floor)
        return torch.stack([components.loc, scale, components.asymmetry.log()], -1)

    def fit(self, y, weights) -> AsymmetricLaplace:
        # Given loc, the best tails leave a likelihood that falls with sqrt(below) + sqrt(above), the mean distances of
        # loc to the rows on either side; between two rows that is concave, so that the best loc is one of the rows.
        share = shares(weights)
        ordered, order = y.sort()
        share, anchor = share[order], ordered[len(y) // 2]
        distance = (ordered - anchor)[:, None]
        below = (distance * share.cumsum(0) - (share * distance).cumsum(0)).clamp(min=0)
        above = (below + (share * distance).sum(0) - distance * share.sum(0)).clamp(min=0)
        best = (below.sqrt() + above.sqrt()).argmin(0, keepdim=True)
        loc = ordered[best[0]]
        smallest = smallest_scale(y[:, None])
        deviation = share * (ordered[:, None] - loc)
        below, above = (-deviation).clamp(min=0).sum(0) + smallest, deviation.clamp(min=0).sum(0) + smallest
        limit = math.exp(_LARGEST_LOG_ASYMMETRY)
        asymmetry = (below / above).pow(0.25).clamp(1 / limit, limit)
        return self.from_parameters(loc, asymmetry * above + below / asymmetry, asymmetry)

    def parameters(self, components):
        return components.loc, components.scale, components.asymmetry

    def from_parameters(self, *parameters: Tensor) -> AsymmetricLaplace:
        return AsymmetricLaplace(*parameters, validate_args=False)

    def log_prob(self, components, y):
        z, asymmetry = (y - components.loc) / components.scale, components.asymmetry
        tail = torch.where(z < 0, z / asymmetry, -z * asymmetry)
        return tail - components.scale.log() - (asymmetry + 1 / asymmetry).log()

    def cdf(self, components, y):
        return _lower((y - components.loc) / components.scale, components.asymmetry)

    def survival(self, components, y):
        return _lower((components.loc - y) / components.scale, 1 / components.asymmetry)

    def log_cdf(self, components, y):
        return _log_lower((y - components.loc) / components.scale, components.asymmetry)

    def log_survival(self, components, y):
        return _log_lower((components.loc - y) / components.scale, 1 / components.asymmetry)

    def icdf(self, components, q):
        return components.loc + components.scale * _inverse_lower(q, components.asymmetry)

    def isf(self, components, q):
        return components.loc - components.scale * _inverse_lower(q, 1 / components.asymmetry)

    def third_moment(self, components):
        return 2 * (components.upper.pow(3) - components.lower.pow(3))

    def kinks(self, components):
        return components.loc[..., None]

    def mean_distance(self, components, y):
        lower, upper = components.lower, components.upper
        distance = y - components.loc
        is_above = distance >= 0  # not by abs, whose gradient is 0 at 0
        distance = torch.where(is_above, distance, -distance)
        towards, away = torch.where(is_above, upper, lower), torch.where(is_above, lower, upper)
        excess = towards.square() / (lower + upper) * (-distance / towards).exp()
        return distance + (away - towards) + 2 * excess

    def mean_difference(self, first, second):
        # X - Y = d + U - V, each of U and V the sum of two exponentials; mirrored where d < 0, so that with d >= 0
        # E|d + U - V| = d + E[U] - E[V] + 2 E[(V - U - d)+].
        d = first.loc - second.loc
        is_above = d >= 0
        d = torch.where(is_above, d, -d)
        p, q = torch.where(is_above, first.upper, first.lower), torch.where(is_above, second.lower, second.upper)
        v, w = torch.where(is_above, first.lower, first.upper), torch.where(is_above, second.upper, second.lower)
        a, b = torch.maximum(v, w), torch.minimum(v, w)

        # The last term is the divided difference over V's two lengths a >= b of x^4 exp(-d/x)/((x + p)(x + q)): a
        # product of three, so it is found by the product rule, where all terms are positive.
        def factor(x: Tensor, length: Tensor) -> Tensor:
            return x / (x + length) * x

        def divided(length: Tensor) -> Tensor:
            return (a / (a + length)) * (b / (b + length)) + length / (a + length) * ((a + b) / (b + length))

        excess = divided(p) * factor(a, q) + factor(b, p) * divided(q)
        excess = excess + factor(b, p) / b * factor(b, q) * (d / a) * decay(d / b * ((a - b) / a))
        return d + (p + q - v - w) + 2 * (-d / a).exp() * excess

    def sample(self, components, generator=None):
        first, second = exponential_pair(components.loc, generator)
        return components.loc + (components.upper * first - components.lower * second)

    def affine(self, components, a, b) -> AsymmetricLaplace:
        asymmetry = torch.where(b < 0, 1 / components.asymmetry, components.asymmetry)
        return self.from_parameters(a + b * components.loc, b.abs() * components.scale, asymmetry)


def _masses(asymmetry: Tensor) -> tuple[Tensor, Tensor]:
    """The probabilities below and above loc."""
    square = asymmetry.square()
    return square / (1 + square), 1 / (1 + square)


def _lower(z: Tensor, asymmetry: Tensor) -> Tensor:
    """The cdf of the standard law: above 0 the mass below 0 plus a part of that above, never 1 less a tail."""
    below, above = _masses(asymmetry)
    right = below - above * torch.expm1(-z.clamp(min=0) * asymmetry)
    return torch.where(z < 0, below * (z.clamp(max=0) / asymmetry).exp(), right)


def _log_lower(z: Tensor, asymmetry: Tensor) -> Tensor:
    below, above = _masses(asymmetry)
    beyond = above * (-z.clamp(min=0) * asymmetry).exp()
    is_small = beyond < 0.5
    right = torch.where(
        is_small,
        torch.log1p(-torch.where(is_small, beyond, 0)),
        (below - above * torch.expm1(-z.clamp(min=0) * asymmetry)).log(),
    )
    return torch.where(z < 0, below.log() + z.clamp(max=0) / asymmetry, right)


def _inverse_lower(q: Tensor, asymmetry: Tensor) -> Tensor:
    below, above = _masses(asymmetry)
    right = torch.where(q > 0.5, ((1 - q) / above).log(), torch.log1p((below - q).clamp(max=0) / above))
    return torch.where(q < below, asymmetry * (q / below).log(), -right / asymmetry)
