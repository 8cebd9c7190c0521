"""Exchange beyond Heisenberg models: biquadratic and chiral terms, soft lengths, against formulas."""

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.optimize import minimize
from test_exchange import crystal_without_symmetry, iron

from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.model.derivatives import evaluate
from mmace_sim.properties.exchange import Exchange
from mmace_sim.properties.exchange.hessian import transverse_frame
from mmace_sim.properties.relax.relaxation import Status
from mmace_sim.structures.lattice_points import cell_points
from mmace_sim.testing import HeisenbergModel, SpinModel
from mmace_sim.testing.toys import shell_sum

A = 2.5
J, B = 0.03, 0.004
NO_SPRINGS = (0.0, 1.0, 2.5)


def simple_cubic(moment=2.0):
    atoms = Atoms("Fe", cell=A * np.eye(3), pbc=True)
    set_magmoms(atoms, [moment])
    return atoms


def biquadratic(distance):
    return SpinModel(
        exchange_shells=[(distance, J)],
        biquadratic_shells=[(distance, B)],
        unit_vectors=True,
        morse=NO_SPRINGS,
    )


def run(model, atoms, **settings):
    (result,) = Exchange(model, **settings).run([atoms])
    assert result.status is Status.CONVERGED, result.message
    return result


@pytest.mark.parametrize("angle", [45.0, 90.0])
def test_biquadratic_exchange_in_a_ferromagnet(angle):
    """Derivatives see J' + 2B, a finite angle J' + 2B cos²θ, spirals put ½ B sin²θ at twice the distance."""
    result = run(biquadratic(A), simple_cubic(), cutoff=2 * A + 0.1, angle=angle, magmoms="fixed")
    distances, cosine = result.pairs.distances, np.cos(np.radians(angle))
    near, double = np.abs(distances - A) < 1e-6, np.abs(distances - 2 * A) < 1e-6
    tilted = J + 2 * B * cosine**2
    np.testing.assert_allclose(result.isotropic("derivatives"), np.where(near, J + 2 * B, 0), atol=1e-9)
    np.testing.assert_allclose(result.isotropic("four-state"), np.where(near, tilted, 0), atol=1e-9)
    spirals = np.where(near, tilted, np.where(double, 0.5 * B * (1 - cosine**2), 0))
    np.testing.assert_allclose(result.isotropic("spirals"), spirals, atol=1e-8)


@pytest.mark.parametrize("angle", [10.0, 90.0])
def test_biquadratic_exchange_in_an_antiferromagnet(angle):
    model = biquadratic(np.sqrt(3) / 2 * 2.87)
    routes = ("derivatives", "four-state")
    result = run(model, iron((2.0, -2.0)), cutoff=2.6, angle=angle, magmoms="fixed", routes=routes)
    np.testing.assert_allclose(result.isotropic("derivatives"), J - 2 * B, atol=1e-9)
    np.testing.assert_allclose(
        result.isotropic("four-state"), J - 2 * B * np.cos(np.radians(angle)) ** 2, atol=1e-9
    )


def test_chiral_and_biquadratic_exchange_without_symmetry():
    shells = {"exchange_shells": [(2.6, J)], "biquadratic_shells": [(2.7, B)], "dmi_shells": [(2.65, 0.006)]}
    model = SpinModel(unit_vectors=True, morse=NO_SPRINGS, elements=(26, 27), **shells)
    routes = ("derivatives", "four-state")
    result = run(model, crystal_without_symmetry(), cutoff=3.3, magmoms="fixed", routes=routes, angle=90.0)
    pairs, lattice = result.pairs, result.lattice
    lengths = torch.as_tensor(pairs.distances)
    signs = lattice.signs[pairs.first] * lattice.signs[pairs.second]
    exchange, quadratic, chiral = (shell_sum(values, lengths).numpy() for values in shells.values())
    known = chiral[:, None] * pairs.vectors / pairs.distances[:, None]
    assert np.abs(known).max() > 0.001
    assert np.abs(quadratic).max() > 0.001
    for route, share in (("derivatives", 2 * signs), ("four-state", 0)):
        np.testing.assert_allclose(result.dmi(route), known, atol=1e-9)
        np.testing.assert_allclose(result.isotropic(route), exchange + share * quadratic, atol=1e-9)


SOFT = {
    "exchange_shells": [(A, 0.012), (np.sqrt(2) * A, -0.003)],
    "landau": (-0.2, 0.02),
    "morse": NO_SPRINGS,
}


