"""What the parameters of an estimator may be."""

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from .families import Family
from .presets import PRESETS


def is_int(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def is_real(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Real) and not isinstance(value, bool) and low <= float(value) < high


def _or_none(is_valid: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_valid(value)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool | np.bool_ | Integral)


def _is_layers(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(is_int(1)(size) for size in value)


def _is_one_of(*names: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in names


def is_seed(value: Any) -> bool:
    return value is None or isinstance(value, np.random.RandomState) or (is_int(0)(value) and int(value) < 2**32)


def _is_family(value: Any) -> bool:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return len(value) > 0 and all(isinstance(part, str | Family) for part in value)
    return isinstance(value, str | Family)


def _is_atoms(value: Any) -> bool:
    if value is None or (isinstance(value, str) and value == "auto"):
        return True
    is_numbers = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)
    return is_numbers and all(is_real(-np.inf, np.inf)(x) and np.isfinite(x) for x in value)


CONSTRAINTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "n_components": (lambda value: is_int(1)(value) or _is_one_of("auto")(value), "an integer >= 1 or 'auto'"),
    "family": (_is_family, "the name of a family, 'auto', a family, or one of these for each coordinate"),
    "covariance_type": (
        _is_one_of("full", "diag", "spherical", "low_rank"),
        "'full', 'diag', 'spherical' or 'low_rank'",
    ),
    "atoms": (_is_atoms, "None, 'auto' or finite numbers"),
    "preset": (_is_one_of(*PRESETS), "'plain', 'fast', 'balanced' or 'best'"),
    "hidden_layer_sizes": (_or_none(_is_layers), "None or a sequence of integers >= 1"),
    "scale_floor": (_or_none(is_real(0, np.inf)), "None or a finite number >= 0"),
    "weight_floor": (is_real(0, 1), "a number >= 0 and < 1/n_components"),
    "max_epochs": (_or_none(is_int(1)), "None or an integer >= 1"),
    "batch_size": (_or_none(is_int(1)), "None or an integer >= 1"),
    "learning_rate": (lambda value: is_real(0, np.inf)(value) and value > 0, "a finite number > 0"),
    "weight_decay": (is_real(0, np.inf), "a finite number >= 0"),
    "patience": (_or_none(is_int(1)), "None or an integer >= 1"),
    "validation_fraction": (is_real(0, 1), "a number >= 0 and < 1"),
    "n_restarts": (_or_none(is_int(1)), "None or an integer >= 1"),
    "pool_restarts": (_or_none(_is_bool), "None, True or False"),
    "revive": (_is_bool, "True or False"),
    "noise": (_or_none(is_real(0, np.inf)), "None or a finite number >= 0"),
    "random_state": (is_seed, "None, an integer >= 0 and < 2**32, or a RandomState"),
    "verbose": (_is_bool, "True or False"),
}
"""Of each parameter a check, and in words what passes it."""
