"""Choosing the number of components."""

from collections import Counter

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from matplotlib.figure import Figure

from mixtura import MDNRegressor, MixturaError, load, plots, select_components

FAST = {
    "preset": "plain",
    "hidden_layer_sizes": (16,),
    "max_epochs": 60,
    "batch_size": 64,
    "patience": 10,
    "random_state": 0,
}


def planted(n_components: int, n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Components of sd .12, one unit apart, whose means all rise with x."""
    rng = np.random.default_rng(seed)
    x, k = rng.uniform(-1, 1, (n, 1)), rng.integers(0, n_components, n)
    return x, k - (n_components - 1) / 2 + 0.3 * x[:, 0] + 0.12 * rng.normal(size=n)


@pytest.mark.parametrize("criterion", ["cv", "heldout", "bic", "prune"])
def test_planted_components_are_found(criterion):
    found = select_components(*planted(3), [1, 2, 3, 5], criterion, estimator=MDNRegressor(**FAST))
    assert found.n_components == 3
    assert found.n_modes == 3
    assert "3 components by" in found.summary
    assert "not modes" not in found.summary
    assert list(found.table.index) == [1, 2, 3, 5]
    if criterion == "bic":
        assert (found.table["n_parameters"].diff().dropna() > 0).all()
        assert found.table["bic"].idxmin() == 3
    else:
        assert found.table["excess"].min() == 0
        assert found.table["excess"].iloc[0] > 5 * found.table["standard_error"].iloc[0]
    axes = plots.plot_selection(found)
    assert isinstance(axes.figure, Figure)
    assert axes.get_xlabel() == "components"


def test_nll_is_in_the_users_units():
    x, y = planted(2)
    found, scaled = (select_components(x, f * y, [1, 2], "heldout", estimator=MDNRegressor(**FAST)) for f in (1, 1000))
    np.testing.assert_allclose(scaled.table["nll"] - np.log(1000), found.table["nll"], atol=1e-3)


def test_components_of_a_skewed_target_with_one_mode_are_not_modes():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (1500, 1)), rng.gamma(4, 1, 1500)
    found = select_components(x, y, [1, 2, 3, 4], estimator=MDNRegressor(family="normal", **FAST))
    assert found.n_components >= 2
    assert found.n_modes == 1
    assert found.summary.endswith("components are not modes")


def test_auto_chooses_says_why_and_is_kept_on_disk(tmp_path):
    X, y = planted(2)
    model = MDNRegressor("auto", **FAST).fit(X, y)
    assert model.n_components_ == 2
    assert model.predict_dist(X).n_components == 2
    assert model.selection_.summary in model.fit_report_.events
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert (again.n_components, again.n_components_) == ("auto", 2)
    assert np.array_equal(again.predict(X), model.predict(X))


@pytest.mark.parametrize(
    ("candidates", "criterion", "code"),
    [
        ([], "cv", "E-parameter"),
        ([0, 1], "cv", "E-parameter"),
        ([1.5], "cv", "E-parameter"),
        ([1], "aic", "E-parameter"),
    ],
)
def test_what_is_no_candidate_or_criterion_is_refused(candidates, criterion, code):
    with pytest.raises(MixturaError, match=code):
        select_components(*planted(1, 50), candidates, criterion)


def test_too_few_rows_to_choose_by_are_refused():
    with pytest.raises(MixturaError, match="E-too-few-rows"):
        MDNRegressor("auto", **FAST).fit(*planted(1, 15))


def test_copies_of_a_row_stay_in_one_fold():
    X, y = planted(1, 100)
    index = np.repeat(np.arange(100), 10)
    once, copied = (MDNRegressor("auto", **FAST).fit(X[i], y[i]).selection_.table["nll"] for i in (slice(None), index))
    assert copied.iloc[-1] > once.iloc[-1] - 0.2  # were they in several, the NLL would fall without end


@pytest.mark.statistical
@pytest.mark.parametrize("n_components", [1, 2, 3, 5])
def test_planted_components_are_recovered_in_nine_of_ten_seeds(n_components):
    settings = MDNRegressor(**FAST | {"batch_size": 128, "learning_rate": 1e-2})

    def chosen(seed: int) -> int:
        torch.set_num_threads(1)
        data = planted(n_components, 2000, seed)
        return select_components(*data, [1, 2, 3, 4, 5, 6], estimator=settings).n_components

    found = Parallel(n_jobs=2)(delayed(chosen)(seed) for seed in range(50))
    print(Counter(found))
    assert np.mean(np.array(found) == n_components) >= 0.9
