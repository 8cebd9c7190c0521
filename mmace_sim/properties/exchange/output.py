"""What an exchange calculation writes: entry of the summary, shells, pairs, magnons."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, override

import numpy as np
from ase import Atoms

from mmace_sim.engine.computation import Computed, Entry, Part, Told
from mmace_sim.engine.output import entry_head, finite_or_none, write_csv
from mmace_sim.engine.run import Run
from mmace_sim.graph.cells import has_volume
from mmace_sim.io.collection import LoadedStructure
from mmace_sim.properties.exchange.constants import Exchange, ExchangeResult
from mmace_sim.properties.exchange.declaration import CONVENTION, ROUTE_COLUMNS
from mmace_sim.properties.exchange.files import write_exchange_files
from mmace_sim.properties.exchange.plots import FIGURES
from mmace_sim.properties.results import known
from mmace_sim.properties.workflow import WorkflowComputation
from mmace_sim.properties.written import save_figures, some_folders
from mmace_sim.structures.magnetic_order import classify_order

REST_STEPS: int = 20
"""About how many steps bring the moments to rest, before everything else is computed at once."""

_SHELL_COLUMNS = (
    "shell", "first", "second", "distance", "n_neighbors", *ROUTE_COLUMNS.values(), "dmi", "anisotropic", "unit",
    "convention",
)  # fmt: skip
_TENSOR = tuple(f"J{a}{b}" for a in "xyz" for b in "xyz")


class ExchangeComputation(WorkflowComputation[ExchangeResult]):
    """Exchange constants of the structures of a run."""

    workflow = Exchange

    @override
    def evaluations(self, item: LoadedStructure) -> int:
        return exchange_evaluations(item.atoms, self.settings.cutoff, self.settings.routes)

    @override
    def rounds(self, item: LoadedStructure) -> int:
        return min(REST_STEPS, self.evaluations(item))

    @override
    def finish(self, item: LoadedStructure, result: ExchangeResult, part: Part) -> tuple[Entry, Atoms | None]:
        item.notes += _write(result, part.folders[item.name], figures=self.settings.figures)
        return self.entry(item, result), None

    @override
    def entry(self, item: LoadedStructure, result: ExchangeResult) -> Entry:
        head = entry_head(item, str(result.status), result.message)
        if result.lattice is None:
            return head
        if not result.spin_orbit:
            head["notes"].append(
                "no spin–orbit coupling in the model: DMI and anisotropic exchange are zero by construction"
            )
        lattice, pairs = result.lattice, known(result.pairs)
        signs = lattice.signs[pairs.first] * lattice.signs[pairs.second]
        tensor = result.stiffness_tensor

        def milli(values: np.ndarray | None) -> Any:
            return None if values is None else (1000 * values).tolist()

        return head | {
            "convention": CONVENTION,
            "magnetic_order": str(classify_order(lattice.atoms.arrays["initial_magmoms"])),
            "moment": float(lattice.lengths.mean()),
            "moments": (lattice.signs * lattice.lengths).tolist(),
            "route": result.route,
            "supercell": list(known(result.supercell)),
            "spin_orbit": result.spin_orbit,
            "shells": _shell_rows(result),
            "exchange_sum": finite_or_none((signs * result.isotropic()).sum(), 1000 / len(lattice.sites)),
            "stiffness": finite_or_none(result.stiffness, 1000),
            "stiffness_tensor": milli(None if tensor is None else tensor.tensor),
            "stiffness_dimensions": None if tensor is None else tensor.dimensions,
            "mean_field_temperature": finite_or_none(result.temperature),
            "single_ion": milli(result.single_ion),
            "anisotropy": milli(result.anisotropy),
            "anisotropy_error": None if result.anisotropy is None else 1000 * result.anisotropy_error,
            "stable": None if result.magnons is None else result.magnons.stable,
            "difference_of_routes": finite_or_none(result.difference(), 1000),
            "sum_rule_error": finite_or_none(result.sum_rule_error, 1000),
            "beyond_cutoff": finite_or_none(result.beyond_cutoff, 1000),
            "symmetry_spread": finite_or_none(result.spread, 1000),
            "breaks_symmetry": result.breaks_symmetry,
        }

    @override
    def stands_for(self, entry: Entry, result: ExchangeResult) -> Told:
        return [(entry, result.images)] if result.images else []

    @override
    def write(self, run: Run, entries: list[Entry], computed: Computed[ExchangeResult]) -> list[str]:
        return some_folders(run)


def exchange_evaluations(atoms: Atoms, cutoff: float, routes: Sequence[str]) -> int:
    """About how many energies of its cell the exchange of a structure costs.

    Args:
        atoms: The structure.
        cutoff: Largest distance of a pair, in Å.
        routes: Keys of `ROUTE_COLUMNS`.
    """
    if not has_volume(atoms):
        return 1
    n_cells = max(1, round((2 * cutoff) ** 3 / atoms.cell.volume))
    costs = {"derivatives": 6 * len(atoms), "four-state": 60, "spirals": 20}
    return REST_STEPS + n_cells * sum(costs[route] for route in routes)


def _shell_rows(result: ExchangeResult) -> list[Entry]:
    """One line for each set of equivalent pairs, by increasing distance (Å), with exchange in meV."""
    pairs, lattice = known(result.pairs), known(result.lattice)
    values = {name: 1000 * result.isotropic(r) for r, name in ROUTE_COLUMNS.items() if r in result.tensors}
    dmi = 1000 * np.linalg.norm(result.dmi(), axis=1)
    anisotropic = 1000 * np.abs(result.anisotropic()).max(axis=(1, 2))
    rows = []
    for orbit, k in enumerate(pairs.representatives()):
        i, j = int(pairs.first[k]), int(pairs.second[k])
        same = (pairs.orbits == orbit) & (pairs.first == i)
        row = {
            "shell": orbit + 1,
            "first": f"{lattice.symbols[i]}{i + 1}{'+-'[int(lattice.signs[i] < 0)]}",
            "second": f"{lattice.symbols[j]}{j + 1}{'+-'[int(lattice.signs[j] < 0)]}",
            "distance": float(pairs.distances[k]),
            "n_neighbors": int(same.sum()),
            "dmi": finite_or_none(dmi[k]),
            "anisotropic": finite_or_none(anisotropic[k]),
        }
        rows.append(row | {name: finite_or_none(value[k]) for name, value in values.items()})
    return rows


def _write(result: ExchangeResult, folder: Path, *, figures: bool) -> list[str]:
    """Tables, figures and the input of other codes for one crystal, unless it failed; notes about what has no place."""
    if result.lattice is None or not np.isfinite(result.isotropic()).all():
        return []
    folder.mkdir(exist_ok=True)
    convention = {"unit": "meV", "convention": CONVENTION}
    write_csv(folder / "shells.csv", _SHELL_COLUMNS, [row | convention for row in _shell_rows(result)])
    pairs = known(result.pairs)
    rows = []
    for k in range(len(pairs)):
        row = {"first": int(pairs.first[k]) + 1, "second": int(pairs.second[k]) + 1}
        row |= dict(zip(("cell_a", "cell_b", "cell_c"), pairs.shifts[k].tolist(), strict=True))
        row |= dict(zip(("x", "y", "z"), pairs.vectors[k].tolist(), strict=True))
        row |= dict(zip(_TENSOR, (1000 * result.tensors[result.route][k]).ravel().tolist(), strict=True))
        rows.append(row | convention)
    write_csv(folder / "pairs.csv", tuple(rows[0]), rows)
    path = known(result.magnons)
    branches = [f"energy_{n + 1}" for n in range(path.energies.shape[1])]
    waves = [
        dict(zip(("q_a", "q_b", "q_c"), q.tolist(), strict=True))
        | {"length": float(length)}
        | dict(zip(branches, (1000 * energies).tolist(), strict=True))
        | {"unit": "meV, 1/Å"}
        for q, length, energies in zip(path.qpoints, path.lengths, path.energies, strict=True)
    ]
    write_csv(folder / "magnons.csv", tuple(waves[0]), waves)
    _, notes = write_exchange_files(result, folder)
    if figures:
        save_figures(result, f"{folder}/", FIGURES)
    return notes
