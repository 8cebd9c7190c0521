"""Structures that occur twice, leak from one split to another, or reach beyond the training set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from mmace_sim.graph.neighbors import near_pairs
from mmace_sim.io.frames import Frame, frame_identity
from mmace_sim.quality.preflight.energies import per_atom, volumes
from mmace_sim.quality.preflight.findings import Finding, Severity
from mmace_sim.quality.preflight.moments import element_moments, is_collinear
from mmace_sim.quality.preflight.pairs import PairWork

CUTOFF = 4.927
"""Pairs up to this distance (Å) identify a structure; no common lattice has a shell there."""

SAME = 5e-3
"""Structures whose fingerprints differ by less are compared in detail."""

DIGITS = 2e-3
"""Distances (Å) and products of moments (μB²) of one structure agree within this, the digits of a file."""

NEAR = 0.1
"""Pairs closer than this, in the units of `pairs.SCALES` (0.01 Å, 0.03 μB, 0.002 of strain), are near copies."""

SAME_ENERGY = 5e-4
"""Labels of one structure agree if their energies do, within this, in eV/atom."""

_CENTERS = np.arange(1.0, CUTOFF, 0.4)
_WIDTH = 0.4
_MARGIN = 0.05


@dataclass
class _Prints:
    """What identifies the structures of a set."""

    frames: list[Frame]
    roles: np.ndarray
    energies: np.ndarray
    same: np.ndarray

    @property
    def agree(self) -> np.ndarray:
        """Which of the same structures also have the same energy, or no energy at all."""
        return ~(self.difference > SAME_ENERGY)

    @property
    def difference(self) -> np.ndarray:
        return np.abs(self.energies[self.same[:, 0]] - self.energies[self.same[:, 1]])


def features_of(frame: Frame) -> Float[np.ndarray, " n_features"]:
    """Numbers that stay the same under translation, rotation, permutation, supercells and common rotations of moments.

    Smeared counts of neighbours by distance, plain, weighted with the atomic numbers, and with m_i·m_j, each as mean
    and standard deviation over the atoms; and the mean square moment.
    """
    atoms, m = frame.atoms, frame.magmoms
    z = atoms.numbers / 26.0
    i, j, distance = near_pairs("ijd", atoms, CUTOFF)
    smooth = 0.5 * (1 + np.cos(np.pi * distance / CUTOFF)) / np.maximum(distance, 0.5) ** 2
    smeared = smooth[:, None] * np.exp(-0.5 * ((distance[:, None] - _CENTERS) / _WIDTH) ** 2)
    features = []
    for weight in (np.ones(len(i)), z[i] * z[j] + z[j], (m[i] * m[j]).sum(axis=1)):
        sums = csr_matrix((weight, (i, np.arange(len(i)))), shape=(len(atoms), len(i))) @ smeared
        features += [sums.mean(axis=0), sums.std(axis=0)]
    squares = (m**2).sum(axis=1)
    return np.concatenate([*features, [squares.mean(), squares.std(), z.mean(), z.std()]])


def is_same(a: Frame, b: Frame) -> bool:
    """Whether two structures agree in all distances, lengths of moments and products of moments of neighbours.

    Args:
        a: Structure.
        b: Structure, perhaps a supercell of the other one, with other origin, orientation or order of atoms.
    """
    return _agree(_sorted_numbers(a), _sorted_numbers(b))


def _agree(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> bool:
    if len(a[0]) > len(b[0]):
        a, b = b, a
    repeats, rest = divmod(len(b[0]), len(a[0]))
    if rest:
        return False
    for x, y in zip(a, b, strict=True):
        if len(y) != repeats * len(x) or np.abs(np.repeat(x, repeats) - y).max(initial=0.0) > DIGITS:
            return False
    return True


def _same_pairs(frames: Sequence[Frame]) -> np.ndarray:
    """Pairs of structures that are the same, shape (n_pairs, 2)."""
    candidates = sorted(cKDTree(np.array([features_of(frame) for frame in frames])).query_pairs(SAME))
    details = {k: _sorted_numbers(frames[k]) for k in {k for pair in candidates for k in pair}}
    same = [(a, b) for a, b in candidates if _agree(details[a], details[b])]
    return np.array(same, dtype=int).reshape(-1, 2)


def _sorted_numbers(frame: Frame) -> tuple[np.ndarray, ...]:
    z, m = frame.atoms.numbers, frame.magmoms
    i, j, distance = near_pairs("ijd", frame.atoms, CUTOFF)
    return (
        np.sort(z).astype(float),
        np.sort(distance),
        np.sort(np.linalg.norm(m, axis=1)),
        np.sort((m[i] * m[j]).sum(axis=1)),
    )


def split_findings(frames_by_role: Mapping[str, Sequence[Frame]], pairs: PairWork) -> list[Finding]:
    """Findings about duplicates, leakage between roles, and coverage.

    Args:
        frames_by_role: Structures per role; leakage and coverage are looked for if there are several roles.
        pairs: Close pairs of all of them.
    """
    frames = [frame for members in frames_by_role.values() for frame in members]
    roles = np.array([role for role, members in frames_by_role.items() for _ in members])
    prints = _Prints(frames, roles, per_atom(frames), _same_pairs(frames))
    findings = _duplicates(prints)
    if len(frames_by_role) > 1:
        findings += _leakage(prints, pairs) + _shared_groups(frames_by_role)
    train = frames_by_role.get("train", ())
    for role, members in frames_by_role.items():
        if train and members and role != "train":
            findings += _coverage(train, members, role)
    return findings


def _duplicates(prints: _Prints) -> list[Finding]:
    frames, roles, same, findings = prints.frames, prints.roles, prints.same, []
    inside = same[prints.agree & (roles[same[:, 0]] == roles[same[:, 1]])]
    if len(inside):
        n_extra = len(np.unique(inside.max(axis=1)))
        a, b = inside[0]
        text = (
            f"{n_extra} structures repeat another one of their split (geometry, moments and energy), such as "
            f"{frames[a].source} and {frames[b].source}"
        )
        advice = "Remove them, or accept their double weight."
        findings.append(Finding("duplicates", Severity.WARNING, text, advice, {"count": n_extra}))
    else:
        findings.append(Finding("duplicates", Severity.OK, "no structure occurs twice within a split"))
    if not prints.agree.all():
        count, worst = int((~prints.agree).sum()), int(np.nanargmax(prints.difference))
        a, b = same[worst]
        text = (
            f"{count} pairs have the same geometry and moments but other energies, up to "
            f"{1000 * prints.difference[worst]:.3g} meV/atom: {frames[a].source} and {frames[b].source}"
        )
        advice = "Different settings of the calculations, or moments that do not tell the states apart."
        findings.append(Finding("conflicts", Severity.WARNING, text, advice, {"count": count}))
    return findings


def _leakage(prints: _Prints, pairs: PairWork) -> list[Finding]:
    names, findings = list(dict.fromkeys(prints.roles.tolist())), []
    close = np.column_stack([pairs.first, pairs.second])[pairs.distance < NEAR]
    for k, first in enumerate(names):
        for second in names[k + 1 :]:
            here, there = prints.roles == first, prints.roles == second
            same, near = _across(prints.same, here, there), _across(close, here, there)
            copies, total = np.unique(same[:, 1]), int(there.sum())
            nearby = np.setdiff1d(near[:, 1], copies)
            values = {"roles": [first, second], "same": len(copies), "near": len(nearby), "of": total}
            if len(copies):
                source = f"{prints.frames[same[0, 1]].source} is {prints.frames[same[0, 0]].source}"
                text = f"{len(copies)} of {total} {second} structures are also in {first}: {source}"
                advice = "Errors on them are no test: split again, copies on one side."
                findings.append(Finding("leakage", Severity.ERROR, text, advice, values))
            if len(nearby):
                text = f"{len(nearby)} of {total} {second} structures have a near copy in {first}"
                advice = "Their errors say little about new structures; whole series should stay on one side."
                severity = Severity.WARNING if len(nearby) > 0.1 * total else Severity.NOTE
                findings.append(Finding("near_leakage", severity, text, advice, values))
    return findings or [Finding("leakage", Severity.OK, "no structure is in two splits, nor a near copy")]


def _across(pairs: np.ndarray, here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Pairs with one structure on each side, that side first."""
    forward, backward = here[pairs[:, 0]] & there[pairs[:, 1]], here[pairs[:, 1]] & there[pairs[:, 0]]
    return np.concatenate([pairs[forward], pairs[backward][:, ::-1]])


