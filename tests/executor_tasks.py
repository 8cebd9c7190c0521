"""Functions that the tests of executors send to other processes."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


def large(task):
    """As `square`, with a result that takes longer to write than to compute."""
    return (*square(task), b"x" * 10**8)


def square(task):
    """Square a number, slowly; or die, once or always, or raise."""
    number, how, folder = task
    mark = Path(folder) / f"{number}.tried"
    if how == "dies" or (how == "dies once" and not mark.exists()):
        mark.touch()
        time.sleep(1.0)  # Parsl must have handed out the result before, or a lock of it dies too
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "raises":
        raise ValueError(f"{number} is no good")
    time.sleep(0.02)
    return number**2, os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


@dataclass(frozen=True)
class Sleep:
    """So many seconds, and how many it may take."""

    seconds: float
    limit: float


def sleep(task):
    """Do nothing."""
    time.sleep(task.seconds)
