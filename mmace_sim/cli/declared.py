"""Commands of the command line, made from what properties declare."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from mmace_sim.base.settings import MACHINE, RUN, Setting, Settings, load_settings, nested
from mmace_sim.cli import options as opt
from mmace_sim.engine.declaration import Property, imported

_FIRST = ("output", "model", "fetch_models")
"""Settings that stand before the switches of the run."""

_DOT = "__"
"""Stands for the dot of a section in the name of a parameter."""

RUN_SWITCHES: dict[str, Any] = {
    "resume": (opt.Resume, False),
    "force": (opt.Force, False),
    "quiet": (opt.Quiet, False),
    "as_json": (opt.AsJson, False),
}
"""What commands with a folder of their own have beside settings: annotations and defaults."""

SWITCHES: dict[str, Any] = {"config": (opt.Config, None)} | RUN_SWITCHES
"""The same with a configuration file."""

DRY_SWITCHES: dict[str, Any] = SWITCHES | {"dry_run": (opt.DryRun, False)}
"""The same of commands that can tell what they would do."""

FILE_SWITCHES: dict[str, Any] = {"force": (opt.ForceFile, False), "quiet": (opt.Quiet, False)}
"""What commands that write one file have."""


def property_command(declared: Property) -> Callable[..., None]:
    """The function that typer makes a command of.

    Args:
        declared: The property.
    """

    def run(settings: Any, switches: opt.Switches) -> int:
        from mmace_sim.cli.property_run import run_command

        return run_command(declared, settings, switches)

    about = (declared.name, declared.help, declared.settings)
    return settings_command(run, *about, DRY_SWITCHES, needed=declared.needed)


def settings_command(
    run: Callable[..., int] | str,
    name: str,
    text: str,
    kind: type[Settings],
    switches: dict[str, Any],
    *,
    needed: Sequence[str] = (),
) -> Callable[..., None]:
    """A command whose options are settings; it ends with the exit code of what runs.

    Args:
        run: Takes the settings and the switches, and returns the exit code; or where it is, as ``module:name``, to be
            imported when the command is called.
        name: Of the command.
        text: Its help.
        kind: Class of the settings.
        switches: Annotations and defaults of what is no setting.
        needed: Settings that must be given.
    """

    def call(**values: Any) -> None:
        config, told = values.pop("config", None), opt.Switches.among(values)
        settings = _load_command_settings(kind, config, values, needed)
        if isinstance(run, str):
            with opt.quiet_imports():
                function = imported(run)
        else:
            function = run
        raise typer.Exit(function(settings, told))

    return as_command(call, name, text, kind, switches)


def as_command(
    run: Callable[..., None],
    name: str,
    text: str,
    settings: type[Settings] | Sequence[Setting],
    switches: dict[str, Any],
) -> Callable[..., None]:
    """Give a function the signature that typer reads.

    Args:
        run: Takes all values by name.
        name: Of the command.
        text: Its help.
        settings: Its settings, or the class of them.
        switches: Annotations and defaults of what is no setting.

    Returns:
        The same function.
    """
    every = settings.declared() if isinstance(settings, type) else settings
    declared = {setting.name: setting for setting in every if setting.flag is not None}
    first = [s.name for s in declared.values() if s.flag is not None and s.flag.argument]
    first += [key for key in _FIRST if key in declared and key not in first]
    parameters = [
        *(_parameter(declared.pop(key)) for key in first),
        *(_keyword(key, default, annotation) for key, (annotation, default) in switches.items()),
        *map(_parameter, sorted(declared.values(), key=_panel_place)),
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    run.__name__, run.__doc__ = name.replace("-", "_"), text
    return run


def _load_command_settings[S: Settings](
    kind: type[S], config: Path | None, values: dict[str, Any], needed: Sequence[str] = ()
) -> S:
    """Settings from a YAML file and flags, of which None and an empty list are nothing.

    A setting that must be given and is not is a usage error.
    """
    given = {key: value for key, value in values.items() if value not in (None, [])}
    settings = load_settings(kind, config, given)
    for setting in kind.declared():
        if setting.name in needed and not getattr(settings, setting.name) and setting.flag is not None:
            hint = setting.flag.metavar if setting.flag.argument else setting.flag.names[0]
            raise typer.BadParameter(f"missing. {setting.text}", param_hint=hint)
    settings.check_given(frozenset(given))
    return settings


def given(values: dict[str, Any]) -> dict[str, Any]:
    """What the command line gave, sections within sections.

    Args:
        values: Of all options, by the names of parameters; None, and an empty list, is nothing.
    """
    return nested({k.replace(_DOT, "."): v for k, v in values.items() if v not in (None, [])})


def _keyword(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name.replace(".", _DOT),
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=default,
        annotation=annotation,
    )


def _parameter(setting: Setting) -> inspect.Parameter:
    """A setting as a parameter that is None where it was not given."""
    flag = setting.flag
    assert flag is not None
    kind, metavar = _typer_type(setting)
    if flag.argument:
        about = typer.Argument(metavar=flag.metavar, help=setting.text, show_default=flag.shown or False)
        takes = list[str] if setting.takes_list else str
        return _keyword(setting.name, None, Annotated[takes | None, about])
    names = flag.names or _default_names(setting)
    about = typer.Option(
        *names,
        metavar=flag.metavar or metavar,
        help=setting.text,
        show_default=_shown(setting, names) or False,
        rich_help_panel=flag.panel,
    )
    return _keyword(setting.name, None, Annotated[kind | None, about])


def _panel_place(setting: Setting) -> int:
    """The panel of the run stands first, that of the machine last."""
    panel = "" if setting.flag is None else setting.flag.panel
    return {RUN: 0, MACHINE: 2}.get(panel, 1)


def _default_names(setting: Setting) -> tuple[str, ...]:
    dashed = setting.name.rpartition(".")[2].replace("_", "-")
    return (f"--{dashed}/--no-{dashed}",) if setting.annotation is bool else (f"--{dashed}",)


def _shown(setting: Setting, names: tuple[str, ...]) -> str:
    if setting.annotation is not bool or (setting.flag and setting.flag.shown):
        return setting.shown
    yes, _, no = names[0].partition("/")
    return (yes if setting.default else no) if no else ""


def _typer_type(setting: Setting) -> tuple[Any, str | None]:
    """Type for typer, which only tells numbers from texts, and what stands for the value."""
    flag, parts = setting.flag, [a for a in (get_args(setting.annotation) or (setting.annotation,)) if a]
    if flag is not None and flag.repeated:
        return list[str], None
    if setting.takes_list:
        return str, "LIST"
    plain = [part for part in parts if part is not type(None)]
    if plain == [bool]:
        return bool, None
    if plain in ([int], [float]):
        return plain[0], None
    words = [part for part in plain if isinstance(part, str)]
    if words and len(words) == len(plain):
        return str, "|".join(words)
    return str, None
