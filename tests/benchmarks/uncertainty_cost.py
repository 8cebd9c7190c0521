"""What uncertainties cost: evaluations of an embedded model, and what uncertainties add to one, in turn, in CPU time.

::

    python tests/benchmarks/uncertainty_cost.py     # a minute; writes docs/benchmarks/uncertainty_cost.json
"""

import json
import time
from pathlib import Path

import numpy as np
import torch
from ase.build import bulk
from record import MODEL as NAME
from record import environment

from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.batch import MagneticGraph, graph_from_atoms
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.checkpoint import load_model
from mmace_sim.model.derivatives import evaluate
from mmace_sim.model.uncertainty import evaluate_with_uncertainty

OUTPUT = Path(__file__).parents[2] / "docs" / "benchmarks" / "uncertainty_cost.json"
REPEATS = {2: (2, 2, 2), 4: (4, 2, 2), 8: (4, 4, 2), 16: (4, 4, 4)}
N_TRIES = 21


def iron(repeats: tuple[int, int, int]) -> MagneticGraph:
    """Rattled bcc iron."""
    atoms = bulk("Fe", a=2.84, cubic=True).repeat(repeats)
    del atoms.arrays["initial_magmoms"]
    rng = np.random.default_rng(0)
    atoms.positions += 0.03 * rng.normal(size=atoms.positions.shape)
    set_magmoms(atoms, [0.0, 0.0, 2.2] + 0.1 * rng.normal(size=atoms.positions.shape))
    return graph_from_atoms(atoms, MODEL.r_max, device=MODEL.device, dtype=MODEL.dtype)


def seconds(graph: MagneticGraph) -> dict[str, float]:
    """Median CPU time of an evaluation, and of the uncertainties of what it gave."""
    times: dict[str, list[float]] = {"evaluation": [], "added": []}
    for _ in range(N_TRIES):
        output, start = None, time.process_time()
        for name in times:
            output = (
                evaluate(MODEL, graph) if output is None else evaluate_with_uncertainty(MODEL, graph, output)
            )
            times[name].append(time.process_time() - start)
            start = time.process_time()
    return {name: float(np.median(values[1:])) for name, values in times.items()}


def main() -> None:
    """Measure, and write the numbers."""
    torch.set_num_threads(1)
    rows = []
    for repeats in REPEATS.values():
        graph = iron(repeats)
        found = seconds(graph)
        share = found["added"] / found["evaluation"]
        rows.append(
            {
                "n_atoms": len(graph.positions),
                **{k: round(v, 5) for k, v in found.items()},
                "share": round(share, 3),
            }
        )
        print(rows[-1])  # noqa: T201
    told = {"unit": "s of CPU time, one thread, medians", "model": NAME, "tries": N_TRIES, "rows": rows}
    OUTPUT.write_text(json.dumps(told | {"environment": environment()}, indent=1, ensure_ascii=False) + "\n")


MODEL: MagneticModel = load_model(NAME)

if __name__ == "__main__":
    main()
