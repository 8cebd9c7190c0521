"""The list of files that a run keeps in its folder: what a later run may replace or remove there, and nothing else.

``.mmace-sim.jsonl`` is append-only. Its first line names the command; then comes a line for each state of each file,
with size and SHA-256, on disk before the file is. Whatever is not in the list, or differs from all that the list says
of it, is somebody else's: it is never removed, and set aside rather than replaced. The file is locked while a run
writes its folder; the lock goes with the process, so that a killed run blocks nothing.
"""

import contextlib
import json
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any

from mmace_sim.errors import OutputError
from mmace_sim.files.content import NOFOLLOW, State, hash_file, inside, lock, state_of

FILE_NAME = ".mmace-sim.jsonl"
VERSION = 1
HOLDER = re.compile(r"\.mmace-[0-9a-f]{16}")
"""Names of the folders that hold a file until it is complete."""

_active: list["Manifest"] = []


class Manifest:
    """The open list of one folder.

    Nothing is removed or written before :meth:`begin`, which the first write calls: up to then a run can be refused
    without a trace.

    Args:
        folder: An existing folder.
        command: Which command writes there.
        name: Name of the list.
        exclusive: Refuse while another process writes the folder.

    Attributes:
        command: The command whose files are listed; "" if there are none yet.
        problem: Why the list cannot be trusted; "" if it can.
        kept: Files of the earlier run that somebody changed, which :meth:`plan_removal` leaves where they are.
        notes: What the user should know of files that were in the way.

    Raises:
        OutputError: If the list cannot be written or is a link, or another process writes the folder.
    """

    def __init__(self, folder: Path, command: str, *, name: str = FILE_NAME, exclusive: bool = True) -> None:
        self.folder, self.path = Path(os.path.abspath(folder)), Path(os.path.abspath(folder)) / name
        self.exclusive, self.begun = exclusive, False
        self.kept: list[str] = []
        self.notes: list[str] = []
        self._own = command
        self._files: dict[str, set[State]] = {}
        self._holders: list[str] = []
        self._taken: list[dict[str, Any]] = []
        self._removal: list[str] | None = None
        self._on_begin: list[Callable[[], None]] = []
        self._placed: dict[str, tuple[int, int, int]] = {}
        self._growing: dict[str, Any] = {}
        self._lock = threading.RLock()
        self._created = not os.path.lexists(self.path)
        self._fd = self._open()
        self.command, self.problem = self._read()

    def _open(self) -> int:
        while True:
            try:
                fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | NOFOLLOW, 0o644)
            except OSError as error:
                link = "it is a symbolic link" if self.path.is_symlink() else error.strerror or error
                raise OutputError(
                    f"{self.path}: cannot be opened ({link}). Choose another folder with --output."
                ) from error
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                raise OutputError(f"{self.path}: is no file. Choose another folder with --output.")
            if not self.exclusive:
                return fd
            try:
                lock(fd, self.folder)
                if os.path.lexists(self.path) and os.path.samestat(os.fstat(fd), os.lstat(self.path)):
                    return fd
            except OutputError:
                os.close(fd)
                raise
            os.close(fd)  # the process that held it has removed it

    def _read(self) -> tuple[str, str]:
        """Fill `_files` and `_holders`; returns the command, and what is wrong with the list."""
        command, end = "", 0
        with open(os.dup(self._fd), "rb") as file:
            file.seek(0)
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):  # half-written by a killed run
                    break
                end += len(line)
                try:
                    command = self._take(json.loads(line), command)
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    return command, f"line {number} of {self.path.name} is damaged ({error})"
        with contextlib.suppress(OSError):
            os.truncate(self._fd, end)
        return command, ""

    def _take(self, record: object, command: str) -> str:
        """Understand one line; returns the command."""
        if not isinstance(record, dict):
            raise ValueError("no mapping")
        if "command" in record:
            if record["version"] != VERSION or not isinstance(record["command"], str):
                raise ValueError("another version")
            return record["command"]
        name = inside(record["holder"] if "holder" in record else record["file"])
        if "holder" in record:
            if not HOLDER.fullmatch(PurePosixPath(name).name):
                raise ValueError(f"{name!r} is no folder of ours")
            self._holders.append(name)
        else:
            size, digest = record["size"], record["sha256"]
            if type(size) is not int or not re.fullmatch(r"[0-9a-f]{64}", digest):
                raise ValueError("no size or no hash")
            self._files.setdefault(name, set()).add((size, digest))
        return command

    @property
    def existing(self) -> list[str]:
        """Names in the list of which there is something in the folder."""
        return [name for name in self._files if os.path.lexists(self.folder / name)]

    def has_own(self, path: Path) -> bool:
        """Whether a file is in the list and nobody has changed it since.

        Args:
            path: A file.
        """
        name = self._name(path)
        if self._linked_parent(name) is not None:
            return False
        try:
            found = os.lstat(path)
            if not stat.S_ISREG(found.st_mode):
                return False
            if self._placed.get(name) == (found.st_ino, found.st_size, found.st_mtime_ns):
                return True
            known = self._files.get(name, set())
            return any(size == found.st_size for size, _ in known) and state_of(path) in known
        except OSError:
            return False

    def plan_removal(self) -> None:
        """Look at every file of the earlier run that :meth:`begin` is to remove, and refuse what cannot be done.

        Raises:
            OutputError: If the list is damaged, or a file cannot be removed, or was changed and would be written again.
        """
        if self.problem:
            raise OutputError(
                f"{self.folder}: {self.problem}, so that nobody knows which files are its own. Nothing was removed. "
                "Remove the folder yourself, or choose another (--output DIR)."
            )
        own = [name for name in self.existing if self.has_own(self.folder / name)]
        self.kept = [name for name in self.existing if name not in set(own)]
        rewritten = [name for name in self.kept if "/" not in name]
        if rewritten:
            raise OutputError(
                f"{self.folder}: {', '.join(rewritten)} changed since the run wrote it, and the new run would write it "
                "again. Nothing was removed. Move it elsewhere, or choose another folder (--output DIR)."
            )
        for name in own:
            if not os.access((self.folder / name).parent, os.W_OK | os.X_OK):
                raise OutputError(
                    f"{self.folder / name}: cannot be removed (no permission). Nothing was removed. Choose another "
                    "folder (--output DIR)."
                )
        self._removal = own

    def on_begin(self, action: Callable[[], None]) -> None:
        """Have something done once the run begins to write; at once if it has.

        Args:
            action: What to do.
        """
        if self.begun:
            action()
        else:
            self._on_begin.append(action)

    def begin(self) -> None:
        """Remove what :meth:`plan_removal` found, and do what waited for :meth:`on_begin`."""
        with self._lock:
            if self.begun:
                return
            self.begun = True
            if self._removal is not None:
                self._remove(self._removal)
                self._write_line(b"", restart=True)
                self._files, self._taken, self.command = {}, [], ""
            if not self.command:
                self.command = self._own
                self._add({"command": self.command, "version": VERSION})
            for record in self._taken:
                self._add(record)
            for action in self._on_begin:
                action()
            for name in self._holders:  # what they hold of a killed run's results, the actions have saved
                self._remove_holder(name)

    def take(self, record: dict[str, Any]) -> None:
        """Take over a line of another list of this folder (`mmace_sim.files.workers`)."""
        if self.begun:
            self._add(record)
        else:
            self._take(record, "")
            self._taken.append(record)

    def states(self) -> Iterable[tuple[str, set[State]]]:
        """Names of files, and all that is known of each."""
        return self._files.items()

    @property
    def holders(self) -> list[Path]:
        """Folders of a killed run; links are none."""
        own = [self.folder / name for name in self._holders if self._linked_parent(name) is None]
        return [path for path in own if path.is_dir() and not path.is_symlink()]

    def discard(self) -> None:
        """Remove all that is in the list and as it was written, and the list: for a run that was refused."""
        with self._lock:
            names = self.existing
            self._remove([name for name in names if self.has_own(self.folder / name)])
            parents = {parent for name in names for parent in PurePosixPath(name).parents if parent.name}
            for parent in sorted(parents, key=lambda path: -len(path.parts)):
                with contextlib.suppress(OSError):  # somebody else's files are in it
                    (self.folder / parent).rmdir()
            self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let other processes write the folder; a list that was never begun vanishes."""
        with self._lock:
            if self._created and not self.begun:
                self.path.unlink(missing_ok=True)
            os.close(self._fd)

    @contextlib.contextmanager
    def activated(self) -> Iterator["Manifest"]:
        """Let all writers of the package keep this list, until the block ends; then close it."""
        _active.append(self)
        try:
            yield self
        finally:
            _active.remove(self)
            self.close()

    def hold(self, holder: Path) -> None:
        """Note a folder that holds a file until it is complete.

        Args:
            holder: The folder, which does not exist yet.
        """
        self.begin()
        name = self._name(holder)
        self._clear_parents(name)
        self._add({"holder": name})

    def place(self, temporary: Path, path: Path) -> None:
        """Put a complete file where it belongs; what is there and not in the list is set aside.

        Args:
            temporary: The file, in a folder from `hold`.
            path: Where it belongs.
        """
        with self._lock:
            if os.path.lexists(path) and not self.has_own(path):
                self._set_aside(path)
            name, (size, digest) = self._name(path), state_of(temporary)
            self._add({"file": name, "size": size, "sha256": digest})
            found = temporary.stat()
            temporary.replace(path)
            self._placed[name] = (found.st_ino, found.st_size, found.st_mtime_ns)
            self._growing.pop(name, None)

    def grow(self, path: Path, data: bytes) -> None:
        """Note what is about to be appended to a file; a file that is not in the list is not noted.

        Args:
            path: The file.
            data: What is appended.
        """
        self.begin()
        with self._lock:
            name = self._name(path)
            self._clear_parents(name)
            if path.is_symlink():
                self._set_aside(path)
            if name not in self._growing:
                mine = not os.path.lexists(path) or path.stat().st_size == 0 or self.has_own(path)
                self._growing[name] = [*hash_file(path)] if mine else None
            if self._growing[name] is None:
                return
            self._growing[name][0] += len(data)
            self._growing[name][1].update(data)
            size, digest = self._growing[name]
            if (size, digest.hexdigest()) not in self._files.get(name, ()):
                self._add({"file": name, "size": size, "sha256": digest.hexdigest()})
            self._placed.pop(name, None)

    def forget_growth(self, path: Path) -> None:
        """A file was cut, or could not be extended: what comes next is appended to what it now holds.

        Args:
            path: The file.
        """
        self._growing.pop(self._name(path), None)

    def note(self, path: Path) -> None:
        """Add a file as it now is: one that another library wrote for this run.

        Args:
            path: A file in the folder.
        """
        if not path.is_symlink() and path.is_file():
            size, digest = state_of(path)
            self._add({"file": self._name(path), "size": size, "sha256": digest})

    def _name(self, path: Path) -> str:
        return Path(os.path.abspath(path)).relative_to(self.folder).as_posix()

    def _add(self, record: dict[str, Any]) -> None:
        with self._lock:
            self._write_line(json.dumps(record).encode() + b"\n")
            if "file" in record:
                self._files.setdefault(record["file"], set()).add((record["size"], record["sha256"]))

    def _write_line(self, line: bytes, *, restart: bool = False) -> None:
        try:
            size = 0 if restart else os.fstat(self._fd).st_size
            if restart:
                os.truncate(self._fd, 0)
            if os.write(self._fd, line) != len(line):
                os.truncate(self._fd, size)
                raise OSError(28, os.strerror(28))
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error}).") from error

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            if self._linked_parent(name) is None:
                try:
                    (self.folder / name).unlink(missing_ok=True)
                except OSError as error:
                    raise OutputError(f"{name}: cannot be removed ({error.strerror}).") from error

    def _remove_holder(self, name: str) -> None:
        """Remove what a killed run left of an unfinished file or a worker; links are not followed."""
        holder = self.folder / name
        if self._linked_parent(name) is None and not holder.is_symlink():
            shutil.rmtree(holder, ignore_errors=True)

    def _linked_parent(self, name: str) -> Path | None:
        """The first folder on the way to a file that is a link."""
        parents = [self.folder / parent for parent in reversed(PurePosixPath(name).parents)]
        return next((parent for parent in parents[1:] if parent.is_symlink()), None)

    def _clear_parents(self, name: str) -> None:
        """Make sure that the way to a file does not lead out of the folder."""
        while (link := self._linked_parent(name)) is not None:
            self._set_aside(link)
            link.mkdir()

    def _set_aside(self, path: Path) -> None:
        """Rename what is in the way of a file of the run."""
        names = (path.with_name(f"{path.name}.kept{n if n > 1 else ''}") for n in count(1))
        free = next(name for name in names if not os.path.lexists(name))
        path.rename(free)
        self.notes.append(f"{path}: is not as this run wrote it, if it did; it is now {free.name}.")


def active_for(path: Path) -> Manifest | None:
    """The list that a file belongs to, if a run that keeps one is under way.

    Args:
        path: File in the making.
    """
    full = Path(os.path.abspath(path))
    return next((m for m in reversed(_active) if full.is_relative_to(m.folder)), None)


def begin_all() -> None:
    """Tell all runs under way that they begin: nothing will be refused any more."""
    for manifest in tuple(_active):
        manifest.begin()
