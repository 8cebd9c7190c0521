"""Tables of docs/models/mmace-3d-pbe.md from its JSON files; refresh.py writes them."""

import json
from pathlib import Path

import numpy as np
from page_tables import LABELS, about, errors, filled, number, sigmas, table

HERE = Path(__file__).parent
NAME = "mmace-3d-pbe"
PAGE = HERE / f"{NAME}.md"
STATES = {"fm": "FM", "afm": "AFM", "nm": "NM"}
AIMS = {
    "energy": (
        "of these, Fe, Co, Ni, Al alone",
        "of these, metals with Mn, Cr or Pt",
        "of these, with N or O",
    ),
    "forces": ("rattled",),
}
"""Groups of the test set that aims were set for."""
AIM = {"energy": 25, "forces": 80}
FORMATION, SHEAR = 60, 20
"""Differences from the DFT that are named: of formation energies (meV/atom) and of shear moduli (GPa)."""
MEASURED_TC = {"Fe bcc": "1043", "Co hcp": "– (fcc above 700 K)", "Co fcc": "1388", "Ni fcc": "627"}
"""Of the ferromagnetic elements, in K."""
MODULI = {"yz": "C44", "xy": "C66", "ortho": "(C11 − C12)/2", "tet": "C′"}


def moments(side: dict, nearest: int) -> str:
    """Moments of a cell, each kind once."""
    values = side["moments"][nearest]
    return ", ".join(dict.fromkeys(f"{m:.2f}".replace("-", "−") for m in np.add(values, 0.0)))


def same_state(state: dict) -> bool:
    """Whether moments of the model are those of the DFT at every volume, to half a μB."""
    return bool(
        all(
            np.abs(np.subtract(ours, theirs)).max() < 0.5
            for ours, theirs in zip(state["model"]["moments"], state["dft"]["moments"], strict=True)
        )
    )


def crystals(report: dict) -> str:
    """Elements and compounds: cube root of the volume of an atom, bulk modulus and moments."""
    rows = []
    for state in report["states"]:
        dft, model = state["dft"]["minimum"], state["model"]["minimum"]
        if dft is None or model is None:  # no minimum between the volumes
            continue
        nearest = int(np.argmin(np.abs(np.subtract(state["volumes"], dft["volume"]))))
        *phase, order = state["name"].removeprefix("eos_").split("_")
        same = same_state(state)
        rows.append(
            [
                " ".join(phase) + f" {STATES[order]}",
                f"{dft['volume']:.2f}",
                f"{model['volume']:.2f}" if same else "another state",
                f"{100 * ((model['volume'] / dft['volume']) ** (1 / 3) - 1):+.2f}".replace("-", "−")
                if same
                else "",
                f"{dft['bulk_modulus']:.0f}",
                f"{model['bulk_modulus']:.0f}" if same else "",
                moments(state["dft"], nearest),
                moments(state["model"], nearest),
            ]
        )
    head = [
        "state",
        "V, DFT (Å³)",
        "V, model",
        "lengths, %",
        "B, DFT (GPa)",
        "B, model",
        "m, DFT (μB)",
        "m, model",
    ]
    return table(head, rows)


def formation(report: dict) -> str:
    """Formation energies."""
    rows = [
        [
            phase.replace("_", " "),
            *(f"{1000 * both[side]:.0f}".replace("-", "−") for side in ("dft", "model")),
        ]
        for phase, both in report["formation_energies"].items()
    ]
    return table(["formation energy, lowest cell computed (meV/atom)", "DFT", "model"], rows)


def modulus(name: str) -> str:
    """Name of a shear modulus of a phase."""
    phase, tag = name.rsplit("_", 1)
    return f"{phase.replace('_', ' ')}, {MODULI[tag]}"


def shears(report: dict) -> str:
    """Shear moduli."""
    rows = [
        [modulus(name), number(both["dft"]), number(both["model"])]
        for name, both in report["shear_moduli"].items()
    ]
    return table(["shear modulus (GPa), atoms clamped", "DFT", "model"], rows)


def stiffness(report: dict) -> str:
    """Restoring forces of displaced atoms."""
    rows = [
        [name.replace("_", " "), f"{both['dft']:.2f}", f"{both['model']:.2f}"]
        for name, both in report["restoring_forces"].items()
    ]
    return table(["restoring force (eV/Å²)", "DFT", "model"], rows)


