import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from mmace_sim.structures.magnetic_order import (
    MagneticOrder,
    classify_order,
    magnetic_operations,
    magnetic_primitive,
    magnetic_symmetry,
)

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


@pytest.mark.parametrize(
    ("length", "bns"), [(0.04, "229.141"), (0.0516, "139.537"), (0.07, "139.537"), (0.0999, "139.537")]
)
def test_moments_as_small_as_the_tolerance(length, bns):
    """spglib 2.8.0 ends the process on all but the first."""
    found = magnetic_symmetry(bulk("Fe", cubic=True), np.array([length * Z, length * Z]))
    assert found.bns_number == bns


MOMENTS_NEAR_THE_TOLERANCE = [
    np.array(
        [
            [0.085, -0.0606, 0.1077],
            [0.0345, 0.0481, 0.0849],
            [-0.0797, -0.1866, -0.1375],
            [0.1631, 0.13, -0.065],
        ]
    ),
    np.array(
        [
            [-0.1007, 0.0194, -0.5317],
            [0.1148, -0.0221, 0.6061],
            [0.0864, -0.0166, 0.4564],
            [0.0888, -0.017, 0.47],
        ]
    ),
    np.array([[0.0, 0.0, 2.0], [0.0, 0.0, 1.93], [0.0, 0.0, 1.86], [0.05, 0.0, 1.79]]),
]


@pytest.mark.parametrize("magmoms", MOMENTS_NEAR_THE_TOLERANCE)
def test_operations_are_a_group_that_keeps_the_nearest_moments(magmoms):
    atoms = bulk("Fe", "fcc", 3.6, cubic=True)
    found = magnetic_operations(atoms, magmoms)
    known = {
        (rotation.tobytes(), (np.round(24 * shift) % 24).tobytes(), bool(back))
        for rotation, shift, back in zip(
            found.rotations, found.translations, found.time_reversals, strict=True
        )
    }
    for r1, t1, b1 in zip(found.rotations, found.translations, found.time_reversals, strict=True):
        for r2, t2, b2 in zip(found.rotations, found.translations, found.time_reversals, strict=True):
            assert (
                (r1 @ r2).tobytes(),
                (np.round(24 * (r1 @ t2 + t1)) % 24).tobytes(),
                bool(b1 ^ b2),
            ) in known
    assert np.linalg.norm(found.magmoms - magmoms, axis=1).max() <= 0.1
    assert magnetic_symmetry(atoms, magmoms) is not None


def test_the_smallest_cell_of_noisy_moments():
    rng = np.random.default_rng(0)
    large = bulk("Fe", cubic=True).repeat((3, 2, 1))
    magmoms = np.tile([2.2 * Z, -2.2 * Z], (6, 1)) + 0.01 * rng.normal(size=(12, 3))
    cell, members = magnetic_primitive(large, magmoms)
    assert len(cell) == len(members) == 2
    assert abs(cell.get_volume() - large.get_volume() / 6) < 1e-9
    assert magnetic_symmetry(large, magmoms).bns_number == "128.410"


def test_a_cell_thinner_than_the_tolerance():
    """Among the translations that spglib accepts for it no three span the cell."""
    cell = [
        [-6.1571969327181355, -3.058493726949996, -5.292716373580202],
        [2.487120316484912, 0.6718187135055151, -0.2561720827887623],
        [-7.3374511301053635, -4.76551983796652, -11.107719296154732],
    ]
    positions = [
        [-5.236629177554008, -3.2128585834204153, -7.109735799506634],
        [-8.90535474260669, -5.595618502403675, -12.663595447584001],
    ]
    atoms = Atoms("Fe2", positions=positions, cell=cell, pbc=True)
    magmoms = np.zeros((2, 3))
    assert magnetic_primitive(atoms, magmoms)[0] is atoms
    magnetic_symmetry(atoms, magmoms)


def test_what_spglib_does_not_find_is_no_message(capfd):
    rng = np.random.default_rng(1)
    for _ in range(40):
        atoms = bulk("Fe", "bcc", 2.84, cubic=True)
        atoms.set_cell(atoms.cell.array + rng.normal(0, 0.004, (3, 3)), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.003, (2, 3))
        magnetic_symmetry(atoms, np.array([2.2 * Z, 2.2 * Z]) + rng.normal(0, 0.02, (2, 3)))
    assert capfd.readouterr().err == ""
