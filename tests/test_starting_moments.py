"""Starting moments of every element and ion, and antiferromagnetic starts against the known order of real crystals."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.data import chemical_symbols
from ase.neighborlist import neighbor_list
from ase.spacegroup import crystal
from cli_tools import mmace_sim, summary_of, write_tiny_model

from mmace_sim.errors import ConfigError
from mmace_sim.structures.initial_moments import initial_magmoms
from mmace_sim.structures.ions import ion_name, oxidation_states, spin_moment
from mmace_sim.structures.magnetic_states import magnetic_state
from mmace_sim.structures.moment_table import COMPOUND, HIGH_SPIN, is_compound, usual_lengths


def rocksalt(formula, a, n=1):
    return bulk(formula, "rocksalt", a=a, cubic=True) * (n, n, n)


def corundum(metal, z, x, a, c, *, primitive=True):
    cell = [a, a, c, 90, 90, 120]
    return crystal(
        [metal, "O"], [(0, 0, z), (x, 0, 0.25)], spacegroup=167, cellpar=cell, primitive_cell=primitive
    )


def perovskite(a, b, length, n=1):
    places = [(0.5, 0.5, 0.5), (0, 0, 0), (0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5)]
    return Atoms(f"{a}{b}O3", scaled_positions=places, cell=[length] * 3, pbc=True) * (n, n, n)


def magnetite(*, primitive=True):
    places = [(1 / 8,) * 3, (1 / 2,) * 3, (0.2549,) * 3]
    cell = [8.39] * 3 + [90] * 3
    return crystal(
        ["Fe", "Fe", "O"], places, spacegroup=227, setting=2, cellpar=cell, primitive_cell=primitive
    )


def mn3pt(n=1):
    places = [(0, 0, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)]
    return Atoms("PtMn3", scaled_positions=places, cell=[3.83] * 3, pbc=True) * (n, n, n)


def parallel(atoms, moments, low, high):
    """Mean of s_i s_j over pairs of magnetic atoms at such distances."""
    signs = np.sign(moments[:, 2])
    i, j, d = neighbor_list("ijd", atoms, high)
    of_them = (d > low) & (signs[i] != 0) & (signs[j] != 0)
    assert of_them.any()
    return (signs[i] * signs[j])[of_them].mean()


# --- the table ----------------------------------------------------------------------------------------------------


def test_every_element_has_a_usual_moment():
    for table in (HIGH_SPIN, COMPOUND):
        assert set(table) <= set(chemical_symbols[1:])
        assert all(0 <= length <= 7 for length in table.values())
    assert {s for s in chemical_symbols[1:] if usual_lengths(Atoms([s]))[0] > 0} == set(HIGH_SPIN)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [("NiO", True), ("CrN", True), ("FeS2", True), ("MnF2", True), ("LaMnO3", True), ("Fe4N", False),
     ("Fe54N", False), ("FeAl", False), ("Mn3Pt", False), ("O2", False), ("FeH", False)],
)  # fmt: skip
def test_compounds_are_told_from_metals(formula, expected):
    assert is_compound(Atoms(formula)) is expected


def test_the_table_is_used_and_kept_within_the_range_of_a_model():
    nio = bulk("NiO", "rocksalt", a=4.17)
    moments, note = initial_magmoms(nio)
    np.testing.assert_allclose(moments[:, 2], [2.0, 0.0])
    assert note == "no moments in the file, moments initialised ferromagnetic along z (Ni 2 μB, O 0 μB)"
    np.testing.assert_allclose(initial_magmoms(bulk("NiAl", "cesiumchloride", a=2.9))[0][:, 2], [0.7, 0.0])
    for how in ("fm", "high-spin", "low-spin", "random:1"):
        moments, note = initial_magmoms(nio, how, largest={28: 1.0, 8: 0.1})
        np.testing.assert_allclose(np.linalg.norm(moments, axis=1), [0.9, 0.0])
        assert "Ni 0.9 μB" in note
    two = make_supercell(nio, np.diag([2, 1, 1]))
    assert abs(initial_magmoms(two, "afm", largest={28: 1.0})[0]).max() == pytest.approx(0.9)


# --- ions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "metal", "state"),
    [("NiO", 28, 2), ("Cr2O3", 24, 3), ("Fe3O4", 26, 8 / 3), ("CrN", 24, 3), ("LiFePO4", 26, 2), ("MnF2", 25, 2),
     ("LaMnO3", 25, 3), ("CrI3", 24, 3), ("EuO", 63, 2)],
)  # fmt: skip
def test_oxidation_states(formula, metal, state):
    assert oxidation_states(Atoms(formula))[metal] == pytest.approx(state)


@pytest.mark.parametrize("formula", ["Mn3Pt", "FeAl", "Fe4N", "KFe2Se2", "HLiNaKFONiClBrI"])
def test_oxidation_states_that_nobody_knows(formula):
    assert oxidation_states(Atoms(formula)) == {}


@pytest.mark.parametrize(
    ("symbol", "state", "high", "low"),
    [("Ti", 3, 1, 1), ("V", 3, 2, 2), ("Cr", 3, 3, 3), ("Mn", 2, 5, 1), ("Mn", 3, 4, 2), ("Mn", 4, 3, 3),
     ("Fe", 2, 4, 0), ("Fe", 3, 5, 1), ("Co", 2, 3, 1), ("Co", 3, 4, 0), ("Ni", 2, 2, 2), ("Ni", 3, 3, 1),
     ("Cu", 2, 1, 1), ("Zn", 2, 0, 0), ("Ru", 4, 2, 2), ("Ir", 4, 1, 1), ("Ce", 3, 1, 1), ("Eu", 2, 7, 7),
     ("Gd", 3, 7, 7), ("Yb", 3, 1, 1), ("U", 4, 2, 2), ("O", -2, 0, 0), ("Fe", 2.5, 4.5, 0.5)],
)  # fmt: skip
def test_unpaired_electrons_of_ions(symbol, state, high, low):
    z = chemical_symbols.index(symbol)
    assert spin_moment(z, state) == pytest.approx(high)
    assert spin_moment(z, state, low_spin=True) == pytest.approx(low)


def test_high_and_low_spin_of_a_compound():
    lco = perovskite("La", "Co", 3.83)
    moments, note = initial_magmoms(lco, "high-spin")
    assert moments[1, 2] == 4.0
    assert note.endswith("(La 0 μB, Co 4 μB, O 0 μB; by the formula Co3+)")
    assert not initial_magmoms(lco, "low-spin")[0].any()
    assert "no ion has a moment" in initial_magmoms(lco, "low-spin")[1]
    assert ion_name("Fe", 8 / 3) == "Fe2.67+"


def test_tetrahedra_stay_high_spin():
    lengths = initial_magmoms(magnetite(), "low-spin")[0][:6, 2]
    np.testing.assert_allclose(lengths, [14 / 3] * 2 + [2 / 3] * 4)


def test_high_and_low_spin_of_a_metal():
    for how, moment in (("high-spin", 2.5), ("low-spin", 1.0)):
        moments, note = initial_magmoms(bulk("Fe"), how)
        assert moments[0, 2] == moment
        assert "no oxidation states" in note


# --- antiferromagnets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("formula", "a"), [("NiO", 4.17), ("MnO", 4.44), ("FeO", 4.33), ("CoO", 4.26)])
def test_rocksalt_oxides_order_along_a_body_diagonal(formula, a):
    """Second neighbours, at 180° across oxygen, are opposite, and there is one propagation vector, not a mixture."""
    atoms = rocksalt(formula, a, 2)
    moments, note = initial_magmoms(atoms, "afm")
    assert parallel(atoms, moments, 0.9 * a, 1.1 * a) == -1
    assert parallel(atoms, moments, 0.6 * a, 0.8 * a) == 0
    metal = moments[:, 2] != 0
    diagonals = np.array([(1, 1, 1), (-1, 1, 1), (1, -1, 1), (1, 1, -1)])
    waves = np.exp(1j * np.pi / a * atoms.positions[metal] @ diagonals.T)
    amplitudes = abs((np.sign(moments[metal, 2])[:, None] * waves).mean(axis=0))
    np.testing.assert_allclose(np.sort(amplitudes), [0, 0, 0, 1], atol=1e-9)
    assert "16 up, 16 down by superexchange, total 0 μB" in note


@pytest.mark.parametrize("primitive", [True, False])
def test_corundum_chromium_and_iron_order_differently(primitive):
    cr2o3 = corundum("Cr", 0.3475, 0.3058, 4.96, 13.59, primitive=primitive)
    moments = initial_magmoms(cr2o3, "afm")[0]
    assert parallel(cr2o3, moments, 2.5, 2.75) == -1  # across a face, + - along c
    assert parallel(cr2o3, moments, 2.75, 2.95) == -1  # across an edge, in a layer
    fe2o3 = corundum("Fe", 0.3553, 0.3059, 5.03, 13.75, primitive=primitive)
    moments = initial_magmoms(fe2o3, "afm")[0]
    assert parallel(fe2o3, moments, 2.8, 2.93) == -1
    assert parallel(fe2o3, moments, 2.93, 3.1) == 1  # ferromagnetic layers
    assert parallel(fe2o3, moments, 3.3, 3.8) == -1


@pytest.mark.parametrize("primitive", [True, False])
def test_magnetite_is_a_ferrimagnet(primitive):
    atoms = magnetite(primitive=primitive)
    moments, note = initial_magmoms(atoms, "afm")
    signs = np.sign(moments[atoms.numbers == 26, 2])
    n = len(signs) // 3
    assert (signs[:n] == 1).all()  # tetrahedra
    assert (signs[n:] == -1).all()  # octahedra
    assert f"{n} up, {2 * n} down by superexchange" in note


def test_other_compounds():
    rutile = crystal(
        ["Mn", "F"], [(0, 0, 0), (0.305, 0.305, 0)], spacegroup=136, cellpar=[4.87, 4.87, 3.31, 90, 90, 90]
    ) * (1, 1, 2)
    moments = initial_magmoms(rutile, "afm")[0]
    assert parallel(rutile, moments, 3.2, 3.4) == 1  # along c
    assert parallel(rutile, moments, 3.7, 3.9) == -1  # corner and centre
    mnte = crystal(
        ["Mn", "Te"],
        [(0, 0, 0), (1 / 3, 2 / 3, 1 / 4)],
        spacegroup=194,
        cellpar=[4.15, 4.15, 6.71, 90, 90, 120],
    ) * (2, 2, 1)
    moments = initial_magmoms(mnte, "afm")[0]
    assert parallel(mnte, moments, 3.3, 3.4) == -1  # layers
    assert parallel(mnte, moments, 4.1, 4.2) == 1
    ferrite = perovskite("La", "Fe", 3.9, 2)
    assert parallel(ferrite, initial_magmoms(ferrite, "afm")[0], 3.8, 4.0) == -1


def test_metals():
    ferh = bulk("FeRh", "cesiumchloride", a=2.98) * (2, 2, 2)
    moments, note = initial_magmoms(ferh, "afm")
    assert parallel(ferh, moments, 2.9, 3.1) == -1
    assert not moments[ferh.numbers == 45].any()
    assert "4 up, 4 down by near neighbours" in note
    one, note = initial_magmoms(mn3pt(), "afm")  # a triangle: two against one
    assert sorted(np.sign(one[1:, 2]).tolist()) in ([-1, -1, 1], [-1, 1, 1])
    assert "total 3 μB" in note
    atoms = mn3pt(2)
    moments = initial_magmoms(atoms, "afm")[0]
    assert moments.sum() == pytest.approx(0)
    assert parallel(atoms, moments, 2.6, 2.8) == pytest.approx(-1 / 3)  # as low as triangles allow


def test_larger_moments_decide():
    """Three moments in a row of alternating distances that cannot all be opposite: the strong pair is."""
    places = [(0, 0, 0), (2.6, 0, 0), (1.3, 2.25, 0)]
    triangle = Atoms("MnFeCo", places, cell=[20] * 3, pbc=True)
    signs = np.sign(initial_magmoms(triangle, "afm")[0][:, 2])
    assert signs.tolist() == [1, -1, -1]  # 3.0 against 2.5 and 1.7


def test_molecules_and_distorted_crystals():
    dimer = Atoms("MnOMn", [(0, 0, 0), (1.9, 0, 0), (3.8, 0, 0)])
    assert np.sign(initial_magmoms(dimer, "afm")[0][:, 2]).tolist() == [1, 0, -1]
    rng = np.random.default_rng(0)
    atoms = rocksalt("NiO", 4.17, 2)
    atoms.positions += 0.02 * rng.normal(size=atoms.positions.shape)
    moments = initial_magmoms(atoms, "afm")[0]
    assert parallel(atoms, moments, 3.9, 4.4) == -1


def test_the_order_does_not_depend_on_the_order_of_atoms():
    atoms = corundum("Fe", 0.3553, 0.3059, 5.03, 13.75, primitive=False)
    shuffled = np.random.default_rng(1).permutation(len(atoms))
    first, second = initial_magmoms(atoms, "afm")[0][:, 2], initial_magmoms(atoms[shuffled], "afm")[0][:, 2]
    assert abs(np.sum(first[shuffled] * second)) == pytest.approx(np.sum(first**2))


def test_a_doubled_cell_of_the_right_kind():
    """`eos --states afm` doubles a cell with one magnetic atom: along the body diagonal for NiO."""
    atoms, note = magnetic_state(bulk("NiO", "rocksalt", a=4.17), "afm")
    assert "doubled cell of 4 atoms" in note
    big = atoms * (2, 2, 2)
    moments = big.arrays["initial_magmoms"]
    assert parallel(big, moments, 4.0, 4.3) == -1


# --- on the command line ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "told"),
    [
        (None, "no moments in the file, moments initialised ferromagnetic along z (Ni 2 μB, O 0 μB)"),
        (
            "high-spin",
            "moments initialised high-spin ferromagnetic along z (Ni 2 μB, O 0 μB; by the formula Ni2+)",
        ),
        ("afm", "1 up, 1 down by superexchange, total 0 μB"),
    ],
)
def test_the_summary_says_what_was_assumed(how, told, tmp_path):
    model = write_tiny_model(tmp_path / "m.safetensors", elements=[8, 28])
    make_supercell(bulk("NiO", "rocksalt", a=4.17), [[0, 1, 1], [1, 0, 1], [1, 1, 0]]).write(
        tmp_path / "nio.cif"
    )
    flags = ["--initial-magmoms", how] if how else []
    mmace_sim(
        "relax", tmp_path / "nio.cif", "--model", model, "-o", tmp_path / "out", "--max-steps", "1",
        "--device", "cpu", "--fixed-cell", *flags,
    )  # fmt: skip
    notes = " ".join(summary_of(tmp_path / "out")["structures"][0]["notes"])
    assert told in notes


def test_words():
    with pytest.raises(ConfigError, match="choose file, fm, high-spin, low-spin, afm or random:SEED"):
        initial_magmoms(bulk("Fe"), "ferro")
    assert "low-spin" in mmace_sim("relax", "--help").output
