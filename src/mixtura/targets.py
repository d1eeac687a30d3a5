"""The target: what may be learned, and how it is standardised."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array

from .errors import MixturaError, coded
from .tables import has_date_dtype, is_date


def as_target(y: Any) -> tuple[NDArray[np.float64], list[str] | None]:
    """The target as float64, shape (n,) or (n, D), and the names of its columns where it has them.

    Parameters
    ----------
    y
        Array, list, Series or DataFrame of numbers.

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
    return target, names


def _check_column(name: str, values: pd.Series) -> None:
    if is_date(values):
        fix = "choose a number, such as days since a start"
        raise MixturaError("E-target-type", f"dates in target {name!r}", "numbers", fix)
    is_number = pd.api.types.is_numeric_dtype(values.dtype)
    if not is_number and values.map(lambda value: isinstance(value, str)).any():
        fix = "correct or drop these rows, or choose another target"
        raise MixturaError("E-target-text", f"text in target {name!r}", "numbers", fix)


def fit_target_scaler(
    target: NDArray[np.float64], sample_weight: NDArray[np.float64], names: Sequence[str] | None
) -> StandardScaler:
    """Weighted mean and standard deviation of each column of the target.

    Parameters
    ----------
    target
        Shape (n,) or (n, D).
    sample_weight
        Shape (n,), not negative.
    names
        Names of the columns, for the errors.

    Raises
    ------
    MixturaError
        ``E-target-constant`` for a column with a single value, ``E-target-scale`` for one whose variance overflows or
        underflows.
    """
    columns = target.reshape(len(target), -1)
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is told below
        scaler = StandardScaler().fit(columns, sample_weight=sample_weight)
    largest, spread = np.abs(columns).max(axis=0), np.ptp(columns, axis=0)
    for i, name in enumerate(names or map(str, range(columns.shape[1]))):
        if spread[i] <= 4 * np.finfo(np.float64).eps * largest[i]:
            got, fix = f"target {name!r} with a single value", "drop it: a constant needs no model"
            raise MixturaError("E-target-constant", got, "values that differ", fix)
        if not np.isfinite(np.asarray(scaler.scale_)[i]) or np.asarray(scaler.var_)[i] == 0:
            got, fix = f"target {name!r} with a spread of {spread[i]:.1e}", "multiply it by a power of ten"
            raise MixturaError("E-target-scale", got, "a spread between 1e-150 and 1e150", fix)
    return scaler
