"""Presets of `MDNRegressor`: what they stand for, and that the rest works with each."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mixtura import MDNRegressor, MixturaError, MixturaWarning, datasets, load
from mixtura.presets import PRESETS

X, Y = datasets.make_inverse_sine(200)
SMALL = {"hidden_layer_sizes": (8,), "max_epochs": 4, "random_state": 0}


@pytest.mark.parametrize(
    ("preset", "n_components", "n_networks"), [("plain", 2, 1), ("fast", 17, 1), ("balanced", 65, 4), ("best", 129, 8)]
)
def test_a_preset_says_how_many_mixtures_are_pooled(tmp_path, preset, n_components, n_networks):
    model = MDNRegressor(2, preset=preset, **SMALL).fit(X, Y)
    mixture = model.predict_dist(X)
    assert mixture.n_components == n_components
    assert len(model.networks_) == n_networks
    assert model.n_components_ == 2
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.preset == preset
    assert np.array_equal(again.predict(X), model.predict(X))
    before = model.fit_report_.best_nll
    assert model.partial_fit(X, Y).predict(X).shape == Y.shape
    assert np.isfinite(before)


def test_a_setting_counts_more_than_the_preset():
    model = MDNRegressor(2, preset="best", n_restarts=2, **SMALL).fit(X, Y)
    assert len(model.networks_) == 2
    assert model.fit_report_.n_epochs == 4
    for n_rows, tier in ((2, 0), (999, 0), (1_000, 1), (4_999, 1), (5_000, 2), (10**7, 2)):
        assert MDNRegressor()._recipe(n_rows) == PRESETS["balanced"][tier]


def test_networks_that_are_pooled_hold_out_other_rows():
    """Alone, one decides by its own rows; the report of each tells what these were worth."""
    pooled = MDNRegressor(2, preset="best", **SMALL).fit(X, Y).fit_report_.restart_nlls
    alike = MDNRegressor(2, preset="best", **SMALL).fit(X, Y, eval_set=(X, Y)).fit_report_.restart_nlls
    assert np.ptp(pooled) > 3 * np.ptp(alike)


def test_a_preset_that_is_none_is_refused():
    with pytest.raises(MixturaError, match="preset='slow'"):
        MDNRegressor(preset="slow").fit(X, Y)


@pytest.mark.parametrize("preset", ["balanced", "best"])
def test_members_take_categories_missing_values_atoms_vectors_and_intervals(preset):
    table = pd.DataFrame({"a": X[:, 0], "b": np.where(Y > 0.5, "x", "y"), "c": np.where(Y > 0.9, np.nan, Y > 0.3)})
    vector = np.c_[Y, Y**2]
    unknown = pd.arrays.IntervalArray.from_arrays(Y, np.where(Y > 0.8, np.inf, Y), closed="both")
    for target, more in ((vector, {}), (np.where(Y < 0.2, 0, Y), {"atoms": [0.0]}), (unknown, {})):
        model = MDNRegressor(2, preset=preset, **SMALL, **more).fit(table, target)
        assert np.isfinite(model.score_samples(table, target)).all()


def test_features_of_two_values_get_no_waves():
    table = (X > 0.5).astype(float)
    model = MDNRegressor(2, preset="balanced", **SMALL).fit(table, Y)
    assert len(model.networks_[0].backbone.embedding.places) == 0
    assert np.isfinite(model.score_samples(table, Y)).all()


def test_few_rows_take_more_epochs():
    balanced = PRESETS["balanced"][0]
    assert balanced.epochs(8) == (2_000, 250, 600)
    assert balanced.epochs(100) == (200, 20, 60)
    assert balanced.epochs(10_000) == (20, 10, 6)
    assert PRESETS["plain"][0].epochs(8) == (300, 30, 90)
    assert replace(balanced, max_epochs=50).epochs(8) == (50, 250, 15)


@pytest.fixture
def held_out(monkeypatch):
    """The rows that each network of the next fits holds out."""
    held_out, finish = [], MDNRegressor._finish

    def look(self, task, learners, *others):
        held_out.extend(learner.judge for learner in learners)
        assert all(len(torch.cat([one.learn, one.judge]).unique()) == len(task.rows) for one in learners)
        return finish(self, task, learners, *others)

    monkeypatch.setattr(MDNRegressor, "_finish", look)
    return held_out


def test_networks_that_are_pooled_hold_out_each_row_at_most_once(held_out):
    MDNRegressor(2, preset="best", **SMALL).fit(X, Y)
    assert len(held_out) == 8
    assert len(torch.cat(held_out).unique()) == len(X)


def test_copies_of_a_row_are_held_out_together(held_out):
    index = np.random.default_rng(0).permutation(np.repeat(np.arange(64), 5))
    model = MDNRegressor(2, preset="best", **SMALL).fit(X[index], Y[index])
    assert "256 rows repeat others in all values: copies stay on one side of each split" in model.fit_report_.events
    assert len(held_out) == 8
    for judge in held_out:
        own, counts = np.unique(index[judge], return_counts=True)
        assert len(own) == 8
        assert (counts == 5).all()
    assert len(torch.cat(held_out).unique()) == len(index)


def test_rows_of_few_values_are_no_copies(held_out):
    rng = np.random.default_rng(0)
    table, y = pd.DataFrame({"a": rng.integers(0, 4, 200), "b": rng.choice(["u", "v"], 200)}), rng.poisson(2, 200)
    dose = rng.integers(0, 3, (200, 1))  # a target that tells more than half of the different rows apart
    dry = np.where(rng.uniform(size=(200, 1)) < 0.4, 0.0, X)
    for features, target in (
        (table, y),
        (dose, 4 * dose[:, 0] + rng.binomial(11, 0.5, 200)),
        (dry, Y * (dry[:, 0] > 0)),
    ):
        fits = MDNRegressor(2, preset="fast", family="normal", atoms="auto", **SMALL).fit(features, target)
        assert not any("repeat" in event for event in fits.fit_report_.events)
    assert [len(judge) for judge in held_out] == [25, 25, 25]


def test_copies_count_once(monkeypatch):
    """Ten rows, each of them ten times over, are no hundred."""
    seen, recipe = [], MDNRegressor._recipe
    monkeypatch.setattr(MDNRegressor, "_recipe", lambda self, n, *more: seen.append(n) or recipe(self, n, *more))
    index = np.repeat(np.arange(11), 9)
    MDNRegressor(2, preset="fast", **SMALL, family="normal").fit(X[index], Y[index])
    assert seen[-1] == 11


# What is decided on held-out rows -------------------------------------------------------------------------------

PLAIN = {"preset": "plain", "max_epochs": 3, "random_state": 0}


def test_a_positive_skewed_target_gets_the_family_that_it_has():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (600, 1))
    y = 1000 * np.exp(2 * x[:, 0] + 0.3 * rng.normal(size=600))
    model = MDNRegressor(2, **PLAIN).fit(x, y)
    assert model.family_.name == "lognormal"
    assert any("family lognormal" in event for event in model.fit_report_.events)


def test_a_heavy_tailed_target_gets_the_student_t():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (800, 1))
    assert MDNRegressor(1, **PLAIN).fit(x, x[:, 0] + rng.standard_t(2.1, 800)).family_.name == "student_t"


@pytest.mark.parametrize("more", [{}, {"family": "laplace"}])
def test_a_symmetric_target_and_a_given_family_are_not_tried(more):
    model = MDNRegressor(2, **PLAIN, **more).fit(X, Y)
    assert model.family_.name == more.get("family", "normal")
    assert not any("family" in event for event in model.fit_report_.events)


def test_a_feature_over_many_orders_of_magnitude_is_taken_by_ranks(tmp_path):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(1000, 1))
    x, y = np.exp(4 * z), np.sin(2 * z[:, 0]) + 0.1 * rng.normal(size=1000)
    model = MDNRegressor(2, preset="plain", max_epochs=100, random_state=0).fit(x, y)
    assert any("taken by their normal scores" in event for event in model.fit_report_.events)
    assert model.encoder_.ranker_ is not None
    rest = np.exp(4 * rng.normal(size=(500, 1)))
    assert -model.score_samples(rest, np.sin(0.5 * np.log(rest[:, 0]))).mean() < -0.5
    model.save(tmp_path / "model")
    assert np.array_equal(load(tmp_path / "model").predict(rest), model.predict(rest))
    with pytest.warns(MixturaWarning, match="W-feature-far"):
        assert np.isfinite(model.predict([[1e300], [-1e300], [0.0]])).all()


def test_the_same_seed_decides_alike_and_no_warning_comes_twice():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(300, 1)), rng.lognormal(size=300)
    y[:60] = 1.0
    with pytest.warns(MixturaWarning, match="W-repeated-values") as caught:
        first = MDNRegressor(2, **PLAIN).fit(x, y)
    assert len(caught) == 1
    again = MDNRegressor(2, **PLAIN | {"random_state": np.random.RandomState(0)})
    with pytest.warns(MixturaWarning):
        again.fit(x, y)
    assert first.family_ == again.family_


def test_components_that_no_row_needs_do_not_spoil_the_mean_of_a_positive_target():
    """Of weight 1e-4 and a scale of 11 for log y, one would have a mean of 1e22."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (400, 1))
    y = np.exp(3 * x[:, 0] + 0.05 * rng.normal(size=400))
    model = MDNRegressor(preset="fast", family="lognormal", random_state=0).fit(x, y)
    assert model.predict(x).max() < 1.5 * y.max()
    assert model.predict(x[y < 1]).max() < 3


