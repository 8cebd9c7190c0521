"""The figure of the README: energy and moment of iron's magnetic states, default model against the DFT of its data.

`python docs/readme_figure.py` computes the lines (125 structures in one batch) and takes the points from
docs/models/mmace-3d-pbe.json.
"""

import json
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk

import mmace_sim
from mmace_sim.plots import COLORS, MARKERS, new_figure, save_figure

HERE = Path(__file__).parent
MODEL = "mmace-3d-pbe"
STATES = {
    "bcc_fm": ("bcc FM", [2.2, 2.2]),
    "bcc_afm": ("bcc AFM", [1.6, -1.6]),
    "bcc_nm": ("bcc NM", [0.0, 0.0]),
    "fcc_fm": ("fcc FM", [2.4, 2.4]),
    "hcp_afm": ("hcp AFM", [1.6, -1.6]),
}
"""Label and starting moments, by the name of the curve after `eos_Fe_`."""
VOLUMES = np.linspace(9.8, 13.2, 25)


def crystal(lattice: str, volume: float, magmoms: list[float]) -> Atoms:
    """Ideal cell of two atoms, of a volume per atom in Å³; hcp with the c/a of the data."""
    if lattice == "hcp":
        a = (volume * 2 / (np.sqrt(3) / 2 * 1.62)) ** (1 / 3)
        atoms = bulk("Fe", "hcp", a=a, c=1.62 * a)
    elif lattice == "bcc":
        atoms = bulk("Fe", "bcc", a=(2 * volume) ** (1 / 3), cubic=True)
    else:
        edge = (4 * volume) ** (1 / 3)
        cell = [edge / np.sqrt(2), edge / np.sqrt(2), edge]
        atoms = Atoms("Fe2", scaled_positions=[[0] * 3, [0.5] * 3], cell=cell, pbc=True)
    atoms.set_initial_magnetic_moments(magmoms)
    return atoms


def main() -> None:
    """Compute and draw."""
    starts = [crystal(name[:3], v, magmoms) for name, (_, magmoms) in STATES.items() for v in VOLUMES]
    results = mmace_sim.relax(starts, MODEL, relax_cell=False, relax_positions=False, collinear=True)
    energies = np.array([r.energy / len(r.atoms) for r in results]).reshape(len(STATES), -1)
    lengths = np.array(
        [
            np.linalg.norm(r.atoms.get_initial_magnetic_moments().reshape(-1, 3), axis=1).mean()
            for r in results
        ]
    ).reshape(energies.shape)
    card = json.loads((HERE / "models" / f"{MODEL}.json").read_text(encoding="utf-8"))
    dft = {state["name"].removeprefix("eos_Fe_"): state for state in card["states"]}
    ground_model, ground_dft = energies[0].min(), dft["bcc_fm"]["dft"]["minimum"]["energy"]

    figure, left = new_figure("page", aspect=0.4)
    left.remove()
    left, right = figure.subplots(1, 2)
    for k, (name, (label, _)) in enumerate(STATES.items()):
        style = {"color": COLORS[k % len(COLORS)]}
        left.plot(VOLUMES, 1000 * (energies[k] - ground_model), **style)
        right.plot(VOLUMES, lengths[k], label=label, **style)
        points = dft[name]
        above = 1000 * (np.array(points["dft"]["energies"]) - ground_dft)
        marks = style | {
            "linestyle": "none",
            "marker": MARKERS[k],
            "markersize": 4,
            "markerfacecolor": "white",
        }
        left.plot(points["volumes"], above, **marks)
        right.plot(points["volumes"], np.abs(points["dft"]["moments"]).mean(axis=1), **marks)
    right.plot([], [], "ko", markersize=4, markerfacecolor="white", label="DFT (PBE)")
    left.set_ylim(-20, 700)
    left.set_ylabel("energy above bcc FM (meV/atom)")
    right.set_ylabel("moment (μB)")
    for axes in (left, right):
        axes.set_xlim(9.6, 13.4)
        axes.set_xlabel("volume (Å³/atom)")
        axes.tick_params(labelsize=7)
        axes.xaxis.label.set_fontsize(8)
        axes.yaxis.label.set_fontsize(8)
    right.legend(fontsize=6, frameon=False, loc="center right", bbox_to_anchor=(1.0, 0.28))
    save_figure(figure, HERE / "figures" / "iron_states")


if __name__ == "__main__":
    main()
