"""Models from disk: what `save` wrote, of whatever kind."""

import os
from pathlib import Path
from typing import Any

from torch import Tensor

from .calibrated import Calibrated, Conformal, restore_calibrated
from .chain import MDNChain, restore_chain
from .estimator import MDNRegressor
from .modelfile import restore
from .storage import corrupt, read_folder


def load(path: str | os.PathLike[str]) -> Any:
    """Read a model that `save` wrote: an `MDNRegressor`, what its `calibrate` made, or an `MDNChain`. It predicts bit
    for bit as the saved one did. Nothing is run.

    Raises
    ------
    MixturaError
        ``E-load-missing``, ``E-load-version`` or ``E-load-corrupt``.
    """
    manifest, tensors = read_folder(path)
    try:
        return _restored(manifest, tensors)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise corrupt(Path(path), error) from error


def _restored(manifest: dict[str, Any], tensors: dict[str, Tensor]) -> MDNRegressor | Calibrated | Conformal | MDNChain:
    if "calibration" in manifest:
        return restore_calibrated(manifest, tensors, _restored)
    if "links" in manifest:
        return restore_chain(manifest, tensors, _restored)
    model = MDNRegressor(**manifest["parameters"])
    restore(model, manifest, tensors)
    return model
