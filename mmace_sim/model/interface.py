"""What everything downstream of an energy model asks of it: ours, a toy with known answers, or one of a plugin."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Potential(Protocol):
    """Energies of a batch of structures with moments, from which derivatives, TorchSim and ASE take the rest.

    It is called as ``model(graph, edge_vectors)`` with a `mmace_sim.graph.batch.MagneticGraph`, and returns "energy"
    and "node_energy" in eV.
    """

    @property
    def elements(self) -> list[int]:
        """Atomic numbers that it knows."""

    @property
    def r_max(self) -> float:
        """Cutoff radius, in Å."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of what it computes with."""

    @property
    def device(self) -> torch.device:
        """Where it is."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Energies of a batch."""

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """The model on another device or in another floating-point type."""
