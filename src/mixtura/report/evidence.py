"""The sections of the page: what was found, in words, pictures and tables."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.special import ndtri
from torch.distributions import Normal

from ..checks import coverage_by, level_histogram, reliability
from ..diagnosis import Diagnosis
from ..effects import as_table, feature_effect, is_number, label_of, permutation_importance
from ..ensemble import Decomposition
from ..errors import MixturaError
from ..estimator import MDNRegressor
from ..evaluation import Evaluation
from ..mixture import Mixture
from ..modes import LEAST_MASS_OF_A_MODE
from ..plots import (
    plot_coverage,
    plot_density_map,
    plot_feature_effect,
    plot_importance,
    plot_pit,
    plot_reliability,
    plot_ridges,
    plot_skill,
    plot_uncertainty,
)
from .pictures import Picture, draw, short
from .words import figures_of

_ROWS_TO_SHUFFLE, _N_SHUFFLES, _MOST_FEATURES = 200, 2, 40
_ROWS_OF_AN_EFFECT, _POINTS_OF_AN_EFFECT, _N_EFFECTS = 40, 12, 2
_ROWS_TO_SEARCH = 200
"""For the one with the most peaks."""
_BARS, _FEATURES_SHOWN = 12, 3


@dataclass(frozen=True)
class Grid:
    """A table: its first column names the rows."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_texts: int = 1
    """How many columns, from the first, hold words and not numbers."""


@dataclass(frozen=True)
class Section:
    """One question, and the answer's evidence."""

    title: str
    text: Sequence[str]
    pictures: Sequence[Picture] = ()
    tables: Sequence[Grid] = ()

    @property
    def name(self) -> str:
        """For links within the page."""
        return re.sub("[^a-z]+", "-", self.title.lower()).strip("-")


@dataclass
class Case:
    """A model, rows with a known target, and what was found of them."""

    model: Any
    network: MDNRegressor | None
    """The model inside of a calibrated one; None where it is none of ours."""
    X: Any
    y: Any
    density: Any
    values: NDArray[np.float64]
    result: Evaluation
    diagnosis: Diagnosis | None
    names: list[str]
    """Of the target's coordinates."""
    seed: int
    importance: pd.DataFrame | None = None
    doubt: NDArray[np.float64] | None = None
    """Share of the variance of each row that is doubt about the model, where the model can tell."""

    @property
    def target(self) -> str:
        """In words."""
        *first, last = self.names
        return f"{', '.join(first)} and {last}" if first else last

    @property
    def is_scalar(self) -> bool:
        """Whether the target is one number a row."""
        return self.values.ndim == 1

    @property
    def asked(self) -> Any:
        """What to ask of other rows: the model, or the one inside where its densities are no mixtures."""
        return self.model if isinstance(self.density, Mixture) else self.network

    @cached_property
    def quantiles(self) -> NDArray[np.float64]:
        """At 5, 50 and 95% of a scalar target, shape (3, n)."""
        return self.density.icdf(torch.tensor([[0.05], [0.5], [0.95]], dtype=torch.float64)).numpy()

    def some(self, n: int) -> NDArray[np.int64]:
        """So many rows at random, in order."""
        if len(self.values) <= n:
            return np.arange(len(self.values))
        return np.sort(np.random.RandomState(self.seed).choice(len(self.values), n, replace=False))

    def labels(self, rows: NDArray[np.int64]) -> list[str]:
        """Names of rows: the index of a table, or their numbers."""
        index = self.X.index if isinstance(self.X, pd.DataFrame) else range(len(self.values))
        return [str(index[row]) for row in rows]

    def features(self, row: int) -> list[str]:
        """The values of the most important features in a row."""
        table = as_table(self.X)
        labels = {label_of(self.X, table, column): column for column in table.columns}
        return [number(table[labels[name]].iloc[row], 6) for name in self.leading]

    @property
    def leading(self) -> list[str]:
        """Labels of the features that matter most."""
        if self.importance is not None:
            return list(self.importance.index[:_FEATURES_SHOWN])
        table = as_table(self.X)
        return [label_of(self.X, table, column) for column in table.columns[:_FEATURES_SHOWN]]


