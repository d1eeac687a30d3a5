"""Laws that hold whatever the mixture, on random ones of every registered family."""

from collections.abc import Callable, Sequence

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mixtura import FAMILIES, Mixture, pool
from mixtura.families import AnyFamily, ScalarFamily, VectorFamily

F64 = torch.float64
SCALARS = [family for family in FAMILIES if isinstance(family, ScalarFamily)]
VECTORS = [family for family in FAMILIES if isinstance(family, VectorFamily)]
CONTINUOUS = [family for family in SCALARS if not family.is_discrete]
AFFINE = [family for family in CONTINUOUS if family.closed_under == "affine" and not family.is_circular]
LEVELS = torch.tensor([1e-9, 1e-3, 0.02, 0.3, 0.5, 0.77, 0.99, 1 - 1e-6], dtype=F64)
QUICK = settings(max_examples=20, deadline=None, derandomize=True)


def column(values: Tensor) -> Tensor:
    """Several values for each row of a batch."""
    return values.reshape(-1, 1)


@st.composite
def mixtures(draw: st.DrawFn, families: Sequence[AnyFamily], n_rows: int = 2) -> Callable[[], Mixture]:
    """How to make one: raw outputs of a network, of any size up to about 3, stretched where the family allows it.

    It is made outside of the strategy, for the checks of types draw random numbers of their own.
    """
    family = draw(st.sampled_from(families))
    k, seed, size = draw(st.integers(1, 4)), draw(st.integers(0, 2**31)), draw(st.sampled_from([0.3, 1.0, 1.5]))
    scale, shift = draw(st.sampled_from([1e-6, 1e-2, 1.0, 1e3, 1e6])), draw(st.sampled_from([0.0, -3.0, 10.0]))

    def make() -> Mixture:
        g = torch.Generator().manual_seed(seed)
        raw = size * torch.randn(
            n_rows, k, family.n_raw(2 if isinstance(family, VectorFamily) else None), dtype=F64, generator=g
        )
        mixture = Mixture(2 * torch.randn(n_rows, k, dtype=F64, generator=g), family.build(raw))
        if family.closed_under == "none":
            return mixture
        return mixture.affine(shift * scale if family.closed_under == "affine" else 0.0, scale)

    return make


@QUICK
@given(mixtures(SCALARS))
def test_the_cdf_rises_from_0_to_1(make):
    mixture = make()
    y = mixture.icdf(column(LEVELS))
    between = torch.cat([y, y[:-1] + 0.5 * y.diff(dim=0)]).sort(0).values
    cdf = mixture.cdf(between)
    assert ((cdf >= 0) & (cdf <= 1)).all()
    assert (cdf.diff(dim=0) >= -1e-15).all()
    if not mixture.family.is_discrete:
        torch.testing.assert_close(cdf + mixture.survival(between), torch.ones_like(cdf), rtol=0, atol=1e-14)


@QUICK
@given(mixtures(SCALARS))
def test_the_quantile_is_the_least_y_that_reaches_its_level(make):
    mixture = make()
    y = mixture.icdf(column(LEVELS))
    above = y if mixture.family.is_discrete else y + 4e-16 * y.abs()  # y is rounded
    assert (mixture.cdf(above) >= column(LEVELS) - 1e-13).all()
    assert (y.diff(dim=0) >= 0).all()
    if mixture.family.is_discrete:
        assert (y == y.round()).all()
        assert ((mixture.cdf(y - 1) < column(LEVELS)) | (y == 0)).all()


@QUICK
@given(mixtures(CONTINUOUS))
def test_the_quantile_of_the_cdf_is_y(make):
    mixture = make()
    y = mixture.sample((9,), torch.Generator().manual_seed(0))
    level = mixture.cdf(y)
    slack = 1e-13 / mixture.log_prob(y).exp() + 1e-10 * y.abs()  # what the rounding of the level amounts to
    usual = (level > 1e-6) & (level < 1 - 1e-6)
    assert ((mixture.icdf(level) - y).abs() <= slack)[usual].all()


@QUICK
@given(mixtures(FAMILIES))
def test_variances_are_not_negative(make):
    mixture = make()
    variance = mixture.variance
    assert ((variance >= 0) | variance.isnan()).all()
    assert torch.equal(mixture.stddev, variance.sqrt()) or variance.isnan().any()


