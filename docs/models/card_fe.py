"""Tables of docs/models/mmace-fe-pbe.md from its JSON file; refresh.py writes them."""

import json
from pathlib import Path

import numpy as np
from iron_page import STATES, frequency
from page_tables import about, errors, filled, number, sigmas, table

HERE = Path(__file__).parent
NAME = "mmace-fe-pbe"
PAGE = HERE / f"{NAME}.md"
SIDES = ("dft", "model")


def at_minimum(state: dict, side: str) -> dict[str, float]:
    """Volume, bulk modulus, energy and moment at the minimum of a curve."""
    order = np.argsort(state["volumes"])
    found = state[side]
    moments = np.array(found["moments"])[order]
    return found | {"moment": float(np.interp(found["volume"], np.array(state["volumes"])[order], moments))}


def states(report: dict) -> str:
    """Magnetic states of ideal cells, by the same fit through the same volumes."""
    zero = {side: report["states"]["bcc_fm"][side]["energy"] for side in SIDES}
    rows = []
    for key, state in report["states"].items():
        both = {side: at_minimum(state, side) for side in SIDES}
        rows.append([STATES[key]])
        rows[-1] += [number(1000 * (both[side]["energy"] - zero[side])) for side in SIDES]
        for what, digits in (("volume", 2), ("bulk_modulus", 0), ("moment", 2)):
            rows[-1] += [number(both[side][what], digits) for side in SIDES]
    head = ["ideal cells", "above bcc FM (meV/atom), DFT", "model"]
    return table(
        [*head, "V (Å³/atom), DFT", "model", "B (GPa), DFT", "model", "m (μB), DFT", "model"],
        rows,
    )


def cells(report: dict) -> str:
    """The vacancy and the displaced atom."""
    forces = [number(frequency(report["restoring_force"][side]), 2) for side in SIDES]
    energies = [number(report["vacancy"][side], 2) for side in SIDES]
    moved = number(report["displacement"], 2)
    rows = [
        [f"phonon at H (THz), from the force on an atom displaced by {moved} Å", *forces],
        ["vacancy (eV), in the only cell of the data that has one (7 atoms)", *energies],
    ]
    return table(["cells of the data", "DFT", "model"], rows)


def tables(report: dict) -> str:
    """Everything between the marks."""
    return "\n".join(
        [
            about(report),
            errors(report["test_errors"]),
            "The same cells by DFT and by the model, moments relaxed; most of these calculations it was trained on. "
            "Curves by the same fit through the same volumes (three volumes: B is rough):\n",
            states(report),
            cells(report),
            sigmas(report["calibration"]),
        ]
    )


def anew(text: str) -> str:
    """The card with its tables anew."""
    report = json.loads((HERE / f"{NAME}.json").read_text(encoding="utf-8"))
    return filled(text, "card_fe.py", tables(report))
