"""Monte Carlo on the energy of a model: local moves and hybrid moves against each other and against exact results."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from cli_tools import write_tiny_model
from embedded import IRON_MODEL

from mmace_sim.errors import OutputError, StructureError, UnsupportedElementError, UnsupportedOptionError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.model.checkpoint import load_model
from mmace_sim.model.config import ModelConfig
from mmace_sim.model.magnetic_mace import MagneticMACE
from mmace_sim.model.pair_sums import PairSums
from mmace_sim.properties.curie.temperatures import Curie
from mmace_sim.sampling.chains import Chain, replicas, run_blocks
from mmace_sim.sampling.correlation import autocorrelation_time
from mmace_sim.sampling.hamiltonian import SpinHamiltonian
from mmace_sim.sampling.heatbath import HeatBath
from mmace_sim.sampling.hmc import HybridMonteCarlo
from mmace_sim.sampling.local import LocalMoves
from mmace_sim.sampling.local_energy import KeptSums, find_colors, local_energies, reach
from mmace_sim.sampling.statistics import points
from mmace_sim.sampling.surface import Supercells, reference_signs
from mmace_sim.testing import HeisenbergModel
from mmace_sim.units import BOLTZMANN_EV_PER_K

J = 0.02
UNIT = J / BOLTZMANN_EV_PER_K


def cubic(repeat=3, moment=2.0, a=2.5, name="sc"):
    atoms = bulk("Fe", name, a=a)
    atoms.arrays.pop("initial_magmoms", None)
    set_magmoms(atoms, [moment] * len(atoms))
    return atoms.repeat(repeat)


def toy(**options):
    return HeisenbergModel(
        exchange_shells=[(2.5, J)],
        unit_vectors=True,
        energy_per_atom=0.0,
        **({"morse": (0.0, 1.4, 2.5), "landau": (0.0, 0.0)} | options),
    )


def sampled(sampler, n_equilibration, n_sweeps):
    series = run_blocks(sampler, n_equilibration, n_sweeps)
    return points(series, sampler.cells.chains, sampler.cells.n_atoms)


@pytest.fixture
def in_one_batch(monkeypatch):
    """All chains are evaluated together, as on a GPU: more samples for the same number of calls of the model."""
    monkeypatch.setattr(Supercells, "batches", lambda cells: [range(len(cells))])


@pytest.fixture(scope="module")
def exact():
    """Heat bath on the toy's own exchange: the same distribution by other means."""
    model = SpinHamiltonian.from_shells(cubic(1), [(2.5, J)])
    chains = replicas([0.8 * UNIT, 2 * UNIT], 5, 20, "toy")
    sampler = HeatBath([model.network(3)], chains)
    return points(run_blocks(sampler, 30, 150), chains, sampler.sizes)[0]


def compare(row, exact, keys=("energy", "order", "binder")):
    for point, reference in zip(row, exact, strict=True):
        for key in keys:
            a, b = point.values[key], reference.values[key]
            assert abs(a.mean - b.mean) < 4.5 * np.hypot(a.error, b.error), (key, point.temperature, a, b)
        assert point.values["energy"].error < 0.1 * abs(reference.values["energy"].mean)


@pytest.mark.usefixtures("in_one_batch")
def test_hybrid_moves_sample_the_heat_bath_distribution(exact):
    chains = replicas([0.8 * UNIT, 2 * UNIT], 1, 3, "toy")
    sampler = HybridMonteCarlo(Supercells(toy(), [cubic()], chains), n_steps=6, n_adapt=30)
    (row,) = sampled(sampler, 30, 55)
    compare(row, exact)
    assert all(point.values["acceptance"].mean > 0.4 for point in row)
    assert all(point.values["length"].mean == pytest.approx(2.0) for point in row)


def test_local_moves_sample_the_heat_bath_distribution(exact):
    chains = replicas([0.8 * UNIT, 2 * UNIT], 1, 4, "toy")
    sampler = LocalMoves(Supercells(toy(), [cubic()], chains), step=0.8, n_adapt=25)
    (row,) = sampled(sampler, 30, 50)
    compare(row, exact)
    assert all(0.3 < point.values["acceptance"].mean < 0.7 for point in row)


