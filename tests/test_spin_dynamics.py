"""Equations of motion of moments and atoms against answers known on paper."""

import numpy as np
import pytest
import torch
import torch_sim as ts
from ase import Atoms
from ase.build import bulk
from torch_sim.models.interface import ModelInterface

from mmace_sim.errors import UnsupportedOptionError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim import MagneticMaceModel, initialize_state
from mmace_sim.torchsim.langevin_spins import ELECTRON_G, MomentDynamics, gyromagnetic_ratio, moment_step
from mmace_sim.torchsim.spin_dynamics import (
    FS_PER_TIME,
    kinetic_energy,
    spin_lattice_init,
    spin_lattice_step,
)
from mmace_sim.torchsim.spin_temperature import spin_temperature
from mmace_sim.units import BOHR_MAGNETON_EV_PER_T, BOLTZMANN_EV_PER_K

GAMMA = gyromagnetic_ratio(ELECTRON_G)
TIGHT = MomentDynamics(tolerance=1e-11, max_iterations=30)
GHZ_PER_T = 28.02495  # g μB / h
SIB = MomentDynamics(solver="sib")


def random_moments(n, seed=0, length=1.0):
    m = np.random.default_rng(seed).normal(size=(n, 3))
    return torch.as_tensor(length * m / np.linalg.norm(m, axis=1, keepdims=True))


def evolve(m, fields, dynamics, n_steps, dt=1.0, kT=0.0, gamma=GAMMA, seed=0, watch=None):
    """Moments after steps at fixed atoms, all in one system."""
    n, generator = len(m), np.random.default_rng(seed)
    kT = torch.as_tensor(kT, dtype=m.dtype).expand(n)
    for k in range(n_steps):
        noise = torch.as_tensor(generator.normal(size=(n, 9)))
        m = moment_step(
            m,
            fields,
            dynamics,
            dt=dt,
            kT=kT,
            gamma=m.new_full((n,), gamma),
            noise=noise,
            system_idx=torch.zeros(n, dtype=torch.long),
            n_systems=1,
        ).magmoms
        if watch is not None:
            watch(k, m)
    return m


def phases(m0, fields, dynamics, n_steps, dt):
    """Angle by which the first moment has turned about z after every step, in rad."""
    angles = []

    def watch(_, m):
        angles.append(float(torch.atan2(m[0, 1], m[0, 0])))

    evolve(m0, fields, dynamics, n_steps, dt, watch=watch)
    return np.unwrap(angles)


@pytest.mark.parametrize("dynamics", [TIGHT, SIB], ids=["midpoint", "sib"])
def test_a_moment_precesses_counter_clockwise_at_28_ghz_per_tesla(dynamics):
    tesla, dt = 200.0, 0.5
    field = torch.tensor([[0.0, 0.0, tesla * BOHR_MAGNETON_EV_PER_T]], dtype=torch.float64)
    start = torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64)
    angles = phases(start, lambda _: field, dynamics, 80, dt)
    turns_per_fs = (angles[-1] - angles[0]) / (2 * np.pi * dt * (len(angles) - 1))
    assert 1e6 * turns_per_fs / tesla == pytest.approx(GHZ_PER_T, rel=1e-4)


def test_a_dimer_turns_about_its_total_moment():
    """E = −J m₁·m₂: both turn about M = m₁ + m₂ at γ J |M|."""
    exchange, dt, n_steps = 0.01, 0.5, 100
    m = torch.tensor([[0.6, 0.0, 0.8], [-0.6, 0.0, 0.8]], dtype=torch.float64)
    total, seen = m.sum(dim=0), []

    def watch(_, new):
        seen.append(float(torch.atan2(new[0, 1], new[0, 0])))
        torch.testing.assert_close(new.sum(dim=0), total, atol=1e-10, rtol=0)

    evolve(m, lambda x: exchange * x.flip(0), TIGHT, n_steps, dt, watch=watch)
    angles = np.unwrap(seen)
    rate = (angles[-1] - angles[0]) / (dt * (n_steps - 1))
    assert rate == pytest.approx(GAMMA * exchange * float(total.norm()), rel=1e-4)


def test_damping_turns_a_moment_to_the_field_at_the_known_rate():
    """tan(θ/2) decays as exp(−α γ B t/(1 + α²))."""
    alpha, dt, n_steps, b = 0.2, 0.5, 80, 0.02
    field = torch.tensor([[0.0, 0.0, b]], dtype=torch.float64)
    m = evolve(
        torch.tensor([[2.0, 0.0, 0.0]], dtype=torch.float64),
        lambda _: field,
        MomentDynamics(damping=alpha, tolerance=1e-13),
        n_steps,
        dt,
    )
    expected = np.exp(-alpha * GAMMA * b * n_steps * dt / (1 + alpha**2))
    assert np.tan(0.5 * np.arccos(float(m[0, 2]) / 2.0)) == pytest.approx(expected, rel=1e-4)


