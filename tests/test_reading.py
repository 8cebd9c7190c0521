"""The same file gives the same moments, constraints and cell at every door, whatever its format or compression."""

import bz2
import gzip
import json
import lzma
import os
import shutil
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian, FixedLine, FixedPlane, FixScaled
from cli_tools import mmace_sim
from embedded import IRON_MODEL
from format_files import MAGMOMS, oszicar, outcar

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import get_magmoms, has_magmoms, set_magmoms
from mmace_sim.io.collection import FailedStructure, load_structures, read_structures
from mmace_sim.io.frames import read_frames
from mmace_sim.torchsim.state import as_atoms

CASES = Path(__file__).parent / "cases" / "readers"
PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def bcc(magmoms=None):
    atoms = bulk("Fe", cubic=True)
    atoms.arrays.pop("initial_magmoms", None)
    if magmoms is not None:
        set_magmoms(atoms, magmoms)
    return atoms


def moments_of(path):
    return [get_magmoms(item.atoms) for item in read_structures(path)]


def renamed(tmp_path, case, name="OUTCAR"):
    return shutil.copy(CASES / case, tmp_path / name)


# --- outputs of VASP ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("OUTCAR.soc", [[[0.1, 0.2, 2.0], [0.3, -1.9, 0.4]]]),
        ("OUTCAR.killed", [[[0, 0, m], [0, 0, -m]] for m in (2.3, 2.2, 2.1)]),
        ("OUTCAR.one_atom", [[[0.3, 2.1, 0.4]]]),
        ("OUTCAR.saxis", [[[0, 2.2, 0], [0, -2.2, 0]]]),
    ],
)
@pytest.mark.parametrize("packer", [None, *PACKERS])
def test_moments_of_outcar_as_structure_and_as_data(tmp_path, case, expected, packer):
    path = renamed(tmp_path, case)
    if packer is not None:
        data = path.read_bytes()
        path = path.with_name(f"OUTCAR.{packer}")
        path.write_bytes(PACKERS[packer](data))
    np.testing.assert_allclose(moments_of(path), expected, atol=1e-9)
    frames = read_frames([path]).frames
    np.testing.assert_allclose([frame.magmoms for frame in frames], expected, atol=1e-9)
    if case == "OUTCAR.killed":
        assert [float(frame.labels["energy"]) for frame in frames] == [-16.1, -16.2, -16.3]


def _tables(m, axes="xyz"):
    lines = []
    for axis in axes:
        lines += [
            "",
            f" magnetization ({axis})",
            "",
            "# of ion       s       p       d       tot",
            "-----",
            f"    1       0.0 0.0 {m:.3f} {m:.3f}",
            f"    2       0.0 0.0 {m:.3f} {m:.3f}",
            "-----",
            f"tot  0.0 0.0 {2 * m:.3f} {2 * m:.3f}",
            "",
        ]
    return "\n".join(lines)


def _run(*parts):
    """An OUTCAR of several ionic steps: text before the end of each, and what follows the last one."""
    text = outcar(None)
    head, rest = text.split("--------------------------------------- Iteration", 1)
    body = rest.split("\n", 1)[1]
    steps = [f"---- Iteration {k + 1:5d}(   1)  ----\n{part}\n{body}" for k, part in enumerate(parts[:-1])]
    return head + "".join(steps) + parts[-1]


