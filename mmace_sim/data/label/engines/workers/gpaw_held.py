"""One GPAW calculation with moments held: reads ``job.json``, writes ``result.json`` and ``gpaw.txt``.

This file is complete in itself: it runs in the environment that has GPAW 26 or later, where mmace_sim need not be.

A term Σ k/2 (m_a − t_a)² of the moments m_a in the PAW spheres is added to the functional. At self-consistency

    E(m) = total − Σ k/2 (m_a − t_a)²,    −∂E/∂m_a = k (m_a − t_a)

hold at the moments that were reached, whether or not they are the targets t_a; forces and stress of the total are those
of E at fixed moments.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

for variable in (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
):  # before NumPy, or it costs two to three times as much
    os.environ.setdefault(variable, "1")

import numpy as np
from ase import Atoms
from ase.units import Ha
from gpaw import GPAW, PW, KohnShamConvergenceError, __version__
from gpaw.extensions import Extension
from gpaw.utilities import unpack_hermitian


class HeldMoments(Extension):
    """The penalty on moments along z.

    Args:
        targets: Moment of each atom that is held, in μB.
        stiffness: k, in eV/μB².
    """

    name = "held_moments"

    def __init__(self, targets: dict[int, float], stiffness: float) -> None:
        self.targets, self.stiffness = targets, stiffness / Ha

    def todict(self) -> dict[str, Any]:
        """What GPAW prints of it."""
        return {"targets": self.targets, "stiffness": self.stiffness * Ha}

    def update_non_local_hamiltonian(self, D_sii: Any, setup: Any, atom_index: int, dH_sii: Any) -> float:
        """Add the derivative of the penalty of one atom to its Hamiltonian, and return the penalty."""
        if atom_index not in self.targets:
            return 0.0
        overlap = unpack_hermitian(setup.N0_p)  # of partial waves within the sphere
        moment = float(np.vdot(overlap, (D_sii[0] - D_sii[1]).real))
        off = moment - self.targets[atom_index]
        dH_sii[0] += self.stiffness * off * overlap
        dH_sii[1] -= self.stiffness * off * overlap
        return 0.5 * self.stiffness * off**2


def compute(job: dict[str, Any]) -> dict[str, Any]:
    """Energy, derivatives and moments, in eV, Å and μB.

    Args:
        job: As `mmace_sim.data.label.engines.gpaw` writes it.
    """
    atoms = Atoms(job["symbols"], job["positions"], cell=job["cell"], pbc=True)
    targets = {int(atom): target for atom, target in job["targets"].items()}
    atoms.set_initial_magnetic_moments(job["moments"])
    further: dict[str, Any] = {"mixer": job["mixer"]} if job["mixer"] else {}
    if targets:
        further["extensions"] = [HeldMoments(targets, job["stiffness"])]
    if not job["symmetry"]:
        further["symmetry"] = {"point_group": False}
    parameters = {
        "mode": PW(job["cutoff"]),
        "xc": "PBE",
        "kpts": {"size": job["k_points"], "gamma": True},
        "spinpol": job["spinpol"],
        "occupations": {"name": "methfessel-paxton", "order": 0, "width": job["smearing"]},
        "convergence": {"energy": 1e-5, "density": 1e-5},
        # a fifth faster than the default, same energies to 1e-6 eV
        "eigensolver": {"name": "davidson", "niter": 2},
        "maxiter": job["max_steps"],
        "txt": "gpaw.txt",
    }
    atoms.calc = GPAW(**(parameters | further | job["extra"]))
    total = atoms.get_potential_energy(force_consistent=True)
    forces, stress = atoms.get_forces(), atoms.get_stress(voigt=False)
    moments = atoms.get_magnetic_moments() if job["spinpol"] else np.zeros(len(atoms))
    off = np.zeros(len(atoms))
    for atom, target in targets.items():
        off[atom] = moments[atom] - target
    return {
        "energy": total - 0.5 * job["stiffness"] * float(off @ off),
        "forces": forces.tolist(),
        "stress": stress.tolist(),
        "moments": np.asarray(moments).tolist(),
        "fields": (job["stiffness"] * off).tolist(),
        "total_moment": float(atoms.get_magnetic_moment()) if job["spinpol"] else 0.0,
        "scf_steps": int(atoms.calc.get_number_of_iterations()),
    }


def versions() -> dict[str, str]:
    """Of GPAW and its PAW sets."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        sets = f"gpaw-data {version('gpaw-data')}"
    except PackageNotFoundError:
        sets = "PAW sets of GPAW_SETUP_PATH"
    return {"gpaw": __version__, "sets": sets}


def main() -> None:
    """Compute the job of the working folder."""
    started, job = time.monotonic(), json.loads(Path("job.json").read_text())
    try:
        result = compute(job)
    except KohnShamConvergenceError as error:
        result = {"not_converged": str(error).strip() or "the electrons did not converge"}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result |= versions() | {
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "wall_s": time.monotonic() - started,
    }
    temporary = Path("result.json.part")
    temporary.write_text(json.dumps(result))
    temporary.replace("result.json")


if __name__ == "__main__":
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(json.dumps(versions()))
    else:
        main()
