"""What structures have become on the way to their results, kept beside the journal: it is not computed again."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from mmace_sim.engine.computation import Part
from mmace_sim.engine.journal import Journal, fingerprint, read_journal
from mmace_sim.engine.records import decode, encode
from mmace_sim.engine.resume import item_key
from mmace_sim.errors import OutputError
from mmace_sim.files import remove

_log = logging.getLogger(__name__)


class Kept[R]:
    """Results by index, in memory, and in a file if there is one.

    Args:
        path: The file, a journal of its own; None keeps nothing on disk. One that cannot be read is started anew.
        keys: What each result belongs to, by index.
        kind: Class of the results.
    """

    def __init__(
        self, path: Path | None = None, keys: Sequence[str] = (), kind: type[R] | None = None
    ) -> None:
        self.path, self._keys, self._journal = path, keys, None
        self.known: dict[int, R] = {}
        if path is None or kind is None or not path.is_file():
            return
        try:
            records = {record["key"]: record["result"] for record in read_journal(path)}
            found = {key: decode(kind, records[key]) for key in keys if key in records}
        except (OutputError, KeyError) as error:
            _log.warning("%s is not used: %s", path.name, error)
            remove(path)
            return
        self.known = {index: found[key] for index, key in enumerate(keys) if key in found}
        if self.known:
            _log.info("%d results of %s are taken from the earlier run", len(self.known), path.stem)

    @classmethod
    def of(cls, part: Part, name: str, kind: type[R]) -> "Kept[R]":
        """Results of the structures that are pending.

        Args:
            part: Structures and model.
            name: Name of the file, without its ending.
            kind: Class of the results.
        """
        keys = [f"{part.identity} {item_key(item)} {fingerprint(item.atoms)}" for item in part.pending]
        return cls((part.scratch or part.folder) / f"{name}.jsonl", keys, kind)

    def completed(self, images: Mapping[int, Atoms], run: Callable[..., Any]) -> dict[int, R]:
        """The results of some structures; those that are not known are computed and kept.

        Args:
            images: Structures by index.
            run: Computes a list of structures; tells `on_finished` the place in the list and the result of each.
        """
        missing = [index for index in images if index not in self.known]
        if missing:
            run(
                [images[k] for k in missing],
                on_finished=lambda place, result: self.keep(missing[place], result),
            )
        return {index: self.known[index] for index in images}

    def keep(self, index: int, result: R) -> None:
        """Keep a result.

        Args:
            index: Of its structure.
            result: What is kept.

        Raises:
            OutputError: If the disk is full.
        """
        self.known[index] = result
        if self.path is None:
            return
        if self._journal is None:
            self._journal = Journal(self.path)
        self._journal.append({"key": self._keys[index], "result": encode(result)})

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
