"""Mixtura learns the whole conditional density p(y | x) with mixture density networks."""

from . import checks, datasets, families, metrics, plots
from .effects import feature_effect, permutation_importance
from .ensemble import Decomposition, decompose
from .entropy import Estimate
from .errors import MixturaError, MixturaWarning
from .estimator import MDNRegressor, load, select_components
from .families import FAMILIES, get_family
from .learner import FitReport
from .mixture import Mixture
from .modes import Modes
from .nets import MDN, MLP, MixtureHead
from .regions import Region
from .scores import (
    brier,
    cde_loss,
    censored_nll,
    crps,
    dss,
    energy_score,
    hdr_level,
    interval_score,
    nll,
    pit,
    quantile_loss,
    rosenblatt,
    variogram_score,
)
from .selection import Selection

__version__ = "0.1.0"

pool = Mixture.pool

__all__ = [
    "FAMILIES",
    "MDN",
    "MLP",
    "Decomposition",
    "Estimate",
    "FitReport",
    "MDNRegressor",
    "MixturaError",
    "MixturaWarning",
    "Mixture",
    "MixtureHead",
    "Modes",
    "Region",
    "Selection",
    "brier",
    "cde_loss",
    "censored_nll",
    "checks",
    "crps",
    "datasets",
    "decompose",
    "dss",
    "energy_score",
    "families",
    "feature_effect",
    "get_family",
    "hdr_level",
    "interval_score",
    "load",
    "metrics",
    "nll",
    "permutation_importance",
    "pit",
    "plots",
    "pool",
    "quantile_loss",
    "rosenblatt",
    "select_components",
    "variogram_score",
]
