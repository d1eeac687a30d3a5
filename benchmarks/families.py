"""Largest errors of every answer of mixtures of every registered scalar family, against mpmath with 50 digits.

python benchmarks/families.py

Mixtures of 1 and of 3 components, at scales 1e-6, 1 and 1e6 (counts: 1). References start from the very doubles that
the mixture was made of; integrals (crps, cde_loss, entropy) are those of the mixture at scale 1, by a Gauss-Legendre
rule in mpmath that is checked to find the probability 1, moved to the scale by their own laws.

log_prob, log_cdf, log_survival and skewness: error over max(1, |true|), tails included in which the cdf underflows;
cdf, survival, variance, crps: relative error; icdf: error over max(|true|, standard deviation of the narrowest
component), of counts in whole numbers; mean: error over the standard deviation; cde_loss: error over the integral of
the squared density; entropy: in nats.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar

import mpmath
import numpy as np
import torch
from mpmath import mp, mpf
from torch import Tensor

from mixtura import FAMILIES, Mixture, cde_loss, crps
from mixtura.families import ScalarFamily

DIGITS: Any = mpmath.workdps(50)
SCALES = [1e-6, 1.0, 1e6]
LEVELS = [1e-12, 1e-9, 1e-6, 1e-3, 0.05, 0.3, 0.5, 0.7, 0.95, 0.999, 1 - 1e-6, 1 - 1e-9, 1 - 1e-12]
TAILS = [1e-250, 1e-100, 1e-30, 1e-12, 1e-6, 0.01, 0.2, 0.5]
WEIGHTS = {1: [1.0], 3: [0.5, 0.3, 0.2]}
CASES: dict[str, list[list[float]]] = {
    # for each tensor of the family's `parameters`, its value in three components
    "normal": [[0.3, -2.2, 1.1], [0.75, 1.6, 0.25]],
    "laplace": [[0.3, -2.2, 1.1], [0.75, 1.6, 0.25]],
    "asymmetric_laplace": [[0.3, -2.2, 1.1], [0.75, 1.6, 0.25], [0.2, 0.9, 3.0]],
    "logistic": [[0.3, -2.2, 1.1], [0.75, 1.6, 0.25]],
    "lognormal": [[0.3, -1.2, 1.1], [0.75, 1.1, 0.25]],
    "student_t": [[3.5, 2.1, 40.0], [0.3, -2.2, 1.1], [0.75, 1.6, 0.25]],
    "gamma": [[1.8, 0.7, 16.4], [0.7, 2.0, 8.5]],
    "beta": [[3.7, 0.6, 20.0], [0.8, 2.3, 60.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]],
    "poisson": [[4.7, 0.5, 60.0]],
    "negative_binomial": [[1.7, 0.5, 12.0], [0.8, -0.5, 1.0]],
    "truncated_normal": [[0.3, -20.0, 2.1], [0.75, 1.6, 0.25], [0.0, 0.0, 0.0], [math.inf, math.inf, math.inf]],
    "von_mises": [[0.3, -2.2, 1.1], [0.9, 4.0, 30.0], [-math.pi] * 3, [math.pi] * 3],
    "warped": [[0.3, -2.2, 1.1], [0.75, 1.6, 0.25], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]],  # logit-normal
}


# The laws in mpmath --------------------------------------------------------------------------------------------


class Law:
    """One component: density, both tails, and mean, variance and third central moment."""

    def pdf(self, y: mpf) -> mpf:
        """Density, or mass."""
        raise NotImplementedError

    def cdf(self, y: mpf) -> mpf:
        """P(Y <= y)."""
        raise NotImplementedError

    def sf(self, y: mpf) -> mpf:
        """P(Y > y)."""
        raise NotImplementedError

    def moments(self) -> tuple[mpf, mpf, mpf]:
        """Mean, variance, third central moment."""
        raise NotImplementedError


class Standardised(Law):
    """loc + scale * Z, of which a subclass knows Z."""

    def __init__(self, loc: mpf, scale: mpf, *shape: mpf):
        self.loc, self.scale, self.shape = loc, scale, shape

    def pdf(self, y):
        return self.z_pdf((y - self.loc) / self.scale) / self.scale

    def cdf(self, y):
        return self.z_cdf((y - self.loc) / self.scale)

    def sf(self, y):
        return self.z_sf((y - self.loc) / self.scale)

    def moments(self):
        mean, variance, third = self.z_moments()
        return self.loc + self.scale * mean, self.scale**2 * variance, self.scale**3 * third

    def z_pdf(self, z: mpf) -> mpf:
        """Likewise of Z, here and below; symmetric unless said otherwise."""
        raise NotImplementedError

    def z_cdf(self, z: mpf) -> mpf:
        raise NotImplementedError

    def z_sf(self, z: mpf) -> mpf:
        return self.z_cdf(-z)

    def z_moments(self) -> tuple[mpf, mpf, mpf]:
        raise NotImplementedError


def normal_tail(z: mpf) -> mpf:
    """P(Z > z)."""
    return mpmath.erfc(z / mpmath.sqrt(2)) / 2


class NormalLaw(Standardised):
    def z_pdf(self, z):
        return mpmath.exp(-z * z / 2) / mpmath.sqrt(2 * mpmath.pi)

    def z_cdf(self, z):
        return normal_tail(-z)

    def z_moments(self):
        return mpf(0), mpf(1), mpf(0)


class AsymmetricLaplaceLaw(Standardised):
    """Of asymmetry kappa; 1 is the Laplace law."""

    def __init__(self, loc: mpf, scale: mpf, kappa: mpf | int = 1):
        super().__init__(loc, scale)
        self.kappa = mpf(kappa)

    def z_pdf(self, z):
        k = self.kappa
        return k / (1 + k * k) * mpmath.exp(-z * k if z > 0 else z / k)

    def z_cdf(self, z):
        k = self.kappa
        return 1 - self.z_sf(z) if z > 0 else k * k / (1 + k * k) * mpmath.exp(z / k)

    def z_sf(self, z):
        k = self.kappa
        return mpmath.exp(-z * k) / (1 + k * k) if z > 0 else 1 - self.z_cdf(z)

    def z_moments(self):
        k = self.kappa
        return 1 / k - k, k**-2 + k**2, 2 * (k**-3 - k**3)


class LogisticLaw(Standardised):
    def z_pdf(self, z):
        return 1 / (2 * mpmath.cosh(z / 2)) ** 2

    def z_cdf(self, z):
        return 1 / (1 + mpmath.exp(-z))

    def z_moments(self):
        return mpf(0), mpmath.pi**2 / 3, mpf(0)


class StudentTLaw(Standardised):
    def __init__(self, df: mpf, loc: mpf, scale: mpf):
        super().__init__(loc, scale)
        self.df = df
        log_whole = mpmath.loggamma((df + 1) / 2) - mpmath.loggamma(df / 2) - mpmath.log(df * mpmath.pi) / 2
        self.whole = mpmath.exp(log_whole)

    def z_pdf(self, z):
        return self.whole * (1 + z * z / self.df) ** (-(self.df + 1) / 2)

    def z_cdf(self, z):
        if z > 0:
            return 1 - self.z_cdf(-z)
        return mpmath.betainc(self.df / 2, mpf(1) / 2, 0, self.df / (self.df + z * z), regularized=True) / 2

    def z_moments(self):
        return mpf(0), self.df / (self.df - 2), mpf(0) if self.df > 3 else mpf("nan")


class TruncatedNormalLaw(Standardised):
    def __init__(self, loc: mpf, scale: mpf, low: mpf, high: mpf):
        super().__init__(loc, scale)
        self.a, self.b = (low - loc) / scale, (high - loc) / scale
        self.mass = normal_tail(self.a) - normal_tail(self.b)

    def z_pdf(self, z):
        return mpmath.exp(-z * z / 2) / mpmath.sqrt(2 * mpmath.pi) / self.mass

    def z_cdf(self, z):
        return (normal_tail(self.a) - normal_tail(z)) / self.mass

    def z_sf(self, z):
        return (normal_tail(z) - normal_tail(self.b)) / self.mass

    def z_moments(self):
        raw = [mpf(1), mpf(0)]  # of z^0 and, for the recursion, of z^-1 (whose factor is 0)
        at = [(end, self.z_pdf(end)) if mpmath.isfinite(end) else (mpf(0), mpf(0)) for end in (self.a, self.b)]
        m1 = at[0][1] - at[1][1]
        m2 = raw[0] + at[0][0] * at[0][1] - at[1][0] * at[1][1]
        m3 = 2 * m1 + at[0][0] ** 2 * at[0][1] - at[1][0] ** 2 * at[1][1]
        return m1, m2 - m1**2, m3 - 3 * m1 * m2 + 2 * m1**3


class LogNormalLaw(Law):
    def __init__(self, loc: mpf, scale: mpf):
        self.log_y = NormalLaw(loc, scale)

    def pdf(self, y):
        return self.log_y.pdf(mpmath.log(y)) / y

    def cdf(self, y):
        return self.log_y.cdf(mpmath.log(y))

    def sf(self, y):
        return self.log_y.sf(mpmath.log(y))

    def moments(self):
        grown = mpmath.exp(self.log_y.scale**2)
        mean = mpmath.exp(self.log_y.loc) * mpmath.sqrt(grown)
        return mean, mean**2 * (grown - 1), mean**3 * (grown - 1) ** 2 * (grown + 2)


def gamma_tails(a: mpf, x: mpf) -> tuple[mpf, mpf]:
    """P(a, x) and Q(a, x), the one by its series, the other by Legendre's continued fraction: mpmath's own may hang."""
    head = mpmath.exp(a * mpmath.log(x) - x - mpmath.loggamma(a))
    if x < a + 1:
        term = total = 1 / a
        n = a
        while term > mp.eps * total:
            n += 1
            term *= x / n
            total += term
        return head * total, 1 - head * total
    b = x + 1 - a
    c, d = mpf(10) ** 1000, 1 / b
    value, i, change = d, 0, mpf(0)
    while abs(change - 1) > mp.eps:
        i += 1
        numerator = -i * (i - a)
        b += 2
        d, c = 1 / (numerator * d + b), b + numerator / c
        change = d * c
        value *= change
    return 1 - head * value, head * value


class GammaLaw(Law):
    def __init__(self, shape: mpf, rate: mpf):
        self.shape, self.rate = shape, rate

    def pdf(self, y):
        return (
            self.rate
            * mpmath.exp((self.shape - 1) * mpmath.log(self.rate * y) - self.rate * y)
            / mpmath.gamma(self.shape)
        )

    def cdf(self, y):
        return gamma_tails(self.shape, self.rate * y)[0]

    def sf(self, y):
        return gamma_tails(self.shape, self.rate * y)[1]

    def moments(self):
        return self.shape / self.rate, self.shape / self.rate**2, 2 * self.shape / self.rate**3


class BetaLaw(Standardised):
    def __init__(self, a: mpf, b: mpf, low: mpf, high: mpf):
        super().__init__(low, high - low)
        self.a, self.b, self.whole = a, b, mpmath.beta(a, b)

    def z_pdf(self, z):
        return z ** (self.a - 1) * (1 - z) ** (self.b - 1) / self.whole

    def z_cdf(self, z):
        return mpmath.betainc(self.a, self.b, 0, z, regularized=True)

    def z_sf(self, z):
        return mpmath.betainc(self.b, self.a, 0, 1 - z, regularized=True)

    def z_moments(self):
        a, b, n = self.a, self.b, self.a + self.b
        variance = a * b / (n**2 * (n + 1))
        return a / n, variance, 2 * (b - a) / (n + 2) / n * variance


class PoissonLaw(Law):
    def __init__(self, rate: mpf):
        self.rate = rate

    def pdf(self, y):
        return mpmath.exp(y * mpmath.log(self.rate) - self.rate - mpmath.loggamma(y + 1))

    def cdf(self, y):
        return gamma_tails(y + 1, self.rate)[1] if y >= 0 else mpf(0)

    def sf(self, y):
        return gamma_tails(y + 1, self.rate)[0] if y >= 0 else mpf(1)

    def moments(self):
        return self.rate, self.rate, self.rate


class NegativeBinomialLaw(Law):
    def __init__(self, total_count: mpf, logits: mpf):
        self.r, self.p, self.q = total_count, 1 / (1 + mpmath.exp(-logits)), 1 / (1 + mpmath.exp(logits))

    def pdf(self, y):
        log_ways = mpmath.loggamma(y + self.r) - mpmath.loggamma(y + 1) - mpmath.loggamma(self.r)
        return mpmath.exp(log_ways + self.r * mpmath.log(self.q) + y * mpmath.log(self.p))

    def cdf(self, y):
        return mpmath.betainc(self.r, y + 1, 0, self.q, regularized=True) if y >= 0 else mpf(0)

    def sf(self, y):
        return mpmath.betainc(y + 1, self.r, 0, self.p, regularized=True) if y >= 0 else mpf(1)

    def moments(self):
        mean = self.r * self.p / self.q
        return mean, mean / self.q, mean * (1 + self.p) / self.q**2


class VonMisesLaw(Law):
    """Its cdf by the Fourier series, whose error is 1e-50 of the whole; its mean is the direction."""

    def __init__(self, loc: mpf, concentration: mpf, low: mpf, high: mpf):
        self.loc, self.kappa, self.low, self.high = loc, concentration, low, high
        self.unit = (high - low) / (2 * mpmath.pi)
        self.whole = mpmath.besseli(0, concentration)
        self.ratios, j, ratio = [], 1, mpf(1)
        while ratio > mp.eps:
            ratio = mpmath.besseli(j, concentration) / self.whole
            self.ratios.append(ratio / j)
            j += 1
        self.at_low, self.at_high = self._series(low), self._series(high)

    def angle(self, y: mpf) -> mpf:
        """Distance to loc, in radians."""
        return (y - self.loc) / self.unit

    def pdf(self, y):
        return mpmath.exp(self.kappa * mpmath.cos(self.angle(y))) / (2 * mpmath.pi * self.unit * self.whole)

    def _series(self, y: mpf) -> mpf:
        """An antiderivative of the density, with sin(j x) by its recursion in j."""
        x = self.angle(y)
        twice, before, now, total = 2 * mpmath.cos(x), mpf(0), mpmath.sin(x), x / 2
        for share in self.ratios:
            total += share * now
            before, now = now, twice * now - before
        return total / mpmath.pi

    def cdf(self, y):
        return self._series(y) - self.at_low

    def sf(self, y):
        return self.at_high - self._series(y)

    def resultant(self) -> mpmath.mpc:
        """E exp(i Y), in radians."""
        return self.ratios[0] * mpmath.expj(self.loc / self.unit)

    def moments(self):
        return self.loc, -2 * self.unit**2 * mpmath.log(self.ratios[0]), mpf("nan")


class LogitNormalLaw(Standardised):
    """Of the warped family, with moments by the rule of trapezoids over the normal law."""

    def __init__(self, logit_loc: mpf, logit_scale: mpf, loc: mpf, scale: mpf):
        super().__init__(loc, scale)
        self.logit = NormalLaw(logit_loc, logit_scale)

    def z_pdf(self, z):
        return self.logit.pdf(mpmath.log(z / (1 - z))) / (z * (1 - z))

    def z_cdf(self, z):
        return self.logit.cdf(mpmath.log(z / (1 - z)))

    def z_sf(self, z):
        return self.logit.sf(mpmath.log(z / (1 - z)))

    def z_moments(self):
        steps = [mpf(i) / 16 for i in range(-200, 201)]
        parts = [
            (self.logit.z_pdf(x) / 16, 1 / (1 + mpmath.exp(-self.logit.loc - self.logit.scale * x))) for x in steps
        ]
        mean = mpmath.fsum(w * z for w, z in parts)
        variance, third = (mpmath.fsum(w * (z - mean) ** n for w, z in parts) for n in (2, 3))
        return mean, variance, third


LAWS: dict[str, Callable[..., Law]] = {
    "normal": NormalLaw,
    "laplace": AsymmetricLaplaceLaw,
    "asymmetric_laplace": AsymmetricLaplaceLaw,
    "logistic": LogisticLaw,
    "lognormal": LogNormalLaw,
    "student_t": StudentTLaw,
    "gamma": GammaLaw,
    "beta": BetaLaw,
    "poisson": PoissonLaw,
    "negative_binomial": NegativeBinomialLaw,
    "truncated_normal": TruncatedNormalLaw,
    "von_mises": VonMisesLaw,
    "warped": LogitNormalLaw,
}


@dataclass
class Reference:
    """A mixture in mpmath."""

    weights: list[mpf]
    laws: list[Law]

    @classmethod
    @DIGITS
    def of(cls, mixture: Mixture) -> "Reference":
        """Exact conversion of the parameters; the weights are normalised again, with 50 digits."""
        raw = [mpmath.exp(mpf(x)) for x in mixture.logits.tolist()]
        parameters = [tensor.tolist() for tensor in mixture.family.parameters(mixture.components)]
        laws = [LAWS[mixture.family.name](*map(mpf, one)) for one in zip(*parameters, strict=True)]
        return cls([x / sum(raw) for x in raw], laws)

    def sum(self, answer: Callable[[Law], Any]) -> Any:
        """Over the components, weighted."""
        return sum(w * answer(law) for w, law in zip(self.weights, self.laws, strict=True))

    def pdf(self, y: mpf) -> mpf:
        return self.sum(lambda law: law.pdf(y))

    def cdf(self, y: mpf) -> mpf:
        return self.sum(lambda law: law.cdf(y))

    def sf(self, y: mpf) -> mpf:
        return self.sum(lambda law: law.sf(y))

    def moments(self) -> tuple[mpf, mpf, mpf]:
        """Mean, variance, skewness; of angles those of the mean resultant."""
        first = self.laws[0]
        if isinstance(first, VonMisesLaw):
            resultants = [law.resultant() for law in self.laws if isinstance(law, VonMisesLaw)]
            mean = sum(w * r for w, r in zip(self.weights, resultants, strict=True))
            return first.unit * mpmath.arg(mean), -2 * first.unit**2 * mpmath.log(abs(mean)), mpf("nan")
        parts = [law.moments() for law in self.laws]
        mean = sum(w * m for w, (m, _, _) in zip(self.weights, parts, strict=True))
        variance, third = mpf(0), mpf(0)
        for w, (m, v, t) in zip(self.weights, parts, strict=True):
            variance += w * (v + (m - mean) ** 2)
            third += w * (t + 3 * (m - mean) * v + (m - mean) ** 3)
        return mean, variance, third / variance ** mpf("1.5")

    def icdf(self, level: mpf, near: mpf, low: float) -> mpf:
        """The quantile, by Newton's method from near it: on log cdf, of the logarithm of the distance to an end."""
        y = near
        for _ in range(50):
            if level < 0.5:
                part = self.cdf(y)
                step = mpmath.log(part / level) * part / self.pdf(y)
            else:
                part = self.sf(y)
                step = -mpmath.log(part / (1 - level)) * part / self.pdf(y)
            following = low + (y - low) * mpmath.exp(-step / (y - low)) if math.isfinite(low) else y - step
            if abs(following - y) <= mpf(10) ** -30 * abs(y):
                return following
            y = following
        raise ArithmeticError("no convergence")

    def whole_icdf(self, level: mpf, near: mpf) -> mpf:
        """The least whole number at which the cdf reaches the level, from near it."""
        reaches = lambda k: self.cdf(k) >= level if level < 0.5 else self.sf(k) <= 1 - level  # noqa: E731
        while not reaches(near):
            near += 1
        while reaches(near - 1):
            near -= 1
        return near


