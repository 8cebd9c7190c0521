"""How large runs are cut: some minutes of work for each volume, volumes for all workers, and the same when resumed."""

import itertools

import ase.io
import numpy as np
import pytest
from cli_tools import bcc

from mmace_sim.engine import cuts
from mmace_sim.engine.cuts import cut_run
from mmace_sim.io.spans import find_spans
from mmace_sim.properties.md import MD
from mmace_sim.properties.phonons import PHONONS
from mmace_sim.properties.relax import RELAX

N = 12_000


@pytest.fixture(scope="module")
def two_atom_cells(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    ase.io.write(folder / "one.extxyz", bcc())
    (folder / "all.extxyz").write_text((folder / "one.extxyz").read_text() * N)
    return folder / "all.extxyz"


def volumes_of(declared, path, **settings):
    settings = declared.settings(paths=[str(path)], output="o", **settings)
    return list(cut_run(declared.load()(declared, settings), {}))


def numbers_of(volumes):
    return [sum(span.n_structures for span in volume) for volume in volumes]


@pytest.mark.parametrize(
    ("executor", "least", "most"), [(None, 6, 6), ("local:2", 8, 16), ("local:64", 256, 300)]
)
def test_all_workers_have_some_volumes(two_atom_cells, executor, least, most):
    volumes = volumes_of(RELAX, two_atom_cells, executor=executor)
    assert least <= len(volumes) <= most
    assert max(numbers_of(volumes)) <= 2000
    bounds = [volume[0].bounds for volume in volumes]
    assert [volume[0].first for volume in volumes] == np.cumsum([0, *numbers_of(volumes)])[:-1].tolist()
    assert all(one[-1] == other[0] for one, other in itertools.pairwise(bounds))
    assert bounds[0][0] == 0
    assert bounds[-1][-1] == two_atom_cells.stat().st_size


def test_there_are_no_volumes_of_seconds(two_atom_cells):
    assert min(numbers_of(volumes_of(RELAX, two_atom_cells, executor="local:4000"))) >= 20


@pytest.mark.parametrize(
    ("declared", "settings"),
    [(PHONONS, {}), (PHONONS, {"min_length": 20.0}), (MD, {}), (MD, {"supercell": "3,3,3"})],
)
def test_costly_structures_are_few_in_a_volume(two_atom_cells, tmp_path, declared, settings):
    one = tmp_path / "one.extxyz"
    ase.io.write(one, bcc())
    computation = declared.load()(declared, declared.settings(paths=[str(one)], output="o", **settings))
    span = next(find_spans([one]))
    seconds = cuts._seconds_of(computation, {}, span)
    numbers = numbers_of(volumes_of(declared, two_atom_cells, **settings))
    assert sum(numbers) == N
    assert 200 < max(numbers) * seconds <= 660 or max(numbers) == 1


def test_a_gpu_gets_full_batches(two_atom_cells, monkeypatch):
    few = max(numbers_of(volumes_of(MD, two_atom_cells, executor="local:1")))
    monkeypatch.setattr(cuts, "count_workers", lambda _: (1, True))
    assert max(numbers_of(volumes_of(MD, two_atom_cells, executor="gpu:1"))) > 5 * few


def test_large_cells_are_fewer(tmp_path):
    """A phonon costs more than its share of atoms."""
    images = [bcc().repeat(n) for n in ((1, 1, 1), (2, 2, 2)) for _ in range(150)]
    ase.io.write(tmp_path / "a.extxyz", images)
    volumes = volumes_of(PHONONS, tmp_path / "a.extxyz")
    small, large = ([n for n, v in zip(numbers_of(volumes), volumes, strict=True) if {*v[0].sizes} == {size}]
                    for size in (2, 16))  # fmt: skip
    assert np.mean(small) > 4 * np.mean(large)


def test_what_cannot_be_read_costs_as_the_others_or_what_is_usual(tmp_path):
    ase.io.write(tmp_path / "good.extxyz", bcc())
    good = (tmp_path / "good.extxyz").read_text()
    bad = good.replace("Fe", "Xx")
    for name, frames in (("some", [good, bad]), ("none", [bad, bad])):
        (tmp_path / f"{name}.extxyz").write_text("".join(frames * 1000))
        (tmp_path / f"{name}.traj").write_text("x" * 2_000_000)
        paths = [str(tmp_path / f"{name}.{ending}") for ending in ("extxyz", "traj")]
        settings = PHONONS.settings(paths=paths, output="o")
        numbers = numbers_of(cut_run(PHONONS.load()(PHONONS, settings), {}))
        assert sum(numbers) == 2001
        assert (max(numbers) < 100) == (name == "some")
