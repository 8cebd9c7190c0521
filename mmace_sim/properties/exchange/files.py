"""Exchange constants as input of VAMPIRE, UppASD, Spirit, and in the layout of TB2J, each in its own convention.

| code | energy | written | unit |
|---|---|---|---|
| VAMPIRE | each pair once, listed from both ends | J' | J (1 meV = 1.602e-22 J) |
| UppASD | sum over i ≠ j | J'/2 | mRy (13.6057 meV) |
| Spirit | each pair once, listed once | J' | meV |
| TB2J | sum over i ≠ j | J'/2 | meV in the listing |

Only magnetic atoms are written. Tensors and the anisotropy of single sites are written where the model has spin–orbit
coupling; Spirit takes D but no symmetric anisotropic exchange, VAMPIRE one axis of anisotropy for each material.
"""

from pathlib import Path

import numpy as np
from ase.units import Rydberg

from mmace_sim.files import write_text
from mmace_sim.properties.exchange.constants import ExchangeResult, dmi_vectors
from mmace_sim.properties.exchange.declaration import CONVENTION
from mmace_sim.properties.exchange.formats import Exported, axes_line, line_of
from mmace_sim.properties.exchange.vampire import left_out, orthogonal_cell, vampire_files

__all__ = [
    "orthogonal_cell",
    "spirit_files",
    "tb2j_text",
    "uppasd_files",
    "vampire_files",
    "write_exchange_files",
]

_MRY = 1e-3 * Rydberg


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
    notes: list[str] = []
    contents = uppasd_files(result) | spirit_files(result) | {"tb2j/exchange.out": tb2j_text(result)}
    vampire = vampire_files(result)
    if vampire is None:
        notes.append(
            "VAMPIRE needs a right-angled cell, and this lattice has none that is small: no files for it."
        )
    contents |= vampire or {}
    notes += _limits(result, vampire=vampire is not None)
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / name, text)
    return list(contents), notes


def _limits(result: ExchangeResult, *, vampire: bool) -> list[str]:
    """What has no place in a format, with its size."""
    if not result.spin_orbit:
        return []
    notes = []
    largest = 1000 * float(np.abs(result.anisotropic()).max())
    if largest > 1e-3:
        notes.append(
            f"Spirit's files hold J and D but not the symmetric anisotropic exchange, up to {largest:.3g} meV."
        )
    if result.anisotropy is None:
        notes.append(
            "single-ion anisotropy was not computed (it needs the route derivatives): exports lack it."
        )
        return notes
    if vampire and (rest := 1000 * left_out(result)) > 1e-3:
        notes.append(
            f"VAMPIRE's files hold one axis of anisotropy for each site: up to {rest:.3g} meV of it are left out."
        )
    if result.anisotropy_error > 0.05 * np.abs(result.anisotropy).max() + 1e-6:
        notes.append(
            "single-ion anisotropy is of fourth order too: no tensor gives its second derivatives, up to "
            f"{1000 * result.anisotropy_error:.3g} meV of which no export holds."
        )
    return notes


def uppasd_files(result: ExchangeResult) -> dict[str, str]:
    """UppASD: ``inpsd.dat``, ``posfile``, ``momfile``, ``jfile`` with cell translations (maptype 2), and ``kfile``.

    UppASD keeps exchange by types of atoms, and so each site is a type of its own. Its anisotropy is Σ K (e·n)², with
    one axis for each site or (``mult_axis Y``) two.

    Args:
        result: Exchange of one crystal.

    Returns:
        Text of each file by name.
    """
    exported = Exported(result)
    links, lattice = exported.links, exported.lattice
    lines = [
        f"{i + 1} {j + 1} {shift[0]} {shift[1]} {shift[2]} "
        + line_of(0.5 * (tensor if result.spin_orbit else tensor[0, 0]) / _MRY)
        for i, j, shift, tensor in zip(links.first, links.second, links.shifts, links.tensors, strict=True)
    ]
    cell = "\n          ".join(line_of(vector) for vector in lattice.cell)
    temperature = max(result.temperature or 0.0, 10.0)
    axes = exported.anisotropy_axes
    n_axes = max(map(len, axes))
    anisotropy = "".join(
        f"{k + 1} 1 {line_of([pairs[n][0] / _MRY, 0.0, *pairs[n][1], 0.0])}\n"
        if n < len(pairs)
        else f"{k + 1} 1 {line_of([0.0, 0.0, 0.0, 0.0, 1.0, 0.0])}\n"
        for n in range(n_axes)
        for k, pairs in enumerate(axes)
    )
    keys = ["", "anisotropy ./kfile\n", "anisotropy ./kfile\nmult_axis Y\n"][n_axes]
    control = f"""simid     exchange
# {CONVENTION}
# UppASD: E = -sum_(i!=j) J e_i.e_j + sum_i K (e_i.n)^2, so that jfile holds J'/2 and kfile K, in mRy
{axes_line()}
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
{keys}initmag   3
ip_mode   M
ip_mcanneal 1
10000 {0.5 * temperature:.1f}
mode      M
temp      {0.5 * temperature:.1f}
mcnstep   20000
do_avrg   Y
do_cumu   Y
"""
    files = {
        "uppasd/inpsd.dat": control,
        "uppasd/posfile": "".join(
            f"{k + 1} {k + 1} {line_of(x)}\n" for k, x in enumerate(exported.scaled_sites)
        ),
        "uppasd/momfile": "".join(
            f"{k + 1} 1 {length:.6f} {line_of(e)}\n"
            for k, (length, e) in enumerate(zip(lattice.lengths, exported.unit_moments, strict=True))
        ),
        "uppasd/jfile": "\n".join(lines) + "\n",
    }
    return files | ({"uppasd/kfile": anisotropy} if n_axes else {})