# Integrals -----------------------------------------------------------------------------------------------------


@dataclass
class Integrals:
    """What needs the whole law: of the mixture at scale 1."""

    entropy: mpf
    square: mpf
    crps: list[mpf]


class Chart:
    """Of the support as the line: what is singular at an end is smooth seen through it."""

    def __init__(self, low: float, high: float):
        self.low, self.high = mpf(low), mpf(high)
        self.is_positive, self.is_interval = math.isfinite(low) and not math.isfinite(high), math.isfinite(high)

    def there(self, y: mpf) -> mpf:
        """The coordinate of y."""
        if self.is_interval:
            return mpmath.log((y - self.low) / (self.high - y))
        return mpmath.log(y - self.low) if self.is_positive else mpmath.asinh(y)

    def back(self, t: mpf) -> tuple[mpf, mpf]:
        """The point with the coordinate t, and its derivative."""
        if self.is_interval:
            z, rest, width = 1 / (1 + mpmath.exp(-t)), 1 / (1 + mpmath.exp(t)), self.high - self.low
            return self.low + width * z, width * z * rest
        return (self.low + mpmath.exp(t), mpmath.exp(t)) if self.is_positive else (mpmath.sinh(t), mpmath.cosh(t))


def integrals(mixture: Mixture, reference: Reference, points: list[float]) -> Integrals:
    """Of a continuous mixture without batch axes; the crps at `points`."""
    family: Any = mixture.family
    low, high = (end[0].item() for end in family.support(mixture.components))
    chart = Chart(low, high)
    levels = torch.tensor([1e-28, 1e-20, 1e-14, 1e-9, 1e-6, 1e-3, 0.03, 0.25], dtype=torch.float64)[:, None]
    places = [family.icdf(mixture.components, levels), family.isf(mixture.components, levels)]
    places.append(family.icdf(mixture.components, 0.5 + 0 * levels[:1]))
    where = torch.cat(places).flatten().tolist() + points
    if not family.is_circular and family.name in ("laplace", "asymmetric_laplace"):
        where += mixture.components.loc.tolist()  # kinks
    edges = {chart.there(mpf(y)) for y in where if low < y < high}
    if chart.is_interval:  # towards its ends, nearer than doubles can say
        far = 60 if family.is_circular else 40 / min(0.5, *(float(getattr(law, "a", 1)) for law in reference.laws))
        edges |= {mpf(sign * far * i / 4) for i in (1, 2, 3, 4) for sign in (-1, 1)}
    edges = sorted(edges)
    total = entropy = square = mpf(0)
    scores = [mpf(0) for _ in points]
    for left, right in itertools.pairwise(edges):
        half = (right - left) / 2
        for node, weight in gauss_legendre(20):
            y, slope = chart.back(left + half * (1 + node))
            share, density = weight * half * slope, reference.pdf(y)
            total += share * density
            if density > 0:
                entropy -= share * density * mpmath.log(density)
            square += share * density**2
            cdf = reference.cdf(y)
            for i, point in enumerate(points):
                scores[i] += share * (cdf**2 if y < point else (1 - cdf) ** 2)
    if abs(total - 1) > 1e-13:
        raise ArithmeticError(f"{family!r}: the rule finds {mpmath.nstr(total - 1, 3)} too much probability")
    return Integrals(entropy, square, scores)


