"""What keeps a fine-tuned model from forgetting: structures of the pre-training, or the base model's own labels."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmace_sim.base.quantities import DEFAULT_HEAD
from mmace_sim.errors import DataError
from mmace_sim.files import write_text
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.io.extxyz import frames_text
from mmace_sim.io.frames import Frame
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.derivatives import evaluate
from mmace_sim.training.config import LabelKeys
from mmace_sim.training.data.stream import open_frames
from mmace_sim.training.finetuning.config import ReplayConfig
from mmace_sim.training.finetuning.moment_limits import check_moments

_IDENTITY = ("group", "config_id", "uid")


def replay_frames(config: ReplayConfig, new: Sequence[Frame], base: MagneticModel, seed: int) -> list[Frame]:
    """The structures of the replay with their labels.

    Args:
        config: Where they come from.
        new: Structures that the model is fine-tuned on.
        base: The model before.
        seed: Seed of the choice and of the distortions.

    Raises:
        DataError: If a structure cannot be used, or the base model does not know its elements.
    """
    rng = np.random.default_rng(seed)
    if config.file:
        frames = _draw(_read(config.file, config.keys), config.n, rng)
    elif config.structures:
        frames = label(base, _draw(_read(config.structures, LabelKeys()), config.n, rng))
    else:
        chosen = [new[k % len(new)] for k in rng.permutation(config.n_variants)]
        frames = label(base, [distort(frame, config, rng, base.moment_limits) for frame in chosen])
    unknown = {int(z) for frame in frames for z in frame.atoms.numbers} - set(base.elements)
    if unknown:
        raise DataError(f"replay: atomic numbers {sorted(unknown)} are unknown to the model")
    if base.moment_limits:
        check_moments(base, [frames])
    return frames


def distort(
    frame: Frame, config: ReplayConfig, rng: np.random.Generator, limits: Mapping[int, float] | None = None
) -> Frame:
    """A copy with strained cell, displaced atoms, and turned and stretched moments, without labels.

    Args:
        frame: Structure.
        config: Sizes of the changes.
        rng: Draws them.
        limits: Moment of each element above which no copy may have one, in μB, by atomic number.
    """
    atoms = frame.atoms.copy()
    for key in _IDENTITY:  # a copy is no member of the original's group
        atoms.info.pop(key, None)
    noise = rng.normal(scale=config.strain, size=(3, 3))
    if atoms.pbc.any():
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.5 * (noise + noise.T)), scale_atoms=True)
    atoms.positions += rng.normal(scale=config.rattle, size=(len(atoms), 3))
    length = np.linalg.norm(frame.magmoms, axis=1, keepdims=True)
    angle = np.radians(config.turn) * rng.normal(size=(len(atoms), 1))
    side = np.cross(frame.magmoms, rng.normal(size=(len(atoms), 3)))
    side *= length / np.linalg.norm(side, axis=1, keepdims=True).clip(min=1e-12)
    magmoms = np.cos(angle) * frame.magmoms + np.sin(angle) * side
    magmoms *= 1.0 + config.stretch * rng.normal(size=(len(atoms), 1))
    largest = np.array([[(limits or {}).get(z, np.inf)] for z in atoms.numbers.tolist()])
    magmoms *= np.minimum(1.0, largest / np.linalg.norm(magmoms, axis=1, keepdims=True).clip(min=1e-12))
    return replace(frame, atoms=atoms, magmoms=magmoms, labels={}, config_type=f"{frame.config_type}_variant")


def label(model: MagneticModel, frames: Sequence[Frame]) -> list[Frame]:
    """Structures with the energies, forces, stresses and magnetic forces that a model gives them.

    Args:
        model: Model with one head.
        frames: Structures, which keep everything but their labels.
    """
    labelled = []
    for frame in frames:
        atoms = frame.atoms.copy()
        set_magmoms(atoms, frame.magmoms)
        periodic = bool(atoms.pbc.all())
        out = evaluate(
            model, graph_from_atoms(atoms, model.r_max, dtype=model.dtype), compute_stress=periodic
        )
        labels = {key: out[key].detach().cpu().numpy() for key in ("forces", "magforces")}
        labels["energy"] = out["energy"].detach().cpu().numpy().reshape(())
        if periodic:
            labels["stress"] = out["stress"].detach().cpu().numpy().reshape(3, 3)
        labelled.append(replace(frame, labels=labels))
    return labelled


def write_frames(path: Path, frames: Sequence[Frame]) -> None:
    """Write labelled structures as extended XYZ with the default names of the labels.

    Args:
        path: File to write.
        frames: Structures.
    """
    keys, images = LabelKeys(), []
    for frame in frames:
        kept = {key: frame.atoms.info[key] for key in _IDENTITY if key in frame.atoms.info}
        atoms = frame.atoms.copy()
        atoms.calc = None
        atoms.info = kept | {keys.config_type: frame.config_type}
        for name in set(atoms.arrays) - {"numbers", "positions"}:
            del atoms.arrays[name]
        atoms.arrays[keys.magmoms] = frame.magmoms
        for name, value in frame.labels.items():
            where = atoms.arrays if name in ("forces", "magforces") else atoms.info
            where[getattr(keys, name)] = float(value) if name == "energy" else value
        images.append(atoms)
    text, notes = frames_text(images)
    if notes:
        raise DataError(f"{path}: structure {next(iter(notes))}: {next(iter(notes.values()))}.")
    write_text(path, text)


def _read(paths: Sequence[Path], keys: LabelKeys) -> list[Frame]:
    """All structures of some files, in memory; one that cannot be used is an error, as in the data to train on."""
    return list(open_frames(paths, keys, DEFAULT_HEAD, stream=False))


def _draw(frames: list[Frame], n: int | None, rng: np.random.Generator) -> list[Frame]:
    """At most `n` structures, in the order of the files."""
    if n is None or n >= len(frames):
        return frames
    return [frames[k] for k in sorted(rng.choice(len(frames), size=n, replace=False))]
