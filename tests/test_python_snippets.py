"""The scripts on the pages of the commands run as they stand there."""

import contextlib
import io

import pytest

from mmace_sim.properties import declared_properties

DECLARED = declared_properties()


@pytest.mark.parametrize("name", DECLARED)
def test_the_script_of_each_property_runs(name):
    assert DECLARED[name].python, f"{name} says not how it is called from Python"
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        exec(compile(DECLARED[name].python, f"<{name}>", "exec"), {})
    assert told.getvalue().strip()
    assert "failed" not in told.getvalue()
