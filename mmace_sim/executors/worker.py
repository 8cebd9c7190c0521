"""What a worker does with a task, and how the process between driver and workers ends with its driver.

Nothing heavy is imported here: a worker imports this file first.
"""

import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from mmace_sim.base.allocator import keep_freed_memory
from mmace_sim.base.signals import interruptible

GPUS: str = "MMACE_SIM_GPUS"
"""Environment variable with the number of GPUs that the workers of a node share."""

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


def call(function: Callable[[Any], Any], task: Any) -> Any:
    """Apply a function to a task with this worker's share of the cores; a signal is an exception within.

    Args:
        function: The function.
        task: Its argument.
    """
    pin_gpu()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = max(1, cores // int(os.environ.get("PARSL_WORKER_COUNT", "1")))
    os.environ.setdefault("OMP_NUM_THREADS", str(share))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    keep_freed_memory()
    with interruptible():
        return function(task)


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


if __name__ == "__main__":
    _interchange(sys.argv.pop(1))
