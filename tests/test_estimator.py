"""scikit-learn's contract, and the user's: tables in, densities in the user's own units out."""

import pickle
import warnings
from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from mixtura import MDNRegressor, MixturaError, MixturaWarning, Mixture, datasets, load
from mixtura.metrics import neg_nll_scorer

EXPECTED_FAILURES = {
    # As for scikit-learn's own RandomForestRegressor, ExtraTreesRegressor and SGDRegressor: rows are drawn into
    # batches and held out by chance, so that a weight of 2 and a row given twice are the same law, not the same draw.
    "check_sample_weight_equivalence_on_dense_data": "random batches and hold-out",
}


@parametrize_with_checks([MDNRegressor(max_epochs=10)], expected_failed_checks=lambda _: EXPECTED_FAILURES)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def make_data(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n, 2))
    return X, np.sin(3 * X[:, 0]) + (0.1 + 0.2 * (X[:, 1] > 0)) * rng.normal(size=n)


def quick(**parameters) -> MDNRegressor:
    return MDNRegressor(**{"preset": "plain", "n_components": 2, "max_epochs": 25, "random_state": 0, **parameters})


@pytest.fixture(scope="module")
def fitted() -> MDNRegressor:
    return quick(max_epochs=80).fit(*make_data())


# Answers -------------------------------------------------------------------------------------------------------


def test_shapes_and_types_of_the_answers(fitted):
    X, y = make_data(7, seed=1)
    assert fitted.predict(X).shape == (7,)
    mean, std = fitted.predict(X, return_std=True)
    assert std.shape == (7,)
    assert (std > 0).all()
    assert fitted.predict_quantiles(X, [0.1, 0.5, 0.9]).shape == (7, 3)
    assert fitted.predict_interval(X).shape == (7, 2)
    assert fitted.score_samples(X, y).shape == (7,)
    assert fitted.sample(X, 4, random_state=0).shape == (7, 4)
    mixture = fitted.predict_dist(X)
    assert isinstance(mixture, Mixture)
    assert mixture.dtype == torch.float64
    torch.testing.assert_close(mixture.mean, torch.tensor(mean))
    assert all(isinstance(a, np.ndarray) for a in (mean, std, fitted.sample(X)))


def test_joint_targets():
    X, y = make_data()
    Y = np.stack([y, -2 * y + 0.05 * np.random.default_rng(0).normal(size=len(y))], 1)
    model = quick(max_epochs=60).fit(X, Y)
    assert model.predict(X).shape == Y.shape
    assert model.predict(X, return_std=True)[1].shape == Y.shape
    assert model.predict_quantiles(X[:5], [0.1, 0.9]).shape == (5, 2, 2)
    assert model.predict_interval(X[:5], 0.5).shape == (5, 2, 2)
    assert model.sample(X[:5], 3, 0).shape == (5, 3, 2)
    correlation = model.predict_dist(X[:50]).covariance
    correlation = correlation[:, 0, 1] / (correlation[:, 0, 0] * correlation[:, 1, 1]).sqrt()
    assert (correlation < -0.9).all()
    margins = quick(max_epochs=60, covariance_type="diag").fit(X, Y)
    assert model.score_samples(X, Y).mean() > margins.score_samples(X, Y).mean() + 0.5


def test_a_single_column_is_a_scalar_target(fitted):
    X, y = make_data()
    column = quick(max_epochs=80).fit(X, y[:, None])
    assert column.predict(X).shape == (300, 1)
    assert np.array_equal(column.predict(X)[:, 0], fitted.predict(X))
    assert np.array_equal(column.predict_quantiles(X, [0.3]), fitted.predict_quantiles(X, [0.3]))
    assert np.array_equal(column.score_samples(X, y[:, None]), fitted.score_samples(X, y))


def test_the_interval_is_the_central_one_and_covers(fitted):
    X, y = make_data(4000, seed=9)
    interval = fitted.predict_interval(X, 0.8)
    np.testing.assert_allclose(interval, fitted.predict_quantiles(X, [0.1, 0.9]))
    assert 0.7 < np.mean((interval[:, 0] < y) & (y < interval[:, 1])) < 0.9


