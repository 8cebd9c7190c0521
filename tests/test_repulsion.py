"""Repulsion below the distances of the data: smooth, exact derivatives, nothing above, and nothing collapses."""

import numpy as np
import pytest
import torch
from ase import Atoms
from pydantic import ValidationError

from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.model.architectures import ARCHITECTURES
from mmace_sim.model.checkpoint import load_model, read_metadata, save_model
from mmace_sim.model.config import ModelConfig
from mmace_sim.model.derivatives import evaluate
from mmace_sim.model.magnetic_mace import MagneticMACE
from mmace_sim.nn.repulsion import FLOOR_WIDTH, ShortRange, smooth_floor, smooth_step, zbl_energy
from mmace_sim.testing import measure_identities

ONSET = 2.3
SMALL = {"radial_mlp": [8], "max_ell": 2, "MLP_irreps": "4x0e", "r_max": 4.0, "hidden_irreps": "4x0e"}
EXTRA = {
    "MagneticMACE": {"spin_channels": 2, "spin_max_ell": 1},
    "PaperMMACE": {"saturate": True, "smooth_cutoff": True, "time_reversal": True},
    "FoundationMMACE": {"spin_channels": 2, "spin_max_ell": 1},
}


def make(architecture="MagneticMACE", *, repulsion=True, floor=None, **fields):
    torch.manual_seed(0)
    kind = ARCHITECTURES[architecture]
    onsets = {"Fe-Fe": ONSET, "Al-Fe": 2.1} if repulsion else None
    options = {"max_moment": {26: 2.5, 13: 0.2}, **SMALL, **EXTRA[architecture], **fields}
    model = kind.model(kind.config(atomic_numbers=[13, 26], repulsion=onsets, **options))
    if floor is not None:
        ceilings = {13: 5.0, 26: 0.02}
        model.set_limits(
            energy_floor={13: floor, 26: floor}, energy_ceiling=ceilings, max_crowding={13: 10.0, 26: 15.0}
        )
    return model.requires_grad_(requires_grad=False)


def cell(shortest, seed=0):
    """Iron and aluminium, one pair as far apart as asked, all others farther than the onsets."""
    rng = np.random.default_rng(seed)
    atoms = Atoms(
        "Fe2Al", positions=[[0, 0, 0], [0, 0, shortest], [0, 2.9, 0]], cell=[5.0, 5.6, 5.3], pbc=True
    )
    set_magmoms(atoms, rng.normal(size=(3, 3)) * [[1.0], [1.0], [0.05]])
    return atoms


def test_the_formula_is_that_of_ziegler_and_biersack():
    """Two iron atoms 1 Å apart, by hand; and Coulomb's law close by."""
    length = torch.tensor([1.0, 1e-6], dtype=torch.float64)
    charges = torch.full((2, 2), 26.0, dtype=torch.float64)
    a = 0.8854 * 0.529 / (2 * 26**0.23)
    x = 1.0 / a
    screening = (
        0.1818 * np.exp(-3.2 * x) + 0.5099 * np.exp(-0.9423 * x) + 0.2802 * np.exp(-0.4028 * x)
        + 0.02817 * np.exp(-0.2016 * x)
    )  # fmt: skip
    energies = zbl_energy(length, charges)
    assert float(energies[0]) == pytest.approx(14.3996 * 26**2 * screening, rel=1e-12)
    assert float(energies[1]) == pytest.approx(14.3996 * 26**2 * 1e6, rel=1e-3)


@pytest.mark.parametrize("function", [smooth_step, lambda x: smooth_floor(x, torch.tensor(0.4), 0.7)])
def test_two_derivatives_are_continuous(function):
    """Steps of 1e-5 change the value and two derivatives by little everywhere, also where pieces meet."""
    x = torch.arange(-1.2, 1.5, 1e-5, dtype=torch.float64, requires_grad=True)
    values = [function(x)]
    for _ in range(2):
        values.append(torch.autograd.grad(values[-1].sum(), x, create_graph=True)[0])
    for value in values:
        assert float(value.detach().diff().abs().max()) < 1e-3


def test_the_floor_holds_and_changes_nothing_above():
    x = torch.tensor([3.0, 0.4, -0.3, -50.0, -1e12], dtype=torch.float64)
    y = smooth_floor(x, torch.tensor(0.4, dtype=torch.float64), 0.7)
    assert torch.equal(y[:2], x[:2])
    assert y[2:].tolist() == pytest.approx([0.05] * 3)


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_nothing_changes_above_the_onset(architecture):
    """To the last bit; and below it the network is blind while the energy rises as the repulsion does."""
    with_it, without = make(architecture), make(architecture, repulsion=False)
    graph = graph_from_atoms([cell(2.31), cell(2.4, seed=1)], 4.0)
    for name, value in evaluate(without, graph).items():
        assert torch.equal(evaluate(with_it, graph)[name], value), name
    close = graph_from_atoms([cell(0.55), cell(0.5)], 4.0)
    seen = with_it.seen_vectors(close, close.edge_vectors()).norm(dim=1)
    assert float(seen.min()) == pytest.approx(0.975 * ONSET)
    energies = with_it.close_pairs(close, close.edge_vectors()).view(2, 3).sum(dim=1)
    expected = zbl_energy(torch.tensor([0.55, 0.5], dtype=torch.float64), torch.full((2, 1), 26.0).double())
    torch.testing.assert_close(energies, expected)


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_derivatives_and_symmetries_below_the_onset(architecture):
    """Forces, stress and magforces against differences where repulsion, blindness and floor are all at work."""
    model = make(architecture, floor=-0.05)
    for shortest in (2.29, 2.15, 1.95, 1.6):
        atoms = cell(shortest)
        graph = graph_from_atoms(atoms, 4.0)
        out = evaluate(model, graph)
        h = 1e-5
        for kind in ("positions", "magmoms", "strain"):
            energies = []
            for sign in (1, -1):
                moved, moments = atoms.copy(), graph.magmoms.clone()
                if kind == "positions":
                    moved.positions[1, 2] += sign * h
                elif kind == "strain":
                    moved.set_cell(atoms.cell * (1 + sign * h), scale_atoms=True)
                else:
                    moments[0, 1] += sign * h
                set_magmoms(moved, moments.numpy())
                energies.append(float(model(graph_from_atoms(moved, 4.0))["energy"]))
            slope = (energies[0] - energies[1]) / (2 * h)
            exact = {
                "positions": -out["forces"][1, 2],
                "magmoms": -out["magforces"][0, 1],
                "strain": torch.trace(out["stress"][0]) * atoms.get_volume(),
            }[kind]
            assert float(exact) == pytest.approx(slope, rel=1e-5, abs=1e-6), (shortest, kind)


