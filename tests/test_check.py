"""The physics check: what is right passes, each thing that is broken is caught, and nothing is passed unseen."""

import json

import broken_toys as toys
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from embedded import IRON_MODEL
from paper_tools import random_paper_model

from mmace_sim.calculator import MMACECalculator
from mmace_sim.errors import MissingMomentsError, UnsupportedElementError, UnsupportedOptionError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.model.checkpoint import load_model
from mmace_sim.model.registry import DEFAULT_MODEL
from mmace_sim.quality.check import CheckStatus, check_model
from mmace_sim.quality.check.curves import check_drawings
from mmace_sim.quality.check.target import make_probe
from mmace_sim.testing import IDENTITIES, HeisenbergModel
from mmace_sim.testing.structures import standard_structures

IRON = {"elements": [26], "r_max": 3.4}


def outcome(report, status):
    return {result.name for result in report.results if result.status == status}


def failed(report):
    return outcome(report, CheckStatus.FAILED)


def skipped(report):
    return outcome(report, CheckStatus.SKIPPED)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_default_model_passes(dtype):
    report = check_model("default", dtype=dtype)
    assert report.passed
    assert report.count(CheckStatus.PASSED) == len(IDENTITIES)
    assert report.model == DEFAULT_MODEL
    assert report.single_precision == (dtype == torch.float32)
    assert any("single precision" in note for note in report.notes) == report.single_precision
    json.dumps(report.as_dict(), allow_nan=False)


def test_a_model_as_a_calculator_gives_the_same_numbers():
    names = [
        "no_jump_at_cutoff",
        "forces",
        "stress",
        "magforces",
        "growth_above_max_moment",
        "batch_equals_single",
    ]
    model = load_model(IRON_MODEL)
    longest = model.config.max_moment[26]
    structures = {"bcc": standard_structures([26], lambda _: longest)["bcc"]}
    about = {"elements": [26], "r_max": model.r_max, "max_moment": longest, "spin_orbit": False}
    ours = check_model(model, structures=structures, names=names)
    theirs = check_model(MMACECalculator(model), structures=structures, names=names, **about)
    assert skipped(theirs) == {"batch_equals_single"}
    for a, b in zip(ours.results[:-1], theirs.results[:-1], strict=True):
        assert (a.status, b.status) == (CheckStatus.PASSED, CheckStatus.PASSED)
        assert b.relative == pytest.approx(a.relative, rel=1e-3, abs=1e-9)


CASES = [
    (toys.chirality, True, "time_reversal"),
    (toys.dzyaloshinskii_of_the_vacuum, True, "inversion"),
    (toys.bond_axis, False, "spin_rotation"),
    (toys.kink, False, "smooth_through_zero"),
    (toys.jump, False, "no_jump_at_cutoff"),
    (toys.blow_up, False, "growth_above_max_moment"),
]


def few_structures():
    """Enough to see what is broken: a rattled crystal and a dimer."""
    structures = standard_structures([26], lambda _: 3.0)
    return {name: structures[name] for name in ("rattled", "dimer")}


@pytest.mark.parametrize(("term", "spin_orbit", "identity"), CASES)
def test_what_is_broken_is_caught_and_nothing_else(term, spin_orbit, identity):
    report = check_model(toys.Broken(term, spin_orbit=spin_orbit), structures=few_structures())
    assert failed(report) == {identity}
    (result,) = (result for result in report.results if result.name == identity)
    assert result.relative > result.tolerance
    assert result.energy > 0
    assert result.structure in report.structures


@pytest.mark.parametrize(("term", "spin_orbit", "identity"), CASES)
def test_a_broken_calculator_is_caught_too(term, spin_orbit, identity):
    calculator = MMACECalculator(toys.Broken(term, spin_orbit=spin_orbit))
    names = sorted({identity, "joint_rotation", "translation", "forces"})  # all of them: of models, above
    report = check_model(
        calculator, structures=few_structures(), names=names, r_max=3.4, spin_orbit=spin_orbit
    )
    assert failed(report) == {identity}
    assert len(outcome(report, CheckStatus.PASSED)) == len(names) - 1


