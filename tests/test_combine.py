"""Pools, fewer components, the uncertainty of an ensemble, warped targets and entropies."""

import math

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import (
    AffineTransform,
    ExpTransform,
    Gamma,
    Independent,
    LogNormal,
    MultivariateNormal,
    Normal,
    Poisson,
    PowerTransform,
    SigmoidTransform,
)

from mixtura import MixturaError, Mixture, decompose, pool
from mixtura.families import BoxCoxTransform, LowRankNormal, ScaledBeta, VonMises

F64 = torch.float64


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def make(*batch: int, k: int = 4, seed: int = 0) -> Mixture:
    g = torch.Generator().manual_seed(seed)
    loc, raw, logits = (torch.randn(*batch, k, dtype=F64, generator=g) for _ in range(3))
    return Mixture(logits, Normal(2 * loc, (0.4 * raw).exp()))


def make_vector(kind: str, *batch: int, k: int = 5, d: int = 3) -> Mixture:
    g = torch.Generator().manual_seed(1)
    loc, scale = (
        2 * torch.randn(*batch, k, d, dtype=F64, generator=g),
        torch.rand(*batch, k, d, dtype=F64, generator=g) + 0.3,
    )
    factor = torch.randn(*batch, k, d, d, dtype=F64, generator=g)
    logits = torch.randn(*batch, k, dtype=F64, generator=g)
    components = {
        "full": lambda: MultivariateNormal(loc, scale_tril=0.4 * factor.tril(-1) + torch.diag_embed(scale)),
        "diag": lambda: Independent(Normal(loc, scale), 1),
        "spherical": lambda: Independent(Normal(loc, scale[..., :1].expand_as(loc)), 1),
        "low_rank": lambda: LowRankNormal(loc, 0.4 * factor[..., :1], scale),
    }
    return Mixture(logits, components[kind]())


KINDS = ["full", "diag", "spherical", "low_rank"]


# Pool and prune ------------------------------------------------------------------------------------------------


def test_a_pool_of_equal_mixtures_is_the_mixture():
    mixture, y = make(3), torch.linspace(-5, 5, 11, dtype=F64)[:, None]
    whole = pool([mixture] * 3, [0.2, 0.5, 0.3])
    torch.testing.assert_close(whole.log_prob(y), mixture.log_prob(y))
    torch.testing.assert_close(whole.icdf(tensor(0.1)), mixture.icdf(tensor(0.1)))
    assert whole.modes().count.tolist() == mixture.modes().count.tolist()


def test_prune_leaves_what_matters():
    mixture = Mixture(tensor(0.6, 0.399, 0.0009, 0.0001).log(), Normal(tensor(0.0, 5.0, 9.0, 20.0), 1.0))
    pruned = mixture.prune()
    assert pruned.components.loc.tolist() == [0.0, 5.0]
    torch.testing.assert_close(pruned.weights, tensor(0.6, 0.399) / 0.999)
    assert mixture.prune(0.0).n_components == 4
    assert mixture.prune(0.99).components.loc.tolist() == [0.0]
    rows = Mixture(
        torch.stack([tensor(0.5, 0.5, 0.0), tensor(0.0, 0.5, 0.5)]).log(), Normal(tensor(0.0, 1.0, 2.0), 1.0)
    )
    assert rows.prune(0.1).n_components == 3
    assert rows.prune(0.1).weights[0].tolist() == pytest.approx([0.5, 0.5, 0.0])


# Reduce --------------------------------------------------------------------------------------------------------


