"""Many rows in blocks: what a processor's cache holds is fast, and memory stays bounded whatever the number of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .errors import MixturaError

if TYPE_CHECKING:
    from .batch import MixtureBatch

ROWS_IN_A_BLOCK = 16_384
"""Of 10 components in float64 they fill about a megabyte for each parameter."""
_TEACHES_MALLOC = 2**25 - 2**16
"""Bytes. glibc hands freed memory back to the system, to be fetched again page by page for the next temporary of the
same size (12 times the time of a division), until something as large as this, up to 32 MiB, has once been freed."""

_NUMBERS_AT_ONCE = 2**22
"""Of draws and their densities, about 32 MiB."""


def broadcast_shapes(*shapes: torch.Size) -> torch.Size:
    """The same as torch's, which takes as long as a small network's layer even where all shapes are equal."""
    first = shapes[0]
    return first if all(shape == first for shape in shapes) else torch.broadcast_shapes(*shapes)


def rows_to_draw(mixture: MixtureBatch, n_draws: int) -> int:
    """How many rows of a mixture to draw from at once."""
    return max(1, _NUMBERS_AT_ONCE // (n_draws * mixture.n_components * mixture.event_shape.numel()))


def check_draws(n_draws: int, least: int) -> None:
    """Raise ``E-draws`` where an answer by draws is asked with fewer than it needs."""
    if not isinstance(n_draws, int) or n_draws < least:
        raise MixturaError("E-draws", f"n_draws={n_draws!r}", f"an integer >= {least}", "ask for more draws")


def in_blocks(
    answer: Callable[..., Tensor],
    mixture: MixtureBatch,
    *values: Tensor,
    n_event_axes: int = 0,
    block: int = ROWS_IN_A_BLOCK,
) -> Tensor:
    """`answer(mixture, *values)`, computed for blocks of the longest axis where there are many answers.

    Where a gradient is asked for, all are computed at once: their graph has to be kept anyway.

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
    batch_shape, n_value_event_axes = mixture.batch_shape, len(mixture.event_shape)
    shape = broadcast_shapes(batch_shape, *(value.shape[: value.ndim - n_value_event_axes] for value in values))
    needs_graph = mixture.needs_graph() or (torch.is_grad_enabled() and any(value.requires_grad for value in values))
    if shape.numel() <= block or needs_graph:
        return answer(mixture, *values)
    torch.empty(_TEACHES_MALLOC, dtype=torch.uint8)
    longest = max(shape)
    axis = shape.index(longest) - len(shape)  # from the right
    step = max(1, longest * block // shape.numel())
    leading = (slice(None),) * (len(batch_shape) + axis)

    def rows_of(value: Tensor, start: int, length: int) -> Tensor:
        place = value.ndim - n_value_event_axes + axis
        return value if place < 0 or value.shape[place] == 1 else value.narrow(place, start, length)

    parts = []
    for start in range(0, longest, step):
        length = min(step, longest - start)
        in_batch = -axis <= len(batch_shape) and batch_shape[axis] > 1
        some = mixture[(*leading, slice(start, start + length))] if in_batch else mixture
        parts.append(answer(some, *(rows_of(value, start, length) for value in values)))
    return torch.cat(parts, parts[0].ndim - n_event_axes + axis)
