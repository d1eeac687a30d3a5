"""Pictures of conditional densities. Every function draws on one matplotlib axes and returns it."""

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.patches import Ellipse
from numpy.typing import ArrayLike

from .errors import MixturaError
from .learner import FitReport
from .mixture import Mixture
from .selection import Selection

if TYPE_CHECKING:
    from .estimator import MDNRegressor

INK, BLUE, ORANGE, GREY = "#1b2a41", "#2f6db5", "#d1603d", "#8d99ae"
"""The colours of all pictures: text and data, the model, what it is compared with, what stands back."""
_DENSITY_MAP = "Blues"
_BANDS = (0.95, 0.8, 0.5)


def _axes(ax: Axes | None) -> Axes:
    if ax is None:
        ax = plt.subplots(figsize=(6.4, 4.2), layout="constrained")[1]
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def plot_density(
    model: "MDNRegressor",
    X: Any,
    y: ArrayLike | None = None,
    *,
    feature: int | str = 0,
    kind: str = "heatmap",
    n_points: int = 200,
    ax: Axes | None = None,
) -> Axes:
    """p(y | x) along one feature, the others held at their median (numbers) or most frequent value (categories).

    Parameters
    ----------
    model
        Fitted on a scalar target.
    X
        Rows whose range the picture covers, as for `predict`.
    y
        Shape (n,); drawn as points over the density.
    feature
        Name or position of the feature on the horizontal axis; it must be a number.
    kind
        ``"heatmap"`` for the density itself, ``"fan"`` for the median and central 50, 80 and 95% bands.
    n_points
        Points along the feature (and along y).
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    MixturaError
        ``E-plot-kind``, ``E-plot-feature``, ``E-input-length``, ``E-scalar-only`` for a vector target.
    """
    if kind not in ("heatmap", "fan"):
        raise MixturaError("E-plot-kind", f"kind={kind!r}", "'heatmap' or 'fan'", "choose one of these")
    table = X if isinstance(X, pd.DataFrame) else pd.DataFrame(np.asarray(X))
    if feature not in table.columns and not (isinstance(feature, int) and 0 <= feature < table.shape[1]):
        expected = f"one of {', '.join(map(str, table.columns))}"
        raise MixturaError("E-plot-feature", f"feature={feature!r}", expected, "name a column, or give its position")
    column = feature if feature in table.columns else table.columns[int(feature)]
    is_number = pd.api.types.is_numeric_dtype(table[column]) and not pd.api.types.is_bool_dtype(table[column])
    if not is_number or table[column].isna().all():
        raise MixturaError("E-plot-feature", f"{column!r}, a category", "a number", "choose a numeric feature")

    along = np.linspace(*_ends(table[column]), n_points)
    typical = {
        name: values.median()
        if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        else next(iter(values.mode()), None)
        for name, values in table.items()
    }
    grid = pd.DataFrame({name: [value] * n_points for name, value in typical.items()}, columns=table.columns)
    grid[column] = along
    for name, dtype in table.dtypes.items():
        if isinstance(dtype, pd.CategoricalDtype):
            grid[name] = grid[name].astype(dtype)
    mixture = model.predict_dist(grid if isinstance(X, pd.DataFrame) else grid.to_numpy())

    if y is not None:
        y = np.asarray(y, dtype=np.float64).reshape(-1)
        if len(y) != len(table):
            got = f"{len(y)} values of y for {len(table)} rows"
            raise MixturaError("E-input-length", got, "one for each row", "give the y of these rows")
    ax = _axes(ax)
    if kind == "heatmap":
        low, high = mixture.icdf([[0.002], [0.998]])
        bottom, top = (low.min().item(), high.max().item())
        if y is not None:
            bottom, top = min(bottom, _ends(y)[0]), max(top, _ends(y)[1])
        values = torch.linspace(bottom, top, n_points, dtype=torch.float64)
        density = mixture.log_prob(values[:, None]).exp().numpy()
        norm = PowerNorm(0.5, vmin=0, vmax=float(np.quantile(density.max(0), 0.9)))
        ax.pcolormesh(along, values, density, cmap=_DENSITY_MAP, norm=norm, shading="gouraud", rasterized=True)
        ax.set_ylim(bottom, top)
    else:
        for coverage, alpha in zip(_BANDS, (0.2, 0.35, 0.5), strict=True):
            low, high = mixture.icdf([[(1 - coverage) / 2], [(1 + coverage) / 2]])
            ax.fill_between(along, low, high, color=BLUE, alpha=alpha, lw=0, label=f"{coverage:.0%} interval")
        ax.plot(along, mixture.icdf(0.5), color=INK, lw=1.5, label="median")
        ax.legend(frameon=False)
    if y is not None:
        ax.scatter(table[column], y, s=5, color=INK, alpha=0.35, lw=0, zorder=3)
    ax.set_xlim(along[0], along[-1])
    ax.set_xlabel(str(column) if isinstance(X, pd.DataFrame) else f"x{table.columns.get_loc(column)}")
    ax.set_ylabel(model.target_names_[0] if model.target_names_ else "y")
    return ax


