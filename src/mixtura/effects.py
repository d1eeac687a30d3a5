"""What a feature does to the whole density, and how much a model needs it."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

from .errors import MixturaError, coded
from .families import ScalarFamily
from .mixture import Mixture, plain_mixture
from .modes import LEAST_MASS_OF_A_MODE
from .scores import crps, energy_score

if TYPE_CHECKING:
    from .estimator import MDNRegressor

_ROWS_AT_ONCE = 4_096


def feature_effect(model: "MDNRegressor", X: Any, feature: int | str, *, n_points: int = 20) -> pd.DataFrame:
    """Partial dependence of the distribution: mean, spread and number of modes as one feature is set to each value.

    All rows of X get the value, keep their other features, and are averaged. So the curve is causal only where the
    feature could be set so, and in rows that no data are like the model is asked beyond what it learned.

    Parameters
    ----------
    model
        Fitted on a scalar target.
    X
        Background rows, as for `predict`; a few hundred are enough, ``X.sample(200)``, and of a pool of networks, whose
        modes take time, some fifty.
    feature
        Name or position of the feature, a number or a category.
    n_points
        Values of a number, evenly spaced over nearly all of its range; of a category, and of a number with no more
        values than that, each value is taken.

    Returns
    -------
    DataFrame
        Indexed by the feature's values; `columns.name` is that of the target.

        - `mean`: mean of the rows' means;
        - `spread`: root mean square of their standard deviations, hence the noise in y alone;
        - `pooled_spread`: standard deviation of the pool of all rows, in which their means differ too;
        - `n_modes`: mean number of modes of a row, of those that hold at least 5% of the probability.

    Raises
    ------
    MixturaError
        ``E-plot-feature`` for a feature that is not there, ``E-scalar-only`` for a vector target.

    References
    ----------
    Friedman (2001), Greedy function approximation, section 8.2.

    Examples
    --------
    >>> from mixtura import MDNRegressor
    >>> x = np.random.default_rng(0).uniform(size=(300, 2))
    >>> model = MDNRegressor(n_components=1, preset="plain", random_state=0).fit(x, 3 * x[:, 0])
    >>> effect = feature_effect(model, x, 0, n_points=3)
    >>> bool(effect["mean"].is_monotonic_increasing)
    True
    """
    table = as_table(X)
    column = column_of(table, feature)
    lines = {}
    for value in _values_of(table[column], n_points):
        answers = [_answers(part) for part in _predicted(model, X, table, {column: value})]
        mean, variance, n_modes = np.concatenate(answers, -1)
        lines[value] = {
            "mean": mean.mean(),
            "spread": np.sqrt(variance.mean()),
            "pooled_spread": np.sqrt(variance.mean() + mean.var()),
            "n_modes": n_modes.mean(),
        }
    effect = pd.DataFrame.from_dict(lines, orient="index")
    effect.index.name = label_of(X, table, column)
    effect.columns.name = target_of(model)
    return effect


def permutation_importance(
    model: "MDNRegressor",
    X: Any,
    y: ArrayLike,
    *,
    n_repeats: int = 5,
    random_state: int | np.random.RandomState | None = 0,
) -> pd.DataFrame:
    """How much the CRPS rises when a feature is shuffled among the rows, so that it tells nothing any more.

    Of vectors, the energy score. It judges the whole density: a feature on which only the spread depends counts too.
    Features that say the same stand in for each other, and each seems unimportant.

    Parameters
    ----------
    model
        Fitted.
    X, y
        Rows to score, best those that the model has not seen.
    n_repeats
        How often each feature is shuffled.
    random_state
        Seed of the shuffles.

    Returns
    -------
    DataFrame
        Indexed by feature, the most important first: `rise`, in units of the target, and its `standard_error` over the
        rows. `columns.name` says which score it is, and of what.

    Raises
    ------
    MixturaError
        ``E-input-length``, ``E-target-type`` for censored targets, ``E-parameter`` for n_repeats < 1.

    References
    ----------
    Breiman (2001), Random forests, section 10; Fisher, Rudin and Dominici (2019), All models are wrong, but many are
    useful.

    Examples
    --------
    >>> from mixtura import MDNRegressor
    >>> x = np.random.default_rng(0).uniform(size=(300, 2))
    >>> model = MDNRegressor(n_components=1, preset="plain", random_state=0).fit(x, 3 * x[:, 0])
    >>> permutation_importance(model, x, 3 * x[:, 0]).index.tolist()
    ['x0', 'x1']
    """
    if n_repeats < 1:
        raise MixturaError("E-parameter", f"n_repeats={n_repeats!r}", "an integer >= 1", "5 are enough as a rule")
    table = as_table(X)
    with coded("E-target-type", "known numbers, not intervals"):
        values = np.asarray(y, dtype=np.float64)
    if len(values) != len(table):
        got = f"{len(values)} values of y for {len(table)} rows"
        raise MixturaError("E-input-length", got, "one for each row", "give the y of these rows")
    rng = check_random_state(random_state)
    before = _scores(model, X, table, values, {})
    lines = {}
    for column in table.columns:
        after = np.zeros(len(table))
        for _ in range(n_repeats):
            shuffled = table[column].array[rng.permutation(len(table))]
            after += _scores(model, X, table, values, {column: shuffled}) / n_repeats
        rise = after - before
        error = rise.std(ddof=1) / np.sqrt(len(rise)) if len(rise) > 1 else np.nan
        lines[label_of(X, table, column)] = {"rise": rise.mean(), "standard_error": error}
    importance = pd.DataFrame.from_dict(lines, orient="index").sort_values("rise", ascending=False, kind="stable")
    importance.index.name = "feature"
    is_scalar = values.size == len(values)
    importance.columns.name = f"CRPS of {target_of(model)}" if is_scalar else "energy score"
    return importance


# Tables and what models say of them ---------------------------------------------------------------------------


def as_table(X: Any) -> pd.DataFrame:
    """Features as a DataFrame; the columns of an array are numbered."""
    return X if isinstance(X, pd.DataFrame) else pd.DataFrame(np.asarray(X))


def column_of(table: pd.DataFrame, feature: int | str) -> Any:
    """The column of this name, or else at this position."""
    if feature in table.columns:
        return feature
    if isinstance(feature, int) and 0 <= feature < table.shape[1]:
        return table.columns[feature]
    expected = f"one of {', '.join(map(str, table.columns))}"
    raise MixturaError("E-plot-feature", f"feature={feature!r}", expected, "name a column, or give its position")


def label_of(X: Any, table: pd.DataFrame, column: Any) -> str:
    """The feature's name, or x0, x1, ... of an array."""
    return str(column) if isinstance(X, pd.DataFrame) else f"x{table.columns.get_loc(column)}"


