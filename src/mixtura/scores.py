"""Scores of predictive distributions: functions of (mixture, y), usable as losses."""

from jaxtyping import Float
from torch import Tensor

from .errors import MixturaError
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
    losses = -mixture.log_prob(y)
    if losses.shape != mixture.batch_shape or (sample_weight is not None and sample_weight.shape != losses.shape):
        # (n, 1) against (n,) would average over n * n pairs
        got = f"y or sample_weight that do not fit the {tuple(mixture.batch_shape)} mixtures one by one"
        raise MixturaError("E-value-shape", got, "one value and one weight for each mixture", "flatten them")
    return losses.mean() if sample_weight is None else (sample_weight * losses).sum() / sample_weight.sum()
