"""Energies, forces and geometry of a set: which labels there are, energies of atoms, outliers, overlaps."""

from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols, covalent_radii

from mmace_sim.graph.neighbors import near_pairs
from mmace_sim.io.frames import LABELS, Frame
from mmace_sim.quality.preflight.findings import Finding, Severity
from mmace_sim.units import EV_PER_A3_IN_GPA

FORCE_FILTER = 20.0
"""Largest force (eV/Å) of pre-training data in the published protocol."""

OUTLIER_Z = 12.0
"""Robust z above which an energy is an outlier."""

_OVERLAP = 0.4
_CLOSE = 0.65
_ZERO_GAP = 20.0


def per_atom(frames: Sequence[Frame]) -> np.ndarray:
    """Energies per atom, in eV; NaN where there is none."""
    return np.array([float(f.labels.get("energy", np.nan)) / len(f.atoms) for f in frames])


def volumes(frames: Sequence[Frame]) -> np.ndarray:
    """Volumes per atom, in Å³; NaN for structures that are not periodic in all directions."""
    periodic = [f.atoms.pbc.all() and f.atoms.cell.rank == 3 for f in frames]
    return np.array(
        [f.atoms.cell.volume / len(f.atoms) if p else np.nan for f, p in zip(frames, periodic, strict=True)]
    )


def energy_findings(frames: Sequence[Frame]) -> list[Finding]:
    """Findings about labels, energies, forces, pressures and distances.

    Args:
        frames: Structures of all roles.
    """
    findings = _label_coverage(frames)
    known = [f for f in frames if "energy" in f.labels]
    if known:
        findings += _atomic_energies(known) + _outliers(known)
    return (
        findings
        + _spreads(known)
        + _variety(frames)
        + _forces(frames)
        + _pressures(frames)
        + _overlaps(frames)
    )


def _label_coverage(frames: Sequence[Frame]) -> list[Finding]:
    counts = {label: sum(label in f.labels for f in frames) for label in LABELS}
    text = ", ".join(f"{label} {count}" for label, count in counts.items())
    message = f"labels of {len(frames)} structures: {text}"
    if not counts["energy"]:
        return [Finding("labels", Severity.ERROR, message, "No energies: are the label keys right?", counts)]
    partial = [label for label, count in counts.items() if 0 < count < len(frames)]
    absent = [label for label, count in counts.items() if not count]
    if partial or absent:
        parts = [f"{x} in some only" for x in partial] + [f"no {x}" for x in absent]
        advice = f"There is {', '.join(parts)}: left out of the loss; check that nothing was lost."
        return [Finding("labels", Severity.NOTE, message, advice, counts)]
    return [Finding("labels", Severity.OK, message, "", counts)]


def _atomic_energies(frames: list[Frame]) -> list[Finding]:
    elements = sorted({int(z) for f in frames for z in f.atoms.numbers})
    counts = np.array([[(f.atoms.numbers == z).sum() for z in elements] for f in frames], dtype=float)
    energies, n_atoms = per_atom(frames), counts.sum(axis=1)
    e0, _, rank, _ = np.linalg.lstsq(counts / n_atoms[:, None], energies, rcond=1e-8)
    left = energies - counts @ e0 / n_atoms
    e0s = {chemical_symbols[z]: float(e) for z, e in zip(elements, e0, strict=True)}
    values = {"e0": e0s, "spread": float(left.std()), "determined": bool(rank == len(elements))}
    text = ", ".join(f"{symbol} {value:.3f}" for symbol, value in e0s.items())
    message = (
        f"mean energies of the elements (least squares, eV): {text}; spread {1000 * left.std():.4g} meV/atom"
    )
    ordered = np.sort(left)
    gap = float(np.diff(ordered).max(initial=0.0))
    if gap > _ZERO_GAP and ordered.size > 1:
        advice = "Several zeros of energy (all-electron and pseudopotential totals?): one E0 per set, or shift them."
        text = f"{message}; the energies fall into groups {gap:.3g} eV/atom apart"
        return [Finding("atomic_energies", Severity.ERROR, text, advice, values | {"gap": gap})]
    if rank < len(elements):
        advice = "The compositions do not determine the energy of each element: fine within them, not beyond."
        return [Finding("atomic_energies", Severity.NOTE, message, advice, values)]
    return [Finding("atomic_energies", Severity.OK, message, "", values)]


