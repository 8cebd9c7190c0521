"""What looked right and was not: files that are cut, that say things twice, or that hold more than ASE reads of them."""

import json
import zlib

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixCom
from pymatgen.core import Lattice, Structure

from mmace_sim.graph.atoms import get_magmoms, has_magmoms
from mmace_sim.io import find_bounds
from mmace_sim.io.collection import FailedStructure, load_structures
from mmace_sim.io.frames import read_frames

FRAME = """2
Lattice="2.8 0 0 0 2.8 0 0 0 2.8" Properties=species:S:1:pos:R:3:magmoms:R:1{more} pbc="T T T"{info}
Fe 0 0 0 2.25{values}
Fe 1.4 1.4 1.4 2.25{values}
"""
AIRSS = """TITL Fe-1 0.1 22.0 -6.5 0.0 4.4 2 (Im-3m) n - 3
CELL 1.5418 2.8 2.8 2.8 90 90 90
LATT -1
SFAC Fe
Fe 1 0 0 0 1.0 2.2
Fe 1 0.5 0.5 0.5 1.0 -2.2
END
"""


def frame(more="", values="", info=""):
    return FRAME.format(more=more, values=values, info=info)


def read(path, text):
    path.write_text(text)
    (item,) = load_structures([path])
    return item


def test_a_last_number_without_the_end_of_its_line_is_told(tmp_path):
    whole = read(tmp_path / "a.extxyz", frame())
    assert whole.notes == []
    for cut in (1, 2, 3):
        found = read(tmp_path / "b.extxyz", frame()[:-cut])
        assert get_magmoms(found.atoms)[1, 2] == float("2.25"[: len("2.25") + 1 - cut])
        assert any("if it was cut, its last number is too short" in note for note in found.notes)


def test_what_is_given_twice_is_refused_unless_it_is_the_same(tmp_path):
    assert "pbc is given twice" in read(tmp_path / "a.extxyz", frame(info=' pbc="F F F"')).message
    assert "energy is given twice" in read(tmp_path / "a.extxyz", frame(info=" energy=-1 energy=-2")).message
    assert read(tmp_path / "a.extxyz", frame(info=' pbc="T T T" a=1 a=1')).atoms.pbc.all()
    columns = read(tmp_path / "a.extxyz", frame(more=":magmoms:R:1", values=" -2.25"))
    assert "two columns magmoms" in columns.message


def test_columns_that_contradict_the_moments_are_told(tmp_path):
    other = read(tmp_path / "a.extxyz", frame(more=":spin:R:3", values=" 0 0 -2.25"))
    assert get_magmoms(other.atoms)[:, 2].tolist() == [2.25, 2.25]
    assert other.notes == ["spin in the file says something else than the moments that were read"]
    assert read(tmp_path / "a.extxyz", frame(more=":spin:R:3", values=" 0 0 2.25")).notes == []


def test_files_of_airss_have_their_spins(tmp_path):
    found = read(tmp_path / "a.res", AIRSS)
    np.testing.assert_allclose(get_magmoms(found.atoms), [[0, 0, 2.2], [0, 0, -2.2]])
    assert found.atoms.info == {
        "name": "Fe-1", "pressure": 0.1, "energy": -6.5, "spacegroup": "Im-3m", "times_found": 3,
    }  # fmt: skip
    plain = read(tmp_path / "b.res", AIRSS.replace(" 1.0 2.2", " 1.0").replace(" 1.0 -2.2", " 1.0"))
    assert not has_magmoms(plain.atoms)
    shelx = read(
        tmp_path / "c.res", AIRSS.replace("Fe-1 0.1 22.0 -6.5 0.0 4.4 2 (Im-3m) n - 3", "of a crystal")
    )
    assert not has_magmoms(shelx.atoms)  # the last number is a displacement there
    atoms = bulk("Fe", cubic=True)
    ase.io.write(tmp_path / "d.res", atoms)
    (ours,) = load_structures([tmp_path / "d.res"])
    np.testing.assert_allclose(ours.atoms.cell.lengths(), atoms.cell.lengths(), atol=1e-5)
    np.testing.assert_allclose(ours.atoms.get_scaled_positions(), atoms.get_scaled_positions(), atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [("0.5 0.5 0.5 1.0 -2.2\nEND\n", "0.5 0.5", "no atom with a position"),
     ("Fe 1 0.5 0.5 0.5 1.0 -2.2\nEND\n", "", "title says 2 atoms"),
     ("LATT -1", "LATT 2", "by symmetry"), ("LATT -1", "LATT -1\nSYMM -X,-Y,-Z", "by symmetry"),
     ("0.5 1.0 -2.2", "0.5 0.5 -2.2", "fully occupied"), ("0.5 1.0 -2.2", "nan 1.0 -2.2", "not finite"),
     ("Fe 1 0.5", "Xx 1 0.5", "no element"), ("90 90 90", "90 90", "CELL needs"), ("90 90 90", "10 10 170", "no cell"),
     ("0.5 1.0 -2.2", "O.5 1.0 -2.2", "no number")],
)  # fmt: skip
def test_res_files_that_are_cut_or_hold_more_are_refused(tmp_path, old, new, said):
    assert said in read(tmp_path / "a.res", AIRSS.replace(old, new)).message


