"""Training that is interrupted, kept on disk."""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import MixturaError, MixturaWarning, warn

_FILE = "checkpoint.safetensors"
_MOST_TIME = 0.1
"""Share of the time that may be spent on writing."""


class Checkpoint:
    """A file that always holds a whole state of training, whenever the process is killed.

    It is written beside itself and put in place by a rename, after each epoch, unless writing would take more than a
    tenth of the time.

    Parameters
    ----------
    folder
        Made where it is not there.
    resume
        Whether to go on from what is there, if anything is.

    Raises
    ------
    MixturaError
        ``E-checkpoint-exists`` where there is one and `resume` is false, ``E-checkpoint-corrupt`` for a file that is
        none, ``E-checkpoint-write`` for a folder that can't be written.
    """

    def __init__(self, folder: str | os.PathLike[str], resume: bool):
        self._last = self._took = 0.0
        self._has_warned = False
        self.found: tuple[dict[str, Any], dict[str, Tensor]] | None = None
        """The state to go on from."""
        self.about: dict[str, Any] = {}
        """What is kept beside the state of training, as JSON: of what it is, and what was decided before it began."""
        try:
            self._path = Path(folder) / _FILE
            self._path.parent.mkdir(parents=True, exist_ok=True)
            exists = self._path.exists()
            self._beside.touch()
            self._beside.unlink()
        except (OSError, TypeError, ValueError) as error:
            raise _unwritable(error) from error
        if exists and not resume:
            fix = "give resume=True to go on from it, choose another folder, or delete it"
            raise MixturaError("E-checkpoint-exists", f"{self._path}", "a folder without a checkpoint", fix)
        if exists:
            self.found = self._read()
            self.about = self.found[0]["about"]

    @property
    def _beside(self) -> Path:
        return self._path.with_suffix(".new")

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        try:
            with safe_open(self._path, "pt") as file:
                state = json.loads(file.metadata()["state"])
                state["about"]["fingerprint"]
                return state, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
            raise self._corrupt(error) from error

    def _corrupt(self, error: Exception) -> MixturaError:
        fix = "delete it, and start anew"
        return MixturaError("E-checkpoint-corrupt", f"{self._path} ({error!r})", "a checkpoint", fix)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Whatever goes wrong while the state is put in place is told as ``E-checkpoint-corrupt``."""
        try:
            yield
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise self._corrupt(error) from error

    def bind(self, fingerprint: str) -> None:
        """Say of which data and settings it is.

        Raises
        ------
        MixturaError
            ``E-checkpoint-mismatch`` where what was found is of others.
        """
        if self.about.setdefault("fingerprint", fingerprint) != fingerprint:
            got = f"{self._path} of other data or settings"
            expected = "the data, settings and integer random_state it had"
            raise MixturaError("E-checkpoint-mismatch", got, expected, "give those, or choose another folder")

    @property
    def is_due(self) -> bool:
        """Whether writing once more keeps to its share of the time."""
        return time.perf_counter() - self._last >= self._took / _MOST_TIME

    def write(self, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Put a state in place of the one before.

        The first raises where it can't be written, before any work is lost; others warn once, and training goes on.

        Parameters
        ----------
        state
            What JSON can hold, NaN and infinities included.
        """
        start = time.perf_counter()
        text, beside = json.dumps({**state, "about": self.about}), self._beside
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, beside, {"state": text})
            with beside.open("rb+") as file:
                os.fsync(file.fileno())
            beside.replace(self._path)
        except (OSError, SafetensorError) as error:
            if not self._last:
                raise _unwritable(error) from error
            if not self._has_warned:
                warn(_warning(error))
                self._has_warned = True
        self._last = time.perf_counter()
        self._took = self._last - start


def fingerprint(tensors: Iterable[Tensor], settings: Iterable[Any]) -> str:
    """A digest of data and settings."""
    digest = hashlib.sha256(repr(list(settings)).encode())
    for tensor in tensors:
        digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.detach().contiguous().view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _unwritable(error: Exception) -> MixturaError:
    fix = "check that the disk has room and the folder may be written"
    return MixturaError("E-checkpoint-write", f"{error}", "a writable folder for checkpoints", fix)


def _warning(error: Exception) -> MixturaWarning:
    fix = "make room: the next epochs try again"
    return MixturaWarning("W-checkpoint-write", f"{error}; training goes on", "a writable folder for checkpoints", fix)
