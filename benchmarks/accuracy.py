"""NLL, CRPS, coverage, RMSE and CPU seconds of Mixtura and its peers, on the same rows of the same tables.

python benchmarks/accuracy.py [--tables uci mixed] [--sets NAME ...] [--splits 0 1 2] [--methods NAME ...]
    [--results accuracy.jsonl] [--table accuracy.md] [--limit 300] [--again]

Each method runs in a process of its own, on one thread, one after the other. Each result is written to --results as
soon as it is there; what is there already is not run again, unless one says --again: the last one counts. What fails,
or takes more CPU seconds than --limit, is written down as failed, with the reason. With --splits none nothing is run,
and the table is made from what is there. The data are found through MIXTURA_DATA, or in ../shared/data. The peers are
in requirements-peers.txt, which `make bench-accuracy` installs into a virtual environment of their own.

Settings are chosen on splits 5 to 9 and on other data; 0 to 4 are for reporting.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from peers import PEERS, Forecast, Predict
from scipy.stats import rankdata

from mixtura import MDNRegressor

ROOT = Path(__file__).parents[1]
Array = NDArray[np.float64]
MOST_TRAINING, MOST_TEST = 10_000, 5_000


# Data -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Rows to learn from, and rows to be judged on."""

    X: pd.DataFrame
    y: Array
    X_test: pd.DataFrame
    y_test: Array


