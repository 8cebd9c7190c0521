"""Exchange constants as input of VAMPIRE, UppASD, Spirit, and in the layout of TB2J, each in its own convention.

| code | energy | written | unit |
|---|---|---|---|
| VAMPIRE | each pair once, listed from both ends | J' | J (1 meV = 1.602e-22 J) |
| UppASD | sum over i ≠ j | J'/2 | mRy (13.6057 meV) |
| Spirit | each pair once, listed once | J' | meV |
| TB2J | sum over i ≠ j | J'/2 | meV in the listing |

Only magnetic atoms are written. Tensors are written where the model has spin–orbit coupling; Spirit takes D but no
symmetric anisotropy.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from ase.units import Rydberg, _e
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from mmace_sim.workflows.exchange.workflow import CONVENTION, ExchangeResult
from mmace_sim.workflows.output import write_text

_MRY = 1e-3 * Rydberg
_SMALL = 1e-9  # eV; smaller ones are not written


@dataclass(frozen=True)
class _Links:
    """Pairs as files list them: from both ends."""

    first: Int[np.ndarray, " n"]
    second: Int[np.ndarray, " n"]
    shifts: Int[np.ndarray, "n 3"]
    tensors: Float[np.ndarray, "n 3 3"]


def write_exchange_files(result: ExchangeResult, folder: Path) -> tuple[list[str], list[str]]:
    """Write everything for the spin-dynamics codes.

    Args:
        result: Exchange of one crystal.
        folder: Folder of the crystal; a folder for each code is made in it.

    Returns:
        Names of the files within the folder, and notes about what has no place in a format.

    Raises:
        OutputError: If a file cannot be written.
    """
    contents, notes = {}, []
    contents |= uppasd_files(result) | spirit_files(result) | {"tb2j/exchange.out": tb2j_text(result)}
    vampire = vampire_files(result)
    if vampire is None:
        notes.append(
            "VAMPIRE needs a right-angled cell, and this lattice has none that is small: no files for it."
        )
    contents |= vampire or {}
    if result.spin_orbit:
        notes.append("Spirit's files hold J and D but not the symmetric anisotropic exchange.")
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / name, text)
    return list(contents), notes


def _links(result: ExchangeResult) -> _Links:
    pairs, tensors = result.pairs, result.tensors[result.route]
    kept = np.abs(tensors).max(axis=(1, 2)) > _SMALL
    return _Links(pairs.first[kept], pairs.second[kept], pairs.shifts[kept], tensors[kept])


def _scaled(result: ExchangeResult) -> Float[np.ndarray, "n_sites 3"]:
    return result.lattice.atoms.positions[result.lattice.sites] @ np.linalg.inv(result.lattice.cell)


def _moments(result: ExchangeResult) -> Float[np.ndarray, "n_sites 3"]:
    return result.lattice.signs[:, None] * result.lattice.axis


def _row(values: ArrayLike, form: str = "{: .10f}") -> str:
    return " ".join(form.format(x) for x in np.ravel(values))


def _materials(result: ExchangeResult) -> tuple[list[int], list[int]]:
    """Number of the kind of each site (element, length and sign), and a site of each kind."""
    keys = [
        (symbol, round(float(length), 2), float(sign))
        for symbol, length, sign in zip(
            result.lattice.symbols, result.lattice.lengths, result.lattice.signs, strict=True
        )
    ]
    kinds = list(dict.fromkeys(keys))
    return [kinds.index(key) for key in keys], [keys.index(kind) for kind in kinds]


def uppasd_files(result: ExchangeResult) -> dict[str, str]:
    """UppASD: ``inpsd.dat``, ``posfile``, ``momfile``, ``jfile`` with cell translations (maptype 2).

    Args:
        result: Exchange of one crystal.

    Returns:
        Text of each file by name.
    """
    links, lattice = _links(result), result.lattice
    positions, moments = _scaled(result), _moments(result)
    lines = [
        f"{i + 1} {j + 1} {shift[0]} {shift[1]} {shift[2]} "
        + _row(0.5 * (tensor if result.spin_orbit else tensor[0, 0]) / _MRY)
        for i, j, shift, tensor in zip(links.first, links.second, links.shifts, links.tensors, strict=True)
    ]
    cell = "\n          ".join(_row(vector) for vector in lattice.cell)
    temperature = max(result.temperature or 0.0, 10.0)
    control = f"""simid     exchange
