"""Errors at relaxed moments: what a model says of structures whose moments it finds by itself.

Data without constrained moments (self-consistent calculations) say nothing of magnetic forces, but their energies,
forces and moments are those of a minimum over the moments. The model is held against them at its own minimum, found
from the moments of the data at fixed atoms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from mmace_sim.graph.magnetic_order import classify_order
from mmace_sim.io.frames import Frame
from mmace_sim.training.evaluation.errors import ErrorSums
from mmace_sim.training.evaluation.metrics import ErrorTable, LabelError, table_as_dict

SAME_ORDER: float = 0.9
"""Overlap of two sets of moments from which on they are the same order."""


@dataclass
class RelaxedErrors:
    """Errors of a model at its own moments.

    Attributes:
        overall: Errors of energy, forces, stress and lengths of moments.
        by_config_type: The same per config_type.
        kept_order: Whether each structure kept its magnetic order, by its source.
        problems: One message per structure whose moments did not come to rest.
    """

    overall: dict[str, LabelError]
    by_config_type: ErrorTable
    kept_order: dict[str, bool]
    problems: list[str] = field(default_factory=list)

    @property
    def kept_share(self) -> float:
        """Share of the structures that kept their magnetic order."""
        return sum(self.kept_order.values()) / max(len(self.kept_order), 1)

    def as_dict(self) -> dict:
        """Errors and counts as plain values for JSON."""
        return {
            "n_structures": len(self.kept_order),
            "n_not_converged": len(self.problems),
            "overall": table_as_dict(self.overall),
            "by_config_type": {k: table_as_dict(v) for k, v in self.by_config_type.items()},
            "kept_order": self.kept_share,
            "lost_order": [source for source, kept in self.kept_order.items() if not kept],
            "problems": self.problems,
        }


def compare_relaxed(frames: Sequence[Frame], points: Sequence[Any]) -> RelaxedErrors:
    """Errors at relaxed moments.

    Args:
        frames: Structures with labels; their moments are those of the reference.
        points: A `mmace_sim.properties.singlepoint.PointResult` of each, at the moments that the model relaxed from
            those of the reference.

    Returns:
        The errors; structures whose moments did not come to rest are left out and named.
    """
    everything, types = ErrorSums(), ErrorSums()
    kept, problems = {}, []
    for frame, point in zip(frames, points, strict=True):
        if str(point.status) != "converged" or point.magmoms is None:
            problems.append(f"{frame.source}: {point.status}: {point.message}")
            continue
        for quantity, wrong in _errors(frame, point, point.magmoms).items():
            everything.add("all", quantity, wrong)
            types.add(frame.config_type, quantity, wrong)
        kept[frame.source] = same_order(frame.magmoms, point.magmoms)
    return RelaxedErrors(everything.table("all"), types.tables(), kept, problems)


def same_order(before: Float[np.ndarray, "n_atoms 3"], after: Float[np.ndarray, "n_atoms 3"]) -> bool:
    """Whether two sets of moments are the same order, whatever their common direction and their lengths.

    Args:
        before: Moments, in μB.
        after: Moments of the same atoms, in μB.

    Returns:
        True if both have the same name (`classify_order`), and the largest overlap that a common rotation or reflection
        of all moments gives them, max_R Σ a·Rb / (|a| |b|), is at least `SAME_ORDER`.
    """
    if classify_order(before) != classify_order(after):
        return False
    size = float(np.linalg.norm(before) * np.linalg.norm(after))
    if size < 1e-12:
        return True
    overlap = np.linalg.svd(before.T @ after, compute_uv=False).sum() / size
    return bool(overlap >= SAME_ORDER)


def _errors(frame: Frame, point: Any, relaxed: np.ndarray) -> dict[str, np.ndarray]:
    """Predicted minus reference, without components that have no label."""
    predicted = {"energy": point.energy, "forces": point.forces, "stress": point.stress}
    errors = {
        label: (np.asarray(value, dtype=float) - frame.labels[label]).ravel()
        for label, value in predicted.items()
        if label in frame.labels and value is not None
    }
    if "energy" in errors:
        errors["energy"] = errors["energy"] / len(frame.atoms)
    errors["moment_length"] = np.linalg.norm(relaxed, axis=1) - np.linalg.norm(frame.magmoms, axis=1)
    return {label: values[~np.isnan(values)] for label, values in errors.items()}
