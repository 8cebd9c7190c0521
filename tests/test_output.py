import json

import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from cli_tools import bcc, csv_rows, molecule, print_relaxations

from mmace_sim.base.settings import dump_settings as dump_config
from mmace_sim.base.settings import load_settings as load_config
from mmace_sim.engine.folder import finished_records, log_to
from mmace_sim.engine.journal import (
    Journal,
    atoms_from_record,
    atoms_to_record,
    fingerprint,
    read_journal,
)
from mmace_sim.engine.outcomes import Status, StructureResult
from mmace_sim.engine.output import write_summary
from mmace_sim.errors import ConfigError, OutputError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.io.collection import FailedStructure, LoadedStructure, read_structures
from mmace_sim.io.writing import write_structures
from mmace_sim.properties.relax.declaration import RELAX
from mmace_sim.properties.relax.output import failed_entry, output_atoms, summary_entry


def finished(before=None, after=None, status="converged"):
    """A structure and its result as `mmace_sim.relax` returns it."""
    before = bcc([2.2, -2.2]) if before is None else before
    after = bcc([[0.1, 0, 2.0], [0, 0.3, 2.0]], a=2.9) if after is None else after
    n = len(after)
    magmoms = get_magmoms(after)
    after.calc = SinglePointCalculator(
        after,
        energy=-3.0,
        free_energy=-3.0,
        forces=np.full((n, 3), 1 / 3),
        stress=np.arange(6) * 1e-4,
        magmoms=magmoms,
    )
    result = StructureResult(
        after, before, Status(status), magforces=np.full((n, 3), 1e-3 / 7), steps=12, energy=-3.0,
        energy_initial=-2.0, max_force=1 / 3, max_stress=0.05, max_magforce=2e-3,
    )  # fmt: skip
    return LoadedStructure("in/fe.extxyz", 0, "fe.extxyz", before, ["a note"]), result


def test_entry_of_a_relaxed_structure():
    entry = summary_entry(*finished())
    assert entry["file"] == "in/fe.extxyz"
    assert entry["formula"] == "Fe2"
    assert entry["energy_per_atom"] == -1.5
    assert entry["energy_change_per_atom"] == -0.5
    assert entry["magnetic_order_initial"] == "AFM"
    assert entry["magnetic_order_final"] == "non-collinear"
    assert entry["magmom_by_species"] == {"Fe": pytest.approx((np.hypot(0.1, 2) + np.hypot(0.3, 2)) / 2)}
    assert entry["total_magmom"] == pytest.approx([0.1, 0.3, 4.0])
    assert entry["volume"] == pytest.approx(2.9**3)
    assert entry["volume_change"] == pytest.approx((2.9 / 2.87) ** 3 - 1)
    assert entry["space_group"] == "Im-3m (229)"
    assert entry["notes"] == ["a note"]
    json.dumps(entry, allow_nan=False)


def test_entry_of_a_molecule_has_no_volume():
    entry = summary_entry(*finished(molecule(), molecule()))
    assert entry["volume"] is None
    assert entry["space_group"] is None
    assert entry["magnetic_order_final"] == "FM"


def test_entry_of_a_diverged_structure_has_no_numbers():
    structure, result = finished(status="non_finite")
    result.energy = result.max_force = float("nan")
    result.atoms.positions[0] = np.nan
    result.atoms.arrays["initial_magmoms"][0] = np.inf
    entry = summary_entry(structure, result)
    assert entry["energy"] is None
    assert entry["magmoms"] is None
    json.dumps(entry, allow_nan=False)


def test_failed_entries_have_the_same_keys():
    good = set(summary_entry(*finished()))
    assert set(failed_entry(FailedStructure("x.cif", "broken", name="x.cif"))) == good
    entry = failed_entry(finished()[0], "no neighbours")
    assert set(entry) == good
    assert (entry["formula"], entry["message"]) == ("Fe2", "no neighbours")


