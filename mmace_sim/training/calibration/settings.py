"""Settings of ``mmace-sim calibrate``."""

from typing import Annotated

from pydantic import Field

from mmace_sim.base.settings import Flag, Settings
from mmace_sim.training.evaluation.settings import FORMATS, ElementsWithMagforces, LabelNames

HELP = """Add to a model what it does not know: the sizes of its errors, and where its data end.

Results then have an uncertainty and say whether a structure is inside, at the edge or outside of the domain. The
weights stay as they are. `mmace-sim train` does this by itself; converted and foundation models get it here from
any labelled structures of the kind that you compute. If the model was trained on them, its errors there are too
small: then `--held-out` names structures that it has not seen.

Example: `mmace-sim calibrate mmace-matpes-pbe my-dft.extxyz -o mine.safetensors`.
"""


class CalibrateSettings(Settings):
    """What a model is calibrated on."""

    model: Annotated[str, Flag(metavar="MODEL", argument=True)] = ""
    """Model: a name (see `mmace-sim models`) or a file."""
    data: Annotated[list[str], Flag(metavar="DATA...", argument=True)] = Field(
        default_factory=list, description=f"Structures with moments and labels: {FORMATS}."
    )
    output: Annotated[str, Flag(metavar="NEW.safetensors", names=("--output", "-o"))] = ""
    """Model file to write."""
    held_out: Annotated[list[str], Flag(metavar="FILE", repeated=True)] = Field(default_factory=list)
    """Structures that the model was not trained on (may be repeated), if it was trained on DATA: they decide how large
    its errors are."""
    fit_zero: Annotated[bool, Flag(names=("--fit-zero",))] = False
    """Energies of DATA have another zero than the model: one constant for each element is no error."""
    keys: LabelNames = None
    magforce_elements: Annotated[
        ElementsWithMagforces, Flag(metavar="LIST", shown="those of the training, else all")
    ] = None
    """Elements whose magnetic forces are labels, such as `Ni`."""
