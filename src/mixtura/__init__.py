"""Mixtura learns the whole conditional density p(y | x) with mixture density networks."""

from . import checks, datasets, families, metrics, plots
from .calibrated import Calibrated, Conformal
from .calibration import Recalibrated, Temperature, fit_temperature
from .chain import MDNChain
from .comparison import Comparison, compare
from .diagnosis import Diagnosis, Finding
from .effects import feature_effect, permutation_importance
from .ensemble import Decomposition, decompose
from .entropy import Estimate
from .errors import MixturaError, MixturaWarning
from .estimator import MDNRegressor, select_components
from .evaluation import Evaluation, evaluate
from .families import FAMILIES, get_family
from .learner import FitReport
from .loading import load
from .mixture import Mixture
from .modes import Modes
from .nets import MDN, MLP, MixtureHead
from .regions import JointRegion, Region
from .report import write_report
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
    "Calibrated",
    "Comparison",
    "Conformal",
    "Decomposition",
    "Diagnosis",
    "Estimate",
    "Evaluation",
    "Finding",
    "FitReport",
    "JointRegion",
    "MDNChain",
    "MDNRegressor",
    "MixturaError",
    "MixturaWarning",
    "Mixture",
    "MixtureHead",
    "Modes",
    "Recalibrated",
    "Region",
    "Selection",
    "Temperature",
    "brier",
    "cde_loss",
    "censored_nll",
    "checks",
    "compare",
    "crps",
    "datasets",
    "decompose",
    "dss",
    "energy_score",
    "evaluate",
    "families",
    "feature_effect",
    "fit_temperature",
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
    "write_report",
]
