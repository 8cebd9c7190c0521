"""The layout of the package: imports go downward only, files and functions stay short."""

import ast
from pathlib import Path

import pytest

import mmace_sim

ROOT = Path(mmace_sim.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MAX_LINES = 400

BASE = {"base", "errors", "files", "plots", "typing", "units"}
_MODEL = BASE | {"nn", "graph", "hub", "model", "architectures"}
_TORCHSIM = _MODEL | {"io", "torchsim", "calculator", "testing"}
_PROPERTIES = _TORCHSIM | {"interop", "structures", "engine", "sampling", "properties"}
MAY_IMPORT = {
    **dict.fromkeys(BASE, BASE),
    "nn": BASE,
    "graph": BASE,
    "io": BASE | {"graph"},
    "hub": BASE,
    "model": BASE | {"nn", "graph", "hub"},
    "architectures": BASE | {"nn", "graph", "model"},
    "calculator": BASE | {"nn", "graph", "model"},
    "ase_plugin": BASE,
    "torchsim": BASE | {"nn", "graph", "model", "io"},
    "testing": _MODEL - {"hub", "architectures"} | {"torchsim", "calculator"},
    "interop": _MODEL | {"testing"},
    "structures": BASE | {"graph", "hub", "io", "model", "torchsim"},
    "engine": BASE | {"graph", "interop", "io", "model", "structures", "torchsim"},
    "sampling": BASE | {"graph", "model", "structures", "torchsim"},
    "properties": _PROPERTIES - {"interop", "architectures"},
    "training": _MODEL | {"engine", "io", "interop"},
    "quality": _PROPERTIES - {"interop", "architectures"},
    "report": BASE | {"graph", "io", "structures", "engine"},
    "cli": _PROPERTIES | {"training", "quality", "report"},
    "__main__": {"cli"},
}
"""Layer: the layers below it (each layer may import itself)."""

MACE_FILES = {"nn", "interop/from_mace.py"}
"""Where mace-torch may be imported, so that it can be replaced in one place."""


def layer_of(path):
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported_modules(path):
    """Yield the full name of every module that a file imports, at any depth of the code."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "mmace_sim":
                yield from (f"mmace_sim.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downward(path):
    layer = layer_of(path)
    if layer == "__init__":
        return
    assert layer in MAY_IMPORT, f"{layer} has no place in the layout: add it to MAY_IMPORT"
    imported = {name.split(".")[1] for name in imported_modules(path) if name.startswith("mmace_sim.")}
    imported.discard("__version__")
    upward = imported - MAY_IMPORT[layer] - {layer}
    assert not upward, f"{path.relative_to(ROOT)} imports {sorted(upward)} from above"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_short(path):
    n_lines = len(path.read_text().splitlines())
    assert n_lines <= MAX_LINES, f"{path.relative_to(ROOT)} has {n_lines} lines: split it by concept"


def test_mace_is_imported_in_one_place():
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(name.split(".")[0] == "mace" for name in imported_modules(path))
    }
    assert {
        user for user in users if user not in MACE_FILES and user.split("/")[0] not in MACE_FILES
    } == set()


def test_torch_sim_is_imported_with_its_kernels_late():
    """Through `base.hosts`, or below `mmace_sim.torchsim`, whose ``__init__`` imports that first."""
    users = {
        str(path.relative_to(ROOT))
        for path in FILES
        if any(name.split(".")[0] == "torch_sim" for name in imported_modules(path))
    }
    assert {user for user in users if not user.startswith("torchsim/")} == {"base/hosts.py"}


def test_typed_modules_evaluate_their_annotations():
    """With postponed annotations, shapes would be strings that nobody checks."""
    lazy = [p for p in FILES if "from __future__ import annotations" in p.read_text()]
    assert lazy == []


def test_importing_the_package_is_light():
    """Heavy libraries are loaded on first use: `mmace-sim --help` and ASE's plugin must stay fast."""
    import subprocess
    import sys

    code = (
        "import sys, mmace_sim; print([m for m in ('torch', 'ase', 'pymatgen', 'e3nn') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
