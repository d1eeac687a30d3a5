"""Scores against their definitions and known values (nll: test_training.py)."""

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from mixtura import MixturaError, Mixture, crps

F64 = torch.float64


def make(n: int = 6, k: int = 4, scale: float = 1.0) -> tuple[Mixture, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    loc, raw, logits = (torch.randn(n, k, dtype=F64, generator=g) for _ in range(3))
    return Mixture(logits, Normal(3 * scale * loc, scale * raw.exp())), scale * torch.randn(n, dtype=F64, generator=g)


def test_values_that_skpro_gets_wrong():
    """skpro's NormalMixture: .0356 instead of .2693, and 2.203 instead of 1.218."""
    one = Mixture(torch.zeros(1, dtype=F64), Normal(torch.zeros(1, dtype=F64), 1.0))
    assert crps(one, torch.tensor(0.3, dtype=F64)).item() == pytest.approx(0.26933, abs=1e-5)
    two = Mixture(torch.zeros(2, dtype=F64), Normal(torch.tensor([-3.0, 3.0], dtype=F64), 1.0))
    assert crps(two, torch.tensor(0.0, dtype=F64)).item() == pytest.approx(1.218, abs=1e-3)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_crps_is_the_integral_of_its_definition(scale):
    mixture, y = make(scale=scale)
    for i in range(6):
        grid = torch.linspace(-40 * scale, 40 * scale, 400_001, dtype=F64)
        step = (grid >= y[i]).double()
        integral = torch.trapezoid((mixture[i].cdf(grid) - step).square(), grid)
        assert crps(mixture[i], y[i]).item() == pytest.approx(integral.item(), rel=1e-3)


def test_crps_agrees_with_samples(generator):
    mixture, y = make()
    x, other = mixture.sample((400_000,), generator), mixture.sample((400_000,), generator)
    estimate = (x - y).abs().mean(0) - 0.5 * (x - other).abs().mean(0)
    assert crps(mixture, y).item() == pytest.approx(estimate.mean().item(), abs=0.01)


def test_crps_is_affine_equivariant_and_differentiable():
    mixture, y = make()
    assert crps(mixture.affine(5.0, -3.0), 5 - 3 * y).item() == pytest.approx(3 * crps(mixture, y).item())
    loc, scale = mixture.components.loc.requires_grad_(), mixture.components.scale.requires_grad_()
    logits = mixture.logits.clone().requires_grad_()
    score = lambda *p: crps(Mixture(p[0], Normal(p[1], p[2]), validate_args=False), y)  # noqa: E731
    assert torch.autograd.gradcheck(score, (logits, loc, scale))


def test_crps_is_the_absolute_error_of_a_forecast_without_spread():
    sure = Mixture(torch.zeros(3, 1, dtype=F64), Normal(torch.zeros(3, 1, dtype=F64), 1e-12))
    assert crps(sure, torch.tensor([1.0, -2.0, 3.0], dtype=F64)).item() == pytest.approx(2)


def test_crps_weighs_rows_and_says_what_does_not_fit():
    mixture, y = make()
    weight = torch.tensor([1.0, 0, 2, 0, 0, 1], dtype=F64)
    index = torch.tensor([0, 2, 2, 5])
    torch.testing.assert_close(crps(mixture, y, weight), crps(mixture[index], y[index]))
    with pytest.raises(MixturaError, match=r"\[E-value-shape\]"):
        crps(mixture, y[:, None])
    with pytest.raises(MixturaError, match=r"\[E-scalar-only\]"):
        crps(Mixture(torch.zeros(1), MultivariateNormal(torch.zeros(1, 2), torch.eye(2))), torch.zeros(2))
