"""What a worker does with a task, and how the process between driver and workers ends with its driver.

Nothing heavy is imported here: a worker imports this file first.
"""

import faulthandler
import os
import runpy
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmace_sim.base.allocator import keep_freed_memory
from mmace_sim.base.signals import interruptible

GPUS: str = "MMACE_SIM_GPUS"
"""Environment variable with the number of GPUs that the workers of a node share."""

POOL: str = "parsl.executors.high_throughput.process_worker_pool"

SIGN_INTERVAL: float = 10.0
"""Seconds between two signs of life."""

_pinned: list[str] = []


def pin_gpu() -> None:
    """See one GPU of the node, of those that the batch system gave, before anything looks for them."""
    n_gpus = int(os.environ.get(GPUS, "0"))
    if _pinned or not n_gpus:
        return
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    visible = [part for part in given.split(",") if part] or [str(k) for k in range(n_gpus)]
    rank, count = (
        int(os.environ.get("PARSL_WORKER_RANK", "0")),
        int(os.environ.get("PARSL_WORKER_COUNT", "1")),
    )
    _pinned.append(visible[rank * len(visible) // count])
    os.environ["CUDA_VISIBLE_DEVICES"] = _pinned[0]


def call(function: Callable[[Any], Any], task: Any, sign: str) -> Any:
    """Apply a function to a task with this worker's share of the cores; a signal is an exception within.

    Args:
        function: The function.
        task: Its argument. After its `limit`, if it has one, this process ends.
        sign: A file to touch as long as this process lives and computes.
    """
    pin_gpu()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = max(1, cores // int(os.environ.get("PARSL_WORKER_COUNT", "1")))
    os.environ.setdefault("OMP_NUM_THREADS", str(share))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    keep_freed_memory()
    limit = getattr(task, "limit", None)
    if limit:
        faulthandler.dump_traceback_later(limit, exit=True)  # whatever the main thread does
    over = threading.Event()
    threading.Thread(target=_live, args=(Path(sign), over), daemon=True).start()
    try:
        with interruptible():
            return function(task)
    finally:
        over.set()
        faulthandler.cancel_dump_traceback_later()


def _live(sign: Path, over: threading.Event) -> None:
    """Touch a file until something is over."""
    while not over.is_set():
        with suppress(OSError):
            sign.touch()
        over.wait(SIGN_INTERVAL)


def _interchange(script: str) -> None:
    """Run Parsl's interchange until the driver ends, however it does: then no worker has anybody to work for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver
    driver = os.getppid()

    def watch() -> None:
        while os.getppid() == driver:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    runpy.run_path(script, run_name="__main__")


def _pool() -> None:
    """Run Parsl's pool of workers, and end with its main thread.

    Another of its threads waits for results as long as there is the process: a pool whose driver was killed stayed for
    ever, with its place in a batch system.
    """
    code = 1
    try:
        runpy.run_module(POOL, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    what = sys.argv.pop(1)
    _pool() if what == "pool" else _interchange(what)