def _ends(values: Any) -> tuple[float, float]:
    """Where nearly all values lie: the 0.5% and 99.5% quantiles."""
    series = values if isinstance(values, pd.Series) else pd.Series(np.asarray(values))
    low, high = series.astype("Float64").quantile([0.005, 0.995])
    return float(low), float(high)


def plot_mixture(
    mixture: Mixture, *, y: ArrayLike | None = None, coverage: float = 0.9, ax: Axes | None = None
) -> Axes:
    """One row's density: with components, median and central interval (scalar), or as a map (two coordinates).

    Parameters
    ----------
    mixture
        A single mixture (take one row: ``model.predict_dist(X)[0]``), scalar or with event_shape (2,).
    y
        The value observed, drawn as a mark.
    coverage
        Of the interval, or of the ellipse around each component.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    MixturaError
        ``E-plot-shape`` for more than one mixture or more than two coordinates, ``E-coverage-range``.
    """
    if not 0 < coverage < 1:
        raise MixturaError("E-coverage-range", f"coverage={coverage!r}", "0 < coverage < 1", "0.9 means 90%")
    if mixture.batch_shape not in ((), (1,)) or mixture.event_shape not in ((), (2,)):
        expected = "a single mixture of a scalar or of two coordinates"
        raise MixturaError("E-plot-shape", f"{mixture!r}", expected, "take one row, mixture[i], or one .marginal(dim)")
    mixture = (mixture[0] if mixture.batch_shape else mixture).detach().to("cpu", torch.float64)
    ax = _axes(ax)
    return _plot_scalar(mixture, y, coverage, ax) if not mixture.event_shape else _plot_map(mixture, y, coverage, ax)


def _plot_scalar(mixture: Mixture, y: ArrayLike | None, coverage: float, ax: Axes) -> Axes:
    levels = [0.001, (1 - coverage) / 2, 0.5, (1 + coverage) / 2, 0.999]
    bottom, low, median, high, top = mixture.icdf(levels).tolist()
    margin = 0.05 * (top - bottom)
    grid = torch.linspace(bottom - margin, top + margin, 801, dtype=torch.float64)
    grid = torch.cat([grid, mixture.components.mean.clamp(grid[0], grid[-1])]).sort().values  # no peak is missed
    density = mixture.log_prob(grid).exp()
    inside = ((grid >= low) & (grid <= high)).numpy()
    ax.fill_between(grid, density, where=inside, color=BLUE, alpha=0.2, lw=0, label=f"{coverage:.0%} interval")
    shares = mixture.split().log_prob(grid[:, None]).exp() * mixture.weights
    ax.plot(grid, shares, color=GREY, lw=0.8)
    ax.plot([], [], color=GREY, lw=0.8, label="components")
    ax.plot(grid, density, color=BLUE, lw=2, label="density")
    ax.axvline(median, color=INK, lw=1, ls=(0, (4, 3)), label="median")
    if y is not None:
        ax.axvline(float(np.asarray(y).item()), color=ORANGE, lw=1.5, label="observed")
    ax.set_xlim(grid[0].item(), grid[-1].item())
    ax.set_ylim(bottom=0)
    ax.set_xlabel("y")
    ax.set_ylabel("density")
    ax.legend(edgecolor="none", framealpha=0.8)
    return ax


