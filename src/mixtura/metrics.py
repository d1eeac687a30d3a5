"""Scorers for scikit-learn's model selection."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.pipeline import Pipeline


def neg_nll_scorer(estimator: Any, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
    """Mean log density of y, in nats: higher is better. For `GridSearchCV(..., scoring=neg_nll_scorer)`.

    Parameters
    ----------
    estimator : a fitted `MDNRegressor`, or a pipeline that ends in one.
    X, y : rows to score.
    sample_weight : shape (n,).

    Examples
    --------
    >>> import numpy as np
    >>> from mixtura import MDNRegressor
    >>> X = np.linspace(0, 1, 200)[:, None]
    >>> y = X[:, 0] + 0.1 * np.random.default_rng(0).normal(size=200)
    >>> neg_nll_scorer(MDNRegressor(n_components=1, random_state=0).fit(X, y), X, y) > 0.7
    True
    """
    if isinstance(estimator, Pipeline):
        X, estimator = estimator[:-1].transform(X), estimator[-1]
    return float(
        np.average(estimator.score_samples(X, y), weights=None if sample_weight is None else np.asarray(sample_weight))
    )
