"""The energy of a model as what Monte Carlo samples: many supercells, each at its own temperature."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmace_sim.base.devices import uploaded
from mmace_sim.base.hosts import ts
from mmace_sim.errors import StructureError, UnsupportedElementError
from mmace_sim.graph.atoms import bare_copy, get_magmoms
from mmace_sim.graph.batch import MagneticGraph, build_graph
from mmace_sim.model.derivatives import evaluate
from mmace_sim.model.pair_sums import PairSums
from mmace_sim.sampling.chains import Chain, block_generator
from mmace_sim.sampling.resting import RestingAtoms
from mmace_sim.structures.magnetic_order import INDUCED_TOL, MOMENT_TOL, MagneticOrder, classify_order
from mmace_sim.torchsim.memory import estimate_max_memory_scaler
from mmace_sim.torchsim.model import MagneticMaceModel
from mmace_sim.torchsim.pairs import PairKeeper
from mmace_sim.torchsim.trial import trial_state
from mmace_sim.units import BOLTZMANN_EV_PER_K

RECORDS: tuple[str, ...] = ("energy", "order", "magnetization", "length", "acceptance", "volume")
"""What samplers of a model observe: see `Supercells.observe`."""


class Supercells:
    """Supercells of one crystal, one for each size and chain, and their energies: one state of all, as in TorchSim.

    On the CPU every supercell is evaluated alone, so that its result does not depend on the others to the last bit;
    on a GPU as many together as its memory takes.

    Args:
        model: An energy model.
        supercells: One for each size, with moments in a collinear reference order.
        chains: Temperature and replica of each chain.

    Attributes:
        n_atoms: Atoms of each size.
        n_spins: Those of them that have a moment in the reference order.
        sizes: Atoms of each supercell.
        system_idx: Supercell of each atom.
        moments: Of all atoms, in μB.
        reference: As they were at the start; moments of fixed length stay as long.
        positions: Of all atoms, in Å.
        cells: Cell vectors of each supercell as rows, in Å.
        beta: 1/kT of each supercell, in 1/eV.

    Raises:
        StructureError: If the order is not collinear.
        UnsupportedElementError: If the model does not know an element.
    """

    def __init__(self, model: nn.Module, supercells: Sequence[Atoms], chains: Sequence[Chain]) -> None:
        self.model, self.chains = model, list(chains)
        self.n_atoms = [len(atoms) for atoms in supercells]
        images = [atoms for atoms in supercells for _ in chains]
        self.sizes = [len(atoms) for atoms in images]
        numbers = torch.as_tensor(np.concatenate([atoms.numbers for atoms in images]), device=model.device)
        if (model.species_table[numbers] < 0).any():
            raise UnsupportedElementError(f"the model knows the elements {model.elements} only.")
        counts = torch.tensor(self.sizes)
        self.system_idx = torch.arange(len(images)).repeat_interleave(counts).to(model.device)
        self.positions = self._tensor(np.concatenate([atoms.positions for atoms in images]))
        self.cells = self._tensor(np.stack([atoms.cell.array for atoms in images]))
        self.moments = self._tensor(np.concatenate([get_magmoms(atoms) for atoms in images]))
        self.reference = self.moments
        self._numbers, self._pbc = numbers, torch.as_tensor(images[0].pbc, device=model.device)
        self._signs = [reference_signs(atoms) for atoms in supercells for _ in chains]
        self.n_spins = [int(np.count_nonzero(reference_signs(atoms))) for atoms in supercells]
        temperatures = torch.tensor([chain.temperature for chain in chains], dtype=torch.float64)
        self.beta = (1 / (BOLTZMANN_EV_PER_K * temperatures)).repeat(len(supercells)).to(model.device)
        self._scalers = [len(atoms) ** 2 / (atoms.cell.volume / 1000.0) for atoms in images]
        self._parts: list[_Part] = []

    def __len__(self) -> int:
        return len(self.sizes)

    def _tensor(self, values: np.ndarray) -> Float[Tensor, "..."]:
        return torch.as_tensor(values, dtype=self.model.dtype, device=self.model.device)

    def batches(self) -> list[range]:
        """Supercells that are evaluated together."""
        if self.model.device.type == "cpu":
            return [range(k, k + 1) for k in range(len(self))]
        limit = estimate_max_memory_scaler(MagneticMaceModel(self.model))
        found, start, total = [], 0, 0.0
        for k, scaler in enumerate(self._scalers):
            if k > start and total + scaler > limit:
                found.append(range(start, k))
                start, total = k, 0.0
            total += scaler
        return [*found, range(start, len(self))]

    def evaluate(
        self,
        moments: Float[Tensor, "n_atoms 3"],
        positions: Float[Tensor, "n_atoms 3"] | None = None,
        cells: Float[Tensor, "n_systems 3 3"] | None = None,
        *,
        gradients: bool = True,
        same_lengths: bool = False,
    ) -> tuple[Float[Tensor, " n_systems"], Tensor, Tensor]:
        """Energies and their negative gradients.

        Where atoms rest and the model has one layer, what distances decide is computed once.

        Args:
            moments: Of all atoms, in μB.
            positions: In Å, with forces; None: the atoms are where they were, and no forces.
            cells: In Å; None: unchanged.
            gradients: Whether gradients are needed.
            same_lengths: Whether moments are as long as the reference; only the part of magforces that turns them
                is needed then.

        Returns:
            Energies in eV, magforces in eV/μB, forces in eV/Å; empty tensors of what was not asked for.
        """
        self._parts = self._parts or [self._part(batch) for batch in self.batches()]
        if positions is None and cells is None:
            self._rest()
        outs = [
            part.evaluate(
                self.model, moments, positions, cells, gradients=gradients, same_lengths=same_lengths
            )
            for part in self._parts
        ]
        nothing = moments.new_zeros(0, 3)
        return (
            torch.cat([out["energy"] for out in outs]),
            torch.cat([out.get("magforces", nothing) for out in outs]),
            torch.cat([out.get("forces", nothing) for out in outs]),
        )

    def _rest(self) -> None:
        """Compute once what distances decide, if the model offers that; equal supercells share it."""
        if self._parts[0].resting is not None or not PairSums.offered_by(self.model):
            return
        terms, known = PairSums(self.model), list[RestingAtoms]()
        for part in self._parts:
            graph = part.pairs.graph(part.state, self.reference[part.atoms])
            same = [resting.table for resting in known if _same_places(resting.graph, graph)]
            part.resting = RestingAtoms(terms, graph, same[0] if same else terms.table(graph))
            known.append(part.resting)

    def _part(self, batch: range) -> "_Part":
        """Supercells that are evaluated together, with pairs of their own."""
        first = sum(self.sizes[: batch.start])
        atoms = slice(first, first + sum(self.sizes[k] for k in batch))
        systems = slice(batch.start, batch.stop)
        state = ts.SimState(
            positions=self.positions[atoms],
            masses=torch.ones_like(self.positions[atoms, 0]),
            cell=self.cells[systems].mT.contiguous(),
            pbc=self._pbc,
            atomic_numbers=self._numbers[atoms],
            system_idx=self.system_idx[atoms] - batch.start,
        )
        return _Part(atoms, systems, state, PairKeeper(self.model.r_max))

    def atoms_of(self, members: Sequence[int]) -> Bool[Tensor, " n_atoms"]:
        """Which atoms belong to some supercells.

        Args:
            members: Their numbers.
        """
        return torch.isin(self.system_idx, torch.tensor(list(members), device=self.system_idx.device))

    def batch_graph(self, members: Sequence[int]) -> MagneticGraph:
        """Some supercells as one graph.

        Args:
            members: Their numbers, ascending.
        """
        rows = self.atoms_of(members)
        counts = torch.tensor([self.sizes[k] for k in members])
        return build_graph(
            self.positions[rows],
            self.cells[list(members)],
            self._pbc.expand(len(members), 3),
            self._numbers[rows],
            self.moments[rows],
            torch.arange(len(members)).repeat_interleave(counts).to(self.system_idx.device),
            self.model.r_max,
        )

    def images(self) -> list[Atoms]:
        """All supercells as they are now, with their moments and nothing else."""
        atoms = np.cumsum(self.sizes)[:-1]
        numbers, positions, moments = (
            np.split(of_all.cpu().numpy(), atoms) for of_all in (self._numbers, self.positions, self.moments)
        )
        pbc = self._pbc.cpu().numpy()
        return [
            bare_copy(Atoms(numbers=z, positions=r, cell=cell, pbc=pbc), m)
            for z, r, m, cell in zip(numbers, positions, moments, self.cells.cpu().numpy(), strict=True)
        ]

    def generators(self, block: int) -> list[torch.Generator]:
        """Random numbers of each supercell in one block.

        Args:
            block: Number of the block.
        """
        chains = self.chains * len(self.n_atoms)
        return [
            block_generator(chain, n, block, torch.device("cpu"))
            for chain, n in zip(chains, self.sizes, strict=True)
        ]

    def observe(
        self, energies: Float[Tensor, " n_systems"], acceptance: Float[Tensor, " n_systems"]
    ) -> Float[np.ndarray, "n_records n_sizes n_chains"]:
        """Observables of all supercells.

        Args:
            energies: In eV.
            acceptance: Fraction of accepted moves.

        Returns:
            Of the n atoms with a moment in the reference order: "order" |Σ s_i m̂_i|/n, "length" mean |m| in μB; the
            whole divided by n: "energy" in eV, "magnetization" |Σ m_i| in μB. "volume" in Å³ per atom, "acceptance".
        """
        rows, moments = [], np.split(self.moments.double().cpu().numpy(), np.cumsum(self.sizes)[:-1])
        volumes = torch.linalg.det(self.cells.double()).abs()
        acceptance = uploaded(acceptance.double(), volumes.device)
        of_systems = torch.stack([energies.double(), acceptance, volumes], dim=1).tolist()
        of_all = zip(moments, of_systems, self._signs, self.sizes, strict=True)
        for m, (energy, rate, volume), signs, n in of_all:
            lengths = np.linalg.norm(m, axis=1)
            magnetic = signs != 0
            n_spins = magnetic.sum()
            unit = m[magnetic] / lengths[magnetic, None].clip(min=1e-12)
            order = np.linalg.norm((signs[magnetic, None] * unit).sum(axis=0)) / n_spins
            total = np.linalg.norm(m.sum(axis=0)) / n_spins
            mean = lengths[magnetic].mean()
            rows.append([energy / n_spins, order, total, mean, rate, volume / n])
        return np.array(rows).T.reshape(len(RECORDS), len(self.n_atoms), len(self.chains))

    def state(self) -> dict[str, np.ndarray]:
        """Moments, positions and cells of all supercells."""
        return {
            "moments": self.moments.cpu().numpy(),
            "reference": self.reference.cpu().numpy(),
            "positions": self.positions.cpu().numpy(),
            "cells": self.cells.cpu().numpy(),
        }

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state` gave.

        Args:
            state: Moments, positions and cells.
        """
        self.moments = self._tensor(state["moments"])
        self.reference = self._tensor(state.get("reference", state["moments"]))  # older files have none
        self.positions = self._tensor(state["positions"])
        self.cells = self._tensor(state["cells"])
        self._parts = []


