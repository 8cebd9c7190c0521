"""Upstream checkpoints to model files, with a measurement of what each model violates."""

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import nn

from mmace_sim.architectures.paper_mmace import PaperMMACE
from mmace_sim.errors import ModelFileError, PhysicsWarning
from mmace_sim.interop.upstream_file import read_upstream_file
from mmace_sim.model.checkpoint import load_model, save_model
from mmace_sim.model.registry import is_file, list_models
from mmace_sim.testing.identities import IDENTITIES, measure_identities

MEASURED: tuple[str, ...] = (
    "joint_rotation",
    "inversion",
    "time_reversal",
    "no_field_without_moments",
    "no_jump_at_cutoff",
    "isolated_atom",
    "growth_above_max_moment",
)
"""Identities that depend on architecture and weights; the others test the code that evaluates them."""


def convert(
    path: str | Path,
    output: str | Path,
    *,
    head: str | None = None,
    metadata: dict | None = None,
    dtype: torch.dtype = torch.float64,
    **repairs: bool,
) -> PaperMMACE:
    """Convert a checkpoint of the published magnetic MACE code and write it as a model file.

    A model file that was made of one, or the name of an installed one, can be given again to repair it.

    Args:
        path: Checkpoint, model file or name of a model.
        output: Model file to write.
        head: Head to keep of a model with several.
        dtype: Floating-point type of the weights in the file; reference energies are float64 in any case.
        metadata: What to put into the file beside what the checkpoint says ("name", "license", …).
        **repairs: "time_reversal", "saturate" and "smooth_cutoff", see
            :class:`~mmace_sim.architectures.paper_mmace.PaperConfig`.

    Returns:
        The model in float64, with a card in its metadata: ``identities`` says which hold and which do not, each with
        its measure, ``violations`` those that do not in words.

    Raises:
        ModelFileError: If the checkpoint cannot be read or is of another architecture.
    """
    model = _read(path, head, {name: True for name, wanted in repairs.items() if wanted})
    model.requires_grad_(requires_grad=False)
    model.metadata |= {key: value for key, value in (metadata or {}).items() if value}
    identities = measured_identities(model)
    model.metadata["identities"] = identities
    model.metadata["violations"] = {
        name: f"{entry['statement']} (measured {entry['measured']:.1e})"
        for name, entry in identities.items()
        if not entry["holds"]
    }
    if dtype == model.dtype:
        save_model(model, output)
    else:
        save_model(copy.deepcopy(model).to(dtype), output)
    return model


def is_model_file(file: Path) -> bool:
    """Whether a file is one of safetensors (and not a pickle, which begins as a zip archive does)."""
    with file.open("rb") as stream:
        start = stream.read(9)
    return len(start) == 9 and start[8:9] == b"{"


def _read(path: str | Path, head: str | None, repairs: dict[str, bool]) -> PaperMMACE:
    """The model of a checkpoint or of a model file, repaired."""
    name = str(path)
    if not is_file(name) and name not in list_models():
        raise ModelFileError(f"{name}: neither a file nor the name of a model at hand (`mmace-sim models`).")
    if is_file(name) and not is_model_file(Path(name)):
        return read_upstream_file(path).model(head, **repairs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PhysicsWarning)  # it is told below what it violates
        model = load_model(name, head=head)
    if not isinstance(model, PaperMMACE):
        raise ModelFileError(
            f"{path}: a model file of another architecture ({type(model).__name__}) than the published one. It needs "
            "no conversion: use it as it is."
        )
    repaired = PaperMMACE(model.config.model_copy(update=repairs))
    repaired.load_state_dict(model.state_dict())
    repaired.metadata = model.metadata | {"elements": [chemical_symbols[z] for z in model.elements]}
    if repairs:
        words = [word.replace("_", "-") for word in repairs]
        old = model.metadata.get("name", Path(name).stem)
        repaired.metadata |= {
            "name": "-".join([old, *words]),
            "description": f"{old} with {', '.join(words)}",
        }
    return repaired.eval()


def measured_identities(model: nn.Module, *, n_structures: int = 2) -> dict[str, dict[str, Any]]:
    """What a model obeys and what not: statement, largest violation found, and whether it is one beyond rounding.

    Args:
        model: Energy model in float64.
        n_structures: Number of random structures to measure on.
    """
    measured = measure_identities(model, names=MEASURED, n_structures=n_structures)
    return {
        name: {
            "statement": IDENTITIES[name].statement,
            "measured": float(f"{value:.3e}"),
            "holds": bool(value <= IDENTITIES[name].tolerance),
        }
        for name, value in measured.items()
    }
