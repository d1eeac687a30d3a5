"""The value: what torch promises of a distribution, and what Mixtura promises of a mixture."""

import math
import pickle

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import (
    Categorical,
    Cauchy,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from mixtura import MixturaError, Mixture, nll, pool

F64 = torch.float64


def make_scalar(*batch: int, k: int = 3, seed: int = 0, dtype: torch.dtype = F64) -> Mixture:
    g = torch.Generator().manual_seed(seed)
    shape = (*batch, k)
    loc, raw, logits = (torch.randn(shape, dtype=dtype, generator=g) for _ in range(3))
    return Mixture(logits, Normal(3 * loc, raw.exp()))


def make_vector(*batch: int, k: int = 3, d: int = 2, seed: int = 0) -> Mixture:
    g = torch.Generator().manual_seed(seed)
    loc, logits = torch.randn(*batch, k, d, dtype=F64, generator=g), torch.randn(*batch, k, dtype=F64, generator=g)
    tril = torch.randn(*batch, k, d, d, dtype=F64, generator=g).tril(-1) + torch.diag_embed(
        torch.rand(*batch, k, d, dtype=F64, generator=g) + 0.3
    )
    return Mixture(logits, MultivariateNormal(loc, scale_tril=tril, validate_args=False))  # torch's check needs rows


def make_diagonal(*batch: int) -> Mixture:
    g = torch.Generator().manual_seed(0)
    loc, scale = (
        torch.randn(*batch, 3, 2, dtype=F64, generator=g),
        torch.rand(*batch, 3, 2, dtype=F64, generator=g) + 0.1,
    )
    return Mixture(torch.randn(*batch, 3, dtype=F64, generator=g), Independent(Normal(loc, scale), 1))


MAKERS = [make_scalar, make_vector, make_diagonal]


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest):
    return request.param


# A torch distribution ------------------------------------------------------------------------------------------


def test_it_is_a_torch_distribution_with_the_usual_shapes(make):
    mixture = make(4, 2)
    event = tuple(mixture.event_shape)
    assert isinstance(mixture, Distribution)
    assert mixture.batch_shape == (4, 2)
    assert mixture.sample((7,)).shape == (7, 4, 2, *event)
    assert mixture.log_prob(mixture.sample((7,))).shape == (7, 4, 2)
    assert mixture.mean.shape == mixture.variance.shape == mixture.stddev.shape == (4, 2, *event)


