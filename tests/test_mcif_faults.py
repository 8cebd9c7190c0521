"""Faulty magnetic CIF files are refused with a sentence that names the entry, and never read as another structure."""

from pathlib import Path

import pytest

from mmace_sim.errors import StructureError
from mmace_sim.io.collection import read_structures

TEXT = (Path(__file__).parents[1] / "examples" / "structures" / "fcc_afmd.mcif").read_text()
SECOND = "2 -x+1/2,-y+1/2,-z+1/4,+1"
LISTS = TEXT[TEXT.index("loop_") : TEXT.index("loop_\n_atom_site_label")]
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
        (LISTS, "_space_group_magn.number_BNS 139.540\n", "BNS 139.54.*List its operations"),
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
