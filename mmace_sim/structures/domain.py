"""Where results lie, seen from the data of their model: verdict, distance and uncertainties for a summary."""

import logging
from typing import Any

import torch
from ase import Atoms
from torch import Tensor

from mmace_sim.base.quantities import UNCERTAINTIES
from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import has_magmoms
from mmace_sim.graph.batch import MagneticGraph, graph_from_atoms
from mmace_sim.model.uncertainty import Domain, evaluate_with_uncertainty

_log = logging.getLogger(__name__)


def domain_entry(model: object, atoms: Atoms | None, *, computed: bool = False) -> dict[str, Any]:
    """What a summary says of a structure and its model's data.

    Args:
        model: Energy model, or a wrapper with the model as its attribute `model`.
        atoms: The structure with its moments; None if there is none.
        computed: Whether its forces and magforces are those of this model; else they are evaluated.

    Returns:
        "domain" (`inside`, `edge` or `outside`), "domain_distance", "energy_uncertainty" in eV/atom, and the largest of
        the atoms "forces_uncertainty" (eV/Å), "magforces_length_uncertainty" and "magforces_transverse_uncertainty"
        (eV/μB); None where the model cannot tell.
    """
    names = [UNCERTAINTIES[name] for name in ("energy", "forces", "magforces_length", "magforces_transverse")]
    nothing: dict[str, Any] = dict.fromkeys(("domain", "domain_distance", *names))
    inner: Any = model if hasattr(model, "uncertainty") else getattr(model, "model", None)
    if getattr(inner, "uncertainty", None) is None or atoms is None or not has_magmoms(atoms):
        return nothing
    if not set(atoms.numbers.tolist()) <= set(inner.elements):
        return nothing
    try:
        graph = graph_from_atoms(atoms, inner.r_max, device=inner.device, dtype=inner.dtype)
        known = _derivatives(atoms, graph) if computed else None
        found = evaluate_with_uncertainty(inner, graph, known)
    except StructureError as error:
        _log.info("no domain: %s", error)
        return nothing
    distance = float(found["distance"])
    entry = nothing | {"domain": str(Domain.at(distance)), "domain_distance": _finite(distance)}
    return entry | {name: _finite(float(torch.max(found[name]))) for name in names}


def _derivatives(atoms: Atoms, graph: MagneticGraph) -> dict[str, Tensor] | None:
    """Forces and magforces that a structure carries; None if it lacks one of them."""
    forces = getattr(atoms.calc, "results", {}).get("forces")
    magforces = atoms.arrays.get("magforces")
    if forces is None or magforces is None:
        return None
    return {
        name: torch.as_tensor(values, dtype=graph.positions.dtype, device=graph.positions.device)
        for name, values in (("forces", forces), ("magforces", magforces))
    }


def _finite(value: float) -> float | None:
    return float(f"{value:.4g}") if abs(value) < float("inf") else None
