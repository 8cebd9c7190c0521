"""Outputs of VASP laid out as VASP lays them out, after published files: what the documentation leaves out."""

import numpy as np
import pytest
from ase.constraints import FixAtoms
from format_files import CELL, FORCES, MAGMOMS, POSITIONS, outcar
from pymatgen.io.vasp import Poscar

from mmace_sim.errors import DataError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.io.collection import FailedStructure, load_structures, read_structures
from mmace_sim.io.frames import read_frames

AXES = np.array([[0.0, -0.7071068, 0.7071068], [0.0, 0.7071068, 0.7071068], [-1.0, 0.0, 0.0]])
"""Of SAXIS = 1 1 0."""

MATRIX = (
    " Euler angles ALPHA=     0.7853982  BETA=     1.5707963\n\n"
    " transformation matrix from SAXIS to cartesian coordinates\n"
    " ---------------------------------------------------------\n"
    + "".join(" ".join(f"{x:14.7f} m_{a}" for x, a in zip(row, "xyz", strict=True)) + "\n" for row in AXES)
    + "\n transformation matrix from cartesian coordinates to SAXIS\n"
    " ---------------------------------------------------------\n"
    + "".join(" ".join(f"{x:14.7f} m_{a}" for x, a in zip(row, "xyz", strict=True)) + "\n" for row in AXES.T)
)


def moments_at_both_doors(path):
    structures = [get_magmoms(item.atoms) for item in read_structures(path)]
    frames = read_frames([path]).frames
    np.testing.assert_array_equal(structures, [frame.magmoms for frame in frames])
    return structures


def steps(*energies, magmoms=MAGMOMS):
    """An OUTCAR of several ionic steps."""
    head, body = outcar(magmoms).split("--------------------------------------- Iteration      1(   1)")
    parts = [
        f"---- Iteration {k + 1:5d}(   1){body}".replace("-12.50000000", f"{energy:.8f}")
        for k, energy in enumerate(energies)
    ]
    return head + "".join(parts)


def oszicar(n_steps, moments, fields, *, penalty, weight, end="{k:4d} F= -.12E+02 E0= -.12E+02  d E =0.0"):
    """As VASP writes it: lambda*MW_perp stands behind the end of its step and lists what has a target only."""
    text = ""
    for k in range(n_steps):
        told = f"\n E_p = {penalty:12.5E}  lambda = {weight:10.3E}\n"
        rows = "".join(
            f"{i + 1:3d}"
            + "".join(f"{x:7.3f}" for x in (1 + k) * np.asarray(row))
            + "  "
            + 3 * "  1.000"
            + "\n"
            for i, row in enumerate(moments)
        )
        text += (
            "       N       E                     dE             d eps       ncg     rms          rms(c)\n"
            f"{told}<lVp>=  0.30680E-02\n DBL = -0.30680E-02\n ion        MW_int                 M_int\n{rows}"
            "DAV:   9    -0.133293621087E+03   -0.91037E-06   -0.18419E-08  4188   0.104E-03\n"
            + end.format(k=k + 1)
            + f"  mag=     0.0     0.0    0.0\n{told} ion             lambda*MW_perp\n"
        )
        text += "".join(
            f"{i + 1:3d}" + "".join(f"{x:14.5E}" for x in (1 + k) * np.asarray(row)) + "\n"
            for i, row in fields.items()
        )
    return text


def test_the_axis_of_moments_is_what_vasp_printed(tmp_path):
    """VASP 5 does not repeat INCAR, but prints the matrix."""
    text = outcar(MAGMOMS).replace(
        "--------------------------------------- Iteration", MATRIX + "--- Iteration", 1
    )
    (tmp_path / "OUTCAR").write_text(text)
    np.testing.assert_allclose(moments_at_both_doors(tmp_path / "OUTCAR")[0], MAGMOMS @ AXES.T, atol=1e-7)


def test_an_incar_beside_tells_the_axis_if_nothing_else_does(tmp_path):
    (tmp_path / "OUTCAR").write_text(outcar(MAGMOMS))
    (tmp_path / "INCAR").write_text("ISPIN = 2 ; saxis = 1 1 0 ! in plane\n# SAXIS = 0 1 0\n")
    np.testing.assert_allclose(moments_at_both_doors(tmp_path / "OUTCAR")[0], MAGMOMS @ AXES.T, atol=1e-7)


