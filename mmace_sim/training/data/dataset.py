"""Labelled structures as graphs, kept in memory or built when they are needed, and the batches made of them.

A label that a structure does not have is NaN in the batch. Nothing is computed from it: `LabelledBatch.errors`
selects the entries that exist, and a NaN that slipped through would show at once.
"""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers as number_of_symbol
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mmace_sim.graph.batch import MagneticGraph, Memo, build_graph
from mmace_sim.io.frames import LABELS, Frame
from mmace_sim.training.data.stream import StoredFrames
from mmace_sim.training.data.stream_summary import sample, summarize

MAX_WORKERS: int = 4
"""Most processes that prepare batches where graphs are built when they are needed."""

NEIGHBOR_SAMPLE: int = 2000
"""Structures whose neighbours are counted where graphs are built when they are needed."""


@dataclass
class Errors:
    """Prediction minus reference where a reference exists, one entry per component.

    Attributes:
        value: Errors (energies per atom).
        system_idx: Structure of each entry.
    """

    value: Float[Tensor, " n_entries"]
    system_idx: Int[Tensor, " n_entries"]


@dataclass
class Known:
    """Entries of a label that exist.

    Attributes:
        entries: Their numbers in the flat array of the label.
        system_idx: Structure of each.
    """

    entries: Int[Tensor, " n_entries"]
    system_idx: Int[Tensor, " n_entries"]

    def to(self, device: torch.device | str) -> "Known":
        """The same on another device."""
        return Known(self.entries.to(device), self.system_idx.to(device))


@dataclass
class LabelledBatch:
    """A batch of structures with their labels; NaN where a label is missing.

    Attributes:
        graph: Structures, moments and neighbours.
        energy: Total energies, in eV, always in float64 (they are large).
        forces: Forces, in eV/Å.
        stress: Stress, in eV/Å³.
        magforces: Magnetic forces, in eV/μB.
        structure_weight: Weight of each structure's labels in the loss.
        n_atoms: Number of atoms of each structure.
        config_idx: Index of each structure's config_type.
    """

    graph: MagneticGraph
    energy: Float[Tensor, " n_systems"]
    forces: Float[Tensor, "n_atoms 3"]
    stress: Float[Tensor, "n_systems 3 3"]
    magforces: Float[Tensor, "n_atoms 3"]
    structure_weight: Float[Tensor, " n_systems"]
    n_atoms: Int[Tensor, " n_systems"]
    config_idx: Int[Tensor, " n_systems"]
    kept: Memo = field(init=False, default_factory=Memo, repr=False, compare=False)

    def to(self, device: torch.device | str) -> "LabelledBatch":
        """The batch on another device, with what is known of its labels, so that no step has to ask there."""
        graph = self.graph.map(lambda tensor: tensor.to(device))
        tensors = {
            f.name: getattr(self, f.name).to(device) for f in fields(self) if f.init and f.name != "graph"
        }
        moved = LabelledBatch(graph=graph, **tensors)
        for label in LABELS:
            moved.kept.get(label, (getattr(moved, label),), partial(self.known(label).to, device))
        number = self.n_labelled
        moved.kept.get("number", moved._labels, lambda: number)
        return moved

    @property
    def _labels(self) -> tuple[Tensor, ...]:
        return tuple(getattr(self, label) for label in LABELS)

    @property
    def n_labelled(self) -> int:
        """Number of structures that have any label."""
        return self.kept.get(
            "number",
            self._labels,
            lambda: len(torch.cat([self.known(label).system_idx for label in LABELS]).unique()),
        )

    def known(self, label: str) -> Known:
        """Entries of a label that exist; looked for once.

        Args:
            label: `energy`, `forces`, `stress` or `magforces`.
        """
        reference = getattr(self, label)

        def find() -> Known:
            entries = torch.nonzero(~torch.isnan(reference.flatten()))[:, 0]
            rows = entries // max(reference[:1].numel(), 1)
            return Known(entries, self.graph.system_idx[rows] if label in ("forces", "magforces") else rows)

        return self.kept.get(label, (reference,), find)

    def has(self, label: str) -> bool:
        """Whether any structure has the label."""
        return len(self.known(label).entries) > 0

    def errors(self, prediction: dict[str, Tensor], label: str) -> Errors:
        """Errors of a prediction where a reference exists; the difference of energies is taken in float64.

        Args:
            prediction: Output of `evaluate`, with the label.
            label: `energy` (compared per atom), `forces`, `stress` or `magforces`.
        """
        known = self.known(label)
        owner = known.system_idx
        if not len(owner):
            return Errors(self.structure_weight.new_zeros(0), owner)
        reference = getattr(self, label).flatten()[known.entries]
        error = prediction[label].flatten()[known.entries] - reference
        if label == "energy":
            error = (error / self.n_atoms[owner]).to(self.structure_weight.dtype)
        return Errors(error, owner)


