"""Equations of motion of moments at fixed atoms against answers known on paper."""

import numpy as np
import pytest
import torch

from mmace_sim.base.constants import ELECTRON_G
from mmace_sim.errors import UnsupportedOptionError
from mmace_sim.torchsim.langevin_spins import (
    NOISE_COLUMNS,
    MomentDynamics,
    Spins,
    gyromagnetic_ratio,
    moment_step,
)
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
        noise = torch.as_tensor(generator.normal(size=(n, NOISE_COLUMNS)))
        m = moment_step(
            Spins(m, m.new_full((n,), gamma), kT, torch.zeros(n, dtype=torch.long), 1),
            fields,
            dynamics,
            dt=dt,
            noise=noise,
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


def one_step(m, fields, dynamics, noise, *, dt, kT):
    n = len(m)
    return moment_step(
        Spins(m, m.new_full((n,), GAMMA), m.new_full((n,), kT), torch.arange(n), n),
        fields,
        dynamics,
        dt=dt,
        noise=noise,
    ).magmoms


@pytest.mark.parametrize("dt", [0.5, 4.0, 40.0])
def test_harmonic_moments_have_exactly_the_width_of_the_temperature_at_any_time_step(dt):
    """One step is m' = ρ m + A n with the noise n: ⟨m_μ²⟩ = A²/(1 − ρ²) = k_BT/K."""
    stiffness, kT = 3.0, 0.04
    dynamics = MomentDynamics(length_friction=0.05, tolerance=1e-13, max_iterations=60)
    noise = torch.zeros(2, NOISE_COLUMNS, dtype=torch.float64)
    noise[1, 5] = 1.0
    m = torch.zeros(2, 3, dtype=torch.float64)
    m[0, 2] = 1.0
    kept, kicked = one_step(m, lambda x: -stiffness * x, dynamics, noise, dt=dt, kT=kT)[:, 2].tolist()
    assert kicked**2 / (1 - kept**2) == pytest.approx(kT / stiffness, rel=1e-9)


def stationary_length(slope, kT, dt, longest, n=20):
    """Mean length under the stationary distribution of the step itself, by collocation instead of samples.

    Functions of the length are polynomials; the average of one over a step is a quadrature over the noise.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    grid = np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 3)
    weight = np.einsum("i,j,k->ijk", weights, weights, weights).ravel() / weights.sum() ** 3
    noise = torch.zeros(len(grid), NOISE_COLUMNS, dtype=torch.float64)
    noise[:, 3:6] = torch.as_tensor(grid)
    dynamics = MomentDynamics(length_friction=0.05, tolerance=1e-10, max_iterations=60)
    angles = np.pi * (np.arange(n) + 0.5) / n
    lengths, after = longest * (np.cos(angles) + 1) / 2, np.zeros((n, n))

    def fields(m):
        r = m.norm(dim=1, keepdim=True)
        return -slope(r) * m / r

    for row, length in enumerate(lengths):
        start = torch.tensor([[0.0, 0.0, length]], dtype=torch.float64).repeat(len(grid), 1)
        new = one_step(start, fields, dynamics, noise, dt=dt, kT=kT).norm(dim=1)
        basis = np.polynomial.chebyshev.chebvander(2 * new.numpy() / longest - 1, n - 1)
        after[row] = weight @ basis
    change = after - np.polynomial.chebyshev.chebvander(np.cos(angles), n - 1)
    stationary = np.linalg.svd(change.T)[2][-1]
    return float(stationary @ lengths / stationary.sum())


def test_the_distribution_of_lengths_is_of_second_order_in_the_time_step():
    """E = 3/8 (m² − 1)², ∂²E/∂m² = 3 eV/μB² at the minimum, 1000 K."""
    kT = 1000 * BOLTZMANN_EV_PER_K
    grid = np.linspace(0.0, 2.5, 5001)
    weight = grid**2 * np.exp(-0.375 * (grid**2 - 1) ** 2 / kT)
    exact = (weight * grid).sum() / weight.sum()
    error = {
        dt: stationary_length(lambda r: 1.5 * (r**2 - 1) * r, kT, dt, longest=2.2) - exact
        for dt in (4.0, 2.0)
    }
    assert abs(error[2.0]) < 1e-4 * exact
    assert 3.5 < error[4.0] / error[2.0] < 5.0


@pytest.mark.parametrize("timestep", [1.0, 2.0])
def test_free_moments_in_stiff_wells_are_solved_at_every_step(timestep):
    """54 moments in E = 3/2 (|m| − 2.2)², 1000 K: what holds a length does not turn moments, nor hinder the iteration."""
    kT, residuals, lengths = 1000 * BOLTZMANN_EV_PER_K, [], []
    dynamics = MomentDynamics(damping=0.1, length_friction=0.05)
    gamma, bath = (torch.full((216,), x, dtype=torch.float64) for x in (GAMMA, kT))
    m, generator = random_moments(4 * 54, length=2.2), np.random.default_rng(0)

    def fields(x):
        r = x.norm(dim=1, keepdim=True)
        return -3.0 * (r - 2.2) * x / r

    for _ in range(200):
        step = moment_step(
            Spins(m, gamma, bath, torch.arange(4).repeat_interleave(54), 4),
            fields,
            dynamics,
            dt=timestep,
            noise=torch.as_tensor(generator.normal(size=(216, NOISE_COLUMNS))),
        )
        m = step.magmoms
        residuals.append(float(step.residual.max()))
        lengths.append(m.norm(dim=1).numpy())
        assert step.n_evaluations <= 14
    assert max(residuals) <= dynamics.tolerance
    grid = np.linspace(0.0, 4.4, 4401)
    weight = grid**2 * np.exp(-1.5 * (grid - 2.2) ** 2 / kT)
    mean = (weight * grid).sum() / weight.sum()
    spread = np.sqrt((weight * (grid - mean) ** 2).sum() / weight.sum())
    assert np.mean(lengths[60:]) == pytest.approx(mean, rel=0.006)
    assert np.std(lengths[60:]) == pytest.approx(spread, rel=0.03)


def test_a_dimer_of_fluctuating_moments_has_the_lengths_and_the_angle_of_boltzmann():
    """E = Σ 3/8 (m² − 1)² − J m₁·m₂: p(r₁, r₂) ∝ r₁² r₂² exp(−Σ E/k_BT) sinh(x)/x, x = J r₁ r₂/k_BT, ⟨cos⟩ = coth x − 1/x."""
    kT, exchange, n = 600 * BOLTZMANN_EV_PER_K, 0.1, 400
    r = np.linspace(1e-3, 2.2, 400)
    a, b = np.meshgrid(r, r, indexing="ij")
    x = exchange * a * b / kT
    weight = a**2 * b**2 * np.exp(-0.375 * ((a**2 - 1) ** 2 + (b**2 - 1) ** 2) / kT) * np.sinh(x) / x
    pair = torch.arange(2 * n).reshape(n, 2).flip(1).reshape(-1)
    lengths, cosines = [], []

    def fields(m):
        return -1.5 * ((m * m).sum(dim=1, keepdim=True) - 1) * m + exchange * m[pair]

    def watch(k, m):
        if k >= 40:
            e = m / m.norm(dim=1, keepdim=True)
            lengths.append(m.norm(dim=1).mean().item())
            cosines.append((e * e[pair]).sum(dim=1).mean().item())

    dynamics = MomentDynamics(damping=0.3, length_friction=0.05, tolerance=1e-4)
    evolve(random_moments(2 * n), fields, dynamics, 120, 1.5, kT=kT, watch=watch)
    assert np.mean(lengths) == pytest.approx((weight * a).sum() / weight.sum(), rel=0.004)
    assert np.mean(cosines) == pytest.approx(
        (weight * (1 / np.tanh(x) - 1 / x)).sum() / weight.sum(), abs=0.025
    )


def test_random_rotations_spread_directions_as_diffusion_does():
    """⟨cos θ⟩ = exp(−s) with the variance s per component, to s³; noise from the nodes of a quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    noise = np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 3)
    weight = np.einsum("i,j,k->ijk", weights, weights, weights).ravel() / weights.sum() ** 3
    numbers = torch.zeros(len(noise), NOISE_COLUMNS, dtype=torch.float64)
    numbers[:, :3] = torch.as_tensor(noise)
    alpha, length, kT, dt = 0.5, 2.0, 0.1, 2.0
    s = GAMMA / (1 + alpha**2) * alpha / length * kT * dt  # half a step
    m = torch.tensor([[0.0, 0.0, length]], dtype=torch.float64).repeat(len(noise), 1)
    turned = one_step(m, torch.zeros_like, MomentDynamics(damping=alpha), numbers, dt=dt, kT=kT)
    assert 0.1 < s < 0.15
    assert weight @ turned[:, 2].numpy() / length == pytest.approx(np.exp(-s), abs=0.1 * s**2 / 12)


@pytest.mark.parametrize(
    "settings", [{"solver": "euler"}, {"damping": -0.1}, {"tolerance": 0.0}, {"length_friction": -1.0}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UnsupportedOptionError, match="solver"):
        MomentDynamics(**settings)
