"""T_C of bcc iron from the energy of the embedded model of iron: runs of `mmace-sim curie` to docs/benchmarks/curie_iron.json.

iron.extxyz is the cube of two atoms, a = 2.83 Å, both with 2.249 μB along z. About 45 minutes on a quiet core:

    run="mmace-sim curie iron.extxyz -m mmace-fe-pbe --method direct --dtype float32 --n-steps 6 --seed 1 --threads 1"
    $run -o fixed --sizes 3,4 --temperatures 1000:1500:100 --sweeps 500 --equilibration 80
    $run -o variable --sizes 3 --lengths variable --temperatures 1000,1200,1400 --sweeps 240 --equilibration 60
    $run -o moving --sizes 3 --lattice moving --temperatures 1000,1200,1400 --sweeps 240 --equilibration 60
    python tests/benchmarks/curie_iron.py fixed variable moving

A run that was killed goes on with --resume.
"""

import json
import sys
from pathlib import Path

FILE = Path(__file__).parents[2] / "docs" / "benchmarks" / "curie_iron.json"
MEASURED = 1043.0


def main(folders: list[str]) -> None:
    """Add finished runs to the file, and print what they found.

    Args:
        folders: Run folders; their names are the keys.
    """
    record = json.loads(FILE.read_text(encoding="utf-8"))
    for folder in map(Path, folders):
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        (entry,) = summary["structures"]
        settings = {key: value for key, value in summary["config"].items() if key not in ("paths", "output")}
        head = {key: summary[key] for key in ("versions", "units")}
        record[f"direct_{folder.name}"] = head | {"settings": settings} | entry
        print(f"{folder.name}: {entry['status']}, {entry['message']}")  # noqa: T201 a script
        for point in entry["points"]:
            row = [
                point[key]
                for key in ("n_spins", "temperature", "order", "order_error", "binder", "binder_error")
            ]
            print("  {:4d} spins {:6.0f} K  order {:.3f} ± {:.3f}  U {:.3f} ± {:.3f}".format(*row), end="")  # noqa: T201
            print(f"  χ {point['susceptibility']:.2f}  τ {point['autocorrelation']:.1f}")  # noqa: T201
        for name in ("binder_crossings", "susceptibility_peaks"):
            print(f"  {name}: {entry[name]}; measured {MEASURED:.0f} K")  # noqa: T201
    FILE.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
