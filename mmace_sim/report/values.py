"""Values of a summary as text and tables: headings, units, digits."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

HEADINGS: dict[str, str] = {
    "name": "structure",
    "magmom_by_species": "mean moment",
    "total_magmom": "net moment",
    "magnetic_order_initial": "order before",
    "magnetic_order_final": "order",
    "magnetic_space_group": "magnetic group (BNS)",
    "volume_change": "ΔV",
    "energy_per_atom": "energy",
    "energy_change_per_atom": "ΔE",
    "energy_above_lowest": "above lowest",
    "energy_difference": "above lowest",
    "bulk_modulus_gpa": "B₀",
    "bulk_modulus_derivative": "B₀′",
    "c_over_a": "c/a",
    "bulk": "B",
    "shear": "G",
    "young": "E",
    "poisson_ratio": "ν",
    "universal_anisotropy": "Aᵁ",
    "n_atoms": "atoms",
    "n_atoms_primitive": "atoms, primitive",
    "n_atoms_supercell": "atoms, supercell",
    "n_displacements": "displacements",
    "min_frequency": "lowest ω",
    "max_frequency": "highest ω",
    "zero_point_energy": "zero point",
    "n_independent": "independent constants",
}
"""Headings of keys that say less than they could; others are the key without underscores."""

DECIMALS: dict[str, int] = {
    "eV": 4, "eV/atom": 4, "meV/atom": 1, "μB": 2, "Å³": 3, "Å³/atom": 3, "Å": 4, "GPa": 1, "THz": 2, "k_B/atom": 2,
}  # fmt: skip
"""Decimals of numbers by unit; other numbers have four digits."""

MAX_LINES, MAX_COLUMNS = 24, 12
"""Longer lists of values are left to the files of the run."""

_RESIDUAL = frozenset({"max_force", "max_stress", "max_magforce", "fit_error_gpa", "rms_error"})
"""Errors: two digits are enough, whatever their size."""

_TEXT = frozenset({"name", "magnetic_space_group", "space_group", "formula", "state", "status"})
"""Texts that stay as they are, even if they look like a number."""


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        caption: What it holds.
        header: Headings of the columns, units included.
        rows: Cells.
        numeric: Which columns hold numbers.
    """

    caption: str
    header: list[str]
    rows: list[list[str]]
    numeric: list[bool]


def unit_of(key: str, units: Mapping[str, str]) -> str:
    """Unit of a quantity.

    Args:
        key: Its name in the summary.
        units: The summary's own table of units, where several names may share an entry.

    Returns:
        Such as "eV/atom"; empty for pure numbers.
    """
    for names, text in units.items():
        if key in re.split(r",\s*", names):
            unit = text.split(",")[0].strip()
            return "%" if unit.startswith("relative") else "" if unit == "1" or " " in unit else unit
    return "Å" if key == "cell" else ""


def heading(key: str, units: Mapping[str, str]) -> str:
    """Heading of a quantity with its unit.

    Args:
        key: Its name in the summary.
        units: The summary's own table of units.

    Returns:
        Such as "ΔE (eV/atom)", the unit on a line of its own.
    """
    name = HEADINGS.get(key, key.removesuffix("_gpa").replace("_", " "))
    unit = unit_of(key, units)
    return f"{name}\n({unit})" if unit else name


def show(key: str, value: str | float | list[Any] | dict[str, Any] | None, units: Mapping[str, str]) -> str:
    """A value as text.

    Args:
        key: Its name in the summary.
        value: Anything that JSON or a cell of a CSV table holds.
        units: The summary's own table of units.

    Returns:
        Text without unit; a dash for nothing.
    """
    if value is None or value == "" or value == [] or value == {}:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return show_text(key, value, units)
    if isinstance(value, dict):
        return ", ".join(f"{name} {show(key, item, units)}" for name, item in value.items())
    if isinstance(value, list):
        return "(" + ", ".join(show(key, item, units) for item in value) + ")"
    return _number(key, value, unit_of(key, units))


