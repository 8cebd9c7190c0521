"""Conversion between ASE, pymatgen, phonopy and TorchSim that cannot lose moments, velocities or constraints.

TorchSim's own converters drop moments unless they are asked for by name, drop those of a whole batch if one
structure has none, and drop velocities and constraints always. Ours raise instead. Moments live in the
per-atom extra ``magnetic_moments`` of a state. Momenta, if a structure has any, make it a `MovingState`, whose
``momenta`` TorchSim's integrators start from. Momenta have the same unit in ASE and in TorchSim, (amu eV)^½.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch_sim as ts
from ase import Atoms
from ase.data import atomic_masses, chemical_symbols
from jaxtyping import Bool, Float
from torch import Tensor

from mmace_sim.base.quantities import TORCHSIM_MAGMOMS
from mmace_sim.errors import MissingMomentsError, MomentShapeError, StructureError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.io.collection import read_files
from mmace_sim.torchsim.constraints import (
    constraints_to_torchsim,
    fixed_of_state,
    fixed_to_ase,
)
from mmace_sim.torchsim.records import ANGSTROM_PER_FS, Record, StructureLike, read_record

if TYPE_CHECKING:
    type StateLike = StructureLike | ts.SimState
    type StructuresLike = StateLike | str | Path | Iterable[StateLike | str | Path]
else:
    type StateLike = object  # what else there is, `read_record` says better
    type StructuresLike = object

MOMENTA = "momenta"


@dataclass(kw_only=True)
class MovingState(ts.SimState):
    """State whose atoms have velocities.

    TorchSim's integrators take over an attribute ``momenta`` of the state that they are given, but refuse an extra
    of that name.

    Attributes:
        momenta: In (amu eV)^½.
    """

    momenta: Tensor

    _atom_attributes = ts.SimState._atom_attributes | {MOMENTA}


def initialize_state(
    structures: StateLike | Sequence[StateLike],
    *,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> ts.SimState:
    """Convert structures into one TorchSim state that carries their moments.

    Args:
        structures: An ``ase.Atoms``, a pymatgen ``Structure``, a ``PhonopyAtoms``, a TorchSim state, or a
            list of these (kinds may be mixed). Moments are read from where each host keeps them: see
            `mmace_sim.graph.atoms.get_magmoms` for ASE; site property ``magmom``, else ``final_magmom``, else
            the spin of the species for pymatgen; ``magnetic_moments`` for phonopy. Collinear moments become
            vectors along z.
        device: Device of the state.
        dtype: Floating-point type of the state.

    Returns:
        State with moments in the per-atom extra ``magnetic_moments`` (μB) and constraints, see
        `mmace_sim.torchsim.constraints`.
        It is a `MovingState` if any structure has velocities (those without then are at rest,
        as in ASE).

    Raises:
        MissingMomentsError: If a structure carries no moments; the message names its index.
        MomentShapeError: If its moments have a wrong shape or number.
        StructureError: If there is no structure, one is empty or disordered, or periodic axes differ.
        UnsupportedConstraintError: If a structure has a constraint that cannot be honoured.
        TypeError: If an item is of another kind.
    """
    device = torch.get_default_device() if device is None else torch.device(device)
    if isinstance(structures, ts.SimState):
        state_magmoms(structures)
        return structures.clone().to(device, dtype)
    items: list[Any] = list(structures) if isinstance(structures, list | tuple) else [structures]
    if not items:
        raise StructureError("there is no structure to simulate: the list is empty.")
    if any(isinstance(item, ts.SimState) for item in items):
        return _join_states(items, device, dtype)
    records = []
    for index, item in enumerate(items):
        try:
            records.append(read_record(item))
        except StructureError as error:
            raise type(error)(f"structure {index}: {error}") from error
    _check_same_pbc([record.pbc for record in records])
    return _records_to_state(records, device, dtype)


def as_atoms(structures: StructuresLike) -> list[Atoms]:
    """Structures of any host, and those in files, as ASE structures; ASE structures are taken as they are.

    Args:
        structures: ASE, pymatgen or phonopy structures, names of files or folders, one or many, mixed.

    Raises:
        StructureError: If a file or a structure in it cannot be read.
    """
    is_one = isinstance(structures, Atoms | str | Path)
    is_one = is_one or hasattr(structures, "lattice") or hasattr(structures, "scaled_positions")
    items: Iterable[Any] = [structures] if is_one or not isinstance(structures, Iterable) else structures
    found: list[Atoms] = []
    for item in items:
        if isinstance(item, str | Path):
            found += read_files([item])
        elif isinstance(item, Atoms):
            found.append(item)
        else:
            found.append(state_to_atoms(initialize_state(item))[0])
    return found


def state_magmoms(state: ts.SimState) -> Float[Tensor, "n_atoms 3"]:
    """Return the moments of a state, or say why there are none.

    Returns:
        Its moments in μB, not copied.

    Raises:
        MissingMomentsError: If the state has no per-atom extra ``magnetic_moments``.
        MomentShapeError: If that is not one vector for each atom.
    """
    magmoms = state.atom_extras.get(TORCHSIM_MAGMOMS)
    if magmoms is None:
        raise MissingMomentsError(
            f"the TorchSim state has no per-atom extra {TORCHSIM_MAGMOMS!r}. TorchSim's own "
            "initialize_state drops "
            "moments: use mmace_sim.torchsim.initialize_state."
        )
    if magmoms.shape != (state.n_atoms, 3):
        raise MomentShapeError(
            f"{TORCHSIM_MAGMOMS} has shape {tuple(magmoms.shape)}, expected (n_atoms, 3) = "
            f"({state.n_atoms}, 3) in μB."
        )
    return magmoms


def state_to_atoms(state: ts.SimState, templates: Sequence[Atoms] | None = None) -> list[Atoms]:
    """Convert a state into ASE structures with their moments, velocities, masses and constraints.

    Args:
        state: TorchSim state with moments.
        templates: The structures that the state was made from. Their info, tags and further arrays are
            carried over.

    Returns:
        One structure for each system, moments in ``initial_magmoms`` (n_atoms, 3), without calculator.

    Raises:
        MissingMomentsError: If the state carries no moments.
        StructureError: If the templates are not those of the state.
    """
    records = _state_to_records(state)
    if templates is not None and len(templates) != len(records):
        raise StructureError(
            f"the state holds {len(records)} systems, but there are {len(templates)} templates."
        )
    return [
        _record_to_atoms(record, None if templates is None else templates[index], index)
        for index, record in enumerate(records)
    ]


def state_to_structures(state: ts.SimState) -> list[Any]:
    """Convert a state into pymatgen structures.

    Args:
        state: TorchSim state with moments.

    Returns:
        One ``Structure`` for each system with the site properties ``magmom`` (a `Magmom` each),
        ``velocities`` (Å/fs) if the state has momenta, and ``selective_dynamics`` if atoms are fixed.

    Raises:
        MissingMomentsError: If the state carries no moments.
    """
    from pymatgen.core import Lattice, Structure
    from pymatgen.electronic_structure.core import Magmom

    structures = []
    for record in _state_to_records(state):
        properties: dict[str, list] = {"magmom": [Magmom(moment) for moment in record.magmoms]}
        if record.momenta is not None:
            velocities = record.momenta / record.masses[:, None] / ANGSTROM_PER_FS
            properties["velocities"] = velocities.tolist()
        movable = record.fixed.free_axes & ~record.fixed.atoms[:, None]
        if not movable.all():
            properties["selective_dynamics"] = movable.tolist()
        structures.append(
            Structure(
                Lattice(record.cell, pbc=tuple(record.pbc.tolist())),
                [chemical_symbols[number] for number in record.atomic_numbers],
                record.positions,
                coords_are_cartesian=True,
                site_properties=properties,
            )
        )
    return structures


def state_to_phonopy(state: ts.SimState) -> list[Any]:
    """Convert a state into phonopy structures. These know moments and masses, not velocities or constraints.

    Args:
        state: TorchSim state with moments.

    Returns:
        One ``PhonopyAtoms`` for each system, ``magnetic_moments`` of shape (n_atoms, 3).

    Raises:
        MissingMomentsError: If the state carries no moments.
    """
    from phonopy.structure.atoms import PhonopyAtoms

    return [
        PhonopyAtoms(
            numbers=record.atomic_numbers,
            positions=record.positions,
            cell=record.cell,
            masses=record.masses,
            magnetic_moments=record.magmoms,
        )
        for record in _state_to_records(state)
    ]


def _join_states(items: Sequence[Any], device: torch.device, dtype: torch.dtype) -> ts.SimState:
    """Concatenate states after making sure that TorchSim will not misfile what one of them lacks."""
    states = []
    for index, item in enumerate(items):
        try:
            states.append(initialize_state(item, device=device, dtype=dtype))
        except StructureError as error:
            raise type(error)(f"structure {index}: {error}") from error
    _check_same_pbc([state.pbc.cpu().numpy() for state in states])
    return join_states(states)


def join_states(states: Sequence[ts.SimState]) -> ts.SimState:
    """Concatenate states of which some have velocities and some have none.

    Args:
        states: States of the same periodic axes.

    Returns:
        One state; where any had velocities, those without are at rest.
    """
    if any(isinstance(state, MovingState) for state in states):
        states = [_moving(state) for state in states]
    return ts.concatenate_states(list(states))


def _moving(state: ts.SimState) -> ts.SimState:
    """Put a plain state at rest."""
    if type(state) is not ts.SimState:
        return state
    return MovingState.from_state(state, momenta=torch.zeros_like(state.positions))


def _check_same_pbc(pbc: Sequence[Bool[np.ndarray, "3"]]) -> None:
    different = [index for index, flags in enumerate(pbc) if not np.array_equal(flags, pbc[0])]
    if different:
        raise StructureError(
            f"structures {different} have other periodic axes than structure 0 ({pbc[0].tolist()}); "
            "TorchSim needs "
            "the same axes within one batch: make one state for each kind."
        )


def _records_to_state(records: Sequence[Record], device: torch.device, dtype: torch.dtype) -> ts.SimState:
    def join(name: str, kind: torch.dtype = dtype) -> Tensor:
        arrays = np.concatenate([getattr(record, name) for record in records])
        return torch.as_tensor(arrays, dtype=kind, device=device)

    cells = np.stack([record.cell.T for record in records])  # TorchSim has column vectors
    counts = torch.tensor([len(record.positions) for record in records], device=device)
    state = ts.SimState(
        positions=join("positions"),
        masses=join("masses"),
        cell=torch.as_tensor(cells, dtype=dtype, device=device).contiguous(),
        pbc=torch.as_tensor(records[0].pbc, device=device),
        atomic_numbers=join("atomic_numbers", torch.int),
        system_idx=torch.repeat_interleave(torch.arange(len(records), device=device), counts),
        _constraints=constraints_to_torchsim([record.fixed for record in records], device),
        _atom_extras={TORCHSIM_MAGMOMS: join("magmoms")},
    )
    if all(record.momenta is None for record in records):
        return state
    at_rest = [np.zeros_like(r.positions) if r.momenta is None else r.momenta for r in records]
    momenta = torch.as_tensor(np.concatenate(at_rest), dtype=dtype, device=device)
    return MovingState.from_state(state, momenta=momenta)


def _state_to_records(state: ts.SimState) -> list[Record]:
    magmoms = _to_numpy(state_magmoms(state))
    momenta = getattr(state, MOMENTA, None)
    momenta = None if momenta is None else _to_numpy(momenta)
    positions, masses = _to_numpy(state.positions), _to_numpy(state.masses)
    cells = _to_numpy(state.cell).transpose(0, 2, 1)
    numbers, pbc = state.atomic_numbers.cpu().numpy(), state.pbc.cpu().numpy()
    fixed = fixed_of_state(state)
    ends = np.cumsum(state.n_atoms_per_system.cpu().numpy())
    records = []
    for index, (start, end) in enumerate(zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)):
        atoms = slice(start, end)
        records.append(
            Record(
                positions=positions[atoms],
                cell=cells[index],
                pbc=pbc,
                atomic_numbers=numbers[atoms],
                masses=masses[atoms],
                magmoms=magmoms[atoms],
                momenta=None if momenta is None else momenta[atoms],
                fixed=fixed[index],
            )
        )
    return records


def _to_numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).numpy()


def _record_to_atoms(record: Record, template: Atoms | None, index: int) -> Atoms:
    if template is None:
        atoms = Atoms(numbers=record.atomic_numbers)
    elif np.array_equal(template.get_atomic_numbers(), record.atomic_numbers):
        atoms = template.copy()
        atoms.set_constraint()
    else:
        raise StructureError(
            f"template {index} ({template.get_chemical_formula()}) does not hold the atoms of system {index} "
            f"({Atoms(numbers=record.atomic_numbers).get_chemical_formula()}) in the same order."
        )
    atoms.set_cell(record.cell)
    atoms.set_pbc(record.pbc)
    atoms.set_positions(record.positions)
    if not np.allclose(record.masses, atomic_masses[record.atomic_numbers], rtol=1e-6):
        atoms.set_masses(record.masses)
    if record.momenta is not None:
        atoms.set_momenta(record.momenta)
    set_magmoms(atoms, record.magmoms)
    atoms.set_constraint(fixed_to_ase(record.fixed))
    return atoms
