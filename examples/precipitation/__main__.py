"""Rain or no rain, and how much: densities with a mass at zero, beside what forecasters use.

python -m examples.precipitation [seattle | innsbruck | innsbruck_18h | australia] [--output DIR]

Seattle's days come with the example; the other sets are looked for in MIXTURA_DATA, or in ../shared/data.
Everything is learned on the scale of sqrt(mm). A method with several settings takes the one with the best CRPS on the
last years of its training rows, and then learns from all of them; the test years are asked once.
"""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import integrate, stats
from torch.distributions import Normal

import mixtura
from mixtura import MDNRegressor, Mixture

from .peers import GRID, STEP, Array, Method, boosting, catboost, climatology, emos, forest, raw_ensemble

SMALL: dict[str, Any] = {"preset": "plain", "family": "lognormal", "n_components": 2, "hidden_layer_sizes": (16,)}
SMALL |= {"n_restarts": 2, "pool_restarts": True, "max_epochs": 30}
HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
THRESHOLDS = (0, 1, 10)
"""Of the events that are looked at: more rain than that, mm."""

# Data -----------------------------------------------------------------------------------------------------------------


class Split(NamedTuple):
    """Days to learn from, in their order, and later ones to be judged on; `is_late` marks those that choose."""

    X: pd.DataFrame
    y: Array
    is_late: NDArray[np.bool_]
    X_test: pd.DataFrame
    y_test: Array
    reading: float
    """What the gauge is read to, mm."""


