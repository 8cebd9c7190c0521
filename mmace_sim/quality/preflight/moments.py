"""What the moments of a set are: missing, zero, guesses, collinear; and what its magnetic forces can be used for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols

from mmace_sim.io.frames import Frame
from mmace_sim.quality.preflight.findings import Finding, Severity

ZERO_MOMENT = 0.02
"""Shorter moments (μB) count as none."""

TINY_MOMENT = 0.1
"""Elements with shorter moments (μB) are not magnetic themselves; their magnetic forces are a constraint's."""


@dataclass
class ElementMoments:
    """Moments and magnetic forces of all atoms of one element.

    Attributes:
        symbol: Element.
        lengths: Lengths of the moments, in μB.
        magforces: Lengths of the magnetic forces, in eV/μB, of the atoms that have them.
        along: Components of those magnetic forces along the moments, in eV/μB.
    """

    symbol: str
    lengths: np.ndarray
    magforces: np.ndarray
    along: np.ndarray


def element_moments(frames: Sequence[Frame]) -> list[ElementMoments]:
    """Collect moments and magnetic forces per element.

    Returns:
        One entry per element, by atomic number.
    """
    numbers = np.concatenate([f.atoms.numbers for f in frames])
    magmoms = np.concatenate([f.magmoms for f in frames])
    magforces = np.concatenate(
        [f.labels.get("magforces", np.full((len(f.atoms), 3), np.nan)) for f in frames]
    )
    lengths = np.linalg.norm(magmoms, axis=1)
    along = (magforces * magmoms).sum(axis=1) / np.maximum(lengths, 1e-9)
    known = np.isfinite(along)
    sizes = np.linalg.norm(magforces, axis=1)
    return [
        ElementMoments(
            chemical_symbols[z],
            lengths[numbers == z],
            sizes[(numbers == z) & known],
            along[(numbers == z) & known & (lengths > ZERO_MOMENT)],
        )
        for z in np.unique(numbers).tolist()
    ]


def is_collinear(frame: Frame, tolerance: float = 0.02) -> bool:
    """Whether all moments lie along one axis.

    Args:
        frame: Structure.
        tolerance: Largest part perpendicular to the axis, relative to the longest moment.
    """
    values = np.linalg.svd(frame.magmoms, compute_uv=False)
    return bool(values[0] == 0.0 or values[1:].max(initial=0.0) < tolerance * values[0])


def moment_findings(frames: Sequence[Frame]) -> list[Finding]:
    """Findings about moments and magnetic forces.

    Args:
        frames: Structures of all roles.
    """
    elements = element_moments(frames)
    findings = [_ranges(frames, elements)]
    findings += _zero_moments(frames)
    findings += _guesses(frames, elements)
    findings += _lengths(elements)
    findings += [finding for element in elements for finding in _magforces(element, elements)]
    return findings + _directions(frames, elements)


def _ranges(frames: Sequence[Frame], elements: list[ElementMoments]) -> Finding:
    collinear = sum(is_collinear(frame) for frame in frames)
    parts = [
        f"{e.symbol} {e.lengths.min():.3g} to {e.lengths.max():.3g} (mean {e.lengths.mean():.3g})"
        for e in elements
    ]
    text = f"moments in μB: {', '.join(parts)}; {collinear} of {len(frames)} structures collinear"
    values = {e.symbol: [float(e.lengths.min()), float(e.lengths.max())] for e in elements}
    if collinear == len(frames):
        advice = "A model trained on these knows nothing of canted moments."
        return Finding("moments", Severity.NOTE, text, advice, values | {"collinear": collinear})
    return Finding("moments", Severity.OK, text, "", values | {"collinear": collinear})


def _zero_moments(frames: Sequence[Frame]) -> list[Finding]:
    none = [f for f in frames if np.linalg.norm(f.magmoms, axis=1).max() < ZERO_MOMENT]
    if not none:
        return []
    values = {"count": len(none), "examples": [f.source for f in none[:5]]}
    if len(none) == len(frames):
        text = "all moments are zero"
        return [Finding("zero_moments", Severity.ERROR, text, "Was the calculation spin-polarised?", values)]
    text = f"{len(none)} of {len(frames)} structures ({len(none) / len(frames):.0%}) have no moments at all"
    advice = (
        f"Right if they are non-magnetic solutions, wrong if the moments were lost; first: {none[0].source}."
    )
    return [Finding("zero_moments", Severity.NOTE, text, advice, values)]


