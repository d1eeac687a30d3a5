"""Scores of predictive distributions: functions of (mixture, y), usable as losses.

Every score is lower for a better forecast, is proper, and comes as the mean over rows, weighted where weights are
given, or row by row with ``reduction="none"``. All are differentiable. `pit`, `hdr_level` and `rosenblatt` are no
scores: they say where y lies in its forecast, and are uniform where the forecasts are right.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from .blocks import check_draws, in_blocks, rows_to_draw
from .entropy import ROWS_TO_INTEGRATE
from .errors import MixturaError
from .families import ScalarFamily, VectorFamily
from .families.normal import normal_log_density
from .families.quadrature import quadrature
from .families.triangular import triangle, whiten
from .mixture import Mixture
from .peaks import whole_numbers
from .regions import denser_mass

Reduction = Literal["mean", "none"]


def nll(
    mixture: Mixture, y: Tensor, sample_weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Float[Tensor, "..."]:
    """Negative log-likelihood, in nats: -log p(y). It may be negative.

    With one normal component it is heteroscedastic regression, log scale + (y - loc)^2 / (2 scale^2) + log(2 pi)/2.
    Its gradient needs only the responsibilities r_k: d/d logits = weights - r, d/d log p_k = -r_k.
    With atoms it mixes densities with masses: compare it only between models with the same atoms.

    Parameters
    ----------
    mixture
        A batch of mixtures.
    y
        Observations, shape batch_shape + event_shape.
    sample_weight
        Shape batch_shape, not negative; the mean becomes sum(w * nll) / sum(w).
    reduction
        ``"mean"``, or ``"none"`` for one value for each mixture, not weighted.

    Raises
    ------
    MixturaError
        ``E-value-shape`` for y or weights of another shape.

    References
    ----------
    Bishop (1994), Mixture density networks, NCRG/94/004, eqs. 29 and 33.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> standard = Mixture(torch.zeros(1, 1), Normal(torch.zeros(1, 1), torch.ones(1, 1)))
    >>> nll(standard, torch.zeros(1))
    tensor(0.9189)
    """
    return _reduced(-mixture.log_prob(y), mixture, sample_weight, reduction)


def censored_nll(
    mixture: Mixture,
    lower: Tensor,
    upper: Tensor,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "..."]:
    """Negative log-likelihood of a scalar target of which only an interval is known, in nats.

    Parameters
    ----------
    lower, upper
        Ends of the interval, both included, shape batch_shape: equal where y is known, -inf or inf where it is censored
        on that side.
    sample_weight, reduction
        As for `nll`.

    Raises
    ------
    MixturaError
        ``E-scalar-only``, ``E-value-shape``, ``E-interval-order`` where lower > upper.

    References
    ----------
    Tobin (1958), Estimation of relationships for limited dependent variables.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> standard = Mixture(torch.zeros(2, 1), Normal(torch.zeros(2, 1), torch.ones(2, 1)))
    >>> censored_nll(standard, torch.tensor([0.0, 0.0]), torch.tensor([0.0, torch.inf]), reduction="none")
    tensor([0.9189, 0.6931])
    """
    if bool((lower > upper).any()):
        got = "an interval with lower > upper"
        raise MixturaError("E-interval-order", got, "lower <= upper", "exchange the two")
    is_known = lower == upper
    # Where one is not asked, it is asked at harmless values: no NaN enters the gradient.
    anywhere = mixture.detach().continuous.components.mean[..., 0]
    if isinstance(mixture.family, ScalarFamily) and mixture.family.is_discrete:
        anywhere = anywhere.round()
    log_density = mixture.log_prob(torch.where(is_known, lower, anywhere))
    below = torch.nextafter(lower, torch.full_like(lower, -torch.inf))
    if isinstance(mixture.family, ScalarFamily) and mixture.family.is_discrete:
        below = lower.ceil() - 1
    low, high = torch.where(is_known, -torch.inf, below), torch.where(is_known, torch.inf, upper)
    losses = -torch.where(is_known, log_density, mixture.log_prob_interval(low, high))
    return _reduced(losses, mixture, sample_weight, reduction)


def crps(
    mixture: Mixture, y: Tensor, sample_weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Float[Tensor, "..."]:
    """Continuous ranked probability score, E|X - y| - E|X - X'|/2, in units of a scalar target.

    It is the integral of the squared difference between the cdf and the step at y, and the absolute error of a forecast
    without spread. In closed form, pair by pair of components, for normal, Laplace, asymmetric Laplace and log-normal
    mixtures, atoms included, and by summation for counts; of other families by quadrature, with a relative error below
    1e-8 (1e-5 with tails as heavy as those of a student_t with 1.05 degrees of freedom; of more than seven components
    from fewer points, 1e-7 as a rule, 1e-4 where a hundred sharp ones stand apart).
    Of an angle it is that of the number between the two ends of its support.

    Parameters
    ----------
    mixture
        A batch of scalar mixtures.
    y
        Observations, shape batch_shape.
    sample_weight, reduction
        As for `nll`.

    Raises
    ------
    MixturaError
        ``E-scalar-only`` for a vector target, ``E-value-shape`` for y or weights of another shape.

    References
    ----------
    Gneiting and Raftery (2007), section 4.2; Grimit et al. (2006), eq. 5, for normal mixtures.

    Examples
    --------
    >>> import torch
    >>> from torch.distributions import Normal
    >>> standard = Mixture(torch.zeros(1, 1), Normal(torch.zeros(1, 1), torch.ones(1, 1)))
    >>> round(crps(standard, torch.tensor([0.3])).item(), 4)
    0.2693
    """
    family = _scalar(mixture, "crps")
    _check_rows(mixture, y)
    if family.is_discrete:
        losses = in_blocks(partial(_crps_by_summation, family), mixture, y, block=ROWS_TO_INTEGRATE)
    elif family.has_distances:
        losses = in_blocks(partial(_crps_of_pairs, family), mixture, y)
    else:
        losses = in_blocks(partial(_crps_by_quadrature, family), mixture, y, block=ROWS_TO_INTEGRATE)
    return _reduced(losses, mixture, sample_weight, reduction)


def _crps_of_pairs(family: ScalarFamily, mixture: Mixture, y: Tensor) -> Tensor:
    k = mixture.n_components
    # Components first, so that a range of them is one piece of memory.
    weights = mixture.weights.movedim(-1, 0).contiguous()
    weights, masses = weights[:k], weights[k:]
    components = family.map(mixture.components, lambda tensor: tensor.movedim(-1, 0).contiguous())
    distance = (weights * family.mean_distance(components, y)).sum(0)
    spread = torch.zeros_like(distance)
    for shift in range(k):  # all pairs (j, j + shift), so that nothing of size K * K is held
        first = family.map(components, lambda tensor, n=k - shift: tensor[:n])
        second = family.map(components, lambda tensor, start=shift: tensor[start:])
        pairs = weights[: k - shift] * weights[shift:] * family.mean_difference(first, second)
        spread = spread + (0.5 if shift == 0 else 1.0) * pairs.sum(0)
    if mixture.atoms is not None:
        atoms = mixture.atoms.movedim(-1, 0)
        distance = distance + (masses * (atoms - y).abs()).sum(0)
        for atom, mass in zip(atoms, masses, strict=True):
            to_atom = (weights * family.mean_distance(components, atom)).sum(0)
            spread = spread + mass * (to_atom + 0.5 * (masses * (atoms - atom).abs()).sum(0))
    return distance - spread


def _crps_by_quadrature(family: ScalarFamily, mixture: Mixture, y: Tensor) -> Tensor:
    """The integral of F^2 below y and of (1 - F)^2 above."""
    breaks = y.detach().unsqueeze(-1)
    if mixture.atoms is not None:
        breaks = torch.cat([breaks, mixture.atoms], -1)
    nodes, weights = quadrature(
        family, mixture.components, breaks, weights=mixture.weights[..., : mixture.n_components]
    )
    part = torch.where(nodes < y.detach(), mixture.cdf(nodes), mixture.survival(nodes))
    loss = (weights * part.square()).sum(0)
    if y.requires_grad:  # d/dy is F^2 - (1 - F)^2; the nodes stay where they are
        loss = loss + (2 * mixture.cdf(y.detach()) - 1).detach() * (y - y.detach())
    if mixture.atoms is not None and mixture.atoms.requires_grad:  # F jumps there by the mass
        atoms = mixture.atoms.detach()
        at = atoms.movedim(-1, 0)
        step = (at >= y.detach()).to(y)
        after, before = mixture.cdf(at) - step, 1 - mixture.survival(at) - step
        loss = loss + ((before.square() - after.square()).detach().movedim(0, -1) * (mixture.atoms - atoms)).sum(-1)
    return loss


def _crps_by_summation(family: ScalarFamily, mixture: Mixture, y: Tensor) -> Tensor:
    """The same over the whole numbers; beyond those that have any probability it grows by the distance."""
    if not y.numel():
        return torch.zeros_like(y)
    flat = mixture.flat()
    flat_y = y.reshape(-1)
    numbers, _ = whole_numbers(family, flat.detach())
    inside = flat_y.clamp(numbers[0].item(), numbers[-1].item())
    at = numbers[:, None]
    part = torch.where(at < inside, flat.cdf(at), 1 - flat.cdf(at))
    return (part.square().sum(0) + (flat_y - inside).abs()).reshape(y.shape)


def quantile_loss(
    mixture: Mixture,
    y: Tensor,
    level: float,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "..."]:
    """Pinball loss of one quantile q of a scalar target, (1{y < q} - level) (q - y), in its units.

    Parameters
    ----------
    level
        In (0, 1).
    y, sample_weight, reduction
        As for `crps`.

    References
    ----------
    Koenker and Bassett (1978), Regression quantiles.
    """
    _scalar(mixture, "quantile_loss")
    _check_rows(mixture, y)
    gap = mixture.icdf(_level(level)).to(mixture.dtype) - y
    return _reduced(torch.where(gap > 0, (1 - level) * gap, -level * gap), mixture, sample_weight, reduction)


def interval_score(
    mixture: Mixture,
    y: Tensor,
    level: float,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "..."]:
    """Of the central interval with probability `level`: its length plus 2/(1 - level) times how far y is outside.

    Parameters
    ----------
    level
        In (0, 1).
    y, sample_weight, reduction
        As for `crps`.

    References
    ----------
    Gneiting and Raftery (2007), section 6.2.
    """
    _scalar(mixture, "interval_score")
    _check_rows(mixture, y)
    tail = 0.5 * (1 - _level(level).item())
    lower, upper = (mixture.icdf(_level(end)).to(mixture.dtype) for end in (tail, 1 - tail))
    outside = (lower - y).clamp(min=0) + (y - upper).clamp(min=0)
    return _reduced(upper - lower + outside / tail, mixture, sample_weight, reduction)


def dss(
    mixture: Mixture, y: Tensor, sample_weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Float[Tensor, "..."]:
    """Dawid-Sebastiani score: log det of the covariance plus the squared Mahalanobis distance of y from the mean.

    Infinite where the law has no variance.

    Parameters
    ----------
    y, sample_weight, reduction
        As for `nll`.

    References
    ----------
    Dawid and Sebastiani (1999), Coherent dispersion criteria for optimal experimental design.
    """
    _check_rows(mixture, y)
    if isinstance(mixture.family, ScalarFamily):
        variance = mixture.variance
        return _reduced(variance.log() + (y - mixture.mean).square() / variance, mixture, sample_weight, reduction)
    covariance = mixture.covariance
    is_finite = covariance.isfinite().all(-1).all(-1)
    unit = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    scale_tril = triangle(torch.where(is_finite[..., None, None], covariance, unit))
    log_det = 2 * scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    distance = whiten(scale_tril, torch.where(is_finite[..., None], y - mixture.mean, 0)).square().sum(-1)
    score = torch.where(is_finite, log_det + distance, torch.inf)
    return _reduced(score, mixture, sample_weight, reduction)


def cde_loss(
    mixture: Mixture, y: Tensor, sample_weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Float[Tensor, "..."]:
    """The integral of the squared density less 2 p(y): the integrated squared error of the density up to a constant.

    In closed form for normal mixtures; of other scalar families by quadrature; of counts by summation. It is infinite,
    and comes out as some huge number, where a density grows as fast as distance^(-1/2) towards an end of the support
    (gamma and beta laws with a concentration of 1/2 or less).

    Parameters
    ----------
    y, sample_weight, reduction
        As for `nll`.

    Raises
    ------
    MixturaError
        ``E-not-continuous`` with atoms, where it is infinite, ``E-score-family`` for vectors that are not normal.

    References
    ----------
    Izbicki and Lee (2016), Nonparametric conditional density estimation in a high-dimensional regression setting.
    """
    _check_rows(mixture, y)
    family = mixture.family
    if mixture.atoms is not None:
        got, fix = "cde_loss of a law with atoms", "score .continuous, the mixture without its atoms"
        raise MixturaError("E-not-continuous", got, "a continuous law", fix)
    if family.name == "normal":
        square = in_blocks(_squared_normal, mixture)
    elif not isinstance(family, ScalarFamily):
        got, fix = f"cde_loss of {family!r}", "score the margins, or take energy_score"
        raise MixturaError("E-score-family", got, "a scalar or a normal law", fix)
    elif family.is_discrete:
        square = in_blocks(partial(_squared_masses, family), mixture, block=ROWS_TO_INTEGRATE)
    else:
        square = in_blocks(partial(_squared_density, family), mixture, block=ROWS_TO_INTEGRATE)
    return _reduced(square - 2 * mixture.log_prob(y).exp(), mixture, sample_weight, reduction)


def _squared_normal(mixture: Mixture) -> Tensor:
    """Sum over pairs of w_j w_k N(loc_j; loc_k, C_j + C_k)."""
    k, family = mixture.n_components, mixture.family
    total = torch.zeros(mixture.batch_shape, dtype=mixture.dtype, device=mixture.device)
    is_vector = isinstance(family, VectorFamily)
    covariance = family.covariance(mixture.components) if is_vector else mixture.components.variance
    loc = mixture.components.mean
    for shift in range(k):
        weights = mixture.weights[..., : k - shift] * mixture.weights[..., shift:]
        if is_vector:
            gap = loc[..., shift:, :] - loc[..., : k - shift, :]
            scale_tril = torch.linalg.cholesky(covariance[..., : k - shift, :, :] + covariance[..., shift:, :, :])
            log_diagonal = scale_tril.diagonal(dim1=-2, dim2=-1).log()
            log_density = normal_log_density(whiten(scale_tril, gap), log_diagonal).sum(-1)
        else:
            scale = (covariance[..., : k - shift] + covariance[..., shift:]).sqrt()
            log_density = normal_log_density((loc[..., shift:] - loc[..., : k - shift]) / scale, scale.log())
        total = total + (1.0 if shift == 0 else 2.0) * (weights * log_density.exp()).sum(-1)
    return total


def _squared_density(family: ScalarFamily, mixture: Mixture) -> Tensor:
    nodes, weights = quadrature(family, mixture.components)
    # One exponential: in float32 a density that is infinite at an end overflows when squared.
    log_share = 2 * mixture.log_prob(nodes) + torch.where(weights > 0, weights, 1).log()
    return torch.where(weights > 0, log_share, -torch.inf).exp().sum(0)


def _squared_masses(family: ScalarFamily, mixture: Mixture) -> Tensor:
    if not mixture.batch_shape.numel():
        return torch.zeros(mixture.batch_shape, dtype=mixture.dtype, device=mixture.device)
    flat = mixture.flat()
    return whole_numbers(family, flat)[1].square().sum(-1).reshape(mixture.batch_shape)


def brier(
    mixture: Mixture,
    y: Tensor,
    threshold: float,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Float[Tensor, "..."]:
    """Brier score of the event Y >= threshold of a scalar target: (P(Y >= threshold) - 1{y >= threshold})^2.

    Parameters
    ----------
    threshold
        In units of the target.
    y, sample_weight, reduction
        As for `crps`.

    References
    ----------
    Brier (1950), Verification of forecasts expressed in terms of probability.
    """
    _scalar(mixture, "brier")
    _check_rows(mixture, y)
    happened = (y >= threshold).to(mixture.dtype)
    return _reduced((mixture.survival(threshold) - happened).square(), mixture, sample_weight, reduction)


# Scores of vectors ---------------------------------------------------------------------------------------------


def energy_score(
    mixture: Mixture,
    y: Tensor,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
    n_draws: int = 32,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "..."]:
    """E|X - y| - E|X - X'|/2 with Euclidean distances of vectors, in units of the target: the CRPS of vectors.

    An unbiased estimate from draws of every component, weighted by the mixing weights, so that it is differentiable in
    these too (as far as the draws are in the components: not for angles).

    Parameters
    ----------
    y, sample_weight, reduction
        As for `nll`.
    n_draws
        Of each component, at least 2.
    generator
        Without one, always the same draws.

    Raises
    ------
    MixturaError
        ``E-vector-only`` for a scalar target, whose score is `crps`.

    References
    ----------
    Gneiting and Raftery (2007), section 4.3.
    """
    _vector(mixture, "energy_score", "take crps")
    _check_rows(mixture, y)
    check_draws(n_draws, 2)
    draws = _drawn(generator, n_draws, mixture)

    def answer(rows: Mixture, y: Tensor) -> Tensor:
        x = draws(rows)  # (*B, K * n, D)
        share = (rows.weights / n_draws).repeat_interleave(n_draws, -1)
        distance = (share * torch.linalg.vector_norm(x - y.unsqueeze(-2), dim=-1)).sum(-1)
        between = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
        # Pairs within a component: n (n - 1) of them are of different draws.
        blocks = between.unflatten(-1, (rows.n_components, n_draws)).unflatten(-3, (rows.n_components, n_draws))
        means = blocks.sum((-3, -1)) / n_draws**2
        own = torch.eye(rows.n_components, dtype=x.dtype, device=x.device) * (n_draws / (n_draws - 1) - 1) + 1
        return distance - 0.5 * (rows.weights[..., :, None] * rows.weights[..., None, :] * means * own).sum((-2, -1))

    block = max(1, 2_000_000 // (mixture.n_components * n_draws) ** 2)
    return _reduced(in_blocks(answer, mixture, y, block=block), mixture, sample_weight, reduction)


def variogram_score(
    mixture: Mixture,
    y: Tensor,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
    power: float = 0.5,
    n_draws: int = 256,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "..."]:
    """Sum over pairs of coordinates of (|y_i - y_j|^p - E|X_i - X_j|^p)^2: sensitive to their dependence.

    The expectations come from draws of every component, weighted by the mixing weights; that adds their variance over
    n_draws to the score.

    Parameters
    ----------
    y, sample_weight, reduction
        As for `nll`.
    power
        p > 0.
    n_draws
        Of each component.
    generator
        Without one, always the same draws.

    Raises
    ------
    MixturaError
        ``E-vector-only`` for a scalar target.

    References
    ----------
    Scheuerer and Hamill (2015), Variogram-based proper scoring rules.
    """
    _vector(mixture, "variogram_score", "a single coordinate has no variogram")
    _check_rows(mixture, y)
    check_draws(n_draws, 1)
    if not power > 0:
        raise MixturaError("E-variogram-power", f"power={power!r}", "power > 0", "0.5 is usual")
    draws = _drawn(generator, n_draws, mixture)

    def answer(rows: Mixture, y: Tensor) -> Tensor:
        x = draws(rows)
        share = (rows.weights / n_draws).repeat_interleave(n_draws, -1)[..., None, None]
        expected = (share * _power(x[..., :, None] - x[..., None, :], power)).sum(-3)
        return (_power(y[..., :, None] - y[..., None, :], power) - expected).square().sum((-2, -1)) / 2

    block = max(1, 2_000_000 // (mixture.n_components * n_draws * y.shape[-1] ** 2))
    return _reduced(in_blocks(answer, mixture, y, block=block), mixture, sample_weight, reduction)


def _power(gap: Tensor, power: float) -> Tensor:
    """|gap|^power, without an infinite gradient at 0."""
    is_zero = gap == 0
    return torch.where(is_zero, 0, torch.where(is_zero, 1, gap).abs() ** power)


def _drawn(generator: torch.Generator | None, n_draws: int, mixture: Mixture) -> Callable[[Mixture], Tensor]:
    """Draws of every component of some rows, shape (*B, K * n, D), with gradient."""
    generator = generator or mixture.own_generator()

    def draw(rows: Mixture) -> Tensor:
        many = rows.family.map(rows.components, lambda tensor: tensor.expand(n_draws, *tensor.shape))
        return rows.family.sample(many, generator).movedim(0, -2).flatten(-3, -2)

    return draw


# Where y lies in its forecast ----------------------------------------------------------------------------------


@torch.no_grad()
def pit(mixture: Mixture, y: Tensor, generator: torch.Generator | None = None) -> Float[Tensor, "..."]:
    """Probability integral transform F(y) of a scalar target, uniform where the forecasts are calibrated.

    At atoms and of counts it is drawn uniformly between P(Y < y) and P(Y <= y).

    Parameters
    ----------
    y
        Shape batch_shape.
    generator
        Without one, always the same draws.

    Returns
    -------
    Tensor
        Shape batch_shape, in [0, 1].

    References
    ----------
    Czado, Gneiting and Held (2009), Predictive model assessment for count data.
    """
    family = _scalar(mixture, "pit")
    _check_rows(mixture, y)
    cdf = mixture.cdf(y)
    if mixture.atoms is None and not family.is_discrete:
        return cdf
    before = 1 - mixture.survival(y)
    generator = generator or mixture.own_generator()
    u = torch.rand(cdf.shape, dtype=cdf.dtype, device=cdf.device, generator=generator)
    return torch.where(cdf - before > 1e-14, before + u * (cdf - before), cdf)


@torch.no_grad()
def hdr_level(
    mixture: Mixture, y: Tensor, n_draws: int = 4096, generator: torch.Generator | None = None
) -> Float[Tensor, "..."]:
    """P(p(Y) > p(y)), the level of the highest-density region with y on its edge: the PIT of any dimension.

    Exact for a scalar target, from draws for a vector one. Uniform where a continuous forecast is calibrated.

    Parameters
    ----------
    y
        Shape batch_shape + event_shape.
    n_draws, generator
        For a vector target; without a generator always the same draws.

    Returns
    -------
    Tensor
        Shape batch_shape, in [0, 1].

    References
    ----------
    Dey et al. (2022), and Izbicki, Shimizu and Stern (2022), section 3, for the highest predictive density value.
    """
    _check_rows(mixture, y)
    family = mixture.family
    if isinstance(family, ScalarFamily):
        flat = mixture.flat()
        answer = in_blocks(partial(denser_mass, family), flat.detach(), y.reshape(-1).to(mixture.dtype), block=1024)
        return answer.reshape(y.shape)
    check_draws(n_draws, 1)
    own = generator or mixture.own_generator()

    def drawn(rows: Mixture, y: Tensor) -> Tensor:
        return (rows.log_prob(rows.sample((n_draws,), own)) > rows.log_prob(y)).to(rows.dtype).mean(0)

    return in_blocks(drawn, mixture, y, block=rows_to_draw(mixture, n_draws))


@torch.no_grad()
def rosenblatt(mixture: Mixture, y: Tensor, generator: torch.Generator | None = None) -> Float[Tensor, "..."]:
    """F(y_1), F(y_2 | y_1), ...: of a vector, independent uniforms where the forecasts are calibrated.

    Of counts it is drawn, as by `pit`.

    Parameters
    ----------
    y
        Shape batch_shape + (D,).
    generator
        Without one, always the same draws.

    Returns
    -------
    Tensor
        Shape batch_shape + (D,), in [0, 1].

    Raises
    ------
    MixturaError
        ``E-vector-only`` for a scalar target, whose transform is `pit`; ``E-condition-density`` where the first
        coordinates have no density.

    References
    ----------
    Rosenblatt (1952), Remarks on a multivariate transformation.
    """
    _vector(mixture, "rosenblatt", "take pit")
    _check_rows(mixture, y)
    generator = generator or mixture.own_generator()
    levels = [pit(mixture.marginal(0), y[..., 0], generator)]
    for dim in range(1, y.shape[-1]):
        given = mixture.marginal(list(range(dim + 1))).condition(list(range(dim)), y[..., :dim])
        levels.append(pit(given, y[..., dim], generator))
    return torch.stack(levels, -1)


# Checks --------------------------------------------------------------------------------------------------------


def _scalar(mixture: Mixture, score: str) -> ScalarFamily:
    if isinstance(mixture.family, ScalarFamily):
        return mixture.family
    fix = "score one coordinate, mixture.marginal(dim)"
    raise MixturaError("E-scalar-only", f"{score} of a vector target", "a scalar target", fix)


def _vector(mixture: Mixture, score: str, fix: str) -> None:
    if not isinstance(mixture.family, VectorFamily):
        raise MixturaError("E-vector-only", f"{score} of a scalar target", "a vector target", fix)


def _level(level: float) -> Tensor:
    if not 0 < level < 1:
        raise MixturaError("E-coverage-range", f"level={level!r}", "0 < level < 1", "0.9 means 90%")
    return torch.tensor(level, dtype=torch.float64)


def _check_rows(mixture: Mixture, values: Tensor) -> None:
    if values.shape != mixture.batch_shape + mixture.event_shape:
        # (n, 1) against (n,) would average over n * n pairs
        shape = tuple(mixture.batch_shape + mixture.event_shape)
        got, expected = f"y of shape {tuple(values.shape)}", f"shape {shape}, one for each mixture"
        raise MixturaError("E-value-shape", got, expected, "flatten y, or expand the mixture")


def _reduced(losses: Tensor, mixture: Mixture, sample_weight: Tensor | None, reduction: str) -> Tensor:
    """One loss for each mixture, or their mean."""
    if losses.shape != mixture.batch_shape or (sample_weight is not None and sample_weight.shape != losses.shape):
        got = f"y or sample_weight that do not fit the {tuple(mixture.batch_shape)} mixtures one by one"
        raise MixturaError("E-value-shape", got, "one value and one weight for each mixture", "flatten them")
    if reduction not in ("mean", "none"):
        raise MixturaError("E-reduction", f"reduction={reduction!r}", "'mean' or 'none'", "choose one")
    if reduction == "none":
        return losses
    return losses.mean() if sample_weight is None else (sample_weight * losses).sum() / sample_weight.sum()
