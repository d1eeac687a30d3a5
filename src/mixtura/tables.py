"""From a table, as users have them, to the standardised numbers that a network takes."""

import copy
import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from numbers import Real
from types import NoneType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, QuantileTransformer, StandardScaler

from .errors import MixturaError, MixturaWarning, warn

_MAX_LEVELS = 100
"""Levels of a category that get a column of their own; rarer ones share the all-zero code with unseen ones."""
_HEAVY_TAILED, _MOST_QUANTILES = 5.0, 1_000
_ROUNDING, _ROUNDING_AT_ZERO = 1e-6, 1e-12
"""Relative, and absolute: what is so near is no other number."""
_FEWEST_STEPS = 100
_MISSING = "<missing>"
_WHOLE = re.compile(r"-?\d+\.0+$")
_DATE = re.compile(r"(\d{4}([-/.])\d{1,2}\2\d{1,2}|\d{1,2}([-/.])\d{1,2}\3\d{4})([ T]\d{1,2}:\d{2}.*)?$")


@dataclass(frozen=True)
class Column:
    """One feature: its name (None in a plain array) and, for a category, the levels that have a code."""

    name: str | None
    levels: tuple[str, ...] | None = None
    has_rare_levels: bool = False

    @property
    def is_category(self) -> bool:
        """Whether the feature is a category, not a number."""
        return self.levels is not None


