"""The parts of a training configuration that say what is minimised: the loss, its second stage, and augmentation."""

import fnmatch
from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
)

from mmace_sim.base.settings import Settings
from mmace_sim.errors import ConfigError


class Section(Settings):
    """A part of the configuration that refuses keys it does not know."""

    model_config = ConfigDict(validate_assignment=True)


class LossTerm(Section):
    """One label's part of the loss: weight · mean(ρ(error / scale))."""

    weight: NonNegativeFloat = 1.0
    """Weight of this label; 0 leaves the label out."""

    scale: PositiveFloat
    """Error that counts as 1: the accuracy wanted of this label. Beyond it the Huber loss grows linearly."""


class LossConfig(Section):
    """Loss of the four labels, made dimensionless by the accuracy wanted of each (so that weights are of order 1)."""

    kind: str = Field(default="huber", max_length=100)
    """ρ: `huber` (quadratic below 1, linear above: outliers do not dominate), `mse` (the plain square), or your own."""

    energy: LossTerm = Field(default_factory=lambda: LossTerm(weight=1.0, scale=0.01))
    """Energy per atom; scale in eV/atom."""

    forces: LossTerm = Field(default_factory=lambda: LossTerm(weight=1.0, scale=0.1))
    """Forces; scale in eV/Å."""

    stress: LossTerm = Field(default_factory=lambda: LossTerm(weight=0.3, scale=0.005))
    """Stress; scale in eV/Å³."""

    magforces: LossTerm = Field(default_factory=lambda: LossTerm(weight=1.0, scale=0.05))
    """Magnetic forces; scale in eV/μB."""

    magforce_elements: list[str] | None = None
    """Elements whose magnetic forces are labels; default: all. Leave out atoms that the reference did not constrain."""

    config_type_weights: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Weight of all labels of the structures of a config_type, whatever else is in their batch; 1 where not given. `*`
    and `?` stand for any characters (`strain_*`); a whole name goes before these, and of these the first that fits."""

    def weights(self, config_types: Iterable[str]) -> dict[str, float]:
        """Weight of each config_type.

        Raises:
            ConfigError: If a name of `config_type_weights` fits none: it would be ignored.
        """
        known = list(config_types)
        wrong = [
            name for name in self.config_type_weights if name not in known and not fnmatch.filter(known, name)
        ]
        if wrong:
            raise ConfigError(
                f"loss.config_type_weights names {', '.join(sorted(wrong))}; the config_types of the data are "
                f"{', '.join(known)}"
            )
        return {name: self._weight(name) for name in known}

    def _weight(self, config_type: str) -> float:
        given = self.config_type_weights
        if config_type in given:
            return given[config_type]
        return next((w for name, w in given.items() if fnmatch.fnmatchcase(config_type, name)), 1.0)

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        from mmace_sim.training.loss import LOSSES  # which knows this module

        if value not in LOSSES:
            raise ValueError(f"{value!r} is no loss; known are {', '.join(LOSSES)}")
        return value

    @field_validator("magforce_elements")
    @classmethod
    def _symbols(cls, value: list[str] | None) -> list[str] | None:
        return value and check_symbols(value)


def check_symbols(symbols: Sequence[str]) -> list[str]:
    """Refuse what is no chemical symbol.

    Args:
        symbols: Symbols of elements.

    Raises:
        ValueError: If one of them is none.
    """
    from ase.data import atomic_numbers  # heavy, and not needed for --help

    unknown = [repr(symbol) for symbol in symbols if not atomic_numbers.get(symbol)]
    if unknown:
        raise ValueError(f"{', '.join(unknown)} is no chemical symbol; write them as in [Fe, Ni]")
    return list(symbols)


Label = Literal["energy", "forces", "stress", "magforces"]


def _energy_first() -> dict[Label, float]:
    return {"energy": 10.0}


class StageTwoConfig(Section):
    """The last part of a run, with other weights of the labels and a smaller learning rate."""

    start_epoch: PositiveInt
    """First epoch (counted from 0) of the stage. The best weights are chosen among those of this stage."""

    lr: PositiveFloat | None = None
    """Largest learning rate of the stage; default: a tenth of `optimizer.lr`. The schedule starts anew from it."""

    weights: dict[Label, NonNegativeFloat] = Field(default_factory=_energy_first)
    """Weights of the labels that change; the others, and all scales, stay as in `loss`."""


class AugmentConfig(Section):
    """Symmetry operations drawn anew for every structure and epoch, for models without the symmetry."""

    rotation: Literal["none", "joint", "moments"] = "none"
    """`joint` turns structure and moments together, `moments` only the moments (right without spin–orbit coupling)."""

    time_reversal: bool = False
    """Reverse all moments and magnetic forces of every other structure."""
