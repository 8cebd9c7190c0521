"""The journal: every digit back, nothing decoded from a structure, every damaged line named."""

import json

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian, FixCom, Hookean
from cli_tools import bcc
from hypothesis import given
from hypothesis import strategies as st

from mmace_sim.engine.journal import (
    Journal,
    atoms_from_record,
    atoms_to_record,
    fingerprint,
    read_journal,
)
from mmace_sim.errors import OutputError

ASE_ARRAY = '{"__ndarray__": [[1000000000000], "float64", [1]]}'
"""What ASE's decoder takes for an array of 7 TiB."""


def through_json(atoms):
    return atoms_from_record(json.loads(json.dumps(atoms_to_record(atoms))))


def test_structures_come_back_with_every_digit():
    atoms = bcc([[0.1, 0, 2.0], [0, 1 / 3, 2.0]], a=2.87 + 1e-13)
    atoms.arrays["float32"] = np.float32([1 / 3, 2])
    atoms.arrays["label"] = np.array(["a b", ""])
    atoms.arrays["flag"] = np.array([True, False])
    atoms.arrays["tensor"] = np.random.default_rng(0).normal(size=(2, 3, 3))
    atoms.info = {
        "text": "one\ntwo", "none": None, "nan": float("nan"), "list": [1, [2.5, "x"]], "dict": {"a": {"b": 1}},
        "array": np.arange(6).reshape(2, 3), "number": np.float64(1 / 3), "bytes that are no text": "\udcff",
    }  # fmt: skip
    atoms.set_constraint([FixAtoms([0]), FixCom(), FixCartesian(1, [True, False, True])])
    atoms.calc = SinglePointCalculator(
        atoms, energy=-1 / 3, forces=np.full((2, 3), 1 / 7), stress=np.ones(6) / 9
    )
    again = through_json(atoms)
    assert fingerprint(again) == fingerprint(atoms)
    for name, values in atoms.arrays.items():
        assert again.arrays[name].dtype == values.dtype
        np.testing.assert_array_equal(again.arrays[name], values)
    for name, value in atoms.info.items():
        np.testing.assert_equal(again.info[name], value)
    assert type(again.info["array"]) is np.ndarray
    for name, value in atoms.calc.results.items():
        if value is not None:
            np.testing.assert_array_equal(again.calc.results[name], value)
    assert [c.todict() for c in again.constraints] == [c.todict() for c in atoms.constraints]


def test_what_is_neither_number_nor_text_is_left_out_and_named():
    atoms = bcc()
    atoms.info = {
        "object": object(),
        "complex": 1j,
        "set": {1},
        5: "five",
        "nested": {"a": [object()]},
        "good": 1,
    }
    atoms.arrays["objects"] = np.array([object(), 1])
    atoms.arrays["complex"] = np.ones(2) * 1j
    atoms.set_constraint(Hookean(0, 1, rt=1.0, k=1.0))
    record = atoms_to_record(atoms)
    again = atoms_from_record(json.loads(json.dumps(record)))
    assert again.info == {"good": 1}
    assert set(again.arrays) == {"numbers", "positions", "initial_magmoms"}
    assert record["left_out"] == [
        "Hookean", "arrays 'objects'", "arrays 'complex'", "info 'object'", "info 'complex'", "info 'set'",
        "info '5'", "info 'nested'",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "value", [ASE_ARRAY, json.loads(ASE_ARRAY), {"__ase_objtype__": "atoms"}, f"_JSON {ASE_ARRAY}"]
)
def test_nothing_is_decoded_from_the_info_of_a_structure(value):
    atoms = bcc()
    atoms.info["a"] = value
    again = through_json(atoms).info["a"]
    assert type(again) is type(value)
    assert again == value


def written(path, n=3):
    with Journal(path) as journal:
        journal.append({"config": {"fmax": 0.01}, "inputs": {}})
        for k in range(n):
            journal.append({"key": f"a#{k}", "entry": {"energy": -1.5 * k}, "atoms": atoms_to_record(bcc())})
    return path.read_bytes()


@pytest.mark.parametrize(
    "line",
    [b"[]", b"3", b"null", b"{}", b'"text"', b'{"key": 1}', b'{"key": "a#1", "entry": null}', b"[" * 9999,
     b'{"key": "a#1", "entry": {}, "atoms": {"__ase_objtype__": "atoms"}}', b"\xff\xfe"],
)  # fmt: skip
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_line_of_another_shape_is_named(tmp_path, line, number):
    path = tmp_path / "finished.jsonl"
    lines = written(path).split(b"\n")
    lines[number - 1] = line
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(OutputError, match=f"line {number} is damaged"):
        read_journal(path)


def test_one_changed_digit_is_noticed(tmp_path):
    path = tmp_path / "finished.jsonl"
    content = written(path)
    path.write_bytes(content.replace(b"-1.5", b"-1.6"))
    with pytest.raises(OutputError, match="line 3 is damaged"):
        read_journal(path)


def test_journals_of_earlier_versions_are_refused(tmp_path):
    path = tmp_path / "finished.jsonl"
    old = {"key": "a#0", "entry": {}, "atoms": {"atoms": json.loads(ASE_ARRAY), "results": {}}}
    path.write_text('{"config": {}}\n' + json.dumps(old) + "\n")
    content = path.read_bytes()
    with pytest.raises(OutputError, match=r"earlier version.*--force"):
        read_journal(path)
    assert path.read_bytes() == content
    with pytest.raises(OutputError, match="no structure"):
        atoms_from_record(old["atoms"])


@given(data=st.data())
def test_mutated_journals_are_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("journal") / "finished.jsonl"
    content = bytearray(written(path))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=5))
    path.write_bytes(content)
    try:
        records = read_journal(path)
    except OutputError:
        return
    assert records[:1] in ([], [{"config": {"fmax": 0.01}, "inputs": {}}])
    for record in records[1:]:
        assert len(atoms_from_record(record["atoms"])) == 2


def test_a_structure_of_ase_is_what_it_was(tmp_path):
    """Structures with the info of AIRSS files, as ASE reads them."""
    atoms = Atoms("Fe", cell=np.eye(3) * 3, pbc=True, info={"energy": -3385.9, "name": "Fe-1"})
    ase.io.write(tmp_path / "a.traj", atoms)
    assert through_json(ase.io.read(tmp_path / "a.traj")).info == atoms.info
