"""What a command starts from: the model on its device, and the structures, read and checked."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mmace_sim.cli.config import ModelRunConfig, RunConfig
from mmace_sim.cli.options import pick_device
from mmace_sim.errors import ConfigError, StructureError, UnsupportedOptionError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.cells import free_strains, parse_cell_mask
from mmace_sim.workflows.checks import check_geometry, check_moments
from mmace_sim.workflows.initial_moments import initial_magmoms
from mmace_sim.workflows.moment_range import check_moment_range, largest_moments
from mmace_sim.workflows.structures import FailedStructure, LoadedStructure, load_structures


def load_run_model(config: ModelRunConfig) -> Any:
    """The model on its device, after checking that it can do what is asked for.

    Args:
        config: The merged configuration.

    Returns:
        The energy model.

    Raises:
        ModelFileError: If it cannot be loaded.
        UnsupportedOptionError: If the model or the machine lacks what an option asks for.
    """
    import torch

    from mmace_sim.model.checkpoint import load_model

    device = pick_device(config.device, config.threads)
    model = load_model(config.model, device=device, dtype=getattr(torch, config.dtype))
    if isinstance(config, RunConfig) and config.spin_orbit and not model.spin_orbit:
        raise UnsupportedOptionError(
            f"--spin-orbit: model {config.model!r} has no spin–orbit term. Choose another model "
            "(`mmace-sim models` shows which have one), or leave the option out."
        )
    return model


def prepare_structures(
    config: RunConfig, model: Any, skipped: list[FailedStructure] | None = None
) -> list[LoadedStructure | FailedStructure]:
    """Read, initialise the moments of, and check every structure.

    Args:
        config: The merged configuration.
        model: The energy model.
        skipped: Files of folders that hold no structure are added to it.

    Returns:
        Structures that can be computed and those that cannot, in the order of the files.

    Raises:
        ConfigError: If there is nothing at all.
    """
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
    return [_prepare(item, config, model) if isinstance(item, LoadedStructure) else item for item in items]


def _prepare(item: LoadedStructure, config: RunConfig, model: Any) -> LoadedStructure | FailedStructure:
    try:
        check_geometry(item.atoms, model.elements)
        moments, note = initial_magmoms(item.atoms, config.initial_magmoms, largest=largest_moments(model))
        set_magmoms(item.atoms, moments)
        check_moments(item.atoms)
        check_moment_range(item.atoms, model)
    except StructureError as error:
        return FailedStructure(item.file, f"{item.name}: {error}", item.index, item.name)
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


def _texts(value: Any) -> Iterator[str]:
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