def runnalls(weights: np.ndarray, loc: np.ndarray, covariance: np.ndarray, n: int) -> tuple[list, list, list]:
    """The merges of Runnalls (2007), one pair after the other."""
    parts = [(w, m, c) for w, m, c in zip(weights, loc, covariance, strict=True)]

    def merge(a, b):
        w = a[0] + b[0]
        mean = (a[0] * a[1] + b[0] * b[1]) / w
        spread = [p[0] / w * (p[2] + np.outer(p[1] - mean, p[1] - mean)) for p in (a, b)]
        return w, mean, sum(spread)

    def cost(a, b):
        w, _, c = merge(a, b)
        return 0.5 * (w * np.linalg.slogdet(c)[1] - sum(p[0] * np.linalg.slogdet(p[2])[1] for p in (a, b)))

    while len(parts) > n:
        pairs = [(cost(parts[i], parts[j]), i, j) for i in range(len(parts)) for j in range(i + 1, len(parts))]
        _, i, j = min(pairs)
        parts[i] = merge(parts[i], parts[j])
        del parts[j]
    return tuple(map(list, zip(*parts, strict=True)))  # pyright: ignore


@pytest.mark.parametrize("n", [1, 2, 4])
def test_reduce_is_runnalls_merging(n):
    mixture = make_vector("full", 3, k=6)
    reduced = mixture.reduce(n)
    assert reduced.n_components == n
    for row in range(3):
        parts = mixture.weights[row], mixture.components.mean[row], mixture.components.covariance_matrix[row]
        weights, loc, covariance = runnalls(*(part.numpy() for part in parts), n)
        order, other = reduced.weights[row].argsort(), np.argsort(weights)
        np.testing.assert_allclose(reduced.weights[row][order], np.array(weights)[other], rtol=1e-9)
        np.testing.assert_allclose(reduced.components.mean[row][order], np.array(loc)[other], rtol=1e-9, atol=1e-9)
        got = reduced.components.covariance_matrix[row][order]
        np.testing.assert_allclose(got, np.array(covariance)[other], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 3])
def test_reduce_keeps_mean_and_covariance(kind, n):
    mixture = make_vector(kind, 2, 2)
    reduced = mixture.reduce(n)
    assert reduced.batch_shape == (2, 2)
    torch.testing.assert_close(reduced.mean, mixture.mean)
    if kind in ("full", "low_rank"):
        torch.testing.assert_close(reduced.covariance, mixture.covariance)
    else:  # of a spherical one a diagonal one, like any
        torch.testing.assert_close(reduced.variance, mixture.variance)


def test_reduce_of_scalars_is_near():
    mixture = Mixture(
        tensor(0.3, 0.3, 0.2, 0.2).log(), Normal(tensor(0.0, 0.05, 8.0, 8.02), tensor(1.0, 1.05, 0.5, 0.5))
    )
    reduced = mixture.reduce(2)
    torch.testing.assert_close(reduced.mean, mixture.mean)
    torch.testing.assert_close(reduced.variance, mixture.variance)
    y = torch.linspace(-6, 12, 4001, dtype=F64)
    p = mixture.log_prob(y)
    assert 0 <= torch.trapezoid(p.exp() * (p - reduced.log_prob(y)), y) < 1e-4
    assert mixture.reduce(4) is mixture
    with_atoms = Mixture(tensor(0.0, 0.0, 0.0), Normal(tensor(0.0, 0.1), 1.0), tensor(5.0)).reduce(1)
    assert (with_atoms.n_components, with_atoms.n_atoms) == (1, 1)
    assert with_atoms.weights.tolist() == pytest.approx([2 / 3, 1 / 3])


def test_reduce_spares_components_without_weight():
    mixture = Mixture(tensor(0.5, 0.0, 0.5).log(), Normal(tensor(0.0, 100.0, 5.0), 1.0))
    assert sorted(mixture.reduce(2).components.loc.tolist()) == [0.0, 5.0]


# Uncertainty of an ensemble ------------------------------------------------------------------------------------


def test_total_is_aleatoric_plus_epistemic():
    for members in ([make(3, seed=i) for i in range(4)], [make_vector("full", 2, k=i) for i in (1, 2, 5)]):
        weights = torch.arange(1.0, len(members) + 1)
        parts = decompose(members, weights)
        torch.testing.assert_close(parts.total, parts.aleatoric + parts.epistemic)
        torch.testing.assert_close(parts.total, pool(members, weights).variance)
        assert (parts.epistemic >= 0).all()


