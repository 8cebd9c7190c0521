"""ABACUS: moments held by DeltaSpin (``sc_mag_switch``), collinear and in any direction, plane waves or orbitals.

Magnetic forces are read as printed (`mmace_sim.io.abacus`); their sign has differed between versions and bases, and
`data check`, which runs on every batch, compares them with differences of energies.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from ase.units import Bohr, Rydberg

from mmace_sim.data.label.calculation import Calculation, Mode
from mmace_sim.data.label.engine import (
    EngineError,
    Labels,
    MissingOutputError,
    NotConvergedError,
    k_points,
    mesh_name,
)
from mmace_sim.data.label.engines.cluster import (
    PSEUDOPOTENTIALS,
    ClusterEngine,
    holds,
    sorted_by_element,
    turned,
)
from mmace_sim.errors import StructureError
from mmace_sim.io import abacus as reader

CUTOFF: float = 100.0 * Rydberg
"""Cutoff in eV."""

LOG = "OUT.label/running_scf.log"


class AbacusEngine(ClusterEngine):
    """Writes ``INPUT``, ``STRU`` and ``KPT``; ABACUS writes `LOG`.

    Atoms are sorted by element, as STRU wants it; what is read back is in the order of the candidate.
    """

    name = "abacus"
    moment_kind = "projections of DeltaSpin"
    moment_tol = 1e-3
    keeps = ("INPUT", "STRU", "KPT", LOG, "run.sh", "run.log")
    program = "abacus"

    def refuse(self, calculation: Calculation) -> str:
        """Why ABACUS cannot compute this; "" if it can."""
        return "" if calculation.atoms.pbc.all() else "ABACUS computes crystals: put the atoms into a box."

    def write(self, calculation: Calculation, folder: Path, attempt: int = 0) -> None:
        """Write all inputs."""
        del attempt
        values = self._input(calculation) | self.settings.extra
        lines = ["INPUT_PARAMETERS", *(f"{key} {_value(value)}" for key, value in values.items())]
        (folder / "INPUT").write_text("\n".join(lines) + "\n")
        mesh = " ".join(map(str, k_points(calculation.atoms, self.settings.k_length)))
        (folder / "KPT").write_text(f"K_POINTS\n0\nGamma\n{mesh} 0 0 0\n")
        (folder / "STRU").write_text(self._stru(calculation, orbitals=values.get("basis_type") == "lcao"))

    def _input(self, calculation: Calculation) -> dict[str, Any]:
        values: dict[str, Any] = {
            "suffix": "label",
            "calculation": "scf",
            "basis_type": "pw",
            "ecutwfc": (self.settings.cutoff or CUTOFF) / Rydberg,
            "dft_functional": "PBE",
            "scf_thr": 1e-8,
            "scf_nmax": 200,
            "smearing_method": "gauss",
            "smearing_sigma": self.settings.smearing / Rydberg,
            "mixing_type": "broyden",
            "cal_force": 1,
            "cal_stress": 1,
            "symmetry": 0,
        }
        if self.settings.potentials:
            folder = str(Path(self.settings.potentials).resolve())
            values |= {"pseudo_dir": folder, "orbital_dir": folder}
        if calculation.mode is Mode.NONMAGNETIC:
            return values | {"nspin": 1}
        if calculation.mode is Mode.COLLINEAR:
            values |= {"nspin": 2}
        else:
            values |= {"nspin": 4, "noncolin": 1, "lspinorb": 0, "symmetry": -1}
        # without a constraint DeltaSpin is on all the same, with nothing held: it prints the moments of the atoms
        return values | {"sc_mag_switch": 1, "sc_thr": 1e-6, "nsc": 100}

    def _stru(self, calculation: Calculation, *, orbitals: bool) -> str:
        atoms = calculation.atoms
        symbols = list(dict.fromkeys(atoms.get_chemical_symbols()))
        lines = ["ATOMIC_SPECIES"]
        for symbol in symbols:
            mass = atomic_masses[atomic_numbers[symbol]]
            lines.append(f"{symbol} {mass:.4f} {self.file_of(symbol, PSEUDOPOTENTIALS, f'{symbol}.upf')}")
        if orbitals:
            lines += [
                "",
                "NUMERICAL_ORBITAL",
                *(self.file_of(symbol, "*.orb", f"{symbol}.orb") for symbol in symbols),
            ]
        lines += ["", "LATTICE_CONSTANT", f"{1.0 / Bohr:.12f}", "", "LATTICE_VECTORS"]
        lines += [" ".join(f"{x:.12f}" for x in vector) for vector in atoms.cell.array]
        lines += ["", "ATOMIC_POSITIONS", "Direct"]
        scaled, names = atoms.get_scaled_positions(wrap=False), np.array(atoms.get_chemical_symbols())
        for symbol in symbols:
            members = np.flatnonzero(names == symbol).tolist()
            lines += ["", symbol, "0.0", str(len(members))]
            for k in members:
                place = " ".join(f"{x:.12f}" for x in scaled[k])
                lines.append(f"{place} {self._moment(calculation, k)}".rstrip())
        return "\n".join(lines) + "\n"

    def _moment(self, calculation: Calculation, atom: int) -> str:
        held = int(calculation.held[atom])
        if calculation.mode is Mode.NONMAGNETIC:
            return ""
        if calculation.mode is Mode.COLLINEAR:
            return f"mag {calculation.along_axis[atom]:.8f} sc {held}"
        moment = " ".join(f"{x:.8f}" for x in calculation.magmoms[atom])
        return f"mag {moment} sc {held} {held} {held}"

    def collect(self, calculation: Calculation, folder: Path) -> Labels:
        """Read the log."""
        path = folder / LOG
        if not path.is_file():
            raise MissingOutputError(f"{path} is not there.")
        text, n_atoms = path.read_text(errors="replace"), len(calculation.atoms)
        if "Finish Time" not in text:
            raise MissingOutputError(f"{path} is not finished.")
        try:
            results = reader.read_results(text, n_atoms)
        except StructureError as error:
            kind = NotConvergedError if "not converged" in str(error) else EngineError
            raise kind(f"{path.name}: {error}") from error
        back = np.argsort(sorted_by_element(calculation))
        magmoms, magforces = np.zeros((n_atoms, 3)), np.zeros((n_atoms, 3))
        if calculation.mode is not Mode.NONMAGNETIC:
            if "magmoms" not in results:
                raise EngineError(f"{path.name} has no moments of the atoms.")
            magmoms = turned(calculation, results["magmoms"])[back]
            if holds(calculation):
                if "magforces" not in results:
                    raise EngineError(f"{path.name} has no magnetic forces: was sc_mag_switch on?")
                magforces = np.where(
                    calculation.held[:, None], turned(calculation, results["magforces"])[back], 0.0
                )
        return Labels(
            energy=results["energy"],
            magmoms=magmoms,
            forces=results["forces"][back] if "forces" in results else None,
            stress=results.get("stress"),
            magforces=magforces,
            info={"engine": f"ABACUS {results['version']}"}
            | _told(folder / "INPUT", self.settings.k_length, calculation),
        )


def _told(path: Path, k_length: float, calculation: Calculation) -> dict[str, Any]:
    """What is written beside the labels."""
    words = [line.split() for line in path.read_text().splitlines()] if path.is_file() else []
    given = {row[0]: row[1] for row in words if len(row) >= 2}
    return {
        "xc": given.get("dft_functional", "PBE"),
        "basis": given.get("basis_type", "pw"),
        "kpts": mesh_name(k_points(calculation.atoms, k_length)),
        "cutoff": float(given.get("ecutwfc", "nan")) * Rydberg,
        "smearing": f"gaussian {float(given.get('smearing_sigma', 'nan')) * Rydberg:.4f} eV",
        "soc": re.fullmatch(r"1|true|T", given.get("lspinorb", "0"), re.I) is not None,
    }


def _value(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)
