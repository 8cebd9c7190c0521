"""Batches that refill: bad structures, lack of memory, and what of a failed attempt stays alive."""

import gc
import logging
import weakref

import numpy as np
import pytest
import torch
import torch_sim as ts
from cli_tools import bcc, molecule

from mmace_sim.engine.batching import RefillingBatch, failure_message
from mmace_sim.errors import StructureError
from mmace_sim.model.config import ModelConfig
from mmace_sim.model.magnetic_mace import MagneticMACE
from mmace_sim.properties.relax.structures import relax
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim import memory
from mmace_sim.torchsim.memory import available_memory, check_memory, is_out_of_memory, memory_scaler
from mmace_sim.torchsim.model import MagneticMaceModel
from mmace_sim.torchsim.state import MovingState, initialize_state, join_states

IMAGES = [bcc(a=2.8 + 0.01 * k) for k in range(6)]


def batch_of(start=None, init=None, step=None, n=6, **settings):
    failed, stepped = {}, []

    def counted_step(state):
        state = state if step is None else step(state)
        stepped.append(state.n_systems)
        return state

    batch = RefillingBatch(
        range(n),
        start or (lambda index: initialize_state([IMAGES[index]])),
        init=init or (lambda state: state),
        step=counted_step,
        fail=failed.__setitem__,
        **settings,
    )
    batch.stepped = stepped
    return batch, failed


def run_through(batch):
    """Finish every system after one step; returns the order."""
    order = []
    while batch.refill():
        assert batch.state is not None
        assert batch.state.n_systems == len(batch.indices) > 0
        n_stepped = len(batch.stepped)
        batch.advance()
        if len(batch.stepped) > n_stepped:
            order += [index for _, index, _ in batch.pop(list(range(len(batch.indices))))]
    return order


@pytest.mark.parametrize("bad", [{0}, {5}, {0, 1, 2}, {1, 4}, set(range(6)), set()])
@pytest.mark.parametrize("where", ["start", "init", "check"])
@pytest.mark.parametrize("max_atoms", [2, 4, None])
def test_bad_structures_anywhere(bad, where, max_atoms):
    """The first one bad, with others waiting, once ended the run: there was no state to go on with."""

    def raising(value):
        raise StructureError(f"{value} is bad")

    def start(index):
        if where == "start" and index in bad:
            raising(index)
        return initialize_state([IMAGES[index]])

    def check(state):
        cells = state.cell[:, 0, 0].tolist()
        if any(abs(cell - 2.8 - 0.01 * index) < 1e-6 for cell in cells for index in bad):
            raising(cells)
        return state

    batch, failed = batch_of(start, max_atoms=max_atoms, **({where: check} if where != "start" else {}))
    assert sorted(run_through(batch)) == sorted(set(range(6)) - bad)
    assert set(failed) == bad
    assert all("is bad" in failure_message(error) for error in failed.values())


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("no memory"), RuntimeError("can't allocate memory: 9 GB")]
)
@pytest.mark.parametrize("where", ["init", "step"])
def test_nothing_of_a_failed_attempt_stays_alive(error, where, caplog):
    alive = []

    def attempt(state):
        assert [reference for reference in alive if reference() is not None] == []
        large = torch.ones(1000)
        alive.append(weakref.ref(large))
        try:
            if state.n_systems > 1:
                raise ValueError("first") from error
        except ValueError:
            raise type(error)(*error.args)  # noqa: B904 with a context that has frames of its own
        return state

    gc.disable()  # nothing may wait for the collector
    try:
        with caplog.at_level(logging.WARNING):
            batch, failed = batch_of(**{where: attempt})
            assert sorted(run_through(batch)) == list(range(6))
    finally:
        gc.enable()
    assert failed == {}
    assert len(alive) > 6


def test_lack_of_memory_makes_batches_smaller():
    sizes = []

    def step(state):
        sizes.append(state.n_systems)
        if state.n_systems > 2:
            raise torch.OutOfMemoryError("no memory")
        return state

    batch, failed = batch_of(step=step)
    assert sorted(run_through(batch)) == list(range(6))
    assert failed == {}
    assert sizes[0] == 6
    assert max(sizes[2:]) <= 3


def test_one_that_is_too_large_fails_alone():
    def step(state):
        if (state.cell[:, 0, 0] > 2.835).any():
            raise torch.OutOfMemoryError("tried to allocate 80 GiB")
        return state

    batch, failed = batch_of(step=step)
    assert sorted(run_through(batch)) == [0, 1, 2, 3]
    assert set(failed) == {4, 5}
    assert "Take a smaller cell" in failure_message(failed[4])


