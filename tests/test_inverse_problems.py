"""benchmarks/inverse.py: its simulators by what is known of them, its ways by posteriors in closed form."""

import numpy as np
import pytest
from scipy.stats import lognorm, norm, truncnorm, uniform

from benchmarks import inverse
from benchmarks.inverse import TASKS, Posterior, PosteriorByLikelihood, Task, c2st

NOISE = 0.5
SD = NOISE / np.sqrt(1 + NOISE**2)
"""Of the posterior under a normal prior of scale 1."""
SHRINK = 1 / (1 + NOISE**2)


def add_noise(theta, rng):
    return theta + NOISE * rng.normal(size=theta.shape)


def multiply_noise(theta, rng):
    return theta * np.exp(NOISE * rng.normal(size=theta.shape))


# A task, and the posterior of each parameter given what was seen of it.
CASES = {
    "free": (Task(norm(0, 1), 2, add_noise), lambda x: norm(SHRINK * x, SD)),
    "positive": (Task(lognorm(1), 2, multiply_noise), lambda x: lognorm(SD, scale=x**SHRINK)),
    "bounded": (
        Task(uniform(-1, 2), 2, add_noise),
        lambda x: truncnorm((-1 - x) / NOISE, (1 - x) / NOISE, loc=x, scale=NOISE),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def small():
    settings = {"preset": "plain", "n_components": 3, "hidden_layer_sizes": (16,), "max_epochs": 60}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inverse, "SETTINGS", settings)
        patch.setattr(inverse, "LIKELIHOOD", settings | {"family": "normal", "n_components": 1})
        patch.setattr(inverse, "N_PROPOSED", 4_000)
        yield


@pytest.mark.filterwarnings("ignore:.*W-feature-far")
@pytest.mark.parametrize("case", CASES)
def test_posteriors_in_closed_form_are_found(case):
    task, truth = CASES[case]
    direct = Posterior(task, *(pairs := task.draw(2_000, np.random.default_rng(0))), 0)
    ways = {"direct": direct, "by likelihood": PosteriorByLikelihood(direct, *pairs)}
    theta, seen = task.draw(300, np.random.default_rng(1))
    best = -truth(seen).logpdf(theta).sum(1).mean()
    x = np.array([0.8, 1.3])
    for way, posterior in ways.items():
        drawn = posterior.sample(x, 2_000)
        assert task.contains(drawn).all()
        assert drawn.mean(0) == pytest.approx(truth(x).mean(), rel=0.2), way
        assert drawn.std(0) == pytest.approx(truth(x).std(), rel=0.25), way
        assert posterior.nll(theta, seen).mean() == pytest.approx(best, abs=0.15), way
    [n_effective] = ways["by likelihood"].n_effective
    assert 1_000 < n_effective < 4_000


def test_the_way_with_the_lower_nll_of_held_out_simulations_answers(monkeypatch, tmp_path):
    learned, judged = [], []

    class Way:
        n_effective: tuple[float, ...] = ()

        def __init__(self, *arguments):
            self.loss = len(learned)  # the first has the lower one
            learned.append(arguments[1])

        def nll(self, theta, x):
            judged.append(theta)
            return np.full(len(x), float(self.loss))

    monkeypatch.setattr(inverse, "Posterior", Way)
    monkeypatch.setattr(inverse, "PosteriorByLikelihood", Way)
    found = inverse.run("two_moons", 500, 0, tmp_path, 0)
    assert (found["way"], found["nll"]) == ("direct", {"direct": 0.0, "by likelihood": 1.0})
    assert [len(some) for some in (*learned, *judged)] == [450, 450, 50, 50]
    assert len(np.unique(np.concatenate([learned[0], judged[0]]), axis=0)) == 500


def test_priors_are_those_of_the_paper():
    assert TASKS["two_moons"].prior.support() == (-1, 1)
    assert TASKS["slcp"].prior.support() == (-3, 3)
    assert TASKS["slcp"].contains(np.array([[2.9] * 5, [3.1] * 5])).tolist() == [True, False]
    assert TASKS["slcp"].log_prior(np.zeros((1, 5)))[0] == pytest.approx(-5 * np.log(6))
    theta, _ = TASKS["lotka_volterra"].draw(5_000, np.random.default_rng(0))
    assert np.log(theta).mean(0) == pytest.approx([-0.125, -3, -0.125, -3], abs=0.03)
    assert np.log(theta).std(0) == pytest.approx(0.5, rel=0.03)


def test_points_of_slcp_have_the_moments_that_their_parameters_say():
    theta = np.array([0.7, -2.9, -1.0, -0.9, 0.6])
    x = inverse.slcp(np.tile(theta, (20_000, 1)), np.random.default_rng(0)).reshape(-1, 2)
    assert x.mean(0) == pytest.approx(theta[:2], abs=0.02)
    assert x.std(0) == pytest.approx(theta[2:4] ** 2, rel=0.02)
    assert np.corrcoef(x.T)[0, 1] == pytest.approx(np.tanh(0.6), abs=0.02)


@pytest.mark.parametrize(("a", "b"), [(0.3, -0.6), (0.6, -0.3)])  # (a, b) and (-b, -a) look alike
def test_two_moons_are_half_circles_of_radius_a_tenth(a, b):
    x = inverse.two_moons(np.tile([a, b], (20_000, 1)), np.random.default_rng(0))
    x -= [0.25 - abs(a + b) / np.sqrt(2), (b - a) / np.sqrt(2)]
    radius, angle = np.hypot(*x.T), np.arctan2(x[:, 1], x[:, 0])
    assert (radius.mean(), radius.std()) == pytest.approx((0.1, 0.01), rel=0.02)
    assert np.quantile(angle, [0, 0.5, 1]) == pytest.approx([-np.pi / 2, 0, np.pi / 2], abs=0.03)


def test_prey_and_predators_follow_their_equations():
    alpha, beta, gamma, delta = rates = [0.8, 0.04, 0.9, 0.03]
    log_x = np.log(inverse.lotka_volterra(np.tile(rates, (400, 1)), np.random.default_rng(0)))
    assert log_x.std(0) == pytest.approx(0.1, rel=0.15)
    prey, predators = log_x.mean(0).reshape(2, 10)
    assert (prey[0], predators[0]) == pytest.approx((np.log(30), 0), abs=0.02)
    constant = delta * np.exp(prey) - gamma * prey + beta * np.exp(predators) - alpha * predators
    assert constant == pytest.approx(constant[0], abs=0.05)
    coarse, fine = (
        np.log(inverse.lotka_volterra(np.array([rates]), np.random.default_rng(0), step)) for step in (0.02, 0.01)
    )
    assert coarse == pytest.approx(fine, abs=1e-4)


def test_c2st_tells_what_differs_and_not_what_is_alike():
    a, b = np.random.default_rng(0).normal(size=(2, 300, 2))
    assert c2st(a, b) < 0.58
    assert c2st(a, b + 5) > 0.98
