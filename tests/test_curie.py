"""Monte Carlo of Heisenberg models against exact results, and what is made of its samples."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from mmace_sim.errors import ConfigError, OutputError, StructureError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.properties.curie.temperatures import Curie, CurieResult
from mmace_sim.properties.exchange import Exchange
from mmace_sim.sampling.chains import Chain, block_generator, replicas, run_blocks
from mmace_sim.sampling.hamiltonian import SpinHamiltonian, SpinNetwork, color_greedily
from mmace_sim.sampling.heatbath import HeatBath, draw_spins
from mmace_sim.sampling.statistics import CurieStatus, points
from mmace_sim.testing import HeisenbergModel
from mmace_sim.units import BOLTZMANN_EV_PER_K

J = 0.02
UNIT = J / BOLTZMANN_EV_PER_K


def lattice(name="sc", moments=(2.0,), **options):
    atoms = bulk("Fe", name, a=2.5, **options)
    atoms.arrays.pop("initial_magmoms", None)
    set_magmoms(atoms, list(moments))
    return atoms


def network(neighbors, copies, exchange=J):
    """Many copies of spins coupled as listed; rows of unequal length are filled up."""
    size, n = len(neighbors), max(map(len, neighbors))
    neighbors = [[j + size * k for j in row] for k in range(copies) for row in neighbors]
    table = np.array([[*row, *[i] * (n - len(row))] for i, row in enumerate(neighbors)])
    values = np.array([[exchange] * len(row) + [0.0] * (n - len(row)) for row in neighbors])
    ones = np.ones(len(table))
    return SpinNetwork.build(table, values, ones, ones)


def sampled(networks, temperatures, n_sweeps=150, **options):
    chains = replicas(temperatures, 1, 1, "test")
    sampler = HeatBath(networks, chains, **options)
    return points(run_blocks(sampler, 20, n_sweeps), chains, sampler.sizes)


def langevin(x):
    return 1 / np.tanh(x) - 1 / x


def agrees(value, exact, *, n_errors=4.5):
    return abs(value.mean - exact) < n_errors * value.error


def test_pairs_rings_and_chains_have_their_exact_energy():
    """A pair and an open chain: −J'(coth x − 1/x) per bond, x = J'/kT; all sizes and temperatures in one batch."""
    n = 40
    ring = [[(i - 1) % n, (i + 1) % n] for i in range(n)]
    chain = [[j for j in (i - 1, i + 1) if 0 <= j < 12] for i in range(12)]
    temperatures = [0.3 * UNIT, UNIT, 3 * UNIT]
    rows = sampled([network([[1], [0]], 200), network(chain, 20), network(ring, 5)], temperatures)
    bonds = (0.5, 11 / 12, 1.0)
    for per_spin, row in zip(bonds, rows, strict=True):
        for point in row:
            exact = -per_spin * J * langevin(UNIT / point.temperature)
            assert agrees(point.values["energy"], exact)
            assert point.values["energy"].error < 0.06 * abs(exact)
    for point in rows[0]:  # heat capacity of the pair, k_B per spin
        x = UNIT / point.temperature
        assert agrees(point.values["heat_capacity"], 0.5 * (1 - x**2 / np.sinh(x) ** 2))


def test_triangle_has_its_exact_energy():
    """E = −J'(S² − 3)/2 with the density of S = |e₁ + e₂ + e₃|: ∝ S² for S < 1, ∝ S(3 − S)/2 above."""
    x = 1.0
    s = np.linspace(0, 3, 20001)
    weight = np.where(s < 1, s**2, 0.5 * s * (3 - s)) * np.exp(0.5 * x * (s**2 - 3))
    exact = -J * np.trapezoid(0.5 * (s**2 - 3) * weight, s) / np.trapezoid(weight, s) / 3
    ((point,),) = sampled([network([[1, 2], [0, 2], [0, 1]], 100)], [UNIT / x])
    assert agrees(point.values["energy"], exact)


