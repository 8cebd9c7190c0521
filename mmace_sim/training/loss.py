"""Losses as small objects: one per label, each knowing which label it needs, summed by `TotalLoss`."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmace_sim.base.devices import uploaded
from mmace_sim.io.frames import LABELS
from mmace_sim.training.config_loss import Label, LossConfig, LossTerm
from mmace_sim.training.data.dataset import LabelledBatch

Predictions = dict[str, Tensor]


@dataclass(frozen=True)
class LabelLoss:
    """Weighted mean of ρ(error / scale) over the entries of one label that exist.

    Attributes:
        label: `energy` (compared per atom), `forces`, `stress` or `magforces`.
        weight: Weight of the label.
        scale: Error that counts as 1, in the label's unit.
    """

    label: str
    weight: float
    scale: float

    def penalty(self, error: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """ρ of a dimensionless error."""
        raise NotImplementedError

    def sums(self, prediction: Predictions, batch: LabelledBatch) -> Float[Tensor, " 2"]:
        """Σ w_s ρ and the number of terms, over all components with a label, w_s the weight of the structure.

        Sums, so that batches and processes can be added up before one is divided by the other. The number does not
        depend on the weights: a structure of weight 2 counts twice whatever else is in its batch.

        Args:
            prediction: Output of `evaluate`.
            batch: Structures with their labels.

        Returns:
            Both sums; zeros (without a gradient) if no structure of the batch has the label.
        """
        errors = batch.errors(prediction, self.label)
        if errors.value.numel() == 0:
            return batch.structure_weight.new_zeros(2)
        penalty = self.penalty(errors.value / self.scale)
        weight = batch.structure_weight[errors.system_idx].to(penalty.dtype)
        return torch.stack([(penalty * weight).sum(), weight.new_full((), weight.numel())])


class HuberLoss(LabelLoss):
    """ρ(x) = x²/2 for |x| < 1, |x| − 1/2 beyond."""

    def penalty(self, error: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Huber's function with its kink at 1."""
        size = error.abs()
        return torch.where(size < 1.0, 0.5 * error * error, size - 0.5)


class MSELoss(LabelLoss):
    """ρ(x) = x²/2."""

    def penalty(self, error: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Half the square."""
        return 0.5 * error * error


LOSSES: dict[str, type[LabelLoss]] = {"huber": HuberLoss, "mse": MSELoss}
"""The losses that a configuration may name."""


@dataclass(frozen=True)
class TotalLoss:
    """Sum of the losses of several labels.

    Attributes:
        terms: One loss per label, none of weight zero.
    """

    terms: tuple[LabelLoss, ...]

    def __call__(self, prediction: Predictions, batch: LabelledBatch) -> Float[Tensor, ""]:
        """Loss of a batch.

        Args:
            prediction: Output of `evaluate`.
            batch: Structures with their labels.

        Returns:
            Dimensionless loss.
        """
        sums = self.sums(prediction, batch)
        return self.total(sums[:, 0], sums[:, 1])

    def sums(self, prediction: Predictions, batch: LabelledBatch) -> Float[Tensor, "n_terms 2"]:
        """Σ w ρ and the number of terms of each label, see `LabelLoss.sums`.

        Args:
            prediction: Output of `evaluate`.
            batch: Structures with their labels.
        """
        return torch.stack([term.sums(prediction, batch) for term in self.terms])

    def total(
        self, penalties: Float[Tensor, " n_terms"], counts: Float[Tensor, " n_terms"]
    ) -> Float[Tensor, ""]:
        """Σ weight · (Σ w ρ / n) over the labels; a label that nothing has costs nothing.

        Args:
            penalties: Σ w ρ of each label.
            counts: Number of terms of each label.
        """
        means = penalties / counts.clamp(min=1.0)
        weights = uploaded(np.array([t.weight for t in self.terms]), means.device, dtype=means.dtype)
        return (means * weights).sum()

    def needs(self, label: str) -> bool:
        """Whether a label takes part."""
        return any(term.label == label for term in self.terms)


def build_loss(config: LossConfig, weights: Mapping[Label, float] | None = None) -> TotalLoss:
    """The loss that a configuration describes.

    Args:
        config: Kind, scales and weights.
        weights: Weights of labels that differ from those of `config`.
    """
    kind = LOSSES[config.kind]
    changed = {str(label): weight for label, weight in (weights or {}).items()}
    terms: list[LabelLoss] = []
    for label in LABELS:
        term: LossTerm = getattr(config, label)
        weight = changed.get(label, term.weight)
        if weight > 0.0:
            terms.append(kind(label, weight, term.scale))
    return TotalLoss(tuple(terms))