def _shared_groups(frames_by_role: Mapping[str, Sequence[Frame]]) -> list[Finding]:
    keys = ("group", "config_id", "uid")
    owners: dict[str, set[str]] = {}
    for role, members in frames_by_role.items():
        for frame in members:
            values = [frame.atoms.info[key] for key in keys if key in frame.atoms.info]
            # a hash such as 12e345 is read from a file as the number inf: no group
            if values and not (isinstance(values[0], float) and not np.isfinite(values[0])):
                owners.setdefault(frame_identity(frame.atoms), set()).add(role)
    shared = [identity for identity, roles in owners.items() if len(roles) > 1]
    if not shared:
        return []
    text = f"{len(shared)} groups (`group`, `config_id` or `uid`) are spread over several splits, such as {shared[0]}"
    advice = "Structures of a group belong together: split by group."
    return [Finding("shared_groups", Severity.WARNING, text, advice, {"count": len(shared)})]


def _coverage(train: Sequence[Frame], other: Sequence[Frame], role: str) -> list[Finding]:
    known = {int(z) for f in train for z in f.atoms.numbers}
    foreign = sorted({int(z) for f in other for z in f.atoms.numbers} - known)
    if foreign:
        names = ", ".join(chemical_symbols[z] for z in foreign)
        text = f"{role} holds elements that train does not: {names}"
        advice = "A model cannot know them: add training data or leave them out."
        return [Finding("coverage", Severity.ERROR, text, advice, {"role": role, "elements": names})]
    gaps = _moment_gaps(train, other)
    v_train, v_other = volumes(train), volumes(other)
    if np.isfinite(v_train).all() and np.isfinite(v_other).all():
        outside = (v_other < (1 - _MARGIN) * v_train.min()) | (v_other > (1 + _MARGIN) * v_train.max())
        gaps += [f"volumes per atom of {outside.sum()} structures"] if outside.any() else []
    if all(map(is_collinear, train)) and not all(map(is_collinear, other)):
        gaps.append("canted moments (train is collinear)")
    gaps += _label_gaps(train, other)
    new = sorted({f.config_type for f in other} - {f.config_type for f in train})
    gaps += [f"config_types {', '.join(new[:5])}"] if new else []
    if gaps:
        text = f"{role} reaches beyond train: {'; '.join(gaps)}"
        advice = "Errors there measure extrapolation; report them apart or widen the training set."
        return [Finding("coverage", Severity.WARNING, text, advice, {"role": role, "gaps": gaps})]
    text = f"elements, moments, volumes and labels of {role} lie within those of train"
    return [Finding("coverage", Severity.OK, text, "", {"role": role})]


def _moment_gaps(train: Sequence[Frame], other: Sequence[Frame]) -> list[str]:
    ranges = {e.symbol: (e.lengths.min(), e.lengths.max()) for e in element_moments(train)}
    gaps = []
    for e in element_moments(other):
        low, high = ranges[e.symbol]
        margin = _MARGIN * max(high, 0.1)
        if e.lengths.min() < low - margin or e.lengths.max() > high + margin:
            here = f"{e.lengths.min():.2f} to {e.lengths.max():.2f}"
            gaps.append(f"moments of {e.symbol} {here} μB (train {low:.2f} to {high:.2f})")
    return gaps


def _label_gaps(train: Sequence[Frame], other: Sequence[Frame]) -> list[str]:
    trained = {label for f in train for label in f.labels}
    return [
        f"label {label} (train has none)" for label in sorted({x for f in other for x in f.labels} - trained)
    ]