def test_it_agrees_with_torch_where_torch_is_right(make):
    mixture = make(5)
    theirs = MixtureSameFamily(Categorical(logits=mixture.logits), mixture.components)
    y = mixture.sample((9,))
    torch.testing.assert_close(mixture.log_prob(y), theirs.log_prob(y), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(mixture.mean, theirs.mean)
    torch.testing.assert_close(mixture.variance, theirs.variance)


def test_covariance_is_that_of_samples_and_its_diagonal_the_variance(generator):
    for mixture in (make_vector(2), make_diagonal(2)):
        y = mixture.sample((200_000,), generator)
        for i in range(2):
            torch.testing.assert_close(torch.cov(y[:, i].mT), mixture.covariance[i], atol=0.05, rtol=0.02)
        torch.testing.assert_close(mixture.covariance.diagonal(dim1=-2, dim2=-1), mixture.variance)


@pytest.mark.parametrize(
    ("batch", "k", "d"), [((), 1, 1), ((0,), 3, 2), ((2, 0, 3), 4, 2), ((3,), 200, 1), ((2,), 2, 20), ((), 5, 6)]
)
def test_odd_shapes(batch, k, d):
    mixture = make_vector(*batch, k=k, d=d)
    y = mixture.sample((2,))
    assert mixture.log_prob(y).shape == (2, *batch)
    assert mixture.covariance.shape == (*batch, d, d)
    assert mixture.marginal(0).icdf(torch.tensor(0.3)).shape == batch


def test_many_coordinates_agree_with_torch():
    for d in (2, 4, 5, 20):  # both ways of solving L z = y
        mixture = make_vector(3, d=d)
        theirs = MixtureSameFamily(Categorical(logits=mixture.logits), mixture.components)
        y = mixture.sample((4,))
        torch.testing.assert_close(mixture.log_prob(y), theirs.log_prob(y))


def test_logits_and_components_broadcast():
    mixture = Mixture(torch.zeros(3), Normal(torch.randn(5, 3), 1.0))
    assert mixture.batch_shape == (5,)
    assert Mixture(torch.zeros(5, 3), Normal(torch.randn(3), torch.ones(3))).logits.shape == (5, 3)


# log_prob ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("distance", [100.0, -100.0])
def test_a_hundred_scales_away_density_and_gradient_are_finite(dtype, distance):
    loc = torch.tensor([0.0, 1.0], dtype=dtype, requires_grad=True)
    scale = torch.tensor([1e-3, 1e-3], dtype=dtype, requires_grad=True)
    logits = torch.zeros(2, dtype=dtype, requires_grad=True)
    log_prob = Mixture(logits, Normal(loc, scale)).log_prob(torch.tensor(distance * 1e-3, dtype=dtype))
    log_prob.backward()
    assert log_prob.isfinite()
    assert log_prob.item() == pytest.approx(-(distance**2) / 2 - math.log(2e-3 * math.sqrt(2 * math.pi)), rel=1e-4)
    assert all(t.grad is not None and t.grad.isfinite().all() for t in (loc, scale, logits))


def test_weights_of_0_and_1():
    mixture = Mixture(torch.tensor([0.0, -torch.inf]), Normal(torch.tensor([0.0, 5.0]), 1.0))
    assert mixture.log_prob(torch.tensor(0.0)).item() == pytest.approx(-0.5 * math.log(2 * math.pi))
    assert mixture.mean == 0
    assert mixture.variance == 1
    assert mixture.icdf(torch.tensor(0.5)) == 0
    assert mixture.cdf(torch.tensor(0.0)) == 0.5
    assert (mixture.sample((10_000,)) < 4.9).all()


def test_the_gradient_of_the_nll_is_weights_minus_responsibilities():
    loc, logits = torch.randn(3, dtype=F64), torch.randn(3, dtype=F64, requires_grad=True)
    mixture = Mixture(logits, Normal(loc, torch.ones(3, dtype=F64)))
    y = torch.tensor(0.4, dtype=F64)
    nll(mixture, y).backward()
    joint = mixture.logits + Normal(loc, 1.0).log_prob(y)
    torch.testing.assert_close(logits.grad, (mixture.weights - joint.softmax(-1)).detach())


# cdf and icdf --------------------------------------------------------------------------------------------------

scales = st.floats(-6, 6).map(lambda e: 10.0**e)


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    """Scalar mixtures of 1 to 6 components, at any scale, with weights down to e^-40."""
    k = draw(st.integers(1, 6))
    scale = draw(scales)
    loc = draw(st.lists(st.floats(-100, 100), min_size=k, max_size=k))
    sd = draw(st.lists(st.floats(-3, 1), min_size=k, max_size=k))
    logits = draw(st.lists(st.floats(-40, 0), min_size=k, max_size=k))
    components = Normal(torch.tensor(loc, dtype=F64) * scale, scale * 10 ** torch.tensor(sd, dtype=F64))
    return Mixture(torch.tensor(logits, dtype=F64), components)


@settings(max_examples=300, deadline=None)
@given(mixtures(), st.floats(-14, -0.302).map(lambda e: 10.0**e), st.booleans())
def test_icdf_inverts_cdf(mixture, tail, upper):
    level = torch.tensor(1 - tail if upper else tail, dtype=F64)
    y = mixture.icdf(level)
    # one ulp in y moves the cdf by density * ulp; beyond that, the level itself is met
    slack = (mixture.log_prob(y).exp() * 8 * torch.finfo(F64).eps * y.abs()).item()
    assert mixture.cdf(y).item() == pytest.approx(level.item(), rel=1e-13, abs=slack + 3e-16)
    if not upper:
        assert mixture.cdf(y).item() == pytest.approx(level.item(), rel=1e-9, abs=slack)  # tails keep their digits


@settings(max_examples=100, deadline=None)
@given(mixtures(), st.lists(st.floats(0, 1), min_size=2, max_size=8))
def test_quantiles_do_not_cross_and_0_and_1_are_infinite(mixture, levels):
    levels = torch.tensor(sorted(levels), dtype=F64)
    y = mixture.icdf(levels)
    assert not y.isnan().any()
    step = y[1:] - y[:-1]
    assert (step[~step.isnan()] >= -1e-12 * y[:-1].abs()[~step.isnan()]).all()
    assert mixture.icdf(torch.tensor(0.0)) == -torch.inf
    assert mixture.icdf(torch.tensor(1.0)) == torch.inf


def test_the_median_between_two_far_modes_is_their_middle():
    for distance in (5.0, 20.0, 60.0, 1e6):  # from 40 on, the cdf is flat to all digits in between
        mixture = Mixture(torch.zeros(2, dtype=F64), Normal(torch.tensor([-distance, distance], dtype=F64), 1.0))
        assert mixture.icdf(torch.tensor(0.5)).item() == pytest.approx(0, abs=1e-9 * distance)


def test_icdf_is_differentiable():
    loc = torch.tensor([-1.0, 2.0], dtype=F64, requires_grad=True)
    scale = torch.tensor([0.5, 1.5], dtype=F64, requires_grad=True)
    logits = torch.tensor([0.2, -0.3], dtype=F64, requires_grad=True)
    level = torch.tensor([0.1, 0.5, 0.95], dtype=F64, requires_grad=True)
    quantile = lambda *p: Mixture(p[0], Normal(p[1], p[2])).icdf(p[3])  # noqa: E731
    assert torch.autograd.gradcheck(quantile, (logits, loc, scale, level))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_gradients_do_not_change_the_answer_nor_poison_other_rows(dtype):
    loc = torch.tensor([-60.0, 60.0], dtype=dtype, requires_grad=True)  # the median lies where cdf and density vanish
    levels = torch.tensor([0.0, 0.3, 0.5, 0.7, 1.0], dtype=dtype)
    quantiles = Mixture(torch.zeros(2, dtype=dtype), Normal(loc, 1.0)).icdf(levels)
    expected = Mixture(torch.zeros(2, dtype=dtype), Normal(loc.detach(), 1.0)).icdf(levels)
    assert torch.equal(quantiles, expected)
    (gradient,) = torch.autograd.grad(quantiles[1], loc, retain_graph=True)
    torch.testing.assert_close(gradient, torch.tensor([1.0, 0.0], dtype=dtype))
    (gradient,) = torch.autograd.grad(quantiles[2], loc)
    torch.testing.assert_close(gradient, torch.tensor([0.5, 0.5], dtype=dtype), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("k", [2, 3, 6, 8, 10, 12, 20])
def test_the_median_of_equal_modes_is_in_the_middle_although_weights_are_rounded(k, dtype):
    mixture = Mixture(torch.zeros(k, dtype=dtype), Normal(100 * torch.arange(k, dtype=dtype), 1.0))
    assert mixture.icdf(0.5).item() == pytest.approx(50 * (k - 1), rel=1e-6)


def test_the_cdf_is_a_probability_also_where_weights_sum_to_more_than_1():
    for k in range(1, 50):
        mixture = Mixture(torch.zeros(k, dtype=F64), Normal(torch.zeros(k, dtype=F64), 1.0))
        assert mixture.cdf(50.0) <= 1
        assert mixture.icdf(mixture.cdf(50.0)) > 5


def test_the_dtype_of_the_level_does_not_move_the_quantile():
    far = Mixture(torch.zeros(2), Normal(torch.tensor([-1e6, 1e6]), 1.0))
    for dtype in (torch.float32, F64):
        assert far.icdf(torch.tensor(0.5, dtype=dtype)).item() == pytest.approx(0, abs=1.0)


def test_condition_takes_numpy_numbers_and_keeps_its_dtype():
    mixture = make_vector(3).to(torch.float32)
    given = mixture.condition(np.int64(0), torch.tensor(0.3, dtype=F64))
    assert given.dtype == given.sample().dtype == torch.float32
    assert torch.equal(mixture.marginal(np.int64(1)).mean, mixture.marginal(1).mean)
    for bad in (math.nan, math.inf):
        with pytest.raises(MixturaError, match=r"\[E-value-nan\]"):
            mixture.condition(0, bad)


def test_mixed_dtypes_are_promoted():
    mixture = Mixture(torch.zeros(2), Normal(torch.tensor([1000.0, 1001.0], dtype=F64), 1e-3))
    assert mixture.dtype == mixture.log_prob(1000.0).dtype == F64
    assert mixture.cdf(mixture.icdf(0.75)).item() == pytest.approx(0.75, abs=1e-12)


def test_derived_mixtures_are_the_same_to_the_bit(make):
    mixture = make(6)
    y = mixture.sample()
    whole = mixture.log_prob(y)
    for derived in (mixture.detach(), mixture.expand((6,)), mixture[:], mixture.to(F64)):
        assert torch.equal(derived.log_prob(y), whole)
        assert torch.equal(derived.logits, mixture.logits)
    assert torch.equal(torch.stack([mixture[i].log_prob(y[i]) for i in range(6)]), whole)
    with pytest.raises(MixturaError, match=r"\[E-value-nan\]"):
        mixture[0].log_prob(torch.full_like(y[0], torch.nan))
    assert mixture.expand((1000, 6)).logits.stride()[0] == 0  # nothing is copied


def test_moments_keep_their_digits_in_float32_far_from_the_origin(generator):
    far = Mixture(torch.randn(3, generator=generator), Normal(torch.full((3,), 1e6), torch.full((3,), 0.1)))
    assert far.mean == 1e6
    assert far.stddev.item() == pytest.approx(0.1, rel=1e-5)


def test_quantiles_of_many_rows_at_once_are_those_of_each_alone():
    mixture = make_scalar(50, k=7)
    levels = torch.tensor([0.05, 0.5, 0.95], dtype=F64)
    together = mixture.icdf(levels[:, None])
    assert together.shape == (3, 50)
    alone = torch.stack([mixture[i].icdf(levels) for i in range(50)], 1)
    torch.testing.assert_close(together, alone, atol=0, rtol=1e-14)


def test_float32_quantiles():
    mixture = make_scalar(20, dtype=torch.float32)
    levels = torch.tensor([1e-6, 0.05, 0.5, 0.95])[:, None]
    y = mixture.icdf(levels)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), mixture.to(F64).icdf(levels.double()), atol=1e-4, rtol=1e-4)


