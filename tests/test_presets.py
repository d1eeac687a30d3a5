"""Presets of `MDNRegressor`: what they stand for, and that the rest works with each."""

import numpy as np
import pandas as pd
import pytest

from mixtura import MDNRegressor, MixturaError, datasets, load
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
    assert MDNRegressor()._recipe(4_999) == PRESETS["balanced"][0]
    assert MDNRegressor()._recipe(5_000) == PRESETS["balanced"][1]


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
