"""Non-magnetic foundation models of mace-torch by name: its table and its cache, our checks of what is fetched."""

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from mmace_sim.errors import ModelFileError, OutputError
from mmace_sim.hub.catalogue import RemoteFile
from mmace_sim.hub.download import Advance, by_hand, download
from mmace_sim.hub.store import locked, make_folder

ACADEMIC: str = "ASL (academic use only, see github.com/gabor1/ASL)"
LICENCES: Mapping[str, str] = {
    "small": "MIT", "medium": "MIT", "large": "MIT", "small-0b": "MIT", "medium-0b": "MIT", "small-0b2": "MIT",
    "medium-0b2": "MIT", "large-0b2": "MIT", "medium-0b3": "MIT", "medium-mpa-0": "MIT", "small-omat-0": ACADEMIC,
    "medium-omat-0": ACADEMIC, "mace-matpes-pbe-0": ACADEMIC, "mace-matpes-r2scan-0": ACADEMIC,
}  # fmt: skip
"""Licence of the weights, from the table in the README of github.com/ACEsuit/mace-foundations."""
NOT_STATED: str = "not stated here: look it up at github.com/ACEsuit/mace-foundations before you use it"


def fetch_foundation(
    name: str, urls: Mapping[str, str], cache: Path, *, advance: Advance = lambda _: None
) -> Path:
    """The checkpoint of a foundation, from mace-torch's cache or fetched into it.

    Args:
        name: Its name.
        urls: Addresses by name, as mace-torch has them.
        cache: Folder that mace-torch keeps its checkpoints in.
        advance: Told how many bytes there are.

    Raises:
        ModelFileError: If there is no such name, or it cannot be fetched, or what comes is no checkpoint.
        OutputError: If the cache cannot be written.
    """
    remote = foundation(name, urls)
    path = cache / cached_name(remote.url)
    if path.is_file():
        return path
    with locked(f"foundation-{name}"):
        if path.is_file():
            return path
        part = download(remote, advance)
        if not zipfile.is_zipfile(part):
            part.unlink()
            raise ModelFileError(by_hand(remote, "what the server sends is no checkpoint of torch"))
        make_folder(cache)
        try:
            near = shutil.move(part, path.with_name(f"{path.name}.part"))  # our cache may be on another disk
            Path(near).replace(path)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror or error}).") from error
    return path


def foundation(name: str, urls: Mapping[str, str]) -> RemoteFile:
    """What is known of a foundation before it is fetched.

    Args:
        name: Its name.
        urls: Addresses by name.

    Raises:
        ModelFileError: If there is no such name.
    """
    if name not in urls:
        raise ModelFileError(
            f"no foundation '{name}': neither a file nor one of the names {', '.join(urls)} that mace-torch knows."
        )
    filename = PurePosixPath(urlsplit(urls[name]).path).name
    return RemoteFile(name=name, url=urls[name], filename=filename, license=LICENCES.get(name, NOT_STATED))


def cached_name(url: str) -> str:
    """What mace-torch calls the file of an address in its cache: its last part without other characters."""
    return "".join(c for c in url.rsplit("/", 1)[-1] if c.isalnum() or c == "_")
