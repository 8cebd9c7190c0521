"""``mmace-sim models``: what is installed, what can be fetched, and the commands that do it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mmace_sim.cli import options


class _ListAlone(TyperGroup):
    """Without a command: the list."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["list", *args] if not args or args[0] == "--json" else args)


models = typer.Typer(name="models", cls=_ListAlone, rich_markup_mode="markdown")

_Json = Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the model.", show_default=False)]
_Force = Annotated[bool, typer.Option("--force", help="Replace a model of this name in the cache.")]


@models.callback()
def overview() -> None:
    """List, fetch, add and remove models; `mmace-sim models` alone lists them.

    Further models: files and folders that the environment variable `MMACE_SIM_MODELS` names. Fetched ones are kept in
    the user's cache (another folder with `MMACE_SIM_CACHE`).
    """


@models.command(name="list")
def list_models(json_output: _Json = False) -> None:
    """List the models at hand and those that can be fetched: elements, size, licence, errors on their test sets.

    Ends with 3 if a catalogue is broken, so that the list is not whole; the others are listed.
    """
    with options.quiet_imports():
        from mmace_sim.cli.model_tables import BROKEN_CATALOGUE, collect_models, print_models
        from mmace_sim.engine.results import EXIT_INCOMPLETE

        rows = collect_models()
    if json_output:
        _echo_json(rows)
    elif not rows:
        typer.echo("No model is installed. Train one with `mmace-sim train`, and use it with --model FILE.")
    else:
        print_models(rows)
    if any(row["where"] == BROKEN_CATALOGUE for row in rows):
        raise typer.Exit(EXIT_INCOMPLETE)


@models.command()
def info(name: _Name, json_output: _Json = False) -> None:
    """Everything that is known of one model: elements, training data, errors, what it violates, citation."""
    from mmace_sim.errors import ModelFileError

    with options.quiet_imports():
        from mmace_sim.cli.model_tables import collect_models, print_model
        from mmace_sim.engine.results import EXIT_INCOMPLETE

        rows = collect_models(Path(name) if Path(name).is_file() else None)
    row = next((row for row in rows if name in row["names"]), None)
    if row is None:
        known = ", ".join(dict.fromkeys(each for row in rows for each in row["names"]))
        raise ModelFileError(f"no model '{name}'; there are {known}.")
    if json_output:
        _echo_json(row)
    else:
        print_model(row)
    if "problem" in row:
        raise typer.Exit(EXIT_INCOMPLETE)


@models.command()
def get(name: _Name, force: _Force = False, quiet: options.Quiet = False) -> None:
    """Fetch a model from the web, check its size and sha256, and install it in the user's cache.

    A transfer that breaks off goes on where it was. The published checkpoints are pickles: they are read by a reader
    that runs nothing of them, turned into a model file, and deleted.

    Example: `mmace-sim models get mmace-matpes-pbe`.
    """
    from mmace_sim.hub.catalogue import read_catalogue, remote_model
    from mmace_sim.model.registry import list_models

    at_hand = list_models().get(name)
    if at_hand is not None and name not in read_catalogue():
        typer.echo(
            f"{name} is at hand ({at_hand}), and nothing is there to fetch: use it with --model {name}."
        )
        return
    remote = remote_model(name)
    if not quiet:
        typer.echo(f"{name}: {remote.megabytes:.1f} MB, licence {remote.license}. Cite {remote.citation}.")
    with options.quiet_imports():
        from mmace_sim.interop.install import get_model

        with _transfer_bar(remote.size, quiet=quiet) as advance:
            path, fetched = get_model(name, advance=advance, force=force)
    if not quiet:
        typer.echo(f"{'Installed' if fetched else 'Is installed already'}: {path}")
        typer.echo(f"Use it with --model {name}; `mmace-sim models info {name}` shows what it can do.")


@models.command()
def add(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Model file, or checkpoint of the published code, such as one that was fetched by hand.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the model.", show_default="by its hash in the catalogue, else of the file"
        ),
    ] = None,
    head: Annotated[
        str | None, typer.Option(metavar="NAME", help="Head to keep of a model with several.")
    ] = None,
    force: _Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Install a file under a name. The file itself stays where it is.

    Example: `mmace-sim models add train/model.safetensors --name my-nickel`.
    """
    with options.quiet_imports():
        from mmace_sim.interop.install import add_model

        path = add_model(file, name=name, head=head, force=force)
    if not quiet:
        typer.echo(f"Installed: {path}. Use it with --model {path.stem}.")


@models.command()
def remove(name: _Name, quiet: options.Quiet = False) -> None:
    """Delete a model from the user's cache. Models of the package and of plugins cannot be removed."""
    from mmace_sim.hub.store import remove_model

    path = remove_model(name)
    if not quiet:
        typer.echo(f"Deleted: {path}")


def _echo_json(value: object) -> None:
    import json

    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


@contextmanager
def _transfer_bar(size: int | None, *, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar of bytes on stderr; yields what to call with how many there are."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("Fetching"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task("", total=size)
        yield lambda there: progress.update(task, completed=there)
