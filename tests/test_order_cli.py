"""``mmace-sim order`` from files to files."""

import ase.io
import numpy as np
import pytest
import yaml
from cli_tools import RUN_FILES, bcc, csv_rows, mmace_sim, molecule, names_in, summary_of

from mmace_sim.io.collection import read_structures
from mmace_sim.properties.order import RelaxedOrder
from mmace_sim.properties.order.output import rank
from mmace_sim.properties.order.starts import OrderStart
from mmace_sim.properties.relax.relaxation import Status

FILES = RUN_FILES | {"relaxed.extxyz", "structures", "figures"}


def test_iron_from_file_to_winner(tmp_path):
    ase.io.write(tmp_path / "iron.extxyz", bcc(a=2.83))
    out = tmp_path / "run"
    result = mmace_sim("order", tmp_path / "iron.extxyz", "--random", "1", "-o", out)
    assert result.exit_code == 0, result.output
    assert names_in(out) == FILES
    assert {path.name for path in (out / "figures").iterdir()} == {"iron.png", "iron.svg"}
    assert {path.name for path in (out / "structures").iterdir()} == {"iron.mcif"}
    (entry,) = summary_of(out)["structures"]
    assert (entry["status"], entry["best"]) == ("converged", "FM")
    assert entry["n_states"] == 4
    by_start = {order["start"]: order for order in entry["orders"]}
    assert next(iter(by_start)) == "FM"
    assert by_start["FM"]["energy_above_best"] == 0
    assert by_start["FM"]["magnetic_space_group"] == "139.537"
    assert by_start["random-1"]["outcome"] == "became FM"
    assert by_start["AFM-1"]["propagation"] == "0 0 1"
    # 0.417 and 0.447 eV by the DFT of the default model
    assert by_start["AFM-1"]["energy_above_best"] == pytest.approx(0.417, abs=0.04)
    assert by_start["NM"]["energy_above_best"] == pytest.approx(0.447, abs=0.06)
    rows = csv_rows(out / "summary.csv")
    assert [row["start"] for row in rows] == list(by_start)
    images = ase.io.read(out / "relaxed.extxyz", ":")
    np.testing.assert_allclose(
        [atoms.get_potential_energy() / len(atoms) for atoms in images],
        [order["energy_per_atom"] for order in entry["orders"]],
        atol=1e-8,
    )
    assert images[0].info["start"] == "FM"
    (winner,) = (item.atoms for item in read_structures(out / "structures" / "iron.mcif"))
    np.testing.assert_allclose(np.linalg.norm(winner.arrays["initial_magmoms"], axis=1), 2.2, atol=0.1)
    assert yaml.safe_load((out / "config.yaml").read_text())["random"] == 1
    assert "structure 0, FM: converged" in (out / "log.txt").read_text()
    assert "1 structure: 1 converged." in result.output
    assert "structures/, figures/" in result.output
    again = mmace_sim("order", tmp_path / "iron.extxyz", "-o", out)
    assert again.exit_code == 2
    assert "overwrite it (--force)" in again.output
    again = mmace_sim("order", "-c", out / "config.yaml", "--force", "--no-figures", "--random", "0", "-q")
    assert (again.exit_code, again.output) == (0, "")
    assert names_in(out) == FILES
    assert list((out / "figures").iterdir()) == []


def test_bad_structures_are_named_and_do_not_stop_others(model, tmp_path):
    ase.io.write(tmp_path / "a.extxyz", [bcc(), molecule()])
    (tmp_path / "b.cif").write_text("nonsense")
    gold = bcc()
    gold.numbers[:] = 79
    ase.io.write(tmp_path / "c.extxyz", gold)
    out = tmp_path / "run"
    arguments = ("--max-steps", "1", "--no-figures", "--max-supercell", "1", "--max-orders", "1")
    result = mmace_sim("order", tmp_path, "-m", model, "-o", out, *arguments)
    assert result.exit_code == 3, result.output
    entries = summary_of(out)["structures"]
    assert [entry["name"] for entry in entries] == ["a.extxyz#0", "a.extxyz#1", "b.cif", "c.extxyz"]
    assert [order["start"] for order in entries[0]["orders"]] in (["FM", "NM"], ["NM", "FM"])
    assert "did not converge: FM max_steps" in entries[0]["message"]
    assert entries[1]["notes"][-1] == "2 collinear orders, the simplest 1 are taken (--max-orders)"
    assert "b.cif: cannot be read" in entries[2]["message"]
    assert "Au" in entries[3]["message"]
    assert "b.cif: cannot be read" in result.output
    assert list((out / "structures").glob("a*1.mcif")) == []  # a molecule has no CIF
    names = [row["name"] for row in csv_rows(out / "summary.csv")]
    assert names == ["a.extxyz#0"] * 2 + ["a.extxyz#1"] * 2 + ["b.cif", "c.extxyz"]


def test_states_that_did_not_converge_never_rank_first():
    """However low the energy of a structure that runs away is."""
    orders = [
        RelaxedOrder(OrderStart(name, bcc()), status, "", bcc(), energy, state=state or None)
        for name, state, status, energy in (
            ("runaway", "", Status.MAX_STEPS, -5e4),
            ("afm", "afm", Status.CONVERGED, -8.1),
            ("fm", "fm", Status.CONVERGED, -8.2),
            ("same", "fm", Status.CONVERGED, -8.2),
            ("nothing", "", Status.FAILED, np.nan),
        )
    ]
    assert [order.name for order in sorted(orders, key=rank)] == ["fm", "same", "afm", "runaway", "nothing"]
