"""Daily prices, and what they say about tomorrow: every feature of a day is known when the day before closes."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

WARM_UP = 22
"""Days without a forecast at the start, while the averages fill."""


def load_prices(name: str) -> pd.DataFrame:
    """High, low and close of each trading day, 1999 to 2018, of "sp500" or "nasdaq"; of "wti" the price alone."""
    folder = Path(os.environ.get("MIXTURA_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = folder / "finance" / f"{name}_daily_{'1986_2019' if name == 'wti' else '1999_2018'}.csv.gz"
    if not path.exists():
        raise SystemExit(f"{path} is missing: set MIXTURA_DATA to the folder that holds finance/{path.name}")
    prices = pd.read_csv(path, parse_dates=["Date"], index_col="Date").rename(columns={"DCOILWTICO": "Close"})
    return prices.loc["1999":"2018"].filter(["High", "Low", "Close"])


def describe_days(prices: pd.DataFrame) -> pd.DataFrame:
    """Each day's return in percent, a scale to measure it by, and features: all but the return known the day before.

    `y` is 100 log(close / close of the day before), `scale` the square root of an average of ranges: Parkinson's
    (1980) variance, log(high / low)² / (4 log 2), weighted by 0.9^age; squared returns stand in for it where there are
    prices at the close alone. The features are

    - the log of that variance, and to it, as log ratios: shorter and longer averages of ranges and of squared returns
      (0.94 is that of RiskMetrics), and averages of squared losses alone, since losses foretell more than gains;
    - the returns of the last day, the one before, the last 5 and the last 22, in units of `scale`.
    """
    close = np.log(prices["Close"])
    y = 100 * close.diff().iloc[1:]
    ranged = y**2
    if "High" in prices:
        ranged = (100 * np.log(prices["High"] / prices["Low"])).iloc[1:] ** 2 / (4 * np.log(2))
    variances = {f"range_{decay}": _average(ranged, decay) for decay in (0.0, 0.7, 0.9, 0.97)}
    variances |= {f"return_{decay}": _average(y**2, decay) for decay in (0.8, 0.94, 0.98)}
    variances |= {f"loss_{decay}": _average(y.clip(upper=0) ** 2, decay) for decay in (0.6, 0.9)}
    logs = np.log(pd.DataFrame(variances).clip(lower=1e-4))
    base = logs.pop("range_0.9")
    scale = np.exp(base / 2)
    sums = {"last": y, "second_last": y.shift(), "last_5": y.rolling(5).sum(), "last_22": y.rolling(22).sum()}
    features = logs.sub(base, axis=0).assign(log_variance=base, **{name: s / scale for name, s in sums.items()})
    return features.assign(scale=scale).shift().assign(y=y).iloc[WARM_UP:]


def _average(values: pd.Series, decay: float) -> pd.Series:
    """Mean of this day and those before it, weighted by decay^age."""
    return values.ewm(alpha=1 - decay).mean()
