"""The value that everything else makes or asks: a mixture distribution."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor
from torch.distributions import Distribution

from .errors import MixturaError
from .families import AnyFamily, ScalarFamily, VectorFamily, family_of
from .quantile import solve_icdf


class Mixture(Distribution):
    """A batch of mixtures p(y) = sum_k w_k p_k(y), as a `torch.distributions.Distribution`.

    A mixture is a plain value: no method changes it, and no method touches torch's global state
    (`sample` without a generator draws from torch's global one, as every torch distribution does).

    Parameters
    ----------
    logits
        Tensor, shape (*B, K). Unnormalised log weights; -inf is a weight of exactly 0.
    components
        A torch distribution whose last batch axis counts the K components. `Normal` gives a scalar target
        (event_shape ()), `MultivariateNormal` or `Independent(Normal, 1)` a vector one (event_shape (D,)).
        Batch axes of logits and components broadcast.
    validate_args
        Whether to check shapes and finiteness; None follows torch's own setting.

    Attributes
    ----------
    logits
        Tensor, shape (*B, K). Normalised: logsumexp over the last axis is 0.
    components
        The component distributions, batch_shape (*B, K).
    family
        The registered family that answers for the components.

    Raises
    ------
    MixturaError
        ``E-family-unknown`` for components of an unregistered law, ``E-mixture-shape`` where the shapes
        do not fit, ``E-mixture-nan`` for parameters that are NaN or weights that are all 0.

    References
    ----------
    Bishop (1994), Mixture density networks, NCRG/94/004, section 2.

    Examples
    --------
    >>> from torch.distributions import Normal
    >>> two = Mixture(torch.zeros(2), Normal(torch.tensor([-1.0, 1.0]), torch.tensor([0.1, 0.1])))
    >>> round(two.mean.item(), 6), round(two.stddev.item(), 6)
    (0.0, 1.004988)
    >>> two.log_prob(torch.tensor(0.0)).item() < -40  # the mean is where no data are
    True
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore  # coded checks of our own instead
    has_rsample = False

    def __init__(self, logits: Tensor, components: Distribution, validate_args: bool | None = None):
        self.family: AnyFamily = family_of(components)
        if not components.batch_shape or not logits.ndim or logits.shape[-1] != components.batch_shape[-1]:
            raise MixturaError(
                "E-mixture-shape",
                f"logits of shape {tuple(logits.shape)} and components of batch_shape {tuple(components.batch_shape)}",
                "both to end in the same number K of components",
                "give each component one logit, along the last axis",
            )
        try:
            shape = torch.broadcast_shapes(logits.shape, components.batch_shape)
        except RuntimeError as error:
            raise MixturaError(
                "E-mixture-shape",
                f"logits of shape {tuple(logits.shape)} and components of batch_shape {tuple(components.batch_shape)}",
                "shapes that broadcast",
                "give both the same leading axes",
            ) from error
        dtype = logits.dtype
        for parameter in self.family.parameters(components):
            dtype = torch.promote_types(dtype, parameter.dtype)
        components = self.family.map(components.expand(shape), lambda parameter: parameter.to(dtype))
        self.logits, self.components = logits.to(dtype).log_softmax(-1).expand(shape), components
        super().__init__(shape[:-1], components.event_shape, validate_args=validate_args)
        if self._validate_args:
            self._check_parameters()

    def _check_parameters(self) -> None:
        tensors = (self.logits, *self.family.parameters(self.components))
        if any(bool(tensor.isnan().any()) for tensor in tensors):
            raise MixturaError(
                "E-mixture-nan", "NaN in logits or parameters", "numbers", "look where the network's outputs come from"
            )

    def _with(self, logits: Tensor, components: Distribution) -> Mixture:
        """A mixture made from parts that fit: the logits are normalised, and stay as they are to the bit."""
        new = Mixture.__new__(Mixture)
        new.family, new.logits, new.components = family_of(components), logits, components
        Distribution.__init__(new, logits.shape[:-1], components.event_shape, validate_args=self._validate_args)
        return new

    def _map(self, function: Callable[[Tensor], Tensor]) -> Mixture:
        return self._with(function(self.logits), self.family.map(self.components, function))

    # What it is -----------------------------------------------------------------------------------------------

    @property
    def support(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Where the density may be positive, as a torch constraint."""
        return self.components.support

    @property
    def n_components(self) -> int:
        """K, the number of components (not of modes)."""
        return self.logits.shape[-1]

    @property
    def weights(self) -> Float[Tensor, "*batch k"]:
        """Mixing weights, positive, summing to 1 over the last axis."""
        return self.logits.exp()

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the answers."""
        return self.logits.dtype

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.logits.device

    def __repr__(self) -> str:
        batch, event = tuple(self.batch_shape), tuple(self.event_shape)
        return f"Mixture({self.family!r}, n_components={self.n_components}, batch_shape={batch}, event_shape={event})"

    # Moments --------------------------------------------------------------------------------------------------

    @property
    def mean(self) -> Float[Tensor, "*batch_event"]:
        """E[Y]. On a multi-valued target it may lie where no data are: look at the density too."""
        # From one of the means on, so that float32 keeps its digits far from the origin.
        anchor = self.components.mean.select(self._component_axis, 0)
        deviation = self.components.mean - anchor.unsqueeze(self._component_axis)
        return anchor + (self._event_weights() * deviation).sum(self._component_axis)

    @property
    def variance(self) -> Float[Tensor, "*batch_event"]:
        """Var[Y], elementwise: mean of the components' variances plus variance of their means."""
        between = (self.components.mean - self.mean.unsqueeze(self._component_axis)).square()
        return (self._event_weights() * (self.components.variance + between)).sum(self._component_axis)

    @property
    def covariance(self) -> Float[Tensor, "*batch d d"]:
        """Cov[Y] of a vector target, shape (*B, D, D).

        Raises
        ------
        MixturaError
            ``E-vector-only`` for a scalar target.
        """
        family = self._vector_family("covariance", "use .variance")
        deviation = self.components.mean - self.mean.unsqueeze(-2)
        within = family.covariance(self.components)
        between = deviation[..., :, None] * deviation[..., None, :]
        return (self.weights[..., None, None] * (within + between)).sum(-3)

    # Density, distribution function, quantiles ----------------------------------------------------------------

    def log_prob(self, value: Tensor | ArrayLike) -> Tensor:
        """Log density at `value`, in nats per unit of the target (it is positive where the density exceeds 1).

        Parameters
        ----------
        value
            Shape (*S, *B) + event_shape, broadcasting against the batch; a tensor, an array or numbers.

        Returns
        -------
        Tensor
            Shape (*S, *B). Through log-sum-exp, so it stays finite hundreds of scales away.
        """
        value = self._checked(value)
        log_densities = self.family.log_prob(self.components, value.unsqueeze(self._component_axis))
        return torch.logsumexp(self.logits + log_densities, -1)

    def cdf(self, value: Tensor | ArrayLike) -> Tensor:
        """P(Y <= value) of a scalar target, with full relative precision in the lower tail; shape (*S, *B).

        Raises
        ------
        MixturaError
            ``E-scalar-only`` for a vector target.
        """
        family = self._scalar_family("cdf")
        value = self._checked(value)
        return (self.weights * family.cdf(self.components, value.unsqueeze(-1))).sum(-1).clamp(max=1)

    def icdf(self, value: Tensor | ArrayLike) -> Tensor:
        """The quantile of a scalar target: the y at which the cdf reaches `value`.

        Exact to floating-point precision at any scale, in both tails and on the flat stretches between modes;
        differentiable once, by the implicit function theorem. Levels 0 and 1 give -inf and +inf.

        Parameters
        ----------
        value
            Levels in [0, 1], shape (*S, *B), broadcasting against the batch: for Q levels of each of N rows give
            shape (Q, 1).

        Raises
        ------
        MixturaError
            ``E-scalar-only`` for a vector target, ``E-quantile-range`` for levels outside [0, 1],
            ``E-value-shape`` for levels that do not broadcast.

        Examples
        --------
        >>> from torch.distributions import Normal
        >>> far = Mixture(torch.zeros(2), Normal(torch.tensor([-1e6, 1e6]), torch.tensor([1.0, 1.0])))
        >>> far.icdf(torch.tensor([0.25, 0.5, 0.75])).round()
        tensor([-1000000.,        0.,  1000000.])
        """
        family = self._scalar_family("icdf")
        level = self._as_tensor(value)
        level = level.to(torch.promote_types(self.dtype, level.dtype))
        if not bool(((level >= 0) & (level <= 1)).all()):
            raise MixturaError("E-quantile-range", "a level that is no probability", "levels in [0, 1]", "check units")
        return solve_icdf(self.logits, family, self.components, level.expand(self._broadcast(level.shape)))

    def ppf(self, value: Tensor | ArrayLike) -> Tensor:
        """The same as `icdf`, by scipy's name."""
        return self.icdf(value)

    @property
    def median(self) -> Float[Tensor, "*batch"]:
        """The 50% quantile of a scalar target."""
        return self.icdf(torch.full(self.batch_shape, 0.5, dtype=self.dtype, device=self.device))

    def log_cdf(self, value: Tensor | ArrayLike) -> Tensor:
        """log P(Y <= value) of a scalar target, finite far below the point at which the cdf underflows."""
        family = self._scalar_family("log_cdf")
        log_cdfs = family.log_cdf(self.components, self._checked(value).unsqueeze(-1))
        return torch.logsumexp(self.logits + log_cdfs, -1).clamp(max=0)

    def survival(self, value: Tensor | ArrayLike) -> Tensor:
        """P(Y > value) of a scalar target, with full relative precision in the upper tail.

        For a continuous target it is P(Y >= value) too.
        """
        family = self._scalar_family("survival")
        survivals = family.survival(self.components, self._checked(value).unsqueeze(-1))
        return (self.weights * survivals).sum(-1).clamp(max=1)

    def prob_interval(self, a: Tensor | ArrayLike, b: Tensor | ArrayLike) -> Tensor:
        """P(a < Y <= b) of a scalar target; 0 where b <= a. Right also for narrow intervals far in a tail.

        Parameters
        ----------
        a, b
            Ends, shape (*S, *B), broadcasting against the batch; may be infinite.
        """
        family = self._scalar_family("prob_interval")
        low, high = (self._checked(end).unsqueeze(-1) for end in (a, b))
        below = family.cdf(self.components, high) - family.cdf(self.components, low)
        above = family.survival(self.components, low) - family.survival(self.components, high)
        is_upper = family.cdf(self.components, low) > 0.5
        return (self.weights * torch.where(is_upper, above, below)).sum(-1).clamp(0, 1)

    # Samples --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] | torch.Size = (), generator: torch.Generator | None = None) -> Tensor:
        """Draws, shape sample_shape + batch_shape + event_shape.

        Parameters
        ----------
        sample_shape
            How many draws of each mixture.
        generator
            Where the randomness comes from; without one, torch's global generator, as in torch itself.
        """
        sample_shape = torch.Size(sample_shape)
        n_samples, n_rows = math.prod(sample_shape), math.prod(self.batch_shape)
        # Inverse cdf over the components in float64; the clamp keeps u*total below the last step of the sum.
        steps = self.logits.double().exp().reshape(n_rows, self.n_components).cumsum(-1)
        total = steps[:, -1:]
        u = torch.rand(n_rows, n_samples, dtype=torch.float64, device=self.device, generator=generator)
        u = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
        chosen = torch.searchsorted(steps, u, right=True).mT.reshape(sample_shape + self.batch_shape)

        def pick(parameter: Tensor) -> Tensor:
            event = parameter.shape[len(self.batch_shape) + 1 :]
            index = chosen.reshape(chosen.shape + (1,) * (1 + len(event)))
            parameter = parameter.expand(sample_shape + parameter.shape)
            return torch.take_along_dim(parameter, index, chosen.ndim).squeeze(chosen.ndim)

        return self.family.sample(self.family.map(self.components, pick), generator)

    # New mixtures from old ------------------------------------------------------------------------------------

    def affine(self, a: Tensor | float, b: Tensor | float) -> Mixture:
        """The mixture of a + b*Y, exact: its log density at a + b*y is that of Y at y less log|b|.

        Parameters
        ----------
        a, b
            Numbers or tensors that broadcast to batch_shape + event_shape; b may be negative, never 0.

        Raises
        ------
        MixturaError
            ``E-affine-zero`` where b is 0 or not finite, ``E-value-shape`` where a or b do not fit.
        """
        a, b = (torch.as_tensor(term, dtype=self.dtype, device=self.device) for term in (a, b))
        if not bool((b.isfinite() & (b != 0)).all()):
            raise MixturaError("E-affine-zero", "b that is 0 or not finite", "finite b other than 0", "check the scale")
        shape = self.batch_shape + self.event_shape
        for term in (a, b):
            if term.ndim > len(shape) or any(
                n not in (1, m) for n, m in zip(term.shape[::-1], shape[::-1], strict=False)
            ):
                got, fix = f"a or b of shape {tuple(term.shape)}", "expand the mixture first, or take one of the rows"
                raise MixturaError("E-value-shape", got, f"a shape that expands to {tuple(shape)}", fix)
        a, b = (term.expand(shape).unsqueeze(self._component_axis) for term in (a, b))
        return self._with(self.logits, self.family.affine(self.components, a, b))

    @staticmethod
    def pool(mixtures: Sequence[Mixture], weights: Tensor | Sequence[float] | None = None) -> Mixture:
        """One mixture of M mixtures, exact: K_1 + ... + K_M components (a linear opinion pool, Stone 1961).

        Parameters
        ----------
        mixtures
            M mixtures of the same family, with equal event_shape and batch_shapes that broadcast.
        weights
            Shape (M,) or (*B, M), not negative, any sum; equal by default.

        Raises
        ------
        MixturaError
            ``E-pool-empty`` for no mixtures, ``E-pool-mismatch`` for mixtures or weights that do not fit,
            ``E-value-shape`` for batches that do not.
        """
        if not mixtures:
            raise MixturaError("E-pool-empty", "no mixtures", "at least one", "check how the list is made")
        first = mixtures[0]
        kinds = {(type(mixture.components), mixture.event_shape, mixture.dtype) for mixture in mixtures}
        share = torch.ones(len(mixtures)) if weights is None else torch.as_tensor(weights)
        share = share.to(first.logits)
        fits = share.ndim and share.shape[-1] == len(mixtures) and bool((share >= 0).all() & (share.sum(-1) > 0).all())
        if len(kinds) > 1 or not fits:
            raise MixturaError(
                "E-pool-mismatch",
                f"{mixtures!r} with weights of shape {tuple(share.shape)}",
                "mixtures of one family, event_shape and dtype, with one weight >= 0 for each",
                "make the members alike before pooling them",
            )
        batch_shape = mixtures[0].batch_shape
        for mixture in mixtures:
            batch_shape = mixture._broadcast(batch_shape)
        batch_shape = torch.broadcast_shapes(batch_shape, share.shape[:-1])
        members = [mixture.expand(batch_shape) for mixture in mixtures]
        log_share = (share.log() - share.sum(-1, keepdim=True).log()).expand(*batch_shape, len(members))
        logits = torch.cat([member.logits + log_share[..., i, None] for i, member in enumerate(members)], -1)
        parts = zip(*(member.family.parameters(member.components) for member in members), strict=True)
        axis = len(batch_shape)
        return first._with(logits, first.family.from_parameters(*(torch.cat(part, axis) for part in parts)))

    def marginal(self, dims: Any) -> Mixture:
        """The mixture of some coordinates of a vector target: scalar for one number, else a vector in that order.

        Parameters
        ----------
        dims
            One coordinate, or a sequence of different ones, counted from 0 (from the end where negative).

        Raises
        ------
        MixturaError
            ``E-vector-only`` for a scalar target, ``E-marginal-dim`` for a coordinate that is not there.
        """
        family = self._vector_family("marginal", "a scalar mixture is its own margin")
        chosen = self._coordinates([dims] if isinstance(dims, Integral) else dims)
        if isinstance(dims, Integral):
            return self._with(self.logits, family.marginal(self.components, chosen[0]))
        return self._with(self.logits, family.take(self.components, chosen))

    def condition(self, dims: Any, values: Tensor | ArrayLike) -> Mixture:
        """The mixture of the other coordinates of a vector target, given the values of some, exact.

        The components' weights become proportional to w_k p_k(values). Of several coordinates left the mixture is a
        vector, in their old order; of one it is scalar.

        Parameters
        ----------
        dims
            The known coordinates, in any order.
        values
            Their values, shape (*S, *B, len(dims)), or (*S, *B) for a single number `dims`.

        Raises
        ------
        MixturaError
            ``E-vector-only`` for a scalar target, ``E-marginal-dim`` for coordinates that are not there, repeated, or
            all of them, ``E-value-shape`` for values that do not fit.

        References
        ----------
        Bishop (2006), Pattern recognition and machine learning, section 2.3.1.

        Examples
        --------
        >>> from torch.distributions import MultivariateNormal
        >>> covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]])
        >>> pair = Mixture(torch.zeros(1), MultivariateNormal(torch.zeros(1, 2), covariance))
        >>> given = pair.condition(0, 2.0)
        >>> round(given.mean.item(), 4), round(given.variance.item(), 4)
        (1.6, 0.36)
        """
        family = self._vector_family("condition", "a scalar target has no other coordinate")
        values = self._as_tensor(values).to(self.dtype)
        if not bool(values.isfinite().all()):
            raise MixturaError("E-value-nan", "values that are NaN or infinite", "numbers", "leave these rows out")
        if isinstance(dims, Integral):
            dims, values = [int(dims)], values.unsqueeze(-1)
        known = self._coordinates(dims)
        others = [dim for dim in range(self.event_shape[0]) if dim not in known]
        if not others:
            fix = "leave at least one coordinate out"
            raise MixturaError("E-marginal-dim", f"dims={list(dims)}, which is all of them", "some coordinates", fix)
        if values.shape[-1:] != (len(known),):
            got, expected = f"values of shape {tuple(values.shape)}", f"a last axis of length {len(known)}"
            raise MixturaError("E-value-shape", got, expected, "give one value for each of dims")
        shape = self._broadcast(values.shape[:-1])
        ordered = family.take(self.components, [*known, *others])
        log_prob, components = family.condition(ordered, len(known), values.expand(*shape, len(known)).unsqueeze(-2))
        logits = (self.logits + log_prob).log_softmax(-1)
        return self._with(logits, family.marginal(components, 0) if len(others) == 1 else components)

    def _coordinates(self, dims: Sequence[Any]) -> list[int]:
        """Coordinates counted from 0, each there and none twice."""
        d = self.event_shape[0]
        if (
            not all(isinstance(dim, Integral) and -d <= int(dim) < d for dim in dims)
            or len({dim % d for dim in dims}) != len(dims)
            or not len(dims)
        ):
            expected = f"different coordinates with -{d} <= dim < {d}"
            raise MixturaError("E-marginal-dim", f"dims={list(dims)}", expected, "count coordinates from 0")
        return [int(dim) % d for dim in dims]

    def split(self) -> Mixture:
        """The components, each as a mixture of one: batch_shape (*B, K)."""
        parts = self.family.map(self.components, lambda tensor: tensor.unsqueeze(len(self.batch_shape) + 1))
        return self._with(torch.zeros_like(self.logits).unsqueeze(-1), parts)

    def __getitem__(self, index: Any) -> Mixture:
        """The mixtures at `index` of the batch, by torch's rules of indexing."""
        rows = torch.arange(math.prod(self.batch_shape), device=self.device).reshape(self.batch_shape)[index]
        n_batch_axes = len(self.batch_shape)
        return self._map(lambda tensor: tensor.flatten(0, n_batch_axes - 1)[rows] if n_batch_axes else tensor[index])

    def __len__(self) -> int:
        """Length of the first batch axis."""
        if not self.batch_shape:
            raise TypeError("a mixture without batch axes has no length")
        return self.batch_shape[0]

    def expand(self, batch_shape: Sequence[int] | torch.Size, _instance: Any = None) -> Mixture:
        """The same mixtures with `batch_shape`, without copying."""
        batch_shape = torch.Size(batch_shape)
        n_batch_axes = len(self.batch_shape)
        return self._map(lambda tensor: tensor.expand(*batch_shape, *tensor.shape[n_batch_axes:]))

    def to(self, *args: Any, **kwargs: Any) -> Mixture:
        """The mixture on another device or in another dtype; arguments as for `torch.Tensor.to`."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def detach(self) -> Mixture:
        """The mixture cut off from the graph that computed it."""
        return self._map(Tensor.detach)

    # Shapes and checks ----------------------------------------------------------------------------------------

    @property
    def _component_axis(self) -> int:
        """The axis that counts components in a tensor of shape batch_shape + (K,) + event_shape."""
        return -1 - len(self.event_shape)

    def _event_weights(self) -> Tensor:
        """Weights with an axis of length 1 for each event axis."""
        return self.weights.reshape(self.weights.shape + (1,) * len(self.event_shape))

    def _as_tensor(self, value: Any) -> Tensor:
        """Tensors as they are; numbers, lists and arrays in the mixture's own dtype."""
        return value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=self.dtype, device=self.device)

    def _checked(self, value: Tensor | ArrayLike) -> Tensor:
        value = self._as_tensor(value)
        event = self.event_shape
        if value.shape[value.ndim - len(event) :] != event:
            got, expected = f"values of shape {tuple(value.shape)}", f"a last axis of length {event[0]}"
            raise MixturaError("E-value-shape", got, expected, "give one vector for each mixture")
        self._broadcast(value.shape[: value.ndim - len(event)])
        if self._validate_args and bool(value.isnan().any()):
            raise MixturaError("E-value-nan", "a value that is NaN", "numbers", "drop or impute missing values first")
        return value

    def _broadcast(self, shape: torch.Size) -> torch.Size:
        """The shape of answers for values of this shape."""
        try:
            return torch.broadcast_shapes(shape, self.batch_shape)
        except RuntimeError as error:
            got, expected = f"values of shape {tuple(shape)}", f"axes that broadcast against {tuple(self.batch_shape)}"
            fix = "give one value for each mixture, or put the axis of several values first: shape (S, *batch)"
            raise MixturaError("E-value-shape", got, expected, fix) from error

    def _scalar_family(self, answer: str) -> ScalarFamily:
        if isinstance(self.family, ScalarFamily):
            return self.family
        got = f".{answer} of a target with {self.event_shape[0]} coordinates"
        fix = f"ask one coordinate, .marginal(dim).{answer}(...), or draw samples"
        raise MixturaError("E-scalar-only", got, "a scalar target", fix)

    def _vector_family(self, answer: str, fix: str) -> VectorFamily:
        if isinstance(self.family, VectorFamily):
            return self.family
        raise MixturaError("E-vector-only", f".{answer} of a scalar target", "a vector target", fix)
