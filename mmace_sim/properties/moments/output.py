"""Minima of the moments as a run: entries of the summary, starts, minima, figures."""

import logging
from typing import override

import numpy as np

from mmace_sim.engine.computation import Computed, Entry, Part, Told
from mmace_sim.engine.output import entry_head, finite_or_none, mean_moments, write_csv
from mmace_sim.engine.run import Run
from mmace_sim.graph.atoms import bare_copy
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.io.writing import file_names, write_crystal, write_extxyz
from mmace_sim.properties.moments.minimisation import MomentMinimum, MomentResult, MomentSearch
from mmace_sim.properties.moments.plots import moment_figures
from mmace_sim.properties.moments.relax import DescentResult
from mmace_sim.properties.workflow import WorkflowComputation
from mmace_sim.properties.written import draw_each

START_COLUMNS: tuple[str, ...] = (
    "name", "start", "status", "minimum", "steps", "energy_initial", "energy", "max_magforce", "message",
)  # fmt: skip
"""Columns of ``starts.csv``: one line for each start; energies in eV/atom."""

_log = logging.getLogger(__name__)


class MomentsComputation(WorkflowComputation[MomentResult]):
    """Minima of the moments of the structures of a run."""

    verb = "Minimising"
    counted = "starts"
    workflow = MomentSearch
    keeps = ("starts", DescentResult)
    result = MomentResult

    @override
    def total(self, part: Part) -> int:
        return len(part.pending) * self.settings.starts

    @override
    def evaluations(self, item: LoadedStructure) -> int:
        return self.settings.starts * self.rounds(item)

    @override
    def rounds(self, item: LoadedStructure) -> int:
        return min(30, self.settings.max_steps + 1)

    @override
    def entry(self, item: LoadedStructure, result: MomentResult) -> Entry:
        steps = [start.steps for start in result.starts]
        return entry_head(item, str(result.status), result.message) | {
            "n_starts": len(result.starts),
            "n_converged": result.n_converged,
            "n_lowest": result.n_lowest,
            "n_evaluations": sum(steps) + len(steps),
            "mean_steps": finite_or_none(np.mean(steps)) if steps else None,
            "minima": [_minimum_entry(minimum) for minimum in result.minima],
        }

    @override
    def stands_for(self, entry: Entry, result: MomentResult) -> Told:
        images = [[bare_copy(minimum.atoms, minimum.magmoms)] for minimum in result.minima]
        return [*zip(entry["minima"], images, strict=True), (entry, images[0] if images else [])]

    @override
    def rows(self, entry: Entry) -> list[Entry]:
        keys = ("name", "file", "index", "formula", "model", "status", "message")
        return [{key: entry[key] for key in keys} | minimum for minimum in entry.get("minima") or [{}]]

    @override
    def write(self, run: Run, entries: list[Entry], computed: Computed[MomentResult]) -> list[str]:
        rows = [row for item, result in computed for row in _start_rows(item, result)]
        write_csv(run.folder / "starts.csv", START_COLUMNS, rows)
        stems = file_names([item.name for item, _ in computed])
        images = []
        for stem, (_, result) in zip(stems, computed, strict=True):
            for minimum in result.minima:
                minimum.atoms.info |= {
                    "name": f"{stem}-{minimum.number}",
                    "n_starts": minimum.n_starts,
                    "magnetic_space_group": minimum.symmetry.bns_number if minimum.symmetry else "unknown",
                }
                images.append(minimum.atoms)
        write_extxyz(run.folder / "minima.extxyz", images)
        for atoms in images:
            note = write_crystal(run.folder / "structures" / f"{atoms.info['name']}.mcif", atoms, "mcif")
            if note and atoms.pbc.all():
                _log.warning("%s: %s", atoms.info["name"], note)
        figures = moment_figures(self.settings.magforce_tol)
        return ["starts.csv", "minima.extxyz", "structures/", *draw_each(run, computed, figures)]


def _minimum_entry(minimum: MomentMinimum) -> Entry:
    symmetry, curvature = minimum.symmetry, minimum.curvature
    return {
        "minimum": minimum.number,
        "energy": minimum.energy,
        "energy_above_lowest": minimum.energy_above_lowest,
        "n_starts": minimum.n_starts,
        "is_stable": minimum.is_stable,
        "lowest_curvature": None if curvature is None else curvature.lowest,
        "magmom_by_species": mean_moments(minimum.atoms, minimum.magmoms),
        "total_magmom": float(np.linalg.norm(minimum.magmoms.sum(axis=0))),
        "magnetic_order": str(minimum.order),
        "magnetic_space_group": None if symmetry is None else symmetry.bns_number,
        "magmoms": minimum.magmoms.tolist(),
    }


def _start_rows(item: LoadedStructure, result: MomentResult) -> list[Entry]:
    return [
        {
            "name": item.name,
            "start": start.number,
            "status": str(start.status),
            "minimum": start.minimum,
            "steps": start.steps,
            "energy_initial": _first(start.descent.energies, len(item.atoms)),
            "energy": finite_or_none(start.energy),
            "max_magforce": finite_or_none(start.max_magforce),
            "message": start.message,
        }
        for start in result.starts
    ]


def _first(energies: np.ndarray, n_atoms: int) -> float | None:
    return finite_or_none(energies[0] / n_atoms) if len(energies) else None
