"""Energies of several magnetic states over a grid of cells, as a run: what their properties have in common."""

from typing import Any, ClassVar, override

from mmace_sim.engine.computation import Advance, Computation, Part, Store
from mmace_sim.io.collection import LoadedStructure


class StatesComputation[R](Computation[Any, R]):
    """Points of the states of the structures of a run.

    Attributes:
        workflow: What computes them, as `mmace_sim.properties.eos.EquationOfState`.
    """

    counted = "points"
    workflow: ClassVar[type[Any]]

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

    @override
    def compute(self, part: Part, store: Store[R], advance: Advance) -> None:
        workflow = self.workflow(part.model, self.settings, max_batch_atoms=self.settings.max_batch_atoms)
        workflow.run([item.atoms for item in part.pending], on_finished=store, on_point=advance)
