"""Example data: small, real, and shipped with the package."""

from importlib.resources import files

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def load_taxi() -> pd.DataFrame:
    """9,771 yellow-taxi trips in New York, January 2016 (CC0; NYC Taxi and Limousine Commission).

    Columns: pickup_datetime (text), weekday (0 = Monday), hour (decimal), pickup_lon, pickup_lat, dropoff_lon,
    dropoff_lat (degrees), passenger_count, trip_distance_mi, duration_s, fare_usd, tip_usd, total_usd, payment_type,
    ratecode. Some are known only after the trip (trip_distance_mi, duration_s, fare_usd), and total_usd contains
    tip_usd: leave them out of the features of what they give away.

    Examples
    --------
    >>> load_taxi().shape
    (9771, 15)
    """
    with files("mixtura").joinpath("data/taxi.csv.gz").open("rb") as stream:
        return pd.read_csv(stream, compression="gzip")


def make_inverse_sine(
    n: int = 1000, noise: float = 0.05, random_state: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bishop's inverse problem: t uniform on (0, 1), x = t + 0.3 sin(2 pi t) + noise; learn t given x.

    Where the curve folds, three values of t lead to one x, and their mean lies on no branch.

    Parameters
    ----------
    n
        Number of rows.
    noise
        Standard deviation of the normal noise in x.
    random_state
        Seed.

    Returns
    -------
    X
        The observed x, shape (n, 1).
    y
        The t that led to it, shape (n,).

    References
    ----------
    Bishop (1994), Mixture density networks, NCRG/94/004, section 5.

    Examples
    --------
    >>> X, y = make_inverse_sine()
    >>> X.shape, y.shape
    ((1000, 1), (1000,))
    """
    rng = np.random.default_rng(random_state)
    t = rng.uniform(0, 1, n)
    x = t + 0.3 * np.sin(2 * np.pi * t) + noise * rng.normal(size=n)
    return x[:, None], t
