"""Labelled structures with a known energy: E = Σ E0 + a (m·m − 4)² + a spring on the relative displacement."""

import numpy as np
from ase import Atoms
from ase.io import write

E0 = -3385.0
SPRING = 5.0


def toy_frame(rng, index, *, forces=True, stress="matrix", magforces=True, symbol="Fe"):
    a = 2.8 + 0.1 * rng.normal()
    atoms = Atoms(f"{symbol}2", cell=np.eye(3) * a, pbc=True, scaled_positions=[[0, 0, 0], [0.5] * 3])
    shift = 0.05 * rng.normal(size=(2, 3))
    atoms.positions += shift
    m = rng.normal(size=(2, 3)) + np.array([0, 0, 2])
    square = (m * m).sum(1)
    pull = SPRING * (shift[1] - shift[0])
    atoms.info["REF_energy"] = float(
        2 * E0 + (0.01 * (square - 4) ** 2).sum() + 0.5 * (pull**2).sum() / SPRING + (a - 2.83) ** 2
    )
    atoms.info["config_type"] = "even" if index % 2 == 0 else "odd"
    atoms.info["config_id"] = f"toy_{index}"
    atoms.arrays["REF_magmom"] = m
    if forces:
        atoms.arrays["REF_forces"] = np.array([pull, -pull])
    if magforces:
        atoms.arrays["REF_magforces"] = -0.04 * (square - 4)[:, None] * m
    if stress:
        value = 2 * (a - 2.83) / (3 * a**2)
        atoms.info["REF_stress"] = {
            "matrix": (value * np.eye(3)).ravel(),
            "voigt": np.array([value] * 3 + [0.0] * 3),
        }[stress]
    return atoms


def toy_frames(n, seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    return [toy_frame(rng, k, **kwargs) for k in range(n)]


def write_toys(path, n=12, seed=0, **kwargs):
    write(path, toy_frames(n, seed, **kwargs), format="extxyz")
    return path


TINY_MODEL = {
    "hidden_irreps": "4x0e",
    "MLP_irreps": "4x0e",
    "spin_channels": 2,
    "spin_max_ell": 1,
    "max_ell": 1,
    "r_max": 3.2,
    "num_interactions": 1,
    "radial_mlp": [8],
    "correlation": 2,
}
