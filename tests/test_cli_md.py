"""``mmace-sim md`` from files to files."""

import ase.io
import numpy as np
from cli_tools import RUN_FILES, bcc, csv_rows, mmace_sim, names_in, summary_of

from mmace_sim.engine.run import Run

FILES = RUN_FILES | {"final.extxyz", "iron"}


def rows_of(folder):
    return csv_rows(folder / "thermo.csv")


def test_iron_with_precessing_moments_and_a_longer_run(tmp_path, model):
    ase.io.write(tmp_path / "iron.extxyz", bcc(((0.5, 0, 2.1), (0, 0, 2.2))))
    out = tmp_path / "run"
    options = [
        "md",
        tmp_path / "iron.extxyz",
        "-m",
        model,
        "-o",
        out,
        "--spins",
        "llg",
        "--every",
        "2",
        "-T",
        "100",
    ]
    result = mmace_sim(*options, "--supercell", "1,1,2", "--steps", "4")
    assert result.exit_code == 0, result.output
    assert names_in(out) == FILES
    assert {path.name for path in (out / "iron").iterdir()} == {
        "trajectory.extxyz", "thermo.csv", "checkpoint.npz",
        *(f"{what}.{end}" for what in ("energies", "temperatures", "moments") for end in ("png", "svg")),
    }  # fmt: skip
    (entry,) = summary_of(out)["structures"]
    assert (entry["status"], entry["n_steps"], entry["n_atoms"]) == ("finished", 4, 4)
    assert "spin_temperature" in summary_of(out)["units"]

    result = mmace_sim(*options, "--supercell", "1,1,2", "--steps", "6", "--resume")
    assert result.exit_code == 0, result.output
    assert [row["step"] for row in rows_of(out / "iron")] == ["0", "2", "4", "6"]
    frames = ase.io.read(out / "iron" / "trajectory.extxyz", ":")
    assert [atoms.info["step"] for atoms in frames] == [0, 2, 4, 6]
    assert frames[-1].arrays["initial_magmoms"].shape == (4, 3)
    assert np.abs(frames[-1].get_velocities()).max() > 0

    refused = mmace_sim(*options, "--supercell", "1", "--steps", "6", "--resume")
    assert refused.exit_code == 2
    assert "supercell" in refused.output


def test_an_exploding_structure_leaves_the_other_running(tmp_path, model):
    fast = bcc()
    fast.set_velocities(np.array([[30.0, 0, 0], [-30.0, 0, 0]]))
    ase.io.write(tmp_path / "fast.extxyz", fast)
    ase.io.write(tmp_path / "iron.extxyz", bcc())
    out = tmp_path / "run"
    result = mmace_sim(
        "md", tmp_path / "fast.extxyz", tmp_path / "iron.extxyz", "-m", model, "-o", out,
        "--ensemble", "nve", "--steps", "3", "--no-figures",
    )  # fmt: skip
    assert result.exit_code == 3, result.output
    statuses = {entry["name"]: entry["status"] for entry in summary_of(out)["structures"]}
    assert statuses == {"fast.extxyz": "exploded", "iron.extxyz": "finished"}
    assert "time step" in result.output


def test_copies_keep_their_noise_when_some_of_them_were_finished_before(tmp_path, model, monkeypatch):
    ase.io.write(tmp_path / "iron.extxyz", [bcc()] * 3)
    options = ["--spins", "llg", "--steps", "2", "--every", "1", "--max-batch-atoms", "2", "--no-figures"]
    start = ["md", tmp_path / "iron.extxyz", "-m", model, *options]
    assert mmace_sim(*start, "-o", tmp_path / "whole").exit_code == 0
    keep = Run.keep

    def interrupted(run, *given):
        keep(run, *given)
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "keep", interrupted)
    assert mmace_sim(*start, "-o", tmp_path / "parts").exit_code == 130
    assert len(list((tmp_path / "parts").glob("*/checkpoint.npz"))) == 1
    monkeypatch.undo()
    assert mmace_sim(*start, "-o", tmp_path / "parts", "--resume").exit_code == 0
    whole, parts = (summary_of(tmp_path / name)["structures"] for name in ("whole", "parts"))
    assert parts == whole
    assert len({entry["energy_potential"] for entry in whole}) == 3


def test_a_file_may_name_options_without_effect_as_long_as_they_are_the_defaults(tmp_path, model):
    ase.io.write(tmp_path / "iron.extxyz", bcc())
    start = ["md", tmp_path / "iron.extxyz", "-m", model, "--steps", "1", "--ensemble", "nve", "--no-figures"]
    assert mmace_sim(*start, "-o", tmp_path / "one").exit_code == 0
    result = mmace_sim("md", "--config", tmp_path / "one" / "config.yaml", "-o", tmp_path / "two")
    assert result.exit_code == 0, result.output
    (tmp_path / "idle.yaml").write_text("pressure_time: 0.1\n")
    result = mmace_sim(*start, "--config", tmp_path / "idle.yaml", "-o", tmp_path / "three")
    assert result.exit_code == 2
    assert "pressure_time: has no effect" in result.output
    assert not (tmp_path / "three").exists()
