"""Spin-lattice dynamics: energy, momentum, heat bath, volume, temperatures, TorchSim."""

import numpy as np
import pytest
import torch
import torch_sim as ts
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms
from torch_sim.models.interface import ModelInterface

from mmace_sim.base.constants import ELECTRON_G
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim import MagneticMaceModel, initialize_state
from mmace_sim.torchsim.langevin_spins import MomentDynamics, gyromagnetic_ratio
from mmace_sim.torchsim.spin_dynamics import (
    FS_PER_TIME,
    drifts,
    kinetic_energy,
    spin_lattice_init,
    spin_lattice_step,
)
from mmace_sim.torchsim.spin_temperature import spin_temperature
from mmace_sim.units import BOLTZMANN_EV_PER_K

GAMMA = gyromagnetic_ratio(ELECTRON_G)
TIGHT = MomentDynamics(tolerance=1e-11, max_iterations=30)


class Nothing(ModelInterface):
    """Atoms and moments without any energy."""

    def __init__(self):
        super().__init__()
        self._device, self._dtype = torch.device("cpu"), torch.float64
        self._compute_forces = self._compute_stress = True
        self._memory_scales_with = "n_atoms"

    def forward(self, state, **_kwargs):
        zeros = torch.zeros_like(state.positions)
        return {
            "energy": zeros.new_zeros(state.n_systems),
            "forces": zeros,
            "stress": torch.zeros_like(state.cell),
            "magforces": zeros.clone(),
        }


@pytest.fixture(scope="module")
def toy():
    return MagneticMaceModel(HeisenbergModel(exchange=0.004, exchange_decay=1.5, landau=(-0.3, 0.05)))


def crystal(seed=0, tilt=0.4, repeat=1, length=2.0):
    atoms = bulk("Fe", "fcc", a=3.5355, cubic=True) * (repeat, repeat, repeat)
    rng = np.random.default_rng(seed)
    m = np.tile([0.0, 0.0, 1.0], (len(atoms), 1)) + tilt * rng.normal(size=(len(atoms), 3))
    set_magmoms(atoms, length * m / np.linalg.norm(m, axis=1, keepdims=True))
    return atoms


def simulate(state, model, n_steps, *, dt=1.0, kT=0.0, watch=None, **settings):
    for _ in range(n_steps):
        state = spin_lattice_step(state, model, dt=dt / FS_PER_TIME, kT=kT, **settings)
        if watch is not None:
            watch(state)
    return state


def test_energy_error_of_spins_and_lattice_is_of_second_order(toy):
    spread = {}
    for dt in (1.0, 0.5):
        energies = []
        state = spin_lattice_init(initialize_state([crystal()]), toy, kT=0.03)
        total = state.magnetic_moments.sum(dim=0)
        end = simulate(
            state,
            toy,
            int(30 / dt),
            dt=dt,
            moments=TIGHT,
            watch=lambda s, e=energies: e.append(float(s.energy + kinetic_energy(s))),
        )
        spread[dt] = np.std(energies)
        assert float((end.magnetic_moments.norm(dim=1) - 2.0).abs().max()) < 1e-12
        # 60 steps at most, each solved to 1e-11 μB
        torch.testing.assert_close(end.magnetic_moments.sum(dim=0), total, atol=1e-9, rtol=0)
        assert float((end.magnetic_moments - state.magnetic_moments).abs().max()) > 0.5
    assert 3.0 < spread[1.0] / spread[0.5] < 5.0


def test_energy_of_spins_and_lattice_does_not_drift(toy):
    energies = []
    state = spin_lattice_init(initialize_state([crystal()]), toy, kT=0.03)
    simulate(
        state,
        toy,
        240,
        moments=MomentDynamics(),
        watch=lambda s: energies.append(float(s.energy + kinetic_energy(s))),
    )
    late = np.array(energies[80:])
    assert abs(late[:80].mean() - late[80:].mean()) < late.std()
    assert 1000 * late.std() / 4 < 0.1  # meV/atom


