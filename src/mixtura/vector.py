"""What can be asked of mixtures of vectors: covariances, margins and conditionals."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from .batch import MixtureBatch
from .errors import MixturaError
from .families import ProductFamily

Vectors = TypeVar("Vectors", bound="VectorAnswers")


class VectorAnswers(MixtureBatch):
    """Answers that exist for vector targets; of a scalar target they raise ``E-vector-only``."""

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
        weights = self.weights[..., None, None]
        # A component without weight may have no covariance.
        return (weights * torch.where(weights > 0, within + between, 0)).sum(-3)

    def marginal(self: Vectors, dims: Any) -> Vectors:
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
        if isinstance(dims, Tensor):
            dims = dims.tolist()
        chosen = self._coordinates(dims)
        if isinstance(dims, Integral):
            return self._with(self.logits, family.marginal(self.components, chosen[0]))
        return self._with(self.logits, family.take(self.components, chosen))

    def condition(self: Vectors, dims: Any, values: Tensor | ArrayLike) -> Vectors:
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
            all of them, ``E-value-shape`` for values that do not fit, ``E-condition-density`` for values that have no
            density, or one too small for a number.

        References
        ----------
        Bishop (2006), Pattern recognition and machine learning, section 2.3.1.

        Examples
        --------
        >>> import torch
        >>> from mixtura import Mixture
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
        if isinstance(dims, Tensor):
            dims = dims.tolist()
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
        joint = self.logits + log_prob
        if not bool((joint > -torch.inf).any(-1).all()):
            fix = "leave these rows out: every weight would be 0/0"
            raise MixturaError("E-condition-density", "values with no density", "values that may occur", fix)
        given = self._with(joint.log_softmax(-1), components)
        return given.marginal(0) if len(others) == 1 else given

    def _coordinates(self, dims: Any) -> list[int]:
        """Coordinates counted from 0, each there and none twice."""
        d = self.event_shape[0]
        dims = list(dims) if isinstance(dims, Iterable) else [dims]
        if (
            not all(isinstance(dim, Integral) and -d <= int(dim) < d for dim in dims)
            or len({dim % d for dim in dims}) != len(dims)
            or not len(dims)
        ):
            expected = f"different coordinates with -{d} <= dim < {d}"
            raise MixturaError("E-marginal-dim", f"dims={dims}", expected, "count coordinates from 0")
        return [int(dim) % d for dim in dims]
