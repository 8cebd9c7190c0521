"""Vacuum, layers and molecules: their cell stays, their volume and their stress are not spoken of."""

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.io import read
from embedded import IRON_MODEL
from typer.testing import CliRunner

import mmace_sim
from mmace_sim.cli.app import app
from mmace_sim.errors import UnsupportedOptionError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.cells import free_strains, is_open, parse_cell_mask, physical_stress, vacuum_widths
from mmace_sim.properties.relax.relaxation import Status
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim import MagneticMaceModel

CASES = Path(__file__).parent / "cases" / "start"
LATTICE = 2.5 * 2**0.5


@pytest.fixture
def toy():
    return MagneticMaceModel(HeisenbergModel())


def slab(vacuum=8.0, axis=2, shear=0.0, strain=0.0):
    """Three layers of fcc iron with vacuum along any cell vector, which may lean."""
    atoms = bulk("Fe", "fcc", a=LATTICE, cubic=True) * (1, 1, 2)
    del atoms[[i for i, z in enumerate(atoms.positions[:, 2]) if z > 1.2 * LATTICE]]
    atoms.center(vacuum=vacuum / 2, axis=2)
    atoms.set_cell(atoms.cell.array * [1 + strain, 1 + strain, 1], scale_atoms=True)
    cell = atoms.cell.array.copy()
    cell[2] += shear * cell[0]
    atoms.set_cell(cell)
    atoms = Atoms(
        atoms.symbols,
        positions=np.roll(atoms.positions, axis - 2, axis=1),
        pbc=True,
        cell=np.roll(np.roll(cell, axis - 2, axis=0), axis - 2, axis=1),
    )
    set_magmoms(atoms, [[0, 0, 1.9]] * len(atoms))
    return atoms


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shear", [0.0, 0.4])
def test_vacuum_is_found_along_any_vector_also_of_a_leaning_cell(axis, shear):
    atoms = slab(6.0, axis, shear)
    assert vacuum_widths(atoms)[axis] == pytest.approx(6.0)
    assert is_open(atoms).tolist() == [k == axis for k in range(3)]
    atoms.positions += [0.3, 7.0, -11.0]  # wherever the atoms are
    atoms.wrap()
    assert is_open(atoms)[axis]
    assert not is_open(slab(5.9, axis, shear)).any()


def test_crystals_have_no_vacuum():
    crystals = [
        bulk("Cs", "bcc", a=6.14), bulk("Cs", "bcc", a=6.14, cubic=True), bulk("Xe", "fcc", a=6.2, cubic=True),
        bulk("Ba", "bcc", a=5.03), bulk("Fe", "bcc", a=2.87), bulk("CsCl", "cesiumchloride", a=4.12),
        Atoms("C4", scaled_positions=[[0, 0, 0], [1 / 3, 2 / 3, 0], [0, 0, 0.5], [2 / 3, 1 / 3, 0.5]],
              cell=[2.46, 2.46, 6.71, 90, 90, 120], pbc=True),
        read(CASES / "vacancy.cif"),
    ]  # fmt: skip
    for crystal in crystals:
        assert not is_open(crystal).any(), crystal
        free, note = free_strains(crystal)
        assert free.all()
        assert note == ""


def test_wires_clusters_and_flags():
    wire = Atoms("Fe", cell=[10, 11, 2.5], pbc=True)
    assert is_open(wire).tolist() == [True, True, False]
    assert "a wire" in free_strains(wire)[1]
    assert "--cell-mask zz relaxes it along its axis" in free_strains(wire)[1]
    assert (
        "a cluster in a box"
        in free_strains(Atoms("Fe2", [[0, 0, 0], [2, 0, 0]], cell=[9, 9, 9], pbc=True))[1]
    )
    assert "molecule" in free_strains(molecule("O2"))[1]
    layer = slab()
    layer.pbc = (True, True, False)
    for atoms in (layer, slab()):
        free, note = free_strains(atoms)
        assert not free.any()
        assert "--cell-mask xx,yy,xy relaxes it in its plane" in note
    assert "8.0 Å along c (a slab)" in free_strains(slab())[1]


def test_masks():
    for given in (
        "xx,yy,xy",
        ["xx", "yy", "yx"],
        "1,1,0,0,0,1",
        [1, 1, 0, 0, 0, 1],
        (True, True, False, False, False, True),
    ):
        np.testing.assert_array_equal(parse_cell_mask(given), [1, 1, 0, 0, 0, 1])
    assert parse_cell_mask(None) is None
    for wrong in ("x", "xx,yy,aa", [1, 1, 1], "1,1,0,0,0,2", []):
        with pytest.raises(UnsupportedOptionError, match="six numbers"):
            parse_cell_mask(wrong)
    layer = slab()
    layer.pbc = (True, True, False)
    free, note = free_strains(layer, parse_cell_mask("xx,zz"))
    np.testing.assert_array_equal(free, np.diag([1, 0, 0]))
    assert "zz" in note


