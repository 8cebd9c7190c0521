"""``mmace-sim data check`` end to end."""

import numpy as np
from ase.io import write
from cli_tools import mmace_sim, summary_of
from training_toys import toy_frames, write_toys

FILES = {"summary.json", "config.yaml", "log.txt", "figures"}


def test_help():
    assert "--keys" in mmace_sim("data", "check", "--help").output


def test_files_of_a_run(tmp_path):
    files = {
        role: write_toys(tmp_path / f"{role}.extxyz", n=8, seed=k) for k, role in enumerate(("train", "test"))
    }
    out = tmp_path / "out"
    result = mmace_sim("data", "check", "--train", files["train"], "--test", files["test"], "-o", out)
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == FILES
    names = {f"{n}.{s}" for n in ("moments", "energies", "energy_volume") for s in ("png", "svg")}
    assert names <= {path.name for path in (out / "figures").iterdir()}
    summary = summary_of(out)
    assert summary["n_frames"] == {"train": 8, "test": 8}
    assert {f["code"] for f in summary["findings"]} >= {"labels", "leakage", "coverage", "moments"}
    assert "what to do" in result.output


def test_an_error_has_exit_code_3(tmp_path):
    file = write_toys(tmp_path / "toys.extxyz", n=6)
    arguments = (
        "data",
        "check",
        "--train",
        file,
        "--test",
        file,
        "--no-figures",
        "-q",
        "-o",
        tmp_path / "out",
    )
    result = mmace_sim(*arguments)
    assert result.exit_code == 3
    assert result.output == ""
    assert summary_of(tmp_path / "out")["worst"] == "error"
    assert mmace_sim(*arguments).exit_code == 2  # the folder is in use
    assert mmace_sim(*arguments, "--force").exit_code == 3


def test_other_keys(tmp_path):
    frames = toy_frames(6)
    for atoms in frames:
        atoms.info["dft"] = atoms.info.pop("REF_energy")
        atoms.arrays["spins"] = np.asarray(atoms.arrays.pop("REF_magmom"))
    write(tmp_path / "other.extxyz", frames, format="extxyz")
    result = mmace_sim(
        "data", "check", tmp_path / "other.extxyz", "--keys", "energy=dft,magmoms=spins", "--no-figures", "-o", tmp_path / "o"
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert summary_of(tmp_path / "o")["findings"][0]["values"]["energy"] == 6


def test_usage_errors(tmp_path):
    file = write_toys(tmp_path / "toys.extxyz", n=3)
    assert mmace_sim("data", "check").exit_code == 2
    assert "labels are energy" in mmace_sim("data", "check", file, "--keys", "spin=x").output
    assert "LABEL=KEY" in mmace_sim("data", "check", file, "--keys", "energy").output
    assert mmace_sim("data", "check", tmp_path / "missing.extxyz").exit_code == 2