def sections(case: Case) -> list[Section]:
    """All of the evidence, in the order of the page; each section that has something to say."""
    drives = what_drives_it(case)  # first: other sections name the features that matter
    made_of = what_it_is_made_of(case)
    return [how_good(case), is_it_calibrated(case), made_of, drives, single_rows(case), what_to_change(case)]


# Accuracy and calibration ---------------------------------------------------------------------------------------


def how_good(case: Case) -> Section:
    result, table = case.result, case.result.table
    score = "crps" if case.is_scalar else "energy"
    name = "CRPS" if case.is_scalar else "energy score"
    skills = table[table.index.str.startswith(f"{score}_skill_")].dropna(subset=["value"])
    beside = {"unconditional": "no features", "linear": "a straight line"}
    skills = skills.rename(index=lambda metric: beside[metric.rsplit("_", 1)[1]])
    pictures = []
    if len(skills):
        told = "; ".join(
            f"{100 * value:.1f}% ± {100 * error:.1f}% of that with {reference}"
            for reference, value, error in zip(skills.index, skills["value"], skills["standard_error"], strict=True)
        )
        caption = (
            f"What the model saves of the error of simpler forecasts ({name}, as a share): {told}. 0 is no better."
        )
        label = f"share of the {name} saved"
        pictures.append(draw(lambda ax: plot_skill(skills, label=label, ax=ax), "Skill", caption, (4.7, 1.9)))
    error = case.result[score]
    text = [
        f"The {name} is the error of a whole forecast, in units of {case.target}: {error:.4g} here. For a "
        f"forecast of one number it "
        "would be the absolute error. What the error is worth shows beside two simple forecasts of the same "
        "rows: one that knows "
        "no features, and a straight line with normal noise, each learned from the other rows of this table.",
        result.summary,
    ]
    chosen = [m for m in table.index if not re.match("central_|hdr_|pit_", str(m))]
    return Section("How good is it?", text, pictures, [_metrics(case, chosen, "Accuracy", with_right=False)])


def is_it_calibrated(case: Case) -> Section:
    table, pictures = case.result.table, []
    text = [
        "A forecast is calibrated if it's right about how unsure it is: of all values, 5% come out below the "
        "level that each had "
        "a chance of 5% to stay below, and so on at every level."
    ]
    if case.is_scalar:
        # All that these two pictures need is the PIT, which normal scores of a standard normal law have again.
        levels = case.result.by_row["pit"].to_numpy()
        scores = pd.Series(ndtri(levels.clip(1e-15, 1 - 1e-15)), name=short(case.target))
        standard = Mixture(torch.zeros(1, dtype=torch.float64), Normal(torch.zeros(1, dtype=torch.float64), 1.0))
        forecasts = standard.expand((len(levels),))
        pictures.append(
            draw(lambda ax: plot_pit(forecasts, scores, ax=ax), "Histogram of the PIT", _pit_in_words(levels))
        )
        lines = reliability(forecasts, scores, n_bins=19)
        caption = _reliability_in_words(lines, case.target)
        pictures.append(draw(lambda ax: plot_reliability(forecasts, scores, ax=ax), "Reliability", caption))
    else:
        levels = case.result.by_row["hdr_pit"].to_numpy()
        histogram = level_histogram(levels)
        caption = f"Level of the smallest region that reaches to what came. {_bars_in_words(histogram)}"
        pictures.append(draw(lambda ax: _bars(histogram, ax), "Levels of the regions", caption))
    if case.is_scalar and isinstance(case.density, Mixture):
        y = pd.Series(case.values, name=short(case.target))
        tenths = coverage_by(case.density, case.values)
        caption = _coverage_in_words(tenths, case.target)

        def coverage(ax: Axes) -> None:
            plot_coverage(case.density, y, ax=ax)
            ax.set_xticks(ax.get_xticks(), [number(width, 3) for width in tenths["width"]], rotation=40, ha="right")
            ax.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
            ax.set_xlabel("mean width of the interval in each tenth of the rows")

        pictures.append(draw(coverage, "Coverage by width of the interval", caption))
    chosen = [m for m in table.index if re.match("central_|hdr_|pit_", str(m))]
    return Section("Is it calibrated?", text, pictures, [_metrics(case, chosen, "Calibration and sharpness")])


