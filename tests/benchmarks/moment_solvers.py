"""Evaluations that L-BFGS and FIRE take to the minimum of the moments: triangular lattices, bcc and fcc iron.

    python tests/benchmarks/moment_solvers.py

writes docs/benchmarks/moment_solvers.json, the table of docs/moments.md.
"""

from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from record import MODEL, write

import mmace_sim
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.properties.moments import minimize_moments
from mmace_sim.testing import HeisenbergModel

J, D = 0.02, 2.5
"""|J'| in eV and the distance of neighbours in Å: E = +J Σ_pairs s·s is an antiferromagnet."""


def with_moments(atoms: Atoms, length: float) -> Atoms:
    """The atoms with moments along z."""
    atoms.arrays.pop("initial_magmoms", None)
    set_magmoms(atoms, np.full(len(atoms), length))
    return atoms


def triangular(n: int, length: float) -> Atoms:
    """n × n atoms of a triangular lattice."""
    cell = [[D, 0, 0], [-D / 2, D * np.sqrt(3) / 2, 0], [0, 0, 10.0]]
    return with_moments(Atoms("Fe", [[0, 0, 0]], cell=cell, pbc=True).repeat((n, n, 1)), length)


def row(name: str, atoms: Atoms, model: Any, tolerance: float, starts: int, **options: Any) -> dict[str, Any]:
    """Mean evaluations of both solvers, and how far the worst start ends above the best, in meV/atom."""
    found: dict[str, Any] = {"name": name, "starts": starts, "magforce_tol": tolerance}
    for solver in ("lbfgs", "fire"):
        (result,) = minimize_moments(
            atoms.copy(), model, starts=starts, solver=solver, magforce_tol=tolerance, max_steps=3000,
            stability=False, **options,
        )  # fmt: skip
        energies = np.array([start.energy for start in result.starts]) / len(atoms)
        found[solver] = round(float(np.mean([start.steps for start in result.starts])))
        found[f"{solver}_converged"] = result.n_converged
        found[f"{solver}_spread_mev"] = round(1e3 * float(np.ptp(energies)), 4)
    return found


def main() -> None:
    """Run all and write the file."""
    torch.set_num_threads(1)
    unit = HeisenbergModel(exchange=-J, energy_per_atom=0.0)
    soft = HeisenbergModel(exchange=-J, landau=(-0.4, 0.05), morse=(0.0, 1.4, D), energy_per_atom=0.0)
    rows = []
    for tolerance in (1e-3, 1e-6):
        rows += [
            row(
                "triangular lattice, 9 unit spins",
                triangular(3, 1.0),
                unit,
                tolerance,
                256,
                fix_magnitude=True,
            ),
            row(
                "triangular lattice, 36 unit spins",
                triangular(6, 1.0),
                unit,
                tolerance,
                256,
                fix_magnitude=True,
            ),
            row("triangular lattice, 36 spins, lengths relax too", triangular(6, 2.0), soft, tolerance, 256),
        ]
    model = mmace_sim.load_model(MODEL)
    bcc = with_moments(bulk("Fe", "bcc", 2.83, cubic=True), 2.2)
    fcc = with_moments(bulk("Fe", "fcc", 3.55, cubic=True), 2.0)
    rows += [row("bcc iron, 2 atoms", bcc, model, 1e-6, 12), row("fcc iron, 4 atoms", fcc, model, 1e-6, 12)]
    write("moment_solvers", {"rows": rows})


if __name__ == "__main__":
    main()
