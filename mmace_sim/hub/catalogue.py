"""The list of models that can be fetched: one YAML file in the package, and the users' own."""

import os
import re
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mmace_sim.base.yamlfile import read_yaml
from mmace_sim.errors import ConfigError, ModelFileError

ENTRY_POINT_GROUP: str = "mmace_sim.catalogues"
"""Entry points of this group are functions without arguments that return the path of a catalogue."""

VARIABLE: str = "MMACE_SIM_MODELS"
"""Environment variable with further catalogues (YAML), model files and folders of them, as PATH separates them."""

BUILT_IN: Path = Path(__file__).with_name("catalogue.yaml")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class RemoteFile(BaseModel):
    """A file on the web."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)

    name: str
    """What commands call it."""
    url: str
    """Address; may redirect."""
    filename: str
    """Name of the file, for people who fetch it by hand."""
    size: int | None = Field(default=None, gt=0, le=10**11)
    """Its length in bytes; None: as the server says."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Its hash; None: not known."""
    license: str
    """Licence of the weights."""

    @field_validator("name", "filename")
    @classmethod
    def _safe(cls, value: str) -> str:
        """Names become names of files."""
        return check_name(value)

    @field_validator("url")
    @classmethod
    def _encrypted(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise ValueError("must begin with https://")
        return value


class RemoteModel(RemoteFile):
    """A magnetic model on the web, whose bytes are known."""

    size: int = Field(gt=0, le=10**11)
    """Its length in bytes."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Its hash."""
    citation: str
    """What users should cite."""
    head: str | None = None
    """Head to keep of a checkpoint with several."""
    elements: tuple[str, ...] = ()
    """Symbols of the elements that it knows."""
    description: str = ""
    """What it is, in one sentence."""
    homepage: str = ""
    """Page for people."""
    training_data: str = ""
    """What it was trained on."""

    @field_validator("elements", mode="before")
    @classmethod
    def _symbols(cls, value: object) -> Any:
        return tuple(value.split()) if isinstance(value, str) else value

    @property
    def megabytes(self) -> float:
        """Length in MB."""
        return self.size / 1e6


def check_name(name: str) -> str:
    """The name of a model, if it may become the name of a file.

    Raises:
        ValueError: If it may not.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not made of letters, digits, '-', '_' and '.'")
    return name


def read_catalogue() -> dict[str, RemoteModel]:
    """All models that can be fetched, by name; a later catalogue wins over an earlier one.

    Returns:
        Those of the package, of installed plugins (entry points of the group `mmace_sim.catalogues`) and of the YAML
        files that the environment variable ``MMACE_SIM_MODELS`` names, in this order.

    Raises:
        ModelFileError: If a catalogue cannot be read; the message names it.
    """
    known, problems = usable_catalogues()
    if problems:
        raise problems[0]
    return known


def usable_catalogues() -> tuple[dict[str, RemoteModel], list[ModelFileError]]:
    """The models of all catalogues that can be read, and what is wrong with the others."""
    known: dict[str, RemoteModel] = {}
    problems = []
    for catalogue in _catalogues():
        try:
            known |= {model.name: model for model in read_catalogue_file(_path_of(catalogue))}
        except ModelFileError as error:
            problems.append(error)
    return known, problems


def remote_model(name: str) -> RemoteModel:
    """A model of the catalogue.

    Raises:
        ModelFileError: If the catalogue does not have it.
    """
    catalogue = read_catalogue()
    if name not in catalogue:
        raise ModelFileError(
            f"no model '{name}' can be fetched; there are {', '.join(catalogue)} (see `mmace-sim models`)."
        )
    return catalogue[name]


def read_catalogue_file(path: Path) -> list[RemoteModel]:
    """The models of one catalogue.

    Args:
        path: YAML file, a mapping of names to the fields of `RemoteModel`.

    Raises:
        ModelFileError: If it cannot be read or an entry is impossible.
    """
    try:
        content = read_yaml(path)
    except ConfigError as error:
        raise ModelFileError(
            f"{error} It is no catalogue of models; expected names with url, size, sha256, ..."
        ) from error
    models = []
    for name, fields in content.items():
        try:
            models.append(RemoteModel.model_validate({"name": str(name), **dict(fields or {})}))
        except (ValidationError, TypeError, ValueError) as error:
            raise ModelFileError(f"{path}: model {str(name)[:100]!r}: {_first_problem(error)}.") from error
    return models


def listed_files() -> dict[str, Path]:
    """Model files that ``MMACE_SIM_MODELS`` names, or that lie in folders it names, by their names without ending."""
    files = [
        file
        for path in _listed_paths()
        for file in (sorted(path.glob("*.safetensors")) if path.is_dir() else [path])
        if file.suffix == ".safetensors" and file.is_file()
    ]
    return {file.stem: file for file in files}


def _catalogues() -> Iterator[Path | EntryPoint]:
    yield BUILT_IN
    yield from entry_points(group=ENTRY_POINT_GROUP)
    yield from (path for path in _listed_paths() if path.suffix.lower() in (".yaml", ".yml"))


def _path_of(catalogue: Path | EntryPoint) -> Path:
    if isinstance(catalogue, Path):
        return catalogue
    try:
        return Path(catalogue.load()())
    except Exception as error:
        raise ModelFileError(
            f"catalogue '{catalogue.name}' of {catalogue.dist.name if catalogue.dist else 'a plugin'} cannot be "
            f"loaded: {error}. Reinstall or remove that package."
        ) from error


def _listed_paths() -> list[Path]:
    paths = [Path(part).expanduser() for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part]
    for path in paths:
        if not path.exists():
            raise ModelFileError(f"{path}: named by the environment variable {VARIABLE}, but not there.")
    return paths


def _first_problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
