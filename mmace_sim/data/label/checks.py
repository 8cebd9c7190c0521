"""Checks of one calculation, and of a batch of them, beyond what `data check` knows of any data."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mmace_sim.data.label.calculation import Calculation, Mode
from mmace_sim.data.label.engine import EngineError, Labels, NotConvergedError
from mmace_sim.io.frames import Frame
from mmace_sim.quality.preflight import Finding, Severity

COLLAPSED: float = 0.1
"""Moments below this share of their start have vanished."""

MIN_TURNED: float = 0.1
"""Moments that were and are longer than this (μB) have a direction that can be told."""

MIN_KPPRA: int = 800
"""k points per reciprocal atom (k points times atoms) below which another number of them shows in the energies:
5 × 5 × 5 and 4 × 4 × 4 points differ by 48 meV/atom in B2 FeCo (docs/learn.md)."""

MAX_OFF: float = 3.0
"""Energies (eV/atom) further from the median of their composition are told."""


def check_labels(calculation: Calculation, labels: Labels, tolerance: float) -> None:
    """Make sure that labels are of the structure and of the state that were asked for.

    Args:
        calculation: What was asked for.
        labels: What came of it.
        tolerance: Largest distance of a held moment from its target, in μB.

    Raises:
        EngineError: If anything is missing or not finite.
        NotConvergedError: If held moments were not reached, or ended on the other side.
    """
    n_atoms = len(calculation.atoms)
    if not np.isfinite(labels.energy):
        raise EngineError(f"the energy is {labels.energy}.")
    shapes = {"forces": (n_atoms, 3), "stress": (3, 3), "magforces": (n_atoms, 3), "magmoms": (n_atoms, 3)}
    for name, shape in shapes.items():
        values = getattr(labels, name)
        if values is None:
            continue
        if values.shape != shape:
            raise EngineError(f"{name} has shape {values.shape}, expected {shape}.")
        if not np.isfinite(values).all():
            raise EngineError(f"{name} is not finite.")
    held, targets = calculation.held, calculation.magmoms
    turned = held & _opposite(labels.magmoms, targets)
    if turned.any():
        atom = int(np.flatnonzero(turned)[0])
        raise NotConvergedError(
            f"ended in another state: the moment of atom {atom} is {_vector(labels.magmoms[atom])} μB, held at "
            f"{_vector(targets[atom])}."
        )
    off = moment_error(calculation, labels)
    if off > tolerance:
        raise NotConvergedError(
            f"held moments were not reached: {off:.3g} μB away, allowed {tolerance:.3g} (--moment-tol)."
        )


def moment_error(calculation: Calculation, labels: Labels) -> float:
    """Largest distance of a held moment from its target, in μB.

    Args:
        calculation: What was asked for.
        labels: What came of it.
    """
    distances = np.linalg.norm(labels.magmoms - calculation.magmoms, axis=1)
    return float(distances[calculation.held].max(initial=0.0))


def state_note(calculation: Calculation, labels: Labels) -> str:
    """Where free moments went, if that is not where they started; "" if it is.

    Args:
        calculation: What was asked for.
        labels: What came of it.
    """
    free = ~calculation.held
    start = np.linalg.norm(calculation.magmoms, axis=1)
    end = np.linalg.norm(labels.magmoms, axis=1)
    moving = free & (start > MIN_TURNED)
    if calculation.mode is Mode.NONMAGNETIC or not moving.any():
        return ""
    if (end[moving] < COLLAPSED * start[moving]).all():
        return "the free moments vanished: a non-magnetic state"
    turned = int((_opposite(labels.magmoms, calculation.magmoms) & moving).sum())
    return f"{turned} free moments turned over: another magnetic state than the start" if turned else ""


def expected(findings: Sequence[Finding], calculations: Sequence[Calculation]) -> list[Finding]:
    """Findings without alarms about what is known here: that moments were reached, and what they were meant to be.

    Args:
        findings: Of `data check`.
        calculations: The batch.
    """
    findings = [finding for finding in findings if finding.code != "initial_guesses"]
    if any(c.mode is not Mode.NONMAGNETIC for c in calculations):
        return findings
    text, advice = "all candidates were computed without spin", "Give them moments if they should have some."
    return [
        replace(f, severity=Severity.NOTE, message=text, advice=advice) if f.code == "zero_moments" else f
        for f in findings
    ]


def energy_range(frames: Sequence[Frame]) -> list[Finding]:
    """Energies that are far from those of the same composition, as a finding; nothing if there are none."""
    groups: dict[str, list[Frame]] = {}
    for frame in frames:
        if "energy" in frame.labels:
            groups.setdefault(frame.atoms.get_chemical_formula(empirical=True), []).append(frame)
    far = []
    for formula, members in groups.items():
        energies = np.array([float(f.labels["energy"]) / len(f.atoms) for f in members])
        off = energies - np.median(energies)
        far += [
            f"{members[k].atoms.info.get('config_id', members[k].source)} ({formula}, {off[k]:+.2f} eV/atom)"
            for k in np.flatnonzero(np.abs(off) > MAX_OFF).tolist()
            if len(members) > 2
        ]
    if not far:
        return []
    message = f"{len(far)} energies are more than {MAX_OFF:g} eV/atom from the median of their composition: "
    advice = (
        "Look at their outputs: compressed cells may be right, another state or a lost constraint is not."
    )
    return [
        Finding("energy_range", Severity.WARNING, message + ", ".join(far[:5]), advice, {"count": len(far)})
    ]


def uneven_mesh(frames: Sequence[Frame]) -> list[Finding]:
    """Few k points, and not as many in all cells of a composition: energies jump from one to the other."""
    meshes: dict[str, dict[str, int]] = {}
    for frame in frames:
        text = str(frame.atoms.info.get("kpts", "")).split(" ")[0]
        counts = [int(part) for part in text.split("x") if part.isdigit()]
        if len(counts) == 3:
            per_atom = int(np.prod(counts)) * len(frame.atoms)
            key = f"{frame.atoms.get_chemical_formula(empirical=True)}, {len(frame.atoms)} atoms"
            meshes.setdefault(key, {})[text] = per_atom
    few = {key: found for key, found in meshes.items() if len(found) > 1 and min(found.values()) < MIN_KPPRA}
    if not few:
        return []
    shown = "; ".join(f"{key}: {', '.join(sorted(found))}" for key, found in list(few.items())[:3])
    return [
        Finding(
            "uneven_mesh",
            Severity.WARNING,
            f"cells of one composition have different numbers of k points, and few of them ({shown}): energies jump",
            f"Raise --k-length, so that k points times atoms are at least {MIN_KPPRA}, and compute again.",
            {"count": len(few)},
        )
    ]


def _opposite(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which moments point into opposite half-spaces, both long enough to tell."""
    long = np.minimum(np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)) > MIN_TURNED
    return long & ((first * second).sum(axis=1) < 0.0)


def _vector(moment: np.ndarray) -> str:
    return "(" + ", ".join(f"{part:.2f}" for part in moment) + ")"
