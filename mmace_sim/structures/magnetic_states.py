"""Magnetic states of one crystal, ferromagnetic, antiferromagnetic, non-magnetic, in a larger cell where needed."""

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from jaxtyping import Float, Int

from mmace_sim.errors import ConfigError, StructureError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.structures.antiferromagnet import antiferromagnetic_signs, couplings, magnetic_sites
from mmace_sim.structures.initial_moments import LOW_SPIN, initial_magmoms, starting_lengths

STATES: dict[str, str] = {
    "file": "the moments of the structure",
    "fm": "ferromagnetic, from the high-spin side",
    "fm-ls": "ferromagnetic, from the low-spin side",
    "afm": "antiferromagnetic: near neighbours opposite as far as the lattice allows",
    "afmd": "antiferromagnetic double layers along the third cell vector, up up down down",
    "nm": "non-magnetic: no moments",
    "random:SEED": "high-spin lengths, random directions",
}
"""The states that can be asked for."""

_DOUBLE_LAYERS = (1, 1, -1, -1)
_LAYER_THICKNESS = 0.3  # Å


def check_state(name: str) -> str:
    """Make sure that a state exists.

    Args:
        name: One of `STATES`, such as ``random:7``.

    Raises:
        ConfigError: If it does not exist.
    """
    kind, _, seed = name.partition(":")
    if (name in STATES and kind != "random") or (kind == "random" and seed.isdecimal()):
        return name
    raise ConfigError(f"unknown magnetic state {name!r}; choose from {', '.join(STATES)} (e.g. random:7).")


def magnetic_state(atoms: Atoms, name: str) -> tuple[Atoms, str]:
    """A copy of a structure in a magnetic state.

    Args:
        atoms: Structure.
        name: One of `STATES`.

    Returns:
        The structure with moments, as a supercell where the state does not fit into the cell; and a sentence about
        how it was made, or "".

    Raises:
        ConfigError: If the state does not exist.
        MissingMomentsError: If the moments must come from the structure and it has none.
        StructureError: If the state is impossible in this structure.
    """
    check_state(name)
    note = ""
    if name == "afm":
        atoms, note = _antiferromagnetic_cell(atoms)
    if name == "afmd":
        atoms, moments, note = _double_layers(atoms)
    elif name == "nm":
        moments = np.zeros((len(atoms), 3))
    else:
        moments = initial_magmoms(atoms, "fm" if name == "fm-ls" else name)[0]
    state = atoms.copy()
    set_magmoms(state, LOW_SPIN * moments if name == "fm-ls" else moments)
    return state, note


def _magnetic_sites(atoms: Atoms) -> tuple[Int[np.ndarray, " n_sites"], Float[np.ndarray, " n_atoms"]]:
    """Indices of the atoms that carry the order, and the high-spin length of every moment."""
    lengths = starting_lengths(atoms)
    return magnetic_sites(lengths), lengths


def _antiferromagnetic_cell(atoms: Atoms) -> tuple[Atoms, str]:
    """The structure itself, or the best of its doubled cells if it has a single magnetic atom."""
    sites, _ = _magnetic_sites(atoms)
    if len(sites) != 1 or not atoms.pbc.all():
        return atoms, ""
    doubled = [make_supercell(atoms, matrix) for matrix in _doublings()]
    best = doubled[int(np.argmin(np.round([_frustration(cell) for cell in doubled], 9)))]
    return best, f"antiferromagnetic in a doubled cell of {len(best)} atoms"


def _frustration(atoms: Atoms) -> float:
    """How far near neighbours and bridged ions are from being antiparallel, own images included."""
    sites, lengths = _magnetic_sites(atoms)
    signs = antiferromagnetic_signs(atoms, sites, lengths)
    return couplings(atoms, sites).frustration(signs)


def _doublings() -> Iterator[Int[np.ndarray, "3 3"]]:
    """The seven ways to double a lattice: Hermite normal forms of determinant 2."""
    for axis in range(3):
        for shear in range(2**axis):
            matrix = np.eye(3, dtype=int)
            matrix[axis, axis] = 2
            matrix[:axis, axis] = [(shear >> k) & 1 for k in range(axis)]
            yield matrix


def _double_layers(atoms: Atoms) -> tuple[Atoms, Float[np.ndarray, "n_atoms 3"], str]:
    """Moments up, up, down, down in layers along the third cell vector, repeated until they fit."""
    if len(_magnetic_sites(atoms)[0]) == 0 or not atoms.pbc.all():
        raise StructureError(
            f"double layers need a crystal with magnetic atoms, got {atoms.get_chemical_formula()}. Choose nm or file."
        )
    n_layers = len(np.unique(_layers(atoms)))
    repeat = 4 // np.gcd(n_layers, 4)
    cell = atoms.repeat((1, 1, int(repeat)))
    sites, lengths = _magnetic_sites(cell)
    moments = np.zeros((len(cell), 3))
    moments[sites, 2] = np.array(_DOUBLE_LAYERS)[_layers(cell) % 4] * lengths[sites]
    note = "" if repeat == 1 else f"double layers in a cell of {len(cell)} atoms, {repeat} times as long"
    return cell, moments, note


def _layers(atoms: Atoms) -> Int[np.ndarray, " n_sites"]:
    """Number of the layer of each magnetic atom, counted along the third cell vector."""
    normal = np.cross(atoms.cell[0], atoms.cell[1])
    period = abs(float(atoms.cell[2] @ normal)) / np.linalg.norm(normal)
    heights = atoms.get_scaled_positions()[_magnetic_sites(atoms)[0], 2] * period
    heights = (heights - heights[0] + 0.5 * _LAYER_THICKNESS) % period
    order = np.argsort(heights)
    steps = np.diff(heights[order], prepend=heights[order[0]]) > _LAYER_THICKNESS
    layers = np.empty(len(heights), dtype=int)
    layers[order] = np.cumsum(steps)
    return layers
