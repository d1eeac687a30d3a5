"""The example on stock returns: nothing is known before its time, forecasts near the truth, tests that reject."""

import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from scipy.stats import norm, t
from sklearn.base import clone
from torch.distributions import Normal

from examples.finance import __main__ as finance
from examples.finance.backtests import christoffersen, diebold_mariano, kupiec, record, shortfall_test
from examples.finance.correction import correct
from examples.finance.regimes import Regimes
from examples.finance.returns import describe_days, load_prices
from mixtura import Mixture

SMALL = clone(finance.SMALL).set_params(family="normal", n_restarts=1, max_epochs=12)


def simulate_prices(n_days: int = 1_040, n_steps: int = 24) -> pd.DataFrame:
    """Prices whose variance goes by a GJR recursion, and in `std` the standard deviation that each day had."""
    rng = np.random.default_rng(0)
    variance, last, days = 1.0, 0.0, []
    for _ in range(n_days):
        path = np.cumsum(rng.normal(0, np.sqrt(variance / n_steps), n_steps))
        high, low = max(path.max(), 0), min(path.min(), 0)
        days.append([*(100 * np.exp(np.array([last, last + high, last + low, last + path[-1]]) / 100)), variance**0.5])
        last += path[-1]
        variance = 0.02 + (0.04 + 0.16 * (path[-1] < 0)) * path[-1] ** 2 + 0.85 * variance
    index = pd.bdate_range("1999-01-04", periods=n_days, name="Date")
    return pd.DataFrame(days, index, ["Open", "High", "Low", "Close", "std"])


@pytest.fixture(scope="module")
def prices() -> pd.DataFrame:
    return simulate_prices()


def forecast(days: pd.DataFrame, years: range) -> pd.DataFrame:
    return correct(list(finance.predict_years(days, years, SMALL, is_scaled=True)))


@pytest.mark.filterwarnings("ignore:.*W-feature-far")
def test_forecasts_do_not_know_what_comes_after(prices):
    today = pd.Timestamp("2001-06-29")
    later = prices.index > today
    shuffled = prices.copy()
    shuffled[later] = prices[later].sample(frac=1, random_state=0).to_numpy()
    days, others = describe_days(prices), describe_days(shuffled)
    tomorrow = days.index[days.index > today][0]
    features = days.columns.drop("y")
    pd.testing.assert_frame_equal(days.loc[:tomorrow, features], others.loc[:tomorrow, features])
    assert not np.allclose(days.loc[tomorrow:, features].iloc[1:], others.loc[tomorrow:, features].iloc[1:])
    one, other = forecast(days, range(2001, 2002)), forecast(others, range(2001, 2002))
    risks = one.columns.drop("log_score")
    pd.testing.assert_frame_equal(one.loc[:tomorrow, risks], other.loc[:tomorrow, risks])
    assert (one.loc[:today, "log_score"] == other.loc[:today, "log_score"]).all()
    assert not np.allclose(one.loc[tomorrow:, risks].iloc[1:], other.loc[tomorrow:, risks].iloc[1:])


def test_forecasts_come_near_the_truth(prices):
    days = describe_days(prices)
    one = forecast(days, range(2001, 2003))
    y = days["y"][one.index]
    truth = norm.logpdf(y, 0, prices["std"][one.index]).mean()
    past = days["y"][days.index.year < 2001]
    constant = norm.logpdf(y, past.mean(), past.std()).mean()
    assert constant < truth - 0.1
    assert truth - 0.05 < one["log_score"].mean() < truth + 0.02
    assert kupiec((y < one["var_5%"]).to_numpy(), 0.05) > 0.01


def standard_normal(n: int) -> Mixture:
    zeros = torch.zeros(n, 1, dtype=torch.float64)
    return Mixture(zeros, Normal(zeros, torch.ones_like(zeros)))


def test_what_was_too_narrow_becomes_right():
    days = pd.bdate_range("1999-01-04", periods=4_000)
    y = pd.Series(1.3 * t(6).rvs(4_000, random_state=1), days)
    mixture = standard_normal(4_000)
    raw, one = (judged.iloc[2_000:] for judged in (finance.judge(mixture, y), correct([(mixture, y)])))
    later, level = y.iloc[2_000:], 0.01
    assert kupiec(later < raw["var_1%"], level) < 1e-6 < 0.01 < kupiec(later < one["var_1%"], level)
    assert one["log_score"].mean() > raw["log_score"].mean() + 0.02
    columns = ["var_1%", "es_1%", "median"]
    before, after = (shortfall_test(later.to_numpy(), *f[columns].to_numpy().T) for f in (raw, one))
    assert before < 0.01 < after


