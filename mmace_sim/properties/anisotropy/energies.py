"""Magnetic anisotropy of many magnets: E(direction) of moments that turn as a body."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, override

import numpy as np
from ase import Atoms
from jaxtyping import Float, Int

from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import bare_copy, get_magmoms
from mmace_sim.properties.anisotropy.declaration import AnisotropySettings
from mmace_sim.properties.anisotropy.directions import (
    circle_directions,
    plane_axes,
    reference_axis,
    rotation_to,
    sphere_directions,
)
from mmace_sim.properties.anisotropy.fits import (
    Constants,
    Surface,
    fit_constants,
    fit_surface,
    lowest_direction,
)
from mmace_sim.properties.anisotropy.host import obeys_time_reversal, spin_orbit_host
from mmace_sim.properties.anisotropy.symmetry import DirectionSymmetry, direction_symmetry
from mmace_sim.properties.relax.relaxation import ModelLike, Status
from mmace_sim.properties.results import known
from mmace_sim.properties.singlepoint import PointResult, converged
from mmace_sim.properties.turned import TurnedWorkflow, lacking, resting_and_turned
from mmace_sim.structures.magnetic_order import MagneticOrder, classify_order

_N_CHECKS = 3
_MISFIT = 0.05
"""Error of the harmonics in the planes, relative to the range of the energies, from which on a result says so."""
_LEFT = 0.002
"""Residual of the constants, relative to the range of the energies, from which on a result says so."""
_ROUNDING = 1e-13
"""Energies that differ by less than this part of them differ by rounding."""


@dataclass(frozen=True)
class PlaneCurve:
    """Energies around a circle.

    Attributes:
        axes: Directions of 0° and of 90°, Cartesian unit vectors.
        angles: In radians, over half a turn or a whole one.
        energies: In eV per cell.
    """

    axes: tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]]
    angles: Float[np.ndarray, " n"]
    energies: Float[np.ndarray, " n"]

    def directions(self, angles: Float[np.ndarray, " n"] | None = None) -> Float[np.ndarray, "n 3"]:
        """Cartesian unit vectors at angles, by default at its own."""
        phi = self.angles if angles is None else angles
        return np.cos(phi)[:, None] * self.axes[0] + np.sin(phi)[:, None] * self.axes[1]


@dataclass
class AnisotropyResult:
    """Anisotropy of one magnet.

    Attributes:
        atoms: The structure with the moments that were turned.
        status: CONVERGED if all energies are there.
        message: What to know or do; empty if all is well.
        symmetry: Symmetry of E(n); None if it failed, as for everything below.
        axis: Reference axis of the moments as they are in `atoms`.
        collinear: Whether the moments are collinear.
        directions: Cartesian unit vectors.
        energies: E(n), in eV per cell.
        curves: Energies in planes; harmonics and constants are not fitted to them.
        time_reversal_error: Largest |E(m) − E(−m)| of the directions where both were computed, in eV per cell: all if
            the model may break time reversal, else a few.
        surface: E(n) in harmonics.
        constants: Constants of the form; None for "general", or if the directions do not determine them.
        easy: Direction of lowest energy, of the equivalent ones that nearest to z.
        hard: Direction of highest energy.
        mae: E(hard) − E(easy), in eV per cell.
        curve_error: Root mean square difference of harmonics and energies in the planes, in eV per cell.
        convergence: The same from parts of the directions: number, K1, K2 and MAE in eV per cell.
    """

    atoms: Atoms
    status: Status
    message: str = ""
    symmetry: DirectionSymmetry | None = None
    axis: Float[np.ndarray, " 3"] | None = None
    collinear: bool = True
    directions: Float[np.ndarray, "n 3"] | None = None
    energies: Float[np.ndarray, " n"] | None = None
    curves: list[PlaneCurve] = field(default_factory=list)
    time_reversal_error: float | None = None
    surface: Surface | None = None
    constants: Constants | None = None
    easy: Float[np.ndarray, " 3"] | None = None
    hard: Float[np.ndarray, " 3"] | None = None
    mae: float | None = None
    curve_error: float | None = None
    convergence: list[tuple[int, float | None, float | None, float | None]] = field(default_factory=list)

    def k(self, name: str) -> float | None:
        """A constant in eV per cell, such as "K1"; None if there is none."""
        return None if self.constants is None else self.constants.get(name)


@dataclass
class _Job:
    result: AnisotropyResult
    directions: Float[np.ndarray, "n 3"]
    circles: list[tuple[tuple[np.ndarray, np.ndarray], np.ndarray]]
    reversed_of: Int[np.ndarray, " n_reversed"]
    images: list[Atoms]


class Anisotropy(TurnedWorkflow[AnisotropySettings, AnisotropyResult]):
    """Energy against the direction of the moments for many magnets: settings here, structures in :meth:`run`.

    The moments of each structure are turned as a body so that their reference axis points along each direction of a
    grid. All directions of all structures are one batch, always in float64. Time reversal, E(−m) = E(m), halves the
    directions of collinear orders and is checked in a few of them. Of a model that is not built to obey it, every
    energy is the mean of m and −m.

    Its settings are :class:`~mmace_sim.properties.anisotropy.declaration.AnisotropySettings`.

    Raises:
        UnsupportedOptionError: If the model has no spin–orbit coupling, or another type than float64 is asked for.
    """

    kind = AnisotropySettings
    outcome = AnisotropyResult

    @override
    def set_up(self, model: ModelLike, **where: Any) -> None:
        self.plane, self.axis = (
            None if vector is None else np.array(vector, dtype=float)
            for vector in (self.settings.plane, self.settings.axis)
        )
        max_batch_atoms = where.pop("max_batch_atoms")
        host = spin_orbit_host(model, **where)
        self.reversible = obeys_time_reversal(host)
        self.rest, self.turned = resting_and_turned(host, self.settings, max_batch_atoms=max_batch_atoms)

    @override
    def _at_rest(self, images: list[Atoms]) -> list[Atoms | PointResult]:
        """Structures with the lengths of collinear orders relaxed, or why that failed."""
        rest: list[Atoms | PointResult] = list(images)
        if not self.rest.relaxation.moments_move:
            return rest
        chosen = []
        for index, atoms in enumerate(images):
            try:
                is_collinear = classify_order(get_magmoms(atoms)) is not MagneticOrder.NON_COLLINEAR
            except StructureError:
                continue  # reported when it is prepared
            chosen += [index] if is_collinear else []
        points = self.rest.run([images[index] for index in chosen]) if chosen else []
        for index, point in zip(chosen, points, strict=True):
            rest[index] = point.atoms if point.status is Status.CONVERGED else point
        return rest

    @override
    def _prepare(self, start: Atoms | PointResult) -> _Job:
        """Symmetry, directions, and the structures whose energies are needed."""
        if isinstance(start, PointResult):
            raise StructureError(f"{start.status}: {start.message}")
        atoms = start
        magmoms = get_magmoms(atoms)
        axis = reference_axis(magmoms)
        collinear = classify_order(magmoms) is not MagneticOrder.NON_COLLINEAR
        if self.settings.lengths == "relaxed" and not collinear:
            raise StructureError("lengths can follow in collinear orders only; choose rigid lengths.")
        symmetry = direction_symmetry(atoms, self.axis)
        frame, n_circle = symmetry.frame, self.settings.curve_points * (1 if collinear else 2)
        if self.plane is None:
            directions = sphere_directions(self.settings.directions, half=collinear) @ frame
            pairs = [(frame[0], frame[2]), (frame[1], frame[2]), (frame[0], frame[1])]
        else:
            pairs = [plane_axes(self.plane, frame)]
            directions = circle_directions(*pairs[0], self.settings.directions, half=collinear)[1]
        circles = [
            (pair, circle_directions(*pair, n_circle, half=collinear)[0]) for pair in pairs if n_circle
        ]
        every = np.concatenate([directions, *(circle_directions(*pair, n_circle, half=collinear)[1]
                                              for pair, _ in circles)])  # fmt: skip
        rotated = [magmoms @ rotation_to(axis, n).T for n in every]
        reversed_of = np.arange(min(_N_CHECKS, len(directions)) if self.reversible else len(every))
        rotated += [-rotated[k] for k in reversed_of]
        result = AnisotropyResult(atoms, Status.CONVERGED, "", symmetry, axis, collinear)
        return _Job(result, directions, circles, reversed_of, [bare_copy(atoms, m) for m in rotated])

    @override
    def _finish(self, job: _Job, points: Sequence[PointResult]) -> AnisotropyResult:
        """Fits of the energies, and everything that follows."""
        result, n_all = job.result, len(points) - len(job.reversed_of)
        if not converged(points).all():
            result.status, result.message = lacking(points, "directions")
            result.symmetry = None
            return result
        energies = np.array([point.energy for point in points])
        kept, reversed_energies = energies[:n_all], energies[n_all:]
        result.time_reversal_error = float(np.abs(reversed_energies - kept[job.reversed_of]).max())
        if not self.reversible:
            kept = 0.5 * (kept + reversed_energies)
        result.directions, result.energies = job.directions, kept[: len(job.directions)]
        rest = np.split(kept[len(job.directions) :], len(job.circles)) if job.circles else []
        for (pair, angles), values in zip(job.circles, rest, strict=True):
            result.curves.append(PlaneCurve(pair, angles, values))
        self._derive(result)
        return result

    def _derive(self, result: AnisotropyResult) -> None:
        n_directions = len(known(result.directions))
        for count in sorted({-(-n_directions // 2), -(-3 * n_directions // 4), n_directions}):
            self._fit(result, count)
            constants = result.constants
            k1, k2 = (None, None) if constants is None else (constants.get("K1"), constants.get("K2"))
            result.convergence.append((count, k1, k2, result.mae))
        if result.curves:
            surface = known(result.surface)
            left = [surface(curve.directions()) - curve.energies for curve in result.curves]
            result.curve_error = float(np.sqrt(np.mean(np.concatenate(left) ** 2)))
        result.message = " ".join(self._notes(result))

    def _fit(self, result: AnisotropyResult, count: int) -> None:
        """Everything from the first directions."""
        symmetry = known(result.symmetry)
        directions, energies = known(result.directions)[:count], known(result.energies)[:count]
        form = self._form(result)
        result.surface = surface = fit_surface(
            directions, energies, symmetry.frame, max_ell=self.settings.max_ell, even=result.collinear
        )
        terms = symmetry.terms(form)
        result.constants = fit_constants(form, terms, directions, energies, symmetry.frame)
        axes = None if self.plane is None else plane_axes(self.plane, symmetry.frame)
        easy = lowest_direction(surface, axes=axes)
        hard = lowest_direction(lambda n: -surface(n), axes=axes)
        result.mae = float(np.ptp(surface(np.array([easy, hard]))))
        if result.collinear and axes is None:
            easy, hard = symmetry.standard(easy), symmetry.standard(hard)
        result.easy, result.hard = easy, hard

    def _form(self, result: AnisotropyResult) -> str:
        """Form of the constants."""
        if self.settings.form != "auto":
            return self.settings.form
        return known(result.symmetry).form if result.collinear else "general"

    def _notes(self, result: AnisotropyResult) -> list[str]:
        energies, broken = known(result.energies), known(result.time_reversal_error)
        notes, span = [], float(np.ptp(energies))
        micro = 1e6 / len(result.atoms)
        rounding = _ROUNDING * max(float(np.abs(energies).max()), 1.0)
        if span < rounding:
            return ["no anisotropy: the energies differ by rounding only."]
        if result.curve_error is not None and result.curve_error > max(_MISFIT * span, rounding):
            notes.append(
                f"harmonics miss the energies in the planes by {micro * result.curve_error:.2g} μeV/atom: take more "
                "--directions."
            )
        notes += self._about_constants(result, max(_LEFT * span, rounding))
        if broken > max(_MISFIT * span, rounding):
            consequence = (
                "E(−m) = E(m) was taken for granted, and energies are not means of both: look at `mmace-sim check`."
                if self.reversible
                else "energies are means of m and −m."
            )
            notes.append(
                f"the model breaks time reversal by up to {micro * broken:.2g} μeV/atom; {consequence}"
            )
        if not result.collinear:
            notes.append(
                "non-collinear: the moments are turned by the least angle from the reference axis; other turns about "
                "it are not looked at."
            )
        return notes

    def _about_constants(self, result: AnisotropyResult, small: float) -> list[str]:
        """Whether the constants say all of the energies."""
        form = self._form(result)
        terms = known(result.symmetry).terms(form)
        if not terms:
            return []
        if result.constants is None:
            where = "directions" if self.plane is None else "directions of one plane"
            n_directions = len(known(result.directions))
            return [
                f"{n_directions} {where} do not determine the {len(terms)} constants of the {form} form: "
                + ("take more --directions." if self.plane is None else "leave out --plane for them.")
            ]
        if result.constants.residual > small:
            micro = 1e6 / len(result.atoms)
            return [
                f"the constants leave {micro * result.constants.residual:.2g} μeV/atom of the energies (rms): "
                f"there are orders above {result.constants.order}, and K1 and K2 are those of this fit only."
            ]
        return []
