"""Write the parts of the documentation that would otherwise repeat the code: ``make reference``.

Quantities come from ``mmace_sim.base.quantities``, commands from their own help, options of models and training from
their configuration classes. The pages are committed in ``docs/reference``, so that they can be read without a build; a
test compares them with the code.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from api_reference import api_pages
from pydantic import BaseModel


def cell(text: Any) -> str:
    """Text for a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(header: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell(c) for c in line) + " |" for line in lines) + "\n"


def code(text: str | None) -> str:
    """A name as code, or a dash."""
    return f"`{text}`" if text else "–"


def quantities() -> str:
    """Table of every quantity: name, shape, unit, symmetry and its name in each host."""
    from mmace_sim.base.quantities import QUANTITIES

    sign = {1: "even", -1: "odd"}
    rows = [
        [
            code(q.name),
            q.description,
            f"`{q.shape}`",
            q.unit,
            sign[q.parity],
            sign[q.time_reversal],
            code(q.torchsim),
            code(q.ase),
            code(q.extxyz),
        ]
        for q in QUANTITIES.values()
    ]
    header = [
        "Name",
        "What",
        "Shape",
        "Unit",
        "Inversion",
        "Time reversal",
        "TorchSim",
        "ASE",
        "Label in extxyz",
    ]
    return table(header, rows)


def config_table(
    model: type[BaseModel], prefix: str = "", values: BaseModel | None = None
) -> list[list[str]]:
    """One row for each field, sections expanded; defaults are those of the section that holds a section."""
    rows = []
    for name, field in model.model_fields.items():
        required = field.is_required() and values is None
        value = getattr(values, name) if values is not None else None
        if values is None and not required:
            value = field.get_default(call_default_factory=True)
        if isinstance(value, BaseModel):
            rows += config_table(type(value), f"{prefix}{name}.", value)
            continue
        default = "required" if required else f"`{value!r}`"
        rows.append([f"`{prefix}{name}`", default, " ".join((field.description or "").split())])
    return rows


def model_config() -> str:
    """Hyper-parameters of a model."""
    from mmace_sim.model.config import ModelConfig

    return table(["Field", "Default", "Meaning"], config_table(ModelConfig))


def paper_config() -> str:
    """Hyper-parameters of the published architecture."""
    from mmace_sim.architectures.paper_mmace import PaperConfig

    return table(["Field", "Default", "Meaning"], config_table(PaperConfig))


def train_config() -> str:
    """Every key of a training configuration."""
    from mmace_sim.training.config import TrainConfig

    return table(["Key", "Default", "Meaning"], config_table(TrainConfig))


def executor_config() -> str:
    """Every key of a file about workers."""
    from mmace_sim.executors.settings import PoolSettings

    return table(["Key", "Default", "Meaning"], config_table(PoolSettings))


def command_pages() -> dict[str, str]:
    """A page for each command: usage, options, keys, columns, files."""
    import typer

    from mmace_sim.cli.app import app
    from mmace_sim.properties import declared_properties

    declared = declared_properties()
    pages = {}
    for name, command in leaves(typer.main.get_command(app)):
        if command.hidden:
            continue
        parts = [f"# {name}\n", usage(name, command), panels(command, declared.get(name))]
        if name in declared:
            parts += property_parts(declared[name])
        pages[f"commands/{name.replace(' ', '-')}.md"] = "\n".join(parts)
    return pages


def command_list() -> str:
    """All commands with the first sentence of their help."""
    import typer

    from mmace_sim.cli.app import app

    rows = []
    for name, command in leaves(typer.main.get_command(app)):
        if not command.hidden:
            first = re.split(r"(?<=[.?])\s|\n\n", inspect.cleandoc(command.help or ""))[0]
            rows.append([f"[`{name}`](commands/{name.replace(' ', '-')}.md)", first])
    return table(["Command", "What it does"], rows)


