"""How often solvers make a GPU wait, counted on a pretended one; pairs that are kept while nothing moves far."""

import itertools
import re

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from embedded import IRON_MODEL
from hypothesis import given, settings
from hypothesis import strategies as st

from mmace_sim.base.devices import uploaded
from mmace_sim.engine.batching import RefillingBatch
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.batch import MagneticGraph
from mmace_sim.model.checkpoint import load_model
from mmace_sim.model.config import ModelConfig
from mmace_sim.model.derivatives import evaluate
from mmace_sim.model.magnetic_mace import MagneticMACE
from mmace_sim.properties.md.dynamics import MolecularDynamics
from mmace_sim.properties.relax.relaxation import Relaxation
from mmace_sim.sampling.chains import Chain
from mmace_sim.sampling.hmc import HybridMonteCarlo
from mmace_sim.sampling.surface import Supercells
from mmace_sim.testing import HostReads, PretendedGpu
from mmace_sim.testing.pretended import DEVICE, moved_to_pretended
from mmace_sim.torchsim import adiabatic
from mmace_sim.torchsim.adiabatic import AdiabaticModel
from mmace_sim.torchsim.model import MagneticMaceModel
from mmace_sim.torchsim.pairs import PairKeeper
from mmace_sim.torchsim.state import initialize_state
from mmace_sim.torchsim.trial import small_exponential, trial_state

KEPT = {"skin": 0.5, "backend": "torch"}
"""What a GPU does, on the CPU."""


def iron(n=6):
    images = []
    for k in range(n):
        atoms = bulk("Fe", "bcc", a=2.75 + 0.02 * k, cubic=True).repeat((1, 1, 1 + k % 2))
        atoms.rattle(0.05, seed=k)
        set_magmoms(atoms, np.random.default_rng(k).normal([0, 0, 2.0], size=(len(atoms), 3)))
        images.append(atoms)
    return images


def on_a_gpu(model=IRON_MODEL):
    """A model on the pretended GPU, to be made while that is entered."""
    return moved_to_pretended(load_model(model) if isinstance(model, str) else model)


class StopHere(Exception):  # noqa: N818 no error
    """Ends a run in the middle."""


def waits_per_step(run, monkeypatch, *, n_steps=7, skip=3):
    """Reads of the host, and copies from it, between the starts of two steps, after some in which what is kept is
    made; structures that enter in between count too."""
    counts, advance = [], RefillingBatch.advance

    def counted(self):
        counts.append(reads.total)
        if len(counts) > n_steps:
            raise StopHere
        advance(self)

    monkeypatch.setattr(RefillingBatch, "advance", counted)
    with PretendedGpu(), HostReads() as reads, pytest.raises(StopHere):
        run()
    return np.diff(counts)[skip:], reads


def test_waiting_structures_are_not_measured_at_every_step(monkeypatch):
    def run():
        Relaxation(on_a_gpu(), force_tol=1e-9, max_batch_atoms=6).run(iron(6))

    steps, reads = waits_per_step(run, monkeypatch)
    assert np.median(steps) <= 2, reads.where
    assert any(re.match(r"\w+ at torchsim/\w+\.py:\d+ \w", line) for line in reads.where), reads.where


@pytest.mark.parametrize("load", [load_model, on_a_gpu], ids=["cpu", "gpu"])
@pytest.mark.parametrize("stability", [False, True])
def test_relaxation_waits_at_most_three_times_a_step(load, stability, monkeypatch):
    def run():
        Relaxation(load(IRON_MODEL), stability=stability, force_tol=1e-9).run(iron())

    steps, reads = waits_per_step(run, monkeypatch)
    assert np.median(steps) <= 2, reads.where
    searches = 20 if load is on_a_gpu else 0  # reads of a search for pairs, now and then
    assert steps.max() <= 3 + searches, reads.where


@pytest.mark.parametrize("stability", [False, True])
def test_adiabatic_relaxation_waits_thrice_a_step_and_once_for_each_inner_one(stability, monkeypatch):
    inner, step = [0], adiabatic.moment_lbfgs_step

    def counted(*args, **kwargs):
        inner[-1] += 1
        return step(*args, **kwargs)

    def advance(self, state, **kwargs):
        inner.append(0)
        return forward(self, state, **kwargs)

    def run():
        Relaxation(
            on_a_gpu(), magmoms="adiabatic", stability=stability, force_tol=1e-9, magforce_tol=0.02
        ).run(iron(3))

    monkeypatch.setattr(adiabatic, "moment_lbfgs_step", counted)
    forward = AdiabaticModel.forward
    monkeypatch.setattr(AdiabaticModel, "forward", advance)
    steps, reads = waits_per_step(run, monkeypatch)
    assert sum(inner[-len(steps) :]) > 0
    searches = 12  # reads of a search for pairs, now and then
    late = steps - np.array(inner[-len(steps) :])
    assert np.median(late) <= 3, reads.where
    assert late.max() <= 3 + searches, reads.where


