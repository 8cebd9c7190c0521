"""Signals, checkpoints of the batch under way, and lines of progress."""

import gc
import os
import shutil
import signal
import time

import ase.io
import numpy as np
import pytest
from cli_tools import bcc, exit_code_of, in_a_copy, mmace_sim, names_in, summary_of, write_tiny_model
from counting import fcc

from mmace_sim.base.signals import Interrupted, deferred, exit_code, interruptible
from mmace_sim.engine import checkpoint as checkpoint_module
from mmace_sim.engine import progress as progress_module
from mmace_sim.engine.checkpoint import BatchCheckpoint
from mmace_sim.engine.progress import INTERVAL_VARIABLE, Heartbeat
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.properties.relax.relaxation import Relaxation
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim import MagneticMaceModel

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
TIGHT = {"fmax": 1e-4, "stress_tol": 1e-3, "magforce_tol": 1e-5, "max_steps": 1000, "max_batch_atoms": 12}


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_the_end_of_a_step(number):
    order, before = [], signal.signal(number, signal.SIG_DFL)  # nohup has the tests ignore SIGHUP

    def step():
        with deferred(lambda: order.append("kept")):
            os.kill(os.getpid(), number)
            order.append("finished")

    with interruptible(), pytest.raises(Interrupted) as caught:
        step()
    signal.signal(number, before)
    assert order == ["finished", "kept"]
    assert exit_code(caught.value) == 128 + number


def test_a_second_signal_does_not_wait():
    # a shell has the jobs that it puts into the background ignore SIGINT
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGINT)}

    def step():
        with deferred():
            signal.raise_signal(signal.SIGTERM)  # to this thread: os.kill may reach another one first
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("must not come here")

    with interruptible(), pytest.raises(Interrupted, match="SIGINT"):
        step()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def same(one, two, tolerance=0.0):
    for a, b in zip(one, two, strict=True):
        assert (a.status, a.steps) == (b.status, b.steps)
        np.testing.assert_allclose(a.energy, b.energy, rtol=0, atol=tolerance)
        np.testing.assert_allclose(a.atoms.positions, b.atoms.positions, rtol=0, atol=tolerance)
        np.testing.assert_allclose(a.atoms.cell.array, b.atoms.cell.array, rtol=0, atol=tolerance)
        np.testing.assert_allclose(get_magmoms(a.atoms), get_magmoms(b.atoms), rtol=0, atol=tolerance)


@pytest.mark.parametrize("settings", [{}, {"magmoms": "adiabatic"}, {"stability": True}, {"collinear": True}])
def test_a_batch_goes_on_where_a_signal_stopped_it(tmp_path, settings):
    n = 2 if "magmoms" in settings else 4  # three fit into a batch
    images = [fcc(a, seed) for seed, a in enumerate((3.55, 3.6, 3.65, 3.7)[:n])]
    keys = [f"fe{k}" for k in range(n)]
    relaxation = Relaxation(MagneticMaceModel(HeisenbergModel()), **(TIGHT | settings))
    whole = relaxation.run(images)
    finished, path = {}, tmp_path / "checkpoint.npz"
    for _ in range(100):  # a time limit of eleven steps
        pending = [k for k in range(n) if k not in finished]
        if not pending:
            break
        checkpoint = BatchCheckpoint(path, "a", [keys[k] for k in pending])
        count = iter(range(11))

        def tick(_, count=count):
            if next(count, None) is None:
                os.kill(os.getpid(), signal.SIGTERM)

        try:
            with interruptible():
                relaxation.run(
                    [images[k] for k in pending],
                    on_finished=lambda k, result: finished.update({pending[k]: result}),  # noqa: B023
                    on_step=tick,
                    checkpoint=checkpoint,
                )
        except Interrupted:
            assert path.is_file()
    assert sorted(finished) == list(range(n))
    same([finished[k] for k in range(n)], whole)


