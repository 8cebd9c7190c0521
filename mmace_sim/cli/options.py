"""Options that several commands share, and what they have in common while running."""

from pathlib import Path
from typing import Annotated, Any

import typer

from mmace_sim.engine.machine import quiet_imports as quiet_imports
from mmace_sim.structures import moment_words

RUN = "Run"
RELAXATION = "Relaxation"
MOMENTS = "Magnetic moments"
STRAIN = "Strain"
MACHINE = "Machine"

Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder of the run.",
        show_default="named after the command",
        rich_help_panel=RUN,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|FILE",
        help="Model: a name (see `mmace-sim models`) or a file. **auto**: for each structure the model of the package "
        "if it knows all elements, else the installed one with the fewest elements that does.",
        show_default="auto",
        rich_help_panel=RUN,
    ),
]
Yes = Annotated[
    bool | None,
    typer.Option(
        "--yes",
        "-y",
        help="Fetch models that structures need and that are not installed (see `mmace-sim models`).",
        show_default=False,
        rich_help_panel=RUN,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE.yaml",
        help=(
            "YAML file with any of the options (names with underscores); flags win over it. The "
            "`config.yaml` of a run can be used."
        ),
        rich_help_panel=RUN,
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on with an interrupted run in the same folder.", rich_help_panel=RUN),
]
Force = Annotated[
    bool, typer.Option("--force", help="Overwrite an earlier run in the same folder.", rich_help_panel=RUN)
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Tell what would be read and computed, in how much time and memory, and compute nothing.",
        rich_help_panel=RUN,
    ),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print `summary.json` in place of the table.", rich_help_panel=RUN),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress bar, no table, only errors.", rich_help_panel=RUN)
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="cpu|cuda",
        help="Where to compute.",
        show_default="a GPU if there is one",
        rich_help_panel=MACHINE,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="float64|float32",
        help="Precision; float32 is faster on a GPU.",
        show_default="float64",
        rich_help_panel=MACHINE,
    ),
]
Threads = Annotated[
    int | None, typer.Option(help="CPU threads.", show_default="all cores", rich_help_panel=MACHINE)
]

Paths = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="PATHS",
        help=(
            "Files and folders with structures: CIF, mCIF, POSCAR, extxyz, JSON of ASE and pymatgen, databases, "
            "outputs of VASP and other text formats of ASE, compressed or not."
        ),
        show_default=False,
    ),
]
InitialMagmoms = Annotated[
    str | None,
    typer.Option(
        metavar="START",
        help=moment_words.HELP,
        show_default=moment_words.DEFAULT,
        rich_help_panel=MOMENTS,
    ),
]
Collinear = Annotated[
    bool | None,
    typer.Option(
        "--collinear",
        help="Keep each moment along its initial axis.",
        show_default=False,
        rich_help_panel=MOMENTS,
    ),
]
FixMagnitude = Annotated[
    bool | None,
    typer.Option(
        "--fix-magnitude",
        help="Keep the length of each moment and relax directions only.",
        show_default=False,
        rich_help_panel=MOMENTS,
    ),
]
SpinOrbit = Annotated[
    bool | None,
    typer.Option(
        "--spin-orbit",
        help="Require a model with spin–orbit coupling.",
        show_default=False,
        rich_help_panel=MOMENTS,
    ),
]
MaxBatchAtoms = Annotated[
    int | None,
    typer.Option(
        help="Largest number of atoms computed at once.",
        show_default="as memory allows",
        rich_help_panel=MACHINE,
    ),
]
Figures = Annotated[
    bool | None,
    typer.Option(
        "--figures/--no-figures",
        help="Draw figures (PNG and SVG).",
        show_default="--figures",
        rich_help_panel=RUN,
    ),
]
Report = Annotated[
    bool | None,
    typer.Option(
        "--report/--no-report",
        help="Write all results as one page, `report.html`, with figures and pictures of the structures.",
        show_default="--no-report",
        rich_help_panel=RUN,
    ),
]
PointMagmoms = Annotated[
    str | None,
    typer.Option(
        metavar="fixed|relaxed",
        help="**relaxed**: moments follow the atoms adiabatically. **fixed**: they stay as they are.",
        show_default="relaxed",
        rich_help_panel=MOMENTS,
    ),
]
MaxSteps = Annotated[
    int | None,
    typer.Option(help="Largest number of steps.", show_default="500", rich_help_panel=RELAXATION),
]


def fmax_option(default: str) -> Any:
    """The option for the largest force.

    Args:
        default: What the configuration of the command has, in eV/Å.

    Returns:
        Metadata for ``Annotated``.
    """
    return typer.Option(
        help="Largest force of a converged structure, eV/Å.", show_default=default, rich_help_panel=RELAXATION
    )


def volume_option(which: str, default: str) -> Any:
    """The option for an end of a range of volumes.

    Args:
        which: "Smallest" or "Largest".
        default: What the configuration of the command has.

    Returns:
        Metadata for ``Annotated``.
    """
    return typer.Option(
        help=f"{which} volume, relative to that of the structure.",
        show_default=default,
        rich_help_panel=STRAIN,
    )


def magforce_tol_option(default: str) -> Any:
    """The option for the largest magnetic force.

    Args:
        default: What the configuration of the command has, in eV/μB.

    Returns:
        Metadata for ``Annotated``.
    """
    return typer.Option(
        help="Largest magnetic force −∂E/∂m of a converged structure, eV/μB.",
        show_default=default,
        rich_help_panel=RELAXATION,
    )


def keys_option(panel: str | None = None) -> Any:
    """The option for the names of labels in files.

    Args:
        panel: Panel of the help that it stands in.

    Returns:
        Metadata for ``Annotated``.
    """
    return typer.Option(
        metavar="LABEL=KEY,...",
        help="Names of labels in the files, such as `energy=dft_energy,magmoms=spins`.",
        show_default="REF_energy, REF_forces, REF_stress, REF_magmom, REF_magforces",
        rich_help_panel=panel,
    )
