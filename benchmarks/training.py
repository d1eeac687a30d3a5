"""Microseconds of a training step beside what people write by hand, in one run.

make bench-speed          or          python benchmarks/training.py [--threads 2] [--json training.json]

Two sizes: S has 8 features, 2 x 64 units, 5 components, a scalar target, batches of 256; M has 32 features, 3 x 256
units, 10 components, 4 targets with diagonal covariance, batches of 512. All see the same rows. Each is timed in turns
with the others, several times, and the shortest counts.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.utils.data import DataLoader, TensorDataset

from mixtura import MDN, MLP, MixtureHead
from mixtura.learner import Learner
from mixtura.rows import Rows
from mixtura.training import train

N_ROWS, EPOCHS, ROUNDS = 16_384, 5, 5


@dataclass(frozen=True)
class Size:
    """A network and its rows."""

    name: str
    n_features: int
    hidden: tuple[int, ...]
    n_components: int
    n_targets: int | None
    batch_size: int

    def rows(self) -> tuple[Tensor, Tensor]:
        """x and y, drawn anew from the same seed."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(N_ROWS, self.n_features, generator=generator)
        shape = (N_ROWS,) if self.n_targets is None else (N_ROWS, self.n_targets)
        return x, torch.randn(shape, generator=generator) + (x[:, 0] if self.n_targets is None else x[:, :1])

    def network(self) -> MDN:
        """Ours."""
        generator = torch.Generator().manual_seed(0)
        head = MixtureHead(
            self.hidden[-1], self.n_components, self.n_targets, covariance_type="diag", generator=generator
        )
        return MDN(MLP(self.n_features, self.hidden, generator), head)

    def plain(self) -> nn.Sequential:
        """The same layers by hand: weights, means and log scales of all components."""
        sizes = [self.n_features, *self.hidden]
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.SiLU())]
        n_outputs = self.n_components * (1 + 2 * (self.n_targets or 1))
        return nn.Sequential(*layers, nn.Linear(self.hidden[-1], n_outputs))


SIZES = [Size("S", 8, (64, 64), 5, None, 256), Size("M", 32, (256, 256, 256), 10, 4, 512)]


def mixtura(size: Size, n_networks: int = 1) -> Callable[[], int]:
    """Some epochs of `train`, with evaluation on an eighth of the rows; returns the number of steps."""
    x, y = size.rows()
    networks, n_held_out = [size.network() for _ in range(n_networks)], N_ROWS // 8
    rows, learn, judge = Rows(x, y, torch.ones(N_ROWS)), torch.arange(n_held_out, N_ROWS), torch.arange(n_held_out)

    def run() -> int:
        settings = {"batch_size": size.batch_size, "learning_rate": 1e-3, "weight_decay": 1e-2, "patience": 10}
        learners = [Learner(network, learn, judge, torch.Generator().manual_seed(0)) for network in networks]
        train(learners, rows, max_epochs=EPOCHS, **settings)
        return EPOCHS * -(-len(learn) // size.batch_size)

    return run


def typical(size: Size) -> Callable[[], int]:
    """As tutorials have it: torch.distributions, DataLoader, Adam."""
    network = size.plain()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(*size.rows()), batch_size=size.batch_size, shuffle=True)
    k, d = size.n_components, size.n_targets

    def run() -> int:
        for x, y in loader:
            logits, rest = network(x).split([k, 2 * k * (d or 1)], -1)
            shape = (k, 2) if d is None else (k, 2, d)
            loc, log_scale = rest.unflatten(-1, shape).unbind(2)
            components = Normal(loc, log_scale.exp())
            law = MixtureSameFamily(Categorical(logits=logits), components if d is None else Independent(components, 1))
            loss = -law.log_prob(y).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return len(loader)

    return run


def by_hand(size: Size) -> Callable[[], int]:
    """Log-sum-exp written out, batches by index, fused Adam."""
    network, (x, y) = size.plain(), size.rows()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    k, d = size.n_components, size.n_targets

    def run() -> int:
        batches = torch.randperm(N_ROWS).split(size.batch_size)
        for batch in batches:
            logits, rest = network(x[batch]).split([k, 2 * k * (d or 1)], -1)
            loc, log_scale = rest.unflatten(-1, (k, 2, d or 1)).unbind(2)
            z = (y[batch].reshape(len(batch), 1, -1) - loc) * torch.exp(-log_scale)
            joint = logits.log_softmax(-1) - (0.5 * z.square() + log_scale).sum(-1)
            loss = -joint.logsumexp(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return len(batches)

    return run


def products(size: Size) -> Callable[[], int]:
    """The matrix products of the layers alone, forward and backward."""
    sizes = [size.n_features, *size.hidden, size.n_components * (1 + 2 * (size.n_targets or 1))]
    weights = [torch.randn(a, b) for a, b in pairwise(sizes)]
    inputs = [torch.randn(size.batch_size, a) for a in sizes]

    def run() -> int:
        for _ in range(N_ROWS // size.batch_size):
            for i, weight in enumerate(weights):
                torch.matmul(inputs[i], weight)
                torch.matmul(inputs[i].mT, inputs[i + 1])
                if i:
                    torch.matmul(inputs[i + 1], weight.mT)
        return N_ROWS // size.batch_size

    return run


WAYS = {
    "typical loop": typical,
    "by hand": by_hand,
    "Mixtura": mixtura,
    "Mixtura, eight at once": partial(mixtura, n_networks=8),
    "matrix products alone": products,
}


def measure(size: Size) -> Iterator[tuple[str, float]]:
    """Microseconds of a step, the shortest of several rounds in turns."""
    runs = {name: way(size) for name, way in WAYS.items()}
    shortest = dict.fromkeys(runs, float("inf"))
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            n_steps = run()
            shortest[name] = min(shortest[name], (time.perf_counter() - start) / n_steps * 1e6)
    yield from shortest.items()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="of torch; Mixtura takes one for small networks")
    parser.add_argument("--json", type=Path, metavar="PATH")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines = []
    print(f"torch {torch.__version__}, {args.threads} threads\n")
    print("| size | way | microseconds a step | times Mixtura's |\n|---|---|---:|---:|")
    for size in SIZES:
        figures = dict(measure(size))
        for name, microseconds in figures.items():
            ratio = microseconds / figures["Mixtura"]
            print(f"| {size.name} | {name} | {microseconds:,.0f} | {ratio:.2f} |", flush=True)
            lines.append({"size": size.name, "way": name, "microseconds": microseconds, "ratio": ratio})
    if args.json:
        args.json.write_text(json.dumps(lines, indent=1) + "\n")


if __name__ == "__main__":
    main()
