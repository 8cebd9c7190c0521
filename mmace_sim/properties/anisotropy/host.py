"""Models whose energy depends on the direction of the moments."""

import torch

from mmace_sim.base.hosts import ts
from mmace_sim.errors import UnsupportedOptionError
from mmace_sim.properties.relax.relaxation import ModelLike
from mmace_sim.torchsim.model import MagneticMaceModel


def spin_orbit_host(
    model: ModelLike, device: torch.device | str | None, dtype: torch.dtype | None = None
) -> ts.models.interface.ModelInterface:
    """A TorchSim model in float64, after making sure that directions of moments matter to it.

    Args:
        model: Energy model, its name or path, or any TorchSim model that gives magforces.
        device: Where to run.
        dtype: May say float64 only.

    Raises:
        UnsupportedOptionError: If the model has no spin–orbit coupling, or another type is asked for.
    """
    if dtype not in (None, torch.float64):
        raise UnsupportedOptionError(f"dtype = {dtype}: anisotropy needs torch.float64.")
    host = (
        model
        if isinstance(model, ts.models.interface.ModelInterface)
        else MagneticMaceModel(model, device=device, dtype=torch.float64)
    )
    if host is model and host.dtype is not torch.float64:
        raise UnsupportedOptionError(
            f"{type(host).__name__} computes in {host.dtype}: anisotropy needs torch.float64."
        )
    inner = getattr(host, "model", None)
    if inner is not None and not getattr(inner, "spin_orbit", True):
        name = getattr(inner, "metadata", {}).get("name", type(inner).__name__)
        raise UnsupportedOptionError(
            f"model {name!r} has no spin–orbit coupling: its energy does not change when all moments turn together, so "
            "that its anisotropy is zero by construction. Train one with model: {spin_orbit: true} on data with "
            "spin–orbit coupling, or choose one with it (`mmace-sim models`)."
        )
    return host


def obeys_time_reversal(host: object) -> bool:
    """Whether a model has E(m) = E(−m) by construction, as all of this package but the published architecture do.

    Args:
        host: TorchSim model.
    """
    inner = getattr(host, "model", None)
    if inner is None or not hasattr(inner, "spin_orbit"):
        return False
    return bool(getattr(getattr(inner, "config", None), "time_reversal", True))