def show_text(key: str, text: str, units: Mapping[str, str]) -> str:
    """A cell of a CSV table as text: numbers with the digits of their unit, ``Fe:2.25`` pairs, anything else as it is.

    Args:
        key: Name of the column.
        text: The cell.
        units: The summary's own table of units.

    Returns:
        Text without unit.
    """
    if key in _TEXT:
        return text.replace("_", " ") if key == "status" else text
    try:
        return _number(
            key, float(text) if not text.lstrip("+-").isdecimal() else int(text), unit_of(key, units)
        )
    except ValueError:
        pass
    if text in ("True", "False"):
        return "yes" if text == "True" else "no"
    pairs = re.findall(r"([A-Z][a-z]?):(-?\d+\.\d+)", text)
    if pairs and " ".join(f"{symbol}:{value}" for symbol, value in pairs) == text:
        return ", ".join(f"{symbol} {show_text(key, value, units)}" for symbol, value in pairs)
    return text


def is_number(text: str) -> bool:
    """Say whether the text is a number that `show` made, or a dash.

    Args:
        text: Cell of a table.

    Returns:
        Whether it is to be aligned as a number.
    """
    return text == "–" or re.fullmatch(r"[−+]?\d+(\.\d+)?(e[−+]?\d+)?", text) is not None


def make_table(
    caption: str, keys: list[str], rows: Sequence[Mapping[str, Any]], units: Mapping[str, str]
) -> Table:
    """A table of the values under some keys.

    Args:
        caption: What it holds.
        keys: Keys of the columns.
        rows: Values by key.
        units: The summary's own table of units.

    Returns:
        The table.
    """
    cells = [[show(key, row.get(key), units) for key in keys] for row in rows]
    numeric = [key not in _TEXT and all(is_number(row[k]) for row in cells) for k, key in enumerate(keys)]
    return Table(caption, [heading(key, units) for key in keys], cells, numeric)


def nested_tables(entry: Mapping[str, Any], units: Mapping[str, str], prefix: str = "") -> list[Table]:
    """What of an entry is neither a single value nor long: matrices, lists of records, lists by name.

    Args:
        entry: Entry of a structure in a summary.
        units: The summary's own table of units.
        prefix: What the captions begin with.

    Returns:
        Tables of at most `MAX_LINES` lines.
    """
    tables = []
    for key, value in entry.items():
        caption = prefix + heading(key, units)
        if isinstance(value, dict) and value and "@module" not in value:
            if all(isinstance(item, dict) for item in value.values()):
                for name, item in value.items():
                    tables += nested_tables(item, units, f"{prefix}{name}: ")
            elif all(_is_row(item) for item in value.values()):
                rows = [
                    [name, *(show(key, number, units) for number in item)] for name, item in value.items()
                ]
                tables.append(_plain(caption, rows))
        elif isinstance(value, list) and 0 < len(value) <= MAX_LINES:
            if all(isinstance(item, dict) for item in value):
                tables += _records(caption, value, units)
            elif all(_is_row(item) for item in value):
                tables.append(
                    _plain(caption, [[show(key, number, units) for number in item] for item in value])
                )
    return [table for table in tables if table.rows and len(table.rows) <= MAX_LINES]


def _records(caption: str, records: list[dict[str, Any]], units: Mapping[str, str]) -> list[Table]:
    """A table of the single values of records."""
    keys = [
        key
        for key in dict.fromkeys(key for record in records for key in record)
        if all(_is_single(record.get(key)) for record in records)
        and any(record.get(key) != "" for record in records)
    ]
    return [make_table(caption, keys, records, units)] if 0 < len(keys) <= MAX_COLUMNS else []


def _plain(caption: str, rows: list[list[str]]) -> Table:
    """A table without headings."""
    width = max(len(row) for row in rows)
    filled = [row + [""] * (width - len(row)) for row in rows]
    return Table(
        caption, [], filled, [all(is_number(row[k]) for row in filled if row[k]) for k in range(width)]
    )


def _is_single(value: object) -> bool:
    return not isinstance(value, list | dict) or _is_row(value)


def _is_row(value: object) -> bool:
    """A list of few numbers."""
    return (
        isinstance(value, list)
        and 0 < len(value) <= MAX_COLUMNS
        and all(isinstance(item, int | float) or item is None for item in value)
    )


def _number(key: str, value: float, unit: str) -> str:
    if isinstance(value, int):
        text = str(value)
    elif key in _RESIDUAL:
        text = f"{value:.2g}"
    elif unit == "%":
        text = f"{100 * value:+.2f}"
    else:
        text = f"{value:.{DECIMALS[unit]}f}" if unit in DECIMALS else f"{value:.4g}"
        text = text.removeprefix("-") if text.strip("-0.") == "" else text
    return text.replace("-", "−")
