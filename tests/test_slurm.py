"""Runs on a real batch system: Slurm on one node with two pretended GPUs, which `tests/slurm/slurm.sh` starts.

The quickest first: where time is short, `.ci/run` does not come to the last ones.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import pytest
from cli_tools import bcc, summary_of

from mmace_sim.engine.journal import FILE_NAME, SIGN_OF_LIFE, read_journal

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

ASKED = "MMACE_SIM_SLURM_TESTS"
HERE = Path(__file__).parent
N = 16
SCRIPT = (
    "import sys\nfrom mmace_sim.base.signals import interruptible\nfrom mmace_sim.engine.lifecycle import run_property\n"
    "from slow_property import SLOW\n"
    "with interruptible():\n"
    "    run_property(SLOW, SLOW.settings.model_validate_json(sys.argv[1]), quiet=True, resume=len(sys.argv) > 2)\n"
)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """The batch system; its environment."""
    pytest.importorskip("parsl")
    if os.environ.get(ASKED, "0") in ("", "0"):
        pytest.skip(
            f"installs and starts Slurm on this machine: only where {ASKED}=1 allows that, as .ci/run does"
        )
    state = tmp_path_factory.mktemp("slurm")
    started = subprocess.run(
        [HERE / "slurm" / "slurm.sh", "start", state], capture_output=True, text=True, check=False
    )
    if started.returncode == 77:
        pytest.skip(f"no Slurm here: {started.stderr.strip() or 'its packages cannot be installed'}")
    assert started.returncode == 0, started.stderr
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    yield os.environ | {"SLURM_CONF": str(state / "slurm.conf"), "PYTHONPATH": path}
    subprocess.run(
        ["scancel", "--user=root"], env=os.environ | {"SLURM_CONF": str(state / "slurm.conf")}, check=False
    )
    subprocess.run([HERE / "slurm" / "slurm.sh", "stop", state], check=True)


class Driver:
    """A run under way."""

    def __init__(self, slurm, model, folder, *, seconds=0.5, walltime="00:10:00"):
        self.slurm, self.output = slurm, folder / "o"
        images = [bcc(a=2.8 + 0.01 * k) for k in range(N)]
        ase.io.write(folder / "a.extxyz", images)
        pool = {"provider": "slurm", "gpus_per_node": 2, "walltime": walltime, "lost_after": 15}
        (folder / "slurm.yaml").write_text("".join(f"{key}: {value}\n" for key, value in pool.items()))
        self.settings = {
            "paths": [str(folder / "a.extxyz")], "model": str(model), "output": str(self.output), "seconds": seconds,
            "executor": str(folder / "slurm.yaml"),
        }  # fmt: skip
        self.process = self.start()

    def start(self, *more):
        command = [sys.executable, "-c", SCRIPT, json.dumps(self.settings), *more]
        return subprocess.Popen(
            command, env=self.slurm, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    @property
    def n_done(self):
        path = self.output / FILE_NAME
        return path.read_bytes().count(b"\n") - 1 if path.is_file() else 0

    def wait_for(self, condition, seconds=240):
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.process.stdout.read()
            assert time.monotonic() < deadline, "nothing happened"
            time.sleep(0.2)

    def run(self, command):
        """A command of Slurm; its words."""
        return subprocess.run(
            command.split(), env=self.slurm, check=True, capture_output=True, text=True
        ).stdout.split()

    def jobs(self):
        return self.run("squeue -h -o %i")

    def workers(self):
        """Numbers of the processes that compute now."""
        return [json.loads(path.read_text())["pid"] for path in self.output.glob(f".mmace-*/{SIGN_OF_LIFE}")]

    def end(self, seconds=300):
        """Wait for the end; all results once each, in order, and nothing left behind."""
        output, _ = self.process.communicate(timeout=seconds)
        assert self.process.returncode == 0, output
        keys = [record["key"] for record in read_journal(self.output / FILE_NAME)[1:]]
        assert len(keys) == len(set(keys)) == N
        entries = summary_of(self.output)["structures"]
        assert [entry["index"] for entry in entries] == list(range(N))
        assert {entry["status"] for entry in entries} == {"finished"}
        assert not list(self.output.glob(".mmace-*/"))
        deadline = time.monotonic() + 30
        while self.jobs() and time.monotonic() < deadline:
            time.sleep(0.5)
        assert self.jobs() == []
        return entries


def test_two_gpus_one_for_each_worker(slurm, model, tmp_path):
    entries = Driver(slurm, model, tmp_path).end()
    gpus = {entry["pid"]: entry["gpu"] for entry in entries}
    assert sorted(gpus.values()) == ["0", "1"]


def test_a_job_that_is_cancelled(slurm, model, tmp_path):
    driver = Driver(slurm, model, tmp_path)
    driver.wait_for(lambda: driver.n_done >= 3)
    first = driver.jobs()
    driver.run(f"scancel {' '.join(first)}")
    entries = driver.end()
    assert len({entry["pid"] for entry in entries}) > 2


def test_a_worker_that_is_killed(slurm, model, tmp_path):
    driver = Driver(slurm, model, tmp_path)
    driver.wait_for(lambda: driver.n_done >= 2 and driver.workers())
    os.kill(driver.workers()[0], 9)
    driver.end()


def test_a_job_that_is_put_back_into_the_queue(slurm, model, tmp_path):
    driver = Driver(slurm, model, tmp_path)
    driver.wait_for(lambda: driver.n_done >= 3)
    driver.run(f"scontrol requeue {driver.jobs()[0]}")
    driver.end()


def test_a_killed_driver_takes_its_job_along(slurm, model, tmp_path):
    driver = Driver(slurm, model, tmp_path)
    driver.wait_for(lambda: driver.n_done >= 3)
    driver.process.kill()
    driver.process.communicate()
    deadline = time.monotonic() + 90
    while driver.jobs() and time.monotonic() < deadline:
        time.sleep(1)
    assert driver.jobs() == []
    driver.process = driver.start("resume")
    driver.end()


def test_a_node_that_is_drained(slurm, model, tmp_path):
    driver = Driver(slurm, model, tmp_path)
    driver.wait_for(lambda: driver.n_done >= 2)
    (node,) = driver.run("sinfo -h -N -o %N")
    driver.run(f"scontrol update nodename={node} state=drain reason=test")
    try:
        driver.wait_for(lambda: driver.n_done >= 4)
        driver.run(f"scancel {' '.join(driver.jobs())}")  # the next job waits until the node is back
        driver.wait_for(lambda: driver.run("squeue -h -t PD -o %i"))
        n_done = driver.n_done
        time.sleep(5)
        assert driver.n_done <= n_done + 2
    finally:
        driver.run(f"scontrol update nodename={node} state=resume")
    driver.end()


def test_the_time_limit_of_a_job(slurm, model, tmp_path):
    driver = Driver(slurm, model, tmp_path, seconds=12.0, walltime="00:01:00")
    entries = driver.end(seconds=600)
    assert len({entry["pid"] for entry in entries}) > 2
