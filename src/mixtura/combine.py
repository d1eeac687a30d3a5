"""New mixtures from old: pools, what is left without light components, and fewer components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import MixturaError
from .families import AnyFamily, VectorFamily, get_family
from .families.triangular import triangle

if TYPE_CHECKING:
    from .mixture import Mixture


def pooled(mixtures: Sequence[Mixture], weights: Tensor | Sequence[float] | None) -> Mixture:
    """One mixture of several; see `Mixture.pool`."""
    if not mixtures:
        raise MixturaError("E-pool-empty", "no mixtures", "at least one", "check how the list is made")
    first = mixtures[0]
    share = torch.ones(len(mixtures)) if weights is None else torch.as_tensor(weights)
    share = share.to(first.logits)
    fits = (
        share.ndim
        and bool(share.isfinite().all())
        and share.shape[-1] == len(mixtures)
        and bool((share >= 0).all() & (share.sum(-1) > 0).all())
    )
    is_alike = all(
        (mixture.family, mixture.event_shape, mixture.dtype) == (first.family, first.event_shape, first.dtype)
        for mixture in mixtures
    )
    if not is_alike or not fits:
        raise MixturaError(
            "E-pool-mismatch",
            f"{mixtures!r} with weights of shape {tuple(share.shape)}",
            "mixtures of one family, event_shape and dtype, with one weight >= 0 for each",
            "make the members alike before pooling them",
        )
    batch_shape = mixtures[0].batch_shape
    for mixture in mixtures:
        batch_shape = mixture._broadcast(batch_shape)
    batch_shape = torch.broadcast_shapes(batch_shape, share.shape[:-1])
    members = [mixture.expand(batch_shape) for mixture in mixtures]
    log_share = (share.log() - share.sum(-1, keepdim=True).log()).expand(*batch_shape, len(members))
    logits = [member.logits + log_share[..., i, None] for i, member in enumerate(members)]
    k = [member.n_components for member in members]
    # All components first, then all atoms.
    logits = [part[..., :n] for part, n in zip(logits, k, strict=True)] + [
        part[..., n:] for part, n in zip(logits, k, strict=True)
    ]
    parts = zip(*(member.family.parameters(member.components) for member in members), strict=True)
    components = first.family.from_parameters(*(torch.cat(part, len(batch_shape)) for part in parts))
    atoms = [member.atoms for member in members if member.atoms is not None]
    return first._with(torch.cat(logits, -1), components, torch.cat(atoms, -1) if atoms else None)


def pruned(mixture: Mixture, threshold: float) -> Mixture:
    """Without light components; see `Mixture.prune`."""
    if not 0 <= threshold < 1:
        raise MixturaError("E-threshold-range", f"threshold={threshold!r}", "0 <= threshold < 1", "give a weight")
    k = mixture.n_components
    weights = mixture.weights[..., :k]
    stays = (weights >= threshold) | (weights == weights.amax(-1, keepdim=True))
    logits = torch.where(stays, mixture.logits[..., :k], -torch.inf)
    somewhere = stays.reshape(-1, k).any(0).nonzero()[:, 0]
    axis = len(mixture.batch_shape)
    components = mixture.family.map(mixture.components, lambda tensor: tensor.index_select(axis, somewhere))
    logits = torch.cat([logits.index_select(-1, somewhere), mixture.logits[..., k:]], -1)
    return mixture._with(logits.log_softmax(-1), components, mixture.atoms)


def reduced(mixture: Mixture, n_components: int) -> Mixture:
    """Fewer components; see `Mixture.reduce`."""
    if mixture.family.name != "normal" or n_components < 1:
        got = f"reduce({n_components!r}) of {mixture.family!r}"
        raise MixturaError("E-reduce", got, "n_components >= 1 of a normal mixture", "prune(threshold) is for all")
    k = mixture.n_components
    if n_components >= k:
        return mixture
    family = mixture.family
    flat = mixture.flat()
    weights, mean = flat.weights[:, :k], flat.components.mean
    if isinstance(family, VectorFamily):
        covariance = family.covariance(flat.components)
    else:
        mean, covariance = mean[..., None], flat.components.variance[..., None, None]
    is_full = family.covariance_type in (None, "full", "low_rank")
    rows = torch.arange(len(flat), device=mean.device)
    for m in range(k, n_components, -1):
        i, j = torch.triu_indices(m, m, 1, device=mean.device)
        total = weights[:, i] + weights[:, j]
        share = (weights[:, j] / total.clamp(min=torch.finfo(mean.dtype).tiny))[..., None]
        gap = mean[:, j] - mean[:, i]
        merged_mean = mean[:, i] + share * gap
        share = share[..., None]
        merged = covariance[:, i] + share * (covariance[:, j] - covariance[:, i])
        merged = merged + share * (1 - share) * gap[..., :, None] * gap[..., None, :]
        log_dets = _log_det(covariance, is_full)
        cost = total * _log_det(merged, is_full) - weights[:, i] * log_dets[:, i] - weights[:, j] * log_dets[:, j]
        best = torch.where(total > 0, 0.5 * cost, -1.0).argmin(-1)
        kept, gone = i[best], j[best]
        mean, covariance, weights = mean.clone(), covariance.clone(), weights.clone()
        mean[rows, kept], covariance[rows, kept] = merged_mean[rows, best], merged[rows, best]
        weights[rows, kept] = total[rows, best]
        stays = torch.ones(len(rows), m, dtype=torch.bool, device=mean.device)
        stays[rows, gone] = False
        mean, covariance, weights = (
            part[stays].unflatten(0, (len(rows), m - 1)) for part in (mean, covariance, weights)
        )
    batch = mixture.batch_shape
    logits = torch.cat([weights.log().reshape(*batch, n_components), mixture.logits[..., k:]], -1)
    target, parameters = _as_components(mixture, mean, covariance)
    components = target.from_parameters(*(part.reshape(*batch, *part.shape[1:]) for part in parameters))
    return mixture._with(logits.log_softmax(-1), components, mixture.atoms)


def _log_det(covariance: Tensor, is_full: bool) -> Tensor:
    """log det of covariances, or of their diagonals alone, which is what a diagonal law keeps."""
    if is_full and covariance.shape[-1] > 1:
        return triangle(covariance).diagonal(dim1=-2, dim2=-1).log().sum(-1) * 2
    return covariance.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _as_components(mixture: Mixture, mean: Tensor, covariance: Tensor) -> tuple[AnyFamily, tuple[Tensor, Tensor]]:
    """The family of merged components, a full one where they were of low rank, and its parameters."""
    kind = mixture.family.covariance_type
    scale = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    if kind is None:
        return mixture.family, (mean[..., 0], scale[..., 0])
    if kind in ("full", "low_rank"):
        return get_family("normal", mean.shape[-1]), (mean, triangle(covariance))
    return mixture.family, (mean, scale)
