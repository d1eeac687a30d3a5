"""The family contract: every registered family gets every test; none can opt out."""

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor
from torch.distributions import Distribution

from mixtura import FAMILIES, Mixture
from mixtura.families import AnyFamily, ScalarFamily, VectorFamily, family_of

SCALES = [1e-3, 1.0, 1e3]
D = 2
F64 = torch.float64
NODES, NODE_WEIGHTS = (torch.as_tensor(part) for part in np.polynomial.legendre.leggauss(30))
TAILS = [1e-12, 1e-9, 1e-6, 1e-4, 1e-3, 0.01, 0.05, 0.15, 0.3]


def values(components: Distribution, *names: str) -> list[float]:
    """Attributes of one component as numbers."""
    return [getattr(components, name).item() for name in names]


def scipy_normal(c: Any) -> Any:
    return scipy.stats.norm(*values(c, "loc", "scale"))


def scipy_asymmetric_laplace(c: Any) -> Any:
    loc, scale, asymmetry = values(c, "loc", "scale", "asymmetry")
    return scipy.stats.laplace_asymmetric(asymmetry, loc, scale)


def scipy_truncated_normal(c: Any) -> Any:
    loc, scale, low, high = values(c, "loc", "scale", "low", "high")
    return scipy.stats.truncnorm((low - loc) / scale, (high - loc) / scale, loc, scale)


class ScipyLogitNormal:
    """scipy's law, with moments by an integral over the normal one: its own are good to some 7 digits."""

    def __init__(self, c: Any):
        self.normal, self.moved = values(c.base, "loc", "scale"), values(c, "loc", "scale")
        loc, scale = self.normal
        law = scipy.stats.johnsonsb(-loc / scale, 1 / scale, *self.moved)
        self.logpdf, self.cdf, self.sf = law.logpdf, law.cdf, law.sf

    def stats(self, moments: str) -> tuple[float, float, float]:
        z = np.linspace(-13, 13, 4001)  # the rule of trapezoids converges exponentially here
        weights = scipy.stats.norm.pdf(z) * (z[1] - z[0])
        y = self.moved[0] + self.moved[1] * scipy.special.expit(self.normal[0] + self.normal[1] * z)
        mean = weights @ y
        variance = weights @ (y - mean) ** 2
        return mean, variance, weights @ (y - mean) ** 3 / variance**1.5


class ScipyBeta:
    """Scipy's, from the nearer end of the support: its own division by the width loses what 1 - x is."""

    def __init__(self, c: Any):
        a, b, self.low, self.high = values(c, "concentration1", "concentration0", "low", "high")
        self.width = self.high - self.low
        self.law, self.mirrored = scipy.stats.beta(a, b), scipy.stats.beta(b, a)
        self.stats = scipy.stats.beta(a, b, self.low, self.width).stats

    def nearer(self, y: np.ndarray, low: Callable[..., Any], high: Callable[..., Any]) -> np.ndarray:
        x, xc = (y - self.low) / self.width, (self.high - y) / self.width
        return np.where(x < xc, low(x), high(xc))

    def logpdf(self, y: np.ndarray) -> np.ndarray:
        return self.nearer(y, self.law.logpdf, self.mirrored.logpdf) - np.log(self.width)

    def cdf(self, y: np.ndarray) -> np.ndarray:
        return self.nearer(y, self.law.cdf, self.mirrored.sf)

    def sf(self, y: np.ndarray) -> np.ndarray:
        return self.nearer(y, self.law.sf, self.mirrored.cdf)


