"""What becomes of a batch of candidates."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms


@dataclass(frozen=True)
class Failure:
    """A candidate without labels.

    Attributes:
        config_id: Its name.
        reason: Why, and what to do.
        index: Place among the candidates; -1 if it could not be read.
    """

    config_id: str
    reason: str
    index: int = -1


@dataclass
class LabelOutcome:
    """Labels of a batch.

    Attributes:
        frames: Structures with labels under the names of `mmace_sim.base.labels.LabelKeys`, in the order of the
            candidates.
        failures: Candidates without labels.
        folder: Folder of the run.
        cpu_seconds: CPU time of all calculations, of failed and of repeated ones too.
        missing: Names of candidates that are not computed yet (`write_only`, `collect`).
        findings: What `data check` found in the frames, as plain values.
        trainable: Whether it found no error.
        summary: Content of ``summary.json``.
    """

    frames: list[Atoms]
    failures: list[Failure]
    folder: Path
    cpu_seconds: float
    missing: list[str] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    trainable: bool = True
    summary: dict[str, Any] = field(default_factory=dict)
