"""Models from the web or from a file into the user's cache, as model files that hold no code."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmace_sim.errors import ModelFileError, OutputError
from mmace_sim.hub.catalogue import RemoteModel, read_catalogue, remote_model
from mmace_sim.hub.download import download, file_hash
from mmace_sim.hub.store import installed_models, locked, make_folder, model_folder, model_path
from mmace_sim.model.checkpoint import load_all_heads, load_model, save_model
from mmace_sim.model.registry import list_models


def get_model(
    name: str, *, advance: Callable[[int], None] = lambda _: None, force: bool = False
) -> tuple[Path, bool]:
    """Fetch a model of the catalogue and install it.

    Args:
        name: Its name in the catalogue.
        advance: Told how many bytes there are.
        force: Fetch it although it is installed.

    Returns:
        The model file, and whether it was fetched (False if it was there).

    Raises:
        ModelFileError: If the catalogue has no such model, or it cannot be fetched or read.
        OutputError: If the cache cannot be written.
    """
    remote = remote_model(name)
    with locked(name):
        path = model_path(name)
        if path.is_file() and not force:
            return path, False
        part = download(remote, advance)
        _install(part, path, _facts(remote), remote.head)
        part.unlink()
    return path, True


def add_model(
    file: str | Path, *, name: str | None = None, head: str | None = None, force: bool = False
) -> Path:
    """Install a file: one that was fetched by hand, a checkpoint of the published code, or a model file.

    Args:
        file: The file; it is left as it is.
        name: What to call the model; by default what the catalogue calls a file with this hash, or the file's name.
        head: Head to keep of a checkpoint with several.
        force: Replace a model of this name.

    Returns:
        The model file in the cache.

    Raises:
        ModelFileError: If the file cannot be read, cannot be called so, or is not what the catalogue calls so.
        OutputError: If there is such a model, or the cache cannot be written.
    """
    file = Path(file)
    if not file.is_file():
        raise ModelFileError(f"{file}: no such file.")
    found = file_hash(file)
    remote = next((model for model in read_catalogue().values() if model.sha256 == found), None)
    if remote is None:
        _check_not_announced(file, name, found)
    name = name or (remote.name if remote else file.stem)
    path = model_path(name)
    if name in list_models() and name not in installed_models():
        raise OutputError(
            f"'{name}' is a model of the package or of a plugin; choose another name with --name."
        )
    with locked(name):
        if path.exists() and not force:
            raise OutputError(
                f"'{name}' is installed already ({path}); replace it with --force, or use --name."
            )
        facts = _facts(remote) if remote else {"name": name}
        _install(file, path, facts, head or (remote.head if remote else None))
    return path


def _check_not_announced(file: Path, name: str | None, found: str) -> None:
    """Refuse a file that looks like one of the catalogue, but has other bytes."""
    for remote in read_catalogue().values():
        if remote.name == (name or file.stem) or (name is None and remote.filename == file.name):
            raise ModelFileError(
                f"{file}: not the file that the catalogue calls {remote.name} ({file.stat().st_size} bytes with sha256 "
                f"{found}, expected {remote.size} bytes with {remote.sha256}). Fetch it again, or install it as "
                "another model with --name."
            )


def _facts(remote: RemoteModel) -> dict[str, Any]:
    """What the catalogue adds to the metadata of a model."""
    facts = remote.model_dump(include={"name", "license", "citation", "description", "training_data"})
    source = remote.model_dump(include={"url", "sha256", "size", "homepage"})
    return {key: value for key, value in facts.items() if value} | {"source": source}


def _install(file: Path, path: Path, facts: dict[str, Any], head: str | None) -> None:
    """Read a file of either kind and write it as a model file, at once or not at all."""
    from mmace_sim.interop.convert import convert, is_model_file

    make_folder(model_folder())
    handle, temporary = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".safetensors", dir=model_folder())
    os.close(handle)
    try:
        if is_model_file(file):
            model = load_all_heads(file) if head is None else load_model(file, head=head)
            save_model(model, temporary, model.metadata | facts)
        else:
            convert(file, temporary, head=head, metadata=facts)
        Path(temporary).replace(path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        with suppress(OSError):
            Path(temporary).unlink(missing_ok=True)
