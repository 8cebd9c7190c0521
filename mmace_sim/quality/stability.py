"""Whether a model that was just trained can be used: errors on a test set say nothing of wells outside of the data."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from mmace_sim.engine.outcomes import UNUSABLE
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.data_range import DataRange, data_range, interaction_energy_per_atom
from mmace_sim.model.derivatives import evaluate
from mmace_sim.model.spin_space import SpinSpaceModel
from mmace_sim.properties.relax.structures import relax
from mmace_sim.testing.identities import IDENTITIES, measure_identities
from mmace_sim.testing.structures import random_vectors

ALWAYS: tuple[str, ...] = ("supercell", "batch_equals_single", "forces", "stress", "magforces")
"""Identities that every architecture obeys; those with spin and space factorised obey all."""
N_RANDOM: int = 20
SHORTEST: float = 0.7
"""Random structures to try, and their shortest distance, in Å."""
LEAST_FALL: float = 0.1
"""A fall by this energy is never suspicious, in eV/atom: data of one lattice constant span less than a relaxation."""
MAX_STEPS: int = 100
MIN_STEPS: int = 20


@dataclass(frozen=True)
class StabilityReport:
    """What the test found.

    Attributes:
        problems: Reasons not to use the model; none if it passed.
        n_relaxed: Structures of the data that were relaxed.
        n_random: Random structures with short distances.
        largest_fall: Largest energy that was gained by a relaxation, in eV/atom.
        seconds: Duration.
    """

    problems: list[str]
    n_relaxed: int
    n_random: int
    largest_fall: float
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against the model."""
        return not self.problems

    @property
    def message(self) -> str:
        """The verdict in a sentence."""
        if self.passed:
            return f"stability test passed: {self.n_relaxed} relaxations, {self.n_random} random structures"
        return f"do not use it, because {'; '.join(self.problems)}"

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"passed": self.passed, **asdict(self)}


def check_stability(
    models: Mapping[str, MagneticModel],
    structures: Mapping[str, Sequence[Atoms]],
    *,
    seconds: float = 30.0,
    seed: int = 0,
) -> StabilityReport:
    """Look for violated identities and for energies that no data support.

    Structures of the data are relaxed with everything free, and random ones with short distances are evaluated: no
    energy may fall by more than the data span.

    Args:
        models: The model with each of its heads alone, in float64, with the range of its data in the metadata.
        structures: Structures with moments that each head was trained on.
        seconds: About how long relaxations may take.
        seed: Seed of the random structures.

    Returns:
        The verdict; nothing raises.
    """
    start = time.perf_counter()
    problems = _violations(next(iter(models.values())))
    n_relaxed, n_random, falls = 0, 0, [0.0]
    for head, model in models.items():
        known, where = data_range(model), f" (head {head})" if len(models) > 1 else ""
        if known is None:
            continue
        found, random = (
            _random_problems(model, known, seed),
            _relax(model, known, structures[head], seconds / len(models)),
        )
        n_random += N_RANDOM
        n_relaxed += random[1]
        falls.append(random[2])
        problems += [f"{problem}{where}" for problem in found + random[0]]
    return StabilityReport(problems, n_relaxed, n_random, max(falls), time.perf_counter() - start)


def _violations(model: MagneticModel) -> list[str]:
    """Identities that the model should obey and does not."""
    names = [name for name in IDENTITIES if name != "training_gradient"]
    if not isinstance(model, SpinSpaceModel):  # the published function violates some by construction
        names = [*ALWAYS, *(["growth_above_max_moment"] if getattr(model.config, "saturate", False) else [])]
    names = [name for name in names if name not in model.metadata.get("violations", {})]
    measured = measure_identities(model, names=names, n_structures=2)
    return [
        f'"{IDENTITIES[name].statement}" is violated by {value:.1e} (mmace-sim check)'
        for name, value in measured.items()
        if not value <= IDENTITIES[name].tolerance
    ]


def _lowest(known: DataRange) -> float:
    """Lowest credible energy above isolated atoms, in eV/atom."""
    return known.interaction_energy_per_atom[0] - max(known.energy_width, LEAST_FALL)


