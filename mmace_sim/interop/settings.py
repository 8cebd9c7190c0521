"""Settings of ``mmace-sim convert``."""

from typing import Annotated, Literal

from mmace_sim.base.settings import Flag, Settings

HELP = """Convert a checkpoint of the published magnetic MACE code.

Nothing that the checkpoint names is imported or run. The result computes the same energies; what it violates
(time reversal, inversion, ...) is measured and written into the file. `--time-reversal`, `--saturate` and
`--smooth-cutoff` repair that, and change the energies. An installed model can be repaired by its name.
"""


class ConvertSettings(Settings):
    """What is converted, and how it is repaired."""

    source: Annotated[str, Flag(metavar="UPSTREAM.model", argument=True)] = ""
    """Checkpoint of the published code; or a model file made of one, or its name, to repair it."""
    output: Annotated[str, Flag(metavar="OUT.safetensors", argument=True)] = ""
    """Model file to write; an existing one is kept."""
    head: Annotated[str | None, Flag(metavar="NAME")] = None
    """Head to keep of a model with several."""
    time_reversal: Annotated[bool, Flag(names=("--time-reversal",))] = False
    """Evaluate ½[E(m) + E(−m)]: even in the moments, up to 1.7 times the cost."""
    saturate: Annotated[bool, Flag(names=("--saturate",))] = False
    """Saturate moments at the largest moment of the training data."""
    smooth_cutoff: Annotated[bool, Flag(names=("--smooth-cutoff",))] = False
    """Let pairs fade out over the last 0.5 Å before the cutoff."""
    dtype: Annotated[Literal["float64", "float32"], Flag()] = "float64"
    """Floating-point type of the weights in the file."""
    name: Annotated[str | None, Flag(metavar="NAME", shown="of the file")] = None
    """Name of the model."""
    license: Annotated[str | None, Flag(metavar="TEXT")] = None
    """Licence of the weights, kept in the file."""
    citation: Annotated[str | None, Flag(metavar="TEXT")] = None
    """What users should cite, kept in the file."""
