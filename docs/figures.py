"""The figures of docs/theory.md and docs/uncertainty.md, made by Mixtura itself, and the numbers that the pages quote.

python docs/figures.py [--only NAME ...]

Writes docs/images/theory-NAME.png and prints what was measured. About four minutes on one core.
"""

import argparse
from collections.abc import Callable
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from sklearn.neural_network import MLPRegressor
from torch.distributions import Normal

from mixtura import MDN, MLP, MDNRegressor, Mixture, MixtureHead, datasets, decompose, plots, select_components
from mixtura.learner import FitReport, Learner
from mixtura.plots import BLUE, GREY, INK, ORANGE
from mixtura.rows import Rows
from mixtura.training import train

IMAGES = Path(__file__).parent / "images"
GREEN = "#3c8d6e"
"""A third curve, where there is one."""
LEAST_MASS = 0.01
"""Of a mode that is counted."""
Array = NDArray[np.float64]


def panels(n: int, width: float = 8.0, height: float = 3.1, **settings: Any) -> tuple[Figure, list[Axes]]:
    """A row of axes in the style of `mixtura.plots`."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(1, n, **settings)))
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def density_at(model: MDNRegressor, x: float, grid: Array) -> Array:
    """p(y | x) on a grid of y."""
    return model.predict_dist([[x]]).log_prob(torch.as_tensor(grid)[:, None]).exp().numpy()[:, 0]


def modes_of(mixture: Mixture) -> Array:
    """Places of the modes of one mixture that hold some of the mass, shape (m, *event)."""
    modes = mixture.modes()
    return modes.loc[modes.mass > LEAST_MASS].numpy()


def n_modes(density: Array, grid: Array) -> int:
    """The same of a density on a grid: parts between minima that hold some of the mass."""
    is_minimum = (density[1:-1] < density[:-2]) & (density[1:-1] <= density[2:])
    ends = [0, *(np.flatnonzero(is_minimum) + 1), len(grid) - 1]
    masses = [np.trapezoid(density[a : b + 1], grid[a : b + 1]) for a, b in pairwise(ends)]
    return int((np.array(masses) > LEAST_MASS).sum())


# 1, 14: what it is, and the canonical example -------------------------------------------------------------------


def inverse_sine_model(n_components: int = 3) -> tuple[MDNRegressor, Array, Array]:
    """The canonical example, 2,000 rows, by one small network."""
    X, y = datasets.make_inverse_sine(2000)
    return MDNRegressor(n_components, preset="plain", family="normal", random_state=0).fit(X, y), X, y


def parameters() -> Figure:
    """Weights, means and scales of three components as functions of x."""
    model, X, y = inverse_sine_model()
    x = np.linspace(0, 1, 300)
    mixture = model.predict_dist(x[:, None])
    figure, (weights, means, scales) = panels(3)
    order = mixture.components.loc[150].argsort()  # by their means at x = .5
    for k, colour in zip(order, (BLUE, GREEN, ORANGE), strict=True):
        weights.plot(x, mixture.weights[:, k], color=colour, lw=2)
        means.plot(x, mixture.components.loc[:, k], color=colour, lw=2)
        scales.plot(x, mixture.components.scale[:, k], color=colour, lw=2)
    means.scatter(X, y, s=2, color=INK, alpha=0.15, lw=0)
    weights.set(title="weights π(x)", xlabel="x", ylim=(-0.03, 1.03))
    means.set(title="means μ(x), and the rows", xlabel="x", ylim=(-0.25, 1.25), xlim=(0, 1))
    scales.set(title="scales σ(x)", xlabel="x", ylim=(0, None))
    return figure


def true_inverse(x: Array, grid: Array, noise: float = 0.05) -> Array:
    """p(t | x) of x = t + 0.3 sin(2 pi t) + noise, by integrating over t; shape (grid, x)."""
    joint = np.exp(-0.5 * ((x - (grid + 0.3 * np.sin(2 * np.pi * grid))[:, None]) / noise) ** 2)
    return joint / np.trapezoid(joint, grid, axis=0)


def canonical() -> Figure:
    """The inverse sine: the density learned with three components beside the true one, and how many modes there are."""
    model, _, _ = inverse_sine_model()
    inside, cuts = np.linspace(0, 1, 2001), (0.2, 0.5, 0.8)
    grid = np.linspace(-0.2, 1.2, 2801)
    figure, axes = panels(4, 9.5, 3.0, width_ratios=[1, 1, 1, 1.2])
    for ax, x in zip(axes, cuts, strict=False):
        learned, truth = density_at(model, x, grid), true_inverse(np.array([x]), inside)[:, 0]
        on_grid = np.interp(grid, inside, truth, left=0, right=0)
        print(f"  x = {x}: L1 distance {np.trapezoid(np.abs(learned - on_grid), grid):.3f}", end="")
        print(f", modes {len(modes_of(model.predict_dist([[x]])[0]))}")
        ax.fill_between(inside, truth, color=GREY, alpha=0.45, lw=0, label="true")
        ax.plot(grid, learned, color=BLUE, lw=1.8, label="learned")
        ax.set(title=f"p(t | x = {x})", xlabel="t", xlim=(-0.1, 1.1), ylim=(0, None), yticks=[])
    axes[0].legend(frameon=False, loc="upper right")
    x = np.linspace(0.01, 0.99, 197)
    peaks = np.array([n_modes(density, inside) for density in true_inverse(x, inside).T])
    learned = (model.predict_dist(x[:, None]).modes().mass > LEAST_MASS).sum(-1).numpy()
    print(f"  the same number of modes at {np.mean(peaks == learned):.0%} of 197 values of x")
    axes[-1].plot(x, peaks, color=GREY, lw=4, alpha=0.6, label="true")
    axes[-1].plot(x, learned, color=BLUE, lw=1.6, label="learned")
    axes[-1].set(title="modes", xlabel="x", yticks=[1, 2, 3], ylim=(0.8, 3.7))
    axes[-1].legend(frameon=False, ncols=2, loc="upper center")
    return figure


# 3: the loss ----------------------------------------------------------------------------------------------------


def loss() -> Figure:
    """-log p of two components, far away from both: log-sum-exp beside the sum of densities and its logarithm."""
    figure, (ax,) = panels(1, 5.6, 3.0)
    distance = torch.linspace(0, 100, 401, dtype=torch.float64)
    for dtype, colour, name in ((torch.float32, ORANGE, "float32"), (torch.float64, GREEN, "float64")):
        weights, loc = torch.tensor([0.4, 0.6], dtype=dtype), torch.tensor([0.0, 1.0], dtype=dtype)
        z = distance.to(dtype)[:, None] + 1 - loc
        naive = -(weights * (-0.5 * z**2).exp() / (2 * np.pi) ** 0.5).sum(-1).log()
        last = distance[naive.isfinite()].max().item()
        print(f"  {name}: the sum of densities is 0 beyond {last:.1f} scales; log-sum-exp at 100: ", end="")
        mixture = Mixture(weights.log(), Normal(loc, torch.ones(2, dtype=dtype)))
        print(f"{-mixture.log_prob(torch.tensor(101.0, dtype=dtype)).item():.2f}")
        ax.plot(
            distance[naive.isfinite()],
            naive[naive.isfinite()],
            color=colour,
            lw=5,
            alpha=0.55,
            label=f"log of a sum, {name}",
        )
        height = naive[naive.isfinite()][-1].item()
        ax.plot(last, height, "x", color=colour, ms=9, mew=2)
        ax.annotate(f"infinite beyond {last:.0f}", (last + 2, 0.62 * height), color=colour)
    ax.plot(distance, -mixture.log_prob(distance + 1), color=BLUE, lw=1.6, label="Mixtura, log-sum-exp")
    ax.set(xlabel="scales away from the nearest mean", ylabel="−log p, nats", xlim=(0, 100), yscale="log")
    ax.legend(frameon=False, loc="lower right")
    return figure


# 4: why the mean fails ------------------------------------------------------------------------------------------


def mean() -> Figure:
    """Two branches at -1 and +1: least squares, a network trained on squared error, beside an MDN of two components."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (2000, 1))
    y = rng.choice([-1.0, 1.0], 2000) + 0.1 * rng.normal(size=2000)
    squares = MLPRegressor(hidden_layer_sizes=(64, 64), early_stopping=True, random_state=0).fit(X, y)
    model = MDNRegressor(2, preset="plain", random_state=0).fit(X, y)
    answer = squares.predict([[0.0]]).item()
    mixture = model.predict_dist([[0.0]])[0]
    order = mixture.components.loc.argsort()
    print("  weights", mixture.weights[order].numpy().round(3), "means", mixture.components.loc[order].numpy().round(3))
    print("  scales", mixture.components.scale[order].numpy().round(3), "(truth .1)")
    print(
        f"  squared error answers {answer:.3f}; log density there {mixture.log_prob(torch.tensor(answer)).item():.1f}"
    )
    figure, (left, right) = panels(2)
    left.scatter(X, y, s=4, color=INK, alpha=0.3, lw=0)
    x = np.linspace(-1, 1, 200)
    left.plot(x, squares.predict(x[:, None]), color=ORANGE, lw=2.5)
    left.annotate("squared error", (-0.95, 0.12), color=ORANGE)
    left.set(xlabel="x", ylabel="y", title="rows, and what squared error learns", xlim=(-1, 1), ylim=(-1.6, 1.6))
    grid = np.linspace(-1.6, 1.6, 641)
    right.fill_between(grid, density_at(model, 0.0, grid), color=BLUE, alpha=0.2, lw=0)
    right.plot(grid, density_at(model, 0.0, grid), color=BLUE, lw=2)
    right.axvline(answer, color=ORANGE, lw=2.5)
    right.set(xlabel="y", ylabel="density", title="p(y | x = 0), two components", ylim=(0, None), xlim=(-1.6, 1.6))
    return figure


