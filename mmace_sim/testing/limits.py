"""Limits that every magnetic potential respects, each as a function (probe, atoms, rng) → violation."""

import numpy as np
from ase import Atoms

from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.testing.prediction import MEV_PER_EV, Violation, worst
from mmace_sim.testing.probe import Probe, single_atom, transformed, with_magmoms
from mmace_sim.testing.structures import random_rotation, random_vectors

_BESIDE_CUTOFF = {False: 1e-6, True: 1e-4}
"""Distance to the cutoff radius at which both sides are compared, in Å, in double and single precision."""
_OVERSHOOT = (1.05, 1.5, 2.0, 5.0)
"""Moments, relative to the largest of the model, at which it must not blow up."""


def no_jump_at_cutoff(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> Violation:
    """Compare just before and just after one more atom leaves the range of a cluster."""
    if probe.r_max is None:
        raise ValueError("the cutoff radius of the potential is not known.")
    cluster = atoms.copy()
    cluster.pbc = False
    direction = random_vectors(rng, 1)[0]
    outermost = int(np.argmax(cluster.positions @ direction))
    number, predictions = int(rng.choice(probe.elements)), []
    magmom = 0.5 * probe.max_moment(number) * random_vectors(rng, 1)[0]
    beside = _BESIDE_CUTOFF[probe.single_precision]
    for offset in (-beside, beside):
        newcomer = single_atom(number, magmom)
        newcomer.positions[0] = cluster.positions[outermost] + (probe.r_max + offset) * direction
        predictions.append(probe.predict(_join(cluster, newcomer)))
    inside, outside = predictions
    return inside.violation(outside)


def isolated_atom(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> Violation:
    """Check that the energy of single atoms is E0 + E1(|m|), E1(0) = 0, and additive when they are far apart."""
    magmoms, numbers = get_magmoms(atoms), atoms.numbers.tolist()
    singles = [single_atom(z, m) for z, m in zip(numbers, magmoms, strict=True)]
    energies = probe.energies(singles)
    turned = probe.energies([transformed(s, spin=random_rotation(rng)) for s in singles])
    errors = [np.abs(turned - energies).max()]
    if probe.r_max is not None:
        apart = atoms.copy()
        apart.pbc = False
        apart.set_positions(3.0 * probe.r_max * np.arange(len(atoms))[:, None] * np.ones(3))
        errors.append(abs(energies.sum() - probe.energies([apart])[0]))
    for number in set(numbers):
        expected = probe.reference_energy(number)
        if expected is not None:
            errors.append(abs(probe.energies([single_atom(number)])[0] - expected))
    together, scale = probe.predict(atoms), 1e-4 * float(np.abs(energies).sum())
    return worst(*[together.error("energy", error, least_scale=scale) for error in errors])


def growth_above_max_moment(probe: Probe, atoms: Atoms, rng: np.random.Generator) -> Violation:  # noqa: ARG001
    """Measure how much the interaction grows when moments exceed the largest that the model was made for.

    Returns:
        Largest |E − Σ E(isolated atoms)| with all moments 1.05 to 5 times as long as the largest, divided by the
        largest one with moments between zero and the largest, and their difference as energy; infinite if not finite.
    """
    longest = np.array([probe.max_moment(z) for z in atoms.numbers.tolist()])
    magmoms = get_magmoms(atoms)
    lengths = np.linalg.norm(magmoms, axis=1, keepdims=True)
    directions = np.where(lengths > 0, magmoms / np.where(lengths > 0, lengths, 1.0), [0.0, 0.0, 1.0])

    def interactions(factors: tuple[float, ...]) -> np.ndarray:
        scaled = [with_magmoms(atoms, factor * longest[:, None] * directions) for factor in factors]
        together = probe.energies(scaled)
        alone = [
            probe.energies(
                [single_atom(z, m) for z, m in zip(s.numbers.tolist(), get_magmoms(s), strict=True)]
            ).sum()
            for s in scaled
        ]
        return np.abs(together - np.array(alone))

    above, below = interactions(_OVERSHOOT).max(), interactions((0.0, 0.25, 0.5, 0.75, 1.0)).max()
    if not (np.isfinite(above) and np.isfinite(below)):
        return Violation(np.inf, np.inf)
    ratio = float(above / max(below, 1e-8))
    return Violation(ratio, MEV_PER_EV * max(float(above - below), 0.0) / len(atoms))


def _join(cluster: Atoms, newcomer: Atoms) -> Atoms:
    joined = Atoms(
        numbers=np.concatenate([cluster.numbers, newcomer.numbers]),
        positions=np.concatenate([cluster.positions, newcomer.positions]),
        cell=cluster.cell,
        pbc=False,
    )
    return with_magmoms(joined, np.concatenate([get_magmoms(cluster), get_magmoms(newcomer)]))
