"""What the work test and the exchange test mean: findings about sign, unit and size of the labels."""

from collections.abc import Sequence

import numpy as np
from ase.units import Bohr, Hartree, Rydberg, kcal, kJ, mol

from mmace_sim.io.frames import Frame
from mmace_sim.quality.preflight.exchange import ExchangeFit, fit_exchange
from mmace_sim.quality.preflight.findings import Finding, Severity
from mmace_sim.quality.preflight.pairs import PairWork, close_pairs
from mmace_sim.quality.preflight.work import MIN_PAIRS, Factor, WorkFit, fit_work
from mmace_sim.units import BOHR_MAGNETON_EV_PER_T, EV_PER_A3_IN_GPA

ENERGY_UNITS: dict[str, float] = {
    "energies in Ry": 1 / Rydberg,
    "energies in Ha": 1 / Hartree,
    "energies in kJ/mol": mol / kJ,
    "energies in kcal/mol": mol / kcal,
    "energies in meV": 1000.0,
}
"""Factor that shows if the energies are in another unit than the labels."""

LABEL_UNITS: dict[str, dict[str, float]] = {
    "forces": {
        "forces in Ha/Bohr": Hartree / Bohr,
        "forces in Ry/Bohr": Rydberg / Bohr,
        "forces in eV/Bohr": 1 / Bohr,
        "forces in Ha/Å": Hartree,
        "forces in Ry/Å": Rydberg,
        "forces in meV/Å": 1e-3,
    },
    "stress": {
        "stress in GPa": 1 / EV_PER_A3_IN_GPA,
        "stress in kB": 0.1 / EV_PER_A3_IN_GPA,
        "stress in Ha/Bohr³": Hartree / Bohr**3,
    },
    "magforces": {
        "magnetic forces in Ha/μB": Hartree,
        "magnetic forces in Ry/μB": Rydberg,
        "magnetic forces in meV/μB": 1e-3,
        "fields in T": BOHR_MAGNETON_EV_PER_T,
        "a factor of 2 (spin S against moment 2S, or pairs counted twice)": 0.5,
        "a factor of 2 (spin S against moment 2S, or pairs counted once)": 2.0,
    },
}
"""Factor that shows if a label is in another unit."""

MAX_ZERO_ERROR = 2e-3
"""Offsets (eV/atom) between config_types below this are none, and those less certain than this are not reported."""

WORDS = {"forces": "forces", "stress": "stress", "magforces": "magnetic forces"}


def work_findings(frames: Sequence[Frame], pairs: PairWork) -> tuple[list[Finding], list[WorkFit]]:
    """Findings of the work test and the exchange test, over all structures and per config_type.

    Args:
        frames: Structures of all roles.
        pairs: Close pairs of them.

    Returns:
        Findings, and the fits; the first one is over all pairs.
    """
    fits = [fit_work(pairs)]
    findings = _overall(frames, fits[0]) + _zeros(frames, pairs, fits[0])
    types: dict[str, list[Frame]] = {}
    for frame in frames:
        types.setdefault(frame.config_type, []).append(frame)
    for name, members in types.items():
        if len(types) > 1 and len(members) > 5:
            fits.append(fit_work(close_pairs(members), name))
            findings += _of_one_type(fits[-1], fits[0])
    exchange = [fit for name, members in types.items() if (fit := fit_exchange(members, name))]
    findings += [_exchange_finding(fit) for fit in exchange]
    return findings, fits


def _overall(frames: Sequence[Frame], fit: WorkFit) -> list[Finding]:
    findings = [_verdict(part, factor, fit) for part, factor in fit.factors.items()]
    tested = {part.split()[0] for part in fit.factors}
    for label in ("forces", "stress", "magforces"):
        if label in tested:
            continue
        if any((f.labels[label] != 0).any() for f in frames if label in f.labels):
            findings.append(
                Finding(
                    f"work_{label}",
                    Severity.WARNING,
                    f"sign and unit of the {WORDS[label]} could not be tested: {_too_little(label, fit)}",
                    "Trust them only if the exchange test or the source says so; a few structures displaced, "
                    "strained or tilted slightly from one another would allow the test.",
                    {"n_pairs": fit.n_pairs, "n_working": _n_working(label, fit)},
                )
            )
    if fit.aligned > 0.2:
        findings.append(
            Finding(
                "rotated_moments",
                Severity.NOTE,
                f"{fit.aligned:.0%} of the close pairs are close only after a common rotation of all moments",
                "Fine for a model without spin–orbit coupling; with it, make sure that the frames of spins and "
                "lattice belong together.",
                {"share": fit.aligned},
            )
        )
    return findings


