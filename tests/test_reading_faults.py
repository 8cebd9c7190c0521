"""Broken and hostile inputs that must cost one sentence, not the run."""

import os
import socket
import sys

import pytest

from mmace_sim.errors import DataError, StructureError
from mmace_sim.io import opening
from mmace_sim.io.collection import FailedStructure, load_structures
from mmace_sim.io.database import open_rows
from mmace_sim.training.frames import file_sha256, read_frames

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
