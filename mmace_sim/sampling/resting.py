"""Energies and magforces of supercells whose atoms rest: what their distances decide is computed once."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from mmace_sim.graph.batch import MagneticGraph
from mmace_sim.model.pair_sums import PairSums, PairTable


@dataclass
class RestingAtoms:
    """Supercells of a model in two parts, `PairSums`.

    A gradient by moments costs a fifth of one by the model itself if lengths stay as they are, else two fifths.

    Args:
        terms: The model in two parts.
        graph: Positions and elements.
        table: Pairs of the graph; those of another with the same positions will do.
    """

    terms: PairSums
    graph: MagneticGraph
    table: PairTable
    _of_lengths: list[Tensor] = field(default_factory=list)

    def evaluate(
        self, moments: Float[Tensor, "n_atoms 3"], *, gradients: bool = True, same_lengths: bool = False
    ) -> dict[str, Tensor]:
        """Energies and magforces, as `mmace_sim.model.derivatives.evaluate` gives them.

        Args:
            moments: Of all atoms, in μB.
            gradients: Whether magforces are needed.
            same_lengths: Whether |m| is the same in all calls; magforces along the moments are none then.

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
        if same_lengths and not self._of_lengths:
            with torch.no_grad():
                self._of_lengths = terms.sums(magmoms, species, self.table)[: terms.n_length_sums]
        kept = self._of_lengths if same_lengths else []
        sums = kept + terms.sums(magmoms, species, self.table, directions_only=same_lengths)
        energies = terms.energies(sums, magmoms, species)
        return energies.new_zeros(graph.n_systems).index_add(0, graph.system_idx, energies)