@cache
def gauss_legendre(n: int) -> list[tuple[mpf, mpf]]:
    """Nodes and weights, by Newton's method from numpy's."""
    rule = []
    for start in np.polynomial.legendre.leggauss(n)[0]:
        x = mpf(float(start))
        for _ in range(3):
            slope = n * (x * mpmath.legendre(n, x) - mpmath.legendre(n - 1, x)) / (x * x - 1)
            x -= mpmath.legendre(n, x) / slope
        slope = n * (x * mpmath.legendre(n, x) - mpmath.legendre(n - 1, x)) / (x * x - 1)
        rule.append((x, 2 / ((1 - x * x) * slope**2)))
    return rule


def sums(mixture: Mixture, reference: Reference, points: list[float]) -> Integrals:
    """The same of counts."""
    family: Any = mixture.family
    last = int(family.isf(mixture.components, torch.tensor(1e-25, dtype=torch.float64)).max())
    masses = [reference.pdf(mpf(k)) for k in range(last + 1)]
    cdf, scores = mpf(0), [mpf(0) for _ in points]
    for k, mass in enumerate(masses):
        cdf += mass
        for i, point in enumerate(points):
            scores[i] += cdf**2 if k < point else (1 - cdf) ** 2
    return Integrals(-sum(m * mpmath.log(m) for m in masses), sum(m * m for m in masses), scores)


