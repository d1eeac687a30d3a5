"""A fitted model and what rows that it has not seen say of it: better densities, or sets with a promised coverage."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_consistent_length
from torch import Tensor

from .answers import Answers
from .background import fit_share
from .calibration import Recalibrated, Temperature, fit_score_law, fit_temperature, normal_scores
from .checkpoint import under
from .conformal import (
    Partition,
    check_scalar,
    conformal_quantile,
    density_level_scores,
    density_level_set,
    density_scores,
    density_set,
    interval_scores,
    interval_set,
    profiles_of,
    split_for_partition,
)
from .constraints import is_real
from .errors import MixturaError, coded
from .mixture import Mixture
from .modelfile import mixture_state, plain, restore_mixture, state_of
from .regions import JointRegion, Region
from .storage import write_folder

Correction = Literal["temperature", "pit", "local"]
Promise = Literal["hpd_split", "cqr", "cd_split"]
Method = Correction | Promise
State = tuple[dict[str, Any], dict[str, Tensor]]

_ROWS_HELD_OUT = 0.25
"""Of those that a network learns the law of normal scores from: they say when to stop, and what it is worth."""
_SEED = 4_409_213


# Densities ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoreLaw:
    """The law of the normal scores of a model: one for all rows, and a share of one that depends on the row."""

    overall: Mixture
    regressor: Any = None
    """A fitted `MDNRegressor` of normal scores, or None."""
    share: float = 0.0

    @classmethod
    def fit(cls, mixture: Mixture, y: Tensor) -> ScoreLaw:
        """One law for all rows."""
        return cls(fit_score_law(normal_scores(mixture, y)))

    @classmethod
    def fit_local(cls, X: Any, mixture: Mixture, y: Tensor, regressor: Any) -> ScoreLaw:
        """A law given the features and the forecast's own mean and scale, with the share that held-out rows allow."""
        z, features = normal_scores(mixture, y), _features(X, mixture)
        order = torch.randperm(len(z), generator=torch.Generator().manual_seed(_SEED)).numpy()
        judge, learn = np.split(order, [int(_ROWS_HELD_OUT * len(z))])
        if not len(judge) or len(learn) < 2:
            return cls(fit_score_law(z))
        taken = (_rows(features, learn), z[learn].numpy())
        held_out = _rows(features, judge)
        regressor.fit(*taken, eval_set=(held_out, z[judge].numpy()))
        overall = fit_score_law(z[learn])
        log_probs = regressor.predict_dist(held_out).log_prob(z[judge]), overall.log_prob(z[judge])
        share = fit_share(log_probs[1], log_probs[0], torch.ones(len(judge), dtype=z.dtype))
        return cls(fit_score_law(z), regressor, share)

    def of(self, X: Any, mixture: Mixture) -> Mixture:
        """The law for each row."""
        if self.regressor is None:
            return self.overall
        local = self.regressor.predict_dist(_features(X, mixture))
        return Mixture.pool([self.overall, local], [1 - self.share, self.share])


def _features(X: Any, mixture: Mixture) -> Any:
    """X, and the forecast's median and the logarithm of its interquartile range."""
    low, median, high = mixture.icdf(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)[:, None])
    spread = (high - low).clamp(min=torch.finfo(high.dtype).tiny).log()
    if isinstance(X, pd.DataFrame):
        names = [name if isinstance(name, str) else f"x{i}" for i, name in enumerate(X.columns)]
        forecast = {"forecast median": median.numpy(), "forecast log spread": spread.numpy()}
        return X.set_axis(names, axis=1).assign(**forecast)
    return np.column_stack([np.asarray(X, dtype=np.float64), median.numpy(), spread.numpy()])


def _rows(X: Any, index: NDArray[Any]) -> Any:
    return X.iloc[index] if isinstance(X, pd.DataFrame) else X[index]


