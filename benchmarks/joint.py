"""A joint density beside the product of its margins, where the coordinates of the target depend on each other given x.

python benchmarks/joint.py [--sarcos sarcos_inv_test.npz] [--preset plain] [--splits 3] [--only NAME ...] [--json PATH]

Taxi: where a trip ends (two coordinates) given where and when it starts and how many travel. SARCOS: the seven torques
of a robot's arm given 7 positions, velocities and accelerations, where the file of the test rows of Rasmussen and
Williams (2006) is at hand; its rows follow time, and are split in blocks. The tasks of `inverse.py`: parameters given
what a simulator made of them.

The same rows for all ways, targets in units of their standard deviation. The NLL of the product is the sum of those of
D scalar models; energy scores are from draws, those of the product being independent draws of the margins. A chain has
D scalar models, too, each given the coordinates before it.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inverse import TASKS
from numpy.typing import NDArray

from mixtura import MDNChain, MDNRegressor
from mixtura.datasets import load_taxi

N_TRAIN, N_TEST, N_DRAWS, N_BLOCKS = 8000, 4000, 64, 20
Array = NDArray[np.float64]
Rows = tuple[Array, Array]


@dataclass(frozen=True)
class Problem:
    """Training and test rows for a seed; errors count so many consecutive test rows as one."""

    split: Callable[[int], tuple[Rows, Rows]]
    block: int = 1


# Problems -------------------------------------------------------------------------------------------------------


def taxi(seed: int) -> tuple[Rows, Rows]:
    """Three quarters of the trips to learn from, drawn at random."""
    trips = load_taxi()
    x = trips[["pickup_lon", "pickup_lat", "weekday", "hour", "passenger_count"]].to_numpy(np.float64)
    y = trips[["dropoff_lon", "dropoff_lat"]].to_numpy(np.float64)
    order = np.random.default_rng(seed).permutation(len(x))
    learn, judge = np.split(order, [3 * len(x) // 4])
    return (x[learn], y[learn]), (x[judge], y[judge])


def sarcos(path: Path, seed: int) -> tuple[Rows, Rows]:
    """A quarter of the blocks of consecutive rows to judge by."""
    with np.load(path) as file:
        x, y = (file[name].astype(np.float64) for name in ("X", "Y"))
    block = np.arange(len(x)) * N_BLOCKS // len(x)
    is_judge = np.isin(block, np.random.default_rng(seed).permutation(N_BLOCKS)[: N_BLOCKS // 4])
    return (x[~is_judge], y[~is_judge]), (x[is_judge], y[is_judge])


def simulated(name: str, seed: int) -> tuple[Rows, Rows]:
    """Parameters to be told from what a simulator makes of them; by logarithms, where all are positive."""
    theta, x = TASKS[name].draw(N_TRAIN + N_TEST, np.random.default_rng(seed))
    if (theta > 0).all() and (x > 0).all():
        x, theta = np.log(x), np.log(theta)
    return (x[:N_TRAIN], theta[:N_TRAIN]), (x[N_TRAIN:], theta[N_TRAIN:])


PROBLEMS = {"taxi": Problem(taxi), **{name: Problem(partial(simulated, name)) for name in TASKS}}


# Ways: log density of each test row, and draws of each ------------------------------------------------------------


def joint(learn: Rows, judge: Rows, seed: int, **settings: Any) -> tuple[Array, Array]:
    """One model of the vector."""
    model = MDNRegressor(random_state=seed, **settings).fit(*learn)
    return model.score_samples(*judge), model.sample(judge[0], N_DRAWS, seed)


def product(learn: Rows, judge: Rows, seed: int, **settings: Any) -> tuple[Array, Array]:
    """One model of each coordinate, as if they were independent given x."""
    parts = [
        joint((learn[0], learn[1][:, i]), (judge[0], judge[1][:, i]), 100 * i + seed, **settings)
        for i in range(learn[1].shape[1])
    ]
    return np.sum([part[0] for part in parts], axis=0), np.stack([part[1] for part in parts], -1)


def chain(learn: Rows, judge: Rows, seed: int, **settings: Any) -> tuple[Array, Array]:
    """One model of each coordinate given those before it."""
    model = MDNChain(MDNRegressor(random_state=seed, **settings)).fit(*learn)
    return model.score_samples(*judge), model.sample(judge[0], N_DRAWS, seed)


WAYS = {
    "full": partial(joint, covariance_type="full"),
    "diag": partial(joint, covariance_type="diag"),
    "product": product,
    "chain": chain,
}


def energy(draws: Array, y: Array) -> Array:
    """Of each row, the unbiased estimate of E|X - y| - E|X - X'| / 2."""
    n, found = draws.shape[1], []
    for some, its in zip(np.array_split(draws, 50), np.array_split(y, 50), strict=True):
        near = np.linalg.norm(some - its[:, None], axis=-1).mean(1)
        x = torch.as_tensor(some)
        between = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        found.append(near - 0.5 * between.sum((1, 2)).numpy() / (n * (n - 1)))
    return np.concatenate(found)


