"""Modes against brute force: dense grids that know nothing of the library's own search."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import (
    ExpTransform,
    Gamma,
    Independent,
    Laplace,
    LogNormal,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    Poisson,
    StudentT,
)

from mixtura import MixturaError, Mixture
from mixtura.families import (
    AsymmetricLaplace,
    Logistic,
    LowRankNormal,
    MultivariateStudentT,
    Product,
    ScaledBeta,
    TruncatedNormal,
    VonMises,
)

F64 = torch.float64
Array = NDArray[np.float64]


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def normals(weights: Tensor, loc: Tensor, scale: Tensor | float = 1.0) -> Mixture:
    return Mixture(weights.log(), Normal(loc, scale))


def found(mixture: Mixture, row: int | tuple[int, ...] = ()) -> Array:
    """The modes of one mixture, without the padding, in ascending order."""
    loc = mixture.modes().loc[row]
    return np.sort(loc[~loc.isnan()].numpy())


# Brute force in one dimension ----------------------------------------------------------------------------------


def random_scalar(seed: int) -> tuple[Array, Array, Array]:
    """Weights, means and scales of one of the mixtures: K from 1 to 12, crowded or far apart, scales alike or not."""
    rng = np.random.default_rng(seed)
    k = 1 + seed % 12
    weights = rng.dirichlet(np.full(k, rng.choice([0.5, 1.0, 5.0])))
    scale = np.exp(rng.choice([0.1, 0.7, 1.5]) * rng.normal(size=k))
    return weights, rng.choice([1.0, 3.0, 8.0]) * rng.normal(size=k), scale


def modes_on_a_grid(weights: Array, loc: Array, scale: Array) -> Array:
    """All maxima of a normal mixture: where its slope turns from up to down on a grid, which is then refined.

    They lie between the least and the largest mean. The grid has steps of 1/100 of each component's own scale within 8
    of it, and 20,000 steps over the whole.
    """

    def slope(y: Array) -> Array:
        z = (y[:, None] - loc) / scale
        joint = np.log(weights) - np.log(scale) - 0.5 * z**2
        share = np.exp(joint - joint.max(1, keepdims=True))
        return -(share * z / scale).sum(1)

    near = loc + scale * np.linspace(-8, 8, 1601)[:, None]
    margin = 1e-9 * scale.min()
    low, high = loc.min() - margin, loc.max() + margin
    grid = np.unique(np.concatenate([near.ravel(), np.linspace(low, high, 20_001)]).clip(low, high))
    steep = slope(grid)
    cell = np.flatnonzero((steep[:-1] > 0) & (steep[1:] <= 0))
    left, right = grid[cell], grid[cell + 1]
    for _ in range(60):
        middle = 0.5 * (left + right)
        is_up = slope(middle) > 0 if len(middle) else np.empty(0, bool)
        left, right = np.where(is_up, middle, left), np.where(is_up, right, middle)
    return 0.5 * (left + right)


def matches(got: Array, truth: Array, tolerance: float) -> int:
    """How many of the true modes are among those found, each once."""
    if not len(got) or not len(truth):
        return 0
    return int((np.abs(truth[:, None] - got).min(1) <= tolerance).sum())


def recall_and_precision(seeds: range) -> tuple[float, float]:
    """Over all modes of these mixtures, asked of Mixtura one K at a time."""
    n_right = n_true = n_found = 0
    for k in range(1, 13):
        parts = [random_scalar(seed) for seed in seeds if 1 + seed % 12 == k]
        weights, loc, scale = (torch.as_tensor(np.stack(column)) for column in zip(*parts, strict=True))
        modes = normals(weights, loc, scale).modes()
        for row, part in enumerate(parts):
            got = modes.loc[row][: modes.count[row]].numpy()
            truth = modes_on_a_grid(*part)
            n_right += matches(got, truth, 1e-5 * part[2].min())
            n_true, n_found = n_true + len(truth), n_found + len(got)
    return n_right / n_true, n_right / n_found


def test_modes_of_random_normal_mixtures_are_those_on_a_grid():
    assert recall_and_precision(range(96)) == (1.0, 1.0)


@pytest.mark.statistical
def test_modes_of_1000_random_normal_mixtures_are_those_on_a_grid():
    recall, precision = recall_and_precision(range(1000))
    assert recall >= 0.999
    assert precision >= 0.999


# Brute force in two dimensions ---------------------------------------------------------------------------------


def random_vector(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, means and covariances of K = 2 to 6 normals, up to 5 times longer than wide."""
    rng = np.random.default_rng(seed)
    k = 2 + seed % 5
    angle, length = rng.uniform(0, np.pi, k), np.exp(rng.uniform(-0.8, 0.8, (k, 2)))
    turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], -1).reshape(k, 2, 2)
    covariance = turn @ (length[:, :, None] ** 2 * np.eye(2)) @ turn.transpose(0, 2, 1)
    return tuple(map(torch.as_tensor, (rng.dirichlet(np.full(k, 2.0)), 1.5 * rng.normal(size=(k, 2)), covariance)))  # pyright: ignore


