"""Broken and hostile inputs that must cost one sentence, not the run."""

import csv
import json
import os
import re
import socket
import sys
from pathlib import Path

import pytest

from mmace_sim.base.labels import LabelKeys
from mmace_sim.engine.output import write_csv
from mmace_sim.errors import DataError, StructureError
from mmace_sim.io import opening
from mmace_sim.io.collection import FailedStructure, load_structures
from mmace_sim.io.database import open_rows
from mmace_sim.io.frames import file_sha256, read_frames

GOOD = '1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 pbc="T T T"\nFe 0 0 0\n'

KINDS = ("fifo", "socket", "device")


def special(path, kind):
    """A pipe, a socket, or a link to a device that never ends."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    return path


@pytest.fixture
def never_opened(monkeypatch):
    """Opening anything but a regular file is an error here, not an endless wait."""

    def audit(event, args):
        if event == "open" and isinstance(args[0], str | os.PathLike) and "special" in os.fspath(args[0]):
            raise AssertionError(f"{args[0]} was opened")

    monkeypatch.setattr(_AUDIT, "hook", audit)


class _Audit:
    hook = None


_AUDIT = _Audit()
sys.addaudithook(lambda event, args: _AUDIT.hook(event, args) if _AUDIT.hook else None)


@pytest.mark.parametrize(
    "name", ["special.extxyz", "special.extxyz.gz", "special.db", "OUTCAR.special", "special.cfg"]
)
@pytest.mark.usefixtures("never_opened")
@pytest.mark.parametrize("kind", KINDS)
def test_pipes_sockets_and_devices_are_never_opened(tmp_path, monkeypatch, kind, name):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path = special(type(tmp_path)(name), kind)
    (tmp_path / "good.extxyz").write_text(GOOD)
    skipped = []
    (found,) = load_structures([tmp_path], skipped.append)
    assert found.name == "good.extxyz"
    assert [item.name for item in skipped] == [name] * (not name.endswith(".cfg"))
    (named,) = load_structures([path])
    assert isinstance(named, FailedStructure)
    assert "pipe, socket or device" in named.message
    with pytest.raises(DataError, match="pipe, socket or device"):
        read_frames([path])
    with pytest.raises(StructureError, match="pipe, socket or device"):
        opening.open_bytes(path)
    with pytest.raises(StructureError, match="pipe, socket or device"), opening.plain_file(path):
        pass
    with pytest.raises(StructureError, match="pipe, socket or device"):
        file_sha256(path)
    with pytest.raises(DataError, match="pipe, socket or device"):
        open_rows(path)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_line_without_end_is_not_read_to_its_end(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(opening, "MAX_LINE", 1000)
    path = tmp_path / f"long.extxyz{ending}"
    with opening.OPENERS.get(ending, open)(path, "wb") as file:
        file.write(b"1" * 5000)
    (found,) = load_structures([path])
    assert "line of more than 1000 characters" in found.message


@pytest.mark.parametrize(
    "label",
    ['stress="a b c"', "stress=foo", "stress=1.0", 'stress="a b c d e f"', 'virial="1 2"', "energy=foo",
     'energy="1 2"', 'dipole="a b c"', 'stress="_JSON [1, 2]"', "stress={a b}"],
)  # fmt: skip
def test_labels_that_are_none_do_not_matter_for_a_structure(tmp_path, label):
    path = tmp_path / "labels.extxyz"
    path.write_text(GOOD.replace(" pbc", f" {label} pbc") + GOOD)
    first, second = load_structures([path])
    name = label.split("=")[0]
    assert any(f"{name} in the file" in note for note in first.notes) or name == "virial"
    assert not second.notes
    assert name not in first.atoms.info or name == "virial"


def test_training_reports_a_label_that_is_none(tmp_path):
    path = tmp_path / "labels.extxyz"
    text = GOOD.replace("pos:R:3", "pos:R:3:initial_magmoms:R:1").replace("0 0 0\n", "0 0 0 2\n")
    path.write_text(text.replace(" pbc", ' stress="a b c" pbc') + text)
    asked = read_frames([path], LabelKeys(stress="stress"))
    assert len(asked.frames) == 1
    assert "stress is not a number" in asked.problems[0]
    assert len(read_frames([path]).frames) == 2


@pytest.mark.parametrize("kind", ["Structure", "IStructure", None])
def test_only_molecules_have_no_lattice(tmp_path, kind):
    path = tmp_path / "lattice.json"
    sites = [{"species": [{"element": "Fe", "occu": 1}], "xyz": [0, 0, 0], "abc": [0, 0, 0]}]
    path.write_text(json.dumps({"@class": kind, "sites": sites}))
    (found,) = load_structures([path])
    assert "lattice of the structure is missing" in found.message
    path.write_text(json.dumps({"@class": "Molecule", "sites": sites}))
    (found,) = load_structures([path])
    assert not found.atoms.pbc.any()


def test_stars_in_a_table_of_moments_fail_their_step_only(tmp_path):
    text = (Path(__file__).parent / "cases/readers/OUTCAR.killed").read_text()
    start = text.index("magnetization (x)", text.index("Iteration    1(   7)"))
    row = re.compile(r"^(\s+1\s.*\s)(-?\d+\.\d+)\s*$", re.MULTILINE).search(text, start)
    (tmp_path / "OUTCAR").write_text(text[: row.start(2)] + "*****" + text[row.end(2) :])
    found = load_structures([tmp_path / "OUTCAR"])
    assert [isinstance(item, FailedStructure) for item in found] == [True, False, False]


def test_texts_in_a_table_are_no_formulas_and_steer_no_terminal(tmp_path):
    values = {
        "file": "a\x1b[31m\n.cif",
        "name": "=1+1",
        "note": Path("@x"),
        "number": -1.5,
        "text": "-2.5",
        "vector": [-0.5, 1, 2.25],
        "words": ["=a", "b"],
    }
    write_csv(tmp_path / "table.csv", list(values), [values])
    with (tmp_path / "table.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert list(row.values()) == [
        "a\\x1b[31m\\n.cif",
        "'=1+1",
        "'@x",
        "-1.5",
        "-2.5",
        "-0.500000 1 2.250000",
        "'=a b",
    ]
