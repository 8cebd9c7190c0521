"""The shims under plugins/ re-export what the package has, without logic of their own; the recipe of phonopy works."""

import ast
import runpy
from pathlib import Path

import numpy as np
import pytest

PLUGINS = Path(__file__).parents[1] / "plugins"


@pytest.mark.parametrize("host", ["ase", "phonopy", "torchsim"])
def test_shims_only_re_export(host):
    path = PLUGINS / host / "mmace.py"
    assert (PLUGINS / host / "README.md").is_file()
    kinds = {type(node) for node in ast.parse(path.read_text()).body}
    assert kinds == {ast.Expr, ast.ImportFrom, ast.Assign}  # docstring, imports, __all__
    module = runpy.run_path(str(path))
    assert all(module[name].__module__.startswith("mmace_sim.") for name in module["__all__"])


def test_phonopy_recipe_gives_known_frequencies():
    from ase import units
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms

    from mmace_sim.properties.phonons import phonopy_forces
    from mmace_sim.testing import HeisenbergModel

    toy = HeisenbergModel()
    depth, stiffness, distance = toy.morse
    primitive = distance / 2**0.5 * (np.ones((3, 3)) - np.eye(3))
    moment = toy.relaxed_moment(12)
    cell = PhonopyAtoms(["Fe"], cell=primitive, positions=[[0, 0, 0]], magnetic_moments=[moment])
    phonon = Phonopy(cell, supercell_matrix=[3, 3, 3])
    phonon.generate_displacements(distance=0.01)
    phonopy_forces(phonon, toy)
    phonon.produce_force_constants()
    phonon.run_qpoints([[0, 0, 0], [0.5, 0.5, 0]])
    frequencies = phonon.qpoints.frequencies
    spring = 2 * depth * stiffness**2  # eV/Å²
    thz = np.sqrt(units._e / units._amu) * 1e10 / (2 * np.pi) / 1e12
    np.testing.assert_allclose(frequencies[0], 0, atol=1e-4)
    np.testing.assert_allclose(
        frequencies[1], thz * np.sqrt(spring * np.array([4, 4, 8]) / 55.845), rtol=5e-3
    )