@QUICK
@given(mixtures(FAMILIES), st.integers(1, 4))
def test_a_pool_of_equal_mixtures_is_the_mixture(make, n):
    mixture = make()
    y = mixture.sample((5,), torch.Generator().manual_seed(1))
    whole = pool([mixture] * n, torch.arange(1.0, n + 1))
    assert whole.n_components == n * mixture.n_components
    torch.testing.assert_close(whole.log_prob(y), mixture.log_prob(y), rtol=1e-12, atol=1e-12)


@QUICK
@given(mixtures(VECTORS), st.sampled_from([0, 1]))
def test_margin_times_conditional_is_the_joint(make, dim):
    mixture = make()
    y = mixture.sample((5,), torch.Generator().manual_seed(1))
    given_one = mixture.condition(dim, y[..., dim])
    joint = mixture.marginal(dim).log_prob(y[..., dim]) + given_one.log_prob(y[..., 1 - dim])
    torch.testing.assert_close(joint, mixture.log_prob(y), rtol=1e-8, atol=1e-8)


@QUICK
@given(mixtures(AFFINE), st.floats(-100, 100), st.sampled_from([-1e3, -0.1, 0.01, 7.0]))
def test_answers_move_with_the_target(make, a, b):
    mixture = make()
    moved = mixture.affine(a, b)
    level = column(LEVELS[2:-1])
    y = mixture.icdf(1 - level if b < 0 else level)
    size = abs(b) * (y.abs().amax() + y.diff(dim=0).abs().amax()) + abs(a)
    slack = 1e-10 * size + 1e-13 * abs(b) / mixture.log_prob(y).exp()
    assert ((moved.icdf(level) - (a + b * y)).abs() <= slack).all()
    for part in (moved.mean - (a + b * mixture.mean), moved.stddev - abs(b) * mixture.stddev):
        assert ((part.abs() <= 1e-9 * size + 1e-9 * moved.stddev) | part.isnan()).all()
    width = abs(b) * (y[-1] - y[0]).abs().amin()
    if size < 1e4 * width:  # else a + b*y is rounded by too much of a scale
        log_jacobian = torch.tensor(abs(b), dtype=F64).log()
        torch.testing.assert_close(moved.log_prob(a + b * y), mixture.log_prob(y) - log_jacobian, atol=1e-6, rtol=1e-6)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(mixtures(AFFINE), st.sampled_from([-1e3, -0.1, 0.01, 7.0]))
def test_modes_move_with_the_target(make, b):
    mixture = make()
    modes, moved = mixture.modes(), mixture.affine(0.0, b).modes()
    assert torch.equal(modes.count, moved.count)
    for row in range(len(mixture)):
        n = int(modes.count[row])
        expected, got = (b * modes.loc[row, :n]).sort().values, moved.loc[row, :n].sort().values
        size = abs(b) * mixture.components.stddev[row].nan_to_num(1.0).amax().item()
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * size)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(mixtures(SCALARS, n_rows=3))
def test_a_batch_is_its_rows(make):
    mixture = make()
    y = mixture.sample((3,), torch.Generator().manual_seed(2))
    level = column(LEVELS[1:-1])
    rows = [mixture[i] for i in range(3)]
    together = [mixture.log_prob(y), mixture.cdf(y), mixture.icdf(level), mixture.mean]
    alone = [
        torch.stack([row.log_prob(y[:, i]) for i, row in enumerate(rows)], 1),
        torch.stack([row.cdf(y[:, i]) for i, row in enumerate(rows)], 1),
        torch.stack([row.icdf(level[:, 0]) for row in rows], 1),
        torch.stack([row.mean for row in rows]),
    ]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13, equal_nan=True)


@QUICK
@given(mixtures(SCALARS), st.tuples(*[st.floats(0.001, 0.999)] * 2))
def test_intervals_agree_with_the_cdf_and_with_each_other(make, levels):
    mixture = make()
    a, b = (mixture.icdf(torch.tensor(level, dtype=F64)) for level in levels)
    probability, log_probability = mixture.prob_interval(a, b), mixture.log_prob_interval(a, b)
    expected = (mixture.cdf(b) - mixture.cdf(a)).clamp(min=0)
    torch.testing.assert_close(probability, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_probability.exp(), probability, rtol=1e-9, atol=1e-12)
    assert (probability[b <= a] == 0).all()
