"""Rows per second and peak memory of the questions that a scalar normal mixture answers, beside peers.

python benchmarks/queries.py [--rows 1000000] [--threads 2] [--queries cdf crps] [--json queries.json]

Every peer gets the same arrays, has a process of its own, in which it is asked several times within a few seconds (the
first counts for the memory, the shortest for the time), and is compared with Mixtura's answer: a fast, wrong one shows.
numpy and scipy are elementwise on one thread; torch, hence Mixtura, has `--threads`.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import scoringrules
import torch
from numpy.typing import NDArray
from scipy.special import erf, ndtr
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from mixtura import Mixture, crps

K = 10
LEVELS = [0.05, 0.5, 0.95]
N_SAMPLES = 100
COVERAGE = 0.9
PARTS = ["logits", "weights", "loc", "scale", "y"]
MIXTURA = "Mixtura"
MOST_REPETITIONS, SECONDS = 7, 5.0
SQRT_HALF, SQRT_2_OVER_PI = math.sqrt(0.5), math.sqrt(2 / math.pi)

Array = NDArray[np.float64]


@dataclass
class Inputs:
    """Arrays of n rows, (n, K) each, and y, (n,)."""

    logits: Array
    weights: Array
    loc: Array
    scale: Array
    y: Array

    @classmethod
    def make(cls, n_rows: int) -> "Inputs":
        """Components a few scales apart: from one to seven modes."""
        rng = np.random.default_rng(0)
        logits, loc = rng.normal(size=(n_rows, K)), 3 * rng.normal(size=(n_rows, K))
        weights = np.exp(logits)
        weights /= weights.sum(-1, keepdims=True)
        return cls(logits, weights, loc, np.exp(0.5 * rng.normal(size=(n_rows, K)) - 0.5), 3 * rng.normal(size=n_rows))

    @classmethod
    def load(cls, folder: Path, n_rows: int) -> "Inputs":
        """The first rows of what `save` wrote, with no copy that would count as memory."""
        parts = [np.fromfile(folder / part, count=n_rows * (1 if part == "y" else K)) for part in PARTS]
        logits, weights, loc, scale = (part.reshape(-1, K) for part in parts[:-1])
        return cls(logits, weights, loc, scale, parts[-1])

    def save(self, folder: Path) -> None:
        """Written, one file for each array."""
        for part in PARTS:
            getattr(self, part).tofile(folder / part)

    def tensors(self) -> tuple[Tensor, Normal, Tensor]:
        """Logits, components and y for torch, in the same memory."""
        components = Normal(torch.from_numpy(self.loc), torch.from_numpy(self.scale), validate_args=False)
        return torch.from_numpy(self.logits), components, torch.from_numpy(self.y)

    def mixtura(self) -> tuple[Mixture, Tensor]:
        """A mixture and y."""
        logits, components, y = self.tensors()
        return Mixture(logits, components), y

    def torch(self) -> tuple[MixtureSameFamily, Tensor]:
        """The same as torch has it."""
        logits, components, y = self.tensors()
        return MixtureSameFamily(Categorical(logits=logits), components, validate_args=False), y


@dataclass(frozen=True)
class Peer:
    """Who answers a query, on how many rows at most, and how."""

    query: str
    library: str
    most_rows: float
    prepare: Callable[[Inputs], Callable[[], list[Array]]]
    """Whatever is built once, and then the question, which is timed."""


PEERS: list[Peer] = []


def peer(query: str, library: str, most_rows: float = math.inf):
    """Register the decorated function."""

    def register(prepare: Callable[[Inputs], Callable[[], list[Array]]]):
        PEERS.append(Peer(query, library, most_rows, prepare))
        return prepare

    return register


# Mean and standard deviation -----------------------------------------------------------------------------------


@peer("mean + std", MIXTURA)
def _(inputs: Inputs):
    mixture, _ = inputs.mixtura()

    def ask():
        anew = mixture[:]  # which keeps nothing of what was asked before
        return [anew.mean.numpy(), anew.stddev.numpy()]

    return ask


@peer("mean + std", "numpy")
def _(inputs: Inputs):
    weights, loc, scale = inputs.weights, inputs.loc, inputs.scale

    def ask():
        mean = np.einsum("nk,nk->n", weights, loc)
        deviation = loc - mean[:, None]
        return [mean, np.sqrt(np.einsum("nk,nk->n", weights, scale * scale + deviation * deviation))]

    return ask


@peer("mean + std", "torch.distributions")
def _(inputs: Inputs):
    mixture, _ = inputs.torch()
    return lambda: [mixture.mean.numpy(), mixture.stddev.numpy()]


# Log density ---------------------------------------------------------------------------------------------------


@peer("log_prob", MIXTURA)
def _(inputs: Inputs):
    mixture, y = inputs.mixtura()
    return lambda: [mixture.log_prob(y).numpy()]


@peer("log_prob", "numpy")
def _(inputs: Inputs):
    def ask():
        z = (inputs.y[:, None] - inputs.loc) / inputs.scale
        joint = np.log(inputs.weights / inputs.scale) - 0.5 * z * z
        highest = joint.max(-1)
        return [np.log(np.exp(joint - highest[:, None]).sum(-1)) + highest - 0.5 * math.log(2 * math.pi)]

    return ask


@peer("log_prob", "torch.distributions")
def _(inputs: Inputs):
    mixture, y = inputs.torch()
    return lambda: [mixture.log_prob(y).numpy()]


# Distribution function -----------------------------------------------------------------------------------------


@peer("cdf", MIXTURA)
def _(inputs: Inputs):
    mixture, y = inputs.mixtura()
    return lambda: [mixture.cdf(y).numpy()]


@peer("cdf", "scipy")
def _(inputs: Inputs):
    def ask():
        return [np.einsum("nk,nk->n", inputs.weights, ndtr((inputs.y[:, None] - inputs.loc) / inputs.scale))]

    return ask


@peer("cdf", "torch.distributions")
def _(inputs: Inputs):
    mixture, y = inputs.torch()
    return lambda: [mixture.cdf(y).numpy()]


# Quantiles -----------------------------------------------------------------------------------------------------

N_HALVINGS = 44
"""Of a bracket some ten to fifty spreads wide: down to 1e-12 of the spread."""


@peer("3 quantiles", MIXTURA)
def _(inputs: Inputs):
    mixture, _ = inputs.mixtura()
    levels = torch.tensor(LEVELS, dtype=torch.float64)[:, None]
    return lambda: list(mixture.icdf(levels).numpy())


@peer("3 quantiles", "scipy, bisection", 50_000)
def _(inputs: Inputs):
    weights, loc, scale = inputs.weights, inputs.loc, inputs.scale

    def ask():
        first, last = (loc - 10 * scale).min(-1), (loc + 10 * scale).max(-1)
        answers = []
        for level in LEVELS:
            low, high = first, last
            for _ in range(N_HALVINGS):
                middle = 0.5 * (low + high)
                is_low = np.einsum("nk,nk->n", weights, ndtr((middle[:, None] - loc) / scale)) < level
                low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
            answers.append(0.5 * (low + high))
        return answers

    return ask


@peer("3 quantiles", "torch.distributions, bisection", 50_000)
def _(inputs: Inputs):
    mixture, _ = inputs.torch()
    loc, scale = (torch.from_numpy(part) for part in (inputs.loc, inputs.scale))

    def ask():
        first, last = (loc - 10 * scale).amin(-1), (loc + 10 * scale).amax(-1)
        answers = []
        for level in LEVELS:
            low, high = first, last
            for _ in range(N_HALVINGS):
                middle = 0.5 * (low + high)
                is_low = mixture.cdf(middle) < level
                low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
            answers.append((0.5 * (low + high)).numpy())
        return answers

    return ask


# Samples -------------------------------------------------------------------------------------------------------

SAMPLES = f"{N_SAMPLES} samples"


@peer(SAMPLES, MIXTURA)
def _(inputs: Inputs):
    mixture, _ = inputs.mixtura()
    generator = torch.Generator().manual_seed(0)
    return lambda: [mixture.sample((N_SAMPLES,), generator).numpy()]


@peer(SAMPLES, "numpy", 100_000)
def _(inputs: Inputs):
    rng = np.random.default_rng(0)

    def ask():
        n = len(inputs.y)
        steps = inputs.weights.cumsum(-1)
        u = rng.random((N_SAMPLES, n))
        chosen = np.zeros((N_SAMPLES, n), dtype=np.int64)
        for k in range(K - 1):
            chosen += u > steps[:, k]
        chosen += np.arange(n) * K
        return [inputs.loc.take(chosen) + inputs.scale.take(chosen) * rng.standard_normal((N_SAMPLES, n))]

    return ask


@peer(SAMPLES, "torch.distributions", 100_000)
def _(inputs: Inputs):
    mixture, _ = inputs.torch()
    return lambda: [mixture.sample((N_SAMPLES,)).numpy()]


# Continuous ranked probability score ---------------------------------------------------------------------------


@peer("crps", MIXTURA)
def _(inputs: Inputs):
    mixture, y = inputs.mixtura()
    return lambda: [crps(mixture, y, reduction="none").numpy()]


@peer("crps", "scipy, pair by pair")
def _(inputs: Inputs):
    def mean_absolute(loc: Array, scale: Array) -> Array:
        z = loc / scale
        return loc * erf(SQRT_HALF * z) + SQRT_2_OVER_PI * scale * np.exp(-0.5 * z * z)

    def ask_block(rows: slice) -> Array:
        weights, loc, scale = (
            np.ascontiguousarray(part[rows].T) for part in (inputs.weights, inputs.loc, inputs.scale)
        )
        variance = scale * scale
        score = (weights * mean_absolute(inputs.y[rows] - loc, scale)).sum(0)
        score -= (weights * weights * scale).sum(0) / math.sqrt(math.pi)
        for i in range(K):
            for j in range(i):
                difference = mean_absolute(loc[i] - loc[j], np.sqrt(variance[i] + variance[j]))
                score -= weights[i] * weights[j] * difference
        return score

    def ask():  # in blocks that the cache holds, which is the fastest
        return [np.concatenate([ask_block(slice(i, i + 4096)) for i in range(0, len(inputs.y), 4096)])]

    return ask


@peer("crps", "torch, K x K at once", 100_000)
def _(inputs: Inputs):
    logits, components, y = inputs.tensors()

    def mean_absolute(loc: Tensor, scale: Tensor) -> Tensor:
        z = loc / scale
        return loc * torch.erf(SQRT_HALF * z) + SQRT_2_OVER_PI * scale * torch.exp(-0.5 * z * z)

    def ask():
        weights, loc, scale = logits.softmax(-1), components.loc, components.scale
        distance = (weights * mean_absolute(y[:, None] - loc, scale)).sum(-1)
        spread = (scale[:, :, None].square() + scale[:, None].square()).sqrt()
        pairs = weights[:, :, None] * weights[:, None] * mean_absolute(loc[:, :, None] - loc[:, None], spread)
        return [(distance - 0.5 * pairs.sum((-1, -2))).numpy()]

    return ask


@peer("crps", "scoringrules", 100_000)
def _(inputs: Inputs):
    return lambda: [
        np.asarray(scoringrules.crps_mixnorm(inputs.y, inputs.loc, inputs.scale, inputs.weights, backend="numpy"))
    ]


# Highest-density region: its length is compared ----------------------------------------------------------------

REGION = f"{COVERAGE:.0%} highest-density region"


@peer(REGION, MIXTURA, 20_000)
def _(inputs: Inputs):
    mixture, _ = inputs.mixtura()
    return lambda: [mixture.highest_density_region(COVERAGE).size.numpy()]


@peer(REGION, "numpy, 1,000 points", 5_000)
def _(inputs: Inputs):
    def ask_row(weights: Array, loc: Array, scale: Array) -> float:
        grid = np.linspace((loc - 5 * scale).min(), (loc + 5 * scale).max(), 1000)
        z = (grid - loc[:, None]) / scale[:, None]
        density = (weights / scale) @ np.exp(-0.5 * z * z)
        mass = np.sort(density)[::-1].cumsum()
        return (np.searchsorted(mass, COVERAGE * mass[-1]) + 1) * (grid[1] - grid[0])

    def ask():
        return [np.array([ask_row(*row) for row in zip(inputs.weights, inputs.loc, inputs.scale, strict=True)])]

    return ask


# Modes: the place of the highest one is compared ---------------------------------------------------------------


@peer("modes", MIXTURA, 50_000)
def _(inputs: Inputs):
    mixture, _ = inputs.mixtura()

    def ask():
        modes = mixture.modes()
        highest = modes.height.nan_to_num(-1).argmax(-1, keepdim=True)
        return [modes.loc.gather(-1, highest)[:, 0].numpy()]

    return ask


@peer("modes", "numpy, mean shift", 5_000)
def _(inputs: Inputs):
    log_height = np.log(inputs.weights / inputs.scale)
    precision = inputs.scale**-2

    def ask():
        n = len(inputs.y)
        y, row = inputs.loc.ravel().copy(), np.repeat(np.arange(n), K)  # a climb from every mean
        active = np.arange(n * K)
        while len(active):
            rows = row[active]
            loc, rate = inputs.loc[rows], precision[rows]
            pull = np.exp(log_height[rows] - 0.5 * (y[active, None] - loc) ** 2 * rate) * rate
            moved = np.einsum("nk,nk->n", pull, loc) / pull.sum(-1)
            is_moving = np.abs(moved - y[active]) > 1e-9
            y[active] = moved
            active = active[is_moving]
        ends = y.reshape(n, K)
        z = (ends[:, :, None] - inputs.loc[:, None]) / inputs.scale[:, None]
        height = np.einsum("nk,nak->na", np.exp(log_height), np.exp(-0.5 * z * z))
        return [ends[np.arange(n), height.argmax(-1)]]

    return ask


# Measuring -----------------------------------------------------------------------------------------------------


@dataclass
class Measurement:
    """One line of the table."""

    query: str
    library: str
    rows: int
    rows_per_second: float
    extra_mib: float
    difference: float
    """Largest difference from Mixtura's answer, of cdfs the relative one; of samples, of a row's mean from the true
    one in standard errors."""
    mixtura_is_faster_by: float = math.nan


def peak_mib() -> float:
    """The most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)


