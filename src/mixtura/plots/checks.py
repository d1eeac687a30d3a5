"""Pictures that set forecasts beside what was observed; the numbers are those of `mixtura.checks`."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from ..checks import coverage_by, in_rows, level_histogram, reliability
from ..errors import MixturaError
from ..mixture import Mixture, plain_mixture
from ..scores import hdr_level, pit
from .style import ABOVE, BLUE, GREY, INK, ORANGE, axes, draw_bars, in_percent, name_of

_BAND_LABEL = "95% if calibrated"


def plot_pit(mixture: Mixture, y: ArrayLike, *, kind: str = "pit", n_bins: int = 20, ax: Axes | None = None) -> Axes:
    """Histogram of where y lies in its forecast, which is flat where the forecasts are calibrated.

    Like a U: too sharp. A hump: too wide. A slope: too high or too low. Of highest-density levels: low on the right
    where forecasts are too wide, high on the right where they are too sharp.

    In the band each bar by itself would be with a probability of 95%, by the binomial law (Bröcker and Smith 2007):
    one of 20 bars is outside by chance.

    Parameters
    ----------
    mixture
        Forecasts, batch_shape (n,).
    y
        Observations, shape (n,) or (n, D).
    kind
        ``"pit"`` for the cdf at y, drawn within the jump at atoms and of counts; ``"hdr"`` for the level of the
        highest-density region with y on its edge, which vectors have too.
    n_bins
        How many bars.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    MixturaError
        ``E-plot-kind``, ``E-scalar-only`` for the PIT of a vector, ``E-not-continuous`` for highest-density levels of a
        law with point masses, which are not uniform, ``E-value-shape``.
    """
    if kind not in ("pit", "hdr"):
        raise MixturaError("E-plot-kind", f"kind={kind!r}", "'pit' or 'hdr'", "choose one of these")
    mixture, values = in_rows(mixture, y)
    if kind == "hdr":
        mixture._check_continuous("hdr_level")
    table = level_histogram((pit if kind == "pit" else hdr_level)(mixture, values), n_bins)
    ax = axes(ax)
    left, width = [float(bin.left) for bin in table.index], 1 / n_bins
    lower, upper = table["lower"].iloc[0], table["upper"].iloc[0]
    ax.axhspan(lower, upper, color=GREY, alpha=0.35, lw=0, label=_BAND_LABEL, zorder=0)
    ax.bar(left, table["observed"], width, align="edge", color=BLUE, alpha=0.7, edgecolor="white", lw=0.8)
    ax.axhline(width, color=INK, lw=1, ls=(0, (4, 3)), label="calibrated")
    ax.set_xlim(0, 1)
    in_percent(ax.yaxis)
    ax.set_xlabel(f"PIT of {name_of(y, 'y')}" if kind == "pit" else "level of the highest-density region at y")
    ax.set_ylabel("share of rows")
    ax.legend(ncols=2, **ABOVE)
    return ax


def plot_reliability(
    mixture: Mixture, y: ArrayLike, *, threshold: float | None = None, n_bins: int = 10, ax: Axes | None = None
) -> Axes:
    """What was forecast with a probability, beside how often it happened: on the diagonal where forecasts are right.

    Without a threshold, of all quantiles: the share of y below them. With one, of the event Y >= threshold, in bins of
    rows with similar forecasts.

    In the band each point by itself would be with a probability of 95%, by the law of the number of events, Poisson
    binomial (Bröcker and Smith 2007). The points of quantiles are of the same rows, and leave the band together.

    Parameters
    ----------
    mixture, y, threshold, n_bins
        As for `mixtura.checks.reliability`.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    MixturaError
        As `mixtura.checks.reliability`.
    """
    table = reliability(mixture, y, threshold=threshold, n_bins=n_bins if threshold is not None else 2 * n_bins - 1)
    ax = axes(ax)
    ax.fill_between(table["forecast"], table["lower"], table["upper"], color=GREY, alpha=0.35, lw=0, label=_BAND_LABEL)
    ax.plot([0, 1], [0, 1], color=INK, lw=1, ls=(0, (4, 3)), label="reliable")
    ax.plot(table["forecast"], table["observed"], "o-", color=BLUE, ms=4.5, lw=1.2, label="observed")
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    name = name_of(y, "y")
    if threshold is None:
        ax.set_xlabel("level of the predicted quantile")
        ax.set_ylabel(f"share of {name} below it")
    else:
        ax.set_xlabel(f"forecast P({name} ≥ {threshold:g})")
        ax.set_ylabel("how often it happened")
    ax.legend(frameon=False, loc="upper left")
    return ax


def plot_coverage(
    mixture: Mixture,
    y: ArrayLike,
    by: ArrayLike | None = None,
    *,
    coverage: float = 0.9,
    ax: Axes | None = None,
) -> Axes:
    """How often the central interval holds y, by group of rows, or by tenth of the rows from narrow to wide intervals.

    On each bar the share of each group by itself would be with a probability of 95%, by the law of the number of
    events (Bröcker and Smith 2007): the fewer rows, the longer.

    Parameters
    ----------
    mixture, y, by, coverage
        As for `mixtura.checks.coverage_by`.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    MixturaError
        As `mixtura.checks.coverage_by`.
    """
    table = coverage_by(mixture, y, by, coverage=coverage)
    ax = axes(ax)
    positions = np.arange(len(table))
    spans = table["upper"] - table["lower"]
    ax.bar(positions, spans, 0.5, table["lower"], color=GREY, alpha=0.35, lw=0, label=_BAND_LABEL)
    ax.hlines(table["forecast"], positions - 0.25, positions + 0.25, color=INK, lw=1, label="forecast")
    is_right = table["observed"].between(table["lower"], table["upper"]).to_numpy()
    for rows, color, label in ((is_right, BLUE, "observed"), (~is_right, ORANGE, "outside")):
        if rows.any():
            ax.plot(positions[rows], table["observed"][rows], "o", color=color, ms=6, label=label)
    if by is None:
        ax.set_xticks(positions, [f"{width:.2g}" for width in table["width"]], fontsize=9)
        ax.set_xlabel(f"mean width in each tenth of the rows, {name_of(y, 'y')}")
    else:
        longest = max(len(str(group)) for group in table.index)
        slant = {"rotation": 35, "ha": "right"} if longest * len(table) > 60 else {}
        ax.set_xticks(positions, [str(group) for group in table.index], **slant)
        ax.set_xlabel(str(table.index.name))
    lowest = min(table["lower"].min(), table["observed"].min())
    ax.set_ylim(max(0, lowest - 0.1 * (1 - lowest) - 0.02), 1.01)
    in_percent(ax.yaxis)
    ax.set_ylabel(f"{name_of(y, 'y')} inside of its {coverage:.0%} interval")
    ax.legend(ncols=2, **ABOVE)
    return ax


def plot_sharpness(
    mixture: Mixture, y: ArrayLike | None = None, *, coverage: float = 0.9, ax: Axes | None = None
) -> Axes:
    """How wide the central intervals are: of two calibrated forecasts, the sharper one tells more.

    Parameters
    ----------
    mixture
        Forecasts of a scalar target, batch_shape (n,).
    y
        Observations, shape (n,): adds how wide one interval for all rows would be, of the quantiles of y itself.
    coverage
        Probability of the intervals.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    MixturaError
        ``E-scalar-only``, ``E-coverage-range``.
    """
    width = plain_mixture(mixture).detach().flat().central_interval(coverage).size.cpu().numpy()
    ax = axes(ax)
    ax.hist(width, bins=40, weights=np.full(len(width), 1 / len(width)), color=BLUE, alpha=0.7, lw=0)
    marks = {"median": (float(np.median(width)), INK)}
    if y is not None:
        low, high = np.quantile(np.asarray(y, dtype=np.float64), [(1 - coverage) / 2, (1 + coverage) / 2])
        marks["without features"] = (float(high - low), ORANGE)
    for name, (value, color) in marks.items():
        ax.axvline(value, color=color, lw=1.5, ls="-" if color == ORANGE else (0, (4, 3)), label=f"{name}: {value:.3g}")
    ax.set_xlim(left=0)
    in_percent(ax.yaxis)
    ax.set_xlabel(f"width of the {coverage:.0%} interval, {name_of(y, 'y')}")
    ax.set_ylabel("share of rows")
    ax.legend(frameon=False)
    return ax


def plot_skill(skills: pd.DataFrame, *, label: str = "skill", ax: Axes | None = None) -> Axes:
    """How much better models are than a reference, in bars, with one standard error on either side.

    Parameters
    ----------
    skills
        Indexed by the model's name: `value`, better where it is higher, 0 for the reference; and, where it is known,
        `standard_error`.
    label
        What the values are, with their unit: ``"CRPS skill over the marginal density"``, ``"gain in NLL, nats"``.
    ax
        Where to draw; a new figure by default.
    """
    errors = skills["standard_error"].to_numpy(np.float64) if "standard_error" in skills else None
    return draw_bars(list(skills.index), skills["value"].to_numpy(np.float64), errors, label, axes(ax))