def mean_and_error(values: Array, block: int) -> tuple[float, float]:
    """The mean, and its standard error from the means of blocks."""
    means = values[: len(values) // block * block].reshape(-1, block).mean(1)
    return float(values.mean()), float(means.std(ddof=1) / np.sqrt(len(means)))


def run(name: str, problem: Problem, seed: int, **settings: Any) -> Iterator[dict[str, Any]]:
    """All ways on one split, each with its differences from the full joint density, row by row."""
    (x, y), (x_test, y_test) = problem.split(seed)
    centre, scale = y.mean(0), y.std(0)
    learn, judge = (x, (y - centre) / scale), (x_test, (y_test - centre) / scale)
    base: dict[str, Array] = {}
    for way, answer in WAYS.items():
        start = time.perf_counter()
        log_prob, draws = answer(learn, judge, seed, **settings)
        row: dict[str, Any] = {"problem": name, "seed": seed, "way": way, "d": y.shape[1], **settings}
        row |= {"n_train": len(x), "n_test": len(x_test), "seconds": round(time.perf_counter() - start, 1)}
        for score, values in {"nll": -log_prob, "energy": energy(draws, judge[1])}.items():
            row[score] = float(values.mean())
            worse, error = mean_and_error(values - base.setdefault(score, values), problem.block)
            row |= {f"{score}_worse": worse, f"{score}_error": error}
        yield row


def summary(results: list[dict[str, Any]]) -> Iterator[str]:
    """The lines of a table: means over splits; the error is that of one split, since test rows of splits overlap."""
    yield "| problem | D | K | preset | way | NLL, nats | worse than full | energy score | worse than full | seconds |"
    yield "|---|---:|---:|---|---|---:|---:|---:|---:|---:|"
    axes = ("problem", "d", "n_components", "preset", "way")
    for key in dict.fromkeys(tuple(r[axis] for axis in axes) for r in results):
        here = [r for r in results if tuple(r[axis] for axis in axes) == key]
        mean = {part: np.mean([r[part] for r in here]) for part in here[0] if part not in axes}
        cells = [*map(str, key)]
        for score in ("nll", "energy"):
            worse, error = mean[f"{score}_worse"], mean[f"{score}_error"]
            cells += [f"{mean[score]:.3f}", "" if key[-1] == "full" else f"{worse:+.4f} ± {error:.4f}"]
        yield f"| {' | '.join(cells)} | {mean['seconds']:.0f} |"


def main() -> None:
    """Print a line of JSON for each fit as it ends, then the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sarcos", type=Path, metavar="PATH", help="an .npz of X (n, 21) and Y (n, 7); else left out")
    parser.add_argument("--preset", nargs="*", default=["plain"], choices=["plain", "fast", "balanced", "best"])
    parser.add_argument("--components", type=int, default=10)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--only", nargs="*", metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also append the lines here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    problems = PROBLEMS | ({"SARCOS": Problem(partial(sarcos, args.sarcos), block=50)} if args.sarcos else {})
    results: list[dict[str, Any]] = []
    for preset in args.preset:
        for name in args.only or problems:
            for seed in range(args.splits):
                for row in run(name, problems[name], seed, preset=preset, n_components=args.components):
                    results.append(row)
                    print(json.dumps(row), flush=True)
                    if args.json:
                        with args.json.open("a") as file:
                            file.write(json.dumps(row) + "\n")
    print("\n".join(summary(results)))


if __name__ == "__main__":
    main()
