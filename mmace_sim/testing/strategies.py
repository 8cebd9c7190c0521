"""Hypothesis strategies."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from hypothesis import strategies as st

from mmace_sim.testing.structures import random_structure


@st.composite
def magnetic_structures(
    draw: st.DrawFn,
    *,
    elements: Sequence[int] = (26,),
    min_atoms: int = 1,
    max_atoms: int = 4,
    max_moment: float = 3.0,
    pbc: bool = True,
) -> Atoms:
    """Draw random periodic structures with non-collinear moments, by default of iron.

    Args:
        draw: Given by hypothesis.
        elements: Atomic numbers to draw from.
        min_atoms: Smallest number of atoms.
        max_atoms: Largest number of atoms.
        max_moment: Largest length of a moment, in μB.
        pbc: Whether the structures are periodic.

    Returns:
        Structure with moments.
    """
    n_atoms = draw(st.integers(min_atoms, max_atoms), label="n_atoms")
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    return random_structure(rng, elements=elements, n_atoms=n_atoms, max_moment=max_moment, pbc=pbc)
