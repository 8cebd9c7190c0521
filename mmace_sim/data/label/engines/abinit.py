"""ABINIT: moments held by Lagrange multipliers (``constraint_kind 1``), collinear and in any direction.

The energy has no penalty, held moments are at their targets, and −``grspin`` are the magnetic forces. With moments in
any direction, forces and stress of held runs do not agree with differences of energies in ABINIT 9.6 (forces by 19 % in
one case): they are left out.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from ase.units import Bohr, Hartree
from numpy.typing import ArrayLike

from mmace_sim.base.labels import LabelKeys
from mmace_sim.data.label.calculation import Calculation, Mode
from mmace_sim.data.label.compute import executable, starts_here
from mmace_sim.data.label.engine import (
    EngineError,
    Labels,
    Limits,
    MissingOutputError,
    NotConvergedError,
    k_points,
    mesh_name,
)
from mmace_sim.data.label.engines.paw_sets import PawSet, find_sets, paw_set
from mmace_sim.data.label.processes import last_words, run_program, run_script
from mmace_sim.data.label.settings import LabelSettings
from mmace_sim.errors import ConfigError, StructureError
from mmace_sim.io import abinit as reader
from mmace_sim.io.frames import stress_matrix

CUTOFF: float = 20.0 * Hartree
"""Cutoff in eV for the PAW sets of gpaw-data."""

DOUBLE_GRID: float = 2.0
"""Cutoff of the fine grid of PAW over that of the waves."""

ATTEMPTS: tuple[dict[str, float], ...] = (
    {"collinear": 0.005, "any": 0.02, "diemix": 0.7},
    {"collinear": 0.01, "any": 0.01, "diemix": 0.35},
    {"collinear": 0.0025, "any": 0.0025, "diemix": 0.5},
)
"""``magcon_lambda`` of collinear runs and of others, and mixing, of one attempt after the other."""

MAX_STEPS: int = 80

MARGIN: float = 0.005
"""Radius (Bohr) of the moments' spheres beyond that of the PAW set: smaller ones ABINIT refuses."""


