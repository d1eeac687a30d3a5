"""Random tables, targets and parameters: every fit must end in a sound model, or in an error with a code.

make fuzz          or          python benchmarks/fuzz.py [--configurations 1000] [--seed 0] [--json fuzz.json]
                               python benchmarks/fuzz.py --only 17

A model is sound if, on the X of training and on X moved by 3 standard deviations, its weights are no NaN, the log
probabilities of y, the means and the quantiles are finite (but for log-normal laws so wide that their mean overflows;
the quantiles also in order), and its report has a finite NLL that is no worse than the start's and, where it is of rows
we know, that of the model's own answers. Anything else is a failure: E-fit-diverged, an error from a fitted model, any
other exception, any warning but Mixtura's own. The exit status is 1 if there are any; `--only` repeats the
configuration of one seed, with the traceback.
"""

import argparse
import json
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch.distributions import LogNormal

from mixtura import FAMILIES, MDNRegressor, MixturaError, MixturaWarning, Mixture
from mixtura.families import BetaFamily, ProductFamily, ScalarFamily, TruncatedNormalFamily, VonMisesFamily

SCALAR = sorted({family.name for family in FAMILIES if isinstance(family, ScalarFamily)} - {"warped"})
SHARES = np.array([0.2 if name == "truncated_normal" else 1.0 for name in SCALAR])
"""How often each is drawn: the start of a truncated normal takes seconds."""
POSITIVE, COUNTS = ("gamma", "lognormal"), ("poisson", "negative_binomial")
BOUNDED = {"beta": BetaFamily, "truncated_normal": TruncatedNormalFamily, "von_mises": VonMisesFamily}
COVARIANCES = ["full", "diag", "spherical", "low_rank"]
LEVELS, ROWS_OF_QUANTILES = [0.01, 0.5, 0.99], 32
Floats = NDArray[np.float64]


@dataclass
class Configuration:
    """What one seed leads to."""

    seed: int
    model: MDNRegressor
    X: Any
    y: Any
    """An array, or intervals."""
    sample_weight: Floats | None
    eval_rows: int
    """The first rows are the eval_set; 0 for none."""
    traits: dict[str, Any]
    """In words, for the report."""

    def describe(self) -> str:
        """On one line."""
        traits = ", ".join(f"{name}={value}" for name, value in self.traits.items())
        return f"{traits}; {' '.join(repr(self.model).split())}"


@dataclass
class Failure:
    """Of one configuration."""

    seed: int
    kind: str
    message: str
    configuration: str


@dataclass
class Summary:
    """Of all configurations."""

    configurations: int = 0
    fitted: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    first_seed: dict[str, int] = field(default_factory=dict)
    """That led to a code."""
    failures: list[Failure] = field(default_factory=list)
    slowest: list[tuple[float, int]] = field(default_factory=list)
    """Seconds and seeds."""


