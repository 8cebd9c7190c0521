"""How exactly converted checkpoints agree with the authors' code, which is run for the purpose.

Random models of every kind that `mmace-sim convert` reads are built and pickled by the code of a checkout of the authors' repository (module ``mace``:
the fork of the paper, or the code proposed to and merged into MACE), evaluated by it in float64, converted by the command line, and compared:

    python upstream_parity.py --source CHECKOUT --python INTERPRETER --label "commit …"

INTERPRETER needs torch, e3nn 0.4.4 and sphericart-torch; results of several checkouts are kept side by side in ``docs/benchmarks/upstream_parity.json``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

NUMBERS = [8, 13, 25, 26]
MAX_MOMENTS = [1.5, 0.8, 5.0, 4.0]
R_MAX = 5.0
RESULTS = ("energy", "forces", "stress", "magforces")
FORK = "MagneticSolidHarmonicsSpinOrbitCoupledWith{}SelfMagmomScaleShiftMACE"
BLOCK = "MagneticRealAgnostic{}SpinOrbitCoupled{}InteractionBlock"

FORK_KINDS = {
    "no one-body energy": ("", {}),
    "no one-body energy, Agnesi and ZBL": ("", {"pair_repulsion": True, "distance_transform": "Agnesi"}),
    "moments up to l = 3": ("", {"max_m_ell": 3}),
    "MagmomDensity blocks": ("", {"density": "MagmomDensity"}),
    "DensityWithMagmom blocks": ("", {"density": "DensityWithMagmom"}),
    "one-body energy of all elements": ("OneBodyGinzburg", {}),
    "one-body energy of each element": ("OneBodyMultiSpeciesGinzburg", {"num_mag_radial_basis_one_body": 7}),
    "one-body spline with barrier": ("OneBodyMultiSpeciesEvenSpline", {"m_max_1b": MAX_MOMENTS}),
}
MERGED_KINDS = {
    "no one-body energy": {},
    "Agnesi and ZBL": {"pair_repulsion": True, "distance_transform": "Agnesi"},
    "one-body energy": {"use_magmom_one_body": True, "num_mag_radial_basis_one_body": 5},
    "two heads": {"heads": ["a", "b"], "use_magmom_one_body": True, "num_mag_radial_basis_one_body": 4},
    "one layer, moments up to l = 3": {"max_m_ell": 3, "num_interactions": 1},
    "three layers": {"num_interactions": 3, "hidden_irreps": "4x0e+4x1o"},
    "correlation 3, l = 3": {"correlation": 3, "max_ell": 3, "hidden_irreps": "4x0e+4x1o+4x2e"},
    "scalars alone": {"hidden_irreps": "8x0e"},
    "options that it does not use": {
        "apply_cutoff": False,
        "use_so3": True,
        "use_agnostic_product": True,
        "use_reduced_cg": False,
    },
}


def make_references(out):
    """In the interpreter with the authors' code: pickles and what that code computes for them."""
    import numpy as np
    import torch
    from e3nn import o3

    torch.set_default_dtype(torch.float64)
    from mace.modules import blocks, models

    try:
        from mace.modules import extensions

        kinds = {name: (extensions.MagneticScaleShiftMACE, kw) for name, kw in MERGED_KINDS.items()}
        scf = extensions.MagneticSCFMACE
    except ImportError:
        contraction = {
            "contraction_cls": "SymmetricContraction",
            "contraction_cls_first": "SymmetricContraction",
        }
        kinds = {
            name: (getattr(models, FORK.format(kind)), contraction | {"atomic_inter_shift": 0.0} | kw)
            for name, (kind, kw) in FORK_KINDS.items()
            if hasattr(models, FORK.format(kind))
        }
        scf = models.MagneticSCFMACE
    kinds["inside of a MagneticSCFMACE"] = kinds["no one-body energy"]

    def build(cls, density="Density", heads=("default",), **changes):
        torch.manual_seed(3)
        several = len(heads) > 1
        sizes = {
            "r_max": R_MAX,
            "num_bessel": 8,
            "num_polynomial_cutoff": 5,
            "max_ell": 2,
            "m_max": MAX_MOMENTS,
            "num_mag_radial_basis": 6,
            "max_m_ell": 1,
            "interaction_cls_first": getattr(blocks, BLOCK.format("", density)),
            "interaction_cls": getattr(blocks, BLOCK.format("Residue", density)),
            "num_interactions": 2,
            "num_elements": len(NUMBERS),
            "hidden_irreps": "8x0e+8x1o",
            "MLP_irreps": o3.Irreps("8x0e"),
            "atomic_energies": np.array([[-1.5, -2.25, -8.0, -7.5]] * len(heads)),
            "avg_num_neighbors": 12.0,
            "atomic_numbers": NUMBERS,
            "correlation": 2,
            "gate": torch.nn.functional.silu,
            "radial_MLP": [16, 16],
            "heads": list(heads),
            "atomic_inter_scale": [0.8, 1.3] if several else 0.8,
            "atomic_inter_shift": [0.1, -0.2] if several else 0.1,
        } | changes
        model = cls(**sizes | {"hidden_irreps": o3.Irreps(sizes["hidden_irreps"])}).double()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                weight.add_((0.003 if "knots" in name else 0.05) * torch.randn_like(weight))
            for name, shift in (
                ("one_body_magmom_const_correction", 0.1),
                ("saturation.prefactor", 1.4),
                ("saturation.E1", 0.3),
            ):
                if name in (buffers := dict(model.named_buffers())):
                    buffers[name].add_(shift)
        return model

    for number, (name, (cls, changes)) in enumerate(kinds.items()):
        for precision in ("float64", "float32"):
            model = build(cls, **changes).to(getattr(torch, precision))
            torch.save(scf(model) if "SCF" in name else model, out / f"{number}-{precision}.model")
            heads = list(changes.get("heads", ["default"]))
            references = {head: _evaluate(model.double(), heads.index(head)) for head in heads}
            about = {"kind": name, "class": cls.__name__, "precision": precision, "references": references}
            (out / f"{number}-{precision}.json").write_text(json.dumps(about))


