"""The shell blocks of README and docs (Python blocks are run by sybil, see conftest.py)."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mixtura
from mixtura import datasets
from mixtura.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def shell_blocks() -> list[tuple[str, str]]:
    return [
        (f"{page.name}-{i}", block)
        for page in PAGES
        for i, block in enumerate(re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL))
    ]


@pytest.mark.parametrize(("name", "block"), shell_blocks())
def test_shell_blocks_do_what_they_say(name, block):
    trips = datasets.load_taxi().head(150)
    trips.to_csv("trips.csv", index=False)
    datasets.load_taxi().tail(50).to_csv("held_out.csv", index=False)
    trips.drop(columns="tip_usd").tail(5).to_csv("new.csv", index=False)
    for line in filter(None, (line.split("#")[0].strip() for line in block.splitlines())):
        words = shlex.split(line)
        if words[0] == "make":  # `make -n` says what would be done: the target is there
            subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        else:
            assert words[0] == "mixtura", f"{name}: who runs {line!r}?"
            done = CliRunner().invoke(app, words[1:], catch_exceptions=False)
            assert done.exit_code == 0, done.output


def test_every_fence_says_its_language():
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)
        assert set(fences[::2]) <= {"python", "bash"}, page.name
        assert set(fences[1::2]) <= {""}, page.name


def test_the_readme_shows_a_short_snippet_at_once():
    readme = (ROOT / "README.md").read_text()
    first = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert first is not None
    assert readme[: first.end()].count("\n") < 16
    assert len(first.group(1).splitlines()) <= 12


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists() or target.startswith("docs/images/"), f"{page.name}: {target}"


def test_every_public_name_is_on_the_api_page():
    page = (ROOT / "docs/api.md").read_text()
    modules = {f"mixtura.{name}" for name in re.findall(r"^::: mixtura\.(\w+)", page, re.MULTILINE)}
    listed = re.search(r"\bmembers: \[(.*?)\]", page.split("::: mixtura.")[0], re.DOTALL)
    assert listed is not None
    names = set(re.split(r",\s*", re.sub(r"inherited_members.*?\]", "", listed.group(1), flags=re.DOTALL)))
    assert names == {name for name in mixtura.__all__ if f"mixtura.{name}" not in modules}


def test_every_page_is_in_the_navigation():
    config = (ROOT / "mkdocs.yml").read_text()
    in_nav = re.findall(r"([\w-]+\.md)$", config.split("\nnav:\n")[1], re.MULTILINE)
    assert sorted(in_nav) == sorted(page.name for page in (ROOT / "docs").glob("*.md"))


def test_every_figure_of_the_theory_is_there_small_and_shown():
    images = {path.name: path for path in (ROOT / "docs/images").glob("theory-*.png")}
    shown = re.findall(r"\(images/(theory-[\w-]+\.png)\)", (ROOT / "docs/theory.md").read_text())
    assert sorted(shown) == sorted(images)
    assert all(path.stat().st_size < 80_000 for path in images.values())
