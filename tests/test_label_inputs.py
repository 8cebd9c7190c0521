"""Inputs for codes that run elsewhere, read by public readers, and outputs read back.

The outputs are written here after what the sources and documentation of the codes say of their formats: VASP's wiki
on I_CONSTRAINED_M, `report_mag` and `add_bfield` of pw.x, `print_Mag_Force` of ABACUS. The readers were also tried on
outputs of the codes themselves: the constrained examples of pw.x's test suite and of dpdata.
"""

import re

import numpy as np
import pytest
from ase import Atoms
from ase.io import read as ase_read
from ase.units import Bohr, Rydberg
from format_files import oszicar
from pymatgen.io.vasp import Incar, Kpoints, Poscar

from mmace_sim.data.label import LabelSettings
from mmace_sim.data.label.calculation import make_calculations
from mmace_sim.data.label.engine import EngineError, MissingOutputError, NotConvergedError, load_engine
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.io.frames import read_frames

CANTED = [[0.0, 0.0, 2.4], [0.0, 0.0, 0.0], [1.2, 0.0, -0.5], [0.0, 1.0, 2.0]]
STRAIGHT = [2.4, 0.0, 1.3, 2.2]


def alloy(magmoms=CANTED, held=(True, False, True, True)):
    """Iron, aluminium, cobalt, iron: not sorted by element."""
    cell = [[2.9, 0, 0], [0, 2.9, 0.2], [0, 0, 5.8]]
    places = [[0, 0, 0], [0.5, 0.5, 0.26], [0, 0, 0.5], [0.5, 0.5, 0.75]]
    atoms = Atoms("FeAlCoFe", scaled_positions=places, cell=cell, pbc=True)
    atoms.info["config_id"] = "alloy"
    if magmoms is not None:
        set_magmoms(atoms, magmoms)
        atoms.set_array("hold_moment", np.array(held))
    return atoms


def written(folder, name, atoms, **more):
    """Engine and calculation, with the inputs in the folder."""
    settings = LabelSettings(engine=name, write_only=True, **more)
    engine = load_engine(settings)
    (calculation,), failures = make_calculations([atoms], settings)
    assert not failures
    assert engine.refuse(calculation) == ""
    engine.write(calculation, folder)
    engine.script(folder)
    assert (folder / "run.sh").read_text().startswith("#!/bin/sh")
    return engine, calculation


def close(found, expected, tol=1e-6):
    np.testing.assert_allclose(found, expected, atol=tol)


# VASP


def test_vasp_inputs_are_read_by_pymatgen(tmp_path):
    atoms = alloy()
    written(tmp_path, "vasp", atoms, stiffness=20.0)
    incar = Incar.from_file(tmp_path / "INCAR")
    structure = Poscar.from_file(tmp_path / "POSCAR", check_for_potcar=False).structure
    order = [0, 3, 1, 2]
    assert [site.specie.symbol for site in structure] == ["Fe", "Fe", "Al", "Co"]
    close(structure.lattice.matrix, atoms.cell.array)
    close(structure.frac_coords, atoms.get_scaled_positions()[order])
    assert incar["LNONCOLLINEAR"] is True
    assert incar["I_CONSTRAINED_M"] == 2
    assert incar["LAMBDA"] == 10.0
    assert incar["SIGMA"] == 0.2721
    assert incar["ISMEAR"] == 0
    close(np.ravel([list(m) for m in incar["MAGMOM"]]), np.array(CANTED)[order].ravel())
    targets = np.array(re.findall(r"M_CONSTR = (.*)", (tmp_path / "INCAR").read_text())[0].split(), float)
    close(targets.reshape(4, 3), np.array(CANTED)[order])
    assert len(np.ravel(incar["RWIGS"])) == 3
    mesh = Kpoints.from_file(tmp_path / "KPOINTS")
    assert tuple(mesh.kpts[0]) == (8, 8, 4)
    assert mesh.style.name == "Gamma"
    assert (tmp_path / "POTCAR.spec").read_text().split() == ["Fe", "Al", "Co"]
    assert not (tmp_path / "POTCAR").exists()
    assert "vasp_ncl" in (tmp_path / "run.sh").read_text()


