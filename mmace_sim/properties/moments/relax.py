"""Relaxation of moments alone, by FIRE or L-BFGS, with masks, a field, and a record of every step."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float

from mmace_sim.base.hosts import ts
from mmace_sim.engine.batching import Outcomes
from mmace_sim.engine.outcomes import RelaxResult, StructureResult
from mmace_sim.errors import ConfigError
from mmace_sim.properties.relax.relaxation import ModelLike, Relaxation, as_atoms
from mmace_sim.torchsim.freedom import FREE_MOMENTS, MagneticOptimState
from mmace_sim.torchsim.lbfgs import moment_lbfgs_init, moment_lbfgs_step
from mmace_sim.torchsim.state import StructuresLike
from mmace_sim.torchsim.zeeman import ZeemanModel


@dataclass
class Descent:
    """What one start did, before every step and at the end.

    Attributes:
        energies: Energy of the cell, in eV.
        magforces: Largest magforce that the constraints leave, in eV/μB.
    """

    energies: Float[np.ndarray, " n_steps"]
    magforces: Float[np.ndarray, " n_steps"]


@dataclass
class DescentResult(StructureResult):
    """Outcome for one start, and its way there.

    Attributes:
        descent: What it did.
    """

    descent: Descent = field(default_factory=lambda: Descent(np.empty(0), np.empty(0)))


class MomentRelaxation(Relaxation):
    """Relaxes moments at fixed atoms: settings here, structures in :meth:`run`, whose results are `DescentResult`.

    Moments where the boolean array "free_moments" of a structure is False stay exactly as they are.

    Args:
        model: Model, its name or path, or any TorchSim model that gives magforces.
        solver: How to go downhill.
        field: Applied field in tesla; energies and magforces then contain it, see
            :class:`~mmace_sim.torchsim.zeeman.ZeemanModel`.
        **settings: `magforce_tol`, `max_steps`, `collinear`, `fix_magnitude`, `device`, `dtype`, `max_batch_atoms` of
            :class:`~mmace_sim.properties.relax.relaxation.Relaxation`.

    Raises:
        ConfigError: If a setting is unknown or impossible.
        UnsupportedOptionError: If the field is not a vector.
    """

    def __init__(
        self,
        model: ModelLike = "default",
        *,
        solver: Literal["lbfgs", "fire"] = "lbfgs",
        field: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0),
        **settings: Any,
    ) -> None:
        if solver not in ("lbfgs", "fire"):
            raise ConfigError(f"there is no solver {solver!r}; choose lbfgs or fire.")
        super().__init__(model, relax_positions=False, **{"relax_cell": False, "stability": False} | settings)
        self.solver, self.field = solver, field
        self.has_field = bool(np.any(np.asarray(field, dtype=float) != 0.0))
        if self.has_field:
            self.model = ZeemanModel(self.bare_model, field)
        self._records: dict[int, list[tuple[float, float]]] = {}

    def around(self) -> "MomentRelaxation":
        """The same model, field and constraints without any step, for the curvature at given moments."""
        return MomentRelaxation(
            self.bare_model,
            field=self.field,
            solver="fire",
            stability=True,
            magforce_tol=sys.float_info.max,
            max_steps=0,
            collinear=self.freedom.collinear,
            fix_magnitude=self.freedom.fix_magnitude,
            max_batch_atoms=self.max_batch_atoms,
        )

    @property
    def rotates_freely(self) -> bool:
        """Whether the energy is the same after any common rotation of all moments: a field has a direction."""
        return super().rotates_freely and not self.has_field

    def run(
        self,
        structures: StructuresLike,
        *,
        on_finished: Callable[[int, DescentResult], None] | None = None,
        **callbacks: Any,
    ) -> RelaxResult:
        """As in `Relaxation.run`, with the descent of each start in its result."""
        self._records = {}
        images = as_atoms(structures)
        finish = Outcomes(len(images), on_finished)

        def described(index: int, outcome: StructureResult) -> None:
            rows = np.array(self._records.pop(index, []), dtype=float).reshape(-1, 2)
            finish(index, DescentResult(**vars(outcome), descent=Descent(rows[:, 0], rows[:, 1])))

        super().run(images, on_finished=described, **callbacks)
        return RelaxResult(finish.in_order())

    def _start(self, atoms: Atoms) -> ts.SimState:
        state = super()._start(atoms)
        free = atoms.arrays.get(FREE_MOMENTS, np.ones(len(atoms), dtype=bool))
        state.atom_extras[FREE_MOMENTS] = torch.as_tensor(free.astype(bool), device=state.device)
        return state

    def _init(self, state: ts.SimState) -> MagneticOptimState:
        if self.solver == "lbfgs":
            return moment_lbfgs_init(state, self.model, freedom=self.freedom)
        return super()._init(state)

    def _step(self, state: MagneticOptimState) -> MagneticOptimState:
        if self.solver == "lbfgs":
            return moment_lbfgs_step(state, self.model, evaluation=self.evaluation)
        return super()._step(state)

    def _observe(self, indices: list[int], state: MagneticOptimState) -> None:
        steps, energies = state.n_steps.tolist(), state.energy.tolist()
        magforces = self._largest(state)[2].tolist()
        for index, step, energy, magforce in zip(indices, steps, energies, magforces, strict=True):
            record = self._records.setdefault(index, [])
            if len(record) == step:  # seen again if others left the batch meanwhile
                record.append((energy, magforce))
