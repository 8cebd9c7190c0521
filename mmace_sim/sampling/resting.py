"""Energies and magforces of supercells whose atoms rest: what their distances decide is computed once."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmace_sim.graph.batch import MagneticGraph
from mmace_sim.model.pair_sums import PairSums, PairTable
from mmace_sim.sampling.environments import Environments, find_environments


@dataclass
class RestingAtoms:
    """Supercells of a model in two parts, `PairSums`.

    If lengths of moments stay as they are, so does all that depends on them; in crystals atoms with the same
    surroundings then share one matrix. A gradient by directions costs a tenth of one by the model itself, a gradient by
    directions and lengths two fifths.

    Args:
        terms: The model in two parts.
        graph: Positions, elements, and moments whose lengths may stay.
        table: Pairs of the graph; those of another with the same positions will do.
    """

    terms: PairSums
    graph: MagneticGraph
    table: PairTable
    _of_lengths: list[Tensor] = field(default_factory=list)
    _environments: Environments | None = None

    def evaluate(
        self, moments: Float[Tensor, "n_atoms 3"], *, gradients: bool = True, same_lengths: bool = False
    ) -> dict[str, Tensor]:
        """Energies and magforces, as `mmace_sim.model.derivatives.evaluate` gives them.

        Args:
            moments: Of all atoms, in μB.
            gradients: Whether magforces are needed.
            same_lengths: Whether |m| is that of the graph; magforces along the moments are none then.

        Returns:
            "energy" (n_systems,) in eV and float64; "magforces" (n_atoms, 3) in eV/μB if asked for.
        """
        with torch.inference_mode(mode=False), torch.set_grad_enabled(gradients):
            magmoms = moments.detach().clone().requires_grad_(gradients)
            energies = self._energies(magmoms, same_lengths)
            if not gradients:
                return {"energy": energies}
            (gradient,) = torch.autograd.grad(energies.sum(), magmoms)
        return {"energy": energies.detach(), "magforces": -gradient}

    def _energies(
        self, magmoms: Float[Tensor, "n_atoms 3"], same_lengths: bool
    ) -> Float[Tensor, " n_systems"]:
        terms, graph = self.terms, self.graph
        species = terms.model.species_table[graph.atomic_numbers]
        sums = (
            self._of_directions(magmoms, species)
            if same_lengths
            else terms.sums(magmoms, species, self.table)
        )
        energies = terms.energies(sums, magmoms, species)
        return energies.new_zeros(graph.n_systems).index_add(0, graph.system_idx, energies)

    def _of_directions(
        self, magmoms: Float[Tensor, "n_atoms 3"], species: Int[Tensor, " n_atoms"]
    ) -> list[Tensor]:
        """All sums, of which those that depend on lengths are kept."""
        terms = self.terms
        if not self._of_lengths:
            now = self.graph.magmoms
            with torch.no_grad():
                self._of_lengths = terms.sums(now, species, self.table)[: terms.n_length_sums]
                found = find_environments(terms, self.graph, now)
                self._environments = Environments(terms, self.graph, now, found) if found else None
        if self._environments is not None:
            return self._of_lengths + self._environments.sums(magmoms)
        return self._of_lengths + terms.sums(magmoms, species, self.table, directions_only=True)
