"""The Student t law of a vector: the full normal law with heavy tails."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, StudentT, constraints

from .normal import positive, positive_and_growth, shares, smallest_scale, standard_normal, unpositive, weighted_moments
from .special import stirling_error
from .triangular import TriangularFamily, raw_from_triangle, triangle_from_raw, triangle_slopes, whiten

_N_EM_STEPS = 15
_FIT_START_DF = 8.0
_FIT_DF_MARGIN = 0.1
"""`fit` keeps this distance from the least df: at it a network would not learn any more."""
_FIT_MOST_DF = 100.0


class MultivariateStudentT(Distribution):
    """t_df(loc, L L^T): `df` of shape (*B,), `loc` (*B, D), `scale_tril` L (*B, D, D)."""

    arg_constraints: ClassVar[dict[str, Any]] = {}  # pyright: ignore
    support = constraints.real_vector  # pyright: ignore

    def __init__(self, df: Tensor, loc: Tensor, scale_tril: Tensor, validate_args: bool | None = None):
        self.df, self.loc, self.scale_tril = df, loc, scale_tril
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return torch.where(self.df[..., None] > 1, self.loc, torch.nan)

    @property
    def variance(self) -> Tensor:
        return variance_ratio(self.df)[..., None] * self.scale_tril.square().sum(-1)

    def expand(self, batch_shape, _instance=None) -> "MultivariateStudentT":
        n_batch_axes = len(self.batch_shape)
        tensors = (self.df, self.loc, self.scale_tril)
        return MultivariateStudentT(
            *(t.expand(*batch_shape, *t.shape[n_batch_axes:]) for t in tensors), validate_args=False
        )


@dataclass(frozen=True, repr=False)
class MultivariateStudentTFamily(TriangularFamily[MultivariateStudentT]):
    """t_df(loc, L L^T), the law of loc + L z / sqrt(u) with z standard normal and u = chi^2_df / df.

    Raw parameters: 1 of df, which stays above `df_floor`, then as the full normal law: D of loc, D of L_ii,
    D(D-1)/2 below the diagonal. The covariance is df/(df - 2) L L^T. (Kotz and Nadarajah 2004.)
    """

    df_floor: float = 2.0

    name = "student_t"

    def owns(self, components: Distribution) -> bool:
        return type(components) is MultivariateStudentT

    def n_raw(self, event_size: int | None) -> int:
        return 1 + super().n_raw(event_size)

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> MultivariateStudentT:
        return self.from_parameters(positive(raw[..., 0], self.df_floor), *triangle_from_raw(raw[..., 1:], scale_floor))

    def unbuild(self, components, scale_floor: Tensor | float = 0.0):
        df, loc, scale_tril = self.parameters(components)
        raw_df = unpositive(df, self.df_floor)[..., None]
        return torch.cat([raw_df, raw_from_triangle(loc, scale_tril, scale_floor)], -1)

    def log_prob_and_slopes(self, raw, scale_floor, y):
        df, growth = positive_and_growth(raw[..., 0], self.df_floor)
        z, diagonal, slopes, of_log_diagonal = triangle_slopes(raw[..., 1:], scale_floor, y)
        d, distance = z.shape[-1], z.square().sum(-1)
        closeness = (df + d) / (df + distance)
        slopes.mul_(closeness.unsqueeze(-1))[..., d : 2 * d].sub_(of_log_diagonal)
        of_df = torch.digamma(0.5 * (df + d)) - torch.digamma(0.5 * df) - torch.log1p(distance / df)
        of_df = 0.5 * growth * (of_df + (closeness * distance - d) / df)
        return _log_density(df, z, diagonal), torch.cat([of_df.unsqueeze(-1), slopes], -1)

    def fit(self, y, weights) -> MultivariateStudentT:
        """EM with weights as missing data, scaled for speed (Kent, Tyler and Vardi 1994), and each time one step of
        Newton's method for log df on the likelihood itself (Liu and Rubin 1995)."""
        d = y.shape[1]
        share = shares(weights)
        loc, covariance = weighted_moments(y, weights)
        ridge = torch.diag_embed(smallest_scale(y).square())
        least = self.df_floor + _FIT_DF_MARGIN
        df = torch.full_like(loc[:, 0], max(_FIT_START_DF, least))
        for _ in range(_N_EM_STEPS):
            deviation = y[:, None] - loc
            distance = whiten(torch.linalg.cholesky(covariance), deviation).square().sum(-1)
            df = _newton_step(df, d, distance, share).clamp(least, max(_FIT_MOST_DF, least))
            closeness = share * (df + d) / (df + distance)
            total = closeness.sum(0).clamp(min=torch.finfo(y.dtype).tiny)
            loc = torch.einsum("nk,nd->kd", closeness, y) / total[:, None]
            deviation = y[:, None] - loc
            covariance = torch.einsum("nk,nkd,nke->kde", closeness, deviation, deviation) / total[:, None, None] + ridge
        return self.from_parameters(df, loc, torch.linalg.cholesky(covariance))

    def parameters(self, components):
        return components.df, components.loc, components.scale_tril

    def from_parameters(self, *parameters: Tensor) -> MultivariateStudentT:
        return MultivariateStudentT(*parameters, validate_args=False)

    def log_prob(self, components, y):
        z = whiten(components.scale_tril, y - components.loc)
        return _log_density(components.df, z, components.scale_tril.diagonal(dim1=-2, dim2=-1))

    def sample(self, components, generator=None):
        df, loc, scale_tril = self.parameters(components)
        z = (scale_tril @ standard_normal(loc, generator)[..., None])[..., 0]
        # torch's own law of chi^2 draws from the global generator alone.
        chi2 = 2 * torch._standard_gamma(0.5 * df, generator=generator)  # pyright: ignore[reportPrivateImportUsage]
        return loc + z * (df / chi2.clamp(min=torch.finfo(df.dtype).tiny)).sqrt()[..., None]

    def covariance(self, components):
        scale_tril = components.scale_tril
        return variance_ratio(components.df)[..., None, None] * (scale_tril @ scale_tril.mT)

    def marginal(self, components, dim) -> StudentT:
        df, loc, scale_tril = self.parameters(components)
        return StudentT(df, loc[..., dim], scale_tril[..., dim, :].norm(dim=-1), validate_args=False)

    def condition(
        self, components: MultivariateStudentT, n_known: int, values: Tensor
    ) -> tuple[Tensor, MultivariateStudentT]:
        """The further out the known coordinates are, the wider the law of the others (Ding 2016)."""
        z, diagonal, loc, scale_tril = self.regress(components, n_known, values)
        df = (components.df + n_known).expand(loc.shape[:-1])
        wider = ((components.df + z.square().sum(-1)) / df).sqrt()
        return _log_density(components.df, z, diagonal), self.from_parameters(
            df, loc, wider[..., None, None] * scale_tril
        )


