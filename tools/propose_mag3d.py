"""Candidates for the GPAW campaign beyond its first plan: strains, phonons, layers, ends of the data.

    python tools/propose_mag3d.py -o candidates.extxyz
    mmace-sim label candidates.extxyz --engine gpaw -o more
    python tools/pack_mag3d.py RAW.extxyz more/labelled.extxyz

What elastic constants and phonons are made of, which the first plan has little of, for the phases that people have.
Moments are a start and follow, but for short distances, where they are held. Ids that are reserved for the independent
test are left out.
"""

import argparse
import re
from functools import partial
from itertools import chain, product
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.data import atomic_numbers
from ase.io import write
from pack_mag3d import reserved

MOMENT = {"Fe": 2.3, "Co": 1.7, "Ni": 0.65, "Al": 0.0}
VOLUME = {"Fe": 11.4, "Co": 10.9, "Ni": 10.9, "Al": 16.5}
"""Moments (μB) and volumes (Å³) to start with."""
LATER = {"Mn": (3.3, 11.8), "Cr": (1.2, 11.7), "Pt": (0.3, 15.7), "N": (0.0, 0.0), "O": (0.0, 0.0)}
"""The same of elements that came later."""
MOMENTS = MOMENT | {symbol: moment for symbol, (moment, _) in LATER.items()}
VOLUMES = VOLUME | {symbol: volume for symbol, (_, volume) in LATER.items()}
"""Of all."""
ROCKSALT = {"CrN": (2.6, 4.15), "MnN": (3.3, 4.25), "FeN": (1.6, 4.0), "NiO": (1.4, 4.18), "MnO": (4.2, 4.43),
            "FeO": (3.4, 4.30), "CoO": (2.4, 4.25)}  # fmt: skip
"""Moment of the metal (μB) and lattice constant (Å); antiferromagnetic layers along [001]."""
SCANNED = {
    "Cr": ("bcc", 11.6, (1.0, 1.6, 2.3)),
    "Mn": ("bcc", 11.2, (0.6, 1.5, 2.5)),
    "FeAl": ("bcc", 11.9, (0.4, 0.9, 1.6)),
    "CoCr": ("bcc", 11.3, (0.7, 1.5)),
    "CrPt": ("bcc", 13.4, (1.0, 2.2)),
    "CrFe": ("bcc", 11.4, (1.0, 2.0)),
}
"""Lattice, volume per atom (Å³) and moments (μB) that are held at two volumes near it."""
MANGANESE = {
    "111": [[0, 1, 1], [1, 0, 1], [1, 1, 0]],
    "001": [[1, 0, 0], [0, 1, 0], [0, 0, 2]],
    "011": [[1, 0, 0], [0, 1, 1], [0, -1, 1]],
}
"""Cells of L1_0 whose manganese alternates along [111], [001] and [011] of the primitive cell."""
PHASES_OF_IRON = {
    ("bcc", "nm"): ((0, 0), (9.3, 9.8, 10.2)),
    ("fcc", "fm"): ((1, 1), (12.4, 12.9, 13.5)),
    ("fcc", "afm"): ((1, -1), (10.3, 11.1)),
    ("fcc", "afmd"): ((1, 1, -1, -1), (10.5, 11.1, 11.8)),
    ("fcc", "nm"): ((0, 0), (9.8, 10.3, 11.0)),
    ("hcp", "fm"): ((1, 1), (11.8, 12.6)),
    ("hcp", "nm"): ((0, 0), (9.8, 10.3)),
}
"""Signs of the moments and volumes per atom (Å³) of phases of iron that the first plan has few cells of."""
PATHS = {"Fe": (11.4, {"fm": (1, 1), "afm": (1, -1)}), "FeNi": (11.3475, {"fm": (1, 1)})}
RATIOS = (0.9, 1.0, 1.1, 1.2, 1.3, 1.41, 1.55)
"""Volumes (Å³ per atom) and orders of the paths from bcc to fcc, and c/a along them."""
RATTLES, SHAKEN, STEP = 3, 6, 0.08
"""Shaken cells of each and of each order of iron, by so much in each direction (Å, standard deviation)."""
STRAIN, DISPLACEMENT = 0.03, 0.1
SHORT = (1.8, 1.95, 2.1)
LONG = (0.9, 1.1)
LONGEST = {"Fe": 3.6, "Co": 2.6, "Ni": 1.6, "Mn": 4.4, "Cr": 3.3}
EXPANDED = (1.5, 2.2, 3.2)
"""Strains, displacements from ideal sites (Å), distances (Å) where repulsion begins, longest moments of the
oxides (μB) and held moments in their units, volumes of torn crystals."""
AXES = {"x": (1, 0, 0), "y": (0, 1, 0), "z": (0, 0, 1), "xy": (0.5**0.5, 0.5**0.5, 0), "xyz": (3**-0.5,) * 3}


