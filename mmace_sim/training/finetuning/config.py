"""The configuration of a fine-tuning."""

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from mmace_sim.base.labels import LabelKeys
from mmace_sim.base.settings import RUN, Flag
from mmace_sim.training.config import FIT, DataConfig, Files, OptimizerConfig, TrainerConfig
from mmace_sim.training.config_loss import AugmentConfig, LossConfig, Section, StageTwoConfig

START = "Start"
KEEP = "Against forgetting"
PARTS = "What is trained"

_FOUNDATION_LR = 0.005
REPLAY_HEAD: str = "replay"
"""Name of the head that keeps the energies of the base model."""


class ReplayConfig(Section):
    """Where the structures of the replay come from: `file`, or else labels of the base model."""

    file: Annotated[Files, Flag(KEEP, metavar="FILE", names=("--replay",), repeated=True)] = Field(
        default_factory=list
    )
    """Data of the pre-training with labels, on which the model is trained too, as a head of its own."""

    keys: LabelKeys = Field(default_factory=LabelKeys)
    """Names of the labels in `file`."""

    structures: Annotated[
        Files, Flag(KEEP, metavar="FILE", names=("--replay-structures",), repeated=True)
    ] = Field(default_factory=list)
    """Without these data: structures with moments, which the model itself labels; labels in the files are not used."""

    n_variants: Annotated[NonNegativeInt, Flag(KEEP, metavar="N", names=("--replay-variants",))] = 0
    """Or this many distorted copies of the new structures, which the model itself labels."""

    n: Annotated[PositiveInt | None, Flag(KEEP, metavar="N", names=("--n-replay",), shown="all")] = None
    """Number of structures drawn from the replay files."""

    weight: PositiveFloat = 1.0
    """Weight of their labels in the loss."""

    valid_fraction: float = Field(default=0.1, gt=0.0, lt=1.0)
    """Part of them that is used for validation."""

    rattle: NonNegativeFloat = 0.05
    """Standard deviation of the displacements of the copies (per component), in Å."""

    strain: NonNegativeFloat = 0.02
    """Standard deviation of the components of their symmetric strain."""

    turn: NonNegativeFloat = 15.0
    """Standard deviation of the angles by which their moments turn, in degrees."""

    stretch: NonNegativeFloat = 0.1
    """Standard deviation of the relative change of the lengths of their moments."""

    @model_validator(mode="after")
    def _one_source(self) -> "ReplayConfig":
        given = [key for key in ("file", "structures", "n_variants") if getattr(self, key)]
        if len(given) != 1:
            told = " and ".join(given) or "none"
            raise ValueError(f"one of file, structures and n_variants is needed, {told} given")
        return self


class FinetuneOptimizer(OptimizerConfig):
    """The optimiser with the learning rate of the paper for fine-tuning."""

    lr: Annotated[PositiveFloat, Flag(FIT, shown="0.0005; 0.005 with --foundation")] = 5e-4
    """Largest learning rate; that of the paper (arXiv 2604.08143), or with `foundation`, whose magnetic part starts at
    zero, ten times as much."""

    freeze: Annotated[list[str], Flag(PARTS, metavar="PARTS")] = Field(default_factory=list)
    """Parts that stay as they are, such as `embedding,radial,layers.0`; a wrong name lists all."""

    lora: Annotated[PositiveInt | None, Flag(PARTS, metavar="RANK")] = None
    """Train low-rank adapters of the linear maps in place of all weights; merged into them at the end."""


class FinetuneTrainer(TrainerConfig):
    """How long, how and where to train."""

    max_epochs: Annotated[PositiveInt, Flag(FIT)] = 100
    """Passes over the training set."""


class FinetuneConfig(Section):
    """Fine-tuning of a model, or training from a non-magnetic foundation model."""

    name: Annotated[str, Flag(RUN)] = "mmace-finetuned"
    """Name of the new model."""

    description: str = ""
    """One line on what the model is for, written into the model file."""

    model: str | None = None
    """Model to fine-tune: a name or a file, with `#HEAD` behind it if it has several heads."""

    foundation: Annotated[str | None, Flag(START, metavar="NAME|FILE")] = None
    """Build a magnetic model around a non-magnetic MACE of mace-torch (a file or a name), in place of `model`; `#HEAD`
    behind it chooses one of several heads."""

    magnetic: dict[str, Any] = Field(default_factory=dict)
    """Hyper-parameters of the magnetic part that is added to `foundation`, and its `head` and `freeze_backbone`."""

    e0: Annotated[
        Literal["refit", "one-body", "keep"] | dict[str, float] | None,
        Flag(
            START,
            metavar="refit|one-body|keep|VALUES",
            shown="refit; one-body if the model has no such energy, as the published one",
        ),
    ] = None
    """Energies of isolated atoms of the new data: `refit` to what the model leaves of their energies; `one-body` the
    same together with E1(m·m), for another definition of the moments; `keep` the model's; or the value of each element
    symbol, in eV. Default: `refit`, and `one-body` where the model has no E1, as the published one."""

    data: DataConfig = Field(default_factory=DataConfig)
    replay: ReplayConfig | None = None
    """Structures that keep the model from forgetting; default: none."""

    loss: LossConfig = Field(default_factory=LossConfig)
    optimizer: FinetuneOptimizer = Field(default_factory=FinetuneOptimizer)
    stage_two: StageTwoConfig | None = None
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    trainer: FinetuneTrainer = Field(default_factory=FinetuneTrainer)

    @field_validator("e0", mode="before")
    @classmethod
    def _read_energies(cls, value: object) -> Any:
        """``Fe=-8.1,Al=-3.2`` is the energy of each element."""
        if not isinstance(value, str) or "=" not in value:
            return value
        try:
            return {
                symbol.strip(): float(number) for symbol, number in (p.split("=") for p in value.split(","))
            }
        except ValueError:
            raise ValueError("expected refit, one-body, keep, or values as in Fe=-8.1,Al=-3.2") from None

    @model_validator(mode="after")
    def _one_start(self) -> "FinetuneConfig":
        if (self.model is None) == (self.foundation is None):
            raise ValueError("give either model or foundation to start from")
        if self.foundation is not None and "lr" not in self.optimizer.model_fields_set:
            self.optimizer.lr = _FOUNDATION_LR
        if self.foundation is not None and self.e0 not in (None, "refit"):
            raise ValueError("e0 is for a magnetic model; with a foundation give data.atomic_energies")
        if self.magnetic and self.foundation is None:
            raise ValueError("magnetic is for foundation only; a magnetic model keeps its hyper-parameters")
        if self.replay is not None and self.foundation is not None:
            raise ValueError(
                "replay is for a magnetic model; give data sets of a foundation model as data.heads"
            )
        if REPLAY_HEAD in self.data.heads:
            raise ValueError(f"data.heads: {REPLAY_HEAD!r} is the name of the head of the replay")
        return self
