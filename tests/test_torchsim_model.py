"""MagneticMaceModel in TorchSim: its interface, stock runners, autobatchers, and agreement with the ASE calculator."""

import numpy as np
import pytest
import torch
import torch_sim as ts
from ase import Atoms
from ase.build import bulk
from torch_sim.autobatching import BinningAutoBatcher, InFlightAutoBatcher
from torch_sim.models.interface import validate_model_outputs

from mmace_sim.calculator import MMACECalculator
from mmace_sim.errors import MissingMomentsError, UnsupportedElementError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.model.config import ModelConfig
from mmace_sim.model.magnetic_mace import MagneticMACE
from mmace_sim.testing import (
    HeisenbergModel,
    assert_model_calculator_consistency,
    random_structure,
)
from mmace_sim.torchsim import MagneticMaceModel, initialize_state, state_to_atoms
from mmace_sim.torchsim.state import state_magmoms

ELEMENTS = ["H", "C", "Mg", "Si", "Fe"]
TOY = HeisenbergModel()


def energy_model(**kwargs):
    torch.manual_seed(0)
    config = ModelConfig(
        **{
            "atomic_numbers": ELEMENTS,
            "r_max": 4.0,
            "hidden_irreps": "4x0e",
            "num_interactions": 1,
            "radial_mlp": [8],
            "MLP_irreps": "4x0e",
            "spin_channels": 2,
            "avg_num_neighbors": 20.0,
            "max_moment": dict.fromkeys(ELEMENTS, 3.0),
        }
        | kwargs
    )
    return MagneticMACE(config).double().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model():
    return MagneticMaceModel(energy_model())


def with_moments(state):
    generator = torch.Generator().manual_seed(1)
    moments = torch.randn((state.n_atoms, 3), generator=generator, dtype=torch.float64)
    state.atom_extras["magnetic_moments"] = moments.to(state.positions)
    return state


def with_equal_moments(state):
    """The validator compares batches with single systems: every atom needs the moment it has in the batch."""
    state.atom_extras["magnetic_moments"] = (
        torch.tensor([0.3, -0.5, 1.2]).to(state.positions).repeat(state.n_atoms, 1)
    )
    return state


def toys(n=3):
    """Compressed, rattled fcc cells of different size with non-collinear moments."""
    structures = []
    for index in range(n):
        atoms = bulk("Fe", "fcc", a=3.48 + 0.02 * index, cubic=True).repeat((1 + index % 2, 1, 1))
        atoms.rattle(0.03, seed=index)
        directions = np.random.default_rng(index).normal(size=(len(atoms), 3)) * 0.3 + [0, 0, 2.0]
        set_magmoms(atoms, directions)
        structures.append(atoms)
    return structures


@pytest.mark.parametrize(
    ("dtype", "spin_orbit"), [(torch.float64, False), (torch.float64, True), (torch.float32, False)]
)
def test_torchsim_validates_the_outputs(dtype, spin_orbit):
    model = MagneticMaceModel(energy_model(spin_orbit=spin_orbit), dtype=dtype)
    validate_model_outputs(model, model.device, dtype, state_modifier=with_equal_moments)


def test_outputs_that_are_written_back_are_per_atom_and_no_inputs(model):
    state = initialize_state([bulk("Fe"), bulk("Fe")])  # n_systems == n_atoms
    before = state_magmoms(state).clone()
    output = model(state)
    extras = set(output) - {"energy", "forces", "stress"}
    assert "magnetic_moments" not in extras
    assert {name for name in extras if output[name].shape[0] == state.n_atoms} == extras
    state.store_model_extras(output)
    torch.testing.assert_close(state_magmoms(state), before, rtol=0, atol=0)


def test_missing_moments(model):
    with pytest.raises(MissingMomentsError):
        model(ts.initialize_state(bulk("Fe"), dtype=torch.float64))


def test_unsupported_elements(model):
    atoms = Atoms("FeNi", positions=[[0, 0, 0], [1.8, 1.8, 0]], cell=[3.6] * 3, pbc=True, magmoms=[2.0, 0.6])
    with pytest.raises(UnsupportedElementError):
        model(initialize_state(atoms))


