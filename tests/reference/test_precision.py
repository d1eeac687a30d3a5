"""log_prob, cdf and icdf against mpmath with 600 digits: the benchmark's measure on three of its scales."""

import pytest
import torch

from benchmarks.precision import SHAPES, measure


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_float64(shape, scale):
    errors = measure(shape, scale)
    assert errors.log_prob_relative < 1e-14
    assert errors.log_prob < 1e-10
    assert errors.cdf < 1e-15
    assert errors.icdf_per_size < 1e-12


@pytest.mark.parametrize("shape", ["one normal", "skewed by three", "two far modes", "needle in a haystack"])
@pytest.mark.parametrize("scale", [1e-3, 1e6])
def test_float32(shape, scale):
    errors = measure(shape, scale, torch.float32)
    assert errors.log_prob_relative < 1e-5
    assert errors.cdf < 1e-6
    assert errors.icdf_per_size < 1e-4
