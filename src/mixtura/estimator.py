"""The scikit-learn face: tables in, mixtures out."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import (
    _check_sample_weight,  # pyright: ignore[reportPrivateUsage]
    validate_data,
)
from torch import Tensor

from .answers import Answers, as_random, check_fitted
from .background import fit_share
from .calibrated import (
    Calibrated,
    Conformal,
    Correction,
    Method,
    check_method,
    conform,
    correct,
)
from .checkpoint import Checkpoint, fingerprint
from .constraints import CONSTRAINTS, is_int
from .diagnosis import Diagnosis, diagnose
from .ensemble import Decomposition, decompose
from .errors import MixturaError, coded, warn
from .learner import Learner
from .mixture import Mixture
from .modelfile import plain, state_of
from .nets import MDN
from .presets import Preset, settings_of
from .selection import Criterion, Selection, select
from .storage import write_folder
from .tables import has_date_dtype
from .targets import as_target
from .task import Family, Frame, Sample, Task
from .trials import decide

_MOST_ROWS_AT_ONCE = 4_096
_NO_MATTER = {"max_epochs", "verbose", "random_state", "pool_restarts", "hidden_layer_sizes", "n_components"}
"""Parameters that may change when training is gone on with, or whose effect is what counts: the first weights."""
CANDIDATES = (1, 2, 3, 4, 5, 6, 8, 10)
"""Numbers of components to choose from, where nobody says which."""


class MDNRegressor(Answers, RegressorMixin, BaseEstimator):
    """A mixture density network behind scikit-learn's interface: it learns p(y | x), not only a mean.

    Features and targets are standardised inside; every answer is in the user's own units. Data frames are taken as
    they are: numbers, booleans, categories and missing values. NumPy in, NumPy out, except for `predict_dist` and
    `uncertainty`, which answer with tensors.

    Parameters
    ----------
    n_components
        Components of the mixture. A few more than the modes you expect; they are not modes. ``"auto"`` chooses by
        cross-validation, with ten to thirty times the work: see `select_components`.
    preset
        How much work a fit is worth. ``"plain"``: one small network; the answer has `n_components` components, which
        can be read. ``"fast"``: eight members that share their layers (a `BatchEnsemble`), with waves of each number;
        the answer is the pool of their mixtures. ``"balanced"``: the pool of four of these, each with other rows held
        out (from 5,000 rows on two wider ones), trained for longer. ``"best"``: twice as many. From 1,000 rows on there
        are four hidden layers in place of two, but for ``"plain"``. Rows that are held out do not count.
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
        that repeat beyond what a continuous law allows, or all where they are few, and says so in the report.
    hidden_layer_sizes
        Widths of the network's hidden layers; as of the other parameters that may be None, the preset says which.
    scale_floor
        Smallest scale of a component, in units of y; None is 1e-3 of the target's standard deviation, or the spread of
        the rounding where most values repeat.
    weight_floor
        Smallest weight of a component.
    max_epochs
        Most passes over the rows; the presets count steps instead. Over the last three tenths of them the rate falls to
        0, if training lasts that long.
    batch_size
        Rows in a step; the presets have 32 below 5,000 rows and 256 from there on.
    learning_rate
        Rate of AdamW at the start.
    weight_decay
        Weight decay of AdamW, on matrices only.
    patience
        Epochs without a better held-out NLL before training ends.
    validation_fraction
        Share of rows held out to decide when to end (none below 20 rows, or with `eval_set`). Where most rows have
        copies, equal in all values, these are held out together.
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
        family: Family = "auto",
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
            `random_state` lead to the same model, bit for bit, as if nothing had happened; with a larger
            `max_epochs` training goes on from where it ended.

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
            sample = self._sample(X, y, sample_weight, reset=False)
            self.encoder_ = self.encoder_.widened(sample.X)
            task, learners = self._task(sample, self._frame), []
            for network in self.networks_:
                generator = torch.Generator().manual_seed(int(task.random.randint(2**31 - 1)))
                network = copy.deepcopy(network).float()
                with torch.no_grad():
                    outputs = network.head.linear(network.backbone(task.rows.x[task.learn])).flatten(0, -2)
                    network.head.set_units(network.head.split(outputs.median(0).values)[1])
                learners.append(Learner(network, task.learn, task.judge, generator))
            return self._finish(task, learners, self._recipe(task.n_different(task.learn)))

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
        recipe = self._recipe(task.n_different(task.learn))
        learners = task.learners(recipe, self.n_components_, others_judge=eval_set is None)
        self.background_ = task.background(recipe) if recipe.has_background else None
        if checkpoint is not None:
            checkpoint.bind(self._fingerprint(task, learners))
        return self._finish(task, learners, recipe, checkpoint)

    def _finish(
        self, task: Task, learners: list[Learner], recipe: Preset, checkpoint: Checkpoint | None = None
    ) -> MDNRegressor:
        """Train, and keep the best, or all."""
        task.train(learners, recipe, checkpoint)
        n_failed = sum(learner.failure is not None for learner in learners)
        if n_failed:
            task.told.append(f"{n_failed} of {len(learners)} restarts diverged and were left out")
        learners = [learner for learner in learners if learner.failure is None]
        best = min(learners, key=lambda learner: learner.report.best_nll)
        report = best.report
        report.restart_nlls = [learner.report.best_nll for learner in learners]
        report.restart_active_components = [learner.report.n_active_components for learner in learners]
        report.move(*(self._frame.units.log_scale(task.rows.take(part)) for part in (best.learn, best.judge)))
        # In float64 from here on: a row alone gets what it gets in a batch.
        kept = learners if recipe.pool_restarts else [best]
        self.networks_: list[MDN] = [learner.network.double() for learner in kept]  # pyright: ignore
        self.background_share_ = 0.0
        if self.background_ is not None:
            self.background_share_ = fit_share(*task.doubt(self.background_, kept))
            task.told.append(f"{self.background_share_:.2%} of each density is that of the target without features")
        report.events[:0] = task.told
        self.fit_report_ = report
        return self

    def _decide(self, X: Any, y: Any, sample_weight: ArrayLike | None, eval_set: tuple[Any, Any] | None) -> Task:
        """The task, with the family and the form of the features that were found best."""
        sample = self._sample(X, y, sample_weight, reset=True)
        eval_sample = self._eval_sample(eval_set)

        def framed(sample: Sample, family: Family, ranks: bool) -> Frame:
            return Frame.fit(sample, self._event_size, family, self.covariance_type, self.atoms, ranks)

        seed = int(as_random(self.random_state).randint(2**31 - 1))
        k = 5 if isinstance(self.n_components, str) else int(self.n_components)
        family, ranks, told = decide(
            sample,
            self.family,
            self._recipe(len(sample)),
            k,
            seed,
            lambda some, family, ranks: self._task(some, framed(some, family, ranks), random_state=seed),
        )
        frame = framed(sample, family, ranks)
        self.encoder_, self.y_scaler_ = frame.encoder, frame.scaler
        self.family_, self.atoms_ = frame.family, frame.atoms
        task = self._task(sample, frame, eval_sample)
        task.told[:0] = told
        warning = frame.repeats(sample) if self.atoms is None else None
        if warning is not None:
            warn(warning)
        return task

    def _task(
        self,
        sample: Sample,
        frame: Frame,
        eval_sample: Sample | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> Task:
        random = as_random(self.random_state if random_state is None else random_state)
        return Task.of(sample, frame, self.scale_floor, self.validation_fraction, random, eval_sample)

    def _choose(self, task: Task, about: dict[str, Any]) -> None:
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

    def _select(self, task: Task, candidates: Sequence[int], criterion: Criterion) -> Selection:
        if max(candidates) + len(self.atoms_) >= self._most_weights:
            got = f"weight_floor={self.weight_floor} with {max(candidates)} components"
            raise MixturaError("E-head-parameter", got, "room above the floor", "lower weight_floor, or the candidates")

        recipe = self._recipe(task.n_different(task.learn), "plain")

        def make(fit: Tensor, stop: Tensor, k: int) -> Learner:
            return task.learner(recipe, k, task.seed, fit, stop)

        chosen = select(
            task.rows,
            task.learn,
            task.judge,
            task.group,
            candidates,
            criterion,
            make,
            lambda learners: task.train(learners, recipe, catches_interrupt=False),
            np.random.RandomState(task.seed),
        )
        judged = {"cv": slice(None), "bic": task.learn}.get(criterion, task.judge)
        for column in ("nll", "bic"):
            if column in chosen.table:
                chosen.table[column] += task.frame.units.log_scale(task.rows.take(judged))
        return chosen

    def _fingerprint(self, task: Task, learners: Sequence[Learner]) -> str:
        """Of all that decides how training goes, but for where it ends."""
        settings = sorted(
            (name, repr(plain(value))) for name, value in self.get_params().items() if name not in _NO_MATTER
        )
        rows = task.rows
        tensors = [rows.x, rows.y, rows.weight, *([] if rows.upper is None else [rows.upper]), learners[0].learn]
        return fingerprint([*tensors, *(p for learner in learners for p in learner.network.parameters())], settings)

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

    def _sample(self, X: Any, y: Any, sample_weight: ArrayLike | None, reset: bool) -> Sample:
        """Rows of positive weight, checked, as are the parameters."""
        self._check_parameters()
        X = self._check_features(X, reset=reset)
        target = as_target(y) if reset else self._target(y)
        if reset:
            self.target_names_, self._y_shape = target.names, target.row_shape
        with coded("E-input-length", "as many rows in X, y and sample_weight"):
            check_consistent_length(X, target)
        with coded("E-sample-weight", "one weight >= 0 for each row"):
            weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        weight = weight / weight.max()
        counted = np.flatnonzero(weight > 1e-30)  # what float32 can still weigh
        if len(counted) < 2:
            got = f"n_samples = {len(target)}, {len(counted)} of positive weight"
            raise MixturaError("E-too-few-rows", got, "at least 2 rows", "gather more data")
        return Sample(X, target, weight).take(counted)

    def _eval_sample(self, eval_set: tuple[Any, Any] | None) -> Sample | None:
        if eval_set is None:
            return None
        if not isinstance(eval_set, tuple | list) or len(eval_set) != 2:
            got = f"eval_set of type {type(eval_set).__name__}"
            raise MixturaError("E-eval-set", got, "a pair (X, y)", "give eval_set=(X_valid, y_valid)")
        X = self._check_features(eval_set[0], reset=False)
        target = self._target(eval_set[1])
        with coded("E-input-length", "as many rows in the X and y of eval_set"):
            check_consistent_length(X, target)
        return Sample(X, target, np.ones(len(target)))

    @property
    def _frame(self) -> Frame:
        return Frame(self.encoder_, self.y_scaler_, self.family_, self.atoms_, self._event_size)

    # Answers --------------------------------------------------------------------------------------------------

    def predict_dist(self, X: Any) -> Mixture:
        """The predicted density of each row, in the user's units: a float64 `Mixture` with batch_shape (n,)."""
        return self._predict(self._encoded(X))

    @torch.no_grad()
    def uncertainty(self, X: Any) -> Decomposition:
        """What the members of the pool agree on, the noise in y, and what they do not, doubt about the model.

        total = aleatoric + epistemic: the variance of `predict_dist(X)` is the mean of the members' variances plus the
        variance of their means. Members are all whose mixtures the model pools: each network and, in each, each member
        that shares its layers. The background has its share in every one.

        Returns
        -------
        Decomposition
            `.total`, `.aleatoric` and `.epistemic`, float64 tensors of shape (n,) or (n, D) in squared units of y;
            `.mutual_information.value`, shape (n,), in nats, the same of entropies, which is computed when it is asked
            for: with the default preset some 10 ms a row, of vectors some 200.

        Raises
        ------
        MixturaError
            ``E-single-member`` for a model that pools nothing, such as one of ``preset="plain"``;
            ``E-covariance-angle`` for angles.

        References
        ----------
        Depeweg et al. (2018), Decomposition of uncertainty in Bayesian deep learning.

        Examples
        --------
        >>> import numpy as np
        >>> X = np.linspace(0, 1, 100)[:, None]
        >>> model = MDNRegressor(1, preset="fast", hidden_layer_sizes=(8,), max_epochs=5, random_state=0)
        >>> parts = model.fit(X, X[:, 0]).uncertainty([[0.5], [2.0]])
        >>> parts.epistemic[0].item() < parts.epistemic[1].item()
        True
        """
        x = self._encoded(X)
        by_network = [_in_blocks(network.of_members, x) for network in self.networks_]
        members = [mixture[:, i] for mixture in by_network for i in range(mixture.batch_shape[1])]
        if len(members) < 2:
            fix = 'fit with preset="fast" or "balanced", or with n_restarts=5 and pool_restarts=True'
            raise MixturaError("E-single-member", "a model that is one network", "a pool, whose members differ", fix)
        return decompose([self._answer(x, [member]) for member in members])

    def _encoded(self, X: Any, warns: bool = True) -> Tensor:
        check_fitted(self)
        return torch.as_tensor(self.encoder_.transform(self._check_features(X, reset=False), warns))

    @torch.no_grad()
    def _predict(self, x: Tensor) -> Mixture:
        return self._answer(x, [_in_blocks(network, x) for network in self.networks_])

    def _answer(self, x: Tensor, predicted: list[Mixture]) -> Mixture:
        """The pool of what networks, or their members, predict for the standardised target, and of the background."""
        share = self.background_share_
        weights = [(1 - share) / len(predicted)] * len(predicted)
        if self.background_ is not None:
            predicted, weights = [*predicted, _in_blocks(self.background_, x)], [*weights, share]
        loc, scale = (torch.as_tensor(part) for part in (self.y_scaler_.mean_, self.y_scaler_.scale_))
        if self._event_size is None:
            loc, scale = loc[0], scale[0]
        pooled = Mixture.pool([mixture.affine(loc, scale) for mixture in predicted], weights)
        atoms = torch.as_tensor(np.tile(self.atoms_, len(predicted))) if len(self.atoms_) else None
        return Mixture(pooled.logits, self.family_.settle(pooled.components), atoms, validate_args=True)

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """R^2 of `predict`, as of every scikit-learn regressor; `mixtura.metrics` judges the whole density.

        Raises
        ------
        MixturaError
            ``E-target-type`` for censored targets, of which only `score_samples` knows a score.
        """
        check_fitted(self)
        if self._target(y).upper is not None:
            fix = "take the mean of score_samples(X, y)"
            raise MixturaError("E-target-type", "R^2 of intervals", "known targets", fix)
        return float(super().score(X, y, sample_weight))

    def diagnose(self, X: Any = None, y: Any = None) -> Diagnosis:
        """How the model fares, in sentences, each with what to change; docs/doctor.md says how each is measured.

        Parameters
        ----------
        X, y
            Rows with a known target, better those that `fit` did not see; without them only what the report of
            training knows. Of more than 5,000 rows, so many at random are looked at.

        Returns
        -------
        Diagnosis
            Print it; `.findings`, `.table` and `.regions` hold the same, `.warnings` what asks for a change.

        Raises
        ------
        MixturaError
            As `score_samples` does; ``E-too-few-rows`` for a single row.

        Examples
        --------
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> X, y = rng.uniform(size=(300, 1)), rng.poisson(2, size=300)  # whole numbers, a floor between
        >>> model = MDNRegressor(5, preset="plain", scale_floor=1e-3, max_epochs=60, random_state=0).fit(X, y)
        >>> model.diagnose(X, y)["D-scale-floor"].severity
        'warning'
        """
        check_fitted(self)
        return diagnose(self, None if X is None and y is None else self._sample(X, y, None, reset=False))

    # Calibration ----------------------------------------------------------------------------------------------

    def calibrate(
        self, X: Any, y: Any, method: Method = "temperature", groups: ArrayLike | None = None
    ) -> Calibrated | Conformal:
        """A model made of this one and rows that it has not seen: with better densities, or with sets that keep a
        promise. It answers all that this one does; this one stays as it is.

        Parameters
        ----------
        X, y
            Rows that were not in `fit`.
        method
            Of densities: ``"temperature"``, one number for the scale of the components and one for the sharpness of
            their weights: a mixture stays one; ``"pit"``, the levels of the cdf corrected, the same way for all rows;
            ``"local"``, in a way that depends on x. Of sets: ``"hpd_split"``, those of highest density; ``"cqr"``,
            central intervals; ``"cd_split"``, sets of highest density with thresholds of their own for rows whose
            densities are alike. See docs/calibration.md.
        groups
            For sets: a value for each row (a number or a text); the coverage is then promised in each group.

        Returns
        -------
        Calibrated or Conformal
            The latter with `predict_set(X, coverage, groups)`.

        Raises
        ------
        MixturaError
            ``E-parameter`` for an unknown method, ``E-scalar-only`` where a method has no meaning for a vector,
            ``E-target-type`` for intervals as a target (but with ``"temperature"``), ``E-calibration-groups``.

        References
        ----------
        Guo et al. (2017); Dey et al. (2022); Izbicki, Shimizu and Stern (2022); Romano, Patterson and Candès (2019).

        Examples
        --------
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> X = rng.uniform(size=(600, 1))
        >>> y = X[:, 0] + 0.1 * rng.normal(size=600)
        >>> model = MDNRegressor(n_components=1, preset="plain", max_epochs=30, random_state=0).fit(X[:300], y[:300])
        >>> model.calibrate(X[300:], y[300:], method="hpd_split").predict_set([[0.5]], coverage=0.9).count
        tensor([1])
        """
        check_fitted(self)
        check_method(method)
        if method in get_args(Correction):
            if groups is not None:
                fix = 'take "hpd_split", "cqr" or "cd_split", or calibrate group by group'
                raise MixturaError("E-calibration-groups", f"groups with method={method!r}", "no groups", fix)
            scores = MDNRegressor(3, preset="plain", family="normal", scale_floor=0.25, random_state=0)
            return correct(self, X, y, method, scores)  # pyright: ignore[reportArgumentType]
        return conform(self, X, y, method, groups)  # pyright: ignore[reportArgumentType]

    # On disk --------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model to a folder of JSON and safetensors; `mixtura.load` reads it back bit for bit.

        Raises
        ------
        MixturaError
            ``E-save-target`` where something else is in the way, ``E-save-write`` where it can't be written.
        """
        check_fitted(self)
        write_folder(path, *state_of(self))


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


def _in_blocks(network: Callable[[Tensor], Mixture], x: Tensor) -> Mixture:
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
