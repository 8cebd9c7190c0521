"""Where results lie, seen from the data of their model: verdict, distance and uncertainties for a summary."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from mmace_sim.base.quantities import UNCERTAINTIES
from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import get_magmoms, has_magmoms
from mmace_sim.graph.batch import MagneticGraph, graph_from_atoms
from mmace_sim.graph.cells import has_volume
from mmace_sim.model.error_sizes import max_of_systems
from mmace_sim.model.uncertainty import ATOM_TARGETS, Domain, evaluate_with_uncertainty

_NAMES = tuple(UNCERTAINTIES.values())
_LARGEST_OF_ATOMS = tuple(UNCERTAINTIES[name] for name in ATOM_TARGETS)

_BATCH_ATOMS = 256
"""Structures are evaluated in batches of about so many atoms."""

_log = logging.getLogger(__name__)


def domain_entry(model: object, atoms: Atoms | None, *, computed: bool = False) -> dict[str, Any]:
    """What a summary says of a structure and its model's data.

    Args:
        model: Energy model, or a wrapper with the model as its attribute `model`.
        atoms: The structure with its moments; None if there is none.
        computed: Whether its forces and magforces are those of this model; else they are evaluated.

    Returns:
        "domain" (`inside`, `edge` or `outside`), "domain_distance", "energy_uncertainty" in eV/atom,
        "stress_uncertainty" in eV/Å³, and the largest of the atoms "forces_uncertainty" (eV/Å),
        "magforces_length_uncertainty" and "magforces_transverse_uncertainty" (eV/μB); None where the model cannot tell.
    """
    return domain_entries(model, [atoms], computed=computed)[0]


def domain_entries(
    model: object, structures: Sequence[Atoms | None], *, computed: bool = False
) -> list[dict[str, Any]]:
    """The same of many structures, in batches.

    Args:
        model: Energy model, or a wrapper with the model as its attribute `model`.
        structures: Structures with moments.
        computed: Whether their forces and magforces, where they carry both, are those of this model.

    Returns:
        As from `domain_entry`, one for each structure.
    """
    entries = [_nothing() for _ in structures]
    inner: Any = model if hasattr(model, "uncertainty") else getattr(model, "model", None)
    if getattr(inner, "uncertainty", None) is None:
        return entries
    elements = set(inner.elements)
    told = {k: x for k, x in enumerate(structures) if x is not None and _can_be_told(x, elements)}
    ready = [k for k, x in told.items() if computed and _has_derivatives(x)]
    for indices in (ready, [k for k in told if k not in set(ready)]):
        for batch in _batches(indices, told):
            found = _evaluated(inner, [told[k] for k in batch], known=indices is ready)
            for k, entry in zip(batch, found, strict=True):
                entries[k] |= entry
    return entries


def farthest(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is said of several structures together: the largest of each number, and the verdict of the farthest.

    A number that is not known of one of them is not known.

    Args:
        entries: From `domain_entries`.

    Returns:
        An entry like theirs; None where none of them tells.
    """
    told = [entry for entry in entries if entry["domain"] is not None]
    result = _nothing()
    if not told:
        return result
    for key in result:
        values = [entry[key] for entry in told]
        result[key] = None if None in values else max(values)
    result["domain"] = max((e["domain"] for e in told), key=[str(domain) for domain in Domain].index)
    return result


def _nothing() -> dict[str, Any]:
    return dict.fromkeys(("domain", "domain_distance", *_NAMES))


def _can_be_told(atoms: Atoms, elements: set[int]) -> bool:
    if not has_magmoms(atoms) or not set(atoms.numbers.tolist()) <= elements:
        return False
    return all(np.isfinite(x).all() for x in (atoms.positions, atoms.cell.array, get_magmoms(atoms)))


def _batches(indices: Sequence[int], structures: dict[int, Atoms]) -> Iterator[list[int]]:
    batch: list[int] = []
    for k in indices:
        if batch and sum(len(structures[i]) for i in [*batch, k]) > _BATCH_ATOMS:
            yield batch
            batch = []
        batch.append(k)
    if batch:
        yield batch


def _evaluated(model: Any, structures: Sequence[Atoms], *, known: bool) -> list[dict[str, Any]]:
    """Entries of a batch; one that no graph can be made of has an empty one."""
    try:
        graph = graph_from_atoms(structures, model.r_max, device=model.device, dtype=model.dtype)
        found = evaluate_with_uncertainty(model, graph, _derivatives(structures, graph) if known else None)
    except StructureError as error:
        if len(structures) > 1:
            return [entry for atoms in structures for entry in _evaluated(model, [atoms], known=known)]
        _log.info("no domain: %s", error)
        return [{}]
    for name in _LARGEST_OF_ATOMS:
        found[name] = max_of_systems(found[name], graph.system_idx, graph.n_systems)
    columns = {name: found[name].tolist() for name in ("distance", *_NAMES)}
    entries = []
    for k, atoms in enumerate(structures):
        distance = columns["distance"][k]
        entry = {"domain": str(Domain.at(distance)), "domain_distance": _finite(distance)}
        entry |= {name: _finite(columns[name][k]) for name in _NAMES}
        if not has_volume(atoms):
            entry[UNCERTAINTIES["stress"]] = None
        entries.append(entry)
    return entries


def _has_derivatives(atoms: Atoms) -> bool:
    return "forces" in getattr(atoms.calc, "results", {}) and "magforces" in atoms.arrays


def _derivatives(structures: Sequence[Atoms], graph: MagneticGraph) -> dict[str, Tensor]:
    """Forces and magforces that structures carry."""
    columns = {
        "forces": [atoms.calc.results["forces"] for atoms in structures],
        "magforces": [atoms.arrays["magforces"] for atoms in structures],
    }
    return {
        name: torch.as_tensor(
            np.concatenate(values), dtype=graph.positions.dtype, device=graph.positions.device
        )
        for name, values in columns.items()
    }


def _finite(value: float) -> float | None:
    return float(f"{value:.4g}") if abs(value) < float("inf") else None
