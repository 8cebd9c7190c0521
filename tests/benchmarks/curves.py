"""Learning curves: parts of data sets, errors on test structures, results that are kept run by run, and figures."""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import record
from ase.io import read, write

from mmace_sim import plots
from mmace_sim.model.architectures import AnyModel
from mmace_sim.training.evaluation.evaluate import evaluate_files

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = ("energy", "forces", "magforces")


def options(description: str, sizes: Sequence[int], methods: Sequence[str]) -> argparse.Namespace:
    """Data and work folder of a script, and which of its sizes, seeds and methods to run."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(sizes))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", default=list(methods))
    return parser.parse_args()


def write_part(source: Path, n: int, seed: int, path: Path) -> Path:
    """Write n structures of a file, drawn by a seed: larger parts hold the smaller ones."""
    frames = read(source, ":")
    order = np.random.default_rng(seed).permutation(len(frames))[:n]
    write(path, [frames[k] for k in order], format="extxyz")
    return path


def schedule(n: int, batch_size: int, steps: int, warmup: int) -> tuple[int, float]:
    """Epochs of at least so many steps, and epochs of warm-up."""
    per_epoch = math.ceil(n / batch_size)
    return math.ceil(steps / per_epoch), warmup / per_epoch


def errors(model: AnyModel, files: Sequence[Path]) -> dict:
    """Errors of each label on structures that training did not see."""
    overall = evaluate_files(model, files).overall
    return {
        label: {"mae": round(e.mae, 3), "rmse": round(e.rmse, 3), "unit": e.unit}
        for label, e in overall.items()
    }


class Results:
    """Runs that are finished, in a file of docs/benchmarks that is written after each.

    Several processes may add to the same file.

    Args:
        name: Name of the file, without suffix.
        settings: What all runs have in common.
    """

    def __init__(self, name: str, settings: dict) -> None:
        self.name = name
        self.settings = settings

    @property
    def runs(self) -> list[dict]:
        """What the file holds now."""
        path = record.FOLDER / f"{self.name}.json"
        return json.loads(path.read_text())["runs"] if path.is_file() else []

    def add_missing(self, wanted: Iterable[tuple[str, int, int]], run: Callable[..., dict]) -> None:
        """Do the runs (method, number of structures, seed) that are not there, and keep each at once."""
        for method, n, seed in wanted:
            if any((r["method"], r["n"], r["seed"]) == (method, n, seed) for r in self.runs):
                continue
            start = time.process_time()
            found = run(method, n, seed)
            seconds = round(time.process_time() - start, 1)
            row = {"method": method, "n": n, "seed": seed, "cpu_seconds": seconds} | found
            record.write(self.name, {"settings": self.settings, "runs": [*self.runs, row]})


def draw(
    runs: Sequence[dict],
    methods: Sequence[str],
    path: Path,
    *,
    labels: Sequence[str] = LABELS,
    of: str = "test",
    xlabel: str = "structures with moments",
    what: str = "test MAE",
) -> None:
    """Mean error of the seeds against the number of structures, one figure for each label; points are the seeds."""
    for label in labels:
        figure, axes = plots.new_figure()
        for k, method in enumerate(methods):
            points = sorted((r["n"], r[of][label]["mae"]) for r in runs if r["method"] == method and of in r)
            if not points:
                continue
            sizes = sorted({n for n, _ in points})
            means = [np.mean([e for m, e in points if m == n]) for n in sizes]
            style = {"color": plots.COLORS[k], "marker": plots.MARKERS[k]}
            axes.plot(sizes, means, markersize=4, label=method, **style)
            axes.plot(*zip(*points, strict=True), linestyle="none", markersize=2, **style)
        unit = next(r[of][label]["unit"] for r in runs if of in r)
        axes.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=f"{label}, {what} ({unit})")
        sizes = sorted({r["n"] for r in runs})
        axes.set_xticks(sizes, [str(n) for n in sizes])
        _readable_ticks(axes)
        axes.minorticks_off()
        plots.add_legend(axes)
        plots.save_figure(figure, path.with_name(f"{path.name}_{label}"))


def _readable_ticks(axes: "Axes") -> None:
    """Numbers in place of powers of ten."""
    low, high = axes.get_ylim()
    ticks = [m * 10.0**k for k in range(-3, 5) for m in (1, 1.5, 2, 3, 5, 7) if low <= m * 10.0**k <= high]
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
