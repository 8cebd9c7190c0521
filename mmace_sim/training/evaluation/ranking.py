"""Does a model put the magnetic states of one crystal into the right order of energy?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from jaxtyping import Float
from scipy.stats import spearmanr

from mmace_sim.graph.spglib_call import call_spglib
from mmace_sim.io.frames import Frame
from mmace_sim.training.evaluation.errors import StructureErrors

GEOMETRY_TOL: float = 0.01
"""Geometries whose cell vectors and positions differ by less (Å) are the same."""

RESOLUTION: float = 0.001
"""Energies closer than this (eV/atom) in the reference have no order."""

MOMENT_DIFFERENCE: float = 0.1
"""Moments that differ by less (μB), as they are or all reversed, are the same state."""

MAX_PRIMITIVE: int = 16
"""Crystals with more atoms in the primitive cell are not looked for in other settings of the cell."""

_SPEARMAN_FROM = 3
"""Structures that a rank correlation needs; two have one pair."""


@dataclass
class RankGroup:
    """Magnetic states of one crystal.

    Attributes:
        name: Composition and number of atoms of the first structure, and its volume per atom.
        members: Sources.
        orders: Magnetic order of each.
        reference: Energies of the reference, in eV/atom, above their mean.
        prediction: Energies of the model, in eV/atom, above their mean.
        spearman: Rank correlation; None for fewer than three structures or equal energies.
        n_pairs: Pairs whose energies differ by more than `RESOLUTION` in the reference.
        n_right: Those that the model puts in the same order.
        lowest_right: Whether the model's lowest state is within `RESOLUTION` of the lowest of the reference.
    """

    name: str
    members: list[str]
    orders: list[str]
    reference: Float[np.ndarray, " n_members"]
    prediction: Float[np.ndarray, " n_members"]
    spearman: float | None
    n_pairs: int
    n_right: int
    lowest_right: bool

    def as_dict(self) -> dict:
        """Plain values for JSON, energies in meV/atom."""
        lists = {key: getattr(self, key).tolist() for key in ("reference", "prediction")}
        return vars(self) | {key: [1000 * value for value in values] for key, values in lists.items()}


@dataclass
class Ranking:
    """How well energies are ordered.

    Attributes:
        groups: Magnetic states of one crystal each, the largest groups first.
        spearman_within: Mean over the groups, weighted by their structures; None if no group has one.
        by_composition: Rank correlation of energies per atom over all structures of a composition, and their number.
    """

    groups: list[RankGroup]
    spearman_within: float | None
    by_composition: dict[str, tuple[float | None, int]]

    def as_dict(self) -> dict:
        """Plain values for JSON."""
        pairs, right = sum(g.n_pairs for g in self.groups), sum(g.n_right for g in self.groups)
        return {
            "spearman_within_geometries": self.spearman_within,
            "n_geometries": len(self.groups),
            "n_structures": sum(len(group.members) for group in self.groups),
            "n_pairs": pairs,
            "pairs_in_order": right / pairs if pairs else None,
            "lowest_right": float(np.mean([g.lowest_right for g in self.groups])) if self.groups else None,
            "spearman_all": {
                name: {"spearman": rho, "n_structures": n} for name, (rho, n) in self.by_composition.items()
            },
            "geometries": [group.as_dict() for group in self.groups],
        }


def rank_orders(
    frames: Sequence[Frame], structures: Sequence[StructureErrors], *, geometry_tol: float = GEOMETRY_TOL
) -> Ranking:
    """Compare the order of energies with the reference.

    Structures belong together if they have the same atoms in the same order, and cell vectors and positions that
    differ by less than the tolerance; small crystals also if their primitive cells are the same, so that a
    ferromagnet in the primitive cell stands beside an antiferromagnet in a doubled one. One structure is kept of those
    with the same moments.

    Args:
        frames: The structures that were evaluated.
        structures: Their errors.
        geometry_tol: In Å.

    Returns:
        Rank correlations and pairs in the right order.
    """
    labelled = [record for record in structures if record.energy is not None]
    by_composition = {}
    for name in sorted({record.composition for record in labelled}):
        energies = np.array([record.energy for record in labelled if record.composition == name])
        by_composition[name] = (_spearman(energies[:, 0], energies[:, 1]), len(energies))
    sets = _same_geometry([(record, frames[record.index]) for record in labelled], geometry_tol)
    groups = [_rank([record for record, _ in members], members[0][1].atoms) for members in sets]
    groups.sort(key=lambda group: -len(group.members))
    weights = [(group.spearman, len(group.members)) for group in groups if group.spearman is not None]
    within = sum(rho * n for rho, n in weights) / sum(n for _, n in weights) if weights else None
    return Ranking(groups, within, by_composition)


_Member = tuple[StructureErrors, Frame]


def _same_geometry(members: list[_Member], tolerance: float) -> list[list[_Member]]:
    """Groups of at least two states."""
    by_atoms: dict[tuple, list[_Member]] = {}
    for member in members:
        key = (tuple(member[1].atoms.numbers), tuple(member[1].atoms.pbc))
        by_atoms.setdefault(key, []).append(member)
    sets = [group for same in by_atoms.values() for group in _same_setting(same, tolerance)]
    joined = _same_crystal(sets, tolerance)
    states = [_distinct(group) for group in joined]
    return [group for group in states if len(group) > 1]


def _same_setting(members: list[_Member], tolerance: float) -> list[list[_Member]]:
    """Groups of structures with the same atoms, cell and positions; each is compared with the first of a group."""
    groups: list[list[_Member]] = []
    cells, positions = np.empty((len(members), 3, 3)), np.empty((len(members), len(members[0][1].atoms), 3))
    for member in members:
        atoms = member[1].atoms
        near = np.flatnonzero((np.abs(cells[: len(groups)] - atoms.cell.array) < tolerance).all(axis=(1, 2)))
        difference = positions[near] - atoms.positions
        if atoms.pbc.all() and len(near):
            scaled = difference @ np.linalg.inv(atoms.cell.array)
            difference = (scaled - np.round(scaled)) @ atoms.cell.array
        near = near[(np.abs(difference) < tolerance).all(axis=(1, 2))]
        if len(near):
            groups[near[0]].append(member)
        else:
            cells[len(groups)], positions[len(groups)] = atoms.cell.array, atoms.positions
            groups.append([member])
    return groups


def _same_crystal(groups: list[list[_Member]], tolerance: float) -> list[list[_Member]]:
    """Join groups whose first structures have the same primitive cell, whatever cell they were written in."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    joined: list[list[_Member]] = []
    known: dict[str, list[tuple[Any, int]]] = {}
    matcher = StructureMatcher(
        ltol=tolerance / 3, stol=tolerance / 2, angle_tol=0.5, primitive_cell=False, scale=False
    )
    for group in groups:
        crystal = _primitive(group[0][1].atoms, tolerance)
        found = None
        if crystal is not None:
            others = known.setdefault(f"{crystal.composition.formula}", [])
            volume = crystal.volume
            alike = (
                k for other, k in others if abs(other.volume - volume) < tolerance * volume ** (2 / 3) * 3
            )
            candidates = set(alike)
            found = next((k for other, k in others if k in candidates and matcher.fit(other, crystal)), None)
            others.append((crystal, len(joined) if found is None else found))
        if found is None:
            joined.append(list(group))
        else:
            joined[found] += group
    return joined