def measure(chosen: Peer, n_rows: int, folder: Path) -> Measurement:
    """In a process of its own."""
    n_rows = min(n_rows, int(min(chosen.most_rows, n_rows)))
    inputs = Inputs.load(folder, n_rows)
    ask = chosen.prepare(inputs)
    before, start = peak_mib(), time.perf_counter()
    answers = ask()
    seconds = [time.perf_counter() - start]
    extra = peak_mib() - before
    difference = distance(chosen, inputs, answers, folder / "answers.npy")
    del answers
    while len(seconds) < MOST_REPETITIONS and sum(seconds) + min(seconds) < SECONDS:
        start = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - start)
    return Measurement(chosen.query, chosen.library, n_rows, n_rows / min(seconds), extra, difference)


def distance(chosen: Peer, inputs: Inputs, answers: list[Array], place: Path) -> float:
    """How far the answers are from Mixtura's, which came first and are kept at `place`."""
    if chosen.query == SAMPLES:
        mean = np.einsum("nk,nk->n", inputs.weights, inputs.loc)
        between = (inputs.loc - mean[:, None]) ** 2
        error = np.sqrt(np.einsum("nk,nk->n", inputs.weights, inputs.scale**2 + between) / N_SAMPLES)
        return float((np.abs(answers[0].mean(0) - mean) / error).max())
    if chosen.library == MIXTURA:
        np.save(place, np.stack(answers))
        return 0.0
    expected = np.load(place, mmap_mode="r")
    n = min(len(inputs.y), expected.shape[1])
    unit = expected if chosen.query == "cdf" else np.ones_like(expected)  # of a tail, the relative error is what counts
    gaps = (np.abs(a[:n] - b[:n]) / size[:n] for a, b, size in zip(answers, expected, unit, strict=True))
    return max(float(gap.max()) for gap in gaps)


