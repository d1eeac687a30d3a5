"""Sets with a promised coverage: scores of held-out rows, and all y that are no stranger than these.

A score says how strange y is to its forecast. Where rows to come are exchangeable with n rows that the model has not
seen, the score of one of them is at most the ceil((n + 1) coverage)-th smallest of theirs with at least the probability
`coverage`, whatever the model is worth (Vovk, Gammerman and Shafer 2005). Ties make it more probable, not less.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from torch import Tensor

from .errors import MixturaError
from .families import ScalarFamily
from .mixture import Mixture
from .regions import JointRegion, Region, joint_region, region_above
from .scores import hdr_level

_DRAWS, _SEED = 4096, 6_203_917
"""For vectors. The draws at calibration are others than those of predicted sets, which must not depend on them."""
_ROUNDING = 1e-9
"""Of levels: a set holds every y that is as strange as its edge."""
_LEVELS_OF_A_PROFILE, _DRAWS_OF_A_PROFILE = 32, 256
_ROWS_OF_A_CELL, _MOST_CELLS, _SHARE_OF_THE_PARTITION, _FEWEST_IN_A_CELL = 250, 10, 0.25, 20


def conformal_quantile(scores: Float[Tensor, "n"], coverage: float) -> float:
    """The ceil((n + 1) coverage)-th smallest score; infinite where n rows are too few to promise this coverage.

    Examples
    --------
    >>> conformal_quantile(torch.arange(1.0, 20.0), 0.9), conformal_quantile(torch.arange(1.0, 9.0), 0.9)
    (18.0, inf)
    """
    rank = math.ceil((len(scores) + 1) * coverage - _ROUNDING)
    return scores.sort().values[rank - 1].item() if rank <= len(scores) else math.inf


# Highest-density sets -------------------------------------------------------------------------------------------


def density_level_scores(mixture: Mixture, y: Tensor) -> Float[Tensor, "n"]:
    """The level of the highest-density region with y on its edge: `hdr_level`; of vectors from draws.

    References
    ----------
    Izbicki, Shimizu and Stern (2022), CD-split and HPD-split, section 3.
    """
    generator = torch.Generator(mixture.device).manual_seed(_SEED)
    return hdr_level(mixture, y.to(mixture.dtype), _DRAWS, generator)


def density_level_set(mixture: Mixture, threshold: Float[Tensor, "n"]) -> Region | JointRegion:
    """The highest-density regions whose level is the threshold; everything from 1 on."""
    if isinstance(mixture.family, ScalarFamily):
        level = (threshold + _ROUNDING).clamp(1e-6, 1 - _ROUNDING)
        return _or_everything(mixture.highest_density_region(level), threshold >= 1 - _ROUNDING)
    # As many draws may be denser than y as the threshold says: y is as dense as the next one.
    n_denser = (threshold.clamp(max=1) * _DRAWS).round()
    is_everything = n_denser >= _DRAWS
    log_level = mixture.hdr_threshold(((n_denser + 0.5) / _DRAWS).clamp(max=1 - 0.5 / _DRAWS), _DRAWS)
    return joint_region(mixture, torch.where(is_everything, -torch.inf, log_level))


# Central intervals ----------------------------------------------------------------------------------------------


def interval_scores(mixture: Mixture, y: Tensor, coverage: float) -> Float[Tensor, "n"]:
    """How far y is outside of the central interval with this probability; negative inside.

    References
    ----------
    Romano, Patterson and Candès (2019), Conformalized quantile regression.
    """
    interval = mixture.central_interval(coverage)
    return torch.maximum(interval.lower[:, 0] - y, y - interval.upper[:, 0])


def interval_set(mixture: Mixture, threshold: Float[Tensor, "n"], coverage: float) -> Region:
    """The central intervals, longer by the threshold on either side; there is none where that makes it empty."""
    interval = mixture.central_interval(coverage)
    lower, upper = interval.lower - threshold[:, None], interval.upper + threshold[:, None]
    if not (isinstance(mixture.family, ScalarFamily) and mixture.family.is_discrete):  # rounding loses no y at an end
        eps = 4 * torch.finfo(mixture.dtype).eps
        lower = lower - eps * (interval.lower.abs() + threshold[:, None].abs())
        upper = upper + eps * (interval.upper.abs() + threshold[:, None].abs())
    is_empty = lower > upper
    lower, upper = (torch.where(is_empty, torch.nan, end) for end in (lower, upper))
    size = torch.where(is_empty[:, 0], 0, interval.size + 2 * threshold)
    return _or_everything(Region(lower, upper, size), threshold == torch.inf)


# Sets by density, cell by cell ----------------------------------------------------------------------------------


def density_scores(mixture: Mixture, y: Tensor) -> Float[Tensor, "n"]:
    """Minus the log density; at an atom and of a count minus the log mass."""
    return -mixture.log_prob(y.to(mixture.dtype))


def density_set(mixture: Mixture, threshold: Float[Tensor, "n"]) -> Region | JointRegion:
    """All that is at least as dense as exp(-threshold); it may be empty."""
    log_level = -threshold - _ROUNDING
    if not isinstance(mixture.family, ScalarFamily):
        return joint_region(mixture, log_level)
    is_everything = threshold == torch.inf
    region = region_above(mixture.family, mixture.detach(), torch.where(is_everything, 0, log_level))
    return _or_everything(region, is_everything)


@dataclass(frozen=True)
class Partition:
    """Cells of rows whose predicted densities have similar profiles: the quantiles of log p(Y) for Y of the density.

    Densities of one profile differ by where they lie and in what order, and a threshold of the density means the same
    for all of them.
    """

    centres: Float[Tensor, "cells levels"]

    @classmethod
    def fit(cls, profiles: Float[Tensor, "n levels"]) -> "Partition":
        """By k-means, each cell with at least 20 of these rows; one cell for every 250 / 4 rows, at most ten."""
        n_cells = min(_MOST_CELLS, max(1, int(len(profiles) // (_ROWS_OF_A_CELL * _SHARE_OF_THE_PARTITION))))
        n_cells = min(n_cells, len(profiles.round(decimals=6).unique(dim=0)))
        found = KMeans(n_cells, n_init=5, random_state=0).fit(profiles.numpy())
        centres = torch.as_tensor(found.cluster_centers_).to(profiles)
        counts = torch.bincount(torch.as_tensor(found.labels_).long(), minlength=n_cells)
        return cls(centres[counts >= min(_FEWEST_IN_A_CELL, int(counts.max()))])

    def cells(self, profiles: Float[Tensor, "n levels"]) -> Int[Tensor, "n"]:
        """The cell of each row."""
        return torch.cdist(profiles, self.centres).argmin(-1)


def split_for_partition(n: int) -> tuple[Tensor, Tensor]:
    """Rows that cells are made of, and the others, which alone say what a cell's threshold is.

    A cell that followed from the rows that are scored would be made to fit them better than those to come.
    """
    order = torch.randperm(n, generator=torch.Generator().manual_seed(_SEED))
    n_first = int(n * _SHARE_OF_THE_PARTITION) if n >= 2 * _ROWS_OF_A_CELL else 0
    return order[:n_first], order[n_first:]


def profiles_of(mixture: Mixture, seed: int) -> Float[Tensor, "n levels"]:
    """Quantiles of log p(Y): of numbers from evenly spread levels, of vectors from draws by this seed."""
    n = _LEVELS_OF_A_PROFILE
    levels = (torch.arange(n, dtype=mixture.dtype) + 0.5) / n
    if isinstance(mixture.family, ScalarFamily):
        values = mixture.log_prob(mixture.icdf(levels[:, None]))
    else:
        generator = torch.Generator(mixture.device).manual_seed(seed)
        values = mixture.log_prob(mixture.sample((_DRAWS_OF_A_PROFILE,), generator)).quantile(levels, 0)
    return values.sort(0).values.mT.nan_to_num(0, 1e3, -1e3).clamp(-1e3, 1e3)


def _or_everything(region: Region, is_everything: Tensor) -> Region:
    """The whole line where no threshold can be given."""
    lower, upper = region.lower.clone(), region.upper.clone()
    if not lower.shape[-1]:
        lower, upper = (torch.full((len(lower), 1), torch.nan, dtype=lower.dtype) for _ in range(2))
    lower[is_everything], upper[is_everything] = torch.nan, torch.nan
    lower[is_everything, 0], upper[is_everything, 0] = -torch.inf, torch.inf
    return Region(lower, upper, torch.where(is_everything, torch.inf, region.size))


def check_scalar(mixture: Mixture) -> None:
    """Raise ``E-scalar-only`` where intervals are asked of vectors."""
    if not isinstance(mixture.family, ScalarFamily):
        fix = 'take method="hpd_split", whose sets are joint regions'
        raise MixturaError("E-scalar-only", "intervals of a vector target", "a scalar target", fix)