def write_checkpoint(path, identity="a", n=3):
    relaxation = Relaxation(MagneticMaceModel(HeisenbergModel()), **TIGHT)
    images = [fcc(seed=k) for k in range(n)]
    checkpoint = BatchCheckpoint(path, identity, [str(k) for k in range(n)], interval=0.0)
    count = iter(range(5))

    def stop(_):
        if next(count, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        relaxation.run(images, on_step=stop, checkpoint=checkpoint)
    return relaxation, images


@pytest.fixture(autouse=True)
def no_callbacks_of_the_collector():
    """Hypothesis has one, and whatever a signal raises while it runs is lost."""
    callbacks = gc.callbacks[:]
    gc.callbacks.clear()
    yield
    gc.callbacks[:] = callbacks


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A checkpoint, who goes on from it, and what three structures are without an interruption."""
    path = tmp_path_factory.mktemp("kept") / "checkpoint.npz"
    relaxation, images = write_checkpoint(path)
    return path, relaxation, images, relaxation.run(images)


@pytest.fixture
def path(interrupted, tmp_path):
    """A checkpoint of one's own."""
    return shutil.copy(interrupted[0], tmp_path / "checkpoint.npz")


def damaged(path, how):
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "garbage":
        path.write_bytes(b"nonsense" * 100)
    elif how == "pickle":
        np.savez(path, head=np.array([object()], dtype=object))
    else:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        if how == "shape":
            arrays["0/atom/positions"] = arrays["0/atom/positions"][:, :2]
        elif how == "missing":
            del arrays["0/system/energy"]
        elif how == "short":
            arrays["0/atom/velocities"] = arrays["0/atom/velocities"][:3]
        elif how == "type":
            arrays["0/system/n_steps"] = arrays["0/system/n_steps"].astype(float)
        elif how == "head":
            arrays["head"] = np.array("[1, 2]")
        np.savez(path, **arrays)


@pytest.mark.parametrize(
    "how", ["truncated", "empty", "garbage", "pickle", "shape", "missing", "short", "type", "head"]
)
def test_a_damaged_checkpoint_is_started_anew(interrupted, path, how, caplog):
    _, relaxation, images, whole = interrupted
    damaged(path, how)
    with caplog.at_level("WARNING", logger="mmace_sim"):
        again = relaxation.run(images, checkpoint=BatchCheckpoint(path, "a", ["0", "1", "2"]))
    assert "anew" in caplog.text
    same(again, whole)


def test_checkpoints_of_others_are_not_taken(interrupted, path, caplog):
    _, relaxation, images, whole = interrupted
    with caplog.at_level("WARNING", logger="mmace_sim"):
        other = BatchCheckpoint(path, "other settings", ["0", "1", "2"])
    assert "belongs to another run" in caplog.text
    same(relaxation.run(images, checkpoint=other), whole)
    caplog.clear()
    with caplog.at_level("INFO", logger="mmace_sim"):
        others = relaxation.run(images, checkpoint=BatchCheckpoint(path, "a", ["x", "y", "z"]))
    assert "go on" not in caplog.text  # other structures
    same(others, whole)


def test_what_finished_after_the_checkpoint_is_left_out(interrupted, path):
    _, relaxation, images, whole = interrupted
    rest = relaxation.run([images[0], images[2]], checkpoint=BatchCheckpoint(path, "a", ["0", "2"]))
    same(rest, [whole[0], whole[2]], tolerance=1e-9)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", spin_orbit=True)


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for a in (2.80, 2.86):
        ase.io.write(folder / f"{a:.2f}.extxyz", bcc(a=a, displacement=0.05))
    return folder


QUICK = ("--max-steps", "12", "--threads", "1")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_relax_keeps_what_is_under_way(model, inputs, tmp_path, monkeypatch, number):
    def arguments(folder):
        return ("relax", inputs, "-m", model, "-o", tmp_path / folder, *QUICK)

    whole = mmace_sim(*arguments("whole"))
    step, count = Relaxation._step, iter(range(8))

    def interrupted(self, state):
        if next(count, None) is None:
            os.kill(os.getpid(), number)
        return step(self, state)

    monkeypatch.setattr(Relaxation, "_step", interrupted)
    result = mmace_sim(*arguments("parts"))
    assert result.exit_code == 128 + number, result.output
    out, told = (
        tmp_path / "parts",
        f"Interrupted by {signal.Signals(number).name}. Relaxing: 0 of 2 structures",
    )
    assert told in " ".join(result.output.split())
    assert told in (out / "log.txt").read_text()
    assert "those under way are kept" in (out / "log.txt").read_text()
    assert (out / "checkpoint.npz").is_file()
    monkeypatch.undo()
    result = mmace_sim(*arguments("parts"), "--resume")
    assert result.exit_code == whole.exit_code
    assert "2 structures go on after 9 steps" in (out / "log.txt").read_text()
    assert names_in(out) == names_in(tmp_path / "whole")
    parts, all_at_once = (summary_of(tmp_path / name)["structures"] for name in ("parts", "whole"))
    assert parts == all_at_once
    assert mmace_sim(*arguments("parts"), "--force").exit_code == whole.exit_code
    assert summary_of(out)["structures"] == all_at_once


def killed_after_eight_steps(*arguments):
    """The command, in a process of its own."""
    step, count = Relaxation._step, iter(range(8))

    def killed(self, state):
        if next(count, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, state)

    Relaxation._step, checkpoint_module.INTERVAL = killed, 0.0
    mmace_sim(*arguments)


def test_a_killed_run_goes_on_and_can_be_overwritten(model, inputs, tmp_path):
    def arguments(folder):
        return ("relax", inputs, "-m", model, "-o", tmp_path / folder, *QUICK)

    whole = mmace_sim(*arguments("whole"))
    for force in ((), ("--force",)):
        child = in_a_copy(killed_after_eight_steps, *arguments("parts"), *force)
        assert exit_code_of(child) == -signal.SIGKILL
    (tmp_path / "parts" / "mine.txt").write_text("mine")
    result = mmace_sim(*arguments("parts"), "--resume")
    assert result.exit_code == whole.exit_code, result.output
    parts, all_at_once = (summary_of(tmp_path / name)["structures"] for name in ("parts", "whole"))
    assert parts == all_at_once
    assert "2 structures go on after 8 steps" in (tmp_path / "parts" / "log.txt").read_text()
    assert (tmp_path / "parts" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("command", ["eos", "md", "curie", "check"])
def test_every_command_says_what_is_finished(command, model, inputs, tmp_path, monkeypatch):
    options = {
        "eos": (inputs, "--n-volumes", "3", "--no-figures", "--max-steps", "1"),
        "md": (inputs, "--ensemble", "nve", "--steps", "50", "--every", "5", "--no-figures"),
        "curie": (
            inputs, "--method", "direct", "--sizes", "1", "--temperatures", "300", "--sweeps", "10", "--no-figures"
        ),
        "check": ("--structures", inputs),
    }[command]  # fmt: skip
    model_option = (model,) if command == "check" else ("-m", model)
    out = tmp_path / "out"
    tally, asked = progress_module.Tally.__str__, iter([0, 0, 1])

    def interrupted(self):  # the line of progress is asked for every now and then
        if next(asked, 0):
            os.kill(os.getpid(), signal.SIGUSR1)
        return tally(self)

    monkeypatch.setattr(progress_module.Tally, "__str__", interrupted)
    monkeypatch.setenv(INTERVAL_VARIABLE, "0.01")
    result = mmace_sim(command, *model_option, *options, "-o", out, "--threads", "1")
    text = " ".join(result.output.split())
    assert result.exit_code == 128 + signal.SIGUSR1, text
    assert "Interrupted by SIGUSR1. " in text
    assert "--resume" in text
    log = (out / "log.txt").read_text()
    assert "Interrupted by SIGUSR1" in log
    assert " of " in log.split("Interrupted by SIGUSR1")[1]
    monkeypatch.undo()
    again = mmace_sim(command, *model_option, *options, "-o", out, "--threads", "1", "--resume")
    assert again.exit_code in (0, 3), again.output


def test_lines_of_progress(caplog, capsys, monkeypatch):
    monkeypatch.setenv(INTERVAL_VARIABLE, "0.02")
    done = []

    def wait():
        with caplog.at_level("INFO", logger="mmace_sim"), Heartbeat(lambda: f"step {len(done)}", quiet=False):
            while len(caplog.records) < 3:
                done.append(1)
                time.sleep(0.01)

    wait()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 3
    assert all(line.startswith("step ") and " after 0:00:0" in line for line in lines)
    assert [record.message for record in caplog.records][:3] == lines[:3]
    assert len(set(lines)) > 1
    caplog.clear()
    with caplog.at_level("INFO", logger="mmace_sim"), Heartbeat(lambda: "quiet", quiet=True):
        while not caplog.records:
            time.sleep(0.01)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("quiet", [(), ("-q",)])
def test_commands_print_lines_without_a_terminal(model, inputs, tmp_path, monkeypatch, quiet):
    monkeypatch.setenv(INTERVAL_VARIABLE, "0.01")
    out = tmp_path / "out"
    result = mmace_sim("relax", inputs, "-m", model, "-o", out, *QUICK, *quiet)
    assert result.exit_code in (0, 3)
    assert "Relaxing: 0 of 2 structures" in (out / "log.txt").read_text()
    assert ("Relaxing: 2 of 2 structures" in result.output) is not quiet
    assert (result.output == "") is bool(quiet)
    assert checkpoint_module.INTERVAL == 60.0