# New mixtures from old -----------------------------------------------------------------------------------------


def test_affine_is_exact(make):
    mixture = make(4)
    event = mixture.event_shape
    a, b = torch.randn(4, *event, dtype=F64), torch.randn(4, *event, dtype=F64)
    y = mixture.sample((6,))
    log_jacobian = b.abs().log().reshape(4, -1).sum(-1)
    moved = mixture.affine(a, b)
    torch.testing.assert_close(moved.log_prob(a + b * y), mixture.log_prob(y) - log_jacobian)
    torch.testing.assert_close(moved.mean, a + b * mixture.mean)
    torch.testing.assert_close(moved.stddev, b.abs() * mixture.stddev)


@settings(max_examples=50, deadline=None)
@given(mixtures(), st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.booleans())
def test_quantiles_are_affine_equivariant(mixture, a, b, negative):
    level = torch.tensor(0.2, dtype=F64)
    moved = mixture.affine(a, -b if negative else b).icdf(level)
    expected = a - b * mixture.icdf(1 - level) if negative else a + b * mixture.icdf(level)
    size = abs(a) + b * mixture.components.loc.abs().max().item() + b * mixture.stddev.item()
    density = mixture.log_prob(mixture.icdf(1 - level if negative else level)).exp().item()
    slack = 1e-12 / max(density, 1e-300) * b  # anywhere on a stretch without mass
    assert moved.item() == pytest.approx(expected.item(), abs=1e-12 * size + slack)


