"""Spin models of UppASD: ``inpsd.dat`` and the ``posfile``, ``momfile`` and ``jfile`` that it names.

UppASD's energy is −Σ_{i≠j} J_ij e_i·e_j with unit vectors, J in mRy: J' = 2 J. A row of the jfile is a bond of every
site of the type of its first site, to the site that is found there; with ``Sym`` 1, 2 or 3 all images of the bond under
the cubic, square or hexagonal operations are meant. Bonds are cells of the second site (``maptype 2``), or vectors
(``maptype 1``, in the coordinates of the posfile).

References:
    github.com/UppASD/UppASD, source/Input/inputhandler_ext.f90 and source/Hamiltonian/neighbourmap.f90.
"""

from itertools import permutations, product
from pathlib import Path

import numpy as np
from ase.units import Rydberg
from jaxtyping import Float, Int

from mmace_sim.errors import StructureError
from mmace_sim.io.spin_files import SpinFile, numbers, read_lines, table

CONTROL: str = "inpsd.dat"
"""Name of the file that names the others."""
_MRY = 1e-3 * Rydberg
_COMMENTS = "#!%*="
_TOL = 5e-3
"""Places closer than this, in lattice constants, are the same."""
_LEFT_OUT = {
    "anisotropy": "anisotropy", "dm": "Dzyaloshinskii–Moriya vectors", "sa": "symmetric anisotropic exchange",
    "pd": "pseudo-dipolar exchange", "bq": "biquadratic exchange", "biqdm": "biquadratic exchange",
    "ring": "ring exchange", "chir": "chiral exchange",
}  # fmt: skip
_REFUSED = {
    "do_ralloy": ("0", "random alloys"), "do_lsf": ("n", "moments that change their lengths"),
    "ind_mom_flag": ("n", "induced moments"), "aunits": ("n", "atomic units"),
    "exc_inter": ("n", "exchange that depends on the order"), "do_cluster": ("n", "clusters"),
    "map_multiple": ("f", "several couplings of one pair"),
}  # fmt: skip


def read_uppasd(folder: Path) -> SpinFile:
    """Read the spin model of a folder.

    Args:
        folder: Folder with ``inpsd.dat``.

    Raises:
        StructureError: If a file is missing or cannot be understood.
    """
    settings = _settings(folder / CONTROL)
    _check(settings)
    alat = 1e10 * numbers([settings.get("alat", ["1e-10"])[0]], "alat")[0]
    cell = np.array(numbers(settings["cell"], "cell")).reshape(3, 3)
    rows = table(folder / settings.get("posfile", ["posfile"])[0], 5)
    sites, types = rows[:, 0].astype(int), rows[:, 1].astype(int)
    if sorted(sites) != list(range(1, len(sites) + 1)):
        raise StructureError("posfile: sites must be numbered 1, 2, …, each once.")
    order = np.argsort(sites)
    types, places = types[order], rows[order, 2:5]
    if _word(settings, "posfiletype", "c") == "d":
        places = places @ cell
    moments = _moments(folder / settings.get("momfile", ["momfile"])[0], len(sites))
    tensor = _word(settings, "do_jtensor", "0") == "1"
    bonds = table(folder / settings.get("exchange", ["jfile"])[0], 14 if tensor else 6)
    values = bonds[:, [5, 9, 13]].mean(axis=1) if tensor else bonds[:, 5]
    values = values * numbers([settings.get("jij_scale", ["1"])[0]], "jij_scale")[0]
    ends = bonds[:, :2].astype(int) - 1
    if ends.min() < 0 or ends.max() >= len(sites):
        raise StructureError(
            f"jfile: names site {ends.max() + 1}, the posfile has {len(sites)}: sites are 1, 2, …."
        )
    vectors = _vectors(bonds[:, 2:5], ends, places, cell, settings)
    pairs, left = _pairs(vectors, ends, types, places, cell, _symmetry(settings))
    notes = _notes(settings, left, tensor=tensor)
    first, second, shifts, which = pairs
    found = SpinFile(
        alat * cell, alat * places, moments, ["X"] * len(sites), first, second, shifts,
        2 * _MRY * values[which], notes,
    )  # fmt: skip
    return found.checked()


def _settings(path: Path) -> dict[str, list[str]]:
    """Words after each keyword; those of ``cell`` from three lines."""
    settings: dict[str, list[str]] = {}
    lines = iter(read_lines(path, _COMMENTS))
    for line in lines:
        words = line.replace(":", " ", 1).split()
        key = words[0].lower()
        settings[key] = words[1:] or [""]
        if key == "cell":
            values = words[1:4]
            for _ in range(2):
                values += next(lines, "").split()[:3]
            settings[key] = values
    if len(settings.get("cell", [])) != 9:
        raise StructureError(f"{path.name}: no cell of three vectors.")
    return settings


def _word(settings: dict[str, list[str]], key: str, default: str) -> str:
    return settings.get(key, [default])[0].lower()


def _check(settings: dict[str, list[str]]) -> None:
    for key, (usual, what) in _REFUSED.items():
        if not _word(settings, key, usual).startswith(usual):
            raise StructureError(f"{key} {settings[key][0]}: {what} cannot be sampled here.")
    boundary = [word.lower() for word in settings.get("bc", ["p", "p", "p"])[:3]]
    if boundary != ["p", "p", "p"]:
        raise StructureError(f"BC {' '.join(boundary)}: only crystals (BC P P P) can be sampled.")


