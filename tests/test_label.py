"""Labels of candidates: what is held, what is checked, what is kept; with models and with a toy in place of DFT."""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.io import read, write
from cli_tools import bcc, exit_code_of, in_a_copy, mmace_sim, summary_of, write_tiny_model

from mmace_sim import load_model
from mmace_sim.data.label import LabelSettings, batch, label
from mmace_sim.data.label.calculation import Mode, make_calculations
from mmace_sim.data.label.checks import check_labels, energy_range, state_note, uneven_mesh
from mmace_sim.data.label.compute import Job, compute
from mmace_sim.data.label.engine import (
    EngineError,
    Labels,
    NotConvergedError,
    k_points,
    load_engine,
)
from mmace_sim.errors import ConfigError, DataError, OutputError
from mmace_sim.executors.interface import TaskFailure
from mmace_sim.io.frames import Frame, read_frames
from mmace_sim.properties.singlepoint import SinglePoint


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tiny_model(tmp_path / "tiny.safetensors")
    return tmp_path


def candidates(n=4, seed=1):
    """Rattled iron with moments in any direction."""
    rng, found = np.random.default_rng(seed), []
    for k in range(n):
        moments = rng.normal(0, 0.3, (2, 3)) + np.array([0, 0, 2.0])
        atoms = bcc(moments, displacement=rng.normal(0, 0.03, 3))
        atoms.info |= {"config_id": f"iron-{k}", "config_type": "rattled"}
        found.append(atoms)
    return found


def settings(**more):
    return LabelSettings(**{"engine": "model:tiny.safetensors", "output": "out"} | more)


def one(atoms, **more):
    (calculation,), failures = make_calculations([atoms], settings(**more))
    assert not failures
    return calculation


# what a candidate asks for


def test_moments_are_held_as_the_candidate_says():
    atoms = bcc([2.2, 0.0])
    assert one(atoms).held.tolist() == [True, False]
    assert one(atoms, hold="all").held.tolist() == [True, True]
    assert one(atoms, hold="none").held.tolist() == [False, False]
    atoms.set_array("hold_moment", np.array([False, True]))
    assert one(atoms).held.tolist() == [False, True]
    atoms.arrays["hold_moment"] = np.array([3, 1])
    _, failures = make_calculations([atoms], settings())
    assert "hold_moment must be T or F" in failures[0].reason


def test_moments_that_are_guessed_are_a_start():
    calculation = one(bcc(None), initial_magmoms="fm")
    assert calculation.mode is Mode.COLLINEAR
    assert not calculation.held.any()
    assert one(bcc(None), initial_magmoms="fm", hold="all").held.all()


@pytest.mark.parametrize(
    ("magmoms", "mode", "axis"),
    [
        (None, "nm", [0, 0, 1]),
        ([0.0, 0.0], "nm", [0, 0, 1]),
        ([2.0, -1.0], "col", [0, 0, 1]),
        ([[1.0, 1.0, 0], [-2.0, -2.0, 0]], "col", np.array([-1, -1, 0]) / np.sqrt(2)),
        ([[1.0, 0, 0], [0, 0, 1.0]], "nc", [1, 0, 0]),
    ],
)
def test_spins_are_treated_as_the_moments_want_it(magmoms, mode, axis):
    calculation = one(bcc(magmoms))
    assert calculation.mode == mode
    np.testing.assert_allclose(calculation.axis, axis)
    if mode == "col":
        np.testing.assert_allclose(np.outer(calculation.along_axis, calculation.axis), calculation.magmoms)


def test_names_are_made_where_there_are_none_and_must_differ():
    calculations, _ = make_calculations([bcc(), bcc()], settings())
    assert [c.config_id for c in calculations] == ["candidate-0", "candidate-1"]
    twins = [bcc(), bcc()]
    for atoms in twins:
        atoms.info["config_id"] = "same"
    with pytest.raises(DataError, match="two candidates have the config_id 'same'"):
        make_calculations(twins, settings())


def test_old_labels_of_a_candidate_do_not_survive():
    atoms = bcc()
    atoms.info |= {"REF_energy": 1.0, "group": "a"}
    atoms.arrays["REF_forces"] = np.ones((2, 3))
    bare = one(atoms).atoms
    assert set(bare.info) == {"group"}
    assert set(bare.arrays) == {"numbers", "positions"}


def test_meshes_have_one_density():
    assert k_points(bcc(a=2.83), 22.64) == (8, 8, 8)
    atoms = Atoms("Fe", cell=[2.83, 5.66, 100.0], pbc=True)
    assert k_points(atoms, 22.64) == (8, 4, 1)
    atoms.pbc = (True, True, False)
    assert k_points(atoms, 2264) == (800, 400, 1)


