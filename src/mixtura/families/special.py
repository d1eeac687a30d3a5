"""What torch lacks: incomplete gamma and beta functions with their logarithms, inverses and all their gradients.

Everything here is computed in float64 and answered in the dtype of its input. Values are scipy's near the centre and,
in the tails, continued fractions (DLMF, sections 8.9 and 8.17) times a mass in saddle-point form (Loader 2000, Fast
and accurate computation of binomial probabilities), which have full relative precision however small they are.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import scipy.special
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_TINY, _HUGE = torch.finfo(torch.float64).tiny, 1e300
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400)
_STIRLING_FROM = 10.0
_NEAR = 0.3
"""Up to this |m/k - 1| a deviance is summed as a series: its logarithm would cancel."""
_SMALL_TAIL = 1e-200
"""Below it scipy's values lose digits one after the other."""
_LARGE, _CENTRE = 200.0, 4.0
"""Where a is large, standard deviations from the mean beyond which scipy's incomplete gamma functions lose digits."""
_LARGE_TAIL = 0.75
"""Above it a tail is computed from the other one."""
_RELATIVE_STEP = 1e-3
"""Of the differences in a parameter, as a fraction of it or, above 1, of its root (the width of the function)."""
_MOST_FRACTIONS = 20_000
_NEWTON_STEPS, _SMALL_STEP = 60, 1e-14


# Saddle-point forms --------------------------------------------------------------------------------------------


def stirling_error(k: Tensor) -> Tensor:
    """log Γ(k) less Stirling's formula for it, (k - 1/2) log k - k + log(2π)/2."""
    inverse = 1 / k.clamp(min=_STIRLING_FROM)
    square, series = inverse.square(), torch.zeros_like(inverse)
    for coefficient in reversed(_STIRLING):
        series = coefficient + square * series
    small = k.clamp(max=_STIRLING_FROM)
    direct = torch.lgamma(small) - (small - 0.5) * small.log() + small - _HALF_LOG_2PI
    return torch.where(k < _STIRLING_FROM, direct, inverse * series)


def deviance(k: Tensor, m: Tensor, excess: Tensor) -> Tensor:
    """k log(k/m) + m - k with excess = m - k, half the deviance of a count k with mean m; no cancellation near 0."""
    ratio = excess / k
    is_near = ratio.abs() < _NEAR
    ratio = torch.where(is_near, ratio, 0)
    # r - log(1 + r) with log(1 + r) = 2 artanh(s)
    s = ratio / (2 + ratio)
    square, series = s.square(), torch.zeros_like(s)
    for n in range(21, 1, -2):
        series = 1 / n + square * series
    near = k * (ratio * s - 2 * s * square * series)
    far = excess - k * (m / k).clamp(min=_TINY).log()
    return torch.where(is_near, near, far)


def log_poisson(k: Tensor, rate: Tensor) -> Tensor:
    """log(rate^k e^-rate / Γ(k + 1)) for any real k > 0, in float64."""
    k, rate = k.double(), rate.double()
    return -deviance(k, rate, rate - k) - 0.5 * k.log() - _HALF_LOG_2PI - stirling_error(k)


def log_binomial(a: Tensor, b: Tensor, x: Tensor, xc: Tensor) -> Tensor:
    """log(x^a xc^b Γ(a + b + 1) / (Γ(a + 1) Γ(b + 1))) for any real a, b > 0, in float64; xc = 1 - x."""
    a, b, x, xc = a.double(), b.double(), x.double(), xc.double()
    n, excess = a + b, x * b - xc * a
    misfit = deviance(a, n * x, excess) + deviance(b, n * xc, -excess)
    error = stirling_error(n) - stirling_error(a) - stirling_error(b)
    return error - misfit - 0.5 * (a.log() + b.log() - n.log()) - _HALF_LOG_2PI


def log_gamma_density(a: Tensor, x: Tensor) -> Tensor:
    """Log density at x > 0 of a gamma law with concentration a and rate 1, in float64."""
    return log_poisson(a, x) + a.double().log() - x.double().clamp(min=_TINY).log()


def log_beta_density(a: Tensor, b: Tensor, x: Tensor, xc: Tensor) -> Tensor:
    """Log density at x = 1 - xc, inside (0, 1), of a beta law with concentrations a and b, in float64."""
    ends = x.double().clamp(min=_TINY).log() + xc.double().clamp(min=_TINY).log()
    return log_binomial(a, b, x, xc) + a.double().log() + (b.double() / (a.double() + b.double())).log() - ends


# Tails of the gamma and beta laws ------------------------------------------------------------------------------


