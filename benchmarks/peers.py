# Peers are imported where they are used: one that is not installed keeps none of the others from running.
# ruff: noqa: PLC0415
# pyright: reportMissingImports=false
"""Other makers of conditional densities, each at the setting that its own authors recommend, for `accuracy.py`.

A method is a function of features, a standardised target and a seed; it gives a function from new features to a
`Forecast` of the standardised target. Every one runs on one thread.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import sparse, stats
from scipy.special import logsumexp
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from torch import Tensor, nn
from torch.distributions import Normal

from mixtura import Mixture, crps

Array = NDArray[np.float64]
INTERVAL = np.array([0.05, 0.95])
MOST_CELLS = 2**23


@dataclass(frozen=True)
class Forecast:
    """A density for each of n rows, as far as it is asked here."""

    log_density: Callable[[Array], Array]
    """Of y, (n,)."""
    crps: Callable[[Array], Array]
    """Of y, (n,)."""
    interval: Callable[[], Array]
    """The central one of 90%, (n, 2); asked when the time to predict has been taken."""
    mean: Array
    """(n,)."""

    @classmethod
    def of_mixture(cls, mixture: Mixture) -> "Forecast":
        """In closed form."""

        def crps_of(y: Array) -> Array:
            return crps(mixture, torch.as_tensor(y), reduction="none").numpy()

        return cls(
            lambda y: mixture.log_prob(torch.as_tensor(y)).numpy(),
            crps_of,
            lambda: mixture.icdf(torch.as_tensor(INTERVAL)[:, None]).numpy().T,
            mixture.mean.numpy(),
        )

    @classmethod
    def of_normals(cls, loc: Any, scale: Any) -> "Forecast":
        """One normal law for each row."""
        loc, scale = (torch.as_tensor(np.asarray(part), dtype=torch.float64)[:, None] for part in (loc, scale))
        return cls.of_mixture(Mixture(torch.zeros_like(loc), Normal(loc, scale)))

    def moved(self, shift: float, factor: float) -> "Forecast":
        """Of shift + factor * y."""
        return Forecast(
            lambda y: self.log_density((y - shift) / factor) - np.log(factor),
            lambda y: factor * self.crps((y - shift) / factor),
            lambda: shift + factor * self.interval(),
            shift + factor * self.mean,
        )


Predict = Callable[[pd.DataFrame], Forecast]
Method = Callable[[pd.DataFrame, Array, int], Predict]


def points_crps(points: Array, weights: Array, y: Array) -> Array:
    """CRPS of weighted points, sorted along the last axis, (n, m) or (m,); E|X - y| - E|X - X'|/2."""
    below = weights.cumsum(-1)[..., :-1]
    half_spread = (below * (1 - below) * np.diff(points)).sum(-1)
    return (weights * np.abs(points - y[:, None])).sum(-1) - half_spread


def numbers(X: pd.DataFrame, *, scale: bool = False, impute: bool = True) -> Callable[[pd.DataFrame], Array]:
    """From a table to an array, for those who take only that, learned from X.

    Levels one-hot, those of fewer than 10 rows merged; medians for what is missing, and indicators.
    """
    is_text = make_column_selector(dtype_exclude="number")
    median: Any = SimpleImputer(strategy="median", add_indicator=True) if impute else FunctionTransformer()
    levels = OneHotEncoder(min_frequency=10, handle_unknown="infrequent_if_exist", sparse_output=False)
    encoder = make_column_transformer((median, make_column_selector(dtype_include="number")), (levels, is_text))
    pipeline = make_pipeline(encoder, StandardScaler() if scale else FunctionTransformer()).fit(X)
    return lambda table: np.asarray(pipeline.transform(table), dtype=np.float64)


def as_text(X: pd.DataFrame) -> list[str]:
    """Columns that are no numbers."""
    return list(X.select_dtypes(exclude="number").columns)


# Boosting -------------------------------------------------------------------------------------------------------------