@pytest.mark.usefixtures("in_one_batch")
@pytest.mark.parametrize("engine", [HybridMonteCarlo, LocalMoves])
def test_lengths_of_free_moments_have_the_landau_distribution(engine):
    """⟨m²⟩ of p ∝ m² exp(−β(a m² + b m⁴)): the measure is d³m."""
    a, b, temperature = -0.1, 0.05, 600.0
    beta = 1 / (BOLTZMANN_EV_PER_K * temperature)
    m = np.linspace(0, 6, 20001)
    weight = m**2 * np.exp(-beta * (a * m**2 + b * m**4))
    mean = np.trapezoid(m * weight, m) / np.trapezoid(weight, m)
    energy = np.trapezoid((a * m**2 + b * m**4) * weight, m) / np.trapezoid(weight, m)
    model = HeisenbergModel(
        exchange_shells=[(2.5, 0.0)], energy_per_atom=0, morse=(0, 1.4, 2.5), landau=(a, b)
    )
    cells = Supercells(model, [cubic()], replicas([temperature], 0, 3, "x"))
    sampler = engine(cells, lengths="variable", step=0.5, n_adapt=30)
    ((point,),) = sampled(sampler, 40, 40)
    for key, exact_value in (("length", mean), ("energy", energy)):
        value = point.values[key]
        assert abs(value.mean - exact_value) < 4.5 * value.error
    assert point.values["length"].error < 0.02 * mean


def harmonic():
    """Nearly harmonic fcc crystal."""
    atoms = bulk("Fe", "fcc", a=2.5 * 2**0.5, cubic=True)
    atoms.arrays.pop("initial_magmoms", None)
    set_magmoms(atoms, [1.0] * 4)
    return atoms


@pytest.mark.usefixtures("in_one_batch")
def test_moving_atoms_obey_equipartition():
    """½ kT of potential energy above the minimum for each mode, in a stiff crystal at a low temperature."""
    model, temperature = toy(landau=(-0.2, 0.1), morse=(0.4, 1.4, 2.5)), 10.0
    atoms = harmonic()
    cells = Supercells(model, [atoms], replicas([temperature], 0, 4, "x"))
    ground = float(cells.evaluate(cells.moments)[0][0])
    sampler = HybridMonteCarlo(cells, lattice="moving", n_steps=6, n_adapt=40)
    ((point,),) = sampled(sampler, 60, 75)
    kt, n = BOLTZMANN_EV_PER_K * temperature, len(atoms)
    # two directions of each moment, three of each atom, none of the whole: turns of all moments and translations
    degrees = (3 * n - 3) + (2 * n - 2)
    value = point.values["energy"]
    assert abs(n * value.mean - ground - 0.5 * degrees * kt) < 4.5 * n * value.error
    assert n * value.error < 0.05 * degrees * kt


@pytest.mark.usefixtures("in_one_batch")
def test_volume_moves_sample_an_ideal_gas():
    """Without interactions p(V) ∝ V^N exp(−PV/kT) has no mean at zero pressure: detailed balance of one move instead.

    With E = K (ln V/V₀)²/2 the mean of ln V is (N + 1) kT/K above ln V₀.
    """
    stiff, temperature = 40.0, 800.0

    class Stiff(torch.nn.Module):
        species_table, elements, r_max = toy().species_table, [26], 3.0
        dtype, device = torch.float64, torch.device("cpu")

        def forward(self, graph, edge_vectors=None):
            energy = 0.5 * stiff * torch.log(torch.linalg.det(graph.cell) / volume0) ** 2
            if edge_vectors is not None:
                energy = energy + 0 * edge_vectors.sum() + 0 * graph.magmoms.sum()
            return {"energy": energy, "node_energy": energy[graph.system_idx] / len(atoms)}

    atoms = cubic(2)
    volume0 = atoms.get_volume()
    cells = Supercells(Stiff(), [atoms], replicas([temperature], 0, 8, "x"))
    sampler = HybridMonteCarlo(cells, lattice="free", n_steps=1, n_adapt=50)
    values = run_blocks(sampler, 50, 100).counted["volume"][:, 0, :]
    kt = BOLTZMANN_EV_PER_K * temperature
    logs = np.log(values * len(atoms) / volume0)
    assert logs.mean() == pytest.approx((len(atoms) + 1) * kt / stiff, abs=0.005)
    assert logs.var() == pytest.approx(kt / stiff, rel=0.3)


