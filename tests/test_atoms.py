"""Mixtures with point masses: every answer against sums and integrals written out here."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.distributions import AffineTransform, Distribution, ExpTransform, Gamma, Normal, Poisson, StudentT

from mixtura import MixturaError, Mixture, censored_nll, crps, pool

F64 = torch.float64
PHI, INVERSE = scipy.stats.norm.cdf, scipy.stats.norm.ppf


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def make(*batch: int, requires_grad: bool = False) -> Mixture:
    """Two normals, 0.3 N(-1, .5) + 0.2 N(2, 1), and atoms: 0.3 at 0, 0.2 at 2.5."""
    logits = tensor(0.3, 0.2, 0.3, 0.2).log().requires_grad_(requires_grad)
    return Mixture(logits, Normal(tensor(-1.0, 2.0), tensor(0.5, 1.0)), tensor(0.0, 2.5)).expand(batch)


def cdf(y: float, at: bool = True) -> float:
    """P(Y <= y), or P(Y < y)."""
    atoms = sum(w for w, a in ((0.3, 0.0), (0.2, 2.5)) if a < y or (at and a == y))
    return 0.3 * PHI((y + 1) / 0.5) + 0.2 * PHI(y - 2) + atoms


POINTS = [-3.0, -1.0, -1e-9, 0.0, 1e-9, 1.0, 2.4999, 2.5, 2.6, 9.0]


# Distribution function and quantiles ---------------------------------------------------------------------------


@pytest.mark.parametrize("y", POINTS)
def test_cdf_and_survival_count_the_atom_itself(y):
    mixture = make()
    assert mixture.cdf(y).item() == pytest.approx(cdf(y), abs=1e-14)
    assert mixture.survival(y).item() == pytest.approx(1 - cdf(y, at=False), abs=1e-14)
    assert mixture.log_cdf(y).item() == pytest.approx(math.log(cdf(y)), abs=1e-13)


def test_intervals_are_open_below_and_closed_above():
    mixture = make()
    for a in POINTS:
        for b in POINTS:
            expected = max(cdf(b) - cdf(a), 0.0)
            assert mixture.prob_interval(a, b).item() == pytest.approx(expected, abs=1e-14)
            log_expected = math.log(expected) if b > a else -math.inf
            if expected > 1e-6 or b <= a:
                assert mixture.log_prob_interval(a, b).item() == pytest.approx(log_expected, abs=1e-9)


def test_the_quantile_is_the_least_y_that_reaches_the_level():
    mixture = make()
    before, at = cdf(0.0, at=False), cdf(0.0)
    inside = torch.linspace(before + 1e-12, at - 1e-12, 20, dtype=F64)
    assert (mixture.icdf(inside) == 0).all()
    assert mixture.icdf(tensor(before - 1e-6)).item() < 0 < mixture.icdf(tensor(at + 1e-6)).item()
    levels = torch.linspace(0.001, 0.999, 500, dtype=F64)
    y = mixture.icdf(levels)
    assert (mixture.cdf(y) >= levels - 1e-14).all()
    assert (mixture.cdf(y - 1e-6) < levels).all()
    assert (y.diff() >= 0).all()
    assert mixture.icdf(tensor(0.0, 1.0)).tolist() == [-math.inf, math.inf]


def test_a_level_exactly_at_a_jump():
    """With nothing continuous near it, the atom that reaches the level is the quantile, not the next one."""
    far = Mixture(tensor(0.25, 0.25, 0.5).log(), Normal(tensor(100.0), tensor(1.0)), tensor(0.0, 1.0))
    assert far.icdf(tensor(0.1, 0.25, 0.25 + 1e-9, 0.75, 0.75 + 1e-9)).tolist()[:4] == [0.0, 0.0, 1.0, 1.0]
    assert far.icdf(tensor(0.75 + 1e-9)).item() > 90


def test_only_atoms():
    mixture = Mixture(tensor(0.0, 0.5, 0.25, 0.25).log(), Normal(tensor(0.0), tensor(1.0)), tensor(1.0, -2.0, 5.0))
    assert mixture.icdf(tensor(0.1, 0.25, 0.26, 0.75, 0.76, 1.0)).tolist() == [-2.0, -2.0, 1.0, 1.0, 5.0, 5.0]
    assert mixture.mean.item() == 1.25
    assert mixture.variance.item() == pytest.approx(0.5 * 0.25**2 + 0.25 * 3.25**2 + 0.25 * 3.75**2)
    assert mixture.log_prob(tensor(1.0, 0.0)).tolist() == [math.log(0.5), -math.inf]
    assert set(mixture.sample((100,)).tolist()) == {1.0, -2.0, 5.0}


def test_atoms_and_components_without_weight_are_not_there():
    mixture = Mixture(
        tensor(0.3, 0.2, 0.0, 0.3, 0.2, 0.0).log(),
        Normal(tensor(-1.0, 2.0, 50.0), tensor(0.5, 1.0, 1.0)),
        tensor(0.0, 2.5, -40.0),
    )
    other, levels = make(), torch.linspace(0.01, 0.99, 50, dtype=F64)
    torch.testing.assert_close(mixture.icdf(levels), other.icdf(levels), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mixture.cdf(tensor(*POINTS)), other.cdf(tensor(*POINTS)))
    assert mixture.mean.item() == pytest.approx(other.mean.item())


# Moments, density, samples -------------------------------------------------------------------------------------


def test_moments_are_those_of_a_fine_quantile_grid():
    levels = (torch.arange(400_000, dtype=F64) + 0.5) / 400_000
    y = make().icdf(levels)
    mixture = make()
    assert mixture.mean.item() == pytest.approx(y.mean().item(), abs=1e-5)
    assert mixture.variance.item() == pytest.approx(y.var().item(), abs=1e-4)
    assert mixture.skewness.item() == pytest.approx(scipy.stats.skew(y.numpy()), abs=1e-4)
    assert mixture.median.item() == 0.0


def test_log_prob_is_the_mass_at_an_atom_and_the_density_elsewhere():
    mixture = make()
    density = lambda y: 0.3 * scipy.stats.norm.pdf(y, -1, 0.5) + 0.2 * scipy.stats.norm.pdf(y, 2, 1)  # noqa: E731
    y = tensor(0.0, 2.5, 1e-12, 1.0)
    expected = [math.log(0.3), math.log(0.2), math.log(density(0.0)), math.log(density(1.0))]
    assert mixture.log_prob(y).tolist() == pytest.approx(expected, abs=1e-9)


def test_float32_values_meet_float64_atoms():
    mixture = Mixture(tensor(0.5, 0.5).log(), Normal(tensor(0.0), tensor(1.0)), tensor(0.1))
    assert mixture.log_prob(torch.tensor(0.1)).item() == pytest.approx(math.log(0.5))
    assert mixture.to(torch.float32).log_prob(torch.tensor(0.1)).item() == pytest.approx(math.log(0.5))


def test_equal_atoms_add_up():
    mixture = Mixture(tensor(0.5, 0.3, 0.2).log(), Normal(tensor(0.0), tensor(1.0)), tensor(1.0, 1.0))
    assert mixture.log_prob(1.0).item() == pytest.approx(math.log(0.5))
    assert mixture.icdf(tensor(0.5 * PHI(1) + 0.49)).item() == 1.0


def test_samples_follow_the_masses(generator):
    y = make(2).sample((100_000,), generator)
    for atom, mass in ((0.0, 0.3), (2.5, 0.2)):
        assert (y == atom).double().mean().item() == pytest.approx(mass, abs=0.005)
    rest = y[(y != 0) & (y != 2.5)].numpy()
    assert scipy.stats.kstest(rest, lambda x: 0.6 * PHI((x + 1) / 0.5) + 0.4 * PHI(x - 2)).pvalue > 1e-3


# New mixtures from old -----------------------------------------------------------------------------------------


def test_affine_and_transform_move_the_atoms():
    mixture, y = make(), tensor(*POINTS)
    moved = mixture.affine(3.0, -2.0)
    assert moved.atoms.tolist() == [3.0, -2.0]
    torch.testing.assert_close(moved.cdf(3 - 2 * y), mixture.survival(y))
    assert moved.mean.item() == pytest.approx(3 - 2 * mixture.mean.item())
    positive = mixture.transform(ExpTransform())
    assert positive.atoms.tolist() == [1.0, math.exp(2.5)]
    torch.testing.assert_close(positive.cdf(y.exp()), mixture.cdf(y))
    torch.testing.assert_close(positive.log_prob(tensor(1.0)), mixture.log_prob(tensor(0.0)))
    turned = mixture.transform(AffineTransform(0.0, -1.0))
    assert turned.icdf(tensor(0.3)).item() == pytest.approx(-mixture.icdf(tensor(0.7)).item())


def test_pool_prune_index_expand_reshape_and_to():
    mixture = make(2, 3)
    both = pool([mixture, mixture.affine(1.0, 1.0)], [1.0, 3.0])
    assert (both.n_components, both.n_atoms) == (4, 4)
    y = tensor(*POINTS)[:, None, None]
    torch.testing.assert_close(both.cdf(y), 0.25 * mixture.cdf(y) + 0.75 * mixture.cdf(y - 1))
    part = mixture[1, :2]
    assert part.atoms.shape == (2, 2)
    torch.testing.assert_close(mixture.reshape((6,)).mean, mixture.mean.reshape(6))
    assert mixture.reshape((3, 2)).atoms.shape == (3, 2, 2)
    assert mixture.to(torch.float32).atoms.dtype == torch.float32
    assert mixture.expand((4, 2, 3)).log_prob(0.0).shape == (4, 2, 3)
    light = Mixture(tensor(0.0005, 0.4995, 0.0001, 0.4999).log(), Normal(tensor(0.0, 1.0), 1.0), tensor(5.0, 6.0))
    pruned = light.prune()
    assert (pruned.n_components, pruned.n_atoms) == (1, 2)
    assert pruned.weights.sum().item() == pytest.approx(1)
    inner = mixture.continuous
    assert inner.atoms is None
    torch.testing.assert_close(inner.weights[0, 0], tensor(0.6, 0.4))


def test_what_is_not_defined_with_atoms_says_so():
    with pytest.raises(MixturaError, match="E-not-continuous"):
        make().rsample((3,))
    assert not make().has_rsample


# Gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.05, 0.29, 0.5, 0.62, 0.7, 0.99])
def test_gradients_of_quantiles_are_those_of_finite_differences(level):
    def quantile(logits: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        return Mixture(logits, Normal(loc, scale), tensor(0.0, 2.5)).icdf(tensor(level))

    inputs = tensor(0.3, 0.2, 0.3, 0.2).log(), tensor(-1.0, 2.0), tensor(0.5, 1.0)
    assert torch.autograd.gradcheck(quantile, tuple(part.requires_grad_() for part in inputs), atol=1e-6)


def test_rsample_has_the_gradient_of_expectations():
    """E[Y^2] and E[cos Y] of a normal mixture have closed forms; the logits are among the parameters."""
    logits, loc, raw = (part.requires_grad_() for part in (tensor(0.2, -0.3), tensor(-1.0, 2.0), tensor(-0.7, 0.2)))
    mixture = Mixture(logits, Normal(loc, raw.exp()))
    y = mixture.rsample((400_000,), torch.Generator().manual_seed(0))
    second = (mixture.weights * (loc.square() + (2 * raw).exp())).sum()
    cosine = (mixture.weights * (-0.5 * (2 * raw).exp()).exp() * loc.cos()).sum()
    for drawn, closed in ((y.square().mean(), second), (y.cos().mean(), cosine)):
        assert drawn.item() == pytest.approx(closed.item(), abs=0.02)
        got = torch.autograd.grad(drawn, (logits, loc, raw), retain_graph=True)
        expected = torch.autograd.grad(closed, (logits, loc, raw), retain_graph=True)
        for a, b in zip(got, expected, strict=True):
            torch.testing.assert_close(a, b, atol=0.03, rtol=0.02)


# Censored observations and counts ------------------------------------------------------------------------------


def test_censored_likelihood_counts_atoms_at_both_ends():
    mixture = make(5)
    lower, upper = tensor(0.0, -math.inf, 0.0, 2.5, 0.5), tensor(0.0, 0.0, math.inf, 3.0, 1.0)
    losses = censored_nll(mixture, lower, upper, reduction="none")
    mass = [0.3, cdf(0.0), 1 - cdf(0.0, at=False), cdf(3.0) - cdf(2.5, at=False), cdf(1.0) - cdf(0.5)]
    assert losses.tolist() == pytest.approx([-math.log(p) for p in mass], abs=1e-9)


def test_the_censored_gradient_is_finite_far_in_a_tail():
    loc = tensor(0.0).requires_grad_()
    mixture = Mixture(tensor(0.0), Normal(loc, 1.0)).expand((1,))
    loss = censored_nll(mixture, tensor(60.0), tensor(math.inf))
    loss.backward()
    assert loss.item() == pytest.approx(-scipy.stats.norm.logsf(60), rel=1e-9)
    assert loc.grad is not None
    assert loc.grad.item() == pytest.approx(-60.0, rel=1e-3)


def test_zero_inflated_counts():
    mixture = Mixture(tensor(0.6, 0.4).log(), Poisson(tensor(3.0)), tensor(0.0))
    k = torch.arange(30, dtype=F64)
    mass = 0.6 * scipy.stats.poisson(3).pmf(k.numpy()) + np.where(k.numpy() == 0, 0.4, 0)
    np.testing.assert_allclose(mixture.log_prob(k).exp(), mass, rtol=1e-10)
    np.testing.assert_allclose(mixture.cdf(k), mass.cumsum(), rtol=1e-10)
    assert mixture.mean.item() == pytest.approx((mass * k.numpy()).sum())
    assert mixture.variance.item() == pytest.approx((mass * k.numpy() ** 2).sum() - (mass * k.numpy()).sum() ** 2)
    for level in (0.1, 0.42, 0.5, 0.9, 0.999):
        assert mixture.icdf(tensor(level)).item() == np.searchsorted(mass.cumsum(), level)


def test_rain_is_often_exactly_0():
    rain = Mixture(tensor(0.3, 0.7).log(), Gamma(tensor(0.8), tensor(0.5)), tensor(0.0))
    assert rain.median.item() == 0
    assert rain.log_prob(0.0).item() == pytest.approx(math.log(0.7))
    assert rain.survival(1e-12).item() == pytest.approx(0.3, abs=1e-6)
    assert rain.icdf(tensor(0.85)).item() == pytest.approx(scipy.stats.gamma(0.8, scale=2).ppf(0.5), rel=1e-9)
    level = INVERSE(0.9)
    assert rain.prob_interval(-1.0, level).item() == pytest.approx(
        0.7 + 0.3 * scipy.stats.gamma(0.8, scale=2).cdf(level)
    )


@pytest.mark.parametrize("law", [Normal, lambda loc, scale: StudentT(5.0, loc, scale)], ids=["normal", "student_t"])
def test_quantiles_and_crps_have_a_gradient_in_the_atoms_values(law):
    components: Distribution = law(tensor(0.0, 2.0)[None], tensor(1.0, 0.5)[None])

    def at(atoms: Tensor) -> Mixture:
        return Mixture(tensor(0.3, -0.2, 0.1, 0.4)[None], components, atoms)

    atoms = tensor(0.5, 1.5)[None].requires_grad_()
    levels = tensor(0.1, 0.4, 0.5, 0.7, 0.9)[:, None]
    assert torch.autograd.gradcheck(lambda atoms: at(atoms).icdf(levels), (atoms,))
    assert torch.autograd.gradcheck(lambda atoms: crps(at(atoms), tensor(0.7)), (atoms,))
