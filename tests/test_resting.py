"""Energies of cells whose atoms rest, with what their distances decide computed once; and hybrid moves of many atoms."""

import numpy as np
import pytest
import torch
from embedded import IRON_MODEL
from test_curie_direct import UNIT, J, compare, cubic, network, sampled, toy

from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.model.checkpoint import load_model
from mmace_sim.model.derivatives import evaluate
from mmace_sim.nn.polynomial import ChannelPolynomial
from mmace_sim.nn.product import SymmetricContraction
from mmace_sim.sampling.chains import Chain, replicas, run_blocks
from mmace_sim.sampling.hamiltonian import SpinHamiltonian
from mmace_sim.sampling.heatbath import HeatBath
from mmace_sim.sampling.hmc import HybridMonteCarlo, _Phase
from mmace_sim.sampling.local import LocalMoves
from mmace_sim.sampling.statistics import points
from mmace_sim.sampling.surface import Supercells


@pytest.mark.parametrize("correlation", [1, 2, 3])
def test_polynomials_give_the_gradients_of_the_contraction(correlation):
    torch.manual_seed(0)
    contraction = SymmetricContraction(2, 0, correlation, n_species=2, n_channels=3).double()
    polynomial = ChannelPolynomial(contraction)
    species = torch.tensor([0, 1, 1, 0, 1])
    x = torch.randn(5, 3, 9, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 3, dtype=torch.float64)
    expected = contraction(x, species)[..., 0]
    (slope,) = torch.autograd.grad((weights * expected).sum(), x)
    y = x.detach().permute(1, 2, 0).contiguous().requires_grad_()
    found = polynomial(y, species)
    (gradient,) = torch.autograd.grad((weights * found.T).sum(), y)
    assert torch.allclose(found.T, expected, rtol=0, atol=1e-12)
    assert torch.allclose(gradient.permute(2, 0, 1), slope, rtol=0, atol=1e-12)


