"""Structures in Parquet files: one row each, its arrays as lists.

Columns are named as in ASE: ``numbers``, ``positions``, ``cell`` and ``pbc``, ``magmoms`` or ``initial_magmoms``, and
results such as ``energy``, ``forces``, ``stress`` and ``magforces``. Lists may be flat or nested; what is missing is
null. Other columns become entries of ``atoms.info``.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mmace_sim.base.extras import extra
from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import StructureError
from mmace_sim.io.base import Format, Item, structure_or_reason
from mmace_sim.io.opening import ALWAYS_ALLOWED, MAX_RATIO
from mmace_sim.io.rows import NAMES, atoms_of_row

_ROWS_AT_ONCE = 1000


def _open(path: Path) -> Any:
    with extra("tables", "A Parquet file"):
        import pyarrow.parquet as pq
    try:
        file = pq.ParquetFile(path)
    except Exception as error:  # of pyarrow
        raise StructureError(f"is no Parquet file ({error}).") from error
    size = sum(file.metadata.row_group(k).total_byte_size for k in range(file.num_row_groups))
    if size > max(ALWAYS_ALLOWED, MAX_RATIO * path.stat().st_size):
        raise StructureError(f"announces content that is more than {MAX_RATIO} times as large as the file.")
    missing = [name for name in ("numbers", "positions") if name not in file.schema_arrow.names]
    if missing:
        raise StructureError(
            f"has no column {' and no column '.join(missing)}, so that it holds no structures."
        )
    return file


def _rows(file: Any, first: int, last: int) -> Iterator[dict[str, Any]]:
    """Rows in [first, last); row groups before them are not read, and nothing behind them."""
    start = 0
    for group in range(file.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        if start < last and end > first:
            place = start
            for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[group]):
                low, high = max(first - place, 0), min(last - place, batch.num_rows)
                if low < high:
                    yield from batch.slice(low, high - low).to_pylist()
                place += batch.num_rows
                if place >= last:
                    return
        start = end


def _sizes(file: Any) -> Iterator[int]:
    """Atoms of each row, 0 if nobody knows: nothing is decoded but the column ``numbers``."""
    import pyarrow.compute as pc

    for group in range(file.num_row_groups):
        n_left = file.metadata.row_group(group).num_rows
        try:
            for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=["numbers"]):
                yield from pc.fill_null(pc.list_value_length(batch.column(0)), 0).to_pylist()
                n_left -= batch.num_rows
        except Exception:  # whatever is wrong with the rows, who reads them tells
            yield from repeat(0, n_left)


def _structure(row: dict[str, Any]) -> Atoms:
    known = {name: value for name, value in row.items() if name in NAMES and value is not None}
    if isinstance(known.get("cell"), list):
        cell = np.array(known["cell"], dtype=float)
        if cell.size not in (3, 9):
            raise StructureError(f"cell has {cell.size} numbers, expected 9")
        known["cell"] = cell.reshape(-1, 3) if cell.size == 9 else cell
    atoms = atoms_of_row({"pbc": [True] * 3 if "cell" in known else None} | known)
    atoms.info.update({name: value for name, value in row.items() if name not in NAMES and value is not None})
    return atoms


def _structures(path: Path, first: int, last: int | None) -> Iterator[Item]:
    file = _open(path)
    rows = _rows(file, first, file.metadata.num_rows if last is None else last)
    for number, row in enumerate(rows, start=first):
        yield structure_or_reason(partial(_structure, row), f"row {number}")


def _read(path: Path, _keys: LabelKeys) -> Iterator[Item]:
    return _structures(path, 0, None)


def _bounds(path: Path) -> Iterator[tuple[int, int]]:
    return enumerate(chain((0,), _sizes(_open(path))))


def _read_between(path: Path, bounds: Sequence[int], _keys: LabelKeys) -> Iterator[Item]:
    return _structures(path, bounds[0], bounds[-1])


FORMAT = Format(
    "Parquet",
    lambda path: path.suffix.lower() == ".parquet",
    _read,
    bounds=_bounds,
    read_between=_read_between,
)
