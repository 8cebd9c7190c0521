import numpy as np
import pytest
import torch
from training_toys import TINY_MODEL, toy_frames

from mmace_sim.io.frames import read_frames
from mmace_sim.model.config import ModelConfig
from mmace_sim.model.magnetic_mace import MagneticMACE
from mmace_sim.model.reference import WALL_EV
from mmace_sim.training.config import load_train_config
from mmace_sim.training.one_body_plot import (
    binned,
    longitudinal_forces,
    one_body_curve,
    save_one_body_figures,
)
from mmace_sim.training.setup import build_model, complete_model_config


@pytest.fixture
def frames(tmp_path):
    from ase.io import write

    write(tmp_path / "toys.extxyz", toy_frames(30), format="extxyz")
    return read_frames([tmp_path / "toys.extxyz"]).frames


def test_the_curve_is_the_energy_the_data_were_made_with(frames):
    """E1 = 0.01 [(m·m − 4)² − 16], −dE1/d|m| = −0.04 |m| (m·m − 4)."""
    config = load_train_config(None, {"data": {"train_file": "x"}, "model": TINY_MODEL})
    model = build_model(config, complete_model_config(config, frames, 10.0), frames)
    lengths = np.linspace(0.8, 2.5, 20)
    energy, force = one_body_curve(model, 0, 0, lengths).T
    assert force == pytest.approx(-0.04 * lengths * (lengths**2 - 4), abs=0.02)
    assert energy == pytest.approx(0.01 * (lengths**2 - 4) ** 2 - 0.16, abs=0.03)


def test_energies_of_atoms_that_are_given_change_no_one_body_energy(frames):
    """What lies between free atoms and crystals is cohesion, which moments know nothing of."""
    curves, lengths = [], np.linspace(1.4, 2.5, 20)
    for shift in (0.16, 6.0):
        energies = {"Fe": -3385.0 + shift}
        config = load_train_config(
            None, {"data": {"train_file": "x", "atomic_energies": energies}, "model": TINY_MODEL}
        )
        model = build_model(config, complete_model_config(config, frames, 10.0), frames)
        assert model.reference.atomic_energies.item() == energies["Fe"]
        curves.append(one_body_curve(model, 0, 0, lengths)[:, 0])
        assert curves[-1] == pytest.approx(0.01 * (lengths**2 - 4) ** 2 - 0.16, abs=0.03)
    assert curves[0] == pytest.approx(curves[1], abs=1e-12)


def test_the_force_is_the_slope_of_the_energy_in_the_wall_too():
    model = MagneticMACE(ModelConfig(atomic_numbers=[26], max_moment={26: 2.0}, **TINY_MODEL))
    with torch.no_grad():
        model.reference.one_body[0, 1] = 0.3
    lengths = np.linspace(0.1, 2.2, 2001)
    energy, force = one_body_curve(model, 0, 0, lengths).T
    assert force[1:-1] == pytest.approx(-(energy[2:] - energy[:-2]) / (lengths[2] - lengths[0]), abs=1e-3)
    model.reference.one_body.zero_()
    assert one_body_curve(model, 0, 0, np.array([2.2]))[0, 0] == pytest.approx(WALL_EV * 0.21**3)


def test_forces_along_moments_of_constrained_elements(frames):
    frames[0].atoms.numbers[1] = 13
    pairs = longitudinal_forces(frames[:1])
    assert set(pairs) == {13, 26}
    length = np.linalg.norm(frames[0].magmoms[0])
    assert pairs[26][0] == pytest.approx([length, -0.04 * length * (length**2 - 4)])
    assert set(longitudinal_forces(frames[:1], ["Fe"])) == {26}


def test_intervals_hold_means_and_spreads():
    lengths = np.repeat([0.5, 3.0], 10)
    rows = binned(np.stack([lengths, np.tile([1.0, 3.0], 10)], axis=1))
    assert rows == pytest.approx(np.array([[0.5, 2.0, 1.0], [3.0, 2.0, 1.0]]))
    assert len(binned(np.array([[1.0, 0.2]]))) == 1


def test_figures_of_every_head(frames, tmp_path):
    settings = dict(TINY_MODEL, atomic_numbers=[8, 26], max_moment={26: 2.0})
    one = MagneticMACE(ModelConfig(**settings))
    for frame in frames:
        frame.head = "default"
    assert {p.name for p in save_one_body_figures(one, frames, tmp_path)} == {"one_body.png", "one_body.svg"}
    two = MagneticMACE(ModelConfig(**settings, heads={"a": {}, "b": {26: 1.5}}))
    for k, frame in enumerate(frames):
        frame.head = "ab"[k % 2]
    names = {p.name for p in save_one_body_figures(two, frames, tmp_path)}
    assert names == {f"one_body_{head}.{suffix}" for head in "ab" for suffix in ("png", "svg")}