def plane_modes(mixture: Mixture, half_width: float, n: int = 241) -> Array:
    """Maxima on a square grid, each then followed on finer grids around it; those that are still maxima stay."""
    axis = torch.linspace(-half_width, half_width, n, dtype=F64)
    step = 2 * half_width / (n - 1)
    height = mixture.log_prob(torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1))
    around = torch.nn.functional.max_pool2d(height[None, None], 3, 1, 1)[0, 0]
    places = (height == around).nonzero()
    tops = torch.stack([axis[places[:, 0]], axis[places[:, 1]]], -1)
    window = torch.linspace(-2, 2, 17, dtype=F64)
    window = torch.stack(torch.meshgrid(window, window, indexing="ij"), -1).reshape(-1, 2)
    while step > 1e-7:
        for _ in range(400):  # climb until the best point is inside the window
            points = tops[:, None] + step * window
            best = mixture.log_prob(points).argmax(1)
            tops = points[torch.arange(len(tops)), best]
            if not bool((window[best].abs().amax(-1) == 2).any()):
                break
        step /= 4
    ring = torch.linspace(0, 2 * math.pi, 25, dtype=F64)
    ring = 1e-3 * torch.stack([ring.cos(), ring.sin()], -1)
    is_top = (mixture.log_prob(tops[:, None] + ring) < mixture.log_prob(tops)[:, None]).all(-1)
    return np.unique(tops[is_top].numpy().round(4), axis=0)


def plane_recall_and_precision(seeds: range) -> tuple[float, float]:
    n_right = n_true = n_found = 0
    for seed in seeds:
        weights, loc, covariance = random_vector(seed)
        mixture = Mixture(weights.log(), MultivariateNormal(loc, covariance))
        truth, modes = plane_modes(mixture, 8.0), mixture.modes()
        got = modes.loc.numpy()
        gap = np.abs(truth[:, None] - got).max(-1).min(1)
        n_right, n_true, n_found = n_right + int((gap < 1e-3).sum()), n_true + len(truth), n_found + len(got)
        assert modes.mass.sum().item() == pytest.approx(1)
    return n_right / n_true, n_right / n_found


def test_modes_in_the_plane_are_those_on_a_grid():
    recall, precision = plane_recall_and_precision(range(25))
    assert recall >= 0.98
    assert precision >= 0.98


@pytest.mark.statistical
def test_modes_of_200_mixtures_in_the_plane_are_those_on_a_grid():
    recall, precision = plane_recall_and_precision(
        range(200)
    )  # 1.0 and .997: of two maxima on a ridge, the grid has one
    assert recall >= 0.99
    assert precision >= 0.99


# Facts that are known ------------------------------------------------------------------------------------------


def test_two_crossing_normals_have_three_modes():
    covariance = torch.diag_embed(torch.stack([tensor(1.0, 0.05), tensor(0.05, 1.0)]))
    loc = torch.stack([tensor(1.0, 0.0), tensor(0.0, 1.0)])
    modes = Mixture(torch.zeros(2, dtype=F64), MultivariateNormal(loc, covariance)).modes()
    assert modes.count == 3
    between = modes.loc[modes.height.argmax()]
    torch.testing.assert_close(between, tensor(1.0, 1.0) * 0.05 / 1.05)  # the highest, where no component's mean is


