"""What ``--dry-run`` estimates: batches as large as those of the run."""

import re

import pytest
from ase.build import bulk
from ase.io import write
from cli_tools import mmace_sim, write_tiny_model

from mmace_sim.engine import plan
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.torchsim.model import MagneticMaceModel

COMMANDS = {
    "relax": ((), 100, 1),
    "eos": (("--n-volumes", 7, "--magmoms", "relaxed"), 7 * 20, 7),
    "moments": (("--starts", 5), 5 * 30, 5),
    "curie": (
        (
            "--method",
            "direct",
            "--sizes",
            2,
            "--temperatures",
            "100,200",
            "--sweeps",
            30,
            "--equilibration",
            10,
        ),
        2 * 8 * 40 * 10 * 0.15,
        16,
    ),
}
"""Options, energies, and copies of the structure in one batch."""


@pytest.mark.parametrize("command", COMMANDS)
def test_the_batch_that_is_timed_is_that_of_the_run(command, tmp_path, monkeypatch):
    options, n_energies, n_copies = COMMANDS[command]
    atoms = bulk("Fe", "bcc", a=2.87, cubic=True)
    set_magmoms(atoms, [[0, 0, 2.0]] * 2)
    write(tmp_path / "fe.extxyz", atoms)
    sizes = []

    class Counting(MagneticMaceModel):
        def forward(self, state, **options):
            sizes.append(state.n_systems)
            return super().forward(state, **options)

    monkeypatch.setattr(plan, "MagneticMaceModel", Counting)
    model = write_tiny_model(tmp_path / "tiny.safetensors")
    result = mmace_sim(
        command, tmp_path / "fe.extxyz", "-m", model, "-o", tmp_path / "out", "--dry-run", *options
    )
    assert result.exit_code == 0, result.output
    assert int(re.search(r"about (\d+) energies", result.output)[1]) == round(n_energies)
    assert sizes == [n_copies] * 2
    assert not (tmp_path / "out").exists()