@dataclass
class _Part:
    """Supercells that are evaluated together.

    Attributes:
        atoms: Their atoms among all.
        systems: Their numbers.
        state: As they were at the start.
        pairs: Their pairs, kept while nothing moves.
        resting: Their energies while their atoms rest, if the model offers that.
    """

    atoms: slice
    systems: slice
    state: ts.SimState
    pairs: PairKeeper
    resting: RestingAtoms | None = None

    def evaluate(
        self,
        model: nn.Module,
        moments: Float[Tensor, "n_atoms 3"],
        positions: Float[Tensor, "n_atoms 3"] | None,
        cells: Float[Tensor, "n_systems 3 3"] | None,
        *,
        gradients: bool,
        same_lengths: bool,
    ) -> dict[str, Tensor]:
        """See `Supercells.evaluate`, whose arrays these are."""
        magmoms = moments[self.atoms]
        if self.resting is not None and positions is None and cells is None:
            return self.resting.evaluate(magmoms, gradients=gradients, same_lengths=same_lengths)
        where = None if positions is None else positions[self.atoms]
        boxes = None if cells is None else cells[self.systems].mT
        state = trial_state(self.state, magmoms, positions=where, cell=boxes)
        return evaluate(
            model,
            self.pairs.graph(state, magmoms),
            compute_forces=positions is not None and gradients,
            compute_stress=False,
            compute_magforces=gradients,
        )


def _same_places(first: MagneticGraph, second: MagneticGraph) -> bool:
    """Whether two graphs differ in their moments only."""
    keys = ("positions", "cell", "atomic_numbers", "edge_index", "edge_shifts")
    return all(torch.equal(getattr(first, key), getattr(second, key)) for key in keys)


def reference_signs(atoms: Atoms) -> Float[np.ndarray, " n_atoms"]:
    """+1, −1, or 0 for atoms without a moment of their own.

    Args:
        atoms: Structure with moments.

    Raises:
        StructureError: If it is not collinear, or not magnetic.
    """
    moments = get_magmoms(atoms)
    order = classify_order(moments)
    if order in (MagneticOrder.NON_COLLINEAR, MagneticOrder.NON_MAGNETIC):
        raise StructureError(
            f"the order parameter needs a collinear magnetic order, got one that is {order}. "
            "Choose the order with --initial-magmoms."
        )
    lengths = np.linalg.norm(moments, axis=1)
    along = moments @ moments[np.argmax(lengths)]
    small = lengths < max(MOMENT_TOL, INDUCED_TOL * lengths.max())
    return np.where(small, 0.0, np.sign(along))
