"""Preflight of magnetic training data: what is wrong with it, before a model is trained on it."""

from collections.abc import Mapping

from mmace_sim.errors import DataError
from mmace_sim.io.frames import FrameSet
from mmace_sim.quality.preflight.energies import energy_findings
from mmace_sim.quality.preflight.findings import SEVERITIES, Finding, PreflightReport, Severity
from mmace_sim.quality.preflight.moments import moment_findings
from mmace_sim.quality.preflight.pairs import close_pairs
from mmace_sim.quality.preflight.splits import split_findings
from mmace_sim.quality.preflight.verdicts import work_findings

__all__ = ["SEVERITIES", "Finding", "PreflightReport", "Severity", "check_data"]


def check_data(frames_by_role: Mapping[str, FrameSet]) -> PreflightReport:
    """Look for everything that is known to go wrong in magnetic training data.

    Sign and unit of forces, stress and magnetic forces (work test and exchange test); missing, zero and guessed
    moments; energies, outliers, large forces, overlapping atoms; duplicates, leakage and coverage of splits.

    Args:
        frames_by_role: What `read_frames` found, by role: `train`, `valid`, `test`, or any other name.

    Returns:
        All findings, also those that say that something is right.

    Raises:
        DataError: If there is no usable structure.
    """
    used = {role: found.frames for role, found in frames_by_role.items() if found.frames}
    problems = [problem for found in frames_by_role.values() for problem in found.problems]
    frames = [frame for members in used.values() for frame in members]
    if not frames:
        raise DataError(f"no structure can be used: {'; '.join(problems[:3]) or 'there is none'}")
    findings = _unusable(problems, len(frames))
    pairs = close_pairs(frames)
    work, fits = work_findings(frames, pairs)
    findings += [*energy_findings(frames), *work, *moment_findings(frames), *split_findings(used, pairs)]
    return PreflightReport({role: len(members) for role, members in used.items()}, findings, fits)


def _unusable(problems: list[str], n_usable: int) -> list[Finding]:
    if not problems:
        return []
    text = f"{len(problems)} of {n_usable + len(problems)} structures cannot be used: {problems[0]}"
    advice = "Add the moments or labels, or remove these structures; `train` refuses them."
    return [Finding("unusable", Severity.ERROR, text, advice, {"problems": problems})]