def crystal(model, repeat, *, shaken):
    """Moments in all directions, of the lengths of their sublattice; two elements where the model knows them."""
    rng = np.random.default_rng(1)
    cell = cubic(1, name="bcc", a=2.87).repeat(2)
    if len(model.elements) > 1:
        cell.numbers[::3] = model.elements[0]
    atoms = cell.repeat(repeat)
    if shaken:
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    lengths = np.tile(np.linspace(0.5, 2.2, 4), len(atoms) // 4)
    lengths[1::8] = 0.0  # an atom without a moment in each cell of the crystal
    set_magmoms(atoms, lengths)
    cells = Supercells(model, [atoms], [Chain(300.0), Chain(600.0)])
    return cells, turned(cells)


def turned(cells, seed=1):
    """Moments of supercells in all directions."""
    moments = torch.as_tensor(np.random.default_rng(seed).normal(size=cells.moments.shape)).to(cells.moments)
    return moments / moments.norm(dim=1, keepdim=True) * cells.reference.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("shaken", [False, True])
@pytest.mark.parametrize("kind", ["iron", "spin-orbit", "iron repulsion", "spin-orbit repulsion"])
def test_resting_atoms_have_the_energies_of_the_model(kind, shaken):
    model = network(kind)
    cells, moments = crystal(model, (2, 2, 2), shaken=shaken)
    exact = [evaluate(model, graph) for graph in graphs(cells, moments)]
    energy = torch.cat([out["energy"] for out in exact])
    magforces = torch.cat([out["magforces"] for out in exact])
    assert magforces.abs().max() > 1e-3

    found, gradient, forces = cells.evaluate(moments)
    assert len(forces) == 0
    assert (found - energy).abs().max() < 1e-10
    assert (gradient - magforces).abs().max() < 1e-10
    for seed in range(2):  # the second time with all that was kept
        others = moments if seed == 0 else moments[:, [1, 2, 0]]
        now = [evaluate(model, graph) for graph in graphs(cells, others)]
        found, gradient, _ = cells.evaluate(others, same_lengths=True)
        assert (found - torch.cat([out["energy"] for out in now])).abs().max() < 1e-10
        off = gradient - torch.cat([out["magforces"] for out in now])
        assert torch.linalg.cross(off, others).abs().max() < 1e-10
    part = cells._parts[0]
    assert (part.resting._environments is None) == shaken
    assert all(other.resting.table is part.resting.table for other in cells._parts)


@pytest.mark.parametrize("a", [2.87, 9.0], ids=["neighbours", "isolated"])
@pytest.mark.parametrize("n_atoms", [1, 5])
def test_one_atom_alone(n_atoms, a, monkeypatch):
    """One atom in the cell, or left over where atoms are evaluated in fours; with neighbours and without any."""
    monkeypatch.setattr("mmace_sim.model.pair_sums._CHUNK", 4)
    model = load_model(IRON_MODEL)
    cells = Supercells(model, [cubic((n_atoms, 1, 1), name="bcc", a=a)], [Chain(300.0)])
    for seed in range(3):
        moments = turned(cells, seed)
        (graph,) = graphs(cells, moments)
        exact = evaluate(model, graph)
        for gradients in (False, True):
            energy, magforces, _ = cells.evaluate(moments, same_lengths=True, gradients=gradients)
            assert (energy - exact["energy"]).abs().max() < 1e-10
        assert torch.linalg.cross(magforces - exact["magforces"], moments).abs().max() < 1e-10
    local = LocalMoves(cells).local[0]
    kept = [values.clone() for values in local.sums]
    local.terms.energies(local.sums, moments, local.species)
    assert all(torch.equal(old, new) for old, new in zip(kept, local.sums, strict=True))
    assert local.node_energy.sum() == pytest.approx(float(exact["energy"]), abs=1e-10)


def single_precision():
    model = load_model(IRON_MODEL, dtype=torch.float32)
    atoms = cubic(1, name="bcc", a=2.87).repeat(2)
    return HybridMonteCarlo(Supercells(model, [atoms], replicas([300.0], 0, 1, "x")), n_steps=2, n_adapt=3)


def test_a_killed_chain_goes_on_to_the_last_bit(tmp_path):
    """What depends on lengths alone is that of the start, not that of moments which rounding has changed."""
    whole = run_blocks(single_precision(), 3, 5, block_sweeps=2).values
    path = tmp_path / "samples.npz"
    run_blocks(single_precision(), 3, 3, block_sweeps=2, checkpoint=path)
    resumed = run_blocks(single_precision(), 3, 5, block_sweeps=2, checkpoint=path).values
    for key, values in whole.items():
        assert np.array_equal(resumed[key], values), key


def test_moments_of_fixed_length_do_not_shrink():
    sampler = single_precision()
    moments, generator = sampler.cells.moments, torch.Generator().manual_seed(0)
    for _ in range(2000):
        kicks = sampler._tangent(torch.randn(moments.shape, generator=generator), moments)
        moments, _ = sampler._drift(moments, kicks, torch.full((len(moments), 1), 0.2))
    assert (moments.norm(dim=1) / 2.0 - 1).abs().max() < 5e-7


def graphs(cells, moments):
    cells.moments = moments
    return [cells.batch_graph((k,)) for k in range(len(cells))]


def test_many_atoms_take_other_steps_and_sample_the_same_distribution():
    """64 spins: the kicks are those of large cells."""
    chains = replicas([0.8 * UNIT, 2 * UNIT], 5, 10, "toy")
    bath = HeatBath([SpinHamiltonian.from_shells(cubic(1), [(2.5, J)]).network(4)], chains)
    exact = points(run_blocks(bath, 30, 150), chains, bath.sizes)[0]
    sampler = HybridMonteCarlo(Supercells(toy(), [cubic(4)], replicas([0.8 * UNIT, 2 * UNIT], 1, 1, "toy")),
                               n_steps=6, n_adapt=40)  # fmt: skip
    assert sampler._outer.unique().tolist() == pytest.approx([0.1931833])
    (row,) = sampled(sampler, 40, 160)
    compare(row, exact)
    assert all(0.5 < point.values["acceptance"].mean < 0.95 for point in row)


def test_kicks_of_large_cells_miss_less_energy_than_leapfrog():
    """Both are of second order; at the same number of gradients one has less than a third of the error."""
    sampler = HybridMonteCarlo(Supercells(toy(), [cubic(4)], replicas([UNIT], 0, 4, "toy")), n_adapt=8)
    sampler.advance(0, 3)
    start = sampler.cells.moments
    missed = {}
    for share in (0.25, 0.1931833):
        for step in (0.1, 0.05):
            sampler.n_steps, sampler._outer = round(1 / step), torch.full((len(start), 1), share)
            missed[share, step] = miss(sampler, step)
        assert 3.5 < missed[share, 0.1] / missed[share, 0.05] < 4.5
    assert missed[0.1931833, 0.05] < 0.3 * missed[0.25, 0.05]


def miss(sampler, step):
    """Root-mean-square change of the Hamiltonian over kT on a trajectory of each chain."""
    cells = sampler.cells
    kicks = sampler._tangent(sampler._normal(cells.generators(1)), cells.moments)
    point = sampler._evaluate(cells.moments, cells.positions)
    start = _Phase(cells.moments, cells.positions, kicks, None, point)
    end = sampler._follow(start, torch.full((len(kicks), 1), step))
    before, after = (sampler._kinetic(p.kicks, None) + cells.beta * p.point[0] for p in (start, end))
    return float((after - before).square().mean().sqrt())


def test_large_cells_warm_up_from_the_ordered_state():
    """Beginning far from equilibrium, where no trajectory of long steps would be accepted."""
    sampler = HybridMonteCarlo(
        Supercells(toy(), [cubic(8)], replicas([2 * UNIT], 0, 1, "toy")), n_steps=6, n_adapt=12
    )
    warm = sampler.advance(0, 6)
    assert (warm["acceptance"] == 1).all()
    assert warm["order"][-1, 0, 0] < 0.4
    assert float(sampler.log_step.exp()) == pytest.approx(0.2)
    before = sampler.log_step.clone()
    judged = sampler.advance(1, 12)["acceptance"][:, 0, 0]
    assert sampler.n_done == 18
    assert not torch.equal(before, sampler.log_step)  # the second half adapts
    assert 0 < judged.mean() < 1
