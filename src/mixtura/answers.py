"""What is asked of a fitted model, in NumPy: all of it follows from the densities that it predicts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted

from .constraints import CONSTRAINTS, is_int, is_real, is_seed
from .errors import MixturaError, coded
from .mixture import Mixture
from .scores import censored_nll
from .targets import Target, as_target


class NotFitted(MixturaError, NotFittedError):
    """A question to a model that has not been fitted; scikit-learn's own type and ours."""


class Answers(ABC):
    """Mean, quantiles, intervals, log densities and draws of whatever predicts densities."""

    target_names_: list[str] | None
    _y_shape: tuple[int, ...]
    """Of one row of the target."""

    @abstractmethod
    def predict_dist(self, X: Any) -> Mixture:
        """The predicted density of each row, in the user's units, with batch_shape (n,)."""

    @property
    def _event_size(self) -> int | None:
        """None for a scalar target, else D."""
        return None if self._y_shape in ((), (1,)) else self._y_shape[0]

    def _target(self, y: Any) -> Target:
        """The target, (n,) or (n, D), shaped and named as in fit; a single column is a scalar target."""
        target = as_target(y)
        if target.row_shape != self._y_shape:
            shapes = [f"({', '.join(map(str, ('n', *shape)))})" for shape in (target.row_shape, self._y_shape)]
            got, expected = f"y of shape {shapes[0]}", f"shape {shapes[1]}"
            raise MixturaError("E-target-shape", got, expected, "give the target that fit had")
        if target.names and self.target_names_ and len(target.names) > 1 and target.names != self.target_names_:
            got, expected = f"columns {target.names}", f"{self.target_names_}"
            raise MixturaError("E-target-shape", got, expected, "give the columns of the target in the order of fit")
        return target

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
        target = self._target(y)
        with coded("E-input-length", "as many rows in X and y"):
            check_consistent_length(X, target)
        values = torch.tensor(target.values)
        if target.upper is not None:
            return -censored_nll(mixture, values, torch.tensor(target.upper), reduction="none").numpy()
        return mixture.log_prob(values).numpy()

    def sample(
        self, X: Any, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> NDArray[np.float64]:
        """Draws from p(y | x), shape (n, n_samples), or (n, n_samples, D) for a vector target."""
        generator = generator_of(n_samples, random_state)
        return self.predict_dist(X).sample((n_samples,), generator).transpose(0, 1).numpy()


def as_random(random_state: int | np.random.RandomState | None) -> np.random.RandomState:
    """A generator of our own: NumPy's global one stays untouched."""
    return random_state if isinstance(random_state, np.random.RandomState) else np.random.RandomState(random_state)


def generator_of(n_samples: int, random_state: int | np.random.RandomState | None) -> torch.Generator:
    """Where draws come from; raise ``E-parameter`` for a number of them, or a seed, that is none."""
    if not is_int(1)(n_samples):
        raise MixturaError("E-parameter", f"n_samples={n_samples!r}", "an integer >= 1", "ask for at least one")
    if not is_seed(random_state):
        expected = CONSTRAINTS["random_state"][1]
        raise MixturaError("E-parameter", f"random_state={random_state!r}", expected, "give a seed")
    return torch.Generator().manual_seed(int(as_random(random_state).randint(2**31 - 1)))


def check_fitted(model: Any) -> None:
    """Raise ``E-not-fitted`` before `fit`."""
    try:
        check_is_fitted(model)
    except NotFittedError as error:
        got = f"This {type(model).__name__} instance is not fitted yet"
        raise NotFitted("E-not-fitted", got, "a fitted model", "call fit first") from error
