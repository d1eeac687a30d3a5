"""Vectors of independent coordinates, each with its own scalar law."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from .base import Family, ScalarFamily, VectorFamily


class Product(Distribution):
    """The joint law of independent scalar laws, one for each coordinate, whose batch shapes broadcast."""

    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore

    def __init__(self, laws: Sequence[Distribution], validate_args: bool | None = None):
        batch_shape = torch.broadcast_shapes(*(law.batch_shape for law in laws))
        self.laws = tuple(law if law.batch_shape == batch_shape else law.expand(batch_shape) for law in laws)
        super().__init__(batch_shape, torch.Size([len(laws)]), validate_args=validate_args)

    @property
    def support(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return constraints.stack([law.support for law in self.laws], -1)

    @property
    def mean(self) -> Tensor:
        return torch.stack([law.mean for law in self.laws], -1)

    @property
    def variance(self) -> Tensor:
        return torch.stack([law.variance for law in self.laws], -1)

    def expand(self, batch_shape, _instance=None) -> "Product":
        return Product([law.expand(torch.Size(batch_shape)) for law in self.laws], validate_args=False)


@dataclass(frozen=True, repr=False)
class ProductFamily(VectorFamily[Product]):
    """Independent coordinates, each of its own scalar family: say one positive and one an angle.

    Raw parameters: those of the first coordinate, then those of the second... Within a mixture, coordinates depend on
    each other through the components' weights alone. Masses of discrete coordinates multiply densities of the others.
    """

    families: tuple[ScalarFamily[Any], ...]

    name = "product"
    covariance_type = "diag"

    @property
    def closed_under(self) -> Literal["affine", "scale", "none"]:  # pyright: ignore
        each = {family.closed_under for family in self.families}
        return "none" if "none" in each else "scale" if "scale" in each else "affine"

    def owns(self, components: Distribution) -> bool:
        return type(components) is Product

    def of(self, components, family_of) -> Family[Product]:
        return ProductFamily(tuple(family_of(law) for law in components.laws))  # pyright: ignore[reportArgumentType]

    def n_raw(self, event_size: int | None) -> int:
        return sum(self._raw_sizes())

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> Product:
        parts = zip(self.families, raw.split(self._raw_sizes(), -1), self._floors(scale_floor), strict=True)
        return Product([family.build(part, floor) for family, part, floor in parts], validate_args=False)

    def unbuild(self, components, scale_floor: Tensor | float = 0.0):
        parts = zip(self.families, components.laws, self._floors(scale_floor), strict=True)
        return torch.cat([family.unbuild(law, floor) for family, law, floor in parts], -1)

    def fit(self, y, weights) -> Product:
        parts = zip(self.families, y.unbind(-1), strict=True)
        return Product([family.fit(column, weights) for family, column in parts], validate_args=False)

    def parameters(self, components):
        parts = zip(self.families, components.laws, strict=True)
        return tuple(parameter for family, law in parts for parameter in family.parameters(law))

    def from_parameters(self, *parameters: Tensor) -> Product:
        rest = iter(parameters)
        parts = zip(self.families, map(_n_parameters, self.families), strict=True)
        return Product([family.from_parameters(*islice(rest, n)) for family, n in parts], validate_args=False)

    def log_prob(self, components, y):
        parts = zip(self.families, components.laws, y.unbind(-1), strict=True)
        return torch.stack([family.log_prob(law, column) for family, law, column in parts]).sum(0)

    def sample(self, components, generator=None):
        parts = zip(self.families, components.laws, strict=True)
        return torch.stack([family.sample(law, generator) for family, law in parts], -1)

    def affine(self, components, a, b) -> Product:
        shape = torch.broadcast_shapes(a.shape, b.shape, components.event_shape)
        parts = zip(self.families, components.laws, a.expand(shape).unbind(-1), b.expand(shape).unbind(-1), strict=True)
        return Product([family.affine(law, a, b) for family, law, a, b in parts], validate_args=False)

    def widen(self, components, factor) -> Product:
        parts = zip(self.families, components.laws, strict=True)
        return Product([family.widen(law, factor) for family, law in parts], validate_args=False)

    def may_move(self, a, b):
        parts = zip(self.families, a.unbind(-1), b.unbind(-1), strict=True)
        return all(family.may_move(a, b) for family, a, b in parts)

    def moved(self, a: Sequence[float], b: Sequence[float]) -> "ProductFamily":
        moved = [family.moved([a], [b]) for family, a, b in zip(self.families, a, b, strict=True)]
        return ProductFamily(tuple(moved))  # pyright: ignore[reportArgumentType]

    def settle(self, components):
        parts = zip(self.families, components.laws, strict=True)
        return Product([family.settle(law) for family, law in parts], validate_args=False)

    def mean(self, weights, components):
        parts = zip(self.families, components.laws, strict=True)
        return torch.stack([family.mean(weights, law) for family, law in parts], -1)

    def variance(self, weights, components, mean):
        parts = zip(self.families, components.laws, mean.unbind(-1), strict=True)
        return torch.stack([family.variance(weights, law, part) for family, law, part in parts], -1)

    def covariance(self, components):
        """Diagonal, with circular variances for angles."""
        return torch.diag_embed(components.variance)

    def marginal(self, components, dim) -> Distribution:
        return components.laws[dim]

    def take(self, components, dims: Sequence[int]) -> Product:
        return Product([components.laws[dim] for dim in dims], validate_args=False)

    def condition(self, components: Product, n_known: int, values: Tensor) -> tuple[Tensor, Product]:
        known = ProductFamily(self.families[:n_known])
        log_prob = known.log_prob(self.take(components, range(n_known)), values)
        others = self.take(components, range(n_known, len(self.families)))
        return log_prob, others.expand(log_prob.shape)

    def _raw_sizes(self) -> list[int]:
        return [family.n_raw(None) for family in self.families]

    def _floors(self, scale_floor: Tensor | float) -> Sequence[Tensor | float]:
        """One floor for each coordinate."""
        if isinstance(scale_floor, Tensor):
            return scale_floor.expand(*scale_floor.shape[:-1], len(self.families)).unbind(-1)
        return [scale_floor] * len(self.families)


@cache
def _n_parameters(family: ScalarFamily[Any]) -> int:
    return len(family.parameters(family.build(torch.zeros(family.n_raw(None)))))
