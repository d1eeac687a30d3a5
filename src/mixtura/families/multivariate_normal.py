"""Normal laws of a vector target: full (Cholesky), diagonal and spherical covariance."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from .base import VectorFamily
from .normal import (
    normal_log_density,
    normal_slopes,
    positive,
    positive_and_growth,
    standard_normal,
    unpositive,
    weighted_moments,
)
from .triangular import TriangularFamily, raw_from_triangle, triangle_from_raw, triangle_slopes, whiten


class FullNormalFamily(TriangularFamily[MultivariateNormal]):
    """N(loc, L L^T) with L lower triangular and positive on its diagonal, hence positive definite.

    Raw parameters: D of loc, D of L_ii, D(D-1)/2 below the diagonal, row by row.
    L_ii is the standard deviation of y_i given y_1..y_(i-1), so that the floor bounds the determinant too.
    """

    name = "normal"

    def owns(self, components: Distribution) -> bool:
        return type(components) is MultivariateNormal

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> MultivariateNormal:
        return self.from_parameters(*triangle_from_raw(raw, scale_floor))

    def unbuild(self, components, scale_floor: Tensor | float = 0.0):
        return raw_from_triangle(components.loc, components.scale_tril, scale_floor)

    def log_prob_and_slopes(self, raw, scale_floor, y):
        z, diagonal, slopes, of_log_diagonal = triangle_slopes(raw, scale_floor, y)
        d = z.shape[-1]
        slopes[..., d : 2 * d].sub_(of_log_diagonal)
        return normal_log_density(z, diagonal.log()).sum(-1), slopes

    def fit(self, y, weights) -> MultivariateNormal:
        loc, covariance = weighted_moments(y, weights)
        return self.from_parameters(loc, torch.linalg.cholesky(covariance))

    def parameters(self, components):
        return components.loc, components.scale_tril

    def from_parameters(self, *parameters: Tensor) -> MultivariateNormal:
        loc, scale_tril = parameters
        return MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)

    def log_prob(self, components, y):
        z = whiten(components.scale_tril, y - components.loc)
        return normal_log_density(z, components.scale_tril.diagonal(dim1=-2, dim2=-1).log()).sum(-1)

    def sample(self, components, generator=None):
        z = standard_normal(components.loc, generator)
        return components.loc + (components.scale_tril @ z[..., None])[..., 0]

    def covariance(self, components):
        return components.scale_tril @ components.scale_tril.mT

    def marginal(self, components, dim) -> Normal:
        return Normal(components.loc[..., dim], components.scale_tril[..., dim, :].norm(dim=-1), validate_args=False)

    def condition(
        self, components: MultivariateNormal, n_known: int, values: Tensor
    ) -> tuple[Tensor, MultivariateNormal]:
        z, diagonal, loc, scale_tril = self.regress(components, n_known, values)
        return normal_log_density(z, diagonal.log()).sum(-1), self.from_parameters(loc, scale_tril)


class DiagNormalFamily(VectorFamily[Independent]):
    """Independent normals for each coordinate: D of loc, D of scale. The usual choice when D is large."""

    name = "normal"
    covariance_type = "diag"

    def owns(self, components: Distribution) -> bool:
        return (
            isinstance(components, Independent)
            and components.reinterpreted_batch_ndims == 1
            and type(components.base_dist) is Normal
        )

    def n_raw(self, event_size: int | None) -> int:
        return 2 * (event_size or 1)

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> Independent:
        loc, raw_scale = raw.chunk(2, -1)
        return self.from_parameters(loc, positive(raw_scale, scale_floor))

    def unbuild(self, components, scale_floor: Tensor | float = 0.0):
        loc, scale = self.parameters(components)
        return torch.cat([loc, unpositive(scale, scale_floor)], -1)

    def log_prob_and_slopes(self, raw, scale_floor, y):
        raw_loc, raw_scale = raw.chunk(2, -1)
        log_prob, *slopes = normal_slopes(raw_loc, positive_and_growth(raw_scale, scale_floor), y)
        return log_prob.sum(-1), torch.cat(slopes, -1)

    def fit(self, y, weights) -> Independent:
        loc, covariance = weighted_moments(y, weights)
        return self.from_parameters(loc, covariance.diagonal(dim1=-2, dim2=-1).sqrt())

    def parameters(self, components):
        base: Normal = components.base_dist  # pyright: ignore[reportAssignmentType]
        return base.loc, base.scale

    def from_parameters(self, *parameters: Tensor) -> Independent:
        loc, scale = parameters
        return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)

    def log_prob(self, components, y):
        loc, scale = self.parameters(components)
        return normal_log_density((y - loc) / scale, scale.log()).sum(-1)

    def sample(self, components, generator=None):
        loc, scale = self.parameters(components)
        return loc + scale * standard_normal(loc, generator)

    def affine(self, components, a, b) -> Independent:
        loc, scale = self.parameters(components)
        return self.from_parameters(a + b * loc, b.abs() * scale)

    def covariance(self, components):
        return torch.diag_embed(self.parameters(components)[1].square())

    def marginal(self, components, dim) -> Normal:
        loc, scale = self.parameters(components)
        return Normal(loc[..., dim], scale[..., dim], validate_args=False)

    def take(self, components, dims: Sequence[int]) -> Independent:
        return self.map(components, lambda parameter: parameter[..., list(dims)])

    def condition(self, components: Independent, n_known: int, values: Tensor) -> tuple[Tensor, Independent]:
        known = self.map(components, lambda parameter: parameter[..., :n_known])
        log_prob = self.log_prob(known, values)
        others = self.map(components, lambda parameter: parameter[..., n_known:])
        return log_prob, self.map(others, lambda parameter: parameter.expand(*log_prob.shape, parameter.shape[-1]))


class SphericalNormalFamily(DiagNormalFamily):
    """One scale for all coordinates: D of loc, 1 of scale. Afterwards it is a diagonal law like any."""

    covariance_type = "spherical"

    def n_raw(self, event_size: int | None) -> int:
        return (event_size or 1) + 1

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> Independent:
        loc, raw_scale = raw[..., :-1], raw[..., -1:]
        return self.from_parameters(loc, positive(raw_scale, _largest(scale_floor)).expand(loc.shape))

    def unbuild(self, components, scale_floor: Tensor | float = 0.0):
        loc, scale = self.parameters(components)
        return torch.cat([loc, unpositive(scale[..., :1], _largest(scale_floor))], -1)

    def log_prob_and_slopes(self, raw, scale_floor, y):
        log_prob, of_loc, of_scale = normal_slopes(
            raw[..., :-1], positive_and_growth(raw[..., -1:], _largest(scale_floor)), y
        )
        return log_prob.sum(-1), torch.cat([of_loc, of_scale.sum(-1, keepdim=True)], -1)

    def fit(self, y, weights) -> Independent:
        loc, covariance = weighted_moments(y, weights)
        variance = covariance.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
        return self.from_parameters(loc, variance.sqrt().expand(loc.shape))


def _largest(scale_floor: Tensor | float) -> Tensor | float:
    """One floor for one scale: the largest of a floor given by coordinate."""
    return scale_floor.max() if isinstance(scale_floor, Tensor) else scale_floor
