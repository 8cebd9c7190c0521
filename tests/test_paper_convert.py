"""Pickled upstream checkpoints: converted without running them, refused where they are something else."""

import os
import pickle
import warnings
import zipfile

import numpy as np
import pytest
import torch
from paper_tools import PARITY_NAMES, parity_results, parity_structures, random_paper_model
from training_toys import E0, write_toys
from typer.testing import CliRunner
from upstream_pickles import write_checkpoint

from mmace_sim.architectures.paper_mmace import PaperMMACE
from mmace_sim.calculator import MMACECalculator
from mmace_sim.cli.app import app
from mmace_sim.errors import ConfigError, ModelFileError, PhysicsWarning
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.interop.convert import convert
from mmace_sim.interop.unpickle import read_pickled_module
from mmace_sim.interop.upstream_file import read_upstream_file
from mmace_sim.model.checkpoint import load_model
from mmace_sim.properties.relax.structures import relax
from mmace_sim.testing import assert_model_calculator_consistency, random_structure
from mmace_sim.torchsim import MagneticMaceModel
from mmace_sim.training.config import load_train_config
from mmace_sim.training.evaluation.evaluate import evaluate_files
from mmace_sim.training.trainer import train

EXTENSIONS = "mace.modules.extensions"
SCF = ("MagneticSCFMACE", "magmom_mace")
TIME_REVERSAL = ("TimeReversalSymmetrizedMACE", "model")


def assert_upstream_energies(model, name):
    for atoms, expected in zip(parity_structures(name), parity_results(name), strict=True):
        energy = model(graph_from_atoms(atoms, model.r_max))["energy"].item()
        assert energy == pytest.approx(expected["energy"].item(), rel=1e-9)


@pytest.mark.parametrize("name", PARITY_NAMES)
def test_the_fork(name, tmp_path):
    model = read_upstream_file(write_checkpoint(tmp_path / "up.model", name)).model()
    assert_upstream_energies(model, name)
    assert model.metadata["upstream"]["head"] == "Default"
    assert not model.config.clamp


@pytest.mark.parametrize("wrappers", [(), (SCF,), (TIME_REVERSAL,), (TIME_REVERSAL, SCF)], ids=len)
def test_the_merged_code_and_its_wrappers(wrappers, tmp_path):
    flag = "products.0.symmetric_contractions.contractions.0.weights_max_zeroed"
    path = write_checkpoint(
        tmp_path / "up.model",
        root=(EXTENSIONS, "MagneticScaleShiftMACE"),
        wrappers=wrappers,
        add={flag: np.array(False)},
    )
    model = read_upstream_file(path).model()
    assert model.config.clamp
    assert model.config.time_reversal == (TIME_REVERSAL in wrappers)
    if TIME_REVERSAL not in wrappers:
        assert_upstream_energies(model, "one_layer_lm1")


def test_a_real_mace_module_is_read_as_its_state_dict(tmp_path):
    from e3nn import o3
    from mace import modules

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = modules.ScaleShiftMACE(
            r_max=3.0,
            num_bessel=4,
            num_polynomial_cutoff=5,
            max_ell=1,
            interaction_cls=modules.interaction_classes["RealAgnosticDensityResidualInteractionBlock"],
            interaction_cls_first=modules.interaction_classes["RealAgnosticDensityInteractionBlock"],
            num_interactions=1,
            num_elements=1,
            hidden_irreps=o3.Irreps("2x0e"),
            MLP_irreps=o3.Irreps("2x0e"),
            atomic_energies=np.zeros(1),
            avg_num_neighbors=8.0,
            atomic_numbers=[26],
            correlation=1,
            gate=torch.nn.functional.silu,
            atomic_inter_scale=1.0,
            atomic_inter_shift=0.0,
        )
        torch.save(model, tmp_path / "mace.model")
    record = read_pickled_module(tmp_path / "mace.model")
    tensors = dict(record.tensors())
    expected = {k: v for k, v in model.state_dict().items() if "_compiled_main" not in k}
    assert expected.keys() <= tensors.keys()
    for name, value in expected.items():
        torch.testing.assert_close(tensors[name], value, rtol=0, atol=0)
    with pytest.raises(
        ModelFileError, match=r"holds a mace.modules.models.ScaleShiftMACE, which is not supp"
    ):
        read_upstream_file(tmp_path / "mace.model")


