"""What forecasters of rain use: climatology, the ensemble itself, EMOS, a quantile forest, gradient boosting."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import optimize, sparse, special
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch.nn.functional import logsigmoid

try:
    import catboost  # pyright: ignore[reportMissingImports]
except ImportError:  # no part of Mixtura: without it the table lacks a row
    catboost = None

Array = NDArray[np.float64]
STEP = 0.05
GRID = np.arange(0, 20 + STEP, STEP)
"""A forecast is an array of P(Y <= y) at these y, sqrt(mm), a row for each day: all that any judge here asks for. What
a law has at or below 0 is its probability of no rain."""
Method = Callable[[pd.DataFrame, Array, pd.DataFrame], Array]
"""From features and sqrt(rain) of past days, and features of others, to the forecast of these."""


def raw_ensemble(X: pd.DataFrame, y: Array, X_new: pd.DataFrame) -> Array:
    """The members as they are."""
    return (X_new.filter(like="member_").to_numpy()[:, None] <= GRID[:, None]).mean(-1)


def of_past_days(weights: Any, y: Array, width: float) -> Array:
    """A forecast of weighted past values, (n_days, len(y)): the dry ones a mass, the others under a kernel. All past
    days share a hundredth of the weight, so that nothing is impossible."""
    far = special.ndtr(y / width)[:, None]
    kernels = 1 - special.ndtr((y[:, None] - GRID) / width) / far  # a normal law cut off at 0
    kernels[y == 0] = 1
    return 0.99 * (weights @ kernels) + 0.01 * kernels.mean(0)


def climatology(X: pd.DataFrame, y: Array, X_new: pd.DataFrame, groups: list[str], width: float) -> Array:
    """What fell in the same month of other years, at the same station."""
    past, new = (pd.MultiIndex.from_frame(table[groups]) for table in (X, X_new))
    levels = past.unique()
    members = sparse.csr_array((np.ones(len(X)), (levels.get_indexer(past), np.arange(len(X)))))
    return of_past_days(members / members.sum(1)[:, None], y, width)[levels.get_indexer(new)]


def designs(X: pd.DataFrame, X_new: pd.DataFrame) -> list[Array]:
    """Numbers standardised, medians for what is missing, with indicators; one column for each level."""
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    levels = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    is_number, is_text = make_column_selector(dtype_include="number"), make_column_selector(dtype_exclude="number")
    encoder = make_column_transformer((numbers, is_number), (levels, is_text)).fit(X)
    return [encoder.transform(X), encoder.transform(X_new)]


def emos(
    X: pd.DataFrame, y: Array, X_new: pd.DataFrame, of_loc: list[str] | None = None, of_scale: list[str] | None = None
) -> Array:
    """A logistic law censored at zero, its loc and log scale linear in columns, by maximum likelihood."""
    columns = [part or list(X.columns.drop("month")) for part in (of_loc, of_scale)]
    of_past, of_new = zip(*(designs(X[part], X_new[part]) for part in columns), strict=True)
    sizes, rain = [part.shape[1] + 1 for part in of_past], torch.tensor(y)

    def law(beta: torch.Tensor, parts: Any) -> list[torch.Tensor]:
        with_one = [torch.tensor(np.insert(part, 0, 1, axis=1)) for part in parts]
        return [part @ some for part, some in zip(with_one, beta.split(sizes), strict=True)]

    def loss(values: Array) -> tuple[float, Array]:
        beta = torch.tensor(values, requires_grad=True)
        loc, log_scale = law(beta, of_past)
        z = (rain - loc) / log_scale.exp()
        likelihood = logsigmoid(z) + torch.where(rain == 0, 0, logsigmoid(-z) - log_scale)
        total = 1e-4 * beta.square().sum() - likelihood.mean()
        total.backward()
        return total.item(), np.asarray(beta.grad)

    best = optimize.minimize(loss, np.zeros(sum(sizes)), jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    loc, log_scale = (part.numpy()[:, None] for part in law(torch.tensor(best), of_new))
    return special.expit((GRID - loc) / np.exp(log_scale))


def forest(X: pd.DataFrame, y: Array, X_new: pd.DataFrame, min_samples_leaf: int, width: float = 0.2) -> Array:
    """A quantile regression forest (Meinshausen 2006): past days weighted by how often they share a leaf."""
    past, new = designs(X, X_new)
    trees = RandomForestRegressor(200, min_samples_leaf=min_samples_leaf, max_features=1 / 3, random_state=0)
    starts = np.cumsum([0, *(tree.tree_.node_count for tree in trees.fit(past, y).estimators_)])

    def leaves(rows: Array) -> Any:
        own = trees.apply(rows) + starts[:-1]
        pointers = np.arange(0, own.size + 1, own.shape[1])
        return sparse.csr_array((np.ones(own.size), own.ravel(), pointers), (len(own), starts[-1]))

    of_past = leaves(past)
    shares = (of_past / np.maximum(of_past.sum(0), 1) / len(starts[1:])).tocsr().T.tocsr()
    return of_past_days(leaves(new) @ shares, y, width)


def boosting(X: pd.DataFrame, y: Array, X_new: pd.DataFrame, is_log: bool) -> Array:
    """CatBoost, twice: whether it rains, and a normal law of log(mm), or of sqrt(mm) above 0, where it does."""
    text = list(X.select_dtypes(exclude="number").columns)
    past, new = (
        table.assign(**{name: table[name].astype(object).fillna("missing") for name in text}) for table in (X, X_new)
    )

    def learn(make: Any, is_in: NDArray[np.bool_], target: Array, loss: str) -> Any:
        early, late = np.split(np.flatnonzero(is_in), [round(0.85 * is_in.sum())])  # the last days say when to stop
        model = make(
            iterations=2000, learning_rate=0.05, depth=5, random_seed=0, thread_count=1, verbose=False,
            allow_writing_files=False, cat_features=text, early_stopping_rounds=50, loss_function=loss,
        )  # fmt: skip
        return model.fit(past.iloc[early], target[early], eval_set=(past.iloc[late], target[late]))

    rains = learn(catboost.CatBoostClassifier, y >= 0, (y > 0) * 1.0, "Logloss")  # pyright: ignore
    amounts = np.log(np.where(y > 0, y, 1)) if is_log else y
    amount = learn(catboost.CatBoostRegressor, y > 0, amounts, "RMSEWithUncertainty")  # pyright: ignore
    p = rains.predict_proba(new)[:, 1:]
    mean, variance = (part[:, None] for part in amount.predict(new).T)
    with np.errstate(divide="ignore"):
        below = special.ndtr(((np.log(GRID) if is_log else GRID) - mean) / np.sqrt(variance))
    return 1 - p + p * (below - below[:, :1]) / (1 - below[:, :1])
