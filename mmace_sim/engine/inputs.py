"""What a command starts from: the model on its device, and the structures, read and checked."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols
from pydantic import BaseModel

from mmace_sim.base.text import say
from mmace_sim.engine.machine import pick_device
from mmace_sim.engine.settings import ModelSettings, RunSettings
from mmace_sim.errors import (
    ConfigError,
    ModelFileError,
    OutputError,
    StructureError,
    UnsupportedOptionError,
)
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.cells import free_strains, parse_cell_mask
from mmace_sim.io.collection import FailedStructure, LoadedStructure, load_structures
from mmace_sim.io.spans import Span, read_spans
from mmace_sim.model.registry import fetch_command
from mmace_sim.structures.checks import check_geometry, check_moments
from mmace_sim.structures.initial_moments import initial_magmoms
from mmace_sim.structures.model_choice import AUTO, choose_model, fetchable, group_by_model
from mmace_sim.structures.moment_range import check_moment_range, largest_moments

AUTO_GET: str = "MMACE_SIM_AUTO_GET"
"""Environment variable that allows to fetch missing models, as `--yes` does."""


def load_run_model(config: ModelSettings, name: str | None = None) -> Any:
    """The model on its device, after checking that it can do what is asked for.

    Args:
        config: The merged configuration.
        name: Model to load in place of the one that the configuration names.

    Returns:
        The energy model.

    Raises:
        ModelFileError: If it cannot be loaded.
        UnsupportedOptionError: If the model or the machine lacks what an option asks for.
    """
    import torch

    from mmace_sim.model.checkpoint import load_model

    name = name or config.model
    elsewhere = getattr(config, "executor", None) is not None  # what computes is not this process
    device = pick_device("cpu" if elsewhere else config.device, config.threads)
    model = load_model(name, device=device, dtype=getattr(torch, config.dtype))
    if isinstance(config, RunSettings) and config.spin_orbit and not model.spin_orbit:
        raise UnsupportedOptionError(
            f"--spin-orbit: model {name!r} has no spin–orbit term. Choose another model "
            "(`mmace-sim models` shows which have one), or leave the option out."
        )
    return model


@lru_cache(maxsize=8)
def _kept_model(name: str, settings: str, kind: type[ModelSettings]) -> Any:
    """A model for one volume after another."""
    return load_run_model(kind.model_validate_json(settings), name)


def prepare_run(
    config: RunSettings,
    *,
    build: Callable[[Any], list[LoadedStructure]] | None = None,
    admit: Callable[[Any], object] = lambda _: None,
    skipped: list[FailedStructure] | None = None,
    spans: Sequence[Span] | None = None,
) -> tuple[dict[str, Any], list[LoadedStructure | FailedStructure]]:
    """The models of a run, and its structures: read, given a model and moments, and checked.

    Args:
        config: The merged configuration.
        build: Makes the structures from the model, where no files are named.
        admit: Raises `UnsupportedOptionError` for a model that the command cannot use.
        skipped: Files of folders that hold no structure are added to it.
        spans: Where the structures of a volume are, in place of all those that the configuration names.

    Returns:
        The models by name, at least one, and structures that can be computed and those that cannot, in the order of the
        files; each that can has the name of its `model`.

    Raises:
        ConfigError: If there is nothing at all.
        ModelFileError: If a model cannot be loaded.
        UnsupportedOptionError: If the models or the machine lack what an option asks for.
    """
    skipped = [] if skipped is None else skipped
    if spans is not None:
        items = read_spans(spans, skipped.append)
    else:
        items = _read_items(config, skipped) if config.paths or build is None else []
    names = _name_models(items, config) or [_first_model(config)]
    if spans is None:
        models = {name: load_run_model(config, name) for name in names}
    else:
        alike = config.model_dump_json(exclude={"output", "paths", "executor"})
        models = {name: _kept_model(name, alike, type(config)) for name in names}
    for model in models.values():
        admit(model)
    if build is not None and not config.paths:
        name, model = next(iter(models.items()))
        items = build(model)
        for item in items:
            item.model = name
        return models, list(items)
    prepared = [_prepare(i, config, models) if isinstance(i, LoadedStructure) else i for i in items]
    return models, prepared


def described(name: str, model: Any) -> dict[str, Any]:
    """What the summary says of a model.

    Args:
        name: Its name.
        model: The model, of energies or of anything else: what has `elements` and `metadata`.
    """
    metadata = {key: value for key, value in model.metadata.items() if key != "config"}
    return {"name": name, "elements": list(model.elements)} | metadata


def _first_model(config: ModelSettings) -> str:
    """The model of a run that has no structure to choose one for."""
    return "default" if config.model == AUTO else config.model


def _read_items(
    config: RunSettings, skipped: list[FailedStructure] | None = None
) -> list[LoadedStructure | FailedStructure]:
    """Structures and failures in the order of the files; that there is nothing at all is an error."""
    missing = [path for path in config.paths if not Path(path).exists()]
    if missing:
        raise ConfigError(f"{', '.join(missing)}: no such file or folder. Check the path.")
    skipped = [] if skipped is None else skipped
    items = load_structures(config.paths, skipped.append)
    if not items:
        passed = f" ({len(skipped)} files hold none: {skipped[0].message})" if skipped else ""
        raise ConfigError(
            f"no structures in {', '.join(config.paths)}{passed}. Name files, or folders with CIF, mCIF, POSCAR, "
            "extxyz or JSON files."
        )
    return items


def _name_models(items: list[LoadedStructure | FailedStructure], config: RunSettings) -> list[str]:
    """Give each structure the name of its model; those that no model knows become failures, in place.

    Returns the names that occur.
    """
    loaded = [k for k, item in enumerate(items) if isinstance(item, LoadedStructure)]
    if config.model != AUTO:
        for k in loaded:
            items[k].model = config.model
        return [config.model] if loaded else []
    images = [items[k].atoms for k in loaded]
    _fetch_missing({frozenset(atoms.numbers.tolist()) for atoms in images}, config)
    groups, unknown = group_by_model(images)
    for name, members in groups.items():
        for member in members:
            items[loaded[member]].model = name
    for member, error in unknown.items():
        items[loaded[member]] = failed(items[loaded[member]], error)
    return list(groups)


def _fetch_missing(compositions: set[frozenset[int]], config: RunSettings) -> None:
    """Fetch the models of the catalogue that structures need and that are not installed, if that was allowed."""
    if not (config.fetch_models or os.environ.get(AUTO_GET, "0") not in ("", "0")):
        return
    tried = set()
    for numbers in sorted(compositions, key=sorted):
        try:
            choose_model(numbers)
        except StructureError:
            try:
                name = fetchable(numbers)
                if name is not None and name not in tried:
                    tried.add(name)  # once only: without a connection the others would wait for it too
                    _fetch(name, numbers)
            except (ModelFileError, OutputError) as error:  # what needs no further model is computed
                say(str(error))


def _fetch(name: str, numbers: frozenset[int]) -> None:
    from mmace_sim.interop.install import get_model

    say(f"Fetching {fetch_command(name)} for {_symbols(numbers)}.")
    get_model(name)


def failed(item: LoadedStructure, error: Exception) -> FailedStructure:
    """What becomes of a structure that cannot be used.

    Args:
        item: The structure.
        error: Why.
    """
    return FailedStructure(item.file, f"{item.name}: {error}", item.index, item.name)


def _symbols(numbers: frozenset[int]) -> str:
    return ", ".join(chemical_symbols[z] for z in sorted(numbers))


def _prepare(
    item: LoadedStructure, config: RunSettings, models: dict[str, Any]
) -> LoadedStructure | FailedStructure:
    try:
        model = models[item.model]
        check_geometry(item.atoms, model.elements)
        moments, note = initial_magmoms(item.atoms, config.initial_magmoms, largest=largest_moments(model))
        set_magmoms(item.atoms, moments)
        check_moments(item.atoms)
        check_moment_range(item.atoms, model)
    except StructureError as error:
        return failed(item, error)
    item.guessed_moments = bool(note)
    item.notes += [note] if note else []
    if getattr(config, "relax_cell", False):
        _, note = free_strains(item.atoms, parse_cell_mask(getattr(config, "cell_mask", None)))
        item.notes += [note] if note else []
    return item


def run_inputs(config: BaseModel, items: Sequence[LoadedStructure | FailedStructure] = ()) -> list[Path]:
    """Files and folders that a run reads, except for its configuration, which it writes again.

    Args:
        config: The merged configuration: every text in it that is the name of a file or folder counts.
        items: What was read.
    """
    texts = list(_texts(config.model_dump(mode="json", exclude={"output"})))
    names = [*texts, *(text.rsplit("#", 1)[0] for text in texts), *(item.file for item in items)]
    return [Path(name) for name in dict.fromkeys(names) if name and _exists(name)]


def _texts(value: object) -> Iterator[str]:
    """All texts in a configuration."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long, or with a null: no name of a file
        return False