def ngboost(X: pd.DataFrame, y: Array, seed: int) -> Predict:
    """Natural gradient boosting of a normal law."""
    from ngboost import NGBRegressor

    # Duan et al. (2020), section 4: depth 3, rate .01, at most 2,000 trees, as many as are best on 20% held out, then
    # learned anew from all rows; of their largest set a tenth of the rows for each tree, at rate .1.
    is_large = len(y) > 20_000
    settings = {"learning_rate": 0.1, "minibatch_frac": 0.1} if is_large else {"learning_rate": 0.01}
    encode = numbers(X)
    x = encode(X)
    x_fit, x_stop, y_fit, y_stop = train_test_split(x, y, test_size=0.2, random_state=seed)
    trial = NGBRegressor(n_estimators=2000, verbose=False, random_state=seed, **settings)
    trial.fit(x_fit, y_fit, X_val=x_stop, Y_val=y_stop)
    model = NGBRegressor(n_estimators=trial.best_val_loss_itr + 1, verbose=False, random_state=seed, **settings)
    model.fit(x, y)

    def predict(table: pd.DataFrame) -> Forecast:
        params = model.pred_dist(encode(table)).params
        return Forecast.of_normals(params["loc"], params["scale"])

    return predict


def catboost(X: pd.DataFrame, y: Array, seed: int) -> Predict:
    """Boosting of a normal law with categories as they are."""
    from catboost import CatBoostRegressor

    # Malinin et al. (2021), section 5: depth from 3 to 6 and the rate by what is best on 20% held out; the number of
    # trees by the overfitting detector that its guide to tuning advises; then learned anew from all rows.
    text = as_text(X)

    def prepare(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(**{name: table[name].astype(object).fillna("missing").astype(str) for name in text})

    def make(n_trees: int, **settings: Any) -> Any:
        return CatBoostRegressor(
            loss_function="RMSEWithUncertainty",
            iterations=n_trees,
            cat_features=text,
            random_seed=seed,
            thread_count=1,
            verbose=False,
            allow_writing_files=False,
            **settings,
        )

    x = prepare(X)
    x_fit, x_stop, y_fit, y_stop = train_test_split(x, y, test_size=0.2, random_state=seed)
    grid = [{"depth": depth, "learning_rate": rate} for depth in (3, 4, 5, 6) for rate in (0.03, 0.1)]
    trials = [
        make(5000, **settings).fit(x_fit, y_fit, eval_set=(x_stop, y_stop), early_stopping_rounds=100)
        for settings in grid
    ]
    best = int(np.argmin([trial.get_best_score()["validation"]["RMSEWithUncertainty"] for trial in trials]))
    model = make(trials[best].get_best_iteration() + 1, **grid[best]).fit(x, y)

    def predict(table: pd.DataFrame) -> Forecast:
        mean, variance = model.predict(prepare(table), thread_count=1).T
        return Forecast.of_normals(mean, np.sqrt(variance))

    return predict


def xgboostlss(X: pd.DataFrame, y: Array, seed: int) -> Predict:
    """XGBoost on both parameters of a normal law."""
    import xgboost
    from xgboostlss.distributions.Gaussian import Gaussian
    from xgboostlss.model import XGBoostLSS

    # Its guide searches depth, rate and others with optuna, by its cv with early stopping after 20 rounds: so here, on
    # a grid of what matters.
    encode = numbers(X, impute=False)
    rows = xgboost.DMatrix(encode(X), label=y, nthread=1)
    grid = [{"eta": eta, "max_depth": depth, "nthread": 1, "seed": seed} for eta in (0.03, 0.1) for depth in (2, 4, 6)]

    def try_out(params: dict[str, Any]) -> tuple[float, int]:
        history = XGBoostLSS(Gaussian()).cv(
            dict(params), rows, num_boost_round=1000, nfold=5, early_stopping_rounds=20, seed=seed
        )
        losses = history["test-nll-mean"]
        return float(losses.min()), int(losses.argmin()) + 1

    tried = [try_out(params) for params in grid]
    best = int(np.argmin([loss for loss, _ in tried]))
    model = XGBoostLSS(Gaussian())
    model.train(grid[best], rows, num_boost_round=tried[best][1])

    def predict(table: pd.DataFrame) -> Forecast:
        params = model.predict(xgboost.DMatrix(encode(table), nthread=1), pred_type="parameters")
        return Forecast.of_normals(params["loc"], params["scale"])

    return predict


def treeffuser(X: pd.DataFrame, y: Array, seed: int) -> Predict:
    """Diffusion with trees as the score."""
    from treeffuser import Treeffuser

    # As it comes: Beltran-Velez et al. (2024) advise its defaults. A density only by a kernel on its draws; a width of
    # 1 in whatever unit y has, as it comes, would be unfair: Silverman's rule on each row's own spread, with a factor
    # of 1.5 for its .9, the best on six splits from 5 on of four small sets.
    text = as_text(X)
    levels = {name: pd.CategoricalDtype(sorted(X[name].dropna().unique())) for name in text}
    model = Treeffuser(n_jobs=1, seed=seed)
    model.fit(X.astype(levels), y)

    def predict(table: pd.DataFrame) -> Forecast:
        n_draws = int(np.clip(20_000 // len(table), 100, 500))  # they are slow
        draws = np.sort(model.sample(table.astype(levels), n_draws, seed=seed).reshape(n_draws, len(table)).T)
        low, high = np.quantile(draws, [0.25, 0.75], axis=1)
        spread = np.minimum(draws.std(1), (high - low) / 1.34)
        width = np.maximum(1.5 * spread * n_draws**-0.2, 1e-3)[:, None]

        def log_density(z: Array) -> Array:
            return logsumexp(stats.norm.logpdf(z[:, None], draws, width), axis=1) - np.log(n_draws)

        def fair_crps(z: Array) -> Array:  # of the law that is drawn from, not of these draws
            distance = np.abs(draws - z[:, None]).mean(1)
            return distance - (distance - points_crps(draws, np.full((1, n_draws), 1 / n_draws), z)) * (
                n_draws / (n_draws - 1)
            )

        return Forecast(log_density, fair_crps, lambda: np.quantile(draws, INTERVAL, axis=1).T, draws.mean(1))

    return predict


# Forest ---------------------------------------------------------------------------------------------------------------


class KernelForest:
    """A quantile regression forest (Meinshausen 2006) with a normal kernel on the targets that it weights."""

    def __init__(self, x: Array, y: Array, n_trees: int, seed: int, **settings: Any):
        self.forest = RandomForestRegressor(n_trees, random_state=seed, n_jobs=1, **settings).fit(x, y)
        self.order = np.argsort(y)
        self.y = y[self.order]
        n_rows, trees = len(y), self.forest.estimators_
        self.starts = np.cumsum([0, *(tree.tree_.node_count for tree in trees)])
        self.bags = np.stack([np.bincount(rows, minlength=n_rows) for rows in self.forest.estimators_samples_], 1)
        self.leaves = self.forest.apply(x) + self.starts[:-1]
        members = self._matrix(self.leaves, self.bags)
        sizes = np.asarray(members.sum(0)).ravel().clip(1)
        self.members = (members @ sparse.diags_array(1 / sizes)).tocsr()[self.order].T.tocsr()
        self.width = self._choose_width(np.random.default_rng(seed))

    def _matrix(self, leaves: NDArray[Any], values: NDArray[Any]) -> Any:
        """Rows by leaves of all trees."""
        pointers = np.arange(0, leaves.size + 1, leaves.shape[1])
        shape = (len(leaves), self.starts[-1])
        return sparse.csr_array((np.asarray(values, dtype=np.float64).ravel(), leaves.ravel(), pointers), shape=shape)

    def weights(self, x: Array) -> Any:
        """Of the sorted training targets, for new rows, sparse."""
        leaves = self.forest.apply(x) + self.starts[:-1]
        return self._matrix(leaves, np.full(leaves.shape, 1 / leaves.shape[1])) @ self.members

    def _choose_width(self, rng: np.random.Generator) -> tuple[float, bool]:
        """The width with the best out-of-bag likelihood: one for all rows, or a share of each row's own spread."""
        rows = rng.permutation(np.flatnonzero((self.bags == 0).any(1)))[:2000]
        absent = (self.bags[rows] == 0).astype(float)
        weights = self._matrix(self.leaves[rows], absent / absent.sum(1, keepdims=True)) @ self.members
        y = np.empty_like(self.y)
        y[self.order] = self.y
        widths = [(width, own) for own in (False, True) for width in np.geomspace(0.003, 1, 16)]
        losses = [-self.log_density(weights, y[rows], width).mean() for width in widths]
        self.loss = min(losses)
        return widths[int(np.argmin(losses))]

    def log_density(self, weights: Any, y: Array, width: tuple[float, bool]) -> Array:
        """Of y under the kernels, row by row."""
        factor, own = width
        mean = weights @ self.y
        spread = np.sqrt((weights @ self.y**2 - mean**2).clip(1e-6)) if own else np.ones_like(mean)
        scale = np.maximum(factor * spread, 1e-3)
        counts = np.diff(weights.indptr)
        row = np.repeat(np.arange(len(counts)), counts)
        density = np.exp(stats.norm.logpdf(y[row], self.y[weights.indices], scale[row])) * weights.data
        totals = np.bincount(row, density, minlength=len(counts))
        nearest = stats.norm.logpdf(y, self.y[np.searchsorted(self.y, y).clip(0, len(self.y) - 1)], scale)
        # Where every kernel is too far for a float, as far as the nearest training target with the weight of one row.
        far = nearest - np.log(len(self.y))
        return np.where(totals > 0, np.log(totals, where=totals > 0, out=far.copy()), far)


def quantile_forest(X: pd.DataFrame, y: Array, seed: int) -> Predict:
    """A quantile regression forest with a kernel."""
    # 500 trees; leaves and features for a cut as they are best out of bag (100 trees, at most 10,000 rows), about
    # Meinshausen's 10 and a third, and scikit-learn's all. The kernel's width by out-of-bag likelihood.
    encode = numbers(X)
    x = encode(X)
    some = np.random.default_rng(seed).permutation(len(y))[:10_000]
    grid = [{"min_samples_leaf": leaf, "max_features": part} for leaf in (1, 3, 10) for part in (1 / 3, 1.0)]
    losses = [KernelForest(x[some], y[some], 100, seed, **settings).loss for settings in grid]
    model = KernelForest(x, y, 500, seed, **grid[int(np.argmin(losses))])

    def predict(table: pd.DataFrame) -> Forecast:
        weights = model.weights(encode(table))
        n_block = max(1, MOST_CELLS // len(model.y))
        blocks = [slice(start, start + n_block) for start in range(0, weights.shape[0], n_block)]

        def crps_of(z: Array) -> Array:
            return np.concatenate([points_crps(model.y, weights[block].toarray(), z[block]) for block in blocks])

        def interval(block: slice) -> Array:
            below = weights[block].toarray().cumsum(1)
            return np.stack([model.y[(below < level).sum(1).clip(0, len(model.y) - 1)] for level in INTERVAL], 1)

        return Forecast(
            lambda z: model.log_density(weights, z, model.width),
            crps_of,
            lambda: np.concatenate([interval(block) for block in blocks]),
            weights @ model.y,
        )

    return predict


# Lines and networks ---------------------------------------------------------------------------------------------------


def linear(X: pd.DataFrame, y: Array, seed: int) -> Predict:
    """Least squares with one standard deviation: a floor."""
    encode = numbers(X, scale=True)
    x = encode(X)
    model = LinearRegression().fit(x, y)
    rank = min(int(model.rank_) + 1, len(y) - 1)
    sd = np.sqrt(np.square(y - model.predict(x)).sum() / (len(y) - rank))
    return lambda table: Forecast.of_normals(model.predict(encode(table)), np.full(len(table), sd))


def mlp(n_in: int, hidden: Sequence[int], n_out: int, activation: type[nn.Module]) -> nn.Sequential:
    """A plain network."""
    sizes = [n_in, *hidden]
    layers = [part for a, b in zip(sizes, hidden, strict=False) for part in (nn.Linear(a, b), activation())]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], n_out))


def learn(
    network: nn.Module,
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    patience: int | None = None,
    held_out: float = 0.1,
) -> None:
    """Adam; with patience, the weights of the epoch with the best loss on rows held out."""
    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    order = torch.randperm(len(x))
    n_stop = 0 if patience is None else max(10, round(held_out * len(x)))
    stop, fit = order[:n_stop], order[n_stop:]
    best, best_state, waited = float("inf"), copy.deepcopy(network.state_dict()), 0
    for _ in range(epochs):
        for batch in fit[torch.randperm(len(fit))].split(batch_size):
            optimizer.zero_grad()
            loss(network, x[batch], y[batch]).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 10.0)
            optimizer.step()
        if patience is None:
            continue
        with torch.no_grad():
            now = loss(network, x[stop], y[stop]).item()
        waited += 1
        if now < best:
            best, best_state, waited = now, copy.deepcopy(network.state_dict()), 0
        if waited >= patience:
            break
    if patience is not None:
        network.load_state_dict(best_state)


