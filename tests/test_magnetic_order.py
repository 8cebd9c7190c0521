import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mmace_sim.structures.magnetic_order import MagneticOrder, classify_order, magnetic_symmetry

X, Y, Z = np.eye(3)


@pytest.mark.parametrize(
    ("magmoms", "order"),
    [
        ([0 * Z, 0 * Z], "non-magnetic"),
        ([0.01 * Z, -0.04 * Z], "non-magnetic"),
        ([2.2 * Z, 2.2 * Z], "FM"),
        ([-2.2 * X, -1.0 * X], "FM"),
        ([2.2 * Z, 2.1 * Z, -0.1 * Z], "FM"),  # an induced moment does not make a ferrimagnet
        ([2.2 * Z, -2.2 * Z], "AFM"),
        ([2.2 * (X + Y), -2.2 * (X + Y), 2.2 * (X + Y), -2.2 * (X + Y)], "AFM"),
        ([2.2 * Z, 2.2 * Z, -2.2 * Z], "ferri"),
        ([4.0 * Y, -3.0 * Y], "ferri"),
        ([2.2 * X, 2.2 * Y], "non-collinear"),
        ([3 * X, 3 * (-0.5 * X + 0.866 * Y), 3 * (-0.5 * X - 0.866 * Y)], "non-collinear"),
        ([2 * (Z + 0.2 * X), 2 * (Z - 0.2 * X)], "non-collinear"),  # canted by 11°
        ([2 * (Z + 0.02 * X), 2 * (Z - 0.02 * X)], "FM"),  # 1° is numerical noise
        ([2.2 * Z], "FM"),
        (np.zeros((0, 3)), "non-magnetic"),
    ],
)
def test_orders_made_by_hand(magmoms, order):
    assert classify_order(magmoms) is MagneticOrder(order)


def test_order_does_not_depend_on_the_axis():
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    for magmoms in ([2 * Z, 2 * Z], [2 * Z, -2 * Z], [2 * Z, -1 * Z], [2 * Z, 2 * X]):
        assert classify_order(magmoms @ rotation) == classify_order(magmoms)


@pytest.mark.parametrize(
    ("magmoms", "bns", "kind"),
    [
        ([2 * Z, 2 * Z], "139.537", 3),  # I4/mm'm': a ferromagnet along z is tetragonal
        ([2 * Z, -2 * Z], "128.410", 4),
        ([0 * Z, 0 * Z], "229.141", 2),
    ],
)
def test_magnetic_space_groups_of_bcc_iron(magmoms, bns, kind):
    symmetry = magnetic_symmetry(bulk("Fe", cubic=True), np.array(magmoms))
    assert (symmetry.bns_number, symmetry.msg_type) == (bns, kind)
    assert symmetry.space_group == "Im-3m (229)"


@pytest.mark.parametrize("repeat", [(2, 1, 1), (2, 3, 1), (4, 4, 4)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_supercell_has_the_group_of_its_cell(repeat, sign):
    small, moments = bulk("Fe", cubic=True), np.array([2.2 * Z, sign * 2.2 * Z])
    found = magnetic_symmetry(small.repeat(repeat), np.tile(moments, (np.prod(repeat), 1)))
    assert found == magnetic_symmetry(small, moments)


def test_there_is_no_space_group_where_there_is_no_crystal():
    assert magnetic_symmetry(Atoms("Fe2", [[0, 0, 0], [0, 0, 2]]), np.zeros((2, 3))) is None
    on_top = Atoms("Fe2", [[0, 0, 0], [0, 0, 0]], cell=np.eye(3), pbc=True)
    assert magnetic_symmetry(on_top, np.zeros((2, 3))) is None