def test_the_midpoint_is_reversible_and_keeps_lengths():
    matrix = torch.as_tensor(np.random.default_rng(3).normal(size=(6, 6)) * 0.02)
    matrix = matrix + matrix.T

    def fields(m):
        return matrix @ m

    start = random_moments(6, length=2.0)
    there = evolve(start, fields, TIGHT, 25)
    assert float((there - start).abs().max()) > 0.5
    assert float((there.norm(dim=1) - 2.0).abs().max()) < 1e-12
    back = evolve(there, fields, TIGHT, 25, gamma=-GAMMA)
    torch.testing.assert_close(back, start, atol=1e-9, rtol=0)


def test_sib_keeps_lengths_but_gains_energy_where_the_midpoint_does_not():
    matrix = torch.as_tensor(np.random.default_rng(4).normal(size=(8, 8)) * 0.01)
    matrix = matrix + matrix.T
    start = random_moments(8, length=2.0)

    def energy(m):
        return float(-0.5 * (m * (matrix @ m)).sum())

    drift = {}
    for name, dynamics in (("midpoint", TIGHT), ("sib", SIB)):
        end = evolve(start, lambda m: matrix @ m, dynamics, 150)
        assert float((end.norm(dim=1) - 2.0).abs().max()) < 1e-12
        drift[name] = abs(energy(end) - energy(start))
    assert drift["midpoint"] < 0.2 * drift["sib"]


def test_paramagnet_in_a_field_follows_the_langevin_function():
    """⟨cos θ⟩ = coth x − 1/x, x = |m| B/k_BT; and the temperature from torques is that of the bath."""
    n, b, dynamics = 800, 0.05, MomentDynamics(damping=0.5, tolerance=1e-3)
    kT = torch.tensor([0.1, 0.025, 0.01], dtype=torch.float64).repeat_interleave(n)
    field = torch.tensor([[0.0, 0.0, b]], dtype=torch.float64).expand(3 * n, 3)
    cosines, torques = [], []

    def watch(k, m):
        if k >= 100:
            cosines.append(m[:, 2].reshape(3, n).mean(dim=1).numpy())
            torques.append(torch.linalg.cross(m, field).square().sum(dim=1).reshape(3, n).mean(dim=1).numpy())

    evolve(random_moments(3 * n), lambda _: field, dynamics, 200, kT=kT, watch=watch)
    x = b / np.array([0.1, 0.025, 0.01])
    cosine = np.mean(cosines, axis=0)
    np.testing.assert_allclose(cosine, 1 / np.tanh(x) - 1 / x, atol=0.018)
    np.testing.assert_allclose(np.mean(torques, axis=0) / (2 * b * cosine), [0.1, 0.025, 0.01], rtol=0.06)


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_lengths_sample_the_boltzmann_distribution_in_three_dimensions(damping):
    """p(|m|) ∝ |m|² exp(−(a m² + b m⁴)/k_BT), by quadrature."""
    a, b, kT = -0.4, 0.05, 0.04

    def fields(m):
        return -(2 * a + 4 * b * (m * m).sum(dim=1, keepdim=True)) * m

    lengths = []
    evolve(
        random_moments(1500, length=2.0),
        fields,
        MomentDynamics(damping=damping, length_friction=0.08, tolerance=1e-3),
        120,
        kT=kT,
        watch=lambda k, m: lengths.append(m.norm(dim=1).numpy()) if k >= 40 else None,
    )
    grid = np.linspace(0.0, 4.0, 4001)
    weight = grid**2 * np.exp(-(a * grid**2 + b * grid**4 - a * 4 - b * 16) / kT)
    mean = (weight * grid).sum() / weight.sum()
    spread = np.sqrt((weight * (grid - mean) ** 2).sum() / weight.sum())
    assert np.mean(lengths) == pytest.approx(mean, rel=0.006)
    assert np.std(lengths) == pytest.approx(spread, rel=0.04)


@pytest.mark.parametrize(
    "settings", [{"solver": "euler"}, {"damping": -0.1}, {"tolerance": 0.0}, {"length_friction": -1.0}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UnsupportedOptionError, match="solver"):
        MomentDynamics(**settings)


# atoms and moments


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
    field_model = MagneticMaceModel(toy.model, compute_forces=False, compute_stress=False)
    settings = {
        "kT": kT,
        "friction": 0.05,
        "moments": MomentDynamics(damping=0.5, tolerance=1e-3),
        "field_model": field_model,
    }
    state = simulate(state, toy, 80, **settings)
    rng, kinetic, torque, curvature = np.random.default_rng(0), [], 0.0, 0.0
    for _ in range(30):
        state = simulate(state, toy, 6, **settings)
        kinetic.append(float(kinetic_energy(state).sum()))
        spin = spin_temperature(state, field_model, noise=torch.as_tensor(rng.normal(size=(64, 3))))
        torque, curvature = torque + float(spin.torque.sum()), curvature + float(spin.curvature.sum())
    assert 2 * np.mean(kinetic) / (3 * 64) == pytest.approx(kT, rel=0.12)
    assert torque / curvature == pytest.approx(kT, rel=0.12)