def _n_working(label: str, fit: WorkFit) -> int:
    return max((n for part, n in fit.n_working.items() if part.split()[0] == label), default=0)


def _too_little(label: str, fit: WorkFit) -> str:
    """Why a label has no factor."""
    number = _n_working(label, fit)
    if number >= MIN_PAIRS:
        return f"in {number} close pairs of structures they do less than a thousandth of the work"
    return f"they do work in {number} of {fit.n_pairs} close pairs of structures (at least {MIN_PAIRS} are needed)"


def _zeros(frames: Sequence[Frame], pairs: PairWork, fit: WorkFit) -> list[Finding]:
    """Whether config_types that have close pairs share one zero of energy."""
    types = np.array([frame.config_type for frame in frames])
    inside = fit_work(pairs.chosen(types[pairs.first] == types[pairs.second]))  # free of any offset
    fit = inside if inside.factors else fit
    factors = {part: f.value if f.is_certain else 1.0 for part, f in fit.factors.items()}
    left = pairs.energy - sum(factors.get(part, 1.0) * work for part, work in pairs.work.items())
    offsets: dict[tuple[str, str], list[float]] = {}
    sizes: dict[tuple[str, str], list[float]] = {}
    for i, j, rest, size, n_atoms in zip(
        pairs.first, pairs.second, left, pairs.energy, pairs.n_atoms, strict=True
    ):
        a, b = frames[i].config_type, frames[j].config_type
        if a != b:
            sizes.setdefault((min(a, b), max(a, b)), []).append(float(np.abs(size)) / n_atoms)
            offsets.setdefault((min(a, b), max(a, b)), []).append(
                float(rest) / n_atoms * (1 if a < b else -1)
            )
    findings, common = [], []
    for (a, b), values in offsets.items():
        middle = float(np.median(values))
        error = 1.4826 * float(np.median(np.abs(np.array(values) - middle))) / len(values) ** 0.5
        error = float(np.hypot(error, 0.5 * fit.misfit * np.median(sizes[a, b])))
        if len(values) < MIN_PAIRS or (error > MAX_ZERO_ERROR and abs(middle) < 3 * error):
            continue
        if abs(middle) < max(MAX_ZERO_ERROR, 3 * error):
            common.append(abs(middle))
            continue
        text = f"{b} lies {1000 * middle:+.2f} ± {1000 * error:.2f} meV/atom above {a} where both are close"
        text += f" ({len(values)} pairs): different zeros of energy?"
        advice = "Shift one of them, or give each its own E0."
        numbers = {"offset": middle, "uncertainty": error}
        findings.append(Finding("common_zero", Severity.WARNING, text, advice, numbers))
    if common:
        text = f"{len(common)} pairs of config_types that come close share one zero of energy (within "
        text += f"{1000 * max(common):.2g} meV/atom)"
        findings.append(Finding("common_zero", Severity.OK, text, "", {"offset": max(common)}))
    return findings


def _verdict(part: str, factor: Factor, fit: WorkFit) -> Finding:
    label, _, symbol = part.partition(" ")
    what = f"{WORDS[label]}{' of ' + symbol if symbol else ''}"
    values = {"factor": factor.value, "uncertainty": factor.uncertainty, "n_pairs": fit.n_pairs}
    measured = f"{what}: factor {factor.value:.3g} ± {factor.uncertainty:.2g} from {fit.n_pairs} close pairs"
    if not factor.is_certain:
        text = f"{measured}, too uncertain to tell"
        return Finding(
            f"work_{label}", Severity.WARNING, text, "Trust the label only if its source can.", values
        )
    if factor.is_one:
        return Finding(f"work_{label}", Severity.OK, f"{measured}, consistent with the energies", "", values)
    severity, meaning, advice = _meaning(label, factor, fit)
    return Finding(f"work_{label}", severity, f"{measured}, {meaning}", advice, values)


