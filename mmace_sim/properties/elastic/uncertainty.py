"""How far elastic constants may be off: by relaxations that are not perfect, and by a series that ends."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float

from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.properties.results import known
from mmace_sim.properties.singlepoint import PointResult
from mmace_sim.units import EV_PER_A3_IN_GPA


def slopes(
    magnitudes: Float[np.ndarray, " n"], odd: Float[np.ndarray, "n m"]
) -> tuple[Float[np.ndarray, " m"], float]:
    """Derivatives at zero of odd functions; two magnitudes or more tell the cubic term from the linear one.

    Args:
        magnitudes: Strains.
        odd: Values there.

    Returns:
        The derivatives, and an estimate of what the term of fifth order changes them by, if it is to the cubic one what
        that is to the linear one. With one magnitude it is not known and 0.
    """
    powers = (1, 3) if len(magnitudes) > 1 else (1,)
    design = np.stack([magnitudes**power for power in powers], axis=1) / magnitudes.max()
    found = np.linalg.lstsq(design, odd / magnitudes.max(), rcond=None)[0][0]
    straight = np.linalg.lstsq(design[:, :1], odd / magnitudes.max(), rcond=None)[0][0]
    largest = np.abs(found).max()
    ratio = magnitudes.min() / magnitudes.max()
    return found, float((ratio * np.abs(found - straight).max()) ** 2 / largest) if largest > 0 else 0.0


def relaxation_error_gpa(
    reference: Atoms,
    points: Sequence[PointResult],
    pairs: Bool[np.ndarray, "n_strains n_magnitudes"],
    magnitudes: Float[np.ndarray, " n_magnitudes"],
) -> float:
    """What atoms and moments that are not relaxed to the end do to the constants, to first order.

    With x the positions and moments, and f = −∂E/∂x what is left of the forces on them, the stress is off by
    δS_j = (dx/dη_j)·f/V, because dx/dη = −E_xx⁻¹ E_xη and x − x* = −E_xx⁻¹ f. How x follows the strains is seen in the
    strained cells themselves. What is held has dx/dη = 0.

    Args:
        reference: The unstrained crystal.
        points: Strained cells: each strain by each magnitude, first with +, then with −.
        pairs: Which strains and magnitudes converged with both signs.
        magnitudes: Of the strains, in Mandel's notation.

    Returns:
        Largest change of a constant between the strains that were applied, in GPa and Mandel's notation.
    """
    measured = np.flatnonzero(pairs.any(axis=1))
    pointed = np.array(points, dtype=object).reshape(*pairs.shape, 2)
    moves = []
    for k in measured:
        last = int(np.flatnonzero(pairs[k])[-1])
        up, down = pointed[k, last]
        moves.append(_motion(reference, up.atoms, down.atoms) / (2.0 * magnitudes[last]))
    follow = np.array(moves).reshape(len(measured), -1)
    largest = 0.0
    for k in measured:
        left = [0.5 * (_left(up) - _left(down)) for up, down in pointed[k, pairs[k]]]
        off = np.array(left).reshape(len(left), -1) @ follow.T
        largest = max(largest, float(np.abs(slopes(magnitudes[pairs[k]], off)[0]).max()))
    return largest / reference.get_volume() * EV_PER_A3_IN_GPA


def _motion(reference: Atoms, up: Atoms, down: Atoms) -> Float[np.ndarray, "2 n_atoms 3"]:
    """How positions (Å, beside the strain) and moments (μB) differ."""
    fractions = up.get_scaled_positions(wrap=False) - down.get_scaled_positions(wrap=False)
    fractions -= np.round(fractions)
    return np.stack([fractions @ reference.cell.array, get_magmoms(up) - get_magmoms(down)])


def _left(point: PointResult) -> Float[np.ndarray, "2 n_atoms 3"]:
    """Forces (eV/Å) and magforces (eV/μB)."""
    return np.stack([known(point.forces), known(point.magforces)])
