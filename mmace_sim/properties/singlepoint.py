"""Single points of many structures in one batch, at the given moments or at moments relaxed for fixed atoms."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from jaxtyping import Bool, Float

from mmace_sim.engine.batching import run_groups
from mmace_sim.errors import UnsupportedOptionError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.properties.relax.declaration import RelaxSettings
from mmace_sim.properties.relax.relaxation import ModelLike, Relaxation, Status, StructureResult
from mmace_sim.structures.magnetic_states import magnetic_state
from mmace_sim.structures.moment_range import largest_moments, shorten_moments
from mmace_sim.torchsim.state import StructuresLike
from mmace_sim.units import EV_PER_A3_IN_GPA

POINT_MODES: tuple[str, ...] = ("fixed", "relaxed")
"""Moments as they are given, or relaxed at fixed atoms."""


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


class SinglePoint:
    """Evaluates structures in batches that refill: settings here, structures in :meth:`run`.

    By the Hellmann–Feynman theorem forces and stress at relaxed moments are the derivatives of min_m E(r, m).

    Args:
        model: Model, its name or path, or any TorchSim model that gives magforces.
        magmoms: "fixed" keeps the moments, "relaxed" relaxes them at fixed atoms and cell.
        magforce_tol: Largest magforce of relaxed moments, in eV/μB.
        max_steps: Largest number of steps of the moments.
        collinear: Moments keep their axis.
        fix_magnitude: Moments keep their length.
        device: Where to run.
        dtype: Floating-point type.
        max_batch_atoms: Largest number of atoms in one batch; by default estimated from the memory.

    Raises:
        UnsupportedOptionError: If the mode is unknown or the tolerance is not positive.
    """

    def __init__(
        self,
        model: ModelLike = "default",
        *,
        magmoms: str = "fixed",
        magforce_tol: float = 1e-4,
        max_steps: int = 500,
        collinear: bool = False,
        fix_magnitude: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        max_batch_atoms: int | None = None,
    ) -> None:
        check_point_mode(magmoms)
        settings = RelaxSettings(
            relax_cell=False,
            stability=False,
            magmoms="joint" if magmoms == "relaxed" else "fixed",
            magforce_tol=magforce_tol,
            max_steps=max_steps,
            collinear=collinear,
            fix_magnitude=fix_magnitude,
        )
        self.relaxation = Relaxation(
            model,
            settings,
            relax_positions=False,
            device=device,
            dtype=dtype,
            max_batch_atoms=max_batch_atoms,
        )

    def run(
        self, structures: StructuresLike, *, on_finished: Callable[[int, PointResult], None] | None = None
    ) -> list[PointResult]:
        """Evaluate structures; one that fails does not stop the others.

        Args:
            structures: ASE, pymatgen or phonopy structures, or names of files, one or many, each with moments.
            on_finished: Called with the index and the result of each structure as soon as it is finished.

        Returns:
            One result for each structure, in the same order.
        """

        def finish(index: int, result: StructureResult) -> None:
            if on_finished is not None:
                on_finished(index, point_result(result))

        return [point_result(result) for result in self.relaxation.run(structures, on_finished=finish)]

    def run_groups(
        self, groups: Sequence[Sequence[Any]], on_finished: Callable[[int, list[PointResult]], None]
    ) -> None:
        """Evaluate groups of structures, all in one batch.

        Args:
            groups: Structures of each group, as for `run`.
            on_finished: Called with the number and the results of a group as soon as all of it is there.
        """
        run_groups(self, groups, on_finished)


class PointSettings(Protocol):
    """Settings of a property that evaluates or relaxes points."""

    @property
    def magmoms(self) -> str:
        """Relaxed, or as they are."""


def point_settings(settings: PointSettings) -> RelaxSettings:
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


def starting_state(atoms: Atoms, name: str, model: object) -> tuple[Atoms, str]:
    """A structure in a magnetic state; moments that are not the user's own stay within what the model knows.

    Args:
        atoms: Structure.
        name: Of the state, see `mmace_sim.structures.magnetic_states`.
        model: The model.

    Returns:
        The structure, perhaps in a larger cell, and how the state was made.

    Raises:
        StructureError: If the structure has no such state.
    """
    state, note = magnetic_state(atoms, name)
    if name != "file":
        shorten_moments(state, largest_moments(model))
    return state, note


def not_computed(atoms: Atoms) -> PointResult:
    """A point that is still to be computed.

    Args:
        atoms: Its structure.
    """
    return PointResult(atoms, np.nan, None, None, None, None, Status.FAILED)


def check_point_mode(magmoms: str) -> None:
    """Make sure that a mode of the moments exists.

    Args:
        magmoms: The mode.

    Raises:
        UnsupportedOptionError: If it is none of `POINT_MODES`.
    """
    if magmoms not in POINT_MODES:
        raise UnsupportedOptionError(f"magmoms = {magmoms!r}, expected 'fixed' or 'relaxed'.")


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
