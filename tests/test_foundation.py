"""Magnetic models around non-magnetic MACE checkpoints: exact at the start, with all identities once trained."""

import os
from typing import ClassVar

import httpx
import numpy as np
import pytest
import torch
from foundation_tools import ELEMENTS, mace_results, save_mace, structures, write_mace

from mmace_sim.calculator import MMACECalculator
from mmace_sim.errors import ConfigError, ModelFileError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.hub import download as transfer
from mmace_sim.interop.foundation import FoundationFile, find_foundation, from_foundation
from mmace_sim.model.checkpoint import load_model, save_model
from mmace_sim.model.derivatives import evaluate
from mmace_sim.testing import MagneticModelConformance

AGNOSTIC = "RealAgnosticInteractionBlock"
RESIDUAL = "RealAgnosticResidualInteractionBlock"
DENSITY = "RealAgnosticDensityInteractionBlock"
DENSITY_RESIDUAL = "RealAgnosticDensityResidualInteractionBlock"
CASES = {
    "agnostic": {"first": AGNOSTIC, "later": RESIDUAL},
    "residual, as MACE-MP-0": {"max_ell": 3, "use_reduced_cg": False},
    "density, agnesi, repulsion, 2e, as MPA-0": {
        "first": DENSITY,
        "later": DENSITY_RESIDUAL,
        "distance_transform": "Agnesi",
        "pair_repulsion": True,
        "hidden_irreps": "4x0e+4x1o+4x2e",
        "correlation": 3,
    },
    "density from the first layer": {"first": DENSITY_RESIDUAL, "later": DENSITY_RESIDUAL},
    "one layer, scripted": {
        "scripted": True,
        "num_interactions": 1,
        "hidden_irreps": "4x0e",
        "pair_repulsion": True,
    },
    "three layers": {"num_interactions": 3, "hidden_irreps": "4x0e"},
    "MACE without scale": {"scale_shift": False, "pair_repulsion": True},
}
MOMENTS = {"Fe": 2.5, "O": 0.3}


def small(path, **fields):
    return from_foundation(
        path, elements=["Fe", "O", "Al"], max_moment=MOMENTS, spin_channels=3, spin_max_ell=1, **fields
    )


def seeded(path, **fields):
    """With the same random weights in the magnetic part."""
    torch.manual_seed(0)
    return small(path, **fields)