def test_five_components_make_one_skewed_mode():
    # Marron and Wand's skewed density is made of more, and has one mode, too.
    mixture = normals(
        tensor(0.4, 0.25, 0.15, 0.12, 0.08), tensor(0.0, 0.4, 0.9, 1.5, 2.2), tensor(1, 0.95, 1, 1.1, 1.3)
    )
    modes = mixture.modes()
    assert modes.count == 1
    assert mixture.skewness > 0.1
    assert modes.loc[0] < mixture.mean
    assert modes.mass[0].item() == pytest.approx(1)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(("distance", "count"), [(1.99, 1), (1.9999, 1), (2.01, 2), (2.1, 2)])
def test_two_equal_normals_have_two_modes_from_two_scales_on(distance, count, scale):
    half = 0.5 * distance * scale
    modes = normals(tensor(0.5, 0.5), tensor(-half, half), tensor(scale, scale)).modes()
    assert modes.count == count
    assert modes.loc.sum().abs().item() < 1e-9 * scale
    torch.testing.assert_close(modes.mass, torch.full((count,), 1 / count, dtype=F64), atol=1e-9, rtol=0)


def test_three_modes_with_their_heights_and_masses():
    mixture = normals(tensor(0.2, 0.5, 0.3), tensor(-20.0, 0.0, 20.0), tensor(1.0, 2.0, 0.5))
    modes = mixture.modes()
    torch.testing.assert_close(modes.loc, tensor(0.0, 20.0, -20.0), atol=1e-9, rtol=0)
    torch.testing.assert_close(modes.mass, tensor(0.5, 0.3, 0.2), atol=1e-9, rtol=0)
    torch.testing.assert_close(modes.height, mixture.log_prob(modes.loc).exp())


# Other families ------------------------------------------------------------------------------------------------


def grid_modes(mixture: Mixture, low: float, high: float, n: int = 20_001) -> Array:
    """Maxima of the density inside of an interval, each followed on finer grids; asks nothing but `log_prob`."""
    grid = torch.linspace(low, high, n, dtype=F64)
    height = mixture.log_prob(grid)
    tops = grid[1:-1][(height[1:-1] > height[:-2]) & (height[1:-1] >= height[2:])]
    step = (high - low) / (n - 1)
    for _ in range(6):
        window = tops[:, None] + step * torch.linspace(-1, 1, 41, dtype=F64)
        tops = window.gather(1, mixture.log_prob(window).argmax(1, keepdim=True))[:, 0]
        step /= 15
    return tops.numpy()


CIRCLE = torch.full((2,), math.pi, dtype=F64)
WHOLE = [
    Mixture(tensor(0.0, 0.0), StudentT(tensor(3.0, 2.5), tensor(0.0, 10.0), tensor(1.0, 2.0))),
    Mixture(tensor(0.0, 0.0), StudentT(tensor(4.0, 30.0), tensor(0.0, 1.5), tensor(1.0, 0.1))),
    Mixture(tensor(0.0, -1.0), Logistic(tensor(0.0, 6.0), tensor(1.0, 0.5))),
    Mixture(tensor(0.0, -2.0, -3.0), Laplace(tensor(0.0, 0.5, 7.0), tensor(1.0, 0.1, 1.0))),
    Mixture(tensor(0.0, 0.0), AsymmetricLaplace(tensor(0.0, 5.0), tensor(1.0, 1.0), tensor(2.0, 0.3))),
    Mixture(tensor(0.0, 0.0), LogNormal(tensor(0.0, 3.0), tensor(0.5, 0.3))),
    Mixture(tensor(0.0, 0.0), Gamma(tensor(3.0, 90.0), tensor(1.0, 4.0))),
    Mixture(tensor(0.0, 0.0), ScaledBeta(tensor(3.0, 9.0), tensor(20.0, 2.0), -1.0, 20.0)),
    Mixture(tensor(0.0, 0.0), VonMises(tensor(0.2, 2.5), tensor(3.0, 9.0), -CIRCLE, CIRCLE)),
    Mixture(tensor(0.0, 0.0), TruncatedNormal(tensor(1.0, 8.0), tensor(1.0, 2.0), tensor(0.0, 0.0), tensor(9.0, 9.0))),
    normals(tensor(0.6, 0.4), tensor(-1.0, 1.5), tensor(0.5, 0.3)).transform(ExpTransform()),
]