# 6: how many components -----------------------------------------------------------------------------------------


def selection() -> Figure:
    """Cross-validation of the number of components on the inverse sine."""
    X, y = datasets.make_inverse_sine(1000)
    small = MDNRegressor(preset="plain", family="normal", hidden_layer_sizes=(32, 32), max_epochs=150, random_state=0)
    found = select_components(X, y, candidates=[1, 2, 3, 4, 5, 8, 20], estimator=small)
    print(found.table.round(3).to_string())
    print(" ", found.summary)
    figure, (ax,) = panels(1, 5.6, 3.1)
    plots.plot_selection(found, ax=ax)
    ax.set_yscale("symlog", linthresh=0.1)
    ax.set_yticks([0, 0.05, 0.1, 0.5, 1], ["0", "0.05", "0.1", "0.5", "1"])
    ax.set_ylim(-0.01, None)
    return figure


# 7: mode collapse -----------------------------------------------------------------------------------------------


def learn_two_branches(revives: bool) -> FitReport:
    """Two branches, four components, of which three start far from all rows: dead, without gradient."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1000, 1, generator=generator)
    y = torch.sign(torch.rand(1000, generator=generator) - 0.5) + 0.1 * torch.randn(1000, generator=generator)
    network = MDN(MLP(1, (16,), generator), MixtureHead(16, 4, generator=generator))
    far = Normal(torch.tensor([0.0, 50.0, 60.0, 70.0]), torch.tensor([1.0, 0.01, 0.01, 0.01]))
    network.head.start_from(Mixture(torch.tensor([0.0, -9.0, -9.0, -9.0]), far))
    learner = Learner(network, torch.arange(800), torch.arange(800, 1000), generator.manual_seed(0))
    settings = {"max_epochs": 80, "batch_size": 32, "learning_rate": 5e-3, "weight_decay": 1e-2, "patience": 80}
    train([learner], Rows(x, y, torch.ones(1000)), **settings, revives=revives)  # pyright: ignore[reportArgumentType]
    return learner.report


def collapse() -> Figure:
    """The gradient of a component's mean falls with its weight; what revival of dead components is worth."""
    figure, (left, right) = panels(2)
    weight = torch.logspace(-8, -0.01, 200, dtype=torch.float64)
    sizes = []
    for share in weight:  # y at one scale from both components: only the weight differs
        loc = torch.tensor([-1.0, 1.0], dtype=torch.float64, requires_grad=True)
        logits = torch.stack([1 - share, share]).log()
        (-Mixture(logits, Normal(loc, 1.0)).log_prob(torch.tensor(0.0, dtype=torch.float64))).backward()
        assert loc.grad is not None
        sizes.append(loc.grad[1].abs().item())
    left.plot(weight, sizes, color=BLUE, lw=2)
    floor = 1e-4
    left.axvline(floor, color=ORANGE, lw=1.5, ls=(0, (4, 3)))
    left.annotate("the default\nweight_floor", (floor * 1.6, 2e-8), color=ORANGE)
    left.set(xscale="log", yscale="log", xlabel="weight π of the component", ylabel="|∂ loss / ∂ μ|")
    left.set_title("its gradient goes with its weight")
    for revives, colour, name in ((False, ORANGE, "without revival"), (True, BLUE, "with")):
        report = learn_two_branches(revives)
        right.plot(report.valid_nll, color=colour, lw=2, label=f"{name}: {report.n_active_components} active")
        print(f"  {name}: NLL {report.best_nll:.2f}, {report.n_active_components} components active")
    right.set(xlabel="epoch", ylabel="held-out NLL, nats", title="three of four components start dead")
    right.legend(frameon=False, loc="center right")
    return figure