def _outliers(frames: list[Frame]) -> list[Finding]:
    """Energies off the common trend with volume, moments and forces, per composition."""
    groups: dict[str, list[int]] = {}
    for k, frame in enumerate(frames):
        groups.setdefault(frame.atoms.get_chemical_formula(empirical=True), []).append(k)
    energies, z = per_atom(frames), np.zeros(len(frames))
    for members in groups.values():
        if len(members) >= 20:
            z[members] = _robust_z([frames[k] for k in members], energies[members])
    bad = np.flatnonzero(np.abs(z) > OUTLIER_Z)
    bad = bad[np.argsort(-np.abs(z[bad]))]
    low, high = energies.min(), energies.max()
    text = f"energies {low:.4f} to {high:.4f} eV/atom"
    if not len(bad):
        return [Finding("outliers", Severity.OK, f"{text}, none far off the trend", "", {"count": 0})]
    named = ", ".join(f"{frames[k].source} ({energies[k]:.3f} eV/atom, z {z[k]:.0f})" for k in bad[:3])
    values = {"count": len(bad), "sources": [frames[k].source for k in bad[:50].tolist()]}
    return [
        Finding(
            "outliers",
            Severity.WARNING,
            f"{text}; {len(bad)} far off the trend with volume, moments and forces (z > {OUTLIER_Z:.0f}): {named}",
            "Look at them: unconverged or mislabelled ones spoil a fit; legitimate extremes want a Huber loss.",
            values,
        )
    ]


def _robust_z(frames: list[Frame], energies: np.ndarray) -> np.ndarray:
    """Deviation from a robust fit in volume, moments and forces, in robust standard deviations."""
    square = np.array([(f.magmoms**2).sum() / len(f.atoms) for f in frames])
    force = np.array([(f.labels.get("forces", np.zeros(3)) ** 2).sum() / len(f.atoms) for f in frames])
    v = volumes(frames)
    columns = [x for x in (v, v**2, v**3, square, square**2, force, np.sqrt(force)) if np.isfinite(x).all()]
    varying = [(x - x.mean()) / x.std() for x in columns if x.std() > 1e-9]
    design = np.column_stack([np.ones(len(energies)), *varying])
    weights = np.ones(len(energies))
    residual, scale = np.zeros(len(energies)), 1.0
    for _ in range(20):
        fit = np.linalg.lstsq(design * weights[:, None], energies * weights, rcond=1e-8)[0]
        residual = energies - design @ fit
        scale = 1.4826 * float(np.median(np.abs(residual - np.median(residual)))) + 1e-4
        weights = np.sqrt(np.minimum(1.0, scale / np.maximum(np.abs(residual), 1e-12)))
    return residual / scale


def _spreads(frames: list[Frame]) -> list[Finding]:
    """config_types whose energies hardly differ: their labels are small numbers."""
    types: dict[str, list[Frame]] = {}
    for frame in frames:
        types.setdefault(frame.config_type, []).append(frame)
    spreads = {name: float(per_atom(m).std()) for name, m in types.items() if len(m) > 5}
    small = {name: spread for name, spread in spreads.items() if spread < 1e-3}
    if not small:
        return []
    text = ", ".join(f"{name} {1000 * spread:.2g}" for name, spread in small.items())
    advice = "Judge a model on these by its error relative to the spread; convergence of the source matters."
    return [
        Finding("small_spread", Severity.NOTE, f"energies hardly differ in (meV/atom): {text}", advice, small)
    ]


