"""Training: where a network starts, and the loop that fits it, and others beside it."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from torch import Tensor, nn

from .adamw import AdamW
from .checkpoint import Checkpoint, under
from .errors import MixturaWarning, warn
from .families import AnyFamily
from .learner import MOST_SKIPPED_IN_A_ROW, Learner
from .mixture import Mixture
from .rows import Rows
from .stack import Stack

_MOST_STEPS_AVERAGED, _MOST_EPOCHS_AVERAGED = 100, 4
_MOST_ROWS_TO_START, _MOST_ROWS_AT_ONCE = 5_000, 16_384
_N_EM_STEPS = 40
_FEWEST_FLOPS_FOR_THREADS = 3e7
"""Of a step, below which threads wait for each other more than they work; on a busy machine a hundred times more."""


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
    k-means of a vector one, or into fewer, of about three rows and more; the family's own fits to the groups are then
    improved by a few steps of EM. Components without a group start as the fit to all rows.

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
    # Groups of one or two rows would become spikes.
    n_groups = min(n_components, max(1, len(y) // 3))
    if y.ndim == 1:
        order = y.argsort(stable=True)
        reached = torch.empty_like(sample_weight)
        reached[order] = sample_weight[order].cumsum(0) - 0.5 * sample_weight[order]
        group = (reached / sample_weight.sum() * n_groups).long().clamp(0, n_groups - 1)
    else:
        n_clusters = min(n_groups, len(y.unique(dim=0)))
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
    learners: Sequence[Learner],
    rows: Rows,
    *,
    max_epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    patience: int,
    n_annealed: int = 0,
    revives: bool = True,
    x_noise: float = 0.0,
    y_noise: float = 0.0,
    checkpoint: Checkpoint | None = None,
    catches_interrupt: bool = True,
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
    n_annealed
        Over how many of the last of `max_epochs` the rate falls towards 0, if training lasts that long.
    revives
        Whether dead components are started anew every few epochs.
    x_noise, y_noise
        Standard deviations of normal noise that is added to features and targets, anew in every batch.
    checkpoint
        Where the state is kept, and what there is of one is gone on from: the weights at the end are to the bit those
        of a training that was never stopped.
    catches_interrupt
        Whether Ctrl-C ends training with a warning; otherwise it is handed on.
    on_epoch
        Called after every epoch.

    Raises
    ------
    MixturaError
        ``E-fit-diverged`` when, of every network, going back three times does not help, or no epoch has a finite NLL.
    """
    start, first_epoch = time.perf_counter(), 0
    found, tensors = ({}, {}) if checkpoint is None or checkpoint.found is None else checkpoint.found
    if checkpoint is not None and found:
        with checkpoint.reading():
            first_epoch = found["epoch"] + 1
            for e, learner in enumerate(learners):
                learner.go_on(found["learners"][e], under(f"learner.{e}.", tensors))
            start -= learners[0].report.seconds
    running = [learner for learner in learners if not learner.is_done] or [learners[0]]
    stack = Stack([learner.network for learner in running])
    n_steps = [math.ceil(len(learner.learn) / batch_size) for learner in running]
    n_averaged = [min(_MOST_STEPS_AVERAGED, _MOST_EPOCHS_AVERAGED * n) for n in n_steps]
    optimizer = AdamW(stack.values, weight_decay * stack.is_matrix, stack.units, n_averaged)
    is_over = all(learner.is_done for learner in learners)
    if checkpoint is not None and found and not is_over:
        with checkpoint.reading():
            optimizer.go_on(under("optimizer.", tensors))
    elif not found:
        for learner, start_nll in zip(running, _judge(stack, running, rows), strict=True):
            learner.begin(learning_rate, start_nll)
        if len(stack) > 1 and not stack.is_joint:
            for learner in learners:
                learner.report.events.append("this backbone can't be stacked: networks are trained one after the other")
        _write(checkpoint, -1, learners, optimizer)
    n_threads = torch.get_num_threads()
    if 6 * batch_size * stack.n_members * stack.values.numel() < _FEWEST_FLOPS_FOR_THREADS:
        torch.set_num_threads(1)
    try:
        for epoch in range(first_epoch, 0 if is_over else max_epochs):
            rate_share = min(1.0, (max_epochs - epoch) / (n_annealed + 1))
            train_nlls = _learn(stack, optimizer, running, rows, batch_size, epoch, rate_share, x_noise, y_noise)
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
            if left and len(left) < len(running):
                running = [running[e] for e in left]
                stack = Stack([learner.network for learner in running])
                optimizer.keep(left, stack.values)
            _write(checkpoint, epoch, learners, optimizer, not left or epoch + 1 == max_epochs)
            if not left:
                break
        for learner in learners:
            learner.end(rows)
    except KeyboardInterrupt:
        if not catches_interrupt:
            raise
        for learner in running:
            n_epochs = learner.report.n_epochs
            del learner.report.train_nll[n_epochs:]
            learner.report.events.append(f"interrupted in epoch {n_epochs}; the best weights so far are kept")
        got = f"an interrupt in epoch {running[0].report.n_epochs}"
        fix = "fit again for more; the model is usable as it is"
        warn(MixturaWarning("W-interrupted", got, f"up to {max_epochs} epochs", fix))
        for learner in learners:
            learner.end(rows)
    finally:
        torch.set_num_threads(n_threads)
    failures = [learner.failure for learner in learners if learner.failure is not None]
    if len(failures) == len(learners):
        raise failures[0]


