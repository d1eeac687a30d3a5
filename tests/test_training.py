"""The loss, the starts and the loop."""

import copy
import math

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch.distributions import Normal

from mixtura import (
    MDN,
    MLP,
    FitReport,
    MDNRegressor,
    MixturaError,
    MixturaWarning,
    Mixture,
    MixtureHead,
    get_family,
    nll,
)
from mixtura.adamw import AdamW
from mixtura.learner import Learner
from mixtura.nets import BatchEnsemble, Periodic, linear
from mixtura.revival import is_dead, prune, revive, usage
from mixtura.rows import Rows
from mixtura.stack import Stack, nll_and_slope
from mixtura.training import starting_mixture, train

SETTINGS = {"max_epochs": 20, "batch_size": 32, "learning_rate": 5e-3, "weight_decay": 1e-2, "patience": 20}


def make_rows(n: int = 256, seed: int = 0) -> Rows:
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, generator=g)
    y = torch.sign(torch.rand(n, generator=g) - 0.5) + 0.1 * torch.randn(n, generator=g)
    return Rows(x, y, torch.ones(n))


def make_network(n_components: int = 2, seed: int = 0) -> MDN:
    g = torch.Generator().manual_seed(seed)
    return MDN(MLP(1, (16,), g), MixtureHead(16, n_components, generator=g))


def run(network: nn.Module, rows: Rows, valid: Rows | None = None, **settings) -> FitReport:
    every = rows if valid is None else rows.followed_by(valid)
    judge = None if valid is None else torch.arange(len(rows), len(every))
    learner = Learner(network, torch.arange(len(rows)), judge, torch.Generator().manual_seed(0))
    on_epoch = settings.pop("on_epoch", None)
    told = None if on_epoch is None else lambda: on_epoch(learner.report)
    train([learner], every, **{**SETTINGS, **settings}, on_epoch=told)
    return learner.report


def evaluate_nll(network: nn.Module, rows: Rows) -> float:
    with torch.no_grad():
        return (rows.nll(network.eval()(rows.x)) * rows.weight).sum().item() / rows.weight.sum().item()


# The loss ------------------------------------------------------------------------------------------------------


