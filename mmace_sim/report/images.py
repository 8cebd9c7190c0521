"""Figures and pictures of a run, embedded in its report within a limit of size."""

import base64
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms

from mmace_sim.graph.atoms import get_magmoms, has_magmoms
from mmace_sim.io.extxyz import read_written
from mmace_sim.io.writing import file_names
from mmace_sim.report.pictures import structure_svg
from mmace_sim.structures.magnetic_order import classify_order

MAX_PICTURES: int = 6
"""Pictures of one structure (its magnetic states)."""


@dataclass
class Figure:
    """A figure of the run, embedded.

    Attributes:
        data: As a data URL.
        alt: What it shows, for those who cannot see it.
        caption: Shown below.
        broad: Whether it takes the width of the page.
    """

    data: str
    alt: str
    caption: str
    broad: bool


@dataclass
class Picture:
    """A drawn structure.

    Attributes:
        svg: Markup that is safe in a page.
        caption: Shown below; empty if there is one picture only.
    """

    svg: Any
    caption: str


@dataclass
class Images:
    """Everything that is seen in a report.

    Attributes:
        common: Figures of the whole run.
        figures: Figures of each structure, by name.
        pictures: Drawn structures, by name.
        omitted: What is left out, and why.
    """

    common: list[Figure] = field(default_factory=list)
    figures: dict[str, list[Figure]] = field(default_factory=dict)
    pictures: dict[str, list[Picture]] = field(default_factory=dict)
    omitted: list[str] = field(default_factory=list)


def collect_images(folder: Path, entries: list[dict[str, Any]], room: int) -> Images:
    """Embed the figures of a run and draw its structures, until the page is full.

    Args:
        folder: Folder of the run.
        entries: Entries of its summary.
        room: Bytes that they may take.

    Returns:
        The images; each structure gets its pictures before its figures, in the order of the entries.
    """
    images, full = Images(), {"figures": 0, "structures": 0}
    common, owned = _find_figures(folder, entries)
    structures = _find_structures(folder)

    def fits(size: int, kind: str) -> bool:
        nonlocal room
        room, kept = (room - size, True) if size <= room else (room, False)
        full[kind] += not kept
        return kept

    for path in common:
        figure = _embedded(path, folder, path.stem.replace("_", " "))
        images.common += [figure] if fits(len(figure.data), "figures") else []
    for name in dict.fromkeys(str(entry["name"]) for entry in entries):
        for caption, atoms in structures.get(name, [])[:MAX_PICTURES]:
            svg = structure_svg(atoms, _describe(name, caption, atoms))
            if svg is None:
                full["structures"] += 1
            elif fits(len(svg), "structures"):
                images.pictures.setdefault(name, []).append(Picture(_safe(svg), caption))
        for path, what in owned.get(name, []):
            figure = _embedded(path, folder, f"{what} of {name}")
            if fits(len(figure.data), "figures"):
                images.figures.setdefault(name, []).append(figure)
    reasons = {
        "structures": "not drawn: too many atoms for a picture, or no more room on this page",
        "figures": "not shown: there is no more room on this page; they are in the folder of the run",
    }
    images.omitted = [f"{full[kind]} {kind} {reason}." for kind, reason in reasons.items() if full[kind]]
    return images


def _safe(svg: str) -> Any:
    """Markup that is not escaped again: it is drawn by us, and its texts are escaped."""
    from markupsafe import Markup

    return Markup(svg)


def _find_figures(
    folder: Path, entries: list[dict[str, Any]]
) -> tuple[list[Path], dict[str, list[tuple[Path, str]]]]:
    """Figures of the whole run, and those of each structure with what they show."""
    names = [str(entry["name"]) for entry in entries if entry["n_atoms"] is not None]
    stems = dict(zip(file_names(names), names, strict=True))
    general: list[Path] = []
    owned: dict[str, list[tuple[Path, str]]] = {}
    patterns = (f"{where}*.{end}" for where in ("", "*/") for end in ("png", "svg"))
    images = {path.with_suffix("") for pattern in patterns for path in folder.glob(pattern)}
    for image in sorted(images):
        in_own = image.parent.name in stems and image.parent.parent == folder
        fits = [stem for stem in stems if image.name == stem or image.name.startswith(stem + "_")]
        stem = image.parent.name if in_own else max(fits, key=len, default="")
        files = [path for end in (".svg", ".png") if (path := image.with_name(image.name + end)).is_file()]
        best = min(files, key=lambda path: path.stat().st_size)
        if stem:
            what = image.name if in_own else image.name.removeprefix(stem).strip("_") or "figure"
            owned.setdefault(stems[stem], []).append((best, what.replace("_", " ")))
        else:
            general.append(best)
    return general, owned


def _embedded(path: Path, folder: Path, what: str) -> Figure:
    kind = "svg+xml" if path.suffix == ".svg" else "png"
    content = path.read_bytes()
    data = base64.b64encode(content).decode("ascii")
    where = path.relative_to(folder).as_posix()
    return Figure(f"data:image/{kind};base64,{data}", f"Figure: {what}", where, _is_broad(content))


def _is_broad(content: bytes) -> bool:
    """Whether an image is much wider than high."""
    if content.startswith(b"\x89PNG"):
        width, height = (float(int.from_bytes(content[k : k + 4], "big")) for k in (16, 20))
    else:
        box = re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', content)
        width, height = (float(size) for size in box.groups()) if box else (1.0, 1.0)
    return width > 1.7 * height


def _find_structures(folder: Path) -> dict[str, list[tuple[str, Atoms]]]:
    """Structures by name with a caption: relaxed ones, or the lowest point of each magnetic state."""
    found: dict[str, list[tuple[str, Atoms]]] = {}
    for file in ("relaxed.extxyz", "points.extxyz", "sample.extxyz"):
        images = read_written(folder / file)
        if not images:
            continue
        lowest: dict[tuple[str, str], Atoms] = {}
        for atoms in images:
            key = str(atoms.info.get("name", "")), str(atoms.info.get("state", ""))
            if file != "points.extxyz":
                found.setdefault(key[0], []).append((key[1], atoms))
            elif key not in lowest or _energy(atoms) < _energy(lowest[key]):
                lowest[key] = atoms
        for (name, state), atoms in lowest.items():
            volume = f"{atoms.get_volume() / len(atoms):.2f} Å³/atom"
            found.setdefault(name, []).append((f"state {state}, {volume}", atoms))
        break
    return found


def _energy(atoms: Atoms) -> float:
    return float(atoms.get_potential_energy()) if atoms.calc is not None else float("inf")


def _describe(name: str, caption: str, atoms: Atoms) -> str:
    """What a picture shows, in words."""
    order = f"{classify_order(get_magmoms(atoms))} moments" if has_magmoms(atoms) else "no moments"
    state = f" ({caption})" if caption else ""
    return f"Structure {name}{state}: {atoms.get_chemical_formula()}, {order} as arrows"
