"""Metropolis moves of single moments on the energy of a model: only atoms within its reach are evaluated again."""

from itertools import groupby
from typing import override

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmace_sim.base.devices import uploaded
from mmace_sim.sampling.chains import Sampler
from mmace_sim.sampling.local_energy import find_colors, local_energies, reach
from mmace_sim.sampling.surface import RECORDS, Supercells

_BATCH = 1024
"""Atoms that are evaluated at once, of several chains of the same size if those of one are fewer."""
_TARGET = 0.45
_GAIN = 0.2


class LocalMoves(Sampler):
    """Samples exp(−E/kT) by Metropolis moves of one moment each, color by color, at fixed atoms.

    A sweep moves every magnetic atom once. Fixed |m|: the direction plus a Gaussian step, normalised. Variable |m|:
    the moment plus a Gaussian step in ℝ³ (measure d³m). Steps adapt to an acceptance of 45 % while equilibrating.

    Args:
        cells: Supercells at their temperatures.
        lengths: "fixed" or "variable" |m|.
        step: First Gaussian step, in rad or μB.
        n_adapt: Sweeps in which steps adapt; they must not count.
    """

    records = RECORDS

    def __init__(
        self, cells: Supercells, *, lengths: str = "fixed", step: float = 0.3, n_adapt: int = 0
    ) -> None:
        self.cells, self.on_sphere, self.n_adapt, self.n_done = cells, lengths == "fixed", n_adapt, 0
        self.log_step = torch.full((len(cells),), float(np.log(step)), dtype=torch.float64)
        self._set_up()

    def _set_up(self) -> None:
        """Chains of each size in batches of equal numbers, and one of those that are left."""
        cells, self.local, self.members = self.cells, [], []
        n_chains = len(cells.chains)
        for first in range(0, len(cells), n_chains):
            graph = cells.batch_graph((first,))
            colors = find_colors(graph, reach(cells.model, graph))
            width = max(_BATCH // max(len(color.affected) for color in colors), 1)
            rows = [range(k, min(k + width, first + n_chains)) for k in range(first, first + n_chains, width)]
            for n, group in groupby([tuple(row) for row in rows], len):
                members = list(group)
                graphs = [cells.batch_graph(row) for row in members]
                copies = [color.repeated(n, graph.n_atoms) for color in colors]
                self.local += local_energies(cells.model, graphs, copies, fixed_lengths=self.on_sphere)
                self.members += members
        lengths = torch.linalg.norm(cells.reference.double(), dim=1)
        self.lengths = [lengths[cells.atoms_of(members)] for members in self.members]

    @override
    def _advance(self, block: int, n_sweeps: int) -> Float[np.ndarray, "n_sweeps n_records n_sizes n_chains"]:
        generators = self.cells.generators(block)
        for part in self.local:
            part.refresh()
        observed = []
        for _ in range(n_sweeps):
            rates = torch.cat([self._sweep(k, generators) for k in range(len(self.local))])
            if self.n_done < self.n_adapt:
                self.log_step += _GAIN * (rates - _TARGET)
            sizes = self.cells.sizes
            self.cells.moments = torch.cat([part.graph.magmoms for part in self.local])
            node_energies = torch.cat([part.node_energy for part in self.local]).double().split(sizes)
            energies = torch.stack([values.sum() for values in node_energies])
            observed.append(self.cells.observe(energies, rates))
            self.n_done += 1
        return np.array(observed)

    def _sweep(self, part: int, generators: list[torch.Generator]) -> Float[Tensor, " n_members"]:
        """One move of every atom of some supercells of the same size, and the fraction that was accepted in each."""
        local, members, lengths = self.local[part], self.members[part], self.lengths[part]
        n, own = len(members), [generators[k] for k in members]
        steps, beta = torch.exp(self.log_step[list(members)]), self.cells.beta[list(members)]
        accepted = torch.zeros(n, dtype=torch.float64)
        for c, color in enumerate(local.colors):
            old = local.graph.magmoms[color.atoms]
            shape = (len(old) // n, 3)
            noise = [
                s * torch.randn(shape, generator=g, dtype=torch.float64)
                for s, g in zip(steps, own, strict=True)
            ]
            uniform = torch.cat([torch.rand(shape[0], generator=g, dtype=torch.float64) for g in own])
            new = self._moved(
                old, uploaded(torch.cat(noise), old.device, dtype=old.dtype), lengths[color.atoms]
            )
            proposal = local.propose(c, new)
            weights = torch.exp(
                -beta.repeat_interleave(shape[0]) * proposal.changes.nan_to_num(nan=torch.inf)
            )
            flags = uploaded(uniform, old.device) < weights
            local.accept(c, new, flags, proposal)
            accepted += flags.view(n, -1).sum(dim=1).cpu()
        return accepted * n / local.graph.n_atoms

    def _moved(
        self, old: Float[Tensor, "n 3"], noise: Float[Tensor, "n 3"], lengths: Float[Tensor, " n"]
    ) -> Float[Tensor, "n 3"]:
        """Proposed moments; fixed lengths are those of the start, so that rounding does not shrink them."""
        if not self.on_sphere:
            return old + noise
        unit = torch.nn.functional.normalize(old.double(), dim=1) + noise
        return (lengths[:, None] * torch.nn.functional.normalize(unit, dim=1)).to(old)

    @override
    def state(self) -> dict[str, np.ndarray]:
        return self.cells.state() | {"log_step": self.log_step.numpy(), "n_done": np.array(self.n_done)}

    @override
    def load_state(self, state: dict[str, np.ndarray]) -> None:
        self.cells.load_state(state)
        self.log_step, self.n_done = torch.as_tensor(state["log_step"]), int(state["n_done"])
        self._set_up()
