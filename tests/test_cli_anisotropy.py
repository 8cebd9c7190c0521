"""``mmace-sim anisotropy`` from files to files."""

import ase.io
import pytest
from cli_tools import RUN_FILES, bcc, csv_rows, mmace_sim, names_in, summary_of, write_tiny_model

from mmace_sim.report import write_report

FILES = {
    "directions.csv", "anisotropy_planes.png", "anisotropy_planes.svg", "anisotropy_surface.png",
    "anisotropy_surface.svg",
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        soc: write_tiny_model(folder / f"{soc}.safetensors", spin_orbit=soc == "with")
        for soc in ("with", "without")
    }


def write_structures(folder):
    folder.mkdir()
    tetragonal = bcc(magmoms=(2.2, -2.2))
    tetragonal.set_cell([2.8, 2.8, 3.2], scale_atoms=True)
    ase.io.write(folder / "tetragonal.extxyz", tetragonal)
    ase.io.write(folder / "cubic.extxyz", bcc())
    ase.io.write(folder / "zero.extxyz", bcc(magmoms=(0.0, 0.0)))


def test_a_folder_is_ranked(models, tmp_path):
    write_structures(tmp_path / "in")
    out = tmp_path / "run"
    arguments = ("anisotropy", tmp_path / "in", "-m", models["with"], "-o", out, "--magmoms", "fixed",
                 "--directions", "40", "--curve-points", "6")  # fmt: skip
    result = mmace_sim(*arguments)
    assert result.exit_code == 3, result.output  # the one without moments
    assert names_in(out) == RUN_FILES | {"cubic", "tetragonal", "figures"}
    for name in ("cubic", "tetragonal"):
        assert {path.name for path in (out / name).iterdir()} == FILES
    assert {path.name for path in (out / "figures").iterdir()} == {"ranking.png", "ranking.svg"}
    summary = summary_of(out)
    entries = {entry["name"]: entry for entry in summary["structures"]}
    assert "K1 > 0" in summary["units"]["convention"]
    write_report(out)  # whose constants are a list
    assert "tetragonal.extxyz" in (out / "report.html").read_text(encoding="utf-8")
    cubic = entries["cubic.extxyz"]
    assert (cubic["symmetry"], cubic["form"], cubic["easy"]) == ("cubic", "cubic", "<100>")
    assert cubic["mae"] == pytest.approx(cubic["K1"] / 3 + cubic["K2"] / 27, rel=1e-6)
    assert entries["tetragonal.extxyz"]["form"] == "uniaxial"
    assert {row["name"] for row in entries["tetragonal.extxyz"]["constants"]} == {
        "K1",
        "K2",
        "K3",
        "K_cos4",
        "K_cos4_6",
    }
    assert cubic["mae_mev_fu"] == pytest.approx(cubic["mae"] / 1e3)
    rows = csv_rows(out / "summary.csv")
    sizes = [float(row["mae"]) for row in rows[:2]]
    assert [row["rank"] for row in rows] == ["1", "2", ""]
    assert sizes == sorted(sizes, reverse=True)
    assert rows[2]["name"] == "zero.extxyz"
    assert "no moments to turn" in rows[2]["message"]
    points = csv_rows(out / "cubic" / "directions.csv")
    assert {row["used_for"] for row in points} == {"fit", "plane"}
    assert all(abs(float(row["energy"]) - float(row["harmonics"])) < 1e-3 for row in points)
    assert mmace_sim(*arguments).exit_code == 2
    again = mmace_sim(
        "anisotropy", "-c", out / "config.yaml", "--force", "--no-figures", "--plane", "0,0,1", "-q"
    )
    assert (again.exit_code, again.output) == (3, "")
    assert not list(out.rglob("*.png"))


def test_map_of_a_data_set(models, tmp_path):
    frames = [bcc(), bcc(a=2.9), bcc(magmoms=(2.2, -2.2))]
    for frame, kind in zip(frames, ("near", "far", "near"), strict=True):
        frame.info["config_type"] = kind
    ase.io.write(tmp_path / "data.extxyz", frames)
    out = tmp_path / "map"
    result = mmace_sim("anisotropy", "--map", tmp_path / "data.extxyz", "-m", models["with"], "-o", out,
                       "--rotations", "3")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert names_in(out) == RUN_FILES | {"figures"}
    assert {path.name for path in (out / "figures").iterdir()} == {"sensitivity.png", "sensitivity.svg"}
    rows = csv_rows(out / "summary.csv")
    assert {row["group"] for row in rows} == {"near", "far"}
    assert float(rows[0]["sensitivity"]) >= float(rows[-1]["sensitivity"]) > 0
    assert "n_atoms" in summary_of(out)["units"]["sensitivity"]


def test_what_cannot_be_done_is_said_before_anything_is_written(models, tmp_path):
    ase.io.write(tmp_path / "iron.extxyz", bcc())
    iron, out = tmp_path / "iron.extxyz", tmp_path / "run"
    result = mmace_sim("anisotropy", iron, "-m", models["without"], "-o", out)
    assert result.exit_code == 2
    assert "zero by construction" in result.output
    assert not out.exists()
    for flags in (["--plane", "0,0"], ["--form", "round"], ["--axis", "a,b,c"], ["--directions", "1"]):
        assert mmace_sim("anisotropy", iron, "-m", models["with"], "-o", out, *flags).exit_code == 2, flags
        assert not out.exists()
    assert mmace_sim("anisotropy", iron, "-m", models["with"], "--dtype", "float32").exit_code == 2
    for idle in (["--rotations", "4"], ["--map", "--directions", "40"]):
        result = mmace_sim("anisotropy", iron, "-m", models["with"], "-o", out, *idle)
        assert (result.exit_code, "has no effect" in result.output) == (2, True), idle
        assert not out.exists()
    assert mmace_sim("anisotropy").exit_code == 2