@pytest.mark.parametrize("mixture", WHOLE, ids=lambda mixture: mixture.family.name)
def test_modes_of_every_family_are_those_on_a_grid(mixture):
    low, high = mixture.icdf([1e-7, 1 - 1e-7]).tolist()
    truth = grid_modes(mixture, low, high)
    got = found(mixture)
    assert len(got) == len(truth) >= 1
    np.testing.assert_allclose(got, truth, atol=1e-5 * (high - low))
    modes = mixture.modes()
    assert modes.mass.nansum().item() == pytest.approx(1)
    assert not (modes.mass.diff() > 1e-12).any()


def test_a_cusp_is_found_to_the_last_digits():
    np.testing.assert_allclose(found(WHOLE[3]), [0.0, 0.5, 7.0], atol=1e-12)


def test_a_mode_at_the_end_of_the_support():
    infinite = Mixture(tensor(0.0, 0.0), Gamma(tensor(0.5, 30.0), tensor(1.0, 1.0))).modes()
    order = infinite.loc.argsort()
    torch.testing.assert_close(infinite.loc[order], tensor(0.0, 29.0), atol=1e-6, rtol=0)
    assert infinite.height[order[0]] == torch.inf
    assert infinite.height[order[1]].isfinite()
    exponential = Mixture(tensor(0.0), Gamma(tensor(1.0), tensor(2.0))).modes()
    assert (exponential.loc.item(), exponential.height.item(), exponential.mass.item()) == (0.0, 2.0, 1.0)
    truncated = Mixture(tensor(0.0), TruncatedNormal(tensor(-1.0), tensor(1.0), tensor(0.0), tensor(torch.inf)))
    assert truncated.modes().loc.tolist() == [0.0]
    assert truncated.modes().height.item() == pytest.approx(truncated.log_prob(1e-9).exp().item())


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-2.0, 3.0), (1e6, 1e6 + 1)])
def test_a_u_shaped_beta_has_two_infinite_modes(low, high):
    mixture = Mixture(tensor(0.0), ScaledBeta(tensor(0.5), tensor(0.7), low, high))
    modes = mixture.modes()
    assert modes.loc.tolist() == [low, high]
    assert (modes.height == torch.inf).all()
    valley = low + (high - low) * 0.5 / 0.8  # where (a - 1)/x = (b - 1)/(1 - x)
    assert modes.mass[0].item() == pytest.approx(mixture.cdf(valley).item(), abs=1e-6)


def test_a_mode_at_the_cut_of_the_circle_is_one():
    at_cut = Mixture(tensor(0.0), VonMises(CIRCLE[:1], tensor(3.0), -CIRCLE[:1], CIRCLE[:1])).modes()
    assert (at_cut.count.item(), abs(at_cut.loc[0].item())) == (1, math.pi)
    assert at_cut.mass[0].item() == pytest.approx(1)
    # Another on the other side of the circle, and one whose flank crosses the cut.
    across = Mixture(tensor(0.0, -1.0), VonMises(tensor(3.0, 0.0), tensor(4.0, 4.0), -CIRCLE, CIRCLE)).modes()
    np.testing.assert_allclose(across.loc[:2].numpy(), [3.0, 0.0], atol=0.01)
    assert across.count == 2
    assert across.mass[0].item() == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-2)
    assert across.mass[:2].sum().item() == pytest.approx(1)


def test_modes_of_counts_are_whole_numbers_and_a_plateau_is_one():
    poisson = Mixture(tensor(0.0), Poisson(tensor(4.0))).modes()  # 3 and 4 are equally likely
    assert poisson.loc.tolist() == [3.0]
    assert poisson.mass.sum().item() == pytest.approx(1)
    two = Mixture(tensor(0.0, 0.0), Poisson(tensor(2.5, 30.5)))
    assert found(two).tolist() == [2.0, 30.0]
    mass = two.log_prob(torch.arange(100, dtype=F64)).exp()
    valley = int(mass[3:30].argmin()) + 3
    left = mass[: valley + 1].sum().item()
    assert sorted(two.modes().mass.tolist()) == pytest.approx(sorted([left, 1 - left]), abs=1e-9)
    binomial = Mixture(tensor(0.0), NegativeBinomial(tensor(0.5), logits=tensor(0.3)))
    assert found(binomial).tolist() == [0.0]


