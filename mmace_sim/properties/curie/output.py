"""Ordering temperatures as a run: entries of the summary, tables of points, figures."""

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, override

import numpy as np
from ase import Atoms

from mmace_sim.engine.computation import Advance, Computation, Computed, Entry, Part, Store, Told
from mmace_sim.engine.machine import pick_device
from mmace_sim.engine.output import entry_head, finite_or_none, write_csv
from mmace_sim.errors import ConfigError
from mmace_sim.graph.atoms import bare_copy
from mmace_sim.io.collection import FailedStructure, LoadedStructure
from mmace_sim.plots import COLORS, MARKERS, REFERENCE, add_legend, new_figure
from mmace_sim.properties.curie.declaration import AUTO_TEMPERATURES
from mmace_sim.properties.curie.estimators import DISORDERED_BINDER, ORDERED_BINDER, power_law
from mmace_sim.properties.curie.from_exchange import read_exchange_run
from mmace_sim.properties.curie.spin_codes import GIVEN, SPIN_CODES, read_spin_models
from mmace_sim.properties.curie.temperatures import AUTO_FRACTIONS, Curie, CurieResult
from mmace_sim.properties.exchange.declaration import CONVENTION
from mmace_sim.properties.exchange.output import REST_STEPS, exchange_evaluations
from mmace_sim.properties.written import save_figures, some_folders
from mmace_sim.sampling.hamiltonian import SpinHamiltonian
from mmace_sim.sampling.statistics import Point, Value

UPDATES_PER_SECOND: float = 5e6
"""Of spins by heat bath and over-relaxation on one thread, see ``docs/benchmarks/curie_heisenberg.json``."""

LOCAL_SWEEP, RESTING_STEP = 5.0, 0.15
"""A sweep of local moves, and a step of a hybrid move while the atoms rest, in evaluations with all derivatives:
measured 3.4 to 6.6 and 0.08 to 0.19 with 54 and 432 atoms of both embedded models on a CPU."""

_KEYS = (
    "energy", "order", "magnetization", "heat_capacity", "susceptibility", "binder", "length", "volume", "acceptance"
)  # fmt: skip
_LABELS = {
    "order": "order |Σ s e|/n",
    "susceptibility": "susceptibility (1/eV per spin)",
    "heat_capacity": "heat capacity (k_B per spin)",
    "binder": "Binder cumulant",
}