def test_a_fixed_centre_of_mass_is_read(tmp_path):
    atoms = Atoms("Fe2", positions=[[0, 0, 0], [1.4, 1.4, 1.4]], cell=[2.8] * 3, pbc=True)
    atoms.set_constraint(FixCom())
    for ending in ("json", "traj", "db"):
        ase.io.write(tmp_path / f"a.{ending}", atoms)
        (item,) = load_structures([tmp_path / f"a.{ending}"])
        assert [type(c).__name__ for c in item.atoms.constraints] == ["FixCom"]


def write_lmdb(path, rows, **more):
    """As ase-db-backends writes it."""
    lmdb = pytest.importorskip("lmdb")
    environment = lmdb.open(str(path), subdir=False, map_size=2**24)
    with environment.begin(write=True) as transaction:
        values = {str(number): row for number, row in enumerate(rows, 1)} | {"nextid": len(rows) + 1} | more
        for key, value in values.items():
            transaction.put(key.encode(), zlib.compress(json.dumps(value).encode()))
    environment.close()


ROW = {
    "numbers": [26, 26],
    "positions": [[0, 0, 0], [1.4, 1.4, 1.4]],
    "cell": (2.8 * np.eye(3)).tolist(),
    "pbc": [True] * 3,
    "magmoms": [2.2, -2.2],
}


def test_a_database_that_is_cut_off_does_not_end_the_process(tmp_path):
    """LMDB reads pages of the file where they should be: beyond its end that is a bus error."""
    write_lmdb(tmp_path / "whole.aselmdb", [ROW] * 30)
    data = (tmp_path / "whole.aselmdb").read_bytes()
    assert len(load_structures([tmp_path / "whole.aselmdb"])) == 30
    for length in range(0, len(data), 4096):
        path = tmp_path / f"{length}.aselmdb"
        path.write_bytes(data[:length])
        (item,) = load_structures([path])
        assert isinstance(item, FailedStructure), length


@pytest.mark.parametrize(
    "broken", [{"data": [1]}, {"key_value_pairs": 3}, {"magmoms": "x"}, {"forces": "no"}]
)
def test_a_row_of_other_kinds_of_values_stops_no_other(tmp_path, broken):
    write_lmdb(tmp_path / "rows.aselmdb", [ROW, ROW | broken, ROW])
    (tmp_path / "rows.json").write_text(json.dumps({"ids": [1, 2, 3], "1": ROW, "2": ROW | broken, "3": ROW}))
    for name in ("rows.aselmdb", "rows.json"):
        found = load_structures([tmp_path / name])
        assert [isinstance(item, FailedStructure) for item in found[::2]] == [False, False]
        frames = read_frames([tmp_path / name])
        assert len(frames.frames) + len(frames.problems) == 3
        assert len(frames.frames) >= 2


@pytest.mark.parametrize("deleted", [{"a": 1}, ["1"], 3])
def test_deleted_rows_that_are_no_numbers(tmp_path, deleted):
    write_lmdb(tmp_path / "rows.aselmdb", [ROW], deleted_ids=deleted)
    (item,) = load_structures([tmp_path / "rows.aselmdb"])
    assert "deleted rows" in item.message


