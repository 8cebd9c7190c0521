"""GPAW: collinear moments held by an extension of its functional, in a process of its own.

Labels are exact at the moments that were reached (`workers/gpaw_held.py`). Candidates whose moments share one axis are
computed with spins along z and turned back: without spin–orbit coupling that changes nothing.
"""

import json
import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mmace_sim.data.label.calculation import Calculation, Mode
from mmace_sim.data.label.compute import starts_here
from mmace_sim.data.label.engine import (
    EngineError,
    Labels,
    Limits,
    MissingOutputError,
    NotConvergedError,
    k_points,
    mesh_name,
)
from mmace_sim.data.label.processes import THREADS, run_program, run_script
from mmace_sim.data.label.settings import LabelSettings
from mmace_sim.errors import ConfigError

WORKER = Path(__file__).parent / "workers" / "gpaw_held.py"

PYTHON_VARIABLE: str = "MMACE_SIM_GPAW_PYTHON"
"""Environment variable with the interpreter that has GPAW."""

CUTOFF: float = 700.0
"""Cutoff in eV; with 544 eV energies of chromium shift by 18 meV/atom, those of iron by 11."""

MIXERS: tuple[dict[str, Any], ...] = (
    {},
    {"name": "pulay", "beta": 0.05, "nmaxold": 8, "weight": 50.0},
    {"name": "pulay", "beta": 0.02, "nmaxold": 16, "weight": 100.0},
)
"""Mixing of one attempt after the other; the first is GPAW's own."""

MAX_STEPS: tuple[int, ...] = (120, 200, 333)


class GpawEngine:
    """Runs GPAW 26 or later.

    Raises:
        ConfigError: If GPAW is needed here and not installed.
    """

    name = "gpaw"
    moment_kind = "PAW sphere"
    energy_kind = "free energy"
    moment_tol = 1.0
    attempts = len(MIXERS)
    keeps = ("job.json", "result.json", "gpaw.txt", "run.log")

    def __init__(self, settings: LabelSettings) -> None:
        self._settings = settings
        self._python = settings.gpaw_python or os.environ.get(PYTHON_VARIABLE) or sys.executable
        if starts_here(settings):
            gpaw_versions(self._python)

    def refuse(self, calculation: Calculation) -> str:
        """Why GPAW cannot compute this; "" if it can."""
        if calculation.mode is Mode.NONCOLLINEAR:
            return (
                "GPAW holds moments along one axis only. Compute non-collinear candidates with --engine abinit "
                "(energies and magnetic forces) or vasp."
            )
        if not calculation.atoms.pbc.all():
            return "plane waves want a crystal: put the atoms into a box that is periodic along all axes."
        return ""

    def write(self, calculation: Calculation, folder: Path, attempt: int = 0) -> None:
        """Write ``job.json``."""
        atoms, held = calculation.atoms, calculation.held
        moments = calculation.along_axis
        spinpol = calculation.mode is not Mode.NONMAGNETIC
        symbols = np.array(atoms.get_chemical_symbols())
        uniform = all(len(set(held[symbols == symbol].tolist())) == 1 for symbol in set(symbols.tolist()))
        job = {
            "symbols": symbols.tolist(),
            "positions": atoms.positions.tolist(),
            "cell": atoms.cell.array.tolist(),
            "moments": moments.tolist(),
            "targets": {str(k): float(moments[k]) for k in np.flatnonzero(held).tolist()} if spinpol else {},
            "stiffness": self._settings.stiffness,
            "spinpol": spinpol,
            "symmetry": uniform,  # operations could exchange a held moment and a free one
            "cutoff": self._settings.cutoff or CUTOFF,
            "k_points": k_points(atoms, self._settings.k_length),
            "smearing": self._settings.smearing,
            "mixer": MIXERS[attempt],
            "max_steps": MAX_STEPS[attempt],
            "extra": self._settings.extra,
        }
        (folder / "job.json").write_text(json.dumps(job, indent=1))

    def script(self, folder: Path) -> None:
        """Write what computes the job on another machine."""
        (folder / WORKER.name).write_text(WORKER.read_text(encoding="utf-8"), encoding="utf-8")
        run_script(folder, f"{shlex.quote(self._settings.gpaw_python or 'python')} {WORKER.name}")

    def run(self, folder: Path, limits: Limits) -> None:
        """Run the worker in the environment of GPAW."""
        run_program(
            [self._python, str(WORKER)], folder, limits, log="run.log", environment=_environment(self._python)
        )

    def collect(self, calculation: Calculation, folder: Path) -> Labels:
        """Read ``result.json``."""
        path = folder / "result.json"
        if not path.is_file():
            raise MissingOutputError(f"{path} is not there.")
        try:
            result = json.loads(path.read_text())
            job = json.loads((folder / "job.json").read_text())
            if "not_converged" in result:
                raise NotConvergedError(result["not_converged"])
            axis = calculation.axis
            return Labels(
                energy=float(result["energy"]),
                magmoms=np.outer(result["moments"], axis),
                forces=np.array(result["forces"], dtype=float),
                stress=np.array(result["stress"], dtype=float),
                magforces=np.outer(result["fields"], axis),
                info=_told(job, result),
            )
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise EngineError(f"{path} cannot be read ({type(error).__name__}: {error}).") from error


def _told(job: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """What is written beside the labels."""
    return {
        "engine": f"GPAW {result['gpaw']}",
        "xc": "PBE",
        "psp": f"{result['sets']} PAW",
        "kpts": mesh_name(job["k_points"]),
        "cutoff": float(job["cutoff"]),
        "smearing": f"gaussian {job['smearing']:.4f} eV",
        "soc": False,
        "stiffness": float(job["stiffness"]) if job["targets"] else 0.0,
        "scf_steps": int(result["scf_steps"]),
        "total_moment": float(result["total_moment"]),
    }


@cache
def gpaw_versions(python: str) -> dict[str, str]:
    """Versions of GPAW and of its PAW sets.

    Args:
        python: Interpreter of the environment that has GPAW.

    Raises:
        ConfigError: If it has none.
    """
    advice = (
        f"Build it with `make dft`, or name another interpreter with --gpaw-python or ${PYTHON_VARIABLE}."
    )
    try:
        done = subprocess.run(
            [python, str(WORKER), "--version"],
            capture_output=True,
            text=True,
            timeout=300,
            env=_plain_environment(python),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{python}: cannot be started ({error}). {advice}") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"{python} has no GPAW that can be used ({reason}). {advice}")
    return json.loads(done.stdout)


def _environment(python: str) -> dict[str, str | None]:
    """Variables of another interpreter: where ours looks for packages is not where it should."""
    return {} if python == sys.executable else {"PYTHONPATH": None, "PYTHONHOME": None}


def _plain_environment(python: str) -> dict[str, str]:
    return {k: v for k, v in (os.environ | THREADS).items() if k not in _environment(python)}
