"""Symmetry operations on labelled structures, drawn anew for every structure and epoch.

A model that has a symmetry built in learns nothing from it; one that lacks it (`PaperMMACE`: reversal of all moments)
can be taught it approximately.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from mmace_sim.training.config_loss import AugmentConfig
from mmace_sim.training.data.dataset import LabelledBatch


@dataclass(frozen=True)
class Augment:
    """Random operations that depend on the seed, the epoch and the structure only, so that a run can be resumed.

    Attributes:
        config: Which operations.
        seed: Seed of the run.
    """

    config: AugmentConfig
    seed: int

    @property
    def acts(self) -> bool:
        """Whether there is anything to do."""
        return self.config.rotation != "none" or self.config.time_reversal

    def __call__(self, sample: LabelledBatch, epoch: int, index: int) -> LabelledBatch:
        """The structure as this epoch sees it.

        Args:
            sample: One structure.
            epoch: Epoch, from 0.
            index: Number of the structure in its set.
        """
        random = np.random.default_rng([self.seed, epoch, index])
        if self.config.rotation != "none":
            matrix = torch.tensor(Rotation.random(rng=random).as_matrix(), dtype=sample.forces.dtype)
            sample = turn_moments(sample, matrix)
            if self.config.rotation == "joint":
                sample = turn_lattice(sample, matrix)
        if self.config.time_reversal and random.random() < 0.5:
            sample = turn_moments(sample, -torch.eye(3, dtype=sample.forces.dtype))
        return sample


def turn_moments(sample: LabelledBatch, matrix: Float[Tensor, "3 3"]) -> LabelledBatch:
    """Moments and magnetic forces turned against the lattice.

    Args:
        sample: Structures with labels.
        matrix: Orthogonal matrix.
    """
    graph = replace(sample.graph, magmoms=sample.graph.magmoms @ matrix.T)
    return replace(sample, graph=graph, magforces=sample.magforces @ matrix.T)


def turn_lattice(sample: LabelledBatch, matrix: Float[Tensor, "3 3"]) -> LabelledBatch:
    """Positions, cell, forces and stress turned, moments left alone.

    Args:
        sample: Structures with labels.
        matrix: Rotation matrix.
    """
    graph = replace(
        sample.graph, positions=sample.graph.positions @ matrix.T, cell=sample.graph.cell @ matrix.T
    )
    stress = matrix @ sample.stress @ matrix.T
    return replace(sample, graph=graph, forces=sample.forces @ matrix.T, stress=stress)
