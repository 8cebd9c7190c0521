"""Limits that every magnetic model respects, each as a function (probe, atoms, rng) → relative violation."""

import numpy as np
from ase import Atoms

from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.testing.probe import Probe, single_atom, transformed
from mmace_sim.testing.structures import random_rotation, random_vectors

_BESIDE_CUTOFF = 1e-6
"""Distance to the cutoff radius at which both sides are compared, in Å."""
_OVERSHOOT = (1.05, 1.5, 2.0, 5.0)
"""Moments, relative to the largest of the model, at which it must not blow up."""


def no_jump_at_cutoff(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> float:
    """Compare just before and just after one more atom leaves the range of a cluster."""
    cluster = atoms.copy()
    cluster.pbc = False
    direction = random_vectors(rng, 1)[0]
    outermost = int(np.argmax(cluster.positions @ direction))
    number, predictions = int(rng.choice(probe.elements)), []
    for offset in (-_BESIDE_CUTOFF, _BESIDE_CUTOFF):
        newcomer = single_atom(number, (0.3, -0.7, 1.1))
        newcomer.positions[0] = cluster.positions[outermost] + (probe.r_max + offset) * direction
        predictions.append(probe.predict(_join(cluster, newcomer)))
    inside, outside = predictions
    inside.stress = outside.stress = np.zeros((3, 3))  # the cell means nothing for a cluster
    return inside.violation(outside)


def isolated_atom(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> float:
    """Check that the energy of single atoms is E0 + E1(|m|), E1(0) = 0, and additive when they are far apart."""
    magmoms = get_magmoms(atoms)
    singles = [single_atom(z, m) for z, m in zip(atoms.numbers.tolist(), magmoms, strict=True)]
    energies = probe.energies(singles)
    turned = probe.energies([transformed(s, spin=random_rotation(rng)) for s in singles])
    apart = atoms.copy()
    apart.pbc = False
    apart.set_positions(3.0 * probe.r_max * np.arange(len(atoms))[:, None] * np.ones(3))
    scale = max(probe.predict(atoms).energy_scale, 1e-4 * float(np.abs(energies).sum()))
    errors = [np.abs(turned - energies).max(), abs(energies.sum() - probe.energies([apart])[0])]
    expected = reference_energies(probe, atoms.numbers)
    if expected is not None:
        nothing = probe.energies([single_atom(z) for z in atoms.numbers.tolist()])
        errors.append(np.abs(nothing - expected).max())
    worst = float(max(errors)) / scale
    return worst if np.isfinite(worst) else np.inf


def reference_energies(probe: Probe, numbers: np.ndarray) -> np.ndarray | None:
    """Look up E0 of some atoms where the model tells it.

    Args:
        probe: Model.
        numbers: Atomic numbers.

    Returns:
        Energies in eV, or None.
    """
    model = probe.model
    if hasattr(model, "energy_per_atom"):
        return np.full(len(numbers), float(model.energy_per_atom))
    if hasattr(model, "reference"):
        species = model.species_table.cpu().numpy()[numbers]
        return model.reference.atomic_energies.detach().double().cpu().numpy()[species]
    return None


def growth_above_max_moment(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> float:  # noqa: ARG001
    """Measure how much the interaction grows when moments exceed the largest that the model was made for.

    Returns:
        Largest |E − Σ E(isolated atoms)| with all moments 1.05 to 5 times as long as the largest, divided by
        the largest one with moments between zero and the largest; infinite if not finite.
    """
    longest = np.array([probe.max_moment(z) for z in atoms.numbers.tolist()])
    magmoms = get_magmoms(atoms)
    lengths = np.linalg.norm(magmoms, axis=1, keepdims=True)
    directions = np.where(lengths > 0, magmoms / np.where(lengths > 0, lengths, 1.0), [0.0, 0.0, 1.0])

    def interactions(factors: tuple[float, ...]) -> np.ndarray:
        scaled = []
        for factor in factors:
            scaled.append(atoms.copy())
            set_magmoms(scaled[-1], factor * longest[:, None] * directions)
        together = probe.energies(scaled)
        alone = [
            probe.energies(
                [single_atom(z, m) for z, m in zip(s.numbers.tolist(), get_magmoms(s), strict=True)]
            ).sum()
            for s in scaled
        ]
        return np.abs(together - np.array(alone))

    above, below = interactions(_OVERSHOOT).max(), interactions((0.0, 0.25, 0.5, 0.75, 1.0)).max()
    return float(above / below) if np.isfinite(above) and np.isfinite(below) else np.inf


def _join(cluster: Atoms, newcomer: Atoms) -> Atoms:
    joined = Atoms(
        numbers=np.concatenate([cluster.numbers, newcomer.numbers]),
        positions=np.concatenate([cluster.positions, newcomer.positions]),
        cell=cluster.cell,
        pbc=False,
    )
    set_magmoms(joined, np.concatenate([get_magmoms(cluster), get_magmoms(newcomer)]))
    return joined
