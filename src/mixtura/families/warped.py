"""A scalar law seen through a smooth monotone map: log-normal by exp, logit-normal by the logistic function."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Transform, constraints
from torch.distributions.transforms import SigmoidTransform

from .base import ScalarFamily
from .normal import NormalFamily
from .quadrature import quadrature


class BoxCoxTransform(Transform):
    """z = (sign(y) |y|^lambda - 1) / lambda for lambda > 0, a bijection of the line; as lambda -> 0, log y.

    For a target modelled as z, `mixture.transform(BoxCoxTransform(lmbda).inv)` is the mixture of y.

    References
    ----------
    Box and Cox (1964), An analysis of transformations; Bickel and Doksum (1981) for y of both signs.
    """

    domain = constraints.real
    codomain = constraints.real
    bijective = True
    sign = 1  # pyright: ignore

    def __init__(self, lmbda: float, cache_size: int = 0):
        super().__init__(cache_size)
        self.lmbda = lmbda

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BoxCoxTransform) and self.lmbda == other.lmbda

    __hash__ = None  # pyright: ignore  # as of every torch Transform that can be compared

    def _call(self, x: Tensor) -> Tensor:
        return (x.sign() * x.abs() ** self.lmbda - 1) / self.lmbda

    def _inverse(self, y: Tensor) -> Tensor:
        power = self.lmbda * y + 1
        return power.sign() * power.abs() ** (1 / self.lmbda)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """(lambda - 1) log|x|."""
        return (self.lmbda - 1) * x.abs().log()


class Warped(Distribution):
    """The law of loc + scale * transform(X) for X of another scalar law."""

    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore

    def __init__(self, base: Distribution, family: ScalarFamily, transform: Transform, loc: Tensor, scale: Tensor):
        self.base, self.family, self.loc, self.scale = base, family, loc, scale
        self.transform: Any = transform  # a Transform, of which torch's annotations say that it may return None
        super().__init__(base.batch_shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Warped":
        """The same laws with these batch axes."""
        parts = (self.loc.expand(batch_shape), self.scale.expand(batch_shape))
        return Warped(self.base.expand(batch_shape), self.family, self.transform, *parts)

    @property
    def support(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The whole line, of which it may fill a part."""
        return constraints.real

    @property
    def mean(self) -> Tensor:
        """By quadrature; not meaningful where the expectation does not exist."""
        values, masses = self._values()
        return self.loc + self.scale * (masses * values).sum(0)

    @property
    def variance(self) -> Tensor:
        """Likewise."""
        return self.scale.square() * self.central_moment(2)

    def central_moment(self, order: int) -> Tensor:
        """Of transform(X)."""
        values, masses = self._values()
        return (masses * (values - (masses * values).sum(0)) ** order).sum(0)

    def _values(self) -> tuple[Tensor, Tensor]:
        """transform(X) at the nodes of a quadrature, and the probability that each stands for."""
        each = self.family.map(self.base, lambda tensor: tensor.unsqueeze(-1))
        nodes, weights = quadrature(self.family, each)
        return self.transform(nodes), weights * self.family.log_prob(self.base, nodes).exp()