def _plot_map(mixture: Mixture, y: ArrayLike | None, coverage: float, ax: Axes, n_points: int = 240) -> Axes:
    if not ax.get_autoscale_on():  # limits that the caller has set
        ends = [ax.get_xlim(), ax.get_ylim()]
    else:
        ends = [mixture.marginal(dim).icdf([0.005, 0.995]).tolist() for dim in (0, 1)]
    first, second = (torch.linspace(low, high, n_points, dtype=torch.float64) for low, high in ends)
    points = torch.stack(torch.meshgrid(first, second, indexing="xy"), -1)
    density = mixture.log_prob(points).exp().numpy()
    norm = PowerNorm(0.4, vmin=0, vmax=density.max())
    ax.pcolormesh(first, second, density, cmap=_DENSITY_MAP, norm=norm, shading="gouraud", rasterized=True)
    # A component's ellipse holds `coverage` of it: in two dimensions its radius is sqrt(-2 log(1 - coverage)) scales.
    radius = float(np.sqrt(-2 * np.log1p(-coverage)))
    each = mixture.split()  # the components, as K mixtures of one
    for weight, mean, covariance in zip(mixture.weights, each.mean, each.covariance, strict=True):
        values, vectors = torch.linalg.eigh(covariance)
        angle = torch.atan2(vectors[1, 1], vectors[0, 1]).rad2deg().item()
        width, height = (2 * radius * values.flip(0).sqrt()).tolist()
        alpha = float(weight.sqrt().clamp(0.08, 1))
        ax.add_patch(
            Ellipse(
                (mean[0].item(), mean[1].item()),
                width,
                height,
                angle=angle,
                fill=False,
                color=GREY,
                lw=0.8,
                alpha=alpha,
            )
        )
    ax.set_xlabel("y0")
    ax.set_ylabel("y1")
    if y is not None:
        ax.scatter(*np.asarray(y).reshape(2), color=ORANGE, s=40, marker="x", zorder=4)
    ax.set_xlim(first[0].item(), first[-1].item())
    ax.set_ylim(second[0].item(), second[-1].item())
    return ax


def plot_selection(selection: Selection, *, ax: Axes | None = None) -> Axes:
    """What each number of components costs above the best, and the fewest that are within one standard error of it.

    Of BIC, the criterion itself.

    Parameters
    ----------
    selection
        Of `select_components`.
    """
    ax = _axes(ax)
    table = selection.table
    if selection.criterion == "bic":
        ax.plot(table.index, table["bic"], marker="o", color=BLUE)
        ax.set_ylabel("BIC, nats per row")
    else:
        ax.plot(table.index, table["excess"], marker="o", color=BLUE)
        within = table["standard_error"].iloc[int(table["excess"].argmin())]
        ax.axhspan(0, within, color=GREY, alpha=0.3, lw=0, label="one standard error of the best")
        ax.set_ylabel("NLL above the best, nats per row")
    ax.axvline(selection.n_components, color=ORANGE, linestyle=":", label=f"chosen: {selection.n_components}")
    ax.set_xticks(table.index)
    ax.set_xlabel("components")
    ax.legend()
    return ax


def plot_fit(report: FitReport, *, ax: Axes | None = None) -> Axes:
    """Loss curves of a fit: NLL on the training and held-out rows after each epoch, and the epoch that was kept.

    Parameters
    ----------
    report
        ``model.fit_report_``.
    ax
        Where to draw; a new figure by default.
    """
    ax = _axes(ax)
    ax.plot(report.train_nll, color=GREY, lw=1.5, label="training rows")
    label = "held-out rows" if report.n_valid_rows else "training rows, after the epoch"
    ax.plot(report.valid_nll, color=BLUE, lw=1.5, label=label)
    ax.plot(report.best_epoch, report.best_nll, "o", color=ORANGE, label="weights kept")
    losses = np.array(report.train_nll + report.valid_nll)
    finite = losses[np.isfinite(losses)]
    ax.set_ylim(top=np.quantile(finite, 0.98) + 0.05 * np.ptp(finite))
    ax.set_xlabel("epoch")
    ax.set_ylabel("NLL, nats")
    ax.legend(frameon=False)
    return ax
