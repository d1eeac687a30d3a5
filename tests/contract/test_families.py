"""The family contract: every registered family gets every test; none can opt out."""

import math

import mpmath
import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.distributions import Distribution

from mixtura import FAMILIES, Mixture
from mixtura.families import AnyFamily, ScalarFamily, VectorFamily, family_of

SCALES = [1e-3, 1.0, 1e3]
D = 2


def scipy_log_prob(components: Distribution, index: tuple[int, ...], y: Tensor) -> float:
    """log density of one component by scipy, from its mean and covariance alone."""
    family = family_of(components)
    mean = components.mean[index].numpy()
    if isinstance(family, VectorFamily):
        law = scipy.stats.multivariate_normal(mean, family.covariance(components)[index].numpy())
    else:
        law = scipy.stats.norm(mean, components.stddev[index].item())
    return float(law.logpdf(y.numpy()))


REFERENCES = {"normal": scipy_log_prob}
"""An independent density for each family name; a new family must bring one."""


@pytest.fixture(params=FAMILIES, ids=repr)
def family(request: pytest.FixtureRequest) -> AnyFamily:
    return request.param


def event_size(family: AnyFamily) -> int | None:
    return D if isinstance(family, VectorFamily) else None


def make_raw(family: AnyFamily, *batch: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*batch, family.n_raw(event_size(family)), dtype=torch.float64, generator=generator)


def make(family: AnyFamily, *batch: int, scale: float = 1.0, seed: int = 0) -> Distribution:
    """Random components, stretched by `scale`."""
    components = family.build(make_raw(family, *batch, seed=seed))
    zero = torch.zeros((), dtype=torch.float64)
    shape = components.batch_shape + components.event_shape
    return family.affine(components, zero.expand(shape), (zero + scale).expand(shape))


def grid_around(components: Distribution, n: int) -> tuple[Tensor, float]:
    """Points and the volume of each, covering one component (no batch axes) out to 12 standard deviations."""
    mean, sd = components.mean.reshape(-1), components.stddev.reshape(-1)
    axes = [torch.linspace(m - 12 * s, m + 12 * s, n, dtype=torch.float64) for m, s in zip(mean, sd, strict=True)]
    volume = math.prod((axis[1] - axis[0]).item() for axis in axes)
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)
    return (points if components.event_shape else points[..., 0]), volume


def test_every_family_has_an_independent_reference(family):
    assert family.name in REFERENCES


@pytest.mark.parametrize("scale", SCALES)
def test_density_integrates_to_1(family, scale):
    components = make(family, scale=scale)
    points, volume = grid_around(components, 2001 if family.covariance_type is None else 601)
    assert (family.log_prob(components, points).exp().sum() * volume).item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("scale", SCALES)
def test_cdf_is_the_integral_of_the_density(family, scale):
    if not isinstance(family, ScalarFamily):
        family, components = _margin(family, scale)
    else:
        components = make(family, scale=scale)
    points, _ = grid_around(components, 4001)
    density, cdf = family.log_prob(components, points).exp(), family.cdf(components, points)
    integral = torch.cumulative_trapezoid(density, points)
    assert (cdf[1:] - integral).abs().max() < 1e-5
    torch.testing.assert_close(family.survival(components, points), 1 - cdf, atol=1e-15, rtol=0)
    torch.testing.assert_close(family.log_cdf(components, points).exp(), cdf)
    torch.testing.assert_close(family.log_survival(components, points).exp(), 1 - cdf, atol=1e-15, rtol=1e-9)
    levels = torch.tensor([1e-12, 1e-3, 0.3, 0.5], dtype=torch.float64)
    torch.testing.assert_close(family.cdf(components, family.icdf(components, levels)), levels, rtol=1e-9, atol=0)
    torch.testing.assert_close(family.survival(components, family.isf(components, levels)), levels, rtol=1e-9, atol=0)


@pytest.mark.parametrize("scale", SCALES)
def test_mean_distances_are_integrals(family, scale):
    if not isinstance(family, ScalarFamily):
        pytest.skip("distances are of scalars")
    first, second = make(family, scale=scale, seed=1), make(family, scale=scale, seed=2)
    points, volume = grid_around(first, 8001)
    density = family.log_prob(first, points).exp() * volume
    y = torch.tensor(0.3 * scale, dtype=torch.float64)
    expected = (density * (points - y).abs()).sum()
    torch.testing.assert_close(family.mean_distance(first, y), expected, rtol=1e-5, atol=0)
    expected = (density * family.mean_distance(second, points)).sum()
    torch.testing.assert_close(family.mean_difference(first, second), expected, rtol=1e-5, atol=0)


