"""The energy of a model as what Monte Carlo samples: many supercells, each at its own temperature."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float
from torch import Tensor, nn

from mmace_sim.errors import StructureError, UnsupportedElementError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.graph.batch import MagneticGraph, build_graph
from mmace_sim.model.derivatives import evaluate
from mmace_sim.sampling.chains import Chain, block_generator
from mmace_sim.structures.magnetic_order import INDUCED_TOL, MOMENT_TOL, MagneticOrder, classify_order
from mmace_sim.units import BOLTZMANN_EV_PER_K

RECORDS: tuple[str, ...] = ("energy", "order", "magnetization", "length", "acceptance", "volume")
"""What samplers of a model observe: see `Supercells.observe`."""


class Supercells:
    """Supercells of one crystal, one for each size and chain, and their energies.

    On the CPU every supercell is evaluated alone, so that its result does not depend on the others to the last bit;
    on a GPU all are one batch.

    Args:
        model: An energy model.
        supercells: One for each size, with moments in a collinear reference order.
        chains: Temperature and replica of each chain.

    Attributes:
        n_atoms: Atoms of each size.
        n_spins: Those of them that have a moment in the reference order.

    Raises:
        StructureError: If the order is not collinear.
        UnsupportedElementError: If the model does not know an element.
    """

    def __init__(self, model: nn.Module, supercells: Sequence[Atoms], chains: Sequence[Chain]) -> None:
        self.model, self.chains = model, list(chains)
        self.n_atoms = [len(atoms) for atoms in supercells]
        images = [atoms for atoms in supercells for _ in chains]
        self.sizes = [len(atoms) for atoms in images]
        self.pbc = torch.as_tensor(np.stack([atoms.pbc for atoms in images]))
        self.numbers = [torch.as_tensor(atoms.numbers, device=model.device) for atoms in images]
        for numbers in self.numbers:
            if (model.species_table[numbers] < 0).any():
                raise UnsupportedElementError(f"the model knows the elements {model.elements} only.")
        self.positions = [self._tensor(atoms.positions) for atoms in images]
        self.cells = [self._tensor(atoms.cell.array) for atoms in images]
        self.moments = [self._tensor(get_magmoms(atoms)) for atoms in images]
        self._signs = [reference_signs(atoms) for atoms in supercells for _ in chains]
        self.n_spins = [int(np.count_nonzero(reference_signs(atoms))) for atoms in supercells]
        temperatures = torch.tensor([chain.temperature for chain in chains], dtype=torch.float64)
        self.beta = (1 / (BOLTZMANN_EV_PER_K * temperatures)).repeat(len(supercells)).to(model.device)
        self._graphs: dict[tuple[int, ...], MagneticGraph] = {}

    def __len__(self) -> int:
        return len(self.sizes)

    def _tensor(self, values: np.ndarray) -> Float[Tensor, "..."]:
        return torch.as_tensor(values, dtype=self.model.dtype, device=self.model.device)

    def batches(self) -> list[tuple[int, ...]]:
        """Supercells that are evaluated together."""
        if self.model.device.type == "cpu":
            return [(k,) for k in range(len(self))]
        return [tuple(range(len(self)))]

    def evaluate(
        self,
        moments: Sequence[Float[Tensor, "_n 3"]],
        positions: Sequence[Float[Tensor, "_n 3"]] | None = None,
        cells: Sequence[Float[Tensor, "3 3"]] | None = None,
        *,
        gradients: bool = True,
    ) -> tuple[Float[Tensor, " n_systems"], list[Tensor], list[Tensor]]:
        """Energies and their negative gradients.

        Args:
            moments: Of each supercell, in μB.
            positions: In Å, with forces; None: the atoms are where they were, and no forces.
            cells: In Å; None: unchanged.
            gradients: Whether gradients are needed.

        Returns:
            Energies in eV, magforces in eV/μB, forces in eV/Å; empty lists of what was not asked for.
        """
        energies, magforces, forces = [], [], []
        moving = positions is not None
        for batch in self.batches():
            graph = self._graph(batch, moments, positions, cells)
            with torch.set_grad_enabled(gradients):
                out = evaluate(
                    self.model,
                    graph,
                    compute_forces=moving and gradients,
                    compute_stress=False,
                    compute_magforces=gradients,
                )
            sizes = [self.sizes[k] for k in batch]
            energies.append(out["energy"])
            magforces += out["magforces"].split(sizes) if gradients else ()
            forces += out["forces"].split(sizes) if moving and gradients else ()
        return torch.cat(energies), magforces, forces

    def batch_graph(self, members: tuple[int, ...]) -> MagneticGraph:
        """Some supercells as one graph.

        Args:
            members: Their numbers.
        """
        return self._graph(members, self.moments, None, None)

    def _graph(
        self,
        batch: tuple[int, ...],
        moments: Sequence[Tensor],
        positions: Sequence[Tensor] | None,
        cells: Sequence[Tensor] | None,
    ) -> MagneticGraph:
        """The graph; kept while atoms do not move."""
        spins = torch.cat([moments[k] for k in batch])
        if positions is None and batch in self._graphs:
            return replace(self._graphs[batch], magmoms=spins)
        where, boxes = positions or self.positions, cells or self.cells
        index = torch.arange(len(batch)).repeat_interleave(torch.tensor([self.sizes[k] for k in batch]))
        graph = build_graph(
            torch.cat([where[k] for k in batch]),
            torch.stack([boxes[k] for k in batch]),
            self.pbc[list(batch)].to(spins.device),
            torch.cat([self.numbers[k] for k in batch]),
            spins,
            index.to(spins.device),
            self.model.r_max,
        )
        if positions is None:
            self._graphs[batch] = graph
        return graph

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
        rows = []
        for k, (moments, signs, n) in enumerate(zip(self.moments, self._signs, self.sizes, strict=True)):
            m = moments.double().cpu().numpy()
            lengths = np.linalg.norm(m, axis=1)
            magnetic = signs != 0
            n_spins = magnetic.sum()
            unit = m[magnetic] / lengths[magnetic, None].clip(min=1e-12)
            order = np.linalg.norm((signs[magnetic, None] * unit).sum(axis=0)) / n_spins
            total = np.linalg.norm(m.sum(axis=0)) / n_spins
            volume = float(torch.linalg.det(self.cells[k].double()).abs()) / n
            mean = lengths[magnetic].mean()
            rows.append([float(energies[k]) / n_spins, order, total, mean, float(acceptance[k]), volume])
        return np.array(rows).T.reshape(len(RECORDS), len(self.n_atoms), len(self.chains))

    def state(self) -> dict[str, np.ndarray]:
        """Moments, positions and cells of all supercells."""
        return {
            "moments": torch.cat(self.moments).cpu().numpy(),
            "positions": torch.cat(self.positions).cpu().numpy(),
            "cells": torch.stack(self.cells).cpu().numpy(),
        }

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state` gave.

        Args:
            state: Moments, positions and cells.
        """
        self.moments = list(self._tensor(state["moments"]).split(self.sizes))
        self.positions = list(self._tensor(state["positions"]).split(self.sizes))
        self.cells = list(self._tensor(state["cells"]))
        self._graphs = {}


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
