"""Input on which an earlier version gave a wrong answer, NaN or an error without a code."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.distributions import (
    ExpTransform,
    Gamma,
    Independent,
    LogNormal,
    MultivariateNormal,
    Normal,
    Poisson,
    StudentT,
)

from mixtura import (
    MDN,
    MDNRegressor,
    MixturaError,
    Mixture,
    MixtureHead,
    censored_nll,
    decompose,
    dss,
    energy_score,
    hdr_level,
    pool,
    rosenblatt,
    variogram_score,
)
from mixtura.families import MultivariateStudentT, Product, ScaledBeta, get_family

F64, INF = torch.float64, math.inf


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


# Quantiles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("components", "ends"),
    [
        (Gamma(tensor(2.0), tensor(1.0)), [0, INF]),
        (LogNormal(tensor(0.0), tensor(1.0)), [0, INF]),
        (ScaledBeta(tensor(2.0), tensor(2.0), tensor(-1.0), tensor(3.0)), [-1, 3]),
        (Normal(tensor(0.0), tensor(1.0)), [-INF, INF]),
    ],
    ids=["gamma", "lognormal", "beta", "normal"],
)
def test_levels_0_and_1_are_the_ends_of_the_support(components, ends):
    assert Mixture(tensor(0.0), components).icdf(tensor(0, 1)).tolist() == ends
    with_atom = Mixture(tensor(0.0, 0.0), components, tensor(-2.0)).icdf(tensor(0, 1))
    assert with_atom.tolist() == [min(ends[0], -2), ends[1]]


def test_levels_0_and_1_of_atoms_alone():
    mixture = Mixture(tensor(-INF, 0.0, 0.0), Normal(tensor(0.0), tensor(1.0)), tensor(5.0, 2.0))
    assert mixture.icdf(tensor(0, 1)).tolist() == [2, 5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_component_narrower_than_the_grain_of_its_place(dtype):
    loc, scale = torch.tensor([0.0, 1e6], dtype=dtype), torch.tensor([1e6, 1e-2 if dtype == torch.float32 else 1e-11])
    y = Mixture(torch.zeros(2, dtype=dtype), Normal(loc, scale.to(dtype))).icdf(tensor(0.45, 0.5, 0.55).to(dtype))
    assert y.double().numpy() == pytest.approx([1e6] * 3, rel=1e-6)


@pytest.mark.parametrize(
    ("components", "level", "expected"),
    [
        (Gamma(tensor(0.05, 5.0), tensor(1.0, 1.0)), 1e-6, 6.128540904e-115),
        (LogNormal(tensor(0.0, 0.0), tensor(30.0, 0.1)), 1e-12, 4.136295669e-91),
        (Normal(tensor(0.0, 0.0, 5.0), tensor(1e-80, 1e80, 3.0)), 0.7, 5.7600413094),
        (Normal(tensor(0.0, 0.0, 5.0), tensor(1e-35, 1e35, 3.0)), 0.25, -8.337545787e-36),
    ],
)
def test_brackets_over_a_hundred_orders_of_magnitude(components, level, expected):
    mixture = Mixture(torch.zeros(components.batch_shape, dtype=F64), components)
    y = mixture.icdf(level)
    assert y.item() == pytest.approx(expected, rel=1e-8)
    assert mixture.cdf(y).item() == pytest.approx(level, rel=1e-9)


def test_a_component_whose_own_quantile_is_beyond_all_numbers():
    mixture = Mixture(tensor(1e-4, 0.9999).log(), LogNormal(tensor(1164.0, 0.0), tensor(1.0, 1.0)))
    y = mixture.icdf(0.7)
    assert y.item() == pytest.approx(1.6898, abs=1e-3)
    assert mixture.cdf(y).item() == pytest.approx(0.7, rel=1e-12)


def test_the_level_1e_300_of_very_different_scales():
    logits = tensor(1.493238913285013, -3.678999791770272, 5.620911649341194, -0.1662472384030222)
    loc, scale = tensor(0.0079367, -0.0042675, 0.0045387, 0.0132960), tensor(9.18134, 0.85293, 364637.388, 20148.6388)
    mixture = Mixture(logits, Normal(loc, scale))
    assert mixture.log_cdf(mixture.icdf(1e-300)).item() == pytest.approx(-300 * math.log(10), rel=1e-14)


def test_float32_quantiles_are_rounded_float64_quantiles(generator):
    n = 20_000
    loc = torch.randn(n, 2, generator=generator)
    scale = torch.exp(3 * torch.rand(n, 2, generator=generator) * torch.tensor([-3.0, 0.0]))
    mixture = Mixture(torch.randn(n, 2, generator=generator), Normal(loc, scale))
    y, exact = mixture.icdf(0.5 * torch.ones(n)), mixture.to(F64).icdf(0.5)
    assert y.dtype == torch.float32
    # The weights in float32 sum to 1 but for rounding.
    assert ((mixture.to(F64).cdf(y.double()) - 0.5).abs() <= 1e-6 + 1e-6 * mixture.log_prob(y).exp() * y.abs()).all()
    assert exact.dtype == F64


# Moments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("far", [1e8, 1e20])
def test_components_without_weight_do_not_touch_the_moments(far):
    mixture = Mixture(tensor(-INF, 0.0), Normal(tensor(far, 1.2345678901234), tensor(1.0, 1.0)))
    assert mixture.mean.item() == pytest.approx(1.2345678901234, rel=1e-15)
    assert mixture.variance.item() == 1


@pytest.mark.parametrize("df", [0.9, 1.5])
def test_nor_do_those_whose_own_moments_are_undefined(df):
    scalar = Mixture(tensor(-INF, 0.0), StudentT(tensor(df, 5.0), tensor(0.0, 1.0), tensor(1.0, 1.0)))
    assert (scalar.mean.item(), scalar.variance.item()) == pytest.approx((1, 5 / 3))
    triangles = torch.eye(2, dtype=F64).expand(2, 2, 2)
    vector = Mixture(tensor(-INF, 0.0), MultivariateStudentT(tensor(df, 5.0), torch.ones(2, 2, dtype=F64), triangles))
    torch.testing.assert_close(vector.mean, torch.ones(2, dtype=F64))
    torch.testing.assert_close(vector.covariance, 5 / 3 * torch.eye(2, dtype=F64))


def test_answers_are_the_callers_own():
    mixture = Mixture(torch.zeros(3, 2), Normal(torch.zeros(3, 2), torch.ones(3, 2)))
    mean = mixture.mean
    mean += 5
    assert mixture.mean.tolist() == [0, 0, 0]


def test_parameters_that_an_optimiser_moves_move_the_moments():
    loc = torch.zeros(2, requires_grad=True)
    mixture = Mixture(torch.zeros(2), Normal(loc, torch.ones(2)))
    with torch.no_grad():
        assert mixture.mean == 0
        loc.add_(3)
        assert mixture.mean == 3


# Gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lower", "upper"), [(2.0, 4.0), (0.0, INF), (5.0, INF), (-3.0, 0.0)])
def test_censored_counts_have_a_gradient(lower, upper):
    rate = tensor(2.5, 4.0).requires_grad_()

    def loss(rate: Tensor) -> Tensor:
        return censored_nll(Mixture(tensor(0.0, 0.0), Poisson(rate)), tensor(lower).sum(), tensor(upper).sum())

    assert torch.autograd.gradcheck(loss, (rate,))


def test_rain_of_which_only_an_upper_bound_is_known_has_a_gradient():
    logits = torch.zeros(3, dtype=F64, requires_grad=True)
    rain = Mixture(logits, Gamma(tensor(0.5, 2.0), tensor(1.0, 0.3)), tensor(0.0))
    censored_nll(rain, torch.tensor(-INF, dtype=F64), torch.tensor(0.0, dtype=F64)).backward()
    torch.testing.assert_close(logits.grad, tensor(1 / 3, 1 / 3, -2 / 3))


def test_a_warped_student_t_has_a_gradient_in_df():
    def log_prob(df: Tensor) -> Tensor:
        return Mixture(tensor(0.0), StudentT(df, tensor(0.0), tensor(1.0))).transform(ExpTransform()).log_prob(2.0)

    assert torch.autograd.gradcheck(log_prob, (tensor(5.0).requires_grad_(),))


def test_margins_and_conditionals_of_a_network_have_a_gradient():
    network = MDN(torch.nn.Linear(4, 8), MixtureHead(8, n_components=3, event_size=2))
    given = network(torch.randn(6, 4)).condition(0, torch.randn(6)).log_prob(torch.randn(6))
    reversed_ = network(torch.randn(6, 4)).marginal([1, 0]).log_prob(torch.randn(6, 2))
    (given.mean() + reversed_.mean()).backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in network.parameters())


# Atoms ---------------------------------------------------------------------------------------------------------


def test_equal_atoms_are_one():
    weights = tensor(0.5, 0.15, 0.15, 0.2)
    mixture = Mixture(weights.log(), Normal(tensor(0.0), tensor(1.0)), tensor(0.0, 0.0, 5.0))
    region = mixture.highest_density_region(0.25)
    assert (region.count.item(), region.lower[0].item()) == (1, 0)
    assert hdr_level(mixture, torch.tensor(5.0, dtype=F64)).item() == pytest.approx(0.3)


def test_levels_of_values_that_cannot_occur_and_of_atoms():
    rain = Mixture(tensor(0.3, 0.7).log(), Gamma(tensor(2.0), tensor(1.0)), tensor(0.0)).expand((4,))
    levels = hdr_level(rain, tensor(0.0, -1.0, 1.0, INF))
    torch.testing.assert_close(levels, tensor(0.0, 1.0, 0.7, 1.0))


def test_atoms_of_counts_are_whole():
    with pytest.raises(MixturaError, match="E-mixture-atoms"):
        Mixture(tensor(0.0, 0.0), Poisson(tensor(3.0)), tensor(2.5))


# Vectors -------------------------------------------------------------------------------------------------------


def test_covariances_that_rounding_makes_singular():
    triangle = tensor(1.0, 0.0, 1.0, 1e-9).reshape(1, 2, 2)
    flat = Mixture(tensor(0.0), MultivariateNormal(torch.zeros(1, 2, dtype=F64), scale_tril=triangle))
    assert dss(flat, tensor(0.0, 0.0)).item() == pytest.approx(2 * math.log(1e-9), rel=0.25)
    loc = tensor(0.0, 0.0, 1.0, 1.0).reshape(2, 2)
    two = Mixture(tensor(0.0, 0.0), MultivariateNormal(loc, scale_tril=triangle.expand(2, 2, 2)))
    torch.testing.assert_close(two.reduce(1).covariance, two.covariance)


def test_laws_without_variance_have_an_infinite_dss():
    law = MultivariateStudentT(tensor(1.5), torch.zeros(1, 2, dtype=F64), torch.eye(2, dtype=F64)[None])
    assert dss(Mixture(tensor(0.0), law), tensor(0.0, 0.0)) == INF


def test_what_cannot_be_known_is_no_condition():
    law = Product([Gamma(tensor(2.0, 3.0), tensor(1.0, 1.0)), Normal(tensor(-1.0, 1.0), tensor(1.0, 1.0))])
    with pytest.raises(MixturaError, match="E-condition-density"):
        Mixture(tensor(0.0, 0.0), law).condition(0, -1.0)


def test_rosenblatt_of_counts_is_uniform_and_independent(generator):
    law = Product([Normal(tensor(0.0), tensor(1.0)), Poisson(tensor(0.1)), Poisson(tensor(0.2))])
    mixture = Mixture(tensor(0.0), law).expand((5_000,))
    levels = rosenblatt(mixture, mixture.sample(generator=generator))
    assert levels.mean(0).tolist() == pytest.approx([0.5] * 3, abs=0.02)
    assert (torch.corrcoef(levels.mT) - torch.eye(3)).abs().max() < 0.06


def test_decompose_takes_weights_by_row():
    loc = tensor(0.0, 0.0, 5.0, 5.0).reshape(2, 1, 2)
    first = Mixture(torch.zeros(2, 1, dtype=F64), Independent(Normal(loc, torch.ones_like(loc)), 1))
    parts = decompose([first, first.affine(2.0, 1.0)], tensor(0.5, 0.5, 0.1, 0.9).reshape(2, 2))
    torch.testing.assert_close(parts.total, parts.aleatoric + parts.epistemic)


def test_many_rows_are_drawn_in_blocks_and_many_values_of_one_mixture_too():
    loc = torch.arange(6.0).reshape(3, 2)
    few = Mixture(torch.zeros(3), Independent(Normal(loc, torch.ones_like(loc)), 1))
    many = few.expand((2_000,))
    assert many.in_hdr(torch.zeros(2_000, 2), 0.9, n_draws=1_000).shape == (2_000,)
    assert many.entropy(1_000).value.numpy() == pytest.approx(few.entropy(100_000).value.item(), abs=0.2)
    scalar = few.marginal(0)
    y = torch.linspace(-3, 8, 40_000)
    torch.testing.assert_close(scalar.log_prob(y)[::1000], scalar.log_prob(y[::1000]))
    grid = scalar.expand((2, 3)).cdf(y[:, None, None])
    torch.testing.assert_close(grid[::1000, 1, 2], scalar.cdf(y[::1000]))
    assert grid.shape == (40_000, 2, 3)


@pytest.mark.parametrize(
    ("code", "call"),
    [
        ("E-draws", lambda m, y: energy_score(m, y, n_draws=1)),
        ("E-draws", lambda m, y: variogram_score(m, y, n_draws=0)),
        ("E-draws", lambda m, y: m.hdr_threshold(0.5, n_draws=0)),
        ("E-draws", lambda m, y: hdr_level(m, y, n_draws=0)),
        ("E-draws", lambda m, y: m.entropy(1)),
        ("E-variogram-power", lambda m, y: variogram_score(m, y, power=-1.0)),
        ("E-pool-mismatch", lambda m, y: pool([m, m], [INF, 1.0])),
        ("E-marginal-dim", lambda m, y: m.marginal(1.5)),
        ("E-marginal-dim", lambda m, y: m.marginal(None)),
        ("E-value-shape", lambda m, y: m.affine(0.0, torch.eye(2))),
        ("E-family-unknown", lambda m, y: get_family("normal/full", 2)),
    ],
)
def test_errors_are_coded(code, call):
    mixture = Mixture(torch.zeros(3), Independent(Normal(torch.randn(3, 2), torch.ones(3, 2)), 1))
    with pytest.raises(MixturaError, match=code):
        call(mixture, torch.zeros(2))


def test_dims_may_be_tensors():
    mixture = Mixture(torch.zeros(3), Independent(Normal(torch.randn(3, 2), torch.ones(3, 2)), 1))
    assert mixture.marginal(torch.tensor([1, 0])).event_shape == (2,)
    assert mixture.marginal(torch.tensor(1)).event_shape == ()


# Estimator -----------------------------------------------------------------------------------------------------


def test_intervals_from_cut_and_scores_of_intervals():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 1))
    y = pd.Series(pd.cut(X[:, 0] + rng.normal(size=60), 5))
    model = MDNRegressor(2, max_epochs=2, random_state=0).fit(X, y)
    assert np.isfinite(model.score_samples(X, y)).all()
    with pytest.raises(MixturaError, match="E-target-type"):
        model.score(X, y)


def test_a_target_that_is_one_atom_throughout():
    with pytest.raises(MixturaError, match="E-target-constant"):
        MDNRegressor(2, max_epochs=2, atoms=[3.0]).fit(np.arange(30.0)[:, None], np.full(30, 3.0))


@pytest.mark.parametrize(
    ("family", "lower", "upper"),
    [
        ("lognormal", -1.0, -1.0),
        ("lognormal", -2.0, -1.0),
        ("gamma", -INF, 0.0),
        ("poisson", 0.5, 0.5),
        ("poisson", 0.2, 0.8),
    ],
)
@pytest.mark.filterwarnings("ignore:.*W-repeated-values")
def test_intervals_outside_of_the_support_are_refused(family, lower, upper):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 1)), rng.poisson(3, 30) + 1.0
    bounds = pd.arrays.IntervalArray.from_arrays(np.r_[lower, y[1:]], np.r_[upper, y[1:]], closed="both")
    model = MDNRegressor(1, family=family, max_epochs=1, random_state=0)
    with pytest.raises(MixturaError, match="E-target-support"):
        model.fit(X, bounds)
    if lower == upper:
        with pytest.raises(MixturaError, match="E-target-support"):
            model.fit(X, y, eval_set=(X, np.r_[lower, y[1:]]))


def test_infinities_of_both_signs_are_refused_without_a_warning(recwarn):
    with pytest.raises(MixturaError, match="E-features"):
        MDNRegressor(1).fit(np.array([[np.inf], [-np.inf], [0.0]]), [1.0, 2.0, 3.0])
    assert not list(recwarn)


@pytest.mark.parametrize("family", ["poisson", "negative_binomial"])
def test_censored_counts_are_learned(family):
    rng = np.random.default_rng(0)
    X = rng.uniform(0, 1, (200, 1))
    count = rng.poisson(2 + 3 * X[:, 0]).astype(float)
    y = pd.arrays.IntervalArray.from_arrays(count, np.where(count > 5, INF, count), closed="both")
    model = MDNRegressor(2, family=family, max_epochs=4, random_state=0).fit(X, y)
    assert not model.fit_report_.n_skipped_steps
