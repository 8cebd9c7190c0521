"""Numbers per volume need matter: a slab, a wire or a cluster in a periodic box has the volume of the box."""

import numpy as np
import pytest
from ase.build import bcc100

from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.properties.bain import BainPath
from mmace_sim.properties.elastic import ElasticTensorCalculation
from mmace_sim.properties.eos import EquationOfState
from mmace_sim.testing import HeisenbergModel
from mmace_sim.torchsim import MagneticMaceModel


def in_a_box(n_open):
    """Iron with 14 Å of vacuum along some axes of a box that is periodic along all."""
    atoms = bcc100("Fe", (1, 1, 3), a=2.86, vacuum=7.0, periodic=True)
    for axis in range(n_open - 1):
        atoms.cell[axis, axis] += 14.0
    set_magmoms(atoms, np.full(3, 2.2))
    return atoms


@pytest.mark.parametrize(("n_open", "kind"), [(1, "a slab"), (2, "a wire"), (3, "a cluster in a box")])
def test_moduli_and_paths_of_volumes_refuse_a_vacuum(n_open, kind):
    """A modulus would be inversely proportional to the vacuum, and a path would stretch it."""
    model = MagneticMaceModel(HeisenbergModel())
    atoms = in_a_box(n_open)
    (volumes,) = EquationOfState(model, n_volumes=7).run([atoms])
    (path,) = BainPath(model).run([atoms])
    (elastic,) = ElasticTensorCalculation(model).run([atoms])
    for result in (volumes.curves[0], path.maps[0], elastic):
        assert result.status == "failed"
        assert f"without vacuum; this is {kind}" in result.message