class Calibrated(Answers):
    """A model whose predicted densities have been corrected on rows that it has not seen; all that it answered before
    it answers from these.

    Made by `calibrate`. Its `predict_dist` gives a `Mixture` after ``"temperature"``, a `Recalibrated` after ``"pit"``
    and ``"local"``.

    Attributes
    ----------
    model
        What was calibrated.
    correction
        A `Temperature` or a `ScoreLaw`.
    """

    def __init__(self, model: Answers, correction: Temperature | ScoreLaw):
        self.model, self.correction = model, correction
        self.target_names_, self._y_shape = model.target_names_, model._y_shape

    @property
    def summary(self) -> str:
        """What was done, in words."""
        if isinstance(self.correction, Temperature):
            scale, sharpness = self.correction.scale, self.correction.sharpness
            return f"components {scale:.3g} times as wide, weights to the power {sharpness:.3g}"
        n, share = self.correction.overall.n_components, self.correction.share
        return f"levels corrected by {n} component(s) of their normal scores" + (
            f", {share:.0%} by the features" if self.correction.regressor is not None else ""
        )

    def predict_dist(self, X: Any) -> Any:
        """The corrected density of each row, in the user's units, with batch_shape (n,)."""
        mixture = self.model.predict_dist(X)
        if isinstance(self.correction, Temperature):
            return self.correction.apply(mixture)
        return Recalibrated(mixture, self.correction.of(X, mixture))

    def score_samples(self, X: Any, y: Any = None) -> NDArray[np.float64]:
        """As of every model; after ``"pit"`` and ``"local"`` of known targets alone.

        Raises
        ------
        MixturaError
            ``E-target-type`` for intervals where the densities are not mixtures.
        """
        if y is not None and not isinstance(self.correction, Temperature):
            _known(self._target(y), "the log density of intervals")
        return super().score_samples(X, y)

    def calibrate(self, X: Any, y: Any, method: Promise = "hpd_split", groups: ArrayLike | None = None) -> Conformal:
        """Sets with a promised coverage from the corrected densities, on rows other than those that corrected them."""
        return conform(self, X, y, method, groups)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write model and calibration to a folder, which `mixtura.load` reads."""
        write_folder(path, *self._state())

    def _state(self) -> State:
        manifest, tensors = _state_of(self.model)
        kind: dict[str, Any]
        own: dict[str, Tensor] = {}
        if isinstance(self.correction, Temperature):
            kind = {"kind": "temperature", **asdict(self.correction)}
        else:
            family, parts = mixture_state(self.correction.overall)
            kind = {"kind": "scores", "family": family, "share": self.correction.share, "regressor": None}
            own = {f"overall.{name}": tensor for name, tensor in parts.items()}
            if self.correction.regressor is not None:
                kind["regressor"], parts = state_of(self.correction.regressor)
                own |= {f"regressor.{name}": tensor for name, tensor in parts.items()}
        return _nested(manifest, tensors, kind, own)


# Sets -----------------------------------------------------------------------------------------------------------


class Conformal(Answers):
    """A model that also predicts sets with a promised coverage, whatever it is worth, for rows exchangeable with those
    that it was calibrated on; its densities are what they were.

    Made by `calibrate`.

    Attributes
    ----------
    model
        What was calibrated.
    method
        ``"hpd_split"``, ``"cqr"`` or ``"cd_split"``.
    n_rows
        How many rows decide the thresholds.
    """

    def __init__(
        self,
        model: Answers,
        method: Promise,
        scores: Tensor | tuple[Mixture, Tensor],
        labels: Tensor,
        groups: list[Any] | None,
        partition: Partition | None,
    ):
        self.model, self.method = model, method
        self.target_names_, self._y_shape = model.target_names_, model._y_shape
        self._scores, self._labels = scores, labels
        self._groups, self._partition = groups, partition

    @property
    def n_rows(self) -> int:
        """How many rows decide the thresholds."""
        return len(self._labels)

    @property
    def summary(self) -> str:
        """What was done, in words."""
        groups = f" in {len(self._groups)} groups" if self._groups is not None else ""
        cells = f", {len(self._partition.centres)} cells" if self._partition is not None else ""
        return f"sets by {self.method} from {self.n_rows} rows{groups}{cells}"

    def predict_dist(self, X: Any) -> Mixture:
        """The predicted density of each row, as the model has it."""
        return self.model.predict_dist(X)

    def predict_set(self, X: Any, coverage: float = 0.9, groups: ArrayLike | None = None) -> Region | JointRegion:
        """A set for each row that holds y with at least the probability `coverage`, on average over rows.

        With groups, and in the cells of ``"cd_split"``, on average over the rows of each. Where rows are too few for
        the promise (9 for 90%, 99 for 99%), the set is everything: from -inf to inf, with infinite size.

        Parameters
        ----------
        X
            As for `predict_dist`.
        coverage
            In (0, 1).
        groups
            A value for each row, if there were groups in `calibrate`.

        Returns
        -------
        Region or JointRegion
            `.contains(y)` with torch tensors, `.size`; of a scalar target `.lower`, `.upper`, `.count`.

        Raises
        ------
        MixturaError
            ``E-coverage-range``, ``E-calibration-groups`` for groups that are missing, too many or new.
        """
        if not is_real(0, 1)(coverage) or coverage == 0:
            raise MixturaError("E-coverage-range", f"coverage={coverage!r}", "0 < coverage < 1", "0.9 means 90%")
        mixture = self.model.predict_dist(X)
        labels = _labels_of(mixture, groups, self._groups, self._partition, seed=_SEED)
        scores = self._scores if isinstance(self._scores, Tensor) else interval_scores(*self._scores, coverage)
        threshold = torch.empty(len(labels), dtype=mixture.dtype)
        for label in labels.unique():
            threshold[labels == label] = conformal_quantile(scores[self._labels == label], coverage)
        if self.method == "cqr":
            return interval_set(mixture, threshold, coverage)
        return (density_level_set if self.method == "hpd_split" else density_set)(mixture, threshold)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write model and calibration to a folder, which `mixtura.load` reads."""
        write_folder(path, *self._state())

    def _state(self) -> State:
        kind: dict[str, Any] = {"kind": "sets", "method": self.method, "groups": self._groups, "family": None}
        own = {"labels": self._labels}
        if isinstance(self._scores, Tensor):
            own["scores"] = self._scores
        else:
            kind["family"], parts = mixture_state(self._scores[0])
            own |= {"y": self._scores[1], **{f"mixture.{name}": tensor for name, tensor in parts.items()}}
        if self._partition is not None:
            own["centres"] = self._partition.centres
        return _nested(*_state_of(self.model), kind, own)


