"""Training that starts from a non-magnetic MACE."""

import numpy as np
import pytest
import torch
from foundation_tools import mace_results, write_mace
from training_toys import E0, toy_frames, write_toys

from mmace_sim.architectures.foundation_mmace import FoundationMMACE
from mmace_sim.errors import ConfigError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.model.checkpoint import load_model
from mmace_sim.model.derivatives import evaluate
from mmace_sim.training.config import load_train_config
from mmace_sim.training.data.split import read_split
from mmace_sim.training.setup import build_model, complete_model_config, cutoff_of
from mmace_sim.training.trainer import prepare, train

MAGNETIC = {"spin_channels": 2, "spin_max_ell": 1}


@pytest.fixture(scope="module")
def foundation(tmp_path_factory):
    """A tiny foundation that knows iron among others, and mace-torch's own module."""
    path = tmp_path_factory.mktemp("foundation") / "tiny.model"
    return write_mace(path, max_ell=1, r_max=3.2, hidden_irreps="4x0e")


def configuration(tmp_path, model, n=8, **trainer):
    data = write_toys(tmp_path / "toys.extxyz", n=n)
    settings = {"max_epochs": 2, "batch_size": 4, "device": "cpu", "dtype": "float64"} | trainer
    overrides = {"data": {"train_file": str(data)}, "model": model, "trainer": settings}
    return load_train_config(None, overrides | {"optimizer": {"lr": 0.001}})


def test_before_the_first_step_only_energies_of_atoms_are_fitted(foundation, tmp_path):
    path, mace = foundation
    config = configuration(tmp_path, {"foundation": str(path), **MAGNETIC})
    assert cutoff_of(config) == 3.2
    frames = read_split(config.data).train
    model = build_model(config, complete_model_config(config, frames, 10.0), frames)
    assert model.elements == [26]
    assert float(model.reference.wall_on) == 1.0
    residuals = []
    for atoms in toy_frames(3, seed=5):
        set_magmoms(atoms, atoms.arrays["REF_magmom"])
        ours, theirs = evaluate(model, graph_from_atoms(atoms, model.r_max)), mace_results(mace, atoms)
        for name in ("forces", "stress"):
            expected = np.squeeze(theirs[name])
            np.testing.assert_allclose(
                np.squeeze(ours[name].numpy()), expected, atol=1e-10 * np.abs(expected).max()
            )
        species = torch.zeros(2, dtype=torch.long)
        magmoms = torch.tensor(atoms.arrays["REF_magmom"])
        atomic = float(model.reference(magmoms, species).sum())
        residuals.append(float(ours["energy"]) - atomic - float(theirs["energy"].squeeze()))
    # what is left is the zero of the foundation: the same for all structures of two atoms
    assert np.ptp(residuals) < 1e-9 * max(np.abs(theirs["energy"]).max(), 1.0)
    shift = float(model.reference.atomic_energies[0]) + residuals[0] / 2
    assert abs(shift - E0) < abs(E0) * 0.01


def test_the_file_is_read_once_and_given_energies_of_atoms_are_held(foundation, tmp_path, monkeypatch):
    from mmace_sim.interop import foundation as module

    path, _ = foundation
    reads = []
    read = module.read_pickled_module
    monkeypatch.setattr(module, "read_pickled_module", lambda file: reads.append(file) or read(file))
    copy = tmp_path / "copy.model"
    copy.write_bytes(path.read_bytes())
    config = configuration(tmp_path, {"foundation": str(copy), **MAGNETIC})
    config.data.atomic_energies = {"Fe": -3384.0}
    model = prepare(config).model
    assert len(reads) == 1
    assert model.reference.atomic_energies.tolist() == [-3384.0]
    assert float(model.reference.one_body.abs().max()) > 0.0


def test_training_writes_a_model_that_others_can_start_from(foundation, tmp_path):
    path, _ = foundation
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    section = {"foundation": str(path), "head": "Default", **MAGNETIC}
    result = train(configuration(tmp_path, section), tmp_path / "first")
    assert isinstance(result.model, FoundationMMACE)
    again = load_train_config(tmp_path / "first" / "config.yaml")
    assert again.model["foundation"] == str(path)
    assert again.model["max_moment"] == {"26": result.model.config.max_moment[26]}
    model = load_model(result.path)
    assert model.metadata["started_from"]["foundation"]["file"] == "tiny.model"
    assert any(float(p.abs().max()) > 0.0 for p in [model.layers[0].magnetic.gate.weight])
    tuned = train(configuration(tmp_path, {"start_from": str(result.path)}), tmp_path / "second")
    assert tuned.model.config == model.config


def test_a_frozen_backbone_stays_as_it_was(foundation, tmp_path):
    path, _ = foundation
    config = configuration(tmp_path, {"foundation": str(path), "freeze_backbone": True, **MAGNETIC})
    frames = read_split(config.data).train
    before = build_model(config, complete_model_config(config, frames, 10.0), frames)
    after = train(config, tmp_path).model
    backbone = {id(p) for p in before.backbone_parameters()}
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        if id(old) in backbone:
            assert torch.equal(old, new), name
    assert not torch.equal(before.layers[0].magnetic.gate.weight, after.layers[0].magnetic.gate.weight)


def test_mistakes_are_explained(foundation, tmp_path):
    path, _ = foundation
    with pytest.raises(ConfigError, match="r_max: fixed by the foundation or unknown"):
        configuration(tmp_path, {"foundation": str(path), "r_max": 4.0})
    config = configuration(tmp_path, {"foundation": str(path), "spin_max_ell": 3})
    with pytest.raises(ConfigError, match="spin_max_ell = 3 is above max_ell = 1"):
        complete_model_config(config, read_split(config.data).train, 10.0)
