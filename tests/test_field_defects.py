"""What other libraries get wrong, each reproduced there; here the right answer, by the defect's name."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, StudentT

from mixtura import MDNRegressor, Mixture, crps, get_family, nll
from mixtura.families import ScaledBeta, VonMises
from mixtura.training import starting_mixture

F64 = torch.float64


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=F64)


def normals(loc: Tensor, scale: Tensor | float = 1.0) -> Mixture:
    return Mixture(torch.zeros_like(loc), Normal(loc, scale))


def small(**parameters: object) -> MDNRegressor:
    settings = {"preset": "plain", "n_components": 2, "hidden_layer_sizes": (16,), "max_epochs": 30, "random_state": 0}
    return MDNRegressor(**(settings | parameters))  # pyright: ignore


@pytest.fixture(scope="module")
def two_modes() -> tuple[MDNRegressor, np.ndarray, np.ndarray]:
    """A fit to a half N(-3, 1) and a half N(3, 1) target of a feature that says nothing."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 1))
    y = 3 * rng.choice([-1.0, 1.0], 3000) + rng.normal(size=3000)
    X_new, y_new = rng.normal(size=(3000, 1)), 3 * rng.choice([-1.0, 1.0], 3000) + rng.normal(size=3000)
    model = small(max_epochs=10).fit(X, y)
    return model, X_new, y_new


def test_skpro_energy_of_normal_mixture():
    """skpro 2.16 NormalMixture: .0356 for N(0, 1) at .3, and 2.203 for half N(+-3, 1) at 0."""
    assert crps(normals(tensor(0.0)), torch.tensor(0.3, dtype=F64)).item() == pytest.approx(0.26933, abs=5e-6)
    assert crps(normals(tensor(-3.0, 3.0)), torch.tensor(0.0, dtype=F64)).item() == pytest.approx(1.21867, abs=5e-6)


def test_skpro_and_scikit_mdn_scale_neither_x_nor_y():
    """y = 2e5 +- 2e4: a mean of 290 and a mean log density of -821,488; a Gaussian scores -11.3."""
    rng = np.random.default_rng(0)
    X, y = 1e4 * rng.normal(size=(500, 2)), 2e5 + 2e4 * rng.normal(size=500)
    model = small(max_epochs=3).fit(X, y)
    assert model.predict(X).mean() == pytest.approx(2e5, rel=0.02)
    gaussian = -0.5 * math.log(2 * math.pi * math.e * y.var())
    assert model.score_samples(X, y).mean() == pytest.approx(gaussian, abs=0.1)


def test_xgboostlss_rows_alike_predict_alike(two_modes):
    """XGBoostLSS: Gumbel noise in the weights of five identical rows, .028 .098 .536 .449 .019."""
    model = two_modes[0]
    weights = model.predict_dist(np.zeros((5, 1))).weights
    assert torch.equal(weights, weights[:1].expand_as(weights))
    assert torch.equal(weights, model.predict_dist(np.zeros((5, 1))).weights)
    mixed = model.predict_dist(np.array([[1.0], [0.0], [-2.0]])).weights
    torch.testing.assert_close(mixed[1], weights[0])


def test_xgboostlss_start_separates_two_modes(two_modes):
    """XGBoostLSS: components start identical and stay so, NLL 5.895; the truth is 1.452 for narrower ones."""
    model, X, y = two_modes
    truth = -normals(tensor(-3.0, 3.0)).log_prob(torch.as_tensor(y)).mean().item()
    assert -model.score_samples(X, y).mean() == pytest.approx(truth, abs=0.05)
    start = starting_mixture(torch.as_tensor(y), 2, get_family("normal"), torch.ones(len(y), dtype=F64), 0)
    assert sorted(start.components.loc.tolist()) == pytest.approx([-3, 3], abs=0.2)


def test_pytorch_tabular_point_prediction_is_no_mean_of_draws(two_modes):
    """pytorch-tabular: the point prediction is a mean of 100 draws, the validation NLL is noisy."""
    model, X, y = two_modes
    first, again = model.predict(X), model.predict(X)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, model.predict_dist(X).mean.numpy(), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(model.score_samples(X, y), model.score_samples(X, y))


def test_sbi_condition_in_any_order_of_dims():
    """sbi MoG.condition: a variance of 1.0 instead of .2 unless free dims come before fixed ones."""
    covariance = torch.tensor([[1.0, 0.8**0.5], [0.8**0.5, 1.0]], dtype=F64)
    mixture = Mixture(tensor(0.0), MultivariateNormal(torch.zeros(1, 2, dtype=F64), covariance))
    for dim in (0, 1):
        assert mixture.condition(dim, 1.0).variance.item() == pytest.approx(0.2)


def test_sbi_integrates_to_1_for_wide_components():
    """sbi MDN: an epsilon in the quadratic form and not in the determinant; .707 for wide components."""
    covariance = 1e8 * torch.eye(1, dtype=F64)
    wide = Mixture(tensor(0.0), MultivariateNormal(torch.zeros(1, 1, dtype=F64), covariance))
    y = torch.linspace(-1e5, 1e5, 4001, dtype=F64)
    assert torch.trapezoid(wide.log_prob(y[:, None]).exp(), y).item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("covariance_type", [None, "full", "diag"])