def _guesses(frames: Sequence[Frame], elements: list[ElementMoments]) -> list[Finding]:
    """Moments that never change while energies do, or that are all whole and half numbers."""
    groups: dict[bytes, list[Frame]] = {}
    for frame in frames:
        groups.setdefault(frame.atoms.numbers.astype(int).tobytes(), []).append(frame)
    frozen = 0
    for members in groups.values():
        energies = [float(f.labels["energy"]) for f in members if "energy" in f.labels]
        moments = np.array([f.magmoms for f in members])
        if (
            len(members) > 2
            and moments.any()
            and np.ptp(moments, axis=0).max() < 1e-6
            and np.ptp(energies) > 1e-4
        ):
            frozen += len(members)
    whole = np.mean(
        np.concatenate([np.abs(2 * e.lengths - np.round(2 * e.lengths)) < 1e-6 for e in elements])
    )
    magnetic = np.concatenate([e.lengths for e in elements]).max() > ZERO_MOMENT
    has_fields = any((e.magforces > 1e-6).any() for e in elements)
    advice = "Replace them by the moments that the calculation ended with."
    values = {"unchanging": frozen, "whole_or_half": float(whole)}
    if frozen > 0.5 * len(frames):
        text = (
            f"the moments of {frozen} of {len(frames)} structures are exactly the same in every structure of their "
            "composition, while the energies differ: initial guesses?"
        )
        severity = Severity.ERROR if whole > 0.99 or not has_fields else Severity.WARNING
        return [Finding("initial_guesses", severity, text, advice, values)]
    if magnetic and whole > 0.99 and not has_fields:
        text = f"{whole:.0%} of the moments are whole or half numbers of μB, without magnetic forces: initial guesses?"
        return [Finding("initial_guesses", Severity.ERROR, text, advice, values)]
    return []


def _lengths(elements: list[ElementMoments]) -> list[Finding]:
    fixed = [
        e for e in elements if e.lengths.mean() > TINY_MOMENT and np.ptp(e.lengths) < 0.02 * e.lengths.mean()
        and len(e.lengths) > 10
    ]  # fmt: skip
    return [
        Finding(
            "fixed_lengths",
            Severity.NOTE,
            f"the moments of {e.symbol} all have the same length ({e.lengths.min():.4g} to {e.lengths.max():.4g} μB)",
            "The energy of a moment's length cannot be learned or checked; keep lengths fixed in simulations.",
            {"element": e.symbol},
        )
        for e in fixed
    ]


def _magforces(element: ElementMoments, elements: list[ElementMoments]) -> list[Finding]:
    symbol, size = element.symbol, element.magforces
    others = ", ".join(
        e.symbol for e in elements if e.lengths.mean() > TINY_MOMENT and (e.magforces > 0).any()
    )
    leave_out = f"Leave {symbol} out of the magnetic forces: loss.magforce_elements: [{others}]."
    values = {"element": symbol}
    if not len(size):
        return []
    if not size.any():
        text = f"all magnetic forces of {symbol} are exactly zero"
        return [
            Finding(
                "zero_magforces",
                Severity.NOTE,
                text,
                f"A label only if its moments are self-consistent; otherwise: {leave_out}",
                values,
            )
        ]
    findings = []
    if element.lengths.mean() < TINY_MOMENT:
        text = (
            f"{symbol} has moments of {element.lengths.mean():.3g} μB on average, but magnetic forces of "
            f"{size.mean():.3g}, up to {size.max():.3g} eV/μB"
        )
        findings.append(Finding("tiny_moments", Severity.WARNING, text, leave_out, values))
    zero = float((size == 0.0).mean())
    if zero > 0.0:
        text = f"{zero:.0%} of the magnetic forces of {symbol} are exactly zero, the largest is {size.max():.3g} eV/μB"
        advice = "A label if these moments are self-consistent; if they are unknown, leave them out instead."
        findings.append(Finding("zero_magforces", Severity.NOTE, text, advice, values | {"share": zero}))
    else:
        text = f"magnetic forces of {symbol}: mean {size.mean():.3g}, largest {size.max():.3g} eV/μB"
        findings.append(
            Finding(
                "magforces",
                Severity.OK,
                text,
                "",
                values | {"mean": float(size.mean()), "max": float(size.max())},
            )
        )
    return findings


def _directions(frames: Sequence[Frame], elements: list[ElementMoments]) -> list[Finding]:
    """Magnetic forces with one component only: a constraint on directions, or collinear data."""
    findings = []
    for e in elements:
        total = float((e.magforces**2).sum())
        if e.lengths.mean() < TINY_MOMENT or not total:
            continue
        share = float((e.along**2).sum()) / total
        if share < 1e-4:
            text = f"magnetic forces of {e.symbol} are perpendicular to the moments: lengths were relaxed, or left free"
            advice = "They say nothing of the energy of a moment's length; energies alone must."
        elif share > 1 - 1e-4 and not all(is_collinear(frame) for frame in frames):
            text = f"magnetic forces of {e.symbol} are parallel to the moments, although moments are canted"
            advice = "The torques are missing: are these fields of a collinear constraint?"
        else:
            continue
        severity = Severity.NOTE if share < 0.5 else Severity.WARNING
        findings.append(
            Finding("one_component", severity, text, advice, {"element": e.symbol, "along": share})
        )
    return findings