class AbinitEngine:
    """Runs ABINIT 9 or later.

    Raises:
        ConfigError: If ABINIT is needed here and not installed, or there are no PAW sets.
    """

    name = "abinit"
    moment_kind = "sphere of moment_radius"
    energy_kind = "free energy"
    moment_tol = 5e-3
    attempts = len(ATTEMPTS)
    keeps = ("run.abi", "run.abo", "run.log")

    def __init__(self, settings: LabelSettings) -> None:
        self._settings = settings
        self._command = settings.command or "abinit"
        self._sets = None if settings.collect else find_sets(settings)
        if starts_here(settings) and executable(self._command) is None:
            raise ConfigError(
                f"{self._command.split()[0]}: no such program. Install ABINIT (Debian, Ubuntu: apt-get install abinit; "
                "`make dft` does it), or say with --command how it is started."
            )

    def refuse(self, calculation: Calculation) -> str:
        """Why ABINIT cannot compute this; "" if it can."""
        if not calculation.atoms.pbc.all():
            return "plane waves want a crystal: put the atoms into a box that is periodic along all axes."
        try:
            for symbol in set(calculation.atoms.get_chemical_symbols()) if self._sets else ():
                self._set(symbol)
        except ConfigError as error:
            return str(error)
        return ""

    def _set(self, symbol: str) -> PawSet:
        assert self._sets is not None
        return paw_set(self._sets, symbol)

    def write(self, calculation: Calculation, folder: Path, attempt: int = 0) -> None:
        """Write ``run.abi`` and the PAW sets."""
        symbols = calculation.atoms.get_chemical_symbols()
        for symbol in set(symbols):
            (folder / f"{symbol}.xml").write_text(self._set(symbol).text)
        values = self._structure(calculation) | self._electrons(calculation, attempt) | self._settings.extra
        text = "".join(f"{key} {value}\n" for key, value in values.items())
        (folder / "run.abi").write_text(text)

    def _structure(self, calculation: Calculation) -> dict[str, Any]:
        """Cell, atoms and types; a held moment and a free one are of different types, which no symmetry mixes."""
        atoms = calculation.atoms
        kinds = list(zip(atoms.get_chemical_symbols(), calculation.held.tolist(), strict=True))
        types = sorted(set(kinds))
        return {
            "pp_dirpath": '"."',
            "pseudos": '"' + ", ".join(f"{symbol}.xml" for symbol, _ in types) + '"',
            "ntypat": len(types),
            "znucl": " ".join(str(atomic_numbers[symbol]) for symbol, _ in types),
            "natom": len(atoms),
            "typat": " ".join(str(types.index(kind) + 1) for kind in kinds),
            "acell": "3*1.0 angstrom",
            "rprim": _numbers(atoms.cell.array, 12),
            "xred": _numbers(atoms.get_scaled_positions(wrap=False), 12),
            "chkprim": 0,
            "chksymtnons": 0,
            "chksymbreak": 0,
            "ratsph": " ".join(f"{self._set(symbol).radius + MARGIN:.4f}" for symbol, _ in types),
            "ratsm": 0.05,
            **self._held(calculation, [held for _, held in types]),
        }

    def _held(self, calculation: Calculation, held: list[bool]) -> dict[str, Any]:
        if calculation.mode is Mode.NONMAGNETIC or not any(held):
            return {}
        return {"constraint_kind": " ".join("1" if one else "0" for one in held)}

    def _electrons(self, calculation: Calculation, attempt: int) -> dict[str, Any]:
        """Basis, occupations, spins and mixing."""
        mode, n_atoms = calculation.mode, len(calculation.atoms)
        cutoff = (self._settings.cutoff or CUTOFF) / Hartree
        n_electrons = sum(self._set(s).n_electrons for s in calculation.atoms.get_chemical_symbols())
        n_bands = int(np.ceil(0.59 * n_electrons + 2 * n_atoms))
        mixing = ATTEMPTS[attempt]
        values: dict[str, Any] = {
            "ngkpt": " ".join(map(str, k_points(calculation.atoms, self._settings.k_length))),
            "nshiftk": 1,
            "shiftk": "0 0 0",
            "occopt": 7,
            "tsmear": f"{self._settings.smearing / Hartree:.8f}",
            "ecut": f"{cutoff:.4f}",
            "pawecutdg": f"{DOUBLE_GRID * cutoff:.4f}",
            "ecutsm": 0.5,
            "nstep": MAX_STEPS,
            "optforces": 1,
            "optstress": 1,
            **dict.fromkeys(("prtwf", "prtden", "prteig", "prtebands", "prtgsr"), 0),
            "kptopt": 1,
            "nband": n_bands,
        }
        if mode is Mode.NONMAGNETIC:
            return values | {"nsppol": 1, "nspden": 1, "tolvrs": "1.0d-8"}
        moments = calculation.magmoms
        if mode is Mode.COLLINEAR:
            values |= {"nsppol": 2}
            moments = np.outer(calculation.along_axis, [0.0, 0.0, 1.0])
        else:  # spinors without spin–orbit coupling; only symmetries of space
            values |= {
                "nsppol": 1,
                "nspinor": 2,
                "nspden": 4,
                "pawspnorb": 0,
                "nband": 2 * n_bands,
                "kptopt": 4,
            }
        values["spinat"] = _numbers(moments, 10)
        if not calculation.held.any():
            return values | {"tolvrs": "1.0d-8", "npulayit": 10}
        weight = mixing["collinear" if mode is Mode.COLLINEAR else "any"]
        # the energy with the multipliers is variational; a residual of the potential would depend on magcon_lambda
        return values | {
            "iscf": 7, "magcon_lambda": weight, "diemix": mixing["diemix"], "npulayit": 15, "toldfe": "1.0d-8",
        }  # fmt: skip

    def script(self, folder: Path) -> None:
        """Write ``run.sh``."""
        run_script(folder, f"{self._command} run.abi")

    def run(self, folder: Path, limits: Limits) -> None:
        """Run ABINIT."""
        run_program([*shlex.split(self._command), "run.abi"], folder, limits, log="run.log")

    def collect(self, calculation: Calculation, folder: Path) -> Labels:
        """Read ``run.abo``."""
        path = folder / "run.abo"
        if not path.is_file():
            if (folder / "run.log").is_file():
                raise EngineError(f"no output: {last_words(folder / 'run.log')}")
            raise MissingOutputError(f"{path} is not there.")
        try:
            (atoms,) = reader.FORMAT.read(path, LabelKeys())
            if isinstance(atoms, StructureError):
                raise atoms
        except StructureError as error:
            kind = NotConvergedError if "not converged" in str(error) else EngineError
            raise kind(f"{path.name}: {error}") from error
        return self._labels(calculation, atoms.calc.results, path.read_text(errors="replace"), folder)

    def _labels(self, calculation: Calculation, results: dict[str, Any], text: str, folder: Path) -> Labels:
        n_atoms, held = len(calculation.atoms), calculation.held
        magmoms, magforces = np.zeros((n_atoms, 3)), np.zeros((n_atoms, 3))
        if calculation.mode is not Mode.NONMAGNETIC:
            magmoms = _turned(calculation, results["magmoms"])
            if held.any():
                if "magforces" not in results:
                    raise EngineError("run.abo has no grspin: the constraint was not applied.")
                magforces[held] = _turned(calculation, results["magforces"])[held]
        trusted = calculation.mode is not Mode.NONCOLLINEAR or not held.any()
        stress = results.get("stress") if trusted else None
        return Labels(
            energy=float(results["energy"]),
            magmoms=magmoms,
            forces=results.get("forces") if trusted else None,
            stress=None if stress is None else stress_matrix(np.asarray(stress, dtype=float)),
            magforces=magforces,
            info=_told(text, (folder / "run.abi").read_text()),
        )


def _turned(calculation: Calculation, values: ArrayLike) -> np.ndarray:
    """Vectors of a run; those along z turned to the axis of the candidate."""
    values = np.asarray(values, dtype=float)
    if calculation.mode is Mode.NONCOLLINEAR:
        return values
    return np.outer(values if values.ndim == 1 else values[:, 2], calculation.axis)


def _told(text: str, inputs: str) -> dict[str, Any]:
    """What is written beside the labels."""
    version = re.search(r"Version\s+(\d[\w.]*)\s+of ABINIT", text)
    given = dict(line.split(" ", 1) for line in inputs.splitlines() if " " in line)
    radii = {
        name.strip().removesuffix(".xml"): float(radius) * Bohr
        for name, radius in zip(given["pseudos"].strip('"').split(","), given["ratsph"].split(), strict=True)
    }
    return {
        "engine": f"ABINIT {version[1]}" if version else "ABINIT",
        "xc": "PBE",
        "psp": "PAW",
        "kpts": mesh_name([int(count) for count in given["ngkpt"].split()]),
        "cutoff": round(float(given["ecut"]) * Hartree, 3),
        "smearing": f"gaussian {float(given['tsmear']) * Hartree:.4f} eV",
        "soc": False,
        "moment_radius": " ".join(f"{symbol}:{radius:.4f}" for symbol, radius in sorted(radii.items())),
        "scf_steps": len(re.findall(r"^ ETOT", text, re.MULTILINE)),
    }


def _numbers(values: np.ndarray, digits: int) -> str:
    return "  ".join(f"{value:.{digits}f}" for value in np.asarray(values).ravel())
