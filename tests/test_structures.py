import json
import warnings
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.calculators.singlepoint import SinglePointCalculator

from mmace_sim.errors import ConfigError, MissingMomentsError, StructureError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.io.cif import read_cif
from mmace_sim.io.collection import FailedStructure, find_structures, load_structures, read_structures
from mmace_sim.io.mcif import mcif_text
from mmace_sim.io.operations import parse_operation
from mmace_sim.structures.initial_moments import initial_magmoms

VECTORS = np.array([[0.1, 1.0, 2.0], [0.0, -0.3, 1.0]])


def bcc(magmoms=None):
    atoms = bulk("Fe", cubic=True)
    atoms.arrays.pop("initial_magmoms", None)
    if magmoms is not None:
        set_magmoms(atoms, magmoms)
    return atoms


def read_one(path):
    (structure,) = read_structures(path)
    return structure.atoms


@pytest.mark.parametrize("key", ["magmoms", "initial_magmoms", "magmom", "REF_magmom", "magnetic_moments"])
@pytest.mark.parametrize("values", [VECTORS, np.array([2.2, -2.2])], ids=["vectors", "collinear"])
def test_extxyz_moments_under_every_name(tmp_path, key, values):
    atoms = bcc()
    atoms.arrays[key] = values
    ase.io.write(tmp_path / "a.extxyz", atoms)
    expected = values if values.ndim == 2 else np.outer(values, [0, 0, 1])
    atoms = read_one(tmp_path / "a.extxyz")
    np.testing.assert_allclose(get_magmoms(atoms), expected)
    np.testing.assert_allclose(atoms.arrays["initial_magmoms"], expected)


def test_frames_have_numbers(tmp_path):
    ase.io.write(tmp_path / "a.extxyz", [bcc([0, 0]), bcc([1, 1]), bcc([2, -2])])
    structures = read_structures(tmp_path / "a.extxyz")
    assert [s.name for s in structures] == ["a.extxyz#0", "a.extxyz#1", "a.extxyz#2"]
    assert [s.index for s in structures] == [0, 1, 2]
    assert [get_magmoms(s.atoms)[1, 2] for s in structures] == [0, 1, -2]


@pytest.mark.parametrize(
    "name", ["a.cif", "POSCAR", "CONTCAR_1", "a.vasp", "a.POSCAR", "a.xyz", "a.json", "a.traj"]
)
def test_formats(tmp_path, name):
    form = {"a.cif": "cif", "a.xyz": "extxyz", "a.json": "json", "a.traj": "traj"}.get(name, "vasp")
    atoms = bcc([2.2, -2.2]) if form in ("json", "traj", "extxyz") else bcc()
    ase.io.write(tmp_path / name, atoms, format=form)
    read = read_one(tmp_path / name)
    np.testing.assert_allclose(read.cell.array, atoms.cell.array, atol=1e-6)
    assert read.pbc.all()
    assert len(read) == 2
    assert ("initial_magmoms" in read.arrays) == (form in ("json", "traj", "extxyz"))
    assert "spacegroup" not in read.info
    assert list(find_structures([tmp_path])) == [tmp_path / name]


def test_moments_computed_by_dft_are_taken(tmp_path):
    atoms = bcc()
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, magmoms=np.array([2.0, 2.1]))
    ase.io.write(tmp_path / "a.traj", atoms)
    np.testing.assert_allclose(get_magmoms(read_one(tmp_path / "a.traj"))[:, 2], [2.0, 2.1])


def pymatgen_structure(**properties):
    from pymatgen.core import Lattice, Structure

    return Structure(
        Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5, 0.5, 0.5]], site_properties=properties
    )