def test_pool_of_equal_mixtures_is_the_mixture(make):
    mixture = make(4)
    pooled = pool([mixture, mixture, mixture])
    assert pooled.n_components == 9
    y = mixture.sample((5,))
    torch.testing.assert_close(pooled.log_prob(y), mixture.log_prob(y))
    torch.testing.assert_close(pooled.variance, mixture.variance)


def test_pool_weighs_densities_and_splits_the_variance():
    first, second = make_scalar(4, k=2, seed=1), make_scalar(4, k=5, seed=2)
    y = first.sample((3,))
    both = pool([first, second], weights=[1.0, 3.0])
    torch.testing.assert_close(both.log_prob(y).exp(), 0.25 * first.log_prob(y).exp() + 0.75 * second.log_prob(y).exp())
    aleatoric = 0.25 * first.variance + 0.75 * second.variance
    epistemic = 0.25 * (first.mean - both.mean) ** 2 + 0.75 * (second.mean - both.mean) ** 2
    torch.testing.assert_close(both.variance, aleatoric + epistemic)
    by_row = torch.tensor([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * 2)
    torch.testing.assert_close(pool([first, second], by_row).mean, torch.cat([first.mean[:2], second.mean[2:]]))


def test_indexing_follows_torch(make):
    mixture = make(4, 3)
    for index in (0, -1, (1, 2), slice(1, 3), (..., 0), (slice(None), [0, 2]), torch.tensor([3, 0]), None):
        rows = torch.arange(12).reshape(4, 3)[index]
        assert mixture[index].batch_shape == rows.shape
        torch.testing.assert_close(mixture[index].mean, mixture.mean.flatten(0, 1)[rows])
    mask = torch.tensor([True, False, True, False])
    torch.testing.assert_close(mixture[mask].variance, mixture.variance[mask])
    assert len(mixture) == 4
    assert len(list(mixture)) == 4
    with pytest.raises(IndexError):
        mixture[4]


def test_to_detach_expand_split_and_pickle(make):
    mixture = make(4)
    assert mixture.to(torch.float32).log_prob(mixture.sample().float()).dtype == torch.float32
    wide = mixture.expand((3, 4))
    y = wide.sample()
    torch.testing.assert_close(wide.log_prob(y), mixture.log_prob(y))
    each = mixture.split()
    assert each.batch_shape == (4, 3)
    torch.testing.assert_close(
        (mixture.weights * each.log_prob(y[0].unsqueeze(1)).exp()).sum(-1).log(), mixture.log_prob(y[0])
    )
    again = pickle.loads(pickle.dumps(mixture))
    assert torch.equal(again.mean, mixture.mean)
    logits = torch.zeros(3, dtype=F64, requires_grad=True)
    attached = Mixture(logits, mixture[0].components)
    assert attached.mean.requires_grad
    assert not attached.detach().mean.requires_grad


def test_no_method_changes_its_object(make):
    mixture = make(4)
    before = pickle.dumps((mixture.logits, mixture.family.parameters(mixture.components)))
    mixture.affine(1.0, 2.0), mixture.sample((3,)), mixture[0], mixture.expand((2, 4)), pool([mixture, mixture])
    if not mixture.event_shape:
        mixture.icdf(torch.tensor(0.5))
    assert pickle.dumps((mixture.logits, mixture.family.parameters(mixture.components))) == before


def test_marginal_of_a_mixture():
    mixture = make_vector(3)
    for dim in (0, 1, -1):
        torch.testing.assert_close(mixture.marginal(dim).mean, mixture.mean[:, dim])
        torch.testing.assert_close(mixture.marginal(dim).variance, mixture.variance[:, dim])


@pytest.mark.parametrize("dims", [[0], [2], [1, 3], [3, 0, 1], [-1]])
@pytest.mark.parametrize("kind", ["full", "diag"])
def test_condition_and_marginal_make_the_joint(dims, kind):
    mixture = make_vector(5, k=4, d=4)
    if kind == "diag":
        scale = mixture.components.scale_tril.diagonal(dim1=-2, dim2=-1)
        mixture = Mixture(mixture.logits, Independent(Normal(mixture.components.mean, scale), 1))
    y = mixture.sample((3,))
    others = [dim for dim in range(4) if dim not in [d % 4 for d in dims]]
    given = mixture.condition(dims, y[..., dims])
    assert given.batch_shape == (3, 5)
    rest = y[..., others] if len(others) > 1 else y[..., others[0]]
    joint = mixture.marginal(dims).log_prob(y[..., dims]) + given.log_prob(rest)
    torch.testing.assert_close(joint, mixture.log_prob(y))


def test_condition_agrees_with_numerical_integration():
    mixture = make_vector(k=5, d=2, seed=3)
    grid = torch.linspace(-15, 15, 6001, dtype=F64)
    for dim in (0, 1):  # sbi's MoG.condition is wrong unless the free coordinates come before the fixed ones
        points = torch.stack([grid, torch.full_like(grid, 0.4)], -1)[:, [1, 0] if dim == 0 else [0, 1]]
        slice_ = mixture.log_prob(points).exp()
        given = mixture.condition(dim, 0.4)
        torch.testing.assert_close(given.log_prob(grid).exp(), slice_ / torch.trapezoid(slice_, grid))


def test_sbi_condition_defect():
    """sbi's MoG.condition: variance 1.0 instead of .2 when the fixed coordinate comes first."""
    covariance = torch.tensor([[1.0, 0.8**0.5], [0.8**0.5, 1.0]], dtype=F64)
    mixture = Mixture(torch.zeros(1, dtype=F64), MultivariateNormal(torch.zeros(1, 2, dtype=F64), covariance))
    assert mixture.condition(0, 1.0).variance.item() == pytest.approx(0.2)
    assert mixture.condition(1, 1.0).variance.item() == pytest.approx(0.2)


def test_margins_of_many_coordinates_have_the_moments_of_the_joint():
    mixture = make_vector(3, d=5)
    margin = mixture.marginal([4, 0, 2])
    torch.testing.assert_close(margin.mean, mixture.mean[:, [4, 0, 2]])
    torch.testing.assert_close(margin.covariance, mixture.covariance[:, [4, 0, 2]][:, :, [4, 0, 2]])
    torch.testing.assert_close(mixture.marginal(range(5)).log_prob(mixture.mean), mixture.log_prob(mixture.mean))


def test_tails_and_intervals_keep_their_digits():
    mixture = Mixture(torch.zeros(2, dtype=F64), Normal(torch.tensor([0.0, 1.0], dtype=F64), 1.0))
    far = torch.tensor([-40.0, -10.0, 0.5, 10.0, 40.0], dtype=F64)
    with mpmath.workdps(50):
        for y, survival, log_cdf in zip(far, mixture.survival(far), mixture.log_cdf(far), strict=True):
            true = [(mpmath.ncdf(s * y.item()) + mpmath.ncdf(s * (y.item() - 1))) / 2 for s in (-1, 1)]
            assert survival.item() == pytest.approx(float(true[0]), rel=1e-12)
            assert log_cdf.item() == pytest.approx(float(mpmath.log(true[1])), rel=1e-12, abs=1e-16)
        narrow = (mpmath.ncdf(-9) - mpmath.ncdf(-9.001) + mpmath.ncdf(-8) - mpmath.ncdf(-8.001)) / 2
    assert mixture.prob_interval(9.0, 9.001).item() == pytest.approx(float(narrow), rel=1e-8)
    assert mixture.prob_interval(-torch.inf, torch.inf) == 1
    assert mixture.prob_interval(2.0, 1.0) == 0
    assert mixture.prob_interval(-1.0, 2.0).item() == pytest.approx((mixture.cdf(2.0) - mixture.cdf(-1.0)).item())
    assert mixture.median.item() == mixture.ppf(0.5).item() == 0.5


# Samples -------------------------------------------------------------------------------------------------------


def test_a_generator_decides_the_samples_and_torchs_own_stays_untouched(make):
    mixture = make(3)
    before = torch.get_rng_state()
    first = mixture.sample((5,), torch.Generator().manual_seed(7))
    second = mixture.sample((5,), torch.Generator().manual_seed(7))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_samples_follow_the_weights_and_never_overflow_the_components(generator):
    # Several peers pick a component by a float32 cumulative sum that ends below 1: a rare index error at K = 7.
    logits = torch.randn(7)
    mixture = Mixture(logits, Normal(10 * torch.arange(7.0), 0.01))
    counts = torch.bincount((mixture.sample((1_000_000,), generator) / 10).round().long(), minlength=7)
    torch.testing.assert_close(counts / 1e6, mixture.weights, atol=3e-3, rtol=0)


def test_the_largest_uniform_number_still_picks_a_component(monkeypatch):
    nearly_one = lambda *shape, **options: torch.full(shape, 1 - 2**-53, dtype=F64)  # noqa: E731
    monkeypatch.setattr(torch, "rand", nearly_one)
    mixture = Mixture(torch.tensor([0.3, 0.1, -torch.inf]), Normal(torch.tensor([0.0, 5.0, 99.0]), 1e-6))
    assert mixture.sample((100,)).max() < 5.1


# What cannot be answered says why ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "ask"),
    [
        ("E-mixture-shape", lambda: Mixture(torch.zeros(2), Normal(torch.zeros(3), 1.0))),
        ("E-mixture-shape", lambda: Mixture(torch.zeros(4, 3), Normal(torch.zeros(5, 3), 1.0))),
        ("E-mixture-shape", lambda: Mixture(torch.zeros(()), Normal(0.0, 1.0))),
        ("E-mixture-nan", lambda: Mixture(torch.tensor([0.0, torch.nan]), Normal(torch.zeros(2), 1.0))),
        ("E-family-unknown", lambda: Mixture(torch.zeros(2), Cauchy(torch.ones(2), torch.ones(2)))),
        ("E-value-shape", lambda: make_vector(3).log_prob(torch.zeros(3))),
        ("E-value-shape", lambda: make_scalar(3).log_prob(torch.zeros(4))),
        ("E-value-nan", lambda: make_scalar(3).log_prob(torch.tensor(torch.nan))),
        ("E-scalar-only", lambda: make_vector(3).cdf(torch.zeros(3, 2))),
        ("E-scalar-only", lambda: make_vector(3).icdf(torch.tensor(0.5))),
        ("E-vector-only", lambda: make_scalar(3).covariance),
        ("E-vector-only", lambda: make_scalar(3).marginal(0)),
        ("E-marginal-dim", lambda: make_vector(3).marginal(2)),
        ("E-marginal-dim", lambda: make_vector(3).marginal([0, -2])),
        ("E-marginal-dim", lambda: make_vector(3).marginal([])),
        ("E-marginal-dim", lambda: make_vector(3).condition([0, 1], torch.zeros(3, 2))),
        ("E-value-shape", lambda: make_vector(3, d=3).condition([0, 1], torch.zeros(3, 3))),
        ("E-value-shape", lambda: make_vector(3).condition(0, torch.zeros(4))),
        ("E-vector-only", lambda: make_scalar(3).condition(0, 1.0)),
        ("E-scalar-only", lambda: make_vector(3).survival(torch.zeros(3, 2))),
        ("E-quantile-range", lambda: make_scalar(3).icdf(torch.tensor(95.0))),
        ("E-quantile-range", lambda: make_scalar(3).icdf(torch.tensor(torch.nan))),
        ("E-value-shape", lambda: make_scalar(4).icdf([0.1, 0.5, 0.9])),
        ("E-value-shape", lambda: make_scalar(4).affine(torch.zeros(3), 1.0)),
        ("E-value-shape", lambda: make_scalar(4).affine(torch.zeros(2, 4), 1.0)),
        ("E-value-shape", lambda: pool([make_scalar(4), make_scalar(3)])),
        ("E-affine-zero", lambda: make_scalar(3).affine(0.0, 0.0)),
        ("E-pool-empty", lambda: pool([])),
        ("E-pool-mismatch", lambda: pool([make_scalar(3), make_vector(3)])),
        ("E-pool-mismatch", lambda: pool([make_scalar(3)], weights=[-1.0])),
    ],
)
def test_errors_are_coded(code, ask):
    with pytest.raises(MixturaError) as caught:
        ask()
    assert caught.value.code == code
    assert all(part in str(caught.value) for part in (f"[{code}] got ", "expected ", "Fix: "))
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)


