"""Exchange constants as input of VAMPIRE."""

from itertools import product

import numpy as np
from ase.units import _e
from jaxtyping import Float, Int

from mmace_sim.properties.exchange.constants import ExchangeResult
from mmace_sim.properties.exchange.declaration import CONVENTION
from mmace_sim.properties.exchange.formats import Exported, axes_line, line_of


def vampire_files(result: ExchangeResult) -> dict[str, str] | None:
    """VAMPIRE: ``exchange.ucf``, ``exchange.mat``, ``input``, in a right-angled cell along x, y, z.

    Materials have one axis of anisotropy, E = −K (e·n)²: of a tensor without one, the best is written (`left_out`).

    Args:
        result: Exchange of one crystal.

    Returns:
        Text of each file by name; None if the lattice has no small right-angled cell.
    """
    exported = Exported(result)
    primitive = exported.lattice.cell
    matrix = orthogonal_cell(primitive)
    if matrix is None:
        return None
    cell = matrix @ primitive
    lengths = np.linalg.norm(cell, axis=1)
    turn = cell / lengths[:, None]  # from Cartesian components to those along the edges
    atoms, index = _repeated(exported, matrix)
    kinds, examples = exported.site_kinds
    header = [
        f"# {CONVENTION}",
        "# VAMPIRE: each pair once in the energy, both ends in this list; J' in Joule",
        axes_line(turn),
    ]
    lines = [
        *header,
        "# Unit cell size:",
        line_of(lengths),
        "# Unit cell vectors:",
        *[line_of(v) for v in np.eye(3)],
    ]
    lines += ["# Atoms num, id cx cy cz mat lc hc", f"{len(atoms)} {len(examples)}"]
    lines += [f"{k} {line_of(x)} {kinds[site]} 0 0" for k, (site, _, x, _) in enumerate(atoms)]
    links = exported.links
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
            rows.append(f"{k} {other} {home[0]} {home[1]} {home[2]} {line_of(values, '{: .12e}')}")
    lines += ["# Interactions n exctype, id i j dx dy dz Jij"]
    lines += [f"{len(rows)} {'tensorial' if result.spin_orbit else 'isotropic'}"]
    lines += [f"{n} {row}" for n, row in enumerate(rows)]
    return {
        "vampire/exchange.ucf": "\n".join(lines) + "\n",
        "vampire/exchange.mat": _vampire_materials(exported, examples, turn),
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
    exported: Exported, matrix: Int[np.ndarray, "3 3"]
) -> tuple[list[tuple[int, np.ndarray, np.ndarray, np.ndarray]], dict[tuple[int, tuple[int, ...]], int]]:
    """Sites of a supercell (site, primitive cell, place in the supercell, jump into it), and their numbers."""
    inverse = np.linalg.inv(matrix)
    size = int(np.abs(matrix).sum(axis=0).max())
    cells = np.array(list(product(range(-size, size + 1), repeat=3)))
    inside = cells @ inverse
    cells = cells[((inside > -1e-9) & (inside < 1 - 1e-9)).all(axis=1)]
    atoms: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
    index: dict[tuple[int, tuple[int, ...]], int] = {}
    for site, scaled in enumerate(exported.scaled_sites):
        for corner in cells:
            place = (scaled + corner) @ inverse
            jump = np.floor(place + 1e-9).astype(int)
            index[site, tuple(corner.tolist())] = len(atoms)
            atoms.append((site, corner, place - jump, jump))
    return atoms, index


def _best_axis(
    axes: list[tuple[float, Float[np.ndarray, "3"]]],
) -> tuple[float, Float[np.ndarray, "3"]]:
    """The one axis closest to the whole tensor: half of the second K goes to the first (and to a constant)."""
    constant, axis = axes[0]
    return (constant - 0.5 * axes[1][0], axis) if len(axes) > 1 else (constant, axis)


def left_out(result: ExchangeResult) -> float:
    """The largest part of the anisotropy of a site that one axis cannot give, in eV.

    Args:
        result: Exchange of one crystal.
    """
    return max(0.5 * abs(axes[1][0]) if len(axes) > 1 else 0.0 for axes in Exported(result).anisotropy_axes)


def _vampire_materials(exported: Exported, examples: list[int], turn: Float[np.ndarray, "3 3"]) -> str:
    lattice, moments = exported.lattice, exported.unit_moments @ turn.T
    axes = exported.anisotropy_axes
    lines = [f"# {CONVENTION}", axes_line(turn), f"material:num-materials = {len(examples)}"]
    for n, site in enumerate(examples, start=1):
        lines += [
            f"material[{n}]:material-name = {lattice.symbols[site]}{n}",
            f"material[{n}]:material-element = {lattice.symbols[site]}",
            f"material[{n}]:damping-constant = 1.0",
            f"material[{n}]:atomic-spin-moment = {lattice.lengths[site]:.6f} !muB",
            f"material[{n}]:unit-cell-category = {n}",
            f"material[{n}]:initial-spin-direction = " + ", ".join(f"{x:.6f}" for x in moments[site]),
        ]
        if axes[site]:
            constant, axis = _best_axis(axes[site])
            lines += [
                f"material[{n}]:uniaxial-anisotropy-constant = {-constant * _e:.12e} !J/atom",
                f"material[{n}]:uniaxial-anisotropy-direction = "
                + ", ".join(f"{x:.10f}" for x in turn @ axis),
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
