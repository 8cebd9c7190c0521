"""One calculation: its attempts in a private folder, here or where a worker is, what is kept, and what it costs."""

import resource
import shutil
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmace_sim.data.label.calculation import Calculation
from mmace_sim.data.label.checks import check_labels, state_note
from mmace_sim.data.label.engine import (
    BatchEngine,
    Engine,
    EngineError,
    Labels,
    Limits,
    NotConvergedError,
    load_engine,
)
from mmace_sim.data.label.settings import LabelSettings
from mmace_sim.executors.settings import pool_settings
from mmace_sim.files import keep, scratch

MAX_KEPT: int = 20 * 2**20
"""Outputs larger than this (bytes) are not kept."""


@dataclass
class Result:
    """What became of a calculation.

    Attributes:
        labels: Its labels; None if it failed.
        reason: Why it failed; "" if it did not.
        attempts: How often it was tried.
        cpu_s: CPU time of all attempts, in seconds.
        wall_s: Wall time of all attempts, in seconds.
        notes: What the user should know.
        folder: Where its files are.
    """

    labels: Labels | None = None
    reason: str = ""
    attempts: int = 0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    notes: list[str] = field(default_factory=list)
    folder: Path | None = None

    @property
    def cost(self) -> dict[str, Any]:
        """What it cost, for the frame and the summary."""
        return {
            "attempts": self.attempts,
            "cpu_s": round(self.cpu_s, 2),
            "wall_s": round(self.wall_s, 2),
        }


def judged(calculation: Calculation, labels: Labels, tolerance: float, result: Result) -> Result:
    """Put checked labels into a result.

    Args:
        calculation: What was asked for.
        labels: What came of it.
        tolerance: Largest distance of a held moment from its target, in μB.
        result: What is to hold them.

    Raises:
        EngineError: If they cannot be used.
    """
    check_labels(calculation, labels, tolerance)
    note = state_note(calculation, labels)
    result.labels, result.reason = labels, ""
    result.notes += [note] if note else []
    return result


@dataclass(frozen=True)
class Job:
    """A calculation on its way to a worker.

    Attributes:
        settings: Of the run.
        calculation: What to compute.
        private: A folder of its own, which worker and run see.
        tolerance: Largest distance of a held moment from its target, in μB.
        tries: How often workers were lost over it.
    """

    settings: LabelSettings
    calculation: Calculation
    private: Path
    tolerance: float
    tries: int = 0


def compute(job: Job) -> Result:
    """Run a calculation, again with other mixing while it does not converge.

    Returns:
        Labels, or the reason why there are none; its `folder` has the files of the last attempt.
    """
    engine = _engine(job.settings.model_dump_json())
    result, tried = Result(), []
    for attempt in range(engine.attempts):
        result.folder, result.attempts = job.private / f"attempt-{attempt + 1}", attempt + 1
        result.folder.mkdir()
        started, before = time.monotonic(), _children_cpu()
        try:
            engine.write(job.calculation, result.folder, attempt)
            engine.run(result.folder, Limits(job.settings.timeout))
            labels = engine.collect(job.calculation, result.folder)
            return judged(job.calculation, labels, job.tolerance, result)
        except NotConvergedError as error:
            tried.append(str(error))
        except EngineError as error:
            result.reason = str(error)
            return result
        finally:
            result.cpu_s += _children_cpu() - before
            result.wall_s += time.monotonic() - started
    result.reason = f"{tried[-1]} ({len(tried)} attempts)" if len(tried) > 1 else tried[-1]
    return result


@lru_cache(maxsize=1)
def _engine(settings: str) -> Engine:
    """The engine of a run, made once in each process."""
    engine = load_engine(LabelSettings.model_validate_json(settings))
    assert not isinstance(engine, BatchEngine)
    return engine


def keep_files(engine: Engine, private: Path, folder: Path) -> None:
    """Move the text files of a calculation to where they stay.

    Args:
        engine: Which knows them.
        private: Where they were written.
        folder: Where they stay.
    """
    names = sorted({path for pattern in engine.keeps for path in private.glob(pattern)})
    for path in names:
        if path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_KEPT:
            keep(path, folder / path.relative_to(private))


def write_inputs(engine: Engine, calculation: Calculation, folder: Path) -> None:
    """Write the inputs of a calculation for another machine.

    Args:
        engine: Which writes them.
        calculation: What to compute.
        folder: Where they stay.
    """
    with scratch(folder.parent) as private:
        engine.write(calculation, private)
        engine.script(private)
        for path in sorted(path for path in private.rglob("*") if path.is_file()):
            keep(path, folder / path.relative_to(private))


def executable(command: str) -> str | None:
    """The program that a command starts; None if it is not there.

    Args:
        command: Such as ``mpirun -n 4 abinit``.
    """
    return shutil.which(command.split()[0])


def starts_here(settings: LabelSettings) -> bool:
    """Whether calculations are started on this machine, so that the program of the engine must be here."""
    if settings.write_only or settings.collect:
        return False
    name = settings.executor
    return name is None or not name.endswith((".yaml", ".yml")) or pool_settings(name).provider == "local"


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
