"""Phonons of many magnetic crystals: phonopy's displacements, all of them in one batch."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, override

import numpy as np
from ase import Atoms
from jaxtyping import Float

from mmace_sim.base.extras import require
from mmace_sim.engine.batching import Outcomes
from mmace_sim.engine.computation import Advance
from mmace_sim.engine.kept import Kept
from mmace_sim.engine.outcomes import UNUSABLE
from mmace_sim.errors import StructureError
from mmace_sim.properties.phonons.bands import (
    BandPath,
    ImaginaryMode,
    band_path,
    commensurate_points,
    imaginary_modes,
)
from mmace_sim.properties.phonons.cells import make_phonopy, restoring_forces, supercells
from mmace_sim.properties.phonons.declaration import DISPLACEMENT, MAGFORCE_TOL, PhononsSettings
from mmace_sim.properties.relax.declaration import RelaxSettings
from mmace_sim.properties.relax.relaxation import ModelLike, Relaxation, Status, StructureResult
from mmace_sim.properties.results import known
from mmace_sim.properties.singlepoint import PointResult, SinglePoint
from mmace_sim.properties.workflow import BatchWorkflow
from mmace_sim.structures.supercells import choose_supercell, parse_supercell

if TYPE_CHECKING:
    from phonopy import Phonopy

ACOUSTIC_CUTOFF: float = 1e-3
"""Modes softer than this (THz) are translations of the crystal and no part of thermal properties."""

MOMENT_JUMP: float = 0.1
"""Change of a moment (μB) by a displacement from which on the crystal has left its magnetic state."""

_log = logging.getLogger(__name__)


@dataclass
class PhononResult:
    """Phonons of one crystal.

    Attributes:
        crystal: Outcome of the relaxation, or of the evaluation, of the unit cell; phonons belong to ``crystal.atoms``.
        status: CONVERGED, or the worst of the crystal and its displaced supercells.
        message: What to know or do; empty if all is well.
        phonon: ``Phonopy`` object with forces, force constants, bands, DOS and thermal properties; None if it failed.
        frozen: Force constants at frozen moments in eV/Å², if moments were relaxed; else None.
        frozen_frequencies: Frequencies along the path with these, in THz, for each segment.
        path: Path of the bands.
        largest_shift: Largest change of a frequency by relaxing moments, in THz with its sign, at wave vectors that fit
            into the supercell; never positive where moments are at a minimum.
        imaginary: Unstable modes, softest first.
        notes: What phonopy said.
    """

    crystal: StructureResult
    status: Status
    message: str = ""
    phonon: Any = None
    frozen: np.ndarray | None = None
    frozen_frequencies: list[np.ndarray] | None = None
    path: BandPath | None = None
    largest_shift: float | None = None
    imaginary: list[ImaginaryMode] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def atoms(self) -> Atoms:
        """The crystal that the phonons belong to."""
        return self.crystal.atoms


@dataclass
class _Job:
    """A crystal whose supercells are under way."""

    index: int
    result: PhononResult
    points: list[PointResult]


class Phonons(BatchWorkflow[PhononsSettings, PhononResult]):
    """Phonons by finite displacements in batches: settings here, structures in :meth:`run`.

    Crystals are relaxed in one batch (positions, cell and moments), then **all** displaced supercells of **all**
    crystals are evaluated in another. Forces of the perfect supercell are subtracted. With ``magmoms="fixed"`` each
    atom takes its moment along; with "relaxed" the moments follow every displacement (the adiabatic, physical
    frequencies as long as spins are faster than atoms), and the frozen ones are computed too, to compare.

    Its settings are :class:`~mmace_sim.properties.phonons.declaration.PhononsSettings`.
    """

    kind = PhononsSettings

    @override
    def set_up(self, model: ModelLike, **where: Any) -> None:
        require("phonons", "Phonons")
        settings = self.settings
        self.supercell = None if settings.supercell is None else parse_supercell(settings.supercell)
        tol, steps = settings.magforce_tol, settings.max_steps
        self.frozen = SinglePoint(model, magmoms="fixed", magforce_tol=tol, max_steps=steps, **where)
        model = self.frozen.relaxation.bare_model  # loaded once
        follow = settings.magmoms == "relaxed"
        self.adiabatic = (
            SinglePoint(model, magmoms="relaxed", magforce_tol=tol, max_steps=steps, **where)
            if follow
            else None
        )
        if settings.relax:
            at_rest = RelaxSettings(
                stability=False,
                force_tol=settings.force_tol,
                stress_tol=settings.stress_tol,
                magforce_tol=tol,
                max_steps=steps,
            )
            self.crystals = Relaxation(model, at_rest, **where)
        else:
            self.crystals = (self.adiabatic or self.frozen).relaxation
        self.at_rest = None if settings.relax else (10 * settings.force_tol, 10 * settings.stress_tol)
        self.spin_orbit = not self.frozen.relaxation.rotates_freely

    @override
    def _compute(
        self, images: list[Atoms], finish: Outcomes[PhononResult], kept: Kept[Any], on_point: Advance
    ) -> None:
        jobs = self._prepare(images, finish, kept)
        cells = [supercells(job.result.phonon) for job in jobs]
        if self.adiabatic is None:
            self._evaluate(self.frozen, jobs, cells, lambda job: finish(job.index, self._finish(job)))
        else:
            self._evaluate(self.frozen, jobs, cells, self._keep_frozen)
            self._evaluate(self.adiabatic, jobs, cells, lambda job: finish(job.index, self._finish(job)))

    def _prepare(
        self,
        images: Sequence[Atoms],
        finish: Callable[[int, PhononResult], None],
        kept: Kept[StructureResult],
    ) -> list[_Job]:
        """Relax the crystals and displace their atoms."""
        crystals: dict[int, Atoms] = {}
        for index, atoms in enumerate(images):
            if atoms.pbc.all():
                crystals[index] = atoms
                continue
            message = "phonons need a crystal that is periodic in all three directions."
            finish(index, _failed(StructureResult(atoms, atoms, Status.FAILED), message))
        jobs = []
        for index, crystal in kept.completed(crystals, self.crystals.run).items():
            if crystal.status in UNUSABLE:
                finish(index, PhononResult(crystal, crystal.status, crystal.message))
                continue
            try:
                jobs.append(self._displace(index, crystal))
            except Exception as error:  # one crystal must not stop the others
                finish(index, _failed(crystal, f"phonopy cannot use the crystal: {error}"))
        return jobs

    def _displace(self, index: int, crystal: StructureResult) -> _Job:
        cell = crystal.atoms.cell.array
        matrix = (
            choose_supercell(cell, self.settings.min_length) if self.supercell is None else self.supercell
        )
        phonon, notes = make_phonopy(
            crystal.atoms,
            supercell=matrix,
            displacement=self.settings.displacement,
            symprec=self.settings.symprec,
            spin_orbit=self.spin_orbit,
        )
        n_displaced, n_atoms = len(phonon.supercells_with_displacements), len(phonon.supercell)
        _log.info("crystal %d: %d displacements in supercells of %d atoms", index, n_displaced, n_atoms)
        message = (
            "" if crystal.status is Status.CONVERGED else f"relaxation of the crystal: {crystal.message}"
        )
        if self.at_rest is not None and (
            crystal.max_force > self.at_rest[0] or crystal.max_stress > self.at_rest[1]
        ):
            message = (
                f"{message} the crystal is not at rest: forces up to {crystal.max_force:.3f} eV/Å, stress up to "
                f"{crystal.max_stress:.2f} GPa. Phonons belong to a minimum: relax it (without --no-relax)."
            ).strip()
        return _Job(index, PhononResult(crystal, crystal.status, message, phonon, notes=notes), [])

    def _evaluate(
        self, point: SinglePoint, jobs: list[_Job], cells: list[list[Any]], done: Callable[[_Job], None]
    ) -> None:
        """Evaluate the supercells of all crystals in one batch; `done` is told of each crystal that is complete."""

        def store(group: int, points: list[PointResult]) -> None:
            jobs[group].points = points
            done(jobs[group])

        point.run_groups(cells, store)

    def _keep_frozen(self, job: _Job) -> None:
        """Force constants at frozen moments, to compare the relaxed ones with."""
        if any(point.status in UNUSABLE for point in job.points):
            return  # reported when moments are relaxed
        _set_forces(job.result.phonon, job.points)
        job.result.frozen = job.result.phonon.force_constants

    def _finish(self, job: _Job) -> PhononResult:
        """From forces to everything else."""
        result = job.result
        points = job.points
        worst = _worst(points)
        if worst.status in UNUSABLE:
            return PhononResult(result.crystal, worst.status, f"a displaced supercell: {worst.message}")
        problem = _left_the_state(points)
        if problem:
            return _failed(result.crystal, problem)
        if worst.status is not Status.CONVERGED:
            result.status = worst.status
            result.message = f"{result.message} displaced supercells: {worst.message}".strip()
        try:
            _set_forces(result.phonon, points)
            self._analyse(result)
        except Exception as error:  # one crystal must not stop the others
            return _failed(result.crystal, f"phonopy cannot use the forces: {type(error).__name__}: {error}")
        return result

    def _analyse(self, result: PhononResult) -> None:
        """Bands, DOS, thermal properties and imaginary modes."""
        phonon, path = result.phonon, band_path(result.phonon)
        if result.frozen is not None:
            _compare_frozen(result, path)
        phonon.run_band_structure(path.qpoints, path_connections=path.connections, labels=path.labels)
        phonon.run_mesh(self.settings.mesh)
        phonon.run_total_dos()
        phonon.run_thermal_properties(
            t_min=0.0,
            t_max=self.settings.t_max,
            t_step=self.settings.t_step,
            cutoff_frequency=ACOUSTIC_CUTOFF,
        )
        result.path = path
        result.imaginary = imaginary_modes(phonon, path)
        if result.imaginary:
            mode = result.imaginary[0]
            result.message = f"{result.message} imaginary modes, {mode}.".strip()


def phonopy_forces(
    phonon: Any, model: ModelLike = "default", magmoms: str = "fixed", **settings: Any
) -> Float[np.ndarray, "n_displacements n_atoms 3"]:
    """Forces for the displacements of a phonopy or phono3py object, in one batch; also stored in the object.

    Moments are the ``magnetic_moments`` of the cell, which phonopy carries to the supercells. Forces of the perfect
    supercell are subtracted.

    Args:
        phonon: ``Phonopy`` or ``Phono3py`` object with displacements.
        model: Model, its name or path, or any TorchSim model that gives magforces.
        magmoms: "fixed", or "relaxed": moments follow each displacement.
        **settings: Settings of `SinglePoint` (``magforce_tol``, ``device``, …).

    Returns:
        Forces in eV/Å.

    Raises:
        MissingMomentsError: If the cell has no magnetic moments.
        StructureError: If there are no displacements, or a supercell cannot be evaluated.
    """
    point = SinglePoint(model, magmoms=magmoms, **({"magforce_tol": MAGFORCE_TOL} | settings))
    points = point.run(supercells(phonon))
    worst = _worst(points)
    if worst.status is not Status.CONVERGED:
        raise StructureError(f"supercell {points.index(worst)} ({worst.status}): {worst.message}")
    problem = _left_the_state(points)
    if problem:
        raise StructureError(problem)
    phonon.forces = restoring_forces(phonon, [known(point.forces) for point in points])
    return phonon.forces


def force_constants(
    phonon: "Phonopy",
    model: ModelLike = "default",
    magmoms: str = "fixed",
    *,
    displacement: float = DISPLACEMENT,
    **settings: Any,
) -> Float[np.ndarray, "n_atoms n_atoms 3 3"]:
    """Force constants of the supercell of a phonopy object, symmetrised; also stored in the object.

    Args:
        phonon: ``Phonopy`` object; displacements are generated if it has none.
        model: Model, its name or path, or any TorchSim model that gives magforces.
        magmoms: "fixed", or "relaxed": moments follow each displacement.
        displacement: Length of generated displacements, in Å.
        **settings: Settings of `SinglePoint` (``magforce_tol``, ``device``, …).

    Returns:
        ∂²E/∂r∂r in eV/Å², for all pairs of atoms of the supercell, as phono3py's ``fc2`` takes it.

    Raises:
        MissingMomentsError: If the cell has no magnetic moments.
        StructureError: If a supercell cannot be evaluated.
    """
    if phonon.dataset is None:
        phonon.generate_displacements(distance=displacement)
    phonopy_forces(phonon, model, magmoms, **settings)
    _produce(phonon)
    return known(phonon.force_constants)


def _set_forces(phonon: "Phonopy", points: Sequence[PointResult]) -> None:
    phonon.forces = restoring_forces(phonon, [known(point.forces) for point in points])
    _produce(phonon)


def _produce(phonon: "Phonopy") -> None:
    """Force constants that obey the acoustic sum rule."""
    phonon.produce_force_constants(show_drift=False)
    phonon.symmetrize_force_constants(show_drift=False)


def _worst(points: Sequence[PointResult]) -> PointResult:
    """The point with the gravest status."""
    order = list(Status)
    return max(points, key=lambda point: order.index(point.status))


def _compare_frozen(result: PhononResult, path: BandPath) -> None:
    """Frequencies at frozen moments, and what relaxing them changes."""
    phonon, relaxed, points = result.phonon, result.phonon.force_constants, commensurate_points(result.phonon)
    shifts = phonon.run_qpoints(points).frequencies
    phonon.force_constants = result.frozen
    result.frozen_frequencies = phonon.run_band_structure(path.qpoints).frequencies
    shifts = shifts - phonon.run_qpoints(points).frequencies
    result.largest_shift = float(shifts.flat[np.argmax(np.abs(shifts))])
    phonon.force_constants = relaxed


def _left_the_state(points: Sequence[PointResult]) -> str:
    """What to say if moments did not follow the atoms but went elsewhere; "" if they followed."""
    rest, *displaced = (known(point.magmoms) for point in points)
    change = max(float(np.linalg.norm(magmoms - rest, axis=1).max()) for magmoms in displaced)
    if change < MOMENT_JUMP:
        return ""
    return (
        f"a moment changed by {change:.2f} μB as an atom was displaced: the magnetic order is no minimum of the "
        "energy, so that moments cannot follow adiabatically. Use fixed moments (--magmoms fixed), or start from "
        "another order."
    )


def _failed(crystal: StructureResult, message: str) -> PhononResult:
    return PhononResult(crystal, Status.FAILED, message)