def test_slabs_keep_their_cell_and_a_mask_relaxes_a_part_of_it(toy):
    flat, flagged = slab(strain=0.03), slab(strain=0.03)
    flagged.pbc = (True, True, False)
    for atoms in (flat, flagged):
        (kept,) = mmace_sim.relax(atoms, toy)
        np.testing.assert_array_equal(kept.atoms.cell.array, atoms.cell.array)
        assert kept.status is Status.CONVERGED
        assert "volume" not in kept.message
        assert np.isnan(kept.max_stress)
        (plane,) = mmace_sim.relax(atoms, toy, cell_mask="xx,yy,xy")
        np.testing.assert_array_equal(plane.atoms.cell.array[2], atoms.cell.array[2])
        assert plane.status is Status.CONVERGED
        assert plane.energy < kept.energy - 1e-4
        assert plane.atoms.cell[0, 0] < atoms.cell[0, 0] - 1e-3
        assert plane.max_stress <= 0.05
    (one,) = mmace_sim.relax(bulk_fcc(3.6), toy, cell_mask="zz")
    np.testing.assert_allclose(np.diag(one.atoms.cell.array)[:2], 3.6, atol=1e-12)
    assert abs(one.atoms.cell[2, 2] - 3.6) > 1e-3


def bulk_fcc(a):
    atoms = bulk("Fe", "fcc", a=a, cubic=True)
    set_magmoms(atoms, [[0, 0, 1.9]] * 4)
    return atoms


def test_molecules_have_no_volume_and_no_stress(toy):
    free = Atoms("Fe2", [[0, 0, 0], [0, 0, 2.3]])
    set_magmoms(free, [[0, 0, 2.0]] * 2)
    boxed, layer, crystal = free.copy(), free.copy(), free.copy()
    for atoms, flags in ((boxed, False), (layer, (True, True, False)), (crystal, True)):
        atoms.set_cell([3.0, 3.1, 10.0])
        atoms.pbc = flags
    calculator = mmace_sim.MMACECalculator(toy.model)
    for atoms in (free, boxed):
        (result,) = mmace_sim.relax(atoms, toy)
        assert "volume" not in result.message
        assert "stress" not in result.atoms.calc.results
        assert np.isnan(result.max_stress)
        atoms.calc = calculator
        assert np.isfinite(atoms.get_potential_energy())
        with pytest.raises(PropertyNotImplementedError):
            atoms.get_stress()
    stresses = {}
    for name, atoms in (("layer", layer), ("crystal", crystal)):
        atoms.calc = calculator
        stresses[name] = atoms.get_stress()
    assert np.abs(stresses["layer"][:2]).max() > 1e-4
    np.testing.assert_array_equal(stresses["layer"][2:5], 0)  # across the layer there is no stress
    np.testing.assert_allclose(stresses["layer"][:2], stresses["crystal"][:2], atol=1e-12)
    assert physical_stress(np.eye(3), free) is None


def test_a_slab_of_vasp_and_its_twins_on_the_command_line(tmp_path):
    """From a new user's first day: a POSCAR slab, the same with flags, and a cluster."""
    files = [str(CASES / name) for name in ("slab100.vasp", "slab_ttf.extxyz", "nano.xyz")]
    run = CliRunner().invoke(
        app,
        [
            "relax",
            *files,
            "-m",
            IRON_MODEL,
            "-o",
            str(tmp_path / "r"),
            "--max-steps",
            "3",
            "--no-stability",
            "--threads",
            "1",
        ],
    )
    assert run.exit_code == 3, run.output
    entries = json.loads((tmp_path / "r" / "summary.json").read_text())["structures"]
    assert "vacuum of 16.0 Å along c (a slab)" in " ".join(entries[0]["notes"])
    assert "volume" not in run.output
    for entry, file in zip(entries[:2], files, strict=False):
        np.testing.assert_allclose(entry["cell"], read(file).cell.array, atol=1e-12)
    assert all(entry["volume"] is None and entry["max_stress"] is None for entry in entries)
    wrong = CliRunner().invoke(app, ["relax", files[0], "-o", str(tmp_path / "w"), "--cell-mask", "xx,oo"])
    assert wrong.exit_code == 2
    assert "xx,yy,xy" in wrong.output


def test_masks_of_files_and_flags_are_the_same(tmp_path):
    from mmace_sim.base.settings import dump_settings as dump_config
    from mmace_sim.base.settings import load_settings as load_config
    from mmace_sim.properties.relax.declaration import RELAX

    for given in ("xx,yy", [1, 1, 0, 0, 0, 0], ["xx", "yy"], "zz"):
        config = load_config(RELAX.settings, None, {"cell_mask": given})
        assert config.cell_mask == (["zz"] if given == "zz" else ["xx", "yy"])
        (tmp_path / "c.yaml").write_text(dump_config(config))
        assert load_config(RELAX.settings, tmp_path / "c.yaml", {}) == config


def test_oblique_slabs_move_within_their_plane_only():
    """A (111) slab, vacuum along c: what may relax is a plane of x and y."""
    atoms = fcc111("Fe", (1, 1, 3), a=LATTICE, vacuum=5.0)
    atoms.pbc = True
    assert is_open(atoms).tolist() == [False, False, True]
    assert "--cell-mask xx,yy,xy" in free_strains(atoms)[1]
    atoms.rotate(30, "x", rotate_cell=True)
    assert is_open(atoms).tolist() == [False, False, True]
    assert free_strains(atoms)[1].endswith("the cell stays fixed (--cell-mask xx relaxes it in its plane)")
