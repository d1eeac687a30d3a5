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
from torch.distributions import Distribution, Transform, constraints

from .blocks import ROWS_IN_A_BLOCK, in_blocks
from .combine import pooled, pruned, reduced
from .entropy import Estimate, entropy
from .errors import MixturaError
from .families import AnyFamily, ProductFamily, ScalarFamily, VectorFamily, Warped, family_of
from .modes import Modes, find_modes
from .quantile import attach_gradient, solve_icdf
from .regions import Region, densest_region, drawn_threshold, shortest


class Mixture(Distribution):
    """A batch of mixtures p(y) = sum_k w_k p_k(y), as a `torch.distributions.Distribution`.

    A scalar mixture may carry atoms besides: point masses at fixed values, such as rain that is exactly 0. `log_prob`
    is then the log mass at an atom and the log density anywhere else (a density with respect to Lebesgue measure plus a
    count of the atoms); cdf, quantiles, moments, samples and scores respect the jumps.

    A mixture is a plain value: no method changes it, and no method touches torch's global state
    (`sample` without a generator draws from torch's global one, as every torch distribution does).

    Parameters
    ----------
    logits
        Tensor, shape (*B, K + A). Unnormalised log weights, of the components and then of the atoms; -inf is a weight
        of exactly 0.
    components
        A torch distribution whose last batch axis counts the K components. `Normal` gives a scalar target
        (event_shape ()), `MultivariateNormal` or `Independent(Normal, 1)` a vector one (event_shape (D,));
        docs/mixture.md lists all families. Batch axes of logits and components broadcast.
    atoms
        Tensor, shape (A,) or (*B, A): the values that carry a mass of their own; None for a continuous law.
    validate_args
        Whether to check shapes and finiteness; None follows torch's own setting.

    Attributes
    ----------
    logits
        Tensor, shape (*B, K + A). Normalised: logsumexp over the last axis is 0.
    components
        The component distributions, batch_shape (*B, K).
    atoms
        Tensor, shape (*B, A), or None.
    family
        The registered family that answers for the components.

    Raises
    ------
    MixturaError
        ``E-family-unknown`` for components of an unregistered law, ``E-mixture-shape`` where the shapes
        do not fit, ``E-mixture-nan`` for parameters that are NaN or weights that are all 0, ``E-mixture-atoms`` for
        atoms of a vector or an angle.

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

    def __init__(
        self,
        logits: Tensor,
        components: Distribution,
        atoms: Tensor | None = None,
        validate_args: bool | None = None,
    ):
        self.family: AnyFamily = family_of(components)
        n_atoms = 0 if atoms is None else atoms.shape[-1]
        shapes = f"logits of shape {tuple(logits.shape)} and components of batch_shape {tuple(components.batch_shape)}"
        if n_atoms:
            shapes += f" and {n_atoms} atoms"
        if not components.batch_shape or not logits.ndim or logits.shape[-1] != components.batch_shape[-1] + n_atoms:
            expected = "one logit for each of the K components and each atom"
            raise MixturaError("E-mixture-shape", shapes, expected, "count both along the last axis")
        try:
            parts = [logits.shape[:-1], components.batch_shape[:-1], () if atoms is None else atoms.shape[:-1]]
            batch_shape = torch.broadcast_shapes(*parts)
        except RuntimeError as error:
            fix = "give all the same leading axes"
            raise MixturaError("E-mixture-shape", shapes, "shapes that broadcast", fix) from error
        if n_atoms and not (isinstance(self.family, ScalarFamily) and not self.family.is_circular):
            got, fix = f"atoms of {self.family!r}", "leave the atoms out"
            raise MixturaError("E-mixture-atoms", got, "atoms of a scalar target that is no angle", fix)
        dtype = logits.dtype
        for parameter in self.family.parameters(components):
            dtype = torch.promote_types(dtype, parameter.dtype)
        components = components.expand((*batch_shape, components.batch_shape[-1]))
        self.components = self.family.map(components, lambda parameter: parameter.to(dtype))
        self.logits = logits.to(dtype).log_softmax(-1).expand(*batch_shape, logits.shape[-1])
        self.atoms = (
            atoms.to(logits.device, dtype).expand(*batch_shape, n_atoms) if atoms is not None and n_atoms else None
        )
        super().__init__(batch_shape, components.event_shape, validate_args=validate_args)
        if self._validate_args:
            self._check_parameters()

    def _check_parameters(self) -> None:
        if any(bool(tensor.isnan().any()) for tensor in self.tensors()):
            raise MixturaError(
                "E-mixture-nan", "NaN in logits or parameters", "numbers", "look where the network's outputs come from"
            )

    def _with(self, logits: Tensor, components: Distribution, atoms: Tensor | None = None) -> Mixture:
        """A mixture made from parts that fit: the logits are normalised, and stay as they are to the bit."""
        new = Mixture.__new__(Mixture)
        new.family, new.logits, new.components, new.atoms = family_of(components), logits, components, atoms
        Distribution.__init__(new, logits.shape[:-1], components.event_shape, validate_args=self._validate_args)
        return new

    def tensors(self) -> tuple[Tensor, ...]:
        """All that defines it: logits, the parameters of the components, atoms."""
        return (self.logits, *self.family.parameters(self.components), *([] if self.atoms is None else [self.atoms]))

    def _map(self, function: Callable[[Tensor], Tensor]) -> Mixture:
        """The mixture with `function` applied to each of its tensors, whose first axes are the batch's."""
        atoms = None if self.atoms is None else function(self.atoms)
        return self._with(function(self.logits), self.family.map(self.components, function), atoms)

    # What it is -----------------------------------------------------------------------------------------------

    @property
    def support(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Where the density may be positive, as a torch constraint."""
        return self.components.support if self.atoms is None else constraints.real

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether `rsample` exists: for scalar continuous mixtures."""
        return isinstance(self.family, ScalarFamily) and not self.family.is_discrete and self.atoms is None

    @property
    def n_components(self) -> int:
        """K, the number of components (not of modes)."""
        return self.components.batch_shape[-1]

    @property
    def n_atoms(self) -> int:
        """A, the number of point masses."""
        return 0 if self.atoms is None else self.atoms.shape[-1]

    @property
    def weights(self) -> Float[Tensor, "*batch k"]:
        """Mixing weights of the components and then of the atoms, summing to 1 over the last axis."""
        return self.logits.exp()

    @property
    def continuous(self) -> Mixture:
        """The mixture without its atoms: p(y | y is no atom)."""
        if self.atoms is None:
            return self
        logits = self.logits[..., : self.n_components]
        share = logits.logsumexp(-1, keepdim=True)  # -inf where all mass is in the atoms
        return self._with(
            torch.where(share > -torch.inf, logits - share, -math.log(self.n_components)), self.components
        )

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
        atoms = f", n_atoms={self.n_atoms}" if self.n_atoms else ""
        counts = f"n_components={self.n_components}{atoms}"
        return f"Mixture({self.family!r}, {counts}, batch_shape={batch}, event_shape={event})"

    # Moments --------------------------------------------------------------------------------------------------

    @property
    def mean(self) -> Float[Tensor, "*batch_event"]:
        """E[Y]; of angles the circular mean. On a multi-valued target it may lie where no data are: see the density."""
        return in_blocks(lambda rows: rows._moments(1)[0], self, n_event_axes=len(self.event_shape))

    @property
    def variance(self) -> Float[Tensor, "*batch_event"]:
        """Var[Y], elementwise: mean of the components' variances plus variance of their means.

        Of angles, the square of the circular standard deviation in the target's units (Mardia 1972).
        """
        return in_blocks(lambda rows: rows._moments(2)[1], self, n_event_axes=len(self.event_shape))

    @property
    def skewness(self) -> Float[Tensor, "*batch"]:
        """E[(Y - E[Y])^3] / Var[Y]^(3/2) of a scalar target; NaN where it does not exist.

        Raises
        ------
        MixturaError
            ``E-scalar-only`` for a vector target.
        """
        self._scalar_family("skewness")

        def standardised(rows: Mixture) -> Tensor:
            _, variance, third = rows._moments(3)
            return third / variance**1.5

        return in_blocks(standardised, self)

    def _moments(self, order: int) -> list[Tensor]:
        """Mean, variance, third central moment, as far as `order`."""
        k = self.n_components
        inner = self.continuous
        moments = [self.family.mean(inner.weights, self.components)]
        if order > 1:
            moments.append(self.family.variance(inner.weights, self.components))
        if order > 2:
            distance = self.components.mean - moments[0].unsqueeze(-1)
            third = self._scalar_family("skewness").third_moment(self.components)
            third = third + 3 * distance * self.components.variance + distance**3
            moments.append((inner.weights * third).sum(-1))
        if self.atoms is None:
            return moments
        at_atoms, inside = self.weights[..., k:], self.weights[..., :k].sum(-1)
        mean = inside * moments[0] + (at_atoms * self.atoms).sum(-1)
        distance, far = moments[0] - mean, self.atoms - mean.unsqueeze(-1)
        central = [mean]
        if order > 1:
            central.append(inside * (moments[1] + distance.square()) + (at_atoms * far.square()).sum(-1))
        if order > 2:
            third = moments[2] + 3 * distance * moments[1] + distance**3
            central.append(inside * third + (at_atoms * far**3).sum(-1))
        return central

    @property
    def covariance(self) -> Float[Tensor, "*batch d d"]:
        """Cov[Y] of a vector target, shape (*B, D, D).

        Raises
        ------
        MixturaError
            ``E-vector-only`` for a scalar target, ``E-covariance-angle`` where a coordinate is an angle.
        """
        family = self._vector_family("covariance", "use .variance")
        if isinstance(family, ProductFamily) and any(part.is_circular for part in family.families):
            got, fix = "the covariance of angles", "ask .variance, or .marginal(dims) without the angles"
            raise MixturaError("E-covariance-angle", got, "coordinates on the line", fix)
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
        return in_blocks(Mixture._log_prob, self, self._checked(value))

    def _log_prob(self, value: Tensor) -> Tensor:
        if self.atoms is None:
            return self._log_density(value)
        is_here = value.unsqueeze(-1) == self.atoms.to(value.dtype)
        log_mass = torch.logsumexp(torch.where(is_here, self.logits[..., self.n_components :], -torch.inf), -1)
        if self._scalar_family("log_prob").is_discrete:
            return torch.logaddexp(self._log_density(value), log_mass)
        is_atom = is_here.any(-1)
        # The density is asked elsewhere then: at an atom it may be 0, and its gradient NaN.
        anywhere = self.components.mean[..., 0].detach()
        return torch.where(is_atom, log_mass, self._log_density(torch.where(is_atom, anywhere, value)))

    def _log_density(self, value: Tensor) -> Tensor:
        log_densities = self.family.log_prob(self.components, value.unsqueeze(self._component_axis))
        return torch.logsumexp(self.logits[..., : self.n_components] + log_densities, -1)

    def cdf(self, value: Tensor | ArrayLike) -> Tensor:
        """P(Y <= value) of a scalar target, with full relative precision in the lower tail; shape (*S, *B).

        Raises
        ------
        MixturaError
            ``E-scalar-only`` for a vector target.
        """
        family = self._scalar_family("cdf")

        def answer(rows: Mixture, value: Tensor) -> Tensor:
            cdfs = family.cdf(rows.components, value.unsqueeze(-1))
            return rows._average(cdfs, lambda atoms: atoms <= value.unsqueeze(-1))

        return in_blocks(answer, self, self._checked(value))

    def _average(self, of_components: Tensor, of_atoms: Callable[[Tensor], Tensor]) -> Tensor:
        """The weighted sum of probabilities of the components and of the atoms, (*S, *B, K) and (*S, *B, A)."""
        weights = self.weights
        total = (weights[..., : self.n_components] * of_components).sum(-1)
        if self.atoms is not None:
            total = total + (weights[..., self.n_components :] * of_atoms(self.atoms)).sum(-1)
        return total.clamp(0, 1)

    def _log_average(self, of_components: Tensor, is_atom: Callable[[Tensor], Tensor]) -> Tensor:
        """The same of log probabilities of the components, and of atoms that count or do not."""
        total = torch.logsumexp(self.logits[..., : self.n_components] + of_components, -1)
        if self.atoms is not None:
            log_masses = torch.where(is_atom(self.atoms), self.logits[..., self.n_components :], -torch.inf)
            total = torch.logaddexp(total, log_masses.logsumexp(-1))
        return total.clamp(max=0)

    def icdf(self, value: Tensor | ArrayLike) -> Tensor:
        """The quantile of a scalar target: the least y at which the cdf reaches `value`, an atom included.

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
        level = level.expand(self._broadcast(level.shape))
        return in_blocks(lambda rows, q: solve_icdf(rows.logits, family, rows.components, q, rows.atoms), self, level)

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

        def answer(rows: Mixture, value: Tensor) -> Tensor:
            log_cdfs = family.log_cdf(rows.components, value.unsqueeze(-1))
            return rows._log_average(log_cdfs, lambda atoms: atoms <= value.unsqueeze(-1))

        return in_blocks(answer, self, self._checked(value))

    def survival(self, value: Tensor | ArrayLike) -> Tensor:
        """P(Y >= value) of a scalar target, with full relative precision in the upper tail.

        For a continuous target it is 1 - cdf; of counts and at atoms it includes `value` itself, as `cdf` does.
        """
        family = self._scalar_family("survival")

        def answer(rows: Mixture, value: Tensor) -> Tensor:
            below = value.ceil() - 1 if family.is_discrete else value
            survivals = family.survival(rows.components, below.unsqueeze(-1))
            return rows._average(survivals, lambda atoms: atoms >= value.unsqueeze(-1))

        return in_blocks(answer, self, self._checked(value))

    def prob_interval(self, a: Tensor | ArrayLike, b: Tensor | ArrayLike) -> Tensor:
        """P(a < Y <= b) of a scalar target; 0 where b <= a. Right also for narrow intervals far in a tail.

        Parameters
        ----------
        a, b
            Ends, shape (*S, *B), broadcasting against the batch; may be infinite.
        """
        family = self._scalar_family("prob_interval")

        def answer(rows: Mixture, low: Tensor, high: Tensor) -> Tensor:
            low, high = low.unsqueeze(-1), high.unsqueeze(-1)
            cdf_low = family.cdf(rows.components, low)
            below = family.cdf(rows.components, high) - cdf_low
            above = family.survival(rows.components, low) - family.survival(rows.components, high)
            inside = torch.where(cdf_low > 0.5, above, below).clamp(min=0)
            return rows._average(inside, lambda atoms: (low < atoms) & (atoms <= high))

        low, high = torch.broadcast_tensors(self._checked(a), self._checked(b))
        return in_blocks(answer, self, low, high)

    def log_prob_interval(self, a: Tensor | ArrayLike, b: Tensor | ArrayLike) -> Tensor:
        """log P(a < Y <= b) of a scalar target, the likelihood of a censored observation; -inf where b <= a.

        From differences of logarithms, so that it stays finite, and keeps its gradient, where the probability
        underflows.

        Parameters
        ----------
        a, b
            Ends, shape (*S, *B), broadcasting against the batch; may be infinite.
        """
        family = self._scalar_family("log_prob_interval")

        def answer(rows: Mixture, low: Tensor, high: Tensor) -> Tensor:
            low, high = low.unsqueeze(-1), high.unsqueeze(-1)
            is_upper = (family.cdf(rows.components, low) > 0.5).detach()
            # Infinite ends are asked at finite ones: their answer is known, and their gradient would be NaN.
            anywhere = rows.components.mean.detach()
            finite_low, finite_high = (
                torch.where(low == -torch.inf, anywhere, low),
                torch.where(high == torch.inf, anywhere, high),
            )
            log_below = torch.where(high == torch.inf, 0, family.log_cdf(rows.components, finite_high))
            log_above = torch.where(low == -torch.inf, 0, family.log_survival(rows.components, finite_low))
            below_low = torch.where(low == -torch.inf, -torch.inf, family.log_cdf(rows.components, finite_low))
            above_high = torch.where(high == torch.inf, -torch.inf, family.log_survival(rows.components, finite_high))
            larger, smaller = torch.where(is_upper, log_above, log_below), torch.where(is_upper, above_high, below_low)
            inside = log_difference(larger, smaller)
            return rows._log_average(inside, lambda atoms: (low < atoms) & (atoms <= high))

        low, high = torch.broadcast_tensors(self._checked(a), self._checked(b))
        return in_blocks(answer, self, low, high)

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
        n_samples = math.prod(sample_shape)
        if not self.batch_shape:
            return self.expand((1,)).sample(sample_shape, generator).squeeze(len(sample_shape))
        flat = self.reshape((-1,))
        draws = torch.empty(n_samples, len(flat), *self.event_shape, dtype=self.dtype, device=self.device)
        step = max(1, ROWS_IN_A_BLOCK // max(1, n_samples))
        for start in range(0, len(flat), step):
            draws[:, start : start + step] = flat[start : start + step]._draw(n_samples, generator)
        return draws.reshape(sample_shape + self.batch_shape + self.event_shape)

    def _draw(self, n_samples: int, generator: torch.Generator | None) -> Tensor:
        """Draws of a mixture with one batch axis, shape (n_samples, n) + event_shape."""
        # Inverse cdf over the components in float64; the clamp keeps u*total below the last step of the sum.
        steps = self.logits.double().exp().cumsum(-1)
        total = steps[:, -1:]
        u = torch.rand(len(self), n_samples, dtype=torch.float64, device=self.device, generator=generator)
        u = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
        chosen = torch.searchsorted(steps, u, right=True)
        k = self.n_components

        def pick(parameter: Tensor) -> Tensor:
            index = chosen.clamp(max=k - 1).reshape(chosen.shape + (1,) * (parameter.ndim - 2))
            return torch.take_along_dim(parameter, index, 1)

        drawn = self.family.sample(self.family.map(self.components, pick), generator)
        if self.atoms is not None:
            at = torch.take_along_dim(self.atoms, (chosen - k).clamp(min=0), 1)
            drawn = torch.where(chosen < k, drawn, at)
        return drawn.transpose(0, 1)

    def rsample(
        self, sample_shape: Sequence[int] | torch.Size = (), generator: torch.Generator | None = None
    ) -> Tensor:
        """Draws of a scalar continuous mixture, differentiable in its weights as in its other parameters.

        By implicit reparameterisation: a draw keeps its level, so that dy = -dF(y) / p(y).

        Raises
        ------
        MixturaError
            ``E-scalar-only`` for a vector target, ``E-not-continuous`` with atoms or counts.

        References
        ----------
        Figurnov, Mohamed and Mnih (2018), Implicit reparameterization gradients.
        """
        family = self._scalar_family("rsample")
        self._check_continuous("rsample")
        y = self.sample(sample_shape, generator)
        shape = (*y.shape, self.n_components)

        def flat(tensor: Tensor) -> Tensor:
            return tensor.expand(shape).reshape(-1, self.n_components)

        logits, components = flat(self.logits), family.map(self.components, flat)
        return attach_gradient(y.reshape(-1), logits, family, components, None).reshape(y.shape)

    def entropy(self, n_draws: int = 4096, generator: torch.Generator | None = None) -> Estimate:  # pyright: ignore
        """-E[log p(Y)], in nats, as (value, error): it has no closed form.

        Of a scalar target by quadrature, with the difference to a coarser rule as its error; of a vector one from
        draws, with one standard error. With atoms, log p is the log mass there.

        Parameters
        ----------
        n_draws, generator
            For a vector target; without a generator always the same draws.
        """
        return entropy(self, n_draws, generator)

    # Modes and regions ----------------------------------------------------------------------------------------

    def modes(self) -> Modes:
        """All local maxima of the density: not the means of the components, and not as many as there are components.

        Of a scalar target by the sign of the slope between quantiles of every component and a bracketed root; of a
        vector one by ascents from every mean and from between every pair of components (of the 16 heaviest), since a
        full-covariance mixture can have more modes than components. An atom is a mode of infinite height.

        Returns
        -------
        Modes
            With `.loc`, `.height`, `.mass` (ordered by mass, padded with NaN) and `.count`; without gradient.

        Raises
        ------
        MixturaError
            ``E-not-continuous`` for a vector with counts among its coordinates.

        References
        ----------
        Carreira-Perpiñán (2000), Mode-finding for mixtures of Gaussian distributions; Ray and Lindsay (2005).

        Examples
        --------
        >>> from torch.distributions import Normal
        >>> skewed = Mixture(torch.zeros(3), Normal(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, 1.0, 1.0])))
        >>> skewed.modes().count.item(), round(skewed.modes().loc.item(), 4)  # three components, one mode
        (1, 0.5)
        """
        if not isinstance(self.family, ScalarFamily):
            self._check_continuous("modes")
        return find_modes(self)

    def highest_density_region(self, level: Tensor | float) -> Region:
        """The smallest set that holds the probability `level` of a scalar target: where the density is highest.

        It may be several intervals. Exact, by Newton steps on the density at its edge; atoms come first, the heaviest
        before the others; of counts it is the most probable whole numbers, at least `level` of them. Without gradient.

        Parameters
        ----------
        level
            In (0, 1), a number or shape batch_shape.

        Returns
        -------
        Region
            `.lower`, `.upper` (padded with NaN), `.count`, `.size`, `.contains(y)`.

        Raises
        ------
        MixturaError
            ``E-coverage-range`` for other levels, ``E-scalar-only`` for a vector target: see `in_hdr`.

        References
        ----------
        Hyndman (1996), Computing and graphing highest density regions.

        Examples
        --------
        >>> from torch.distributions import Normal
        >>> two = Mixture(torch.zeros(2), Normal(torch.tensor([-5.0, 5.0]), torch.tensor([1.0, 1.0])))
        >>> region = two.highest_density_region(0.5)
        >>> region.count.item(), [round(end, 2) for end in region.lower.tolist()]
        (2, [-5.67, 4.33])
        """
        family = self._scalar_family("highest_density_region")
        return densest_region(self, family, self._checked_level(level))[0]

    def hdr_threshold(
        self, level: Tensor | float, n_draws: int = 4096, generator: torch.Generator | None = None
    ) -> Tensor:
        """The log density at the edge of the highest-density region, in any dimension; shape batch_shape.

        Exact for a scalar target (infinite where atoms alone reach the level). For a vector it comes from draws, so
        that the region's true probability misses the level by sqrt(level (1 - level) / n_draws), one standard error:
        0.5% at 90% and 4,096 draws.

        Parameters
        ----------
        level
            In (0, 1), a number or shape batch_shape.
        n_draws, generator
            For a vector target; without a generator always the same draws.
        """
        level = self._checked_level(level)
        if isinstance(self.family, ScalarFamily):
            return densest_region(self, self.family, level)[1]
        return drawn_threshold(self, level, n_draws, generator)

    def in_hdr(
        self,
        y: Tensor | ArrayLike,
        level: Tensor | float,
        n_draws: int = 4096,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Whether y, shape (*S, *B) + event_shape, is in the highest-density region; as exact as `hdr_threshold`."""
        y = self._checked(y)
        if isinstance(self.family, ScalarFamily):
            return self.highest_density_region(level).contains(y)
        return self.log_prob(y) >= self.hdr_threshold(level, n_draws, generator)

    def central_interval(self, level: Tensor | float) -> Region:
        """The interval between the quantiles (1 - level)/2 and (1 + level)/2 of a scalar target."""
        level = self._checked_level(level)
        return self._interval(self.icdf((1 - level) / 2), self.icdf((1 + level) / 2))

    def shortest_interval(self, level: Tensor | float) -> Region:
        """The shortest single interval with the probability `level` of a scalar target; without gradient.

        Of a density with one mode it is the highest-density region. By a search over grids that close in: its length is
        exact to about 1e-12, its place only as far as the length depends on it.
        """
        self._scalar_family("shortest_interval")
        return self._interval(*shortest(self.detach(), self._checked_level(level)))

    def _interval(self, lower: Tensor, upper: Tensor) -> Region:
        size = upper - lower + (1 if self._scalar_family("interval").is_discrete else 0)
        return Region(lower.unsqueeze(-1), upper.unsqueeze(-1), size)

    def _checked_level(self, level: Tensor | float) -> Tensor:
        level = torch.as_tensor(level, dtype=self.dtype, device=self.device)
        if not bool(((level > 0) & (level < 1)).all()):
            raise MixturaError("E-coverage-range", f"level={level.tolist()}", "0 < level < 1", "0.9 means 90%")
        if self._broadcast(level.shape) != self.batch_shape:
            got, expected = f"level of shape {tuple(level.shape)}", f"a number or shape {tuple(self.batch_shape)}"
            raise MixturaError("E-value-shape", got, expected, "ask one level after the other")
        return level.expand(self.batch_shape)

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
            ``E-affine-zero`` where b is 0 or not finite, ``E-value-shape`` where a or b do not fit,
            ``E-affine-family`` where the family is not closed under it: gamma and log-normal are under b > 0 alone,
            counts under nothing.
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
        a, b = a.expand(shape), b.expand(shape)
        if not self.family.may_move(a, b):
            got = f"a + b*Y of {self.family!r}, which is not of that family"
            fix = (
                "take b > 0 and a = 0, or .transform(AffineTransform(a, b)), which any continuous scalar mixture allows"
            )
            raise MixturaError("E-affine-family", got, "a family closed under it", fix)
        a, b = (term.unsqueeze(self._component_axis) for term in (a, b))
        components = self.family.affine(self.components, a, b)
        return self._with(self.logits, components, None if self.atoms is None else a + b * self.atoms)

    @staticmethod
    def pool(mixtures: Sequence[Mixture], weights: Tensor | Sequence[float] | None = None) -> Mixture:
        """One mixture of M mixtures, exact: K_1 + ... + K_M components (a linear opinion pool, Stone 1961).

        Parameters
        ----------
        mixtures
            M mixtures of the same family, with equal event_shape and batch_shapes that broadcast.
        weights
            Shape (M,) or (*B, M), not negative, any sum; equal by default. Atoms are kept, equal ones once for each
            mixture.

        Raises
        ------
        MixturaError
            ``E-pool-empty`` for no mixtures, ``E-pool-mismatch`` for mixtures or weights that do not fit,
            ``E-value-shape`` for batches that do not.
        """
        return pooled(mixtures, weights)

    def transform(self, transform: Transform) -> Mixture:
        """The mixture of transform(Y) of a scalar continuous target, exact, with the Jacobian in its density.

        A model of log y gives y by `ExpTransform()`, one of logit y by `SigmoidTransform()`, one of a Box-Cox power by
        `BoxCoxTransform(lmbda).inv`. Its components are of the family `WarpedFamily`; their moments come by quadrature.

        Parameters
        ----------
        transform
            A bijective `torch.distributions.Transform` of numbers, monotone where Y lives.

        Raises
        ------
        MixturaError
            ``E-scalar-only``, ``E-not-continuous`` for counts, ``E-transform`` for a transform that is not bijective,
            of vectors, or not defined where Y lives, or of an angle.

        Examples
        --------
        >>> from torch.distributions import ExpTransform, Normal
        >>> log_y = Mixture(torch.zeros(1), Normal(torch.zeros(1), torch.ones(1)))
        >>> y = log_y.transform(ExpTransform())  # log-normal
        >>> round(y.mean.item(), 4), y.median.item()
        (1.6487, 1.0)
        """
        family = self._scalar_family("transform")
        if family.is_discrete:
            self._check_continuous("transform")
        tails = self.logits.new_tensor([1e-12, 0.5]).reshape(-1, *[1] * self.logits.ndim)
        points = torch.cat([family.icdf(self.components, tails), family.isf(self.components, tails[:1])])
        if (
            not (transform.bijective and transform.domain.event_dim == 0)
            or family.is_circular
            or not bool(transform.domain.check(points).all())  # pyright: ignore[reportOptionalMemberAccess]
        ):
            got = f"the transform {transform} of {self.family!r}"
            fix = "take a monotone transform of numbers, defined wherever the target may be"
            raise MixturaError("E-transform", got, "a bijective transform of the whole support", fix)
        zero = torch.zeros(self.components.batch_shape, dtype=self.dtype, device=self.device)
        components = Warped(self.components, family, transform, zero, zero + 1)
        return self._with(self.logits, components, None if self.atoms is None else transform(self.atoms))

    def prune(self, threshold: float = 1e-3) -> Mixture:
        """Without the components whose weight is below `threshold`; the others share what they had.

        The heaviest component always stays. In a batch, a component that stays in some row has weight 0 in the others.
        Atoms stay.

        Raises
        ------
        MixturaError
            ``E-threshold-range`` unless 0 <= threshold < 1.
        """
        return pruned(self, threshold)

    def reduce(self, n_components: int) -> Mixture:
        """At most `n_components` components, near in Kullback-Leibler divergence: the cheapest pairs are merged.

        Each merge keeps mean and covariance, and is that pair whose upper bound on the divergence is least. For normal
        mixtures of every kind of covariance.

        Raises
        ------
        MixturaError
            ``E-reduce`` for other families or n_components < 1.

        References
        ----------
        Runnalls (2007), Kullback-Leibler approach to Gaussian mixture reduction.
        """
        return reduced(self, n_components)

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
        self._vector_family("condition", "a scalar target has no other coordinate")
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
        ordered = self.marginal([*known, *others])
        values = values.expand(*shape, len(known)).unsqueeze(-2)
        family = ordered._vector_family("condition", "")
        log_prob, components = family.condition(ordered.components, len(known), values)
        given = self._with((self.logits + log_prob).log_softmax(-1), components)
        return given.marginal(0) if len(others) == 1 else given

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
        n_axes = len(index) if isinstance(index, tuple) else 1
        parts = index if isinstance(index, tuple) else (index,)
        if (
            n_axes <= len(self.batch_shape)
            and all(isinstance(part, slice | Tensor) for part in parts[:1])
            and ((n_axes == 1 and len(self.batch_shape) == 1) or all(isinstance(part, slice) for part in parts))
        ):
            return self._map(lambda tensor: tensor[index])
        rows = torch.arange(math.prod(self.batch_shape), device=self.device).reshape(self.batch_shape)[index]
        n_batch_axes = len(self.batch_shape)
        return self._map(lambda tensor: tensor.flatten(0, n_batch_axes - 1)[rows] if n_batch_axes else tensor[index])

    def reshape(self, batch_shape: Sequence[int]) -> Mixture:
        """The same mixtures with their batch axes arranged otherwise, as `torch.reshape` does."""
        n_batch_axes = len(self.batch_shape)
        return self._map(lambda tensor: tensor.reshape(*batch_shape, *tensor.shape[n_batch_axes:]))

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

    def _check_continuous(self, answer: str) -> None:
        if self.atoms is not None or (isinstance(self.family, ScalarFamily) and self.family.is_discrete):
            got, fix = f".{answer} of a law with point masses", "take .continuous, the mixture without its atoms"
            raise MixturaError("E-not-continuous", got, "a continuous law", fix)

    def _vector_family(self, answer: str, fix: str) -> VectorFamily:
        if isinstance(self.family, VectorFamily):
            return self.family
        raise MixturaError("E-vector-only", f".{answer} of a scalar target", "a vector target", fix)


def log_difference(larger: Tensor, smaller: Tensor) -> Tensor:
    """log(exp(larger) - exp(smaller)); -inf where that is not positive, with gradients that are never NaN."""
    is_positive = larger > smaller
    gap = torch.where(is_positive, larger - torch.where(smaller > -torch.inf, smaller, 0), 1.0)
    is_whole = smaller == -torch.inf
    reduced = torch.where(is_positive, larger, 0) + torch.where(
        is_whole, 0, torch.log(-torch.expm1(-torch.where(is_whole, 1.0, gap)))
    )
    return torch.where(is_positive, reduced, -torch.inf)
