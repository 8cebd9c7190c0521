"""Atoms that may move in some directions only: T T F of a POSCAR, planes, lines, Cartesian coordinates."""

import ase.io
import numpy as np
import pytest
import torch
import torch_sim as ts
from ase.build import bulk
from ase.constraints import FixAtoms, FixCartesian, FixedLine, FixedPlane, FixScaled, Hookean
from ase.optimize import FIRE

import mmace_sim
from mmace_sim import MMACECalculator
from mmace_sim.errors import StructureError, UnsupportedConstraintError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.structures.checks import check_structure
from mmace_sim.testing.toys import HeisenbergModel
from mmace_sim.torchsim import initialize_state, state_to_atoms

TILTED = np.array([1.0, 2.0, -1.0]) / np.sqrt(6)
CONSTRAINTS = {
    "TTF": FixScaled(1, mask=(False, False, True)),
    "FFT": FixScaled([0, 1], mask=(True, True, False)),
    "cartesian": FixCartesian([1, 2], mask=(True, False, True)),
    "plane": FixedPlane(1, TILTED),
    "line": FixedLine(2, TILTED),
    "atoms": FixAtoms([0]),
}


@pytest.fixture(scope="module")
def model():
    return HeisenbergModel(r_max=4.0, r_on=3.2).double()


def crystal(constraint=None, skew=True):
    """A distorted fcc cell whose lattice vectors are no Cartesian axes."""
    atoms = bulk("Fe", "fcc", a=3.5, cubic=True)
    if skew:
        shear = np.eye(3) + np.array([[0.0, 0.06, 0.03], [0.0, 0.0, -0.05], [0.02, 0.0, 0.0]])
        atoms.set_cell(atoms.cell.array @ shear, scale_atoms=True)
    atoms.positions += 0.12 * np.random.default_rng(3).normal(size=(4, 3))
    set_magmoms(atoms, [2.0] * 4)
    if constraint is not None:  # the last atom stays: otherwise all could move together
        atoms.set_constraint([FixAtoms([3]), *np.atleast_1d(constraint)])
    return atoms


def kept(constraint, before, after):
    """What the constraint holds, before and after."""
    index = np.atleast_1d(constraint.index)
    if isinstance(constraint, FixScaled):
        held = [
            atoms.get_scaled_positions(wrap=False)[index][:, constraint.mask] for atoms in (before, after)
        ]
    else:
        moved = after.positions[index] - before.positions[index]
        if isinstance(constraint, FixCartesian):
            held = [0.0, moved[:, constraint.mask]]
        elif isinstance(constraint, FixedPlane):
            held = [0.0, moved @ TILTED]
        elif isinstance(constraint, FixedLine):
            held = [0.0, moved - np.outer(moved @ TILTED, TILTED)]
        else:
            held = [0.0, moved]
    return held


@pytest.mark.parametrize("kind", list(CONSTRAINTS))
def test_a_relaxation_keeps_what_is_held_and_relaxes_the_rest(model, kind):
    before = crystal(CONSTRAINTS[kind])
    (result,) = mmace_sim.relax(
        [before], model=model, relax_cell=False, magmoms="fixed", fmax=1e-5, max_steps=600
    )
    assert result.status == "converged"
    held, now = kept(CONSTRAINTS[kind], before, result.atoms)
    np.testing.assert_allclose(now, held, atol=1e-9)
    free = crystal()
    free.calc = MMACECalculator(model)
    step, forces = 1e-4, []
    bare = result.atoms.copy()
    bare.set_constraint()
    bare.calc = MMACECalculator(model)
    assert np.abs(bare.get_forces()).max() > 0.05  # the constraint holds something back
    for atom in range(4):  # the energy is stationary along everything that ASE lets an atom do
        for axis in range(3):
            moved = result.atoms.copy()
            new = moved.positions.copy()
            new[atom, axis] += step
            moved.set_positions(new)
            change = moved.positions - result.atoms.positions
            forces.append(np.sum(bare.get_forces() * change) / step)
    assert np.abs(forces).max() < 5e-5


def test_cartesian_constraints_end_where_ase_does(model):
    ours = mmace_sim.relax(
        [crystal(CONSTRAINTS["cartesian"])], model=model, relax_cell=False, magmoms="fixed", fmax=1e-5
    )[0]
    theirs = crystal(CONSTRAINTS["cartesian"])
    theirs.calc = MMACECalculator(model)
    FIRE(theirs, logfile=None).run(fmax=1e-5, steps=600)
    assert ours.energy == pytest.approx(theirs.get_potential_energy(), abs=1e-7)