def test_zuko_start_scale_is_no_variance(covariance_type):
    """zuko GMM.initialize: a standard deviation of .1 starts as a scale of .0101."""
    g = torch.Generator().manual_seed(0)
    y = 5 + 0.1 * torch.randn(2000, *([] if covariance_type is None else [2]), dtype=F64, generator=g)
    size = None if covariance_type is None else 2
    family = get_family("normal", size, covariance_type or "full")
    start = starting_mixture(y, 1, family, torch.ones(2000, dtype=F64), 0)
    torch.testing.assert_close(start.components.stddev[0], y.std(0), rtol=1e-2, atol=0)


def test_lightning_uq_box_mean_is_the_mixtures(two_modes):
    """lightning-uq-box predicts the mean of one random component: -3, 3, -3, -3 for the same x."""
    means = two_modes[0].predict(np.zeros((4, 1)))
    assert np.ptp(means) == 0
    assert abs(means[0]) < 0.5


def test_freelunchtheorem_median_of_a_250000_target():
    """CDE (freelunchtheorem) brackets quantiles by +-1000: the median is 1000.0."""
    mixture = normals(tensor(2.4e5, 2.6e5), 2e4)
    assert mixture.median.item() == pytest.approx(2.5e5, rel=1e-12)


def test_htjb_loss_finite_100_sigmas_away():
    """htjb: no log-sum-exp and a wrong normaliser; the loss is inf 100 sigmas away."""
    loc = torch.zeros(1, 2).requires_grad_()
    loss = nll(Mixture(torch.zeros(1, 2), Normal(loc, 1.0)), torch.tensor([100.0]))
    loss.backward()
    assert loss.item() == pytest.approx(5000 + 0.5 * math.log(2 * math.pi), rel=1e-6)
    assert loc.grad is not None
    assert loc.grad[0].tolist() == pytest.approx([-50, -50], rel=1e-3)


def test_ngboost_and_scikit_mdn_check_estimator():
    """29 of 40 and 19 of 47 checks fail there; tests/test_estimator.py runs all of scikit-learn's own on ours."""
    tree = ast.parse((Path(__file__).parent / "test_estimator.py").read_text())
    (contract,) = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and any("parametrize_with_checks" in ast.unparse(decorator) for decorator in node.decorator_list)
    ]
    assert "check(estimator)" in ast.unparse(contract)


PI = torch.full((2,), math.pi, dtype=F64)


@pytest.mark.parametrize(
    "components",
    [
        StudentT(tensor(3.0, 5.0), tensor(-3.0, 3.0), tensor(1.0, 1.0)),
        VonMises(tensor(-1.0, 1.5), tensor(4.0, 9.0), -PI, PI),
        ScaledBeta(tensor(2.0, 9.0), tensor(9.0, 2.0), 0.0, 1.0),
        Normal(tensor(-3.0, 3.0), tensor(1.0, 1.0)),
    ],
    ids=["student_t", "von_mises", "beta", "normal"],
)
def test_torch_mixture_same_family_gaps(components):
    """No icdf, entropy, modes; and StudentT, VonMises and Beta have no cdf."""
    mixture = Mixture(tensor(0.0, 0.0), components)
    levels = tensor(0.01, 0.3, 0.5, 0.99)
    torch.testing.assert_close(mixture.cdf(mixture.icdf(levels)), levels, rtol=1e-10, atol=1e-12)
    y = mixture.icdf((torch.arange(2000, dtype=F64) + 0.5) / 2000)
    value = mixture.entropy().value.item()
    assert value == pytest.approx(-mixture.log_prob(y).mean().item(), abs=0.01)
    assert mixture.modes().count == 2


def test_torch_mixture_same_family_has_no_covariance():
    loc = torch.stack([tensor(-1.0, -1.0), tensor(1.0, 1.0)])
    mixture = Mixture(tensor(0.0, 0.0), Independent(Normal(loc, 0.5), 1))
    torch.testing.assert_close(mixture.covariance, torch.tensor([[1.25, 1.0], [1.0, 1.25]], dtype=F64))


def test_component_choice_ends_at_1_in_float32(monkeypatch):
    """Several pick a component by a float32 cumulative sum that ends below 1: an index that is not there."""
    logits = torch.randn(7, generator=torch.Generator().manual_seed(0))
    mixture = Mixture(logits, Normal(10 * torch.arange(7.0), 1e-3))
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: torch.full(shape, 1 - 2**-53, dtype=F64))
    assert (mixture.sample((1000,)) - 60).abs().max() < 0.1


def test_sklearn_float32_diag_keeps_its_digits():
    """GaussianMixture expands the square: -10.62 instead of -11.12 for x = 1000.5, mean 1000, sd .1."""
    components = Independent(Normal(torch.tensor([[1000.0]]), torch.tensor([[0.1]])), 1)
    log_prob = Mixture(torch.zeros(1), components).log_prob(torch.tensor([1000.5])).item()
    assert log_prob == pytest.approx(-12.5 - math.log(0.1 * math.sqrt(2 * math.pi)), abs=1e-3)
    assert log_prob == pytest.approx(-11.12, abs=5e-3)
