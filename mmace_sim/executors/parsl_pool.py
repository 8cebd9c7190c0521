"""Workers by Parsl: it asks batch systems for them, starts and watches them, and hands out tasks."""

import functools
import logging
import shlex
import socket
import sys
import sysconfig
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmace_sim.base.extras import extra
from mmace_sim.errors import ConfigError
from mmace_sim.executors.interface import ExecutorError, TaskFailure
from mmace_sim.executors.settings import PoolSettings
from mmace_sim.executors.worker import GPUS, call

if TYPE_CHECKING:
    from parsl.dataflow.dflow import DataFlowKernel

POLL: float = 1.0
"""Seconds between two looks at what workers have written."""

HEARTBEAT: int = 5
"""Seconds between two signs of life, after which a killed process is missed too."""

TRIES: int = 3
"""So many jobs in a row that fail at once end the run."""

STALLED: float = 900.0
"""Seconds after which a worker without a sign of life, whose loss Parsl does not report, ends the run: a worker that is
killed while it hands out a result can take a lock of Parsl's with it."""

LOOK: float = 30.0
"""Seconds between two looks at the signs of life."""

_END = object()


class ParslPool:
    """Applies functions to tasks on Parsl's workers.

    Args:
        kernel: Parsl's ``DataFlowKernel``.
        folder: Where workers leave signs of life.
        n_workers: How many tasks may be computed at once.
        patience: See `mmace_sim.executors.interface.Executor`.
    """

    def __init__(self, kernel: "DataFlowKernel", folder: Path, n_workers: int, patience: float) -> None:
        from parsl.app.python import PythonApp

        self.n_workers, self.patience, self._signs = n_workers, patience, Signs(folder)
        self._submit: Callable[..., Future] = PythonApp(call, data_flow_kernel=kernel)

    def map[Task, Result](
        self,
        function: Callable[[Task], Result],
        tasks: Iterable[Task],
        on_result: Callable[[Task, Result], None],
        on_failure: Callable[[Task, TaskFailure], Iterable[Task]],
        watch: Callable[[], None] = lambda: None,
    ) -> None:
        """See `mmace_sim.executors.interface.Executor.map`."""
        waiting: deque[Any] = deque()
        source = iter(tasks)
        running: dict[Future, Any] = {}
        ahead = self.n_workers + max(1, self.n_workers // 4)  # so that none waits for the next task
        while True:
            while len(running) < ahead:
                task = waiting.popleft() if waiting else next(source, _END)
                if task is _END:
                    break
                sign = self._signs.new()
                running[self._submit(function, task, str(sign))] = (task, sign)
            if not running:
                return
            done, _ = wait(running, timeout=POLL, return_when=FIRST_COMPLETED)
            for future in done:
                (task, sign), error = running.pop(future), future.exception()
                self._signs.forget(sign)
                if error is None:
                    on_result(task, future.result())
                else:
                    waiting.extend(on_failure(task, _failure(error)))
            watch()
            self._signs.look()


class Signs:
    """Signs of life: files that workers touch as long as they compute.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._n, self._looked = folder, 0, 0.0
        self._seen: dict[Path, tuple[float, float]] = {}

    def new(self) -> Path:
        """A file for the worker of a task."""
        self._n += 1
        path = self._folder / f"task-{self._n}.sign"
        self._seen[path] = (0.0, 0.0)
        return path

    def forget(self, path: Path) -> None:
        """A task has ended."""
        del self._seen[path]
        path.unlink(missing_ok=True)

    def look(self) -> None:
        """See whether all workers live.

        Raises:
            ExecutorError: If one has been silent for `STALLED`.
        """
        now = time.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        for path, (before, since) in self._seen.items():
            try:
                touched = path.stat().st_mtime
            except OSError:  # not begun yet
                continue
            if touched != before:
                self._seen[path] = (touched, now)
            elif now - since > STALLED:
                raise ExecutorError(
                    f"a worker has shown no sign of life for {STALLED:.0f} s, but is not reported lost. What is "
                    "finished is kept: run the same command with --resume."
                )


def _failure(error: BaseException) -> TaskFailure:
    """What became of a task, from what Parsl raises."""
    from parsl.executors.errors import BadStateException
    from parsl.executors.high_throughput.errors import ManagerLost, WorkerLost

    if isinstance(error, BadStateException):
        raise ExecutorError(
            f"no workers can be had: {_shortened(str(error.reason))} Results are kept. Mend the settings of the "
            "executor, then run the same command with --resume."
        ) from error
    if isinstance(error, WorkerLost):
        return TaskFailure(error, "worker")
    if isinstance(error, ManagerLost):
        return TaskFailure(error, "block")
    if not isinstance(error, Exception):
        raise error
    return TaskFailure(error)


def _shortened(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[:12])[:1500]


@contextmanager
def open_pool(settings: PoolSettings, folder: Path) -> Iterator[ParslPool]:
    """Start workers, as they are needed; they end with the block.

    Args:
        settings: Which.
        folder: A new folder for Parsl's files, which all workers see.

    Yields:
        Who computes.

    Raises:
        ConfigError: If the batch system cannot be used.
        MissingExtraError: If Parsl is not installed.
    """
    with warnings.catch_warnings(), extra("parallel", "--executor"):
        warnings.simplefilter("ignore")
        import parsl
        from parsl.dataflow.dflow import DataFlowKernel

    _keep_quiet()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = parsl.Config(
            executors=[_executor(settings, folder)],
            run_dir=str(folder),
            strategy="simple",
            strategy_period=2.0,
            max_idletime=60.0,
            retries=0,
            usage_tracking=0,
            initialize_logging=False,
        )
        kernel = DataFlowKernel(config)
    try:
        yield ParslPool(kernel, folder, settings.most_workers, settings.patience)
    finally:
        with suppress(Exception):
            kernel.cleanup()


def _executor(settings: PoolSettings, folder: Path) -> Any:
    """Parsl's executor; its helper programs are those of this environment, found without PATH."""
    from parsl.executors import HighThroughputExecutor
    from parsl.executors.high_throughput.executor import DEFAULT_LAUNCH_CMD
    from parsl.jobs.error_handlers import windowed_error_handler

    script = str(Path(sysconfig.get_path("scripts")) / "interchange.py")
    local = settings.provider == "local"
    executor = HighThroughputExecutor(
        label="workers",
        provider=_provider(settings),
        address=_resolved(settings.address) if settings.address and not local else "127.0.0.1",
        launch_cmd=DEFAULT_LAUNCH_CMD.replace(
            "process_worker_pool.py", "python -m mmace_sim.executors.worker pool", 1
        ),
        interchange_launch_cmd=[sys.executable, "-m", "mmace_sim.executors.worker", script],
        max_workers_per_node=settings.workers,
        cores_per_worker=1e-3,  # `max_workers_per_node` alone says how many
        heartbeat_period=HEARTBEAT,
        heartbeat_threshold=settings.lost_after,
        prefetch_capacity=0,
        worker_logdir_root=str(folder),
        block_error_handler=functools.partial(windowed_error_handler, threshold=TRIES),
    )
    if not (local or settings.address):
        executor.address, executor.all_addresses = None, own_addresses()
    return executor


def _resolved(address: str) -> str:
    """The number of an address, which is what Parsl wants."""
    try:
        return socket.gethostbyname(address)
    except OSError as error:
        raise ConfigError(f"address {address!r} of the executor: {error.strerror or error}.") from error


def _minutes(walltime: str) -> str:
    """A time limit without days, which not all of Parsl's providers know."""
    days, _, rest = walltime.rpartition("-")
    hours, minutes, seconds = (int(part) for part in rest.split(":"))
    return f"{24 * int(days or 0) + hours:02d}:{minutes:02d}:{seconds:02d}"


def own_addresses() -> set[str]:
    """All addresses of this machine that other machines might reach; nobody outside is asked."""
    from parsl.addresses import address_by_interface

    found = set()
    for _, name in socket.if_nameindex():
        with suppress(OSError):
            found.add(address_by_interface(name))
    found = {address for address in found if not address.startswith("127.")}
    with suppress(OSError):
        found.add(socket.gethostbyname(socket.gethostname()))
    return found or {"127.0.0.1"}


def _provider(settings: PoolSettings) -> Any:
    """Who starts blocks."""
    from parsl import providers
    from parsl.launchers import MpiExecLauncher, SingleNodeLauncher, SrunLauncher

    several = settings.nodes_per_block > 1
    default = ("srun" if settings.provider == "slurm" else "mpiexec") if several else "single"
    launchers = {"single": SingleNodeLauncher, "srun": SrunLauncher, "mpiexec": MpiExecLauncher}
    path = shlex.quote(sysconfig.get_path("scripts"))
    shared: dict[str, Any] = {
        "nodes_per_block": settings.nodes_per_block,
        "init_blocks": settings.init_blocks,
        "min_blocks": settings.min_blocks,
        "max_blocks": settings.max_blocks,
        "worker_init": f"export PATH={path}:$PATH {GPUS}={settings.gpus_per_node}\n{settings.worker_init}",
    }
    if settings.provider == "kubernetes":
        return _kubernetes(settings, shared)
    shared["launcher"] = launchers[settings.launcher or default]()
    if settings.provider == "local":
        return providers.LocalProvider(**shared)
    shared |= {"walltime": _minutes(settings.walltime), "scheduler_options": settings.scheduler_options}
    if settings.provider == "slurm":
        return providers.SlurmProvider(
            partition=settings.partition,
            account=settings.account,
            qos=settings.qos,
            constraint=settings.constraint,
            exclusive=settings.exclusive,
            cores_per_node=settings.cores_per_node,
            mem_per_node=settings.memory_per_node,
            gpus_per_node=settings.gpus_per_node or None,
            cmd_timeout=60,
            **shared,
        )
    if settings.provider == "pbs":
        select = [f"ngpus={settings.gpus_per_node}"] if settings.gpus_per_node else []
        select += [f"mem={settings.memory_per_node}gb"] if settings.memory_per_node else []
        return providers.PBSProProvider(
            account=settings.account,
            queue=settings.partition,
            cpus_per_node=settings.cores_per_node or 1,
            select_options=":".join(select),
            **shared,
        )
    return providers.LSFProvider(
        project=settings.account, queue=settings.partition, cores_per_node=settings.cores_per_node, **shared
    )


def _kubernetes(settings: PoolSettings, shared: dict[str, Any]) -> Any:
    from parsl.errors import OptionalModuleMissing
    from parsl.providers import KubernetesProvider

    more = {"nvidia.com/gpu": str(settings.gpus_per_node)} if settings.gpus_per_node else None
    cores, memory = settings.cores_per_node or 1, f"{settings.memory_per_node or 4}Gi"
    try:
        return KubernetesProvider(
            image=settings.image or "",
            namespace=settings.namespace,
            init_cpu=cores,
            max_cpu=cores,
            init_mem=memory,
            max_mem=memory,
            persistent_volumes=[
                (name, place)
                for name, _, place in (claim.partition(":") for claim in settings.persistent_volumes)
            ],
            extra_requests=more,
            extra_limits=more,
            **shared,
        )
    except OptionalModuleMissing as error:
        raise ConfigError(f"kubernetes: {error}. Install it: pip install kubernetes") from error


def _keep_quiet() -> None:
    """What Parsl says is for its developers; what matters comes as exceptions."""
    logger = logging.getLogger("parsl")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
