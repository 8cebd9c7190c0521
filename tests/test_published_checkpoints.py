"""Checkpoints of every kind of the published code give upstream's numbers, through the command line as well."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from scipy.interpolate import CubicSpline
from typer.testing import CliRunner
from upstream_pickles import FORK, write_checkpoint

from mmace_sim.architectures.paper_reference import SplineReference
from mmace_sim.calculator import MMACECalculator
from mmace_sim.cli.app import app
from mmace_sim.errors import ModelFileError, PhysicsWarning, StructureError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.interop.convert import MEASURED
from mmace_sim.interop.from_mace import from_upstream
from mmace_sim.interop.upstream_file import read_upstream_file
from mmace_sim.model.checkpoint import load_model
from mmace_sim.model.derivatives import evaluate
from mmace_sim.testing.identities import IDENTITIES, measure_identities

DATA = Path(__file__).parent / "data" / "upstream_kinds"
KINDS = sorted(path.stem for path in DATA.glob("*.npz"))
SHARED = Path(__file__).parents[2] / "shared" / "data" / "upstream_pickles"
RESULTS = ("energy", "node_energy", "forces", "stress", "magforces")
MODELS = "mace.modules.models"


@functools.cache
def kind_json(name):
    return json.loads((DATA / f"{name}.json").read_text())


@functools.cache
def kind_arrays(name):
    with np.load(DATA / f"{name}.npz") as file:
        return {k: a.astype(np.float64) if a.dtype == np.float16 else a for k, a in file.items()}


def write_kind(path, name, **changes):
    told = kind_json(name)
    places = {f"{group}.{k}": cls for group, names in told["blocks"].items() for k, cls in enumerate(names)}
    attributes = {"pair_repulsion": True} if "pair_repulsion_fn.c" in kind_arrays(name) else {}
    return write_checkpoint(
        path,
        root=(MODELS, told["class"]),
        arrays=changes.pop("arrays", None) or dict(kind_arrays(name)),
        heads=told["heads"],
        attributes=attributes | changes.pop("attributes", {}),
        **{**places, **changes},
    )


def structure(case):
    atoms = Atoms(case["numbers"], case["positions"], cell=case["cell"], pbc=case["pbc"])
    set_magmoms(atoms, np.array(case["magmoms"]))
    return atoms


def assert_same_results(model, cases, tolerance=1e-11):
    assert cases
    for case in cases:
        found = evaluate(model, graph_from_atoms(structure(case), model.r_max))
        for name in RESULTS:
            expected = np.array(case[name])
            got = found[name].detach().numpy().reshape(expected.shape)
            scale = np.abs(expected).max()
            np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * scale, err_msg=name)


def cases_of(told, head):
    return [case for case in told["structures"].values() if case.get("head", head) == head]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_has_upstreams_numbers(name, tmp_path):
    file = read_upstream_file(write_kind(tmp_path / "up.model", name))
    for head in kind_json(name)["heads"]:
        assert_same_results(file.model(head), cases_of(kind_json(name), head))


@pytest.mark.parametrize("name", KINDS)
def test_a_model_file_keeps_it(name, tmp_path):
    source = write_kind(tmp_path / "up.model", name)
    head = kind_json(name)["heads"][-1]
    result = CliRunner().invoke(
        app, ["convert", str(source), str(tmp_path / "m.safetensors"), "--head", head]
    )
    assert result.exit_code == 0, result.output
    with pytest.warns(PhysicsWarning):
        model = load_model(tmp_path / "m.safetensors")
    assert_same_results(model, cases_of(kind_json(name), head))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the authors' pickles are not part of the repository")
@pytest.mark.parametrize("name", ["mmace_matpes_like", "mmace_no_one_body"])
def test_genuine_pickles_through_the_command_line(name, tmp_path):
    out = tmp_path / "m.safetensors"
    result = CliRunner().invoke(app, ["convert", str(SHARED / f"{name}.model"), str(out)])
    assert result.exit_code == 0, result.output
    with pytest.warns(PhysicsWarning):
        model = load_model(out)
    assert_same_results(model, list(json.loads((SHARED / f"{name}.json").read_text())["structures"].values()))
    assert model.config.pair_repulsion == (model.config.distance_transform == "agnesi")


class TestConvert:
    def test_single_precision(self, tmp_path):
        source, out = write_kind(tmp_path / "up.model", KINDS[-1]), tmp_path / "m.safetensors"
        result = CliRunner().invoke(app, ["convert", str(source), str(out), "--dtype", "float32"])
        assert result.exit_code == 0, result.output
        with pytest.warns(PhysicsWarning):
            model = load_model(out)
        assert model.dtype == torch.float64
        assert_same_results(model, cases_of(kind_json(KINDS[-1]), "default"), tolerance=1e-5)

    def test_single_precision_checkpoints(self):
        arrays = {
            name: a.astype(np.float32) if a.dtype == np.float64 else a
            for name, a in kind_arrays("zbl_agnesi_mixed_density").items()
        }
        model = from_upstream({}, arrays)
        assert model.config.stored_bessel  # π/r_max in float32 is not π/r_max
        assert_same_results(model, cases_of(kind_json("zbl_agnesi_mixed_density"), "default"), tolerance=1e-5)

    def test_single_precision_checkpoints_lose_nothing_in_double(self, tmp_path):
        """A file in float32, converted to float64: the function of its weights without further rounding."""
        name = "zbl_agnesi_mixed_density"
        rounded = {
            key: a.astype(np.float32) if a.dtype == np.float64 else a for key, a in kind_arrays(name).items()
        }
        exact = from_upstream(
            {}, {k: a.astype(np.float64) if a.dtype == np.float32 else a for k, a in rounded.items()}
        )
        source, out = write_kind(tmp_path / "up.model", name, arrays=rounded), tmp_path / "m.safetensors"
        result = CliRunner().invoke(app, ["convert", str(source), str(out), "--dtype", "float64"])
        assert result.exit_code == 0, result.output
        with pytest.warns(PhysicsWarning):
            model = load_model(out)
        for case in cases_of(kind_json(name), "default"):
            graph = graph_from_atoms(structure(case), model.r_max)
            found, expected = evaluate(model, graph), evaluate(exact, graph)
            for key in RESULTS:
                scale = float(expected[key].abs().max())
                np.testing.assert_allclose(
                    found[key].detach(), expected[key].detach(), rtol=0, atol=1e-9 * scale, err_msg=key
                )

    def test_trained_radial_functions_are_kept(self):
        name = "radial_embedding.bessel_fn.bessel_weights"
        arrays = dict(kind_arrays("gated_density"))
        model = from_upstream({}, arrays | {name: arrays[name] * 1.01})
        np.testing.assert_allclose(model.radial_basis.frequencies, arrays[name] * 1.01, rtol=1e-14)

    def test_the_card_says_what_holds_and_what_does_not(self, tmp_path):
        out = tmp_path / "m.safetensors"
        source = write_kind(tmp_path / "up.model", "one_body_of_all_elements")
        result = CliRunner().invoke(app, ["convert", str(source), str(out)])
        assert "It obeys:" in result.output
        with pytest.warns(PhysicsWarning):
            card = load_model(out).metadata["identities"]
        assert card["joint_rotation"]["holds"]
        assert not card["time_reversal"]["holds"]
        assert card["time_reversal"]["measured"] > 1e-6

    @pytest.mark.parametrize("name", ["zbl_agnesi_mixed_density", "one_body_spline"])
    def test_the_card_is_what_is_measured_on_the_file(self, name, tmp_path):
        """The card in the file, as `models info` would read it, and the identities of the model that the file gives."""
        out = tmp_path / "m.safetensors"
        CliRunner().invoke(app, ["convert", str(write_kind(tmp_path / "up.model", name)), str(out)])
        with pytest.warns(PhysicsWarning):
            model = load_model(out)
        measured = measure_identities(model, names=list(MEASURED), n_structures=2)
        card = model.metadata["identities"]
        assert set(card) == set(MEASURED)
        for key, value in measured.items():
            assert card[key]["holds"] == bool(value <= IDENTITIES[key].tolerance)
            if not card[key]["holds"]:
                assert card[key]["measured"] == pytest.approx(value, rel=1e-2)
        assert set(model.metadata["violations"]) == {key for key in card if not card[key]["holds"]}

    def test_storages_of_a_gpu(self, tmp_path):
        """What torch.save writes of tensors on a GPU, by their names in the file."""
        import zipfile

        source, out = write_kind(tmp_path / "up.model", "gated_density"), tmp_path / "cuda.model"
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w") as new:
            for entry in old.namelist():
                content = old.read(entry)
                if entry.endswith("data.pkl"):
                    content = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
                    content = content.replace(b"ctorch\nDoubleStorage", b"ctorch.cuda\nDoubleStorage")
                    assert b"cuda:0" in content
                new.writestr(entry, content)
        converted = tmp_path / "m.safetensors"
        assert CliRunner().invoke(app, ["convert", str(out), str(converted)]).exit_code == 0
        with pytest.warns(PhysicsWarning):
            assert_same_results(load_model(converted), cases_of(kind_json("gated_density"), "default"))

    def test_attributes_that_change_nothing_are_ignored(self, tmp_path):
        path = write_kind(
            tmp_path / "up.model",
            "gated_density",
            attributes={"use_reduced_cg": True, "use_so3": True, "apply_cutoff": False, "new_switch": "on"},
        )
        assert read_upstream_file(path).heads == ["default"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"radial_embedding.distance_transform": "SoftTransform"},
                r"distance_transform is SoftTransform",
            ),
            ({"readouts.1": "NonLinearBiasReadoutBlock"}, r"readouts\.1 is NonLinearBiasReadoutBlock"),
            ({"attributes": {"use_last_readout_only": True}}, "use_last_readout_only = True"),
            ({"attributes": {"pair_repulsion": False}}, r"pair_repulsion_fn"),
            ({"add": {"extra.weight": np.ones(3)}}, r"does not have: extra\.weight"),
        ],
    )
    def test_what_changes_the_function(self, changes, message, tmp_path):
        path = write_kind(tmp_path / "up.model", "zbl_agnesi_mixed_density", **changes)
        with pytest.raises(ModelFileError, match=message):
            read_upstream_file(path).model()

    def test_only_non_magnetic_models_are_offered_the_foundation(self, tmp_path):
        magnetic = write_checkpoint(tmp_path / "a", root=(MODELS, FORK.format("OneBodyReadout")))
        with pytest.raises(ModelFileError, match=r"OneBodyReadout.*not supported") as caught:
            read_upstream_file(magnetic)
        assert "foundation" not in str(caught.value)
        named_otherwise = write_checkpoint(tmp_path / "b", root=(MODELS, "ScaleShiftMACE"))
        with pytest.raises(ModelFileError) as caught:
            read_upstream_file(named_otherwise)
        assert "foundation" not in str(caught.value)

    def test_a_tensor_larger_than_what_is_stored(self, tmp_path):
        torch.save(torch.nn.ParameterList([torch.zeros(1).expand(10**9)]), tmp_path / "m")
        with pytest.raises(ModelFileError, match="1000000000"):
            read_upstream_file(tmp_path / "m")


class TestMoments:
    """Above the largest moment of its data, a converted model has no energy."""

    @pytest.fixture
    def model(self, tmp_path):
        return read_upstream_file(write_kind(tmp_path / "up.model", "zbl_agnesi_mixed_density")).model()

    @pytest.fixture
    def atoms(self):
        case = next(iter(kind_json("zbl_agnesi_mixed_density")["structures"].values()))
        return structure(case)

    def test_the_error_names_both(self, model, atoms):
        limit = model.moment_limits[int(atoms.numbers[0])]
        moments = np.zeros((len(atoms), 3))
        moments[0, 2] = limit
        set_magmoms(atoms, moments)
        atoms.calc = MMACECalculator(model=model)
        assert np.isfinite(atoms.get_potential_energy())
        set_magmoms(atoms, 1.2 * moments)
        with pytest.raises(StructureError, match=rf"{1.2 * limit:.4g} μB, but .* {limit:.4g} μB.*--saturate"):
            atoms.get_potential_energy()

    def test_it_fails_one_structure_of_a_batch(self, model, atoms):
        from mmace_sim.properties.relax.relaxation import Status
        from mmace_sim.properties.relax.structures import relax

        beyond = atoms.copy()
        set_magmoms(beyond, np.full((len(atoms), 3), 9.0))
        good, bad = relax([atoms, beyond], model=model, max_steps=2, relax_cell=False)
        assert good.status == Status.MAX_STEPS
        assert bad.status == Status.FAILED
        assert "--saturate" in bad.message

    def test_a_state_that_goes_beyond_has_no_energy(self, model, atoms):
        from mmace_sim.torchsim import MagneticMaceModel, initialize_state

        beyond = atoms.copy()
        set_magmoms(beyond, np.full((len(atoms), 3), 9.0))
        state = initialize_state([atoms, beyond], device="cpu", dtype=torch.float64)
        with pytest.warns(PhysicsWarning, match="above which its energy means nothing"):
            energy = MagneticMaceModel(model)(state)["energy"]
        assert torch.isfinite(energy).tolist() == [True, False]

    def test_starts_stay_below(self, model):
        from mmace_sim.structures.initial_moments import initial_magmoms
        from mmace_sim.structures.moment_range import largest_moments

        atoms = Atoms("FeMnO", positions=np.eye(3) * 2)
        for how in ("fm", "random:3"):
            moments, note = initial_magmoms(atoms, how, largest={26: 1.5, 25: 4.0, 8: 0.1})
            np.testing.assert_allclose(np.linalg.norm(moments, axis=1), [1.35, 3.6, 0.0])
            assert "Fe 1.35 μB" in note
        assert largest_moments(model) == model.moment_limits


class TestKnotsOfASpline:
    KNOTS = torch.tensor(
        [[0.0, 0.1, 0.5, 0.6, 2.0, 4.0], [0.02, 0.3, 0.4, 1.1, 1.2, 1.6]], dtype=torch.float64
    )

    def reference(self):
        reference = SplineReference([2.0, 1.3], 6, saturated=False, clamped=True)
        reference.set_knots(self.KNOTS)
        reference.one_body.data.normal_(generator=torch.Generator().manual_seed(1))
        return reference

    def test_it_is_the_natural_spline(self):
        """As scipy's, at, between and outside of the knots; zero without a moment."""
        reference = self.reference()
        lengths = torch.linspace(0.0, 2.5, 41, dtype=torch.float64)
        magmoms = lengths[:, None] * torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64)
        for species, knots in enumerate(self.KNOTS.numpy()):
            index = torch.full((len(lengths),), species)
            found = reference.basis(magmoms, index) @ reference.one_body[species].detach()
            spline = CubicSpline(knots, reference.one_body[species].detach().numpy(), bc_type="natural")
            square = np.clip(lengths.numpy() ** 2, knots[0], knots[-1])
            expected = spline(square) - spline(max(0.0, knots[0]))
            np.testing.assert_allclose(found, expected, atol=1e-13)

    def test_they_come_back_from_a_file(self):
        reference, other = self.reference(), SplineReference([2.0, 1.3], 6, saturated=False, clamped=True)
        other.load_state_dict(reference.state_dict())
        magmoms, species = torch.rand(7, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1, 0, 1])
        assert torch.equal(other.basis(magmoms, species), reference.basis(magmoms, species))

    def test_a_checkpoint_with_its_own(self):
        """Knots of a checkpoint in single precision are not equidistant to the last digit; trained ones are not at all."""
        arrays = dict(kind_arrays("one_body_spline"))
        names = [name for name in arrays if ".u_knots." in name]
        for name in names:
            arrays[name] = np.sort(arrays[name] ** 1.1)
        model = from_upstream({}, arrays)
        np.testing.assert_allclose(model.reference.knots[0], arrays[names[0]], rtol=1e-14)
        arrays[names[0]] = arrays[names[0]][::-1]
        with pytest.raises(ModelFileError, match="do not ascend"):
            from_upstream({}, arrays)


