"""Single points of many structures in one batch, at the given moments or at moments relaxed for fixed atoms."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, override

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from jaxtyping import Bool, Float

from mmace_sim.engine.batching import Outcomes, run_groups
from mmace_sim.engine.computation import Advance
from mmace_sim.engine.kept import Kept
from mmace_sim.engine.settings import MagforceTol, MaxSteps, MomentSettings, PointMomentSettings
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.properties.relax.declaration import RelaxSettings
from mmace_sim.properties.relax.relaxation import ModelLike, Relaxation, Status, StructureResult
from mmace_sim.properties.workflow import BatchWorkflow
from mmace_sim.units import EV_PER_A3_IN_GPA


@dataclass
class PointResult:
    """Energy and derivatives of one structure.

    Attributes:
        atoms: The structure, its moments in ``initial_magmoms`` and results on a ``SinglePointCalculator``; as it was
            given if it failed.
        energy: Energy of the cell, in eV; NaN if there is none.
        forces: −∂E/∂r, in eV/Å; None if there are none, as for all arrays below.
        stress: (1/V) ∂E/∂ε, in eV/Å³, tension positive; None also if there is no volume (a molecule).
        magmoms: Moments that everything was computed at, in μB.
        magforces: −∂E/∂m, in eV/μB.
        status: CONVERGED, also for fixed moments; MAX_STEPS if the moments did not relax; NON_FINITE; FAILED.
        message: What to know or do; empty if all is well.
    """

    atoms: Atoms
    energy: float
    forces: Float[np.ndarray, "n_atoms 3"] | None
    stress: Float[np.ndarray, "3 3"] | None
    magmoms: Float[np.ndarray, "n_atoms 3"] | None
    magforces: Float[np.ndarray, "n_atoms 3"] | None
    status: Status
    message: str = ""


class SinglePointSettings(PointMomentSettings, MomentSettings):
    """Settings of single points."""

    magmoms: Literal["fixed", "relaxed"] = "fixed"
    """**fixed**: moments stay as they are. **relaxed**: they relax at fixed atoms and cell."""
    magforce_tol: MagforceTol = 1e-4
    """Largest magnetic force −∂E/∂m of relaxed moments."""
    max_steps: MaxSteps = 500
    """Largest number of steps of the moments."""


class SinglePoint(BatchWorkflow[SinglePointSettings, PointResult]):
    """Evaluates structures in batches that refill: settings here, structures in :meth:`run`.

    By the Hellmann–Feynman theorem forces and stress at relaxed moments are the derivatives of min_m E(r, m).

    Its settings are :class:`SinglePointSettings`.
    """

    kind = SinglePointSettings

    @override
    def set_up(self, model: ModelLike, **where: Any) -> None:
        self.relaxation = Relaxation(model, point_settings(self.settings), relax_positions=False, **where)

    @override
    def _compute(
        self, images: list[Atoms], finish: Outcomes[PointResult], kept: Kept[Any], on_point: Advance
    ) -> None:
        self.relaxation.run(images, on_finished=lambda index, result: finish(index, point_result(result)))

    def run_groups(
        self, groups: Sequence[Sequence[Any]], on_finished: Callable[[int, list[PointResult]], None]
    ) -> None:
        """Evaluate groups of structures, all in one batch.

        Args:
            groups: Structures of each group, as for `run`.
            on_finished: Called with the number and the results of a group as soon as all of it is there.
        """
        run_groups(self.run, groups, on_finished)


def point_settings(settings: Any) -> RelaxSettings:
    """How the points of a property relax: the cell stays, moments follow or stay, nothing is said of saddle points.

    Args:
        settings: Of the property, with `magmoms` "relaxed" or "fixed", tolerances and constraints.
    """
    names = ("force_tol", "magforce_tol", "max_steps", "collinear", "fix_magnitude")
    return RelaxSettings(
        relax_cell=False,
        stability=False,
        magmoms="joint" if settings.magmoms == "relaxed" else "fixed",
        **{name: getattr(settings, name) for name in names if hasattr(settings, name)},
    )


def point_result(result: StructureResult) -> PointResult:
    """Energy and derivatives at the end of a relaxation.

    Args:
        result: Outcome for one structure.

    Returns:
        The same without what belongs to the relaxation; arrays are None if the structure failed.
    """
    message = "" if result.status is Status.CONVERGED else result.message
    atoms = result.atoms
    if result.magforces is None:
        return PointResult(atoms, float("nan"), None, None, None, None, result.status, message)
    values = atoms.calc.results
    stress = values.get("stress")
    return PointResult(
        atoms=atoms,
        energy=result.energy,
        forces=values["forces"],
        stress=None if stress is None else voigt_6_to_full_3x3_stress(stress),
        magmoms=get_magmoms(atoms),
        magforces=result.magforces,
        status=result.status,
        message=message,
    )


def converged(points: Sequence[PointResult]) -> Bool[np.ndarray, " n_points"]:
    """Which points can be used.

    Args:
        points: Results.

    Returns:
        True for each that converged.
    """
    return np.array([point.status is Status.CONVERGED for point in points], dtype=bool)


def first_problem(points: Sequence[PointResult]) -> str:
    """Why the first unusable point cannot be used.

    Args:
        points: Results.

    Returns:
        Status and message; "" if all converged.
    """
    return next((f"{p.status}: {p.message}" for p in points if p.status is not Status.CONVERGED), "")


def energies_and_moments(
    points: Sequence[PointResult],
) -> tuple[Float[np.ndarray, " n_points"], Float[np.ndarray, " n_points"]]:
    """Energy per atom and mean length of the moments of each point.

    Args:
        points: Results.

    Returns:
        Energies in eV/atom and lengths in μB, NaN where a point did not converge.
    """
    energies = np.array([point.energy / len(point.atoms) for point in points])
    moments = np.array(
        [np.nan if p.magmoms is None else np.linalg.norm(p.magmoms, axis=1).mean() for p in points]
    )
    good = converged(points)
    return np.where(good, energies, np.nan), np.where(good, moments, np.nan)


def pressures_gpa(points: Sequence[PointResult]) -> Float[np.ndarray, " n_points"]:
    """Pressure of each point.

    Args:
        points: Results.

    Returns:
        In GPa, positive under compression; NaN where a point did not converge.
    """
    pressures = np.array([np.nan if p.stress is None else -np.trace(p.stress) / 3 for p in points])
    return np.where(converged(points), pressures * EV_PER_A3_IN_GPA, np.nan)
