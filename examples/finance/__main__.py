"""One-day-ahead densities of a stock index or of oil, and the risk that they tell of.

python -m examples.finance [--index sp500|nasdaq|wti] [--first 2009] [--last 2018] [--peers] [--output examples/finance]

Each year a network learns from all days before it, and forecasts the days of that year; how the forecasts fared so far
corrects the next. With --peers the methods of peers.py do the same on the same days (requirements.txt). Table and
pictures go to --output. The data are found through MIXTURA_DATA, or in ../shared/data. Settings were chosen on the
years 2005 to 2008.
"""

import argparse
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure
from sklearn.base import clone

from mixtura import MDNRegressor, Mixture
from mixtura.plots import BLUE, GREY, INK, ORANGE

from .backtests import RISK_LEVELS, christoffersen, diebold_mariano, judge, kupiec, shortfall_test
from .correction import correct
from .regimes import Regimes
from .returns import describe_days, load_prices

SMALL = MDNRegressor(n_components=2, preset="plain", hidden_layer_sizes=(16,), n_restarts=8, pool_restarts=True)
SMALL.set_params(noise=0.2, batch_size=256, learning_rate=0.01, random_state=0)
"""Eight small networks, whose densities are pooled; noise on features and target keeps them smooth."""
MODELS = {
    "Mixtura, student_t": (clone(SMALL).set_params(family="student_t"), True),
    "Mixtura, normal": (clone(SMALL).set_params(family="normal"), True),
    "Mixtura, two regimes": (Regimes(), False),
}
"""Each with whether it forecasts returns in units of the day's scale, and is corrected. The first is what counts."""
YEARS_TO_START = 2
"""Before the first forecast; those before the years that are asked for serve to correct."""


def predict_years(
    days: pd.DataFrame, years: range, model: MDNRegressor | Regimes, is_scaled: bool
) -> Iterator[tuple[Mixture, pd.Series]]:
    """Year by year: densities of each day's return, in percent, by a model that saw the years before; what happened."""
    features = days.drop(columns=["y", "scale"])
    unit = days["scale"] if is_scaled else pd.Series(1.0, days.index)
    for year in years:
        past, present = days.index.year < year, days.index.year == year
        mixture = deepcopy(model).fit(features[past], (days["y"] / unit)[past]).predict_dist(features[present])
        yield mixture.affine(0.0, torch.tensor(unit[present].to_numpy())), days["y"][present]


def weigh_regimes(mixture: Mixture, y: pd.Series) -> pd.DataFrame:
    """Of two components: standard deviations of the narrower and the wider, and the weight of the wider."""
    std, order = mixture.components.stddev.sort(-1)
    crisis = mixture.weights.gather(-1, order)[:, 1]
    return pd.DataFrame({"calm_std": std[:, 0], "crisis_std": std[:, 1], "crisis": crisis}).set_index(y.index)


def compare(records: dict[str, pd.DataFrame], y: pd.Series, reference: str) -> pd.DataFrame:
    """One row for each method: mean log score, gain of the reference over it, breaches, and p-values of the tests."""
    rows = {}
    for method, one in records.items():
        row = {"log score": one["log_score"].mean(), "gain": float("nan"), "DM p": float("nan")}
        if method != reference:
            scores = (records[name]["log_score"].to_numpy() for name in (reference, method))
            row["gain"], row["DM p"] = diebold_mariano(*scores)
        for level, name in ((level, f"{level:.0%}") for level in RISK_LEVELS):
            var, shortfall = one[f"var_{name}"].to_numpy(), one[f"es_{name}"].to_numpy()
            breach = y.to_numpy() < var
            row[f"{name} breaches"] = 100 * breach.mean()
            row[f"{name} Kupiec"] = kupiec(breach, level)
            row[f"{name} indep."], row[f"{name} Christ."] = christoffersen(breach, level)
            row[f"{name} ES"] = shortfall_test(y.to_numpy(), var, shortfall, one["median"].to_numpy())
        rows[method] = row
    return pd.DataFrame(rows).T.sort_values("log score", ascending=False)


def draw_risk(one: pd.DataFrame, y: pd.Series, path: Path) -> None:
    """Returns and the value at risk of 1%, with the days on which it was not enough."""
    figure, ax = plt.subplots(figsize=(9, 3.6), layout="constrained")
    breach = y < one["var_1%"]
    ax.vlines(y.index, 0, y, color=GREY, linewidth=0.6, label="return of the day")
    ax.plot(one["var_1%"], color=BLUE, linewidth=0.9, label="value at risk, 1%, forecast the day before")
    ax.plot(y[breach], "o", color=ORANGE, markersize=3.5, label=f"worse than that: {breach.mean():.1%} of days")
    ax.set(ylabel="return, %", xlim=(y.index[0], y.index[-1]))
    figure.legend(frameon=False, ncols=3, loc="outside lower center", fontsize="small")
    _finish(figure, path)


def draw_regimes(regimes: pd.DataFrame, y: pd.Series, path: Path) -> None:
    """Returns, and the probability of the crisis regime, forecast the day before."""
    figure, axes = plt.subplots(2, 1, figsize=(9, 5), sharex=True, layout="constrained")
    axes[0].vlines(y.index, 0, y, color=INK, linewidth=0.5)
    axes[0].set(ylabel="return, %")
    axes[1].fill_between(regimes.index, regimes["crisis"], color=ORANGE, linewidth=0)
    axes[1].set(ylabel="probability of crisis,\nforecast the day before", ylim=(0, 1), xlim=(y.index[0], y.index[-1]))
    _finish(figure, path)


def _finish(figure: Figure, path: Path) -> None:
    for one in figure.axes:
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(colors=INK)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", default="sp500")
    parser.add_argument("--first", type=int, default=2009)
    parser.add_argument("--last", type=int, default=2018)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    asked = parser.parse_args()

    days, years = describe_days(load_prices(asked.index)), range(asked.first, asked.last + 1)
    y = days["y"][(days.index.year >= asked.first) & (days.index.year <= asked.last)]
    records = {}
    for name, (model, is_scaled) in MODELS.items():
        forecasts = list(predict_years(days, range(days.index.year[0] + YEARS_TO_START, years.stop), model, is_scaled))
        records[name] = correct(forecasts) if is_scaled else pd.concat([judge(*one) for one in forecasts])
        if is_scaled:
            records[f"{name}, as learned"] = pd.concat([judge(*one) for one in forecasts])
        print(f"{name}: {records[name]['log_score'][y.index].mean():.4f}", flush=True)
    if asked.peers:
        from .peers import PEERS  # noqa: PLC0415  (an optional extra)

        records |= {name: forecast(days["y"], years) for name, forecast in PEERS.items()}
    records = {name: one.loc[y.index] for name, one in records.items()}
    table = compare(records, y, next(iter(MODELS)))
    print(table.round(4).to_string())

    asked.output.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(asked.output / f"{asked.index}_{asked.first}_{asked.last}.csv", index_label="method")
    draw_risk(records[next(iter(MODELS))], y, asked.output / "risk.png")
    years = range(min(asked.first, days.index.year[0] + 4), asked.last + 1)
    forecasts = list(predict_years(days, years, Regimes(), is_scaled=False))
    regimes = pd.concat([weigh_regimes(*one) for one in forecasts])
    draw_regimes(regimes, days["y"][regimes.index], asked.output / "regimes.png")


if __name__ == "__main__":
    main()