def test_one_component_is_heteroscedastic_regression():
    loc, raw, y = (torch.randn(100, dtype=torch.float64) for _ in range(3))
    scale = raw.exp()
    closed_form = (scale.log() + (y - loc) ** 2 / (2 * scale**2) + 0.5 * math.log(2 * math.pi)).mean()
    loss = nll(Mixture(torch.zeros(100, 1, dtype=torch.float64), Normal(loc[:, None], scale[:, None])), y)
    torch.testing.assert_close(loss, closed_form, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("what", ["y", "weight"])
def test_a_column_where_a_row_is_meant_is_refused(what):
    """(n, 1) against (n,) would silently average over all n * n pairs."""
    mixture, flat = MixtureHead(3, 2)(torch.randn(5, 3)), torch.rand(5)
    with pytest.raises(MixturaError, match=r"\[E-value-shape\]"):
        nll(mixture, *((flat[:, None],) if what == "y" else (flat, flat[:, None])))


def test_weighted_loss_is_that_of_repeated_rows():
    mixture = MixtureHead(2, 3)(torch.randn(4, 2)).detach()
    y, weight = torch.randn(4), torch.tensor([1.0, 0.0, 3.0, 2.0])
    index = torch.tensor([0, 2, 2, 2, 3, 3])
    torch.testing.assert_close(nll(mixture, y, weight), nll(mixture[index], y[index]))


# Where it starts -----------------------------------------------------------------------------------------------


def targets() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    n = 3000
    two = np.where(rng.random((n, 1)) < 0.5, -1, 1) + 0.1 * rng.normal(size=(n, 2))
    return {
        "normal": rng.normal(size=n),
        "two modes": two[:, 0],
        "skewed": rng.lognormal(0, 0.8, n),
        "uniform": rng.random(n),
        "heavy tails": rng.standard_t(3, n),
        "two coordinates": two,
        "correlated": rng.normal(size=(n, 2)) @ np.array([[1.0, 0.9], [0.0, 0.3]]),
        "rare mode": np.where(rng.random(n) < 0.03, 20, 0) + rng.normal(size=n),
        "sharp and broad": np.where(rng.random(n) < 0.5, 0.01, 3) * rng.normal(size=n),
        "whole numbers": rng.poisson(3, n).astype(float),
        "cross": rng.normal(size=(n, 2)) * np.where(rng.random((n, 1)) < 0.5, [1, 0.02], [0.02, 1]),
        "nearly on a line": rng.normal(size=(n, 1)) * [1, 2] + 0.01 * rng.normal(size=(n, 2)) * [0, 1],
        "five heavy tails": rng.standard_t(3, (n, 5)),
        "ring": np.stack([np.cos(a := rng.uniform(0, 2 * np.pi, n)), np.sin(a)], 1) + 0.05 * rng.normal(size=(n, 2)),
    }


@pytest.mark.parametrize("n_components", [1, 2, 5, 10])
@pytest.mark.parametrize("name", list(targets()))
def test_the_first_loss_is_within_half_a_nat_of_the_marginal_gmm(name, n_components):
    y = targets()[name]
    y = (y - y.mean(0)) / y.std(0)
    flat = y.reshape(len(y), -1)
    gmm = GaussianMixture(n_components, n_init=2, random_state=0).fit(flat)
    family = get_family("normal", None if y.ndim == 1 else y.shape[1])
    target = torch.tensor(y, dtype=torch.float32)
    start = starting_mixture(target, n_components, family, torch.ones(len(y)), seed=0)
    g = torch.Generator().manual_seed(0)
    network = MDN(MLP(3, (64, 64), g), MixtureHead(64, n_components, None if y.ndim == 1 else y.shape[1], generator=g))
    network.head.start_from(start)
    loss = nll(network(torch.randn(len(y), 3, generator=g)), target).item()
    assert loss < -gmm.score(flat) + 0.5


def test_starts_are_diverse_and_every_component_counts():
    y = torch.randn(500, generator=torch.Generator().manual_seed(0))
    start = starting_mixture(y, 6, get_family("normal"), torch.ones(500), seed=0)
    assert (start.components.loc.sort().values.diff() > 0.05).all()
    assert (start.weights > 0.01).all()


@pytest.mark.parametrize("event", [(), (2,)])
def test_starts_survive_fewer_rows_than_components_and_repeated_rows(event):
    family = get_family("normal", event[0] if event else None)
    for y in (torch.randn(3, *event), torch.zeros(50, *event), torch.ones(2, *event)):
        start = starting_mixture(y, 5, family, torch.ones(len(y)), seed=0)
        assert start.log_prob(y).isfinite().all()


# The loop ------------------------------------------------------------------------------------------------------


def test_it_learns_and_keeps_the_weights_of_the_best_epoch():
    rows, valid, network = make_rows(), make_rows(seed=1), make_network()
    before = evaluate_nll(network, valid)
    report = run(network, rows, valid, max_epochs=60, patience=60)
    assert report.valid_nll[report.best_epoch] == min(report.valid_nll)
    assert evaluate_nll(network, valid) == pytest.approx(min(report.valid_nll))
    assert min(report.valid_nll) < before - 0.5
    assert (report.n_train_rows, report.n_valid_rows, report.n_epochs) == (256, 256, len(report.train_nll))
    assert report.seconds > 0


def test_it_stops_early_and_says_so():
    rows = make_rows(64)
    valid = Rows(rows.x, torch.randn(64, generator=torch.Generator().manual_seed(3)) * 3, rows.weight)
    report = run(make_network(), rows, valid, max_epochs=500, patience=8)
    assert report.n_epochs < 500
    assert report.n_epochs == int(np.argmin(report.valid_nll)) + 9
    assert any("stopped" in event for event in report.events)


class Poisoned(nn.Module):
    """A network whose outputs or gradients are not finite at the calls given."""

    def __init__(self, network: nn.Module, calls: set[int], value: float, in_gradient: bool):
        super().__init__()
        self.network, self.calls, self.value, self.in_gradient, self.n_calls = network, calls, value, in_gradient, 0

    def forward(self, x: Tensor) -> Mixture:
        if self.training:
            self.n_calls += 1
            if self.n_calls in self.calls:
                bad = torch.full_like(x, self.value)
                # sqrt at 0 has an infinite gradient: the loss is finite, the gradient is NaN
                x = x + (nn.Parameter(bad * 0).abs().sqrt() * 0 if self.in_gradient else bad)
                if self.in_gradient:
                    weight = self.network.backbone[0].weight
                    x = x + 0 * (weight - weight.detach()).abs().sum().sqrt()
        return self.network(x)


@pytest.mark.parametrize("in_gradient", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_step_that_is_not_finite_never_reaches_the_weights(value, in_gradient):
    network = make_network()
    seen: list[bool] = []
    poisoned = Poisoned(network, {3, 4, 11}, value if not in_gradient else 0.0, in_gradient)

    def watch(_: FitReport) -> None:
        seen.append(all(bool(p.isfinite().all()) for p in network.parameters()))

    report = run(poisoned, make_rows(), on_epoch=watch)
    assert report.n_skipped_steps == 3
    assert all(seen)
    assert sum("skipped" in event for event in report.events) == 3
    assert report.valid_nll[-1] < report.valid_nll[0]
    assert poisoned.n_calls == 20 * 8 + 3  # each skipped batch was tried once more


class Poison(nn.Module):
    """Hands rows on, but NaN at some calls in training."""

    def __init__(self, calls: set[int]):
        super().__init__()
        self.calls, self.n_calls = calls, 0

    def forward(self, x: Tensor) -> Tensor:
        self.n_calls += self.training
        return x * math.nan if self.training and self.n_calls in self.calls else x


def test_a_skipped_step_leaves_running_means_alone():
    g = torch.Generator().manual_seed(0)
    backbone = nn.Sequential(Poison({3}), nn.Linear(1, 8), nn.BatchNorm1d(8), nn.SiLU())
    report = run(MDN(backbone, MixtureHead(8, 2, generator=g)), make_rows())
    assert report.n_skipped_steps == 1
    assert np.isfinite(report.valid_nll).all()


def test_a_row_that_is_never_finite_does_not_stop_the_learning():
    rows, network = make_rows(), make_network()
    x = rows.x.clone()
    x[7] = math.nan
    report = run(network, Rows(x, rows.y, rows.weight), make_rows(seed=1), max_epochs=40)
    assert report.n_skipped_steps == 80
    assert report.valid_nll[39] < report.valid_nll[20] < report.valid_nll[0]
    assert report.best_nll < report.start_nll - 0.5


def test_a_network_that_is_never_finite_ends_in_a_coded_error():
    with pytest.raises(MixturaError, match=r"\[E-fit-diverged\] got epoch 1: .*; 3 returns to the best weights"):
        run(Poisoned(make_network(), set(range(1000)), math.nan, False), make_rows())


def test_an_absurd_learning_rate_does_not_leave_nan_in_the_weights():
    network = make_network()
    report = run(network, make_rows(), learning_rate=1e6)
    assert all(bool(p.isfinite().all()) for p in network.parameters())
    assert math.isfinite(report.best_nll)
    assert evaluate_nll(network, make_rows()) == pytest.approx(report.best_nll)


def test_a_start_that_no_epoch_betters_is_kept():
    rows, network = make_rows(), make_network()
    before = copy.deepcopy(network.state_dict())
    report = run(network, rows, max_epochs=2, learning_rate=1e8)
    assert report.best_epoch == -1
    assert report.best_nll == report.start_nll
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_training_is_reproducible_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    first, second = make_network(), make_network()
    run(first, make_rows())
    run(second, make_rows())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_parameters_without_gradient_stay():
    network = make_network()
    network.backbone.requires_grad_(False)
    before = copy.deepcopy(network.backbone.state_dict())
    run(network, make_rows())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.backbone.state_dict().items())


def test_weights_count_as_repeated_rows_do():
    """Full batches, no hold-out: a weight of 2 and a row given twice lead to the same fit."""
    rows = make_rows(64)
    weight = torch.where(torch.arange(64) % 2 == 0, 2.0, 1.0)
    index = torch.arange(64).repeat_interleave(weight.long())
    repeated = Rows(rows.x[index], rows.y[index], torch.ones(len(index)))
    first, second = make_network(), make_network()
    run(first, Rows(rows.x, rows.y, weight / weight.mean()), batch_size=1000)
    run(second, repeated, batch_size=1000)
    y = torch.linspace(-2, 2, 50)
    torch.testing.assert_close(
        first(torch.full((50, 1), 0.5)).log_prob(y), second(torch.full((50, 1), 0.5)).log_prob(y), atol=1e-2, rtol=1e-2
    )


def test_steps_are_those_of_torchs_adamw():
    ours, theirs = make_network(), make_network()
    matrices = [p for p in theirs.parameters() if p.ndim >= 2]
    others = [p for p in theirs.parameters() if p.ndim < 2]
    reference = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}])
    rows, stack = make_rows(), Stack([ours])
    optimizer = AdamW(stack.values, 0.1 * stack.is_matrix, stack.units, [1.0])
    for step in range(30):
        rate = 1e-2 / (1 + step)
        _, gradient = stack.loss_and_gradient(rows.take(torch.arange(256)[None], torch.full((1, 256), 3 / 256)))
        norm = torch.linalg.vector_norm(gradient, dim=1)
        optimizer.step(gradient, [rate], norm.tolist())
        reference.zero_grad()
        (3 * rows.nll(theirs(rows.x)).mean()).backward()
        torch.testing.assert_close(norm[0], nn.utils.clip_grad_norm_(theirs.parameters(), 1.0))
        for group in reference.param_groups:
            group["lr"] = rate
        reference.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("at_epoch", [0, 3])
