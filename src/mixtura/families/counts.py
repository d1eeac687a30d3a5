"""Laws of counts: Poisson, and the negative binomial for counts that vary more than it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution, NegativeBinomial, Poisson

from .base import Law, ScalarFamily
from .gamma import standard_gamma
from .normal import shares
from .special import betainc, gammainc, gammaincc, log_betainc, log_binomial, log_gammainc, log_gammaincc, log_poisson

_LARGEST_LOG_MEAN = 20.0
_SMALLEST_LOG_COUNT, _LARGEST_LOG_COUNT = -7.0, 14.0
"""Of `total_count`: at the largest the law is Poisson to six digits for means of the order of 1."""
_LARGEST_FITTED_RATIO = 150.0
"""Of total_count to mean: beyond it the likelihood hardly changes, and a network would not come back."""
_NEWTON_STEPS = 30
_MOST_STEPS = 1100
"""Of a search that doubles its stride, then halves it, over all floats."""


class _CountFamily(ScalarFamily[Law]):
    """What laws on 0, 1, 2, ... share; a subclass says how the answers come from whole numbers k >= 0."""

    closed_under = "none"
    is_discrete = True

    def log_mass(self, components: Law, k: Tensor) -> Tensor:
        """Log probability of k, in float64."""
        raise NotImplementedError

    def tail(self, components: Law, k: Tensor, is_upper: bool, is_log: bool) -> Tensor:
        """P(Y <= k), or P(Y > k), or the logarithm of either, in float64."""
        raise NotImplementedError

    def _dtype(self, components: Law, y: Tensor) -> torch.dtype:
        return torch.promote_types(self.parameters(components)[0].dtype, y.dtype)

    def log_prob(self, components, y):
        is_count = (y >= 0) & (y == y.floor()) & (y < torch.inf)
        log_mass = self.log_mass(components, torch.where(is_count, y, 0).double())
        return torch.where(is_count, log_mass, -torch.inf).to(self._dtype(components, y))

    def _answer(self, components: Law, y: Tensor, is_upper: bool, is_log: bool) -> Tensor:
        is_inside = (y >= 0) & (y < torch.inf)
        inside = self.tail(components, torch.where(is_inside, y, 0).double().floor(), is_upper, is_log)
        nothing = -torch.inf if is_log else 0.0
        everything = 0.0 if is_log else 1.0
        below, above = (everything, nothing) if is_upper else (nothing, everything)
        outside = torch.where(y < 0, torch.full_like(inside, below), above)
        return torch.where(is_inside, inside, outside).to(self._dtype(components, y))

    def cdf(self, components, y):
        return self._answer(components, y, False, False)

    def survival(self, components, y):
        return self._answer(components, y, True, False)

    def log_cdf(self, components, y):
        return self._answer(components, y, False, True)

    def log_survival(self, components, y):
        return self._answer(components, y, True, True)

    def icdf(self, components, q):
        return self._least(components, q, lambda k: self.tail(components, k, False, False) >= q, q >= 1)

    def isf(self, components, q):
        return self._least(components, q, lambda k: self.tail(components, k, True, False) <= q, q <= 0)

    @torch.no_grad()
    def _least(self, components: Law, q: Tensor, is_reached: Callable[[Tensor], Tensor], is_never: Tensor) -> Tensor:
        """The least count at which something monotone is reached: a bracket grown from the mean, then halved."""
        stride = components.stddev.double().floor() + 1
        high = (components.mean.double() + torch.zeros_like(q)).floor()
        stride, is_never = torch.broadcast_to(stride, high.shape), torch.broadcast_to(is_never, high.shape)
        low, is_open = torch.full_like(high, -1), ~is_never
        # Upwards while it is not reached, downwards while it is; the other end is then known.
        was_reached = is_reached(high)
        low = torch.where(was_reached, low, high)
        for _ in range(_MOST_STEPS):
            trial = torch.where(was_reached, (high - stride).clamp(min=-1), low + stride)
            now = is_reached(trial.clamp(min=0)) & (trial >= 0)
            high = torch.where(is_open & now, trial, high)
            low = torch.where(is_open & ~now, trial, low)
            is_open = is_open & (now == was_reached)
            if not bool(is_open.any()):
                break
            stride = 2 * stride
        for _ in range(_MOST_STEPS):
            middle = (low + 0.5 * (high - low)).floor()
            is_open = (middle > low) & (middle < high) & ~is_never
            if not bool(is_open.any()):
                break
            now = is_reached(middle.clamp(min=0))
            high, low = torch.where(is_open & now, middle, high), torch.where(is_open & ~now, middle, low)
        return torch.where(is_never, torch.inf, high).to(self._dtype(components, q))

    def support(self, components):
        return torch.zeros_like(components.mean), torch.full_like(components.mean, torch.inf)

    def affine(self, components, a, b):
        return components


class PoissonFamily(_CountFamily[Poisson]):
    """Poisson(rate) on 0, 1, 2, ...: 1 raw parameter, the logarithm of its rate."""

    name = "poisson"

    def owns(self, components: Distribution) -> bool:
        return type(components) is Poisson

    def n_raw(self, event_size: int | None) -> int:
        return 1

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> Poisson:
        return self.from_parameters(raw[..., 0].clamp(-_LARGEST_LOG_MEAN, _LARGEST_LOG_MEAN).exp())

    def unbuild(self, components, scale_floor: Tensor | float = 0.0):
        return components.rate.log().clamp(-_LARGEST_LOG_MEAN, _LARGEST_LOG_MEAN)[..., None]

    def fit(self, y, weights) -> Poisson:
        return self.from_parameters(_positive_mean(y, shares(weights)))

    def parameters(self, components):
        return (components.rate,)

    def from_parameters(self, *parameters: Tensor) -> Poisson:
        return Poisson(*parameters, validate_args=False)

    def log_mass(self, components, k):
        rate, is_none = components.rate.double(), k == 0
        return torch.where(is_none, -rate, log_poisson(torch.where(is_none, 1, k), rate))

    def tail(self, components, k, is_upper, is_log):
        # The count exceeds k where the (k + 1)-th arrival comes before time 1.
        answers = (log_gammaincc, log_gammainc) if is_log else (gammaincc, gammainc)
        return answers[is_upper](k + 1, components.rate.double())

    def third_moment(self, components):
        return components.rate

    def sample(self, components, generator=None):
        return torch.poisson(components.rate, generator=generator)


class NegativeBinomialFamily(_CountFamily[NegativeBinomial]):
    """Poisson with a gamma-distributed rate: 2 raw parameters, the logarithms of its mean and of `total_count`.

    Its variance is mean + mean^2/total_count ("NB2" of Cameron and Trivedi 1986). torch's `logits` are
    log(mean/total_count).
    """

    name = "negative_binomial"

    def owns(self, components: Distribution) -> bool:
        return type(components) is NegativeBinomial

    def n_raw(self, event_size: int | None) -> int:
        return 2

    def build(self, raw: Tensor, scale_floor: Tensor | float = 0.0) -> NegativeBinomial:
        log_mean = raw[..., 0].clamp(-_LARGEST_LOG_MEAN, _LARGEST_LOG_MEAN)
        log_count = raw[..., 1].clamp(_SMALLEST_LOG_COUNT, _LARGEST_LOG_COUNT)
        return self.from_parameters(log_count.exp(), log_mean - log_count)

    def unbuild(self, components, scale_floor: Tensor | float = 0.0):
        log_count = components.total_count.log()
        log_mean = (components.logits + log_count).clamp(-_LARGEST_LOG_MEAN, _LARGEST_LOG_MEAN)
        return torch.stack([log_mean, log_count.clamp(_SMALLEST_LOG_COUNT, _LARGEST_LOG_COUNT)], -1)

    def fit(self, y, weights) -> NegativeBinomial:
        """Moments, then Newton's method on log(total_count); the mean is the sample's, whatever total_count is.

        Where the counts vary no more than Poisson's, total_count is 150 times the mean.
        """
        share = shares(weights)
        mean = _positive_mean(y, share)
        variance = (share * (y[:, None] - mean).square()).sum(0)
        largest = (_LARGEST_FITTED_RATIO * mean).log().clamp(_SMALLEST_LOG_COUNT, _LARGEST_LOG_COUNT)
        log_count = (mean.square() / (variance - mean).clamp(min=1e-6 * mean)).log()
        log_count = log_count.clamp(min=_SMALLEST_LOG_COUNT).minimum(largest)
        for _ in range(_NEWTON_STEPS):
            r = log_count.exp()
            total = y.clamp(min=0)[:, None] + r
            slope = (share * (torch.digamma(total) - torch.digamma(r))).sum(0) - torch.log1p(mean / r)
            curve = (share * (torch.polygamma(1, total) - torch.polygamma(1, r))).sum(0) + mean / (r * (r + mean))
            # In log r; where the likelihood is not concave there, a whole step uphill.
            slope, curve = r * slope, r * r * curve + r * slope
            step = torch.where(curve < 0, -slope / torch.where(curve < 0, curve, -1), slope.sign())
            log_count = (log_count + step.clamp(-1, 1)).clamp(min=_SMALLEST_LOG_COUNT).minimum(largest)
        return self.from_parameters(log_count.exp(), mean.log() - log_count)

    def parameters(self, components):
        return components.total_count, components.logits

    def from_parameters(self, *parameters: Tensor) -> NegativeBinomial:
        total_count, logits = parameters
        return NegativeBinomial(total_count, logits=logits, validate_args=False)

    def log_mass(self, components, k):
        r, logits = components.total_count.double(), components.logits.double()
        is_none = k == 0
        none = r * torch.nn.functional.logsigmoid(-logits)
        k = torch.where(is_none, 1, k)
        some = log_binomial(k, r, logits.sigmoid(), (-logits).sigmoid()) - torch.log1p(k / r)
        return torch.where(is_none, none, some)

    def tail(self, components, k, is_upper, is_log):
        answer = log_betainc if is_log else betainc
        r, logits = components.total_count.double(), components.logits.double()
        up, down = logits.sigmoid(), (-logits).sigmoid()
        return answer(k + 1, r, up, down) if is_upper else answer(r, k + 1, down, up)

    def third_moment(self, components):
        mean, per_count = components.mean, components.logits.exp()
        return mean * (1 + per_count) * (1 + 2 * per_count)

    def sample(self, components, generator=None):
        rate = standard_gamma(components.total_count, generator) * components.logits.exp()
        return torch.poisson(rate, generator=generator)


def _positive_mean(y: Tensor, share: Tensor) -> Tensor:
    """The mean count of each column, kept off 0, where there is no law."""
    return (share * y.clamp(min=0)[:, None]).sum(0).clamp(min=1e-6)