def test_moments_beside_a_structure_as_matpes_has_them(tmp_path):
    structure = Structure(Lattice.cubic(2.8), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    document = {"structure": structure.as_dict(), "magmoms": [2.2, [0, 1.0, 0]], "energy": -16.0}
    (tmp_path / "matpes.json").write_text(json.dumps([document, document | {"magmoms": [1.0]}]))
    first, second = load_structures([tmp_path / "matpes.json"])
    np.testing.assert_allclose(get_magmoms(first.atoms), [[0, 0, 2.2], [0, 1, 0]])
    assert not has_magmoms(second.atoms)
    document["structure"]["sites"][0]["properties"] = {"magmom": 1.5}
    document["structure"]["sites"][1]["properties"] = {"magmom": None}
    (tmp_path / "matpes.json").write_text(json.dumps(document))
    (item,) = load_structures([tmp_path / "matpes.json"])
    np.testing.assert_allclose(get_magmoms(item.atoms), [[0, 0, 2.2], [0, 1, 0]])  # computed
    assert any("differs" in note for note in item.notes)


MOMENTS_OF_SITES = """data_x
_cell_length_a 2.87
_cell_length_b 2.87
_cell_length_c 2.87
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
{symmetry}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Fe1 Fe 0 0 0
loop_
_atom_site_moment.label
_atom_site_moment.crystalaxis_x
_atom_site_moment.crystalaxis_y
_atom_site_moment.crystalaxis_z
Fe1 0 0 2.2
"""


@pytest.mark.parametrize(
    ("symmetry", "said"),
    [
        ("_symmetry_space_group_name_H-M 'I m -3 m'", "magnetic symmetry is unknown"),
        ("_space_group_IT_number 229", "magnetic symmetry is unknown"),
        ("_symmetry_space_group_name_H-M 'P 1'\n_space_group_IT_number 1", ""),
        ("_symmetry_space_group_name_H-M 'I m -3 m'\nloop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'\n", ""),
    ],
)
def test_moments_with_a_group_that_makes_atoms_are_not_those_of_one_site(tmp_path, symmetry, said):
    found = read(tmp_path / "a.cif", MOMENTS_OF_SITES.format(symmetry=symmetry))
    if said:
        assert said in found.message
    else:
        np.testing.assert_allclose(get_magmoms(found.atoms), [[0, 0, 2.2]])


def test_every_structure_of_a_res_file_is_read(tmp_path):
    (tmp_path / "all.res").write_text(AIRSS + AIRSS.replace("0.5 0.5 0.5", "0.5 0.5 nan") + "\n" + AIRSS)
    found = load_structures([tmp_path / "all.res"])
    assert [isinstance(item, FailedStructure) for item in found] == [False, True, False]


def test_starting_magnetizations_are_no_moments(tmp_path):
    text = """&control
/
&system
 ibrav=0, nat=2, ntyp=2, nspin=2, starting_magnetization(1)=0.5, starting_magnetization(2)=-0.5
/
&electrons
/
ATOMIC_SPECIES
Fe1 55.8 Fe.upf
Fe2 55.8 Fe.upf
CELL_PARAMETERS angstrom
2.87 0 0
0 2.87 0
0 0 2.87
ATOMIC_POSITIONS crystal
Fe1 0 0 0
Fe2 .5 .5 .5
K_POINTS gamma
"""
    found = read(tmp_path / "a.pwi", text)
    assert not has_magmoms(found.atoms)
    assert "starting_magnetization" in found.notes[0]


def test_copies_of_an_editor_are_no_structures(tmp_path):
    for name in ("POSCAR~", "a.cif~"):
        (tmp_path / name).write_text("junk")
    assert load_structures([tmp_path]) == []


ABINIT = """ntypat 1
znucl 26
natom 2
typat 1 1
acell 1 1 1
rprim 5.42 0 0 0 5.42 0 0 0 5.42
xred 0 0 0 .5 .5 .5
"""


@pytest.mark.parametrize(
    ("spinat", "moments", "note"),
    [
        ("spinat 0 0 2.2 # first\n 2*0 -11d-1\necut 10\n", [[0, 0, 2.2], [0, 0, -1.1]], ""),
        ("! spinat 0 0 1 0 0 1\n", None, ""),
        ("spinat 0 0 2.2\n", None, "three numbers for each atom"),
        ("spinat 999999999*0\n", None, "three numbers for each atom"),
        ("ndtset 2\nspinat1 6*1\nspinat2 6*2\n", None, "single data sets"),
    ],
)
def test_starting_moments_of_abinit(tmp_path, spinat, moments, note):
    found = read(tmp_path / "a.abi", ABINIT + spinat)
    assert has_magmoms(found.atoms) == (moments is not None)
    if moments is not None:
        np.testing.assert_allclose(get_magmoms(found.atoms), moments)
    assert note in " ".join(found.notes)


def test_a_periodic_frame_without_a_cell_is_no_label(tmp_path):
    """The name of the lattice begins with a capital: a file with another is read without it."""
    (tmp_path / "a.extxyz").write_text(frame(info=" REF_energy=-3").replace("Lattice", "lattice"))
    found = read_frames([tmp_path / "a.extxyz"])
    assert found.frames == []
    assert "no cell vector" in found.problems[0]


@pytest.mark.parametrize("ending", ["db", "aselmdb", "parquet", "traj", "extxyz", "json"])
def test_counting_the_structures_of_a_damaged_file_is_no_error(tmp_path, ending):
    """Every command counts before it reads."""
    whole = tmp_path / f"a.{ending}"
    if ending == "aselmdb":
        write_lmdb(whole, [ROW] * 3)
    elif ending == "parquet":
        whole.write_bytes(b"PAR1" + bytes(5000) + b"PAR1")
    else:
        ase.io.write(whole, [bulk("Fe", cubic=True)] * 3)
    data = whole.read_bytes()
    for k, damaged in enumerate((data[: 2 * len(data) // 3], data[:100], data[:4096] + bytes(len(data)))):
        path = tmp_path / f"{k}.{ending}"
        path.write_bytes(damaged)
        bounds = find_bounds(path)
        assert bounds is None or all(len(pair) == 2 for pair in bounds)
        load_structures([path])
