"""Forecasts corrected by how those before them fared: wider after surprises, and with a longer tail of losses."""

import numpy as np
import pandas as pd
import torch
from scipy.special import ndtr, ndtri
from scipy.stats import norm

from mixtura import Mixture, pit

from .backtests import Array, record

DECAY, TAIL = 0.99, 0.025
"""Of the weight of a surprise, from day to day; where the tail begins."""


def correct(forecasts: list[tuple[Mixture, pd.Series]]) -> pd.DataFrame:
    """The record of forecasts in order of time, each corrected by what came of those before, and by nothing else.

    Let u be the level at which a return fell in its forecast (PIT), and z = Φ⁻¹(u), standard normal if forecasts are
    right. The day before two numbers are known: s, the root of an average of 1 and of z², weighted by 0.99^age; and θ,
    the mean of log(0.025 / Φ(z / s)) where that is positive, which is 1 if forecasts are right (Hill 1975). Neither is
    let below 1: no forecast becomes narrower. Level q becomes level Φ(s Φ⁻¹(g(q))), with g(q) = 0.025 (q / 0.025)^θ
    below 0.025, else q; the density follows by the chain rule, with a step where the tail begins.
    """
    y = pd.concat([y for _, y in forecasts])
    u = np.concatenate([pit(mixture, torch.tensor(y.to_numpy())) for mixture, y in forecasts]).clip(1e-12, 1 - 1e-12)
    z = pd.Series(ndtri(u), y.index)
    s = np.sqrt(pd.Series(np.append(1, z[:-1] ** 2), y.index).ewm(alpha=1 - DECAY, adjust=False).mean()).clip(lower=1)
    excess = np.log(TAIL / ndtr(z / s))
    theta = excess[excess > 0].expanding().mean().reindex(y.index).ffill().shift().clip(lower=1).fillna(1)
    log_ratio = norm.logpdf(z / s) - np.log(s) - norm.logpdf(z)
    log_ratio += ((1 - 1 / theta) * excess - np.log(theta)).where(excess > 0, 0)

    records = []
    for mixture, y_then in forecasts:
        known = s[y_then.index].to_numpy()[:, None], theta[y_then.index].to_numpy()[:, None]

        def quantiles(levels: Array, mixture: Mixture = mixture, known: tuple[Array, Array] = known) -> Array:
            inner = np.where(levels < TAIL, TAIL * (levels / TAIL) ** known[1], levels)
            return mixture.icdf(ndtr(known[0] * ndtri(inner)).T).numpy().T

        log_score = mixture.log_prob(torch.tensor(y_then.to_numpy())).numpy() + log_ratio[y_then.index].to_numpy()
        records.append(record(log_score, quantiles).set_index(y_then.index))
    return pd.concat(records)
