"""Large runs: rates of one and two workers, memory of every process, kills, and a driver of a million structures.

    python tests/benchmarks/million.py rates --structures 100000 --max-steps 3 --model tiny
    python tests/benchmarks/million.py real --structures 600
    python tests/benchmarks/million.py kills --structures 20000
    python tests/benchmarks/million.py driver --structures 1000000
    python tests/benchmarks/million.py files --structures 1000000
    python tests/benchmarks/million.py figure

Each writes ``docs/benchmarks/million_NAME.json``; `figure` draws the memory curves of them.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from record import FOLDER, MODEL, write

from mmace_sim.base.text import say
from mmace_sim.engine.journal import FILE_NAME

PAGE = os.sysconf("SC_PAGE_SIZE") / 1e6


def cells(path: Path, n: int) -> Path:
    """Two-atom cells of iron, shaken by 0.02 Å, as extended XYZ."""
    rng = np.random.default_rng(0)
    head = 'Lattice="{0:.6f} 0 0 0 {0:.6f} 0 0 0 {0:.6f}" Properties=species:S:1:pos:R:3:initial_magmoms:R:3 pbc="T T T"\n'
    with path.open("w") as file:
        for _ in range(n):
            a = rng.uniform(2.80, 2.86)
            places = np.array([[0, 0, 0], [a / 2] * 3]) + rng.normal(scale=0.02, size=(2, 3))
            file.write("2\n" + head.format(a))
            file.writelines("Fe {:.8f} {:.8f} {:.8f} 0 0 2.2\n".format(*place) for place in places)
    return path


def model_file(name: str, folder: Path) -> str:
    """A name of a model; ``tiny`` is one with random weights."""
    if name != "tiny":
        return name
    from cli_tools import write_tiny_model

    return str(write_tiny_model(folder / "tiny.safetensors"))


class Memory:
    """Memory of a process and of all that it starts, in MB, sampled while it runs."""

    def __init__(self, pid: int, seconds: float = 2.0) -> None:
        self.pid, self.seconds, self.start = pid, seconds, time.monotonic()
        self.curves: dict[str, list[tuple[float, float]]] = {"driver": [], "largest worker": []}
        self.cpu: dict[int, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self.seconds):
            at = round(time.monotonic() - self.start, 1)
            own = kinds(self.pid)
            sizes: dict[str, float] = {}
            for pid, kind in own.items():
                with contextlib.suppress(OSError, ValueError):
                    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                    sizes[kind] = max(sizes.get(kind, 0.0), pages * PAGE)
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    self.cpu[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            for kind, curve in self.curves.items():
                if kind in sizes:
                    curve.append((at, round(sizes[kind])))

    def thinned(self, most: int = 120) -> dict[str, list[tuple[float, float]]]:
        """The curves with so many points."""
        return {kind: curve[:: max(1, len(curve) // most)] for kind, curve in self.curves.items()}

    @property
    def largest(self) -> dict[str, float]:
        """Largest values."""
        return {kind: max((size for _, size in curve), default=0.0) for kind, curve in self.curves.items()}


def kinds(session: int) -> dict[int, str]:
    """Processes of a session: the driver, and workers."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                worker = b"spawn_main" in (entry / "cmdline").read_bytes()
                found[int(entry.name)] = (
                    "driver" if int(entry.name) == session else "largest worker" if worker else "other"
                )
    return found


