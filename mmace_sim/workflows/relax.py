"""Relaxation of positions, cell and magnetic moments of many structures in one batch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_sim as ts
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from torch import Tensor, nn

from mmace_sim.errors import StructureError, UnsupportedOptionError
from mmace_sim.keys import TORCHSIM_MAGFORCES, TORCHSIM_MAGMOMS
from mmace_sim.torchsim.adiabatic import AdiabaticModel
from mmace_sim.torchsim.fire import magnetic_fire_init, magnetic_fire_step
from mmace_sim.torchsim.freedom import DegreesOfFreedom, MagneticOptimState, largest_per_system
from mmace_sim.torchsim.memory import check_memory, estimate_max_memory_scaler
from mmace_sim.torchsim.model import MagneticMaceModel
from mmace_sim.torchsim.state import initialize_state, state_to_atoms
from mmace_sim.units import EV_PER_A3_IN_GPA
from mmace_sim.workflows.batching import Outcomes, RefillingBatch, failure_message
from mmace_sim.workflows.structures import check_structure

ModelLike = nn.Module | str | Path
"""An energy model, any TorchSim model that gives magforces, or the name or path of a model file."""

MOMENT_MODES: tuple[str, ...] = ("joint", "adiabatic", "fixed")


class Status(StrEnum):
    """How a relaxation ended."""

    CONVERGED = "converged"
    MAX_STEPS = "max_steps"
    NON_FINITE = "non_finite"
    FAILED = "failed"


LARGE_VOLUME_CHANGE: float = 0.3
"""Relative change of volume from which on a result comes with a warning."""

MESSAGES: dict[Status, str] = {
    Status.CONVERGED: "",
    Status.MAX_STEPS: "not converged within max_steps; continue from the relaxed structure or raise --max-steps.",
    Status.NON_FINITE: "energy or forces are not finite; the start is outside of what the model can describe.",
    Status.FAILED: "",
}


@dataclass
class StructureResult:
    """Outcome for one structure.

    Attributes:
        atoms: Relaxed structure, moments in ``initial_magmoms``; results on a ``SinglePointCalculator``. The structure
            as it was given if it failed before the first step.
        initial_atoms: Structure as it was given.
        status: How the relaxation ended.
        message: What to know or do; empty if all is well.
        steps: Number of steps.
        energy: Energy of the cell, in eV; NaN if there is none.
        energy_initial: Energy before the first step, in eV.
        magforces: −∂E/∂m, shape (n_atoms, 3), in eV/μB.
        max_force: Largest force, in eV/Å (0 where positions are fixed).
        max_stress: Largest component of the stress, in GPa (0 where the cell is fixed).
        max_magforce: Largest magforce that the constraints leave, in eV/μB.
    """

    atoms: Atoms
    initial_atoms: Atoms
    status: Status
    message: str = ""
    steps: int = 0
    energy: float = float("nan")
    energy_initial: float = float("nan")
    magforces: np.ndarray | None = None
    max_force: float = float("nan")
    max_stress: float = float("nan")
    max_magforce: float = float("nan")


@dataclass
class RelaxResult:
    """Outcomes in the order of the structures."""

    results: list[StructureResult]

    @property
    def atoms(self) -> list[Atoms]:
        """Relaxed structures."""
        return [r.atoms for r in self.results]

    @property
    def n_converged(self) -> int:
        """Number of structures that converged."""
        return sum(r.status is Status.CONVERGED for r in self.results)

    def __iter__(self) -> Iterator[StructureResult]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __getitem__(self, index: int) -> StructureResult:
        return self.results[index]


@dataclass
class RelaxProgress:
    """State of a running relaxation: steps of the batch and numbers of structures."""

    step: int
    n_total: int
    n_finished: int
    n_active: int


class Relaxation:
    """Relaxes structures in batches that refill: settings here, structures in :meth:`run`.

    Args:
        model: Model, its name or path, or any TorchSim model that gives magforces.
        relax_positions: Whether atoms may move. With positions and cell fixed, moments alone relax.
        relax_cell: Whether the cell may change (never for structures that are not periodic in all directions).
        magmoms: "joint" relaxes moments together with the atoms, "adiabatic" fully at every step, "fixed" not at all.
        fmax: Largest force at convergence, in eV/Å.
        stress_tol: Largest component of the stress at convergence, in GPa.
        magforce_tol: Largest magforce at convergence, in eV/μB.
        max_steps: Largest number of steps.
        collinear: Moments keep their axis.
        fix_magnitude: Moments keep their length.
        device: Where to run.
        dtype: Floating-point type.
        max_batch_atoms: Largest number of atoms in one batch; by default estimated from the memory.

    Raises:
        UnsupportedOptionError: If a tolerance is not positive or the mode is unknown.
    """

    def __init__(
        self,
        model: ModelLike = "default",
        *,
        relax_positions: bool = True,
        relax_cell: bool = True,
        magmoms: str = "joint",
        fmax: float = 0.01,
        stress_tol: float = 0.1,
        magforce_tol: float = 0.005,
        max_steps: int = 500,
        collinear: bool = False,
        fix_magnitude: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        max_batch_atoms: int | None = None,
    ) -> None:
        if magmoms not in MOMENT_MODES:
            raise UnsupportedOptionError(f"magmoms = {magmoms!r}, expected 'joint', 'adiabatic' or 'fixed'.")
        for name, value in (("fmax", fmax), ("stress_tol", stress_tol), ("magforce_tol", magforce_tol)):
            if not value > 0:
                raise UnsupportedOptionError(f"{name} = {value}, expected a positive number.")
        if not isinstance(model, ts.models.interface.ModelInterface):
            model = MagneticMaceModel(model, device=device, dtype=dtype)
        self.bare_model = model
        self.model = (
            AdiabaticModel(model, magforce_tol=magforce_tol, collinear=collinear, fix_magnitude=fix_magnitude)
            if magmoms == "adiabatic"
            else model
        )
        self.freedom = DegreesOfFreedom(
            relax_positions=relax_positions,
            relax_cell=relax_cell,
            relax_moments=magmoms == "joint",
            collinear=collinear,
            fix_magnitude=fix_magnitude,
        )
        self.moments_move = magmoms != "fixed"
        self.fmax, self.stress_tol, self.magforce_tol = fmax, stress_tol, magforce_tol
        self.max_steps = max_steps
        self.max_batch_atoms = max_batch_atoms

    def run(
        self,
        structures: Any,
        *,
        on_finished: Callable[[int, StructureResult], None] | None = None,
        on_step: Callable[[RelaxProgress], None] | None = None,
    ) -> RelaxResult:
        """Relax structures; one that fails does not stop the others.

        Args:
            structures: ASE, pymatgen or phonopy structures, one or many, each with moments.
            on_finished: Called with the index and the result of each structure as soon as it is finished.
            on_step: Called after every step of a batch.

        Returns:
            One result for each structure, in the same order.
        """
        images = as_atoms(structures)
        finish = Outcomes(len(images), on_finished)

        for indices in self._accepted(images, finish):
            self._run_alike(images, indices, finish, on_step)
        return RelaxResult(finish.in_order())

    def _accepted(
        self, images: Sequence[Atoms], finish: Callable[[int, StructureResult], None]
    ) -> list[list[int]]:
        """Indices of usable structures, grouped by periodicity (a TorchSim batch has only one)."""
        groups: dict[tuple[bool, ...], list[int]] = {}
        elements = getattr(getattr(self.bare_model, "model", None), "elements", None)
        for index, atoms in enumerate(images):
            try:
                check_structure(atoms, elements)
            except StructureError as error:
                finish(index, StructureResult(atoms, atoms, Status.FAILED, str(error)))
            else:
                groups.setdefault(tuple(bool(p) for p in atoms.pbc), []).append(index)
        return list(groups.values())

    def _run_alike(
        self,
        images: Sequence[Atoms],
        indices: list[int],
        finish: Outcomes[StructureResult],
        on_step: Callable[[RelaxProgress], None] | None,
    ) -> None:
        """Relax structures of one periodicity."""

        def fail(index: int, error: Exception) -> None:
            finish(
                index, StructureResult(images[index], images[index], Status.FAILED, failure_message(error))
            )

        batch = RefillingBatch(
            indices,
            start=lambda index: self._start(images[index]),
            init=self._init,
            step=self._step,
            fail=fail,
            max_scaler=self._max_scaler(),
            max_atoms=self.max_batch_atoms,
            check=self._check_memory,
        )
        n_steps = 0
        while batch.refill():
            self._observe(batch.indices, batch.state)
            status = self._status(batch.state)
            done = [k for k, s in enumerate(status) if s is not None]
            for k, index, state in batch.pop(done):
                finish(index, self._result(state, images[index], status[k]))
            if batch.state is not None and not done:
                batch.advance()
                n_steps += 1
            if on_step is not None:
                n_finished = len(finish.in_order())
                on_step(RelaxProgress(n_steps, len(images), n_finished, batch.n_active))

    def _start(self, atoms: Atoms) -> ts.SimState:
        """The plain state of a structure."""
        return initialize_state([atoms], device=self.bare_model.device, dtype=self.bare_model.dtype)

    def _init(self, state: ts.SimState) -> MagneticOptimState:
        """The optimiser's state of a plain one."""
        return magnetic_fire_init(state, self.model, freedom=self.freedom, dt_start=self._first_time_step)

    def _step(self, state: MagneticOptimState) -> MagneticOptimState:
        return magnetic_fire_step(state, self.model)

    def _observe(self, indices: list[int], state: MagneticOptimState) -> None:
        """Called with what is under way before every step; for subclasses."""

    @property
    def _first_time_step(self) -> float:
        """Moments alone are one stiffness, so that FIRE may begin with longer steps."""
        alone = not (self.freedom.relax_positions or self.freedom.relax_cell)
        return 0.5 if alone else 0.1

    def _check_memory(self, state: ts.SimState) -> None:
        if isinstance(self.bare_model, MagneticMaceModel):
            check_memory(state, self.bare_model)

    def _max_scaler(self) -> float:
        if isinstance(self.bare_model, MagneticMaceModel):
            return estimate_max_memory_scaler(self.bare_model)
        return float("inf")

    def _largest(self, state: MagneticOptimState) -> tuple[Tensor, Tensor, Tensor]:
        """Largest force (eV/Å), stress (GPa) and magforce (eV/μB) of each system that may still relax."""
        stress = state.strain_forces() / torch.linalg.det(state.cell).abs().clamp(min=1e-30)[:, None, None]
        magforces = (
            state.moment_forces() if self.freedom.relax_moments else getattr(state, TORCHSIM_MAGFORCES)
        )
        if not self.moments_move:
            magforces = torch.zeros_like(magforces)
        forces = state.forces if self.freedom.relax_positions else torch.zeros_like(state.forces)
        return (
            largest_per_system(forces, state),
            stress.abs().amax(dim=(1, 2)) * EV_PER_A3_IN_GPA,
            largest_per_system(magforces, state),
        )

    def _status(self, state: MagneticOptimState) -> list[Status | None]:
        """Status of each system; None goes on."""
        force, stress, magforce = self._largest(state)
        finite = torch.isfinite(state.energy + force + stress + magforce)
        converged = (force <= self.fmax) & (stress <= self.stress_tol) & (magforce <= self.magforce_tol)
        out_of_steps = state.n_steps >= self.max_steps
        rows = zip(finite.tolist(), converged.tolist(), out_of_steps.tolist(), strict=True)
        return [
            Status.NON_FINITE if not f else Status.CONVERGED if c else Status.MAX_STEPS if o else None
            for f, c, o in rows
        ]

    def _message(self, status: Status, state: MagneticOptimState) -> str:
        """What the user should know of a finished system."""
        if status is not Status.CONVERGED:
            return MESSAGES[status]
        notes = []
        if self.moments_move and float(getattr(state, TORCHSIM_MAGMOMS).abs().max()) < 1e-8:
            notes.append(
                "moments are zero and stay so by time reversal; start from "
                "--initial-magmoms high-spin to look for a magnetic state."
            )
        change = float(torch.linalg.det(state.cell).abs() / state.reference_volume.clamp(min=1e-30)) - 1.0
        if self.freedom.relax_cell and abs(change) > LARGE_VOLUME_CHANGE:
            notes.append(
                f"the volume changed by {100 * change:+.0f} %: the start may lie outside of what the model knows."
            )
        return " ".join(notes)

    def _result(self, state: MagneticOptimState, initial: Atoms, status: Status) -> StructureResult:
        """Turn the state of one finished system into a result."""
        force, stress, magforce = (float(x) for x in self._largest(state))
        atoms = state_to_atoms(state, [initial])[0]
        magmoms = getattr(state, TORCHSIM_MAGMOMS)
        energy = float(state.energy)
        atoms.calc = SinglePointCalculator(
            atoms,
            energy=energy,
            free_energy=energy,
            forces=state.forces.cpu().numpy().astype(float),
            stress=state.stress[0].cpu().numpy().astype(float).ravel()[[0, 4, 8, 5, 2, 1]],
            magmoms=magmoms.cpu().numpy().astype(float),
        )
        message = self._message(status, state)
        return StructureResult(
            atoms=atoms,
            initial_atoms=initial,
            status=status,
            message=message,
            steps=int(state.n_steps),
            energy=energy,
            energy_initial=float(state.energy_initial),
            magforces=getattr(state, TORCHSIM_MAGFORCES).cpu().numpy().astype(float),
            max_force=force,
            max_stress=stress,
            max_magforce=magforce,
        )


