"""benchmarks/inverse.py: its simulators by what is known of them, its ways by a posterior in closed form."""

import numpy as np
import pytest
from scipy.stats import norm

from benchmarks import inverse
from benchmarks.inverse import TASKS, Posterior, PosteriorByLikelihood, Task, c2st

NOISE = 0.5


def add_noise(theta, rng):
    return theta + NOISE * rng.normal(size=theta.shape)


@pytest.fixture(scope="module")
def ways():
    """Both ways on theta ~ N(0, 1) twice, x = theta + noise."""
    small = {"preset": "plain", "n_components": 1, "hidden_layer_sizes": (16,), "max_epochs": 60}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inverse, "SETTINGS", small)
        patch.setattr(inverse, "LIKELIHOOD", small | {"family": "normal"})
        patch.setattr(inverse, "N_PROPOSED", 4_000)
        task = Task(norm(0, 1), 2, add_noise)
        pairs = task.draw(2_000, np.random.default_rng(0))
        direct = Posterior(task, *pairs, 0)
        yield direct, PosteriorByLikelihood(direct, *pairs)


@pytest.mark.parametrize("which", [0, 1], ids=["directly", "by likelihood"])
def test_a_posterior_in_closed_form_is_found(ways, which):
    posterior, x = ways[which], np.array([0.8, -1.0])
    sd = NOISE / np.sqrt(1 + NOISE**2)
    drawn = posterior.sample(x, 2_000)
    assert drawn.mean(0) == pytest.approx(x * sd**2 / NOISE**2, abs=0.12)
    assert drawn.std(0) == pytest.approx(sd, rel=0.15)
    theta, seen = ways[0].task.draw(300, np.random.default_rng(1))
    best = -norm(seen * sd**2 / NOISE**2, sd).logpdf(theta).sum(1).mean()
    assert posterior.nll(theta, seen).mean() == pytest.approx(best, abs=0.12)


def test_draws_count_unless_the_proposal_is_wrong(ways):
    by_likelihood, x = ways[1], np.zeros(2)
    by_likelihood.sample(x, 10)
    assert 2_000 < by_likelihood.n_effective[-1] <= 4_000


def test_what_the_prior_rules_out_is_never_drawn():
    task = TASKS["slcp"]
    assert task.contains(np.array([[2.9] * 5, [3.1] * 5])).tolist() == [True, False]
    assert task.log_prior(np.zeros((1, 5)))[0] == pytest.approx(-5 * np.log(6))
    assert not TASKS["lotka_volterra"].contains(np.array([[1.0, 1.0, -1.0, 1.0]])).any()
    assert (TASKS["lotka_volterra"].draw(50, np.random.default_rng(0))[0] > 0).all()


def test_simulators_have_the_moments_that_their_description_gives():
    rng, n = np.random.default_rng(0), 20_000
    theta = np.array([0.7, -2.9, -1.0, -0.9, 0.6])
    x = inverse.slcp(np.tile(theta, (n, 1)), rng).reshape(-1, 2)
    assert x.mean(0) == pytest.approx(theta[:2], abs=0.02)
    assert x.std(0) == pytest.approx(theta[2:4] ** 2, rel=0.02)
    assert np.corrcoef(x.T)[0, 1] == pytest.approx(np.tanh(0.6), abs=0.02)
    pair = np.array([[0.3, -0.6], [0.6, -0.3]])  # (a, b) and (-b, -a) look alike
    first, second = (inverse.two_moons(np.tile(one, (n, 1)), rng) for one in pair)
    assert first.mean(0) == pytest.approx(second.mean(0), abs=0.005)
    assert np.cov(first.T) == pytest.approx(np.cov(second.T), abs=5e-4)
    rates = np.tile([[0.8, 0.04, 0.9, 0.05]], (200, 1))
    coarse, fine = (np.log(inverse.lotka_volterra(rates, np.random.default_rng(0), step)) for step in (0.02, 0.01))
    assert coarse == pytest.approx(fine, abs=1e-4)
    assert np.exp(fine[:, [0, 10]].mean(0)) == pytest.approx([30, 1], rel=0.03)


def test_c2st_tells_what_differs_and_not_what_is_alike():
    a, b = np.random.default_rng(0).normal(size=(2, 300, 2))
    assert c2st(a, b) < 0.58
    assert c2st(a, b + 5) > 0.98