def effort(n_rows: int) -> dict[str, int]:
    """Batches and epochs for small and for large tables, with early stopping."""
    if n_rows < 5000:
        return {"batch_size": 32, "epochs": 1000, "patience": 50}
    return {"batch_size": 128, "epochs": 200, "patience": 20}


def tensor(values: Array) -> Tensor:
    """In float32."""
    return torch.as_tensor(values, dtype=torch.float32)


def normal_of(network: nn.Module, x: Tensor) -> Normal:
    """Mean, and a variance by softplus + 1e-6, as Lakshminarayanan et al. do."""
    loc, raw = network(x).unbind(-1)
    return Normal(loc, (nn.functional.softplus(raw) + 1e-6).sqrt(), validate_args=False)


def deep_ensemble(X: pd.DataFrame, y: Array, seed: int) -> Predict:
    """Five networks for mean and variance, pooled (Lakshminarayanan et al. 2017)."""
    # The paper has one layer of 50 and 40 epochs, which is known to be short (see Seitzer et al. 2022): here two layers
    # of 64 and early stopping, each with other rows held out. The mixture, not its moments: it is more likely.
    torch.manual_seed(seed)
    encode = numbers(X, scale=True)
    x, target = tensor(encode(X)), tensor(y)
    networks = [mlp(x.shape[1], [64, 64], 2, nn.ReLU) for _ in range(5)]
    for network in networks:
        learn(
            network,
            lambda net, a, b: -normal_of(net, a).log_prob(b).mean(),
            x,
            target,
            learning_rate=2e-3,
            **effort(len(y)),
        )

    def predict(table: pd.DataFrame) -> Forecast:
        with torch.no_grad():
            laws = [normal_of(network, tensor(encode(table))) for network in networks]
        loc, scale = (torch.stack([getattr(law, name) for law in laws], 1).double() for name in ("loc", "scale"))
        return Forecast.of_mixture(Mixture(torch.zeros_like(loc), Normal(loc, scale)))

    return predict


