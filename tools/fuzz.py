"""Random inputs of every kind by the thousand: what the nightly job runs, and what a release must have survived.

    python tools/fuzz.py --examples 10000 --log fuzz.log [--seed 1] [--only relaxations,journals] [--record]

The checks are those of `tests/fuzzing.py`, of which the test suite runs a bounded number: structures with anything on
them through the writers and through whole runs of ``mmace-sim relax``, and mutated structure files, journals and model
files. A failure is logged with its traceback and the inputs that hypothesis drew; the next block of examples follows.
An example that takes more than 60 s of the processor, 20 minutes, or memory beyond a limit, is a failure too.
`--record` writes the counts to docs/benchmarks/fuzz.json, which docs/limits.md quotes.
"""

import argparse
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "benchmarks")]
warnings.simplefilter("ignore")

import fuzzing  # noqa: E402
import torch  # noqa: E402
from cli_tools import write_tiny_model  # noqa: E402
from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from record import write  # noqa: E402

SHARES = {
    "frames": 0.15, "relaxations": 0.1, "structure_files": 0.4, "symmetries": 0.1, "journals": 0.1, "model_files": 0.15,
}  # fmt: skip
"""Part of all examples that each check gets."""

BLOCK = 100
"""Examples after which a check starts anew, so that one failure does not end it."""

MAX_FAILURES = 20
"""Failures after which a check gives up."""

SECONDS = 60
"""Of the processor: other work on the machine is no failure."""

HANGING = 1200
MEMORY = 12 * 2**30


def checks(folder: Path, seeds: list[Path]) -> dict[str, Callable[[Any], None]]:
    """The checks by name.

    Args:
        folder: Where to put files.
        seeds: Further folders with structure files to mutate.
    """
    files = fuzzing.SEEDS + fuzzing.seeds_in(*seeds)
    model = write_tiny_model(folder / "tiny.safetensors")
    content = model.read_bytes()

    def relaxation(data: Any) -> None:
        run = Path(tempfile.mkdtemp(dir=folder))
        try:
            fuzzing.check_relaxation(data, run, model)
        finally:
            shutil.rmtree(run)

    def journal(data: Any) -> None:
        path = folder / "finished.jsonl"
        path.unlink(missing_ok=True)
        fuzzing.check_journal(data, path)

    return {
        "frames": fuzzing.check_frame,
        "relaxations": relaxation,
        "structure_files": lambda data: fuzzing.check_structure_file(data, folder, files),
        "symmetries": fuzzing.check_symmetry,
        "journals": journal,
        "model_files": lambda data: fuzzing.check_model_file(data, folder / "mutated.safetensors", content),
    }


def run_block(check: Callable[[Any], None], n: int, number: int) -> tuple[int, str]:
    """Run some examples of a check.

    Args:
        check: The check.
        n: How many.
        number: Seed.

    Returns:
        How many ran to their end, and the traceback of what failed, or "".
    """
    done = 0

    def too_long(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s of the processor, or {HANGING} s")

    @seed(number)
    @settings(
        max_examples=n, deadline=None, database=None, phases=[Phase.generate], print_blob=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(data=st.data())
    def examples(data: Any) -> None:
        nonlocal done
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.alarm(HANGING)
        try:
            check(data)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
        done += 1  # hypothesis gives some up half-way: these do not count

    for limit in (signal.SIGALRM, signal.SIGPROF):
        signal.signal(limit, too_long)
    try:
        examples()
    except Exception as error:
        notes = "\n".join(getattr(error, "__notes__", []))
        return done, "".join(traceback.format_exception(error)) + notes[-4000:]
    return done, ""


def main() -> int:
    """Run all checks; returns 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--log", type=Path, default=Path("fuzz.log"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="names of checks, with commas")
    parser.add_argument("--record", action="store_true", help="write docs/benchmarks/fuzz.json")
    parser.add_argument("--seeds", type=Path, action="append", default=[], help="folder of files to mutate")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    logging.getLogger("mmace_sim").setLevel(logging.CRITICAL)
    names = [name for name in arguments.only.split(",") if name] or list(SHARES)
    total = sum(SHARES[name] for name in names)
    started, n_done, n_failed = time.process_time(), 0, 0
    counts: dict[str, dict[str, int]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        arguments.log.open("w", encoding="utf-8", errors="backslashreplace") as log,
    ):

        def say(text: str) -> None:
            log.write(f"{time.strftime('%H:%M:%S')} {text}\n")
            log.flush()

        known = checks(Path(folder), arguments.seeds)
        for name in names:
            wanted = round(arguments.examples * SHARES[name] / total)
            done, block, failed, began = 0, 0, 0, time.process_time()
            while done < wanted and failed < MAX_FAILURES:
                n, problem = run_block(known[name], min(BLOCK, wanted - done), arguments.seed * 10**6 + block)
                done, block = done + n, block + 1
                if problem:
                    failed += 1
                    say(f"{name}: FAILED\n{problem}")
            n_failed += failed
            n_done += done
            counts[name] = {"examples": done, "failures": failed}
            say(f"{name}: {done} examples, {failed} failures, {time.process_time() - began:.0f} CPU s")
        seconds = time.process_time() - started
        if arguments.record:
            write("fuzz", {"seed": arguments.seed, "seconds": round(seconds), "checks": counts})
        say(f"all: {n_done} examples, {n_failed} failures, {seconds:.0f} CPU s, seed {arguments.seed}")
    return int(n_failed > 0)


if __name__ == "__main__":
    sys.exit(main())
