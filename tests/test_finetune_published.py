"""Fine-tuning the published architecture: E1 where it has none, its limits, a replay of its own predictions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.io import read, write
from cli_tools import mmace_sim
from paper_tools import random_paper_model

from mmace_sim.errors import DataError
from mmace_sim.model.checkpoint import load_all_heads, load_model, save_model
from mmace_sim.training.finetuning.finetune import finetune, load_finetune_config, write_start

DATA = Path(__file__).parent / "data" / "fe_al_gpaw" / "fe_al.extxyz"
SHARED = Path(__file__).parents[2] / "shared" / "data" / "upstream_pickles" / "mmace_matpes_like.model"
pytestmark = pytest.mark.filterwarnings("ignore::mmace_sim.errors.PhysicsWarning")
FE, AL = 26, 13


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A model of four elements as the published one: unrepaired and without one-body energies."""
    model = random_paper_model(
        atomic_numbers=[8, 13, 25, 26], max_moment={8: 0.5, 13: 0.6, 25: 4.0, 26: 3.0}, r_max=3.5
    )
    model.reference.one_body.zero_()
    metadata = {"name": "published", "violations": {"growth_above_max_moment": "bounded for |m| > m_max"}}
    return save_model(model, tmp_path_factory.mktemp("published") / "published.safetensors", metadata)


def settings(model, **extra):
    trainer = {"max_epochs": 1, "batch_size": 8, "device": "cpu", "dtype": "float64"}
    data = {"train_file": str(DATA), "valid_fraction": 0.2}
    return load_finetune_config(None, {"model": str(model), "data": data, "trainer": trainer} | extra)


def one_body_of(model, z, head=0):
    return model.reference.one_body[head * len(model.elements) + model.elements.index(z)]


def test_the_one_body_energy_is_added_where_there_is_none(published, tmp_path):
    write_start(settings(published), tmp_path)
    start = load_model(tmp_path / "start.safetensors")
    assert one_body_of(start, FE).any()
    for z in (8, 25, AL):  # not in the data, or without moments there
        assert not one_body_of(start, z).any()
    energies = start.reference.atomic_energies - load_model(published).reference.atomic_energies
    assert (energies != 0).tolist() == [False, True, False, True]


def test_it_is_the_one_that_fits_best(published, tmp_path):
    """Energies that differ from the model's by a known E1 of iron alone: it is found."""
    from mmace_sim.training.data.stream import open_frames
    from mmace_sim.training.finetuning.replay import label, write_frames

    base = load_model(published)
    frames = label(base, list(open_frames([DATA], settings(published).data.keys, "default", stream=False)))
    for frame in frames:
        square = np.where(frame.atoms.numbers == FE, (frame.magmoms**2).sum(1), 0.0)
        frame.labels["energy"] = frame.labels["energy"] + 0.02 * ((square - 4.8) ** 2 - 4.8**2).sum()
        slope = np.where(frame.atoms.numbers == FE, 0.08 * (square - 4.8), 0.0)
        frame.labels["magforces"] = frame.labels["magforces"] - slope[:, None] * frame.magmoms
    write_frames(tmp_path / "other.extxyz", frames)
    data = {"train_file": str(tmp_path / "other.extxyz"), "valid_fraction": 0.2}
    write_start(settings(published, data=data), tmp_path)
    start = load_model(tmp_path / "start.safetensors")
    lengths = torch.tensor([0.5, 1.0, 1.5, 2.0, 2.5], dtype=torch.float64)
    moments = torch.stack([torch.zeros_like(lengths)] * 2 + [lengths], dim=1)
    index = torch.full((5,), start.elements.index(FE))
    found = (start.reference.basis(moments, index) * one_body_of(start, FE)).sum(-1)
    expected = 0.02 * ((lengths**2 - 4.8) ** 2 - 4.8**2)
    np.testing.assert_allclose(found, expected, atol=0.01)  # of 0.46 eV


def test_what_was_chosen_is_done(published, tmp_path):
    write_start(settings(published, e0="refit"), tmp_path)
    assert not load_model(tmp_path / "start.safetensors").reference.one_body.any()


def test_a_model_with_one_keeps_it(tmp_path):
    path = save_model(random_paper_model(max_moment={26: 3.0, 13: 1.0}), tmp_path / "own.safetensors")
    write_start(settings(path), tmp_path)
    start = load_model(tmp_path / "start.safetensors")
    assert torch.equal(start.reference.one_body, load_model(path).reference.one_body)


def test_the_protocol_of_the_paper_is_the_default(published):
    optimizer = settings(published).optimizer
    assert (optimizer.lr, optimizer.gradient_clip) == (5e-4, 10.0)


