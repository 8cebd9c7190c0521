"""The page that shows how to add a property: its example is a property."""

import json
import re
import sys
from pathlib import Path

import pytest
import typer
from ase.io import write
from cli_tools import bcc, write_tiny_model
from typer.testing import CliRunner

from mmace_sim.cli.declared import property_command
from mmace_sim.properties.singlepoint import SinglePoint

PAGE = Path(__file__).parents[1] / "docs" / "add-a-property.md"


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
