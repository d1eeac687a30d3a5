"""Which of several forecasts is better, and whether that is more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import stats

from .errors import MixturaError
from .evaluation import Evaluation, Score, as_json, losses_of, mean_and_error, measure_of, predicted

_CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class Comparison:
    """Forecasts in the order of their mean loss on the same rows."""

    table: pd.DataFrame
    """A row for each forecast, which is the index `model`, best first. `score`: its mean loss; `rank`; `difference` to
    the best, in units of the score, with `standard_error`, the ends `lower` and `upper` of its 95% interval, and
    `p_value` of the hypothesis that the mean difference is 0; NaN of the best itself."""
    score: Score
    n_rows: int
    time_ordered: bool

    @property
    def summary(self) -> str:
        """The result in a sentence or two."""
        (best, *others), how = self.table.index, "Diebold-Mariano" if self.time_ordered else "paired t"
        surely = [name for name in others if self.table.loc[name, "p_value"] < 1 - _CONFIDENCE]  # pyright: ignore
        unsure = [name for name in others if name not in surely]
        text = f"{best!r} has the lowest mean {self.score} of {self.n_rows} rows."
        if surely:
            text += f" Surely worse ({how} test at 5%): {', '.join(map(repr, surely))}."
        if unsure:
            text += f" Not told apart from it: {', '.join(map(repr, unsure))}."
        return text

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the settings, the table by model (None for what is no finite number), the summary."""
        about = {"score": self.score, "n_rows": self.n_rows, "time_ordered": self.time_ordered}
        return {**about, "models": as_json(self.table), "summary": self.summary}


def compare(
    models: Mapping[str, Any], X: Any, y: Any, *, score: Score = "nll", time_ordered: bool = False
) -> Comparison:
    """Rank forecasts of the same rows by their mean losses, and test the paired differences to the best.

    Losses of one row under two forecasts go up and down together: the difference is known far better than either.
    Without order in time it is a paired t test. With it, differences of neighbouring rows may be correlated, and the
    test is that of Diebold and Mariano: the variance of the mean is the long-run variance over n, by Newey and West
    with Bartlett's weights, over as many lags as Andrews' rule takes for an autoregression of order 1; the statistic
    has the small-sample correction of Harvey, Leybourne and Newbold, with n - 1 degrees of freedom.

    Parameters
    ----------
    models
        Names and forecasts, as for `evaluate`; or what `evaluate` answered for these rows.
    X, y
        As for `evaluate`.
    score
        ``"nll"``, ``"crps"`` (scalar targets), ``"energy"`` (vectors), ``"squared_error"`` of the mean or
        ``"absolute_error"`` of the median.
    time_ordered
        Whether rows follow each other in time.

    Raises
    ------
    MixturaError
        As `evaluate` does; ``E-parameter`` for fewer than two forecasts, or a score that is none; ``E-too-few-rows``
        below two rows; ``E-atoms-differ`` for the NLL of forecasts with other atoms, or of densities beside
        probabilities of counts.

    References
    ----------
    Diebold and Mariano (1995), Comparing predictive accuracy. Newey and West (1987). Andrews (1991), eq. 6.4.
    Harvey, Leybourne and Newbold (1997), Testing the equality of prediction mean squared errors.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from torch.distributions import Normal
    >>> from mixtura import Mixture
    >>> y = np.random.default_rng(0).normal(size=400)
    >>> right, wide = (Mixture(torch.zeros(1), Normal(torch.zeros(1), scale)) for scale in (1.0, 2.0))
    >>> compare({"wide": wide, "right": right}, None, y).table["rank"].to_dict()
    {'right': 1, 'wide': 2}
    """
    if not isinstance(models, Mapping) or len(models) < 2:
        got = f"models={type(models).__name__} of {len(models)}" if hasattr(models, "__len__") else f"{models!r}"
        raise MixturaError("E-parameter", got, "two forecasts or more, by name", "give a dict of them")
    if score not in get_args(Score):
        got, expected = f"score={score!r}", ", ".join(map(repr, get_args(Score)))
        raise MixturaError("E-parameter", got, expected, "choose one of them")
    losses = _losses(models, X, y, score)
    n = len(next(iter(losses.values())))
    if n < 2:
        raise MixturaError("E-too-few-rows", f"{n} rows", "at least 2", "gather more data")
    means = {name: float(np.mean(loss)) for name, loss in losses.items()}
    order = sorted(means, key=lambda name: (math.isnan(means[name]), means[name]))
    rows = []
    for rank, name in enumerate(order, 1):
        with np.errstate(invalid="ignore"):  # infinities
            gap = losses[name] - losses[order[0]]
        tested = (0.0, *[math.nan] * 4) if rank == 1 else _test(gap, time_ordered)
        rows.append((means[name], rank, *tested))
    columns = ["score", "rank", "difference", "standard_error", "lower", "upper", "p_value"]
    table = pd.DataFrame(rows, index=pd.Index(order, name="model"), columns=columns)
    return Comparison(table, score, n, time_ordered)