@pytest.mark.parametrize("axes", ["x", "xyz"])
@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((_tables, 1.0, 2.0, ""), [1.0, 2.0]),
        ((_tables, (0.5, 1.0), (0.6, 2.0), ""), [1.0, 2.0]),
        ((_tables, 1.0, 2.0, "---- Iteration     3(   1)  ----\n{9.0}"), [1.0, 2.0]),
        ((_tables, 1.0, 2.0, "---- Iteration     3(   1)  ----\n"), [1.0, 2.0]),
        ((_tables, 1.0, 2.0, "{2.0}"), [1.0, 2.0]),
        ((_tables, None, "{2.0}"), [2.0]),
    ],
    ids=["plain", "inside", "killed_with_table", "killed", "repeated", "only_at_the_end"],
)
def test_tables_belong_to_the_step_that_they_stand_in(tmp_path, parts, expected, axes):
    def text(part):
        if part is None:
            return ""
        if isinstance(part, str):
            before, _, rest = part.partition("{")
            number = rest.rstrip("}")
            return before + (_tables(float(number), axes) if number else "")
        values = part if isinstance(part, tuple) else (part,)
        return "\n---- Iteration\n".join(_tables(m, axes) for m in values).replace("---- Iteration\n", "")

    (tmp_path / "OUTCAR").write_text(_run(*map(text, parts[1:])))
    found = [moments[0] for moments in moments_of(tmp_path / "OUTCAR")]
    along = [0.0, 0.0, 1.0] if axes == "x" else [1.0, 1.0, 1.0]
    np.testing.assert_allclose(found, np.outer(expected, along), atol=1e-9)


def test_saxis_in_the_words_of_an_incar(tmp_path):
    for text in ("   SAXIS = 1 0 0", "   SAXIS = 1.0 0.0 0.0 ! axis", "  SAXIS  =  1d0, 0, 0"):
        (tmp_path / "OUTCAR").write_text(outcar(MAGMOMS, incar=text))
        turned = MAGMOMS[:, [2, 1, 0]] * [1, 1, -1]
        np.testing.assert_allclose(moments_of(tmp_path / "OUTCAR")[0], turned, atol=1e-9)


def test_constrained_moments_are_the_same_at_both_doors(tmp_path):
    (tmp_path / "OUTCAR").write_text(outcar(np.ones((2, 3))))
    (tmp_path / "OSZICAR").write_text(oszicar(MAGMOMS, MAGMOMS, penalty=0.25))
    np.testing.assert_allclose(moments_of(tmp_path / "OUTCAR")[0], MAGMOMS)
    np.testing.assert_allclose(read_frames([tmp_path / "OUTCAR"]).frames[0].magmoms, MAGMOMS)


# --- which moments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["both.extxyz", "both.traj", "zero_initial_and_magmoms.extxyz"])
def test_computed_moments_of_a_file_go_before_an_initial_guess(name):
    (item,) = read_structures(CASES / name)
    np.testing.assert_allclose(get_magmoms(item.atoms)[:, 2], [2.2, -2.2])
    assert "not its initial guess" in item.notes[0]
    np.testing.assert_allclose(read_frames([CASES / name]).frames[0].magmoms[:, 2], [2.2, -2.2])


@pytest.mark.parametrize(
    "guess", [None, [5.0, 5.0], [[0, 0, 5.0], [0, 5.0, 0]]], ids=["none", "scalar", "vector"]
)
@pytest.mark.parametrize("computed", [[2.2, -2.2], [[0, 0, 2.0], [0, 2.0, 0]]], ids=["collinear", "vectors"])
@pytest.mark.parametrize("name", ["a.traj", "a.json", "a.db", "a.extxyz"])
def test_every_format_and_door_takes_the_same(tmp_path, name, computed, guess):
    atoms = bcc()
    if guess is not None:
        atoms.set_initial_magnetic_moments(guess)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, magmoms=np.array(computed))
    ase.io.write(tmp_path / name, atoms)
    expected = computed if np.ndim(computed) == 2 else np.outer(computed, [0, 0, 1])
    (item,) = read_structures(tmp_path / name)
    np.testing.assert_allclose(get_magmoms(item.atoms), expected)
    assert bool(item.notes) == (guess is not None)
    np.testing.assert_allclose(get_magmoms(as_atoms(tmp_path / name)[0]), expected)
    np.testing.assert_allclose(read_frames([tmp_path / name]).frames[0].magmoms, expected)


