"""``mmace-sim convert``: checkpoints of the published magnetic MACE code to model files."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mmace_sim.cli import options


class Precision(StrEnum):
    """Floating-point types of a model file."""

    FLOAT64 = "float64"
    FLOAT32 = "float32"


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="UPSTREAM.model",
            help="Checkpoint of the published code; or a model file made of one, or its name, to repair it.",
        ),
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUT.safetensors", help="Model file to write; an existing one is kept.")
    ],
    head: Annotated[
        str | None, typer.Option(metavar="NAME", help="Head to keep of a model with several.")
    ] = None,
    time_reversal: Annotated[
        bool,
        typer.Option(
            "--time-reversal", help="Evaluate ½[E(m) + E(−m)]: even in the moments, up to 1.7 times the cost."
        ),
    ] = False,
    saturate: Annotated[
        bool,
        typer.Option("--saturate", help="Saturate moments at the largest moment of the training data."),
    ] = False,
    smooth_cutoff: Annotated[
        bool,
        typer.Option("--smooth-cutoff", help="Let pairs fade out over the last 0.5 Å before the cutoff."),
    ] = False,
    dtype: Annotated[
        Precision, typer.Option(help="Floating-point type of the weights in the file.")
    ] = Precision.FLOAT64,
    name: Annotated[str | None, typer.Option(help="Name of the model.", show_default="of the file")] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="Licence of the weights, kept in the file.")
    ] = None,
    citation: Annotated[str | None, typer.Option(help="What users should cite, kept in the file.")] = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Convert a checkpoint of the published magnetic MACE code.

    Nothing that the checkpoint names is imported or run. The result computes the same energies; what it violates
    (time reversal, inversion, ...) is measured and written into the file. `--time-reversal`, `--saturate` and
    `--smooth-cutoff` repair that, and change the energies. An installed model can be repaired by its name.
    """
    from mmace_sim.engine.folder import open_file
    from mmace_sim.engine.machine import quiet_imports

    with quiet_imports():
        import torch

        from mmace_sim.interop.convert import convert as convert_file
    with open_file(output, "convert", force=force, inputs=[source]):
        model = convert_file(
            source,
            output,
            head=head,
            time_reversal=time_reversal,
            saturate=saturate,
            smooth_cutoff=smooth_cutoff,
            dtype=getattr(torch, dtype.value),
            metadata={"name": name, "license": licence, "citation": citation},
        )
    if quiet:
        return
    config = model.config
    typer.echo(
        f"{output}: {' '.join(model.metadata['elements'])}, {config.num_interactions} layer(s) {config.hidden_irreps}, "
        f"r_max {config.r_max:g} Å, moments up to degree {config.max_m_ell}"
    )
    violations = model.metadata["violations"]
    typer.echo("It violates:" if violations else "It violates none of the identities that were measured.")
    for text in violations.values():
        typer.echo(f"  {text}")
    kept = [entry["statement"] for entry in model.metadata["identities"].values() if entry["holds"]]
    if violations and kept:
        typer.echo("It obeys:")
        for text in kept:
            typer.echo(f"  {text}")
