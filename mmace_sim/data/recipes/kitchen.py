"""What a recipe works with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

Make = Callable[["Kitchen"], Iterator[Atoms]]
"""Makes candidates; it may stop before `Kitchen.count`, and what it gives beyond it is left."""


@dataclass
class Kitchen:
    """What a recipe works with.

    Attributes:
        atoms: Structure with moments.
        count: Number of candidates that are wanted.
        settings: `mmace_sim.data.settings.ProposeSettings`.
        rng: Random numbers of this recipe for this structure.
        model: Energy model for snapshots, or None.
    """

    atoms: Atoms
    count: int
    settings: Any
    rng: np.random.Generator
    model: Any = None