def _labels_of(
    mixture: Mixture, groups: ArrayLike | None, known: list[Any] | None, partition: Partition | None, seed: int
) -> Tensor:
    """A number for each row: rows of one number share a threshold."""
    n = len(mixture)
    cells = torch.zeros(n, dtype=torch.long) if partition is None else partition.cells(profiles_of(mixture, seed))
    if known is None:
        if groups is not None:
            fix = "leave them out, or calibrate with groups"
            raise MixturaError("E-calibration-groups", "groups", "none, as in calibrate", fix)
        return cells
    values = _as_groups(groups, n)
    place = {value: i for i, value in enumerate(known)}
    unseen = [value for value in values if value not in place]
    if unseen:
        got, expected = f"the group {unseen[0]!r}", f"one of {', '.join(map(repr, known[:20]))}"
        raise MixturaError("E-calibration-groups", got, expected, "calibrate with rows of this group")
    return cells * len(known) + torch.tensor([place[value] for value in values], dtype=torch.long)


def _as_groups(groups: Any, n: int) -> list[Any]:
    values = [] if groups is None else [plain(value) for value in np.atleast_1d(np.asarray(groups, dtype=object))]
    if groups is None or len(values) != n or not all(isinstance(value, str | int | float) for value in values):
        got = "no groups" if groups is None else f"{len(values)} groups of {n} rows, or others than numbers and texts"
        raise MixturaError("E-calibration-groups", got, "a number or a text for each row", "give groups=...")
    if any(value != value for value in values):
        raise MixturaError("E-calibration-groups", "a group that is NaN", "a number or a text", "name it")
    return values


# From a model and rows ------------------------------------------------------------------------------------------


def correct(model: Answers, X: Any, y: Any, method: Correction, regressor: Any) -> Calibrated:
    """The model with its densities corrected; see `MDNRegressor.calibrate`.

    Parameters
    ----------
    regressor
        An `MDNRegressor` to be fitted, for ``"local"``.
    """
    target = _target_of(model, X, y)
    mixture = model.predict_dist(X)
    values = torch.tensor(target.values)
    if method == "temperature":
        upper = None if target.upper is None else torch.tensor(target.upper)
        return Calibrated(model, fit_temperature(mixture, values, upper))
    _known(target, f"method={method!r} with intervals as the target")
    if method == "pit":
        return Calibrated(model, ScoreLaw.fit(mixture, values))
    return Calibrated(model, ScoreLaw.fit_local(X, mixture, values, regressor))


