"""Sets that stay on the disk give the same batches, splits and models as sets in memory."""

import pickle

import numpy as np
import pytest
import torch
from training_toys import TINY_MODEL, toy_frame, write_toys

from mmace_sim.errors import DataError
from mmace_sim.io.database import atoms_to_row, write_database
from mmace_sim.io.frames import read_frames
from mmace_sim.training.config import DataConfig, LabelKeys, TrainConfig
from mmace_sim.training.data.dataset import GraphDataset, make_loader
from mmace_sim.training.data.split import describe_split, read_split
from mmace_sim.training.data.stream import StoredFrames, open_frames
from mmace_sim.training.data.stream_summary import elements_of, sample, select, summarize
from mmace_sim.training.trainer import prepare, train

N = 40


@pytest.fixture(params=["set.aselmdb", "set.db"])
def stored(request, tmp_path):
    """A database with elements, labels and config_types that differ between structures."""
    rng = np.random.default_rng(0)
    rows = []
    for k in range(N):
        atoms = toy_frame(rng, k, forces=k % 3 > 0)
        if k % 5 == 0:
            atoms.symbols[0] = "Al"
        info = {"config_type": atoms.info["config_type"], "config_id": atoms.info["config_id"]}
        names = {"energy": "REF_energy", "stress": "REF_stress", "forces": "REF_forces"}
        labels = {label: atoms.info.get(key, atoms.arrays.get(key)) for label, key in names.items()}
        labels["magforces"] = atoms.arrays["REF_magforces"]
        labels["stress"] = np.reshape(labels["stress"], (3, 3))
        labels = {label: np.asarray(value) for label, value in labels.items() if value is not None}
        rows.append(atoms_to_row(atoms, atoms.arrays["REF_magmom"], labels, info))
    write_database(tmp_path / request.param, rows)
    return tmp_path / request.param


def same_batches(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        for name in ("energy", "forces", "stress", "magforces", "structure_weight", "n_atoms", "config_idx"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=0, equal_nan=True)
        for name in (
            "positions",
            "cell",
            "magmoms",
            "atomic_numbers",
            "system_idx",
            "edge_index",
            "edge_shifts",
        ):
            torch.testing.assert_close(getattr(a.graph, name), getattr(b.graph, name), rtol=0, atol=0)


def test_split_summary_and_batches_are_those_of_the_set_in_memory(stored):
    splits = {}
    for stream in (False, True):
        config = DataConfig(train_file=[stored], valid_fraction=0.2, test_fraction=0.2, stream=stream)
        splits[stream] = read_split(config)
    assert isinstance(splits[True].train, StoredFrames)
    assert isinstance(splits[False].train, list)
    assert describe_split(splits[True]) == describe_split(splits[False])
    for name in ("train", "valid", "test"):
        kept, read = (getattr(splits[stream], name) for stream in (False, True))
        assert [f.source for f in kept] == [f.source for f in read]
        assert elements_of(kept) == elements_of(read) == [13, 26]
        assert summarize(kept).largest_moments == summarize(read).largest_moments
    sets = [GraphDataset(splits[stream].train, 3.2, dtype=torch.float32) for stream in (False, True)]
    assert sets[0].is_kept
    assert not sets[1].is_kept
    assert sets[0].mean_neighbors == sets[1].mean_neighbors
    loaders = [make_loader(s, 4, shuffle_seed=3) for s in sets]
    assert loaders[1].num_workers > 0  # graphs are built in other processes
    for epoch in (0, 1):
        for loader in loaders:
            loader.sampler.set_epoch(epoch)
        same_batches(*(list(loader) for loader in loaders))


def test_training_from_the_disk_takes_the_same_steps(tmp_path, stored):
    weights = []
    for stream in (False, True):
        config = TrainConfig(
            data=DataConfig(train_file=[stored], stream=stream), model=TINY_MODEL, trainer={"max_epochs": 1}
        )
        folder = tmp_path / str(stream)
        folder.mkdir()
        result = train(config, folder)
        weights.append(result.model.state_dict())
        assert result.errors["train"].n_structures == len(read_split(config.data).train)
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0, atol=0)


def test_databases_and_files_together(tmp_path, stored):
    toys = write_toys(tmp_path / "toys.extxyz", n=3, seed=5)
    config = DataConfig(train_file=[toys, stored], valid_fraction=0.0, stream=True)
    frames = read_split(config).train
    assert isinstance(frames, StoredFrames)
    assert len(frames) == N + 3
    expected = read_frames([toys, stored]).frames
    for k in (0, 2, 3, N + 2):
        assert frames[k].source == expected[k].source
        np.testing.assert_array_equal(frames[k].atoms.positions, expected[k].atoms.positions)
    last = pickle.loads(pickle.dumps(frames[-5:]))  # as worker processes get it on some systems
    assert [f.source for f in last] == [f.source for f in expected[-5:]]


def test_a_part_has_the_summary_of_its_structures(stored):
    frames = open_frames([stored], LabelKeys(), "default", stream=True)
    part = select(frames, np.array([7, 0, 12]))
    assert [f.source for f in part] == [f"{stored}@{k}" for k in (7, 0, 12)]
    fresh = summarize(list(part))
    for name in ("n_atoms", "labels", "numbers", "first", "elements", "moments", "config_types", "heads"):
        np.testing.assert_array_equal(getattr(part.summary, name), getattr(fresh, name))


def test_no_element_is_missing_from_a_sample(stored):
    frames = open_frames([stored], LabelKeys(), "default", stream=True)
    some = sample(frames, 3, per_element=2)
    assert elements_of(some) == [13, 26]
    assert 3 <= len(some) <= 7
    assert [f.source for f in sample(frames, 3, per_element=2)] == [f.source for f in some]
    assert sample(frames, N) is frames


def test_unusable_structures_of_a_database_stop_the_run(tmp_path):
    atoms = toy_frame(np.random.default_rng(0), 0)
    good = atoms_to_row(atoms, atoms.arrays["REF_magmom"], {"energy": np.array(1.0)}, {})
    bare = {k: v for k, v in good.items() if k != "magmoms"}
    write_database(tmp_path / "set.aselmdb", [good, bare])
    with pytest.raises(
        DataError, match=r"1 structure\(s\) cannot be used[\s\S]*set.aselmdb@1: .*no magnetic moments"
    ):
        open_frames([tmp_path / "set.aselmdb"], LabelKeys(), "default", stream=True)


def test_folders_of_databases_are_read_in_order(tmp_path):
    atoms = toy_frame(np.random.default_rng(0), 0)
    (tmp_path / "set").mkdir()
    for k in (1, 0):
        row = atoms_to_row(atoms, atoms.arrays["REF_magmom"], {"energy": np.array(float(k))}, {})
        write_database(tmp_path / "set" / f"data.{k}.aselmdb", [row])
    assert [float(f.labels["energy"]) for f in read_frames([tmp_path / "set"]).frames] == [0.0, 1.0]


def test_large_sets_are_fitted_to_a_part(stored, monkeypatch):
    monkeypatch.setattr("mmace_sim.training.setup.FIT_SAMPLE", 10)
    fitted = []

    def count(*arguments, **_):
        fitted.append(len(arguments[2]))
        return {"energy": 0.1, "magforces": 0.1}

    monkeypatch.setattr("mmace_sim.training.setup.fit_reference", count)
    config = TrainConfig(data=DataConfig(train_file=[stored], stream=True), model=TINY_MODEL)
    prepare(config)
    assert 10 <= fitted[0] < N
