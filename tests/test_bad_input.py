"""Every kind of bad input: a message that names the file and the remedy, and the others go on."""

import errno
import json
import os
import struct

import ase.io
import numpy as np
import pytest
from ase import Atoms
from cli_tools import bcc, mmace_sim, molecule, summary_of, write_tiny_model

from mmace_sim.engine.inputs import prepare_run
from mmace_sim.engine.journal import Journal
from mmace_sim.errors import (
    MissingMomentsError,
    MomentShapeError,
    OutputError,
    StructureError,
    UnsupportedElementError,
)
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.io.collection import LoadedStructure, read_structures
from mmace_sim.properties.relax.declaration import RELAX
from mmace_sim.properties.relax.relaxation import Relaxation
from mmace_sim.structures.checks import check_structure

IRON = [26]
LOOSE = ("--fmax", "10", "--stress-tol", "1000", "--magforce-tol", "10")


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.extxyz", b"", "is empty"),
        ("a.cif", b"\x00\xff\x13garbage" * 50, "cannot be read|holds no structure"),
        ("a.cif", b"# nothing but a comment\n", "cannot be read|holds no structure"),
        ("POSCAR", b"Fe\n1.0\n2.8 0 0\n0 2.8", "line 4, cell vector b"),
        ("a.json", b'{"an": "object"}', "cannot be read"),
        ("a.json", b"[]", "cannot be read|holds no structure"),
        ("a.json", b'{"lattice": ', "cannot be read"),
        ("a.extxyz", b'2\nLattice="2 0 0 0 2 0 0 0 2"\nFe 0 0 0\n', "cannot be read"),
        ("a.mcif", b"data_x\n_atom_site_moment.label Fe1\n", "holds no structure"),
        ("a.unknown", b"what is this?\n", "cannot be read"),
    ],
)
def test_unreadable_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StructureError, match=message) as caught:
        read_structures(tmp_path / name)
    assert name in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(StructureError, match="no such file"):
        read_structures(tmp_path / "a.cif")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_file_without_permission(tmp_path):
    ase.io.write(tmp_path / "a.extxyz", bcc())
    (tmp_path / "a.extxyz").chmod(0)
    with pytest.raises(StructureError, match="permissions"):
        read_structures(tmp_path / "a.extxyz")


# --- structures ---------------------------------------------------------------------------------------------------


def broken(change):
    atoms = bcc()
    change(atoms)
    return atoms


def move(value):
    return lambda atoms: atoms.positions.__setitem__((1, 2), value)


