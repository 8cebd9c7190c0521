"""Single precision against double, in cells of thousands of atoms: what is large or long is summed in float64.

Tolerances follow from u = 2⁻²⁴, the largest relative error of one rounding. Coordinates in a box of length L round by
2 u L, which moves an output by what float64 says for one such shift (four times that is allowed); arithmetic adds `OPERATIONS` roundings of what it adds up. Sums in
float64 of n float32 numbers leave one rounding; float32 would leave about √n of them, which these tests would see.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from embedded import IRON_MODEL
from test_curie_direct import UNIT, J, cubic
from torch_sim.integrators.md import MDState

from mmace_sim.graph.batch import MagneticGraph, sum_by_system
from mmace_sim.model.checkpoint import load_model
from mmace_sim.model.derivatives import _stress, evaluate
from mmace_sim.sampling.chains import Chain, replicas
from mmace_sim.sampling.hamiltonian import SpinHamiltonian
from mmace_sim.sampling.heatbath import HeatBath
from mmace_sim.sampling.hmc import HybridMonteCarlo
from mmace_sim.sampling.local import LocalMoves
from mmace_sim.sampling.surface import Supercells
from mmace_sim.torchsim.spin_dynamics import kinetic_energy
from mmace_sim.training.data.dataset import Errors, LabelledBatch
from mmace_sim.training.evaluation.metrics import MetricAccumulator
from mmace_sim.training.loss import HuberLoss, MSELoss

U = 2.0**-24
OPERATIONS = 64
"""Roundings in a row from coordinates to an energy: radial and angular functions, network, product, readout."""
OF_KT = 5e-3
"""Error of an energy of 2000 atoms over kT at 600 K, and so of an acceptance: 10⁻⁷ eV per atom, by these weights."""
MANY = 2**20


def bare(kind, **attributes):
    """An object that has these attributes only."""
    found = object.__new__(kind)
    vars(found).update(attributes)
    return found


def cells_of(dtype, seed=0):
    """2000 shaken atoms of bcc iron, moments turned by some 20°."""
    rng = np.random.default_rng(seed)
    atoms = cubic((20, 10, 10), name="bcc", moment=2.2, a=2.83)
    atoms.positions += rng.normal(scale=0.03, size=atoms.positions.shape)
    cells = Supercells(load_model(IRON_MODEL, dtype=dtype), [atoms], [Chain(600.0)])
    turned = rng.normal((0.0, 0.0, 2.2), 0.4, size=(len(atoms), 3))
    cells.moments = cells.reference = torch.as_tensor(turned).to(dtype)
    return cells


def test_evaluations_of_large_cells():
    single, double = (cells_of(dtype) for dtype in (torch.float32, torch.float64))
    found = evaluate(single.model, single.batch_graph((0,)))
    graph = double.batch_graph((0,))
    exact = evaluate(double.model, graph)
    generator = torch.Generator().manual_seed(0)
    box = float(graph.cell.abs().max())
    shifts = (
        2 * U * box * (2 * torch.rand(graph.positions.shape, generator=generator, dtype=torch.float64) - 1)
    )
    moved = evaluate(double.model, replace(graph, positions=graph.positions + shifts))
    n = graph.n_atoms
    assert n == 2000
    assert found["energy"].dtype == found["node_energy"].dtype == torch.float64
    network = exact["node_energy"] - double.model.reference(graph.magmoms, torch.zeros(n, dtype=torch.long))

    def sensitivity(key):
        return float((moved[key] - exact[key]).abs().max())

    def off(key):
        return float((found[key].double() - exact[key]).abs().max())

    of_atom = 4 * sensitivity("node_energy") + OPERATIONS * U * float(network.abs().max())
    assert off("node_energy") < of_atom
    assert off("energy") < n**0.5 * of_atom < 0.1 * U * float(exact["energy"].abs())
    for key in ("forces", "magforces"):
        assert found[key].dtype == torch.float32
        assert off(key) < 4 * sensitivity(key) + OPERATIONS * U * float(exact[key].abs().max())
    assert off("stress") < 4 * sensitivity("stress") + OPERATIONS * U * float(exact["stress"].abs().max())


def test_resting_atoms_of_large_cells():
    """Energies that Monte Carlo compares are within a two-hundredth of kT, and directions of fields as those of float64."""
    single, double = (cells_of(dtype) for dtype in (torch.float32, torch.float64))
    for same_lengths in (False, True):
        energies, gradients = zip(
            *(cells.evaluate(cells.moments, same_lengths=same_lengths)[:2] for cells in (single, double)),
            strict=True,
        )
        assert float((energies[0] - energies[1]).abs()) < OF_KT / float(double.beta)
        turning = [
            torch.linalg.cross(g.double(), c.moments.double())
            for g, c in zip(gradients, (single, double), strict=True)
        ]
        scale = float(gradients[1].norm(dim=1).max() * double.moments.norm(dim=1).max())
        assert (turning[0] - turning[1]).abs().max() < 4 * OPERATIONS * U * scale


def test_changes_of_energy_that_moves_are_judged_by():
    """Hybrid moves of 2000 atoms and local moves decide by the same numbers as float64, to a two-hundredth of kT."""
    changes = []
    for dtype in (torch.float32, torch.float64):
        cells = cells_of(dtype)
        sampler = HybridMonteCarlo(cells, n_steps=2, step=0.1)
        energies = []
        for _ in range(2):
            current = sampler._evaluate(cells.moments, cells.positions)
            sampler.n_adapt = 1000  # warming up: every trajectory is taken
            sampler._trajectory(current, cells.generators(0))
            energies.append(float(sampler._evaluate(cells.moments, cells.positions)[0] - current[0]))
        changes.append(np.array(energies))
    assert np.abs(changes[1]).min() > 1.0
    assert np.abs(changes[0] - changes[1]).max() < OF_KT / float(cells.beta)

    local = []
    for dtype in (torch.float32, torch.float64):
        cells = cells_of(dtype)
        (part,) = LocalMoves(cells).local
        moments = part.graph.magmoms[part.colors[0].atoms] * torch.tensor([-1.0, 1.0, 1.0], dtype=dtype)
        local.append(part.propose(0, moments).changes)
    assert local[0].dtype == torch.float64
    assert local[1].abs().max() > 1e-2
    assert (local[0] - local[1]).abs().max() < OF_KT / float(cells.beta)


def test_sums_over_many_numbers_leave_one_rounding():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(MANY, 2, generator=generator) + 0.5
    system_idx = (torch.arange(MANY) >= MANY // 4).long()
    exact = torch.stack([values[system_idx == k].double().sum(dim=0) for k in range(2)])
    found = sum_by_system(values, system_idx, 2)
    assert found.dtype == torch.float32
    assert ((found - exact).abs() <= U * exact).all()
    naive = torch.zeros(2, 2).index_add(0, system_idx, values)
    assert ((naive - exact).abs() > 8 * U * exact).any()


def test_stress_of_many_pairs():
    generator = torch.Generator().manual_seed(0)
    gradient, vectors = (torch.rand(MANY, 3, generator=generator) + 0.5 for _ in range(2))
    graph = bare(
        MagneticGraph,
        system_idx=torch.zeros(1, dtype=torch.long),
        edge_index=torch.zeros(2, MANY, dtype=torch.long),
        cell=torch.eye(3)[None] * 100,
    )
    exact = torch.einsum("ea,eb->ab", gradient.double(), vectors.double()) / 1e6
    exact = 0.5 * (exact + exact.mT)
    assert ((_stress(graph, vectors, gradient)[0] - exact).abs() < 4 * U * exact).all()


def test_kinetic_energy_of_many_atoms():
    generator = torch.Generator().manual_seed(0)
    momenta, masses = torch.randn(MANY, 3, generator=generator), 1 + torch.rand(MANY, generator=generator)
    state = bare(MDState, momenta=momenta, masses=masses, cell=torch.eye(3)[None],
                            system_idx=torch.zeros(MANY, dtype=torch.long))  # fmt: skip
    exact = float((momenta.double().square().sum(dim=1) / masses.double()).sum() / 2)
    assert float(kinetic_energy(state)) == pytest.approx(exact, rel=4 * U)


def test_averages_of_many_spins():
    """Spins are in single precision, sums in double: order and energy of 4096 spins, after many changes."""
    model = SpinHamiltonian.from_shells(cubic(1), [(2.5, J)])
    sampler = HeatBath([model.network(16)], replicas([UNIT], 0, 1, "toy"))
    observed = sampler.advance(0, 40)
    n = len(sampler.spins)
    total = sampler.spins[:, :, 0].double().sum(dim=0)
    assert observed["order"][-1, 0, 0] == pytest.approx(float(total.norm()) / n, rel=1e-12)
    # each of 40 n changes is off by some roundings of its field, 6 J'
    kept, fresh = float(sampler._energy[0, 0]), float(sampler.energies()[0, 0])
    assert abs(kept - fresh) < 8 * U * 6 * J * (40 * n) ** 0.5
    assert kept == pytest.approx(observed["energy"][-1, 0, 0] * n, rel=1e-12)


@pytest.mark.parametrize("kind", [MSELoss, HuberLoss])
def test_losses_of_many_components(kind):
    """Pairwise sums: about as many roundings as halvings, where adding one after the other would leave a thousand."""
    errors = 2 * torch.rand(MANY, generator=torch.Generator().manual_seed(0))
    loss = kind("forces", 1.0, 0.5)
    batch = bare(
        LabelledBatch,
        errors=lambda *_: Errors(errors, torch.zeros(MANY, dtype=torch.long)),
        structure_weight=torch.tensor([0.7]),
        config_idx=torch.zeros(1, dtype=torch.long),
    )
    total, count = loss.sums({}, batch).tolist()
    exact = float((float(np.float32(0.7)) * loss.penalty(errors.double() / 0.5)).sum())
    assert count == MANY
    assert total == pytest.approx(exact, rel=float(np.log2(MANY)) * U)

    metrics = MetricAccumulator(["all"])
    for _ in range(3):
        metrics.update({"forces": errors}, batch)
    found = metrics.overall()["forces"]
    assert found.count == 3 * MANY
    assert found.rmse == pytest.approx(1000 * float(errors.double().square().mean().sqrt()), rel=1e-12)
