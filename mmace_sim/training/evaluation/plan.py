"""What an evaluation would compare, and how long it would take: everything is read, one batch is computed."""

from collections import Counter
from collections.abc import Sequence

from mmace_sim.base.text import spelled_seconds
from mmace_sim.io.frames import FrameSet
from mmace_sim.model.interface import Potential
from mmace_sim.training.evaluation.evaluate import evaluate_frames, supported

MAX_PROBLEMS: int = 10
"""Structures left out that are named on the screen."""


def plan_evaluation(
    model: Potential, found: FrameSet, *, batch_size: int, magforce_elements: Sequence[str] | None = None
) -> str:
    """Tell what would be compared; one batch, of the structures in the middle by size, is computed for the time.

    Args:
        model: Magnetic model.
        found: Structures with labels, and what could not be read.
        batch_size: Structures per batch.
        magforce_elements: Symbols of the elements whose magnetic forces are labels; None means all.

    Returns:
        Some lines for the user.
    """
    usable, foreign = supported(model, list(enumerate(found.frames)))
    frames = sorted((frame for _, frame in usable), key=lambda frame: len(frame.atoms))
    problems = [*found.problems, *foreign]
    lines = [f"skipped: {problem}" for problem in problems[:MAX_PROBLEMS]]
    if len(problems) > MAX_PROBLEMS:
        lines.append(f"... and {len(problems) - MAX_PROBLEMS} more")
    n_atoms = sum(len(frame.atoms) for frame in frames)
    lines.append(f"{len(frames)} structures with {n_atoms} atoms in batches of {batch_size}.")
    labels = Counter(label for frame in frames for label in frame.labels)
    lines.append("Labels: " + (", ".join(f"{label} of {count}" for label, count in labels.items()) or "none"))
    if frames:
        first = max(0, (len(frames) - batch_size) // 2)
        middle = frames[first : first + batch_size]
        tried = evaluate_frames(model, middle, batch_size=batch_size, magforce_elements=magforce_elements)
        lines += [f"skipped: {problem}" for problem in tried.problems]
        timing = tried.timing
        share = n_atoms / max(timing.n_atoms, 1)
        seconds = share * (timing.model_seconds + timing.graph_seconds)
        lines.append(f"About {spelled_seconds(seconds)} on {timing.device}, {timing.dtype}.")
    return "\n".join(lines)
