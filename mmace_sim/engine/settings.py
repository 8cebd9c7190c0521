"""Settings that the commands which run a model have in common."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, create_model

from mmace_sim.base.settings import MACHINE, MOMENTS, RELAXATION, Flag, Settings
from mmace_sim.executors.interface import ExecutorChoice
from mmace_sim.structures import moment_words

MAX_THREADS: int = 1024
"""More CPU threads than any machine has use for; torch ends the process if it cannot start them."""

NOT_PHYSICS: frozenset[str] = frozenset(
    {
        "paths",
        "output",
        "device",
        "threads",
        "max_batch_atoms",
        "write",
        "figures",
        "report",
        "fetch_models",
        "executor",
    }
)
"""Fields that may differ when a run is resumed: they do not change the result of a structure."""

ForceTol = Annotated[
    float,
    Flag(RELAXATION, unit="eV/Å", names=("--fmax", "--force-tol")),
    Field(gt=0, validation_alias=AliasChoices("force_tol", "fmax")),
]
"""Largest force; ``fmax`` is what ASE calls it."""
StressTol = Annotated[float, Flag(RELAXATION, unit="GPa"), Field(gt=0)]
MagforceTol = Annotated[float, Flag(RELAXATION, unit="eV/μB"), Field(gt=0)]
MaxSteps = Annotated[int, Flag(RELAXATION), Field(ge=0)]


def _known_start(value: str | None) -> str | None:
    if value is not None and re.fullmatch(moment_words.PATTERN, value, re.ASCII) is None:
        raise ValueError(f"choose {moment_words.CHOICES}")
    return value


Start = Annotated[str | None, AfterValidator(_known_start)]
"""How moments start, see `mmace_sim.structures.moment_words`."""

InitialMagmoms = Annotated[
    Start,
    Flag(MOMENTS, metavar="START", shown=moment_words.DEFAULT),
    Field(description=moment_words.HELP),
]
"""The setting of it."""

DeviceChoice = Annotated[
    str | None,
    Flag(MACHINE, metavar="cpu|cuda", shown="a GPU if there is one"),
    Field(description="Where to compute."),
]
ThreadCount = Annotated[int | None, Field(ge=1, le=MAX_THREADS, description="CPU threads.")]


def _known_symbols(value: list[str] | None) -> list[str] | None:
    from ase.data import atomic_numbers  # heavy, and not needed for --help

    unknown = [symbol for symbol in value or () if atomic_numbers.get(symbol, 0) == 0]
    if unknown or value == []:
        raise ValueError(f"{', '.join(map(repr, unknown))} is no element; give symbols such as Fe,Ni")
    return value


Symbols = Annotated[list[str] | None, AfterValidator(_known_symbols)]
"""Some elements; None leaves it open."""


def _known_states(value: list[str]) -> list[str]:
    from mmace_sim.structures.magnetic_states import check_state

    return [check_state(name) for name in dict.fromkeys(value)]


States = Annotated[list[str], Flag(MOMENTS), Field(min_length=1), AfterValidator(_known_states)]
"""Magnetic states of `mmace_sim.structures.magnetic_states`, each once."""

AppliedField = Annotated[
    list[float],
    Flag(MOMENTS, metavar="BX,BY,BZ", shown="none"),
    Field(min_length=3, max_length=3),
    BeforeValidator(lambda value: value.tolist() if hasattr(value, "tolist") else value),
]
"""A vector in tesla, also as an array."""


class ModelSettings(Settings):
    """What everything that uses a model has in common."""

    output: Annotated[str, Flag(metavar="DIR", names=("--output", "-o"), shown="named after the command")] = (
        ""
    )
    """Folder of the run."""
    model: Annotated[str, Flag(metavar="NAME|FILE", names=("--model", "-m"))] = "default"
    """Model: a name (see `mmace-sim models`) or a file."""
    dtype: Annotated[Literal["float64", "float32"], Flag(MACHINE)] = "float64"
    """Precision; float32 is faster on a GPU."""
    device: DeviceChoice = None
    threads: Annotated[ThreadCount, Flag(MACHINE, shown="all cores")] = None


class ModelRunSettings(ModelSettings):
    """What the commands that run a model have in common."""

    report: Annotated[bool, Flag()] = False
    """Write all results as one page, `report.html`, with figures and pictures of the structures."""


class RunSettings(ModelRunSettings):
    """What the commands that take structures have in common."""

    paths: Annotated[list[str], Flag(metavar="PATHS", argument=True)] = Field(default_factory=list)
    """Files and folders with structures: CIF, mCIF, POSCAR, extxyz, JSON of ASE and pymatgen, databases, outputs of
    VASP and other text formats of ASE, compressed or not."""
    model: Annotated[str, Flag(metavar="NAME|FILE", names=("--model", "-m"))] = "auto"
    """Model: a name (see `mmace-sim models`) or a file. **auto**: for each structure the default model if it
    knows all elements, else the installed one with the fewest elements that does."""
    initial_magmoms: InitialMagmoms = None
    spin_orbit: Annotated[bool, Flag(MOMENTS, names=("--spin-orbit",))] = False
    """Require a model with spin–orbit coupling."""
    max_batch_atoms: Annotated[int | None, Flag(MACHINE, shown="as memory allows")] = Field(
        default=None, ge=1
    )
    """Largest number of atoms computed at once."""
    executor: ExecutorChoice = None
    fetch_models: Annotated[bool, Flag(names=("--yes", "-y"))] = False
    """Fetch models that structures need and that are not installed (see `mmace-sim models`)."""


class MomentSettings(Settings):
    """How moments may change."""

    collinear: Annotated[bool, Flag(MOMENTS, names=("--collinear",))] = False
    """Keep each moment along its initial axis."""
    fix_magnitude: Annotated[bool, Flag(MOMENTS, names=("--fix-magnitude",))] = False
    """Keep the length of each moment and relax directions only."""


class DoubtSettings(Settings):
    """When a model is too uncertain to go on."""

    max_uncertainty: Annotated[float | None, Flag(unit="eV/Å", shown="none")] = Field(default=None, gt=0)
    """Stop a structure where the model knows a component of a force less well than this, and keep it in
    `candidates.extxyz` for `mmace-sim label`."""


class PointMomentSettings(Settings):
    """How moments follow at points with given atoms and cells."""

    magmoms: Annotated[Literal["relaxed", "fixed"], Flag(MOMENTS)] = "relaxed"
    """**relaxed**: moments follow the atoms adiabatically. **fixed**: they stay as they are."""


class GridSettings(PointMomentSettings):
    """How atoms and moments relax at the points of a grid of cells."""

    relax_positions: Annotated[bool, Flag(RELAXATION, names=("--relax-positions/--fixed-positions",))] = False
    """Relax the atoms within the cell at each point."""
    force_tol: ForceTol = 0.005
    """Largest force if atoms relax."""
    magforce_tol: MagforceTol = 1e-4
    """Largest magnetic force −∂E/∂m of relaxed moments."""
    max_steps: MaxSteps = 500
    """Largest number of steps of a point."""


class GivenOrderSettings(Settings):
    """Whether the moments of a given order relax before they turn."""

    magmoms: Annotated[Literal["relaxed", "fixed"], Flag(MOMENTS)] = "relaxed"
    """**relaxed**: lengths of collinear moments relax in the given order first. **fixed**: they stay as they are."""


class FigureSettings(Settings):
    """Whether figures are drawn."""

    figures: Annotated[bool, Flag()] = True
    """Draw figures (PNG and SVG)."""


def check_ranges(settings: Settings, *names: str) -> None:
    """Make sure that ``NAME_min`` is below ``NAME_max``.

    Args:
        settings: The settings.
        *names: What has both.

    Raises:
        ValueError: If it is not.
    """
    for name in names:
        low, high = (getattr(settings, f"{name}_{end}") for end in ("min", "max"))
        if low >= high:
            raise ValueError(f"{name}_min = {low} and {name}_max = {high}, expected them in ascending order")


def run_settings(name: str, *parts: type[Settings]) -> Any:
    """Settings of a command: what all commands have, then its own.

    Args:
        name: Of the command, which its folder is named after.
        *parts: Its own settings.

    Returns:
        A class that derives from `RunSettings` and all of them.
    """
    output = (Annotated[str, RunSettings.model_fields["output"].metadata[0]], name)
    made = create_model(
        f"{name.capitalize()}RunSettings",
        __base__=(*parts, RunSettings),
        __module__=parts[0].__module__,
        # nothing to be read: it has no source, which pydantic would look for in every frame of the stack
        __cls_kwargs__={"use_attribute_docstrings": False},
        output=output,
    )
    made.model_fields["output"].description = RunSettings.model_fields["output"].description
    return made