def data_file(path: str) -> Path:
    """Where a file of the data is."""
    folder = Path(os.environ.get("MIXTURA_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / path).exists():
        raise SystemExit(f"{folder / path} is missing: set MIXTURA_DATA to the folder that holds {path}")
    return folder / path


def uci(name: str, split: int) -> Split:
    """A standard split of Hernandez-Lobato and Adams (2015)."""
    with np.load(data_file(f"uci/{name}.npz")) as data:
        X, y = pd.DataFrame(data["X"]).add_prefix("x"), data["y"].astype(float)
        train, test = data[f"train_{split}"], data[f"test_{split}"]
    return Split(X.iloc[train], y[train], X.iloc[test], y[test])


def drawn(load: Callable[[], tuple[pd.DataFrame, str]], split: int) -> Split:
    """A fifth of the rows for testing, at random, and the others, of both as many as there may be.

    With a column `is_late` the testing rows are among these, and the others are not.
    """
    table, target = load()
    order = np.random.default_rng(split).permutation(len(table))
    if "is_late" in table:
        is_late = table.pop("is_late").to_numpy()[order]
        train, test = order[~is_late], order[is_late]
    else:
        test, train = np.split(order, [len(table) // 5])
    X, y = table.drop(columns=target), table[target].to_numpy(float)
    train, test = train[:MOST_TRAINING], test[:MOST_TEST]
    return Split(X.iloc[train], y[train], X.iloc[test], y[test])


def read(path: str) -> pd.DataFrame:
    """A table."""
    return pd.read_csv(data_file(path))


def flights() -> tuple[pd.DataFrame, str]:
    """The delay at arrival in minutes, from what is known before departure."""
    table = read("nyc_flights_2013/flights_150k.csv.gz").drop(columns=["dep_delay", "air_time"])
    hour, minute = np.divmod(table.pop("sched_dep_time"), 100)
    return table.assign(hour=hour + minute / 60), "arr_delay"


def taxi() -> tuple[pd.DataFrame, str]:
    """The duration of a trip in seconds, from where and when it starts and where it goes."""
    table = read("nyc_taxi_yellow/yellow_2016_01.csv.gz")
    places = ["pickup_lon", "pickup_lat", "dropoff_lon", "dropoff_lat"]
    table["weekday"] = table["weekday"].map(dict(enumerate(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"])))
    return table[["weekday", "hour", *places, "passenger_count", "duration_s"]], "duration_s"


def weather() -> tuple[pd.DataFrame, str]:
    """Tomorrow's maximum temperature, from today's weather; tested on days from 2014 on."""
    table = read("weather_australia_daily/weatherAUS.csv.gz").drop(columns=["RISK_MM", "RainTomorrow"])
    table["Date"] = pd.to_datetime(table["Date"])
    tomorrow = table[["Location", "Date", "MaxTemp"]].rename(columns={"MaxTemp": "max_temp_tomorrow"})
    tomorrow["Date"] -= pd.Timedelta(days=1)
    table = table.merge(tomorrow, on=["Location", "Date"]).dropna(subset="max_temp_tomorrow")
    date = table.pop("Date")
    return table.assign(day_of_year=date.dt.dayofyear, is_late=date.dt.year >= 2014), "max_temp_tomorrow"


STANDARD = {
    "yacht": "yacht",
    "boston": "bostonHousing",
    "energy": "energy",
    "concrete": "concrete",
    "power": "power-plant",
    "kin8nm": "kin8nm",
    "wine": "wine-quality-red",
    "naval": "naval-propulsion-plant",
    "protein": "protein-tertiary-structure",
}
MIXED = {
    "ames": lambda: (read("tabular_medium/ames.csv.gz"), "Sale_Price"),
    "diamonds": lambda: (read("tabular_medium/diamonds.csv.gz"), "price"),
    "cpssw8": lambda: (read("tabular_medium/cpssw8.csv.gz"), "earnings"),
    "flights": flights,
    "taxi": taxi,
    "weather": weather,
}
TABLES: dict[str, dict[str, Callable[[int], Split]]] = {
    "uci": {name: partial(uci, file) for name, file in STANDARD.items()},
    "mixed": {name: partial(drawn, load) for name, load in MIXED.items()},
}
N_SPLITS = {"uci": 5, "mixed": 3}
GRIDDED = {"wine", "naval"}
"""Targets on a coarse grid, where the NLL measures only how narrow a law dares to be: they count for the CRPS alone."""
SETS = {name: load for table in TABLES.values() for name, load in table.items()}


# Methods --------------------------------------------------------------------------------------------------------------


def standardised(method: str, split: Split, seed: int) -> Predict:
    """A peer gets a target of mean 0 and standard deviation 1, and its forecasts are put into y's units."""
    shift, factor = split.y.mean(), split.y.std()
    predict = PEERS[method](split.X, (split.y - shift) / factor, seed)
    return lambda X: predict(X).moved(shift, factor)


def mixtura(preset: str, split: Split, seed: int) -> Predict:
    """Mixtura as it comes."""
    model = MDNRegressor(preset=preset, random_state=seed).fit(split.X, split.y)
    return lambda X: Forecast.of_mixture(model.predict_dist(X))


METHODS: dict[str, Callable[[Split, int], Predict]] = {
    **{f"mixtura-{preset}": partial(mixtura, preset) for preset in ("fast", "balanced", "best")},
    **{name: partial(standardised, name) for name in PEERS},
}
TITLES = {
    "mixtura-fast": "Mixtura, fast",
    "mixtura-balanced": "Mixtura, balanced",
    "mixtura-best": "Mixtura, best",
    "ngboost": "NGBoost",
    "catboost": "CatBoost",
    "xgboostlss": "XGBoostLSS",
    "treeffuser": "Treeffuser",
    "quantile-forest": "quantile forest + kernel",
    "deep-ensemble": "deep ensemble",
    "spline-flow": "neural spline flow",
    "naive-mdn": "naive MDN",
    "linear": "linear",
}


# Running --------------------------------------------------------------------------------------------------------------


def cpu_seconds() -> float:
    """Of this process and its children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(set_name: str, split: int, method: str) -> dict[str, float]:
    """Learn, predict, and judge; in this process."""
    torch.set_num_threads(1)
    np.random.seed(split)  # noqa: NPY002 (trees of peers draw from it)
    warnings.simplefilter("ignore")
    data = SETS[set_name](split)
    start = cpu_seconds()
    predict = METHODS[method](data, split)
    fitted = cpu_seconds()
    forecast = predict(data.X_test)
    predicted = cpu_seconds()
    y = data.y_test
    log_density, (lower, upper) = forecast.log_density(y), forecast.interval().T
    return {
        "nll": -log_density.mean(),
        "worst_nll": -log_density.min(),
        "crps": forecast.crps(y).mean(),
        "coverage": ((lower <= y) & (y <= upper)).mean(),
        "rmse": np.sqrt(np.square(forecast.mean - y).mean()),
        "fit_s": fitted - start,
        "predict_s": predicted - fitted,
        "n_train": len(data.y),
        "n_test": len(y),
    }


def measure_apart(set_name: str, split: int, method: str, limit: int) -> dict[str, Any]:
    """The same in a process of its own, on one thread, that ends after `limit` CPU seconds; or why it failed."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
    command = [sys.executable, __file__, "--one", set_name, str(split), method]
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=10 * limit,  # of the clock, should it hang
            env=os.environ | threads,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5)),
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"more than {10 * limit} s"}
    if ended.returncode < 0:
        is_late = -ended.returncode in (9, 24)  # SIGKILL, SIGXCPU
        return {"failed": f"more than {limit} CPU seconds" if is_late else f"signal {-ended.returncode}"}
    if ended.returncode:
        return {"failed": (ended.stderr.strip().splitlines() or ["no message"])[-1][:300]}
    result = json.loads(ended.stdout.strip().splitlines()[-1])
    unsound = [name for name, value in result.items() if not np.isfinite(value)]
    return result | ({"failed": f"not finite: {', '.join(unsound)}"} if unsound else {})


def circumstances() -> dict[str, Any]:
    """When, on what, and with which versions."""
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    cpus = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    wanted = {"torch", "scikit-learn", "ngboost", "catboost", "xgboostlss", "xgboost", "treeffuser", "lightgbm", "zuko"}
    wanted |= {"mapie", "crepes"}
    found = {package.name.lower(): package.version for package in importlib.metadata.distributions()}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "hardware": f"one thread of {cpus[0].split(':')[1].strip() if cpus else platform.processor()}",
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{name} {found[name]}" for name in sorted(wanted & set(found)))]
        ),
    }


Key = tuple[str, int, str]


def read_results(path: Path) -> dict[Key, dict[str, Any]]:
    """What is there, by set, split and method; the last counts."""
    lines = path.read_text().splitlines() if path.exists() else []
    results = [json.loads(line) for line in lines if line.strip()]
    return {(result["set"], result["split"], result["method"]): result for result in results}


# The table ------------------------------------------------------------------------------------------------------------


def mean_and_error(values: Array) -> str:
    """Mean and standard error over splits."""
    error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    digits = int(np.clip(2 - np.floor(np.log10(max(abs(values).max(), 1e-9))), 0, 5))
    digits = max(digits, 2) if abs(values).max() < 1000 else digits
    return f"{values.mean():.{digits}f} ± {error:.{digits}f}" if np.isfinite(error) else f"{values.mean():.{digits}f}"


class Summary:
    """Results as tables: one row for each method, one column for each set."""

    def __init__(self, results: dict[Key, dict[str, Any]], sets: list[str], splits: dict[str, list[int]], against: str):
        self.results, self.against = results, against
        self.sets = [name for name in sets if any(key[0] == name and key[1] in splits[name] for key in results)]
        self.methods = [method for method in METHODS if any(key[0] in sets and key[2] == method for key in results)]
        # Of a set, the splits that all have run who have run any: means of other splits would not compare.
        self.asked, self.splits = splits, {}
        for name in self.sets:
            present = [{k[1] for k in results if k[0] == name and k[2] == method} for method in self.methods]
            self.splits[name] = sorted(set(splits[name]).intersection(*filter(None, present)))

    def values(
        self, name: str, method: str, of: Callable[[dict[str, Any]], float], splits: list[int] | None = None
    ) -> dict[int, float]:
        """By split, where it did not fail."""
        splits = self.splits.get(name, []) if splits is None else splits
        found = ((split, self.results.get((name, split, method))) for split in splits)
        return {split: of(result) for split, result in found if result is not None and "failed" not in result}

    def failures(self, name: str, method: str) -> list[str]:
        """Why, for each split that failed."""
        found = (self.results.get((name, split, method), {}) for split in self.splits.get(name, []))
        return [result["failed"] for result in found if "failed" in result]

    def rows(self, of: Callable[[dict[str, Any]], float], sets: list[str], best: bool = True) -> Iterator[str]:
        """A table of means and standard errors, with the mean rank where lower is better."""
        yield f"| | {' | '.join(sets)} |{' mean rank |' if best else ''}"
        yield f"|---|{'---:|' * (len(sets) + best)}"
        every = {(name, method): self.values(name, method, of) for name in sets for method in self.methods}
        # Who failed on a split is last: no method gains by failing where it is hard. Who has not run has no rank.
        means = np.full((len(self.methods), len(sets)), np.nan)
        for row, method in enumerate(self.methods):
            for column, name in enumerate(sets):
                if self.failures(name, method):
                    means[row, column] = np.inf
                elif every[name, method]:
                    means[row, column] = np.mean([*every[name, method].values()])
        ranks = np.nanmean(rankdata(means, axis=0, nan_policy="omit"), axis=1)
        for row, method in enumerate(self.methods):
            cells = []
            for column, name in enumerate(sets):
                found, n_failed = every[name, method], len(self.failures(name, method))
                cell = mean_and_error(np.array([*found.values()])) if found else ("failed" if n_failed else "")
                if found and n_failed:
                    cell += f" ({n_failed} failed)"
                is_best = best and np.isfinite(means[row, column]) and means[row, column] == np.nanmin(means[:, column])
                cells.append(f"**{cell}**" if is_best else cell)
            rank = f" {ranks[row]:.1f} |" if best else ""
            yield f"| {TITLES[method]} | {' | '.join(cells)} |{rank}"

    def differences(self, of: Callable[[dict[str, Any]], float], sets: list[str]) -> Iterator[str]:
        """By how much each method is above the one to compare with, split by split."""
        yield f"| | {' | '.join(sets)} |"
        yield f"|---|{'---:|' * len(sets)}"
        for method in self.methods:
            if method == self.against:
                continue
            cells = []
            for name in sets:
                theirs, ours = (self.values(name, one, of, self.asked[name]) for one in (method, self.against))
                both = [split for split in theirs if split in ours]
                cells.append(mean_and_error(np.array([theirs[split] - ours[split] for split in both])) if both else "")
            yield f"| {TITLES[method]} | {' | '.join(cells)} |"

    def document(self) -> Iterator[str]:
        """All tables, why methods failed, and where all this comes from."""
        continuous = [name for name in self.sets if name not in GRIDDED]
        ours = TITLES[self.against]
        has_ours = any(self.values(name, self.against, lambda result: result["nll"]) for name in self.sets)
        compared = ", ".join(f"{name} {len(self.splits[name])}" for name in self.sets)
        yield f"Splits that all methods have run: {compared}."
        yield from ("", "NLL, nats per unit of y (mean over splits ± its standard error; lower is better):", "")
        yield from self.rows(lambda result: result["nll"], continuous)
        if has_ours:
            yield from ("", f"NLL above that of {ours}, split by split, over all splits that both have run:", "")
            yield from self.differences(lambda result: result["nll"], continuous)
        yield from ("", "CRPS, in units of y (lower is better):", "")
        yield from self.rows(lambda result: result["crps"], self.sets)
        if has_ours:
            yield from ("", f"CRPS above that of {ours}, in percent of it, split by split:", "")
            yield from Summary(self._relative("crps"), self.sets, self.asked, self.against).differences(
                lambda result: result["crps"], self.sets
            )
        yield from ("", "RMSE of the mean, in units of y (lower is better):", "")
        yield from self.rows(lambda result: result["rmse"], self.sets)
        yield from ("", "Share of test rows in the central interval of 90%, in percent:", "")
        yield from self.rows(lambda result: 100 * result["coverage"], self.sets, best=False)
        yield from ("", "CPU seconds to learn (with the choice of settings), and to predict:", "")
        yield from self.rows(lambda result: result["fit_s"], self.sets, best=False)
        yield ""
        yield from self.rows(lambda result: result["predict_s"], self.sets, best=False)
        failed = {
            (name, method): self.failures(name, method)
            for name in self.sets
            for method in self.methods
            if self.failures(name, method)
        }
        if failed:
            yield from ("", "Failures:", "")
            for (name, method), why in failed.items():
                yield f"- {TITLES[method]} on {name}, {len(why)} of {len(self.splits[name])} splits: {why[0]}"
        here = [result for key, result in self.results.items() if key[0] in self.sets]
        yield ""
        for field in ("date", "commit", "hardware", "versions"):
            yield f"{field}: {'; '.join(sorted({str(result.get(field, '')) for result in here}))}  "

    def _relative(self, score: str) -> dict[Key, dict[str, Any]]:
        """A score in percent of the one to compare with."""
        relative = {}
        for (name, split, method), result in self.results.items():
            reference = self.results.get((name, split, self.against), {"failed": ""})
            if "failed" not in result and "failed" not in reference:
                relative[name, split, method] = {score: 100 * result[score] / reference[score]}
        return relative


def main() -> None:
    """Run what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tables", nargs="*", default=["uci"], choices=list(TABLES))
    parser.add_argument("--sets", nargs="*", choices=list(SETS), metavar="SET", help="all of --tables by default")
    parser.add_argument("--splits", nargs="*", metavar="SPLIT", help="numbers, or none; 0 to 4, of mixed sets 0 to 2")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--results", type=Path, default=Path("accuracy.jsonl"), metavar="FILE")
    parser.add_argument("--table", type=Path, metavar="FILE", help="- for the screen")
    parser.add_argument("--against", default="mixtura-balanced", choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--limit", type=int, default=300, help="CPU seconds of one run")
    parser.add_argument("--again", action="store_true", help="also what is there, or has failed")
    parser.add_argument("--one", nargs=3, metavar=("SET", "SPLIT", "METHOD"), help="in this process, to the screen")
    args = parser.parse_args()
    if args.one:
        print(
            json.dumps(
                {key: float(value) for key, value in measure(args.one[0], int(args.one[1]), args.one[2]).items()}
            )
        )
        return
    sets = args.sets or [name for table in args.tables for name in TABLES[table]]
    usual = {name: list(range(N_SPLITS[table])) for table, names in TABLES.items() for name in names}
    asked = None if args.splits is None else [int(split) for split in args.splits if split != "none"]
    done, about = read_results(args.results), circumstances()
    for name in sets:
        for split in usual[name] if asked is None else asked:
            for method in args.methods:
                if (name, split, method) in done and not args.again:
                    continue
                result = {"set": name, "split": split, "method": method}
                result |= measure_apart(name, split, method, args.limit) | about
                with args.results.open("a") as file:
                    file.write(json.dumps(result) + "\n")
                said = result.get("failed") or f"NLL {result['nll']:.3f}, CRPS {result['crps']:.4g}"
                print(f"{name} {split} {method}: {said}", flush=True)
    if args.table:
        reported = {name: asked or splits for name, splits in usual.items()}
        text = "\n".join(Summary(read_results(args.results), sets, reported, args.against).document()).strip() + "\n"
        print(text) if str(args.table) == "-" else args.table.write_text(text)


if __name__ == "__main__":
    main()