def relax(
    structures: Any,
    model: ModelLike = "default",
    *,
    on_finished: Callable[[int, StructureResult], None] | None = None,
    on_step: Callable[[RelaxProgress], None] | None = None,
    **settings: Any,
) -> RelaxResult:
    """Relax positions, cell and magnetic moments of many structures in one batch.

    Args:
        structures: ASE, pymatgen or phonopy structures, one or many, each with moments.
        model: Model, its name or path, or any TorchSim model that gives magforces.
        on_finished: Called with the index and the result of each structure as soon as it is finished.
        on_step: Called after every step.
        **settings: Settings of :class:`Relaxation` (`relax_cell`, `magmoms`, `fmax`, `stress_tol`, …).

    Returns:
        One :class:`StructureResult` for each structure, in the same order. Look at its `status`.
    """
    return Relaxation(model, **settings).run(structures, on_finished=on_finished, on_step=on_step)


def as_atoms(structures: Any) -> list[Atoms]:
    """Structures of any host as ASE structures; ASE structures are taken as they are."""
    items = (
        structures if isinstance(structures, Iterable) and not isinstance(structures, Atoms) else [structures]
    )
    if hasattr(structures, "lattice") or hasattr(structures, "scaled_positions"):
        items = [structures]
    return [item if isinstance(item, Atoms) else state_to_atoms(initialize_state(item))[0] for item in items]
