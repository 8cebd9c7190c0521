"""The batch of a simulation, and what becomes of each structure."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool
from torch import Tensor

from mmace_sim.engine.batching import RefillingBatch, failure_message, usable_groups
from mmace_sim.errors import StructureError
from mmace_sim.graph.cells import has_volume
from mmace_sim.properties.md.frames import Checkpoint, Snapshot, record
from mmace_sim.properties.relax.runaway import EnergyFloor
from mmace_sim.torchsim.doubt import Doubt, doubt_message
from mmace_sim.torchsim.memory import check_memory, estimate_max_memory_scaler
from mmace_sim.torchsim.spin_dynamics import FS_PER_TIME, SpinLatticeState
from mmace_sim.torchsim.spin_temperature import SpinTemperature

if TYPE_CHECKING:
    from mmace_sim.properties.md.dynamics import MolecularDynamics

LARGEST_STEP: float = 0.5
"""An atom that is about to move farther than this in one step, in Å, ends its simulation."""

_log = logging.getLogger(__name__)


class MDStatus(StrEnum):
    """How a simulation ended.

    UNSETTLED went through, but with steps whose moments were not solved for; UNCERTAIN was stopped where the model knew
    too little.
    """

    FINISHED = "finished"
    UNSETTLED = "unsettled"
    EXPLODED = "exploded"
    UNCERTAIN = "uncertain"
    FAILED = "failed"


@dataclass
class MDResult:
    """What became of one structure.

    Attributes:
        initial_atoms: Structure as it was given.
        status: How the simulation ended.
        message: What to know or do; empty if all is well.
        frames: Numbers recorded, one dictionary for each frame (`mmace_sim.properties.md.declaration.THERMO`).
        atoms: Last structure recorded, with momenta, moments and results; None if there is none.
        n_steps: Steps done.
    """

    initial_atoms: Atoms
    status: MDStatus = MDStatus.FAILED
    message: str = ""
    frames: list[dict[str, Any]] = field(default_factory=list)
    atoms: Atoms | None = None
    n_steps: int = 0

    def column(self, name: str) -> np.ndarray:
        """One quantity over time; NaN where it was not recorded.

        Args:
            name: Of the column.
        """
        return np.array([frame[name] for frame in self.frames], dtype=float)


class Simulation:
    """One run: the batch, and what becomes of each structure.

    Args:
        dynamics: A `MolecularDynamics`.
        images: Structures.
        checkpoints: Where to go on from.
        on_frame: Called with each frame.
        on_finished: Called with each result.
    """

    def __init__(
        self,
        dynamics: "MolecularDynamics",
        images: list[Atoms],
        checkpoints: Sequence[Checkpoint | None] | None,
        on_frame: Callable[[int, Snapshot], None] | None,
        on_finished: Callable[[int, MDResult], None] | None,
    ) -> None:
        self.dynamics, self.images = dynamics, images
        self.checkpoints = list(checkpoints) if checkpoints is not None else [None] * len(images)
        self.results = [MDResult(atoms) for atoms in images]
        self.on_frame = on_frame or (lambda _index, _frame: None)
        self.on_finished = on_finished or (lambda _index, _result: None)
        self.recorded = [-1 if c is None else c.n_steps for c in self.checkpoints]
        self.floor = EnergyFloor.of(dynamics.bare_model)
        self.doubt = Doubt(dynamics.bare_model, dynamics.settings.max_uncertainty)
        self.ready: dict[int, SpinLatticeState] = {}

    def run(self, seeds: Sequence[int] | None = None) -> list[MDResult]:
        """Simulate all structures.

        Args:
            seeds: Of their noise; by default as the dynamics makes them.

        Returns:
            One result for each.
        """
        self.seeds: dict[int, int] = {}
        groups = usable_groups(
            self.images,
            self.dynamics.bare_model,
            lambda index, reason: self._finish(index, MDStatus.FAILED, reason),
            _check_rescalable if self.dynamics.rescales else lambda _: None,
        )
        good = sorted(index for group in groups for index in group)
        made = self.dynamics.seeds([self.images[index] for index in good]) if seeds is None else None
        self.seeds = dict(zip(good, made or [seeds[index] for index in good], strict=True))
        for indices in groups:
            self._run_alike(indices)
        return self.results

    def _run_alike(self, indices: list[int]) -> None:
        """Simulate structures of one periodicity."""
        bare = self.dynamics.bare_model
        batch = RefillingBatch(
            indices,
            start=self._start,
            init=lambda state: state,
            step=self.dynamics.step,
            fail=lambda index, error: self._finish(index, MDStatus.FAILED, failure_message(error)),
            max_scaler=estimate_max_memory_scaler(bare),
            max_atoms=self.dynamics.max_batch_atoms,
            check=partial(check_memory, model=bare),
        )
        while batch.refill():
            exploded, steps = self._looked_at(batch.state)
            for _, index, state in batch.pop([k for k, bad in enumerate(exploded) if bad]):
                self._finish(
                    index,
                    MDStatus.EXPLODED,
                    f"energy or atoms ran away at step {int(state.n_steps)}: the time step is too long, or the model "
                    "is outside of what it knows. The frames before are kept.",
                )
            steps = [step for step, bad in zip(steps, exploded, strict=True) if not bad]
            if batch.state is None:
                continue
            self._record(batch.indices, batch.state, steps)
            doubtful = self._doubtful(batch.indices)
            for _, index, state in batch.pop(doubtful):
                size, limit = self._uncertainty(index) or 0.0, self.doubt.limit or 0.0
                self._finish(index, MDStatus.UNCERTAIN, doubt_message(size, limit, int(state.n_steps)))
            if batch.state is None:
                continue
            steps = [step for k, step in enumerate(steps) if k not in doubtful]
            done = [k for k, step in enumerate(steps) if step >= self.dynamics.settings.n_steps]
            for _, index, state in batch.pop(done):
                message = _unsettled(state)
                self._finish(index, MDStatus.UNSETTLED if message else MDStatus.FINISHED, message)
            if not done:
                batch.advance()

    def _looked_at(self, state: SpinLatticeState) -> tuple[list[bool], list[int]]:
        """Which systems have exploded, and the steps of each: the host reads once for both."""
        wild = _exploded(state, self.dynamics.settings.timestep)
        suspects = self.floor.suspects(state)
        flags = torch.cat([wild[:, None], suspects, state.n_steps[:, None]], dim=1)
        *columns, steps = flags.T.tolist()
        wild, gone, crowded = ([bool(x) for x in column] for column in columns)
        gone = self.floor.confirmed(state, gone, crowded)
        return [a or b for a, b in zip(wild, gone, strict=True)], steps

    def _start(self, index: int) -> SpinLatticeState:
        if index not in self.ready:
            self.ready[index] = self.dynamics.start(
                self.images[index], self.seeds[index], self.checkpoints[index]
            )
        return self.ready[index]

    def _doubtful(self, indices: list[int]) -> list[int]:
        """Places of those whose last frame is beyond the limit."""
        limit = self.doubt.limit
        if limit is None:
            return []
        last = [self._uncertainty(index) for index in indices]
        return [k for k, size in enumerate(last) if size is not None and size > limit]

    def _uncertainty(self, index: int) -> float | None:
        """Of the last frame; of the checkpoint where there is no frame since."""
        frames, checkpoint = self.results[index].frames, self.checkpoints[index]
        if frames:
            return frames[-1]["forces_uncertainty"]
        return None if checkpoint is None else checkpoint.forces_uncertainty

    def _record(self, indices: list[int], state: SpinLatticeState, steps: list[int]) -> None:
        """Frames of the systems that are due."""
        every, last = self.dynamics.settings.record_every, self.dynamics.settings.n_steps
        due = [
            k
            for k, (index, step) in enumerate(zip(indices, steps, strict=True))
            if step > self.recorded[index] and (step % every == 0 or step >= last)
        ]
        if not due:
            return
        spin = self.dynamics.spin_temperature(state)
        measured = self.doubt.measure(state)
        doubts = None if measured is None else torch.stack(measured, dim=1).tolist()
        for k in due:
            index = indices[k]
            self.ready.pop(index, None)
            frame = record(
                state[[k]],
                self.images[index],
                timestep=self.dynamics.settings.timestep,
                free_momentum=self.dynamics.bath,
                spin=None if spin is None else SpinTemperature(spin.torque[[k]], spin.curvature[[k]]),
                doubt=None if doubts is None else tuple(doubts[k]),
            )
            self.recorded[index] = steps[k]
            result = self.results[index]
            result.frames.append(frame.values)
            result.atoms, result.n_steps = frame.atoms, steps[k]
            self.on_frame(index, frame)

    def _finish(self, index: int, status: MDStatus, message: str) -> None:
        self.ready.pop(index, None)
        result = self.results[index]
        result.status, result.message = status, message
        level = logging.INFO if status is MDStatus.FINISHED else logging.ERROR
        _log.log(level, "structure %d: %s after %d steps. %s", index, status, result.n_steps, message)
        self.on_finished(index, result)


def _exploded(state: SpinLatticeState, timestep: float) -> Bool[Tensor, " n_systems"]:
    """Systems that are not finite, or with an atom that moves too far."""
    speed = torch.linalg.norm(state.velocities, dim=1)
    step = torch.nan_to_num(speed * timestep / FS_PER_TIME, nan=float("inf"))
    largest = step.new_zeros(state.n_systems).scatter_reduce(0, state.system_idx, step, "amax")
    finite = torch.isfinite(state.energy) & torch.isfinite(largest)
    moments = torch.linalg.norm(state.magnetic_moments, dim=1)
    finite &= torch.isfinite(moments.new_zeros(state.n_systems).index_add(0, state.system_idx, moments))
    return ~finite | (largest > LARGEST_STEP)


def _unsettled(state: SpinLatticeState) -> str:
    """What to know about a single system whose moments were not solved for at every step; empty if they were."""
    steps = int(state.unsettled)
    if not steps:
        return ""
    return (
        f"the moments did not converge in {steps} of {int(state.n_steps)} steps, so that averages mean nothing: "
        "take a shorter time step (--timestep)."
    )


def _check_rescalable(atoms: Atoms) -> None:
    if atoms.constraints or not has_volume(atoms):
        raise StructureError(
            "a pressure needs a crystal that is periodic in all directions, without vacuum, and has no fixed atoms."
        )