def mean_cosine(vectors, wave, cell, angle):
    """Mean of e_0·e_R over a shell for a cone."""
    phases = 2 * np.pi * vectors @ np.linalg.inv(cell) @ wave
    return np.cos(angle) ** 2 + np.sin(angle) ** 2 * np.cos(phases).mean()


@pytest.mark.parametrize("angle", [5.0, 60.0])
def test_spirals_with_soft_lengths_have_their_closed_form(angle):
    """E(q) = E0 − (h_q − a)²/(4b): J' is m² J at small angles, and smaller where the length may give way."""
    model = HeisenbergModel(**SOFT)
    a, b = SOFT["landau"]
    settings = {"cutoff": 3.6, "angle": angle, "routes": ["spirals"], "magforce_tol": 1e-9}
    result = run(model, simple_cubic(), lengths="relaxed", **settings)
    pairs, cell = result.pairs, result.lattice.cell
    shells = [
        pairs.vectors[np.abs(pairs.distances - distance) < 1e-6] for distance, _ in SOFT["exchange_shells"]
    ]

    def field(wave):
        cosines = [mean_cosine(vectors, wave, cell, np.radians(angle)) for vectors in shells]
        return 0.5 * sum(
            len(v) * value * c
            for v, (_, value), c in zip(shells, SOFT["exchange_shells"], cosines, strict=True)
        )

    square = (field(np.zeros(3)) - a) / (2 * b)
    assert result.lattice.lengths[0] ** 2 == pytest.approx(square, rel=1e-6)
    waves, energies = result.spirals
    known = np.array([-8.0 - (field(wave) - a) ** 2 / (4 * b) for wave in waves])
    assert np.ptp(known) > 1e-5
    np.testing.assert_allclose(energies, known, atol=1e-10)
    rigid = run(model, simple_cubic(), **settings)
    rigid_known = [square * (field(np.zeros(3)) - field(wave)) for wave in rigid.spirals[0]]
    np.testing.assert_allclose(rigid.spirals[1] - rigid.spirals[1].min(), rigid_known, atol=1e-9)
    small = angle < 10
    near = pairs.distances < A + 0.1
    renormalised = result.isotropic()[near].mean() / (square * 0.012)
    assert (abs(renormalised - 1) < 2e-3) if small else (0.5 < renormalised < 0.97)


def test_four_states_with_soft_lengths_against_a_minimisation_by_hand():
    angle = np.radians(60.0)
    settings = {"cutoff": 2.6, "angle": 60.0, "routes": ["four-state"], "magforce_tol": 1e-9}
    model = HeisenbergModel(**SOFT)
    result = run(model, simple_cubic(), lengths="relaxed", **settings)
    rigid = run(model, simple_cubic(), **settings)
    matrix = np.diag(result.supercell)
    coupling = _couplings(matrix)
    pair = int(result.pairs.representatives()[0])
    other = int(
        np.flatnonzero((cell_points(matrix) == result.pairs.shifts[pair] % result.supercell).all(axis=1))[0]
    )
    energies = [_relaxed_energy(coupling, (0, other), angle, signs) for signs in ((1, 1), (1, -1))]
    known = -2 * (energies[0] - energies[1]) / (4 * np.sin(angle) ** 2)
    assert result.isotropic()[pair] == pytest.approx(known, abs=1e-8)
    assert rigid.isotropic()[pair] == pytest.approx(result.lattice.lengths[0] ** 2 * 0.012, abs=1e-8)
    assert abs(known - rigid.isotropic()[pair]) > 1e-4


def _couplings(matrix):
    """J of every pair of sites of a supercell of the simple cubic lattice, images summed."""
    cells = cell_points(matrix)
    counts = np.diag(matrix)
    difference = cells[None] - cells[:, None]
    difference = difference - counts * np.rint(difference / counts)
    distances = A * np.linalg.norm(difference, axis=2)
    return sum(value * (np.abs(distances - d) < 1e-6) for d, value in SOFT["exchange_shells"])


def _relaxed_energy(coupling, tilted, angle, signs):
    a, b = SOFT["landau"]
    directions = np.tile([0.0, 1.0], (len(coupling), 1))
    for site, sign in zip(tilted, signs, strict=True):
        directions[site] = [sign * np.sin(angle), np.cos(angle)]
    products = coupling * (directions @ directions.T)

    def energy(m):
        value = (a * m**2 + b * m**4).sum() - 0.5 * m @ products @ m
        return value, 2 * a * m + 4 * b * m**3 - products @ m

    start = np.full(len(coupling), 2.0)
    found = minimize(energy, start, jac=True, method="BFGS", options={"gtol": 1e-11, "maxiter": 2000})
    return found.fun


