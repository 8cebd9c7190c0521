"""One page about a run: results, figures, structures with moments, settings, versions, messages.

The page is made from the files in the folder of the run alone, so that any command, and any later time, will do. It
loads nothing, and everything that came from the user's files is escaped.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase.formula import Formula
from ase.geometry import cell_to_cellpar

from mmace_sim.engine.declaration import GOOD
from mmace_sim.errors import OutputError
from mmace_sim.files import write_text
from mmace_sim.report.evaluation import render_evaluation
from mmace_sim.report.images import Figure, Images, Picture, collect_images
from mmace_sim.report.learning import render_learning
from mmace_sim.report.run_facts import filled_page
from mmace_sim.report.template import STYLE, TEMPLATE
from mmace_sim.report.values import Table, heading, make_table, nested_tables, show, show_text

FILE_NAME = "report.html"

_PAGES = {"evaluate": render_evaluation, "learn": render_learning}
"""Pages of commands whose summaries hold something else than one entry for each structure."""

MAX_BYTES: int = 1_900_000
"""Size of the page that pictures and figures may not exceed."""

BAD: frozenset[str] = frozenset({"failed", "non_finite"})
"""Statuses without a result."""

_HIDDEN = frozenset({
    "file", "index", "message", "n_atoms", "max_force", "max_stress", "max_magforce", "space_group", "magmoms_initial",
    "bulk_voigt", "bulk_reuss", "shear_voigt", "shear_reuss", "rms_error", "minimum", "entropy_300K",
    "heat_capacity_300K", "n_atoms_primitive", "n_atoms_supercell", "n_displacements",
})  # fmt: skip
"""Columns of ``summary.csv`` that the table of results leaves to the structures."""

_NO_FACTS = frozenset({
    "name", "status", "message", "notes", "index", "formula", "energy_initial", "magnetic_space_group_uni",
    "total_magmom", "n_rotations",
})  # fmt: skip
"""Single values of an entry that are not repeated beside the picture."""


@dataclass
class Card:
    """All about one structure.

    Attributes:
        anchor: Its place in the page.
        name: Name of the structure.
        status: How it ended.
        message: What went wrong.
        facts: Single values by heading.
        tables: Matrices and lists.
        pictures: Of the structure.
        figures: Of the structure.
    """

    anchor: str
    name: str
    status: str
    message: str
    facts: list[tuple[str, str]]
    tables: list[Table]
    pictures: list[Picture]
    figures: list[Figure]


def write_report(folder: Path) -> Path:
    """Write ``report.html`` of a finished run into its folder.

    Args:
        folder: Folder of a run of evaluate, learn, relax, eos, bain, elastic, phonons, or another command with one
            entry for each structure in ``summary.json``.

    Returns:
        The file.

    Raises:
        OutputError: If the folder holds no finished run, or the file cannot be written.
    """
    summary = _read_summary(folder)
    page = _PAGES.get(summary["command"], render)
    write_text(folder / FILE_NAME, page(folder, summary, MAX_BYTES))
    return folder / FILE_NAME


def _read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a run, which must have finished."""
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{path}: cannot be read ({error}). Name the folder of a run, such as the one given to --output."
        ) from error
    known = isinstance(summary, dict) and (
        isinstance(summary.get("structures"), list) or summary.get("command") in _PAGES
    )
    if not known:
        raise OutputError(
            f"{path}: has no list of structures, which a report is made of. Reports are for evaluate, relax, eos, "
            "bain, elastic, phonons and the like."
        )
    if summary.get("finished") is None:
        raise OutputError(
            f"{folder}: this run has not finished; go on with it or repeat it, then ask for the report."
        )
    return summary


def render(folder: Path, summary: dict[str, Any], max_bytes: int = MAX_BYTES) -> str:
    """The page of a run.

    Args:
        folder: Folder of the run.
        summary: Its ``summary.json``.
        max_bytes: Size that pictures and figures may not exceed.

    Returns:
        HTML.
    """
    entries, units = summary["structures"], summary["units"]
    text = (
        len(TEMPLATE) + len(STYLE) + (folder / "summary.json").stat().st_size
    )  # the page holds less of the latter
    images = collect_images(folder, entries, max_bytes - text)
    cards = [_card(k, entry, units, images) for k, entry in enumerate(entries)]
    results, status_column = _results(folder, entries, units)
    counts = Counter(summary.get("statuses") or (_status(entry) for entry in entries))
    return filled_page(
        TEMPLATE,
        folder,
        summary,
        _title(entries, summary.get("n_structures")),
        counts=counts.most_common(),
        good=GOOD,
        bad=BAD,
        results=results,
        status_column=status_column,
        anchors={card.name: card.anchor for card in cards},
        failures=_grouped(
            (e["message"], e["name"]) for e in entries if e["message"] and e["status"] not in GOOD
        ),
        notes=_grouped((note, e["name"]) for e in entries for note in _notes(e)),
        common=images.common,
        structures=cards,
        omitted=images.omitted,
    )