def network(kind):
    """The embedded model of iron, one with a spin–orbit term and two elements, one with two layers, which keeps no sums.

    With a repulsion, half of the pairs of bcc are below its onset, and some energies below the floor.
    """
    if kind.endswith("repulsion"):
        model = network(kind.removesuffix(" repulsion"))
        model.config = model.config.model_copy(update={"repulsion": {}})
        model.set_limits(repulsion={"Cr-Cr": 2.6, "Cr-Fe": 2.7, "Fe-Fe": 2.6}, energy_floor={26: -0.2})
        return model
    if kind == "iron":
        return load_model(IRON_MODEL)
    torch.manual_seed(0)
    shared = {"radial_mlp": [8], "max_ell": 2, "MLP_irreps": "4x0e", "spin_channels": 2, "spin_max_ell": 1}
    if kind == "two layers":
        return MagneticMACE(
            ModelConfig(atomic_numbers=[26], max_moment={26: 3.0}, r_max=2.7, hidden_irreps="4x0e",
                        num_interactions=2, correlation=2, **shared)
        )  # fmt: skip
    config = ModelConfig(atomic_numbers=[24, 26], max_moment={24: 2.0, 26: 3.0}, r_max=4.2, num_interactions=1,
                         hidden_irreps="4x0e+4x1o", spin_orbit=True, spin_orbit_channels=2, **shared)  # fmt: skip
    model = MagneticMACE(config)
    torch.nn.init.normal_(model.spin_orbit_term.readout)
    return model


def supercell(model, repeat, *, seed=0):
    """Shaken bcc crystal with moments in all directions; thin enough that atoms are neighbours of their own images."""
    rng = np.random.default_rng(seed)
    atoms = cubic(1, name="bcc", a=2.87).repeat(repeat)
    atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    if len(model.elements) > 1:
        atoms.numbers[::3] = model.elements[0]
    cells = Supercells(model, [aligned(atoms)], [Chain(300.0)])
    graph = cells.batch_graph((0,))
    graph.magmoms = torch.as_tensor(rng.normal(size=(len(atoms), 3)))
    return graph


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize(
    ("kind", "repeat"),
    [
        ("iron", (11, 1, 1)),
        ("spin-orbit", (11, 1, 1)),
        ("two layers", (17, 1, 1)),
        ("iron repulsion", (11, 1, 1)),
        ("spin-orbit repulsion", (11, 1, 1)),
        ("two layers repulsion", (17, 1, 1)),
    ],
)
def test_local_changes_are_those_of_the_whole(kind, repeat, fixed):
    """With kept sums over neighbours and without, for moments that turn and that change in every way."""
    model = network(kind)
    graph = supercell(model, repeat)
    colors = find_colors(graph, reach(model, graph))
    (local,) = local_energies(model, [graph], colors, fixed_lengths=fixed)
    assert isinstance(local, KeptSums) == (not kind.startswith("two layers"))
    assert sorted(torch.cat([c.atoms for c in local.colors]).tolist()) == list(range(graph.n_atoms))
    assert max(len(c.atoms) for c in local.colors) > 1
    generator = torch.Generator().manual_seed(0)
    whole = graph.magmoms.clone()
    for k in sorted(range(len(local.colors)), key=lambda k: -len(local.colors[k].atoms))[:3]:
        color = local.colors[k]
        moments = torch.randn(len(color.atoms), 3, generator=generator, dtype=torch.float64)
        if fixed:
            moments *= (whole[color.atoms].norm(dim=1) / moments.norm(dim=1))[:, None]
        proposal = local.propose(k, moments)
        with torch.no_grad():
            before = model(replace(graph, magmoms=whole))["energy"]
            for change, atom, moment in zip(proposal.changes, color.atoms, moments, strict=True):
                trial = whole.clone()
                trial[atom] = moment
                exact = float(model(replace(graph, magmoms=trial))["energy"] - before)
                assert abs(exact) > 1e-6
                assert float(change) == pytest.approx(exact, abs=1e-10)
        flags = torch.arange(len(color.atoms)) % 2 == 0
        local.accept(k, moments, flags, proposal)
        whole[color.atoms[flags]] = moments[flags]
        assert torch.equal(local.graph.magmoms, whole)
        kept = local.node_energy.clone()
        local.refresh()
        assert (kept - local.node_energy).abs().max() < 1e-10
    n_centres = sum(len(color.centres) for color in local.colors)
    assert n_centres > sum(
        len(color.atoms) for color in local.colors
    )  # without kept sums a sweep sums more often


def tiny_chain(model, temperatures, *, lengths="fixed"):
    atoms = cubic(1, name="bcc", a=2.87).repeat(2)
    return LocalMoves(Supercells(model, [atoms], replicas(temperatures, 0, 1, "x")), lengths=lengths)