def _metrics(case: Case, chosen: list[str], caption: str, with_right: bool = True) -> Grid:
    head = ["what", "value", "standard error", *(["right is"] if with_right else []), "metric"]
    rows = []
    for metric in chosen:
        value, error, right = figures_of(case.result, metric)
        figures = [number(value), number(error), *([number(right)] if with_right else [])]
        rows.append([meaning(metric, case.target), *figures, metric])
    return Grid(f"{caption}, on {len(case.values):,} rows", head, rows)


def meaning(metric: str, target: str) -> str:
    """A metric in words."""
    fixed = {
        "nll": "negative log density, nats a row (lower is better; it may be negative)",
        "crps": f"error of the whole forecast, in units of {target}",
        "energy": "error of the whole forecast of the vector",
        "pit_mean": "mean of the PIT: above, what comes is higher than forecast",
        "pit_dispersion": "dispersion of the PIT: above, too narrow; below, too wide",
        "hdr_pit_mean": "mean level of the region at y: above, too narrow",
        "hdr_pit_dispersion": "dispersion of these levels",
    }
    references = {"unconditional": "no features", "linear": "a straight line"}
    if metric in fixed:
        return fixed[metric]
    kind, _, rest = metric.partition("_")
    last = metric.rsplit("_", 1)[1]
    if "gain" in metric:
        return f"nats a row better than {references[last]}"
    if "skill" in metric:
        return f"share of the error saved beside {references[last]}"
    if kind in ("rmse", "mae"):
        return f"{'root mean square' if kind == 'rmse' else 'mean absolute'} error of the {last}, in units of {target}"
    if "coverage" in metric:
        return f"share of values in the {'central' if kind == 'central' else 'smallest'} {last}% range"
    if "width" in metric:
        return f"mean width of the {'central' if kind == 'central' else 'smallest'} {last}% range, in units of {target}"
    levels = "levels of the regions" if kind == "hdr" else "PIT"
    endings = {
        "ks": f"greatest distance of the {levels} from uniform",
        "ks_p_value": "chance of such a distance or a greater one, if calibrated",
        "calibration_error": f"mean distance of the {levels} from uniform",
    }
    return next((words for ending, words in endings.items() if metric.endswith(f"pit_{ending}")), rest)


def _pit_in_words(levels: NDArray[np.float64]) -> str:
    shares = "Where each value fell in its forecast, from 0 (below all that was foreseen) to 1 (above it)."
    return f"{shares} {_bars_in_words(level_histogram(levels))}"


def _bars_in_words(histogram: pd.DataFrame) -> str:
    observed, lower, upper = (histogram[name] for name in ("observed", "lower", "upper"))
    n_outside = _n_outside(histogram)
    return (
        f"Each of the {len(histogram)} bars would be {1 / len(histogram):.0%} if calibrated; they lie between "
        f"{observed.min():.1%} and "
        f"{observed.max():.1%}. {_count(n_outside, 'bar is', 'bars are')} outside of the grey band of chance "
        f"({lower.iloc[0]:.1%} to {upper.iloc[0]:.1%}), where one is expected."
    )


def _n_outside(table: pd.DataFrame) -> int:
    """Lines of a table of `mixtura.checks` that are outside of their band."""
    return int(((table["observed"] < table["lower"]) | (table["observed"] > table["upper"])).sum())


def _bars(histogram: pd.DataFrame, ax: Axes) -> None:
    """Levels of regions as `plot_pit` has them."""
    standard = Mixture(torch.zeros(1, dtype=torch.float64), Normal(torch.zeros(1, dtype=torch.float64), 1.0))
    counts = (histogram["observed"] * histogram["n_rows"]).round().astype(int).to_numpy()
    middles = np.repeat([bin.mid for bin in histogram.index], counts)
    plot_pit(standard.expand((len(middles),)), ndtri(middles), ax=ax)
    ax.set_xlabel("level of the smallest region with y")


