"""Pictures of what features do: to the density, to the score, to what an ensemble is unsure of."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from ..ensemble import Decomposition
from ..errors import MixturaError
from .style import ABOVE, BLUE, GREY, INK, ORANGE, axes, draw_bars, name_of


def plot_feature_effect(effect: pd.DataFrame, *, kind: str = "mean", ax: Axes | None = None) -> Axes:
    """Partial dependence of the distribution on one feature: of its mean, its spread or its number of modes.

    Parameters
    ----------
    effect
        Of `feature_effect`.
    kind
        ``"mean"``, with one spread on either side; ``"spread"``, of the rows and of their pool; ``"n_modes"``.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    MixturaError
        ``E-plot-kind``.
    """
    if kind not in ("mean", "spread", "n_modes"):
        got, expected = f"kind={kind!r}", "'mean', 'spread' or 'n_modes'"
        raise MixturaError("E-plot-kind", got, expected, "choose one of these")
    is_number = pd.api.types.is_numeric_dtype(effect.index) and not pd.api.types.is_bool_dtype(effect.index)
    along = effect.index.to_numpy(np.float64) if is_number else np.arange(len(effect))
    mark = "-" if is_number else "o"
    ax = axes(ax)
    if kind == "mean":
        low, high = effect["mean"] - effect["spread"], effect["mean"] + effect["spread"]
        if is_number:
            ax.fill_between(along, low, high, color=BLUE, alpha=0.2, lw=0, label="± spread")
        else:
            ax.vlines(along, low, high, color=BLUE, alpha=0.4, lw=4, label="± spread")
    if kind == "spread":
        ax.plot(along, effect["pooled_spread"], mark, color=GREY, lw=1.5, label="with the differences between rows")
    label = {"mean": "mean", "spread": "of a row", "n_modes": None}[kind]
    ax.plot(along, effect[kind], mark, color=BLUE, lw=2, label=label)
    if kind != "n_modes":
        ax.legend(frameon=False)
    if kind == "spread":
        ax.set_ylim(0, 1.15 * effect["pooled_spread"].max())
    if kind == "n_modes":
        ax.set_ylim(0.95, max(2, effect["n_modes"].max() + 0.1))
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    if is_number:
        ax.set_xlim(along[0], along[-1])
    else:
        ax.set_xticks(along, [str(value) for value in effect.index])
        ax.set_xlim(-0.5, len(along) - 0.5)
    target = effect.columns.name or "y"
    ax.set_xlabel(str(effect.index.name or "feature"))
    ax.set_ylabel({"mean": target, "spread": f"standard deviation, {target}", "n_modes": "modes, mean over rows"}[kind])
    return ax


def plot_importance(importance: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """How much the score rises when a feature is shuffled, in bars, with one standard error on either side.

    Parameters
    ----------
    importance
        Of `permutation_importance`.
    ax
        Where to draw; a new figure by default.
    """
    label = f"rise of the {importance.columns.name or 'score'} when shuffled"
    values, errors = (importance[name].to_numpy(np.float64) for name in ("rise", "standard_error"))
    return draw_bars(list(importance.index), values, errors, label, axes(ax))


def plot_uncertainty(parts: Decomposition, along: ArrayLike, *, ax: Axes | None = None) -> Axes:
    """Variance of an ensemble along a feature: noise in y (aleatoric) and, on top, doubt about the model (epistemic).

    Variances add up, standard deviations would not.

    Parameters
    ----------
    parts
        Of `decompose`, for n rows of a scalar target: best those of a grid, with the other features fixed.
    along
        The feature's value in each row, shape (n,). Rows of equal value are averaged.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    MixturaError
        ``E-plot-shape`` for vectors, ``E-input-length`` where the lengths differ.
    """
    if parts.total.ndim != 1:
        got, fix = f"variances of shape {tuple(parts.total.shape)}", "decompose the margins, .marginal(dim)"
        raise MixturaError("E-plot-shape", got, "shape (n,), of a scalar target", fix)
    values = np.asarray(along)
    if len(values) != len(parts.total):
        got = f"{len(values)} values of a feature for {len(parts.total)} rows"
        raise MixturaError("E-input-length", got, "one for each row", "give the feature of these rows")
    table = pd.DataFrame({"aleatoric": parts.aleatoric.detach().cpu(), "epistemic": parts.epistemic.detach().cpu()})
    table = table.groupby(values).mean()
    ax = axes(ax)
    ax.fill_between(table.index, 0, table["aleatoric"], color=BLUE, alpha=0.45, lw=0, label="aleatoric")
    total = table.sum(axis=1)
    label = "epistemic"
    ax.fill_between(table.index, table["aleatoric"], total, color=ORANGE, alpha=0.6, lw=0, label=label)
    ax.plot(table.index, total, color=INK, lw=1.2, label="total")
    ax.set_xlim(table.index[0], table.index[-1])
    ax.set_ylim(bottom=0)
    ax.set_xlabel(name_of(along, "feature"))
    ax.set_ylabel("variance of y")
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], labels[::-1], ncols=3, **ABOVE)
    return ax