# 8: variance collapse -------------------------------------------------------------------------------------------


def singularity() -> Figure:
    """A component that sits on one of 40 rows and shrinks; and what a floor is worth where values are rounded."""
    rng = np.random.default_rng(0)
    y = torch.as_tensor(rng.normal(size=40))
    fresh = torch.as_tensor(rng.normal(size=4000))
    figure, (left, right) = panels(2)
    scale = torch.logspace(-12, 0, 200, dtype=torch.float64)
    loc = torch.stack([y.mean(), y[0]])
    logits = torch.tensor([0.9, 0.1], dtype=torch.float64).log()
    curves = {}
    for name, floor in (("no floor", 0.0), ("floor of 1e-3", 1e-3)):
        scales = torch.stack([y.std().expand_as(scale), scale + floor], -1)
        curves[name] = Mixture(logits.expand(200, 2), Normal(loc.expand(200, 2), scales))
    own = {name: -mixture.log_prob(y[:, None]).mean(0) for name, mixture in curves.items()}
    left.plot(scale, own["no floor"], color=ORANGE, lw=2, label="no floor")
    left.plot(scale, own["floor of 1e-3"], color=BLUE, lw=2, label="floor of 1e-3")
    left.plot(
        scale, -curves["no floor"].log_prob(fresh[:, None]).mean(0), color=GREY, lw=1.5, label="no floor, fresh rows"
    )
    left.set(
        xscale="log",
        xlabel="scale of the component on one row",
        ylabel="NLL, nats",
        title="40 rows, one component on one row",
    )
    left.invert_xaxis()
    left.legend(frameon=False, loc="lower left")
    print(
        f"  NLL of the rows at a scale of 1e-12: {own['no floor'][0]:.2f}; with the floor {own['floor of 1e-3'][0]:.2f}"
    )

    X = rng.uniform(-1, 1, (600, 1))
    exact = 2 * X[:, 0] + rng.normal(size=600)
    grid = np.linspace(-3.5, 3.5, 3501)
    for floor, colour, width, name in ((1e-6, ORANGE, 1.0, "floor of 1e-6"), (None, BLUE, 2.2, "default")):
        model = MDNRegressor(8, preset="plain", family="normal", scale_floor=floor, max_epochs=150, random_state=0)
        model.fit(X, exact.round())
        score = -model.score_samples(X, exact).mean()
        smallest = model.predict_dist(X).components.scale.min().item()
        print(f"  rounded, {name}: smallest scale {smallest:.2g}, NLL of y before rounding {score:.2f}")
        right.plot(grid, density_at(model, 0.0, grid), color=colour, lw=width, label=name)
    right.plot(
        grid,
        np.exp(-0.5 * grid**2) / np.sqrt(2 * np.pi),
        color=INK,
        lw=1,
        ls=(0, (4, 3)),
        label="true, before rounding",
    )
    right.set(xlabel="y", ylabel="density", title="y rounded to whole numbers", ylim=(0, 1.2), xlim=(-3.5, 3.5))
    right.legend(frameon=False, loc="upper right", fontsize=8)
    return figure