def naive_mdn(X: pd.DataFrame, y: Array, seed: int) -> Predict:
    """A mixture density network as tutorials write it, but for the standardised target."""
    torch.manual_seed(seed)
    encode = numbers(X, scale=True)
    x, target = tensor(encode(X)), tensor(y)
    network = mlp(x.shape[1], [64], 15, nn.Tanh)

    def law(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits, loc, log_scale = network(rows).chunk(3, -1)
        return logits.log_softmax(-1), loc, log_scale.exp()

    def loss(_: nn.Module, rows: Tensor, values: Tensor) -> Tensor:
        log_weights, loc, scale = law(rows)
        each = Normal(loc, scale, validate_args=False).log_prob(values[:, None])
        return -(log_weights + each).logsumexp(-1).mean()

    learn(network, loss, x, target, learning_rate=1e-3, epochs=300, batch_size=128)

    def predict(table: pd.DataFrame) -> Forecast:
        with torch.no_grad():
            log_weights, loc, scale = (part.double() for part in law(tensor(encode(table))))
        return Forecast.of_mixture(Mixture(log_weights, Normal(loc, scale)))

    return predict


def spline_flow(X: pd.DataFrame, y: Array, seed: int) -> Predict:
    """A conditional neural spline flow (Durkan et al. 2019) by zuko."""
    import zuko

    # zuko's defaults: three transformations of eight bins, networks of 64, 64; rate 1e-3, as in its tutorials.
    torch.manual_seed(seed)
    encode = numbers(X, scale=True)
    x, target = tensor(encode(X)), tensor(y)
    flow = zuko.flows.NSF(1, x.shape[1], hidden_features=(64, 64))

    def loss(net: nn.Module, rows: Tensor, values: Tensor) -> Tensor:
        return -net(rows).log_prob(values[:, None]).mean()

    learn(flow, loss, x, target, learning_rate=1e-3, **effort(len(y)))
    flow.double()

    def predict(table: pd.DataFrame) -> Forecast:
        rows = torch.as_tensor(encode(table))

        def at(levels: Array) -> Array:  # quantiles: for a number the flow is monotone
            z = torch.as_tensor(stats.norm.ppf(levels))[:, None, None].expand(-1, len(rows), 1)
            with torch.no_grad():
                return np.sort(flow(rows).transform.inv(z)[..., 0].numpy().T)

        points = np.concatenate([at(part) for part in np.array_split((np.arange(500) + 0.5) / 500, 10)], 1)

        def log_density(z: Array) -> Array:
            with torch.no_grad():
                return flow(rows).log_prob(torch.as_tensor(z)[:, None]).numpy()

        weights = np.full((1, 500), 1 / 500)
        return Forecast(log_density, lambda z: points_crps(points, weights, z), lambda: at(INTERVAL), points.mean(1))

    return predict


PEERS: dict[str, Method] = {
    "ngboost": ngboost,
    "catboost": catboost,
    "xgboostlss": xgboostlss,
    "treeffuser": treeffuser,
    "quantile-forest": quantile_forest,
    "deep-ensemble": deep_ensemble,
    "spline-flow": spline_flow,
    "naive-mdn": naive_mdn,
    "linear": linear,
}