class ScipyVonMises:
    """scipy's law, whose period is 2 pi and whose cdf is that of the line, cut to the support."""

    def __init__(self, c: Any):
        loc, kappa, low, high = values(c, "loc", "concentration", "low", "high")
        self.unit, self.ends, self.kappa, self.loc = (high - low) / (2 * math.pi), (low, high), kappa, loc

    def angle(self, y: Any) -> Any:
        return (y - self.loc) / self.unit

    def logpdf(self, y: np.ndarray) -> np.ndarray:
        return scipy.stats.vonmises.logpdf(self.angle(y), self.kappa) - math.log(self.unit)

    def between(self, low: Any, high: Any) -> np.ndarray:
        low, high = np.broadcast_arrays(self.angle(low), self.angle(high))
        if self.kappa < 50:
            return scipy.stats.vonmises.cdf(high, self.kappa) - scipy.stats.vonmises.cdf(low, self.kappa)
        # Beyond, scipy takes it for normal, which is good to some 6 digits only.
        peaks = [k * math.pi + s * 10 / math.sqrt(self.kappa) for k in range(-3, 4) for s in (-1, -0.3, 0, 0.3, 1)]
        scaled = float(2 * math.pi * mpmath.besseli(0, self.kappa) * mpmath.exp(-self.kappa))

        def density(x: Any) -> Any:
            return mpmath.exp(-2 * self.kappa * mpmath.sin(x / 2) ** 2) / scaled

        cuts = [[a, *(p for p in peaks if a < p < b), b] for a, b in zip(low, high, strict=True)]
        return np.array([float(mpmath.quad(density, cut)) for cut in cuts])

    def cdf(self, y: np.ndarray) -> np.ndarray:
        return self.between(self.ends[0], y)

    def sf(self, y: np.ndarray) -> np.ndarray:
        return self.between(y, self.ends[1])


REFERENCES: dict[str, Callable[[Any], Any]] = {
    "normal": scipy_normal,
    "laplace": lambda c: scipy.stats.laplace(*values(c, "loc", "scale")),
    "asymmetric_laplace": scipy_asymmetric_laplace,
    "logistic": lambda c: scipy.stats.logistic(*values(c, "loc", "scale")),
    "truncated_normal": scipy_truncated_normal,
    "student_t": lambda c: scipy.stats.t(*values(c, "df", "loc", "scale")),
    "gamma": lambda c: scipy.stats.gamma(c.concentration.item(), scale=1 / c.rate.item()),
    "beta": ScipyBeta,
    "poisson": lambda c: scipy.stats.poisson(c.rate.item()),
    "negative_binomial": lambda c: scipy.stats.nbinom(c.total_count.item(), (-c.logits).sigmoid().item()),
    "von_mises": ScipyVonMises,
    "lognormal": lambda c: scipy.stats.lognorm(c.scale.item(), scale=math.exp(c.loc.item())),
    "warped": ScipyLogitNormal,
}
"""For each family of scalars, the same law in scipy; a new family must bring one."""


def scipy_multivariate_normal(c: Any) -> Callable[[np.ndarray], float]:
    return scipy.stats.multivariate_normal(c.mean.numpy(), family_of(c).covariance(c).numpy()).logpdf


def scipy_multivariate_t(c: Any) -> Callable[[np.ndarray], float]:
    return scipy.stats.multivariate_t(c.loc.numpy(), (c.scale_tril @ c.scale_tril.mT).numpy(), c.df.item()).logpdf


def scipy_product(c: Any) -> Callable[[np.ndarray], float]:
    answers = [family_of(law) for law in c.laws]
    references = [REFERENCES[answer.name](law) for answer, law in zip(answers, c.laws, strict=True)]
    parts = [ref.logpmf if is_discrete(answer) else ref.logpdf for answer, ref in zip(answers, references, strict=True)]
    return lambda y: sum(part(column) for part, column in zip(parts, y, strict=True))


VECTOR_REFERENCES: dict[str, Callable[[Any], Callable[[np.ndarray], Any]]] = {
    "normal": scipy_multivariate_normal,
    "student_t": scipy_multivariate_t,
    "product": scipy_product,
}
"""For each name of a family of vectors, an independent log density."""