class Broken(Exception):
    """A fitted model is not sound."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


# Configurations ------------------------------------------------------------------------------------------------


def chance(rng: Generator, probability: float) -> bool:
    """True with this probability."""
    return bool(rng.random() < probability)


def pick(rng: Generator, *options: Any) -> Any:
    """One of them."""
    return options[rng.integers(len(options))]


def some_rows(rng: Generator, n: int, share: float) -> NDArray[np.bool_]:
    """A mask of at least one row."""
    mask = rng.random(n) < share
    mask[rng.integers(n)] = True
    return mask


def draw_features(rng: Generator, n: int, traits: dict[str, Any]) -> tuple[Any, Floats]:
    """A table, and what of it the target depends on."""
    p = int(pick(rng, 1, 2, rng.integers(3, 9), rng.integers(9, 61)))
    values = rng.normal(size=(n, p))
    signal = np.sin(2 * values[:, 0]) + 0.5 * values[:, -1]
    odd = []
    if chance(rng, 0.25):
        odd.append("scales 1e-6 to 1e6")
        values = (values + rng.normal(size=p) * 100) * 10 ** rng.uniform(-6, 6, p)
    if chance(rng, 0.2):
        odd.append("constant columns")
        values[:, some_rows(rng, p, 0.3)] = pick(rng, 0.0, 1.0, 1e6, 0.1)
    if chance(rng, 0.15):
        odd.append("outliers")
        values[some_rows(rng, n, 0.01), rng.integers(p)] *= 1e6
    dtype = str(pick(rng, "float64", "float64", "float64", "float32", "float16", "int64"))
    if dtype == "int64":
        values = values.round()
    elif chance(rng, 0.25):
        odd.append("missing values")
        values[rng.random((n, p)) < pick(rng, 0.02, 0.3, 0.9)] = np.nan
    traits |= {"n": n, "p": p, "X dtype": dtype, "X": odd or "plain"}
    with np.errstate(all="ignore"):
        array = values.astype(dtype)
    if not chance(rng, 0.35):
        return array, signal
    frame = pd.DataFrame(array, columns=[f"x{i}" for i in range(p)])
    traits["categories"] = n_categories = int(rng.integers(0, 4))
    for i in range(n_categories):
        n_levels = int(pick(rng, 1, 2, 5, 40, n))
        column = pd.Series(rng.integers(0, n_levels, n)).map(lambda level: f"level {level}")
        if chance(rng, 0.3):
            column = column.mask(rng.random(n) < 0.2)
        frame[f"c{i}"] = column.astype("category") if chance(rng, 0.5) else column
    if chance(rng, 0.2):
        frame["flag"] = signal > 0
    if chance(rng, 0.2):
        frame["whole"] = pd.Series(rng.integers(0, 9, n)).astype("Int64").mask(rng.random(n) < 0.1)
    return frame, signal


def draw_latent(rng: Generator, signal: Floats, traits: dict[str, Any]) -> Floats:
    """Standardised, before the scale and the support of the target."""
    n = len(signal)
    noise = str(pick(rng, "normal", "normal", "branches", "heavy", "none"))
    parts = {
        "normal": lambda: 0.3 * rng.normal(size=n),
        "branches": lambda: rng.choice([-1.0, 1.0], n) + 0.05 * rng.normal(size=n),
        "heavy": lambda: rng.standard_t(1.2, n),
        "none": lambda: np.zeros(n),
    }
    latent = signal + parts[noise]()
    traits.setdefault("noise", []).append(noise)
    if chance(rng, 0.1):
        traits["half constant"] = True
        latent[: n // 2] = latent[0]
    if chance(rng, 0.1):
        traits["rounded"] = True
        latent = latent.round(int(rng.integers(0, 2)))
    return latent


def draw_column(rng: Generator, name: str, latent: Floats, traits: dict[str, Any]) -> tuple[Floats, Any, float]:
    """A target of the family, the family, and the target's scale."""
    n, family = len(latent), name
    scale = float(pick(rng, 1.0, 1.0, 10 ** rng.uniform(-6, 6)))
    has_outlier = chance(rng, 0.1)
    outlier = some_rows(rng, n, 0.005) if has_outlier else np.zeros(n, dtype=bool)
    supported = not chance(rng, 0.05)
    if supported and name in POSITIVE:
        y = scale * np.exp(np.clip(latent, -30, 30))
        y[outlier] *= 1e6
    elif supported and name in COUNTS:
        scale, log_rate = 1.0, pick(rng, -3.0, 0.0, 2.0, 5.0)
        y = rng.poisson(np.exp(np.clip(latent + log_rate, -30, 12))).astype(float)
        y[outlier] += 1e6
    elif name in BOUNDED:
        offset = float(pick(rng, 0.0, -1.0, 10 ** rng.uniform(-3, 6)))
        bounds = (offset, offset + scale)
        if chance(rng, 0.3):
            bounds = (-np.pi, np.pi) if name == "von_mises" else (0.0, 1.0)
        scale, family = bounds[1] - bounds[0], BOUNDED[name](bounds=bounds)
        y = bounds[0] + scale / (1 + np.exp(-np.clip(latent, -20, 20)))
        if not supported:
            y = y + scale * outlier * 2 - scale * (y > np.median(y))
    else:
        offset = float(pick(rng, 0.0, 0.0, rng.choice([-1.0, 1.0]) * 10 ** rng.uniform(0, 6)))
        y = offset + scale * latent
        y[outlier] += rng.choice([-1e6, 1e6]) * scale
    traits.setdefault("laws", []).append(
        f"{family!r}{'' if supported else ' unsupported'}{' outliers' if has_outlier else ''} scale {scale:.1e}"
    )
    return y, family, scale


