"""Scores against their definitions and known values (nll: test_training.py)."""

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.stats
import scoringrules as sr
import torch
from torch.distributions import MultivariateNormal, Normal, StudentT

from mixtura import (
    MixturaError,
    Mixture,
    brier,
    cde_loss,
    censored_nll,
    crps,
    dss,
    energy_score,
    get_family,
    hdr_level,
    interval_score,
    nll,
    pit,
    quantile_loss,
    rosenblatt,
    variogram_score,
)

F64 = torch.float64


def make(n: int = 6, k: int = 4, scale: float = 1.0) -> tuple[Mixture, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    loc, raw, logits = (torch.randn(n, k, dtype=F64, generator=g) for _ in range(3))
    return Mixture(logits, Normal(3 * scale * loc, scale * raw.exp())), scale * torch.randn(n, dtype=F64, generator=g)


def test_values_that_skpro_gets_wrong():
    """skpro's NormalMixture: .0356 instead of .2693, and 2.203 instead of 1.218."""
    one = Mixture(torch.zeros(1, dtype=F64), Normal(torch.zeros(1, dtype=F64), 1.0))
    assert crps(one, torch.tensor(0.3, dtype=F64)).item() == pytest.approx(0.26933, abs=1e-5)
    two = Mixture(torch.zeros(2, dtype=F64), Normal(torch.tensor([-3.0, 3.0], dtype=F64), 1.0))
    assert crps(two, torch.tensor(0.0, dtype=F64)).item() == pytest.approx(1.218, abs=1e-3)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_crps_is_the_integral_of_its_definition(scale):
    mixture, y = make(scale=scale)
    for i in range(6):
        grid = torch.linspace(-40 * scale, 40 * scale, 400_001, dtype=F64)
        step = (grid >= y[i]).double()
        integral = torch.trapezoid((mixture[i].cdf(grid) - step).square(), grid)
        assert crps(mixture[i], y[i]).item() == pytest.approx(integral.item(), rel=1e-3)


def test_crps_agrees_with_samples(generator):
    mixture, y = make()
    x, other = mixture.sample((400_000,), generator), mixture.sample((400_000,), generator)
    estimate = (x - y).abs().mean(0) - 0.5 * (x - other).abs().mean(0)
    assert crps(mixture, y).item() == pytest.approx(estimate.mean().item(), abs=0.01)


def test_crps_of_many_components_is_that_of_the_few_they_stand_for(generator):
    """Of forty, not every quantile is a point of the quadrature; five take all of theirs."""
    draw = [torch.randn(3, 5, dtype=torch.float64, generator=generator) for _ in range(4)]
    few = Mixture(draw[0], StudentT(2 + draw[1].exp(), 3 * draw[2], draw[3].exp()))
    many = Mixture.pool([few] * 8)
    y = torch.tensor([-20.0, 0.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(crps(many, y, reduction="none"), crps(few, y, reduction="none"), rtol=1e-8, atol=0)


def test_crps_of_a_narrow_component_among_many_without_weight():
    loc, scale = torch.zeros(1, 161, dtype=torch.float64), torch.ones(1, 161, dtype=torch.float64)
    loc[:, 1:], scale[:, 0] = torch.linspace(-9, 9, 160, dtype=torch.float64), 1e-3
    logits = torch.full_like(loc, -30.0)
    logits[:, 0] = 0
    y = torch.tensor([2e-4], dtype=torch.float64)
    many, one = (Mixture(logits[:, :k], StudentT(4.0 * scale[:, :k] ** 0, loc[:, :k], scale[:, :k])) for k in (161, 1))
    torch.testing.assert_close(crps(many, y), crps(one, y), rtol=1e-6, atol=0)


def test_crps_is_affine_equivariant_and_differentiable():
    mixture, y = make()
    assert crps(mixture.affine(5.0, -3.0), 5 - 3 * y).item() == pytest.approx(3 * crps(mixture, y).item())
    loc, scale = mixture.components.loc.requires_grad_(), mixture.components.scale.requires_grad_()
    logits = mixture.logits.clone().requires_grad_()
    score = lambda *p: crps(Mixture(p[0], Normal(p[1], p[2]), validate_args=False), y)  # noqa: E731
    assert torch.autograd.gradcheck(score, (logits, loc, scale))


def test_crps_is_the_absolute_error_of_a_forecast_without_spread():
    sure = Mixture(torch.zeros(3, 1, dtype=F64), Normal(torch.zeros(3, 1, dtype=F64), 1e-12))
    assert crps(sure, torch.tensor([1.0, -2.0, 3.0], dtype=F64)).item() == pytest.approx(2)


def test_crps_weighs_rows_and_says_what_does_not_fit():
    mixture, y = make()
    weight = torch.tensor([1.0, 0, 2, 0, 0, 1], dtype=F64)
    index = torch.tensor([0, 2, 2, 5])
    torch.testing.assert_close(crps(mixture, y, weight), crps(mixture[index], y[index]))
    with pytest.raises(MixturaError, match=r"\[E-value-shape\]"):
        crps(mixture, y[:, None])
    with pytest.raises(MixturaError, match=r"\[E-scalar-only\]"):
        crps(Mixture(torch.zeros(1), MultivariateNormal(torch.zeros(1, 2), torch.eye(2))), torch.zeros(2))


# Against scoringrules and definitions ----------------------------------------------------------------------------


def t(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=F64)


def law(name: str, *parameters: float) -> Mixture:
    """A mixture of one component, given its tensors."""
    family: Any = get_family(name)
    return Mixture(t(0.0), family.from_parameters(*(t(value) for value in parameters)))


SINGLE: dict[str, tuple[tuple[float, ...], Callable[[Any], Any]]] = {
    "normal": ((0.5, 2.0), lambda y: sr.crps_normal(y, 0.5, 2.0)),
    "logistic": ((0.5, 2.0), lambda y: sr.crps_logistic(y, 0.5, 2.0)),
    "laplace": ((0.5, 2.0), lambda y: sr.crps_laplace(y, 0.5, 2.0)),
    "student_t": ((4.5, 0.5, 2.0), lambda y: sr.crps_t(y, 4.5, 0.5, 2.0)),
    "lognormal": ((0.5, 0.7), lambda y: sr.crps_lognormal(y, 0.5, 0.7)),
    "gamma": ((2.5, 0.7), lambda y: sr.crps_gamma(y, 2.5, 0.7)),
    "beta": ((2.5, 0.7, -1.0, 9.0), lambda y: sr.crps_beta(y, 2.5, 0.7, -1.0, 9.0)),
    "truncated_normal": ((0.5, 2.0, 0.0, 9.0), lambda y: sr.crps_tnormal(y, 0.5, 2.0, 0.0, 9.0)),
    "poisson": ((3.5,), lambda y: sr.crps_poisson(y, 3.5)),
    "negative_binomial": ((2.5, 0.4), lambda y: sr.crps_negbinom(y, 2.5, 1 / (1 + math.exp(0.4)))),
}


@pytest.mark.parametrize("name", SINGLE)
def test_crps_agrees_with_scoringrules(name):
    parameters, theirs = SINGLE[name]
    y = t(0, 1, 2, 7, 15) if name in ("poisson", "negative_binomial") else t(0.1, 0.6, 2.0, 8.5)
    if name not in ("lognormal", "beta"):  # of which theirs is NaN outside the support
        y = torch.cat([y, t(-3, 20)])
    got = crps(law(name, *parameters).expand(y.shape), y, reduction="none")
    expected = [float(theirs(value)) for value in y.tolist()]
    torch.testing.assert_close(got, t(*expected), rtol=1e-8, atol=1e-10)


def test_scores_of_normal_mixtures_agree_with_scoringrules():
    mixture, y = make()
    m, s, w, obs = (part.numpy() for part in (mixture.components.loc, mixture.components.scale, mixture.weights, y))
    expected = torch.as_tensor(sr.crps_mixnorm(obs, m, s, w))
    torch.testing.assert_close(crps(mixture, y, reduction="none"), expected, rtol=1e-9, atol=1e-12)
    reference = -torch.as_tensor(np.log((w * scipy.stats.norm.pdf(obs[:, None], m, s)).sum(-1)))
    torch.testing.assert_close(nll(mixture, y, reduction="none"), reference)
    q = mixture.icdf(torch.tensor(0.3, dtype=F64)).numpy()
    theirs = torch.as_tensor(sr.quantile_score(obs, q, 0.3))
    torch.testing.assert_close(quantile_loss(mixture, y, 0.3, reduction="none"), theirs)
    low, high = (mixture.icdf(torch.tensor(level, dtype=F64)).numpy() for level in (0.1, 0.9))
    theirs = torch.as_tensor(sr.interval_score(obs, low, high, 0.2))
    torch.testing.assert_close(interval_score(mixture, y, 0.8, reduction="none"), theirs)
    probability = mixture.survival(0.7).numpy()
    theirs = torch.as_tensor(sr.brier_score((obs >= 0.7).astype(float), probability))
    torch.testing.assert_close(brier(mixture, y, 0.7, reduction="none"), theirs)


def test_scores_from_moments_and_draws_agree_with_scoringrules(generator):
    mixture, y = make(n=2)
    draws = mixture.sample((200_000,), generator).mT.numpy()
    theirs = torch.as_tensor(sr.dssuv_ensemble(y.numpy(), draws))
    torch.testing.assert_close(dss(mixture, y, reduction="none"), theirs, rtol=0.02, atol=0.02)
    vectors, z = make_vector(n=2)
    draws = vectors.sample((2000,), generator).transpose(0, 1).numpy()
    theirs = torch.as_tensor(sr.es_ensemble(z.numpy(), draws))
    torch.testing.assert_close(energy_score(vectors, z, n_draws=600, reduction="none"), theirs, rtol=0.05, atol=0)
    theirs = torch.as_tensor(sr.vs_ensemble(z.numpy(), draws, p=0.5, estimator="nrg")).double()
    got = variogram_score(vectors, z, n_draws=20_000, reduction="none")
    ratio = theirs / got  # theirs counts each pair twice
    torch.testing.assert_close(ratio, torch.full_like(ratio, 2.0), rtol=0.1, atol=0)
    mean, covariance = vectors.mean, vectors.covariance
    gap = (z - mean)[..., None]
    expected = covariance.logdet() + (gap.mT @ covariance.inverse() @ gap)[..., 0, 0]
    torch.testing.assert_close(dss(vectors, z, reduction="none"), expected)


def make_vector(n: int = 4, k: int = 2, d: int = 3) -> tuple[Mixture, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    loc = 2 * torch.randn(n, k, d, dtype=F64, generator=g)
    half = torch.randn(n, k, d, d, dtype=F64, generator=g)
    logits = torch.randn(n, k, dtype=F64, generator=g)
    covariance = half @ half.mT + 0.3 * torch.eye(d, dtype=F64)
    return Mixture(logits, MultivariateNormal(loc, covariance)), torch.randn(n, d, dtype=F64, generator=g)


ATOMIC = ["normal", "gamma", "student_t", "poisson"]


def with_atoms(name: str) -> Mixture:
    """Three components, and atoms at 0, at 4 and outside the support; no batch axes."""
    parameters = {
        "normal": ((-1.0, 2.0, 5.0), (0.5, 1.0, 2.0)),
        "gamma": ((0.8, 2.0, 9.0), (0.5, 1.0, 2.0)),
        "student_t": ((3.0, 5.0, 9.0), (-1.0, 2.0, 5.0), (0.5, 1.0, 2.0)),
        "poisson": ((0.8, 2.0, 9.0),),
    }[name]
    components = get_family(name).from_parameters(*(t(*row) for row in parameters))
    return Mixture(t(0.3, 0.2, 0.2, 0.15, 0.1, 0.05).log(), components, atoms=t(0.0, 4.0, -3.0))


@pytest.mark.parametrize("name", ATOMIC)
def test_crps_respects_atoms(name):
    mixture = with_atoms(name)
    n = 1 if name == "poisson" else 20_000
    for y in (-5.0, 0.0, 2.0, 4.0, 30.0):
        edges = torch.arange(-60.0, 161.0, dtype=F64) if n == 1 else t(-60.0, *sorted({-3.0, 0.0, 4.0, y}), 160.0)
        middle = edges[:-1] + edges.diff() * ((torch.arange(n, dtype=F64) + 0.5) / n)[:, None]
        squares = (mixture.cdf(middle) - (middle >= y).double()).square()
        expected = (squares.mean(0) * edges.diff()).sum().item()
        assert crps(mixture, t(y)[0]).item() == pytest.approx(expected, rel=1e-4)


# Calibration ----------------------------------------------------------------------------------------------------


def is_uniform(u: torch.Tensor) -> bool:
    return scipy.stats.kstest(u.numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("name", ATOMIC)
def test_pit_is_uniform_with_atoms_and_of_counts(name, generator):
    mixture = with_atoms(name).expand((20_000,))
    y = mixture.sample((), generator)
    assert is_uniform(pit(mixture, y))
    assert not is_uniform(pit(mixture, y + (1 if name == "poisson" else 0.1)))


def test_hdr_level_and_rosenblatt_are_uniform_where_forecasts_are_calibrated(generator):
    two = Mixture(t(0.3, 0.7).log(), Normal(t(-2.0, 1.0), t(0.5, 1.0))).expand((5000,))
    assert is_uniform(hdr_level(two, two.sample((), generator)))
    assert not is_uniform(hdr_level(two, two.sample((), generator) * 1.1))
    vectors = make_vector(n=1)[0].expand((1500,))
    y = vectors.sample((), generator)
    assert is_uniform(hdr_level(vectors, y, n_draws=1000))
    u = rosenblatt(vectors, y)
    assert all(is_uniform(column) for column in u.T)
    assert all(scipy.stats.spearmanr(u[:, i], u[:, j]).pvalue > 1e-3 for i, j in ((0, 1), (0, 2), (1, 2)))
    assert not all(is_uniform(column) for column in rosenblatt(vectors, y + 0.3).T)


# Laws of their own ------------------------------------------------------------------------------------------------


SCALAR_SCORES: dict[str, Callable[..., torch.Tensor]] = {
    "nll": nll,
    "crps": crps,
    "quantile_loss": lambda m, y, **kw: quantile_loss(m, y, 0.3, **kw),
    "interval_score": lambda m, y, **kw: interval_score(m, y, 0.8, **kw),
    "dss": dss,
    "cde_loss": cde_loss,
    "brier": lambda m, y, **kw: brier(m, y, 0.4, **kw),
}
VECTOR_SCORES: dict[str, Callable[..., torch.Tensor]] = {
    "nll": nll,
    "dss": dss,
    "cde_loss": cde_loss,
    "energy_score": energy_score,
    "variogram_score": variogram_score,
}


@pytest.mark.parametrize("b", [-3.0, 0.01])
@pytest.mark.parametrize("name", ["normal", "student_t"])
def test_scores_are_affine_equivariant(name, b):
    g = torch.Generator().manual_seed(7)
    components = get_family(name).build(torch.randn(6, 3, 3 if name == "student_t" else 2, dtype=F64, generator=g))
    mixture, y, a = Mixture(torch.zeros(6, 3, dtype=F64), components), make()[1], 5.0
    moved, y_moved = mixture.affine(a, b), a + b * y
    log_b = math.log(abs(b))
    laws: list[tuple[Any, Callable[[torch.Tensor], torch.Tensor], Callable[..., torch.Tensor]]] = [
        (nll, lambda s: s + log_b, nll),
        (dss, lambda s: s + 2 * log_b, dss),
        (crps, lambda s: abs(b) * s, crps),
        (cde_loss, lambda s: s / abs(b), cde_loss),
        (SCALAR_SCORES["interval_score"], lambda s: abs(b) * s, SCALAR_SCORES["interval_score"]),
        (
            SCALAR_SCORES["quantile_loss"],
            lambda s: abs(b) * s,
            lambda m, y, **kw: quantile_loss(m, y, 0.3 if b > 0 else 0.7, **kw),
        ),
    ]
    for score, expected, after in laws:
        got = after(moved, y_moved, reduction="none")
        torch.testing.assert_close(got, expected(score(mixture, y, reduction="none")), rtol=1e-8, atol=1e-9)
    flipped = pit(moved, y_moved) if b > 0 else 1 - pit(moved, y_moved)
    torch.testing.assert_close(flipped, pit(mixture, y), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(hdr_level(moved, y_moved), hdr_level(mixture, y), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(brier(moved, y_moved, a + b * 0.4), brier(mixture, y, 0.4), rtol=1e-9, atol=1e-12)


def test_scores_of_vectors_are_affine_equivariant():
    mixture, y = make_vector()
    moved, y_moved = mixture.affine(5.0, -3.0), 5 - 3 * y
    for score, expected in (
        (nll, lambda s: s + 3 * math.log(3)),
        (dss, lambda s: s + 6 * math.log(3)),
        (cde_loss, lambda s: s / 27),
        (lambda m, y, **kw: energy_score(m, y, n_draws=2000, **kw), lambda s: 3 * s),
        (lambda m, y, **kw: variogram_score(m, y, n_draws=4000, **kw), lambda s: 3 * s),
    ):
        got = score(moved, y_moved, reduction="none")
        rtol = 1e-9 if score in (nll, dss, cde_loss) else 0.05
        torch.testing.assert_close(got, expected(score(mixture, y, reduction="none")), rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("name", SCALAR_SCORES)
@pytest.mark.parametrize("family", ["normal", "logistic", "lognormal"])
def test_gradients_agree_with_finite_differences(family, name):
    g = torch.Generator().manual_seed(3)
    score, answer = SCALAR_SCORES[name], get_family(family)
    logits, raw = (torch.randn(*shape, dtype=F64, generator=g).requires_grad_() for shape in ((2, 2), (2, 2, 2)))
    y = t(0.3, 1.7).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b, c: score(Mixture(a, answer.build(b)), c), (logits, raw, y))


@pytest.mark.parametrize("family", ["normal", "logistic"])
def test_gradients_with_atoms_agree_with_finite_differences(family):
    g = torch.Generator().manual_seed(3)
    answer, atoms = get_family(family), t(0.0, 1.0).requires_grad_()
    logits, raw = (torch.randn(*shape, dtype=F64, generator=g).requires_grad_() for shape in ((2, 4), (2, 2, 2)))
    y = t(0.3, 1.7).requires_grad_()
    names = ("crps", "quantile_loss", "interval_score", "dss")
    for score in (SCALAR_SCORES[name] for name in names):
        # Of quantiles at an atom, and by quadrature, the place of an atom carries no gradient.
        inputs = (logits, raw, y, atoms) if score is dss or (score, family) == (crps, "normal") else (logits, raw, y)

        def loss(a, b, c, *at, score=score):
            return score(Mixture(a, answer.build(b), atoms=at[0] if at else t(0.0, 1.0)), c)

        assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("name", VECTOR_SCORES)
def test_gradients_of_scores_of_vectors_agree_with_finite_differences(name):
    g = torch.Generator().manual_seed(3)
    answer = get_family("normal", event_size=2)
    shapes = ((2, 2), (2, 2, 5), (2, 2))
    inputs = tuple(torch.randn(*shape, dtype=F64, generator=g).requires_grad_() for shape in shapes)
    options = {"n_draws": 3} if name in ("energy_score", "variogram_score") else {}
    score = VECTOR_SCORES[name]
    assert torch.autograd.gradcheck(lambda a, b, c: score(Mixture(a, answer.build(b)), c, **options), inputs)


@pytest.mark.parametrize("name", SCALAR_SCORES)
@pytest.mark.parametrize("family", ["normal", "logistic", "gamma"])
def test_float32_agrees_with_float64(family, name):
    raw = torch.randn(20, 3, 2, generator=torch.Generator().manual_seed(4))
    if family == "gamma":
        raw[..., 1] = -1 - raw[..., 1].abs()  # no concentration of 1/2 or less, where cde_loss is infinite
    logits, y, answer = raw.sum(-1), 0.1 + raw[:, 0, 1].abs(), get_family(family)
    single = SCALAR_SCORES[name](Mixture(logits, answer.build(raw)), y, reduction="none")
    double = SCALAR_SCORES[name](Mixture(logits.double(), answer.build(raw.double())), y.double(), reduction="none")
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", SCALAR_SCORES)
def test_scores_are_proper(name, generator):
    """The true mixture beats wrong ones, by more than chance explains."""
    score = SCALAR_SCORES[name]

    def forecast(weight: float = 0.3, loc: float = 1.0, scale: float = 1.0) -> Mixture:
        return Mixture(t(weight, 1 - weight).log(), Normal(t(-2.0, loc), t(0.5, scale))).expand((20_000,))

    y = forecast().sample((), generator)
    best = score(forecast(), y, reduction="none")
    for other in (forecast(0.5), forecast(loc=1.6), forecast(scale=1.8), forecast(scale=0.5)):
        gap = score(other, y, reduction="none") - best
        assert gap.mean() > -2.5 * gap.std() / len(y) ** 0.5
    gap = score(forecast(weight=0.6, loc=1.8), y, reduction="none") - best
    assert gap.mean() > 3 * gap.std() / len(y) ** 0.5


@pytest.mark.parametrize("name", VECTOR_SCORES)
def test_scores_of_vectors_are_proper(name, generator):
    score = VECTOR_SCORES[name]

    def forecast(rho: float, scale: float = 1.0) -> Mixture:
        covariance = scale * torch.tensor([[1.0, rho], [rho, 1.0]], dtype=F64)
        components = MultivariateNormal(torch.tensor([[0.0, 0.0], [2.0, 3.0]], dtype=F64), covariance)
        return Mixture(t(0.4, 0.6).log(), components).expand((4000,))

    y = forecast(0.8).sample((), generator)
    for other in (forecast(0.0, 3.0), forecast(-0.8)):
        gap = score(other, y, reduction="none") - score(forecast(0.8), y, reduction="none")
        assert gap.mean() > 3 * gap.std() / len(y) ** 0.5


# Shapes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCALAR_SCORES)
@pytest.mark.parametrize("family", ["normal", "logistic", "poisson"])
@pytest.mark.parametrize("k", [1, 3])
def test_any_batch_shape(family, name, k):
    score, answer = SCALAR_SCORES[name], get_family(family)
    raw = torch.randn(2, 3, k, answer.n_raw(None), dtype=F64, generator=torch.Generator().manual_seed(5))
    mixture = Mixture(raw.sum(-1), answer.build(raw))
    y = torch.arange(6, dtype=F64).reshape(2, 3)
    scores = score(mixture, y, reduction="none")
    assert scores.shape == (2, 3)
    for index in ((0,), (1, 2)):
        torch.testing.assert_close(score(mixture[index], y[index], reduction="none"), scores[index])
    assert score(mixture[1, 2], y[1, 2]).shape == ()
    assert score(mixture[0][:0], y[0][:0], reduction="none").shape == (0,)


def test_many_components_and_weights_of_0_and_1():
    g = torch.Generator().manual_seed(6)
    for name, answer in ((name, get_family(name)) for name in ("normal", "logistic")):
        raw, y = torch.randn(1, 200, 2, dtype=F64, generator=g), torch.randn(1, dtype=F64, generator=g)
        many = Mixture(torch.zeros(1, 200, dtype=F64), answer.build(raw))
        x, other = many.sample((50_000,), g), many.sample((50_000,), g)
        expected = (x - y).abs().mean(0) - 0.5 * (x - other).abs().mean(0)
        torch.testing.assert_close(crps(many, y, reduction="none"), expected, rtol=0.02, atol=0.02)
        raw = raw[:, :20]
        sure = torch.full((1, 20), -torch.inf, dtype=F64)
        sure[:, 7] = 0
        lone = Mixture(torch.zeros(1, 1, dtype=F64), answer.build(raw[:, 7:8]))
        for score in SCALAR_SCORES.values():
            got = score(Mixture(sure, answer.build(raw)), y, reduction="none")
            torch.testing.assert_close(got, score(lone, y, reduction="none"), rtol=1e-8, atol=1e-10, msg=name)


# Censored observations --------------------------------------------------------------------------------------------


def test_censored_nll_is_the_log_of_differences_of_the_cdf():
    weights, locs, scales = np.array([0.3, 0.7]), np.array([-1.0, 2.0]), np.array([0.5, 1.5])
    mixture = Mixture(torch.as_tensor(weights).log(), Normal(torch.as_tensor(locs), torch.as_tensor(scales)))
    lower = t(-torch.inf, 1.0, -1.0, 0.4, -torch.inf)
    upper = t(0.5, torch.inf, 2.0, 0.4, torch.inf)
    parts = [scipy.stats.norm.cdf(part.numpy()[:, None], locs, scales) @ weights for part in (lower, upper)]
    density = scipy.stats.norm.pdf(0.4, locs, scales) @ weights
    expected = -np.log(np.where(lower == upper, density, parts[1] - parts[0]))
    got = censored_nll(mixture.expand((5,)), lower, upper, reduction="none")
    torch.testing.assert_close(got, torch.as_tensor(expected), rtol=1e-12, atol=1e-12)
    with pytest.raises(MixturaError, match=r"\[E-interval-order\]"):
        censored_nll(mixture, t(1.0)[0], t(0.0)[0])


@pytest.mark.parametrize("ends", [(100.0, math.inf), (100.0, 101.0), (-math.inf, -100.0), (-101.0, -100.0)])
def test_censored_nll_and_its_gradient_are_finite_a_hundred_scales_away(ends):
    loc, scale = t(0.0, 1.0).requires_grad_(), t(1.0, 1.0).requires_grad_()
    logits = torch.zeros(2, dtype=F64, requires_grad=True)
    loss = censored_nll(Mixture(logits, Normal(loc, scale)), t(ends[0])[0], t(ends[1])[0])
    loss.backward()
    with mpmath.workdps(30):
        near, far = sorted(ends, key=abs)
        # P(Z > z) = erfc(z/sqrt(2))/2, on the side where the interval is
        tail = lambda end, m: mpmath.erfc((end - m) * math.copysign(1, near) / mpmath.sqrt(2)) / 2  # noqa: E731
        mass = sum((tail(near, m) - tail(far, m)) / 2 for m in (0, 1))
        assert loss.item() == pytest.approx(float(-mpmath.log(mass)), rel=1e-10)
    assert all(part.grad is not None and bool(part.grad.isfinite().all()) for part in (loc, scale, logits))
    assert loc.grad is not None
    assert loc.grad.abs().sum() > 10


def test_an_atom_at_the_censoring_point_belongs_to_the_interval():
    rain = Mixture(t(0.6, 0.4).log(), Normal(t(1.0), t(2.0)), atoms=t(0.0))
    inside = 0.6 * scipy.stats.norm.cdf(-0.5)  # below 0
    for lower, upper, mass in (
        (-math.inf, 0.0, inside + 0.4),
        (0.0, math.inf, 1 - inside),
        (0.0, 0.0, 0.4),
        (-1.0, 0.0, inside + 0.4 - 0.6 * scipy.stats.norm.cdf(-1.0)),
    ):
        assert censored_nll(rain, t(lower)[0], t(upper)[0]).item() == pytest.approx(-math.log(mass), rel=1e-12)


def test_censored_counts_include_both_ends():
    counts, theirs = law("poisson", 3.5), scipy.stats.poisson(3.5)
    for lower, upper, mass in (
        (2.0, 4.0, theirs.pmf([2, 3, 4]).sum()),
        (2.0, 2.0, theirs.pmf(2)),
        (0.0, 1.0, theirs.cdf(1)),
        (5.0, math.inf, theirs.sf(4)),
        (-math.inf, 3.0, theirs.cdf(3)),
    ):
        assert censored_nll(counts, t(lower)[0], t(upper)[0]).item() == pytest.approx(-math.log(mass), rel=1e-12)
