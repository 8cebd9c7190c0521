"""Settings of ``mmace-sim check``."""

from typing import Annotated

from pydantic import Field

from mmace_sim.base.settings import Flag
from mmace_sim.engine.settings import ModelSettings, Symbols

CALCULATOR = "Calculators (a model knows all of this)"

HELP = """Check whether a magnetic potential obeys the physics that it must: symmetries, limits, derivatives.

Measures each identity (rotation, inversion, time reversal, smoothness, jump at the cutoff, moments that are too
long, forces against differences, ...) and by how much it is violated, in meV/atom and relative. The table is kept
in `summary.json`, beside `config.yaml`, `log.txt` and, with `--plot`, `figures/`. What a potential does not give
is skipped and never counted as passed. Exit code 3 if anything failed.

`module:factory` names a function without arguments that returns an ASE calculator, which reads non-collinear
moments (n_atoms, 3) from `initial_magmoms`, and gives magnetic forces −∂E/∂m as result `magforces` or
`magnetic_forces` if it can. Its module may be in the working folder.

Examples: `mmace-sim check`; `mmace-sim check my.safetensors --plot -o my_check`;
`mmace-sim check my_potential:make_calculator --elements Fe,Ni --r-max 5`.
"""


class CheckSettings(ModelSettings):
    """Everything that decides the result of ``mmace-sim check``."""

    output: Annotated[str, Flag(metavar="DIR", names=("--output", "-o"))] = "check"
    """Folder of the run."""
    model: Annotated[str, Flag(metavar="MODEL", argument=True, shown="default")] = "default"
    """Model: a name (see `mmace-sim models`), a file, or `module:factory` of any ASE calculator."""
    structures: Annotated[
        list[str],
        Flag(metavar="PATH", repeated=True, shown="bcc, fcc, hcp, rattled, random cell, dimer"),
    ] = Field(default_factory=list)
    """File or folder with structures to check on (may be repeated); without moments, random ones are set."""
    elements: Annotated[Symbols, Flag(metavar="Fe,Ni", shown="all of the model")] = None
    """Elements of the built-in structures; needed for a calculator without --structures."""
    tolerance: Annotated[float, Flag()] = Field(default=1.0, gt=0)
    """Factor for all tolerances."""
    plot: Annotated[bool, Flag(names=("--plot",))] = False
    """Draw E(moment), E(angle), E(volume) and dimer curves, PNG and SVG."""
    r_max: Annotated[float | None, Flag(CALCULATOR, unit="Å", shown="not known")] = Field(default=None, gt=0)
    """Cutoff radius; needed for the jump at the cutoff."""
    max_moment: Annotated[float | None, Flag(CALCULATOR, unit="μB", shown="3")] = Field(default=None, gt=0)
    """Largest moment that it was made for."""
    spin_orbit: Annotated[
        bool | None, Flag(CALCULATOR, names=("--spin-orbit/--no-spin-orbit",), shown="not known")
    ] = None
    """Whether it has spin–orbit coupling; without it, moments alone may be rotated."""
