"""Models on disk: a folder with JSON and safetensors, checked on the way in, never pickle."""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .errors import MixturaError

FORMAT_VERSION = 1
_MANIFEST = "model.json"
_TENSORS = "tensors.safetensors"
_MOST_BYTES = 64 * 2**20
"""A manifest holds names and settings; a larger one is not ours."""


def write_folder(path: str | os.PathLike[str], manifest: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write a model folder whole or not at all; a model that is already there is replaced.

    Parameters
    ----------
    manifest
        What JSON can hold.
    tensors
        By name; NaN and infinities survive.

    Raises
    ------
    MixturaError
        ``E-save-target`` where something else than a model is in the way, ``E-save-write`` where the folder
        can't be written.
    """
    check_free(path)
    try:
        path = Path(path).resolve()  # what a link points to is written, not the link
    except (OSError, ValueError) as error:
        raise MixturaError("E-save-target", f"{error}", "a path for a folder", "choose another") from error
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    content = {"format_version": FORMAT_VERSION, **manifest}
    content["sha256"] = _digest(content, data)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            (staging / "new").mkdir()
            (staging / "new" / _TENSORS).write_bytes(data)
            (staging / "new" / _MANIFEST).write_text(json.dumps(content, indent=1), encoding="utf-8")
            if path.exists():
                path.rename(staging / "old")
            (staging / "new").rename(path)
        finally:
            if (staging / "old").exists() and not path.exists():
                (staging / "old").rename(path)
            shutil.rmtree(staging, ignore_errors=True)
    except (OSError, ValueError) as error:
        fix = "check that the disk has room and the folder may be written"
        raise MixturaError("E-save-write", f"{error}", "a writable folder", fix) from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file whole or not at all; what is there is replaced, and a pipe or a device is written to.

    Raises
    ------
    MixturaError
        ``E-file-write``.
    """
    try:
        path = Path(path).resolve()  # what a link points to is written, not the link
        if path.exists() and not path.is_file() and not path.is_dir():
            path.write_text(text, encoding="utf-8")
            return
        staging = path.parent / f".partial.{path.name}"
        try:
            staging.write_text(text, encoding="utf-8")
            staging.replace(path)
        finally:
            staging.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        fix = "check that the folder exists and has room"
        raise MixturaError("E-file-write", f"{path}, which can't be written ({error})", "a path", fix) from error


def check_free(path: str | os.PathLike[str]) -> None:
    """Make sure that nothing but a model (or an empty folder) would be replaced at `path`.

    Raises
    ------
    MixturaError
        ``E-save-target``.
    """
    path = Path(path)
    try:
        parent = next(folder for folder in path.absolute().parents if folder.exists())
        if (not path.exists() and parent.is_dir()) or (path.is_dir() and not path.is_mount() and _is_ours(path)):
            return
    except (OSError, ValueError) as error:
        raise MixturaError("E-save-target", f"{path!r} ({error})", "a path for a folder", "choose another") from error
    got = f"{path}, which holds more than a model, is no folder, or is the current one"
    fix = "choose another path, or move what is there"
    raise MixturaError("E-save-target", got, "a new folder, an empty one, or a model and nothing else", fix)


def _is_ours(folder: Path) -> bool:
    """Whether a folder is empty, or holds the two files of a model and nothing else."""
    names = {path.name for path in folder.iterdir()}
    if not names:
        return folder.resolve() != Path.cwd()  # the folder one stands in can't be renamed
    if names != {_MANIFEST, _TENSORS}:
        return False
    try:
        content = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"format_version", "sha256"} <= set(content)


def read_folder(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what `write_folder` wrote; nothing in the folder is run.

    Raises
    ------
    MixturaError
        ``E-load-missing`` where there is no model, ``E-load-version`` for a newer format,
        ``E-load-corrupt`` for files that are cut off, altered or not ours.
    """
    path = Path(path)
    if not (path / _MANIFEST).is_file() or not (path / _TENSORS).is_file():
        expected = f"a folder with {_MANIFEST} and {_TENSORS}"
        raise MixturaError("E-load-missing", f"{path}", expected, "give the folder that save(path) made")
    try:
        if (path / _MANIFEST).stat().st_size > _MOST_BYTES:
            raise ValueError("the manifest is too large")
        content = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("the manifest is no JSON object")
        version = content.get("format_version")
        if type(version) is not int or version < 1:
            raise ValueError("no format version")
        if version > FORMAT_VERSION:
            got, expected = f"format version {version}", f"at most {FORMAT_VERSION}"
            raise MixturaError("E-load-version", got, expected, "update mixtura")
        data = (path / _TENSORS).read_bytes()
        if content.pop("sha256", None) != _digest(content, data):
            raise ValueError("the checksum does not match")
        return content, load(data)
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        if isinstance(error, MixturaError):
            raise
        raise corrupt(path, error) from error


def corrupt(path: str | os.PathLike[str], reason: object) -> MixturaError:
    """The error for a folder whose content can't be trusted."""
    got, expected = f"{path}, which can't be read ({reason})", "the files as save(path) wrote them"
    return MixturaError("E-load-corrupt", got, expected, "copy the folder again, or fit and save the model anew")


def _digest(content: dict[str, Any], data: bytes) -> str:
    """Checksum over both files, against damage; it does not prove who wrote them."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode() + b"\0" + data).hexdigest()