def _random_problems(model: MagneticModel, known: DataRange, seed: int) -> list[str]:
    """Energies of random structures that are too low or not finite."""
    rng = np.random.default_rng(seed)
    crowds = [_crowd(model, rng) for _ in range(N_RANDOM)]
    graph = graph_from_atoms(crowds, model.r_max, device=model.device, dtype=model.dtype)
    totals = evaluate(model, graph, compute_forces=False, compute_stress=False, compute_magforces=False)[
        "energy"
    ]
    energies = np.array(
        [
            interaction_energy_per_atom(model, e, a.numbers.tolist())
            for e, a in zip(totals.tolist(), crowds, strict=True)
        ]
    )
    if not np.isfinite(energies).all():
        return [f"energies of {(~np.isfinite(energies)).sum()} random structures are not finite"]
    low = energies < _lowest(known)
    if not low.any():
        return []
    k = int(energies.argmin())
    shortest = neighbor_list("d", crowds[k], 6.0).min()
    return [
        f"{low.sum()} of {N_RANDOM} random structures with short distances lie below all that the data know, at worst "
        f"by {known.interaction_energy_per_atom[0] - energies[k]:.3g} eV/atom (shortest distance {shortest:.2f} Å)"
    ]


def _crowd(model: MagneticModel, rng: np.random.Generator) -> Atoms:
    """A random cell of one to six atoms, some of them far too close."""
    while True:
        numbers = rng.choice(model.elements, size=int(rng.integers(1, 7)))
        radius = covalent_radii[numbers].mean()
        edge = (len(numbers) * rng.uniform(0.8, 6.0) * radius**3) ** (1 / 3)
        atoms = Atoms(
            numbers, scaled_positions=rng.uniform(size=(len(numbers), 3)), cell=[edge] * 3, pbc=True
        )
        distances = neighbor_list("d", atoms, SHORTEST)
        if len(distances) == 0:
            break
    scale = np.array([model.max_moment[model.elements.index(int(z))].item() for z in numbers])
    set_magmoms(
        atoms, scale[:, None] * rng.uniform(size=(len(numbers), 1)) * random_vectors(rng, len(numbers))
    )
    return atoms


def _relax(
    model: MagneticModel, known: DataRange, structures: Sequence[Atoms], seconds: float
) -> tuple[list[str], int, float]:
    """Problems of relaxations of structures of the data, how many were relaxed, and the largest fall in eV/atom."""
    chosen, steps = _affordable(model, structures, seconds)
    problems, falls = [], []
    allowed = max(known.energy_width, LEAST_FALL)
    for result in relax(chosen, model, max_steps=steps):
        name = result.initial_atoms.get_chemical_formula()
        if result.status in UNUSABLE:
            problems.append(f"the relaxation of {name} ends as {result.status}: {result.message}")
            continue
        falls.append((result.energy_initial - result.energy) / len(result.atoms))
        final = interaction_energy_per_atom(model, result.energy, result.atoms.numbers.tolist())
        if falls[-1] > allowed or final < _lowest(known):
            longest = np.linalg.norm(get_magmoms(result.atoms), axis=1).max()
            problems.append(
                f"{name} of its own data falls by {falls[-1]:.3g} eV/atom when relaxed (the data span "
                f"{known.energy_width:.3g}), with moments up to {longest:.2f} μB"
            )
    return problems[:3], len(chosen), max(falls, default=0.0)


def _affordable(model: MagneticModel, structures: Sequence[Atoms], seconds: float) -> tuple[list[Atoms], int]:
    """Structures, the smallest first, and steps that fit into the time."""
    chosen: list[Atoms] = []
    spent = 0.0
    for atoms in sorted(structures, key=len):
        graph = graph_from_atoms(atoms, model.r_max, device=model.device, dtype=model.dtype)
        if not chosen:
            evaluate(model, graph)  # the first evaluation takes longer than the others
        start = time.perf_counter()
        evaluate(model, graph)
        cost = time.perf_counter() - start
        if chosen and (spent + cost) * MIN_STEPS > seconds:
            break
        chosen.append(atoms)
        spent += cost
    return chosen, int(np.clip(seconds / max(spent, 1e-9), MIN_STEPS, MAX_STEPS))