def _reliability_in_words(lines: pd.DataFrame, target: str) -> str:
    forecast, observed = (lines[name].to_numpy(np.float64) for name in ("forecast", "observed"))
    worst = np.abs(observed - forecast).argmax()
    n_outside = _n_outside(lines)
    return (
        f"What was foreseen, and what came: on the diagonal they agree. They differ most at the "
        f"{forecast[worst]:.0%} quantile, below "
        f"which {observed[worst]:.1%} of {target} lay. {_count(n_outside, 'point is', 'points are')} outside "
        f"of the grey band of "
        f"chance, of {len(lines)}."
    )


def _coverage_in_words(tenths: pd.DataFrame, target: str) -> str:
    observed = tenths["observed"].to_numpy(np.float64)
    low, high = observed.argmin(), observed.argmax()
    n_outside = _n_outside(tenths)
    return (
        f"Is it right where it is sure, and where it is not? Rows in tenths, from the narrowest 90% interval "
        f"(tenth 1, {tenths['width'].iloc[0]:.3g} "
        f"wide) to the widest (tenth {len(tenths)}, {tenths['width'].iloc[-1]:.3g}): least {target} is held in "
        f"tenth {low + 1} "
        f"({observed[low]:.1%}), most in tenth {high + 1} ({observed[high]:.1%}). "
        f"{_count(n_outside, 'tenth is', 'tenths are')} outside of its bar of chance."
    )


# Uncertainty and features ---------------------------------------------------------------------------------------


def what_it_is_made_of(case: Case) -> Section:
    title = "What is its uncertainty made of?"
    text = [
        "Noise (aleatoric) is what the values differ by even if all features are the same; more rows would not take it "
        "away. Doubt (epistemic) is what the "
        "members of the model disagree about; more rows like these would."
    ]
    try:
        if case.network is None:
            return Section(
                title, [*text, "This model is not one of networks of Mixtura, and can't tell the two apart."]
            )
        parts = case.network.uncertainty(case.X)
    except MixturaError as error:
        if error.code not in ("E-single-member", "E-covariance-angle"):
            raise
        return Section(title, [*text, f"This model can't tell the two apart: it is {error.got}. To know, {error.fix}."])
    if not bool(parts.total.isfinite().all()):
        return Section(title, [*text, "The variance of its forecasts is not finite, so that there is none to split."])
    share = (parts.epistemic / parts.total).numpy()
    if not case.is_scalar:
        rows = [
            [name, *(f"{100 * value:.1f}%" for value in _shares(parts.epistemic[:, i], parts.total[:, i]))]
            for i, name in enumerate(case.names)
        ]
        case.doubt = share.mean(-1)
        grid = Grid(
            "Share of doubt in the variance",
            ["target", "of all rows", "of the median row", "of the row with most"],
            rows,
        )
        return Section(title, text, (), [grid])
    case.doubt = share
    whole, median, most = _shares(parts.epistemic, parts.total)
    text.append(
        f"Of the variance of the forecasts, {100 * whole:.1f}% is doubt and {100 * (1 - whole):.1f}% noise. In "
        f"the median row doubt is "
        f"{100 * median:.1f}%, in the row with the most {100 * most:.1f}%. "
        + ("More rows may make it surer." if whole > 0.1 else "More rows of the same kind would hardly make it surer.")
        + " Take doubt as an order of rows, not as an error bar: members that learn together agree more than "
        "they should."
    )
    if case.model is not case.network:
        text.append("These are the shares before calibration.")
    order = np.argsort(-share, kind="stable")[:5]
    std = parts.total.sqrt().numpy()
    rows = [
        [f"row {label}", f"{100 * share[row]:.1f}%", number(std[row]), *case.features(row)]
        for row, label in zip(order, case.labels(order), strict=True)
    ]
    head = ["row", "share of doubt", f"standard deviation of {case.target}", *case.leading]
    return Section(title, text, _along(case, parts), [Grid("The rows with the largest share of doubt", head, rows)])


def _shares(epistemic: torch.Tensor, total: torch.Tensor) -> tuple[float, float, float]:
    each = epistemic / total
    return (epistemic.sum() / total.sum()).item(), each.median().item(), each.max().item()


