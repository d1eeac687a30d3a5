"""What an ensemble knows and does not: total = aleatoric + epistemic uncertainty of a pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .entropy import Estimate
from .errors import MixturaError
from .families import ProductFamily, ScalarFamily
from .mixture import Mixture


@dataclass(frozen=True)
class Decomposition:
    """What the members of an ensemble agree on and what they do not; the total is that of their pool, exactly."""

    total: Float[Tensor, "*batch_event"]
    """Variance of the pool."""
    aleatoric: Float[Tensor, "*batch_event"]
    """Mean of the members' variances: noise in y that more data would not remove."""
    epistemic: Float[Tensor, "*batch_event"]
    """Variance of the members' means: doubt about the model."""
    mutual_information: Estimate
    """Entropy of the pool less the mean entropy of its members, in nats: doubt about the whole density."""


def decompose(
    mixtures: Sequence[Mixture],
    weights: Tensor | Sequence[float] | None = None,
    n_draws: int = 4096,
    generator: torch.Generator | None = None,
) -> Decomposition:
    """Total = aleatoric + epistemic uncertainty of an ensemble, as variances and as entropies.

    Parameters
    ----------
    mixtures, weights
        As for `Mixture.pool`.
    n_draws, generator
        As for `Mixture.entropy`.

    Raises
    ------
    MixturaError
        As `Mixture.pool`; ``E-covariance-angle`` for angles, whose variances do not add up.

    References
    ----------
    Depeweg et al. (2018), Decomposition of uncertainty in Bayesian deep learning.

    Examples
    --------
    >>> from torch.distributions import Normal
    >>> a = Mixture(torch.zeros(1), Normal(torch.tensor([0.0]), 1.0))
    >>> b = Mixture(torch.zeros(1), Normal(torch.tensor([2.0]), 1.0))
    >>> parts = decompose([a, b])
    >>> parts.total.item(), parts.aleatoric.item(), parts.epistemic.item()
    (2.0, 1.0, 1.0)
    """
    pool = Mixture.pool(mixtures, weights)
    families = pool.family.families if isinstance(pool.family, ProductFamily) else (pool.family,)
    if any(isinstance(family, ScalarFamily) and family.is_circular for family in families):
        raise MixturaError(
            "E-covariance-angle", "angles", "coordinates on the line", "ask the mutual information alone"
        )
    share = (torch.ones(len(mixtures)) if weights is None else torch.as_tensor(weights)).to(pool.logits)
    share = share / share.sum(-1, keepdim=True)
    by_member = share.unbind(-1)
    share = share.reshape(*share.shape[:-1], *[1] * len(pool.event_shape), share.shape[-1])
    shape = pool.batch_shape + pool.event_shape
    means, variances = (
        torch.stack([getattr(member, name).expand(shape) for member in mixtures], -1) for name in ("mean", "variance")
    )
    aleatoric = (share * variances).sum(-1)
    epistemic = (share * (means - (share * means).sum(-1, keepdim=True)).square()).sum(-1)
    entropies = [member.entropy(n_draws, generator) for member in mixtures]
    whole = pool.entropy(n_draws, generator)
    value = whole.value - sum(w * part.value for w, part in zip(by_member, entropies, strict=True))
    error = whole.error + sum(w * part.error for w, part in zip(by_member, entropies, strict=True))
    return Decomposition(pool.variance, aleatoric, epistemic, Estimate(value.clamp(min=0), error))
