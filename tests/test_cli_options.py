"""Options that a property cannot take are refused with a reason, before anything is written."""

import ase.io
import pytest
from cli_tools import bcc, mmace_sim


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("elastic", ("--strains", "0.01,x"), "--strains"),
        ("elastic", ("--strains", "0.5"), "expected strains between 0 and 0.1"),
        ("elastic", ("--magmoms", "joint"), "choose relaxed, fixed or both"),
        ("elastic", ("--symprec", "0"), "greater than 0"),
        ("elastic", ("--device", "tpu"), "device 'tpu' cannot be used"),
        ("eos", ("--states", "fm,afx"), "unknown magnetic state 'afx'"),
        ("eos", ("--magmoms", "joint"), "choose relaxed or fixed"),
        ("eos", ("--n-volumes", "1"), "greater than or equal to 2"),
        ("eos", ("--volume-min", "1.2"), "ascending order"),
        ("eos", ("--spin-orbit",), "no spin–orbit term"),
        ("md", ("--ensemble", "nve", "--damping", "0.1"), "damping"),
        ("md", ("--spins", "ising"), "frozen"),
        ("md", ("--ensemble", "nve", "--friction", "10"), "--friction: has no effect with --ensemble nve"),
        ("md", ("--pressure", "0"), "npt"),
        ("md", ("--damping", "0.1"), "--spins llg"),
        ("md", ("--spins", "adiabatic", "--g-factor", "2.1", "--solver", "sib"), "--solver: has no effect"),
        ("md", ("--spins", "llg", "--magforce-tol", "1e-4"), "adiabatic"),
        ("md", ("--spins", "llg", "--length-friction", "0.1"), "--lengths langevin"),
        ("md", ("--field", "0,0,10"), "moments that move"),
        ("md", ("--g-factor", "Fe:many"), "g-factor"),
        ("md", ("--supercell", "0"), "supercell"),
        ("moments", ("--field", "1,2"), "field"),
        ("moments", ("--field", "up"), "field"),
        ("moments", ("--solver", "newton"), "solver"),
        ("moments", ("--collinear", "--fix-magnitude"), "can still change"),
        ("moments", ("--starts", "0"), "starts"),
        ("order", ("--max-supercell", "0"), "greater than or equal to 1"),
        ("order", ("--magmoms", "relaxed"), "choose joint, adiabatic or fixed"),
        ("order", ("--random", "-1"), "greater than or equal to 0"),
        ("order", ("--tilt", "90"), "less than 90"),
        ("order", ("--spin-orbit",), "no spin–orbit term"),
        ("phonons", ("--magmoms", "joint"), "choose relaxed or fixed"),
        ("phonons", ("--supercell", "2 2"), "3 integers"),
        ("phonons", ("--supercell", "2 2 x"), "--supercell"),
        ("phonons", ("--supercell", "-1"), "not positive"),
        ("phonons", ("--displacement", "0"), "greater than 0"),
        ("phonons", ("--min-length", "-3"), "greater than 0"),
        ("phonons", ("--write", "pdf"), "force_constants"),
    ],
)
def test_bad_options_are_explained(model, tmp_path, command, arguments, message):
    ase.io.write(tmp_path / "iron.extxyz", bcc())
    result = mmace_sim(command, tmp_path / "iron.extxyz", "-m", model, "-o", tmp_path / "run", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "wrong", "meant", "in_help"),
    [
        ("elastic", "strain: 0.01", "strains", "Born"),
        ("eos", "state: fm", "states", "Birch–Murnaghan"),
        ("order", "max_supercel: 4", "max_supercell", "--max-supercell"),
    ],
)
def test_bad_configuration_and_help(tmp_path, command, wrong, meant, in_help):
    (tmp_path / "c.yaml").write_text(wrong + "\n")
    result = mmace_sim(command, tmp_path, "-c", tmp_path / "c.yaml")
    assert result.exit_code == 2
    assert f"Did you mean '{meant}'?" in result.output
    assert mmace_sim(command).exit_code == 2
    assert mmace_sim(command, tmp_path / "none.cif", "-o", tmp_path / "o").exit_code == 2
    assert in_help in mmace_sim(command, "--help").output
