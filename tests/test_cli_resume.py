"""Commands that compute one structure after another lose nothing when they are interrupted."""

import json
import os
import signal

import ase.io
import pytest
from ase.build import bulk
from cli_tools import assert_same, bcc, exit_code_of, in_a_copy, mmace_sim, summary_of, write_tiny_model

from mmace_sim.engine.kept import Kept
from mmace_sim.engine.resume import Task
from mmace_sim.engine.run import Run

COMMANDS = {
    "md": ("--spins", "llg", "--steps", "2", "--every", "1", "--no-figures"),
    "relax": ("--fmax", "10", "--stress-tol", "1000", "--magforce-tol", "10"),
    "eos": ("--magmoms", "fixed", "--n-volumes", "5", "--no-figures"),
    "moments": ("--starts", "2", "--max-steps", "3", "--magforce-tol", "1", "--no-figures"),
    "order": ("--magmoms", "fixed", "--fixed-cell", "--fixed-positions", "--no-figures"),
    "bain": ("--magmoms", "fixed", "--n-ratios", "3", "--n-volumes", "3", "--no-figures"),
    "elastic": ("--no-relax", "--clamped-ions", "--magmoms", "fixed", "--no-figures"),
    "phonons": ("--no-relax", "--supercell", "2", "--magmoms", "fixed", "--no-plots"),
    "exchange": ("--cutoff", "3", "--magmoms", "fixed", "--routes", "derivatives", "--no-figures"),
    "anisotropy": ("--magmoms", "fixed", "--directions", "12", "--no-figures"),
    "anisotropy --map": ("--rotations", "4", "--no-figures"),
    "curie": (
        "--magmoms",
        "fixed",
        "--cutoff",
        "2.6",
        "--sizes",
        "2,3",
        "--temperatures",
        "4,8,12",
        "--sweeps",
        "20",
        "--no-figures",
    ),
}
OWN = {"phonons": "band.yaml", "exchange": "pairs.csv", "anisotropy": "directions.csv", "curie": "points.csv"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", spin_orbit=True)


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for a in (2.80, 2.86):
        ase.io.write(folder / f"{a:.2f}.extxyz", bcc(a=a))
    ase.io.write(folder / "4-unknown.extxyz", bulk("Au", cubic=True))
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_interrupted_and_resumed(command, model, inputs, tmp_path, monkeypatch):
    def arguments(folder):
        return (*command.split(), inputs, "-m", model, "-o", tmp_path / folder, *COMMANDS[command])

    result = mmace_sim(*arguments("whole"))
    assert result.exit_code == 3, result.output  # the element that the model does not know
    keep = Run.keep

    def interrupted(run, *given):
        keep(run, *given)
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "keep", interrupted)
    result = mmace_sim(*arguments("parts"))
    assert result.exit_code == 130
    assert "1 of 2 structures are finished" in result.output
    done = []
    monkeypatch.setattr(Run, "keep", lambda run, record: done.append(record["key"]) or keep(run, record))
    result = mmace_sim(*arguments("parts"), "--resume")
    assert result.exit_code == 3, result.output
    assert "1 from the earlier run" in result.output
    assert len(done) == 1
    whole, parts = (summary_of(tmp_path / name)["structures"] for name in ("whole", "parts"))
    assert_same(parts, whole)
    if command in OWN:
        files = {name: sorted((tmp_path / name).glob(f"*/{OWN[command]}")) for name in ("whole", "parts")}
        assert len(files["whole"]) == 2
        assert [f.read_bytes() for f in files["parts"]] == [f.read_bytes() for f in files["whole"]]


def test_figures_may_be_asked_for_later(model, inputs, tmp_path):
    arguments = (
        "exchange",
        inputs / "2.80.extxyz",
        "-m",
        model,
        "-o",
        tmp_path / "out",
        *COMMANDS["exchange"][:-1],
    )
    assert mmace_sim(*arguments, "--no-figures").exit_code == 0
    result = mmace_sim(*arguments, "--figures", "--resume")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", ["check", "evaluate"])
def test_what_is_no_property_goes_on_too(command, model, tmp_path, monkeypatch):
    frames = [bcc(a=a) for a in (2.80, 2.83, 2.86)]
    for frame in frames:
        frame.arrays["REF_magmom"] = frame.arrays.pop("initial_magmoms")
        frame.info["REF_energy"] = -16.0
    ase.io.write(tmp_path / "data.extxyz", frames)
    ase.io.write(tmp_path / "one.extxyz", bcc(displacement=0.05))
    inputs = {
        "check": ("check", model, "--structures", tmp_path / "one.extxyz"),
        "evaluate": ("evaluate", model, tmp_path / "data.extxyz", "--batch-size", "1", "--no-report"),
    }[command]
    arguments = (*inputs, "--no-figures") if command == "evaluate" else inputs
    whole = mmace_sim(*arguments, "-o", tmp_path / "whole")
    assert whole.exit_code in (0, 3), whole.output
    store, done = Task.store, []

    def interrupted(task, key, record):
        store(task, key, record)
        done.append(key)
        if len(done) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Task, "store", interrupted)
    parts = (*arguments, "-o", tmp_path / "parts")
    result = mmace_sim(*parts)
    assert result.exit_code == 130
    assert "2 of" in result.output
    result = mmace_sim(*parts, "--resume")
    assert result.exit_code == whole.exit_code, result.output
    assert len(done) == len(set(done)) > 2

    def told(folder):
        summary = json.loads((tmp_path / folder / "summary.json").read_text())
        return summary["report"]["results"] if command == "check" else summary["overall"] | summary["ranking"]

    assert told("parts") == told("whole")


