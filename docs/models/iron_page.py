"""Tables of docs/iron.md from the JSON files beside this one; refresh.py writes them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from ase.units import _amu, _e
from page_tables import filled, number, table

HERE = Path(__file__).parent
PAGE = HERE.parent / "iron.md"
MODELS = {"mmace-3d-pbe": "GPAW", "mmace-fe-pbe": "ABINIT"}
"""The code that made the data of each model."""
OFF = 0.15
"""Values are bold that lie farther than this part outside of what literature and experiment say."""
SMALL = 0.05
"""Moments below this, in μB, are none."""
STATES = {
    "bcc_fm": "bcc FM",
    "bcc_afm": "bcc AFM",
    "bcc_nm": "bcc NM",
    "fcc_afmd": "fcc AFMD",
    "fcc_afm": "fcc AFM",
    "fcc_111": "fcc, layers + − along [111]",
    "fcc_fm": "fcc FM, high spin",
    "fcc_nm": "fcc NM",
    "hcp_fm": "hcp FM",
    "hcp_afm": "hcp AFM",
    "hcp_nm": "hcp NM",
}
LITERATURE = {"bcc_afm": (440, 440), "fcc_afmd": (60, 100), "fcc_afm": (80, 120), "fcc_fm": (135, 175)}
"""Energies above bcc FM by PBE in ideal cells at rest, in meV/atom."""
LAYERS = 130
"""Of layers along [111] by ABINIT, in one cell, in meV/atom; no data set holds it."""
DEMAGNETISED = 470
"""Of bcc NM at the volume of FM by PBE, in meV/atom."""
EXCHANGE = (36.4, 20.6, -1.6, -2.4)
"""J' of the first neighbours in meV: PRL 95, 087207 (2005), as in the examples of UppASD."""
STIFFNESS, CURIE = (250, 310), 1043
"""In meV Å² and K, measured."""


@dataclass
class Row:
    """One quantity of ferromagnetic bcc iron: how to find it, how to write it, and what others say of it."""

    heading: str
    find: Callable[[dict], Any]
    digits: int
    literature: str = ""
    experiment: str = ""
    bounds: tuple[tuple[float, float], ...] = ()
    page: str = ""
    dft: str = ""


def of_elastic(key: str) -> Callable[[dict], Any]:
    """An elastic constant with relaxed moments, and with fixed ones."""
    return lambda model: [model["elastic"][how][key] for how in ("relaxed", "fixed")]


def of_shear(model: dict) -> list[float]:
    """C′, which moments leave alone."""
    return [(model["elastic"]["relaxed"]["C11"] - model["elastic"]["relaxed"]["C12"]) / 2]


ROWS = (
    Row("lattice constant (Å)", lambda m: [m["lattice_constant"]], 3, "2.83", "2.86",
        ((2.83, 2.86),), "[](quickstart.md)", "lattice_constant"),
    Row("moment (μB), in the sphere of the code", lambda m: [m["moment"]], 2, "2.20 (of the cell)", "2.22",
        ((2.20, 2.24),), "", "moment"),
    Row("B (GPa), moments relaxed; fixed", of_elastic("B"), 0, "175–195", "170", ((170, 195),), "[](eos.md)", "B"),
    Row("C11 (GPa), relaxed; fixed", of_elastic("C11"), 0, "265–290", "240", ((240, 290),), "[](elastic.md)"),
    Row("C12 (GPa), relaxed; fixed", of_elastic("C12"), 0, "140–155", "136", ((136, 155),)),
    Row("C′ = (C11 − C12)/2 (GPa)", of_shear, 0, "", "52", ((52, 75),), "", "C′"),
    Row("C44 (GPa)", lambda m: [m["elastic"]["relaxed"]["C44"]], 0, "95–105", "121", ((95, 121),), "", "C44"),
    Row("phonon at H (THz)", lambda m: m["phonons"]["H"], 1, "8.4–8.6", "", ((8.4, 8.6),), "[](phonons.md)", "H"),
    Row("phonons at N (THz)", lambda m: m["phonons"]["N"], 1, "", "4.5, 6.5, 9", ((4.5, 4.5), (6.5, 6.5), (9, 9))),
    Row("phonon at P (THz)", lambda m: m["phonons"]["P"], 1, "", "7.2", ((7.2, 7.2),)),
    Row("vacancy, 15 atoms at rest in a fixed cell (eV)", lambda m: [m["vacancy"]], 2, "2.1–2.2", "",
        ((2.1, 2.2),), "", "vacancy"),
)  # fmt: skip


