"""What the tests of batches share: a model that counts what it evaluates, and a crystal that is not at rest."""

import numpy as np
from ase.build import bulk

from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.torchsim import MagneticMaceModel


class Counting(MagneticMaceModel):
    """Counts its evaluations, and the structures in them."""

    n_calls = n_systems = 0

    def forward(self, state, **kwargs):
        self.n_calls += 1
        self.n_systems += state.n_systems
        return super().forward(state, **kwargs)


def fcc(a=3.6, seed=1, moment=(0.2, 0.1, 1.9)):
    atoms = bulk("Fe", "fcc", a=a, cubic=True)
    atoms.rattle(0.04, seed=seed)
    set_magmoms(atoms, np.tile(moment, (4, 1)))
    return atoms