# Errors --------------------------------------------------------------------------------------------------------


@dataclass
class Errors:
    """The largest seen of each method; NaN where it was not asked."""

    METHODS: ClassVar[list[str]] = [
        *("log_prob", "cdf", "survival", "log_cdf", "log_survival", "icdf"),
        *("mean", "variance", "skewness", "crps", "cde_loss", "entropy"),
    ]
    largest: dict[str, float] = field(default_factory=dict)

    def add(self, method: str, got: float, true: mpf, size: mpf | float) -> None:
        """One answer; NaN instead of a number is an infinite error, and the other way round."""
        error = abs(mpf(got) - true) / size
        if mpmath.isnan(true) or math.isnan(got):
            error = mpf(0 if mpmath.isnan(true) and math.isnan(got) else "inf")
        self.largest[method] = max(self.largest.get(method, 0.0), float(error))

    def merge(self, other: "Errors") -> None:
        """Keep the larger of each."""
        for method, error in other.largest.items():
            self.largest[method] = max(self.largest.get(method, 0.0), error)


def make(family: ScalarFamily[Any], n_components: int, scale: float) -> Mixture:
    """The mixture of `CASES` at a scale."""
    parameters = [torch.tensor(row[:n_components], dtype=torch.float64) for row in CASES[family.name]]
    components = family.from_parameters(*parameters)
    zero = torch.zeros(n_components, dtype=torch.float64)
    if scale != 1:
        components = family.affine(components, zero, zero + scale)
    return Mixture(torch.tensor(WEIGHTS[n_components], dtype=torch.float64).log(), components)