def test_agrees_with_the_ase_calculator(model):
    rng = np.random.default_rng(0)
    numbers = [1, 6, 12, 14, 26]
    structures = [random_structure(rng, elements=numbers, n_atoms=n) for n in (1, 1, 4, 7)]
    assert_model_calculator_consistency(model, MMACECalculator(model.model), structures)
    molecules = [random_structure(rng, elements=numbers, n_atoms=n, pbc=False) for n in (2, 5)]
    assert_model_calculator_consistency(model, MMACECalculator(model.model), molecules)


def test_kept_neighbours_are_not_used_for_another_structure(model):
    atoms = random_structure(np.random.default_rng(3), elements=[26], n_atoms=3)
    energies = []
    for change in ("none", "moments", "positions", "cell", "elements"):
        changed = atoms.copy()
        if change == "moments":
            set_magmoms(changed, -0.5 * get_magmoms(atoms))
        if change == "positions":
            changed.positions[0, 0] += 0.1
        if change == "cell":
            changed.set_cell(atoms.cell * 1.02)
        if change == "elements":
            changed.symbols[0] = "Si"
        model(initialize_state(atoms))  # leaves its neighbours behind
        fresh = MagneticMaceModel(model.model)(initialize_state(changed))["energy"]
        torch.testing.assert_close(
            model(initialize_state(changed))["energy"], fresh, rtol=1e-12, atol=0, msg=change
        )
        energies.append(fresh.item())
    assert len({round(energy, 8) for energy in energies}) == len(energies)


def test_kept_neighbours_of_a_crystal_are_not_used_for_a_molecule(model):
    atoms = random_structure(np.random.default_rng(3), elements=[26], n_atoms=3)
    crystal = model(initialize_state(atoms))["energy"].item()
    atoms.pbc = False
    assert model(initialize_state(atoms))["energy"].item() != pytest.approx(crystal, abs=1e-6)


def test_compute_flags(model):
    flagged = MagneticMaceModel(model.model, compute_forces=False, compute_stress=False)
    output = flagged(initialize_state(bulk("Fe")))
    assert "stress" not in output
    assert "forces" not in output
    assert "magforces" in output
    flagged.compute_stress = True
    assert flagged(initialize_state(bulk("Fe")))["stress"].shape == (1, 3, 3)


NOT_CONVERGED = "ignore:All systems have reached the maximum number of steps:UserWarning"  # as intended


@pytest.mark.filterwarnings(NOT_CONVERGED)
@pytest.mark.parametrize("optimizer", ["gradient_descent", "fire", "lbfgs", "bfgs"])
@pytest.mark.parametrize("cell_filter", [None, "unit", "frechet"])
def test_stock_optimisers_keep_moments_and_lower_the_energy(optimizer, cell_filter):
    model, structures = MagneticMaceModel(TOY), toys()
    state = initialize_state(structures)
    before = model(state)["energy"]
    init_kwargs = None if cell_filter is None else {"cell_filter": ts.CellFilter(cell_filter)}
    final = ts.optimize(
        state,
        model,
        optimizer=ts.Optimizer(optimizer),
        max_steps=15,
        steps_between_swaps=5,
        init_kwargs=init_kwargs,
    )
    torch.testing.assert_close(state_magmoms(final), state_magmoms(state), rtol=0, atol=0)
    assert (model(final)["energy"] < before - 1e-3).all()
    np.testing.assert_allclose(get_magmoms(state_to_atoms(final, structures)[1]), get_magmoms(structures[1]))


def test_stock_optimiser_finds_the_known_structure():
    model = MagneticMaceModel(TOY)
    final = ts.optimize(
        initialize_state(toys()),
        model,
        optimizer=ts.Optimizer.fire,
        init_kwargs={"cell_filter": ts.CellFilter.frechet},
        convergence_fn=ts.generate_force_convergence_fn(force_tol=1e-3, include_cell_forces=True),
        max_steps=400,
    )
    for atoms in state_to_atoms(final):
        distances = atoms.get_all_distances(mic=True)
        nearest = np.where(distances > 0, distances, np.inf).min(axis=1)
        np.testing.assert_allclose(nearest, TOY.morse[2], atol=2e-3)


