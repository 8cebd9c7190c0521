"""Neighbour lists of every backend against all images by brute force, for every boundary condition."""

import itertools

import numpy as np
import pytest
import torch
from cli_tools import bcc
from hypothesis import given, settings
from hypothesis import strategies as st

from mmace_sim.graph import cell_list
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.graph.neighbors import BACKENDS, neighbor_list

PBC = list(itertools.product((False, True), repeat=3))
R_MAX = 4.01


def brute_force(positions, cell, pbc, r_max):
    """All (centre, neighbour, shift) of one structure, from all images that can be near."""
    reach = np.zeros(3, dtype=int)
    if pbc.any():
        inverse = np.linalg.pinv(cell[pbc])
        scaled = positions @ inverse
        reach[pbc] = np.ceil(np.ptp(scaled, axis=0) + r_max * np.linalg.norm(inverse, axis=0)).astype(int) + 1
    images = np.stack(np.meshgrid(*[np.arange(-k, k + 1) for k in reach], indexing="ij"), -1).reshape(-1, 3)
    vectors = (
        positions[None, :, None] + (images @ np.where(pbc[:, None], cell, 0.0)) - positions[:, None, None]
    )
    near = np.linalg.norm(vectors, axis=-1) < r_max
    near[np.arange(len(positions)), np.arange(len(positions)), (images == 0).all(axis=1)] = False
    return {(int(i), int(j), *images[k].tolist()) for i, j, k in zip(*np.nonzero(near), strict=True)}


def pairs_of(structures, backend, r_max=R_MAX):
    """The pairs that a backend finds for each structure of a batch."""
    counts = [len(positions) for positions, _, _ in structures]
    edges, shifts = neighbor_list(
        torch.tensor(np.concatenate([positions for positions, _, _ in structures])),
        torch.tensor(np.stack([cell for _, cell, _ in structures])),
        torch.tensor(np.stack([pbc for _, _, pbc in structures])),
        torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
        r_max,
        backend=backend,
    )
    assert (edges[1].diff() >= 0).all()
    starts = np.concatenate([[0], np.cumsum(counts)])
    found = [set() for _ in counts]
    for (sender, receiver), shift in zip(edges.T.tolist(), shifts.long().tolist(), strict=True):
        k = int(np.searchsorted(starts, receiver, side="right")) - 1
        pair = (receiver - starts[k], sender - starts[k], *shift)
        assert pair not in found[k]
        found[k].add(pair)
    return found


def check(structures, r_max=R_MAX):
    for backend in BACKENDS:
        found = pairs_of(structures, backend, r_max)
        for pairs, structure in zip(found, structures, strict=True):
            assert pairs == brute_force(*structure, r_max), backend


def random_structure(rng, pbc, *, n=4, size=3.0, spread=1.0, zero=True):
    cell = np.diag(rng.uniform(0.8, 1.3, 3)) * size + rng.normal(size=(3, 3)) * 0.2 * size
    positions = rng.uniform(-spread, spread, size=(n, 3)) @ cell
    pbc = np.array(pbc)
    if zero:
        cell[~pbc] = 0.0
    return positions, cell, pbc


@pytest.mark.parametrize("pbc", PBC)
@pytest.mark.parametrize("zero", [True, False])
def test_open_directions_with_and_without_a_cell_vector(pbc, zero):
    rng = np.random.default_rng(1)
    check([random_structure(rng, pbc, zero=zero, n=n) for n in (1, 2, 5)])


def test_mixed_boundary_conditions_in_one_batch():
    rng = np.random.default_rng(2)
    check([random_structure(rng, pbc, spread=8.0) for pbc in PBC])


@pytest.mark.parametrize("pbc", [(True, True, True), (False, True, True), (False, False, True)])
def test_skewed_cells(pbc):
    """Cells that are not symmetric matrices: a list that takes columns for rows is wrong."""
    cell = np.array([[3.0, 0.0, 0.0], [14.0, 3.0, 0.0], [5.0, -7.0, 3.0]])
    check([(np.array([[0.1, 0.2, 0.3], [1.5, 1.2, 30.0]]), cell, np.array(pbc))])
    hexagonal = np.array([[2.5, 0.0, 0.0], [-1.25, 2.165, 0.0], [0.0, 0.0, 4.0]])
    check([(np.array([[0.0, 0.0, 1.0], [0.0, 1.44, 3.0]]), hexagonal, np.array(pbc))])


def test_dense_and_tiny_cells():
    """More neighbours than any list reserves room for, beside an ordinary structure."""
    rng = np.random.default_rng(3)
    always = np.array([True] * 3)
    dense = (rng.uniform(0, 1.5, size=(4, 3)), np.diag([1.5, 1.0, 1.2]), always)
    assert len(brute_force(*dense, R_MAX)) > 4 * 400 / 1.8
    check([dense, random_structure(rng, always), (np.zeros((1, 3)), np.eye(3) * 0.9, always)])


def test_atoms_far_apart_in_open_directions():
    """Once a box for every cutoff of empty space: 12 GB for two atoms 10 µm apart."""
    molecule = np.array(
        [[0.0, 0.0, 0.0], [1e5, -3e4, 2.0], [0.0, 0.0, 2.0], [1e5, -3e4, 4.0], [7.0, 0.0, 0.0]]
    )
    check([(molecule, np.zeros((3, 3)), np.array([False] * 3))])
    layers = (
        np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 9e4], [1.0, 1.0, 9e4 + 3.0]]),
        np.eye(3) * 3,
        np.array([True, True, False]),
    )
    check([layers])


@settings(max_examples=40)
@given(
    seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3),
    pbc=st.lists(st.sampled_from(PBC), min_size=3, max_size=3),
    size=st.floats(1.2, 9.0),
    spread=st.sampled_from([0.5, 1.0, 5.0, 30.0]),
    zero=st.booleans(),
    r_max=st.floats(1.0, 5.0),
)
def test_any_structures(seeds, pbc, size, spread, zero, r_max):
    structures = [
        random_structure(np.random.default_rng(seed), p, n=1 + seed % 5, size=size, spread=spread, zero=zero)
        for seed, p in zip(seeds, pbc, strict=False)
    ]
    check(structures, r_max)


def test_graphs_of_slabs_are_the_same_with_and_without_a_third_vector():
    slab = bcc().repeat((1, 1, 2))
    set_magmoms(slab, np.ones((4, 3)))
    slab.pbc = (True, True, False)
    bare = slab.copy()
    bare.cell[2] = 0.0
    first, second = (graph_from_atoms(atoms, 5.0) for atoms in (slab, bare))
    assert torch.equal(first.edge_index, second.edge_index)
    torch.testing.assert_close(first.edge_vectors(), second.edge_vectors())


def test_boxes_of_large_systems_in_pieces(monkeypatch):
    """More centres, and more candidates of a box, than are measured at once."""
    rng = np.random.default_rng(4)
    atoms = bcc().repeat((6, 5, 4))
    atoms.rattle(0.1, seed=1)
    crystal = (atoms.positions, atoms.cell.array, np.array([True, False, True]))
    dense = (rng.uniform(0, 2.0, size=(60, 3)), np.diag([2.0, 30.0, 9.0]), np.array([True] * 3))
    whole = pairs_of([crystal, dense], "torch")
    assert whole == pairs_of([crystal, dense], "matscipy")
    monkeypatch.setattr(cell_list, "_ROWS", 50)
    monkeypatch.setattr(cell_list, "CANDIDATES", 100)
    assert whole == pairs_of([crystal, dense], "torch")