def test_atoms_are_modes_of_infinite_height():
    mixture = Mixture(tensor(0.5, 0.4, 0.1, 0.0).log(), Normal(tensor(0.0), tensor(1.0)), tensor(0.0, 3.0, 7.0))
    modes = mixture.modes()
    assert modes.count == 3  # the atom without weight is none
    assert modes.loc[:3].tolist() == pytest.approx([0.0, 0.0, 3.0], abs=1e-12)
    torch.testing.assert_close(modes.mass[:3], tensor(0.5, 0.4, 0.1))
    assert modes.height[1:3].tolist() == [torch.inf, torch.inf]
    assert modes.height[0].item() == pytest.approx(0.5 / math.sqrt(2 * math.pi))


def test_equal_atoms_are_one_mode():
    logits = torch.tensor([[0.4, 0.1, 0.2, 0.3], [0.4, 0.1, 0.2, 0.3]], dtype=F64).log()
    atoms = torch.tensor([[0.0, 0.0, 5.0], [1.0, 0.0, 1.0]], dtype=F64)
    modes = Mixture(logits, Normal(torch.zeros(2, 1, dtype=F64), 1.0), atoms).modes()
    assert modes.count.tolist() == [3, 3]
    assert modes.loc[0, 1:3].tolist() == [0.0, 5.0] or modes.loc[0, 1:3].tolist() == [5.0, 0.0]
    torch.testing.assert_close(modes.mass[:, :3], tensor(0.4, 0.3, 0.3, 0.4, 0.4, 0.2).reshape(2, 3))


def test_a_component_without_weight_may_be_anything():
    logits, infinite = tensor(0.0, -torch.inf), torch.inf
    for components in (Normal(tensor(1.0, infinite), 1.0), StudentT(tensor(5.0, 0.5), tensor(1.0, 3.0), 1.0)):
        assert found(Mixture(logits, components)).tolist() == pytest.approx([1.0])
    loc = torch.stack([tensor(1.0, 2.0), tensor(infinite, 0.0)])
    student = MultivariateStudentT(tensor(5.0, 0.5), loc, torch.eye(2, dtype=F64).expand(2, 2, 2))
    modes = Mixture(logits, student).modes()
    torch.testing.assert_close(modes.loc, loc[:1])
    torch.testing.assert_close(modes.mass, tensor(1.0))


VECTORS = [
    MultivariateNormal(tensor(0.0, 6.0)[:, None].expand(2, 3), torch.eye(3, dtype=F64)),
    Independent(Normal(tensor(0.0, 6.0)[:, None].expand(2, 3), 1.0), 1),
    LowRankNormal(
        tensor(0.0, 6.0)[:, None].expand(2, 3), torch.full((2, 3, 1), 0.3, dtype=F64), torch.ones(2, 3, dtype=F64)
    ),
    MultivariateStudentT(
        tensor(5.0, 9.0), tensor(0.0, 6.0)[:, None].expand(2, 3), torch.eye(3, dtype=F64).expand(2, 3, 3)
    ),
]


@pytest.mark.parametrize("components", VECTORS, ids=lambda components: type(components).__name__)
def test_two_far_modes_of_vectors(components):
    mixture = Mixture(tensor(0.7, 0.3).log(), components)
    modes = mixture.modes()
    assert modes.count == 2
    torch.testing.assert_close(modes.loc, components.mean, atol=0.02, rtol=0)
    torch.testing.assert_close(modes.mass, tensor(0.7, 0.3))
    torch.testing.assert_close(modes.height, mixture.log_prob(modes.loc).exp())
    for direction in torch.eye(3, dtype=F64):
        for step in (-1e-3, 1e-3):
            assert (mixture.log_prob(modes.loc + step * direction) < mixture.log_prob(modes.loc)).all()


def test_modes_of_a_number_and_an_angle():
    laws = Product(
        [Gamma(tensor(3.0, 30.0), tensor(1.0, 1.0)), VonMises(tensor(0.0, 2.0), tensor(3.0, 3.0), -CIRCLE, CIRCLE)]
    )
    modes = Mixture(tensor(0.7, 0.3).log(), laws).modes()
    torch.testing.assert_close(modes.loc, torch.stack([tensor(2.0, 0.0), tensor(29.0, 2.0)]), atol=1e-6, rtol=0)