class TableEncoder:
    """From columns to standardised numbers, all through scikit-learn's own preprocessing.

    Numbers are imputed (median, with an indicator where values were missing) and standardised; one that is farther from
    the range of `fit` than this is wide is taken as that far, since nothing is known of what lies there, and so is one
    of a column that was constant. Categories are one-hot, with a level for missing ones; booleans are numbers.

    Parameters
    ----------
    ranks
        Whether heavy-tailed columns (an excess kurtosis above 5, of more than two values) are replaced by their normal
        scores: what a rank stands for in a sample of a normal law.

    Attributes
    ----------
    columns_
        The features, in the table's order.
    imputer_, scaler_
        Fitted on the numeric columns; imputer_ is None where there are none.
    heavy_, ranker_
        Indices of the numeric columns with heavy tails, and what turns them into normal scores, or None.
    one_hot_
        Fitted on the categories; None where there are none.
    range_
        The least and the largest value of each numeric column, shape (2, p1).
    """

    def __init__(self, ranks: bool = False):
        self._ranks = ranks
        self.heavy_, self.ranker_, self.rank_unit_ = np.empty(0, dtype=np.int64), None, np.empty(0)
        self.range_ = np.empty((2, 0))

    def fit(self, table: pd.DataFrame | NDArray[np.float64], sample_weight: NDArray[np.float64]) -> "TableEncoder":
        """Learn the columns, their levels, medians, means and scales.

        Parameters
        ----------
        table
            (n, p), a data frame of numbers, booleans and categories, or an array of numbers; NaN where missing.
        sample_weight
            (n,), not negative.

        Raises
        ------
        MixturaError
            ``E-feature-empty``, ``E-feature-date``, ``E-feature-infinite``, ``E-feature-type``.
        """
        if isinstance(table, pd.DataFrame):
            self.columns_ = [_describe(name, table.iloc[:, i]) for i, name in enumerate(table.columns)]
        else:
            self.columns_ = [Column(None)] * table.shape[1]
        numbers, _ = self._split(table)
        empty = [self._name(int(i)) for i in np.flatnonzero(np.isnan(numbers).all(axis=0))] if len(numbers) else []
        if empty:
            got = f"no value at all in {_quote(empty)}"
            raise MixturaError("E-feature-empty", got, "at least one value in each feature", "drop these columns")
        levels = [column.levels for column in self.columns_ if column.levels is not None]
        self._fit_parts(numbers, levels)
        if self.imputer_ is not None:
            self.range_ = np.stack([np.nanmin(numbers, 0), np.nanmax(numbers, 0)])
            with np.errstate(all="ignore"):
                imputed = self.imputer_.transform(numbers)
                self._set_ranker(np.flatnonzero(_are_heavy_tailed(imputed[:, : numbers.shape[1]])), imputed)
                self.scaler_ = fit_scaler(self._ranked(imputed), sample_weight)
            bad = ~np.isfinite(np.asarray(self.scaler_.scale_)[: numbers.shape[1]])
            if bad.any():
                got = f"values so large in {self._name(int(bad.argmax()))!r} that their variance is no number"
                raise MixturaError(
                    "E-feature-infinite", got, "numbers below 1e150", "divide by a power of ten, or clip"
                )
        return self

    def _fit_parts(self, numbers: NDArray[np.float64], levels: Sequence[Sequence[str]]) -> None:
        self.imputer_ = self.one_hot_ = None
        if numbers.shape[1]:
            self.imputer_ = SimpleImputer(strategy="median", add_indicator=True).fit(numbers)
        if levels:
            coded = [np.array(some, dtype=object) for some in levels]
            self.one_hot_ = OneHotEncoder(categories=coded, handle_unknown="ignore", sparse_output=False)
            self.one_hot_.fit(np.array([[some[0] for some in levels]], dtype=object))

    def transform(self, table: pd.DataFrame | NDArray[np.float64], warns: bool = True) -> NDArray[np.float64]:
        """The table as standardised numbers, (n, n_encoded): imputed numbers, indicators, one-hot levels.

        Warns
        -----
        MixturaWarning
            ``W-category-unseen`` for levels that were not there in `fit`; they are coded as unknown.
            ``W-feature-missing`` for missing numbers in columns that had none. ``W-feature-far`` for numbers that are
            taken as nearer to the range of `fit`.
        """
        (numbers, labels), parts = self._split(table), []
        near = self._nearer(numbers)
        if warns:
            self._warn_unseen(labels)
            self._warn_missing(numbers)
            self._warn_far(numbers, near)
        if self.imputer_ is not None:
            parts.append(self.scaler_.transform(self._ranked(self.imputer_.transform(near))))
        if self.one_hot_ is not None:
            parts.append(np.asarray(self.one_hot_.transform(labels)))
        return np.hstack(parts)

    def _set_ranker(self, heavy: NDArray[np.int64], imputed: NDArray[np.float64]) -> None:
        self.heavy_, self.ranker_ = heavy, None
        if self._ranks and len(heavy):
            n = min(_MOST_QUANTILES, len(imputed))
            self.ranker_ = QuantileTransformer(n_quantiles=n, output_distribution="normal", subsample=None)
            low, high = np.quantile(imputed[:, heavy], [0.25, 0.75], axis=0)
            unit = np.where(high > low, high - low, imputed[:, heavy].std(0))
            self.rank_unit_ = np.where(unit > 0, unit, 1.0)  # the ranks have a tolerance of 1e-7 in units of the column
            self.ranker_.fit(imputed[:, heavy] / self.rank_unit_)

    def _ranked(self, imputed: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.ranker_ is not None:
            imputed[:, self.heavy_] = self.ranker_.transform(imputed[:, self.heavy_] / self.rank_unit_)
        return imputed

    @property
    def n_encoded(self) -> int:
        """Number of columns that `transform` makes."""
        n_numbers = 0 if self.imputer_ is None else self.scaler_.n_features_in_
        return n_numbers + sum(len(column.levels or ()) for column in self.columns_)

    @property
    def told(self) -> list[str]:
        """Events for a report."""
        rare = [column.name or "" for column in self.columns_ if column.has_rare_levels]
        return [f"levels beyond the {_MAX_LEVELS} most frequent, as unknown ones, in {_quote(rare)}"] if rare else []

    def _split(self, table: pd.DataFrame | NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[Any]]:
        """Numbers (n, p1) as float64 with NaN where missing, and labels (n, p2) as text."""
        if not isinstance(table, pd.DataFrame):
            if any(column.is_category for column in self.columns_):
                fix = "give a data frame with the columns of fit"
                raise MixturaError("E-features", "an array", "a table with the categories of fit", fix)
            return table, np.empty((len(table), 0), dtype=object)
        numbers, labels = [], []
        for i, column in enumerate(self.columns_):
            values = table.iloc[:, i]
            if column.is_category:
                labels.append(as_labels(values))
            else:
                numbers.append(_as_numbers(values, column.name))
        n = len(table)
        return (
            np.stack(numbers, 1) if numbers else np.empty((n, 0)),
            np.stack(labels, 1) if labels else np.empty((n, 0), dtype=object),
        )

    def _warn_unseen(self, labels: NDArray[Any]) -> None:
        unseen = self._unseen(labels)
        for column, values, is_unseen in zip(self._categories, labels.T, unseen.T, strict=True):
            if is_unseen.any():
                names = _quote(sorted(set(values[is_unseen])))
                warn(
                    MixturaWarning(
                        "W-category-unseen",
                        f"{names} in column {column.name!r} ({is_unseen.sum()} rows), never seen in fit",
                        f"levels such as {_quote(column.levels or ())}",
                        "correct them or fit again; these rows are predicted as of an unknown level",
                    )
                )

    def _warn_missing(self, numbers: NDArray[np.float64]) -> None:
        is_new = self._is_newly_missing(numbers)
        if is_new.any():
            fix = "fill them in, or fit again with rows that lack them; these are predicted as at the median"
            got, expected = f"missing values in {self._cells(is_new)}, where no row of fit lacked one", "numbers"
            warn(MixturaWarning("W-feature-missing", got, expected, fix))

    def _is_newly_missing(self, numbers: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which numbers are missing in a column that had all of them in `fit`."""
        is_missing, indicator = np.isnan(numbers), None if self.imputer_ is None else self.imputer_.indicator_
        if indicator is not None:
            is_missing[:, indicator.features_] = False
        return is_missing

    def _warn_far(self, numbers: NDArray[np.float64], near: NDArray[np.float64]) -> None:
        is_far = ~np.isclose(near, numbers, rtol=_ROUNDING, atol=_ROUNDING_AT_ZERO, equal_nan=True)
        if is_far.any():
            fix = "correct them, or fit again with such rows; these are predicted as at that distance"
            got = f"numbers in {self._cells(is_far)}, farther from the range of fit than this is wide"
            warn(MixturaWarning("W-feature-far", got, "numbers as in fit", fix))

    def _nearer(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Numbers no farther from the range of `fit` than this is wide."""
        low, high = self.range_
        with np.errstate(over="ignore"):
            width = high - low
            return numbers.clip(low - width, high + width)

    def _cells(self, some: NDArray[np.bool_]) -> str:
        """The numeric columns that have some, and how many rows do."""
        names = [self._name(int(j)) for j in np.flatnonzero(some.any(axis=0))]
        return f"column{'s' * (len(names) > 1)} {_quote(names)} ({some.any(axis=1).sum()} rows)"

    @property
    def _categories(self) -> list[Column]:
        return [column for column in self.columns_ if column.is_category]

    def _unseen(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """Which labels were not there in `fit`; none of a column of which some levels of fit have no code either."""
        found = np.zeros(labels.shape, dtype=bool)
        for i, column in enumerate(self._categories):
            if not column.has_rare_levels:
                found[:, i] = ~np.isin(labels[:, i].astype(str), np.array(column.levels, dtype=str))
        return found

    def numbers(self, table: pd.DataFrame | NDArray[np.float64]) -> pd.DataFrame:
        """The numeric columns, (n, p1), NaN where a value is missing, under their names or positions."""
        numbers, _ = self._split(table)
        return pd.DataFrame(numbers, columns=[self._name(i) for i in range(numbers.shape[1])])

    def widened(self, table: pd.DataFrame | NDArray[np.float64]) -> "TableEncoder":
        """A copy whose `range_` holds the numbers of this table, too; but for constant columns: they have no scale."""
        wider, (numbers, _) = copy.copy(self), self._split(table)
        seen = np.vstack([self.range_, numbers])
        is_constant = self.range_[0] == self.range_[1]
        wider.range_ = np.where(is_constant, self.range_, np.stack([np.nanmin(seen, 0), np.nanmax(seen, 0)]))
        return wider

    def unknown(self, table: pd.DataFrame | NDArray[np.float64]) -> dict[str, pd.DataFrame]:
        """What a table holds that `fit` never saw, cell by cell.

        Returns
        -------
        dict
            Booleans, shape (n, columns): ``"beyond"`` for numbers outside of `range_`, ``"unseen"`` for levels,
            ``"missing"`` for missing values in columns that had none.
        """
        numbers, (_, labels) = self.numbers(table), self._split(table)
        names, unseen = [column.name for column in self._categories], self._unseen(labels)
        is_missing = pd.DataFrame(self._is_newly_missing(numbers.to_numpy()), columns=numbers.columns)
        gone = pd.DataFrame(unseen & (labels == _MISSING), columns=names)
        return {
            "beyond": (numbers < self.range_[0]) | (numbers > self.range_[1]),
            "unseen": pd.DataFrame(unseen, columns=names) & ~gone,
            "missing": pd.concat([is_missing, gone], axis=1),
        }

    def _name(self, number_index: int) -> str:
        """Name of the i-th numeric column, or its position."""
        positions = [i for i, column in enumerate(self.columns_) if not column.is_category]
        position = positions[number_index]
        return self.columns_[position].name or str(position)

    # The whole state as JSON and arrays, so that a saved model needs no pickle -------------------------------------

    def get_state(self) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]]]:
        """The columns as JSON, the numbers as arrays."""
        columns = [asdict(column) for column in self.columns_]
        if self.imputer_ is None:
            return columns, {}
        indicator = self.imputer_.indicator_
        return columns, {
            "fill": self.imputer_.statistics_,
            "indicated": np.array([] if indicator is None else indicator.features_, dtype=np.int64),
            "heavy": self.heavy_,
            "quantiles": np.empty((0, 0)) if self.ranker_ is None else self.ranker_.quantiles_,
            "rank_unit": self.rank_unit_,
            "range": self.range_,
            "loc": np.asarray(self.scaler_.mean_),
            "scale": np.asarray(self.scaler_.scale_),
        }

    @classmethod
    def from_state(cls, columns: list[dict[str, Any]], arrays: dict[str, NDArray[Any]]) -> "TableEncoder":
        """The encoder with this state; its parts are fitted anew on the smallest table that leads to it."""
        self = cls()
        self.columns_ = [
            Column(column["name"], column["levels"] and tuple(column["levels"]), column["has_rare_levels"])
            for column in columns
        ]
        for column, description in zip(self.columns_, columns, strict=True):
            texts = [*(description["levels"] or []), *([] if column.name is None else [column.name])]
            if not isinstance(description["levels"], list | NoneType) or not all(
                isinstance(text, str) for text in texts
            ):
                raise ValueError("a column is not described by text")
        levels = [column.levels for column in self.columns_ if column.levels is not None]
        n_numbers = len(columns) - len(levels)
        two_rows = np.empty((2, 0))
        if n_numbers:
            two_rows = np.stack([arrays["fill"], arrays["fill"]])
            two_rows[1, arrays["indicated"]] = math.nan
        self._fit_parts(two_rows, levels)
        if self.imputer_ is not None:
            quantiles = arrays["quantiles"]
            self._ranks = bool(len(quantiles))
            self._set_ranker(arrays["heavy"], self.imputer_.transform(two_rows))
            if self.ranker_ is not None:
                self.rank_unit_ = arrays["rank_unit"]
                if not quantiles.shape[1:] == self.rank_unit_.shape == self.heavy_.shape:
                    raise ValueError("the quantiles do not fit the columns")
                self.ranker_.quantiles_, self.ranker_.n_quantiles_ = quantiles, len(quantiles)
                self.ranker_.references_ = np.linspace(0, 1, len(quantiles))
            self.scaler_ = StandardScaler().fit(np.zeros_like(self.imputer_.transform(two_rows)))
            self.scaler_.mean_, self.scaler_.scale_ = arrays["loc"], arrays["scale"]
            self.scaler_.var_ = arrays["scale"] ** 2
            everything = np.array([[-np.inf], [np.inf]]).repeat(n_numbers, 1)  # of models that kept no range
            self.range_ = arrays.get("range", everything)
            if self.range_.shape != (2, n_numbers):
                raise ValueError("the ranges do not fit the columns")
        if two_rows.shape[1] != n_numbers or (n_numbers and arrays["loc"].shape != (self.scaler_.n_features_in_,)):
            raise ValueError("the arrays do not fit the columns")
        return self