def _margin(family, scale):
    margin = family.marginal(make(family, scale=scale), 1)
    return family_of(margin), margin


def test_marginal_integrates_the_other_coordinate_out(family):
    if not isinstance(family, VectorFamily):
        pytest.skip("a scalar law has no other coordinate")
    components = make(family, seed=3)
    points, _ = grid_around(components, 801)
    joint = family.log_prob(components, points).exp()
    for dim in range(D):
        margin = family.marginal(components, dim)
        kept = points.select(1 - dim, 0)[:, dim]
        step = points.select(dim, 0)[:, 1 - dim]
        integrated = torch.trapezoid(joint, step, dim=1 - dim)
        torch.testing.assert_close(family_of(margin).log_prob(margin, kept).exp(), integrated, atol=1e-9, rtol=1e-9)


def test_taking_coordinates_in_another_order_is_the_same_law(family):
    if not isinstance(family, VectorFamily):
        pytest.skip("a scalar law has one coordinate")
    components = make(family, 4, seed=6)
    y = family.sample(components, torch.Generator().manual_seed(1))
    swapped = family.take(components, [1, 0])
    torch.testing.assert_close(family.log_prob(swapped, y[..., [1, 0]]), family.log_prob(components, y))
    one = family.take(components, [1])
    margin = family.marginal(components, 1)
    torch.testing.assert_close(family.log_prob(one, y[..., 1:]), family_of(margin).log_prob(margin, y[..., 1]))


def test_joint_is_margin_times_conditional(family):
    if not isinstance(family, VectorFamily):
        pytest.skip("a scalar law has one coordinate")
    components = make(family, 4, seed=7)
    y = family.sample(components, torch.Generator().manual_seed(1))
    log_known, others = family.condition(components, 1, y[..., :1])
    margin = family.marginal(components, 0)
    torch.testing.assert_close(log_known, family_of(margin).log_prob(margin, y[..., 0]))
    torch.testing.assert_close(log_known + family.log_prob(others, y[..., 1:]), family.log_prob(components, y))


@pytest.mark.parametrize("scale", SCALES)
def test_log_prob_agrees_with_an_independent_implementation(family, scale):
    components = make(family, 5, scale=scale)
    y = family.sample(components, torch.Generator().manual_seed(1))
    got = family.log_prob(components, y)
    for k in range(5):
        assert got[k].item() == pytest.approx(REFERENCES[family.name](components, (k,), y[k]), abs=1e-10)


def test_float32_keeps_its_digits_far_from_the_origin(family):
    shape = (D,) if isinstance(family, VectorFamily) else ()
    for sd in (0.1, 1e-2):
        single = make(family, seed=4)
        centre = torch.full(shape, 1000.0, dtype=torch.float64)
        single = family.affine(single, centre, torch.full(shape, sd, dtype=torch.float64))
        single = family.map(single, lambda tensor: tensor.float())
        double = family.map(single, lambda tensor: tensor.double())  # the same numbers, with more digits to compute in
        y = (double.mean + 5 * double.stddev).float()
        assert family.log_prob(single, y).item() == pytest.approx(family.log_prob(double, y.double()).item(), rel=2e-5)


def test_affine_moves_the_density_by_the_jacobian(family):
    components = make(family, 6)
    shape = components.batch_shape + components.event_shape
    generator = torch.Generator().manual_seed(2)
    a, b = (torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(2))  # b of both signs
    y = family.sample(components, generator)
    moved = family.log_prob(family.affine(components, a, b), a + b * y)
    log_jacobian = b.abs().log().sum(-1) if components.event_shape else b.abs().log()
    torch.testing.assert_close(moved, family.log_prob(components, y) - log_jacobian, atol=1e-10, rtol=1e-12)


def test_gradients_agree_with_finite_differences(family):
    raw = make_raw(family, 4).requires_grad_()
    y = family.sample(make(family, 4), torch.Generator().manual_seed(0)).requires_grad_()

    def log_prob(raw: Tensor, y: Tensor) -> Tensor:
        return family.log_prob(family.build(raw, 0.01), y)

    assert torch.autograd.gradcheck(log_prob, (raw, y))


