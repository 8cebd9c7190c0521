"""Files that an earlier version handled wrongly, each with what is right; the others of this kind are where their kind is tested."""

import sys
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.calculator import PropertyNotImplementedError
from cli_tools import mmace_sim, summary_of

from mmace_sim.calculator import MMACECalculator
from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.io.collection import load_structures, read_structures

READERS, STRUCTURES = (Path(__file__).parent / "cases" / name for name in ("readers", "structures"))


def test_a_module_that_is_named_is_not_imported(capsys):
    sys.modules.pop("this", None)
    load_structures([STRUCTURES / "imports_a_module"])
    assert "this" not in sys.modules
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["nat1e9", "nat1e400", "props1e9", "nat_mutated"])
def test_huge_headers_are_refused(name):
    with pytest.raises(StructureError, match="announce"):
        read_structures(STRUCTURES / "huge_headers" / f"{name}.extxyz")


def test_a_name_with_an_at_sign_is_a_name():
    items = [read_structures(STRUCTURES / "at_sign" / name)[0] for name in ("POSCAR", "POSCAR@3")]
    assert [round(item.atoms.cell.volume, 2) for item in items] == [22.67, 39.17]


def test_a_compressed_cif_is_the_plain_one():
    plain, packed = (read_structures(READERS / name)[0].atoms for name in ("fe_gz.cif", "afm.cif.gz"))
    np.testing.assert_array_equal(get_magmoms(plain), get_magmoms(packed))
    assert get_magmoms(plain)[:, 0].tolist() == pytest.approx([1.5, -1.5])
    np.testing.assert_array_equal(plain.cell, packed.cell)


def test_a_database_with_vectors():
    (item,) = read_structures(READERS / "nc.db")
    np.testing.assert_allclose(get_magmoms(item.atoms), [[0, 0, 2], [0, 2, 0]])


def test_sites_of_a_posfile_have_their_own_types(model, tmp_path):
    result = mmace_sim("exchange", READERS / "fe3.extxyz", "-m", model, "-o", tmp_path / "o", "--magmoms", "fixed",
                       "--cutoff", "2.6", "--routes", "derivatives", "--no-figures")  # fmt: skip
    assert result.exit_code in (0, 3), result.output
    (file,) = (tmp_path / "o").glob("**/uppasd/posfile")
    assert [line.split()[:2] for line in file.read_text().splitlines()] == [[n, n] for n in "123"]


def test_a_molecule_has_no_volume_and_no_stress(model, tmp_path):
    mmace_sim("relax", READERS / "dimer.extxyz", "-m", model, "-o", tmp_path / "o", "--max-steps", "5")
    (entry,) = summary_of(tmp_path / "o")["structures"]
    assert "volume" not in entry["message"]
    assert entry["volume"] is None
    (item,) = read_structures(READERS / "dimer_box.extxyz")
    item.atoms.calc = MMACECalculator(model)
    with pytest.raises(PropertyNotImplementedError):
        item.atoms.get_stress()
