"""Real DFT where it is installed: labels against differences of energies. Skipped, visibly, where it is not.

`make dft` installs both codes; MMACE_SIM_GPAW_PYTHON names an interpreter of another environment with GPAW.
"""

import os
import shutil
import sys

import numpy as np
import pytest
from ase import Atoms

from mmace_sim.data.label import LabelSettings, label
from mmace_sim.data.label.engines.gpaw import PYTHON_VARIABLE, gpaw_versions
from mmace_sim.data.label.engines.paw_sets import find_sets
from mmace_sim.errors import ConfigError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.io.frames import read_frames

CHEAP = {"k_length": 6.0, "timeout": 1200.0}
"""Two k points along each axis: far from converged, and as consistent as any."""


def iron_cobalt(magmoms, shift=0.0, **info):
    """Rattled, without any symmetry."""
    atoms = Atoms("FeCo", cell=[[2.84, 0, 0], [0, 2.90, 0.1], [0, 0, 2.80]], pbc=True)
    atoms.positions[1] = [1.50 + shift, 1.38, 1.42]
    set_magmoms(atoms, magmoms)
    atoms.info |= info
    return atoms


def work(first, second):
    """Energy that the labels of two frames say lies between them, and the energy that does; in eV."""
    told = 0.0
    pairs = ((first.positions, second.positions, "REF_forces"),)
    pairs += ((first.arrays["REF_magmom"], second.arrays["REF_magmom"], "REF_magforces"),)
    for start, end, key in pairs:
        told -= (0.5 * (first.arrays[key] + second.arrays[key]) * (end - start)).sum()
    return told, second.info["REF_energy"] - first.info["REF_energy"]


@pytest.fixture(scope="module")
def gpaw_python():
    python = os.environ.get(PYTHON_VARIABLE) or sys.executable
    try:
        gpaw_versions(python)
    except ConfigError as error:
        pytest.skip(f"GPAW is not installed: {error}")
    return python


@pytest.mark.slow
@pytest.mark.dft
def test_gpaw_labels_are_the_derivatives_of_its_energies(gpaw_python, tmp_path):
    axis = np.array([0.6, 0.0, 0.8])
    images = [
        iron_cobalt(np.outer([2.5, 1.2], axis), config_id="start"),
        iron_cobalt(np.outer([2.5, 1.2], axis), shift=0.02, config_id="moved"),
        iron_cobalt(np.outer([2.2, 1.5], axis), config_id="other_lengths"),
        iron_cobalt([2.5, 1.2], config_id="one_free"),
    ]
    images[3].set_array("hold_moment", np.array([True, False]))
    settings = LabelSettings(output=str(tmp_path / "out"), gpaw_python=gpaw_python, cutoff=300.0, **CHEAP)
    outcome = label(settings, images)
    assert not outcome.failures
    start, moved, other, free = outcome.frames
    told, energy = work(start, moved)
    assert abs(energy) > 1e-2
    assert told == pytest.approx(
        energy, rel=1e-2
    )  # the trapezoidal rule is off by 0.4 %, and by 2 % at 0.04 Å
    told, energy = work(start, other)
    assert abs(energy) > 1e-2
    assert told == pytest.approx(energy, rel=2e-2)
    assert free.arrays["REF_magforces"][1].tolist() == [0, 0, 0]
    assert abs(free.arrays["REF_magforces"][0, 2]) > 0.02
    np.testing.assert_allclose(np.cross(start.arrays["REF_magmom"], axis), 0.0, atol=1e-9)
    np.testing.assert_allclose(np.cross(start.arrays["REF_magforces"], axis), 0.0, atol=1e-9)
    assert start.info["engine"].startswith("GPAW")
    assert start.info["kpts"] == "2x2x2 gamma"
    assert len(read_frames([tmp_path / "out" / "labelled.extxyz"]).frames) == 4
    kept = {path.name for path in (tmp_path / "out" / "calculations" / "start").iterdir()}
    assert kept == {"job.json", "result.json", "gpaw.txt", "run.log"}


@pytest.fixture(scope="module")
def paw_sets():
    if shutil.which("abinit") is None:
        pytest.skip("ABINIT is not installed: no program abinit")
    settings = LabelSettings(gpaw_python=os.environ.get(PYTHON_VARIABLE))
    try:
        return find_sets(settings)
    except ConfigError as error:
        pytest.skip(f"ABINIT has no PAW sets here: {error}")


@pytest.mark.slow
@pytest.mark.dft
def test_abinit_labels_are_the_derivatives_of_its_energies(paw_sets, tmp_path):
    axis = np.array([0.6, 0.0, -0.8])
    images = [
        iron_cobalt(np.outer([2.5, 1.2], axis), config_id="start"),
        iron_cobalt(np.outer([2.5, 1.2], axis), shift=0.02, config_id="moved"),
        iron_cobalt(np.outer([2.42, 1.28], axis), config_id="other_lengths"),
        iron_cobalt([2.5, 1.2], config_id="one_free"),
    ]
    images[3].set_array("hold_moment", np.array([True, False]))
    settings = LabelSettings(
        engine="abinit", output=str(tmp_path / "out"), potentials=str(paw_sets), cutoff=270.0, **CHEAP
    )
    outcome = label(settings, images)
    assert not outcome.failures
    start, moved, other, free = outcome.frames
    told, energy = work(start, moved)
    assert abs(energy) > 1e-2
    assert told == pytest.approx(energy, rel=1e-2)
    told, energy = work(start, other)
    assert abs(energy) > 1e-2
    assert told == pytest.approx(
        energy, rel=2e-2
    )  # the trapezoidal rule is off by 8 % at 0.3 μB, by 2 % at 0.15 μB
    for frame, image in zip(outcome.frames[:3], images, strict=False):
        np.testing.assert_allclose(frame.arrays["REF_magmom"], image.arrays["initial_magmoms"], atol=5e-3)
    assert free.arrays["REF_magforces"][1].tolist() == [0, 0, 0]
    assert free.info["REF_energy"] < start.info["REF_energy"]
    assert start.info["engine"].startswith("ABINIT")
    assert start.info["kpts"] == "2x2x2 gamma"
    kept = {path.name for path in (tmp_path / "out" / "calculations" / "start").iterdir()}
    assert kept == {"run.abi", "run.abo", "run.log"}
