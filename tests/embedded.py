"""Names of embedded models, said in one place."""

from mmace_sim.model.registry import DEFAULT_MODEL

IRON_MODEL = "mmace-fe-pbe"
"""Of iron alone, which costs the least: the model of tests that ask for some trained model of iron. What users get if they name
none is tested with `DEFAULT_MODEL`."""

BOTH = (DEFAULT_MODEL, IRON_MODEL)
"""For what every embedded model must do."""
