import json
import os
import signal
import subprocess
import sys
import time

import ase.io
import numpy as np
import pytest
import yaml
from cli_tools import (
    RUN_FILES,
    bcc,
    csv_rows,
    exit_code_of,
    in_a_copy,
    mmace_sim,
    molecule,
    names_in,
    summary_of,
    write_tiny_model,
)

from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.io.mcif import mcif_text
from mmace_sim.properties.relax.relaxation import Relaxation, Status, StructureResult

LOOSE = ("--fmax", "10", "--stress-tol", "1000", "--magforce-tol", "10")
FILES = RUN_FILES | {"relaxed.extxyz"}


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    ase.io.write(folder / "a.extxyz", [bcc([2.2, 2.2]), bcc([2.2, -2.2])])
    ase.io.write(folder / "b.cif", bcc(None))
    (folder / "c.mcif").write_text(mcif_text(bcc([[2, 0, 0], [0, 2, 0]])))
    ase.io.write(folder / "d.extxyz", molecule())
    return folder


def test_help_needs_no_heavy_import():
    code = "import sys; import mmace_sim.cli.app; print([m for m in ('torch', 'ase', 'pymatgen') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    result = mmace_sim("--help")
    assert result.exit_code == 0
    for command in ("relax", "models", "train", "evaluate"):
        assert command in result.output
    assert "adiabatic" in mmace_sim("relax", "--help").output
    assert mmace_sim("--version").output.startswith("mmace-sim ")


def test_a_run_from_folder_to_table(model, inputs, tmp_path):
    out = tmp_path / "run"
    result = mmace_sim("relax", inputs, "-m", model, "-o", out, *LOOSE)
    assert result.exit_code == 0, result.output
    assert names_in(out) == FILES
    summary = summary_of(out)
    assert [entry["name"] for entry in summary["structures"]] == [
        "a.extxyz#0",
        "a.extxyz#1",
        "b.cif",
        "c.mcif",
        "d.extxyz",
    ]
    assert {entry["status"] for entry in summary["structures"]} == {"converged"}
    orders = [entry["magnetic_order_initial"] for entry in summary["structures"]]
    assert orders == ["FM", "AFM", "FM", "non-collinear", "FM"]
    assert summary["command"] == "relax"
    assert summary["units"]["magmoms"] == "μB"
    assert summary["versions"]["mmace-sim"]
    assert summary["config"]["force_tol"] == 10
    assert summary["model"]["licence"] == "MIT"
    assert "no moments in the file" in summary["structures"][2]["notes"][0]
    assert "the cell stays fixed" in summary["structures"][4]["notes"][0]
    assert summary["structures"][4]["volume"] is None
    assert "no moments in the file" in (out / "log.txt").read_text()
    assert yaml.safe_load((out / "config.yaml").read_text())["paths"] == [str(inputs)]
    assert len(csv_rows(out / "summary.csv")) == 5
    assert "AFM\u00a0→ AFM" in result.output
    assert "5 structures: 5 converged." in result.output
    relaxed = ase.io.read(out / "relaxed.extxyz", ":")
    energies = [atoms.get_potential_energy() for atoms in relaxed]
    np.testing.assert_allclose(energies, [entry["energy"] for entry in summary["structures"]], atol=1e-8)


def test_exit_code_3_and_a_second_run_from_the_first(model, inputs, tmp_path):
    tight = ("--fmax", "1e-9", "--stress-tol", "1e-9", "--max-steps", "2", "-m", model)
    result = mmace_sim("relax", inputs / "a.extxyz", *tight, "-o", tmp_path / "one")
    assert result.exit_code == 3
    assert [entry["status"] for entry in summary_of(tmp_path / "one")["structures"]] == ["max_steps"] * 2
    assert "raise --max-steps" in result.output
    result = mmace_sim("relax", tmp_path / "one", *tight, "-o", tmp_path / "two")
    first, second = summary_of(tmp_path / "one")["structures"], summary_of(tmp_path / "two")["structures"]
    for before, after in zip(first, second, strict=True):
        assert after["energy_initial"] == pytest.approx(before["energy"], abs=1e-7)
        assert after["magnetic_order_initial"] == before["magnetic_order_final"]


