"""Input on which an earlier version gave a wrong answer, NaN or an error without a code."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.distributions import (
    ExpTransform,
    Gamma,
    Independent,
    LogNormal,
    MultivariateNormal,
    Normal,
    Poisson,
    StudentT,
)

from mixtura import (
    MDN,
    MLP,
    MDNRegressor,
    MixturaError,
    Mixture,
    MixtureHead,
    censored_nll,
    decompose,
    dss,
    energy_score,
    hdr_level,
    load,
    pool,
    rosenblatt,
    select_components,
    training,
    variogram_score,
)
from mixtura.families import MultivariateStudentT, Product, ScaledBeta, get_family
from mixtura.families.normal import NormalFamily
from mixtura.revival import revive
from mixtura.rows import Rows
from mixtura.targets import as_target, smallest_scales

F64, INF = torch.float64, math.inf


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


# Quantiles -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("components", "ends"),
    [
        (Gamma(tensor(2.0), tensor(1.0)), [0, INF]),
        (LogNormal(tensor(0.0), tensor(1.0)), [0, INF]),
        (ScaledBeta(tensor(2.0), tensor(2.0), tensor(-1.0), tensor(3.0)), [-1, 3]),
        (Normal(tensor(0.0), tensor(1.0)), [-INF, INF]),
    ],
    ids=["gamma", "lognormal", "beta", "normal"],
)
def test_levels_0_and_1_are_the_ends_of_the_support(components, ends):
    assert Mixture(tensor(0.0), components).icdf(tensor(0, 1)).tolist() == ends
    with_atom = Mixture(tensor(0.0, 0.0), components, tensor(-2.0)).icdf(tensor(0, 1))
    assert with_atom.tolist() == [min(ends[0], -2), ends[1]]


def test_levels_0_and_1_of_atoms_alone():
    mixture = Mixture(tensor(-INF, 0.0, 0.0), Normal(tensor(0.0), tensor(1.0)), tensor(5.0, 2.0))
    assert mixture.icdf(tensor(0, 1)).tolist() == [2, 5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_component_narrower_than_the_grain_of_its_place(dtype):
    loc, scale = torch.tensor([0.0, 1e6], dtype=dtype), torch.tensor([1e6, 1e-2 if dtype == torch.float32 else 1e-11])
    y = Mixture(torch.zeros(2, dtype=dtype), Normal(loc, scale.to(dtype))).icdf(tensor(0.45, 0.5, 0.55).to(dtype))
    assert y.double().numpy() == pytest.approx([1e6] * 3, rel=1e-6)


@pytest.mark.parametrize(
    ("components", "level", "expected"),
    [
        (Gamma(tensor(0.05, 5.0), tensor(1.0, 1.0)), 1e-6, 6.128540904e-115),
        (LogNormal(tensor(0.0, 0.0), tensor(30.0, 0.1)), 1e-12, 4.136295669e-91),
        (Normal(tensor(0.0, 0.0, 5.0), tensor(1e-80, 1e80, 3.0)), 0.7, 5.7600413094),
        (Normal(tensor(0.0, 0.0, 5.0), tensor(1e-35, 1e35, 3.0)), 0.25, -8.337545787e-36),
    ],
)
def test_brackets_over_a_hundred_orders_of_magnitude(components, level, expected):
    mixture = Mixture(torch.zeros(components.batch_shape, dtype=F64), components)
    y = mixture.icdf(level)
    assert y.item() == pytest.approx(expected, rel=1e-8)
    assert mixture.cdf(y).item() == pytest.approx(level, rel=1e-9)


def test_a_component_whose_own_quantile_is_beyond_all_numbers():
    mixture = Mixture(tensor(1e-4, 0.9999).log(), LogNormal(tensor(1164.0, 0.0), tensor(1.0, 1.0)))
    y = mixture.icdf(0.7)
    assert y.item() == pytest.approx(1.6898, abs=1e-3)
    assert mixture.cdf(y).item() == pytest.approx(0.7, rel=1e-12)


def test_the_level_1e_300_of_very_different_scales():
    logits = tensor(1.493238913285013, -3.678999791770272, 5.620911649341194, -0.1662472384030222)
    loc, scale = tensor(0.0079367, -0.0042675, 0.0045387, 0.0132960), tensor(9.18134, 0.85293, 364637.388, 20148.6388)
    mixture = Mixture(logits, Normal(loc, scale))
    assert mixture.log_cdf(mixture.icdf(1e-300)).item() == pytest.approx(-300 * math.log(10), rel=1e-14)


def test_float32_quantiles_are_rounded_float64_quantiles(generator):
    n = 20_000
    loc = torch.randn(n, 2, generator=generator)
    scale = torch.exp(3 * torch.rand(n, 2, generator=generator) * torch.tensor([-3.0, 0.0]))
    mixture = Mixture(torch.randn(n, 2, generator=generator), Normal(loc, scale))
    y, exact = mixture.icdf(0.5 * torch.ones(n)), mixture.to(F64).icdf(0.5)
    assert y.dtype == torch.float32
    # The weights in float32 sum to 1 but for rounding.
    assert ((mixture.to(F64).cdf(y.double()) - 0.5).abs() <= 1e-6 + 1e-6 * mixture.log_prob(y).exp() * y.abs()).all()
    assert exact.dtype == F64


# Moments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("far", [1e8, 1e20])
def test_components_without_weight_do_not_touch_the_moments(far):
    mixture = Mixture(tensor(-INF, 0.0), Normal(tensor(far, 1.2345678901234), tensor(1.0, 1.0)))
    assert mixture.mean.item() == pytest.approx(1.2345678901234, rel=1e-15)
    assert mixture.variance.item() == 1


@pytest.mark.parametrize("df", [0.9, 1.5])
def test_nor_do_those_whose_own_moments_are_undefined(df):
    scalar = Mixture(tensor(-INF, 0.0), StudentT(tensor(df, 5.0), tensor(0.0, 1.0), tensor(1.0, 1.0)))
    assert (scalar.mean.item(), scalar.variance.item()) == pytest.approx((1, 5 / 3))
    triangles = torch.eye(2, dtype=F64).expand(2, 2, 2)
    vector = Mixture(tensor(-INF, 0.0), MultivariateStudentT(tensor(df, 5.0), torch.ones(2, 2, dtype=F64), triangles))
    torch.testing.assert_close(vector.mean, torch.ones(2, dtype=F64))
    torch.testing.assert_close(vector.covariance, 5 / 3 * torch.eye(2, dtype=F64))


def test_answers_are_the_callers_own():
    mixture = Mixture(torch.zeros(3, 2), Normal(torch.zeros(3, 2), torch.ones(3, 2)))
    mean = mixture.mean
    mean += 5
    assert mixture.mean.tolist() == [0, 0, 0]


def test_parameters_that_an_optimiser_moves_move_the_moments():
    loc = torch.zeros(2, requires_grad=True)
    mixture = Mixture(torch.zeros(2), Normal(loc, torch.ones(2)))
    with torch.no_grad():
        assert mixture.mean == 0
        loc.add_(3)
        assert mixture.mean == 3


# Gradients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lower", "upper"), [(2.0, 4.0), (0.0, INF), (5.0, INF), (-3.0, 0.0)])
def test_censored_counts_have_a_gradient(lower, upper):
    rate = tensor(2.5, 4.0).requires_grad_()

    def loss(rate: Tensor) -> Tensor:
        return censored_nll(Mixture(tensor(0.0, 0.0), Poisson(rate)), tensor(lower).sum(), tensor(upper).sum())

    assert torch.autograd.gradcheck(loss, (rate,))


def test_rain_of_which_only_an_upper_bound_is_known_has_a_gradient():
    logits = torch.zeros(3, dtype=F64, requires_grad=True)
    rain = Mixture(logits, Gamma(tensor(0.5, 2.0), tensor(1.0, 0.3)), tensor(0.0))
    censored_nll(rain, torch.tensor(-INF, dtype=F64), torch.tensor(0.0, dtype=F64)).backward()
    torch.testing.assert_close(logits.grad, tensor(1 / 3, 1 / 3, -2 / 3))


def test_a_warped_student_t_has_a_gradient_in_df():
    def log_prob(df: Tensor) -> Tensor:
        return Mixture(tensor(0.0), StudentT(df, tensor(0.0), tensor(1.0))).transform(ExpTransform()).log_prob(2.0)

    assert torch.autograd.gradcheck(log_prob, (tensor(5.0).requires_grad_(),))


def test_margins_and_conditionals_of_a_network_have_a_gradient():
    network = MDN(torch.nn.Linear(4, 8), MixtureHead(8, n_components=3, event_size=2))
    given = network(torch.randn(6, 4)).condition(0, torch.randn(6)).log_prob(torch.randn(6))
    reversed_ = network(torch.randn(6, 4)).marginal([1, 0]).log_prob(torch.randn(6, 2))
    (given.mean() + reversed_.mean()).backward()
    assert all(bool(parameter.grad.isfinite().all()) for parameter in network.parameters())


# Atoms ---------------------------------------------------------------------------------------------------------


def test_equal_atoms_are_one():
    weights = tensor(0.5, 0.15, 0.15, 0.2)
    mixture = Mixture(weights.log(), Normal(tensor(0.0), tensor(1.0)), tensor(0.0, 0.0, 5.0))
    region = mixture.highest_density_region(0.25)
    assert (region.count.item(), region.lower[0].item()) == (1, 0)
    assert hdr_level(mixture, torch.tensor(5.0, dtype=F64)).item() == pytest.approx(0.3)


def test_levels_of_values_that_cannot_occur_and_of_atoms():
    rain = Mixture(tensor(0.3, 0.7).log(), Gamma(tensor(2.0), tensor(1.0)), tensor(0.0)).expand((4,))
    levels = hdr_level(rain, tensor(0.0, -1.0, 1.0, INF))
    torch.testing.assert_close(levels, tensor(0.0, 1.0, 0.7, 1.0))


def test_atoms_of_counts_are_whole():
    with pytest.raises(MixturaError, match="E-mixture-atoms"):
        Mixture(tensor(0.0, 0.0), Poisson(tensor(3.0)), tensor(2.5))


# Vectors -------------------------------------------------------------------------------------------------------


def test_covariances_that_rounding_makes_singular():
    triangle = tensor(1.0, 0.0, 1.0, 1e-9).reshape(1, 2, 2)
    flat = Mixture(tensor(0.0), MultivariateNormal(torch.zeros(1, 2, dtype=F64), scale_tril=triangle))
    assert dss(flat, tensor(0.0, 0.0)).item() == pytest.approx(2 * math.log(1e-9), rel=0.25)
    loc = tensor(0.0, 0.0, 1.0, 1.0).reshape(2, 2)
    two = Mixture(tensor(0.0, 0.0), MultivariateNormal(loc, scale_tril=triangle.expand(2, 2, 2)))
    torch.testing.assert_close(two.reduce(1).covariance, two.covariance)


def test_laws_without_variance_have_an_infinite_dss():
    law = MultivariateStudentT(tensor(1.5), torch.zeros(1, 2, dtype=F64), torch.eye(2, dtype=F64)[None])
    assert dss(Mixture(tensor(0.0), law), tensor(0.0, 0.0)) == INF


def test_what_cannot_be_known_is_no_condition():
    law = Product([Gamma(tensor(2.0, 3.0), tensor(1.0, 1.0)), Normal(tensor(-1.0, 1.0), tensor(1.0, 1.0))])
    with pytest.raises(MixturaError, match="E-condition-density"):
        Mixture(tensor(0.0, 0.0), law).condition(0, -1.0)


def test_rosenblatt_of_counts_is_uniform_and_independent(generator):
    law = Product([Normal(tensor(0.0), tensor(1.0)), Poisson(tensor(0.1)), Poisson(tensor(0.2))])
    mixture = Mixture(tensor(0.0), law).expand((5_000,))
    levels = rosenblatt(mixture, mixture.sample(generator=generator))
    assert levels.mean(0).tolist() == pytest.approx([0.5] * 3, abs=0.02)
    assert (torch.corrcoef(levels.mT) - torch.eye(3)).abs().max() < 0.06


def test_decompose_takes_weights_by_row():
    loc = tensor(0.0, 0.0, 5.0, 5.0).reshape(2, 1, 2)
    first = Mixture(torch.zeros(2, 1, dtype=F64), Independent(Normal(loc, torch.ones_like(loc)), 1))
    parts = decompose([first, first.affine(2.0, 1.0)], tensor(0.5, 0.5, 0.1, 0.9).reshape(2, 2))
    torch.testing.assert_close(parts.total, parts.aleatoric + parts.epistemic)


def test_many_rows_are_drawn_in_blocks_and_many_values_of_one_mixture_too():
    loc = torch.arange(6.0).reshape(3, 2)
    few = Mixture(torch.zeros(3), Independent(Normal(loc, torch.ones_like(loc)), 1))
    many = few.expand((2_000,))
    assert many.in_hdr(torch.zeros(2_000, 2), 0.9, n_draws=1_000).shape == (2_000,)
    assert many.entropy(1_000).value.numpy() == pytest.approx(few.entropy(100_000).value.item(), abs=0.2)
    scalar = few.marginal(0)
    y = torch.linspace(-3, 8, 40_000)
    torch.testing.assert_close(scalar.log_prob(y)[::1000], scalar.log_prob(y[::1000]))
    grid = scalar.expand((2, 3)).cdf(y[:, None, None])
    torch.testing.assert_close(grid[::1000, 1, 2], scalar.cdf(y[::1000]))
    assert grid.shape == (40_000, 2, 3)


@pytest.mark.parametrize(
    ("code", "call"),
    [
        ("E-draws", lambda m, y: energy_score(m, y, n_draws=1)),
        ("E-draws", lambda m, y: variogram_score(m, y, n_draws=0)),
        ("E-draws", lambda m, y: m.hdr_threshold(0.5, n_draws=0)),
        ("E-draws", lambda m, y: hdr_level(m, y, n_draws=0)),
        ("E-draws", lambda m, y: m.entropy(1)),
        ("E-variogram-power", lambda m, y: variogram_score(m, y, power=-1.0)),
        ("E-pool-mismatch", lambda m, y: pool([m, m], [INF, 1.0])),
        ("E-marginal-dim", lambda m, y: m.marginal(1.5)),
        ("E-marginal-dim", lambda m, y: m.marginal(None)),
        ("E-value-shape", lambda m, y: m.affine(0.0, torch.eye(2))),
        ("E-family-unknown", lambda m, y: get_family("normal/full", 2)),
    ],
)
def test_errors_are_coded(code, call):
    mixture = Mixture(torch.zeros(3), Independent(Normal(torch.randn(3, 2), torch.ones(3, 2)), 1))
    with pytest.raises(MixturaError, match=code):
        call(mixture, torch.zeros(2))


def test_dims_may_be_tensors():
    mixture = Mixture(torch.zeros(3), Independent(Normal(torch.randn(3, 2), torch.ones(3, 2)), 1))
    assert mixture.marginal(torch.tensor([1, 0])).event_shape == (2,)
    assert mixture.marginal(torch.tensor(1)).event_shape == ()


# Estimator -----------------------------------------------------------------------------------------------------


def test_intervals_from_cut_and_scores_of_intervals():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 1))
    y = pd.Series(pd.cut(X[:, 0] + rng.normal(size=60), 5))
    model = MDNRegressor(2, preset="plain", max_epochs=2, random_state=0).fit(X, y)
    assert np.isfinite(model.score_samples(X, y)).all()
    with pytest.raises(MixturaError, match="E-target-type"):
        model.score(X, y)


def test_a_target_that_is_one_atom_throughout():
    with pytest.raises(MixturaError, match="E-target-constant"):
        MDNRegressor(2, preset="plain", max_epochs=2, atoms=[3.0]).fit(np.arange(30.0)[:, None], np.full(30, 3.0))


@pytest.mark.parametrize(
    ("family", "lower", "upper"),
    [
        ("lognormal", -1.0, -1.0),
        ("lognormal", -2.0, -1.0),
        ("gamma", -INF, 0.0),
        ("poisson", 0.5, 0.5),
        ("poisson", 0.2, 0.8),
    ],
)
@pytest.mark.filterwarnings("ignore:.*W-repeated-values")
def test_intervals_outside_of_the_support_are_refused(family, lower, upper):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(30, 1)), rng.poisson(3, 30) + 1.0
    bounds = pd.arrays.IntervalArray.from_arrays(np.r_[lower, y[1:]], np.r_[upper, y[1:]], closed="both")
    model = MDNRegressor(1, preset="plain", family=family, max_epochs=1, random_state=0)
    with pytest.raises(MixturaError, match="E-target-support"):
        model.fit(X, bounds)
    if lower == upper:
        with pytest.raises(MixturaError, match="E-target-support"):
            model.fit(X, y, eval_set=(X, np.r_[lower, y[1:]]))


def test_infinities_of_both_signs_are_refused_without_a_warning(recwarn):
    with pytest.raises(MixturaError, match="E-features"):
        MDNRegressor(1, preset="plain").fit(np.array([[np.inf], [-np.inf], [0.0]]), [1.0, 2.0, 3.0])
    assert not list(recwarn)


@pytest.mark.parametrize("family", ["poisson", "negative_binomial"])
def test_censored_counts_are_learned(family):
    rng = np.random.default_rng(0)
    X = rng.uniform(0, 1, (200, 1))
    count = rng.poisson(2 + 3 * X[:, 0]).astype(float)
    y = pd.arrays.IntervalArray.from_arrays(count, np.where(count > 5, INF, count), closed="both")
    model = MDNRegressor(2, preset="plain", family=family, max_epochs=4, random_state=0).fit(X, y)
    assert not model.fit_report_.n_skipped_steps


# Found by fresh eyes in training and selection -----------------------------------------------------------------

TINY = {"preset": "plain", "hidden_layer_sizes": (6,), "max_epochs": 8, "random_state": 0}


def table(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 3))
    return X, X[:, 0] + rng.normal(size=n)


@pytest.mark.parametrize("family", ["poisson", "negative_binomial"])
def test_a_count_that_is_known_by_an_interval_with_a_broken_middle_is_learned(family):
    X, _ = table()
    counts = np.random.default_rng(1).poisson(3, 60).astype(float)
    upper = counts + np.r_[1, np.zeros(59)]
    y = pd.arrays.IntervalArray.from_arrays(counts, upper, closed="both")
    assert np.isfinite(MDNRegressor(2, family=family, **TINY).fit(X, y).fit_report_.best_nll)


def test_a_finished_training_of_which_all_ended_at_once_is_gone_on_with(tmp_path):
    X, y = table()
    model = MDNRegressor(2, n_restarts=2, learning_rate=1e-12, patience=2, revive=False, **TINY)
    first = model.fit(X, y, checkpoint_dir=tmp_path).predict(X)
    assert np.array_equal(model.fit(X, y, checkpoint_dir=tmp_path, resume=True).predict(X), first)


def test_a_loaded_model_goes_on_learning_as_the_one_in_memory(tmp_path):
    X, y = table(200)
    y[::2] = 0.001 * y[::2]
    model = MDNRegressor(3, scale_floor=1e-4, **TINY).fit(X, y)
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    assert np.array_equal(model.partial_fit(X, 1 - y).predict(X), again.partial_fit(X, 1 - y).predict(X))


def test_targets_that_run_backwards_are_targets():
    X, y = table()
    model = MDNRegressor(2, **TINY).fit(X, y[::-1], eval_set=(X[::-1], y[::-1]))
    assert np.array_equal(model.score_samples(X, y[::-1]), model.score_samples(X, y[::-1].copy()))
    Y = pd.DataFrame({"a": y, "b": y**2})[["b", "a"]]
    joint = MDNRegressor(2, **TINY).fit(X, Y)
    assert np.isfinite(joint.score_samples(X, Y)).all()
    with pytest.raises(MixturaError, match=r"E-target-shape.*in the order of fit"):
        joint.score_samples(X, Y[["a", "b"]])


def test_no_component_is_revived_on_an_atom_or_on_rows_without_weight():
    g = torch.Generator().manual_seed(0)
    y = torch.cat([torch.randn(100, generator=g), torch.full((20,), 5.0), torch.full((20,), 40.0)])
    weight = torch.cat([torch.ones(120), torch.full((20,), 1e-6)])
    network = MDN(MLP(1, (4,), g), MixtureHead(4, 3, atoms=torch.tensor([5.0]), generator=g))
    rows = Rows(torch.zeros(140, 1), y, weight)
    revive(network, torch.tensor([True, True, False]), rows, g)
    loc = network(rows.x[:1]).components.loc[0, :2]
    assert (loc.abs() < 4).all()


def test_intervals_bring_no_scale_floor_and_a_floor_stays_below_the_spread():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (400, 1))
    binned = pd.cut(2 * x[:, 0] + 0.1 * rng.normal(size=400), [-4, -2, 0, 2, 4])
    assert not any("distinct" in event for event in MDNRegressor(2, **TINY).fit(x, binned).fit_report_.events)
    rare = (rng.random(400) < 0.02).astype(float)
    for y, factor in ((rare, 0.3), (np.round(rng.normal(size=400)), 1 / np.sqrt(12) / 1.04)):
        floors, told = smallest_scales(NormalFamily(), as_target(y), np.array([y.std()]))
        assert floors[0] == pytest.approx(factor * y.std(), rel=0.1)
        assert told
    repeated = np.repeat(rng.normal(size=100), 4)
    assert smallest_scales(NormalFamily(), as_target(repeated), np.array([1.0]))[1] == []


def test_rows_of_no_weight_do_not_choose_the_number_of_components():
    rng = np.random.default_rng(0)
    X, y = rng.uniform(-1, 1, (320, 1)), rng.choice([-1, 1], 320) + 0.1 * rng.normal(size=320)
    y[300:] = rng.choice([-30, 30], 20)
    weight = np.r_[np.ones(300), np.full(20, 1e-9)]
    settings = MDNRegressor(preset="plain", hidden_layer_sizes=(16,), max_epochs=30, random_state=0)
    found = select_components(X, y, [1, 2, 3], estimator=settings, sample_weight=weight)
    assert found.n_components == 2
    assert found.table["standard_error"].max() < 1


def test_ctrl_c_ends_the_choice_of_a_number_of_components(monkeypatch):
    calls = []

    def interrupted(*_) -> None:
        calls.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        MDNRegressor("auto", **TINY).fit(*table())
    assert len(calls) == 1


def test_a_choice_is_kept_with_the_checkpoint_and_its_folder_is_tried_first(tmp_path, monkeypatch):
    X, y = table()
    model = MDNRegressor("auto", **TINY).fit(X, y, checkpoint_dir=tmp_path / "good")
    monkeypatch.setattr("mixtura.estimator.select", None)
    again = MDNRegressor("auto", **TINY).fit(X, y, checkpoint_dir=tmp_path / "good", resume=True)
    assert again.n_components_ == model.n_components_
    assert again.fit_report_.events == model.fit_report_.events
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "x", "a\0b", 5):
        with pytest.raises(MixturaError, match="E-checkpoint-write"):
            MDNRegressor("auto", **TINY).fit(X, y, checkpoint_dir=folder)
    with pytest.raises(MixturaError, match="E-parameter"):
        MDNRegressor(2, **TINY).fit(X, y, resume=True)


def test_auto_leaves_out_what_the_weight_floor_does_not_allow():
    model = MDNRegressor("auto", weight_floor=0.12, **TINY).fit(*table())
    assert list(model.selection_.table.index) == [1, 2, 3, 4, 5, 6, 8]
    model.set_params(n_components=2).fit(*table())
    assert not hasattr(model, "selection_")


def test_selected_likelihoods_are_those_of_a_fit_with_atoms_too():
    X, y = table(300)
    y = np.where(y < -0.5, 0.0, 1000 * (3 + y))
    settings = {"atoms": [0.0], "family": "normal", **TINY}
    found = select_components(X, y, [1, 2], "heldout", estimator=MDNRegressor(**settings))
    assert found.table["nll"][2] == pytest.approx(MDNRegressor(2, **settings).fit(X, y).fit_report_.best_nll, abs=1e-4)


@pytest.mark.parametrize("layers", [(1,), ()])
def test_bic_of_a_single_feature(layers):
    X, y = table(200)
    settings = MDNRegressor(**{**TINY, "hidden_layer_sizes": layers})
    assert np.isfinite(select_components(X[:, :1], y, [1, 2], "bic", estimator=settings).table["bic"]).all()


@pytest.mark.parametrize("candidates", [3, None, [1, "a"], [[1, 2], [3]], "12"])
def test_candidates_that_are_none_are_refused(candidates):
    with pytest.raises(MixturaError, match="E-parameter"):
        select_components(*table(), candidates)


def test_what_is_saved_is_what_was_fitted(tmp_path):
    X, y = table()
    model = MDNRegressor(2, **TINY).fit(X, y)
    model.set_params(n_components=5, hidden_layer_sizes=(3, 3)).save(tmp_path / "model")
    assert np.array_equal(load(tmp_path / "model").predict(X), model.predict(X))
