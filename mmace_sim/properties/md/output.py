"""Molecular dynamics as a run: files that grow with the simulation, entries of the summary, figures."""

import copy
import logging
from collections.abc import Sequence
from typing import Any, override

import numpy as np
from ase import Atoms
from ase.build import make_supercell

from mmace_sim.engine.computation import Advance, Computation, Computed, Entry, Part, Store
from mmace_sim.engine.outcomes import Status
from mmace_sim.engine.output import entry_head, mean_moments
from mmace_sim.engine.resume import item_key
from mmace_sim.engine.run import Run
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.io.writing import write_extxyz
from mmace_sim.model.interface import Potential
from mmace_sim.model.uncertainty import Domain
from mmace_sim.properties.md.averages import averages
from mmace_sim.properties.md.dynamics import MolecularDynamics
from mmace_sim.properties.md.files import SimulationFiles
from mmace_sim.properties.md.frames import Snapshot
from mmace_sim.properties.md.plots import md_figures
from mmace_sim.properties.md.simulation import MDResult, MDStatus
from mmace_sim.properties.relax.output import write_doubtful
from mmace_sim.properties.singlepoint import SinglePoint
from mmace_sim.properties.written import save_figures
from mmace_sim.structures.supercells import parse_supercell

_EVALUATIONS: dict[str, int] = {"frozen": 1, "adiabatic": 5, "llg": 4}
"""About how many a step costs."""

_log = logging.getLogger(__name__)


class MDComputation(Computation[Any, MDResult]):
    """Simulations of the structures of a run; every frame is on disk before the next step."""

    verb = "Simulating"
    counted = "steps"

    @override
    def admit(self, model: Potential) -> None:
        self._dynamics(model)

    @override
    def prepare(self, part: Part) -> None:
        _relax_guesses(part.structures, self.settings, part.model)
        self.preview(part)
        items = part.structures  # a copy's noise depends on the copies before it
        keys = [item_key(item) for item in items]
        names = keys if part.is_volume else None  # there may be copies in other volumes
        seeds = self._dynamics(part.model).seeds([item.atoms for item in items], names)
        self.context |= dict(zip(keys, seeds, strict=True))

    @override
    def preview(self, part: Part) -> None:
        matrix = parse_supercell(self.settings.supercell)
        for item in part.structures:
            item.atoms = _repeated(item.atoms, matrix)

    @override
    def is_finished(self, entry: Entry) -> bool:
        """A run may be longer than the earlier one was."""
        return entry.get("n_steps", 0) >= self.settings.n_steps or entry["status"] == MDStatus.UNCERTAIN

    @override
    def total(self, part: Part) -> int:
        return self.settings.n_steps * len(part.pending)

    @override
    def evaluations(self, item: LoadedStructure) -> int:
        return self.settings.n_steps * _EVALUATIONS[self.settings.spins]

    @override
    def compute(self, part: Part, store: Store[MDResult], advance: Advance) -> None:
        dynamics, pending, folders = self._dynamics(part.model), part.pending, part.folders
        files = [SimulationFiles(folders[item.name]) for item in pending]
        checkpoints = [file.resume() for file in files]
        done = [0 if checkpoint is None else checkpoint.n_steps for checkpoint in checkpoints]
        if sum(done):
            _log.info("resumed: %d steps of all structures were done before", sum(done))
            advance(sum(done))

        def keep(index: int, frame: Snapshot) -> None:
            files[index].append(frame)
            step = frame.checkpoint.n_steps
            advance(step - done[index], detail=f"{frame.values['temperature']:.0f} K")
            done[index] = step

        dynamics.run(
            [item.atoms for item in pending],
            checkpoints=checkpoints,
            seeds=[self.context[item_key(item)] for item in pending],
            on_frame=keep,
            on_finished=store,
        )

    @override
    def finish(self, item: LoadedStructure, result: MDResult, part: Part) -> tuple[Entry, None]:
        rows = SimulationFiles(part.folders[item.name]).rows()
        last = rows[-1] if rows else {"step": 0, "time": 0.0}
        entry = entry_head(item, str(result.status), result.message)
        entry |= {"n_steps": int(last["step"]), "time": last["time"], "n_frames": len(rows)}
        entry |= averages(rows, len(item.atoms), bath=self.settings.ensemble != "nve")
        return entry | _farthest(rows), None

    @override
    def write(self, run: Run, entries: list[Entry], computed: Computed[MDResult]) -> list[str]:
        del computed
        folders, last = run.folders, []
        files = [SimulationFiles(folders[item.name]) for item in run.structures]
        for item, file in zip(run.structures, files, strict=True):
            atoms = file.last()
            if atoms is not None:
                atoms.info["name"] = item.name
                last.append(atoms)
        write_extxyz(run.folder / "final.extxyz", last)
        candidates = write_doubtful(run, last, entries)
        if self.settings.figures:
            bath = self.settings.temperature if self.settings.ensemble != "nve" else None
            for item, file in zip(run.structures, files, strict=True):
                rows = file.rows()
                if len(rows) > 1:
                    save_figures(rows, f"{file.folder}/", md_figures(len(item.atoms), bath))
        return ["final.extxyz", *candidates, "*/trajectory.extxyz", "*/thermo.csv"]

    def _dynamics(self, model: Potential) -> MolecularDynamics:
        return MolecularDynamics(model, self.settings, max_batch_atoms=self.settings.max_batch_atoms)


def _farthest(rows: Sequence[Entry]) -> Entry:
    """Where the simulation was farthest from the data of the model, and its least certain force; {} if not known."""
    distances = [row["domain_distance"] for row in rows if row.get("domain_distance") is not None]
    if not distances:
        return {}
    forces = max(
        (row["forces_uncertainty"] for row in rows if row["forces_uncertainty"] is not None), default=None
    )
    largest = max(distances)
    return {"domain": str(Domain.at(largest)), "domain_distance": largest, "forces_uncertainty": forces}


def _relax_guesses(items: Sequence[LoadedStructure], settings: Any, model: Potential) -> None:
    """Relax moments that were guessed, at fixed atoms, where the simulation keeps their lengths.

    Random ones are left alone: whoever asks for disorder wants it.
    """
    keeps = settings.spins == "frozen" or (settings.spins == "llg" and settings.lengths == "fixed")
    random = (settings.initial_magmoms or "").startswith("random")
    guessed = [item for item in items if item.guessed_moments]
    if not keeps or random or not guessed:
        return
    point = SinglePoint(model, magmoms="relaxed", max_batch_atoms=settings.max_batch_atoms)
    for item, result in zip(guessed, point.run([item.atoms for item in guessed]), strict=True):
        if result.status is not Status.CONVERGED:
            item.notes.append(
                f"the guessed moments did not relax and are kept ({result.status}: {result.message})"
            )
            continue
        set_magmoms(item.atoms, result.magmoms)
        means = mean_moments(item.atoms, result.magmoms).items()
        told = ", ".join(f"{name} {value:.2f}" for name, value in means)
        item.notes.append(f"the guessed moments were relaxed at fixed atoms: {told} μB")


def _repeated(atoms: Atoms, matrix: np.ndarray) -> Atoms:
    """A supercell, with the constraints of atoms that `make_supercell` forgets."""
    repeated = make_supercell(atoms, matrix, order="atom-major")
    images = np.arange(len(repeated)).reshape(len(atoms), -1)
    constraints = [copy.copy(constraint) for constraint in atoms.constraints]
    for constraint in constraints:
        if hasattr(constraint, "index"):
            constraint.index = images[constraint.index].ravel()
    repeated.set_constraint(constraints)
    return repeated
