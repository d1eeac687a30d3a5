"""The training doctor: no alarm where a model is right, and each finding where a model has the fault."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from typer.testing import CliRunner

from mixtura import Diagnosis, MDNRegressor, MixturaError, MixturaWarning, load
from mixtura.cli import app
from mixtura.diagnosis import _as_of_normal

ROOT = Path(__file__).parents[1]
PLAIN = {"preset": "plain", "family": "normal", "random_state": 0}


def sine(n: int, seed: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """One normal branch."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (n, 2))
    return x, np.sin(x[:, 0]) + scale * (0.2 + 0.1 * x[:, 0] ** 2) * rng.normal(size=n)


def branches(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, 1))
    return x, rng.choice([-1, 1], n) * (1 + x[:, 0]) + 0.2 * rng.normal(size=n)


def pair(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x, e = rng.uniform(-1, 1, (n, 2)), rng.normal(size=(n, 2))
    return x, np.c_[x[:, 0] + 0.3 * e[:, 0], x[:, 1] ** 2 + 0.2 * e[:, 0] + 0.1 * e[:, 1]]


@pytest.fixture(scope="module")
def fitted() -> MDNRegressor:
    return MDNRegressor(2, **PLAIN, max_epochs=50).fit(*sine(800, 0))


@pytest.fixture(scope="module")
def four() -> MDNRegressor:
    return MDNRegressor(4, **PLAIN | {"max_epochs": 20, "weight_floor": 0.0}).fit(*branches(400, 0))


# No alarm ------------------------------------------------------------------------------------------------------


FAST = {"preset": "fast", "hidden_layer_sizes": (16,), "max_epochs": 25}


@pytest.mark.parametrize(("problem", "settings"), [(sine, {}), (branches, {}), (pair, {}), (sine, FAST)])
def test_a_well_specified_model_raises_no_warning(problem, settings):
    model = MDNRegressor(3, **PLAIN | {"max_epochs": 45} | settings).fit(*problem(600, 0))
    for found in (model.diagnose(*problem(800, 1)), model.diagnose(*problem(600, 0)), model.diagnose()):
        assert not found.warnings, found
    assert model.diagnose(*problem(800, 1))["D-unconditional"].severity == "good"


def test_without_rows_the_report_alone_speaks(fitted):
    found = fitted.diagnose()
    assert found.n_rows == 0
    assert "D-dispersion" not in found
    assert found["D-components-dead"].what == "All of 2 components answer for rows."
    assert found.regions.empty
    with pytest.raises(MixturaError, match="E-target-missing"):
        fitted.diagnose(sine(10, 0)[0])
    with pytest.raises(MixturaError, match="E-not-fitted"):
        MDNRegressor().diagnose()


def test_what_it_is_as_words_table_and_json(fitted):
    found = fitted.diagnose(*sine(300, 1))
    assert isinstance(found, Diagnosis)
    assert list(found.table.columns) == ["code", "severity", "what", "advice"]
    assert len(found.table) == len(found.findings) == len(str(found).splitlines()) - 1
    assert json.loads(json.dumps(found.to_dict()))["n_rows"] == 300
    for one in found.findings:
        assert one.what.endswith(".")
        assert (one.advice == "") == (one.severity == "good")
    assert found.regions["rows"].sum() == 300
    assert str(fitted.diagnose(*sine(300, 1))) == str(found)


def test_a_loaded_model_gets_the_same_diagnosis(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    assert str(load(tmp_path / "model").diagnose(*sine(300, 1))) == str(fitted.diagnose(*sine(300, 1)))


# Each fault ----------------------------------------------------------------------------------------------------


def edited(model: MDNRegressor, change) -> MDNRegressor:
    """A copy with a change to the linear layer of its head."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        change(model.networks_[0].head.linear)
    return model


def test_dead_components(four):
    def kill(linear):
        linear.bias[[1, 2]] -= 60.0

    one = edited(four, kill).diagnose(*branches(400, 1))["D-components-dead"]
    assert one.severity == "note"
    assert one.what.startswith("2 of 4 components are dead")
    model = copy.deepcopy(four)
    model.fit_report_.component_usage = [0.999, 0.001, 0.0, 0.0]
    assert model.diagnose()["D-components-dead"].severity == "warning"


def test_duplicated_components(four):
    def repeat(linear):
        for of in (linear.weight, linear.bias):
            of[[1, 4 + 2, 4 + 3]] = of[[0, 4, 5]]  # logit, loc and scale

    one = edited(four, repeat).diagnose(*branches(400, 1))["D-components-duplicated"]
    assert one.severity == "note"
    assert one.what.startswith("1 of 4 ")
    assert four.diagnose(*branches(400, 1))["D-components-duplicated"].severity == "good"


def test_components_in_use_by_region(four):
    """One branch on the left, two of equal weight on the right."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (800, 2))
    y = np.where(x[:, 1] > 0, rng.choice([-1, 1], 800), 0) + 0.05 * rng.normal(size=800)
    table = pd.DataFrame(x, columns=["left", "right"])
    model = MDNRegressor(3, **PLAIN | {"max_epochs": 80}).fit(table, y)
    found = model.diagnose(table, y)
    assert set(found.regions["feature"]) == {"right"}
    effective = found.regions["effective_components"].to_numpy()
    assert effective[:2] == pytest.approx(1, abs=0.15)
    assert effective[2:] == pytest.approx(2, abs=0.2)

    def favour(linear):
        linear.bias[0] += 20.0

    one = edited(four, favour).diagnose(*branches(400, 1))["D-components-used"]
    assert one.severity == "note"
    assert "n_components=2" in one.advice


def test_scales_at_the_floor_and_the_values_that_repeat():
    X, y = sine(600, 0)
    whole, cents = np.round(2 * y), np.round(y, 2)
    model = MDNRegressor(5, **PLAIN | {"max_epochs": 25}).fit(X, whole)
    one = model.diagnose(X, whole)["D-scale-floor"]
    assert one.severity == "warning"
    assert "most where y repeats: " in one.what
    assert "atoms" in one.advice
    exact = MDNRegressor(1, **PLAIN | {"scale_floor": 0.5, "max_epochs": 20}).fit(X, X[:, 0])
    assert "Lower scale_floor" in exact.diagnose(X, X[:, 0])["D-scale-floor"].advice
    assert model.diagnose(X, cents)["D-scale-floor"].severity == "warning"


@pytest.mark.filterwarnings("ignore::mixtura.MixturaWarning")
def test_values_that_repeat_and_what_following_the_advice_does():
    X, y = sine(800, 0)
    X_new, y_new = sine(800, 1)
    y, y_new = np.maximum(y, 0), np.maximum(y_new, 0)
    settings = PLAIN | {"max_epochs": 30}
    found = MDNRegressor(3, **settings).fit(X, y).diagnose(X_new, y_new)
    assert {"D-values-repeat", "D-scale-floor"} <= {one.code for one in found.warnings}
    assert "0 (5" in found["D-values-repeat"].what
    followed = MDNRegressor(3, **settings, atoms="auto").fit(X, y).diagnose(X_new, y_new)
    assert not followed.warnings, followed


def test_restarts_that_end_in_other_optima(four):
    X, y = branches(400, 0)
    model = MDNRegressor(2, **PLAIN | {"n_restarts": 2, "pool_restarts": True, "max_epochs": 20}).fit(X, y)
    assert model.diagnose(X, y)["D-restarts"].severity == "good"
    with torch.no_grad():
        model.networks_[1].head.linear.bias[2] += 0.5  # a loc
    assert model.diagnose(X, y)["D-restarts"].severity == "note"
    kept = copy.deepcopy(four)  # as if it were the best of three
    kept.fit_report_.restart_nlls = [0.5, 0.7, 0.55]
    assert kept.diagnose()["D-restarts"].severity == "note"


def test_training_that_was_cut_off():
    found = MDNRegressor(2, **PLAIN | {"max_epochs": 6}).fit(*sine(400, 0)).diagnose()
    assert found["D-cut-off"].severity == "warning"
    assert "6 epochs" in found["D-cut-off"].what


def test_steps_that_were_skipped(fitted):
    model = copy.deepcopy(fitted)
    assert "D-steps-skipped" not in model.diagnose()
    model.fit_report_.n_skipped_steps = 1
    assert model.diagnose()["D-steps-skipped"].severity == "note"
    model.fit_report_.n_skipped_steps = 400
    assert model.diagnose()["D-steps-skipped"].severity == "warning"


def test_worse_than_the_density_of_y_alone():
    """A network that learned 60 rows by heart; features that say nothing; a model that never left its start."""
    X, y = sine(60, 0)
    by_heart = MDNRegressor(5, **PLAIN, noise=0, validation_fraction=0, max_epochs=150).fit(X, y)
    assert by_heart.diagnose(*sine(800, 1))["D-unconditional"].severity == "warning"
    X, y = sine(800, 0)
    y = np.random.default_rng(2).permutation(y)
    useless = MDNRegressor(2, **PLAIN | {"max_epochs": 20}).fit(X[:400], y[:400])
    assert useless.diagnose(X[400:], y[400:])["D-unconditional"].severity == "note"
    useless.fit_report_.best_epoch = -1
    assert useless.diagnose()["D-unconditional"].severity == "warning"


@pytest.mark.parametrize(("scale", "way"), [(1.5, "narrow"), (0.6, "wide")])
def test_dispersion(fitted, scale, way):
    one = fitted.diagnose(*sine(600, 1, scale))["D-dispersion"]
    assert one.severity == "warning"
    assert f"too {way}" in one.what
    said = int(re.search(r"(\d+)%", one.what).group(1)) / 100
    assert said == pytest.approx(abs(1 / scale - 1), abs=0.12)


def test_the_dispersion_of_normal_forecasts_in_closed_form():
    z = np.random.default_rng(0).normal(size=200_000)
    for scale in (0.7, 1.4):
        said = _as_of_normal(12 * norm.cdf(z / scale).var())
        assert f"{abs(scale - 1):.0%} too {'small' if scale < 1 else 'large'}" in said


def test_bias(fitted):
    X, y = sine(400, 1)
    assert "too low" in fitted.diagnose(X, y + 0.15)["D-bias"].what
    one = fitted.diagnose(X, y - 0.15)["D-bias"]
    assert one.severity == "warning"
    assert "too high" in one.what


def test_another_shape():
    """Two branches so near that one normal law has their mean and, nearly, the variance of their PIT."""
    rng = np.random.default_rng(0)
    x, y = rng.uniform(size=(6000, 1)), rng.choice([-1, 1], 6000) + 0.8 * rng.normal(size=6000)
    one, two = (MDNRegressor(k, **PLAIN | {"max_epochs": 4}).fit(x, y).diagnose(x, y) for k in (1, 2))
    assert "D-shape" in {finding.code for finding in one.warnings}
    assert two["D-shape"].severity == "good"


def test_rows_outside_the_ranges():
    X, y = sine(400, 0)
    table = pd.DataFrame(X, columns=["a", "b"])
    model = MDNRegressor(1, **PLAIN | {"max_epochs": 40}).fit(table, y)
    assert model.diagnose(table, y)["D-extrapolation"].severity == "good"
    one = model.diagnose(table + np.array([0, 1.0]), y)["D-extrapolation"]
    assert one.severity == "warning"
    assert "'b'" in one.what
    assert "'a'" not in one.what
    few = table.copy()
    few.loc[0, "a"] = 9.0
    with pytest.warns(MixturaWarning, match="W-feature-far"):
        assert model.diagnose(few, y)["D-extrapolation"].severity == "note"
    model.partial_fit(table + np.array([0, 1.0]), y)
    assert model.diagnose(table + np.array([0, 1.0]), y)["D-extrapolation"].severity == "good"


def test_the_chance_of_rows_outside_the_ranges():
    """New rows of the same law are no alarm, however many there are."""
    X, y = sine(100, 0)
    model = MDNRegressor(1, **PLAIN | {"max_epochs": 5}).fit(X, y)
    alarms = [model.diagnose(*sine(2000, seed))["D-extrapolation"].severity for seed in (1, 2)]
    assert set(alarms) == {"note"}


def test_categories_and_missing_values_that_training_never_saw():
    X, y = sine(200, 0)
    table = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": np.where(X[:, 1] > 0, "x", "y"), "d": X[:, 0]})
    table.loc[:20, "d"] = np.nan
    model = MDNRegressor(1, **PLAIN | {"max_epochs": 5}).fit(table, y)
    found = model.diagnose(table, y)
    assert not {"D-category-unseen", "D-missing-new"} & {one.code for one in found.findings}
    other = table.copy()
    other.loc[:9, "c"], other.loc[:4, "a"] = "z", np.nan
    with pytest.warns(MixturaWarning) as warned:
        found = model.diagnose(other, y)
    assert {one.message.code for one in warned} == {"W-category-unseen", "W-feature-missing"}
    assert found["D-category-unseen"].what.startswith("10 of 200 rows")
    assert found["D-missing-new"].what.startswith("5 of 200 rows")
    assert "'a'" in found["D-missing-new"].what


def test_censored_targets_counts_atoms_angles_and_families_of_coordinates():
    rng = np.random.default_rng(0)
    X, y = sine(150, 0)
    upper = np.where(y > 1, np.inf, y)
    censored = pd.arrays.IntervalArray.from_arrays(np.minimum(y, 1), upper, closed="both")
    counts, angle = rng.poisson(np.exp(X[:, 0])), np.angle(np.exp(1j * (X[:, 0] + 0.5 * rng.normal(size=150))))
    two = np.c_[y, np.exp(X[:, 1] + 0.3 * rng.normal(size=150))]
    cases = [(censored, {}), (counts, {"family": "poisson"}), (angle, {"family": "von_mises"})]
    cases += [(two, {"family": ["normal", "lognormal"], "covariance_type": "diag"})]
    for target, settings in cases:
        model = MDNRegressor(1, **PLAIN | {"max_epochs": 15} | settings).fit(X, target)
        found = model.diagnose(X, target)
        assert not {"D-dispersion", "D-bias", "D-unconditional"} & {one.code for one in found.warnings}, found


# Docs and command line ------------------------------------------------------------------------------------------


def test_every_finding_has_an_entry_in_the_docs_and_the_other_way_round():
    raised = set(re.findall(r'"(D-[a-z-]+)"', (ROOT / "src" / "mixtura" / "diagnosis.py").read_text()))
    documented = set(re.findall(r"^## (D-[a-z-]+)$", (ROOT / "docs" / "doctor.md").read_text(), re.MULTILINE))
    assert documented == raised


def test_the_command_line(tmp_path):
    X, y = sine(300, 0)
    table = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "y": y})
    table.to_csv("rows.csv", index=False)
    MDNRegressor(2, **PLAIN | {"max_epochs": 40}).fit(table[["a", "b"]], table["y"]).save("model")

    def run(*arguments: str):
        return CliRunner().invoke(app, ["diagnose", *arguments], catch_exceptions=False)

    done = run("model")
    assert done.exit_code == 0
    assert "D-cut-off" in done.stdout
    done = run("model", "rows.csv", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == load("model").diagnose(table[["a", "b"]], table["y"]).to_dict()
    done = run("model", "rows.csv")
    assert "D-dispersion" in done.stdout
    assert "effective components" in done.stdout
    table.drop(columns="y").to_csv("short.csv", index=False)
    done = run("model", "short.csv")
    assert done.exit_code == 1
    assert "E-column-missing" in done.stderr
