"""How much the energy of many structures depends on the direction of their moments: a map of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, override

import numpy as np
from ase import Atoms
from jaxtyping import Float

from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import bare_copy, get_magmoms
from mmace_sim.properties.anisotropy.declaration import SensitivitySettings
from mmace_sim.properties.anisotropy.host import spin_orbit_host
from mmace_sim.properties.relax.relaxation import ModelLike, Status
from mmace_sim.properties.singlepoint import PointResult, SinglePoint, converged, first_problem
from mmace_sim.properties.turned import TurnedWorkflow
from mmace_sim.testing.structures import random_rotation


@dataclass
class SensitivityResult:
    """Spin–orbit sensitivity of one structure.

    Attributes:
        atoms: The structure.
        status: CONVERGED if all energies are there.
        message: What is wrong; empty if all is well.
        energy: E(m), in eV per cell.
        changes: E(R m) − E(m) for each rotation, in eV per cell; None if it failed.
    """

    atoms: Atoms
    status: Status
    message: str = ""
    energy: float = float("nan")
    changes: Float[np.ndarray, " n_rotations"] | None = None

    @property
    def value(self) -> float | None:
        """Root mean square change, in eV/atom."""
        return None if self.changes is None else float(np.sqrt(np.mean(self.changes**2))) / len(self.atoms)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the rotations, in eV/atom: does not depend on where the moments point now."""
        return None if self.changes is None else float(self.changes.std(ddof=1)) / len(self.atoms)


@dataclass
class _Job:
    atoms: Atoms
    images: list[Atoms]


class Sensitivity(TurnedWorkflow[SensitivitySettings, SensitivityResult]):
    """Energy changes by random rotations of all moments: settings here, structures in :meth:`run`.

    All structures see the same rotations. All of them are one batch, always in float64.

    Its settings are :class:`~mmace_sim.properties.anisotropy.declaration.SensitivitySettings`.

    Raises:
        UnsupportedOptionError: If the model has no spin–orbit coupling, or another type than float64 is asked for.
    """

    kind = SensitivitySettings
    outcome = SensitivityResult

    @override
    def set_up(self, model: ModelLike, **where: Any) -> None:
        rng = np.random.default_rng(self.settings.seed)
        self.rotations = [np.eye(3), *(random_rotation(rng) for _ in range(self.settings.rotations))]
        max_batch_atoms = where.pop("max_batch_atoms")
        host = spin_orbit_host(model, **where)
        self.turned = SinglePoint(host, magmoms="fixed", max_batch_atoms=max_batch_atoms)

    @override
    def _prepare(self, start: Atoms) -> _Job:
        magmoms = get_magmoms(start)
        if not magmoms.any():
            raise StructureError("there are no moments to turn.")
        return _Job(start, [bare_copy(start, magmoms @ rotation.T) for rotation in self.rotations])

    @override
    def _finish(self, job: _Job, points: Sequence[PointResult]) -> SensitivityResult:
        if not converged(points).all():
            return SensitivityResult(job.atoms, Status.FAILED, first_problem(points))
        first, *turned = (point.energy for point in points)
        return SensitivityResult(job.atoms, Status.CONVERGED, "", first, np.array(turned) - first)