def test_pymatgen_json(tmp_path):
    from pymatgen.electronic_structure.core import Magmom

    def write(data):
        (tmp_path / "a.json").write_text(json.dumps(data))
        return read_one(tmp_path / "a.json")

    collinear = write(pymatgen_structure(magmom=[2.0, -2.0]).as_dict())
    np.testing.assert_allclose(get_magmoms(collinear), [[0, 0, 2], [0, 0, -2]])
    vectors = write(pymatgen_structure(magmom=VECTORS.tolist()).as_dict())
    np.testing.assert_allclose(get_magmoms(vectors), VECTORS)
    along_x = pymatgen_structure(magmom=[Magmom(2.0, saxis=(1, 0, 0)), Magmom([0, 0, 1])])
    np.testing.assert_allclose(
        get_magmoms(write(json.loads(along_x.to_json()))), [[2, 0, 0], [0, 0, 1]], atol=1e-12
    )
    spin = pymatgen_structure()
    spin.add_spin_by_site([1.5, -1.5])
    np.testing.assert_allclose(get_magmoms(write({"structure": spin.as_dict()}))[:, 2], [1.5, -1.5])
    bare = write(pymatgen_structure().as_dict())
    with pytest.raises(MissingMomentsError):
        get_magmoms(bare)
    (tmp_path / "a.json").write_text(json.dumps([pymatgen_structure().as_dict()] * 2))
    assert len(read_structures(tmp_path / "a.json")) == 2


MN3PT = """data_mn3pt
_cell_length_a 3.84
_cell_length_b 3.84
_cell_length_c 3.84
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_space_group_symop_magn_operation.id
_space_group_symop_magn_operation.xyz
1 x,y,z,+1
2 z,x,y,+1
3 y,z,x,+1
4 -x,-y,-z,+1
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Mn1 Mn 0.5 0.5 0 1
Pt1 Pt 0 0 0 1
loop_
_atom_site_moment.label
_atom_site_moment.crystalaxis_x
_atom_site_moment.crystalaxis_y
_atom_site_moment.crystalaxis_z
Mn1 1.20(5) 1.2 -2.4
"""


def test_mcif_is_expanded_by_its_magnetic_symmetry(tmp_path):
    (tmp_path / "a.mcif").write_text(MN3PT)
    atoms = read_one(tmp_path / "a.mcif")
    assert atoms.get_chemical_formula() == "Mn3Pt"
    moments = {
        tuple(np.round(s, 3)): m
        for s, m in zip(atoms.get_scaled_positions(), get_magmoms(atoms), strict=True)
    }
    np.testing.assert_allclose(moments[0.5, 0.5, 0.0], [1.2, 1.2, -2.4])
    np.testing.assert_allclose(moments[0.0, 0.5, 0.5], [-2.4, 1.2, 1.2])
    np.testing.assert_allclose(moments[0.5, 0.0, 0.5], [1.2, -2.4, 1.2])
    np.testing.assert_allclose(moments[0.0, 0.0, 0.0], 0)