def continued_fraction(term: Callable[[int], tuple[Tensor, Tensor]]) -> Tensor:
    """p1/(q1 + p2/(q2 + ...)) with (p_i, q_i) = term(i), elementwise (Lentz 1976)."""
    eps = torch.finfo(torch.float64).eps
    p, q = term(1)
    value, c, d = p / q, torch.full_like(q, torch.inf), 1 / q
    is_open = torch.ones_like(value, dtype=torch.bool)
    for i in range(2, _MOST_FRACTIONS):
        p, q = term(i)
        c, d = q + p / c, 1 / (q + p * d)
        factor = torch.where(is_open, c * d, 1)
        value = value * factor
        is_open = is_open & ((factor - 1).abs() > eps)
        if not bool(is_open.any()):
            break
    return value


class _Law:
    """A law with a lower and an upper tail, as functions of float64 tensors on the CPU."""

    first_parameter: ClassVar[int]
    """Which of the arguments, x first, is the first parameter."""

    def mean(self, *arguments: Tensor) -> Tensor:
        """Its mean."""
        raise NotImplementedError

    def value(self, is_upper: Tensor, *arguments: Tensor) -> Tensor:
        """The lower or the upper tail by scipy."""
        raise NotImplementedError

    def is_far(self, is_upper: Tensor, *arguments: Tensor) -> Tensor:
        """Where scipy has lost digits before the tail is small."""
        return torch.zeros_like(is_upper)

    def log_lower(self, *arguments: Tensor) -> Tensor:
        """The logarithm of a small lower tail."""
        raise NotImplementedError

    def log_upper(self, *arguments: Tensor) -> Tensor:
        """The logarithm of a small upper tail."""
        raise NotImplementedError

    def log_density(self, *arguments: Tensor) -> Tensor:
        """Its log density."""
        raise NotImplementedError

    def tail(self, is_upper: Tensor, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        """The lower or the upper tail and its logarithm, to full relative precision if it is not near 1."""
        tail = self.value(is_upper, *arguments)
        log_tail = tail.log()
        far = self.is_far(is_upper, *arguments)
        for chosen, compute in ((is_upper, self.log_upper), (~is_upper, self.log_lower)):
            rows = chosen & (far | (tail < _SMALL_TAIL))
            if bool(rows.any()):
                log_tail[rows] = compute(*(argument[rows] for argument in arguments))
                tail[rows] = log_tail[rows].exp()
        return tail, log_tail

    def smaller_tail(self, *arguments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Whether the upper tail is the smaller (about), that tail and its logarithm."""
        is_upper = arguments[0] > self.mean(*arguments)
        tail, log_tail = self.tail(is_upper, *arguments)
        wrong = tail > _LARGE_TAIL
        if bool(wrong.any()):
            is_upper = is_upper ^ wrong
            tail[wrong], log_tail[wrong] = self.tail(is_upper[wrong], *(argument[wrong] for argument in arguments))
        return is_upper, tail, log_tail

    def quantile(self, x: Tensor, p: Tensor, is_falling: Tensor, arguments: Callable[[Tensor], Any], is_upper: bool):
        """The x, given nearly, at which a tail at `arguments(x)`, which may fall with it, is p.

        By Newton's method for the tail's logarithm in log x.
        """
        for _ in range(_NEWTON_STEPS):
            own = arguments(x)
            is_upper_small, tail, log_tail = self.smaller_tail(*own)
            log_tail = torch.where(is_upper_small == is_upper, log_tail, torch.log1p(-tail))
            gap = p.log() - log_tail
            step = gap * (log_tail - self.log_density(*own) - x.log()).exp()
            step = torch.where(is_falling, -step, step).clamp(-1, 1)
            step = torch.where(step.isfinite() & (p > 0) & (p < 1) & (x > _TINY), step, 0)
            x = x * step.exp()
            if bool(((step.abs() <= _SMALL_STEP) | (gap.abs() <= _SMALL_STEP)).all()):
                break
        return x


class _Gamma(_Law):
    """Of x, with concentration a and rate 1."""

    first_parameter = 1

    def mean(self, *arguments: Tensor) -> Tensor:
        return arguments[1]

    def value(self, is_upper: Tensor, *arguments: Tensor) -> Tensor:
        x, a = arguments
        return _by_scipy(is_upper, scipy.special.gammaincc, scipy.special.gammainc, a, x)

    def is_far(self, is_upper: Tensor, *arguments: Tensor) -> Tensor:
        x, a = arguments
        excess = torch.where(is_upper, x - a, a - x)
        return (a > _LARGE) & (excess > _CENTRE * a.sqrt())

    def log_lower(self, *arguments: Tensor) -> Tensor:
        x, a = arguments

        def term(i: int) -> tuple[Tensor, Tensor]:
            half = i // 2
            p = a if i == 1 else (half * x if i % 2 else -(a + (half - 1)) * x)
            return p, a + (i - 1)

        return log_poisson(a, x) + continued_fraction(term).log()

    def log_upper(self, *arguments: Tensor) -> Tensor:
        x, a = arguments
        excess = x - a

        def term(i: int) -> tuple[Tensor, Tensor]:
            return a if i == 1 else (i - 1) * (a - (i - 1)), excess + (2 * i - 1)

        return log_poisson(a, x) + continued_fraction(term).log()

    def log_density(self, *arguments: Tensor) -> Tensor:
        x, a = arguments
        return log_gamma_density(a, x)


class _Beta(_Law):
    """Of x, given with 1 - x, with concentrations a and b."""

    first_parameter = 2

    def mean(self, *arguments: Tensor) -> Tensor:
        _, _, a, b = arguments
        return a / (a + b)

    def value(self, is_upper: Tensor, *arguments: Tensor) -> Tensor:
        x, xc, a, b = arguments
        is_low = x < xc
        small, first, last = torch.where(is_low, x, xc), torch.where(is_low, a, b), torch.where(is_low, b, a)
        return _by_scipy(is_upper == is_low, scipy.special.betaincc, scipy.special.betainc, first, last, small)

    def log_lower(self, *arguments: Tensor) -> Tensor:
        x, xc, a, b = arguments

        def term(i: int) -> tuple[Tensor, Tensor]:
            m, one = (i - 1) // 2, torch.ones_like(x)
            if i == 1:
                return one, one
            if i % 2:
                return m * (b - m) * x / ((a + (2 * m - 1)) * (a + 2 * m)), one
            return -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + (2 * m + 1))), one

        return log_binomial(a, b, x, xc) + (b / (a + b)).log() + continued_fraction(term).log()

    def log_upper(self, *arguments: Tensor) -> Tensor:
        x, xc, a, b = arguments
        return self.log_lower(xc, x, b, a)

    def log_density(self, *arguments: Tensor) -> Tensor:
        x, xc, a, b = arguments
        return log_beta_density(a, b, x, xc)


_GAMMA, _BETA = _Gamma(), _Beta()


def _by_scipy(is_first: Tensor, first: Callable[..., Any], second: Callable[..., Any], *arguments: Tensor) -> Tensor:
    """One or the other of two functions, elementwise."""
    arrays, rows = [argument.numpy() for argument in arguments], is_first.numpy()
    out = np.empty(rows.shape)
    for function, chosen in ((first, rows), (second, ~rows)):
        out[chosen] = function(*(array[chosen] for array in arrays))  # by its own `where` it crashes the interpreter
    return torch.as_tensor(out)


class _Tail(torch.autograd.Function):
    """One tail of a law, or its logarithm: the derivative in x is the density, those in parameters are differences.

    The logarithm of the smaller tail is what is differenced: it is smooth, and has full relative precision.
    """

    @staticmethod
    def forward(ctx: Any, law: _Law, is_upper: bool, is_log: bool, *arguments: Tensor) -> Tensor:
        is_upper_small, tail, log_tail = law.smaller_tail(*arguments)
        is_small = is_upper_small == is_upper
        own = torch.where(is_small, log_tail, torch.log1p(-tail)) if is_log else torch.where(is_small, tail, 1 - tail)
        ctx.law, ctx.is_upper = law, is_upper
        ctx.save_for_backward(*arguments, is_upper_small, log_tail, own if is_log else torch.zeros_like(own))
        return own

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = grad_outputs
        *arguments, is_upper_small, log_tail, divisor = ctx.saved_tensors
        gradients: list[Tensor | None] = [None] * (3 + len(arguments))
        if ctx.needs_input_grad[3]:
            slope = (ctx.law.log_density(*arguments) - divisor).exp()
            gradients[3] = gradient * (-slope if ctx.is_upper else slope)
        sign = torch.where(is_upper_small == ctx.is_upper, 1.0, -1.0)
        for i in range(ctx.law.first_parameter, len(arguments)):
            if ctx.needs_input_grad[3 + i]:
                slope = _difference(ctx.law, arguments, i, is_upper_small)
                gradients[3 + i] = gradient * sign * (log_tail - divisor).exp() * slope
        return tuple(gradients)


def _difference(law: _Law, arguments: list[Tensor], i: int, is_upper: Tensor) -> Tensor:
    """The derivative of the logarithm of a tail in argument i, by central differences of the fourth order."""
    step = _RELATIVE_STEP * torch.minimum(arguments[i], arguments[i].sqrt())

    def at(n: int) -> Tensor:
        moved = [*arguments[:i], arguments[i] + n * step, *arguments[i + 1 :]]
        return law.tail(is_upper, *moved)[1]

    slope = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
    return torch.where(slope.isfinite(), slope, 0)  # where the tail is exactly 0


def _tail(law: _Law, is_upper: bool, is_log: bool, *arguments: Tensor) -> Tensor:
    """The tail in the dtype and on the device of the first argument."""
    doubles = torch.broadcast_tensors(*(argument.to("cpu", torch.float64) for argument in arguments))
    return _Tail.apply(law, is_upper, is_log, *doubles).to(arguments[0])  # pyright: ignore[reportOptionalMemberAccess]


# The functions -------------------------------------------------------------------------------------------------


def gammainc(a: Tensor, x: Tensor) -> Tensor:
    """P(a, x), the regularised lower incomplete gamma function (DLMF 8.2.4)."""
    return _tail(_GAMMA, False, False, x.clamp(max=_HUGE), a)


def gammaincc(a: Tensor, x: Tensor) -> Tensor:
    """Q(a, x) = 1 - P(a, x)."""
    return _tail(_GAMMA, True, False, x.clamp(max=_HUGE), a)


def log_gammainc(a: Tensor, x: Tensor) -> Tensor:
    """log P(a, x), also where P underflows."""
    return _tail(_GAMMA, False, True, x.clamp(max=_HUGE), a)


def log_gammaincc(a: Tensor, x: Tensor) -> Tensor:
    """log Q(a, x), also where Q underflows."""
    return _tail(_GAMMA, True, True, x.clamp(max=_HUGE), a)


def betainc(a: Tensor, b: Tensor, x: Tensor, xc: Tensor) -> Tensor:
    """I_x(a, b), the regularised incomplete beta function (DLMF 8.17.2), given 1 - x too, which may be tiny.

    Its complement is `betainc(b, a, xc, x)`. In the gradient, x stands for both.
    """
    return _tail(_BETA, False, False, x, xc, a, b)


def log_betainc(a: Tensor, b: Tensor, x: Tensor, xc: Tensor) -> Tensor:
    """log I_x(a, b), also where I underflows."""
    return _tail(_BETA, False, True, x, xc, a, b)


@torch.no_grad()
def gammaincinv(a: Tensor, p: Tensor) -> Tensor:
    """The x at which P(a, x) = p."""
    return _gamma_quantile(False, scipy.special.gammaincinv, a, p)


@torch.no_grad()
def gammainccinv(a: Tensor, q: Tensor) -> Tensor:
    """The x at which Q(a, x) = q."""
    return _gamma_quantile(True, scipy.special.gammainccinv, a, q)


def _gamma_quantile(is_upper: bool, start: Callable[..., Any], a: Tensor, p: Tensor) -> Tensor:
    like = p
    a, p = torch.broadcast_tensors(a.to("cpu", torch.float64), p.to("cpu", torch.float64))
    x, is_falling = torch.as_tensor(start(a.numpy(), p.numpy())), torch.full_like(p, is_upper, dtype=torch.bool)
    return _GAMMA.quantile(x, p, is_falling, lambda x: (x.clamp(max=_HUGE), a), is_upper).to(like)


@torch.no_grad()
def betaincinv(a: Tensor, b: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """The x at which I_x(a, b) = p, and 1 - x."""
    like = p
    a, b, p = torch.broadcast_tensors(*(part.to("cpu", torch.float64) for part in (a, b, p)))
    x = torch.as_tensor(scipy.special.betaincinv(a.numpy(), b.numpy(), p.numpy()))
    xc = torch.as_tensor(scipy.special.betainccinv(b.numpy(), a.numpy(), p.numpy()))
    # Where scipy gives up p is tiny, and the function a power of x.
    power = ((p.log() + a.log() + torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)) / a).exp()
    x, xc = torch.where(x.isnan(), power, x), torch.where(x.isnan(), 1 - power, xc)
    is_low = x < xc

    def both(small: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(is_low, small, 1 - small), torch.where(is_low, 1 - small, small)

    small = _BETA.quantile(torch.where(is_low, x, xc), p, ~is_low, lambda small: (*both(small), a, b), False)
    x, xc = both(small)
    return x.to(like), xc.to(like)
