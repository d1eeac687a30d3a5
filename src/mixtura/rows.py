"""Rows to learn from, as tensors."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from .families import AnyFamily, ScalarFamily
from .mixture import Mixture
from .scores import censored_nll, nll


def middle_of(lower: Float[Tensor, "*n"], upper: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The middle of intervals, or their finite ends."""
    lower = torch.where(lower.isfinite(), lower, upper)
    return lower + 0.5 * (torch.where(upper.isfinite(), upper, lower) - lower)


@dataclass(frozen=True)
class Rows:
    """Rows to learn from, in the network's units: features (n, p), targets (n,) or (n, D), weights (n,).

    Of a censored target, y is the lower end of an interval and `upper` the other; they are equal where y is known.
    Several sets of rows, one for each of E networks, have axes (E, n) in place of n; where one has fewer rows than
    others, the rest of its places have weight 0.
    """

    x: Float[Tensor, "*n p"]
    y: Float[Tensor, "*n_event"]
    weight: Float[Tensor, "*n"]
    upper: Float[Tensor, "*n"] | None = None

    def __len__(self) -> int:
        return len(self.weight)

    def points(self, family: AnyFamily) -> Float[Tensor, "*n_event"]:
        """One finite target for each row, that the family may have: the middle of an interval, or its finite end."""
        if self.upper is None:
            return self.y
        middle = middle_of(self.y, self.upper)
        return middle.round() if isinstance(family, ScalarFamily) and family.is_discrete else middle

    def double(self) -> "Rows":
        """In float64."""
        upper = None if self.upper is None else self.upper.double()
        return Rows(self.x.double(), self.y.double(), self.weight.double(), upper)

    def take(self, index: Any, weight: Tensor | None = None) -> "Rows":
        """Some of the rows, with the axes that the index has; with these weights, if any are given."""
        upper = None if self.upper is None else self.upper[index]
        return Rows(self.x[index], self.y[index], self.weight[index] if weight is None else weight, upper)

    def followed_by(self, others: "Rows") -> "Rows":
        """These rows, then the others."""
        upper = None
        if self.upper is not None or others.upper is not None:
            upper = torch.cat([some.y if some.upper is None else some.upper for some in (self, others)])
        x, y, weight = (
            torch.cat(both) for both in ((self.x, others.x), (self.y, others.y), (self.weight, others.weight))
        )
        return Rows(x, y, weight, upper)

    def nll(self, mixture: Mixture) -> Float[Tensor, "*n"]:
        """NLL of each row under its mixture, not weighted."""
        if self.upper is None:
            return nll(mixture, self.y, reduction="none")
        return censored_nll(mixture, self.y, self.upper, reduction="none")


def groups_of(rows: Tensor, group: Tensor) -> Tensor:
    """Which groups some rows belong to, each once, in the order of these; `group` says which each row belongs to."""
    return torch.as_tensor(pd.unique(group[rows].numpy()))


def rows_of(groups: Tensor, group: Tensor) -> Tensor:
    """Indices of the rows of some groups, in the order of these."""
    place = torch.full((int(group.max()) + 1,), -1)
    place[groups] = torch.arange(len(groups))
    rows = (place[group] >= 0).nonzero().flatten()
    return rows[place[group[rows]].argsort(stable=True)]
