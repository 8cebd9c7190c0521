"""What is written can be read, and nothing that a structure carries costs a run that is computed."""

import io
import json
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from cli_tools import bcc, csv_rows, mmace_sim, print_relaxations, summary_of
from typer.testing import CliRunner

from mmace_sim.base.text import PLAIN_TEXT, json_text, plain, printable
from mmace_sim.cli.app import app
from mmace_sim.engine import results
from mmace_sim.engine.output import entry_head, write_csv
from mmace_sim.files import write_text
from mmace_sim.io.collection import FailedStructure, LoadedStructure
from mmace_sim.io.extxyz import frame_text, frames_text
from mmace_sim.io.writing import file_names, write_structures
from mmace_sim.properties.relax import output as relax_output

CASES = Path(__file__).parent / "cases" / "structures"
ASE_ARRAY = '_JSON {"__ndarray__": [[1000000000000], "float64", [1]]}'
QUICK = ("--max-steps", "0", "--fixed-cell", "--quiet")
"""Nothing converges in no step: exit code 3."""


def strict_json(path):
    """Parse JSON that has neither NaN nor infinities."""
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)


def computed():
    atoms = bcc([[0, 0, 2.0], [0, 0.5, 2.0]])
    atoms.calc = SinglePointCalculator(
        atoms, energy=-1.0, forces=np.full((2, 3), 0.25), stress=np.arange(6) * 1e-3, magmoms=np.ones((2, 3))
    )
    return atoms


def read_back(frame):
    (again,) = ase.io.read(io.StringIO(frame.text, newline=None), index=":", format="extxyz")
    return again


# --- extended XYZ -------------------------------------------------------------------------------------------------

KEPT = {
    "newline": "one\ntwo", "carriage return": "one\rtwo", "empty": "", "none": None, "true": True, "T": "T",
    "digits": "12", "json": ASE_ARRAY, "broken json": "_JSON [1,", "path": r"C:\new\table", "quote": 'say "hi"',
    "apostrophe": "it's", "nested": {"a": [1, {"b": None}]}, "no text": "a\udcff", "infinity": np.inf, "nan": np.nan,
    "list": [5], "one": np.array([5]), "matrix": np.arange(6).reshape(2, 3), "tuple": (1, 2), "big": 10**400,
    "float32": np.float32(0.1), "unicode": "Fe₂O₃ μ", "brace": "{a}", "equals": "a=b", "spaces": "  a ", "nul": "a\0b",
    "separator": "a\u2028b", "flags": np.array([True, False]), "nothing": np.array([]), "key=b": None, 'key"q': 1,
}  # fmt: skip
LOST = {
    "energy": -1.0, "stress": np.eye(3), "free_energy": 2, "magmoms": [1], "forces": 3, "object": object(),
    "bytes": b"x", "set": {1}, "complex": 1 + 2j, "Lattice": "x", "Properties": "y", "pbc": "z", 5: "five", "": 3,
    "key\nnewline": 1, ("t",): 1, "virial": 3, "array of objects": np.array([object()]), "digits": 10**5000,
}  # fmt: skip


@pytest.mark.parametrize("key", KEPT)
def test_info_that_reads_back(key):
    atoms = computed()
    atoms.info = {"first": 1, key.replace("key=b", "before"): KEPT[key], "last": "x"}
    frame = frame_text(atoms)
    again = read_back(frame)
    assert frame.left_out == []
    assert list(again.info) == list(atoms.info)
    if isinstance(KEPT[key], str):
        assert again.info[key] == KEPT[key]
    else:
        assert plain(again.info) == plain(atoms.info)
    assert again.get_potential_energy() == -1.0


@pytest.mark.parametrize("key", LOST, ids=repr)
def test_info_that_is_left_out(key):
    atoms = computed()
    atoms.info = {"first": 1, key: LOST[key], "last": "x"}
    frame = frame_text(atoms)
    again = read_back(frame)
    assert again.info == {"first": 1, "last": "x"}
    assert frame.left_out == [f"info '{printable(str(key))}'"]
    assert "left out" in frame.note
    assert again.get_potential_energy() == -1.0
    np.testing.assert_allclose(again.get_stress(), np.arange(6) * 1e-3)


