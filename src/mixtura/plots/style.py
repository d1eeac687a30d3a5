"""What all pictures share: colours, axes, names."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

INK, BLUE, ORANGE, GREY = "#1b2a41", "#2f6db5", "#d1603d", "#8d99ae"
"""The colours of all pictures: text and data, the model, what it is compared with, what stands back."""
DENSITY_MAP = "Blues"
BANDS = (0.95, 0.8, 0.5)
ABOVE = {"frameon": False, "loc": "lower left", "bbox_to_anchor": (0, 1), "columnspacing": 1.2}
"""Where a legend goes that would hide something inside."""


def axes(ax: Axes | None) -> Axes:
    """The caller's axes, or those of a new figure."""
    if ax is None:
        ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")[1]
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def in_percent(axis: Axis) -> None:
    """Shares as 5% or 92.5%."""
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.4g}%"))


def name_of(values: Any, default: str) -> str:
    """The name that a pandas Series or Index carries."""
    name = getattr(values, "name", None)
    return default if name is None else str(name)


def draw_bars(
    names: list[Any], values: NDArray[np.float64], errors: NDArray[np.float64] | None, label: str, ax: Axes
) -> Axes:
    """Horizontal bars from 0, the first on top, each with its number, and a standard error on either side."""
    positions = np.arange(len(names))[::-1]
    ax.barh(positions, values, color=[BLUE if value >= 0 else ORANGE for value in values], height=0.65)
    spread = np.zeros(len(values)) if errors is None else np.nan_to_num(errors)
    if errors is not None:
        ax.errorbar(values, positions, xerr=spread, fmt="none", color=INK, lw=1.2, capsize=2.5)
    for value, error, position in zip(values, spread, positions, strict=True):
        side = 1 if value >= 0 else -1
        ax.annotate(
            f"{value:.3g}",
            (value + side * error, position),
            xytext=(side * 5, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            fontsize=9,
            color=INK,
        )
    ax.axvline(0, color=INK, lw=0.8)
    ax.margins(x=0.15)
    ax.set_yticks(positions, [str(name) for name in names])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(label)
    return ax
