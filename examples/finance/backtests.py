"""Were the forecasts right? Tests of value at risk, of expected shortfall, and of one forecaster beside another."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy
from scipy.stats import chi2, norm

from mixtura import Mixture

Array = NDArray[np.float64]
RISK_LEVELS = (0.01, 0.05)
_NODES, _WEIGHTS = (array / 2 for array in np.polynomial.legendre.leggauss(16))


def record(log_score: Array, quantiles: Callable[[Array], Array]) -> pd.DataFrame:
    """What is kept of forecasts: log scores, medians, and at each risk level the value at risk and expected shortfall.

    The shortfall at level a is the mean of the quantiles below it, the integral of q(a u) over u from 0 to 1, by Gauss
    and Legendre's rule in the fourth root of u, in which heavy tails are smooth. `quantiles` goes from levels, shape
    (q,), to the quantiles of each of the n forecasts, shape (n, q).
    """
    root = _NODES + 0.5
    columns = {"log_score": log_score, "median": quantiles(np.array([0.5]))[:, 0]}
    for level in RISK_LEVELS:
        below = quantiles(np.append(level * root**4, level))
        columns[f"var_{level:.0%}"] = below[:, -1]
        columns[f"es_{level:.0%}"] = below[:, :-1] @ (_WEIGHTS * 4 * root**3)
    return pd.DataFrame(columns)


def judge(mixture: Mixture, y: pd.Series) -> pd.DataFrame:
    """The record of forecasts that are mixtures."""
    log_score = mixture.log_prob(torch.tensor(y.to_numpy())).numpy()
    return record(log_score, lambda levels: mixture.icdf(levels[:, None]).mT.numpy()).set_index(y.index)


def kupiec(breach: ArrayLike, level: float) -> float:
    """p-value of the hypothesis that breaches have the probability `level`, by a likelihood ratio (Kupiec 1995)."""
    return float(chi2.sf(_coverage_ratio(np.asarray(breach, bool), level), 1))


def christoffersen(breach: ArrayLike, level: float) -> tuple[float, float]:
    """p-values: a breach today says nothing of tomorrow; this, and the probability is `level` (Christoffersen 1998)."""
    breach = np.asarray(breach, bool)
    before, after = breach[:-1], breach[1:]
    counts = np.array([[np.sum((before == i) & (after == j)) for j in (0, 1)] for i in (0, 1)], float)
    after_each = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    after_any = counts.sum(0) / counts.sum()
    independence = 2 * (xlogy(counts, after_each) - xlogy(counts, after_any)).sum()
    both = independence + _coverage_ratio(breach, level)
    return float(chi2.sf(independence, 1)), float(chi2.sf(both, 2))


def _coverage_ratio(breach: NDArray[np.bool_], level: float) -> float:
    n, hits = len(breach), breach.sum()
    seen = xlogy(hits, hits / n) + xlogy(n - hits, 1 - hits / n)
    return 2 * (seen - hits * np.log(level) - (n - hits) * np.log1p(-level))


def shortfall_test(y: Array, var: Array, shortfall: Array, median: Array, n_draws: int = 5_000) -> float:
    """p-value that losses beyond the value at risk are no worse, on average, than the expected shortfall (bootstrap).

    How much worse is measured in units of the predicted distance from median to shortfall, so that a calm day counts
    as a wild one does (McNeil and Frey 2000). All arrays have shape (n,).
    """
    excess = ((shortfall - y) / (median - shortfall))[y < var]
    if len(excess) < 2:
        return float("nan")
    draws = np.random.default_rng(0).choice(excess - excess.mean(), (n_draws, len(excess)))
    return float((_t_value(draws) >= _t_value(excess)).mean())


def _t_value(values: Array) -> Array:
    return values.mean(-1) / np.maximum(values.std(-1, ddof=1), 1e-12) * np.sqrt(values.shape[-1])


def diebold_mariano(score: Array, other: Array, n_lags: int | None = None) -> tuple[float, float]:
    """Mean gain of one row of scores over another, in order of time, and its two-sided p-value (Diebold, Mariano 1995).

    The variance is that of Newey and West, with 4 (n / 100)^(2/9) lags (1994) unless told otherwise.
    """
    gain = score - other
    n = len(gain)
    n_lags = int(4 * (n / 100) ** (2 / 9)) if n_lags is None else n_lags
    centred = gain - gain.mean()
    lagged = [centred[lag:] @ centred[: n - lag] / n for lag in range(n_lags + 1)]
    variance = lagged[0] + 2 * sum((1 - lag / (n_lags + 1)) * lagged[lag] for lag in range(1, n_lags + 1))
    return float(gain.mean()), float(2 * norm.sf(abs(gain.mean()) / np.sqrt(variance / n)))