# Defects of peers that have a test by name (the others: test_estimator.py, test_nets.py) --------------------------


def test_float32_diagonal_keeps_its_digits_where_an_expanded_square_loses_them():
    """scikit-learn's GaussianMixture, float32 diag: -10.62 instead of -11.12 at x = 1000.5, mean 1000, sd 0.1."""
    components = Independent(Normal(torch.tensor([[1000.0]]), torch.tensor([[0.1]])), 1)
    mixture = Mixture(torch.zeros(1), components)
    truth = -0.5 * 25 - math.log(0.1 * math.sqrt(2 * math.pi))
    assert mixture.log_prob(torch.tensor([1000.5])).item() == pytest.approx(truth, abs=1e-3)


def test_wide_components_integrate_to_1():
    """sbi's MDN adds an epsilon to the quadratic form and not to the determinant: .707 for wide components."""
    wide = Mixture(
        torch.zeros(1, dtype=F64), MultivariateNormal(torch.zeros(1, 1, dtype=F64), 1e5 * torch.eye(1, dtype=F64))
    )
    y = torch.linspace(-1e4, 1e4, 20_001, dtype=F64)
    assert torch.trapezoid(wide.log_prob(y[:, None]).exp(), y).item() == pytest.approx(1, abs=1e-9)


def test_the_median_of_a_large_target_is_found():
    """CDE (freelunchtheorem) brackets quantiles in +-1000: the median of a 250,000 target is 1000.0."""
    mixture = Mixture(torch.zeros(2), Normal(torch.tensor([2.4e5, 2.6e5]), torch.tensor([2e4, 2e4])))
    assert mixture.icdf(torch.tensor(0.5)).item() == pytest.approx(2.5e5, rel=1e-6)


