"""Incomplete gamma and beta functions against mpmath, far past underflow, with their inverses and gradients."""

import mpmath
import pytest
import torch

from mixtura.families import special

F64 = torch.float64
CONCENTRATIONS = [0.01, 0.7, 3.3, 40.0, 1e3, 1e5]
DISTANCES = [-300.0, -40.0, -8.0, -3.0, -0.3, 0.0, 1.0, 5.0, 30.0, 300.0]


def number(value: float | list[float]) -> torch.Tensor:
    return torch.tensor(value, dtype=F64)


def series(ratio, n_most: int = 200_000) -> mpmath.mpf:
    """1 + t_1 + t_2 + ... with t_n = ratio(n) t_(n-1), until it stands."""
    term = total = mpmath.mpf(1)
    for n in range(1, n_most):
        term *= ratio(n)
        total += term
        if abs(term) < mpmath.mpf(10) ** -55 * abs(total):
            return total
    raise ArithmeticError


def log_lower_gamma(a: float, x: float) -> mpmath.mpf:
    """By the series of DLMF 8.7.1."""
    a, x = mpmath.mpf(a), mpmath.mpf(x)
    return a * mpmath.log(x) - x - mpmath.loggamma(a + 1) + mpmath.log(series(lambda n: x / (a + n)))


def log_lower_beta(a: float, b: float, x: float) -> mpmath.mpf:
    """By the series of DLMF 8.17.8."""
    a, b, x = mpmath.mpf(a), mpmath.mpf(b), mpmath.mpf(x)
    log_beta = mpmath.loggamma(a) + mpmath.loggamma(b) - mpmath.loggamma(a + b)
    total = series(lambda n: x * (a + b + n - 1) / (a + n))
    return a * mpmath.log(x) + b * mpmath.log1p(-x) - mpmath.log(a) - log_beta + mpmath.log(total)


def check(got: torch.Tensor, log_true: mpmath.mpf, got_log: torch.Tensor) -> None:
    assert got_log.item() == pytest.approx(float(log_true), rel=2e-12)
    if log_true > -690:
        assert got.item() == pytest.approx(float(mpmath.exp(log_true)), rel=2e-12)


@pytest.mark.parametrize("a", CONCENTRATIONS)
def test_incomplete_gamma_functions_and_their_logarithms(a):
    with mpmath.workdps(70):
        for distance in DISTANCES:
            x = a + distance * a**0.5 if a + distance * a**0.5 > 0 else a * 10.0 ** (distance / 2)
            log_lower, args = log_lower_gamma(a, x), (number(a), number(x))
            check(special.gammainc(*args), log_lower, special.log_gammainc(*args))
            if -(mpmath.mpf(10) ** -35) > log_lower > -100:  # else too few digits are left of the other
                log_upper = mpmath.log1p(-mpmath.exp(log_lower))
                check(special.gammaincc(*args), log_upper, special.log_gammaincc(*args))
    far = special.log_gammaincc(number(3.0), number(1e4)).item()  # e^-x (1 + x + x^2/2)
    assert far == pytest.approx(-1e4 + float(mpmath.log(1 + 1e4 + 5e7)), rel=1e-14)


@pytest.mark.parametrize("a", CONCENTRATIONS)
@pytest.mark.parametrize("b", [0.02, 0.5, 20.0, 3e3])
def test_incomplete_beta_functions_and_their_logarithms(a, b):
    mean, concentrations = a / (a + b), (number(a), number(b))
    with mpmath.workdps(60):
        for share in (1e-100, 1e-9, 0.01, 0.5, 0.9, 1.0):
            x = mean * share if mean < 0.99 else 0.98 * share
            log_lower, args = log_lower_beta(a, b, x), (number(x), 1 - number(x))
            check(special.betainc(*concentrations, *args), log_lower, special.log_betainc(*concentrations, *args))
            mirrored = special.log_betainc(*concentrations[::-1], *args[::-1]).item()
            assert mirrored == pytest.approx(float(mpmath.log1p(-mpmath.exp(log_lower))), rel=1e-11, abs=1e-300)


@pytest.mark.parametrize("level", [1e-300, 1e-40, 1e-6, 0.2, 0.5, 0.97])
def test_inverses_invert(level):
    p = number(level)
    a, b = torch.meshgrid(number([2.0, 40.0, 1e4, 1e7]), number([0.5, 3e3]), indexing="ij")
    for inverse, function in ((special.gammaincinv, special.gammainc), (special.gammainccinv, special.gammaincc)):
        torch.testing.assert_close(function(a, inverse(a, p)), p.expand_as(a), rtol=5e-11, atol=0)
    torch.testing.assert_close(special.betainc(a, b, *special.betaincinv(a, b, p)), p.expand_as(a), rtol=5e-11, atol=0)


def test_gradients_agree_with_differences_and_with_mpmath_far_out():
    points = [0.4, 2.0, 30.0], [3.0, 0.6, 9.0], [0.2, 0.9, 0.7]
    a, b, x = (number(values).requires_grad_() for values in points)
    for function in (special.gammainc, special.gammaincc, special.log_gammainc, special.log_gammaincc):
        assert torch.autograd.gradcheck(lambda a, x, f=function: f(a, 20 * x), (a, x))
    for function in (special.betainc, special.log_betainc):
        assert torch.autograd.gradcheck(lambda a, b, x, f=function: f(a, b, x, 1 - x), (a, b, x))
    for first, last in ((1e4, 2e3), (5.0, 1e-150), (0.7, 1e-200)):
        a, x = number(first).requires_grad_(), number(last).requires_grad_()
        got = torch.autograd.grad(special.log_gammainc(a, x), (a, x))
        with mpmath.workdps(60):
            in_a = mpmath.diff(lambda a, x=last: log_lower_gamma(a, x), first)
            in_log_x = mpmath.diff(lambda t, a=first, x=last: log_lower_gamma(a, x * mpmath.exp(t)), 0)
        assert (got[0].item(), last * got[1].item()) == pytest.approx((float(in_a), float(in_log_x)), rel=1e-9)