def magnets(report: dict) -> str:
    """Exchange of the ferromagnetic elements."""
    rows = [
        [
            name,
            number(of["J1"], 1),
            number(of["stiffness"]),
            number(of["mean_field_temperature"]),
            MEASURED_TC[name],
        ]
        for name, of in report["magnets"].items()
    ]
    head = [
        "ferromagnet, by the model",
        "J1′ (meV)",
        "spin stiffness (meV Å²)",
        "mean-field T_C (K)",
        "T_C, measured (K)",
    ]
    return table(head, rows)


def learning(report: dict) -> str:
    """Errors against the number of calculations, all on one test set; the model's own where it is the same."""
    columns = {
        "meV/atom": ("all but torn crystals", "energy"),
        "Fe, Co, Ni, Al alone": ("of these, Fe, Co, Ni, Al alone", "energy"),
        "metals with Mn, Cr or Pt": ("of these, metals with Mn, Cr or Pt", "energy"),
        "with N or O": ("of these, with N or O", "energy"),
        "meV/Å, rattled": ("rattled", "forces"),
        "meV/μB": ("all but torn crystals", "magforces"),
    }
    measured = json.loads((HERE / f"{NAME}-learning.json").read_text(encoding="utf-8"))
    n_tested = measured[0]["errors"]["all"]["count"]
    if n_tested == report["test_errors"]["all"]["count"]:
        whole = {"train": report["sets"]["train"], "errors": report["test_errors"]}
        measured = [*(part for part in measured if part["train"] < whole["train"]), whole]
    rows = [
        [str(row["train"]), *(number(row["errors"][name][label], 1) for name, label in columns.values())]
        for row in measured
    ]
    said = f"Trained on parts of the data, errors on {n_tested} test structures, without torn crystals:\n\n"
    return said + table(["trained on", *columns], rows)


def off(report: dict) -> str:
    """Where the model is farther from its DFT than was aimed at, or than others are."""
    lines = []
    for label, groups in AIMS.items():
        for group in groups:
            error = report["test_errors"][group][label]
            if error > AIM[label]:
                name = group.removeprefix("of these, ")
                said = f"{number(error)} {LABELS[label]} ({AIM[label]} was the aim)"
                lines.append(f"errors on the test set, {name}: {said}")
    if report["worst"]:
        named = ", ".join(f"{name} {number(error)}" for name, error in report["worst"].items())
        lines.append(f"energies of the test set (meV/atom): {named}")
    formed = {
        phase.replace("_", " "): 1000 * (both["model"] - both["dft"])
        for phase, both in report["formation_energies"].items()
    }
    for heading, differences, least in (
        ("formation energies (meV/atom)", formed, FORMATION),
        ("shear moduli (GPa)", shear_differences(report), SHEAR),
    ):
        named = ", ".join(f"{name} {signed(x)}" for name, x in differences.items() if abs(x) > least)
        if named:
            lines.append(f"{heading}, model minus DFT: {named}")
    return "Farthest from the DFT:\n\n" + "\n".join(f"- {line}" for line in lines) + "\n"


def signed(value: float) -> str:
    """A difference with its sign."""
    return number(value) if value < 0 else f"+{number(value)}"


def shear_differences(report: dict) -> dict[str, float]:
    """Model minus DFT."""
    return {modulus(name): both["model"] - both["dft"] for name, both in report["shear_moduli"].items()}


def tables(report: dict) -> str:
    """Everything between the marks of the card."""
    order = report["order"]
    parts = [
        about(report),
        errors(report["test_errors"]),
        learning(report),
        crystals(report),
        f"Of {order['pairs']} pairs of magnetic states of one cell that differ by more than {1000 * order['gap']:.0f} "
        f"meV/atom, {order['right']} have the right order.\n",
        formation(report),
    ]
    parts += [
        part(report)
        for part, key in ((shears, "shear_moduli"), (stiffness, "restoring_forces"), (magnets, "magnets"))
        if report.get(key)
    ]
    return "\n".join([*parts, off(report), sigmas(report["calibration"])])


def anew(text: str) -> str:
    """The card with its tables anew."""
    report = json.loads((HERE / f"{NAME}.json").read_text(encoding="utf-8"))
    return filled(text, "card_3d.py", tables(report))
