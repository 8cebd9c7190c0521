"""Large runs: many small ones, the same results, nothing lost or doubled whoever dies."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import pytest
from cli_tools import bcc, mmace_sim, summary_of
from test_shards import Lossy, assert_same

from mmace_sim.engine import cuts, pieces, volumes
from mmace_sim.engine.declaration import GOOD
from mmace_sim.engine.journal import FILE_NAME, read_journal
from mmace_sim.engine.lifecycle import run_property
from mmace_sim.engine.run import Run
from mmace_sim.engine.status import run_status
from mmace_sim.engine.table import join_tables, write_table
from mmace_sim.executors.interface import ThisProcess
from mmace_sim.io import spans
from mmace_sim.io.collection import find_structures

HERE = Path(__file__).parent
QUICK = ("--max-steps", "5", "--no-stability", "-q")


@pytest.fixture
def small_volumes(monkeypatch):
    """Eleven structures are a large run, of volumes of four."""
    monkeypatch.setattr(spans, "LIMIT", 10)
    monkeypatch.setattr(spans, "MAX_STRUCTURES", 4)


@pytest.fixture
def inputs(tmp_path):
    images = [bcc(a=2.84 + 0.003 * k, displacement=0.01 * k) for k in range(13)]
    images[6].numbers[0] = 79
    ase.io.write(tmp_path / "a.extxyz", images)
    (tmp_path / "more").mkdir()
    for k in range(2):
        ase.io.write(tmp_path / "more" / f"b{k}.cif", bcc(magmoms=None))
    (tmp_path / "more" / "note.json").write_text("{}")
    return [tmp_path / "a.extxyz", tmp_path / "more"]


def entries_of(folder):
    """Of all volumes, in their order."""
    parts = sorted((folder / "volumes").iterdir())
    return [entry for part in parts for entry in summary_of(part)["structures"]]


def without_names(entries):
    return [
        {key: value for key, value in entry.items() if key not in ("name", "message")} for entry in entries
    ]


@pytest.mark.usefixtures("small_volumes")
def test_a_large_run_gives_what_a_small_one_gives(model, inputs, tmp_path, monkeypatch):
    pq = pytest.importorskip("pyarrow.parquet")
    large = ("relax", *inputs, "-m", model, *QUICK, "-o", tmp_path / "large")
    result = mmace_sim(*large, "--report")
    assert result.exit_code == 3, result.output
    entries, summary = entries_of(tmp_path / "large"), summary_of(tmp_path / "large")
    assert (summary["n_structures"], summary["n_skipped"], summary["n_volumes"]) == (15, 1, 4)
    assert summary["statuses"]["failed"] == 1
    assert "sample" in summary["notes"][0]
    assert len(summary["structures"]) == 15  # fewer than a sample has
    table = pq.read_table(tmp_path / "large" / "summary.parquet").to_pylist()
    assert [row["energy"] for row in table] == pytest.approx(
        [entry["energy"] for entry in entries], abs=1e-12
    )
    assert [row["name"] for row in table] == [entry["name"] for entry in entries]
    assert dict(table[0]["magmom_by_species"]) == entries[0]["magmom_by_species"]
    assert table[0]["cell"] == entries[0]["cell"]
    assert "sample" in (tmp_path / "large" / "report.html").read_text()
    status = run_status(tmp_path / "large")
    assert (status.done, status.written, status.statuses) == (15, True, summary["statuses"])
    assert len(status.failures) == sum(n for s, n in summary["statuses"].items() if s not in GOOD)
    assert any(message.startswith("failed: ") for message in status.failures.values())
    one = (tmp_path / "large" / "volumes" / "00000" / "summary.json").read_text()
    assert one.count("\n") == 1
    assert (
        "15 of 16 results" in mmace_sim("status", tmp_path / "large").output
    )  # note.json was not yet known to be none
    relaxed = list(find_structures([tmp_path / "large"]))
    assert [path.parent.name for path in relaxed] == ["00000", "00001", "00002", "00003"]
    monkeypatch.setattr(spans, "LIMIT", 100)
    small = mmace_sim("relax", *inputs, "-m", model, *QUICK, "-o", tmp_path / "small")
    assert small.exit_code == 3
    assert_same(without_names(entries), without_names(summary_of(tmp_path / "small")["structures"]))
    again = mmace_sim(*large, "--force")
    assert again.exit_code == 3, again.output
    assert not (tmp_path / "large" / "volumes").exists()
    assert not list((tmp_path / "large").glob("*.parquet"))


@pytest.mark.usefixtures("small_volumes")
def test_more_steps_and_other_structures_when_it_is_resumed(model, inputs, tmp_path):
    start = ("relax", *inputs, "-m", model, "-o", tmp_path / "o", "--no-stability", "-q")
    assert mmace_sim(*start, "--max-steps", "2").exit_code == 3
    assert mmace_sim(*start, "--max-steps", "4", "--resume").exit_code == 3
    assert {entry["steps"] for entry in entries_of(tmp_path / "o")} == {0, 4}
    before = (tmp_path / "o" / FILE_NAME).read_bytes()
    assert mmace_sim(*start, "--max-steps", "4", "--resume").exit_code == 3
    assert (tmp_path / "o" / FILE_NAME).read_bytes() == before
    ase.io.write(inputs[0], [bcc()] * 13)
    changed = mmace_sim(*start, "--max-steps", "4", "--resume")
    assert changed.exit_code == 2
    assert "cannot be resumed, inputs differs: 00000" in changed.output


@pytest.mark.usefixtures("small_volumes")
def test_cuts_stay_when_others_compute(model, inputs, tmp_path, monkeypatch):
    """A run that was cut for many workers, then for other sizes of volumes, is resumed without any."""
    monkeypatch.setattr(cuts, "LEAST_SECONDS", 0.1)
    monkeypatch.setattr(cuts, "count_workers", lambda _: (2, False))
    start = ("relax", *inputs, "-m", model, "-o", tmp_path / "o", "--no-stability", "-q")
    assert mmace_sim(*start, "--max-steps", "2").exit_code == 3
    n_volumes = summary_of(tmp_path / "o")["n_volumes"]
    assert n_volumes > 6
    monkeypatch.setattr(cuts, "count_workers", lambda _: (1, False))
    monkeypatch.setattr(spans, "MAX_STRUCTURES", 3)
    assert mmace_sim(*start, "--max-steps", "4", "--resume").exit_code == 3
    assert summary_of(tmp_path / "o")["n_volumes"] == n_volumes
    assert [entry["index"] for entry in entries_of(tmp_path / "o")] == [*range(13), 0, 0]
    assert {entry["steps"] for entry in entries_of(tmp_path / "o")} == {0, 4}
    ase.io.write(tmp_path / "more" / "c.cif", bcc(magmoms=None))
    more = mmace_sim(*start, "--max-steps", "4", "--resume")
    assert more.exit_code == 2
    assert "cannot be resumed, inputs differs" in more.output
    monkeypatch.setattr(spans, "LIMIT", 100)
    assert mmace_sim(*start[:-1], "-q", "--max-steps", "4", "--force").exit_code == 3  # a small run
    monkeypatch.setattr(spans, "LIMIT", 10)
    assert "inputs differs" in mmace_sim(*start, "--max-steps", "4", "--resume").output


@pytest.mark.usefixtures("small_volumes")
def test_status_tells_who_computes(model, inputs, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def opened(choice, folder):
        del choice, folder
        yield ThisProcess()

    seen, keep = [], Run.keep

    def looked(run, record):
        keep(run, record)
        deadline = time.monotonic() + 10
        while not list((tmp_path / "o").glob(".mmace-*/volume-*.json")) and time.monotonic() < deadline:
            time.sleep(0.02)
        seen.append((run_status(tmp_path / "o"), mmace_sim("status", tmp_path / "o").output))

    monkeypatch.setattr(volumes, "open_executor", opened)
    monkeypatch.setattr(Run, "keep", looked)
    result = mmace_sim("relax", *inputs, "-m", model, *QUICK, "-o", tmp_path / "o", "--executor", "local:2")
    assert result.exit_code == 3, result.output
    found, text = seen[5]
    (worker,) = found.workers
    assert (worker.pid, worker.done, worker.of) == (os.getpid(), 2, 4)
    assert f"Worker {os.getpid()} on {worker.host}: 2 of 4 of its piece." in text
    assert found.rate > 0
    assert found.seconds_left > 0
    assert run_status(tmp_path / "o").workers == []


@pytest.mark.usefixtures("small_volumes")
def test_without_pyarrow_the_table_is_csv(model, inputs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert mmace_sim("relax", *inputs, "-m", model, *QUICK, "-o", tmp_path / "o").exit_code == 3
    lines = (tmp_path / "o" / "summary.csv").read_text().splitlines()
    assert len(lines) == 16
    assert lines[0].startswith("name,file,index")
    assert not list((tmp_path / "o").rglob("*.parquet"))


@pytest.mark.usefixtures("small_volumes")
@pytest.mark.parametrize("seed", [1, 2])
def test_volumes_that_lose_their_workers(model, inputs, tmp_path, monkeypatch, seed):
    """Some are lost before, after or in the middle of their work; those that are lost again and again go in pieces."""

    class Fates(Lossy):
        def map(self, function, tasks, on_result, on_failure, watch=lambda: None):
            if function is not volumes.compute_volume:
                super().map(function, tasks, on_result, on_failure, watch)
                return
            waiting = list(tasks)
            while waiting:
                task = waiting.pop(0)
                fate = self.random.choice(["well", "before", "after"])
                if fate != "before":
                    end = function(task)
                watch()
                if fate == "well":
                    on_result(task, end)
                else:
                    waiting += on_failure(task, pieces.TaskFailure(RuntimeError("gone"), "worker"))

    @contextlib.contextmanager
    def opened(choice, folder):
        del choice
        assert folder.is_dir()
        yield Fates(seed)

    monkeypatch.setattr(volumes, "open_executor", opened)
    monkeypatch.setattr(pieces, "open_executor", opened)
    monkeypatch.setattr(spans, "LIMIT", 100)
    assert mmace_sim("relax", *inputs, "-m", model, *QUICK, "-o", tmp_path / "small").exit_code == 3
    monkeypatch.setattr(spans, "LIMIT", 10)
    result = mmace_sim("relax", *inputs, "-m", model, *QUICK, "-o", tmp_path / "o", "--executor", "local:2")
    assert result.exit_code == 3, result.output
    assert_same(
        without_names(entries_of(tmp_path / "o")), without_names(summary_of(tmp_path / "small")["structures"])
    )
    keys = [record["key"] for record in read_journal(tmp_path / "o" / FILE_NAME)[1:]]
    assert sorted(keys) == ["00000", "00001", "00002", "00003"]


@pytest.mark.usefixtures("small_volumes")
def test_a_dry_run_reads_one_volume(model, inputs, tmp_path):
    result = mmace_sim("relax", *inputs, "-m", model, "-o", tmp_path / "o", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "16 structures in 4 volumes. Of the first:" in result.output
    assert "a.extxyz#3" in result.output
    assert "a.extxyz#4" not in result.output
    assert not (tmp_path / "o").exists()


def test_tables_of_parts_with_other_columns(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    write_table(tmp_path / "0.parquet", [{"a": 1, "b": None, "c": [1, 2], "d": {"Fe": 2.0}, "e": [{"x": 1}]}])
    write_table(tmp_path / "1.parquet", [{"a": 1.5, "b": "text", "c": None, "f": True}, {"a": None}])
    assert join_tables(tmp_path / "all.parquet", [tmp_path / "0.parquet", tmp_path / "1.parquet"]) == 3
    rows = pq.read_table(tmp_path / "all.parquet").to_pylist()
    assert [row["a"] for row in rows] == [1.0, 1.5, None]
    assert [row["b"] for row in rows] == [None, "text", None]
    assert rows[0]["c"] == [1, 2]
    assert rows[0]["d"] == [("Fe", 2.0)]
    assert json.loads(rows[0]["e"]) == [{"x": 1}]
    assert [row["f"] for row in rows] == [None, True, None]


SCRIPT = """
import sys
from mmace_sim.base.signals import interruptible
from mmace_sim.engine.lifecycle import run_property
from mmace_sim.io import spans
from slow_property import SLOW
spans.LIMIT, spans.MAX_STRUCTURES = 10, 7
with interruptible():
    run_property(SLOW, SLOW.settings.model_validate_json(sys.argv[1]), resume=sys.argv[2] == "resume", quiet=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("n_times", "n"), [(3, 30), pytest.param(10, 60, marks=pytest.mark.stress)])