def _variety(frames: Sequence[Frame]) -> list[Finding]:
    """What never varies and can therefore not be learned."""
    v = volumes(frames)
    fixed = []
    if np.isfinite(v).all() and len(v) > 5 and np.ptp(v) < 0.05 * v.mean():
        fixed.append(f"volumes per atom lie within {np.ptp(v) / v.mean():.1%}")
    groups: dict[bytes, list[np.ndarray]] = {}
    for frame in frames:
        scaled = frame.atoms.get_scaled_positions(wrap=False)
        groups.setdefault(frame.atoms.numbers.astype(int).tobytes(), []).append(scaled - scaled[0])
    shifts = [np.abs((d := np.array(m) - m[0]) - np.round(d)).max() for m in groups.values() if len(m) > 5]
    if shifts and max(shifts) < 1e-4:
        fixed.append("atoms sit on one ideal lattice")
    if not fixed:
        return []
    advice = "Forces, stress and volumes away from these are extrapolation: add such data, or keep the lattice fixed."
    return [Finding("no_variety", Severity.NOTE, " and ".join(fixed), advice, {})]


def _forces(frames: Sequence[Frame]) -> list[Finding]:
    with_forces = [f for f in frames if "forces" in f.labels]
    if not with_forces:
        return []
    lengths = [np.linalg.norm(f.labels["forces"], axis=1) for f in with_forces]
    largest = np.array([x.max() for x in lengths])
    above = int((largest > FORCE_FILTER).sum())
    values = {"max": float(largest.max()), "mean": float(np.concatenate(lengths).mean()), "above_20": above}
    text = f"forces: mean {values['mean']:.3g}, largest {values['max']:.3g} eV/Å"
    if not above:
        return [Finding("large_forces", Severity.OK, text, "", values)]
    text = f"{text}; {above} structures have forces above {FORCE_FILTER:.0f} eV/Å"
    advice = "The published protocol drops such structures; at least use a Huber loss."
    return [Finding("large_forces", Severity.WARNING, text, advice, values)]


def _pressures(frames: Sequence[Frame]) -> list[Finding]:
    values = [-np.trace(f.labels["stress"]) / 3 * EV_PER_A3_IN_GPA for f in frames if "stress" in f.labels]
    if not values:
        return []
    low, middle, high = (float(x) for x in np.percentile(values, (1, 50, 99)))
    severity = Severity.NOTE if max(-low, high) > 100 else Severity.OK
    text = f"pressures: {low:.0f} / {middle:.0f} / {high:.0f} GPa (1st, 50th, 99th percentile)"
    advice = "Extreme strains: filter by force or energy if a smooth fit near equilibrium is wanted."
    return [
        Finding(
            "pressures",
            severity,
            text,
            advice if severity == Severity.NOTE else "",
            {"percentiles": [low, middle, high]},
        )
    ]


def _overlaps(frames: Sequence[Frame]) -> list[Finding]:
    found: list[tuple[float, str]] = []
    for frame in frames:
        radii = covalent_radii[frame.atoms.numbers]
        i, j, distance = near_pairs("ijd", frame.atoms, 2 * _CLOSE * float(radii.max()))
        ratio = (distance / (radii[i] + radii[j])).min(initial=np.inf)
        if ratio < _CLOSE:
            found.append((float(ratio), frame.source))
    if not found:
        return [Finding("overlaps", Severity.OK, "no two atoms overlap")]
    ratio, source = min(found)
    severity = Severity.ERROR if ratio < _OVERLAP else Severity.WARNING
    text = (
        f"{len(found)} structures have atoms closer than {_CLOSE:.0%} of the sum of covalent radii; the closest are at "
        f"{ratio:.0%} in {source}"
    )
    advice = (
        "Overlapping atoms mean a wrong cell or unit; extreme compressions are legitimate but hard to fit."
    )
    return [Finding("overlaps", severity, text, advice, {"count": len(found), "ratio": ratio})]