def test_free_spins_in_a_field_follow_langevin():
    lone = SpinNetwork.build(np.arange(200)[:, None], np.zeros((200, 1)), np.ones(200), np.ones(200))
    for field in ((0.0, 0.0, J), (0.6 * J, 0.0, -0.8 * J)):
        rows = sampled([lone], [0.2 * UNIT, 2 * UNIT], 60, field=field, n_over=1)
        for point in rows[0]:
            exact = langevin(UNIT / point.temperature)
            assert agrees(point.values["energy"], -J * exact)


def test_drawn_spins_have_the_right_moments():
    generator = torch.Generator().manual_seed(0)
    field = torch.tensor([[0.01, -0.02, -0.0299], [0.0, 0.0, -1.0]])[:, :, None].expand(2, 3, 100_000)
    beta = torch.full((100_000,), 60.0)
    drawn = draw_spins(field, beta, torch.rand(2, 2, 100_000, generator=generator))
    assert torch.linalg.norm(drawn, dim=1).sub(1).abs().max() < 1e-5
    for k in range(2):
        strength = float(torch.linalg.norm(field[k, :, 0]))
        mean = (drawn[k] * field[k]).sum(dim=0).mean() / strength
        assert float(mean) == pytest.approx(langevin(60 * strength), abs=4e-3)
    across = drawn[0].mean(dim=1) - drawn[0].mean(dim=1) @ field[0, :, 0] * field[0, :, 0] / 0.001394
    assert across.abs().max() < 5e-3


def test_spins_without_a_field_are_uniform_on_the_sphere():
    """The field of neighbours may cancel, or a site may have none."""
    generator = torch.Generator().manual_seed(0)
    drawn = draw_spins(
        torch.zeros(1, 3, 100_000),
        torch.full((100_000,), 60.0),
        torch.rand(2, 1, 100_000, generator=generator),
    )
    assert torch.linalg.norm(drawn, dim=1).sub(1).abs().max() < 1e-5
    assert drawn.mean(dim=2).abs().max() < 0.01
    second = torch.einsum("xan,xbn->ab", drawn, drawn) / 100_000
    assert (second - torch.eye(3) / 3).abs().max() < 0.01
    lone = SpinNetwork.build(np.arange(50)[:, None], np.zeros((50, 1)), np.ones(50), np.ones(50))
    ((point,),) = sampled([lone], [UNIT], 60)
    assert point.values["order"].mean == pytest.approx((8 / (3 * np.pi * 50)) ** 0.5, rel=0.1)


def test_replicas_of_a_seed_are_no_chains_of_the_next():
    """Nor does any other part of what a chain is stand for another."""
    chains = [*replicas([100.0, 100.001], 0, 3, "a"), *replicas([100.0], 1, 3, "a"), Chain(100.0, 0, "b")]
    cpu = torch.device("cpu")
    words = {block_generator(chain, n, block, cpu).initial_seed()
             for chain in chains for n in (8, 27) for block in (0, 1)}  # fmt: skip
    assert len(words) == len(chains) * 4
    again = block_generator(chains[1], 8, 0, cpu).initial_seed()
    assert again == block_generator(replicas([100.0], 0, 2, "a")[1], 8, 0, cpu).initial_seed()


def test_over_relaxation_costs_no_energy():
    model = SpinHamiltonian.from_shells(lattice("bcc"), [(2.5 * 0.75**0.5, J), (2.5, 0.4 * J)])
    sampler = HeatBath([model.network(4)], replicas([UNIT, 2 * UNIT], 0, 1, "x"))
    sampler.advance(0, 3)
    before, spins = sampler.energies(), sampler.spins.clone()
    for color in sampler._colors:
        sampler._reflect(color)
    assert (sampler.energies() - before).abs().max() < 1e-4 * before.abs().max()
    assert (sampler.spins - spins).abs().max() > 0.5
    assert torch.linalg.norm(sampler.spins, dim=1).sub(1).abs().max() < 1e-5


