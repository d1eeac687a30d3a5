"""The target: what may be learned, and how it is standardised."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from scipy.stats import kurtosis, skew
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array
from torch import Tensor

from .errors import MixturaError, coded
from .families import AnyFamily, LogNormalFamily, ProductFamily, ScalarFamily
from .rows import Rows, middle_of
from .tables import fit_scaler, has_date_dtype, is_date

_FEWEST_OF_AN_ATOM, _LEAST_SHARE_OF_AN_ATOM, _MOST_ATOMS = 10, 0.005, 20
_USUAL_FLOOR, _LARGEST_FLOOR, _OFF_THE_GRID = 1e-3, 0.3, 1e-3
_NEIGHBOURS = 10
_SKEWED, _HEAVY_TAILED, _FEWEST_TO_TELL_A_LAW = 0.5, 3.0, 20
_TIMES_ITS_NEIGHBOURS = 5


@dataclass(frozen=True)
class Target:
    """What is to be learned, in the user's units."""

    values: NDArray[np.float64]
    """Shape (n,) or (n, D); of a censored target the lower ends."""
    upper: NDArray[np.float64] | None
    """Shape (n,), the upper ends of a censored target."""
    names: list[str] | None
    """Of the columns, where they have any."""
    row_shape: tuple[int, ...]
    """() or (D,); (1,) where a single column was given."""

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: NDArray[Any]) -> "Target":
        """Some of the rows."""
        upper = None if self.upper is None else self.upper[index]
        return Target(self.values[index], upper, self.names, self.row_shape)

    @property
    def points(self) -> NDArray[np.float64]:
        """One finite value for each row: the middle of an interval, or its finite end."""
        if self.upper is None:
            return self.values
        return middle_of(*map(torch.as_tensor, (self.values, self.upper))).numpy()


def as_target(y: Any) -> Target:
    """The target as float64, with the names of its columns where it has them.

    Parameters
    ----------
    y
        Array, list, Series or DataFrame of numbers; or intervals, as a pandas array or Series of them, where only
        bounds are known (-inf or inf on a side that is open; equal ends where the value is known; both ends count as
        inside).

    Raises
    ------
    MixturaError
        ``E-target-missing``, ``E-target-text``, ``E-target-type``, ``E-target-shape``, ``E-target-nan`` or
        ``E-target-infinite``.
    """
    if y is None:
        got = "no y: MDNRegressor requires y to be passed, but the target y is None"
        raise MixturaError("E-target-missing", got, "a target", "give the values to learn")
    if issparse(y):
        raise MixturaError("E-target-type", f"a sparse {type(y).__name__}", "a dense array", "call y.toarray()")
    if has_date_dtype(y) and not isinstance(y, pd.Series):
        fix = "choose a number, such as days since a start"
        raise MixturaError("E-target-type", "dates", "numbers", fix)
    names: list[str] | None = None
    dtype = getattr(y, "dtype", None)
    if isinstance(dtype, pd.CategoricalDtype) and isinstance(dtype.categories.dtype, pd.IntervalDtype):  # of pd.cut
        y = y.astype(dtype.categories.dtype)
    if isinstance(getattr(y, "dtype", None), pd.IntervalDtype):
        return _as_intervals(y)
    if isinstance(y, pd.Series | pd.DataFrame):
        frame = y.to_frame() if isinstance(y, pd.Series) else y
        for name, values in frame.items():
            _check_column(str(name), values)
        names = None if isinstance(y, pd.Series) and y.name is None else [str(name) for name in frame.columns]
        with coded("E-target-type", "an array of numbers"):
            y = y.to_numpy(dtype=np.float64, na_value=np.nan)
    with coded("E-target-type", "an array of numbers"):
        target = check_array(y, ensure_2d=False, dtype=np.float64, ensure_all_finite=False, allow_nd=True)
    if target.ndim not in (1, 2):
        got = f"y of shape {target.shape}"
        raise MixturaError("E-target-shape", got, "shape (n,) or (n, D)", "flatten the target's own axes")
    for code, what, bad in (
        ("E-target-nan", "NaN", np.isnan(target)),
        ("E-target-infinite", "infinity", np.isinf(target)),
    ):
        if bad.any():
            got = f"{what} in y ({int(bad.sum())} of {bad.size} values)"
            raise MixturaError(code, got, "finite numbers", "drop these rows")
    shape = target.shape[1:]
    target = np.ascontiguousarray(target[:, 0] if shape == (1,) else target)
    return Target(target, None, names, shape)


