"""Constrained-DFT configurations beyond the first plan: hcp, fcc AFMD, vacancies, wide volumes, fcc and hcp rattles.

Runs with the project's ABINIT driver (``gen_fe_dft.py`` and ``abinit_cdft.py`` in one folder):

    python tools/plan_iron_data.py --tools FOLDER_OF_THE_DRIVER --out OUT/fe-extra.extxyz
"""

import argparse
import sys
import textwrap
from pathlib import Path

import numpy as np
from ase import Atoms


def hcp(volume, c_over_a):
    """Two-atom hexagonal cell with the given volume per atom (Å^3)."""
    a = (4 * volume / (np.sqrt(3) * c_over_a)) ** (1 / 3)
    cell = [[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, c_over_a * a]]
    return Atoms("Fe2", cell=cell, pbc=True, scaled_positions=[[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]])


def afmd(a):
    """Four fcc layers along z, moments + + - -."""
    s = a / np.sqrt(2)
    return Atoms(
        "Fe4",
        cell=np.diag([s, s, 2 * a]),
        pbc=True,
        scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.25], [0, 0, 0.5], [0.5, 0.5, 0.75]],
    )


def vacancy(a, repeat, breathe):
    """Bcc supercell without its first atom; first neighbours moved outwards by the fraction `breathe`."""
    at = Atoms("Fe2", cell=np.diag([a] * 3), pbc=True, scaled_positions=[[0, 0, 0], [0.5] * 3]) * repeat
    d = at.get_distances(0, range(len(at)), mic=True, vector=True)
    r = np.linalg.norm(d, axis=1)
    near = (r > 0.1) & (r < 0.9 * a)
    at.positions[near] += breathe * d[near]
    del at[0]
    return at


def build(gen):
    """Ideal cells first, then vacancies, rattles and the volumes that are left, cheap and needed ones first."""
    jobs = []

    def add(cid, ctype, at, m, constrain, k):
        spec = {"m": m, "constrain": constrain, "nm": m is None}
        jobs.append({"id": cid, "type": ctype, "atoms": at, "kpts": k, "spec": spec})

    def ideal(volumes, lattice_constants):
        for v in volumes:
            for tag, m in (("fm", gen.z(2.5, 2.5)), ("afm", gen.z(1.6, -1.6)), ("nm", None)):
                add(f"hcp_{tag}_{v:.1f}", f"eos_hcp_{tag}", hcp(v, 1.585), m, False, [9, 9, 6])
        for a in lattice_constants:
            add(f"fcc_afmd_{a:.2f}", "eos_fcc_afmd", afmd(a), gen.z(2, 2, -2, -2), False, [9, 9, 3])

    rng = np.random.default_rng(77)
    ideal((10.4, 11.3, 9.7), (3.52, 3.62, 3.44))
    add_moment_scans(gen, add)
    add_vacancies(gen, add)
    add_rattled_fcc(gen, add, rng)
    ideal((10.8, 12.0), (3.57, 3.70))
    add_rattled_hcp_and_bcc(gen, add, rng)
    return jobs


def add_moment_scans(gen, add):
    """Constrained moments of fcc AFMD and of hcp."""
    for m in (1.0, 2.0, 2.6):
        add(f"fcc_mafmd_3.55_{m:.1f}", "mscan_fcc_afmd", afmd(3.55), gen.z(m, m, -m, -m), True, [9, 9, 3])
    for v, m in ((10.4, 1.2), (11.5, 2.0), (10.4, 2.2), (11.5, 1.2)):
        add(f"hcp_mfm_{v:.1f}_{m:.1f}", "mscan_hcp_fm", hcp(v, 1.585), gen.z(m, m), True, [9, 9, 6])
        add(f"hcp_mafm_{v:.1f}_{m:.1f}", "mscan_hcp_afm", hcp(v, 1.585), gen.z(m, -m), True, [9, 9, 6])


def add_vacancies(gen, add):
    """Ferromagnetic bcc cells with a vacancy; an hour of a core and more each."""
    for i, breathe in enumerate((-0.03, 0.0)):
        add(f"vac7_{i}", "vacancy", vacancy(2.83, (2, 2, 1), breathe), gen.z(*[2.3] * 7), False, [4, 4, 8])
    add("vac15_0", "vacancy", vacancy(2.83, (2, 2, 2), -0.03), gen.z(*[2.3] * 15), False, [4, 4, 4])


def add_rattled_fcc(gen, add, rng):
    """Strained and displaced fcc cells with moments of any length, parallel and antiparallel."""
    for i in range(10):
        a = rng.uniform(3.42, 3.70)
        m = rng.uniform(0.2, 2.8, 2) * [1, 1 if i % 2 else -1]
        at = gen.rattle(gen.bct(a / np.sqrt(2), a), rng, rng.uniform(0.04, 0.14), 0.03, i % 2 == 0)
        add(f"ratfcc_{i:03d}", "rattle_fcc", at, gen.z(*m), True, [9, 9, 6])


