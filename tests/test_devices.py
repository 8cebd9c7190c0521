"""A tensor left on the wrong device, found without a GPU: everything runs on one that is pretended."""

import numpy as np
import pytest
import torch
from test_host_reads import iron
from test_training_run import tiny_config

from mmace_sim.calculator import MMACECalculator
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.model.checkpoint import load_model
from mmace_sim.model.derivatives import evaluate
from mmace_sim.properties.md.dynamics import MolecularDynamics
from mmace_sim.properties.moments.relax import MomentRelaxation
from mmace_sim.properties.relax.relaxation import Relaxation
from mmace_sim.sampling.chains import Chain
from mmace_sim.sampling.hmc import HybridMonteCarlo
from mmace_sim.sampling.local import LocalMoves
from mmace_sim.sampling.surface import Supercells
from mmace_sim.testing.pretended import DEVICE, PretendedGpu, WrongDeviceError, moved_to_pretended
from mmace_sim.torchsim.model import MagneticMaceModel
from mmace_sim.torchsim.state import initialize_state
from mmace_sim.training.data.dataset import collate
from mmace_sim.training.loss import build_loss
from mmace_sim.training.module import predict
from mmace_sim.training.trainer import prepare

AS_ON_A_GPU = {"skin": 0.5, "backend": "torch"}


@pytest.fixture(scope="module")
def model():
    return load_model("default")


def both(model, compute):
    """What a computation gives on the CPU, and on the pretended device."""
    here = compute(MagneticMaceModel(model, **AS_ON_A_GPU))
    with PretendedGpu():
        there = compute(MagneticMaceModel(moved_to_pretended(model), **AS_ON_A_GPU))
    return here, there


@pytest.mark.parametrize("pbc", [(True, True, True), (True, False, True), (False, False, False)])
def test_energies_and_their_derivatives(model, pbc):
    images = iron(3)
    for atoms in images:
        atoms.pbc = pbc

    def compute(tsm):
        state = initialize_state(images, device=tsm.device, dtype=torch.float64)
        out = tsm(state) | {f"{key}_of_some": value for key, value in tsm(state, systems=[0, 2]).items()}
        assert {value.device for value in out.values()} == {tsm.device}
        return {key: value.cpu() for key, value in out.items()}

    here, there = both(model, compute)
    for key, value in here.items():
        torch.testing.assert_close(there[key], value, rtol=0, atol=1e-10, equal_nan=True)


def test_uncertainties(model):
    def compute(tsm):
        doubtful = MagneticMaceModel(tsm.model, uncertainty=True, backend="torch")
        out = doubtful(initialize_state(iron(2), device=tsm.device, dtype=torch.float64))
        assert {value.device for value in out.values()} == {tsm.device}
        return {key: value.cpu() for key, value in out.items()}

    here, there = both(model, compute)
    assert {"energy_uncertainty", "forces_uncertainty"} <= set(here)
    for key, value in here.items():
        torch.testing.assert_close(there[key], value, rtol=1e-9, atol=1e-10, equal_nan=True)


def test_the_calculator_of_ase(model):
    def compute(tsm):
        atoms = iron(1)[0]
        atoms.calc = MMACECalculator(tsm.model)
        return [atoms.calc.get_property(key, atoms) for key in ("energy", "forces", "stress", "magforces")]

    here, there = both(model, compute)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-10)


@pytest.mark.parametrize("magmoms", ["joint", "adiabatic"])
def test_relaxations(model, magmoms):
    here, there = both(
        model, lambda tsm: Relaxation(tsm, magmoms=magmoms, max_steps=2, magforce_tol=0.3).run(iron(2))
    )
    for a, b in zip(here, there, strict=True):
        assert (a.status, a.steps) == (b.status, b.steps)
        assert abs(a.energy - b.energy) < 1e-9
        np.testing.assert_allclose(b.atoms.positions, a.atoms.positions, atol=1e-7)


def test_moments(model):
    here, there = both(model, lambda tsm: MomentRelaxation(tsm, max_steps=2).run(iron(2)))
    for a, b in zip(here, there, strict=True):
        assert (a.status, a.steps) == (b.status, b.steps)
        np.testing.assert_allclose(b.magforces, a.magforces, atol=1e-9)


@pytest.mark.parametrize(
    "how",
    [
        {"spins": "frozen"},
        {"spins": "adiabatic", "magforce_tol": 0.3},
        {"spins": "llg", "lengths": "langevin", "ensemble": "npt"},
    ],
    ids=str,
)
def test_dynamics(model, how):
    here, there = both(
        model, lambda tsm: MolecularDynamics(tsm, n_steps=1, record_every=1, **how).run(iron(2))
    )
    for a, b in zip(here, there, strict=True):
        assert a.status == b.status
        np.testing.assert_allclose(b.atoms.positions, a.atoms.positions, atol=1e-9)
        np.testing.assert_allclose(b.column("energy_total"), a.column("energy_total"), atol=1e-8)


@pytest.mark.parametrize("lattice", ["fixed", "free"])
def test_hybrid_monte_carlo(model, lattice):
    crystal = iron(2)[1]
    crystal.arrays["initial_magmoms"][:] = [0.0, 0.0, 2.2]

    def compute(tsm):
        cells = Supercells(tsm.model, [crystal], [Chain(300.0), Chain(500.0)])
        sampler = HybridMonteCarlo(cells, lattice=lattice, n_steps=1, step=0.05)
        return sampler.advance(0, 1)

    here, there = both(model, compute)
    for key, value in here.items():
        np.testing.assert_allclose(there[key], value, rtol=1e-9)


def test_local_moves(model):
    crystal = iron(2)[1]
    crystal.arrays["initial_magmoms"][:] = [0.0, 0.0, 2.2]

    def compute(tsm):
        return LocalMoves(Supercells(tsm.model, [crystal], [Chain(300.0), Chain(500.0)])).advance(0, 1)

    here, there = both(model, compute)
    for key, value in here.items():
        np.testing.assert_allclose(there[key], value, rtol=1e-9)


def test_a_loss_and_its_gradient(tmp_path):
    run = prepare(tiny_config(tmp_path))
    loss = build_loss(run.config.loss)
    labels = {term.label for term in loss.terms}
    batch = collate([run.train_set[k] for k in range(3)])

    def gradients(model, batch):
        value = loss(predict(model, batch, labels, training=True), batch)
        return torch.autograd.grad(value, list(model.parameters()), allow_unused=True)

    here = gradients(run.model, batch)
    with PretendedGpu():
        there = gradients(moved_to_pretended(run.model), batch.to(DEVICE))
        there = [None if g is None else g.cpu() for g in there]
    for a, b in zip(here, there, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-12)


def test_what_stays_behind_is_found(model):
    with PretendedGpu():
        there = moved_to_pretended(model)
        there._buffers["species_table"] = model.species_table
        graph = graph_from_atoms(iron(1), model.r_max).map(lambda tensor: tensor.to(DEVICE))
        with pytest.raises(WrongDeviceError, match="two devices"):
            evaluate(there, graph)
        with pytest.raises(TypeError, match="numpy"):
            graph.positions.numpy()
