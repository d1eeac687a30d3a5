"""The example of precipitation: its judges against the library's, its peers against known truth, and a whole run."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import special

import mixtura
from examples.precipitation import __main__ as rain
from examples.precipitation import peers


@pytest.fixture
def wet_and_dry():
    """Log-normal mixtures with an atom at zero, and draws from them."""
    generator = torch.Generator().manual_seed(0)
    loc = torch.randn(300, 2, generator=generator, dtype=torch.float64) * 0.5
    components = torch.distributions.LogNormal(loc, torch.full_like(loc, 0.4))
    mixture = mixtura.Mixture(torch.zeros(300, 3, dtype=torch.float64), components, atoms=torch.zeros(1).double())
    return mixture, mixture.sample((), generator).numpy()


def test_judges_agree_with_the_library(wet_and_dry):
    mixture, y = wet_and_dry
    forecast, values = mixture.cdf(rain.GRID[:, None]).numpy().T, torch.as_tensor(y)
    np.testing.assert_allclose(rain.crps(forecast, y), mixtura.crps(mixture, values, reduction="none"), atol=3e-3)
    readings = np.sqrt(0.25 * np.arange(400))  # their probabilities add up to that of all up to the last
    total = sum(np.exp(-rain.nll_of_reading(forecast, np.full(300, value), 0.25)) for value in readings)
    np.testing.assert_allclose(total, rain.at(forecast, np.sqrt(99.875)), atol=1e-9)


def test_cells_hold_what_the_forecast_holds(wet_and_dry):
    mixture, y = wet_and_dry
    forecast, values = mixture.cdf(rain.GRID[:, None]).numpy().T, torch.as_tensor(y)
    law, cell = rain.in_cells(forecast, y)
    assert ((cell == 0) == (values == 0)).all()
    assert (cell - values).abs().max() <= rain.STEP / 2 + 1e-12
    half = torch.where(values == 0, 0, rain.STEP / 2)
    mass = torch.where(values == 0, mixture.cdf(values), mixture.prob_interval(cell - half, cell + half))
    torch.testing.assert_close(law.log_prob(cell), mass.log(), atol=1e-4, rtol=0)  # what is beyond GRID is left out
    torch.testing.assert_close(law.central_interval(0.8).size, mixture.central_interval(0.8).size, atol=0.051, rtol=0)
    levels = mixtura.pit(law, cell, torch.Generator().manual_seed(0))
    assert ((levels - mixture.cdf(values)).abs() <= mass + 1e-4).all()


def test_crps_of_a_sure_forecast_is_its_absolute_error():
    y = np.array([0.0, 1.0, 3.0])
    forecast = (rain.GRID >= 2.0 - 1e-9) * np.ones((3, 1))
    np.testing.assert_allclose(rain.crps(forecast, y), [2, 1, 1], atol=rain.STEP)
    np.testing.assert_allclose(rain.crps(forecast, y, is_mm=True), [4, 3, 5], atol=4 * rain.STEP)


@pytest.mark.parametrize(
    ("method", "n"),
    [
        (partial(peers.emos, of_loc=["a"], of_scale=["a"]), 4000),
        (partial(rain.censored_mdn, columns=["a"], max_epochs=8), 400),
    ],
)
def test_censored_laws_are_found(method, n):
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=n)})
    y = np.maximum(0.5 + X["a"].to_numpy() + np.exp(0.3 * X["a"].to_numpy()) * rng.logistic(size=n), 0)
    forecast = method(X, y, pd.DataFrame({"a": [-1.0, 1.0]}))
    for row, a in zip(forecast, (-1.0, 1.0), strict=True):
        truth = special.expit((peers.GRID - 0.5 - a) / np.exp(0.3 * a))
        np.testing.assert_allclose(row, truth, atol=1.9 / n**0.5)


def test_climatology_and_forest_know_the_share_of_dry_days():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"month": rng.integers(1, 3, 600), "x": rng.normal(size=600)})
    y = np.where(rng.uniform(size=600) < X["month"] / 4, 0, 1 + rng.uniform(size=600))
    usual = peers.climatology(X, y, X, groups=["month"], width=0.2)
    for forecast in (usual, peers.forest(X, y, X, min_samples_leaf=60)):
        assert (np.diff(forecast) >= 0).all()
        np.testing.assert_allclose(forecast[:, -1], 1)
        for month in (1, 2):
            is_month = (X["month"] == month).to_numpy()
            assert forecast[is_month, 0].mean() == pytest.approx((y[is_month] == 0).mean(), abs=0.05)


def test_settings_are_chosen_and_weeks_left_out_without_the_test_years():
    data = rain.seattle()
    assert len(data.y) == 3 * 365 + 1 - 2 * 7
    assert len(data.y_test) == 364
    assert data.is_late.sum() == 365 - 7

    def fixed(shift):
        return lambda X, y, X_new: (shift <= rain.GRID) * np.ones((len(X_new), 1))

    data.y_test[:] = np.nan  # not looked at
    assert rain.chosen([fixed(9.0), fixed(0.5)], data) == 1


def test_a_whole_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["precipitation", "seattle", "--output", str(tmp_path)])
    rain.main()
    lines = {line.split("  ")[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert float(lines["Mixtura"][1]) < 0.95 * float(lines["climatology"][1])
    assert (tmp_path / "seattle.png").stat().st_size < 100_000


def test_missing_data_are_said_to_be_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXTURA_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match="set MIXTURA_DATA"):
        rain.innsbruck()
