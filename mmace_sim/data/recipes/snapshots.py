"""Candidates where the present model goes by itself: what it is wrong about there, it will meet."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from ase import Atoms

from mmace_sim.data.candidates import candidate, refusal
from mmace_sim.data.recipes.kitchen import Kitchen
from mmace_sim.data.recipes.lattice import enlarged
from mmace_sim.data.recipes.moments import mixed
from mmace_sim.graph.atoms import get_magmoms

EVERY: int = 20
"""Steps of dynamics between two snapshots, of 1 fs."""

STEPS: tuple[int, ...] = (10, 30, 100)
"""Relaxations end after so many steps, in turn, or earlier."""


def md(kitchen: Kitchen) -> Iterator[Atoms]:
    """Snapshots of molecular dynamics; moments precess and are damped, or are frozen in collinear states."""
    from mmace_sim.properties.md import MolecularDynamics

    roomy = enlarged(kitchen.atoms, kitchen.settings.max_atoms, kitchen.settings.max_atoms, kitchen.rng)
    dynamics = MolecularDynamics(
        kitchen.model,
        temperature=kitchen.settings.temperature,
        n_steps=EVERY * kitchen.count,
        record_every=EVERY,
        spins="frozen" if kitchen.settings.collinear or not get_magmoms(roomy).any() else "llg",
    )
    frames: list[Atoms] = []
    seed = int(kitchen.rng.integers(2**31))
    dynamics.run([roomy], seeds=[seed], on_frame=lambda _, frame: frames.append(frame.atoms))
    for atoms in frames[1:]:
        yield _held(atoms)


def relax(kitchen: Kitchen) -> Iterator[Atoms]:
    """Where mixed candidates relax to with all moments free, some on the way and some at the end."""
    from mmace_sim.engine.outcomes import UNUSABLE
    from mmace_sim.properties.relax.relaxation import Relaxation

    starts = [atoms for atoms in mixed(replace(kitchen, count=kitchen.count)) if not refusal(atoms)]
    for k, steps in enumerate(STEPS):
        some = starts[k :: len(STEPS)]
        if not some:
            continue
        relaxation = Relaxation(
            kitchen.model, max_steps=steps, stability=False, collinear=kitchen.settings.collinear
        )
        for result in relaxation.run(some):
            if result.status not in UNUSABLE:
                yield _held(result.atoms)


def _held(atoms: Atoms) -> Atoms:
    moments = get_magmoms(atoms)
    return candidate(atoms, moments, hold=np.linalg.norm(moments, axis=1) > 0)