def test_identities_hold():
    """All of `mmace-sim check`, at an onset above the distances of its structures."""
    model = make(r_max=4.5)
    model.short_range.onsets.fill_(3.2)
    model.short_range.limits.copy_(torch.tensor([-0.1, 0.1]))
    names = ("joint_rotation", "inversion", "time_reversal", "spin_rotation", "supercell", "batch_equals_single",
             "permutation", "no_jump_at_cutoff", "isolated_atom", "forces", "stress", "magforces")  # fmt: skip
    for name, violation in measure_identities(model, names=names, n_structures=2).items():
        assert violation < 1e-6, name


def test_it_stays_in_double_precision_and_in_the_file(tmp_path):
    model = make(floor=-0.7)
    graph = graph_from_atoms(cell(1.2), 4.0)
    single = make(floor=-0.7).to(torch.float32)
    assert single.short_range.onsets.dtype == torch.float64
    small = single(graph_from_atoms(cell(1.2), 4.0, dtype=torch.float32))["energy"]
    assert float(small) == pytest.approx(float(model(graph)["energy"]), rel=1e-5)
    path = save_model(model, tmp_path / "model.safetensors")
    assert read_metadata(path)["format_version"] == 3
    read = load_model(path)
    assert read.config.repulsion == {"Al-Fe": 2.1, "Fe-Fe": ONSET}
    assert read.config.energy_floor == {13: -0.7, 26: -0.7}
    assert torch.equal(read(graph)["node_energy"], model(graph)["node_energy"])
    plain = save_model(make(repulsion=False), tmp_path / "plain.safetensors")
    assert read_metadata(plain)["format_version"] == 1
    assert "repulsion" not in read_metadata(plain)["config"]


def test_a_network_that_blows_up_has_a_ceiling():
    """Also above the largest moments, where its polynomials may rise without measure."""
    model = make(floor=-0.5)
    model.scale.fill_(1e6)
    graph = graph_from_atoms(cell(2.4), 4.0)
    energies = model.node_energies(torch.full((3,), 2.0).double(), 0 * graph.magmoms, torch.tensor([1, 1, 0]))
    assert energies.tolist() == pytest.approx([0.02 + 0.5 * FLOOR_WIDTH] * 2 + [5.0 + 0.5 * FLOOR_WIDTH])


def test_no_energy_below_the_floor():
    """However deep a network falls, atoms 0.7 Å apart or in any crowd stay above E0 + E1 + floor − width/2."""
    model = make(floor=-0.5)
    model.scale.fill_(-1e4)
    rng = np.random.default_rng(0)
    lowest = float(model.reference.atomic_energies.min()) - 0.5 - 0.5 * FLOOR_WIDTH
    deep = 0
    for _ in range(20):
        n = int(rng.integers(1, 7))
        atoms = Atoms(
            f"Fe{n}", scaled_positions=rng.uniform(size=(n, 3)), cell=np.eye(3) * (3 * n) ** (1 / 3)
        )
        atoms.pbc = True
        set_magmoms(atoms, rng.normal(size=(n, 3)))
        out = model(graph_from_atoms(atoms, 4.0))
        assert float(out["node_energy"].min()) >= lowest
        free = make(repulsion=False)
        free.scale.fill_(-1e4)
        deep += float(free(graph_from_atoms(atoms, 4.0))["energy"]) < -100
    assert deep > 3


def test_onsets_of_pairs_that_the_data_lack():
    """The sum of covalent radii; nothing beyond the cutoff."""
    config = ModelConfig(atomic_numbers=["Al", "Fe"], repulsion={"Fe-Al": 1.9}, r_max=2.5)
    assert config.repulsion_onset(13, 26) == config.repulsion_onset(26, 13) == 1.9
    assert config.repulsion_onset(26, 26) == 2.5  # 2.64 by the radii
    assert config.repulsion_onset(13, 13) == pytest.approx(2.42)
    block = ShortRange(2.5, [13, 26], [[2.42, 1.9], [1.9, 2.5]], [20.0, 20.0], [(-1.0, 1.0)] * 2)
    assert not block.state_dict()
    assert not list(block.parameters())
    assert isinstance(MagneticMACE(config).short_range, ShortRange)


@pytest.mark.parametrize("wrong", [{"Fe": 2.0}, {"Fe-Xy": 2.0}, {"Fe-Fe": -1.0}, {"Fe-Fe-Fe": 1.0}, [2.0]])
def test_onsets_are_checked(wrong):
    with pytest.raises(ValidationError, match="repulsion"):
        ModelConfig(atomic_numbers=[26], repulsion=wrong)
