"""The page that shows how to add a property: its example is a property."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from ase.io import write
from cli_tools import bcc, write_tiny_model
from typer.testing import CliRunner

from mmace_sim.cli.declared import property_command
from mmace_sim.properties.singlepoint import SinglePoint

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "add-a-property.md"


def command_line(folder, *arguments):
    """`mmace-sim` in a process that also has the packages of a folder."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    command = [sys.executable, "-m", "mmace_sim", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.fixture
def flip(tmp_path, monkeypatch):
    package = tmp_path / "package" / "flip"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name, text in re.findall(r"```python\n# flip/(\w+\.py)\n(.*?)```", PAGE.read_text("utf-8"), re.S):
        (package / name).write_text(text, "utf-8")
    monkeypatch.syspath_prepend(package.parent)
    yield __import__("flip.declaration").declaration.FLIP
    for name in [name for name in sys.modules if name.split(".")[0] == "flip"]:
        del sys.modules[name]


def test_the_example_of_the_page_is_a_command(flip, tmp_path):
    model = write_tiny_model(tmp_path / "tiny.safetensors")
    write(tmp_path / "iron.extxyz", bcc())
    app = typer.Typer()
    app.command()(property_command(flip))

    def run(*arguments):
        return CliRunner().invoke(
            app, [str(tmp_path / "iron.extxyz"), "-m", str(model), *map(str, arguments)]
        )

    result = run("-o", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    ferro, antiferro = SinglePoint(str(model)).run([bcc(), bcc((2.2, -2.2))])
    expected = antiferro.energy - ferro.energy
    assert abs(expected) > 1e-6
    assert summary["structures"][0]["costs"] == pytest.approx([expected] * 2, abs=1e-9)
    assert summary["units"]["cost"] == "eV"
    lines = (tmp_path / "run" / "summary.csv").read_text().splitlines()
    assert lines[0].startswith("name,file,index,formula,model,status,atom,cost,message")
    assert len(lines) == 3
    half = run("-o", tmp_path / "half", "--angle", 90)
    assert "cost" in half.stdout
    assert (
        run("-o", tmp_path / "half", "--angle", 200).exit_code == 1
    )  # ConfigError, which the whole app tells
    again = run("-o", tmp_path / "run", "--resume")
    assert "1 from the earlier run" in again.stdout
    plan = run("-o", tmp_path / "plan", "--dry-run")
    assert "Nothing was computed" in plan.stdout
    assert not (tmp_path / "plan").exists()


@pytest.mark.usefixtures("flip")
def test_a_property_of_another_package_is_a_command_of_its_own(tmp_path):
    """By the entry point of the page; one that cannot be imported is told in a sentence."""
    package = tmp_path / "package"
    known = package / "flip-1.0.dist-info"
    known.mkdir()
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: flip\nVersion: 1.0\n")
    (entry,) = re.findall(r'entry-points\."mmace_sim.properties"\]\n(.*?)\n', PAGE.read_text("utf-8"))
    (known / "entry_points.txt").write_text(f"[mmace_sim.properties]\n{entry.replace(chr(34), '')}\n")
    told = command_line(package, "flip", "--help")
    assert told.returncode == 0, told.stderr
    assert "--angle" in told.stdout
    assert "flip" in command_line(package, "--help").stdout
    (package / "flip" / "declaration.py").write_text("import nothing_like_it\n")
    broken = command_line(package, "relax", "--help")
    assert broken.returncode == 2
    assert broken.stderr.startswith("Error: property 'flip' of flip cannot be imported: No module named")