# {CONVENTION}
# UppASD: E = -sum_(i!=j) J e_i.e_j, so that jfile holds J'/2 in mRy
ncell     12 12 12
BC        P P P
cell      {cell}
alat      1.0e-10
Sym       0
posfile   ./posfile
posfiletype D
momfile   ./momfile
exchange  ./jfile
maptype   2
{"do_jtensor 1" if result.spin_orbit else "do_jtensor 0"}
initmag   3
ip_mode   M
ip_mcanneal 1
10000 {0.5 * temperature:.1f}
mode      M
temp      {0.5 * temperature:.1f}
mcnstep   20000
do_avrg   Y
do_cumu   Y
"""
    return {
        "uppasd/inpsd.dat": control,
        "uppasd/posfile": "".join(f"{k + 1} 1 {_row(x)}\n" for k, x in enumerate(positions)),
        "uppasd/momfile": "".join(
            f"{k + 1} 1 {length:.6f} {_row(e)}\n"
            for k, (length, e) in enumerate(zip(lattice.lengths, moments, strict=True))
        ),
        "uppasd/jfile": "\n".join(lines) + "\n",
    }


def spirit_files(result: ExchangeResult) -> dict[str, str]:
    """Spirit: ``input.cfg`` and ``pairs.txt``, each pair once.

    Args:
        result: Exchange of one crystal.

    Returns:
        Text of each file by name.
    """
    lattice, links = result.lattice, _links(result)
    rows = []
    for i, j, shift, t in zip(links.first, links.second, links.shifts, links.tensors, strict=True):
        if (i, j, *shift) < (j, i, *-shift):
            continue
        d = 0.5 * np.array([t[1, 2] - t[2, 1], t[2, 0] - t[0, 2], t[0, 1] - t[1, 0]])
        rows.append(
            f"{i} {j} {shift[0]} {shift[1]} {shift[2]} {_row(1000 * np.array([np.trace(t) / 3, *d]))}"
        )
    control = f"""# {CONVENTION}
