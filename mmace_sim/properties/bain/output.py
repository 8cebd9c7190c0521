"""Bain maps as a run: the cell of an element, entries of the summary, points, figures."""

import itertools
from collections.abc import Sequence
from typing import override

from ase.build import bulk
from ase.data import atomic_numbers, chemical_symbols, reference_states

from mmace_sim.engine.computation import Entry
from mmace_sim.engine.output import finite_or_none
from mmace_sim.errors import ConfigError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.model.interface import Potential
from mmace_sim.properties.bain.path import BainMap, BainPath, BainResult, lowest_along_path
from mmace_sim.properties.bain.plots import FIGURES
from mmace_sim.properties.states import StatesComputation
from mmace_sim.structures.initial_moments import starting_lengths
from mmace_sim.structures.moment_range import largest_moments


class BainComputation(StatesComputation[BainResult]):
    """Bain maps of the structures of a run."""

    workflow = BainPath
    result = BainResult
    key = "maps"
    figures = FIGURES
    point_columns = ("c_over_a", "volume", "energy", "moment", "status")

    @override
    def build(self, model: Potential) -> list[LoadedStructure]:
        known, symbol = [chemical_symbols[number] for number in model.elements], self.settings.element
        name = symbol or ("Fe" if "Fe" in known else known[0] if len(known) == 1 else None)
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
    def _states(self, result: BainResult) -> Sequence[BainMap]:
        return result.maps

    @override
    def _told(self, result: BainResult) -> Entry:
        return {
            "c_over_a": result.c_over_a.tolist(),
            "volumes": result.volumes.tolist(),
            "maps": [_map_entry(one, result.lowest_energy) for one in result.maps],
        }

    @override
    def _point_rows(self, result: BainResult, state: BainMap) -> list[Entry]:
        grid = itertools.product(result.c_over_a, result.volumes)
        columns = (grid, state.energies.ravel(), state.moments.ravel(), state.points)
        return [
            {
                "c_over_a": float(ratio),
                "volume": float(volume),
                "energy": finite_or_none(energy),
                "moment": finite_or_none(moment),
                "status": str(point.status),
            }
            for (ratio, volume), energy, moment, point in zip(*columns, strict=False)
        ]


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