def test_networks_are_the_supercells():
    """Neighbours of each shell, colors without interaction, the energy and mean field of the ordered state."""
    model = SpinHamiltonian.from_shells(lattice("bcc"), [(2.5 * 0.75**0.5, J), (2.5, -0.5 * J)])
    net = model.network(4)
    assert len(net) == 2 * 4**3  # the most cubic block of bcc is the cube
    assert np.isclose(net.exchange.sum(axis=1), 8 * J - 3 * J).all()
    assert net.ordered_energy == pytest.approx(-2.5 * J)
    assert model.mean_field_temperature == pytest.approx(5 * UNIT / 3)
    for first, last in zip(net.bounds, net.bounds[1:], strict=False):
        assert not np.isin(net.neighbors[first:last], np.arange(first, last)).any()
    assert all((net.neighbors[net.neighbors[i]] == i).any(axis=1).all() for i in range(0, len(net), 17))
    assert color_greedily(np.array([[1, 2], [0, 2], [0, 1]])).tolist() == [0, 1, 2]
    with pytest.raises(StructureError, match="no pair"):
        SpinHamiltonian.from_shells(lattice(), [(2.9, J)])


def test_an_antiferromagnet_orders_like_the_ferromagnet():
    """On two sublattices the sign of J' does not matter: energies agree, and the order is that of the sublattices."""
    cell = bulk("Fe", "bcc", a=2.5, cubic=True)
    cell.arrays.pop("initial_magmoms", None)
    set_magmoms(cell, [2.0, -2.0])
    anti = SpinHamiltonian.from_shells(cell, [(2.5 * 0.75**0.5, -J)])
    ferro = SpinHamiltonian.from_shells(lattice("bcc"), [(2.5 * 0.75**0.5, J)])
    assert anti.mean_field_temperature == pytest.approx(ferro.mean_field_temperature)
    (a,), (b,) = (sampled([m.network(4)], [UNIT], 200)[0] for m in (anti, ferro))
    assert a.n_spins == b.n_spins
    for key in ("energy", "order"):
        x, y = a.values[key], b.values[key]
        assert abs(x.mean - y.mean) < 4 * np.hypot(x.error, y.error)
    assert a.values["order"].mean > 0.5 > 0.1 > a.values["magnetization"].mean
    assert b.values["magnetization"].mean == pytest.approx(2 * b.values["order"].mean, rel=1e-5)


def test_exchange_of_a_model_gives_its_network():
    model = HeisenbergModel(exchange_shells=[(2.5, J)], unit_vectors=True)
    (result,) = Exchange(model, cutoff=3.0, routes=["derivatives"], magmoms="fixed").run([lattice()])
    found = result.spin_model()
    assert np.allclose(found.exchange, J)
    assert found.mean_field_temperature == pytest.approx(2 * UNIT)


def test_a_chain_does_not_depend_on_its_batch_and_a_killed_run_goes_on(tmp_path):
    model = SpinHamiltonian.from_shells(lattice(), [(2.5, J)])
    nets = [model.network(4), model.network(6)]
    chains = [Chain(t * UNIT, 3, "x") for t in (0.8, 1.2, 1.5, 2.0, 0.5)]

    def run(some_nets, some_chains, n=30, **options):
        return run_blocks(HeatBath(some_nets, some_chains), 5, n, block_sweeps=10, **options).values

    whole = run(nets, chains)
    alone = run(nets[:1], chains[2:3])
    for key, values in alone.items():
        assert np.array_equal(values[:, 0, 0], whole[key][:, 0, 2])

    path = tmp_path / "samples.npz"

    class Killed(HeatBath):
        def advance(self, block, n_sweeps):
            if block == 2:
                raise KeyboardInterrupt
            return super().advance(block, n_sweeps)

    with pytest.raises(KeyboardInterrupt):
        run_blocks(Killed(nets, chains), 5, 30, block_sweeps=10, checkpoint=path, identity="a")
    with pytest.raises(OutputError, match="another run"):
        run(nets, chains, checkpoint=path, identity="b")
    done = []
    resumed = run(nets, chains, checkpoint=path, identity="a", on_block=done.append)
    assert done == [20, 10, 5]
    for key, values in resumed.items():
        assert np.array_equal(values, whole[key])