def test_two_modes_have_the_variance_that_the_arithmetic_says():
    mixture = Mixture(torch.zeros(2), Normal(torch.tensor([-3.0, 3.0]), torch.tensor([1.0, 1.0])))
    assert (mixture.mean.item(), mixture.variance.item()) == (0.0, 10.0)


def test_numbers_lists_and_arrays_are_values_too():
    mixture = make_scalar(3)
    assert mixture.cdf(0.5).shape == (3,)
    assert torch.equal(mixture.icdf([0.5]), mixture.icdf(torch.tensor([0.5], dtype=F64)))
    assert torch.equal(mixture.log_prob(np.zeros(3)), mixture.log_prob(torch.zeros(3, dtype=F64)))


def test_answers_stay_on_their_batch_whatever_the_leading_axes():
    mixture = make_scalar(2, 3)
    y: Tensor = mixture.sample((5,))
    torch.testing.assert_close(mixture.cdf(y)[4, 1, 2], mixture[1, 2].cdf(y[4, 1, 2]))


def test_mean_and_variance_are_kept_but_never_without_their_gradient():
    loc = torch.tensor([0.0, 2.0], requires_grad=True)
    mixture = Mixture(torch.zeros(2), Normal(loc, torch.ones(2)))
    with torch.no_grad():
        assert mixture.mean == 1
        assert mixture.variance == 2
    (gradient,) = torch.autograd.grad(mixture.mean + mixture.variance, loc)
    torch.testing.assert_close(gradient, torch.tensor([-0.5, 1.5]))
    plain = mixture.detach()
    with torch.inference_mode():
        assert plain.mean == 1
    assert not plain.mean.is_inference()
