"""Excess NLL over the truth on problems whose true density is known, beside a naive MDN in the same run.

python benchmarks/canonical.py [--seeds 10] [--only NAME ...] [--ways WAY ...] [--jobs 2] [--json canonical.json]

The excess is the mean of log p(y | x) - log q(y | x) over 10,000 fresh rows: what it costs, in nats, not to know the
truth. The naive MDN is what tutorials have: no standardisation, exp for scales, no floors, Adam at 1e-3 for 300 epochs.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy import stats
from scipy.special import logsumexp
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from mixtura import MDNRegressor, MixturaError

N_TEST, N_COMPONENTS = 10_000, 5
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """A law of (x, y) from which rows can be drawn, and log p(y | x)."""

    draw: Callable[[int, np.random.Generator], tuple[Array, Array]]
    log_density: Callable[[Array, Array], Array]
    n_train: int = 1000
    target_median: float | None = None
    target_worst: float | None = None


def curve(t: Array) -> Array:
    """Bishop's t + 0.3 sin(2 pi t)."""
    return t + 0.3 * np.sin(2 * np.pi * t)


def inverse_sine(noise: Callable[[np.random.Generator, int], Array], density: Callable[[Array], Array]) -> Problem:
    """t uniform on (0, 1), x = curve(t) + noise; t given x, with the evidence by integration."""
    grid = np.linspace(0, 1, 4001)

    def draw(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        t = rng.uniform(0, 1, n)
        return (curve(t) + noise(rng, n))[:, None], t

    def log_density(x: Array, t: Array) -> Array:
        evidence = [np.trapezoid(density(part - curve(grid)), grid, axis=1) for part in np.array_split(x, 50)]
        return np.log(density(x[:, 0] - curve(t))) - np.log(np.concatenate(evidence))

    return Problem(draw, log_density)


def mixture_problem(n_x: int, parts: Callable[[Array], tuple[Array, Array, Array]], **settings: Any) -> Problem:
    """x uniform on (-1, 1); of y given x the weights (n, K), means (n, K, D) and Cholesky factors (n, K, D, D)."""

    def draw(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        x = rng.uniform(-1, 1, (n, n_x))
        weights, means, factors = parts(x)
        k = (rng.random((n, 1)) > weights.cumsum(1)).sum(1).clip(0, weights.shape[1] - 1)
        rows = np.arange(n)
        y = means[rows, k] + np.einsum("nij,nj->ni", factors[rows, k], rng.normal(size=(n, means.shape[2])))
        return x, y[:, 0] if y.shape[1] == 1 else y

    def log_density(x: Array, y: Array) -> Array:
        weights, means, factors = parts(x)
        z = np.linalg.solve(factors, (y.reshape(len(y), 1, -1) - means)[..., None])[..., 0]
        log_det = np.log(np.diagonal(factors, axis1=2, axis2=3)).sum(-1)
        each = -0.5 * (z**2).sum(-1) - log_det - 0.5 * means.shape[2] * np.log(2 * np.pi)
        with np.errstate(divide="ignore"):
            return logsumexp(each + np.log(weights), axis=1)

    return Problem(draw, log_density, **settings)


def two_modes(x: Array) -> tuple[Array, Array, Array]:
    """-1 and +1 alike, with sd .1, whatever x."""
    n = len(x)
    return np.full((n, 2), 0.5), np.tile([[[-1.0], [1.0]]], (n, 1, 1)), np.full((n, 2, 1, 1), 0.1)


def heteroscedastic(x: Array) -> tuple[Array, Array, Array]:
    """A sine with noise that grows from .05 to .45."""
    return np.ones((len(x), 1)), np.sin(3 * x)[:, :, None], (0.25 + 0.2 * x)[:, :, None, None]


def growing_modes(x: Array) -> tuple[Array, Array, Array]:
    """One mode on the left, five on the right, sd .1, one unit apart."""
    n_modes = np.floor(2.5 * (x + 1)).clip(0, 4) + 1
    k = np.arange(5)
    weights = (k < n_modes) / n_modes
    return weights, (k - (n_modes - 1) / 2)[..., None], np.full((len(x), 5, 1, 1), 0.1)


def correlated(x: Array) -> tuple[Array, Array, Array]:
    """Three coordinates, two components: means, correlations and weights move with two features."""
    a, b = x[:, 0], x[:, 1]
    weight = 1 / (1 + np.exp(-2 * a))
    means = np.stack([np.stack([a, b, a * b], 1), np.stack([-1 - b, 1 + a, np.sin(3 * a)], 1)], 1)
    factors = np.zeros((len(x), 2, 3, 3))
    factors[:, :] = 0.2 * np.eye(3)
    factors[:, 0, 1, 0], factors[:, 0, 2, 1] = 0.3 * a, 0.2
    factors[:, 1, 1, 0], factors[:, 1, 2, 0] = -0.3, 0.3 * b
    return np.stack([weight, 1 - weight], 1), means, factors


def ring() -> Problem:
    """Points at distance 1 +- .1 from a centre at (x, 0)."""

    def draw(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        x, angle, radius = rng.uniform(-1, 1, (n, 1)), rng.uniform(0, 2 * np.pi, n), rng.normal(1, 0.1, n)
        return x, np.stack([x[:, 0] + radius * np.cos(angle), radius * np.sin(angle)], 1)

    def log_density(x: Array, y: Array) -> Array:
        radius = np.hypot(y[:, 0] - x[:, 0], y[:, 1])
        return stats.norm.logpdf(radius, 1, 0.1) - np.log(2 * np.pi * radius)

    return Problem(draw, log_density, n_train=2000)


def spiral() -> Problem:
    """Two turns of a spiral from radius .2 to 1, turned by the angle x, with noise of sd .05 in both coordinates."""

    def place(x: Array, s: Array) -> Array:
        angle, radius = 4 * np.pi * s + x, 0.2 + 0.8 * s
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)

    def draw(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        x = rng.uniform(-1, 1, (n, 1))
        return x, place(x[:, 0], rng.random(n)) + rng.normal(0, 0.05, (n, 2))

    def log_density(x: Array, y: Array) -> Array:
        s = (np.arange(1000) + 0.5) / 1000
        parts = zip(np.array_split(x, 50), np.array_split(y, 50), strict=True)
        each = [stats.norm.logpdf(b[:, None] - place(a, s), 0, 0.05).sum(-1) for a, b in parts]
        return np.concatenate([logsumexp(part, axis=1) for part in each]) - np.log(len(s))

    return Problem(draw, log_density, n_train=2000)


def skew_t(slant: float = 4.0, df: float = 5.0, scale: float = 0.3) -> Problem:
    """Azzalini and Capitanio's (2003) skew-t about a sine."""
    delta = slant / np.hypot(1, slant)

    def draw(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        x = rng.uniform(-1, 1, (n, 1))
        normal = delta * np.abs(rng.normal(size=n)) + np.sqrt(1 - delta**2) * rng.normal(size=n)
        return x, np.sin(3 * x[:, 0]) + scale * normal / np.sqrt(rng.chisquare(df, n) / df)

    def log_density(x: Array, y: Array) -> Array:
        z = (y - np.sin(3 * x[:, 0])) / scale
        tail = stats.t.logcdf(slant * z * np.sqrt((df + 1) / (df + z**2)), df + 1)
        return np.log(2 / scale) + stats.t.logpdf(z, df) + tail

    return Problem(draw, log_density)


def scaled(problem: Problem, factor: float) -> Problem:
    """The same with y in another unit."""

    def draw(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
        x, y = problem.draw(n, rng)
        return x, factor * y

    return Problem(draw, lambda x, y: problem.log_density(x, y / factor) - np.log(factor), problem.n_train)


NORMAL_NOISE = inverse_sine(lambda rng, n: rng.normal(0, 0.1, n), partial(stats.norm.pdf, scale=0.1))
PROBLEMS = {
    "inverse sine": Problem(NORMAL_NOISE.draw, NORMAL_NOISE.log_density, 1000, 0.045, 0.07),
    "inverse sine, 150 rows": Problem(NORMAL_NOISE.draw, NORMAL_NOISE.log_density, 150),
    "inverse sine, uniform noise": inverse_sine(
        lambda rng, n: rng.uniform(-0.1, 0.1, n), partial(stats.uniform.pdf, loc=-0.1, scale=0.2)
    ),
    "two modes": mixture_problem(1, two_modes, target_median=0.01, target_worst=0.01),
    "heteroscedastic sine": mixture_problem(1, heteroscedastic, target_median=0.045, target_worst=0.07),
    "one to five modes": mixture_problem(1, growing_modes, target_median=0.045, target_worst=0.07),
    "skew-t": skew_t(),
    "ring": ring(),
    "spiral": spiral(),
    "three correlated targets": mixture_problem(2, correlated, n_train=2000, target_median=0.045, target_worst=0.07),
    **{f"inverse sine x {10.0**e:g}": scaled(NORMAL_NOISE, 10.0**e) for e in (-6, -3, 3, 6)},
}


def naive(x: Array, y: Array, x_test: Array, y_test: Array, seed: int) -> tuple[float, dict[str, Any]]:
    """Mean log density of fresh rows under the MDN of a tutorial; NaN where it breaks down."""
    torch.manual_seed(seed)  # a benchmark may: it is the program itself
    k, d = N_COMPONENTS, 1 if y.ndim == 1 else y.shape[1]
    network = nn.Sequential(
        nn.Linear(x.shape[1], 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, k * (1 + 2 * d))
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    tensors = [torch.tensor(part, dtype=torch.float32).reshape(len(part), -1) for part in (x, y, x_test, y_test)]
    x_train, y_train, x_fresh, y_fresh = tensors

    def law(rows: torch.Tensor) -> MixtureSameFamily:
        logits, loc, log_scale = network(rows).split([k, k * d, k * d], -1)
        components = Normal(loc.unflatten(-1, (k, d)), log_scale.exp().unflatten(-1, (k, d)), validate_args=False)
        return MixtureSameFamily(
            Categorical(logits=logits, validate_args=False), Independent(components, 1), validate_args=False
        )

    for _ in range(300):
        for batch in torch.randperm(len(x)).split(128):
            loss = -law(x_train[batch]).log_prob(y_train[batch]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return law(x_fresh).log_prob(y_fresh).double().mean().item(), {}


def ours(x: Array, y: Array, x_test: Array, y_test: Array, seed: int, **settings: Any) -> tuple[float, dict[str, Any]]:
    """Mean log density of fresh rows under `MDNRegressor` as it comes, but for the number of components."""
    try:
        model = MDNRegressor(N_COMPONENTS, random_state=seed, **settings).fit(x, y)
    except MixturaError:
        return float("nan"), {}
    return model.score_samples(x_test, y_test).mean(), {"n_active": model.fit_report_.n_active_components}


PLAIN = partial(ours, preset="plain")
WAYS = {"naive MDN": naive, "Mixtura": ours, "Mixtura, plain": PLAIN}
ON_REQUEST = {
    "Mixtura, fast": partial(ours, preset="fast"),
    "Mixtura, best": partial(ours, preset="best"),
    "plain, 8 restarts": partial(PLAIN, n_restarts=8),
    "plain, without floors": partial(PLAIN, scale_floor=1e-12, weight_floor=0.0),
    "plain, without revival": partial(PLAIN, revive=False),
    "plain, without noise": partial(PLAIN, noise=0.0),
    "plain, without early stopping": partial(PLAIN, validation_fraction=0.0),
}
EVERY_WAY = WAYS | ON_REQUEST


def run(name: str, seed: int, way: str) -> dict[str, Any]:
    """The excess of one way on one problem with one seed."""
    torch.set_num_threads(1)
    problem = PROBLEMS[name]
    x, y = problem.draw(problem.n_train, np.random.default_rng(seed))
    x_test, y_test = problem.draw(N_TEST, np.random.default_rng(10_000 + seed))
    reached, more = EVERY_WAY[way](x, y, x_test, y_test, seed)
    excess = problem.log_density(x_test, y_test).mean() - reached
    return {"problem": name, "seed": seed, "way": way, "excess": float(excess), **more}


def summary(results: list[dict[str, Any]], names: list[str]) -> Iterator[str]:
    """The lines of a table."""
    yield "| problem | way | median excess, nats | worst | failures | fewest active | target (median, worst) |"
    yield "|---|---|---:|---:|---:|---:|---|"
    for name in names:
        for way in EVERY_WAY:
            here = [r for r in results if (r["problem"], r["way"]) == (name, way)]
            if not here:
                continue
            excess = np.array([r["excess"] for r in here])
            sound = excess[np.isfinite(excess)]
            median, worst = (np.median(sound), sound.max()) if len(sound) else (np.nan, np.nan)
            active = min((r["n_active"] for r in here if "n_active" in r), default="")
            problem = PROBLEMS[name]
            target = "" if problem.target_median is None else f"{problem.target_median}, {problem.target_worst}"
            failures = f"{len(here) - len(sound)} of {len(here)}"
            yield f"| {name} | {way} | {median:.3f} | {worst:.3f} | {failures} | {active} | {target} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", nargs="*", default=list(PROBLEMS), choices=list(PROBLEMS), metavar="NAME")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(EVERY_WAY), metavar="WAY")
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--json", type=Path, metavar="PATH")
    args = parser.parse_args()
    jobs = [delayed(run)(name, seed, way) for name in args.only for seed in range(args.seeds) for way in args.ways]
    results: list[dict[str, Any]] = list(Parallel(n_jobs=args.jobs)(jobs))  # pyright: ignore[reportArgumentType]
    print("\n".join(summary(results, args.only)))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
