"""Write the starting structures of iron in examples/structures, and of alloys in examples/alloys.

Run ``python examples/make_structures.py [FOLDER]``; the result is the same every time.
"""

import json
import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.io import write
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.cif import CifWriter

BCC_A = 2.83  # Å, ferromagnetic
FCC_AFMD_A = 3.53
FCC_AFM_A = 3.48
FCC_FM_A = 3.64
FCC_NM_A = 3.45
HCP_A, HCP_C_OVER_A = 2.46, 1.58
BCC_MOMENT, FCC_FM_MOMENT, FCC_AFMD_MOMENT, FCC_AFM_MOMENT = 2.2, 2.5, 1.9, 1.3  # μB
SEED = 20261124

# One atom; inversion between layers 1 and 2 keeps the moment, the translation by half the cell reverses it.
MCIF_AFMD = """\
data_fcc_iron_double_layer_antiferromagnet
_chemical_formula_sum   'Fe4'
_cell_length_a   {a:.6f}
_cell_length_b   {a:.6f}
_cell_length_c   {c:.6f}
_cell_angle_alpha   90.0
_cell_angle_beta    90.0
_cell_angle_gamma   90.0
loop_
_space_group_symop_magn_operation.id
_space_group_symop_magn_operation.xyz
1 x,y,z,+1
2 -x+1/2,-y+1/2,-z+1/4,+1
loop_
_space_group_symop_magn_centering.id
_space_group_symop_magn_centering.xyz
1 x,y,z,+1
2 x,y,z+1/2,-1
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Fe1 Fe 0.0 0.0 0.0 1
loop_
_atom_site_moment.label
_atom_site_moment.crystalaxis_x
_atom_site_moment.crystalaxis_y
_atom_site_moment.crystalaxis_z
Fe1 0.0 0.0 {m:.2f}
"""


def with_moments(atoms: Atoms, moments: np.ndarray) -> Atoms:
    """The same atoms with collinear (n,) or vector (n, 3) moments in μB, in place of what they had."""
    atoms = atoms.copy()
    if atoms.has("initial_magmoms"):
        del atoms.arrays["initial_magmoms"]
    atoms.set_initial_magnetic_moments(np.asarray(moments, dtype=float))
    return atoms


def without_moments(atoms: Atoms) -> Atoms:
    atoms = atoms.copy()
    del atoms.arrays["initial_magmoms"]
    return atoms


def bcc(n: int = 1) -> Atoms:
    """The cubic two-atom cell of bcc iron, n × n × n."""
    return bulk("Fe", "bcc", a=BCC_A, cubic=True) * (n, n, n)


def fcc_layers(a: float, n_layers: int) -> Atoms:
    """Square (001) layers of fcc, stacked along z: a tetragonal cell with one atom in each layer."""
    side = a / np.sqrt(2)
    xy = [(0.0, 0.0), (0.5, 0.5)]
    scaled = [(*xy[layer % 2], layer / n_layers) for layer in range(n_layers)]
    return Atoms("Fe" * n_layers, scaled_positions=scaled, cell=[side, side, n_layers * a / 2], pbc=True)


def spiral(n_layers: int, moment: float) -> np.ndarray:
    """Moments in the xy plane that turn by one full circle over the layers."""
    angle = 2 * np.pi * np.arange(n_layers) / n_layers
    return moment * np.column_stack([np.cos(angle), np.sin(angle), np.zeros(n_layers)])


def strained_bcc() -> Atoms:
    """Stretched by 3 % along x, compressed by 2 % along z, sheared by 2 %."""
    atoms = without_moments(bcc())
    strain = np.array([[1.03, 0.02, 0.0], [0.02, 1.0, 0.0], [0.0, 0.0, 0.98]])
    atoms.set_cell(atoms.cell[:] @ strain, scale_atoms=True)
    return atoms


def rattled_bcc() -> Atoms:
    """16 atoms, displaced by 0.05 Å, with moments scattered in length and direction."""
    rng = np.random.default_rng(SEED)
    atoms = bcc(2)
    atoms.positions += rng.normal(scale=0.05, size=(len(atoms), 3))
    moments = np.tile([0.0, 0.0, BCC_MOMENT], (len(atoms), 1)) + rng.normal(scale=0.1, size=(len(atoms), 3))
    return with_moments(atoms, moments)


def bcc_vacancy() -> Atoms:
    """15 atoms around one vacancy."""
    atoms = bcc(2)
    del atoms[0]
    return with_moments(atoms, np.full(len(atoms), BCC_MOMENT))


def structures() -> dict[str, Atoms]:
    """Every starting structure by the name of its file."""
    fcc_cubic = bulk("Fe", "fcc", a=FCC_FM_A, cubic=True)
    fcc_primitive = bulk("Fe", "fcc", a=FCC_NM_A)
    hcp = bulk("Fe", "hcp", a=HCP_A, c=HCP_A * HCP_C_OVER_A)
    bcc_orthogonal = make_supercell(bcc(), np.diag([1, 1, 2]))
    canted = BCC_MOMENT * np.array([[0, 0, 1], [0, 0, 1], [1, 0, 0], [1, 0, 0]])
    return {
        "bcc_fm.cif": without_moments(bcc()),
        "bcc_afm.extxyz": with_moments(bcc(), [1.5, -1.5]),
        "bcc_nm.extxyz": with_moments(bcc(), [0.0, 0.0]),
        "bcc_strained.POSCAR": strained_bcc(),
        "bcc_rattled.extxyz": rattled_bcc(),
        "bcc_vacancy.extxyz": bcc_vacancy(),
        "bcc_canted.extxyz": with_moments(bcc_orthogonal, canted),
        "fcc_fm.json": with_moments(fcc_cubic, np.full(4, FCC_FM_MOMENT)),
        "fcc_afm.extxyz": with_moments(fcc_layers(FCC_AFM_A, 2), FCC_AFM_MOMENT * np.array([1, -1])),
        "fcc_afmd.mcif": with_moments(
            fcc_layers(FCC_AFMD_A, 4), FCC_AFMD_MOMENT * np.outer([1, 1, -1, -1], [0, 0, 1])
        ),
        "fcc_nm.extxyz": with_moments(fcc_primitive, [0.0]),
        "fcc_spiral.mcif": with_moments(fcc_layers(FCC_AFMD_A, 4), spiral(4, FCC_AFMD_MOMENT)),
        "hcp_nm.extxyz": with_moments(hcp, [0.0, 0.0]),
    }


