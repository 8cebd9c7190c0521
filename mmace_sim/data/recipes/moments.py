"""Candidates of other moments; they are held, but for the orders, which are left to relax."""

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from mmace_sim.data.candidates import candidate
from mmace_sim.data.recipes.kitchen import Kitchen
from mmace_sim.data.recipes.lattice import enlarged, rattled, strained
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.graph.cells import is_open
from mmace_sim.properties.order.declaration import OrderSettings
from mmace_sim.properties.order.enumeration import enumerate_collinear
from mmace_sim.properties.order.starts import order_starts

_SHORTEST = 0.3
"""Smallest factor for lengths where other things change too: shorter moments turn without a cost."""
_MAGNETIC = 0.01  # μB


def orders(kitchen: Kitchen) -> Iterator[Atoms]:
    """Collinear orders by symmetry, the simple ones first, and no moments at all; all are free."""
    atoms = kitchen.atoms
    size = max(kitchen.settings.max_atoms // len(atoms), 1)
    found = enumerate_collinear(atoms, size, max_orders=max(kitchen.count - 1, 1))
    for order in found.orders:
        yield candidate(order.atoms, get_magmoms(order.atoms), hold=False)
    primitive = found.parent.atoms
    yield candidate(primitive, np.zeros((len(primitive), 3)), hold=False)


def lengths(kitchen: Kitchen) -> Iterator[Atoms]:
    """Scaled moments, in turn all by one factor and each by its own."""
    atoms, moments = kitchen.atoms, get_magmoms(kitchen.atoms)
    for k in range(kitchen.count if _magnetic(atoms).any() else 0):
        factors = kitchen.rng.uniform(0, kitchen.settings.max_scale, 1 if k % 2 == 0 else len(atoms))
        yield _held(atoms, factors[:, None] * moments)


def rotations(kitchen: Kitchen) -> Iterator[Atoms]:
    """One moment turned by U[0, π] about a random axis; reversed where states are collinear."""
    atoms = _several(kitchen)
    sites = np.flatnonzero(_magnetic(atoms))
    for _ in range(kitchen.count if len(sites) > 1 else 0):
        moments = get_magmoms(atoms)
        site = int(kitchen.rng.choice(sites))
        if kitchen.settings.collinear:
            moments[site] *= -kitchen.rng.uniform(_SHORTEST, 1.0)
        else:
            moments[site] = _turned(moments[[site]], kitchen.rng)[0]
        yield _held(atoms, moments)


def scattered(kitchen: Kitchen) -> Iterator[Atoms]:
    """Every moment turned by U[0, π] about an axis of its own and scaled by U[0, `max_scale`]."""
    atoms, moments = kitchen.atoms, get_magmoms(kitchen.atoms)
    for _ in range(kitchen.count if _magnetic(atoms).any() else 0):
        factors = kitchen.rng.uniform(0, kitchen.settings.max_scale, (len(atoms), 1))
        yield _held(atoms, factors * _directions(moments, kitchen))


def spirals(kitchen: Kitchen) -> Iterator[Atoms]:
    """Flat spirals that fit into supercells."""
    if kitchen.settings.collinear:
        return
    size = max(kitchen.settings.max_atoms // len(kitchen.atoms), 1)
    chosen = OrderSettings(max_supercell=size, max_orders=1, spirals=True, non_magnetic=False)
    for start in order_starts(kitchen.atoms, chosen)[0]:
        if start.name.startswith("spiral"):
            yield _held(start.atoms, get_magmoms(start.atoms))


def mixed(kitchen: Kitchen) -> Iterator[Atoms]:
    """Strain, displacements, lengths and directions at once."""
    for k in range(kitchen.count):
        base = _several(kitchen)
        atoms = rattled(strained(base, kitchen), kitchen)
        low, high = kitchen.settings.volume_range
        factor = 1.0 if is_open(atoms).any() else kitchen.rng.uniform(low, high) ** (1 / 3)
        atoms.set_cell(atoms.cell * factor, scale_atoms=True)
        moments = kitchen.rng.uniform(_SHORTEST, 1.2, (len(atoms), 1)) * get_magmoms(base)
        if k % 2:
            moments = _directions(moments, kitchen)
        yield _held(atoms, moments)


def frames(kitchen: Kitchen) -> Iterator[Atoms]:
    """All moments turned by one random rotation."""
    moments = get_magmoms(kitchen.atoms)
    for _ in range(kitchen.count if _magnetic(kitchen.atoms).any() else 0):
        yield _held(kitchen.atoms, moments @ Rotation.random(rng=kitchen.rng).as_matrix().T)


def _several(kitchen: Kitchen) -> Atoms:
    """The structure, as a supercell if it has a single magnetic atom."""
    atoms = kitchen.atoms
    if _magnetic(atoms).sum() > 1:
        return atoms
    return enlarged(atoms, 2 * len(atoms), kitchen.settings.max_atoms, kitchen.rng)


def _magnetic(atoms: Atoms) -> np.ndarray:
    return np.linalg.norm(get_magmoms(atoms), axis=1) > _MAGNETIC


def _held(atoms: Atoms, moments: Float[np.ndarray, "n_atoms 3"]) -> Atoms:
    """A candidate whose magnetic atoms are held; the others follow."""
    return candidate(atoms, moments, hold=_magnetic(atoms))


def _directions(moments: Float[np.ndarray, "n 3"], kitchen: Kitchen) -> Float[np.ndarray, "n 3"]:
    """Random directions, or signs."""
    if kitchen.settings.collinear:
        return moments * kitchen.rng.choice([-1, 1], (len(moments), 1))
    return _turned(moments, kitchen.rng)


def _turned(moments: Float[np.ndarray, "n 3"], rng: np.random.Generator) -> Float[np.ndarray, "n 3"]:
    """Each moment turned by U[0, π] about a random axis perpendicular to it."""
    size = np.linalg.norm(moments, axis=1, keepdims=True)
    sideways = np.cross(moments, rng.normal(size=moments.shape))
    sideways *= size / np.linalg.norm(sideways, axis=1, keepdims=True).clip(min=1e-12)
    angle = rng.uniform(0, np.pi, (len(moments), 1))
    return np.cos(angle) * moments + np.sin(angle) * sideways