def cubic(symbols, lattice, volume, c_over_a=1.0):
    """Two atoms of bcc or fcc type (a tetragonal cell along the axes), or four of L1_2."""
    if lattice == "L12":
        a = (4 * volume) ** (1 / 3)
        return Atoms(
            symbols,
            cell=[a] * 3,
            pbc=True,
            scaled_positions=[[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]],
        )
    ratio = c_over_a if lattice == "bcc" else 2**0.5 * c_over_a
    a = (2 * volume / ratio) ** (1 / 3)
    return Atoms(symbols, cell=[a, a, ratio * a], pbc=True, scaled_positions=[[0, 0, 0], [0.5] * 3])


def strains(isotropic):
    """Strains that keep the volume to first order: tetragonal, shear, and those that less symmetric crystals have."""
    d = STRAIN
    yield "tet+", np.diag([-d / 2, -d / 2, d])
    yield "tet-", np.diag([d / 2, d / 2, -d])
    yield "yz", np.array([[0, 0, 0], [0, 0, d], [0, d, 0]])
    if not isotropic:
        yield "xy", np.array([[0, d, 0], [d, 0, 0], [0, 0, 0]])
        yield "ortho", np.diag([d, -d, 0])


def zone_boundary(symbol, lattice, volume):
    """Two primitive cells along one of their axes: N of bcc, L of fcc; also the layers of antiferromagnets."""
    a = (volume * (2 if lattice == "bcc" else 4)) ** (1 / 3)
    return make_supercell(bulk(symbol, lattice, a=a), np.diag([1, 1, 2]))


def displaced(atoms, axis, index=1):
    moved = atoms.copy()
    moved.positions[index] += DISPLACEMENT * np.array(AXES[axis])
    return moved


def phases():
    """Name, ideal cell, whether it is cubic, and the displacements of its second atom that differ by symmetry."""
    for symbol, lattice in (("Fe", "bcc"), ("Ni", "fcc"), ("Al", "fcc"), ("Co", "fcc"), ("Fe", "fcc")):
        yield (
            f"{symbol}_{lattice}",
            cubic(symbol * 2, lattice, VOLUME[symbol]),
            True,
            "z" if lattice == "bcc" else "xz",
        )
    a = (4 * VOLUME["Co"] / (3**0.5 * 1.62)) ** (1 / 3)
    yield "Co_hcp", bulk("Co", "hcp", a=a, c=1.62 * a), False, "xz"
    for pair in ("FeCo", "FeAl", "NiAl", "CoAl", "FeNi"):
        volume = sum(VOLUME[s] for s in (pair[:2], pair[2:])) / 2 * (0.94 if "Al" in pair else 1.0)
        yield f"{pair}_B2", cubic(pair, "bcc", volume), True, "z"
        if pair in ("FeNi", "FeCo"):
            yield f"{pair}_L10", cubic(pair, "fcc", volume, 0.99), False, "xz"
    for one, three in (("Fe", "Ni"), ("Al", "Ni"), ("Ni", "Fe"), ("Al", "Fe")):
        volume = (VOLUME[one] + 3 * VOLUME[three]) / 4 * (0.95 if "Al" in (one, three) else 1.0)
        yield f"{three}3{one}_L12", cubic(one + three * 3, "L12", volume), True, "xz"


