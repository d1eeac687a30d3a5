"""One network's course through training."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .errors import MixturaError
from .nets import MDN
from .revival import is_dead, revive, usage
from .rows import Rows

MOST_SKIPPED_IN_A_ROW = 20
_MAX_ROLLBACKS = 3
_EPOCHS_OF_A_TRIAL, _MOST_FAILED_TRIALS = 5, 2
_MOST_ROWS_TO_LOOK_AT = 5_000
_COURSE = ("rate", "trust", "n_skipped_in_a_row", "n_rollbacks", "lowest_nll", "lowest_epoch", "last_drop")
_COURSE += ("n_failed_trials", "revived", "is_done", "first_reason")


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
    """The share of the training rows that each component answers for, of those that the atoms leave."""
    n_revived_components: int = 0
    """Times that a dead component was started anew, stayed, since the held-out NLL did not suffer, and was kept."""
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
        """Components that are not dead: they answer for 2% of an equal share of the rows, or more."""
        return int((~is_dead(torch.tensor(self.component_usage))).sum())

    def move(self, learned: float, judged: float) -> None:
        """Add to all NLLs of the rows that were learned from, and of those that were held out."""
        self.train_nll = [loss + learned for loss in self.train_nll]
        for name in ("valid_nll", "restart_nlls"):
            setattr(self, name, [loss + judged for loss in getattr(self, name)])
        self.start_nll += judged


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
        self.first_reason = ""  # for going back
        # Patience counts from the best epoch, not from the start: one with a spike may be lost before it is bettered.
        self.lowest_nll, self.lowest_epoch, self.last_drop = math.inf, 0, 0
        self.trial: _Trial | None = None
        self.n_failed_trials = 0
        self.revived: list[tuple[int, int]] = []  # when trials ended, and of how many components they were
        self.best = self._copy()

    def _state(self) -> list[Tensor]:
        return [*self.network.parameters(), *self.network.buffers()]

    def _copy(self) -> list[Tensor]:
        return [tensor.detach().clone() for tensor in self._state()]

    @torch.no_grad()
    def _put(self, weights: Sequence[Tensor]) -> None:
        for tensor, value in zip(self._state(), weights, strict=True):
            tensor.copy_(value)

    def go_back(self) -> None:
        """To the best weights so far."""
        self._put(self.best)

    def roll_back(self, reason: str) -> None:
        """To the best weights, and on with a lower rate; given up where that has not helped before."""
        self.go_back()
        self.first_reason = self.first_reason or reason
        if self.n_rollbacks == _MAX_ROLLBACKS:
            got = f"{self.first_reason}; {_MAX_ROLLBACKS} returns to the best weights did not help"
            self.failure, self.is_done = self.failure or _diverged(got), True
        self.n_rollbacks, self.n_skipped_in_a_row = self.n_rollbacks + 1, 0
        self.rate, self.trust = self.rate * min(self.trust, 0.1), 1.0
        self.report.events.append(f"{reason}; back to the best weights, learning rate now {self.rate:.2g}")

    def skipped(self, epoch: int) -> bool:
        """Take note of a step that was not finite; returns whether there have been too many of them."""
        self.report.n_skipped_steps += 1
        self.n_skipped_in_a_row += 1
        self.trust *= 0.5
        self.report.events.append(f"epoch {epoch}: a step was not finite and was skipped; the next at half the rate")
        return self.n_skipped_in_a_row >= MOST_SKIPPED_IN_A_ROW

    def conclude(self, epoch: int, train_nll: float, valid_nll: float, patience: int) -> bool:
        """After an epoch: keep the best weights, lower the rate, or stop; returns whether to roll back."""
        report = self.report
        best_nll = report.best_nll
        report.train_nll.append(train_nll)
        report.valid_nll.append(valid_nll)
        is_best = valid_nll < best_nll or not math.isfinite(best_nll)
        if is_best:
            self.best, report.best_epoch = self._copy(), epoch
        if valid_nll < self.lowest_nll:
            self.lowest_nll, self.lowest_epoch = valid_nll, epoch
        if epoch - self.lowest_epoch >= patience:
            report.events.append(f"epoch {epoch}: no better held-out NLL for {patience} epochs; stopped")
            self.is_done = True
        elif epoch - max(self.lowest_epoch, self.last_drop) >= max(1, patience // 2):
            self.last_drop, self.rate = epoch, self.rate / 3
            report.events.append(f"epoch {epoch}: held-out NLL stalls; learning rate now {self.rate:.2g}")
        return not is_best and not math.isfinite(valid_nll)

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
                self.revived.append((trial.end, trial.n_components))
                self.report.events.append(f"epoch {epoch}: {trial.n_components} dead components came back to life")
                return False
            self.n_failed_trials += 1
            self._put(trial.weights)
            return True
        if (
            epoch % _EPOCHS_OF_A_TRIAL
            or self.n_failed_trials == _MOST_FAILED_TRIALS
            or not isinstance(self.network, MDN)
        ):
            return False
        own = rows.take(self.learn[:_MOST_ROWS_TO_LOOK_AT])
        dead = is_dead(usage(self.network, own))
        if not bool(dead.any()):
            return False
        self.trial = _Trial(epoch + _EPOCHS_OF_A_TRIAL, nll, int(dead.sum()), self._copy())
        revive(self.network, dead, own, self.generator)
        return True

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All that training goes on from: what JSON can hold, and tensors."""
        trial = None
        if self.trial is not None:
            trial = {"end": self.trial.end, "nll": self.trial.nll, "n_components": self.trial.n_components}
        failure = None
        if self.failure is not None:
            failure = {name: getattr(self.failure, name) for name in ("code", "got", "expected", "fix")}
        course = {name: getattr(self, name) for name in _COURSE}
        lists = {"now": self._copy(), "best": self.best, "before": [] if self.trial is None else self.trial.weights}
        tensors = {f"{name}.{i}": tensor for name, parts in lists.items() for i, tensor in enumerate(parts)}
        tensors["generator"] = self.generator.get_state()
        return {"report": asdict(self.report), "trial": trial, "failure": failure, "course": course}, tensors

    def go_on(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """From what `state` returned."""

        def parts(name: str) -> list[Tensor]:
            return [tensors[f"{name}.{i}"] for i in range(len(self._state()))]

        self._put(parts("now"))
        self.best = parts("best")
        self.report = FitReport(**state["report"])
        self.trial = None if state["trial"] is None else _Trial(**state["trial"], weights=parts("before"))
        self.failure = None if state["failure"] is None else MixturaError(**state["failure"])
        self.generator.set_state(tensors["generator"])
        for name in _COURSE:
            setattr(self, name, state["course"][name])

    def end(self, rows: Rows) -> None:
        """After the last epoch."""
        self.go_back()
        self.network.eval()
        in_time = [n for end, n in self.revived if end - _EPOCHS_OF_A_TRIAL < self.report.best_epoch]
        self.report.n_revived_components = sum(in_time)
        if isinstance(self.network, MDN):
            self.report.component_usage = usage(self.network, rows.take(self.learn[:_MOST_ROWS_TO_LOOK_AT])).tolist()
        if self.report.best_epoch < 0:
            self.report.events.append("no epoch was better than the start, which does not depend on the features")
        if not math.isfinite(self.report.best_nll):
            self.failure = self.failure or _diverged(f"no finite NLL in {self.report.n_epochs} epochs")


def _diverged(got: str) -> MixturaError:
    fix = "lower learning_rate, raise scale_floor, or look for extreme values in X"
    return MixturaError("E-fit-diverged", got, "finite losses", fix)
