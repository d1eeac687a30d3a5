"""Scores of predictive distributions: functions of (mixture, y), usable as losses."""

import torch
from jaxtyping import Float
from torch import Tensor

from .errors import MixturaError
from .families import ScalarFamily
from .mixture import Mixture


def nll(mixture: Mixture, y: Tensor, sample_weight: Tensor | None = None) -> Float[Tensor, ""]:
    """Mean negative log-likelihood, in nats: -mean(log p(y)). Lower is better; it may be negative.

    With one normal component it is heteroscedastic regression, log scale + (y - loc)^2 / (2 scale^2) + log(2 pi)/2.
    Its gradient needs only the responsibilities r_k: d/d logits = weights - r, d/d log p_k = -r_k.

    Parameters
    ----------
    mixture
        A batch of mixtures.
    y
        Observations, shape batch_shape + event_shape.
    sample_weight
        Shape batch_shape, not negative; the mean becomes sum(w * nll) / sum(w).

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
    return _weighted_mean(-mixture.log_prob(y), mixture, sample_weight)


def crps(mixture: Mixture, y: Tensor, sample_weight: Tensor | None = None) -> Float[Tensor, ""]:
    """Mean continuous ranked probability score, E|X - y| - E|X - X'|/2, in units of a scalar target. Lower is better.

    It is the integral of the squared difference between the cdf and the step at y, and the absolute error of a forecast
    without spread. In closed form, pair by pair of components.

    Parameters
    ----------
    mixture
        A batch of scalar mixtures.
    y
        Observations, shape batch_shape.
    sample_weight
        Shape batch_shape, not negative.

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
    family, weights, k = mixture.family, mixture.weights, mixture.n_components
    if not isinstance(family, ScalarFamily):
        fix = "score one coordinate, mixture.marginal(dim)"
        raise MixturaError("E-scalar-only", "crps of a vector target", "a scalar target", fix)
    distance = (weights * family.mean_distance(mixture.components, y.unsqueeze(-1))).sum(-1)
    spread = torch.zeros_like(distance)
    for shift in range(k):  # all pairs (j, j + shift), so that nothing of size K * K is held
        first = family.map(mixture.components, lambda tensor, n=k - shift: tensor[..., :n])
        second = family.map(mixture.components, lambda tensor, start=shift: tensor[..., start:])
        pairs = weights[..., : k - shift] * weights[..., shift:] * family.mean_difference(first, second)
        spread = spread + (0.5 if shift == 0 else 1.0) * pairs.sum(-1)
    return _weighted_mean(distance - spread, mixture, sample_weight)


def _weighted_mean(losses: Tensor, mixture: Mixture, sample_weight: Tensor | None) -> Tensor:
    """The mean over rows of one loss for each mixture."""
    if losses.shape != mixture.batch_shape or (sample_weight is not None and sample_weight.shape != losses.shape):
        # (n, 1) against (n,) would average over n * n pairs
        got = f"y or sample_weight that do not fit the {tuple(mixture.batch_shape)} mixtures one by one"
        raise MixturaError("E-value-shape", got, "one value and one weight for each mixture", "flatten them")
    return losses.mean() if sample_weight is None else (sample_weight * losses).sum() / sample_weight.sum()
