"""Energies from node features."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmace_sim.nn.ops import Mlp, Modules


class LinearReadout(nn.Module):
    """One linear map from the scalar channels to an energy.

    Args:
        n_channels: Number of scalar channels.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_channels))
        self.norm = 1.0 / math.sqrt(n_channels)

    def forward(self, scalars: Float[Tensor, "n_atoms n_channels"]) -> Float[Tensor, " n_atoms"]:
        """Energy of each atom, before the scale."""
        return scalars @ self.weight * self.norm


class NonLinearReadout(Mlp):
    """A small bias-free network from the scalar channels to an energy; zero features give zero.

    Args:
        n_channels: Number of scalar channels.
        n_hidden: Width of the hidden layer.
    """

    def __init__(self, n_channels: int, n_hidden: int) -> None:
        super().__init__([n_channels, n_hidden, 1])

    def forward(self, scalars: Float[Tensor, "n_atoms n_channels"]) -> Float[Tensor, " n_atoms"]:
        """Energy of each atom, before the scale."""
        return super().forward(scalars)[:, 0]


type Readout = LinearReadout | NonLinearReadout


def mace_readouts(n_channels: int, n_hidden: int, n_layers: int) -> Modules[Readout]:
    """Readouts as MACE has them: linear, the last one of several a small network.

    Args:
        n_channels: Number of scalar channels.
        n_hidden: Width of the network.
        n_layers: Number of layers.
    """
    return Modules(
        NonLinearReadout(n_channels, n_hidden) if 0 < k == n_layers - 1 else LinearReadout(n_channels)
        for k in range(n_layers)
    )