@pytest.fixture(params=FAMILIES, ids=repr)
def family(request: pytest.FixtureRequest) -> AnyFamily:
    return request.param


@pytest.fixture(params=[family for family in FAMILIES if isinstance(family, ScalarFamily)], ids=repr)
def scalar_family(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[family for family in FAMILIES if isinstance(family, VectorFamily)], ids=repr)
def vector_family(request: pytest.FixtureRequest) -> Any:
    return request.param


def event_size(family: AnyFamily) -> int | None:
    return D if isinstance(family, VectorFamily) else None


def make_raw(family: AnyFamily, *batch: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*batch, family.n_raw(event_size(family)), dtype=F64, generator=generator)


def move(family: AnyFamily, components: Any, a: float, b: float) -> Any:
    """a + b*Y."""
    shape = components.batch_shape + components.event_shape
    return family.affine(components, torch.full(shape, a, dtype=F64), torch.full(shape, b, dtype=F64))


def scales_of(family: AnyFamily) -> list[float]:
    return [1.0] if family.closed_under == "none" else SCALES


def make(family: AnyFamily, *batch: int, scale: float = 1.0, seed: int = 0) -> Any:
    """Random components, stretched by `scale`."""
    components = family.build(make_raw(family, *batch, seed=seed))
    return components if scale == 1 else move(family, components, 0.0, scale)


def index(family: AnyFamily, components: Any, k: int) -> Any:
    return family.map(components, lambda tensor: tensor[k])


def is_discrete(family: AnyFamily) -> bool:
    return isinstance(family, ScalarFamily) and family.is_discrete


def quantiles(family: Any, components: Any) -> Tensor:
    """Points of one scalar component (no batch axes) from its far lower tail to its far upper one."""
    tails = torch.tensor(TAILS, dtype=F64)
    return torch.cat([family.icdf(components, tails), family.isf(components, tails).flip(0)])


