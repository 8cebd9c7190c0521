"""Relaxations as a run: entries of the summary, relaxed structures."""

from collections.abc import Sequence
from typing import Any, override

import numpy as np
from ase import Atoms

from mmace_sim.engine.checkpoint import BatchCheckpoint
from mmace_sim.engine.computation import Advance, Computation, Computed, Entry, Part, Store
from mmace_sim.engine.journal import CHECKPOINT, fingerprint
from mmace_sim.engine.outcomes import RelaxProgress, Status, StructureResult
from mmace_sim.engine.output import entry_head, finite_or_none, mean_moments
from mmace_sim.engine.resume import item_key
from mmace_sim.engine.run import Run
from mmace_sim.graph.atoms import bare_copy, get_magmoms
from mmace_sim.graph.cells import has_volume
from mmace_sim.io.collection import FailedStructure, LoadedStructure
from mmace_sim.io.writing import write_extxyz, write_structures
from mmace_sim.properties.relax.declaration import RELAX
from mmace_sim.properties.relax.relaxation import Relaxation
from mmace_sim.properties.written import labelled
from mmace_sim.structures.magnetic_order import classify_order, magnetic_symmetry


class RelaxComputation(Computation[Any, Any]):
    """Relaxations of the structures of a run."""

    verb = "Relaxing"

    @override
    def is_finished(self, entry: Entry) -> bool:
        """What was out of steps may have more of them now."""
        return entry["status"] != "max_steps" or entry["steps"] >= self.settings.max_steps

    @override
    def compute(self, part: Part, store: Store[Any], advance: Advance) -> None:
        pending, limit = part.pending, self.settings.max_batch_atoms

        def step(state: RelaxProgress) -> None:
            advance(0, detail=f"step {state.step}, {state.n_active} in the batch")

        keys = [f"{item_key(item)} {fingerprint(item.atoms)}" for item in pending]
        checkpoint = BatchCheckpoint(
            (part.scratch or part.folder) / CHECKPOINT,
            part.identity,
            keys,
            further=part.checkpoints,
        )
        relaxation = Relaxation(part.model, self.settings, max_batch_atoms=limit)
        images = [item.atoms for item in pending]
        relaxation.run(images, on_finished=store, on_step=step, checkpoint=checkpoint)
        checkpoint.remove()

    @override
    def entry(self, item: LoadedStructure, result: StructureResult) -> Entry:
        return summary_entry(item, result)

    @override
    def finish(
        self, item: LoadedStructure, result: StructureResult, part: Part
    ) -> tuple[Entry, Atoms | None]:
        status = str(result.status)
        if status in ("failed", "runaway"):  # has no relaxed atoms
            return failed_entry(item, result.message) | {"status": status, "steps": result.steps}, None
        usable = status != "non_finite"
        return summary_entry(item, result), output_atoms(item, result) if usable else None

    @override
    def failed(self, item: FailedStructure | LoadedStructure, message: str | None = None) -> Entry:
        return failed_entry(item, message)

    @override
    def write(self, run: Run, entries: list[Entry], computed: Computed[Any]) -> list[str]:
        return write_stored(run, entries, self.settings.write)


def write_stored(run: Run, entries: list[Entry], formats: Sequence[str] = ()) -> list[str]:
    """Write the structures that a run has stored; what a format cannot hold is noted in their entries.

    Args:
        run: The run.
        entries: Its entries.
        formats: Further formats, see `mmace_sim.io.writing.WRITERS`.

    Returns:
        Names of files.
    """
    by_name = {entry["name"]: entry for entry in entries}
    for name, note in write_structures(run.folder, run.stored_atoms(), formats):
        by_name[name]["notes"].append(note)
    return ["relaxed.extxyz", *write_doubtful(run, run.stored_atoms(), entries)]


def write_doubtful(run: Run, images: Sequence[Atoms], entries: list[Entry]) -> list[str]:
    """Write what a model was too uncertain about as candidates for `mmace-sim label`.

    Args:
        run: The run.
        images: Structures with their names and moments.
        entries: Entries of the summary.

    Returns:
        Names of files.
    """
    doubtful = {entry["name"] for entry in entries if entry["status"] == Status.UNCERTAIN}
    candidates = []
    for atoms in images:
        name = str(atoms.info["name"])
        if name in doubtful:
            bare = bare_copy(atoms)
            bare.info |= {"config_id": f"{name}-{run.command}-uncertain", "config_type": "uncertain"}
            candidates.append(bare)
    if candidates:
        write_extxyz(run.folder / "candidates.extxyz", candidates)
    return ["candidates.extxyz"] if candidates else []


