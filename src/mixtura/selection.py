"""Choosing the number of components: cross-validation, BIC, held-out rows, or one fit that is pruned."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.model_selection import KFold, train_test_split
from torch import Tensor, nn

from .errors import MixturaError
from .learner import Learner
from .mixture import Mixture
from .modes import LEAST_MASS_OF_A_MODE
from .nets import MDN
from .revival import prune
from .rows import Rows, groups_of, rows_of

Criterion = Literal["cv", "bic", "heldout", "prune"]
_N_FOLDS, _SHARE_TO_STOP = 5, 0.125
_FEWEST_ROWS, _FEWEST_JUDGES = 20, 10
_ROWS_TO_COUNT_MODES = 50


@dataclass(frozen=True, eq=False)
class Selection:
    """How well each number of components did, and which was chosen."""

    table: pd.DataFrame
    """A row for each candidate, which is the index `n_components`. `nll`: mean NLL in nats (of rows not learned from,
    but for BIC); `excess`: what that is above the best; `standard_error` of `nll`, over rows; of BIC in their
    place `n_parameters` (effective) and `bic`, in nats per row; `n_active`: components that answer for rows."""
    n_components: int
    """The fewest components whose excess is at most the standard error of the best; of BIC those with the lowest."""
    n_modes: float
    """Of the densities predicted with them (without atoms), the median number of modes that hold at least 5% of the
    mass; NaN where modes are not defined."""
    criterion: Criterion

    @property
    def summary(self) -> str:
        """The result in a sentence."""
        how = {"cv": f"{_N_FOLDS}-fold cross-validation", "bic": "BIC", "heldout": "held-out rows", "prune": "pruning"}[
            self.criterion
        ]
        text = f"{self.n_components} component{'s' * (self.n_components != 1)} by {how}"
        if math.isnan(self.n_modes):
            return text
        text += f"; the predicted densities have {self.n_modes:g} mode{'s' * (self.n_modes != 1)} (median)"
        return text if self.n_modes == self.n_components else f"{text}: components are not modes"


def select(
    rows: Rows,
    learn: Tensor,
    judge: Tensor | None,
    group: Tensor,
    candidates: Sequence[int],
    criterion: Criterion,
    make: Callable[[Tensor, Tensor, int], Learner],
    train: Callable[[Sequence[Learner]], None],
    random: np.random.RandomState,
) -> Selection:
    """Train networks with each number of components, those of all folds at once, and compare them.

    To prune, candidates are taken from the largest on; each network goes on from the one before.

    Parameters
    ----------
    rows
        Which the indices are of.
    learn, judge
        To learn from, and to judge by; cross-validation takes both together, and does without the latter.
    group
        Of each row, which it belongs to of those that stay together.
    make
        From rows to learn from, rows to stop by and a number of components to a network with its start.
    """
    if criterion == "cv":
        every = learn if judge is None else torch.cat([learn, judge])
        groups = groups_of(every, group)
        if len(groups) < _FEWEST_ROWS:
            raise _too_few(f"{len(groups)} rows", f"at least {_FEWEST_ROWS} that differ")
        parts = []
        for fit, test in KFold(_N_FOLDS, shuffle=True, random_state=random).split(groups):
            cut = train_test_split(groups[fit], test_size=_SHARE_TO_STOP, random_state=random)
            parts.append(([rows_of(part, group) for part in cut], rows_of(groups[test], group)))
    elif judge is None or len(judge) < _FEWEST_JUDGES:
        raise _too_few(f"{0 if judge is None else len(judge)} rows held out", f"at least {_FEWEST_JUDGES}")
    else:
        parts = [((learn, judge), judge)]
    weight = rows.weight[torch.cat([torch.as_tensor(test) for _, test in parts])].numpy()
    lines, losses, counts = [], [], []
    learners: list[Learner] = []
    for k in candidates[::-1] if criterion == "prune" else candidates:
        if criterion == "prune" and learners:
            learners = [_pruned(learner, k, rows) for learner in learners]
        else:
            learners = [make(fit, stop, k) for (fit, stop), _ in parts]
        train(learners)
        tested = [(learner, rows.take(test)) for learner, (_, test) in zip(learners, parts, strict=True)]
        loss = np.concatenate([_nll(learner.network, some) for learner, some in tested])
        line = {"n_components": k, "n_active": np.mean([learner.report.n_active_components for learner in learners])}
        if criterion == "bic":
            own = rows.take(learn)
            line["nll"] = float(np.average(_nll(learners[0].network, own), weights=own.weight))
            line["n_parameters"] = effective_parameters(learners[0].network, own)  # pyright: ignore[reportArgumentType]
            line["bic"] = line["nll"] + 0.5 * line["n_parameters"] * math.log(len(own)) / len(own)
        else:
            line["nll"] = float(np.average(loss, weights=weight))
        lines.append(line)
        losses.append(loss)
        counts.append(np.median(np.concatenate([_n_modes(learner.network, some) for learner, some in tested])))
    if criterion == "prune":
        lines, losses, counts = lines[::-1], losses[::-1], counts[::-1]
    table = pd.DataFrame(lines).set_index("n_components")
    if criterion == "bic":
        chosen = int(table["bic"].argmin())
    else:
        best = int(table["nll"].argmin())
        table["excess"] = table["nll"] - table["nll"].iloc[best]
        about = np.stack(losses) - table["nll"].to_numpy()[:, None]
        table["standard_error"] = np.sqrt(((weight / weight.sum() * about) ** 2).sum(1))
        chosen = int((table["excess"] <= table["standard_error"].iloc[best]).to_numpy().argmax())
    return Selection(table, int(candidates[chosen]), float(counts[chosen]), criterion)


def _pruned(learner: Learner, k: int, rows: Rows) -> Learner:
    """To go on from a network with more components, those that are missed least removed one after the other."""
    network: MDN = learner.network  # pyright: ignore[reportAssignmentType]
    while network.head.n_components > k:
        network = prune(network, rows.take(learner.learn))
    return Learner(network, learner.learn, learner.judge, learner.generator)


@torch.no_grad()
def effective_parameters(network: MDN, rows: Rows) -> float:
    """What BIC counts: outputs, times how many dimensions their dependence on x really has.

    A network's weights are no measure of its freedom, since it is regularised by when it stops: counted singly they
    would outweigh any gain. An output is linear in the last layer's features, and these vary in about
    (sum of eigenvalues)^2 / (sum of squared eigenvalues) directions, by their covariance; the bias is one more.
    """
    features = network.backbone(rows.x).double()
    values = torch.linalg.eigvalsh(torch.atleast_2d(torch.cov(features.T))).clamp(min=0)
    directions = values.sum().square() / values.square().sum().clamp(min=1e-300)
    return float((network.head.linear.out_features - 1) * (1 + directions))


@torch.no_grad()
def _nll(network: nn.Module, rows: Rows) -> NDArray[np.float64]:
    return rows.nll(network(rows.x)).double().numpy()


@torch.no_grad()
def _n_modes(network: nn.Module, rows: Rows) -> NDArray[np.int64]:
    """Of some rows, the number of modes that matter."""
    mixture: Mixture = network(rows.x[:_ROWS_TO_COUNT_MODES]).to(torch.float64).continuous
    try:
        return (mixture.modes().mass >= LEAST_MASS_OF_A_MODE).sum(-1).numpy()
    except MixturaError:  # of vectors with counts in them
        return np.array([math.nan])


def _too_few(got: str, expected: str) -> MixturaError:
    fix = "gather more data, raise validation_fraction, or give the number of components"
    return MixturaError("E-too-few-rows", got, f"{expected} to choose a number of components by", fix)
