"""Energies that no matter has: what stops a structure that runs away from the data of a model."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Float
from torch import Tensor

from mmace_sim.base.hosts import ts
from mmace_sim.graph.cells import has_volume
from mmace_sim.model.config import pair_name
from mmace_sim.model.data_range import DataRange, data_range
from mmace_sim.structures.checks import MIN_DISTANCE, closest_pair
from mmace_sim.torchsim.trial import count_atoms

ENERGY_MARGIN: float = 0.5
"""eV/atom below the lowest energy of the data, from which on a structure has run away. A phase that the data lack may
be lower than all of them by its energy of formation, at most some 0.3 eV/atom for magnetic metals, and the errors of a
model are some hundredths; what collapses falls by many eV."""

CROWDED_MARGIN: float = 0.05
"""The same, in eV/atom, if atoms are also closer than the data know: a few times the errors of a model."""

MIN_VOLUME: float = MIN_DISTANCE**3 / 2**0.5
"""Å³/atom: with less, even of spheres in closest packing some are closer than `MIN_DISTANCE`."""

REACH: float = 6.0
"""Atoms without any other within this distance, in Å, are alone."""

DISTANCES_ADVICE: str = (
    "The model does not know distances this short: start from larger ones, by a larger cell or by moving these atoms "
    "apart."
)
"""What to do about atoms that are too close."""

CROWDED: float = 0.95
"""Atoms closer than this part of the shortest distance of the data are closer than the data know."""

LOWEST_INTERACTION: float = -15.0
"""eV/atom above isolated atoms, where a model does not tell its data: tungsten, the strongest bound of all elements,
has −8.9."""


@dataclass(frozen=True)
class EnergyFloor:
    """The energies below which the results of a model mean nothing.

    Attributes:
        atomic_energies: E0 by atomic number, in eV.
        lowest: Lowest energy above isolated atoms, in eV/atom.
        crowded: The same, if atoms are closer than the data know; None if there is no such limit.
        data: The range of the data; None if the model does not tell.
    """

    atomic_energies: Float[Tensor, " n_numbers"]
    lowest: float
    crowded: float | None = None
    data: DataRange | None = None

    @classmethod
    def of(cls, model: object) -> "EnergyFloor":
        """The floor of a model; there is none for energies if it does not know those of its atoms, as a toy.

        Args:
            model: TorchSim model.
        """
        inner: Any = getattr(model, "model", None)
        energies = getattr(getattr(inner, "reference", None), "atomic_energies", None)
        table = torch.zeros(120, dtype=torch.float64)
        device = getattr(inner, "device", "cpu")
        if energies is None or not bool((energies != 0).any()):
            return cls(table.to(device), -float("inf"))
        table[torch.as_tensor(inner.elements)] = energies[: len(inner.elements)].detach().double().cpu()
        table = table.to(device)
        data = data_range(inner)
        if data is None:
            return cls(table, LOWEST_INTERACTION)
        low = data.interaction_energy_per_atom[0]
        return cls(table, low - ENERGY_MARGIN, low - CROWDED_MARGIN, data)

    def interaction(self, state: ts.SimState) -> Float[Tensor, " n_systems"]:
        """Energy of each system above isolated atoms, in eV/atom.

        Args:
            state: State with energies.
        """
        alone = self.atomic_energies.to(state.device)[state.atomic_numbers.long()]
        total = torch.zeros_like(state.energy, dtype=torch.float64).index_add(0, state.system_idx, alone)
        return (state.energy.double() - total) / count_atoms(state)

    def suspects(self, state: ts.SimState) -> Bool[Tensor, "n_systems 2"]:
        """Which systems have run away, and which have if their atoms are too close; the host reads nothing.

        Args:
            state: State with energies.
        """
        energies = self.interaction(state)
        crowded = -float("inf") if self.crowded is None else self.crowded
        return torch.stack([(energies < self.lowest) | self._is_dense(state), energies < crowded], dim=1)

    def confirmed(self, state: ts.SimState, gone: list[bool], crowded: list[bool]) -> list[bool]:
        """Which systems have run away, after looking at the atoms of those that are suspected.

        Args:
            state: State with energies.
            gone: First column of `suspects`.
            crowded: Second column.
        """
        return [
            a or (b and bool(self._too_close(_geometry(state[[k]]))))
            for k, (a, b) in enumerate(zip(gone, crowded, strict=True))
        ]

    def _is_dense(self, state: ts.SimState) -> Bool[Tensor, " n_systems"]:
        volumes = torch.linalg.det(state.cell).abs() / count_atoms(state)
        return (volumes < MIN_VOLUME) & state.pbc.all()

    def _too_close(self, atoms: Atoms) -> str:
        """The closest pair of atoms in words if it is closer than the data know, else ""."""
        pair = closest_pair(atoms, REACH)
        if self.data is None or pair is None:
            return ""
        symbols = atoms.get_chemical_symbols()
        first, second, distance = symbols[pair[0]], symbols[pair[1]], pair[2]
        known = self.data.shortest_distances.get(pair_name(first, second))
        if known is None or distance >= CROWDED * known:
            return ""
        return f"{first} and {second} are {distance:.2f} Å apart, at least {known:.2f} Å in the data of the model"

    def message(self, state: ts.SimState) -> str:
        """What to say about a single system that has run away.

        Args:
            state: Its state.
        """
        if bool(self._is_dense(state)):
            return f"the cell collapsed to less than {MIN_VOLUME:.2f} Å³/atom: no result. {DISTANCES_ADVICE}"
        low = None if self.data is None else self.data.interaction_energy_per_atom[0]
        known = (
            " above the atoms alone" if low is None else f" above the atoms alone, the data end at {low:.2f}"
        )
        text = f"the energy ran away to {float(self.interaction(state)):.2f} eV/atom{known}"
        atoms = _geometry(state)
        pair, close = closest_pair(atoms, REACH), self._too_close(atoms)
        if low is None and pair is not None:
            close = f"atoms {pair[0]} and {pair[1]} are {pair[2]:.2f} Å apart"
        if not close:
            return f"{text}: no result. The model does not know such a structure; use another model."
        return f"{text}; {close}: no result. {DISTANCES_ADVICE}"

    def outside(self, atoms: Atoms, energy: float, magmoms: Float[np.ndarray, "n_atoms 3"]) -> str:
        """Where a relaxed structure lies outside of the data, in words; "" if it does not, or the model does not tell.

        Args:
            atoms: Structure.
            energy: Its energy, in eV.
            magmoms: Its moments, in μB.
        """
        if self.data is None:
            return ""
        found = [self._too_close(atoms)] if self._too_close(atoms) else []
        alone = float(self.atomic_energies[atoms.numbers].sum())
        interaction, high = (energy - alone) / len(atoms), self.data.interaction_energy_per_atom[1]
        if interaction > high + CROWDED_MARGIN:
            found.append(f"its energy is {interaction - high:.2f} eV/atom above the highest of the data")
        found += self._outside_volume(atoms)
        lengths, symbols = np.linalg.norm(magmoms, axis=1), np.array(atoms.get_chemical_symbols())
        for symbol, largest in self.data.largest_moments.items():
            longest = float(lengths[symbols == symbol].max(initial=0.0))
            if longest > max(1.05 * largest, largest + 0.05):
                found.append(f"{symbol} has {longest:.2f} μB, at most {largest:.2f} μB in the data")
        return f"outside of what the model knows: {'; '.join(found)}." if found else ""

    def _outside_volume(self, atoms: Atoms) -> list[str]:
        if self.data is None or self.data.volume_per_atom is None:
            return []
        low, high = self.data.volume_per_atom
        volume = float(atoms.cell.volume) / len(atoms) if atoms.cell.rank == 3 else float("inf")
        if not has_volume(atoms):
            return [] if volume <= high else ["it has a surface, the data are crystals"]
        if 0.95 * low <= volume <= 1.05 * high:
            return []
        return [f"{volume:.2f} Å³/atom, {low:.2f} to {high:.2f} in the data"]


def _geometry(state: ts.SimState) -> Atoms:
    """Atoms and cell of a single system."""
    return Atoms(
        numbers=state.atomic_numbers.cpu().numpy(),
        positions=state.positions.double().cpu().numpy(),
        cell=state.row_vector_cell[0].double().cpu().numpy(),
        pbc=state.pbc.cpu().numpy(),
    )
