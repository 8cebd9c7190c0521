"""Readers of the formats of other codes, on small files written here in the layout of each code."""

import json

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.units import Bohr, Hartree
from format_files import (
    ABINIT,
    CELL,
    FORCES,
    MAGFORCES,
    MAGMOMS,
    POSITIONS,
    STRESS,
    VOLUME,
    labelled_atoms,
    oszicar,
    outcar,
    vasprun,
    write_cfg,
    write_deepmd,
)
from training_toys import toy_frames, write_toys

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import DataError
from mmace_sim.io import database
from mmace_sim.io.frames import file_sha256, frame_identity, read_frames
from mmace_sim.io.vasp import spin_axes


def check_first(frame, *, labels=("energy", "forces", "stress", "magforces"), atol=1e-6):
    """The structure of `format_files`, whatever format it came from."""
    assert frame.atoms.get_chemical_symbols() == ["Fe", "Al"]
    np.testing.assert_allclose(frame.atoms.positions, POSITIONS, atol=atol)
    np.testing.assert_allclose(frame.atoms.cell.array, CELL, atol=atol)
    assert frame.atoms.pbc.all()
    np.testing.assert_allclose(frame.magmoms, MAGMOMS, atol=atol)
    assert set(frame.labels) == set(labels)
    expected = {"energy": -12.5, "forces": FORCES, "stress": STRESS, "magforces": MAGFORCES}
    for label in labels:
        np.testing.assert_allclose(frame.labels[label], expected[label], atol=atol)


def test_deepmd_folder_with_two_sets(tmp_path):
    system = write_deepmd(tmp_path / "system", n_sets=2, n_frames=3)
    frames = read_frames([system]).frames
    assert len(frames) == 6
    check_first(frames[0])
    assert frames[3].labels["energy"] == -12.5 - 3
    assert frames[5].source == f"{system}@5"
    assert file_sha256(system) != file_sha256(write_deepmd(tmp_path / "other", n_sets=1, n_frames=3))


def test_folder_of_deepmd_systems_and_mixed_types(tmp_path):
    write_deepmd(tmp_path / "all" / "a", n_sets=1, n_frames=1)
    write_deepmd(tmp_path / "all" / "b", n_sets=1, n_frames=2, mixed=True)
    frames = read_frames([tmp_path / "all"]).frames
    assert [len(f.atoms) for f in frames] == [2, 2, 1]  # the last one is padded
    check_first(frames[1])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: (s / "set.000" / "spin.npy").unlink(), "spin_norm / virtual_len"),
        (lambda s: (s / "type_map.raw").unlink(), "no type_map.raw"),
        (lambda s: (s / "type_map.raw").write_text("Fe\n"), "type 1 has no element"),
        (lambda s: np.save(s / "set.000" / "force.npy", np.zeros((2, 9))), r"force.npy has shape \(2, 9\)"),
        (lambda s: (s / "set.000" / "box.npy").unlink(), "box.npy is missing"),
    ],
)
def test_incomplete_deepmd_folders_say_what_is_missing(tmp_path, spoil, message):
    system = write_deepmd(tmp_path / "system", n_sets=1, n_frames=2)
    spoil(system)
    with pytest.raises(DataError, match=message) as error:
        read_frames([system])
    assert str(error.value).startswith(str(system))


def test_mlip_configurations(tmp_path):
    path = write_cfg(tmp_path / "set.cfg", n=3)
    with pytest.raises(DataError, match=r"set\.type_map\.raw or type_map\.raw"):
        read_frames([path])
    (tmp_path / "type_map.raw").write_text("Al\nFe\n")
    frames = read_frames([path]).frames
    assert len(frames) == 3
    check_first(frames[0])


def test_a_broken_mlip_configuration_does_not_stop_the_others(tmp_path):
    (tmp_path / "type_map.raw").write_text("Al Fe\n")
    whole = write_cfg(tmp_path / "set.cfg", n=1).read_text()
    without = whole.replace("magmom_z", "charge")
    (tmp_path / "set.cfg").write_text(whole + without + whole.replace("0.400000", "0.4?") + whole[:-40])
    found = read_frames([tmp_path / "set.cfg"])
    assert len(found.frames) == 1
    assert "set.cfg@1: AtomData has only magmom_x magmom_y" in found.problems[0]
    assert "'0.4?' is not a number" in found.problems[1]
    assert "END_CFG" in found.problems[2]


@pytest.mark.parametrize("name", ["set.db", "set.aselmdb"])
def test_databases_keep_everything(tmp_path, name):
    frames = read_frames([write_toys(tmp_path / "toys.extxyz", n=5)]).frames
    frames[1].atoms.info["group"] = "12e345"
    del frames[2].labels["stress"]
    kept = ("config_type", "config_id", "group")
    infos = [{k: v for k, v in f.atoms.info.items() if k in kept} for f in frames]
    rows = [
        database.atoms_to_row(f.atoms, f.magmoms, f.labels, info)
        for f, info in zip(frames, infos, strict=True)
    ]
    assert database.write_database(tmp_path / name, rows) == 5
    again = read_frames([tmp_path / name]).frames
    assert len(again) == 5
    for before, after in zip(frames, again, strict=True):
        assert before.config_type == after.config_type
        assert frame_identity(before.atoms) == frame_identity(after.atoms)
        assert list(before.labels) == list(after.labels)
        np.testing.assert_array_equal(before.atoms.positions, after.atoms.positions)
        np.testing.assert_array_equal(before.magmoms, after.magmoms)
        for label, value in before.labels.items():
            np.testing.assert_allclose(after.labels[label], value, rtol=0, atol=1e-15)


