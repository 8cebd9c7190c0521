"""The optimiser: ASE's FIRE where ASE can follow, known minima where it cannot."""

import numpy as np
import pytest
import torch
import torch_sim as ts
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.optimize import FIRE

from mmace_sim.calculator import MMACECalculator
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim import (
    AdiabaticModel,
    MagneticMaceModel,
    initialize_state,
    magnetic_fire_init,
    magnetic_fire_step,
)
from mmace_sim.torchsim.fire import DegreesOfFreedom


def fcc(a=3.6, m=(0.2, 0.1, 1.9), rattle=0.05, seed=1):
    atoms = bulk("Fe", "fcc", a=a, cubic=True)
    atoms.rattle(rattle, seed=seed)
    set_magmoms(atoms, np.tile(m, (4, 1)) * np.array([1, 0.8, 1.1, 0.9])[:, None])
    return atoms


@pytest.fixture
def toy():
    return MagneticMaceModel(HeisenbergModel(exchange_decay=0.8))


def test_fixed_cell_and_moments_is_ase_fire_step_by_step(toy):
    atoms = fcc()
    state = magnetic_fire_init(
        initialize_state([atoms]),
        toy,
        freedom=DegreesOfFreedom(relax_cell=False, relax_moments=False),
    )
    atoms.calc = MMACECalculator(model=toy.model)
    optimizer = FIRE(atoms, logfile=None, dt=0.1, maxstep=0.2, dtmax=1.0, downhill_check=False)
    for _ in range(25):
        state = magnetic_fire_step(state, toy)
        optimizer.step()
        assert np.abs(state.positions.numpy() - atoms.positions).max() < 1e-11


def test_joint_relaxation_finds_the_known_minimum():
    model = HeisenbergModel()
    toy = MagneticMaceModel(model)
    state = magnetic_fire_init(initialize_state([fcc(a=3.75)]), toy)
    for _ in range(400):
        state = magnetic_fire_step(state, toy)
    assert state.energy.item() / 4 == pytest.approx(model.relaxed_energy(12), abs=1e-6)
    lengths = state.magnetic_moments.norm(dim=1)
    assert torch.allclose(lengths, torch.full_like(lengths, model.relaxed_moment(12)), atol=1e-3)
    volume = torch.linalg.det(state.cell).item()
    assert (4 * volume / 4) ** (1 / 3) == pytest.approx(2.5 * 2**0.5, abs=1e-3)


def test_systems_of_a_batch_do_not_see_each_other(toy):
    structures = [fcc(a=3.5 + 0.05 * k, seed=k) for k in range(4)]
    together = magnetic_fire_init(initialize_state(structures), toy)
    alone = magnetic_fire_init(initialize_state(structures[2:3]), toy)
    for _ in range(40):
        together, alone = magnetic_fire_step(together, toy), magnetic_fire_step(alone, toy)
    assert torch.allclose(together[2].positions, alone.positions, atol=1e-10, rtol=0)
    assert torch.allclose(together[2].magnetic_moments, alone.magnetic_moments, atol=1e-10, rtol=0)


def test_inactive_systems_stay_exactly_where_they_are(toy):
    structures = [fcc(), fcc(a=3.7)]
    state = magnetic_fire_init(initialize_state(structures), toy)
    state = magnetic_fire_step(state, toy, active=torch.tensor([False, True]))
    assert np.array_equal(state[0].positions.numpy(), structures[0].positions)
    assert state.n_steps.tolist() == [0, 1]


def test_collinear_moments_keep_their_axis_and_fixed_ones_their_length(toy):
    atoms = fcc()
    axis = np.array([0.2, 0.1, 1.9]) / np.linalg.norm([0.2, 0.1, 1.9])
    lengths = np.linalg.norm(atoms.get_initial_magnetic_moments(), axis=1)
    collinear = magnetic_fire_init(initialize_state([atoms]), toy, freedom=DegreesOfFreedom(collinear=True))
    fixed = magnetic_fire_init(initialize_state([atoms]), toy, freedom=DegreesOfFreedom(fix_magnitude=True))
    for _ in range(20):
        collinear, fixed = magnetic_fire_step(collinear, toy), magnetic_fire_step(fixed, toy)
    assert np.abs(np.cross(collinear.magnetic_moments.numpy(), axis)).max() < 1e-12
    assert np.abs(fixed.magnetic_moments.norm(dim=1).numpy() - lengths).max() < 1e-12


def test_fixed_atoms_stay_and_the_rest_relaxes(toy):
    atoms = fcc(rattle=0.1)
    atoms.set_constraint(FixAtoms([0]))
    state = magnetic_fire_init(initialize_state([atoms]), toy, freedom=DegreesOfFreedom(relax_cell=False))
    for _ in range(20):
        state = magnetic_fire_step(state, toy)
    assert np.array_equal(state.positions[0].numpy(), atoms.positions[0])
    assert np.abs(state.positions[1:].numpy() - atoms.positions[1:]).max() > 1e-2


def test_works_inside_ts_optimize(toy):
    final = ts.optimize(
        initialize_state([fcc(), fcc(a=3.7)]),
        toy,
        optimizer=(magnetic_fire_init, magnetic_fire_step),
        max_steps=300,
        convergence_fn=lambda state, _: state.forces.norm(dim=1).max() < 1e-3 * torch.ones(2),
    )
    assert final.magnetic_moments.shape == (8, 3)
    assert final.forces.abs().max() < 5e-3


def test_adiabatic_moments_follow_and_give_the_derivatives_of_the_relaxed_energy(toy):
    adiabatic = AdiabaticModel(toy, magforce_tol=1e-8, max_steps=500)
    state = initialize_state([fcc(), fcc(a=3.7)])
    out = adiabatic(state)
    assert out["magforces"].abs().max() < 1e-8
    shifted = []
    for sign in (1, -1):
        moved = state.clone()
        moved.positions[1, 0] += sign * 1e-3
        shifted.append(adiabatic(moved)["energy"][0].item())
    slope = (shifted[1] - shifted[0]) / 2e-3
    assert slope == pytest.approx(out["forces"][1, 0].item(), abs=1e-5)


def test_a_stock_optimiser_relaxes_adiabatically(toy):
    final = ts.optimize(
        initialize_state([fcc(a=3.65)]),
        AdiabaticModel(toy),
        optimizer=ts.Optimizer.fire,
        init_kwargs={"cell_filter": ts.CellFilter.frechet},
        convergence_fn=ts.generate_force_convergence_fn(1e-3, include_cell_forces=True),
        max_steps=300,
    )
    assert toy(final)["magforces"].abs().max() < 2e-3
