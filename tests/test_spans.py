"""Structures that are known before they are read: the same ones, in the same order, as those that are read."""

import gzip
import itertools
from dataclasses import replace

import ase.io
import numpy as np
import pytest
from cli_tools import bcc

from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.io import find_bounds, parquet, spans
from mmace_sim.io.collection import FailedStructure, load_structures
from mmace_sim.io.spans import cut, is_large, read_spans, state_of_spans

IMAGES = [bcc(a=2.8 + 0.01 * k, magmoms=(2.0, 0.1 * k)) for k in range(7)]


def write_parquet(path, images):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [
        {
            "numbers": atoms.numbers.tolist(),
            "positions": atoms.positions.tolist(),
            "cell": atoms.cell.array.tolist(),
            "magmoms": get_magmoms(atoms).tolist(),
            "config_type": f"number {k}",
        }
        for k, atoms in enumerate(images)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)


def write_lmdb(path, images):
    pytest.importorskip("lmdb")
    from mmace_sim.io.database import atoms_to_row, write_database

    write_database(path, [atoms_to_row(atoms, get_magmoms(atoms), {}, {}) for atoms in images])


WRITERS = {"a.extxyz": ase.io.write, "a.db": write_lmdb, "a.aselmdb": write_lmdb, "a.parquet": write_parquet}


def same(one, other):
    return (
        np.allclose(one.positions, other.positions)
        and np.allclose(one.cell.array, other.cell.array)
        and np.array_equal(one.numbers, other.numbers)
        and np.allclose(get_magmoms(one), get_magmoms(other))
        and one.pbc.tolist() == other.pbc.tolist()
    )


@pytest.mark.parametrize("name", WRITERS)
def test_a_part_of_a_file_is_read_alone(name, tmp_path, monkeypatch):
    WRITERS[name](tmp_path / name, IMAGES)
    monkeypatch.setattr(spans, "MAX_STRUCTURES", 3)
    whole = load_structures([tmp_path / name])
    assert len(whole) == len(IMAGES)
    volumes = list(cut([tmp_path / name]))
    assert [sum(span.n_structures for span in volume) for volume in volumes] == [3, 3, 1]
    for volume, items in zip(volumes, itertools.batched(whole, 3), strict=True):
        found = read_spans(volume, pytest.fail)
        assert [(item.index, item.name) for item in found] == [
            (item.index, f"{item.file}#{item.index}") for item in items
        ]
        assert all(same(one.atoms, other.atoms) for one, other in zip(found, items, strict=True))
    for limit in (6, 7):
        monkeypatch.setattr(spans, "LIMIT", limit)
        assert is_large([tmp_path / name]) == (limit == 6)


@pytest.mark.parametrize("name", WRITERS)
def test_volumes_of_large_cells(name, tmp_path):
    cells = [
        bcc(a=2.8 + 0.01 * k).repeat((10, 10, n))
        for k, n in enumerate((10, 10, 10, 10, 10, 10, 10, 1, 9, 10))
    ]
    WRITERS[name](tmp_path / name, cells)
    volumes = list(cut([tmp_path / name]))
    assert [[n for span in volume for n in span.sizes] for volume in volumes] == [
        [2000] * 7 + [200, 1800],
        [2000],
    ]


def test_atoms_of_rows_that_others_wrote(tmp_path):
    pytest.importorskip("lmdb")
    from mmace_sim.io.database import LmdbWriter, atoms_to_row

    rows = [atoms_to_row(bcc().repeat((n, 1, 1)), np.zeros((2 * n, 3)), {}, {}) for n in (1, 2, 3, 2000, 4)]
    rows[1]["numbers"] = rows[1]["numbers"].tolist()  # as fairchem writes it
    rows[2] = {"data": {"numbers": [1]}} | {key: value for key, value in rows[2].items() if key != "data"}
    rows[3]["numbers"] = rows[3]["numbers"].tolist()
    del rows[4]["numbers"]
    with LmdbWriter(tmp_path / "a.aselmdb") as writer:
        for row in rows:
            writer.write(row)
    assert list(find_bounds(tmp_path / "a.aselmdb")) == [(0, 0), (1, 2), (2, 4), (3, 6), (4, 4000), (5, 0)]
    (volume,) = cut([tmp_path / "a.aselmdb"])
    *good, bad = read_spans(volume, pytest.fail)
    assert [len(item.atoms) for item in good] == [2, 4, 6, 4000]
    assert "no numbers" in bad.message