@pytest.mark.parametrize(
    "spins", [{"spins": "frozen"}, {"spins": "llg", "solver": "sib"}, {"spins": "llg"}], ids=str
)
@pytest.mark.parametrize("ensemble", ["nve", "npt"])
def test_dynamics_wait_at_most_twice_a_step_and_four_times_with_moments(spins, ensemble, monkeypatch):
    """And once for each iteration of the implicit step, which must know whether it is the last."""
    evaluations = []
    step = MolecularDynamics.step

    def counted(self, state):
        before = int(state.moment_evaluations.max())
        state = step(self, state)
        evaluations.append(int(state.moment_evaluations.max()) - before)
        return state

    def run():
        MolecularDynamics(
            on_a_gpu(), ensemble=ensemble, n_steps=100, record_every=100, moment_tol=1e-3, **spins
        ).run(iron(2))

    monkeypatch.setattr(MolecularDynamics, "step", counted)
    steps, reads = waits_per_step(run, monkeypatch, n_steps=5, skip=2)
    ours = 2  # of the wrapper above
    decisions = 0 if spins.get("solver") == "sib" else np.array(evaluations[-len(steps) :])
    assert (steps - ours - decisions).max() <= (2 if spins["spins"] == "frozen" else 4), reads.where


@pytest.mark.parametrize("lattice", ["fixed", "moving", "free"])
def test_a_trajectory_waits_at_most_four_times_and_once_for_each_place_of_the_atoms(lattice):
    crystal = iron(2)[1]
    crystal.arrays["initial_magmoms"][:] = [0.0, 0.0, 2.2]
    n_steps, n_trajectories = 2, 2
    with PretendedGpu():
        cells = Supercells(on_a_gpu(), [crystal], [Chain(300.0), Chain(500.0)])
        sampler = HybridMonteCarlo(cells, lattice=lattice, n_steps=n_steps, step=0.05, n_adapt=3)
        sampler.advance(0, 1)  # makes what is kept
        with HostReads() as reads:
            sampler.advance(1, n_trajectories)
    places = {"fixed": 0, "moving": n_steps, "free": n_steps + 1}[lattice]  # are all pairs still there?
    start = 2
    assert reads.total <= n_trajectories * (4 + places) + start, reads.where


@pytest.mark.parametrize("n_elements", [1, 2])
def test_parts_of_a_batch_are_evaluated_without_waiting(n_elements):
    model, images = load_model(IRON_MODEL), iron(4)
    if n_elements == 2:
        model = MagneticMACE(
            ModelConfig(atomic_numbers=[26, 27], hidden_irreps="2x0e", radial_mlp=[4])
        ).double()
        for atoms in images:
            atoms.numbers[0] = 27
    with PretendedGpu():
        tsm = MagneticMaceModel(on_a_gpu(model))
        state = initialize_state(images, device=DEVICE, dtype=torch.float64)
        tsm(state)
        tsm(state, systems=[0])
        with HostReads() as reads:
            for systems in ([1, 3], [1, 3], [2]):
                tsm(state, systems=systems, moments_only=True)
    assert reads.total == 0, reads.where


def assert_each(cases, total):
    """Each case is as many reads or copies."""
    for k, case in enumerate(cases):
        with HostReads() as reads:
            case()
        assert reads.total == total, (k, reads.where)


def test_what_counts_as_a_copy():
    x = torch.arange(6.0)
    with PretendedGpu():
        there, rows = x.to(DEVICE), torch.tensor([0, 1])
        cases = [
            lambda: x.to(DEVICE), lambda: torch.as_tensor(x.numpy(), device=DEVICE), lambda: there[rows],
            lambda: torch.tensor([1.0, 2.0], device=DEVICE), lambda: there.new_tensor(3.0), lambda: there[[0, 1]],
            lambda: there.clone().copy_(x), lambda: torch.eye(3).to(there), there.cpu, lambda: there.to("cpu"),
            lambda: x.to(DEVICE, non_blocking=True), there[0].item, there.tolist, lambda: there[there > 2],
        ]  # fmt: skip
        assert_each(cases, 1)
        quiet = [
            lambda: torch.eye(3, device=DEVICE), lambda: there.new_full((), 3.0), lambda: there.to(DEVICE),
            lambda: there * x[1], lambda: uploaded(x, DEVICE), lambda: uploaded(there, DEVICE), lambda: there[1:],
            there.double, lambda: x.to("cpu"), lambda: uploaded(x.numpy(), DEVICE, dtype=torch.float64),
        ]  # fmt: skip
        assert_each(quiet, 0)
        assert torch.equal(uploaded(x, DEVICE).cpu(), x)