def test_vasp_without_constraint_is_collinear(tmp_path):
    written(tmp_path, "vasp", alloy(STRAIGHT, held=[False] * 4))
    incar = Incar.from_file(tmp_path / "INCAR")
    assert incar["ISPIN"] == 2
    close(incar["MAGMOM"], [2.4, 2.2, 0.0, 1.3])
    assert "I_CONSTRAINED_M" not in incar
    assert "vasp_std" in (tmp_path / "run.sh").read_text()
    written(tmp_path, "vasp", alloy(None), extra={"ALGO": "All", "EDIFF": 1e-8})
    incar = Incar.from_file(tmp_path / "INCAR")
    assert incar["ISPIN"] == 1
    assert incar["ALGO"] == "All"
    assert incar["EDIFF"] == 1e-8


def outcar(atoms, order, energy, forces, stress_kb, *, ended=True):
    """An OUTCAR with what ASE and our reader want to see of a static calculation."""
    names = list(dict.fromkeys(atoms.get_chemical_symbols()))
    counts = [atoms.get_chemical_symbols().count(name) for name in names]
    cell = "\n".join(
        " " + " ".join(f"{x:12.9f}" for x in vector) + "    0.0 0.0 0.0" for vector in atoms.cell.array
    )
    rows = "\n".join(" " + " ".join(f"{x:12.6f}" for x in (*atoms.positions[k], *forces[k])) for k in order)
    potcar = "\n".join(f" POTCAR:    PAW_PBE {name} 01Jan2000" for name in 2 * names)
    tail = " General timing and accounting informations for this job:\n" if ended else ""
    return (
        f" vasp.6.4.2 20Jul23 (build) complex\n{potcar}\n"
        f"   ions per type = {' '.join(f'{n:5d}' for n in counts)}\n"
        "   ISPIN  =      1    spin polarized calculation?\n   LNONCOLLINEAR =  T non collinear calculations\n"
        "   ISIF   =      2    stress and relaxation\n"
        "--- Iteration      1(   1)  ---\n aborting loop because EDIFF is reached\n"
        "  in kB   " + " ".join(f"{x:12.5f}" for x in stress_kb) + "\n"
        f"      direct lattice vectors                 reciprocal lattice vectors\n{cell}\n"
        f" POSITION                                       TOTAL-FORCE (eV/Angst)\n {'-' * 83}\n{rows}\n {'-' * 83}\n"
        "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)\n  ---------------------------------------------------\n"
        f"  free  energy   TOTEN  = {energy:18.8f} eV\n\n"
        f"  energy  without entropy= {energy:18.8f}  energy(sigma->0) = {energy:18.8f}\n{tail}"
    )


