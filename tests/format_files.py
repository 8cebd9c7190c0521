"""Small files in the layouts of DeePMD-kit, MLIP, VASP and ABINIT, all of one structure."""

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

CELL = np.diag([2.9, 3.0, 3.1])
VOLUME = 2.9 * 3.0 * 3.1
POSITIONS = np.array([[0.1, 0.0, 0.0], [1.45, 1.5, 1.6]])
MAGMOMS = np.array([[0.3, -0.1, 2.2], [0.01, 0.02, -0.05]])
MAGFORCES = np.array([[0.02, 0.01, -0.03], [0.4, 0.0, 0.1]])
FORCES = np.array([[0.5, -0.2, 0.1], [-0.5, 0.2, -0.1]])
STRESS = np.array([[0.01, 0.002, 0.003], [0.002, 0.02, 0.004], [0.003, 0.004, -0.03]])


def labelled_atoms():
    atoms = Atoms("FeAl", POSITIONS, cell=CELL, pbc=True)
    voigt = STRESS[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    atoms.calc = SinglePointCalculator(atoms, energy=-12.5, forces=FORCES, stress=voigt, magmoms=MAGMOMS)
    return atoms


def write_deepmd(folder, *, n_sets, n_frames, mixed=False):
    """With `mixed`, types differ between frames and the second frame has one atom."""
    folder.mkdir(parents=True)
    (folder / "type.raw").write_text("0\n0\n" if mixed else "0\n1\n")
    (folder / "type_map.raw").write_text("Fe\nAl\n")
    for s in range(n_sets):
        part = folder / f"set.{s:03d}"
        part.mkdir()

        def repeated(values):
            return np.repeat(np.asarray(values, dtype=float).reshape(1, -1), n_frames, axis=0)

        for name, values in (
            ("coord", POSITIONS),
            ("box", CELL),
            ("force", FORCES),
            ("spin", MAGMOMS),
            ("force_mag", MAGFORCES),
            ("virial", -STRESS * VOLUME),
        ):
            np.save(part / f"{name}.npy", repeated(values))
        np.save(part / "energy.npy", -12.5 - np.arange(n_frames) - s * n_frames)
        if mixed:
            np.save(part / "real_atom_types.npy", np.array([[0, 1], [1, -1]])[:n_frames])
    return folder


def write_cfg(path, *, n):
    """Types 0 and 1 are Al and Fe, as in the public Fe-Al sets."""
    virial = -STRESS * VOLUME
    rows = [
        f"             {k + 1}    {kind}  " + " ".join(f"{x:12.6f}" for x in (*r, *f, *m, *t))
        for k, (kind, r, f, m, t) in enumerate(
            zip((1, 0), POSITIONS, FORCES, MAGMOMS, MAGFORCES, strict=True)
        )
    ]
    block = [
        "BEGIN_CFG",
        " Size",
        "    2",
        " Supercell",
        *("    " + " ".join(f"{x:12.6f}" for x in vector) for vector in CELL),
        " AtomData:  id type cartes_x cartes_y cartes_z fx fy fz magmom_x magmom_y magmom_z "
        "en_der_mx en_der_my en_der_mz",
        *rows,
        " Energy",
        "        -12.500000000000",
        " PlusStress:  xx          yy          zz          yz          xz          xy",
        "    "
        + " ".join(f"{virial[i, j]:12.8f}" for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))),
        " Feature   EFS_by\tVASP",
        "END_CFG",
        "",
    ]
    path.write_text("\n".join(block * n))
    return path


def outcar(magmoms, *, incar=""):
    """A one-step OUTCAR; moments of shape (2, 1) or (2, 3), or None for a run without LORBIT."""
    kilobar = -STRESS * 1602.1766208
    tables = []
    for axis, column in zip("xyz", () if magmoms is None else np.asarray(magmoms).T, strict=False):
        rows = [f"    {k + 1}       0.000   0.000   {m:7.3f}   {m:7.3f}" for k, m in enumerate(column)]
        total = f"tot         0.000   0.000   {sum(column):7.3f}   {sum(column):7.3f}"
        tables += [
            "",
            f" magnetization ({axis})",
            " ",
            "# of ion       s       p       d       tot",
            "------------------------------------------",
            *rows,
            "--------------------------------------------------",
            total,
            "",
        ]
    lines = [
        " vasp.6.4.2 20Jul23 (build Jan 01 2024 00:00:00) complex",
        incar,
        " POTCAR:    PAW_PBE Fe 06Sep2000",
        " POTCAR:    PAW_PBE Al 04Jan2001",
        " POTCAR:    PAW_PBE Fe 06Sep2000",
        " POTCAR:    PAW_PBE Al 04Jan2001",
        "   ions per type =               1   1",
        "   number of dos      NEDOS =    301   number of ions     NIONS =      2",
        "   ISPIN  =      2    spin polarized calculation?",
        "--------------------------------------- Iteration      1(   1)  ---------------------------------------",
        *tables,
        "  in kB  "
        + " ".join(f"{kilobar[i, j]:12.6f}" for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2))),
        "  external pressure =       -0.00 kB  Pullay stress =        0.00 kB",
        "      direct lattice vectors                 reciprocal lattice vectors",
        *("  " + " ".join(f"{x:12.9f}" for x in (*v, 0.0, 0.0, 0.0)) for v in CELL),
        " POSITION                                       TOTAL-FORCE (eV/Angst)",
        " -----------------------------------------------------------------------------------",
        *(" " + " ".join(f"{x:12.6f}" for x in (*r, *f)) for r, f in zip(POSITIONS, FORCES, strict=True)),
        " -----------------------------------------------------------------------------------",
        "  FREE ENERGIE OF THE ION-ELECTRON SYSTEM (eV)",
        "  ---------------------------------------------------",
        "  free  energy   TOTEN  =       -12.50000000 eV",
        "",
        "  energy  without entropy=      -12.49000000  energy(sigma->0) =      -12.49500000",
        "",
        *tables,
    ]
    return "\n".join(lines) + "\n"