def test_the_corrected_density_is_that_of_its_quantiles():
    past = np.resize([1.1, -1.2, 1.2, -1.1, -3.2], 100)  # too narrow, and with too short a tail
    days = pd.bdate_range("1999-01-04", periods=101)

    def record_of(last: float) -> pd.Series:
        return correct([(standard_normal(101), pd.Series(np.append(past, last), days))]).iloc[-1]

    one, other = record_of(0.0).drop("log_score"), record_of(3.0).drop("log_score")
    pd.testing.assert_series_equal(one, other, check_names=False)
    assert one["var_1%"] < 1.2 * norm.ppf(0.01)
    for low, high, mass in ((-9.0, one["var_1%"], 0.01), (one["var_1%"], one["var_5%"], 0.04)):
        points = np.linspace(low, high, 30)
        density = np.exp([record_of(point)["log_score"] for point in points])
        assert np.trapezoid(density, points) == pytest.approx(mass, rel=0.02)


def test_regimes_are_found_where_they_are():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"x": rng.normal(size=4_000)})
    crisis = expit(2 * X["x"] - 1)
    y = pd.Series(rng.normal(0, np.where(rng.uniform(size=4_000) < crisis, 3.0, 1.0)))
    mixture = Regimes().fit(X, y).predict_dist(X)
    assert len(finance.judge(mixture[:9], y[:9])) == 9
    weights = finance.weigh_regimes(mixture, y)
    np.testing.assert_allclose(weights[["calm_std", "crisis_std"]].iloc[0], [1, 3], rtol=0.1)
    assert (weights["crisis"] - crisis).abs().max() < 0.1


def test_shortfall_is_the_mean_beyond_the_value_at_risk():
    for law, heavy in ((norm(1, 2), 0), (t(3, 1, 2), 3)):
        one = record(np.zeros(1), lambda levels, law=law: law.ppf(levels)[None]).iloc[0]
        for level in (0.01, 0.05):
            q = (law.ppf(level) - 1) / 2
            mean = -norm.pdf(q) / level if not heavy else -t.pdf(q, heavy) / level * (heavy + q**2) / (heavy - 1)
            assert one[f"var_{level:.0%}"] == pytest.approx(law.ppf(level))
            assert one[f"es_{level:.0%}"] == pytest.approx(1 + 2 * mean, rel=1e-5)


def test_tests_of_risk_reject_what_is_wrong_and_nothing_else():
    rng = np.random.default_rng(0)
    p_values = np.array([(kupiec(b, 0.05), *christoffersen(b, 0.05)) for b in rng.uniform(size=(1_000, 1_000)) < 0.05])
    assert ((p_values < 0.05).mean(0) < 0.09).all()  # of breaches as they should be, a twentieth
    assert ((p_values < 0.05).mean(0) > 0.02).all()
    assert kupiec(np.zeros(250, bool), 0.01) == pytest.approx(2 * norm.sf(np.sqrt(-500 * np.log(0.99))))
    assert kupiec(np.arange(1_000) < 80, 0.05) < 1e-3
    clustered = np.arange(1_000) % 200 < 10
    assert kupiec(clustered, 0.05) == pytest.approx(1)
    assert max(christoffersen(clustered, 0.05)) < 1e-6

    y = rng.normal(size=20_000)
    forecast = record(np.zeros(1), lambda levels: norm.ppf(levels)[None]).iloc[0]
    check = partial(shortfall_test, y, np.full_like(y, forecast["var_5%"]), median=np.zeros_like(y))
    assert check(np.full_like(y, forecast["es_5%"])) > 0.05
    assert check(np.full_like(y, forecast["es_5%"] + 0.1)) < 0.01


def test_a_difference_counts_by_its_error():
    rng = np.random.default_rng(0)
    score, other = rng.normal(0.1, 1, 400), np.zeros(400)
    gain, p_value = diebold_mariano(score, other, n_lags=0)
    assert gain == pytest.approx(score.mean())
    assert p_value == pytest.approx(2 * norm.sf(score.mean() / score.std() * 20))
    z = [norm.isf(diebold_mariano(np.repeat(score, 5), np.zeros(2_000), n_lags)[1] / 2) for n_lags in (0, None)]
    assert z[0] == pytest.approx(5**0.5 * norm.isf(p_value / 2))  # as if five days that are one were five
    assert z[1] == pytest.approx(norm.isf(p_value / 2), rel=0.2)


def test_the_program_writes_its_table_and_pictures(prices, tmp_path, monkeypatch, capsys):
    (tmp_path / "finance").mkdir()
    prices.to_csv(tmp_path / "finance" / "sp500_daily_1999_2018.csv.gz")
    monkeypatch.setenv("MIXTURA_DATA", str(tmp_path))
    monkeypatch.setattr(finance, "MODELS", {"small": (SMALL, True)})
    arguments = ["finance", "--first", "2002", "--last", "2002", "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", arguments)
    finance.main()
    assert "1% Kupiec" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "sp500_2002_2002.csv", index_col="method")
    assert np.isfinite(table.loc["small", "log score"])
    assert (tmp_path / "out" / "risk.png").stat().st_size < 100_000
    assert (tmp_path / "out" / "regimes.png").exists()


def test_missing_data_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXTURA_DATA", str(tmp_path))
    with pytest.raises(SystemExit, match="MIXTURA_DATA"):
        load_prices("sp500")