def test_derivatives_with_soft_lengths_where_the_lattice_couples_both():
    """Pseudo-dipolar exchange of moments m: H_tt − H_tl H_ll⁻¹ H_lt, with T(q) = Σ_R (J + K r̂r̂ᵀ) cos q·R."""
    near, strength = 0.01, 0.004
    a, b = landau = (-0.2, 0.02)
    nearest = np.sqrt(3) / 2 * 2.87
    model = HeisenbergModel(
        exchange_shells=[(nearest, near)], pseudo_dipolar=strength, landau=landau, morse=NO_SPRINGS
    )
    settings = {"cutoff": 4.2, "routes": ["derivatives"], "magforce_tol": 1e-9}
    result = run(model, iron(), lengths="relaxed", **settings)
    rigid = run(model, iron(), **settings)
    square = (0.5 * (8 * near + strength * (8 + 6) / 3) - a) / (2 * b)
    assert result.lattice.lengths[0] ** 2 == pytest.approx(square, rel=1e-7)
    counts, cell, pairs = np.array(result.supercell), result.lattice.cell, result.pairs
    assert np.prod(counts) < 1000
    q = np.stack(np.meshgrid(*(np.arange(n) / n for n in counts), indexing="ij"), axis=-1).reshape(-1, 3)
    tensors = (
        strength * pairs.vectors[:, :, None] * pairs.vectors[:, None] / pairs.distances[:, None, None] ** 2
    )
    tensors[pairs.distances > 3.0] = 0.0
    tensors += np.where(np.abs(pairs.distances - nearest) < 1e-6, near, 0.0)[:, None, None] * np.eye(3)
    scaled = pairs.vectors @ np.linalg.inv(cell)
    waves = np.einsum("qp,pab->qab", np.cos(2 * np.pi * q @ scaled.T), tensors)
    total, number = np.zeros((2, len(pairs), 3, 3)), np.zeros((3, 3))
    for axis in np.eye(3):
        t = transverse_frame(axis)[:2]
        stretch = square * (2 * a + 12 * b * square - axis @ waves @ axis)
        mixed = -square * np.einsum("ua,qab,b->qu", t, waves, axis)
        turning = -square * np.einsum("ua,qab,vb->quv", t, waves, t)
        relaxed = turning - mixed[:, :, None] * mixed[:, None] / stretch[:, None, None]
        for k, blocks in enumerate((turning, relaxed)):
            found = -np.einsum("pq,quv->puv", np.cos(2 * np.pi * scaled @ q.T), blocks) / len(q)
            total[k] += np.einsum("ua,puv,vb->pab", t, found, t)
        number += np.outer(1 - axis, 1 - axis)
    np.testing.assert_allclose(rigid.tensors["derivatives"], total[0] / number, atol=1e-9)
    np.testing.assert_allclose(result.tensors["derivatives"], total[1] / number, atol=1e-9)
    assert np.abs(total[1] - total[0]).max() > 1e-5


@pytest.mark.parametrize("options", [{}, {"unit_vectors": True}], ids=["soft", "unit"])
def test_derivatives_of_the_spin_model(options):
    model = SpinModel(
        exchange_shells=[(2.4, 0.01)], biquadratic_shells=[(2.4, 0.002)], dmi_shells=[(2.5, 0.003)], uniaxial=0.01,
        axis=(1, 2, 3), **options,
    )  # fmt: skip
    atoms = crystal_without_symmetry()
    atoms.symbols[:] = "Fe"
    rng = np.random.default_rng(0)
    set_magmoms(atoms, rng.normal(size=(2, 3)) + np.array([0, 0, 1]))
    graph = graph_from_atoms(atoms, model.r_max)
    out = evaluate(model, graph)
    moments, step = atoms.arrays["initial_magmoms"].copy(), 1e-5
    for k in np.ndindex(2, 3):
        energies = []
        for sign in (1, -1):
            moved = moments.copy()
            moved[k] += sign * step
            set_magmoms(atoms, moved)
            energies.append(float(model(graph_from_atoms(atoms, model.r_max))["energy"][0]))
        assert float(out["magforces"][k]) == pytest.approx(
            -(energies[0] - energies[1]) / (2 * step), abs=1e-8
        )
    assert model.spin_orbit
    assert not SpinModel(biquadratic_shells=[(2.4, 0.01)]).spin_orbit