def test_a_label_goes_before_everything_else(tmp_path):
    atoms = bcc([5.0, 5.0])
    atoms.arrays["REF_magmom"] = np.array([1.0, -1.0])
    ase.io.write(tmp_path / "a.extxyz", atoms)
    np.testing.assert_allclose(moments_of(tmp_path / "a.extxyz")[0][:, 2], [1, -1])
    np.testing.assert_allclose(read_frames([tmp_path / "a.extxyz"]).frames[0].magmoms[:, 2], [1, -1])
    atoms.arrays["spins"] = np.array([3.0, 3.0])
    ase.io.write(tmp_path / "a.extxyz", atoms)
    frame = read_frames([tmp_path / "a.extxyz"], LabelKeys(magmoms="spins")).frames[0]
    np.testing.assert_allclose(frame.magmoms[:, 2], [3, 3])


def test_what_a_user_sets_in_python_wins():
    atoms = bcc()
    atoms.calc = SinglePointCalculator(atoms, magmoms=np.array([2.2, -2.2]))
    set_magmoms(atoms, [1.0, 1.0])
    np.testing.assert_allclose(get_magmoms(as_atoms(atoms)[0])[:, 2], [1, 1])


def test_ase_database_with_vectors(tmp_path):
    with ase.db.connect(tmp_path / "nc.db") as db:
        db.write(bcc([[0, 0, 2.0], [0, 2.0, 0]]))
        single = Atoms("Fe", cell=[3, 3, 3], pbc=True)
        set_magmoms(single, [[0.1, 0.2, 2.0]])
        db.write(single)
    found = moments_of(tmp_path / "nc.db")
    np.testing.assert_allclose(found[0], [[0, 0, 2], [0, 2, 0]])
    np.testing.assert_allclose(found[1], [[0.1, 0.2, 2.0]])


def test_sites_without_spin_beside_others(tmp_path):
    (item,) = read_structures(CASES / "spin_partial.json")
    np.testing.assert_allclose(get_magmoms(item.atoms)[:, 2], [2.2, -2.2, 0, 0])
    assert item.notes == ["2 of 4 sites have no moment in the file: taken as 0 μB"]
    data = json.loads((CASES / "seldyn.json").read_text())
    data["sites"][1]["properties"]["magmom"] = None
    (tmp_path / "a.json").write_text(json.dumps(data))
    np.testing.assert_allclose(moments_of(tmp_path / "a.json")[0][:, 2], [2.2, 0])


GUESS = """1
Lattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3:initial_magmoms:R:1 spin=1
Fe 0 0 0 2
"""


def with_sites(tmp_path, *changes):
    data = json.loads((CASES / "seldyn.json").read_text())
    for site, change in zip(data["sites"], changes, strict=False):
        site["properties"] |= change.get("properties", {})
        site["species"][0] |= change.get("species", {})
        site |= {key: value for key, value in change.items() if key not in ("properties", "species")}
    (tmp_path / "a.json").write_text(json.dumps(data))
    return tmp_path / "a.json"