def test_nothing_is_lost_or_doubled_whoever_is_killed(model, tmp_path, monkeypatch, n_times, n):
    """Driver, or workers, killed at several instants of one run that is resumed each time."""
    pytest.importorskip("parsl")
    from slow_property import SLOW

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]))
    ase.io.write(tmp_path / "a.extxyz", [bcc(a=2.8 + 0.002 * k) for k in range(n)])
    settings = SLOW.settings(
        paths=[str(tmp_path / "a.extxyz")], model=str(model), output=str(tmp_path / "o"), seconds=0.3,
        executor="local:2",
    )  # fmt: skip
    chance, finished = random.Random(3), False
    for attempt in range(n_times):
        begun = (tmp_path / "o" / FILE_NAME).is_file()
        command = [sys.executable, "-c", SCRIPT, settings.model_dump_json(), "resume" if begun else "new"]
        driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        seen, deadline = n_results(tmp_path / "o"), time.monotonic() + 120
        more = chance.randrange(1, 8)
        while (
            driver.poll() is None and n_results(tmp_path / "o") < seen + more and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        if attempt % 2:
            for pid in workers_of(driver.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(1.0)
        driver.kill()
        driver.communicate()
        finished = finished or driver.returncode == 0
    outcome = run_property_of(settings)
    assert outcome.code == 0
    assert outcome.summary["n_structures"] == n
    keys = [
        record["key"]
        for path in sorted((tmp_path / "o" / "volumes").glob(f"*/{FILE_NAME}"))
        for record in read_journal(path)[1:]
    ]
    assert keys == [f"{tmp_path / 'a.extxyz'}#{k}" for k in range(n)]
    entries = entries_of(tmp_path / "o")
    assert [entry["index"] for entry in entries] == list(range(n))
    assert all(entry["status"] == "finished" for entry in entries)


def run_property_of(settings):
    """Go on with the run, without workers."""
    from slow_property import SLOW

    limits = spans.LIMIT, spans.MAX_STRUCTURES
    spans.LIMIT, spans.MAX_STRUCTURES = 10, 7
    try:
        alone = settings.model_copy(update={"executor": None, "seconds": 0.0})
        return run_property(SLOW, alone, resume=True, quiet=True)
    finally:
        spans.LIMIT, spans.MAX_STRUCTURES = limits


def n_results(folder):
    return sum(path.read_bytes().count(b"\n") for path in folder.glob(f"volumes/*/{FILE_NAME}"))


def workers_of(driver):
    """Processes of the driver's session that compute."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == driver and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found
