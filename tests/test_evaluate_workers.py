"""``mmace-sim evaluate`` by workers, and what becomes of structures that kill them, that raise, and of a driver that dies."""

import os
import signal
from contextlib import contextmanager

import numpy as np
import pytest
from ase.io import write
from cli_tools import csv_rows, exit_code_of, in_a_copy, mmace_sim, names_in, summary_of
from test_shards import Lossy, in_child
from training_toys import toy_frames

from mmace_sim.engine import pieces
from mmace_sim.engine.journal import FILE_NAME, read_journal
from mmace_sim.engine.status import run_status
from mmace_sim.executors.interface import TaskFailure, ThisProcess
from mmace_sim.model.derivatives import evaluate
from mmace_sim.training.evaluation import timing

N = 24
OPTIONS = ("--batch-size", "4", "--no-figures", "--no-report", "--device", "cpu")
MARK = 2.75
"""Third component of the first moment of structures that the model does not survive."""


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Each piece is one batch."""
    for name in ("SECONDS", "FIRST_SECONDS", "LEAST_SECONDS"):
        monkeypatch.setattr(pieces, name, 0.0)


@pytest.fixture
def data(tmp_path):
    """Structures, of which one has an element that the model does not know."""
    frames = toy_frames(N)
    frames[2].symbols[:] = "Ni"
    write(tmp_path / "toys.extxyz", frames, format="extxyz")
    return tmp_path / "toys.extxyz"


def write_marked(path, *numbers):
    frames = toy_frames(N)
    for number in numbers:
        frames[number].arrays["REF_magmom"][0, 2] = MARK
    write(path, frames, format="extxyz")
    return path


def hurts(monkeypatch, what):
    """Let the model do something when it is given a marked structure."""

    def hurt(model, graph, **options):
        if (graph.magmoms[:, 2] == MARK).any():
            what()
        return evaluate(model, graph, **options)

    monkeypatch.setattr(timing, "evaluate", hurt)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def break_down():
    raise RuntimeError("no such moment")


@pytest.fixture
def workers(monkeypatch):
    """Workers that are copies of this process, one after another; those that end without a result have died."""

    def use(n_workers=2, fate=in_child):
        seen = []

        class Pool(ThisProcess):
            patience = 20.0

            def map(self, function, tasks, on_result, on_failure, watch=lambda: None):
                def compute(task):
                    seen.append([index for index, _ in task.items])
                    return fate(function, task)

                def failed(task, failure):
                    lost = "worker" if isinstance(failure.error, EOFError) else None
                    return on_failure(task, TaskFailure(failure.error, lost))

                super().map(compute, tasks, on_result, failed, watch)

        Pool.n_workers = n_workers
        use_executor(monkeypatch, Pool())
        return seen

    return use


def use_executor(monkeypatch, executor):
    @contextmanager
    def opened(choice, folder):
        assert choice == "local:2"
        assert folder.is_dir()
        yield executor

    monkeypatch.setattr(pieces, "open_executor", opened)


def results(folder):
    """All that an evaluation has found, without times."""
    summary = summary_of(folder)
    for key in ("created", "finished", "config", "timing"):
        del summary[key]
    return summary, csv_rows(folder / "structures.csv")


def test_workers_give_the_same_errors_to_the_last_bit(model, data, tmp_path, workers):
    start = ("evaluate", model, data, *OPTIONS)
    assert mmace_sim(*start, "-o", tmp_path / "one").exit_code == 3
    seen = workers()
    result = mmace_sim(*start, "-o", tmp_path / "two", "--executor", "local:2")
    assert result.exit_code == 3, result.output
    assert seen == [[0, 1, 3], *(list(range(k, k + 4)) for k in range(4, N, 4))]
    assert results(tmp_path / "two") == results(tmp_path / "one")
    assert names_in(tmp_path / "two") == names_in(tmp_path / "one")


def test_pieces_that_are_lost_are_computed_again(model, data, tmp_path, monkeypatch):
    start = ("evaluate", model, data, *OPTIONS)
    assert mmace_sim(*start, "-o", tmp_path / "one").exit_code == 3
    executor = Lossy(2)
    use_executor(monkeypatch, executor)
    assert mmace_sim(*start, "-o", tmp_path / "two", "--executor", "local:2").exit_code == 3
    assert executor.lost > 1
    one, two = (summary_of(tmp_path / name) for name in ("one", "two"))
    assert two["problems"] == one["problems"]
    for label, errors in one["overall"].items():
        assert two["overall"][label]["rmse"] == pytest.approx(errors["rmse"], rel=1e-9)
    keys = [record["key"] for record in read_journal(tmp_path / "two" / FILE_NAME)[1:]]
    assert len(keys) == len(set(keys)) == N - 1


def test_a_structure_that_kills_its_worker_fails_alone(model, tmp_path, monkeypatch, workers):
    monkeypatch.setattr(pieces, "FIRST_SECONDS", 1e9)
    path, out = write_marked(tmp_path / "toys.extxyz", 6, 17), tmp_path / "o"
    hurts(monkeypatch, die)
    seen = workers(1)
    result = mmace_sim("evaluate", model, path, *OPTIONS, "-o", out, "--executor", "local:2", "--json")
    assert result.exit_code == 3, result.output
    summary = summary_of(out)
    why = "not computed: the process that computed it was killed (no memory?) or crashed."
    assert summary["problems"] == [f"{path}@6: {why}", f"{path}@17: {why}"]
    assert (summary["n_structures"], summary["n_skipped"]) == (N - 2, 2)
    assert len(csv_rows(out / "structures.csv")) == N - 2
    assert f"skipped {path}@6: {why}" in (out / "log.txt").read_text()
    assert max(map(len, seen)) >= 8
    assert seen.count([6]) == 1  # a half is not tried twice
    assert not list(out.glob(".mmace-*/"))
    monkeypatch.setattr(timing, "evaluate", evaluate)  # with more memory
    again = workers(3)
    assert mmace_sim(
        "evaluate", model, path, *OPTIONS, "-o", out, "--executor", "local:2", "--resume"
    ).exit_code == 0  # fmt: skip
    assert again == [[6], [17]]
    assert summary_of(out)["n_structures"] == N


@pytest.mark.parametrize("choice", [(), ("--executor", "local:2")])
def test_a_structure_that_raises_fails_alone(model, tmp_path, monkeypatch, workers, choice):
    path, out = write_marked(tmp_path / "toys.extxyz", 0, 9), tmp_path / "o"
    hurts(monkeypatch, break_down)
    seen = workers()
    result = mmace_sim("evaluate", model, path, *OPTIONS, "-o", out, *choice)
    assert result.exit_code == 3, result.output
    summary = summary_of(out)
    why = "the model failed: RuntimeError: no such moment"
    assert summary["problems"] == [f"{path}@0: {why}", f"{path}@9: {why}"]
    assert (summary["n_structures"], summary["n_skipped"]) == (N - 2, 2)
    assert f"{N - 2} structures evaluated, 2 skipped" in result.output
    log = (out / "log.txt").read_text()
    assert "a batch of 4 structures raised RuntimeError: no such moment" in log
    assert f"{path}@0 raised RuntimeError: no such moment" in log
    assert run_status(out).failures == {f"{path}@{k}": f"failed: {why}" for k in (0, 9)}
    assert len(seen) == (6 if choice else 0)  # none is tried twice
    hurts(monkeypatch, lambda: None)  # as with more memory
    again = mmace_sim("evaluate", model, path, *OPTIONS, "-o", out, *choice, "--resume")
    assert again.exit_code == 0, again.output
    assert (summary_of(out)["n_structures"], summary_of(out)["problems"]) == (N, [])


def test_a_structure_of_which_no_graph_can_be_made_fails_alone(model, tmp_path):
    frames = toy_frames(6)
    frames[3].cell[1] = frames[3].cell[0]
    write(tmp_path / "toys.extxyz", frames, format="extxyz")
    result = mmace_sim("evaluate", model, tmp_path / "toys.extxyz", *OPTIONS, "-o", tmp_path / "o")
    assert result.exit_code == 3, result.output
    (problem,) = summary_of(tmp_path / "o")["problems"]
    assert problem.startswith(f"{tmp_path / 'toys.extxyz'}@3: ")
    planned = mmace_sim("evaluate", model, tmp_path / "toys.extxyz", "-o", tmp_path / "p", "--dry-run")
    assert "toys.extxyz@3: " in planned.output


def test_a_driver_that_is_killed_and_resumed_with_another_number_of_workers(model, data, tmp_path, workers):
    start = ("evaluate", model, data, *OPTIONS)
    assert mmace_sim(*start, "-o", tmp_path / "whole").exit_code == 3
    finished = []

    def until_the_third(function, task):
        finished.append(in_child(function, task))
        if len(finished) == 3:  # whose results nobody has taken over
            die()
        return finished[-1]

    workers(2, until_the_third)
    options = (*start, "-o", tmp_path / "o", "--executor", "local:2")
    assert exit_code_of(in_a_copy(mmace_sim, *options)) == -signal.SIGKILL
    known = [record["key"] for record in read_journal(tmp_path / "o" / FILE_NAME)[1:]]
    assert len(known) == 7  # of the first two pieces
    seen = workers(5)
    result = mmace_sim(*options, "--resume")
    assert result.exit_code == 3, result.output
    assert seen == [list(range(k, k + 4)) for k in range(12, N, 4)]  # the third was kept by its worker
    keys = [record["key"] for record in read_journal(tmp_path / "o" / FILE_NAME)[1:]]
    assert len(keys) == len(set(keys)) == N - 1
    assert results(tmp_path / "o") == results(tmp_path / "whole")
    assert not list((tmp_path / "o").glob(".mmace-*/"))


def test_the_driver_makes_no_graphs_of_what_workers_have_predicted(
    model, data, tmp_path, monkeypatch, workers
):
    workers()
    start = ("evaluate", model, data, *OPTIONS, "-o", tmp_path / "o", "--executor", "local:2")
    driver, graphs = os.getpid(), timing.Clock.graphs

    def elsewhere(*arguments):
        assert os.getpid() != driver
        return graphs(*arguments)

    monkeypatch.setattr(timing.Clock, "graphs", elsewhere)
    assert mmace_sim(*start).exit_code == 3
    assert np.isfinite(summary_of(tmp_path / "o")["overall"]["forces"]["rmse"])
