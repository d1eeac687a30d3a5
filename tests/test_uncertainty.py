"""What a pool agrees on and what it does not, with truth that is known: a hole in x, and noise that grows."""

import numpy as np
import pytest
import torch

from mixtura import MDNRegressor, MixturaError, Mixture, decompose, load

SMALL = {"hidden_layer_sizes": (8,), "max_epochs": 4, "random_state": 0}


def noise(x: np.ndarray) -> np.ndarray:
    return 0.1 + 0.05 * (x + 3)


def with_a_hole(n: int = 500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A sine whose noise grows from 0.1 to 0.4; no x between 0 and 1.5."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-3, 3, n)
    x = x[(x < 0) | (x > 1.5)]
    return x[:, None], np.sin(2 * x) + noise(x) * rng.normal(size=len(x))


@pytest.fixture(scope="module")
def fitted() -> MDNRegressor:
    model = MDNRegressor(1, n_restarts=4, hidden_layer_sizes=(32, 32), max_epochs=60, family="normal", random_state=0)
    return model.fit(*with_a_hole())


def test_epistemic_grows_in_the_hole_and_aleatoric_with_the_noise_and_not_the_other_way_round(fitted):
    x = np.linspace(-2.7, 2.7, 109)
    hole, seen = (x > 0.3) & (x < 1.2), (x < -0.3) | (x > 1.8)
    parts = fitted.uncertainty(x[:, None])
    epistemic, aleatoric = parts.epistemic.numpy(), parts.aleatoric.numpy()
    information = parts.mutual_information.value.numpy()
    assert np.median(epistemic[hole]) > 8 * np.median(epistemic[seen])
    assert np.median(information[hole]) > 5 * np.median(information[seen])
    assert 0.3 < np.median(aleatoric[hole] / noise(x[hole]) ** 2) < 3  # it does not take the hole for noise
    assert np.corrcoef(np.log(aleatoric[seen]), np.log(noise(x[seen]) ** 2))[0, 1] > 0.9
    assert np.median(aleatoric[seen] / noise(x[seen]) ** 2) == pytest.approx(1, abs=0.4)
    quiet, loud = seen & (x < -1.5), seen & (x > 1.8)
    assert aleatoric[loud].mean() > 3 * aleatoric[quiet].mean()
    assert epistemic[loud].mean() < 0.2 * aleatoric[loud].mean()
    assert (parts.mutual_information.error < 1e-8).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"preset": "fast"},
        {"preset": "balanced"},
        {"preset": "plain", "n_restarts": 3, "pool_restarts": True},
        {"preset": "fast", "family": "gamma"},
        {"preset": "fast", "family": ["normal", "gamma"]},
        {"preset": "fast", "atoms": [1.0]},
    ],
)
def test_the_total_is_the_variance_of_the_prediction_and_the_sum_of_its_parts(settings, tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.uniform(size=(60, 2)), rng.gamma(3, size=60)
    y = np.where(rng.uniform(size=60) < 0.3, 1.0, y) if "atoms" in settings else y
    y = np.c_[y, y] if isinstance(settings.get("family"), list) else y
    more = {"covariance_type": "diag"} if y.ndim == 2 else {}
    model = MDNRegressor(2, **SMALL, **settings, **more).fit(X, y)
    parts, mixture = model.uncertainty(X[:7]), model.predict_dist(X[:7])
    torch.testing.assert_close(parts.total, mixture.variance, rtol=1e-12, atol=0)
    torch.testing.assert_close(parts.total, parts.aleatoric + parts.epistemic, rtol=1e-10, atol=0)
    assert parts.total.shape == y[:7].shape
    assert (parts.epistemic > 0).all()
    model.save(tmp_path / "model")
    assert torch.equal(load(tmp_path / "model").uncertainty(X[:7]).epistemic, parts.epistemic)


def test_members_are_those_of_every_network_with_the_share_of_the_background_in_each():
    X, y = with_a_hole(100)
    model = MDNRegressor(2, preset="balanced", n_restarts=2, **SMALL).fit(X, y)
    parts = model.uncertainty(X[:3])
    network, share = model.networks_[1], model.background_share_
    x = torch.as_tensor(model.encoder_.transform(X[:3]))
    loc, scale = float(model.y_scaler_.mean_[0]), float(model.y_scaler_.scale_[0])
    with torch.no_grad():
        assert network.of_members(x).batch_shape == (3, 8)
        own = [network.of_members(x)[:, i] for network in model.networks_ for i in range(8)]
        background = model.background_(x)
        members = [Mixture.pool([one, background], [1 - share, share]).affine(loc, scale) for one in own]
        expected = decompose(members)
    torch.testing.assert_close(parts.epistemic, expected.epistemic)
    torch.testing.assert_close(parts.aleatoric, expected.aleatoric)


def test_mutual_information_is_that_of_the_whole_entropy():
    """By fewer points of quadrature where components are many; beside all points, and beside draws."""
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    members = [
        Mixture(numbers(4, 3), torch.distributions.Normal(numbers(4, 3), (0.5 * numbers(4, 3)).exp())) for _ in range(9)
    ]
    value, error = decompose(members).mutual_information
    whole = Mixture.pool(members).entropy().value - torch.stack([one.entropy().value for one in members]).mean(0)
    torch.testing.assert_close(value, whole, rtol=1e-9, atol=0)
    assert (error < 1e-8).all()
    draws = [(one, one.sample((20_000,), generator)) for one in members]
    pool = Mixture.pool(members)
    by_draws = torch.stack([(one.log_prob(y) - pool.log_prob(y)).mean(0) for one, y in draws]).mean(0)
    torch.testing.assert_close(value, by_draws, rtol=0, atol=0.02)


def test_a_single_member_has_no_doubt_to_tell():
    X, y = with_a_hole(60)
    model = MDNRegressor(2, preset="plain", **SMALL).fit(X, y)
    with pytest.raises(MixturaError, match="E-single-member"):
        model.uncertainty(X)
    with pytest.raises(MixturaError, match="E-single-member"):
        MDNRegressor(2, preset="plain", n_restarts=3, **SMALL).fit(X, y).uncertainty(X)  # the best one is kept
    with pytest.raises(MixturaError, match="E-not-fitted"):
        MDNRegressor().uncertainty(X)
