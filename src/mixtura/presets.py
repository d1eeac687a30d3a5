"""What `MDNRegressor` does unless told otherwise: how much work a fit is worth."""

import math
from bisect import bisect
from dataclasses import dataclass, replace
from typing import Any

_FEWEST_EPOCHS_OF_PATIENCE, _MOST_EPOCHS_OF_PATIENCE, _MOST_EPOCHS = 10, 300, 2_000
_ANNEALED = 0.3


@dataclass(frozen=True)
class Preset:
    """All that decides how networks are made and trained; fields with the name of a parameter of `MDNRegressor` are
    what its None means, or hold what it was given."""

    hidden_layer_sizes: tuple[int, ...] = (64, 64)
    n_members: int | None = 8
    """Of a `BatchEnsemble`; None for a plain `MLP`."""
    n_restarts: int = 1
    pool_restarts: bool = True
    batch_size: int = 32
    max_epochs: int | None = None
    patience: int | None = None
    max_steps: int = 6_000
    patience_steps: int = 600
    """Both decide where the two above don't. Few rows make an epoch of few steps, and it takes more of them."""
    has_background: bool = True
    """Whether the density of y without features has a small share: `mixtura.background`."""
    enough_rows: int = 200
    """From here on there is no noise on features and target, unless told; below it is 8/n. Found on problems of known
    truth (docs/training.md). The rule of thumb of Rothfuss et al. (2019, Noise regularization for conditional density
    estimation), by a kernel's bandwidth, n^(-1/(d + 4)), is several times wider; it helps below 50 rows and costs much
    above."""
    noise: float | None = None
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2
    weight_floor: float = 1e-4
    revive: bool = True
    verbose: bool = False

    def epochs(self, n_steps: int) -> tuple[int, int, int]:
        """Where an epoch has so many steps: the most epochs, after how many without gain training ends, and over how
        many of the last the rate falls to 0."""
        patience = math.ceil(self.patience_steps / n_steps)
        patience = self.patience or min(max(patience, _FEWEST_EPOCHS_OF_PATIENCE), _MOST_EPOCHS_OF_PATIENCE)
        most = self.max_epochs or min(max(math.ceil(self.max_steps / n_steps), 2 * patience), _MOST_EPOCHS)
        return most, patience, round(_ANNEALED * most)

    def noise_for(self, n_rows: int) -> float:
        """Of so many rows to learn from, as a fraction of the standard deviations of features and target."""
        if self.noise is not None:
            return float(self.noise)
        return min(0.2, 8 / n_rows) if n_rows < self.enough_rows else 0.0


_PLAIN = Preset(n_members=None, pool_restarts=False, max_epochs=300, patience=30, has_background=False, enough_rows=800)
TRIAL: dict[str, Any] = {
    "hidden_layer_sizes": (64, 64),
    "n_members": None,
    "batch_size": 64,
    "max_epochs": None,
    "patience": None,
    "max_steps": 2_000,
    "patience_steps": 400,
    "enough_rows": 800,
    "verbose": False,
}
"""What is other in small networks that show which family suits a target, and in which form features do."""
_FAST = Preset()
_FAST_DEEP = replace(_FAST, hidden_layer_sizes=(64, 64, 64, 64))
_LONG = Preset(n_restarts=4, max_steps=20_000, patience_steps=2_000)
_LONG_DEEP = replace(_LONG, hidden_layer_sizes=(64, 64, 64, 64))
_WIDE_DEEP = replace(_LONG, hidden_layer_sizes=(128, 128, 128, 128), n_restarts=2, batch_size=256)
_TIERS = (0, 1_000, 5_000)
PRESETS = {
    "plain": (_PLAIN, _PLAIN, replace(_PLAIN, batch_size=256)),
    "fast": (_FAST, _FAST_DEEP, replace(_FAST_DEEP, batch_size=256)),
    "balanced": (_LONG, _LONG_DEEP, _WIDE_DEEP),
    "best": tuple(replace(one, n_restarts=2 * one.n_restarts) for one in (_LONG, _LONG_DEEP, _WIDE_DEEP)),
}
"""Of each preset, settings from so many rows on: few rows can't carry deep networks."""


def settings_of(preset: str, n_rows: int) -> Preset:
    """The settings of a preset for so many rows to learn from."""
    return PRESETS[preset][bisect(_TIERS, n_rows) - 1]