def test_vasp_results_are_taken_apart_and_put_in_order(tmp_path):
    atoms = alloy()
    engine, calculation = written(tmp_path, "vasp", atoms, stiffness=20.0)
    with pytest.raises(MissingOutputError):
        engine.collect(calculation, tmp_path)
    order = [0, 3, 1, 2]
    rng = np.random.default_rng(2)
    forces = rng.normal(0, 0.3, (4, 3)).round(6)
    reached = np.round(np.array(CANTED) + rng.normal(0, 0.02, (4, 3)), 3)
    text = outcar(atoms, order, -30.0, forces, [10.0, 20.0, 30.0, 1.0, 2.0, 3.0])
    (tmp_path / "OUTCAR").write_text(text.replace("General timing", ""))
    with pytest.raises(MissingOutputError, match="not finished"):
        engine.collect(calculation, tmp_path)
    (tmp_path / "OUTCAR").write_text(text)
    held = np.array([True, False, True, True])
    penalty = 10.0 * ((reached - np.array(CANTED))[held] ** 2).sum()
    (tmp_path / "OSZICAR").write_text(oszicar(reached[order], reached[order] * 0, penalty=2 * penalty))
    with pytest.raises(EngineError, match="in another way than its documentation says"):
        engine.collect(calculation, tmp_path)
    (tmp_path / "OSZICAR").write_text(oszicar(reached[order], reached[order] * 0, penalty=penalty))
    labels = engine.collect(calculation, tmp_path)
    assert labels.energy == pytest.approx(-30.0 - penalty, abs=1e-4)
    close(labels.forces, forces)
    close(labels.magmoms, reached, 1e-3)
    close(labels.magforces[held], 20.0 * (labels.magmoms - np.array(CANTED))[held])
    assert not labels.magforces[1].any()
    assert labels.stress[0, 0] == pytest.approx(-10.0 / 1602.1766, rel=1e-4)
    assert labels.stress[0, 1] == pytest.approx(-1.0 / 1602.1766, rel=1e-4)
    (tmp_path / "OUTCAR").write_text(text.replace("aborting loop because EDIFF is reached", ""))
    with pytest.raises(NotConvergedError):
        engine.collect(calculation, tmp_path)


# Quantum ESPRESSO


def test_espresso_inputs_are_read_by_ase(tmp_path):
    atoms = alloy(STRAIGHT, held=[True] * 4)
    (tmp_path / "potentials").mkdir()
    (tmp_path / "potentials" / "fe_pbe_v1.5.uspp.F.UPF").write_text("")
    written(tmp_path, "qe", atoms, potentials=str(tmp_path / "potentials"))
    found = ase_read(tmp_path / "pw.in", format="espresso-in")
    assert found.get_chemical_symbols() == atoms.get_chemical_symbols()
    close(found.positions, atoms.positions)
    close(found.cell.array, atoms.cell.array)
    text = (tmp_path / "pw.in").read_text()
    assert "constrained_magnetization = 'atomic'" in text
    assert float(re.search(r"lambda = (\S+)", text)[1]) == pytest.approx(1.0 / Rydberg)
    assert "ntyp = 4" in text
    assert "starting_magnetization(4) = 2.2" in text
    assert "fe_pbe_v1.5.uspp.F.UPF" in text
    assert "8 8 4 0 0 0" in text
    assert "pw.x -in pw.in > pw.out 2> run.log" in (tmp_path / "run.sh").read_text()


def test_espresso_turns_vectors_into_angles(tmp_path):
    written(tmp_path, "qe", alloy())
    text = (tmp_path / "pw.in").read_text()
    value = {key: float(number) for key, number in re.findall(r"(\S+\(\d\)) = (\S+)", text)}
    for k, moment in enumerate(CANTED, start=1):
        length = value[f"starting_magnetization({k})"]
        theta, phi = np.radians([value[f"angle1({k})"], value[f"angle2({k})"]])
        found = length * np.array([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)])
        close(found, moment, 1e-6)


@pytest.mark.parametrize(
    ("header", "electrons"),
    [
        ('<PP_HEADER element="Fe" z_valence=" 1.600000000000000E+001" mesh_size="1"/>', 16.0),
        ("   16.00000000000               Z valence\n", 16.0),
        ("", 10.0),
    ],
)
def test_espresso_starts_free_moments_from_shares_of_the_electrons(tmp_path, header, electrons, caplog):
    atoms = alloy([2.4, 0.0, 0.3, -0.5], held=[False] * 4)
    (tmp_path / "potentials").mkdir()
    for symbol in ("Fe", "Al", "Co"):
        (tmp_path / "potentials" / f"{symbol}.upf").write_text(f"<UPF>\n{header}\n</UPF>")
    written(tmp_path, "qe", atoms, potentials=str(tmp_path / "potentials"))
    text = (tmp_path / "pw.in").read_text()
    found = [float(x) for x in re.findall(r"starting_magnetization\(\d\) = (\S+)", text)]
    close(found, np.array([2.4, 0.0, 0.3, -0.5]) / electrons)
    assert ("valence electrons of Fe is not known" in caplog.text) == (not header)
    canted = alloy(held=[False] * 4)
    written(tmp_path, "qe", canted, potentials=str(tmp_path / "potentials"))
    found = re.findall(r"starting_magnetization\(\d\) = (\S+)", (tmp_path / "pw.in").read_text())
    close([float(x) for x in found], np.linalg.norm(CANTED, axis=1) / electrons)


