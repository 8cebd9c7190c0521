"""POSCAR files: what VASP accepts is read as VASP reads it, and what is damaged costs a sentence with its line."""

import io
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms, FixScaled
from ase.io import read, write
from ase.units import fs

from mmace_sim.errors import NotAStructureError, StructureError
from mmace_sim.io.collection import read_structures
from mmace_sim.io.poscar import fortran_float, read_poscar

PLAIN = "Fe2\n1.0\n2.8 0 0\n0 2.8 0\n0 0 2.8\nFe\n2\nDirect\n0 0 0\n0.5 0.5 0.5\n"
SELECTIVE = PLAIN.replace("Direct", "Selective\nDirect")


def parsed(text):
    return read_poscar(text, Path("POSCAR"))


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace("\n1.0\n", "\n-21.952\n").replace("2.8", "1.0"),
        PLAIN.replace("\n1.0\n", "\n1.0D0 ! scale\n"),
        PLAIN.replace("\n1.0\n", "\n2.8 1.4 5.6\n").replace(
            "2.8 0 0\n0 2.8 0\n0 0 2.8", "1 0 0\n0 2 0\n0 0 .5"
        ),
        PLAIN.replace("\nFe\n", "\nFe_pv/0123abcd\n"),
        PLAIN.replace("\nFe\n", "\nFe_sv_GW\n").replace("\n2\n", "\n2 ! atoms\n"),
        PLAIN.replace("\nFe\n2\n", "\nFe Fe\n1 1\n"),
        PLAIN.replace("\nFe\n2\n", "\n2\n"),
        PLAIN.replace("Fe2\n", "Fe_2 of 1999\n", 1).replace("\nFe\n2\n", "\n2\n"),
        PLAIN.replace("0.5 0.5 0.5", ".5D0 5.0d-1 +.5"),
        PLAIN.replace("0.5 0.5 0.5", "0.5, 0.5, 0.5 Fe2"),
        PLAIN.replace("Direct\n0 0 0\n0.5 0.5 0.5", "Kartesisch\n0 0 0\n1.4 1.4 1.4"),
        PLAIN.replace("\n1.0\n", "\n2.0\n")
        .replace("2.8", "1.4")
        .replace("Direct", "cart")
        .replace("0.5", "0.7"),
        PLAIN + "\n" + "0 0 0\n" * 2,
        PLAIN + "a remark\n",
    ],
)
def test_the_same_structure_in_every_way_of_writing(text):
    atoms = parsed(text)
    assert atoms.get_chemical_symbols() == ["Fe", "Fe"]
    assert np.allclose(atoms.cell.array, 2.8 * np.eye(3))
    assert np.allclose(atoms.positions, [[0, 0, 0], [1.4, 1.4, 1.4]])
    assert atoms.pbc.all()
    assert not atoms.has("momenta")


@pytest.mark.parametrize(
    "flags", ["T T F", ".TRUE. .TRUE. .FALSE.", "t t f", ".T. .T. .F.", "True True False Fe1"]
)
def test_flags_of_selective_dynamics_as_fortran_reads_them(flags):
    text = SELECTIVE.replace("0 0 0\n0.5 0.5 0.5", f"0 0 0 {flags}\n0.5 0.5 0.5 F F F")
    whole, partly = parsed(text).constraints
    assert isinstance(whole, FixAtoms)
    assert whole.index.tolist() == [1]
    assert isinstance(partly, FixScaled)
    assert partly.index.tolist() == [0]
    assert partly.mask.tolist() == [False, False, True]


def test_velocities_in_angstrom_per_femtosecond():
    for between in ("", "Lattice velocities and vectors\n1\n" + "0 0 0\n" * 6):
        atoms = parsed(PLAIN + between + "\n0 0 0.01\n0 0 -1D-2\n\n1\n0 0 0\n")
        assert np.allclose(atoms.get_velocities() * fs, [[0, 0, 0.01], [0, 0, -0.01]])


