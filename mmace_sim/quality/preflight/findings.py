"""What a preflight can find: typed findings with a severity, the numbers behind them, and what to do."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mmace_sim.quality.preflight.work import WorkFit


class Severity(StrEnum):
    """How much a finding matters, from nothing to "do not train on this"."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


SEVERITIES: tuple[Severity, ...] = tuple(Severity)
"""Severities in ascending order."""


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    Attributes:
        code: What was found, a stable word such as `duplicates` or `work_forces`.
        severity: How much it matters.
        message: What was found, with numbers and units.
        advice: What to do; empty if nothing.
        values: Numbers behind the message, plain values for JSON.
    """

    code: str
    severity: Severity
    message: str
    advice: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return vars(self) | {"severity": str(self.severity)}


@dataclass
class PreflightReport:
    """Everything that was found in some data.

    Attributes:
        n_frames: Usable structures per role.
        findings: Findings, in the order of the checks.
        work: Fits of the work test; the first is that over all pairs.
    """

    n_frames: dict[str, int]
    findings: list[Finding] = field(default_factory=list)
    work: list[WorkFit] = field(default_factory=list)

    @property
    def worst(self) -> Severity:
        """The highest severity of all findings."""
        return max((f.severity for f in self.findings), key=SEVERITIES.index, default=Severity.OK)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        counts = {str(s): sum(f.severity == s for f in self.findings) for s in SEVERITIES}
        return {
            "n_frames": self.n_frames,
            "worst": str(self.worst),
            "counts": counts,
            "findings": [finding.as_dict() for finding in self.findings],
            "work_test": [fit.as_dict() for fit in self.work],
        }
