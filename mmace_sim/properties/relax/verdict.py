"""What a finished system says: its residuals, its results, and in words what to know about it."""

from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from torch import Tensor

from mmace_sim.base.quantities import TORCHSIM_MAGFORCES, TORCHSIM_MAGMOMS
from mmace_sim.engine.outcomes import Curvature, Status
from mmace_sim.graph.cells import has_volume, physical_stress
from mmace_sim.properties.relax.declaration import RelaxSettings
from mmace_sim.torchsim.curvature import lowest_curvature, lowest_direction
from mmace_sim.torchsim.fire import MagneticFireState
from mmace_sim.torchsim.freedom import MagneticOptimState, largest_per_system
from mmace_sim.units import EV_PER_A3_IN_GPA

LARGE_VOLUME_CHANGE: float = 0.3
"""Relative change of volume from which on a result comes with a warning."""

NOT_FINITE: str = "energy or forces are not finite; the start is outside of what the model can describe."


def residuals(state: MagneticOptimState) -> tuple[Tensor, Tensor, Tensor]:
    """Largest force (eV/Å), stress (GPa) and magforce (eV/μB) of each system, whatever may move.

    Args:
        state: State of an optimiser.
    """
    magforces = getattr(state, TORCHSIM_MAGFORCES)
    return (
        largest_per_system(state.forces, state),
        state.stress.abs().amax(dim=(1, 2)) * EV_PER_A3_IN_GPA,
        largest_per_system(state.within_constraints(magforces, getattr(state, TORCHSIM_MAGMOMS)), state),
    )


def not_converged(largest: tuple[Tensor, Tensor, Tensor], limits: RelaxSettings) -> str:
    """What a single system lacks that is out of steps.

    Args:
        largest: Its largest force (eV/Å), stress (GPa) and magforce (eV/μB) of what may relax.
        limits: Tolerances.
    """
    pairs = zip(
        ("force", "stress", "magnetic force"),
        largest,
        (limits.force_tol, limits.stress_tol, limits.magforce_tol),
        ("eV/Å", "GPa", "eV/μB"),
        strict=True,
    )
    missed = [
        f"{name} {float(value):.2g} > {limit:g} {unit}" for name, value, limit, unit in pairs if value > limit
    ]
    lacking = ", ".join(missed) or "the curvature of the moments is not known yet"
    return f"not converged within max_steps: {lacking}; raise --max-steps and go on with --resume."


def ase_results(state: MagneticOptimState, initial: Atoms) -> dict[str, Any]:
    """Results of a single system as ASE names them; no stress where there is no volume.

    Args:
        state: State of the system.
        initial: Its structure.
    """
    energy = float(state.energy)
    stress = physical_stress(state.stress[0].cpu().numpy().astype(float), initial)
    return {
        "energy": energy,
        "free_energy": energy,
        "forces": state.forces.cpu().numpy().astype(float),
        "magmoms": getattr(state, TORCHSIM_MAGMOMS).cpu().numpy().astype(float),
    } | ({} if stress is None else {"stress": full_3x3_to_voigt_6_stress(stress)})


def moment_note(status: Status, state: MagneticOptimState, curvature: Curvature | None) -> str:
    """What to say about the moments of a single system at rest; "" if all is well.

    Args:
        status: How it ended.
        state: Its state.
        curvature: Of its moments, if known.
    """
    magmoms = getattr(state, TORCHSIM_MAGMOMS).cpu().numpy().astype(float)
    note = ""
    if int(state.n_pushes):
        gain = 1000 * float(state.saddle_energy - state.energy) / len(magmoms)
        note = f"left a saddle point of the moments, {gain:.1f} meV/atom higher. "
    if status is Status.SADDLE and curvature is not None:
        note += (
            f"a saddle point of the moments and no minimum: the energy falls as {curvature.describe(magmoms)} "
            f"(curvature {curvature.lowest:.3f} eV/μB²); --perturb follows it down. "
        )
    if float(np.abs(magmoms).max()) < 1e-8:
        note += (
            "moments are zero and stay so by time reversal; start from "
            "--initial-magmoms high-spin to look for a magnetic state."
        )
    return note.strip()


def volume_note(state: MagneticOptimState, atoms: Atoms) -> str:
    """What to say about the volume of a single system; "" if it has none, or kept it.

    Args:
        state: Its state.
        atoms: Its structure.
    """
    change = float(torch.linalg.det(state.cell).abs() / state.reference_volume.clamp(min=1e-30)) - 1.0
    if not has_volume(atoms) or abs(change) <= LARGE_VOLUME_CHANGE:
        return ""
    return f"the volume changed by {100 * change:+.0f} %: the start may lie outside of what the model knows."


def known_curvature(state: MagneticOptimState) -> Curvature | None:
    """What is known of the curvature of a single system.

    Args:
        state: Of one system.
    """
    if not isinstance(state, MagneticFireState):
        return None  # others do not probe
    number = int(state.n_probes)
    if number == 0:
        return None
    found = lowest_curvature(state)
    return Curvature(
        values=found.values[0, :number].cpu().numpy().astype(float),
        error=float(found.error),
        noise=float(found.noise),
        direction=lowest_direction(state).cpu().numpy().astype(float),
    )