def _along(case: Case, parts: Decomposition) -> list[Picture]:
    """Noise and doubt along the most important feature that is a number, in tenths of the rows."""
    table = as_table(case.X)
    labels = {label_of(case.X, table, column): column for column in table.columns}
    order = list(labels) if case.importance is None else list(case.importance.index)
    for name in order:
        values = table[labels[name]]
        known = values.notna().to_numpy()
        if not is_number(values) or values.nunique() < 5 or known.sum() < 20:
            continue
        values = values[known].astype(float)
        tenths = pd.qcut(values, min(10, values.nunique()), duplicates="drop")
        along = values.groupby(tenths, observed=True).transform("mean").rename(short(name))
        rows = torch.tensor(np.flatnonzero(known))
        some = replace(parts, **{part: getattr(parts, part)[rows] for part in ("total", "aleatoric", "epistemic")})
        share = (some.epistemic / some.total).numpy()
        means = pd.Series(share).groupby(along.to_numpy()).mean()
        caption = (
            f"Variance of {case.target} in tenths of the rows along {name}: doubt on top of noise. The mean "
            f"share of doubt is largest, "
            f"{means.max():.1%}, near {name} = {means.idxmax():.4g}, and least, {means.min():.1%}, near "
            f"{means.idxmin():.4g}."
        )

        def plot(ax: Axes, some: Decomposition = some, along: pd.Series = along) -> None:
            plot_uncertainty(some, along, ax=ax).set_ylabel(f"variance of {short(case.target)}")

        return [draw(plot, "Noise and doubt", caption)]
    return []


def what_drives_it(case: Case) -> Section:
    title, table = "What drives it?", as_table(case.X)
    if case.asked is None or table.shape[1] > _MOST_FEATURES:
        why = f"it has {table.shape[1]} features, more than {_MOST_FEATURES}" if case.asked else "it can't be asked"
        return Section(title, [f"Left out, since {why}: see mixtura.permutation_importance."])
    rows = case.some(_ROWS_TO_SHUFFLE)
    X, y = take(case.X, rows), case.values[rows]
    importance = permutation_importance(case.asked, X, y, n_repeats=_N_SHUFFLES, random_state=case.seed)
    case.importance = importance
    score = importance.columns.name
    text = [
        f"A feature matters as far as forecasts get worse when its values are shuffled among the rows: measured "
        f"on {len(rows)} rows, "
        f"{_N_SHUFFLES} times. Features that say the same stand in for each other, and each seems to matter little."
    ]
    if case.asked is not case.model:
        text.append("Asked of the model before calibration.")
    first = importance.iloc[0]
    n_sure = int((importance["rise"] > 2 * importance["standard_error"]).sum())
    caption = (
        f"Rise of the {score} when a feature is shuffled: most for {importance.index[0]}, {first['rise']:.3g} ± "
        f"{first['standard_error']:.2g}; {n_sure} of {len(importance)} features matter beyond chance."
    )
    shown = importance.head(_BARS)
    if len(shown) < len(importance):
        caption += f" The {_BARS} first are drawn."
    height = 1.1 + 0.26 * len(shown)

    def plot(ax: Axes) -> None:
        bars = shown.rename(index=short)
        bars.columns.name = f"{str(score).split(' of ')[0]} of {short(case.target)}"
        plot_importance(bars, ax=ax)
        low, high = ax.get_xlim()
        ax.set_xlim(low - 0.12 * (high - low) * bool((shown["rise"] < 0).any()), high)  # room for numbers on the left

    pictures = [draw(plot, "Importance of the features", caption, (4.7, height))]
    if case.is_scalar:
        some = case.some(_ROWS_OF_AN_EFFECT)
        for name in importance.index[:_N_EFFECTS]:
            column = {label_of(case.X, table, column): column for column in table.columns}[name]
            pictures.append(_effect(case, take(case.X, some), column))
        text.append(
            f"Below, {_count(len(some), 'row', 'rows')} with one feature set to each of its values in turn, and "
            f"the others as they are. "
            "It says what the model does, not what would happen if the feature were changed."
        )
    head = ["feature", f"rise of the {score}", "standard error"]
    grid = Grid(
        "Importance of the features",
        head,
        [[str(i), number(a), number(b)] for i, (a, b) in zip(importance.index, importance.to_numpy(), strict=True)],
    )
    return Section(title, text, pictures, [grid])


