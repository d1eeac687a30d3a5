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

try:
    import catboost  # pyright: ignore[reportMissingImports]
except ImportError:  # no part of Mixtura: without it the table lacks a row
    catboost = None

Array = NDArray[np.float64]
STEP = 0.05
GRID = np.arange(0, 20 + STEP, STEP)
"""A forecast is an array of P(Y <= y) at these y, sqrt(mm), a row for each day: all that any judge here asks for. What
a law has at or below 0 is its probability of no rain."""
Method = Callable[[pd.DataFrame, Array], Callable[[pd.DataFrame], Array]]
"""From features and sqrt(rain) to a function from features to a forecast."""


def of_past_days(weights: Any, y: Array, width: float) -> Array:
    """A forecast of weighted past values, (n_days, len(y)): the dry ones a mass, the others under a kernel. All past
    days share a hundredth of the weight, so that nothing is impossible."""
    far = special.ndtr(y / width)[:, None]
    kernels = 1 - special.ndtr((y[:, None] - GRID) / width) / far  # a normal law cut off at 0
    kernels[y == 0] = 1
    return 0.99 * (weights @ kernels) + 0.01 * kernels.mean(0)


def climatology(groups: list[str], width: float) -> Method:
    """What fell in the same month of other years, at the same station."""

    def fit(X: pd.DataFrame, y: Array) -> Callable[[pd.DataFrame], Array]:
        codes = pd.MultiIndex.from_frame(X[groups])
        levels = codes.unique()
        members = sparse.csr_array((np.ones(len(X)), (levels.get_indexer(codes), np.arange(len(X)))))
        forecasts = of_past_days(members / members.sum(1)[:, None], y, width)
        return lambda table: forecasts[levels.get_indexer(pd.MultiIndex.from_frame(table[groups]))]

    return fit


def raw_ensemble(X: pd.DataFrame, y: Array) -> Callable[[pd.DataFrame], Array]:
    """The members as they are."""
    return lambda table: (table.filter(like="member_").to_numpy()[:, None] <= GRID[:, None]).mean(-1)


def encoder() -> Any:
    """Numbers standardised, medians for what is missing, with indicators; one column for each level."""
    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    is_text = make_column_selector(dtype_exclude="number")
    levels = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_column_transformer((numbers, make_column_selector(dtype_include="number")), (levels, is_text))


def emos(of_loc: list[str] | None = None, of_scale: list[str] | None = None) -> Method:
    """A logistic law censored at zero, its loc and log scale linear in columns, by maximum likelihood."""

    def fit(X: pd.DataFrame, y: Array) -> Callable[[pd.DataFrame], Array]:
        names = [part or list(X.columns.drop("month")) for part in (of_loc, of_scale)]
        encoders = [encoder().fit(X[part]) for part in names]
        observed, is_dry = torch.tensor(y), torch.tensor(y == 0)

        def law(table: pd.DataFrame) -> Callable[[Any], list[torch.Tensor]]:
            designs = [one.transform(table[part]) for one, part in zip(encoders, names, strict=True)]
            designs = [torch.tensor(np.column_stack([np.ones(len(table)), one])) for one in designs]
            sizes = [one.shape[1] for one in designs]
            return lambda beta: [one @ part for one, part in zip(designs, beta.split(sizes), strict=True)]

        linear = law(X)
        n_beta = sum(one.transform(X[:1][part]).shape[1] + 1 for one, part in zip(encoders, names, strict=True))

        def loss(values: Array) -> tuple[float, Array]:
            beta = torch.tensor(values, requires_grad=True)
            loc, log_scale = linear(beta)
            z = (observed - loc) / log_scale.exp()
            wet = -z - 2 * torch.nn.functional.softplus(-z) - log_scale
            dry = torch.nn.functional.logsigmoid(-loc / log_scale.exp())
            total = -torch.where(is_dry, dry, wet).mean() + 1e-4 * beta.square().sum()
            total.backward()
            return total.item(), np.asarray(beta.grad)

        beta = torch.tensor(
            optimize.minimize(loss, np.zeros(n_beta), jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
        )

        def predict(table: pd.DataFrame) -> Array:
            loc, log_scale = (part.numpy()[:, None] for part in law(table)(beta))
            return special.expit((GRID - loc) / np.exp(log_scale))

        return predict

    return fit


def forest(min_samples_leaf: int, width: float) -> Method:
    """A quantile regression forest (Meinshausen 2006): past days weighted by how often they share a leaf."""

    def fit(X: pd.DataFrame, y: Array) -> Callable[[pd.DataFrame], Array]:
        encode = encoder().fit(X)
        trees = RandomForestRegressor(200, min_samples_leaf=min_samples_leaf, max_features=1 / 3, random_state=0)
        trees.fit(encode.transform(X), y)

        def leaves(table: pd.DataFrame) -> Any:
            own = trees.apply(encode.transform(table))
            starts = np.cumsum([0, *(tree.tree_.node_count for tree in trees.estimators_)])
            pointers = np.arange(0, own.size + 1, own.shape[1])
            return sparse.csr_array((np.ones(own.size), (own + starts[:-1]).ravel(), pointers), (len(own), starts[-1]))

        past = leaves(X)
        shares = (past / np.maximum(past.sum(0), 1) / len(trees.estimators_)).tocsr().T.tocsr()
        return lambda table: of_past_days(leaves(table) @ shares, y, width)

    return fit


def boosting(is_log: bool) -> Method:
    """CatBoost, twice: whether it rains, and a normal law of log(mm), or of sqrt(mm) above 0, where it does."""

    def fit(X: pd.DataFrame, y: Array) -> Callable[[pd.DataFrame], Array]:
        text = list(X.select_dtypes(exclude="number").columns)
        settings: dict[str, Any] = {"iterations": 2000, "learning_rate": 0.05, "depth": 5, "random_seed": 0}
        settings |= {"thread_count": 1, "verbose": False, "allow_writing_files": False, "cat_features": text}
        settings |= {"early_stopping_rounds": 50}

        def prepare(table: pd.DataFrame) -> pd.DataFrame:
            return table.assign(**{name: table[name].astype(object).fillna("missing") for name in text})

        def learn(make: Any, rows: NDArray[np.intp], target: Array, loss: str) -> Any:
            early, late = np.split(rows, [round(0.85 * len(rows))])  # the last days say when to stop
            model = make(loss_function=loss, **settings)
            x = prepare(X)
            return model.fit(x.iloc[early], target[early], eval_set=(x.iloc[late], target[late]))

        wet = np.flatnonzero(y > 0)
        amounts = np.log(np.where(y > 0, y, 1)) if is_log else y
        rains = learn(catboost.CatBoostClassifier, np.arange(len(y)), (y > 0) * 1.0, "Logloss")  # pyright: ignore
        amount = learn(catboost.CatBoostRegressor, wet, amounts, "RMSEWithUncertainty")  # pyright: ignore

        def predict(table: pd.DataFrame) -> Array:
            p = rains.predict_proba(prepare(table))[:, 1:]
            mean, variance = (part[:, None] for part in amount.predict(prepare(table)).T)
            with np.errstate(divide="ignore"):
                below = special.ndtr(((np.log(GRID) if is_log else GRID) - mean) / np.sqrt(variance))
            return 1 - p + p * (below - below[:, :1]) / (1 - below[:, :1])

        return predict

    return fit
