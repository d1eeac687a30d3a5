"""Regions of high density: their mass, their edge, and how they compare with intervals."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.distributions import (
    ExpTransform,
    Gamma,
    Laplace,
    LogNormal,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    Poisson,
    SigmoidTransform,
    StudentT,
)

from mixtura import MixturaError, Mixture, Region
from mixtura.families import AsymmetricLaplace, Logistic, ScaledBeta, TruncatedNormal, VonMises

F64 = torch.float64
LEVELS = [0.01, 0.9, 0.999999]


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def one(components) -> Mixture:
    return Mixture(torch.zeros(components.batch_shape, dtype=F64), components)


PI = torch.full((2,), math.pi, dtype=F64)
SEVERAL_MODES = {
    "normal": one(Normal(tensor(-3.0, 3.0, 4.0), tensor(1.0, 0.5, 2.0))),
    "student_t": one(StudentT(tensor(2.5, 3.0), tensor(0.0, 10.0), tensor(1.0, 2.0))),
    "laplace": one(Laplace(tensor(0.0, 0.5, 5.0), tensor(1.0, 0.1, 1.0))),
    "asymmetric_laplace": one(AsymmetricLaplace(tensor(0.0, 5.0), tensor(1.0, 1.0), tensor(2.0, 0.3))),
    "logistic": one(Logistic(tensor(0.0, 8.0), tensor(1.0, 0.7))),
    "lognormal": one(LogNormal(tensor(0.0, 3.0), tensor(0.5, 0.3))),
    "gamma_infinite": one(Gamma(tensor(0.5, 30.0), tensor(1.0, 1.0))),
    "beta_u": one(ScaledBeta(tensor(0.5), tensor(0.7), -2.0, 3.0)),
    "von_mises": one(VonMises(PI - tensor(0.3, 3.0), tensor(3.0, 3.0), -PI, PI)),
    "truncated_normal": one(TruncatedNormal(tensor(-1.0, 2.0), tensor(1.0, 1.0), tensor(0.0, 0.0), tensor(3.0, 3.0))),
    "logit_normal": one(Normal(tensor(0.0), tensor(3.0))).transform(SigmoidTransform()),
}
ONE_MODE = {
    "normal": one(Normal(tensor(2.0), tensor(3.0))),
    "student_t": one(StudentT(tensor(3.0), tensor(0.0), tensor(1.0))),
    "laplace": one(Laplace(tensor(1.0), tensor(2.0))),
    "asymmetric_laplace": one(AsymmetricLaplace(tensor(0.0), tensor(1.0), tensor(2.0))),
    "logistic": one(Logistic(tensor(0.0), tensor(1.0))),
    "lognormal": one(LogNormal(tensor(0.0), tensor(0.7))),
    "gamma": one(Gamma(tensor(3.0), tensor(2.0))),
    "exponential": one(Gamma(tensor(1.0), tensor(2.0))),
    "gamma_infinite": one(Gamma(tensor(0.5), tensor(1.0))),
    "beta": one(ScaledBeta(tensor(3.0), tensor(5.0), 10.0, 30.0)),
    "von_mises": one(VonMises(tensor(0.1), tensor(4.0), -PI[:1], PI[:1])),
    "truncated_normal": one(TruncatedNormal(tensor(-1.0), tensor(1.0), tensor(0.0), tensor(torch.inf))),
    "warped": one(Normal(tensor(0.0), tensor(0.5))).transform(ExpTransform()),
}
ALL = [
    pytest.param(mixture, id=f"{name}-{i}")
    for i, group in enumerate((SEVERAL_MODES, ONE_MODE))
    for name, mixture in group.items()
]

CHEAP = {"normal", "laplace", "logistic", "lognormal", "student_t", "gamma"}
"""The search for the shortest interval asks for thousands of quantiles."""


def ends(region: Region) -> tuple[Tensor, Tensor]:
    return region.lower[~region.lower.isnan()], region.upper[~region.upper.isnan()]


@pytest.mark.parametrize("mixture", ALL)
def test_the_region_has_its_level_and_one_density_at_all_its_ends(mixture):
    many = mixture.expand((len(LEVELS),))
    regions, thresholds = many.highest_density_region(tensor(*LEVELS)), many.hdr_threshold(tensor(*LEVELS))
    y = mixture.icdf(torch.linspace(0.0005, 0.9995, 51, dtype=F64))
    log_prob = mixture.log_prob(y)
    support = mixture.family.support(mixture.components)
    for i, level in enumerate(LEVELS):
        region, threshold = Region(regions.lower[i], regions.upper[i], regions.size[i]), thresholds[i]
        lower, upper = ends(region)
        assert region.count == len(lower)
        assert (lower[1:] > upper[:-1]).all()
        # At .999999 the edge is nearly the floor of a valley, where the density fixes the end to half its digits only.
        mass = mixture.prob_interval(lower, upper).sum().item()
        assert mass == pytest.approx(level, abs=1e-12 if level < 0.999 else 1e-8)
        edge = torch.cat([lower[lower != support[0].amin()], upper[upper != support[1].amax()]])
        assert len(edge)
        step = 4 * torch.finfo(F64).eps * edge.abs()
        rounding = (mixture.log_prob(edge + step) - mixture.log_prob(edge - step)).abs()
        assert ((mixture.log_prob(edge) - threshold).abs() <= 1e-12 * threshold.abs().clamp(min=1) + rounding).all()
        clear = (log_prob - threshold).abs() > 1e-9
        assert torch.equal(region.contains(y)[clear], (log_prob >= threshold)[clear])
        assert region.size.item() == pytest.approx((upper - lower).sum().item())


@pytest.mark.parametrize(
    "mixture",
    [
        pytest.param(*part.values, id=part.id, marks=[] if str(part.id)[:-2] in CHEAP else pytest.mark.statistical)
        for part in ALL
    ],
)
def test_it_is_no_longer_than_the_shortest_interval_nor_that_than_the_central_one(mixture):
    level = tensor(0.05, 0.9)
    mixture = mixture.expand((2,))
    region, shortest, central = (
        getattr(mixture, answer)(level)
        for answer in ("highest_density_region", "shortest_interval", "central_interval")
    )
    assert (region.size <= shortest.size * (1 + 1e-9)).all()
    assert (shortest.size <= central.size * (1 + 1e-9)).all()
    for interval in (shortest, central):
        mass = mixture.prob_interval(interval.lower[:, 0], interval.upper[:, 0])
        torch.testing.assert_close(mass, level, atol=1e-9, rtol=0)
    one_mode = mixture.modes().count == 1
    if not mixture.family.is_circular:  # of a circle the shortest may cross the cut
        torch.testing.assert_close(region.size[one_mode], shortest.size[one_mode], rtol=1e-9, atol=0)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_regions_move_with_the_target(scale):
    mixture = SEVERAL_MODES["normal"]
    for level in LEVELS:
        moved = mixture.affine(2 * scale, -scale).highest_density_region(level)
        lower, upper = ends(mixture.highest_density_region(level))
        torch.testing.assert_close(moved.lower, 2 * scale - scale * upper.flip(0), rtol=1e-9, atol=1e-9 * scale)
        torch.testing.assert_close(moved.upper, 2 * scale - scale * lower.flip(0), rtol=1e-9, atol=1e-9 * scale)


def test_of_a_circle_the_region_may_cross_the_cut():
    region = one(VonMises(PI[:1], tensor(3.0), -PI[:1], PI[:1])).highest_density_region(0.9)
    assert region.lower[0].item() == -math.pi
    assert region.upper[1].item() == math.pi
    away = one(VonMises(tensor(0.0), tensor(3.0), -PI[:1], PI[:1])).highest_density_region(0.9)
    assert region.size.item() == pytest.approx(away.size.item(), rel=1e-9)


# Atoms and counts ----------------------------------------------------------------------------------------------


def with_atoms(weights: Tensor, *atoms: float) -> Mixture:
    return Mixture(weights.log(), Normal(tensor(0.0), tensor(1.0)), tensor(*atoms))


def test_atoms_alone_may_reach_the_level():
    mixture = with_atoms(tensor(0.4, 0.35, 0.25), 5.0, -7.0)
    first = mixture.highest_density_region(0.3)
    assert (ends(first)[0].tolist(), ends(first)[1].tolist(), first.size.item()) == ([5.0], [5.0], 0.0)
    assert mixture.hdr_threshold(0.3) == torch.inf
    assert ends(mixture.highest_density_region(0.5))[0].tolist() == [-7.0, 5.0]


def test_atoms_inside_and_outside_of_the_interval():
    mixture = with_atoms(tensor(0.5, 0.3, 0.2), 0.1, 6.0)
    region = mixture.highest_density_region(0.9)
    half = scipy.stats.norm.ppf(0.5 + 0.5 * 0.8)
    torch.testing.assert_close(ends(region)[0], tensor(-half, 6.0), rtol=1e-9, atol=0)
    torch.testing.assert_close(ends(region)[1], tensor(half, 6.0), rtol=1e-9, atol=0)
    assert region.contains(tensor(0.1, 6.0, 5.9)).tolist() == [True, True, False]
    assert mixture.hdr_threshold(0.9).item() == pytest.approx(math.log(0.5) + scipy.stats.norm.logpdf(half))


def test_atoms_without_weight_are_not_there():
    region = with_atoms(tensor(0.5, 0.5, 0.0), 6.0, 9.0).highest_density_region(0.9)
    assert ends(region)[0].tolist()[1:] == [6.0]


def test_equal_atoms_are_one_point_of_the_region():
    region = with_atoms(tensor(0.5, 0.25, 0.25), 6.0, 6.0).highest_density_region(0.9)
    assert region.contains(tensor(6.0)).item()
    assert region.size.item() == pytest.approx(2 * scipy.stats.norm.ppf(0.9))


@pytest.mark.parametrize(
    "components", [Poisson(tensor(2.0, 20.0)), NegativeBinomial(tensor(2.0, 20.0), logits=tensor(0.3, 1.0))]
)
@pytest.mark.parametrize("level", [0.05, 0.5, 0.9, 0.999])
def test_regions_of_counts_are_the_most_probable_numbers(components, level):
    mixture = one(components)
    region, y = mixture.highest_density_region(level), torch.arange(600, dtype=F64)
    mass = mixture.log_prob(y).exp()
    is_in = region.contains(y)
    assert mass[is_in].sum() >= level
    assert mass[is_in].sum() - mass[is_in].min() < level
    assert mass[is_in].min() >= mass[~is_in].max()
    assert region.size == is_in.sum()
    assert mixture.hdr_threshold(level).item() == pytest.approx(mass[is_in].min().log().item())


# Vectors -------------------------------------------------------------------------------------------------------


def test_the_region_of_one_normal_vector_is_that_of_chi_squared():
    mixture = one(MultivariateNormal(torch.zeros(1, 3, dtype=F64), torch.eye(3, dtype=F64)))
    for level in (0.1, 0.5, 0.9):
        threshold = mixture.hdr_threshold(level, n_draws=100_000).item()
        radius = -2 * (threshold + 1.5 * math.log(2 * math.pi))
        error = math.sqrt(level * (1 - level) / 100_000)
        assert scipy.stats.chi2(3).cdf(radius) == pytest.approx(level, abs=4 * error)


def test_regions_of_vectors_cover_what_they_promise(generator):
    loc = torch.randn(4, 3, 2, dtype=F64, generator=generator)
    mixture = Mixture(
        torch.zeros(3, dtype=F64), MultivariateNormal(4 * loc, torch.eye(2, dtype=F64), validate_args=False)
    )
    y = mixture.sample((20_000,), generator)
    for level in (0.2, 0.9):
        covered = mixture.in_hdr(y, level).double().mean(0)
        assert covered.shape == (4,)
        assert (covered - level).abs().max() < 4 * math.sqrt(level * (1 - level) * (1 / 20_000 + 1 / 4096))
        assert torch.equal(mixture.hdr_threshold(level), mixture.hdr_threshold(level))  # always the same draws


# Batches and errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,), (2, 0)])
def test_any_batch_is_row_by_row(batch):
    g = torch.Generator().manual_seed(0)
    loc, raw = torch.randn(*batch, 3, dtype=F64, generator=g), torch.randn(*batch, 3, dtype=F64, generator=g)
    mixture = Mixture(torch.zeros(3, dtype=F64), Normal(4 * loc, (0.5 * raw).exp(), validate_args=False))
    level = torch.rand(batch, dtype=F64, generator=g) * 0.9 + 0.05
    region = mixture.highest_density_region(level)
    assert region.size.shape == region.count.shape == batch
    assert mixture.hdr_threshold(level).shape == batch
    for index in np.ndindex(*batch):
        alone = mixture[index].highest_density_region(level[index].item()) if index else region
        n = int(alone.count)
        torch.testing.assert_close(region.lower[index][:n], alone.lower[:n])
        assert region.lower[index][n:].isnan().all()
        assert region.count[index] == n


def test_float32_regions():
    mixture = SEVERAL_MODES["normal"].to(torch.float32)
    region = mixture.highest_density_region(0.9)
    assert region.lower.dtype == torch.float32
    assert mixture.prob_interval(*ends(region)).sum().item() == pytest.approx(0.9, abs=1e-5)


@pytest.mark.parametrize(
    ("code", "ask"),
    [
        ("E-coverage-range", lambda m: m.highest_density_region(0.0)),
        ("E-coverage-range", lambda m: m.hdr_threshold(1.0)),
        ("E-coverage-range", lambda m: m.central_interval(90)),
        ("E-coverage-range", lambda m: m.shortest_interval(torch.nan)),
        ("E-value-shape", lambda m: m.highest_density_region(tensor(0.1, 0.5))),
    ],
)
def test_errors_are_coded(code, ask):
    with pytest.raises(MixturaError) as caught:
        ask(SEVERAL_MODES["normal"])
    assert caught.value.code == code


def test_vectors_have_no_intervals():
    mixture = one(MultivariateNormal(torch.zeros(1, 2, dtype=F64), torch.eye(2, dtype=F64)))
    for answer in ("highest_density_region", "shortest_interval", "central_interval"):
        with pytest.raises(MixturaError, match="E-scalar-only"):
            getattr(mixture, answer)(0.5)


@pytest.mark.parametrize("level", [0.001, 0.01, 0.5])
def test_a_region_at_an_infinite_density_may_be_shorter_than_any_bisection_finds(level):
    mixture = one(Gamma(tensor(0.05), tensor(2.0)))
    region = mixture.highest_density_region(level)
    assert region.lower.item() == 0
    assert region.upper.item() == pytest.approx(mixture.icdf(level).item(), rel=1e-12)  # 3e-41 at 0.01
