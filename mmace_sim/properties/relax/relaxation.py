"""Relaxation of positions, cell and magnetic moments of many structures in one batch."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from torch import Tensor

from mmace_sim.base.hosts import ts
from mmace_sim.base.quantities import TORCHSIM_MAGFORCES
from mmace_sim.engine.batching import Outcomes, RefillingBatch, failure_message, usable_groups
from mmace_sim.engine.checkpoint import BatchCheckpoint
from mmace_sim.engine.outcomes import (
    UNUSABLE,
    Curvature,
    Plan,
    RelaxProgress,
    RelaxResult,
    Status,
    StructureResult,
    status_of,
)
from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.graph.cells import free_strains, has_volume, parse_cell_mask
from mmace_sim.model.interface import Potential
from mmace_sim.properties.relax.declaration import RelaxSettings
from mmace_sim.properties.relax.runaway import EnergyFloor
from mmace_sim.properties.relax.verdict import (
    NOT_FINITE,
    ase_results,
    known_curvature,
    moment_note,
    not_converged,
    residuals,
    volume_note,
)
from mmace_sim.structures.checks import check_distances
from mmace_sim.torchsim.adiabatic import AdiabaticModel
from mmace_sim.torchsim.curvature import is_known, lowest_curvature, probing_step
from mmace_sim.torchsim.doubt import Doubt, doubt_message
from mmace_sim.torchsim.fire import MIXING, SLOWING, MagneticFireState, magnetic_fire_init, magnetic_fire_step
from mmace_sim.torchsim.freedom import FREE_STRAINS, DegreesOfFreedom, MagneticOptimState, complete
from mmace_sim.torchsim.memory import check_memory, estimate_max_memory_scaler
from mmace_sim.torchsim.model import MagneticMaceModel
from mmace_sim.torchsim.state import StructuresLike, as_atoms, initialize_state, state_to_atoms
from mmace_sim.units import EV_PER_A3_IN_GPA

ModelLike = Potential | ts.models.interface.ModelInterface | str | Path
"""An energy model, any TorchSim model that gives magforces, or the name or path of a model file."""

MAX_PUSHES: int = 3
"""So often a structure is pushed off saddle points."""

MOMENT_ERROR: float = 0.01
"""Error of moments, in μB, that soft ones are relaxed on for: the magforce over the lowest curvature."""

INEXACT: float = 0.05
"""Å/μB: adiabatic moments follow atoms on their way to this part of the largest force, see `AdiabaticModel`; 0.2 and 0
take as long, give or take a tenth."""

LOOK_EVERY: int = 10
"""Steps of a batch between two looks at the uncertainties, if there is a limit for them."""

_SOFTEST = 0.05  # of magforce_tol: what soft moments are relaxed to at most


class Relaxation:
    """Relaxes structures in batches that refill: settings here, structures in :meth:`run`.

    Args:
        model: Model, its name or path, or any TorchSim model that gives magforces.
        settings: All settings; or give them one by one. `stability` looks for the lowest curvature with respect to the
            moments, which tells a saddle point from a minimum; soft moments are relaxed on until they are right to
            `MOMENT_ERROR`. `perturb` implies it.
        relax_positions: Whether atoms may move. With positions and cell fixed, moments alone relax.
        device: Where to run.
        dtype: Floating-point type.
        max_batch_atoms: Largest number of atoms in one batch; by default estimated from the memory.
        **keywords: Fields of :class:`~mmace_sim.properties.relax.declaration.RelaxSettings`.

    Raises:
        ConfigError: If a setting is unknown or impossible.
    """

    def __init__(
        self,
        model: ModelLike = "default",
        settings: RelaxSettings | None = None,
        *,
        relax_positions: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        max_batch_atoms: int | None = None,
        **keywords: Any,
    ) -> None:
        settings = settings or RelaxSettings.of(keywords, "Relaxation")
        self.settings = settings
        if not isinstance(model, ts.models.interface.ModelInterface):
            model = MagneticMaceModel(model, device=device, dtype=dtype)
        self.bare_model = model
        self.doubt, self._n_looks = Doubt(model, settings.max_uncertainty), 0
        self.model = (
            AdiabaticModel(
                model,
                magforce_tol=settings.magforce_tol,
                collinear=settings.collinear,
                fix_magnitude=settings.fix_magnitude,
                inexact=INEXACT,
            )
            if settings.magmoms == "adiabatic"
            else model
        )
        self.freedom = DegreesOfFreedom(
            relax_positions=relax_positions,
            relax_cell=settings.relax_cell,
            relax_moments=settings.magmoms == "joint",
            collinear=settings.collinear,
            fix_magnitude=settings.fix_magnitude,
        )
        self.cell_mask = parse_cell_mask(settings.cell_mask)
        self.moments_move = settings.magmoms != "fixed"
        self.stability = settings.stability or settings.perturb
        self.max_pushes = MAX_PUSHES if settings.perturb else 0
        self.floor = EnergyFloor.of(model)
        self.max_batch_atoms = max_batch_atoms
        whole = self.doubt.limit is not None or settings.magmoms == "adiabatic"
        self.evaluation = {} if whole else self.freedom.evaluation
        self._looked: Plan | None = None

    def run(
        self,
        structures: StructuresLike,
        *,
        on_finished: Callable[[int, StructureResult], None] | None = None,
        on_step: Callable[[RelaxProgress], None] | None = None,
        checkpoint: BatchCheckpoint | None = None,
    ) -> RelaxResult:
        """Relax structures; one that fails does not stop the others.

        Args:
            structures: ASE, pymatgen or phonopy structures, or names of files, one or many, each with moments.
            on_finished: Called with the index and the result of each structure as soon as it is finished.
            on_step: Called after every step of a batch.
            checkpoint: Keeps what is under way, so that a killed run can go on with it.

        Returns:
            One result for each structure, in the same order.
        """
        images = as_atoms(structures)
        finish = Outcomes(len(images), on_finished)

        def refuse(index: int, reason: str) -> None:
            finish(index, StructureResult(images[index], images[index], Status.FAILED, reason))

        for indices in usable_groups(images, self.bare_model, refuse):
            self._run_alike(images, indices, finish, refuse, on_step, checkpoint or BatchCheckpoint())
        return RelaxResult(finish.in_order())

    def _run_alike(
        self,
        images: Sequence[Atoms],
        indices: list[int],
        finish: Outcomes[StructureResult],
        refuse: Callable[[int, str], None],
        on_step: Callable[[RelaxProgress], None] | None,
        checkpoint: BatchCheckpoint,
    ) -> None:
        """Relax structures of one periodicity."""
        batch = RefillingBatch(
            indices,
            start=lambda index: self._start(images[index]),
            init=self._init,
            step=self._step,
            fail=lambda index, error: refuse(index, failure_message(error)),
            max_scaler=estimate_max_memory_scaler(self.bare_model),
            max_atoms=self.max_batch_atoms,
            check=partial(check_memory, model=self.bare_model),
        )
        batch.go_on_with(checkpoint.parts)
        n_steps = 0
        with checkpoint.keeping(batch) as after_step:
            while batch.refill():
                done = self._finish_done(batch, images, finish)
                if batch.state is not None and not done:
                    batch.advance()
                    n_steps += 1
                if on_step is not None:
                    on_step(RelaxProgress(n_steps, len(images), finish.n_finished, batch.n_active))
                after_step()

    def _finish_done(
        self,
        batch: RefillingBatch[MagneticOptimState],
        images: Sequence[Atoms],
        finish: Outcomes[StructureResult],
    ) -> int:
        """Take finished systems out of a batch; returns their number."""
        current = batch.state
        assert current is not None  # the batch was refilled
        self._observe(batch.indices, current)
        status = self._doubted(current, self._status(current))
        done = {k: s for k, s in enumerate(status) if s is not None}
        if done and self.evaluation:
            complete(current, self.model, [k for k in done if current.n_steps[k] > 0])
        for k, index, state in batch.pop(list(done)):
            finish(index, self._result(state, images[index], done[k]))
        return len(done)

    def _doubted(self, state: MagneticOptimState, status: list[Status | None]) -> list[Status | None]:
        """The same, with those that the model is too uncertain about: looked at now and then, and at the end."""
        if self.doubt.limit is None:
            return status
        self._n_looks += 1
        if self._n_looks % LOOK_EVERY != 1 and not any(status):
            return status
        doubtful = [size is not None for size in self.doubt.doubtful(state)]
        return [
            Status.UNCERTAIN if doubt and known not in UNUSABLE else known
            for doubt, known in zip(doubtful, status, strict=True)
        ]

    def _start(self, atoms: Atoms) -> ts.SimState:
        """The plain state of a structure."""
        state = initialize_state([atoms], device=self.bare_model.device, dtype=self.bare_model.dtype)
        free, _ = free_strains(atoms, self.cell_mask)
        state.system_extras[FREE_STRAINS] = torch.as_tensor(free[None]).to(state.positions)
        return state

    def _init(self, state: ts.SimState) -> MagneticOptimState:
        """The optimiser's state of a plain one."""
        return magnetic_fire_init(
            state, self.model, freedom=self.freedom, dt_start=self._first_time_step, alpha_start=MIXING
        )

    def _step(self, state: MagneticOptimState) -> MagneticOptimState:
        assert isinstance(state, MagneticFireState)  # as `_init` made it; who changes one, changes both
        plan, self._looked = self._looked, None
        step = partial(magnetic_fire_step, alpha_start=MIXING, f_dec=SLOWING, evaluation=self.evaluation)
        if plan is None:
            return step(state, self.model)
        return probing_step(
            state,
            self.model,
            step,
            probed=plan.probed,
            pushed=plan.pushed,
            rotates_freely=self.rotates_freely,
        )

    def _observe(self, indices: list[int], state: MagneticOptimState) -> None:
        """Called with what is under way before every step; for subclasses."""

    @property
    def rotates_freely(self) -> bool:
        """Whether the energy is the same after any common rotation of all moments."""
        return not getattr(getattr(self.bare_model, "model", None), "spin_orbit", True)

    @property
    def _first_time_step(self) -> float:
        """Moments alone are one stiffness, so that FIRE may begin with longer steps."""
        alone = not (self.freedom.relax_positions or self.freedom.relax_cell)
        return 0.5 if alone else 0.3

    def _largest(self, state: MagneticOptimState) -> tuple[Tensor, Tensor, Tensor]:
        """Largest force (eV/Å), stress (GPa) and magforce (eV/μB) of each system that may still relax."""
        force, _, magforce = residuals(state)
        stress = state.strain_forces() / torch.linalg.det(state.cell).abs().clamp(min=1e-30)[:, None, None]
        return (
            force if self.freedom.relax_positions else torch.zeros_like(force),
            stress.abs().amax(dim=(1, 2)) * EV_PER_A3_IN_GPA,
            magforce if self.moments_move else torch.zeros_like(magforce),
        )

    def _at_rest(self, force: Tensor, stress: Tensor, magforce: Tensor) -> Tensor:
        limits = self.settings
        return (force <= limits.force_tol) & (stress <= limits.stress_tol) & (magforce <= limits.magforce_tol)

    def _plan(self, state: MagneticFireState, largest: tuple[Tensor, Tensor, Tensor]) -> "Plan":
        """Which systems are at rest, which of them are looked at, pushed or relaxed on, and which are done."""
        force, stress, magforce = largest
        at_rest = self._at_rest(force, stress, magforce)
        known, found = is_known(state), lowest_curvature(state)
        may_move = state.n_steps < self.settings.max_steps
        saddle = known & found.is_downward
        pushed = at_rest & saddle & may_move & (state.n_pushes < self.max_pushes)
        goal = (MOMENT_ERROR * found.lowest).clamp(min=_SOFTEST * self.settings.magforce_tol)
        soft = at_rest & known & ~saddle & may_move & (magforce > goal)
        return Plan(at_rest & ~known, pushed, at_rest & known & ~pushed & ~soft, saddle)

    def _status(self, state: MagneticOptimState) -> list[Status | None]:
        """Status of each system; None goes on. The host reads once, and again where a system is at rest."""
        largest = self._largest(state)
        finite, at_rest = torch.isfinite(state.energy + sum(largest)), self._at_rest(*largest)
        late = state.n_steps >= self.settings.max_steps
        flags = torch.cat([torch.stack([finite, at_rest, late], dim=1), self.floor.suspects(state)], dim=1)
        finite, at_rest, late, gone, crowded = flags.T.tolist()
        gone = self.floor.confirmed(state, gone, crowded)
        done, saddle, probed = at_rest, [False] * len(at_rest), [False] * len(at_rest)
        self._looked = None
        if self.stability and self.moments_move and any(at_rest) and isinstance(state, MagneticFireState):
            plan = self._plan(state, largest)
            parts = torch.stack([plan.done, plan.saddle, plan.probed, plan.pushed]).tolist()
            done, saddle, probed, pushed = parts
            self._looked = plan if any(probed) or any(pushed) else None
        overdue = [a and not b for a, b in zip(late, probed, strict=True)]
        return [status_of(*row) for row in zip(finite, gone, done, saddle, overdue, strict=True)]

    def _result(self, state: MagneticOptimState, initial: Atoms, status: Status) -> StructureResult:
        """Turn the state of one finished system into a result."""
        steps, energy_initial = int(state.n_steps), float(state.energy_initial)

        def runaway(message: str) -> StructureResult:
            return StructureResult(
                initial, initial, Status.RUNAWAY, message, steps=steps, energy_initial=energy_initial
            )

        if status is Status.RUNAWAY:
            return runaway(self.floor.message(state))
        atoms = state_to_atoms(state, [initial])[0]
        if status is not Status.NON_FINITE:
            try:
                check_distances(atoms)
            except StructureError as error:
                return runaway(f"atoms fell onto each other: {error}")
        curvature = known_curvature(state)
        force, stress, magforce = (float(x) for x in residuals(state))
        if not has_volume(initial):
            strained = self.freedom.relax_cell and bool(state.system_extras[FREE_STRAINS].any())
            stress = float(self._largest(state)[1]) if strained else float("nan")
        atoms.calc = SinglePointCalculator(atoms, **ase_results(state, initial))
        return StructureResult(
            atoms=atoms,
            initial_atoms=initial,
            status=status,
            message=self._message(status, state, atoms, curvature),
            steps=steps,
            energy=float(state.energy),
            energy_initial=energy_initial,
            magforces=getattr(state, TORCHSIM_MAGFORCES).cpu().numpy().astype(float),
            max_force=force,
            max_stress=stress,
            max_magforce=magforce,
            curvature=curvature,
            n_pushes=int(state.n_pushes),
            saddle_energy=float(state.saddle_energy),
        )

    def _message(
        self, status: Status, state: MagneticOptimState, atoms: Atoms, curvature: Curvature | None
    ) -> str:
        """What the user should know of a finished system."""
        if status is Status.NON_FINITE:
            return NOT_FINITE
        outside = self.floor.outside(atoms, float(state.energy), get_magmoms(atoms))
        if status is Status.UNCERTAIN and self.doubt.limit is not None:
            size = self.doubt.doubtful(state)[0] or self.doubt.limit
            return f"{doubt_message(size, self.doubt.limit, int(state.n_steps))} {outside}".strip()
        if status is Status.MAX_STEPS:
            missed = not_converged(self._largest(state), self.settings)
            return f"{missed} {outside}".strip()
        notes = [
            moment_note(status, state, curvature) if self.moments_move else "",
            volume_note(state, atoms) if self.freedom.relax_cell else "",
            outside,
        ]
        return " ".join(note for note in notes if note)
