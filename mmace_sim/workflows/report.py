"""One page about a run: results, figures, structures with moments, settings, versions, messages.

The page is made from the files in the folder of the run alone, so that any command, and any later time, will do. It
loads nothing, and everything that came from the user's files is escaped.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ase.formula import Formula
from ase.geometry import cell_to_cellpar

from mmace_sim.errors import OutputError
from mmace_sim.workflows.output import GOOD, versions, write_text
from mmace_sim.workflows.report_images import Figure, Images, Picture, collect_images
from mmace_sim.workflows.report_template import STYLE, TEMPLATE
from mmace_sim.workflows.report_values import Table, heading, make_table, nested_tables, show, show_text

FILE_NAME = "report.html"

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
        folder: Folder of a run of relax, eos, bain, elastic, phonons, or another command with one entry for each
            structure in ``summary.json``.

    Returns:
        The file.

    Raises:
        OutputError: If the folder holds no finished run, or the file cannot be written.
    """
    summary = read_summary(folder)
    write_text(folder / FILE_NAME, render(folder, summary))
    return folder / FILE_NAME


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a finished run.

    Args:
        folder: Folder of the run.

    Returns:
        Content of ``summary.json``.

    Raises:
        OutputError: If there is none, it cannot be read, or the run has not finished.
    """
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{path}: cannot be read ({error}). Name the folder of a run, such as the one given to --output."
        ) from error
    if not isinstance(summary, dict) or not isinstance(summary.get("structures"), list):
        raise OutputError(
            f"{path}: has no list of structures, which a report is made of. Reports are for relax, eos, bain, elastic, "
            "phonons and the like."
        )
    if summary.get("finished") is None:
        raise OutputError(
            f"{folder}: this run has not finished; go on with it or repeat it, then ask for the report."
        )
    return summary


def render(folder: Path, summary: dict[str, Any]) -> str:
    """The page of a run.

    Args:
        folder: Folder of the run.
        summary: Its ``summary.json``.

    Returns:
        HTML.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    entries, units = summary["structures"], summary["units"]
    text = (
        len(TEMPLATE) + len(STYLE) + (folder / "summary.json").stat().st_size
    )  # the page holds less of the latter
    images = collect_images(folder, entries, MAX_BYTES - text)
    cards = [_card(k, entry, units, images) for k, entry in enumerate(entries)]
    results, status_column = _results(folder, entries, units)
    counts = Counter(_status(entry) for entry in entries)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(TEMPLATE).render(
        title=f"mmace-sim {summary['command']}: {_title(entries)}",
        style=Markup(STYLE),
        lead=_lead(summary),
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
        warnings=_warnings(folder),
        common=images.common,
        structures=cards,
        omitted=images.omitted,
        run=_run_facts(summary),
        versions=summary["versions"].items(),
        settings=_settings(folder, summary["config"]),
        own_version=versions()["mmace-sim"],
    )


def _status(entry: Mapping[str, Any]) -> str:
    """Status of an entry or of a line of the table; a crystal that falls apart is no success."""
    stable = [entry.get("stable"), *(c.get("stable") for c in (entry.get("constants") or {}).values())]
    unstable = any(value in (False, "False") for value in stable)
    return "unstable" if unstable and entry["status"] in GOOD else entry["status"]


def _title(entries: list[dict[str, Any]]) -> str:
    return str(entries[0]["name"]) if len(entries) == 1 else f"{len(entries)} structures"


def _lead(summary: Mapping[str, Any]) -> str:
    """When, how long, with which model."""
    start, end = (datetime.fromisoformat(summary[key]) for key in ("created", "finished"))
    seconds = int((end - start).total_seconds())
    hours, rest = divmod(seconds, 3600)
    took = (
        f"{hours} h {rest // 60} min"
        if hours
        else f"{rest // 60} min {rest % 60} s"
        if rest > 99
        else f"{rest} s"
    )
    return f"{start:%Y-%m-%d %H:%M}, {took}, model {summary['model']['name']}"


def _results(folder: Path, entries: list[dict[str, Any]], units: Mapping[str, str]) -> tuple[Table, int]:
    """The lines of ``summary.csv``, without columns that are empty or belong to the structures; where the status is."""
    try:
        with (folder / "summary.csv").open(newline="", encoding="utf-8") as file:
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


def _grouped(pairs: Any) -> dict[str, list[str]]:
    """Names by text, at most five of them."""
    groups: dict[str, list[str]] = {}
    for text, name in pairs:
        groups.setdefault(text, []).append(name)
    return {
        text: names if len(names) <= 5 else [*names[:5], f"and {len(names) - 5} more"]
        for text, names in groups.items()
    }


def _warnings(folder: Path) -> list[str]:
    """Lines of the log that are warnings or errors."""
    try:
        lines = (folder / "log.txt").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [line for line in lines if re.match(r"\S+ (WARNING|ERROR|CRITICAL) ", line)][:200]


def _run_facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    model = summary["model"]
    texts = {
        key: model[key]
        for key in ("name", "licence", "citation", "dataset")
        if isinstance(model.get(key), str)
    }
    facts = [(f"model: {key}" if key != "name" else "model", text) for key, text in texts.items()]
    return [*facts, ("started", summary["created"]), ("finished", summary["finished"])]


def _settings(folder: Path, config: Mapping[str, Any]) -> Table:
    """Settings with their meaning, which stands beside them in ``config.yaml``."""
    try:
        text = (folder / "config.yaml").read_text(encoding="utf-8")
    except OSError:
        text = ""
    meaning = dict(re.findall(r"^(\w+):.*?  # (.*)$", text, flags=re.MULTILINE))
    rows = [
        [key, json.dumps(value, ensure_ascii=False), meaning.get(key, "")] for key, value in config.items()
    ]
    return Table("All settings, defaults included", ["setting", "value", "meaning"], rows, [False] * 3)
