"""Is a forecast good, is it calibrated, and what is to be changed?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import kstest
from sklearn.utils import check_array
from torch import Tensor

from .blocks import rows_to_draw
from .calibrated import network_of
from .constraints import is_int
from .errors import MixturaError, coded
from .families import AnyFamily, ScalarFamily
from .mixture import Mixture
from .reference import FEWEST_ROWS, Reference, Table, shared_atoms
from .scores import censored_nll, crps, energy_score, nll, pit
from .targets import Target, as_target

Score = Literal["nll", "crps", "energy", "squared_error", "absolute_error"]
LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Of the intervals and regions that are looked at."""
_N_DRAWS = 199
"""For highest-density regions; with y itself there are 200, so that no level falls between two of them."""
_POINTS_OF_A_ROW = 128
"""Of which the energy score takes all distances; the default model has 161 components, and two points of each."""
_CALIBRATION_LEVELS = np.arange(1, 100) / 100
_N_RESAMPLES = 200
_KS_EXPECTED = math.sqrt(math.pi / 2) * math.log(2)
_CALIBRATION_ERROR_EXPECTED = math.sqrt(2 / math.pi) * math.pi / 8
"""Of n uniform numbers, times sqrt(n): the means of the greatest and of the mean distance of a Brownian bridge."""
_SURE = 2.0
"""Standard errors from which on the summary says that there is a difference."""
_SURE_OF_A_FAULT, _UNLIKELY = 3.0, 0.003
"""The same of what is wrong with the calibration, at which three figures are looked; the P-value that is as rare."""
_LEAST_BIAS, _LEAST_DISPERSION = 0.01, 0.05
"""Of the mean and of the dispersion of the PIT, below which it does not matter."""

