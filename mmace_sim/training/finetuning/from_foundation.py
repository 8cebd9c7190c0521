"""Training that starts from a non-magnetic MACE: ``model: {foundation: FILE_OR_NAME, head: …, freeze_backbone: …}``."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmace_sim.architectures.foundation_mmace import MAGNETIC_FIELDS, FoundationConfig, FoundationMMACE
from mmace_sim.interop.foundation import FoundationFile, find_foundation
from mmace_sim.io.frames import Frame
from mmace_sim.model.registry import split_head
from mmace_sim.training.data.dataset import GraphDataset, make_loader

FOUNDATION_KEYS: tuple[str, ...] = ("foundation", "head", "freeze_backbone")
"""Keys of the model section that say what to start from and what to train."""


def foundation_file(name: str) -> FoundationFile:
    """The file of a foundation, read only once in a run.

    Args:
        name: File or name.
    """
    path = find_foundation(name).resolve()
    return _read_foundation(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read_foundation(path: Path, _changed: int) -> FoundationFile:
    return FoundationFile(path)


def foundation_config(section: Mapping[str, Any], derived: Mapping[str, Any]) -> FoundationConfig:
    """Hyper-parameters of the magnetic model around a foundation.

    Args:
        section: Model section of the configuration.
        derived: Values for fields that it leaves open.
    """
    free = {k: v for k, v in derived.items() if k in (*MAGNETIC_FIELDS, "heads")}
    fields = free | {k: v for k, v in section.items() if k not in FOUNDATION_KEYS}
    elements = fields.pop("atomic_numbers")
    return foundation_file(section["foundation"]).config(elements=elements, **fields)


def resolved_section(section: Mapping[str, Any], complete: FoundationConfig) -> dict[str, Any]:
    """The model section with the fields of the magnetic part filled in, to be read again.

    Args:
        section: Model section of the configuration.
        complete: Complete hyper-parameters.
    """
    chosen = {k: v for k, v in section.items() if k in FOUNDATION_KEYS}
    return chosen | complete.model_dump(mode="json", include={*MAGNETIC_FIELDS, "heads"})


def foundation_model(section: Mapping[str, Any], config: FoundationConfig) -> FoundationMMACE:
    """The foundation as a magnetic model, ready for training.

    Args:
        section: Model section of the configuration.
        config: Complete hyper-parameters.
    """
    head = section.get("head") or split_head(section["foundation"])[1]
    model = foundation_file(section["foundation"]).model(config, head).train()
    if section.get("freeze_backbone"):
        for parameter in model.backbone_parameters():
            parameter.requires_grad_(False)
    return model


def left_of_energies(model: FoundationMMACE, frames: Sequence[Frame]) -> list[Frame]:
    """The structures with what the foundation leaves of their energies, for the one-body fit.

    Args:
        model: The foundation, nothing of it trained yet.
        frames: Structures.

    Returns:
        Those that have an energy.
    """
    known = [frame for frame in frames if "energy" in frame.labels]
    batches = make_loader(GraphDataset(known, model.r_max), batch_size=8)
    with torch.no_grad():
        energies = [model(batch.graph)["energy"] for batch in batches]
    left = [f.labels["energy"] - e for f, e in zip(known, torch.cat(energies).numpy(), strict=True)]
    return [replace(f, labels=f.labels | {"energy": np.asarray(e)}) for f, e in zip(known, left, strict=True)]