def test_lmdb_files_of_ase_db_backends_and_back(tmp_path):
    backend = pytest.importorskip("ase_db_backends.aselmdb").LMDBDatabase
    atoms = labelled_atoms()
    with backend(tmp_path / "theirs.aselmdb") as theirs:
        theirs._write(atoms, {"config_type": "b2"}, {"REF_magforces": MAGFORCES})
    frame = read_frames([tmp_path / "theirs.aselmdb"]).frames[0]
    check_first(frame)
    assert frame.config_type == "b2"
    row = database.atoms_to_row(frame.atoms, frame.magmoms, frame.labels, {})
    database.write_database(tmp_path / "ours.aselmdb", [row])
    with backend(tmp_path / "ours.aselmdb", readonly=True) as ours:
        assert ours.count() == 1
        np.testing.assert_allclose(ours.get(1).toatoms().get_forces(), FORCES)


def test_sqlite_of_ase_itself(tmp_path):
    from ase.db import connect

    with connect(tmp_path / "ase.db") as db:
        db.write(labelled_atoms(), config_type="b2", data={"REF_magforces": MAGFORCES})
    frame = read_frames([tmp_path / "ase.db"]).frames[0]
    check_first(frame)
    assert frame.config_type == "b2"


def test_other_lmdb_files_are_refused_without_unpickling(tmp_path):
    import lmdb

    with lmdb.open(str(tmp_path / "x.lmdb"), subdir=False) as env, env.begin(write=True) as txn:
        txn.put(b"nextid", b"\x80\x04K\x05.")
    with pytest.raises(DataError, match=r"x\.lmdb: is no ASE database in LMDB"):
        read_frames([tmp_path / "x.lmdb"])


def test_labels_of_calculators_in_files_of_ase(tmp_path):
    write(tmp_path / "one.traj", labelled_atoms())
    check_first(read_frames([tmp_path / "one.traj"]).frames[0], labels=("energy", "forces", "stress"))


def test_extxyz_with_the_names_of_ase(tmp_path):
    write(tmp_path / "one.extxyz", labelled_atoms())
    assert read_frames([tmp_path / "one.extxyz"]).frames[0].labels == {}  # not asked for under these names
    keys = LabelKeys(energy="energy", forces="forces", stress="stress", magmoms="magmoms")
    check_first(read_frames([tmp_path / "one.extxyz"], keys).frames[0], labels=("energy", "forces", "stress"))


def test_groups_that_look_like_numbers_stay_apart(tmp_path):
    frames = toy_frames(4)
    for atoms, group in zip(frames, ("12e345", "13e345", "007", "7"), strict=True):
        atoms.info["group"] = group
        atoms.info["config_type"] = "1e3"
    write(tmp_path / "groups.extxyz", frames, format="extxyz")
    read = read_frames([tmp_path / "groups.extxyz"]).frames
    assert [f.atoms.info["group"] for f in read] == ["12e345", "13e345", "007", "7"]
    assert len({frame_identity(f.atoms) for f in read}) == 4
    assert {f.config_type for f in read} == {"1e3"}


def test_outcar_collinear_and_noncollinear(tmp_path):
    (tmp_path / "OUTCAR").write_text(outcar(MAGMOMS[:, 2:]))
    frame = read_frames([tmp_path / "OUTCAR"]).frames[0]
    np.testing.assert_allclose(frame.magmoms[:, 2], MAGMOMS[:, 2])
    np.testing.assert_allclose(frame.magmoms[:, :2], 0.0)
    (tmp_path / "OUTCAR.nc").write_text(outcar(MAGMOMS))
    check_first(read_frames([tmp_path / "OUTCAR.nc"]).frames[0], labels=("energy", "forces", "stress"))
    (tmp_path / "OUTCAR.none").write_text(outcar(None))
    assert "LORBIT = 11" in read_frames([tmp_path / "OUTCAR.none"]).problems[0]


def test_saxis_turns_moments_to_cartesian_axes(tmp_path):
    axes = spin_axes(np.array([1.0, 0.0, 0.0]))
    np.testing.assert_allclose(axes @ [0, 0, 1], [1, 0, 0], atol=1e-12)  # the axis itself
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(spin_axes(np.array([0.0, 0.0, 1.0])), np.eye(3))
    tilted = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(spin_axes(tilted) @ [0, 0, 1], tilted / np.linalg.norm(tilted), atol=1e-12)
    (tmp_path / "OUTCAR").write_text(outcar(MAGMOMS, incar="   SAXIS = 1 0 0\n"))
    frame = read_frames([tmp_path / "OUTCAR"]).frames[0]
    np.testing.assert_allclose(frame.magmoms, MAGMOMS @ axes.T, atol=1e-9)