def test_an_interrupt_keeps_the_best_weights_so_far(at_epoch):
    network, rows = make_network(), make_rows()

    def interrupt(report: FitReport) -> None:
        if report.n_epochs == at_epoch + 1:
            raise KeyboardInterrupt

    with pytest.warns(MixturaWarning, match="W-interrupted"):
        report = run(network, rows, on_epoch=interrupt)
    assert report.n_epochs == len(report.train_nll) == at_epoch + 1
    assert evaluate_nll(network, rows) == pytest.approx(report.best_nll)
    assert not network.training
    assert "interrupted" in report.events[-1]


@pytest.mark.parametrize("n_threads", [1, 2])
def test_small_networks_are_trained_on_one_thread_and_the_callers_number_comes_back(n_threads):
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    seen = []
    try:
        run(make_network(), make_rows(), max_epochs=1, on_epoch=lambda _: seen.append(torch.get_num_threads()))
        assert seen == [1]
        assert torch.get_num_threads() == n_threads
    finally:
        torch.set_num_threads(before)


def test_the_rate_falls_towards_the_end(monkeypatch):
    rates = []
    step = AdamW.step
    monkeypatch.setattr(AdamW, "step", lambda self, g, rate, norms: rates.append(rate[0]) or step(self, g, rate, norms))
    network, rows = make_network(), make_rows()
    learner = Learner(network, torch.arange(len(rows)), None, torch.Generator().manual_seed(0))
    settings = {**SETTINGS, "max_epochs": 5, "patience": 5, "batch_size": len(rows)}
    train([learner], rows, **settings, n_annealed=3)
    np.testing.assert_allclose(np.array(rates) / rates[0], [1, 1, 3 / 4, 2 / 4, 1 / 4])


