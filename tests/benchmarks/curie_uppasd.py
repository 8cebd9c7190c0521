"""Spin models of UppASD with known T_C and M(T): runs of `mmace-sim curie` to docs/benchmarks/curie_uppasd.json.

The folders hold, beside UppASD's inputs, `thermal.csv` and `intrinsic_properties.yaml` (T_C from the heat capacity) of
the public data set MaMMoS-project/uppsala-data (CC-BY-4.0). About an hour on one core:

    run="mmace-sim curie --from uppasd --over-relaxation 1 --threads 1"
    $run Co2Fe2H4 -o co --sizes 3,4,6 --sweeps 1500 --temperatures 300,600,800,900,950,1000,1030,1060,1090,1120,1150,1200
    $run Fe3Y -o fe3y --sizes 2,3 --sweeps 600 --temperatures 150,290,350,410,450,470,480,490,500,510,530,560
    python tests/benchmarks/curie_uppasd.py co fe3y
"""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import yaml
from record import write

from mmace_sim.io.uppasd import read_uppasd

_MU_B = 9.2740100783e-24  # J/T
COLUMNS = ("T", "Ms", "E", "U_Binder")


def known(folder: Path) -> dict:
    """What UppASD found: T_C, and magnetisation against temperature relative to that of aligned moments.

    Args:
        folder: Folder of the data set.
    """
    rows = list(csv.reader((folder / "thermal.csv").read_text(encoding="utf-8").splitlines()))
    start = next(k for k, row in enumerate(rows) if row[0] == "T")
    columns = {name: rows[start].index(name) for name in COLUMNS}
    table = {name: [float(row[k]) for row in rows[start + 1 :]] for name, k in columns.items()}
    data = yaml.safe_load((folder / "intrinsic_properties.yaml").read_text(encoding="utf-8"))["data"]
    file = read_uppasd(folder)
    volume = abs(np.linalg.det(file.cell)) * 1e-30
    saturated = np.linalg.norm(file.moments.sum(axis=0)) * _MU_B / volume
    t, u = np.array(table["T"]), np.array(table["U_Binder"])
    # with one size only, the cumulant of the universal crossing says where the transition is
    k = int(np.flatnonzero((u[:-1] >= 0.62) & (u[1:] < 0.62) & (t[:-1] > 100))[-1])
    return {
        "curie_temperature": data["Tc"]["value"],
        "between": [float(t[k]), float(t[k + 1])],
        "temperature": table["T"],
        "moment": float(np.linalg.norm(file.moments.mean(axis=0))),
        "magnetization": (np.array(table["Ms"]) * 1e3 / saturated).tolist(),
        "energy_per_cell_at_zero": table["E"][0]
        - table["T"][0] * (table["E"][1] - table["E"][0]) / (t[1] - t[0]),
    }


def main(folders: list[str]) -> None:
    """Compare finished runs with UppASD, write the file, and print.

    Args:
        folders: Run folders.
    """
    results = {}
    for folder in map(Path, folders):
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        for entry in summary["structures"]:
            theirs = known(Path(entry["file"]))
            points = [p for p in entry["points"] if p["n_spins"] == entry["n_spins"][-1]]
            top = theirs["moment"]
            rows = [
                {
                    "temperature": p["temperature"],
                    "magnetization": p["magnetization"] / top,
                    "error": p["magnetization_error"] / top,
                    "uppasd": float(
                        np.interp(p["temperature"], theirs["temperature"], theirs["magnetization"])
                    ),
                }
                for p in points
            ]
            keys = (
                "status", "message", "n_spins", "n_sweeps", "curie_temperature", "curie_temperature_error", "estimator",
                "binder_crossings", "susceptibility_peaks", "power_law", "exponent", "mean_field_temperature",
            )  # fmt: skip
            head = {key: theirs[key] for key in ("curie_temperature", "between")}
            results[entry["name"]] = {"uppasd": head, "points": rows} | {key: entry[key] for key in keys}
            print(entry["name"], head, entry["curie_temperature"], entry["curie_temperature_error"])  # noqa: T201
            style = "  {temperature:6.0f} K  M/M0 {magnetization:.4f} ± {error:.4f}, UppASD {uppasd:.4f}"
            for row in rows:
                print(style.format(**row))  # noqa: T201
    write("curie_uppasd", {"structures": results})


if __name__ == "__main__":
    main(sys.argv[1:])