# 9: the landscape -----------------------------------------------------------------------------------------------


def landscape() -> Figure:
    """Many starts on one to five modes: where they end, and how many of eight components are then active."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (1000, 1))
    n_modes = np.floor(2.5 * (X[:, 0] + 1)).clip(0, 4) + 1
    y = np.floor(rng.random(1000) * n_modes) - (n_modes - 1) / 2 + 0.1 * rng.normal(size=1000)
    order = rng.permutation(1000)
    X, y = X[order], y[order]
    settings = {"max_epochs": 100, "batch_size": 32, "learning_rate": 5e-3, "weight_decay": 1e-2, "patience": 100}
    generators = [torch.Generator().manual_seed(seed) for seed in range(16)]
    learn, judge = torch.arange(800), torch.arange(800, 1000)
    networks = [MDN(MLP(1, (64, 64), g), MixtureHead(64, 8, generator=g)) for g in generators]
    learners = [Learner(one, learn, judge, g) for one, g in zip(networks, generators, strict=True)]
    rows = Rows(torch.as_tensor(X).float(), torch.as_tensor(y / y.std()).float(), torch.ones(1000))
    train(learners, rows, **settings, revives=False)  # pyright: ignore[reportArgumentType]
    random = [(one.report.best_nll + np.log(y.std()), one.report.n_active_components) for one in learners]
    model = MDNRegressor(8, preset="plain", family="normal", n_restarts=16, pool_restarts=False, random_state=0)
    report = model.set_params(max_epochs=100).fit(X[:800], y[:800], eval_set=(X[800:], y[800:])).fit_report_
    ours = list(zip(report.restart_nlls, report.restart_active_components, strict=True))
    figure, (left, right) = panels(2)
    left.scatter(X, y, s=4, color=INK, alpha=0.4, lw=0)
    left.set(xlabel="x", ylabel="y", title="one mode to five, 1,000 rows", xlim=(-1, 1))
    for ends, colour, name in ((random, ORANGE, "random starts"), (ours, BLUE, "Mixtura's starts")):
        losses, active = np.array(sorted(ends)).T
        right.plot(np.arange(1, 17), losses, "o-", color=colour, lw=1, ms=14, label=name)
        for place, (nll, count) in enumerate(sorted(ends), 1):
            right.annotate(str(count), (place, nll), color="white", ha="center", va="center_baseline", fontsize=9)
        counts = sorted(set(active.astype(int).tolist()))
        print(
            f"  {name}: NLL {losses.min():.3f} to {losses.max():.3f}, median {np.median(losses):.3f}; active {counts}"
        )
    right.set(xlabel="starts, best first", ylabel="held-out NLL, nats", title="8 components: how many are active")
    right.set_xticks([1, 4, 8, 12, 16])
    right.legend(frameon=False, loc="upper left", markerscale=0.5)
    return figure


# 10: vectors ----------------------------------------------------------------------------------------------------


def vectors() -> Figure:
    """A ring: full and diagonal covariances of the same number of components."""
    rng = np.random.default_rng(0)

    def draw(n: int) -> tuple[Array, Array]:
        x, angle, radius = rng.uniform(-1, 1, (n, 1)), rng.uniform(0, 2 * np.pi, n), rng.normal(1, 0.1, n)
        return x, np.stack([x[:, 0] + radius * np.cos(angle), radius * np.sin(angle)], 1)

    X, y = draw(2000)
    X_test, y_test = draw(5000)
    figure, axes = panels(3, 9.0, 3.2)
    for ax, (covariance, n_components) in zip(axes, (("diag", 8), ("full", 8), ("spherical", 20)), strict=True):
        model = MDNRegressor(
            n_components, preset="plain", family="normal", covariance_type=covariance, max_epochs=150, random_state=0
        ).fit(X, y)
        score = -model.score_samples(X_test, y_test).mean()
        n_outputs = model.networks_[0].head.linear.out_features
        print(f"  {covariance}, M = {n_components}: {n_outputs} outputs, test NLL {score:.3f}")
        ax.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal")
        plots.plot_mixture(model.predict_dist([[0.0]])[0], coverage=0.7, ax=ax)
        ax.set_title(f"{covariance}, M = {n_components}\n{n_outputs} outputs, NLL {score:.2f}")
    return figure


# 11: an application: the elbow up or down -----------------------------------------------------------------------

LINKS = np.array([1.0, 0.8])


def reach(angles: Array) -> Array:
    """Of the two joint angles, shape (*, 2), the places of elbow and hand, shape (*, 2, 2)."""
    turned = np.stack([angles[..., 0], angles.sum(-1)], -1)
    steps = LINKS[:, None] * np.stack([np.cos(turned), np.sin(turned)], -1)
    return steps.cumsum(-2)


def arm() -> Figure:
    """Joint angles of an arm of two links given where its hand is: elbow up, elbow down, and the mean of both."""
    rng = np.random.default_rng(0)
    angles = np.stack([rng.uniform(0, np.pi, 4000), rng.uniform(-2.5, 2.5, 4000)], 1)
    hand = reach(angles)[:, 1] + 0.03 * rng.normal(size=(4000, 2))
    model = MDNRegressor(6, preset="plain", family="normal", max_epochs=120, random_state=0).fit(hand, angles)
    goal = np.array([0.5, 1.2])
    mixture = model.predict_dist(goal[None])[0]
    points, average = modes_of(mixture), mixture.mean.numpy()
    for name, point in [*(("mode", point) for point in points), ("mean", average)]:
        print(f"  {name} at {point.round(2)}: the hand misses by {np.linalg.norm(reach(point)[1] - goal):.3f}")
    draws = mixture.sample((200,), torch.Generator().manual_seed(0)).numpy()
    figure, (left, right) = panels(2, 8.0, 3.4)
    left.scatter(*draws.T, s=6, color=BLUE, alpha=0.5, lw=0, label="draws")
    left.plot(*points.T, "o", color=INK, ms=5, label="modes")
    left.plot(*average, "X", color=ORANGE, ms=9, label="mean")
    left.set(xlabel="shoulder, rad", ylabel="elbow, rad", title="p(angles | hand at the goal)")
    left.set(xlim=(0, 2.4), ylim=(-2.4, 2.4))
    left.legend(frameon=False, loc="upper right")
    for angle in draws[:40]:
        right.plot(*np.vstack([[0, 0], reach(angle)]).T, color=BLUE, lw=0.6, alpha=0.25)
    for i, (angle, colour) in enumerate([(average, ORANGE), *((point, INK) for point in points)]):
        label = ("mean", "modes", None)[min(i, 2)]
        right.plot(*np.vstack([[0, 0], reach(angle)]).T, "-o", color=colour, lw=2.2, ms=4, label=label)
    right.plot(*goal, "+", color=GREEN, ms=18, mew=2.5, zorder=5, label="goal")
    right.legend(frameon=False, loc="lower right")
    right.set(aspect="equal", title="the arm, its shoulder at (0, 0)", xlim=(-0.7, 1.7), ylim=(-0.1, 1.9))
    return figure


# 12: aleatoric and epistemic ------------------------------------------------------------------------------------


def ensemble() -> Figure:
    """Ten networks on rows with a hole: the noise they agree on, and where they disagree."""
    rng = np.random.default_rng(0)

    def curve(x: Array) -> Array:
        return np.sin(4 * x)

    def spread(x: Array) -> Array:
        return 0.05 + 0.15 * (x + 1)

    x = np.concatenate([rng.uniform(-1, -0.5, 200), rng.uniform(0.4, 1, 200)])
    y = curve(x) + spread(x) * rng.normal(size=400)
    members = [
        MDNRegressor(1, preset="plain", family="normal", max_epochs=150, random_state=seed).fit(x[:, None], y)
        for seed in range(10)
    ]
    at = np.linspace(-1.6, 1.6, 321)
    parts = decompose([member.predict_dist(at[:, None]) for member in members])
    figure, (left, right) = panels(2)
    pooled = Mixture.pool([member.predict_dist(at[:, None]) for member in members])
    low, high = pooled.icdf(torch.tensor([[0.05], [0.95]]))
    left.fill_between(at, low, high, color=BLUE, alpha=0.2, lw=0, label="90% of the pool")
    for member in members:
        left.plot(at, member.predict(at[:, None]), color=BLUE, lw=0.8, alpha=0.7)
    left.scatter(x, y, s=4, color=INK, alpha=0.35, lw=0)
    left.set(xlabel="x", ylabel="y", title="ten members, and their pool", ylim=(-3, 3), xlim=(-1.6, 1.6))
    left.legend(frameon=False, loc="lower right")
    right.plot(at, parts.aleatoric.sqrt(), color=BLUE, lw=2, label="aleatoric")
    right.plot(at, parts.epistemic.sqrt(), color=ORANGE, lw=2, label="epistemic")
    inside = np.abs(at) <= 1
    right.plot(at[inside], spread(at[inside]), color=INK, lw=1, ls=(0, (4, 3)), label="true noise")
    for low_end, high_end in ((-1.6, -1), (-0.5, 0.4), (1, 1.6)):
        right.axvspan(low_end, high_end, color=GREY, alpha=0.15, lw=0)
    right.set(xlabel="x (grey: no rows)", ylabel="standard deviation", title="what they know", xlim=(-1.6, 1.6))
    right.set_ylim(0, 0.9)
    right.legend(frameon=False, loc="upper left")
    for place in (-1.5, -0.8, 0.0, 0.7, 1.5):
        i = int(np.abs(at - place).argmin())
        print(f"  x = {place}: mean {pooled.mean[i]:.2f} (true {curve(at[i]):.2f})", end=", ")
        print(f"aleatoric {parts.aleatoric[i].sqrt():.3f} (true {spread(at[i]):.3f})", end=", ")
        print(f"epistemic {parts.epistemic[i].sqrt():.3f}, {parts.mutual_information.value[i]:.3f} nats")
    return figure


# 13: components are not modes -----------------------------------------------------------------------------------


def modes() -> Figure:
    """Five components learned from a skewed mode and a symmetric one."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (3000, 1))
    skewed, other = rng.gamma(2.0, 0.6, 3000), rng.normal(6.0, 0.35, 3000)
    y = np.where(rng.random(3000) < 0.7, skewed, other) + 0.3 * X[:, 0]
    model = MDNRegressor(5, preset="plain", family="normal", random_state=0).fit(X, y)
    at = np.linspace(-0.95, 0.95, 39)
    counts = model.predict_dist(at[:, None]).modes().count
    print(f"  modes at 39 values of x: {dict(zip(*np.unique(counts, return_counts=True), strict=True))}")
    mixture = model.predict_dist([[0.0]])[0]
    order = mixture.components.loc.argsort()
    print("  means", mixture.components.loc[order].numpy().round(2), "weights", mixture.weights[order].numpy().round(2))
    figure, (ax,) = panels(1, 5.6, 3.1)
    plots.plot_mixture(mixture, ax=ax)
    found = mixture.modes()
    print("  modes at x = 0:", found.loc.numpy().round(2), "with masses", found.mass.numpy().round(2))
    for place in found.loc[found.mass > 0.01]:
        ax.plot(place, mixture.log_prob(place).exp(), "o", color=ORANGE, ms=6, zorder=4)
    ax.plot([], [], "o", color=ORANGE, label="modes")
    ax.legend(frameon=False)
    return figure


