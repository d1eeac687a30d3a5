"""What every component law provides: the contract that the rest of Mixtura, and the contract tests, rely on."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

Law = TypeVar("Law", bound=Distribution)


class Family(ABC, Generic[Law]):
    """The law of one mixture component, for one shape of target.

    A family is stateless. It acts on torch distributions ("components") whose last batch axis counts the K
    components of a mixture; its methods replace torch's own only where those lose digits or do not exist.
    Raw parameters are the unconstrained outputs of a network, `n_raw` of them for each component, locations first.
    """

    name: ClassVar[str]
    covariance_type: ClassVar[str | None]
    """``None`` for a scalar target, else how the covariance of a vector target is shaped."""

    @abstractmethod
    def owns(self, components: Distribution) -> bool:
        """Whether this family answers for these components."""

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

    @abstractmethod
    def fit(self, y: Float[Tensor, "n *event"], weights: Float[Tensor, "n k"]) -> Law:
        """Maximum-likelihood components, one for each column of row weights.

        Scales are kept above 1e-3 of the target's own, so that a column with a single row is still a law.
        """

    # The law itself -------------------------------------------------------------------------------------------

    @abstractmethod
    def parameters(self, components: Law) -> tuple[Tensor, ...]:
        """The tensors that define the components, each of shape batch_shape + event axes."""

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
        """The law of a + b*Y, elementwise; `a` and `b` broadcast against batch_shape + event_shape, b is never 0."""

    def map(self, components: Law, function: Callable[[Tensor], Tensor]) -> Law:
        """The components with `function` applied to each defining tensor (indexing, moving, detaching...)."""
        return self.from_parameters(*(function(parameter) for parameter in self.parameters(components)))

    def __repr__(self) -> str:
        return self.name if self.covariance_type is None else f"{self.name}/{self.covariance_type}"


class ScalarFamily(Family[Law]):
    """A family of scalar laws: it also answers with distribution functions."""

    covariance_type = None

    @abstractmethod
    def cdf(self, components: Law, y: Tensor) -> Tensor:
        """P(Y <= y), with full relative precision in the lower tail."""

    @abstractmethod
    def survival(self, components: Law, y: Tensor) -> Tensor:
        """P(Y > y), with full relative precision in the upper tail."""

    @abstractmethod
    def log_cdf(self, components: Law, y: Tensor) -> Tensor:
        """log P(Y <= y), finite far below the point at which the cdf underflows."""

    @abstractmethod
    def log_survival(self, components: Law, y: Tensor) -> Tensor:
        """log P(Y > y), likewise."""

    @abstractmethod
    def icdf(self, components: Law, q: Tensor) -> Tensor:
        """The y at which the cdf reaches `q`."""

    @abstractmethod
    def isf(self, components: Law, q: Tensor) -> Tensor:
        """The y at which the survival function falls to `q`."""

    @abstractmethod
    def mean_distance(self, components: Law, y: Tensor) -> Tensor:
        """E|X - y|."""

    @abstractmethod
    def mean_difference(self, first: Law, second: Law) -> Tensor:
        """E|X - Y| of independent X and Y, pair by pair."""


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
