"""A batch of mixtures: the tensors that define it, its shapes, and rows of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor
from torch.distributions import Distribution

from .blocks import broadcast_shapes
from .errors import MixturaError
from .families import AnyFamily, ProductFamily, ScalarFamily, VectorFamily, family_of

_SEED = 8_191_731
"""Not one that callers are likely to take, whose draws would then be the same."""
Batch = TypeVar("Batch", bound="MixtureBatch")
"""A mixture of the caller's own class, which is `Mixture`."""


class MixtureBatch(Distribution):
    """Logits, components and atoms of a batch, which is indexed and moved like a tensor; see `Mixture`."""

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
            parts = [logits.shape[:-1], components.batch_shape[:-1], *([] if atoms is None else [atoms.shape[:-1]])]
            batch_shape = broadcast_shapes(*parts)
        except RuntimeError as error:
            fix = "give all the same leading axes"
            raise MixturaError("E-mixture-shape", shapes, "shapes that broadcast", fix) from error
        if n_atoms and not (isinstance(self.family, ScalarFamily) and not self.family.is_circular):
            got, fix = f"atoms of {self.family!r}", "leave the atoms out"
            raise MixturaError("E-mixture-atoms", got, "atoms of a scalar target that is no angle", fix)
        if n_atoms and self.family.is_discrete and bool((atoms != atoms.round()).any()):  # pyright: ignore
            fix = "round the atoms, or choose a continuous family"
            raise MixturaError("E-mixture-atoms", "atoms of counts that are not whole", "whole numbers", fix)
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

    def _with(self: Batch, logits: Tensor, components: Distribution, atoms: Tensor | None = None) -> Batch:
        """A mixture made from parts that fit: the logits are normalised, and stay as they are to the bit."""
        new = type(self).of_parts(family_of(components), logits, components, atoms)
        new._validate_args = self._validate_args
        return new

    @classmethod
    def of_parts(
        cls: type[Batch], family: AnyFamily, logits: Tensor, components: Distribution, atoms: Tensor | None
    ) -> Batch:
        """A mixture made from parts that fit, unchecked: normalised logits and components of this family."""
        new = cls.__new__(cls)
        new.family, new.logits, new.components, new.atoms = family, logits, components, atoms
        Distribution.__init__(new, logits.shape[:-1], components.event_shape, validate_args=False)
        return new

    def tensors(self) -> tuple[Tensor, ...]:
        """All that defines it: logits, the parameters of the components, atoms."""
        return (self.logits, *self.family.parameters(self.components), *([] if self.atoms is None else [self.atoms]))

    def needs_graph(self) -> bool:
        """Whether answers carry a gradient."""
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in self.tensors())

    def _map(self: Batch, function: Callable[[Tensor], Tensor]) -> Batch:
        """The mixture with `function` applied to each of its tensors, whose first axes are the batch's."""
        atoms = None if self.atoms is None else function(self.atoms)
        return self._with(function(self.logits), self.family.map(self.components, function), atoms)

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
    def continuous(self: Batch) -> Batch:
        """The mixture without its atoms: p(y | y is no atom)."""
        if self.atoms is None:
            return self
        logits = self.logits[..., : self.n_components]
        share = logits.logsumexp(-1, keepdim=True)  # -inf where all mass is in the atoms
        return self._with(
            torch.where(share > -torch.inf, logits - share, -math.log(self.n_components)), self.components
        )

    def merged_atoms(self: Batch) -> Batch:
        """The same mixture with equal atoms as one: the first of them has all the weight, the others none."""
        if self.atoms is None or self.n_atoms < 2:
            return self
        k, same = self.n_components, self.atoms[..., :, None] == self.atoms[..., None, :]
        total = torch.where(same, self.logits[..., None, k:], -torch.inf).logsumexp(-1)
        is_first = ~(same & torch.ones_like(same).tril(-1)).any(-1)
        logits = torch.cat([self.logits[..., :k], torch.where(is_first, total, -torch.inf)], -1)
        return self._with(logits, self.components, self.atoms)

    @property
    def dtype(self) -> torch.dtype:
        """The floating type of the answers."""
        return self.logits.dtype

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.logits.device

    def __getitem__(self: Batch, index: Any) -> Batch:
        """The mixtures at `index` of the batch, by torch's rules of indexing."""
        n_batch_axes = len(self.batch_shape)
        parts = index if isinstance(index, tuple) else (index,)
        are_slices = len(parts) <= n_batch_axes and all(isinstance(part, slice) for part in parts)
        if are_slices or (n_batch_axes == 1 and isinstance(index, Tensor)):  # the trailing axes are not touched
            return self._map(lambda tensor: tensor[index])
        rows = torch.arange(math.prod(self.batch_shape), device=self.device).reshape(self.batch_shape)[index]
        return self._map(lambda tensor: tensor.flatten(0, n_batch_axes - 1)[rows] if n_batch_axes else tensor[index])

    def reshape(self: Batch, batch_shape: Sequence[int]) -> Batch:
        """The same mixtures with their batch axes arranged otherwise, as `torch.reshape` does."""
        n_batch_axes = len(self.batch_shape)
        return self._map(lambda tensor: tensor.reshape(*batch_shape, *tensor.shape[n_batch_axes:]))

    def flat(self: Batch) -> Batch:
        """The same mixtures along one batch axis, of length 1 where there was none."""
        return self.reshape((-1,)) if self.batch_shape else self.expand((1,))

    def __len__(self) -> int:
        """Length of the first batch axis."""
        if not self.batch_shape:
            raise TypeError("a mixture without batch axes has no length")
        return self.batch_shape[0]

    def expand(self: Batch, batch_shape: Sequence[int] | torch.Size, _instance: Any = None) -> Batch:
        """The same mixtures with `batch_shape`, without copying."""
        batch_shape = torch.Size(batch_shape)
        n_batch_axes = len(self.batch_shape)
        return self._map(lambda tensor: tensor.expand(*batch_shape, *tensor.shape[n_batch_axes:]))

    def to(self: Batch, *args: Any, **kwargs: Any) -> Batch:
        """The mixture on another device or in another dtype; arguments as for `torch.Tensor.to`."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def detach(self: Batch) -> Batch:
        """The mixture cut off from the graph that computed it."""
        return self._map(Tensor.detach)

    def own_generator(self) -> torch.Generator:
        """The one that answers by draws take when they are given none: it always draws the same numbers."""
        return torch.Generator(self.device).manual_seed(_SEED)

    @property
    def _component_axis(self) -> int:
        """The axis that counts components in a tensor of shape batch_shape + (K,) + event_shape."""
        return -1 - len(self.event_shape)

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

    def _checked_level(self, level: Tensor | float) -> Tensor:
        level = torch.as_tensor(level, dtype=self.dtype, device=self.device)
        if not bool(((level > 0) & (level < 1)).all()):
            raise MixturaError("E-coverage-range", f"level={level.tolist()}", "0 < level < 1", "0.9 means 90%")
        if self._broadcast(level.shape) != self.batch_shape:
            got, expected = f"level of shape {tuple(level.shape)}", f"a number or shape {tuple(self.batch_shape)}"
            raise MixturaError("E-value-shape", got, expected, "ask one level after the other")
        return level.expand(self.batch_shape)

    def _broadcast(self, shape: torch.Size) -> torch.Size:
        """The shape of answers for values of this shape."""
        try:
            return broadcast_shapes(shape, self.batch_shape)
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

    def _check_continuous(self, answer: str) -> None:
        if isinstance(self.family, ProductFamily) and any(part.is_discrete for part in self.family.families):
            got, fix = f".{answer} of a vector with counts", "leave the counts out, .marginal(dims)"
            raise MixturaError("E-not-continuous", got, "continuous coordinates", fix)
        if self.atoms is not None or (isinstance(self.family, ScalarFamily) and self.family.is_discrete):
            got, fix = f".{answer} of a law with point masses", "take .continuous, the mixture without its atoms"
            raise MixturaError("E-not-continuous", got, "a continuous law", fix)
