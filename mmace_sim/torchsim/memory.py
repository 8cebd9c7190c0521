"""How many atoms fit into one batch."""

import math
from pathlib import Path

import torch
from torch_sim.state import SimState

from mmace_sim.errors import StructureError
from mmace_sim.model.config import ArchitectureConfig
from mmace_sim.torchsim.model import MagneticMaceModel
from mmace_sim.torchsim.trial import count_atoms

CPU_EDGES: int = 30_000
"""Pairs per batch on a CPU: enough to hide the cost of each call, few enough for the caches."""

TOY_BYTES_PER_EDGE: float = 1000.0
"""For energy models that are not networks."""

CUDA_SHARE: float = 0.7
"""Share of the free memory of a GPU that one batch may take."""

MEASURED_SHARE: float = 0.4
"""What a step really takes of the estimate of `bytes_per_edge`: measured 0.39–0.51 with `mmace-fe-pbe` on a CPU."""

ALWAYS_THERE: float = 4e6
"""Bytes that nobody asks the system for."""

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


def estimate_max_memory_scaler(model: object) -> float:
    """Largest Σ n_atoms × density (atoms/nm³) of a batch, in the unit of TorchSim's autobatchers.

    Pass it as ``max_memory_scaler`` with ``memory_scales_with="n_atoms_x_density"``; TorchSim's own estimate needs
    a GPU.

    Args:
        model: Model on the device that will run; one that is no `MagneticMaceModel` has no limit.
    """
    if not isinstance(model, MagneticMaceModel):
        return math.inf
    config = getattr(model.model, "config", None)
    per_edge = TOY_BYTES_PER_EDGE if config is None else bytes_per_edge(config, model.dtype)
    free = available_memory(model.device)
    edges = CUDA_SHARE * free / per_edge
    if model.device.type != "cuda":
        edges = min(CPU_EDGES, 0.5 * free / per_edge)
    return edges / sphere(model)


def check_memory(state: SimState, model: object) -> None:
    """Make sure that the memory suffices for a structure alone.

    Args:
        state: The structure.
        model: The model; one that is no `MagneticMaceModel`, or has no hyper-parameters, as a toy, is not checked.

    Raises:
        StructureError: If not; the message says what the structure needs.
    """
    if not isinstance(model, MagneticMaceModel) or (config := getattr(model.model, "config", None)) is None:
        return
    edges = memory_scaler(state) * sphere(model)
    needed = MEASURED_SHARE * edges * bytes_per_edge(config, model.dtype)
    if needed <= ALWAYS_THERE:
        return
    free = available_memory(model.device)
    if needed <= free:
        return
    ways = ["a smaller cell", *(["--dtype float32 (half of it)"] if model.dtype == torch.float64 else [])]
    raise StructureError(
        f"{state.n_atoms} atoms with some {edges:.2g} pairs need about {needed / 1e9:.1f} GB of memory, but "
        f"{free / 1e9:.1f} GB are free on {model.device}. Take {', '.join(ways)}, or a machine with more memory."
    )


def available_memory(device: torch.device) -> float:
    """Memory that can be allocated, in bytes.

    Args:
        device: A GPU, or the CPU: what Linux can make available including swap, and what a limit of the batch system
            leaves; infinite where neither is known.
    """
    if device.type == "cuda":
        unused, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(unused + cached)
    meminfo = _numbers("/proc/meminfo")
    free = 1024.0 * (meminfo.get("MemAvailable:", math.inf) + meminfo.get("SwapFree:", 0.0))
    for parent in _own_cgroups():
        limit = _number(parent / "memory.max")
        used = _number(parent / "memory.current") - _numbers(parent / "memory.stat").get("inactive_file", 0.0)
        if math.isfinite(limit) and math.isfinite(used):
            free = min(free, max(limit - used, 0.0))
    return free


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be allocated.

    Args:
        error: Any error; that of PyTorch on a CPU is a RuntimeError.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)


def sphere(model: MagneticMaceModel) -> float:
    """Volume within the cutoff, in nm³.

    Args:
        model: Model with a cutoff.
    """
    return 4.0 / 3.0 * math.pi * (model.model.r_max / 10.0) ** 3


def _own_cgroups() -> list[Path]:
    """Control groups (version 2) of this process, the innermost first."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    own = next((line[3:] for line in lines if line.startswith("0::")), "")
    root = Path("/sys/fs/cgroup")
    folder = root / own.lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]


def _numbers(path: str | Path) -> dict[str, float]:
    """Lines of a name and a number."""
    try:
        parts = [line.split() for line in Path(path).read_text().splitlines()]
    except OSError:
        return {}
    return {part[0]: float(part[1]) for part in parts if len(part) > 1 and part[1].isdigit()}


def _number(path: Path) -> float:
    try:
        text = path.read_text().strip()
    except OSError:
        return math.inf
    return float(text) if text.isdigit() else math.inf


def memory_scaler(state: SimState) -> float:
    """Σ n_atoms × density of a state, in atoms²/nm³.

    TorchSim takes the extent of the atoms for the volume of what is not a crystal, which is zero for a flat layer; here
    it is the length of the cell vector where a structure is periodic.
    """
    pbc = torch.as_tensor(state.pbc).expand(3).to(state.positions.device)
    if bool(pbc.all()):
        volumes = torch.linalg.det(state.cell).abs().double() / 1000.0
        return float((count_atoms(state) ** 2 / volumes).sum())
    lengths = torch.linalg.norm(state.row_vector_cell, dim=2)
    total = 0.0
    for system, count in enumerate(state.n_atoms_per_system.tolist()):
        positions = state.positions[state.system_idx == system]
        extent = positions.amax(dim=0) - positions.amin(dim=0) + _PADDING
        total += count**2 / float(torch.where(pbc, lengths[system], extent).prod() / 1000.0)
    return total
