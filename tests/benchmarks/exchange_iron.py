"""Exchange of bcc iron with an embedded model by every route: the numbers of docs/exchange.md.

python tests/benchmarks/exchange_iron.py        # some minutes on one core; writes docs/benchmarks/exchange_iron.json
"""

import json
import time
from pathlib import Path

from ase.build import bulk
from record import MODEL

import mmace_sim
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.properties.exchange import CONVENTION, Exchange

CUTOFF = 6.0
RUNS = (
    ("rigid", 10.0, ("derivatives", "four-state", "spirals")),
    ("rigid", 90.0, ("four-state", "spirals")),
    ("relaxed", 10.0, ("derivatives", "four-state", "spirals")),
    ("relaxed", 90.0, ("four-state", "spirals")),
)
"""Lengths, tilt in degrees, and routes."""


def main() -> None:
    """Compute and write the table."""
    model = mmace_sim.load_model(MODEL)
    iron = bulk("Fe", cubic=True, a=2.83)
    set_magmoms(iron, [2.2, 2.2])
    columns, facts = {}, {}
    for lengths, angle, routes in RUNS:
        start = time.process_time()
        (result,) = Exchange(model, cutoff=CUTOFF, angle=angle, routes=routes, lengths=lengths).run([iron])
        shells = result.pairs.representatives()
        for route in routes:
            name = f"{route}, {lengths}" + ("" if route == "derivatives" else f", {angle:.0f}°")
            columns[name] = [round(1000 * float(x), 3) for x in result.isotropic(route)[shells]]
            columns[name].append(round(1000 * float(result.isotropic(route).sum()), 2))
        facts[f"{lengths}, {angle:.0f}°"] = {
            "seconds": round(time.process_time() - start, 1), "status": str(result.status), "message": result.message,
            "moment": float(result.lattice.lengths[0]), "stiffness": 1000 * float(result.stiffness),
            "mean_field_temperature": float(result.temperature), "route": result.route,
        }  # fmt: skip
    content = {
        "convention": CONVENTION,
        "units": "meV, μB, meV Å², K; last entry of each column: sum over all neighbours within the cutoff",
        "distances": [round(float(d), 4) for d in result.pairs.distances[shells]],
        "neighbours": [int((result.pairs.orbits == k).sum()) for k in range(result.pairs.n_orbits)],
        "columns": columns,
        "runs": facts,
    }
    path = Path(__file__).parents[2] / "docs" / "benchmarks" / "exchange_iron.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