@pytest.mark.parametrize(
    ("alter", "expected"),
    [
        (toys.wrong_sign_of_forces, {"forces"}),
        (toys.wrong_sign_of_magforces, {"magforces", "smooth_rotation"}),
        (toys.other_name_of_magforces, set()),
    ],
)
def test_wrong_derivatives_are_caught(alter, expected):
    report = check_model(toys.Altered(alter), structures=few_structures(), r_max=3.4, spin_orbit=False)
    assert failed(report) == expected


def test_a_cutoff_with_one_continuous_derivative_is_no_jump():
    report = check_model(toys.Broken(toys.cosine_cutoff), structures=few_structures())
    assert failed(report) == set()


def test_what_is_missing_is_skipped_and_said():
    report = check_model(toys.Altered(toys.no_magforces), structures=few_structures())
    assert report.passed
    assert skipped(report) == {
        "no_field_without_moments", "spin_rotation", "batch_equals_single", "no_jump_at_cutoff", "magforces",
        "smooth_through_zero", "training_gradient",
    }  # fmt: skip
    reasons = {result.name: result.reason for result in report.results}
    assert "no magnetic forces" in reasons["magforces"]
    assert "--r-max" in reasons["no_jump_at_cutoff"]
    assert "--no-spin-orbit" in reasons["spin_rotation"]
    assert all(result.relative is None for result in report.results if result.status == CheckStatus.SKIPPED)
    assert any("magforces" in note for note in report.notes)


def test_a_kink_along_a_rotation_is_seen_without_magforces():
    class Kinked(toys.Altered):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["energy"] += 1e-3 * abs(get_magmoms(self.atoms)[0, 0])

    report = check_model(Kinked(toys.no_magforces), elements=[26], names=["smooth_rotation"])
    assert failed(report) == {"smooth_rotation"}


def test_results_that_are_not_finite_or_raise_fail_with_a_reason():
    class Fragile(MMACECalculator):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            if len(self.atoms) == 1:
                raise RuntimeError("no neighbours")

    report = check_model(Fragile(HeisenbergModel()), **IRON, names=["isolated_atom"])
    assert report.results[0].status == CheckStatus.FAILED
    assert "RuntimeError: no neighbours" in report.results[0].reason

    class Explosive(MMACECalculator):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            if np.linalg.norm(get_magmoms(self.atoms), axis=1).max() > 4.0:
                self.results["energy"] = np.inf

    report = check_model(Explosive(HeisenbergModel()), **IRON, names=["growth_above_max_moment"])
    assert report.results[0].reason == "not finite"
    assert report.as_dict()["results"][0]["relative"] is None
    assert not report.passed


def test_a_calculator_that_ignores_moments_does_not_pass_by_that():
    report = check_model(EMT(), elements=[29, 79], r_max=6.0, spin_orbit=False)
    assert skipped(report) == {
        "time_reversal", "no_field_without_moments", "spin_rotation", "batch_equals_single", "magforces",
        "growth_above_max_moment", "smooth_through_zero", "smooth_rotation", "training_gradient",
    }  # fmt: skip
    assert failed(report) == set()
    assert {r.reason for r in report.results if r.name == "time_reversal"} == {
        "its energy does not depend on moments"
    }
    assert any("nothing about magnetism" in note for note in report.notes)


def test_structures_of_the_user():
    atoms = Atoms("Fe2", [[0, 0, 0], [1.4, 1.4, 1.4]], cell=[2.8] * 3, pbc=True)
    with pytest.raises(MissingMomentsError):
        check_model(HeisenbergModel(), structures=[atoms])
    set_magmoms(atoms, [2.0, -2.0])
    report = check_model(HeisenbergModel(), structures={"mine": atoms}, names=["time_reversal", "forces"])
    assert report.structures == {"mine": 2}
    assert any("collinear moments in mine" in note for note in report.notes)
    molecule = atoms.copy()
    molecule.pbc = False
    report = check_model(HeisenbergModel(), structures=[molecule], names=["supercell"])
    assert report.results[0].reason == "no structure is periodic"
    set_magmoms(molecule, [0.0, 0.0])
    report = check_model(HeisenbergModel(), structures=[molecule], names=["time_reversal", "forces"])
    assert report.results[0].reason == "no structure has moments"
    assert report.results[1].status == CheckStatus.PASSED
    atoms.numbers = [26, 27]
    with pytest.raises(UnsupportedElementError, match="Co: not among the elements of the model"):
        check_model(HeisenbergModel(), structures=[atoms])


