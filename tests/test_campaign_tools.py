"""The tools of the data campaign: what is packed, what is proposed, and how a campaign goes on elsewhere."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import pack_mag3d
    import propose_mag3d

    yield pack_mag3d, propose_mag3d
    for name in ("pack_mag3d", "propose_mag3d"):
        sys.modules.pop(name, None)


def frame(config_id, moment=2.2, energy=-16.0, a=2.83):
    atoms = Atoms("Fe2", cell=[a] * 3, pbc=True, scaled_positions=[[0, 0, 0], [0.5] * 3])
    atoms.info.update(config_id=config_id, config_type="eos", REF_energy=energy, cpu_s=36.0, scratch="x")
    atoms.arrays["REF_magmom"] = np.array([[0, 0, moment]] * 2)
    atoms.set_array("hold_moment", np.array([True, False]))
    return atoms


def ids_that(tools, wanted):
    return [f"id_{k}" for k in range(200) if tools[0].reserved(f"id_{k}") == wanted]


def test_copies_are_left_out_and_a_campaign_goes_on_from_what_is_packed(tools, tmp_path):
    pack = tools[0]
    ids = ids_that(tools, False)[:20]
    frames = [frame(name, a=2.7 + 0.01 * k) for k, name in enumerate(ids[:-1])]
    frames.append(frame(ids[-1], moment=-2.2))
    frames[-1].cell, frames[-1].positions = frames[0].cell, frames[0].positions  # the same state, turned over
    write(tmp_path / "one.extxyz", frames[:7])
    write(tmp_path / "two.extxyz", frames[7:])
    pack.pack([tmp_path / "one.extxyz", tmp_path / "two.extxyz"], tmp_path)
    parts = {name: read(tmp_path / f"{name}.extxyz.xz", ":") for name in ("train", "valid", "test")}
    packed = [atoms for part in parts.values() for atoms in part]
    copies = (tmp_path / "copies.txt").read_text().split()
    assert not (tmp_path / "unfinished.extxyz.xz").exists()
    assert len(packed) == 19
    assert sorted([a.info["config_id"] for a in packed] + copies) == sorted(ids)
    assert all(pack.role(a.info["config_id"]) == name for name, part in parts.items() for a in part)
    assert "scratch" not in packed[0].info
    assert "hold_moment" not in packed[0].arrays
    before = (tmp_path / "train.extxyz.xz").read_bytes()
    new = next(name for name in ids_that(tools, False)[20:] if pack.role(name) == "train")
    write(tmp_path / "three.extxyz", frame(new, a=3.1))
    pack.pack([tmp_path / f"{name}.extxyz" for name in ("one", "two", "three")], tmp_path, wait=True)
    assert (tmp_path / "train.extxyz.xz").read_bytes() == before  # what the shipped model was trained on
    assert [a.info["config_id"] for a in read(tmp_path / "unfinished.extxyz.xz", ":")] == [new]
    (tmp_path / "unfinished.extxyz.xz").unlink()
    (tmp_path / "raw").mkdir()
    pack.restore(tmp_path, tmp_path / "raw" / "raw.extxyz")
    again = read(tmp_path / "raw" / "raw.extxyz", ":")
    left_out = [
        json.loads(line)["id"] for line in (tmp_path / "raw" / "failures.jsonl").read_text().splitlines()
    ]
    assert sorted(a.info["config_id"] for a in again) == sorted(a.info["config_id"] for a in packed)
    assert left_out == copies


def test_reserved_calculations_are_refused(tools, tmp_path):
    write(tmp_path / "raw.extxyz", frame(ids_that(tools, True)[0]))
    with pytest.raises(SystemExit, match="reserved"):
        tools[0].pack([tmp_path / "raw.extxyz"], tmp_path)
    assert not list(tmp_path.glob("*.xz"))


def test_what_is_packed_is_not_reserved_and_in_the_part_of_its_name(tools):
    folder = TOOLS.parent / "examples" / "data" / "mag3d-gpaw"
    seen = set()
    for part in tools[0].PARTS:
        for atoms in tools[0].packed(folder, [part]):
            name = atoms.info["config_id"]
            assert not tools[0].reserved(name)
            assert part in ("unfinished", tools[0].role(name, atoms.get_chemical_symbols()))
            assert name not in seen
            seen.add(name)


def test_the_page_of_the_campaign_counts_what_is_there(tools):
    folder = TOOLS.parent / "examples" / "data" / "mag3d-gpaw"
    copies, frames = (folder / "copies.txt").read_text().split(), tools[0].packed(folder)
    said = (folder / "README.markdown").read_text(encoding="utf-8")
    assert f"\n{len(frames) + len(copies)} calculations, " in said
    assert f", {len(copies)} copies." in said


def test_candidates_have_names_of_their_own_and_atoms_apart(tools):
    found = list(tools[1].candidates())
    assert len({name for name, _, _ in found}) == len(found) > 100
    for _, config_type, atoms in found:
        distances = atoms.repeat(2).get_all_distances(mic=True)
        shortest = distances[distances > 0].min()
        light = {"N", "O"} & set(atoms.get_chemical_symbols())
        assert shortest > (1.79 if config_type == "short" else 1.7 if light else 2.15)
        if config_type == "short":
            assert shortest < 2.11