def test_arrays_that_do_not_read_back_are_left_out():
    atoms = computed()
    good = {
        "label": np.array(["x", "yy"]), "objects": np.array(["x", "yy"], dtype=object), "a": np.ones((2, 2)),
        "flag": np.array([True, False]), "column": np.ones((2, 1)), "momenta": np.ones((2, 3)),
        "nan": np.array([np.nan, np.inf]), "huge": np.array([1e300, -1e-300]),
    }  # fmt: skip
    bad = {
        "forces": np.ones((2, 3)), "energies": np.ones(2), "object": np.array([object(), 1]), "complex": np.ones(2) * 1j,
        "words": np.array(["a b", ""]), "a0": np.ones(2), "two words": np.ones(2), "tensor": np.ones((2, 3, 3)),
        "huge integers": np.array([1, 2**40]), "col:on": np.ones(2), "width 0": np.ones((2, 0)), "line\n": np.ones(2),
        "surrogate": np.array(["a", "\udcff"]), "move_mask": np.ones(2),
    }  # fmt: skip
    atoms.arrays |= good | bad
    atoms.set_constraint(FixAtoms([1]))
    frame = frame_text(atoms)
    again = read_back(frame)
    assert set(again.arrays) == {"numbers", "positions", "initial_magmoms", *good}
    assert {name.removeprefix("array ").strip("'") for name in frame.left_out} == {
        printable(name) for name in bad
    }
    assert again.constraints[0].index.tolist() == [1]
    np.testing.assert_allclose(again.get_forces(apply_constraint=False), 0.25)


def test_one_frame_does_not_cost_the_others():
    unknown = computed()
    unknown.numbers[0] = 300
    text, notes = frames_text([computed(), unknown, Atoms("Fe", info={"a": "\n2\nFe"}), computed()])
    again = ase.io.read(io.StringIO(text), index=":", format="extxyz")
    assert [len(atoms) for atoms in again] == [2, 1, 2]
    assert list(notes) == [1]
    assert "not written" in notes[1]


def test_further_formats_ignore_info(tmp_path):
    atoms = computed()
    atoms.info = {"name": "-dash\n@", "occupancy": object(), "spacegroup": 3}
    strange = computed()
    strange.numbers[0] = 300
    strange.info["name"] = "strange"
    notes = write_structures(tmp_path, [strange, atoms], ["cif", "mcif", "poscar"])
    assert sorted(path.name for path in (tmp_path / "structures").iterdir()) == [
        "dash_.cif", "dash_.mcif", "dash_.vasp"
    ]  # fmt: skip
    assert len([note for name, note in notes if name == "strange"]) == 4
    assert len(ase.io.read(tmp_path / "structures" / "dash_.vasp")) == 2


# --- JSON, tables, texts --------------------------------------------------------------------------------------------


def test_json_is_strict_and_reads_back(tmp_path):
    value = {
        "inf": np.inf, "nan": [np.nan, 1.5], "array": np.array([1.0, -np.inf]), "scalar": np.float32(0.5), 3: {1},
        "flag": np.True_, "object": object, "text": "\udcff\n", "complex": 1j, "none": None, "big": 10**30,
    }  # fmt: skip
    write_text(tmp_path / "a.json", json_text(value))
    again = strict_json(tmp_path / "a.json")
    assert again["inf"] is None
    assert again["nan"] == [None, 1.5]
    assert again["array"] == [1.0, None]
    assert (again["scalar"], again["3"], again["flag"], again["none"]) == (0.5, [1], True, None)
    assert (again["text"], again["complex"], again["big"]) == ("\udcff\n", "1j", 10**30)


def test_tables_read_back(tmp_path):
    row = {
        "name": 'a\nb,"c"',
        "dict": {"Fe": None, "Co": 1.0, "Ni": "x"},
        "list": ["a", None],
        "s": "\udcff",
        "v": [3, 4],
    }
    write_csv(tmp_path / "a.csv", tuple(row), [row, {}])
    first, second = csv_rows(tmp_path / "a.csv")
    assert first["name"] == row["name"]
    assert first["dict"] == "Fe:None Co:1.0000 Ni:x"
    assert (first["list"], first["v"], first["s"]) == ("a None", "3 4", "\\udcff")
    assert set(second.values()) == {""}


def test_names_of_files():
    names = [
        "a b.cif",
        "a_b.cif",
        "A_b.cif",
        "-rf",
        "..",
        "x" * 500,
        "x" * 500 + "y",
        "Fe₂.xyz",
        "\udcff",
        "a@1.vasp",
    ]
    files = file_names(names)
    assert len({name.casefold() for name in files}) == len(names)
    assert all(
        name and not name.startswith(("-", ".")) and "/" not in name and len(name) < 120 for name in files
    )
    assert file_names(["a.cif", "b.vasp"]) == ["a", "b"]


