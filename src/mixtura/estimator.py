"""The scikit-learn face: tables in, mixtures out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from rich.progress import Progress
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import (
    _check_sample_weight,  # pyright: ignore[reportPrivateUsage]
    check_is_fitted,
    validate_data,
)
from torch import Tensor

from .errors import MixturaError, coded
from .families import AnyFamily, Family, describe, from_description, get_family
from .mixture import Mixture
from .nets import MDN, MLP, MixtureHead
from .scores import censored_nll
from .storage import corrupt, read_folder, write_folder
from .tables import TableEncoder, has_date_dtype
from .targets import Target, as_target, check_support, find_atoms, fit_target_scaler, into_support
from .training import FitReport, Rows, starting_mixture, train

_FEWEST_ROWS_TO_HOLD_OUT = 20
_DEFAULT_SCALE_FLOOR = 1e-3
"""As a fraction of the target's standard deviation."""


class NotFitted(MixturaError, NotFittedError):
    """A question to a model that has not been fitted; scikit-learn's own type and ours."""


def _is_int(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def _is_real(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Real) and not isinstance(value, bool) and low <= float(value) < high


def _is_layers(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(_is_int(1)(size) for size in value)


def _is_one_of(*names: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in names


def _is_seed(value: Any) -> bool:
    return value is None or isinstance(value, np.random.RandomState) or (_is_int(0)(value) and int(value) < 2**32)


def _is_family(value: Any) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return len(value) > 0 and all(isinstance(part, str | Family) for part in value)
    return isinstance(value, str | Family)


def _is_atoms(value: Any) -> bool:
    if value is None or (isinstance(value, str) and value == "auto"):
        return True
    is_numbers = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
    return is_numbers and all(_is_real(-np.inf, np.inf)(x) and np.isfinite(x) for x in value)


_CONSTRAINTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "n_components": (_is_int(1), "an integer >= 1"),
    "family": (_is_family, "the name of a family, a family, or one of these for each coordinate"),
    "covariance_type": (
        _is_one_of("full", "diag", "spherical", "low_rank"),
        "'full', 'diag', 'spherical' or 'low_rank'",
    ),
    "atoms": (_is_atoms, "None, 'auto' or finite numbers"),
    "hidden_layer_sizes": (_is_layers, "a sequence of integers >= 1"),
    "scale_floor": (lambda value: value is None or _is_real(0, np.inf)(value), "None or a finite number >= 0"),
    "weight_floor": (_is_real(0, 1), "a number >= 0 and < 1/n_components"),
    "max_epochs": (_is_int(1), "an integer >= 1"),
    "batch_size": (lambda value: value is None or _is_int(1)(value), "None or an integer >= 1"),
    "learning_rate": (lambda value: _is_real(0, np.inf)(value) and value > 0, "a finite number > 0"),
    "weight_decay": (_is_real(0, np.inf), "a finite number >= 0"),
    "patience": (_is_int(1), "an integer >= 1"),
    "validation_fraction": (_is_real(0, 1), "a number >= 0 and < 1"),
    "random_state": (_is_seed, "None, an integer >= 0 and < 2**32, or a RandomState"),
    "verbose": (lambda value: isinstance(value, bool | np.bool_ | Integral), "True or False"),
}


class MDNRegressor(RegressorMixin, BaseEstimator):
    """A mixture density network behind scikit-learn's interface: it learns p(y | x), not only a mean.

    Features and targets are standardised inside; every answer is in the user's own units. Data frames are taken as
    they are: numbers, booleans, categories and missing values. NumPy in, NumPy out, except for `predict_dist`.

    Parameters
    ----------
    n_components
        Components of the mixture. A few more than the modes you expect; they are not modes.
    family
        Law of a component: ``"normal"``, ``"student_t"``, ``"laplace"``, ``"asymmetric_laplace"``, ``"logistic"``; for
        positive numbers ``"lognormal"`` and ``"gamma"``; between bounds ``"beta"`` and ``"truncated_normal"``; for
        angles ``"von_mises"``; for counts ``"poisson"`` and ``"negative_binomial"``. A family of `mixtura.families` has
        options, such as ``BetaFamily(bounds=(0, 5))``. For a vector target also a sequence, one for each coordinate.
    covariance_type
        ``"full"``, ``"diag"``, ``"spherical"`` or ``"low_rank"``, for a vector target. Families other than the normal
        and the student_t are there as ``"diag"`` alone.
    atoms
        Values of a scalar target with a probability of their own, such as rain of exactly 0; ``"auto"`` takes those
        that repeat beyond what a continuous law allows, and says so in the report.
    hidden_layer_sizes
        Widths of the network's hidden layers.
    scale_floor
        Smallest scale of a component, in units of y; None is 1e-3 of the target's standard deviation.
    weight_floor
        Smallest weight of a component.
    max_epochs
        Most passes over the rows.
    batch_size
        Rows in a step; None is 32 below 5,000 rows and 256 from there on.
    learning_rate
        Rate of AdamW at the start.
    weight_decay
        Weight decay of AdamW, on matrices only.
    patience
        Epochs without a better held-out NLL before training ends.
    validation_fraction
        Share of rows held out to decide when to end (none below 20 rows, or with `eval_set`).
    random_state
        Seed of everything random; the same seed gives the same model to the bit on one machine.
    verbose
        Whether to show a progress bar.

    Attributes
    ----------
    network_
        The `MDN` from encoded features to a Mixture of the standardised target, float64.
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
    >>> model = MDNRegressor(n_components=2, random_state=0).fit(X, y)
    >>> model.predict_quantiles([[0.0]], [0.25, 0.75]).round(1)
    array([[-1.,  1.]])
    """

    def __init__(
        self,
        n_components: int = 5,
        *,
        family: str | AnyFamily | Sequence[str | AnyFamily] = "normal",
        covariance_type: str = "full",
        atoms: Sequence[float] | str | None = None,
        hidden_layer_sizes: Sequence[int] = (64, 64),
        scale_floor: float | None = None,
        weight_floor: float = 1e-4,
        max_epochs: int = 300,
        batch_size: int | None = None,
        learning_rate: float = 5e-3,
        weight_decay: float = 1e-2,
        patience: int = 30,
        validation_fraction: float = 0.125,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ):
        self.n_components = n_components
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

        Raises
        ------
        MixturaError
            With a code that says which input does not fit, and how to mend it (docs/errors.md). A model
            that was fitted before stays as it was.
        """
        before = dict(self.__dict__)
        try:
            with torch.inference_mode(False), torch.enable_grad():
                return self._fit(X, y, sample_weight, eval_set)
        except BaseException:
            self.__dict__ = before
            raise

    def _fit(self, X: Any, y: Any, sample_weight: ArrayLike | None, eval_set: tuple[Any, Any] | None) -> MDNRegressor:
        self._check_parameters()
        X = self._check_features(X, reset=True)
        target = self._check_target(y, reset=True)
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

        random = _fresh(self.random_state)
        seed = int(random.randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        self.family_ = get_family(self.family, self._event_size, self.covariance_type)
        self.atoms_ = self._find_atoms(target, weight)
        check_support(self.family_, target, self.atoms_)
        self.encoder_ = TableEncoder().fit(X, weight)
        self.y_scaler_ = fit_target_scaler(target.points, weight, target.names, self.family_)
        rows = self._rows(self.encoder_.transform(X), target, weight)
        valid_rows = None
        if eval_set is not None:
            valid_rows = self._eval_rows(eval_set)
        elif self.validation_fraction > 0 and n_counted >= _FEWEST_ROWS_TO_HOLD_OUT:
            n_held_out = min(max(1, round(float(self.validation_fraction) * n_counted)), n_counted - 2)
            keep, held_out = train_test_split(np.arange(n_counted), test_size=n_held_out, random_state=random)
            rows, valid_rows = rows.take(torch.as_tensor(keep)), rows.take(torch.as_tensor(held_out))

        network = self._build_network(rows.x.shape[1], generator)
        head = network.head
        head.start_from(
            starting_mixture(rows.points, int(self.n_components), head.family, rows.weight, seed, head.atoms)
        )
        learned, judged = (self._log_scale(some) for some in (rows, valid_rows or rows))
        console = Console(stderr=True)
        hidden = not (self.verbose and (console.is_terminal or console.is_jupyter))
        with Progress(console=console, transient=True, disable=hidden) as bar:
            task = bar.add_task("fitting", total=self.max_epochs)

            def show(report: FitReport) -> None:
                text = f"fitting, held-out NLL {report.valid_nll[-1] + judged:.4f}"
                bar.update(task, completed=report.n_epochs, description=text)

            report = train(
                network,
                rows,
                valid_rows,
                max_epochs=int(self.max_epochs),
                batch_size=int(self.batch_size or (32 if len(rows) < 5_000 else 256)),
                learning_rate=float(self.learning_rate),
                weight_decay=float(self.weight_decay),
                patience=int(self.patience),
                generator=generator,
                on_epoch=None if hidden else show,
            )
        report.train_nll = [loss + learned for loss in report.train_nll]
        report.valid_nll = [loss + judged for loss in report.valid_nll]
        report.start_nll += judged
        if len(self.atoms_):
            shares = [weight[target.values == atom].sum() / weight.sum() for atom in self.atoms_]
            told = ", ".join(f"{atom:g} ({share:.1%})" for atom, share in zip(self.atoms_, shares, strict=True))
            report.events.insert(0, f"atoms, with their shares of the rows: {told}")
        self.network_ = network.double()  # float64 from here on: a row alone gets what it gets in a batch
        self.fit_report_ = report
        return self

    def _check_parameters(self) -> None:
        for name, (is_valid, expected) in _CONSTRAINTS.items():
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

    def _eval_rows(self, eval_set: tuple[Any, Any]) -> Rows:
        if not isinstance(eval_set, tuple | list) or len(eval_set) != 2:
            got = f"eval_set of type {type(eval_set).__name__}"
            raise MixturaError("E-eval-set", got, "a pair (X, y)", "give eval_set=(X_valid, y_valid)")
        X = self.encoder_.transform(self._check_features(eval_set[0], reset=False))
        target = self._check_target(eval_set[1], reset=False)
        with coded("E-input-length", "as many rows in the X and y of eval_set"):
            check_consistent_length(X, target)
        check_support(self.family_, target, self.atoms_)
        return self._rows(X, target, np.ones(len(target)))

    def _rows(self, encoded: NDArray[np.float64], target: Target, weight: NDArray[np.float64]) -> Rows:
        """Rows in the network's units, float32; an atom is to the bit what the network's head has for it."""
        x, weight32 = (torch.as_tensor(part, dtype=torch.float32) for part in (encoded, weight))
        family = self._network_family()
        y = into_support(family, self._standardise(target.values))
        for atom, standardised in zip(self.atoms_, self._network_atoms(), strict=True):
            y = torch.where(torch.as_tensor(target.values == atom), standardised, y)
        if target.upper is None:
            return Rows(x, y, weight32)
        upper = into_support(family, self._standardise(target.upper))
        return Rows(x, y, weight32, torch.where(torch.as_tensor(target.values == target.upper), y, upper))

    def _standardise(self, values: NDArray[np.float64]) -> Tensor:
        """In the network's units, float32."""
        scaled = (values - np.asarray(self.y_scaler_.mean_)) / np.asarray(self.y_scaler_.scale_)
        return torch.as_tensor(scaled, dtype=torch.float32)

    def _network_atoms(self) -> Tensor:
        return self._standardise(self.atoms_) if len(self.atoms_) else torch.empty(0)

    def _network_family(self) -> AnyFamily:
        """The family of the standardised target."""
        loc, scale = np.asarray(self.y_scaler_.mean_), np.asarray(self.y_scaler_.scale_)
        return self.family_.moved((-loc / scale).tolist(), (1 / scale).tolist())

    @property
    def _event_size(self) -> int | None:
        """None for a scalar target, else D."""
        return None if self._y_shape in ((), (1,)) else self._y_shape[0]

    def _build_network(self, n_inputs: int, generator: torch.Generator | None = None, device: str = "cpu") -> MDN:
        scale = torch.as_tensor(self.y_scaler_.scale_, dtype=torch.float32)
        floor = (
            torch.full_like(scale, _DEFAULT_SCALE_FLOOR)
            if self.scale_floor is None
            else float(self.scale_floor) / scale
        )
        with torch.device(device):
            backbone = MLP(n_inputs, [int(size) for size in self.hidden_layer_sizes], generator)
            head = MixtureHead(
                backbone.out_features,
                int(self.n_components),
                self._event_size,
                self._network_family(),
                atoms=self._network_atoms() if len(self.atoms_) else None,
                scale_floor=floor if self._event_size else floor[0],
                weight_floor=float(self.weight_floor),
                generator=generator,
            )
        return MDN(backbone, head).float()

    def _log_scale(self, rows: Rows) -> float:
        """What the mean NLL of rows in standardised units gains in the user's: the Jacobian of the standardisation.

        Rows at an atom, or known by an interval alone, have a probability and no density: they gain nothing.
        """
        is_density = torch.ones(len(rows), dtype=torch.bool)
        if len(self.atoms_):
            is_density &= ~(rows.y[:, None] == self._network_atoms()).any(-1)
        if rows.upper is not None:
            is_density &= rows.y == rows.upper
        share = (rows.weight * is_density).sum().item() / rows.weight.sum().item()
        return share * float(np.log(np.asarray(self.y_scaler_.scale_)).sum())

    # Answers --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def predict_dist(self, X: Any) -> Mixture:
        """The predicted density of each row, in the user's units: a float64 `Mixture` with batch_shape (n,)."""
        self._check_is_fitted()
        encoded = self.encoder_.transform(self._check_features(X, reset=False))
        loc, scale = (torch.as_tensor(part) for part in (self.y_scaler_.mean_, self.y_scaler_.scale_))
        if self._event_size is None:
            loc, scale = loc[0], scale[0]
        predicted = self.network_(torch.as_tensor(encoded)).affine(loc, scale)
        atoms = torch.as_tensor(self.atoms_) if len(self.atoms_) else None
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
        if not _is_real(0, 1)(coverage) or coverage == 0:
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
        if not _is_int(1)(n_samples):
            raise MixturaError("E-parameter", f"n_samples={n_samples!r}", "an integer >= 1", "ask for at least one")
        if not _is_seed(random_state):
            expected = _CONSTRAINTS["random_state"][1]
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
        columns, arrays = self.encoder_.get_state()
        parameters = self.get_params()
        parameters["hidden_layer_sizes"] = [int(size) for size in self.hidden_layer_sizes]
        if isinstance(self.random_state, np.random.RandomState):
            parameters["random_state"] = None  # a generator that has moved on is no setting
        if not isinstance(self.family, str):
            parameters["family"] = describe(self.family_)
        if self.atoms is not None and not isinstance(self.atoms, str):
            parameters["atoms"] = [float(atom) for atom in self.atoms]
        manifest = {
            "parameters": {
                name: value.item() if isinstance(value, np.generic) else value for name, value in parameters.items()
            },
            "columns": columns,
            "has_feature_names": hasattr(self, "feature_names_in_"),
            "target_names": self.target_names_,
            "y_shape": list(self._y_shape),
            "report": asdict(self.fit_report_),
        }
        tensors = {f"encoder.{name}": torch.as_tensor(array) for name, array in arrays.items()}
        tensors["atoms"] = torch.as_tensor(self.atoms_)
        tensors["y_scaler.loc"] = torch.as_tensor(self.y_scaler_.mean_)
        tensors["y_scaler.scale"] = torch.as_tensor(self.y_scaler_.scale_)
        tensors |= {f"network.{name}": tensor for name, tensor in self.network_.state_dict().items()}
        write_folder(path, manifest, tensors)

    @classmethod
    def _from_state(cls, manifest: dict[str, Any], tensors: dict[str, Tensor]) -> MDNRegressor:
        """The fitted model that `save` described. Raises whatever an ill-formed description leads to."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}

        self = cls(**manifest["parameters"])
        self.hidden_layer_sizes = tuple(self.hidden_layer_sizes)
        if isinstance(self.family, dict):
            self.family = from_description(self.family)
        self._check_parameters()
        self.encoder_ = TableEncoder.from_state(
            manifest["columns"], {name: tensor.numpy() for name, tensor in part("encoder.").items()}
        )
        self.n_features_in_ = len(self.encoder_.columns_)
        if manifest["has_feature_names"]:
            self.feature_names_in_ = np.array([column.name for column in self.encoder_.columns_], dtype=object)
        self.target_names_ = manifest["target_names"]
        if self.target_names_ is not None and not all(isinstance(name, str) for name in self.target_names_):
            raise ValueError("target names are no text")
        self._y_shape = tuple(manifest["y_shape"])
        self.family_ = get_family(self.family, self._event_size, self.covariance_type)
        self.atoms_ = tensors["atoms"].numpy()
        scaler = part("y_scaler.")
        if not scaler["loc"].shape == scaler["scale"].shape == (self._event_size or 1,):
            raise ValueError("the target's scaler does not fit its shape")
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise ValueError("a tensor holds NaN or infinity")
        if not all(bool((tensors[name] > 0).all()) for name in ("y_scaler.scale", "encoder.scale") if name in tensors):
            raise ValueError("a scale is not positive")
        if len(part("network.")) != 2 * len(self.hidden_layer_sizes) + 3 + bool(len(self.atoms_)):
            raise ValueError("the network has other layers than were announced")
        if self.atoms_.ndim != 1:
            raise ValueError("the atoms are no list")
        self.y_scaler_ = StandardScaler().fit(np.zeros((1, self._event_size or 1)))
        self.y_scaler_.mean_, self.y_scaler_.scale_ = scaler["loc"].numpy(), scaler["scale"].numpy()
        self.y_scaler_.var_ = self.y_scaler_.scale_**2
        weights = part("network.")
        network = self._build_network(
            self.encoder_.n_encoded, device="meta"
        )  # sizes are compared before any memory is taken
        network.load_state_dict(weights, assign=True)
        self.network_ = network.double().eval()
        self.fit_report_ = FitReport(**manifest["report"])
        if not np.isfinite(self.fit_report_.best_nll):
            raise ValueError("the report has no finite NLL")
        return self


def load(path: str | os.PathLike[str]) -> MDNRegressor:
    """Read a model that `MDNRegressor.save` wrote; it predicts bit for bit as the saved one did. Nothing is run.

    Raises
    ------
    MixturaError
        ``E-load-missing``, ``E-load-version`` or ``E-load-corrupt``.
    """
    manifest, tensors = read_folder(path)
    try:
        return MDNRegressor._from_state(manifest, tensors)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise corrupt(Path(path), error) from error


def _fresh(random_state: int | np.random.RandomState | None) -> np.random.RandomState:
    """A generator of our own: NumPy's global one stays untouched."""
    return random_state if isinstance(random_state, np.random.RandomState) else np.random.RandomState(random_state)