def test_espresso_holds_all_or_none():
    engine = load_engine(LabelSettings(engine="qe", write_only=True))
    (calculation,), _ = make_calculations(
        [alloy(STRAIGHT, held=[True, False, False, False])], LabelSettings()
    )
    assert "holds all moments or none" in engine.refuse(calculation)


PW = """
     Program PWSCF v.{version} starts on 30Nov2026 at  0: 0: 0

     unit-cell volume          =     330.0000 (a.u.)^3
     Dense  grid:    50000 G-vectors     FFT dimensions: (  40,  40,  80)

     Magnetic moment per site  (integrated on atomic sphere of radius R)
     atom   1 (R=0.357)  charge=  6.0000  magn=  1.0000   constr=  2.4000
     atom   2 (R=0.357)  charge=  2.0000  magn=  0.0000   constr=  0.0000
     atom   3 (R=0.357)  charge=  7.0000  magn=  0.5000   constr=  1.3000
     atom   4 (R=0.357)  charge=  6.0000  magn=  2.0000   constr=  2.2000
      constraint energy (Ry) =      9.00000000

     Magnetic moment per site  (integrated on atomic sphere of radius R)
     atom   1 (R=0.357)  charge=  6.0000  magn=  2.3000   constr=  2.4000
     atom   2 (R=0.357)  charge=  2.0000  magn= -0.0200   constr=  0.0000
     atom   3 (R=0.357)  charge=  7.0000  magn=  1.3500   constr=  1.3000
     atom   4 (R=0.357)  charge=  6.0000  magn=  2.1000   constr=  2.2000

!    total energy              =    -500.00000000 Ry
     estimated scf accuracy    <       0.00000001 Ry
     lambda                    =       0.07 Ry
      constraint energy (Ry) =      0.00168318

     convergence has been achieved in  12 iterations

     Forces acting on atoms (cartesian axes, Ry/au):

     atom    1 type  1   force =     0.01000000    0.00000000    0.00000000
     atom    2 type  2   force =     0.00000000    0.02000000    0.00000000
     atom    3 type  3   force =     0.00000000    0.00000000    0.03000000
     atom    4 type  4   force =    -0.01000000   -0.02000000   -0.03000000

     Total force =     0.053   Total SCF correction =     0.000001

     Computing stress (Cartesian axis) and pressure

          total   stress  (Ry/bohr**3)                   (kbar)     P=       10.00
   0.00010000   0.00001000   0.00000000           14.71        1.47        0.00
   0.00001000   0.00020000   0.00000000            1.47       29.42        0.00
   0.00000000   0.00000000   0.00030000            0.00        0.00       44.13

   JOB DONE.
"""


@pytest.mark.parametrize(
    ("version", "factor"), [("7.4.1", 1.0), ("7.3.1", 330.0 / 128000), ("6.8", 330.0 / 128000)]
)
def test_espresso_results_have_the_field_of_their_version(tmp_path, version, factor):
    engine, calculation = written(tmp_path, "qe", alloy(STRAIGHT, held=[True] * 4))
    (tmp_path / "pw.out").write_text(PW.format(version=version))
    labels = engine.collect(calculation, tmp_path)
    assert labels.energy == pytest.approx(-500.0 * Rydberg)
    close(labels.magmoms[:, 2], [2.3, -0.02, 1.35, 2.1])
    off = np.array([-0.1, -0.02, 0.05, -0.1])
    close(labels.magforces[:, 2], 2.0 * off * factor, 1e-5)
    assert labels.forces is None
    assert labels.stress is None
    (tmp_path / "pw.out").write_text(PW.format(version=version).replace("JOB DONE.", ""))
    with pytest.raises(MissingOutputError):
        engine.collect(calculation, tmp_path)