def test_vectors_in_single_precision():
    loc, covariance = torch.tensor([[-1.03, 0.2], [1.17, 0.4]]), torch.tensor([[0.25, 0.1], [0.1, 0.37]])
    modes = Mixture(torch.zeros(2), MultivariateNormal(loc, covariance)).modes()
    assert (modes.count.item(), modes.loc.dtype, modes.height.dtype) == (2, torch.float32, torch.float32)
    torch.testing.assert_close(modes.loc, loc, atol=1e-3, rtol=0)
    for seed in range(10):
        weights, loc, covariance = random_vector(seed)
        mixture = Mixture(weights.log(), MultivariateNormal(loc, covariance))
        assert mixture.to(torch.float32).modes().count == mixture.modes().count


@pytest.mark.parametrize("shift", [1e4, 1e8])
def test_vectors_far_from_0(shift):
    for seed in range(10):
        weights, loc, covariance = random_vector(seed)
        mixture = Mixture(weights.log(), MultivariateNormal(loc, covariance))
        modes, moved = mixture.modes(), mixture.affine(shift, 1.0).modes()
        assert moved.count == modes.count
        torch.testing.assert_close(moved.loc - shift, modes.loc, atol=1e-4, rtol=0)
    laws = [Laplace(tensor(0.0, 5.0) + shift, 1.0), Normal(tensor(0.0, 5.0) + shift, 1.0)]
    assert Mixture(tensor(0.0, 0.0), Product(laws)).modes().count == 2


BESIDES = [
    (Laplace(tensor(2.0), tensor(1.0)), 2.0, 0.5),
    (AsymmetricLaplace(tensor(1.0), tensor(1.0), tensor(3.0)), 1.0, 0.3),
    (TruncatedNormal(tensor(-1.0), tensor(1.0), tensor(0.0), tensor(torch.inf)), 0.0, 1.525135276160981),
    (TruncatedNormal(tensor(9.0), tensor(1.0), tensor(0.0), tensor(5.0)), 5.0, None),
    (Gamma(tensor(1.0), tensor(2.0)), 0.0, 2.0),
    (Gamma(tensor(0.8), tensor(1.0)), 0.0, torch.inf),
    (ScaledBeta(tensor(3.0), tensor(1.0), 0.0, 1.0), 1.0, 3.0),
    (LogNormal(tensor(0.0), tensor(5.0)), math.exp(-25), math.exp(12.5) / (5 * math.sqrt(2 * math.pi))),
    (StudentT(tensor(1.0), tensor(2.0), tensor(1.0)), 2.0, 1 / math.pi),
    (VonMises(tensor(1.0), tensor(0.0), -CIRCLE[:1], CIRCLE[:1]), None, 0.5 / math.pi),
]


@pytest.mark.parametrize(("law", "loc", "height"), BESIDES, ids=lambda part: type(part).__name__)
def test_a_kink_or_an_end_of_the_support_in_one_coordinate(law, loc, height):
    for laws, normal in (([law, Normal(tensor(7.0), 2.0)], 1), ([Normal(tensor(7.0), 2.0), law], 0)):
        modes = Mixture(tensor(0.0), Product(laws)).modes()
        assert (modes.count.item(), modes.mass.item()) == (1, 1.0)
        assert modes.loc[0, normal].item() == pytest.approx(7.0)
        if loc is not None:
            assert modes.loc[0, 1 - normal].item() == pytest.approx(loc, rel=1e-9, abs=1e-300)
        if height is not None:
            assert modes.height.item() == pytest.approx(height * 0.5 / math.sqrt(2 * math.pi))


def test_no_products_have_no_modes():
    laws = Product([Gamma(torch.ones(0, 2), 1.0), VonMises(*torch.ones(4, 0, 2, dtype=F64))])
    assert Mixture(torch.zeros(0, 2), laws).modes().loc.shape == (0, 0, 2)


def test_two_crossing_laplaces_have_three_modes():
    laws = [Laplace(tensor(0.0, 1.0), tensor(0.1, 1.0)), Laplace(tensor(1.0, 0.0), tensor(1.0, 0.1))]
    mixture = Mixture(tensor(0.0, 0.0), Product(laws))
    modes = mixture.modes()
    places = {tuple(place) for place in modes.loc.tolist()}
    assert places == {(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)}
    torch.testing.assert_close(modes.height, mixture.log_prob(modes.loc).exp())


