"""Calibrations of model files and of models that were just trained, and how honest their uncertainties are."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mmace_sim.base.labels import LabelKeys
from mmace_sim.base.quantities import UNCERTAINTIES
from mmace_sim.errors import DataError
from mmace_sim.io.frames import Frame, read_frames
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.checkpoint import load_all_heads, load_model, save_model
from mmace_sim.model.heads import with_heads
from mmace_sim.model.registry import split_head
from mmace_sim.model.uncertainty import TARGETS, Domain, require_uncertainty
from mmace_sim.training.calibration.calibrate import MAX_STRUCTURES, calibrate, rank_correlation
from mmace_sim.training.calibration.evidence import gather
from mmace_sim.training.data.stream import Frames
from mmace_sim.training.data.stream_summary import sample
from mmace_sim.training.evaluation.evaluate import supported

logger = logging.getLogger(__name__)


def calibrate_file(
    name_or_path: str | Path,
    output: Path,
    data: Sequence[Path],
    held_out: Sequence[Path] = (),
    *,
    keys: LabelKeys | None = None,
    magforce_elements: Sequence[str] | None = None,
    fit_zero: bool = False,
) -> list[str]:
    """Write a model file with uncertainties; its weights stay as they are.

    Args:
        name_or_path: Model, with the head behind its name if it has several: the new file has that one.
        output: File to write.
        data: Files with labelled structures.
        held_out: Files with structures that the model was not trained on.
        keys: Names of the labels.
        magforce_elements: Symbols of the elements whose magnetic forces are labels; None: as in the training, or all.
        fit_zero: Whether the energies may have another zero for each element.

    Returns:
        What was found, in lines.

    Raises:
        DataError: If the structures cannot be used.
        ModelFileError: If the model cannot be read.
    """
    model = load_all_heads(name_or_path)
    if len(model.heads) > 1:
        head = load_model(name_or_path).heads[0]  # says what to do if none is chosen
        model = with_heads(model, {head: head}).eval().requires_grad_(requires_grad=False)
    if magforce_elements is None:
        loss = (model.metadata.get("training_config") or {}).get("loss") or {}
        magforce_elements = loss.get("magforce_elements")
    lines: list[str] = []
    sets = []
    for paths in (data, held_out):
        found = read_frames(paths, keys)
        usable, problems = supported(model, list(enumerate(found.frames)))
        lines += [*found.problems, *problems]
        sets.append([frame for _, frame in usable])
    lines = [f"left out: {line}" for line in lines]
    names = ", ".join(path.name for path in (*data, *held_out))[:500]
    model.uncertainty = calibrate(
        model, sets[0], sets[1], magforce_elements=magforce_elements, fit_zero=fit_zero, note=names
    )
    save_model(model, output)
    return [
        *lines,
        *model.uncertainty.facts.in_words(),
        f"{output}: {split_head(name_or_path)[0]} with uncertainties",
    ]


def calibrate_trained(
    model: MagneticModel, train: Frames, valid: Frames, magforce_elements: Sequence[str] | None
) -> None:
    """Give a model that was just trained its uncertainties, if there are enough structures.

    Args:
        model: The model, on the CPU.
        train: Structures that it was trained on.
        valid: Structures that it was not trained on.
        magforce_elements: Symbols of the elements whose magnetic forces are labels; None means all.
    """
    model.uncertainty = None
    try:
        model.uncertainty = calibrate(model, train, valid, magforce_elements=magforce_elements)
    except DataError as error:
        logger.info("the model cannot tell its uncertainty: %s", error)
        return
    for line in model.uncertainty.facts.in_words():
        logger.info("%s", line)


def judge_uncertainty(
    model: MagneticModel, frames: Sequence[Frame], *, magforce_elements: Sequence[str] | None = None
) -> dict[str, Any]:
    """How honest the uncertainties of a model are on labelled structures.

    Args:
        model: A calibrated model.
        frames: Structures with elements of the model; of more than `MAX_STRUCTURES` a random part.
        magforce_elements: Symbols of the elements whose magnetic forces are labels; None means all.

    Returns:
        Plain values: "domain", how many structures are inside, at the edge and outside, and for each target the number
        of components, the share of errors within one σ (`coverage`), the rank correlation of σ and error (`spearman`)
        and the median of σ, in eV, Å and μB.
    """
    uncertainty = require_uncertainty(model)
    evidence = gather(model, sample(frames, MAX_STRUCTURES), magforce_elements=magforce_elements)
    found = uncertainty.predict(
        evidence.rows, evidence.numbers, evidence.sizes, evidence.system, evidence.n_systems
    )
    verdicts = [str(Domain.at(distance)) for distance in found["distance"].tolist()]
    told: dict[str, Any] = {"domain": {str(domain): verdicts.count(str(domain)) for domain in Domain}}
    for target in TARGETS:
        errors, sigma = evidence.errors[target], found[UNCERTAINTIES[target]]
        known = (~torch.isnan(errors)).any(dim=1) & ~torch.isnan(sigma)
        if not known.any():
            continue
        errors, sigma = errors[known], sigma[known]
        there = ~torch.isnan(errors)
        told[target] = {
            "count": int(there.sum()),
            "coverage": float((errors.abs() <= sigma[:, None])[there].double().mean()),
            "spearman": rank_correlation(sigma, errors.square().nanmean(dim=1).sqrt()),
            "median": float(sigma.median()),
        }
    return told
