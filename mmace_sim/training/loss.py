"""Losses as small objects: one per label, each knowing which label it needs, summed by `TotalLoss`."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmace_sim.training.config import LossConfig, LossTerm
from mmace_sim.training.dataset import LabelledBatch
from mmace_sim.training.frames import LABELS

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

    def __call__(self, prediction: Predictions, batch: LabelledBatch) -> Float[Tensor, ""]:
        """Loss of a batch; zero (without a gradient) if no structure of it has the label.

        Args:
            prediction: Output of `evaluate`.
            batch: Structures with their labels.

        Returns:
            weight · Σ w_s ρ / Σ w_s, over all components with a label, w_s the weight of the structure.
        """
        errors = batch.errors(prediction, self.label)
        if errors.value.numel() == 0:
            return batch.structure_weight.new_zeros(())
        penalty = self.penalty(errors.value / self.scale)
        weight = batch.structure_weight[errors.system_idx].to(penalty.dtype)
        return self.weight * (penalty * weight).sum() / weight.sum().clamp(min=1e-12)


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
        return torch.stack([term(prediction, batch) for term in self.terms]).sum()

    def needs(self, label: str) -> bool:
        """Whether a label takes part."""
        return any(term.label == label for term in self.terms)


def build_loss(config: LossConfig) -> TotalLoss:
    """The loss that a configuration describes."""
    kind = HuberLoss if config.kind == "huber" else MSELoss
    terms: list[LabelLoss] = []
    for label in LABELS:
        term: LossTerm = getattr(config, label)
        if term.weight > 0.0:
            terms.append(kind(label, term.weight, term.scale))
    return TotalLoss(tuple(terms))
