"""``mmace-sim data``: commands about training data."""

from pathlib import Path
from typing import Annotated

import typer

from mmace_sim.cli import candidates
from mmace_sim.cli import options as opt
from mmace_sim.training.evaluate_settings import FORMATS

SPLITS = "Splits"

data = typer.Typer(
    name="data",
    help="Make, look at and convert the data that models are trained on.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_Files = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="FILES",
        help=f"Files with labelled structures: {FORMATS}.",
        show_default=False,
    ),
]


_Keys = Annotated[str | None, opt.keys_option()]


def _split(role: str) -> typer.models.OptionInfo:
    return typer.Option(
        f"--{role}",
        metavar="FILE",
        help=f"File of the {role} split; may be repeated.",
        rich_help_panel=SPLITS,
    )


@data.command()
def check(
    files: _Files = None,
    train: Annotated[list[Path] | None, _split("train")] = None,
    valid: Annotated[list[Path] | None, _split("valid")] = None,
    test: Annotated[list[Path] | None, _split("test")] = None,
    keys: _Keys = None,
    output: opt.Output = None,
    figures: opt.Figures = None,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> None:
    """Check training data: signs and units of the labels, moments, outliers, duplicates, leakage between splits.

    Forces, stress and magnetic forces are held against differences of energies between structures close to each
    other: a wrong sign, a wrong unit, or labels that are too small show as a factor. Writes `summary.json`,
    `config.yaml`, `log.txt` and `figures/` to one folder. Nothing is changed in the data.

    Exit code 3 if anything was found that must be corrected before training.

    Examples: `mmace-sim data check all.extxyz`;
    `mmace-sim data check --train train.extxyz --valid valid.extxyz --test test.extxyz -o my_data`.
    """
    from mmace_sim.cli.data_run import run_data_check

    roles = {"data": files, "train": train, "valid": valid, "test": test}
    given = {role: paths for role, paths in roles.items() if paths}
    folder = Path(output or "data_check")
    code = run_data_check(given, keys, folder, figures=figures is not False, force=force, quiet=quiet)
    raise typer.Exit(code)


@data.command()
def convert(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES",
            help="Files and folders of any format, several beside each other.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Extended XYZ (.extxyz, .extxyz.xz), LMDB (.aselmdb, for large sets) or SQLite (.db).",
        ),
    ],
    keys: _Keys = None,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write the structures of any format to one file with our names of the labels.

    Reads what `train` reads: extended XYZ and other files of ASE, ASE databases, DeePMD-kit spin folders, MLIP `.cfg`,
    outputs of VASP, ABINIT, Quantum ESPRESSO and ABACUS. Structures without moments or with broken labels are named
    and left out.

    Exit code 3 if any structure was left out.

    Examples: `mmace-sim data convert runs/*/OUTCAR -o train.extxyz.xz`;
    `mmace-sim data convert deepmd_system set.cfg -o train.aselmdb`.
    """
    from mmace_sim.cli.data_run import run_data_convert

    raise typer.Exit(run_data_convert(files, output, keys, force=force, quiet=quiet))


data.command()(candidates.propose)
data.command()(candidates.select)
