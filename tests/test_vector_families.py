"""Choosing a family, and what the contract cannot ask of all: three coordinates, products, low rank, heavy tails."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Laplace, LogNormal, MultivariateNormal, Normal

from mixtura import FAMILIES, MixturaError, Mixture, get_family, pool
from mixtura.families import (
    LowRankNormal,
    LowRankNormalFamily,
    MultivariateStudentT,
    MultivariateStudentTFamily,
    Product,
    ProductFamily,
    VectorFamily,
    family_of,
)
from mixtura.families.beta import BetaFamily
from mixtura.families.laplace import LaplaceFamily
from mixtura.families.lognormal import LogNormalFamily
from mixtura.families.normal import NormalFamily

F64 = torch.float64
MIXED = ("lognormal", "normal", "laplace")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_mixture(family: Any, *batch: int, d: int = 3, k: int = 4, seed: int = 0) -> Mixture:
    raw = torch.randn(*batch, k, family.n_raw(d), dtype=F64, generator=generator(seed))
    return Mixture(torch.randn(*batch, k, dtype=F64, generator=generator(seed + 1)), family.build(raw, 0.05))


def close(got: Tensor, expected: Tensor, rtol: float = 1e-9, atol: float = 1e-10) -> None:
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol)


# get_family ----------------------------------------------------------------------------------------------------


def test_a_name_is_the_registered_family_of_the_targets_shape():
    for family in FAMILIES:
        if isinstance(family, VectorFamily) and not isinstance(family, ProductFamily):
            assert get_family(family.name, 3, family.covariance_type or "") is family
        elif not isinstance(family, ProductFamily):
            assert get_family(family.name) is family
    assert get_family("normal", 3) == get_family("normal", 3, "full")
    assert get_family("normal", 3, "low_rank") == LowRankNormalFamily(rank=1)


def test_a_sequence_names_one_family_for_each_coordinate():
    family = get_family(["lognormal", get_family("normal")], 2)
    assert family == ProductFamily((LogNormalFamily(), NormalFamily()))
    assert repr(family) == "product/diag(families=(lognormal, normal))"


def test_diag_of_a_scalar_family_is_a_product_of_equal_ones():
    family = get_family("laplace", 3, "diag")
    assert isinstance(family, ProductFamily)
    assert family.families == (get_family("laplace"),) * 3
    assert get_family("normal", 3, "diag").name == "normal"


def test_a_family_passes_where_it_suits():
    family = LowRankNormalFamily(rank=3)
    assert get_family(family, 5) is family
    two = ProductFamily((NormalFamily(), LaplaceFamily()))
    assert get_family(two, 2, "full") is two


@pytest.mark.parametrize(
    "arguments",
    [
        ("no_such_name",),
        ("no_such_name", 3, "diag"),
        ("normal", 3, "no_such_type"),
        ("product", 2, "diag"),
        (LowRankNormalFamily(rank=3), None),
        (["normal", "normal"], 3),
        (["normal", "normal"], None),
        (["normal", LowRankNormalFamily()], 2),
        ([], 2),
    ],
)
def test_what_is_not_there_is_an_error(arguments):
    with pytest.raises(MixturaError, match="E-family-unknown"):
        get_family(*arguments)


def test_full_of_a_family_without_says_how_to_go_on():
    with pytest.raises(MixturaError, match=r"E-family-unknown.*Fix: take covariance_type='diag'"):
        get_family("laplace", 3, "full")


# All families of vectors, three coordinates --------------------------------------------------------------------


def three(family: VectorFamily) -> Any:
    return get_family(MIXED, 3) if isinstance(family, ProductFamily) else family


@pytest.fixture(params=[family for family in FAMILIES if isinstance(family, VectorFamily)], ids=repr)
def vector_family(request: pytest.FixtureRequest) -> Any:
    return three(request.param)


def test_the_joint_density_is_margin_times_conditional_in_any_order(vector_family):
    mixture = make_mixture(vector_family, 5)
    y = mixture.sample(generator=generator(2))
    for n_known in (1, 2):
        for known in itertools.permutations(range(3), n_known):
            others = [dim for dim in range(3) if dim not in known]
            given = mixture.condition(known, y[..., known])
            target = y[..., others] if len(others) > 1 else y[..., others[0]]
            close(mixture.marginal(known).log_prob(y[..., known]) + given.log_prob(target), mixture.log_prob(y))
            backwards = mixture.marginal([*known, *others][::-1])
            close(backwards.log_prob(y[..., [*known, *others][::-1]]), mixture.log_prob(y))


def test_conditionals_are_ratios_of_integrals_of_the_joint_density(vector_family):
    mixture = make_mixture(vector_family)
    y = mixture.sample(generator=generator(3))
    t = (torch.arange(40_000, dtype=F64) + 0.5) / 20_000 - 1
    line, width = t / (1 - t.square()), (1 + t.square()) / (1 - t.square()).square() / 20_000  # dy of (-1, 1) to R
    for dim in range(3):
        known = [other for other in range(3) if other != dim]
        points = y.expand(len(t), 3).clone()
        points[:, dim] = line
        joint = mixture.log_prob(points).exp()
        integral = (joint * width).sum()
        close(mixture.marginal(known).log_prob(y[known]).exp(), integral, rtol=1e-6)
        given = mixture.condition(known, y[known])
        close(given.log_prob(line).exp(), joint / integral, rtol=1e-6, atol=1e-9)


def test_a_batch_of_vectors_is_indexed_expanded_pooled_moved_and_cast(vector_family):
    mixture = make_mixture(vector_family, 5)
    y = mixture.sample(generator=generator(2))
    log_prob = mixture.log_prob(y)
    close(mixture[1:3].log_prob(y[1:3]), log_prob[1:3])
    close(mixture[2].expand((4,)).log_prob(y[2].expand(4, 3)), log_prob[2].expand(4))
    pooled = pool([mixture, mixture[0].expand((5,))])
    close(pooled.log_prob(y).exp(), 0.5 * (log_prob.exp() + mixture[0].log_prob(y).exp()))
    close((mixture.split().log_prob(y[:, None]) + mixture.logits).logsumexp(-1), log_prob)
    b = torch.tensor([2.0, 0.5, 3.0], dtype=F64)
    close(mixture.affine(0.0, b).log_prob(b * y), log_prob - b.log().sum())
    close(mixture.to(torch.float32).log_prob(y.float()).double(), log_prob, rtol=1e-4, atol=1e-4)


def test_moments_are_those_of_samples(vector_family):
    if isinstance(vector_family, MultivariateStudentTFamily):  # whose moments must exist for them to converge
        vector_family = MultivariateStudentTFamily(df_floor=8.0)
    mixture = make_mixture(vector_family, seed=4)
    y = mixture.sample((200_000,), generator(5))
    scale = mixture.stddev
    close(y.mean(0) / scale, mixture.mean / scale, rtol=0, atol=0.02)
    close(y.T.cov() / (scale[:, None] * scale), mixture.covariance / (scale[:, None] * scale), rtol=0, atol=0.08)
    close(mixture.covariance.diagonal(), mixture.variance)


@pytest.mark.parametrize("extreme", [-50.0, 50.0])
def test_extreme_raw_outputs_stay_finite_in_three_coordinates(vector_family, extreme):
    for family in (vector_family, LowRankNormalFamily(rank=2)):  # of parallel columns
        raw = torch.full((family.n_raw(3),), extreme, requires_grad=True)
        log_prob = family.log_prob(family.build(raw, 1e-3), torch.tensor([0.5, -1.0, 2.0]))
        (gradient,) = torch.autograd.grad(log_prob, raw)
        assert log_prob.isfinite()
        assert gradient.isfinite().all()


# Products ------------------------------------------------------------------------------------------------------


def make_product(dtype: torch.dtype = F64) -> tuple[Mixture, list[Any]]:
    loc, scale = torch.randn(2, 2, dtype=dtype, generator=generator(6)).unbind(0)
    laws = [LogNormal(loc, scale.exp()), Normal(loc + 1, scale.exp()), Laplace(-loc, scale.exp())]
    return Mixture(torch.tensor([0.3, -0.4], dtype=dtype), Product(laws)), laws


def test_a_product_sums_the_log_densities_of_its_coordinates():
    mixture, laws = make_product()
    y = torch.tensor([0.7, -0.2, 0.3], dtype=F64)
    joint = sum(law.log_prob(column) for law, column in zip(laws, y, strict=True))
    close(mixture.log_prob(y), (mixture.logits + joint).logsumexp(-1))
    assert mixture.log_prob(torch.tensor([-0.7, -0.2, 0.3], dtype=F64)) == -torch.inf
    assert repr(mixture.family) == "product/diag(families=(lognormal, normal, laplace))"
    assert mixture.family == family_of(mixture.components)


def test_margins_of_a_product_are_mixtures_of_its_laws():
    mixture, laws = make_product()
    for dim, law in enumerate(laws):
        margin = mixture.marginal(dim)
        assert type(margin.components) is type(law)
        close(margin.mean, mixture.mean[dim])
        close(margin.variance, mixture.variance[dim])


def test_an_angle_among_the_coordinates_keeps_its_circular_moments():
    mixture = make_mixture(get_family(["gamma", "von_mises"], 2), 5, d=2)
    for dim in range(2):
        margin = mixture.marginal(dim)
        close(margin.mean, mixture.mean[..., dim])
        close(margin.variance, mixture.variance[..., dim])


def test_coordinates_of_a_product_know_of_each_other_through_the_weights():
    mixture, laws = make_product()
    values = torch.tensor([0.1, 0.5], dtype=F64)
    given = mixture.condition([2, 0], values)
    expected = mixture.logits + laws[2].log_prob(values[0]) + laws[0].log_prob(values[1])
    close(given.logits, expected.log_softmax(-1))
    assert type(given.components) is Normal


def test_products_of_different_laws_do_not_pool():
    mixture, laws = make_product()
    other = Mixture(mixture.logits, Product(laws[::-1]))
    with pytest.raises(MixturaError, match="E-pool-mismatch"):
        pool([mixture, other])


def test_a_product_is_closed_under_what_all_its_coordinates_are():
    assert ProductFamily((NormalFamily(), LaplaceFamily())).closed_under == "affine"
    assert ProductFamily((NormalFamily(), LogNormalFamily())).closed_under == "scale"
    assert ProductFamily((LogNormalFamily(), BetaFamily())).closed_under == "scale"


def test_options_in_units_of_the_target_move_with_each_coordinate():
    family = ProductFamily((BetaFamily((0.0, 2.0)), NormalFamily()))
    assert family.moved([1.0, 7.0], [3.0, 5.0]) == ProductFamily((BetaFamily((1.0, 7.0)), NormalFamily()))


def test_laws_of_a_product_broadcast():
    product = Product([Normal(torch.zeros(3, 1), 1.0), Normal(torch.zeros(2), 1.0)])
    assert (product.batch_shape, product.event_shape) == ((3, 2), (2,))
    assert product.mean.shape == (3, 2, 2)


def test_floors_are_by_coordinate():
    family: Any = get_family(["normal", "laplace"], 2)
    raw = torch.full((3, family.n_raw(2)), -80.0, dtype=F64)
    for floor in (torch.tensor([0.25, 0.5], dtype=F64), torch.tensor(0.5, dtype=F64), 0.5):
        first, second = family.build(raw, floor).laws
        expected = floor.expand(2).tolist() if isinstance(floor, Tensor) else [floor] * 2
        assert first.scale.tolist() == pytest.approx([expected[0]] * 3)
        assert second.scale.tolist() == pytest.approx([expected[1]] * 3)


# Low rank ------------------------------------------------------------------------------------------------------


def make_low_rank(*batch: int, d: int = 20, rank: int = 3) -> LowRankNormal:
    g = generator(7)
    loc, scale = torch.randn(2, *batch, d, dtype=F64, generator=g).unbind(0)
    return LowRankNormal(loc, torch.randn(*batch, d, rank, dtype=F64, generator=g), 0.3 * scale.exp())


def as_full(components: LowRankNormal) -> MultivariateNormal:
    return MultivariateNormal(components.loc, family_of(components).covariance(components))  # pyright: ignore


def test_low_rank_is_the_full_normal_of_its_covariance():
    components = make_low_rank(6)
    family: Any = family_of(components)
    assert family == LowRankNormalFamily(rank=3)
    full = as_full(components)
    y = family.sample(components, generator())
    close(family.log_prob(components, y), full.log_prob(y))
    close(components.variance, full.variance)
    answer: Any = family_of(full)
    for n_known in (1, 2, 19):
        log_known, others = family.condition(components, n_known, y[..., :n_known])
        expected_log_known, expected = answer.condition(full, n_known, y[..., :n_known])
        close(log_known, expected_log_known)
        close(others.loc, expected.loc)
        close(family.covariance(others), answer.covariance(expected))


def test_low_rank_keeps_its_digits_where_the_factors_dominate():
    """Scales 1e-6 of the factors': the covariance is singular to the eye, the residual is not."""
    components = make_low_rank()
    family = LowRankNormalFamily(rank=3)
    tight = LowRankNormal(components.loc, components.cov_factor, torch.full_like(components.scale, 1e-6))
    f, e = torch.randn(3, dtype=F64, generator=generator()), torch.randn(20, dtype=F64, generator=generator(1))
    y = tight.loc + tight.cov_factor @ f + tight.scale * e
    # Of so small a scale: the least-squares residual in the D - rank other directions, the factors as they are.
    basis = torch.linalg.qr(tight.cov_factor, mode="complete").Q
    inside = torch.linalg.svdvals(tight.cov_factor).log().sum()
    coefficients = torch.linalg.lstsq(tight.cov_factor, (y - tight.loc)[:, None]).solution[:, 0]
    residual = basis[:, 3:].T @ e
    unit = Normal(0.0, 1.0)
    expected = unit.log_prob(residual).sum() - 17 * math.log(1e-6) + unit.log_prob(coefficients).sum() - inside
    close(family.log_prob(tight, y), expected, rtol=1e-6)