def test_an_ascent_leaves_a_saddle():
    # At 0 the density is highest along each coordinate, and rises along the diagonal.
    laws = Product([Normal(tensor(-0.8, 0.8, 0.0), 1.0), Normal(tensor(-0.8, 0.8, 0.0), 1.0)])
    modes = Mixture(tensor(0.0, 0.0, -9.0), laws).modes()
    assert modes.count == 2
    assert modes.mass.sum().item() == pytest.approx(1)


def test_modes_in_the_plane_of_products_are_those_on_a_grid():
    ring = torch.linspace(0, 2 * math.pi, 25, dtype=F64)
    ring = 1e-4 * torch.stack([ring.cos(), ring.sin()], -1)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        k = 2 + seed % 4
        loc, scale = 2 * rng.normal(size=(2, k)), np.exp(0.5 * rng.normal(size=(2, k)))
        weights, loc, scale = map(torch.as_tensor, (rng.dirichlet(np.full(k, 2.0)), loc, scale))
        mixture = Mixture(weights.log(), Product([Normal(loc[0], scale[0]), Laplace(loc[1], scale[1])]))
        truth, modes = plane_modes(mixture, 8.0), mixture.modes()
        assert np.abs(truth[:, None] - modes.loc.numpy()).max(-1).min(1).max() < 1e-3
        around = mixture.log_prob(modes.loc[:, None] + ring)  # the grid misses flat kinks
        assert (around < mixture.log_prob(modes.loc)[:, None]).all()
        assert modes.mass.sum().item() == pytest.approx(1)


def test_a_component_with_a_mode_in_every_corner():
    law = ScaledBeta(tensor(0.5), tensor(0.7), 0.0, 1.0)
    modes = Mixture(tensor(0.0), Product([law, law])).modes()
    assert sorted(modes.loc.tolist()) == [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    assert (modes.height == torch.inf).all()


@pytest.mark.parametrize("counts", [Poisson(tensor(3.0)), NegativeBinomial(tensor(2.0), logits=tensor(0.3))])
def test_vectors_with_counts_have_no_modes(counts):
    with pytest.raises(MixturaError, match="E-not-continuous"):
        Mixture(tensor(0.0), Product([Normal(tensor(0.0), 1.0), counts])).modes()


def test_a_mode_at_the_cut_of_a_circle_and_beside_it_is_one():
    angles = VonMises(tensor(3.1, -3.1), tensor(9.0, 9.0), -CIRCLE, CIRCLE)
    modes = Mixture(tensor(0.0, 0.0), Product([angles, Normal(tensor(0.0, 0.0), 1.0)])).modes()
    assert modes.count == 1
    assert modes.loc.abs().tolist()[0] == pytest.approx([math.pi, 0.0])
    assert modes.mass.item() == pytest.approx(1)


def test_a_covariance_near_singular():
    scale_tril, zero = tensor(1.0, 0.0, 1.0, 1e-9).reshape(2, 2), torch.zeros(2, 2, dtype=F64)
    one = Mixture(tensor(0.0), MultivariateNormal(zero[:1], scale_tril=scale_tril)).modes()
    same = Mixture(tensor(0.0, 0.0), MultivariateNormal(zero, scale_tril=scale_tril)).modes()
    for modes in (one, same):
        assert (modes.count.item(), modes.mass[0].item(), modes.loc.tolist()) == (1, 1.0, [[0.0, 0.0]])
    for other in ((5.0, 5.0), (1.0, 3.0)):  # along the ridge, and beside it
        loc = torch.stack([zero[0], tensor(*other)])
        two = Mixture(tensor(0.0, 0.0), MultivariateNormal(loc, scale_tril=scale_tril)).modes()
        torch.testing.assert_close(two.loc[two.loc[:, 0].argsort()], loc, atol=1e-4, rtol=0)


@pytest.mark.parametrize("df", [0.5, 1.0, 1.5, 2.0])
def test_tails_without_variance(df):
    loc = torch.stack([tensor(0.0, 0.0), tensor(30.0, 5.0)])
    both = MultivariateStudentT(tensor(df, df), loc, torch.eye(2, dtype=F64).expand(2, 2, 2))
    each = Product([StudentT(tensor(df, df), loc[:, d], 1.0) for d in range(2)])
    for components in (both, each):
        modes = Mixture(tensor(0.6, 0.4).log(), components).modes()
        torch.testing.assert_close(modes.loc, loc, atol=1e-2, rtol=0)
        torch.testing.assert_close(modes.mass, tensor(0.6, 0.4))


# Batches -------------------------------------------------------------------------------------------------------


def make_vectors(*batch: int, k: int = 3) -> Mixture:
    g = torch.Generator().manual_seed(0)
    loc = 4 * torch.randn(*batch, k, 2, dtype=F64, generator=g)
    components = MultivariateNormal(loc, scale_tril=torch.eye(2, dtype=F64), validate_args=False)
    return Mixture(torch.randn(*batch, k, dtype=F64, generator=g), components)


def make_scalars(*batch: int, k: int = 3) -> Mixture:
    g = torch.Generator().manual_seed(0)
    loc, raw, logits = (torch.randn(*batch, k, dtype=F64, generator=g) for _ in range(3))
    return Mixture(logits, Normal(4 * loc, raw.exp()))


@pytest.mark.parametrize("make", [make_scalars, make_vectors])
@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,), (2, 0)])
@pytest.mark.parametrize("k", [1, 3])
def test_any_batch_is_row_by_row(make, batch, k):
    mixture = make(*batch, k=k)
    modes = mixture.modes()
    width = modes.mass.shape[-1]
    assert modes.loc.shape == (*batch, width, *mixture.event_shape)
    assert modes.height.shape == (*batch, width)
    assert modes.count.shape == batch
    for index in np.ndindex(*batch):
        alone, n = mixture[index].modes() if index else modes, int(modes.count[index])
        assert alone.count == n
        for part in ("loc", "height", "mass"):
            row = getattr(modes, part)[index]
            torch.testing.assert_close(row[:n], getattr(alone, part)[:n], rtol=1e-9, atol=1e-9)
            assert row[n:].isnan().all()
        assert modes.mass[index][:n].sum().item() == pytest.approx(1)
        assert (modes.mass[index][:n].diff() <= 0).all()