def bold(text: str, value: float, low: float, high: float, margin: float | None = None) -> str:
    """The text, bold if the value is outside of the bounds by more than the margin, or else a part of the bound."""
    off = OFF * abs(low if value < low else high) if margin is None else margin
    return f"**{text}**" if max(low - value, value - high) > off else text


def values(row: Row, model: dict) -> str:
    """What a model says; only what literature has, too, can be bold: the first one of relaxed and fixed."""
    found = row.find(model)
    return ("; " if "fixed" in row.heading else ", ").join(
        bold(number(x, row.digits), x, *row.bounds[k]) if k < len(row.bounds) else number(x, row.digits)
        for k, x in enumerate(found)
    )


def frequency(restoring: float) -> float:
    """The phonon at H in THz from the force on one of the two atoms of a bcc cell per displacement, in eV/Å²."""
    mass = atomic_masses[atomic_numbers["Fe"]] * _amu
    return float(np.sqrt(2 * restoring * _e * 1e20 / mass) / (2e12 * np.pi))


def dft_of_gpaw(card: dict) -> dict[str, str]:
    """What the calculations of mmace-3d-pbe say of bcc iron."""
    fm = next(state for state in card["states"] if state["name"] == "eos_Fe_bcc_fm")
    least = fm["dft"]["minimum"]
    moments = np.mean(fm["dft"]["moments"], axis=1)
    return {
        "lattice_constant": number((2 * least["volume"]) ** (1 / 3), 3),
        "moment": number(np.interp(least["volume"], fm["volumes"], moments), 2),
        "B": number(least["bulk_modulus"]),
        "C′": number(card["shear_moduli"]["Fe_bcc_tet"]["dft"]),
        "C44": number(card["shear_moduli"]["Fe_bcc_yz"]["dft"]),
        "H": f"{number(frequency(card['restoring_forces']['Fe_bcc_uz']['dft']), 1)} at 0.1 Å",
    }


def dft_of_abinit(card: dict) -> dict[str, str]:
    """What the calculations of mmace-fe-pbe say of bcc iron."""
    fm = card["states"]["bcc_fm"]
    order = np.argsort(fm["volumes"])
    volumes, moments = np.array(fm["volumes"])[order], np.array(fm["dft"]["moments"])[order]
    return {
        "lattice_constant": number((2 * fm["dft"]["volume"]) ** (1 / 3), 3),
        "moment": number(np.interp(fm["dft"]["volume"], volumes, moments), 2),
        "B": number(fm["dft"]["bulk_modulus"]),
        "H": f"{number(frequency(card['restoring_force']['dft']), 1)} at {number(card['displacement'], 1)} Å",
        "vacancy": f"{number(card['vacancy']['dft'], 2)} (7 atoms)",
    }


def bcc(iron: dict, cards: dict) -> str:
    """Ferromagnetic bcc iron."""
    dft = {
        "mmace-3d-pbe": dft_of_gpaw(cards["mmace-3d-pbe"]),
        "mmace-fe-pbe": dft_of_abinit(cards["mmace-fe-pbe"]),
    }
    head = ["bcc Fe, ferromagnetic"]
    for name, code in MODELS.items():
        head += [f"`{name}`", code]
    rows = []
    for row in ROWS:
        both = [cell for name in MODELS for cell in (values(row, iron[name]), dft[name].get(row.dft, ""))]
        rows.append([row.heading, *both, row.literature, row.experiment, row.page])
    return table([*head, "PBE, literature", "experiment", "page"], rows)


def at_rest(name: str, state: dict) -> str:
    """Volume, moment, and how far a tetragonal cell is from fcc."""
    moment = number(state["moment"], 2) if state["moment"] > SMALL else "0"
    a, _, c = state["cell_lengths"]
    ratio = c / a / np.sqrt(2) / (2 if name == "fcc_afmd" else 1)
    tetragonal = f", c/a {number(ratio, 2)}" if name.startswith("fcc_a") and abs(ratio - 1) > 0.005 else ""
    return f"{number(state['volume'], 2)}, {moment}{tetragonal}"