@pytest.mark.parametrize("name", KINDS)
def test_elements_in_any_order(name):
    arrays, told = reversed_elements(kind_arrays(name)), kind_json(name)
    for number, head in enumerate(told["heads"]):
        model = from_upstream({"pair_repulsion": "pair_repulsion_fn.c" in arrays}, arrays, head=number)
        assert model.elements == sorted(arrays["atomic_numbers"])
        assert_same_results(model, cases_of(told, head))


def reversed_elements(arrays):
    """The same model with its elements the other way round, by the layout of upstream's arrays."""
    n = len(arrays["atomic_numbers"])
    assert n > 1
    channels = arrays["node_embedding.linear.weight"].size // n
    found = {}
    for name, array in arrays.items():
        if name.endswith("skip_tp.weight"):  # (degree, in, element, out)
            array = array.reshape(-1, channels, n, channels)[:, :, ::-1]
        elif name == "node_embedding.linear.weight":
            array = array.reshape(n, channels)[::-1]
        elif name == "atomic_energies_fn.atomic_energies":
            array = array[..., ::-1]
        elif name.startswith("E_m_spline."):
            *rest, k = name.split(".")
            name = ".".join([*rest, str(n - 1 - int(k))])
        elif array.shape[:1] == (n,) and (
            (".contractions." in name and ".weights" in name)
            or name
            in ("atomic_numbers", "m_max", "one_body_magmom_const_correction", "onebody_magmombasis_coeffs")
            or name.startswith("saturation.")
        ):
            array = array[::-1]
        found[name] = np.ascontiguousarray(array).reshape(arrays.get(name, array).shape)
    return found