def target_of(model: "MDNRegressor") -> str:
    """The name of a scalar target, which is what its numbers are of."""
    names = getattr(model, "target_names_", None)
    return names[0] if names else "y"


def ends_of(values: ArrayLike | pd.Series) -> tuple[float, float]:
    """Where nearly all values lie: the 0.5% and 99.5% quantiles."""
    series = values if isinstance(values, pd.Series) else pd.Series(np.asarray(values))
    low, high = series.astype("Float64").quantile([0.005, 0.995])
    return float(low), float(high)


def is_number(values: pd.Series) -> bool:
    """Whether a column holds numbers, not categories or truth values."""
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def _values_of(values: pd.Series, n_points: int) -> list[Any]:
    present = values.dropna()
    if isinstance(values.dtype, pd.CategoricalDtype):
        return [level for level in values.cat.categories if (present == level).any()]
    distinct = present.unique().tolist()
    if is_number(values) and len(distinct) > n_points:
        return np.linspace(*ends_of(present), n_points).tolist()
    return sorted(distinct)


def _predicted(model: "MDNRegressor", X: Any, table: pd.DataFrame, changes: dict[Any, Any]) -> list[Mixture]:
    """Densities of the rows with some columns changed, in blocks: their modes and scores take memory."""
    changed = table.assign()
    for column, value in changes.items():
        changed[column] = pd.Series(value, index=table.index).astype(_room(table[column], value))
    blocks = [changed.iloc[start : start + _ROWS_AT_ONCE] for start in range(0, len(table), _ROWS_AT_ONCE)]
    is_table = isinstance(X, pd.DataFrame)
    return [plain_mixture(model.predict_dist(block if is_table else block.to_numpy())) for block in blocks]


def _room(column: pd.Series, value: Any) -> Any:
    """The dtype of a column once it holds a value between two whole numbers."""
    is_between = isinstance(value, float) and pd.api.types.is_integer_dtype(column)
    return np.float64 if is_between else column.dtype


def _answers(mixture: Mixture) -> NDArray[np.float64]:
    """Mean, variance and number of modes, shape (3, n)."""
    mixture._scalar_family("modes")
    n_modes = (mixture.modes().mass >= LEAST_MASS_OF_A_MODE).sum(-1).to(mixture.dtype)
    return torch.stack([mixture.mean, mixture.variance, n_modes]).numpy()


def _scores(
    model: "MDNRegressor", X: Any, table: pd.DataFrame, y: NDArray[np.float64], changes: dict[Any, Any]
) -> NDArray[np.float64]:
    """CRPS or energy score of each row."""
    parts, start = [], 0
    for mixture in _predicted(model, X, table, changes):
        score = crps if isinstance(mixture.family, ScalarFamily) else energy_score
        rows = torch.tensor(y[start : start + len(mixture)]).reshape(mixture.batch_shape + mixture.event_shape)
        parts.append(score(mixture, rows, reduction="none").numpy())
        start += len(mixture)
    return np.concatenate(parts)