def states(iron: dict) -> str:
    """Magnetic states at rest."""
    rows = []
    for key in iron["mmace-fe-pbe"]["states"]:
        both = [iron[name]["states"][key] for name in MODELS]
        bounds = LITERATURE.get(key)
        energies = [
            bold(number(s["energy"]), s["energy"], *bounds) if bounds else number(s["energy"]) for s in both
        ]
        low, high = bounds or (0, 0)
        said = f"{(low + high) // 2}" + (f" ± {(high - low) // 2}" if high > low else "") if bounds else ""
        if key == "fcc_111":
            said = f"{LAYERS} (ABINIT, one cell)"
            energies = [bold(number(s["energy"]), s["energy"], LAYERS, LAYERS) for s in both]
        rows.append([STATES[key], *energies, said, *(at_rest(key, s) for s in both)])
        if key == "bcc_nm":
            found = [iron[name]["bcc_nm_at_the_volume_of_fm"] for name in MODELS]
            cells = [bold(number(x), x, DEMAGNETISED, DEMAGNETISED) for x in found]
            rows.append(["bcc NM at the volume of FM", *cells, str(DEMAGNETISED), "", ""])
    models = [f"`{name}`" for name in MODELS]
    return table(
        [
            "at rest, above bcc FM (meV/atom)",
            *models,
            "PBE, literature",
            *(f"{m}: V (Å³), m (μB)" for m in models),
        ],
        rows,
    )


def ideal_cells(cards: dict) -> str:
    """Each model against the DFT of its own data, in the same cells: at the volume where that is lowest."""
    curves = {
        "mmace-3d-pbe": {
            state["name"].removeprefix("eos_Fe_"): state
            for state in cards["mmace-3d-pbe"]["states"]
            if state["name"].startswith("eos_Fe_")
        },
        "mmace-fe-pbe": cards["mmace-fe-pbe"]["states"],
    }
    rows = []
    for key, heading in STATES.items():
        cells = []
        for found in curves.values():
            curve, ground = found.get(key), found["bcc_fm"]
            if curve is None:
                cells += ["", "", ""]
                continue
            low, lowest = (int(np.argmin(one["dft"]["energies"])) for one in (curve, ground))
            above = [
                number(1000 * (curve[side]["energies"][low] - ground[side]["energies"][lowest]))
                for side in ("dft", "model")
            ]
            cells += [number(curve["volumes"][low], 2), *above]
        if key != "bcc_fm" and any(cells):
            rows.append([heading.removesuffix(", high spin"), *cells])
    head = ["ideal cells, above bcc FM (meV/atom)"]
    for name, code in MODELS.items():
        head += ["V (Å³)", code, f"`{name}`"]
    return table(head, rows)


def exchange(iron: dict) -> str:
    """Exchange of ferromagnetic bcc iron."""
    found = [iron[name]["exchange"] for name in MODELS]
    rows = [
        [f"J{k + 1}′ (meV)", *(bold(number(x["J"][k], 1), x["J"][k], said, said, OFF * EXCHANGE[0]) for x in found),
         number(said, 1)]
        for k, said in enumerate(EXCHANGE)
    ]  # fmt: skip
    for heading, key, bounds, said in (
        ("spin stiffness (meV Å²)", "stiffness", STIFFNESS, "{}–{} (measured)".format(*STIFFNESS)),
        ("mean-field T_C (K)", "mean_field_temperature", (CURIE, np.inf), f"above {CURIE}, the measured T_C"),
    ):
        rows.append([heading, *(bold(number(x[key]), x[key], *bounds) for x in found), said])
    return table(["bcc Fe, pairs within 6 Å", *(f"`{name}`" for name in MODELS), "reference"], rows)


def anew(text: str) -> str:
    """The page with its tables anew."""
    iron = json.loads((HERE / "iron.json").read_text(encoding="utf-8"))
    cards = {name: json.loads((HERE / f"{name}.json").read_text(encoding="utf-8")) for name in MODELS}
    for name, content in (
        ("bcc", bcc(iron, cards)),
        ("states", states(iron)),
        ("ideal cells", ideal_cells(cards)),
        ("exchange", exchange(iron)),
    ):
        text = filled(text, f"iron_page.py: {name}", content)
    return text
