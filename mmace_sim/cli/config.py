"""Configurations of the commands: YAML file and flags merged, unknown keys refused."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import typer
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from mmace_sim.base.yamlfile import read_yaml, refuse_huge_numbers, refuse_truth
from mmace_sim.errors import ConfigError
from mmace_sim.graph.cells import COMPONENTS, parse_cell_mask
from mmace_sim.structures import moment_words

MAX_THREADS: int = 1024
"""More CPU threads than any machine has use for; torch ends the process if it cannot start them."""


class ModelRunConfig(BaseModel):
    """What the commands that run a model have in common."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    output: str
    """Folder of the run."""
    model: str = "default"
    """Name in the registry (`mmace-sim models`) or path of a model file."""
    dtype: Literal["float64", "float32"] = "float64"
    """Precision."""
    device: str | None = None
    """cpu, cuda, ...; None: a GPU if there is one."""
    threads: int | None = Field(default=None, ge=1, le=MAX_THREADS)
    """CPU threads; None: as many as torch chooses."""
    report: bool = False
    """Write the results as one page, report.html."""

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        return refuse_truth(value, cls.model_fields[str(info.field_name)].annotation)


class RunConfig(ModelRunConfig):
    """What the commands that take structures have in common."""

    model: str = "auto"
    """Name in the registry (`mmace-sim models`) or path of a model file; auto: for each structure the model of the
    package if it knows all elements, else the installed one with the fewest elements that does."""
    paths: list[str] = Field(default_factory=list)
    """Files and folders with structures."""
    initial_magmoms: str | None = Field(default=None, pattern=moment_words.PATTERN)
    """Starting moments (see --help); None: from the file, else high-spin."""
    spin_orbit: bool = False
    """Require a model with spin–orbit coupling."""
    max_batch_atoms: int | None = Field(default=None, ge=1)
    """Largest number of atoms computed at once; None: as memory allows."""
    fetch_models: bool = False
    """Fetch the models that structures need and that are not installed."""


class RelaxConfig(RunConfig):
    """Everything that decides the result of ``mmace-sim relax``."""

    output: str = "relax"
    """Folder of the run."""
    magmoms: Literal["joint", "adiabatic", "fixed"] = "joint"
    """Relax moments together with positions, converge them at every step, or keep them."""
    relax_cell: bool = True
    """Relax the cell too."""
    cell_mask: list[str] | None = None
    """Components of the cell that may relax: xx, yy, zz, yz, xz, xy; None: all of a crystal, none of a slab."""
    fmax: float = Field(default=0.01, gt=0)
    """Largest force of a converged structure, in eV/Å."""
    stress_tol: float = Field(default=0.05, gt=0)
    """Largest stress of a converged structure, in GPa."""
    magforce_tol: float = Field(default=0.0003, gt=0)
    """Largest magnetic force of a converged structure, in eV/μB."""
    max_steps: int = Field(default=500, ge=0)
    """Largest number of steps."""
    collinear: bool = False
    """Keep each moment along its initial axis."""
    fix_magnitude: bool = False
    """Keep the length of each moment."""
    stability: bool = True
    """Tell minima from saddle points of the moments."""
    perturb: bool = False
    """Push the moments off saddle points and relax on."""
    write: list[Literal["cif", "mcif", "poscar"]] = Field(default_factory=list)
    """Further formats of the relaxed structures."""

    @field_validator("cell_mask", mode="before")
    @classmethod
    def _read_cell_mask(cls, value: Any) -> Any:
        """``xx,yy,xy`` or ``1,1,0,0,0,1`` as the names of components."""
        if value is None:
            return None
        mask = parse_cell_mask([value] if isinstance(value, int | float) else value)
        return [name for name, free in zip(COMPONENTS, mask, strict=True) if free]

    @model_validator(mode="before")
    @classmethod
    def _accept_start_as_magmoms(cls, data: Any) -> Any:
        """``magmoms: afm`` means: start from AFM moments and relax them jointly."""
        value = data.get("magmoms") if isinstance(data, dict) else None
        if not isinstance(value, str) or not (value in moment_words.WORDS or value.startswith("random:")):
            return data
        if data.get("initial_magmoms") not in (None, value):
            raise ValueError(
                f"magmoms {value} and initial_magmoms {data['initial_magmoms']} contradict each other; "
                "magmoms is best used for joint, adiabatic or fixed"
            )
        return data | {"magmoms": "joint", "initial_magmoms": value}