def test_what_counts_as_a_read():
    x = torch.arange(6.0)
    cases = [
        x[0].item, lambda: bool(x.any()), lambda: float(x.sum()), x.tolist, x.cpu,
        lambda: torch.nonzero(x), lambda: x[x > 2], lambda: torch.equal(x, x), lambda: torch.bincount(x.long()),
        lambda: x.long().unique(), lambda: torch.repeat_interleave(x, x.long()),
        lambda: x.index_put((x > 2,), x[:3].clone()), lambda: torch.linalg.eigh(torch.eye(3)),
    ]  # fmt: skip
    assert_each(cases, 1)
    quiet = [
        lambda: x + 1, lambda: torch.where(x > 2, x, 0.0), lambda: x.index_add(0, x.long(), x), lambda: x[2:],
        lambda: x.clone().masked_fill_(x > 2, 0.0), lambda: x[x.long()], lambda: x.repeat_interleave(2),
        lambda: torch.linalg.det(torch.eye(3)), lambda: small_exponential(torch.zeros(2, 3, 3)),
    ]  # fmt: skip
    assert_each(quiet, 0)


@pytest.fixture(scope="module")
def reference():
    return Relaxation(IRON_MODEL, stability=True).run(iron())


@pytest.mark.parametrize("how", [{}, {"skin": 0.4}, KEPT, {"backend": "torch"}], ids=str)
def test_relaxations_do_not_depend_on_how_pairs_are_kept(how, reference):
    model = MagneticMaceModel(IRON_MODEL, **how)
    results = Relaxation(model, stability=True).run(iron())
    for a, b in zip(reference, results, strict=True):
        assert a.status == b.status
        assert abs(a.energy - b.energy) < 1e-9
        np.testing.assert_allclose(a.atoms.positions, b.atoms.positions, atol=1e-6)
    if how.get("skin"):
        assert model.pairs.n_searches < max(r.steps for r in results) / 2


PBC = list(itertools.product((False, True), repeat=3))


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), pbc=st.sampled_from(PBC), skin=st.sampled_from([0.1, 0.5]))
def test_kept_pairs_miss_none(seed, pbc, skin):
    """Random walks of atoms and cell: within the cutoff, the pairs are those of a new search, at any time."""
    rng = np.random.default_rng(seed)
    images = []
    for n in (1, 3, 5):
        cell = np.diag(rng.uniform(2.0, 4.0, 3)) + 0.3 * rng.normal(size=(3, 3))
        atoms = Atoms(f"Fe{n}", positions=rng.uniform(-1, 2, size=(n, 3)) @ cell, cell=cell, pbc=pbc)
        set_magmoms(atoms, rng.normal(size=(n, 3)))
        images.append(atoms)
    state = initialize_state(images, device="cpu", dtype=torch.float64)
    keeper, fresh = PairKeeper(3.5, skin=skin), PairKeeper(3.5, skin=0.0)
    magmoms = state.magnetic_moments
    for k in range(12):
        step = 0.02 * torch.as_tensor(rng.normal(size=state.positions.shape))
        strain = 0.004 * torch.as_tensor(rng.normal(size=(3, 3, 3))) * (k % 3 == 0) * all(pbc)
        one = torch.eye(3).double() + strain
        where = torch.einsum("nij,nj->ni", one[state.system_idx], state.positions) + step
        state = trial_state(state, magmoms, positions=where, cell=one @ state.cell)
        assert within(keeper.graph(state, magmoms), 3.5) == within(fresh.graph(state, magmoms), 3.5)
    assert keeper.n_searches <= fresh.n_searches


def within(graph, r_max):
    lengths = graph.edge_vectors().norm(dim=1)
    assert graph.reference_lengths.shape == lengths.shape
    assert ((graph.reference_lengths - lengths) <= graph.margin + 1e-9).all()
    rows = torch.cat([graph.edge_index.T, graph.edge_shifts.long()], dim=1)[lengths < r_max]
    return set(map(tuple, rows.tolist()))


