"""How much the energy of many structures depends on the direction of their moments: a map of a data set."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, override

import numpy as np
from ase import Atoms
from jaxtyping import Float

from mmace_sim.engine.batching import Outcomes
from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import bare_copy, get_magmoms
from mmace_sim.properties.anisotropy.declaration import SensitivitySettings
from mmace_sim.properties.anisotropy.host import spin_orbit_host
from mmace_sim.properties.relax.relaxation import ModelLike, Status, as_atoms
from mmace_sim.properties.singlepoint import PointResult, SinglePoint, converged, first_problem
from mmace_sim.properties.workflow import Workflow
from mmace_sim.testing.structures import random_rotation
from mmace_sim.torchsim.state import StructuresLike


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


class Sensitivity(Workflow[SensitivitySettings]):
    """Energy changes by random rotations of all moments: settings here, structures in :meth:`run`.

    All structures see the same rotations. All of them are one batch, always in float64.

    Its settings are :class:`~mmace_sim.properties.anisotropy.declaration.SensitivitySettings`.

    Raises:
        UnsupportedOptionError: If the model has no spin–orbit coupling, or another type than float64 is asked for.
    """

    kind = SensitivitySettings

    @override
    def set_up(self, model: ModelLike, **where: Any) -> None:
        rng = np.random.default_rng(self.settings.seed)
        self.rotations = [np.eye(3), *(random_rotation(rng) for _ in range(self.settings.rotations))]
        max_batch_atoms = where.pop("max_batch_atoms")
        host = spin_orbit_host(model, **where)
        self.points = SinglePoint(host, magmoms="fixed", max_batch_atoms=max_batch_atoms)

    def run(
        self,
        structures: StructuresLike,
        *,
        on_finished: Callable[[int, SensitivityResult], None] | None = None,
    ) -> list[SensitivityResult]:
        """Compute the sensitivity of structures; one that fails does not stop the others.

        Args:
            structures: ASE, pymatgen or phonopy structures, one or many, with moments.
            on_finished: Called with the index and the result of each structure as soon as it is finished.

        Returns:
            One result for each structure, in the same order.
        """
        images = as_atoms(structures)
        finish = Outcomes(len(images), on_finished)

        chosen: list[int] = []
        rotated: list[list[Atoms]] = []
        for index, atoms in enumerate(images):
            try:
                magmoms = get_magmoms(atoms)
                if not magmoms.any():
                    raise StructureError("there are no moments to turn.")
            except StructureError as error:
                finish(index, SensitivityResult(atoms, Status.FAILED, str(error)))
                continue
            chosen.append(index)
            rotated.append([bare_copy(atoms, magmoms @ rotation.T) for rotation in self.rotations])
        self.points.run_groups(
            rotated, lambda group, points: finish(chosen[group], _result(images[chosen[group]], points))
        )
        return finish.in_order()


def _result(atoms: Atoms, points: list[PointResult]) -> SensitivityResult:
    if not converged(points).all():
        return SensitivityResult(atoms, Status.FAILED, first_problem(points))
    energies = np.array([point.energy for point in points])
    return SensitivityResult(atoms, Status.CONVERGED, "", float(energies[0]), energies[1:] - energies[0])
