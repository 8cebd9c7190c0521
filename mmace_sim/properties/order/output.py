"""Searches for the lowest magnetic order as a run: entries of the summary, relaxed orders, figures."""

import logging
from collections.abc import Iterable, Sequence
from typing import override

import numpy as np

from mmace_sim.engine.computation import Computed, Entry, Part, Told
from mmace_sim.engine.declaration import Column
from mmace_sim.engine.outcomes import StructureResult
from mmace_sim.engine.output import entry_head, finite_or_none, mean_moments
from mmace_sim.engine.run import Run
from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import bare_copy
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.io.writing import file_names, write_crystal, write_extxyz
from mmace_sim.properties.order.plots import FIGURES
from mmace_sim.properties.order.search import OrderResult, OrderSearch, RelaxedOrder, composition
from mmace_sim.properties.order.starts import order_starts
from mmace_sim.properties.relax.relaxation import Status
from mmace_sim.properties.workflow import WorkflowComputation
from mmace_sim.properties.written import draw_each, labelled

_log = logging.getLogger(__name__)


class OrderComputation(WorkflowComputation[OrderResult]):
    """Searches for the lowest order of the structures of a run."""

    verb = "Relaxing"
    counted = "starts"
    workflow = OrderSearch
    keeps = ("starts", StructureResult)
    result = OrderResult

    @override
    def total(self, part: Part) -> int | None:
        return None

    @override
    def evaluations(self, item: LoadedStructure) -> int:
        try:
            starts, _ = order_starts(item.atoms, self.settings)
        except StructureError:
            return 0
        n_atoms = sum(len(start.atoms) for start in starts)
        return round(n_atoms / len(item.atoms) * self.rounds(item))

    @override
    def rounds(self, item: LoadedStructure) -> int:
        return min(100, self.settings.max_steps + 1)

    @override
    def entry(self, item: LoadedStructure, result: OrderResult) -> Entry:
        if result.note:
            item.notes.append(result.note)
        ranked = sorted(result.orders, key=rank)
        return entry_head(item, str(result.status), result.message) | {
            "best": None if result.best is None else result.best.name,
            "n_states": len(result.states),
            "orders": [_order_entry(order) for order in ranked],
        }

    @override
    def stands_for(self, entry: Entry, result: OrderResult) -> Told:
        images = {o.name: bare_copy(o.atoms, o.magmoms) for o in result.orders if o.order_final is not None}
        told: Told = [
            (one, [images[one["start"]]] if one["start"] in images else []) for one in entry["orders"]
        ]
        return [*told, (entry, [images[result.best.name]] if result.best else [])]

    @override
    def compare(self, entries: list[Entry]) -> None:
        """Energies relative to the lowest of all structures of the same composition, by the same model."""
        computed = [entry for entry in entries if entry.get("orders")]
        keys = [(entry["model"], composition(entry["formula"])) for entry in computed]
        lowest = dict.fromkeys(keys, np.inf)
        for key, entry in zip(keys, computed, strict=True):
            states = [o["energy_per_atom"] for o in entry["orders"] if o["state"] == o["start"]]
            lowest[key] = min([lowest[key], *states])
        for key, entry in zip(keys, computed, strict=True):
            for order in entry["orders"]:
                energy = order["energy_per_atom"]
                order["energy_above_lowest"] = (
                    None if energy is None else finite_or_none(energy - lowest[key])
                )

    @override
    def rows(self, entry: Entry) -> list[Entry]:
        head = {key: entry[key] for key in ("name", "file", "index", "formula", "model")}
        if not entry.get("orders"):
            return [head | {"status": entry["status"], "message": entry["message"]}]
        return [head | order for order in entry["orders"]]

    @override
    def columns(self, rows: Sequence[Entry]) -> Iterable[Column]:
        compared = any(row.get("energy_above_best") != row.get("energy_above_lowest") for row in rows)
        return [c for c in super().columns(rows) if compared or c.key != "energy_above_lowest"]

    @override
    def write(self, run: Run, entries: list[Entry], computed: Computed[OrderResult]) -> list[str]:
        images = []
        for item, result in computed:
            for order in sorted(result.orders, key=rank):
                state = {"state": order.state} if order.state else {}
                labels = {"name": item.name, "start": order.name, "status": str(order.status)} | state
                images.append(labelled(order.atoms, **labels))
        write_extxyz(run.folder / "relaxed.extxyz", images)
        stems = file_names([item.name for item, _ in computed])
        for stem, (item, result) in zip(stems, computed, strict=True):
            if result.best is not None:
                note = write_crystal(run.folder / "structures" / f"{stem}.mcif", result.best.atoms, "mcif")
                if note:
                    _log.warning("%s: %s", item.name, note)
        return ["relaxed.extxyz", "structures/", *draw_each(run, computed, FIGURES)]


def rank(order: RelaxedOrder) -> tuple[bool, bool, float, bool]:
    """What orders are sorted by: converged and low ones first, the start that stands for a state before the others.

    Args:
        order: One of a structure.
    """
    is_finite = bool(np.isfinite(order.energy))
    energy = round(order.energy, 4) if is_finite else 0.0
    return order.status is not Status.CONVERGED, not is_finite, energy, order.state != order.name


def _order_entry(order: RelaxedOrder) -> Entry:
    atoms, symmetry = order.atoms, order.symmetry
    has_end = order.order_final is not None
    wave = order.start.propagation
    return {
        "start": order.name,
        "state": order.state,
        "status": str(order.status),
        "outcome": order.outcome,
        "message": order.message,
        "energy_per_atom": finite_or_none(order.energy),
        "energy_above_best": finite_or_none(order.energy_above_best),
        "energy_above_lowest": None,
        "magnetic_order_initial": str(order.order_initial),
        "magnetic_order_final": str(order.order_final) if has_end else None,
        "moment": float(np.linalg.norm(order.magmoms, axis=1).mean()) if has_end else None,
        "magmom_by_species": mean_moments(atoms, order.magmoms) if has_end else None,
        "total_magmom": order.magmoms.sum(axis=0).tolist() if has_end else None,
        "magmoms": order.magmoms.tolist() if has_end else None,
        "magnetic_space_group": symmetry and symmetry.bns_number,
        "magnetic_space_group_uni": symmetry and symmetry.uni_number,
        "space_group": symmetry and symmetry.space_group,
        "propagation": None if wave is None else " ".join(map(str, wave)),
        "n_cells": order.start.n_cells,
        "n_atoms": len(atoms),
        "volume": float(atoms.cell.volume / len(atoms)) if has_end and atoms.pbc.all() else None,
        "steps": order.steps,
    }