def start(arguments: list[str]) -> subprocess.Popen:
    """The command line in a session of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MMACE_SIM_PROGRESS_SECONDS": "30"}
    return subprocess.Popen(
        [sys.executable, "-m", "mmace_sim", *arguments], start_new_session=True, env=environment
    )


def command(path: Path, output: Path, options: argparse.Namespace, model: str, *more: str) -> list[str]:
    return [
        "relax", str(path), "-o", str(output), "-m", model, "--max-steps", str(options.max_steps), "--threads", "1",
        "--no-stability", "--max-batch-atoms", str(options.batch), "-q", *more,
    ]  # fmt: skip


def rates(options: argparse.Namespace, folder: Path) -> None:
    """One worker, then two, on the same structures."""
    model, found = model_file(options.model, folder), {}
    for workers in options.workers:
        n = options.structures if workers == max(options.workers) else options.alone or options.structures
        path, output = cells(folder / f"{workers}.extxyz", n), folder / f"o{workers}"
        before, begun = os.getloadavg()[0], time.monotonic()
        driver = start(command(path, output, options, model, "--executor", f"local:{workers}"))
        with Memory(driver.pid) as memory:
            driver.wait()
        seconds = time.monotonic() - begun
        summary = json.loads((output / "summary.json").read_text())
        records = [json.loads(line) for line in (output / FILE_NAME).read_text().splitlines()][1:]
        computing = [record["seconds"] for record in records]
        found[str(workers)] = {
            "structures": summary["n_structures"],
            "statuses": summary["statuses"],
            "seconds": round(seconds, 1),
            "per_second": round(summary["n_structures"] / seconds, 2),
            "per_second_of_computing": round(summary["n_structures"] / sum(computing) * workers, 2),
            "cpu_seconds": round(sum(memory.cpu.values())),
            "cpu_ms_per_structure": round(1000 * sum(memory.cpu.values()) / summary["n_structures"], 1),
            "busy_share": round(sum(computing) / (workers * seconds), 3),
            "volumes": len(computing),
            "memory_mb": memory.largest,
            "curves": memory.thinned(),
            "table_mb": round((output / "summary.parquet").stat().st_size / 1e6, 1),
            "load": [before, os.getloadavg()[0]],
        }
        say(f"{workers}: { {k: v for k, v in found[str(workers)].items() if k != 'curves'} }")
    results = {
        "model": options.model,
        "max_steps": options.max_steps,
        "batch_atoms": options.batch,
        "workers": found,
    }
    if len(found) == 2:
        few, many = (found[str(n)] for n in sorted(options.workers))
        results["ratio"] = round(many["per_second"] / few["per_second"], 3)
        results["cpu_ratio"] = round(few["cpu_ms_per_structure"] / many["cpu_ms_per_structure"], 3)
    write(f"million_{options.name or 'rates'}", results)


def kills(options: argparse.Namespace, folder: Path) -> None:
    """Driver or workers killed at ten instants; in the end every structure has one result."""
    model, chance = model_file(options.model, folder), random.Random(0)
    path, output, told = cells(folder / "a.extxyz", options.structures), folder / "o", []
    for attempt in range(11):
        begun = (output / FILE_NAME).is_file()
        driver = start(
            command(path, output, options, model, "--executor", "local:2", *(["--resume"] if begun else []))
        )
        if attempt == 10:
            driver.wait()
            break
        time.sleep(chance.uniform(options.shortest, options.longest))
        whom = ("driver", "workers", "all")[attempt % 3]
        own = kinds(driver.pid)
        for pid, kind in own.items():
            if (
                whom == "all"
                or (whom == "workers" and kind == "largest worker")
                or (whom == "driver" and pid == driver.pid)
            ):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if whom == "workers":  # the run goes on by itself, and is killed later
            time.sleep(10.0)
            driver.kill()
        driver.wait()
        told.append({"killed": whom, "results": results_in(output)})
        say(str(told[-1]))
    keys = [key for volume in sorted((output / "volumes").iterdir()) for key in keys_in(volume / FILE_NAME)]
    expected = [f"{path}#{k}" for k in range(options.structures)]
    summary = json.loads((output / "summary.json").read_text())
    write("million_kills", {
        "structures": options.structures, "model": options.model, "max_steps": options.max_steps, "kills": told,
        "lost": len(set(expected) - set(keys)), "doubled": len(keys) - len(set(keys)),
        "in_order": keys == sorted(keys, key=lambda key: int(key.rpartition("#")[2])),
        "statuses": summary["statuses"],
    })  # fmt: skip


def results_in(output: Path) -> int:
    return sum(max(0, path.read_bytes().count(b"\n") - 1) for path in output.glob(f"volumes/*/{FILE_NAME}"))


def keys_in(journal: Path) -> list[str]:
    records = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    return sorted((record["key"] for record in records), key=lambda key: int(key.rpartition("#")[2]))


SIMULATED = """
import json, os, sys, time
from pathlib import Path
from mmace_sim.engine.machine import quiet_imports
with quiet_imports():
    from mmace_sim.engine import volumes
    from mmace_sim.engine.lifecycle import run_property
    from mmace_sim.properties.relax import RELAX
template, counts = Path(sys.argv[2]), json.loads(sys.argv[3])

def simulated(volume):
    volume.folder.mkdir(parents=True)
    for path in template.iterdir():
        if path.is_file():
            os.link(path, volume.folder / path.name)
    return volumes.VolumeEnd(counts, 0, 0, {}, 1.0, 0)

