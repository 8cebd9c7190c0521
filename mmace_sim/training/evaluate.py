"""Errors of a model on labelled files: tables, values for parity plots, and what could not be evaluated."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from ase.data import chemical_symbols
from torch import Tensor

from mmace_sim.errors import DataError
from mmace_sim.model.architectures import AnyModel
from mmace_sim.training.config import LabelKeys
from mmace_sim.training.dataset import GraphDataset, LabelledBatch, cast_graph, make_loader
from mmace_sim.training.frames import LABELS, Frame, file_sha256, read_frames
from mmace_sim.training.metrics import ErrorTable, LabelError, MetricAccumulator, table_as_dict
from mmace_sim.training.module import predict


@dataclass
class Parity:
    """References and predictions of one label, one entry per component.

    Attributes:
        reference: Labels (energies per atom), in eV, eV/Å, eV/Å³ or eV/μB.
        prediction: What the model says.
        config_idx: Index of each entry's config_type.
    """

    reference: Tensor
    prediction: Tensor
    config_idx: Tensor


@dataclass
class Evaluation:
    """Errors of a model on a set of structures.

    Attributes:
        overall: Errors over everything, per label.
        by_config_type: Errors per config_type and label.
        config_types: Names that `Parity.config_idx` counts.
        parity: Values of each label.
        n_structures: Structures evaluated.
        problems: One message per structure that was skipped.
    """

    overall: dict[str, LabelError]
    by_config_type: ErrorTable
    config_types: list[str]
    parity: dict[str, Parity]
    n_structures: int
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict:
        """Errors and counts as plain values for JSON."""
        return {
            "n_structures": self.n_structures,
            "n_skipped": len(self.problems),
            "overall": table_as_dict(self.overall),
            "by_config_type": {k: table_as_dict(v) for k, v in self.by_config_type.items()},
            "problems": self.problems,
        }


def evaluate_frames(model: AnyModel, frames: Sequence[Frame], *, batch_size: int = 16) -> Evaluation:
    """Errors of a model on labelled structures.

    Structures with elements that the model does not know, and structures whose energy or derivatives come out
    non-finite, are left out and reported.

    Args:
        model: Magnetic model; its device and precision are used.
        frames: Structures with labels.
        batch_size: Structures per batch.

    Returns:
        Errors and the values behind them. The zero of energy is not shifted: a model of another DFT shows its offset.
    """
    usable, problems = _supported(model, frames)
    parameter = next(p for p in model.parameters() if p.is_floating_point())
    dataset = GraphDataset(usable, float(model.r_max), dtype=parameter.dtype)
    metrics = MetricAccumulator(dataset.config_types)
    parts: dict[str, list[Parity]] = {label: [] for label in LABELS}
    n_done = 0
    for batch in make_loader(dataset, batch_size):
        batch = batch.to(parameter.device)
        prediction = predict(model, batch, set(LABELS), training=False)
        good = _finite_structures(prediction, batch)
        if not bool(good.all()):
            start = n_done
            problems += [
                f"{usable[start + k].source}: energy or a derivative of it is not finite"
                for k in torch.nonzero(~good).flatten().tolist()
            ]
            batch = _without(batch, good)
        n_done += len(good)
        metrics.update(prediction, batch)
        _collect(parts, prediction, batch)
    parity = {label: _join(pieces) for label, pieces in parts.items() if pieces}
    n_structures = len(usable) - (len(problems) - (len(frames) - len(usable)))
    return Evaluation(
        metrics.overall(), metrics.by_config_type(), dataset.config_types, parity, n_structures, problems
    )


def evaluate_files(
    model: AnyModel, paths: Sequence[Path], *, keys: LabelKeys | None = None, batch_size: int = 16
) -> Evaluation:
    """Errors of a model on labelled files.

    Args:
        model: Magnetic model.
        paths: Extended XYZ files with labels.
        keys: Names of the labels.
        batch_size: Structures per batch.

    Raises:
        DataError: If a file cannot be read, or no structure is left to evaluate.
    """
    found = read_frames(paths, keys)
    result = evaluate_frames(model, found.frames, batch_size=batch_size)
    result.problems[:0] = found.problems
    if result.n_structures == 0:
        reasons = "; ".join(result.problems[:3])
        raise DataError(f"no structure could be evaluated: {reasons}")
    if not result.overall:
        raise DataError(f"no structure has a label ({', '.join(LABELS)}); are the keys of the file right?")
    return result


def save_evaluation(result: Evaluation, path: Path, *, model: str, files: Sequence[Path]) -> None:
    """Write the errors as JSON, with what they were measured on.

    Args:
        result: Errors.
        path: JSON file.
        model: Name or path of the model.
        files: Files evaluated.
    """
    sources = [{"file": str(f), "sha256": file_sha256(f)} for f in files]
    content = {"model": model, "files": sources, **result.as_dict()}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _supported(model: AnyModel, frames: Sequence[Frame]) -> tuple[list[Frame], list[str]]:
    known = {int(z) for z in model.elements}
    usable, problems = [], []
    for frame in frames:
        foreign = sorted({int(z) for z in frame.atoms.numbers} - known)
        if foreign:
            names = ", ".join(chemical_symbols[z] for z in foreign)
            problems.append(f"{frame.source}: element(s) {names} unknown to the model")
        else:
            usable.append(frame)
    return usable, problems


def _finite_structures(prediction: dict[str, Tensor], batch: LabelledBatch) -> Tensor:
    good = torch.isfinite(prediction["energy"])
    for label in ("forces", "magforces"):
        if label in prediction:
            bad_atoms = ~torch.isfinite(prediction[label]).all(dim=1)
            good[batch.graph.system_idx[bad_atoms]] = False
    return good


def _without(batch: LabelledBatch, good: Tensor) -> LabelledBatch:
    """The batch with the labels of some structures taken away."""
    atoms = good[batch.graph.system_idx]
    nan = float("nan")
    return LabelledBatch(
        graph=cast_graph(batch.graph, batch.graph.positions.dtype),
        energy=batch.energy.masked_fill(~good, nan),
        forces=batch.forces.masked_fill(~atoms[:, None], nan),
        stress=batch.stress.masked_fill(~good[:, None, None], nan),
        magforces=batch.magforces.masked_fill(~atoms[:, None], nan),
        structure_weight=batch.structure_weight,
        n_atoms=batch.n_atoms,
        config_idx=batch.config_idx,
    )


def _collect(parts: dict[str, list[Parity]], prediction: dict[str, Tensor], batch: LabelledBatch) -> None:
    for label in LABELS:
        if label not in prediction:
            continue
        errors = batch.errors(prediction, label)
        reference = getattr(batch, label)
        reference = reference[~torch.isnan(reference)].double()
        if label == "energy":
            reference = reference / batch.n_atoms[errors.system_idx]
        kind = batch.config_idx[errors.system_idx]
        parity = Parity(reference, reference + errors.value.double(), kind)
        parts[label].append(Parity(parity.reference.cpu(), parity.prediction.detach().cpu(), kind.cpu()))


def _join(pieces: list[Parity]) -> Parity:
    return Parity(
        torch.cat([p.reference for p in pieces]),
        torch.cat([p.prediction for p in pieces]),
        torch.cat([p.config_idx for p in pieces]),
    )
