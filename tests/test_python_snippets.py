"""The scripts on the pages of the commands, and those of docs/pipelines.md, run as they stand there."""

import contextlib
import io
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from mmace_sim.properties import declared_properties

DECLARED = declared_properties()
PIPELINES = Path(__file__).parents[1] / "docs" / "pipelines.md"
SCRIPTS = re.findall(
    r"^### (.+?)\n.*?^```python\n(.*?)^```", PIPELINES.read_text(encoding="utf-8"), re.M | re.S
)
"""Heading and script of each section of the page."""


def told_by(script, name):
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        exec(compile(script, f"<{name}>", "exec"), {})
    return told.getvalue()


@pytest.mark.parametrize("name", DECLARED)
def test_the_script_of_each_property_runs(name):
    assert DECLARED[name].python, f"{name} says not how it is called from Python"
    told = told_by(DECLARED[name].python, name)
    assert told.strip()
    assert "failed" not in told


def test_the_page_on_pipelines_has_a_script_for_each_host():
    assert [name.partition(":")[0] for name, _ in SCRIPTS] == [
        "`ts.optimize`", "`ts.integrate`", "ASE", "phonopy", "matcalc",
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "script"), SCRIPTS, ids=[name for name, _ in SCRIPTS])
def test_the_scripts_for_other_hosts_run(name, script):
    if "import matcalc" in script and find_spec("matcalc") is None:
        pytest.skip("matcalc is not installed")
    assert re.search(r"\d\.\d", told_by(script, name))
