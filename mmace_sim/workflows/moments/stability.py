"""Whether relaxed moments are a minimum: curvature of the energy in all directions that constraints leave."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float

from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.torchsim.freedom import FREE_MOMENTS
from mmace_sim.workflows.moments.relax import MomentRelaxation
from mmace_sim.workflows.relax import Status

MAX_DIRECTIONS: int = 150
"""Larger structures are not looked at: two evaluations for each direction."""

FLAT: float = 1e-3
"""Curvatures below this fraction of the largest one are zero, as those of common rotations are."""

_STEP = 0.003  # μB


@dataclass(frozen=True)
class Curvature:
    """Eigenvalues of ∂²E/∂m∂m within the constraints, in ascending order.

    Attributes:
        values: In eV/μB².
        noise: What the rest of the magforces and the differences may contribute, in eV/μB².
    """

    values: Float[np.ndarray, " n"]
    noise: float

    @property
    def lowest(self) -> float:
        """The lowest one, in eV/μB²; 0 if nothing may move."""
        return float(self.values[0]) if len(self.values) else 0.0

    @property
    def is_stable(self) -> bool:
        """Whether no direction goes downhill."""
        largest = float(np.abs(self.values).max(initial=0.0))
        return self.lowest > -max(FLAT * largest, self.noise, 1e-12)


def curvatures(relaxation: MomentRelaxation, structures: Sequence[Atoms]) -> list[Curvature | None]:
    """Curvatures of the energy at relaxed moments, by central differences of magforces, all in one batch.

    For moments of fixed length these are those on their spheres.

    Args:
        relaxation: What relaxed the moments: its model, field and constraints are used.
        structures: Structures with relaxed moments.

    Returns:
        One for each structure; None if it has more than `MAX_DIRECTIONS` directions or the model failed.
    """
    evaluation = relaxation.evaluation()
    bases = [_directions(atoms, relaxation) for atoms in structures]
    images = []
    for atoms, basis in zip(structures, bases, strict=True):
        images += [_displaced(atoms, sign * _STEP * b, relaxation) for b in basis for sign in (1.0, -1.0)]
    outcomes = iter(evaluation.run(images))
    found: list[Curvature | None] = []
    for basis in bases:
        results = [next(outcomes) for _ in range(2 * len(basis))]
        if len(basis) == 0 or any(r.status is Status.FAILED or r.magforces is None for r in results):
            found.append(None)
            continue
        forces = np.array([_allowed(r.magforces, r.atoms, relaxation) for r in results])
        hessian = np.einsum("aij,bij->ab", (forces[1::2] - forces[::2]) / (2 * _STEP), basis)
        values = np.linalg.eigvalsh(0.5 * (hessian + hessian.T))
        found.append(Curvature(values, 10 * relaxation.magforce_tol))
    return found


def _directions(atoms: Atoms, relaxation: MomentRelaxation) -> Float[np.ndarray, "n n_atoms 3"]:
    """Unit changes of one moment each that the constraints allow; none if there are too many."""
    magmoms = get_magmoms(atoms)
    freedom = relaxation.freedom
    rows = []
    for index in np.flatnonzero(_free(atoms)):
        if freedom.collinear:
            axes = np.linalg.svd(magmoms)[2][:1]
        elif freedom.fix_magnitude:
            axes = np.linalg.svd(magmoms[index][None])[2][1:] if magmoms[index].any() else []
        else:
            axes = np.eye(3)
        for axis in axes:
            row = np.zeros_like(magmoms)
            row[index] = axis
            rows.append(row)
    return np.array(rows).reshape(-1, *magmoms.shape) if len(rows) <= MAX_DIRECTIONS else np.zeros((0, 1, 3))


def _free(atoms: Atoms) -> Bool[np.ndarray, " n_atoms"]:
    return atoms.arrays.get(FREE_MOMENTS, np.ones(len(atoms), dtype=bool)).astype(bool)


def _displaced(atoms: Atoms, change: Float[np.ndarray, "n_atoms 3"], relaxation: MomentRelaxation) -> Atoms:
    image = atoms.copy()
    magmoms = get_magmoms(atoms) + change
    if relaxation.freedom.fix_magnitude:
        lengths = np.linalg.norm(get_magmoms(atoms), axis=1, keepdims=True)
        magmoms *= lengths / np.linalg.norm(magmoms, axis=1, keepdims=True).clip(min=1e-30)
    set_magmoms(image, magmoms)
    return image


def _allowed(
    magforces: Float[np.ndarray, "n_atoms 3"], atoms: Atoms, relaxation: MomentRelaxation
) -> Float[np.ndarray, "n_atoms 3"]:
    """Magforces within the spheres of moments of fixed length."""
    if not relaxation.freedom.fix_magnitude:
        return magforces
    magmoms = get_magmoms(atoms)
    square = (magmoms**2).sum(axis=1, keepdims=True).clip(min=1e-20)
    return magforces - (magforces * magmoms).sum(axis=1, keepdims=True) / square * magmoms