def test_options_reach_the_relaxation(model, inputs, tmp_path, monkeypatch):
    seen = {}

    def run(self, structures, *, on_finished, **_):
        seen.update(self.settings.model_dump(), dtype=self.model.dtype, max_batch_atoms=self.max_batch_atoms)
        seen["moments"] = [get_magmoms(atoms) for atoms in structures]
        for index, atoms in enumerate(structures):
            on_finished(index, StructureResult(atoms, atoms, Status.FAILED, "no time for this"))

    monkeypatch.setattr(Relaxation, "run", run)
    (tmp_path / "c.yaml").write_text("fmax: 0.3\nmagforce_tol: 0.2\nmagmoms: fixed\n")
    result = mmace_sim(
        "relax", inputs / "a.extxyz", "-m", model, "-o", tmp_path / "o", "-c", tmp_path / "c.yaml", "--fmax", "0.5",
        "--fixed-cell", "--collinear", "--fix-magnitude", "--max-steps", "7", "--dtype", "float32", "--device", "cpu",
        "--initial-magmoms", "afm", "--max-batch-atoms", "64", "--threads", "1",
    )  # fmt: skip
    assert result.exit_code == 3, result.output
    assert "a.extxyz#0, a.extxyz#1: no time for this" in result.output
    assert seen["force_tol"] == 0.5
    assert seen["magforce_tol"] == 0.2
    assert seen["magmoms"] == "fixed"
    assert seen["relax_cell"] is False
    assert seen["collinear"] is True
    assert seen["fix_magnitude"] is True
    assert seen["max_steps"] == 7
    assert str(seen["dtype"]) == "torch.float32"
    assert seen["max_batch_atoms"] == 64
    assert [m[:, 2].tolist() for m in seen["moments"]] == [[2.5, -2.5]] * 2


def test_a_start_is_understood_as_magmoms(model, inputs, tmp_path):
    result = mmace_sim(
        "relax", inputs / "b.cif", "-m", model, "-o", tmp_path / "o", "--magmoms", "afm", *LOOSE
    )
    assert result.exit_code == 0, result.output
    summary = summary_of(tmp_path / "o")
    assert summary["config"]["magmoms"] == "joint"
    assert summary["config"]["initial_magmoms"] == "afm"
    assert summary["structures"][0]["magnetic_order_initial"] == "AFM"


def test_spin_orbit_is_a_requirement(model, inputs, tmp_path):
    result = mmace_sim("relax", inputs, "-m", model, "-o", tmp_path / "o", "--spin-orbit")
    assert result.exit_code == 2
    assert "no spin–orbit term" in result.output
    assert not (tmp_path / "o").exists()
    other = write_tiny_model(tmp_path / "soc.safetensors", spin_orbit=True)
    result = mmace_sim("relax", inputs / "b.cif", "-m", other, "-o", tmp_path / "o", "--spin-orbit", *LOOSE)
    assert result.exit_code == 0, result.output


def test_further_formats(model, inputs, tmp_path):
    arguments = (
        "relax",
        inputs,
        "-m",
        model,
        "-o",
        tmp_path / "o",
        *LOOSE,
        "--write",
        "mcif",
        "--write",
        "poscar",
    )
    assert mmace_sim(*arguments).exit_code == 0
    names = {path.name for path in (tmp_path / "o" / "structures").iterdir()}
    assert names == {f"{stem}.{end}" for stem in ("a_0", "a_1", "b", "c") for end in ("mcif", "vasp")}
    assert (
        "d.extxyz: a molecule: not written as mcif, which describes crystals"
        in (tmp_path / "o" / "log.txt").read_text()
    )
    assert mmace_sim(*arguments, "--write", "pdf").exit_code == 2


def test_quiet(model, inputs, tmp_path):
    result = mmace_sim("relax", inputs / "b.cif", "-m", model, "-o", tmp_path / "o", "-q", *LOOSE)
    assert (result.exit_code, result.output) == (0, "")


def test_nothing_is_overwritten_and_resume_computes_nothing_again(model, inputs, tmp_path, monkeypatch):
    arguments = ("relax", inputs, "-m", model, "-o", tmp_path / "o", *LOOSE)
    assert mmace_sim(*arguments).exit_code == 0
    before = summary_of(tmp_path / "o")["structures"]
    result = mmace_sim(*arguments)
    assert result.exit_code == 2
    assert "--resume" in result.output
    assert "--force" in result.output

    monkeypatch.setattr(Relaxation, "run", lambda *_, **__: pytest.fail("computed again"))
    (tmp_path / "o" / "summary.json").unlink()
    result = mmace_sim(*arguments, "--resume")
    assert result.exit_code == 0, result.output
    assert "5 from the earlier run" in result.output
    assert summary_of(tmp_path / "o")["structures"] == before
    result = mmace_sim(*arguments, "--resume", "--stress-tol", "3")
    assert result.exit_code == 2
    assert "stress_tol was" in result.output
    ase.io.write(inputs / "a.extxyz", [bcc([2.2, 2.2]), bcc([2.2, -2.1])])
    result = mmace_sim(*arguments, "--resume")
    assert result.exit_code == 2
    assert "a.extxyz#1 has changed" in result.output
    monkeypatch.undo()
    assert mmace_sim(*arguments, "--force").exit_code == 0