@pytest.mark.parametrize("lengths", ["fixed", "variable"])
def test_kept_sums_make_the_same_chain(lengths, tmp_path, monkeypatch):
    """The same moves are accepted as by energies of the atoms within reach, so that all averages are the same."""
    model = load_model(write_tiny_model(tmp_path / "m.safetensors"))
    kept = tiny_chain(model, [3.0, 12.0], lengths=lengths)
    assert isinstance(kept.local[0], KeptSums)
    monkeypatch.setattr(PairSums, "offered_by", lambda _: False)
    plain = tiny_chain(model, [3.0, 12.0], lengths=lengths)
    assert not isinstance(plain.local[0], KeptSums)
    found, expected = (sampler.advance(0, 4) for sampler in (kept, plain))
    assert 0.1 < expected["acceptance"].mean() < 0.9
    for key, values in expected.items():
        assert np.allclose(found[key], values, rtol=0, atol=1e-9)


def test_fixed_lengths_do_not_drift_in_single_precision(tmp_path):
    model = load_model(write_tiny_model(tmp_path / "m.safetensors"), dtype=torch.float32)
    sampler = tiny_chain(model, [400.0])
    before = torch.linalg.norm(sampler.cells.moments.double(), dim=1)
    sampler.advance(0, 60)
    after = torch.linalg.norm(sampler.cells.moments.double(), dim=1)
    assert (after / before - 1).abs().max() < 1.5e-7


def test_each_block_sums_afresh_what_rounding_left(tmp_path):
    """Errors of kept sums are small in single precision, and none outlives a block."""
    model = load_model(write_tiny_model(tmp_path / "m.safetensors"), dtype=torch.float32)
    sampler = tiny_chain(model, [400.0], lengths="variable")
    sampler.advance(0, 20)
    (local,) = sampler.local
    kept, energies = [values.clone() for values in local.sums], local.node_energy.clone()
    local.refresh()
    for old, new in zip(kept, local.sums, strict=True):
        assert 0 < (old - new).abs().max() < 2e-5 * new.abs().max()
    assert (energies - local.node_energy).abs().max() < 1e-5
    for values in local.sums:
        values += 0.1  # whatever went wrong before
    energy = sampler.advance(1, 1)["energy"][0, 0, 0]
    whole, _, _ = sampler.cells.evaluate(sampler.cells.moments, gradients=False)
    assert energy == pytest.approx(float(whole) / 8, abs=1e-6)


def test_chains_in_one_batch_are_those_alone(tmp_path, monkeypatch):
    """Chains of the same size move in one call of the model; three in batches of two leave one alone."""
    model = load_model(write_tiny_model(tmp_path / "m.safetensors"))
    temperatures = [3.0, 6.0, 12.0]
    together = tiny_chain(model, temperatures)
    assert together.members == [(0, 1, 2)]
    found = together.advance(0, 4)
    monkeypatch.setattr("mmace_sim.sampling.local._BATCH", 16)
    pairs = tiny_chain(model, temperatures)
    assert pairs.members == [(0, 1), (2,)]
    expected = pairs.advance(0, 4)
    for key, values in expected.items():
        assert np.allclose(found[key], values, rtol=0, atol=1e-9)
        alone = tiny_chain(model, temperatures[1:2]).advance(0, 4)
        assert np.allclose(found[key][:, 0, 1], alone[key][:, 0, 0], rtol=0, atol=1e-9)


def test_reach_of_models_that_do_not_tell():
    graph = supercell(toy(), (5, 5, 5))

    class Bare(torch.nn.Module):
        """What `config` told is hidden."""

        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, graph):
            return self.model(graph)

    class Everywhere(torch.nn.Module):
        def forward(self, graph):
            return {"node_energy": graph.magmoms.sum().expand(graph.n_atoms)}

    assert reach(network("two layers"), graph) == 2
    layered = network("two layers")
    wide = supercell(layered, (17, 1, 1))
    assert reach(Bare(layered), wide) == 2
    assert reach(Bare(network("iron")), supercell(network("iron"), (9, 1, 1))) == 1
    assert reach(Bare(toy()), graph) == 1
    with pytest.raises(UnsupportedOptionError, match="hybrid"):
        reach(Everywhere(), wide)


def aligned(atoms):
    """The same with collinear moments: supercells are made from an ordered reference."""
    reference = atoms.copy()
    set_magmoms(reference, [1.0] * len(atoms))
    return reference