class TestRefusals:
    def test_other_model(self, tmp_path):
        path = write_checkpoint(tmp_path / "m", root=("mace.modules.models", "MagneticScaleShiftMACE"))
        with pytest.raises(ModelFileError, match=r"mace.modules.models.MagneticScaleShiftMACE, which is not"):
            read_upstream_file(path)

    def test_other_block(self, tmp_path):
        block = "MagneticRealAgnosticFlexibleSpinOrbitCoupledDensityInteractionBlock"
        path = write_checkpoint(tmp_path / "m", **{"interactions.0": block})
        with pytest.raises(ModelFileError, match=rf"interactions\.0 is {block}"):
            read_upstream_file(path)

    def test_other_gate(self, tmp_path):
        path = write_checkpoint(tmp_path / "m", "two_layer_lm1", gate=torch.tanh)
        with pytest.raises(ModelFileError, match="the gate of a readout is tanh"):
            read_upstream_file(path)

    def test_unsupported_option(self, tmp_path):
        path = write_checkpoint(tmp_path / "m", attributes={"pair_repulsion": True})
        with pytest.raises(ModelFileError, match=r"pair_repulsion = True, but .* no pair_repulsion_fn"):
            read_upstream_file(path)

    def test_missing_weight(self, tmp_path):
        path = write_checkpoint(tmp_path / "m", drop=("interactions.0.density_fn.layer0.weight",))
        with pytest.raises(ModelFileError, match=r"no weight 'interactions\.0\.density_fn"):
            read_upstream_file(path).model()

    def test_heads(self, tmp_path):
        path = write_checkpoint(tmp_path / "m", attributes={"heads": ["pbe", "r2scan"]})
        with pytest.raises(ModelFileError, match="choose one with --head"):
            read_upstream_file(path).model()
        with pytest.raises(ModelFileError, match="no head 'scan'"):
            read_upstream_file(path).model("scan")

    def test_a_state_dict(self, tmp_path):
        torch.save({"weight": torch.ones(2)}, tmp_path / "m")
        with pytest.raises(ModelFileError, match="weights without their model, expected a whole module"):
            read_upstream_file(tmp_path / "m")

    def test_a_compiled_model(self, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls it deprecated
            torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "m")
        with pytest.raises(ModelFileError, match=r"compiled to TorchScript \(Linear\)"):
            read_upstream_file(tmp_path / "m")

    @pytest.mark.parametrize("content", [b"", b"not a zip file"])
    def test_no_torch_file(self, content, tmp_path):
        (tmp_path / "m").write_bytes(content)
        with pytest.raises(ModelFileError, match="not a readable torch file"):
            read_upstream_file(tmp_path / "m")

    def test_a_truncated_pickle(self, tmp_path):
        good = write_checkpoint(tmp_path / "good")
        with zipfile.ZipFile(good) as source, zipfile.ZipFile(tmp_path / "bad", "w") as target:
            for name in source.namelist():
                data = source.read(name)
                target.writestr(name, data[:500] if name.endswith("data.pkl") else data)
        with pytest.raises(ModelFileError, match="damaged"):
            read_upstream_file(tmp_path / "bad")


class _Command:
    def __init__(self, function, argument):
        self.call = (function, (argument,))

    def __reduce__(self):
        return self.call


class TestMaliciousPickles:
    @pytest.mark.parametrize("where", ["alone", "inside of a model"])
    @pytest.mark.parametrize("function", [os.system, eval, exec, pickle.loads], ids=lambda f: f.__name__)
    def test_nothing_runs(self, where, function, tmp_path):
        trace = tmp_path / "it_ran"
        argument = f"touch {trace}" if function is os.system else f"open({str(trace)!r}, 'w')"
        command = _Command(function, argument.encode() if function is pickle.loads else argument)
        if where == "alone":
            torch.save(command, tmp_path / "m")
        else:
            write_checkpoint(tmp_path / "m", attributes={"surprise": command})
        with pytest.raises(ModelFileError, match=r"refused: .* which a model has no use for"):
            read_upstream_file(tmp_path / "m")
        assert not trace.exists()

    @pytest.mark.parametrize(
        "attack",
        [
            # GLOBAL, then BUILD with slot state: would set attributes of the function that rebuilds tensors
            b"ctorch._utils\n_rebuild_tensor_v2\n(N(X\x08\x00\x00\x00__name__X\x01\x00\x00\x00xdtb.",
            b"ctorch._utils\n_rebuild_tensor_v2\n(X\x01\x00\x00\x00xK\x01db.",
            # attributes reached through dotted names of protocol 4
            b"\x80\x04\x8c\x05numpy\x8c\x0ef2py.os.system\x93\x8c\x02ls\x85R.",
            # numpy scalars that hold objects
            b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x01\x00\x00\x00OtRU\x01atR.",
            # a tensor that reaches outside of its storage
            b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
            b"X\x03\x00\x00\x00cpuK\x04tQK\x00(I100000\nt(K\x01tNNtR.",
        ],
    )
    def test_crafted_pickles(self, attack, tmp_path):
        with zipfile.ZipFile(tmp_path / "m", "w") as archive:
            archive.writestr("m/data.pkl", attack)
            archive.writestr("m/data/0", b"\0" * 16)
        with pytest.raises(ModelFileError):
            read_upstream_file(tmp_path / "m")

    def test_functions_of_torch_are_recorded_not_called(self, tmp_path):
        trace = tmp_path / "it_ran"
        torch.save(_Command(torch.hub.load_state_dict_from_url, f"file://{trace}"), tmp_path / "m")
        record = read_pickled_module(tmp_path / "m")
        assert (record.module, record.name) == ("torch.hub", "load_state_dict_from_url")
        with pytest.raises(ModelFileError, match="not supported"):
            read_upstream_file(tmp_path / "m")