def _as_intervals(y: Any) -> Target:
    intervals = pd.arrays.IntervalArray(y)
    lower, upper = (np.array(ends, dtype=np.float64) for ends in (intervals.left, intervals.right))
    if np.isnan(lower).any():
        got = f"missing intervals ({int(np.isnan(lower).sum())} of {len(lower)})"
        raise MixturaError("E-target-nan", got, "intervals", "drop these rows")
    is_open = (np.isinf(lower) & np.isinf(upper)) | (lower == np.inf) | (upper == -np.inf)
    if is_open.any():
        got = f"intervals without a finite end ({int(is_open.sum())} of {len(lower)})"
        raise MixturaError("E-target-infinite", got, "at least one finite end", "drop these rows")
    name = getattr(y, "name", None)
    is_known = bool((lower == upper).all())
    return Target(lower, None if is_known else upper, None if name is None else [str(name)], ())


def find_atoms(target: Target, sample_weight: NDArray[np.float64], of_few: bool = False) -> list[float]:
    """Values that repeat beyond what a continuous law allows, ascending.

    A value is one if it has at least 10 rows and 0.5% of the weight, and more than 5 times the weight of the median of
    its 20 neighbours among the values that occur: in a target that is rounded all over, none stands out as a rule.

    Parameters
    ----------
    of_few
        Whether all values are where no more than 20 occur, such as grades, each by ten rows in the mean.
    """
    known = slice(None) if target.upper is None else target.values == target.upper
    values, place, counts = np.unique(target.values[known], return_inverse=True, return_counts=True)
    weights = np.bincount(place, sample_weight[known], minlength=len(values))
    if of_few and len(values) <= _MOST_ATOMS and counts.sum() >= _FEWEST_OF_AN_ATOM * len(values):
        return values.tolist()
    found = []
    for i in np.argsort(-weights):
        if counts[i] < _FEWEST_OF_AN_ATOM or weights[i] < _LEAST_SHARE_OF_AN_ATOM * sample_weight.sum():
            continue
        near = np.r_[weights[max(0, i - _NEIGHBOURS) : i], weights[i + 1 : i + 1 + _NEIGHBOURS]]
        if not len(near) or weights[i] > _TIMES_ITS_NEIGHBOURS * np.median(near):
            found.append(float(values[i]))
    return sorted(found[:_MOST_ATOMS])


def likely_families(target: Target, atoms: NDArray[np.float64], is_rounded: bool) -> list[AnyFamily | str]:
    """Families that may suit a scalar target: the normal always, others where moments say that they are worth a try.

    Those are the lognormal for positive values with a skewness above 0.5, and the student_t where the excess kurtosis
    is above 3. Values on a grid have a floor under the scale of a normal component; a lognormal one would shrink onto
    the small ones of them. Beyond the range of the target, and half of it more on either side (of its logarithm), a
    lognormal component has no place: where features are unusual, it would otherwise be anywhere.
    """
    y = target.values[~np.isin(target.values, atoms)]
    families: list[AnyFamily | str] = ["normal"]
    if len(y) < _FEWEST_TO_TELL_A_LAW or np.ptp(y) == 0:
        return families
    if y.min() > 0 and skew(y) > _SKEWED and not is_rounded:
        low, high = np.log(y.min()), np.log(y.max())
        families.append(LogNormalFamily((low - (high - low) / 2, high + (high - low) / 2)))
    if kurtosis(y) > _HEAVY_TAILED:
        families.append("student_t")
    return families


def smallest_scales(
    family: AnyFamily, target: Target, scale: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[str]]:
    """How narrow a component may become, in units of the target, shape (D,); and in words where that is not as usual.

    It is 1e-3 of the standard deviation; and where fewer than half of the values are distinct and all lie on a grid, as
    in a rounded target, the standard deviation of the rounding: the grid's step over sqrt(12), at most 0.3 standard
    deviations. Below that the likelihood only says how far components have shrunk onto the grid. What is known by an
    interval alone has a probability, which can't do that.

    Parameters
    ----------
    scale
        Standard deviations of the target's columns, shape (D,).
    """
    floors, told = _USUAL_FLOOR * scale, []
    known = slice(None) if target.upper is None else target.values == target.upper
    columns = target.values[known].reshape(-1, len(scale))
    for i, part in enumerate(scalar_families(family, len(scale))):
        values = np.unique(columns[:, i])
        if part.closed_under != "affine" or 2 * len(values) >= len(columns) or len(values) < 2:
            continue
        gaps = np.diff(values)
        steps = gaps / gaps.min()
        is_grid = bool((np.abs(steps - steps.round()) < _OFF_THE_GRID).all())
        rounding = min(float(gaps.min()) / np.sqrt(12), _LARGEST_FLOOR * scale[i])
        if is_grid and rounding > floors[i]:
            floors[i] = rounding
            name = f" {target.names[i]!r}" if target.names else ""
            why = f"{len(values):,} distinct values, on a grid, in {len(columns):,} rows"
            told.append(f"target{name} has {why}: no scale below {rounding:.3g}")
    return floors, told