# checks of one calculation


def good(calculation, **more):
    n = len(calculation.atoms)
    values = {"energy": -1.0, "magmoms": calculation.magmoms, "forces": np.zeros((n, 3))}
    return Labels(**values | more)


def test_labels_that_are_wrong_are_refused():
    calculation = one(bcc([2.0, -2.0]))
    check_labels(calculation, good(calculation), 1e-3)
    with pytest.raises(EngineError, match="energy is nan"):
        check_labels(calculation, good(calculation, energy=float("nan")), 1e-3)
    with pytest.raises(EngineError, match="forces is not finite"):
        check_labels(calculation, good(calculation, forces=np.full((2, 3), np.inf)), 1e-3)
    with pytest.raises(EngineError, match="shape"):
        check_labels(calculation, Labels(-1.0, np.zeros((3, 3))), 1e-3)
    with pytest.raises(NotConvergedError, match="another state: the moment of atom 1"):
        check_labels(calculation, good(calculation, magmoms=np.abs(calculation.magmoms)), 10.0)
    with pytest.raises(NotConvergedError, match=r"0.1 μB away, allowed 0.001"):
        check_labels(calculation, good(calculation, magmoms=calculation.magmoms * 1.05), 1e-3)


def test_free_moments_may_go_elsewhere_and_it_is_told():
    calculation = one(bcc([2.0, -2.0]), hold="none")
    check_labels(calculation, good(calculation, magmoms=np.abs(calculation.magmoms)), 1e-3)
    assert state_note(calculation, good(calculation)) == ""
    turned = good(calculation, magmoms=np.abs(calculation.magmoms))
    assert "1 free moments turned over" in state_note(calculation, turned)
    gone = good(calculation, magmoms=0.01 * calculation.magmoms)
    assert "vanished" in state_note(calculation, gone)


def test_energies_far_from_the_batch_are_told(tmp_path):
    frames = candidates(4)
    for k, atoms in enumerate(frames):
        atoms.info["REF_energy"] = -16.0 + (8.0 if k == 2 else 0.1 * k)
        atoms.arrays["REF_magmom"] = atoms.arrays.pop("initial_magmoms")
    write(tmp_path / "set.extxyz", frames, format="extxyz")
    (finding,) = energy_range(read_frames([tmp_path / "set.extxyz"]).frames)
    assert "iron-2" in finding.message
    assert finding.values == {"count": 1}


# a model as the engine


def test_a_model_labels_what_it_would_compute(here):
    images = candidates()
    told = []
    outcome = label(settings(), images, on_finished=lambda index, result: told.append((index, result)))
    assert not outcome.failures
    assert sorted(index for index, _ in told) == [0, 1, 2, 3]
    expected = SinglePoint(load_model("tiny.safetensors")).run(images)
    for frame, point, atoms in zip(outcome.frames, expected, images, strict=True):
        assert frame.info["config_id"] == atoms.info["config_id"]
        assert frame.info["REF_energy"] == pytest.approx(point.energy, abs=1e-9)
        np.testing.assert_allclose(frame.arrays["REF_magforces"], point.magforces, atol=1e-9)
        np.testing.assert_allclose(frame.arrays["REF_forces"], point.forces, atol=1e-9)
        np.testing.assert_allclose(frame.info["REF_stress"].reshape(3, 3), point.stress, atol=1e-9)
        np.testing.assert_allclose(frame.arrays["REF_magmom"], atoms.arrays["initial_magmoms"], atol=1e-9)
    found = read_frames([here / "out" / "labelled.extxyz"])
    assert not found.problems
    assert [set(frame.labels) for frame in found.frames] == [{"energy", "forces", "stress", "magforces"}] * 4
    assert {frame.config_type for frame in found.frames} == {"rattled"}


@pytest.mark.usefixtures("here")
def test_free_moments_relax():
    outcome = label(settings(hold="none"), candidates(2))
    for frame in outcome.frames:
        assert np.abs(frame.arrays["REF_magforces"]).max() < 2e-4
        assert not frame.arrays["hold_moment"].any()


