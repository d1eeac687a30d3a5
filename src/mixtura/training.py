"""Training: where a network starts, and the loop that fits it, and others beside it."""

import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from torch import Tensor, nn

from .adamw import AdamW, clip
from .errors import MixturaError, MixturaWarning
from .families import AnyFamily
from .mixture import Mixture
from .nets import MDN
from .revival import is_dead, revive, usage
from .rows import Rows
from .stack import Stack

_MAX_SKIPPED_IN_A_ROW = 20
_MAX_ROLLBACKS = 3
_EPOCHS_OF_A_TRIAL, _MOST_FAILED_TRIALS = 5, 2
_MOST_STEPS_AVERAGED, _MOST_EPOCHS_AVERAGED = 100, 4
_MOST_ROWS_TO_START, _MOST_ROWS_AT_ONCE = 5_000, 16_384
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
    component_usage: list[float] = field(default_factory=list)
    """The share of the training rows that each component answers for."""
    n_revived_components: int = 0
    """Dead components that were started anew and stayed, since the held-out NLL did not suffer."""
    restart_nlls: list[float] = field(default_factory=list)
    """Best held-out NLL of each restart; this report is of the lowest."""
    restart_active_components: list[int] = field(default_factory=list)
    """`n_active_components` of each restart."""
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

    @property
    def n_active_components(self) -> int:
        """Components that answer for at least 1% of the rows, or half of an equal share if that is less."""
        least = min(0.01, 0.5 / max(1, len(self.component_usage)))
        return sum(share >= least for share in self.component_usage)

    def move(self, learned: float, judged: float) -> None:
        """Add to all NLLs of the rows that were learned from, and of those that were held out."""
        self.train_nll = [loss + learned for loss in self.train_nll]
        for name in ("valid_nll", "restart_nlls"):
            setattr(self, name, [loss + judged for loss in getattr(self, name)])
        self.start_nll += judged


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


@dataclass(frozen=True)
class _Trial:
    """Of components that were started anew: until which epoch, and what was before."""

    end: int
    nll: float
    n_components: int
    weights: list[Tensor]