def bent():
    """Strained phases, and phases with an atom displaced."""
    for name, atoms, isotropic, axes in phases():
        yield from strained_and_displaced(name, atoms, isotropic, axes, ferromagnet)


def strained_and_displaced(name, atoms, isotropic, axes, magnetic):
    """What elastic constants and phonons of a phase are made of; `magnetic` gives a cell its moments."""
    for tag, strain in strains(isotropic):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        yield f"x_{name}_{tag}", f"strain_{name}", magnetic(strained)
    for axis in axes:
        yield f"x_{name}_u{axis}", f"frozen_{name}", magnetic(displaced(atoms, axis))


def later_phases():
    """As `phases`, with a sign for the moment of each atom."""
    for symbol, lattice, signs in (("Cr", "bcc", (1, -1)), ("Mn", "fcc", (1, -1)), ("Pt", "fcc", (0, 0))):
        cell = cubic(symbol * 2, lattice, VOLUMES[symbol])
        yield f"{symbol}_{lattice}", cell, symbol != "Mn", "z" if lattice == "bcc" else "xz", signs
    for pair in ("FePt", "CoPt"):
        volume = (VOLUMES[pair[:2]] + VOLUMES["Pt"]) / 2
        yield f"{pair}_L10", cubic(pair, "fcc", volume, 0.97), False, "xz", (1, 1)
    for pair in ("MnPt", "MnNi"):
        other = pair[2:]
        volume = (13.0 + VOLUMES[other]) / 2
        cell = cubic(["Mn", "Mn", other, other], "L12", volume)
        cell.set_cell(cell.cell.array * [1.02, 1.02, 0.96], scale_atoms=True)
        yield f"{pair}_L10afm", cell, False, "xz", (1, -1, 0, 0)
    for name, (_, a) in ROCKSALT.items():
        yield f"{name}_B1", rocksalt(name, a), False, "xz", (1, -1, 0, 0)


def rocksalt(name, a):
    """Two formula units, layers of the metal along z."""
    metal, other = name[:2], name[2:]
    return Atoms(
        [metal, metal, other, other],
        cell=[a / 2**0.5, a / 2**0.5, a],
        pbc=True,
        scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0, 0, 0.5]],
    )


def later():
    """Phases of the later elements, strained, displaced, and shaken nitrides and oxides."""
    for name, atoms, isotropic, axes, signs in later_phases():
        known = dict(MOMENTS)
        if name.endswith("_B1"):
            known[name[:2]] = ROCKSALT[name.removesuffix("_B1")][0]
        moments = [sign * known[s] for sign, s in zip(signs, atoms.get_chemical_symbols(), strict=True)]
        yield from strained_and_displaced(name, atoms, isotropic, axes, partial(start, moments=moments))
        rng = np.random.default_rng(list(name.encode()))
        for k in range(RATTLES if name.endswith("_B1") else 0):
            shaken = atoms.copy()
            shaken.set_cell(
                atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.015, size=(3, 3))), scale_atoms=True
            )
            shaken.positions += rng.normal(scale=STEP, size=(len(atoms), 3))
            yield (
                f"x_{name}_rattled_{k}",
                "rat4_B1",
                start(shaken, rng.uniform(0.6, 1.1) * np.array(moments), held=True),
            )