def call(arguments: list[str], n_threads: int) -> str:
    """This script again, in a process that starts small: `ru_maxrss` is at least that of whoever started it."""
    command = [sys.executable, __file__, "--threads", str(n_threads), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": str(n_threads)}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


def circumstances(n_threads: int, n_rows: int) -> dict[str, str | int]:
    """When, of what and on what."""
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        commit = subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    names = [line for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    processor = names[0].split(":")[1].strip() if names else platform.processor() or platform.machine()
    libraries = {name: importlib.metadata.version(name) for name in ["torch", "numpy", "scipy", "scoringrules"]}
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": commit,
        "processor": processor,
        "cores": os.cpu_count() or 0,
        "threads": n_threads,
        "python": platform.python_version(),
        **libraries,
        "mixtures": f"{n_rows:,} rows x {K} normal components in float64",
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def table(lines: list[Measurement]) -> str:
    """In Markdown."""
    heads = ["query", "library", "rows", "rows/s", "Mixtura is faster by", "extra memory, MiB", "largest difference"]
    out = ["| " + " | ".join(heads) + " |", "|---|---|" + "---:|" * 5]
    for line in lines:
        faster = "" if line.library == MIXTURA else f"{line.mixtura_is_faster_by:.2f}x"
        difference = "" if line.library == MIXTURA else f"{line.difference:.1e}"
        if line.query == "cdf" and difference:
            difference += " of the cdf"
        if line.query == SAMPLES:
            difference = f"{line.difference:.1f} standard errors"
        cells = [line.query, line.library, f"{line.rows:,}", f"{line.rows_per_second:,.0f}", faster]
        out.append("| " + " | ".join([*cells, f"{line.extra_mib:,.0f}", difference]) + " |")
    return "\n".join(out)


def main() -> None:
    """Ask all, one after the other, and print the table."""
    queries = list(dict.fromkeys(one.query for one in PEERS))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--queries", nargs="+", choices=queries, default=queries)
    parser.add_argument("--json", type=Path, metavar="PATH")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # of a run in progress
    parser.add_argument("--ask", type=int, help=argparse.SUPPRESS)  # the place of one peer
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.ask is not None:
        print(json.dumps(asdict(measure(PEERS[args.ask], args.rows, args.folder))))
        return
    if args.folder is not None:
        Inputs.make(args.rows).save(args.folder)
        return
    about = circumstances(args.threads, args.rows)
    print("; ".join(f"{name} {value}" for name, value in about.items()) + "\n", flush=True)
    lines, own = [], {}
    with tempfile.TemporaryDirectory() as folder:
        given = ["--rows", str(args.rows), "--folder", folder]
        call(given, args.threads)
        for place, one in enumerate(PEERS):
            if one.query in args.queries:
                line = Measurement(**json.loads(call([*given, "--ask", str(place)], args.threads)))
                own |= {one.query: line.rows_per_second} if one.library == MIXTURA else {}
                line.mixtura_is_faster_by = own[one.query] / line.rows_per_second
                lines.append(line)
                print(f"{line.query}, {line.library}: {line.rows_per_second:,.0f} rows/s", file=sys.stderr)
    print(table(lines))
    if args.json:
        args.json.write_text(json.dumps({"about": about, "lines": [asdict(line) for line in lines]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