def test_summary_files(tmp_path):
    entries = [
        summary_entry(*finished()),
        failed_entry(FailedStructure("x.cif", "broken, really", name="x.cif")),
    ]
    write_summary(tmp_path, {"structures": entries}, RELAX.csv_columns)
    assert json.loads((tmp_path / "summary.json").read_text())["structures"] == entries
    rows = csv_rows(tmp_path / "summary.csv")
    assert rows[0]["status"] == "converged"
    assert float(rows[0]["energy_per_atom"]) == -1.5
    assert rows[0]["magmom_by_species"].startswith("Fe:2.0")
    vector = [float(word) for word in rows[0]["total_magmom"].split()]
    assert vector == pytest.approx(entries[0]["total_magmom"], abs=1e-6)
    assert rows[1]["message"] == "broken, really"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["summary.csv", "summary.json"]


def test_relaxed_structures_are_read_back_with_their_moments(tmp_path):
    structure, result = finished()
    atoms = output_atoms(structure, result)
    notes = write_structures(
        tmp_path, [atoms, output_atoms(*finished(molecule(), molecule()))], ["mcif", "cif", "poscar"]
    )
    assert len(notes) == 3
    assert notes[0] == ("fe.extxyz", "a molecule: not written as mcif, which describes crystals")
    again = read_structures(tmp_path / "relaxed.extxyz")
    assert len(again) == 2
    np.testing.assert_allclose(get_magmoms(again[0].atoms), get_magmoms(atoms), atol=1e-8)
    raw = ase.io.read(tmp_path / "relaxed.extxyz", 0)
    assert raw.get_potential_energy() == -3.0
    np.testing.assert_allclose(raw.arrays["magforces"], 1e-3 / 7, atol=1e-8)
    assert raw.info["status"] == "converged"
    assert sorted(p.name for p in (tmp_path / "structures").iterdir()) == [
        "fe.extxyz.cif",
        "fe.extxyz.mcif",
        "fe.extxyz.vasp",
    ]
    (mcif,) = read_structures(tmp_path / "structures" / "fe.extxyz.mcif")
    np.testing.assert_allclose(get_magmoms(mcif.atoms), get_magmoms(atoms), atol=1e-7)
    np.testing.assert_allclose(mcif.atoms.cell.array, atoms.cell.array, atol=1e-7)


def test_journal_keeps_every_digit_and_constraints():
    structure, result = finished()
    result.atoms.set_constraint(FixAtoms([0]))
    result.atoms.info["object"] = object()  # cannot be stored and must not stop the run
    atoms = output_atoms(structure, result)
    again = atoms_from_record(json.loads(json.dumps(atoms_to_record(atoms))))
    np.testing.assert_array_equal(again.positions, atoms.positions)
    np.testing.assert_array_equal(get_magmoms(again), get_magmoms(atoms))
    np.testing.assert_array_equal(again.calc.results["forces"], atoms.calc.results["forces"])
    assert again.constraints[0].index.tolist() == [0]
    assert fingerprint(again) == fingerprint(atoms)


def test_a_half_written_line_is_tolerated_and_cut_off(tmp_path):
    path = tmp_path / "finished.jsonl"
    with Journal(path) as journal:
        journal.append({"config": {}})
        journal.append({"key": "a"})
    for rest in (b'{"key": "b', b'{"key": "b"', b'{"key": "b\n'):
        whole = path.read_bytes()
        with path.open("ab") as file:
            file.write(rest)
        assert [record.get("key") for record in read_journal(path)] == [None, "a"]
        with Journal(path):
            assert path.read_bytes() == whole
    with Journal(path) as journal:
        journal.append({"key": "c"})
    assert [record.get("key") for record in read_journal(path)] == [None, "a", "c"]


def test_a_damaged_line_in_the_middle_is_reported(tmp_path):
    path = tmp_path / "finished.jsonl"
    with Journal(path) as journal:
        for record in ({"config": {}}, {"key": "b"}, {"key": "c"}):
            journal.append(record)
    path.write_text(path.read_text().replace('"b"', '"b'))
    with pytest.raises(OutputError, match="line 2 is damaged"):
        read_journal(path)


