"""Figures of docs/performance.md from the JSON files beside this script: python docs/benchmarks/figures.py."""

import json
from pathlib import Path

from mmace_sim.plots import COLORS, MARKERS, REFERENCE, add_legend, new_figure, save_figure

HERE = Path(__file__).parent
SHORT = {
    "mace": "ordinary MACE (mace-torch)",
    "ours": "ours",
    "ours, highest moment order": "ours, highest moment order",
    "ours, spin-orbit": "ours, spin–orbit",
    "paper, l_mag 1": "published function, l_mag 1",
    "paper, l_mag 3": "published function, l_mag 3",
}


def read(name: str) -> dict:
    """One benchmark's results."""
    return json.loads((HERE / f"{name}.json").read_text())


def time_per_atom() -> None:
    """Time per atom against the number of atoms, size b, float32, one thread."""
    rows = [
        row
        for row in read("model_inference")["rows"]
        if (row["size"], row["dtype"], row["threads"]) == ("b", "float32", 1)
    ]
    figure, axes = new_figure()
    names = ["mace", "ours", "ours, spin-orbit", "paper, l_mag 1", "paper, l_mag 3"]
    for name, color, marker in zip(names, COLORS, MARKERS, strict=True):
        points = [(int(row["atoms"]), row[name]["ms"] / int(row["atoms"])) for row in rows if name in row]
        axes.loglog(*zip(*points, strict=True), color=color, marker=marker, markersize=4, label=SHORT[name])
    ticks = [int(row["atoms"]) for row in rows]
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.minorticks_off()
    values = (2, 5, 10, 20, 40)
    axes.set_yticks(values, [str(v) for v in values])
    axes.set_xlabel("atoms")
    axes.set_ylabel("time per atom (ms)")
    axes.set_title("size b, float32, one thread")
    axes.set_ylim(1.5, 40.0)
    add_legend(axes)
    save_figure(figure, HERE / "time_per_atom")


def shares() -> None:
    """Where the time goes, and what arithmetic and memory traffic alone would take."""
    rows = [row for row in read("model_profile")["rows"] if row["model"] in ("ours", "paper, l_mag 3")]
    figure, axes = new_figure("page", aspect=0.42)
    parts = list(rows[0]["shares"])
    colors = [*COLORS, "0.85"]
    for y, row in enumerate(rows):
        left = 0.0
        for part, color in zip(parts, colors, strict=True):
            width = row["shares"][part] * row["ms"]
            axes.barh(y, width, left=left, color=color, height=0.6, label=part if y == 0 else None)
            left += width
        for floor, style in (("floor_of_flops_ms", ":"), ("floor_of_bytes_ms", "-")):
            label = {
                "floor_of_flops_ms": "floor of arithmetic",
                "floor_of_bytes_ms": "memory traffic at copy speed",
            }
            axes.plot(
                2 * [row[floor]],
                [y - 0.42, y + 0.42],
                style,
                color="black",
                label=label[floor] if y == 0 else None,
            )
    axes.set_yticks(range(len(rows)), [f"size {row['size']}, {SHORT[row['model']]}" for row in rows])
    axes.invert_yaxis()
    axes.set_xscale("linear")
    axes.set_xlabel("time of one evaluation of 54 atoms, float32, one thread (ms)")
    add_legend(axes)
    save_figure(figure, HERE / "time_by_part")


def scaling() -> None:
    """Time per atom up to 10⁴ atoms."""
    results = read("model_scaling")
    rows = results["rows"]
    figure, axes = new_figure()
    atoms = [row["atoms"] for row in rows]
    curves = [
        ("model, freed memory kept", "rows", "ms_per_atom"),
        ("model, default allocator", "rows_default_allocator", "ms_per_atom"),
        ("neighbour list", "rows", "neighbour_list_ms_per_atom"),
    ]
    for (label, key, column), color, marker in zip(curves, COLORS, MARKERS, strict=False):
        values = [row[column] for row in results[key]]
        axes.semilogx(atoms, values, color=color, marker=marker, markersize=4, label=label)
    axes.set_ylim(bottom=0.0)
    axes.set_xticks(atoms, [str(n) for n in atoms])
    axes.minorticks_off()
    axes.axhline(rows[0]["ms_per_atom"], color=REFERENCE, linewidth=0.8, zorder=0)
    axes.set_xlabel("atoms")
    axes.set_ylabel("time per atom (ms)")
    axes.set_title("float32, one thread")
    add_legend(axes)
    save_figure(figure, HERE / "scaling")


if __name__ == "__main__":
    time_per_atom()
    shares()
    scaling()
