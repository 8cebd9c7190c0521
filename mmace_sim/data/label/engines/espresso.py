"""Quantum ESPRESSO: moments held by a penalty (``constrained_magnetization = 'atomic'``), in any direction.

The target of a type is its ``starting_magnetization`` in μB, so that atoms with different moments are different types.
Free moments start from the same number, which then is a share of the valence electrons: versions up to 7.2 know
nothing else, later ones take what is below 1 for it, whatever was meant.
The total energy that pw.x prints does not hold the penalty; magnetic forces are 2 λ (m − m0) (`mmace_sim.io.espresso`).
Forces and stress of held runs are left out: pw.x does not count that the spheres of the moments move with the atoms.
"""

import contextlib
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from ase.units import Rydberg

from mmace_sim.data.label.calculation import Calculation, Mode
from mmace_sim.data.label.engine import (
    EngineError,
    Labels,
    MissingOutputError,
    NotConvergedError,
    k_points,
    mesh_name,
)
from mmace_sim.data.label.engines.cluster import PSEUDOPOTENTIALS, ClusterEngine, holds, turned
from mmace_sim.errors import StructureError
from mmace_sim.io import espresso as reader
from mmace_sim.io.frames import stress_matrix

CUTOFF: float = 60.0 * Rydberg
"""Cutoff in eV."""

VALENCE: float = 10.0
"""Valence electrons of an element whose pseudopotential file is not here: starts of free moments are rough anyway."""

DENSITY: float = 8.0
"""Cutoff of the density over that of the waves, enough for ultrasoft and PAW sets."""


_Z_VALENCE = re.compile(r"""z_valence\s*=\s*["']?\s*([\d.+\-EeDd]+)|^\s*([\d.+\-EeDd]+)\s+Z valence""", re.M)

_log = logging.getLogger(__name__)


