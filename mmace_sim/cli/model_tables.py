"""Models as rows: what is at hand and what can be fetched."""

from pathlib import Path
from typing import Any

from ase.data import chemical_symbols
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmace_sim.errors import ModelFileError
from mmace_sim.hub.catalogue import RemoteModel, usable_catalogues
from mmace_sim.hub.store import model_folder
from mmace_sim.model import registry
from mmace_sim.model.checkpoint import read_metadata
from mmace_sim.model.registry import list_models
from mmace_sim.model.uncertainty import UNCERTAINTY_KEY, UncertaintyFacts

MANY_ELEMENTS: int = 12
"""From this number of elements on, a table says how many there are."""

BROKEN_CATALOGUE: str = "catalogue"
"""Where a model would be of which only a problem is known."""


def collect_models(file: Path | None = None) -> list[dict[str, Any]]:
    """One row for each model at hand, then one for each that can be fetched and for each catalogue that is broken.

    Args:
        file: A model file to describe beside those that have a name.

    Returns:
        Plain JSON values; models that are the same file share a row.
    """
    rows: dict[str, dict[str, Any]] = {}
    models = list_models() | ({str(file): file} if file else {})
    for name, path in models.items():
        if not path.is_file():
            continue
        key = str(path.resolve())
        if key in rows:
            rows[key]["names"].append(name)
        else:
            rows[key] = _row(name, path)
    known, problems = usable_catalogues()
    remote = [_remote_row(model) for name, model in known.items() if name not in models]
    broken = [{"names": [], "where": BROKEN_CATALOGUE, "problem": str(error)} for error in problems]
    return [*rows.values(), *remote, *broken]


def _row(name: str, path: Path) -> dict[str, Any]:
    row: dict[str, Any] = {
        "names": [name],
        "where": _where(path),
        "path": str(path),
        "megabytes": round(path.stat().st_size / 1e6, 2),
    }
    try:
        return row | _describe(read_metadata(path))
    except ModelFileError as error:
        return row | {"problem": str(error)}


def _where(path: Path) -> str:
    if path.parent == registry.MODEL_FOLDER:
        return "embedded"
    return "installed" if path.parent == model_folder() else "file"


def _describe(metadata: dict[str, Any]) -> dict[str, Any]:
    config = metadata.get("config", {})
    return {
        "elements": [chemical_symbols[int(number)] for number in config.get("atomic_numbers", [])],
        "architecture": metadata.get("architecture"),
        "heads": list(config.get("heads", {"default": {}})),
        "spin_orbit": config.get("spin_orbit"),
        "r_max": config.get("r_max"),
        "training_data": metadata.get("training_data"),
        "errors": metadata.get("errors"),
        "uncertainty": _calibration(metadata.get(UNCERTAINTY_KEY)),
        "obeys": _obeyed(metadata.get("identities")),
        "violations": metadata.get("violations"),
        "licence": metadata.get("licence") or metadata.get("license"),
        "citation": metadata.get("citation"),
        "description": metadata.get("description"),
        "source": metadata.get("source"),
    }


def _calibration(facts: object) -> list[str]:
    """What a file says of its uncertainties, in words; nothing if it has none."""
    return [] if facts is None else UncertaintyFacts.model_validate(facts).in_words()


def _obeyed(cards: object) -> list[str]:
    """Statements of the identities that hold, as `convert` has measured them; a file may hold anything."""
    entries = cards.values() if isinstance(cards, dict) else ()
    known = [card for card in entries if isinstance(card, dict) and card.get("holds") is True]
    return [str(card.get("statement")) for card in known]


def _remote_row(model: RemoteModel) -> dict[str, Any]:
    return {
        "names": [model.name],
        "where": "to fetch",
        "path": None,
        "megabytes": round(model.megabytes, 2),
        "elements": list(model.elements),
        "training_data": model.training_data or None,
        "licence": model.license,
        "citation": model.citation,
        "description": model.description or None,
        "source": model.model_dump(include={"url", "filename", "size", "sha256", "homepage"}),
    }


