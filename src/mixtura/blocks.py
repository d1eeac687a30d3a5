"""Many rows in blocks: what a processor's cache holds is fast, and memory stays bounded whatever the number of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .batch import MixtureBatch

ROWS_IN_A_BLOCK = 16_384
"""Of 10 components in float64 they fill about a megabyte for each parameter."""
_TEACHES_MALLOC = 2**25 - 2**16
"""Bytes. glibc hands freed memory back to the system, to be fetched again page by page for the next temporary of the
same size (12 times the time of a division), until something as large as this, up to 32 MiB, has once been freed."""


def in_blocks(
    answer: Callable[..., Tensor],
    mixture: MixtureBatch,
    *values: Tensor,
    n_event_axes: int = 0,
    block: int = ROWS_IN_A_BLOCK,
) -> Tensor:
    """`answer(mixture, *values)`, computed for blocks of the batch's longest axis where there are many rows.

    Where a gradient is asked for, all rows are computed at once: their graph has to be kept anyway.

    Parameters
    ----------
    answer
        Row by row: what it says of a row does not depend on the others. Its result has shape (*S, *B), followed by
        `n_event_axes` axes.
    values
        Shape (*S, *B) + event_shape of the mixture, broadcasting against the batch.
    block
        How many answers are computed at once.
    """
    batch_shape = mixture.batch_shape
    blocks = _row_blocks(mixture, values, block)
    if len(blocks) == 1:
        return answer(mixture, *values)
    torch.empty(_TEACHES_MALLOC, dtype=torch.uint8)
    axis = batch_shape.index(max(batch_shape))
    from_the_right = axis - len(batch_shape)
    n_value_event_axes = len(mixture.event_shape)

    def rows_of(value: Tensor, rows: slice) -> Tensor:
        place = value.ndim - n_value_event_axes + from_the_right
        if place < 0 or value.shape[place] == 1:
            return value
        return value.narrow(place, rows.start, rows.stop - rows.start)

    leading = (slice(None),) * axis
    parts = [answer(mixture[(*leading, rows)], *(rows_of(value, rows) for value in values)) for rows in blocks]
    return torch.cat(parts, parts[0].ndim - n_event_axes + from_the_right)


def _row_blocks(mixture: MixtureBatch, values: tuple[Tensor, ...], block: int) -> list[slice]:
    """Slices of the longest batch axis, each of about `block` answers; one where there is no need."""
    batch_shape = mixture.batch_shape
    n_answers = torch.broadcast_shapes(
        batch_shape, *(value.shape[: value.ndim - len(mixture.event_shape)] for value in values)
    ).numel()
    needs_graph = mixture.needs_graph() or (torch.is_grad_enabled() and any(value.requires_grad for value in values))
    if not batch_shape or n_answers <= block or needs_graph:
        return [slice(None)]
    longest = max(batch_shape)
    step = max(1, longest * block // n_answers)
    return [slice(start, min(start + step, longest)) for start in range(0, longest, step)]
