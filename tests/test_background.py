"""The share of the density without features: what it is, and what it is for."""

import math

import numpy as np
import pytest
import torch

from mixtura import MDNRegressor, load
from mixtura.background import fit_share

SMALL = {"preset": "fast", "hidden_layer_sizes": (16,), "max_epochs": 40, "random_state": 0}


def line(n: int, n_outliers: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """y = 2 x with little noise, but for some rows whose y has nothing to do with x."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-1, 1, (n, 1)), np.empty(n)
    y[:] = 2 * x[:, 0] + 0.02 * rng.normal(size=n)
    y[:n_outliers] = rng.uniform(-2, 2, n_outliers)
    return x, y


def test_the_share_is_the_mode_of_its_posterior():
    """Beside a grid; the prior counts 0.3 of 100 rows."""
    rng = np.random.default_rng(0)
    log_prob, log_background = torch.tensor(rng.normal(0, 3, 400)), torch.tensor(rng.normal(-4, 1, 400))
    weight = torch.tensor(rng.uniform(0.5, 2, 400))
    shares = torch.linspace(1e-4, 0.2, 20_000, dtype=torch.float64)[:, None]
    each = torch.logaddexp(log_prob + (-shares).log1p(), log_background + shares.log())
    posterior = each @ weight + 0.3 * shares[:, 0].log() + 99.7 * (-shares[:, 0]).log1p()
    best = shares[posterior.argmax()].item()
    assert fit_share(log_prob, log_background, weight) == pytest.approx(best, abs=2e-5)


def test_without_rows_the_share_is_that_of_the_prior():
    none = torch.empty(0, dtype=torch.float64)
    assert fit_share(none, none, none) == pytest.approx(0.003)


def test_rows_that_both_find_impossible_do_not_matter():
    log_prob = torch.tensor([0.0, -math.inf], dtype=torch.float64)
    assert 0 < fit_share(log_prob, log_prob - 1, torch.ones(2, dtype=torch.float64)) < 0.01


def test_outliers_among_held_out_rows_raise_it():
    clean, dirty = (MDNRegressor(1, **SMALL).fit(*line(600, n)) for n in (0, 30))
    assert clean.background_share_ < 0.005 < 0.01 < dirty.background_share_ < 0.2
    assert any(f"{dirty.background_share_:.2%} of each density" in event for event in dirty.fit_report_.events)


def test_it_bounds_what_a_misleading_row_costs():
    """Ten standard deviations of y's own noise away, and a hundred."""
    X, y = line(600, 0)
    model = MDNRegressor(2, **SMALL).fit(X, y)
    far = -model.score_samples([[0.5], [0.5]], [-1.0, 1.9])
    assert far.max() < 10
    plain = MDNRegressor(2, **SMALL | {"preset": "plain"}).fit(X, y)
    assert -plain.score_samples([[0.5]], [-1.0])[0] > 50
    assert plain.background_ is None
    assert plain.background_share_ == 0


def test_it_is_a_component_of_every_answer_and_comes_back_from_disk(tmp_path):
    X, y = line(300, 30)
    model = MDNRegressor(2, **SMALL).fit(X, y)
    mixture = model.predict_dist(X[:5])
    assert mixture.n_components == 2 * 8 + 1
    assert mixture.weights[:, -1].numpy() == pytest.approx(model.background_share_)
    assert mixture.components.loc[:, -1].numpy() == pytest.approx(np.full(5, y.mean()), abs=0.1)
    assert mixture.components.scale[:, -1].numpy() == pytest.approx(np.full(5, y.std()), rel=0.1)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.background_share_ == model.background_share_
    assert np.array_equal(again.score_samples(X, y), model.score_samples(X, y))


def test_new_rows_move_its_share_and_not_the_density():
    model = MDNRegressor(2, **SMALL).fit(*line(600, 0))
    before, density = model.background_share_, model.background_
    model.partial_fit(*line(600, 100, seed=1))
    assert model.background_ is density
    assert model.background_share_ > 2 * before
