"""The theorem, measured: the L1 distance between an MDN and a smooth conditional density, against components and rows.

python benchmarks/universal.py [--seeds 3] [--json universal.json] [--figure docs/images/universal.png]

Mixtures of normals are dense, and networks approximate their parameters: an MDN comes as near as one likes to any
continuous conditional density (Bishop 1994). The distance is the integral of |p(y | x) - q(y | x)| over y, by the
trapezoidal rule on a grid, averaged over 200 values of x; it is between 0 and 2.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from mixtura import MDNRegressor

COMPONENTS, ROWS = (1, 2, 4, 8, 16, 32), (1_000, 4_000, 16_000)
GRID = np.linspace(-6, 8, 2801)
Array = NDArray[np.float64]


def uniform_with_soft_edges(x: Array) -> stats.rv_continuous:
    """A plateau about a sine, whose width grows with x; logistic edges."""
    return _Plateau(np.sin(3 * x), 0.6 + 0.3 * x, 0.03)


class _Plateau:
    """Uniform on (a, b) plus logistic noise of scale s: density (S((y - a) / s) - S((y - b) / s)) / (b - a)."""

    def __init__(self, centre: Array, half_width: Array, edge: float):
        self.low, self.high, self.edge = centre - half_width, centre + half_width, edge

    def pdf(self, y: Array) -> Array:
        law = stats.logistic(scale=self.edge)
        return (law.cdf(y - self.low) - law.cdf(y - self.high)) / (self.high - self.low)

    def rvs(self, size: int, random_state: np.random.Generator) -> Array:
        noise = stats.logistic(scale=self.edge).rvs(size, random_state=random_state)
        return random_state.uniform(self.low, self.high) + noise


DENSITIES: dict[str, Callable[[Array], Any]] = {
    "skewed (gamma, shape 2 to 6)": lambda x: stats.gamma(4 + 2 * x, loc=-1, scale=0.5),
    "a plateau with soft edges": uniform_with_soft_edges,
}


def distance(name: str, n_components: int, n: int, seed: int) -> dict[str, Any]:
    """How far a fit to n rows is from the truth."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, n)
    y = DENSITIES[name](x).rvs(size=n, random_state=rng)
    model = MDNRegressor(n_components, preset="plain", family="normal", random_state=seed).fit(x[:, None], y)
    at = np.linspace(-0.99, 0.99, 200)
    with torch.no_grad():
        learned = model.predict_dist(at[:, None]).log_prob(torch.as_tensor(GRID)[:, None]).exp().numpy()
    truth = DENSITIES[name](at).pdf(GRID[:, None])
    l1 = np.trapezoid(np.abs(learned - truth), GRID, axis=0).mean()
    return {"density": name, "n_components": n_components, "n": n, "seed": seed, "l1": float(l1)}


def main() -> None:
    """Print the tables, and draw them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--json", type=Path, metavar="PATH")
    parser.add_argument("--figure", type=Path, metavar="PATH")
    args = parser.parse_args()
    jobs = [
        delayed(distance)(name, k, n, seed)
        for name in DENSITIES
        for n in ROWS
        for k in COMPONENTS
        for seed in range(args.seeds)
    ]
    results: list[dict[str, Any]] = list(Parallel(n_jobs=args.jobs)(jobs))  # pyright: ignore[reportArgumentType]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axes = figure.subplots(1, len(DENSITIES), sharey=True)
    for ax, name in zip(axes, DENSITIES, strict=True):
        print(f"\n{name}: L1 distance to the truth, mean of {args.seeds} seeds\n")
        print("| rows | " + " | ".join(f"M = {k}" for k in COMPONENTS) + " |\n|---:" + "|---:" * len(COMPONENTS) + "|")
        for n in ROWS:
            means = [
                np.mean([r["l1"] for r in results if (r["density"], r["n_components"], r["n"]) == (name, k, n)])
                for k in COMPONENTS
            ]
            print(f"| {n:,} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
            ax.plot(COMPONENTS, means, marker="o", label=f"{n:,} rows")
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(COMPONENTS, [str(k) for k in COMPONENTS])
        ax.set_xlabel("components")
        ax.set_title(name)
        ax.legend()
    axes[0].set_ylabel("integral of |p - q| dy")
    if args.figure:
        figure.savefig(args.figure, dpi=120)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
