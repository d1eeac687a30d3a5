"""One-day-ahead densities of a stock index, and the risk that they tell of.

python -m examples.finance [--index sp500] [--first 2009] [--last 2018] [--peers] [--output examples/finance]

Each year a network learns from all days before it, and forecasts the days of that year. With --peers the methods of
peers.py do the same on the same days (requirements.txt). Table and pictures go to --output. The data are found through
MIXTURA_DATA, or in ../shared/data. Settings were chosen on the years 2005 to 2008.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.base import clone

from mixtura import MDNRegressor, Mixture
from mixtura.plots import BLUE, GREY, INK, ORANGE

from .backtests import RISK_LEVELS, christoffersen, diebold_mariano, kupiec, record, shortfall_test
from .returns import describe_days, load_prices

_SMALL = MDNRegressor(
    n_components=2,
    preset="plain",
    family="normal",
    hidden_layer_sizes=(16,),
    n_restarts=8,
    pool_restarts=True,
    noise=0.1,
    random_state=0,
)
"""Eight small networks; the noise on features and target keeps them smooth where days say little."""
MODELS = {"Mixtura, normal": _SMALL, "Mixtura, student_t": clone(_SMALL).set_params(family="student_t")}
TWO_REGIMES = MDNRegressor(n_components=2, preset="plain", family="normal", hidden_layer_sizes=(16,), random_state=0)
"""One network whose two components can be read."""


def predict_years(
    days: pd.DataFrame, years: range, model: MDNRegressor, is_scaled: bool = True
) -> Iterator[tuple[Mixture, pd.Series]]:
    """Year by year: densities of each day's return, in percent, by a model that saw the years before; what happened.

    The target is the return in units of the day's `scale`, unless `is_scaled` is False; the density is moved back.
    """
    features = days.drop(columns=["y", "scale"])
    unit = days["scale"] if is_scaled else pd.Series(1.0, days.index)
    for year in years:
        past, present = days.index.year < year, days.index.year == year
        fitted = clone(model).fit(features[past], (days["y"] / unit)[past])
        mixture = fitted.predict_dist(features[present])
        yield mixture.affine(0.0, torch.tensor(unit[present].to_numpy())), days["y"][present]


def judge(mixture: Mixture, y: pd.Series) -> pd.DataFrame:
    """The record of forecasts that are mixtures."""
    log_score = mixture.log_prob(torch.tensor(y.to_numpy())).numpy()
    return record(log_score, lambda levels: mixture.icdf(torch.tensor(levels)[:, None]).mT.numpy()).set_index(y.index)


def weigh_regimes(mixture: Mixture, y: pd.Series) -> pd.DataFrame:
    """Of two components: standard deviations of the narrower and the wider, and the weight of the wider."""
    scales, order = mixture.components.stddev.sort(-1)
    wide = mixture.weights.gather(-1, order)[:, 1]
    return pd.DataFrame({"calm_std": scales[:, 0], "crisis_std": scales[:, 1], "crisis": wide}).set_index(y.index)


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
    _finish(figure, ax, path)


def draw_regimes(regimes: pd.DataFrame, path: Path) -> None:
    """Weight of the wider component over time, and the standard deviations of both."""
    figure, axes = plt.subplots(2, 1, figsize=(9, 5), sharex=True, layout="constrained")
    axes[0].fill_between(regimes.index, regimes["crisis"].rolling(5).mean(), color=ORANGE, alpha=0.6, linewidth=0)
    axes[0].set(ylabel="weight of the wider\ncomponent (5-day mean)", ylim=(0, 1))
    axes[1].semilogy(regimes["crisis_std"], color=ORANGE, linewidth=0.9, label="wider component")
    axes[1].semilogy(regimes["calm_std"], color=BLUE, linewidth=0.9, label="narrower component")
    axes[1].set(ylabel="standard deviation, %", xlim=(regimes.index[0], regimes.index[-1]))
    _finish(figure, axes[1], path)


def _finish(figure: Figure, ax: Axes, path: Path) -> None:
    for one in figure.axes:
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(colors=INK)
    ax.legend(frameon=False, ncols=3, loc="upper right", fontsize="small")
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
    records = {
        name: pd.concat([judge(*forecast) for forecast in predict_years(days, years, model)])
        for name, model in MODELS.items()
    }
    y = days["y"][next(iter(records.values())).index]
    if asked.peers:
        from .peers import PEERS  # noqa: PLC0415  (an optional extra)

        records |= {name: forecast(days["y"], years) for name, forecast in PEERS.items()}
    table = compare(records, y, next(iter(MODELS)))
    print(table.round(4).to_string())

    asked.output.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(asked.output / f"{asked.index}_{asked.first}_{asked.last}.csv", index_label="method")
    draw_risk(records[next(iter(MODELS))], y, asked.output / "risk.png")
    years = range(min(asked.first, days.index.year[0] + 4), asked.last + 1)
    regimes = [weigh_regimes(*one) for one in predict_years(days, years, TWO_REGIMES, is_scaled=False)]
    draw_regimes(pd.concat(regimes), asked.output / "regimes.png")


if __name__ == "__main__":
    main()
