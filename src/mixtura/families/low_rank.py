"""The normal law of a vector whose coordinates move together through a few common factors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints

from .base import Family, VectorFamily
from .normal import normal_log_density, positive, smallest_scale, standard_normal, unpositive, weighted_moments

_N_EM_STEPS = 50
_SMALLEST_SHARE = 1e-2
"""Of a factor's variance where `fit` starts: from a factor of exactly 0 neither EM nor a network moves on."""


class LowRankNormal(Distribution):
    """N(loc, W W^T + diag(scale^2)): `scale` of shape (*B, D), `cov_factor` W of shape (*B, D, rank)."""

    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore
    support = constraints.real_vector  # pyright: ignore

    def __init__(self, loc: Tensor, cov_factor: Tensor, scale: Tensor, validate_args: bool | None = None):
        self.loc, self.cov_factor, self.scale = loc, cov_factor, scale
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale.square() + self.cov_factor.square().sum(-1)

    def expand(self, batch_shape, _instance=None) -> "LowRankNormal":
        n_batch_axes = len(self.batch_shape)
        tensors = (self.loc, self.cov_factor, self.scale)
        return LowRankNormal(*(t.expand(*batch_shape, *t.shape[n_batch_axes:]) for t in tensors), validate_args=False)


@dataclass(frozen=True, repr=False)
class LowRankNormalFamily(VectorFamily[LowRankNormal]):
    """N(loc, W W^T + diag(scale^2)): the law of loc + W f + scale*e, with `rank` standard normal factors f.

    Raw parameters: D of loc, D of scale, D*rank of W, row by row. Time and memory grow with D*rank^2, not with D^3.
    (Ghahramani and Hinton 1996, mixtures of factor analysers.)
    """

    rank: int = 1

    name = "normal"
    covariance_type = "low_rank"

    def owns(self, components: Distribution) -> bool:
        return type(components) is LowRankNormal

    def of(self, components, family_of) -> Family[LowRankNormal]:
        return LowRankNormalFamily(components.cov_factor.shape[-1])

    def n_raw(self, event_size: int | None) -> int:
        return (event_size or 1) * (2 + self.rank)

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> LowRankNormal:
        d = raw.shape[-1] // (2 + self.rank)
        loc, raw_scale, factor = raw.split([d, d, d * self.rank], -1)
        return self.from_parameters(loc, factor.unflatten(-1, (d, self.rank)), positive(raw_scale, scale_floor))

    def unbuild(self, components, scale_floor: Tensor | float = 0.0):
        raw_scale = unpositive(components.scale, scale_floor)
        return torch.cat([components.loc, raw_scale, components.cov_factor.flatten(-2)], -1)

    def fit(self, y, weights) -> LowRankNormal:
        """EM for factor analysis on correlations, from their principal components (Rubin and Thayer 1982)."""
        loc, covariance = weighted_moments(y, weights)
        stddev = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
        correlation = covariance / (stddev[:, :, None] * stddev[:, None, :])
        floor = (smallest_scale(y) / stddev).square()
        variances, directions = torch.linalg.eigh(correlation)
        n = min(self.rank, y.shape[1])
        noise = variances[:, : y.shape[1] - n].sum(-1, keepdim=True) / max(y.shape[1] - n, 1)
        factor = directions[:, :, -n:] * (variances[:, -n:] - noise).clamp(min=_SMALLEST_SHARE).sqrt()[:, None, :]
        factor = torch.nn.functional.pad(factor, (0, self.rank - n))
        unique = (1 - factor.square().sum(-1)).maximum(floor)
        one = torch.eye(self.rank, dtype=y.dtype, device=y.device)
        for _ in range(_N_EM_STEPS):
            scaled = factor / unique[:, :, None]
            regression = torch.linalg.solve(one + factor.mT @ scaled, scaled.mT)  # E[f | y] of a standardised y
            crossed = correlation @ regression.mT
            second_moment = one - regression @ factor + regression @ crossed
            factor = torch.linalg.solve(second_moment, crossed.mT).mT
            unique = (1 - (factor * crossed).sum(-1)).maximum(floor)
        return self.from_parameters(loc, stddev[:, :, None] * factor, stddev * unique.sqrt())

    def parameters(self, components):
        return components.loc, components.cov_factor, components.scale

    def from_parameters(self, *parameters: Tensor) -> LowRankNormal:
        return LowRankNormal(*parameters, validate_args=False)

    def log_prob(self, components, y):
        z, factors, _, log_det = _regress(components, y)
        return normal_log_density(z, components.scale.log()).sum(-1) - 0.5 * factors.square().sum(-1) - log_det

    def sample(self, components, generator=None):
        factors = standard_normal(components.cov_factor[..., :1, :], generator)
        common = (components.cov_factor * factors).sum(-1)
        return components.loc + common + components.scale * standard_normal(components.loc, generator)

    def affine(self, components, a, b) -> LowRankNormal:
        factor = b[..., None] * components.cov_factor
        return self.from_parameters(a + b * components.loc, factor, b.abs() * components.scale)

    def covariance(self, components):
        factor = components.cov_factor
        return factor @ factor.mT + torch.diag_embed(components.scale.square())

    def marginal(self, components, dim) -> Normal:
        both = torch.cat([components.scale[..., dim, None], components.cov_factor[..., dim, :]], -1)
        return Normal(components.loc[..., dim], both.norm(dim=-1), validate_args=False)

    def take(self, components, dims: Sequence[int]) -> LowRankNormal:
        loc, factor, scale = self.parameters(components)
        dims = list(dims)
        return self.from_parameters(loc[..., dims], factor[..., dims, :], scale[..., dims])

    def condition(self, components: LowRankNormal, n_known: int, values: Tensor) -> tuple[Tensor, LowRankNormal]:
        """The factors given the known coordinates are normal; the others know of these through the factors alone."""
        known = self.take(components, range(n_known))
        loc, factor, scale = self.parameters(self.take(components, range(n_known, components.event_shape[0])))
        _, factors, root, _ = _regress(known, values)
        loc = loc + (factor * factors[..., None, :]).sum(-1)
        factor = (factor @ root).expand(*loc.shape, factor.shape[-1])
        return self.log_prob(known, values), self.from_parameters(loc, factor, scale.expand(loc.shape))