Metric = tuple[float, float, float]
"""Value, standard error, what it is expected to be where the forecast is calibrated."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good a forecast was on some rows; see `evaluate` for each of the metrics."""

    table: pd.DataFrame
    """A row for each metric, which is the index `metric`. `value`; `standard_error`, NaN where there is none;
    `expected`: what the value is expected to be where the forecast is calibrated, NaN where that says nothing."""
    by_row: pd.DataFrame
    """A row for each that was evaluated: losses of the forecast and of the references, and where y lies in its
    forecast. `compare` takes the differences between forecasts row by row."""
    summary: str
    """The result in a few sentences."""
    measure: str
    """What the NLL is of, in words: only NLLs of the same compare."""
    faults: tuple[str, ...] = ()
    """Of its calibration, as far as they are more than chance: "low" or "high", "narrow" or "wide", or else "shape"."""

    def __getitem__(self, metric: str) -> float:
        """The value of a metric."""
        return float(self.table.loc[metric, "value"])  # pyright: ignore[reportArgumentType]

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the number of rows, the metrics (None for what is no finite number), the summary."""
        return {"n_rows": len(self.by_row), "metrics": as_json(self.table), "summary": self.summary}


def evaluate(
    forecast: Any, X: Any, y: Any, *, train: tuple[Any, Any] | None = None, random_state: int = 0
) -> Evaluation:
    """Judge predicted densities by the values that came: accuracy, skill, calibration, each with a standard error.

    Metrics of a scalar target, in the target's units but for nats and probabilities:

    - ``nll`` (nats), ``crps``;
    - ``nll_gain_unconditional``, ``nll_gain_linear``: NLL of the reference less that of the forecast, in nats;
      ``crps_skill_unconditional``, ``crps_skill_linear``: 1 - CRPS / CRPS of the reference; paired, row by row;
    - ``rmse_mean``, ``mae_mean``, ``rmse_median``, ``mae_median``;
    - ``central_coverage_50``, ``central_width_50``, ``hdr_coverage_50``, ``hdr_width_50`` and so on at 50, 80, 90 and
      95%: the share of y inside of the central interval and of the highest-density region, and their mean length;
    - ``pit_mean`` (1/2 is right), ``pit_dispersion`` (12 times the variance, 1 is right, more is a forecast that is too
      narrow), ``pit_ks`` (Kolmogorov-Smirnov distance to the uniform law), ``pit_ks_p_value``,
      ``pit_calibration_error`` (mean of |share of PIT values below u - u| over u = 0.01, 0.02, ... 0.99), and the same
      of ``hdr_pit``, the level of the highest-density region with y on its edge.

    Of a vector: ``nll``, ``energy`` in place of ``crps``, the errors of the mean as Euclidean distances, coverage of
    regions, ``hdr_pit``. Its coordinates are judged one by one by ``evaluate(mixture.marginal(dim), X, y[:, dim])``.
    Of a target known by intervals: ``nll``.

    Parameters
    ----------
    forecast
        Whatever has a ``predict_dist(X)``; or its answer, a `Mixture` with batch_shape (n,) or ().
    X
        Features, shape (n, p); None with a mixture, and there is no linear reference then.
    y
        What came, shape (n,) or (n, D). At jumps of the cdf (atoms, counts) the PIT is drawn.
    train
        (X, y) that the references learn from: the density without features (at most five components of the forecast's
        own law, with its atoms) and a line with normal noise. Without it they learn from the evaluated rows in five
        folds, each row judged by a reference that has not seen it; below 20 rows there are none.
    random_state
        Seed of what is drawn: highest-density regions from 199 draws for each row, energy scores, folds, bootstrap.

    Raises
    ------
    MixturaError
        ``E-forecast`` for what is none, ``E-input-length`` and ``E-target-shape`` where y does not fit it, others of
        `mixtura.targets.as_target`; ``E-target-type`` for intervals where the forecast is no mixture;
        ``E-atoms-differ`` where rows have other atoms; ``E-parameter``.

    References
    ----------
    Gneiting, Balabdaoui and Raftery (2007), Probabilistic forecasts, calibration and sharpness.
    Gneiting and Raftery (2007), Strictly proper scoring rules, prediction, and estimation.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from torch.distributions import Normal
    >>> x = torch.as_tensor(np.random.default_rng(0).normal(size=(500, 1)))
    >>> y = x[:, 0] + torch.as_tensor(np.random.default_rng(1).normal(size=500))
    >>> truth = Mixture(torch.zeros(500, 1), Normal(x, torch.ones_like(x)))
    >>> result = evaluate(truth, x.numpy(), y.numpy())
    >>> bool(result["nll_gain_unconditional"] > 0.25), bool(abs(result["central_coverage_90"] - 0.9) < 0.03)
    (True, True)
    """
    if not is_int(0)(random_state) or random_state >= 2**32:
        raise MixturaError("E-parameter", f"random_state={random_state!r}", "0 <= seed < 2**32", "give a seed")
    density, target = predicted(forecast, X, y)
    losses = {"nll": losses_of(density, target, "nll")}
    metrics: dict[str, Metric] = {"nll": _mean(losses["nll"])}
    if target.upper is not None:
        return _finished(metrics, losses, {}, measure_of(density))
    generator = torch.Generator().manual_seed(random_state)
    y_values = torch.tensor(target.values)
    score: Score = "crps" if y_values.ndim == 1 else "energy"
    losses[score] = losses_of(density, target, score, generator)
    metrics[score] = _mean(losses[score])
    law = getattr(network_of(forecast), "family_", getattr(density, "family", None))
    references = _references(density, law, target, X, train, score, random_state)
    for name, (reference_nll, reference_score) in references.items():
        losses |= {f"nll_{name}": reference_nll, f"{score}_{name}": reference_score}
        metrics[f"nll_gain_{name}"] = _mean(reference_nll - losses["nll"])
        metrics[f"{score}_skill_{name}"] = _skill(losses[score], reference_score)
    errors, intervals, levels = {"mean": _distance(density, y_values, density.mean)}, {}, {}
    if y_values.ndim == 1:
        ends = [0.5 + sign * level / 2 for level in LEVELS for sign in (-1, 1)]
        quantiles = density.icdf(torch.tensor([0.5, *ends], dtype=y_values.dtype)[:, None])
        errors["median"] = _distance(density, y_values, quantiles[0])
        for i, level in enumerate(LEVELS):
            intervals |= _interval_metrics(density, y_values, level, *quantiles[1 + 2 * i : 3 + 2 * i])
        levels["pit"] = _pit(density, y_values, generator)
    for name, error in errors.items():
        losses |= {f"squared_error_{name}": error**2, f"absolute_error_{name}": error}
        metrics |= {f"rmse_{name}": _root(error**2), f"mae_{name}": _mean(error)}
    regions, levels["hdr_pit"] = _regions(density, y_values, generator)
    metrics |= intervals | regions
    random = np.random.RandomState(random_state)
    for name, values in levels.items():
        metrics |= _uniformity(name, values, random)
    return _finished(metrics, losses | levels, levels, measure_of(density))


# Forecasts and what came ---------------------------------------------------------------------------------------


def predicted(forecast: Any, X: Any, y: Any) -> tuple[Any, Target]:
    """The predicted distributions, batch_shape (n,), and the n values that came."""
    target = as_target(y)
    if hasattr(forecast, "predict_dist"):
        if X is None:
            got, fix = "X=None", "give the features, or the mixture that predict_dist answered"
            raise MixturaError("E-forecast", got, "features to predict from", fix)
        names = getattr(forecast, "target_names_", None)
        if target.names and names and len(names) > 1 and target.names != names:
            fix = "give the columns of the target in the order of fit"
            raise MixturaError("E-target-shape", f"columns {target.names}", f"{names}", fix)
        density = forecast.predict_dist(X)
    else:
        density = forecast
    asked = ["log_prob", "sample", "mean", "batch_shape"]
    if not isinstance(density, Mixture) and not getattr(density, "event_shape", ()):
        asked += ["cdf", "icdf", "crps"]
    if not all(hasattr(density, name) for name in asked):
        got, expected = f"a {type(forecast).__name__}", "a model with predict_dist, or a Mixture"
        raise MixturaError("E-forecast", got, expected, "fit an MDNRegressor, or predict densities first")
    if isinstance(density, Mixture):
        density = density.detach().to(torch.float64)
        if not density.batch_shape:
            density = density.expand((len(target),))
    if tuple(density.batch_shape) != (len(target),):
        got, fix = f"{len(target)} rows of y", "give the y of the rows that were predicted"
        expected = f"one for each of the forecasts, batch_shape {tuple(density.batch_shape)}"
        raise MixturaError("E-input-length", got, expected, fix)
    event_shape = tuple(getattr(density, "event_shape", ()))
    if target.values.shape[1:] != event_shape:
        got, expected = f"y of shape {target.values.shape}", f"shape {(len(target), *event_shape)}"
        raise MixturaError("E-target-shape", got, expected, "give the target that was forecast")
    return density, target


@torch.no_grad()
def losses_of(
    density: Any, target: Target, score: Score, generator: torch.Generator | None = None
) -> NDArray[np.float64]:
    """One loss for each row, lower is better; shape (n,).

    The squared error is that of the mean, the absolute error that of the median: what each of them rewards.

    Raises
    ------
    MixturaError
        ``E-target-type`` for intervals, of which there is only the NLL, and only of a mixture; ``E-scalar-only``,
        ``E-vector-only`` for scores of another kind of target.
    """
    y = torch.tensor(target.values)
    if target.upper is not None:
        if score != "nll" or not isinstance(density, Mixture):
            got, fix = f"{score} of intervals", "take the nll of a mixture, or known values"
            raise MixturaError("E-target-type", got, "known targets", fix)
        return censored_nll(density, y, torch.tensor(target.upper), reduction="none").numpy()
    if score == "nll":
        losses = nll(density, y, reduction="none") if isinstance(density, Mixture) else -density.log_prob(y)
    elif score == "crps":
        losses = crps(density, y, reduction="none") if isinstance(density, Mixture) else density.crps(y)
    elif score == "energy":
        # Of many components few draws of each are enough, and all that time allows.
        n_draws = max(2, _POINTS_OF_A_ROW // getattr(density, "n_components", 1))
        losses = energy_score(density, y, reduction="none", n_draws=n_draws, generator=generator)
    elif score == "squared_error":
        return _distance(density, y, density.mean) ** 2
    else:
        if y.ndim == 2:
            got, fix = "absolute_error of a vector target", "take energy, or one coordinate"
            raise MixturaError("E-scalar-only", got, "a scalar target", fix)
        return _distance(density, y, density.icdf(torch.tensor([[0.5]], dtype=y.dtype))[0])
    return losses.numpy()


def measure_of(density: Any) -> str:
    """Whether the NLL is of a density, of probabilities of counts, or of a density with masses at some values."""
    atoms, kind = shared_atoms(density), "counts" if _is_discrete(density) else "density"
    return kind if atoms is None else f"{kind} with atoms {', '.join(f'{atom:g}' for atom in atoms.tolist())}"


def _has_jumps(density: Any) -> bool:
    return getattr(density, "atoms", None) is not None or _is_discrete(density)


def _is_discrete(density: Any) -> bool:
    family = getattr(density, "family", None)
    return isinstance(family, ScalarFamily) and family.is_discrete


def _distance(density: Any, y: Tensor, point: Tensor) -> NDArray[np.float64]:
    """How far y is from a point forecast: around the circle for angles, Euclidean for vectors."""
    gap = y - point
    family = getattr(density, "family", None)
    if isinstance(family, ScalarFamily) and family.is_circular:
        low, high = family.support(getattr(density, "mixture", density).components)
        turn = (high - low)[..., 0]
        gap = (gap + turn / 2).remainder(turn) - turn / 2
    return (gap.abs() if y.ndim == 1 else torch.linalg.vector_norm(gap, dim=-1)).numpy()


# References ----------------------------------------------------------------------------------------------------


def _references(
    density: Any,
    law: AnyFamily | None,
    target: Target,
    X: Any,
    train: tuple[Any, Any] | None,
    score: Score,
    seed: int,
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """NLL and other score of each row under each reference."""
    table = None if X is None else _as_table(X)
    if table is not None and len(table) != len(target):
        got, fix = f"{len(table)} rows of X, {len(target)} of y", "give the features of the rows that were predicted"
        raise MixturaError("E-input-length", got, "as many rows in X and y", fix)
    own = Reference.of(table, target, density, law, seed)
    if train is None:
        if len(target) < FEWEST_ROWS:
            return {}
        parts: Iterator[Any] | list[Any] = own.folds()
    else:
        if not isinstance(train, tuple | list) or len(train) != 2:
            got = f"train of type {type(train).__name__}"
            raise MixturaError("E-parameter", got, "a pair (X, y)", "give train=(X_train, y_train)")
        learned = as_target(train[1])
        if learned.upper is not None or learned.values.shape[1:] != target.values.shape[1:]:
            got, fix = f"a target of shape {learned.values.shape} in train", "give that of the rows the model saw"
            raise MixturaError("E-target-shape", got, f"known values of shape (n, *{target.values.shape[1:]})", fix)
        X_train = None if table is None or train[0] is None else _as_table(train[0])
        if X_train is not None and (len(X_train), X_train.shape[1:]) != (len(learned), _shape(table)[1:]):
            got, fix = f"train of shapes {X_train.shape} and {learned.values.shape}", "give the rows the model saw"
            raise MixturaError("E-input-length", got, f"(n, {_shape(table)[1]}) and n values", fix)
        if len(learned) < FEWEST_ROWS:
            got, fix = f"{len(learned)} rows in train", "leave train out"
            raise MixturaError("E-too-few-rows", got, f"at least {FEWEST_ROWS}", fix)
        parts = [(Reference.of(X_train, learned, density, law, seed), np.arange(len(target)))]
    found: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for learner, judge in parts:
        some, rows = target.take(judge), own.take(judge)
        forecasts = {"unconditional": learner.unconditional().expand((len(judge),))}
        if learner.has_line and rows.X is not None:
            forecasts["linear"] = learner.line(rows.X)
        for name, forecast in forecasts.items():
            losses = found.setdefault(name, (np.empty(len(target)), np.empty(len(target))))
            if name == "linear" and learner.is_discrete:  # the normal law, rounded to whole numbers
                rounded = forecast.log_prob_interval(rows.y - 0.5, rows.y + 0.5)
                losses[0][judge] = -rounded.numpy()
            else:
                losses[0][judge] = losses_of(forecast, some, "nll")
            losses[1][judge] = losses_of(forecast, some, score)
    return found


def _as_table(X: Any) -> Table:
    if isinstance(X, pd.DataFrame):
        return X
    with coded("E-features", "a table of numbers and categories"):
        return check_array(X, dtype=np.float64, ensure_all_finite="allow-nan")


def _shape(table: Table | None) -> tuple[int, ...]:
    return (0, 0) if table is None else table.shape


# Calibration ---------------------------------------------------------------------------------------------------


def _interval_metrics(density: Any, y: Tensor, level: float, lower: Tensor, upper: Tensor) -> dict[str, Metric]:
    """Of the central interval. With jumps of the cdf it holds more than the level, and is expected to."""
    inside, width, held = (lower <= y) & (y <= upper), upper - lower, level
    if _has_jumps(density):
        held = (density.cdf(upper) - (1 - density.survival(lower))).mean().item()
        width = width + 1 if _is_discrete(density) else width
    name = round(100 * level)
    return {
        f"central_coverage_{name}": (*_mean(inside.double().numpy())[:2], held),
        f"central_width_{name}": _mean(width.numpy()),
    }


@torch.no_grad()
def _pit(density: Any, y: Tensor, generator: torch.Generator) -> NDArray[np.float64]:
    if isinstance(density, Mixture):
        return pit(density, y, generator).numpy()
    level = density.cdf(y)
    if _has_jumps(density):
        before = 1 - density.survival(y)
        level = before + torch.rand(y.shape, dtype=y.dtype, generator=generator) * (level - before)
    return level.numpy()


@torch.no_grad()
def _regions(density: Any, y: Tensor, generator: torch.Generator) -> tuple[dict[str, Metric], NDArray[np.float64]]:
    """Coverage and size of highest-density regions, and the level of the one with y on its edge, from draws.

    Where the forecast is right, y is one more draw: its rank in density among them all, ties broken at random, is
    uniform whatever their number. The size of a region is the mean of 1/p over the draws inside (of a scalar target;
    of counts it is how many of them).
    """
    n, k = len(y), len(LEVELS)
    level, inside, held, size = torch.empty(n), torch.empty(n, k), torch.empty(n, k), torch.empty(n, k)
    level, inside, held, size = (part.to(y.dtype) for part in (level, inside, held, size))
    step = rows_to_draw(density, _N_DRAWS) if isinstance(density, Mixture) else n
    for start in range(0, n, step):
        rows = slice(start, start + step)
        some = density[rows] if step < n else density
        draws = some.sample((_N_DRAWS,), generator)
        log_prob, here = some.log_prob(draws), some.log_prob(y[rows])
        log_length = -log_prob
        if getattr(some, "atoms", None) is not None:  # they are infinitely dense, and have no length
            is_atom, is_atom_here = ((at[..., None] == some.atoms).any(-1) for at in (draws, y[rows]))
            log_length = torch.where(is_atom, -torch.inf, log_length)
            log_prob, here = log_prob + torch.where(is_atom, 1e6, 0), here + torch.where(is_atom_here, 1e6, 0)
        u = torch.rand(here.shape, dtype=y.dtype, generator=generator)
        level[rows] = ((log_prob > here).sum(0) + u * (1 + (log_prob == here).sum(0))) / (_N_DRAWS + 1)
        ordered = log_prob.sort(0, descending=True).values
        for j, share in enumerate(LEVELS):
            edge = ordered[round(share * (_N_DRAWS + 1)) - 1]
            inside[rows, j] = (here >= edge).to(y.dtype)
            is_in = log_prob >= edge
            held[rows, j] = (is_in.sum(0) / (_N_DRAWS + 1)).to(y.dtype)
            # Those inside of an edge at one of the draws are drawn from within it; of counts all have the same edge.
            is_counted = is_in if _is_discrete(density) else log_prob > edge
            size[rows, j] = torch.where(is_counted, log_length, -torch.inf).exp().mean(0)
    metrics: dict[str, Metric] = {}
    for j, share in enumerate(LEVELS):
        name = round(100 * share)
        metrics[f"hdr_coverage_{name}"] = (*_mean(inside[:, j].numpy())[:2], held[:, j].mean().item())
        if y.ndim == 1:
            metrics[f"hdr_width_{name}"] = _mean(size[:, j].numpy())
    return metrics, level.numpy()


def _uniformity(name: str, levels: NDArray[np.float64], random: np.random.RandomState) -> dict[str, Metric]:
    """How far numbers are from a uniform law; standard errors of distances by bootstrap (Efron 1979)."""
    n = len(levels)
    ordered = np.sort(levels)

    def distances(weight: NDArray[np.float64]) -> tuple[float, float]:
        reached = np.concatenate([[0.0], weight.cumsum()])
        ks = max((reached[1:] - ordered).max(), (ordered - reached[:-1]).max())
        at = reached[np.searchsorted(ordered, _CALIBRATION_LEVELS, side="right")]
        return float(ks), float(np.abs(at - _CALIBRATION_LEVELS).mean())

    ks, error = distances(np.full(n, 1 / n))
    resampled = [
        distances(np.bincount(random.randint(n, size=n), minlength=n) / n) for _ in range(_N_RESAMPLES if n > 1 else 0)
    ]
    ks_se, error_se = np.std(resampled, axis=0, ddof=1) if resampled else (math.nan, math.nan)
    root = math.sqrt(n)
    return {
        f"{name}_mean": (*_mean(levels)[:2], 0.5),
        f"{name}_dispersion": (*_mean(12 * (levels - levels.mean()) ** 2)[:2], 1.0),
        f"{name}_ks": (ks, float(ks_se), _KS_EXPECTED / root),
        f"{name}_ks_p_value": (float(kstest(levels, "uniform").pvalue), math.nan, 0.5),
        f"{name}_calibration_error": (error, float(error_se), _CALIBRATION_ERROR_EXPECTED / root),
    }


# Means over rows -----------------------------------------------------------------------------------------------


def mean_and_error(values: NDArray[np.float64]) -> tuple[float, float]:
    """The mean, and its standard error over rows."""
    with np.errstate(invalid="ignore"):  # infinities
        error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return float(np.mean(values)), float(error)


def _mean(values: NDArray[np.float64]) -> Metric:
    return (*mean_and_error(values), math.nan)


def _root(squares: NDArray[np.float64]) -> Metric:
    """Of the mean; its standard error by the delta method."""
    mean, error = mean_and_error(squares)
    root = math.sqrt(mean)
    return root, error / (2 * root) if root > 0 else math.nan, math.nan


def _skill(losses: NDArray[np.float64], reference: NDArray[np.float64]) -> Metric:
    """1 - mean / mean of the reference; its standard error by the delta method, paired."""
    below = reference.mean()
    if not below > 0:
        return math.nan, math.nan, math.nan
    ratio = losses.mean() / below
    return float(1 - ratio), mean_and_error((losses - ratio * reference) / below)[1], math.nan


# In words ------------------------------------------------------------------------------------------------------


def _finished(
    metrics: dict[str, Metric],
    losses: dict[str, NDArray[np.float64]],
    levels: dict[str, NDArray[np.float64]],
    measure: str,
) -> Evaluation:
    table = pd.DataFrame.from_dict(metrics, orient="index", columns=["value", "standard_error", "expected"])
    table.index.name = "metric"
    n, faults = len(losses["nll"]), {}
    sentences = [_impossible(losses["nll"]), _skill_in_words(metrics)]
    if n >= FEWEST_ROWS:
        faults = _faults(metrics, n)
        sentences += [*_faults_in_words(faults, levels), _coverage_in_words(metrics)]
    elif levels:
        sentences.append(f"Whether it is calibrated can't be told from {n} rows.")
    summary = " ".join(filter(None, sentences))
    return Evaluation(table, pd.DataFrame(losses), summary, measure, tuple(faults))


def _impossible(losses: NDArray[np.float64]) -> str:
    n = int((losses == math.inf).sum())
    return f"The forecast says that {n} of {len(losses)} rows are impossible: its NLL is infinite." if n else ""


def _skill_in_words(metrics: dict[str, Metric]) -> str:
    if metrics["nll"][0] == math.inf:
        return ""
    parts = []
    for name, what in (("unconditional", "the density without features"), ("linear", "a line with normal noise")):
        if f"nll_gain_{name}" in metrics:
            gain, error, _ = metrics[f"nll_gain_{name}"]
            is_sure = abs(gain) > _SURE * error
            how = "not surely better than" if not is_sure else "better than" if gain > 0 else "worse than"
            parts.append(f"{how} {what} ({gain:+.3f} ± {error:.3f} nats a row)")
    if not parts:
        return f"The NLL is {metrics['nll'][0]:.4g} ± {metrics['nll'][1]:.2g} nats a row."
    return f"The forecast is {', and '.join(parts)}."


def _faults(metrics: dict[str, Metric], n: int) -> dict[str, str]:
    """Whether it is too narrow or too wide, too low or too high; and by which figures.

    A standard error is taken to be no less than that of n uniform numbers.
    """
    found: dict[str, str] = {}
    least_of_mean, least_of_dispersion = math.sqrt(1 / (12 * n)), math.sqrt(0.8 / n)
    if "pit_mean" in metrics:
        (mean, mean_error, _), (dispersion, dispersion_error, _) = metrics["pit_mean"], metrics["pit_dispersion"]
        if abs(mean - 0.5) > max(_LEAST_BIAS, _SURE_OF_A_FAULT * max(mean_error, least_of_mean)):
            figures = f"mean of the PIT {mean:.3f} ± {mean_error:.3f}, 0.5 is right"
            found["low" if mean > 0.5 else "high"] = figures
        if abs(dispersion - 1) > max(_LEAST_DISPERSION, _SURE_OF_A_FAULT * max(dispersion_error, least_of_dispersion)):
            figures = f"dispersion of the PIT {dispersion:.2f} ± {dispersion_error:.2f}, 1 is right"
            found["narrow" if dispersion > 1 else "wide"] = figures
        if not found and not metrics["pit_ks_p_value"][0] >= _UNLIKELY:
            found["shape"] = f"KS distance of the PIT {metrics['pit_ks'][0]:.3f}"
    elif "hdr_pit_mean" in metrics:
        middle, error, _ = metrics["hdr_pit_mean"]
        if not abs(middle - 0.5) <= max(_LEAST_BIAS, _SURE_OF_A_FAULT * max(error, least_of_mean)):
            figures = f"mean level of the regions with y on their edge {middle:.3f} ± {error:.3f}"
            found["narrow" if middle > 0.5 else "wide"] = figures
    return found


def _faults_in_words(faults: dict[str, str], levels: dict[str, NDArray[np.float64]]) -> Sequence[str]:
    if not faults and levels:
        return [
            "No miscalibration is seen in the PIT." if "pit" in levels else "It is neither too narrow nor too wide."
        ]
    return [
        f"{'Its shape is not quite right' if fault == 'shape' else f'It is too {fault}'} ({figures})."
        for fault, figures in faults.items()
    ]


def _coverage_in_words(metrics: dict[str, Metric]) -> str:
    parts = []
    for kind, what in (("central", "central 90% intervals"), ("hdr", "90% highest-density regions")):
        if f"{kind}_coverage_90" in metrics:
            share, error, expected = metrics[f"{kind}_coverage_90"]
            parts.append(f"the {what} hold {share:.1%} ± {error:.1%} of y ({expected:.1%} is right)")
    text = ", ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def as_json(table: pd.DataFrame) -> dict[str, dict[str, float | int | None]]:
    """By row and column, with None for what is no finite number."""

    def plain(value: float | int) -> float | int | None:
        return (value if isinstance(value, int) else float(value)) if math.isfinite(value) else None

    rows = table.to_dict(orient="index")
    return {str(name): {str(column): plain(value) for column, value in row.items()} for name, row in rows.items()}
