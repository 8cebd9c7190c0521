"""A tensor left on the wrong device, found without a GPU: everything runs on one that is pretended."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import write
from cli_tools import write_tiny_model
from embedded import IRON_MODEL
from test_host_reads import iron
from test_training_run import tiny_config

from mmace_sim.calculator import MMACECalculator
from mmace_sim.engine import inputs
from mmace_sim.engine.checkpoint import BatchCheckpoint
from mmace_sim.engine.lifecycle import run_property
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.io.frames import read_frames
from mmace_sim.model.checkpoint import load_model
from mmace_sim.model.derivatives import evaluate
from mmace_sim.properties.anisotropy import ANISOTROPY
from mmace_sim.properties.bain import BAIN
from mmace_sim.properties.curie import CURIE
from mmace_sim.properties.elastic import ELASTIC
from mmace_sim.properties.eos import EOS
from mmace_sim.properties.exchange import EXCHANGE
from mmace_sim.properties.md.dynamics import MolecularDynamics
from mmace_sim.properties.moments.relax import MomentRelaxation
from mmace_sim.properties.order import ORDER
from mmace_sim.properties.phonons import PHONONS
from mmace_sim.properties.relax.relaxation import Relaxation
from mmace_sim.sampling.chains import Chain
from mmace_sim.sampling.hmc import HybridMonteCarlo
from mmace_sim.sampling.local import LocalMoves
from mmace_sim.sampling.surface import Supercells
from mmace_sim.testing.pretended import DEVICE, PretendedGpu, WrongDeviceError, moved_to_pretended
from mmace_sim.torchsim.model import MagneticMaceModel
from mmace_sim.torchsim.state import initialize_state
from mmace_sim.training.calibration.calibrate import calibrate
from mmace_sim.training.data.dataset import collate
from mmace_sim.training.evaluation.evaluate import evaluate_frames
from mmace_sim.training.loss import build_loss
from mmace_sim.training.module import predict
from mmace_sim.training.trainer import prepare

AS_ON_A_GPU = {"skin": 0.5, "backend": "torch"}

LOOSE = {"force_tol": 1e3, "magforce_tol": 1e3}
"""So that a relaxation is over where it begins."""

RUNS = {
    "elastic": (ELASTIC, {"stress_tol": 1e6, "strains": [0.01], **LOOSE}),
    "phonons": (PHONONS, {"stress_tol": 1e6, "supercell": [1, 1, 1], "mesh": 5.0, **LOOSE}),
    "eos": (EOS, {"n_volumes": 5, "relax_positions": True, **LOOSE}),
    "bain": (BAIN, {"element": "Fe", "states": ["fm", "nm"], "n_ratios": 3, "n_volumes": 3, **LOOSE}),
    "order": (ORDER, {"stress_tol": 1e6, "max_supercell": 1, "max_orders": 2, "random": 1, **LOOSE}),
    "exchange": (EXCHANGE, {"cutoff": 3.0, "routes": ["derivatives", "spirals"], "magforce_tol": 1e3}),
    "anisotropy": (ANISOTROPY, {"directions": 6, "max_ell": 2, "curve_points": 2, "magforce_tol": 1e3}),
    "curie, direct": (CURIE, {"method": "direct", "temperatures": [300.0], "sizes": [1], "sweeps": 10, "n_steps": 2}),
}  # fmt: skip
"""Settings with which two atoms take little time. `curie` with exchange constants draws its random numbers on the device,
for which torch makes no generator where there is none."""


@pytest.fixture(scope="module")
def model():
    return load_model(IRON_MODEL)


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


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Two elements and spin–orbit coupling."""
    return load_model(
        write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors", spin_orbit=True)
    )


@pytest.mark.parametrize("name", RUNS)
def test_properties(tiny, name, tmp_path, monkeypatch):
    declared, given = RUNS[name]
    crystal = bulk("Fe", "bcc", a=2.83, cubic=True)
    set_magmoms(crystal, np.tile([0.0, 0.0, 2.2], (2, 1)))
    write(tmp_path / "iron.extxyz", crystal)
    fields = declared.settings.model_fields
    given = {"paths": [] if name == "bain" else [str(tmp_path / "iron.extxyz")], **given}
    given |= {"figures": False} if "figures" in fields else {}
    config = declared.settings(output=str(tmp_path / "run"), model="tiny", **given)
    with PretendedGpu():
        there = moved_to_pretended(tiny)
        monkeypatch.setattr(inputs, "load_run_model", lambda *_: there)
        outcome = run_property(declared, config, quiet=True)
    (entry,) = outcome.summary["structures"]  # a model of random weights need not have a minimum
    assert entry["status"] != "failed", entry["message"]


def test_a_run_goes_on_from_a_checkpoint(tiny, tmp_path):
    def stop(_):
        if next(steps, None) is None:
            raise KeyboardInterrupt

    steps = iter(range(2))
    with PretendedGpu():
        relaxation = Relaxation(moved_to_pretended(tiny), max_steps=4, force_tol=1e-9)
        whole = relaxation.run(iron(1))
        kept, seen = (tmp_path / "kept.npz", "a", ["fe"]), []
        with pytest.raises(KeyboardInterrupt):
            relaxation.run(iron(1), on_step=stop, checkpoint=BatchCheckpoint(*kept, interval=0.0))
        resumed = relaxation.run(iron(1), on_step=seen.append, checkpoint=BatchCheckpoint(*kept))
    assert len(seen) < whole[0].steps
    assert (resumed[0].status, resumed[0].steps) == (whole[0].status, whole[0].steps)
    assert abs(resumed[0].energy - whole[0].energy) < 1e-9


def test_evaluations_and_calibrations(tmp_path):
    run = prepare(tiny_config(tmp_path))
    frames = read_frames([tmp_path / "toys.extxyz"]).frames

    def errors(model):
        return evaluate_frames(model, frames[:3]).overall, calibrate(model, frames[:10], batch_size=10)

    here = errors(run.model)
    with PretendedGpu():
        there = errors(moved_to_pretended(run.model))
    assert here[0].keys() == there[0].keys()
    for label, error in here[0].items():
        np.testing.assert_allclose(there[0][label].mae, error.mae, rtol=1e-9)
    for key, value in here[1].tensors.items():
        torch.testing.assert_close(there[1].tensors[key], value, rtol=1e-6, atol=1e-9)
