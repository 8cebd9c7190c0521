"""Phonons against models solved on paper and second derivatives by autograd; what phonopy does with moments."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from cli_tools import molecule
from embedded import IRON_MODEL
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from scipy.optimize import brentq

import mmace_sim
from mmace_sim.errors import ConfigError, MissingMomentsError, StructureError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.properties.phonons import Phonons, force_constants, phonopy_forces
from mmace_sim.properties.phonons import finite_displacements as phonons_module
from mmace_sim.properties.phonons.bands import band_path
from mmace_sim.properties.phonons.cells import collinear_or_vectors, make_phonopy, supercells
from mmace_sim.properties.relax.relaxation import Status
from mmace_sim.structures.supercells import choose_supercell, parse_supercell
from mmace_sim.testing import HeisenbergModel

THZ = np.sqrt(units._e / units._amu) * 1e10 / (2 * np.pi) / 1e12  # 1 u on 1 eV/Å²
MASS = 55.845
X, HALF_X = (0.5, 0.5, 0.0), (0.25, 0.25, 0.0)
QUICK = {"mesh": 10.0, "magmoms": "fixed", "supercell": (2, 2, 2)}


class CoupledModel(HeisenbergModel):
    """The toy with an exchange that depends on distance, and its phonons on paper.

    Ferromagnetic fcc, springs K = V'' − m²J'' between neighbours (no force along the bonds at the minimum). At q
    half way from Γ to X a longitudinal wave has Mω² = 4K at frozen moments. Moments follow the field
    i J' m Σ_j (r̂_j·u) sin q·R_j = i J' m (8/√2) u with the stiffness 2a + 12bm² − 4J, which lowers Mω² by the
    square of the one over the other. At X nothing couples.
    """

    def __init__(self, decay=2.5):
        super().__init__(
            exchange_decay=decay, landau=(-0.05, 0.02), r_on=2.8, r_max=3.2
        )  # first neighbours only
        self.decay = decay
        a, b = self.landau
        depth, stiffness, rest = self.morse

        def square(r):
            return (12 * self.j(r) - 2 * a) / (4 * b)

        def force(r):
            x = np.exp(-stiffness * (r - rest))
            return 2 * depth * stiffness * (1 - x) * x + square(r) * self.decay * self.j(r)

        self.distance = brentq(force, 2.2, 2.8)
        self.moment = square(self.distance) ** 0.5
        x = np.exp(-stiffness * (self.distance - rest))
        morse = 2 * depth * stiffness**2 * x * (2 * x - 1)
        self.spring = morse - self.moment**2 * self.decay**2 * self.j(self.distance)
        field = -self.decay * self.j(self.distance) * self.moment * 8 / 2**0.5
        self.softening = field**2 / (2 * a + 12 * b * self.moment**2 - 4 * self.j(self.distance))

    def j(self, r):
        return self.exchange * np.exp(-self.decay * (r - self.morse[2]))

    def crystal(self):
        atoms = bulk("Fe", "fcc", a=2**0.5 * self.distance)
        set_magmoms(atoms, [self.moment])
        return atoms


def thz(*mass_omega_squared):
    return THZ * np.sqrt(np.array(mass_omega_squared) / MASS)


def afm_cell(moment=1.5):
    """fcc iron with moments alternating along z, as a body-centred tetragonal cell of two atoms."""
    atoms = bulk("Fe", "bcc", a=2.5, cubic=True)
    atoms.set_cell([2.5, 2.5, 2.5 * 2**0.5], scale_atoms=True)
    set_magmoms(atoms, [moment, -moment])
    return atoms


def test_waves_on_springs_and_moments_that_follow():
    toy = CoupledModel()
    (relaxed,) = Phonons(toy, mesh=10.0, supercell=(4, 4, 4), magforce_tol=1e-7).run([toy.crystal()])
    assert relaxed.status is Status.CONVERGED
    phonon = relaxed.phonon
    k = toy.spring
    adiabatic = phonon.run_qpoints([(0, 0, 0), X, HALF_X]).frequencies
    np.testing.assert_allclose(adiabatic[0], 0, atol=1e-4)
    np.testing.assert_allclose(adiabatic[1], thz(4 * k, 4 * k, 8 * k), rtol=2e-3)
    np.testing.assert_allclose(adiabatic[2], thz(2 * k, 2 * k, 4 * k - toy.softening), rtol=2e-3)
    phonon.force_constants = relaxed.frozen
    frozen = phonon.run_qpoints([X, HALF_X]).frequencies
    np.testing.assert_allclose(frozen[0], thz(4 * k, 4 * k, 8 * k), rtol=2e-3)
    np.testing.assert_allclose(frozen[1], thz(2 * k, 2 * k, 4 * k), rtol=2e-3)
    assert frozen[1, 2] - adiabatic[2, 2] > 0.1  # the test can tell them apart
    assert relaxed.largest_shift < -0.1
    assert relaxed.imaginary == []

    (fixed,) = Phonons(toy, **QUICK | {"supercell": (4, 4, 4)}).run([toy.crystal()])
    assert fixed.frozen is None
    assert fixed.largest_shift is None
    np.testing.assert_allclose(fixed.phonon.run_qpoints([X, HALF_X]).frequencies, frozen, rtol=1e-3)


def test_the_crystal_is_relaxed_first_unless_told_otherwise():
    toy = CoupledModel()
    start = toy.crystal()
    start.set_cell(1.02 * start.cell, scale_atoms=True)
    relaxed = Phonons(toy, **QUICK).run([start])[0]
    assert relaxed.atoms.get_volume() == pytest.approx(toy.distance**3 / 2**0.5, rel=1e-4)
    as_it_is = Phonons(toy, **QUICK, relax=False).run([start])[0]
    np.testing.assert_array_equal(as_it_is.atoms.cell.array, start.cell.array)
    np.testing.assert_array_equal(get_magmoms(as_it_is.atoms), get_magmoms(start))


def test_imaginary_modes_are_found_and_named():
    """Springs K between first neighbours that push with −t per length: at X 4K + 12t for transverse waves."""
    length, (depth, stiffness, rest) = 1.5, (0.4, 0.2, 2.5)
    toy = HeisenbergModel(morse=(depth, stiffness, rest), r_on=1.7, r_max=2.0)
    x = np.exp(-stiffness * (length - rest))
    spring = 2 * depth * stiffness**2 * x * (2 * x - 1)
    push = 2 * depth * stiffness * (1 - x) * x / length
    atoms = bulk("Fe", "fcc", a=2**0.5 * length)
    set_magmoms(atoms, [toy.relaxed_moment(12)])
    (result,) = Phonons(toy, **QUICK, relax=False).run([atoms])
    assert result.status is Status.CONVERGED
    named = {mode.label: mode for mode in result.imaginary if mode.commensurate}
    expected = -THZ * np.sqrt(-(4 * spring + 12 * push) / MASS)
    assert named["X"].frequency == pytest.approx(expected, rel=2e-3)
    worst = result.imaginary[0]
    along = np.concatenate(
        [frequencies.min(axis=1) for frequencies in result.phonon.band_structure.frequencies]
    )
    assert worst.frequency == pytest.approx(
        min(along.min(), *(m.frequency for m in named.values())), abs=2e-3
    )
    assert f"{worst.frequency:.2f} THz" in result.message


def test_acoustic_sum_rule():
    toy = CoupledModel()
    result = Phonons(toy, **QUICK).run([afm_cell()])[0]
    constants = result.phonon.force_constants
    assert np.abs(constants.sum(axis=1)).max() < 1e-10
    np.testing.assert_allclose(result.phonon.run_qpoints([(0, 0, 0)]).frequencies[0, :3], 0, atol=1e-3)


def test_one_failure_does_not_stop_the_others():
    toy = CoupledModel()
    copper = bulk("Cu")
    set_magmoms(copper, [0.0])
    seen = []
    results = Phonons(toy, **QUICK).run(
        [molecule(), toy.crystal(), copper],
        on_finished=lambda index, result: seen.append((index, result.status)),
    )
    assert [str(result.status) for result in results] == ["failed", "converged", "failed"]
    assert sorted(seen) == [(index, result.status) for index, result in enumerate(results)]
    assert "periodic in all three directions" in results[0].message
    assert "Cu" in results[2].message
    assert results[2].phonon is None


def test_moments_that_run_away_are_no_phonons(monkeypatch):
    toy = CoupledModel()
    monkeypatch.setattr(phonons_module, "MOMENT_JUMP", 1e-6)
    (result,) = Phonons(toy, mesh=10.0, supercell=(2, 2, 2)).run([toy.crystal()])
    assert result.status is Status.FAILED
    assert "--magmoms fixed" in result.message
    phonon = own_script(toy)
    with pytest.raises(StructureError, match="a moment changed"):
        phonopy_forces(phonon, toy, "relaxed")


def test_moments_without_enough_steps():
    toy = CoupledModel()
    (result,) = Phonons(toy, mesh=10.0, supercell=(2, 2, 2), relax=False, max_steps=1).run([toy.crystal()])
    assert result.status is Status.MAX_STEPS
    assert result.phonon is not None


@pytest.mark.parametrize(
    "settings", [{"magmoms": "joint"}, {"displacement": 0.0}, {"supercell": (2, 2)}, {"supercell": (0, 1, 1)}]
)
def test_impossible_settings(settings):
    with pytest.raises(ConfigError):
        Phonons(HeisenbergModel(), **settings)


def hessians(model, atoms):
    """Second derivatives by positions, mixed and by moments, each (3n, 3n), by differentiating twice."""
    graph = graph_from_atoms([atoms], model.r_max, device=model.device, dtype=model.dtype)
    n = len(atoms)

    def energy(positions, magmoms):
        graph.positions, graph.magmoms = positions.reshape(n, 3), magmoms.reshape(n, 3)
        return model(graph)["energy"].sum()

    inputs = graph.positions.detach().ravel(), graph.magmoms.detach().ravel()
    (rr, rm), (_, mm) = torch.autograd.functional.hessian(energy, inputs)
    return rr.numpy(), rm.numpy(), mm.numpy()


@pytest.mark.parametrize("kind", ["vacancy", "afm"])
def test_gamma_against_second_derivatives_by_autograd(kind):
    """Iron: a vacancy, whose moments couple to the atoms at Γ, and an antiferromagnet."""
    model = mmace_sim.load_model(IRON_MODEL)
    if kind == "vacancy":
        atoms = bulk("Fe", "bcc", a=2.83, cubic=True).repeat((2, 2, 1))[1:]
        set_magmoms(atoms, [2.2] * 7)
    else:
        atoms = afm_cell()
    (result,) = Phonons(model, supercell=(1, 1, 1), mesh=5.0, displacement=3e-3, magforce_tol=1e-6).run(
        [atoms]
    )
    assert result.status is Status.CONVERGED, result.message
    rr, rm, mm = hessians(model, result.atoms)
    adiabatic = rr - rm @ np.linalg.pinv(mm, rcond=1e-6, hermitian=True) @ rm.T
    for by_autograd, constants in ((rr, result.frozen), (adiabatic, result.phonon.force_constants)):
        result.phonon.force_constants = constants
        squares = np.linalg.eigvalsh(by_autograd) / MASS
        expected = THZ * np.sign(squares) * np.sqrt(np.abs(squares))
        found = np.sort(folded(result.phonon, len(atoms)))
        np.testing.assert_allclose(found, np.sort(expected), atol=0.02)
    if kind == "vacancy":
        assert np.abs(np.linalg.eigvalsh(rr) - np.linalg.eigvalsh(adiabatic)).max() > 0.01


def folded(phonon, n_atoms):
    """Frequencies at Γ of the unit cell: those at all points of the primitive cell that fold there."""
    from phonopy.harmonic.dynmat_to_fc import get_commensurate_points

    matrix = np.rint(np.linalg.inv(phonon.primitive_matrix)).astype(int)
    frequencies = phonon.run_qpoints(get_commensurate_points(matrix)).frequencies.ravel()
    assert len(frequencies) == 3 * n_atoms
    return frequencies


def test_antiferromagnet_keeps_its_moments_and_its_symmetry():
    atoms = afm_cell()
    phonon, notes = make_phonopy(
        atoms, supercell=parse_supercell((2, 2, 2)), displacement=0.01, symprec=1e-3, spin_orbit=False
    )
    assert notes == []
    assert len(phonon.primitive) == 2
    assert len(phonon.displacements) == 1  # up and down are one by time reversal
    layer = np.rint(phonon.supercell.positions[:, 2] / atoms.cell[2, 2] * 2).astype(int) % 2
    for cell in supercells(phonon):
        np.testing.assert_allclose(cell.magnetic_moments, np.where(layer == 0, 1.5, -1.5))


@pytest.mark.parametrize(
    ("magmoms", "dipolar", "n_displacements"),
    [
        ([1.5, -1.5], 0.0, 1),
        ([1.5, -1.5], 0.02, 1),
        ([1.5, 1.2], 0.0, 2),
        ([[1.5, 0, 0], [0, 1.5, 0]], 0.0, None),
        ([[1.5, 0, 0.5], [-1.5, 0, 0.5]], 0.02, None),
    ],
)
def test_fewer_displacements_by_magnetic_symmetry_give_the_same(magmoms, dipolar, n_displacements):
    toy = HeisenbergModel(exchange_decay=2.5, pseudo_dipolar=dipolar, r_on=2.8, r_max=3.2)
    atoms = afm_cell()
    set_magmoms(atoms, magmoms)
    settings = {"supercell": parse_supercell([2]), "displacement": 1e-3, "symprec": 1e-3}
    phonon, _ = make_phonopy(atoms, **settings, spin_orbit=toy.spin_orbit)
    reduced = force_constants(phonon, toy)
    every = Phonopy(phonon.unitcell, 2 * np.eye(3, dtype=int), primitive_matrix="P", is_symmetry=False)
    np.testing.assert_allclose(reduced, force_constants(every, toy, displacement=1e-3), atol=1e-4)
    assert len(phonon.displacements) < len(every.displacements)
    assert n_displacements in (None, len(phonon.displacements))


@pytest.mark.parametrize(
    ("magmoms", "spin_orbit", "n_primitive", "n_operations"),
    [
        ([2.2, 2.2], False, 1, 48),  # scalars: the point group is cubic
        ([2.2, 2.2], True, 1, 16),  # vectors: the moments point along z
        ([2.2, -2.2], False, 2, 48),  # the magnetic primitive cell
        ([2.2, -2.2], True, 2, 16),
        ([0.0, 0.0], False, 1, 48),
        ([[2, 0, 0], [0, 2, 0]], False, 2, 8),
        ([[1.1, 1.1, 0], [1.1, 1.1, 0]], False, 1, 48),  # collinear along any axis
        ([2.2, -2.0], False, 2, 48),  # a ferrimagnet: two kinds of atoms
    ],
)
def test_what_phonopy_does_with_moments(magmoms, spin_orbit, n_primitive, n_operations):
    atoms = bulk("Fe", cubic=True, a=2.83)
    set_magmoms(atoms, magmoms)
    phonon, _ = make_phonopy(
        atoms, supercell=parse_supercell([2]), displacement=0.01, symprec=1e-3, spin_orbit=spin_orbit
    )
    assert len(phonon.primitive) == n_primitive
    assert len(phonon.symmetry.pointgroup_operations) == n_operations
    assert phonon.unitcell.magnetic_moments.ndim == (
        2 if spin_orbit or (np.ndim(magmoms[0]) and n_primitive == 2) else 1
    )
    path = band_path(phonon)
    assert path.points["Γ"] == (0.0, 0.0, 0.0)
    names = {(1, 48): "H", (1, 16): "H", (2, 48): "R", (2, 16): "R"}
    assert names.get((n_primitive, n_operations), "Γ") in path.points


def test_noise_of_moments_does_not_break_the_symmetry():
    atoms = bulk("Fe", cubic=True, a=2.83)
    set_magmoms(atoms, [[0, 1e-4, 2.2], [0, 0, 2.2003]])
    phonon, _ = make_phonopy(
        atoms, supercell=parse_supercell([2]), displacement=0.01, symprec=1e-3, spin_orbit=False
    )
    assert len(phonon.primitive) == 1
    assert len(phonon.displacements) == 1


def test_scalars_and_vectors():
    np.testing.assert_allclose(collinear_or_vectors(np.diag([0.0, 0.0, 0.0]), tolerance=1e-3), [0, 0, 0])
    up_down = np.array([[0, 0, -2.2], [0, 0, 2.2], [0, 0, 0]])
    np.testing.assert_allclose(collinear_or_vectors(up_down, tolerance=1e-3), [-2.2, 2.2, 0])
    canted = np.array([[0, 0, 2.0], [0, 0.1, 2.0]])
    np.testing.assert_array_equal(collinear_or_vectors(canted, tolerance=1e-3), canted)


def test_supercells():
    assert np.diag(choose_supercell(2.83 * np.eye(3), 10.0)).tolist() == [4, 4, 4]
    assert np.diag(choose_supercell(np.diag([3.0, 3.0, 12.0]), 10.0)).tolist() == [4, 4, 1]
    sheared = np.array([[3.0, 0, 0], [2.9, 0.9, 0], [0, 0, 12.0]])  # has a vector much shorter than its own
    from ase.geometry import minkowski_reduce

    reduced, _ = minkowski_reduce(choose_supercell(sheared, 10.0) @ sheared)
    assert np.linalg.norm(reduced, axis=1).min() >= 10.0
    np.testing.assert_array_equal(parse_supercell([0, 1, 1, 1, 0, 1, 1, 1, 0]), np.ones((3, 3)) - np.eye(3))
    np.testing.assert_array_equal(parse_supercell([3]), 3 * np.eye(3))


def own_script(toy, magnetic=True):
    """What a user of phonopy has."""
    cell = PhonopyAtoms(
        ["Fe"],
        cell=toy.distance / 2**0.5 * (np.ones((3, 3)) - np.eye(3)),
        positions=[[0, 0, 0]],
        magnetic_moments=[toy.moment] if magnetic else None,
    )
    phonon = Phonopy(cell, supercell_matrix=[3, 3, 3], primitive_matrix="P")
    phonon.generate_displacements(distance=0.01)
    return phonon


def test_forces_for_a_script_of_ones_own():
    toy = CoupledModel()
    phonon = own_script(toy)
    forces = phonopy_forces(phonon, toy)
    assert forces.shape == (1, 27, 3)
    np.testing.assert_array_equal(phonon.forces, forces)
    np.testing.assert_allclose(forces.sum(axis=1), 0, atol=1e-12)
    phonon.produce_force_constants(show_drift=False)
    k = toy.spring
    np.testing.assert_allclose(phonon.run_qpoints([X]).frequencies[0], thz(4 * k, 4 * k, 8 * k), rtol=5e-3)
    relaxed = phonopy_forces(phonon, toy, "relaxed")
    assert np.abs(relaxed - forces).max() > 1e-4
    assert force_constants(own_script(toy), toy).shape == (27, 27, 3, 3)


def test_pairs_that_phono3py_leaves_out():
    toy = CoupledModel()
    phonon = own_script(toy)
    displaced = phonon.supercells_with_displacements[0]
    third = SimpleNamespace(
        dataset={}, supercell=phonon.supercell, supercells_with_displacements=[displaced, None, displaced]
    )
    forces = phonopy_forces(third, toy)
    np.testing.assert_array_equal(forces[1], np.zeros((27, 3)))
    np.testing.assert_allclose(forces[0], forces[2], atol=1e-12)
    np.testing.assert_allclose(third.forces[0], phonopy_forces(phonon, toy)[0], atol=1e-12)


def test_scripts_without_moments_or_displacements():
    toy = CoupledModel()
    with pytest.raises(MissingMomentsError):
        phonopy_forces(own_script(toy, magnetic=False), toy)
    phonon = own_script(toy)
    phonon.dataset = None
    with pytest.raises(StructureError, match="generate_displacements"):
        phonopy_forces(phonon, toy)


def test_crystals_of_any_host_and_moments_that_are_zero():
    toy = CoupledModel()
    structure = own_script(toy).unitcell
    atoms = Atoms(toy.crystal())
    set_magmoms(atoms, [0.0])
    magnetic, nothing = Phonons(toy, **QUICK, relax=False).run([structure, atoms])
    assert magnetic.status is nothing.status is Status.CONVERGED
    assert get_magmoms(magnetic.atoms)[0, 2] == pytest.approx(toy.moment)
    assert len(nothing.phonon.supercells_with_displacements) == 1
