"""Evaluation and comparison against known truths: theory, numpy, formulas written out by hand, simulation."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch.distributions import Gamma, Laplace, MultivariateNormal, Normal, Poisson
from typer.testing import CliRunner, Result

import mixtura
from mixtura import MDNRegressor, MixturaError, Mixture, compare, evaluate
from mixtura.cli import app
from mixtura.comparison import long_run_variance
from mixtura.families import VonMises

N = 1000
LEVELS = (50, 80, 90, 95)


def normal(loc, scale=1.0) -> Mixture:
    loc = torch.as_tensor(np.array(loc, dtype=np.float64))[:, None]
    return Mixture(torch.zeros_like(loc), Normal(loc, torch.full_like(loc, scale)))


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    """Features of variance 4, and y = x + standard normal noise."""
    rng = np.random.default_rng(1)
    x = 2 * rng.normal(size=N)
    return x, x + rng.normal(size=N)


@pytest.fixture(scope="module")
def truth(data):
    x, y = data
    return evaluate(normal(x), x[:, None], y)


def assert_near(result, metric: str, expected: float, times: float = 4.0) -> None:
    value, error = result.table.loc[metric, ["value", "standard_error"]]
    assert abs(value - expected) < times * error, f"{metric}: {value} ± {error}, not {expected}"


# What is known of the truth ------------------------------------------------------------------------------------


def test_the_truth_is_found_calibrated(truth):
    for level in LEVELS:
        for kind in ("central", "hdr"):
            share, error, expected = truth.table.loc[f"{kind}_coverage_{level}"]
            assert expected == pytest.approx(level / 100)
            assert error == pytest.approx(math.sqrt(share * (1 - share) / (N - 1)))
            assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / N)
    for name in ("pit", "hdr_pit"):
        assert truth[f"{name}_ks_p_value"] > 0.001
        assert_near(truth, f"{name}_mean", 0.5)
        assert_near(truth, f"{name}_dispersion", 1.0)
    assert "No miscalibration" in truth.summary


def test_widths_and_errors_are_those_of_the_normal_law(truth):
    for level in LEVELS:
        width = 2 * stats.norm.ppf(0.5 + level / 200)
        assert truth[f"central_width_{level}"] == pytest.approx(width)
        assert truth[f"hdr_width_{level}"] == pytest.approx(width, rel=0.01)  # the same set, by draws
    assert_near(truth, "rmse_mean", 1.0)
    assert_near(truth, "mae_median", math.sqrt(2 / math.pi))
    assert_near(truth, "nll", 0.5 * math.log(2 * math.pi * math.e))
    assert_near(truth, "crps", 1 / math.sqrt(math.pi))


def test_skill_is_what_theory_says(truth):
    assert_near(truth, "nll_gain_unconditional", 0.5 * math.log(5))
    assert_near(truth, "crps_skill_unconditional", 1 - 1 / math.sqrt(5))
    assert abs(truth["nll_gain_linear"]) < 10 / N  # three numbers are learned, which costs 3/2n
    assert_near(truth, "nll_gain_linear", 1.5 / N)
    assert abs(truth["crps_skill_linear"]) < 0.005
    assert "better than the density without features" in truth.summary


def test_standard_errors_are_paired(truth):
    rows = truth.by_row
    gain = rows["nll_unconditional"] - rows["nll"]
    assert truth.table.loc["nll_gain_unconditional", "standard_error"] == pytest.approx(gain.sem())
    assert gain.sem() < np.hypot(rows["nll"].sem(), rows["nll_unconditional"].sem())
    rng = np.random.default_rng(0)
    resampled = [rows.iloc[rng.integers(N, size=N)] for _ in range(400)]
    skills = [1 - some["crps"].mean() / some["crps_unconditional"].mean() for some in resampled]
    assert truth.table.loc["crps_skill_unconditional", "standard_error"] == pytest.approx(np.std(skills), rel=0.15)
    roots = [math.sqrt(some["squared_error_mean"].mean()) for some in resampled]
    assert truth.table.loc["rmse_mean", "standard_error"] == pytest.approx(np.std(roots), rel=0.15)


def test_distances_to_the_uniform_law(truth):
    levels = truth.by_row["pit"].to_numpy()
    assert truth["pit_ks"] == pytest.approx(stats.kstest(levels, "uniform").statistic)
    shares = [np.mean(levels <= u) - u for u in np.arange(1, 100) / 100]
    assert truth["pit_calibration_error"] == pytest.approx(np.abs(shares).mean())
    rng = np.random.default_rng(0)
    resampled = [stats.kstest(rng.choice(levels, N), "uniform").statistic for _ in range(400)]
    assert truth.table.loc["pit_ks", "standard_error"] == pytest.approx(np.std(resampled), rel=0.2)


def test_expected_distances_are_those_of_uniform_numbers():
    y = np.random.default_rng(0).normal(size=(20, 100))
    found = pd.DataFrame([evaluate(normal(np.zeros(100)), None, column).table["value"] for column in y])
    expected = evaluate(normal(np.zeros(100)), None, y[0]).table["expected"]
    for metric in ("pit_calibration_error", "hdr_pit_calibration_error"):
        assert found[metric].mean() == pytest.approx(expected[metric], abs=4 * found[metric].sem())
    # The greatest of finitely many distances is a little below that of the bridge.
    assert found["pit_ks"].mean() == pytest.approx(expected["pit_ks"], abs=4 * found["pit_ks"].sem() + 0.005)


def test_too_narrow_too_wide_too_low_and_too_high_are_found(data):
    x, y = data
    for scale, word in ((0.7, "too narrow"), (1.5, "too wide")):
        found = evaluate(normal(x, scale), None, y)
        u = stats.norm.cdf(np.linspace(-6, 6, 2001) / scale)
        density = stats.norm.pdf(np.linspace(-6, 6, 2001)) * 0.006
        assert_near(found, "pit_dispersion", 12 * np.sum(density * (u - 0.5) ** 2))
        assert_near(found, "central_coverage_90", 2 * stats.norm.cdf(scale * stats.norm.ppf(0.95)) - 1)
        assert_near(found, "hdr_coverage_90", 2 * stats.norm.cdf(scale * stats.norm.ppf(0.95)) - 1)
        assert word in found.summary
        assert found["pit_ks_p_value"] < 1e-6
        assert found["hdr_pit_ks_p_value"] < 1e-6
    for shift, word in ((-0.3, "too low"), (0.3, "too high")):
        found = evaluate(normal(x + shift), None, y)
        assert_near(found, "pit_mean", stats.norm.cdf(-shift / math.sqrt(2)))
        assert word in found.summary


def test_a_wrong_shape_that_the_pit_does_not_see_is_seen_by_regions():
    rng = np.random.default_rng(0)
    y = rng.choice([-2.0, 2.0], N) + 0.3 * rng.normal(size=N)
    wide = evaluate(normal(np.zeros(N), math.sqrt(4.09)), None, y)
    assert wide["hdr_pit_mean"] != pytest.approx(0.5, abs=0.05)
    two = Mixture(torch.zeros(2).double(), Normal(torch.tensor([-2.0, 2.0]).double(), torch.tensor(0.3).double()))
    right = evaluate(two, None, y)  # one mixture for all rows
    assert right["hdr_pit_ks_p_value"] > 0.001
    assert right["hdr_width_90"] < 0.55 * right["central_width_90"]
    region = two.highest_density_region(0.9)
    assert right["hdr_width_90"] == pytest.approx(region.size.item(), rel=0.02)


# References ----------------------------------------------------------------------------------------------------


def test_units_move_scores_and_not_skills(data):
    x, y = data
    scaled = evaluate(normal(x).affine(5.0, 1e3), x[:, None], 5 + 1e3 * y)
    plain = evaluate(normal(x), x[:, None], y)
    for metric in ("nll_gain_unconditional", "nll_gain_linear", "crps_skill_linear", "pit_ks"):
        assert scaled[metric] == pytest.approx(plain[metric], abs=1e-6)
    assert scaled["crps"] == pytest.approx(1e3 * plain["crps"])
    assert scaled["nll"] == pytest.approx(plain["nll"] + math.log(1e3))


def test_references_learn_from_train_where_it_is_given(data):
    x, y = data
    rng = np.random.default_rng(5)
    x_train = 2 * rng.normal(size=5000)
    train = (x_train[:, None], x_train + rng.normal(size=5000) + 1.0)  # another line, another spread
    found = evaluate(normal(x), x[:, None], y, train=train).by_row
    line = stats.norm(x + 1.0, 1.0)
    np.testing.assert_allclose(found["nll_linear"], -line.logpdf(y), atol=0.25)
    everywhere = stats.norm(1.0, math.sqrt(5))
    assert found["nll_unconditional"].mean() == pytest.approx(-everywhere.logpdf(y).mean(), abs=0.03)


def test_a_row_is_judged_by_references_that_have_not_seen_it():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 40)), rng.normal(size=60)  # a line can learn these by heart
    result = evaluate(normal(np.zeros(60)), X, y)
    assert result["nll_gain_linear"] > 0


def test_without_features_there_is_no_line_and_with_few_rows_no_reference(data):
    x, y = data
    assert not any("linear" in metric for metric in evaluate(normal(x), None, y).table.index)
    few = evaluate(normal(x[:10]), x[:10, None], y[:10])
    assert not any("gain" in metric for metric in few.table.index)
    assert few.summary.startswith("The NLL is")
    one = evaluate(normal(x[:1]), None, y[:1])
    assert one.table["standard_error"].isna().all()


def test_categories_and_missing_values_help_the_line():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"kind": rng.choice(["a", "b", "c"], N), "x": rng.normal(size=N), "empty": np.nan})
    effect = X["kind"].map({"a": -3.0, "b": 0.0, "c": 3.0}).to_numpy()
    y = effect + rng.normal(size=N)
    X.loc[::7, "x"] = np.nan
    result = evaluate(normal(effect), X, y)
    assert abs(result["nll_gain_linear"]) < 0.01
    assert result["nll_gain_unconditional"] > 0.3


# Targets of every kind -----------------------------------------------------------------------------------------


def test_vectors():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 2))
    scale_tril = np.array([[1.0, 0.0], [0.8, 0.6]])
    y = x + rng.normal(size=(N, 2)) @ scale_tril.T
    components = MultivariateNormal(
        torch.as_tensor(x)[:, None], scale_tril=torch.as_tensor(scale_tril).expand(N, 1, 2, 2)
    )
    mixture = Mixture(torch.zeros(N, 1).double(), components)
    result = evaluate(mixture, x, pd.DataFrame(y, columns=["a", "b"]))
    for level in LEVELS:
        assert_near(result, f"hdr_coverage_{level}", level / 100)
    assert result["hdr_pit_ks_p_value"] > 0.001
    assert_near(result, "rmse_mean", math.sqrt(2.0))
    covariance = scale_tril @ scale_tril.T
    gain = 0.5 * np.linalg.slogdet(np.eye(2) + np.linalg.inv(covariance))[1]
    assert_near(result, "nll_gain_unconditional", gain)
    assert abs(result["nll_gain_linear"]) < 0.01  # the line has the covariance, too
    draws = x[:, None] + rng.normal(size=(N, 400, 2)) @ scale_tril.T
    energy = np.linalg.norm(draws - y[:, None], axis=-1).mean()
    energy -= 0.5 * np.linalg.norm(draws[:, ::2] - draws[:, 1::2], axis=-1).mean()
    assert result["energy"] == pytest.approx(energy, rel=0.01)
    assert "neither too narrow nor too wide" in result.summary
    narrow = Mixture(mixture.logits, MultivariateNormal(components.loc, scale_tril=0.7 * components.scale_tril))
    assert "too narrow" in evaluate(narrow, x, y).summary
    margin = evaluate(mixture.marginal(1), x, y[:, 1])
    assert_near(margin, "central_coverage_90", 0.9)


def test_atoms():
    rng = np.random.default_rng(0)
    x = rng.normal(size=N)
    y = np.where(rng.uniform(size=N) < 0.6, 0.0, x + rng.normal(size=N))
    twice = torch.zeros(N, 2).double()  # as in a pool: the same atom twice
    logits = torch.tensor([0.4, 0.3, 0.3]).double().log().expand(N, 3)
    mixture = Mixture(logits, normal(x).components, twice)
    result = evaluate(mixture, x[:, None], y)
    assert result["pit_ks_p_value"] > 0.001  # drawn within the jump
    assert result["hdr_pit_ks_p_value"] > 0.001
    assert abs(result["nll_gain_linear"]) < 0.01  # the line knows of the atom, too
    assert_near(result, "nll_gain_unconditional", 0.4 * 0.5 * math.log(2))
    for level in LEVELS:
        for kind in ("central", "hdr"):
            metric = f"{kind}_coverage_{level}"
            assert_near(result, metric, result.table.loc[metric, "expected"])
    assert result.table.loc["central_coverage_50", "expected"] > 0.6  # at least the atom
    assert result["hdr_width_50"] < 0.01  # the atom alone
    with pytest.raises(MixturaError, match="E-atoms-differ"):
        compare({"with": mixture, "without": normal(x)}, None, y)
    table = compare({"with": mixture, "without": normal(x)}, None, y, score="crps").table
    assert table["rank"]["with"] == 1
    other = Mixture(logits, normal(x).components, torch.arange(N)[:, None].double().expand(N, 2))
    with pytest.raises(MixturaError, match="E-atoms-differ"):
        evaluate(other, None, y)


def test_counts():
    rng = np.random.default_rng(0)
    x = rng.normal(size=N)
    rate = np.exp(0.5 + 0.7 * x)
    mixture = Mixture(torch.zeros(N, 1).double(), Poisson(torch.as_tensor(rate)[:, None]))
    y = rng.poisson(rate)
    result = evaluate(mixture, x[:, None], y)
    assert result["pit_ks_p_value"] > 0.001
    assert result["hdr_pit_ks_p_value"] > 0.001
    for level in LEVELS:
        for kind in ("central", "hdr"):
            share, error, expected = result.table.loc[f"{kind}_coverage_{level}"]
            assert expected > level / 100 - 0.01  # whole numbers come whole
            assert abs(share - expected) < 4 * error
    sizes = mixture.highest_density_region(0.9).size.mean().item()
    assert result["hdr_width_90"] == pytest.approx(sizes, rel=0.05)
    assert result["nll_gain_linear"] > 0
    # The rounded line is a law of whole numbers: its probabilities are no more than 1.
    assert (result.by_row["nll_linear"] > 0).all()
    with pytest.raises(MixturaError, match="E-atoms-differ"):
        compare({"counts": mixture, "density": normal(rate)}, None, y)


def test_the_reference_is_of_the_forecasts_own_law():
    rng = np.random.default_rng(0)
    y = rng.gamma(0.5, size=400)
    forecast = Mixture(torch.zeros(1).double(), Gamma(torch.tensor([0.5]).double(), torch.tensor([1.0]).double()))
    assert abs(evaluate(forecast, None, y)["nll_gain_unconditional"]) < 0.05  # normal ones would lose 0.1 and more


def test_angles_are_compared_around_the_circle():
    rng = np.random.default_rng(0)
    y = (math.pi + rng.vonmises(0.0, 10.0, 20) + math.pi) % (2 * math.pi) - math.pi  # about the seam
    pi = torch.full((20, 1), math.pi).double()
    components = VonMises(pi, torch.full_like(pi, 10.0), -pi, pi)
    result = evaluate(Mixture(torch.zeros(20, 1).double(), components), np.zeros((20, 1)), y)
    assert result["mae_mean"] < 0.4
    assert result["hdr_pit_ks_p_value"] > 0.001
    assert "nll_gain_linear" not in result.table.index


def test_of_intervals_there_is_the_nll():
    rng = np.random.default_rng(0)
    y = rng.normal(size=N)
    seen = np.minimum(y, 1.0)
    bounds = pd.arrays.IntervalArray.from_arrays(seen, np.where(y > 1, np.inf, seen), closed="both")
    result = evaluate(normal(np.zeros(N)), None, bounds)
    assert list(result.table.index) == ["nll"]
    expected = np.where(y > 1, -stats.norm.logsf(1.0), -stats.norm.logpdf(seen))
    np.testing.assert_allclose(result.by_row["nll"], expected)
    with pytest.raises(MixturaError, match="E-target-type"):
        compare({"a": normal(np.zeros(N)), "b": normal(np.ones(N))}, None, bounds, score="crps")


class Squashed:
    """A distribution that is no mixture: Laplace, with what a recalibrated forecast can answer."""

    def __init__(self, loc: np.ndarray):
        self.law = Laplace(torch.as_tensor(loc), torch.ones(len(loc)).double())
        self.batch_shape, self.event_shape, self.mean = self.law.batch_shape, self.law.event_shape, self.law.mean
        self.log_prob, self.cdf, self.icdf = self.law.log_prob, self.law.cdf, self.law.icdf

    def sample(self, sample_shape, generator=None):
        return self.law.icdf(torch.rand((*sample_shape, *self.batch_shape), generator=generator, dtype=torch.float64))

    def crps(self, y):
        return mixtura.crps(
            Mixture(torch.zeros(len(y), 1).double(), Laplace(self.law.loc[:, None], self.law.scale[:, None])),
            y,
            reduction="none",
        )


def test_a_distribution_that_is_no_mixture(data):
    x, _ = data
    y = x + np.random.default_rng(2).laplace(size=N)
    law = Squashed(x)

    class Model:
        def predict_dist(self, X):
            return law

    result = evaluate(Model(), x[:, None], y)
    assert result["pit_ks_p_value"] > 0.001
    assert result["hdr_pit_ks_p_value"] > 0.001
    assert result["hdr_width_90"] == pytest.approx(-2 * math.log(0.1), rel=0.02)
    assert result["nll_gain_linear"] > 0
    assert compare({"laplace": law, "normal": normal(x, 2**0.5)}, None, y).table.index[0] == "laplace"


def test_rows_that_are_impossible_are_told():
    forecast = Mixture(torch.zeros(1).double(), Gamma(torch.tensor([2.0]).double(), torch.tensor([1.0]).double()))
    y = np.r_[np.random.default_rng(0).gamma(2.0, size=99), -1.0]
    result = evaluate(forecast, np.zeros((100, 1)), y)
    assert result["nll"] == math.inf
    assert math.isfinite(result["crps"])
    assert "1 of 100 rows are impossible" in result.summary
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["metrics"]["nll"]["value"] is None


def test_the_seed_decides(data):
    x, y = data
    first, again, other = (evaluate(normal(x), x[:, None], y, random_state=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first.table, again.table)
    assert first["hdr_pit_mean"] != other["hdr_pit_mean"]
    assert first["nll"] == other["nll"]


@pytest.mark.parametrize(
    ("code", "call"),
    [
        ("E-forecast", lambda f, y: evaluate("model", None, y)),
        ("E-forecast", lambda f, y: evaluate(MDNRegressor(), None, y)),
        ("E-input-length", lambda f, y: evaluate(f, None, y[:-1])),
        ("E-target-shape", lambda f, y: evaluate(f, None, np.stack([y, y], 1))),
        ("E-target-nan", lambda f, y: evaluate(f, None, np.r_[y[1:], np.nan])),
        ("E-parameter", lambda f, y: evaluate(f, None, y, random_state=-1)),
        ("E-parameter", lambda f, y: evaluate(f, None, y, train=y)),
        ("E-target-shape", lambda f, y: evaluate(f, None, y, train=(None, np.stack([y, y], 1)))),
        ("E-parameter", lambda f, y: compare({"a": f}, None, y)),
        ("E-parameter", lambda f, y: compare([f, f], None, y)),
        ("E-parameter", lambda f, y: compare({"a": f, "b": f}, None, y, score="mse")),
        ("E-vector-only", lambda f, y: compare({"a": f, "b": f}, None, y, score="energy")),
        ("E-too-few-rows", lambda f, y: compare({"a": f[:1], "b": f[:1]}, None, y[:1])),
        (
            "E-input-length",
            lambda f, y: compare({"a": evaluate(f, None, y), "b": evaluate(f[1:], None, y[1:])}, None, y),
        ),
    ],
)
def test_errors_have_codes(data, code, call):
    x, y = data
    with pytest.raises(MixturaError) as error:
        call(normal(x[:50]), y[:50])
    assert error.value.code == code


# Comparisons ---------------------------------------------------------------------------------------------------


def test_a_comparison_is_a_paired_t_test(data):
    x, y = data
    models = {"wide": normal(x, 1.2), "right": normal(x), "blind": normal(np.zeros(N), 5**0.5)}
    comparison = compare(models, None, y)
    table = comparison.table
    assert list(table.index) == ["right", "wide", "blind"]
    assert list(table["rank"]) == [1, 2, 3]
    losses = {name: -model.log_prob(torch.as_tensor(y)).numpy() for name, model in models.items()}
    for name in ("wide", "blind"):
        gap = losses[name] - losses["right"]
        row = table.loc[name]
        assert row["score"] == pytest.approx(losses[name].mean())
        assert row["difference"] == pytest.approx(gap.mean())
        assert row["standard_error"] == pytest.approx(gap.std(ddof=1) / math.sqrt(N))
        test = stats.ttest_1samp(gap, 0.0)
        assert row["p_value"] == pytest.approx(test.pvalue)
        assert (row["lower"], row["upper"]) == pytest.approx(tuple(test.confidence_interval(0.95)))
    assert "Surely worse" in comparison.summary
    evaluated = {name: evaluate(model, None, y) for name, model in models.items()}
    pd.testing.assert_frame_equal(compare(evaluated, None, y).table, table)
    assert compare({"a": normal(x), "b": normal(x)}, None, y).table["p_value"]["b"] == 1.0
    json.dumps(comparison.to_dict(), allow_nan=False)


@pytest.mark.parametrize("score", ["crps", "squared_error", "absolute_error"])
def test_other_scores(data, score):
    x, y = data
    table = compare({"right": normal(x), "off": normal(x + 0.5)}, None, y, score=score).table
    expected = evaluate(normal(x), None, y)
    metric = {"crps": "crps", "squared_error": "rmse_mean", "absolute_error": "mae_median"}[score]
    value = expected[metric] ** 2 if score == "squared_error" else expected[metric]
    assert table["score"]["right"] == pytest.approx(value)
    assert table["p_value"]["off"] < 0.001


def autoregression(n: int, phi: float, rng: np.random.Generator) -> np.ndarray:
    noise = rng.normal(size=n + 50)
    for t in range(1, n + 50):
        noise[t] += phi * noise[t - 1]
    return noise[50:]


def test_diebold_mariano_is_the_formula_written_out(data):
    x, y = data
    n, rng = 120, np.random.default_rng(0)
    shift = 0.5 + 0.5 * autoregression(n, 0.6, rng)
    models = {"right": normal(x[:n]), "off": normal(x[:n] + shift)}
    row = compare(models, None, y[:n], score="squared_error", time_ordered=True).table.loc["off"]
    gap = (y[:n] - x[:n] - shift) ** 2 - (y[:n] - x[:n]) ** 2
    mean, h = gap.mean(), long_run_variance(gap)[0] + 1
    assert h > 1
    total = 0.0  # Bartlett: the sum over all pairs of rows less than h apart
    for s in range(n):
        for t in range(n):
            total += max(0.0, 1 - abs(s - t) / h) * (gap[s] - mean) * (gap[t] - mean)
    statistic = mean / math.sqrt(total / n / n)
    statistic *= math.sqrt((n + 1 - 2 * h + h * (h - 1) / n) / n)
    assert row["p_value"] == pytest.approx(2 * stats.t.sf(abs(statistic), n - 1))
    assert row["difference"] / row["standard_error"] == pytest.approx(statistic)
    # Andrews' rule for an autoregression of order 1 with the correlation that is found.
    rho = np.sum((gap[1:] - mean) * (gap[:-1] - mean)) / np.sum((gap - mean) ** 2)
    assert h - 1 == math.floor(1.1447 * (4 * rho**2 * n / ((1 - rho) ** 2 * (1 + rho) ** 2)) ** (1 / 3))


@pytest.mark.parametrize("phi", [0.0, 0.5])
def test_the_size_of_the_test_in_time_is_near_five_percent(phi):
    rng, n, rejected = np.random.default_rng(0), 200, {True: 0, False: 0}
    for _ in range(400):
        # Two forecasts of 0 that are equally far off, in turns: absolute errors 1 + d and 1.
        d = 0.1 * autoregression(n, phi, rng)
        frames = {}
        for name, loss in (("a", 1 + d), ("b", np.ones(n))):
            frames[name] = mixtura.Evaluation(pd.DataFrame(), pd.DataFrame({"crps": loss}), "", "density")
        for ordered in (True, False):
            p_values = compare(frames, None, None, score="crps", time_ordered=ordered).table["p_value"]
            rejected[ordered] += bool(p_values.iloc[1] < 0.05)
    assert 0.02 < rejected[True] / 400 < 0.105
    if phi:
        assert rejected[False] / 400 > 0.18  # what order in time is told for
    else:
        assert 0.02 < rejected[False] / 400 < 0.09


def test_the_long_run_variance_of_an_autoregression():
    series = autoregression(20_000, 0.5, np.random.default_rng(0))
    assert long_run_variance(series)[1] == pytest.approx(1 / (1 - 0.5) ** 2, rel=0.1)
    assert long_run_variance(np.ones(10)) == (0, 0.0)


def test_a_forecast_with_an_infinite_loss_comes_last():
    forecast = Mixture(torch.zeros(1).double(), Gamma(torch.tensor([2.0]).double(), torch.tensor([1.0]).double()))
    y = np.r_[np.random.default_rng(0).gamma(2.0, size=99), -1.0]
    table = compare({"gamma": forecast, "normal": normal(np.full(100, 2.0), 2.0)}, None, y, time_ordered=True).table
    assert list(table.index) == ["normal", "gamma"]
    assert math.isnan(table["p_value"]["gamma"])


# Models, and the command line ----------------------------------------------------------------------------------


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def make_trips(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    trips = pd.DataFrame({"miles": rng.uniform(0, 10, n), "zone": rng.choice(["01", "02"], n)})
    trips["minutes"] = 4 * trips["miles"] + 5 * (trips["zone"] == "02") + rng.normal(size=n)
    return trips


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two models of the same target, one of another, and rows of which some lack a target."""
    path = tmp_path_factory.mktemp("models")
    train, test = make_trips(400, 0), make_trips(200, 1)
    for name, features in (("good", ["miles", "zone"]), ("blind", ["zone"])):
        model = MDNRegressor(n_components=1, preset="plain", max_epochs=60, random_state=0)
        model.fit(train[features], train["minutes"]).save(path / name)
    other = MDNRegressor(n_components=1, preset="plain", max_epochs=1, random_state=0)
    other.fit(train[["minutes"]], train["miles"]).save(path / "other")
    test.loc[:4, "minutes"] = np.nan
    test.to_csv(path / "test.csv", index=False)
    return path