class CurieComputation(Computation[Any, CurieResult]):
    """Ordering temperatures of the structures of a run."""

    verb = "Sampling"
    counted = "sweeps"
    earlier: dict[str, SpinHamiltonian] | None = None
    """Exchange of an earlier run, by name of the structure."""

    @override
    def read(self) -> tuple[dict[str, Any], list[LoadedStructure | FailedStructure]] | None:
        source, settings = self.settings.exchange_run, self.settings
        if source in SPIN_CODES:
            device = pick_device(settings.device, settings.threads)
            items, spins = read_spin_models(source, settings.paths, device)
            return {GIVEN: spins}, items
        self.earlier = None if source is None else read_exchange_run(Path(source))
        return None

    @override
    def prepare(self, part: Part) -> None:
        self._spin_models(part, list(part.folders))

    def _spin_models(self, part: Part, names: list[str]) -> list[SpinHamiltonian] | None:
        """Exchange that was read for structures; None if it is to be computed."""
        source = self.settings.exchange_run
        if source is None:
            return None
        known = part.model.models if source in SPIN_CODES else self.earlier
        if missing := [name for name in names if name not in known]:
            has = ", ".join(known) or "none"
            raise ConfigError(f"{source}: no exchange of {', '.join(missing)}; it has {has}.")
        return [known[name] for name in names]

    @override
    def is_finished(self, entry: Entry) -> bool:
        """A run may be longer than the earlier one was."""
        return entry["status"] == "failed" or entry.get("n_sweeps", 0) >= self.settings.n_sweeps

    @override
    def total(self, part: Part) -> int:
        return len(part.pending) * self._sweeps

    @property
    def _sweeps(self) -> int:
        settings = self.settings
        return settings.n_stages * (settings.n_equilibration + settings.n_sweeps)

    def _n_spins(self, item: LoadedStructure) -> int:
        return len(item.atoms) * sum(size**3 for size in self.settings.all_sizes)

    @override
    def evaluations(self, item: LoadedStructure) -> int:
        settings = self.settings
        if settings.method == "heisenberg":
            routes = [settings.route]
            return 0 if settings.exchange_run else exchange_evaluations(item.atoms, settings.cutoff, routes)
        n_chains = len(settings.temperatures or AUTO_TEMPERATURES) * settings.replicas
        n_cells = sum(size**3 for size in settings.all_sizes)
        return n_chains * n_cells * self.rounds(item)

    @override
    def rounds(self, item: LoadedStructure) -> int:
        settings = self.settings
        if settings.method == "heisenberg":
            return min(REST_STEPS, self.evaluations(item))
        step = RESTING_STEP if settings.lattice == "fixed" else 1.0
        cost = settings.n_steps * step if settings.moves == "hybrid" else LOCAL_SWEEP
        return max(1, round(self._sweeps * cost))

    @override
    def seconds(self, item: LoadedStructure) -> float:
        if self.settings.method == "direct":
            return 0.0
        n_chains = len(self.settings.temperatures or AUTO_FRACTIONS) * self.settings.replicas
        updates = self._n_spins(item) * n_chains * self._sweeps * (1 + self.settings.over_relaxation)
        return updates / UPDATES_PER_SECOND

    @override
    def compute(self, part: Part, store: Store[CurieResult], advance: Advance) -> None:
        names = [item.name for item in part.pending]
        Curie(part.model, self.settings, max_batch_atoms=self.settings.max_batch_atoms).run(
            [item.atoms for item in part.pending],
            names=[part.folders[name].name for name in names],
            spin_models=self._spin_models(part, names),
            folder=part.folder,
            on_sweeps=advance,
            on_finished=store,
        )

    @override
    def finish(self, item: LoadedStructure, result: CurieResult, part: Part) -> tuple[Entry, Atoms | None]:
        if result.points:
            self._write(result, part.folders[item.name])
        return self.entry(item, result), None

    def _write(self, result: CurieResult, folder: Path) -> None:
        """Table and figures of one crystal."""
        folder.mkdir(exist_ok=True)
        rows = [point_row(point) for row in result.points for point in row]
        write_csv(folder / "points.csv", tuple(rows[0]), rows)
        if self.settings.figures:
            save_figures(result, f"{folder}/", {key: partial(_figure, key=key) for key in _LABELS})

    @override
    def entry(self, item: LoadedStructure, result: CurieResult) -> Entry:
        found = result.temperature
        name, value = found.best or (None, None)
        n_spins = [row[0].n_spins for row in result.points]
        return entry_head(item, str(result.status), result.message) | {
            "method": result.method,
            "convention": CONVENTION,
            "curie_temperature": None if value is None else value.mean,
            "curie_temperature_error": None if value is None else value.error,
            "estimator": name,
            "curie_temperature_quantum": _times(value, result.quantum_factor, "mean"),
            "curie_temperature_quantum_error": _times(value, result.quantum_factor, "error"),
            "quantum_factor": result.quantum_factor,
            "n_spins": n_spins,
            "n_sweeps": result.n_sweeps,
            "mean_field_temperature": result.mean_field,
            "binder_crossings": [
                _value(v) | {"n_spins": list(pair)}
                for v, pair in zip(found.crossings, pairwise(n_spins), strict=True)
            ],
            "susceptibility_peaks": [
                _value(v) | {"n_spins": n} for v, n in zip(found.peaks, n_spins, strict=True)
            ],
            "power_law": _value(found.power_law) | {"n_spins": n_spins[-1] if n_spins else None},
            "exponent": _value(found.exponent),
            "points": [point_row(point) for row in result.points for point in row],
        }

    @override
    def stands_for(self, entry: Entry, result: CurieResult) -> Told:
        """The ordered crystal, and at each point of the direct method its chains' last samples."""
        if result.ordered is None:
            return []
        ordered = bare_copy(result.ordered)
        ends = [image for some in result.ends for image in some]
        return [*zip(entry["points"], result.ends, strict=False), (entry, [ordered, *ends])]

    @override
    def rows(self, entry: Entry) -> list[Entry]:
        return [entry | {"n_spins": max(entry.get("n_spins") or [0]) or None}]

    @override
    def write(self, run: Any, entries: list[Entry], computed: Computed[Any]) -> list[str]:
        return some_folders(run)


