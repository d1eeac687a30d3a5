"""The value that everything else makes or asks: a mixture distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor
from torch.distributions import constraints

from .blocks import ROWS_IN_A_BLOCK, in_blocks
from .combine import pooled, pruned, reduced
from .entropy import Estimate, entropy
from .errors import MixturaError
from .families import ScalarFamily
from .modes import Modes, find_modes
from .quantile import attach_gradient
from .regions import Region, densest_region, drawn_threshold, shortest
from .scalar import ScalarAnswers
from .vector import VectorAnswers


class Mixture(ScalarAnswers, VectorAnswers):
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

    _mean_and_variance: Tensor | None = None
    """Shape (2, *B) + event_shape, once either has been asked."""

    @property
    def support(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Where the density may be positive, as a torch constraint."""
        return self.components.support if self.atoms is None else constraints.real

    @property
    def has_rsample(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether `rsample` exists: for scalar continuous mixtures."""
        return isinstance(self.family, ScalarFamily) and not self.family.is_discrete and self.atoms is None

    def __repr__(self) -> str:
        batch, event = tuple(self.batch_shape), tuple(self.event_shape)
        atoms = f", n_atoms={self.n_atoms}" if self.n_atoms else ""
        counts = f"n_components={self.n_components}{atoms}"
        return f"Mixture({self.family!r}, {counts}, batch_shape={batch}, event_shape={event})"

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

    @property
    def mean(self) -> Float[Tensor, "*batch_event"]:
        """E[Y]; of angles the circular mean. On a multi-valued target it may lie where no data are: see the density."""
        return self._moment(1)

    @property
    def variance(self) -> Float[Tensor, "*batch_event"]:
        """Var[Y], elementwise: mean of the components' variances plus variance of their means.

        Of angles, the square of the circular standard deviation in the target's units (Mardia 1972).
        """
        return self._moment(2)

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

    def _moment(self, order: int) -> Tensor:
        """Mean or variance. Who asks one asks the other as a rule, so that both are computed at once, and kept."""
        n_event_axes = len(self.event_shape)
        if any(tensor.requires_grad for tensor in self.tensors()) or torch.is_inference_mode_enabled():
            return in_blocks(lambda rows: rows._moments(order)[-1], self, n_event_axes=n_event_axes)
        if self._mean_and_variance is None:
            self._mean_and_variance = in_blocks(
                lambda rows: torch.stack(rows._moments(2)), self, n_event_axes=n_event_axes
            )
        return self._mean_and_variance[order - 1].clone()

    def _moments(self, order: int) -> list[Tensor]:
        """Mean, variance, third central moment, as far as `order`."""
        k = self.n_components
        within = self.continuous.weights
        moments = [self.family.mean(within, self.components)]
        if order > 1:
            moments.append(self.family.variance(within, self.components, moments[0]))
        if order > 2:
            distance = self.components.mean - moments[0].unsqueeze(-1)
            third = self._scalar_family("skewness").third_moment(self.components)
            third = third + 3 * distance * self.components.variance + distance**3
            moments.append((within * third).sum(-1))
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
        component = chosen if self.atoms is None else chosen.clamp(max=k - 1)

        def pick(parameter: Tensor) -> Tensor:
            index = component.reshape(component.shape + (1,) * (parameter.ndim - 2))
            return parameter.gather(1, index.expand(*component.shape, *parameter.shape[2:]))

        drawn = self.family.sample(self.family.map(self.components, pick), generator)
        if self.atoms is not None:
            drawn = torch.where(chosen < k, drawn, self.atoms.gather(1, (chosen - k).clamp(min=0)))
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
        return find_modes(self)

    def highest_density_region(self, level: Tensor | float) -> Region:
        """The smallest set that holds the probability `level` of a scalar target: where the density is highest.

        It may be several intervals. Exact, by Newton steps on the density at its edge (levels below 1e-4 lose digits,
        and all that is as dense as the edge belongs to it, hence the whole of a uniform law); atoms come first, the
        heaviest before the others; of counts it is the most probable whole numbers, at least `level` of them. Without
        gradient.

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
        return densest_region(family, self, self._checked_level(level))[0]

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
            return densest_region(self.family, self, level)[1]
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
        shape = self.batch_shape + self.event_shape
        for term in (a, b):
            if term.ndim > len(shape) or any(
                n not in (1, m) for n, m in zip(term.shape[::-1], shape[::-1], strict=False)
            ):
                got, fix = f"a or b of shape {tuple(term.shape)}", "expand the mixture first, or take one of the rows"
                raise MixturaError("E-value-shape", got, f"a shape that expands to {tuple(shape)}", fix)
        if not bool((b.isfinite() & (b != 0)).all()):
            raise MixturaError("E-affine-zero", "b that is 0 or not finite", "finite b other than 0", "check the scale")
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

    def split(self) -> Mixture:
        """The components, each as a mixture of one: batch_shape (*B, K). Atoms are left out."""
        parts = self.family.map(self.components, lambda tensor: tensor.unsqueeze(len(self.batch_shape) + 1))
        return self._with(torch.zeros_like(self.logits[..., : self.n_components]).unsqueeze(-1), parts)

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

        Each merge keeps the mean and the covariance (of diagonal and spherical laws the variances), and is that of the
        pair whose upper bound on the divergence is least. For normal mixtures of every kind of covariance.

        Raises
        ------
        MixturaError
            ``E-reduce`` for other families or n_components < 1.

        References
        ----------
        Runnalls (2007), Kullback-Leibler approach to Gaussian mixture reduction.
        """
        return reduced(self, n_components)


def plain_mixture(mixture: Any) -> Mixture:
    """A mixture as it is; raise ``E-forecast`` for anything else, such as the answer of a model calibrated by "pit"."""
    if isinstance(mixture, Mixture):
        return mixture
    fix = 'calibrate by "temperature", or look at the mixtures before calibration, model.model.predict_dist(X)'
    raise MixturaError("E-forecast", f"a {type(mixture).__name__}", "a Mixture", fix)
