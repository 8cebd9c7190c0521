"""Write the parts of the documentation that would otherwise repeat the code.

Quantities come from ``mmace_sim.base.quantities``, commands from their own help, options of models and training from
their configuration classes. The files go to ``docs/generated`` and are included by the pages.
"""

import ast
import inspect
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sphinx.application import Sphinx


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


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """Docstring below each field of a configuration class, those of its base classes included."""
    base = model.__mro__[1]
    docs = field_docs(base) if base is not BaseModel and issubclass(base, BaseModel) else {}
    body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(model))).body[0].body
    for node, after in itertools.pairwise(body):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(node, ast.AnnAssign) and is_text:
            docs[node.target.id] = " ".join(after.value.value.split())
    return docs


def config_table(
    model: type[BaseModel], prefix: str = "", values: BaseModel | None = None
) -> list[list[str]]:
    """One row for each field, sections expanded; defaults are those of the section that holds a section."""
    rows = []
    docs = field_docs(model)
    for name, field in model.model_fields.items():
        required = field.is_required() and values is None
        value = getattr(values, name) if values is not None else None
        if values is None and not required:
            value = field.get_default(call_default_factory=True)
        if isinstance(value, BaseModel):
            rows += config_table(type(value), f"{prefix}{name}.", value)
            continue
        default = "required" if required else f"`{value!r}`"
        rows.append([f"`{prefix}{name}`", default, docs.get(name, "")])
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


SUMMARY_KEYS = {
    "file": "file that the structure came from",
    "index": "which structure of the file, from 0",
    "name": "short unique name",
    "formula": "chemical formula",
    "n_atoms": "number of atoms",
    "model": "name of the model that the structure was given to",
    "status": "`converged`, `saddle`, `max_steps`, `runaway`, `non_finite` or `failed`",
    "message": "what went wrong and what to do; empty if converged",
    "notes": "what else the user should know, such as moments that were chosen for a file without any",
    "steps": "steps of the relaxation",
    "energy": "energy of the relaxed structure",
    "energy_initial": "energy of the start",
    "energy_per_atom": "energy of the relaxed structure per atom",
    "energy_change_per_atom": "relaxed minus start, per atom",
    "magmoms": "moment vectors of all atoms",
    "magmom_by_species": "mean length of the moments of each element",
    "total_magmom": "vector sum of the moments (in the CSV file its length)",
    "magnetic_order_initial": "FM, AFM, ferri, non-collinear or non-magnetic, of the start",
    "magnetic_order_final": "the same, of the relaxed structure",
    "magnetic_space_group": "magnetic space group, BNS number",
    "magnetic_space_group_uni": "magnetic space group, unified number (1–1651)",
    "space_group": "space group of the structure without its moments",
    "cell": "cell vectors",
    "volume": "volume of the cell",
    "volume_change": "relative change of the volume",
    "max_force": "largest force that is left",
    "max_stress": "largest component of the stress that is left",
    "max_magforce": "largest magnetic force that is left",
    "moment_curvature": "lowest curvature of the energy along a direction of all moments",
    "moment_curvature_error": "what is not known of it",
    "moment_mode": "that direction, a unit vector of all moments",
    "saddle_energy": "energy of the saddle point that was left with `--perturb`",
}


def summary_keys() -> str:
    """Keys of the entries of a summary, with units; fails if the code has a key that is not described here."""
    from mmace_sim.engine.output import CSV_COLUMNS, UNITS

    undescribed = {*CSV_COLUMNS, *UNITS} - set(SUMMARY_KEYS)
    if undescribed:
        raise KeyError(f"describe {sorted(undescribed)} in SUMMARY_KEYS of {__file__}")
    rows = [
        [f"`{key}`", text, UNITS.get(key, ""), "yes" if key in CSV_COLUMNS else ""]
        for key, text in SUMMARY_KEYS.items()
    ]
    return table(["Key", "What", "Unit", "In the CSV file"], rows)


def command_pages() -> str:
    """Usage and options of every command."""
    import typer

    from mmace_sim.cli.app import app

    parts = []
    for name, command in leaves(typer.main.get_command(app)):
        if command.hidden:
            continue
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
        usage = " ".join(["mmace-sim", name, "[OPTIONS]", *(a.metavar or a.name.upper() for a in arguments)])
        help_text = inspect.cleandoc(command.help or "").split("\f")[0]
        parts.append(f"## {name}\n\n```console\n$ {usage}\n```\n\n{help_text}\n")
        rows = [[flags(o), default_of(o), getattr(o, "help", "") or ""] for o in options]
        parts.append(table(["Option", "Default", "Meaning"], rows))
    return "\n".join(parts)


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
    "summary.md": summary_keys,
    "commands.md": command_pages,
    "model-config.md": model_config,
    "paper-config.md": paper_config,
    "train-config.md": train_config,
}


def write_pages(app: Sphinx) -> None:
    """Write the pages that changed."""
    folder = Path(app.srcdir) / "generated"
    folder.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        text = page()
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def escape_bars(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:  # noqa: ARG001
    """Keep |m| in docstrings from being read as a substitution, and g_ as a link."""
    for k, line in enumerate(lines):
        pieces = re.split(r"(``.*?``|`[^`]*`)", line)
        pieces[::2] = [re.sub(r"(?<!\\)\|", r"\\|", p) for p in pieces[::2]]
        lines[k] = "".join(pieces)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages, priority=100)
    app.connect("autodoc-process-docstring", escape_bars)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
