"""Forecasts beside what was observed, as tables: what was forecast, what was observed, and the band of chance.

The band is one of consistency: were the forecasts right, the observed share would lie in it with a probability of at
least 95%, in each row of the table by itself. Of twenty rows, one may be outside by chance. It is exact: the number of
events among rows with probabilities p_1, ..., p_n has a Poisson binomial law, a binomial one where all p are equal.

References
----------
Bröcker and Smith (2007), Increasing the reliability of reliability diagrams.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .errors import MixturaError, coded
from .mixture import Mixture, plain_mixture
from .scores import pit

_BAND = 0.95


def level_histogram(levels: ArrayLike, n_bins: int = 20) -> pd.DataFrame:
    """How many levels, of `pit` or `hdr_level`, fall into equal bins; right forecasts put as many into each.

    Of `pit`, a U is the mark of forecasts that are too sharp, a hump of those that are too wide, a slope of those that
    are too high or too low.

    Parameters
    ----------
    levels
        Shape (n,), in [0, 1].
    n_bins
        How many bins.

    Returns
    -------
    DataFrame
        Indexed by bin (intervals): `forecast` (1 / n_bins), `observed` (share of the levels), `lower`, `upper` (the
        band), `n_rows`.

    References
    ----------
    Gneiting, Balabdaoui and Raftery (2007), Probabilistic forecasts, calibration and sharpness.

    Examples
    --------
    >>> level_histogram([0.1, 0.2, 0.3, 0.9], n_bins=2)["observed"].tolist()
    [0.75, 0.25]
    """
    levels = np.asarray(levels, dtype=np.float64).reshape(-1)
    counts, edges = np.histogram(levels, bins=n_bins, range=(0, 1))
    bins = pd.IntervalIndex.from_breaks(edges, closed="left", name="level")
    lower, upper = _band(np.full(len(levels), 1 / n_bins))
    parts = {"forecast": 1 / n_bins, "observed": counts / len(levels), "lower": lower, "upper": upper}
    return pd.DataFrame({**parts, "n_rows": len(levels)}, index=bins)


def reliability(mixture: Mixture, y: ArrayLike, *, threshold: float | None = None, n_bins: int = 10) -> pd.DataFrame:
    """Forecast probabilities beside observed shares: of y below each quantile, or of an event.

    Without a threshold, all rows count in each line: the share of y at or below its predicted quantile, which is the
    share of PIT values up to that level. With one, the event is Y >= threshold, and each line is of rows with similar
    forecasts of it, equally many in each.

    Parameters
    ----------
    mixture
        Forecasts of a scalar target, batch_shape (n,).
    y
        Observations, shape (n,).
    threshold
        In units of the target.
    n_bins
        How many lines: levels 1 / (n_bins + 1), ..., or bins of rows.

    Returns
    -------
    DataFrame
        `forecast` (a level, or the mean forecast in a bin), `observed`, `lower`, `upper` (the band), `n_rows`.

    Raises
    ------
    MixturaError
        ``E-scalar-only``, ``E-value-shape``, ``E-value-nan``.

    Examples
    --------
    >>> from torch.distributions import Normal
    >>> standard = Mixture(torch.zeros(4, 1), Normal(torch.zeros(4, 1), torch.ones(4, 1)))
    >>> reliability(standard, [-1.0, -0.5, 0.5, 1.0], n_bins=3)["observed"].tolist()
    [0.25, 0.5, 0.75]
    """
    mixture, values = in_rows(mixture, y)
    if threshold is None:
        levels = pit(mixture, values).numpy()
        nominal = np.linspace(0, 1, n_bins + 2)[1:-1]
        return pd.DataFrame([_line(np.full(len(levels), level), levels <= level) for level in nominal])
    mixture._scalar_family("survival")
    probability, happened = mixture.survival(threshold).numpy(), (values >= threshold).numpy()
    bins = np.array_split(probability.argsort(kind="stable"), min(n_bins, len(probability)))
    return pd.DataFrame([_line(probability[rows], happened[rows]) for rows in bins])


def coverage_by(mixture: Mixture, y: ArrayLike, by: ArrayLike | None = None, *, coverage: float = 0.9) -> pd.DataFrame:
    """How often the central interval holds y, in each group of rows, or in each tenth of the rows by its width.

    Right on the whole is not right everywhere: an interval may be too short for some rows and too long for others.

    Parameters
    ----------
    mixture
        Forecasts of a scalar target, batch_shape (n,).
    y
        Observations, shape (n,).
    by
        Group of each row, shape (n,); without it, tenths by the interval's width, the narrowest first.
    coverage
        Probability of the interval. At atoms and of counts the interval holds more: `forecast` says how much.

    Returns
    -------
    DataFrame
        Indexed by group (tenths count from 1): `forecast`, `observed`, `lower`, `upper` (the band), `n_rows`, and
        `width`, the interval's mean.

    Raises
    ------
    MixturaError
        ``E-scalar-only``, ``E-value-shape``, ``E-coverage-range``, ``E-input-length`` for groups of another length.

    Examples
    --------
    >>> from torch.distributions import Normal
    >>> standard = Mixture(torch.zeros(4, 1), Normal(torch.zeros(4, 1), torch.ones(4, 1)))
    >>> coverage_by(standard, [0.0, 3.0, 0.0, 0.0], by=["a", "a", "b", "b"])["observed"].tolist()
    [0.5, 1.0]
    """
    mixture, values = in_rows(mixture, y)
    region = mixture.central_interval(coverage)
    lower, upper = region.lower[:, 0], region.upper[:, 0]
    # The interval includes its ends, P(Y < lower) is 1 - P(Y >= lower).
    forecast = (mixture.cdf(upper) + mixture.survival(lower) - 1).clamp(0, 1).numpy()
    observed, width = region.contains(values).numpy(), region.size.numpy()
    if by is None:
        rank = width.argsort(kind="stable").argsort(kind="stable")
        groups = pd.Series(rank * min(10, len(width)) // max(len(width), 1) + 1, name="tenth")
    else:
        groups = by.reset_index(drop=True) if isinstance(by, pd.Series) else pd.Series(np.asarray(by), name="group")
        if len(groups) != len(values):
            got = f"{len(groups)} groups for {len(values)} rows"
            raise MixturaError("E-input-length", got, "one group for each row", "give the group of these rows")
    lines = {
        group: {**_line(forecast[rows], observed[rows]), "width": float(width[rows].mean())}
        for group, rows in groups.groupby(groups, observed=True).indices.items()
    }
    table = pd.DataFrame.from_dict(lines, orient="index")
    table.index.name = groups.name
    return table


def in_rows(mixture: Mixture, y: ArrayLike) -> tuple[Mixture, Tensor]:
    """Forecasts along one batch axis and their observations, in float64 on the CPU and without gradient."""
    mixture = plain_mixture(mixture).detach().flat().to("cpu", torch.float64)
    with coded("E-target-type", "known numbers, not intervals"):
        values = torch.tensor(np.asarray(y, dtype=np.float64))
    shape = mixture.batch_shape + mixture.event_shape
    if values.numel() != shape.numel():
        got = f"y of shape {tuple(values.shape)}"
        raise MixturaError("E-value-shape", got, f"shape {tuple(shape)}", "give one observation for each mixture")
    if bool(values.isnan().any()):
        raise MixturaError("E-value-nan", "y that is NaN", "numbers", "drop rows without an observation")
    return mixture, values.reshape(shape)


def _line(probability: NDArray[np.float64], happened: NDArray[np.bool_]) -> dict[str, Any]:
    lower, upper = _band(probability)
    parts = {"forecast": probability.mean(), "observed": happened.mean(), "lower": lower, "upper": upper}
    return {**{name: float(part) for name, part in parts.items()}, "n_rows": len(happened)}


def _band(probability: NDArray[np.float64]) -> tuple[float, float]:
    """Between which shares of events 95% lie, if each has its probability."""
    n = len(probability)
    below = _count_masses(probability).cumsum()
    lower, upper = np.searchsorted(below, [(1 - _BAND) / 2, (1 + _BAND) / 2])
    return float(lower) / n, min(float(upper), n) / n


def _count_masses(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(0, 1, ..., n events) of independent events: the masses of half of them are convolved with the other half's."""
    n = len(probability)
    chance = np.zeros(1 << max(n - 1, 0).bit_length())
    chance[:n] = probability
    masses = np.stack([1 - chance, chance], -1)
    while len(masses) > 1:
        size = 2 * masses.shape[1]
        masses = np.fft.irfft(np.fft.rfft(masses[::2], size) * np.fft.rfft(masses[1::2], size), size)
    return masses[0, : n + 1].clip(0)