@pytest.mark.parametrize("integrator", list(ts.Integrator))
def test_stock_integrators_keep_moments(integrator):
    model = MagneticMaceModel(TOY)
    state = initialize_state(toys())
    pressure = {"external_pressure": 0.0} if integrator.startswith("npt") else {}
    final = ts.integrate(
        state, model, integrator=integrator, n_steps=3, temperature=100, timestep=0.001, **pressure
    )
    torch.testing.assert_close(state_magmoms(final), state_magmoms(state), rtol=0, atol=0)
    assert torch.isfinite(final.positions).all()
    assert not torch.equal(final.positions, state.positions)


def test_dynamics_start_from_the_velocities_of_the_structure():
    model, atoms = MagneticMaceModel(TOY), toys(1)[0]
    velocity = 0.02  # Å per ASE time
    atoms.set_momenta(np.tile([velocity * 55.845, 0, 0], (len(atoms), 1)))
    state = initialize_state(atoms)
    final = ts.integrate(
        state, model, integrator=ts.Integrator.nve, n_steps=10, temperature=0, timestep=0.001
    )
    drift = (final.positions - state.positions).mean(dim=0)
    time = 10 * 0.001 * 1e3 * 0.09822694788464063  # 1 fs in ASE's unit of time
    assert drift[0].item() == pytest.approx(velocity * time, rel=1e-4)
    assert final.momenta.mean(dim=0)[0].item() == pytest.approx(velocity * 55.845, rel=1e-6)


@pytest.mark.filterwarnings(NOT_CONVERGED)
def test_constrained_atoms_stay():
    from ase.constraints import FixAtoms

    structures = toys(2)
    structures[1].set_constraint(FixAtoms([2, 3]))
    state = initialize_state(structures)
    final = ts.optimize(state, MagneticMaceModel(TOY), optimizer=ts.Optimizer.fire, max_steps=10)
    moved = (final.positions - state.positions).norm(dim=1)
    assert (moved[[6, 7]] == 0).all()
    assert (moved[:6] > 0).all()


def test_static(model):
    structures = [random_structure(np.random.default_rng(n), elements=[26, 14], n_atoms=n) for n in (1, 3)]
    results = ts.static(initialize_state(structures), model)
    for atoms, result in zip(structures, results, strict=True):
        atoms.calc = MMACECalculator(model.model)
        assert result["potential_energy"].item() == pytest.approx(atoms.get_potential_energy(), rel=1e-10)
        np.testing.assert_allclose(result["forces"], atoms.get_forces(), atol=1e-9)


@pytest.mark.filterwarnings(NOT_CONVERGED)
def test_autobatching_gives_the_same_as_one_batch():
    model, structures = MagneticMaceModel(TOY), toys(5)
    state = initialize_state(structures)
    volumes = [len(atoms) ** 2 / atoms.get_volume() * 1000 for atoms in structures]
    limit = 1.5 * max(volumes)
    together = ts.static(state, model)
    batcher = BinningAutoBatcher(model, memory_scales_with="n_atoms_x_density", max_memory_scaler=limit)
    apart = ts.static(initialize_state(structures), model, autobatcher=batcher)
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one["potential_energy"], other["potential_energy"], rtol=1e-12, atol=0)
    in_flight = InFlightAutoBatcher(model, memory_scales_with="n_atoms_x_density", max_memory_scaler=limit)
    settings = {"optimizer": ts.Optimizer.fire, "max_steps": 50, "steps_between_swaps": 5}
    convergence = ts.generate_force_convergence_fn(force_tol=1e-2, include_cell_forces=False)
    swapped = ts.optimize(state, model, autobatcher=in_flight, convergence_fn=convergence, **settings)
    torch.testing.assert_close(state_magmoms(swapped), state_magmoms(state), rtol=0, atol=0)
    at_once = ts.optimize(state, model, convergence_fn=convergence, **settings)
    torch.testing.assert_close(model(swapped)["energy"], model(at_once)["energy"], rtol=0, atol=1e-3)