def long_moments():
    """Metals with moments as long as oxides of the same elements have them, which must not pull those of metals up."""
    metals = [(name, atoms, (1,) * len(atoms)) for name, atoms, *_ in phases() if "Al" not in name]
    metals += [(name, atoms, signs) for name, atoms, _, _, signs in later_phases() if name[-2:] != "B1"]
    for (name, atoms, signs), factor in product(metals, LONG):
        lengths = [factor * LONGEST.get(s, 0.0) for s in atoms.get_chemical_symbols()]
        if np.any(np.multiply(signs, lengths)):
            held = start(atoms, np.multiply(signs, lengths), held=True)
            yield f"x_{name}_long_{factor}", f"{name}_len", held


def held_moments():
    """Moments held where few calculations are and the energy is flat or the free calculation has none."""
    for volume, moment in product((15.1, 15.7, 16.6), (0.2, 0.4, 0.8)):
        cell = cubic("Pt2", "fcc", volume)
        yield f"x_Pt_fcc_{volume}_held_{moment}", "mscan_Pt", start(cell, [moment, moment], held=True)
    for name, (lattice, volume, lengths) in SCANNED.items():
        symbols = re.findall("[A-Z][a-z]?", name) * (1 if len(name) > 2 else 2)
        kind = f"{name}_len" if len(name) > 2 else f"mscan_{name}"
        for stretch, length, sign in product((0.95, 1.04), lengths, (1, -1)):
            cell = cubic(symbols, lattice, volume * stretch)
            moments = [length, 0.0 if symbols[1] == "Al" else sign * length]
            tag = "fm" if sign > 0 else "afm"
            if sign > 0 or moments[1]:
                yield (
                    f"x_{name}_{lattice}_{stretch}_{tag}_held_{length}",
                    kind,
                    start(cell, moments, held=True),
                )
    for other, (first, second) in product(("Al", "Ni", "Pt", "Co"), ((1.5, 2.5), (-2.0, 2.5), (0.5, 1.5))):
        cell = diagonal(["Mn", "Mn", "Mn", other], (3 * VOLUMES["Mn"] + VOLUMES[other]) / 4, (2, 1, 3, 0))
        moments = [first, second, second, MOMENTS[other]]
        yield f"x_Mn3{other}_D03_held_{first}_{second}", f"Mn3{other}_len", start(cell, moments, held=True)


def layers_of_rocksalt():
    """Antiferromagnetic layers along [111], the order of the oxides in experiment, in cells of four atoms."""
    for name, (moment, a) in ROCKSALT.items():
        for stretch in ("", "_0.97", "_1.03"):
            crystal = bulk(name, "rocksalt", a=a * float(stretch[1:] or 1))
            cell = make_supercell(crystal, [[0, 1, 1], [1, 0, 1], [1, 1, 0]])
            cell = cell[np.argsort(cell.numbers != atomic_numbers[name[:2]], kind="stable")]
            tagged = start(cell, [moment, -moment, 0.0, 0.0])
            yield f"x_{name}_B1_layers111{stretch}", f"{name}_B1_layers", tagged


def layered():
    """Phonons at the boundary of the zone, and antiferromagnetic layers."""
    yield from layers_of_rocksalt()
    for symbol, lattice in (("Fe", "bcc"), ("Ni", "fcc"), ("Al", "fcc"), ("Co", "fcc")):
        cell = zone_boundary(symbol, lattice, VOLUME[symbol])
        for axis in ("x", "z", "xy"):
            name = f"{symbol}_{lattice}"
            yield f"x_{name}_zb_u{axis}", f"frozen_{name}", ferromagnet(displaced(cell, axis))
    for lattice, volume in (("bcc", 11.4), ("fcc", 10.7), ("fcc", 11.4)):
        layers = zone_boundary("Fe", lattice, volume)
        yield f"x_Fe_{lattice}_layers_{volume}", f"layers_Fe_{lattice}", with_moments(layers, [2.0, -2.0])


