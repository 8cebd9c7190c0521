"""``mmace-sim phonons`` from files to files."""

import math

import ase.io
import numpy as np
import phonopy
import pytest
import yaml
from cli_tools import RUN_FILES, bcc, csv_rows, mmace_sim, molecule, names_in, summary_of

from mmace_sim.properties.phonons import finite_displacements as phonons_module

CRYSTAL_FILES = {"phonopy_params.yaml", "band.yaml", "total_dos.dat", "thermal_properties.yaml"}
QUICK = ("--no-relax", "--supercell", "2", "--magforce-tol", "1e-3")


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    ase.io.write(folder / "a.extxyz", [bcc([2.2, 2.2]), bcc([2.2, -2.2])])
    ase.io.write(folder / "b.cif", bcc(None))
    (tmp_path / "coarse.yaml").write_text("mesh: 10\nt_max: 400\nt_step: 50\n")
    return folder


def phonons(inputs, model, tmp_path, *arguments):
    coarse = ("-c", tmp_path / "coarse.yaml")
    return mmace_sim("phonons", inputs, "-m", model, "-o", tmp_path / "out", *coarse, *QUICK, *arguments)


def names_of(folder):
    return {path.name for path in folder.iterdir()}


def test_a_run_from_folder_to_bands(model, inputs, tmp_path):
    result = phonons(inputs, model, tmp_path, "--magmoms", "fixed", "--write", "force_sets")
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    assert names_in(out) == RUN_FILES | {"relaxed.extxyz", "a_0", "a_1", "b"}
    for name in ("a_0", "a_1", "b"):
        assert names_of(out / name) == CRYSTAL_FILES | {"bands.png", "bands.svg", "FORCE_SETS"}
    summary = summary_of(out)
    assert summary["command"] == "phonons"
    assert summary["units"]["max_frequency"] == "THz"
    assert summary["config"]["supercell"] == [2]
    ferro, antiferro, started = summary["structures"]
    assert [entry["n_atoms_primitive"] for entry in summary["structures"]] == [1, 2, 1]
    assert ferro["supercell"] == (2 * np.eye(3)).tolist()
    assert ferro["n_atoms_supercell"] == 16
    assert ferro["n_displacements"] == antiferro["n_displacements"] == 1
    assert ferro["shift_by_moments"] is None
    assert set(ferro["frequencies"]) == {"Γ", "H", "P", "N"}
    assert set(antiferro["frequencies"]) >= {"Γ", "X", "M", "R"}
    assert "no moments in the file" in started["notes"][0]
    assert ferro["stable"] is (not ferro["imaginary_modes"])
    assert [float(row["max_frequency"]) for row in csv_rows(out / "summary.csv")] == pytest.approx(
        [entry["max_frequency"] for entry in summary["structures"]]
    )
    assert "3 structures: 3 converged." in result.output
    assert len(ase.io.read(out / "relaxed.extxyz", ":")) == 3
    assert "1 displacements in supercells of 16 atoms" in (out / "log.txt").read_text()


def test_phonopy_reads_what_was_written(model, inputs, tmp_path):
    assert phonons(inputs, model, tmp_path, "--magmoms", "fixed", "--no-plots").exit_code == 0
    out = tmp_path / "out" / "a_1"
    assert names_of(out) == CRYSTAL_FILES
    loaded = phonopy.load(out / "phonopy_params.yaml", log_level=0)
    np.testing.assert_allclose(np.abs(loaded.unitcell.magnetic_moments), [2.2, 2.2])
    assert loaded.unitcell.magnetic_moments.sum() == pytest.approx(0)
    entry = summary_of(tmp_path / "out")["structures"][1]
    found = loaded.run_qpoints([(0.5, 0.5, 0.5)]).frequencies[0]
    np.testing.assert_allclose(found, entry["frequencies"]["R"], atol=1e-6)
    bands = yaml.safe_load((out / "band.yaml").read_text())
    assert bands["natom"] == 2
    assert bands["labels"][0][0] == "Γ"
    thermal = yaml.safe_load((out / "thermal_properties.yaml").read_text())["thermal_properties"]
    assert [row["temperature"] for row in thermal][-1] == 400
    room = next(row for row in thermal if math.isclose(row["temperature"], 300))
    assert entry["free_energy_300K"] == pytest.approx(room["free_energy"] / 96.4853 / 2, rel=1e-4)
    assert entry["heat_capacity_300K"] == pytest.approx(room["heat_capacity"] / 8.31446 / 2, rel=1e-4)


def test_relaxed_moments_report_the_shift(model, inputs, tmp_path):
    result = phonons(inputs / "b.cif", model, tmp_path)
    assert result.exit_code in (0, 3), result.output
    entry = summary_of(tmp_path / "out")["structures"][0]
    assert entry["status"] == "converged", result.output
    assert isinstance(entry["shift_by_moments"], float)
    assert summary_of(tmp_path / "out")["config"]["magmoms"] == "relaxed"


def test_what_cannot_be_computed(model, inputs, tmp_path):
    ase.io.write(inputs / "c.extxyz", molecule())
    (inputs / "d.cif").write_text("nonsense")
    result = phonons(inputs, model, tmp_path, "--magmoms", "fixed", "--no-figures")
    assert result.exit_code == 3
    entries = summary_of(tmp_path / "out")["structures"]
    assert [entry["status"] for entry in entries] == ["converged"] * 3 + ["failed"] * 2
    assert "periodic in all three directions" in entries[3]["message"]
    assert "cannot be read" in entries[4]["message"]
    assert names_in(tmp_path / "out") == RUN_FILES | {"relaxed.extxyz", "a_0", "a_1", "b"}


def test_finished_crystals_are_kept_when_the_run_is_killed(model, inputs, tmp_path, monkeypatch):
    real = phonons_module.Phonons._finish
    finished = []

    def killed(self, job):
        if finished:
            raise KeyboardInterrupt
        finished.append(job.index)
        return real(self, job)

    arguments = (inputs, model, tmp_path, "--magmoms", "fixed", "--no-plots", "--max-batch-atoms", "16")
    monkeypatch.setattr(phonons_module.Phonons, "_finish", killed)
    assert phonons(*arguments).exit_code == 130
    assert names_of(tmp_path / "out" / "a_0") == CRYSTAL_FILES
    monkeypatch.undo()
    result = phonons(*arguments)
    assert result.exit_code == 2
    assert "--force" in result.output
    assert phonons(*arguments, "--force").exit_code == 0


def test_force_removes_only_its_own_files(model, inputs, tmp_path):
    assert phonons(inputs / "b.cif", model, tmp_path, "--magmoms", "fixed").exit_code == 0
    mine = tmp_path / "out" / "b" / "notes.txt"
    mine.write_text("keep me")
    again = ("--magmoms", "fixed", "--no-plots", "--force")
    assert phonons(inputs / "b.cif", model, tmp_path, *again).exit_code == 0
    assert names_of(tmp_path / "out" / "b") == CRYSTAL_FILES | {"notes.txt"}


def test_nothing_to_do(tmp_path):
    assert mmace_sim("phonons").exit_code == 2
    result = mmace_sim("phonons", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "no such file" in result.output
    assert "--min-length" in mmace_sim("phonons", "--help").output
