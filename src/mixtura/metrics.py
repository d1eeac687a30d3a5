"""Scorers for scikit-learn's model selection."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import _check_sample_weight  # pyright: ignore[reportPrivateUsage]

from .errors import MixturaError, coded
from .estimator import MDNRegressor


def neg_nll_scorer(estimator: Any, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
    """Mean log density of y, in nats: higher is better. For `GridSearchCV(..., scoring=neg_nll_scorer)`.

    Parameters
    ----------
    estimator
        A fitted `MDNRegressor`, or a pipeline or search (`GridSearchCV`) around one.
    X, y
        Rows to score.
    sample_weight
        Shape (n,).

    Raises
    ------
    MixturaError
        ``E-scorer`` for another estimator.

    Examples
    --------
    >>> import numpy as np
    >>> from mixtura import MDNRegressor
    >>> X = np.linspace(0, 1, 200)[:, None]
    >>> y = X[:, 0] + 0.1 * np.random.default_rng(0).normal(size=200)
    >>> neg_nll_scorer(MDNRegressor(n_components=1, preset="plain", random_state=0).fit(X, y), X, y) > 0.7
    True
    """
    while not isinstance(estimator, MDNRegressor):
        if isinstance(estimator, Pipeline):
            X = estimator[:-1].transform(X) if len(estimator) > 1 else X
            estimator = estimator[-1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            got = f"a {type(estimator).__name__}"
            expected = "an MDNRegressor, a pipeline that ends in one, or a search over them"
            raise MixturaError("E-scorer", got, expected, "score the MDNRegressor itself")
    scores = estimator.score_samples(X, y)
    with coded("E-sample-weight", "one weight >= 0 for each row, not all 0"):
        weight = _check_sample_weight(sample_weight, scores, ensure_non_negative=True)
    return float(np.average(scores, weights=weight))
