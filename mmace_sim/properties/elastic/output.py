"""Elastic constants as a run: entries of the summary, unstrained structures, figures."""

from dataclasses import replace
from typing import override

from ase import Atoms

from mmace_sim.engine.computation import Advance, Computed, Entry, Part, Store, Told
from mmace_sim.engine.outcomes import StructureResult
from mmace_sim.engine.output import entry_head, mean_moments
from mmace_sim.engine.run import Run
from mmace_sim.graph.atoms import bare_copy, get_magmoms
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.io.writing import write_extxyz
from mmace_sim.properties.elastic.constants import ElasticResult, ElasticTensorCalculation
from mmace_sim.properties.elastic.declaration import SHOWN
from mmace_sim.properties.elastic.moduli import ElasticConstants
from mmace_sim.properties.elastic.plots import FIGURES
from mmace_sim.properties.workflow import WorkflowComputation
from mmace_sim.properties.written import draw_each, labelled
from mmace_sim.structures.magnetic_order import classify_order, magnetic_symmetry
from mmace_sim.units import EV_PER_A3_IN_GPA


class ElasticComputation(WorkflowComputation[ElasticResult]):
    """Elastic constants of the structures of a run."""

    verb = "Straining"
    counted = "cells"
    workflow = ElasticTensorCalculation
    keeps = ("crystals", StructureResult)
    result = ElasticResult

    @override
    def total(self, part: Part) -> int | None:
        return None

    @override
    def evaluations(self, item: LoadedStructure) -> int:
        settings = self.settings
        n_cells = 2 * len(settings.strains) * (3 if settings.symmetry else 6)
        return n_cells * self._steps + (100 if settings.relax else 1)

    @property
    def _steps(self) -> int:
        """Of atoms and moments of a strained cell."""
        settings = self.settings
        modes = ("fixed", "relaxed") if settings.magmoms == "both" else (settings.magmoms,)
        return sum(40 if settings.relax_positions or mode == "relaxed" else 1 for mode in modes)

    @override
    def rounds(self, item: LoadedStructure) -> int:
        return self._steps + (100 if self.settings.relax else 1)

    @override
    def compute(self, part: Part, store: Store[ElasticResult], advance: Advance) -> None:
        def trimmed(index: int, result: ElasticResult) -> None:
            store(index, replace(result, points={}))  # too much to keep

        super().compute(part, trimmed, advance)

    @override
    def entry(self, item: LoadedStructure, result: ElasticResult) -> Entry:
        return (
            entry_head(item, str(result.status), result.message)
            | _unstrained(result.reference)
            | {
                "n_rotations": result.n_rotations,
                "n_independent": result.n_independent,
                "strains": result.strains,
                "constants": {mode: _constants_entry(c) for mode, c in result.constants.items()},
            }
            | _softening(result)
        )

    @override
    def stands_for(self, entry: Entry, result: ElasticResult) -> Told:
        crystal = result.reference
        return [(entry, [] if crystal is None else [bare_copy(crystal)])]

    @override
    def rows(self, entry: Entry) -> list[Entry]:
        constants = entry.get("constants") or {}
        return [entry | {"magmoms": mode} | values for mode, values in constants.items()] or [entry]

    @override
    def write(self, run: Run, entries: list[Entry], computed: Computed[ElasticResult]) -> list[str]:
        images = [
            labelled(result.reference, name=item.name, status=str(result.status))
            for item, result in computed
            if result.reference is not None
        ]
        write_extxyz(run.folder / "relaxed.extxyz", images)
        return ["relaxed.extxyz", *draw_each(run, computed, FIGURES)]


def _constants_entry(constants: ElasticConstants) -> Entry:
    """Tensors, moduli, stability, and the tensor as pymatgen reads it back."""
    ieee = constants.c_ieee_gpa
    return {
        "c_gpa": constants.c_gpa.tolist(),
        "c_ieee_gpa": ieee.tolist(),
        **{name: float(ieee[index]) for name, index in SHOWN.items()},
        **constants.moduli(),
        "eigenvalues_gpa": constants.eigenvalues_gpa.tolist(),
        "stable": constants.stable,
        "fit_error_gpa": constants.fit_error_gpa,
        "elastic_tensor": constants.tensor.as_dict(),
    }


def _softening(result: ElasticResult) -> Entry:
    """What the moments take away when they follow, if both responses were computed."""
    if len(result.constants) < 2:
        return {}
    difference = result.constants["fixed"].c_ieee_gpa - result.constants["relaxed"].c_ieee_gpa
    return {"softening_by_moments_gpa": difference.tolist()}


def _unstrained(atoms: Atoms | None) -> Entry:
    """What is known of the unstrained structure."""
    if atoms is None:
        return {}
    magmoms, symmetry = get_magmoms(atoms), magnetic_symmetry(atoms)
    return {
        "magnetic_order": str(classify_order(magmoms)),
        "magmom_by_species": mean_moments(atoms, magmoms),
        "space_group": symmetry and symmetry.space_group,
        "magnetic_space_group": symmetry and symmetry.bns_number,
        "volume": float(atoms.get_volume()),
        "cell": atoms.cell.array.tolist(),
        "stress": (atoms.get_stress() * EV_PER_A3_IN_GPA).tolist(),
    }