def fit_scaler(columns: NDArray[np.float64], sample_weight: NDArray[np.float64]) -> StandardScaler:
    """Weighted means and standard deviations; 1 for a column that spreads over less than 100 steps of its last digit.

    scikit-learn's own bound for that grows with the number of rows.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is the caller's to tell
        scaler = StandardScaler().fit(columns, sample_weight=sample_weight)
        std = np.sqrt(np.asarray(scaler.var_))
        is_constant = std <= _FEWEST_STEPS * np.finfo(np.float64).eps * np.abs(columns).max(axis=0)
    scaler.scale_ = np.where(is_constant, 1.0, std)
    return scaler


def as_labels(values: pd.Series) -> NDArray[Any]:
    """Levels as text, one spelling for 1, 1.0 and "1", and one for what is missing."""

    def label(value: Any) -> str:
        text = str(value)
        return text.partition(".")[0] if _WHOLE.match(text) else text

    missing = values.isna().to_numpy()
    return np.array(
        [_MISSING if gone else label(value) for value, gone in zip(values.astype(object), missing, strict=True)],
        dtype=object,
    )


def _describe(name: Hashable, values: pd.Series) -> Column:
    """What kind of feature a column is: decided in `fit`, kept ever after."""
    text = str(name)
    is_category = isinstance(values.dtype, pd.CategoricalDtype)
    if pd.api.types.is_complex_dtype(values.dtype):
        raise MixturaError("E-feature-type", f"complex numbers in column {text!r}", "real numbers", "give both parts")
    if not is_category and pd.api.types.is_numeric_dtype(values.dtype):
        return Column(text)
    if is_date(values):
        raise _date_error(text)
    present = values.dropna()
    if present.empty:
        got = f"no value at all in column {text!r}"
        raise MixturaError("E-feature-empty", got, "at least one value in each feature", "drop this column")
    if not is_category and all(isinstance(value, Real | Decimal | np.bool_) for value in present):
        return Column(text)  # numbers that pandas holds as objects
    if any(isinstance(value, bytes | complex) or not isinstance(value, Hashable) for value in present):
        got = f"bytes, complex numbers, lists or other containers in column {text!r}"
        raise MixturaError("E-feature-type", got, "numbers, booleans or categories", "spread them over columns")
    if all(isinstance(value, str) and _DATE.match(value) for value in present.iloc[:20]):
        raise _date_error(text)
    counts = pd.Series(as_labels(values)).value_counts()
    return Column(text, tuple(sorted(counts.index[:_MAX_LEVELS])), has_rare_levels=len(counts) > _MAX_LEVELS)


def _are_heavy_tailed(columns: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Of each column; not weighted."""
    centred = columns - columns.mean(0)
    kurtosis = (centred**4).mean(0) / (centred**2).mean(0) ** 2 - 3
    return (kurtosis > _HEAVY_TAILED) & np.array([len(np.unique(column)) > 2 for column in columns.T], dtype=bool)


