"""Which way of telling the size of errors, and of telling strange structures from known ones, is honest: all data sets.

::

    python tests/benchmarks/uncertainty.py DATA CACHE [--sets ...]     # writes docs/benchmarks/uncertainty.json

DATA is the folder with one folder for each set, CACHE one for what was evaluated (some minutes per set). Models are those
of ``docs/accuracy/models`` (seed 0, and seed 1 as the other member of a committee), the embedded model of iron for `fe-cdft`, and
for `mag3d` one that is trained into CACHE first. Everything is fitted to training and validation structures and judged on
test structures.
"""

import argparse
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from record import MODEL, environment
from strange import STRANGE
from torch import Tensor

from mmace_sim.base.quantities import UNCERTAINTIES
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.io.frames import Frame, read_frames
from mmace_sim.model.checkpoint import load_model
from mmace_sim.model.derivatives import evaluate
from mmace_sim.model.error_sizes import max_of_systems
from mmace_sim.model.uncertainty import TARGETS
from mmace_sim.nn.surroundings import surroundings
from mmace_sim.training.calibration.calibrate import fit_uncertainty, rank_correlation
from mmace_sim.training.calibration.evidence import Evidence, gather
from mmace_sim.training.calibration.files import judge_uncertainty
from mmace_sim.training.calibration.novelty import choose_landmarks, fit_coordinates, nearest_of_others

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "docs" / "accuracy" / "models"
EXAMPLES = ROOT / "examples" / "data"
OUTPUT = ROOT / "docs" / "benchmarks" / "uncertainty.json"
PAGE = ROOT / "docs" / "uncertainty.md"
MAGFORCE_ELEMENTS = {"nio_deltaspin": ["Ni"], "fege_b20_nc_fixedlattice": ["Fe"]}
SETS = (
    "fe-cdft", "mag3d", "fe_fcc_deltaspin", "fe_bcc_nc_fixedlattice", "nio_deltaspin", "fege_b20_nc_fixedlattice",
    "fe_snap_npj2021",
)  # fmt: skip
LIMITS = {"train": 400, "valid": 100, "test": 150}
N_STRANGE = 20
SMALL = 100
"""Atoms of a test set below which it is also judged by halves."""
N_HALVES = 6


def files(data: Path, name: str, part: str) -> list[Path]:
    """Files of a part of a set."""
    if name == "fe-cdft":
        return [EXAMPLES / f"fe-cdft-{part}.extxyz.xz"]
    if name == "mag3d":
        return [EXAMPLES / "mag3d-gpaw" / f"{part}.extxyz.xz"]
    return [data / name / f"{part}.extxyz"]


def frames_of(data: Path, name: str, part: str) -> list[Frame]:
    """At most so many structures of a part, chosen at random but always the same."""
    frames, limit = read_frames(files(data, name, part)).frames, LIMITS[part]
    if len(frames) <= limit:
        return frames
    return [frames[k] for k in np.random.default_rng(0).permutation(len(frames))[:limit]]


def members(cache: Path, name: str) -> list[Path | str]:
    """The model of a set, and the other member of a committee if there is one."""
    if name == "fe-cdft":
        return [MODEL]
    if name == "mag3d":
        return [trained_mag3d(cache)]
    return [MODELS / f"{name}-ours-{seed}.safetensors" for seed in (0, 1)]


def trained_mag3d(cache: Path) -> Path:
    """The model of mag3d: 60 epochs, six minutes."""
    from mmace_sim.training.config import TrainConfig
    from mmace_sim.training.trainer import train

    path = cache / "mag3d" / "model.safetensors"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "data": {f"{part}_file": files(cache, "mag3d", part) for part in LIMITS},
            "model": {
                "num_interactions": 1,
                "hidden_irreps": "32x0e",
                "spin_channels": 16,
                "radial_mlp": [16],
            },
            "optimizer": {"lr": 0.01, "ema_decay": 0.99, "lr_final": 0.01},
            "trainer": {"max_epochs": 60, "batch_size": 4, "valid_every": 5, "device": "cpu"},
        }
        train(TrainConfig.model_validate(content), path.parent)
    return path


OWN_PHASES = {"fe-cdft": ("phase bcc", "phase fcc"), "fe_snap_npj2021": ("phase bcc",)}
"""Crystals that a set holds itself."""


# What is evaluated, and kept in the cache ------------------------------------------------------------------------