def spirit_files(result: ExchangeResult) -> dict[str, str]:
    """Spirit: ``input.cfg``, ``pairs.txt`` with each pair once, and ``anisotropy.txt``.

    Args:
        result: Exchange of one crystal.

    Returns:
        Text of each file by name.
    """
    exported = Exported(result)
    lattice, links = exported.lattice, exported.links
    rows = []
    for i, j, shift, t in zip(links.first, links.second, links.shifts, links.tensors, strict=True):
        if (i, j, *shift) < (j, i, *-shift):
            continue
        numbers = 1000 * np.array([np.trace(t) / 3, *dmi_vectors(t)])
        rows.append(f"{i} {j} {shift[0]} {shift[1]} {shift[2]} {line_of(numbers)}")
    axes = [
        f"{i} {line_of([-1000 * k, *n])}"
        for i, pairs in enumerate(exported.anisotropy_axes)
        for k, n in pairs
    ]
    anisotropy = "anisotropy_file anisotropy.txt\n" if axes else ""
    control = f"""# {CONVENTION}
# Spirit: E = -sum_(i<j) [J e_i.e_j + D.(e_i x e_j)] - sum_i K (e_i.n)^2: each pair once, in meV
{axes_line()}
n_basis_cells 12 12 12
boundary_conditions 1 1 1
lattice_constant 1.0
bravais_vectors
{chr(10).join(line_of(vector) for vector in lattice.cell)}
basis
{len(lattice.sites)}
{chr(10).join(line_of(x) for x in exported.scaled_sites)}
mu_s {line_of(lattice.lengths, "{:.6f}")}
hamiltonian heisenberg_pairs
external_field_magnitude 0.0
interaction_pairs_file pairs.txt
{anisotropy}"""
    # were the number of pairs in input.cfg, Spirit would look for the pairs there and find none
    head = [f"n_interaction_pairs {len(rows)}", "i j da db dc Jij Dijx Dijy Dijz"]
    files = {"spirit/input.cfg": control, "spirit/pairs.txt": "\n".join([*head, *rows]) + "\n"}
    if axes:
        files["spirit/anisotropy.txt"] = (
            "\n".join([f"n_anisotropy {len(axes)}", "i K Kx Ky Kz", *axes]) + "\n"
        )
    return files


def tb2j_text(result: ExchangeResult) -> str:
    """The listing that TB2J calls ``exchange.out``: atoms, then J, D and anisotropy of each pair from both ends.

    Args:
        result: Exchange of one crystal.

    Returns:
        Text of the file.
    """
    exported = Exported(result)
    lattice, links = exported.lattice, exported.links
    names = [f"{symbol}{k + 1}" for k, symbol in enumerate(lattice.symbols)]
    positions = lattice.atoms.positions[lattice.sites]
    rule = "=" * 90
    lines = [
        rule, "Information:", "Exchange parameters by mmace-sim, in the layout of TB2J",
        f"{CONVENTION};", "TB2J: E = -sum_(i!=j) [J e_i.e_j + D.(e_i x e_j) + e_i.J_ani.e_j], so that J = J'/2 here",
        axes_line().removeprefix("# "), rule,
        "Cell (Angstrom):", *[line_of(vector) for vector in lattice.cell], rule, "Atoms:",
        "Atom_number        x          y          z        w_charge     M(x)      M(y)      M(z)",
        *[
            f"{name} {line_of(position)} {0.0:.4f} {line_of(length * e, '{: .6f}')}"
            for name, position, length, e in zip(names, positions, lattice.lengths, exported.unit_moments, strict=True)
        ],
        rule, "Exchange:", "    i      j          R        J_iso(meV)          vector          distance(A)",
    ]  # fmt: skip
    for i, j, shift, t in zip(links.first, links.second, links.shifts, links.tensors, strict=True):
        half = 500 * t
        isotropic = np.trace(half) / 3
        vector = positions[j] + shift @ lattice.cell - positions[i]
        ani = 0.5 * (half + half.T) - isotropic * np.eye(3)
        lines += [
            "-" * 90,
            f"{names[i]} {names[j]} ({shift[0]:3d}, {shift[1]:3d}, {shift[2]:3d}) {isotropic: .8f} "
            f"({line_of(vector, '{: .6f}')}) {np.linalg.norm(vector):.6f}",
            f"J_iso: {isotropic: .8f}",
        ]
        if result.spin_orbit:
            lines += [f"DMI: ({line_of(dmi_vectors(half))})", "J_ani:", *[f"[{line_of(row)}]" for row in ani]]
    if result.anisotropy is not None:
        lines += [rule, "Single-ion anisotropy (meV), E = sum_i e_i.A_i.e_i beside the exchange:"]
        for name, tensor in zip(names, result.anisotropy, strict=True):
            lines += [name, *[f"[{line_of(1000 * row)}]" for row in tensor]]
    return "\n".join(lines) + "\n"