def test_what_a_model_cannot_compute_is_a_failure(here):
    images = candidates(3)
    images[1].numbers[:] = 92
    outcome = label(settings(), images)
    assert [f.config_id for f in outcome.failures] == ["iron-1"]
    assert "U" in outcome.failures[0].reason
    assert len(outcome.frames) == 2
    lines = [json.loads(line) for line in (here / "out" / "failures.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["iron-1"]


def test_a_finished_batch_is_taken_up_and_not_computed_again(here, monkeypatch):
    first = label(settings(), candidates())
    from mmace_sim.data.label.engines.model import ModelEngine

    monkeypatch.setattr(ModelEngine, "compute", lambda *_: pytest.fail("computed again"))
    again = label(settings(), candidates(), resume=True)
    for old, new in zip(first.frames, again.frames, strict=True):
        np.testing.assert_array_equal(old.arrays["REF_magforces"], new.arrays["REF_magforces"])
        assert old.info["REF_energy"] == new.info["REF_energy"]
    assert len(read(here / "out" / "labelled.extxyz", ":")) == 4
    with pytest.raises(OutputError, match="inputs differs"):
        label(settings(), candidates(3), resume=True)
    with pytest.raises(OutputError, match="results of an earlier run"):
        label(settings(), candidates())


@pytest.mark.usefixtures("here")
def test_unknown_engines_name_the_known_ones():
    with pytest.raises(ConfigError, match=r"no such engine; choose .*model:FILE"):
        load_engine(settings(engine="castep"))


# the command


def test_the_command_writes_its_folder(here):
    write(here / "candidates.extxyz", candidates(), format="extxyz")
    run = mmace_sim("label", "candidates.extxyz", "--engine", "model:tiny.safetensors", "-o", "out")
    assert run.exit_code == 0, run.output
    assert "4 finished" in run.stdout
    assert "iron-3" in run.stdout
    summary = summary_of(here / "out")
    assert summary["counts"] == {"finished": 4, "failed": 0, "missing": 0}
    assert summary["trainable"] is True
    assert summary["structures"][0]["status"] == "finished"
    assert {finding["code"] for finding in summary["findings"]} >= {"labels", "outliers"}
    assert yaml.safe_load((here / "out" / "config.yaml").read_text())["engine"] == "model:tiny.safetensors"
    again = mmace_sim(
        "label", "candidates.extxyz", "--engine", "model:tiny.safetensors", "-o", "out", "--json", "--resume"
    )
    assert json.loads(again.stdout)["counts"]["finished"] == 4


def test_dry_run_tells_and_writes_nothing(here):
    write(here / "candidates.extxyz", candidates(2), format="extxyz")
    run = mmace_sim(
        "label", "candidates.extxyz", "--engine", "model:tiny.safetensors", "--dry-run", "-o", "out"
    )
    assert run.exit_code == 0, run.output
    assert "8x8x8" in run.stdout
    assert not (here / "out").exists()


@pytest.mark.usefixtures("here")
def test_usage_errors():
    assert mmace_sim("label").exit_code == 2
    missing = mmace_sim("label", "nothing.extxyz", "--engine", "model:tiny.safetensors")
    assert missing.exit_code == 3
    both = mmace_sim("label", "x", "--write-only", "--collect")
    assert both.exit_code == 2
    assert "contradict" in both.output


def test_a_structure_without_moments_is_told(here):
    write(here / "plain.cif", bcc(None))
    run = mmace_sim("label", "plain.cif", "--engine", "model:tiny.safetensors", "-o", "out")
    assert run.exit_code == 0, run.output
    entry = summary_of(here / "out")["structures"][0]
    assert entry["mode"] == "nm"
    assert entry["notes"] == ["no moments in the file: computed without spin"]
    assert entry["config_id"] == "plain.cif"


# an engine with files


@pytest.fixture
def toy(here, monkeypatch):
    monkeypatch.setattr("mmace_sim.data.label.engine._OWN", {"toy": "toy_engine:Toy"})
    return here


def test_it_is_tried_again_with_other_mixing(toy):
    images = candidates(2)
    images[0].info["needs"] = 2
    images[1].info["needs"] = 9
    outcome = label(settings(engine="toy"), images)
    assert [frame.info["config_id"] for frame in outcome.frames] == ["iron-0"]
    assert outcome.failures[0].reason == "not converged (3 attempts)"
    assert [entry["attempts"] for entry in outcome.summary["structures"]] == [3, 3]
    assert outcome.cpu_seconds > 0
    frame = outcome.frames[0]
    assert frame.info["REF_energy"] == pytest.approx((images[0].arrays["initial_magmoms"] ** 2).sum())
    assert frame.info["engine"] == "toy 1"
    folder = toy / "out" / "calculations" / "iron-0"
    assert {path.name for path in folder.iterdir()} == {"job.json", "result.json"}
    assert not list((toy / "out" / "calculations").glob(".mmace-*"))


@pytest.mark.usefixtures("toy")
def test_crashes_and_long_calculations_are_failures_with_a_reason():
    images = candidates(3)
    images[0].info["crash"] = 1
    images[1].info["sleep"] = 60
    outcome = label(settings(engine="toy", timeout=1.5), images)
    reasons = {f.config_id: f.reason for f in outcome.failures}
    assert "segmentation fault" in reasons["iron-0"]
    assert "1.5 s" in reasons["iron-1"]
    assert "--timeout" in reasons["iron-1"]
    assert [frame.info["config_id"] for frame in outcome.frames] == ["iron-2"]


def test_failed_ones_are_computed_again_only_on_request(toy):
    images = candidates(2)
    images[0].info["sleep"] = 2
    assert len(label(settings(engine="toy", timeout=0.7), images).failures) == 1
    assert len(label(settings(engine="toy", timeout=60), images, resume=True).failures) == 1
    again = label(settings(engine="toy", timeout=60, retry_failed=True), images, resume=True)
    assert not again.failures
    assert not (toy / "out" / "failures.jsonl").exists()
    assert len(read_frames([toy / "out" / "labelled.extxyz"]).frames) == 2


def test_inputs_are_written_and_results_collected(toy):
    write("set.extxyz", candidates(3), format="extxyz")
    run = mmace_sim("label", "set.extxyz", "--engine", "toy", "--write-only", "-o", "out")
    assert run.exit_code == 0, run.output
    assert "3 missing" in run.stdout
    folder = toy / "out" / "calculations"
    assert {path.name for path in folder.iterdir()} == {"iron-0", "iron-1", "iron-2"}
    (folder / "iron-2" / "job.json").write_text("changed by the user")
    again = mmace_sim("label", "set.extxyz", "--engine", "toy", "--write-only", "-o", "out", "--resume")
    assert again.exit_code == 0, again.output
    assert (folder / "iron-2" / "job.json").read_text() == "changed by the user"
    (folder / "iron-2" / "job.json").unlink()
    anew = mmace_sim("label", "set.extxyz", "--engine", "toy", "--write-only", "-o", "out", "--force")
    assert anew.exit_code == 0, anew.output
    assert (folder / "iron-2" / "job.json").is_file()
    early = mmace_sim("label", "--collect", "-o", "out")
    assert early.exit_code == 3
    job = json.loads((folder / "iron-1" / "job.json").read_text())
    result = {"converged": True, "energy": 1.5, "moments": job["moments"]}
    (folder / "iron-1" / "result.json").write_text(json.dumps(result))
    (folder / "iron-2" / "result.json").write_text(json.dumps(result | {"converged": False}))
    run = mmace_sim("label", "--collect", "-o", "out")
    assert run.exit_code == 3, run.output
    summary = summary_of(toy / "out")
    assert summary["counts"] == {"finished": 1, "failed": 1, "missing": 1}
    assert summary["missing"] == ["iron-0"]
    for k in (0, 2):  # the user has computed them, one of them again
        job = json.loads((folder / f"iron-{k}" / "job.json").read_text())
        result = {"converged": True, "energy": 1.0 + k, "moments": job["moments"]}
        (folder / f"iron-{k}" / "result.json").write_text(json.dumps(result))
    run = mmace_sim("label", "--collect", "-o", "out")
    assert run.exit_code == 0, run.output
    frames = read_frames([toy / "out" / "labelled.extxyz"]).frames
    assert sorted(float(frame.labels["energy"]) for frame in frames) == [1.0, 1.5, 3.0]


def label_set(told):
    """The command, in a process of its own; what it says goes to a file."""
    done = mmace_sim("label", "set.extxyz", "--engine", "toy", "-o", "out")
    told.write_text(done.output)
    return done.exit_code


def is_running(pid):
    """Whether a process goes on for a second; a dead one that nobody has asked for is not."""
    for _ in range(20):
        try:
            state = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state in "ZX":
            return False
        time.sleep(0.05)
    return True


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="processes are ended with their parent on Linux"
)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on(toy, number):
    images = candidates(3)
    images[1].info["sleep"] = 30
    write("set.extxyz", images, format="extxyz")
    process, computing = in_a_copy(label_set, toy / "told.txt"), ""
    deadline = time.monotonic() + 120
    while not (computing and list(toy.glob("out/*.extxyz"))) and time.monotonic() < deadline:
        time.sleep(0.05)
        computing = "".join(path.read_text() for path in toy.glob("out/calculations/.mmace-*/*/pid"))
    os.kill(process, number)
    assert exit_code_of(process) == (-9 if number == signal.SIGKILL else 143)
    assert computing
    assert not is_running(computing)
    if number == signal.SIGTERM:
        assert "1 of 3 calculations are finished" in " ".join((toy / "told.txt").read_text().split())
        assert not list(toy.glob("out/calculations/.mmace-*"))
    text = (toy / "out" / "labelled.extxyz").read_text()
    (toy / "out" / "labelled.extxyz").write_text(text + "2\nhalf a fra")  # what a kill can leave
    images[1].info["sleep"] = 0
    write("set.extxyz", images, format="extxyz")
    outcome = label(settings(engine="toy", candidates=["set.extxyz"]), resume=True)
    assert [frame.info["config_id"] for frame in outcome.frames] == ["iron-0", "iron-1", "iron-2"]
    assert len(read_frames([toy / "out" / "labelled.extxyz"]).frames) == 3
    assert not list(toy.glob("out/calculations/.mmace-*"))


def test_the_result_of_one_calculation_says_what_it_cost(toy):
    calculation = one(candidates(1)[0], engine="toy")
    (toy / "private").mkdir()
    result = compute(Job(settings(engine="toy"), calculation, toy / "private", 1e-6))
    assert {path.name for path in result.folder.iterdir()} >= {"job.json", "result.json", "big.wfk"}
    assert result.labels is not None
    assert result.attempts == 1
    assert 0 < result.cpu_s < 60


class Short:
    """Workers whose jobs are always too short."""

    n_workers, patience = 1, 20.0

    def map(self, function, tasks, on_result, on_failure, watch=lambda: None):
        del function, on_result, watch
        waiting = list(tasks)
        while waiting:
            waiting += on_failure(waiting.pop(0), TaskFailure(RuntimeError("gone"), "block"))


def test_jobs_that_are_too_short_are_no_failure_of_a_calculation(toy, monkeypatch):
    assert toy.is_dir()
    images = candidates(2)
    with monkeypatch.context() as patched:
        patched.setattr(batch, "open_executor", lambda *_: contextlib.nullcontext(Short()))
        outcome = label(settings(engine="toy", executor="local:1"), images)
    assert [failure.config_id for failure in outcome.failures] == ["iron-0", "iron-1"]
    assert "longer jobs" in outcome.failures[0].reason
    outcome = label(settings(engine="toy"), images, resume=True)
    assert [frame.info["config_id"] for frame in outcome.frames] == ["iron-0", "iron-1"]


METADATA = "Metadata-Version: 2.1\nName: toys\nVersion: 1\n"


def test_workers_compute_with_an_engine_of_another_package(here, monkeypatch):
    pytest.importorskip("parsl")
    info = here / "toys-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    (info / "entry_points.txt").write_text("[mmace_sim.engines]\nplugged = toy_engine:Toy\n")
    paths = [str(here), os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.syspath_prepend(str(here))
    images = candidates(4)
    images[2].info["crash"] = 1
    outcome = label(settings(engine="plugged", executor="local:2"), images)
    assert sorted(frame.info["config_id"] for frame in outcome.frames) == ["iron-0", "iron-1", "iron-3"]
    assert "segmentation fault" in outcome.failures[0].reason
    assert outcome.frames[0].info["REF_energy"] == pytest.approx(
        (images[0].arrays["initial_magmoms"] ** 2).sum()
    )
    folders = {path.name for path in (here / "out" / "calculations").iterdir()}
    assert folders == {f"iron-{k}" for k in range(4)}
    assert not list((here / "out").glob(".mmace-[0-9a-f]*"))


@pytest.mark.parametrize(
    ("meshes", "told"),
    [
        (("5x5x5", "4x4x4"), True),
        (("8x8x8", "7x7x7"), True),
        (("9x9x9", "8x8x8"), False),
        (("5x5x5", "5x5x5"), False),
    ],
)
def test_few_k_points_that_are_not_as_many_everywhere_are_told(meshes, told):
    frames = []
    for k, mesh in enumerate(meshes):
        atoms = Atoms("FeCo", positions=[[0, 0, 0], [1.4, 1.4, 1.4]], cell=[2.8 + 0.1 * k] * 3, pbc=True)
        atoms.info["kpts"] = f"{mesh} gamma"
        frames.append(Frame(atoms, f"x@{k}", np.zeros((2, 3)), "default", {}))
    found = uneven_mesh(frames)
    assert bool(found) is told
    assert not told or "--k-length" in found[0].advice