def scales_of(family: ScalarFamily[Any]) -> list[float]:
    """Those that the family is closed under."""
    return [1.0] if family.closed_under == "none" else SCALES


def places(mixture: Mixture) -> Tensor:
    """Points from far in one tail of each component to far in the other, within the support."""
    family: Any = mixture.family
    components = mixture.components
    low, high = family.support(components)
    levels = torch.tensor(TAILS, dtype=torch.float64)[:, None]
    lower, upper = family.icdf(components, levels), family.isf(components, levels)
    middle = lower[-1:]
    far = [middle + 4 * (lower[:1] - middle), middle + 4 * (upper[:1] - middle), middle * 1e-100]
    y = torch.cat([lower, upper, *far])
    if family.is_discrete:
        y = y.round()
        return y[(y >= 0) & y.isfinite()].unique()
    return y[(y > low) & (y < high) & (y.abs() > 1e-290)].unique()  # what has all its digits


@DIGITS
def measure_points(mixture: Mixture, reference: Reference) -> Errors:
    """Errors of the density, the distribution functions and the quantiles."""
    family: Any = mixture.family
    errors, y = Errors(), places(mixture)
    for method in ("log_prob", "cdf", "survival", "log_cdf", "log_survival"):
        if method == "log_survival":
            above = family.log_survival(mixture.components, y[:, None])
            answers = torch.logsumexp(mixture.logits + above, -1)  # P(Y > y); a mixture has no method for it
        else:
            answers = getattr(mixture, method)(y)
        for at, got in zip(map(mpf, y.tolist()), answers.tolist(), strict=True):
            if method == "log_prob":
                true = mpmath.log(reference.pdf(at))
            elif method in ("cdf", "log_cdf"):
                true = reference.cdf(at)
            else:
                true = reference.sf(at - 1 if method == "survival" and family.is_discrete else at)
            if method.startswith("log"):
                true = mpmath.log(true) if method != "log_prob" else true
                errors.add(method, got, true, max(mpf(1), abs(true)))
            elif true > 1e-290:
                errors.add(method, got, true, true)
    low = family.support(mixture.components)[0].min().item()
    narrowest = min(mpmath.sqrt(law.moments()[1]) for law in reference.laws)
    for level, got in zip(LEVELS, mixture.icdf(torch.tensor(LEVELS, dtype=torch.float64)).tolist(), strict=True):
        if family.is_discrete:
            errors.add("icdf", got, reference.whole_icdf(mpf(level), mpf(got)), 1)
        else:
            true = reference.icdf(mpf(level), mpf(got), low)
            errors.add("icdf", got, true, max(abs(true), narrowest))
    return errors


