"""Where the data end: onsets of the repulsion before training, floors of energies and the range of the data after."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols, covalent_radii

from mmace_sim.graph.batch import MagneticGraph
from mmace_sim.model.architectures import DEFAULT_ARCHITECTURE
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.config import ArchitectureConfig, pair_name
from mmace_sim.model.data_range import DataRange, interaction_energy_per_atom
from mmace_sim.training.config import TrainConfig
from mmace_sim.training.data.dataset import GraphDataset, make_loader
from mmace_sim.training.data.stream import Frames
from mmace_sim.training.data.stream_summary import summarize

SAMPLED_SHARE: float = 0.9
"""Onset of the repulsion over the shortest distance where only some of the structures were measured."""

CROWD_MARGIN: float = 1.05
"""Crowding that is allowed, over the largest of the data: atoms that vibrate in a crystal of the data keep within."""

FLOOR_MARGIN: float = 0.25
"""The floor lies below the lowest energy that an atom has in the data by this part of the width of such energies."""
SMALLEST_MARGIN: float = 0.1
"""... and by at least this much, in eV."""
CEILING_MARGIN: float = 1.0
"""The ceiling lies above the highest energy by the width of all, and by at least this much, in eV."""


def shortest_distances(graphs: Iterable[MagneticGraph]) -> dict[str, float]:
    """Shortest distance of each pair of elements that are neighbours somewhere, in Å."""
    shortest = np.full((120, 120), np.inf)
    for graph in graphs:
        numbers = graph.atomic_numbers[graph.edge_index].numpy()
        np.minimum.at(shortest, tuple(numbers), graph.edge_vectors().norm(dim=1).double().numpy())
    shortest = np.minimum(shortest, shortest.T)
    first, second = np.nonzero(np.isfinite(np.triu(shortest)) & np.triu(np.ones_like(shortest, dtype=bool)))
    return {pair_name(int(a), int(b)): float(shortest[a, b]) for a, b in zip(first, second, strict=True)}


def repulsion_onsets(sets: Sequence[GraphDataset]) -> dict[str, float]:
    """Onset of the repulsion for each pair of elements, in Å.

    It is the shortest distance of the data, and never above the sum of covalent radii.

    Args:
        sets: Structures to train and to validate on.
    """
    parts = [whole.part() for whole in sets]
    found = shortest_distances(part[k].graph for part in parts for k in range(len(part)))
    all_seen = all(len(part) == len(whole) for part, whole in zip(parts, sets, strict=True))
    share = 1.0 if all_seen else SAMPLED_SHARE
    radii = dict(zip(chemical_symbols, covalent_radii.tolist(), strict=False))
    onsets = {}
    for pair, distance in found.items():
        touching = sum(radii[symbol] for symbol in pair.split("-"))
        onsets[pair] = float(np.floor(1e3 * min(share * distance, touching)) / 1e3)
    return onsets


def with_onsets(config: TrainConfig, onsets: dict[str, float] | None) -> TrainConfig:
    """The configuration with the onsets that it leaves open.

    Args:
        config: The run; the models of others have a repulsion only if it asks for one.
        onsets: Those of the data; None if they are not known.
    """
    own = config.model.get("architecture", DEFAULT_ARCHITECTURE) == DEFAULT_ARCHITECTURE
    default = onsets if own and not {"foundation", "start_from"} & set(config.model) else None
    given = config.model.get("repulsion", default)
    if given is None or not isinstance(given, dict):
        return config
    return config.model_copy(update={"model": {**config.model, "repulsion": {**(onsets or {}), **given}}})


def lower_onsets(old: Mapping[str, float], new: Mapping[str, float]) -> dict[str, float]:
    """Onsets of a model that goes on with other data: the shorter of both.

    Args:
        old: Of the model.
        new: Of the data.
    """
    return {pair: min(onset, new.get(pair, onset)) for pair, onset in old.items()} | {
        pair: onset for pair, onset in new.items() if pair not in old
    }


def set_outer_limits(model: MagneticModel, frames: Frames, before: ArchitectureConfig | None) -> None:
    """Set what atoms may not undercut in energy, and from where on they are crowded: both a bit outside of the data.

    Args:
        model: The trained model, without these limits, on the CPU in float64; one without a repulsion has none.
        frames: Structures that it was trained on.
        before: Hyper-parameters of the model that training started from, whose limits only widen.
    """
    if model.short_range is None:
        return
    whole = GraphDataset(frames, model.r_max, keep=False)
    train_set = whole.part()
    low, high, crowding = np.zeros(120), np.zeros(120), np.zeros(120)  # an isolated atom has none
    for batch in make_loader(train_set, batch_size=8, num_workers=0):
        graph, species = batch.graph, model.species_table[batch.graph.atomic_numbers]
        vectors, numbers = graph.edge_vectors(), graph.atomic_numbers.numpy()
        with torch.no_grad():
            network = model.network(graph, model.seen_vectors(graph, vectors), species)
            crowds = model.short_range.crowding(vectors, graph.edge_index, species)
        energies = (model.scale * network).double().numpy()
        np.minimum.at(low, numbers, energies)
        np.maximum.at(high, numbers, energies)
        np.maximum.at(crowding, numbers, crowds.numpy())
    margin = np.maximum(FLOOR_MARGIN * (high - low), SMALLEST_MARGIN)
    floors = np.floor(1e3 * (low - margin)) / 1e3
    share = 1.0 if len(train_set) == len(whole) else SAMPLED_SHARE
    crowding = np.ceil(1e3 * CROWD_MARGIN * crowding / share) / 1e3
    ceilings = np.ceil(1e3 * (high + np.maximum(high - low, CEILING_MARGIN))) / 1e3
    told, packed, tall = (
        ({}, {}, {}) if before is None else (before.energy_floor, before.max_crowding, before.energy_ceiling)
    )
    model.set_limits(
        energy_floor={z: float(max(min(floors[z], told.get(z, 0.0)), -1e6)) for z in model.elements},
        energy_ceiling={z: float(min(max(ceilings[z], tall.get(z, 0.0)), 1e6)) for z in model.elements},
        max_crowding={z: float(max(crowding[z], packed.get(z, 0.0))) for z in model.elements if crowding[z]},
    )


def data_ranges(model: MagneticModel, train_set: GraphDataset) -> dict[str, Any]:
    """What the metadata of a model say about the range of its data (see `mmace_sim.model.data_range`).

    Args:
        model: The trained model.
        train_set: Structures that it was trained on.
    """
    part = train_set.part()
    heads = summarize(part.frames).heads
    ranges = {}
    for head in model.heads:
        own = np.arange(len(part)) if len(model.heads) == 1 else np.flatnonzero(heads == head)
        frames = [part.frames[k] for k in own.tolist()]
        energies = [
            interaction_energy_per_atom(model, float(f.labels["energy"]), f.atoms.numbers.tolist(), head)
            for f in frames
            if "energy" in f.labels
        ]
        volumes = [f.atoms.get_volume() / len(f.atoms) for f in frames if f.atoms.pbc.all()]
        if energies:
            ranges[head] = DataRange(
                interaction_energy_per_atom=(min(energies), max(energies)),
                shortest_distances=shortest_distances(part[k].graph for k in own.tolist()),
                volume_per_atom=(min(volumes), max(volumes)) if volumes else None,
                largest_moments={
                    chemical_symbols[z]: m for z, m in summarize(frames).largest_moments.items()
                },
            ).model_dump(mode="json")
    if len(model.heads) == 1:
        return next(iter(ranges.values()), {})
    return ranges