def test_two_processes_cannot_write_one_folder(tmp_path):
    with Journal(tmp_path / "finished.jsonl"), pytest.raises(OutputError, match="another process"):
        Journal(tmp_path / "finished.jsonl")


def test_resume_refuses_another_run(tmp_path):
    with Journal(tmp_path / "finished.jsonl") as journal:
        journal.append({"config": {"fmax": 0.01}, "inputs": {"a#0": "1" * 64}})
        journal.append({"key": "a#0", "entry": {}})
    same = {"config": {"fmax": 0.01}, "inputs": {"a#0": "1" * 64}}
    assert list(finished_records(tmp_path, same)) == ["a#0"]
    with pytest.raises(OutputError, match=r"config differs: fmax was 0.01, now 0.02"):
        finished_records(tmp_path, same | {"config": {"fmax": 0.02}})
    with pytest.raises(OutputError, match=r"inputs differs: a#0 has changed"):
        finished_records(tmp_path, same | {"inputs": {"a#0": "2" * 64}})
    with pytest.raises(OutputError, match=r"b#0 is new"):
        finished_records(tmp_path, same | {"inputs": same["inputs"] | {"b#0": ""}})


def test_log_has_iso_times_and_warnings(tmp_path):
    import logging
    import warnings

    with log_to(tmp_path / "log.txt"):
        logging.getLogger("mmace_sim.test").info("hello")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("careful", UserWarning, stacklevel=1)
    first, second = (tmp_path / "log.txt").read_text().splitlines()[:2]
    assert first.endswith("INFO hello")
    assert first[10] == "T"
    assert first[19] in "+-"
    assert "careful" in second


def test_config_round_trip_and_suggestions(tmp_path):
    config = RELAX.settings(paths=["a b", "c"], write=["mcif"], initial_magmoms="random:3", fmax=0.02)
    (tmp_path / "c.yaml").write_text(dump_config(config))
    assert load_config(RELAX.settings, tmp_path / "c.yaml", {}) == config
    assert load_config(RELAX.settings, tmp_path / "c.yaml", {"fmax": 0.5}).force_tol == 0.5
    (tmp_path / "d.yaml").write_text("max-step: 3\n")
    with pytest.raises(ConfigError, match=r"d.yaml: unknown option 'max-step'. Did you mean 'max_steps'"):
        load_config(RELAX.settings, tmp_path / "d.yaml", {})
    (tmp_path / "d.yaml").write_text("fmax: small\n")
    with pytest.raises(ConfigError, match=r"d.yaml: fmax: .*'small'"):
        load_config(RELAX.settings, tmp_path / "d.yaml", {})
    for text, message in (("- 1", "got a list"), ("a: [", "valid YAML")):
        (tmp_path / "d.yaml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_config(RELAX.settings, tmp_path / "d.yaml", {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(RELAX.settings, tmp_path / "none.yaml", {})


def test_start_given_as_magmoms():
    for start in ("file", "high-spin", "afm", "random:4"):
        config = load_config(RELAX.settings, None, {"magmoms": start})
        assert (config.magmoms, config.initial_magmoms) == ("joint", start)
    with pytest.raises(ConfigError, match="contradict"):
        load_config(RELAX.settings, None, {"magmoms": "afm", "initial_magmoms": "high-spin"})
    with pytest.raises(ConfigError, match="joint, adiabatic or fixed"):
        load_config(RELAX.settings, None, {"magmoms": "afx"})


def test_long_tables_and_repeated_messages_are_short(tmp_path, capsys):
    entries = [summary_entry(*finished()) | {"message": "careful"} for _ in range(120)]
    print_relaxations(entries, tmp_path, n_resumed=20)
    text = capsys.readouterr().out
    assert "20 more, see" in text
    assert text.count("careful") == 1
    assert "fe.extxyz and 115 more: careful" in text
    assert "120 structures: 120 converged (20 from the earlier run)." in text
    assert "AFM\u00a0→ non-collinear" in text
