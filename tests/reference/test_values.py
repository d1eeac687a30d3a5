"""Every scalar family against mpmath: the measures of benchmarks/families.py on some of its mixtures and scales."""

import math

import pytest

from benchmarks.families import (
    Errors,
    Reference,
    make,
    measure_integrals,
    measure_moments,
    measure_points,
    scalar_families,
    scales_of,
)
from mixtura.families import ScalarFamily

BOUNDS = {
    "log_prob": 1e-11,
    "cdf": 1e-12,
    "survival": 1e-12,
    "log_cdf": 1e-13,
    "log_survival": 1e-13,
    "icdf": 1e-13,
    "mean": 1e-13,
    "variance": 1e-13,
    "skewness": 1e-12,
    "crps": 1e-11,
    "cde_loss": 1e-11,
    "entropy": 1e-9,  # of counts 2e-12 of the probability is left out; of a Student t what is beyond 1e-32
}
LOOSER = {
    ("beta", "cde_loss"): 1e-8,  # a density that is infinite at 1 has mass between the last doubles
}


@pytest.fixture(params=scalar_families(), ids=repr)
def family(request: pytest.FixtureRequest) -> ScalarFamily:
    return request.param


def check(family: ScalarFamily, errors: Errors) -> None:
    for method, error in errors.largest.items():
        assert error < LOOSER.get((family.name, method), BOUNDS[method]), f"{method}: {error:.1e}"


def test_densities_tails_quantiles_and_moments_of_three_components(family):
    for scale in scales_of(family)[-1:]:
        mixture = make(family, 3, scale)
        reference = Reference.of(mixture)
        points, moments = measure_points(mixture, reference), measure_moments(mixture, reference)
        assert {"log_prob", "cdf", "survival", "log_cdf", "log_survival", "icdf"} <= points.largest.keys()
        check(family, points)
        check(family, moments)


def test_integrals_of_one_component(family):
    for scale in scales_of(family):
        errors = measure_integrals(family, 1, scale)
        assert errors.largest.keys() == {"crps", "cde_loss", "entropy"}
        check(family, errors)


def test_a_wrong_answer_is_seen():
    """The measures can fail: the mixture's answers against a reference with another weight, and a NaN."""
    family = next(family for family in scalar_families() if family.name == "normal")
    mixture = make(family, 3, 1.0)
    reference = Reference.of(mixture)
    reference.weights = [*reference.weights[:2], reference.weights[2] * (1 + 1e-9)]
    assert measure_points(mixture, reference).largest["cdf"] > 1e-11
    assert measure_moments(mixture, reference).largest["mean"] > 1e-11
    errors = Errors()
    errors.add("mean", math.nan, reference.weights[0], 1)
    assert errors.largest["mean"] == math.inf
