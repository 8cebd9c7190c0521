"""Conversions to and from TorchSim: nothing that a structure carries may be lost on the way."""

import warnings

import numpy as np
import pytest
import torch
import torch_sim as ts
from ase import Atoms, units
from ase.build import bulk
from ase.constraints import FixAtoms, FixBondLength, FixCom
from ase.md.velocitydistribution import thermalize_momenta

from mmace_sim.errors import MissingMomentsError, MomentShapeError, StructureError, UnsupportedConstraintError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.torchsim import (
    initialize_state,
    state_to_atoms,
    state_to_phonopy,
    state_to_structures,
)
from mmace_sim.torchsim.state import state_magmoms

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from phonopy.structure.atoms import PhonopyAtoms
    from pymatgen.core import Species, Structure
    from pymatgen.electronic_structure.core import Magmom

CELL = np.array([[2.8, 0.0, 0.0], [0.3, 2.9, 0.0], [0.1, 0.2, 3.0]])
FRACTIONAL = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.52]]
VECTORS = np.array([[0.1, 0.2, 2.3], [0.0, -1.0, 0.5]])


def iron(moments=VECTORS, symbols="Fe2"):
    atoms = Atoms(symbols, scaled_positions=FRACTIONAL, cell=CELL, pbc=True)
    if moments is not None:
        set_magmoms(atoms, moments)
    return atoms


def structure(moments=None, species=("Fe", "Fe")):
    properties = None if moments is None else {"magmom": moments}
    return Structure(CELL, species, FRACTIONAL, site_properties=properties)


def phonopy_iron(moments):
    return PhonopyAtoms(["Fe", "Fe"], scaled_positions=FRACTIONAL, cell=CELL, magnetic_moments=moments)


def test_torchsim_itself_drops_moments_velocities_and_constraints():
    """The trap that this module exists for; delete it when TorchSim keeps them."""
    atoms = iron()
    atoms.set_constraint(FixAtoms([0]))
    state = ts.initialize_state(atoms, dtype=torch.float64)
    assert not state.atom_extras
    assert not state.constraints
    with pytest.raises(MissingMomentsError, match=r"use mmace_sim\.torchsim\.initialize_state"):
        state_magmoms(state)


def test_ase_batch_keeps_order_cell_and_moments():
    state = initialize_state([iron(), bulk("Fe"), iron(-VECTORS)])
    assert state.n_systems == 3
    assert state.positions.dtype == torch.float64
    np.testing.assert_allclose(state_magmoms(state)[:2], VECTORS)
    np.testing.assert_allclose(state_magmoms(state)[2], [0, 0, 2.3])
    np.testing.assert_allclose(state.row_vector_cell[0], CELL)
    assert state.system_idx.tolist() == [0, 0, 1, 2, 2]


def test_one_structure_without_moments_is_named():
    with pytest.raises(MissingMomentsError, match="structure 1: Fe2 carries no"):
        initialize_state([iron(), iron(None), iron()])


def test_wrong_length_is_named():
    bad = iron()
    bad.arrays["initial_magmoms"] = np.zeros((3, 3))
    with pytest.raises(MomentShapeError, match=r"structure 2: initial_magmoms has shape \(3, 3\)"):
        initialize_state([iron(), iron(), bad])


def test_nothing_to_simulate():
    with pytest.raises(StructureError, match="empty"):
        initialize_state([])
    with pytest.raises(StructureError, match="no atoms"):
        initialize_state(Atoms(magmoms=[]))
    with pytest.raises(TypeError, match="cannot make a state from str"):
        initialize_state("Fe.cif")


def test_different_periodic_axes_are_refused():
    slab = iron()
    slab.pbc = [True, True, False]
    with pytest.raises(StructureError, match=r"structures \[1\] have other periodic axes"):
        initialize_state([iron(), slab, iron()])
    with pytest.raises(StructureError, match=r"structures \[1\] have other periodic axes"):
        initialize_state([initialize_state(iron()), initialize_state(slab)])


def test_round_trip_keeps_everything_an_ase_structure_carries():
    atoms = iron()
    atoms.info["name"] = "mine"
    atoms.set_tags([3, 4])
    atoms.set_masses([56.9, 53.9])
    atoms.set_momenta([[1.0, 2.0, 3.0], [0.0, 0.5, 0.0]])
    atoms.set_array("site", np.array(["a", "b"]))
    atoms.set_constraint(FixAtoms([1]))
    plain = bulk("Fe")
    state = initialize_state([plain, atoms])
    back = state_to_atoms(state, templates=[plain, atoms])[1]
    np.testing.assert_allclose(get_magmoms(back), VECTORS)
    for name in ("positions", "numbers", "momenta", "masses", "tags"):
        np.testing.assert_allclose(back.arrays[name], atoms.arrays[name], err_msg=name)
    assert back.info == {"name": "mine"}
    assert back.arrays["site"].tolist() == ["a", "b"]
    assert back.constraints[0].index.tolist() == [1]
    np.testing.assert_allclose(back.cell.array, CELL)


