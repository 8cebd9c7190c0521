"""``mmace-sim elastic`` from files to files."""

import json

import ase.io
import numpy as np
import pytest
from cli_tools import RUN_FILES, bcc, csv_rows, mmace_sim, molecule, names_in, summary_of
from pymatgen.analysis.elasticity import ElasticTensor

FILES = RUN_FILES | {"relaxed.extxyz", "figures"}


def test_iron_from_file_to_figures(tmp_path):
    ase.io.write(tmp_path / "iron.extxyz", bcc(a=2.83))
    out = tmp_path / "run"
    result = mmace_sim("elastic", tmp_path / "iron.extxyz", "--magmoms", "both", "-o", out)
    assert result.exit_code == 0, result.output
    assert names_in(out) == FILES
    assert {path.name for path in (out / "figures").iterdir()} == {"iron_young.png", "iron_young.svg"}
    (entry,) = summary_of(out)["structures"]
    assert (entry["status"], entry["n_independent"], entry["strains"]) == ("converged", 3, ["xx", "yz"])
    relaxed, fixed = entry["constants"]["relaxed"], entry["constants"]["fixed"]
    assert relaxed["stable"]
    assert 80 < relaxed["C44"] < 150
    assert relaxed["bulk"] == pytest.approx(190, rel=0.2)  # by the DFT of the default model
    assert fixed["C11"] - relaxed["C11"] == pytest.approx(fixed["C12"] - relaxed["C12"], abs=0.5)
    assert fixed["C11"] - relaxed["C11"] > 10
    np.testing.assert_allclose(relaxed["c_gpa"], relaxed["c_ieee_gpa"], atol=0.1)
    np.testing.assert_allclose(entry["softening_by_moments_gpa"][0][0], fixed["C11"] - relaxed["C11"])
    tensor = ElasticTensor.from_dict(relaxed["elastic_tensor"])
    np.testing.assert_allclose(tensor.voigt, relaxed["c_gpa"])
    rows = csv_rows(out / "summary.csv")
    assert [row["magmoms"] for row in rows] == ["fixed", "relaxed"]
    assert float(rows[1]["C44"]) == relaxed["C44"]
    (atoms,) = ase.io.read(out / "relaxed.extxyz", ":")
    assert atoms.get_volume() == pytest.approx(entry["volume"])
    assert np.abs(entry["stress"]).max() < 0.02
    assert "1 structure: 1 converged." in result.output
    assert "C₄₄" in result.output
    assert mmace_sim("elastic", tmp_path / "iron.extxyz", "-o", out).exit_code == 2


def test_options_reach_the_calculation(tmp_path):
    ase.io.write(tmp_path / "iron.extxyz", bcc(a=2.83))
    arguments = (
        "--no-relax",
        "--clamped-ions",
        "--no-symmetry",
        "--strains",
        "0.004",
        "--magmoms",
        "fixed",
        "-q",
    )
    result = mmace_sim("elastic", tmp_path / "iron.extxyz", *arguments, "--no-figures", "-o", tmp_path / "o")
    assert (result.exit_code, result.output) == (0, "")
    summary = summary_of(tmp_path / "o")
    (entry,) = summary["structures"]
    assert entry["n_independent"] == 21
    assert entry["strains"] == ["xx", "yy", "zz", "yz", "xz", "xy"]
    assert entry["volume"] == pytest.approx(2.83**3)
    assert list(entry["constants"]) == ["fixed"]
    assert summary["config"]["strains"] == [0.004]
    assert "figures" not in {path.name for path in (tmp_path / "o").iterdir()}


def test_bad_structures_are_named_and_do_not_stop_others(model, tmp_path):
    ase.io.write(tmp_path / "a.extxyz", [bcc(), molecule()])
    (tmp_path / "b.cif").write_text("nonsense")
    out = tmp_path / "run"
    result = mmace_sim("elastic", tmp_path, "-m", model, "-o", out, "--no-relax", "--magmoms", "fixed")
    assert result.exit_code == 3, result.output
    entries = summary_of(out)["structures"]
    assert [entry["name"] for entry in entries] == ["a.extxyz#0", "a.extxyz#1", "b.cif"]
    assert entries[0]["status"] == "converged"
    assert "need a crystal" in entries[1]["message"]
    assert "b.cif: cannot be read" in result.output
    assert [row["name"] for row in csv_rows(out / "summary.csv")] == [entry["name"] for entry in entries]
    assert json.loads((out / "summary.json").read_text())["finished"]