@dataclass(frozen=True, repr=False)
class WarpedFamily(ScalarFamily[Warped]):
    """unit * transform(X), with X of the family `base`; raw parameters are those of X.

    `transform` is a bijective `torch.distributions.Transform` of numbers, such as `ExpTransform()` for a positive
    target (its logarithm is modelled), `SigmoidTransform()` for one in (0, 1) or `BoxCoxTransform(0.5).inv`.
    `scale_floor` bounds the scale of X. A moved law, a + b*Y, is one as well, but networks learn unmoved ones.
    """

    base: ScalarFamily = field(default_factory=NormalFamily)
    transform: Any = field(default_factory=SigmoidTransform)
    unit: float = 1.0
    closed_under = "scale"
    name = "warped"

    def __hash__(self) -> int:  # a torch Transform has none
        return hash((type(self), self.base, type(self.transform)))

    def owns(self, components: Distribution) -> bool:
        return isinstance(components, Warped)

    def of(self, components: Warped, family_of: Any) -> "WarpedFamily":
        return WarpedFamily(components.family, components.transform)

    def n_raw(self, event_size: int | None) -> int:
        return self.base.n_raw(event_size)

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> Warped:
        return self._around(self.base.build(raw, scale_floor))

    def _around(self, base: Distribution) -> Warped:
        zero = torch.zeros(base.batch_shape, dtype=base.mean.dtype, device=base.mean.device)
        return Warped(base, self.base, self.transform, zero, zero + self.unit)

    def may_move(self, a: Tensor, b: Tensor) -> bool:
        return True

    def moved(self, a: Sequence[float], b: Sequence[float]) -> "WarpedFamily":
        return replace(self, unit=self.unit * b[0])

    def unbuild(self, components: Warped, scale_floor: Tensor | float = 0.0):
        return self.base.unbuild(components.base, scale_floor)

    def fit(self, y, weights) -> Warped:
        return self._around(self.base.fit(self.transform.inv(y / self.unit), weights))

    def parameters(self, components: Warped):
        return (*self.base.parameters(components.base), components.loc, components.scale)

    def from_parameters(self, *parameters: Tensor) -> Warped:
        *base, loc, scale = parameters
        return Warped(self.base.from_parameters(*base), self.base, self.transform, loc, scale)

    def support(self, components: Warped):
        ends = [components.loc + components.scale * self.transform(end) for end in self.base.support(components.base)]
        return torch.minimum(*ends), torch.maximum(*ends)

    def kinks(self, components: Warped):
        kinks = self.transform(self.base.kinks(components.base))
        return components.loc[..., None] + components.scale[..., None] * kinks

    def _unwarp(self, components: Warped, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """x and transform(x), whether y is below or above all that occurs, and whether y falls as x rises."""
        low, high = self.support(components)
        is_below, is_above = y <= low, y >= high
        middle = components.loc + components.scale * self.transform(self.base.icdf(components.base, 0.5 + 0 * low))
        inside = torch.where(is_below | is_above, middle.detach(), y)
        warped = (inside - components.loc) / components.scale
        is_falling = components.scale * self.transform.sign < 0
        if isinstance(self.transform, SigmoidTransform):  # from the nearer end: torch's own loses digits near 1
            end = components.loc + components.scale
            return warped.log() - ((end - inside) / components.scale).log(), warped, is_below, is_above, is_falling
        return self.transform.inv(warped), warped, is_below, is_above, is_falling

    def log_prob(self, components, y):
        x, warped, is_below, is_above, _ = self._unwarp(components, y)
        if isinstance(self.transform, SigmoidTransform):  # torch's own is off by 1e-9 where |x| > 20
            log_jacobian = torch.nn.functional.logsigmoid(x) + torch.nn.functional.logsigmoid(-x)
        else:
            log_jacobian = self.transform.log_abs_det_jacobian(x, warped)
        log_jacobian = log_jacobian + components.scale.abs().log()
        return torch.where(is_below | is_above, -torch.inf, self.base.log_prob(components.base, x) - log_jacobian)

    def _probability(self, components: Warped, y: Tensor, lower: Any, upper: Any, ends: tuple[float, float]) -> Tensor:
        x, _, is_below, is_above, is_falling = self._unwarp(components, y)
        inside = torch.where(is_falling, upper(components.base, x), lower(components.base, x))
        return torch.where(is_below, ends[0], torch.where(is_above, ends[1], inside))

    def cdf(self, components, y):
        return self._probability(components, y, self.base.cdf, self.base.survival, (0.0, 1.0))

    def survival(self, components, y):
        return self._probability(components, y, self.base.survival, self.base.cdf, (1.0, 0.0))

    def log_cdf(self, components, y):
        return self._probability(components, y, self.base.log_cdf, self.base.log_survival, (-torch.inf, 0.0))

    def log_survival(self, components, y):
        return self._probability(components, y, self.base.log_survival, self.base.log_cdf, (0.0, -torch.inf))

    def icdf(self, components, q):
        return self._quantile(components, q, self.base.icdf, self.base.isf)

    def isf(self, components, q):
        return self._quantile(components, q, self.base.isf, self.base.icdf)

    def _quantile(self, components: Warped, q: Tensor, rising: Any, falling: Any) -> Tensor:
        is_falling = components.scale * self.transform.sign < 0
        x = torch.where(is_falling, falling(components.base, q), rising(components.base, q))
        return components.loc + components.scale * self.transform(x)

    def third_moment(self, components):
        return components.scale**3 * components.central_moment(3)

    def sample(self, components, generator=None):
        return components.loc + components.scale * self.transform(self.base.sample(components.base, generator))

    def affine(self, components, a, b) -> Warped:
        parts = (a + b * components.loc, b * components.scale)
        return Warped(components.base, self.base, self.transform, *parts)

    def widen(self, components, factor) -> Warped:
        """The law that is warped."""
        base = self.base.widen(components.base, factor)
        return Warped(base, self.base, self.transform, components.loc, components.scale)
