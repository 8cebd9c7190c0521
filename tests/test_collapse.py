"""Embedded models have no wells outside of their data: nothing that a search for structures tries wins by collapse."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.neighborlist import neighbor_list
from embedded import BOTH

import mmace_sim
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.model.data_range import data_range


def lowest(model="default"):
    """Ferromagnetic bcc iron of a model, in eV/atom."""
    atoms = bulk("Fe", "bcc", a=2.83)
    set_magmoms(atoms, [[0, 0, 2.2]])
    (result,) = mmace_sim.relax(atoms, model)
    assert result.status == "converged"
    return result.energy


def random_cell(rng):
    """One to three atoms, 0.7 Å apart or more, 2 to 20 Å³ for each, with moments in any direction."""
    while True:
        n = int(rng.integers(1, 4))
        cell = rng.normal(size=(3, 3)) + 1.5 * np.eye(3)
        volume = np.linalg.det(cell)
        if volume < 0.3:
            continue
        cell *= (n * rng.uniform(2, 20) / volume) ** (1 / 3)
        atoms = Atoms(f"Fe{n}", cell=cell, scaled_positions=rng.uniform(size=(n, 3)), pbc=True)
        if len(neighbor_list("d", atoms, 0.7)) == 0:
            set_magmoms(atoms, rng.normal(size=(n, 3)))
            return atoms


@pytest.mark.parametrize("n", [5, pytest.param(12, marks=pytest.mark.stress)])
def test_random_cells_relax_to_nothing_below_bcc(n):
    rng, ground = np.random.default_rng(3), lowest()
    for result in mmace_sim.relax([random_cell(rng) for _ in range(n)], max_steps=150):
        assert result.energy / len(result.atoms) > ground - 0.01
        assert neighbor_list("d", result.atoms, 3.0).min() > 1.6


@pytest.mark.parametrize("name", BOTH)
def test_no_dense_lattice_is_low(name):
    """One atom in fcc, bcc and simple cubic lattices at every volume and moment; before, −470 eV/atom at 4.5 Å³."""
    model = mmace_sim.load_model(name)
    found = []
    for kind, n in (("fcc", 4), ("bcc", 2), ("sc", 1)):
        for volume in np.arange(2.0, 9.0, 0.5):
            for moment in (0.0, 1.0, 2.0, 2.75, 3.5):
                atoms = bulk("Fe", kind, a=(n * volume) ** (1 / 3))
                set_magmoms(atoms, [[0, 0, moment]])
                found.append(atoms)
    energies = model(graph_from_atoms(found, model.r_max))["energy"]
    volumes = torch.tensor([atoms.get_volume() for atoms in found])
    assert float(energies.min()) > lowest(name)
    assert float(energies[volumes < 5.0].min()) > lowest(name) + 20.0


def test_an_interstitial_stays_one():
    """Of the kind that ended at −55,570 eV/atom."""
    host = bulk("Fe", "bcc", a=2.83, cubic=True).repeat(2)
    host += Atoms("Fe", positions=[[1.415, 1.415, 0.0]])
    set_magmoms(host, np.full((17, 1), 2.2) * [0.0, 0.0, 1.0])
    (result,) = mmace_sim.relax(host, relax_cell=False, max_steps=150)
    assert str(result.status) in ("converged", "saddle")
    assert 2.0 < result.energy - 17 * lowest() < 12.0
    assert neighbor_list("d", result.atoms, 3.0).min() > 1.8


@pytest.mark.parametrize("name", BOTH)
def test_a_pair_repels_from_the_shortest_distance_of_the_data_on(name):
    model = mmace_sim.load_model(name)
    onset = model.config.repulsion["Fe-Fe"]
    assert onset == pytest.approx(data_range(model).shortest_distances["Fe-Fe"], abs=1e-3)
    atoms = Atoms("Fe2", positions=[[0, 0, 0], [0, 0, 1]], cell=[9.0] * 3)
    energies = []
    for distance in np.arange(0.5, onset, 0.05):
        atoms.positions[1, 2] = distance
        set_magmoms(atoms, [[0, 0, 2.0], [0, 0, 2.0]])
        energies.append(float(model(graph_from_atoms(atoms, model.r_max))["energy"]))
    energies = torch.tensor(energies)
    assert (energies.diff()[:30] < 0).all()
    assert energies[0] - energies[-1] > 500
