"""Errors of a model on labelled structures: tables, values for figures, times, and what could not be evaluated."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols

from mmace_sim.base.labels import LabelKeys
from mmace_sim.errors import DataError
from mmace_sim.graph.magnetic_order import classify_order
from mmace_sim.io.frames import LABELS, Frame, read_frames
from mmace_sim.model.interface import Potential
from mmace_sim.training.data.dataset import constrained_numbers, label_tensors
from mmace_sim.training.evaluation.errors import (
    Compared,
    ErrorSums,
    Samples,
    StructureErrors,
    magforce_errors,
)
from mmace_sim.training.evaluation.metrics import ErrorTable, LabelError, table_as_dict
from mmace_sim.training.evaluation.prediction import Prediction, predict
from mmace_sim.training.evaluation.timing import Clock, Timing

ANGLE_THRESHOLD: float = 0.01
"""Magnetic forces of the reference below this (eV/μB) have no direction that counts."""


@dataclass
class Evaluation:
    """Errors of a model on a set of structures.

    Attributes:
        overall: Errors over everything, per label.
        derived: Errors over everything of what is derived from the labels; see `evaluate_errors`.
        by_config_type: Errors per config_type.
        by_order: Errors per magnetic order.
        by_element: Errors of forces and magnetic forces per element of the atom.
        reference_rms: Root mean square of the references, in the units of the errors.
        energy_shifts: Mean error of the energy per composition with at least two structures, in eV/atom: what
            `energy_shifted` is free of.
        config_types: Names that `Samples.kind` counts.
        parity: References and predictions of each label (energies per atom); errors and references of
            `magforce_angle`.
        structures: Errors of each structure.
        timing: How long it took.
        problems: One message per structure that was skipped.
    """

    overall: dict[str, LabelError]
    derived: dict[str, LabelError]
    by_config_type: ErrorTable
    by_order: ErrorTable
    by_element: ErrorTable
    reference_rms: dict[str, float]
    energy_shifts: dict[str, float]
    config_types: list[str]
    parity: dict[str, Samples]
    structures: list[StructureErrors]
    timing: Timing
    problems: list[str] = field(default_factory=list)

    @property
    def n_structures(self) -> int:
        """Structures evaluated."""
        return len(self.structures)

    def as_dict(self) -> dict:
        """Errors and counts as plain values for JSON."""
        return {
            "n_structures": self.n_structures,
            "n_skipped": len(self.problems),
            "overall": table_as_dict(self.overall | self.derived),
            "by_config_type": {k: table_as_dict(v) for k, v in self.by_config_type.items()},
            "by_order": {k: table_as_dict(v) for k, v in self.by_order.items()},
            "by_element": {k: table_as_dict(v) for k, v in self.by_element.items()},
            "reference_rms": self.reference_rms,
            "energy_shifts": {k: 1000 * v for k, v in self.energy_shifts.items()},
            "timing": self.timing.as_dict(),
            "problems": self.problems,
        }


def evaluate_frames(
    model: Potential,
    frames: Sequence[Frame],
    *,
    batch_size: int = 16,
    magforce_elements: Sequence[str] | None = None,
    angle_threshold: float = ANGLE_THRESHOLD,
    on_finished: Callable[[int], None] | None = None,
    known: Mapping[int, Prediction | str] | None = None,
    on_predicted: Callable[[dict[int, Prediction | str]], None] | None = None,
) -> Evaluation:
    """Errors of a model on labelled structures.

    Structures with elements that the model does not know, structures for which it raises, and those whose energy or
    derivatives come out non-finite, are left out and reported.

    Args:
        model: Magnetic model; its device and precision are used.
        frames: Structures with labels.
        batch_size: Structures per batch.
        magforce_elements: Symbols of the elements whose magnetic forces are labels; None means all.
        angle_threshold: Smallest magnetic force of the reference whose direction is compared, in eV/μB.
        on_finished: Called with the number of structures of a batch when it is done.
        known: Predictions of an earlier run by the index of the structure, or why there is none; batches of which all
            are known are not computed again.
        on_predicted: Called with the same of each batch that was computed.

    Returns:
        Errors, and the values behind them.
    """
    collector = _Collector(model.dtype, magforce_elements, angle_threshold)
    clock = Clock(model, batch_size)
    for start in range(0, len(frames), batch_size):
        chunk = list(enumerate(frames[start : start + batch_size], start))
        usable, problems = supported(model, chunk)
        collector.problems += problems
        predicted = {index: known[index] for index, _ in usable if known and index in known}
        if len(predicted) < len(usable):
            predicted = predict(model, usable, clock, magforce_elements)
            if on_predicted is not None:
                on_predicted(predicted)
        for index, frame in usable:
            collector.add(index, frame, predicted[index])
        if on_finished is not None:
            on_finished(len(chunk))
    return collector.result(clock.timing)


def evaluate_files(
    model: Potential, paths: Sequence[Path], *, keys: LabelKeys | None = None, batch_size: int = 16
) -> Evaluation:
    """Errors of a model on labelled files.

    Args:
        model: Magnetic model.
        paths: Files with labels.
        keys: Names of the labels.
        batch_size: Structures per batch.

    Raises:
        DataError: If a file cannot be read, or no structure is left to evaluate.
    """
    found = read_frames(paths, keys)
    result = evaluate_frames(model, found.frames, batch_size=batch_size)
    result.problems[:0] = found.problems
    require_result(result)
    return result


def require_result(result: Evaluation) -> None:
    """Refuse an evaluation that compared nothing.

    Raises:
        DataError: If no structure could be evaluated, or none has a label.
    """
    if result.n_structures == 0:
        reasons = "; ".join(result.problems[:3])
        raise DataError(f"no structure could be evaluated: {reasons}")
    if not result.overall:
        raise DataError(f"no structure has a label ({', '.join(LABELS)}); are the keys of the file right?")


def supported(
    model: Potential, frames: Sequence[tuple[int, Frame]]
) -> tuple[list[tuple[int, Frame]], list[str]]:
    """The structures whose elements a model knows, and a message for each of the others.

    Args:
        model: Magnetic model.
        frames: Structures with their numbers.
    """
    known = {int(z) for z in model.elements}
    usable, problems = [], []
    for index, frame in frames:
        foreign = sorted({int(z) for z in frame.atoms.numbers} - known)
        if foreign:
            names = ", ".join(chemical_symbols[z] for z in foreign)
            problems.append(f"{frame.source}: element(s) {names} unknown to the model")
        else:
            usable.append((index, frame))
    return usable, problems


class _Collector:
    """Takes structures with their predictions, and makes the tables."""

    def __init__(
        self, dtype: torch.dtype, magforce_elements: Sequence[str] | None, angle_threshold: float
    ) -> None:
        self.dtype, self.constrained = dtype, constrained_numbers(magforce_elements)
        self.angle_threshold = angle_threshold
        self.problems: list[str] = []
        self._all, self._types, self._orders, self._elements = (ErrorSums() for _ in range(4))
        self._references = ErrorSums()
        self._parity = {label: Samples() for label in (*LABELS, "magforce_angle")}
        self._config_types: dict[str, int] = {}
        self._structures: list[StructureErrors] = []

    def add(self, index: int, frame: Frame, found: Prediction | str) -> None:
        """Compare a structure."""
        if isinstance(found, str):
            self.problems.append(f"{frame.source}: {found}")
            return
        predicted = {label: found[label] for label in LABELS if label in found}
        if not all(np.isfinite(values).all() for values in predicted.values()):
            self.problems.append(f"{frame.source}: energy or a derivative of it is not finite")
            return
        labels = label_tensors(frame, self.dtype, self.constrained)  # as precise as they are for the model
        self._compare(index, frame, {x: labels[x].double().numpy() for x in predicted}, predicted)

    def _compare(
        self, index: int, frame: Frame, reference: dict[str, np.ndarray], predicted: dict[str, np.ndarray]
    ) -> None:
        n_atoms = len(frame.atoms)
        reference["energy"], predicted["energy"] = (
            reference["energy"] / n_atoms,
            predicted["energy"] / n_atoms,
        )
        order = str(classify_order(frame.magmoms))
        kind = self._config_types.setdefault(frame.config_type, len(self._config_types))
        rmse, largest = {}, {}
        for label, right in reference.items():
            known = ~np.isnan(right)
            if not known.any():
                continue
            wrong = (predicted[label] - right)[known]
            self._sum(frame, order, label, (wrong, right[known]))
            if label in ("forces", "magforces"):
                for z in set(frame.atoms.numbers):
                    mine = (frame.atoms.numbers == z)[:, None] & known
                    self._elements.add(chemical_symbols[z], label, (predicted[label] - right)[mine])
            self._parity[label].add(right[known], predicted[label][known], kind)
            rmse[label], largest[label] = float(np.sqrt(np.mean(wrong**2))), float(np.abs(wrong).max())
        if "magforces" in rmse:
            self._magforces(frame, order, reference["magforces"], predicted["magforces"], kind)
        energy = (float(reference["energy"][0]), float(predicted["energy"][0])) if "energy" in rmse else None
        composition = frame.atoms.symbols.formula.reduce()[0].format("metal")
        rmse.pop("energy", None), largest.pop("energy", None)
        self._structures.append(
            StructureErrors(
                index, frame.source, frame.config_type, order, composition, n_atoms, energy, rmse, largest
            )
        )

    def _magforces(
        self, frame: Frame, order: str, right: np.ndarray, predicted: np.ndarray, kind: int
    ) -> None:
        for quantity, compared in magforce_errors(
            right, predicted, frame.magmoms, self.angle_threshold
        ).items():
            self._sum(frame, order, quantity, compared)
        for z in set(frame.atoms.numbers):
            mine = frame.atoms.numbers == z
            errors = magforce_errors(right[mine], predicted[mine], frame.magmoms[mine], self.angle_threshold)
            for quantity, (wrong, _) in errors.items():
                self._elements.add(chemical_symbols[z], quantity, wrong)
        angles, lengths = magforce_errors(right, predicted, frame.magmoms, 0.0)["magforce_angle"]
        self._all.add("all", "magforce_angle_weighted", angles, lengths)
        self._parity["magforce_angle"].add(lengths, angles, kind)

    def _sum(self, frame: Frame, order: str, quantity: str, compared: Compared) -> None:
        wrong, right = compared
        self._all.add("all", quantity, wrong)
        self._types.add(frame.config_type, quantity, wrong)
        self._orders.add(order, quantity, wrong)
        if quantity not in ("energy", "magforce_angle"):
            self._references.add("all", quantity, right)

    def _shift_energies(self) -> dict[str, float]:
        """Add the errors of energies without their mean per composition."""
        errors: dict[str, list[float]] = {}
        for record in self._structures:
            if record.energy is not None:
                errors.setdefault(record.composition, []).append(record.energy[1] - record.energy[0])
        shifts = {name: float(np.mean(values)) for name, values in errors.items() if len(values) > 1}
        for record in self._structures:
            if record.energy is not None and record.composition in shifts:
                left = np.array([record.energy[1] - record.energy[0] - shifts[record.composition]])
                self._all.add("all", "energy_shifted", left)
                self._types.add(record.config_type, "energy_shifted", left)
                self._orders.add(record.order, "energy_shifted", left)
        return shifts

    def result(self, timing: Timing) -> Evaluation:
        """The tables of everything that was added."""
        shifts = self._shift_energies()
        table = self._all.table("all")
        for samples in self._parity.values():
            samples.close()
        return Evaluation(
            overall={label: table[label] for label in LABELS if label in table},
            derived={quantity: error for quantity, error in table.items() if quantity not in LABELS},
            by_config_type=self._types.tables(),
            by_order=self._orders.tables(),
            by_element=self._elements.tables(),
            reference_rms={label: error.rmse for label, error in self._references.table("all").items()},
            energy_shifts=shifts,
            config_types=list(self._config_types),
            parity={label: samples for label, samples in self._parity.items() if samples.count},
            structures=self._structures,
            timing=timing,
            problems=self.problems,
        )
