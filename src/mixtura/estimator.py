"""The scikit-learn face: tables in, mixtures out."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from rich.progress import Progress
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import train_test_split
from sklearn.utils import check_consistent_length, resample
from sklearn.utils.validation import (
    _check_sample_weight,  # pyright: ignore[reportPrivateUsage]
    check_is_fitted,
    validate_data,
)
from torch import Tensor

from .background import fit_share
from .checkpoint import Checkpoint, fingerprint
from .constraints import CONSTRAINTS, is_int, is_real, is_seed
from .errors import MixturaError, MixturaWarning, coded, warn
from .families import AnyFamily, ScalarFamily, get_family
from .learner import Learner
from .mixture import Mixture
from .modelfile import plain, restore, state_of
from .nets import MDN, MLP, BatchEnsemble, MixtureHead
from .presets import TRIAL, Preset, settings_of
from .rows import Rows
from .scores import censored_nll
from .selection import Criterion, Selection, select
from .storage import corrupt, read_folder, write_folder
from .tables import TableEncoder, has_date_dtype
from .targets import (
    Target,
    Units,
    as_target,
    check_support,
    find_atoms,
    fit_target_scaler,
    likely_families,
    scalar_families,
    smallest_scales,
)
from .training import starting_mixture, train

_FEWEST_ROWS_TO_HOLD_OUT = 20
_MOST_ROWS_TO_DOUBT, _MOST_ROWS_AT_ONCE = 20_000, 4_096
_FEWEST_ROWS_TO_CHOOSE, _MOST_ROWS_OF_A_TRIAL = 100, 4_000
_NO_MATTER = {"max_epochs", "verbose", "random_state", "pool_restarts", "hidden_layer_sizes", "n_components"}
"""Parameters that may change when training is gone on with, or whose effect is what counts: the first weights."""
CANDIDATES = (1, 2, 3, 4, 5, 6, 8, 10)
"""Numbers of components to choose from, where nobody says which."""


class NotFitted(MixturaError, NotFittedError):
    """A question to a model that has not been fitted; scikit-learn's own type and ours."""


@dataclass(frozen=True)
class _Task:
    """What is to be learned, in the network's units."""

    target: Target
    """In the user's units."""
    rows: Rows
    learn: Tensor
    """Indices of rows, as is judge."""
    judge: Tensor | None
    floor: Tensor
    """Smallest scale of each coordinate."""
    places: Tensor
    """Indices of the features that take more than two values."""
    told: list[str]
    """Events for the report."""
    warning: MixturaWarning | None
    seed: int
    random: np.random.RandomState