@pytest.mark.parametrize(
    "end",
    [
        "{k:4d} F= -.12E+02 E0= -.12E+02  d E =0.0",
        "{k:7d} T=   300. E= -.11E+02 F= -.12E+02 E0= -.12E+02  EK= 0.1E+00 SP= 0.00E+00 SK= 0.00E+00",
    ],
    ids=["statics", "dynamics"],
)
@pytest.mark.parametrize(("kind", "factor"), [("1", 2.0), ("2", 2.0), ("4", 1.0), (None, 2.0)])
def test_fields_belong_to_the_step_that_they_stand_behind(tmp_path, kind, factor, end):
    """The first atom alone has a target; E_p = λ |MW_perp|² where it is not known what was held."""
    field, weight = np.array([0.3, -0.1, 0.0]), 10.0
    (tmp_path / "OUTCAR").write_text(steps(-12.5, -13.5))
    penalty = float(2**2 * field @ field / weight)
    (tmp_path / "OSZICAR").write_text(
        oszicar(2, MAGMOMS, {0: field}, penalty=penalty, weight=weight, end=end)
    )
    if kind:
        (tmp_path / "INCAR").write_text(f"I_CONSTRAINED_M = {kind}\n")
    np.testing.assert_allclose(
        moments_at_both_doors(tmp_path / "OUTCAR"), [MAGMOMS.round(3), 2 * MAGMOMS], atol=1e-3
    )
    frames = read_frames([tmp_path / "OUTCAR"]).frames
    for k, frame in enumerate(frames):
        np.testing.assert_allclose(frame.labels["magforces"], factor * (1 + k) * np.array([field, 0 * field]))
        np.testing.assert_allclose(frame.labels["energy"], -12.5 - k - penalty, atol=1e-5)


def test_an_unknown_penalty_that_is_not_quadratic_is_taken_as_printed(tmp_path):
    (tmp_path / "OUTCAR").write_text(outcar(MAGMOMS))
    text = oszicar(1, MAGMOMS, {0: [0.3, 0.0, 0.0], 1: [0.0, 0.1, 0.0]}, penalty=0.5, weight=10.0)
    (tmp_path / "OSZICAR").write_text(text)
    (frame,) = read_frames([tmp_path / "OUTCAR"]).frames
    np.testing.assert_allclose(frame.labels["magforces"], [[0.3, 0, 0], [0, 0.1, 0]])


def test_a_constraint_without_spheres_held_nothing(tmp_path):
    """Without RWIGS every MW_int is 0.000, and lambda*MW_perp is minus the target."""
    (tmp_path / "OUTCAR").write_text(outcar(MAGMOMS))
    text = oszicar(1, 0 * MAGMOMS, {0: [0.0, 0.0, -100.0]}, penalty=100.0, weight=100.0)
    (tmp_path / "OSZICAR").write_text(text)
    np.testing.assert_allclose(moments_at_both_doors(tmp_path / "OUTCAR")[0], MAGMOMS, atol=1e-3)
    (frame,) = read_frames([tmp_path / "OUTCAR"]).frames
    assert "magforces" not in frame.labels
    np.testing.assert_allclose(frame.labels["energy"], -112.5)


def test_fields_of_atoms_that_are_not_there_are_refused(tmp_path):
    (tmp_path / "OUTCAR").write_text(outcar(MAGMOMS))
    (tmp_path / "OSZICAR").write_text(oszicar(1, MAGMOMS, {6: [0.1, 0, 0]}, penalty=0.1, weight=1.0))
    with pytest.raises(DataError, match="lambda\\*MW_perp of atom 7"):
        read_frames([tmp_path / "OUTCAR"])


