"""Measures on a GPU what the page on performance lacks; run it by ``tests/gpu/run.sh``.

Each part (`parts.py`) is a process of its own. One that fails, hangs or breaks CUDA costs only itself and its time; the rows
that it had written are kept. All go into one JSON file, written again whenever there is a new one.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMITS = {
    "same_numbers": 40,
    "neighbours": 30,
    "evaluation": 60,
    "training": 60,
    "relaxations": 70,
    "dynamics": 45,
    "monte_carlo": 45,
    "memory": 35,
    "out_of_memory": 30,
    "compiled": 45,
}
"""Seconds of each part, start of Python and CUDA included, in the order in which they run; what is left over goes to those after."""

LAST_WORDS = 1500
"""Characters kept of what a part printed to its end if it did not end well."""


class Part:
    """A part under way.

    Args:
        name: One of `LIMITS`.
        options: Of the command line.
        folder: For what it writes.
    """

    def __init__(self, name, options, folder):
        self.name, self.start = name, time.monotonic()
        self.file, self._log = folder / f"{name}.jsonl", folder / f"{name}.log"
        script = os.environ.get("MMACE_GPU_PARTS", str(Path(__file__).with_name("parts.py")))
        command = [sys.executable, script, name, "--rows", str(self.file), "--device", options.device]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                command + ["--quick"] * options.quick,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self):
        """End it and whatever it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:  # it hangs in the driver: leave it behind
                return

    def entries(self):
        """What it has written so far."""
        lines = self.file.read_text().split("\n")[:-1] if self.file.exists() else []
        return [json.loads(line) for line in lines]

    def last_words(self):
        return self._log.read_text(errors="replace")[-LAST_WORDS:]


def take(found, part, state=None):
    """Put what a part has written so far into the results; its state, unless it says one itself, is given."""
    entries = part.entries()
    found[part.name] = [entry["row"] for entry in entries if "row" in entry]
    for entry in entries:
        found["environment"] = found["environment"] or entry.get("environment")
    said = {k: v for entry in entries if "end" in entry for k, v in entry.items() if k != "end"}
    ends = [entry["end"] for entry in entries if "end" in entry]
    states = found["states"][part.name] = {
        "state": ends[0] if ends else state or "under way",
        "seconds": round(time.monotonic() - part.start, 1),
    }
    states |= said
    if not ends and state is not None:
        states["printed"] = part.last_words()
    return states["state"]


def measure(part, deadline, changed):
    """Wait for a part, telling of every new row; returns its state if it does not say one itself."""
    size = -1
    while part.process.poll() is None:
        if time.monotonic() > deadline:
            part.stop()
            return "out of time"
        time.sleep(0.2)
        now = part.file.stat().st_size if part.file.exists() else 0
        if now != size:
            size = now
            changed()
    return f"broken (exit code {part.process.returncode})"


def figure(found, folder):
    """Structures relaxed in a second, and times of an evaluation and a step of training, as bars."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    relaxed = found.get("relaxations", [])
    timed = {
        name: [row for row in found.get(name, []) if "ms" in row and row["model"] in ("ours", "mace")]
        for name in ("evaluation", "training")
    }
    if not relaxed and not any(timed.values()):
        return
    fig, axes = plt.subplots(1, 3, figsize=(10.0, 2.8), layout="constrained")
    names = [f"{row['structures']}\n{row['magmoms']}" for row in relaxed]
    axes[0].bar(names, [row["per_second"] for row in relaxed], color="0.5")
    axes[0].set_ylabel("structures per second")
    for axis, (what, rows) in zip(axes[1:], timed.items(), strict=True):
        cells = list(dict.fromkeys((row["size"], row["atoms"]) for row in rows))
        for k, (model, colour) in enumerate((("ours", "0.2"), ("mace", "0.7"))):
            chosen = [row for row in rows if row["model"] == model]
            places = [cells.index((row["size"], row["atoms"])) + 0.4 * k - 0.2 for row in chosen]
            axis.bar(places, [row["ms"] for row in chosen], width=0.4, color=colour, label=model)
        axis.set_xticks(range(len(cells)), [f"{size}\n{atoms}" for size, atoms in cells])
        axis.set_ylabel(f"ms per {'evaluation' if what == 'evaluation' else 'step of training'}")
        axis.set_xlabel("size, atoms of a structure")
    if timed["evaluation"]:
        axes[1].legend(frameon=False)
    for suffix in ("png", "svg"):
        fig.savefig(folder / f"gpu.{suffix}", dpi=160)
    plt.close(fig)


def run(options, folder):
    """Measure all parts that are wanted; returns the results."""
    found = {"environment": None, "device": options.device, "quick": options.quick, "states": {}}
    deadline = time.monotonic()

    def write():
        file = options.out / "gpu.json.new"
        file.write_text(json.dumps(found, indent=1) + "\n")
        file.replace(options.out / "gpu.json")

    for name in options.parts:
        limit = options.patience * LIMITS[name]
        deadline = max(deadline, time.monotonic()) + limit
        part = Part(name, options, folder)

        def changed(part=part):
            take(found, part)
            write()

        try:
            state = measure(part, deadline, changed)
        finally:
            part.stop()
        state = take(found, part, state)
        write()
        print(f"{name}: {state}, {found['states'][name]['seconds']} s, {len(found[name])} rows")  # noqa: T201
        try:
            figure(found, options.out)
        except Exception as error:  # the numbers matter more
            found["figure"] = f"{type(error).__name__}: {error}"
            write()
    return found


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="try the script: the smallest of everything")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", default=",".join(LIMITS), help="names, joined by commas")
    parser.add_argument("--patience", type=float, help="all limits times this (1; with --quick 20)")
    options = parser.parse_args(arguments)
    options.parts = options.parts.split(",")
    if unknown := set(options.parts) - set(LIMITS):
        parser.error(f"no parts: {', '.join(sorted(unknown))}; there are {', '.join(LIMITS)}")
    options.patience = options.patience or (20.0 if options.quick else 1.0)
    return options


def main():
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no part stays behind
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found = run(options, Path(folder))
    sys.exit(any(state["state"] != "done" for state in found["states"].values()))


if __name__ == "__main__":
    main()