def test_what_is_changed_in_place_is_seen():
    """The same tensors are not asked about again, unless somebody has written to them."""
    model = MagneticMaceModel(IRON_MODEL, skin=0.3)
    state = initialize_state(iron(2), device="cpu", dtype=torch.float64)
    first = model(state)["energy"].clone()
    with HostReads() as reads:
        assert torch.equal(model(state)["energy"], first)
    assert reads.total == 1  # the comparison
    state.positions[0, 0] += 0.02
    second = model(state)["energy"]
    assert (second - first).abs().max() > 1e-6
    assert model.pairs.n_searches == 1
    state.positions[0, 0] += 0.5
    third = model(state)["energy"]
    assert model.pairs.n_searches == 2
    fresh = MagneticMaceModel(IRON_MODEL)(state)["energy"]
    torch.testing.assert_close(third, fresh, rtol=0, atol=1e-9)
    state.cell[0] *= 1.02
    torch.testing.assert_close(
        model(state)["energy"], MagneticMaceModel(IRON_MODEL)(state)["energy"], rtol=0, atol=1e-9
    )


def test_inference_tensors_and_other_batches_are_told_apart():
    model = MagneticMaceModel(IRON_MODEL, skin=0.3)
    plain = initialize_state(iron(3), device="cpu", dtype=torch.float64)
    expected = model(plain)["energy"]
    with torch.inference_mode():
        inside = initialize_state(iron(3), device="cpu", dtype=torch.float64)
        torch.testing.assert_close(model(inside)["energy"], expected)
        torch.testing.assert_close(model(inside)["energy"], expected)
    for part in (plain[[1]], plain[[2, 0]], plain):
        torch.testing.assert_close(model(part)["energy"], MagneticMaceModel(IRON_MODEL)(part)["energy"])


def test_moments_alone_give_the_same_magforces():
    model = MagneticMaceModel(IRON_MODEL)
    state = initialize_state(iron(3), device="cpu", dtype=torch.float64)
    full, alone = model(state), model(state, moments_only=True)
    assert "forces" not in alone
    assert "stress" not in alone
    torch.testing.assert_close(alone["magforces"], full["magforces"], rtol=0, atol=1e-12)
    assert torch.equal(alone["energy"], full["energy"])


@pytest.mark.parametrize("how", [{}, {"skin": 0.4}, KEPT], ids=str)
@pytest.mark.parametrize("moments_only", [False, True])
def test_some_systems_of_a_batch_are_evaluated_as_all_are(how, moments_only):
    model = MagneticMaceModel(IRON_MODEL, **how)
    images = iron(4)
    images[1].positions[1] = images[1].positions[0] + [1.3, 0.2, 0.0]  # closer than the data
    state = initialize_state(images, device="cpu", dtype=torch.float64)
    whole = model(state, moments_only=moments_only)
    for systems in ([1], [0, 3], [1, 2, 3], [0, 1, 2, 3]):
        part = model(state, moments_only=moments_only, systems=systems)
        assert part.keys() == whole.keys()
        chosen = torch.isin(torch.arange(4), torch.tensor(systems))
        for name, value in whole.items():
            rows = chosen[state.system_idx] if len(value) == state.n_atoms else chosen
            torch.testing.assert_close(part[name][rows], value[rows], rtol=0, atol=1e-9)
            assert part[name][~rows].isnan().all()
    torch.testing.assert_close(model(state)["energy"], whole["energy"], rtol=0, atol=0)


def test_what_is_kept_belongs_to_its_pairs():
    """A graph made from another by exchanging the pairs or the elements takes nothing over."""
    model = load_model(IRON_MODEL)
    state = initialize_state(iron(3), device="cpu", dtype=torch.float64)
    keeper = PairKeeper(model.r_max)
    graph = keeper.graph(state, state.magnetic_moments)
    evaluate(model, graph)
    half = graph.edge_vectors().norm(dim=1) < 3.0
    other = MagneticGraph(
        **{k: v for k, v in vars(graph).items() if k not in ("edge_index", "edge_shifts", "pair_counts", "margin", "reference_lengths", "shortest")},
        edge_index=graph.edge_index[:, half], edge_shifts=graph.edge_shifts[half],
    )  # fmt: skip
    assert other.kept is graph.kept
    fresh = MagneticGraph(**{k: v for k, v in vars(other).items() if k != "kept"})
    torch.testing.assert_close(evaluate(model, other)["energy"], evaluate(model, fresh)["energy"])
    assert (evaluate(model, other)["energy"] - evaluate(model, graph)["energy"]).abs().max() > 1e-3


def test_exponentials_of_strains():
    matrices = torch.randn(40, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrices = matrices * torch.logspace(-8, 0.0, 40, dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(
        small_exponential(matrices), torch.matrix_exp(matrices), rtol=1e-13, atol=1e-14
    )
