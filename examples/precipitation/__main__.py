"""Rain or no rain, and how much: densities with a mass at zero, beside what forecasters use.

python -m examples.precipitation [seattle | innsbruck | australia] [--output DIR]

Seattle's days come with the example; the other two sets are looked for in MIXTURA_DATA, or in ../shared/data.
Everything is learned on the scale of sqrt(mm). A method with several settings takes the one with the best CRPS on the
last years of its training rows, and then learns from all of them; the test years are asked once.
"""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import integrate, stats

from mixtura import MDNRegressor

from .peers import GRID, STEP, Array, Method, boosting, catboost, climatology, emos, forest, raw_ensemble

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
# Data -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Days to learn from, in their order, and later ones to be judged on; `is_late` marks those that choose."""

    X: pd.DataFrame
    y: Array
    is_late: NDArray[np.bool_]
    X_test: pd.DataFrame
    y_test: Array
    reading: float
    """What the gauge is read to, mm."""


def data_file(path: str) -> Path:
    """Where a file of the data is."""
    folder = Path(os.environ.get("MIXTURA_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / path).exists():
        raise SystemExit(f"{folder / path} is missing: set MIXTURA_DATA to the folder that holds {path}")
    return folder / path


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


def innsbruck() -> Split:
    """Rain of three days, from an ensemble forecast made five days before: 11 exchangeable members, hence sorted."""
    table = pd.read_csv(data_file("weather_innsbruck_ensemble/rainibk_5to8day.csv.gz"), parse_dates=["date"])
    members = np.sort(np.sqrt(table.filter(like="rainfc").to_numpy()), 1)
    X = pd.DataFrame(members).add_prefix("member_").assign(mean=members.mean(1), sd=members.std(1, ddof=1))
    X["log_sd"] = np.log(X["sd"] + 1e-3)
    for days in (1, 2):  # older runs whose three days overlap with these
        older = X["mean"].set_axis(table["date"] + pd.Timedelta(days=days))
        X[f"mean_{days}"] = older.reindex(table["date"]).to_numpy()
    return split(X, table["rain"], table["date"], 2007, 2009, 0.1)


def australia() -> Split:
    """Tomorrow's rain at 49 stations, from today's weather."""
    table = pd.read_csv(data_file("weather_australia_daily/weatherAUS.csv.gz"), parse_dates=["Date"])
    table = table.dropna(subset="RISK_MM").sort_values("Date", kind="stable", ignore_index=True)
    X = table.drop(columns=["Date", "RISK_MM", "RainTomorrow"]).assign(Rainfall=np.sqrt(table["Rainfall"]))
    return split(X, table["RISK_MM"], table["Date"], 2013, 2015, 0.2, most=12_000)


def seattle() -> Split:
    """Tomorrow's rain in Seattle, from today's weather (NOAA, public domain; by way of vega_datasets, MIT)."""
    table = pd.read_csv(HERE / "seattle.csv.gz", parse_dates=["date"])
    X = table.drop(columns="date").assign(precipitation=np.sqrt(table["precipitation"]))
    return split(X[:-1], table["precipitation"].shift(-1)[:-1], table["date"][:-1], 2014, 2015, 0.25)


# Methods --------------------------------------------------------------------------------------------------------------


def mdn(columns: list[str] | None = None, **settings: Any) -> Method:
    """A mixture with an atom at zero; of the columns named, or of all but the month, which season_sin and _cos tell."""

    def fit(X: pd.DataFrame, y: Array) -> Callable[[pd.DataFrame], Array]:
        names = columns or list(X.columns.drop("month"))
        model = MDNRegressor(atoms=[0.0], random_state=0, **settings).fit(X[names], y)
        return lambda table: model.predict_dist(table[names]).cdf(GRID[:, None]).numpy().T

    return fit


SMALL: dict[str, Any] = {"preset": "plain", "n_components": 2, "hidden_layer_sizes": (16,), "pool_restarts": True}


def methods(name: str) -> dict[str, list[Method]]:
    """What is compared on a set, each with the settings that it may choose from."""
    is_ensemble, is_example = name == "innsbruck", name == "seattle"
    groups = ["Location", "month"] if name == "australia" else ["month"]
    few = ["mean", "log_sd", "mean_1", "mean_2", "season_sin", "season_cos"]
    found: dict[str, list[Method]] = {"raw ensemble": [raw_ensemble]} if is_ensemble else {}
    found["climatology"] = [climatology(groups, width) for width in (0.15, 0.3)]
    if is_ensemble:
        found["EMOS, mean and log sd"] = [emos(["mean"], ["log_sd"])]
        found["EMOS, more columns"] = [emos(few, few)]
    else:
        found["EMOS, all columns"] = [emos()]
    found["quantile forest"] = [forest(leaf, 0.2) for leaf in (5, 20, 60)]
    if catboost is not None:
        found["CatBoost"] = [boosting(True), boosting(False)]
    if is_example:
        found["Mixtura"] = [mdn(family="lognormal", n_restarts=2, max_epochs=30, **SMALL)]
    elif is_ensemble:
        found["Mixtura"] = [mdn(few, family="normal", n_restarts=4, **SMALL), mdn(family="normal", preset="fast")]
    else:
        found["Mixtura"] = [mdn(preset="fast")]
    return found


def chosen(candidates: list[Method], data: Split) -> int:
    """The candidate with the best CRPS on the last years of the training rows."""
    if len(candidates) == 1:
        return 0
    early, late = ~data.is_late, data.is_late
    forecasts = (fit(data.X[early], data.y[early])(data.X[late]) for fit in candidates)
    losses = [float(crps(forecast, data.y[late]).mean()) for forecast in forecasts]
    print("   on the last training years:", " ".join(f"{loss:.4f}" for loss in losses), flush=True)
    return int(np.argmin(losses))


# Judges ---------------------------------------------------------------------------------------------------------------


def at(values: Array, y: Array | float) -> Array:
    """Of each row, tabulated on GRID, the value at its y."""
    place = np.broadcast_to(np.asarray(y, float), len(values)) / STEP
    cell = place.astype(int).clip(0, len(GRID) - 2)
    rows = np.arange(len(values))
    return values[rows, cell] + (place - cell) * (values[rows, cell + 1] - values[rows, cell])


def crps(forecast: Array, y: Array, is_mm: bool = False) -> Array:
    """Of each day, on the scale of sqrt(mm), or of mm: the integral of F^2 up to y and of (1 - F)^2 from there on."""
    measure = 2 * GRID if is_mm else 1
    below = integrate.cumulative_trapezoid(forecast**2 * measure, dx=STEP, initial=0)
    above = integrate.cumulative_trapezoid((1 - forecast) ** 2 * measure, dx=STEP, initial=0)
    return at(below, y) + above[:, -1] - at(above, y)


def nll(forecast: Array, y: Array) -> Array:
    """Of each day, in nats: of the mass of a dry one, else of the mean density, per sqrt(mm), in the cell of y."""
    cell = (y / STEP).astype(int)
    rows = np.arange(len(y))
    likelihood = np.where(y == 0, forecast[:, 0], (forecast[rows, cell + 1] - forecast[rows, cell]) / STEP)
    with np.errstate(divide="ignore"):
        return -np.log(likelihood)


def nll_of_reading(forecast: Array, y: Array, reading: float) -> Array:
    """Of each day, in nats: of the probability that the gauge reads as it did. No spike at a reading gains by it."""
    below = np.where(y == 0, 0, at(forecast, np.sqrt(np.maximum(y**2 - reading / 2, 0))))
    with np.errstate(divide="ignore"):
        return -np.log(at(forecast, np.sqrt(y**2 + reading / 2)) - below)


def pit(forecast: Array, y: Array) -> Array:
    """F(y), drawn uniformly below F(0) on dry days."""
    u = np.random.default_rng(0).uniform(size=len(y))
    return at(forecast, y) * np.where(y == 0, u, 1)


def width(forecast: Array) -> Array:
    """Of the central interval of 80%, sqrt(mm)."""
    return STEP * ((forecast < 0.9).sum(1) - (forecast < 0.1).sum(1))


def table_of(forecasts: dict[str, Array], y: Array, reading: float) -> pd.DataFrame:
    """A row for each method. `+-` is a standard error of the paired difference in CRPS to Mixtura, from 40 runs of
    consecutive days, since neighbours resemble each other."""
    rows, own = {}, crps(forecasts["Mixtura"], y)
    usual = forecasts["climatology"]
    for name, forecast in forecasts.items():
        losses = crps(forecast, y)
        runs = [part.mean() for part in np.array_split(losses - own, 40)]
        row = {"CRPS": losses.mean(), "+-": np.std(runs, ddof=1) / np.sqrt(len(runs))}
        row |= {"CRPS mm": crps(forecast, y, is_mm=True).mean(), "NLL": nll(forecast, y).mean()}
        row["NLL of reading"] = nll_of_reading(forecast, y, reading).mean()
        for mm in (0, 1, 10):
            brier, reference = (np.square(1 - at(f, mm**0.5) - (y > mm**0.5)).mean() for f in (forecast, usual))
            row[f"BSS >{mm}"] = 1 - brier / reference
        row["PIT distance"] = stats.kstest(pit(forecast, y), "uniform").statistic
        rows[name] = row | {
            "80% width": width(forecast).mean(),
            "80% cover": np.mean(np.abs(pit(forecast, y) - 0.5) < 0.4),
        }
    return pd.DataFrame(rows).T


def draw(forecasts: dict[str, Array], y: Array, path: Path) -> None:
    """Reliability and PIT, sharpness, and a fan over forty days."""
    own = forecasts["Mixtura"]
    shown = {name: f for name, f in forecasts.items() if name not in ("raw ensemble", "climatology")}
    figure, ((reliability, histogram), (sharpness, fan)) = plt.subplots(2, 2, figsize=(9, 6.6), layout="constrained")
    colours = ["#d1603d", "#5a9367", "#8d99ae", "#e0a458", "#1b2a41", "#9b6a9e"]
    for (name, forecast), colour in zip(forecasts.items(), colours * 2, strict=False):
        p, is_wet = 1 - forecast[:, 0], y > 0
        bins = np.minimum((10 * p).astype(int), 9)
        full = [b for b in range(10) if (bins == b).sum() >= 20]
        points = np.array([(p[bins == b].mean(), is_wet[bins == b].mean()) for b in full])
        bold = {"lw": 2.5, "color": "#2f6db5", "zorder": 5} if name == "Mixtura" else {"lw": 1, "color": colour}
        reliability.plot(*points.T, marker="o", ms=3, label=name, **bold)
    reliability.plot([0, 1], [0, 1], color="#8d99ae", lw=0.8, ls="--")
    reliability.set(xlabel="forecast P(rain > 0)", ylabel="share of days with rain", title="Reliability")
    reliability.legend(frameon=False, fontsize=7, loc="upper left")
    histogram.hist(pit(own, y), np.linspace(0, 1, 21), density=True, color="#2f6db5", alpha=0.7)
    histogram.axhline(1, color="#1b2a41", lw=0.8, ls="--")
    histogram.set(xlabel="PIT, drawn at zero", ylabel="density", title="Calibration of Mixtura")
    sharpness.boxplot([width(f) for f in shown.values()], orientation="horizontal", showfliers=False, whis=(5, 95))
    sharpness.set_yticks(range(1, len(shown) + 1), list(shown), fontsize=8)
    sharpness.set(xlabel="width of the central 80% interval, sqrt(mm)", title="Sharpness")
    levels = [(quantile(own, low), quantile(own, 1 - low)) for low in (0.05, 0.25)]
    for (low, high), alpha, label in zip(levels, (0.25, 0.5), ("90%", "50%"), strict=True):
        fan.fill_between(range(40), low[:40], high[:40], color="#2f6db5", alpha=alpha, lw=0, label=label, step="mid")
    fan.plot(quantile(own, 0.5)[:40], color="#1b2a41", lw=1, label="median", drawstyle="steps-mid")
    fan.plot(y[:40], "o", color="#d1603d", ms=4, label="observed")
    fan.set(xlabel="the first forty days", ylabel="rain, mm", title="Forecasts of Mixtura")
    ticks = np.array([0, 1, 5, 10, 20, 40, 80])
    fan.set_yticks(np.sqrt(ticks), ticks)
    fan.legend(frameon=False, fontsize=7, ncols=4)
    for ax in (reliability, histogram, sharpness, fan):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def quantile(forecast: Array, level: float) -> Array:
    """The quantile of each day."""
    return STEP * (forecast < level).sum(1)


def main() -> None:
    """Compare, print the table, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sets = {"seattle": seattle, "innsbruck": innsbruck, "australia": australia}
    parser.add_argument("name", nargs="?", choices=sets, default="seattle")
    parser.add_argument("--output", type=Path, default=HERE)
    arguments = parser.parse_args()
    data, forecasts = sets[arguments.name](), {}
    print(f"{len(data.y)} days to learn from, {len(data.y_test)} to be judged on", flush=True)
    for method, candidates in methods(arguments.name).items():
        start = time.process_time()
        best = chosen(candidates, data)
        forecasts[method] = candidates[best](data.X, data.y)(data.X_test)
        print(f"{method}: setting {best + 1} of {len(candidates)}, {time.process_time() - start:.0f} s", flush=True)
    arguments.output.mkdir(parents=True, exist_ok=True)
    print(table_of(forecasts, data.y_test, data.reading).round(3).to_string())
    draw(forecasts, data.y_test, arguments.output / f"{arguments.name}.png")


if __name__ == "__main__":
    main()
