"""Faulty magnetic CIF files are refused with a sentence that names the entry, and never read as another structure."""

from pathlib import Path

import numpy as np
import pytest
from pymatgen.symmetry.maggroups import MagneticSpaceGroup

from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.io.collection import read_structures
from mmace_sim.io.space_groups import magnetic_operations_of

TEXT = (Path(__file__).parents[1] / "examples" / "structures" / "fcc_afmd.mcif").read_text()
SECOND = "2 -x+1/2,-y+1/2,-z+1/4,+1"
LISTS = TEXT[TEXT.index("loop_") : TEXT.index("loop_\n_atom_site_label")]
BNS = "_space_group_magn.number_BNS 139.540\n"
VECTOR = "loop_\n_parent_propagation_vector.id\n_parent_propagation_vector.kxkykz\nk1 "


def read(tmp_path, old, new):
    assert old in TEXT
    (tmp_path / "a.mcif").write_text(TEXT.replace(old, new))
    return read_structures(tmp_path / "a.mcif")[0].atoms


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (SECOND, SECOND.replace("+1/4,+1", "+1/4,+2"), r"z\+1/4,\+2'.* time reversal 2"),
        ("2 x,y,z+1/2,-1", "2 x,y,z+1/2,0", r"x,y,z\+1/2,0'.* time reversal 0"),
        ("1 x,y,z,+1\n2 -x", "1 x, y ,z,+1\n2 -x", "words in place of 2"),
        ("1 x,y,z,+1\n2 x", "1 x, y ,z,+1\n2 x", "words in place of 2"),
        (f"1 x,y,z,+1\n{SECOND}", "1 x, y, z, +1", "words in place of 2"),
        (SECOND, "2 z,x,y,+1\n3 y, z, x, +1\n4 -x,-y,-z,+1", "words in place of 2"),
        ("2 x,y,z+1/2,-1", "2 x, y, z+1/4, +1\n3 x,y,z+1/2,-1", "words in place of 2"),
        (SECOND, "2 0,-y+1/2,-z+1/4,+1", "'0,-y.* determinant is 0"),
        (SECOND, "2 2x,y,z,+1", "'2x,y,z.* determinant is 2"),
        (SECOND, "2 x,y,+1", r"'x,y,\+1'.* three components"),
        (SECOND, "2 x,y,z,z,+1", r"'x,y,z,z,\+1'"),
        ("2 x,y,z+1/2,-1", "2 x,y,1/2,-1", "'x,y,1/2,-1'.* determinant is 0"),
        (LISTS, VECTOR + "[0.3 0 0]\n" + LISTS, "words in place of 2"),
        (LISTS, VECTOR + "'[0.3 0]'\n" + LISTS, r"kxkykz .\[0.3 0\]"),
        (LISTS, VECTOR + "'[a 0 0]'\n" + LISTS, r"kxkykz .\[a 0 0\]"),
        ("Fe1 0.0 0.0 1.90", "Fe1 0.0 0.0 1.90\nFe1 0 0 -1.9", "two moments are given for site Fe1"),
        ("_cell_length_b   2.496087", "_cell_length_b -2.496087", "_cell_length_b .* is -2.496087"),
        ("_cell_length_c   7.060000", "_cell_length_c ?", r"_cell_length_c .* is '\?'; expected a positive"),
        ("alpha   90.0\n", "alpha 0\n", "_cell_angle_alpha .* is 0; expected an angle"),
        ("gamma   90.0\n", "gamma ?\n", r"_cell_angle_gamma .* is '\?'; expected an angle"),
        ("gamma   90.0\n", "gamma 180\n", "_cell_angle_gamma .* is 180; expected an angle"),
        ("alpha   90.0\n_cell_angle_beta    90.0", "alpha 20\n_cell_angle_beta 20", "no cell has the angles"),
        (
            LISTS,
            "_space_group_magn.number_BNS 139.999\n",
            "no magnetic space group with the BNS number 139.999",
        ),
        (LISTS, "_space_group_magn.number_BNS 227.131\n", "does not have the symmetry .*BNS 227.131"),
        (
            LISTS,
            BNS + "_space_group_magn.transform_BNS_Pp_abc 'a,b,2c;0,0,0'\n",
            "setting of its own .*List its",
        ),
        (LISTS, "_space_group_magn.name_BNS \"P4'/mbm'\"\n", "its magnetic symmetry is unknown"),
        (LISTS, "_space_group_magn.number_OG 127.6.1029\n", "its magnetic symmetry is unknown"),
    ],
)
def test_faults_are_refused(tmp_path, old, new, message):
    with pytest.raises(StructureError, match=message):
        read(tmp_path, old, new)