def test_espresso_results_of_free_moments_have_forces(tmp_path):
    engine, calculation = written(tmp_path, "qe", alloy(STRAIGHT, held=[False] * 4))
    text = re.sub(r"   constr=.*", "", re.sub(r".*constraint energy.*\n|.*lambda.*\n", "", PW))
    (tmp_path / "pw.out").write_text(text.format(version="7.4"))
    labels = engine.collect(calculation, tmp_path)
    assert labels.forces[2, 2] == pytest.approx(0.03 * Rydberg / Bohr)
    assert labels.stress[0, 0] == pytest.approx(-1e-4 * Rydberg / Bohr**3)
    assert not labels.magforces.any()


# ABACUS


def test_abacus_inputs_say_what_is_held(tmp_path):
    atoms = alloy()
    written(tmp_path, "abacus", atoms)
    given = dict(line.split(None, 1) for line in (tmp_path / "INPUT").read_text().splitlines()[1:])
    assert given["sc_mag_switch"] == "1"
    assert given["nspin"] == "4"
    assert float(given["smearing_sigma"]) == pytest.approx(0.02, rel=1e-3)
    stru = (tmp_path / "STRU").read_text()
    rows = [line for line in stru.splitlines() if " mag " in line]
    for row, k in zip(rows, [0, 3, 1, 2], strict=True):
        place, _, rest = row.partition(" mag ")
        moment, _, held = rest.partition(" sc ")
        close(np.array(place.split(), float), atoms.get_scaled_positions()[k], 1e-9)
        close(np.array(moment.split(), float), CANTED[k], 1e-7)
        assert held.split() == (["0"] * 3 if k == 1 else ["1"] * 3)
    assert (tmp_path / "KPT").read_text().split()[3:6] == ["8", "8", "4"]


def test_abacus_inputs_are_read_by_dpdata(tmp_path):
    dpdata = pytest.importorskip("dpdata")
    atoms = alloy(STRAIGHT)
    written(tmp_path, "abacus", atoms)
    system = dpdata.System(str(tmp_path / "STRU"), fmt="stru")
    order = [0, 3, 1, 2]
    close(system["cells"][0], atoms.cell.array, 1e-6)
    close(system["coords"][0] - system["coords"][0][0], (atoms.positions - atoms.positions[0])[order], 1e-5)
    close(system["spins"][0][:, 2], np.array(STRAIGHT)[order], 1e-6)


def abacus_log(order, reached, fields, forces, *, converged=True):
    """A log as version 3.7 writes it."""
    names, line = ["Fe", "Al", "Co", "Fe"], "-" * 90

    def table(heading, values, numbered=False):
        count, rows = {}, []
        for k in order:
            count[names[k]] = count.get(names[k], 0) + 1
            name = f"{names[k]}{count[names[k]]}" if numbered else names[k]
            rows.append(f"{name:>26}" + "".join(f"{x:20.10f}" for x in np.atleast_1d(values[k])))
        return f"{line}\n {heading}\n{line}\n" + "\n".join(rows) + f"\n{line}\n\n"

    state = "charge density convergence is achieved" if converged else "convergence has NOT been achieved!"
    return (
        "                              ABACUS v3.7.1\n\n"
        + table("Total Magnetism (uB)", np.zeros_like(reached))
        + table("Total Magnetism (uB)", reached)
        + table("Magnetic force (eV/uB)", fields)
        + f" {state}\n final etot is -6818.7194095 eV\n\n"
        + table("TOTAL-FORCE (eV/Angstrom)", forces, numbered=True)
        + f"{line}\n TOTAL-STRESS (KBAR)\n{line}\n 10.0 1.0 0.0\n 1.0 20.0 0.0\n 0.0 0.0 30.0\n{line}\n"
        + " !FINAL_ETOT_IS -6818.719409466637 eV\n Finish Time  : Fri Aug 23 16:15:04 2024\n"
    )


