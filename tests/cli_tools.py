"""What the tests of the command line share: a tiny model with random weights, and small structures."""

import contextlib
import csv
import functools
import json
import os
import warnings

import numpy as np
import pytest
import torch
import typer.testing
from ase import Atoms
from ase.build import bulk
from typer.testing import CliRunner

from mmace_sim.cli.app import app
from mmace_sim.cli.tables import print_outcome
from mmace_sim.engine.results import Outcome
from mmace_sim.files.manifest import FILE_NAME as LIST_NAME
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.model.checkpoint import save_model
from mmace_sim.model.config import ModelConfig
from mmace_sim.model.magnetic_mace import MagneticMACE
from mmace_sim.properties.relax import RELAX

# of the options of all commands, which typer would build anew for each run of one
typer.testing._get_command = functools.cache(typer.testing._get_command)

RUN_FILES = {"summary.json", "summary.csv", "config.yaml", "log.txt", "finished.jsonl"}
"""What every run of a property leaves behind."""

METADATA = {
    "name": "tiny",
    "errors": {"energy": {"mae": 2.5, "unit": "meV/atom"}},
    "licence": "MIT",
    "citation": "nobody",
}


def write_tiny_model(path, *, spin_orbit=False, seed=0, elements=(13, 26)):
    torch.manual_seed(seed)
    config = ModelConfig(
        atomic_numbers=list(elements),
        r_max=3.5,
        hidden_irreps="4x0e",
        MLP_irreps="4x0e",
        radial_mlp=[8],
        max_ell=2,
        num_interactions=1,
        correlation=2,
        spin_channels=2,
        spin_max_ell=1,
        max_moment={z: 3.0 for z in elements if z in (26, 28)},
        spin_orbit=spin_orbit,
    )
    return save_model(MagneticMACE(config), path, METADATA)


def bcc(magmoms=(2.2, 2.2), a=2.87, displacement=0.0):
    atoms = bulk("Fe", cubic=True, a=a)
    atoms.arrays.pop("initial_magmoms", None)
    atoms.positions[1] += displacement
    if magmoms is not None:
        set_magmoms(atoms, np.asarray(magmoms, dtype=float))
    return atoms


def molecule():
    atoms = Atoms("Fe2", [[0, 0, 0], [0, 0, 2.1]])
    set_magmoms(atoms, [2.0, 2.0])
    return atoms


def mmace_sim(*arguments):
    """Run the command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def in_a_copy(function, *arguments):
    """A copy of this process, which applies a function and ends, without importing everything anew.

    Args:
        function: What it does; a number that it returns is the exit code.
        *arguments: Of the function.

    Returns:
        Its id, for `os.waitpid`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that the copy lacks
        child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(BaseException):
            code = function(*arguments) or 0
        os._exit(code)
    return child


def exit_code_of(child):
    """How a copy of this process ended; minus the number of a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text())


def csv_rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_same(one, other, where=""):
    """Equal up to rounding: sums of a batch depend on what else is in it."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in set(one) - {"evaluations_per_step"}:  # what a batch cost
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b, where)
    elif isinstance(one, float) and isinstance(other, float):
        assert one == pytest.approx(other, rel=1e-8, abs=1e-8), where
    else:
        assert one == other, where


def names_in(folder):
    """Names in a folder of a run, apart from the list of files that every run keeps."""
    assert (folder / LIST_NAME).is_file()
    return {path.name for path in folder.iterdir()} - {LIST_NAME}


def relax_computation():
    return RELAX.load()(RELAX, RELAX.settings())


def print_relaxations(entries, folder, n_resumed=0):
    """Print the table that a relaxation with these entries ends with."""
    outcome = Outcome(0, {"structures": entries}, entries, ["relaxed.extxyz"], folder, n_resumed)
    print_outcome(outcome, relax_computation())
