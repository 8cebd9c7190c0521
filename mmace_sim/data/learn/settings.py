"""Settings of ``mmace-sim learn``."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from mmace_sim.base.settings import Flag, Setting, Settings
from mmace_sim.data.label.settings import LabelSettings
from mmace_sim.data.settings import ProposeSettings

BUDGET = "Budget"
ENOUGH = "When the model knows enough"

HELP = """Make a model of magnets that no model knows: propose, select, label, train, again and again.

Structures are enough to begin with. Candidates are made of them by recipes (`mmace-sim data propose`); some at random
become a test that is never trained on; a first set is chosen for variety, then in each round those that the model
can learn most from (`mmace-sim data select`), with new candidates that the model itself leads to. They are computed
(`mmace-sim label`) and checked (`mmace-sim data check`), and the model is trained on all of them. The loop ends when
the uncertainties of nine tenths of the candidates and the errors on the test are below the limits, or the budget is
spent.

In the folder of the run: `model.safetensors`, `curve.csv` and `figures/` (errors against the number of calculations),
`summary.json`, `report.html`, `candidates.extxyz`, `test/`, `rounds/`. After any interruption `--resume` goes on
without computing anything twice. CONFIG.yaml holds any of the options (names with underscores), and sections
`propose`, `label` and `train` with those of these commands.

Example: `mmace-sim learn --structures cifs/ --engine gpaw --max-calculations 60 -o FeCo`.
"""


class LearnSettings(Settings):
    """Everything that decides what is learned."""

    output: Annotated[str, Flag(metavar="DIR", names=("--output", "-o"))] = "learn"
    """Folder of the run."""
    structures: Annotated[list[str], Flag(metavar="PATH", repeated=True)] = Field(default_factory=list)
    """File or folder with structures (may be repeated)."""
    candidates: Annotated[list[str], Flag(metavar="FILE", repeated=True)] = Field(default_factory=list)
    """Candidates of one's own beside those of the recipes (may be repeated). With labels of all of them (`labels`) no
    engine is asked: the loop tells how few of a large set are enough."""
    choose: Annotated[Literal["informative", "varied", "random"], Flag()] = "informative"
    """How candidates are chosen. **informative**: by uncertainty and variety. The others are to compare with."""
    first: Annotated[int, Flag()] = Field(default=20, ge=2)
    """Candidates of the first set, beside the structures themselves."""
    batch: Annotated[int, Flag()] = Field(default=10, ge=1)
    """Candidates of each further round."""
    test: Annotated[int, Flag()] = Field(default=20, ge=0)
    """Candidates that are computed for the test, chosen at random among those of the recipes."""
    fresh: Annotated[int, Flag()] = Field(default=4, ge=0)
    """Candidates that the model makes of each structure in each round, by dynamics and as many by relaxation."""
    known: Annotated[list[str], Flag(metavar="FILE", repeated=True)] = Field(default_factory=list)
    """Labelled structures to train on from the beginning (may be repeated), by the same engine and settings."""
    labels: Annotated[list[str], Flag(metavar="FILE", repeated=True)] = Field(default_factory=list)
    """Labelled structures of another run (may be repeated): candidates of the same name are not computed again."""
    steps: Annotated[int, Flag()] = Field(default=3000, ge=10)
    """Steps of each training."""
    warm_start: Annotated[bool, Flag()] = True
    """Each training starts from the weights of the one before."""
    seed: Annotated[int, Flag()] = Field(default=0, ge=0)
    """Seed of everything random."""
    max_calculations: Annotated[int, Flag(BUDGET)] = Field(default=100, ge=2)
    """Calculations, those of the test and failed ones too."""
    max_hours: Annotated[float | None, Flag(BUDGET, shown="none")] = Field(default=None, gt=0)
    """Hours of CPU time of the calculations, after which no round begins."""
    energy_limit: Annotated[float, Flag(ENOUGH, unit="eV/atom")] = Field(default=0.005, gt=0)
    """Uncertainty of energies on nine tenths of the candidates, and mean absolute error on the test."""
    forces_limit: Annotated[float, Flag(ENOUGH, unit="eV/Å")] = Field(default=0.05, gt=0)
    """The same for forces, of a component."""
    magforces_limit: Annotated[float, Flag(ENOUGH, unit="eV/μB")] = Field(default=0.03, gt=0)
    """The same for magnetic forces."""
    propose: ProposeSettings = Field(default_factory=ProposeSettings)
    """Recipes."""
    label: LabelSettings = Field(default_factory=LabelSettings)
    """Calculations."""
    train: dict[str, Any] = Field(default_factory=dict)
    """Configuration of the trainings (`mmace-sim train`); its data are those of the loop."""

    @field_validator("train")
    @classmethod
    def _known_training(cls, value: dict[str, Any]) -> dict[str, Any]:
        own = {"train_file", "valid_file", "test_file", "heads"} & set(value.get("data") or {})
        if own:
            raise ValueError(
                f"train.data.{', '.join(sorted(own))}: the data are those of the loop; use `known`"
            )
        return value

    @classmethod
    def options(cls) -> list[Setting]:
        """Settings that stand on the command line; the others are for the configuration file."""
        return [setting for setting in cls.declared() if "." not in setting.name or setting.name in _SHOWN]


_SHOWN: frozenset[str] = frozenset({
    "propose.recipe", "propose.count", "propose.max_atoms", "propose.collinear", "propose.volume_range",
    "propose.initial_magmoms", "label.engine", "label.cutoff", "label.k_length", "label.smearing", "label.timeout",
    "label.gpaw_python", "label.command", "label.executor",
})  # fmt: skip
"""Settings of the sections that are options too."""
