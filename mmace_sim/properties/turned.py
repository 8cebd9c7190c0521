"""Energies of structures whose moments are turned: what exchange, anisotropy and maps of data sets have in common."""

from collections.abc import Sequence
from typing import Any, override

import numpy as np
from ase import Atoms

from mmace_sim.base.settings import Settings
from mmace_sim.engine.batching import Outcomes
from mmace_sim.engine.computation import Advance
from mmace_sim.engine.kept import Kept
from mmace_sim.errors import MmaceError
from mmace_sim.properties.relax.relaxation import ModelLike, Status
from mmace_sim.properties.singlepoint import PointResult, SinglePoint, first_problem
from mmace_sim.properties.workflow import BatchWorkflow


class TurnedWorkflow[S: Settings, R](BatchWorkflow[S, R]):
    """Turns the moments of each structure in many ways; all ways of all structures are one batch.

    Attributes:
        outcome: Class of the results: the structure, its status and a message come first.
        turned: Computes the energies.
    """

    outcome: type[R]
    turned: SinglePoint

    @override
    def _compute(self, images: list[Atoms], finish: Outcomes[R], kept: Kept[Any], on_point: Advance) -> None:
        jobs: list[tuple[int, Any]] = []
        for index, start in enumerate(self._at_rest(images)):
            try:
                jobs.append((index, self._prepare(start)))
            except (MmaceError, RuntimeError, np.linalg.LinAlgError) as error:  # must not stop the others
                finish(index, self.outcome(images[index], Status.FAILED, str(error)))  # type: ignore[call-arg]
        self.turned.run_groups(
            [job.images for _, job in jobs],
            lambda group, points: finish(jobs[group][0], self._finish(jobs[group][1], points)),
        )

    def _at_rest(self, images: list[Atoms]) -> Sequence[Any]:
        """What `_prepare` takes of each structure."""
        return images

    def _prepare(self, start: Any) -> Any:
        """Everything before the energies, among it the turned structures as `images`.

        Raises `StructureError` for a structure that cannot be used.
        """
        raise NotImplementedError

    def _finish(self, job: Any, points: Sequence[PointResult]) -> R:
        """Everything after the energies."""
        raise NotImplementedError


def resting_and_turned(model: ModelLike, settings: Any, **where: Any) -> tuple[SinglePoint, SinglePoint]:
    """What computes collinear orders before they turn, and while.

    Args:
        model: The model.
        settings: Of the property: `magmoms` before, `lengths` while the moments turn, and how lengths relax.
        **where: Where to run.
    """
    shared = {name: getattr(settings, name) for name in ("magforce_tol", "max_steps")} | where
    resting = SinglePoint(model, magmoms=settings.magmoms, collinear=True, **shared)
    turning = "relaxed" if settings.lengths == "relaxed" else "fixed"
    return resting, SinglePoint(resting.relaxation.bare_model, magmoms=turning, collinear=True, **shared)


def lacking(points: Sequence[PointResult], what: str) -> tuple[Status, str]:
    """How the first state ended that cannot be used, and how many those are.

    Args:
        points: States, not all of which converged.
        what: Of what, in the plural.
    """
    bad = [point.status for point in points if point.status is not Status.CONVERGED]
    return bad[0], f"{len(bad)} of {len(points)} {what}, {first_problem(points)}".strip()
