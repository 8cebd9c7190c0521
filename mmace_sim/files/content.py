"""What a file holds, names within a folder, and locks."""

import hashlib
import logging
import os
from pathlib import Path, PurePosixPath
from typing import Any

from mmace_sim.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

State = tuple[int, str]
"""Size in bytes and SHA-256 of a file."""

NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
"""How files are opened that might be links or pipes of somebody else."""

_log = logging.getLogger(__name__)


class FolderInUseError(OutputError):
    """Another process is writing a folder."""


def state_of(path: Path) -> State:
    """Size and SHA-256 of a file.

    Args:
        path: A regular file.
    """
    size, digest = hash_file(path)
    return size, digest.hexdigest()


def lock(fd: int, folder: Path) -> None:
    """Lock an open file until this process closes it or ends.

    Args:
        fd: Descriptor of the file.
        folder: The folder that the lock stands for.

    Raises:
        OutputError: If another process holds it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FolderInUseError(
            f"{folder}: another process is writing this folder. Wait for it, or choose another --output."
        ) from error
    except OSError:  # file systems without locks
        _log.debug("%s cannot be locked", folder)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file; False where there are no locks."""
    if fcntl is None:
        return False
    try:
        fd = os.open(path, os.O_RDONLY | NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
    return False


def hash_file(path: Path) -> tuple[int, Any]:
    """Size of a file and its SHA-256 so far, to go on with; nothing of a file that does not exist.

    Args:
        path: A regular file.
    """
    size, digest = 0, hashlib.sha256()
    if os.path.lexists(path):
        with open(os.open(path, os.O_RDONLY | NOFOLLOW), "rb") as file:
            while block := file.read(2**20):
                size += len(block)
                digest.update(block)
    return size, digest


def inside(name: Any) -> str:
    """A name of a list of files, after making sure that it lies within the folder.

    Args:
        name: What the list says.

    Raises:
        ValueError: If it does not.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or str(path) != name or "\0" in name:
        raise ValueError(f"{str(name)[:80]!r} lies outside of the folder")
    return name