BAD = {
    "nan": (broken(move(np.nan)), StructureError, r"position of atom 1 \(Fe\) is not finite"),
    "inf": (broken(move(np.inf)), StructureError, "not finite"),
    "no_atoms": (Atoms(cell=np.eye(3), pbc=True), StructureError, "no atoms"),
    "element": (broken(lambda a: a.numbers.__setitem__(0, 8)), UnsupportedElementError, "holds O; the model knows only"),
    "dummy": (broken(lambda a: a.numbers.__setitem__(0, 0)), UnsupportedElementError, "holds X"),
    "no_moments": (bcc(None), MissingMomentsError, "--initial-magmoms"),
    "shape": (broken(lambda a: a.arrays.update(initial_magmoms=np.ones((2, 2)))), MomentShapeError, r"\(2, 2\)"),
    "moment": (broken(lambda a: a.arrays["initial_magmoms"].fill(np.nan)), StructureError, "not finite"),
    "flat": (broken(lambda a: a.set_cell([[2, 0, 0], [0, 2, 0], [2, 2, 0]])), StructureError, "zero volume"),
    "no_cell": (broken(lambda a: a.set_cell(np.zeros((3, 3)))), StructureError, "no cell vector"),
    "left": (broken(lambda a: a.set_cell(a.cell.array[[1, 0, 2]])), StructureError, "left-handed"),
    "cell_nan": (broken(lambda a: a.set_cell(a.cell.array * np.nan)), StructureError, "cell holds numbers"),
    "on_top": (broken(lambda a: a.positions.fill(0.1)), StructureError, r"atom 0 \(Fe\) and atom 1 \(Fe\) are 0.000 Å"),
    "near": (broken(lambda a: a.positions.__setitem__(1, [0.2, 0, 2.7])), StructureError, r"are 0.2\d\d Å apart"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_structures(name):
    atoms, kind, message = BAD[name]
    with pytest.raises(kind, match=message) as caught:
        check_structure(atoms, IRON, name="x.cif#3")
    assert str(caught.value).startswith("x.cif#3: ")


def test_unsupported_element_says_which_models_would_do(monkeypatch, tmp_path):
    path = write_tiny_model(tmp_path / "tiny.safetensors")
    monkeypatch.setattr(
        "mmace_sim.structures.model_choice.list_models", lambda: {"al-fe": path, "gone": tmp_path / "no"}
    )
    aluminium = bcc()
    aluminium.numbers[0] = 13
    with pytest.raises(UnsupportedElementError, match=r"know them all: al-fe \(--model NAME\)"):
        check_structure(aluminium, IRON)


def test_an_atom_on_its_own_image():
    atoms = Atoms("Fe", cell=[3, 3, 0.4], pbc=True)
    set_magmoms(atoms, [1])
    with pytest.raises(StructureError, match=r"its periodic image are 0\.400 Å"):
        check_structure(atoms, IRON)


def test_close_atoms_are_found_in_any_cell():
    """Small cells (all pairs) and large ones (neighbour list) against brute force over many images."""
    rng = np.random.default_rng(1)
    n_close = 0
    for n in [1, 2, 3, 8, 40] * 12 + [80, 120]:
        cell = rng.normal(size=(3, 3)) * (0.7 if n < 3 else 3 if n < 40 else 6)
        if np.linalg.det(cell) < 0:
            cell[0] *= -1
        atoms = Atoms(
            [26] * n, scaled_positions=rng.uniform(-1, 2, size=(n, 3)), cell=cell, pbc=rng.random(3) < 0.8
        )
        set_magmoms(atoms, np.ones(n))
        try:
            check_structure(atoms, IRON)
            close = False
        except StructureError as error:
            if "apart" not in str(error):
                continue
            close = True
        width = 6 if n < 40 else 1
        reach = [np.arange(-width, width + 1) if periodic else [0] for periodic in atoms.pbc]
        images = np.stack(np.meshgrid(*reach, indexing="ij"), -1).reshape(-1, 3)
        scaled = atoms.get_scaled_positions(wrap=True)
        difference = (scaled[:, None, :] - scaled[None, :, :])[:, :, None, :] + images
        distances = np.linalg.norm(difference @ cell, axis=-1)
        distances[distances < 1e-12] = np.inf
        assert close == (distances.min() < 0.5)
        n_close += close
    assert 5 < n_close < 55


def test_molecules_and_slabs_keep_their_cell():
    check = check_structure(molecule(), IRON)
    assert not check.cell_can_relax
    assert "molecule" in check.note
    slab = bcc()
    slab.pbc = (True, True, False)
    slab.cell[2] = 0
    assert "not periodic in all three directions" in check_structure(slab, IRON).note
    assert check_structure(bcc(), IRON).cell_can_relax


def test_one_atom_cells(model, tmp_path):
    frames = [bcc([2.2, 2.2], a=2.8 + 0.1 * k)[[0]] for k in range(3)]
    ase.io.write(tmp_path / "a.extxyz", frames)
    result = mmace_sim("relax", tmp_path / "a.extxyz", "-m", model, "-o", tmp_path / "o", *LOOSE)
    assert result.exit_code == 0, result.output
    assert [len(entry["magmoms"]) for entry in summary_of(tmp_path / "o")["structures"]] == [1, 1, 1]


def test_thousands_of_tiny_structures_are_read_and_checked(tmp_path):
    line = 'Lattice="{a} 0 0 0 {a} 0 0 0 {a}" Properties=species:S:1:pos:R:3:initial_magmoms:R:1 pbc="T T T"'
    frames = [f"1\n{line.format(a=2.2 + k * 1e-5)}\nFe 0 0 0 2.2\n" for k in range(2_000)]
    (tmp_path / "a.extxyz").write_text("".join(frames))
    _, items = prepare_run(RELAX.settings(paths=[str(tmp_path / "a.extxyz")]))
    assert len(items) == 2_000
    assert all(isinstance(item, LoadedStructure) for item in items)
    assert items[1_999].name == "a.extxyz#1999"


def test_hundreds_of_tiny_structures_are_relaxed(model, tmp_path):
    rng = np.random.default_rng(0)
    ase.io.write(tmp_path / "a.extxyz", [bcc([2.2, 2.2], a=a)[[0]] for a in rng.uniform(2.7, 3.0, size=110)])
    result = mmace_sim("relax", tmp_path / "a.extxyz", "-m", model, "-o", tmp_path / "o", *LOOSE)
    assert result.exit_code == 0, result.output[-2000:]
    assert "110 structures: 110 converged" in result.output
    assert "and 10 more" in result.output


def test_bad_files_do_not_stop_the_good_one(model, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, (atoms, _, _) in BAD.items():
        if name not in ("no_atoms", "no_cell", "cell_nan"):
            ase.io.write(folder / f"{name}.extxyz", atoms)
    (folder / "empty.cif").write_text("")
    ase.io.write(folder / "good.extxyz", bcc())
    result = mmace_sim("relax", folder, "-m", model, "-o", tmp_path / "o", *LOOSE)
    assert result.exit_code == 3, result.output
    entries = {entry["name"]: entry for entry in summary_of(tmp_path / "o")["structures"]}
    good = {name for name, entry in entries.items() if entry["status"] == "converged"}
    assert good == {"good.extxyz", "no_moments.extxyz"}
    for name in set(entries) - good:
        assert entries[name]["status"] == "failed"
        assert entries[name]["message"].startswith((name, str(folder / name)))
        assert name in result.output
    assert "--initial-magmoms" not in result.output
    result = mmace_sim(
        "relax", folder, "-m", model, "-o", tmp_path / "afm", *LOOSE, "--initial-magmoms", "afm"
    )
    assert result.exit_code == 3, result.output
    assert "good.extxyz" in result.output
    result = mmace_sim(
        "relax", folder / "no_moments.extxyz", "-m", model, "-o", tmp_path / "p", "--initial-magmoms", "file"
    )
    assert result.exit_code == 3
    assert "no_moments.extxyz: the structure carries no magnetic moments" in result.output
    assert "--initial-magmoms fm" in result.output


def test_nothing_to_do(model, tmp_path):
    (tmp_path / "in").mkdir()
    result = mmace_sim("relax", tmp_path / "in", "-m", model, "-o", tmp_path / "o")
    assert result.exit_code == 2
    assert "no structures in" in result.output
    result = mmace_sim("relax", tmp_path / "typo", "-m", model, "-o", tmp_path / "o")
    assert result.exit_code == 2
    assert "no such file or folder" in result.output
    assert mmace_sim("relax").exit_code == 2
    assert not (tmp_path / "o").exists()


# --- configuration and model --------------------------------------------------------------------------------------


def test_unknown_option_in_a_config(model, tmp_path):
    ase.io.write(tmp_path / "a.extxyz", bcc())
    (tmp_path / "c.yaml").write_text(f"model: {model}\nmagforce_tolerance: 0.1\n")
    result = mmace_sim("relax", tmp_path / "a.extxyz", "--config", tmp_path / "c.yaml", "-o", tmp_path / "o")
    assert result.exit_code == 2
    assert "c.yaml: unknown option 'magforce_tolerance'. Did you mean 'magforce_tol'?" in result.output
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ("--fmax", "0"),
        ("--max-steps", "-1"),
        ("--dtype", "float16"),
        ("--magmoms", "yes"),
        ("--device", "gpu9"),
    ],
)
def test_impossible_values(model, tmp_path, flags):
    ase.io.write(tmp_path / "a.extxyz", bcc())
    result = mmace_sim("relax", tmp_path / "a.extxyz", "-m", model, "-o", tmp_path / "o", *flags)
    assert result.exit_code == 2
    assert flags[1] in result.output
    assert not (tmp_path / "o").exists()


def newer(content):
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    ours = json.loads(header["__metadata__"]["mmace_sim"]) | {"format_version": 99}
    header["__metadata__"]["mmace_sim"] = json.dumps(ours)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda _: b"", "m.safetensors"),
        (lambda content: content[: len(content) // 2], "truncated"),
        (lambda content: b"PK\x03\x04" + content, "not a readable safetensors file|truncated"),
        (newer, "Upgrade"),
    ],
    ids=["empty", "truncated", "corrupted", "newer"],
)
def test_model_files(model, tmp_path, damage, message):
    import re

    (tmp_path / "m.safetensors").write_bytes(damage(model.read_bytes()))
    ase.io.write(tmp_path / "a.extxyz", bcc())
    result = mmace_sim("relax", tmp_path / "a.extxyz", "-m", tmp_path / "m.safetensors", "-o", tmp_path / "o")
    assert result.exit_code == 2
    assert re.search(message, result.output), result.output
    assert "m.safetensors" in result.output
    assert not (tmp_path / "o").exists()


