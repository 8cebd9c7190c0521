"""``mmace-sim check`` end to end: files, table, exit codes, and what users get wrong."""

import json
import os

import numpy as np
import pytest
import yaml
from ase.io import write
from cli_tools import bcc, mmace_sim, molecule, summary_of, write_tiny_model

from mmace_sim.files.manifest import FILE_NAME as LIST_NAME

POTENTIALS = """
from ase.calculators.emt import EMT
from mmace_sim import MMACECalculator

def good():
    return MMACECalculator("tiny.safetensors")

class Odd(MMACECalculator):
    '''An energy that is odd in the moments.'''
    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.results["energy"] += 1e-3 * self.results["magmoms"][:, 2].sum()

def odd():
    return Odd("tiny.safetensors")

def raises():
    raise FileNotFoundError("weights.pt is not there")

def returns_none():
    return None

def needs(argument):
    return EMT()

number = 3
emt = EMT
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A fresh working folder with a model and a module of factories."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "potentials", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "potentials.py").write_text(POTENTIALS)
    write_tiny_model(tmp_path / "tiny.safetensors")
    return tmp_path


def results_of(folder):
    return {result["name"]: result for result in summary_of(folder)["report"]["results"]}


def test_a_model_passes_and_leaves_its_files(here):
    run = mmace_sim("check", "tiny.safetensors", "--plot", "--threads", 1)
    assert run.exit_code == 0, run.output
    assert "time_reversal" in run.output
    assert "18 passed on 6 structures" in run.output
    files = {str(path.relative_to(here / "check")) for path in (here / "check").rglob("*") if path.is_file()}
    curves = ("energy_moment", "energy_angle", "energy_volume", "energy_dimer")
    figures = {f"figures/{name}.{suffix}" for name in curves for suffix in ("png", "svg")}
    assert files == {"summary.json", "config.yaml", "log.txt", "finished.jsonl", LIST_NAME} | figures
    summary = summary_of(here / "check")
    assert summary["report"]["passed"]
    assert summary["report"]["model"] == "tiny"
    assert summary["finished"]
    assert summary["units"]["energy"].startswith("meV/atom")
    assert yaml.safe_load((here / "check" / "config.yaml").read_text())["model"] == "tiny.safetensors"
    assert "time_reversal passed" in (here / "check" / "log.txt").read_text()


def test_a_broken_calculator_fails(here):
    write(here / "fe.extxyz", bcc(np.array([[2.0, 0, 0.5], [0, 1.5, 1.0]]), displacement=0.1))
    arguments = ["--structures", "fe.extxyz", "-o", "odd", "--r-max", 3.5, "--no-spin-orbit"]
    run = mmace_sim("check", "potentials:odd", *arguments)
    assert run.exit_code == 3, run.output
    assert "failed: worst in fe.extxyz" in run.output
    results = results_of(here / "odd")
    assert results["time_reversal"]["status"] == "failed"
    assert results["time_reversal"]["energy"] == pytest.approx(
        1.5, rel=1e-6
    )  # 2 × 1e-3 eV/μB × 1.5 μB / 2 atoms
    assert results["magforces"]["status"] == "failed"
    for name in ("inversion", "permutation", "forces", "stress", "growth_above_max_moment"):
        assert results[name]["status"] == "passed"
    assert results["training_gradient"]["status"] == "skipped"


def test_our_calculator_by_its_factory(here):
    write(here / "fe.extxyz", bcc(np.array([[2.0, 0, 0.5], [0, 1.5, 1.0]]), displacement=0.1))
    arguments = ["--structures", "fe.extxyz", "--r-max", 3.5, "--no-spin-orbit"]
    run = mmace_sim("check", "potentials:good", *arguments)
    assert run.exit_code == 0, run.output
    assert "batch_equals_single skipped: a calculator takes one structure at a time" in run.output
    assert "16 passed, 2 skipped on 1 structure in" in run.output


def test_structures_without_moments_get_random_ones(here):
    write(here / "POSCAR", bcc(None))
    write(here / "dimer.extxyz", molecule())
    options = ["--structures", "POSCAR", "--structures", "dimer.extxyz", "-q", "--dtype", "float32"]
    run = mmace_sim("check", "tiny.safetensors", *options)
    assert run.exit_code == 0, run.output
    assert run.stdout == ""
    report = summary_of(here / "check")["report"]
    assert report["structures"] == {"POSCAR": 2, "dimer.extxyz": 2}
    assert any("POSCAR: no moments in the file" in note for note in report["notes"])
    assert any("single precision" in note for note in report["notes"])


def test_a_folder_in_use_is_kept(here):
    write(here / "fe.extxyz", bcc())
    options = ["tiny.safetensors", "--structures", "fe.extxyz", "-q", "-o", "out"]
    assert mmace_sim("check", *options).exit_code == 0
    before = (here / "out" / "summary.json").read_text()
    run = mmace_sim("check", *options)
    assert run.exit_code == 2
    assert "--force" in run.output
    assert (here / "out" / "summary.json").read_text() == before
    assert mmace_sim("check", *options, "--force").exit_code == 0
    assert json.loads(before)["report"]["elements"] == [26]
    assert any("collinear moments in fe.extxyz" in note for note in json.loads(before)["report"]["notes"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "no model 'nope'"),
        (["potentials:"], "neither a file nor module:factory"),
        (["potentials:nothing"], "module potentials has no 'nothing'"),
        (["potentials:number"], "an object of type int, expected a function"),
        (["potentials:returns_none"], "returned an object of type NoneType"),
        (["potentials:raises"], "raised FileNotFoundError: weights.pt is not there"),
        (["potentials:needs"], "is called without arguments"),
        (["no_such_module:factory"], "cannot be imported"),
        (["potentials:emt"], "--elements Fe,Ni"),
        (["potentials:emt", "--elements", "Fe"], "EMT cannot evaluate Fe2"),
        (["potentials:emt", "--elements", "Xx"], "'Xx' is no element"),
        (["tiny.safetensors", "--elements", "Co"], "Co: not among the elements"),
        (["tiny.safetensors", "--r-max", "3"], "--r-max is for calculators"),
        (["tiny.safetensors", "--tolerance", "0"], "greater than 0"),
        (["tiny.safetensors", "--structures", "nowhere"], "nowhere"),
        (["tiny.safetensors", "--structures", "potentials.py"], "potentials.py: cannot be read"),
        (["tiny.safetensors", "--structures", "empty"], "no structures in empty"),
        (["tiny.safetensors", "--device", "quantum"], "--device cpu"),
    ],
)
def test_mistakes_are_usage_errors_that_leave_nothing_behind(here, arguments, message):
    (here / "empty").mkdir()
    before = set(os.listdir(here))
    run = mmace_sim("check", *arguments)
    assert run.exit_code == 2, run.output
    assert message in run.output
    assert set(os.listdir(here)) - {"__pycache__"} == before


def test_help_names_every_option():
    run = mmace_sim("check", "--help")
    assert run.exit_code == 0
    for option in ("--structures", "--elements", "--tolerance", "--plot", "--r-max", "--max-moment"):
        assert option in run.output