def test_two_kinds_of_moments_in_json_are_told(tmp_path):
    path = with_sites(tmp_path, {"species": {"spin": 5}}, {"species": {"spin": -5}})
    (item,) = read_structures(path)
    np.testing.assert_allclose(get_magmoms(item.atoms)[:, 2], [2.2, 2.2])
    assert item.notes == ["moments are magmom of the file; the spin of the species differs and is left out"]
    same = with_sites(tmp_path, {"species": {"spin": 2.2}}, {"species": {"spin": 2.2}})
    assert not read_structures(same)[0].notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"abc": [0, 0]}, r"abc of site 0 is \[0, 0\]; expected three numbers"),
        ({"abc": ["0", "0", "x"]}, "abc of site 0"),
        ({"properties": {"magmom": [1, 2]}}, "magmom of site 0 is .* one number or three"),
        ({"properties": {"magmom": "2.2"}}, "magmom of site 0 is 2.2"),
        ({"properties": {"magmom": True}}, "magmom of site 0 is True"),
        ({"properties": {"magmom": {"moment": 1, "saxis": [0, 0, 0]}}}, "saxis in magmom of site 0 is zero"),
        ({"properties": {"magmom": {"moment": 1, "saxis": 3}}}, "saxis in magmom of site 0 is 3"),
        ({"properties": {"selective_dynamics": "TTF"}}, "selective_dynamics of site 0 is TTF"),
        ({"properties": {"selective_dynamics": [True]}}, "three of true and false"),
        ({"properties": {"velocities": [1.0]}}, "velocities of site 0"),
    ],
)
def test_values_in_json_that_are_none(tmp_path, change, message):
    with pytest.raises(StructureError, match=message):
        read_structures(with_sites(tmp_path, change))


@pytest.mark.parametrize(
    ("column", "info"),
    [("DFT_magmom:R:3", ""), ("spin:R:3", ""), ("magnetic_moment:R:1", ""), ("", 'magmoms="2.2 -2.2"')],
)
def test_moments_under_a_name_that_is_not_read_are_told(tmp_path, column, info):
    n = int(column[-1]) if column else 0
    values = " 2" * n
    text = f'2\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3{":" * bool(n)}{column} {info}\n'
    (tmp_path / "a.extxyz").write_text(text + f"Fe 0 0 0{values}\nFe 1.5 1.5 1.5{values}\n")
    (item,) = read_structures(tmp_path / "a.extxyz")
    assert not has_magmoms(item.atoms)
    assert "is not read as moments" in item.notes[0]
    known = text.replace(column, "initial_magmoms:R:1") if column else text
    (tmp_path / "a.extxyz").write_text(known + "Fe 0 0 0 2\nFe 1.5 1.5 1.5 2\n" if column else GUESS)
    (item,) = read_structures(tmp_path / "a.extxyz")
    assert not item.notes
    assert has_magmoms(item.atoms)


# --- constraints --------------------------------------------------------------------------------------------------


def test_selective_dynamics_of_json_and_poscar():
    (json_file,) = read_structures(CASES / "seldyn.json")
    assert [type(c) for c in json_file.atoms.constraints] == [FixAtoms]
    assert json_file.atoms.constraints[0].index.tolist() == [0]
    (poscar,) = read_structures(CASES / "POSCAR_partial")
    (constraint,) = poscar.atoms.constraints
    assert isinstance(constraint, FixScaled)
    assert (constraint.index.tolist(), constraint.mask.tolist()) == ([1], [False, False, True])


@pytest.mark.parametrize(
    "constraint",
    [
        FixAtoms([1]),
        FixScaled([1], mask=(True, False, True)),
        FixCartesian([0], mask=(False, True, False)),
        FixedPlane([1], (0, 1, 1)),
        FixedLine([0], (1, 1, 1)),
    ],
    ids=lambda c: type(c).__name__,
)
@pytest.mark.parametrize("name", ["a.traj", "a.json", "a.db", "a.traj.gz"])
def test_constraints_of_ase_files(tmp_path, name, constraint):
    atoms = bcc([1.0, 1.0])
    atoms.set_constraint(constraint)
    plain = tmp_path / name.removesuffix(".gz")
    ase.io.write(plain, atoms)
    if name.endswith("gz"):
        (tmp_path / name).write_bytes(gzip.compress(plain.read_bytes()))
    (read,) = read_structures(tmp_path / name)[0].atoms.constraints
    old, new = constraint.todict(), read.todict()
    assert (new["name"], set(new["kwargs"])) == (old["name"], set(old["kwargs"]))
    for key, value in old["kwargs"].items():
        np.testing.assert_allclose(new["kwargs"][key], value)


