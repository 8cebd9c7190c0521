"""What a run would do: structures, models, batches, time and memory, and nothing computed but one energy."""

import time
from collections.abc import Sequence

from mmace_sim.base.hosts import ts
from mmace_sim.base.text import spelled_seconds
from mmace_sim.engine.computation import Computation
from mmace_sim.engine.cuts import cut_run
from mmace_sim.engine.declaration import Property
from mmace_sim.engine.run import Run
from mmace_sim.engine.settings import RunSettings
from mmace_sim.engine.table import FILE_NAME as SUMMARY_TABLE
from mmace_sim.io.collection import VOLUMES, FailedStructure, LoadedStructure
from mmace_sim.io.spans import is_large
from mmace_sim.torchsim.memory import (
    MEASURED_SHARE,
    bytes_per_edge,
    estimate_max_memory_scaler,
    memory_scaler,
    sphere,
)
from mmace_sim.torchsim.model import MagneticMaceModel
from mmace_sim.torchsim.state import initialize_state

MAX_LINES: int = 50
"""Longer lists of structures are cut."""


def plan_run(declared: Property, settings: RunSettings) -> str:
    """Read everything that a run would read, check it, time one energy of a structure, and tell what would follow.

    Args:
        declared: The property.
        settings: Its settings.

    Returns:
        Some lines for the user.

    Raises:
        ConfigError: If there are no structures.
        ModelFileError: If a model cannot be loaded.
    """
    declared = declared.chosen(settings)
    computation: Computation = declared.load()(declared, settings)
    first, large, share = None, "", 1.0
    if computation.reads_files and is_large(settings.paths):
        sizes = []
        for volume in cut_run(computation, {}):
            first = first or volume
            sizes.append(sum(span.n_structures for span in volume))
        share = sizes[0] / sum(sizes)
        large = f"{sum(sizes)} structures in {len(sizes)} volumes. Of the first:"
    run = Run.read(computation, first)
    for part in run.parts():
        computation.preview(part)
    lines = [
        *filter(None, [large]),
        _listed(run.items),
        *(f"skipped: {item.message}" for item in run.skipped),
    ]
    total = 0.0
    for part in run.parts():
        seconds, text = _estimate(computation, part)
        total += seconds
        lines.append(text)
    table = (SUMMARY_TABLE, f"{VOLUMES}/") if large else ("summary.csv", *_names(declared))
    lines.append(f"Would write to {run.folder}/: {', '.join(('summary.json', *table))}.")
    lines.append(f"In all about {spelled_seconds(total / share)}. Nothing was computed or written.")
    return "\n".join(lines)


def _names(declared: Property) -> list[str]:
    return [file.name for file in declared.files]


def _listed(items: Sequence[LoadedStructure | FailedStructure]) -> str:
    lines = []
    for item in items[:MAX_LINES]:
        if isinstance(item, FailedStructure):
            lines.append(f"cannot be used: {item.message}")
            continue
        notes = f" ({'; '.join(item.notes)})" if item.notes else ""
        lines.append(f"{item.name}: {item.atoms.get_chemical_formula()}, {len(item.atoms)} atoms{notes}")
    if len(items) > MAX_LINES:
        lines.append(f"... and {len(items) - MAX_LINES} more")
    return "\n".join(lines)


def _estimate(computation: Computation, part: Run) -> tuple[float, str]:
    """Seconds that the structures of one model take, and a line about it."""
    name, n_atoms = next(iter(part.models)), sum(len(item.atoms) for item in part.structures)
    what = f"Model {name}: {len(part.structures)} structures with {n_atoms} atoms"
    evaluations = [computation.evaluations(item) for item in part.structures]
    more = sum(computation.seconds(item) for item in part.structures)
    if not any(evaluations):
        return more, f"{what}, no energies, about {spelled_seconds(more)}."
    model = MagneticMaceModel(part.model)
    states = [_state(model, item) for item in part.structures]
    scalers = [memory_scaler(state) for state in states]
    work = [scaler * count for scaler, count in zip(scalers, evaluations, strict=True)]
    rounds = [max(1, computation.rounds(item)) for item in part.structures]
    at_once = sum(amount / count for amount, count in zip(work, rounds, strict=True))
    batch = max(*scalers, min(at_once, estimate_max_memory_scaler(model)))
    middle = sorted(range(len(states)), key=scalers.__getitem__)[len(states) // 2]
    n_copies = max(1, round(batch / scalers[middle]))
    copies = _state(model, *[part.structures[middle]] * n_copies)
    model(copies)  # what happens once does not count
    start = time.perf_counter()
    model(copies)
    seconds = (time.perf_counter() - start) * sum(work) / (n_copies * scalers[middle]) + more
    config = getattr(part.model, "config", None)
    memory = ""
    if config is not None:
        size = MEASURED_SHARE * batch * sphere(model) * bytes_per_edge(config, model.dtype)
        memory = f", some {size / 1e9:.2g} GB at once"
    return seconds, (
        f"{what}, about {sum(evaluations)} energies with derivatives, about {spelled_seconds(seconds)}{memory}."
    )


def _state(model: MagneticMaceModel, *items: LoadedStructure) -> ts.SimState:
    return initialize_state([item.atoms for item in items], device=model.device, dtype=model.dtype)