class Learner:
    """One network's course through training: what it learns from, how it fares, what it falls back to.

    Parameters
    ----------
    network
        Maps features (n, p) to a Mixture with batch_shape (n,); fitted in place.
    learn, judge
        Indices of the rows to learn from, and of those that decide when to stop; without the latter the former decide.
    generator
        Of the order of the rows.
    """

    def __init__(self, network: nn.Module, learn: Tensor, judge: Tensor | None, generator: torch.Generator):
        self.network, self.learn, self.generator = network, learn, generator
        self.judge = learn if judge is None else judge
        self.report = FitReport(n_train_rows=len(learn), n_valid_rows=0 if judge is None else len(judge))
        self.failure: MixturaError | None = None
        """Why it was given up."""
        self.is_done = False

    def begin(self, learning_rate: float, start_nll: float) -> None:
        """Before the first epoch."""
        self.rate, self.trust = learning_rate, 1.0  # steps are taken at rate * trust
        self.n_skipped_in_a_row = self.n_rollbacks = 0
        self.report.start_nll = start_nll
        # Patience counts from the best epoch, not from the start: one with a spike may be lost before it is bettered.
        self.lowest_nll, self.lowest_epoch, self.last_drop = math.inf, 0, 0
        self.trial: _Trial | None = None
        self.n_failed_trials = 0
        self._keep()

    def _state(self) -> list[Tensor]:
        return [*self.network.parameters(), *self.network.buffers()]

    def _keep(self) -> None:
        self.best = [tensor.detach().clone() for tensor in self._state()]

    @torch.no_grad()
    def go_back(self) -> None:
        """To the best weights so far."""
        for tensor, value in zip(self._state(), self.best, strict=True):
            tensor.copy_(value)

    def roll_back(self, reason: str) -> None:
        """To the best weights, and on with a lower rate; given up where that has not helped before."""
        self.go_back()
        if self.n_rollbacks == _MAX_ROLLBACKS:
            self.failure, self.is_done = self.failure or _diverged(reason), True
        self.n_rollbacks, self.n_skipped_in_a_row = self.n_rollbacks + 1, 0
        self.rate, self.trust = self.rate * min(self.trust, 0.1), 1.0
        self.report.events.append(f"{reason}; back to the best weights, learning rate now {self.rate:.2g}")

    def skipped(self, epoch: int) -> bool:
        """Take note of a step that was not finite; returns whether there have been too many of them."""
        self.report.n_skipped_steps += 1
        self.n_skipped_in_a_row += 1
        self.trust *= 0.5
        self.report.events.append(f"epoch {epoch}: a step was not finite and was skipped; the next at half the rate")
        return self.n_skipped_in_a_row >= _MAX_SKIPPED_IN_A_ROW

    def conclude(self, epoch: int, train_nll: float, valid_nll: float, patience: int) -> bool:
        """After an epoch: keep the best weights, lower the rate, or stop; returns whether to roll back."""
        report = self.report
        best_nll = report.best_nll
        report.train_nll.append(train_nll)
        report.valid_nll.append(valid_nll)
        must_roll_back = False
        if valid_nll < best_nll or not math.isfinite(best_nll):
            self._keep()
            report.best_epoch = epoch
        elif not math.isfinite(valid_nll):
            must_roll_back = True
        if valid_nll < self.lowest_nll:
            self.lowest_nll, self.lowest_epoch = valid_nll, epoch
        if epoch - self.lowest_epoch >= patience:
            report.events.append(f"epoch {epoch}: no better held-out NLL for {patience} epochs; stopped")
            self.is_done = True
        elif epoch - max(self.lowest_epoch, self.last_drop) >= max(1, patience // 2):
            self.last_drop, self.rate = epoch, self.rate / 3
            report.events.append(f"epoch {epoch}: held-out NLL stalls; learning rate now {self.rate:.2g}")
        return must_roll_back

    @torch.no_grad()
    def revive(self, epoch: int, rows: Rows) -> bool:
        """Start dead components anew, on trial: what was is brought back if the held-out NLL has suffered after it.

        Returns whether the weights are others than the last step left.
        """
        nll = self.report.valid_nll[-1]
        if self.trial is not None:
            if epoch < self.trial.end:
                return False
            trial, self.trial = self.trial, None
            if nll <= trial.nll:
                self.report.n_revived_components += trial.n_components
                self.report.events.append(f"epoch {epoch}: {trial.n_components} dead components came back to life")
                return False
            self.n_failed_trials += 1
            for tensor, value in zip(self._state(), trial.weights, strict=True):
                tensor.copy_(value)
            return True
        if (
            epoch % _EPOCHS_OF_A_TRIAL
            or self.n_failed_trials == _MOST_FAILED_TRIALS
            or not isinstance(self.network, MDN)
        ):
            return False
        own = rows.take(self.learn[:_MOST_ROWS_TO_START])
        dead = is_dead(usage(self.network, own))
        if not bool(dead.any()):
            return False
        weights = [tensor.detach().clone() for tensor in self._state()]
        self.trial = _Trial(epoch + _EPOCHS_OF_A_TRIAL, nll, int(dead.sum()), weights)
        revive(self.network, dead, own, self.generator)
        return True

    def end(self, rows: Rows) -> None:
        """After the last epoch."""
        self.go_back()
        self.network.eval()
        if isinstance(self.network, MDN):
            self.report.component_usage = usage(self.network, rows.take(self.learn[:_MOST_ROWS_TO_START])).tolist()
        if self.report.best_epoch < 0:
            self.report.events.append("no epoch was better than the start, which does not depend on the features")
        if not math.isfinite(self.report.best_nll):
            self.failure = self.failure or _diverged(f"no finite NLL in {self.report.n_epochs} epochs")


def train(
    learners: Sequence[Learner],
    rows: Rows,
    *,
    max_epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    patience: int,
    revives: bool = True,
    on_epoch: Callable[[], None] | None = None,
) -> None:
    """Fit networks that return a `Mixture` by maximum likelihood, in place; keep the weights of each one's best epoch.

    All are trained at once, and each gets what it would get alone. AdamW (weight decay on matrices only), gradients
    clipped at norm 1, the rate lowered when the held-out NLL stalls, an end after `patience` epochs without gain. What
    is judged and kept is the average of the weights over the last steps, 100 or those of 4 epochs. A step whose loss or
    gradient is not finite does not reach the weights (nor running means): it is counted, the rate is halved, to recover
    over the next good steps, and its batch is tried once more at the end of the epoch. After 20 such steps in a row, or
    a held-out NLL that is not finite, training goes back to the best weights and to a tenth of the rate or less. Ctrl-C
    ends it with the best weights so far and a warning. Small networks are trained on one thread, whatever torch is set
    to.

    Parameters
    ----------
    learners
        Networks of one shape, with their rows; their reports say how it went.
    rows
        Which the learners' indices are of.
    patience
        Epochs without a better held-out NLL before the end; the rate falls to a third at half of it.
    revives
        Whether dead components are started anew every few epochs.
    on_epoch
        Called after every epoch.

    Raises
    ------
    MixturaError
        ``E-fit-diverged`` when, of every network, going back three times does not help, or no epoch has a finite NLL.
    """
    start = time.perf_counter()
    running = list(learners)
    stack = Stack([learner.network for learner in running])
    n_steps = torch.tensor([[math.ceil(len(learner.learn) / batch_size)] for learner in running], dtype=torch.float32)
    n_averaged = (_MOST_EPOCHS_AVERAGED * n_steps).clamp(max=_MOST_STEPS_AVERAGED)
    optimizer = AdamW(stack.values, weight_decay * stack.is_matrix, stack.units, n_averaged)
    for learner, start_nll in zip(running, _judge(stack, running, rows), strict=True):
        learner.begin(learning_rate, start_nll)
    n_threads = torch.get_num_threads()
    if 6 * batch_size * stack.values.numel() < _FEWEST_FLOPS_FOR_THREADS:
        torch.set_num_threads(1)
    try:
        for epoch in range(max_epochs):
            train_nlls = _learn(stack, optimizer, running, rows, batch_size, epoch)
            with optimizer.averaged():
                nlls = zip(train_nlls, _judge(stack, running, rows), strict=True)
                diverged = [one.conclude(epoch, *nll, patience) for one, nll in zip(running, nlls, strict=True)]
            for e, learner in enumerate(running):
                if diverged[e]:
                    learner.roll_back(f"epoch {epoch}: the held-out NLL is {learner.report.valid_nll[-1]}")
                    optimizer.restart(e)
                elif revives and learner.revive(epoch, rows):
                    optimizer.restart(e)
                learner.report.seconds = time.perf_counter() - start
            if on_epoch is not None:
                on_epoch()
            left = [e for e, learner in enumerate(running) if not learner.is_done]
            if not left:
                break
            if len(left) < len(running):
                running = [running[e] for e in left]
                stack = Stack([learner.network for learner in running])
                optimizer.keep(left, stack.values)
    except KeyboardInterrupt:
        for learner in running:
            n_epochs = learner.report.n_epochs
            learner.report.events.append(f"interrupted in epoch {n_epochs}; the best weights so far are kept")
        got, fix = (
            f"an interrupt in epoch {running[0].report.n_epochs}",
            "fit again for more; the model is usable as it is",
        )
        warnings.warn(MixturaWarning("W-interrupted", got, f"up to {max_epochs} epochs", fix), stacklevel=2)
    finally:
        torch.set_num_threads(n_threads)
    for learner in learners:
        learner.end(rows)
    failures = [learner.failure for learner in learners if learner.failure is not None]
    if len(failures) == len(learners):
        raise failures[0]


def _learn(
    stack: Stack, optimizer: AdamW, learners: Sequence[Learner], rows: Rows, batch_size: int, epoch: int
) -> list[float]:
    """One pass over the rows; returns the mean NLL over its steps, of each learner."""
    stack.train()
    orders = [one.learn[torch.randperm(len(one.learn), generator=one.generator)] for one in learners]
    batches = deque((*batch, True) for batch in _batches(orders, rows, batch_size))
    total, n_taken = torch.zeros(len(learners)), torch.zeros(len(learners))
    rate = _rates(learners)
    while batches:
        index, weight, n_rows, may_retry = batches.popleft()
        kept = [] if stack.is_joint else [[buffer.clone() for buffer in one.network.buffers()] for one in learners]
        # The sum of weighted losses over the count: a batch of light rows steps less than one of heavy rows.
        loss, gradient = stack.loss_and_gradient(rows.take(index, weight / n_rows[:, None]))
        norm = torch.linalg.vector_norm(gradient, dim=1)
        clip(gradient, norm[:, None])
        moves = (loss + norm).isfinite()  # NaN, 0 / 0, where there are no rows
        if bool(moves.all()):
            optimizer.step(gradient, rate)
            total += loss
            n_taken += 1
            if not any(learner.n_skipped_in_a_row or learner.trust < 1 for learner in learners):
                continue
        else:
            optimizer.step(gradient, rate, moves)
            total[moves] += loss[moves]
            n_taken += moves
        for e, learner in enumerate(learners):
            if moves[e]:
                learner.n_skipped_in_a_row, learner.trust = 0, min(1.0, 1.5 * learner.trust)
            elif n_rows[e]:
                for buffer, value in zip(learner.network.buffers(), kept[e] if kept else [], strict=False):
                    buffer.copy_(value)  # a running mean has seen the batch already
                if learner.skipped(epoch):
                    learner.roll_back(f"epoch {epoch}: {_MAX_SKIPPED_IN_A_ROW} steps in a row were not finite")
                    optimizer.restart(e)
        left = torch.where(moves, 0, n_rows)
        if may_retry and bool(left.any()):
            batches.append((index, weight * (left > 0)[:, None], left, False))
        rate = _rates(learners)
    return (total / n_taken).tolist()


def _rates(learners: Sequence[Learner]) -> Float[Tensor, "E 1"]:
    return torch.tensor([[learner.rate * learner.trust] for learner in learners])


def _batches(parts: Sequence[Tensor], rows: Rows, size: int) -> Iterator[tuple[Int[Tensor, "E n"], Tensor, Tensor]]:
    """Indices of rows for each of several networks, side by side: with weights, and how many there are of each.

    Where one has run out of rows, its last is repeated, with weight 0.
    """
    n_rows = torch.tensor([len(part) for part in parts])
    longest = int(n_rows.max())
    index = torch.stack([torch.cat([part, part[-1:].expand(longest - len(part))]) for part in parts])
    weight = rows.weight[index] * (torch.arange(longest) < n_rows[:, None])
    for i, (some, its_weight) in enumerate(zip(index.split(size, 1), weight.split(size, 1), strict=True)):
        yield some, its_weight, (n_rows - i * size).clamp(0, size)


def _diverged(got: str) -> MixturaError:
    fix = "lower learning_rate, raise scale_floor, or look for extreme values in X"
    return MixturaError("E-fit-diverged", got, "finite losses", fix)


@torch.no_grad()
def _judge(stack: Stack, learners: Sequence[Learner], rows: Rows) -> list[float]:
    """Of each learner, the weighted mean NLL of its held-out rows, in chunks that bound the memory."""
    stack.train(False)
    total = mass = torch.zeros(len(learners), dtype=torch.float64)
    judges = [learner.judge for learner in learners]
    for index, weight, _ in _batches(judges, rows, max(1, _MOST_ROWS_AT_ONCE // len(learners))):
        total = total + torch.where(weight > 0, stack.nll(rows.take(index, weight)).double() * weight, 0).sum(1)
        mass = mass + weight.sum(1)
    return (total / mass).tolist()