volumes.compute_volume = simulated
run_property(RELAX, RELAX.settings.model_validate_json(sys.argv[1]), quiet=True)
"""


def driver(options: argparse.Namespace, folder: Path) -> None:
    """A run of so many structures whose volumes are copies of one that was computed: what the driver itself takes."""
    import torch

    from mmace_sim.engine.lifecycle import run_property
    from mmace_sim.io.spans import cut
    from mmace_sim.properties.relax import RELAX

    torch.set_num_threads(1)
    model = model_file("tiny", folder)
    few = cells(folder / "few.extxyz", 2000)
    alike = {"model": model, "threads": 1, "max_steps": options.max_steps, "stability": False}
    settings = RELAX.settings(
        paths=[str(few)], output=str(folder / "few"), max_batch_atoms=options.batch, **alike
    )
    outcome = run_property(RELAX, settings, quiet=True, spans=next(cut([few])))
    counts = Counter(entry["status"] for entry in outcome.summary["structures"])
    begun = time.monotonic()
    many = cells(folder / "many.extxyz", options.structures)
    made, output = time.monotonic() - begun, folder / "many"
    settings = RELAX.settings(paths=[str(many)], output=str(output), **alike)
    arguments = [
        settings.model_dump_json(),
        str(folder / "few"),
        json.dumps(counts),
    ]
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", SIMULATED, *arguments], start_new_session=True)
    with Memory(process.pid, 0.5) as memory:
        process.wait()
    seconds = time.monotonic() - begun
    summary = json.loads((output / "summary.json").read_text())
    write("million_driver", {
        "structures": summary["n_structures"], "volumes": summary["n_volumes"], "input_mb": round(many.stat().st_size / 1e6),
        "made_seconds": round(made, 1), "seconds": round(seconds, 1), "memory_mb": memory.largest["driver"],
        "summary_mb": round((output / "summary.json").stat().st_size / 1e6, 2),
        "table_mb": round((output / "summary.parquet").stat().st_size / 1e6, 1),
        "curve": memory.thinned()["driver"],
    })  # fmt: skip


def files(options: argparse.Namespace, folder: Path) -> None:
    """Volumes of a folder of so many files: time and memory to find them."""
    script = (
        "import sys, time, resource, json\nfrom mmace_sim.io import spans\nfrom mmace_sim.engine.volumes import packed\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "start, cpu = time.monotonic(), time.process_time()\n"
        "held = [packed(volume) for volume in spans.cut([sys.argv[1]])]\n"
        "print(json.dumps({'seconds': time.monotonic() - start, 'cpu_seconds': time.process_time() - cpu, 'volumes': len(held), 'before_mb': before,\n"
        "    'packed_mb': sum(map(len, held)) / 1e6, 'memory_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))\n"
    )
    text = "Fe2\n1.0\n2.83 0 0\n0 2.83 0\n0 0 2.83\nFe\n2\nDirect\n0 0 0\n0.5 0.5 0.5\n"
    root = folder / "files"
    root.mkdir()
    for k in range(options.structures):
        (root / f"structure-{k}.vasp").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", script, str(root)], capture_output=True, text=True, check=True
    )
    write("million_files", {"files": options.structures} | json.loads(done.stdout))


def real(options: argparse.Namespace, folder: Path) -> None:
    """An embedded model to the end, in this process: time of the processor for each structure, whatever else runs."""
    import torch

    from mmace_sim.engine.lifecycle import run_property
    from mmace_sim.properties.relax import RELAX

    torch.set_num_threads(1)
    settings = RELAX.settings(
        paths=[str(cells(folder / "a.extxyz", options.structures))], output=str(folder / "o"), model=MODEL, threads=1,
        max_batch_atoms=options.batch,
    )  # fmt: skip
    begun = time.process_time()
    outcome = run_property(RELAX, settings, quiet=True)
    seconds = time.process_time() - begun
    entries = outcome.summary["structures"]
    write("million_real", {
        "structures": len(entries), "statuses": dict(Counter(entry["status"] for entry in entries)),
        "steps": round(float(np.mean([entry["steps"] for entry in entries])), 1), "cpu_seconds": round(seconds, 1),
        "cpu_ms_per_structure": round(1000 * seconds / len(entries), 1),
        "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    })  # fmt: skip


def figure(options: argparse.Namespace, folder: Path) -> None:
    """Memory curves of `rates` and `driver`, over the share of the run that is done."""
    del options, folder
    from mmace_sim.plots import add_legend, new_figure, save_figure

    drawn, axes = new_figure("column")
    computed = json.loads((FOLDER / "million_rates.json").read_text())["workers"]["2"]
    simulated = json.loads((FOLDER / "million_driver.json").read_text())
    lines = {
        f"driver, {computed['structures']:,} computed": computed["curves"]["driver"],
        "largest worker": computed["curves"]["largest worker"],
        f"driver, {simulated['structures']:,} simulated": simulated["curve"],
    }
    for (label, curve), style in zip(lines.items(), ("-", "--", ":"), strict=True):
        times = np.array([at for at, _ in curve])
        axes.plot(100 * times / times[-1], [size / 1000 for _, size in curve], style, label=label)
    axes.set(xlabel="time of the run (%)", ylabel="memory (GB)", ylim=(0, 1.1))
    add_legend(axes)
    save_figure(drawn, FOLDER / "million_memory")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["rates", "real", "kills", "driver", "files", "figure"])
    parser.add_argument("--structures", type=int, default=20_000)
    parser.add_argument("--alone", type=int, default=0, help="structures for one worker, if not as many")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--max-steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=400, help="atoms of a batch")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--shortest", type=float, default=15.0)
    parser.add_argument("--longest", type=float, default=60.0)
    parser.add_argument("--name", default="")
    parser.add_argument("--folder", default=None, help="where to work; by default a folder that vanishes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as own:
        folder = Path(options.folder or own)
        folder.mkdir(parents=True, exist_ok=True)
        globals()[options.what](options, folder)
        if options.folder:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
