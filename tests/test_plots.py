"""Pictures: what is drawn is what the density says."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from scipy.stats import binom, norm
from torch.distributions import MultivariateNormal, Normal, Poisson

from mixtura import (
    MDNRegressor,
    MixturaError,
    Mixture,
    Recalibrated,
    checks,
    datasets,
    decompose,
    feature_effect,
    permutation_importance,
    plots,
)


@pytest.fixture(autouse=True)
def _headless():
    plt.switch_backend("Agg")
    yield
    plt.close("all")


def make_table(n: int = 200) -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "size": rng.uniform(0, 1, n),
            "city": pd.Categorical(rng.choice(["Ulm", "Bonn"], n)),
            "new": rng.random(n) < 0.5,
        }
    )
    X.loc[::9, "size"] = np.nan
    return X, pd.Series(X["size"].fillna(0.5) + 0.1 * rng.normal(size=n), name="price")


@pytest.fixture(scope="module")
def model() -> MDNRegressor:
    return MDNRegressor(preset="plain", n_components=2, max_epochs=5, random_state=0).fit(*make_table())


@pytest.mark.parametrize("kind", ["heatmap", "fan"])
@pytest.mark.parametrize("feature", [0, "size"])
def test_plot_density_along_a_feature_of_a_mixed_table(model, kind, feature):
    X, y = make_table()
    ax = plots.plot_density(model, X, y, feature=feature, kind=kind)
    assert isinstance(ax, Axes)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("size", "price")
    low, high = ax.get_xlim()
    assert X["size"].min() <= low < high <= X["size"].max()
    ax.figure.savefig("picture.png")


def test_the_fan_shows_the_models_own_quantiles(model):
    X, _ = make_table()
    ax = plots.plot_density(model, X, feature="size", kind="fan", n_points=5)
    median = ax.lines[0].get_ydata()
    grid = pd.DataFrame({"size": ax.lines[0].get_xdata(), "city": X["city"].mode()[0], "new": X["new"].mode()[0]})
    np.testing.assert_allclose(median, model.predict_quantiles(grid, [0.5])[:, 0])


def test_plot_density_takes_arrays():
    X = np.random.default_rng(0).normal(size=(100, 2))
    model = MDNRegressor(preset="plain", n_components=2, max_epochs=3, random_state=0).fit(X, X[:, 1])
    assert plots.plot_density(model, X, X[:, 1], feature=1).get_xlabel() == "x1"


def test_plot_mixture_of_a_scalar_shows_every_peak():
    sharp = Mixture(torch.tensor([0.0, -1.0]), Normal(torch.tensor([0.0, 50.0]), torch.tensor([5.0, 1e-4])))
    ax = plots.plot_mixture(sharp, y=3.0)
    density = next(line for line in ax.lines if line.get_label() == "density").get_ydata()
    peak = sharp.log_prob(torch.tensor(50.0)).exp().item()
    assert max(density) == pytest.approx(peak, rel=1e-3)
    assert {text.get_text() for text in ax.get_legend().get_texts()} >= {"density", "components", "median", "observed"}


def test_plot_mixture_of_two_coordinates():
    mixture = Mixture(torch.zeros(1, 2), MultivariateNormal(torch.tensor([[0.0, 0.0], [3.0, 1.0]]), torch.eye(2)))
    ax = plots.plot_mixture(mixture, y=[0.5, 0.5], coverage=0.5)
    ellipse = ax.patches[0]
    assert ellipse.width == pytest.approx(2 * np.sqrt(2 * np.log(2)))  # holds half of a standard normal
    ax.figure.savefig("picture.png")
    given = plt.figure().add_subplot(xlim=(-1, 1), ylim=(-2, 2))
    assert plots.plot_mixture(mixture, ax=given).get_xlim() == (-1, 1)


def test_plot_fit(model):
    ax = plots.plot_fit(model.fit_report_)
    assert len(ax.lines[0].get_ydata()) == model.fit_report_.n_epochs


@pytest.mark.parametrize(
    ("code", "draw"),
    [
        ("E-plot-kind", lambda model, X: plots.plot_density(model, X, kind="violin")),
        ("E-plot-feature", lambda model, X: plots.plot_density(model, X, feature="colour")),
        ("E-plot-feature", lambda model, X: plots.plot_density(model, X, feature="city")),
        ("E-plot-shape", lambda model, X: plots.plot_mixture(model.predict_dist(X))),
    ],
)
def test_errors_are_coded(model, code, draw):
    with pytest.raises(MixturaError) as caught:
        draw(model, make_table()[0])
    assert caught.value.code == code


# Forecasts beside observations --------------------------------------------------------------------------------


def make_normal(n: int = 400, scale: float = 1.0) -> tuple[Mixture, np.ndarray]:
    """Normal forecasts and what happened, which they fit where scale is 1."""
    rng = np.random.default_rng(1)
    loc, spread = rng.normal(size=n), rng.uniform(0.5, 2, n)
    forecasts = Mixture(torch.zeros(n, 1), Normal(torch.tensor(loc)[:, None], torch.tensor(spread)[:, None]))
    return forecasts, loc + scale * spread * rng.normal(size=n)


def legend_of(ax: Axes) -> set[str]:
    legend = ax.get_legend()
    assert legend is not None
    return {text.get_text() for text in legend.get_texts()}


def dots_of(ax: Axes, label: str) -> np.ndarray:
    return np.asarray(next(line for line in ax.lines if line.get_label() == label).get_ydata())


def test_the_bars_of_plot_pit_are_the_histogram():
    forecasts, y = make_normal()
    ax = plots.plot_pit(forecasts, pd.Series(y, name="rain"), n_bins=10)
    counts, _ = np.histogram(forecasts.cdf(torch.tensor(y)).numpy(), bins=10, range=(0, 1))
    bars = ax.containers[0]
    np.testing.assert_allclose([bar.get_height() for bar in bars], counts / 400)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("PIT of rain", "share of rows")
    ax.figure.savefig("picture.png")


def test_the_band_of_the_histogram_is_binomial():
    table = checks.level_histogram(np.linspace(0, 0.999, 300), n_bins=20)
    low, high = binom.ppf([0.025, 0.975], 300, 1 / 20) / 300
    np.testing.assert_allclose(table[["lower", "upper"]], [[low, high]] * 20, atol=1e-12)
    assert table["observed"].sum() == pytest.approx(1)


def test_plot_pit_of_highest_density_levels():
    n = 300
    loc = torch.randn(n, 1, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    forecasts = Mixture(torch.zeros(n, 1), MultivariateNormal(loc, torch.eye(2, dtype=torch.float64)))
    y = forecasts.sample((), torch.Generator().manual_seed(1))
    ax = plots.plot_pit(forecasts, y, kind="hdr", n_bins=5)
    # Of a standard normal in two dimensions, a region of level l has the radius sqrt(-2 log(1 - l)).
    levels = 1 - (-0.5 * (y - loc[:, 0]).square().sum(-1)).exp()
    counts, _ = np.histogram(levels, bins=5, range=(0, 1))
    np.testing.assert_allclose([bar.get_height() for bar in ax.containers[0]], counts / n, atol=0.02)


def test_bands_hold_as_often_as_they_say():
    """Of right forecasts with unequal probabilities, at least 95% of many groups are in their bands, and few more."""
    rng = np.random.default_rng(0)
    n_groups, n = 1000, 30
    spread = rng.uniform(0.5, 3, n_groups * n)
    forecasts = Mixture(torch.zeros(len(spread), 1), Normal(0.0, torch.tensor(spread)[:, None]))
    y = spread * rng.normal(size=len(spread))
    for table in (
        checks.reliability(forecasts, y, threshold=1.0, n_bins=n_groups),
        checks.coverage_by(forecasts, y, by=np.arange(len(y)) % n_groups, coverage=0.7),
    ):
        share = table["observed"].between(table["lower"] - 1e-9, table["upper"] + 1e-9).mean()
        assert len(table) == n_groups
        assert 0.95 - 3 * 0.007 < share < 0.985


def test_the_band_of_an_event_is_poisson_binomial():
    probability = np.array([0.01, 0.5, 0.9, 0.99, 0.2, 0.7])
    forecasts = Mixture(torch.zeros(6, 1), Normal(torch.tensor(norm.ppf(probability))[:, None], 1.0))
    table = checks.reliability(forecasts, np.ones(6), threshold=0.0, n_bins=1)
    expected = [1.0]
    for p in probability:
        expected = np.convolve(expected, [1 - p, p])
    low, high = np.searchsorted(np.cumsum(expected), [0.025, 0.975])
    assert (table["lower"].item(), table["upper"].item()) == (low / 6, high / 6)
    assert table["forecast"].item() == pytest.approx(probability.mean())


def test_reliability_of_an_event_is_that_of_bins_of_rows():
    forecasts, y = make_normal(100)
    table = checks.reliability(forecasts, y, threshold=0.5, n_bins=4)
    probability = forecasts.survival(0.5).numpy()
    quarters = np.array_split(probability.argsort(), 4)
    np.testing.assert_allclose(table["forecast"], [probability[rows].mean() for rows in quarters])
    np.testing.assert_allclose(table["observed"], [(y[rows] >= 0.5).mean() for rows in quarters])
    ax = plots.plot_reliability(forecasts, y, threshold=0.5, n_bins=4)
    np.testing.assert_allclose(dots_of(ax, "observed"), table["observed"])
    assert ax.get_xlabel() == "forecast P(y ≥ 0.5)"


def test_reliability_of_quantiles_shows_forecasts_that_are_too_sharp():
    forecasts, y = make_normal(scale=2.0)
    ax = plots.plot_reliability(forecasts, y)
    levels = np.sort(forecasts.cdf(torch.tensor(y)).numpy())
    at = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(dots_of(ax, "observed"), np.searchsorted(levels, at, side="right") / 400)
    assert dots_of(ax, "observed")[0] > 0.1


def test_coverage_by_group_and_by_width():
    forecasts, y = make_normal()
    group = pd.Categorical(np.where(np.arange(400) < 100, "few", "many"), categories=["many", "few"])
    table = checks.coverage_by(forecasts, y, by=pd.Series(group, name="size"))
    width = 2 * 1.6448536 * forecasts.stddev.numpy()
    inside = np.abs(y - forecasts.mean.numpy()) <= width / 2
    assert table.index.tolist() == ["many", "few"]
    np.testing.assert_allclose(table["observed"], [inside[100:].mean(), inside[:100].mean()])
    np.testing.assert_allclose(table["forecast"], 0.9)
    assert (
        table.loc["few", "upper"] - table.loc["few", "lower"] > table.loc["many", "upper"] - table.loc["many", "lower"]
    )
    assert plots.plot_coverage(forecasts, y, by=pd.Series(group, name="size")).get_xlabel() == "size"

    tenths = checks.coverage_by(forecasts, y)
    order = np.array_split(width.argsort(), 10)
    np.testing.assert_allclose(tenths["width"], [width[rows].mean() for rows in order], rtol=1e-6)
    np.testing.assert_allclose(tenths["observed"], [inside[rows].mean() for rows in order])
    plots.plot_coverage(forecasts, y).figure.savefig("picture.png")


def test_coverage_at_an_atom_is_forecast_with_the_mass_of_its_ends():
    rain = Mixture(torch.tensor([0.3, 0.7]).log(), Normal(torch.tensor([10.0]), torch.tensor([1.0])), torch.zeros(1))
    table = checks.coverage_by(rain.expand((10,)), np.zeros(10), by=["all"] * 10, coverage=0.8)
    assert table["forecast"].item() == pytest.approx(0.9)  # from the quantile 0.1, which is 0, to 0.9


def test_plot_sharpness_shows_widths_and_the_one_without_features():
    forecasts, y = make_normal()
    ax = plots.plot_sharpness(forecasts, y, coverage=0.5)
    widths = forecasts.central_interval(0.5).size.numpy()
    marks = {line.get_label().split(":")[0]: line.get_xdata()[0] for line in ax.lines}
    assert marks["median"] == pytest.approx(np.median(widths))
    assert marks["without features"] == pytest.approx(np.quantile(y, 0.75) - np.quantile(y, 0.25))
    assert sum(bar.get_height() for bar in ax.containers[0]) == pytest.approx(1)


def test_plot_skill_draws_values_and_errors():
    skills = pd.DataFrame({"value": [0.3, -0.1], "standard_error": [0.02, 0.05]}, index=["mixture", "guess"])
    ax = plots.plot_skill(skills, label="CRPS skill")
    assert [bar.get_width() for bar in ax.patches] == [0.3, -0.1]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["mixture", "guess"]
    assert ax.get_xlabel() == "CRPS skill"
    plots.plot_skill(skills[["value"]])


# Densities, fits, effects -------------------------------------------------------------------------------------


def test_plot_fan_draws_quantiles_in_order_and_marks_what_is_outside():
    forecasts, y = make_normal(50)
    along = np.arange(50)[::-1]
    y[3] = 100.0
    y[4] = np.nan
    ax = plots.plot_fan(forecasts, pd.Series(y, name="level"), along=pd.Series(along, name="time"))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), forecasts.mean.numpy()[::-1])
    low, high = forecasts.icdf([[0.025], [0.975]])
    n_outside = int(((torch.tensor(y) < low) | (torch.tensor(y) > high)).sum())
    assert len(ax.collections[-1].get_offsets()) == n_outside > 0
    assert f"outside of 95%: {n_outside / 49:.0%}" in legend_of(ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("time", "level")
    days = pd.date_range("2024-01-01", periods=50)
    plots.plot_fan(forecasts, along=days).figure.savefig("picture.png")


def test_plot_ridges_draws_each_row_with_its_peak_median_and_atom():
    rows = Mixture(
        torch.tensor([[0.6, 0.4], [0.1, 0.9]]).log(), Normal(torch.tensor([[5.0], [7.0]]), 1e-3), torch.zeros(1)
    )
    ax = plots.plot_ridges(rows, [5.0, 0.0], names=["first", "second"])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]
    curves = [line for line in ax.lines if len(line.get_xdata()) > 100]
    for curve, peak, base in zip(curves, [5.0, 7.0], [1, 0], strict=True):
        assert curve.get_xdata()[np.argmax(curve.get_ydata())] == pytest.approx(peak)
        assert max(curve.get_ydata()) == pytest.approx(base + 0.85)
    tops = [line.get_ydata()[0] for line in ax.lines if line.get_marker() == "D"]
    np.testing.assert_allclose(tops, [1 + 0.85 * 0.4, 0.85 * 0.9], rtol=1e-6)
    assert legend_of(ax) == {"median", "observed", "atom"}
    ax.figure.savefig("picture.png")


def test_plot_mixture_and_ridges_of_counts_draw_whole_numbers():
    counts = Mixture(torch.zeros(2), Poisson(torch.tensor([2.0, 20.0])))
    ax = plots.plot_mixture(counts)
    line = next(line for line in ax.lines if line.get_label() == "probability")
    np.testing.assert_allclose(line.get_ydata(), counts.log_prob(torch.tensor(line.get_xdata())).exp(), rtol=1e-6)
    assert ax.get_ylabel() == "probability"
    plots.plot_ridges(counts).figure.savefig("picture.png")


def test_plot_mixture_names_the_mass_of_an_atom():
    rain = Mixture(torch.tensor([0.3, 0.7]).log(), Normal(torch.tensor([10.0]), torch.tensor([1.0])), torch.zeros(1))
    assert "P(y = 0) = 70%" in legend_of(plots.plot_mixture(rain))


def test_the_contours_of_plot_density_map_enclose_their_probability():
    mixture = Mixture(torch.zeros(1, 1), MultivariateNormal(torch.zeros(1, 1, 2), torch.eye(2)))
    ax = plots.plot_density_map(mixture, pd.DataFrame([[0.0, 1.0]], columns=["east", "north"]), coverages=[0.5, 0.95])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("east", "north")
    contours = next(part for part in ax.collections if isinstance(part, QuadContourSet))
    radii = [np.linalg.norm(path.vertices, axis=-1).mean() for path in contours.get_paths()]
    np.testing.assert_allclose(radii, np.sqrt(-2 * np.log([0.05, 0.5])), rtol=0.03)
    assert ax.get_xlim()[1] > radii[0]
    given = plt.figure().add_subplot(xlim=(-1, 1), ylim=(-2, 2))
    assert plots.plot_density_map(mixture, ax=given).get_xlim() == (-1, 1)


def test_plot_density_map_shows_a_far_part_of_a_region_whole():
    far = MultivariateNormal(torch.tensor([[0.0, 0.0], [30.0, 0.0]]), torch.eye(2))
    mixture = Mixture(torch.tensor([0.9, 0.1]).log(), far)
    ax = plots.plot_density_map(mixture)
    edge = mixture.hdr_threshold(0.95)
    side = torch.tensor([[ax.get_xlim()[1], y] for y in np.linspace(*ax.get_ylim(), 50)])
    assert (mixture.log_prob(side) <= edge).all()


def test_plot_component_usage_draws_mean_weights():
    weights = torch.tensor([[0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])
    mixture = Mixture(weights.log(), Normal(torch.zeros(2, 2), 1.0), torch.tensor([4.0]))
    ax = plots.plot_component_usage(mixture)
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([0.45, 0.4, 0.15])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["atom 4", "1", "0"]
    assert ax.lines[0].get_ydata().tolist() == [0.5, 0.5, 0.0]


def test_plot_uncertainty_stacks_variances():
    grid = torch.linspace(0, 1, 5)
    members = [Mixture(torch.zeros(5, 1), Normal(slope * grid[:, None], 1.0)) for slope in (0.0, 2.0)]
    ax = plots.plot_uncertainty(decompose(members), pd.Series(grid.numpy(), name="x"))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 1 + grid.square(), rtol=1e-6)
    top = ax.collections[0].get_paths()[0].vertices[:, 1].max()
    assert (top, ax.get_xlabel()) == (pytest.approx(1.0), "x")


class KnownModel:
    """y = sin(x0) + normal noise of standard deviation exp(x1); x2 says nothing."""

    target_names_ = None

    def predict_dist(self, X: np.ndarray) -> Mixture:
        x = torch.tensor(np.asarray(X, dtype=np.float64))
        return Mixture(torch.zeros(len(x), 1), Normal(x[:, :1].sin(), x[:, 1:2].exp()))


class KnownVector:
    target_names_ = None

    def predict_dist(self, X: np.ndarray) -> Mixture:
        return Mixture(torch.zeros(1), MultivariateNormal(torch.zeros(1, 2), torch.eye(2))).expand((len(X),))


def make_known(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (n, 3))
    return X, np.sin(X[:, 0]) + np.exp(X[:, 1]) * rng.normal(size=n)


def test_the_effect_on_the_mean_follows_one_feature_and_that_on_the_spread_another():
    X, _ = make_known()
    mean = feature_effect(KnownModel(), X, 0)
    np.testing.assert_allclose(mean["mean"], np.sin(mean.index), atol=1e-9)
    assert np.ptp(mean["spread"]) < 1e-9
    spread = feature_effect(KnownModel(), X, 1)
    np.testing.assert_allclose(spread["spread"], np.exp(spread.index), rtol=1e-9)
    assert np.ptp(spread["mean"]) < 1e-9
    rows = KnownModel().predict_dist(np.column_stack([X[:, 0], np.full(400, spread.index[3])]))
    pool = Mixture.pool([rows[i] for i in range(400)])
    assert spread["pooled_spread"].iloc[3] == pytest.approx(pool.stddev.item())
    assert (mean["n_modes"] == 1).all()
    for kind in ("mean", "spread", "n_modes"):
        ax = plots.plot_feature_effect(mean, kind=kind)
        np.testing.assert_allclose(ax.lines[-1].get_ydata(), mean[kind])
        assert ax.get_xlabel() == "x0"


def test_effects_count_modes():
    X, y = datasets.make_inverse_sine(400)
    model = MDNRegressor(n_components=3, preset="plain", max_epochs=60, random_state=0).fit(X, y)
    effect = feature_effect(model, X[:20], 0, n_points=9)
    assert effect["n_modes"].iloc[0] == effect["n_modes"].iloc[-1] == 1
    assert effect["n_modes"].iloc[4] >= 2


def test_effects_of_categories_and_truth_values(model):
    X, y = make_table()
    effect = feature_effect(model, X, "city")
    assert effect.index.tolist() == ["Bonn", "Ulm"]
    assert (effect.index.name, effect.columns.name) == ("city", "price")
    bonn = X.assign(city=pd.Categorical(["Bonn"] * len(X), categories=X["city"].cat.categories))
    assert effect.loc["Bonn", "mean"] == pytest.approx(model.predict(bonn).mean())
    ax = plots.plot_feature_effect(effect)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("city", "price")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["Bonn", "Ulm"]
    assert feature_effect(model, X, "new").index.tolist() == [False, True]
    importance = permutation_importance(model, X, y, n_repeats=1)
    assert importance.columns.name == "CRPS of price"


def test_importance_of_mean_spread_and_nothing():
    X, y = make_known()
    importance = permutation_importance(KnownModel(), X, y, random_state=1)
    assert importance.loc["x2", "rise"] == pytest.approx(0, abs=1e-12)
    assert importance.loc["x0", "rise"] > 4 * importance.loc["x0", "standard_error"] > 0
    assert importance.loc["x1", "rise"] > 4 * importance.loc["x1", "standard_error"] > 0
    pd.testing.assert_frame_equal(importance, permutation_importance(KnownModel(), X, y, random_state=1))
    ax = plots.plot_importance(importance)
    assert [bar.get_width() for bar in ax.patches] == importance["rise"].tolist()
    assert ax.get_xlabel() == "rise of the CRPS of y when shuffled"


def test_importance_of_a_vector_is_by_the_energy_score():
    X = np.random.default_rng(0).normal(size=(200, 2))
    Y = np.column_stack([X[:, 0], -X[:, 0]]) + 0.1
    model = MDNRegressor(n_components=1, preset="plain", max_epochs=30, random_state=0).fit(X, Y)
    importance = permutation_importance(model, X, Y)
    assert importance.columns.name == "energy score"
    assert importance.index[0] == "x0"
    assert importance.loc["x0", "rise"] > 5 * abs(importance.loc["x1", "rise"])


@pytest.mark.parametrize(
    ("code", "call"),
    [
        ("E-plot-kind", lambda f, y: plots.plot_pit(f, y, kind="rank")),
        ("E-value-shape", lambda f, y: plots.plot_pit(f, y[:3])),
        ("E-value-nan", lambda f, y: plots.plot_pit(f, y * np.nan)),
        ("E-target-type", lambda f, y: plots.plot_pit(f, pd.arrays.IntervalArray.from_arrays(y, y + 1))),
        ("E-scalar-only", lambda f, y: feature_effect(KnownVector(), np.zeros((5, 3)), 0)),
        ("E-input-length", lambda f, y: plots.plot_coverage(f, y, by=["a"])),
        ("E-coverage-range", lambda f, y: plots.plot_coverage(f, y, coverage=90)),
        ("E-input-length", lambda f, y: plots.plot_fan(f, y[:3])),
        ("E-input-length", lambda f, y: plots.plot_ridges(f[:2], names=["a"])),
        ("E-plot-shape", lambda f, y: plots.plot_density_map(f)),
        ("E-plot-kind", lambda f, y: plots.plot_feature_effect(pd.DataFrame(), kind="median")),
        ("E-plot-feature", lambda f, y: feature_effect(KnownModel(), np.zeros((5, 3)), 3)),
        ("E-input-length", lambda f, y: permutation_importance(KnownModel(), np.zeros((5, 3)), y)),
        ("E-parameter", lambda f, y: permutation_importance(KnownModel(), np.zeros((5, 3)), y, n_repeats=0)),
        ("E-input-length", lambda f, y: plots.plot_uncertainty(decompose([f, f]), [1.0])),
    ],
)
def test_errors_of_checks_and_effects_are_coded(code, call):
    with pytest.raises(MixturaError) as caught:
        call(*make_normal(20))
    assert caught.value.code == code


def test_highest_density_levels_of_a_law_with_atoms_are_refused():
    rain = Mixture(torch.zeros(4, 2), Normal(torch.ones(4, 1), 1.0), torch.zeros(1))
    with pytest.raises(MixturaError) as caught:
        plots.plot_pit(rain, np.zeros(4), kind="hdr")
    assert caught.value.code == "E-not-continuous"


@pytest.mark.parametrize("draw", [plots.plot_pit, plots.plot_reliability, plots.plot_sharpness, plots.plot_ridges])
def test_what_is_no_mixture_is_refused(draw):
    normal = Mixture(torch.zeros(3, 1), Normal(torch.zeros(3, 1), torch.ones(3, 1)))
    law = Mixture(torch.zeros(1, 1), Normal(torch.zeros(1, 1), torch.ones(1, 1)))
    with pytest.raises(MixturaError, match="E-forecast"):
        draw(Recalibrated(normal, law), np.zeros(3))
