"""What is measured of one structure, and sums of it over groups of structures."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from mmace_sim.graph.magnetic_order import MOMENT_TOL
from mmace_sim.io.frames import LABELS
from mmace_sim.training.evaluation.metrics import MILLI, LabelError
from mmace_sim.training.evaluation.metrics import UNITS as LABEL_UNITS

DEGREES = "°"

DERIVED_UNITS: dict[str, str] = {
    "energy_shifted": "meV/atom",
    "magforce_length": "meV/μB",
    "magforce_longitudinal": "meV/μB",
    "magforce_transverse": "meV/μB",
    "torque": "meV",
    "magforce_angle": DEGREES,
    "magforce_angle_weighted": DEGREES,
    "moment_length": "mμB",
}
"""Unit of what is derived from the labels, see `magforce_errors`, and of relaxed moments, see `evaluate_relaxed`."""

UNITS: dict[str, str] = LABEL_UNITS | DERIVED_UNITS
"""Unit of every quantity of a table of errors."""

MAX_POINTS: int = 100_000
"""Values of one label kept for figures; beyond, a random part of them."""

Columns = tuple[np.ndarray, np.ndarray, np.ndarray]
"""References, predictions (or errors) and config_types of some components."""

Compared = tuple[np.ndarray, np.ndarray]
"""Errors of some components, and the references."""


def magforce_errors(
    reference: Float[np.ndarray, "n_atoms 3"],
    prediction: Float[np.ndarray, "n_atoms 3"],
    magmoms: Float[np.ndarray, "n_atoms 3"],
    angle_threshold: float,
) -> dict[str, Compared]:
    """Errors of magnetic forces H = −∂E/∂m apart from those of their components.

    - `magforce_length`: |H| predicted minus |H| of the reference.
    - `magforce_longitudinal`: H·m/|m|, what changes the length of the moment.
    - `magforce_transverse`: length of the error of H − (H·m) m/|m|², what turns it. Per atom, the squared error of the
      vector H is that of the longitudinal plus that of the transverse part.
    - `torque`: components of m × H.
    - `magforce_angle`: angle between both, where the reference is at least `angle_threshold`.

    Directions along the moment are for moments above `MOMENT_TOL`. Atoms without a label are left out.

    Args:
        reference: Labels, in eV/μB; NaN where there is none.
        prediction: What the model says, in eV/μB.
        magmoms: Moments, in μB.
        angle_threshold: In eV/μB.

    Returns:
        Errors and references by quantity: in eV/μB, of the torque in eV, of the angle in degrees (and the lengths of
        the references, in eV/μB).
    """
    known = ~np.isnan(reference).any(axis=1)
    reference, prediction, magmoms = reference[known], prediction[known], magmoms[known]
    lengths, predicted = np.linalg.norm(reference, axis=1), np.linalg.norm(prediction, axis=1)
    large = lengths >= max(angle_threshold, 1e-12)
    cosine = (reference * prediction).sum(axis=1)[large] / (
        lengths[large] * np.maximum(predicted[large], 1e-12)
    )
    angles = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
    sizes = np.linalg.norm(magmoms, axis=1)
    magnetic = sizes > MOMENT_TOL
    moments = magmoms[magnetic]
    axes = moments / sizes[magnetic, None]
    wrong, right = (prediction - reference)[magnetic], reference[magnetic]
    along_wrong, along_right = (wrong * axes).sum(axis=1), (right * axes).sum(axis=1)
    return {
        "magforce_length": (predicted - lengths, lengths),
        "magforce_longitudinal": (along_wrong, along_right),
        "magforce_transverse": (
            np.linalg.norm(wrong - along_wrong[:, None] * axes, axis=1),
            np.linalg.norm(right - along_right[:, None] * axes, axis=1),
        ),
        "torque": (np.cross(moments, wrong).ravel(), np.cross(moments, right).ravel()),
        "magforce_angle": (angles, lengths[large]),
    }


class ErrorSums:
    """Mean and root mean square errors of groups of structures, summed up as they come."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, np.ndarray]] = {}

    def add(self, group: str, quantity: str, errors: np.ndarray, weights: np.ndarray | float = 1.0) -> None:
        """Add errors of a group.

        Args:
            group: Name of the group.
            quantity: A key of `UNITS`.
            errors: Errors in eV, Å, μB and degrees.
            weights: Weight of each.
        """
        if not errors.size:
            return
        weights = np.broadcast_to(weights, errors.shape)
        sums = self._sums.setdefault(group, {}).setdefault(quantity, np.zeros(4))
        parts = (errors.size, weights.sum(), (weights * np.abs(errors)).sum(), (weights * errors**2).sum())
        sums += np.array(parts, dtype=float)

    def table(self, group: str) -> dict[str, LabelError]:
        """Errors of a group, in the order of `UNITS`, for the quantities that occurred.

        Args:
            group: Name of the group.
        """
        sums = self._sums.get(group, {})
        table = {}
        for quantity, unit in UNITS.items():
            count, weight, absolute, square = sums.get(quantity, (0, 0, 0, 0))
            if weight > 0:
                factor = 1.0 if unit == DEGREES else MILLI
                mae, rmse = factor * absolute / weight, factor * (square / weight) ** 0.5
                table[quantity] = LabelError(float(mae), float(rmse), int(count), unit)
        return table

    def tables(self) -> dict[str, dict[str, LabelError]]:
        """Errors of every group, by name."""
        return {group: self.table(group) for group in sorted(self._sums)}