def test_constraints_act_in_torchsim_and_survive_slicing():
    fixed = iron()
    fixed.set_constraint([FixAtoms([0]), FixAtoms([0, 1])])
    state = initialize_state([iron(), fixed])
    assert state.constraints[0].atom_idx.tolist() == [2, 3]
    assert state[1].constraints[0].atom_idx.tolist() == [0, 1]
    assert state_to_atoms(state)[0].constraints == []


def test_fixed_center_of_mass_is_kept_for_its_system_only():
    fixed = iron()
    fixed.set_constraint(FixCom())
    state = initialize_state([iron(), fixed])
    assert state.constraints[0].system_idx.tolist() == [1]
    back = state_to_atoms(state)
    assert [[type(c) for c in atoms.constraints] for atoms in back] == [[], [FixCom]]


@pytest.mark.parametrize("index", [0, 1])
def test_other_constraints_are_refused(index):
    items = [iron(), iron()]
    items[index].set_constraint(FixBondLength(0, 1))
    with pytest.raises(UnsupportedConstraintError, match="FixBondLength"):
        initialize_state(items)


def test_templates_must_fit():
    state = initialize_state([iron(), iron()])
    with pytest.raises(StructureError, match="1 templates"):
        state_to_atoms(state, [iron()])
    with pytest.raises(StructureError, match="template 1"):
        state_to_atoms(state, [iron(), iron(symbols="FeAl")])


def test_velocities_have_the_same_unit_in_ase_and_torchsim():
    atoms = iron().repeat((3, 3, 2))
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(1))
    state = initialize_state(atoms)
    kinetic = ts.calc_kinetic_energy(masses=state.masses, momenta=state.momenta)
    assert kinetic.item() == pytest.approx(atoms.get_kinetic_energy(), rel=1e-12)
    temperature = ts.calc_temperature(
        masses=state.masses,
        momenta=state.momenta,
        system_idx=state.system_idx,
        dof_per_system=torch.tensor([3 * 36]),
    )
    assert temperature.item() == pytest.approx(atoms.get_temperature(), rel=1e-5)


def test_structures_without_velocities_are_at_rest_beside_others():
    moving = iron()
    moving.set_momenta(np.ones((2, 3)))
    for state in (
        initialize_state([iron(), moving]),
        initialize_state([initialize_state(iron()), initialize_state(moving)]),
    ):
        np.testing.assert_array_equal(state.momenta, [[0.0] * 3] * 2 + [[1.0] * 3] * 2)
    assert not hasattr(initialize_state(iron()), "momenta")


MOMENTS_OF_PYMATGEN = [
    ([2.0, -2.0], [[0, 0, 2.0], [0, 0, -2.0]]),
    (VECTORS.tolist(), VECTORS),
    ([Magmom(2.0), Magmom([0.0, -1.0, 0.5])], [[0, 0, 2.0], [0, -1.0, 0.5]]),
    ([Magmom(2.0, saxis=(1, 0, 0)), Magmom(0.0)], [[2.0, 0, 0], [0, 0, 0]]),
    ([2.0, [0.0, 1.0, 0.0]], [[0, 0, 2.0], [0, 1.0, 0]]),
]


@pytest.mark.parametrize(("moments", "expected"), MOMENTS_OF_PYMATGEN)
def test_pymatgen_moments_of_every_kind(moments, expected):
    np.testing.assert_allclose(state_magmoms(initialize_state(structure(moments))), expected, atol=1e-12)


def test_pymatgen_species_with_spin():
    state = initialize_state(structure(species=[Species("Fe", 2, spin=4), Species("Fe", 2, spin=-4)]))
    np.testing.assert_allclose(state_magmoms(state), [[0, 0, 4], [0, 0, -4]])


def test_pymatgen_structure_without_moments_is_named():
    with pytest.raises(MissingMomentsError, match="structure 1: site 0 of Fe2"):
        initialize_state([structure([1.0, 1.0]), structure()])


def test_pymatgen_site_without_a_moment_beside_others_has_none():
    state = initialize_state(structure([1.0, None]))
    np.testing.assert_allclose(state_magmoms(state), [[0, 0, 1], [0, 0, 0]])


def test_pymatgen_moment_of_wrong_shape():
    with pytest.raises(MomentShapeError, match="structure 0: "):
        initialize_state(structure([[1.0, 0.0], [1.0, 0.0]]))
    with pytest.raises(StructureError, match="disordered"):
        initialize_state(structure([1.0, 1.0], species=[{"Fe": 0.5, "Al": 0.5}, "Fe"]))


