"""``mmace-sim report``: the page of a run that has finished."""

import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

_Folders = Annotated[
    list[Path],
    typer.Argument(metavar="FOLDERS", help="Folders of finished runs.", show_default=False),
]


def report(folders: _Folders) -> None:
    """Write `report.html` into the folder of each run: tables, figures, structures with moments, settings, messages.

    The page needs no other file and no network. It is for runs of relax, eos, bain, elastic, phonons and order;
    `--report` of these commands writes it at the end of the run.

    Example: `mmace-sim report relax/ eos/`.
    """
    from mmace_sim.files.manifest import FILE_NAME, Manifest
    from mmace_sim.report import write_report

    for folder in folders:
        listed = os.path.lexists(folder / FILE_NAME)  # the page is a file of the run
        with Manifest(folder, "report").activated() if listed else nullcontext():
            typer.echo(write_report(folder))