@dataclass
class Samples:
    """Pairs of values for a figure: all, or a random part of them if there are more than `MAX_POINTS`.

    Attributes:
        x: References.
        y: Predictions, or errors.
        kind: Number of the config_type of each.
        count: How many there were.
    """

    x: np.ndarray = field(default_factory=lambda: np.zeros(0))
    y: np.ndarray = field(default_factory=lambda: np.zeros(0))
    kind: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=int))
    count: int = 0
    _parts: list[Columns] = field(default_factory=list)
    _kept: float = 1.0
    _random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def add(self, x: np.ndarray, y: np.ndarray, kind: int) -> None:
        """Add the values of a structure.

        Args:
            x: References.
            y: Predictions, or errors.
            kind: Number of its config_type.
        """
        self.count += x.size
        self._parts.append(self._thinned((x.ravel(), y.ravel(), np.full(x.size, kind)), self._kept))
        if sum(len(part[0]) for part in self._parts) > 2 * MAX_POINTS:
            self._kept /= 2
            self._parts = [self._thinned(part, 0.5) for part in self._parts]

    def close(self) -> None:
        """Make `x`, `y` and `kind` of what was added."""
        if self._parts:
            self.x, self.y, self.kind = (
                np.concatenate(columns) for columns in zip(*self._parts, strict=True)
            )

    def _thinned(self, columns: Columns, fraction: float) -> Columns:
        if fraction == 1.0:
            return columns
        x, y, kind = columns
        chosen = self._random.random(len(x)) < fraction
        return x[chosen], y[chosen], kind[chosen]


@dataclass
class StructureErrors:
    """Errors of one structure.

    Attributes:
        index: Its number among the structures given.
        source: File and position in it.
        config_type: Kind of structure.
        order: Name of its magnetic order.
        composition: Reduced formula.
        n_atoms: Number of atoms.
        energy: Energy per atom of the reference and of the model, in eV; None without a label.
        rmse: Root mean square error of the components of the other labels, in eV/Å, eV/Å³ and eV/μB.
        largest: Largest error of a component of them.
    """

    index: int
    source: str
    config_type: str
    order: str
    composition: str
    n_atoms: int
    energy: tuple[float, float] | None
    rmse: dict[str, float]
    largest: dict[str, float]

    def row(self, shift: float | None) -> dict[str, str | int | float | None]:
        """A line of a table.

        Args:
            shift: What to take off the energy's error, in eV/atom; None if it is not known.

        Returns:
            Values by column, errors in meV.
        """
        row: dict[str, str | int | float | None] = {
            "source": self.source, "config_type": self.config_type, "order": self.order,
            "composition": self.composition, "n_atoms": self.n_atoms,
        }  # fmt: skip
        error = None if self.energy is None else MILLI * (self.energy[1] - self.energy[0])
        row["energy_error"] = error
        row["energy_error_shifted"] = None if error is None or shift is None else error - MILLI * shift
        for label in LABELS[1:]:
            row[f"{label}_rmse"] = MILLI * self.rmse[label] if label in self.rmse else None
            row[f"{label}_max"] = MILLI * self.largest[label] if label in self.largest else None
        return row