def scalar_families(family: AnyFamily, n: int) -> list[AnyFamily]:
    """The family of each coordinate, or n times that of all."""
    return list(family.families) if isinstance(family, ProductFamily) else [family] * n


def is_free(family: AnyFamily) -> bool:
    """Whether a law may be moved, and lives on the whole line: a little noise takes no y out of its support."""
    if family.closed_under != "affine" or not isinstance(family, ScalarFamily):
        return family.closed_under == "affine"
    low, high = family.support(family.build(torch.zeros(family.n_raw(None), dtype=torch.float64)))
    return bool(low == -torch.inf) and bool(high == torch.inf)


def check_support(family: AnyFamily, target: Target, atoms: NDArray[np.float64]) -> None:
    """Raise ``E-target-support`` where a family has no density at a value of the target, in the user's units.

    Of intervals, all those that hold no atom have to meet the support.
    """
    y, names = target.values, target.names
    if target.upper is not None:
        _check_intervals(family, target, atoms)
        y = y[y == target.upper]
    y = y[~np.isin(y, atoms)] if len(atoms) else y
    if not len(y):
        return
    columns = y.reshape(len(y), -1)
    for i, part in enumerate(scalar_families(family, columns.shape[1])):
        if not isinstance(part, ScalarFamily):
            return
        column = torch.tensor(columns[:, i])
        low, high = part.support(part.build(torch.zeros(part.n_raw(None), dtype=torch.float64)))
        is_outside = (column < low) | (column > high)
        if part.is_discrete:
            is_outside |= column != column.round()
        else:
            at_end = part.log_prob(part.build(torch.zeros(1, part.n_raw(None), dtype=torch.float64)), column)
            is_outside |= ((column == low) | (column == high)) & (at_end == -torch.inf)
        if bool(is_outside.any()):
            name = f" {names[i]!r}" if names else ""
            got = f"{int(is_outside.sum())} of {len(column)} values of target{name} outside of {part!r}"
            between = f"{'whole ' if part.is_discrete else ''}numbers between {low.item():g} and {high.item():g}"
            fix = 'give family="normal" in fit, which takes any number, other bounds, or an atom for a value at the end'
            raise MixturaError("E-target-support", got, between, fix)


def _check_intervals(family: AnyFamily, target: Target, atoms: NDArray[np.float64]) -> None:
    lower, upper = (torch.as_tensor(end) for end in (target.values, target.upper))
    holds_atom = torch.zeros(len(lower), dtype=torch.bool)
    for atom in atoms:
        holds_atom |= (lower <= atom) & (atom <= upper)
    if not isinstance(family, ScalarFamily):
        return
    low, high = family.support(family.build(torch.zeros(family.n_raw(None), dtype=torch.float64)))
    is_open = lower < upper
    if family.is_discrete:
        is_outside = is_open & ((upper < low) | (upper.floor() < lower))
    else:
        is_outside = is_open & ((upper <= low) | (lower >= high))
    is_outside &= ~holds_atom
    if bool(is_outside.any()):
        got = f"{int(is_outside.sum())} of {len(lower)} intervals outside of {family!r}"
        fix = "choose another family, other bounds, or declare a value in them an atom"
        raise MixturaError("E-target-support", got, f"intervals that meet {low.item():g} to {high.item():g}", fix)


def _check_column(name: str, values: pd.Series) -> None:
    if is_date(values):
        fix = "choose a number, such as days since a start"
        raise MixturaError("E-target-type", f"dates in target {name!r}", "numbers", fix)
    is_number = pd.api.types.is_numeric_dtype(values.dtype)
    if not is_number and values.map(lambda value: isinstance(value, str)).any():
        fix = "correct or drop these rows, or choose another target"
        raise MixturaError("E-target-text", f"text in target {name!r}", "numbers", fix)