def _notes(settings: dict[str, list[str]], left: int, *, tensor: bool) -> list[str]:
    extra = [what for key, what in _LEFT_OUT.items() if key in settings]
    extra += ["the anisotropic part of the exchange"] if tensor else []
    field = numbers(settings.get("hfield", [])[:3], "hfield")
    extra += ["the magnetic field"] if any(field) else []
    extra += ["dipolar fields"] if _word(settings, "do_dip", "0") != "0" else []
    notes = [f"left out: {', '.join(dict.fromkeys(extra))}."] if extra else []
    if left:
        notes.append(f"{left} bonds of the jfile lead to no site and are left out, as UppASD does.")
    return notes


def _moments(path: Path, n_sites: int) -> Float[np.ndarray, "n_sites 3"]:
    rows = table(path, 6)
    sites = rows[:, 0].astype(int) - 1
    if sorted(sites) != list(range(n_sites)):
        raise StructureError(
            f"{path.name}: expected one row for each of the {n_sites} sites, got {len(rows)}."
        )
    directions = rows[:, 3:6]
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    if (norms == 0).any():
        raise StructureError(f"{path.name}: a direction is zero.")
    moments = np.empty((n_sites, 3))
    moments[sites] = rows[:, 2:3] * directions / norms
    return moments


def _vectors(
    given: Float[np.ndarray, "n 3"],
    ends: Int[np.ndarray, "n 2"],
    places: Float[np.ndarray, "n_sites 3"],
    cell: Float[np.ndarray, "3 3"],
    settings: dict[str, list[str]],
) -> Float[np.ndarray, "n 3"]:
    """Bonds as Cartesian vectors, in lattice constants."""
    maptype = _word(settings, "maptype", "1")
    if maptype in ("2", "3"):
        return given @ cell + places[ends[:, 1]] - places[ends[:, 0]]
    return given @ cell if _word(settings, "posfiletype", "c") == "d" else given


def _symmetry(settings: dict[str, list[str]]) -> Float[np.ndarray, "n_ops 3 3"]:
    """Operations that ``Sym`` stands for."""
    kind = _word(settings, "sym", "0")
    signs = [np.diag(s) for s in product((1.0, -1.0), repeat=3)]
    if kind == "0":
        return np.eye(3)[None]
    if kind == "1":
        return np.array([np.eye(3)[list(p)] @ s for p in permutations(range(3)) for s in signs])
    if kind == "2":
        flat = [s for s in signs if s[2, 2] > 0]
        return np.array([np.eye(3)[list(p)] @ s for p in ((0, 1, 2), (1, 0, 2)) for s in flat])
    if kind == "3":
        turns = [2 * np.pi * k / 6 for k in range(6)]
        rotations = [
            np.array([[np.cos(t), -np.sin(t), 0], [np.sin(t), np.cos(t), 0], [0, 0, 1]]) for t in turns
        ]
        mirrors = [np.diag(s) for s in product((1.0,), (1.0, -1.0), (1.0, -1.0))]
        return np.array([r @ m for r in rotations for m in mirrors])
    raise StructureError(f"Sym {kind}: expected 0, 1, 2 or 3; list the bonds one by one with Sym 0.")


def _pairs(
    vectors: Float[np.ndarray, "n 3"],
    ends: Int[np.ndarray, "n 2"],
    types: Int[np.ndarray, " n_sites"],
    places: Float[np.ndarray, "n_sites 3"],
    cell: Float[np.ndarray, "3 3"],
    operations: Float[np.ndarray, "n_ops 3 3"],
) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], int]:
    """Pairs of sites (first, second, cell, row of the jfile), and how many bonds of a site lead to no site."""
    inverse = np.linalg.inv(cell)
    bonds = np.einsum("oab,nb->ona", operations, vectors).reshape(-1, 3)
    rows = np.tile(np.arange(len(vectors)), len(operations))
    found, left = [], 0
    for site, place in enumerate(places):
        mine = types[ends[rows, 0]] == types[site]
        for row, fractional in _targets(rows[mine], (bonds[mine] + place - places[0]) @ inverse):
            offsets = fractional[:, None] - (places - places[0])[None] @ inverse
            shifts = np.rint(offsets)
            miss = np.linalg.norm((offsets - shifts) @ cell, axis=2)
            miss[types[ends[row, 1]][:, None] != types[None]] = np.inf
            second = miss.argmin(axis=1)
            hit = miss[np.arange(len(row)), second] < _TOL
            left += int((~hit).sum())
            chosen = shifts[np.arange(len(row)), second].astype(int)
            found.append(np.column_stack([np.full(len(row), site), second, chosen, row])[hit])
    table_ = np.concatenate(found)
    # as in UppASD, of two bonds to the same place the last row counts
    last = np.lexsort((table_[:, 5], *table_[:, :5].T[::-1]))
    table_ = table_[last]
    kept = np.append((np.diff(table_[:, :5], axis=0) != 0).any(axis=1), True)
    table_ = table_[kept]
    return (table_[:, 0], table_[:, 1], table_[:, 2:5], table_[:, 5]), left


def _targets(
    rows: Int[np.ndarray, " n"], fractional: Float[np.ndarray, "n 3"], block: int = 20000
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pieces of bonds, so that comparing them with all sites takes little memory."""
    cuts = range(0, len(rows), block)
    return [(rows[k : k + block], fractional[k : k + block]) for k in cuts]
