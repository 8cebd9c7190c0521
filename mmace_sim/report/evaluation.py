"""The page about the errors of a model."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmace_sim.report.images import collect_images
from mmace_sim.report.run_facts import filled_page
from mmace_sim.report.template import HEAD, LEFT_OUT, MACROS, RUN
from mmace_sim.report.values import Table

MAX_ROWS: int = 30
"""Longer tables show their first lines."""

MAX_WORST: int = 8
"""Structures with the largest error of each label."""

_LABELS = ("energy", "energy_shifted", "forces", "stress", "magforces")

_WORST = {
    "energy": ("energy_error_shifted", "meV/atom"), "forces": ("forces_rmse", "meV/Å"),
    "stress": ("stress_rmse", "meV/Å³"), "magforces": ("magforces_rmse", "meV/μB"),
}  # fmt: skip
"""Column of ``structures.csv`` that tells the worst structures, and its unit."""

TEMPLATE: str = (
    MACROS
    + HEAD
    + """\
</header>
<main>
<section aria-labelledby="results"><h2 id="results">Errors</h2>
{% for t in errors %}{{ table(t) }}{% endfor %}
</section>
"""
    + LEFT_OUT
    + """\
<section aria-labelledby="ranking"><h2 id="ranking">Order of energies</h2>
<p>{{ ranking_text }}</p>
{% for t in ranking %}{{ table(t) }}{% endfor %}
</section>
{% if common %}
<section aria-labelledby="figures"><h2 id="figures">Figures</h2>{{ figures(common) }}
{% for text in omitted %}<p class="note">{{ text }}</p>{% endfor %}</section>
{% endif %}
<section aria-labelledby="worst"><h2 id="worst">Structures with the largest errors</h2>
{% for t in worst %}{{ table(t) }}{% endfor %}
</section>
<section aria-labelledby="time"><h2 id="time">Time</h2>{{ facts(timing) }}</section>
"""
    + RUN
)
"""The page."""


def render_evaluation(folder: Path, summary: dict[str, Any], max_bytes: int) -> str:
    """The page of a run of ``mmace-sim evaluate``.

    Args:
        folder: Folder of the run.
        summary: Its ``summary.json``.
        max_bytes: Size that figures may not exceed.

    Returns:
        HTML.
    """
    images = collect_images(folder, [], max_bytes)
    ranking = summary["ranking"]
    problems = summary["problems"]
    title = f"{summary['model']['name']}, {summary['n_structures']} structures"
    return filled_page(
        TEMPLATE,
        folder,
        summary,
        title,
        errors=_error_tables(summary),
        problems=problems[:MAX_ROWS]
        + ([f"and {len(problems) - MAX_ROWS} more, see log.txt"] if len(problems) > MAX_ROWS else []),
        ranking_text=_ranking_text(ranking),
        ranking=_ranking_tables(ranking),
        common=images.common,
        omitted=images.omitted,
        worst=_worst(folder),
        timing=_timing(summary["timing"]),
    )


def _error_tables(summary: Mapping[str, Any]) -> list[Table]:
    rms = summary["reference_rms"]
    rows = [
        [
            _words(name),
            digits(e["mae"]),
            digits(e["rmse"]),
            digits(rms.get(name)),
            e["unit"],
            str(e["count"]),
        ]
        for name, e in summary["overall"].items()
    ]
    header = ["quantity", "MAE", "RMSE", "RMS of the reference", "unit", "count"]
    caption = (
        "All structures. H = −∂E/∂m; energy shifted: without the mean error of each composition; longitudinal: along "
        "the moment; torque: m × H"
    )
    tables = [Table(caption, header, rows, [False, True, True, True, False, True])]
    for key, what in (("by_config_type", "config_type"), ("by_order", "order"), ("by_element", "element")):
        if summary[key]:
            tables.append(_grouped(summary[key], what))
    if summary["energy_shifts"]:
        rows = [[name, digits(value)] for name, value in summary["energy_shifts"].items()]
        tables.append(
            limited_table(
                "Mean error of the energy", ["composition", "shift\n(meV/atom)"], rows, [False, True]
            )
        )
    return tables


def _grouped(groups: Mapping[str, Mapping[str, Any]], what: str) -> Table:
    present = [name for name in (*_LABELS, "magforce_length", "magforce_angle", "torque")
               if any(name in errors for errors in groups.values())]  # fmt: skip
    units = {name: next(e[name]["unit"] for e in groups.values() if name in e) for name in present}
    header = [what, *(f"{_words(name)}\n({units[name]})" for name in present)]
    rows = [
        [
            group,
            *(
                f"{digits(errors[name]['mae'])} / {digits(errors[name]['rmse'])}" if name in errors else "–"
                for name in present
            ),
        ]
        for group, errors in groups.items()
    ]
    return limited_table(f"MAE / RMSE per {what}", header, rows, [False] + [True] * len(present))


def _ranking_text(ranking: Mapping[str, Any]) -> str:
    if not ranking["n_pairs"]:
        return "No crystal occurs in several magnetic states with an energy."
    rho = ranking["spearman_within_geometries"]
    return (
        f"{ranking['n_structures']} structures are different magnetic states of {ranking['n_geometries']} crystals. "
        f"{100 * ranking['pairs_in_order']:.1f} % of {ranking['n_pairs']} pairs of energies are in the order of the "
        f"reference, and the lowest state is the right one for {100 * ranking['lowest_right']:.0f} % of the crystals."
        + ("" if rho is None else f" Mean rank correlation (Spearman) within a crystal: {rho:.3f}.")
    )


def _ranking_tables(ranking: Mapping[str, Any]) -> list[Table]:
    rows = [
        [name, str(item["n_structures"]), digits(item["spearman"])]
        for name, item in ranking["spearman_all"].items()
    ]
    header = ["composition", "structures", "Spearman"]
    tables = [limited_table("All energies per atom of a composition", header, rows, [False, True, True])]
    if ranking["geometries"]:
        rows = [
            [
                g["name"], ", ".join(f"{g['orders'].count(o)} {o}" for o in dict.fromkeys(g["orders"])),
                str(g["n_pairs"]), str(g["n_right"]), digits(g["spearman"]), "yes" if g["lowest_right"] else "no",
            ]
            for g in ranking["geometries"]
        ]  # fmt: skip
        header = ["crystal", "states", "pairs", "in order", "Spearman", "lowest right"]
        tables.append(
            limited_table(
                "Magnetic states of one crystal", header, rows, [False, False, True, True, True, False]
            )
        )
    return tables


def _worst(folder: Path) -> list[Table]:
    with (folder / "structures.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    tables = []
    for label, (column, unit) in _WORST.items():
        chosen = column if any(row[column] for row in rows) else "energy_error" if label == "energy" else None
        known = [row for row in rows if chosen and row[chosen]]
        if chosen and known:
            known.sort(key=lambda row: -abs(float(row[chosen])))
            cells = [
                [row["source"], row["config_type"], row["order"], digits(float(row[chosen]))]
                for row in known[:MAX_WORST]
            ]
            header = ["structure", "config_type", "order", f"{chosen.replace('_', ' ')}\n({unit})"]
            tables.append(Table(label, header, cells, [False, False, False, True]))
    return tables


def _timing(timing: Mapping[str, Any]) -> list[tuple[str, str]]:
    derivatives = ", ".join(("energy", *timing["derivatives"]))
    return [
        ("per structure", f"{timing['seconds_per_structure']:.3g} s"),
        ("per atom", f"{timing['milliseconds_per_atom']:.3g} ms"),
        ("neighbour lists", f"{timing['graph_seconds_per_structure']:.3g} s per structure, apart"),
        ("of", derivatives),
        ("device", f"{timing['device']}, {timing['threads']} threads, {timing['dtype']}"),
        ("batches of", f"{timing['batch_size']} structures"),
        ("counted", f"{timing['n_structures']} structures, {timing['n_atoms']} atoms"),
    ]


def limited_table(caption: str, header: list[str], rows: Sequence[list[str]], numeric: list[bool]) -> Table:
    """A table of at most `MAX_ROWS` lines; the caption says if there are more.

    Args:
        caption: What it holds.
        header: Headings of the columns.
        rows: Cells.
        numeric: Which columns hold numbers.
    """
    if len(rows) > MAX_ROWS:
        caption += f" (the first {MAX_ROWS} of {len(rows)})"
    return Table(caption, header, list(rows[:MAX_ROWS]), numeric)


def _words(name: str) -> str:
    return (
        name.replace("magforces", "magnetic forces").replace("magforce", "magnetic force").replace("_", " ")
    )


def digits(value: float | None) -> str:
    """A number with three digits, or a dash.

    Args:
        value: The number.
    """
    return "–" if value is None else f"{value:.3g}".replace("-", "−")