def test_labels_are_read_whatever_holds_the_atoms(tmp_path):
    atoms = bcc()
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, magmoms=np.array([2.0, 2.0]))
    ase.io.write(tmp_path / "a.json", atoms)
    data = json.loads((tmp_path / "a.json").read_text())
    data["1"]["constraints"] = [{"name": "FixEverything", "kwargs": {}}]
    (tmp_path / "a.json").write_text(json.dumps(data))
    with pytest.raises(StructureError, match="FixEverything"):
        read_structures(tmp_path / "a.json")
    found = read_frames([tmp_path / "a.json"])
    assert (len(found.frames), found.problems) == (1, [])
    assert all(isinstance(key, str) for key in found.frames[0].atoms.info)


def test_cell_files_of_castep_run_nothing(tmp_path, monkeypatch):
    (tmp_path / "castep").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "castep").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    (tmp_path / "a.cell").write_text(
        "%BLOCK LATTICE_CART\nbohr\n5 0 0\n0 5 0\n0 0 6\n%ENDBLOCK LATTICE_CART\n"
        "%BLOCK POSITIONS_FRAC\nFe 0 0 0 SPIN= 2.0 ! up\nFe:2 0.5 0.5 0.5 SPIN=0.0 -1.5 0.0\nO 0.5 0 0\n"
        "%ENDBLOCK POSITIONS_FRAC\n%BLOCK IONIC_CONSTRAINTS\n1 Fe 2 1 0 0\n2 Fe 2 0 1 0\n"
        "3 O 1 0 0 1\n%ENDBLOCK IONIC_CONSTRAINTS\nkpoint_mp_grid 2 2 2\n"
    )
    (item,) = read_structures(tmp_path / "a.cell")
    np.testing.assert_allclose(item.atoms.cell.lengths(), np.array([5, 5, 6]) * 0.529177, rtol=1e-6)
    np.testing.assert_allclose(get_magmoms(item.atoms), [[0, 0, 2], [0, -1.5, 0], [0, 0, 0]])
    assert "1 of 3 atoms have no SPIN" in item.notes[0]
    line, plane = item.atoms.constraints
    assert (line.index.tolist(), plane.index.tolist()) == ([1], [2])
    np.testing.assert_allclose(np.abs(line.dir), [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(np.abs(plane.dir), [0, 0, 1], atol=1e-12)
    assert not (tmp_path / "ran").exists()


# --- CIF ----------------------------------------------------------------------------------------------------------


def test_modulated_and_unfitting_magnetic_structures_are_refused(tmp_path):
    with pytest.raises(StructureError, match="incommensurate"):
        read_structures(CASES / "incomm_parentk.mcif")
    with pytest.raises(StructureError, match=r"\[0 0 0.2143\] does not fit the cell"):
        read_structures(CASES / "kvec_only.mcif")
    text = (CASES / "kvec_only.mcif").read_text()
    for vector, transform, fits in [
        ("[0 0 1/2]", None, True),
        ("[0 0 1/2]", "a,b,2c;0,0,0", True),
        ("[0 0 1/2]", "a,b,c;0,0,0", False),
        ("[1/3 1/3 0]", "a-b,a+2b,c;0,0,0", True),
        ("[1/3 1/3 0]", "2a,b,c;0,0,0", False),
        ("[1/2,0,1/2]", "a+c,b,-a+c;1/4,0,0", True),
        ("[0 0 0.3333]", "a,b,3c;0,0,0", True),
        ("[0 0.31 0]", "a,b,3c;0,0,0", False),
    ]:
        extra = f"_parent_space_group.child_transform_Pp_abc '{transform}'\n" if transform else ""
        changed = text.replace("[0 0 0.2143]", vector).replace("loop_\n_parent", extra + "loop_\n_parent", 1)
        (tmp_path / "a.mcif").write_text(changed)
        if fits:
            assert has_magmoms(read_structures(tmp_path / "a.mcif")[0].atoms)
        else:
            with pytest.raises(StructureError, match="does not fit"):
                read_structures(tmp_path / "a.mcif")


def test_the_magnetic_one_of_two_blocks():
    (item,) = read_structures(CASES / "two_blocks.mcif")
    assert item.atoms.get_chemical_formula() == "Fe2O4"
    assert np.abs(get_magmoms(item.atoms)).max() > 1.5
    assert item.notes == ["data blocks without moments are left out: parent"]


def test_moments_apart_from_sites_are_refused(tmp_path):
    text = (CASES / "kvec_only.mcif").read_text().replace("[0 0 0.2143]", "[0 0 0]")
    sites, moments = text.split("loop_\n_atom_site_moment.label")
    text = sites.replace(".mcif", "") + "\ndata_moments\nloop_\n_atom_site_moment.label" + moments
    (tmp_path / "a.mcif").write_text(text)
    with pytest.raises(StructureError, match="different data blocks"):
        read_structures(tmp_path / "a.mcif")


@pytest.mark.parametrize("sign", ["?", ".", "1"])
@pytest.mark.parametrize("name", ["plain_occ.cif", "occ_question.mcif"])
def test_unknown_occupancy_is_one(tmp_path, name, sign):
    text = (CASES / name).read_text()
    plain = read_structures(CASES / name)[0].atoms
    (tmp_path / name).write_text(text.replace(" ?", f" {sign}").replace(" .\n", f" {sign}\n"))
    np.testing.assert_allclose(read_structures(tmp_path / name)[0].atoms.positions, plain.positions)


@pytest.mark.parametrize("how", ["bom", "crlf", "latin", "utf16", "cr"])
@pytest.mark.parametrize(
    "case", ["bom.mcif", "two_blocks.mcif", "both.extxyz", "POSCAR_partial", "spin_partial.json"]
)
def test_texts_of_any_system(tmp_path, case, how):
    plain = (CASES / case).read_bytes().decode("utf-8-sig")
    if how == "latin" and case.endswith("mcif"):
        plain = f"# Universität Köln\n{plain}"
    data = {
        "bom": b"\xef\xbb\xbf" + plain.encode(),
        "crlf": plain.replace("\n", "\r\n").encode(),
        "latin": plain.encode("latin-1"),
        "utf16": plain.encode("utf-16"),
        "cr": plain.replace("\n", "\r").encode(),
    }[how]
    (tmp_path / case).write_bytes(data)
    expected, found = read_structures(CASES / case)[0].atoms, read_structures(tmp_path / case)[0].atoms
    np.testing.assert_allclose(found.positions, expected.positions)
    assert has_magmoms(found) == has_magmoms(expected)
    if has_magmoms(expected):
        np.testing.assert_allclose(get_magmoms(found), get_magmoms(expected))


# --- compression --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packer", list(PACKERS))
@pytest.mark.parametrize(
    "name",
    ["a.cif", "two_blocks.mcif", "spin_partial.json", "a.json", "POSCAR", "CONTCAR", "a.vasp", "a.extxyz", "a.xyz",
     "a.traj", "a.db", "a.xsf", "a.gen", "a.pdb", "XDATCAR", "a.res"],
)  # fmt: skip
def test_compressed_files_are_like_plain_ones(tmp_path, name, packer):
    path = tmp_path / name
    if (CASES / name).is_file():
        shutil.copy(CASES / name, path)
    else:
        kinds = {"a.vasp": "vasp", "XDATCAR": "vasp-xdatcar", "a.extxyz": "extxyz",
                 "a.pdb": "proteindatabank"}  # fmt: skip
        atoms = bcc([2.0, -2.0])
        ase.io.write(path, [atoms] if name == "XDATCAR" else atoms, format=kinds.get(name))
    plain = read_structures(path)
    packed = tmp_path / f"{name}.{packer}"
    packed.write_bytes(PACKERS[packer](path.read_bytes()))
    path.unlink()
    (found,) = load_structures([tmp_path])  # found in a folder, too
    assert not isinstance(found, FailedStructure), found.message
    np.testing.assert_allclose(found.atoms.positions, plain[0].atoms.positions)
    np.testing.assert_allclose(found.atoms.cell.array, plain[0].atoms.cell.array)
    assert has_magmoms(found.atoms) == has_magmoms(plain[0].atoms)
    if has_magmoms(found.atoms):
        np.testing.assert_allclose(get_magmoms(found.atoms), get_magmoms(plain[0].atoms))


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["POSCAR@3", "a@0.extxyz", "a@:.cif", "-dash.vasp", "-", "new\nline.extxyz", os.fsdecode(b"\xff\xfe.extxyz"),
     "postgres.cif", "mysql.vasp", "a@b@2:4.traj", "POSCAR@3.gz"],
)  # fmt: skip
def test_names_of_any_kind(tmp_path, monkeypatch, name):
    atoms, other = bcc([2.0, 2.0]), bcc([1.0, 1.0])
    other.set_cell(1.2 * other.cell, scale_atoms=True)
    form = "vasp" if "POSCAR" in name or "vasp" in name or name == "-" else Path(name).suffix[1:]
    with (tmp_path / "plain").open("wb" if form in ("cif", "traj") else "w") as file:
        ase.io.write(file, other, format=form)
    data = (tmp_path / "plain").read_bytes()
    (tmp_path / "plain").unlink()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    stem = name.split("@")[0]
    if stem != name and stem:
        ase.io.write(tmp_path / stem, atoms, format=form)
    monkeypatch.chdir(tmp_path)
    if name == "-":
        (tmp_path / name).rename(tmp_path / "-.vasp")
        name = "-.vasp"
    for path in (Path(name), tmp_path / name):
        (item,) = read_structures(path)
        assert item.atoms.cell.volume == pytest.approx(other.cell.volume, rel=1e-6)
        assert read_structures(path)[0].file == str(path)


def test_names_are_no_patterns(tmp_path):
    for name, scale in (("[ab]*.res", 1.2), ("ab.res", 1.0)):
        atoms = bcc()
        atoms.set_cell(scale * atoms.cell, scale_atoms=True)
        ase.io.write(tmp_path / "x.res", atoms)
        (tmp_path / "x.res").rename(tmp_path / name)
    (item,) = read_structures(tmp_path / "[ab]*.res")
    assert item.atoms.cell.volume == pytest.approx(1.2**3 * bcc().cell.volume, rel=1e-4)


# --- folders ------------------------------------------------------------------------------------------------------


NO_STRUCTURES = {
    "notes.json": '{"project": "iron", "values": [1, 2]}',
    "list.json": "[1, 2, 3]",
    "text.json": "not even JSON",
    "empty.extxyz": "",
    "empty.cif": "",
    "README.xyz": "Structures of the project\nsee below\n",
    "log.xml": "<log><line/></log>",
    "refinement.res": "REM nothing\n",
    "a.cell": "task: none\n",
    "notes.pdb": "hello\n",
    "a.xsf": "hello\n",
    "a.gen": "hello\n",
    "a.db": "hello\n",
    "POSCAR.notes": "the POSCAR of the project\nis elsewhere\n",
    "OUTCAR.started": " vasp.6.4.2\n INCAR:\n",
    "OUTCAR.text": "nothing\n",
}


def test_files_of_folders_that_are_no_structures_are_skipped(tmp_path):
    for name, text in NO_STRUCTURES.items():
        (tmp_path / name).write_text(text)
    ase.io.write(tmp_path / "CONTCAR", bcc())
    for name in ("OUTCAR", "XDATCAR", "vasprun.xml", "OUTCAR.gz"):
        (tmp_path / name).write_text("cut off")
    skipped = []
    (item,) = load_structures([tmp_path], skipped.append)
    assert item.name == "CONTCAR"
    names = {"OUTCAR", "XDATCAR", "vasprun.xml", "OUTCAR.gz"}
    assert {Path(one.file).name for one in skipped} == {*NO_STRUCTURES, *names}
    assert all(one.message for one in skipped)
    for name in NO_STRUCTURES:  # named, it is a failure
        (named,) = load_structures([tmp_path / name])
        assert isinstance(named, FailedStructure), name


def test_broken_structures_in_folders_are_failures(tmp_path):
    (tmp_path / "a.extxyz").write_text("2\n\nFe 0 0 0\n")
    (tmp_path / "b.json").write_text('{"lattice": ')
    (tmp_path / "c.cif").write_text((CASES / "two_blocks.mcif").read_text().replace("-0.90 mx,my,mz", ""))
    ase.io.write(tmp_path / "d.extxyz", [bcc(), bcc()])
    with (tmp_path / "d.extxyz").open("a") as file:
        file.write("3\n\nFe 0 0\n")
    (tmp_path / "e.cif").write_text("<html><body>404</body></html>")
    (tmp_path / "f.traj").write_text("hello")
    items = load_structures([tmp_path])
    assert [Path(item.file).name for item in items if isinstance(item, FailedStructure)] == [
        "a.extxyz", "b.json", "c.cif", "d.extxyz", "e.cif", "f.traj"
    ]  # fmt: skip


def test_one_bad_row_of_a_database_does_not_hide_the_others(tmp_path):
    ase.io.write(tmp_path / "a.json", [bcc([1.0, 1.0])] * 3)
    data = json.loads((tmp_path / "a.json").read_text())
    data["2"]["numbers"] = [26, 300]
    (tmp_path / "a.json").write_text(json.dumps(data))
    items = load_structures([tmp_path])
    assert [isinstance(item, FailedStructure) for item in items] == [False, True, False]
    assert items[1].name == "a.json#1"


def test_the_summary_lists_what_was_skipped(tmp_path):
    ase.io.write(tmp_path / "in.extxyz", bcc([2.2, 2.2]))
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "in.extxyz").rename(folder / "a.extxyz")
    (folder / "notes.json").write_text("{}")
    run = mmace_sim(
        "relax", folder, "-m", IRON_MODEL, "-o", tmp_path / "out", "--fixed-cell", "--max-steps", "1", "--fmax", "100",
        "--magforce-tol", "100", "--threads", "1",
    )  # fmt: skip
    assert run.exit_code == 0, run.output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    (entry,) = summary["skipped"]
    assert entry["file"] == str(folder / "notes.json")
    assert "holds no structure" in entry["message"]
    assert "skipped" in (tmp_path / "out" / "log.txt").read_text()


# --- Python -------------------------------------------------------------------------------------------------------


def test_python_reads_files(tmp_path):
    from pymatgen.core import Structure

    ase.io.write(tmp_path / "a.extxyz", [bcc([1.0, 1.0]), bcc([2.0, -2.0])])
    structure = Structure.from_dict(json.loads((CASES / "seldyn.json").read_text()))
    mixed = [str(tmp_path / "a.extxyz"), bcc([3.0, 3.0]), CASES / "spin_partial.json", structure]
    found = as_atoms(mixed)
    assert [float(get_magmoms(atoms)[0, 2]) for atoms in found] == [1.0, 2.0, 3.0, 2.2, 2.2]
    assert len(as_atoms(str(tmp_path / "a.extxyz"))) == 2
    assert len(as_atoms(tmp_path)) == 2
    assert len(as_atoms(structure)) == 1
    with pytest.raises(StructureError, match=r"b\.cif: no such file"):
        as_atoms(["b.cif"])
    with pytest.raises(StructureError, match="no structures"):
        as_atoms(Path(tmp_path / "empty").mkdir() or tmp_path / "empty")
