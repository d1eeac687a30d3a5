"""What is decided on held-out rows, by small networks: the family of the components, and the form of the features."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import resample

from .background import fit_share
from .errors import MixturaError
from .families import get_family
from .presets import TRIAL, Preset
from .targets import likely_families, smallest_scales
from .task import Family, Sample, Task

_FEWEST_ROWS, _MOST_ROWS = 100, 4_000


def decide(
    sample: Sample, family: Family, recipe: Preset, k: int, seed: int, prepare: Callable[[Sample, Family, bool], Task]
) -> tuple[Family, bool, list[str]]:
    """By the held-out NLL of small networks: the family, where it is "auto", and whether heavy-tailed features are
    replaced by their normal scores; and what to tell of it.

    The normal family and features as they are stay unless the gain is more than one standard error over rows.

    Parameters
    ----------
    recipe
        Of the fit that this is for.
    k
        Number of components.
    prepare
        From a sample, a family, and whether heavy-tailed features are replaced, to a task; the same rows are held out
        every time.
    """
    recipe, is_auto = replace(recipe, **TRIAL), isinstance(family, str) and family == "auto"
    family = "normal" if is_auto else family
    if sample.target.upper is not None or len(sample) < _FEWEST_ROWS:
        return family, False, []
    if len(sample) > _MOST_ROWS:
        index = resample(np.arange(len(sample)), replace=False, n_samples=_MOST_ROWS, random_state=seed)
        sample = sample.take(np.asarray(index))
    task = prepare(sample, family, False)
    frame, families = task.frame, [family]
    if is_auto and frame.event_size is None:
        is_rounded = bool(smallest_scales(frame.family, sample.target, frame.units.scale)[1])
        families = likely_families(sample.target, frame.atoms, is_rounded)
    n_heavy = len(frame.encoder.heavy_)
    if task.judge is None or not (len(families) > 1 or n_heavy):
        return family, False, []
    told, losses = [], [_losses(task, recipe, k, seed)]
    losses += [_losses(prepare(sample, name, False), recipe, k, seed) for name in families[1:]]
    best = min(range(len(losses)), key=lambda i: losses[i].mean())
    best = best if _is_surely_lower(losses[best], losses[0]) else 0
    family = families[best]
    if len(families) > 1:
        names = [get_family(one).name for one in families]
        figures = ", ".join(f"{name} {loss.mean():.3f}" for name, loss in zip(names, losses, strict=True))
        told.append(f"family {names[best]}: NLL of held-out rows in small networks: {figures}")
    if not n_heavy:
        return family, False, told
    ranked = _losses(prepare(sample, family, True), recipe, k, seed)
    is_better = _is_surely_lower(ranked, losses[best])
    what = "taken by their normal scores" if is_better else "taken as they are"
    figures = f"{ranked.mean():.3f} and {losses[best].mean():.3f}"
    told.append(f"{n_heavy} heavy-tailed features are {what}: NLL likewise {figures}")
    return family, is_better, told


def _losses(task: Task, recipe: Preset, k: int, seed: int) -> NDArray[np.float64]:
    """NLL of each held-out row, times its weight, in the user's units, that a small network reaches."""
    learner = task.learner(recipe, k, seed, task.learn, task.judge)
    try:
        task.train([learner], recipe, catches_interrupt=False)
    except MixturaError as error:
        if error.code != "E-fit-diverged":
            raise
        return np.full(len(learner.judge), np.inf)
    log_prob, log_background, weight = task.doubt(task.background(recipe), [learner])
    share = fit_share(log_prob, log_background, weight)
    nll = -torch.logaddexp(log_prob + math.log1p(-share), log_background + math.log(share))
    losses = nll * weight / weight.mean() + task.frame.units.log_scale(task.rows.take(learner.judge))
    return losses.numpy()


def _is_surely_lower(losses: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Whether the mean of losses is lower by more than a standard error of the differences, row by row."""
    gain = others - losses
    return bool(gain.mean() > gain.std() / math.sqrt(len(gain)))