def test_mcif_moments_agree_with_pymatgen(tmp_path):
    from pymatgen.io.cif import CifParser

    (tmp_path / "a.mcif").write_text(MN3PT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (theirs,) = CifParser(tmp_path / "a.mcif").parse_structures(primitive=False)
    ours = read_one(tmp_path / "a.mcif")
    for site in theirs:
        (index,) = np.flatnonzero(np.linalg.norm(ours.positions - site.coords, axis=1) < 1e-3)
        np.testing.assert_allclose(
            get_magmoms(ours)[index], site.properties["magmom"].global_moment, atol=1e-9
        )


def test_mcif_centering_with_time_reversal(tmp_path):
    text = MN3PT.replace(
        "loop_\n_atom_site_label",
        "loop_\n_space_group_symop_magn_centering.id\n_space_group_symop_magn_centering.xyz\n1 x,y,z,+1\n"
        "2 x,y,z+1/2,-1\nloop_\n_atom_site_label",
    ).replace("2 z,x,y,+1\n3 y,z,x,+1\n", "")
    (tmp_path / "a.mcif").write_text(text)
    moments = get_magmoms(read_one(tmp_path / "a.mcif"))
    np.testing.assert_allclose(moments[:2], [[1.2, 1.2, -2.4], [-1.2, -1.2, 2.4]])


def test_mcif_round_trip_in_a_skewed_cell(tmp_path):
    cell = [[2.5, 0, 0], [-1.25, 2.165, 0], [0.3, 0.4, 4.07]]
    atoms = Atoms("Co2", scaled_positions=[[0, 0, 0], [1 / 3, 2 / 3, 0.5]], cell=cell, pbc=True)
    set_magmoms(atoms, VECTORS)
    (tmp_path / "a.mcif").write_text(mcif_text(atoms, name="two words"))
    (again,) = read_cif(tmp_path / "a.mcif")
    np.testing.assert_allclose(get_magmoms(again), VECTORS, atol=1e-7)
    np.testing.assert_allclose(
        again.get_all_distances(mic=True), atoms.get_all_distances(mic=True), atol=1e-7
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("Mn1 1.20(5)", "Mn9 1.20(5)"), "Mn9"),
        (("0.5 0.5 0 1", "0.5 0.5 0 0.7"), "partially occupied"),
        (("4 -x,-y,-z,+1", "4 -x,-y,-z,-1"), "not allowed by the magnetic symmetry"),
        (("4 -x,-y,-z,+1", "4 -x,-q,-z,+1"), "symmetry operation"),
        (("data_mn3pt", "data_mn3pt\n_cell_modulation_dimension 1"), "incommensurate"),
    ],
)
def test_mcif_that_contradicts_itself(tmp_path, change, message):
    (tmp_path / "a.mcif").write_text(MN3PT.replace(*change))
    with pytest.raises(StructureError, match=message) as caught:
        read_structures(tmp_path / "a.mcif")
    assert "a.mcif" in str(caught.value)


def test_operations():
    rotation, translation, time = parse_operation("-y, x-y+1/2, -z+0.25, -1")
    np.testing.assert_allclose(rotation, [[0, -1, 0], [1, -1, 0], [0, 0, -1]])
    np.testing.assert_allclose(translation, [0, 0.5, 0.25])
    assert time == -1


def test_partial_occupation_in_an_ordinary_cif_is_refused(tmp_path):
    ase.io.write(tmp_path / "a.cif", bcc())
    text = (tmp_path / "a.cif").read_text()
    (tmp_path / "a.cif").write_text(text.replace("1.0000\n", "0.5000\n"))
    with pytest.raises(StructureError, match="partially occupied"):
        read_structures(tmp_path / "a.cif")


def test_folders_are_searched_and_our_own_are_skipped(tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "relax").mkdir()
    (folder / ".hidden").mkdir()
    for name in (
        "b.extxyz",
        "a.extxyz",
        "sub/c.extxyz",
        "relax/relaxed.extxyz",
        ".hidden/d.extxyz",
        ".e.extxyz",
    ):
        ase.io.write(folder / name, bcc([1, 1]), format="extxyz")
    (folder / "notes.txt").write_text("no structure")
    for name in ("summary.json", "config.yaml"):
        (folder / "relax" / name).write_text("{}")
    found = [path.relative_to(folder) for path in find_structures([folder])]
    assert found == [Path("a.extxyz"), Path("b.extxyz"), Path("sub/c.extxyz")]
    assert list(find_structures([folder / "relax"])) == [folder / "relax" / "relaxed.extxyz"]
    assert len(list(find_structures([folder, folder / "a.extxyz"]))) == 3