def test_a_fitted_model_is_evaluated_with_its_own_table(folder):
    model, test = mixtura.load(folder / "good"), make_trips(200, 1)
    result = evaluate(model, test[["miles", "zone"]], test["minutes"])
    assert result["nll_gain_unconditional"] > 1
    assert result["nll"] == pytest.approx(-model.score_samples(test[["miles", "zone"]], test["minutes"]).mean())
    two = pd.DataFrame({"b": test["minutes"], "a": test["miles"]})
    pair = MDNRegressor(n_components=1, preset="plain", max_epochs=1, random_state=0).fit(test[["miles"]], two)
    with pytest.raises(MixturaError, match="E-target-shape"):
        evaluate(pair, test[["miles"]], two[["a", "b"]])


def test_evaluate_on_the_command_line(folder):
    done = run("evaluate", folder / "good", folder / "test.csv")
    assert done.exit_code == 0, done.output
    assert "5 rows without minutes are left out" in done.stderr
    assert "195 rows" in done.stdout.replace("\n", " ")
    assert "crps_skill_linear" in done.stdout
    found = json.loads(run("evaluate", folder / "good", folder / "test.csv", "--json").stdout)
    test = make_trips(200, 1).iloc[5:]
    expected = evaluate(mixtura.load(folder / "good"), test[["miles", "zone"]], test["minutes"])
    assert found == json.loads(json.dumps(expected.to_dict()))


def test_compare_on_the_command_line(folder):
    good, blind, table = folder / "good", folder / "blind", folder / "test.csv"
    done = run("compare", blind, good, table, "--score", "crps", "--time-ordered", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["n_rows"], found["score"], found["time_ordered"]) == (195, "crps", True)
    assert found["models"][str(good)]["rank"] == 1
    assert found["models"][str(blind)]["p_value"] < 1e-6
    assert "Surely worse" in run("compare", blind, good, table).stdout
    for arguments in ((good, table), (good, folder / "other", table), (good, blind, table, "--score", "mse")):
        failed = run("compare", *arguments)
        assert failed.exit_code == 1
        assert "[E-parameter]" in failed.stderr
    make_trips(20, 2).drop(columns="minutes").to_csv("new.csv", index=False)
    assert "[E-column-missing]" in run("evaluate", good, "new.csv").stderr
