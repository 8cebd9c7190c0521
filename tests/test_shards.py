"""Runs in pieces: the same results whatever the pieces, whoever dies, in the order of the input."""

import contextlib
import json
import logging
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import ase.io
import numpy as np
import pytest
import torch
from cli_tools import assert_same, bcc, mmace_sim, names_in, summary_of, write_tiny_model

from mmace_sim.engine import pieces
from mmace_sim.engine.checkpoint import kept_checkpoints
from mmace_sim.engine.journal import CHECKPOINT, FILE_NAME, read_journal
from mmace_sim.engine.lifecycle import run_property
from mmace_sim.engine.output import check_versions, versions
from mmace_sim.engine.resume import item_key
from mmace_sim.engine.worker import compute_shard
from mmace_sim.errors import OutputError, UnsupportedOptionError
from mmace_sim.executors.interface import TaskFailure
from mmace_sim.files import manifest

HERE = Path(__file__).parent
QUICK = {
    "relax": ("--max-steps", "12", "--no-stability"),
    "eos": ("--n-volumes", "5", "--magmoms", "fixed", "--no-figures"),
    "md": ("--spins", "llg", "--steps", "4", "--every", "2", "--no-figures"),
    "exchange": (
        "--cutoff",
        "3",
        "--magmoms",
        "fixed",
        "--lengths",
        "rigid",
        "--routes",
        "derivatives",
        "--no-figures",
    ),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", spin_orbit=True)


@pytest.fixture
def inputs(tmp_path):
    images = [bcc(a=2.84 + 0.01 * k, displacement=0.01 * k) for k in (3, 0, 2, 1, 0)]  # one of them twice
    ase.io.write(tmp_path / "a.extxyz", images)
    return tmp_path / "a.extxyz"


def in_child(function, task):
    """Apply a function in a copy of this process, which knows nothing of the run."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that the copy lacks
        child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            manifest._active.clear()
            for name in ("mmace_sim", "py.warnings"):
                logging.getLogger(name).handlers.clear()
            os.write(writing, pickle.dumps(function(task)))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        content = pipe.read()
    os.waitpid(child, 0)
    return pickle.loads(content)


class Lossy:
    """Computes pieces in other processes, one after another, some in vain: as if their workers had died before, within or after their work."""

    n_workers, patience = 3, 20.0

    def __init__(self, seed):
        self.random, self.sizes, self.lost = random.Random(seed), [], 0

    def map(self, function, tasks, on_result, on_failure, watch=lambda: None):
        source, waiting = iter(tasks), []
        while True:
            while len(waiting) < self.n_workers and (task := next(source, None)) is not None:
                waiting.append(task)
            if not waiting:
                return
            task = waiting.pop(self.random.randrange(len(waiting)))
            self.sizes.append(len(task.items))
            fate = self.random.choice(["well", "before", "after", "half", "well"])
            if fate in ("well", "after"):
                end = in_child(function, task)
            elif fate == "half":
                in_child(function, replace(task, items=task.items[:1]))
            watch()
            if fate == "well":
                on_result(task, end)
            else:
                self.lost += 1
                waiting.extend(on_failure(task, TaskFailure(RuntimeError("gone"), "block")))


@pytest.fixture
def lossy(monkeypatch):
    """No Parsl: pieces are computed one after another."""
    executors = []

    @contextlib.contextmanager
    def opened(choice, folder):
        executors.append(Lossy(int(choice.partition(":")[2])))
        assert folder.is_dir()
        yield executors[-1]

    monkeypatch.setattr(pieces, "open_executor", opened)
    return executors


@pytest.mark.parametrize("command", QUICK)
def test_pieces_give_what_one_process_gives(command, model, inputs, tmp_path, lossy):
    arguments = (command, inputs, "-m", model, *QUICK[command])
    whole = mmace_sim(*arguments, "-o", tmp_path / "whole")
    assert whole.exit_code in (0, 3), whole.output
    folder = tmp_path / "parts"
    parts = mmace_sim(*arguments, "-o", folder, "--executor", "local:2")
    assert parts.exit_code == whole.exit_code, parts.output
    assert_same(summary_of(folder)["structures"], summary_of(tmp_path / "whole")["structures"])
    assert names_in(folder) == names_in(tmp_path / "whole")
    (executor,) = lossy
    assert len(executor.sizes) > 3
    assert executor.lost > 0
    ase.io.write(tmp_path / "one.extxyz", bcc())
    again = mmace_sim(command, tmp_path / "one.extxyz", *arguments[2:], "-o", folder, "--force")
    assert again.exit_code in (0, 3), again.output  # every file is the run's own
    assert not list(folder.glob("**/*.kept*"))


@pytest.mark.usefixtures("lossy")
def test_a_full_disk_ends_the_run(model, inputs, tmp_path, monkeypatch):
    def full(_executor, _function, tasks, _on_result, on_failure, _watch):
        (first, *_) = tasks
        on_failure(first, TaskFailure(OutputError("finished.jsonl: No space left on device.")))

    monkeypatch.setattr(Lossy, "map", full)
    result = mmace_sim("relax", inputs, "-m", model, "-o", tmp_path / "o", "--executor", "local:1")
    assert result.exit_code == 2
    assert "No space left" in result.output


@pytest.fixture
def pool(monkeypatch):
    """Workers that do with each piece what a function of it says, one after another."""

    def use(fate):
        class Pool(Lossy):
            patience = 20.0
            n_workers = 1
            seen: ClassVar[list] = []

            def map(self, function, tasks, on_result, on_failure, watch=lambda: None):
                waiting, source = [], iter(tasks)
                while (task := waiting.pop(0) if waiting else next(source, None)) is not None:
                    self.seen.append(task)
                    end = fate(function, task)
                    watch()
                    if isinstance(end, TaskFailure):
                        waiting += on_failure(task, end)
                    else:
                        on_result(task, end)

        @contextlib.contextmanager
        def opened(choice, folder):
            del choice, folder
            yield Pool(0)

        monkeypatch.setattr(pieces, "open_executor", opened)
        return Pool.seen

    return use


DEAD = TaskFailure(RuntimeError("gone"), "worker")


@pytest.mark.parametrize("left", ["nothing", "died"])
def test_what_no_worker_survived_is_tried_again(model, inputs, tmp_path, pool, left):
    pool(lambda _function, _task: pieces.PieceEnd(0, 1.0) if left == "nothing" else DEAD)
    start = ("relax", inputs, "-m", model, "-o", tmp_path / "o", *QUICK["relax"])
    pieces.PATIENCE, before = 0.0, pieces.PATIENCE
    try:
        assert mmace_sim(*start, "--executor", "local:1").exit_code == 3
    finally:
        pieces.PATIENCE = before
    entries = summary_of(tmp_path / "o")["structures"]
    assert {entry["status"] for entry in entries} == {"failed"}
    assert (
        "left no result" in entries[0]["message"] if left == "nothing" else "killed" in entries[0]["message"]
    )
    mmace_sim(*start, "--resume")
    assert "failed" not in {entry["status"] for entry in summary_of(tmp_path / "o")["structures"]}


def test_one_deadly_structure_is_found_by_halving(model, tmp_path, pool, monkeypatch):
    monkeypatch.setattr(pieces, "FIRST_SECONDS", 1e9)
    ase.io.write(tmp_path / "a.extxyz", [bcc(a=2.84 + 0.001 * k) for k in range(64)])

    def fate(function, task):
        return DEAD if 37 in [item.index for item in task.items] else in_child(function, task)

    seen = pool(fate)
    options = ("--max-steps", "0", "--no-stability", "--executor", "local:1")
    assert (
        mmace_sim("relax", tmp_path / "a.extxyz", "-m", model, "-o", tmp_path / "o", *options).exit_code == 3
    )
    entries = summary_of(tmp_path / "o")["structures"]
    assert [entry["index"] for entry in entries if entry["status"] == "failed"] == [37]
    assert len(seen) < 25  # not one for each of the 32 structures of its first piece


def test_what_was_under_way_goes_along_with_its_structures(model, inputs, tmp_path, pool):
    def fate(function, task):
        if len(task.items) == 1:
            return in_child(function, task)
        keys = [f"{item_key(item)} any" for item in task.items[:-1]]
        head = {"version": 0, "identity": "", "batches": [{"keys": keys}]}
        np.savez(task.own / CHECKPOINT, head=np.array(json.dumps(head)))
        return DEAD

    seen = pool(fate)
    start = ("relax", inputs, "-m", model, "-o", tmp_path / "o", *QUICK["relax"])
    assert mmace_sim(*start, "--executor", "local:1").exit_code == 3
    first = next(task for task in seen if len(task.items) > 1)
    assert first.checkpoints == ()
    alone = {task.items[0].index: task.checkpoints for task in seen if len(task.items) == 1}
    with_one = {item.index for task in seen if len(task.items) > 1 for item in task.items[:-1]}
    assert {index for index, checkpoints in alone.items() if checkpoints} == with_one
    assert not list((tmp_path / "o").glob("*.npz"))  # the run has ended


def twice_with_one_thread(task):
    torch.set_num_threads(2)
    compute_shard(replace(task, items=task.items[:1]))
    torch.set_num_threads(2)  # what a worker begins each task with
    end = compute_shard(task)
    assert torch.get_num_threads() == 1
    return end


def test_threads_and_limits_reach_every_piece(model, inputs, tmp_path, pool):
    seen = pool(lambda _function, task: in_child(twice_with_one_thread, task))
    start = ("relax", inputs, "-m", model, "-o", tmp_path / "o", *QUICK["relax"], "--threads", "1")
    assert mmace_sim(*start, "--executor", "local:1").exit_code == 3
    assert "failed" not in {entry["status"] for entry in summary_of(tmp_path / "o")["structures"]}
    assert {task.limit for task in seen} == {pieces.LEAST_LIMIT}


def test_limits_of_pieces():
    pace = pieces._Pace(4, 8000.0)
    assert pace.limit(1000.0, 20.0) == 10 * 20.0 * 1000.0
    pace.measured(20.0, 40.0)
    assert pace.limit(1000.0, 20.0) == pytest.approx(2 * 20.0 * 1000.0)
    assert pace.limit(1.0, 20.0) == pieces.LEAST_LIMIT
    assert pace.limit(1000.0, 0.0) is None


def test_workers_with_other_packages_are_refused():
    check_versions(versions())
    with pytest.raises(UnsupportedOptionError, match=r"torch .* \(not 0.1\)"):
        check_versions(versions() | {"torch": "0.1"})


def test_pieces_shrink_and_follow_what_is_measured():
    pace = pieces._Pace(4, 8000.0)
    assert pace.next() == pieces.FIRST_SECONDS
    pace.measured(20.0, 40.0)  # twice as slow as estimated
    assert pace.next() == pytest.approx(0.5 * pieces.SECONDS)
    pace.left = 80.0
    assert pace.next() == pytest.approx(10.0)
    pace.left = 1.0
    assert pace.next() == pytest.approx(0.5 * pieces.LEAST_SECONDS)


def test_of_what_workers_had_under_way_the_newest_counts(tmp_path):
    for age, name in enumerate(
        ("mmace-b-checkpoint.npz", "checkpoint.npz", "mmace-a-checkpoint.npz", "other.npz")
    ):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 1000 - age))
    assert [path.name for path in kept_checkpoints(tmp_path)] == [
        "mmace-a-checkpoint.npz", "checkpoint.npz", "mmace-b-checkpoint.npz"
    ]  # fmt: skip


# --- real workers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def importable(monkeypatch):
    """Workers import the property of the tests."""
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    )
    monkeypatch.syspath_prepend(str(HERE))


def slow_settings(model, paths, output, **more):
    from slow_property import SLOW

    return SLOW.settings(paths=[str(paths)], model=str(model), output=str(output), **more)


def energies(folder):
    return [entry.get("energy") for entry in summary_of(folder)["structures"]]


@pytest.mark.usefixtures("importable")
def test_workers_that_die_and_structures_that_kill_them(model, tmp_path, monkeypatch, capfd):
    pytest.importorskip("parsl")
    from slow_property import SLOW

    images = [bcc(a=2.8 + 0.01 * k) for k in range(12)]
    ase.io.write(tmp_path / "good.extxyz", images)
    images[3].info["deadly"] = "once"
    images[5].info["deadly"] = "always"
    images[8].info["raises"] = True
    ase.io.write(tmp_path / "a.extxyz", images)
    monkeypatch.chdir(tmp_path)
    expected = run_property(SLOW, slow_settings(model, tmp_path / "good.extxyz", "one"), quiet=True)
    outcome = run_property(
        SLOW, slow_settings(model, "a.extxyz", "two", executor="local:2", seconds=0.2), quiet=True
    )
    entries = outcome.summary["structures"]
    assert outcome.code == 3
    assert [entry["index"] for entry in entries] == list(range(12))
    assert {k: entry["message"] for k, entry in enumerate(entries) if entry["status"] == "failed"} == {
        5: "not computed: the process that computed it was killed (no memory?) or crashed.",
        8: "not computed: RuntimeError: this one breaks the loop.",
    }
    good = [k for k in range(12) if k not in (5, 8)]
    np.testing.assert_allclose(
        [entries[k]["energy"] for k in good],
        [expected.summary["structures"][k]["energy"] for k in good],
        rtol=0,
        atol=1e-10,
    )
    assert len({entries[k]["pid"] for k in good}) >= 2
    assert os.getpid() not in {entries[k]["pid"] for k in good}
    keys = [record["key"] for record in read_journal(Path("two") / FILE_NAME)[1:]]
    assert len(keys) == len(set(keys)) == 12
    assert all((Path("two") / f"a_{k}" / "energy.csv").is_file() for k in good)
    assert not list(Path("two").glob(".mmace-*/"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.extxyz", "good.extxyz", "one", "two"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGKILL, marks=pytest.mark.stress), signal.SIGTERM]
)  # a driver without a last word is killed in test_volumes.py too
def test_a_driver_that_is_killed_and_resumed_with_others(model, tmp_path, number):
    pytest.importorskip("parsl")
    from slow_property import SLOW

    images = [bcc(a=2.8 + 0.005 * k) for k in range(30)]
    ase.io.write(tmp_path / "a.extxyz", images)
    settings = slow_settings(model, tmp_path / "a.extxyz", tmp_path / "o", executor="local:2", seconds=0.4)
    code = (
        "import sys\nfrom mmace_sim.engine.lifecycle import run_property\nfrom mmace_sim.base.signals import interruptible\n"
        "from slow_property import SLOW\n"
        "with interruptible():\n"
        "    run_property(SLOW, SLOW.settings.model_validate_json(sys.argv[1]), quiet=True)\n"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", code, settings.model_dump_json()], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    journal = tmp_path / "o" / FILE_NAME
    while time.monotonic() < deadline and not (journal.is_file() and journal.read_bytes().count(b"\n") > 4):
        time.sleep(0.1)
    driver.send_signal(number)
    assert "Traceback" not in driver.communicate()[1] or number == signal.SIGTERM
    assert driver.returncode != 0
    n_before = journal.read_bytes().count(b"\n") - 1
    assert 4 <= n_before < 30
    outcome = run_property(SLOW, settings.model_copy(update={"executor": None, "seconds": 0.0}), resume=True)
    assert outcome.code == 0
    assert outcome.n_resumed >= n_before
    keys = [record["key"] for record in read_journal(journal)[1:]]
    assert len(keys) == len(set(keys)) == 30
    entries = outcome.summary["structures"]
    assert sum(entry["pid"] == os.getpid() for entry in entries) == 30 - outcome.n_resumed
    shutil.rmtree(tmp_path / "o")
    whole = run_property(SLOW, settings.model_copy(update={"executor": None, "seconds": 0.0}))
    assert [e["energy"] for e in whole.summary["structures"]] == pytest.approx(
        [e["energy"] for e in entries], abs=1e-10
    )