def test_no_block_of_random_numbers_is_used_twice(tmp_path):
    """A run that is made longer again and again, each time within a block."""
    model, used = SpinHamiltonian.from_shells(lattice(), [(2.5, J)]), []

    class Told(HeatBath):
        def advance(self, block, n_sweeps):
            used.append(block)
            return super().advance(block, n_sweeps)

    for n in (3, 6, 7, 8, 21):
        sampler = Told([model.network(2)], replicas([UNIT], 0, 1, "x"))
        series = run_blocks(sampler, 2, n, block_sweeps=5, checkpoint=tmp_path / "samples.npz")
        assert len(series.counted["energy"]) == n
    assert used == list(range(len(used)))


def test_spins_coupled_to_their_own_images_are_a_constant():
    model = SpinHamiltonian.from_shells(lattice(), [(2.5, J), (5.0, 0.3 * J)])
    large, small = model.network(5), model.network(2)  # in the small one the second shell is the spin itself
    assert small.ordered_energy == pytest.approx(large.ordered_energy)
    assert small.constant == pytest.approx(-0.9 * J)
    assert large.constant == 0.0
    sampler = HeatBath([small, large], replicas([UNIT], 0, 1, "x"))
    np.testing.assert_allclose(sampler.energies()[:, 0] / torch.tensor([8, 125]), -3.9 * J, rtol=1e-6)
    lone = model.network(1)
    assert (len(lone), lone.ordered_energy) == (1, pytest.approx(-3.9 * J))


def test_pairs_of_small_supercells_are_merged():
    """Six neighbours of a cube of 2³ cells are three, each twice; the energy of any configuration stays."""
    net = SpinHamiltonian.from_shells(lattice(), [(2.5, J)]).network(2)
    assert net.neighbors.shape == (8, 3)
    assert np.allclose(net.exchange, 2 * J)


def test_what_all_pairs_share_is_computed_once():
    """46,746 pairs took twelve minutes because each of them asked for the block of cells anew."""
    model = SpinHamiltonian.from_shells(lattice("fcc"), [(2.5 * 0.5**0.5, J), (2.5, J)])
    assert model.block is model.block
    net = model.network(3)
    assert net.ordered_energy == pytest.approx(-0.5 * 18 * J)


def test_workflow_finds_the_transition_of_the_simple_cubic_lattice():
    """k T_C = 1.443 J'; small sizes and short chains: within 4 %. The slow benchmark asks for 1 %."""
    model = HeisenbergModel(exchange_shells=[(2.5, J)], unit_vectors=True)
    settings = {"magmoms": "fixed", "cutoff": 3.0, "sizes": (4, 6), "sweeps": 250}
    results = Curie(model, **settings).run([lattice(), Atoms("Fe", magmoms=[2.0])])
    result, failed = results
    assert isinstance(result, CurieResult)
    assert result.mean_field == pytest.approx(2 * UNIT)
    crossing_value = result.temperature.crossings[0]
    assert crossing_value.mean == pytest.approx(1.443 * UNIT, rel=0.04)
    assert crossing_value.mean < result.mean_field
    assert [len(row) for row in result.points] == [26, 26]  # 17 temperatures, and 9 around the transition
    low = result.points[-1][0]
    assert low.values["order"].mean > 0.9
    assert low.values["heat_capacity"].mean == pytest.approx(1.0, abs=0.25)  # two quadratic modes per spin
    assert failed.status is CurieStatus.FAILED
    assert "periodic" in failed.message
    with pytest.raises(ConfigError):
        Curie(model, method="guess")
    with pytest.raises(ConfigError):
        Curie(model, method="direct", moves="local", lattice="moving")