def test_constrained_moments_of_oszicar(tmp_path):
    (tmp_path / "OUTCAR").write_text(outcar(np.ones((2, 3))))
    (tmp_path / "OSZICAR").write_text(oszicar(MAGMOMS, MAGFORCES, penalty=0.25))
    frame = read_frames([tmp_path / "OUTCAR"]).frames[0]
    np.testing.assert_allclose(frame.magmoms, MAGMOMS)
    np.testing.assert_allclose(frame.labels["magforces"], MAGFORCES)
    np.testing.assert_allclose(frame.labels["energy"], -12.5 - 0.25)
    (tmp_path / "OSZICAR").write_text(2 * oszicar(MAGMOMS, MAGFORCES, penalty=0.25))
    with pytest.raises(DataError, match=r"1 ionic steps, but .*OSZICAR has 2"):
        read_frames([tmp_path / "OUTCAR"])


def test_abinit_output(tmp_path):
    (tmp_path / "run.abo").write_text(ABINIT)
    frame = read_frames([tmp_path / "run.abo"]).frames[0]
    np.testing.assert_allclose(frame.atoms.cell.lengths(), 5.4 * Bohr)
    np.testing.assert_allclose(frame.atoms.positions[1], [1.43, 1.43, 1.44])
    np.testing.assert_allclose(frame.magmoms, [[0, 0, 2.210298], [0, 0, 1.610427]])
    np.testing.assert_allclose(frame.labels["energy"], -248.786814 * Hartree)
    np.testing.assert_allclose(frame.labels["magforces"][1], [0, 0, 0.023548694605 * Hartree])
    np.testing.assert_allclose(frame.labels["forces"][0], np.array([0.01, -0.02, 0.0]) * Hartree / Bohr)
    np.testing.assert_allclose(frame.labels["stress"][0, 0], -1.65e-2 * Hartree / Bohr**3)
    vectors = ABINIT.replace(
        "up_density   dn_density  Total(up+dn)  Diff(up-dn)", "Total density mag(x) mag(y) mag(z)"
    )
    (tmp_path / "nc.abo").write_text(vectors)
    np.testing.assert_allclose(
        read_frames([tmp_path / "nc.abo"]).frames[0].magmoms[0], [6.0949, 14.400099, 2.210298]
    )
    (tmp_path / "cut.abo").write_text(ABINIT.replace("Calculation completed", ""))
    assert "is not complete" in read_frames([tmp_path / "cut.abo"]).problems[0]
    (tmp_path / "nm.abo").write_text(ABINIT.replace("and magnetization densities", "density"))
    assert "nspden" in read_frames([tmp_path / "nm.abo"]).problems[0]


def test_several_formats_in_one_list(tmp_path):
    (tmp_path / "type_map.raw").write_text("Al Fe\n")
    (tmp_path / "OUTCAR").write_text(outcar(MAGMOMS))
    paths = [
        write_deepmd(tmp_path / "system", n_sets=1, n_frames=1),
        write_cfg(tmp_path / "set.cfg", n=1),
        tmp_path / "OUTCAR",
    ]
    frames = read_frames(paths).frames
    assert len(frames) == 3
    for frame in frames:
        np.testing.assert_allclose(frame.labels["energy"], -12.5)
        np.testing.assert_allclose(frame.labels["stress"], STRESS, atol=1e-6)


def test_isolated_atoms_of_json_files(tmp_path):
    atoms = Atoms("Fe", [[0, 0, 0]], magmoms=[4.0])
    atoms.calc = SinglePointCalculator(atoms, energy=-3.0, free_energy=-3.1)
    write(tmp_path / "one.json", atoms)
    frame = read_frames([tmp_path / "one.json"]).frames[0]
    assert frame.labels["energy"] == -3.1  # forces are derivatives of the free energy
    assert frame.magmoms.tolist() == [[0, 0, 4.0]]
    assert json.loads((tmp_path / "one.json").read_text())["1"]
    assert pytest.approx(np.linalg.det(CELL)) == VOLUME


def test_vasprun_takes_moments_from_the_outcar_beside_it(tmp_path):
    path = tmp_path / "vasprun.xml"
    path.write_text(vasprun())
    assert "keep OUTCAR" in read_frames([path]).problems[0]
    (tmp_path / "OUTCAR").write_text(outcar(MAGMOMS))
    check_first(read_frames([path]).frames[0], labels=("energy", "forces", "stress"))
    path.write_text(vasprun(saxis="1 0 0"))
    frame = read_frames([path]).frames[0]
    np.testing.assert_allclose(frame.magmoms, MAGMOMS @ spin_axes(np.array([1.0, 0.0, 0.0])).T, atol=1e-9)
    (tmp_path / "OSZICAR").write_text(oszicar(MAGMOMS, MAGFORCES, penalty=0.25))
    assert read_frames([path]).frames[0].labels["energy"] == -12.75