def test_pymatgen_round_trip():
    original = structure(VECTORS.tolist())
    velocities = [[0.01, 0.0, 0.0], [0.0, 0.02, 0.0]]
    original.add_site_property("velocities", velocities)
    original.add_site_property("selective_dynamics", [[False] * 3, [True] * 3])
    state = initialize_state(original)
    kinetic = ts.calc_kinetic_energy(masses=state.masses, momenta=state.momenta).item()
    speed2 = np.sum(np.square(velocities)) * (1e-10 / 1e-15) ** 2
    assert kinetic == pytest.approx(
        0.5 * original[0].specie.atomic_mass * units._amu * speed2 / units._e, rel=1e-6
    )
    (back,) = state_to_structures(state)
    assert back.matches(original)
    np.testing.assert_allclose([m.global_moment for m in back.site_properties["magmom"]], VECTORS)
    np.testing.assert_allclose(back.site_properties["velocities"], velocities)
    assert [list(flags) for flags in back.site_properties["selective_dynamics"]] == [[False] * 3, [True] * 3]


def test_pymatgen_partly_fixed_site_stays_so():
    original = structure([1.0, 1.0])
    flags = [[True] * 3, [True, True, False]]
    original.add_site_property("selective_dynamics", flags)
    (back,) = state_to_structures(initialize_state(original))
    assert [list(site) for site in back.site_properties["selective_dynamics"]] == flags


@pytest.mark.parametrize(
    ("moments", "expected"), [([2.0, -2.0], [[0, 0, 2.0], [0, 0, -2.0]]), (VECTORS, VECTORS)]
)
def test_phonopy_round_trip(moments, expected):
    original = phonopy_iron(moments)
    original.masses = [57.0, 55.0]
    (back,) = state_to_phonopy(initialize_state(original))
    np.testing.assert_allclose(back.magnetic_moments, expected)
    np.testing.assert_allclose(back.masses, [57.0, 55.0])
    np.testing.assert_allclose(back.positions, original.positions)
    np.testing.assert_allclose(back.cell, CELL)


def test_phonopy_without_moments_is_named():
    with pytest.raises(MissingMomentsError, match="structure 1: the phonopy structure FeFe"):
        initialize_state([phonopy_iron([1.0, 1.0]), phonopy_iron(None)])


def test_kinds_may_be_mixed():
    state = initialize_state(
        [iron(), structure([1.0, 2.0]), phonopy_iron([3.0, 4.0]), initialize_state(iron())]
    )
    assert state.n_systems == 4
    np.testing.assert_allclose(state_magmoms(state)[2:6, 2], [1.0, 2.0, 3.0, 4.0])


def test_states_pass_through_as_copies():
    state = initialize_state([iron(), iron()])
    copy = initialize_state(state, dtype=torch.float32)
    assert copy.positions.dtype == state_magmoms(copy).dtype == torch.float32
    copy.atom_extras["magnetic_moments"][:] = 0
    np.testing.assert_allclose(state_magmoms(state)[:2], VECTORS)


def test_a_state_without_moments_is_named():
    bare = ts.initialize_state(iron(), dtype=torch.float64)
    with pytest.raises(MissingMomentsError, match="structure 1: the TorchSim state has no"):
        initialize_state([initialize_state(iron()), bare])
    with pytest.raises(MissingMomentsError):
        initialize_state(bare)
    with pytest.raises(MissingMomentsError):
        state_to_atoms(bare)


def test_collinear_moments_in_a_state_are_refused():
    state = ts.io.atoms_to_state(bulk("Fe"), atom_extras_map={"magnetic_moments": "initial_magmoms"})
    with pytest.raises(MomentShapeError, match=r"\(1,\), expected"):
        state_magmoms(state)


def test_constraint_of_torchsim_only_is_left_out_with_a_warning():
    state = initialize_state(bulk("Fe"))

    class FixNothing(ts.constraints.FixAtoms.__base__):
        def get_removed_dof(self, state):
            return torch.zeros(state.n_systems, dtype=torch.long)

        def adjust_positions(self, state, new_positions):
            pass

        def adjust_forces(self, state, forces):
            pass

    state.constraints = [FixNothing([0])]
    with pytest.warns(UserWarning, match="FixNothing"):
        assert state_to_atoms(state)[0].constraints == []


def test_one_atom_cells_are_not_misfiled():
    state = initialize_state([bulk("Fe"), bulk("Fe")])
    assert set(state.atom_extras) == {"magnetic_moments"}
    assert not state.system_extras