class GraphDataset(Dataset[LabelledBatch]):
    """Structures with their neighbour lists.

    Args:
        frames: Structures, in memory or on the disk.
        r_max: Cutoff radius of the model, in Å.
        dtype: Floating-point type of everything but the energies.
        config_types: Names that `config_idx` counts; collected from the frames if not given.
        config_type_weights: Weight of the labels per config_type.
        magforce_elements: Symbols of the elements whose magnetic forces are labels; None means all.
        heads: Weight of the labels of each of the model's heads, in its order; None for a model with only one.
        keep: Find all neighbours now and keep the graphs in memory, instead of each when it is asked for. Default: keep
            them unless the structures are on the disk.
    """

    def __init__(
        self,
        frames: Sequence[Frame],
        r_max: float,
        *,
        dtype: torch.dtype = torch.float64,
        config_types: Sequence[str] | None = None,
        config_type_weights: dict[str, float] | None = None,
        magforce_elements: Sequence[str] | None = None,
        heads: Mapping[str, float] | None = None,
        keep: bool | None = None,
    ) -> None:
        self._heads = heads
        self.frames = frames
        self._r_max, self._dtype = r_max, dtype
        known = config_types or np.unique(summarize(frames).config_types).tolist()
        self.config_types: list[str] = list(known)
        self._weights = config_type_weights or {}
        self._constrained = constrained_numbers(magforce_elements)
        self.is_kept = not isinstance(frames, StoredFrames) if keep is None else keep
        self.samples = [self._build(frame) for frame in frames] if self.is_kept else []

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> LabelledBatch:
        return self.samples[index] if self.is_kept else self._build(self.frames[index])

    @property
    def num_workers(self) -> int:
        """Processes that are worth having to prepare batches: none if the graphs are in memory."""
        return 0 if self.is_kept else min(MAX_WORKERS, max(1, (os.cpu_count() or 1) - 1))

    @cached_property
    def mean_neighbors(self) -> float:
        """Mean number of neighbours of an atom; of a random part of the structures if the graphs are not kept."""
        part = self.part()
        graphs = (part[k].graph for k in range(len(part)))
        counts = np.array([(g.n_atoms, g.edge_index.shape[1]) for g in graphs]).reshape(-1, 2)
        n_atoms, n_edges = counts.sum(axis=0)
        return float(n_edges) / max(int(n_atoms), 1)

    def part(self) -> "GraphDataset":
        """The set itself, or a random part of it if the graphs are not kept."""
        some = self.frames if self.is_kept else sample(self.frames, NEIGHBOR_SAMPLE)
        if len(some) == len(self.frames):
            return self
        part = copy.copy(self)
        part.__dict__.pop("mean_neighbors", None)
        part.frames = some
        return part

    def _build(self, frame: Frame) -> LabelledBatch:
        r_max, dtype = self._r_max, self._dtype
        atoms = frame.atoms
        graph = build_graph(
            torch.tensor(atoms.positions),
            torch.tensor(atoms.cell.array[None]),
            torch.tensor(atoms.pbc[None]),
            torch.tensor(atoms.numbers),
            torch.tensor(frame.magmoms),
            torch.zeros(len(atoms), dtype=torch.long),
            r_max,
        )
        weight = self._weights.get(frame.config_type, 1.0)
        if self._heads is not None:
            graph = replace(graph, head_idx=torch.tensor([list(self._heads).index(frame.head)]))
            weight *= self._heads[frame.head]
        return LabelledBatch(
            graph=cast_graph(graph, dtype),
            structure_weight=torch.tensor([weight], dtype=dtype),
            n_atoms=torch.tensor([len(atoms)]),
            config_idx=torch.tensor([self.config_types.index(frame.config_type)]),
            **label_tensors(frame, dtype, self._constrained),
        )


