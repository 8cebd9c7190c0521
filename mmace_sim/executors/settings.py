"""Settings of workers: which machines, how many, how they are asked for."""

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from mmace_sim.base.settings import Settings, load_settings
from mmace_sim.errors import ConfigError, UnsupportedOptionError

Text = Annotated[str, StringConstraints(max_length=10_000)]
Word = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\n\r]*$")]

_LOCAL = re.compile(r"(local|gpu):(\d{1,4}|auto)")


class PoolSettings(Settings):
    """Workers: blocks of nodes with some workers on each.

    A block is what a batch system starts and ends as one job. Blocks are asked for as long as there is more work than
    workers, and given back when there is none.
    """

    provider: Literal["local", "slurm", "pbs", "lsf", "kubernetes"]
    """Who starts them: this machine, or the batch system of a cluster."""
    workers_per_node: int | None = Field(default=None, ge=1, le=4096)
    """Workers of each node; by default one for each of `gpus_per_node`, or one."""
    gpus_per_node: int = Field(default=0, ge=0, le=64)
    """GPUs of each node that are asked for; workers share them evenly and see one each."""
    cores_per_node: int | None = Field(default=None, ge=1, le=4096)
    """Cores of each node that are asked for; by default as the batch system gives them."""
    memory_per_node: int | None = Field(default=None, ge=1)
    """Memory of each node that is asked for, in GB."""
    nodes_per_block: int = Field(default=1, ge=1, le=10_000)
    """Nodes of each job."""
    init_blocks: int = Field(default=1, ge=0)
    """Jobs at the beginning."""
    min_blocks: int = Field(default=0, ge=0)
    """Jobs that are kept even if there is no work for them."""
    max_blocks: int = Field(default=1, ge=1, le=10_000)
    """Jobs at most."""
    walltime: Annotated[str, StringConstraints(pattern=r"^(\d+-)?\d{1,3}:\d{2}:\d{2}$")] = "01:00:00"
    """Time limit of a job; what a job has not finished by then goes on in another."""
    partition: Word | None = None
    """Partition or queue."""
    account: Word | None = None
    """Account or project that is charged."""
    qos: Word | None = None
    """Quality of service (Slurm)."""
    constraint: Word | None = None
    """Features of nodes (Slurm)."""
    exclusive: bool = False
    """Whole nodes (Slurm)."""
    scheduler_options: Text = ""
    """Further lines of the job's head, such as `#SBATCH --mail-type=END`."""
    worker_init: Text = ""
    """Shell commands of a job before its workers start, such as `module load cuda`. Workers use the environment of the
    command itself, unless another one is activated here."""
    launcher: Literal["single", "srun", "mpiexec"] | None = None
    """What starts workers on the nodes of a job; by default srun (Slurm) or mpiexec for jobs of several nodes."""
    address: Word | None = None
    """Address or name of this machine for the workers; by default they try all of its addresses."""
    image: Word | None = None
    """Container image (Kubernetes)."""
    namespace: Word = "default"
    """Namespace (Kubernetes)."""
    persistent_volumes: list[Annotated[Word, StringConstraints(pattern=r"^[^:]+:/.+$")]] = Field(
        default_factory=list
    )
    """Claims that hold the folder of the run, the models and the environment, and where they are mounted, such as
    `data:/data` (Kubernetes)."""
    patience: float = Field(default=20.0, ge=0)
    """A piece of work may take so many times as long as it should, and at least an hour; then its worker is ended, as
    if it had died. 0: any time."""
    lost_after: int = Field(default=60, ge=10, le=3600)
    """Seconds without a sign of life after which a node is given up."""

    @model_validator(mode="after")
    def _consistent(self) -> "PoolSettings":
        if not self.min_blocks <= self.init_blocks <= self.max_blocks:
            raise ValueError("expected min_blocks ≤ init_blocks ≤ max_blocks")
        if self.provider == "kubernetes" and self.image is None:
            raise ValueError("kubernetes needs the `image` of a container with mmace-sim and Parsl")
        return self

    @property
    def workers(self) -> int:
        """Workers of each node."""
        return self.workers_per_node or max(1, self.gpus_per_node)

    @property
    def most_workers(self) -> int:
        """Workers at most, of all blocks."""
        return self.max_blocks * self.nodes_per_block * self.workers


def pool_settings(choice: str) -> PoolSettings:
    """The workers that a setting names.

    Args:
        choice: ``local:N``, ``gpu:N``, ``gpu:auto``, or a YAML file of `PoolSettings`.

    Raises:
        ConfigError: If it is none of them, or the file is wrong.
        UnsupportedOptionError: If there are no GPUs.
    """
    match = _LOCAL.fullmatch(choice)
    if match is None:
        if not choice.endswith((".yaml", ".yml")):
            raise ConfigError(
                f"executor {choice!r}: choose local:N, gpu:auto, or a YAML file (see docs/parallel.md)."
            )
        if not Path(choice).is_file():
            raise ConfigError(f"executor {choice!r}: there is no such file.")
        return load_settings(PoolSettings, Path(choice), {})
    kind, number = match.groups()
    available = _count_gpus() if kind == "gpu" else len(os.sched_getaffinity(0))
    if kind == "gpu" and not available:
        raise UnsupportedOptionError(
            f"executor {choice!r}: this machine has no GPU that torch can use. Use local:N."
        )
    n = available if number == "auto" else int(number)
    if not 1 <= n <= 4096 or (kind == "gpu" and n > available):
        raise ConfigError(
            f"executor {choice!r}: expected 1 to {available if kind == 'gpu' else 4096} workers."
        )
    return PoolSettings(provider="local", workers_per_node=n, gpus_per_node=n if kind == "gpu" else 0)


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count()
