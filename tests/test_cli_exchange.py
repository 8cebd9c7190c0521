"""``mmace-sim exchange`` from files to files."""

import ase.io
import pytest
from cli_tools import RUN_FILES, bcc, csv_rows, mmace_sim, molecule, names_in, summary_of

FILES = {
    "shells.csv", "pairs.csv", "magnons.csv", "exchange.png", "exchange.svg", "magnons.png", "magnons.svg",
    "vampire/exchange.ucf", "vampire/exchange.mat", "vampire/input", "uppasd/inpsd.dat", "uppasd/posfile",
    "uppasd/momfile", "uppasd/jfile", "spirit/input.cfg", "spirit/pairs.txt", "tb2j/exchange.out",
}  # fmt: skip
STATES = (
    "vampire/exchange.ucf",
    "vampire/exchange.mat",
    "uppasd/inpsd.dat",
    "spirit/input.cfg",
    "tb2j/exchange.out",
)


def test_iron_from_file_to_files(model, tmp_path):
    ase.io.write(tmp_path / "iron.extxyz", bcc(a=2.83))
    out = tmp_path / "run"
    arguments = (
        "exchange",
        tmp_path / "iron.extxyz",
        "-m",
        model,
        "-o",
        out,
        "--cutoff",
        "3",
        "--magmoms",
        "fixed",
    )
    result = mmace_sim(*arguments)
    assert result.exit_code == 0, result.output
    assert names_in(out) == RUN_FILES | {"iron"}
    folder = out / "iron"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == FILES
    (entry,) = summary_of(out)["structures"]
    assert [shell["n_neighbors"] for shell in entry["shells"]] == [8, 6]
    for shell in entry["shells"]:  # a small angle: all routes see the same energy
        for route in ("J_four_state", "J_spirals"):
            assert shell[route] == pytest.approx(shell["J_derivatives"], rel=0.1, abs=1e-2)
    assert entry["sum_rule_error"] < 1e-6
    assert any("zero by construction" in note for note in entry["notes"])
    assert all("J' > 0 ferromagnetic" in row["convention"] for row in csv_rows(folder / "shells.csv"))
    for name in STATES:
        assert "J' > 0 ferromagnetic" in (folder / name).read_text()
    assert mmace_sim(*arguments).exit_code == 2
    again = mmace_sim(
        "exchange", "-c", out / "config.yaml", "--force", "--no-figures", "--routes", "derivatives", "-q"
    )
    assert (again.exit_code, again.output) == (0, "")
    assert not list(folder.glob("*.png"))


def test_bad_structures_and_options_are_named(model, tmp_path):
    ase.io.write(tmp_path / "a.extxyz", molecule())
    out = tmp_path / "run"
    result = mmace_sim("exchange", tmp_path / "a.extxyz", "-m", model, "-o", out, "--magmoms", "fixed")
    assert result.exit_code == 3
    assert "periodic in all three directions" in summary_of(out)["structures"][0]["message"]
    assert (
        mmace_sim("exchange", tmp_path / "a.extxyz", "--routes", "guess", "-o", tmp_path / "b").exit_code == 2
    )
    assert mmace_sim("exchange", tmp_path / "a.extxyz", "--spin-orbit", "-m", model).exit_code == 2
    assert mmace_sim("exchange").exit_code == 2
