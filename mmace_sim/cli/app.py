"""The command ``mmace-sim``. Heavy imports happen inside the commands, so that ``--help`` is immediate."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mmace_sim import __version__
from mmace_sim.base.allocator import keep_freed_memory
from mmace_sim.base.signals import exit_code, interruptible, told
from mmace_sim.base.text import PLAIN_TEXT
from mmace_sim.cli.calibrate import calibrate
from mmace_sim.cli.check import check
from mmace_sim.cli.convert import convert
from mmace_sim.cli.data import data
from mmace_sim.cli.declared import property_command
from mmace_sim.cli.evaluate import evaluate
from mmace_sim.cli.finetune import finetune
from mmace_sim.cli.label import label
from mmace_sim.cli.learn import learn
from mmace_sim.cli.models import models
from mmace_sim.cli.report import report
from mmace_sim.cli.status import status
from mmace_sim.cli.train import train
from mmace_sim.errors import MmaceError, UnsupportedOptionError
from mmace_sim.properties import declared_properties

EXIT_USAGE = 2
"""Wrong options, unusable model, folder or configuration, or a disk that became full."""


class _Group(TyperGroup):
    """Turns the package's own errors into a message and exit code 2; anything else is a bug with a traceback."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command; output that the terminal's encoding lacks is written in similar signs."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors=PLAIN_TEXT)
        return super().main(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        try:
            with interruptible():
                return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            typer.echo(getattr(interrupt, "told", told(interrupt)), err=True)
            raise typer.Exit(exit_code(interrupt)) from interrupt
        except MmaceError as error:
            if os.environ.get("MMACE_SIM_TRACEBACK"):
                raise
            typer.secho(f"Error: {error}", err=True, fg=typer.colors.RED)
            raise typer.Exit(EXIT_USAGE) from error


app = typer.Typer(
    name="mmace-sim",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _versions() -> str:
    """What a report of a fault needs: the versions that numbers depend on, and where they would be computed."""
    from mmace_sim.engine.output import versions

    found = versions()
    import torch

    threads = torch.get_num_threads()
    cpu = f"CPU, {threads} thread{'' if threads == 1 else 's'}"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    packages = ", ".join(
        f"{name} {found[name]}" for name in ("python", "torch", "torch-sim-atomistic", "ase")
    )
    return f"mmace-sim {__version__}\n{packages}\n{device}"


def _show_version(value: bool) -> bool:
    if value:
        typer.echo(_versions())
        raise typer.Exit
    return value


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Magnetic MACE potentials: relax positions, cell **and magnetic moments** of many structures at once.

    Start with `mmace-sim relax STRUCTURES`, where STRUCTURES are files or folders (CIF, mCIF, POSCAR, extxyz,
    JSON, ...).

    Exit codes: 0 all right; 2 wrong usage or output that cannot be written; 3 some structures failed or did not
    converge; 128 + N stopped by signal N (130 Ctrl-C, 143 SIGTERM, 138 SIGUSR1, 129 SIGHUP).
    """


_COMMANDS: tuple[Any, ...] = (
    "relax", models, train, finetune, evaluate, convert, calibrate, "eos", "bain", "elastic", check, "phonons",
    "exchange", "curie", "anisotropy", "md", "order", report, status, "moments", data, learn, label,
)  # fmt: skip
"""In the order of the help; those that compute a property by its name. Properties of other packages follow."""


def _register() -> None:
    """Add all commands."""
    try:
        properties = declared_properties()
    except UnsupportedOptionError as error:  # of another package
        typer.secho(f"Error: {error}", err=True, fg=typer.colors.RED)
        raise SystemExit(EXIT_USAGE) from error
    own = {getattr(command, "__name__", command) for command in _COMMANDS} | {"data", "models"}
    for command in (*_COMMANDS, *(name for name in properties if name not in own)):
        if isinstance(command, typer.Typer):
            app.add_typer(command)
        else:
            app.command()(property_command(properties[command]) if isinstance(command, str) else command)


_register()


def main() -> None:
    """Entry point of the console script."""
    keep_freed_memory()
    try:
        app(prog_name="mmace-sim")  # also for `python -m mmace_sim`
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
