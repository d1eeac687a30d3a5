"""Slow checks of accuracy, where the true density is known."""

import numpy as np
import pytest
import torch

from mixtura import MDNRegressor, datasets

pytestmark = pytest.mark.statistical
NOISE = 0.05
GRID = np.linspace(0, 1, 2001)


def true_density(x: np.ndarray) -> np.ndarray:
    """p(t | x) on GRID for the inverse sine, by Bayes' rule and numerical integration; shape (n, len(GRID))."""
    error = (x[:, None] - GRID - 0.3 * np.sin(2 * np.pi * GRID)) / NOISE
    joint = np.exp(-0.5 * error**2)
    return joint / np.trapezoid(joint, GRID, axis=1)[:, None]


@pytest.fixture(scope="module", params=range(3))
def model(request: pytest.FixtureRequest) -> MDNRegressor:
    return MDNRegressor(random_state=request.param).fit(*datasets.make_inverse_sine(4000, NOISE, 100 + request.param))


def test_the_inverse_sine_is_close_to_the_truth(model):
    X, t = datasets.make_inverse_sine(4000, NOISE, random_state=0)
    truth = np.array([np.interp(ti, GRID, p) for ti, p in zip(t, true_density(X[:, 0]), strict=True)])
    excess = np.log(truth).mean() - model.score_samples(X, t).mean()
    assert 0 < excess < 0.12


def test_l1_distance_to_the_true_density_is_small_where_the_curve_folds(model):
    x = np.linspace(0.1, 0.9, 41)
    learned = model.predict_dist(x[:, None]).log_prob(torch.tensor(GRID)[:, None]).exp().mT.numpy()
    distance = np.trapezoid(np.abs(learned - true_density(x)), GRID, axis=1)
    assert distance.mean() < 0.25


def test_three_branches_at_the_fold_and_one_elsewhere(model):
    middle, edge = model.predict_dist([[0.5], [0.02]]).log_prob(torch.tensor(GRID)[:, None]).exp().mT.numpy()
    for density, n_modes in ((middle, 3), (edge, 1)):
        density = np.convolve(density, np.ones(61) / 61, mode="same")  # a mode is more than a ripple
        is_peak = (density[1:-1] > density[:-2]) & (density[1:-1] >= density[2:]) & (density[1:-1] > 0.3)
        assert is_peak.sum() == n_modes


def test_intervals_cover_what_they_promise(model):
    X, t = datasets.make_inverse_sine(4000, NOISE, random_state=0)
    interval = model.predict_interval(X, 0.9)
    assert np.mean((interval[:, 0] < t) & (t < interval[:, 1])) == pytest.approx(0.9, abs=0.03)


def test_noise_that_grows_with_x_is_learned():
    rng = np.random.default_rng(0)
    X = rng.uniform(0, 1, (4000, 1))
    y = np.sin(6 * X[:, 0]) + (0.05 + 0.5 * X[:, 0]) * rng.normal(size=4000)
    grid = np.linspace(0.05, 0.95, 19)[:, None]
    _, std = MDNRegressor(n_components=1, random_state=0).fit(X, y).predict(grid, return_std=True)
    np.testing.assert_allclose(std, 0.05 + 0.5 * grid[:, 0], rtol=0.25)


def test_noise_helps_a_few_rows():
    """Forty rows of a sine with noise that grows: without it, one network is overconfident."""
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (5000, 1))
    y = np.sin(3 * X[:, 0]) + (0.25 + 0.2 * X[:, 0]) * rng.normal(size=5000)
    reached = {
        noise: np.median(
            [
                -MDNRegressor(preset="plain", random_state=s, noise=noise)
                .fit(X[40 * s : 40 * s + 40], y[40 * s : 40 * s + 40])
                .score_samples(X[1000:], y[1000:])
                .mean()
                for s in range(6)
            ]
        )
        for noise in (0.0, None)
    }
    assert reached[None] < reached[0.0] - 0.1
