"""What `MDNRegressor` does unless told otherwise: how much work a fit is worth."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Settings that belong together; each is a parameter of `MDNRegressor`, but for the number of members."""

    hidden_layer_sizes: tuple[int, ...] = (128, 128)
    n_members: int | None = 8
    """Of a `BatchEnsemble`; None for a plain `MLP`."""
    max_epochs: int = 500
    patience: int = 45
    n_restarts: int = 1
    pool_restarts: bool = False
    enough_rows: int = 200
    """From here on there is no noise on features and target, unless told; below it is 8/n. Found on problems of known
    truth (docs/training.md). The rule of thumb of Rothfuss et al. (2019, Noise regularization for conditional density
    estimation), by a kernel's bandwidth, n^(-1/(d + 4)), is several times wider; it helps below 50 rows and costs much
    above."""


PRESETS = {
    "fast": Preset((64, 64), n_members=None, max_epochs=300, patience=30, enough_rows=800),
    "balanced": Preset(),
    "best": Preset(n_restarts=4, pool_restarts=True),
}
