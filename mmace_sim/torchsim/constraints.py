"""Translation of constraints between ASE, pymatgen's selective dynamics and TorchSim.

Atoms that stay where they are (``FixAtoms``), atoms that keep some of their coordinates (``FixScaled`` and selective
dynamics such as T T F, ``FixCartesian``, ``FixedPlane``, ``FixedLine``) and a centre of mass that stays where it is
(``FixCom``) are honoured. Anything else is refused: a constraint that is dropped silently gives a wrong answer.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ase.constraints
import numpy as np
import torch
import torch_sim as ts
from jaxtyping import Bool, Float
from torch_sim.constraints import Constraint, FixAtoms, FixCom

from mmace_sim.errors import UnsupportedConstraintError
from mmace_sim.torchsim.directions import FixDirections

_KNOWN = "FixAtoms, FixScaled (T T F of a POSCAR), FixCartesian, FixedPlane, FixedLine and FixCom"

_TINY = 1e-8


@dataclass
class Fixed:
    """What is held fixed in one structure.

    Attributes:
        atoms: True for each atom that must not move at all.
        center_of_mass: Whether the centre of mass must not move.
        free_axes: True for each fractional coordinate that may change, shape (n_atoms, 3); by default all.
        allowed: Projector on the Cartesian directions that are free, shape (n_atoms, 3, 3); by default all.
    """

    atoms: Bool[np.ndarray, " n_atoms"]
    center_of_mass: bool = field(default=False)
    free_axes: Bool[np.ndarray, "n_atoms 3"] = field(default=None)
    allowed: Float[np.ndarray, "n_atoms 3 3"] = field(default=None)

    def __post_init__(self) -> None:
        n = len(self.atoms)
        self.free_axes = np.ones((n, 3), dtype=bool) if self.free_axes is None else self.free_axes
        self.allowed = np.tile(np.eye(3), (n, 1, 1)) if self.allowed is None else self.allowed

    @property
    def partly(self) -> Bool[np.ndarray, " n_atoms"]:
        """Atoms that may move in some directions only."""
        axes = ~self.free_axes.all(axis=1)
        return (axes | (np.abs(self.allowed - np.eye(3)).max(axis=(1, 2)) > _TINY)) & ~self.atoms

    def settle(self, name: str, cell: Float[np.ndarray, "3 3"]) -> "Fixed":
        """Count atoms without any free direction as fixed, and refuse what cannot be held.

        Args:
            name: Name of the structure, for messages.
            cell: Cell vectors, in Å.

        Raises:
            UnsupportedConstraintError: If an atom has constraints along lattice vectors and in Cartesian directions,
                or lattice vectors are meant that do not exist.
        """
        axes = ~self.free_axes.all(axis=1)
        directions = np.abs(self.allowed - np.eye(3)).max(axis=(1, 2)) > _TINY
        self.atoms = (
            self.atoms | ~self.free_axes.any(axis=1) | (np.abs(self.allowed).max(axis=(1, 2)) < _TINY)
        )
        both = np.flatnonzero(axes & directions & ~self.atoms)
        if len(both):
            raise UnsupportedConstraintError(
                f"atom {both[0]} of {name} is held along lattice vectors and in Cartesian directions at once; use one "
                "kind of constraint for each atom."
            )
        if axes.any() and abs(np.linalg.det(cell)) < _TINY:
            raise UnsupportedConstraintError(
                f"{name} has selective dynamics along lattice vectors, but no cell with three of them."
            )
        return self


def fixed_from_ase(atoms: ase.Atoms) -> Fixed:
    """Read the constraints of an ASE structure.

    Args:
        atoms: Structure to read from.

    Returns:
        What they hold fixed.

    Raises:
        UnsupportedConstraintError: If it has a constraint of a kind that cannot be honoured.
    """
    fixed = Fixed(np.zeros(len(atoms), dtype=bool))
    for constraint in atoms.constraints:
        _add(fixed, constraint, atoms)
    return fixed.settle(atoms.get_chemical_formula(), atoms.cell.array)


def _add(fixed: Fixed, constraint: ase.constraints.FixConstraint, atoms: ase.Atoms) -> None:
    if isinstance(constraint, ase.constraints.FixAtoms):
        fixed.atoms[constraint.index] = True
    elif type(constraint) is ase.constraints.FixCom:
        fixed.center_of_mass = True
    elif isinstance(constraint, ase.constraints.FixScaled):
        fixed.free_axes[constraint.index] &= ~np.asarray(constraint.mask, dtype=bool)
    elif isinstance(constraint, ase.constraints.FixCartesian):
        # ASE's mask is True where the coordinate is fixed
        _restrict(fixed, constraint.index, np.diag(1.0 - np.asarray(constraint.mask, dtype=float)))
    elif isinstance(constraint, ase.constraints.FixedPlane | ase.constraints.FixedLine):
        along = np.outer(constraint.dir, constraint.dir) / np.dot(constraint.dir, constraint.dir)
        is_line = isinstance(constraint, ase.constraints.FixedLine)
        _restrict(fixed, constraint.index, along if is_line else np.eye(3) - along)
    else:
        raise UnsupportedConstraintError(
            f"the constraint {type(constraint).__name__} of {atoms.get_chemical_formula()} cannot be honoured; "
            f"{_KNOWN} can. Remove it from the structure, or use the ASE calculator with an optimiser of ASE."
        )


def _restrict(fixed: Fixed, indices: np.ndarray, projector: np.ndarray) -> None:
    """Take directions from atoms: what stays free is the intersection with what was free before."""
    for index in np.atleast_1d(indices):
        held = 2 * np.eye(3) - fixed.allowed[index] - projector
        values, vectors = np.linalg.eigh(held)
        free = vectors[:, np.abs(values) < _TINY]
        fixed.allowed[index] = free @ free.T


def fixed_from_selective_dynamics(flags: Sequence[Any], name: str, cell: Float[np.ndarray, "3 3"]) -> Fixed:
    """Read pymatgen's site property ``selective_dynamics``.

    Args:
        flags: Three booleans for each site, True where the fractional coordinate may move; None means all three.
        name: Name of the structure, for the message.
        cell: Cell vectors, in Å.

    Returns:
        What they hold fixed.
    """
    movable = np.array([(True, True, True) if flag is None else flag for flag in flags], dtype=bool)
    return Fixed(np.zeros(len(flags), dtype=bool), free_axes=movable).settle(name, cell)


def constraints_to_torchsim(fixed: list[Fixed], device: torch.device) -> list[Constraint]:
    """Join what is fixed in each structure into constraints of a batch.

    Args:
        fixed: What is held fixed, for each structure.
        device: Device of the batch.

    Returns:
        TorchSim constraints, at most one of each kind.
    """
    constraints: list[Constraint] = []
    atom_idx = np.flatnonzero(np.concatenate([one.atoms for one in fixed]))
    partly = np.flatnonzero(np.concatenate([one.partly for one in fixed]))
    system_idx = np.flatnonzero([one.center_of_mass for one in fixed])
    if len(atom_idx):
        constraints.append(FixAtoms(atom_idx=torch.as_tensor(atom_idx, device=device)))
    if len(partly):
        axes = np.concatenate([one.free_axes for one in fixed])[partly]
        allowed = np.concatenate([one.allowed for one in fixed])[partly]
        tensors = (torch.as_tensor(values, device=device) for values in (partly, axes, allowed))
        constraints.append(FixDirections(*tensors))
    if len(system_idx):
        constraints.append(FixCom(torch.as_tensor(system_idx, device=device)))
    return constraints


def fixed_of_state(state: ts.SimState) -> list[Fixed]:
    """Read the constraints of a TorchSim state.

    Args:
        state: State to read from.

    Returns:
        What is held fixed, for each system. Constraints that only TorchSim knows are left out with a warning.
    """
    system_idx = state.system_idx.cpu().numpy()
    whole = Fixed(np.zeros(state.n_atoms, dtype=bool))
    center_of_mass = np.zeros(state.n_systems, dtype=bool)
    for constraint in state.constraints:
        if isinstance(constraint, FixAtoms):
            whole.atoms[constraint.atom_idx.cpu().numpy()] = True
        elif isinstance(constraint, FixDirections):
            indices = constraint.atom_idx.cpu().numpy()
            whole.free_axes[indices] = constraint.free_axes.cpu().numpy()
            whole.allowed[indices] = constraint.allowed.double().cpu().numpy()
        elif isinstance(constraint, FixCom):
            center_of_mass[constraint.system_idx.cpu().numpy()] = True
        else:
            name = type(constraint).__name__
            warnings.warn(f"the TorchSim constraint {name} has no counterpart and is left out", stacklevel=3)
    parts = (system_idx == i for i in range(state.n_systems))
    return [
        Fixed(whole.atoms[part], bool(center_of_mass[i]), whole.free_axes[part], whole.allowed[part])
        for i, part in enumerate(parts)
    ]


def fixed_to_ase(fixed: Fixed) -> list[ase.constraints.FixConstraint]:
    """Write what is fixed as ASE constraints.

    Args:
        fixed: What is held fixed.

    Returns:
        ASE constraints, as few as possible.
    """
    constraints: list[ase.constraints.FixConstraint] = []
    if fixed.atoms.any():
        constraints.append(ase.constraints.FixAtoms(mask=fixed.atoms))
    constraints += _partly_to_ase(fixed)
    if fixed.center_of_mass:
        constraints.append(ase.constraints.FixCom())
    return constraints


def _partly_to_ase(fixed: Fixed) -> Iterator[ase.constraints.FixConstraint]:
    """Constraints of the atoms that may move in some directions, one for each kind of atom."""
    groups: dict[tuple, list[int]] = {}
    for index in np.flatnonzero(fixed.partly).tolist():
        kind = (*fixed.free_axes[index].tolist(), *np.round(fixed.allowed[index], 12).ravel().tolist())
        groups.setdefault(kind, []).append(index)
    for indices in groups.values():
        axes, allowed = fixed.free_axes[indices[0]], fixed.allowed[indices[0]]
        if not axes.all():
            yield ase.constraints.FixScaled(indices, mask=~axes)
        elif np.abs(allowed - np.diag(np.round(np.diag(allowed)))).max() < _TINY:
            yield ase.constraints.FixCartesian(indices, mask=np.diag(allowed) < 0.5)
        else:
            vectors = np.linalg.eigh(allowed)[1]  # free ones last
            is_line = np.trace(allowed) < 1.5
            kind = ase.constraints.FixedLine if is_line else ase.constraints.FixedPlane
            yield kind(indices, vectors[:, 2 if is_line else 0])