class EspressoEngine(ClusterEngine):
    """Writes ``pw.in``; ``pw.x`` writes ``pw.out``."""

    name = "qe"
    moment_kind = "smoothed spheres of pw.x"
    moment_tol = 1.0
    keeps = ("pw.in", "pw.out", "run.sh", "run.log")
    program = "pw.x"
    output = "> pw.out 2> run.log"

    def refuse(self, calculation: Calculation) -> str:
        """Why pw.x cannot compute this; "" if it can."""
        moving = ~calculation.held & (np.linalg.norm(calculation.magmoms, axis=1) > 0.0)
        if holds(calculation) and moving.any():
            return "Quantum ESPRESSO holds all moments or none: hold all (--hold all), or use gpaw, abinit or vasp."
        return "" if calculation.atoms.pbc.all() else "pw.x computes crystals: put the atoms into a box."

    def write(self, calculation: Calculation, folder: Path, attempt: int = 0) -> None:
        """Write ``pw.in``."""
        del attempt
        atoms, types, kinds = calculation.atoms, *_types(calculation)
        electrons = {"conv_thr": 1e-9, "mixing_beta": 0.3, "electron_maxstep": 200}
        system = self._system(calculation, types) | self.settings.extra
        control = {
            "calculation": "scf",
            "prefix": "pw",
            "outdir": "./out",
            "pseudo_dir": str(Path(self.settings.potentials).resolve()) if self.settings.potentials else "./",
            "tprnfor": True,
            "tstress": True,
            "disk_io": "none",
        }
        lines = (
            _namelist("control", control) + _namelist("system", system) + _namelist("electrons", electrons)
        )
        lines.append("ATOMIC_SPECIES")
        for k, (symbol, _) in enumerate(types):
            mass = atomic_masses[atomic_numbers[symbol]]
            lines.append(f"{symbol}{k + 1} {mass:.4f} {self._pseudo(symbol)}")
        lines.append("CELL_PARAMETERS angstrom")
        lines += [" ".join(f"{x:.12f}" for x in vector) for vector in atoms.cell.array]
        lines.append("ATOMIC_POSITIONS angstrom")
        for kind, position in zip(kinds, atoms.positions, strict=True):
            name = f"{types[kind][0]}{kind + 1}"
            lines.append(f"{name} " + " ".join(f"{x:.12f}" for x in position))
        mesh = " ".join(map(str, k_points(atoms, self.settings.k_length)))
        lines += ["K_POINTS automatic", f"{mesh} 0 0 0"]
        (folder / "pw.in").write_text("\n".join(lines) + "\n")

    def _system(self, calculation: Calculation, types: list[tuple[str, tuple[float, ...]]]) -> dict[str, Any]:
        cutoff = (self.settings.cutoff or CUTOFF) / Rydberg
        system: dict[str, Any] = {
            "ibrav": 0,
            "nat": len(calculation.atoms),
            "ntyp": len(types),
            "ecutwfc": cutoff,
            "ecutrho": DENSITY * cutoff,
            "occupations": "smearing",
            "smearing": "gaussian",
            "degauss": self.settings.smearing / Rydberg,
            "input_dft": "PBE",
        }
        if calculation.mode is Mode.NONMAGNETIC:
            return system | {"nspin": 1}
        collinear, held = calculation.mode is Mode.COLLINEAR, holds(calculation)
        system |= {"nspin": 2} if collinear else {"noncolin": True, "lspinorb": False, "nosym": True}
        for k, (symbol, moment) in enumerate(types):
            length = float(np.linalg.norm(moment))
            start = float(np.dot(moment, calculation.axis)) if collinear else length
            if not held:
                start = float(np.clip(start / self._valence(symbol), -1.0, 1.0))
            system[f"starting_magnetization({k + 1})"] = start
            if collinear:
                continue
            cosine = moment[2] / length if length else 1.0
            system[f"angle1({k + 1})"] = float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))
            system[f"angle2({k + 1})"] = float(np.degrees(np.arctan2(moment[1], moment[0])))
        if held:
            weight = 0.5 * self.settings.stiffness / Rydberg
            system |= {"constrained_magnetization": "atomic", "lambda": weight}
        return system

    def _pseudo(self, symbol: str) -> str:
        return self.file_of(symbol, PSEUDOPOTENTIALS, f"{symbol}.UPF")

    def _valence(self, symbol: str) -> float:
        """Number of valence electrons of an element, from its pseudopotential file if that is here."""
        if self.settings.potentials is not None:
            path = Path(self.settings.potentials) / self._pseudo(symbol)
            with contextlib.suppress(OSError):
                match = _Z_VALENCE.search(path.read_text(errors="replace"))
                number = float((match[1] or match[2]).replace("D", "E").replace("d", "e")) if match else 0.0
                if number > 0.0:
                    return number
        _log.warning(
            "qe: the number of valence electrons of %s is not known, no pseudopotential file in --potentials; free "
            "moments start as if it were %g.",
            symbol,
            VALENCE,
        )
        return VALENCE

    def command(self, folder: Path) -> str:
        """pw.x on ``pw.in``."""
        del folder
        return f"{self.settings.command or self.program} -in pw.in"

    def collect(self, calculation: Calculation, folder: Path) -> Labels:
        """Read ``pw.out``."""
        path = folder / "pw.out"
        if not path.is_file():
            raise MissingOutputError(f"{path} is not there.")
        text = path.read_text(errors="replace")
        if "convergence NOT achieved" in text:
            raise NotConvergedError("pw.out: the electrons did not converge.")
        if "JOB DONE" not in text:
            raise MissingOutputError(f"{path} is not finished.")
        try:
            results = reader.read_results(text, len(calculation.atoms), _strength(folder / "pw.in"))
        except (StructureError, ValueError) as error:
            raise EngineError(f"{path} cannot be read: {error}") from error
        n_atoms = len(calculation.atoms)
        magmoms, magforces = np.zeros((n_atoms, 3)), np.zeros((n_atoms, 3))
        if calculation.mode is not Mode.NONMAGNETIC:
            magmoms = turned(calculation, results["magmoms"])
            if holds(calculation):
                if "magforces" not in results:
                    raise EngineError("pw.out has no constraint of the moments.")
                magforces = turned(calculation, results["magforces"])
        trusted = not holds(calculation)
        stress = results.get("stress") if trusted else None
        return Labels(
            energy=results["energy"],
            magmoms=magmoms,
            forces=results.get("forces") if trusted else None,
            stress=None if stress is None else stress_matrix(stress),
            magforces=magforces,
            info={
                "engine": f"Quantum ESPRESSO {results['version']}",
                "xc": "PBE",
                "kpts": mesh_name(k_points(calculation.atoms, self.settings.k_length)),
                "cutoff": self.settings.cutoff or CUTOFF,
                "smearing": f"gaussian {self.settings.smearing:.4f} eV",
                "soc": False,
                "penalty": results.get("penalty", 0.0),
            },
        )


def _types(calculation: Calculation) -> tuple[list[tuple[str, tuple[float, ...]]], list[int]]:
    """Types of atoms, by element and moment, and the type of each atom."""
    symbols = calculation.atoms.get_chemical_symbols()
    keys = [
        (symbol, tuple(np.round(moment, 6).tolist()))
        for symbol, moment in zip(symbols, calculation.magmoms, strict=True)
    ]
    types = list(dict.fromkeys(keys))
    return types, [types.index(key) for key in keys]


def _strength(path: Path) -> float | None:
    """λ of an input, in Ry/μB²; None if it is not there."""
    found = re.search(r"^\s*lambda\s*=\s*([^\s,!]+)", path.read_text() if path.is_file() else "", re.M)
    return None if found is None else float(found[1].lower().replace("d", "e"))


def _namelist(name: str, values: dict[str, Any]) -> list[str]:
    return [f"&{name}", *(f"  {key} = {_value(value)}" for key, value in values.items()), "/"]


def _value(value: object) -> str:
    if isinstance(value, bool):
        return ".true." if value else ".false."
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value) if isinstance(value, int) else f"'{value}'"
