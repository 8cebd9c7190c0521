"""Settings of ``mmace-sim data check`` and ``mmace-sim data convert``."""

from typing import Annotated

from pydantic import Field

from mmace_sim.base.settings import Flag, Settings
from mmace_sim.training.evaluation.settings import FORMATS, LabelNames

SPLITS = "Splits"

CHECK_HELP = """Check training data: signs and units of labels, moments, outliers, duplicates, leakage between splits.

Forces, stress and magnetic forces are held against differences of energies between structures close to each
other: a wrong sign, a wrong unit, or labels that are too small show as a factor. Writes `summary.json`,
`config.yaml`, `log.txt` and `figures/` to one folder. Nothing is changed in the data.

Exit code 3 if anything was found that must be corrected before training.

Examples: `mmace-sim data check all.extxyz`;
`mmace-sim data check --train train.extxyz --valid valid.extxyz --test test.extxyz -o my_data`.
"""

CONVERT_HELP = """Write the structures of any format to one file with our names of the labels.

Reads what `train` reads: extended XYZ and other files of ASE, ASE databases, DeePMD-kit spin folders, MLIP `.cfg`,
outputs of VASP, ABINIT, Quantum ESPRESSO and ABACUS. Structures without moments or with broken labels are named
and left out.

Exit code 3 if any structure was left out.

Examples: `mmace-sim data convert runs/*/OUTCAR -o train.extxyz.xz`;
`mmace-sim data convert deepmd_system set.cfg -o train.aselmdb`.
"""

_Split = Annotated[list[str], Flag(SPLITS, metavar="FILE", repeated=True)]


class DataCheckSettings(Settings):
    """Which files are checked."""

    files: Annotated[list[str], Flag(metavar="FILES", argument=True)] = Field(
        default_factory=list, description=f"Files with labelled structures: {FORMATS}."
    )
    output: Annotated[str, Flag(metavar="DIR", names=("--output", "-o"))] = "data_check"
    """Folder of the run."""
    train: _Split = Field(default_factory=list, description="File of the train split; may be repeated.")
    valid: _Split = Field(default_factory=list, description="File of the valid split; may be repeated.")
    test: _Split = Field(default_factory=list, description="File of the test split; may be repeated.")
    keys: LabelNames = None
    figures: Annotated[bool, Flag()] = True
    """Draw figures (PNG and SVG)."""


class DataConvertSettings(Settings):
    """What is written to one file."""

    files: Annotated[list[str], Flag(metavar="FILES", argument=True)] = Field(default_factory=list)
    """Files and folders of any format, several beside each other."""
    output: Annotated[str, Flag(metavar="FILE", names=("--output", "-o"))] = ""
    """Extended XYZ (.extxyz, .extxyz.xz), LMDB (.aselmdb, for large sets) or SQLite (.db)."""
    keys: LabelNames = None
