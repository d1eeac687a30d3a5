# Peers are imported where they are used.
# ruff: noqa: PLC0415
# pyright: reportMissingImports=false
"""Forecasts before and after calibration, coverage of conformal sets over 200 resplits, and their sizes beside peers.

python benchmarks/conformal.py [--sets NAME ...] [--output conformal.md]

One model for each data set (preset "fast", at most 3,000 rows) and one set of predicted densities for its other rows
(at most 4,000), half of which calibrate and half of which judge. The coverage is that of 200 ways to halve them: that
of one of them follows a beta-binomial law (n rows to calibrate, m to judge), whatever the model, if the method keeps
its promise; the mean of 200 has their standard error, of which 2.576 are given. Sizes, in standard deviations of y, and
the worst group are of ten of these ways; the groups are tenths of the rows by the mean that gradient boosting predicts.
The peers, MAPIE and crepes, have scikit-learn's histogram gradient boosting, fitted on the same rows. The data are
found through MIXTURA_DATA, or in ../shared/data.
"""

import argparse
import logging
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accuracy import circumstances, data_file, flights, read
from scipy.stats import betabinom
from sklearn.ensemble import HistGradientBoostingRegressor

from mixtura import MDNRegressor, Mixture, crps
from mixtura.conformal import (
    Partition,
    conformal_quantile,
    density_level_scores,
    density_level_set,
    density_scores,
    density_set,
    interval_scores,
    interval_set,
    profiles_of,
    split_for_partition,
)

COVERAGE, N_RESPLITS, N_FOR_SIZES = 0.9, 200, 10
MOST_TRAINING, MOST_OTHERS = 3_000, 4_000


def uci(name: str) -> tuple[pd.DataFrame, str]:
    """All rows of a set of Hernandez-Lobato and Adams (2015)."""
    with np.load(data_file(f"uci/{name}.npz")) as data:
        return pd.DataFrame(data["X"]).add_prefix("x").assign(target=data["y"].astype(float)), "target"


SETS: dict[str, Callable[[], tuple[pd.DataFrame, str]]] = {
    "concrete": partial(uci, "concrete"),
    "power": partial(uci, "power-plant"),
    "ames": lambda: (read("tabular_medium/ames.csv.gz"), "Sale_Price"),
    "cpssw8": lambda: (read("tabular_medium/cpssw8.csv.gz"), "earnings"),
    "flights": flights,
}
BESIDE_PEERS = ("power", "ames", "flights")


def judge(forecast: Any, y: torch.Tensor) -> dict[str, float]:
    """NLL, CRPS, distance of the PIT's distribution from the uniform one, and coverage of the central 90%."""
    levels = forecast.cdf(y).sort().values
    uniform = (torch.arange(len(y), dtype=y.dtype) + 0.5) / len(y)
    scores = crps(forecast, y) if isinstance(forecast, Mixture) else forecast.crps(y).mean()
    inside = (levels >= 0.05) & (levels <= 0.95)
    return {
        "NLL": -forecast.log_prob(y).mean().item(),
        "CRPS": scores.item(),
        "PIT error": (levels - uniform).abs().mean().item(),
        "90% coverage": inside.double().mean().item(),
    }


