"""Structures that stay in databases on the disk and are read when they are asked for: sets larger than memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import DataError, StructureError
from mmace_sim.io import expand_folders, labelled
from mmace_sim.io.database import FORMAT, Rows, is_database, open_rows
from mmace_sim.io.frames import Frame, FrameSet, frame_of, read_frames
from mmace_sim.io.rows import row_to_atoms
from mmace_sim.training.data.stream_summary import FrameSummary, SummaryBuilder, summarize

STREAM_ABOVE: int = 30_000
"""Databases with more structures than this are read from the disk while training, if not asked otherwise."""


class DatabaseFrames:
    """The structures of one database as frames.

    Args:
        path: The database.
        keys: Names of the labels.
        head: Data set that the structures belong to.
    """

    def __init__(self, path: Path, keys: LabelKeys, head: str) -> None:
        self.path = path
        self.rows: Rows = open_rows(path)
        self._keys, self._head = keys, head

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> Frame:
        item = labelled(row_to_atoms(self.rows[position], self._keys), FORMAT, self._keys)
        frame = frame_of(item, f"{self.path}@{position}", self._keys)
        frame.head = self._head
        return frame


class StoredFrames(Sequence[Frame]):
    """Structures of several files, each read when it is asked for; a slice is such a set again.

    Args:
        files: Databases, and lists of what was read from other files.
        file: Number of the file of each structure.
        position: Place of each structure in it.
        summary: A few numbers of each structure.
    """

    def __init__(
        self,
        files: Sequence[DatabaseFrames | list[Frame]],
        file: np.ndarray,
        position: np.ndarray,
        summary: FrameSummary,
    ) -> None:
        self._files = list(files)
        self._file, self._position = file, position
        self.summary = summary

    def __len__(self) -> int:
        return len(self._file)

    @overload
    def __getitem__(self, index: int) -> Frame: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredFrames": ...
    def __getitem__(self, index: int | slice) -> "Frame | StoredFrames":
        if isinstance(index, slice):
            return self.part(np.arange(len(self))[index])
        return self._files[self._file[index]][int(self._position[index])]

    def __add__(self, other: "StoredFrames | list[Frame]") -> "StoredFrames":
        if not len(other):
            return self
        more = other if isinstance(other, StoredFrames) else _in_memory(other)
        return StoredFrames(
            self._files + more._files,
            np.concatenate([self._file, more._file + len(self._files)]),
            np.concatenate([self._position, more._position]),
            self.summary + more.summary,
        )

    def __radd__(self, other: list[Frame]) -> "StoredFrames":
        return _in_memory(other) + self if other else self

    def part(self, indices: np.ndarray) -> "StoredFrames":
        """Some of the structures.

        Args:
            indices: Their numbers.
        """
        return StoredFrames(
            self._files, self._file[indices], self._position[indices], self.summary.part(indices)
        )


Frames = list[Frame] | StoredFrames
"""Structures in memory or on the disk."""


def open_frames(paths: Sequence[Path], keys: LabelKeys, head: str, *, stream: bool | None = None) -> Frames:
    """The structures of some files, all of them checked: in memory, or on the disk where databases are large.

    Args:
        paths: Files of any format.
        keys: Names of the labels.
        head: Data set that the structures belong to.
        stream: Leave the structures of databases on the disk; None: of those with more than `STREAM_ABOVE`.

    Raises:
        DataError: If a file cannot be read, or a structure in it cannot be used.
    """
    frames: Frames = []
    problems: list[str] = []
    for path in expand_folders(paths):
        rows = DatabaseFrames(path, keys, head) if stream is not False and is_database(path) else None
        if rows is not None and (stream or len(rows) > STREAM_ABOVE):
            stored, wrong = _check(rows)
            frames, problems = frames + stored, problems + wrong
            continue
        found: FrameSet = read_frames([path], keys)
        for frame in found.frames:
            frame.head = head
        frames, problems = frames + found.frames, problems + found.problems
    if problems:
        shown = "\n  ".join(problems[:5])
        raise DataError(f"{len(problems)} structure(s) cannot be used; correct or remove them:\n  {shown}")
    return frames


def _check(rows: DatabaseFrames) -> tuple[StoredFrames, list[str]]:
    """Read every structure of a database once."""
    builder, problems = SummaryBuilder(), []
    good = []
    for position in range(len(rows)):
        try:
            builder.add(rows[position])
            good.append(position)
        except StructureError as error:
            problems.append(f"{rows.path}@{position}: {error}")
    stored = StoredFrames(
        [rows], np.zeros(len(good), dtype=np.int16), np.array(good, dtype=np.int64), builder.result()
    )
    return stored, problems


def _in_memory(frames: list[Frame]) -> StoredFrames:
    return StoredFrames(
        [frames], np.zeros(len(frames), dtype=np.int16), np.arange(len(frames)), summarize(frames)
    )