@pytest.mark.parametrize("magmoms", [CANTED, STRAIGHT])
def test_abacus_results_are_put_in_order(tmp_path, magmoms):
    engine, calculation = written(tmp_path, "abacus", alloy(magmoms))
    rng = np.random.default_rng(3)
    reached, forces = np.array(magmoms), rng.normal(0, 0.3, (4, 3)).round(6)
    fields = rng.normal(0, 0.3, np.shape(magmoms)).round(6)
    (tmp_path / "OUT.label").mkdir()
    path = tmp_path / "OUT.label" / "running_scf.log"
    path.write_text(abacus_log([0, 3, 1, 2], reached, fields, forces))
    labels = engine.collect(calculation, tmp_path)
    assert labels.energy == pytest.approx(-6818.719409466637)
    close(labels.forces, forces)
    close(labels.magmoms, calculation.magmoms)
    held = np.array([True, False, True, True])
    wanted = fields if fields.ndim == 2 else np.outer(fields, [0, 0, 1])
    close(labels.magforces[held], wanted[held])
    assert not labels.magforces[1].any()
    assert labels.stress[0, 1] == pytest.approx(-1.0 / 1602.1766, rel=1e-4)
    path.write_text(abacus_log([0, 3, 1, 2], reached, fields, forces, converged=False))
    with pytest.raises(NotConvergedError):
        engine.collect(calculation, tmp_path)
    path.write_text(abacus_log([0, 3, 1], reached, fields, forces))
    with pytest.raises(EngineError, match="has 3 rows"):
        engine.collect(calculation, tmp_path)


HEAD = """
                              ABACUS v3.7.1

               lattice constant (Angstrom) = 0.995
DIRECT COORDINATES
    atom                   x                   y                   z     mag
taud_Fe1            0.0500000000        0.1000000000        0.1500000000  2.4000
taud_Fe2            0.5000000000        0.5000000000        0.5000000000  2.4000

 Lattice vectors: (Cartesian coordinate: in unit of a_0)
             +2.82743                  +0                  +0
                   +0            +2.82743                  +0
                   +0                  +0            +2.82743
 Total Magnetism (uB)
------------------------------------------------------------
                         Fe         2.4000000000
                         Fe         2.3000000000
 Magnetic force (Ry/uB)
------------------------------------------------------------
                         Fe        -0.1000000000
                         Fe         0.2000000000
 charge density convergence is achieved
 !FINAL_ETOT_IS -6818.719409466637 eV
"""


def test_a_log_of_abacus_is_data_by_itself(tmp_path):
    (tmp_path / "running_scf.log").write_text(HEAD)
    (frame,) = read_frames([tmp_path / "running_scf.log"]).frames
    close(frame.atoms.cell.array, np.eye(3) * 2.82743 * 0.995)
    close(frame.atoms.get_scaled_positions()[0], [0.05, 0.1, 0.15])
    close(frame.magmoms[:, 2], [2.4, 2.3])
    close(frame.labels["magforces"][:, 2], [-0.1 * Rydberg, 0.2 * Rydberg])
    (tmp_path / "running_scf.log").write_text(HEAD.replace("is achieved", "has not been achieved"))
    found = read_frames_or_error(tmp_path / "running_scf.log")
    assert "not converged" in found


def read_frames_or_error(path):
    try:
        return "; ".join(read_frames([path]).problems)
    except Exception as error:
        return str(error)
