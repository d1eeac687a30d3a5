"""Targets of every kind: families with a support, atoms, censored values."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import ExpTransform

from mixtura import FAMILIES, MDNRegressor, MixturaError, MixturaWarning, families, load
from mixtura.families import ScalarFamily, WarpedFamily, describe, from_description
from mixtura.targets import as_target, find_atoms

RNG = np.random.default_rng(0)
N = 300
X = RNG.uniform(-1, 1, (N, 2))
RATE = np.exp(0.5 + X[:, 0])
TARGETS = {
    "normal": RATE + RNG.normal(size=N),
    "student_t": RATE + RNG.standard_t(3, N),
    "laplace": 1e5 * (RATE + RNG.laplace(size=N)),
    "asymmetric_laplace": RATE + RNG.exponential(size=N),
    "logistic": RATE + RNG.logistic(size=N),
    "lognormal": 1e4 * np.exp(X[:, 0] + 0.3 * RNG.normal(size=N)),
    "gamma": 1e-3 * RNG.gamma(2, RATE),
    "beta": RNG.beta(RATE, 2),
    "truncated_normal": np.abs(RATE + RNG.normal(size=N)),
    "von_mises": RNG.vonmises(2 * X[:, 0], 3),
    "poisson": RNG.poisson(3 * RATE).astype(float),
    "negative_binomial": RNG.negative_binomial(3, 0.3, N).astype(float),
}


def small(**parameters) -> MDNRegressor:
    settings = {"preset": "plain", "n_components": 2, "max_epochs": 3, "hidden_layer_sizes": (16,), "random_state": 0}
    return MDNRegressor(**settings | parameters)


def test_every_scalar_family_that_has_a_name_is_tried():
    assert set(TARGETS) == {f.name for f in FAMILIES if isinstance(f, ScalarFamily)} - {"warped"}


@pytest.mark.parametrize("name", TARGETS)
def test_every_family_learns_and_comes_back_from_disk(name, tmp_path):
    y = TARGETS[name]
    model = small(family=name).fit(X, y)
    report = model.fit_report_
    assert report.best_nll < report.start_nll
    mixture = model.predict_dist(X)
    assert mixture.family.name == name
    assert np.isfinite(model.score_samples(X, y)).all()
    assert -model.score_samples(X, y).mean() == pytest.approx(report.best_nll, abs=0.6)  # the user's units in both
    levels = mixture.cdf(torch.as_tensor(model.predict_quantiles(X, [0.1, 0.9]).T))
    assert (levels >= torch.tensor([[0.1], [0.9]], dtype=torch.float64) - 1e-9).all()
    model.save(tmp_path / "model")
    assert np.array_equal(load(tmp_path / "model").score_samples(X, y), model.score_samples(X, y))


@pytest.mark.parametrize(
    ("family", "y"),
    [
        (families.BetaFamily(bounds=(0.0, 5.0)), 5 * TARGETS["beta"]),
        (families.VonMisesFamily(bounds=(0.0, 360.0)), np.degrees(TARGETS["von_mises"]) % 360),
        (families.TruncatedNormalFamily(bounds=(-1.0, 2.0)), TARGETS["normal"].clip(-1, 2)),
        (families.StudentTFamily(df_floor=1.0), TARGETS["student_t"]),
        (WarpedFamily(families.NormalFamily(), ExpTransform()), TARGETS["gamma"]),
    ],
    ids=lambda value: repr(value) if isinstance(value, families.Family) else "",
)
@pytest.mark.filterwarnings("ignore:.*W-repeated-values")
def test_options_hold_in_the_users_units(family, y, tmp_path):
    model = small(family=family).fit(X, y)
    components = model.predict_dist(X[:3]).components
    if hasattr(family, "bounds"):
        assert (components.low == family.bounds[0]).all()
        assert (components.high == family.bounds[1]).all()
    assert np.isfinite(model.score_samples(X, y)).all()  # values at the bounds, too
    model.save(tmp_path / "model")
    assert load(tmp_path / "model").family == family
    assert np.array_equal(load(tmp_path / "model").score_samples(X, y), model.score_samples(X, y))


def test_joint_targets_of_mixed_families(tmp_path):
    Y = np.stack([TARGETS["gamma"], TARGETS["von_mises"], TARGETS["poisson"]], 1)
    model = small(family=("gamma", families.VonMisesFamily(), "poisson")).fit(X, Y)
    mixture = model.predict_dist(X)
    assert [mixture.marginal(dim).family.name for dim in range(3)] == ["gamma", "von_mises", "poisson"]
    assert np.isfinite(model.score_samples(X, Y)).all()
    assert model.predict_interval(X[:4]).shape == (4, 3, 2)
    model.save(tmp_path / "model")
    assert np.array_equal(load(tmp_path / "model").score_samples(X, Y), model.score_samples(X, Y))


@pytest.mark.parametrize(
    "parameters",
    [{"covariance_type": "low_rank"}, {"family": "student_t"}, {"family": families.LowRankNormalFamily(2)}],
)
def test_joint_targets_of_other_laws(parameters):
    Y = np.stack([TARGETS["normal"], 100 * TARGETS["logistic"]], 1)
    model = small(**parameters).fit(X, Y)
    assert model.fit_report_.best_nll < model.fit_report_.start_nll
    assert np.isfinite(model.score_samples(X, Y)).all()


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_families_come_back_from_their_descriptions(family):
    assert from_description(describe(family)) == family


@pytest.mark.parametrize(
    ("name", "y"), [("gamma", -1.0), ("lognormal", 0.0), ("beta", 1.5), ("poisson", 0.5), ("von_mises", 4.0)]
)
def test_values_outside_of_the_support_are_told(name, y):
    target = TARGETS[name].copy()
    target[7] = y
    with pytest.raises(MixturaError) as caught:
        small(family=name).fit(X, target)
    assert caught.value.code == "E-target-support"
    assert "1 of 300" in str(caught.value)


# Atoms ---------------------------------------------------------------------------------------------------------


def with_atoms() -> np.ndarray:
    rng = np.random.default_rng(1)
    y = rng.gamma(2, RATE)
    y[rng.uniform(size=N) < 0.3 + 0.3 * X[:, 0]] = 0.0
    y[rng.uniform(size=N) < 0.1] = 7.1
    return y


@pytest.mark.parametrize("family", ["normal", "gamma", "lognormal"])
def test_atoms_are_found_learned_reported_and_saved(family, tmp_path):
    y = with_atoms()
    model = small(family=family, atoms="auto", max_epochs=30).fit(X, y)
    assert model.atoms_.tolist() == [0.0, 7.1]
    assert "0 (" in model.fit_report_.events[0]
    mixture = model.predict_dist(X)
    assert mixture.atoms[0].tolist() == [0.0, 7.1]  # to the bit: a value that was given is recognised
    at_zero = mixture.log_prob(torch.zeros(N)).exp().numpy()
    assert at_zero[X[:, 0] > 0.5].mean() > at_zero[X[:, 0] < -0.5].mean() + 0.15
    assert np.isfinite(model.score_samples(X, y)).all()
    assert -model.score_samples(X, y).mean() == pytest.approx(model.fit_report_.best_nll, abs=0.3)
    model.save(tmp_path / "model")
    assert np.array_equal(load(tmp_path / "model").score_samples(X, y), model.score_samples(X, y))


@pytest.mark.filterwarnings("ignore:.*W-repeated-values")
def test_atoms_may_be_given_and_are_not_sought_otherwise():
    y = with_atoms()
    assert small(atoms=[0.0]).fit(X, y).atoms_.tolist() == [0.0]
    assert small().fit(X, y).predict_dist(X).atoms is None
    assert small(atoms="auto").fit(X, TARGETS["normal"]).predict_dist(X).atoms is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.r_[np.zeros(200), RNG.gamma(2, 1, 300)], [0.0]),
        (np.r_[RNG.normal(500, 100, 400).clip(None, 600)], [600.0]),
        (RNG.poisson(5, 500).astype(float), []),  # all values repeat: none stands out
        (RNG.normal(size=500).round(1), []),
        (np.r_[RNG.uniform(0, 20, 600).round(2), RNG.integers(1, 20, 600)], [float(k) for k in range(1, 20)]),
        (RNG.normal(size=500), []),
    ],
    ids=["rain", "capped", "counts", "rounded", "whole dollars", "continuous"],
)
def test_what_repeats_beyond_a_continuous_law_is_an_atom(values, expected):
    assert find_atoms(as_target(values), np.ones(len(values))) == expected


def test_few_values_are_all_atoms_where_atoms_are_sought():
    y = (X[:, 0] + RNG.normal(size=N) > 0).astype(float)
    model = small(atoms="auto", max_epochs=30).fit(X, y)
    assert model.atoms_.tolist() == [0.0, 1.0]
    p = model.predict_dist(X).log_prob(torch.tensor(y)).exp()
    assert (p <= 1).all()
    assert p.mean() > 0.55
    assert not any("came back" in event for event in model.fit_report_.events)  # the components have no rows
    assert model.diagnose(X, y)["D-components-dead"].severity == "good"
    grades = np.r_[np.repeat([1.0, 2.0, 3.0, 4.0], N // 4)[: N - 1], 6.0]
    assert small(atoms="auto").fit(X, grades).atoms_.tolist() == [1, 2, 3, 4, 6]
    assert small(atoms="auto").fit(X[:18], np.arange(18.0)).predict_dist(X).atoms is None


def test_atoms_of_a_vector_target_are_refused():
    with pytest.raises(MixturaError) as caught:
        small(atoms=[0.0]).fit(X, np.stack([TARGETS["normal"], TARGETS["gamma"]], 1))
    assert caught.value.code == "E-parameter"


# Censored targets ----------------------------------------------------------------------------------------------


def intervals(lower: np.ndarray, upper: np.ndarray) -> pd.Series:
    return pd.Series(pd.arrays.IntervalArray.from_arrays(lower, upper, closed="both"), name="hours")


@pytest.mark.filterwarnings("ignore:.*W-repeated-values")
def test_a_censored_target_is_learned_where_a_naive_one_is_biased():
    rng = np.random.default_rng(2)
    truth = RATE + 0.3 * rng.normal(size=N)
    seen = np.minimum(truth, 1.6)
    y = intervals(seen, np.where(truth > 1.6, np.inf, seen))
    settings = {"preset": "plain", "n_components": 1, "max_epochs": 60}
    honest, naive = small(**settings).fit(X, y), small(**settings).fit(X, seen)
    errors = [np.abs(model.predict(X) - RATE).mean() for model in (honest, naive)]
    assert errors[0] < 0.5 * errors[1]
    assert honest.target_names_ == ["hours"]
    scores = honest.score_samples(X, y)
    assert np.isfinite(scores).all()
    assert (scores[truth > 1.6] <= 0).all()  # logs of probabilities
    assert -scores.mean() == pytest.approx(honest.fit_report_.best_nll, abs=0.3)


def test_left_and_interval_censored_targets_and_eval_sets():
    y = TARGETS["normal"]
    cases = [intervals(np.full(N, -np.inf), y), intervals(np.floor(y), np.floor(y) + 1), intervals(y, y)]
    for target in cases:
        model = small().fit(X, target, eval_set=(X[:50], target[:50]))
        assert np.isfinite(model.fit_report_.best_nll)
    same = small().fit(X, y, eval_set=(X[:50], y[:50]))
    assert model.fit_report_.best_nll == pytest.approx(same.fit_report_.best_nll, rel=1e-4)


def test_intervals_that_say_nothing_are_told():
    for lower, upper, code in (
        (np.full(N, -np.inf), np.full(N, np.inf), "E-target-infinite"),
        (np.full(N, np.nan), np.full(N, np.nan), "E-target-nan"),
    ):
        with pytest.raises(MixturaError) as caught:
            small().fit(X, intervals(lower, upper))
        assert caught.value.code == code


def test_repeated_values_are_named_unless_they_are_atoms():
    y = with_atoms()
    with pytest.warns(MixturaWarning, match=r'\[W-repeated-values\] got values .*: 0 \(29\.7%\).*atoms="auto"'):
        small(max_epochs=1).fit(X, y)
    small(max_epochs=1, atoms="auto").fit(X, y)


def test_no_component_shrinks_onto_the_grid_of_a_rounded_target():
    """Without a floor from the data the likelihood grows as scales fall: spikes on the grid, and nothing between."""
    y = TARGETS["normal"]
    settings = {"preset": "plain", "n_components": 8, "max_epochs": 150}
    spiky, sound = (small(scale_floor=floor, **settings).fit(X, y.round()) for floor in (1e-6, None))
    assert spiky.predict_dist(X).split().stddev.min() < 0.01
    assert sound.predict_dist(X).split().stddev.min() >= 0.999 / np.sqrt(12)
    assert any("distinct values" in event for event in sound.fit_report_.events)
    assert sound.score_samples(X, y).mean() > spiky.score_samples(X, y).mean() + 1  # of y before it was rounded
    smooth = small(max_epochs=1).fit(X, y)
    assert not any("distinct values" in event for event in smooth.fit_report_.events)