@pytest.mark.parametrize("where", ["train", "valid", "replay"])
def test_moments_without_an_energy_are_refused(published, tmp_path, where):
    images = read(DATA, ":")
    for atoms in images[:3]:
        atoms.arrays["REF_magmom"] *= 2
    write(tmp_path / "large.extxyz", images, format="extxyz")
    large = str(tmp_path / "large.extxyz")
    extra = {
        "train": {"data": {"train_file": large, "valid_fraction": 0.2}},
        "valid": {"data": {"train_file": str(DATA), "valid_file": large}},
        "replay": {"replay": {"structures": [large]}},
    }[where]
    with pytest.raises(DataError, match=r"1 of \d+ structures.*Fe 3\.00, in the data 4\.37.*--saturate"):
        write_start(settings(published, **extra), tmp_path)


def test_the_remedy_works_by_the_models_name(published, tmp_path, monkeypatch):
    monkeypatch.setenv("MMACE_SIM_CACHE", str(tmp_path / "cache"))
    assert mmace_sim("models", "add", published).exit_code == 0
    saturated = tmp_path / "saturated.safetensors"
    result = mmace_sim("convert", "published", saturated, "--saturate", "--time-reversal")
    assert result.exit_code == 0, result.output
    model = load_model(saturated)
    assert model.moment_limits == {}
    assert model.config.time_reversal
    assert model.metadata["identities"]["time_reversal"]["holds"]
    assert "time_reversal" not in model.metadata["violations"]
    plain = load_model(published)
    assert all(torch.equal(a, plain.state_dict()[k]) for k, a in model.state_dict().items())
    assert mmace_sim("models", "add", saturated).exit_code == 0
    row = json.loads(mmace_sim("models", "info", "saturated", "--json").output)
    assert "E(r, −m) = E(r, m)" in row["obeys"]
    assert "time_reversal" not in row["violations"]
    assert "obeys" in mmace_sim("models", "info", "saturated").output
    again = mmace_sim("convert", "default", tmp_path / "x.safetensors")
    assert again.exit_code == 2
    assert "needs no conversion" in " ".join(again.output.split())


def test_copies_for_the_replay_stay_within_the_limits(published, tmp_path):
    replay = {"n_variants": 30, "stretch": 1.0, "valid_fraction": 0.3}
    config = settings(published, replay=replay)
    result = finetune(config, tmp_path)
    images = read(tmp_path / "replay.extxyz", ":") + read(tmp_path / "replay_valid.extxyz", ":")
    moments = np.concatenate([np.linalg.norm(a.arrays["REF_magmom"], axis=1) for a in images])
    numbers = np.concatenate([a.numbers for a in images])
    assert moments[numbers == FE].max() == pytest.approx(3.0, abs=1e-6)
    assert all(abs(a.info["REF_energy"]) < 1e3 for a in images)
    # in meV: what eight decimals of the moments in the file leave of forces that are steep near the limit
    assert all(error.mae < 0.01 for error in result.before["valid/replay"].overall.values())
    both = load_all_heads(result.training.path)
    assert one_body_of(both, FE).any()
    assert not one_body_of(both, FE, head=1).any()  # the old data's head has none


def run(model, tmp_path, *, epochs, lr):
    """Errors on the data before and after a fine-tuning on all of them, and the summary."""
    arguments = ["finetune", model, DATA, "-o", tmp_path / "run", "--max-epochs", epochs, "--lr", lr]
    arguments += ["--valid-fraction", "0", "--batch-size", "8", "--device", "cpu", "--no-stability-test"]
    result = mmace_sim(*arguments)
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["errors"]["train"]["n_structures"] == 38
    return summary["errors_before"]["train"], summary["errors"]["train"]["overall"], summary


def test_end_to_end(published, tmp_path):
    before, after, _ = run(published, tmp_path, epochs=12, lr=0.01)
    assert after["energy"]["mae"] < 0.9 * before["energy"]["mae"]
    assert after["forces"]["mae"] < 0.5 * before["forces"]["mae"]
    tuned = load_model(tmp_path / "run" / "model.safetensors")
    assert one_body_of(tuned, FE).any()
    assert tuned.elements == [8, 13, 25, 26]
    assert set(tuned.metadata["violations"]) == {"growth_above_max_moment"}  # inherited


@pytest.mark.skipif(not SHARED.is_file(), reason="the authors' pickles are not part of the repository")
def test_end_to_end_from_a_genuine_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("MMACE_SIM_CACHE", str(tmp_path / "cache"))
    assert mmace_sim("models", "add", SHARED).exit_code == 0
    before, after, summary = run("mmace_matpes_like", tmp_path, epochs=2, lr=0.002)
    assert after["energy"]["mae"] < before["energy"]["mae"]
    assert summary["started_from"] == "mmace_matpes_like"
    assert "time_reversal" in load_model(tmp_path / "run" / "model.safetensors").metadata["violations"]