def add_rattled_hcp_and_bcc(gen, add, rng):
    """The same for hcp, and for bcc far from its equilibrium volume."""
    for i in range(6):
        ideal = hcp(rng.uniform(10.0, 12.0), rng.uniform(1.54, 1.64))
        at = gen.rattle(ideal, rng, rng.uniform(0.04, 0.12), 0.03, False)
        m = rng.uniform(0.2, 2.6, 2) * [1, 1 if i % 2 else -1]
        add(f"rathcp_{i:03d}", "rattle_hcp", at, gen.z(*m), True, [9, 9, 6])
    for i in range(10):
        a = rng.choice([2.67, 2.70, 2.98, 3.02])
        at = gen.rattle(gen.bct(a, a), rng, rng.uniform(0.04, 0.14), 0.03, i % 2 == 0)
        m = rng.uniform(0.5, 3.0, 2) * [1, 1 if i % 3 else -1]
        add(f"ratvol_{i:03d}", "rattle_volume", at, gen.z(*m), True, [8, 8, 8])


def build_displaced(gen):
    """Second atom displaced along a symmetry axis: forces at a fraction of the cost of a random rattle."""
    jobs = []
    rng = np.random.default_rng(88)
    for i in range(120):
        kind = ("bcc", "bcc", "tet", "fcc", "bcc", "hcp", "tet", "fcc")[i % 8]
        axis = np.array([(0, 0, 1), (1, 1, 0), (1, 0, 0)][i % 3], float)
        if kind == "hcp":
            at = hcp(rng.uniform(9.8, 11.8), rng.uniform(1.52, 1.66))
            axis, k = np.array([0, 0, 1.0]), [9, 9, 6]
        else:
            ca = {"bcc": 1.0, "fcc": np.sqrt(2), "tet": rng.uniform(1.05, 1.5)}[kind]
            ca *= rng.uniform(0.97, 1.03)
            v = rng.uniform(0.93, 1.10) if kind == "bcc" else rng.uniform(0.90, 1.06)
            a = (2 * gen.V0 * v / ca) ** (1 / 3)
            at = gen.bct(a, ca * a)
            k = gen.kp(round(a, 1), round(a, 1), round(ca * a, 1))
        at.positions[1] += axis / np.linalg.norm(axis) * rng.uniform(0.04, 0.35)
        u = rng.uniform
        style = i % 5
        m, constrain = [
            (gen.z(2.3, 2.3), False),
            (gen.z(u(1.2, 2.8), u(1.2, 2.8)), True),
            (gen.z(u(0.3, 2.6), -u(0.3, 2.6)), True),
            (gen.z(u(0.2, 2.9), u(0.2, 2.9)), True),
            (gen.z(1.8, -1.8), False),
        ][style]
        if gen.min_dist(at) > 2.15:
            spec = {"m": m, "constrain": constrain, "nm": False}
            names = {"id": f"disp_{kind}_{i:03d}", "type": f"displaced_{kind}"}
            jobs.append({**names, "atoms": at, "kpts": k, "spec": spec})
    random = [j for j in gen.build() if j["type"].startswith("rattle_") and j["id"].startswith("rat_")]
    random = [j for j in random if not gen.reserved(j["id"]) and j["type"] != "rattle_nm"]
    out = []
    for i, job in enumerate(jobs):
        out.append(job)
        if i % 3 == 2 and len(random) > 3 + i // 3:
            out.append(random[3 + i // 3])
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tools", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--scratch", default="scratch")
    p.add_argument("--displaced", action="store_true", help="the displaced and rattled cells")
    p.add_argument("--timeout", type=float, default=1800)
    args = p.parse_args()
    sys.path.insert(0, args.tools)
    import abinit_cdft
    import gen_fe_dft as gen

    plain = abinit_cdft.write_input

    def write_input(atoms, spec, kpts, settings):
        """A k grid shifted in the plane would break hexagonal symmetry."""
        text = plain(atoms, spec, kpts, settings)
        hexagonal = abs(atoms.cell.angles()[2] - 120) < 8
        if hexagonal:
            text = text.replace("shiftk 0.5 0.5 0.5", "shiftk 0.0 0.0 0.5")
        # ABINIT refuses lines of more than 264 columns
        return "\n".join(w for line in text.splitlines() for w in textwrap.wrap(line, 200)) + "\n"

    abinit_cdft.write_input = write_input
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    gen.worker(0, 1, args, (build_displaced if args.displaced else build)(gen))


if __name__ == "__main__":
    main()