@pytest.mark.parametrize("make", [make_scalars, make_vectors])
def test_200_components_and_weights_of_0(make):
    many = make(k=200)
    modes = many.modes()
    assert 1 <= modes.count <= 200
    assert modes.mass.nansum().item() == pytest.approx(1)
    three = make(k=3)
    with_nothing = three.logits.clone()
    with_nothing[1] = -torch.inf
    kept = torch.tensor([0, 2])
    two = Mixture(three.logits[kept], three.family.map(three.components, lambda part: part[kept]))
    modes = Mixture(with_nothing, three.components).modes()
    torch.testing.assert_close(modes.loc[: modes.count], two.modes().loc, atol=1e-7, rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("make", [make_scalars, make_vectors])
def test_modes_move_with_the_target(make, scale):
    mixture = make(20)
    modes, moved = mixture.modes(), mixture.affine(3 * scale, -scale).modes()
    assert torch.equal(modes.count, moved.count)
    expected = 3 * scale - scale * modes.loc
    torch.testing.assert_close(moved.loc, expected, rtol=1e-6, atol=1e-6 * scale, equal_nan=True)
    torch.testing.assert_close(moved.mass, modes.mass, rtol=1e-6, atol=1e-8, equal_nan=True)
    dims = mixture.event_shape.numel()
    torch.testing.assert_close(
        moved.height * scale**dims,
        modes.height,
        rtol=1e-6,
        atol=0,
        equal_nan=True,
    )


def test_float32_and_extreme_scales_together():
    modes = normals(torch.tensor([0.5, 0.5]), torch.tensor([-3.0, 3.0])).modes()
    assert modes.loc.dtype == torch.float32
    assert sorted(modes.loc.tolist()) == pytest.approx([-3, 3], abs=1e-3)
    needle = normals(tensor(0.5, 0.5), tensor(0.0, 0.0), tensor(1e-6, 1e6)).modes()
    assert needle.count == 1
    far = normals(tensor(0.5, 0.5), tensor(-1e6, 1e6), tensor(1e-3, 1e-3)).modes()
    torch.testing.assert_close(far.loc.sort().values, tensor(-1e6, 1e6), rtol=1e-12, atol=0)


def test_modes_carry_no_gradient():
    logits = torch.zeros(2, dtype=F64, requires_grad=True)
    assert not Mixture(logits, Normal(tensor(0.0, 5.0), 1.0)).modes().loc.requires_grad
