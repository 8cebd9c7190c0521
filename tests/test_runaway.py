"""What runs away from the data of a model is stopped and is no result; what is honest is not."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import read
from embedded import IRON_MODEL

import mmace_sim
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.model.data_range import data_range
from mmace_sim.properties.relax.relaxation import Status
from mmace_sim.properties.relax.runaway import CROWDED_MARGIN, ENERGY_MARGIN, EnergyFloor
from mmace_sim.structures.checks import check_geometry, closest_pair
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim import MagneticMaceModel

CASES = Path(__file__).parent / "cases" / "start"
E0 = -8.0


def fcc(a=2.5 * 2**0.5, seed=None):
    atoms = bulk("Fe", "fcc", a=a, cubic=True)
    if seed is not None:
        atoms.rattle(0.05, seed=seed)
    set_magmoms(atoms, [[0, 0, 2.0]] * 4)
    return atoms


def model(data=None, morse=(0.4, 1.4, 2.5), e0=E0):
    toy = HeisenbergModel(morse=morse)
    if e0 is not None:
        toy.reference = SimpleNamespace(atomic_energies=torch.tensor([e0], dtype=torch.float64))
    if data is not None:
        toy.metadata["data_range"] = {
            "interaction_energy_per_atom": data, "shortest_distances": {"Fe-Fe": 2.4},
            "volume_per_atom": (9.0, 13.0), "largest_moments": {"Fe": 3.5},
        }  # fmt: skip
    return MagneticMaceModel(toy)


LOWEST = HeisenbergModel().relaxed_energy(12) - E0


def test_what_is_as_low_as_the_data_is_a_result():
    for low in (LOWEST, LOWEST + 0.9 * ENERGY_MARGIN):
        (result,) = mmace_sim.relax(fcc(seed=1), model((low, low + 2.0)))
        assert result.status is Status.CONVERGED
        assert result.message == ""


def test_what_falls_below_the_data_is_stopped_and_has_no_energy():
    good, gone = fcc(seed=1), fcc(a=3.2)
    deep = model((LOWEST + 1.1 * ENERGY_MARGIN, 3.0))
    for result in mmace_sim.relax([good, gone], deep):
        assert result.status is Status.RUNAWAY
        assert np.isnan(result.energy)
        assert result.magforces is None
        assert result.atoms is result.initial_atoms
        assert "no result" in result.message
        assert "max-steps" not in result.message


def test_a_little_below_the_data_counts_if_atoms_are_too_close():
    low = LOWEST + 2 * CROWDED_MARGIN
    shrinks = model((low, 3.0), morse=(0.4, 1.4, 2.25))  # its crystal has distances of 2.25 Å, the data 2.4
    (result,) = mmace_sim.relax(fcc(), shrinks)
    assert result.status is Status.RUNAWAY
    assert "does not know distances this short" in result.message
    assert "Fe and Fe are 2." in result.message
    (fits,) = mmace_sim.relax(fcc(), model((low, 3.0)))
    assert fits.status is Status.CONVERGED


def test_a_model_that_tells_no_data_has_a_physical_bound():
    (result,) = mmace_sim.relax(fcc(), model(morse=(8.0, 1.4, 2.5)))
    assert result.status is Status.RUNAWAY
    assert "Å apart" in result.message
    (toy,) = mmace_sim.relax(fcc(), model(morse=(8.0, 1.4, 2.5), e0=None))  # no isolated atoms, no bound
    assert toy.status is Status.CONVERGED
    for e0 in (None, 0.0):
        assert EnergyFloor.of(model(e0=e0)).lowest == -float("inf")


def test_atoms_that_fall_onto_each_other_are_no_result():
    collapse = MagneticMaceModel(HeisenbergModel(morse=(3.0, 1.0, 0.2), exchange=0.0, r_on=2.0, r_max=2.5))
    pair = bulk("Fe", "sc", a=8.0) * (2, 1, 1)
    pair.positions[1, 0] = 1.8
    set_magmoms(pair, [[0, 0, 2.0]] * 2)
    (result,) = mmace_sim.relax(pair, collapse, max_steps=100, relax_cell=False)
    assert result.status is Status.RUNAWAY
    assert "fell onto each other" in result.message
    (crystal,) = mmace_sim.relax(bulk_sc(2.4), collapse, max_steps=100)
    assert crystal.status is Status.RUNAWAY
    assert "collapsed to less than 0.09 Å³/atom" in crystal.message


def bulk_sc(a):
    atoms = bulk("Fe", "sc", a=a)
    set_magmoms(atoms, [[0, 0, 2.0]])
    return atoms


def test_what_lies_outside_of_the_data_says_so():
    data = (LOWEST - 0.1, LOWEST + 0.1)
    stretched = fcc(a=4.0)
    (far,) = mmace_sim.relax(stretched, model(data), relax_cell=False)
    assert "16.00 Å³/atom, 9.00 to 13.00 in the data" in far.message
    assert "eV/atom above the highest of the data" in far.message
    slab = fcc()
    slab.set_cell([*slab.cell.lengths()[:2], 20.0])
    (surface,) = mmace_sim.relax(slab, model(data))
    assert "it has a surface, the data are crystals" in surface.message
    (inside,) = mmace_sim.relax(fcc(), model(data))
    assert inside.message == ""


def test_closest_pairs():
    assert closest_pair(bulk("Fe", "bcc", a=2.87), 6.0)[2] == pytest.approx(2.87 * 3**0.5 / 2)
    assert closest_pair(bulk("Fe", "sc", a=7.0), 6.0) is None
    free = read(CASES / "nano.xyz")
    assert closest_pair(free, 6.0)[2] == pytest.approx(2.83 * 3**0.5 / 2, abs=1e-3)
    flat = Atoms("Fe100", [[2.5 * (k % 10), 2.5 * (k // 10), 0] for k in range(100)])
    check_geometry(flat, [26])
    chain = Atoms("Fe2", [[0, 0, 0], [0, 0, 2.2]])
    assert closest_pair(chain, 6.0)[2] == pytest.approx(2.2)
    layer = Atoms("Fe", cell=[2.4, 2.5, 0], pbc=(True, True, False))
    assert closest_pair(layer, 6.0) == (0, 0, pytest.approx(2.4))


@pytest.mark.parametrize("flags", [False, (True, False, False), (True, True, False)])
def test_molecules_chains_and_layers_without_cells_are_told_to_be_outside(flags):
    atoms = Atoms("Fe2", [[0, 0, 0], [0, 0, 2.2]])
    atoms.pbc = flags
    atoms.set_cell(np.diag([2.5, 2.6, 0.0]) * np.reshape(atoms.pbc, (3, 1)))
    set_magmoms(atoms, [[0, 0, 2.0]] * 2)
    (result,) = mmace_sim.relax(atoms, model((LOWEST - 0.1, LOWEST + 9.0)))
    assert result.status is Status.CONVERGED
    assert "it has a surface, the data are crystals" in result.message


@pytest.mark.parametrize("name", ["octahedral.cif", "dumbbell110.cif"])
def test_interstitials_lie_above_the_crystal_or_fail_with_a_reason(name):
    """They ended at −55,570 and −3,405 eV/atom, with the advice to raise --max-steps."""
    atoms = read(CASES / name)
    set_magmoms(atoms, [[0, 0, 2.2]] * len(atoms))
    crystal = bulk("Fe", "bcc", a=2.83)
    set_magmoms(crystal, [[0, 0, 2.2]])
    assert data_range(mmace_sim.load_model(IRON_MODEL)) is not None
    perfect, result = mmace_sim.relax(
        [crystal, atoms], IRON_MODEL, stability=False, fmax=0.05, magforce_tol=5e-3
    )
    if result.status is Status.RUNAWAY:
        assert "no result" in result.message
        assert np.isnan(result.energy)
    else:
        assert 2.0 < result.energy - len(atoms) * perfect.energy < 8.0
