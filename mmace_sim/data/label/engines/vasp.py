"""VASP: moments held by a penalty (``I_CONSTRAINED_M = 2``), in any direction, without spin–orbit coupling.

With E_p = Σ λ (M − M0)² of the moments M in the smoothed spheres (MW_int), the energy is that of VASP minus E_p, and
the magnetic forces are −∂E/∂M = 2 λ (M − M0), at the moments that were reached. With ``I_CONSTRAINED_M`` 1 or 4 (in
``extra``), which hold directions only, they are made from lambda*MW_perp of OSZICAR (`mmace_sim.io.vasp`).
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, covalent_radii

from mmace_sim.base.labels import LabelKeys
from mmace_sim.data.label.calculation import Calculation, Mode
from mmace_sim.data.label.engine import (
    EngineError,
    Labels,
    MissingOutputError,
    NotConvergedError,
    k_points,
    mesh_name,
)
from mmace_sim.data.label.engines.cluster import ClusterEngine, holds, quoted, sorted_by_element, turned
from mmace_sim.errors import StructureError
from mmace_sim.io import vasp as reader
from mmace_sim.io.frames import stress_matrix

CUTOFF: float = 520.0
"""Cutoff in eV."""


ROUNDING: float = 5e-4
"""Half of the last digit of moments in OSZICAR, in μB."""


class VaspEngine(ClusterEngine):
    """Writes INCAR, POSCAR, KPOINTS and the list of what POTCAR must hold; never a POTCAR.

    Atoms are sorted by element, as POSCAR and MAGMOM want it; what is read back is in the order of the candidate.
    """

    name = "vasp"
    moment_kind = "MW_int, smoothed spheres of RWIGS"
    moment_tol = 1.0
    keeps = ("INCAR", "POSCAR", "KPOINTS", "POTCAR.spec", "OUTCAR", "OSZICAR", "run.sh", "run.log")
    program = "vasp_ncl"

    def refuse(self, calculation: Calculation) -> str:
        """Why VASP cannot compute this; "" if it can."""
        lengths = np.linalg.norm(calculation.magmoms, axis=1)
        if holds(calculation) and (lengths[calculation.held] == 0.0).any():
            return "VASP takes a target of zero for no constraint: no moment can be held at zero."
        return "" if calculation.atoms.pbc.all() else "VASP computes crystals: put the atoms into a box."

    def write(self, calculation: Calculation, folder: Path, attempt: int = 0) -> None:
        """Write all inputs."""
        del attempt
        order = sorted_by_element(calculation)
        atoms = calculation.atoms[order]
        symbols = list(dict.fromkeys(atoms.get_chemical_symbols()))
        counts = [atoms.get_chemical_symbols().count(symbol) for symbol in symbols]
        lines = [calculation.config_id.replace("\n", " "), "1.0"]
        lines += [" ".join(f"{x:.12f}" for x in vector) for vector in atoms.cell.array]
        lines += [" ".join(symbols), " ".join(map(str, counts)), "Direct"]
        lines += [" ".join(f"{x:.12f}" for x in p) for p in atoms.get_scaled_positions(wrap=False)]
        (folder / "POSCAR").write_text("\n".join(lines) + "\n")
        mesh = " ".join(map(str, k_points(atoms, self.settings.k_length)))
        (folder / "KPOINTS").write_text(f"{self.settings.k_length:g} Å\n0\nGamma\n{mesh}\n0 0 0\n")
        (folder / "POTCAR.spec").write_text("".join(f"{symbol}\n" for symbol in symbols))
        tags = self._tags(calculation, order, symbols) | self.settings.extra
        (folder / "INCAR").write_text("".join(f"{key} = {_value(value)}\n" for key, value in tags.items()))

    def _tags(self, calculation: Calculation, order: list[int], symbols: list[str]) -> dict[str, Any]:
        tags: dict[str, Any] = {
            "SYSTEM": re.sub(r"[#!;\n]", " ", calculation.config_id),
            "GGA": "PE",
            "PREC": "Accurate",
            "ENCUT": self.settings.cutoff or CUTOFF,
            "ISMEAR": 0,
            "SIGMA": self.settings.smearing,
            "EDIFF": "1E-7",
            "NELM": 200,
            "LREAL": False,
            "LASPH": True,
            "NSW": 0,
            "ISIF": 2,
            "LWAVE": False,
            "LCHARG": False,
        }
        if calculation.mode is Mode.NONMAGNETIC:
            return tags | {"ISPIN": 1}
        tags["LORBIT"] = 11
        moments = calculation.magmoms[order]
        if calculation.mode is Mode.COLLINEAR and not holds(calculation):
            return tags | {"ISPIN": 2, "MAGMOM": calculation.along_axis[order]}
        tags |= {
            "LNONCOLLINEAR": True,
            "SAXIS": "0 0 1",
            "ISYM": -1,
            "GGA_COMPAT": False,
            "MAGMOM": moments.ravel(),
        }
        if not holds(calculation):
            return tags
        targets = np.where(calculation.held[order][:, None], moments, 0.0)
        radii = [covalent_radii[atomic_numbers[symbol]] for symbol in symbols]
        return tags | {
            "I_CONSTRAINED_M": 2,
            "M_CONSTR": targets.ravel(),
            "LAMBDA": 0.5 * self.settings.stiffness,
            "RWIGS": np.array(radii),
        }

    def command(self, folder: Path) -> str:
        """VASP, after POTCAR was put together from the user's own."""
        default = "vasp_ncl" if "LNONCOLLINEAR" in (folder / "INCAR").read_text() else "vasp_std"
        where = quoted(self.settings.potentials) if self.settings.potentials else ""
        given = f"${{VASP_PP_PATH:-{where}}}"
        potcar = (
            "[ -f POTCAR ] || while read -r name; do\n"
            f'  cat "{given}/$name/POTCAR"  # set VASP_PP_PATH to your folder of PBE sets\n'
            "done < POTCAR.spec > POTCAR\n"
        )
        return potcar + (self.settings.command or default)

    def collect(self, calculation: Calculation, folder: Path) -> Labels:
        """Read OUTCAR and OSZICAR."""
        outcar = folder / "OUTCAR"
        if not outcar.is_file():
            raise MissingOutputError(f"{outcar} is not there.")
        text = outcar.read_text(errors="replace")
        if "General timing" not in text:
            raise MissingOutputError(f"{outcar} is not finished.")
        if "aborting loop because EDIFF is reached" not in text:
            raise NotConvergedError("OUTCAR: the electrons did not converge.")
        try:
            item = list(reader.FORMAT.read(outcar, LabelKeys()))[-1]
        except Exception as error:  # readers of other packages raise whatever they like
            raise EngineError(f"{outcar} cannot be read: {error}") from error
        if isinstance(item, StructureError):
            raise EngineError(f"{outcar}: {item}")
        return self._labels(calculation, item.calc.results, folder, text)

    def _labels(self, calculation: Calculation, results: dict[str, Any], folder: Path, text: str) -> Labels:
        back = np.argsort(sorted_by_element(calculation))
        n_atoms = len(calculation.atoms)
        magmoms, magforces = np.zeros((n_atoms, 3)), np.zeros((n_atoms, 3))
        tags = read_incar(folder / "INCAR")
        if calculation.mode is not Mode.NONMAGNETIC:
            if "magmoms" not in results:
                raise EngineError("OUTCAR has no moments of the atoms (LORBIT = 11).")
            magmoms = turned(calculation, np.squeeze(results["magmoms"]).reshape(n_atoms, -1).squeeze())[back]
            if holds(calculation):
                penalty = read_penalty(folder / "OSZICAR")
                magforces = self._magforces(calculation, results, tags, magmoms, back, penalty)
        version = re.search(r"vasp\.(\S+)", text[:2000])
        told = {
            "engine": f"VASP {version[1]}" if version else "VASP",
            "xc": "PBE",
            "kpts": mesh_name(k_points(calculation.atoms, self.settings.k_length)),
            "cutoff": float(tags.get("ENCUT", "nan")),
            "smearing": f"gaussian {float(tags.get('SIGMA', 'nan')):.4f} eV",
            "soc": tags.get("LSORBIT", "F").strip(".").upper().startswith("T"),
            "constraint": f"I_CONSTRAINED_M {tags.get('I_CONSTRAINED_M', '0')}",
        }
        stress = results.get("stress")
        return Labels(
            energy=float(results["energy"]),
            magmoms=magmoms,
            forces=np.asarray(results["forces"])[back] if "forces" in results else None,
            stress=None if stress is None else stress_matrix(np.asarray(stress, dtype=float)),
            magforces=magforces,
            info=told,
        )

    def _magforces(
        self,
        calculation: Calculation,
        results: dict[str, Any],
        tags: dict[str, str],
        magmoms: np.ndarray,
        back: np.ndarray,
        penalty: float,
    ) -> np.ndarray:
        """−∂E/∂M in the order of the candidate, in eV/μB; zero where moments are free."""
        kind, held = tags.get("I_CONSTRAINED_M", "0"), calculation.held
        if kind == "2":
            off = np.where(held[:, None], magmoms - calculation.magmoms, 0.0)
            check_penalty(float(tags["LAMBDA"]), off, penalty)
            fields = 2.0 * float(tags["LAMBDA"]) * off
        elif "magforces" in results:
            fields = np.asarray(results["magforces"])[back]
        else:
            raise EngineError(
                "OSZICAR is missing or has no lambda*MW_perp: the magnetic forces are not known."
            )
        return np.where(held[:, None], fields, 0.0)