def test_selective_dynamics_follows_the_cell(model):
    before = crystal(FixScaled([1, 2], mask=(False, False, True)))
    (result,) = mmace_sim.relax([before], model=model, magmoms="fixed", fmax=1e-4, max_steps=800)
    assert result.status == "converged"
    after = result.atoms
    assert np.abs(after.cell.array - before.cell.array).max() > 0.05
    old, new = (atoms.get_scaled_positions(wrap=False) for atoms in (before, after))
    np.testing.assert_allclose(new[[1, 2], 2], old[[1, 2], 2], atol=1e-9)
    assert np.abs(new[[1, 2], :2] - old[[1, 2], :2]).max() > 1e-3
    bare = after.copy()
    bare.set_constraint()
    bare.calc = MMACECalculator(model)
    along = bare.get_forces()[[1, 2]] @ after.cell.array[:2].T
    assert np.abs(along).max() < 1e-3
    assert np.abs(bare.get_stress()).max() < 1e-3


def test_batches_with_and_without_constraints(model):
    alone = [crystal(constraint) for constraint in (None, *CONSTRAINTS.values())]
    settings = {"model": model, "relax_cell": False, "magmoms": "fixed", "fmax": 1e-4, "max_steps": 400}
    together = mmace_sim.relax(alone, **settings)
    for atoms, result in zip(alone, together, strict=True):
        (single,) = mmace_sim.relax([atoms], **settings)
        np.testing.assert_allclose(result.atoms.positions, single.atoms.positions, atol=1e-8)
        assert _same(atoms, result.atoms)


def test_states_keep_constraints_when_they_are_taken_apart():
    items = [crystal(constraint) for constraint in (None, *CONSTRAINTS.values())]
    state = initialize_state(items)
    parts = [*state[[5, 1, 3]].split(), *ts.concatenate_states([state[2], state[4]]).split()]
    for part in parts:
        (back,) = state_to_atoms(part)
        assert sum(np.allclose(atoms.cell, back.cell) and _same(atoms, back) for atoms in items) == 1
    for atoms, back in zip(items, state_to_atoms(state), strict=True):
        assert _same(atoms, back)


def _same(first, second):
    """Whether both keep the same of any displacement."""
    rng = np.random.default_rng(0)
    moved = 0.1 * rng.normal(size=first.positions.shape)
    changes = []
    for atoms in (first, second):
        copy = atoms.copy()
        copy.set_positions(atoms.positions + moved)
        changes.append(copy.positions - atoms.positions)
    return np.allclose(*changes, atol=1e-9)


def test_degrees_of_freedom():
    items = [crystal(CONSTRAINTS[kind]) for kind in ("TTF", "FFT", "cartesian", "plane", "line", "atoms")]
    state = initialize_state(items)
    removed = sum(constraint.get_removed_dof(state) for constraint in state.constraints)
    assert removed.tolist() == [4, 7, 7, 4, 5, 6]


def test_projection_of_forces_and_displacements():
    state = initialize_state([crystal(constraint) for constraint in CONSTRAINTS.values()])
    forces = torch.randn(
        state.positions.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    once = forces.clone()
    for constraint in state.constraints:
        constraint.adjust_forces(state, once)
    moved = state.positions + forces
    for constraint in state.constraints:
        constraint.adjust_positions(state, moved)
    torch.testing.assert_close(moved - state.positions, once)


def test_what_cannot_be_honoured_is_refused_before_anything_runs():
    atoms = crystal([Hookean(0, 1, 1.0, 2.0)])
    with pytest.raises(
        UnsupportedConstraintError, match=r"Hookean .* cannot be honoured; FixAtoms, FixScaled \(T T F"
    ):
        check_structure(atoms, None)
    both = crystal([FixScaled(1, mask=(True, False, False)), FixCartesian(1, mask=(False, False, True))])
    with pytest.raises(StructureError, match=r"atom 1 .* at once"):
        check_structure(both, None)
    molecule = crystal(FixScaled(1, mask=(True, False, False)))
    molecule.set_cell(None)
    molecule.pbc = False
    with pytest.raises(StructureError, match="no cell"):
        check_structure(molecule, None)


def test_mask_without_anything_held_is_no_constraint(tmp_path):
    """extxyz files with a move_mask give every atom a constraint, most of which hold nothing."""
    atoms = crystal()
    atoms.set_constraint(FixCartesian(2, mask=(False, False, True)))
    ase.io.write(tmp_path / "a.extxyz", atoms)
    back = ase.io.read(tmp_path / "a.extxyz")
    state = initialize_state(back)
    (constraint,) = state.constraints
    assert constraint.atom_idx.tolist() == [2]
