"""What every component law provides: the contract that the rest of Mixtura, and the contract tests, rely on."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

Law = TypeVar("Law", bound=Distribution)


@dataclass(frozen=True, repr=False)
class Family(ABC, Generic[Law]):
    """The law of one mixture component, for one shape of target.

    A family is stateless, but for options such as a support, which are the fields of a frozen dataclass. It acts on
    torch distributions ("components") whose last batch axis counts the K components of a mixture; its methods replace
    torch's own only where those lose digits or do not exist. Whatever distinguishes one component from another, the
    ends of its support included, is a tensor of the components; options only say what `build` makes.
    Raw parameters are the unconstrained outputs of a network, `n_raw` of them for each component.
    """

    name: ClassVar[str]
    covariance_type: ClassVar[str | None]
    """``None`` for a scalar target, else how the covariance of a vector target is shaped."""
    closed_under: ClassVar[Literal["affine", "scale", "none"]] = "affine"
    """Which a + b*Y is of the family again: any, only a = 0 and b > 0, or none but Y itself."""

    @abstractmethod
    def owns(self, components: Distribution) -> bool:
        """Whether this family answers for these components."""

    def of(self, components: Law, family_of: "Callable[[Distribution], Family[Any]]") -> "Family[Law]":
        """The family that answers for components it owns: itself, or one with options that they show.

        `family_of` finds the family of laws that the components are made of.
        """
        return self

    # Between a network and a law ------------------------------------------------------------------------------

    @abstractmethod
    def n_raw(self, event_size: int | None) -> int:
        """Number of raw parameters of one component; `event_size` is None for a scalar target."""

    @abstractmethod
    def build(self, raw: Float[Tensor, "*batch n_raw"], scale_floor: Float[Tensor, "..."] | float = 0.0) -> Law:
        """Components from raw parameters; no scale falls below `scale_floor` (in units of the target)."""

    @abstractmethod
    def unbuild(
        self, components: Law, scale_floor: Float[Tensor, "..."] | float = 0.0
    ) -> Float[Tensor, "*batch n_raw"]:
        """The raw parameters that `build` turns into these components (scales at the floor move just above it)."""

    def log_prob_and_slopes(
        self, raw: Float[Tensor, "*batch n_raw"], scale_floor: Float[Tensor, "..."] | float, y: Tensor
    ) -> tuple[Tensor, Float[Tensor, "*batch n_raw"]] | None:
        """`log_prob` of what `build` makes of `raw`, and its derivative in each raw parameter; None where there is no
        closed form, and automatic differentiation has to do."""
        return None

    @abstractmethod
    def fit(self, y: Float[Tensor, "n *event"], weights: Float[Tensor, "n k"]) -> Law:
        """Maximum-likelihood components, one for each column of row weights.

        Scales are kept above 1e-3 of the target's own, so that a column with a single row is still a law.
        """

    # The law itself -------------------------------------------------------------------------------------------

    @abstractmethod
    def parameters(self, components: Law) -> tuple[Tensor, ...]:
        """The tensors that define the components, each of shape batch_shape + axes of its own.

        These are none for a number of each component, (D,) for one of each coordinate, (D, D) for a matrix...
        """

    @abstractmethod
    def from_parameters(self, *parameters: Tensor) -> Law:
        """The inverse of `parameters`."""

    @abstractmethod
    def log_prob(self, components: Law, y: Tensor) -> Tensor:
        """Log density of each component at `y` (which broadcasts against the components), in nats."""

    @abstractmethod
    def sample(self, components: Law, generator: torch.Generator | None = None) -> Tensor:
        """One draw from each component, shape batch_shape + event_shape."""

    @abstractmethod
    def affine(self, components: Law, a: Tensor, b: Tensor) -> Law:
        """The law of a + b*Y, elementwise; `a` and `b` broadcast against batch_shape + event_shape, b is never 0.

        Called only with what `closed_under` allows.
        """

    def may_move(self, a: Tensor, b: Tensor) -> bool:
        """Whether `closed_under` allows these."""
        if self.closed_under == "affine":
            return True
        return bool((a == 0).all() and ((b > 0) if self.closed_under == "scale" else (b == 1)).all())

    def moved(self, a: Sequence[float], b: Sequence[float]) -> "Family[Law]":
        """The family of a + b*Y, one a and b for each coordinate: options in units of the target move with it."""
        return self

    def settle(self, components: Law) -> Law:
        """The components with the ends of their support exactly where the family has them: rounding may move them."""
        return components

    def widen(self, components: Law, factor: Tensor) -> Law:
        """The components `factor` times as wide, a number, each about its own mean (some about their centre).

        Where the width of a law follows from its mean, as that of counts does, it stays as it is.
        """
        if self.closed_under != "affine":
            return components
        mean = components.mean
        return self.affine(components, (1 - factor) * mean, factor.expand_as(mean))

    def mean(self, weights: Tensor, components: Law) -> Tensor:
        """Mean of the mixture with these weights, shape (*B, K), which sum to 1."""
        axis = -1 - len(components.event_shape)
        means, weights = components.mean, weights.reshape(weights.shape + (1,) * (-1 - axis))
        about = torch.linalg.vecdot(weights, means, dim=axis)
        # Weights sum to 1 but for rounding; once more, from there on, float32 keeps its digits far from the origin.
        mean = about + torch.linalg.vecdot(weights, means - about.unsqueeze(axis), dim=axis)
        if not bool(mean.isfinite().all()):  # a component without weight may have no mean
            present = torch.where(weights > 0, means, 0)
            mean = torch.where(mean.isfinite(), mean, torch.linalg.vecdot(weights, present, dim=axis))
        return mean

    def variance(self, weights: Tensor, components: Law, mean: Tensor) -> Tensor:
        """Variance of the mixture with this mean: mean of the components' variances plus variance of their means."""
        axis = -1 - len(components.event_shape)
        distance = components.mean - mean.unsqueeze(axis)
        weights = weights.reshape(weights.shape + (1,) * (-1 - axis))
        parts = torch.addcmul(components.variance, distance, distance)
        variance = torch.linalg.vecdot(weights, parts, dim=axis)
        if bool(variance.isnan().any()):  # a component without weight may have no variance
            variance = torch.linalg.vecdot(weights, torch.where(weights > 0, parts, 0), dim=axis)
        return variance

    def map(self, components: Law, function: Callable[[Tensor], Tensor]) -> Law:
        """The components with `function` applied to each defining tensor (indexing, moving, detaching...)."""
        return self.from_parameters(*(function(parameter) for parameter in self.parameters(components)))

    def __repr__(self) -> str:
        name = self.name if self.covariance_type is None else f"{self.name}/{self.covariance_type}"
        changed = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"{name}({', '.join(changed)})" if changed else name


