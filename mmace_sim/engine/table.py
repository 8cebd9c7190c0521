"""The table of a large run as Parquet: typed columns, one row group for each volume."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmace_sim.base.text import plain
from mmace_sim.files import replacing

FILE_NAME = "summary.parquet"


def can_write() -> bool:
    """Whether pyarrow is installed (extra ``tables``)."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        return False
    return True


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows completely or not at all.

    Args:
        path: The file.
        rows: Plain values by column. Vectors and matrices become lists, dictionaries of numbers maps; what has no
            type of its own becomes JSON.

    Raises:
        OutputError: If it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(dict.fromkeys(key for row in rows for key in row))
    table = pa.table({name: _column([plain(row.get(name)) for row in rows]) for name in names})
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def join_tables(path: Path, parts: Iterable[Path]) -> int:
    """Write the rows of several tables into one, in their order, one part in memory at a time.

    Args:
        path: The file.
        parts: From `write_table`; columns may be missing.

    Returns:
        Number of rows.

    Raises:
        OutputError: If it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    parts = list(parts)
    schema = pa.unify_schemas([pq.read_schema(part) for part in parts], promote_options="permissive")
    kinds = [pa.string() if pa.types.is_null(field.type) else field.type for field in schema]
    schema = pa.schema([field.with_type(kind) for field, kind in zip(schema, kinds, strict=True)])
    n_rows = 0
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for part in parts:
            table = pq.read_table(part)
            columns = [
                table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(len(table), f.type)
                for f in schema
            ]
            writer.write_table(pa.table(columns, schema=schema))
            n_rows += len(table)
    return n_rows


def _column(values: list[Any]) -> Any:
    """Values as a column of one type."""
    import pyarrow as pa

    given = [value for value in values if value is not None]
    if given and all(isinstance(value, dict) for value in given):
        numbers = all(isinstance(n, int | float) for value in given for n in value.values())
        if numbers:
            return pa.array([v and list(v.items()) for v in values], pa.map_(pa.string(), pa.float64()))
    elif not any(_holds_mapping(value) for value in given):
        try:
            return pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            pass
    return pa.array([None if value is None else json.dumps(value) for value in values], pa.string())


def _holds_mapping(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(_holds_mapping, value)))