def pieces(points: Tensor, n: int = 4) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights, shape (pieces, nodes), between points, each piece cut in n."""
    cuts = torch.linspace(0, 1, n + 1, dtype=F64)
    edges = torch.cat([(points[:-1, None] + cuts[:-1] * points.diff()[:, None]).flatten(), points[-1:]])
    half = 0.5 * edges.diff()[:, None]
    return edges[:-1, None] + half * (1 + NODES), half * NODE_WEIGHTS


def refined(points: Tensor, low: Tensor, high: Tensor, n: int = 4) -> Tensor:
    """Each step cut in n, in equal ratios towards a finite end, where the density may be infinite."""
    fractions = torch.linspace(0, 1, n + 1, dtype=F64)[:-1]
    first, last = points[:-1, None], points[1:, None]
    cuts = first + fractions * (last - first)
    is_low = torch.arange(len(first))[:, None] < len(first) // 2
    if bool(low.isfinite()):
        cuts = torch.where(is_low, low + (first - low) * ((last - low) / (first - low)) ** fractions, cuts)
    if bool(high.isfinite()):
        cuts = torch.where(is_low, cuts, high - (high - first) * ((high - last) / (high - first)) ** fractions)
    return torch.cat([cuts.flatten(), points[-1:]])


def close(got: Tensor, expected: Any, rtol: float, atol: float = 0.0) -> None:
    torch.testing.assert_close(got, torch.as_tensor(expected, dtype=got.dtype), rtol=rtol, atol=atol, equal_nan=True)


# Density and distribution function -----------------------------------------------------------------------------


def test_every_family_has_an_independent_reference(family):
    assert family.name in (VECTOR_REFERENCES if isinstance(family, VectorFamily) else REFERENCES)


@pytest.mark.parametrize("seed", range(3))
def test_the_cdf_is_the_integral_of_the_density(scalar_family, seed):
    """Between quantiles from 1e-12 to 1 - 1e-12, so that the density integrates to 1 as well."""
    family = scalar_family
    for scale in scales_of(family):
        components = make(family, scale=scale, seed=seed)
        points = quantiles(family, components)
        if family.is_discrete:
            whole = torch.arange(points[0].item(), points[-1].item() + 1, dtype=F64)
            mass = family.log_prob(components, whole).exp().cumsum(0)
            close(family.cdf(components, whole), mass + family.cdf(components, points[:1] - 1), rtol=1e-9)
            close(family.cdf(components, whole + 0.5), family.cdf(components, whole), rtol=0)
            assert (family.log_prob(components, whole + 0.5) == -torch.inf).all()
            continue
        peak = getattr(components, "loc", points[0]).reshape(1)  # where the density may have a kink
        points = torch.cat([points, peak.clamp(points[0], points[-1])]).unique()
        nodes, weights = pieces(refined(points, *family.support(components)), 1)
        integral = (family.log_prob(components, nodes).exp() * weights).sum(-1).reshape(len(points) - 1, -1).sum(-1)
        close(family.cdf(components, points).diff(), integral, rtol=1e-6, atol=1e-10)
        assert 1 - integral.sum().item() < 1e-9


def test_distribution_functions_agree_with_each_other(scalar_family):
    family = scalar_family
    for scale in scales_of(family):
        components = make(family, scale=scale)
        points = quantiles(family, components)
        cdf, survival = family.cdf(components, points), family.survival(components, points)
        close(cdf + survival, torch.ones_like(cdf), rtol=0, atol=1e-14)
        close(family.log_cdf(components, points), cdf.log(), rtol=1e-9, atol=1e-12)
        close(family.log_survival(components, points), survival.log(), rtol=1e-9, atol=1e-12)
        levels = torch.tensor([1e-12, 1e-3, 0.3, 0.5, 0.9], dtype=F64)
        if family.is_discrete:
            y = family.icdf(components, levels)
            assert (family.cdf(components, y) >= levels).all()
            assert (family.cdf(components, y - 1) < levels).all()
            y = family.isf(components, levels)
            assert (family.survival(components, y) <= levels).all()
            assert (family.survival(components, y - 1) > levels).all()
        else:
            for answer, inverse in ((family.cdf, family.icdf), (family.survival, family.isf)):
                y = inverse(components, levels)
                rounding = 4 * torch.finfo(F64).eps * y.abs() * family.log_prob(components, y).exp()
                assert ((answer(components, y) - levels).abs() <= 1e-9 * levels + rounding).all()


def test_outside_the_support_there_is_nothing(scalar_family):
    family = scalar_family
    components = make(family, 4)
    low, high = family.support(components)
    assert low.shape == high.shape == (4,)
    for end, is_low in ((low, True), (high, False)):
        if not bool(end.isfinite().all()):
            continue
        beyond = end - 1 if is_low else end + 1
        assert (family.log_prob(components, beyond) == -torch.inf).all()
        assert (family.cdf(components, beyond) == (0 if is_low else 1)).all()
        assert (family.survival(components, beyond) == (1 if is_low else 0)).all()
        assert (family.log_cdf(components, beyond) == (-torch.inf if is_low else 0)).all()
        assert (family.log_survival(components, beyond) == (0 if is_low else -torch.inf)).all()
    for infinite, at_least in ((-torch.inf, 0), (torch.inf, 1)):
        assert (family.cdf(components, torch.tensor(infinite, dtype=F64)) == at_least).all()
        assert (family.survival(components, torch.tensor(infinite, dtype=F64)) == 1 - at_least).all()


@pytest.mark.parametrize("seed", range(3))
def test_scalar_laws_agree_with_scipy(scalar_family, seed):
    family = scalar_family
    for scale in scales_of(family):
        components = make(family, 5, scale=scale, seed=seed)
        for k in range(5):
            one = index(family, components, k)
            reference = REFERENCES[family.name](one)
            points = quantiles(family, one)
            log_density = reference.logpmf if family.is_discrete else reference.logpdf
            close(family.log_prob(one, points), log_density(points.numpy()), rtol=1e-10, atol=1e-10)
            close(family.cdf(one, points), reference.cdf(points.numpy()), rtol=1e-8, atol=1e-13)
            close(family.survival(one, points), reference.sf(points.numpy()), rtol=1e-8, atol=1e-13)
            if family.is_circular:
                continue  # scipy's moments are those of the line
            mean, variance, skewness = reference.stats(moments="mvs")
            close(one.mean, mean, rtol=1e-8, atol=1e-10 * scale)
            close(one.variance, variance, rtol=1e-8)
            third = family.third_moment(one)
            close(third / one.variance**1.5, skewness if np.isfinite(skewness) else np.nan, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scale", SCALES)
def test_vector_laws_agree_with_an_independent_density(vector_family, scale):
    family = vector_family
    scale = scale if family.closed_under != "none" else 1.0
    components = make(family, 5, scale=scale)
    y = family.sample(components, torch.Generator().manual_seed(1))
    got = family.log_prob(components, y)
    for k in range(5):
        expected = VECTOR_REFERENCES[family.name](index(family, components, k))(y[k].numpy())
        assert got[k].item() == pytest.approx(float(expected), abs=1e-10)


def test_mean_distances_are_integrals(scalar_family):
    """E|X - y| is the integral of F below y and of 1 - F above; E|X - Y| that of F(1-G) + G(1-F)."""
    family = scalar_family
    if not family.has_distances:
        with pytest.raises(NotImplementedError):
            family.mean_distance(make(family), torch.tensor(0.0))
        return
    for scale in scales_of(family):
        for seeds in ((1, 2), (2, 3), (4, 4)):
            first, second = (make(family, scale=scale, seed=seed) for seed in seeds)
            y = torch.tensor(0.3 * scale, dtype=F64)
            deep = torch.tensor([1e-30, 1e-24, 1e-18], dtype=F64)
            ends = [part for law in (first, second) for part in (family.icdf(law, deep), family.isf(law, deep))]
            parts = [quantiles(family, first), quantiles(family, second), y[None], *ends]
            nodes, weights = pieces(torch.cat(parts).unique(), 8)
            below, above = family.cdf(first, nodes), family.survival(first, nodes)
            distance = (weights * torch.where(nodes < y, below, above)).sum()
            close(family.mean_distance(first, y), distance, rtol=1e-9)
            other = below * family.survival(second, nodes) + above * family.cdf(second, nodes)
            close(family.mean_difference(first, second), (weights * other).sum(), rtol=1e-9)


def test_the_slope_is_the_derivative_of_the_log_density(scalar_family):
    family = scalar_family
    if family.is_discrete:
        return  # there is none between whole numbers
    components = make(family, 6)
    levels = torch.tensor([[0.01], [0.2], [0.6], [0.97]], dtype=F64)
    y = family.icdf(components, levels)
    low, high = family.support(components)
    step = 1e-6 * torch.minimum(components.stddev, torch.minimum(y - low, high - y))
    difference = (family.log_prob(components, y + step) - family.log_prob(components, y - step)) / (2 * step)
    close(family.slope(components, y), difference, rtol=1e-5, atol=1e-6)


# Vectors -------------------------------------------------------------------------------------------------------


def box(family: Any, components: Any, n: int) -> tuple[list[Tensor], list[Tensor]]:
    """Nodes and weights along each coordinate, out to quantiles of 1e-9."""
    nodes, weights = [], []
    for dim in range(D):
        margin = family.marginal(components, dim)
        points = quantiles(family_of(margin), margin)[1:-1]
        if is_discrete(family_of(margin)):
            whole = torch.arange(points[0].item(), points[-1].item() + 1, dtype=F64)
            nodes.append(whole)
            weights.append(torch.ones_like(whole))
            continue
        node, weight = pieces(points[points.diff(prepend=points[:1] - 1) > 0], n)
        nodes.append(node.flatten())
        weights.append(weight.flatten())
    return nodes, weights


def test_joint_density_integrates_to_1_and_to_its_margins(vector_family):
    family = vector_family
    components = make(family, seed=3)
    (x, y), weights = box(family, components, 1)
    joint = family.log_prob(components, torch.stack(torch.meshgrid(x, y, indexing="ij"), -1)).exp()
    for dim, kept, integral in ((0, x, joint @ weights[1]), (1, y, weights[0] @ joint)):
        margin = family.marginal(components, dim)
        expected = family_of(margin).log_prob(margin, kept).exp()
        close(integral, expected, rtol=1e-5, atol=1e-7 * expected.max().item())
    assert (weights[0] @ joint @ weights[1]).item() == pytest.approx(1, abs=1e-6)


def test_taking_coordinates_in_another_order_is_the_same_law(vector_family):
    family = vector_family
    components = make(family, 4, seed=6)
    y = family.sample(components, torch.Generator().manual_seed(1))
    swapped = family.take(components, [1, 0])
    close(family_of(swapped).log_prob(swapped, y[..., [1, 0]]), family.log_prob(components, y), rtol=1e-9, atol=1e-10)
    one = family.take(components, [1])
    margin = family.marginal(components, 1)
    expected = family_of(margin).log_prob(margin, y[..., 1])
    close(family_of(one).log_prob(one, y[..., 1:]), expected, rtol=1e-9, atol=1e-10)


def test_joint_is_margin_times_conditional(vector_family):
    family = vector_family
    components = make(family, 4, seed=7)
    y = family.sample(components, torch.Generator().manual_seed(1))
    log_known, others = family.condition(components, 1, y[..., :1])
    margin = family.marginal(components, 0)
    close(log_known, family_of(margin).log_prob(margin, y[..., 0]), rtol=1e-9, atol=1e-10)
    joint = log_known + family_of(others).log_prob(others, y[..., 1:])
    close(joint, family.log_prob(components, y), rtol=1e-9, atol=1e-10)


# What networks need --------------------------------------------------------------------------------------------


def test_float32_keeps_its_digits_far_from_the_origin(family):
    for sd in (0.1, 1e-2):
        single = make(family, seed=4)
        if family.closed_under == "affine":
            single = move(family, single, 1000.0, sd)
        elif family.closed_under == "scale":
            single = move(family, single, 0.0, 1000.0)
        single = family.map(single, lambda tensor: tensor.float())
        double = family.map(single, lambda tensor: tensor.double())  # the same numbers, with more digits to compute in
        y = family.sample(double, torch.Generator().manual_seed(3)).float()
        expected = family.log_prob(double, y.double()).item()
        assert family.log_prob(single, y).item() == pytest.approx(expected, rel=5e-5, abs=2e-5)


def test_affine_moves_the_density_by_the_jacobian(family):
    components = make(family, 6)
    shape = components.batch_shape + components.event_shape
    generator = torch.Generator().manual_seed(2)
    a, b = (torch.randn(shape, dtype=F64, generator=generator) for _ in range(2))  # b of both signs
    if family.closed_under == "none":
        a, b = torch.zeros_like(a), torch.ones_like(b)
    elif family.closed_under == "scale":
        a, b = torch.zeros_like(a), b.abs()
    y = family.sample(components, generator)
    moved = family.log_prob(family.affine(components, a, b), a + b * y)
    log_jacobian = b.abs().log().sum(-1) if components.event_shape else b.abs().log()
    torch.testing.assert_close(moved, family.log_prob(components, y) - log_jacobian, atol=1e-9, rtol=1e-10)


def test_gradients_agree_with_finite_differences(family):
    raw = make_raw(family, 4).requires_grad_()
    y = family.sample(make(family, 4), torch.Generator().manual_seed(0))
    if not is_discrete(family):
        y.requires_grad_()

    def log_prob(raw: Tensor, y: Tensor) -> Tensor:
        return family.log_prob(family.build(raw, 0.01), y)

    assert torch.autograd.gradcheck(log_prob, (raw, y))


def test_gradients_of_distribution_functions_agree_with_finite_differences(scalar_family):
    """Those of censored likelihoods, CRPS and quantiles, in the law's parameters as well as in y."""
    family = scalar_family
    raw = make_raw(family, 4).requires_grad_()
    y = family.sample(make(family, 4), torch.Generator().manual_seed(0))
    if not is_discrete(family):
        y.requires_grad_()
    for answer in (family.cdf, family.survival, family.log_cdf, family.log_survival):
        assert torch.autograd.gradcheck(lambda raw, y, answer=answer: answer(family.build(raw, 0.01), y), (raw, y))