def test_columns_of_the_dispersion_correction(tmp_path):
    rows = [" ".join(f"{x:12.6f}" for x in (*r, *f)) for r, f in zip(POSITIONS, FORCES, strict=True)]
    text = outcar(MAGMOMS).replace(
        "TOTAL-FORCE (eV/Angst)", "TOTAL-FORCE (eV/Angst),        FORCE-w/o vdW (eV/Angst)"
    )
    for row in rows:
        text = text.replace(row, row + "     0.100000   0.200000   0.300000")
    text = text.replace("-12.50000000 eV", "-12.50000000 eV    w/o vdW =       -11.00000000 eV")
    (tmp_path / "OUTCAR").write_text(text)
    (frame,) = read_frames([tmp_path / "OUTCAR"]).frames
    np.testing.assert_allclose(frame.labels["forces"], FORCES)
    assert frame.labels["energy"] == -12.5


def test_what_a_learned_force_field_predicted_is_no_label(tmp_path):
    """VASP prints its prediction before what it computes."""
    head, body = outcar(MAGMOMS).split("--------------------------------------- Iteration", 1)
    start, end = body.index("  in kB"), body.index("  energy  without")
    ml = (
        body[start:end]
        .replace("(eV/Angst)", "(eV/Angst) (ML)")
        .replace("FREE ENERGIE", "ML FREE ENERGIE")
        .replace("energy   TOTEN", "energy ML TOTEN")
        .replace("0.500000", "9.500000")
        .replace("-12.5000", "-99.5000")
    )
    (tmp_path / "OUTCAR").write_text(head + ml + "---- Iteration" + body + ml)
    (frame,) = read_frames([tmp_path / "OUTCAR"]).frames
    np.testing.assert_allclose(frame.labels["forces"], FORCES)
    assert frame.labels["energy"] == -12.5


def test_a_step_without_positions_is_told_and_the_others_are_read(tmp_path):
    text = steps(-12.5, -13.5, -14.5)
    first, second = [text.index(" POSITION", text.index(f"Iteration     {k}(")) for k in (2, 3)]
    cut = text[:first] + text[text.index("  FREE ENERGIE", first) :]
    assert second > first
    (tmp_path / "OUTCAR").write_text(cut)
    found = load_structures([tmp_path / "OUTCAR"])
    assert [isinstance(item, FailedStructure) for item in found] == [False, True, False]
    assert "NWRITE" in found[1].message
    assert [float(frame.labels["energy"]) for frame in read_frames([tmp_path / "OUTCAR"]).frames] == [
        -12.5,
        -14.5,
    ]


def test_numbers_that_touch_or_do_not_fit(tmp_path):
    text = (
        outcar(MAGMOMS)
        .replace("    0.500000", "************")
        .replace("    0.100000     0.000000", "  100.10000-200.00000")
    )
    (tmp_path / "OUTCAR").write_text(text)
    problems = read_frames([tmp_path / "OUTCAR"]).problems
    assert len(problems) == 1
    assert "not finite" in problems[0]
    (item,) = load_structures([tmp_path / "OUTCAR"])
    np.testing.assert_allclose(item.atoms.positions[0], [100.1, -200.0, 0.0])


def test_more_types_than_vasp_prints_counts_of(tmp_path):
    """Before 6.4 it prints ten; POSCAR knows the elements, and what is fixed."""
    text = outcar(MAGMOMS).replace("ions per type =               1   1", "ions per type =               1")
    (tmp_path / "OUTCAR").write_text(text)
    with pytest.raises(DataError, match="put POSCAR of the same run beside it"):
        read_frames([tmp_path / "OUTCAR"])
    atoms = read_structures_of_poscar(tmp_path)
    assert atoms.get_chemical_symbols() == ["Fe", "Al"]
    assert isinstance(atoms.constraints[0], FixAtoms)
    np.testing.assert_array_equal(atoms.constraints[0].index, [1])


def read_structures_of_poscar(folder):
    rows = "\n".join(
        " ".join(f"{x:.9f}" for x in row) + flags
        for row, flags in zip(POSITIONS, ("  T T T", "  F F F"), strict=True)
    )
    cell = "\n".join(" ".join(map(str, vector)) for vector in CELL)
    (folder / "POSCAR").write_text(f"x\n1.0\n{cell}\nFe Al\n1 1\nSelective dynamics\nCartesian\n{rows}\n")
    assert Poscar.from_file(folder / "POSCAR").structure.num_sites == 2
    (item,) = read_structures(folder / "OUTCAR")
    return item.atoms