TEST_ERRORS: str = "test MAE: on each model's own structures, unseen in training; the sets differ."
"""What stands below the table of models."""


def print_models(rows: list[dict[str, Any]]) -> None:
    """Print a table that fits into 80 columns, and below it what is broken.

    Args:
        rows: From `collect_models`.
    """
    table = Table("name", "where", "elements", "MB", "test MAE", "licence", box=None, pad_edge=False)
    for row in rows:
        if row["where"] == BROKEN_CATALOGUE:
            continue
        if "problem" in row:
            cells = ["\n".join(row["names"]), row["where"], "broken"]
        else:
            cells = [
                "\n".join(row["names"]),
                row["where"],
                _elements_in_words(row["elements"]),
                f"{row['megabytes']:g}",
                format_errors(row.get("errors")),
                str(row["licence"] or "not stated"),
            ]
        table.add_row(*map(escape, cells))  # what a file says is text, whatever brackets it has
    console = Console()
    console.print(table)
    if any("errors" in row and row["errors"] for row in rows):
        console.print(TEST_ERRORS, highlight=False, soft_wrap=True)
    to_fetch = [row["names"][0] for row in rows if row["where"] == "to fetch"]
    if to_fetch:
        console.print(f"Fetch one with: mmace-sim models get {to_fetch[0]}", highlight=False)
    for row in rows:
        if "problem" in row:
            console.print(escape(row["problem"]), highlight=False, soft_wrap=True)


def print_model(row: dict[str, Any]) -> None:
    """Print everything of one model.

    Args:
        row: One of `collect_models`.
    """
    table = Table(box=None, show_header=False, pad_edge=False)
    for key, value in row.items():
        if value not in (None, [], {}):
            table.add_row(key.replace("_", " "), escape(_in_words(key, value)))
    Console().print(table)


def _in_words(key: str, value: Any) -> str:
    if key == "errors":
        return format_errors(value)
    if key == "violations":
        return "\n".join(str(text) for text in value.values())
    if key in ("obeys", "uncertainty"):
        return "\n".join(value)
    if isinstance(value, dict):
        if "description" in value:
            return str(value["description"])
        return "\n".join(f"{name}: {part}" for name, part in value.items() if part)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _elements_in_words(symbols: list[str]) -> str:
    """The elements of a model, or how many they are."""
    return " ".join(symbols) if len(symbols) <= MANY_ELEMENTS else f"{len(symbols)} elements"


def format_errors(errors: object) -> str:
    """Mean absolute errors of a model in words, one label per line.

    Args:
        errors: What the metadata says: for each set, for each label, "mae" and "unit".

    Returns:
        Errors on the test set, or on the set nearest to one, such as ``energy 2.1 meV/atom``; "not stated" if there
        are none.
    """
    if not isinstance(errors, dict) or not errors:
        return str(errors) if errors else "not stated"
    sets = {key.partition("/")[0] for key in errors}  # "test", or "test/HEAD" of a model with several heads
    name = next((name for name in ("test", "valid", "train") if name in sets), None)
    if name is None:
        return "\n".join(_error_lines(errors)) or "not stated"
    lines = [] if name == "test" else [f"({name} set)"]
    for key, labels in errors.items():
        which, _, head = key.partition("/")
        if which == name:
            lines += ([f"{head}:"] if head else []) + _error_lines(labels)
    return "\n".join(lines) or "not stated"


def _error_lines(labels: object) -> list[str]:
    if not isinstance(labels, dict):
        return [str(labels)]
    lines = []
    for label, value in labels.items():
        if isinstance(value, dict) and isinstance(value.get("mae"), int | float):
            lines.append(f"{label} {value['mae']:.3g} {value.get('unit', '')}".rstrip())
        elif not isinstance(value, dict):
            lines.append(f"{label} {value:.3g}" if isinstance(value, float) else f"{label} {value}")
    return lines