def ends():
    """Where the data end: torn crystals, and atoms that are too close."""
    symbols = tuple(MOMENT)
    for symbol in symbols:
        for factor in EXPANDED:
            crystal = cubic(symbol * 2, "fcc", factor * VOLUME[symbol])
            yield f"x_{symbol}_fcc_expanded_{factor}", "expanded", ferromagnet(crystal, 1.2)
    for i, one in enumerate(symbols):
        for other in symbols[i:]:
            for distance in SHORT:
                cell = cubic([one, other], "bcc", (VOLUME[one] + VOLUME[other]) / 2)
                cell.positions[1] *= distance / np.linalg.norm(cell.positions[1])
                yield f"x_{one}{other}_short_{distance}", "short", ferromagnet(cell, 0.7, held=True)


def paths():
    """Body-centred tetragonal cells of one volume between bcc (c/a = 1) and fcc (√2), and beyond."""
    for name, (volume, orders) in PATHS.items():
        for ratio, (order, signs) in product(RATIOS, orders.items()):
            cell = cubic(name if len(name) > 2 else name * 2, "bcc", volume)
            edge = (2 * volume / ratio) ** (1 / 3)
            cell.set_cell([edge, edge, ratio * edge], scale_atoms=True)
            moments = [sign * MOMENT[s] for sign, s in zip(signs, cell.get_chemical_symbols(), strict=True)]
            yield f"x_{name}_path_{ratio:.2f}_{order}", f"{name}_bain_{order}", start(cell, moments)


def collinear_orders():
    """Moments held up and down in cells of four and eight atoms: the exchange of more than the nearest neighbours."""
    bcc = {s: cubic(s * 2, "bcc", VOLUME[s]) for s in ("Fe", "Co")} | {"FeCo": cubic("FeCo", "bcc", 11.5)}
    cells = {f"{name}_bcc": cell * (2, 1, 1) for name, cell in bcc.items()}
    cells |= {f"{s}_fcc": cubic(s * 4, "L12", VOLUME[s]) for s in ("Fe", "Co", "Ni")}
    for (name, cell), order in product(cells.items(), ("-+++", "--++", "-+-+")):
        if not (name.endswith("fcc") and order == "-+-+"):  # the same as --++
            yield f"x_{name}_order_{order}", f"order_{name}", ordered(cell, order)
    for symbol, order in product(("Fe", "Co"), ("++--", "-+++")):  # B32 and D0_3 of one element
        yield (
            f"x_{symbol}_bcc_diagonal_{order}",
            f"order_{symbol}_bcc",
            ordered(diagonal(symbol * 4, VOLUMES[symbol]), order),
        )
    for symbol in ("Fe", "Co", "Ni"):
        for order in ("++--", "-+++"):  # layers along [001]
            stack = cubic(symbol * 2, "fcc", VOLUME[symbol]) * (1, 1, 2)
            yield f"x_{symbol}_fcc_layers001_{order}", f"order_{symbol}_fcc", ordered(stack, order)
        layers = zone_boundary(symbol, "fcc", VOLUME[symbol])
        yield f"x_{symbol}_fcc_layers111_+-", f"order_{symbol}_fcc", ordered(layers, "+-")
    for name, (a, c) in {"MnPt": (4.0, 3.67), "MnNi": (3.74, 3.52)}.items():
        alloy = Atoms(
            [name[:2], name[2:]], scaled_positions=[[0] * 3, [0.5] * 3], cell=[a / 2**0.5] * 2 + [c], pbc=True
        )
        for tag, shape in MANGANESE.items():
            cell = make_supercell(alloy, shape)
            cell = cell[np.argsort(cell.numbers != atomic_numbers["Mn"], kind="stable")]
            yield f"x_{name}_L10_order_{tag}", f"order_{name}", start(cell, [3.2, -3.2, 0.0, 0.0])
    eight = bulk("Fe", "bcc", a=(2 * VOLUME["Fe"]) ** (1 / 3)) * (2, 2, 2)
    for order in ("-+++++++", "--++++++", "-++++++-"):
        yield f"x_Fe_bcc_order_{order}", "order_Fe_bcc", ordered(eight, order)


