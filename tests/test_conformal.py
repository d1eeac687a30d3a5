"""Sets with a promised coverage: over many resplits, whatever the model is worth, with ties, groups and vectors."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import betabinom
from torch.distributions import MultivariateNormal, Normal, Poisson
from typer.testing import CliRunner

import mixtura
from mixtura import JointRegion, MDNRegressor, MixturaError, Mixture, Region
from mixtura.answers import Answers
from mixtura.calibrated import conform
from mixtura.cli import app
from mixtura.conformal import (
    Partition,
    conformal_quantile,
    density_level_scores,
    density_level_set,
    density_scores,
    density_set,
    interval_scores,
    interval_set,
    profiles_of,
    split_for_partition,
)
from mixtura.regions import region_above

METHODS = ("hpd_split", "cqr", "cd_split")
N, N_RESPLITS = 600, 200


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def forecasts(kind: str, n: int = N) -> tuple[Mixture, torch.Tensor]:
    """Wrong forecasts, and what came instead."""
    x = torch.rand(n, generator=generator(1), dtype=torch.float64) * 2
    zero = torch.zeros(n, 2, dtype=torch.float64)
    two = torch.stack([-x, x], -1)
    if kind == "two":  # too narrow
        mixture = Mixture(zero, Normal(two, 0.1 + 0.3 * x[:, None]))
        return mixture, Mixture(zero, Normal(1.1 * two, 0.1 + 0.6 * x[:, None])).sample((), generator(2))
    if kind == "counts":  # of another rate
        return Mixture(zero[:, :1], Poisson(1 + 2 * x[:, None])), torch.poisson(1 + 3 * x, generator(2))
    if kind == "atoms":  # two of the same mass, and too rare
        logits = torch.tensor([0.4, 0.4, 0.1, 0.1], dtype=torch.float64).log().expand(n, 4)
        atoms = torch.tensor([0.0, 1.0], dtype=torch.float64)
        more = torch.tensor([0.3, 0.3, 0.2, 0.2], dtype=torch.float64).log().expand(n, 4)
        return Mixture(logits, Normal(two, 1.0), atoms), Mixture(more, Normal(two, 1.5), atoms).sample((), generator(2))
    unit = torch.eye(2, dtype=torch.float64)
    centres = torch.stack([two, two.square()], -1)
    truth = Mixture(zero, MultivariateNormal(centres, 2 * unit))
    return Mixture(zero, MultivariateNormal(centres, unit)), truth.sample((), generator(2))


def scores_of(method: str, mixture: Mixture, y: torch.Tensor) -> torch.Tensor:
    if method == "cqr":
        return interval_scores(mixture, y, 0.9)
    return (density_level_scores if method == "hpd_split" else density_scores)(mixture, y)


def set_of(method: str, mixture: Mixture, threshold: torch.Tensor) -> Region | JointRegion:
    if method == "cqr":
        return interval_set(mixture, threshold, 0.9)
    return (density_level_set if method == "hpd_split" else density_set)(mixture, threshold)


@pytest.mark.parametrize("kind", ["two", "counts", "atoms", "vectors"])
@pytest.mark.parametrize("method", METHODS)
def test_coverage_over_resplits_is_what_it_must_be(method, kind):
    if (method, kind) == ("cqr", "vectors"):
        return
    mixture, y = forecasts(kind)
    scores, n, m = scores_of(method, mixture, y), N // 2, N - N // 2
    covered = []
    for seed in range(N_RESPLITS):
        order = torch.randperm(N, generator=generator(seed))
        covered.append((scores[order[n:]] <= conformal_quantile(scores[order[:n]], 0.9)).double().mean().item())
    rank = -(-9 * (n + 1) // 10)
    law = betabinom(m, rank, n + 1 - rank)
    error = 4 * law.std() / m / N_RESPLITS**0.5
    assert np.mean(covered) >= law.mean() / m - error
    if kind in ("two", "vectors"):  # no ties: neither more nor less
        assert np.mean(covered) <= law.mean() / m + error
        inside = [law.ppf(0.025) / m <= share <= law.ppf(0.975) / m for share in covered]
        assert np.mean(inside) > 0.9


@pytest.mark.parametrize("kind", ["two", "counts", "atoms", "vectors"])
@pytest.mark.parametrize("method", METHODS)
def test_the_sets_hold_what_is_no_stranger_than_their_threshold(method, kind):
    if (method, kind) == ("cqr", "vectors"):
        return
    mixture, y = forecasts(kind)
    mixture, y = mixture[:100], y[:100]
    scores = scores_of(method, mixture, y)
    for level in (0.05, 0.5, 0.9):
        threshold = scores.sort().values[int(100 * level)].expand(100)
        inside = set_of(method, mixture, threshold).contains(y)
        is_due = scores <= threshold
        if kind == "vectors" and method == "hpd_split":  # other draws
            assert (inside != is_due).sum() <= 4
        else:
            assert bool((inside | ~is_due).all())  # atoms inside an interval may be held besides
            assert (inside & ~is_due).sum() <= (100 * 0.2 if kind == "atoms" else 0)


@pytest.mark.parametrize("kind", ["two", "counts", "atoms", "vectors"])
@pytest.mark.parametrize("method", METHODS)
def test_too_few_rows_make_the_set_everything(method, kind):
    if (method, kind) == ("cqr", "vectors"):
        return
    mixture, y = forecasts(kind, 3)
    whole = set_of(method, mixture, torch.full((3,), torch.inf, dtype=torch.float64))
    assert torch.equal(whole.size, torch.full((3,), torch.inf, dtype=torch.float64))
    assert bool(whole.contains(y + 1e6).all())
    if isinstance(whole, Region):
        assert whole.count.tolist() == [1, 1, 1]
        assert whole.lower[:, 0].tolist() == [-torch.inf] * 3
    assert conformal_quantile(torch.arange(8.0), 0.9) == torch.inf
    assert conformal_quantile(torch.arange(9.0), 0.9) == 8


def test_regions_above_a_density_are_highest_density_regions():
    mixture, _ = forecasts("two", 50)
    region, edge = mixture.highest_density_region(0.8), mixture.hdr_threshold(0.8)
    above = region_above(mixture.family, mixture, edge)
    torch.testing.assert_close(above.size, region.size)
    assert torch.equal(above.count, region.count)
    assert region_above(mixture.family, mixture, torch.full((50,), 50.0).double()).count.sum() == 0  # too dense


def test_equal_masses_belong_to_the_region_together():
    even = Mixture(torch.zeros(1, 1), Poisson(torch.tensor([[4.0]], dtype=torch.float64)))  # P(3) = P(4)
    region = even.highest_density_region(0.1)
    assert (region.lower.item(), region.upper.item()) == (3, 4)


def test_the_size_of_a_joint_region_is_that_of_a_disc():
    disc = MultivariateNormal(torch.zeros(1, 1, 2, dtype=torch.float64), torch.eye(2, dtype=torch.float64))
    region = density_level_set(Mixture(torch.zeros(1, 1), disc), torch.tensor([0.9], dtype=torch.float64))
    area = np.pi * -2 * np.log(0.1)
    assert abs(region.size.item() - area) < 5 * region.size_error.item() + 0.02 * area
    assert 0 < region.size_error.item() < 0.05 * area


def test_cells_are_of_alike_densities_and_follow_from_other_rows():
    scale = torch.tensor([0.1, 10.0], dtype=torch.float64).repeat_interleave(500)[:, None]
    mixture = Mixture(torch.zeros(1000, 1), Normal(torch.rand(1000, 1, generator=generator()).double(), scale))
    profiles = profiles_of(mixture, 0)
    cells = Partition.fit(profiles[::4]).cells(profiles)
    assert not set(cells[:500].tolist()) & set(cells[500:].tolist())
    first, rest = split_for_partition(1000)
    assert sorted([*first.tolist(), *rest.tolist()]) == list(range(1000))
    assert len(split_for_partition(400)[0]) == 0  # too few for cells


# Models ---------------------------------------------------------------------------------------------------------


class Fixed(Answers):
    """A forecast that is the same for all rows, N(0, 1)."""

    target_names_ = None
    _y_shape = ()

    def predict_dist(self, X):
        zero = torch.zeros(len(X), 1, dtype=torch.float64)
        return Mixture(zero, Normal(zero, 1.0))


@pytest.mark.parametrize("method", METHODS)
def test_groups_get_their_own_coverage(method):
    covered, pooled = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        group = rng.choice(["calm", "wild"], 1200, p=[0.7, 0.3])
        y = rng.normal(size=1200) * np.where(group == "wild", 3.0, 0.5)
        X = np.zeros((1200, 1))
        model = conform(Fixed(), X[:600], y[:600], method, group[:600])
        inside = model.predict_set(X[600:], 0.8, group[600:]).contains(torch.tensor(y[600:])).numpy()
        covered.append([inside[group[600:] == name].mean() for name in ("calm", "wild")])
        without = conform(Fixed(), X[:600], y[:600], method, None).predict_set(X[600:], 0.8)
        pooled.append(without.contains(torch.tensor(y[600:])).numpy()[group[600:] == "wild"].mean())
    assert np.abs(np.mean(covered, 0) - 0.8).max() < 0.03
    assert np.mean(pooled) < 0.6


def test_a_group_with_too_few_rows_gets_everything_and_others_do_not():
    X, y, group = np.zeros((50, 1)), np.linspace(-1, 1, 50), np.array(["many"] * 46 + ["few"] * 4)
    region = conform(Fixed(), X, y, "hpd_split", group).predict_set(X[:2], 0.9, ["many", "few"])
    assert region.size[0] < 10
    assert region.size[1] == torch.inf


@pytest.fixture(scope="module")
def fitted() -> MDNRegressor:
    X, y = rows(300, 0)
    return MDNRegressor(2, preset="plain", hidden_layer_sizes=(8,), max_epochs=8, random_state=0).fit(X, y)


def rows(n: int, seed: int) -> tuple[pd.DataFrame, pd.Series]:
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.uniform(-1, 1, (n, 2)), columns=["a", "b"]).assign(side=rng.choice(["x", "y"], n))
    return X, pd.Series(X["a"] + np.where(X["b"] > 0, 1.0, 0.2) * rng.normal(size=n), name="target")


@pytest.mark.parametrize("groups", [None, "side"])
@pytest.mark.parametrize("method", METHODS)
def test_a_model_with_sets_comes_back_from_disk(fitted, method, groups, tmp_path):
    X, y = rows(800, 1)
    new, y_new = rows(1000, 4)
    given = [None if groups is None else table[groups] for table in (X, new)]
    model = fitted.calibrate(X, y, method, given[0])
    region = model.predict_set(new, 0.9, given[1])
    assert region.contains(torch.tensor(y_new.to_numpy())).double().mean() > 0.87
    np.testing.assert_array_equal(model.predict(new), fitted.predict(new))
    model.save(tmp_path / "model")
    again = mixtura.load(tmp_path / "model")
    other = again.predict_set(new, 0.9, given[1])
    assert torch.equal(region.size, other.size)
    assert torch.equal(region.lower.nan_to_num(), other.lower.nan_to_num())
    assert again.summary == model.summary
    assert model.predict_set(new, 0.5, given[1]).size.mean() < region.size.mean()


def test_sets_after_temperature(fitted, tmp_path):
    X, y = rows(800, 1)
    model = fitted.calibrate(X[:400], y[:400]).calibrate(X[400:], y[400:], "hpd_split")
    model.save(tmp_path / "model")
    again = mixtura.load(tmp_path / "model")
    assert torch.equal(model.predict_set(X).size, again.predict_set(X).size)
    assert model.predict_set(X).contains(torch.tensor(y.to_numpy())).double().mean() > 0.85


def test_of_vectors(tmp_path):
    X, y = rows(500, 0)
    pair = np.column_stack([y, y + np.random.default_rng(0).normal(size=500)])
    model = MDNRegressor(1, preset="plain", hidden_layer_sizes=(8,), max_epochs=5, random_state=0)
    model.fit(X[:150], pair[:150])
    for method in ("hpd_split", "cd_split"):
        sets = model.calibrate(X[150:350], pair[150:350], method)
        region = sets.predict_set(X[350:], 0.9)
        assert isinstance(region, JointRegion)
        assert region.contains(torch.tensor(pair[350:])).double().mean() > 0.8
        assert bool((region.size > 0).all())
    sets.save(tmp_path / "model")
    assert torch.equal(mixtura.load(tmp_path / "model").predict_set(X[350:]).log_level, region.log_level)
    with pytest.raises(MixturaError) as caught:
        model.calibrate(X[150:350], pair[150:350], "cqr")
    assert caught.value.code == "E-scalar-only"


@pytest.mark.parametrize(
    ("code", "ask"),
    [
        ("E-coverage-range", lambda model, X, y: model.calibrate(X, y, "cqr").predict_set(X, 1.0)),
        ("E-coverage-range", lambda model, X, y: model.calibrate(X, y, "cqr").predict_set(X, "much")),
        ("E-calibration-groups", lambda model, X, y: model.calibrate(X, y, "cqr").predict_set(X, groups=X["side"])),
        ("E-calibration-groups", lambda model, X, y: model.calibrate(X, y, "cqr", X["side"]).predict_set(X)),
        ("E-calibration-groups", lambda model, X, y: model.calibrate(X, y, "cqr", X["side"][:-1])),
        (
            "E-calibration-groups",
            lambda model, X, y: model.calibrate(X, y, "cqr", X["side"]).predict_set(X, groups=["z"] * len(X)),
        ),
        ("E-calibration-groups", lambda model, X, y: model.calibrate(X, y, "cqr", [np.nan] * len(X))),
        ("E-input-length", lambda model, X, y: model.calibrate(X, y[:-1], "hpd_split")),
        (
            "E-target-type",
            lambda model, X, y: model.calibrate(X, pd.arrays.IntervalArray.from_arrays(y, y + 1), "hpd_split"),
        ),
    ],
)
def test_errors_are_coded(fitted, code, ask):
    with pytest.raises(MixturaError) as caught:
        ask(fitted, *rows(60, 1))
    assert caught.value.code == code


# The command line -----------------------------------------------------------------------------------------------


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_command_line_calibrates_and_predicts_sets(fitted):
    fitted.save("model")
    X, y = rows(300, 1)
    X.assign(target=y).to_csv("own.csv", index=False)
    X.to_csv("new.csv", index=False)
    run("calibrate", "model", "own.csv", "-o", "warm")
    run("predict", "warm", "new.csv", "-o", "warm.csv")
    expected = fitted.calibrate(X, y).predict(X)
    np.testing.assert_allclose(pd.read_csv("warm.csv")["mean"], expected, rtol=1e-9)
    run("calibrate", "warm", "own.csv", "--method", "hpd_split", "--groups", "side", "-o", "sets")
    run("predict", "sets", "new.csv", "--coverage", 0.8, "--groups", "side", "-o", "sets.csv")
    out = pd.read_csv("sets.csv")
    assert {"mean", "set_size", "set_lower_1", "set_upper_1"} <= set(out)
    assert 0.75 < ((out["set_lower_1"] <= y) & (y <= out["set_upper_1"])).mean() < 0.9
    assert "hpd_split" in run("info", "sets")
    for arguments in (
        ("calibrate", "model", "own.csv", "--method", "platt", "-o", "x"),
        ("calibrate", "model", "new.csv", "-o", "x"),
        ("predict", "warm", "new.csv", "--coverage", "0.9"),
    ):
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == 1
        assert "[E-" in done.stderr