def has_date_dtype(values: Any) -> bool:
    """Whether a column or array is of dates, times or spans of time by its dtype; False for what has no dtype."""
    dtype: Any = getattr(values, "dtype", None)
    return pd.api.types.is_datetime64_any_dtype(dtype) or pd.api.types.is_timedelta64_dtype(dtype)


def is_date(values: pd.Series) -> bool:
    """Whether a column holds dates, times or spans of time, by its dtype or in its first values."""
    dtype = values.dtype
    if has_date_dtype(values) or isinstance(dtype, pd.PeriodDtype):
        return True
    first = values.dropna().head(20) if pd.api.types.is_object_dtype(dtype) else ()
    return len(first) > 0 and all(isinstance(value, date | time | timedelta | pd.Period) for value in first)


def _date_error(name: str) -> MixturaError:
    fix = "derive numbers from it (hour, weekday, days since a start) or drop it"
    return MixturaError("E-feature-date", f"dates in column {name!r}", "numbers or categories", fix)


def _as_numbers(values: pd.Series, name: str | None) -> NDArray[np.float64]:
    if is_date(values):
        got = f"dates in column {name!r}, which held numbers in fit"
        raise MixturaError("E-feature-type", got, "numbers", "derive the numbers as for fit")
    try:
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError) as error:
        got = f"text in column {name!r}, which held numbers in fit ({error})"
        raise MixturaError("E-feature-type", got, "numbers", "correct these values") from error
    if np.isinf(numbers).any():
        raise MixturaError("E-feature-infinite", f"infinity in column {name!r}", "finite numbers", "clip or drop them")
    return numbers


def _quote(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
