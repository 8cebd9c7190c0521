"""How far a run is, from its folder."""

import json
import time

import ase.io
import pytest
from cli_tools import bcc, mmace_sim, write_tiny_model
from training_toys import toy_frames

from mmace_sim.engine.journal import FILE_NAME, SIGN_OF_LIFE, Journal
from mmace_sim.engine.resume import Task
from mmace_sim.engine.run import Run
from mmace_sim.engine.status import run_status


@pytest.fixture
def start(tmp_path):
    model = write_tiny_model(tmp_path / "tiny.safetensors")
    images = [bcc(a=2.84 + 0.01 * k) for k in range(4)]
    images.insert(2, bcc(magmoms=None))
    images[2].numbers[0] = 79
    ase.io.write(tmp_path / "a.extxyz", images)
    options = ("--max-steps", "3", "--fixed-cell", "--no-stability", "-q")
    return ("relax", tmp_path / "a.extxyz", "-m", model, "-o", tmp_path / "o", *options)


def test_a_run_that_is_under_way_then_interrupted_then_finished(start, tmp_path, monkeypatch):
    folder, seen = tmp_path / "o", []
    keep = Run.keep

    def interrupted(run, record):
        keep(run, record)
        if len(run.whole.records) == 2:
            own = folder / ".mmace-0123456789abcdef"
            own.mkdir()
            with Journal(own / FILE_NAME) as journal:
                journal.append({"identity": "any"})
                journal.append(
                    {"key": "other", "entry": {"name": "other", "status": "failed", "message": "no"}}
                )
            about = {"host": "node1", "pid": 7, "gpu": "1", "done": 1, "of": 3, "time": time.time()}
            (own / SIGN_OF_LIFE).write_text(json.dumps(about))
            found = mmace_sim("status", folder)
            seen.extend([run_status(folder), found.output])
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "keep", interrupted)
    assert mmace_sim(*start).exit_code == 130
    during, text = seen
    assert (during.running, during.done, during.total, during.statuses["failed"]) == (True, 3, None, 1)
    assert during.rate > 0
    assert "mmace-sim relax, running" in text
    assert "Worker 7 on node1, GPU 1: 1 of 3 of its piece." in text
    assert "other: failed: no" in text
    monkeypatch.undo()
    after = run_status(folder)
    assert (after.running, after.written, after.total, after.done, after.workers) == (False, False, 4, 2, [])
    assert "go on with --resume" in mmace_sim("status", folder).output
    assert mmace_sim(*start, "--resume").exit_code == 3
    told = json.loads(mmace_sim("status", folder, "--json").output)
    assert (told["running"], told["written"], told["total"], told["done"]) == (False, True, 4, 4)
    assert sum(told["statuses"].values()) == 4
    assert set(told["failures"]) <= {f"a.extxyz#{k}" for k in (0, 1, 3, 4)}
    assert told["seconds_left"] is None


def test_an_evaluation_knows_its_end(model, tmp_path, monkeypatch):
    frames = toy_frames(7)
    frames[6].numbers[:] = 79  # unknown to the model
    ase.io.write(tmp_path / "toys.extxyz", frames, format="extxyz")
    seen, store = [], Task.store

    def looked(task, key, record):
        store(task, key, record)
        seen.append((run_status(tmp_path / "e"), mmace_sim("status", tmp_path / "e").output))

    monkeypatch.setattr(Task, "store", looked)
    options = ("--batch-size", "2", "--no-figures", "--no-report", "-q", "-o", tmp_path / "e")
    assert mmace_sim("evaluate", model, tmp_path / "toys.extxyz", *options).exit_code == 3
    during, text = seen[3]
    assert (during.total, during.done) == (6, 4)
    assert during.seconds_left > 0
    assert "4 of 6 results" in text
    assert "left." in text
    after = run_status(tmp_path / "e")
    assert (after.total, after.done, after.written, after.failures) == (6, 6, True, {})


def test_no_run(tmp_path):
    result = mmace_sim("status", tmp_path)
    assert result.exit_code == 2
    assert "holds no run" in result.output
