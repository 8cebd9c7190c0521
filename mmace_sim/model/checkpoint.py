"""The model file: one safetensors file with the weights and, as JSON, everything else."""

import json
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mmace_sim import __version__
from mmace_sim.errors import ModelFileError, PhysicsWarning
from mmace_sim.model.architectures import ARCHITECTURES, AnyModel
from mmace_sim.model.config import DEFAULT_HEAD
from mmace_sim.model.heads import choose_heads
from mmace_sim.model.registry import resolve_model, split_head

FORMAT_VERSION: int = 2
"""Newest format; files with the one head "default" are still written as format 1, which older versions read."""

_KEY = "mmace_sim"


def save_model(model: AnyModel, path: str | Path, metadata: dict[str, Any] | None = None) -> Path:
    """Write a model to one safetensors file.

    Args:
        model: The model.
        path: File to write; an existing one is replaced at once, never half.
        metadata: JSON-able facts to keep with it ("name", "training_data", "errors", "license", "citation", …); without
            it the model's own metadata.

    Returns:
        The path.
    """
    path = Path(path)
    config = model.config.model_dump(mode="json")
    if plain := model.heads == [DEFAULT_HEAD] and not config["heads"][DEFAULT_HEAD]:
        del config["heads"]
    header = {
        **(model.metadata if metadata is None else metadata),
        "format_version": 1 if plain else FORMAT_VERSION,
        "architecture": type(model).__name__,
        "config": config,
        "mmace_sim_version": __version__,
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, temporary, metadata={_KEY: json.dumps(header)})
    temporary.chmod(0o644)  # safetensors makes files that only their owner can read
    temporary.replace(path)
    return path


def read_metadata(name_or_path: str | Path) -> dict[str, Any]:
    """Metadata of a model file without reading its weights.

    Args:
        name_or_path: Name in the registry or path of a file.

    Raises:
        ModelFileError: If there is no such model or the file cannot be used.
    """
    return _read(resolve_model(name_or_path), tensors=False)[0]


def load_model(
    name_or_path: str | Path = "default",
    *,
    head: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> AnyModel:
    """Load a model for inference.

    A model that was trained on several data sets has a head for each: one of them has to be chosen, here or behind
    the name (``iron.safetensors#fcc``), unless one of them is called "default".

    A model whose file says that it violates physical identities (see ``mmace-sim convert``) is loaded
    with a :class:`~mmace_sim.errors.PhysicsWarning` that names them.

    Args:
        name_or_path: Name in the registry ("default", see ``mmace-sim models``) or path of a file.
        head: Data set whose zero of energy and one-body energies to use.
        device: Where to put it.
        dtype: ``torch.float32`` or ``torch.float64``; energies are float64 in any case.

    Returns:
        The model in evaluation mode, its parameters frozen, with the file's ``metadata``.

    Raises:
        ModelFileError: If there is no such model or head, a head has to be chosen, or the file is truncated, corrupted,
            foreign or of a newer format.
    """
    path = resolve_model(name_or_path)
    header, tensors = _read(path, tensors=True)
    chosen = _choose_head(path, header, head or split_head(name_or_path)[1])
    return _build(path, header, tensors, chosen).to(device=device, dtype=dtype)


def load_all_heads(name_or_path: str | Path) -> AnyModel:
    """Load a model with all its heads, to go on training; the graphs must say which one counts.

    Args:
        name_or_path: Name in the registry or path of a file.

    Raises:
        ModelFileError: As for :func:`load_model`.
    """
    path = resolve_model(name_or_path)
    return _build(path, *_read(path, tensors=True), head=None)


def _choose_head(path: Path, header: dict[str, Any], head: str | None) -> str | None:
    """Head to load; None if the file has only one and none was asked for."""
    heads = list(header.get("config", {}).get("heads", {DEFAULT_HEAD: {}}))
    chosen = head or DEFAULT_HEAD
    if len(heads) == 1 and head is None:
        return None
    if chosen not in heads:
        problem = f"has no head '{head}'" if head else "was trained on several data sets"
        raise ModelFileError(
            f"{path}: {problem}; choose one of its heads {', '.join(heads)} as in {path.name}#{heads[0]}."
        )
    return chosen


def _build(
    path: Path, header: dict[str, Any], tensors: dict[str, torch.Tensor], head: str | None
) -> AnyModel:
    """The model of a file that was read, with one of its heads or (None) with all of them."""
    name = header.get("architecture")
    if name not in ARCHITECTURES:
        raise ModelFileError(
            f"{path}: architecture '{name}' is unknown to mmace_sim {__version__}, which has "
            f"{', '.join(ARCHITECTURES)}. Upgrade with `pip install -U mmace-sim`."
        )
    architecture = ARCHITECTURES[name]
    try:
        config = architecture.config.model_validate(header["config"])
        if head is not None:
            config, tensors = choose_heads(config, tensors, {head: head})
        model = architecture.model(config)
        model.load_state_dict(tensors)
    except (KeyError, ValidationError, RuntimeError) as error:
        raise ModelFileError(
            f"{path}: weights and configuration do not fit together ({str(error).splitlines()[0]}). "
            "The file is damaged or was not written by mmace_sim; download or train it again."
        ) from error
    model.metadata = header
    model.requires_grad_(requires_grad=False)
    if header.get("violations"):
        described = "; ".join(header["violations"].values())
        warnings.warn(f"{path.name} violates: {described}.", PhysicsWarning, stacklevel=3)
    return model.eval()


def _read(path: Path, *, tensors: bool) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and weights of a file, both checked."""
    try:
        with safe_open(path, framework="pt") as file:
            raw = (file.metadata() or {}).get(_KEY)
            values = {key: file.get_tensor(key) for key in file.keys()} if tensors else {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelFileError(
            f"{path}: not a readable safetensors file ({error}). It is truncated or not a model of mmace_sim; "
            "copy it again, or convert other models first."
        ) from error
    if raw is None:
        raise ModelFileError(
            f"{path}: a safetensors file, but not one of mmace_sim (no '{_KEY}' entry in its header)."
        )
    header = json.loads(raw)
    version = header.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: model format {version}, but mmace_sim {__version__} reads up to {FORMAT_VERSION}. "
            "Upgrade with `pip install -U mmace-sim`."
        )
    return header, values
