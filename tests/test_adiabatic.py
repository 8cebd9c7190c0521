"""Moments that follow the atoms in molecular dynamics: energy, tolerance, number of evaluations, trajectories."""

import numpy as np
import pytest
import torch
import torch_sim as ts
from ase.build import bulk
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from counting import Counting

from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim import AdiabaticModel, initialize_state

TOL = 1e-3


def crystal(temperature=300.0, seed=0, m=(0.0, 0.0, 1.9), tilt=0.0):
    atoms = bulk("Fe", "fcc", a=3.55, cubic=True)
    rng = np.random.default_rng(seed)
    set_magmoms(atoms, np.tile(m, (4, 1)) + tilt * rng.normal(size=(4, 3)))
    thermalize_momenta(atoms, temperature, rng=rng)
    Stationary(atoms)
    return atoms


@pytest.fixture
def toy():
    return Counting(HeisenbergModel(exchange=0.03, exchange_decay=1.5))


def run(model, structures, *, n_steps=60, integrator=ts.Integrator.nve, reporter=None, **kwargs):
    """Total energies (n_steps, n_systems) in eV and the largest magforce of each step."""
    energies, magforces = [], []
    init, step = ts.INTEGRATOR_REGISTRY[integrator]

    def recorded(state, model, **arguments):
        state = step(state, model, **arguments)
        kinetic = ts.calc_kinetic_energy(
            masses=state.masses, momenta=state.momenta, system_idx=state.system_idx
        )
        energies.append((state.energy + kinetic).numpy().copy())
        magforces.append(float(state.magforces.norm(dim=1).max()))
        return state

    final = ts.integrate(
        system=initialize_state(structures),
        model=model,
        integrator=(init, recorded),
        n_steps=n_steps,
        temperature=300.0,
        timestep=0.001,
        trajectory_reporter=reporter,
        **kwargs,
    )
    return np.array(energies), np.array(magforces), final


def test_adiabatic_dynamics_conserves_the_energy(toy):
    structures = [crystal(), crystal(seed=1, tilt=0.2)]
    fixed, largest, _ = run(toy, structures)
    assert largest.max() > 10 * TOL  # at fixed moments there is something to relax
    energies, largest, final = run(AdiabaticModel(toy, magforce_tol=TOL), structures)
    assert largest.max() <= TOL
    noise = 1000 / 4 * np.ptp(fixed, axis=0)  # meV/atom, of the integrator alone
    assert (1000 / 4 * np.ptp(energies, axis=0) < noise + 0.05).all()
    lengths = final.magnetic_moments.norm(dim=1)
    assert lengths.max() - lengths.min() > 5e-4  # the moments did follow
    assert final.magnetic_moments.dtype == torch.float64


def test_along_a_trajectory_two_evaluations_are_enough(toy):
    counts = []
    for n_steps in (30, 70):
        before = toy.n_calls
        run(AdiabaticModel(toy, magforce_tol=TOL), [crystal(tilt=0.2)], n_steps=n_steps)
        counts.append(toy.n_calls - before)
    assert (counts[1] - counts[0]) / 40 < 2.5


def test_following_gives_what_starting_afresh_gives(toy):
    tight = 1e-7
    follower = AdiabaticModel(toy, magforce_tol=tight)
    state = initialize_state([crystal(tilt=0.2), crystal(seed=2)])
    direction = torch.as_tensor(np.random.default_rng(3).normal(size=(8, 3)))
    for _ in range(6):
        state.magnetic_moments = follower(state)["magnetic_moments"]
        state.positions = state.positions + 0.01 * direction
    out, fresh = follower(state), AdiabaticModel(toy, magforce_tol=tight)(state)
    for key in ("energy", "forces", "stress", "magnetic_moments"):
        torch.testing.assert_close(out[key], fresh[key], atol=1e-5, rtol=0)


def test_another_batch_with_the_same_moments_starts_afresh(toy):
    model = AdiabaticModel(toy, magforce_tol=TOL)
    state = initialize_state([crystal()])
    out = model(state)
    other = initialize_state([crystal()[:2], crystal()[2:]])
    other.magnetic_moments = out["magnetic_moments"].clone()
    assert model(other)["energy"].shape == (2,)


@pytest.mark.parametrize("constraint", ["collinear", "fix_magnitude"])
def test_constraints_hold_along_a_trajectory(toy, constraint):
    start = crystal(tilt=0.3 * (constraint == "fix_magnitude"))
    _, largest, final = run(AdiabaticModel(toy, magforce_tol=TOL, **{constraint: True}), [start], n_steps=30)
    assert largest.max() <= TOL
    if constraint == "collinear":
        assert final.magnetic_moments[:, :2].abs().max() < 1e-12
    else:
        before = np.linalg.norm(start.arrays["initial_magmoms"], axis=1)
        np.testing.assert_allclose(final.magnetic_moments.norm(dim=1).numpy(), before, rtol=1e-12)


def test_too_few_steps_are_told_by_the_magforces(toy):
    out = AdiabaticModel(toy, magforce_tol=1e-9, max_steps=1)(initialize_state([crystal(tilt=0.3)]))
    assert out["magforces"].abs().max() > 1e-9


def test_a_trajectory_keeps_moments_in_full_precision(toy, tmp_path):
    files = [tmp_path / "a.h5", tmp_path / "b.h5"]
    reporter = ts.TrajectoryReporter(
        files,
        state_frequency=5,
        prop_calculators={5: {"magnetic_moments": lambda state: state.magnetic_moments}},
        trajectory_kwargs={"coerce_to_float32": False},
    )
    model = AdiabaticModel(toy, magforce_tol=TOL)
    _, _, final = run(
        model,
        [crystal(), crystal(seed=1)],
        n_steps=10,
        integrator=ts.Integrator.nvt_langevin,
        reporter=reporter,
    )
    for k, file in enumerate(files):
        with ts.TorchSimTrajectory(file, mode="r") as trajectory:
            moments = trajectory.get_array("magnetic_moments")
            positions = trajectory.get_array("positions")
        assert moments.dtype == positions.dtype == np.float64
        assert moments.shape == positions.shape
        rows = (final.system_idx == k).numpy()
        np.testing.assert_array_equal(moments[-1], final.magnetic_moments.numpy()[rows])
