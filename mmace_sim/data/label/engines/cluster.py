"""What the engines share whose codes run elsewhere: a run script, and a program that need not be here."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmace_sim.data.label.calculation import Calculation, Mode
from mmace_sim.data.label.compute import executable, starts_here
from mmace_sim.data.label.engine import Limits, MissingProgramError
from mmace_sim.data.label.processes import run_program, run_script
from mmace_sim.data.label.settings import LabelSettings

PSEUDOPOTENTIALS: str = "*.[uU][pP][fF]"
"""Names of pseudopotential files in the format that ABACUS and pw.x share."""


class ClusterEngine:
    """Writes inputs and a run script; runs the script here if the code is here.

    Raises:
        ConfigError: If the code is needed here and not installed.
    """

    name = ""
    energy_kind = "free energy"
    attempts = 1
    keeps: Sequence[str] = ()
    program = ""
    """How the code is started if the user does not say it."""
    output = "> run.log 2>&1"
    """Where the run script puts what it prints."""

    def __init__(self, settings: LabelSettings) -> None:
        self.settings = settings
        command = settings.command or self.program
        if starts_here(settings) and executable(command) is None:
            raise MissingProgramError(
                f"{command.split()[0]}: no such program here. Write the inputs with --write-only, compute them where "
                "it is, and read them with --collect; or say with --command how it is started, and with --executor on "
                "which cluster."
            )

    def command(self, folder: Path) -> str:
        """How the code is started on what is in a folder.

        Args:
            folder: Folder of the calculation.
        """
        del folder
        return self.settings.command or self.program

    def file_of(self, symbol: str, pattern: str, default: str) -> str:
        """Name of the first file in the folder of potentials that begins with the symbol of an element.

        Args:
            symbol: Of the element.
            pattern: Of the names.
            default: If there is none, or no folder is named.
        """
        folder = self.settings.potentials
        names = sorted(path.name for path in Path(folder).glob(pattern)) if folder else []
        fitting = (n for n in names if n.lower().startswith(symbol.lower()) and not n[len(symbol)].isalpha())
        return next(fitting, default)

    def script(self, folder: Path) -> None:
        """Write ``run.sh``."""
        run_script(folder, self.command(folder), self.output)

    def run(self, folder: Path, limits: Limits) -> None:
        """Run the script."""
        self.script(folder)
        run_program(["sh", "run.sh"], folder, limits, log="script.log")


def holds(calculation: Calculation) -> bool:
    """Whether any moment is held."""
    return calculation.mode is not Mode.NONMAGNETIC and bool(calculation.held.any())


def turned(calculation: Calculation, values: np.ndarray) -> np.ndarray:
    """Vectors that a code gave; numbers are along the axis of the candidate.

    Args:
        calculation: What was asked for.
        values: One number or three for each atom.
    """
    values = np.asarray(values, dtype=float)
    return values if values.ndim == 2 else np.outer(values, calculation.axis)


def quoted(path: str | Path) -> str:
    """A path as a shell and a namelist take it."""
    return shlex.quote(str(Path(path).resolve()))


def sorted_by_element(calculation: Calculation) -> list[int]:
    """Places of the atoms in an input that groups them: by element, in the order in which elements come first."""
    symbols = calculation.atoms.get_chemical_symbols()
    elements = list(dict.fromkeys(symbols))
    return sorted(range(len(symbols)), key=lambda k: elements.index(symbols[k]))
