"""The configuration of a training run: one YAML file, unknown keys refused, flags merged on top."""

import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from mmace_sim.base.labels import LabelKeys
from mmace_sim.base.quantities import DEFAULT_HEAD
from mmace_sim.base.settings import MACHINE, RUN, Flag, merge
from mmace_sim.base.yamlfile import read_yaml, refuse_huge_numbers
from mmace_sim.errors import ConfigError
from mmace_sim.files import write_text
from mmace_sim.model.config import Element, check_head
from mmace_sim.training.config_loss import AugmentConfig, LossConfig, Section, StageTwoConfig
from mmace_sim.training.evaluation.settings import FORMATS
from mmace_sim.training.presets import preset as find_preset

DATA = "Data"
FIT = "Optimisation"

Files = Annotated[
    list[Path], BeforeValidator(lambda value: [value] if isinstance(value, str | Path) else value)
]
"""Paths of files; one alone needs no brackets."""


class DataSource(Section):
    """One data set, with one zero of energy and one definition of the moments."""

    train_file: Annotated[Files, Flag(DATA, metavar="FILE", repeated=True)] = Field(
        default_factory=list,
        description=f"Files or folders with labels: {FORMATS} (docs/training.md). May be repeated.",
    )

    valid_file: Annotated[Files, Flag(DATA, metavar="FILE", repeated=True)] = Field(default_factory=list)
    """Files to choose the best weights on; default: a part of `train_file`, by a hash of each frame's identity."""

    test_file: Annotated[Files, Flag(DATA, metavar="FILE", repeated=True)] = Field(default_factory=list)
    """Files to report errors on after training; never looked at before."""

    valid_fraction: Annotated[float, Flag(DATA)] = Field(default=0.1, ge=0.0, lt=1.0)
    """Part of the data for validation, chosen by a hash of each structure's identity, if there is no validation
    file."""

    test_fraction: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Part of `train_file` kept for the final test if no `test_file` is given."""

    max_force: PositiveFloat | None = None
    """Structures with a larger force (eV/Å) are left out of training and validation, and counted in the log."""

    elements: Annotated[list[Element], Field(max_length=118)] = Field(default_factory=list)
    """Structures with another element than these (symbols) are left out of all sets, and counted in the log; default:
    none is."""

    stream: bool | None = None
    """Read structures of databases from the disk when they are needed; default: of those with more than 30,000."""

    keys: LabelKeys = Field(default_factory=LabelKeys)
    """Names of the labels."""

    atomic_energies: dict[str, float] | None = None
    """Energy of the non-magnetic isolated atom per element symbol (eV); default: least squares on the training set. The
    one-body energies E1(m·m) do not depend on it."""

    @model_validator(mode="after")
    def _fractions_leave_data(self) -> "DataSource":
        if self.valid_fraction + self.test_fraction >= 1.0:
            raise ValueError(
                "valid_fraction + test_fraction must be below 1: nothing would be left to train on"
            )
        return self


class HeadConfig(DataSource):
    """One of several data sets that are trained on together."""

    weight: PositiveFloat = 1.0
    """Weight of all labels of this data set in the loss."""


class DataConfig(DataSource):
    """What to train, validate and test on."""

    heads: dict[str, HeadConfig] = Field(default_factory=dict)
    """Several data sets by name, each with isolated-atom and one-body energies of its own, in place of `train_file`."""

    licence: str = ""
    """Licence of the data and the weights, written into the model file."""

    citation: str = ""
    """What users of the model should cite, written into the model file."""

    @model_validator(mode="after")
    def _flat_or_heads(self) -> "DataConfig":
        empty = DataSource()
        shared = ("max_force",)  # of all heads that have none of their own
        flat = [
            key
            for key in DataSource.model_fields
            if key not in shared and getattr(self, key) != getattr(empty, key)
        ]
        if self.heads and flat:
            raise ValueError(f"with heads, {', '.join(flat)} must be given for each head")
        for name, head in self.heads.items():
            check_head(name)
            if not head.train_file:
                raise ValueError(f"head {name} has no train_file")
            head.max_force = head.max_force or self.max_force
        return self

    def sources(self) -> Mapping[str, DataSource]:
        """Every data set by the name of its head."""
        return self.heads or {DEFAULT_HEAD: self}


class OptimizerConfig(Section):
    """Adam (AMSGrad) with a learning-rate schedule and an exponential moving average of the weights."""

    lr: Annotated[PositiveFloat, Flag(FIT)] = 0.01
    """Largest learning rate."""

    weight_decay: NonNegativeFloat = 1e-6
    """Decoupled weight decay of the matrices (not of biases and scales)."""

    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    """`cosine` falls to `lr · lr_final` at the last epoch; `plateau` multiplies by `plateau_factor` when stalled."""

    lr_final: float = Field(default=0.01, ge=0.0, le=1.0)
    """Learning rate at the end of a cosine schedule, and the smallest one of a plateau schedule, as a part of `lr`."""

    warmup_epochs: NonNegativeFloat = 1.0
    """Epochs over which the learning rate rises from a tenth of `lr`."""

    plateau_factor: float = Field(default=0.6, gt=0.0, lt=1.0)
    """Factor of the plateau schedule."""

    plateau_patience: PositiveInt = 20
    """Validations without improvement before the plateau schedule acts."""

    ema_decay: float = Field(default=0.99, ge=0.0, lt=1.0)
    """Decay per step of the averaged weights that are validated and saved; 0 switches the average off."""

    gradient_clip: NonNegativeFloat = 10.0
    """Largest norm of the gradient; 0 switches clipping off."""

    freeze: list[str] = Field(default_factory=list)
    """Parts of the model whose weights stay: `embedding`, `radial`, `layers.0`, ...; a wrong name lists all."""

    lora: PositiveInt | None = None
    """Rank of low-rank adapters of the linear maps, which are trained in place of the weights and merged at the end."""


class TrainerConfig(Section):
    """How long, how and where to train."""

    max_epochs: Annotated[PositiveInt, Flag(FIT)] = 300
    """Passes over the training set."""

    batch_size: Annotated[PositiveInt, Flag(FIT)] = 8
    """Structures per step, of all processes together."""

    valid_batch_size: PositiveInt = 32
    """Structures per evaluation batch, of all processes together."""

    valid_every: PositiveInt = 1
    """Epochs between validations."""

    keep: Literal["best", "last"] = "best"
    """Weights that become the model: lowest validation loss, or the last (better with few validation structures)."""

    early_stopping: PositiveInt | None = None
    """Validations without improvement after which training stops; default: never."""

    max_time: PositiveFloat | None = None
    """Hours after which training stops, in the middle of an epoch if need be; default: no limit."""

    checkpoint_every: PositiveFloat = 30.0
    """Minutes between checkpoints within an epoch (there is one after every epoch)."""

    loggers: list[Literal["tensorboard", "wandb"]] = Field(default_factory=list)
    """Where the columns of `metrics.csv` go besides that file."""

    figures: bool = True
    """Draw the one-body energies with the magnetic forces they were fitted to."""

    stability_test: Annotated[bool, Flag(RUN)] = True
    """Relax some training structures and look for violated identities and impossible energies at the end (by the
    commands): errors on a test set say nothing of wells outside of the data."""

    seed: Annotated[int, Flag(FIT)] = 0
    """Seed of the initial weights and of the order of the structures."""

    dtype: Annotated[Literal["float64", "float32"], Flag(MACHINE)] = "float32"
    """Precision of the network while training (references are subtracted in float64)."""

    device: Annotated[str, Flag(MACHINE, metavar="cpu|cuda", shown="a GPU if there is one")] = "auto"
    """`cpu`, `cuda`, or `auto`."""

    num_threads: Annotated[PositiveInt | None, Flag(MACHINE, names=("--threads",), shown="all cores")] = (
        Field(default=None, le=1024)
    )
    """CPU threads of torch; default: as torch chooses."""


class TrainConfig(Section):
    """A training run."""

    name: Annotated[str, Flag(RUN)] = "mmace"
    """Name of the model."""

    description: str = ""
    """One line on what the model is for, written into the model file."""

    data: DataConfig = Field(default_factory=DataConfig)
    model: dict[str, Any] = Field(default_factory=dict)
    """Hyper-parameters; elements, largest moments and mean number of neighbours default to the data's. `architecture`
    is "MagneticMACE" (default) or "PaperMMACE". Or only `start_from`: a model (name or file) to go on training. Or
    `foundation`: a non-magnetic MACE of mace-torch (file or name) to build a magnetic model around, with `head`,
    `freeze_backbone`, and hyper-parameters of the magnetic part."""

    warm_start: Path | None = None
    """Model file of the same elements whose network weights training starts from, where they fit the hyper-parameters
    given here; reference energies, limits of moments and repulsion are those of the data (`model.start_from` keeps
    those of the model)."""

    loss: LossConfig = Field(default_factory=LossConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    stage_two: StageTwoConfig | None = None
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    trainer: TrainerConfig = Field(default_factory=TrainerConfig)

    @model_validator(mode="after")
    def _stage_two_begins_in_time(self) -> "TrainConfig":
        if self.stage_two is not None and self.stage_two.start_epoch >= self.trainer.max_epochs:
            raise ValueError(
                f"stage_two.start_epoch is {self.stage_two.start_epoch}, but training ends after "
                f"trainer.max_epochs = {self.trainer.max_epochs}"
            )
        return self

    @field_validator("model")
    @classmethod
    def _known_model_fields(cls, value: dict[str, Any]) -> dict[str, Any]:
        from mmace_sim.model.architectures import ARCHITECTURES, DEFAULT_ARCHITECTURE  # heavy to import

        if "start_from" in value:
            if len(value) > 1:
                raise ValueError(
                    "start_from takes all hyper-parameters from that model; leave out the others"
                )
            return value
        if "foundation" in value:
            return _known_foundation_fields(value)
        name = value.get("architecture", DEFAULT_ARCHITECTURE)
        if name not in ARCHITECTURES:
            raise ValueError(f"unknown architecture {name!r}; known: {', '.join(ARCHITECTURES)}")
        fields = ARCHITECTURES[name].config.model_fields
        unknown = sorted(set(value) - set(fields) - {"architecture"})
        if unknown:
            raise ValueError(f"unknown field(s) {', '.join(unknown)}; known: {', '.join(sorted(fields))}")
        return value


def _known_foundation_fields(value: dict[str, Any]) -> dict[str, Any]:
    from mmace_sim.architectures.foundation_mmace import MAGNETIC_FIELDS  # heavy to import

    known = ["foundation", "head", "freeze_backbone", "heads", *MAGNETIC_FIELDS]
    unknown = sorted(set(value) - set(known))
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: fixed by the foundation or unknown; known: {', '.join(known)}"
        )
    return value


def load_train_config(
    path: Path | None = None, overrides: dict[str, Any] | None = None, *, preset: str | None = None
) -> TrainConfig:
    """Read a configuration file, put `overrides` on top and check everything.

    Args:
        path: YAML file, or None to start from the defaults.
        overrides: Nested values that win over the file (the command line's flags).
        preset: Hyper-parameters by name that both win over, see `mmace_sim.training.presets`.

    Raises:
        ConfigError: If the file is unreadable, a key is unknown or a value impossible.
    """
    config = load_section(TrainConfig, path, overrides, base=find_preset(preset) if preset else {})
    if not config.data.train_file and not config.data.heads:
        raise ConfigError("no training data: give data.train_file in the configuration or --train-file")
    return config


def load_section[S: Section](
    kind: type[S],
    path: Path | None,
    overrides: dict[str, Any] | None,
    *,
    base: dict[str, Any] | None = None,
) -> S:
    """Read a configuration of any kind, put `overrides` on top and check everything.

    Args:
        kind: Class of the configuration.
        path: YAML file, or None to start from the defaults.
        overrides: Nested values that win over the file.
        base: Nested values that the file wins over.

    Raises:
        ConfigError: If the file is unreadable, a key is unknown or a value impossible.
    """
    content = merge(base or {}, {} if path is None else read_yaml(path))
    content, source = merge(content, overrides or {}), "options" if path is None else str(path)
    refuse_huge_numbers(content, source)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{source}: {explain(error, kind)}") from error


def save_config(config: Section, path: Path) -> None:
    """Write the merged configuration as YAML (it can be given to `train` again)."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_text(path, text)


def explain(error: ValidationError, kind: type[Section]) -> str:
    """One clause per problem, naming the key and, for an unknown one, the keys that exist there.

    Args:
        error: What is wrong.
        kind: Class of the configuration.
    """
    clauses = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = _known_keys(kind, problem["loc"][:-1])
            clauses.append(f"unknown key {where}" + (f" (known: {', '.join(known)})" if known else ""))
        else:
            clauses.append(f"{where}: {problem['msg']}")
    return "; ".join(clauses)


def _known_keys(kind: type[Section], loc: tuple[int | str, ...]) -> list[str]:
    section: Any = kind
    for part in loc:
        field = section.model_fields.get(part)
        section = None if field is None else field.annotation
        if isinstance(section, types.GenericAlias) or not (
            isinstance(section, type) and issubclass(section, Section)
        ):
            return []
    return list(section.model_fields)
