"""What can be asked of mixtures of one number: distribution functions, quantiles, intervals, transforms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor
from torch.distributions import Transform

from .batch import Batch, MixtureBatch
from .blocks import in_blocks
from .errors import MixturaError
from .families import Warped
from .quantile import ROWS_TO_SOLVE, solve_icdf


class ScalarAnswers(MixtureBatch):
    """Answers that exist for scalar targets; of a vector target they raise ``E-scalar-only``."""

    def cdf(self, value: Tensor | ArrayLike) -> Tensor:
        """P(Y <= value) of a scalar target, with full relative precision in the lower tail; shape (*S, *B).

        Raises
        ------
        MixturaError
            ``E-scalar-only`` for a vector target.
        """
        family = self._scalar_family("cdf")

        def answer(rows: ScalarAnswers, value: Tensor) -> Tensor:
            cdfs = family.cdf(rows.components, value.unsqueeze(-1))
            return rows._average(cdfs, lambda atoms: atoms <= value.unsqueeze(-1))

        return in_blocks(answer, self, self._checked(value))

    def survival(self, value: Tensor | ArrayLike) -> Tensor:
        """P(Y >= value) of a scalar target, with full relative precision in the upper tail.

        For a continuous target it is 1 - cdf; of counts and at atoms it includes `value` itself, as `cdf` does.
        """
        family = self._scalar_family("survival")

        def answer(rows: ScalarAnswers, value: Tensor) -> Tensor:
            below = value.ceil() - 1 if family.is_discrete else value
            survivals = family.survival(rows.components, below.unsqueeze(-1))
            return rows._average(survivals, lambda atoms: atoms >= value.unsqueeze(-1))

        return in_blocks(answer, self, self._checked(value))

    def log_cdf(self, value: Tensor | ArrayLike) -> Tensor:
        """log P(Y <= value) of a scalar target, finite far below the point at which the cdf underflows."""
        family = self._scalar_family("log_cdf")

        def answer(rows: ScalarAnswers, value: Tensor) -> Tensor:
            log_cdfs = family.log_cdf(rows.components, value.unsqueeze(-1))
            return rows._log_average(log_cdfs, lambda atoms: atoms <= value.unsqueeze(-1))

        return in_blocks(answer, self, self._checked(value))

    def prob_interval(self, a: Tensor | ArrayLike, b: Tensor | ArrayLike) -> Tensor:
        """P(a < Y <= b) of a scalar target; 0 where b <= a. Right also for narrow intervals far in a tail.

        Parameters
        ----------
        a, b
            Ends, shape (*S, *B), broadcasting against the batch; may be infinite.
        """
        family = self._scalar_family("prob_interval")

        def answer(rows: ScalarAnswers, low: Tensor, high: Tensor) -> Tensor:
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

        def answer(rows: ScalarAnswers, low: Tensor, high: Tensor) -> Tensor:
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

    def _average(self, of_components: Tensor, of_atoms: Callable[[Tensor], Tensor]) -> Tensor:
        """The weighted sum of probabilities of the components and of the atoms, (*S, *B, K) and (*S, *B, A)."""
        weights = self.weights
        total = torch.linalg.vecdot(weights[..., : self.n_components], of_components)
        if self.atoms is not None:
            total = total + (weights[..., self.n_components :] * of_atoms(self.atoms)).sum(-1)
        return total.clamp(0, 1)

    def _log_average(self, of_components: Tensor, is_atom: Callable[[Tensor], Tensor]) -> Tensor:
        """The same of log probabilities of the components, and of atoms that count or do not."""
        terms = self.logits[..., : self.n_components] + of_components
        is_none = (terms == -torch.inf).all(-1)  # whose gradient would be NaN
        total = torch.where(is_none, -torch.inf, torch.logsumexp(torch.where(is_none[..., None], 0, terms), -1))
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
        >>> from mixtura import Mixture
        >>> from torch.distributions import Normal
        >>> far = Mixture(torch.zeros(2), Normal(torch.tensor([-1e6, 1e6]), torch.tensor([1.0, 1.0])))
        >>> far.icdf(torch.tensor([0.25, 0.5, 0.75])).round()
        tensor([-1000000.,        0.,  1000000.])
        """
        return self._quantile(value, from_above=False)

    def isf(self, value: Tensor | ArrayLike) -> Tensor:
        """The quantile at 1 - value: the least y that is exceeded with probability `value`, however small that is.

        Otherwise as `icdf`.
        """
        return self._quantile(value, from_above=True)

    def _quantile(self, value: Tensor | ArrayLike, from_above: bool) -> Tensor:
        family = self._scalar_family("icdf")
        level = self._as_tensor(value)
        level = level.to(torch.promote_types(self.dtype, level.dtype))
        if not bool(((level >= 0) & (level <= 1)).all()):
            raise MixturaError("E-quantile-range", "a level that is no probability", "levels in [0, 1]", "check units")
        level = level.expand(self._broadcast(level.shape))

        def answer(rows: ScalarAnswers, level: Tensor) -> Tensor:
            return solve_icdf(rows.logits, family, rows.components, level, rows.atoms, from_above)

        return in_blocks(answer, self, level, block=ROWS_TO_SOLVE)

    def ppf(self, value: Tensor | ArrayLike) -> Tensor:
        """The same as `icdf`, by scipy's name."""
        return self.icdf(value)

    @property
    def median(self) -> Float[Tensor, "*batch"]:
        """The 50% quantile of a scalar target."""
        return self.icdf(torch.full(self.batch_shape, 0.5, dtype=self.dtype, device=self.device))

    def transform(self: Batch, transform: Transform) -> Batch:
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
        >>> from mixtura import Mixture
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


def log_difference(larger: Tensor, smaller: Tensor) -> Tensor:
    """log(exp(larger) - exp(smaller)); -inf where that is not positive, with gradients that are never NaN."""
    is_positive = larger > smaller
    gap = torch.where(is_positive, larger - torch.where(smaller > -torch.inf, smaller, 0), 1.0)
    is_whole = smaller == -torch.inf
    reduced = torch.where(is_positive, larger, 0) + torch.where(
        is_whole, 0, torch.log(-torch.expm1(-torch.where(is_whole, 1.0, gap)))
    )
    return torch.where(is_positive, reduced, -torch.inf)