def test_nothing_of_a_row_group_is_read_behind_the_last_row(tmp_path, monkeypatch):
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(parquet, "_ROWS_AT_ONCE", 2)
    write_parquet(tmp_path / "a.parquet", IMAGES)
    pq.write_table(pq.read_table(tmp_path / "a.parquet"), tmp_path / "one.parquet", row_group_size=100)
    seen, original = [], pq.ParquetFile.iter_batches

    def counted(*args, **options):
        for batch in original(*args, **options):
            seen.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    (whole,) = cut([tmp_path / "one.parquet"])
    seen.clear()
    items = read_spans([replace(whole[0], first=1, bounds=[1, 2, 3])], pytest.fail)
    assert all(same(item.atoms, image) for item, image in zip(items, IMAGES[1:3], strict=True))
    assert seen == [2, 2]


def test_atoms_of_a_damaged_parquet_file(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    write_parquet(tmp_path / "a.parquet", IMAGES)
    place = pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(1).column(0)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    start = place.dictionary_page_offset or place.data_page_offset
    content[start : start + place.total_compressed_size] = bytes([255]) * place.total_compressed_size
    (tmp_path / "a.parquet").write_bytes(content)
    assert [n for _, n in find_bounds(tmp_path / "a.parquet")] == [0, 2, 2, 2, 0, 0, 0, 2]


def test_files_of_folders_in_their_order_and_what_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(spans, "MAX_STRUCTURES", 4)
    (tmp_path / "a" / "b").mkdir(parents=True)
    for k, name in enumerate(("a/x10.cif", "a/x9.cif", "a/b/z.cif", "c.cif", "a/b.cif")):
        ase.io.write(tmp_path / name, bcc(magmoms=None, a=2.8 + 0.01 * k))
    ase.io.write(tmp_path / "a" / "many.extxyz", IMAGES)
    (tmp_path / "a" / "note.json").write_text('{"a": 1}')
    (tmp_path / "a" / "bad.cif").write_text("no structure")
    skipped, wanted = [], []
    expected = load_structures([tmp_path, tmp_path / "c.cif"], wanted.append)
    volumes = list(cut([tmp_path, tmp_path / "c.cif"]))
    assert len(volumes) > 2
    found = [item for volume in volumes for item in read_spans(volume, skipped.append)]
    assert [(item.file, item.index) for item in found] == [(item.file, item.index) for item in expected]
    assert [isinstance(item, FailedStructure) for item in found] == [
        isinstance(item, FailedStructure) for item in expected
    ]
    assert [item.message for item in skipped] == [item.message for item in wanted]
    assert len({item.name for item in found}) == len(found)


def test_a_damaged_frame_costs_no_other(tmp_path):
    path = tmp_path / "a.extxyz"
    ase.io.write(path, IMAGES[:3])
    lines = path.read_text().splitlines(keepends=True)
    lines[6] = lines[6].replace("Fe", "Xx")
    path.write_text("".join(["\n", *lines, "\n"]))
    (volume,) = cut([path])
    first, bad, last = read_spans(volume, pytest.fail)
    assert same(first.atoms, IMAGES[0])
    assert "Xx" in bad.message
    assert (last.index, last.name) == (2, f"{path}#2")
    path.write_text("".join(lines[:-1]))
    (volume,) = cut([path])
    *_, cut_off = read_spans(volume, pytest.fail)
    assert "the file ends after 1 of them" in cut_off.message


@pytest.mark.parametrize("ending", [b"\r\n", b"\r"])
def test_line_ends(tmp_path, ending):
    path = tmp_path / "a.extxyz"
    ase.io.write(path, IMAGES)
    path.write_bytes(path.read_bytes().replace(b"\n", ending))
    found = [item for volume in cut([path]) for item in read_spans(volume, pytest.fail)]
    assert all(same(item.atoms, image) for item, image in zip(found, IMAGES, strict=True))
    assert (find_bounds(path) is None) == (ending == b"\r")


def test_a_compressed_file_is_read_whole(tmp_path):
    path = tmp_path / "a.extxyz.gz"
    ase.io.write(tmp_path / "a.extxyz", IMAGES)
    path.write_bytes(gzip.compress((tmp_path / "a.extxyz").read_bytes()))
    (volume,) = cut([path])
    assert volume[0].bounds == []
    assert [item.index for item in read_spans(volume, pytest.fail)] == list(range(7))


def test_what_was_changed_is_seen(tmp_path):
    path = tmp_path / "a.extxyz"
    ase.io.write(path, IMAGES)
    (before,) = cut([path])
    assert state_of_spans(before) == state_of_spans(next(cut([path])))
    ase.io.write(path, IMAGES[1:])
    assert state_of_spans(before) != state_of_spans(next(cut([path])))


def test_a_parquet_file_without_structures(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_text("no")
    for item, text in zip(load_structures([tmp_path / "a.parquet", tmp_path / "b.parquet"]),
                          ("no column numbers", "is no Parquet file"), strict=True):  # fmt: skip
        assert text in item.message