def test_samples_and_density_are_the_same_law(family):
    components = make(family, seed=5)
    many = family.map(components, lambda tensor: tensor.expand(20_000, *tensor.shape))
    y = family.sample(many, torch.Generator().manual_seed(0))
    margins = [(components, y)]
    if isinstance(family, VectorFamily):
        margins = [(family.marginal(components, dim), y[:, dim]) for dim in range(D)]
        error = (torch.cov(y.mT) - family.covariance(components)).abs().max() / family.covariance(components).max()
        assert error < 0.05
        # -2 log(density / its peak) of a normal law follows chi-squared with D degrees of freedom
        distance = 2 * (family.log_prob(components, components.mean) - family.log_prob(many, y))
        assert scipy.stats.kstest(distance.numpy(), scipy.stats.chi2(D).cdf).pvalue > 1e-3
    for law, values in margins:
        u = family_of(law).cdf(law, values)
        assert scipy.stats.kstest(u.numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_unbuild_inverts_build(family, floor):
    components = family.build(make_raw(family, 7), floor)
    again = family.build(family.unbuild(components, floor), floor)
    for before, after in zip(family.parameters(components), family.parameters(again), strict=True):
        torch.testing.assert_close(after, before, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize(("dtype", "floor"), [(torch.float64, 0.0), (torch.float32, 1e-6), (torch.float32, 1e-3)])
@pytest.mark.parametrize("extreme", [-50.0, 50.0])
def test_extreme_raw_outputs_stay_finite(family, extreme, dtype, floor):
    raw = torch.full((1, family.n_raw(event_size(family))), extreme, dtype=dtype, requires_grad=True)
    y = torch.ones((1, D) if isinstance(family, VectorFamily) else 1, dtype=dtype)
    log_prob = family.log_prob(family.build(raw, floor), y)
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert raw.grad is not None
    assert raw.grad.isfinite().all()


def test_scales_respect_the_floor(family):
    raw = torch.full((3, family.n_raw(event_size(family))), -80.0, dtype=torch.float64)
    assert (family.build(raw, 0.25).stddev >= 0.25).all()
    if isinstance(family, VectorFamily):
        floors = torch.tensor([0.25, 0.5], dtype=torch.float64)
        assert (family.build(raw, floors).stddev >= floors).all()


def test_one_row_at_a_time_is_the_batch(family):
    components = make(family, 9)
    y = family.sample(components, torch.Generator().manual_seed(0))
    rows = [family.log_prob(family.map(components, lambda t, i=i: t[i : i + 1]), y[i : i + 1]) for i in range(9)]
    assert torch.equal(torch.cat(rows), family.log_prob(components, y))


def test_fit_recovers_moments_and_survives_a_single_row(family):
    generator = torch.Generator().manual_seed(0)
    y = torch.randn((500, D) if isinstance(family, VectorFamily) else 500, dtype=torch.float64, generator=generator)
    weights = torch.rand(500, 2, dtype=torch.float64, generator=generator)
    weights[1:, 1] = 0  # the second component sees one row only
    components = family.fit(y, weights)
    share = (weights[:, 0] / weights[:, 0].sum()).reshape(-1, *[1] * (y.ndim - 1))
    torch.testing.assert_close(components.mean[0], (share * y).sum(0))
    torch.testing.assert_close(components.mean[1], y[0])
    assert (components.stddev > 0).all()
    assert family.log_prob(components, y[:1]).isfinite().all()


def test_the_family_of_its_own_components_answers_for_them(family):
    components = make(family, 3)
    mixture = Mixture(torch.zeros(3, dtype=torch.float64), components)
    assert mixture.family.name == family.name
    assert isinstance(mixture.family, ScalarFamily) == isinstance(family, ScalarFamily)


def test_normal_log_prob_agrees_with_mpmath_a_hundred_scales_away():
    for z in (-100.0, -37.5, 0.0, 3.3, 100.0):
        zero, y = torch.tensor([0.0, 2 * z], dtype=torch.float64)
        components = torch.distributions.Normal(zero, zero + 2)
        true = mpmath.log(mpmath.npdf(mpmath.mpf(2 * z), 0, 2))
        assert family_of(components).log_prob(components, y).item() == pytest.approx(float(true), abs=1e-10)
