"""Magnetic anisotropy against models whose constants are known."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from paper_tools import random_paper_model
from scipy.spatial.transform import Rotation

from mmace_sim.errors import ConfigError, UnsupportedOptionError
from mmace_sim.graph.atoms import bare_copy, set_magmoms
from mmace_sim.properties.anisotropy import Anisotropy
from mmace_sim.properties.anisotropy.directions import (
    reference_axis,
    rotation_to,
    sphere_directions,
)
from mmace_sim.properties.anisotropy.fits import fit_constants
from mmace_sim.properties.anisotropy.output import megajoule_per_m3, milli_ev_per_formula
from mmace_sim.properties.anisotropy.sensitivity import Sensitivity
from mmace_sim.properties.anisotropy.symmetry import DirectionSymmetry, crystal_direction, direction_symmetry
from mmace_sim.properties.relax.relaxation import Status
from mmace_sim.properties.singlepoint import SinglePoint
from mmace_sim.testing import HeisenbergModel, SingleIonModel
from mmace_sim.testing.structures import random_rotation

FAST = {"magmoms": "fixed", "curve_points": 0, "directions": 40}
QUICK = FAST | {"directions": 12}
"""Enough for constants, not for harmonics of degree 6."""


def iron(a=2.8, c=2.8, magmoms=(2.0, 2.0)):
    atoms = bulk("Fe", cubic=True, a=1.0)
    atoms.set_cell([a, a, c], scale_atoms=True)
    set_magmoms(atoms, np.asarray(magmoms, dtype=float))
    return atoms


def hexagonal(magmoms=(1.5, 1.5)):
    atoms = Atoms("Fe2", cell=[2.5, 2.5, 4.2, 90, 90, 120], scaled_positions=[[1 / 3, 2 / 3, 1 / 4], [2 / 3, 1 / 3, 3 / 4]],
                  pbc=True)  # fmt: skip
    set_magmoms(atoms, np.asarray(magmoms, dtype=float))
    return atoms


def per_atom(result, name):
    return result.constants.values[name] / len(result.atoms)


@pytest.mark.parametrize("k1", [8e-5, -8e-5])
def test_uniaxial_constants_and_their_signs(k1):
    model = SingleIonModel(uniaxial=(k1, 2e-5), basal=3e-6)
    (result,) = Anisotropy(model, magmoms="fixed", directions=40, curve_points=5).run([iron(c=3.0)])
    assert result.status is Status.CONVERGED, result.message
    assert result.message == ""
    assert (result.symmetry.system, result.constants.form) == ("tetragonal", "uniaxial")
    for name, known in (("K1", k1), ("K2", 2e-5), ("K_cos4", 3e-6)):
        assert per_atom(result, name) == pytest.approx(known, abs=1e-12), name
    assert result.constants.easy == ("axis" if k1 > 0 else "plane")
    along = abs(result.easy @ [0, 0, 1])
    assert along == pytest.approx(1.0 if k1 > 0 else 0.0, abs=1e-4)
    highest = k1 + 2e-5 + 3e-6
    assert result.mae / 2 == pytest.approx(highest if k1 > 0 else -(k1 + 2e-5 - 3e-6), abs=1e-11)
    assert result.curve_error < 1e-12  # energies that no fit has seen
    assert result.time_reversal_error == 0


def test_sixth_order_is_part_of_the_uniaxial_form():
    """E = 20 sin²θ + 10 sin⁶θ (μeV) and terms of the basal plane; without sin⁶θ K1 was 13.1."""
    model = SingleIonModel(uniaxial=(2e-5, 0.0, 1e-5), basal=(3e-6, -2e-6, 0.0))
    (result,) = Anisotropy(model, magmoms="fixed", directions=50, curve_points=6).run([iron(c=3.0)])
    assert result.message == ""
    assert result.constants.order == 6
    known = {"K1": 2e-5, "K2": 0.0, "K3": 1e-5, "K_cos4": 3e-6, "K_cos4_6": -2e-6}
    assert set(result.constants.values) == {"K0", *known}
    for name, value in known.items():
        assert per_atom(result, name) == pytest.approx(value, abs=1e-12), name
    assert result.constants.residual < 1e-13
    (hexa,) = Anisotropy(SingleIonModel(uniaxial=(2e-5, 1e-6, 1e-5), basal=(0, 0, 4e-6)), **FAST).run(
        [hexagonal()]
    )
    for name, value in {"K1": 2e-5, "K2": 1e-6, "K3": 1e-5}.items():
        assert per_atom(hexa, name) == pytest.approx(value, abs=1e-12), name
    assert abs(per_atom(hexa, "K_cos6")) == pytest.approx(4e-6, abs=1e-12)


def test_what_directions_do_not_determine_is_not_reported():
    """Thirteen directions are five different ones in a tetragonal crystal: enough for fourth order, not for sixth."""
    fourth = SingleIonModel(uniaxial=(2e-5, 5e-6), basal=3e-6)
    (result,) = Anisotropy(fourth, **QUICK).run([iron(c=3.0)])
    assert result.constants.order == 4
    assert result.message == ""
    assert per_atom(result, "K1") == pytest.approx(2e-5, abs=1e-12)
    sixth = SingleIonModel(uniaxial=(2e-5, 0.0, 1e-5))
    (result,) = Anisotropy(sixth, **QUICK).run([iron(c=3.0)])
    assert result.constants is None
    assert "do not determine the 5 constants" in result.message
    eighth = SingleIonModel(cubic=(0.0, 0.0, 1e-4))  # of sixth order at most in a tetragonal crystal: named
    (result,) = Anisotropy(eighth, **FAST).run([iron(c=3.0)])
    assert "orders above 6" in result.message
    left = result.constants.residual / 2
    assert f"leave {1e6 * left:.2g} μeV/atom" in result.message
    assert result.constants.errors["K1"] > 0.1 * left


def test_third_cubic_constant():
    (result,) = Anisotropy(SingleIonModel(cubic=(5e-6, -3e-6, 8e-6)), **FAST | {"directions": 50}).run(
        [iron()]
    )
    for name, value in {"K1": 5e-6, "K2": -3e-6, "K3": 8e-6}.items():
        assert per_atom(result, name) == pytest.approx(value, abs=1e-11), name
    assert "K2_t" not in result.constants.values


@pytest.mark.parametrize("group", ["C2", "D2", "C3", "D3", "C4", "D4", "C6", "D6", "T", "O"])
def test_forms_are_complete_to_sixth_order(group):
    """A random even polynomial of degree six, averaged over a group, is nothing but its constants."""
    rotations = Rotation.create_group(group).as_matrix()
    cubic = group in ("T", "O")
    symmetry = DirectionSymmetry("cubic" if cubic else "trigonal", np.eye(3), rotations, None)
    rng = np.random.default_rng(0)
    powers = [(a, b, d - a - b) for d in (2, 4, 6) for a in range(d + 1) for b in range(d + 1 - a)]
    factors = rng.normal(size=len(powers))
    directions = rng.normal(size=(120, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    energies = np.zeros(len(directions))
    for rotation in rotations:
        x, y, z = (directions @ rotation.T).T
        energies += sum(f * x**a * y**b * z**c for f, (a, b, c) in zip(factors, powers, strict=True))
    form = "cubic" if cubic else "uniaxial"
    found = fit_constants(form, symmetry.terms(form), directions, energies / len(rotations), np.eye(3))
    assert found.residual < 1e-10
    assert found.order == (8 if cubic else 6)
    if cubic:
        assert found.values["K3"] == pytest.approx(0, abs=1e-8)


def test_easy_cone_of_sixth_order():
    """−3 s + 2 s³ with s = sin²θ is lowest at s = 1/√2."""
    (result,) = Anisotropy(SingleIonModel(uniaxial=(-3e-5, 0.0, 2e-5)), **FAST).run([iron(c=3.0)])
    assert result.constants.easy == "cone"
    assert result.constants.cone_angle == pytest.approx(np.degrees(np.arcsin(0.5**0.25)), abs=1e-4)


def test_easy_cone():
    (result,) = Anisotropy(SingleIonModel(uniaxial=(-4e-5, 5e-5)), **FAST).run([iron(c=3.0)])
    assert result.constants.easy == "cone"
    angle = np.degrees(np.arcsin(np.sqrt(0.4)))
    assert result.constants.cone_angle == pytest.approx(angle, abs=1e-4)
    assert np.degrees(np.arccos(result.easy[2])) == pytest.approx(angle, abs=0.01)


@pytest.mark.parametrize(("k1", "k2", "easy", "hard"), [
    (5e-6, -3e-6, "[0 0 1]", "[1 1 1]"), (-5e-6, 1e-6, "[1 1 1]", "[0 0 1]"), (-5e-6, 3e-5, "[1 0 1]", "[0 0 1]"),
])  # fmt: skip
def test_cubic_constants_of_a_turned_primitive_cell(k1, k2, easy, hard):
    turn = random_rotation(np.random.default_rng(3))
    atoms = bulk("Fe", a=2.8)
    atoms.set_cell(atoms.cell.array @ turn.T, scale_atoms=True)
    set_magmoms(atoms, [[0.3, -1.0, 2.0]])
    (result,) = Anisotropy(SingleIonModel(cubic=(k1, k2), axes=turn.T), **FAST).run([atoms])
    assert (result.symmetry.system, result.constants.form) == ("cubic", "cubic")
    assert per_atom(result, "K1") == pytest.approx(k1, abs=1e-12)
    assert per_atom(result, "K2") == pytest.approx(k2, abs=1e-11)
    cubic = result.symmetry.lattice
    assert np.allclose(cubic @ cubic.T, 2.8**2 * np.eye(3))
    sizes = [sorted(np.abs(np.array(text[1:-1].split(), dtype=float))) for text in (easy, hard)]
    for direction, expected in zip((result.easy, result.hard), sizes, strict=True):
        text = crystal_direction(direction, cubic)
        assert sorted(np.abs(np.array(text[1:-1].split(), dtype=float))) == expected
    assert result.constants.easy.strip("<>") == "".join(str(int(k)) for k in sorted(sizes[0], reverse=True))


def test_pseudo_dipolar_lattice_sum():
    a, c, k, m = 2.8, 3.1, 1e-3, 2.0
    square = a**2 / 2 + c**2 / 4
    (result,) = Anisotropy(HeisenbergModel(pseudo_dipolar=k, r_on=2.79, r_max=2.8), **QUICK).run([iron(a, c)])
    x = (np.sqrt(square) - 2.79) / (2.8 - 2.79)
    weight = 1.0 if x < 0 else 1 - x**4 * (35 - 84 * x + 70 * x**2 - 20 * x**3)
    assert weight == 1.0  # eight neighbours only
    assert per_atom(result, "K1") == pytest.approx(-k * m**2 * (a**2 - c**2) / square, rel=1e-9)
    assert per_atom(result, "K2") == pytest.approx(0, abs=1e-12)
    (cubic,) = Anisotropy(HeisenbergModel(pseudo_dipolar=k, r_on=2.79, r_max=2.8), **QUICK).run([iron()])
    assert cubic.message.startswith("no anisotropy")


def test_antiferromagnet_has_the_symmetry_of_its_pattern():
    rocksalt = bulk("FeAl", "rocksalt", a=4.2, cubic=True)
    planes = np.rint(rocksalt.positions.sum(axis=1) / 2.1).astype(int)
    signs = np.where(planes % 4 < 2, 1.0, -1.0)
    larger = rocksalt.repeat((2, 2, 2))
    planes = np.rint(larger.positions.sum(axis=1) / 2.1).astype(int)
    signs = np.where(planes % 4 == 0, 1.0, -1.0) * (larger.numbers == 26)
    set_magmoms(larger, 1.5 * signs)
    symmetry = direction_symmetry(larger)
    assert (symmetry.system, symmetry.form) == ("trigonal", "uniaxial")
    assert abs(symmetry.frame[2] @ np.ones(3)) == pytest.approx(3**0.5)
    assert set(symmetry.terms("uniaxial")) == {"K1", "K2", "K3", "K_sin3", "K_sin3_6", "K_cos6"}
    assert crystal_direction(symmetry.frame[2], symmetry.lattice) == "[1 1 1]"
    ferro = larger.copy()
    set_magmoms(ferro, 1.5 * np.abs(signs))
    assert direction_symmetry(ferro).system == "cubic"


def test_symmetry_of_other_crystals():
    symmetry = direction_symmetry(hexagonal())
    assert symmetry.system == "hexagonal"
    assert set(symmetry.terms("uniaxial")) == {"K1", "K2", "K3", "K_cos6"}
    orthorhombic = iron()
    orthorhombic.set_cell([2.7, 2.8, 2.9], scale_atoms=True)
    symmetry = direction_symmetry(orthorhombic)
    assert (symmetry.system, symmetry.form) == ("orthorhombic", "general")
    np.testing.assert_allclose(symmetry.frame, np.eye(3), atol=1e-12)
    assert "K_cos2" in symmetry.terms("uniaxial")
    tilted = iron(c=3.0, magmoms=[[0, 0, 2], [2, 0, 0]])
    assert direction_symmetry(tilted).system == "triclinic"


def test_principal_axes_without_symmetry():
    rng = np.random.default_rng(1)
    atoms = Atoms("Fe", cell=np.array([[2.6, 0.2, 0.1], [0.3, 2.9, 0.2], [0.2, 0.4, 3.2]]), pbc=True)
    set_magmoms(atoms, [[1.0, 2.0, 0.0]])
    axes = random_rotation(rng)
    (result,) = Anisotropy(SingleIonModel(uniaxial=(6e-5, 0.0), axes=axes), **FAST).run([atoms])
    assert (result.symmetry.form, result.constants) == ("general", None)
    values, vectors = np.linalg.eigh(result.surface.tensor())
    np.testing.assert_allclose(values, [-4e-5, 2e-5, 2e-5], atol=1e-12)
    assert abs(vectors[:, 0] @ axes[2]) == pytest.approx(1)
    assert abs(result.easy @ axes[2]) == pytest.approx(1, abs=1e-6)
    (forced,) = Anisotropy(
        SingleIonModel(uniaxial=(6e-5, 0.0), axes=axes), form="uniaxial", axis=axes[2], **FAST
    ).run([atoms])
    assert per_atom(forced, "K1") == pytest.approx(6e-5, abs=1e-12)


def test_lengths_that_follow_change_the_constants_as_known():
    k, (a, b) = 2e-3, (-0.4, 0.05)
    model = SingleIonModel(uniaxial=(k, 0.0), per_square=True, landau=(a, b))
    atoms = iron(c=3.0, magmoms=[[0, 0, 1.7], [0, 0, 1.7]])
    (rigid,) = Anisotropy(model, curve_points=0, directions=12).run([atoms])
    assert per_atom(rigid, "K1") == pytest.approx(k * model.relaxed_moment() ** 2, rel=1e-6)
    (relaxed,) = Anisotropy(model, lengths="relaxed", curve_points=0, directions=12).run([atoms])
    assert per_atom(relaxed, "K1") == pytest.approx(-a * k / (2 * b), rel=1e-6)
    assert per_atom(relaxed, "K2") == pytest.approx(-(k**2) / (4 * b), rel=1e-4)


def test_in_a_plane():
    model = SingleIonModel(uniaxial=(-1e-4, 0.0), basal=4e-6)
    (result,) = Anisotropy(model, plane=(0, 0, 1), magmoms="fixed", directions=24, curve_points=6).run(
        [iron(c=3.0)]
    )
    assert result.constants is None  # sin²θ is the same everywhere
    assert result.mae / 2 == pytest.approx(8e-6, abs=1e-11)
    assert np.abs(result.easy[:2]) == pytest.approx(np.full(2, 0.5**0.5), abs=1e-3)
    (upright,) = Anisotropy(model, plane=(0, 1, 0), **FAST | {"directions": 24}).run([iron(c=3.0)])
    assert upright.mae / 2 == pytest.approx(1e-4 - 4e-6, abs=1e-11)


def test_non_collinear_moments_turn_as_a_body():
    coplanar = np.array([[2.0, 0.0, 0.0], [-1.0, 3**0.5, 0.0], [-1.0, -(3**0.5), 0.0]])
    assert abs(reference_axis(coplanar)[2]) == pytest.approx(1)
    axis, direction = np.array([0.0, 0.0, 1.0]), np.array([0.6, 0.0, -0.8])
    turn = rotation_to(axis, direction)
    np.testing.assert_allclose(turn @ axis, direction, atol=1e-15)
    assert np.linalg.det(rotation_to(axis, -axis)) == pytest.approx(1)
    atoms = hexagonal()
    set_magmoms(atoms, [[2.0, 0.0, 0.1], [0.0, 2.0, 0.1]])
    model = SingleIonModel(uniaxial=(1e-4, 0.0))
    (result,) = Anisotropy(model, **QUICK).run([atoms])
    assert not result.collinear
    assert "non-collinear" in result.message
    magmoms = atoms.arrays["initial_magmoms"]
    axis = reference_axis(magmoms)
    for direction, energy in list(zip(result.directions, result.energies, strict=True))[::8]:
        moved = magmoms @ rotation_to(axis, direction).T
        sine = 1 - moved[:, 2] ** 2 / (moved**2).sum(axis=1)
        known = 1e-4 * sine.sum() + sum(
            -8.0 - 0.4 * m + 0.05 * m**2 for m in (magmoms**2).sum(axis=1).tolist()
        )
        assert energy == pytest.approx(known, abs=1e-12)


def test_grids_cover_the_sphere():
    half, full = sphere_directions(50, half=True), sphere_directions(50, half=False)
    assert (len(half), len(full)) == (55, 50)
    np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1)
    both = np.concatenate([half, -half])
    assert len(np.unique(np.round(both, 9) + 0.0, axis=0)) == 110
    np.testing.assert_allclose(half[0], [0, 0, 1], atol=1e-12)
    gaps = np.arccos(np.abs(both @ half[:20].T).max(axis=1).clip(max=1))
    assert np.degrees(gaps.max()) < 40  # any first part covers it


def test_models_without_spin_orbit_coupling_are_refused():
    with pytest.raises(UnsupportedOptionError, match="zero by construction"):
        Anisotropy(HeisenbergModel())
    with pytest.raises(UnsupportedOptionError, match="zero by construction"):
        Sensitivity("default")
    for settings in ({"form": "round"}, {"plane": (0, 0, 0)}, {"directions": 1}, {"lengths": "short"}):
        with pytest.raises(ConfigError):
            Anisotropy(SingleIonModel(cubic=(1e-6, 0)), **settings)


def test_energies_are_means_of_both_signs_if_the_model_breaks_time_reversal():
    model = random_paper_model()
    atoms = iron(c=3.0)
    atoms.numbers[1] = 13
    atoms.positions[1, 2] += 0.3  # where there is inversion, the published function is even
    (result,) = Anisotropy(model, **QUICK).run([atoms])
    assert result.status is Status.CONVERGED, result.message
    assert result.time_reversal_error > 1e-6
    images = [bare_copy(atoms, sign * 2.0 * np.tile(result.directions[4], (2, 1))) for sign in (1, -1)]
    energies = [point.energy for point in SinglePoint(model).run(images)]
    assert abs(energies[0] - energies[1]) > 1e-7
    assert result.energies[4] == pytest.approx(np.mean(energies), abs=1e-12)


class OddModel(SingleIonModel):
    """One of ours by its looks, but with a term that is odd in the moments."""

    def forward(self, graph, edge_vectors=None):
        out = super().forward(graph, edge_vectors)
        odd = 1e-5 * graph.magmoms[:, 2]
        return {name: value + _summed(odd, value, graph) for name, value in out.items()}


def _summed(values, like, graph):
    return (
        values if len(like) == len(values) else torch.zeros_like(like).index_add(0, graph.system_idx, values)
    )


def test_a_model_of_ours_that_breaks_time_reversal_is_not_said_to_be_averaged():
    (result,) = Anisotropy(OddModel(uniaxial=(1e-4, 0.0)), **QUICK).run([iron(c=3.0)])
    assert "taken for granted" in result.message
    assert "are means" not in result.message
    (even,) = Anisotropy(SingleIonModel(uniaxial=(1e-4, 0.0)), **QUICK).run([iron(c=3.0)])
    assert even.message == ""


def test_one_bad_structure_does_not_stop_the_others():
    flat = iron(magmoms=(0.0, 0.0))
    strange = bulk("Au", a=4.0)
    set_magmoms(strange, [1.0])
    finished = []
    results = Anisotropy(SingleIonModel(uniaxial=(1e-4, 0.0)), **QUICK).run(
        [flat, iron(c=3.0), strange], on_finished=lambda index, _: finished.append(index)
    )
    assert [r.status for r in results] == [Status.FAILED, Status.CONVERGED, Status.FAILED]
    assert "no moments" in results[0].message
    assert sorted(finished) == [0, 1, 2]
    assert per_atom(results[1], "K1") == pytest.approx(1e-4, abs=1e-12)


def test_sensitivity_is_the_mean_over_all_rotations():
    k = 9e-5
    workflow = Sensitivity(SingleIonModel(uniaxial=(k, 0.0)), rotations=24)
    results = workflow.run([iron(), iron(magmoms=(1, -1))])
    sines = np.array([1 - (rotation @ [0, 0, 1])[2] ** 2 for rotation in workflow.rotations[1:]])
    for result in results:  # sin²θ over the sphere: mean square 8/15, variance 4/45
        np.testing.assert_allclose(result.changes, 2 * k * sines, atol=1e-12)
        assert result.value == pytest.approx(k * (8 / 15) ** 0.5, rel=0.25)
        assert result.spread == pytest.approx(k * (4 / 45) ** 0.5, rel=0.25)
    (failed,) = workflow.run([iron(magmoms=(0, 0))])
    assert failed.status is Status.FAILED


def test_units():
    atoms = hexagonal()  # Fe2 is two formula units of Fe
    assert milli_ev_per_formula(0.002, atoms) == pytest.approx(1.0)
    volume = atoms.get_volume() * 1e-30
    assert megajoule_per_m3(0.002, atoms) == pytest.approx(0.002 * 1.602176634e-19 / volume / 1e6)
    assert megajoule_per_m3(0.002, Atoms("Fe", [[0, 0, 0]])) is None


def test_float64_is_used_even_for_a_model_in_float32():
    model = SingleIonModel(uniaxial=(1e-7, 0.0)).to(torch.float32)
    (result,) = Anisotropy(model, **QUICK).run([iron(c=3.0)])
    assert result.energies.dtype == np.float64
    assert per_atom(result, "K1") == pytest.approx(1e-7, rel=1e-4)