def test_constraints_of_the_user_do_not_hold_atoms_back():
    structures = few_structures()
    structures["rattled"].set_constraint(FixAtoms([0, 1, 2]))
    names = ["joint_rotation", "inversion", "translation", "forces", "stress"]
    report = check_model(HeisenbergModel(), structures=structures, names=names)
    assert report.passed
    assert len(structures["rattled"].constraints) == 1


def test_tolerance_is_a_factor():
    report = check_model(HeisenbergModel(), tolerance=1e-12, names=["forces"])
    assert report.results[0].tolerance == pytest.approx(1e-18)
    assert not report.passed


def test_what_cannot_be_checked():
    with pytest.raises(UnsupportedOptionError, match="--elements"):
        check_model(EMT())
    with pytest.raises(UnsupportedOptionError, match="an object of type dict cannot be checked"):
        check_model({})
    with pytest.raises(UnsupportedOptionError, match=r"EMT cannot evaluate Fe2.*NotImplementedError"):
        check_model(EMT(), elements=[26])


def test_standard_structures():
    structures = standard_structures([26, 28, 13], lambda z: {26: 3.0, 28: 1.0, 13: 0.5}[z])
    assert sum(len(atoms) for atoms in structures.values()) == 17
    for atoms in structures.values():
        assert atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)].min() > 1.7
        assert np.linalg.matrix_rank(get_magmoms(atoms)) == min(len(atoms), 3)
    assert {z for atoms in structures.values() for z in atoms.numbers} == {26, 28, 13}


def test_curves_of_the_toy():
    """Energies of bcc pairs by hand: exchange alone depends on the angle, as 1 − cos."""
    toy = HeisenbergModel()
    drawings = {drawing.name: drawing for drawing in check_drawings(make_probe(toy))}
    curve = drawings["energy_angle"].curves[0][0]
    height = curve.energy.max()
    np.testing.assert_allclose(curve.energy, height * (1 - np.cos(np.radians(curve.x))) / 2, atol=1e-8)
    lengths = drawings["energy_moment"].curves[0][0]
    assert lengths.x[np.argmin(lengths.energy)] == pytest.approx(2.0, abs=1.0)
    for curve in drawings["energy_dimer"].curves[0]:
        assert np.abs(curve.energy[curve.x > toy.r_max]).max() < 1e-12


@pytest.mark.parametrize("time_reversal", [False, True])
def test_the_published_architecture_breaks_what_it_is_known_to_break(time_reversal):
    structures = standard_structures([26, 13], lambda _: 3.0)
    structures = {name: structures[name] for name in ("rattled", "dimer")}
    report = check_model(random_paper_model(time_reversal=time_reversal), structures=structures)
    of_the_form = {"no_jump_at_cutoff", "growth_above_max_moment"}
    odd = {"time_reversal", "inversion", "no_field_without_moments"}
    assert failed(report) == of_the_form | (set() if time_reversal else odd)
    assert skipped(report) == {"spin_rotation"}


@pytest.mark.parametrize("weaker", [0.0, 0.5])
def test_moments_stay_within_the_range_of_their_element(weaker):
    """A function that explodes above its largest moment is asked for that by one check only."""
    names = [name for name in IDENTITIES if name != "growth_above_max_moment"]
    model = random_paper_model(time_reversal=True, max_moment={"Fe": 4.0, "Al": weaker})
    report = check_model(model, names=names)
    assert failed(report) == {"no_jump_at_cutoff"}
    assert max(result.energy or 0.0 for result in report.results) < 1e7
