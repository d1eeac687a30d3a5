"""Training: where a network starts, and the loop that fits it."""

import math
import time
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from sklearn.cluster import KMeans
from torch import Tensor, nn

from .adamw import AdamW
from .errors import MixturaError, MixturaWarning
from .families import AnyFamily
from .mixture import Mixture
from .nets import MixtureHead
from .scores import censored_nll, nll

_MAX_SKIPPED_IN_A_ROW = 20
_MAX_ROLLBACKS = 3
_MOST_ROWS_TO_START = 5_000
_N_EM_STEPS = 40
_FEWEST_FLOPS_FOR_THREADS = 1e8
"""Of a step, below which threads wait for each other more than they work; on a busy machine a hundred times more."""


@dataclass
class FitReport:
    """What happened while a network was fitted. All NLLs are means in nats; those of an estimator are in the user's
    units of y, so that they compare with `score_samples`."""

    train_nll: list[float] = field(default_factory=list)
    """Mean over the steps of each epoch."""
    valid_nll: list[float] = field(default_factory=list)
    """On the held-out rows after each epoch (on the training rows where none are held out)."""
    start_nll: float = math.nan
    """On the same rows before the first step: near the unconditional density."""
    best_epoch: int = -1
    """Index of the epoch whose weights were kept; -1 where no epoch was better than the start."""
    n_skipped_steps: int = 0
    """Steps whose loss or gradient was not finite; none of them touched the weights."""
    events: list[str] = field(default_factory=list)
    """What a person should know, in words, in order."""
    n_train_rows: int = 0
    n_valid_rows: int = 0
    seconds: float = 0.0

    @property
    def n_epochs(self) -> int:
        """Number of epochs run."""
        return len(self.valid_nll)

    @property
    def best_nll(self) -> float:
        """Held-out NLL of the weights that were kept."""
        return self.start_nll if self.best_epoch < 0 else self.valid_nll[self.best_epoch]


@dataclass(frozen=True)
class Rows:
    """Rows to learn from, in the network's units: features (n, p), targets (n,) or (n, D), positive weights (n,).

    Of a censored target, y is the lower end of an interval and `upper` the other; they are equal where y is known.
    """

    x: Float[Tensor, "n p"]
    y: Float[Tensor, "n *event"]
    weight: Float[Tensor, "n"]
    upper: Float[Tensor, "n"] | None = None

    def __len__(self) -> int:
        return len(self.y)

    @property
    def points(self) -> Float[Tensor, "n *event"]:
        """One finite target for each row: the middle of an interval, or its finite end."""
        if self.upper is None:
            return self.y
        lower = torch.where(self.y.isfinite(), self.y, self.upper)
        return lower + 0.5 * (torch.where(self.upper.isfinite(), self.upper, lower) - lower)

    def take(self, index: Tensor) -> "Rows":
        """Some of the rows."""
        upper = None if self.upper is None else self.upper[index]
        return Rows(self.x[index], self.y[index], self.weight[index], upper)

    def loss(self, mixture: Mixture) -> Float[Tensor, ""]:
        """Weighted mean NLL of a mixture for each row."""
        if self.upper is None:
            return nll(mixture, self.y, self.weight)
        return censored_nll(mixture, self.y, self.upper, self.weight)


