"""Lists of files that workers keep: other processes, also on other machines, that write into the folder of a run.

Each worker has a folder of its own in that of the run, one of those that vanish (`mmace_sim.files.scratch`). In it lies
the list of everything that it writes, wherever in the folder of the run; the process that was started takes it over.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mmace_sim.errors import OutputError
from mmace_sim.files.content import State
from mmace_sim.files.manifest import HOLDER, Manifest

LIST = "files.jsonl"


class WorkerList(Manifest):
    """The list of a worker.

    Args:
        folder: Folder of the run.
        command: Which command writes there.
        own: The worker's own folder in it.
        known: What the run has written before, of all that the worker might write again.
    """

    def __init__(
        self, folder: Path, command: str, own: Path, known: Mapping[str, Iterable[State]] | None = None
    ) -> None:
        super().__init__(folder, command, name=f"{own.name}/{LIST}", exclusive=False)
        for name, states in (known or {}).items():
            self._files.setdefault(name, set()).update((size, digest) for size, digest in states)

    def hold(self, holder: Path) -> None:
        """See `Manifest.hold`; nothing is written any more for a run that somebody else goes on with."""
        self._check()
        super().hold(holder)

    def grow(self, path: Path, data: bytes) -> None:
        """See `Manifest.grow`."""
        self._check()
        super().grow(path, data)

    def _check(self) -> None:
        if not self.path.exists():
            raise OutputError(f"{self.folder}: this worker is no longer one of the run's.")


def take_over(manifest: Manifest, own: Path) -> None:
    """Put what a worker has written on the list of its run.

    Args:
        manifest: List of the run.
        own: The worker's own folder, whose files are left out: they vanish with it.
    """
    for record in _records(own / LIST):
        if not HOLDER.fullmatch(PurePosixPath(str(record.get("file", own.name))).parts[0]):
            manifest.take(record)


def known_by_folder(manifest: Manifest) -> dict[str, dict[str, list[State]]]:
    """What a list says of the files in each folder of the run's.

    Returns:
        By the name of the folder: states by the name of the file.
    """
    found: dict[str, dict[str, list[State]]] = {}
    for name, states in manifest.states():
        first, *rest = PurePosixPath(name).parts
        if rest:
            found.setdefault(first, {})[name] = sorted(states)
    return found


def _records(path: Path) -> Iterable[dict[str, Any]]:
    """Whole lines of a list."""
    if path.is_symlink() or not path.is_file():
        return
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            record = json.loads(line)
        except ValueError:  # half-written, then gone on with
            continue
        if isinstance(record, dict) and "file" in record:
            yield record
