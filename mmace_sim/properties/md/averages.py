"""What a simulation comes to: means over its second half, their errors, and the drift of the energy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mmace_sim.properties.md.files import column
from mmace_sim.units import BOLTZMANN_EV_PER_K

N_BLOCKS: int = 5
"""Blocks of frames whose scatter gives the error of a mean."""


def averages(rows: Sequence[dict[str, Any]], n_atoms: int, *, bath: bool) -> dict[str, Any]:
    """Averages of one simulation.

    Args:
        rows: Frames, as in ``thermo.csv``.
        n_atoms: Number of atoms.
        bath: Whether there was a heat bath.

    Returns:
        Values by name, each with ``_error`` where it is a mean; None what there is not.
    """
    values: dict[str, Any] = {}
    half = list(rows[len(rows) // 2 :])
    for name in ("temperature", "energy_potential", "mean_magmom", "total_magmom", "pressure", "volume"):
        per_atom = n_atoms if name in ("energy_potential", "volume") else 1
        values[name], values[f"{name}_error"] = _mean(column(half, name) / per_atom)
    torque, curvature = column(half, "spin_torque"), column(half, "spin_curvature")
    hot = len(half) > 0 and np.isfinite(torque).all() and curvature.sum() > 0
    values["spin_temperature"] = float(torque.sum() / curvature.sum() / BOLTZMANN_EV_PER_K) if hot else None
    values["energy_drift"], values["energy_noise"] = (
        (None, None) if bath else energy_drift(column(rows, "time"), column(rows, "energy_total") / n_atoms)
    )
    values["evaluations_per_step"] = (
        rows[-1]["n_evaluations"] / rows[-1]["step"] if rows and rows[-1]["step"] else None
    )
    return values


def energy_drift(
    times: Float[np.ndarray, " n"], energies: Float[np.ndarray, " n"]
) -> tuple[float | None, float | None]:
    """Slope of an energy, and what is left beside it.

    Args:
        times: In fs.
        energies: In eV.

    Returns:
        Slope in meV/ps and standard deviation in meV; None with fewer than three points.
    """
    if len(times) < 3:
        return None, None
    slope, zero = np.polyfit(times / 1000.0, 1000.0 * (energies - energies[0]), 1)
    left = 1000.0 * (energies - energies[0]) - slope * times / 1000.0 - zero
    return float(slope), float(left.std())


def _mean(values: Float[np.ndarray, " n"]) -> tuple[float | None, float | None]:
    """Mean and its standard error from blocks; None if there is nothing to average."""
    if len(values) == 0 or not np.isfinite(values).all():
        return None, None
    if len(values) < 2 * N_BLOCKS:
        return float(values.mean()), None
    blocks = [block.mean() for block in np.array_split(values, N_BLOCKS)]
    return float(values.mean()), float(np.std(blocks, ddof=1) / np.sqrt(N_BLOCKS))
