"""Pictures of densities: along a feature, one row's, a map, a fan over time, ridges."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.dates import ConciseDateFormatter
from matplotlib.patches import Ellipse
from numpy.typing import ArrayLike
from torch import Tensor

from ..checks import in_rows
from ..effects import as_table, column_of, ends_of, is_number, label_of, target_of
from ..errors import MixturaError
from ..families import ScalarFamily
from ..mixture import Mixture, plain_mixture
from .style import ABOVE, BANDS, BLUE, DENSITY_MAP, GREY, INK, ORANGE, axes, name_of

if TYPE_CHECKING:
    from ..estimator import MDNRegressor


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
    table = as_table(X)
    column = column_of(table, feature)
    if not is_number(table[column]) or table[column].isna().all():
        raise MixturaError("E-plot-feature", f"{column!r}, a category", "a number", "choose a numeric feature")

    along = np.linspace(*ends_of(table[column]), n_points)
    typical = {
        name: values.median() if is_number(values) else next(iter(values.mode()), None)
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
    ax = axes(ax)
    if kind == "heatmap":
        low, high = mixture.icdf([[0.002], [0.998]])
        bottom, top = (low.min().item(), high.max().item())
        if y is not None:
            bottom, top = min(bottom, ends_of(y)[0]), max(top, ends_of(y)[1])
        values = torch.linspace(bottom, top, n_points, dtype=torch.float64)
        density = mixture.log_prob(values[:, None]).exp().numpy()
        norm = PowerNorm(0.5, vmin=0, vmax=float(np.quantile(density.max(0), 0.9)))
        ax.pcolormesh(along, values, density, cmap=DENSITY_MAP, norm=norm, shading="gouraud", rasterized=True)
        ax.set_ylim(bottom, top)
    else:
        _draw_fan(mixture, along, ax)
        ax.legend(frameon=False)
    if y is not None:
        ax.scatter(table[column], y, s=5, color=INK, alpha=0.35, lw=0, zorder=3)
    ax.set_xlim(along[0], along[-1])
    ax.set_xlabel(label_of(X, table, column))
    ax.set_ylabel(target_of(model))
    return ax


def _draw_fan(mixture: Mixture, along: Any, ax: Axes) -> None:
    for coverage, alpha in zip(BANDS, (0.2, 0.35, 0.5), strict=True):
        low, high = mixture.icdf([[(1 - coverage) / 2], [(1 + coverage) / 2]])
        ax.fill_between(along, low, high, color=BLUE, alpha=alpha, lw=0, label=f"{coverage:.0%} interval")
    ax.plot(along, mixture.icdf(0.5), color=INK, lw=1.5, label="median")


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
    if plain_mixture(mixture).batch_shape not in ((), (1,)) or mixture.event_shape not in ((), (2,)):
        expected = "a single mixture of a scalar or of two coordinates"
        raise MixturaError("E-plot-shape", f"{mixture!r}", expected, "take one row, mixture[i], or one .marginal(dim)")
    mixture = (mixture[0] if mixture.batch_shape else mixture).detach().to("cpu", torch.float64)
    ax = axes(ax)
    return _plot_scalar(mixture, y, coverage, ax) if not mixture.event_shape else _plot_map(mixture, y, coverage, ax)


def _plot_scalar(mixture: Mixture, y: ArrayLike | None, coverage: float, ax: Axes) -> Axes:
    levels = [0.001, (1 - coverage) / 2, 0.5, (1 + coverage) / 2, 0.999]
    bottom, low, median, high, top = mixture.icdf(levels).tolist()
    margin = 0.05 * (top - bottom)
    grid, is_count = _points(mixture, bottom - margin, top + margin)
    style = "steps-mid" if is_count else "default"
    shares = mixture.split().log_prob(grid[:, None]).exp() * mixture.weights[: mixture.n_components]
    density = shares.sum(-1)
    inside = ((grid >= low) & (grid <= high)).numpy()
    ax.fill_between(
        grid,
        density,
        where=inside,
        step="mid" if is_count else None,
        color=BLUE,
        alpha=0.2,
        lw=0,
        label=f"{coverage:.0%} interval",
    )
    ax.plot(grid, shares, color=GREY, lw=0.8, drawstyle=style)
    ax.plot([], [], color=GREY, lw=0.8, label="components")
    ax.plot(grid, density, color=BLUE, lw=2, drawstyle=style, label="probability" if is_count else "density")
    ax.axvline(median, color=INK, lw=1, ls=(0, (4, 3)), label="median")
    merged = mixture.merged_atoms()
    if merged.atoms is not None:
        for atom, mass in zip(merged.atoms.tolist(), merged.weights[mixture.n_components :].tolist(), strict=True):
            if mass > 0:
                ax.axvline(atom, color=BLUE, lw=2.5, label=f"P(y = {atom:g}) = {mass:.0%}")
    if y is not None:
        ax.axvline(float(np.asarray(y).item()), color=ORANGE, lw=1.5, label="observed")
    ax.set_xlim(grid[0].item(), grid[-1].item())
    ax.set_ylim(bottom=0)
    ax.set_xlabel("y")
    ax.set_ylabel("probability" if is_count else "density")
    ax.legend(edgecolor="none", framealpha=0.8)
    return ax


def _plot_map(mixture: Mixture, y: ArrayLike | None, coverage: float, ax: Axes) -> Axes:
    _draw_map(mixture, ax, _limits(mixture, ax, tail=0.005))
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
    if y is not None:
        ax.scatter(*np.asarray(y).reshape(2), color=ORANGE, s=40, marker="x", zorder=4)
    return ax


def _limits(mixture: Mixture, ax: Axes, tail: float) -> list[tuple[float, float]]:
    """Those that the caller has set, or quantiles of the margins."""
    if not ax.get_autoscale_on():
        return [ax.get_xlim(), ax.get_ylim()]
    ends = [mixture.marginal(dim).icdf([tail, 1 - tail]).tolist() for dim in (0, 1)]
    return [(low, high) for low, high in ends]


def _draw_map(
    mixture: Mixture, ax: Axes, limits: list[tuple[float, float]], n_points: int = 240
) -> tuple[Tensor, Tensor, Tensor]:
    """The density over a grid; returns the grid and the log density there."""
    first, second = (torch.linspace(low, high, n_points, dtype=torch.float64) for low, high in limits)
    log_density = mixture.log_prob(torch.stack(torch.meshgrid(first, second, indexing="xy"), -1))
    density = log_density.exp().numpy()
    norm = PowerNorm(0.4, vmin=0, vmax=density.max())
    ax.pcolormesh(first, second, density, cmap=DENSITY_MAP, norm=norm, shading="gouraud", rasterized=True)
    ax.set(xlabel="y0", ylabel="y1", xlim=limits[0], ylim=limits[1])
    return first, second, log_density


def plot_density_map(
    mixture: Mixture,
    y: ArrayLike | None = None,
    *,
    coverages: Sequence[float] = (0.5, 0.8, 0.95),
    ax: Axes | None = None,
) -> Axes:
    """One row's joint density of two coordinates, with the edges of its highest-density regions.

    Each contour encloses the smallest area with that probability, which may be in several pieces. The density along it
    comes from draws, so that the probability inside is off by up to some 1% (`Mixture.hdr_threshold`).

    Parameters
    ----------
    mixture
        A single mixture with event_shape (2,).
    y
        The value observed, shape (2,), or several, shape (n, 2), as marks. Names of a table's columns label the axes.
    coverages
        Probabilities of the regions, ascending.
    ax
        Where to draw; a new figure by default. Limits that were set on it are kept.

    Raises
    ------
    MixturaError
        ``E-plot-shape`` for more than one mixture or other targets, ``E-coverage-range``.

    References
    ----------
    Hyndman (1996), Computing and graphing highest density regions.
    """
    if plain_mixture(mixture).batch_shape not in ((), (1,)) or mixture.event_shape != (2,):
        expected, fix = "a single mixture of two coordinates", "take one row, mixture[i], and .marginal([i, j])"
        raise MixturaError("E-plot-shape", f"{mixture!r}", expected, fix)
    mixture = mixture.detach().to("cpu", torch.float64).reshape(())
    ax = axes(ax)
    # Outer regions have lower edges; contours are drawn from the lowest level to the highest.
    edges = {mixture.hdr_threshold(coverage).item(): f"{coverage:.0%}" for coverage in sorted(coverages, reverse=True)}
    limits = _limits(mixture, ax, tail=0.005)
    while ax.get_autoscale_on() and _log_density_on(mixture, limits) > min(edges):  # a region would be cut off
        limits = [(low - 0.05 * (high - low), high + 0.05 * (high - low)) for low, high in limits]
    first, second, log_density = _draw_map(mixture, ax, limits)
    lines = ax.contour(first, second, log_density, levels=list(edges), colors=INK, linewidths=1, linestyles="solid")
    ax.clabel(lines, fmt=edges, fontsize=8)
    if y is not None:
        points = np.asarray(y, dtype=np.float64).reshape(-1, 2)
        mark = {"s": 40, "marker": "x"} if len(points) == 1 else {"s": 8, "lw": 0}
        ax.scatter(*points.T, color=ORANGE, zorder=4, **mark)
        if isinstance(y, pd.DataFrame):
            ax.set(xlabel=y.columns[0], ylabel=y.columns[1])
    return ax


def _log_density_on(mixture: Mixture, limits: list[tuple[float, float]], n_points: int = 240) -> float:
    """The highest on the border of a rectangle."""
    first, second = (torch.linspace(low, high, n_points, dtype=torch.float64) for low, high in limits)
    sides = [torch.stack([first, torch.full_like(first, end)], -1) for end in limits[1]]
    sides += [torch.stack([torch.full_like(second, end), second], -1) for end in limits[0]]
    return mixture.log_prob(torch.cat(sides)).max().item()


def plot_fan(
    mixture: Mixture, y: ArrayLike | None = None, *, along: ArrayLike | None = None, ax: Axes | None = None
) -> Axes:
    """Median and central 50, 80 and 95% intervals of many rows in order, say of time, with what was observed.

    Observations outside of the widest band stand out; one in twenty is right.

    Parameters
    ----------
    mixture
        Of a scalar target, batch_shape (n,).
    y
        Observations, shape (n,); NaN where there is none.
    along
        Times or numbers, shape (n,); by default the number of the row. Rows are drawn in this order.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    MixturaError
        ``E-plot-shape`` for vectors, ``E-input-length`` where the lengths differ.
    """
    mixture = _scalar_rows(mixture)
    positions = np.arange(len(mixture)) if along is None else np.asarray(along)
    values = None if y is None else np.asarray(y, dtype=np.float64).reshape(-1)
    for name, part in {"along": positions, "y": values}.items():
        if part is not None and len(part) != len(mixture):
            got = f"{len(part)} values of {name} for {len(mixture)} rows"
            raise MixturaError("E-input-length", got, "one for each row", f"give the {name} of these rows")
    order = np.argsort(positions, kind="stable")
    positions, mixture = positions[order], mixture[torch.as_tensor(order)]
    ax = axes(ax)
    _draw_fan(mixture, positions, ax)
    if values is not None:
        values = values[order]
        low, high = (end.numpy() for end in mixture.icdf([[(1 - BANDS[0]) / 2], [(1 + BANDS[0]) / 2]]))
        is_outside, is_known = (values < low) | (values > high), ~np.isnan(values)
        share = is_outside.sum() / max(is_known.sum(), 1)
        ax.scatter(positions[~is_outside], values[~is_outside], s=9, color=INK, lw=0, zorder=3, label="observed")
        label = f"outside of {BANDS[0]:.0%}: {share:.0%}"
        ax.scatter(positions[is_outside], values[is_outside], s=14, color=ORANGE, lw=0, zorder=4, label=label)
    if len(positions) > 1:
        ax.set_xlim(positions[0], positions[-1])
    ax.set_ylabel(name_of(y, "y"))
    is_time = np.issubdtype(positions.dtype, np.datetime64)
    ax.set_xlabel("row" if along is None else name_of(along, "time" if is_time else "x"))
    if is_time:
        ax.xaxis.set_major_formatter(ConciseDateFormatter(ax.xaxis.get_major_locator()))
    ax.legend(ncols=3, **ABOVE)
    return ax


def plot_ridges(
    mixture: Mixture, y: ArrayLike | None = None, *, names: Sequence[Any] | None = None, ax: Axes | None = None
) -> Axes:
    """The densities of a few rows one below the other, on one scale of the target, with median and observation.

    Each is drawn as high as the others, so that it's the width that tells how sure a forecast is. An atom is a stem, as
    high as its probability: the whole height is 1.

    Parameters
    ----------
    mixture
        Of a scalar target, batch_shape (n,): selected rows, ``mixture[[0, 5, 9]]``.
    y
        Observations, shape (n,).
    names
        What to write beside the rows; by default their numbers, or the index of y.
    ax
        Where to draw; a new figure by default.

    Raises
    ------
    MixturaError
        ``E-plot-shape`` for vectors, ``E-value-shape`` for y of another length, ``E-input-length`` for names.
    """
    mixture = _scalar_rows(mixture)
    n = len(mixture)
    values = None if y is None else in_rows(mixture, y)[1].tolist()
    if names is None:
        names = list(y.index) if isinstance(y, pd.Series) else list(range(n))
    if len(names) != n:
        raise MixturaError("E-input-length", f"{len(names)} names for {n} rows", "one for each row", "name each row")
    low, high = mixture.icdf([[0.01], [0.99]])
    seen = np.array([low.min().item(), high.max().item(), *(values or [])])
    margin = 0.03 * np.ptp(seen)
    bottom, top = float(seen.min() - margin), float(seen.max() + margin)
    ax = axes(ax)
    ax.spines["left"].set_visible(False)
    for i, row in enumerate(mixture[i] for i in range(n)):
        base = n - 1 - i
        ax.axhline(base, color=GREY, lw=0.5, zorder=i)
        if row.weights[: row.n_components].sum() > 1e-6:
            grid, is_count = _points(row, bottom, top)
            density = row.continuous.log_prob(grid).exp()
            height = base + 0.85 * (density / density[density.isfinite()].max()).clamp(max=1)
            step, style = ("mid", "steps-mid") if is_count else (None, "default")
            ax.fill_between(grid, base, height, color=BLUE, alpha=0.35, lw=0, zorder=i, step=step)
            ax.plot(grid, height, color=BLUE, lw=1.2, zorder=i, drawstyle=style)
        merged = row.merged_atoms()
        if merged.atoms is not None:
            atoms, tops = merged.atoms, base + 0.85 * merged.weights[row.n_components :]
            ax.vlines(atoms, base, tops, color=BLUE, lw=2, zorder=n)
            ax.plot(atoms, tops, "D", color=BLUE, mec="white", ms=6, zorder=n, label="atom" if i == 0 else None)
        median = row.median.item()
        ax.plot([median, median], [base, base + 0.2], color=INK, lw=1.5, zorder=n, label="median" if i == 0 else None)
        if values is not None:
            ax.plot(values[i], base, "o", color=ORANGE, ms=5, zorder=n, label="observed" if i == 0 else None)
    ax.set_yticks(range(n)[::-1], [str(name) for name in names])
    ax.tick_params(axis="y", length=0)
    ax.set_xlim(bottom, top)
    ax.set_ylim(-0.15, n)
    ax.set_xlabel(name_of(y, "y"))
    ax.legend(ncols=3, **ABOVE)
    return ax


def _points(row: Mixture, bottom: float, top: float) -> tuple[Tensor, bool]:
    """Where to ask one density for its curve: close points and all peaks. Of counts the whole numbers, and True."""
    if isinstance(row.family, ScalarFamily) and row.family.is_discrete:
        return torch.arange(max(np.ceil(bottom), 0), np.floor(top) + 1, dtype=torch.float64), True
    peaks = row.continuous.modes().loc
    grid = torch.linspace(bottom, top, 801, dtype=torch.float64)
    return torch.cat([grid, peaks[peaks.isfinite()].clamp(bottom, top)]).sort().values, False


def _scalar_rows(mixture: Mixture) -> Mixture:
    if plain_mixture(mixture).event_shape:
        fix = "take one coordinate, mixture.marginal(dim)"
        raise MixturaError("E-plot-shape", f"{mixture!r}", "mixtures of a scalar target", fix)
    return mixture.detach().flat().to("cpu", torch.float64)
