"""Mixtura learns the whole conditional density p(y | x) with mixture density networks."""

from . import datasets, metrics, plots
from .errors import MixturaError, MixturaWarning
from .estimator import MDNRegressor, load
from .families import FAMILIES, get_family
from .mixture import Mixture
from .nets import MDN, MLP, MixtureHead
from .scores import crps, nll
from .training import FitReport

__version__ = "0.1.0"

pool = Mixture.pool

__all__ = [
    "FAMILIES",
    "MDN",
    "MLP",
    "FitReport",
    "MDNRegressor",
    "MixturaError",
    "MixturaWarning",
    "Mixture",
    "MixtureHead",
    "crps",
    "datasets",
    "get_family",
    "load",
    "metrics",
    "nll",
    "plots",
    "pool",
]