class Sets:
    """The three methods on densities that are predicted once: which rows are in their sets, and the sets."""

    def __init__(self, mixture: Mixture, y: torch.Tensor):
        self.mixture, self.y = mixture, y
        self.scores = {
            "hpd_split": density_level_scores(mixture, y),
            "cqr": interval_scores(mixture, y, COVERAGE),
            "cd_split": density_scores(mixture, y),
        }
        self.profiles = profiles_of(mixture, 0)

    def thresholds(self, method: str, own: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """From rows that calibrate, for others."""
        scores = self.scores[method]
        if method != "cd_split":
            return torch.full((len(others),), conformal_quantile(scores[own], COVERAGE), dtype=scores.dtype)
        first, rest = split_for_partition(len(own))
        if not len(first):
            return torch.full((len(others),), conformal_quantile(scores[own], COVERAGE), dtype=scores.dtype)
        partition = Partition.fit(self.profiles[own[first]])
        cells, asked = partition.cells(self.profiles[own[rest]]), partition.cells(self.profiles[others])
        each = [conformal_quantile(scores[own[rest]][cells == i], COVERAGE) for i in range(len(partition.centres))]
        return torch.tensor(each, dtype=scores.dtype)[asked]

    def contains(self, method: str, own: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Of the others, whether their sets hold them: their score is at most the threshold."""
        return self.scores[method][others] <= self.thresholds(method, own, others)

    def region(self, method: str, own: torch.Tensor, others: torch.Tensor) -> Any:
        """The sets of the others."""
        threshold, mixture = self.thresholds(method, own, others), self.mixture[others]
        if method == "cqr":
            return interval_set(mixture, threshold, COVERAGE)
        return (density_level_set if method == "hpd_split" else density_set)(mixture, threshold)


def halves(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that calibrate, and rows that judge."""
    order = torch.as_tensor(np.random.default_rng(seed).permutation(n))
    return order[: n // 2], order[n // 2 :]


def coverage_over_resplits(sets: Sets, name: str) -> list[dict[str, Any]]:
    """The mean of 200, what it may be, and how many of the 200 are where 95% of a beta-binomial law is."""
    rows = []
    n = len(sets.y) // 2
    m = len(sets.y) - n
    rank = int(np.ceil((n + 1) * COVERAGE - 1e-9))
    law = betabinom(m, rank, n + 1 - rank)
    low, high = law.ppf(0.025) / m, law.ppf(0.975) / m
    error = 2.576 * law.std() / m / np.sqrt(N_RESPLITS)
    for method in sets.scores:
        each = [sets.contains(method, *halves(len(sets.y), seed)).double().mean().item() for seed in range(N_RESPLITS)]
        inside = np.mean([(low <= share <= high) for share in each])
        rows.append(
            {
                "data": name,
                "method": method,
                "mean": f"{np.mean(each):.4f}",
                "expected": f"{law.mean() / m:.4f} ± {error:.4f}" if method != "cd_split" else f"≥ {COVERAGE}",
                "of 200 within 95% bounds": f"{inside:.1%} in [{low:.3f}, {high:.3f}]" if method != "cd_split" else "",
            }
        )
    return rows


def boosted(X: np.ndarray, y: np.ndarray, level: float | None) -> HistGradientBoostingRegressor:
    """A quantile by gradient boosting, or the mean."""
    loss = {"loss": "quantile", "quantile": level} if level is not None else {}
    return HistGradientBoostingRegressor(**loss, early_stopping=True, random_state=0).fit(X, y)


def peers(X: np.ndarray, y: np.ndarray) -> dict[str, Callable[[Any, Any, Any], np.ndarray]]:
    """By name, what makes intervals for rows of rows that calibrate."""
    from crepes import WrapRegressor
    from crepes.extras import (
        DifficultyEstimator,
        MondrianCategorizer,
    )
    from mapie.regression import (
        ConformalizedQuantileRegressor,
        SplitConformalRegressor,
    )

    mean = boosted(X, y, None)
    tails = [boosted(X, y, level) for level in ((1 - COVERAGE) / 2, (1 + COVERAGE) / 2, 0.5)]

    def mapie(make: Callable[[], Any], X_own: Any, y_own: Any, X: Any) -> np.ndarray:
        _, intervals = make().conformalize(X_own, y_own).predict_interval(X)
        return intervals[:, :, 0]

    def crepes(is_mondrian: bool, X_own: Any, y_own: Any, X_other: Any) -> np.ndarray:
        wrapped = WrapRegressor(mean)
        difficulty = DifficultyEstimator()
        difficulty.fit(X=X, residuals=y - mean.predict(X), scaler=True)
        bins = None
        if is_mondrian:
            bins = MondrianCategorizer()
            bins.fit(X=X_own, f=lambda rows: mean.predict(rows), no_bins=10)
        wrapped.calibrate(X_own, y_own, de=difficulty, mc=bins, cps=True, seed=0)
        return wrapped.predict_int(X_other, confidence=COVERAGE, seed=0)

    return {
        "MAPIE CQR": partial(
            mapie, lambda: ConformalizedQuantileRegressor(tails, confidence_level=COVERAGE, prefit=True)
        ),
        "MAPIE split": partial(mapie, lambda: SplitConformalRegressor(mean, confidence_level=COVERAGE, prefit=True)),
        "crepes normalised": partial(crepes, False),
        "crepes Mondrian": partial(crepes, True),
    }


def numbers(X: pd.DataFrame) -> np.ndarray:
    """A table for peers: a column for each category, and -999 where a number is missing."""
    return pd.get_dummies(X, dummy_na=True, dtype=float).fillna(-999.0).to_numpy()


def sizes(sets: Sets, name: str, X: np.ndarray, X_train: np.ndarray, y_train: np.ndarray) -> list[dict[str, Any]]:
    """Mean and median size in standard deviations of y, coverage, and that of the worst of ten groups."""
    y, unit = sets.y.numpy(), y_train.std()
    group = pd.qcut(pd.Series(boosted(X_train, y_train, None).predict(X)), 10, labels=False, duplicates="drop")
    found: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    others = peers(X_train, y_train)
    for seed in range(N_FOR_SIZES):
        own, asked = halves(len(y), seed)
        for method in sets.scores:
            region = sets.region(method, own, asked)
            inside, size = region.contains(sets.y[asked]).numpy(), region.size.numpy()
            found.setdefault(method, []).append((inside, size, asked.numpy()))
        for method, make in others.items():
            lower, upper = make(X[own], y[own], X[asked]).T
            inside = (lower <= y[asked]) & (y[asked] <= upper)
            found.setdefault(method, []).append((inside, upper - lower, asked.numpy()))
    rows = []
    for method, parts in found.items():
        inside, size, place = (np.concatenate(part) for part in zip(*parts, strict=True))
        worst = pd.Series(inside).groupby(group.to_numpy()[place]).mean().min()
        rows.append(
            {
                "data": name,
                "method": method,
                "coverage": f"{inside.mean():.3f}",
                "worst of ten groups": f"{worst:.3f}",
                "mean size": f"{size.mean() / unit:.3f}",
                "median size": f"{np.median(size) / unit:.3f}",
            }
        )
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    return "\n".join(lines + ["| " + " | ".join(map(str, row.values())) + " |" for row in rows])


def main() -> None:
    """Run it all, and write the three tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--output", type=Path, default=Path("conformal.md"))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable()  # of unsorted quantiles
    before_after, coverages, beside = [], [], []
    for name in asked.sets:
        warnings.simplefilter("ignore")  # peers change it when they are imported
        table, target = SETS[name]()
        table = table.sample(frac=1, random_state=0).reset_index(drop=True)
        n_train = min(MOST_TRAINING, len(table) // 2)
        table = table[: n_train + MOST_OTHERS]
        X, y = table.drop(columns=target), table[target].to_numpy(float)
        model = MDNRegressor(preset="fast", random_state=0).fit(X[:n_train], y[:n_train])
        n = n_train + (len(table) - n_train) // 2
        X_own, y_own, X_test, y_test = X[n_train:n], y[n_train:n], X[n:], torch.tensor(y[n:])
        forecasts = {"none": model.predict_dist(X_test)}
        for method in ("temperature", "pit", "local"):
            forecasts[method] = model.calibrate(X_own, y_own, method).predict_dist(X_test)
        for method, forecast in forecasts.items():
            scores = {key: f"{value:.4f}" for key, value in judge(forecast, y_test).items()}
            before_after.append({"data": name, "rows": f"{len(y_own)} + {len(y_test)}", "method": method, **scores})
        sets = Sets(model.predict_dist(X[n_train:]), torch.tensor(y[n_train:]))
        coverages += coverage_over_resplits(sets, name)
        if name in BESIDE_PEERS:
            encoded = numbers(X)
            beside += sizes(sets, name, encoded[n_train:], encoded[:n_train], y[:n_train])
        print(name, flush=True)
        tables = [markdown(rows) for rows in (before_after, coverages, beside) if rows]
        about = ", ".join(f"{key}: {value}" for key, value in circumstances().items())
        asked.output.write_text("\n\n".join([*tables, about]) + "\n")


if __name__ == "__main__":
    main()