@pytest.mark.parametrize("engine", [HybridMonteCarlo, LocalMoves])
def test_a_chain_is_alone_and_goes_on_where_it_was_killed(engine, tmp_path):
    def sampler(temperatures):
        return engine(Supercells(toy(), [cubic(2)], replicas(temperatures, 0, 1, "x")), n_adapt=3)

    temperatures = [UNIT, 1.5 * UNIT]
    whole = run_blocks(sampler(temperatures), 3, 5, block_sweeps=2).values
    alone = run_blocks(sampler(temperatures[1:]), 3, 5, block_sweeps=2).values
    path = tmp_path / "samples.npz"
    run_blocks(sampler(temperatures), 3, 1, block_sweeps=2, checkpoint=path)
    resumed = run_blocks(sampler(temperatures), 3, 5, block_sweeps=2, checkpoint=path).values
    for key, values in whole.items():
        assert np.array_equal(alone[key][:, 0, 0], values[:, 0, 1])
        assert np.array_equal(resumed[key], values)


def test_impossible_structures_and_options_are_refused():
    wrong = cubic(1)
    wrong.numbers[:] = 13
    with pytest.raises(UnsupportedElementError):
        Supercells(toy(), [wrong], [Chain(1.0)])
    cell = cubic(2)
    set_magmoms(cell, np.random.default_rng(0).normal(size=(8, 3)))
    with pytest.raises(StructureError, match="collinear"):
        reference_signs(cell)
    with pytest.raises(UnsupportedOptionError, match="lengths"):
        HybridMonteCarlo(Supercells(toy(), [cubic(2)], [Chain(1.0)]), lengths="long")


def test_observables_are_per_magnetic_atom(tmp_path):
    """Al without a moment beside Fe: energies, magnetisation and fluctuations count spins, as with exchange."""
    model = load_model(write_tiny_model(tmp_path / "m.safetensors"))
    cell = bulk("FeAl", "cesiumchloride", a=2.9)
    set_magmoms(cell, [2.0, 0.0])
    cells = Supercells(model, [cell.repeat(2)], [Chain(50.0)])
    assert (cells.n_atoms, cells.n_spins) == ([16], [8])
    energies = torch.tensor([-4.0], dtype=torch.float64)
    names = HybridMonteCarlo.records
    values = dict(zip(names, cells.observe(energies, torch.ones(1))[:, 0, 0], strict=True))
    assert values["energy"] == pytest.approx(-0.5)
    assert values["magnetization"] == values["length"] == pytest.approx(2.0)
    assert values["volume"] == pytest.approx(2.9**3 / 2)

    settings = {"temperatures": [50.0], "sizes": [2], "sweeps": 12, "magmoms": "fixed", "moves": "local"}
    workflow = Curie(model, method="direct", **settings)
    (result,) = workflow.run([cell], folder=tmp_path, names=["feal"])
    ((point,),) = result.points
    assert point.n_spins == 8
    with np.load(tmp_path / "feal" / "samples-1.npz") as file:
        order, energy = (file[f"value_{key}"][2:, 0, 0] for key in ("order", "energy"))
    kt = BOLTZMANN_EV_PER_K * 50.0
    # a mean of n samples takes τ/n of the variance
    free = [1 - min(autocorrelation_time(series) / len(series), 0.5) for series in (order, energy)]
    assert point.values["susceptibility"].mean == pytest.approx(8 * order.var() / kt / free[0])
    assert point.values["heat_capacity"].mean == pytest.approx(8 * energy.var() / kt**2 / free[1])
    with torch.no_grad():
        model.scale *= 1.5
    with pytest.raises(OutputError, match="another run"):
        workflow.run([cell], folder=tmp_path, names=["feal"])


@pytest.mark.parametrize("moves", ["hybrid", "local"])
def test_workflow_samples_the_energy_of_the_model(moves):
    settings = {"temperatures": [0.3 * UNIT, 3 * UNIT], "sizes": [2], "sweeps": 60, "magmoms": "fixed"}
    (result,) = Curie(toy(), method="direct", moves=moves, **settings).run([cubic(1)])
    cold, hot = result.points[0]
    assert cold.values["order"].mean > 0.85 > 0.7 > hot.values["order"].mean
    assert cold.n_spins == 8
    assert cold.values["volume"].mean == pytest.approx(2.5**3)
    assert result.temperature.best is None
    assert "one size only" in result.message