def randomize(model, seed=0):
    """Random magnetic weights, one-body energies and a wall, as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.magnetic_parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        model.reference.one_body.copy_(
            0.1 * torch.randn(model.reference.one_body.shape, generator=generator, dtype=torch.float64)
        )
        model.reference.wall_on.fill_(1.0)
    return model.requires_grad_(requires_grad=False)


def assert_same(model, results, images):
    """One batch of all structures gives what mace-torch gave for each, and no magnetic forces."""
    out = evaluate(model, graph_from_atoms(images, model.r_max))
    start = 0
    for k, (atoms, expected) in enumerate(zip(images, results, strict=True)):
        stop = start + len(atoms)
        ours = {"energy": out["energy"][k], "forces": out["forces"][start:stop], "stress": out["stress"][k]}
        for name, value in expected.items():
            atol = 1e-11 * np.abs(value).max()
            np.testing.assert_allclose(
                ours[name].numpy(), np.squeeze(value), rtol=1e-10, atol=atol, err_msg=name
            )
        start = stop
    assert float(out["magforces"].abs().max()) == 0.0


@pytest.mark.parametrize("name", CASES)
def test_it_starts_at_the_foundation(name, tmp_path):
    path, mace = write_mace(tmp_path / "m.model", **CASES[name])
    images = structures()
    results = [mace_results(mace, atoms) for atoms in images]
    model = small(path)
    assert_same(model, results, images)
    save_model(model, tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors")
    for factor in (0.0, 0.4, 10.0):  # far above the largest moment, too
        turned = [atoms.copy() for atoms in images]
        for atoms in turned:
            set_magmoms(atoms, -factor * get_magmoms(atoms))
        assert_same(loaded, results, turned)


def test_it_starts_at_the_chosen_head(tmp_path):
    path, mace = write_mace(tmp_path / "m.model", heads=["pt_head", "tuned"])
    images = structures()
    for head in ("pt_head", "tuned"):
        results = [mace_results(mace, atoms, head=head) for atoms in images]
        assert_same(small(path, head=head), results, images)
    with pytest.raises(ModelFileError, match=r"heads pt_head, tuned; choose one as in m\.model#pt_head"):
        small(path)
    with pytest.raises(ModelFileError, match="no head 'other'"):
        small(path, head="other")


def test_single_precision_checkpoints(tmp_path):
    path, mace = write_mace(tmp_path / "m.model")
    save_mace(mace.float(), path)
    model = small(path)
    mace = mace.double()
    images = structures()
    out = evaluate(model, graph_from_atoms(images, model.r_max))
    expected = [mace_results(mace, atoms) for atoms in images]
    np.testing.assert_allclose(out["energy"], [float(e["energy"][0]) for e in expected], rtol=1e-6)
    forces = np.concatenate([e["forces"] for e in expected])
    np.testing.assert_allclose(out["forces"], forces, atol=1e-6 * np.abs(forces).max())


class _Identities(MagneticModelConformance):
    max_atoms = 3

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, tmp_path_factory):
        path, _ = write_mace(tmp_path_factory.mktemp("foundation") / "m.model", **cls.mace)
        return randomize(small(path, **cls.fields))


def test_a_head_behind_the_file(tmp_path):
    path, _ = write_mace(tmp_path / "m.model", heads=["pt_head", "tuned"])
    chosen, given = seeded(f"{path}#tuned"), seeded(path, head="tuned")
    assert chosen.metadata["foundation"]["head"] == "tuned"
    torch.testing.assert_close(chosen.state_dict(), given.state_dict(), rtol=0, atol=0)
    with pytest.raises(ModelFileError, match="no head 'other'"):
        small(f"{path}#other")


def test_what_older_versions_left_behind_is_ignored(tmp_path):
    """Checkpoints of November 2024 (MP-0b, 0b2) hold buffers of a repulsion that was cut off otherwise before."""
    path, mace = write_mace(tmp_path / "m.model", pair_repulsion=True)
    expected = seeded(path)
    repulsion = mace.pair_repulsion_fn
    repulsion.register_buffer("r_max", torch.tensor(5.0))
    repulsion.cutoff = torch.nn.Module()
    repulsion.cutoff.register_buffer("p", torch.tensor(6))
    repulsion.cutoff.register_buffer("r_max", torch.tensor(5.0))
    save_mace(mace, tmp_path / "old.model")
    found = seeded(tmp_path / "old.model")
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)


class TestWithoutSpinOrbit(_Identities):
    mace = CASES["residual, as MACE-MP-0"]
    fields: ClassVar = {}


class TestWithSpinOrbit(_Identities):
    mace = CASES["density, agnesi, repulsion, 2e, as MPA-0"] | {"correlation": 2}
    fields: ClassVar = {"spin_orbit": True, "spin_orbit_channels": 2}


def test_the_magnetic_part_learns_and_the_backbone_can_be_frozen(tmp_path):
    path, _ = write_mace(tmp_path / "m.model")
    model = small(path, spin_orbit=True)
    parameters = {*model.backbone_parameters(), *model.magnetic_parameters()}
    assert len(parameters) == len(list(model.parameters()))
    model.requires_grad_(requires_grad=True)
    graph = graph_from_atoms(structures(), model.r_max)
    for _ in range(2):  # the first step opens the gates, the second reaches what is behind them
        model.zero_grad()
        out = evaluate(model, graph, training=True)
        (out["energy"].sum() + (out["magforces"] ** 2).sum() + out["magforces"].sum()).backward()
        with torch.no_grad():
            for parameter in model.magnetic_parameters():
                if parameter.grad is not None:
                    parameter -= 1e-3 * parameter.grad
    last = model.layers[-1].magnetic
    idle = {id(last.spin_neighbors.weight), id(last.spin_centre.weight)}  # spin vectors of no further layer
    for name, parameter in model.named_parameters():
        if id(parameter) not in idle and "readouts" not in name:
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().max()) > 0.0, name


class TestRefusals:
    def refuse(self, message, write, **kwargs):
        path = write(**kwargs)
        with pytest.raises(ModelFileError, match=message):
            FoundationFile(path)

    @pytest.fixture
    def write(self, tmp_path):
        tiny = {"max_ell": 1, "correlation": 1, "hidden_irreps": "2x0e"}
        return lambda **kwargs: write_mace(tmp_path / "m.model", **(tiny | kwargs))[0]

    def test_other_interaction_blocks(self, write):
        names = "supported are RealAgnosticInteractionBlock"
        block = "RealAgnosticResidualNonLinearInteractionBlock"
        self.refuse(
            f"interactions.0 is {block}, which is not supported; {names}",
            write=write,
            first=block,
            later=block,
        )

    def test_mixed_blocks(self, write):
        self.refuse("mixes interaction blocks", write, later=DENSITY_RESIDUAL)

    def test_other_radial_functions(self, write):
        self.refuse("bessel_fn is GaussianBasis", write, radial_type="gaussian")

    def test_other_distance_transforms(self, write):
        self.refuse("distance_transform is SoftTransform", write, distance_transform="Soft")

    def test_other_gates(self, write):
        self.refuse("gate of a readout is tanh", write, gate=torch.tanh)

    def test_options(self, write):
        self.refuse("apply_cutoff = False is not supported", write, apply_cutoff=False)

    def test_more_irreps_than_the_architecture_has(self, write):
        path = write(keep_last_layer_irreps=True, hidden_irreps="2x0e+2x1o")
        with pytest.raises(ModelFileError, match=r"m\.model: "):
            small(path)

    def test_files_that_run_something(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return (os.system, (f"touch {tmp_path / 'it_ran'}",))

        torch.save({"model": Evil()}, tmp_path / "evil.model")
        with pytest.raises(ModelFileError, match="which a model has no use for"):
            FoundationFile(tmp_path / "evil.model")
        assert not (tmp_path / "it_ran").exists()

    def test_other_modules(self, tmp_path):
        torch.save(torch.nn.Linear(1, 1), tmp_path / "m.model")
        with pytest.raises(
            ModelFileError, match=r"torch.nn.modules.linear.Linear.*Supported are MACE, ScaleShiftMACE"
        ):
            FoundationFile(tmp_path / "m.model")

    def test_names(self, monkeypatch, tmp_path):
        with pytest.raises(ModelFileError, match=r"no foundation 'tiny'.*medium-mpa-0"):
            find_foundation("tiny")

        def fail(*_):
            raise httpx.ConnectError("no route to host")

        monkeypatch.setenv("MMACE_SIM_CACHE", str(tmp_path / "ours"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "theirs"))
        monkeypatch.setattr(transfer, "_transfer", fail)
        monkeypatch.setattr(transfer, "PAUSE", 0.001)
        with pytest.raises(
            ModelFileError, match=r"could not be fetched .*no route to host.*https://github\.com"
        ):
            find_foundation("small")

    def test_elements_and_fields(self, write):
        path = write()
        with pytest.raises(ConfigError, match="does not know Pt; its elements are O, Al, Fe"):
            from_foundation(path, elements=["Pt"], spin_max_ell=1)
        with pytest.raises(ConfigError, match="r_max: fixed by the foundation"):
            from_foundation(path, elements=["Fe"], r_max=3.0)
        with pytest.raises(ConfigError, match="spin_max_ell = 2 is above"):
            from_foundation(path, elements=["Fe"], spin_max_ell=2)


def test_only_the_wanted_elements_are_kept(tmp_path):
    path, _ = write_mace(tmp_path / "m.model")
    model = from_foundation(path, elements=["Fe"])
    assert model.elements == [26]
    assert model.embedding.shape[0] == 1
    assert FoundationFile(path).elements == list(ELEMENTS)
    (_, iron, _) = structures()
    energies = [MMACECalculator(model=m).get_potential_energy(iron) for m in (model, small(path))]
    assert energies[0] == pytest.approx(energies[1], rel=1e-12)
    assert model.metadata["foundation"]["class"] == "ScaleShiftMACE"