def starting_mixture(
    y: Float[Tensor, "n *event"],
    n_components: int,
    family: AnyFamily,
    sample_weight: Tensor,
    seed: int,
    atoms: Tensor | None = None,
) -> Mixture:
    """A mixture near the marginal density of y, with components spread over it.

    At most 5,000 rows are split into n_components groups of equal weight, by quantiles of a scalar target and by
    k-means of a vector one; the family's own fits to the groups are then improved by a few steps of EM. Groups without
    rows start as the fit to all rows.

    Parameters
    ----------
    y
        Targets, (n,) or (n, D).
    sample_weight
        Shape (n,), not negative.
    seed
        Decides the rows and the start of k-means.
    atoms
        Values with a mass of their own, shape (A,): rows that have one are left to it.
    """
    if atoms is not None:
        is_atom = y[:, None] == atoms
        masses = (is_atom * sample_weight[:, None]).sum(0)
        others = ~is_atom.any(-1)
        others = others if bool(others.any()) else ~others
        inner = starting_mixture(y[others], n_components, family, sample_weight[others], seed)
        share = sample_weight[others].sum().clamp(min=1e-6 * masses.sum())
        logits = torch.cat([inner.logits + share.log(), masses.clamp(min=1e-6 * share).log()])
        return Mixture(logits, inner.components, atoms, validate_args=False)
    some = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))[:_MOST_ROWS_TO_START]
    # In float64: covariances may be near singular.
    dtype, y, sample_weight = y.dtype, y[some].double(), sample_weight[some].double()
    if y.ndim == 1:
        order = y.argsort(stable=True)
        reached = torch.empty_like(sample_weight)
        reached[order] = sample_weight[order].cumsum(0) - 0.5 * sample_weight[order]
        group = (reached / sample_weight.sum() * n_components).long().clamp(0, n_components - 1)
    else:
        n_clusters = min(n_components, len(y.unique(dim=0)))
        kmeans = KMeans(n_clusters, n_init=3, random_state=seed).fit(y.numpy(), sample_weight=sample_weight.numpy())
        group = torch.as_tensor(kmeans.labels_, dtype=torch.long)
    membership = nn.functional.one_hot(group, n_components).to(y) * sample_weight[:, None]
    mixture = _maximise(y, membership, sample_weight, family)
    for _ in range(_N_EM_STEPS):
        joint = mixture.logits + family.log_prob(mixture.components, y.unsqueeze(1))
        mixture = _maximise(y, joint.softmax(-1) * sample_weight[:, None], sample_weight, family)
    return mixture.to(dtype)


def _maximise(y: Tensor, membership: Tensor, sample_weight: Tensor, family: AnyFamily) -> Mixture:
    """The M step of EM; a component without members starts anew as the fit to all rows."""
    share = membership.sum(0)
    membership = torch.where(share > 0, membership, sample_weight[:, None])
    logits = share.clamp(min=1e-3 * share.mean().item()).log()
    return Mixture(logits, family.fit(y, membership), validate_args=False)