def hidden_features(model: Any, structures: list[Atoms]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Surroundings, inputs of the readouts, elements and structure of each atom."""
    seen: dict[int, Tensor] = {}
    hooks = [
        readout.register_forward_pre_hook(lambda _, args, k=k: seen.__setitem__(k, args[0]))
        for k, readout in enumerate(model.readouts)
    ]
    parts = []
    for k, atoms in enumerate(structures):
        graph = graph_from_atoms(atoms, model.r_max)
        with torch.no_grad():
            model(graph)
            rows = surroundings(
                graph.edge_vectors(), graph.edge_index, graph.atomic_numbers, graph.magmoms, model.r_max
            )
        hidden = torch.cat([seen[j] for j in sorted(seen)], dim=1)
        parts.append((rows, hidden, graph.atomic_numbers, torch.full((len(atoms),), k)))
    for hook in hooks:
        hook.remove()
    return tuple(torch.cat(columns) for columns in zip(*parts, strict=True))


def with_moments(frames: list[Frame]) -> list[Atoms]:
    """Structures that carry the moments of their labels."""
    structures = [frame.atoms.copy() for frame in frames]
    for atoms, frame in zip(structures, frames, strict=True):
        set_magmoms(atoms, frame.magmoms)
    return structures


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What was made before, or is made now."""
    if not path.is_file():
        path.write_bytes(pickle.dumps(make()))
    return pickle.loads(path.read_bytes())


def gathered(data: Path, cache: Path, name: str) -> dict[str, Any]:
    """Everything that is evaluated for a set."""
    models = [load_model(member) for member in members(cache, name)]
    frames = {part: frames_of(data, name, part) for part in LIMITS}
    elements = MAGFORCE_ELEMENTS.get(name)
    return {
        "evidence": kept(
            cache / f"{name}-evidence.pkl",
            lambda: {p: gather(models[0], own, magforce_elements=elements) for p, own in frames.items()},
        ),
        "hidden": kept(
            cache / f"{name}-hidden.pkl",
            lambda: {p: hidden_features(models[0], with_moments(own)) for p, own in frames.items()},
        ),
        "strange": kept(
            cache / f"{name}-strange.pkl", lambda: strange_features(models[0], name, frames["test"])
        ),
        "spread": kept(
            cache / f"{name}-spread.pkl",
            lambda: committee(models, frames["test"], elements) if len(models) > 1 else None,
        ),
    }


def strange_features(model: Any, name: str, frames: list[Frame]) -> dict[str, tuple[Tensor, ...]]:
    """Features of structures of other kinds."""
    rng, found = np.random.default_rng(1), {}
    start = [atoms for atoms in with_moments(frames) if atoms.pbc.all()][:N_STRANGE]
    for kind, make in STRANGE.items():
        made = [strange for atoms in start if (strange := make(atoms, rng)) is not None]
        if kind == "doubled moments":
            made = [atoms for atoms in made if beyond(model, atoms)]
        if made and kind not in OWN_PHASES.get(name, ()):
            found[kind] = hidden_features(model, made)
    return found


def beyond(model: Any, atoms: Atoms) -> bool:
    """Whether a moment is above all of the training data."""
    largest = np.array([model.config.max_moment.get(z, 0.0) for z in atoms.numbers.tolist()])
    return bool((np.linalg.norm(get_magmoms(atoms), axis=1) > 1.05 * largest + 0.2).any())


def committee(models: list[Any], frames: list[Frame], elements: list[str] | None) -> dict[str, Tensor]:
    """Differences of two members, as errors of one against the other."""
    for frame in frames:
        out = evaluate(models[1], graph_from_atoms(with_moments([frame]), models[1].r_max))
        frame.labels = {k: out[k].numpy() for k in ("forces", "magforces")} | {
            "energy": out["energy"].numpy()[0], "stress": out["stress"].numpy()[0],
        }  # fmt: skip
    return gather(models[0], frames, magforce_elements=elements).errors


# What is found ----------------------------------------------------------------------------------------------------


def joined(first: Evidence, second: Evidence) -> Evidence:
    """Structures of two sets as one."""
    names = ("rows", "numbers", "sizes", "composition")
    both = {name: torch.cat([getattr(first, name), getattr(second, name)]) for name in names}
    errors = {target: torch.cat([first.errors[target], second.errors[target]]) for target in first.errors}
    return Evidence(**both, system=torch.cat([first.system, second.system + first.n_systems]), errors=errors)


def root_mean_square(errors: Tensor) -> Tensor:
    """Of the components of each row; NaN where there is none."""
    return errors.square().nanmean(dim=1).sqrt()


def correlation(sigma: Tensor, errors: Tensor) -> float | None:
    """Rank correlation where both are known."""
    known = ~torch.isnan(sigma) & ~torch.isnan(errors)
    value = rank_correlation(sigma[known], errors[known]) if int(known.sum()) >= 5 else None
    return None if value is None else round(value, 2)


def sizes_of_errors(found: dict[str, Any]) -> dict[str, Any]:
    """Coverage of the regression and rank correlations of all ways, for each target."""
    evidence = found["evidence"]
    known = joined(evidence["train"], evidence["valid"])
    fresh = torch.arange(known.n_systems) >= evidence["train"].n_systems
    fitted, test = fit_uncertainty(known, fresh), evidence["test"]
    sigma = fitted.predict(test.rows, test.numbers, test.sizes, test.system, test.n_systems)
    rigidity = rigidities(found)
    table = {}
    for target in TARGETS:
        errors = test.errors[target]
        own, wrong = sigma[UNCERTAINTIES[target]], root_mean_square(errors)
        inside = (errors.abs() <= own[:, None])[~torch.isnan(errors) & ~torch.isnan(own)[:, None]]
        if not len(inside):
            continue
        per_atom = len(wrong) == len(test.system)
        table[target] = {
            "count": len(inside),
            "coverage": round(float(inside.double().mean()), 3),
            "regression": correlation(own, wrong),
            "distance": correlation(sigma["atom_distance" if per_atom else "distance"], wrong),
            "rigidity": correlation(rigidity["atom" if per_atom else "structure"], wrong),
        }
        if found["spread"] is not None:
            table[target]["committee"] = correlation(root_mean_square(found["spread"][target]), wrong)
    shares = {
        "inside": (sigma["distance"] <= 1).double().mean(),
        "outside": (sigma["distance"] > 2).double().mean(),
    }
    if len(test.numbers) < SMALL:
        for target, share in by_halves(found).items():
            table[target]["coverage, halves"] = share
    return {"targets": table, "test": {k: round(float(v), 3) for k, v in shares.items()}}


def selected(evidence: Evidence, keep: Tensor) -> Evidence:
    """Some structures of a set.

    Args:
        evidence: All.
        keep: Whether each is wanted.
    """
    atoms = keep[evidence.system]
    errors = {
        target: errors[atoms if len(errors) == len(atoms) else keep]
        for target, errors in evidence.errors.items()
    }
    return Evidence(
        rows=evidence.rows[atoms],
        numbers=evidence.numbers[atoms],
        sizes=evidence.sizes[atoms],
        system=(torch.cumsum(keep.long(), 0) - 1)[evidence.system[atoms]],
        composition=evidence.composition[keep],
        errors=errors,
    )


def by_halves(found: dict[str, Any]) -> dict[str, float]:
    """Coverage of each target where half of the test structures join the validation, mean of some random halves."""
    evidence, shares = found["evidence"], {target: [0, 0] for target in TARGETS}
    for seed in range(N_HALVES):
        order = np.random.default_rng(seed).permutation(evidence["test"].n_systems)
        first = torch.from_numpy(order % 2 == 0)
        known = joined(joined(evidence["train"], evidence["valid"]), selected(evidence["test"], first))
        fresh = torch.arange(known.n_systems) >= evidence["train"].n_systems
        test = selected(evidence["test"], ~first)
        fitted = fit_uncertainty(known, fresh)
        sigma = fitted.predict(test.rows, test.numbers, test.sizes, test.system, test.n_systems)
        for target, counts in shares.items():
            own, errors = sigma[UNCERTAINTIES[target]], test.errors[target]
            known_ones = ~torch.isnan(errors) & ~torch.isnan(own)[:, None]
            counts[0] += int((errors.abs() <= own[:, None])[known_ones].sum())
            counts[1] += int(known_ones.sum())
    return {target: round(a / b, 3) for target, (a, b) in shares.items() if b}


def rigidities(found: dict[str, Any]) -> dict[str, Tensor]:
    """Last-layer prediction rigidity: φᵀ(ΣφφT + ς²)⁻¹φ of the inputs of the readouts, energies as training data."""
    (_, train, _, system), (_, test, _, test_system) = found["hidden"]["train"], found["hidden"]["test"]

    def means(rows: Tensor, owner: Tensor) -> Tensor:
        n = int(owner.max()) + 1
        counts = torch.bincount(owner, minlength=n)[:, None]
        return torch.zeros(n, rows.shape[1], dtype=rows.dtype).index_add(0, owner, rows) / counts

    phi, unit = means(train, system), means(train, system).abs().mean(dim=0) + 1e-9
    phi = phi / unit
    matrix = phi.T @ phi
    inverse = torch.linalg.inv(matrix + 1e-4 * matrix.trace() / len(matrix) * torch.eye(len(matrix)))
    return {
        name: torch.einsum("ni,ij,nj->n", rows / unit, inverse, rows / unit).sqrt()
        for name, rows in (("atom", test), ("structure", means(test, test_system)))
    }


def area(known: Tensor, strange: Tensor) -> float:
    """AUROC: probability that a strange structure is farther than a known one."""
    wins = (strange[:, None] > known).double() + 0.5 * (strange[:, None] == known).double()
    return round(float(wins.mean()), 3)


class Distance:
    """Distances from the structures of some parts, in one of the spaces of features.

    Args:
        parts: Features of the parts.
        column: Which features: 0 for surroundings, 1 for inputs of the readouts.
    """

    def __init__(self, parts: list[tuple[Tensor, ...]], column: int) -> None:
        first = int(parts[0][3].max()) + 1
        rows, numbers = (torch.cat([p[k] for p in parts]) for k in (column, 2))
        system = torch.cat([parts[0][3], parts[1][3] + first])
        self.column, self.numbers, self.system = column, numbers, system
        self.elements = torch.unique(numbers)
        self.means, self.matrix, self.coordinates, _ = fit_coordinates(rows, numbers)
        self.marks = choose_landmarks(self.coordinates, numbers, 800)

    def farthest(self, part: tuple[Tensor, ...]) -> Tensor:
        """Distance of the farthest atom of each structure."""
        rows, numbers, system = part[self.column], part[2], part[3]
        new = (rows - self.means[torch.searchsorted(self.elements, numbers)]) @ self.matrix
        both = torch.cat([self.coordinates, new])
        others = torch.cat([self.system, system + len(self.system)])  # none is one of the known ones
        all_numbers, empty = torch.cat([self.numbers, numbers]), torch.empty(0)
        evidence = Evidence(both, all_numbers, empty, others, empty, {})
        distance = nearest_of_others(both, evidence, self.marks)[len(self.system) :]
        return max_of_systems(distance, system, int(system.max()) + 1)


def strangers(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """AUROC of every kind, by surroundings and by the inputs of the readouts."""
    table: dict[str, dict[str, float]] = {}
    for column, way in ((0, "surroundings"), (1, "last layer")):
        distance = Distance([found["hidden"][part] for part in ("train", "valid")], column)
        held_out = distance.farthest(found["hidden"]["test"])
        for kind, part in found["strange"].items():
            table.setdefault(kind, {})[way] = area(held_out, distance.farthest(part))
    return table


def foreign(data: Path) -> dict[str, Any]:
    """How honest the embedded model of iron is on other people's calculations of iron: forces and stress of two cells each."""
    frames = read_frames([data / "fe_snap_npj2021" / "train.extxyz"]).frames
    found = {}
    for kind in ("point_def", "MD_bcc_Te300K", "liquid_nonmag"):
        some = [frame for frame in frames if frame.config_type == kind][:2]
        for frame in some:
            del frame.labels["energy"]
        found[kind] = judge_uncertainty(load_model(MODEL), some)
    return found


def page(content: dict[str, Any]) -> None:
    """Put the tables into docs/uncertainty.md."""

    def shown(value: float | None) -> str:
        return "–" if value is None else f"{value:.2f}"

    lines = ["| set | error of | values | within 1 σ | regression | distance | rigidity | committee of 2 |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for name, found in content["sets"].items():
        for target, told in found["targets"].items():
            ways = (shown(told.get(way)) for way in ("regression", "distance", "rigidity", "committee"))
            share = f"{100 * told['coverage']:.0f} %"
            if "coverage, halves" in told:
                share += f" ({100 * told['coverage, halves']:.0f} %)"
            cells = (
                name,
                target.replace("_", ", "),
                str(told["count"]),
                share,
                *ways,
            )
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| set | kind | surroundings | last layer |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {kind} | {shown(told['surroundings'])} | {shown(told['last layer'])} |"
        for name, found in content["sets"].items()
        for kind, told in found["auroc"].items()
    ]
    text = PAGE.read_text(encoding="utf-8")
    begin, end = ("<!-- generated: begin -->", "<!-- generated: end -->")
    before, rest = text.split(begin)
    tables = "\n".join(lines)
    PAGE.write_text(f"{before}{begin}\n\n{tables}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")


def main() -> None:
    """Measure the sets that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--sets", nargs="*", default=SETS, choices=SETS)
    arguments = parser.parse_args()
    arguments.cache.mkdir(exist_ok=True)
    content = json.loads(OUTPUT.read_text()) if OUTPUT.is_file() else {"sets": {}}
    content |= {f"{MODEL} on fe_snap_npj2021": foreign(arguments.data), "environment": environment()}
    OUTPUT.write_text(json.dumps(content, indent=1) + "\n")
    for name in arguments.sets:
        found = gathered(arguments.data, arguments.cache, name)
        content["sets"][name] = sizes_of_errors(found) | {"auroc": strangers(found)}
        OUTPUT.write_text(json.dumps(content, indent=1) + "\n")
        page(content)


if __name__ == "__main__":
    main()
