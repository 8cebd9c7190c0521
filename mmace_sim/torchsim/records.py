"""One structure of any host as arrays: what `mmace_sim.torchsim.state` makes batches from."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ase.units
import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float, Int

from mmace_sim.errors import MissingMomentsError, StructureError
from mmace_sim.graph.atoms import MAGMOM_ARRAYS, check_atomic_numbers, check_magmoms, get_magmoms
from mmace_sim.torchsim.constraints import Fixed, fixed_from_ase, fixed_from_selective_dynamics

if TYPE_CHECKING:
    from phonopy.structure.atoms import PhonopyAtoms
    from pymatgen.core import IStructure

    type StructureLike = Atoms | IStructure | PhonopyAtoms
else:
    type StructureLike = object  # hosts that are not in use are not imported

ANGSTROM_PER_FS: float = 1.0 / ase.units.fs
"""1 Å/fs, the unit of velocities in pymatgen, in ASE's unit (eV/amu)^½."""


@dataclass
class Record:
    """Arrays of one structure in Å, amu, μB and (amu eV)^½; the cell has row vectors."""

    positions: Float[np.ndarray, "n_atoms 3"]
    cell: Float[np.ndarray, "3 3"]
    pbc: Bool[np.ndarray, "3"]
    atomic_numbers: Int[np.ndarray, " n_atoms"]
    masses: Float[np.ndarray, " n_atoms"]
    magmoms: Float[np.ndarray, "n_atoms 3"]
    momenta: Float[np.ndarray, "n_atoms 3"] | None
    fixed: Fixed


def _is_instance(item: object, module: str, name: str) -> bool:
    """Say whether the item is of a class whose module may not even be imported."""
    return module in sys.modules and isinstance(item, getattr(sys.modules[module], name))


def read_record(item: StructureLike) -> Record:
    """Read one structure of any host.

    Args:
        item: An ``ase.Atoms``, a pymatgen ``Structure`` or a ``PhonopyAtoms``.

    Returns:
        Its arrays; collinear moments are vectors along z.

    Raises:
        MissingMomentsError: If it carries no moments.
        MomentShapeError: If its moments have a wrong shape or number.
        StructureError: If it has no atoms, or sites that hold no or several elements.
        UnsupportedConstraintError: If it has a constraint that cannot be honoured.
        TypeError: If it is of another kind.
    """
    if isinstance(item, Atoms):
        read = _read_ase
    elif _is_instance(item, "pymatgen.core.structure", "IStructure"):
        read = _read_pymatgen
    elif _is_instance(item, "phonopy.structure.atoms", "PhonopyAtoms"):
        read = _read_phonopy
    else:
        raise TypeError(
            f"cannot make a state from {type(item).__name__}; expected ase.Atoms, pymatgen Structure, "
            "PhonopyAtoms or a TorchSim state, or a list of them."
        )
    if len(item) == 0:
        raise StructureError("the structure has no atoms.")
    return read(item)


def _read_ase(atoms: Atoms) -> Record:
    check_atomic_numbers(atoms.numbers)
    return Record(
        positions=atoms.get_positions(),
        cell=atoms.cell.array.copy(),
        pbc=atoms.pbc.copy(),
        atomic_numbers=atoms.get_atomic_numbers(),
        masses=_checked(atoms.get_masses(), (len(atoms),), "masses"),
        magmoms=get_magmoms(atoms),
        momenta=_checked(atoms.arrays["momenta"], (len(atoms), 3), "momenta")
        if atoms.has("momenta")
        else None,
        fixed=fixed_from_ase(atoms),
    )


def _checked(values: np.ndarray, shape: tuple[int, ...], name: str) -> Float[np.ndarray, "..."]:
    """Numbers of the expected shape, or an error that names them."""
    try:
        numbers = np.array(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise StructureError(f"{name} are no numbers ({error}). Correct or remove them.") from error
    if numbers.shape != shape or not np.isfinite(numbers).all():
        got = f"have shape {numbers.shape}" if numbers.shape != shape else "are not all finite"
        raise StructureError(f"{name} {got}, expected {shape} finite numbers. Correct or remove them.")
    return numbers


def _read_pymatgen(structure: "IStructure") -> Record:
    if not structure.is_ordered:
        raise StructureError(f"{structure.formula} is disordered: each site must hold one whole atom.")
    masses = np.array([float(site.specie.atomic_mass) for site in structure])
    properties = structure.site_properties
    velocities = properties.get("velocities")
    flags = properties.get("selective_dynamics", [None] * len(masses))
    return Record(
        positions=np.array(structure.cart_coords, dtype=float),
        cell=np.array(structure.lattice.matrix, dtype=float),
        pbc=np.array(structure.pbc, dtype=bool),
        atomic_numbers=np.array([site.specie.Z for site in structure]),
        masses=masses,
        magmoms=_pymatgen_magmoms(structure),
        momenta=None if velocities is None else _pymatgen_momenta(velocities, masses),
        fixed=fixed_from_selective_dynamics(flags, structure.formula, structure.lattice.matrix),
    )


def _pymatgen_momenta(velocities: Sequence[Any], masses: Float[np.ndarray, " n_atoms"]) -> np.ndarray:
    """Convert velocities in Å/fs; sites without one are at rest."""
    vectors = np.array([(0.0, 0.0, 0.0) if velocity is None else velocity for velocity in velocities])
    return vectors * ANGSTROM_PER_FS * masses[:, None]


def _pymatgen_magmoms(structure: "IStructure") -> Float[np.ndarray, "n_atoms 3"]:
    """Read moments from site properties (numbers, vectors, Magmom objects of any spin axis) or species."""
    for name in MAGMOM_ARRAYS:
        moments = structure.site_properties.get(name)
        if moments is not None:
            break
    else:
        name, moments = "spin", [getattr(site.specie, "spin", None) for site in structure]
    missing = [index for index, moment in enumerate(moments) if moment is None]
    if len(missing) == len(moments):
        raise MissingMomentsError(
            f"site {missing[0]} of {structure.formula} carries no magnetic moment. Set them all with "
            'structure.add_site_property("magmom", moments); all zeros mean a non-magnetic start.'
        )
    moments = [
        0.0 if moment is None else moment for moment in moments
    ]  # enumerators leave oxygen without one
    vectors = [np.atleast_1d(getattr(moment, "global_moment", moment)) for moment in moments]
    vectors = [np.array([0.0, 0.0, vector[0]]) if vector.shape == (1,) else vector for vector in vectors]
    return check_magmoms(vectors, len(structure), source=f"site property {name} of {structure.formula}")


def _read_phonopy(atoms: "PhonopyAtoms") -> Record:
    if atoms.magnetic_moments is None:
        raise MissingMomentsError(
            f"the phonopy structure {''.join(atoms.symbols)} carries no magnetic_moments; all zeros mean a "
            "non-magnetic start."
        )
    return Record(
        positions=np.array(atoms.positions, dtype=float),
        cell=np.array(atoms.cell, dtype=float),
        pbc=np.ones(3, dtype=bool),
        atomic_numbers=np.array(atoms.numbers),
        masses=np.array(atoms.masses, dtype=float),
        magmoms=check_magmoms(atoms.magnetic_moments, len(atoms), source="magnetic_moments"),
        momenta=None,
        fixed=Fixed(np.zeros(len(atoms), dtype=bool)),
    )
