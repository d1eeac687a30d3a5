"""The house: imports go downward only, importing changes nothing, no stubs, errors and docs in step."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "mixtura").rglob("*.py"))


def module_name(path: Path) -> str:
    relative = path.relative_to(ROOT / "src" / "mixtura").with_suffix("")
    return ".".join(part for part in relative.parts if part != "__init__")


LAYERS = [  # bottom first; a module may import from lines above its own
    {"errors", "presets", "background"},
    {module_name(path) for path in SOURCES if path.parent.name == "families"},
    {"quantile", "blocks"},
    {"peaks", "combine"},
    {"landscape", "regions", "entropy"},
    {"modes"},
    {"batch"},
    {"scalar", "vector"},
    {"mixture"},
    {"scores", "ensemble"},
    {"nets", "adamw", "rows", "calibration", "conformal"},
    {"stack", "revival"},
    {"learner", "checkpoint"},
    {"training"},
    {"tables", "storage", "datasets"},
    {"targets", "constraints", "selection"},
    {"task", "reference"},
    {"trials", "modelfile", "answers", "diagnosis"},
    {"calibrated"},
    {"estimator"},
    {"metrics", "chain", "evaluation", "checks", "effects"},
    {"comparison", "loading"},
    {module_name(path) for path in SOURCES if path.parent.name == "plots"},
    {module_name(path) for path in SOURCES if path.parent.name == "report"},
    {"demo"},
    {"cli"},
]


def imports_of(path: Path) -> set[str]:
    """The package's own modules that a file imports, but for type checking."""
    tree = ast.parse(path.read_text())
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    package = module_name(path).split(".")[: -1 if path.name != "__init__.py" else None]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and node not in skipped:
            base = package[: len(package) - node.level + 1]
            found.add(".".join([*base, *([node.module] if node.module else [])]))
    return found - {""}


@pytest.mark.parametrize("path", [path for path in SOURCES if module_name(path)], ids=module_name)
def test_imports_go_downward_only(path):
    level = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    own = level[module_name(path)]
    for name in imports_of(path):
        inside_a_folder = name.split(".")[0] == module_name(path).split(".")[0]
        assert level[name] < own or inside_a_folder, f"{module_name(path)} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_no_imports_inside_functions_and_no_asserts(path):
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Assert)
        if isinstance(node, ast.FunctionDef):
            assert not any(isinstance(inner, ast.Import | ast.ImportFrom) for inner in ast.walk(node))


def test_importing_changes_nothing_and_prints_nothing():
    code = """
import numpy, torch
def state():
    return (torch.get_default_dtype(), torch.get_num_threads(), torch.get_num_interop_threads(),
            torch.is_grad_enabled(), torch.distributions.Distribution._validate_args, torch.get_rng_state().tolist(),
            numpy.random.get_state()[1].tolist(), numpy.geterr())
before = state()
import mixtura
changed = [i for i, (a, b) in enumerate(zip(before, state())) if a != b]
raise SystemExit(str(changed) if changed else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_code_has_an_entry_in_the_docs_and_the_other_way_round():
    raised = set()
    for path in SOURCES:
        for code in re.findall(r'"([EW]-[a-z0-9-]+)"', path.read_text()):
            raised.add(code)
    documented = set(re.findall(r"^## ([EW]-[a-z0-9-]+)$", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE))
    assert documented == raised


def test_every_public_name_is_documented_and_annotated():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            where = f"{path.name}:{node.lineno} {node.name}"
            if isinstance(node, ast.ClassDef):
                assert ast.get_docstring(node), where


def test_the_package_is_typed():
    assert (ROOT / "src" / "mixtura" / "py.typed").exists()
