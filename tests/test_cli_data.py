"""``mmace-sim data check`` and ``data convert`` end to end."""

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from cli_tools import mmace_sim, names_in, summary_of
from format_files import write_cfg, write_deepmd
from test_formats import check_first
from training_toys import toy_frames, write_toys

from mmace_sim.io.frames import frame_identity, read_frames

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
    assert names_in(out) == FILES
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


@pytest.mark.parametrize("name", ["out.extxyz", "out.extxyz.xz", "out.aselmdb", "out.db"])
def test_every_format_can_be_converted(tmp_path, name):
    (tmp_path / "type_map.raw").write_text("Al Fe\n")
    bare = Atoms("Fe", [[0, 0, 0]])
    write(tmp_path / "bare.traj", bare)
    files = [
        write_deepmd(tmp_path / "system", n_sets=1, n_frames=1),
        write_cfg(tmp_path / "set.cfg", n=1),
        tmp_path / "bare.traj",
        write_toys(tmp_path / "toys.extxyz", n=2),
    ]
    result = mmace_sim("data", "convert", *files, "-o", tmp_path / name)
    assert result.exit_code == 3
    assert "bare.traj@0" in result.output
    assert "4 structures; with energy 4" in result.output
    frames = read_frames([tmp_path / name]).frames
    check_first(frames[0])
    check_first(frames[1])
    toy = toy_frames(2)[1]
    assert frames[3].config_type == toy.info["config_type"]
    assert frame_identity(frames[3].atoms) == frame_identity(toy)
    np.testing.assert_allclose(frames[3].labels["forces"], toy.arrays["REF_forces"], atol=1e-8)
    assert sorted(p.name for p in tmp_path.glob("part-*")) == []
    assert mmace_sim("data", "convert", *files, "-o", tmp_path / name).exit_code == 2  # exists
    assert mmace_sim("data", "convert", files[0], "-o", tmp_path / name, "--force").exit_code == 0
    assert len(read_frames([tmp_path / name]).frames) == 1


def test_check_and_convert_say_what_is_wrong(tmp_path):
    system = write_deepmd(tmp_path / "system", n_sets=1, n_frames=4)
    result = mmace_sim("data", "check", system, "-o", tmp_path / "out", "--no-figures")
    assert summary_of(tmp_path / "out")["n_frames"] == {"data": 4}, result.output
    result = mmace_sim("data", "convert", system, "-o", tmp_path / "out.cif")
    assert result.exit_code == 2
    assert ".aselmdb" in str(result.output)
    assert not (tmp_path / "out.cif").exists()
