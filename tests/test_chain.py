"""A chain of scalar densities."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mixtura import MDNChain, MDNRegressor, MixturaError, load

LINK = MDNRegressor(2, preset="plain", max_epochs=60, random_state=0)


def circles(n, seed=0):
    """Points on a circle whose radius is x, with normal noise of .05."""
    rng = np.random.default_rng(seed)
    radius, angle = rng.uniform(1, 2, n), rng.uniform(0, 2 * np.pi, n)
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return radius[:, None], points + 0.05 * rng.normal(size=(n, 2))


@pytest.fixture(scope="module")
def chain():
    return MDNChain(LINK).fit(*circles(2_000))


def test_draws_lie_where_no_mixture_of_few_ellipses_could_put_them(chain):
    draws = chain.sample([[1.2], [1.8]], 400, random_state=0)
    assert draws.shape == (2, 400, 2)
    radius = np.linalg.norm(draws, axis=-1)
    assert (np.abs(radius - [[1.2], [1.8]]) < 0.3).mean() > 0.9
    angle = np.arctan2(draws[0, :, 1], draws[0, :, 0])
    assert stats.kstest((angle + np.pi) / (2 * np.pi), "uniform").statistic < 0.12


def test_it_is_nearer_to_the_truth_than_one_mixture_of_vectors(chain):
    X, y = circles(1_000, seed=1)
    joint = MDNRegressor(2, preset="plain", max_epochs=60, random_state=0).fit(*circles(2_000))
    assert chain.score_samples(X, y).mean() > joint.score_samples(X, y).mean() + 0.3


def test_the_log_density_is_the_sum_of_the_links(chain):
    X, y = circles(20, seed=2)
    first, second = chain.links_
    parts = first.score_samples(X, y[:, 0]) + second.score_samples(np.column_stack([X, y[:, :1]]), y[:, 1])
    np.testing.assert_allclose(chain.score_samples(X, y), parts, rtol=1e-12)


def test_density_and_draws_are_one_law(chain):
    """The mean of 1/p over draws inside a box, each where p is positive, is the box's area."""
    X = np.full((4_000, 1), 1.5)
    draws = chain.sample(X[:1], 4_000, random_state=1)[0]
    density = np.exp(chain.score_samples(X, draws))
    inside = (np.abs(draws - [1.5, 0.0]) < 0.1).all(1)
    area = (inside / density).mean()
    assert area == pytest.approx(0.04, rel=0.25)


def test_order_and_families_belong_to_columns_of_y():
    X, y = circles(300)
    y = np.abs(y)
    chain = MDNChain(LINK, families=["gamma", "normal"], order=[1, 0]).fit(X, y)
    assert [link.family_.name for link in chain.links_] == ["normal", "gamma"]
    assert (chain.sample(X[:50], 4, random_state=0)[..., 0] > 0).all()
    first, second = chain.links_
    parts = first.score_samples(X, y[:, 1]) + second.score_samples(np.column_stack([X, y[:, 1:]]), y[:, 0])
    np.testing.assert_allclose(chain.score_samples(X, y), parts, rtol=1e-12)


def test_tables_with_names_and_categories():
    X, y = circles(300)
    table = pd.DataFrame({"radius": X[:, 0], "kind": pd.Categorical(np.where(X[:, 0] > 1.5, "a", "b"))})
    chain = MDNChain(LINK).fit(table, pd.DataFrame(y, columns=["east", "north"]))
    assert list(chain.links_[1].feature_names_in_) == ["radius", "kind", "target east"]
    assert chain.sample(table.head(3), 2, random_state=0).shape == (3, 2, 2)
    numbered = pd.DataFrame(X)  # whose columns are numbers
    assert MDNChain(LINK).fit(numbered, y).sample(numbered[:2], random_state=0).shape == (2, 1, 2)
    same = chain.sample(table.head(3), 2, random_state=0), chain.sample(table.head(3), 2, random_state=0)
    np.testing.assert_array_equal(*same)


@pytest.mark.parametrize(
    ("settings", "y", "code"),
    [
        ({}, np.zeros(30), "E-target-shape"),
        ({"order": [0, 0]}, np.zeros((30, 2)), "E-parameter"),
        ({"order": ["a", 1]}, np.zeros((30, 2)), "E-parameter"),
        ({"families": ["normal"]}, np.zeros((30, 2)), "E-parameter"),
        ({"link": "plain"}, np.zeros((30, 2)), "E-parameter"),
    ],
)
def test_what_does_not_fit_is_refused(settings, y, code):
    with pytest.raises(MixturaError, match=code):
        MDNChain(**settings).fit(np.zeros((30, 1)), y)


def test_questions_before_fit_and_of_other_shapes(chain):
    with pytest.raises(MixturaError, match="E-not-fitted"):
        MDNChain().sample([[0.0]])
    with pytest.raises(MixturaError, match="E-target-shape"):
        chain.score_samples([[1.0]], [[1.0, 2.0, 3.0]])
    with pytest.raises(MixturaError, match="E-parameter"):
        chain.sample([[1.0]], 0)


def test_it_comes_back_from_disk_to_the_bit(chain, tmp_path):
    chain.save(tmp_path / "chain")
    loaded = load(tmp_path / "chain")
    X, y = circles(30, seed=3)
    np.testing.assert_array_equal(loaded.score_samples(X, y), chain.score_samples(X, y))
    np.testing.assert_array_equal(loaded.sample(X, 3, random_state=0), chain.sample(X, 3, random_state=0))
    manifest = json.loads((tmp_path / "chain" / "model.json").read_text())
    manifest["order"] = [0, 0]
    (tmp_path / "chain" / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(MixturaError, match="E-load-corrupt"):
        load(tmp_path / "chain")