def oszicar(moments, fields, *, penalty):
    """One ionic step with two electronic ones; columns run into each other as VASP writes them."""

    def step(factor, energy):
        m = [" ".join(f"{x:.3f}" for x in (*row * factor, *row * 1.4)) for row in moments]
        b = ["".join(f"{x * factor:12.3E}" for x in row) for row in fields]
        return [
            f" E_p =  {energy:.5E}  lambda =  0.100E+02",
            "<lVp>=  0.30680E-02",
            " DBL = -0.30680E-02",
            " ion        MW_int                 M_int",
            *(f"  {k + 1}   {row}" for k, row in enumerate(m)),
            " ion             lambda*MW_perp",
            *(f"  {k + 1} {row}" for k, row in enumerate(b)),
            "DAV:   8    -0.133293620177E+03    0.15284E-05   -0.29410E-08  4188   0.144E-03    0.119E-04",
        ]

    lines = step(0.5, 9.0) + step(1.0, penalty)
    return (
        "\n".join(["       N       E                     dE", *lines])
        + "\n   1 F= -.12500000E+02 E0= -.12495000E+02\n"
    )


ABINIT = """
.Version 9.6.2 of ABINIT
.(MPI version, prepared for a x86_64_linux_gnu computer)

================================================================================
== DATASET  1 ==================================================================
-   mpi_nproc: 1, omp_nthreads: -1 (-1 if OMP is not activated)

--- !ResultsGS
iteration_state: {dtset: 1, }
comment   : Summary of ground state results
lattice_vectors:
- [  5.4000000,   0.0000000,   0.0000000, ]
- [  0.0000000,   5.4000000,   0.0000000, ]
- [  0.0000000,   0.0000000,   5.4000000, ]
etotal    :  -2.48786814E+02
cartesian_stress_tensor: # hartree/bohr^3
- [ -1.65000000E-02,   0.00000000E+00,   0.00000000E+00, ]
- [  0.00000000E+00,  -1.60000000E-02,   0.00000000E+00, ]
- [  0.00000000E+00,   0.00000000E+00,  -1.60000000E-02, ]
xred      :
- [  0.0000E+00,   0.0000E+00,   0.0000E+00, Fe]
- [  5.0000E-01,   5.0000E-01,   5.0000E-01, Fe]
cartesian_forces: # hartree/bohr
- [  1.00000000E-02,  -2.00000000E-02,  -0.00000000E+00, ]
- [ -1.00000000E-02,   2.00000000E-02,  -0.00000000E+00, ]
force_length_stats: {min:   0.00000000E+00, max:   0.00000000E+00, mean:   0.00000000E+00, }
...

 Integrated electronic and magnetization densities in atomic spheres:
 ---------------------------------------------------------------------
 Radius=ratsph(iatom), smearing ratsm=  0.0500. Diff(up-dn)=approximate z local magnetic moment.
 Atom    Radius    up_density   dn_density  Total(up+dn)  Diff(up-dn)
    1   2.12000     8.305199     6.094900     14.400099     2.210298
    2   2.12000     8.025824     6.415397     14.441221     1.610427
 ---------------------------------------------------------------------
  Sum:             16.331023    12.510297     28.841320     3.820726

 ----iterations are completed or convergence reached----

 cartesian coordinates (angstrom) at end:
    1      0.00000000000000     0.00000000000000     0.00000000000000
    2      1.43000000000000     1.43000000000000     1.44000000000000

--- !EnergyTerms
iteration_state     : {dtset: 1, }
'-kT*entropy'       : -7.38621393841599E-03
total_energy        : -2.48786814000000E+02
total_energy_eV     : -6.76983350000000E+03
...

== END DATASET(S) ==============================================================
            etotal     -2.4878681400E+02
           grspin      0.0000000000E+00  0.0000000000E+00 -1.6036063392E-02
                       0.0000000000E+00  0.0000000000E+00 -2.3548694605E-02
             iscf           7
 Calculation completed.
"""


def vasprun(*, saxis="0 0 1"):
    """A one-step vasprun.xml of the same structure."""
    kilobar = -STRESS * 1602.1766208

    def vectors(name, rows):
        lines = "".join(f"<v> {' '.join(f'{x:.8f}' for x in row)} </v>" for row in rows)
        return f'<varray name="{name}">{lines}</varray>'

    crystal = f"<crystal>{vectors('basis', CELL)}</crystal>"
    structure = crystal + vectors("positions", POSITIONS @ np.linalg.inv(CELL))
    energies = (
        '<i name="e_fr_energy"> -12.5 </i><i name="e_wo_entrp"> -12.49 </i><i name="e_0_energy"> -12.495 </i>'
    )
    atoms = "".join(f"<rc><c>{symbol} </c><c> {k + 1}</c></rc>" for k, symbol in enumerate(("Fe", "Al")))
    return f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
<kpoints>{vectors("kpointlist", [[0, 0, 0]])}{vectors("weights", [[1]])}</kpoints>
<parameters><separator name="electronic spin"><v name="SAXIS"> {saxis}</v></separator></parameters>
<atominfo><atoms> 2 </atoms><array name="atoms"><set>{atoms}</set></array></atominfo>
<structure name="initialpos">{structure}</structure>
<calculation>
<scstep><energy>{energies}</energy></scstep>
<structure>{structure}</structure>
{vectors("forces", FORCES)}{vectors("stress", kilobar)}
<energy>{energies}</energy>
</calculation>
</modeling>
"""