def test_potcar_beside_a_file_without_symbols(tmp_path):
    path = tmp_path / "POSCAR"
    path.write_text(PLAIN.replace("Fe2\n", "my crystal\n", 1).replace("\nFe\n2\n", "\n1 1\n"))
    with pytest.raises(StructureError, match="names no elements"):
        read_structures(path)
    (tmp_path / "POTCAR").write_text(
        "   TITEL  = PAW_PBE Fe_pv 02Aug2007\n x\n   TITEL  = PAW_PBE O 08Apr2002\n"
    )
    (found,) = read_structures(path)
    assert found.atoms.get_chemical_symbols() == ["Fe", "O"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAIN.replace("\nFe\n2\n", "\nFe Al\n2\n"), r"2 elements \(Fe Al\), but line 7 has 1 "),
        (PLAIN.replace("\nFe\n2\n", "\nFe\n1 1\n"), r"1 elements \(Fe\), but line 7 has 2 "),
        (PLAIN.replace("\n2\n", "\n1\n"), "more positions than the 1 atoms"),
        (PLAIN.replace("\n2\n", "\n3\n"), "ends before position 3 of 3"),
        (PLAIN.replace("\n2\n", "\n-2\n"), "line 7: expected how many atoms"),
        (PLAIN.replace("\n2\n", "\n0\n"), "line 7: expected how many atoms"),
        (PLAIN.replace("\n2\n", "\n2.0\n"), "line 7: expected how many atoms"),
        (PLAIN.replace("\n2\n", "\n1000000000\n"), "announces 1000000000 atoms"),
        (PLAIN.replace("\nFe\n", "\nXx\n"), "'Xx' is no element"),
        (PLAIN.replace("\nFe\n", "\nFeO\n"), "'FeO' is no element"),
        (PLAIN.replace("\n1.0\n", "\n0.0\n"), "the scale in line 2 is 0.0"),
        (PLAIN.replace("\n1.0\n", "\n1 1 -1\n"), "the scale in line 2 is 1 1 -1"),
        (PLAIN.replace("\n1.0\n", "\nnan\n"), "the scale in line 2"),
        (PLAIN.replace("0 2.8 0\n", "0 2.8\n"), "line 4, cell vector b: expected three numbers"),
        (PLAIN.replace("0 0 2.8", "0 2.8 0"), "lie in a plane"),
        (PLAIN.replace("Direct\n", ""), "line 8: expected Direct or Cartesian"),
        (PLAIN.replace("0.5 0.5 0.5", "0.5 0.5"), "line 10, position 2 of 2"),
        (PLAIN.replace("0.5 0.5 0.5", "***** 0.5 0.5"), r"found '\*\*\*\*\* 0.5"),
        (PLAIN.replace("0.5 0.5 0.5", "inf 0.5 0.5"), "found 'inf 0.5"),
        (SELECTIVE, "expected three times T or F after the position, found ''"),
        (SELECTIVE.replace("0 0 0\n0.5", "0 0 0 T T\n0.5"), "expected three times T or F"),
        (SELECTIVE.replace("0 0 0\n0.5", "0 0 0 1 1 0\n0.5"), "expected three times T or F"),
        (PLAIN[:30], "ends before"),
    ],
)  # fmt: skip
def test_damage_is_named_with_its_line(text, message):
    with pytest.raises(StructureError, match=message) as caught:
        parsed(text)
    assert not isinstance(caught.value, NotAStructureError)


def test_something_else_is_no_poscar():
    with pytest.raises(NotAStructureError, match="second line is no number"):
        parsed("the POSCAR of the project\nis elsewhere\n")


@pytest.mark.parametrize("direct", [True, False])
def test_what_ase_writes_reads_as_ase_reads_it(tmp_path, direct):
    rng = np.random.default_rng(0)
    for seed in range(20):
        n = int(rng.integers(1, 9))
        symbols = rng.choice(["Fe", "O", "Al"], n).tolist()
        atoms = Atoms(symbols, cell=4 * np.eye(3) + rng.normal(size=(3, 3)) * 0.4, pbc=True)
        atoms.set_scaled_positions(rng.random((n, 3)) * 1.5 - 0.2)
        fixed = rng.random((n, 3)) < 0.3
        partly = [FixScaled(k, fixed[k]) for k in range(n) if 0 < fixed[k].sum() < 3]
        atoms.set_constraint([FixAtoms(np.flatnonzero(fixed.all(axis=1)).tolist()), *partly])
        path = tmp_path / f"POSCAR_{seed}"
        write(path, atoms, format="vasp", direct=direct)
        expected = read(path, format="vasp")
        (found,) = read_structures(path)
        assert (found.atoms.numbers == expected.numbers).all()
        assert np.allclose(found.atoms.positions, expected.positions, atol=1e-12)
        assert np.allclose(found.atoms.cell.array, expected.cell.array, atol=1e-12)
        again = io.StringIO()
        write(again, found.atoms, format="vasp", direct=direct)
        expected_again = io.StringIO()
        write(expected_again, expected, format="vasp", direct=direct)
        assert again.getvalue() == expected_again.getvalue()


def test_numbers_of_fortran():
    assert [fortran_float(word) for word in (".5D0", "1.d-3", "-2", "+1E+1")] == [0.5, 1e-3, -2, 10]
    with pytest.raises(ValueError, match="could not convert"):
        fortran_float("1.0*")


def test_compressed_and_with_a_byte_order_mark(tmp_path):
    (tmp_path / "POSCAR").write_bytes(("\ufeff" + PLAIN.replace("\n", "\r\n")).encode())
    (found,) = read_structures(tmp_path / "POSCAR")
    assert np.allclose(found.atoms.positions, 1.4 * np.array([[0, 0, 0], [1, 1, 1]]))