RELAXED = {
    "elastic": ("mmace_sim.properties.elastic.constants.run_groups", ("--max-steps", "2", "--clamped-ions", "--magmoms", "fixed",
                "--no-figures", "--fmax", "10", "--stress-tol", "1000", "--magforce-tol", "10")),
    "phonons": ("mmace_sim.properties.phonons.finite_displacements.supercells", ("--supercell", "2", "--magmoms", "fixed",
                "--no-plots", "--fmax", "10", "--stress-tol", "1000", "--magforce-tol", "10")),
}  # fmt: skip


@pytest.mark.parametrize("command", RELAXED)
def test_relaxed_crystals_are_kept_when_what_follows_is_interrupted(
    command, model, inputs, tmp_path, monkeypatch
):
    place, options = RELAXED[command]

    def arguments(folder):
        return (command, inputs, "-m", model, "-o", tmp_path / folder, *options)

    whole = mmace_sim(*arguments("whole"))
    assert whole.exit_code == 3, whole.output

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(place, interrupted)
        assert mmace_sim(*arguments("parts")).exit_code == 130
    kept = tmp_path / "parts" / "crystals.jsonl"
    assert len(kept.read_text().splitlines()) == 2
    with monkeypatch.context() as patched:
        patched.setattr(Kept, "keep", lambda *_: pytest.fail("relaxed again"))
        result = mmace_sim(*arguments("parts"), "--resume")
    assert result.exit_code == 3, result.output
    assert not kept.exists()
    structures = [summary_of(tmp_path / name)["structures"] for name in ("whole", "parts")]
    assert structures[0] == structures[1]
    assert sum(entry["status"] != "failed" for entry in structures[0]) == 2


def test_what_was_kept_for_other_settings_or_is_damaged_is_not_used(model, inputs, tmp_path, monkeypatch):
    place, options = RELAXED["phonons"]
    arguments = ("phonons", inputs, "-m", model, "-o", tmp_path / "o", *options)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(place, interrupted)
        mmace_sim(*arguments)
    path = tmp_path / "o" / "crystals.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"steps": ', b'"steps": 1', 1))
    relaxed = []
    keep = Kept.keep
    monkeypatch.setattr(Kept, "keep", lambda self, *given: relaxed.append(given[0]) or keep(self, *given))
    result = mmace_sim(*arguments, "--resume")
    assert result.exit_code == 3, result.output
    assert len(set(relaxed)) == 2


STARTS = {
    "moments": ("--starts", "4", "--max-steps", "3", "--magforce-tol", "1", "--no-figures"),
    "order": ("--magmoms", "fixed", "--fixed-cell", "--fixed-positions", "--no-figures"),
}


def killed_after_two(*arguments):
    """The command, in a process of its own."""
    keep, counted = Kept.keep, []

    def killed(self, *given):
        keep(self, *given)
        counted.append(given[0])
        if len(counted) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    Kept.keep = killed
    mmace_sim(*arguments)


@pytest.mark.parametrize("command", STARTS)
def test_finished_starts_are_kept_when_their_structure_is_not_finished(command, model, tmp_path, monkeypatch):
    ase.io.write(tmp_path / "one.extxyz", bcc(a=2.83))

    def arguments(folder):
        return (command, tmp_path / "one.extxyz", "-m", model, "-o", tmp_path / folder, *STARTS[command])

    counted = []
    keep = Kept.keep
    with monkeypatch.context() as patched:
        patched.setattr(Kept, "keep", lambda self, *given: counted.append(given[0]) or keep(self, *given))
        whole = mmace_sim(*arguments("whole"))
    n_starts = len(counted)
    assert n_starts > 2
    counted.clear()
    assert exit_code_of(in_a_copy(killed_after_two, *arguments("parts"))) == -signal.SIGKILL
    kept = tmp_path / "parts" / "starts.jsonl"
    assert len(kept.read_text().splitlines()) == 2
    with monkeypatch.context() as patched:
        patched.setattr(Kept, "keep", lambda self, *given: counted.append(given[0]) or keep(self, *given))
        result = mmace_sim(*arguments("parts"), "--resume")
    assert result.exit_code == whole.exit_code, result.output
    assert len(counted) == len(set(counted)) == n_starts - 2
    assert not kept.exists()
    structures = [summary_of(tmp_path / name)["structures"] for name in ("whole", "parts")]
    assert structures[0] == structures[1]
    starts = [(tmp_path / name / "starts.csv") for name in ("whole", "parts")]
    assert not starts[0].exists() or starts[0].read_text() == starts[1].read_text()