def _effect(case: Case, X: Any, column: Any) -> Picture:
    effect = feature_effect(case.asked, X, column, n_points=_POINTS_OF_AN_EFFECT)
    mean, spread, name = effect["mean"], effect["spread"], effect.index.name
    effect.columns.name, effect.index.name = short(case.target), short(name)
    caption = (
        f"As {name} goes from {number(effect.index[0])} to {number(effect.index[-1])}, the mean of "
        f"{case.target} goes from "
        f"{mean.iloc[0]:.4g} to {mean.iloc[-1]:.4g} (least {mean.min():.4g}, most {mean.max():.4g}), and the "
        f"spread of a row from "
        f"{spread.iloc[0]:.3g} to {spread.iloc[-1]:.3g}."
    )
    return draw(lambda ax: plot_feature_effect(effect, ax=ax), f"Effect of {name}", caption)


# Rows -----------------------------------------------------------------------------------------------------------


def single_rows(case: Case) -> Section:
    """A few rows that differ in what is forecast."""
    why, n_peaks = _chosen(case)
    rows = np.array(list(why))
    labels = case.labels(rows)
    names = [f"{', '.join(words)}: row {label}" for words, label in zip(why.values(), labels, strict=True)]
    text = [
        "Rows chosen for what was forecast of them: by how wide the forecast is"
        + (f", the number of its peaks (among {len(n_peaks)} rows)" if n_peaks else "")
        + (", the share of doubt" if case.doubt is not None else "")
        + ", and how unlikely it held what came. Rows are named by their index; those of a file count from 0."
    ]
    title = "What does it say of single rows?"
    if not case.is_scalar:
        return Section(title, text, _maps(case, rows, names), [_vector_rows(case, rows, names)])
    low, middle, high = case.quantiles[:, rows]
    came, losses = case.values[rows], case.result.by_row["nll"].to_numpy()[rows]
    head = ["row", "middle forecast", "90% range", "what came", "NLL", *case.leading]
    lines = [
        [name, number(m), f"{number(a)} to {number(b)}", number(y), number(loss), *case.features(row)]
        for name, a, m, b, y, loss, row in zip(names, low, middle, high, came, losses, rows, strict=True)
    ]
    grid = Grid("A few rows: what was forecast, and what came", head, lines)
    if not isinstance(case.density, Mixture):
        return Section(title, text, (), [grid])
    n_inside = int(((low <= came) & (came <= high)).sum())
    caption = (
        "Forecast densities of these rows, each drawn as high as the others: the wider, the less sure. Their 90% "
        f"ranges are between {number((high - low).min())} and {number((high - low).max())} wide, and hold what came "
        f"in {n_inside} of {len(rows)}."
    )
    several = [f"{n_peaks[row]} ({words[0]})" for row, words in why.items() if n_peaks.get(row, 1) > 1]
    if several:
        caption += f" Those with several peaks have {', '.join(several)}."
    y = pd.Series(came, name=short(case.target))
    density, reasons = case.density[torch.tensor(rows)], [words[0] for words in why.values()]
    size = (4.7, 1.2 + 0.55 * len(rows))
    picture = draw(lambda ax: plot_ridges(density, y, names=reasons, ax=ax), "Densities of single rows", caption, size)
    return Section(title, text, [picture], [grid])


