"""Structures of another kind than those that they are made from."""

from collections.abc import Callable

import numpy as np
from ase import Atoms
from ase.build import bulk

from mmace_sim.graph.atoms import get_magmoms, set_magmoms

Strange = Callable[[Atoms, np.random.Generator], Atoms | None]


def _larger(atoms: Atoms) -> Atoms:
    return atoms.repeat(max(1, int(np.ceil((12 / len(atoms)) ** (1 / 3)))))


def vacancy(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """One atom less."""
    atoms = _larger(atoms)
    del atoms[int(rng.integers(len(atoms)))]
    return atoms


def surface(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """10 Å of vacuum."""
    del rng
    atoms = atoms.copy() if len(atoms) > 8 else atoms.repeat((1, 1, 3))
    cell = atoms.cell.array.copy()
    cell[2] *= 1 + 10 / np.linalg.norm(cell[2])
    atoms.set_cell(cell)
    return atoms


def doubled_moments(atoms: Atoms, rng: np.random.Generator) -> Atoms | None:
    """Twice the moments, if there are any."""
    del rng
    moments = get_magmoms(atoms)
    if np.linalg.norm(moments, axis=1).max() < 0.3:
        return None
    atoms = atoms.copy()
    set_magmoms(atoms, 2 * moments)
    return atoms


def other_ratio(atoms: Atoms, rng: np.random.Generator) -> Atoms | None:
    """Half of the atoms of one element become the other."""
    atoms = _larger(atoms)
    kinds = np.unique(atoms.numbers)
    if len(kinds) < 2:
        return None
    old, new = rng.permutation(kinds)[:2]
    mine = np.flatnonzero(atoms.numbers == old)
    chosen = rng.choice(mine, max(1, len(mine) // 2), replace=False)
    moments = get_magmoms(atoms).copy()
    moments[chosen] = moments[rng.choice(np.flatnonzero(atoms.numbers == new), len(chosen))]
    atoms.numbers[chosen] = new
    set_magmoms(atoms, moments)
    return atoms


def phase(kind: str) -> Strange:
    """Another crystal with the volume, elements and moments of the structure, slightly rattled."""

    def make(atoms: Atoms, rng: np.random.Generator) -> Atoms:
        n = {"bcc": 2, "fcc": 4, "sc": 1, "diamond": 8}[kind]
        crystal = bulk("Fe", kind, a=(atoms.get_volume() / len(atoms) * n) ** (1 / 3), cubic=True)
        crystal.arrays.pop("initial_magmoms", None)
        crystal = crystal.repeat(max(1, round((len(atoms) / n) ** (1 / 3))))
        chosen = np.resize(rng.permutation(len(atoms)), len(crystal))
        crystal.numbers = atoms.numbers[chosen]
        crystal.positions += rng.normal(0, 0.03, crystal.positions.shape)
        set_magmoms(crystal, get_magmoms(atoms)[chosen])
        return crystal

    return make


STRANGE: dict[str, Strange] = {
    "vacancy": vacancy, "surface": surface, "doubled moments": doubled_moments, "other ratio": other_ratio,
    **{f"phase {kind}": phase(kind) for kind in ("bcc", "fcc", "sc", "diamond")},
}  # fmt: skip
