"""Student's t: a location and a scale like the normal law's, and tails that forgive outliers."""

import math
from dataclasses import dataclass

import scipy.special
import torch
from torch import Tensor
from torch.distributions import Distribution, StudentT

from .base import ScalarFamily
from .gamma import standard_gamma
from .normal import positive, positive_and_growth, shares, smallest_scale, standard_normal, unpositive, weighted_moments
from .special import betainc, betaincinv, deviance, log_betainc, stirling_error

_SMALLEST_RAW_DF, _LARGEST_RAW_DF = -7.0, 14.0
"""From a variance that just exists to a law that is normal to six digits."""
_LARGEST_W = 1e150
_SMALLEST_W = 1e-150
"""Of a standardised distance from the centre, so that its square neither overflows nor is 0."""
_LARGEST_FITTED_RAW_DF = 5.0
"""Where the likelihood hardly changes any more; a network that started farther out would not come back."""
_FIT_STEPS = 80


@dataclass(frozen=True, repr=False)
class StudentTFamily(ScalarFamily[StudentT]):
    """loc + scale*T with T Student's t of df degrees of freedom: 3 raw parameters, of loc, of scale and of df.

    df is `df_floor` plus an exponential, hence above 2 by default, so that the variance exists; the third moment is NaN
    where df <= 3. The tails fall like |y|^-(df+1), which bounds what one outlier can do to a fit.

    References
    ----------
    Lange, Little and Taylor (1989), Robust statistical modeling using the t distribution, JASA 84.
    """

    name = "student_t"

    df_floor: float = 2.0

    def owns(self, components: Distribution) -> bool:
        return type(components) is StudentT

    def n_raw(self, event_size: int | None) -> int:
        return 3

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> StudentT:
        df = self.df_floor + raw[..., 2].clamp(_SMALLEST_RAW_DF, _LARGEST_RAW_DF).exp()
        return self.from_parameters(df, raw[..., 0], positive(raw[..., 1], scale_floor))

    def unbuild(self, components, scale_floor: Tensor | float = 0.0):
        raw_df = (components.df - self.df_floor).clamp(min=math.exp(_SMALLEST_RAW_DF)).log()
        raw_df = raw_df.clamp(_SMALLEST_RAW_DF, _LARGEST_RAW_DF)
        return torch.stack([components.loc, unpositive(components.scale, scale_floor), raw_df], -1)

    def log_prob_and_slopes(self, raw, scale_floor, y):
        # In float64, as `log_prob`: where df is large, its slope is a small difference of digamma functions.
        raw, floor = raw.double(), torch.as_tensor(scale_floor, dtype=torch.float64)
        scale, growth = positive_and_growth(raw[..., 1], floor)
        above_floor = raw[..., 2].clamp(_SMALLEST_RAW_DF, _LARGEST_RAW_DF).exp()
        df = self.df_floor + above_floor
        log_prob = self.log_prob(self.from_parameters(df, raw[..., 0], scale), y)
        z = ((y - raw[..., 0]) / scale).clamp(-_LARGEST_W, _LARGEST_W)
        square = z.square()
        closeness = (df + 1) / (df + square)
        of_df = torch.digamma(0.5 * (df + 1)) - torch.digamma(0.5 * df) - torch.log1p(square / df)
        of_df = 0.5 * above_floor * (of_df + (closeness * square - 1) / df)
        is_held = (raw[..., 2] < _SMALLEST_RAW_DF) | (raw[..., 2] > _LARGEST_RAW_DF)
        slopes = [closeness * z / scale, growth / scale * (closeness * square - 1), of_df.masked_fill_(is_held, 0)]
        return log_prob.to(y.dtype), torch.stack(slopes).movedim(0, -1).to(y.dtype)

    def fit(self, y, weights) -> StudentT:
        """ECM (Liu and Rubin 1995): loc and scale by weights that shrink with distance, df by its score's sign."""
        share = shares(weights)
        loc, covariance = weighted_moments(y[:, None], share)
        loc, scale = loc[:, 0], covariance[:, 0, 0].sqrt()
        floor = smallest_scale(y[:, None])
        log_df, stride = torch.full_like(loc, math.log(4.0)), torch.ones_like(loc)
        was_up = torch.ones_like(loc, dtype=torch.bool)
        for _ in range(_FIT_STEPS):
            df = self.df_floor + log_df.exp()
            squared = ((y[:, None] - loc) / scale).square()
            pull = share * (df + 1) / (df + squared)
            sum_pull = pull.sum(0)
            loc = torch.where(sum_pull > 0, (pull * y[:, None]).sum(0) / sum_pull.clamp(min=1e-300), loc)
            scale = (pull * (y[:, None] - loc).square()).sum(0).sqrt().clamp(min=floor)
            squared = ((y[:, None] - loc) / scale).square()
            gain = (share * (torch.log1p(squared / df) - (df + 1) * squared / (df * (df + squared)))).sum(0)
            slope = torch.digamma((df + 1) / 2) - torch.digamma(df / 2) - 1 / df - gain
            is_up = slope > 0
            stride = torch.where(is_up == was_up, 1.2 * stride, 0.5 * stride).clamp(max=1)
            was_up = is_up
            log_df = (log_df + torch.where(is_up, stride, -stride)).clamp(_SMALLEST_RAW_DF, _LARGEST_FITTED_RAW_DF)
        return self.from_parameters(self.df_floor + log_df.exp(), loc, scale)

    def parameters(self, components):
        return components.df, components.loc, components.scale

    def from_parameters(self, *parameters: Tensor) -> StudentT:
        return StudentT(*parameters, validate_args=False)

    def log_prob(self, components, y):
        df, w = _standardise(components, y)
        half, more = 0.5 * df, 0.5 * (df + 1)
        # log Γ(half + 1/2) - log Γ(half) - log(half)/2: as a difference of two it has no digits where df is large.
        rise = stirling_error(more) - stirling_error(half) - deviance(half, more, torch.full_like(half, 0.5))
        norm = rise - 0.5 * math.log(2 * math.pi) - components.scale.double().log()
        is_far = w.abs() > 1
        near, far = torch.where(is_far, 1, w), torch.where(is_far, w.abs(), 1)
        log_distance = torch.where(is_far, 2 * far.log() + torch.log1p(far**-2), torch.log1p(near.square()))
        return (norm - more * log_distance).to(_dtype(components, y))

    def cdf(self, components, y):
        df, w = _standardise(components, y)
        return _lower(df, w).to(_dtype(components, y))

    def survival(self, components, y):
        df, w = _standardise(components, y)
        return _lower(df, -w).to(_dtype(components, y))

    def log_cdf(self, components, y):
        df, w = _standardise(components, y)
        return _log_lower(df, w).to(_dtype(components, y))

    def log_survival(self, components, y):
        df, w = _standardise(components, y)
        return _log_lower(df, -w).to(_dtype(components, y))

    def icdf(self, components, q):
        return components.loc + components.scale * _standard_quantile(components.df, q)

    def isf(self, components, q):
        return components.loc - components.scale * _standard_quantile(components.df, q)

    def third_moment(self, components):
        return torch.where(components.df > 3, torch.zeros_like(components.loc), torch.nan)

    def sample(self, components, generator=None):
        half = 0.5 * components.df
        shrink = (standard_gamma(half, generator) / half).clamp(min=torch.finfo(half.dtype).tiny)
        return components.loc + components.scale * standard_normal(half, generator) * shrink.rsqrt()

    def affine(self, components, a, b) -> StudentT:
        return self.from_parameters(components.df, a + b * components.loc, b.abs() * components.scale)

    def widen(self, components, factor) -> StudentT:
        return self.from_parameters(components.df, components.loc, factor * components.scale)