def _evaluate(model, head):
    """Energy, forces, stress and magforces of two random crystals, by the authors' code."""
    import torch
    from ase.neighborlist import neighbor_list

    frames = []
    for atoms, moments in crystals():
        i, j, images = neighbor_list("ijS", atoms, R_MAX)
        images = images.astype(float)
        species = torch.tensor([NUMBERS.index(z) for z in atoms.numbers])
        data = {
            "positions": torch.tensor(atoms.positions),
            "node_attrs": torch.nn.functional.one_hot(species, len(NUMBERS)).double(),
            "edge_index": torch.stack([torch.from_numpy(i), torch.from_numpy(j)]),
            "shifts": torch.tensor(images @ atoms.cell.array),
            "unit_shifts": torch.tensor(images),
            "cell": torch.tensor(atoms.cell.array),
            "batch": torch.zeros(len(atoms), dtype=torch.long),
            "ptr": torch.tensor([0, len(atoms)]),
            "magmom": torch.tensor(moments),
            "head": torch.tensor([head]),
        }
        found = model(data, compute_force=True, compute_stress=True)
        values = {
            key: found[key].detach().reshape(-1, 3).tolist() for key in ("forces", "stress", "magforces")
        }
        frames.append(values | {"energy": [[found["energy"].item()]]})
    return frames


def crystals():
    """Two random crystals of the four elements, with moments of 15 to 85 % of the largest."""
    import numpy as np
    from ase import Atoms

    rng = np.random.default_rng(7)
    for n_atoms, length in ((4, 4.1), (7, 5.0)):
        cell = np.eye(3) * length + rng.normal(0, 0.25, (3, 3))
        atoms = Atoms(cell=cell, pbc=True)
        while len(atoms) < n_atoms:
            number = NUMBERS[len(atoms)] if len(atoms) < len(NUMBERS) else int(rng.choice(NUMBERS))
            longer = atoms + Atoms([number], [rng.random(3) @ cell])
            distances = longer.get_all_distances(mic=True)[-1, :-1]
            if not len(distances) or distances.min() > 1.7:
                atoms = longer
        directions = rng.normal(size=(n_atoms, 3))
        lengths = rng.uniform(0.15, 0.85, n_atoms) * [MAX_MOMENTS[NUMBERS.index(z)] for z in atoms.numbers]
        yield atoms, directions * (lengths / np.linalg.norm(directions, axis=1))[:, None]


def largest_errors(out, program):
    """For each checkpoint and head: relative errors of the converted model, or why it is refused."""
    import numpy as np
    import torch

    from mmace_sim import MMACECalculator, load_model
    from mmace_sim.graph.atoms import set_magmoms

    rows = []
    for file in sorted(out.glob("*.json"), key=lambda path: int(path.stem.split("-")[0])):
        about = json.loads(file.read_text())
        for head, frames in about.pop("references").items():
            target = out / f"{file.stem}-{head}.safetensors"
            command = [
                program,
                "convert",
                file.with_suffix(".model"),
                target,
                "--dtype",
                "float64",
                "--head",
                head,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{about}: {done.stderr}")
            model, errors = load_model(target, dtype=torch.float64), dict.fromkeys(RESULTS, 0.0)
            for (atoms, moments), reference in zip(crystals(), frames, strict=True):
                set_magmoms(atoms, moments)
                atoms.calc = MMACECalculator(model)
                atoms.get_potential_energy()
                for key in RESULTS:
                    found = atoms.get_stress(voigt=False) if key == "stress" else atoms.calc.results[key]
                    expected = np.array(reference[key])
                    error = (
                        np.abs(np.reshape(found, expected.shape) - expected).max() / np.abs(expected).max()
                    )
                    errors[key] = max(errors[key], float(error))
            rows.append(
                about | {"head": head} | {key: float(f"{value:.1e}") for key, value in errors.items()}
            )
    return rows


def main():
    """Both halves, the first in the other interpreter."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--source", type=Path, required=True, help="folder that holds the authors' package mace"
    )
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter with torch, e3nn 0.4.4 and sphericart-torch"
    )
    parser.add_argument("--label", required=True, help="which code it is")
    parser.add_argument("--references", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.references:
        make_references(options.references)
        return
    record = Path(__file__).parents[2] / "docs" / "benchmarks" / "upstream_parity.json"
    with tempfile.TemporaryDirectory() as name:
        command = [
            options.python,
            "-W",
            "ignore",
            __file__,
            "--source",
            options.source,
            "--label",
            options.label,
        ]
        # e3nn 0.4.4 loads its constants as a pickle
        env = os.environ | {"PYTHONPATH": str(options.source), "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
        subprocess.run([*command, "--references", name], check=True, env=env, stdout=subprocess.DEVNULL)
        rows = largest_errors(Path(name), Path(sys.executable).with_name("mmace-sim"))
    kept = json.loads(record.read_text()) if record.exists() else {}
    record.write_text(json.dumps(kept | {options.label: rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
