"""Which structures each process sees in each step.

A batch is what all processes together see in a step: two processes with half a batch each take the steps that one
process with the whole batch would take.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from mmace_sim.training.data.augment import Augment
from mmace_sim.training.data.dataset import EpochShuffle, GraphDataset, LabelledBatch, collate
from mmace_sim.training.distributed import rank, world_size


@dataclass(frozen=True)
class Share:
    """One process's part of a batch.

    Attributes:
        epoch: Epoch, from 0.
        indices: Numbers of the structures.
        counts: False for a structure that only keeps a process busy that has no part in a short batch.
    """

    epoch: int
    indices: tuple[int, ...]
    counts: bool = True


class ShareSampler(Sampler[Share]):
    """The shares of this process, in an order that depends on the seed and the epoch only.

    Args:
        n_samples: Size of the set.
        batch_size: Structures per step, of all processes together.
        seed: Seed of the order; None keeps the order of the set.
        epoch: First epoch.
        start: Steps of the first epoch that are done already.
    """

    def __init__(
        self, n_samples: int, batch_size: int, *, seed: int | None = None, epoch: int = 0, start: int = 0
    ) -> None:
        self.n_samples = n_samples
        self.batch_size = batch_size
        self.shuffle = None if seed is None else EpochShuffle(n_samples, seed)
        self.first_epoch, self.start = epoch, start
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (called by Lightning)."""
        self.epoch = epoch
        if self.shuffle is not None:
            self.shuffle.set_epoch(epoch)

    def __len__(self) -> int:
        return math.ceil(self.n_samples / self.batch_size)

    def __iter__(self) -> Iterator[Share]:
        order = list(range(self.n_samples) if self.shuffle is None else self.shuffle)
        start = self.start if self.epoch == self.first_epoch else 0
        for step in range(start, len(self)):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            mine = tuple(batch[rank() :: world_size()])
            yield Share(self.epoch, mine or (batch[0],), counts=bool(mine))


class ShareDataset(Dataset[LabelledBatch]):
    """Batches of a set of structures, indexed by shares.

    Args:
        samples: Structures.
        augment: Operations on each, if any.
    """

    def __init__(self, samples: Dataset[LabelledBatch], augment: Augment | None = None) -> None:
        self.samples = samples
        self.augment = augment

    def __getitem__(self, share: Share) -> LabelledBatch:
        batch = collate([self._sample(share.epoch, index) for index in share.indices])
        return batch if share.counts else without_labels(batch)

    def _sample(self, epoch: int, index: int) -> LabelledBatch:
        sample = self.samples[index]
        return sample if self.augment is None else self.augment(sample, epoch, index)


def share_loader(
    samples: Dataset[LabelledBatch], sampler: ShareSampler, augment: Augment | None = None
) -> DataLoader:
    """Batches of this process.

    Args:
        samples: Structures.
        sampler: Which of them, in which order.
        augment: Operations on each, if any.
    """
    workers = samples.num_workers if isinstance(samples, GraphDataset) else 0
    return DataLoader(
        ShareDataset(samples, augment),
        sampler=sampler,
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=workers,
    )


def without_labels(batch: LabelledBatch) -> LabelledBatch:
    """The structures of a batch as if nothing were known of them."""

    def unknown(labels: Tensor) -> Tensor:
        return torch.full_like(labels, float("nan"))

    return replace(
        batch,
        energy=unknown(batch.energy),
        forces=unknown(batch.forces),
        stress=unknown(batch.stress),
        magforces=unknown(batch.magforces),
    )


def _unchanged[Batch](batch: Batch) -> Batch:
    return batch
