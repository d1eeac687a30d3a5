"""Entropy of mixtures, which has no closed form: by quadrature of scalar ones, from draws of vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .blocks import check_draws, in_blocks, rows_to_draw
from .families import ScalarFamily
from .families.quadrature import quadrature
from .peaks import whole_numbers

if TYPE_CHECKING:
    from .mixture import Mixture

ROWS_TO_INTEGRATE = 64
"""In a block: each row has about 2,000 nodes."""


class Estimate(NamedTuple):
    """A number that is not exact, and how far it may be off."""

    value: Tensor
    error: Tensor
    """By quadrature, the difference to a coarser rule; from draws, one standard error."""


def entropy(mixture: Mixture, n_draws: int, generator: torch.Generator | None, n_points: int | None = None) -> Estimate:
    """-E[log p(Y)] in nats; see `Mixture.entropy`.

    Parameters
    ----------
    n_points
        Of a scalar mixture of many components, between how many of their quantiles to integrate; None for all.
    """
    family = mixture.family
    if not isinstance(family, ScalarFamily):
        check_draws(n_draws, 2)
        own = generator or mixture.own_generator()

        def drawn(rows: Mixture) -> Tensor:
            surprise = -rows.log_prob(rows.sample((n_draws,), own))
            return torch.stack([surprise.mean(0), surprise.std(0) / n_draws**0.5])

        with torch.no_grad():
            return Estimate(*in_blocks(drawn, mixture, block=rows_to_draw(mixture, n_draws)))

    def answer(rows: Mixture) -> Tensor:
        if family.is_discrete:
            _, mass = whole_numbers(family, rows.flat())
            total = -torch.special.xlogy(mass, mass).sum(-1).reshape(rows.batch_shape)
            return torch.stack([total, torch.full_like(total, 1e-10)], -1)  # 2e-12 of the probability is left out
        inner = rows.continuous
        finer, coarser = (_integral(family, inner, n_nodes, n_points) for n_nodes in (12, 8))
        value, error = finer, (finer - coarser).abs()
        if rows.atoms is not None:
            weights = rows.merged_atoms().weights
            merged, share = weights[..., rows.n_components :], weights[..., : rows.n_components].sum(-1)
            value = share * finer - torch.special.xlogy(share, share) - torch.special.xlogy(merged, merged).sum(-1)
            error = share * error
        return torch.stack([value, error], -1)

    return Estimate(*in_blocks(answer, mixture, n_event_axes=1, block=ROWS_TO_INTEGRATE).unbind(-1))


def _integral(family: ScalarFamily, mixture: Mixture, n_nodes: int, n_points: int | None) -> Tensor:
    fewer = {} if n_points is None else {"weights": mixture.weights, "n_points": n_points}
    nodes, weights = quadrature(family, mixture.components, n_nodes=n_nodes, **fewer)
    log_prob = mixture.log_prob(nodes)
    return -(weights * torch.where(log_prob > -torch.inf, log_prob.exp() * log_prob, 0)).sum(0)