def draw_target(rng: Generator, signal: Floats, traits: dict[str, Any]) -> tuple[Floats, dict[str, Any], float]:
    """y, the parameters of the model that go with it, and a scale of it."""
    if chance(rng, 0.65):
        name = str(rng.choice(SCALAR, p=SHARES / SHARES.sum()))
        y, family, scale = draw_column(rng, name, draw_latent(rng, signal, traits), traits)
        return y[:, None] if chance(rng, 0.1) else y, {"family": family}, scale
    n_targets = int(rng.integers(2, 6))
    kind = str(pick(rng, "normal", "normal", "student_t", "list", "list", "diag"))
    covariance_type = str(rng.choice(COVARIANCES)) if kind == "normal" or chance(rng, 0.05) else "full"
    names = [kind] * n_targets
    if kind == "list":
        names = [str(name) for name in rng.choice(SCALAR, n_targets, p=SHARES / SHARES.sum())]
    elif kind == "diag":
        names, covariance_type = [str(rng.choice([*POSITIVE, *COUNTS, "laplace", "logistic"]))] * n_targets, "diag"
    columns = [draw_column(rng, name, draw_latent(rng, signal, traits), traits) for name in names]
    y = np.stack([column for column, _, _ in columns], 1)
    if n_targets > 2 and chance(rng, 0.1):
        traits["singular"] = True
        y[:, 1] = y[:, 0]
    family = [family for _, family, _ in columns] if kind == "list" else names[0]
    return y, {"family": family, "covariance_type": covariance_type}, min(scale for _, _, scale in columns)


def draw_weight(rng: Generator, n: int, traits: dict[str, Any]) -> Floats | None:
    """None as a rule."""
    kind = str(pick(rng, "none", "none", "none", "uniform", "0 to 1e6", "zeros", "tiny"))
    weight = {
        "none": lambda: None,
        "uniform": lambda: rng.random(n),
        "0 to 1e6": lambda: 10 ** rng.uniform(-6, 6, n) * (rng.random(n) < 0.9),
        "zeros": lambda: (rng.random(n) < 0.5).astype(float),
        "tiny": lambda: 10 ** rng.uniform(-300, -280, n),
    }[kind]()
    traits["weights"] = kind
    return weight


def censor(rng: Generator, y: Floats) -> Any:
    """Intervals that hold y, some open."""
    lower, upper = y.copy(), y.copy()
    spread = np.ptp(y) * 0.1
    kind = rng.choice(["known", "right", "left", "between"], len(y), p=[0.6, 0.2, 0.1, 0.1])
    upper[kind == "right"], lower[kind == "left"] = np.inf, -np.inf
    lower[kind == "between"] -= spread
    upper[kind == "between"] += spread
    return pd.arrays.IntervalArray.from_arrays(lower, upper, closed="both")