def test_low_rank_in_float32_far_from_the_origin():
    family = LowRankNormalFamily(rank=3)
    shape = torch.zeros(6, 20, dtype=F64)
    single = family.map(family.affine(make_low_rank(6), shape + 1000, shape + 0.1), lambda tensor: tensor.float())
    double = family.map(single, lambda tensor: tensor.double())
    y = family.sample(double, generator()).float()
    close(family.log_prob(single, y).double(), family.log_prob(double, y.double()), rtol=5e-5, atol=2e-5)


def test_low_rank_fit_is_nearly_as_likely_as_the_truth():
    family = LowRankNormalFamily(rank=3)
    truth = make_low_rank()
    y = family.sample(truth.expand((4000,)), generator())
    fitted = family.fit(y, torch.ones(4000, 1, dtype=F64))
    gap = (family.log_prob(truth, y) - family.log_prob(fitted, y[:, None])[:, 0]).mean().item()
    assert -0.03 < gap < 0  # 97 parameters fit 4000 rows about 97 / 8000 better than the truth


# Heavy tails ---------------------------------------------------------------------------------------------------


def test_student_t_of_many_degrees_of_freedom_is_normal():
    full = make_mixture(get_family("normal", 3), 5).components
    y = torch.randn(5, 1, 3, dtype=F64, generator=generator())
    for df, tolerance in ((1e9, 1e-6), (1e15, 1e-10)):
        heavy = MultivariateStudentT(torch.full((5, 4), df, dtype=F64), full.loc, full.scale_tril)
        close(family_of(heavy).log_prob(heavy, y), family_of(full).log_prob(full, y), rtol=tolerance, atol=tolerance)