def _dtype(components: StudentT, y: Tensor) -> torch.dtype:
    return torch.promote_types(components.loc.dtype, y.dtype)


def _standardise(components: StudentT, y: Tensor) -> tuple[Tensor, Tensor]:
    """df and the distance from the centre in units of scale*sqrt(df), in float64."""
    df, loc, scale = (parameter.double() for parameter in (components.df, components.loc, components.scale))
    return df, (y.double() - loc) / (scale * df.sqrt())


def _beta_arguments(df: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Those of the incomplete beta function that is P(|T| > sqrt(df)*|w|) (DLMF 8.17.2; Johnson et al. 1995, 28.2)."""
    magnitude = torch.where(w < 0, -w, w).clamp(max=_LARGEST_W) + _SMALLEST_W  # nowhere 0, for the gradient
    square = magnitude.square()
    return 0.5 * df, torch.full_like(df, 0.5), 1 / (1 + square), square / (1 + square)


def _lower(df: Tensor, w: Tensor) -> Tensor:
    if not (torch.is_grad_enabled() and (df.requires_grad or w.requires_grad)):
        df, t = torch.broadcast_tensors(df, w * df.sqrt())
        return torch.as_tensor(scipy.special.stdtr(df.numpy(force=True), t.numpy(force=True)), device=df.device)
    tail = torch.where(w.isinf(), 0, 0.5 * betainc(*_beta_arguments(df, w)))
    return torch.where(w < 0, tail, 1 - tail)


def _log_lower(df: Tensor, w: Tensor) -> Tensor:
    log_tail = torch.where(w.isinf(), -torch.inf, log_betainc(*_beta_arguments(df, w)) - math.log(2))
    is_low = w < 0
    high = torch.where(is_low, -1, log_tail)
    return torch.where(is_low, log_tail, torch.log1p(-high.exp()))


def _standard_quantile(df: Tensor, q: Tensor) -> Tensor:
    """The quantile of T at level q, from the nearer tail."""
    df, q, like = df.double(), q.double(), torch.promote_types(df.dtype, q.dtype)
    x, xc = betaincinv(0.5 * df, torch.full_like(df, 0.5), 2 * torch.minimum(q, 1 - q))
    distance = (df * (xc / x)).sqrt()
    return torch.where(q < 0.5, -distance, distance).to(like)