def _write(
    checkpoint: Checkpoint | None, epoch: int, learners: Sequence[Learner], optimizer: AdamW, is_due: bool = False
) -> None:
    if checkpoint is None or not (is_due or checkpoint.is_due):
        return
    states = [learner.state() for learner in learners]
    tensors = {f"optimizer.{name}": tensor for name, tensor in optimizer.state().items()}
    for e, (_, parts) in enumerate(states):
        tensors |= {f"learner.{e}.{name}": tensor for name, tensor in parts.items()}
    checkpoint.write({"epoch": epoch, "learners": [state for state, _ in states]}, tensors)


def _learn(
    stack: Stack,
    optimizer: AdamW,
    learners: Sequence[Learner],
    rows: Rows,
    batch_size: int,
    epoch: int,
    rate_share: float,
    x_noise: float,
    y_noise: float,
) -> list[float]:
    """One pass over the rows, at a share of the rates; returns the mean NLL over its steps, of each learner."""
    stack.train()
    orders = [one.learn[torch.randperm(len(one.learn), generator=one.generator)] for one in learners]
    batches = deque((*batch, True) for batch in _batches(orders, rows, batch_size))
    total, n_taken = [0.0] * len(learners), [0] * len(learners)
    while batches:
        index, weight, n_rows, may_retry = batches.popleft()
        kept = [] if stack.is_joint else [[buffer.clone() for buffer in one.network.buffers()] for one in learners]
        # The sum of weighted losses over the count: a batch of light rows steps less than one of heavy rows.
        some = rows.take(index, weight / n_rows[:, None])
        if x_noise or y_noise:
            some = _noisy(some, learners, n_rows.tolist(), x_noise, y_noise)
        loss, gradient = stack.loss_and_gradient(some)
        norms = (torch.linalg.vector_norm(gradient, dim=1) + 0 * loss).tolist()  # NaN, 0 / 0, where there are no rows
        moves = optimizer.step(gradient, [rate_share * learner.rate * learner.trust for learner in learners], norms)
        for e, (learner, its_loss) in enumerate(zip(learners, loss.tolist(), strict=True)):
            if moves[e]:
                total[e], n_taken[e] = total[e] + its_loss, n_taken[e] + 1
                learner.n_skipped_in_a_row, learner.trust = 0, min(1.0, 1.5 * learner.trust)
            elif n_rows[e]:
                for buffer, value in zip(learner.network.buffers(), kept[e] if kept else [], strict=False):
                    buffer.copy_(value)  # a running mean has seen the batch already
                if learner.skipped(epoch):
                    learner.roll_back(f"epoch {epoch}: {MOST_SKIPPED_IN_A_ROW} steps in a row were not finite")
                    optimizer.restart(e)
        if may_retry and not all(moves):
            left = torch.where(torch.tensor(moves), 0, n_rows)
            if bool(left.any()):
                batches.append((index, weight * (left > 0)[:, None], left, False))
    return [math.nan if not n else its_total / n for its_total, n in zip(total, n_taken, strict=True)]


def _noisy(some: Rows, learners: Sequence[Learner], n_rows: Sequence[int], x_noise: float, y_noise: float) -> Rows:
    """Rows with noise; each learner draws as many numbers as it would alone."""
    x, y = some.x.clone(), some.y.clone()
    for e, (learner, n) in enumerate(zip(learners, n_rows, strict=True)):
        for values, scale in ((x[e, :n], x_noise), (y[e, :n], y_noise)):
            if n and scale:
                values += scale * torch.randn(values.shape, generator=learner.generator, dtype=values.dtype)
    return Rows(x, y, some.weight, some.upper)


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


@torch.no_grad()
def _judge(stack: Stack, learners: Sequence[Learner], rows: Rows) -> list[float]:
    """Of each learner, the weighted mean NLL of its held-out rows, in chunks that bound the memory."""
    stack.train(False)
    total = mass = torch.zeros(len(learners), dtype=torch.float64)
    judges = [learner.judge for learner in learners]
    for index, weight, _ in _batches(judges, rows, max(1, _MOST_ROWS_AT_ONCE // (len(learners) * stack.n_members))):
        total = total + torch.where(weight > 0, stack.nll(rows.take(index, weight)).double() * weight, 0).sum(1)
        mass = mass + weight.sum(1)
    return (total / mass).tolist()