def test_units_are_factors_on_steps():
    plain, slow = make_network(), make_network()
    rows, bias = make_rows(), slow.head.linear.bias
    slow.head.units = {bias: torch.full_like(bias, 0.1)}
    before = slow.head.linear.bias.detach().clone()
    stack = Stack([plain, slow])
    optimizer = AdamW(stack.values, 0.0 * stack.is_matrix, stack.units, [1.0, 1.0])
    _, gradient = stack.loss_and_gradient(rows.take(torch.arange(256).expand(2, -1), torch.full((2, 256), 1 / 256)))
    optimizer.step(gradient, [1e-2, 1e-2], [1.0, 1.0])
    moved = [network.head.linear.bias.detach() - before for network in (plain, slow)]
    torch.testing.assert_close(moved[1], 0.1 * moved[0], atol=1e-6, rtol=1e-3)


# Many at once --------------------------------------------------------------------------------------------------


def backbone_of(kind: str, g: torch.Generator) -> nn.Module:
    """An MLP, which is stacked by batched products; layers that vmap can follow; layers with running means."""
    if kind == "MLP":
        return MLP(1, (8, 8), g)
    if kind == "members":
        return BatchEnsemble(1, (8, 8), 3, torch.tensor([0]), g)
    layers = [linear(1, 8, g), nn.Tanh(), linear(8, 8, g), nn.BatchNorm1d(8) if kind == "batch norm" else nn.Tanh()]
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize(
    ("kind", "is_joint"),
    [("MLP", True), ("members", True), ("other layers", True), ("batch norm", False), ("frozen", False)],
)
@pytest.mark.parametrize("target", ["scalar", "vector", "censored"])
def test_a_stacked_run_gives_each_network_what_it_gets_alone(kind, is_joint, target):
    """Different rows, numbers of rows and seeds; some stop early, one has a row that is never finite."""
    g = torch.Generator().manual_seed(0)
    n, event = 120, 2 if target == "vector" else None
    x = torch.rand(n, 1, generator=g, dtype=torch.float64)
    x[5] = math.nan
    y = x.nan_to_num(0) * (1 if event is None else torch.ones(2)) + 0.3 * torch.randn(n, 2, generator=g)
    y = y if event else y[:, 0]
    rows = Rows(x, y, 0.5 + torch.rand(n, generator=g, dtype=torch.float64), y + 0.2 if target == "censored" else None)

    def learner(e: int) -> Learner:
        g = torch.Generator().manual_seed(e)
        head = MixtureHead(8, 3, event, n_members=3 if kind == "members" else None, generator=g).double()
        network = MDN(backbone_of(kind if kind != "frozen" else "MLP", g), head).double()
        if kind == "frozen":
            network.backbone[0].requires_grad_(False)
        order = torch.randperm(n, generator=g)
        sound = order[order != 5]
        if e == 2:
            return Learner(network, sound[:70], None, g)
        return Learner(network, torch.cat([sound[: 52 + 10 * e], torch.tensor([5])]), sound[90:], g)

    together, alone = [learner(e) for e in range(4)], [learner(e) for e in range(4)]
    assert Stack([one.network for one in together]).is_joint == is_joint
    settings = {**SETTINGS, "max_epochs": 15, "patience": 1, "learning_rate": 0.1, "batch_size": 16}
    train(together, rows, **settings)
    for one in alone:
        train([one], rows, **settings)
    assert len({one.report.n_epochs for one in alone}) > 1
    assert any(one.report.n_skipped_steps for one in alone)
    for stacked, single in zip(together, alone, strict=True):
        assert stacked.report.n_skipped_steps == single.report.n_skipped_steps
        np.testing.assert_allclose(stacked.report.valid_nll, single.report.valid_nll, rtol=1e-7)
        np.testing.assert_allclose(stacked.report.train_nll, single.report.train_nll, rtol=1e-7)
        for ours, theirs in zip(stacked.network.parameters(), single.network.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_the_gradient_of_stacked_layers_is_that_of_autograd():
    networks = [make_network(3, seed).double() for seed in range(3)]
    copies = copy.deepcopy(networks)
    rows = make_rows(40)
    rows = Rows(rows.x.double(), rows.y.double(), rows.weight.double())
    stack = Stack(networks)
    assert stack.is_joint
    weight = torch.full((3, 40), 1 / 40, dtype=torch.float64)
    _, found = stack.loss_and_gradient(rows.take(torch.arange(40).expand(3, -1), weight))
    for network, ours in zip(copies, found, strict=True):
        rows.nll(network(rows.x)).mean().backward()
        theirs = torch.cat([parameter.grad.reshape(-1) for parameter in network.parameters()])
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("event", "has_atoms", "hidden"),
    [(None, False, (16, 12)), (None, True, (16, 12)), (2, False, (16, 12)), (None, False, ())],
)
def test_members_are_trained_each_and_judged_as_a_pool(event, has_atoms, hidden):
    g = torch.Generator().manual_seed(0)

    def network() -> MDN:
        atoms = torch.tensor([0.0]) if has_atoms else None
        backbone = BatchEnsemble(3, hidden, 4, torch.tensor([0, 2]), g)
        return MDN(
            backbone, MixtureHead(backbone.out_features, 3, event, atoms=atoms, n_members=4, generator=g)
        ).double()

    networks = [network(), network()]
    shape = (2, 20) if event is None else (2, 20, event)
    x, y, weight = (torch.rand(some, generator=g, dtype=torch.float64) for some in ((2, 20, 3), shape, (2, 20)))
    y[:, :3] = 0
    rows = Rows(x, y, weight)
    expected = []
    for e, one in enumerate(copy.deepcopy(networks)):
        of_members = one.head(one.backbone(x[e]))
        loss = (-of_members.log_prob(y[e].unsqueeze(1)).mean(1) * weight[e]).sum()
        gradient = torch.cat([part.reshape(-1) for part in torch.autograd.grad(loss, list(one.parameters()))])
        pool = Mixture.pool([of_members[:, m] for m in range(4)])
        expected.append((loss.detach(), gradient, -pool.log_prob(y[e]).detach()))
        close(one(x[e]).log_prob(y[e]), pool.log_prob(y[e]))
    stack = Stack(networks)
    with torch.no_grad():
        nlls = stack.nll(rows)
    losses, gradients = stack.loss_and_gradient(rows)
    for found, theirs in zip((losses, gradients, nlls), zip(*expected, strict=True), strict=True):
        close(found, torch.stack(theirs))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)


