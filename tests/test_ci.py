"""What `.ci/run` makes of the tests on a Slurm: one line that says how many passed, and whether that is an error."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "run"
pytestmark = pytest.mark.skipif(not SCRIPT.is_file(), reason="only in a checkout")

PASSED = "tests/test_slurm.py::test_a PASSED [ 50%]\n"
OTHER = "tests/test_slurm.py::test_b PASSED [100%]\n"
FAILED = "tests/test_slurm.py::test_b FAILED [100%]\n"
BROKEN = "tests/test_slurm.py::test_b ERROR [100%]\n"
SKIPPED = "tests/test_slurm.py::test_a SKIPPED (no Slurm here) [ 50%]\n"
BEGUN = "tests/test_slurm.py::test_b "
LATE = 124
"""Exit code of `timeout`."""


def write_program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def run(tmp_path):
    """Runs a copy of the script whose pytest says what is given, call by call, with its exit codes."""

    def started(*calls, seconds=0, installed=True, **environment):
        (tmp_path / ".ci").mkdir()
        (tmp_path / ".ci" / "run").write_bytes(SCRIPT.read_bytes())
        for tool in ("sh", "bash", "cat", "dirname", "grep", "mktemp", "rm", "tee", "timeout"):
            write_program(tmp_path / "bin" / tool, f'exec {shutil.which(tool)} "$@"')
        names = ["make", "id", *(["slurmctld", "munged"] if installed else [])]
        for name in names:
            write_program(tmp_path / "bin" / name, "echo 0" if name == "id" else "exit 0")
        for number, (text, _) in enumerate(calls):
            (tmp_path / f"call{number}").write_text(text)
        codes = " ".join(str(code) for _, code in calls)
        write_program(
            tmp_path / ".venv" / "bin" / "python",
            f'cd {tmp_path}; n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) >n; echo "$@" >>arguments\n'
            f"set -- {codes}; cat call$n; shift $n; exit $1",
        )
        done = subprocess.run(
            [shutil.which("bash"), tmp_path / ".ci" / "run"],
            env=os.environ | {"MMACE_SIM_SLURM_TESTS": "1"} | environment | {"PATH": str(tmp_path / "bin"), "SECONDS": str(seconds)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        calls_made = (
            (tmp_path / "arguments").read_text().splitlines() if (tmp_path / "arguments").exists() else []
        )
        return done.returncode, done.stdout.splitlines()[-1], calls_made

    return started


@pytest.mark.parametrize(
    ("calls", "seconds", "code", "words"),
    [
        ([(PASSED + OTHER, 0)], 0, 0, "2 passed."),
        ([(PASSED + BEGUN, LATE)], 0, 0, "1 passed, the others were not finished in 600 s."),
        ([(PASSED + FAILED, 1), (OTHER, 0)], 0, 0, "2 passed."),
        ([(PASSED + FAILED, 1), (FAILED, 1)], 0, 1, "1 passed, others FAILED, also when tried again."),
        ([(PASSED + FAILED, 1), (BEGUN, LATE)], 0, 1, "others FAILED"),
        ([(PASSED + FAILED + BEGUN, LATE), (FAILED, 1)], 0, 1, "others FAILED"),
        ([(PASSED + FAILED + BEGUN, LATE), (OTHER, 0)], 0, 0, "2 passed, the others were not finished"),
        ([(OTHER + BROKEN, 1), (OTHER + BROKEN, 1)], 0, 1, "others FAILED"),
        ([("no such file", 4)], 0, 4, "pytest ended with code 4, 0 passed."),
        ([(BEGUN, LATE)], 0, 1, "none passed in 600 s, although Slurm is installed."),
        ([(BEGUN, 137)], 0, 1, "none passed in 600 s, although Slurm is installed."),
        ([(SKIPPED, 0)], 0, 1, "none passed in 600 s, although Slurm is installed."),
        ([(BEGUN, LATE)], 1200, 0, "none was finished in 2"),
        ([(PASSED + BEGUN, LATE)], 1200, 0, "1 passed, the others were not finished in 2"),
        ([], 1400, 0, "not run: "),
    ],
)  # fmt: skip
def test_what_is_said_and_what_is_an_error(run, calls, seconds, code, words):
    found, said, made = run(*calls, seconds=seconds)
    assert found == code, said
    assert said.startswith("Slurm tests: ")
    assert words in said
    assert len(made) == len(calls)
    assert ["--last-failed" in line for line in made] == [False, True][: len(calls)]


def test_where_there_is_no_slurm(run):
    code, said, _ = run((SKIPPED, 0), installed=False)
    assert (code, said[:21]) == (0, "Slurm tests: not run:")
    assert "not installed" in said


def test_where_it_is_not_wanted(run):
    code, said, made = run(MMACE_SIM_SLURM_TESTS="0")
    assert (code, made) == (0, [])
    assert "MMACE_SIM_SLURM_TESTS=0" in said