def constrained_numbers(symbols: Sequence[str] | None) -> list[int] | None:
    """Atomic numbers of the elements whose magnetic forces are labels.

    Args:
        symbols: Their symbols; None means all elements.
    """
    return None if symbols is None else [number_of_symbol[symbol] for symbol in symbols]


def label_tensors(
    frame: Frame, dtype: torch.dtype, constrained: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Labels of a structure in the shapes of a batch of one; NaN where there is none.

    Args:
        frame: The structure.
        dtype: Floating-point type of everything but the energy.
        constrained: From `constrained_numbers`.
    """
    atoms, labels = frame.atoms, dict(frame.labels)
    if "magforces" in labels and constrained is not None:
        free = ~np.isin(atoms.numbers, constrained)
        labels["magforces"] = np.where(free[:, None], np.nan, labels["magforces"])
    shapes = {"forces": (len(atoms), 3), "stress": (1, 3, 3), "magforces": (len(atoms), 3)}
    tensors = {
        name: torch.tensor(labels.get(name, np.full(shape, np.nan)), dtype=dtype).reshape(shape)
        for name, shape in shapes.items()
    }
    energy = torch.tensor(labels.get("energy", np.nan), dtype=torch.float64).reshape(1)
    return {"energy": energy} | tensors


class EpochShuffle(Sampler[int]):
    """A random order that depends on the seed and the epoch only, so that a resumed run sees the same batches."""

    def __init__(self, n_samples: int, seed: int) -> None:
        self.n_samples = n_samples
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (called by Lightning)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n_samples

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(torch.randperm(self.n_samples, generator=generator).tolist())


def collate(samples: Sequence[LabelledBatch]) -> LabelledBatch:
    """One batch of several: concatenated, with the indices of atoms and structures shifted."""
    n_atoms = torch.cat([s.n_atoms for s in samples])
    n_edges = torch.tensor([s.graph.edge_index.shape[1] for s in samples])
    first_atom = torch.cumsum(n_atoms, 0) - n_atoms
    shift = torch.repeat_interleave(first_atom, n_edges)

    def joined(name: str, parts: Sequence[LabelledBatch | MagneticGraph] = samples) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    graphs = [s.graph for s in samples]
    arrays = ["positions", "cell", "magmoms", "atomic_numbers", "edge_shifts"]
    arrays += [] if graphs[0].head_idx is None else ["head_idx"]
    tensors: dict[str, Any] = {name: joined(name, graphs) for name in arrays}
    graph = MagneticGraph(
        system_idx=torch.repeat_interleave(torch.arange(len(n_atoms)), n_atoms),
        edge_index=torch.cat([g.edge_index for g in graphs], dim=1) + shift,
        **tensors,
    )
    graph.pair_counts = np.bincount(graph.edge_index[1].numpy(), minlength=graph.n_atoms)
    names = ("energy", "forces", "stress", "magforces", "structure_weight", "config_idx")
    return LabelledBatch(graph=graph, n_atoms=n_atoms, **{name: joined(name) for name in names})


def cast_graph(graph: MagneticGraph, dtype: torch.dtype) -> MagneticGraph:
    """The graph with its floating-point tensors in another precision."""
    return graph.map(lambda tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)


def make_loader(
    dataset: GraphDataset,
    batch_size: int,
    *,
    shuffle_seed: int | None = None,
    num_workers: int | None = None,
) -> DataLoader:
    """Batches of a data set, in order or shuffled anew each epoch.

    Where the graphs are in memory, joining them takes microseconds, and worker processes would only cost time.

    Args:
        dataset: Structures.
        batch_size: Structures in a batch.
        shuffle_seed: Seed of the order; None keeps the order of the set.
        num_workers: Processes that prepare batches; default: as many as are worth having.
    """
    workers = dataset.num_workers if num_workers is None else num_workers
    sampler = None if shuffle_seed is None else EpochShuffle(len(dataset), shuffle_seed)
    return DataLoader(
        dataset, batch_size=batch_size, sampler=sampler, collate_fn=collate, num_workers=workers
    )
