"""The example of precipitation: its judges against the library's, its peers against known truth, and a whole run."""

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
    cell = torch.as_tensor(np.floor(y / rain.STEP) * rain.STEP)
    density = mixture.prob_interval(cell, cell + rain.STEP) / rain.STEP
    likelihood = torch.where(values == 0, mixture.log_prob(torch.zeros(300)).exp(), density)
    np.testing.assert_allclose(rain.nll(forecast, y), -likelihood.log(), atol=1e-6)
    readings = np.sqrt(0.25 * np.arange(400))  # their probabilities add up to that of all up to the last
    total = sum(np.exp(-rain.nll_of_reading(forecast, np.full(300, value), 0.25)) for value in readings)
    np.testing.assert_allclose(total, rain.at(forecast, np.sqrt(99.875)), atol=1e-9)
    is_wet = y > 0
    np.testing.assert_allclose(rain.pit(forecast, y)[is_wet], mixture.cdf(values).numpy()[is_wet], atol=0.03)
    assert (rain.pit(forecast, y)[~is_wet] <= forecast[~is_wet, 0]).all()


def test_crps_of_a_sure_forecast_is_its_absolute_error():
    y = np.array([0.0, 1.0, 3.0])
    forecast = (rain.GRID >= 2.0 - 1e-9) * np.ones((3, 1))
    np.testing.assert_allclose(rain.crps(forecast, y), [2, 1, 1], atol=rain.STEP)
    np.testing.assert_allclose(rain.crps(forecast, y, is_mm=True), [4, 3, 5], atol=4 * rain.STEP)


def test_emos_finds_a_censored_logistic_law():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"a": rng.normal(size=4000)})
    y = np.maximum(0.5 + X["a"].to_numpy() + np.exp(0.3 * X["a"].to_numpy()) * rng.logistic(size=4000), 0)
    forecast = peers.emos(["a"], ["a"])(X, y)(pd.DataFrame({"a": [-1.0, 1.0]}))
    for row, a in zip(forecast, (-1.0, 1.0), strict=True):
        np.testing.assert_allclose(row, special.expit((peers.GRID - 0.5 - a) / np.exp(0.3 * a)), atol=0.03)


def test_climatology_and_forest_know_the_share_of_dry_days():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"month": rng.integers(1, 3, 600), "x": rng.normal(size=600)})
    y = np.where(rng.uniform(size=600) < X["month"] / 4, 0, 1 + rng.uniform(size=600))
    for method in (peers.climatology(["month"], 0.2), peers.forest(60, 0.2)):
        forecast = method(X, y)(X)
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
        return lambda X, y: lambda table: (shift <= rain.GRID) * np.ones((len(table), 1))

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
