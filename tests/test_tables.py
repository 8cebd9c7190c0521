"""Tables stay readable whatever a model says."""

import math

import pytest
from ase.build import bulk
from cli_tools import mmace_sim, relax_computation, write_tiny_model
from rich.console import Console

from mmace_sim.cli.tables import rows_table
from mmace_sim.engine.declaration import fixed


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (-3386.1234, "-3386.1234"),
        (1.5e170, "1.50e+170"),
        (-2.5e9, "-2.50e+09"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (0, "0.0000"),
    ],
)
def test_a_number_fits_into_a_column(value, text):
    assert fixed(value, "{:.4f}") == text


def test_a_row_of_nonsense_is_no_wider_than_others():
    entry = {
        "name": "a.cif",
        "energy_per_atom": -1e170,
        "energy_change_per_atom": math.inf,
        "magmom_by_species": {"Fe": 1e200},
        "total_magmom": [1e300, math.nan, 0.0],
        "volume_change": 1e99,
        "status": "non_finite",
    }
    console = Console(width=120)
    with console.capture() as captured:
        console.print(rows_table([entry], relax_computation()))
    assert "-1.00e+170" in captured.get()
    assert max(map(len, captured.get().splitlines())) <= 120


def test_notes_that_differ_in_what_stands_in_parentheses_are_one(tmp_path):
    for name, symbol in (("a", "Fe"), ("b", "Fe"), ("c", "Al")):
        atoms = bulk("Fe", cubic=True)
        atoms.symbols[1] = symbol
        atoms.set_initial_magnetic_moments(None)
        atoms.write(tmp_path / f"{name}.cif")
    model = write_tiny_model(tmp_path / "m.safetensors")
    paths = [tmp_path / f"{name}.cif" for name in "abc"]
    result = mmace_sim("relax", *paths, "-m", model, "-o", tmp_path / "out", "--max-steps", 1)
    said = [line for line in result.output.splitlines() if line.startswith("Note: no moments in the file")]
    assert said == [
        "Note: no moments in the file, moments initialised ferromagnetic along z (Fe 2.5 μB, Al 0 μB) (3 structures)"
    ]


def test_notes_that_say_more_than_moments_of_elements_stay_apart(tmp_path):
    for name in ("Fe4", "Mn4"):
        atoms = bulk(name[:2], "fcc", a=3.6, cubic=True)
        atoms.set_initial_magnetic_moments(None)
        atoms.write(tmp_path / f"{name}.cif")
    model = write_tiny_model(tmp_path / "m.safetensors", elements=(25, 26))
    paths = [tmp_path / "Fe4.cif", tmp_path / "Mn4.cif"]
    options = ("--initial-magmoms", "afm", "--max-steps", 1)
    result = mmace_sim("relax", *paths, "-m", model, "-o", tmp_path / "out", *options)
    said = [line for line in result.output.splitlines() if line.startswith("Note: ")]
    assert len([line for line in said if "2 up, 2 down" in line and "total 0 μB" in line]) == 2
