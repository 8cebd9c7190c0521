"""``mmace-sim moments`` from files to files."""

import ase.io
import numpy as np
import pytest
import yaml
from cli_tools import RUN_FILES, bcc, csv_rows, mmace_sim, molecule, names_in, summary_of

FILES = RUN_FILES | {"starts.csv", "minima.extxyz", "structures", "figures"}


def test_iron_from_file_to_figures(tmp_path):
    ase.io.write(tmp_path / "iron.extxyz", bcc(a=2.83))
    out = tmp_path / "run"
    result = mmace_sim("moments", tmp_path / "iron.extxyz", "--starts", "4", "-o", out)
    assert result.exit_code == 0, result.output
    assert names_in(out) == FILES
    assert {path.name for path in (out / "figures").iterdir()} == {
        f"iron_{what}.{end}" for what in ("energy", "magforce") for end in ("png", "svg")
    }
    (entry,) = summary_of(out)["structures"]
    assert (entry["status"], entry["n_converged"], entry["n_lowest"]) == ("converged", 4, 4)
    (minimum,) = entry["minima"]
    assert minimum["magnetic_order"] == "FM"
    assert minimum["magnetic_space_group"] == "139.537"
    assert minimum["is_stable"] is True
    assert entry["n_evaluations"] == 4 * (1 + entry["mean_steps"])
    starts = csv_rows(out / "starts.csv")
    assert [row["start"] for row in starts] == ["0", "1", "2", "3"]
    assert all(float(row["max_magforce"]) <= 1e-4 for row in starts)
    image = ase.io.read(out / "minima.extxyz")
    np.testing.assert_allclose(image.get_potential_energy() / 2, minimum["energy"])
    np.testing.assert_allclose(image.get_initial_magnetic_moments(), minimum["magmoms"], atol=1e-6)
    assert (out / "structures" / "iron-1.mcif").is_file()
    assert "1 structure: 1 converged." in result.output
    # the configuration of a run repeats it
    again = mmace_sim("moments", "-c", out / "config.yaml", "--force", "--no-figures", "-q")
    assert (again.exit_code, again.output) == (0, "")
    assert names_in(out) == FILES
    assert summary_of(out)["structures"][0]["minima"][0]["energy"] == pytest.approx(minimum["energy"])


def test_options_reach_the_search(tmp_path, model):
    ase.io.write(tmp_path / "iron.extxyz", bcc())
    ase.io.write(tmp_path / "dimer.extxyz", molecule())
    (tmp_path / "broken.cif").write_text("not a structure")
    out = tmp_path / "run"
    result = mmace_sim(
        "moments", tmp_path / "iron.extxyz", tmp_path / "dimer.extxyz", tmp_path / "broken.cif", "-m", model,
        "--starts", "2", "--fix-magnitude", "--only", "1", "--field", "0,0,-500", "--solver", "fire",
        "--magforce-tol", "0.01", "--no-figures", "-o", out,
    )  # fmt: skip
    assert result.exit_code == 3, result.output
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert (config["only"], config["field"]) == (["1"], [0.0, 0.0, -500.0])
    iron, dimer, broken = sorted(summary_of(out)["structures"], key=lambda e: "idb".index(e["name"][0]))
    assert broken["status"] == "failed"
    for entry in (iron, dimer):
        for minimum in entry["minima"]:
            assert minimum["magmoms"][0] == pytest.approx([0, 0, 2.2 if entry is iron else 2.0], abs=1e-12)
            assert np.linalg.norm(minimum["magmoms"][1]) == pytest.approx(2.2 if entry is iron else 2.0)
    assert not list((out / "structures").glob("dimer*"))