def test_samples_and_density_are_the_same_law(family):
    components = make(family, seed=5)
    many = family.map(components, lambda tensor: tensor.expand(20_000, *tensor.shape))
    y = family.sample(many, torch.Generator().manual_seed(0))
    margins = [(components, y)]
    if isinstance(family, VectorFamily):
        # One coordinate, then the other given it: uniform and independent, whatever the law (Rosenblatt 1952).
        first = family.marginal(components, 0)
        _, given = family.condition(many, 1, y[..., :1])
        second = family_of(given).marginal(given, 0) if given.event_shape else given
        margins = [(first, y[:, 0]), (second, y[:, 1])]
    uniforms = []
    generator = torch.Generator().manual_seed(1)
    for law, drawn in margins:
        answer = family_of(law)
        u = answer.cdf(law, drawn)
        if is_discrete(answer):  # randomised within the steps
            mass = answer.log_prob(law, drawn).exp()
            u = u - mass * torch.rand(u.shape, dtype=F64, generator=generator)
        assert scipy.stats.kstest(u.numpy(), "uniform").pvalue > 1e-3
        uniforms.append(u)
    if len(uniforms) == 2:
        assert scipy.stats.spearmanr(*uniforms).pvalue > 1e-3


@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_unbuild_inverts_build(family, floor):
    components = family.build(make_raw(family, 7), floor)
    again = family.build(family.unbuild(components, floor), floor)
    for before, after in zip(family.parameters(components), family.parameters(again), strict=True):
        torch.testing.assert_close(after, before, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_slopes_in_closed_form_are_those_of_autograd(family, floor):
    """Where a family has them; raw parameters on both sides of where a scale is 1, and far below the floor."""
    raw = (3 * make_raw(family, 40)).requires_grad_()
    components = family.build(raw, floor)
    y = family.sample(family.map(components, torch.Tensor.detach), torch.Generator().manual_seed(0))
    found = family.log_prob_and_slopes(raw.detach(), floor, y)
    if found is None:
        return
    log_prob = family.log_prob(components, y)
    (slopes,) = torch.autograd.grad(log_prob.sum(), raw)
    torch.testing.assert_close(found[0], log_prob.detach(), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(found[1], slopes, atol=1e-12, rtol=1e-12)


def test_parameters_make_the_same_components(family):
    components = make(family, 3)
    again = family.from_parameters(*family.parameters(components))
    assert type(again) is type(components)
    assert again.batch_shape == (3,)
    assert all(torch.equal(*pair) for pair in zip(*map(family.parameters, (components, again)), strict=True))


@pytest.mark.parametrize(("dtype", "floor"), [(torch.float64, 0.0), (torch.float32, 1e-6), (torch.float32, 1e-3)])
@pytest.mark.parametrize("extreme", [-50.0, 50.0])
def test_extreme_raw_outputs_stay_finite(family, extreme, dtype, floor):
    raw = torch.full((1, family.n_raw(event_size(family))), extreme, dtype=dtype, requires_grad=True)
    inside = family.sample(make(family, 1), torch.Generator().manual_seed(0)).to(dtype)
    log_prob = family.log_prob(family.build(raw, floor), inside)
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()


def test_one_row_at_a_time_is_the_batch(family):
    components = make(family, 9)
    y = family.sample(components, torch.Generator().manual_seed(0))
    rows = [family.log_prob(family.map(components, lambda t, i=i: t[i : i + 1]), y[i : i + 1]) for i in range(9)]
    torch.testing.assert_close(torch.cat(rows), family.log_prob(components, y), rtol=1e-15, atol=1e-15)


def test_fit_is_nearly_as_likely_as_the_truth_and_survives_a_single_row(family):
    truth = make(family, seed=8)
    many = family.map(truth, lambda tensor: tensor.expand(3000, *tensor.shape))
    y = family.sample(many, torch.Generator().manual_seed(0))
    weights = torch.rand(3000, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    weights[1:, 1] = 0  # the second component sees one row only
    components = family.fit(y, weights)
    assert components.batch_shape == (2,)
    fitted = index(family, components, 0)
    share = weights[:, 0] / weights[:, 0].sum()
    gap = (share * (family.log_prob(many, y) - family.log_prob(fitted, y))).sum().item()
    assert gap < 0.02
    ends = family.support(components) if isinstance(family, ScalarFamily) else ()  # which may be infinite
    own = [tensor for tensor in family.parameters(components) if not any(tensor is end for end in ends)]
    assert all(bool(tensor.isfinite().all()) for tensor in own if tensor.ndim < 3)
    assert family.log_prob(components, y[:1].expand(2, *y.shape[1:])).isfinite().all()
    assert all(bool(t.isfinite().all()) for t in (family.unbuild(components, 1e-3), components.mean))


def test_the_family_of_its_own_components_answers_for_them(family):
    components = make(family, 3)
    mixture = Mixture(torch.zeros(3, dtype=F64), components)
    assert mixture.family.name == family.name
    assert isinstance(mixture.family, ScalarFamily) == isinstance(family, ScalarFamily)


def test_families_are_values(family):
    """Equal where their options are, so that an estimator that holds one can be cloned and saved."""
    assert family == type(family)(**vars(family))
    assert hash(family) == hash(type(family)(**vars(family)))
    assert sum(family == other for other in FAMILIES) == 1


# Of the normal laws alone --------------------------------------------------------------------------------------


def test_normal_fit_is_that_of_moments():
    y = torch.randn(500, dtype=F64, generator=torch.Generator().manual_seed(0))
    weights = torch.rand(500, 1, dtype=F64, generator=torch.Generator().manual_seed(1))
    components = family_of(torch.distributions.Normal(0.0, 1.0)).fit(y, weights)
    close(components.mean[0], (weights[:, 0] * y).sum() / weights.sum(), rtol=1e-12)


def test_scales_respect_the_floor():
    for family in FAMILIES:
        if family.name != "normal":
            continue
        raw = torch.full((3, family.n_raw(event_size(family))), -80.0, dtype=F64)
        assert (family.build(raw, 0.25).stddev >= 0.25).all()
        if isinstance(family, VectorFamily):
            floors = torch.tensor([0.25, 0.5], dtype=F64)
            assert (family.build(raw, floors).stddev >= floors).all()


def test_normal_log_prob_agrees_with_mpmath_a_hundred_scales_away():
    for z in (-100.0, -37.5, 0.0, 3.3, 100.0):
        zero, y = torch.tensor([0.0, 2 * z], dtype=F64)
        components = torch.distributions.Normal(zero, zero + 2)
        true = mpmath.log(mpmath.npdf(mpmath.mpf(2 * z), 0, 2))
        assert family_of(components).log_prob(components, y).item() == pytest.approx(float(true), abs=1e-10)
        assert math.isfinite(family_of(components).log_cdf(components, y).item())