# 15: one component ----------------------------------------------------------------------------------------------


def one() -> Figure:
    """One component on a sine with growing noise: mean and scale as functions of x, beside the truth."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 2000)
    y = np.sin(3 * x) + (0.25 + 0.2 * x) * rng.normal(size=2000)
    model = MDNRegressor(1, preset="plain", family="normal", random_state=0).fit(x[:, None], y)
    at = np.linspace(-1, 1, 201)
    mean, std = model.predict(at[:, None], return_std=True)
    print(f"  mean error of sigma(x): {np.mean(np.abs(std - (0.25 + 0.2 * at))):.3f}")
    figure, (left, right) = panels(2)
    left.scatter(x, y, s=3, color=INK, alpha=0.25, lw=0)
    left.fill_between(at, mean - 2 * std, mean + 2 * std, color=BLUE, alpha=0.2, lw=0, label="μ(x) ± 2σ(x)")
    left.plot(at, mean, color=BLUE, lw=2)
    left.set(xlabel="x", ylabel="y", xlim=(-1, 1), title="M = 1")
    left.legend(frameon=False, loc="lower right")
    right.plot(at, 0.25 + 0.2 * at, color=INK, lw=1, ls=(0, (4, 3)), label="true")
    right.plot(at, std, color=BLUE, lw=2, label="learned")
    right.set(xlabel="x", ylabel="σ(x)", ylim=(0, 0.55), xlim=(-1, 1), title="its scale depends on x")
    right.legend(frameon=False, loc="upper left")
    return figure


FIGURES: dict[str, Callable[[], Figure]] = {
    "parameters": parameters,
    "loss": loss,
    "mean": mean,
    "selection": selection,
    "collapse": collapse,
    "singularity": singularity,
    "landscape": landscape,
    "vectors": vectors,
    "arm": arm,
    "ensemble": ensemble,
    "modes": modes,
    "canonical": canonical,
    "one": one,
}


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=FIGURES, default=list(FIGURES))
    for name in parser.parse_args().only:
        print(name)
        path = IMAGES / f"theory-{name}.png"
        full = BytesIO()
        FIGURES[name]().savefig(full, dpi=100)
        Image.open(full).convert("RGB").quantize(128).save(path, optimize=True)  # a third of the size
        print(f"  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
