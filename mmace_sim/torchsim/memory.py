"""How many atoms fit into one batch."""

import math
import os

import torch
from torch_sim.autobatching import calculate_memory_scalers
from torch_sim.state import SimState

from mmace_sim.model.config import ArchitectureConfig
from mmace_sim.torchsim.model import MagneticMaceModel

CPU_EDGES: int = 30_000
"""Pairs per batch on a CPU: enough to hide the cost of each call, few enough for the caches."""

TOY_BYTES_PER_EDGE: float = 1000.0
"""For energy models that are not networks."""

CUDA_SHARE: float = 0.7
"""Share of the free memory of a GPU that one batch may take."""

_PADDING: float = 2.0  # Å, around the atoms where a structure is not periodic


def bytes_per_edge(config: ArchitectureConfig, dtype: torch.dtype) -> float:
    """Estimate of the memory that one neighbour pair takes in a forward and backward pass.

    Counts the arrays kept for the backward pass (radial network, weights of the convolutions, harmonics), their
    gradients, and the share of an atom's arrays at 50 pairs per atom.

    Args:
        config: Hyper-parameters of the model.
        dtype: Floating-point type.
    """
    K, n_lm = config.num_channels, (config.max_ell + 1) ** 2
    edge = 3 * sum(config.radial_mlp) + config.convolution_floats + 4 * n_lm
    atom = K * (3 * n_lm + n_lm * (n_lm + 1) // 2 + 4 * n_lm) / 50
    size = torch.finfo(dtype).bits // 8
    return 2.0 * size * config.num_interactions * (edge + atom)


def estimate_max_memory_scaler(model: MagneticMaceModel) -> float:
    """Largest Σ n_atoms × density (atoms/nm³) of a batch, in the unit of TorchSim's autobatchers.

    Pass it as ``max_memory_scaler`` with ``memory_scales_with="n_atoms_x_density"``; TorchSim's own estimate needs
    a GPU.

    Args:
        model: Model on the device that will run.
    """
    config = getattr(model.model, "config", None)
    per_edge = TOY_BYTES_PER_EDGE if config is None else bytes_per_edge(config, model.dtype)
    if model.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(model.device)
        edges = CUDA_SHARE * free / per_edge
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        edges = min(CPU_EDGES, 0.5 * memory / per_edge)
    sphere = 4.0 / 3.0 * math.pi * (model.model.r_max / 10.0) ** 3
    return edges / sphere


def memory_scaler(state: SimState) -> float:
    """Σ n_atoms × density of a state, in atoms²/nm³.

    TorchSim takes the extent of the atoms for the volume of what is not a crystal, which is zero for a flat layer; here
    it is the length of the cell vector where a structure is periodic.
    """
    pbc = torch.as_tensor(state.pbc).expand(3).to(state.positions.device)
    if bool(pbc.all()):
        return float(sum(calculate_memory_scalers(state, "n_atoms_x_density")))
    lengths = torch.linalg.norm(state.row_vector_cell, dim=2)
    total = 0.0
    for system, count in enumerate(state.n_atoms_per_system.tolist()):
        positions = state.positions[state.system_idx == system]
        extent = positions.amax(dim=0) - positions.amin(dim=0) + _PADDING
        total += count**2 / float(torch.where(pbc, lengths[system], extent).prod() / 1000.0)
    return total
