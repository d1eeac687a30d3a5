"""Joint densities of many dependent targets, one after the other: p(y1 | x) p(y2 | x, y1) ..."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import _num_samples  # pyright: ignore[reportPrivateUsage]
from torch import Tensor

from .answers import check_fitted, generator_of
from .checkpoint import under
from .constraints import is_int
from .errors import MixturaError, coded
from .estimator import MDNRegressor
from .modelfile import state_of
from .storage import write_folder
from .targets import as_target
from .task import Family


class MDNChain(BaseEstimator):
    """The joint density of a vector as a chain of scalar ones: log p(y | x) = sum of log p(y_d | x, y_1 ... y_(d-1)).

    Each link is an `MDNRegressor` that has the targets before it among its features. Where targets depend on each other
    in curved ways, such as the joints of an arm, or parameters of a simulator, it is far closer to the truth than one
    mixture of vectors, whose components are ellipsoids; the price is that there is no `Mixture` to ask: a chain gives
    densities and draws. Margins, means, and what else is needed come from draws.

    Parameters
    ----------
    link
        Settings of every link; None is ``MDNRegressor()``.
    families
        The family of each target, in the order of y's columns; None takes that of `link` for all.
    order
        Indices of y's columns, in the order of the chain; None is as they come. Targets that x says much about, and on
        which others depend, are best first.

    Attributes
    ----------
    links_
        The fitted models, in the order of the chain.
    order_
        Indices of y's columns.

    References
    ----------
    Larochelle and Murray (2011), The neural autoregressive distribution estimator; Uria, Murray and Larochelle (2013),
    RNADE, with mixtures as conditionals.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, angle = rng.uniform(1, 2, (500, 1)), rng.uniform(0, 2 * np.pi, 500)
    >>> y = X * np.stack([np.cos(angle), np.sin(angle)], 1)  # a circle, whose radius is x
    >>> chain = MDNChain(MDNRegressor(preset="plain", max_epochs=60, random_state=0)).fit(X, y)
    >>> radius = np.linalg.norm(chain.sample([[1.5]], 200, random_state=0)[0], axis=1)
    >>> bool(abs(np.median(radius) - 1.5) < 0.1)
    True
    """

    def __init__(
        self,
        link: MDNRegressor | None = None,
        families: Sequence[Family] | None = None,
        order: Sequence[int] | None = None,
    ):
        self.link = link
        self.families = families
        self.order = order

    def fit(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> MDNChain:
        """Learn p(y | x).

        Parameters
        ----------
        X, sample_weight
            As for `MDNRegressor.fit`.
        y
            Shape (n, D), D >= 2.

        Raises
        ------
        MixturaError
            As `MDNRegressor.fit` does; ``E-target-shape`` for a scalar target, ``E-parameter`` for links, families or
            an order that are none.
        """
        target = as_target(y)
        if target.values.ndim != 2:
            fix = "for a scalar target take MDNRegressor"
            raise MixturaError("E-target-shape", f"y of shape {target.values.shape}", "shape (n, D), D >= 2", fix)
        n_targets = target.values.shape[1]
        for name, value in {"order": self.order, "families": self.families}.items():
            if not isinstance(value, Sequence | np.ndarray | None) or isinstance(value, str):
                raise MixturaError("E-parameter", f"{name}={value!r}", "a list, one for each target", "give a list")
        with coded("E-features", "a table of numbers and categories, of as many rows as y"):
            check_consistent_length(X, target.values)
        order = [*range(n_targets)] if self.order is None else list(self.order)
        if not all(map(is_int(0), order)) or sorted(order) != [*range(n_targets)]:
            expected = f"each of 0 to {n_targets - 1} once"
            raise MixturaError("E-parameter", f"order={self.order!r}", expected, "give the columns of y in an order")
        if self.families is not None and len(self.families) != n_targets:
            got, fix = f"{len(self.families)} families", "give one for each column of y"
            raise MixturaError("E-parameter", got, f"{n_targets}, one for each target", fix)
        if not isinstance(self.link, MDNRegressor | None):
            raise MixturaError("E-parameter", f"link={self.link!r}", "an MDNRegressor", "give one with its settings")
        names = target.names or [f"y{d}" for d in range(n_targets)]
        links = []
        for place, d in enumerate(order):
            link: MDNRegressor = clone(MDNRegressor() if self.link is None else self.link)
            if self.families is not None:
                link.set_params(family=self.families[d])
            before = [*order[:place]]
            features = _beside(X, target.values[:, before], [names[i] for i in before])
            links.append(link.fit(features, target.values[:, d], sample_weight))
        self.links_, self.order_, self._names = links, [int(d) for d in order], names
        return self

    def score_samples(self, X: Any, y: Any) -> NDArray[np.float64]:
        """Log density log p(y | x) of each row, shape (n,), in nats per unit of y.

        Raises
        ------
        MixturaError
            As `MDNRegressor.score_samples`; ``E-target-shape`` for y of another shape than in fit.
        """
        check_fitted(self)
        target = as_target(y)
        values = target.values
        if target.names and target.names != self._names:
            got, expected = f"columns {target.names}", f"{self._names}"
            raise MixturaError("E-target-shape", got, expected, "give the columns of the target in the order of fit")
        if values.shape[1:] != (len(self.order_),):
            got, expected = f"y of shape {values.shape}", f"shape (n, {len(self.order_)})"
            raise MixturaError("E-target-shape", got, expected, "give the targets that fit had")
        with coded("E-input-length", "as many rows in X and y"):
            check_consistent_length(X, values)
        total = np.zeros(len(values))
        for place, (link, d) in enumerate(zip(self.links_, self.order_, strict=True)):
            before = self.order_[:place]
            features = _beside(X, values[:, before], [self._names[i] for i in before])
            total += link.score_samples(features, values[:, d])
        return total

    def sample(
        self, X: Any, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> NDArray[np.float64]:
        """Draws from p(y | x), shape (n, n_samples, D)."""
        check_fitted(self)
        generator = generator_of(n_samples, random_state)
        with coded("E-features", "a table of numbers and categories, as in fit"):
            n_rows = _num_samples(X)
        # All draws of the first target come from n densities; then each draw is a row of its own.
        first = self.links_[0].predict_dist(X).sample((n_samples,), generator).T.reshape(-1)
        drawn = np.empty((n_rows * n_samples, len(self.order_)))
        drawn[:, self.order_[0]] = first
        index = np.repeat(np.arange(n_rows), n_samples)
        rows = X.iloc[index] if isinstance(X, pd.DataFrame) else np.asarray(X)[index]
        for place, (link, d) in enumerate(zip(self.links_, self.order_, strict=True)):
            if place:
                before = self.order_[:place]
                features = _beside(rows, drawn[:, before], [self._names[i] for i in before])
                x = link._encoded(features, warns=False)  # that a draw is far from the others is no news to the caller
                drawn[:, d] = link._predict(x).sample((), generator)
        return drawn.reshape(n_rows, n_samples, -1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted chain to a folder of JSON and safetensors; `mixtura.load` reads it back bit for bit.

        Raises
        ------
        MixturaError
            As `MDNRegressor.save` does.
        """
        check_fitted(self)
        states = [state_of(link) for link in self.links_]
        manifest = {"links": [part for part, _ in states], "order": self.order_, "names": self._names}
        tensors = {f"link.{i}.{name}": part for i, (_, own) in enumerate(states) for name, part in own.items()}
        write_folder(path, manifest, tensors)


def restore_chain(
    manifest: dict[str, Any], tensors: dict[str, Tensor], restore: Callable[[dict[str, Any], dict[str, Tensor]], Any]
) -> MDNChain:
    """What `MDNChain.save` described, links made by `restore`. Raises whatever an ill-formed description leads to."""
    order, names = manifest["order"], manifest["names"]
    if sorted(order) != [*range(len(manifest["links"]))] or not order or len(names) != len(order):
        raise ValueError("the links of the chain are in no order")
    chain = MDNChain(order=order)
    chain.order_, chain._names = order, [str(name) for name in names]
    chain.links_ = [restore(part, under(f"link.{i}.", tensors)) for i, part in enumerate(manifest["links"])]
    chain.link = clone(chain.links_[0])
    chain.families = (
        None if chain.link.family == "auto" else [chain.links_[order.index(d)].family for d in range(len(order))]
    )
    return chain


def _beside(X: Any, values: NDArray[np.float64], names: Sequence[str]) -> Any:
    """Features and targets as one table."""
    if not isinstance(X, pd.DataFrame):
        return np.column_stack([np.asarray(X), values])
    if not names:
        return X
    return X.rename(columns=str).assign(**{f"target {name}": values[:, i] for i, name in enumerate(names)})
