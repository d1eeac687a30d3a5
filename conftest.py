"""Tests check the shapes that annotations promise, and run the code blocks of every page."""

import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook


def typechecker(function: Callable) -> Callable:
    """beartype, with an int where a float is asked for."""
    return beartype(conf=BeartypeConf(is_pep484_tower=True))(function)


if "mixtura" in sys.modules:
    raise ImportError("mixtura was imported before its types could be checked")
# All layers that handle tensors; the estimator takes anything, and answers with coded errors.
TYPED = ["families", "quantile", "blocks", "batch", "scalar", "vector", "mixture", "scores", "nets", "training"]
TYPED += ["tables", "targets", "storage", "datasets"]
install_import_hook([f"mixtura.{module}" for module in TYPED], "conftest.typechecker")

import pytest  # noqa: E402
import torch  # noqa: E402
from sybil import Sybil  # noqa: E402
from sybil.parsers.markdown import PythonCodeBlockParser  # noqa: E402

from mixtura import MixturaWarning  # noqa: E402


def _enter_page(namespace: dict) -> None:
    namespace["_page"] = (Path.cwd(), tempfile.mkdtemp())
    os.chdir(namespace["_page"][1])


def _leave_page(namespace: dict) -> None:
    os.chdir(namespace["_page"][0])
    shutil.rmtree(namespace["_page"][1])


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()], patterns=["README.md", "docs/*.md"], setup=_enter_page, teardown=_leave_page
).pytest()


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a test or a page writes lands in the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Iterator[None]:
    """A warning of ours that no test expects is a failure; what a test's own filters let pass comes first."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", MixturaWarning, append=True)
        yield


@pytest.fixture(autouse=True)
def _global_state_stays() -> Iterator[None]:
    """Library code touches neither torch's default dtype nor its threads nor its argument validation."""
    before = _global_state()
    yield
    assert _global_state() == before


def _global_state() -> tuple[object, ...]:
    return torch.get_default_dtype(), torch.get_num_threads(), torch.distributions.Distribution._validate_args


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded source of randomness."""
    return torch.Generator().manual_seed(0)
