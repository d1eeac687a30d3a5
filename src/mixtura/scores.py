"""Scores of predictive distributions: functions of (mixture, y), usable as losses."""

from jaxtyping import Float
from torch import Tensor

from .mixture import Mixture


def nll(mixture: Mixture, y: Tensor, sample_weight: Tensor | None = None) -> Float[Tensor, ""]:
    """Mean negative log-likelihood, in nats: -mean(log p(y)). Lower is better; it may be negative.

    With one normal component it is heteroscedastic regression, log scale + (y - loc)^2 / (2 scale^2) + log(2 pi)/2.
    Its gradient needs only the responsibilities r_k: d/d logits = weights - r, d/d log p_k = -r_k.

    Parameters
    ----------
    mixture : a batch of mixtures.
    y : observations, shape batch_shape + event_shape.
    sample_weight : shape batch_shape, not negative; the mean becomes sum(w * nll) / sum(w).

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
    losses = -mixture.log_prob(y)
    return losses.mean() if sample_weight is None else (sample_weight * losses).sum() / sample_weight.sum()