def usage(name: str, command: Any) -> str:
    """How a command is called, and its help."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    line = " ".join(["mmace-sim", name, "[OPTIONS]", *(a.metavar or a.name.upper() for a in arguments)])
    help_text = inspect.cleandoc(command.help or "").split("\f")[0]
    return f"```console\n$ {line}\n```\n\n{help_text}\n"


def panels(command: Any, declared: Any = None) -> str:
    """Options by the panels of the help; those that are settings of a property with their keys."""
    settings = {} if declared is None else {s.name: s for s in declared.settings.declared()}
    groups: dict[str, list[list[str]]] = {}
    for option in command.params:
        if option.param_type_name == "option" and not option.hidden:
            panel = getattr(option, "rich_help_panel", None) or "Options"
            row = [flags(option), default_of(option), option.help or ""]
            if settings:
                setting = settings.get(option.name)
                row[1:1] = [f"`{option.name}`: {kind_of(setting.annotation)}" if setting else "–"]
            groups.setdefault(panel, []).append(row)
    for setting in settings.values():
        if setting.flag is None:
            shown = setting.shown.lower() if setting.annotation is bool else setting.shown
            row = ["–", f"`{setting.name}`: {kind_of(setting.annotation)}", shown, setting.text]
            groups.setdefault("Keys without an option", []).append(row)
    header = ["Option", *(["Key"] if settings else []), "Default", "Meaning"]
    told = (
        "Keys are those of `--config` files, of `config.yaml`, and of keyword arguments in Python.\n\n"
        if settings
        else ""
    )
    return told + "\n".join(f"## {panel}\n\n{table(header, rows)}" for panel, rows in groups.items())


def property_parts(declared: Any) -> list[str]:
    """Results and files of a property, and of its variants."""
    columns = [
        [f"`{c.key}`", c.text, c.unit, "yes" if c.in_csv and c in declared.columns else ""]
        for c in (*declared.columns, *declared.quantities)
    ]
    files = [[f"`{file.name}`", file.text] for file in declared.files]
    parts = [
        "## Results\n",
        table(["Key", "What", "Unit", "In summary.csv"], columns),
        "## Files\n",
        "Beside those that [every run](../../output-files.md) writes:\n",
        table(["File", "What"], files),
    ]
    for name, variant in declared.variants.items():
        more = property_parts(variant)
        parts += [
            part.replace("\n", f" with `--{name}`\n") if part.startswith("## ") else part for part in more
        ]
    return parts


def kind_of(annotation: Any) -> str:
    """A type as a reader would write it."""
    if get_origin(annotation) is Literal:
        return "text"
    if get_origin(annotation) is Annotated:
        return kind_of(get_args(annotation)[0])
    plain = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}
    if annotation in plain:
        return plain[annotation]
    origin, parts = get_origin(annotation), [kind_of(part) for part in get_args(annotation)]
    if origin is list:
        return f"list of {parts[0]}s" if parts[0] != "true or false" else "list"
    if origin is dict:
        return "mapping"
    return " or ".join(dict.fromkeys(parts)) or str(annotation)


def leaves(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and commands of a group, those of groups in it one by one."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def flags(option: Any) -> str:
    """All spellings of an option, and what it takes."""
    names = ", ".join(f"`{n}`" for n in [*option.opts, *option.secondary_opts])
    return f"{names} `{option.metavar}`" if option.metavar else names


def default_of(option: Any) -> str:
    """Default of an option as its help states it."""
    if isinstance(option.show_default, str):
        return option.show_default
    if option.default is None or isinstance(option.default, bool):
        names = option.secondary_opts if option.default is False else option.opts
        return f"`{names[0]}`" if option.secondary_opts else ""
    return f"`{option.default}`"


PAGES = {
    "quantities.md": quantities,
    "commands.md": command_list,
    "model-config.md": model_config,
    "paper-config.md": paper_config,
    "train-config.md": train_config,
    "executor-config.md": executor_config,
}
"""Pages that are included by others, each by the function that makes it."""

FOLDER = Path(__file__).parents[1] / "docs" / "reference"


def all_pages() -> dict[str, str]:
    """Text of each page by its name in `FOLDER`."""
    return {name: page() for name, page in PAGES.items()} | command_pages() | api_pages()


def main() -> None:
    """Write the pages that changed, remove those of commands that are gone."""
    pages = all_pages()
    for name, text in pages.items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(FOLDER.parents[1])}")
    for path in FOLDER.rglob("*.md"):
        if str(path.relative_to(FOLDER)) not in pages:
            path.unlink()
            print(f"removed {path.relative_to(FOLDER.parents[1])}")


if __name__ == "__main__":
    main()
