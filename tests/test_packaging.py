"""The package as an installed thing: metadata, entry points, light imports, direction of imports, size of files."""

import ast
import os
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

import mmace_sim

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mmace_sim"
MODULES = sorted(PACKAGE.rglob("*.py"))

BASE = {"errors", "keys", "typing", "units"}
MAY_IMPORT = {
    "nn": BASE,
    "graph": BASE,
    "model": BASE | {"nn", "graph"},
    "torchsim": BASE | {"model", "graph"},
    "calculator": BASE | {"model", "graph"},
    "training": BASE | {"model", "graph"},
    "workflows": BASE | {"model", "graph", "torchsim", "calculator"},
    "cli": BASE | {"model", "graph", "torchsim", "calculator", "training", "workflows"},
    "testing": BASE | {"nn", "model", "graph", "torchsim", "calculator", "training", "workflows"},
    "ase_plugin": set(),
}


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_layers(path: Path) -> set[str]:
    """First component below mmace_sim of everything that a file imports from us."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return {p[1] for p in parts if p[0] == "mmace_sim" and len(p) > 1 and not p[1].startswith("__")}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
    layer = layer_of(path)
    if layer == "__init__":
        return
    allowed = MAY_IMPORT.get(layer, set()) | {layer}
    assert imported_layers(path) <= allowed, f"{layer} may import {sorted(allowed)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_version_is_the_one_of_the_project_file():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert mmace_sim.__version__ == version("mmace-sim") == project["version"]
    assert f"## [{project['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {project['version']}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("group", "name"),
    [("console_scripts", "mmace-sim"), ("ase.plugins", "mmace_sim"), ("mmace_sim.models", "default")],
)
def test_entry_points_load(group, name):
    (entry,) = entry_points(group=group, name=name)
    assert entry.load() is not None


def test_public_names_exist():
    for name in mmace_sim.__all__:
        assert getattr(mmace_sim, name) is not None


@pytest.mark.parametrize("module", ["mmace_sim", "mmace_sim.ase_plugin", "mmace_sim.cli.app"])
def test_import_is_light(module):
    code = (
        f"import sys, {module}; sys.exit(' '.join({{'torch', 'pymatgen', 'lightning'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{module} imports {done.stderr.strip()}"


def find_python(path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(ROOT / "tools" / "find_python.sh"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False
    )


@pytest.fixture
def tools(tmp_path):
    """A PATH with what the script needs and no Python."""
    for name in ("cat", "env", "grep", "sort"):
        source = next(p for d in ("/bin", "/usr/bin") if (p := Path(d) / name).exists())
        (tmp_path / name).symlink_to(source)
    return tmp_path


def fake_python(path: Path, version: str) -> None:
    path.write_text(f'#!/bin/sh\ncase "$2" in *print*) echo "{version} {path}";; *exit*) exit 1;; esac\n')
    path.chmod(0o755)


def test_no_python_says_what_to_install(tools):
    done = find_python(str(tools))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "needs Python >= 3.12" in done.stderr
    assert "no python3.12" in done.stderr
    assert "apt install python3" in done.stderr


def test_old_python_is_named(tools):
    fake_python(tools / "python3", "3.11.2")
    done = find_python(str(tools))
    assert done.returncode == 1
    assert "python3 is Python 3.11.2, too old" in done.stderr


def test_running_python_is_found(tools):
    (tools / "python3.12").symlink_to(sys.executable)
    done = find_python(str(tools))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).exists()


def test_named_python_is_the_only_one_tried(tools):
    (tools / "python3.12").symlink_to(sys.executable)
    done = find_python(str(tools), str(tools / "missing"))
    assert done.returncode == 1
    assert "missing cannot be run" in done.stderr