def test_unknown_model_name(tmp_path):
    ase.io.write(tmp_path / "a.extxyz", bcc())
    result = mmace_sim("relax", tmp_path / "a.extxyz", "-m", "mace-of-spades")
    assert result.exit_code == 2
    assert "mmace-sim models" in result.output


# --- output -------------------------------------------------------------------------------------------------------


def full_disk(after):
    """A replacement of os.fsync that finds the disk full after some calls."""
    calls = iter(range(10**6))
    real = os.fsync

    def fsync(descriptor):
        if next(calls) >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    return fsync


def test_output_that_cannot_be_written_is_noticed_before_computing(model, tmp_path, monkeypatch):
    monkeypatch.setattr(Relaxation, "run", lambda *_, **__: pytest.fail("computed for nothing"))
    ase.io.write(tmp_path / "a.extxyz", bcc())
    arguments = ("relax", tmp_path / "a.extxyz", "-m", model, "-o")
    for folder in (tmp_path / ("x" * 300), tmp_path / "a\0b"):
        result = mmace_sim(*arguments, folder)
        assert result.exit_code == 2, result.output
        assert "cannot be written" in result.output
    for folder in (tmp_path / "a.extxyz", tmp_path / "a.extxyz" / "below", "/proc/nowhere"):
        result = mmace_sim(*arguments, folder)
        assert result.exit_code == 2, result.output
        assert str(folder) in result.output
        assert "--output" in result.output
    monkeypatch.setattr(os, "fsync", full_disk(0))
    result = mmace_sim(*arguments, tmp_path / "o")
    assert result.exit_code == 2
    assert "No space left on device" in result.output


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_read_only_output(model, tmp_path):
    ase.io.write(tmp_path / "a.extxyz", bcc())
    (tmp_path / "o").mkdir(mode=0o555)
    result = mmace_sim("relax", tmp_path / "a.extxyz", "-m", model, "-o", tmp_path / "o")
    assert result.exit_code == 2
    assert "Permission denied" in result.output


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
def test_journal_on_a_full_disk():
    from pathlib import Path

    with Journal(Path("/dev/full")) as journal, pytest.raises(OutputError, match="No space left"):
        journal.append({"key": "a"})


@pytest.mark.parametrize("after", [4, 6], ids=["while computing", "at the end"])
def test_disk_that_becomes_full_loses_nothing_that_is_finished(model, tmp_path, monkeypatch, after):
    """fsync 1: probe, 2: header, 3: config, then one for each of 3 structures, then the summary."""
    ase.io.write(tmp_path / "a.extxyz", [bcc(), bcc(a=2.8), bcc(a=2.75)])
    arguments = ("relax", tmp_path / "a.extxyz", "-m", model, "-o", tmp_path / "o", *LOOSE)
    with monkeypatch.context() as patch:
        patch.setattr("mmace_sim.engine.journal.SYNC_INTERVAL", 0.0)
        patch.setattr(os, "fsync", full_disk(after))
        result = mmace_sim(*arguments)
    assert result.exit_code == 2, result.output
    assert "No space left on device" in result.output
    assert "--resume" in result.output
    result = mmace_sim(*arguments, "--resume")
    assert result.exit_code == 0, result.output
    assert len(summary_of(tmp_path / "o")["structures"]) == 3
    assert "from the earlier run" in result.output