def test_waves_are_learned_functions_of_single_features():
    g = torch.Generator().manual_seed(0)
    waves = Periodic(4, torch.tensor([1, 3]), g)
    x = torch.randn(5, 4, generator=g)
    found = waves(x)
    assert found.shape == (5, waves.out_features) == (5, 4 + 2 * 8)
    assert torch.equal(found[:, :4], x)
    x[:, [0, 2]] += 1
    assert torch.equal(waves(x)[:, 4:], found[:, 4:])
    x[:, 1] += 1
    assert not torch.equal(waves(x)[:, 4:12], found[:, 4:12])
    assert torch.equal(waves(x)[:, 12:], found[:, 12:])


def test_a_dead_component_of_a_member_comes_back():
    g = torch.Generator().manual_seed(0)
    head = MixtureHead(8, 2, n_members=3, generator=g)
    network = MDN(BatchEnsemble(1, (8,), 3, torch.tensor([0]), g), head)
    family = get_family("normal")
    head.start_from(Mixture(torch.zeros(2), family.from_parameters(torch.tensor([-1.0, 1.0]), torch.ones(2))), gain=0.0)
    with torch.no_grad():
        head.linear.bias[1, 2] = 50.0  # the mean of the first component of the second member
    rows, dead = make_rows(), torch.zeros(6, dtype=torch.bool)
    dead[2] = True
    assert torch.equal(is_dead(usage(network, rows)), dead)
    before = head.linear.bias.detach().clone()
    revive(network, dead, rows, g)
    assert not is_dead(usage(network, rows)).any()
    moved = (head.linear.bias != before).any(1)
    assert moved.tolist() == [False, True, False]


