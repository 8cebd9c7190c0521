"""Minima of the energy over the moments at fixed atoms: many structures, many random starts, one batch."""

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float

from mmace_sim.engine.outcomes import Curvature
from mmace_sim.errors import StructureError, UnsupportedOptionError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.properties.moments.relax import Descent, MomentRelaxation
from mmace_sim.properties.moments.starts import free_moments, random_starts
from mmace_sim.properties.order import OrderStatus
from mmace_sim.properties.order.axes import symmetry_of_moments
from mmace_sim.properties.order.states import cluster_states, state_fingerprint
from mmace_sim.properties.relax.relaxation import ModelLike, Status, StructureResult, as_atoms
from mmace_sim.structures.magnetic_order import (
    MagneticOrder,
    MagneticSymmetry,
    classify_order,
)
from mmace_sim.structures.moment_range import hard_limits, shorten_moments

MAX_MINIMA: int = 20
"""Symmetry and stability are found for so many minima of a structure, the lowest ones."""

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


class MomentSearch:
    """Minimises the energy over the moments from random starts: settings here, structures in :meth:`run`.

    Every moment of a structure is turned by an angle from U[0, π] about a random axis and scaled by U[0, 1.5], and all
    are relaxed together at fixed atoms and cell, in one batch for all starts of all structures. What converged is put
    into groups by energy and by a fingerprint that knows neither the order of atoms nor common rotations, and the
    lowest of each group is a minimum with its magnetic space group and the curvature of its energy.

    Args:
        model: Model, its name or path, or any TorchSim model that gives magforces.
        n_starts: Number of random starts of each structure.
        seed: Seed; start k of a structure depends on its moments, the seed and k only.
        solver: "lbfgs" or "fire".
        magforce_tol: Largest magforce at convergence, in eV/μB.
        max_steps: Largest number of steps.
        collinear: Moments keep their axis and start with random signs.
        fix_magnitude: Moments keep their length.
        only: Symbols of elements and indices of atoms (from 0) whose moments may change; nothing means all.
        field: Applied field B in tesla. Energies then contain −μB B·Σm.
        energy_tol: Minima closer than this, in eV/atom, and alike are one.
        stability: Whether to compute the curvature at each minimum.
        symprec: Tolerance of positions for symmetry, in Å; of moments ten times as large, in μB.
        **settings: `device`, `dtype`, `max_batch_atoms` of :class:`~mmace_sim.properties.relax.relaxation.Relaxation`.

    Raises:
        UnsupportedOptionError: If a setting is impossible.
    """

    def __init__(
        self,
        model: ModelLike = "default",
        *,
        n_starts: int = 32,
        seed: int = 0,
        solver: str = "lbfgs",
        magforce_tol: float = 1e-4,
        max_steps: int = 500,
        collinear: bool = False,
        fix_magnitude: bool = False,
        only: Sequence[str | int] = (),
        field: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0),
        energy_tol: float = 1e-4,
        stability: bool = True,
        symprec: float = 0.01,
        **settings: Any,
    ) -> None:
        if n_starts < 1 or seed < 0 or (collinear and fix_magnitude):
            raise UnsupportedOptionError(
                f"n_starts = {n_starts}, seed = {seed}, collinear = {collinear}, fix_magnitude = {fix_magnitude}: "
                "expected at least 1 and 0, and moments that can still change."
            )
        self.n_starts, self.seed, self.only = n_starts, seed, tuple(only)
        self.energy_tol, self.stability, self.symprec = energy_tol, stability, symprec
        self.relaxation = MomentRelaxation(
            model,
            solver=solver,
            field=field,
            magforce_tol=magforce_tol,
            max_steps=max_steps,
            collinear=collinear,
            fix_magnitude=fix_magnitude,
            **settings,
        )
        bare = getattr(self.relaxation.bare_model, "model", None)
        self.rotates_freely = not (
            getattr(bare, "spin_orbit", True) or self.relaxation.has_field or self.only
        )

    def run(
        self, structures: Any, *, on_finished: Callable[[int, int], None] | None = None
    ) -> list[MomentResult]:
        """Relax all starts of all structures; one that fails does not stop the others.

        Args:
            structures: ASE, pymatgen or phonopy structures, one or many, with the moments that are turned and scaled.
            on_finished: Called after each start with the number of finished starts and of all.

        Returns:
            One result for each structure, in the same order.
        """
        results, starts = [], []
        for atoms in as_atoms(structures):
            result, own = MomentResult(atoms), []
            try:
                own = self._starts(atoms)
            except StructureError as error:
                result.message = str(error)
            results.append(result)
            starts.append(own)
        images = list(itertools.chain.from_iterable(starts))
        n_finished = itertools.count(1)

        def finish(_index: int, _outcome: StructureResult) -> None:
            if on_finished is not None:
                on_finished(next(n_finished), len(images))

        relaxed = enumerate(self.relaxation.run(images, on_finished=finish))
        for result, own in zip(results, starts, strict=True):
            result.starts = [self._start(k, *next(relaxed)) for k in range(len(own))]
            self._find_minima(result)
        if self.stability:
            self._look_around([minimum for result in results for minimum in result.minima[:MAX_MINIMA]])
        return results

    def _starts(self, atoms: Atoms) -> list[Atoms]:
        freedom = self.relaxation.freedom
        starts = random_starts(
            atoms,
            self.n_starts,
            seed=self.seed,
            free=free_moments(atoms, self.only),
            collinear=freedom.collinear,
            fix_magnitude=freedom.fix_magnitude,
        )
        limits = hard_limits(self.relaxation.bare_model)
        if freedom.fix_magnitude or not limits:
            return starts
        return [shorten_moments(start, limits) for start in starts]

    def _start(self, number: int, index: int, outcome: StructureResult) -> MomentStart:
        return MomentStart(
            number=number,
            status=outcome.status,
            message="" if outcome.status is Status.CONVERGED else outcome.message,
            atoms=outcome.atoms,
            magmoms_initial=get_magmoms(outcome.initial_atoms),
            energy=outcome.energy / len(outcome.atoms),
            max_magforce=outcome.max_magforce,
            steps=outcome.steps,
            descent=self.relaxation.descent(index),
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
            converged, cluster_states(energies, prints, energy_tol=self.energy_tol), strict=True
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
            minimum.atoms, minimum.magmoms, turn=self.rotates_freely, symprec=self.symprec
        )

    def _look_around(self, minima: Sequence[MomentMinimum]) -> None:
        around = self.relaxation.around().run([minimum.atoms for minimum in minima])
        for minimum, outcome in zip(minima, around, strict=True):
            minimum.curvature = outcome.curvature


def minimize_moments(
    structures: Any,
    model: ModelLike = "default",
    *,
    on_finished: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> list[MomentResult]:
    """Minimise the energy over the moments of many structures from many random starts, in one batch.

    Args:
        structures: ASE, pymatgen or phonopy structures, one or many, with the moments that are turned and scaled.
        model: Model, its name or path, or any TorchSim model that gives magforces.
        on_finished: Called after each start with the number of finished starts and of all.
        **settings: Settings of :class:`MomentSearch` (`n_starts`, `fix_magnitude`, `field`, …).

    Returns:
        One :class:`MomentResult` for each structure, in the same order. Look at its `status`.
    """
    return MomentSearch(model, **settings).run(structures, on_finished=on_finished)