def read(path: str, date: str) -> pd.DataFrame:
    """A table of the data, its column of dates by that name."""
    folder = Path(os.environ.get("MIXTURA_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / path).exists():
        raise SystemExit(f"{folder / path} is missing: set MIXTURA_DATA to the folder that holds {path}")
    return pd.read_csv(folder / path, parse_dates=[date]).rename(columns={date: "date"})


def split(
    X: pd.DataFrame, rain: pd.Series, date: pd.Series, late: int, test: int, reading: float, most: int | None = None
) -> Split:
    """The years before `test` to learn from, of which those from `late` on choose; a week between is left out."""
    angle = 2 * np.pi * date.dt.day_of_year / 365.25
    X = X.assign(month=date.dt.month, season_sin=np.sin(angle), season_cos=np.cos(angle))
    year, y = date.dt.year.to_numpy(), np.sqrt(rain.to_numpy(float))
    soon = (date + pd.Timedelta(days=7)).dt.year.to_numpy()
    is_week_before = (soon > year) & np.isin(soon, (late, test))
    rows = [np.flatnonzero((year < test) & ~is_week_before), np.flatnonzero(year >= test)]
    if most is not None:  # as many for every method
        rng = np.random.default_rng(0)
        rows = [np.sort(rng.permutation(part)[:size]) for part, size in zip(rows, (most, most // 4), strict=True)]
    train, later = rows
    return Split(X.iloc[train], y[train], year[train] >= late, X.iloc[later], y[later], reading)


def innsbruck(file: str = "rainibk_5to8day", date: str = "date", late: int = 2007, n_older: int = 2) -> Split:
    """Rain of three days, from an ensemble forecast made five days before: 11 exchangeable members, hence sorted."""
    table = read(f"weather_innsbruck_ensemble/{file}.csv.gz", date)
    members = np.sort(np.sqrt(table.filter(like="rainfc").to_numpy()), 1)
    X = pd.DataFrame(members).add_prefix("member_").assign(mean=members.mean(1), sd=members.std(1, ddof=1))
    X["log_sd"], X["share_dry"] = np.log(X["sd"] + 1e-3), (members < 0.1**0.5).mean(1)
    for days in range(1, n_older + 1):  # of older runs, whose three days overlap with these
        older = X["mean"].set_axis(table["date"] + pd.Timedelta(days=days))
        X[f"mean_{days}"] = older.reindex(table["date"]).to_numpy()
    return split(X, table["rain"], table["date"], late, late + 2, 0.1)


def innsbruck_18h() -> Split:
    """Rain of twelve hours, from an ensemble forecast made 18 hours before."""
    return innsbruck("rain_18to30h", "valid_time", 2009, n_older=0)


def australia() -> Split:
    """Tomorrow's rain at 49 stations, from today's weather."""
    table = read("weather_australia_daily/weatherAUS.csv.gz", "Date").dropna(subset="RISK_MM")
    table = table.sort_values("date", kind="stable", ignore_index=True)
    X = table.drop(columns=["date", "RISK_MM", "RainTomorrow"]).assign(Rainfall=np.sqrt(table["Rainfall"]))
    return split(X, table["RISK_MM"], table["date"], 2013, 2015, 0.2, most=12_000)


def seattle() -> Split:
    """Tomorrow's rain in Seattle, from today's weather (NOAA, public domain; by way of vega_datasets, MIT)."""
    table = pd.read_csv(HERE / "seattle.csv.gz", parse_dates=["date"])
    X = table.drop(columns="date").assign(precipitation=np.sqrt(table["precipitation"]))
    return split(X[:-1], table["precipitation"].shift(-1)[:-1], table["date"][:-1], 2014, 2015, 0.25)


# Methods --------------------------------------------------------------------------------------------------------------


def mdn(X: pd.DataFrame, y: Array, X_new: pd.DataFrame, **settings: Any) -> Array:
    """A mixture with an atom at zero; of all columns but the month, which season_sin and season_cos tell."""
    X, X_new = X.drop(columns="month"), X_new.drop(columns="month")
    model = MDNRegressor(atoms=[0.0], random_state=0, **settings).fit(X, y)
    return model.predict_dist(X_new).cdf(GRID[:, None]).numpy().T


def censored_mdn(X: pd.DataFrame, y: Array, X_new: pd.DataFrame, columns: list[str], **settings: Any) -> Array:
    """Logistic laws censored at zero: of a dry day it learns that y <= 0. Linear networks of two components, and small
    ones of one, are pooled. Each stops by other years: single days would overlap with days that are learned from."""
    bounds, mixtures = pd.arrays.IntervalArray.from_arrays(np.where(y == 0, -np.inf, y), y, closed="both"), []
    for n_components, layers in ((2, ()), (1, (16,))):
        settings |= {"preset": "plain", "family": "logistic", "hidden_layer_sizes": layers}
        for seed, held_out in enumerate(np.array_split(np.arange(len(X)), 4)):
            rest = np.delete(np.arange(len(X)), held_out)
            model = MDNRegressor(n_components, random_state=seed, **settings)
            model.fit(X[columns].iloc[rest], bounds[rest], eval_set=(X[columns].iloc[held_out], bounds[held_out]))
            mixtures.append(model.predict_dist(X_new[columns]))
    return mixtura.pool(mixtures).cdf(GRID[:, None]).numpy().T


def methods(name: str) -> dict[str, list[Method]]:
    """What is compared on a set, each with the settings that it may choose from."""
    groups = ["Location", "month"] if name == "australia" else ["month"]
    found: dict[str, list[Method]] = {"raw ensemble": [raw_ensemble]} if name.startswith("innsbruck") else {}
    found["climatology"] = [partial(climatology, groups=groups, width=width) for width in (0.15, 0.3)]
    if name.startswith("innsbruck"):
        few = ["mean", "log_sd", "share_dry", "season_sin", "season_cos"]
        few += ["mean_1", "mean_2"] if name == "innsbruck" else []
        own: Method = partial(censored_mdn, columns=few)
        found["EMOS, mean and log sd"] = [partial(emos, of_loc=["mean"], of_scale=["log_sd"])]
        found["EMOS, more columns"] = [partial(emos, of_loc=few, of_scale=few)]
    else:
        own = partial(mdn, **SMALL) if name == "seattle" else partial(mdn, preset="fast")
        found["EMOS, all columns"] = [emos]
    found["quantile forest"] = [partial(forest, min_samples_leaf=leaf) for leaf in (5, 20, 60)]
    if catboost is not None:
        found["CatBoost"] = [partial(boosting, is_log=is_log) for is_log in (True, False)]
    return found | {"Mixtura": [own]}


def chosen(candidates: list[Method], data: Split) -> int:
    """The candidate with the best CRPS on the last years of the training rows."""
    if len(candidates) == 1:
        return 0
    early, late = ~data.is_late, data.is_late
    forecasts = (fit(data.X[early], data.y[early], data.X[late]) for fit in candidates)
    return int(np.argmin([crps(forecast, data.y[late]).mean() for forecast in forecasts]))


# Judges ---------------------------------------------------------------------------------------------------------------


def at(values: Array, y: Array | float) -> Array:
    """Of each row, tabulated on GRID, the value at its y."""
    place, rows = np.broadcast_to(y, len(values)) / STEP, np.arange(len(values))
    cell = place.astype(int).clip(0, len(GRID) - 2)
    return values[rows, cell] + (place - cell) * (values[rows, cell + 1] - values[rows, cell])


def crps(forecast: Array, y: Array, is_mm: bool = False) -> Array:
    """Of each day, on the scale of sqrt(mm), or of mm: the integral of F^2 up to y and of (1 - F)^2 from there on."""
    measure = 2 * GRID if is_mm else 1
    below = integrate.cumulative_trapezoid(forecast**2 * measure, dx=STEP, initial=0)
    above = integrate.cumulative_trapezoid((1 - forecast) ** 2 * measure, dx=STEP, initial=0)
    return at(below, y) + above[:, -1] - at(above, y)


def nll_of_reading(forecast: Array, y: Array, reading: float) -> Array:
    """Of each day, in nats: of the probability that the gauge reads as it did. No spike at a reading gains by it."""
    below = np.where(y == 0, 0, at(forecast, np.sqrt(np.maximum(y**2 - reading / 2, 0))))
    with np.errstate(divide="ignore"):
        return -np.log(at(forecast, np.sqrt(y**2 + reading / 2)) - below)


def in_cells(forecast: Array, y: Array) -> tuple[Mixture, torch.Tensor]:
    """A forecast as Mixtura knows it, its mass in the middle of each cell of GRID, and so the values that came."""
    middles = torch.as_tensor(np.append(0, GRID[1:] - STEP / 2))
    logits = torch.as_tensor(np.diff(forecast, axis=1, prepend=0).clip(0)).log()
    none = torch.zeros(len(y), 1, dtype=logits.dtype)
    law = Mixture(torch.cat([none.log(), logits], 1), Normal(none, none + 1), atoms=middles)
    return law, middles[np.ceil(y / STEP - 1e-9).astype(int)]


def table_of(forecasts: dict[str, Array], y: Array, reading: float) -> pd.DataFrame:
    """A row for each method. `+-` is a standard error of the paired difference in CRPS to Mixtura, from 40 runs of
    consecutive days, since neighbours resemble each other."""
    rows, own, usual = {}, crps(forecasts["Mixtura"], y), forecasts["climatology"]
    for name, forecast in forecasts.items():
        losses, (law, cell) = crps(forecast, y), in_cells(forecast, y)
        row = {"CRPS": losses.mean(), "+-": stats.sem([part.mean() for part in np.array_split(losses - own, 40)])}
        row["CRPS mm"] = crps(forecast, y, is_mm=True).mean()
        row["NLL"] = (mixtura.nll(law, cell, reduction="none").numpy() + (y > 0) * np.log(STEP)).mean()
        row["NLL of reading"] = nll_of_reading(forecast, y, reading).mean()
        for mm in THRESHOLDS:
            brier, reference = (np.square(1 - at(f, mm**0.5) - (y > mm**0.5)).mean() for f in (forecast, usual))
            row[f"BSS >{mm}"] = 1 - brier / reference
        levels, interval = mixtura.pit(law, cell).numpy(), law.central_interval(0.8)
        row |= {"PIT distance": stats.kstest(levels, "uniform").statistic, "80% width": interval.size.mean().item()}
        rows[name] = row | {"80% cover": np.mean(np.abs(levels - 0.5) < 0.4)}
    return pd.DataFrame(rows).T


def draw(forecast: Array, y: Array, path: Path) -> None:
    """Reliability of more than 0, 1 and 10 mm, the PIT, sharpness, and a fan over forty days."""
    figure, axes = plt.subplots(2, 3, figsize=(13, 8), layout="constrained")
    law, cell = in_cells(forecast, y)
    for mm, ax in zip(THRESHOLDS, axes[0], strict=True):
        above = STEP * np.ceil(mm**0.5 / STEP) + STEP / 4  # of 10 mm, whole cells are above 10.24
        mixtura.plots.plot_reliability(law, cell, threshold=above, ax=ax)
        ax.set_xlabel(f"forecast P(rain > {mm} mm)")
    rain = pd.Series(cell.numpy(), name="sqrt(rain)")
    mixtura.plots.plot_pit(law, rain, ax=axes[1, 0])
    mixtura.plots.plot_sharpness(law, rain, coverage=0.8, ax=axes[1, 1])
    mixtura.plots.plot_fan(law[:40], rain[:40], ax=axes[1, 2])
    figure.savefig(path, dpi=60)
    plt.close(figure)


def main() -> None:
    """Compare, print the table, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sets = {one.__name__: one for one in (seattle, innsbruck, innsbruck_18h, australia)}
    parser.add_argument("name", nargs="?", choices=sets, default="seattle")
    parser.add_argument("--output", type=Path, default=HERE)
    arguments = parser.parse_args()
    data, forecasts = sets[arguments.name](), {}
    print(f"{len(data.y)} days to learn from, {len(data.y_test)} to be judged on", flush=True)
    for method, candidates in methods(arguments.name).items():
        best = chosen(candidates, data)
        forecasts[method] = candidates[best](data.X, data.y, data.X_test)
        print(f"{method}: setting {best + 1} of {len(candidates)}", flush=True)
    if "EMOS, more columns" in forecasts:
        forecasts["Mixtura and EMOS, pooled"] = (forecasts["Mixtura"] + forecasts["EMOS, more columns"]) / 2
    arguments.output.mkdir(parents=True, exist_ok=True)
    print(table_of(forecasts, data.y_test, data.reading).round(3).to_string())
    draw(forecasts["Mixtura"], data.y_test, arguments.output / f"{arguments.name}.png")


if __name__ == "__main__":
    main()