def test_a_backbone_that_vmap_cannot_follow_is_trained_one_after_the_other():
    class Branching(nn.Linear):
        def forward(self, input):
            return super().forward(input) * (2 if input.sum() > 0 else 1)  # data-dependent control flow

    networks = [MDN(Branching(1, 8), MixtureHead(8, 2)) for _ in range(2)]
    learners = [Learner(network, torch.arange(256), None, torch.Generator().manual_seed(0)) for network in networks]
    train(learners, make_rows(), **SETTINGS)
    assert all(learner.report.best_nll < learner.report.start_nll for learner in learners)


def test_one_network_that_diverges_does_not_take_the_others_with_it():
    rows = make_rows()
    broken, sound = make_network(), make_network(seed=1)
    with torch.no_grad():
        broken.head.linear.bias.fill_(math.nan)
    learners = [Learner(n, torch.arange(256), None, torch.Generator().manual_seed(0)) for n in (broken, sound)]
    train(learners, rows, **SETTINGS)
    assert learners[0].failure is not None
    assert learners[1].failure is None
    assert learners[1].report.best_nll < learners[1].report.start_nll


@pytest.mark.parametrize("weight_floor", [0.0, 1e-4, 0.1])
@pytest.mark.parametrize(
    ("event", "family", "covariance"),
    [(None, "normal", "full"), (3, "normal", "diag"), (3, "normal", "full"), (3, "student_t", "full")],
)
def test_the_gradient_in_closed_form_is_that_of_autograd(event, family, covariance, weight_floor):
    """Raw parameters from far below the floor of the scale to far above 1."""
    g = torch.Generator().manual_seed(0)
    floor = 1e-3 if event is None else torch.tensor([1e-3, 1e-2, 0.1])
    head = MixtureHead(4, 3, event, family, covariance, None, floor, weight_floor, g).double()
    outputs = 4 * torch.randn(2, 500, head.linear.out_features, generator=g, dtype=torch.float64)
    y = torch.randn(2, 500, *(() if event is None else (event,)), generator=g, dtype=torch.float64)
    rows = Rows(torch.empty(2, 500, 0), y, torch.ones(2, 500))
    assert head.family.log_prob_and_slopes(head.split(outputs)[1], head.scale_floor, y.unsqueeze(2)) is not None
    with torch.no_grad():
        ours, slope = nll_and_slope(head, outputs.clone(), rows)
    outputs.requires_grad_()
    theirs = rows.nll(head.mixture(outputs))
    (expected,) = torch.autograd.grad(theirs.sum(), outputs)
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-12)
    size = expected.abs().amax(-1, keepdim=True)
    assert ((slope - expected).abs() / size.clamp(min=1)).max() < 1e-12


# Safeguards ----------------------------------------------------------------------------------------------------


def test_dead_components_come_back():
    """All but one start where no row is, so that they have no gradient; without the safeguard nothing is learned."""
    g = torch.Generator().manual_seed(0)
    rows = make_rows(1000)
    reports = {}
    for revives in (False, True):
        network = make_network(4)
        far = Normal(torch.tensor([0.0, 50.0, 60.0, 70.0]), torch.tensor([1.0, 0.01, 0.01, 0.01]))
        network.head.start_from(Mixture(torch.tensor([0.0, -9.0, -9.0, -9.0]), far))
        learner = Learner(network, torch.arange(800), torch.arange(800, 1000), g.manual_seed(0))
        train([learner], rows, **{**SETTINGS, "max_epochs": 80}, revives=revives)
        reports[revives] = learner.report
    assert reports[False].n_active_components == 1
    assert reports[True].n_active_components == 4
    assert reports[True].n_revived_components >= 1
    assert any("came back to life" in event for event in reports[True].events)
    assert reports[True].best_nll < reports[False].best_nll - 1