def alloys() -> dict[str, Atoms]:
    """Elements and ordered compounds as from a database: cells of experiment, moments of antiferromagnets only."""
    l12 = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]

    def cubic(symbols: str, a: float, places: list) -> Atoms:
        return Atoms(symbols, scaled_positions=places, cell=[a] * 3, pbc=True)

    def layered(symbols: str, a: float, c: float) -> Atoms:
        """L1_0 in its cell of two atoms."""
        return Atoms(symbols, scaled_positions=b2, cell=[a / 2**0.5, a / 2**0.5, c], pbc=True)

    def rocksalt(symbol: str, a: float, moment: float) -> Atoms:
        """An oxide with antiferromagnetic layers along [111], in its cell of four atoms."""
        cell = np.array([[2, 1, 1], [1, 2, 1], [1, 1, 2]]) * a / 2
        places = [[0.0] * 3, [0.5] * 3, [0.25] * 3, [0.75] * 3]
        atoms = Atoms(f"{symbol}2O2", scaled_positions=places, cell=cell, pbc=True)
        return with_moments(atoms, [moment, -moment, 0.0, 0.0])

    b2 = [[0, 0, 0], [0.5] * 3]
    heusler = [[0.25] * 3, [0.75] * 3, [0.0] * 3, [0.5] * 3]
    primitive = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    return {
        "co_hcp.cif": without_moments(bulk("Co", "hcp", a=2.507, c=4.069)),
        "ni_fcc.cif": without_moments(bulk("Ni", "fcc", a=3.524)),
        "al_fcc.cif": bulk("Al", "fcc", a=4.05),
        "feco_b2.cif": cubic("FeCo", 2.857, b2),
        "feal_b2.cif": cubic("FeAl", 2.909, b2),
        "nial_b2.cif": cubic("NiAl", 2.887, b2),
        "feni_l10.cif": Atoms("FeNi", scaled_positions=b2, cell=[2.531, 2.531, 3.579], pbc=True),
        "fept_l10.cif": layered("FePt", 3.85, 3.71),
        "copt_l10.cif": layered("CoPt", 3.80, 3.70),
        "mnpt_l10.mcif": with_moments(
            Atoms("Mn2Pt2", scaled_positions=l12, cell=[4.00, 4.00, 3.67], pbc=True), [4.0, -4.0, 0.0, 0.0]
        ),
        "mnni_l10.mcif": with_moments(
            Atoms("Mn2Ni2", scaled_positions=l12, cell=[3.74, 3.74, 3.52], pbc=True), [3.5, -3.5, 0.0, 0.0]
        ),
        "cr_bcc.mcif": with_moments(bulk("Cr", "bcc", a=2.885, cubic=True), [1.0, -1.0]),
        "pt_fcc.cif": bulk("Pt", "fcc", a=3.924),
        "ni3fe_l12.cif": cubic("FeNi3", 3.553, l12),
        "ni3al_l12.cif": cubic("AlNi3", 3.572, l12),
        "nio_b1.mcif": rocksalt("Ni", 4.177, 1.6),
        "mno_b1.mcif": rocksalt("Mn", 4.445, 4.6),
        "co2feal_l21.cif": Atoms("Co2FeAl", scaled_positions=heusler, cell=5.73 * primitive, pbc=True),
    }


def to_pymatgen(atoms: Atoms):
    """The same structure with vector moments in the site property ``magmom``."""
    moments = atoms.get_initial_magnetic_moments()
    plain = atoms.copy()
    del plain.arrays["initial_magmoms"]
    structure = AseAtomsAdaptor.get_structure(plain)
    structure.add_site_property("magmom", [np.asarray(m).tolist() for m in moments])
    return structure


def mcif_text(name: str, atoms: Atoms) -> str:
    """The AFMD structure with its magnetic symmetry, as MAGNDATA writes it; others atom by atom."""
    if name == "fcc_afmd":
        return MCIF_AFMD.format(a=atoms.cell[0, 0], c=atoms.cell[2, 2], m=FCC_AFMD_MOMENT)
    return str(CifWriter(to_pymatgen(atoms), write_magmoms=True))


def write_one(path: Path, atoms: Atoms) -> None:
    """Write in the format that the suffix names."""
    if path.suffix == ".mcif":
        path.write_text(mcif_text(path.stem, atoms), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(to_pymatgen(atoms).as_dict(), indent=1) + "\n", encoding="utf-8")
    elif path.suffix == ".POSCAR":
        write(path, atoms, format="vasp", direct=True)
    else:
        write(path, atoms)


def main(folder: Path) -> None:
    for part, members in (("structures", structures()), ("alloys", alloys())):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for name, atoms in members.items():
            write_one(folder / part / name, atoms)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