@pytest.mark.parametrize("atoms", [None, [0.0]])
def test_many_rows_get_what_each_gets(atoms):
    y = np.where(Y < 0.2, 0, Y) if atoms else Y
    model = MDNRegressor(2, preset="fast", atoms=atoms, **SMALL).fit(X, y)
    many = np.linspace(0, 1, 9_000)[:, None]
    mixture, alone = model.predict_dist(many), model.predict_dist(many[[0, 4_095, 4_096, 8_999]])
    assert mixture.batch_shape == (9_000,)
    torch.testing.assert_close(mixture.mean[[0, 4_095, 4_096, 8_999]], alone.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mixture.cdf(torch.tensor(0.5))[[0, 4_095, 4_096, 8_999]], alone.cdf(torch.tensor(0.5)))


def test_whole_numbers_are_not_taken_for_lognormal():
    """On a grid the normal has a floor; a lognormal would shrink onto its values."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2))
    model = MDNRegressor(2, **PLAIN).fit(x, 1.0 + rng.poisson(np.exp(1.2 + 0.5 * x[:, 0])))
    assert model.family_.name != "lognormal"


def test_a_lognormal_that_was_not_asked_for_stays_near_the_target_where_features_are_unusual(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 3))
    y = np.exp(1.5 * x[:, 0] + 0.3 * rng.normal(size=300))
    model = MDNRegressor(2, preset="fast", max_epochs=60, random_state=0).fit(x, y)
    assert model.family_.name == "lognormal"
    far = [[100.0, 0.0, 0.0], [-100.0, 100.0, 100.0]]
    model.encoder_.range_ *= 100  # else these would count as near
    assert model.predict(far).max() < 1e4 * y.max()
    model.save(tmp_path / "model")
    assert np.array_equal(load(tmp_path / "model").predict(far), model.predict(far))


def test_the_unit_of_a_heavy_tailed_feature_does_not_matter():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(600, 1))
    x, y = np.exp(3 * z), np.sin(2 * z[:, 0]) + 0.1 * rng.normal(size=600)
    fits = [MDNRegressor(2, **PLAIN).fit(unit * x, y) for unit in (1e-9, 1.0, 1e9)]
    means = [model.predict(unit * x) for model, unit in zip(fits, (1e-9, 1.0, 1e9), strict=True)]
    assert all(model.encoder_.ranker_ is not None for model in fits)
    assert means[0] == pytest.approx(means[1], abs=1e-4)
    assert means[2] == pytest.approx(means[1], abs=1e-4)


def test_rows_of_weight_0_decide_nothing():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (400, 1))
    y = 1000 * np.exp(2 * x[:, 0] + 0.3 * rng.normal(size=400))
    y[0] = -1.0
    model = MDNRegressor(2, **PLAIN).fit(x, y, sample_weight=np.arange(400) > 0)
    assert model.family_.name == "lognormal"


def test_held_out_rows_that_networks_share_count_once():
    x, y = X[:150], Y[:150]
    shares = [
        MDNRegressor(2, preset="fast", n_restarts=n, **SMALL).fit(x, y, eval_set=(X[150:], Y[150:])).background_share_
        for n in (1, 4)
    ]
    assert shares[1] < 1.3 * shares[0]