def test_quoted_operations_with_spaces_are_read_whole(tmp_path):
    assert len(read(tmp_path, SECOND, "2 '-x+1/2, -y+1/2, -z+1/4, +1'")) == 4
    assert len(read(tmp_path, LISTS, VECTOR + "'[0 0 1/2]'\n" + LISTS)) == 4
    assert len(read(tmp_path, LISTS, VECTOR + "?\n" + LISTS)) == 4


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (SECOND, SECOND.replace(",", ", ")),  # the last row: what is left is a group
        ("2 x,y,z+1/2,-1", "2 x, y, z+1/2, -1"),
    ],
)
def test_a_torn_row_is_never_left_out_in_silence(tmp_path, old, new):
    with pytest.raises(StructureError, match=r"a row of a loop has \d+ words in place of 2"):
        read(tmp_path, old, new)


def test_a_torn_row_of_another_loop_is_no_matter(tmp_path):
    extra = "loop_\n_citation_id\n_citation_title\n_citation_year\n1 two words 1999\n"
    (tmp_path / "a.mcif").write_text(TEXT + extra)
    assert len(read_structures(tmp_path / "a.mcif")[0].atoms) == 4


PUBLISHED = {
    # MnF2, MAGNDATA 0.15: Mn at the corner up, in the centre down
    "MnF2": (
        "136.499", (4.8736, 4.8736, 3.2998, 90, 90, 90),
        ["Mn1 Mn 0 0 0", "F1 F 0.3050 0.3050 0"], "Mn1 0 0 4.6", "Mn2F4",
        {(0, 0, 0): (0, 0, 4.6), (0.5, 0.5, 0.5): (0, 0, -4.6)},
    ),
    # LaMnO3, MAGNDATA 0.1: planes of equal moments along a, stacked antiferromagnetically along b
    "LaMnO3": (
        "62.448", (5.7461, 7.6637, 5.5333, 90, 90, 90),
        ["La1 La 0.0511 0.2500 -0.0088", "Mn1 Mn 0 0 0.5", "O1 O 0.4844 0.2500 0.0791", "O2 O 0.3080 0.0408 0.7250"],
        "Mn1 3.87 0 0", "La4Mn4O12",
        {(0, 0, 0.5): (3.87, 0, 0), (0.5, 0, 0): (3.87, 0, 0), (0, 0.5, 0.5): (-3.87, 0, 0), (0.5, 0.5, 0): (-3.87, 0, 0)},
    ),
    # chromium without its wave: a simple cubic cell with opposite corner and centre
    "Cr": ("128.410", (2.91, 2.91, 2.92, 90, 90, 90), ["Cr1 Cr 0 0 0"], "Cr1 0 0 0.6", "Cr2",
           {(0, 0, 0): (0, 0, 0.6), (0.5, 0.5, 0.5): (0, 0, -0.6)}),
}  # fmt: skip


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_structures_from_the_number_of_their_group(tmp_path, name):
    number, cell, sites, moment, formula, expected = PUBLISHED[name]
    lines = ["data_x", f"_space_group_magn.number_BNS {number}"]
    for tag, value in zip(
        ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"), cell, strict=True
    ):
        lines.append(f"_cell_{tag} {value}")
    lines += [
        "loop_",
        "_atom_site_label",
        "_atom_site_type_symbol",
        *(f"_atom_site_fract_{x}" for x in "xyz"),
        *sites,
    ]
    lines += [
        "loop_",
        "_atom_site_moment.label",
        *(f"_atom_site_moment.crystalaxis_{x}" for x in "xyz"),
        moment,
    ]
    (tmp_path / "a.mcif").write_text("\n".join([*lines, ""]))
    (found,) = read_structures(tmp_path / "a.mcif")
    atoms = found.atoms
    assert f"BNS {number.rstrip('0')}" in found.notes[0]
    assert atoms.symbols.formula.format("metal") == formula
    for place, vector in expected.items():
        shift = atoms.get_scaled_positions() - place
        index = int(np.abs(shift - np.round(shift)).max(axis=1).argmin())
        assert np.allclose(atoms.get_scaled_positions()[index] % 1, np.array(place) % 1, atol=1e-9)
        assert np.allclose(get_magmoms(atoms)[index], vector)
    assert np.count_nonzero(np.linalg.norm(get_magmoms(atoms), axis=1)) == len(expected)


@pytest.mark.filterwarnings("ignore")  # of pymatgen
@pytest.mark.parametrize(
    "number", [[2, 7], [15, 90], [62, 448], [136, 499], [139, 540], [166, 101], [205, 36], [227, 131]]
)
def test_operations_of_a_number_are_those_of_another_table(number):
    """pymatgen's table comes from ISO-MAG; spglib's from its Hall symbols.."""
    metric = {166: np.array([[1, -0.5, 0], [-0.5, 1, 0], [0, 0, 2]])}.get(number[0], np.eye(3))
    ours = magnetic_operations_of(f"{number[0]}.{number[1]}", metric)

    def key(rotation, shift, time):
        whole = np.round(np.array(shift) % 1 * 24).astype(int) % 24
        return (*np.round(rotation).astype(int).ravel().tolist(), *whole.tolist(), int(time))

    theirs = MagneticSpaceGroup(number).symmetry_ops
    assert {key(*operation) for operation in ours} == {
        key(operation.rotation_matrix, operation.translation_vector, operation.time_reversal)
        for operation in theirs
    }
