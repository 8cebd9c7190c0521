"""Energies of several magnetic states over a grid of cells: what equations of state and Bain maps have in common."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, override

import numpy as np
from ase import Atoms
from jaxtyping import Float

from mmace_sim.base.settings import Settings
from mmace_sim.engine.batching import Outcomes, run_groups
from mmace_sim.engine.computation import Advance, Computed, Entry, Part, Told
from mmace_sim.engine.declaration import PLACE
from mmace_sim.engine.kept import Kept
from mmace_sim.engine.outcomes import StructureResult
from mmace_sim.engine.output import entry_head, write_csv
from mmace_sim.engine.run import Run
from mmace_sim.errors import StructureError
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.plots import COLORS, MARKERS
from mmace_sim.properties.eos.birch_murnaghan import EosStatus
from mmace_sim.properties.relax.relaxation import ModelLike, Relaxation, Status
from mmace_sim.properties.results import known
from mmace_sim.properties.singlepoint import (
    PointResult,
    converged,
    energies_and_moments,
    first_problem,
    point_result,
    point_settings,
)
from mmace_sim.properties.workflow import BatchWorkflow, WorkflowComputation
from mmace_sim.properties.written import Figures, draw_each, labelled
from mmace_sim.structures.magnetic_states import magnetic_state
from mmace_sim.structures.moment_range import largest_moments, shorten_moments


@dataclass
class StatePoints:
    """Energies of one magnetic state at the points of a grid.

    Attributes:
        state: Name of the state.
        status: CONVERGED; INCOMPLETE if points are missing; OUTSIDE if the lowest point is at the edge; FAILED; …
        message: What to know or do; empty if all is well.
        note: How the state was made, such as a larger cell.
        energies: In eV/atom; NaN where a point failed or did not converge.
        moments: Mean length of all moments, in μB, likewise.
        points: What was computed at each.
    """

    state: str
    status: EosStatus
    message: str = ""
    note: str = ""
    energies: Float[np.ndarray, "*grid"] = field(default_factory=lambda: np.zeros(0))
    moments: Float[np.ndarray, "*grid"] = field(default_factory=lambda: np.zeros(0))
    points: list[PointResult] = field(default_factory=list)


def common_status(states: Sequence[StatePoints]) -> EosStatus:
    """CONVERGED if all states are, else the first other status.

    Args:
        states: Of one structure.
    """
    bad = (one.status for one in states if one.status is not EosStatus.CONVERGED)
    return next(bad, EosStatus.CONVERGED)


def styled_states[P: StatePoints](states: Sequence[P]) -> list[tuple[P, str, str]]:
    """States of which something was computed, each with a colour and a marker.

    Args:
        states: Of one structure.
    """
    computed = [one for one in states if np.isfinite(one.energies).any()]
    return list(zip(computed, itertools.cycle(COLORS), itertools.cycle(MARKERS), strict=False))


class StatesWorkflow[S: Settings, P: StatePoints, R](BatchWorkflow[S, R]):
    """Points of the states of structures. All points of all states of all structures are computed in one batch.

    Every point starts from the moments of its state, so that a metastable state is followed as far as it exists.

    Attributes:
        part: Class of what is known of one state.
        needs: What needs structures, for messages about those that it cannot use.
    """

    part: type[P]
    settings: Any

    @override
    def set_up(self, model: ModelLike, **where: Any) -> None:
        alike, relax_positions = point_settings(self.settings), self.settings.relax_positions
        self.relaxation = Relaxation(model, alike, relax_positions=relax_positions, **where)

    @override
    def _compute(self, images: list[Atoms], finish: Outcomes[R], kept: Kept[Any], on_point: Advance) -> None:
        states = [[self._begun(atoms, name) for name in self.settings.states] for atoms in images]
        points = [[point.atoms for one in row for point in one.points] for row in states]

        def analyse(index: int, ends: list[StructureResult]) -> None:
            rest = iter(map(point_result, ends))
            for one in states[index]:
                one.points = list(itertools.islice(rest, len(one.points)))
                one.energies, one.moments = energies_and_moments(one.points)
                if one.points and not converged(one.points).any():
                    one.message = f"no point converged ({first_problem(one.points)})"
            finish(index, self._result(images[index], states[index]))

        run_groups(self.relaxation.run, points, analyse, on_point)

    def _begun(self, atoms: Atoms, name: str) -> P:
        """A state whose points are still to be computed, or one that failed."""
        try:
            self._check(atoms)
            state, note = magnetic_state(atoms, name)
        except StructureError as error:
            return self.part(name, EosStatus.FAILED, str(error))
        if name != "file":  # moments that are not the user's own stay within what the model knows
            shorten_moments(state, largest_moments(self.relaxation.bare_model))
        points = []
        for cell in self._cells(atoms, state):
            image = state.copy()
            image.set_cell(cell, scale_atoms=True)
            points.append(PointResult(image, np.nan, None, None, None, None, Status.FAILED))
        return self.part(name, EosStatus.FAILED, note=note, points=points)

    def _check(self, atoms: Atoms) -> None:
        """Raise `StructureError` for a structure that has no such grid."""
        raise NotImplementedError

    def _cells(self, atoms: Atoms, state: Atoms) -> list[Float[np.ndarray, "3 3"]]:
        """Cells of the points of a state of a structure, which may be in a larger cell."""
        raise NotImplementedError

    def _result(self, atoms: Atoms, states: list[P]) -> R:
        """Analyse the points of a structure, of which energies and moments are known."""
        raise NotImplementedError


class StatesComputation[R](WorkflowComputation[R]):
    """Points of the states of the structures of a run.

    Attributes:
        key: Of the states in an entry.
        point_columns: Of ``curves.csv``: one line for each point.
        figures: Of each structure.
    """

    counted = "points"
    key: ClassVar[str] = "states"
    point_columns: ClassVar[tuple[str, ...]]
    figures: ClassVar[Figures]

    @property
    def n_points(self) -> int:
        """Points of one structure."""
        return len(self.settings.states) * self.settings.n_volumes

    @override
    def total(self, part: Part) -> int:
        return len(part.pending) * self.n_points

    @override
    def evaluations(self, item: LoadedStructure) -> int:
        return self.n_points * self.rounds(item)

    @override
    def rounds(self, item: LoadedStructure) -> int:
        return 60 if self.settings.relax_positions else 20 if self.settings.magmoms == "relaxed" else 1

    def _states(self, result: R) -> Sequence[Any]:
        """The states of a result, each a `StatePoints`."""
        raise NotImplementedError

    def _told(self, result: R) -> Entry:
        """What an entry says of a structure besides its head, the states under `key`."""
        raise NotImplementedError

    def _point_rows(self, result: R, state: Any) -> list[Entry]:
        """Lines of ``curves.csv`` of a state, without the names of structure and state."""
        raise NotImplementedError

    @override
    def entry(self, item: LoadedStructure, result: R) -> Entry:
        states = self._states(result)
        message = " ".join(f"State {one.state}: {one.message}" for one in states if one.message)
        item.notes += [f"state {one.state}: {one.note}" for one in states if one.note]
        return entry_head(item, str(common_status(states)), message) | self._told(result)

    @override
    def stands_for(self, entry: Entry, result: R) -> Told:
        points = [[p for p in one.points if p.magforces is not None] for one in self._states(result)]
        images = [list(map(_with_magforces, some)) for some in points]
        return [
            *zip(entry[self.key], images, strict=True),
            (entry, [image for some in images for image in some]),
        ]

    @override
    def rows(self, entry: Entry) -> list[Entry]:
        """One for each minimum, or one that says why there is none."""
        head = {key: entry[key] for key in ("name", "file", "index", "formula", "model")}
        if self.key not in entry:
            return [head | {"status": entry["status"], "message": entry["message"]}]
        return [
            head | {key: state.get(key) for key in ("state", "status", "message", *PLACE)} | minimum
            for state in entry[self.key]
            for minimum in [{"minimum": k} | m for k, m in enumerate(state["minima"], start=1)] or [{}]
        ]

    @override
    def write(self, run: Run, entries: list[Entry], computed: Computed[R]) -> list[str]:
        rows = [
            {"name": item.name, "state": one.state} | row
            for item, result in computed
            for one in self._states(result)
            for row in self._point_rows(result, one)
        ]
        write_csv(run.folder / "curves.csv", ("name", "state", *self.point_columns), rows)
        return ["curves.csv", *draw_each(run, computed, self.figures)]


def _with_magforces(point: PointResult) -> Atoms:
    atoms = labelled(point.atoms)
    atoms.arrays["magforces"] = known(point.magforces)
    return atoms