def _regress(components: LowRankNormal, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Standardised residuals of y given the factors at their posterior mean, that mean, a root of their posterior
    covariance, and log det(I + A^T A) / 2 with A = W/scale.

    By modified Gram-Schmidt of B = (A; I) = Q R and of (z; 0) against it: no squares to be inverted, and as the
    I keeps each column at least of length 1, nothing is ever singular. What is left of (z; 0) is the least-squares
    residual, whose square is the Mahalanobis distance; below, it is less the posterior mean; Q below is R^-1.
    """
    d, rank = components.cov_factor.shape[-2:]
    design = components.cov_factor / components.scale[..., None]
    one = torch.eye(rank, dtype=design.dtype, device=design.device).expand(*design.shape[:-2], rank, rank)
    rest = torch.nn.functional.pad((y - components.loc) / components.scale, (0, rank))
    log_det = torch.zeros_like(components.scale[..., 0])
    done: list[Tensor] = []
    for column in torch.cat([design, one], -2).unbind(-1):
        for earlier in done:
            column = column - (column * earlier).sum(-1, keepdim=True) * earlier
        length = column.norm(dim=-1, keepdim=True)
        column = column / length
        rest = rest - (rest * column).sum(-1, keepdim=True) * column
        log_det = log_det + length[..., 0].log()
        done.append(column)
    return rest[..., :d], -rest[..., d:], torch.stack(done, -1)[..., d:, :], log_det
