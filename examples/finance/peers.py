"""What others forecast: GARCH with heavy and skewed tails, hidden Markov models, the past (requirements.txt)."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd
import torch
from arch import arch_model
from hmmlearn.hmm import GaussianHMM
from scipy.special import logsumexp
from statsmodels.tsa.regime_switching.markov_regression import MarkovRegression
from torch.distributions import Normal

from mixtura import Mixture

from .backtests import Array, judge, record

PAST_DAYS = 500  # of historical simulation


def garch(y: pd.Series, years: range, **law: object) -> pd.DataFrame:
    """A model of `arch`, fitted anew each month to all days before."""
    model = arch_model(y, mean="Constant", rescale=False, **law)
    distribution = model.distribution
    records = []
    for month in pd.period_range(f"{years[0]}-01", f"{years[-1]}-12", freq="M"):
        present = (y.index >= month.start_time) & (y.index <= month.end_time)
        params = model.fit(disp="off", last_obs=np.flatnonzero(present)[0]).params
        shape = params.to_numpy()[len(params) - distribution.num_params :]
        std = np.asarray(model.fix(params).conditional_volatility)[present]  # of a day, from the days before
        residual = y[present].to_numpy() - params["mu"]
        log_score = distribution.loglikelihood(shape, residual, std**2, individual=True)
        below = lambda q, mu=params["mu"], std=std, p=shape: mu + std[:, None] * distribution.ppf(q, p)  # noqa: E731
        records.append(record(log_score, below).set_index(y.index[present]))
    return pd.concat(records)


def hidden_markov(y: pd.Series, years: range, fit: Callable[[Array], tuple[Array, ...]]) -> pd.DataFrame:
    """Normal laws with a hidden Markov state, fitted anew each year to all days before."""
    records = []
    for year in years:
        past, present = y.index.year < year, y.index.year == year
        start, transition, loc, std = fit(y[past].to_numpy())
        weights = _state_ahead(y[y.index.year <= year].to_numpy(), start, transition, loc, std)[-present.sum() :]
        n = len(weights)
        laws = Normal(torch.tensor(loc).expand(n, -1), torch.tensor(std).expand(n, -1))
        records.append(judge(Mixture(torch.tensor(weights).log(), laws), y[present]))
    return pd.concat(records)


def _state_ahead(y: Array, start: Array, transition: Array, loc: Array, std: Array) -> Array:
    """Probabilities of each day's state given the days before: the forward recursion; `transition` has rows of 1."""
    ahead = np.empty((len(y), len(start)))
    state = start
    for t, value in enumerate(y):
        ahead[t] = state
        log_joint = np.log(np.maximum(state, 1e-300)) - np.log(std) - 0.5 * ((value - loc) / std) ** 2
        state = np.exp(log_joint - logsumexp(log_joint)) @ transition
    return ahead


def _fit_hmm(y: Array, n_states: int = 3, n_starts: int = 5) -> tuple[Array, ...]:
    """The most likely of some starts, by hmmlearn."""
    y = y[:, None]
    tries = [GaussianHMM(n_states, n_iter=200, tol=1e-3, random_state=seed).fit(y) for seed in range(n_starts)]
    best = max(tries, key=lambda one: one.score(y))
    return best.startprob_, best.transmat_, best.means_[:, 0], np.sqrt(best.covars_[:, 0, 0])


def _fit_switching(y: Array) -> tuple[Array, ...]:
    """Two regimes with means and variances of their own, by statsmodels."""
    model = MarkovRegression(y, k_regimes=2, switching_variance=True)
    params = dict(zip(model.param_names, model.fit(disp=False).params, strict=True))
    stay, leave = params["p[0->0]"], params["p[1->0]"]
    transition = np.array([[stay, 1 - stay], [leave, 1 - leave]])
    start = np.array([leave, 1 - stay]) / (leave + 1 - stay)
    loc = np.array([params["const[0]"], params["const[1]"]])
    return start, transition, loc, np.sqrt([params["sigma2[0]"], params["sigma2[1]"]])


def historical(y: pd.Series, years: range) -> pd.DataFrame:
    """The last 500 days as they were; its log score is that of a kernel density (Silverman's rule) of these days."""
    present = np.flatnonzero((y.index.year >= years[0]) & (y.index.year <= years[-1]))
    past = np.lib.stride_tricks.sliding_window_view(y.to_numpy(), PAST_DAYS)[present - PAST_DAYS]
    spread = np.minimum(past.std(1), np.subtract(*np.quantile(past, [0.75, 0.25], axis=1)) / 1.349)
    width = (0.9 * spread * PAST_DAYS**-0.2)[:, None]
    kernels = -0.5 * ((y.to_numpy()[present, None] - past) / width) ** 2 - np.log(width * np.sqrt(2 * np.pi))
    log_score = logsumexp(kernels, 1) - np.log(PAST_DAYS)
    return record(log_score, lambda levels: np.quantile(past, levels, axis=1).T).set_index(y.index[present])


PEERS: dict[str, Callable[[pd.Series, range], pd.DataFrame]] = {
    "GARCH-t": partial(garch, vol="GARCH", dist="t"),
    "GJR-t": partial(garch, vol="GARCH", o=1, dist="t"),
    "GJR-skewt": partial(garch, vol="GARCH", o=1, dist="skewt"),
    "EGARCH-skewt": partial(garch, vol="EGARCH", o=1, dist="skewt"),
    "HMM, 3 states": partial(hidden_markov, fit=_fit_hmm),
    "Markov switching, 2 regimes": partial(hidden_markov, fit=_fit_switching),
    "historical simulation": historical,
}
"""From the returns in percent, of all days, and the years to forecast, to records of each day of these."""