def test_violations_are_measured_and_told_once(tmp_path):
    source = write_checkpoint(tmp_path / "up.model")
    convert(source, tmp_path / "out.safetensors")
    with pytest.warns(PhysicsWarning, match=r"violates: E\(−r, m\) = E\(r, m\)") as caught:
        model = load_model(tmp_path / "out.safetensors")
    assert len(caught) == 1
    assert {"inversion", "time_reversal", "no_jump_at_cutoff"} <= model.metadata["violations"].keys()
    assert "joint_rotation" not in model.metadata["violations"]
    repairs = {"time_reversal": True, "saturate": True, "smooth_cutoff": True}
    repaired = convert(source, tmp_path / "repaired.safetensors", **repairs)
    assert repaired.metadata["violations"] == {}
    assert load_model(tmp_path / "repaired.safetensors").config == repaired.config  # and no warning


class TestCommand:
    def run(self, *args):
        return CliRunner().invoke(app, ["convert", *map(str, args)])

    def test_it_converts_and_says_what_is_wrong(self, tmp_path):
        source, out = write_checkpoint(tmp_path / "up.model", "two_layer_lm1"), tmp_path / "out.safetensors"
        result = self.run(source, out, "--time-reversal", "--license", "CC-BY-4.0", "--name", "fe-ni")
        assert result.exit_code == 0, result.output
        assert "Fe Ni, 2 layer(s) 8x0e+8x1o" in result.output
        assert "E, ∂E continuous at r_max" in result.output
        with pytest.warns(PhysicsWarning):
            model = load_model(out)
        assert model.config.time_reversal
        assert (model.metadata["name"], model.metadata["license"]) == ("fe-ni", "CC-BY-4.0")

    def test_it_keeps_existing_files(self, tmp_path):
        source, out = write_checkpoint(tmp_path / "up.model"), tmp_path / "out.safetensors"
        out.write_text("mine")
        result = self.run(source, out)
        assert result.exit_code == 2
        assert "--force" in result.output
        assert out.read_text() == "mine"

    def test_it_explains_what_it_cannot_read(self, tmp_path):
        (tmp_path / "m").write_text("text")
        result = self.run(tmp_path / "m", tmp_path / "out.safetensors")
        assert result.exit_code == 2
        assert "not a readable torch file" in result.output


class TestDownstream:
    """Training, evaluation, ASE, TorchSim and relaxation with this architecture."""

    def config(self, tmp_path, model):
        data = write_toys(tmp_path / "toys.extxyz", n=10)
        settings = {"max_epochs": 2, "batch_size": 4, "device": "cpu", "dtype": "float64"}
        return load_train_config(
            None, {"data": {"train_file": str(data)}, "model": model, "trainer": settings}
        )

    def test_training_from_scratch_and_going_on(self, tmp_path):
        fields = {
            "hidden_irreps": "4x0e",
            "max_ell": 1,
            "r_max": 3.2,
            "num_interactions": 1,
            "radial_mlp": [8],
            "correlation": 2,
            "time_reversal": True,
        }
        for name in ("scratch", "tuned"):
            (tmp_path / name).mkdir()
        first = train(self.config(tmp_path, {"architecture": "PaperMMACE", **fields}), tmp_path / "scratch")
        assert isinstance(first.model, PaperMMACE)
        assert abs(float(first.model.reference.atomic_energies[0]) - E0) < 1.0
        read_again = load_train_config(tmp_path / "scratch" / "config.yaml")
        assert read_again.model["architecture"] == "PaperMMACE"
        second = train(self.config(tmp_path, {"start_from": str(first.path)}), tmp_path / "tuned")
        assert second.model.config == first.model.config
        assert second.model.metadata["started_from"]["name"] == "mmace"
        errors = evaluate_files(load_model(second.path), [tmp_path / "toys.extxyz"])
        assert errors.n_structures == 10

    @pytest.mark.parametrize(
        ("model", "message"),
        [
            ({"architecture": "PaperMMACE", "spin_channels": 3}, "unknown field"),
            ({"architecture": "Paper"}, "unknown architecture 'Paper'"),
            ({"start_from": "default", "r_max": 4.0}, "leave out the others"),
        ],
    )
    def test_mistakes_in_the_configuration(self, model, message, tmp_path):
        with pytest.raises(ConfigError, match=message):
            self.config(tmp_path, model)

    def test_ase_and_torchsim_agree(self):
        model = random_paper_model()
        structures = [
            random_structure(np.random.default_rng(k), elements=model.elements, n_atoms=k) for k in (1, 3)
        ]
        assert_model_calculator_consistency(
            MagneticMaceModel(model), MMACECalculator(model=model), structures
        )

    def test_a_relaxation_runs(self):
        atoms = random_structure(np.random.default_rng(0), elements=[26], n_atoms=2)
        (result,) = relax([atoms], model=random_paper_model(saturate=True, time_reversal=True), max_steps=3)
        assert np.isfinite(result.energy)
