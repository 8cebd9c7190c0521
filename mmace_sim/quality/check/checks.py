"""A physics check of a magnetic potential: every identity that it must obey, and by how much it does not."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from mmace_sim.base.text import listed
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.quality.check.target import load_target, make_probe
from mmace_sim.testing.identities import IDENTITIES, Identity
from mmace_sim.testing.prediction import Violation
from mmace_sim.testing.probe import Probe, with_magmoms
from mmace_sim.testing.structures import random_vectors, standard_structures

_log = logging.getLogger(__name__)

CHECKS: tuple[str, ...] = tuple(IDENTITIES)
"""Names of all checks, in their order."""

_MISSING: dict[str, str] = {
    "forces": "it gives no forces",
    "stress": "it gives no stress",
    "magforces": "it gives no magnetic forces (result magforces or magnetic_forces)",
    "batch": "a calculator takes one structure at a time",
    "weights": "it has no weights that could be trained",
    "r_max": "its cutoff radius is not known (--r-max)",
    "moments": "its energy does not depend on moments",
}
"""Why an identity cannot be measured, by what it needs of the potential."""

_MISSING_IN_STRUCTURES: dict[str, str] = {
    "cell": "no structure is periodic",
    "moments": "no structure has moments",
}
"""The same for what it needs of a structure."""


class CheckStatus(StrEnum):
    """Outcome of one check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: Name of the identity.
        statement: What must hold.
        status: Outcome.
        relative: Largest relative violation over the structures; None if it was not measured.
        energy: Largest violation in meV/atom, see `mmace_sim.testing.prediction.Violation`.
        tolerance: Largest relative violation that passes.
        structure: Structure with the largest relative violation.
        reason: Why it was skipped, or what went wrong if there is no number.
    """

    name: str
    statement: str
    status: CheckStatus
    relative: float | None
    energy: float | None
    tolerance: float
    structure: str = ""
    reason: str = ""


@dataclass(frozen=True)
class CheckReport:
    """What all checks of a potential found.

    Attributes:
        model: Name of the potential.
        provides: What it gives, see `mmace_sim.testing.probe.Probe`.
        elements: Atomic numbers that were in the structures.
        single_precision: Whether tolerances are those of float32.
        structures: Number of atoms of each structure.
        results: One for each identity.
        notes: What limits the meaning of the results.
        seconds: Duration.
    """

    model: str
    provides: list[str]
    elements: list[int]
    single_precision: bool
    structures: dict[str, int]
    results: list[CheckResult]
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether nothing failed; what was skipped does not count."""
        return not any(result.status == CheckStatus.FAILED for result in self.results)

    def count(self, status: CheckStatus | str) -> int:
        """Number of checks with a status."""
        return sum(result.status == status for result in self.results)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; numbers that are not finite are None."""
        values = asdict(self) | {"passed": self.passed}
        for result in values["results"]:
            result["status"] = str(result["status"])
            for key in ("relative", "energy"):
                if result[key] is not None and not np.isfinite(result[key]):
                    result[key] = None
        return values


def check_model(
    model: object = "default",
    *,
    structures: Mapping[str, Atoms] | Sequence[Atoms] | None = None,
    tolerance: float = 1.0,
    seed: int = 0,
    names: Sequence[str] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
    on_finished: Callable[[CheckResult], None] | None = None,
    known: Mapping[str, CheckResult] | None = None,
    **about: Any,
) -> CheckReport:
    """Measure every identity of a magnetic potential on some structures.

    Args:
        model: Name or file of a model, ``module:factory`` of an ASE calculator, the model or calculator itself, or a
            `mmace_sim.testing.probe.Probe` of it.
        structures: Structures with moments; by default simple crystals, a random cell and a dimer.
        tolerance: Factor for all tolerances.
        seed: Seed of rotations, displacements and the built-in structures.
        names: Identities to measure; by default all of `CHECKS`.
        device: Where to load a model that is given by name.
        dtype: Precision of a model that is given by name.
        on_finished: Called with each result that was not known.
        known: Results of an earlier run by name, which are taken over.
        **about: What a calculator does not say by itself, see `mmace_sim.quality.check.target.make_probe`.

    Returns:
        Result of each check; failures are no exceptions.

    Raises:
        ModelFileError: If there is no such model.
        UnsupportedOptionError: If the factory or the calculator cannot be used.
        UnsupportedElementError: If the model does not know an element of the structures.
        MissingMomentsError: If a structure has no moments.
    """
    start = time.perf_counter()
    chosen = _named(structures)
    if isinstance(model, str | Path):
        model = load_target(str(model), device=device, dtype=dtype)
    probe = model if isinstance(model, Probe) else make_probe(model, structures=chosen, **about)
    chosen = chosen or standard_structures(probe.elements, probe.max_moment, seed=seed)
    if not _depends_on_moments(probe, chosen, seed):
        probe.provides -= {"moments"}
    results = []
    for name in CHECKS if names is None else names:
        if known and name in known:
            results.append(known[name])
            continue
        results.append(_check(IDENTITIES[name], probe, chosen, tolerance, seed))
        _log.info("%s", _line(results[-1]))
        if on_finished:
            on_finished(results[-1])
    present = sorted({int(z) for atoms in chosen.values() for z in atoms.numbers})
    return CheckReport(
        model=probe.name,
        provides=sorted(probe.provides),
        elements=present,
        single_precision=probe.single_precision,
        structures={name: len(atoms) for name, atoms in chosen.items()},
        results=results,
        notes=_notes(probe, chosen, present),
        seconds=time.perf_counter() - start,
    )


def _named(structures: Mapping[str, Atoms] | Sequence[Atoms] | None) -> dict[str, Atoms]:
    if structures is None:
        return {}
    if not isinstance(structures, Mapping):
        structures = {f"structure {index}": atoms for index, atoms in enumerate(structures)}
    return {name: _free(atoms) for name, atoms in structures.items()}


def _free(atoms: Atoms) -> Atoms:
    """A copy without constraints, which would hold atoms back that are to be displaced."""
    new = with_magmoms(atoms, get_magmoms(atoms))
    new.set_constraint()
    return new


def _check(
    identity: Identity, probe: Probe, structures: Mapping[str, Atoms], tolerance: float, seed: int
) -> CheckResult:
    limit = tolerance * (identity.tolerance_single if probe.single_precision else identity.tolerance)
    unmeasured = CheckResult(identity.name, identity.statement, CheckStatus.SKIPPED, None, None, limit)
    usable = [name for name, atoms in structures.items() if identity.applies_to(probe, atoms)]
    if not usable:
        return replace(unmeasured, reason=_why_skipped(identity, probe))
    rng, violations = np.random.default_rng(seed), {}
    for name in usable:
        try:
            with np.errstate(all="ignore"):  # infinite energies are a result, not a mistake of ours
                violations[name] = identity.measure(probe, structures[name], rng)
        except Exception as error:
            _log.exception("%s, %s", identity.name, name)
            return replace(
                unmeasured,
                status=CheckStatus.FAILED,
                structure=name,
                reason=f"raised {type(error).__name__}: {' '.join(str(error).split())}",
            )
    return _judge(unmeasured, violations)


def _judge(unmeasured: CheckResult, violations: dict[str, Violation]) -> CheckResult:
    where = max(violations, key=lambda name: violations[name].relative)
    energies = [v.energy for v in violations.values() if v.energy is not None]
    relative = violations[where].relative
    return replace(
        unmeasured,
        status=CheckStatus.PASSED if relative <= unmeasured.tolerance else CheckStatus.FAILED,
        relative=relative,
        energy=max(energies, default=None),
        structure=where,
        reason="" if np.isfinite(relative) else "not finite",
    )


def _why_skipped(identity: Identity, probe: Probe) -> str:
    if not identity.spin_orbit and probe.spin_orbit is not False and "moments" in probe.provides:
        known = "it has spin–orbit coupling"
        return (
            known if probe.spin_orbit else "whether it has spin–orbit coupling is not known (--no-spin-orbit)"
        )
    of_potential = [_MISSING[need] for need in _MISSING if need in identity.needs - probe.provides]
    of_structures = [text for need, text in _MISSING_IN_STRUCTURES.items() if need in identity.needs]
    return [*of_potential, *of_structures][0]


def _depends_on_moments(probe: Probe, structures: Mapping[str, Atoms], seed: int) -> bool:
    """Say whether random moments make a difference to any structure; most identities are trivial otherwise."""
    rng = np.random.default_rng(seed)
    for atoms in structures.values():
        half = 0.5 * np.array([[probe.max_moment(z)] for z in atoms.numbers.tolist()])
        magmoms = half * random_vectors(rng, len(atoms))
        without, with_some = probe.energies([with_magmoms(atoms, 0 * magmoms), with_magmoms(atoms, magmoms)])
        if not abs(with_some - without) <= 1e-12 * max(abs(without), 1.0):
            return True
    return False


def _line(result: CheckResult) -> str:
    numbers = "" if result.relative is None else f": {result.relative:.2e} (tolerance {result.tolerance:.0e})"
    where = f", {result.structure}" if result.structure else ""
    return f"{result.name} {result.status}{numbers}{where}{f': {result.reason}' if result.reason else ''}"


def _notes(probe: Probe, structures: Mapping[str, Atoms], present: Sequence[int]) -> list[str]:
    notes = []
    if "moments" not in probe.provides:
        notes.append(
            "the energy does not depend on the moments in initial_magmoms: nothing about magnetism was checked"
        )
    absent = [name for name in ("forces", "stress", "magforces") if name not in probe.provides]
    if absent:
        notes.append(f"the potential gives no {', '.join(absent)}: symmetries of these were not checked")
    left_out = len(set(probe.elements) - set(present))
    if left_out:
        notes.append(
            f"{left_out} of {len(probe.elements)} elements are in no structure (--elements, --structures)"
        )
    ranks = {name: np.linalg.matrix_rank(get_magmoms(atoms), tol=1e-6) for name, atoms in structures.items()}
    for rank, what in ((0, "no moments"), (1, "collinear moments")):
        names = [name for name, value in ranks.items() if value == rank and len(structures[name]) > 1]
        if names:
            notes.append(f"{what} in {listed(names, 3)}: these say little about non-collinear magnetism")
    if probe.single_precision:
        notes.append("tolerances are those of single precision")
    return notes
