"""How the package writes files: whole or not at all, never through a link, and on the list of the run's folder."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from mmace_sim.errors import OutputError
from mmace_sim.files.content import NOFOLLOW, lock
from mmace_sim.files.manifest import Manifest, active_for, begin_all

__all__ = [
    "Appender",
    "Manifest",
    "append",
    "begin_all",
    "cannot_write",
    "keep",
    "note",
    "private_folder",
    "remove",
    "replacing",
    "scratch",
    "write_text",
]


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Write a file completely or not at all, with any library that takes a path.

    The file is made under its own name in a new folder beside its place, which only its owner can enter and nobody can
    foresee, and is moved to its place when the block ends.

    Args:
        path: The file; its folder must exist. An existing one is replaced.
        durable: Wait until the disk has it.

    Yields:
        Where to write.

    Raises:
        OutputError: If it cannot be written.
    """
    holder = _held(path.parent)
    try:
        holder.mkdir(mode=0o700)
        temporary = holder / path.name
        yield temporary
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        _place(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(holder, ignore_errors=True)


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A private folder for what another program writes; it vanishes at the end, after a kill by the next run.

    Args:
        folder: Folder of a run, or one in it, which is made if it does not exist.

    Yields:
        The new folder in it. `keep` moves a file from there to its place.

    Raises:
        OutputError: If it cannot be made.
    """
    holder = private_folder(folder)
    try:
        yield holder
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def private_folder(folder: Path) -> Path:
    """The folder of `scratch`, for those who remove it themselves.

    Args:
        folder: Folder of a run, or one in it, which is made if it does not exist.

    Returns:
        The new folder in it, which the next run removes if nobody does.

    Raises:
        OutputError: If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        holder = _held(folder)
        holder.mkdir(mode=0o700)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return holder


def _held(folder: Path) -> Path:
    """A name in a folder that nobody can foresee, on the list of what vanishes."""
    holder = folder / f".mmace-{secrets.token_hex(8)}"
    manifest = active_for(holder)
    if manifest is not None:
        manifest.hold(holder)
    return holder


def _place(temporary: Path, path: Path) -> None:
    """Move a complete file to its place, and put it on the list."""
    manifest = active_for(path)
    if manifest is None:
        temporary.replace(path)
    else:
        manifest.place(temporary, path)


def keep(temporary: Path, path: Path) -> None:
    """Move a complete file of a `scratch` folder to its place; its folder is made if it does not exist.

    Args:
        temporary: The file.
        path: Where it belongs.

    Raises:
        OutputError: If it cannot be moved.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _place(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a text completely or not at all.

    Args:
        path: The file.
        text: Its content.

    Raises:
        OutputError: If it cannot be written.
    """
    with replacing(path, durable=True) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


class Appender:
    """A file that grows: all that is handed to it at once is on disk together, or nothing of it.

    Args:
        path: The file; made if it does not exist.

    Raises:
        OSError: If it cannot be opened, or is a link that is not on the list of a run.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._manifest = path, active_for(path)
        if self._manifest is not None:
            self._manifest.grow(path, b"")
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | NOFOLLOW, 0o666)
        self.closed = False

    def lock(self) -> None:
        """Refuse while another process has locked the file.

        Raises:
            OutputError: If one has.
        """
        lock(self._fd, self.path.parent)

    def write(self, data: bytes) -> None:
        """Append.

        Args:
            data: What to append.

        Raises:
            OSError: If the disk is full.
        """
        if self._manifest is not None:
            self._manifest.grow(self.path, data)
        size = os.fstat(self._fd).st_size
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                self.truncate(size)
            raise

    def truncate(self, size: int) -> None:
        """Cut the file.

        Args:
            size: What is left of it, in bytes.
        """
        os.ftruncate(self._fd, size)
        if self._manifest is not None:
            self._manifest.forget_growth(self.path)

    def sync(self) -> None:
        """Wait until the disk has everything."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self.closed = True
            os.close(self._fd)

    def __enter__(self) -> "Appender":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def append(path: Path, text: str) -> None:
    """Append to a file that may not exist yet.

    Args:
        path: The file.
        text: What to append.

    Raises:
        OutputError: If it cannot be written.
    """
    try:
        with Appender(path) as file:
            file.write(text.encode(errors="backslashreplace"))
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error to raise when `path` cannot be written.

    Args:
        path: File or folder.
        error: What the system said.

    Returns:
        The error; a run adds what is finished and how to go on.
    """
    if isinstance(error, OutputError):
        return error
    return OutputError(f"{path}: cannot be written ({error.strerror or error}).")


def remove(path: Path) -> None:
    """Remove a file of this run that is no longer needed, unless somebody else has changed it.

    Args:
        path: The file; it need not exist.
    """
    manifest = active_for(path)
    if manifest is None or manifest.has_own(path):
        path.unlink(missing_ok=True)


def note(path: Path) -> None:
    """Put a file on the list of its run, as it now is: one that another library writes by its own rules.

    Args:
        path: The file.
    """
    manifest = active_for(path)
    if manifest is not None:
        manifest.note(path)
