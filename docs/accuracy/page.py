"""``docs/accuracy.md`` and its figures from ``results.json``."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator

from mmace_sim.plots import COLORS, MARKERS, add_legend, new_figure, save_figure

HERE = Path(__file__).parent
NAMES = {"ours": "ours", "paper": "published architecture", "nomag": "ours without moments"}
LABELS = {"energy": "energy (meV/atom)", "forces": "forces (meV/Å)", "magforces": "magnetic forces (meV/μB)"}
Results = dict[str, Any]


def write_page(results: Results) -> None:
    """Replace the generated part of the page, and draw the figures."""
    page = HERE.parent / "accuracy.md"
    begin, end = "<!-- generated: begin -->", "<!-- generated: end -->"
    text = page.read_text(encoding="utf-8")
    before, after = text[: text.index(begin) + len(begin)], text[text.index(end) :]
    sets = list(dict.fromkeys(key.split("/")[1] for key in results if key.startswith("model/")))
    parts = ["![Test errors of ours relative to the published architecture](accuracy/ratios.png)"]
    parts += [_table(results, name) for name in sets]
    parts += [_long_table(results)] if _sets_of(results, "long") else []
    parts += [_curve_table(results)] if _sets_of(results, "curve") else []
    page.write_text("\n\n".join([before, *parts, after]), encoding="utf-8")
    _draw_bars(results, sets)
    _draw_curves(results)


def _entries(
    results: Results, name: str, kind: str, size: str = "all", group: str = "model"
) -> list[Results]:
    keys = [key for key in results if key.startswith(f"{group}/{name}/{kind}/{size}/")]
    return [results[key] for key in keys if results[key]]


def _errors(entries: list[Results], part: str, label: str, which: str) -> list[float]:
    return [entry[part][label][which] for entry in entries if label in entry[part]]


def _cell(entries: list[Results], label: str, part: str = "test") -> str:
    """MAE / RMSE, the mean over seeds, with half the difference between seeds."""
    mae, rmse = (_errors(entries, part, label, which) for which in ("mae", "rmse"))
    if not mae:
        return "–"
    half = f" ± {_round((max(mae) - min(mae)) / 2)}" if len(mae) > 1 else ""
    return f"{_round(np.mean(mae))}{half} / {_round(np.mean(rmse))}"


def _round(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 3 else f"{value:.2f}"


def _table(results: Results, name: str) -> str:
    rows = [f"## {name}", "", f"| | {' | '.join(LABELS.values())} | weights | epochs | CPU time (s) |"]
    rows.append("|---|" + "---|" * (len(LABELS) + 3))
    for kind, title in NAMES.items():
        entries = _entries(results, name, kind)
        if not entries:
            continue
        cells = " | ".join(_cell(entries, label) for label in LABELS)
        seconds = np.mean([entry["cpu_seconds"] for entry in entries])
        rows.append(
            f"| {title} | {cells} | {entries[0]['n_weights']} | {entries[0]['epochs']} | {seconds:.0f} |"
        )
    ours = _entries(results, name, "ours")
    training = ", ".join(
        f"{LABELS[label].split(' (')[0]} {_round(np.mean(_errors(ours, 'train', label, 'mae')))}"
        for label in LABELS
        if _errors(ours, "train", label, "mae")
    )
    rows += ["", f"{ours[0]['n_train']} training structures. Ours on them (MAE): {training}."]
    return "\n".join(rows)


def _cases(results: Results, group: str, name: str, kind: str) -> list[int]:
    """Numbers of training structures (curve) or multiples of the epochs (long) that were run."""
    found = [key for key in results if key.startswith(f"{group}/{name}/{kind}/") and results[key]]
    return sorted({int(key.split("/")[3]) for key in found})


def _sets_of(results: Results, group: str) -> list[str]:
    return list(dict.fromkeys(key.split("/")[1] for key in results if key.startswith(f"{group}/")))


def _long_table(results: Results) -> str:
    """The same training with more epochs."""
    rows = [f"| set | architecture | epochs | {' | '.join(LABELS.values())} | CPU time (s) |"]
    rows.append("|---|---|---|" + "---|" * (len(LABELS) + 1))
    for name in _sets_of(results, "long"):
        for kind, title in NAMES.items():
            cases = [str(case) for case in _cases(results, "long", name, kind)]
            for case in ["all", *cases] if cases else []:
                entries = _entries(results, name, kind, case, "model" if case == "all" else "long")
                cells = " | ".join(_cell(entries, label) for label in LABELS)
                seconds = np.mean([entry["cpu_seconds"] for entry in entries])
                rows.append(f"| {name} | {title} | {entries[0]['epochs']} | {cells} | {seconds:.0f} |")
    return "\n".join(["## Longer training", "", *rows])


def _points(results: Results, name: str, kind: str, label: str) -> list[tuple[int, float]]:
    """Number of training structures and mean test error."""
    sizes = _cases(results, "curve", name, kind)
    groups = [_entries(results, name, kind, str(size), "curve") for size in sizes]
    groups.append(_entries(results, name, kind))
    return [
        (group[0]["n_train"], float(np.mean(_errors(group, "test", label, "mae"))))
        for group in groups
        if group and _errors(group, "test", label, "mae")
    ]


def _curve_table(results: Results) -> str:
    rows = ["| set | architecture | training structures | " + " | ".join(LABELS.values()) + " |"]
    rows.append("|---|---|---|" + "---|" * len(LABELS))
    figures = []
    for name in _sets_of(results, "curve"):
        figures.append(f"![Learning curves, {name}](accuracy/curve_{name}.png)")
        for kind, title in NAMES.items():
            sizes = _cases(results, "curve", name, kind)
            for size in [*map(str, sizes), "all"] if sizes else []:
                entries = _entries(results, name, kind, size, "model" if size == "all" else "curve")
                cells = " | ".join(_cell(entries, label) for label in LABELS)
                rows.append(f"| {name} | {title} | {entries[0]['n_train']} | {cells} |")
    return "\n\n".join(["## Learning curves", "\n".join(rows), *figures])


def _draw_bars(results: Results, sets: list[str]) -> None:
    """Errors relative to the published architecture."""
    figure, axes = new_figure("page", aspect=0.45)
    rows = [
        (name, label)
        for name in sets
        for label in LABELS
        if _errors(_entries(results, name, "paper"), "test", label, "mae")
    ]
    for k, label in enumerate(LABELS):
        chosen = [j for j, row in enumerate(rows) if row[1] == label]
        ratio = [
            np.mean(_errors(_entries(results, rows[j][0], "ours"), "test", label, "mae"))
            / np.mean(_errors(_entries(results, rows[j][0], "paper"), "test", label, "mae"))
            for j in chosen
        ]
        axes.barh([-j for j in chosen], ratio, color=COLORS[k], label=label.split(" (")[0])
    axes.axvline(1.0, color="0.4", linewidth=0.8)
    axes.set_yticks([-j for j in range(len(rows))], [row[0] for row in rows])
    axes.set_xlabel("test MAE, ours / published architecture")
    add_legend(axes)
    save_figure(figure, HERE / "ratios")


def _draw_curves(results: Results) -> None:
    """Test errors against the number of training structures."""
    for name in _sets_of(results, "curve"):
        labels = [label for label in LABELS if _points(results, name, "ours", label)]
        figure, axes = new_figure("page", aspect=0.4)
        axes.remove()
        for axes, label in zip(figure.subplots(1, len(labels)), labels, strict=True):
            kinds = [kind for kind in NAMES if len(_points(results, name, kind, label)) > 1]
            for kind in kinds:
                k = list(NAMES).index(kind)
                style = {"color": COLORS[k], "marker": MARKERS[k], "markersize": 4}
                axes.loglog(
                    *zip(*_points(results, name, kind, label), strict=True), label=NAMES[kind], **style
                )
            sizes = [n for n, _ in _points(results, name, kinds[0], label)]
            axes.set_xticks(sizes, [str(n) for n in sizes])
            axes.tick_params(labelsize=7)
            axes.minorticks_off()
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0, 7.0)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.set_xlabel("training structures", fontsize=8)
            axes.set_ylabel(f"test MAE, {LABELS[label]}", fontsize=8)
        add_legend(axes)
        save_figure(figure, HERE / f"curve_{name}")
