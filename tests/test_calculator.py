"""The ASE calculator: results, what makes it recalculate, and ASE's own tools on top of it."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE
from ase.phonons import Phonons

from mmace_sim.calculator import MMACECalculator
from mmace_sim.errors import MissingMomentsError, UnsupportedElementError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.testing import HeisenbergModel

TOY = HeisenbergModel()


def fcc_iron(a=3.6, moment=2.0, cubic=True):
    atoms = bulk("Fe", "fcc", a=a, cubic=cubic)
    set_magmoms(atoms, np.tile([0.0, 0.6 * moment, 0.8 * moment], (len(atoms), 1)))
    atoms.calc = MMACECalculator(TOY)
    return atoms


def test_results():
    atoms = fcc_iron()
    atoms.rattle(0.05, seed=1)
    energy = atoms.get_potential_energy()
    assert set(atoms.calc.results) == set(MMACECalculator.implemented_properties)
    assert atoms.get_potential_energy(force_consistent=True) == energy
    assert atoms.get_potential_energies().sum() == pytest.approx(energy, rel=1e-12)
    assert atoms.get_stress().shape == (6,)
    np.testing.assert_array_equal(atoms.get_magnetic_moments(), get_magmoms(atoms))
    assert atoms.calc.get_property("magforces", atoms).shape == (4, 3)


def test_derivatives_are_those_of_ase():
    atoms = fcc_iron()
    atoms.rattle(0.05, seed=1)
    np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, eps=1e-4), atol=1e-6)
    np.testing.assert_allclose(atoms.get_stress(), calculate_numerical_stress(atoms, eps=1e-5), atol=1e-6)
    magforces, magmoms = atoms.calc.get_property("magforces", atoms), get_magmoms(atoms)
    energies = []
    for step in (1e-4, -1e-4):
        changed = magmoms.copy()
        changed[1, 2] += step
        set_magmoms(atoms, changed)
        energies.append(atoms.get_potential_energy())
    assert -(energies[0] - energies[1]) / 2e-4 == pytest.approx(magforces[1, 2], abs=1e-7)


@pytest.mark.parametrize(
    ("change", "recalculates"),
    [
        (len, False),
        (lambda atoms: set_magmoms(atoms, get_magmoms(atoms)), False),
        (lambda atoms: set_magmoms(atoms, -get_magmoms(atoms)), True),
        (lambda atoms: set_magmoms(atoms, np.full(len(atoms), 2.0)), True),
        (lambda atoms: atoms.arrays["initial_magmoms"].__setitem__((0, 0), 0.1), True),
        (lambda atoms: atoms.rattle(0.01), True),
        (lambda atoms: atoms.set_cell(atoms.cell * 1.01), True),
        (lambda atoms: atoms.set_tags(1), False),
    ],
)
def test_recalculates_when_and_only_when_something_changed(change, recalculates):
    atoms = fcc_iron()
    atoms.get_potential_energy()
    calculations = []
    original = atoms.calc.calculate
    atoms.calc.calculate = lambda *args, **kwargs: (calculations.append(1), original(*args, **kwargs))
    change(atoms)
    atoms.get_forces()
    assert bool(calculations) == recalculates


def test_scalar_moments_that_become_vectors_are_noticed():
    atoms = bulk("Fe", "fcc", a=3.6, cubic=True)
    atoms.set_initial_magnetic_moments([2.0, 2.0, -2.0, -2.0])
    atoms.calc = MMACECalculator(TOY)
    before = atoms.get_potential_energy()
    set_magmoms(atoms, np.tile([0.0, 0.0, 2.0], (4, 1)))
    assert atoms.get_potential_energy() < before - 0.1


def test_moments_under_another_name_are_noticed():
    atoms = fcc_iron()
    atoms.arrays["magmoms"] = atoms.arrays.pop("initial_magmoms")
    before = atoms.get_potential_energy()
    atoms.arrays["magmoms"] = np.zeros((4, 3))
    assert atoms.get_potential_energy() != before


def test_missing_moments():
    atoms = bulk("Cu", cubic=True)
    atoms.symbols[:] = "Fe"
    atoms.calc = MMACECalculator(TOY)
    with pytest.raises(MissingMomentsError, match="Fe4 carries no magnetic moments"):
        atoms.get_potential_energy()


def test_a_shared_calculator_does_not_lend_the_moments_of_the_last_structure():
    first, second = fcc_iron(), fcc_iron()
    first.get_potential_energy()
    del second.arrays["initial_magmoms"]
    second.calc = first.calc
    with pytest.raises(MissingMomentsError):
        second.get_potential_energy()


def test_unsupported_element():
    atoms = fcc_iron()
    atoms.symbols[0] = "Ni"
    with pytest.raises(UnsupportedElementError, match="Fe3Ni holds Ni, but heisenberg-toy was made for Fe"):
        atoms.get_potential_energy()


def test_isolated_atom_has_no_stress():
    atoms = Atoms("Fe", magmoms=[2.0], calculator=MMACECalculator(TOY))
    a, b = TOY.landau
    assert atoms.get_potential_energy() == pytest.approx(TOY.energy_per_atom + 4 * a + 16 * b)
    with pytest.raises(Exception, match="stress"):
        atoms.get_stress()


def test_model_of_the_caller_keeps_its_dtype():
    model = HeisenbergModel()
    calc = MMACECalculator(model, dtype="float32")
    assert calc.model.dtype == torch.float32
    assert model.dtype == torch.float64
    atoms = fcc_iron()
    reference = atoms.get_potential_energy()
    atoms.calc = calc
    assert atoms.get_potential_energy() == pytest.approx(reference, abs=1e-4)


@pytest.mark.parametrize("optimizer", [BFGS, FIRE])
def test_relaxes_positions_and_cell_to_the_known_distance(optimizer):
    atoms = fcc_iron(a=3.45)
    atoms.rattle(0.03, seed=2)
    optimizer(FrechetCellFilter(atoms), logfile=None).run(fmax=1e-4, steps=300)
    distances = atoms.get_all_distances(mic=True)
    np.testing.assert_allclose(distances[~np.eye(4, dtype=bool)], TOY.morse[2], atol=2e-4)


def test_relaxed_toy_has_its_known_energy():
    moment = TOY.relaxed_moment(12)
    atoms = fcc_iron(a=TOY.morse[2] * 2**0.5, moment=moment)
    assert atoms.get_potential_energy() / 4 == pytest.approx(TOY.relaxed_energy(12), rel=1e-12)
    assert np.abs(atoms.calc.get_property("magforces", atoms)).max() < 1e-12
    assert np.abs(atoms.get_stress()).max() < 1e-12


def test_molecular_dynamics_conserves_energy_and_runs_with_a_thermostat():
    atoms = fcc_iron(a=2.5 * 2**0.5)
    atoms.rattle(0.02, seed=3)
    dyn = VelocityVerlet(atoms, timestep=1 * units.fs)
    before = atoms.get_total_energy()
    dyn.run(30)
    assert atoms.get_total_energy() == pytest.approx(before, abs=1e-4)
    assert atoms.get_kinetic_energy() > 1e-4
    thermostat = Langevin(
        atoms,
        1 * units.fs,
        temperature_K=300,
        friction=0.01 / units.fs,
        fixcm=False,
        rng=np.random.default_rng(0),
    )
    thermostat.run(3)


def test_phonons(tmp_path):
    atoms = fcc_iron(a=2.5 * 2**0.5, moment=0.0, cubic=False)
    phonons = Phonons(atoms, atoms.calc, supercell=(3, 3, 3), delta=0.01, name=str(tmp_path / "phonons"))
    phonons.run()
    phonons.read(acoustic=True)
    path = atoms.cell.bandpath("GX", npoints=2)
    frequencies = phonons.get_band_structure(path, verbose=False).energies[0]
    np.testing.assert_allclose(frequencies[0], 0.0, atol=1e-3)
    # nearest-neighbour springs K = 2 D α²: m ω² = 8 K for the longitudinal, 4 K for the transverse branches at X
    spring = 2 * TOY.morse[0] * TOY.morse[1] ** 2
    expected = (
        units._hbar * 1e10 * np.sqrt(units._e / units._amu) * np.sqrt(spring * np.array([4, 4, 8]) / 55.845)
    )
    np.testing.assert_allclose(frequencies[1], expected / units._e, rtol=5e-3)


def test_results_survive_files(tmp_path):
    atoms = fcc_iron()
    atoms.get_potential_energy()
    write(tmp_path / "fe.extxyz", atoms)
    write(tmp_path / "fe.traj", atoms)
    for name in ("fe.extxyz", "fe.traj"):
        back = read(tmp_path / name)
        assert back.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        np.testing.assert_allclose(get_magmoms(back), get_magmoms(atoms), atol=1e-7)


def test_results_of_dft_become_the_start_only_when_set():
    atoms = Atoms("Fe", magmoms=None, cell=[2.5] * 3, pbc=True)
    atoms.calc = SinglePointCalculator(atoms, magmoms=[2.2])
    set_magmoms(atoms, get_magmoms(atoms))
    atoms.calc = MMACECalculator(TOY)
    atoms.get_potential_energy()
    np.testing.assert_array_equal(atoms.get_magnetic_moments(), [[0, 0, 2.2]])


def test_ase_finds_the_plugin():
    from ase._4.plugins import plugins

    (plugin,) = [plugin for plugin in plugins.calculators if plugin.name == "mmace"]
    assert plugin() is MMACECalculator
    assert "mmace_sim.ase_plugin" in plugin.display()


def test_ase_info_works_and_loads_nothing_heavy():
    code = "import sys; from ase.cli.main import main; main(args=['info', '--plugins']); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "mmace" in result.stdout
    assert result.stdout.split()[-1] == "False"
