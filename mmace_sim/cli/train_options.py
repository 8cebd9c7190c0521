"""Options that the commands that train share, and what becomes of their values."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mmace_sim.cli import options
from mmace_sim.training.evaluate_settings import FORMATS as FORMATS

DATA = "Data"
FIT = "Optimisation"

Files = list[Path] | None

ValidFile = Annotated[
    Files, typer.Option(help="Structures to choose the best weights on.", rich_help_panel=DATA)
]
ValidFraction = Annotated[
    float | None,
    typer.Option(
        help="Part of the data for validation, chosen by a hash of each structure's identity, if there is no "
        "validation file.",
        show_default="0.1",
        rich_help_panel=DATA,
    ),
]
TestFile = Annotated[
    Files, typer.Option(help="Structures to report errors on at the end.", rich_help_panel=DATA)
]
Name = Annotated[str | None, typer.Option(help="Name of the model.", rich_help_panel=options.RUN)]
BatchSize = Annotated[
    int | None, typer.Option(help="Structures per step.", show_default="8", rich_help_panel=FIT)
]
Seed = Annotated[int | None, typer.Option(help="Seed.", show_default="0", rich_help_panel=FIT)]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="float32|float64",
        help="Precision.",
        show_default="float32",
        rich_help_panel=options.MACHINE,
    ),
]

StabilityTest = Annotated[
    bool | None,
    typer.Option(
        "--stability-test/--no-stability-test",
        help="Try the model out at the end, for a tenth of the time at most.",
        show_default="--stability-test",
        rich_help_panel=options.RUN,
    ),
]


def max_epochs_option(default: str) -> Any:
    """The option for the length of a training.

    Args:
        default: What the configuration of the command has.

    Returns:
        Metadata for ``Annotated``.
    """
    return typer.Option(
        help="Passes over the training structures.", show_default=default, rich_help_panel=FIT
    )


def lr_option(default: str) -> Any:
    """The option for the learning rate.

    Args:
        default: What the configuration of the command has.

    Returns:
        Metadata for ``Annotated``.
    """
    return typer.Option(help="Largest learning rate.", show_default=default, rich_help_panel=FIT)


def as_texts(paths: Files) -> list[str] | None:
    """Paths as a configuration holds them; None if there are none."""
    return [str(path) for path in paths] if paths else None


def data_flags(
    train_file: list[str] | None, valid_file: Files, valid_fraction: float | None, test_file: Files
) -> dict[str, Any]:
    """The data section of a configuration, as far as options give it; None where they do not."""
    return {
        "train_file": train_file,
        "valid_file": as_texts(valid_file),
        "valid_fraction": valid_fraction,
        "test_file": as_texts(test_file),
    }


def given_flags(flags: dict[str, Any]) -> dict[str, Any]:
    """Only what was given on the command line."""
    nested = {key: given_flags(value) if isinstance(value, dict) else value for key, value in flags.items()}
    return {key: value for key, value in nested.items() if value is not None and value != {}}