def conform(model: Answers, X: Any, y: Any, method: Promise, groups: Any) -> Conformal:
    """The model with sets of a promised coverage; see `MDNRegressor.calibrate`."""
    check_method(method, Promise)
    target = _target_of(model, X, y)
    _known(target, f"method={method!r} with intervals as the target")
    mixture, values = model.predict_dist(X), torch.tensor(target.values)
    if not isinstance(mixture, Mixture):
        fix = 'calibrate the model itself, or after method="temperature"'
        raise MixturaError("E-parameter", "a model corrected by its PIT", "one that predicts mixtures", fix)
    partition, rows = None, torch.arange(len(mixture))
    if method == "cd_split":
        first, rows = split_for_partition(len(mixture))
        partition = Partition.fit(profiles_of(mixture[first], _SEED)) if len(first) else None
    given = None if groups is None else _as_groups(groups, len(mixture))
    known = None if given is None else list(dict.fromkeys(given))
    given = None if given is None else [given[i] for i in rows.tolist()]
    mixture, values = mixture[rows], values[rows]
    scores: Tensor | tuple[Mixture, Tensor]
    if method == "cqr":
        check_scalar(mixture)
        scores = mixture, values
    else:
        scores = (density_level_scores if method == "hpd_split" else density_scores)(mixture, values)
    labels = _labels_of(mixture, given, known, partition, seed=_SEED + 1)
    return Conformal(model, method, scores, labels, known, partition)


def network_of(model: Any) -> Any:
    """The model that was fitted, of what calibration made of it."""
    while isinstance(model, Calibrated | Conformal):
        model = model.model
    return model


def check_method(method: Any, kind: Any = None) -> None:
    """Raise ``E-parameter`` unless it is one."""
    known = get_args(Correction) + get_args(Promise) if kind is None else get_args(kind)
    if method not in known:
        raise MixturaError("E-parameter", f"method={method!r}", f"one of {', '.join(map(repr, known))}", "choose one")


def _target_of(model: Answers, X: Any, y: Any) -> Any:
    target = model._target(y)
    with coded("E-input-length", "as many rows in X and y"):
        check_consistent_length(X, target)
    return target


def _known(target: Any, got: str) -> None:
    if target.upper is not None:
        raise MixturaError("E-target-type", got, "known targets", 'leave censored rows out, or take "temperature"')


# On disk --------------------------------------------------------------------------------------------------------


def _state_of(model: Any) -> State:
    return model._state() if isinstance(model, Calibrated | Conformal) else state_of(model)


def _nested(
    manifest: dict[str, Any], tensors: dict[str, Tensor], kind: dict[str, Any], own: dict[str, Tensor]
) -> State:
    """The state of a model within that of its calibration."""
    inner = {f"model.{name}": tensor for name, tensor in tensors.items()}
    return {"calibration": kind, "model": manifest}, inner | {
        f"calibration.{k}": v.contiguous() for k, v in own.items()
    }


def restore_calibrated(
    manifest: dict[str, Any], tensors: dict[str, Tensor], restore: Callable[[dict[str, Any], dict[str, Tensor]], Any]
) -> Calibrated | Conformal:
    """What `save` described. Raises whatever an ill-formed description leads to.

    Parameters
    ----------
    restore
        Makes a model of its manifest and tensors.
    """
    model = restore(manifest["model"], under("model.", tensors))
    kind, own = manifest["calibration"], under("calibration.", tensors)
    if kind["kind"] == "temperature":
        scale, sharpness = kind["scale"], kind["sharpness"]
        if not (is_real(0, np.inf)(scale) and scale > 0 and is_real(0, np.inf)(sharpness) and sharpness > 0):
            raise ValueError("the temperature is not positive")
        return Calibrated(model, Temperature(float(scale), float(sharpness)))
    if kind["kind"] == "scores":
        regressor = kind["regressor"]
        if regressor is not None:
            regressor = restore(regressor, under("regressor.", own))
        overall = restore_mixture(kind["family"], under("overall.", own))
        return Calibrated(model, ScoreLaw(overall, regressor, float(kind["share"])))
    if kind["kind"] != "sets" or kind["method"] not in get_args(Promise):
        raise ValueError("the calibration is of no known kind")
    scores = own.get("scores")
    if scores is None:
        scores = restore_mixture(kind["family"], under("mixture.", own)), own["y"]
    partition = Partition(own["centres"]) if "centres" in own else None
    return Conformal(model, kind["method"], scores, own["labels"], kind["groups"], partition)