def test_without_moments_and_bath_it_is_velocity_verlet(toy):
    ours = spin_lattice_init(initialize_state([crystal(), crystal(1)]), toy, kT=0.03)
    theirs = ts.nve_init(initialize_state(ours), toy, kT=0.03)
    torch.testing.assert_close(theirs.momenta, ours.momenta, atol=0, rtol=0)
    ours = simulate(ours, toy, 10)
    for _ in range(10):
        theirs = ts.nve_step(theirs, toy, dt=1.0 / FS_PER_TIME)
    torch.testing.assert_close(ours.positions, theirs.positions, atol=1e-12, rtol=0)


def test_a_system_has_the_same_noise_in_any_batch(toy):
    settings = {"kT": 0.03, "friction": 0.02, "moments": MomentDynamics(damping=0.2, tolerance=1e-12)}
    seeds = torch.tensor([11, 12])
    both = spin_lattice_init(initialize_state([crystal(), crystal(1)]), toy, kT=0.03, seed=seeds)
    alone = spin_lattice_init(initialize_state([crystal(1)]), toy, kT=0.03, seed=seeds[1:])
    both, alone = simulate(both, toy, 8, **settings), simulate(alone, toy, 8, **settings)
    torch.testing.assert_close(both[[1]].positions, alone.positions, atol=1e-11, rtol=0)
    torch.testing.assert_close(both[[1]].magnetic_moments, alone.magnetic_moments, atol=1e-10, rtol=0)
    assert float((both.positions[:4] - both.positions[4:]).abs().max()) > 1e-3


def test_torchsim_integrates_it_as_a_pair(toy):
    moments = MomentDynamics(damping=0.2)
    final = ts.integrate(
        system=initialize_state([crystal()]),
        model=toy,
        integrator=(spin_lattice_init, spin_lattice_step),
        n_steps=5,
        temperature=300.0,
        timestep=0.001,
        init_kwargs={"seed": 3},
        friction=0.01,
        moments=moments,
    )
    kT = 300.0 * ts.units.MetalUnits.temperature
    ours = spin_lattice_init(initialize_state([crystal()]), toy, kT=kT, seed=3)
    ours = simulate(ours, toy, 5, kT=kT, friction=0.01, moments=moments)
    torch.testing.assert_close(final.magnetic_moments, ours.magnetic_moments, atol=1e-9, rtol=0)
    assert int(final.n_steps) == 5


def test_total_momentum_is_removed_where_it_is_free():
    free, held, alone = crystal(), crystal(), Atoms("Fe", cell=[3.0] * 3, pbc=True)
    held.set_constraint(FixAtoms([0]))
    set_magmoms(alone, np.ones((1, 3)))
    state = initialize_state([free, held, alone])
    assert drifts(state).tolist() == [True, False, False]
    momenta = spin_lattice_init(state, Nothing(), kT=0.03).momenta
    totals = [momenta[state.system_idx == k].sum(dim=0).abs().max() for k in range(3)]
    assert totals[0] < 1e-12
    assert min(totals[1:]) > 0.1
    assert not momenta[4].any()


def test_g_factors_belong_to_elements():
    atoms = Atoms("FeCo", [[0, 0, 0], [2, 0, 0]])
    set_magmoms(atoms, np.ones((2, 3)))
    state = spin_lattice_init(initialize_state([atoms]), Nothing(), kT=0.0, g_factor={27: 2 * ELECTRON_G})
    assert state.gyromagnetic.tolist() == pytest.approx([GAMMA, 2 * GAMMA])


def test_volume_of_an_ideal_gas_fluctuates_as_it_must():
    """p(V) ∝ V^N exp(−PV/k_BT): ⟨V⟩ = (N + 1) k_BT/P, and a standard deviation of √(N + 1) k_BT/P."""
    n, n_systems, kT, volume = 8, 48, 0.03, 512.0
    gas = Atoms(f"Fe{n}", np.random.default_rng(0).uniform(0, 8, size=(n, 3)), cell=[8.0] * 3, pbc=True)
    set_magmoms(gas, np.ones((n, 3)))
    pressure = (n + 1) * kT / volume
    state = spin_lattice_init(initialize_state([gas] * n_systems), Nothing(), kT=kT)
    volumes = []
    simulate(
        state,
        Nothing(),
        500,
        dt=2.0,
        kT=kT,
        friction=0.05,
        pressure=pressure,
        pressure_time=40.0,
        compressibility=1.0 / pressure,
        watch=lambda s: volumes.append(torch.linalg.det(s.cell).numpy()),
    )
    late = np.array(volumes[100:])
    assert late.mean() == pytest.approx(volume, rel=0.05)
    assert late.std() == pytest.approx(volume / np.sqrt(n + 1), rel=0.12)