def _times(value: Value | None, factor: float | None, what: str) -> float | None:
    return None if value is None or factor is None else factor * getattr(value, what)


def _value(value: Value | None) -> dict[str, float | None]:
    return {"mean": None, "error": None} if value is None else {"mean": value.mean, "error": value.error}


def point_row(point: Point) -> Entry:
    """One size at one temperature as a line of a table.

    Args:
        point: Its observables.

    Returns:
        Values and errors in the units of `CURIE`; an error that is not known is None.
    """
    row: dict[str, Any] = {"temperature": point.temperature, "n_spins": point.n_spins}
    for key in _KEYS:
        if key in point.values:
            row |= {
                key: finite_or_none(point.values[key].mean),
                f"{key}_error": finite_or_none(point.values[key].error)
                if point.values[key].is_known
                else None,
            }
    tail = {"autocorrelation": point.autocorrelation, "drift": finite_or_none(point.drift)}
    return row | tail | {"n_samples": point.n_samples, "status": str(point.status)}


def _figure(result: CurieResult, key: str) -> Any:
    """An observable (of `_LABELS`) against temperature, one colour for each size."""
    figure, axes = new_figure()
    for row, color, marker in zip(result.points, COLORS * 3, MARKERS * 3, strict=False):
        t = [point.temperature for point in row]
        mean, error = ([getattr(point.values[key], what) for point in row] for what in ("mean", "error"))
        axes.errorbar(
            t, mean, error, color=color, marker=marker, markersize=2.5, linewidth=0.8,
            label=f"{row[0].n_spins} spins",
        )  # fmt: skip
    found = result.temperature
    if key == "order" and found.power_law is not None:
        _draw_law(axes, result)
    if key == "binder":
        for level in (ORDERED_BINDER, DISORDERED_BINDER):
            axes.axhline(level, color=REFERENCE, linewidth=0.6, linestyle=":")
    if found.best is not None:
        axes.axvline(found.best[1].mean, color=REFERENCE, linewidth=0.8, linestyle="--", label="$T_C$")
    axes.set(xlabel="temperature (K)", ylabel=_LABELS[key].replace("k_B", "$k_B$"))
    add_legend(axes)
    return figure


def _draw_law(axes: Any, result: CurieResult) -> None:
    """The fit M₀ (1 − T/T_C)^β through the points that it belongs to."""
    law, exponent = result.temperature.power_law.mean, result.temperature.exponent.mean
    row = [p for p in result.points[-1] if 0.6 * law <= p.temperature <= 0.97 * law]
    t = np.array([point.temperature for point in row])
    mean = np.array([point.values["order"].mean for point in row])
    shape = power_law(t, 1.0, law, exponent)
    grid = np.linspace(0.6 * law, law, 200)
    scale = float((mean @ shape) / (shape @ shape)) if len(t) else 1.0
    label = rf"$(1 - T/T_C)^{{{exponent:.2f}}}$"
    axes.plot(grid, power_law(grid, scale, law, exponent), color=COLORS[3], linewidth=1.0, label=label)
