"""Chooses the candidates that teach a model most: uncertain ones, each far from the data and from those before it.

Atoms are compared by the coordinates in which the model tells the distance from its data
(`mmace_sim.model.uncertainty`): invariants of their surroundings, whitened by the data. Features of the last layer,
which are usual, forget what the data so far had no use for, and so do not tell apart what is new.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float, Int
from torch import Tensor

from mmace_sim.base.quantities import UNCERTAINTIES
from mmace_sim.data.candidates import refusal
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.error_sizes import max_of_systems
from mmace_sim.model.uncertainty import FAR, UNITS, Domain, evaluate_with_uncertainty, require_uncertainty
from mmace_sim.nn.surroundings import surroundings
from mmace_sim.training.calibration.novelty import fit_coordinates
from mmace_sim.training.evaluation.metrics import MILLI

RADIUS: float = 5.0
"""How far atoms are looked around where there is no model, in Å."""

LARGEST_FORCE: float = 30.0
"""Candidates on which a model has a larger force are left out, in eV/Å: nothing is learned from a nuclear repulsion."""

BATCH: int = 64

TOLD: dict[str, str] = {
    "energy": "energy",
    "forces": "forces",
    "magforces_length": "magnetic forces along the moment",
    "magforces_transverse": "magnetic forces across the moment",
}
"""Uncertainties that count, and what they are called."""


@dataclass
class Scores:
    """What decides for each candidate.

    Attributes:
        coordinates: Of all atoms.
        numbers: Atomic numbers of all atoms.
        system: Candidate of each atom.
        distance: Distance of each atom from the data; infinite without a model.
        sizes: By name of `TOLD`, the uncertainty of each candidate (the largest of its atoms); NaN where unknown.
        refused: By index, why a candidate is left out.
    """

    coordinates: Float[Tensor, "n_atoms n"]
    numbers: Int[Tensor, " n_atoms"]
    system: Int[Tensor, " n_atoms"]
    distance: Float[Tensor, " n_atoms"]
    sizes: dict[str, Float[np.ndarray, " n_candidates"]] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)

    def ratios(self) -> dict[str, Float[np.ndarray, " n_candidates"]]:
        """By name of `TOLD`, the uncertainties over their median; 1 where one is not known, nothing where none is."""
        found = {}
        for name, sizes in self.sizes.items():
            known = sizes[np.isfinite(sizes) & (sizes > 0)]
            if len(known):
                found[name] = np.nan_to_num(sizes / np.median(known), nan=1.0)
        return found


@dataclass(frozen=True)
class Choice:
    """One candidate that was chosen.

    Attributes:
        index: Which.
        score: Its uncertainty over the median, times its distance from the data and from those chosen before.
        distance: That distance, of its farthest atom.
        domain: Where it lies, seen from the data of the model; "" without a model.
        reason: Why, in words.
        sizes: Its uncertainties, by name of `TOLD`.
    """

    index: int
    score: float
    distance: float
    domain: str
    reason: str
    sizes: dict[str, float]


def score(candidates: Sequence[Atoms], model: MagneticModel | None = None) -> Scores:
    """Evaluate candidates.

    Args:
        candidates: Candidates with moments.
        model: A calibrated energy model; None: their surroundings alone.

    Returns:
        What decides. Candidates that are no states of matter, or that the model cannot evaluate, are refused.

    Raises:
        UncalibratedModelError: If the model does not tell what it does not know.
    """
    refused = {k: reason for k, atoms in enumerate(candidates) if (reason := refusal(atoms))}
    if model is None:
        return _unseen(candidates, refused)
    uncertainty = require_uncertainty(model)
    known = set(model.elements)
    usable = []
    for k, atoms in enumerate(candidates):
        if not set(atoms.numbers.tolist()) <= known:
            refused[k] = "elements that the model does not know"
        elif k not in refused:
            usable.append(k)
    parts: dict[str, list[Tensor]] = {name: [] for name in ("coordinates", "numbers", "system", "distance")}
    sizes = {name: np.full(len(candidates), np.nan) for name in TOLD}
    for start in range(0, len(usable), BATCH):
        chunk = usable[start : start + BATCH]
        graph = graph_from_atoms(
            [candidates[k] for k in chunk], model.r_max, device=model.device, dtype=model.dtype
        )
        found = evaluate_with_uncertainty(model, graph)
        rows = surroundings(
            graph.edge_vectors(), graph.edge_index, graph.atomic_numbers, graph.magmoms, model.r_max
        )
        index = torch.tensor(chunk, device=model.device)[graph.system_idx]
        parts["coordinates"].append(uncertainty.coordinates(rows, graph.atomic_numbers)[0])
        parts["numbers"].append(graph.atomic_numbers)
        parts["system"].append(index)
        parts["distance"].append(found["atom_distance"])
        _largest(sizes, found, index, chunk)
        _refuse_absurd(refused, found, index, chunk)
    joined = {
        name: torch.cat(values).detach().cpu() if values else torch.zeros(0) for name, values in parts.items()
    }
    if not usable:
        joined["coordinates"] = torch.zeros(0, 1)
        joined |= {name: torch.zeros(0, dtype=torch.long) for name in ("numbers", "system")}
    return Scores(**joined, sizes=sizes, refused=refused)


def select(
    candidates: Sequence[Atoms],
    n: int,
    scores: Scores,
    *,
    diverse_only: bool = False,
    taken: Sequence[int] = (),
) -> list[Choice]:
    """Choose greedily the candidate with the largest uncertainty times distance, until there are enough.

    Energy, forces and both parts of the magnetic forces have their turns, so that none is forgotten for the one whose
    uncertainties differ most.

    Args:
        candidates: Candidates.
        n: How many at most.
        scores: From `score`.
        diverse_only: Distances alone count.
        taken: Indices of candidates that are known already: they are not chosen, and distances from them count.

    Returns:
        What was chosen, the most valuable first. Copies of the data, and of one another, are not.
    """
    total = len(candidates)
    ratios = {} if diverse_only else {name: torch.as_tensor(sizes) for name, sizes in scores.ratios().items()}
    ratios = ratios or {"": torch.ones(total, dtype=torch.float64)}
    turns = cycle(ratios)
    nearest = scores.distance.double().clamp(max=FAR)
    allowed = torch.zeros(total, dtype=torch.bool)
    allowed[torch.unique(scores.system)] = True
    allowed[list(scores.refused)] = False
    for k in taken:
        allowed[k] = False
        _approach(nearest, k, scores)
    chosen: list[Choice] = []
    while len(chosen) < n and allowed.any():
        reach = max_of_systems(nearest, scores.system, total)
        turn = next(turns)
        worth = torch.where(allowed, ratios[turn] * reach, -torch.inf)
        k = int(worth.argmax())
        if worth[k] <= 1e-6:
            break
        sizes = {name: float(values[k]) for name, values in scores.sizes.items()}
        choice = Choice(
            k, float(worth[k]), float(reach[k]), *_reason(k, turn, ratios[turn], scores, candidates[k]), sizes
        )
        chosen.append(choice)
        allowed[k] = False
        _approach(nearest, k, scores)
    return chosen


def _approach(nearest: Tensor, k: int, scores: Scores) -> None:
    """Let the distances of all atoms know of a candidate."""
    own = scores.system == k
    for z in torch.unique(scores.numbers[own]).tolist():
        same = scores.numbers == z
        apart = torch.cdist(scores.coordinates[same], scores.coordinates[own & same]).amin(dim=1)
        nearest[same] = torch.minimum(nearest[same], apart.double())


def random_choice(candidates: Sequence[Atoms], n: int, seed: int) -> list[int]:
    """Choose at random, to compare with.

    Args:
        candidates: Candidates.
        n: How many at most.
        seed: Of the random numbers.
    """
    usable = [k for k, atoms in enumerate(candidates) if not refusal(atoms)]
    return np.random.default_rng(seed).permutation(usable)[:n].tolist()


def _unseen(candidates: Sequence[Atoms], refused: dict[int, str]) -> Scores:
    """Coordinates from the candidates themselves."""
    usable = [k for k in range(len(candidates)) if k not in refused]
    if not usable:
        empty = torch.zeros(0, dtype=torch.long)
        return Scores(torch.zeros(0, 1), empty, empty, torch.zeros(0), refused=refused)
    rows, numbers, system = [], [], []
    for start in range(0, len(usable), BATCH):
        chunk = usable[start : start + BATCH]
        graph = graph_from_atoms([candidates[k] for k in chunk], RADIUS)
        rows.append(
            surroundings(graph.edge_vectors(), graph.edge_index, graph.atomic_numbers, graph.magmoms, RADIUS)
        )
        numbers.append(graph.atomic_numbers)
        system.append(torch.tensor(chunk)[graph.system_idx])
    joined = torch.cat(numbers)
    coordinates = fit_coordinates(torch.cat(rows), joined)[2]
    first = torch.full((len(joined),), FAR)
    return Scores(coordinates, joined, torch.cat(system), first, refused=refused)


def _largest(sizes: dict, found: dict[str, Tensor], index: Tensor, chunk: list[int]) -> None:
    """The uncertainty of each structure: its own, or the largest of its atoms."""
    for name in TOLD:
        values = found[UNCERTAINTIES[name]].detach().cpu().double()
        if len(values) == len(chunk) and name == "energy":
            sizes[name][chunk] = values.numpy()
            continue
        top = max_of_systems(values, index.cpu(), len(sizes[name]))
        sizes[name][chunk] = top[chunk].numpy()


def _refuse_absurd(
    refused: dict[int, str], found: dict[str, Tensor], index: Tensor, chunk: list[int]
) -> None:
    forces = torch.linalg.norm(found["forces"].detach(), dim=1).cpu()
    for k in chunk:
        largest = float(forces[index.cpu() == k].max())
        if not largest <= LARGEST_FORCE:
            refused[k] = f"a force of {largest:.3g} eV/Å by the model, beyond {LARGEST_FORCE:g} eV/Å"


def _reason(k: int, turn: str, ratios: Tensor, scores: Scores, atoms: Atoms) -> tuple[str, str]:
    """Where a choice lies, and why it was made."""
    if not scores.sizes:
        return "", "unlike those before it"
    own = scores.distance[scores.system == k]
    atom = int(own.argmax())
    domain = str(Domain.at(float(own.max())))
    where = f"{domain} of the data ({atoms.symbols[atom]} {atom} at {float(own.max()):.2f})"
    if not turn or not np.isfinite(scores.sizes[turn][k]):
        return domain, where
    size = MILLI * scores.sizes[turn][k]
    return domain, f"{where}; {TOLD[turn]} ±{size:.3g} {UNITS[turn]}, {float(ratios[k]):.1f} times the median"