def test_student_t_answers_far_out_where_squares_overflow():
    heavy = MultivariateStudentT(torch.full((1,), 3.0), torch.zeros(1, 2), torch.eye(2).expand(1, 2, 2))
    at = torch.tensor([[1e18, 1e18], [1e30, 1e30]])[:, None]
    near, far = family_of(heavy).log_prob(heavy, at)[:, 0].tolist()
    assert far - near == pytest.approx(-5 * 12 * 2.302585, rel=1e-5)


def test_student_t_samples_leave_the_global_generator_alone():
    mixture = make_mixture(get_family("student_t", 3), 5)
    before = torch.get_rng_state()
    first, second = (mixture.sample((3,), generator(8)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_student_t_fit_finds_the_degrees_of_freedom():
    truth = MultivariateStudentT(torch.tensor(4.0, dtype=F64), torch.ones(3, dtype=F64), torch.eye(3, dtype=F64))
    family = MultivariateStudentTFamily()
    y = family.sample(truth.expand((20_000,)), generator())
    fitted = family.fit(y, torch.ones(20_000, 2, dtype=F64))
    assert fitted.df.tolist() == pytest.approx([4.0, 4.0], rel=0.1)
    close(fitted.loc, truth.loc.expand(2, 3), rtol=0, atol=0.05)