def test_what_is_out_of_steps_says_what_it_lacks_and_goes_on_with_more(model, tmp_path):
    ase.io.write(tmp_path / "a.extxyz", [bcc(), bcc(displacement=0.05)])
    arguments = ("relax", tmp_path / "a.extxyz", "-m", model, "-o")
    few = mmace_sim(*arguments, tmp_path / "o", *LOOSE[2:], "--fmax", "1e-3", "--max-steps", "2")
    assert few.exit_code == 3
    first = summary_of(tmp_path / "o")["structures"]
    missing = [entry for entry in first if entry["status"] == "max_steps"]
    assert 0 < len(missing) < len(first), first
    for entry in missing:
        assert f"force {entry['max_force']:.2g} > 0.001 eV/Å" in entry["message"]
    more = mmace_sim(*arguments, tmp_path / "o", *LOOSE[2:], "--fmax", "1e-3", "--resume")
    assert f"{len(first) - len(missing)} from the earlier run" in more.output
    mmace_sim(*arguments, tmp_path / "whole", *LOOSE[2:], "--fmax", "1e-3")
    second, whole = (summary_of(tmp_path / name)["structures"] for name in ("o", "whole"))
    for entry, expected in zip(second, whole, strict=True):
        assert entry["status"] == expected["status"] == "converged"
        assert entry["energy"] == pytest.approx(expected["energy"], abs=1e-9)


def test_another_model_under_the_same_name_is_noticed(inputs, tmp_path):
    path = write_tiny_model(tmp_path / "m.safetensors")
    arguments = ("relax", inputs / "b.cif", "-m", path, "-o", tmp_path / "o", *LOOSE)
    assert mmace_sim(*arguments).exit_code == 0
    write_tiny_model(path, seed=1)
    result = mmace_sim(*arguments, "--resume")
    assert result.exit_code == 2
    assert "weights of the model" in result.output


def test_interrupted_from_the_keyboard(model, inputs, tmp_path, monkeypatch):
    real = Relaxation.run

    def interrupted(self, structures, *, on_finished, **settings):
        def stop(index, result):
            on_finished(index, result)
            raise KeyboardInterrupt

        real(self, structures, on_finished=stop, **settings)

    arguments = ("relax", inputs, "-m", model, "-o", tmp_path / "o", *LOOSE)
    monkeypatch.setattr(Relaxation, "run", interrupted)
    result = mmace_sim(*arguments)
    assert result.exit_code == 130
    assert "1 of 5 structures are finished" in result.output
    monkeypatch.undo()
    result = mmace_sim(*arguments, "--resume")
    assert result.exit_code == 0
    assert "1 from the earlier run" in result.output


@pytest.mark.slow
def test_killed_and_resumed(model, tmp_path):
    """kill -9 in the middle loses only what is in flight, and the resumed run ends where an undisturbed one does."""
    rng = np.random.default_rng(0)
    frames = [
        bcc([2.2, 2.0], a=2.7 + 0.05 * k, displacement=rng.normal(scale=0.05, size=3)) for k in range(5)
    ]
    ase.io.write(tmp_path / "in.extxyz", frames)
    arguments = [
        "relax",
        str(tmp_path / "in.extxyz"),
        "-m",
        str(model),
        "--max-steps",
        "25",
        "--fmax",
        "1e-12",
    ]
    arguments += ["--max-batch-atoms", "2", "--threads", "1", "--device", "cpu"]
    journal = tmp_path / "killed" / "finished.jsonl"
    process = in_a_copy(lambda: mmace_sim(*arguments, "-o", journal.parent).exit_code)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if journal.is_file() and journal.read_bytes().count(b"\n") >= 3:
            break
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    assert exit_code_of(process) == -signal.SIGKILL
    n_finished = journal.read_bytes().count(b"\n") - 1
    assert 2 <= n_finished < 5
    assert not (journal.parent / "summary.json").exists()
    with journal.open("ab") as file:
        file.write(b'{"key": "half a li')

    result = mmace_sim(*arguments, "-o", journal.parent, "--resume")
    assert result.exit_code == 3, result.output
    assert f"{n_finished} from the earlier run" in result.output
    assert mmace_sim(*arguments, "-o", tmp_path / "whole").exit_code == 3
    killed, whole = (summary_of(tmp_path / name)["structures"] for name in ("killed", "whole"))
    assert [entry["name"] for entry in killed] == [entry["name"] for entry in whole]
    for one, other in zip(killed, whole, strict=True):
        assert one["energy"] == pytest.approx(other["energy"], rel=1e-8)
        np.testing.assert_allclose(one["magmoms"], other["magmoms"], atol=1e-8)


def test_models(model, monkeypatch, tmp_path):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nonsense")
    found = {"default": model, "tiny": model, "broken": broken, "gone": tmp_path / "gone.safetensors"}
    monkeypatch.setattr("mmace_sim.cli.model_tables.list_models", lambda: found)
    rows = json.loads(mmace_sim("models", "--json").output)
    assert rows[0]["names"] == ["default", "tiny"]
    assert rows[0]["elements"] == ["Al", "Fe"]
    assert rows[0]["licence"] == "MIT"
    assert "broken.safetensors" in rows[1]["problem"]
    monkeypatch.setenv("COLUMNS", "160")
    text = mmace_sim("models").output
    assert "Al Fe" in text
    assert "energy 2.5 meV/atom" in text
    assert rows[1]["problem"] in text
    monkeypatch.setattr("mmace_sim.cli.model_tables.list_models", dict)
    monkeypatch.setattr("mmace_sim.cli.model_tables.usable_catalogues", lambda: ({}, []))
    assert "mmace-sim train" in mmace_sim("models").output