def _primitive(atoms: Atoms, tolerance: float) -> Any:
    """The primitive cell as a pymatgen structure, None without one that is small enough."""
    from pymatgen.core import Structure

    if not atoms.pbc.all():
        return None
    found = call_spglib("find_primitive", atoms, symprec=0.5 * tolerance)
    if found is None or len(found[2]) > MAX_PRIMITIVE:
        return None
    return Structure(found[0], [chemical_symbols[z] for z in found[2]], found[1])


def _distinct(members: list[_Member]) -> list[_Member]:
    """Without structures whose moments are those of one before."""
    kept: list[_Member] = []
    for member in members:
        moments = member[1].magmoms
        same_atoms = (other.magmoms for _, other in kept if other.magmoms.shape == moments.shape)
        if not any(
            np.abs(sign * other - moments).max() < MOMENT_DIFFERENCE
            for other in same_atoms
            for sign in (1, -1)
        ):
            kept.append(member)
    return kept


def _rank(members: list[StructureErrors], atoms: Atoms) -> RankGroup:
    energies = np.array([record.energy for record in members])
    reference, prediction = (energies - energies.mean(axis=0)).T
    first, second = np.triu_indices(len(members), 1)
    right = reference[first] - reference[second]
    said = prediction[first] - prediction[second]
    counted = np.abs(right) > RESOLUTION
    volume = f"{atoms.get_volume() / len(atoms):.2f} Å³/atom" if atoms.pbc.all() else "cluster"
    return RankGroup(
        name=f"{atoms.get_chemical_formula()}, {volume}",
        members=[record.source for record in members],
        orders=[record.order for record in members],
        reference=reference,
        prediction=prediction,
        spearman=_spearman(reference, prediction),
        n_pairs=int(counted.sum()),
        n_right=int((counted & (np.sign(right) == np.sign(said))).sum()),
        lowest_right=bool(reference[prediction.argmin()] - reference.min() < RESOLUTION),
    )


def _spearman(reference: np.ndarray, prediction: np.ndarray) -> float | None:
    if len(reference) < _SPEARMAN_FROM or not np.ptp(reference) or not np.ptp(prediction):
        return None
    return float(spearmanr(reference, prediction).statistic)