def _meaning(label: str, factor: Factor, fit: WorkFit) -> tuple[Severity, str, str]:
    sign, size = ("", factor.value) if factor.value > 0 else ("wrong sign", -factor.value)
    shared = all(abs(f.value / factor.value - 1) < 0.1 for f in fit.factors.values()) and len(fit.factors) > 1
    units = (ENERGY_UNITS | LABEL_UNITS[label]) if shared or len(fit.factors) == 1 else LABEL_UNITS[label]
    tolerance = max(0.03, 2 * factor.uncertainty / size)
    unit = next((name for name, value in units.items() if abs(size / value - 1) < tolerance), "")
    near_one = abs(size - 1.0) < max(0.3, 2 * factor.uncertainty)
    if unit and not (near_one and not sign):
        text = ", ".join(part for part in (sign, f"the factor suggests {unit}") if part)
        return Severity.ERROR, text, f"Convert to {_wanted(label)}."
    if sign:
        kind = "tension positive" if label == "stress" else "minus the derivative of the energy"
        return Severity.ERROR, f"{sign}", f"Turn the sign: {kind}."
    change = f"{abs(1 - 1 / size):.0%} too {'small' if size > 1 else 'large'} against the energies"
    if near_one:
        return (
            Severity.WARNING if abs(size - 1.0) > 0.1 else Severity.NOTE,
            change,
            f"A conservative model cannot fit both: give {WORDS[label]} a small weight, or find the cause.",
        )
    return Severity.ERROR, change, "Find out which label is wrong before training."


def _wanted(label: str) -> str:
    return {"forces": "eV and eV/Å", "stress": "eV and eV/Å³", "magforces": "eV, μB and eV/μB"}[label]


def _of_one_type(fit: WorkFit, overall: WorkFit) -> list[Finding]:
    """Config_types whose labels are worse than those of all together."""
    findings = []
    for part, factor in fit.factors.items():
        other = overall.factors.get(part)
        same = other and abs(factor.value - other.value) < max(0.05, 2 * factor.uncertainty)
        if factor.is_certain and not factor.is_one and not same:
            verdict = _verdict(part, factor, fit)
            values = verdict.values | {"config_type": fit.name}
            text = f"{fit.name}: {verdict.message}"
            findings.append(Finding(verdict.code, verdict.severity, text, verdict.advice, values))
    return findings


def _exchange_finding(fit: ExchangeFit) -> Finding:
    factor = fit.factor
    text = (
        f"{fit.name}: exchange from torques against energies, factor {factor.value:.3g} ± {factor.uncertainty:.2g} "
        f"({fit.n_frames} structures; a Heisenberg model describes {fit.torque_quality:.0%} of the torques and "
        f"{fit.energy_quality:.0%} of the energies)"
    )
    if not fit.is_usable:
        advice = "The moments of this set are not a Heisenberg model: the test says nothing."
        return Finding("exchange", Severity.NOTE, f"{text}: no verdict", advice, fit.as_dict())
    if factor.is_one or abs(factor.value - 1) < 0.1:
        return Finding("exchange", Severity.OK, f"{text}: sign and unit agree", "", fit.as_dict())
    if factor.value < 0.0 or not 0.6 < factor.value < 1.6:
        advice = "Check sign and unit of the magnetic forces and the moments."
        kind = "wrong sign" if factor.value < 0.0 else "wrong size"
        return Finding("exchange", Severity.ERROR, f"{text}: {kind}", advice, fit.as_dict())
    size = f"torques {abs(1 - 1 / factor.value):.0%} too {'small' if factor.value > 1 else 'large'}"
    advice = "Give magnetic forces a small weight, and judge their errors with this in mind."
    return Finding(
        "exchange", Severity.WARNING, f"{text}: {size} against the energies", advice, fit.as_dict()
    )