def read_penalty(path: Path) -> float:
    """E_p of OSZICAR, in eV.

    Raises:
        EngineError: If it is not there, or says nothing of a constraint.
    """
    constraints = reader.read_constraints(path) if path.is_file() else []
    if not constraints:
        raise EngineError(
            f"{path.name} is missing or says nothing of a constraint: energy and fields are not known."
        )
    return constraints[-1].energy


def check_penalty(weight: float, off: np.ndarray, penalty: float) -> None:
    """Make sure that the penalty is what magnetic forces are derived from.

    Args:
        weight: λ, in eV/μB².
        off: Distances of moments from their targets as printed, in μB.
        penalty: E_p as printed, in eV.

    Raises:
        EngineError: If E_p is not λ Σ (M − M0)² within the digits of OSZICAR.
    """
    expected = weight * float((off**2).sum())
    rounding = weight * float((2.0 * np.abs(off) * ROUNDING + ROUNDING**2).sum())
    if abs(penalty - expected) > rounding + 0.01 * abs(penalty):
        raise EngineError(
            f"OSZICAR has E_p = {penalty:.4g} eV, but λ Σ (MW_int − M_CONSTR)² is {expected:.4g} eV: this version of "
            "VASP holds moments in another way than its documentation says."
        )


def read_incar(path: Path) -> dict[str, str]:
    """Tags of an INCAR that we wrote, as text.

    Raises:
        EngineError: If it is not there.
    """
    if not path.is_file():
        raise EngineError(f"{path} is not there: with what was it computed?")
    lines = [re.split(r"[#!]", line)[0] for line in path.read_text(errors="replace").splitlines()]
    pairs = [line.split("=", 1) for line in lines if "=" in line]
    return {key.strip().upper(): value.strip() for key, value in pairs}


def _value(value: object) -> str:
    if isinstance(value, bool):
        return ".TRUE." if value else ".FALSE."
    if isinstance(value, np.ndarray | list | tuple):
        return " ".join(f"{float(number):.6f}" for number in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