def fit_target_scaler(
    target: NDArray[np.float64],
    sample_weight: NDArray[np.float64],
    names: Sequence[str] | None,
    family: AnyFamily,
) -> StandardScaler:
    """Weighted mean and standard deviation of each column of the target, as far as its family may be moved.

    A family that is closed under scaling alone, such as the gamma, keeps its 0; counts stay as they are.

    Parameters
    ----------
    target
        Shape (n,) or (n, D).
    sample_weight
        Shape (n,), not negative.
    names
        Names of the columns, for the errors.
    family
        In the user's units.

    Raises
    ------
    MixturaError
        ``E-target-constant`` for a column with a single value, ``E-target-scale`` for one whose variance overflows or
        underflows.
    """
    columns = target.reshape(len(target), -1)
    scaler = fit_scaler(columns, sample_weight)
    largest, spread = np.abs(columns).max(axis=0), np.ptp(columns, axis=0)
    for i, name in enumerate(names or map(str, range(columns.shape[1]))):
        if spread[i] <= 4 * np.finfo(np.float64).eps * largest[i]:
            got, fix = f"target {name!r} with a single value", "drop it: a constant needs no model"
            raise MixturaError("E-target-constant", got, "values that differ", fix)
        std = np.sqrt(np.asarray(scaler.var_)[i])
        if not np.isfinite(std) or std != np.asarray(scaler.scale_)[i]:
            got = f"target {name!r} with a spread of {spread[i]:.1e} about {columns[:, i].mean():.3g}"
            fix = "subtract its mean, while its digits are still there, or multiply it by a power of ten"
            expected = "a spread between 1e-150 and 1e150, of more than the last digits of its values"
            raise MixturaError("E-target-scale", got, expected, fix)
    for i, part in enumerate(scalar_families(family, columns.shape[1])):
        if part.closed_under != "affine":
            np.asarray(scaler.mean_)[i] = 0.0
        if part.closed_under == "none":
            np.asarray(scaler.scale_)[i] = 1.0
    return scaler


@dataclass(frozen=True)
class Units:
    """Between the target in the user's units, loc + scale * y, and y in the network's, which is float32."""

    family: AnyFamily
    """In the user's units, as are the atoms."""
    atoms: NDArray[np.float64]
    loc: NDArray[np.float64]
    """Shape (1,) or (D,), as is scale."""
    scale: NDArray[np.float64]

    @property
    def network_family(self) -> AnyFamily:
        """The family of the standardised target."""
        return self.family.moved((-self.loc / self.scale).tolist(), (1 / self.scale).tolist())

    @property
    def network_atoms(self) -> Tensor | None:
        """The standardised atoms, None without any."""
        return self._standardised(self.atoms) if len(self.atoms) else None

    def rows(self, encoded: NDArray[np.float64], target: Target, weight: NDArray[np.float64]) -> Rows:
        """Rows for a network; an atom is to the bit what the network's head has for it."""
        x, weight32 = (torch.as_tensor(part, dtype=torch.float32) for part in (encoded, weight))
        y = self._in_support(target.values)
        if self.network_atoms is not None:
            for atom, standardised in zip(self.atoms, self.network_atoms, strict=True):
                y = torch.where(torch.as_tensor(target.values == atom), standardised, y)
        if target.upper is None:
            return Rows(x, y, weight32)
        is_known = torch.as_tensor(target.values == target.upper)
        return Rows(x, y, weight32, torch.where(is_known, y, self._in_support(target.upper)))

    def log_scale(self, rows: Rows) -> float:
        """What the mean NLL of rows gains in the user's units: the Jacobian of the standardisation.

        Rows at an atom, or known by an interval alone, have a probability and no density: they gain nothing.
        """
        is_density = torch.ones(len(rows), dtype=torch.bool)
        if self.network_atoms is not None:
            is_density &= ~(rows.y[:, None] == self.network_atoms).any(-1)
        if rows.upper is not None:
            is_density &= rows.y == rows.upper
        share = (rows.weight * is_density).sum().item() / rows.weight.sum().item()
        return share * float(np.log(self.scale).sum())

    def _standardised(self, values: NDArray[np.float64]) -> Tensor:
        return torch.as_tensor((values - self.loc) / self.scale, dtype=torch.float32)

    def _in_support(self, values: NDArray[np.float64]) -> Tensor:
        """Standardised values moved by the rounding that may have brought them to the end of a support, or beyond."""
        y = self._standardised(values)
        columns = y.reshape(len(y), -1).unbind(-1)
        moved = []
        for part, column in zip(scalar_families(self.network_family, len(columns)), columns, strict=True):
            if isinstance(part, ScalarFamily) and not part.is_discrete:
                low, high = part.support(part.build(torch.zeros(part.n_raw(None), dtype=y.dtype)))
                low, high = torch.nextafter(low, high), torch.nextafter(high, low)
                column = torch.where(column.isfinite(), column.clamp(low, high), column)
            moved.append(column)
        return torch.stack(moved, -1).reshape(y.shape)
