"""Bain maps as a run: the cell of an element, entries of the summary, points, figures."""

import itertools
from collections.abc import Iterator
from typing import override

from ase.build import bulk
from ase.data import atomic_numbers, chemical_symbols, reference_states

from mmace_sim.engine.computation import Computed, Entry, Told
from mmace_sim.engine.output import entry_head, finite_or_none, write_csv
from mmace_sim.engine.run import Run
from mmace_sim.errors import ConfigError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.model.interface import Potential
from mmace_sim.properties.bain.path import BainMap, BainPath, BainResult, lowest_along_path
from mmace_sim.properties.eos.output import minimum_rows, told_points
from mmace_sim.properties.states import StatesComputation
from mmace_sim.properties.written import draw_each
from mmace_sim.structures.initial_moments import starting_lengths
from mmace_sim.structures.moment_range import largest_moments

POINT_COLUMNS: tuple[str, ...] = ("name", "state", "c_over_a", "volume", "energy", "moment", "status")
"""Columns of ``curves.csv``: one line for each point."""


class BainComputation(StatesComputation[BainResult]):
    """Bain maps of the structures of a run."""

    workflow = BainPath
    result = BainResult

    @override
    def build(self, model: Potential) -> list[LoadedStructure]:
        known, symbol = [chemical_symbols[number] for number in model.elements], self.settings.element
        name = symbol or (known[0] if len(known) == 1 else None)
        if name is None or name not in known:
            got = "no structures and no element" if name is None else f"element {name!r}"
            raise ConfigError(
                f"got {got}; name files, or one of the model's elements: --element {'|'.join(known)}."
            )
        atoms = bulk(name, "bcc", a=(2 * _known_volume(name)) ** (1 / 3), cubic=True)
        set_magmoms(atoms, starting_lengths(atoms, largest_moments(model)))
        return [LoadedStructure(f"element {name}", 0, name, atoms)]

    @property
    @override
    def n_points(self) -> int:
        return super().n_points * self.settings.n_ratios

    @override
    def evaluations(self, item: LoadedStructure) -> int:
        return super().evaluations(item) + 60 * len(self.settings.states)

    @override
    def entry(self, item: LoadedStructure, result: BainResult) -> Entry:
        message = " ".join(f"State {one.state}: {one.message}" for one in result.maps if one.message)
        item.notes += [f"state {one.state}: {one.note}" for one in result.maps if one.note]
        return entry_head(item, str(result.status), message) | {
            "c_over_a": result.c_over_a.tolist(),
            "volumes": result.volumes.tolist(),
            "maps": [_map_entry(one, result.lowest_energy) for one in result.maps],
        }

    @override
    def stands_for(self, entry: Entry, result: BainResult) -> Told:
        return told_points(entry, entry["maps"], [one.points for one in result.maps])

    @override
    def rows(self, entry: Entry) -> list[Entry]:
        return minimum_rows(entry, "maps")

    @override
    def write(self, run: Run, entries: list[Entry], computed: Computed[BainResult]) -> list[str]:
        del entries
        rows = [
            row
            for item, result in computed
            for one in result.maps
            for row in _point_rows(item.name, result, one)
        ]
        write_csv(run.folder / "curves.csv", POINT_COLUMNS, rows)
        names = ["curves.csv"]
        if self.settings.figures:
            from mmace_sim.properties.bain.plots import save_bain_figures

            names.append(draw_each(run, computed, save_bain_figures))
        return names


def _known_volume(symbol: str) -> float:
    """Volume of the known crystal of an element, in Å³/atom."""
    state = reference_states[atomic_numbers[symbol]] or {}
    if state.get("symmetry") in ("bcc", "fcc", "hcp"):
        crystal = bulk(symbol)
        return float(crystal.cell.volume) / len(crystal)
    raise ConfigError(
        f"{symbol} is neither bcc, fcc nor hcp, so that the volume of its cell is not known; name a file with a "
        "tetragonal cell."
    )


def _map_entry(one: BainMap, zero: float) -> Entry:
    return {
        "state": one.state,
        "status": str(one.status),
        "message": one.message,
        "minima": [vars(minimum) | {"energy_above_lowest": minimum.energy - zero} for minimum in one.minima],
        "path": [finite_or_none(value) for value in lowest_along_path(one)],
        "energies": [[finite_or_none(value) for value in row] for row in one.energies],
        "moments": [[finite_or_none(value) for value in row] for row in one.moments],
    }


def _point_rows(name: str, result: BainResult, one: BainMap) -> Iterator[Entry]:
    grid = itertools.product(result.c_over_a, result.volumes)
    columns = (grid, one.energies.ravel(), one.moments.ravel(), one.points)
    for (ratio, volume), energy, moment, point in zip(*columns, strict=False):
        yield {
            "name": name,
            "state": one.state,
            "c_over_a": float(ratio),
            "volume": float(volume),
            "energy": finite_or_none(energy),
            "moment": finite_or_none(moment),
            "status": str(point.status),
        }