def _chosen(case: Case) -> tuple[dict[int, list[str]], dict[int, int]]:
    """Rows and why they were chosen; of some rows the number of peaks."""
    if case.is_scalar:
        spread = case.quantiles[2] - case.quantiles[0]
    else:
        spread = case.density.variance.log().mean(-1).detach().numpy()
    order = np.argsort(spread, kind="stable")
    ranks = {"surest": order[0], "typical": order[len(order) // 2], "least sure": order[-1]}
    n_peaks: dict[int, int] = {}
    if case.is_scalar and isinstance(case.density, Mixture):
        some = case.some(_ROWS_TO_SEARCH)
        peaks = (case.density[torch.tensor(some)].modes().mass >= LEAST_MASS_OF_A_MODE).sum(-1).numpy()
        n_peaks = {int(row): int(n) for row, n in zip(some, peaks, strict=True)}
        if peaks.max() > 1:
            ranks["most peaks"] = some[peaks.argmax()]
    if case.doubt is not None:
        ranks["most doubt"] = case.doubt.argmax()
    ranks["worst forecast"] = case.result.by_row["nll"].to_numpy().argmax()
    why: dict[int, list[str]] = {}
    for reason, row in ranks.items():
        why.setdefault(int(row), []).append(reason)
    return why, n_peaks


def _vector_rows(case: Case, rows: NDArray[np.int64], names: list[str]) -> Grid:
    mean, std = case.density.mean.detach().numpy(), case.density.variance.sqrt().detach().numpy()
    head = ["row", *(f"{part} of {name}" for name in case.names for part in ("mean ± standard deviation", "what came"))]
    lines = []
    for name, row in zip(names, rows, strict=True):
        cells = [
            (f"{number(mean[row, d])} ± {number(std[row, d])}", number(case.values[row, d]))
            for d in range(len(case.names))
        ]
        lines.append([name, *(cell for pair in cells for cell in pair)])
    return Grid("A few rows: what was forecast, and what came", head, lines)


def _maps(case: Case, rows: NDArray[np.int64], names: list[str]) -> list[Picture]:
    if len(case.names) != 2 or not isinstance(case.density, Mixture):
        return []

    def plot(row: int) -> Callable[[Axes], None]:
        def on(ax: Axes) -> None:
            plot_density_map(case.density[int(row)], case.values[row], ax=ax)
            ax.set(xlabel=short(case.names[0]), ylabel=short(case.names[1]))
            ax.xaxis.set_major_locator(MaxNLocator(4))

        return on

    chosen = list(zip(rows, names, strict=True))
    return [
        draw(
            plot(row),
            f"Density of {name}",
            f"{name}: the joint density with its 50, 80 and 95% regions; the mark is what came.",
            light=True,
        )
        for row, name in (chosen[1], chosen[-1])
    ]


# Advice ---------------------------------------------------------------------------------------------------------


def what_to_change(case: Case) -> Section:
    title = "What should be changed?"
    if case.diagnosis is None:
        return Section(title, ["Only models of Mixtura can be diagnosed."])
    found = case.diagnosis.findings
    counts = {kind: sum(one.severity == kind for one in found) for kind in ("warning", "note", "good")}
    text = [
        f"The doctor looked at {case.diagnosis.n_rows:,} rows: "
        f"{_count(counts['warning'], 'warning', 'warnings').lower()}, which ask for a change; "
        f"{_count(counts['note'], 'note', 'notes').lower()}, good to know; "
        f"{_count(counts['good'], 'thing', 'things').lower()} "
        "in order." + (" It looks at the model before calibration." if case.model is not case.network else "")
    ]
    rows = [[one.severity, one.what, one.advice or "Nothing.", one.code] for one in found]
    return Section(
        title, text, (), [Grid("Findings", ["severity", "what was found", "what to change", "code"], rows, 4)]
    )


# Numbers and rows -----------------------------------------------------------------------------------------------


def number(value: Any, digits: int = 4) -> str:
    """A number, rounded, a dash for none; texts as they are."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        return "–" if value is None or value is pd.NA or value is pd.NaT else str(value)
    if math.isnan(value):
        return "–"
    if not math.isfinite(value):
        return "infinite" if value > 0 else "−infinite"
    if float(value).is_integer() and abs(value) < 1e6:
        return str(int(value)).replace("-", "−")
    is_large = 10**digits <= abs(value) < 1e7
    return (f"{value:.0f}" if is_large else f"{value:.{digits}g}").replace("-", "−")


def _count(n: int, one: str, many: str) -> str:
    return f"{n if n else 'No'} {one if n == 1 else many}"


def take(X: Any, rows: NDArray[np.int64]) -> Any:
    """Some rows of a table or an array."""
    return X.iloc[rows] if isinstance(X, pd.DataFrame | pd.Series) else X[rows]