def test_the_point_prediction_is_the_exact_mean_every_time(fitted):
    """pytorch-tabular's MDN averages 100 draws; lightning-uq-box returns the mean of one random component."""
    X, _ = make_data()
    assert np.array_equal(fitted.predict(X), fitted.predict(X))
    draws = fitted.sample(X[:20], 20_000, random_state=0)
    mean, std = fitted.predict(X[:20], return_std=True)
    assert np.abs(draws.mean(1) - mean).max() < 5 * std.max() / np.sqrt(20_000)


def test_equal_rows_get_equal_weights_wherever_they_stand(fitted):
    """XGBoostLSS adds Gumbel noise to the weights, also in prediction: five equal rows got .028 .098 .536 .449 .019."""
    X, _ = make_data()
    rows = np.concatenate([np.repeat(X[:1], 5, axis=0), X])
    weights = fitted.predict_dist(rows).weights[:5]
    assert torch.equal(weights, weights[:1].expand(5, -1))


def test_two_modes_are_told_apart_from_the_default_start():
    """XGBoostLSS starts all components alike: at modes +-3 its NLL is 5.895, truth 1.452."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 1))
    y = 3.0 * rng.choice([-1, 1], 2000) + 0.5 * rng.normal(size=2000)
    truth = 0.5 * np.log(2 * np.pi * np.e * 0.25) + np.log(2)
    model = quick(max_epochs=40).fit(X[:1500], y[:1500])
    assert -model.score_samples(X[1500:], y[1500:]).mean() < truth + 0.06
    mixture = model.predict_dist([[0.0]])[0]
    torch.testing.assert_close(
        mixture.components.loc.sort().values.float(), torch.tensor([-3.0, 3.0]), atol=0.15, rtol=0
    )
    torch.testing.assert_close(mixture.weights.float(), torch.tensor([0.5, 0.5]), atol=0.08, rtol=0)
    torch.testing.assert_close(mixture.components.scale.float(), torch.tensor([0.5, 0.5]), atol=0.08, rtol=0)
    # the least-squares answer lies where there are no data
    assert mixture.log_prob(mixture.mean).exp() < 0.01


@pytest.mark.parametrize(("loc", "scale"), [(2e5, 2e4), (0.0, 1e-6), (-3e8, 1e3), (1.0, 1e6)])
def test_targets_of_any_scale_fit_alike(fitted, loc, scale):
    """skpro and scikit-mdn do not scale: at 2e5 +- 2e4 the mean log density is -821,488."""
    X, y = make_data()
    model = quick(max_epochs=80).fit(X, loc + scale * y)
    gain = model.score_samples(X, loc + scale * y).mean() + np.log(scale)
    assert gain == pytest.approx(fitted.score_samples(X, y).mean(), abs=0.05)
    # Rounding the target differs, so training does in its last digits; the answers are the same density.
    difference = np.abs(
        (model.predict_quantiles(X, [0.1, 0.9]) - loc) / scale - fitted.predict_quantiles(X, [0.1, 0.9])
    )
    assert np.median(difference) < 0.05
    report = model.fit_report_
    assert report.best_nll - np.log(scale) == pytest.approx(fitted.fit_report_.best_nll, abs=0.05)


@pytest.mark.parametrize(("loc", "scale"), [(1e6, 1e5), (0.0, 1e-6)])
def test_features_of_any_scale_fit_alike(fitted, loc, scale):
    X, y = make_data()
    assert quick(max_epochs=80).fit(loc + scale * X, y).score_samples(loc + scale * X, y).mean() == pytest.approx(
        fitted.score_samples(X, y).mean(), abs=0.05
    )


def test_float32_and_integers_are_taken(fitted):
    X, y = make_data()
    single = quick(max_epochs=80).fit(X.astype(np.float32), y.astype(np.float32))
    assert np.abs(single.predict(X.astype(np.float32)) - fitted.predict(X)).max() < 0.2
    whole = quick().fit((10 * X).astype(int), (100 * y).astype(int))
    assert np.isfinite(whole.predict((10 * X).astype(int))).all()


# Learning ------------------------------------------------------------------------------------------------------


def test_the_same_seed_is_the_same_model_to_the_bit_and_no_global_generator_moves():
    X, y = make_data()
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first, second = quick().fit(X, y), quick().fit(X, y)
    assert np.array_equal(first.predict(X), second.predict(X))
    assert np.array_equal(first.sample(X, 2, 5), second.sample(X, 2, 5))
    quick(random_state=None).fit(X, y).sample(X)
    assert not np.array_equal(first.predict(X), quick(random_state=1).fit(X, y).predict(X))
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_rows_of_weight_0_do_not_count():
    X, y = make_data()
    weight = np.ones(300)
    weight[200:] = 0
    spoiled = y.copy()
    spoiled[200:] = 1e9
    weighted = quick().fit(X, spoiled, sample_weight=weight)
    assert np.array_equal(weighted.predict(X), quick().fit(X[:200], y[:200]).predict(X))


def test_weights_shift_the_density_towards_heavy_rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 1))
    upper = rng.random(1000) < 0.5
    y = np.where(upper, 1.0, -1.0) + 0.1 * rng.normal(size=1000)
    model = quick(max_epochs=60).fit(X, y, sample_weight=np.where(upper, 9.0, 1.0))
    assert 1 - model.predict_dist([[0.0]]).cdf(torch.tensor([0.0])).item() == pytest.approx(0.9, abs=0.05)


def test_eval_set_decides_when_to_stop():
    X, y = make_data()
    model = quick(max_epochs=40).fit(X, y, eval_set=make_data(100, seed=2))
    assert (model.fit_report_.n_train_rows, model.fit_report_.n_valid_rows) == (300, 100)
    with pytest.raises(MixturaError, match=r"\[E-eval-set\]"):
        quick().fit(X, y, eval_set=X)


def test_scale_floor_is_in_units_of_the_target():
    X, y = make_data()
    assert (quick(scale_floor=50.0).fit(X, 1000 * y).predict_dist(X).components.scale >= 50 * (1 - 1e-6)).all()


def test_few_rows_fit():
    for n in (2, 3, 10):
        X, y = make_data(n)
        assert np.isfinite(quick().fit(X, y).predict_quantiles(X, [0.01, 0.99])).all()


# Tables --------------------------------------------------------------------------------------------------------


def make_table(n: int = 400, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "size": rng.uniform(0, 1, n),
            "city": pd.Categorical(rng.choice(["Ulm", "Bonn", "Kiel"], n)),
            "kind": rng.choice(["a", "b"], n),
            "new": rng.random(n) < 0.5,
            "rooms": pd.array(rng.integers(1, 5, n), dtype="Int64"),
        }
    )
    price = 2 * table["size"] + 3.0 * (table["city"] == "Bonn") + (table["kind"] == "b") + 0.5 * table["new"]
    table.loc[::7, "size"] = np.nan
    table.loc[::11, "city"] = None
    table.loc[::13, "rooms"] = pd.NA
    return table, pd.Series(price + 0.1 * rng.normal(size=n), name="price")


def test_categories_booleans_and_missing_values_are_taken_as_they_are():
    table, price = make_table()
    model = quick(max_epochs=80).fit(table, price)
    new, truth = make_table(500, seed=1)
    assert model.score(new, truth) > 0.8
    assert list(model.feature_names_in_) == list(table.columns)
    assert model.target_names_ == ["price"]
    # the plain-object spelling of the same table gives the same answer
    assert np.array_equal(model.predict(new.astype({"city": object, "rooms": float})), model.predict(new))


def test_categories_alone_and_numbers_alone():
    table, price = make_table()
    for columns in (["city", "kind"], ["size"], ["new"], ["rooms", "size"]):
        model = quick().fit(table[columns], price)
        assert model.predict(table[columns]).shape == (400,)


def test_missing_values_that_fit_never_saw_are_imputed():
    X, y = make_data()
    model = quick().fit(X, y)
    holes = X.copy()
    holes[:5, 0] = np.nan
    with pytest.warns(MixturaWarning, match=r"\[W-feature-missing\] got missing values in column '0' \(5 rows\)"):
        assert np.isfinite(model.predict(holes)).all()
    frame = pd.DataFrame(X, columns=["a", "b"])
    with pytest.warns(MixturaWarning, match=r"\[W-feature-missing\].*column 'a'"):
        assert np.isfinite(quick().fit(frame, y).predict(pd.DataFrame(holes, columns=["a", "b"]))).all()


def test_unseen_categories_are_told_and_predicted_as_unknown():
    table, price = make_table()
    model = quick().fit(table, price)
    new = table.head(3).copy()
    new["kind"] = ["a", "z", "z"]
    with pytest.warns(MixturaWarning, match=r"\[W-category-unseen\] got 'z' in column 'kind' \(2 rows\)"):
        assert np.isfinite(model.predict(new)).all()


def test_a_column_of_many_levels_keeps_the_frequent_ones():
    rng = np.random.default_rng(0)
    levels = np.concatenate([np.repeat([f"often{i}" for i in range(20)], 20), [f"once{i}" for i in range(300)]])
    y = rng.normal(size=700)
    model = quick(max_epochs=2).fit(pd.DataFrame({"id": levels}), y)
    column = model.encoder_.columns_[0]
    assert len(column.levels) == 100
    assert "levels beyond the 100 most frequent, as unknown ones, in 'id'" in model.fit_report_.events
    assert all(f"often{i}" in column.levels for i in range(20))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(pd.DataFrame({"id": ["once299", "never"]}))


def test_categories_that_are_numbers_are_still_categories():
    rng = np.random.default_rng(0)
    zone = rng.integers(0, 8, 400)
    y = 10.0 * rng.permutation(8)[zone] + 0.1 * rng.normal(size=400)
    as_category = pd.DataFrame({"zone": pd.Categorical(zone)})
    model = quick(n_components=1, max_epochs=40).fit(as_category, y)
    assert model.encoder_.n_encoded == 8
    assert model.score(as_category, y) > 0.99
    with pytest.warns(MixturaWarning, match="'99'"):
        model.predict(pd.DataFrame({"zone": pd.Categorical([99])}))


def test_numbers_held_as_objects_are_numbers():
    X, y = make_data()
    table = pd.DataFrame({"a": [Decimal(str(value)) for value in X[:, 0]], "b": list(X[:, 1])}, dtype=object)
    assert quick(max_epochs=2).fit(table, y).encoder_.n_encoded == 2
    assert np.isfinite(quick(max_epochs=2).fit(X, pd.Series(list(y), dtype=object)).predict(X)).all()
    assert np.isfinite(quick(max_epochs=2).fit(X, pd.DataFrame(np.c_[y, X], columns=["a", "a", "b"])).predict(X)).all()


def test_constant_columns_do_no_harm():
    X, y = make_data()
    model = quick().fit(np.hstack([X, np.full((300, 1), 1e9)]), y)
    assert np.isfinite(model.predict(np.hstack([X, np.full((300, 1), 1e9)]))).all()


# scikit-learn's company ----------------------------------------------------------------------------------------


def test_clone_pickle_pipeline_and_search(fitted):
    X, y = make_data()
    assert clone(fitted).get_params() == fitted.get_params()
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).predict(X), fitted.predict(X))
    pipeline = make_pipeline(StandardScaler(), quick()).fit(X, y)
    assert pipeline.predict(X).shape == (300,)
    assert neg_nll_scorer(pipeline, X, y) == pytest.approx(
        pipeline[-1].score_samples(pipeline[0].transform(X), y).mean()
    )
    search = GridSearchCV(quick(max_epochs=10), {"n_components": [1, 3]}, scoring=neg_nll_scorer, cv=2).fit(X, y)
    assert search.best_score_ == max(search.cv_results_["mean_test_score"])
    assert cross_val_score(quick(max_epochs=10), X, y, cv=2).shape == (2,)
    log = TransformedTargetRegressor(quick(), func=np.exp, inverse_func=np.log).fit(X, y)
    assert log.predict(X).shape == (300,)


def test_the_scorer_looks_through_pipelines_and_searches():
    X, y = make_data(120)
    search = GridSearchCV(quick(max_epochs=2), {"n_components": [1, 2]}, scoring=neg_nll_scorer, cv=2)
    assert np.isfinite(cross_val_score(search, X, y, scoring=neg_nll_scorer, cv=2)).all()
    model = quick(max_epochs=2)
    direct = neg_nll_scorer(model.fit(X, y), X, y)
    assert neg_nll_scorer(make_pipeline(clone(model)).fit(X, y), X, y) == direct
    assert neg_nll_scorer(make_pipeline(make_pipeline(clone(model))).fit(X, y), X, y) == direct


def test_numpy_numbers_are_parameters_like_any():
    X, y = make_data(100)
    plain = quick(batch_size=9, validation_fraction=0.25, max_epochs=3).fit(X, y)
    typed = quick(
        batch_size=np.int16(9),
        validation_fraction=np.float64(0.25),
        max_epochs=np.int64(3),
        n_components=np.int8(2),
        learning_rate=np.float32(5e-3),
        verbose=np.False_,
    ).fit(X, y)
    np.testing.assert_allclose(typed.predict(X), plain.predict(X), rtol=1e-4, atol=1e-5)
    assert np.isfinite(quick(validation_fraction=0.99, max_epochs=2).fit(X, y).predict(X)).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.filterwarnings("ignore:.*W-repeated-values")
def test_a_zero_inflated_target_is_learned(seed):
    """The start has a spike at 0, which steps of one size for all would throw off."""
    rng = np.random.default_rng(2)
    x = rng.uniform(-1, 1, 1500)
    y = np.where(rng.random(1500) < 1 / (1 + np.exp(-4 * x)), 0, 5 * x + rng.normal(size=1500))
    model = MDNRegressor(preset="plain", random_state=seed, max_epochs=60).fit(x[:, None], y)
    assert model.fit_report_.best_nll < model.fit_report_.start_nll - 0.3
    low, high = model.predict([[-0.9], [0.9]])
    assert low < -3
    assert high > -0.5


@pytest.mark.parametrize("n_components", [2, 5, 8])
def test_joint_binary_targets_fit(n_components):
    rng = np.random.default_rng(0)
    first = rng.random(200) < 0.5
    Y = np.c_[first, np.where(rng.random(200) < 0.1, ~first, first)].astype(float)
    model = quick(n_components=n_components, max_epochs=5).fit(rng.normal(size=(200, 1)), Y)
    assert np.isfinite(model.score_samples(np.zeros((200, 1)), Y)).all()


def test_torch_settings_of_the_user_do_not_matter():
    X, y = make_data(100)
    plain = quick(max_epochs=3).fit(X, y).predict(X)
    with torch.no_grad():
        assert np.array_equal(quick(max_epochs=3).fit(X, y).predict(X), plain)
    with torch.inference_mode():
        assert np.array_equal(quick(max_epochs=3).fit(X, y).predict(X), plain)
    torch.set_default_dtype(torch.float64)
    try:
        assert np.isfinite(quick(max_epochs=3).fit(X, y).predict(X)).all()
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_spread_far_outside_the_data_stays_in_proportion():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 1))
    y = X[:, 0] + rng.normal(size=400)
    model = quick(max_epochs=60).fit(X, y)
    far = 2 * X.max() - X.min()  # as far from the range as this is wide
    with pytest.warns(MixturaWarning, match=r"\[W-feature-far\] got numbers in column '0' \(1 rows\)"):
        mean, std = model.predict([[100.0]], return_std=True)
    assert std[0] < 1000
    assert (mean[0], std[0]) == pytest.approx([*np.ravel(model.predict([[far]], return_std=True))])


@pytest.mark.parametrize(("spread", "loss"), [(0.0, 0.3), (1e-9, 6)])
def test_a_feature_that_was_constant_says_nothing_when_it_changes(spread, loss):
    rng = np.random.default_rng(0)
    X = np.c_[rng.normal(size=400), 1.0 + spread * rng.normal(size=400)]
    y = X[:, 0] + 0.5 * rng.normal(size=400)
    model = quick(max_epochs=60).fit(X[:300], y[:300])
    changed = X[300:] + np.array([0.0, 1e3])
    with pytest.warns(MixturaWarning, match="W-feature-far"):
        nll = -model.score_samples(changed, y[300:]).mean()
    assert nll < -model.score_samples(X[300:], y[300:]).mean() + loss
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(X * (1 + 1e-15))  # rounding is no change
        model.predict(np.float32(X[:300]))


def test_a_feature_that_was_constant_stays_so_in_partial_fit():
    rng = np.random.default_rng(0)
    X = np.c_[rng.normal(size=200), np.ones(200)]
    y = X[:, 0] + 0.5 * rng.normal(size=200)
    model = quick(max_epochs=40).fit(X, y)
    changed = X + np.array([0.0, 1e3])
    with pytest.warns(MixturaWarning, match="W-feature-far"):
        model.partial_fit(changed, y)
    with pytest.warns(MixturaWarning, match="W-feature-far"):
        means = model.predict(changed)
    assert np.array_equal(means, model.predict(X))


def test_many_rows_with_an_offset_keep_their_scale():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 1))
    y = 1.7e9 + 0.01 * (X[:, 0] + rng.normal(size=20_000))  # scikit-learn would call this constant
    model = quick(max_epochs=3).fit(1.7e9 + 0.01 * X, y)
    assert np.asarray(model.y_scaler_.scale_)[0] == pytest.approx(0.01 * 2**0.5, rel=0.05)
    assert np.asarray(model.encoder_.scaler_.scale_)[0] == pytest.approx(0.01, rel=0.05)
    assert model.predict(1.7e9 + 0.01 * X, return_std=True)[1].mean() < 0.013


def test_scorer_takes_weights(fitted):
    X, y = make_data()
    weight = np.arange(300.0)
    expected = np.average(fitted.score_samples(X, y), weights=weight)
    assert neg_nll_scorer(fitted, X, y, sample_weight=weight) == pytest.approx(expected)


# What cannot be fitted says why --------------------------------------------------------------------------------

X0, Y0 = make_data(40)
TABLE, PRICE = make_table(40)


@pytest.mark.parametrize(
    ("code", "X", "y", "parameters"),
    [
        ("E-parameter", X0, Y0, {"n_components": 0}),
        ("E-parameter", X0, Y0, {"n_components": 2.5}),
        ("E-family-unknown", X0, Y0, {"family": "cauchy"}),
        ("E-parameter", X0, Y0, {"covariance_type": "tied"}),
        ("E-parameter", X0, Y0, {"hidden_layer_sizes": (64, 0)}),
        ("E-parameter", X0, Y0, {"learning_rate": 0}),
        ("E-parameter", X0, Y0, {"random_state": "seed"}),
        ("E-parameter", X0, Y0, {"validation_fraction": 1.0}),
        ("E-head-parameter", X0, Y0, {"weight_floor": 0.6}),
        ("E-target-missing", X0, None, {}),
        ("E-target-nan", X0, np.where(np.arange(40) == 3, np.nan, Y0), {}),
        ("E-target-infinite", X0, np.where(np.arange(40) == 3, np.inf, Y0), {}),
        ("E-target-text", X0, pd.Series(["cheap", "dear"] * 20, name="price"), {}),
        ("E-target-type", X0, np.array(["cheap", "dear"] * 20), {}),
        ("E-target-shape", X0, np.zeros((40, 2, 2)), {}),
        ("E-target-constant", X0, np.full(40, 7.0), {}),
        ("E-target-constant", X0, np.stack([Y0, np.ones(40)], 1), {}),
        ("E-target-scale", X0, 1e200 * Y0, {}),
        ("E-target-scale", X0, 1e-200 * Y0, {}),
        ("E-target-scale", X0, 1e14 + Y0.round(1), {}),
        ("E-input-length", X0, Y0[:39], {}),
        ("E-too-few-rows", X0[:1], Y0[:1], {}),
        ("E-features", X0[:0], Y0[:0], {}),
        ("E-features", np.where(X0 > 0.9, np.inf, X0), Y0, {}),
        ("E-feature-infinite", pd.DataFrame(np.where(X0 > 0.9, np.inf, X0)), Y0, {}),
        ("E-feature-empty", np.stack([X0[:, 0], np.full(40, np.nan)], 1), Y0, {}),
        ("E-feature-empty", TABLE.assign(kind=None), PRICE, {}),
        ("E-feature-date", TABLE.assign(when=pd.Timestamp("2026-01-01")), PRICE, {}),
        ("E-feature-date", TABLE.assign(when="2026-01-01 12:30:00"), PRICE, {}),
        ("E-feature-date", TABLE.assign(when="01/31/2026"), PRICE, {}),
        ("E-feature-date", TABLE.assign(when=[date(2026, 1, 31)] * 40), PRICE, {}),
        ("E-feature-date", TABLE.assign(when=pd.period_range("2020", periods=40)), PRICE, {}),
        ("E-feature-type", TABLE.assign(both=[[1, 2]] * 40), PRICE, {}),
        ("E-feature-type", TABLE.assign(raw=[b"a"] * 40), PRICE, {}),
        ("E-feature-type", TABLE.assign(wave=1j), PRICE, {}),
        ("E-feature-infinite", 1e200 * X0, Y0, {}),
        ("E-features", csr_array(X0), Y0, {}),
        ("E-features", pd.DataFrame(X0, columns=[0, "a"]), Y0, {}),
        ("E-target-type", X0, pd.Series(pd.date_range("2026", periods=40), name="when"), {}),
        ("E-target-type", X0, pd.Series([date(2026, 1, 31)] * 40), {}),
        ("E-target-type", X0, csr_array(X0), {}),
        ("E-target-type", X0, np.arange("2026-01", "2029-05", dtype="M8[M]"), {}),
        ("E-feature-date", np.arange("2026-01", "2029-05", dtype="M8[M]")[:, None], Y0, {}),
        ("E-feature-type", TABLE.assign(wave=pd.Series([1j, 2.0] * 20, dtype=object)), PRICE, {}),
        ("E-parameter", X0, Y0, {"random_state": 2**32}),
        ("E-family-unknown", X0, Y0, {"family": ["normal"]}),
        ("E-parameter", X0, Y0, {"covariance_type": ["full"]}),
    ],
)
def test_errors_are_coded(code, X, y, parameters):
    with pytest.raises(MixturaError) as caught:
        quick(**parameters).fit(X, y)
    assert caught.value.code == code
    assert all(part in str(caught.value) for part in (f"[{code}] got ", "expected ", "Fix: "))


def test_errors_of_the_answers_are_coded(fitted):
    for code, ask in {
        "E-coverage-range": lambda: fitted.predict_interval(X0, 90),
        "E-quantile-range": lambda: fitted.predict_quantiles(X0, [5, 95]),
        "E-parameter": lambda: fitted.sample(X0, 2, -1),
        "E-scorer": lambda: neg_nll_scorer(StandardScaler(), X0, Y0),
        "E-features": lambda: fitted.predict(X0[:, :1]),
        "E-target-shape": lambda: fitted.score_samples(X0, np.zeros((40, 2))),
        "E-input-length": lambda: fitted.score_samples(X0, Y0[:3]),
        "E-not-fitted": lambda: quick().predict(X0),
    }.items():
        with pytest.raises(MixturaError) as caught:
            ask()
        assert caught.value.code == code
    table_model = quick(max_epochs=2).fit(TABLE, PRICE)
    with pytest.raises(MixturaError, match=r"\[E-feature-type\].*'size'"):
        table_model.predict(TABLE.assign(size="large"))
    with pytest.raises(MixturaError, match=r"\[E-feature-type\].*dates"):
        table_model.predict(TABLE.assign(size=pd.Timestamp("2026-01-01")))
    with pytest.raises(MixturaError, match=r"\[E-features\]"):
        table_model.predict(TABLE.to_numpy())
    with pytest.raises(MixturaError, match=r"\[E-parameter\]"):
        fitted.sample(X0, 0)
    with pytest.raises(MixturaError, match=r"\[E-sample-weight\]"):
        quick().fit(X0, Y0, sample_weight=-np.ones(40))
    with pytest.raises(MixturaError, match=r"\[E-sample-weight\]"):
        quick().fit(X0, Y0, sample_weight=np.zeros(40))
    with pytest.raises(MixturaError, match=r"\[E-too-few-rows\]"):
        quick().fit(X0, Y0, sample_weight=np.arange(40) == 7)


def test_a_fit_that_fails_leaves_the_model_as_it_was():
    model = quick(max_epochs=2).fit(TABLE, PRICE)
    before = model.predict(TABLE)
    for X, y in ((X0, np.full(40, np.nan)), (X0, np.full(40, 1.0)), (X0[:1], Y0[:1])):
        with pytest.raises(MixturaError):
            model.fit(X, y)
    assert np.array_equal(model.predict(TABLE), before)
    with pytest.raises(MixturaError, match=r"\[E-not-fitted\]"):
        _predict_after_failure()


def _predict_after_failure():
    model = quick()
    with pytest.raises(MixturaError):
        model.fit(X0, np.full(40, 1.0))
    model.predict(X0)


def test_a_constant_target_is_named():
    with pytest.raises(MixturaError, match="'price'"):
        quick().fit(TABLE, pd.Series(np.ones(40), name="price"))


# Restarts ------------------------------------------------------------------------------------------------------


def test_of_several_restarts_the_best_is_kept_and_the_first_is_the_run_without_restarts():
    X, y = datasets.make_inverse_sine(400)
    settings = {"preset": "plain", "hidden_layer_sizes": (16,), "max_epochs": 20, "random_state": 0}
    model, alone = MDNRegressor(n_restarts=3, **settings).fit(X, y), MDNRegressor(**settings).fit(X, y)
    report = model.fit_report_
    assert len(set(report.restart_nlls)) == len(report.restart_active_components) == 3
    assert report.best_nll == pytest.approx(min(report.restart_nlls))
    assert report.restart_nlls[0] == pytest.approx(alone.fit_report_.best_nll, abs=0.02)
    assert all(1 <= n <= 5 for n in report.restart_active_components)
    assert sum(report.component_usage) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("atoms", [None, "auto"])
def test_pooled_restarts_answer_with_all_components_and_come_back_from_disk(atoms, tmp_path):
    X, y = datasets.make_inverse_sine(400)
    if atoms:
        y = np.maximum(y, 0.3)
    model = MDNRegressor(
        2, preset="plain", n_restarts=3, pool_restarts=True, atoms=atoms, max_epochs=5, random_state=0
    ).fit(X, y)
    mixture = model.predict_dist(X)
    assert mixture.n_components == 6
    assert model.score_samples(X, y).mean() > -1
    if atoms:
        assert mixture.cdf(torch.tensor(0.3)).min() - mixture.cdf(torch.tensor(0.3 - 1e-9)).max() < 1
        assert model.score_samples(X[:1], [0.3])[0] < 0  # the log of a probability
    model.save(tmp_path / "model")
    assert np.array_equal(load(tmp_path / "model").score_samples(X, y), model.score_samples(X, y))


def test_partial_fit_goes_on_from_what_is_known():
    X, y = datasets.make_inverse_sine(900)
    settings = {"preset": "plain", "n_components": 3, "hidden_layer_sizes": (16,), "random_state": 0}
    first = MDNRegressor(**settings, max_epochs=60).partial_fit(X[:100], y[:100])
    before = first.score_samples(X[450:], y[450:]).mean()
    mean = first.y_scaler_.mean_.copy()
    second = clone(first).fit(X[:100], y[:100])
    assert np.array_equal(first.predict(X), second.predict(X))
    unconditional = first.fit_report_.start_nll
    first.partial_fit(X[100:], y[100:])
    assert np.array_equal(first.y_scaler_.mean_, mean)
    assert first.fit_report_.best_nll < first.fit_report_.start_nll < unconditional - 0.3
    after = first.score_samples(X[450:], y[450:]).mean()
    assert after > before
    with pytest.raises(MixturaError, match="E-features"):
        first.partial_fit(np.c_[X, X], y)
    assert first.score_samples(X[450:], y[450:]).mean() == after
    once = MDNRegressor(**settings, max_epochs=1, pool_restarts=True, n_restarts=2).fit(X, y).partial_fit(X, y)
    assert len(once.networks_) == 2