NOT_PHYSICS: frozenset[str] = frozenset(
    {"paths", "output", "device", "threads", "max_batch_atoms", "write", "figures", "report", "fetch_models"}
)
"""Fields that may differ when a run is resumed: they do not change the result of a structure."""


def load_config[Config: BaseModel](kind: type[Config], file: Path | None, flags: dict[str, Any]) -> Config:
    """Merge a YAML file and flags; flags win.

    Args:
        kind: Class of the configuration.
        file: YAML file, or None.
        flags: Values given on the command line; those that are None were not given.

    Returns:
        The configuration.

    Raises:
        ConfigError: If the file cannot be read, holds unknown keys or impossible values.
    """
    values = read_yaml(file, hint="Check the path of --config.") if file else {}
    source = str(file) if file else "command line"
    unknown = [key for key in values if key not in kind.model_fields]
    if unknown:
        raise ConfigError(f"{source}: {_suggest(str(unknown[0]), list(kind.model_fields))}")
    given = {key: value for key, value in flags.items() if value is not None}
    refuse_huge_numbers(values | given, source)
    try:
        return kind.model_validate(values | given)
    except ValidationError as error:
        raise ConfigError(_explain(error, source, given)) from error


def load_run_config[Config: RunConfig](
    kind: type[Config], file: Path | None, flags: dict[str, Any]
) -> Config:
    """`load_config` for a command that cannot do without structures.

    Args:
        kind: Class of the configuration.
        file: YAML file, or None.
        flags: Values given on the command line; those that are None were not given.

    Returns:
        The configuration.

    Raises:
        ConfigError: If the file cannot be read, holds unknown keys or impossible values.
        typer.BadParameter: If no structures are named.
    """
    merged = load_config(kind, file, flags)
    if not merged.paths:
        raise typer.BadParameter("name at least one file or folder with structures", param_hint="PATHS")
    return merged


def dump_config(config: BaseModel) -> str:
    """Write a configuration as YAML that `load_config` reads.

    Args:
        config: The configuration.

    Returns:
        YAML text, one commented line for each field.
    """
    lines = []
    for key, value in config.model_dump(mode="json").items():
        text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
        text = text.removesuffix("\n").removesuffix("\n...")
        told = " ".join((type(config).model_fields[key].description or "").split())
        lines.append(f"{key}: {text}  # {told}")
    return "\n".join(lines) + "\n"


def _suggest(key: str, valid: list[str]) -> str:
    close = get_close_matches(key.replace("-", "_"), valid, n=1, cutoff=0.4)
    nearest = f"Did you mean {close[0]!r}? " if close else ""
    return f"unknown option {key!r}. {nearest}Valid options: {', '.join(valid)}."


def _explain(error: ValidationError, source: str, flags: dict[str, Any]) -> str:
    """One line per wrong value, with the value and where it came from."""
    lines = []
    for item in error.errors():
        key = str(item["loc"][0]) if item["loc"] else ""
        where = f"--{key.replace('_', '-')}" if key in flags else f"{source}: {key}".rstrip(": ")
        text = item["msg"].removeprefix("Value error, ")
        if key == "initial_magmoms" and item["type"] == "string_pattern_mismatch":
            text = f"choose {moment_words.CHOICES}"
        elif key == "magmoms" and "joint" in text:
            text = f"choose joint, adiabatic or fixed (or, to set the start, {moment_words.CHOICES})"
        got = f" (got {item['input']!r})" if key else ""
        lines.append(f"{where}: {text}{got}.")
    return "\n".join(lines)


def split_list(value: Any) -> Any:
    """``a, b`` of an option as a list; what a file says as it is.

    Args:
        value: What was given.
    """
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value
