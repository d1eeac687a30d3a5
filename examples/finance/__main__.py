"""One-day-ahead densities of a stock index, and the risk that they tell of.

python -m examples.finance [--index sp500] [--first 2009] [--last 2018] [--peers] [--output examples/finance]

Each year a network learns from all days before it, and forecasts the days of that year. With --peers the methods of
peers.py do the same on the same days (requirements.txt). Table and pictures go to --output. The data are found through
MIXTURA_DATA, or in ../shared/data. Settings were chosen on the years 2005 to 2008.
"""

import argparse
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure
from sklearn.base import clone

from mixtura import MDNRegressor, Mixture
from mixtura.plots import BLUE, GREY, INK, ORANGE

from .backtests import RISK_LEVELS, christoffersen, diebold_mariano, kupiec, record, shortfall_test
from .regimes import Regimes
from .returns import describe_days, load_prices

SMALL = MDNRegressor(
    n_components=2,
    preset="plain",
    hidden_layer_sizes=(16,),
    n_restarts=8,
    pool_restarts=True,
    noise=0.1,
    random_state=0,
)
"""Eight small networks, whose densities are pooled; noise on features and target keeps them smooth."""
MODELS = {
    "Mixtura, student_t": (clone(SMALL).set_params(family="student_t"), True),
    "Mixtura, normal": (clone(SMALL).set_params(family="normal"), True),
    "Mixtura, two regimes": (Regimes(), False),
}
"""Each with whether it forecasts the return in units of the day's scale. The first is the one that counts."""


def predict_years(
    days: pd.DataFrame, years: range, model: MDNRegressor | Regimes, is_scaled: bool
) -> Iterator[tuple[Mixture, pd.Series]]:
    """Year by year: densities of each day's return, in percent, by a model that saw the years before; what happened."""
    features = days.drop(columns=["y", "scale"])
    unit = days["scale"] if is_scaled else pd.Series(1.0, days.index)
    for year in years:
        past, present = days.index.year < year, days.index.year == year
        fitted = deepcopy(model).fit(features[past], (days["y"] / unit)[past])
        mixture = fitted.predict_dist(features[present])
        yield mixture.affine(0.0, torch.tensor(unit[present].to_numpy())), days["y"][present]


def judge(mixture: Mixture, y: pd.Series) -> pd.DataFrame:
    """The record of forecasts that are mixtures."""
    log_score = mixture.log_prob(torch.tensor(y.to_numpy())).numpy()
    return record(log_score, lambda levels: mixture.icdf(torch.tensor(levels)[:, None]).mT.numpy()).set_index(y.index)


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
            row["gain"], row["DM p"] = diebold_mariano(
                records[reference]["log_score"].to_numpy(), one["log_score"].to_numpy()
            )
        for level in RISK_LEVELS:
            var, name = one[f"var_{level:.0%}"], f"{level:.0%}"
            breach = (y < var).to_numpy()
            row[f"{name} breaches"] = 100 * breach.mean()
            row[f"{name} Kupiec"] = kupiec(breach, level)
            row[f"{name} indep."], row[f"{name} Christ."] = christoffersen(breach, level)
            tail = y.to_numpy(), var.to_numpy(), one[f"es_{level:.0%}"].to_numpy(), one["median"].to_numpy()
            row[f"{name} ES"] = shortfall_test(*tail)
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
    ax.legend(frameon=False, ncols=3, loc="lower right", fontsize="small")
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
    forecasters: dict[str, Callable[[], pd.DataFrame]] = {
        name: lambda model=model: pd.concat([judge(*one) for one in predict_years(days, years, *model)])
        for name, model in MODELS.items()
    }
    if asked.peers:
        from .peers import PEERS  # noqa: PLC0415  (an optional extra)

        forecasters |= {name: partial(forecast, days["y"], years) for name, forecast in PEERS.items()}
    records = {}
    for name, forecast in forecasters.items():
        records[name] = forecast()
        print(f"{name}: {records[name]['log_score'].mean():.4f}", flush=True)
    y = days["y"][next(iter(records.values())).index]
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