def test_mutual_information_is_0_of_equal_and_log_m_of_far_members():
    equal = decompose([make(2)] * 3)
    assert equal.mutual_information.value.abs().max() < 1e-10
    assert equal.epistemic.abs().max() < 1e-14
    far = decompose([make(2).affine(1000.0 * i, 1.0) for i in range(3)])
    value, error = far.mutual_information
    assert ((value - math.log(3)).abs() <= error + 1e-9).all()
    assert (error < 1e-4).all()
    vectors = decompose([make_vector("full").affine(1000.0 * i, 1.0) for i in range(2)])
    value, error = vectors.mutual_information
    assert value.item() == pytest.approx(math.log(2), abs=5 * error.item())


def test_angles_have_no_such_variances():
    ends = torch.full((1,), math.pi, dtype=F64)
    angle = Mixture(tensor(0.0), VonMises(tensor(0.0), tensor(1.0), -ends, ends))
    with pytest.raises(MixturaError, match="E-covariance-angle"):
        decompose([angle, angle])


# Entropy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_entropy_of_one_normal_and_of_far_ones(scale):
    own = 0.5 * math.log(2 * math.pi * math.e * scale**2)
    single = Mixture(tensor(0.0), Normal(tensor(3.0), tensor(scale))).entropy()
    assert single.value.item() == pytest.approx(own, abs=1e-10)
    far = Mixture(torch.zeros(4, dtype=F64), Normal(100 * scale * torch.arange(4, dtype=F64), scale)).entropy()
    assert far.value.item() == pytest.approx(own + math.log(4), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_stated_error_of_the_entropy_is_honest(seed):
    mixture = make(k=3, seed=seed)
    weights, loc, scale = (
        part.tolist() for part in (mixture.weights, mixture.components.loc, mixture.components.scale)
    )

    def surprise(y):
        p = sum(w * mpmath.npdf(y, m, s) for w, m, s in zip(weights, loc, scale, strict=True))
        return -p * mpmath.log(p)

    ends = [min(loc) - 15 * max(scale), *sorted(loc), max(loc) + 15 * max(scale)]
    truth = float(mpmath.quad(surprise, ends))
    value, error = mixture.entropy()
    assert abs(value.item() - truth) <= error.item() + 1e-10
    assert error < 1e-3


def test_entropy_of_other_laws():
    gamma = Mixture(tensor(0.0), Gamma(tensor(2.5), tensor(3.0)))
    assert gamma.entropy().value.item() == pytest.approx(gamma.components.entropy().item(), abs=1e-7)
    beta = Mixture(tensor(0.0), ScaledBeta(tensor(2.0), tensor(3.0), 0.0, 10.0))
    truth = torch.distributions.Beta(tensor(2.0), tensor(3.0)).entropy() + math.log(10)
    assert beta.entropy().value.item() == pytest.approx(truth.item(), abs=1e-6)
    k = torch.arange(100, dtype=F64)
    poisson = Mixture(tensor(0.0, 0.0), Poisson(tensor(3.0, 9.0)))
    assert poisson.entropy().value.item() == pytest.approx(
        -(poisson.log_prob(k).exp() * poisson.log_prob(k)).sum().item(), abs=1e-9
    )


def test_entropy_with_atoms_is_that_of_the_choice_and_of_what_is_chosen():
    mixture = Mixture(tensor(0.5, 0.25, 0.125, 0.125).log(), Normal(tensor(0.0), 1.0), tensor(1.0, 2.0, 2.0))
    own = 0.5 * math.log(2 * math.pi * math.e)
    expected = 0.5 * own - 0.5 * math.log(0.5) - 2 * 0.25 * math.log(0.25)
    assert mixture.entropy().value.item() == pytest.approx(expected, abs=1e-9)


def test_entropy_of_vectors_is_within_its_errors():
    single = make_vector("full", 3, k=1)
    truth = single.components.entropy()[:, 0]
    value, error = single.entropy(n_draws=20_000)
    assert ((value - truth).abs() < 4 * error).all()
    assert (error < 0.02).all()
    assert torch.equal(value, single.entropy(n_draws=20_000).value)


# Transforms ----------------------------------------------------------------------------------------------------

TRANSFORMS = {
    "exp": ExpTransform(),
    "sigmoid": SigmoidTransform(),
    "box_cox": BoxCoxTransform(0.5).inv,
    "minus": AffineTransform(0.0, -1.0),
    "affine": AffineTransform(3.0, 2.0),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_is_a_change_of_variables(name):
    transform, mixture = TRANSFORMS[name], make(3)
    moved = mixture.transform(transform)
    x = torch.linspace(-2.3, 2.3, 9, dtype=F64)[:, None].expand(9, 3)
    y = transform(x)
    torch.testing.assert_close(moved.log_prob(y), mixture.log_prob(x) - transform.log_abs_det_jacobian(x, y))
    falls = name == "minus"
    torch.testing.assert_close(moved.cdf(y), mixture.survival(x) if falls else mixture.cdf(x))
    level = tensor(0.01, 0.3, 0.9)[:, None]
    torch.testing.assert_close(moved.icdf(level), transform(mixture.icdf(1 - level if falls else level)))
    back = moved.transform(transform.inv)
    torch.testing.assert_close(back.log_prob(x), mixture.log_prob(x))
    grid = (torch.arange(2000, dtype=F64)[:, None] + 0.5) / 2000
    by_quantiles = moved.icdf(grid).mean(0)
    torch.testing.assert_close(moved.mean, by_quantiles, rtol=2e-2, atol=1e-2)


def test_exp_of_a_normal_is_log_normal():
    normal, law = make(k=2), LogNormal(make(k=2).components.loc, make(k=2).components.scale)
    ours, theirs = normal.transform(ExpTransform()), Mixture(normal.logits, law)
    y = tensor(1e-3, 0.1, 1.0, 7.0, 100.0)
    torch.testing.assert_close(ours.log_prob(y), theirs.log_prob(y))
    torch.testing.assert_close(ours.survival(y), theirs.survival(y))
    for part in ("mean", "variance", "skewness"):
        torch.testing.assert_close(getattr(ours, part), getattr(theirs, part), rtol=1e-6, atol=0)
    assert ours.modes().count == theirs.modes().count


def test_a_power_of_a_positive_target():
    gamma = Mixture(tensor(0.0), Gamma(tensor(3.0), tensor(1.0)))
    root = gamma.transform(PowerTransform(tensor(0.5).squeeze()))
    y = tensor(0.5, 1.0, 2.0)
    torch.testing.assert_close(root.log_prob(y), gamma.log_prob(y**2) + (2 * y).log())
    assert root.median.item() == pytest.approx(math.sqrt(gamma.median.item()))


@pytest.mark.parametrize(
    ("code", "ask"),
    [
        ("E-threshold-range", lambda: make().prune(1.0)),
        ("E-threshold-range", lambda: make().prune(-0.1)),
        ("E-reduce", lambda: make().reduce(0)),
        ("E-reduce", lambda: Mixture(tensor(0.0), Gamma(tensor(1.0), tensor(1.0))).reduce(1)),
        ("E-pool-empty", lambda: pool([])),
        ("E-pool-mismatch", lambda: pool([make(), Mixture(tensor(0.0), Gamma(tensor(1.0), tensor(1.0)))])),
        ("E-pool-mismatch", lambda: pool([make(), make()], [0.0, 0.0])),
        ("E-pool-mismatch", lambda: pool([make(), make().to(torch.float32)])),
        ("E-scalar-only", lambda: make_vector("full").transform(ExpTransform())),
        ("E-not-continuous", lambda: Mixture(tensor(0.0), Poisson(tensor(1.0))).transform(ExpTransform())),
        ("E-transform", lambda: make().transform(PowerTransform(tensor(0.5).squeeze()))),
        ("E-transform", lambda: make().transform(torch.distributions.SoftmaxTransform())),
    ],
)
def test_errors_are_coded(code, ask):
    with pytest.raises(MixturaError) as caught:
        ask()
    assert caught.value.code == code