def make_configuration(seed: int) -> Configuration:
    """The same for the same seed."""
    rng = np.random.default_rng([seed, 20])
    traits: dict[str, Any] = {}
    sizes = (rng.integers(3, 11), rng.integers(11, 41), rng.integers(41, 200), rng.integers(200, 601))
    n = 2 if chance(rng, 0.04) else int(pick(rng, *sizes))
    X, signal = draw_features(rng, n, traits)
    y, parameters, scale = draw_target(rng, signal, traits)
    if chance(rng, 0.1):
        traits["duplicates"] = True
        index = rng.integers(0, max(2, n // 4), n)
        X, y = X.iloc[index] if isinstance(X, pd.DataFrame) else X[index], y[index]
    weight = draw_weight(rng, n, traits)
    parameters |= {
        "n_components": int(pick(rng, 1, 2, 3, 5, rng.integers(6, 31))),
        "hidden_layer_sizes": pick(rng, (), (2,), (8,), (16, 16), (8, 8, 8)),
        "learning_rate": float(10 ** rng.uniform(-5, np.log10(0.3))),
        "batch_size": pick(rng, None, None, 1 if n < 40 else 64, 8 if n < 200 else 200, 1000),
        "max_epochs": int(rng.integers(2, 9)),
        "patience": int(pick(rng, 1, 3, 30)),
        "validation_fraction": float(pick(rng, 0.125, 0.125, 0.0, 0.5, 0.95)),
        "weight_floor": float(pick(rng, 1e-4, 1e-4, 0.0, 0.02)),
        "weight_decay": float(pick(rng, 1e-2, 0.0, 1.0)),
    }
    if chance(rng, 0.3):
        parameters["scale_floor"] = float(pick(rng, 0.0, *(scale * 10 ** rng.uniform(-5, 0) for _ in range(3))))
    is_scalar = y.ndim == 1 or y.shape[1] == 1
    if chance(rng, 0.3 if is_scalar else 0.02):
        known = y.ravel()[rng.integers(len(y))]
        parameters["atoms"] = pick(rng, "auto", "auto", [0.0], [known], [0.0, known, 1.0])
    if chance(rng, 0.15):
        traits["y dtype"] = dtype = str(pick(rng, "float32", "float16", "int64"))
        with np.errstate(all="ignore"):
            y = y.astype(dtype)
    if y.ndim == 1 and np.isfinite(y).all() and chance(rng, 0.12):
        traits["censored"] = True
        y = censor(rng, y.astype(np.float64))
    eval_rows = max(1, n // 3) if chance(rng, 0.12) else 0
    traits["eval_rows"] = eval_rows
    if chance(rng, 0.2):
        parameters |= {"n_restarts": int(rng.integers(2, 4)), "pool_restarts": chance(rng, 0.5)}
    if chance(rng, 0.2):
        parameters |= {"noise": float(pick(rng, 0.0, 0.1, 1.0)), "revive": chance(rng, 0.5)}
    parameters["preset"] = str(pick(rng, "fast", "balanced")) if chance(rng, 0.15) else "plain"
    return Configuration(seed, MDNRegressor(random_state=seed, **parameters), X, y, weight, eval_rows, traits)


# Judgement -----------------------------------------------------------------------------------------------------


def moved(X: Any) -> Any:
    """Every number 3 standard deviations further."""
    if isinstance(X, pd.DataFrame):
        numbers = X.select_dtypes("number").astype(float)
        return X.assign(**{str(name): column + 3 * (column.std() or 1.0) for name, column in numbers.items()})
    far = X.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of columns without values
        return far + 3 * np.nan_to_num(np.nanstd(far, axis=0))


def check_finite(what: str, values: Floats) -> None:
    """Raise `Broken` unless all are."""
    bad = ~np.isfinite(values)
    if bad.any():
        raise Broken(f"{what} not finite", f"{int(bad.sum())} of {bad.size}, such as {values[bad][0]}")


def overflows(model: MDNRegressor, mixture: Mixture) -> NDArray[np.bool_]:
    """Where a log-normal law is so wide that its mean is no double, in the shape of a mean."""
    is_over = np.zeros((*mixture.batch_shape, *mixture.event_shape), dtype=bool)
    laws = mixture.components.laws if isinstance(model.family_, ProductFamily) else [mixture.components]
    for i, law in enumerate(laws):
        if isinstance(law, LogNormal):
            over = (law.loc + law.scale.square() / 2 + 3 * law.scale > 700).any(-1).numpy()
            is_over[(..., i) if mixture.event_shape else ...] = over
    return is_over


def check_answers(model: MDNRegressor, X: Any, y: Any, where: str) -> None:
    """Raise `Broken` unless all answers are sound."""
    mixture = model.predict_dist(X)
    if bool(mixture.logits.isnan().any()):
        raise Broken(f"logits{where} NaN", str(mixture))
    for tensor in model.family_.parameters(mixture.components):
        if bool(tensor.isnan().any()):
            raise Broken(f"parameters{where} NaN", str(mixture))
    check_finite(f"log_prob{where}", model.score_samples(X, y))
    known = ~overflows(model, mixture)
    check_finite(f"mean{where}", mixture.mean.numpy()[known])
    quantiles = model.predict_quantiles(take(X, slice(ROWS_OF_QUANTILES)), LEVELS)
    check_finite(f"quantiles{where}", quantiles[known[: len(quantiles)]])
    falls = (quantiles[..., 1:] < quantiles[..., :-1]).any(-1)
    if falls.any():
        raise Broken(f"quantiles{where} out of order", str(quantiles[falls][0]))


def check_report(configuration: Configuration, model: MDNRegressor, counted: NDArray[np.bool_]) -> None:
    """Raise `Broken` unless the report is sound and, where it is of rows we know, agrees with the model."""
    report = model.fit_report_
    if not np.isfinite(report.best_nll):
        raise Broken("best_nll not finite", str(report))
    if report.best_nll > report.start_nll + 1e-6:
        raise Broken("worse than the start", f"{report.best_nll} after {report.start_nll}")
    if configuration.model.scale_floor is not None:
        return  # float32 has no digits for scales that are too small
    if configuration.eval_rows:
        rows, weight = slice(configuration.eval_rows), np.ones(configuration.eval_rows)
    elif report.n_valid_rows == 0:
        rows = np.flatnonzero(counted)
        weight = np.ones(len(rows)) if configuration.sample_weight is None else configuration.sample_weight[rows]
    else:
        return
    scores = model.score_samples(take(configuration.X, rows), configuration.y[rows])
    weight = weight / weight.max()
    nll = -float((weight * scores).sum() / weight.sum())
    tolerance = 0.05 * (1 + abs(nll))
    if len(model.networks_) > 1:  # a pool is never worse than its members in the mean: -log is convex
        if nll > np.mean(report.restart_nlls) + tolerance:
            raise Broken("worse than its members", f"{nll} of {report.restart_nlls}")
    elif abs(nll - report.best_nll) > tolerance:
        raise Broken("report disagrees", f"best_nll {report.best_nll}, by score_samples {nll}")


def take(X: Any, rows: Any) -> Any:
    """Rows of an array or a frame."""
    return X.iloc[rows] if isinstance(X, pd.DataFrame) else X[rows]


def judge(configuration: Configuration) -> MDNRegressor:
    """The sound model; raises what the fit raises, or `Broken`."""
    X, y, weight = configuration.X, configuration.y, configuration.sample_weight
    k = configuration.eval_rows
    eval_set = (take(X, slice(k)), y[:k]) if k else None
    model = configuration.model.fit(X, y, sample_weight=weight, eval_set=eval_set)
    counted = np.ones(len(y), dtype=bool) if weight is None else weight / weight.max() > 1e-30
    try:
        for table, where in ((X, ""), (moved(X), " of moved X")):
            check_answers(model, take(table, counted), y[counted], where)
        check_report(configuration, model, counted)
    except MixturaError as error:
        raise Broken(f"{error.code} after fit", str(error)) from error
    return model


def place_of(error: BaseException) -> str:
    """The innermost line of Mixtura in a traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/mixtura/" in frame.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "elsewhere"


def run_one(configuration: Configuration, summary: Summary, show: Callable[[], object] | None = None) -> None:
    """Fit, judge and count one configuration; `show` is called within an except clause."""
    found: tuple[str, str] | None = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error" if show else "always")  # an error has a traceback
        warnings.simplefilter("always", MixturaWarning)
        try:
            judge(configuration)
            summary.fitted += 1
        except MixturaError as error:
            summary.codes[error.code] += 1
            summary.first_seed.setdefault(error.code, configuration.seed)
            if error.code == "E-fit-diverged":
                found = error.code, str(error)
            if show:
                show()
        except Exception as error:
            kind = error.kind if isinstance(error, Broken) else f"{type(error).__name__} at {place_of(error)}"
            found = kind, str(error)
            if show:
                show()
    foreign = [each for each in caught if not isinstance(each.message, MixturaWarning)]
    if found is None and foreign:
        first = foreign[0]
        place = f"{Path(first.filename).name}:{first.lineno}"
        found = f"{first.category.__name__} at {place}", str(first.message)
    if found is not None:
        summary.failures.append(Failure(configuration.seed, *found, configuration.describe()))


def run_all(first: int, n_configurations: int) -> Summary:
    """Seeds from `first` on, with a line of progress for every 100."""
    summary, start = Summary(), time.perf_counter()
    for seed in range(first, first + n_configurations):
        before = time.perf_counter()
        run_one(make_configuration(seed), summary)
        summary.configurations += 1
        summary.slowest = sorted([*summary.slowest, (time.perf_counter() - before, seed)], reverse=True)[:3]
        if summary.configurations % 100 == 0:
            told = f"{summary.fitted} fitted, {summary.codes.total()} refused, {len(summary.failures)} failed"
            print(f"{summary.configurations}: {told}, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return summary


def print_summary(summary: Summary) -> None:
    """For people."""
    n_broken = len({failure.seed for failure in summary.failures})
    print(f"{summary.configurations} configurations: {summary.fitted} sound models, {n_broken} failures")
    for code, count in summary.codes.most_common():
        print(f"  {count:5d} {code}, first by seed {summary.first_seed[code]}")
    print("slowest: " + ", ".join(f"seed {seed} {seconds:.1f} s" for seconds, seed in summary.slowest))
    for kind, count in Counter(failure.kind for failure in summary.failures).most_common():
        some = [failure for failure in summary.failures if failure.kind == kind]
        print(f"\nFAILED {count} times: {kind} (--only {', '.join(str(failure.seed) for failure in some[:8])})")
        print(f"  {some[0].message}\n  {some[0].configuration}")


def main() -> None:
    """Print what was found; exit with 1 after a failure."""
    parser = argparse.ArgumentParser(description="Fit random configurations; each must end well.")
    parser.add_argument("--configurations", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--only", type=int, metavar="SEED", help="one configuration, with the traceback")
    parser.add_argument("--json", type=Path, metavar="PATH", help="where to write everything")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.only is not None:
        configuration, summary = make_configuration(arguments.only), Summary(configurations=1)
        print(configuration.describe())
        run_one(configuration, summary, traceback.print_exc)
    else:
        summary = run_all(arguments.seed, arguments.configurations)
    print_summary(summary)
    if arguments.json is not None:
        whole = {**vars(summary), "failures": [vars(failure) for failure in summary.failures]}
        arguments.json.write_text(json.dumps(whole, indent=2), encoding="utf-8")
    sys.exit(1 if summary.failures else 0)


if __name__ == "__main__":
    main()