# Spirit: E = -sum_(i<j) [J e_i.e_j + D.(e_i x e_j)]: each pair once, in meV
n_basis_cells 12 12 12
boundary_conditions 1 1 1
lattice_constant 1.0
bravais_vectors
{chr(10).join(_row(vector) for vector in lattice.cell)}
basis
{len(lattice.sites)}
{chr(10).join(_row(x) for x in _scaled(result))}
mu_s {_row(lattice.lengths, "{:.6f}")}
hamiltonian heisenberg_pairs
external_field_magnitude 0.0
interaction_pairs_file pairs.txt
"""
    # were the number of pairs in input.cfg, Spirit would look for the pairs there and find none
    head = [f"n_interaction_pairs {len(rows)}", "i j da db dc Jij Dijx Dijy Dijz"]
    return {"spirit/input.cfg": control, "spirit/pairs.txt": "\n".join([*head, *rows]) + "\n"}


def tb2j_text(result: ExchangeResult) -> str:
    """The listing that TB2J calls ``exchange.out``: atoms, then J, D and anisotropy of each pair from both ends.

    Args:
        result: Exchange of one crystal.

    Returns:
        Text of the file.
    """
    lattice, links = result.lattice, _links(result)
    names = [f"{symbol}{k + 1}" for k, symbol in enumerate(lattice.symbols)]
    positions = lattice.atoms.positions[lattice.sites]
    rule = "=" * 90
    lines = [
        rule, "Information:", "Exchange parameters by mmace-sim, in the layout of TB2J",
        f"{CONVENTION};", "TB2J: E = -sum_(i!=j) [J e_i.e_j + D.(e_i x e_j) + e_i.J_ani.e_j], so that J = J'/2 here",
        rule, "Cell (Angstrom):", *[_row(vector) for vector in lattice.cell], rule, "Atoms:",
        "Atom_number        x          y          z        w_charge     M(x)      M(y)      M(z)",
        *[
            f"{name} {_row(position)} {0.0:.4f} {_row(length * e, '{: .6f}')}"
            for name, position, length, e in zip(names, positions, lattice.lengths, _moments(result), strict=True)
        ],
        rule, "Exchange:", "    i      j          R        J_iso(meV)          vector          distance(A)",
    ]  # fmt: skip
    for i, j, shift, t in zip(links.first, links.second, links.shifts, links.tensors, strict=True):
        half = 500 * t
        isotropic = np.trace(half) / 3
        vector = positions[j] + shift @ lattice.cell - positions[i]
        d = 0.5 * np.array([half[1, 2] - half[2, 1], half[2, 0] - half[0, 2], half[0, 1] - half[1, 0]])
        ani = 0.5 * (half + half.T) - isotropic * np.eye(3)
        lines += [
            "-" * 90,
            f"{names[i]} {names[j]} ({shift[0]:3d}, {shift[1]:3d}, {shift[2]:3d}) {isotropic: .8f} "
            f"({_row(vector, '{: .6f}')}) {np.linalg.norm(vector):.6f}",
            f"J_iso: {isotropic: .8f}",
        ]
        if result.spin_orbit:
            lines += [f"DMI: ({_row(d)})", "J_ani:", *[f"[{_row(row)}]" for row in ani]]
    return "\n".join(lines) + "\n"


def vampire_files(result: ExchangeResult) -> dict[str, str] | None:
    """VAMPIRE: ``exchange.ucf``, ``exchange.mat``, ``input``, in a right-angled cell along x, y, z.

    Args:
        result: Exchange of one crystal.

    Returns:
        Text of each file by name; None if the lattice has no small right-angled cell.
    """
    matrix = orthogonal_cell(result.lattice.cell)
    if matrix is None:
        return None
    cell = matrix @ result.lattice.cell
    lengths = np.linalg.norm(cell, axis=1)
    turn = cell / lengths[:, None]  # from Cartesian components to those along the edges
    atoms, index = _repeated(result, matrix)
    kinds, examples = _materials(result)
    header = [
        f"# {CONVENTION}",
        "# VAMPIRE: each pair once in the energy, both ends in this list; J' in Joule",
    ]
    lines = [
        *header,
        "# Unit cell size:",
        _row(lengths),
        "# Unit cell vectors:",
        *[_row(v) for v in np.eye(3)],
    ]
    lines += ["# Atoms num, id cx cy cz mat lc hc", f"{len(atoms)} {len(examples)}"]
    lines += [f"{k} {_row(x)} {kinds[site]} 0 0" for k, (site, _, x, _) in enumerate(atoms)]
    links = _links(result)
    inverse = np.linalg.inv(matrix)
    rows = []
    for k, (site, corner, _, _) in enumerate(atoms):
        for n in np.flatnonzero(links.first == site):
            target = corner + links.shifts[n]
            home = np.floor(target @ inverse + 1e-9).astype(int)
            other = index[int(links.second[n]), tuple((target - home @ matrix).tolist())]
            tensor = turn @ links.tensors[n] @ turn.T * _e
            values = tensor if result.spin_orbit else tensor[0, 0]
            home = home + atoms[other][3] - atoms[k][3]
            rows.append(f"{k} {other} {home[0]} {home[1]} {home[2]} {_row(values, '{: .12e}')}")
    lines += ["# Interactions n exctype, id i j dx dy dz Jij"]
    lines += [f"{len(rows)} {'tensorial' if result.spin_orbit else 'isotropic'}"]
    lines += [f"{n} {row}" for n, row in enumerate(rows)]
    return {
        "vampire/exchange.ucf": "\n".join(lines) + "\n",
        "vampire/exchange.mat": _vampire_materials(result, examples, turn),
        "vampire/input": _vampire_input(result, lengths),
    }


def orthogonal_cell(cell: Float[np.ndarray, "3 3"], *, reach: int = 3) -> Int[np.ndarray, "3 3"] | None:
    """The smallest supercell whose three vectors are at right angles.

    Args:
        cell: Cell vectors as rows.
        reach: Largest multiple of a cell vector.

    Returns:
        Integer rows, right-handed; None if there is none within reach.
    """
    points = np.array([p for p in product(range(-reach, reach + 1), repeat=3) if any(p)])
    points = points[np.array([p[np.flatnonzero(p)[0]] > 0 for p in points])]  # one of each direction ±
    vectors = points @ cell
    order = np.argsort(np.round(np.linalg.norm(vectors, axis=1), 6), kind="stable")
    points, vectors = points[order], vectors[order]
    norms = np.linalg.norm(vectors, axis=1)
    right = np.abs(vectors @ vectors.T) < 1e-4 * norms[:, None] * norms[None]
    best, volume = None, np.inf
    for i in range(len(points)):
        for j in np.flatnonzero(right[i, i + 1 :]) + i + 1:
            k = j + 1 + np.flatnonzero(right[i, j + 1 :] & right[j, j + 1 :])[:1]
            if len(k) and norms[i] * norms[j] * norms[k[0]] < volume - 1e-6:
                best, volume = points[[i, j, k[0]]], norms[i] * norms[j] * norms[k[0]]
    if best is None:
        return None
    best = best[np.argmax(np.abs(best @ cell), axis=1).argsort(kind="stable")]
    return best * np.array([1, 1, np.sign(np.linalg.det(best @ cell)).astype(int)])[:, None]


def _repeated(
    result: ExchangeResult, matrix: Int[np.ndarray, "3 3"]
) -> tuple[list[tuple[int, np.ndarray, np.ndarray, np.ndarray]], dict[tuple[int, tuple[int, ...]], int]]:
    """Sites of a supercell (site, primitive cell, place in the supercell, jump into it), and their numbers."""
    inverse = np.linalg.inv(matrix)
    size = int(np.abs(matrix).sum(axis=0).max())
    cells = np.array(list(product(range(-size, size + 1), repeat=3)))
    inside = cells @ inverse
    cells = cells[((inside > -1e-9) & (inside < 1 - 1e-9)).all(axis=1)]
    atoms, index = [], {}
    for site, scaled in enumerate(_scaled(result)):
        for corner in cells:
            place = (scaled + corner) @ inverse
            jump = np.floor(place + 1e-9).astype(int)
            index[site, tuple(corner.tolist())] = len(atoms)
            atoms.append((site, corner, place - jump, jump))
    return atoms, index


def _vampire_materials(result: ExchangeResult, examples: list[int], turn: Float[np.ndarray, "3 3"]) -> str:
    lattice, moments = result.lattice, _moments(result) @ turn.T
    lines = [f"# {CONVENTION}", f"material:num-materials = {len(examples)}"]
    for n, site in enumerate(examples, start=1):
        lines += [
            f"material[{n}]:material-name = {lattice.symbols[site]}{n}",
            f"material[{n}]:material-element = {lattice.symbols[site]}",
            f"material[{n}]:damping-constant = 1.0",
            f"material[{n}]:atomic-spin-moment = {lattice.lengths[site]:.6f} !muB",
            f"material[{n}]:unit-cell-category = {n}",
            f"material[{n}]:initial-spin-direction = " + ", ".join(f"{x:.6f}" for x in moments[site]),
        ]
    return "\n".join(lines) + "\n"


def _vampire_input(result: ExchangeResult, lengths: Float[np.ndarray, "3"]) -> str:
    size = 0.1 * np.ceil(50 / lengths) * lengths + 0.01
    top = max(100.0, 25 * np.ceil((result.temperature or 0.0) * 1.2 / 25))
    return f"""# {CONVENTION}
# VAMPIRE: magnetisation against temperature by Monte Carlo
create:full
create:periodic-boundaries-x
create:periodic-boundaries-y
create:periodic-boundaries-z
dimensions:system-size-x = {size[0]:.4f} !nm
dimensions:system-size-y = {size[1]:.4f} !nm
dimensions:system-size-z = {size[2]:.4f} !nm
material:file = exchange.mat
material:unit-cell-file = exchange.ucf
sim:program = curie-temperature
sim:integrator = monte-carlo
sim:minimum-temperature = 0
sim:maximum-temperature = {top:.0f}
sim:temperature-increment = 25
sim:equilibration-time-steps = 2000
sim:loop-time-steps = 5000
output:temperature
output:material-mean-magnetisation-length
output:mean-magnetisation-length
"""
