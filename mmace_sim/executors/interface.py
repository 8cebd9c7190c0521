"""What an executor is: something that applies a function to tasks, wherever it does.

    with open_executor("local:4", folder) as executor:
        executor.map(compute, tasks, on_result, on_failure)

A function is named by its module, and a task holds plain data: both travel to other processes. Whatever a task is worth
keeping it writes to disk itself; what it returns says how it ended.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import Field

from mmace_sim.base.settings import MACHINE, Flag
from mmace_sim.errors import MmaceError

ExecutorChoice = Annotated[
    str | None,
    Flag(MACHINE, metavar="local:N|gpu:auto|FILE.yaml", shown="this process"),
    Field(
        description="Workers that compute: **local:4**, four processes of this machine; **gpu:auto**, one for each of "
        "its GPUs; or a file about a cluster. Needs `mmace-sim[parallel]`."
    ),
]
"""The setting that chooses an executor."""


class ExecutorError(MmaceError, RuntimeError):
    """Workers cannot be had, or all of them are lost."""


@dataclass(frozen=True)
class TaskFailure:
    """Why a task has no result.

    Attributes:
        error: What the function raised, or what became of its worker.
        lost: None if the function raised. "worker": the process ended while it computed, as if the task had killed it.
            "block": a node, or all workers of a job, went away.
    """

    error: Exception
    lost: str | None = None

    @property
    def reason(self) -> str:
        """In words."""
        if self.lost == "worker":
            return "the process that computed it was killed (no memory?) or crashed"
        if self.lost == "block":
            return "the node or job that computed it went away"
        return f"{type(self.error).__name__}: {self.error}"


class Executor(Protocol):
    """Applies functions to tasks.

    Attributes:
        n_workers: How many tasks may be computed at once.
        patience: How many times as long as expected a task may take, for those who set its `limit`; 0: any time.
    """

    n_workers: int
    patience: float

    def map[Task, Result](
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        on_result: Callable[[Task, Result], None],
        on_failure: Callable[[Task, TaskFailure], Iterable[Task]],
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        """Apply a function to tasks; all callbacks come in the thread that calls this.

        Args:
            function: A function of a module, that other processes can import.
            tasks: Taken one by one, as workers become free. The worker of a task with an attribute `limit` is ended
                after so many seconds, as if it had died.
            on_result: Told a task and its result, in any order.
            on_failure: Told a task that has none, and why; returns what to compute in its place: the task again, parts
                of it, or nothing. A task is never repeated otherwise.
            watch: Called about every second while tasks are computed.

        Raises:
            ExecutorError: If no workers can be had any more; what is under way is lost.
        """


class ThisProcess:
    """Computes one task after the other, here."""

    n_workers = 1
    patience = 0.0

    def map[Task, Result](
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        on_result: Callable[[Task, Result], None],
        on_failure: Callable[[Task, TaskFailure], Iterable[Task]],
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        """See `Executor.map`."""
        for task in tasks:
            waiting = [task]
            while waiting:
                one = waiting.pop(0)
                try:
                    result = function(one)
                except Exception as error:
                    waiting += on_failure(one, TaskFailure(error))
                else:
                    on_result(one, result)
                watch()


def count_workers(choice: str | None) -> tuple[int, bool]:
    """How many workers a setting asks for at most, and whether they have GPUs; nothing is started.

    Args:
        choice: See `ExecutorChoice`; None: this process.

    Raises:
        ConfigError: If the setting is no executor.
    """
    if choice is None:
        return ThisProcess.n_workers, False
    from mmace_sim.executors.settings import pool_settings

    settings = pool_settings(choice)
    return settings.most_workers, settings.gpus_per_node > 0


@contextmanager
def open_executor(choice: str | None, folder: Path) -> Iterator[Executor]:
    """The executor that a setting names; its workers end with the block.

    Args:
        choice: See `ExecutorChoice`; None: this process.
        folder: Where it may keep files of its own while it works: a new folder, which all workers see, and which the
            caller removes.

    Yields:
        The executor.

    Raises:
        ConfigError: If the setting is no executor.
        MissingExtraError: If Parsl is not installed.
    """
    if choice is None:
        yield ThisProcess()
        return
    from mmace_sim.executors.parsl_pool import open_pool
    from mmace_sim.executors.settings import pool_settings

    with open_pool(pool_settings(choice), folder) as executor:
        yield executor