def test_equal_file_names_get_their_folders(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        ase.io.write(tmp_path / name / "POSCAR", bcc())
    ase.io.write(tmp_path / "z.extxyz", bcc())
    names = [item.name for item in load_structures([tmp_path])]
    assert names == [str(tmp_path / "x/POSCAR"), str(tmp_path / "y/POSCAR"), "z.extxyz"]


def test_a_bad_file_does_not_stop_the_others(tmp_path):
    ase.io.write(tmp_path / "a.extxyz", bcc([1, 1]))
    (tmp_path / "b.extxyz").write_text("2\n\nFe 0 0 0\n")
    ase.io.write(tmp_path / "c.extxyz", bcc([1, 1]))
    items = load_structures([tmp_path])
    assert [isinstance(item, FailedStructure) for item in items] == [False, True, False]


# --- starting moments ---------------------------------------------------------------------------------------------


def test_start_from_the_file_or_high_spin():
    moments, note = initial_magmoms(bcc(VECTORS))
    np.testing.assert_allclose(moments, VECTORS)
    assert note == ""
    moments, note = initial_magmoms(bcc([0, 0]))
    assert not moments.any()
    assert note == ""  # zeros are an answer
    moments, note = initial_magmoms(bcc())
    np.testing.assert_allclose(moments, [[0, 0, 2.5]] * 2)
    assert "no moments in the file" in note
    moments, note = initial_magmoms(bcc(VECTORS), "high-spin")
    np.testing.assert_allclose(moments, [[0, 0, 2.5]] * 2)
    with pytest.raises(MissingMomentsError, match="high-spin"):
        initial_magmoms(bcc(), "file")


def test_random_start_is_reproducible():
    first, note = initial_magmoms(bcc(), "random:7")
    np.testing.assert_array_equal(first, initial_magmoms(bcc(), "random:7")[0])
    assert not np.allclose(first, initial_magmoms(bcc(), "random:8")[0])
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 2.5)
    assert "seed 7" in note


@pytest.mark.parametrize("how", ["random", "random:x", "ferro", ""])
def test_unknown_start(how):
    with pytest.raises(ConfigError, match="high-spin"):
        initial_magmoms(bcc(), how)


@pytest.mark.parametrize(
    ("atoms", "first_shell_opposite"),
    [
        (bulk("Fe", cubic=True), 1.0),
        (bulk("Fe", cubic=True) * (2, 2, 2), 1.0),  # 16 atoms: beyond the exact search
        (bulk("Fe", "sc", a=2.3) * (2, 2, 2), 1.0),
        (bulk("Fe", "fcc", a=3.5, cubic=True), 2 / 3),  # frustrated: 8 of 12 neighbours at best
        (bulk("Fe", "fcc", a=3.5, cubic=True) * (2, 2, 1), 2 / 3),
    ],
    ids=["bcc2", "bcc16", "sc8", "fcc4", "fcc16"],
)
def test_afm_start_alternates_as_far_as_possible(atoms, first_shell_opposite):
    from ase.neighborlist import neighbor_list

    moments = initial_magmoms(atoms, "afm")[0]
    assert abs(moments[:, 2].sum()) < 1e-12
    assert moments[0, 2] > 0
    i, j, d = neighbor_list("ijd", atoms, 3.0)
    near = d < d.min() + 0.01
    signs = np.sign(moments[:, 2])
    opposite = (signs[i[near]] != signs[j[near]]).mean()
    assert opposite == pytest.approx(first_shell_opposite)


def test_afm_start_leaves_weakly_magnetic_atoms_at_zero():
    cell = bulk("FePt", "cesiumchloride", a=2.9) * (1, 1, 2)
    moments = initial_magmoms(cell, "afm")[0][:, 2]
    np.testing.assert_allclose(moments[cell.numbers == 78], 0)
    np.testing.assert_allclose(sorted(moments[cell.numbers == 26]), [-2.5, 2.5])


def test_afm_needs_two_magnetic_atoms():
    with pytest.raises(StructureError, match="supercell"):
        initial_magmoms(bulk("Fe"), "afm")
    with pytest.raises(StructureError, match="no magnetic atom"):
        initial_magmoms(bulk("Al", cubic=True), "afm")
    assert initial_magmoms(make_supercell(bulk("Fe"), np.diag([2, 1, 1])), "afm")[0][:, 2].sum() == 0


def test_far_atoms_still_alternate():
    atoms = Atoms("Fe2", [[0, 0, 0], [0, 0, 9.0]], cell=[2.5, 2.5, 18.0], pbc=True)
    assert initial_magmoms(atoms, "afm")[0][:, 2].tolist() == [2.5, -2.5]