def test_a_structure_that_waits_is_made_once():
    started = []

    def start(index):
        started.append(index)
        return initialize_state([IMAGES[index]])

    batch, failed = batch_of(start, max_atoms=4)
    while batch.refill():
        batch.advance()
        batch.advance()
        batch.refill()  # nothing fits
        list(batch.pop([0]))
    assert (started, failed) == (list(range(6)), {})


def test_velocities_of_some_structures():
    images = [bcc(), bcc(), bcc()]
    images[1].set_momenta(np.ones((2, 3)))
    for order in ([0, 1, 2], [1, 0, 2], [2, 0, 1]):
        states = [initialize_state([images[k]]) for k in order]
        joined = join_states(states)
        assert isinstance(joined, MovingState)
        assert joined.momenta.reshape(3, 6).sum(dim=1).tolist() == [6.0 if k == 1 else 0.0 for k in order]
        results = relax([images[k] for k in order], HeisenbergModel(), relax_cell=False, max_steps=2)
        assert [len(atoms) for atoms in results.atoms] == [2, 2, 2]
        assert {str(result.status) for result in results} <= {"converged", "max_steps"}
    assert type(join_states([initialize_state([bcc()])])) is ts.SimState


# --- memory ---------------------------------------------------------------------------------------------------------


def tiny():
    return MagneticMACE(
        ModelConfig(
            atomic_numbers=[26],
            r_max=4.0,
            hidden_irreps="4x0e",
            MLP_irreps="4x0e",
            radial_mlp=[8],
            max_ell=1,
            num_interactions=1,
            correlation=2,
            spin_channels=2,
            spin_max_ell=1,
            max_moment={26: 3.0},
        )
    )


def test_a_structure_larger_than_the_memory_is_refused(monkeypatch):
    model = MagneticMaceModel(tiny(), dtype=torch.float64)
    small, large = bcc(), bcc().repeat((6, 6, 6))
    per_atom = memory_scaler(initialize_state([small])) / 2
    monkeypatch.setattr(memory, "available_memory", lambda _: 5e6)
    assert per_atom == pytest.approx(memory_scaler(initialize_state([large])) / 432)
    result = relax([large, small], model, relax_cell=False, max_steps=0)
    assert [str(r.status) for r in result] == ["failed", "max_steps"]
    message = result[0].message
    assert "432 atoms" in message
    assert "0.0 GB are free on cpu" in message
    assert "float32" in message
    monkeypatch.setattr(memory, "available_memory", lambda _: 64e9)
    check_memory(initialize_state([large]), model)


def test_memory_that_is_there():
    free = available_memory(torch.device("cpu"))
    assert 1e7 < free < 1e15
    check_memory(initialize_state([bcc().repeat((3, 3, 3))]), MagneticMaceModel(tiny()))
    check_memory(initialize_state([molecule()]), MagneticMaceModel(HeisenbergModel()))


def test_limits_of_a_batch_system(monkeypatch, tmp_path):
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2500000\n")
    (tmp_path / "memory.stat").write_text("anon 1000\ninactive_file 500000\n")
    monkeypatch.setattr(memory, "_own_cgroups", lambda: [tmp_path])
    assert available_memory(torch.device("cpu")) == 1e6
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(torch.device("cpu")) > 1e7


def test_errors_that_mean_lack_of_memory():
    assert is_out_of_memory(torch.OutOfMemoryError("x"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))
    assert failure_message(KeyError("a")) == "the model failed: KeyError: 'a'"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("momenta", np.ones(2), r"momenta have shape \(2,\), expected \(2, 3\)"),
        ("momenta", np.full((2, 3), np.nan), "momenta are not all finite"),
        ("momenta", np.array([[object()] * 3] * 2), "momenta are no numbers"),
        ("masses", np.ones((2, 3)), r"masses have shape \(2, 3\), expected \(2,\)"),
        ("masses", np.array([1.0, np.inf]), "masses are not all finite"),
    ],
)
def test_velocities_and_masses_that_are_none(name, value, message):
    odd = bcc()
    odd.arrays[name] = value
    with pytest.raises(StructureError, match=message):
        initialize_state([odd])
    results = relax([odd, bcc(), odd], HeisenbergModel(), relax_cell=False, max_steps=1)
    assert [str(result.status) == "failed" for result in results] == [True, False, True]


def test_states_that_do_not_go_together_are_run_apart():
    """Extras of other shapes: what joins them is part of the attempt."""

    def start(index):
        state = initialize_state([IMAGES[index]])
        state.atom_extras["odd"] = torch.ones(2, 1 + index % 2)
        return state

    for max_atoms in (2, 4, None):
        batch, failed = batch_of(start, max_atoms=max_atoms)
        assert sorted(run_through(batch)) == list(range(6))
        assert failed == {}
