"""The figure of the README: energy and moment of iron's magnetic states, default model against its DFT.

`python docs/readme_figure.py` computes the lines (about 140 structures in one batch) and takes the points from
docs/models/mmace-fe-pbe.json.
"""

import json
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk

import mmace_sim
from mmace_sim.plots import COLORS, MARKERS, new_figure, save_figure

HERE = Path(__file__).parent
STATES = {
    "bcc_fm": ("bcc FM", "bcc", [2.2, 2.2]),
    "bcc_afm": ("bcc AFM", "bcc", [1.6, -1.6]),
    "bcc_nm": ("bcc NM", "bcc", [0.0, 0.0]),
    "fcc_afm": ("fcc AFM", "fcc", [1.6, -1.6, 1.6, -1.6]),
    "hcp_nm": ("hcp NM", "hcp", [0.0, 0.0]),
}
VOLUMES = np.linspace(9.8, 13.5, 25)


def crystal(lattice: str, volume: float, magmoms: list[float]) -> Atoms:
    """Ideal cell of a volume per atom, in Å³."""
    if lattice == "hcp":
        a = (volume * 2 / (np.sqrt(3) / 2 * 1.58)) ** (1 / 3)
        atoms = bulk("Fe", "hcp", a=a, c=1.58 * a)
    else:
        atoms = bulk("Fe", lattice, a=(volume * (2 if lattice == "bcc" else 4)) ** (1 / 3), cubic=True)
    if lattice == "fcc":  # layers along z
        magmoms = [magmoms[0] if abs(z) < 0.1 else -magmoms[0] for z in atoms.get_scaled_positions()[:, 2]]
    atoms.set_initial_magnetic_moments(magmoms)
    return atoms


def main() -> None:
    """Compute and draw."""
    starts = [crystal(lattice, v, m) for _, lattice, m in STATES.values() for v in VOLUMES]
    results = mmace_sim.relax(starts, model="default", relax_cell=False, relax_positions=False)
    energies = np.array([r.energy / len(r.atoms) for r in results]).reshape(len(STATES), -1)
    lengths = np.array(
        [
            np.linalg.norm(r.atoms.get_initial_magnetic_moments().reshape(-1, 3), axis=1).mean()
            for r in results
        ]
    ).reshape(energies.shape)
    dft = json.loads((HERE / "models" / "mmace-fe-pbe.json").read_text(encoding="utf-8"))["states"]
    ground_model, ground_dft = energies[0].min(), dft["bcc_fm"]["dft"]["energy"]

    figure, left = new_figure("page", aspect=0.4)
    left.remove()
    left, right = figure.subplots(1, 2)
    for k, (name, (label, _, _)) in enumerate(STATES.items()):
        style = {"color": COLORS[k % len(COLORS)]}
        left.plot(VOLUMES, 1000 * (energies[k] - ground_model), **style)
        right.plot(VOLUMES, lengths[k], label=label, **style)
        points = dft[name]
        inside = np.array(points["volumes"]) < VOLUMES[-1] + 0.2
        volumes = np.array(points["volumes"])[inside]
        above = 1000 * (np.array(points["dft"]["energies"])[inside] - ground_dft)
        marks = style | {
            "linestyle": "none",
            "marker": MARKERS[k],
            "markersize": 4,
            "markerfacecolor": "white",
        }
        left.plot(volumes, above, **marks)
        right.plot(volumes, np.array(points["dft"]["moments"])[inside], **marks)
    right.plot([], [], "ko", markersize=4, markerfacecolor="white", label="DFT (PBE)")
    left.set_ylim(-20, 700)
    left.set_ylabel("energy above bcc FM (meV/atom)")
    right.set_ylabel("moment (μB)")
    for axes in (left, right):
        axes.set_xlim(9.6, 13.7)
        axes.set_xlabel("volume (Å³/atom)")
        axes.tick_params(labelsize=7)
        axes.xaxis.label.set_fontsize(8)
        axes.yaxis.label.set_fontsize(8)
    right.legend(fontsize=6, frameon=False, loc="center right", bbox_to_anchor=(1.0, 0.28))
    save_figure(figure, HERE / "figures" / "iron_states")


if __name__ == "__main__":
    main()
