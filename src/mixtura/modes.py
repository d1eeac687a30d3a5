"""Modes: all local maxima of a density, which are not the means of its components."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .families import ScalarFamily
from .landscape import vector_modes
from .peaks import by_row, find_peaks, whole_numbers, widen

if TYPE_CHECKING:
    from .mixture import Mixture

_ROWS_IN_A_BLOCK = 4_096
LEAST_MASS_OF_A_MODE = 0.05
"""Where modes are counted, those that hold less are left out."""


@dataclass(frozen=True)
class Modes:
    """The local maxima of each density of a batch, the one with the largest mass first, padded with NaN."""

    loc: Float[Tensor, "*batch n *event"]
    """Where they are."""
    height: Float[Tensor, "*batch n"]
    """The density there; infinite at an atom, and at the end of a support where the density is unbounded."""
    mass: Float[Tensor, "*batch n"]
    """Probability of the region that climbs to the mode: of a scalar target between the neighbouring minima, of a
    vector one the weights of the components whose means climb to it."""
    count: Int[Tensor, "*batch"]
    """How many there are."""


@torch.no_grad()
def find_modes(mixture: Mixture) -> Modes:
    """The modes of a mixture; see `Mixture.modes`."""
    flat = _without_ghosts(mixture.detach().flat())
    family = mixture.family
    if isinstance(family, ScalarFamily):
        ask = partial(_whole_modes if family.is_discrete else _scalar_modes, family)
        step = 64 if family.is_discrete else _ROWS_IN_A_BLOCK
    else:
        mixture._check_continuous("modes")
        ask = partial(vector_modes, mixture._vector_family("modes", ""))
        flat = flat.to(torch.float64)  # single precision does not tell a maximum from a slope
        step = max(1, _ROWS_IN_A_BLOCK // mixture.n_components**2)
    parts = [ask(flat[start : start + step]) for start in range(0, len(flat), step)] or [ask(flat)]
    width = max(loc.shape[1] for loc, _, _ in parts)
    loc, height, mass = (torch.cat([widen(part, width) for part in column]) for column in zip(*parts, strict=True))
    order = torch.where(mass.isnan(), -1, mass).argsort(dim=-1, descending=True, stable=True)
    at = order.reshape(*order.shape, *[1] * (loc.ndim - 2))
    loc, height, mass = loc.take_along_dim(at, 1), height.take_along_dim(order, 1), mass.take_along_dim(order, 1)
    batch = mixture.batch_shape
    count = (~mass.isnan()).sum(-1)
    loc, height, mass = (part.reshape(*batch, *part.shape[1:]).to(mixture.dtype) for part in (loc, height, mass))
    return Modes(loc, height, mass, count.reshape(batch))


def _without_ghosts(mixture: Mixture) -> Mixture:
    """Components without weight, whose parameters may be anything, become like the heaviest."""
    logits = mixture.logits[:, : mixture.n_components]
    present, heaviest = logits > -torch.inf, logits.argmax(-1, keepdim=True)
    if bool(present.all()):
        return mixture

    def stand_in(parameter: Tensor) -> Tensor:
        is_there, at = (part.reshape(*part.shape, *[1] * (parameter.ndim - 2)) for part in (present, heaviest))
        return torch.where(is_there, parameter, parameter.take_along_dim(at, 1))

    return mixture._with(mixture.logits, mixture.family.map(mixture.components, stand_in), mixture.atoms)


def _scalar_modes(family: ScalarFamily, mixture: Mixture) -> tuple[Tensor, Tensor, Tensor]:
    inner, k = mixture.continuous, mixture.n_components
    share = mixture.weights[:, :k].sum(-1)
    peaks = find_peaks(family, inner)
    height, mass = peaks.log_top.exp(), inner[peaks.row].prob_interval(peaks.left, peaks.right)
    loc, height, mass = by_row(peaks.row, len(mixture), peaks.top, height, mass)
    if family.is_circular:
        _join_ends(loc, mass, *family.support(mixture.components))
    is_there = (share[:, None] > 0) & ~mass.isnan()
    return _with_atoms(
        mixture,
        *(torch.where(is_there, part, torch.nan) for part in (loc, height * share[:, None], mass * share[:, None])),
    )


def _join_ends(loc: Tensor, mass: Tensor, low: Tensor, high: Tensor) -> None:
    """The two ends of a circle are one point: what rises towards one of them goes on at the other. In place."""
    rows = torch.arange(len(loc))
    last = (~loc.isnan()).sum(-1) - 1
    is_several = last > 0
    is_first_cut, is_last_cut = (loc[:, 0] == low[:, 0]) & is_several, (loc[rows, last] == high[:, 0]) & is_several
    gone = torch.where(is_last_cut, last, 0)  # of a peak at the cut itself, one half
    stays = torch.where(is_last_cut, 0, last)
    joined = (is_first_cut | is_last_cut).nonzero()[:, 0]
    mass[joined, stays[joined]] += mass[joined, gone[joined]]
    mass[joined, gone[joined]] = torch.nan


def _with_atoms(mixture: Mixture, loc: Tensor, height: Tensor, mass: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if mixture.atoms is None:
        return loc, height, mass
    masses = mixture.merged_atoms().weights[:, mixture.n_components :]
    there = [
        torch.where(masses > 0, part, torch.nan) for part in (mixture.atoms, torch.full_like(masses, torch.inf), masses)
    ]
    return tuple(torch.cat(pair, -1) for pair in zip((loc, height, mass), there, strict=True))  # pyright: ignore


def _whole_modes(family: ScalarFamily, mixture: Mixture) -> tuple[Tensor, Tensor, Tensor]:
    """Whole numbers with more mass than their neighbours; of equal ones, the first."""
    y, mass = whole_numbers(family, mixture)
    padded = torch.nn.functional.pad(mass, (1, 1))
    rises, falls = padded[:, 1:-1] > padded[:, :-2], padded[:, 1:-1] < padded[:, :-2]
    goes_up = torch.where(rises, 1, torch.where(falls, -1, 0))
    place = torch.where(goes_up != 0, torch.arange(len(y)), 0).cummax(-1).values
    goes_up = goes_up.gather(-1, place)  # a plateau goes on as before
    is_start = (goes_up > 0) & torch.nn.functional.pad(goes_up[:, :-1] < 0, (1, 0), value=True)  # of a climb
    climb = is_start.cumsum(-1) - 1
    n_climbs = int(climb.max()) + 1
    total = torch.zeros(len(mass), n_climbs, dtype=mass.dtype).scatter_add(-1, climb.clamp(min=0), mass)
    inside = climb[:, None] == torch.arange(n_climbs)[:, None]
    height, top = torch.where(inside, mass[:, None], -1).max(-1)
    is_there = (height > 0) & inside.any(-1)
    return tuple(torch.where(is_there, part, torch.nan) for part in (y[top], height, total))  # pyright: ignore