def test_atoms_that_are_no_elements_have_no_formula():
    atoms = bcc()
    atoms.numbers[0] = 300
    assert entry_head(LoadedStructure("a", 0, "a", atoms))["formula"] is None


@pytest.mark.parametrize("width", ["1", "7", "80"])
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_tables_on_any_terminal(tmp_path, monkeypatch, width, encoding):
    monkeypatch.setenv("COLUMNS", width)
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=PLAIN_TEXT)
    monkeypatch.setattr(sys, "stdout", stream)
    entry = entry_head(FailedStructure("f", "bad → \x1b[31m Å\udcff\nx", name="Fe₂\nO₃.cif\x1b[2J")) | {
        "magnetic_order_initial": "FM", "magmom_by_species": {"Fe": 2.0}, "total_magmom": [0, 0, 1.0],
    }  # fmt: skip
    print_relaxations([entry] * 2, tmp_path / "o\udcff")
    stream.flush()
    text = stream.buffer.getvalue().decode(encoding)
    assert "\x1b" not in text
    assert "\\x1b" in text
    assert "2 structures: 2 failed." in text.replace("\n", " ")


def test_signs_that_an_encoding_lacks():
    assert "1 μB → 2 Å–³ 漢\udcff".encode("ascii", PLAIN_TEXT) == b"1 uB > 2 A-3 \\u6f22\\udcff"


# --- whole runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "status", "notes"),
    [
        ("info_energy", "max_steps", {"airss.res", "i.traj"}),
        ("ase_json_info", "max_steps", set()),
        ("velocities", "max_steps", set()),
        ("huge_moments", "failed", set()),
        ("atomic_number", "failed", set()),
    ],
)
def test_cases(model, tmp_path, case, status, notes):
    result = mmace_sim("relax", CASES / case, "-m", model, "-o", tmp_path / "o", *QUICK)
    assert result.exit_code == 3, result.output
    entries = strict_json(tmp_path / "o" / "summary.json")["structures"]
    assert {entry["status"] for entry in entries} == {status}
    assert {entry["name"] for entry in entries if "info 'energy'" in str(entry["notes"])} == notes
    if status == "failed":
        words = {"huge_moments": "beyond any meaning", "atomic_number": "no element"}[case]
        assert all(words in entry["message"] for entry in entries)
    else:
        assert len(ase.io.read(tmp_path / "o" / "relaxed.extxyz", ":")) == len(entries)
    if case == "info_energy":
        by_name = {atoms.info["name"]: atoms for atoms in ase.io.read(tmp_path / "o" / "relaxed.extxyz", ":")}
        assert by_name["nl.traj"].info["comment"] == "line one\nline two"
        assert by_name["airss.res"].get_potential_energy() > -1
        assert by_name["cplx.extxyz"].arrays["lab"].tolist() == ["x", "y"]