class ScalarFamily(Family[Law]):
    """A family of scalar laws: it also answers with distribution functions."""

    covariance_type = None
    is_discrete: ClassVar[bool] = False
    """Whether the law lives on the whole numbers; `log_prob` is then the log of a mass."""
    is_circular: ClassVar[bool] = False
    """Whether the two ends of the support are the same point; mean and variance are then circular."""
    has_distances: ClassVar[bool] = False
    """Whether `mean_distance` and `mean_difference` exist in closed form."""

    @abstractmethod
    def cdf(self, components: Law, y: Tensor) -> Tensor:
        """P(Y <= y), with full relative precision in the lower tail; any real y."""

    @abstractmethod
    def survival(self, components: Law, y: Tensor) -> Tensor:
        """P(Y > y), with full relative precision in the upper tail; any real y."""

    @abstractmethod
    def log_cdf(self, components: Law, y: Tensor) -> Tensor:
        """log P(Y <= y), finite far below the point at which the cdf underflows."""

    @abstractmethod
    def log_survival(self, components: Law, y: Tensor) -> Tensor:
        """log P(Y > y), likewise."""

    @abstractmethod
    def icdf(self, components: Law, q: Tensor) -> Tensor:
        """The least y at which the cdf reaches `q`."""

    @abstractmethod
    def isf(self, components: Law, q: Tensor) -> Tensor:
        """The least y at which the survival function has fallen to `q`."""

    def tail_and_density(self, components: Law, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The lesser of `cdf` and `survival`, -1 where it is the former and 1 where the latter, and the density."""
        cdf, survival = self.cdf(components, y), self.survival(components, y)
        side = torch.copysign(torch.ones_like(cdf), cdf - 0.5)
        return torch.minimum(cdf, survival), side, self.log_prob(components, y).exp()

    @abstractmethod
    def third_moment(self, components: Law) -> Tensor:
        """E[(Y - E[Y])^3]; NaN where it does not exist."""

    def support(self, components: Law) -> tuple[Tensor, Tensor]:
        """Its two ends, shape batch_shape; the whole line by default."""
        infinite = components.mean.new_tensor([-torch.inf, torch.inf])
        low, high = infinite.expand(*components.batch_shape, 2).unbind(-1)
        return low, high

    def kinks(self, components: Law) -> Tensor:
        """Where the density is not smooth within the support, shape batch_shape + (m,); nowhere by default."""
        return components.mean[..., None][..., :0]

    def slope(self, components: Law, y: Tensor) -> Tensor:
        """The derivative of `log_prob` in y, by automatic differentiation unless the family knows better."""
        with torch.enable_grad():
            y = y.detach().expand(torch.broadcast_shapes(y.shape, components.batch_shape)).clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.log_prob(components, y).sum(), y)
        return slope

    def mean_distance(self, components: Law, y: Tensor) -> Tensor:
        """E|X - y|."""
        raise NotImplementedError

    def mean_difference(self, first: Law, second: Law) -> Tensor:
        """E|X - Y| of independent X and Y, pair by pair."""
        raise NotImplementedError


@dataclass(frozen=True, repr=False)
class BoundedFamily(ScalarFamily[Law]):
    """A family of scalar laws whose support is an option; its two ends are the last `parameters` of the components."""

    bounds: tuple[float, float]
    """The ends of the support."""

    def moved(self, a: Sequence[float], b: Sequence[float]) -> "BoundedFamily[Law]":
        low, high = sorted(a[0] + b[0] * end for end in self.bounds)
        return replace(self, bounds=(low, high))

    def moved_ends(self, components: Law, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Both ends of the support of a + b*Y."""
        ends = [a + b * end for end in self.support(components)]
        return torch.minimum(*ends), torch.maximum(*ends)

    def settle(self, components: Law) -> Law:
        low, high = (torch.full_like(components.mean, end) for end in self.bounds)
        return self.from_parameters(*self.parameters(components)[:-2], low, high)

    def support(self, components: Law) -> tuple[Tensor, Tensor]:
        low, high = self.parameters(components)[-2:]
        return low, high


class VectorFamily(Family[Law]):
    """A family of laws of vectors: it also answers with covariances and margins."""

    @abstractmethod
    def covariance(self, components: Law) -> Tensor:
        """Covariance matrices, shape batch_shape + (D, D)."""

    @abstractmethod
    def marginal(self, components: Law, dim: int) -> Distribution:
        """The scalar law of coordinate `dim`."""

    @abstractmethod
    def take(self, components: Law, dims: Sequence[int]) -> Law:
        """The law of the coordinates `dims`, in that order; given all of them, the same law in another order."""

    @abstractmethod
    def condition(self, components: Law, n_known: int, values: Tensor) -> tuple[Tensor, Law]:
        """Log density of the first `n_known` coordinates at `values`, and the law of the others given them."""


AnyFamily = Family[Any]
