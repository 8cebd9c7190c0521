"""Libraries of single features: the package works without them, and says which extra brings them."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cli_tools import bcc, mmace_sim

from mmace_sim.base.extras import EXTRAS, extra, require
from mmace_sim.errors import MissingExtraError

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]

WITHOUT = "import sys; sys.modules.update(dict.fromkeys({missing!r}))\n"

OPTIONAL = [library for libraries in EXTRAS.values() for library in libraries]

FEATURES = {
    "data": """
from ase import Atoms
from mmace_sim.data.propose import propose
from mmace_sim.data.settings import ProposeSettings
propose({"Fe": Atoms("Fe")}, ProposeSettings(recipe=["random:1"]))
""",
    "databases": """
from pathlib import Path
from mmace_sim.io.database import write_database
write_database(Path(sys.argv[1]) / "x.aselmdb", [])
""",
    "parallel": """
from pathlib import Path
from mmace_sim.executors.interface import open_executor
with open_executor("local:1", Path(sys.argv[1]) / "pool"):
    pass
""",
    "phonons": "from mmace_sim.properties.phonons.finite_displacements import Phonons; Phonons()",
    "tables": """
from pathlib import Path
from mmace_sim.io.parquet import FORMAT
FORMAT.bounds(Path(sys.argv[1]) / "x.parquet")
""",
    "train": "import mmace_sim.training.trainer",
}


def run_without(missing, code, *arguments):
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        WITHOUT.format(missing=missing) + code,
        *map(str, arguments),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def names(requirements):
    return {line.split(";")[0].split(">")[0].split("[")[0].strip() for line in requirements}


def test_extras_are_those_of_the_project_file():
    declared = PROJECT["optional-dependencies"]
    for name, libraries in EXTRAS.items():
        assert {library.replace("-", "_") for library in names(declared[name])} == set(libraries)
    assert declared["all"] == [f"mmace-sim[{','.join(sorted(EXTRAS))}]"]
    assert not set(OPTIONAL) & names(PROJECT["dependencies"])


def test_what_is_needed_to_run_is_required_without_an_extra():
    """Every library imported at the head of a module is a dependency, or belongs to an extra."""
    import ast

    import mmace_sim

    root = Path(mmace_sim.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        if path.is_relative_to(root / "testing") or path.parent.name == "workers":
            continue  # pytest and hypothesis, for those who test with it; what other interpreters run
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.split(".")[0])
    aliases = {"mace": "mace-torch", "torch_sim": "torch-sim-atomistic", "yaml": "pyyaml"}
    aliases |= {
        "cycler": "matplotlib",
        "markupsafe": "jinja2",
        "pydantic_core": "pydantic",
    }  # parts of their interfaces
    third_party = {aliases.get(name, name) for name in found - sys.stdlib_module_names - {"mmace_sim"}}
    known = names(PROJECT["dependencies"]) | set(OPTIONAL)
    assert third_party - known == set()


def test_dependencies_are_bounded():
    lines = PROJECT["dependencies"] + [
        line for name in EXTRAS for line in PROJECT["optional-dependencies"][name]
    ]
    assert "mace-torch>=0.3.16,<1" in lines
    assert all(">=" in line for line in lines)


ONE_AFTER_THE_OTHER = """
import json, sys
from mmace_sim.errors import MissingExtraError
said = {}
for name, (libraries, code) in json.loads(sys.argv[2]).items():
    sys.modules.update(dict.fromkeys(libraries))
    try:
        exec(code)
    except MissingExtraError as error:
        said[name] = str(error)
    for library in libraries:
        del sys.modules[library]
print(json.dumps(said))
"""


def test_missing_library_names_its_extra(tmp_path):
    features = {name: (libraries, FEATURES[name]) for name, libraries in EXTRAS.items()}
    done = run_without([], ONE_AFTER_THE_OTHER, tmp_path, json.dumps(features))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    for name, libraries in EXTRAS.items():
        assert f"pip install 'mmace-sim[{name}]'" in said[name]
        assert any(library in said[name] for library in libraries)


def test_relaxation_and_command_line_need_no_extra_and_neither_mace_nor_e3nn(tmp_path):
    code = """
from ase.build import bulk
import mmace_sim
from mmace_sim.cli.app import app
atoms = bulk("Fe", "bcc", a=2.85)
atoms.set_initial_magnetic_moments([2.2])
atoms.write(sys.argv[1] + "/fe.extxyz")
atoms.calc = mmace_sim.MMACECalculator(model="default")
atoms.get_potential_energy(), atoms.get_stress()
app(["relax", sys.argv[1] + "/fe.extxyz", "--output", sys.argv[1] + "/run"])
"""
    done = run_without([*OPTIONAL, "mace", "e3nn", "beartype"], code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "summary.json").exists()


def test_command_line_names_the_extra_and_ends_with_the_code_of_a_wrong_usage(tmp_path, monkeypatch):
    bcc([2.2, 2.2]).write(tmp_path / "fe.extxyz")
    for library in EXTRAS["phonons"]:
        monkeypatch.setitem(sys.modules, library, None)
    done = mmace_sim("phonons", tmp_path / "fe.extxyz", "-o", tmp_path / "run")
    assert done.exit_code == 2, done.output
    assert "pip install 'mmace-sim[phonons]'" in " ".join(done.output.split())


def test_other_missing_modules_are_not_blamed_on_an_extra():
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught, extra("train", "Training"):
        import no_such_module  # noqa: F401
    assert not isinstance(caught.value, MissingExtraError)
    require("train", "Training")