def test_curvature_over_directions_is_what_nurdin_and_schotte_have(toy):
    """For E linear in each direction, Σ∇²E = 2 Σ m·B without what depends on lengths."""
    atoms = crystal(tilt=0.8)
    state = initialize_state([atoms])
    rng = np.random.default_rng(0)
    samples = [
        float(spin_temperature(state, toy, noise=torch.as_tensor(rng.normal(size=(4, 3)))).curvature)
        for _ in range(200)
    ]
    m, a, b = state.magnetic_moments, -0.3, 0.05
    exchange = toy(state)["magforces"] + (2 * a + 4 * b * (m * m).sum(dim=1, keepdim=True)) * m
    error = np.std(samples) / np.sqrt(len(samples))
    assert error < 0.1 * abs(np.mean(samples))
    assert abs(np.mean(samples) - 2 * float((m * exchange).sum())) < 4 * error


def test_atoms_and_moments_come_to_the_temperature_of_the_bath(toy):
    kT = 300 * BOLTZMANN_EV_PER_K
    state = spin_lattice_init(initialize_state([crystal(k, repeat=2) for k in range(2)]), toy, kT=2 * kT)
    settings = {
        "kT": kT,
        "friction": 0.05,
        "moments": MomentDynamics(damping=0.5, tolerance=1e-3),
    }
    state = simulate(state, toy, 80, **settings)
    rng, kinetic, torque, curvature = np.random.default_rng(0), [], 0.0, 0.0
    for _ in range(30):
        state = simulate(state, toy, 6, **settings)
        kinetic.append(float(kinetic_energy(state).sum()))
        spin = spin_temperature(state, toy, noise=torch.as_tensor(rng.normal(size=(64, 3))))
        torque, curvature = torque + float(spin.torque.sum()), curvature + float(spin.curvature.sum())
    assert 2 * np.mean(kinetic) / (3 * 64) == pytest.approx(kT, rel=0.12)
    assert torque / curvature == pytest.approx(kT, rel=0.12)


def test_atoms_directions_and_lengths_come_to_the_temperature_of_the_bath():
    """Fluctuating lengths in wells of 1.6 eV/μB² at 400 K: ⟨E'²⟩ = k_BT ⟨E'' + 2E'/|m|⟩, derivatives along the moment."""
    kT, a, b = 400 * BOLTZMANN_EV_PER_K, -0.4, 0.05
    toy = MagneticMaceModel(HeisenbergModel(exchange=0.004, exchange_decay=1.5, landau=(a, b)))
    state = spin_lattice_init(initialize_state([crystal(k, repeat=2) for k in range(2)]), toy, kT=2 * kT)
    moments = MomentDynamics(damping=0.5, length_friction=0.05, tolerance=1e-4)
    settings = {"kT": kT, "friction": 0.05, "moments": moments}
    state = simulate(state, toy, 60, **settings)
    rng, kinetic, torque, curvature, radial = np.random.default_rng(0), [], 0.0, 0.0, []

    def watch(s):
        assert float(s.moment_residual.max()) <= moments.tolerance
        length = s.magnetic_moments.norm(dim=1)
        slope = -(s.magnetic_moments * s.magforces).sum(dim=1) / length
        second = 2 * a + 12 * b * length**2 + 2 * slope / length
        radial.append([float(slope.square().mean()), float(second.mean())])
        kinetic.append(float(kinetic_energy(s).sum()))

    for _ in range(25):
        state = simulate(state, toy, 6, watch=watch, **settings)
        spin = spin_temperature(state, toy, noise=torch.as_tensor(rng.normal(size=(64, 3))))
        torque, curvature = torque + float(spin.torque.sum()), curvature + float(spin.curvature.sum())
    assert 2 * np.mean(kinetic) / (3 * 64) == pytest.approx(kT, rel=0.12)
    assert torque / curvature == pytest.approx(kT, rel=0.12)
    square, second = np.mean(radial, axis=0)
    assert square / second == pytest.approx(kT, rel=0.15)
