"""Minima of the energy over the moments at fixed atoms: many structures, many random starts, one batch."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, override

import numpy as np
from ase import Atoms
from jaxtyping import Float

from mmace_sim.engine.batching import Outcomes, run_groups
from mmace_sim.engine.computation import Advance
from mmace_sim.engine.kept import Kept
from mmace_sim.engine.outcomes import Curvature
from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.properties.moments.declaration import MomentSearchSettings
from mmace_sim.properties.moments.relax import Descent, DescentResult, MomentRelaxation
from mmace_sim.properties.moments.starts import free_moments, random_starts
from mmace_sim.properties.order import OrderStatus
from mmace_sim.properties.order.axes import symmetry_of_moments
from mmace_sim.properties.order.states import cluster_states, state_fingerprint
from mmace_sim.properties.relax.relaxation import ModelLike, Status
from mmace_sim.properties.workflow import BatchWorkflow
from mmace_sim.structures.magnetic_order import (
    MagneticOrder,
    MagneticSymmetry,
    classify_order,
)
from mmace_sim.structures.moment_range import hard_limits, shorten_moments
from mmace_sim.torchsim.state import StructuresLike

MAX_MINIMA: int = 20
"""Symmetry and stability are found for so many minima of a structure, the lowest ones."""

LOOK_AROUND_EVERY: float = 30.0
"""Seconds in which finished structures are collected for one batch that finds their stability."""

_log = logging.getLogger(__name__)


@dataclass
class MomentStart:
    """What became of one random start.

    Attributes:
        number: From 0; with the seed it decides the random moments.
        status: How it ended.
        message: What to know or do; empty if all is well.
        atoms: The structure with the moments at the end, results on a ``SinglePointCalculator``.
        magmoms_initial: Moments at the start, in μB.
        energy: In eV/atom, with that of the moments in the field; NaN if there is none.
        max_magforce: Largest magforce that the constraints leave, in eV/μB.
        steps: Number of steps; each evaluates the model once.
        descent: Energy and largest magforce before every step and at the end.
        minimum: Number of its minimum, from 1; None if it did not converge.
    """

    number: int
    status: Status
    message: str
    atoms: Atoms
    magmoms_initial: Float[np.ndarray, "n_atoms 3"]
    energy: float
    max_magforce: float
    steps: int
    descent: Descent
    minimum: int | None = None


@dataclass
class MomentMinimum:
    """One of the different minima of a structure.

    Attributes:
        number: From 1, the lowest.
        atoms: The structure with its moments; without spin–orbit coupling and field they are turned together to the
            axes that leave most magnetic symmetry.
        energy: In eV/atom.
        energy_above_lowest: In eV/atom.
        n_starts: Number of starts that ended here.
        order: Name of the order.
        symmetry: Magnetic space group; None for what is not a crystal, or beyond `MAX_MINIMA`.
        curvature: Of the energy there; None if it was not computed.
    """

    number: int
    atoms: Atoms
    energy: float
    energy_above_lowest: float
    n_starts: int
    order: MagneticOrder
    symmetry: MagneticSymmetry | None = None
    curvature: Curvature | None = None

    @property
    def magmoms(self) -> Float[np.ndarray, "n_atoms 3"]:
        """Moments, in μB."""
        return get_magmoms(self.atoms)

    @property
    def is_stable(self) -> bool | None:
        """True for a minimum, False for a saddle point, None if it was not looked at."""
        return None if self.curvature is None else self.curvature.is_stable


@dataclass
class MomentResult:
    """All starts and minima of one structure.

    Attributes:
        atoms: The structure as it was given.
        starts: One for each random start.
        minima: The lowest first.
        message: Why there are none, or what is wrong with some starts.
    """

    atoms: Atoms
    starts: list[MomentStart] = field(default_factory=list)
    minima: list[MomentMinimum] = field(default_factory=list)
    message: str = ""

    @property
    def n_converged(self) -> int:
        """Number of starts that converged."""
        return sum(start.status is Status.CONVERGED for start in self.starts)

    @property
    def status(self) -> OrderStatus:
        """CONVERGED if all starts are, FAILED if none is."""
        if self.n_converged == 0:
            return OrderStatus.FAILED
        return OrderStatus.CONVERGED if self.n_converged == len(self.starts) else OrderStatus.INCOMPLETE

    @property
    def n_lowest(self) -> int:
        """Number of starts that found the lowest minimum."""
        return self.minima[0].n_starts if self.minima else 0


class MomentSearch(BatchWorkflow[MomentSearchSettings, MomentResult]):
    """Minimises the energy over the moments from random starts: settings here, structures in :meth:`run`.

    Every moment of a structure is turned by an angle from U[0, π] about a random axis and scaled by U[0, 1.5], and all
    are relaxed together at fixed atoms and cell, in one batch for all starts of all structures. What converged is put
    into groups by energy and by a fingerprint that knows neither the order of atoms nor common rotations, and the
    lowest of each group is a minimum with its magnetic space group and the curvature of its energy. What ends within
    `LOOK_AROUND_EVERY` seconds is looked at in one batch, so that a structure is told soon after it is finished.

    Its settings are :class:`~mmace_sim.properties.moments.declaration.MomentSearchSettings`.
    """

    kind = MomentSearchSettings

    @override
    def set_up(self, model: ModelLike, **where: Any) -> None:
        names = ("solver", "field", "magforce_tol", "max_steps", "collinear", "fix_magnitude")
        alike = {name: getattr(self.settings, name) for name in names}
        self.relaxation = MomentRelaxation(model, **alike, **where)
        self.rotates_freely = self.relaxation.rotates_freely and not self.settings.only

    @override
    def _compute(
        self, images: list[Atoms], finish: Outcomes[MomentResult], kept: Kept[Any], on_point: Advance
    ) -> None:
        results, starts = [], []
        for atoms in images:
            result, own = MomentResult(atoms), []
            try:
                own = self._starts(atoms)
            except StructureError as error:
                result.message = str(error)
            results.append(result)
            starts.append(own)
        waiting, last = list[int](), time.monotonic()

        def look_around() -> None:
            nonlocal last
            if self.settings.stability:
                self._look_around([m for index in waiting for m in results[index].minima[:MAX_MINIMA]])
            for index in waiting:
                finish(index, results[index])
            waiting.clear()
            last = time.monotonic()

        def analyse(index: int, outcomes: list[DescentResult]) -> None:
            own = enumerate(outcomes)
            results[index].starts = [self._start(k, outcome) for k, outcome in own]
            self._find_minima(results[index])
            waiting.append(index)
            if time.monotonic() - last >= LOOK_AROUND_EVERY:
                look_around()

        run_groups(partial(kept.run, self.relaxation.run), starts, analyse, on_point)
        look_around()

    def _starts(self, atoms: Atoms) -> list[Atoms]:
        freedom = self.relaxation.freedom
        starts = random_starts(
            atoms,
            self.settings.starts,
            seed=self.settings.seed,
            free=free_moments(atoms, self.settings.only),
            collinear=freedom.collinear,
            fix_magnitude=freedom.fix_magnitude,
        )
        limits = hard_limits(self.relaxation.bare_model)
        if freedom.fix_magnitude or not limits:
            return starts
        return [shorten_moments(start, limits) for start in starts]

    def _start(self, number: int, outcome: DescentResult) -> MomentStart:
        return MomentStart(
            number=number,
            status=outcome.status,
            message="" if outcome.status is Status.CONVERGED else outcome.message,
            atoms=outcome.atoms,
            magmoms_initial=get_magmoms(outcome.initial_atoms),
            energy=outcome.energy / len(outcome.atoms),
            max_magforce=outcome.max_magforce,
            steps=outcome.steps,
            descent=outcome.descent,
        )

    def _find_minima(self, result: MomentResult) -> None:
        """Put the starts of one structure into groups, and look at the lowest of each."""
        converged = [start for start in result.starts if start.status is Status.CONVERGED]
        if len(converged) < len(result.starts):
            worst = next(start for start in result.starts if start not in converged)
            result.message = (
                f"{len(result.starts) - len(converged)} of {len(result.starts)} starts did not converge, such as "
                f"{worst.number} ({worst.status}: {worst.message})"
            )
        energies = [start.energy for start in converged]
        prints = [state_fingerprint(start.atoms, get_magmoms(start.atoms)) for start in converged]
        for start, group in zip(
            converged, cluster_states(energies, prints, energy_tol=self.settings.energy_tol), strict=True
        ):
            start.minimum = group + 1
        for number in range(1, 1 + max((start.minimum or 0 for start in converged), default=0)):
            members = [start for start in converged if start.minimum == number]
            best = min(members, key=lambda start: start.energy)
            minimum = MomentMinimum(
                number=number,
                atoms=best.atoms.copy(),
                energy=best.energy,
                energy_above_lowest=best.energy - min(energies),
                n_starts=len(members),
                order=classify_order(get_magmoms(best.atoms)),
            )
            minimum.atoms.calc = best.atoms.calc
            if number <= MAX_MINIMA:
                self._find_symmetry(minimum)
            result.minima.append(minimum)
        _log.info(
            "%s: %d of %d starts converged to %d minima, the lowest from %d starts",
            result.atoms.get_chemical_formula(), len(converged), len(result.starts), len(result.minima),
            result.n_lowest,
        )  # fmt: skip

    def _find_symmetry(self, minimum: MomentMinimum) -> None:
        """Magnetic space group, after turning the moments to where it is highest if nothing depends on that."""
        minimum.symmetry = symmetry_of_moments(
            minimum.atoms, minimum.magmoms, turn=self.rotates_freely, symprec=self.settings.symprec
        )

    def _look_around(self, minima: Sequence[MomentMinimum]) -> None:
        around = self.relaxation.around().run([minimum.atoms for minimum in minima])
        for minimum, outcome in zip(minima, around, strict=True):
            minimum.curvature = outcome.curvature


def minimize_moments(
    structures: StructuresLike,
    model: ModelLike = "default",
    *,
    on_finished: Callable[[int, MomentResult], None] | None = None,
    **settings: Any,
) -> list[MomentResult]:
    """Minimise the energy over the moments of many structures from many random starts, in one batch.

    Args:
        structures: ASE, pymatgen or phonopy structures, one or many, with the moments that are turned and scaled.
        model: Model, its name or path, or any TorchSim model that gives magforces.
        on_finished: Called with the index and the result of each structure.
        **settings: Settings of :class:`MomentSearch` (`starts`, `fix_magnitude`, `field`, …).

    Returns:
        One :class:`MomentResult` for each structure, in the same order. Look at its `status`.
    """
    return MomentSearch(model, **settings).run(structures, on_finished=on_finished)