def test_a_revival_that_does_not_help_is_undone():
    """One mode and one component that explains it: others that are started anew elsewhere can only cost."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(600, 1, generator=g), torch.randn(600, generator=g)
    network = make_network(3)
    network.head.start_from(
        Mixture(torch.tensor([0.0, -9.0, -9.0]), Normal(torch.zeros(3), torch.tensor([1.0, 3.0, 3.0])))
    )
    learner = Learner(network, torch.arange(300), torch.arange(300, 600), g)
    train([learner], Rows(x, y, torch.ones(600)), **{**SETTINGS, "max_epochs": 40, "patience": 40})
    assert learner.report.best_nll <= learner.report.start_nll + 1e-6
    assert learner.n_failed_trials <= 2


def test_noise_is_drawn_by_each_learner_and_only_where_it_is_asked_for():
    reports = {}
    for x_noise, y_noise in ((0.0, 0.0), (0.2, 0.0), (0.0, 0.2)):
        pairs = []
        for seeds in ((0, 1), (1,)):
            learners = [
                Learner(make_network(seed=s).double(), torch.arange(40 + 5 * s), None, torch.Generator().manual_seed(s))
                for s in seeds
            ]
            rows = make_rows()
            rows = Rows(rows.x.double(), rows.y.double(), rows.weight.double())
            train(learners, rows, **{**SETTINGS, "max_epochs": 5}, x_noise=x_noise, y_noise=y_noise)
            pairs.append(learners[-1].report.valid_nll)
        np.testing.assert_allclose(*pairs, rtol=1e-7)  # beside another, and alone
        reports[x_noise, y_noise] = pairs[0]
    assert len({tuple(course) for course in reports.values()}) == 3


def test_censored_atomic_and_bounded_targets_get_no_noise_in_y(monkeypatch):
    seen = []
    monkeypatch.setattr("mixtura.task.train", lambda *_, **k: seen.append((k["x_noise"], k["y_noise"])) or 1 / 0)
    x = np.linspace(0, 1, 50)[:, None]
    y = np.where(x[:, 0] < 0.3, 0, x[:, 0])
    for settings in ({}, {"atoms": [0.0]}, {"noise": 0.3}, {"noise": 0}):
        with pytest.raises(ZeroDivisionError):
            MDNRegressor(**settings).fit(x, x[:, 0] if "atoms" not in settings else y)
    with pytest.raises(ZeroDivisionError):
        MDNRegressor(preset="plain", family="gamma").fit(x, 1 + x[:, 0])
    usual = min(0.2, 8 / 44)
    assert seen == [(usual, usual), (usual, 0), (0.3, 0.3), (0, 0), (usual, 0)]


def test_the_likelihood_has_no_bound_without_a_floor_and_one_with_it():
    """A component on one training point: as its scale falls, the loss falls with it, whatever the other points say."""
    y = torch.linspace(-1, 1, 20)
    rows, scales = Rows(torch.zeros(20, 1), y, torch.ones(20)), [1e-2, 1e-4, 1e-6, 1e-8]
    losses = {}
    for floor in (0.0, 1e-3):
        losses[floor] = []
        for scale in scales:
            network = MDN(MLP(1, (4,)), MixtureHead(4, 2, scale_floor=floor))
            start = Normal(torch.stack([torch.zeros(()), y[0]]), torch.tensor([1.0, scale]))
            network.head.start_from(Mixture(torch.tensor([0.95, 0.05]).log(), start), gain=0)
            losses[floor].append(evaluate_nll(network, rows))
    falls = -np.diff(losses[0.0])
    np.testing.assert_allclose(falls, math.log(100) / 20, rtol=0.05)
    assert min(losses[1e-3]) == pytest.approx(losses[1e-3][1], abs=0.01)
    assert min(losses[1e-3]) > losses[0.0][1]


@pytest.mark.parametrize("event", [(), (2,)])
def test_the_component_that_is_missed_least_is_removed(event):
    """By brute force: the density of each mixture with one component less, renormalised."""
    generator = torch.Generator().manual_seed(0)
    atoms = None if event else torch.tensor([0.0])
    head = MixtureHead(8, 4, event[0] if event else None, atoms=atoms, generator=generator, weight_floor=0.0)
    network = MDN(MLP(2, (8,), generator), head).double()
    y = torch.randn(50, *event, generator=generator, dtype=torch.float64)
    if atoms is not None:
        y[:5] = 0
    weight = torch.rand(50, generator=generator, dtype=torch.float64)
    rows = Rows(torch.randn(50, 2, generator=generator, dtype=torch.float64), y, weight)
    mixture = network(rows.x)
    losses = []
    for k in range(4):
        left = [i for i in range(mixture.logits.shape[-1]) if i != k]
        components = head.family.map(mixture.components, lambda part, left=left: part[:, [i for i in left if i < 4]])
        losses.append((rows.nll(Mixture(mixture.logits[:, left], components, mixture.atoms)) * weight).sum().item())
    pruned = prune(network, rows)
    assert (pruned.head.n_components, network.head.n_components) == (3, 4)
    assert (rows.nll(pruned(rows.x)) * weight).sum().item() == pytest.approx(min(losses), abs=1e-9)


def test_pruning_keeps_a_narrow_component_far_away_and_the_global_generator():
    """Responsibilities of 1 - 1e-9 are 1 in float32: what a component costs is worked out in float64."""
    family = get_family("normal")
    components = family.from_parameters(torch.tensor([-0.1, 0.1, 50.0]), torch.tensor([0.02, 0.02, 0.02]))
    head = MixtureHead(1, 3, scale_floor=1e-3, generator=torch.Generator())
    head.start_from(Mixture(torch.zeros(3), components), gain=0.0)
    network = MDN(nn.Identity(), head)
    y = torch.cat([torch.full((20,), 50.0), torch.full((100,), -0.1), torch.full((280,), 0.1)])
    state = torch.get_rng_state()
    left = prune(network, Rows(torch.zeros(400, 1), y, torch.ones(400)))
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(left(torch.zeros(1)).components.mean, torch.tensor([0.1, 50.0]), atol=1e-4, rtol=1e-4)


def test_of_a_censored_row_a_component_has_the_share_of_its_probability():
    """Right-censored at 0 under components at -5 and 5: only the one above can have been it."""
    family = get_family("normal")
    head = MixtureHead(1, 2, generator=torch.Generator())
    head.start_from(Mixture(torch.zeros(2), family.from_parameters(torch.tensor([-1.0, 5.0]), torch.ones(2))), gain=0.0)
    network, n = MDN(nn.Identity(), head), 10
    rows = Rows(torch.zeros(n, 1), torch.zeros(n), torch.ones(n), torch.full((n,), torch.inf))
    above = 1 - Normal(torch.tensor([-1.0, 5.0]), 1.0).cdf(torch.tensor(0.0))
    torch.testing.assert_close(usage(network, rows), above / above.sum(), atol=1e-4, rtol=1e-3)


def test_rows_at_atoms_do_not_make_the_others_components_dead():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (1000, 1))
    y = np.where(rng.random(1000) < 0.985, 0.0, 5 + X[:, 0] + 0.1 * rng.normal(size=1000))
    model = MDNRegressor(1, preset="plain", atoms=[0.0], hidden_layer_sizes=(8,), max_epochs=3, random_state=0).fit(
        X, y
    )
    assert model.fit_report_.component_usage == pytest.approx([1.0])
    assert model.fit_report_.n_active_components == 1


def test_an_interrupt_at_the_very_end_keeps_the_best_weights(monkeypatch):
    calls = []

    def once(network: MDN, rows: Rows) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return usage(network, rows)

    monkeypatch.setattr("mixtura.learner.usage", once)
    with pytest.warns(MixturaWarning, match="W-interrupted") as told:
        report = run(make_network(), make_rows(), max_epochs=2, revives=False)
    assert told[0].filename == __file__
    assert report.n_epochs == 2
    assert len(report.component_usage) == 2


@pytest.mark.filterwarnings("ignore:.*W-feature-far")  # three rows have a narrow range
@pytest.mark.parametrize("preset", ["fast", "plain"])
@pytest.mark.parametrize("n", [3, 5, 7])
def test_a_handful_of_rows_makes_no_spikes(n, preset):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n + 200, 2))
    y = 2 * X[:, 0] + rng.normal(size=n + 200)
    model = MDNRegressor(preset=preset, max_epochs=20, random_state=0).fit(X[:n], y[:n])
    assert -model.score_samples(X[n:], y[n:]).mean() < 6  # a normal law of their mean and spread has about 2.5