class MDNRegressor(RegressorMixin, BaseEstimator):
    """A mixture density network behind scikit-learn's interface: it learns p(y | x), not only a mean.

    Features and targets are standardised inside; every answer is in the user's own units. Data frames are taken as
    they are: numbers, booleans, categories and missing values. NumPy in, NumPy out, except for `predict_dist`.

    Parameters
    ----------
    n_components
        Components of the mixture. A few more than the modes you expect; they are not modes. ``"auto"`` chooses by
        cross-validation, with ten to thirty times the work: see `select_components`.
    preset
        How much work a fit is worth. ``"plain"``: one small network; the answer has `n_components` components, which
        can be read. ``"fast"``: eight members that share their layers (a `BatchEnsemble`), with waves of each number;
        the answer is the pool of their mixtures. ``"balanced"``: below 5,000 rows the pool of four of these, each with
        other rows held out, from there on a wider one; trained for longer. ``"best"``: eight of the former, or four of
        the latter.
    family
        Law of a component; ``"auto"`` takes the normal, unless the target is positive and skewed, or heavy-tailed, and
        the lognormal or the student_t is surely better on held-out rows in small networks (from 100 rows on, if any
        are held out): the report says so. Others:
        ``"laplace"``, ``"asymmetric_laplace"``, ``"logistic"``; for positive numbers ``"gamma"``; between bounds
        ``"beta"`` and ``"truncated_normal"``; for angles ``"von_mises"``; for counts ``"poisson"`` and
        ``"negative_binomial"``. A family of `mixtura.families` has options, such as ``BetaFamily(bounds=(0, 5))``. For
        a vector target also a sequence, one for each coordinate.
    covariance_type
        ``"full"``, ``"diag"``, ``"spherical"`` or ``"low_rank"``, for a vector target. Families other than the normal
        and the student_t are there as ``"diag"`` alone.
    atoms
        Values of a scalar target with a probability of their own, such as rain of exactly 0; ``"auto"`` takes those
        that repeat beyond what a continuous law allows, and says so in the report.
    hidden_layer_sizes
        Widths of the network's hidden layers; as of the other parameters that may be None, the preset says which.
    scale_floor
        Smallest scale of a component, in units of y; None is 1e-3 of the target's standard deviation, or the spread of
        the rounding where most values repeat.
    weight_floor
        Smallest weight of a component.
    max_epochs
        Most passes over the rows; the presets count steps instead.
    batch_size
        Rows in a step; the presets have 32 below 5,000 rows and 256 from there on.
    learning_rate
        Rate of AdamW at the start.
    weight_decay
        Weight decay of AdamW, on matrices only.
    patience
        Epochs without a better held-out NLL before training ends.
    validation_fraction
        Share of rows held out to decide when to end (none below 20 rows, or with `eval_set`).
    n_restarts
        Networks that are trained at once from different starts; all are kept, or the one with the best held-out NLL.
    pool_restarts
        Whether to keep all of them, and to answer with the pool of their mixtures: more accurate, and slower to ask.
        Each then holds out other rows.
    revive
        Whether components that have come to answer for next to no row are started anew where rows are explained worst;
        they stay if the held-out NLL does not suffer.
    noise
        Standard deviation of normal noise that is added to features and target in every batch, as a fraction of their
        own; it smooths the density that is learned from few rows. None is 8/n for n training rows, at most 0.2, and
        none from 200 rows on, or 800 for the plain preset. A target that is censored, has atoms, or lives on
        a part of the line stays as it is.
    random_state
        Seed of everything random; the same seed gives the same model to the bit on one machine, with one number of
        torch's threads (where a network is so large that it takes more than one) and its usual default dtype.
    verbose
        Whether to show a progress bar.

    Attributes
    ----------
    n_components_
        How many components a network has; with ``"auto"`` there is a `selection_`, too, which shows why (not on disk).
    networks_
        From encoded features to a Mixture of the standardised target: one `MDN`, or those that are pooled; float64.
    background_, background_share_
        The density of the target without features, which has a share in every answer, against rows whose features
        mislead: see `mixtura.background`. None with the preset ``"plain"``.
    fit_report_
        What happened in training.
    n_features_in_, feature_names_in_
        As in scikit-learn.
    family_
        The family of the components in the user's units.
    atoms_
        The atoms, an array.
    target_names_
        Names of the target's columns where y had them, else None.
    encoder_, y_scaler_
        How features and targets are standardised.

    References
    ----------
    Bishop (1994), Mixture density networks, NCRG/94/004.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.uniform(-1, 1, (500, 1))
    >>> y = np.sign(rng.normal(size=500)) + 0.1 * rng.normal(size=500)  # two branches: the mean, 0, is on neither
    >>> model = MDNRegressor(n_components=2, preset="plain", random_state=0).fit(X, y)
    >>> model.predict_quantiles([[0.0]], [0.25, 0.75]).round(1)
    array([[-1.,  1.]])
    """

    def __init__(
        self,
        n_components: int | str = 5,
        *,
        preset: str = "balanced",
        family: str | AnyFamily | Sequence[str | AnyFamily] = "auto",
        covariance_type: str = "full",
        atoms: Sequence[float] | str | None = None,
        hidden_layer_sizes: Sequence[int] | None = None,
        scale_floor: float | None = None,
        weight_floor: float = 1e-4,
        max_epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float = 5e-3,
        weight_decay: float = 1e-2,
        patience: int | None = None,
        validation_fraction: float = 0.125,
        n_restarts: int | None = None,
        pool_restarts: bool | None = None,
        revive: bool = True,
        noise: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ):
        self.n_components = n_components
        self.preset = preset
        self.family = family
        self.covariance_type = covariance_type
        self.atoms = atoms
        self.hidden_layer_sizes = hidden_layer_sizes
        self.scale_floor = scale_floor
        self.weight_floor = weight_floor
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.n_restarts = n_restarts
        self.pool_restarts = pool_restarts
        self.revive = revive
        self.noise = noise
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags

    # Learning -------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        eval_set: tuple[Any, Any] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        resume: bool = False,
    ) -> MDNRegressor:
        """Learn p(y | x).

        Parameters
        ----------
        X
            Data frame or array, shape (n, p); NaN where a value is missing.
        y
            Shape (n,) for a scalar target, (n, D) for a joint density of D targets. Where only bounds are known, a
            pandas array or Series of intervals (`pandas.arrays.IntervalArray.from_arrays(lower, upper,
            closed="both")`), -inf or inf on the open side of a censored value, equal ends where it is known.
        sample_weight
            Shape (n,), not negative; a weight of 0 leaves the row out.
        eval_set
            (X, y) that decides when training ends; by default a share of the rows is held out for that.
        checkpoint_dir
            A folder in which the state of training is kept, so that no crash loses more than the last moments.
        resume
            Whether to go on from the checkpoint that is there, if there is one. The same data, settings and integer
            `random_state` lead to the same model, bit for bit, as if nothing had happened; `max_epochs` may be larger.

        Raises
        ------
        MixturaError
            With a code that says which input does not fit, and how to mend it (docs/errors.md). A model
            that was fitted before stays as it was.
        """
        with self._whole_or_not_at_all():
            return self._fit(X, y, sample_weight, eval_set, checkpoint_dir, resume)

    def partial_fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> MDNRegressor:
        """Go on learning from new rows: the networks start from what they know; the first call is `fit`.

        How features and target are standardised, the family, the atoms and the number of components stay. A share of
        the new rows is held out, as in `fit`: the model is never worse on these than before. What it knew of older rows
        may fade; to keep it, give some of them again.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`, with the columns that it saw.

        Raises
        ------
        MixturaError
            As `fit` does. The model stays as it was.
        """
        if not hasattr(self, "networks_"):
            return self.fit(X, y, sample_weight)
        with self._whole_or_not_at_all():
            task = self._prepare(X, y, sample_weight, None)
            learners = []
            for network in self.networks_:
                generator = torch.Generator().manual_seed(int(task.random.randint(2**31 - 1)))
                network = copy.deepcopy(network).float()
                with torch.no_grad():
                    outputs = network.head.linear(network.backbone(task.rows.x[task.learn])).flatten(0, -2)
                    network.head.set_units(network.head.split(outputs.median(0).values)[1])
                learners.append(Learner(network, task.learn, task.judge, generator))
            return self._finish(task, learners)

    @contextmanager
    def _whole_or_not_at_all(self) -> Iterator[None]:
        """A model whose fit fails stays as it was."""
        before = dict(self.__dict__)
        try:
            with torch.inference_mode(False), torch.enable_grad():
                yield
        except BaseException:
            self.__dict__ = before
            raise

    def _fit(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None,
        eval_set: tuple[Any, Any] | None,
        checkpoint_dir: str | os.PathLike[str] | None,
        resume: bool,
    ) -> MDNRegressor:
        if resume and checkpoint_dir is None:
            raise MixturaError("E-parameter", "resume=True", "a checkpoint_dir to resume from", "say where it is")
        checkpoint = None if checkpoint_dir is None else Checkpoint(checkpoint_dir, resume)
        task = self._decide(X, y, sample_weight, eval_set)
        self._choose(task, {} if checkpoint is None else checkpoint.about)
        recipe = self._recipe(len(task.learn))
        learners = [self._learner(task, task.learn, task.judge, self.n_components_, task.seed, recipe)]
        for _ in range(recipe.n_restarts - 1):
            seed, learn, judge = int(task.random.randint(2**31 - 1)), task.learn, task.judge
            if recipe.pool_restarts and judge is not None and eval_set is None:
                judge, learn = torch.cat([judge, learn]).roll(-len(learners) * len(judge)).tensor_split([len(judge)])
            learners.append(self._learner(task, learn, judge, self.n_components_, seed, recipe))
        self.background_ = self._make_background(task) if recipe.has_background else None
        if checkpoint is not None:
            checkpoint.bind(self._fingerprint(task, learners))
        return self._finish(task, learners, checkpoint)

    def _finish(self, task: _Task, learners: list[Learner], checkpoint: Checkpoint | None = None) -> MDNRegressor:
        """Train, and keep the best, or all."""
        recipe = self._recipe(len(task.learn))
        self._train(learners, task.rows, recipe, checkpoint)
        n_failed = sum(learner.failure is not None for learner in learners)
        if n_failed:
            task.told.append(f"{n_failed} of {len(learners)} restarts diverged and were left out")
        learners = [learner for learner in learners if learner.failure is None]
        best = min(learners, key=lambda learner: learner.report.best_nll)
        report = best.report
        report.restart_nlls = [learner.report.best_nll for learner in learners]
        report.restart_active_components = [learner.report.n_active_components for learner in learners]
        report.move(*(self._units.log_scale(task.rows.take(part)) for part in (best.learn, best.judge)))
        # In float64 from here on: a row alone gets what it gets in a batch.
        kept = learners if recipe.pool_restarts else [best]
        self.networks_: list[MDN] = [learner.network.double() for learner in kept]  # pyright: ignore
        self.background_share_ = 0.0
        if self.background_ is not None:
            self.background_share_ = fit_share(*self._doubt(self.background_, kept, task.rows))
            task.told.append(f"{self.background_share_:.2%} of each density is that of the target without features")
        report.events[:0] = task.told
        self.fit_report_ = report
        return self

    @torch.no_grad()
    def _make_background(self, task: _Task) -> MDN:
        """The density of the target without features, as a network whose answer is the same for all rows."""
        recipe = replace(self._recipe(len(task.learn)), hidden_layer_sizes=(), n_members=None)
        network: MDN = self._learner(task, task.learn, None, 1, task.seed, recipe).network.double()  # pyright: ignore
        network.head.linear.weight.zero_()
        return network

    @staticmethod
    @torch.no_grad()
    def _doubt(background: MDN, kept: Sequence[Learner], rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
        """Of held-out rows the log density, that of the background, and the weight."""
        held_out = [one.judge[: _MOST_ROWS_TO_DOUBT if one.report.n_valid_rows else 0] for one in kept]
        _, place, counts = torch.cat(held_out).unique(return_inverse=True, return_counts=True)
        found = []
        for learner, judge, times in zip(kept, held_out, counts[place].split([*map(len, held_out)]), strict=True):
            some, network = rows.take(judge).double(), learner.network.double()
            found.append((-some.nll(network(some.x)), -some.nll(background(some.x)), some.weight / times))
        log_prob, log_background, weight = (torch.cat(parts) for parts in zip(*found, strict=True))
        return log_prob, log_background, weight

    def _prepare(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None,
        eval_set: tuple[Any, Any] | None,
        family: str | AnyFamily | Sequence[str | AnyFamily] | None = None,
        ranks: bool = False,
    ) -> _Task:
        """Check everything, standardise features and target (as before, unless a family is given), hold rows out."""
        reset = family is not None
        self._check_parameters()
        X = self._check_features(X, reset=reset)
        target = self._check_target(y, reset=reset)
        with coded("E-input-length", "as many rows in X, y and sample_weight"):
            check_consistent_length(X, target)
        with coded("E-sample-weight", "one weight >= 0 for each row"):
            weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        weight = weight / weight.max()
        counted = weight > 1e-30  # what float32 can still weigh
        n_counted = int(counted.sum())
        if n_counted < 2:
            got = f"n_samples = {len(target)}, {n_counted} of positive weight"
            raise MixturaError("E-too-few-rows", got, "at least 2 rows", "gather more data")
        X, target, weight = X[counted], target.take(counted), weight[counted]
        weight = weight / weight.mean()

        warning = None
        random = _fresh(self.random_state)
        seed = int(random.randint(2**31 - 1))
        if reset:
            self.family_ = get_family(family, self._event_size, self.covariance_type)
            self.atoms_ = self._find_atoms(target, weight)
        check_support(self.family_, target, self.atoms_)
        if reset:
            self.encoder_ = TableEncoder(ranks).fit(X, weight)
            self.y_scaler_ = fit_target_scaler(target.points, weight, target.names, self.family_)
            warning = self._repeats(target, weight)
        told = []
        if len(self.atoms_):
            told.append(f"atoms, with their shares of the rows: {_shares(self.atoms_, target, weight)}")
        floors = np.full_like(self._units.scale, float(self.scale_floor or 0))
        if self.scale_floor is None:
            floors, why = smallest_scales(self.family_, target, self._units.scale)
            told += why
        floor = torch.as_tensor(floors / self._units.scale, dtype=torch.float32)
        rows = self._units.rows(self.encoder_.transform(X), target, weight)
        learn, judge = torch.arange(n_counted), None
        if eval_set is not None:
            rows = rows.followed_by(self._eval_rows(eval_set))
            judge = torch.arange(n_counted, len(rows))
        elif self.validation_fraction > 0 and n_counted >= _FEWEST_ROWS_TO_HOLD_OUT:
            n_held_out = min(max(1, round(float(self.validation_fraction) * n_counted)), n_counted - 2)
            parts = train_test_split(np.arange(n_counted), test_size=n_held_out, random_state=random)
            learn, judge = (torch.as_tensor(part) for part in parts)
        places = torch.tensor(
            [j for j, values in enumerate(rows.x[learn].T) if len(values.unique()) > 2], dtype=torch.long
        )
        return _Task(target, rows, learn, judge, floor, places, told, warning, seed, random)

    def _decide(self, X: Any, y: Any, sample_weight: ArrayLike | None, eval_set: tuple[Any, Any] | None) -> _Task:
        """The task, with the family and the form of the features that were found best."""
        family, ranks, told = self._try_out(X, y, sample_weight)
        task = self._prepare(X, y, sample_weight, eval_set, family, ranks)
        task.told[:0] = told
        if task.warning is not None:
            warn(task.warning)
        return task

    def _try_out(
        self, X: Any, y: Any, sample_weight: ArrayLike | None
    ) -> tuple[str | AnyFamily | Sequence[str | AnyFamily], bool, list[str]]:
        """By the held-out NLL of small networks: the family, where it is "auto", and whether heavy-tailed features are
        replaced by their normal scores; and what to tell of it.

        The normal family and features as they are stay unless the gain is more than one standard error over rows.
        """
        self._check_parameters()
        is_auto = isinstance(self.family, str) and self.family == "auto"
        family = "normal" if is_auto else self.family
        seed = int(_fresh(self.random_state).randint(2**31 - 1))
        model = clone(self).set_params(random_state=seed, verbose=False)
        model._check_features(X, reset=True)
        target = as_target(y)
        if target.upper is not None or self.validation_fraction == 0 or len(target) < _FEWEST_ROWS_TO_CHOOSE:
            return family, False, []
        weight = np.ones(len(target)) if sample_weight is None else sample_weight
        with coded("E-input-length", "as many rows in X, y and sample_weight"):
            check_consistent_length(X, target, weight)
        if len(target) > _MOST_ROWS_OF_A_TRIAL:
            X, y, weight = resample(X, y, weight, replace=False, n_samples=_MOST_ROWS_OF_A_TRIAL, random_state=seed)
        task = model._prepare(X, y, weight, None, family)
        families: list[Any] = [family]
        if is_auto and model._event_size is None:
            is_rounded = bool(smallest_scales(model.family_, task.target, model._units.scale)[1])
            families = likely_families(task.target, model.atoms_, is_rounded)
        has_heavy_tails = bool(len(model.encoder_.heavy_))
        if task.judge is None or not (len(families) > 1 or has_heavy_tails):
            return family, False, []
        told, losses = [], [model._trial_losses(task, seed)]
        losses += [model._trial_losses(model._prepare(X, y, weight, None, name), seed) for name in families[1:]]
        best = min(range(len(losses)), key=lambda i: losses[i].mean())
        best = best if _is_surely_lower(losses[best], losses[0]) else 0
        family = families[best]
        if len(families) > 1:
            names = [get_family(one).name for one in families]
            figures = ", ".join(f"{name} {loss.mean():.3f}" for name, loss in zip(names, losses, strict=True))
            told.append(f"family {names[best]}: NLL of held-out rows in small networks: {figures}")
        if not has_heavy_tails:
            return family, False, told
        ranked = model._trial_losses(model._prepare(X, y, weight, None, family, ranks=True), seed)
        is_better = _is_surely_lower(ranked, losses[best])
        what = "taken by their normal scores" if is_better else "taken as they are"
        figures = f"{ranked.mean():.3f} and {losses[best].mean():.3f}"
        told.append(f"{len(model.encoder_.heavy_)} heavy-tailed features are {what}: NLL likewise {figures}")
        return family, is_better, told

    def _trial_losses(self, task: _Task, seed: int) -> NDArray[np.float64]:
        """NLL of each held-out row, times its weight, in the user's units, that a small network reaches."""
        k = 5 if isinstance(self.n_components, str) else int(self.n_components)
        learner = self._learner(task, task.learn, task.judge, k, seed, TRIAL)
        try:
            self._train([learner], task.rows, TRIAL, catches_interrupt=False)
        except MixturaError as error:
            if error.code != "E-fit-diverged":
                raise
            return np.full(len(learner.judge), np.inf)
        log_prob, log_background, weight = self._doubt(self._make_background(task), [learner], task.rows)
        share = fit_share(log_prob, log_background, weight)
        nll = -torch.logaddexp(log_prob + math.log1p(-share), log_background + math.log(share))
        losses = nll * weight / weight.mean() + self._units.log_scale(task.rows.take(learner.judge))
        return losses.numpy()

    def _choose(self, task: _Task, about: dict[str, Any]) -> None:
        """The number of components: as it was given, as it was chosen before a crash, or by cross-validation."""
        self.__dict__.pop("selection_", None)
        if not isinstance(self.n_components, str):
            self.n_components_ = int(self.n_components)
            return
        if "choice" not in about:
            candidates = [k for k in CANDIDATES if k + len(self.atoms_) < self._most_weights]
            self.selection_ = self._select(task, candidates or [1], "cv")
            about["choice"] = self.selection_.n_components, self.selection_.summary
        self.n_components_, summary = about["choice"]
        task.told.append(summary)

    @property
    def _most_weights(self) -> float:
        """Fewer than these have room above their floor."""
        return 1 / self.weight_floor if self.weight_floor else np.inf

    def _select(self, task: _Task, candidates: Sequence[int], criterion: Criterion) -> Selection:
        if max(candidates) + len(self.atoms_) >= self._most_weights:
            got = f"weight_floor={self.weight_floor} with {max(candidates)} components"
            raise MixturaError("E-head-parameter", got, "room above the floor", "lower weight_floor, or the candidates")

        recipe = self._recipe(len(task.learn), "plain")

        def make(fit: Tensor, stop: Tensor, k: int) -> Learner:
            return self._learner(task, fit, stop, k, task.seed, recipe)

        chosen = select(
            task.rows,
            task.learn,
            task.judge,
            candidates,
            criterion,
            make,
            lambda learners: self._train(learners, task.rows, recipe, catches_interrupt=False),
            np.random.RandomState(task.seed),
        )
        judged = {"cv": slice(None), "bic": task.learn}.get(criterion, task.judge)
        for column in ("nll", "bic"):
            if column in chosen.table:
                chosen.table[column] += self._units.log_scale(task.rows.take(judged))
        return chosen

    def _learner(self, task: _Task, learn: Tensor, judge: Tensor | None, k: int, seed: int, recipe: Preset) -> Learner:
        """A network with k components and a start near the marginal density of its rows."""
        generator = torch.Generator().manual_seed(seed)
        network = self._build_network(recipe, task.places, task.rows.x.shape[1], k, task.floor, generator)
        head, own = network.head, task.rows.take(learn)
        head.start_from(starting_mixture(own.points(head.family), k, head.family, own.weight, seed, head.atoms))
        return Learner(network, learn, judge, generator)

    def _fingerprint(self, task: _Task, learners: Sequence[Learner]) -> str:
        """Of all that decides how training goes, but for where it ends."""
        settings = sorted(
            (name, repr(plain(value))) for name, value in self.get_params().items() if name not in _NO_MATTER
        )
        rows = task.rows
        tensors = [rows.x, rows.y, rows.weight, *([] if rows.upper is None else [rows.upper]), learners[0].learn]
        return fingerprint([*tensors, *(p for learner in learners for p in learner.network.parameters())], settings)

    def _train(
        self,
        learners: Sequence[Learner],
        rows: Rows,
        recipe: Preset,
        checkpoint: Checkpoint | None = None,
        catches_interrupt: bool = True,
    ) -> None:
        n_learn = len(learners[0].learn)
        judged = self._units.log_scale(rows.take(learners[0].judge))
        usual = min(0.2, 8 / n_learn) if n_learn < recipe.enough_rows else 0.0
        noise = usual if self.noise is None else float(self.noise)
        is_affine = all(part.closed_under == "affine" for part in scalar_families(self.family_, 1))
        may_move = is_affine and rows.upper is None and not len(self.atoms_)
        console = Console(stderr=True)
        max_epochs, patience = recipe.epochs(math.ceil(n_learn / recipe.batch_size))
        hidden = not (self.verbose and (console.is_terminal or console.is_jupyter))
        with Progress(console=console, transient=True, disable=hidden) as bar:
            task = bar.add_task("fitting", total=max_epochs)

            def show() -> None:
                lowest = min(learner.report.valid_nll[-1] for learner in learners) + judged
                n_epochs = max(learner.report.n_epochs for learner in learners)
                bar.update(task, completed=n_epochs, description=f"fitting, held-out NLL {lowest:.4f}")

            train(
                learners,
                rows,
                max_epochs=max_epochs,
                batch_size=recipe.batch_size,
                learning_rate=float(self.learning_rate),
                weight_decay=float(self.weight_decay),
                patience=patience,
                revives=bool(self.revive),
                x_noise=noise,
                y_noise=noise if may_move else 0.0,
                checkpoint=checkpoint,
                catches_interrupt=catches_interrupt,
                on_epoch=None if hidden else show,
            )

    def _recipe(self, n_rows: int, preset: str | None = None) -> Preset:
        """The preset (or another one) for so many rows to learn from, but for what was set."""
        given = {field.name: getattr(self, field.name, None) for field in fields(Preset)}
        usual = settings_of(preset or self.preset, n_rows)
        return replace(usual, **{name: plain(value) for name, value in given.items() if value is not None})

    def _check_parameters(self) -> None:
        for name, (is_valid, expected) in CONSTRAINTS.items():
            value = getattr(self, name)
            if not is_valid(value):
                raise MixturaError("E-parameter", f"{name}={value!r}", expected, "see the docstring of MDNRegressor")

    def _check_is_fitted(self) -> None:
        try:
            check_is_fitted(self)
        except NotFittedError as error:
            got = f"This {type(self).__name__} instance is not fitted yet"
            raise NotFitted("E-not-fitted", got, "a fitted model", "call fit first") from error

    def _check_features(self, X: Any, reset: bool) -> pd.DataFrame | NDArray[np.float64]:
        with coded("E-features", "a table of numbers and categories, as in fit"):
            if isinstance(X, pd.DataFrame):
                validate_data(self, X, reset=reset, skip_check_array=True)
                if not len(X) or not X.shape[1]:
                    raise ValueError(f"0 rows or columns (shape={X.shape}) while a minimum of 1 is required.")
                return X
            if has_date_dtype(X):
                fix = "derive numbers from them (hour, weekday, days since a start)"
                raise MixturaError("E-feature-date", "an array of dates", "numbers", fix)
            with np.errstate(invalid="ignore"):  # infinities of both signs, which are refused
                return validate_data(self, X, reset=reset, dtype=np.float64, ensure_all_finite="allow-nan")

    def _check_target(self, y: Any, reset: bool) -> Target:
        """The target, (n,) or (n, D); a single column is a scalar target."""
        target = as_target(y)
        if reset:
            self.target_names_, self._y_shape = target.names, target.row_shape
        elif target.row_shape != self._y_shape:
            shapes = [f"({', '.join(map(str, ('n', *shape)))})" for shape in (target.row_shape, self._y_shape)]
            got, expected = f"y of shape {shapes[0]}", f"shape {shapes[1]}"
            raise MixturaError("E-target-shape", got, expected, "give the target that fit had")
        elif target.names and self.target_names_ and len(target.names) > 1 and target.names != self.target_names_:
            got, expected = f"columns {target.names}", f"{self.target_names_}"
            raise MixturaError("E-target-shape", got, expected, "give the columns of the target in the order of fit")
        return target

    def _find_atoms(self, target: Target, weight: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.atoms is None:
            return np.empty(0)
        if self._event_size is not None:
            got = f"atoms={self.atoms!r} with a vector target"
            raise MixturaError("E-parameter", got, "atoms of a scalar target", "fit each coordinate, or leave them out")
        if isinstance(self.atoms, str):
            return np.array(find_atoms(target, weight))
        return np.unique(np.asarray(self.atoms, dtype=np.float64))

    def _repeats(self, target: Target, weight: NDArray[np.float64]) -> MixturaWarning | None:
        """Where values repeat beyond what a density allows, and are no atoms."""
        is_discrete = isinstance(self.family_, ScalarFamily) and self.family_.is_discrete
        if self.atoms is not None or self._event_size is not None or is_discrete:
            return None
        repeated = find_atoms(target, weight)
        if not repeated:
            return None
        fix = 'give atoms="auto", or these values, and they get a probability of their own'
        got = f"values that repeat beyond what a density allows: {_shares(repeated, target, weight)}"
        return MixturaWarning("W-repeated-values", got, "a continuous target", fix)

    def _eval_rows(self, eval_set: tuple[Any, Any]) -> Rows:
        if not isinstance(eval_set, tuple | list) or len(eval_set) != 2:
            got = f"eval_set of type {type(eval_set).__name__}"
            raise MixturaError("E-eval-set", got, "a pair (X, y)", "give eval_set=(X_valid, y_valid)")
        X = self.encoder_.transform(self._check_features(eval_set[0], reset=False))
        target = self._check_target(eval_set[1], reset=False)
        with coded("E-input-length", "as many rows in the X and y of eval_set"):
            check_consistent_length(X, target)
        check_support(self.family_, target, self.atoms_)
        return self._units.rows(X, target, np.ones(len(target)))

    @property
    def _units(self) -> Units:
        loc, scale = np.asarray(self.y_scaler_.mean_), np.asarray(self.y_scaler_.scale_)
        return Units(self.family_, self.atoms_, loc, scale)

    @property
    def _event_size(self) -> int | None:
        """None for a scalar target, else D."""
        return None if self._y_shape in ((), (1,)) else self._y_shape[0]

    def _build_network(
        self,
        recipe: Preset,
        places: Tensor,
        n_inputs: int,
        k: int,
        floor: Tensor,
        generator: torch.Generator | None = None,
        device: str = "cpu",
    ) -> MDN:
        with torch.device(device):
            sizes = [int(size) for size in recipe.hidden_layer_sizes]
            if recipe.n_members is None:
                backbone = MLP(n_inputs, sizes, generator)
            else:
                backbone = BatchEnsemble(n_inputs, sizes, recipe.n_members, places, generator)
            head = MixtureHead(
                backbone.out_features,
                k,
                self._event_size,
                self._units.network_family,
                atoms=self._units.network_atoms,
                scale_floor=floor if self._event_size else floor[0],
                weight_floor=float(self.weight_floor),
                n_members=recipe.n_members,
                generator=generator,
            )
        return MDN(backbone, head).float()

    # Answers --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict_dist(self, X: Any) -> Mixture:
        """The predicted density of each row, in the user's units: a float64 `Mixture` with batch_shape (n,)."""
        self._check_is_fitted()
        encoded = self.encoder_.transform(self._check_features(X, reset=False))
        loc, scale = (torch.as_tensor(part) for part in (self.y_scaler_.mean_, self.y_scaler_.scale_))
        if self._event_size is None:
            loc, scale = loc[0], scale[0]
        x = torch.as_tensor(encoded)
        networks, share = self.networks_, self.background_share_
        weights = [(1 - share) / len(networks)] * len(networks)
        if self.background_ is not None:
            networks, weights = [*networks, self.background_], [*weights, share]
        predicted = Mixture.pool([_in_blocks(network, x).affine(loc, scale) for network in networks], weights)
        atoms = torch.as_tensor(np.tile(self.atoms_, len(networks))) if len(self.atoms_) else None
        return Mixture(predicted.logits, self.family_.settle(predicted.components), atoms, validate_args=True)

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The mean of p(y | x), shape like y; with `return_std` also the standard deviation, as a pair.

        On a multi-valued target the mean may lie where no data are: see `predict_dist`.
        """
        mixture = self.predict_dist(X)
        shape = (len(mixture), *self._y_shape)
        mean = mixture.mean.numpy().reshape(shape)
        return (mean, mixture.stddev.numpy().reshape(shape)) if return_std else mean

    def predict_quantiles(self, X: Any, quantiles: ArrayLike) -> NDArray[np.float64]:
        """Quantiles of p(y | x), shape (n, Q); of a vector target coordinate by coordinate, shape (n, D, Q).

        Parameters
        ----------
        quantiles
            Levels in [0, 1], shape (Q,).

        Raises
        ------
        MixturaError
            ``E-quantile-range`` for levels outside [0, 1].
        """
        mixture = self.predict_dist(X)
        with coded("E-quantile-range", "levels in [0, 1]"):
            levels = torch.tensor(np.array(quantiles, dtype=np.float64)).reshape(-1, 1)
        if self._event_size is None:
            return mixture.icdf(levels).mT.numpy()
        margins = [mixture.marginal(dim).icdf(levels).mT for dim in range(self._event_size)]
        return torch.stack(margins, 1).numpy()

    def predict_interval(self, X: Any, coverage: float = 0.9) -> NDArray[np.float64]:
        """The central interval with this probability, shape (n, 2): lower, upper; (n, D, 2) for a vector target.

        Raises
        ------
        MixturaError
            ``E-coverage-range`` unless 0 < coverage < 1.
        """
        if not is_real(0, 1)(coverage) or coverage == 0:
            raise MixturaError("E-coverage-range", f"coverage={coverage!r}", "0 < coverage < 1", "0.9 means 90%")
        return self.predict_quantiles(X, [(1 - coverage) / 2, (1 + coverage) / 2])

    def score_samples(self, X: Any, y: Any = None) -> NDArray[np.float64]:
        """Log density log p(y | x) of each row, shape (n,), in nats per unit of y; at an atom, of an interval and of a
        count, the log probability.

        Without y, at the model's own `predict(X)`: scikit-learn's checks ask for an answer from X alone.
        """
        mixture = self.predict_dist(X)
        if y is None:
            return mixture.log_prob(mixture.mean).numpy()
        target = self._check_target(y, reset=False)
        with coded("E-input-length", "as many rows in X and y"):
            check_consistent_length(X, target)
        values = torch.tensor(target.values)
        if target.upper is not None:
            return -censored_nll(mixture, values, torch.tensor(target.upper), reduction="none").numpy()
        return mixture.log_prob(values).numpy()

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """R^2 of `predict`, as of every scikit-learn regressor; `mixtura.metrics` judges the whole density.

        Raises
        ------
        MixturaError
            ``E-target-type`` for censored targets, of which only `score_samples` knows a score.
        """
        if self._check_target(y, reset=False).upper is not None:
            fix = "take the mean of score_samples(X, y)"
            raise MixturaError("E-target-type", "R^2 of intervals", "known targets", fix)
        return float(super().score(X, y, sample_weight))

    def sample(
        self, X: Any, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> NDArray[np.float64]:
        """Draws from p(y | x), shape (n, n_samples), or (n, n_samples, D) for a vector target."""
        if not is_int(1)(n_samples):
            raise MixturaError("E-parameter", f"n_samples={n_samples!r}", "an integer >= 1", "ask for at least one")
        if not is_seed(random_state):
            expected = CONSTRAINTS["random_state"][1]
            raise MixturaError("E-parameter", f"random_state={random_state!r}", expected, "give a seed")
        generator = torch.Generator().manual_seed(int(_fresh(random_state).randint(2**31 - 1)))
        return self.predict_dist(X).sample((n_samples,), generator).transpose(0, 1).numpy()

    # On disk --------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model to a folder of JSON and safetensors; `mixtura.load` reads it back bit for bit.

        Raises
        ------
        MixturaError
            ``E-save-target`` where something else is in the way, ``E-save-write`` where it can't be written.
        """
        self._check_is_fitted()
        write_folder(path, *state_of(self))


def load(path: str | os.PathLike[str]) -> MDNRegressor:
    """Read a model that `MDNRegressor.save` wrote; it predicts bit for bit as the saved one did. Nothing is run.

    Raises
    ------
    MixturaError
        ``E-load-missing``, ``E-load-version`` or ``E-load-corrupt``.
    """
    manifest, tensors = read_folder(path)
    try:
        model = MDNRegressor(**manifest["parameters"])
        restore(model, manifest, tensors)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise corrupt(Path(path), error) from error
    return model


def _shares(values: Iterable[float], target: Target, weight: NDArray[np.float64]) -> str:
    """Values of a target with their shares of the rows, in words."""
    shares = [(value, weight[target.values == value].sum() / weight.sum()) for value in values]
    return ", ".join(f"{value:g} ({share:.1%})" for value, share in shares)


def select_components(
    X: Any,
    y: Any,
    candidates: Sequence[int] = CANDIDATES,
    criterion: Criterion = "cv",
    *,
    estimator: MDNRegressor | None = None,
    sample_weight: ArrayLike | None = None,
) -> Selection:
    """How many components a mixture needs.

    Parameters
    ----------
    X, y, sample_weight
        As for `MDNRegressor.fit`.
    candidates
        Numbers of components to try.
    criterion
        ``"cv"``: 5-fold cross-validation, the fewest components whose NLL is within one standard error of the best
        (Breiman et al. 1984). ``"heldout"``: the same on the rows held out once, which also
        decide when to stop: in a fifth of the time, and less sure. ``"prune"``: as that, but only the most components
        are trained from the start; then the one that is missed least is taken away, and training goes on.
        ``"bic"``: NLL on the training rows + n_parameters log(n) / 2n (Schwarz 1978), a
        heuristic for a network, whose number of effective parameters is only estimated, and which is not at its maximum
        of likelihood; it misleads where rows are few or the network has been stopped early.
    estimator
        All other settings, but for `n_restarts`; by default those of `MDNRegressor()`.

    Returns
    -------
    Selection
        With a table of all candidates, the choice, and a summary in words.

    Raises
    ------
    MixturaError
        As `MDNRegressor.fit` does, and ``E-parameter`` for candidates or criteria that are none.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X, y = rng.uniform(size=(400, 1)), rng.choice([-1, 1], 400) + 0.1 * rng.normal(size=400)
    >>> small = MDNRegressor(preset="plain", hidden_layer_sizes=(8,), max_epochs=20, random_state=0)
    >>> select_components(X, y, [1, 2, 3], estimator=small).n_components
    2
    """
    if not isinstance(estimator, MDNRegressor | None):
        fix = "give an MDNRegressor with the other settings"
        raise MixturaError("E-parameter", f"estimator={estimator!r}", "an MDNRegressor", fix)
    model = clone(MDNRegressor() if estimator is None else estimator)
    candidates = list(candidates) if isinstance(candidates, Iterable) else []
    if not candidates or not all(map(is_int(1), candidates)):
        raise MixturaError("E-parameter", f"candidates={candidates!r}", "integers >= 1", "give numbers of components")
    if criterion not in get_args(Criterion):
        expected = ", ".join(map(repr, get_args(Criterion)))
        raise MixturaError("E-parameter", f"criterion={criterion!r}", expected, "choose one of them")
    with torch.inference_mode(False), torch.enable_grad():
        task = model._decide(X, y, sample_weight, None)
        return model._select(task, sorted(map(int, set(candidates))), criterion)


def _in_blocks(network: MDN, x: Tensor) -> Mixture:
    """The mixtures of many rows, in blocks that bound the memory of the layers between."""
    parts = [network(rows) for rows in x.split(_MOST_ROWS_AT_ONCE)]
    if len(parts) == 1:
        return parts[0]
    family = parts[0].family
    parameters = zip(*(family.parameters(part.components) for part in parts), strict=True)
    components = family.from_parameters(*(torch.cat(pieces) for pieces in parameters))
    atoms = [part.atoms for part in parts if part.atoms is not None]
    logits = torch.cat([part.logits for part in parts])
    return Mixture.of_parts(family, logits, components, torch.cat(atoms) if atoms else None)


def _is_surely_lower(losses: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Whether the mean of losses is lower by more than a standard error of the differences, row by row."""
    gain = others - losses
    return bool(gain.mean() > gain.std() / math.sqrt(len(gain)))


def _fresh(random_state: int | np.random.RandomState | None) -> np.random.RandomState:
    """A generator of our own: NumPy's global one stays untouched."""
    return random_state if isinstance(random_state, np.random.RandomState) else np.random.RandomState(random_state)
