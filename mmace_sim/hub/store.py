"""Where fetched models are kept: the user's cache, one safetensors file for each."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from mmace_sim.errors import ModelFileError, OutputError
from mmace_sim.hub.catalogue import check_name

VARIABLE: str = "MMACE_SIM_CACHE"
"""Environment variable with the folder to use in place of the user's cache."""


def cache_folder() -> Path:
    """Folder of everything that is fetched; it need not exist."""
    chosen = os.environ.get(VARIABLE)
    return Path(chosen).expanduser() if chosen else user_cache_path("mmace_sim")


def model_folder() -> Path:
    """Folder of the installed models; it need not exist."""
    return cache_folder() / "models"


def installed_models() -> dict[str, Path]:
    """Names and files of the models in the cache, in alphabetical order."""
    return {path.stem: path for path in sorted(model_folder().glob("*.safetensors")) if path.is_file()}


def model_path(name: str) -> Path:
    """Where a model of this name is or would be kept.

    Raises:
        ModelFileError: If this cannot be the name of a file.
    """
    try:
        return model_folder() / f"{check_name(name)}.safetensors"
    except ValueError as error:
        raise ModelFileError(f"no name of a model: {error}.") from error


def make_folder(folder: Path) -> Path:
    """Create a folder of the cache.

    Raises:
        OutputError: If it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be created ({error.strerror or error}). Choose another cache with {VARIABLE}=DIR."
        ) from error
    return folder


@contextmanager
def locked(name: str, *, timeout: float = 3600.0) -> Iterator[None]:
    """Keep other processes from fetching, adding or removing the same model meanwhile.

    The lock goes with the process that holds it: what a killed one leaves blocks nothing.

    Args:
        name: Name of the model.
        timeout: How long to wait for another process, in seconds.

    Raises:
        OutputError: If another process holds it for longer, or the cache cannot be written.
    """
    path = make_folder(cache_folder() / "locks") / f"{model_path(name).stem}.lock"
    try:
        with FileLock(path, timeout=timeout):
            yield
    except Timeout as error:
        raise OutputError(f"model '{name}' is being fetched by another process; try again later.") from error


def remove_model(name: str) -> Path:
    """Delete a model from the cache.

    Raises:
        ModelFileError: If no model of this name is in the cache; embedded models and those of plugins stay.
        OutputError: If it cannot be deleted.
    """
    path = model_path(name)
    if not path.is_file():
        known = ", ".join(installed_models()) or "none"
        raise ModelFileError(f"no model '{name}' is installed in {model_folder()} (installed: {known}).")
    with locked(name):
        try:
            path.unlink()
        except OSError as error:
            raise OutputError(f"{path}: cannot be deleted ({error.strerror or error}).") from error
    return path


def free_bytes(folder: Path) -> int:
    """Free space on the disk of a folder that exists, in bytes."""
    return shutil.disk_usage(folder).free