def summary_entry(structure: LoadedStructure, result: StructureResult) -> Entry:
    """The entry of one relaxed structure in ``summary.json``.

    Args:
        structure: What was read.
        result: A ``StructureResult`` of `mmace_sim.relax`.

    Returns:
        Plain JSON values in the units of `RELAX`; numbers that are not finite are None.
    """
    before, after = structure.atoms, result.atoms
    n_atoms = len(before)
    energy, energy_initial = finite_or_none(result.energy), finite_or_none(result.energy_initial)
    curvature = result.curvature
    change = None if energy is None or energy_initial is None else (energy - energy_initial) / n_atoms
    entry = entry_head(structure, str(result.status), result.message)
    entry |= {
        "energy": energy,
        "energy_per_atom": None if energy is None else energy / n_atoms,
        "energy_initial": energy_initial,
        "energy_change_per_atom": change,
        "steps": int(result.steps),
        "max_force": finite_or_none(result.max_force),
        "max_stress": finite_or_none(result.max_stress),
        "max_magforce": finite_or_none(result.max_magforce),
        "moment_curvature": finite_or_none(None if curvature is None else curvature.lowest),
        "moment_curvature_error": finite_or_none(None if curvature is None else curvature.error),
        "moment_mode": np.round(curvature.direction, 6).tolist()
        if curvature is not None and result.status == "saddle"
        else None,
        "saddle_energy": finite_or_none(result.saddle_energy),
    }
    return entry | _magnetism(before, after) | _geometry(before, after)


def failed_entry(item: FailedStructure | LoadedStructure, message: str | None = None) -> Entry:
    """The entry of a structure that was not relaxed.

    Args:
        item: The structure or file.
        message: What is wrong, if `item` does not say it.

    Returns:
        Plain JSON values; every quantity is None.
    """
    nothing = dict.fromkeys(q.key for q in (*RELAX.columns, *RELAX.quantities))
    return nothing | entry_head(item, message=message) | {"steps": 0}


def output_atoms(structure: LoadedStructure, result: StructureResult) -> Atoms:
    """The relaxed structure as it is stored: moments, results, magforces, name and status.

    Args:
        structure: What was read.
        result: A ``StructureResult`` of `mmace_sim.relax`.

    Returns:
        A structure of its own.
    """
    atoms = labelled(result.atoms, name=structure.name, status=str(result.status))
    if result.magforces is not None and np.isfinite(result.magforces).all():
        atoms.arrays["magforces"] = np.array(result.magforces, dtype=float)
    return atoms


def _magnetism(before: Atoms, after: Atoms) -> Entry:
    """Moments and orders; all None if the relaxed moments are not finite."""
    initial, final = get_magmoms(before), np.asarray(after.arrays["initial_magmoms"], dtype=float)
    entry: Entry = {"magnetic_order_initial": str(classify_order(initial))}
    if not (np.isfinite(final).all() and np.isfinite(after.positions).all()):
        names = ("magnetic_order_final", "magmoms", "magmom_by_species", "total_magmom")
        return entry | dict.fromkeys(
            (*names, "magnetic_space_group", "magnetic_space_group_uni", "space_group")
        )
    symmetry = magnetic_symmetry(after, final)
    return entry | {
        "magnetic_order_final": str(classify_order(final)),
        "magmoms": final.tolist(),
        "magmom_by_species": mean_moments(after, final),
        "total_magmom": final.sum(axis=0).tolist(),
        "magnetic_space_group": symmetry and symmetry.bns_number,
        "magnetic_space_group_uni": symmetry and symmetry.uni_number,
        "space_group": symmetry and symmetry.space_group,
    }


def _geometry(before: Atoms, after: Atoms) -> Entry:
    """Cell and volume; volumes only for crystals."""
    finite = bool(np.isfinite(after.cell.array).all())
    entry: Entry = {"cell": after.cell.array.tolist() if finite else None}
    if not (finite and has_volume(before)):
        return entry | {"volume": None, "volume_change": None}
    volume = float(after.cell.volume)
    return entry | {"volume": volume, "volume_change": volume / float(before.cell.volume) - 1.0}
