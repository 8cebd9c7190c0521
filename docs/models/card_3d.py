"""Write the tables of docs/models/mmace-3d-pbe.md from its JSON files: python docs/models/card_3d.py."""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
NAME = "mmace-3d-pbe"
BEGIN, END = "<!-- tables of card_3d.py -->", "<!-- end of the tables -->"
STATES = {"fm": "FM", "afm": "AFM", "nm": "NM"}
IRON_MODELS = (NAME, "mmace-fe-pbe")
"""Side by side in docs/models/iron.json."""
IRON = {
    "lattice_constant": ("lattice constant (Å)", "{:.3f}", "2.83"),
    "moment": ("moment (μB; in another sphere each)", "{:.2f}", "2.20"),
    "bulk_modulus": ("bulk modulus (C11 + 2 C12)/3 (GPa)", "{:.0f}", "175–195"),
    "C11": ("C11 (GPa)", "{:.0f}", "265–290"),
    "C12": ("C12 (GPa)", "{:.0f}", "140–155"),
    "C44": ("C44 (GPa)", "{:.0f}", "95–105"),
    "N": ("phonons at N (THz)", "", "4.5, 6.5, 9 (experiment)"),
    "P": ("phonon at P (THz)", "", "7.2 (experiment)"),
    "H": ("phonon at H (THz)", "", "8.4–8.6"),
    "bcc_afm": ("bcc AFM above bcc FM (meV/atom)", "{:.0f}", "440"),
    "bcc_nm": ("bcc NM", "{:.0f}", "470 at fixed volume"),
    "fcc_afm": ("fcc AFM, tetragonal", "{:.0f}", "100"),
    "fcc_afmd": ("fcc AFMD, tetragonal", "{:.0f}", "80"),
    "fcc_nm": ("fcc NM", "{:.0f}", ""),
    "hcp_nm": ("hcp NM", "{:.0f}", ""),
    "vacancy": ("vacancy, 15 atoms, relaxed in a fixed cell (eV)", "{:.2f}", "2.1–2.2"),
    "J1": ("exchange J′ of the nearest neighbours (meV)", "{:.1f}", "36.4"),
    "J2": ("exchange J′ of the next", "{:.1f}", ""),
}
"""Heading, format, and the value of the literature (PBE unless said), by quantity."""
MODULI = {"yz": "C44", "xy": "C66", "ortho": "(C11 − C12)/2", "tet": "C′"}


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def errors(report: dict) -> str:
    """Errors on the test set."""
    labels = ("energy", "forces", "stress", "magforces")
    rows = [
        [name, str(found["count"]), *(f"{found[label]:.1f}" if label in found else "" for label in labels)]
        for name, found in report["test_errors"].items()
    ]
    return table(["test set", "structures", "meV/atom", "meV/Å", "meV/Å³", "meV/μB"], rows)


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


def shears(report: dict) -> str:
    """Shear moduli."""
    rows = []
    for name, both in report["shear_moduli"].items():
        phase, tag = name.rsplit("_", 1)
        rows.append(
            [f"{phase.replace('_', ' ')}, {MODULI[tag]}", f"{both['dft']:.0f}", f"{both['model']:.0f}"]
        )
    return table(["shear modulus (GPa), atoms clamped", "DFT", "model"], rows)


def stiffness(report: dict) -> str:
    """Restoring forces of displaced atoms."""
    rows = [
        [name.replace("_", " "), f"{both['dft']:.2f}", f"{both['model']:.2f}"]
        for name, both in report["restoring_forces"].items()
    ]
    return table(["restoring force (eV/Å²)", "DFT", "model"], rows)


def learning() -> str:
    """Errors against the number of calculations."""
    columns = {
        "meV/atom": ("all but torn crystals", "energy"),
        "Fe, Co, Ni, Al alone": ("of these, Fe, Co, Ni, Al alone", "energy"),
        "metals with Mn, Cr or Pt": ("of these, metals with Mn, Cr or Pt", "energy"),
        "with N or O": ("of these, with N or O", "energy"),
        "meV/Å, rattled": ("rattled", "forces"),
        "meV/μB": ("all but torn crystals", "magforces"),
    }
    rows = [
        [str(row["train"]), *(f"{row['errors'][name][label]:.1f}" for name, label in columns.values())]
        for row in json.loads((HERE / f"{NAME}-learning.json").read_text(encoding="utf-8"))
    ]
    return table(["trained on", *columns], rows)


def iron_cell(value: float | list[float], form: str) -> str:
    """One value of the table, or several."""
    text = ", ".join(f"{x:.1f}" for x in value) if isinstance(value, list) else form.format(value)
    return text.replace("-", "−")


def iron() -> str:
    """Iron by both embedded models."""
    report = json.loads((HERE / "iron.json").read_text(encoding="utf-8"))
    rows = [
        [heading, *(iron_cell(report[name][key], form) for name in IRON_MODELS), literature]
        for key, (heading, form, literature) in IRON.items()
    ]
    return table(["bcc iron, ferromagnetic, at rest", *(f"`{name}`" for name in IRON_MODELS), "PBE"], rows)


def tables(report: dict) -> str:
    """Everything between the marks of the card."""
    order = report["order"]
    parts = [
        errors(report),
        "Trained on parts of the training set, errors on the same test set without torn crystals:\n",
        learning(),
        crystals(report),
        f"Of {order['pairs']} pairs of magnetic states of one cell that differ by more than {1000 * order['gap']:.0f} "
        f"meV/atom, {order['right']} have the right order.\n",
        formation(report),
    ]
    parts += [
        part(report)
        for part, key in ((shears, "shear_moduli"), (stiffness, "restoring_forces"))
        if report[key]
    ]
    return "\n".join([*parts, iron()])


def card(text: str, report: dict) -> str:
    """The card with its tables anew."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables(report)}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    path = HERE / f"{NAME}.md"
    measured = json.loads((HERE / f"{NAME}.json").read_text(encoding="utf-8"))
    path.write_text(card(path.read_text(encoding="utf-8"), measured), encoding="utf-8")
