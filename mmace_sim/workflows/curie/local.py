"""Metropolis moves of single moments on the energy of a model: only atoms within its reach are evaluated again."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmace_sim.workflows.curie.chains import by_record
from mmace_sim.workflows.curie.local_energy import LocalEnergy, local_energies
from mmace_sim.workflows.curie.surface import RECORDS, Supercells

_TARGET = 0.45
_GAIN = 0.2


class LocalMoves:
    """Samples exp(−E/kT) by Metropolis moves of one moment each, color by color, at fixed atoms.

    Fixed |m|: the direction plus a Gaussian step, normalised. Variable |m|: the moment plus a Gaussian step in ℝ³
    (measure d³m). Steps adapt to an acceptance of 45 % while equilibrating.

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
        model, n_chains = self.cells.model, len(self.cells.chains)
        graphs = [self.cells.single_graph(k) for k in range(len(self.cells))]
        self.local: list[LocalEnergy] = []
        for first in range(0, len(graphs), n_chains):
            same = graphs[first : first + n_chains]
            self.local += local_energies(model, same, fixed_lengths=self.on_sphere)

    def advance(self, block: int, n_sweeps: int) -> dict[str, Float[np.ndarray, "n_sweeps n_sizes n_chains"]]:
        """Run sweeps, each moving every magnetic atom once, and observe after each.

        Args:
            block: Number of the block, from 0; it decides the random numbers.
            n_sweeps: Sweeps.

        Returns:
            See `Supercells.observe`.
        """
        generators = self.cells.generators(block)
        for part in self.local:
            part.refresh()
        observed = []
        for _ in range(n_sweeps):
            rates = torch.tensor([self._sweep(k, g) for k, g in enumerate(generators)])
            if self.n_done < self.n_adapt:
                self.log_step += _GAIN * (rates - _TARGET)
            self.cells.moments = [part.graph.magmoms for part in self.local]
            energies = torch.stack([part.node_energy.double().sum() for part in self.local])
            observed.append(self.cells.observe(energies, rates))
            self.n_done += 1
        return by_record(self.records, np.array(observed))

    def _sweep(self, k: int, generator: torch.Generator) -> float:
        local, accepted = self.local[k], 0
        step, beta = float(torch.exp(self.log_step[k])), float(self.cells.beta[k])
        for c, color in enumerate(local.colors):
            old = local.graph.magmoms[color.atoms]
            noise = torch.randn(old.shape, generator=generator, dtype=torch.float64).to(old)
            uniform = torch.rand(len(old), generator=generator, dtype=torch.float64).to(old.device)
            new = self._moved(old, step * noise)
            proposal = local.propose(c, new)
            flags = uniform < torch.exp(-beta * proposal.changes.nan_to_num(nan=torch.inf))
            local.accept(c, new, flags, proposal)
            accepted += int(flags.sum())
        return accepted / local.graph.n_atoms

    def _moved(self, old: Float[Tensor, "n 3"], noise: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        if not self.on_sphere:
            return old + noise
        lengths = torch.linalg.norm(old, dim=1, keepdim=True)
        unit = old / lengths.clamp(min=1e-30) + noise
        return lengths * unit / torch.linalg.norm(unit, dim=1, keepdim=True)

    def state(self) -> dict[str, np.ndarray]:
        """Moments and steps."""
        return self.cells.state() | {"log_step": self.log_step.numpy(), "n_done": np.array(self.n_done)}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state` gave.

        Args:
            state: Moments and steps.
        """
        self.cells.load_state(state)
        self.log_step, self.n_done = torch.as_tensor(state["log_step"]), int(state["n_done"])
        self._set_up()
