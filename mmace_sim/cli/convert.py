"""``mmace-sim convert``: checkpoints of the published magnetic MACE code to model files."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mmace_sim.cli.declared import FILE_SWITCHES, settings_command
from mmace_sim.cli.options import Switches
from mmace_sim.interop.settings import HELP, ConvertSettings

if TYPE_CHECKING:
    from mmace_sim.architectures.paper_mmace import PaperMMACE


def _run(settings: ConvertSettings, switches: Switches) -> int:
    from mmace_sim.engine.folder import open_file
    from mmace_sim.engine.machine import quiet_imports

    with quiet_imports():
        import torch

        from mmace_sim.interop.convert import convert as convert_file
    source, output = Path(settings.source), Path(settings.output)
    with open_file(output, "convert", force=switches.force, inputs=[source]):
        model = convert_file(
            source,
            output,
            head=settings.head,
            time_reversal=settings.time_reversal,
            saturate=settings.saturate,
            smooth_cutoff=settings.smooth_cutoff,
            dtype=getattr(torch, settings.dtype),
            metadata=settings.model_dump(include={"name", "license", "citation"}),
        )
    if not switches.quiet:
        _print(model, output)
    return 0


def _print(model: "PaperMMACE", output: Path) -> None:
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


convert = settings_command(_run, "convert", HELP, ConvertSettings, FILE_SWITCHES, needed=("source", "output"))