@DIGITS
def measure_moments(mixture: Mixture, reference: Reference) -> Errors:
    """Errors of mean, variance, skewness."""
    errors = Errors()
    mean, variance, skewness = reference.moments()
    errors.add("mean", mixture.mean.item(), mean, mpmath.sqrt(variance))
    errors.add("variance", mixture.variance.item(), variance, variance)
    if not mpmath.isnan(skewness) or not getattr(mixture.family, "is_circular", False):
        errors.add("skewness", mixture.skewness.item(), skewness, max(mpf(1), abs(skewness)))
    return errors


@cache
def reference_integrals(family: ScalarFamily[Any], n_components: int) -> tuple[list[float], Integrals]:
    """At scale 1, with the observations that crps is asked at."""
    mixture = make(family, n_components, 1.0)
    points = mixture.icdf(torch.tensor([1e-3, 0.4, 0.99], dtype=torch.float64)).tolist()
    rule = sums if family.is_discrete else integrals
    return points, rule(mixture, Reference.of(mixture), points)


@DIGITS
def measure_integrals(family: ScalarFamily[Any], n_components: int, scale: float) -> Errors:
    """Errors of crps, cde_loss and entropy."""
    errors, mixture = Errors(), make(family, n_components, scale)
    points, true = reference_integrals(family, n_components)
    reference = Reference.of(make(family, n_components, 1.0))
    many = mixture.expand((len(points),))
    y = torch.tensor(points, dtype=torch.float64) * scale
    for got, score in zip(crps(many, y, reduction="none").tolist(), true.crps, strict=True):
        errors.add("crps", got, score * scale, score * scale)
    for got, point in zip(cde_loss(many, y, reduction="none").tolist(), points, strict=True):
        loss = true.square - 2 * reference.pdf(mpf(point))
        errors.add("cde_loss", got, loss / scale, true.square / scale)
    errors.add("entropy", mixture.entropy().value.item(), true.entropy + mpmath.log(scale), 1)
    return errors


def scalar_families() -> list[ScalarFamily[Any]]:
    """All that are registered."""
    return [family for family in FAMILIES if isinstance(family, ScalarFamily)]


def main() -> None:
    """Print the table."""
    print("| family | " + " | ".join(Errors.METHODS) + " |")
    print("|---" * (1 + len(Errors.METHODS)) + "|")
    for family in scalar_families():
        errors = Errors()
        for n_components in WEIGHTS:
            for scale in scales_of(family):
                mixture = make(family, n_components, scale)
                reference = Reference.of(mixture)
                errors.merge(measure_points(mixture, reference))
                errors.merge(measure_moments(mixture, reference))
                errors.merge(measure_integrals(family, n_components, scale))
        cells = [f"{errors.largest[method]:.0e}" if method in errors.largest else "-" for method in Errors.METHODS]
        print(f"| {family.name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