def diagonal(symbols, volume, places=(0, 1, 2, 3)):
    """Four atoms along the diagonal of a cube of two lattice constants of bcc, a quarter apart: B32, D0_3."""
    primitive = bulk("Fe", "fcc", a=(16 * volume) ** (1 / 3)).cell
    return Atoms(symbols, cell=primitive, pbc=True, scaled_positions=np.outer(places, np.ones(3)) / 4)


def ordered(cell, order):
    """With the moment of each atom held, up or down."""
    signs = [1 if sign == "+" else -1 for sign in order]
    return start(cell, [sign * MOMENT[s] for sign, s in zip(signs, cell.symbols, strict=True)], held=True)


def iron():
    """Shaken cells of iron, parallel and antiparallel, with shorter and longer moments; cells with a vacancy."""
    for lattice, (order, second), k in product(("bcc", "fcc"), {"fm": 1, "afm": -1}.items(), range(SHAKEN)):
        name = f"x_Fe_{lattice}_{order}_rattled_{k}"
        rng = np.random.default_rng(list(name.encode()))
        cell = cubic("Fe2", lattice, VOLUME["Fe"] * rng.uniform(0.92, 1.06))
        cell.set_cell(cell.cell.array @ (np.eye(3) + rng.normal(scale=0.02, size=(3, 3))), scale_atoms=True)
        cell.positions += rng.normal(scale=STEP, size=(2, 3))
        lengths = rng.uniform(0.5, 1.2) * MOMENT["Fe"] * rng.uniform(0.8, 1.0, size=2)
        yield name, f"rat2_Fe_{lattice}", start(cell, lengths * [1, second], held=True)
    for (lattice, order), (signs, volumes) in PHASES_OF_IRON.items():
        for volume in volumes:
            a = (volume * 2 / (1.58 * 3**0.5 / 2)) ** (1 / 3)
            cell = bulk("Fe", "hcp", a=a, c=1.58 * a) if lattice == "hcp" else cubic("Fe2", lattice, volume)
            cell *= (1, 1, len(signs) // 2)
            moments = [sign * MOMENT["Fe"] for sign in signs]
            yield f"x_Fe_{lattice}_{volume}_{order}", f"eos_Fe_{lattice}_{order}", start(cell, moments)
    for factor in (1.0, 0.97):
        cell = bulk("Fe", "bcc", a=(2 * factor * VOLUME["Fe"]) ** (1 / 3)) * (2, 2, 2)
        del cell[0]
        yield f"x_Fe_bcc_vacancy_{factor}", "vac7_Fe", ferromagnet(cell)


def candidates():
    """Ids, families, and cells with moments to start from, in the order of their value."""
    yield from chain(
        long_moments(),
        held_moments(),
        bent(),
        layered(),
        collinear_orders(),
        iron(),
        ends(),
        later(),
        paths(),
    )


def with_moments(atoms, moments, *, held=False):
    magnetic = atoms.copy()
    magnetic.set_array("initial_magmoms", np.array(moments, dtype=float))
    magnetic.set_array("hold_moment", np.array([held and m != 0 for m in moments]))
    return magnetic


def start(atoms, moments, *, held=False):
    """With moments, unless all of them are zero."""
    return with_moments(atoms, moments, held=held) if np.any(moments) else atoms.copy()


def ferromagnet(atoms, scale=1.0, *, held=False):
    return start(atoms, [scale * MOMENT[s] for s in atoms.get_chemical_symbols()], held=held)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("candidates.extxyz"))
    frames = []
    for config_id, config_type, atoms in candidates():
        if not reserved(config_id):
            atoms.info.update(config_id=config_id, config_type=config_type)
            frames.append(atoms)
    write(parser.parse_args().output, frames, format="extxyz")
    print(f"{len(frames)} candidates")
