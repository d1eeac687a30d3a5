"""Heads: how many outputs, which floors, where they start."""

import pytest
import torch
from torch import nn

from mixtura import MDN, MLP, MixturaError, Mixture, MixtureHead, nll


@pytest.mark.parametrize("m", [1, 4, 10])
@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_number_of_outputs_is_that_of_the_mission(m, d):
    assert MixtureHead(8, m).linear.out_features == 3 * m
    assert MixtureHead(8, m, d, covariance_type="full").linear.out_features == m * (1 + d + d * (d + 1) // 2)
    assert MixtureHead(8, m, d, covariance_type="diag").linear.out_features == m * (1 + 2 * d)
    assert MixtureHead(8, m, d, covariance_type="spherical").linear.out_features == m * (1 + d + 1)


@pytest.mark.parametrize("covariance_type", ["full", "diag", "spherical"])
@pytest.mark.parametrize("event_size", [None, 3])
def test_any_backbone_gets_a_mixture_it_can_be_trained_by(event_size, covariance_type):
    network = nn.Sequential(
        nn.Linear(4, 16), nn.Tanh(), MixtureHead(16, 5, event_size, covariance_type=covariance_type)
    )
    mixture = network(torch.randn(32, 4))
    assert isinstance(mixture, Mixture)
    assert (mixture.batch_shape, mixture.n_components) == ((32,), 5)
    y = torch.randn(32, *mixture.event_shape)
    nll(mixture, y).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in network.parameters())


def test_weights_sum_to_1_and_full_covariances_are_positive_definite():
    mixture = MixtureHead(8, 6, 4)(torch.randn(100, 8)).detach()
    torch.testing.assert_close(mixture.weights.sum(-1), torch.ones(100))
    covariance = mixture.to(torch.float64).components.covariance_matrix
    assert torch.linalg.eigvalsh(covariance).min() > 0
    torch.testing.assert_close(covariance, covariance.mT)


def test_scales_never_fall_below_the_floor_nor_weights():
    head = MixtureHead(3, 4, scale_floor=0.2, weight_floor=0.01)
    nn.init.constant_(head.linear.bias, -100.0)
    head.linear.bias.data[0] = 100.0
    mixture = head(torch.zeros(1, 3))
    assert (mixture.components.scale >= 0.2).all()
    assert mixture.weights.min().item() == pytest.approx(0.01, rel=1e-5)
    by_coordinate = MixtureHead(3, 4, 2, covariance_type="diag", scale_floor=torch.tensor([0.1, 0.5]))
    nn.init.constant_(by_coordinate.linear.bias, -100.0)
    scale = by_coordinate(torch.zeros(1, 3)).components.stddev
    assert (scale[..., 0] >= 0.1).all()
    assert (scale[..., 1] >= 0.5).all()


def test_the_weight_floor_keeps_a_dead_components_gradient_alive():
    def gradient(weight_floor: float) -> float:
        head = MixtureHead(1, 2, weight_floor=weight_floor)
        nn.init.zeros_(head.linear.weight)
        head.linear.bias.data = torch.tensor([0.0, -200.0, -1.0, 0.0, 1.0, 0.0])  # second component at weight e^-200
        nll(head(torch.zeros(1, 1)), torch.ones(1)).backward()
        assert head.linear.bias.grad is not None
        return head.linear.bias.grad[5].abs().item()

    assert gradient(0.0) == 0.0
    assert gradient(1e-3) > 1e-5


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_components": 0},
        {"in_features": 0},
        {"event_size": 0},
        {"weight_floor": 0.25},
        {"weight_floor": -0.1},
        {"scale_floor": -1.0},
        {"scale_floor": float("nan")},
        {"scale_floor": torch.ones(3)},
    ],
)
def test_heads_refuse_what_makes_no_sense(parameters):
    with pytest.raises(MixturaError, match=r"\[E-head-parameter\]"):
        MixtureHead(**{"in_features": 8, "n_components": 4, **parameters})


def test_unknown_families_are_refused():
    with pytest.raises(MixturaError, match=r"\[E-family-unknown\].*normal, poisson"):
        MixtureHead(8, 4, family="cauchy")
    with pytest.raises(MixturaError, match=r"\[E-family-unknown\]"):
        MixtureHead(8, 4, event_size=2, family=MixtureHead(8, 4).family)


def test_a_generator_decides_the_initial_weights_and_the_global_one_stays():
    before = torch.get_rng_state()
    first, second = (MLP(3, (8,), torch.Generator().manual_seed(1)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_start_of_another_kind_is_refused():
    head = MixtureHead(6, 3, 2)
    for other in (MixtureHead(6, 4, 2), MixtureHead(6, 3, 2, covariance_type="diag"), MixtureHead(6, 3)):
        with pytest.raises(MixturaError, match=r"\[E-head-parameter\]"):
            head.start_from(other(torch.zeros(1, 6))[0])
    with pytest.raises(MixturaError, match=r"\[E-head-parameter\]"):
        head.start_from(head(torch.zeros(5, 6)))


def test_scales_do_not_explode_outside_the_features():
    network = MDN(MLP(1, (16,)), MixtureHead(16, 2))
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    near, far = network(torch.tensor([[1.0], [1000.0]])).stddev
    assert far / near < 2000  # in proportion, where an exponential would overflow


@pytest.mark.parametrize("weight_floor", [0.0, 1e-3])
def test_start_from_predicts_that_mixture(weight_floor):
    head = MixtureHead(6, 3, 2, weight_floor=weight_floor).double()
    target = MixtureHead(6, 3, 2).double()(torch.randn(1, 6, dtype=torch.float64)).detach()[0]
    head.start_from(target, gain=0.0)
    y = torch.randn(50, 2, dtype=torch.float64)
    predicted = head(torch.randn(1, 6, dtype=torch.float64))
    torch.testing.assert_close(predicted.log_prob(y.unsqueeze(1)).squeeze(), target.log_prob(y), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["normal", "laplace", "student_t", "logistic"])
def test_steps_are_as_small_as_a_component_is_narrow(family):
    head = MixtureHead(3, 2, family=family, scale_floor=1e-4)
    raw = torch.tensor([[0.0, 0.01], [0.0, 1.0]])  # loc and scale of a spike and of a broad component
    built = head.family.build(torch.zeros(2, head.n_raw))
    *shape, _, _ = head.family.parameters(built)
    head.start_from(Mixture(torch.zeros(2), head.family.from_parameters(*shape, raw[:, 0], raw[:, 1])))
    units = head.units[head.linear.bias][2:].unflatten(0, (2, head.n_raw))
    loc = list(head.family.parameters(built)).index(built.loc) if family != "student_t" else None
    assert units.amax(0).tolist() == pytest.approx([1.0] * head.n_raw)
    smallest = units.amin().item()
    assert smallest == pytest.approx(0.1, rel=0.3)  # the root of 0.01, of the loc
    assert units.numel() - (units < 0.5).sum() == 2 * head.n_raw - 1  # of one parameter of one component
    assert loc is None or units[0, loc] == smallest
