"""Upstream checkpoints to model files, with a measurement of what each model violates."""

from pathlib import Path

from torch import nn

from mmace_sim.model.checkpoint import save_model
from mmace_sim.model.paper_mmace import PaperMMACE
from mmace_sim.model.upstream_file import read_upstream_file
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
    **repairs: bool,
) -> PaperMMACE:
    """Convert a checkpoint of the published magnetic MACE code and write it as a model file.

    Args:
        path: Checkpoint.
        output: Model file to write.
        head: Head to keep of a model with several.
        metadata: What to put into the file beside what the checkpoint says ("name", "license", …).
        **repairs: "time_reversal", "saturate" and "smooth_cutoff", see
            :class:`~mmace_sim.model.paper_mmace.PaperConfig`.

    Returns:
        The model, with its ``violations`` in its metadata.

    Raises:
        ModelFileError: If the checkpoint cannot be read or is of another architecture.
    """
    model = read_upstream_file(path).model(head, **repairs)
    model.requires_grad_(requires_grad=False)
    model.metadata |= {key: value for key, value in (metadata or {}).items() if value}
    model.metadata["violations"] = violations_of(model)
    save_model(model, output)
    return model


def violations_of(model: nn.Module, *, n_structures: int = 2) -> dict[str, str]:
    """Identities that a model violates by more than rounding, each with its statement and its measured violation.

    Args:
        model: Energy model in float64.
        n_structures: Number of random structures to measure on.
    """
    measured = measure_identities(model, names=MEASURED, n_structures=n_structures)
    return {
        name: f"{IDENTITIES[name].statement} (measured {value:.1e})"
        for name, value in measured.items()
        if not value <= IDENTITIES[name].tolerance
    }
