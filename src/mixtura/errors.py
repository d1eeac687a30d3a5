"""The one exception and the one warning that Mixtura raises, each with a stable code.

Every code has an entry in docs/errors.md; a test keeps the two in step.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_NOT_THE_CALLERS = {"mixtura", "torch", "contextlib", "sklearn", "jaxtyping"}
"""Packages that may be between the library and whoever called it."""


class _Coded(Exception):
    """Four parts that make one text."""

    def __init__(self, code: str, got: str, expected: str, fix: str):
        super().__init__(f"[{code}] got {got}; expected {expected}. Fix: {fix}.")
        self.code, self.got, self.expected, self.fix = code, got, expected, fix

    def __reduce__(self):
        return type(self), (self.code, self.got, self.expected, self.fix)


class MixturaError(_Coded, ValueError):
    """Bad input, said in four parts: a stable code, what was got, what was expected, how to fix it.

    Parameters
    ----------
    code
        Stable name such as ``"E-target-nan"``; docs/errors.md explains each.
    got, expected, fix
        Phrases without a closing full stop.

    Examples
    --------
    >>> raise MixturaError("E-quantile-range", "q = 1.5", "numbers in [0, 1]", "divide by 100")
    Traceback (most recent call last):
        ...
    mixtura.errors.MixturaError: [E-quantile-range] got q = 1.5; expected numbers in [0, 1]. Fix: divide by 100.
    """


class WrongType(MixturaError, TypeError):
    """Input of a type that no table or target has; scikit-learn asks for a TypeError there, and it is ours too."""


class MixturaWarning(_Coded, UserWarning):
    """Something that works but that the user should know, with the same four parts as an error."""


def warn(warning: MixturaWarning) -> None:
    """Issue a warning in the name of the line that called the library."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in _NOT_THE_CALLERS:
        frame, level = frame.f_back, level + 1
    warnings.warn(warning, stacklevel=level)


@contextmanager
def coded(code: str, expected: str) -> Iterator[None]:
    """Turn a library's ValueError or TypeError into ours, keeping its words."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if isinstance(error, MixturaError):
            raise
        kind = WrongType if isinstance(error, TypeError) else MixturaError
        raise kind(code, str(error).rstrip("."), expected, "check the input") from error
