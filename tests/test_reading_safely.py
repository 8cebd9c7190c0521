"""A structure file is data: it imports nothing, runs nothing, and asks for no more memory than its size explains."""

import bz2
import gzip
import json
import lzma
import pickle
import sqlite3
import struct
import sys
import zlib

import ase.db
import ase.io
import lmdb
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mmace_sim.errors import DataError, StructureError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.io.collection import FailedStructure, load_structures, read_structures
from mmace_sim.io.frames import read_frames
from mmace_sim.structures.checks import check_structure

MODULE = "planted_by_a_structure_file"


def bcc(magmoms=(2.0, -2.0)):
    atoms = bulk("Fe", cubic=True)
    set_magmoms(atoms, magmoms)
    return atoms


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A module that a careless decoder would import, and that says so."""
    folder = tmp_path / "modules"
    folder.mkdir()
    flag = tmp_path / "imported"
    (folder / f"{MODULE}.py").write_text(
        f"import pathlib\npathlib.Path({str(flag)!r}).touch()\n"
        "class x:\n    def __init__(self, **k): pass\n    from_dict = classmethod(lambda c, d: c())\n"
    )
    monkeypatch.syspath_prepend(folder)
    yield flag
    assert not flag.exists()
    assert MODULE not in sys.modules


def structure_dict(**changes):
    from pymatgen.core import Lattice, Structure

    cell = Lattice.cubic(2.87)
    structure = Structure(
        cell, ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]], site_properties={"magmom": [2.0, -2.0]}
    )
    return structure.as_dict() | changes


EVIL = {"@module": MODULE, "@class": "x"}


def evil_dicts():
    site = structure_dict()
    site["sites"][0]["properties"]["x"] = EVIL
    species = structure_dict()
    species["sites"][0]["species"][0] |= EVIL | {"properties": {"y": EVIL}}
    lattice = structure_dict()
    lattice["lattice"] |= EVIL
    whole = structure_dict(**EVIL)
    properties = structure_dict(properties={"z": EVIL})
    entry = {
        "@module": MODULE,
        "@class": "ComputedStructureEntry",
        "structure": structure_dict(),
        "data": EVIL,
    }
    return {
        "site": site,
        "species": species,
        "lattice": lattice,
        "whole": whole,
        "properties": properties,
        "entry": entry,
        "list": [EVIL, site, [entry]],
        "nested": {"data": [{"doc": {"output": entry}}], "x": EVIL},
    }


@pytest.mark.parametrize("kind", list(evil_dicts()))
@pytest.mark.parametrize("ending", ["json", "json.gz"])
@pytest.mark.usefixtures("planted")
def test_pymatgen_json_imports_nothing(tmp_path, kind, ending):
    text = json.dumps(evil_dicts()[kind]).encode()
    path = tmp_path / f"a.{ending}"
    path.write_bytes(gzip.compress(text) if ending.endswith("gz") else text)
    before = set(sys.modules)
    items = read_structures(path)
    new = {name.split(".")[0] for name in set(sys.modules) - before}
    assert new <= {"ase", "numpy", "mmace_sim", "gzip", "bz2", "lzma"}
    np.testing.assert_allclose(get_magmoms(items[0].atoms)[:, 2], [2, -2])


@pytest.mark.parametrize("name", ["Structure.json", "mcp.json"])
@pytest.mark.usefixtures("planted")
def test_a_module_in_moments_or_constraints_is_refused(tmp_path, name):
    data = structure_dict()
    data["sites"][0]["properties"]["magmom"] = EVIL
    (tmp_path / name).write_text(json.dumps(data))
    with pytest.raises(StructureError):
        read_structures(tmp_path / name)


def ase_rows():
    """Changes of a row of an ASE database that ask for something absurd, and whether the row can still be read."""
    huge = {"__ndarray__": [[10**12], "float64", [1]]}
    return [
        ({"constraints": [{"name": MODULE, "kwargs": {}}]}, False),
        ({"constraints": [{"name": f"{MODULE}.x", "kwargs": {}}]}, False),
        ({"constraints": [{"name": "FixParametricRelations", "kwargs": {"indices": [0]}}]}, False),
        ({"constraints": [{"name": "FixAtoms", "kwargs": {"indices": [10**12]}}]}, False),
        ({"calculator": MODULE, "calculator_parameters": {"__ase_objtype__": MODULE}}, True),
        ({"data": {"x": {"__ase_objtype__": "bandpath", "labelseq": "G"}}}, True),
        ({"positions": huge}, False),
        ({"initial_magmoms": huge}, False),
        ({"data": {"y": huge}}, False),
        ({"positions": {"__ndarray__": [[2, 3], "O", [0] * 6]}}, False),
        ({"positions": {"__ndarray__": [[2, 3], "V1000000000000", [0] * 6]}}, False),
        ({"positions": {"__ndarray__": [[-2, -3], "float64", [0] * 6]}}, False),
        ({"numbers": {"__ndarray__": [[2], "int64", [26, 10**15]]}}, False),
        ({"numbers": [26, -26]}, False),
        ({"numbers": [26, 0]}, False),
    ]


@pytest.mark.parametrize(("change", "readable"), ase_rows())
@pytest.mark.usefixtures("planted")
def test_ase_json_builds_and_allocates_nothing(tmp_path, change, readable):
    ase.io.write(tmp_path / "a.json", bcc())
    data = json.loads((tmp_path / "a.json").read_text())
    data["1"] |= change
    (tmp_path / "a.json").write_text(json.dumps(data))
    if readable:
        np.testing.assert_allclose(get_magmoms(read_structures(tmp_path / "a.json")[0].atoms)[:, 2], [2, -2])
    else:
        with pytest.raises(StructureError):
            read_structures(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("constraints", '[{"name": "planted_by_a_structure_file", "kwargs": {}}]', "constraint"),
        ("data", '{"a": {"__ndarray__": [[1000000000000], "float64", [1]]}}', "array"),
        ("positions", b"123", "damaged"),
        ("numbers", struct.pack("<2i", 26, 500), "500"),
    ],
)
@pytest.mark.usefixtures("planted")
def test_sqlite_databases(tmp_path, column, value, message):
    with ase.db.connect(tmp_path / "a.db") as db:
        db.write(bcc())
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute(f"UPDATE systems SET {column} = ?", (value,))
    (item,) = load_structures([tmp_path / "a.db"])
    assert isinstance(item, FailedStructure)
    assert message in item.message


def test_databases_are_opened_for_reading_only(tmp_path):
    with ase.db.connect(tmp_path / "a.db") as db:
        db.write(bcc())
    before = (tmp_path / "a.db").read_bytes()
    names = sorted(tmp_path.iterdir())
    read_structures(tmp_path / "a.db")
    assert (tmp_path / "a.db").read_bytes() == before
    assert sorted(tmp_path.iterdir()) == names


def test_lmdb_bombs(tmp_path):
    def write(name, **values):
        environment = lmdb.open(str(tmp_path / name), subdir=False)
        with environment.begin(write=True) as transaction:
            for key, value in values.items():
                transaction.put(key.encode(), zlib.compress(value))
        environment.close()
        return tmp_path / name

    with pytest.raises(DataError, match="announces"):
        read_frames([write("many.lmdb", nextid=b"1000000000000")])
    with pytest.raises(DataError, match="times as large"):
        read_frames([write("bomb.lmdb", nextid=b"2", **{"1": b" " * (80 * 2**20)})])


def traj_bytes(tmp_path, replace=(b"", b""), info=None):
    atoms = bcc()
    atoms.info.update(info or {})
    ase.io.write(tmp_path / "x.traj", atoms)
    data = (tmp_path / "x.traj").read_bytes()
    assert replace[0] in data
    return data.replace(*replace)


@pytest.mark.parametrize(
    "replace",
    [(b"[2, 3]", b"[9, 9]"), (b'"float64"', b'"object_"'), (struct.pack("<q", 1), struct.pack("<q", 2**61))],
    ids=["shape", "type", "items"],
)
def test_mutilated_trajectories(tmp_path, replace):
    (tmp_path / "a.traj").write_bytes(traj_bytes(tmp_path, replace))
    with pytest.raises(StructureError):
        read_structures(tmp_path / "a.traj")


@pytest.mark.usefixtures("planted")
def test_trajectories_decode_no_objects(tmp_path):
    info = {"a": {"__ase_objtype__": MODULE}, "b": '{"__ndarray__": [[1000000000000], "float64", [1]]}'}
    (tmp_path / "a.traj").write_bytes(traj_bytes(tmp_path, info=info))
    assert read_structures(tmp_path / "a.traj")[0].atoms.info["b"] == info["b"]


def test_info_of_extxyz_stays_text(tmp_path):
    text = '_JSON {\\"__ndarray__\\": [[1000000000000], \\"float64\\", [1]]}'
    (tmp_path / "a.extxyz").write_text(
        f'1\nLattice="3 0 0 0 3 0 0 0 3" a="{text}" b="_JSON [[1, 2], [3, 4]]" c="_JSON no" hash=12e345 n=1e400 '
        "id=0012 x=-inf\nFe 0 0 0\n"
    )
    info = read_structures(tmp_path / "a.extxyz")[0].atoms.info
    assert info["a"].startswith("_JSON")
    np.testing.assert_array_equal(info["b"], [[1, 2], [3, 4]])
    assert (info["c"], info["hash"], info["n"], info["id"]) == ("_JSON no", "12e345", "1e400", "0012")
    assert info["x"] == -np.inf


@pytest.mark.parametrize("name", ["a.py", "a.gpw", "a.pckl", "a.html", "a.png", "a.bundle"])
@pytest.mark.usefixtures("planted")
def test_programs_are_no_structures(tmp_path, name):
    content = {"a.py": f"import {MODULE}\n", "a.gpw": "- of UlmGPAW", "a.html": "<html>"}.get(name)
    data = content.encode() if content else pickle.dumps({"a": 1})
    (tmp_path / name).write_bytes(data)
    with pytest.raises(StructureError, match="cannot be read"):
        read_structures(tmp_path / name)


CELL = 'Lattice="2.83 0 0 0 2.83 0 0 0 2.83" Properties=species:S:1:pos:R:3'
HUGE = {
    "a.extxyz": f"1000000000\n{CELL}\nFe 0 0 0\n",
    "b.extxyz": f"{'9' * 400}\n{CELL}\nFe 0 0 0\n",
    "c.extxyz": f"1\n{CELL}:initial_magmoms:R:1000000000\nFe 0 0 0\n",
    "d.extxyz": f"1\n{CELL}\nFe 0 0 0\n99999999999999999999\n{CELL}\nFe 0 0 0\n",
    "POSCAR": "x\n1\n3 0 0\n0 3 0\n0 0 3\nFe\n1000000000\nDirect\n0 0 0\n",
    "a.vasp": "x\n1\n3 0 0\n0 3 0\n0 0 3\nFe O\n1 99999999999999999999\nDirect\n0 0 0\n",
    "XDATCAR": "x\n1\n3 0 0\n0 3 0\n0 0 3\nFe\n1000000000\nDirect configuration= 1\n0 0 0\n",
    "a.xsf": "CRYSTAL\nPRIMVEC\n3 0 0\n0 3 0\n0 0 3\nPRIMCOORD\n1000000000 1\nFe 0 0 0\n",
    "a.cube": "x\ny\n1000000000 0 0 0\n1 1 0 0\n1 0 1 0\n1 0 0 1\n26 0 0 0 0\n0\n",
    "b.cube": "x\ny\n1 0 0 0\n100000 1 0 0\n100000 0 1 0\n100000 0 0 1\n26 0 0 0 0\n0\n",
    "a.gen": "1000000000 C\nFe\n1 1 0 0 0\n",
    "a.cfg": "Number of particles = 1000000000\nA = 1.0 Angstrom\nH0(1,1) = 3 A\n",
    "a.json": json.dumps({"numbers": {"__ndarray__": [[10**9], "int64", [26]]}, "positions": [[0, 0, 0]]}),
}


@pytest.mark.parametrize("name", list(HUGE))
@pytest.mark.parametrize("pack", [None, gzip], ids=["plain", "gz"])
def test_announced_sizes_are_compared_with_the_file(tmp_path, name, pack):
    import resource

    path = tmp_path / (name if pack is None else f"{name}.gz")
    path.write_bytes(HUGE[name].encode() if pack is None else pack.compress(HUGE[name].encode()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(StructureError, match="announce"):
        read_structures(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


@pytest.mark.parametrize("pack", [gzip, bz2, lzma])
def test_decompression_bombs(tmp_path, pack):
    ending = {gzip: "gz", bz2: "bz2", lzma: "xz"}[pack]
    path = tmp_path / f"a.extxyz.{ending}"
    path.write_bytes(pack.compress(b"1\n\nFe 0 0 0" + b" " * (80 * 2**20)))
    with pytest.raises(StructureError, match="times as large"):
        read_structures(path)


@pytest.mark.parametrize("depth", [50, 100_000])
def test_deeply_nested_json(tmp_path, depth):
    (tmp_path / "a.json").write_text('{"a":' * depth + "1" + "}" * depth)
    with pytest.raises(StructureError, match="cannot be read"):
        read_structures(tmp_path / "a.json")


@pytest.mark.parametrize("size", [21.0, -1e200, np.nan])
def test_moments_beyond_any_meaning(tmp_path, size):
    atoms = bcc()
    atoms.arrays["initial_magmoms"] = np.array([[0, 0, 2.0], [0, size, 0]])
    ase.io.write(tmp_path / "a.extxyz", atoms)
    with pytest.raises(StructureError, match="of atom 1 is"):
        read_structures(tmp_path / "a.extxyz")


@pytest.mark.parametrize("number", [0, -26, 119, 300])
def test_numbers_that_are_no_elements_are_refused_at_every_door(number):
    from mmace_sim.structures.checks import check_structure
    from mmace_sim.torchsim import initialize_state

    atoms = bcc()
    atoms.numbers[1] = number
    for door in (lambda: check_structure(atoms, None), lambda: initialize_state(atoms)):
        with pytest.raises(StructureError, match=f"atom 1 has the atomic number {number}"):
            door()


def sites_on_each_other(kind):
    atoms = bulk("Fe", cubic=True, a=2.87)
    if kind == "copies":
        return Atoms("Fe2" * 20_000, np.tile(atoms.positions, (20_000, 1)), cell=atoms.cell, pbc=True)
    if kind == "molecule":
        return Atoms("Fe20000", np.zeros((20_000, 3)))
    many = bulk("Fe", cubic=True, a=2.87).repeat((6, 6, 6))
    many.set_cell(many.cell.array * [[1], [1], [1e-4]], scale_atoms=False)
    return many


@pytest.mark.parametrize("kind", ["copies", "molecule", "flat"])
def test_many_atoms_on_each_other_are_refused_before_their_pairs_are_listed(kind, monkeypatch):
    monkeypatch.setattr("mmace_sim.structures.checks.closest_pair", lambda *_: pytest.fail("listed"))
    with pytest.raises(StructureError, match=r"are 0\.\d+ Å apart"):
        check_structure(set_magmoms_of(sites_on_each_other(kind)), None)


def set_magmoms_of(atoms):
    atoms.arrays["initial_magmoms"] = np.tile([0.0, 0.0, 2.0], (len(atoms), 1))
    return atoms


def test_large_structures_with_close_atoms_are_refused_with_their_names():
    atoms = set_magmoms_of(bulk("Fe", cubic=True, a=2.87).repeat(4))
    check_structure(atoms, None)
    for place, distance in (
        (atoms.positions[5] + [0.1, 0.1, 0.1], "0.173"),
        (atoms.positions[5] + [0.0, 0.45, 0.0], "0.450"),
    ):
        atoms.positions[77] = place
        with pytest.raises(StructureError, match=rf"atom 5 \(Fe\) and atom 77 \(Fe\) are {distance} Å apart"):
            check_structure(atoms, None)


def test_more_translations_than_a_cell_has_room_for_are_refused_before_sites_are_made(tmp_path, monkeypatch):
    monkeypatch.setattr("mmace_sim.io.mcif._orbit", lambda *_: pytest.fail("expanded"))
    lines = [f"_cell_length_{axis} 2.87" for axis in "abc"] + [
        f"_cell_angle_{name} 90" for name in ("alpha", "beta", "gamma")
    ]
    lines += ["loop_", "_symmetry_equiv_pos_as_xyz", *(f"'x+1/{n},y,z'" for n in range(1, 3000))]
    lines += ["loop_", "_atom_site_label", *(f"_atom_site_fract_{axis}" for axis in "xyz"), "Fe1 0 0 0"]
    (tmp_path / "a.cif").write_text("data_a\n" + "\n".join(lines) + "\n")
    with pytest.raises(StructureError, match="2999 symmetry operations"):
        read_structures(tmp_path / "a.cif")


def test_files_larger_than_the_memory_are_not_read_at_once(tmp_path):
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(StructureError, match="too much for the memory of this machine"):
        read_structures(tmp_path / "a.json")


@pytest.mark.parametrize("column", ["magmoms", "magmom", "initial_magmoms", "forces"])
def test_true_and_false_are_no_moments(tmp_path, column):
    words = "T T F" if column == "forces" else "T"
    width = len(words.split())
    (tmp_path / "a.extxyz").write_text(
        f'1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3:{column}:L:{width}\nFe 0 0 0 {words}\n'
    )
    with pytest.raises(StructureError, match=f"the column {column} holds T and F"):
        read_structures(tmp_path / "a.extxyz")