def train(
    network: nn.Module,
    rows: Rows,
    valid_rows: Rows | None,
    *,
    max_epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    patience: int,
    generator: torch.Generator,
    on_epoch: Callable[[FitReport], None] | None = None,
) -> FitReport:
    """Fit a network that returns a `Mixture` by maximum likelihood, in place; keep the weights of its best epoch.

    AdamW (weight decay on matrices only), gradients clipped at norm 1, the rate lowered when the held-out NLL stalls,
    an end after `patience` epochs without gain. A step whose loss or gradient is not finite does not reach the
    weights (nor running means): it is counted, the rate is halved, to recover over the next good steps, and its batch
    is tried once more at the end of the epoch. After 20 such steps in a row, or a held-out NLL that is not finite,
    training goes back to the best weights and to a tenth of the rate or less. Ctrl-C ends it with the best weights so
    far and a warning. Small networks are trained on one thread, whatever torch is set to.

    Parameters
    ----------
    network
        Maps features (n, p) to a Mixture with batch_shape (n,).
    rows, valid_rows
        To learn from, and to decide when to stop; without the latter the former decide.
    patience
        Epochs without a better held-out NLL before the end; the rate falls to a third at half of it.
    generator
        The order of the rows.
    on_epoch
        Called with the report after every epoch.

    Raises
    ------
    MixturaError
        ``E-fit-diverged`` when going back three times does not help, or no epoch has a finite NLL.
    """
    start = time.perf_counter()
    report = FitReport(n_train_rows=len(rows), n_valid_rows=0 if valid_rows is None else len(valid_rows))
    heads = [module for module in network.modules() if isinstance(module, MixtureHead)]
    optimizer = AdamW(network, weight_decay, {name: unit for head in heads for name, unit in head.units.items()})
    buffers = list(network.buffers())
    rate, trust = learning_rate, 1.0  # steps are taken at rate * trust
    n_skipped_in_a_row = n_rollbacks = 0
    judges = rows if valid_rows is None else valid_rows
    report.start_nll = evaluate_nll(network, judges)
    best_state = [tensor.clone() for tensor in (optimizer.values, *buffers)]
    # Patience counts from the best epoch, not from the start: a start with a spike may be lost before it is bettered.
    lowest_nll, lowest_epoch, last_drop = math.inf, 0, 0

    @torch.no_grad()
    def go_back() -> None:
        for tensor, value in zip((optimizer.values, *buffers), best_state, strict=True):
            tensor.copy_(value)

    def roll_back(reason: str) -> None:
        nonlocal n_rollbacks, n_skipped_in_a_row, rate, trust
        go_back()
        if n_rollbacks == _MAX_ROLLBACKS:
            raise _diverged(reason)
        n_rollbacks, n_skipped_in_a_row, rate, trust = n_rollbacks + 1, 0, rate * min(trust, 0.1), 1.0
        optimizer.restart()
        report.events.append(f"{reason}; back to the best weights, learning rate now {rate:.2g}")

    n_threads = torch.get_num_threads()
    if 6 * batch_size * len(optimizer.values) < _FEWEST_FLOPS_FOR_THREADS:
        torch.set_num_threads(1)
    try:
        for epoch in range(max_epochs):
            network.train()
            total = torch.zeros(())
            n_steps = 0
            order = torch.randperm(len(rows), generator=generator)
            batches = deque((batch, True) for batch in order.split(batch_size))
            while batches:
                batch, may_retry = batches.popleft()
                kept = [buffer.clone() for buffer in buffers]
                some = rows.take(batch)
                # Times the batch's mean weight, so that a light batch steps less than a heavy one.
                loss = some.loss(network(some.x)) * some.weight.mean()
                gradient, norm = optimizer.gradient(loss)
                if bool((loss.detach() + norm).isfinite()):
                    optimizer.step(gradient, rate * trust)
                    trust = min(1.0, 1.5 * trust)
                    total += loss.detach()
                    n_steps += 1
                    n_skipped_in_a_row = 0
                    continue
                for buffer, value in zip(buffers, kept, strict=True):
                    buffer.copy_(value)  # a running mean has seen the batch already
                report.n_skipped_steps += 1
                n_skipped_in_a_row += 1
                trust *= 0.5
                report.events.append(f"epoch {epoch}: a step was not finite and was skipped; the next at half the rate")
                if may_retry:
                    batches.append((batch, False))
                if n_skipped_in_a_row >= _MAX_SKIPPED_IN_A_ROW:
                    roll_back(f"epoch {epoch}: {n_skipped_in_a_row} steps in a row were not finite")

            report.train_nll.append((total / n_steps).item() if n_steps else math.nan)
            report.valid_nll.append(evaluate_nll(network, judges))
            if report.valid_nll[-1] < report.best_nll or not math.isfinite(report.best_nll):
                best_state = [tensor.clone() for tensor in (optimizer.values, *buffers)]
                report.best_epoch = epoch
            elif not math.isfinite(report.valid_nll[-1]):
                roll_back(f"epoch {epoch}: the held-out NLL is {report.valid_nll[-1]}")
            report.seconds = time.perf_counter() - start
            if on_epoch is not None:
                on_epoch(report)
            if report.valid_nll[-1] < lowest_nll:
                lowest_nll, lowest_epoch = report.valid_nll[-1], epoch
            if epoch - lowest_epoch >= patience:
                report.events.append(f"epoch {epoch}: no better held-out NLL for {patience} epochs; stopped")
                break
            if epoch - max(lowest_epoch, last_drop) >= max(1, patience // 2):
                last_drop, rate = epoch, rate / 3
                report.events.append(f"epoch {epoch}: held-out NLL stalls; learning rate now {rate:.2g}")
    except KeyboardInterrupt:
        del report.train_nll[report.n_epochs :]
        report.events.append(f"interrupted in epoch {report.n_epochs}; the best weights so far are kept")
        got, fix = f"an interrupt in epoch {report.n_epochs}", "fit again for more; the model is usable as it is"
        warnings.warn(MixturaWarning("W-interrupted", got, f"up to {max_epochs} epochs", fix), stacklevel=2)
    finally:
        torch.set_num_threads(n_threads)
    go_back()
    if report.best_epoch < 0:
        report.events.append("no epoch was better than the start, which does not depend on the features")
    if not math.isfinite(report.best_nll):
        raise _diverged(f"no finite NLL in {report.n_epochs} epochs")
    network.eval()
    report.seconds = time.perf_counter() - start
    return report


def _diverged(got: str) -> MixturaError:
    fix = "lower learning_rate, raise scale_floor, or look for extreme values in X"
    return MixturaError("E-fit-diverged", got, "finite losses", fix)


@torch.no_grad()
def evaluate_nll(network: nn.Module, rows: Rows, chunk_size: int = 16_384) -> float:
    """Weighted mean NLL of a network on rows, in evaluation mode, in chunks that bound the memory."""
    network.eval()
    total = torch.zeros((), dtype=torch.float64)
    for chunk in torch.arange(len(rows)).split(chunk_size):
        some = rows.take(chunk)
        total += some.loss(network(some.x)).double() * some.weight.sum()
    return (total / rows.weight.sum()).item()
