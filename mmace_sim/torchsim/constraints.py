"""Translation of constraints between ASE, pymatgen's selective dynamics and TorchSim.

Two constraints exist on every side: atoms that stay where they are (``FixAtoms``) and a centre of mass that
stays where it is (``FixCom``). Anything else is refused: a constraint that is dropped silently gives a wrong
answer.
"""

import warnings
from dataclasses import dataclass, field

import ase.constraints
import numpy as np
import torch
import torch_sim as ts
from jaxtyping import Bool
from torch_sim.constraints import Constraint, FixAtoms, FixCom

from mmace_sim.errors import UnsupportedOptionError


@dataclass
class Fixed:
    """What is held fixed in one structure.

    Attributes:
        atoms: True for each atom that must not move.
        center_of_mass: Whether the centre of mass must not move.
    """

    atoms: Bool[np.ndarray, " n_atoms"]
    center_of_mass: bool = field(default=False)


def fixed_from_ase(atoms: ase.Atoms) -> Fixed:
    """Read the constraints of an ASE structure.

    Args:
        atoms: Structure to read from.

    Returns:
        What its ``FixAtoms`` and ``FixCom`` constraints hold fixed.

    Raises:
        UnsupportedOptionError: If it has a constraint of another kind.
    """
    fixed = Fixed(np.zeros(len(atoms), dtype=bool))
    for constraint in atoms.constraints:
        if isinstance(constraint, ase.constraints.FixAtoms):
            fixed.atoms[constraint.index] = True
        elif type(constraint) is ase.constraints.FixCom:
            fixed.center_of_mass = True
        else:
            raise UnsupportedOptionError(
                f"the constraint {type(constraint).__name__} of {atoms.get_chemical_formula()} has no "
                "TorchSim "
                "counterpart; FixAtoms and FixCom have. Remove it, or use the ASE calculator."
            )
    return fixed


def fixed_from_selective_dynamics(flags: list, name: str) -> Fixed:
    """Read pymatgen's site property ``selective_dynamics``.

    Args:
        flags: Three booleans for each site, True where the coordinate may move; None means all three.
        name: Name of the structure, for the message.

    Returns:
        The atoms that may not move at all.

    Raises:
        UnsupportedOptionError: If an atom may move along some axes only.
    """
    movable = np.array([(True, True, True) if flag is None else flag for flag in flags], dtype=bool)
    partly = np.flatnonzero(movable.any(axis=1) & ~movable.all(axis=1))
    if len(partly):
        raise UnsupportedOptionError(
            f"selective_dynamics of site {partly[0]} of {name} fixes some axes only, which TorchSim cannot "
            "do."
        )
    return Fixed(~movable.any(axis=1))


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
    system_idx = np.flatnonzero([one.center_of_mass for one in fixed])
    if len(atom_idx):
        constraints.append(FixAtoms(atom_idx=torch.as_tensor(atom_idx, device=device)))
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
    atoms = np.zeros(state.n_atoms, dtype=bool)
    center_of_mass = np.zeros(state.n_systems, dtype=bool)
    for constraint in state.constraints:
        if isinstance(constraint, FixAtoms):
            atoms[constraint.atom_idx.cpu().numpy()] = True
        elif isinstance(constraint, FixCom):
            center_of_mass[constraint.system_idx.cpu().numpy()] = True
        else:
            name = type(constraint).__name__
            warnings.warn(f"the TorchSim constraint {name} has no counterpart and is left out", stacklevel=3)
    return [Fixed(atoms[system_idx == i], bool(center_of_mass[i])) for i in range(state.n_systems)]


def fixed_to_ase(fixed: Fixed) -> list[ase.constraints.FixConstraint]:
    """Write what is fixed as ASE constraints.

    Args:
        fixed: What is held fixed.

    Returns:
        ASE constraints, at most one of each kind.
    """
    constraints: list[ase.constraints.FixConstraint] = []
    if fixed.atoms.any():
        constraints.append(ase.constraints.FixAtoms(mask=fixed.atoms))
    if fixed.center_of_mass:
        constraints.append(ase.constraints.FixCom())
    return constraints
