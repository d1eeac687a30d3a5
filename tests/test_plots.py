"""Pictures: what is drawn is what the density says."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from torch.distributions import MultivariateNormal, Normal

from mixtura import MDNRegressor, MixturaError, Mixture, plots


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
