"""What structures have become on the way to their results, kept beside the journal: it is not computed again."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from mmace_sim.engine.computation import Part
from mmace_sim.engine.journal import Journal, fingerprint, read_journal
from mmace_sim.engine.records import decode, encode
from mmace_sim.errors import OutputError
from mmace_sim.files import remove

_log = logging.getLogger(__name__)


class Kept[R]:
    """Results by what was computed, in a file that outlives the process, if there is one.

    Args:
        path: The file, a journal of its own; None keeps nothing. One that cannot be read is started anew.
        identity: What else the results depend on, beside the structure: model and settings.
        kind: Class of the results.
    """

    def __init__(self, path: Path | None = None, identity: str = "", kind: type[R] | None = None) -> None:
        self.path, self._identity = path, identity
        self._journal: Journal | None = None
        self._known: dict[str, R] = {}
        if path is None or kind is None or not path.is_file():
            return
        try:
            records = {record["key"]: record["result"] for record in read_journal(path)}
            self._known = {
                key: decode(kind, record) for key, record in records.items() if key.startswith(f"{identity} ")
            }
        except (OutputError, KeyError, AttributeError) as error:
            _log.warning("%s is not used: %s", path.name, error)
            remove(path)
            return
        if self._known:
            _log.info("%d results of %s are taken from the earlier run", len(self._known), path.stem)

    @classmethod
    def of(cls, part: Part, name: str, kind: type[R]) -> "Kept[R]":
        """Results for the structures of a part of a run.

        Args:
            part: Structures and model.
            name: Name of the file, without its ending.
            kind: Class of the results.
        """
        return cls((part.scratch or part.folder) / f"{name}.jsonl", part.identity, kind)

    def completed(self, images: Mapping[int, Atoms], run: Callable[..., Any]) -> dict[int, R]:
        """The results of some structures; those that are not known are computed and kept.

        Args:
            images: Structures by index.
            run: Computes a list of structures; tells `on_finished` the place in the list and the result of each.
        """
        places, found = list(images), {}
        self.run(run, list(images.values()), lambda place, result: found.update({places[place]: result}))
        return {index: found[index] for index in places}

    def run(
        self, run: Callable[..., Any], images: Sequence[Atoms], on_finished: Callable[[int, R], None]
    ) -> None:
        """Tell the results of structures, the known ones first; the others are computed and kept.

        Args:
            run: Computes a list of structures; tells `on_finished` the place in the list and the result of each.
            images: Structures.
            on_finished: Called with the index and the result of each.

        Raises:
            OutputError: If the disk is full.
        """
        if self.path is None:
            run(images, on_finished=on_finished)
            return
        keys = [f"{self._identity} {fingerprint(atoms)}" for atoms in images]
        missing = [index for index, key in enumerate(keys) if key not in self._known]

        def keep(place: int, result: R) -> None:
            self.keep(keys[missing[place]], result)
            on_finished(missing[place], result)

        for index in sorted(set(range(len(keys))) - set(missing)):
            on_finished(index, self._known[keys[index]])
        if missing:
            run([images[index] for index in missing], on_finished=keep)

    def keep(self, key: str, result: R) -> None:
        """Keep a result.

        Args:
            key: What it belongs to.
            result: What is kept.

        Raises:
            OutputError: If the disk is full.
        """
        if self.path is None:
            return
        if self._journal is None:
            self._journal = Journal(self.path)
        self._journal.append({"key": key, "result": encode(result)})

    def remove(self) -> None:
        """Remove the file: everything that needs it is finished."""
        self.close()
        if self.path is not None:
            remove(self.path)

    def close(self) -> None:
        """Close the file, which stays."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def __enter__(self) -> "Kept[R]":
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self.close() if kind else self.remove()