def _status(entry: Mapping[str, Any]) -> str:
    """Status of an entry or of a line of the table; a crystal that falls apart is no success."""
    constants = entry.get("constants") or {}  # elastic: by response of the moments; anisotropy: a list
    modes = constants.values() if isinstance(constants, Mapping) else constants
    stable = [entry.get("stable"), *(mode.get("stable") for mode in modes)]
    unstable = any(value in (False, "False") for value in stable)
    return "unstable" if unstable and entry["status"] in GOOD else entry["status"]


def _title(entries: list[dict[str, Any]], total: int | None) -> str:
    if total is not None:
        return f"{total} structures, a sample of {len(entries)}"
    return str(entries[0]["name"]) if len(entries) == 1 else f"{len(entries)} structures"


def _results(folder: Path, entries: list[dict[str, Any]], units: Mapping[str, str]) -> tuple[Table, int]:
    """The lines of ``summary.csv``, without columns that are empty or belong to the structures; where the status is."""
    try:
        name = "sample.csv" if (folder / "sample.csv").is_file() else "summary.csv"  # of a large run
        with (folder / name).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        rows = [
            {key: show(key, entry.get(key), units) for key in ("name", "formula", "status")}
            for entry in entries
        ]
    keys = [key for key in (rows[0] if rows else ["name", "status"]) if key not in _HIDDEN]
    if "energy_per_atom" in keys and "energy_above_lowest" not in keys and len(rows) == len(entries):
        differences = _energy_differences(entries)
        rows = [
            row | {"energy_difference": difference} for row, difference in zip(rows, differences, strict=True)
        ]
        units = {**units, "energy_difference": "meV/atom"}
        place = keys.index("energy_per_atom") + 1
        keys = [key for key in (*keys[:place], "energy_difference", *keys[place:]) if key != "energy"]
    used = [key for key in keys if any(row[key] not in (None, "") for row in rows)]
    rows = [row | {"status": _status(row)} if "status" in row else row for row in rows]
    table = make_table("Results", used, rows, units)
    return table, used.index("status") if "status" in used else -1


def _energy_differences(entries: list[dict[str, Any]]) -> list[float | None]:
    """Energy of each structure above the lowest of the same composition, in meV/atom."""
    compositions = [
        Formula(entry["formula"]).reduce()[0].format("hill") if entry["formula"] else "" for entry in entries
    ]
    energies = [entry.get("energy_per_atom") for entry in entries]
    lowest: dict[str, float] = {}
    for composition, energy in zip(compositions, energies, strict=True):
        if energy is not None:
            lowest[composition] = min(energy, lowest.get(composition, energy))
    return [
        None if energy is None else 1000 * (energy - lowest[composition])
        for composition, energy in zip(compositions, energies, strict=True)
    ]


def _card(k: int, entry: dict[str, Any], units: Mapping[str, str], images: Images) -> Card:
    facts = [("formula", entry["formula"])] if entry["formula"] else []
    for key, value in entry.items():
        single = not isinstance(value, list | dict) or key == "magmom_by_species"
        if key == "file" and Path(str(value)).name == entry["name"]:
            continue
        if single and key not in _NO_FACTS and value not in (None, ""):
            shown = show_text(key, value, units) if isinstance(value, str) else show(key, value, units)
            facts.append((heading(key, units), shown))
    if isinstance(entry.get("cell"), list):
        a, b, c, *angles = cell_to_cellpar(entry["cell"])
        facts.append(("a, b, c (Å)", f"{a:.4f}, {b:.4f}, {c:.4f}"))
        facts.append(("α, β, γ (°)", ", ".join(f"{angle:.2f}" for angle in angles)))
    rest = {
        key: value
        for key, value in entry.items()
        if key not in ("total_magmom", "notes", "volumes", "c_over_a")
    }
    name = str(entry["name"])
    return Card(
        anchor=f"s{k}",
        name=name,
        status=_status(entry),
        message=entry["message"],
        facts=facts,
        tables=nested_tables(rest, units),
        pictures=images.pictures.get(name, []),
        figures=images.figures.get(name, []),
    )


def _notes(entry: Mapping[str, Any]) -> list[str]:
    """Notes, and what is said about a success."""
    said = [entry["message"]] if entry["message"] and entry["status"] in GOOD else []
    return said + entry["notes"]


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Names by text, at most five of them."""
    groups: dict[str, list[str]] = {}
    for text, name in pairs:
        groups.setdefault(text, []).append(name)
    return {
        text: names if len(names) <= 5 else [*names[:5], f"and {len(names) - 5} more"]
        for text, names in groups.items()
    }
