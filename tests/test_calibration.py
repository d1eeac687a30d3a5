"""Densities corrected on held-out rows: against known truths, and the laws that corrections must remain."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import (
    Gamma,
    Independent,
    LogNormal,
    MultivariateNormal,
    Normal,
    Poisson,
    StudentT,
)

import mixtura
from mixtura import MDNRegressor, MixturaError, Mixture, Temperature, crps, fit_temperature
from mixtura.answers import Answers
from mixtura.calibrated import correct
from mixtura.calibration import Recalibrated, fit_score_law, normal_scores, standard_normal
from mixtura.families import FAMILIES, ScaledBeta


def normals(loc, scale, n=1) -> Mixture:
    loc, scale = (torch.as_tensor(part, dtype=torch.float64).expand(n, 1) for part in (loc, scale))
    return Mixture(torch.zeros(n, 1, dtype=torch.float64), Normal(loc, scale))


def rows(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Temperature ----------------------------------------------------------------------------------------------------


def test_a_model_that_is_too_wide_by_two_gets_half_its_scale_and_the_nll_of_the_truth():
    y, new = rows(4000), rows(4000, 1)
    temperature = fit_temperature(normals(0, 2, 4000), y)
    assert temperature.scale == pytest.approx(0.5, abs=0.02)
    assert temperature.sharpness == pytest.approx(1, abs=1e-3)  # one component has no weight to sharpen
    truth = -normals(0, 1, 4000).log_prob(new).mean()
    assert -temperature.apply(normals(0, 2, 4000)).log_prob(new).mean() == pytest.approx(truth.item(), abs=2e-3)


def test_weights_that_are_too_flat_are_sharpened_atoms_included():
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64).expand(6000, 3)
    components = Normal(torch.tensor([-9.0, 9.0], dtype=torch.float64).expand(6000, 2), 1.0)
    atom = torch.zeros(1, dtype=torch.float64)
    truth, flat = (Mixture(power * logits, components, atom) for power in (1.0, 0.4))
    temperature = fit_temperature(flat, truth.sample((), generator))
    assert temperature.sharpness == pytest.approx(2.5, rel=0.05)
    assert temperature.scale == pytest.approx(1, abs=0.03)
    torch.testing.assert_close(temperature.apply(flat).weights[0], truth.weights[0], atol=0.02, rtol=0)


def test_few_rows_pull_to_one_and_none_that_are_possible_is_an_error():
    few = fit_temperature(normals(0, 2, 2), rows(2)).scale
    assert fit_temperature(normals(0, 2, 2000), rows(2000)).scale < few < 1.5
    positive = Mixture(torch.zeros(2, 1), Gamma(torch.ones(2, 1), torch.ones(2, 1)))
    with pytest.raises(MixturaError) as caught:
        fit_temperature(positive, torch.tensor([-1.0, -2.0]))
    assert caught.value.code == "E-too-few-rows"


def test_an_impossible_row_has_no_say():
    y = torch.tensor(np.random.default_rng(0).gamma(2, size=500))
    mixture = Mixture(torch.zeros(501, 1), Gamma(torch.full((501, 1), 2.0, dtype=torch.float64), torch.tensor(1.0)))
    with_it = fit_temperature(mixture, torch.cat([y, torch.tensor([-1.0])]))
    assert with_it == fit_temperature(mixture[:500], y)


def test_of_vectors():
    y = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) @ torch.tensor(
        [[1.0, 0.5], [0.0, 1.0]], dtype=torch.float64
    )
    covariance = 4 * torch.tensor([[1.0, 0.5], [0.5, 1.25]], dtype=torch.float64)
    mixture = Mixture(torch.zeros(3000, 1), MultivariateNormal(torch.zeros(3000, 1, 2).double(), covariance))
    temperature = fit_temperature(mixture, y)
    assert temperature.scale == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(
        temperature.apply(mixture).covariance[0] / temperature.scale**2, covariance, atol=1e-9, rtol=0
    )


def test_censored_rows_count_by_their_probability():
    y = rows(4000)
    temperature = fit_temperature(normals(0, 2, 4000), y.clamp(max=0.5), torch.where(y > 0.5, torch.inf, y))
    assert temperature.scale == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_every_family_widens_about_its_centre_or_stays(family):
    generator = torch.Generator().manual_seed(0)
    event_size = len(family.families) if hasattr(family, "families") else 2
    event_size = None if family.covariance_type is None else event_size
    raw = 0.3 * torch.randn(3, 2, family.n_raw(event_size), generator=generator, dtype=torch.float64)
    components = family.build(raw)
    for same, parameter in zip(
        family.parameters(family.widen(components, torch.tensor(1.0).double())),
        family.parameters(components),
        strict=True,
    ):
        torch.testing.assert_close(same, parameter)
    wider = family.widen(components, torch.tensor(1.3, dtype=torch.float64))
    if family.closed_under == "none":
        assert all(map(torch.equal, family.parameters(wider), family.parameters(components)))
        return
    assert (Mixture(torch.zeros(3, 2), wider).variance > Mixture(torch.zeros(3, 2), components).variance).all()


@pytest.mark.parametrize(
    ("components", "twice"),
    [
        (Normal(3.0, 2.0), Normal(3.0, 4.0)),
        (StudentT(1.0, 3.0, 2.0), StudentT(1.0, 3.0, 4.0)),  # it has no mean
        (LogNormal(1.0, 0.2), LogNormal(1.0, 0.4)),
        (Gamma(8.0, 2.0), Gamma(2.0, 0.5)),
    ],
)
def test_a_scale_of_two(components, twice):
    mixture, expected = (Mixture(torch.zeros(1), part.expand((1,))) for part in (components, twice))
    y = torch.tensor([0.5, 2.0, 7.0])
    torch.testing.assert_close(Temperature(2.0, 1.0).apply(mixture).log_prob(y), expected.log_prob(y))


# The law of the PIT ---------------------------------------------------------------------------------------------

BASES = {
    "normal": normals(1.0, 2.0),
    "two": Mixture(torch.zeros(1, 2), Normal(torch.tensor([[-4.0, 4.0]]).double(), torch.tensor(1.0).double())),
    "heavy": Mixture(torch.zeros(1, 1), StudentT(torch.full((1, 1), 3.0).double())),
    "bounded": Mixture(torch.zeros(1, 1), Gamma(torch.full((1, 1), 2.0).double(), torch.tensor(1.0).double())),
}
SKEWED = Mixture(
    torch.tensor([0.7, 0.3]).double().log(),
    Normal(torch.tensor([-0.4, 0.8]).double(), torch.tensor([0.6, 1.3]).double()),
)


@pytest.mark.parametrize("name", BASES)
def test_a_recalibrated_density_is_a_law(name):
    law = Recalibrated(BASES[name], SKEWED)
    ends = law.icdf(torch.tensor([[1e-7], [1 - 1e-7]]))
    assert torch.allclose(law.cdf(ends), torch.tensor([[1e-7], [1 - 1e-7]]).double(), atol=1e-12)
    levels = torch.linspace(1e-7, 1 - 1e-7, 20_001).double()
    y = law.icdf(levels[:, None])[:, 0]
    torch.testing.assert_close(law.cdf(y[:, None])[:, 0], levels, atol=1e-10, rtol=1e-8)
    torch.testing.assert_close((law.cdf(y) + law.survival(y)), torch.ones_like(y), atol=1e-12, rtol=0)
    mass = torch.trapezoid(law.log_prob(y[:, None])[:, 0].exp(), y).item()
    assert mass == pytest.approx(1, abs=4e-3)  # the tails are wide steps of the rule
    slope = (law.cdf(y[:, None] + 1e-5) - law.cdf(y[:, None] - 1e-5))[1000:-1000, 0] / 2e-5
    torch.testing.assert_close(slope, law.log_prob(y[:, None])[1000:-1000, 0].exp(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["normal", "two", "bounded"])
def test_moments_scores_and_draws_are_those_of_the_quantiles(name):
    law = Recalibrated(BASES[name], SKEWED)
    levels = (torch.arange(50_000, dtype=torch.float64) + 0.5) / 50_000
    y = law.icdf(levels[:, None])[:, 0]
    assert law.mean.item() == pytest.approx(y.mean().item(), abs=1e-3)
    assert law.variance.item() == pytest.approx(y.var().item(), rel=1e-3)
    expected = (y - 0.3).abs().mean() - (y * (2 * levels - 1)).mean()
    assert law.crps(torch.tensor([0.3])).item() == pytest.approx(expected.item(), rel=1e-3)
    draws = law.sample((20_000,), torch.Generator().manual_seed(0))
    uniform = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    assert (law.cdf(draws).sort(0).values[:, 0] - uniform).abs().max() < 1.63 / 20_000**0.5  # KS at 1%


@pytest.mark.parametrize(
    "mixture",
    [
        BASES["two"].expand((3,)),
        Mixture(torch.zeros(3, 1), Poisson(torch.tensor([[0.3], [4.0], [60.0]]).double())),
        Mixture(torch.zeros(3, 3), Normal(torch.zeros(3, 1).double(), 1.0), torch.tensor([0.0, 2.0]).double()),
        Mixture(torch.zeros(3, 1), ScaledBeta(*(torch.full((3, 1), end).double() for end in (2.0, 3.0, -1.0, 5.0)))),
    ],
    ids=["two", "counts", "atoms", "beta"],
)
def test_without_a_correction_it_is_the_mixture(mixture):
    law = Recalibrated(mixture, standard_normal())
    y = torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(law.log_prob(y), mixture.log_prob(y), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(law.cdf(y), mixture.cdf(y))
    torch.testing.assert_close(law.survival(y), mixture.survival(y))
    torch.testing.assert_close(law.mean, mixture.mean, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(law.variance, mixture.variance, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(law.crps(y), crps(mixture, y, reduction="none"), atol=1e-9, rtol=1e-7)
    levels = torch.tensor([[0.01], [0.4], [0.9]], dtype=torch.float64)
    torch.testing.assert_close(law.icdf(levels), mixture.icdf(levels))
    assert law[1:].batch_shape == (2,)
    assert len(law) == 3


def test_masses_of_atoms_and_counts_are_jumps_and_sum_to_one():
    counts = Mixture(torch.zeros(1, 1), Poisson(torch.tensor([[4.0]]).double()))
    law = Recalibrated(counts, SKEWED)
    numbers = torch.arange(60, dtype=torch.float64)[:, None]
    masses = law.log_prob(numbers).exp()
    assert masses.sum().item() == pytest.approx(1, abs=1e-9)
    torch.testing.assert_close(masses.cumsum(0), law.cdf(numbers), atol=1e-9, rtol=0)
    region = law.highest_density_region(0.8)
    inside = masses[region.contains(numbers)]
    assert 0.8 <= inside.sum() < 0.8 + inside.min()
    atoms = Recalibrated(
        Mixture(torch.zeros(1, 2), Normal(torch.zeros(1, 1).double(), 1.0), torch.tensor([0.5]).double()), SKEWED
    )
    at = torch.tensor([0.5], dtype=torch.float64)
    jump = atoms.cdf(at) - atoms.cdf(at - 1e-12)
    torch.testing.assert_close(atoms.log_prob(at).exp(), jump, atol=1e-9, rtol=0)


def test_its_highest_density_region_is_that_of_the_density():
    law = Recalibrated(BASES["two"], SKEWED)
    region = law.highest_density_region(0.9)
    assert region.count.item() == 2
    y = torch.linspace(-15, 20, 350_001, dtype=torch.float64)[:, None]
    density = law.log_prob(y).exp()[:, 0]
    mass = density[region.contains(y)[:, 0]].sum() * 1e-4
    assert 0.9 - 1e-3 < mass < 0.9 + 3e-3
    heaviest = density.sort(descending=True).values
    smallest = (heaviest.cumsum(0) * 1e-4 < 0.9).sum() * 1e-4
    assert smallest - 1e-3 <= region.size.item() <= smallest * 1.01


def test_a_skewed_misfit_is_mended_and_a_calibrated_model_stays():
    generator = torch.Generator().manual_seed(0)
    truth = torch.distributions.Gumbel(torch.zeros(1).double(), 1.0)
    y, new = (-(-torch.rand(3000, generator=generator, dtype=torch.float64).log()).log() for _ in range(2))
    mixture = normals(0.577, 1.28, 3000)  # with its mean and standard deviation
    law = Recalibrated(mixture, fit_score_law(normal_scores(mixture, y)))
    best = -truth.log_prob(new).mean()
    tempered = fit_temperature(mixture, y).apply(mixture)
    assert -law.log_prob(new).mean() < best + 0.01
    assert -tempered.log_prob(new).mean() > best + 0.05
    assert (law.cdf(new).sort().values - torch.linspace(0, 1, 3000)).abs().max() < 0.04
    assert fit_score_law(rows(800)).n_components == 1
    assert torch.equal(fit_score_law(rows(800)).components.scale, torch.ones(1).double())  # N(0, 1), as it was
    assert fit_score_law(rows(3) + 1).components.loc.abs().max() < 0.5  # three rows say little


def test_scores_of_atoms_and_counts_are_standard_normal_where_the_model_is_right():
    generator = torch.Generator().manual_seed(0)
    for mixture in (
        Mixture(torch.zeros(4000, 1), Poisson(torch.rand(4000, 1, generator=generator, dtype=torch.float64) * 3)),
        Mixture(torch.zeros(4000, 2), Normal(torch.zeros(4000, 1).double(), 1.0), torch.tensor([0.0]).double()),
    ):
        z = normal_scores(mixture, mixture.sample((), generator)).sort().values
        assert (torch.special.ndtr(z) - torch.linspace(0, 1, 4000)).abs().max() < 1.63 / 4000**0.5


# Models ---------------------------------------------------------------------------------------------------------


def make_rows(n: int, seed: int, columns: int = 1):
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n, columns))
    return X, X[:, 0] + np.where(X[:, 0] > 0, 1.0, 0.1) * rng.normal(size=n)


class TooSimple(Answers):
    """The same width for all rows, though it depends on x."""

    target_names_ = None
    _y_shape = ()

    def predict_dist(self, X):
        return normals(torch.as_tensor(np.asarray(X))[:, :1], 0.7, len(X))


def test_local_mends_what_depends_on_x_and_temperature_cannot():

    (X, y), (X_new, y_new) = make_rows(1200, 0), make_rows(1000, 1)
    regressor = MDNRegressor(2, preset="plain", family="normal", max_epochs=25, random_state=0)
    nll = {
        method: -correct(TooSimple(), X, y, method, regressor).score_samples(X_new, y_new).mean()
        for method in ("temperature", "pit", "local")
    }
    truth = -Normal(torch.tensor(X_new[:, 0]), torch.tensor(np.where(X_new[:, 0] > 0, 1.0, 0.1))).log_prob(
        torch.tensor(y_new)
    )
    assert nll["local"] < min(nll["temperature"], nll["pit"]) - 0.15
    assert nll["local"] < truth.mean() + 0.3


@pytest.fixture(scope="module")
def fitted() -> MDNRegressor:
    X, y = make_rows(300, 0, 2)
    table = pd.DataFrame(X, columns=["a", "b"]).assign(c=np.where(X[:, 1] > 0, "x", "y"))
    model = MDNRegressor(2, preset="plain", hidden_layer_sizes=(8,), max_epochs=8, random_state=0)
    return model.fit(table, pd.Series(y, name="target"))


def own_rows(n: int = 400, seed: int = 1):
    X, y = make_rows(n, seed, 2)
    return pd.DataFrame(X, columns=["a", "b"]).assign(c=np.where(X[:, 1] > 0, "x", "y")), y


@pytest.mark.parametrize("method", ["temperature", "pit", "local"])
def test_a_calibrated_model_answers_all_and_comes_back_from_disk(fitted, method, tmp_path):
    X, y = own_rows()
    before = fitted.predict_dist(X).logits.clone()
    model = fitted.calibrate(X, y, method)
    assert torch.equal(before, fitted.predict_dist(X).logits)  # which stays as it is
    new, y_new = own_rows(200, 2)
    assert model.score_samples(new, y_new).mean() > fitted.score_samples(new, y_new).mean()
    model.save(tmp_path / "model")
    again = mixtura.load(tmp_path / "model")
    np.testing.assert_array_equal(model.predict(new), again.predict(new))
    np.testing.assert_array_equal(model.predict_quantiles(new, [0.1, 0.9]), again.predict_quantiles(new, [0.1, 0.9]))
    np.testing.assert_array_equal(model.sample(new, 3, 0), again.sample(new, 3, 0))
    np.testing.assert_array_equal(model.score_samples(new, y_new), again.score_samples(new, y_new))
    assert again.target_names_ == ["target"]
    assert model.predict_interval(new).shape == (200, 2)
    assert model.summary == again.summary


@pytest.mark.parametrize(
    ("code", "ask"),
    [
        ("E-parameter", lambda model, X, y: model.calibrate(X, y, "platt")),
        ("E-input-length", lambda model, X, y: model.calibrate(X, y[:-1])),
        ("E-calibration-groups", lambda model, X, y: model.calibrate(X, y, groups=X["c"])),
        ("E-target-type", lambda model, X, y: model.calibrate(X, pd.arrays.IntervalArray.from_arrays(y, y + 1), "pit")),
        ("E-not-fitted", lambda model, X, y: MDNRegressor().calibrate(X, y)),
        ("E-parameter", lambda model, X, y: model.calibrate(X, y, "pit").calibrate(X, y, "hpd_split")),
    ],
)
def test_errors_are_coded(fitted, code, ask):
    with pytest.raises(MixturaError) as caught:
        ask(fitted, *own_rows(60))
    assert caught.value.code == code


def test_the_pit_of_a_vector_is_an_error():
    pair = Mixture(torch.zeros(2, 1), Independent(Normal(torch.zeros(2, 1, 2), 1.0), 1))
    with pytest.raises(MixturaError) as caught:
        normal_scores(pair, torch.zeros(2, 2))
    assert caught.value.code == "E-scalar-only"
