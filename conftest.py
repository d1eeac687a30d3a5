"""Tests check the shapes that annotations promise, and run the code blocks of every page."""

from pathlib import Path

from jaxtyping import install_import_hook

install_import_hook("mixtura", "beartype.beartype")  # before the first import of mixtura

import pytest  # noqa: E402
import torch  # noqa: E402
from sybil import Sybil  # noqa: E402
from sybil.parsers.markdown import PythonCodeBlockParser  # noqa: E402

pytest_collect_file = Sybil(parsers=[PythonCodeBlockParser()], patterns=["README.md", "docs/*.md"]).pytest()


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a test or a page writes lands in the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _global_state_stays() -> object:
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
