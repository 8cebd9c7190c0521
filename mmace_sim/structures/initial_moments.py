"""Starting moments for structures: from the file, ferromagnetic, high-spin, low-spin, antiferromagnetic, random."""

from collections.abc import Mapping

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from jaxtyping import Float

from mmace_sim.errors import MissingMomentsError, StructureError
from mmace_sim.graph.atoms import get_magmoms, has_magmoms
from mmace_sim.structures.antiferromagnet import antiferromagnetic_signs, magnetic_sites
from mmace_sim.structures.ions import bonds, ion_name, oxidation_states, spin_moment
from mmace_sim.structures.moment_table import is_compound, usual_lengths, within_range
from mmace_sim.structures.moment_words import parse_initial

LOW_SPIN: float = 0.4
"""Low-spin moments of metals over the usual ones (Fe: 1 μB)."""


def initial_magmoms(
    atoms: Atoms, how: str | None = None, *, largest: Mapping[int, float] | None = None
) -> tuple[Float[np.ndarray, "n_atoms 3"], str]:
    """Moments to start from.

    Args:
        atoms: Structure.
        how: ``"file"`` (must be in the structure), ``"fm"`` (ferromagnetic along z, see
            `mmace_sim.structures.moment_table`), ``"high-spin"`` or ``"low-spin"`` (the same with the spin moments of
            ions, by their oxidation states, where there are any), ``"afm"`` (antiparallel as neighbours, bridges
            and moments want it), ``"random:SEED"`` (the lengths of ``"fm"``, random directions) or None: from the
            structure if it has moments, else ``"fm"``.
        largest: Largest moment of each element that the model was made for, in μB: moments that are not of the
            structure stay below 0.9 of it.

    Returns:
        Moments in μB, and a sentence for the log if they do not come from the structure, else "".

    Raises:
        MissingMomentsError: If they must come from the structure and it has none.
        StructureError: If an antiferromagnetic start is impossible.
        ConfigError: If `how` is none of the choices.
    """
    kind, seed = parse_initial(how)
    if kind == "file" and not has_magmoms(atoms):
        raise MissingMomentsError(
            "the structure carries no magnetic moments. Add them to the file (array initial_magmoms in extxyz, "
            "moments in mCIF), or start from --initial-magmoms fm, high-spin, low-spin, afm or random:SEED."
        )
    if kind == "file" or (kind is None and has_magmoms(atoms)):
        return get_magmoms(atoms), ""
    moments = np.zeros((len(atoms), 3))
    if kind in ("high-spin", "low-spin"):
        lengths, told = _ionic_lengths(atoms, low_spin=kind == "low-spin")
        moments[:, 2] = within_range(atoms, lengths, largest)
        return (
            moments,
            f"moments initialised {kind} ferromagnetic along z ({_describe(atoms, moments)}{told})",
        )
    lengths = starting_lengths(atoms, largest)
    if kind == "random":
        directions = np.random.default_rng(seed).normal(size=(len(atoms), 3))
        moments = lengths[:, None] * directions / np.linalg.norm(directions, axis=1)[:, None]
        told = f"with random directions (seed {seed}, {_describe(atoms, moments)})"
    elif kind == "afm":
        moments[:, 2], arranged = _antiferromagnetic(atoms, lengths)
        told = f"antiferromagnetically along z ({_describe(atoms, moments)}; {arranged})"
    else:
        moments[:, 2] = lengths
        told = f"ferromagnetic along z ({_describe(atoms, moments)})"
    reason = "no moments in the file, " if kind is None else ""
    return moments, f"{reason}moments initialised {told}"


def starting_lengths(
    atoms: Atoms, largest: Mapping[int, float] | None = None
) -> Float[np.ndarray, " n_atoms"]:
    """Usual starting length of each moment, within the range of a model.

    Args:
        atoms: Structure.
        largest: Largest moment of each element that the model was made for, in μB.

    Returns:
        Lengths in μB.
    """
    return within_range(atoms, usual_lengths(atoms), largest)


def _ionic_lengths(atoms: Atoms, *, low_spin: bool) -> tuple[Float[np.ndarray, " n_atoms"], str]:
    """Spin moments of ions where oxidation states can be told, else the usual moments; and which were told."""
    lengths = usual_lengths(atoms)
    states = oxidation_states(atoms)
    if not states:
        reason = "; oxidation states unknown" if is_compound(atoms) else "; a metal, no oxidation states"
        return (LOW_SPIN * lengths if low_spin else lengths), reason
    numbers = atoms.numbers
    n_bonds = np.bincount(bonds(atoms, np.flatnonzero(lengths > 0))[1], minlength=len(atoms))
    for k, z in enumerate(numbers.tolist()):
        if lengths[k] > 0 or spin_moment(z, states[z]) > 0:
            lengths[k] = spin_moment(z, states[z], low_spin=low_spin, tetrahedral=bool(n_bonds[k] == 4))
    ions = [ion_name(chemical_symbols[z], states[z]) for z in states if (lengths[numbers == z] > 0).any()]
    return lengths, f"; by the formula {', '.join(ions) or 'no ion has a moment'}"


def _describe(atoms: Atoms, moments: Float[np.ndarray, "n_atoms 3"]) -> str:
    """Starting lengths in words: 'Fe 2.5 μB, Al 0 μB'; a range where they differ."""
    lengths = np.linalg.norm(moments, axis=1)
    told = []
    for z in dict.fromkeys(atoms.numbers.tolist()):
        low, high = lengths[atoms.numbers == z].min(), lengths[atoms.numbers == z].max()
        length = f"{high:.3g}" if np.isclose(low, high) else f"{low:.3g}–{high:.3g}"
        told.append(f"{chemical_symbols[z]} {length} μB")
    return ", ".join(told)


def _antiferromagnetic(
    atoms: Atoms, lengths: Float[np.ndarray, " n_atoms"]
) -> tuple[Float[np.ndarray, " n_atoms"], str]:
    """Signed lengths, near neighbours and bridged ions antiparallel as far as possible; and what came out in words."""
    sites = magnetic_sites(lengths)
    if len(sites) < 2:
        symbols = "no magnetic atom" if len(sites) == 0 else f"one magnetic atom ({atoms.symbols[sites[0]]})"
        raise StructureError(
            f"an antiferromagnetic start needs at least two magnetic atoms, this cell has {symbols}. "
            "Build a supercell (ase.build.make_supercell), or use --initial-magmoms fm."
        )
    values = np.zeros(len(atoms))
    values[sites] = antiferromagnetic_signs(atoms, sites, lengths) * lengths[sites]
    n_up, total = int((values > 0).sum()), abs(float(values.sum()))
    rule = "superexchange" if is_compound(atoms) else "near neighbours"
    return values, f"{n_up} up, {len(sites) - n_up} down by {rule}, total {total:.3g} μB"
