import lzma

import numpy as np
import pytest
import torch
from training_toys import toy_frame, toy_frames, write_toys

from mmace_sim.errors import DataError, StructureError
from mmace_sim.graph.batch import build_graph
from mmace_sim.io.frames import frame_identity, read_frames, stress_matrix
from mmace_sim.training.data.dataset import EpochShuffle, GraphDataset, collate
from mmace_sim.training.data.stream_summary import split_frames


@pytest.fixture
def frames(tmp_path):
    return read_frames([write_toys(tmp_path / "toys.extxyz")]).frames


def test_reads_all_labels(frames):
    assert len(frames) == 12
    assert set(frames[0].labels) == {"energy", "forces", "stress", "magforces"}
    expected = toy_frames(1)[0]
    np.testing.assert_allclose(
        frames[0].labels["stress"], expected.info["REF_stress"].reshape(3, 3), atol=1e-9
    )
    np.testing.assert_allclose(frames[0].magmoms, expected.arrays["REF_magmom"], atol=1e-7)


def test_reads_compressed_files(tmp_path, frames):
    packed = tmp_path / "toys.extxyz.xz"
    packed.write_bytes(lzma.compress((tmp_path / "toys.extxyz").read_bytes()))
    again = read_frames([packed]).frames
    np.testing.assert_array_equal(again[3].labels["forces"], frames[3].labels["forces"])


def test_stress_in_every_notation():
    matrix = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    np.testing.assert_array_equal(stress_matrix(matrix), matrix)
    np.testing.assert_array_equal(stress_matrix(matrix.ravel()), matrix)
    np.testing.assert_array_equal(stress_matrix(np.arange(1.0, 7.0)), matrix)
    with pytest.raises(StructureError, match="7 numbers"):
        stress_matrix(np.zeros(7))


def test_missing_labels_are_nan_and_never_filled(tmp_path):
    rng = np.random.default_rng(0)
    atoms = [toy_frame(rng, 0, forces=False, stress=None), toy_frame(rng, 1, magforces=False)]
    del atoms[1].info["REF_energy"]
    from ase.io import write

    write(tmp_path / "gaps.extxyz", atoms, format="extxyz")
    found = read_frames([tmp_path / "gaps.extxyz"]).frames
    batch = collate(list(GraphDataset(found, 3.0)))
    assert batch.forces[:2].isnan().all()
    assert not batch.forces[2:].isnan().any()
    assert batch.stress[0].isnan().all()
    assert batch.magforces[2:].isnan().all()
    assert batch.energy.isnan().tolist() == [False, True]
    prediction = {"energy": batch.energy.nan_to_num() + 1.0, "forces": torch.ones_like(batch.forces)}
    energy = batch.errors(prediction, "energy")
    assert energy.value.tolist() == [0.5]  # per atom
    assert energy.system_idx.tolist() == [0]
    assert batch.errors(prediction, "forces").system_idx.tolist() == [1] * 6


def test_problems_are_reported_not_raised(tmp_path):
    from ase.io import write

    good, bare, broken = toy_frames(3)
    del bare.arrays["REF_magmom"]
    broken.info["REF_energy"] = float("nan")
    write(tmp_path / "mixed.extxyz", [good, bare, broken], format="extxyz")
    found = read_frames([tmp_path / "mixed.extxyz"])
    assert len(found.frames) == 1
    assert "mixed.extxyz@1" in found.problems[0]
    assert "magnetic moments" in found.problems[0]
    assert "REF_energy is not finite" in found.problems[1]


def test_unreadable_files_are_errors(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_frames([tmp_path / "missing.extxyz"])
    (tmp_path / "broken.extxyz").write_text("2\nno properties\nFe 0 0\n")
    with pytest.raises(DataError, match=r"broken\.extxyz"):
        read_frames([tmp_path / "broken.extxyz"])


def test_split_is_stable_when_the_set_grows(tmp_path):
    all_frames = read_frames([write_toys(tmp_path / "many.extxyz", n=60)]).frames
    side = {
        frame_identity(f.atoms): name
        for name, part in zip(("train", "valid", "test"), split_frames(all_frames, 0.2, 0.2), strict=True)
        for f in part
    }
    assert len(side) == 60
    assert 4 < sum(v == "valid" for v in side.values()) < 22
    for name, part in zip(
        ("train", "valid", "test"), split_frames(all_frames[::-1][:30], 0.2, 0.2), strict=True
    ):
        assert all(side[frame_identity(f.atoms)] == name for f in part)


def test_groups_stay_together_and_geometry_identifies_the_rest():
    first, second = toy_frames(2)
    first.info["group"] = second.info["group"] = 7
    second.info["config_type"] = first.info["config_type"]
    assert frame_identity(first) == frame_identity(second)
    for atoms in (first, second):
        atoms.info.clear()
    assert frame_identity(first) == frame_identity(first.copy())
    assert frame_identity(first) != frame_identity(second)


def test_collated_graphs_equal_a_graph_built_at_once(frames):
    batch = collate(list(GraphDataset(frames[:4], 3.5)))
    atoms = [f.atoms for f in frames[:4]]
    whole = build_graph(
        torch.tensor(np.concatenate([a.positions for a in atoms])),
        torch.tensor(np.stack([a.cell.array for a in atoms])),
        torch.tensor(np.stack([a.pbc for a in atoms])),
        torch.tensor(np.concatenate([a.numbers for a in atoms])),
        torch.tensor(np.concatenate([f.magmoms for f in frames[:4]])),
        torch.repeat_interleave(torch.arange(4), 2),
        3.5,
    )
    torch.testing.assert_close(batch.graph.edge_index, whole.edge_index)
    torch.testing.assert_close(batch.graph.edge_vectors(), whole.edge_vectors())
    torch.testing.assert_close(batch.graph.system_idx, whole.system_idx)


def test_float32_keeps_energies_in_float64(frames):
    sample = GraphDataset(frames[:1], 3.0, dtype=torch.float32)[0]
    assert sample.graph.positions.dtype == torch.float32
    assert sample.energy.item() == float(frames[0].labels["energy"])


def test_magforces_of_unconstrained_elements_are_no_labels(frames):
    assert GraphDataset(frames[:1], 3.0, magforce_elements=["O"])[0].magforces.isnan().all()
    assert not GraphDataset(frames[:1], 3.0, magforce_elements=["Fe"])[0].magforces.isnan().any()


def test_order_depends_on_seed_and_epoch_only():
    sampler = EpochShuffle(20, seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(first) == list(range(20))
    assert first != second
    fresh = EpochShuffle(20, seed=1)
    fresh.set_epoch(1)
    assert list(fresh) == second