def variance_ratio(df: Tensor) -> Tensor:
    """Variance over squared scale: infinite for 1 < df <= 2, not there below."""
    ratio = torch.where(df > 2, df / (df - 2).clamp(min=torch.finfo(df.dtype).tiny), torch.inf)
    return torch.where(df > 1, ratio, torch.nan)


def _log_density(df: Tensor, z: Tensor, diagonal: Tensor) -> Tensor:
    """Of L z at the whitened z, given L's diagonal."""
    d = z.shape[-1]
    log_normalizer = _log_gamma_ratio(0.5 * df, 0.5 * d) - 0.5 * d * math.log(2 * math.pi) - diagonal.log().sum(-1)
    # log(1 + |z|^2 / df); beyond the unit `far`, in which squares do not overflow, in terms of |z| / far.
    far = (z.detach().abs().amax(-1) * torch.finfo(z.dtype).max ** -0.25).clamp(min=1)
    distance = (z / far[..., None]).square().sum(-1)
    log_distance = torch.log1p(distance / df + (far**-2 - 1)) + 2 * far.log()
    return log_normalizer - 0.5 * (df + d) * log_distance


def _log_gamma_ratio(x: Tensor, a: float) -> Tensor:
    """log(Gamma(x + a) / (Gamma(x) x^a)): near 0 for large x, where the difference of the two would lose all digits."""
    return (x + (a - 0.5)) * torch.log1p(a / x) - a + (stirling_error(x + a) - stirling_error(x))


def _newton_step(
    df: Float[Tensor, " k"], d: int, distance: Float[Tensor, "n k"], share: Float[Tensor, "n k"]
) -> Float[Tensor, " k"]:
    """Towards the df of largest likelihood, from squared distances of weighted rows; at most by a factor."""
    x, a = 0.5 * df, 0.5 * d
    pull = distance / (df * (df + distance))
    log_term = (share * torch.log1p(distance / df)).sum(0)
    first, second = (share * pull).sum(0), (share * pull * (1 / df + 1 / (df + distance))).sum(0)
    slope = torch.digamma(x + a) - torch.digamma(x) - d / df - log_term + (df + d) * first
    bend = 0.5 * (torch.polygamma(1, x + a) - torch.polygamma(1, x)) + d / df**2 + 2 * first - (df + d) * second
    in_log = df * bend + slope
    step = torch.where(in_log < 0, -slope / in_log, slope.sign())
    return df * step.clamp(-0.7, 0.7).exp()
