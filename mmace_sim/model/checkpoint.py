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
from mmace_sim.model.registry import resolve_model

FORMAT_VERSION: int = 1
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
    header = {
        **(model.metadata if metadata is None else metadata),
        "format_version": FORMAT_VERSION,
        "architecture": type(model).__name__,
        "config": model.config.model_dump(mode="json"),
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
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> AnyModel:
    """Load a model for inference.

    A model whose file says that it violates physical identities (see ``mmace-sim convert``) is loaded
    with a :class:`~mmace_sim.errors.PhysicsWarning` that names them.

    Args:
        name_or_path: Name in the registry ("default", see ``mmace-sim models``) or path of a file.
        device: Where to put it.
        dtype: ``torch.float32`` or ``torch.float64``; energies are float64 in any case.

    Returns:
        The model in evaluation mode, its parameters frozen, with the file's ``metadata``.

    Raises:
        ModelFileError: If there is no such model, or the file is truncated, corrupted, foreign or of a newer format.
    """
    path = resolve_model(name_or_path)
    header, tensors = _read(path, tensors=True)
    name = header.get("architecture")
    if name not in ARCHITECTURES:
        raise ModelFileError(
            f"{path}: architecture '{name}' is unknown to mmace_sim {__version__}, which has "
            f"{', '.join(ARCHITECTURES)}. Upgrade with `pip install -U mmace-sim`."
        )
    architecture = ARCHITECTURES[name]
    try:
        model = architecture.model(architecture.config.model_validate(header["config"]))
        model.load_state_dict(tensors)
    except (KeyError, ValidationError, RuntimeError) as error:
        raise ModelFileError(
            f"{path}: weights and configuration do not fit together ({str(error).splitlines()[0]}). "
            "The file is damaged or was not written by mmace_sim; download or train it again."
        ) from error
    model.metadata = header
    model.to(device=device, dtype=dtype)
    model.requires_grad_(requires_grad=False)
    if header.get("violations"):
        described = "; ".join(header["violations"].values())
        warnings.warn(f"{path.name} violates: {described}.", PhysicsWarning, stacklevel=2)
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