def _losses(models: Mapping[str, Any], X: Any, y: Any, score: Score) -> dict[str, NDArray[np.float64]]:
    """One loss for each row, by model."""
    columns = {"squared_error": "squared_error_mean", "absolute_error": "absolute_error_median"}
    losses, measures = {}, {}
    for name, forecast in models.items():
        if isinstance(forecast, Evaluation):
            column = columns.get(score, score)
            if column not in forecast.by_row:
                got, fix = f"{score} of {name!r}", "choose one of its columns by_row"
                raise MixturaError("E-parameter", got, "a score that was evaluated", fix)
            losses[name], measures[name] = forecast.by_row[column].to_numpy(), forecast.measure
            continue
        density, target = predicted(forecast, X, y)
        generator = torch.Generator().manual_seed(0)  # the same draws for all
        losses[name], measures[name] = losses_of(density, target, score, generator), measure_of(density)
    lengths = {len(loss) for loss in losses.values()}
    if len(lengths) > 1:
        got = f"evaluations of {', '.join(map(str, sorted(lengths)))} rows"
        raise MixturaError("E-input-length", got, "the same rows for all", "evaluate all on the same rows")
    if score == "nll" and len(set(measures.values())) > 1:
        told = "; ".join(f"{name}: {measure}" for name, measure in measures.items())
        fix = 'take score="crps", which compares with anything, or give all models the same atoms'
        raise MixturaError("E-atoms-differ", f"NLLs of different kinds ({told})", "densities or masses alike", fix)
    return losses


def _test(gap: NDArray[np.float64], time_ordered: bool) -> tuple[float, float, float, float, float]:
    """Mean of the differences, its standard error, the ends of its interval, and the p-value of no difference."""
    n, (mean, error) = len(gap), mean_and_error(gap)
    if time_ordered and np.isfinite(gap).all():
        n_lags, variance = long_run_variance(gap)
        # Harvey, Leybourne and Newbold's factor for forecasts h = n_lags + 1 steps ahead.
        h = n_lags + 1
        error = math.sqrt(variance / n / ((n + 1 - 2 * h + h * (h - 1) / n) / n))
    half = float(stats.t.ppf(0.5 + _CONFIDENCE / 2, n - 1)) * error
    if error > 0:
        p_value = 2 * float(stats.t.sf(abs(mean) / error, n - 1))
    else:
        p_value = 1.0 if mean == 0 else math.nan if math.isnan(error) else 0.0
    return mean, error, mean - half, mean + half, p_value


def long_run_variance(series: NDArray[np.float64]) -> tuple[int, float]:
    """How many lags Andrews' rule takes, and Newey and West's estimate of sum_k Cov(d_t, d_(t+k)) from them.

    Parameters
    ----------
    series
        Shape (n,), in the order of time.
    """
    n, centred = len(series), series - series.mean()
    covariance = centred @ centred / n
    if covariance == 0:
        return 0, 0.0
    correlation = float(np.clip(centred[1:] @ centred[:-1] / (n * covariance), -0.97, 0.97))
    alpha = 4 * correlation**2 / (1 - correlation**2) ** 2
    n_lags = min(math.floor(1.1447 * (alpha * n) ** (1 / 3)), (n - 1) // 3)
    total = covariance
    for lag in range(1, n_lags + 1):
        total += 2 * (1 - lag / (n_lags + 1)) * (centred[lag:] @ centred[:-lag]) / n
    return n_lags, float(total)
