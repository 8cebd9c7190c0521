"""What a model file says about itself, checked before anything is made of it."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from mmace_sim import __version__
from mmace_sim.errors import ModelFileError
from mmace_sim.model.architectures import ARCHITECTURES
from mmace_sim.model.config import ArchitectureConfig
from mmace_sim.model.uncertainty import UncertaintyFacts

FORMAT_VERSION: int = 4
"""Newest format, with uncertainties. Files that need less are written as format 3 (with a repulsion or non-magnetic
elements), 2 (several heads) or 1 (the one head "default"), which older versions read."""

MAX_CHARACTERS: int = 10_000_000
MAX_DEPTH: int = 100


class ModelHeader(BaseModel):
    """The entries that decide how a file is read; all others are free."""

    model_config = ConfigDict(extra="allow")

    format_version: StrictInt = Field(ge=1)
    """Version of the format."""
    architecture: StrictStr = Field(max_length=200)
    """Class of the model."""
    config: dict[StrictStr, Any]
    """Its hyper-parameters."""
    violations: dict[StrictStr, StrictStr] = {}
    """Identities that it violates, each in words."""
    uncertainty: UncertaintyFacts | None = None
    """What is known of its errors."""


def read_header(path: Path, raw: str) -> tuple[dict[str, Any], ArchitectureConfig]:
    """The header of a file as a dictionary, and the hyper-parameters in it.

    Args:
        path: The file, for messages.
        raw: The header as JSON.

    Raises:
        ModelFileError: If anything in it is missing, of a wrong type or out of bounds, or of a newer version.
    """
    header = _parse(path, raw)
    version = header.get("format_version")
    if isinstance(version, int) and not isinstance(version, bool) and version > FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: model format {version}, but mmace_sim {__version__} reads up to {FORMAT_VERSION}. "
            "Upgrade with `pip install -U mmace-sim`."
        )
    try:
        name = ModelHeader.model_validate(header).architecture
    except ValidationError as error:
        raise _damaged(path, error) from error
    if name not in ARCHITECTURES:
        raise ModelFileError(
            f"{path}: architecture '{name}' is unknown to mmace_sim {__version__}, which has "
            f"{', '.join(ARCHITECTURES)}. Upgrade with `pip install -U mmace-sim`."
        )
    try:
        return header, ARCHITECTURES[name].config.model_validate(header["config"])
    except ValidationError as error:
        raise _damaged(path, error, "config") from error


def _parse(path: Path, raw: str) -> dict[str, Any]:
    if len(raw) > MAX_CHARACTERS:
        raise ModelFileError(
            f"{path}: its header has {len(raw)} characters, at most {MAX_CHARACTERS} make sense."
        )
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path}: the header is no JSON that can be read ({_short(error)}). The file is damaged; copy it again."
        ) from error
    if not isinstance(header, dict):
        raise ModelFileError(f"{path}: the header is {_short(raw)}, expected a mapping. The file is damaged.")
    layer: list[Any] = [header]
    for _ in range(MAX_DEPTH):
        layer = [
            v for x in layer if isinstance(x, dict | list) for v in (x.values() if isinstance(x, dict) else x)
        ]
    if layer:
        raise ModelFileError(f"{path}: the header is nested more than {MAX_DEPTH} deep. The file is damaged.")
    return header


def _damaged(path: Path, error: ValidationError, *section: str) -> ModelFileError:
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(_short(part) for part in (*section, *first["loc"]))
    got = "" if first["type"] == "missing" else f" (got {_short(repr(first['input']))})"
    return ModelFileError(
        f"{path}: {f'{place}: ' if place else ''}{first['msg']}{got}. The file is damaged or was not written by "
        "mmace_sim; download or train it again."
    )


def _short(text: object) -> str:
    """At most 80 characters of a text."""
    text = " ".join(str(text).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