def test_names_of_any_bytes(model, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    names = [
        "a\udcff.extxyz",
        "new\nline.extxyz",
        "-dash.extxyz",
        "esc\x1b[31m.extxyz",
        "ü λ.extxyz",
    ]
    for name in names:
        (folder / name).write_text(frame_text(bcc()).text)
    (folder / "broken\n\udcff.extxyz").write_text("2\n\nFe 0 0 0\n")
    result = mmace_sim(
        "relax", folder, "-m", model, "-o", tmp_path / "o\udcff", "--write", "mcif", *QUICK[:-1]
    )
    assert result.exit_code == 3, result.output
    assert "\x1b[31m" not in result.output
    entries = summary_of(tmp_path / "o\udcff")["structures"]
    assert {Path(entry["file"]).name for entry in entries} == {*names, "broken\n\udcff.extxyz"}
    assert all(entry["name"].isprintable() for entry in entries)
    again = ase.io.read(tmp_path / "o\udcff" / "relaxed.extxyz", ":")
    assert {atoms.info["name"] for atoms in again} == {printable(name) for name in names}
    assert len(list((tmp_path / "o\udcff" / "structures").iterdir())) == len(names)
    assert len(csv_rows(tmp_path / "o\udcff" / "summary.csv")) == len(entries)
    assert "a\\udcff.extxyz" in (tmp_path / "o\udcff" / "log.txt").read_text(encoding="utf-8")
    again = mmace_sim(
        "relax", folder, "-m", model, "-o", tmp_path / "o\udcff", "--write", "mcif", *QUICK, "--resume"
    )
    assert again.exit_code == 3, again.output


def test_a_failure_of_further_files_leaves_the_summary(model, tmp_path, monkeypatch):
    def broken(*_):
        assert summary_of(tmp_path / "o")["structures"]
        raise RuntimeError("no figure today")

    monkeypatch.setattr(relax_output, "write_structures", broken)
    ase.io.write(tmp_path / "a.extxyz", bcc())
    result = mmace_sim("relax", tmp_path / "a.extxyz", "-m", model, "-o", tmp_path / "o", *QUICK)
    assert result.exit_code == 3
    assert "RuntimeError: no figure today. The results are in summary.json." in result.output
    assert "no figure today" in summary_of(tmp_path / "o")["notes"][0]
    assert "Traceback" in (tmp_path / "o" / "log.txt").read_text()


def test_a_structure_whose_result_cannot_be_written_fails_alone(model, tmp_path, monkeypatch):
    real = relax_output.output_atoms

    def broken(structure, result):
        if structure.index == 1:
            raise ValueError("no place for this")
        return real(structure, result)

    monkeypatch.setattr(relax_output, "output_atoms", broken)
    ase.io.write(tmp_path / "a.extxyz", [bcc(), bcc(a=2.8), bcc(a=2.75)])
    result = mmace_sim("relax", tmp_path / "a.extxyz", "-m", model, "-o", tmp_path / "o", *QUICK)
    assert result.exit_code == 3
    entries = summary_of(tmp_path / "o")["structures"]
    assert [entry["status"] == "failed" for entry in entries] == [False, True, False]
    assert (
        "computed, but the result cannot be written: ValueError: no place for this" in entries[1]["message"]
    )
    assert len(ase.io.read(tmp_path / "o" / "relaxed.extxyz", ":")) == 2


def test_a_result_that_cannot_be_kept_fails_alone(model, tmp_path, monkeypatch):
    real = results.encode

    def broken(result):
        if result.atoms.cell.lengths()[0] == 2.8:
            raise TypeError("no place for this")
        return real(result)

    monkeypatch.setattr(results, "encode", broken)
    ase.io.write(tmp_path / "a.extxyz", [bcc(), bcc(a=2.8), bcc(a=2.75)])
    options = ("--n-volumes", "5", "--magmoms", "fixed", "--no-figures", "--quiet")
    start = ("eos", tmp_path / "a.extxyz", "-m", model, "-o", tmp_path / "o", *options)
    result = mmace_sim(*start)
    assert result.exit_code == 3, result.output
    entries = summary_of(tmp_path / "o")["structures"]
    assert ["the result cannot be written: TypeError" in entry["message"] for entry in entries] == [
        False, True, False
    ]  # fmt: skip
    assert all(len(entries[k]["states"][0]["points"]) == 5 for k in (0, 2))
    assert len(ase.io.read(tmp_path / "o" / "points.extxyz", ":")) == 10
    monkeypatch.undo()
    assert mmace_sim(*start, "--resume").exit_code == 3
    assert summary_of(tmp_path / "o")["structures"] == entries


def test_ascii_terminal(model, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    (tmp_path / "a\udcff.extxyz").write_text(frame_text(bcc()).text)
    run = CliRunner(charset="ascii").invoke
    arguments = ["relax", str(tmp_path / "a\udcff.extxyz"), "-m", str(model), "-o", str(tmp_path / "o")]
    result = run(app, [*arguments, *QUICK[:-1]])
    assert result.exit_code == 3, result.output
    assert b"uB" in result.stdout_bytes
    assert b"a\\udcff.extxyz" in result.stdout_bytes.replace(b"\n", b"").replace(b" ", b"")


@pytest.mark.parametrize("command", ["relax", "data", "evaluate"])
def test_names_that_look_like_markup(model, tmp_path, command):
    """Rich takes [/x] for the end of a style that never began."""
    folder = tmp_path / "[red]" / "x]"
    (tmp_path / "[red]").mkdir()
    source = tmp_path / "[red]" / "[bold].extxyz"
    labelled = bcc()
    labelled.info |= {"REF_energy": -1.0, "config_type": "[/bold]"}
    labelled.arrays["REF_magmom"] = np.ones((2, 3))
    ase.io.write(source, [labelled, labelled])
    arguments = {
        "relax": ("relax", source, "-m", model, "-o", folder, *QUICK[:-1]),
        "data": ("data", "check", source, "-o", folder, "--no-figures"),
        "evaluate": ("evaluate", model, source, "-o", folder, "--no-figures"),
    }[command]
    result = mmace_sim(*arguments)
    assert isinstance(result.exception, SystemExit | None), result.output
    assert result.exit_code in (0, 3), result.output
    assert "[red]/x]" in result.output
