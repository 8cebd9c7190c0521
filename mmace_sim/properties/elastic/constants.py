"""Elastic constants of many magnetic crystals in one batch, from the stresses of strained cells."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, override

import numpy as np
from ase import Atoms
from jaxtyping import Float
from scipy.linalg import sqrtm

from mmace_sim.engine.batching import Outcomes, run_groups
from mmace_sim.engine.computation import Advance
from mmace_sim.engine.kept import Kept
from mmace_sim.engine.outcomes import StructureResult
from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.properties.elastic.declaration import ElasticSettings
from mmace_sim.properties.elastic.moduli import ElasticConstants
from mmace_sim.properties.elastic.symmetry import (
    MANDEL_WEIGHTS,
    elastic_rotations,
    fit_constants,
    from_mandel,
    independent_constants,
    sufficient_strains,
    to_mandel,
)
from mmace_sim.properties.elastic.uncertainty import relaxation_error_gpa, slopes
from mmace_sim.properties.relax.relaxation import ModelLike, Relaxation, Status
from mmace_sim.properties.results import known
from mmace_sim.properties.singlepoint import (
    PointResult,
    converged,
    first_problem,
    point_result,
    point_settings,
)
from mmace_sim.properties.workflow import BatchWorkflow
from mmace_sim.units import EV_PER_A3_IN_GPA

MOMENT_MODES: dict[str, tuple[str, ...]] = {
    "relaxed": ("relaxed",),
    "fixed": ("fixed",),
    "both": ("fixed", "relaxed"),
}
"""How moments respond to a strain."""

RUNAWAY: float = 0.3
"""Moments that change by more than this (μB) under a small strain do not respond to it: they slide to another state."""

LARGE_ERROR: float = 0.01
"""Uncertainty relative to the largest constant from which on it is pointed out."""

LARGE_PRESSURE_GPA: float = 1.0
"""Stress of the reference (GPa) from which on it is pointed out."""


class ElasticStatus(StrEnum):
    """How the elastic constants of one structure ended."""

    CONVERGED = "converged"
    INCOMPLETE = "incomplete"
    MAX_STEPS = "max_steps"
    RUNAWAY = "runaway"
    NON_FINITE = "non_finite"
    FAILED = "failed"


@dataclass
class ElasticResult:
    """Elastic constants of one structure.

    Attributes:
        atoms: The structure as it was given.
        reference: The unstrained structure, relaxed or as given, with moments and results; None if it failed.
        status: CONVERGED; INCOMPLETE if some strained cells did not converge but the others suffice; else what went
            wrong.
        message: What to know or do; empty if all is well.
        n_rotations: Number of rotations that the crystal and its moments allow.
        n_independent: Number of independent constants.
        strains: Strains that were applied, such as "xx" and "yz".
        constants: By how the moments respond: "relaxed", "fixed" or both.
        points: What was computed for each strained cell, by the same key.
    """

    atoms: Atoms
    reference: Atoms | None
    status: ElasticStatus
    message: str = ""
    n_rotations: int = 0
    n_independent: int = 0
    strains: list[str] = field(default_factory=list)
    constants: dict[str, ElasticConstants] = field(default_factory=dict)
    points: dict[str, list[PointResult]] = field(default_factory=dict)


@dataclass
class _Plan:
    """Strained cells of one structure: each simple strain by each magnitude, first with +, then with −."""

    basis: Float[np.ndarray, "n_constants 6 6"]
    simple: list[int]
    magnitudes: Float[np.ndarray, " n_magnitudes"]
    gradients: Float[np.ndarray, "n 3 3"]
    images: list[Atoms]


class ElasticTensorCalculation(BatchWorkflow[ElasticSettings, ElasticResult]):
    """Elastic constants: settings here, structures in :meth:`run`.

    Every structure is relaxed (cell, atoms, moments), then strained by ± each magnitude along the simple strains that
    its symmetry needs; the atoms relax in the strained cells and the moments follow or not. The constants are the
    derivative of the second Piola–Kirchhoff stress with respect to the Green strain, C_ijkl = ∂²E/∂η_ij∂η_kl / V, by
    least squares from the odd part of the stresses, whose cubic term is fitted too. Deformations are pure strains
    without rotation, so that the axes of the moments stay meaningful. All structures, and then all strained cells,
    are one batch.

    Its settings are :class:`~mmace_sim.properties.elastic.declaration.ElasticSettings`.
    """

    kind = ElasticSettings

    @override
    def set_up(self, model: ModelLike, **where: Any) -> None:
        settings = self.settings
        self.magnitudes = np.array(sorted(set(settings.strains)))
        alike = point_settings(settings)
        start: dict[str, str | bool | float] = {"magmoms": "fixed"}
        if settings.relax:
            start = {"magmoms": "joint", "relax_cell": True, "stress_tol": settings.stress_tol}
        at_rest = alike.model_copy(update=start)
        self.reference = Relaxation(model, at_rest, relax_positions=settings.relax, **where)
        model = self.reference.bare_model
        where["relax_positions"] = settings.relax_positions
        self.strained = {
            mode: Relaxation(
                model,
                alike.model_copy(update={"magmoms": "joint" if mode == "relaxed" else "fixed"}),
                **where,
            )
            for mode in MOMENT_MODES[settings.magmoms]
        }
        self.spin_orbit = not self.reference.rotates_freely

    @override
    def _compute(
        self, images: list[Atoms], finish: Outcomes[ElasticResult], kept: Kept[Any], on_point: Advance
    ) -> None:
        counter = itertools.count(1)

        def relax(chosen: list[Atoms], on_finished: Callable[[int, StructureResult], None]) -> None:
            def ready(index: int, result: StructureResult) -> None:
                on_finished(index, result)
                on_point(0, detail=f"{next(counter)} of {len(images)} structures relaxed")

            self.reference.run(chosen, on_finished=ready)

        references = kept.completed(dict(enumerate(images)), relax)
        planned = [self._plan(atoms, references[index]) for index, atoms in enumerate(images)]
        cells = [[] if plan is None else plan.images for _, plan in planned]
        total, last = len(self.strained) * sum(map(len, cells)), list(self.strained)[-1]

        def analyse(mode: str, index: int, ends: list[StructureResult]) -> None:
            result, plan = planned[index]
            if plan is not None:
                result.points[mode] = [point_result(end) for end in ends]
                _analyse(result, plan, mode)
            if mode == last:
                finish(index, result)

        for mode, relaxation in self.strained.items():
            run_groups(relaxation.run, cells, partial(analyse, mode), partial(on_point, total=total))

    def _plan(self, atoms: Atoms, reference: StructureResult) -> tuple[ElasticResult, _Plan | None]:
        """What to compute for one structure, unless its reference failed."""
        if reference.status is not Status.CONVERGED:
            message = f"the unstrained structure: {reference.message}"
            return ElasticResult(atoms, None, ElasticStatus(reference.status), message), None
        unstrained = reference.atoms
        try:
            rotations = np.eye(3)[None]
            if self.settings.symmetry or not unstrained.pbc.all():
                rotations = elastic_rotations(
                    unstrained, spin_orbit=self.spin_orbit, symprec=self.settings.symprec
                )
        except StructureError as error:
            return ElasticResult(atoms, None, ElasticStatus.FAILED, str(error)), None
        basis = independent_constants(rotations)
        simple = sufficient_strains(basis) if self.settings.symmetry else list(range(6))
        strains = np.array(
            [sign * m * np.eye(6)[k] for k in simple for m in self.magnitudes for sign in (1.0, -1.0)]
        )
        gradients = np.array([sqrtm(np.eye(3) + 2 * strain).real for strain in from_mandel(strains)])
        result = ElasticResult(
            atoms,
            unstrained,
            ElasticStatus.CONVERGED,
            reference.message,
            n_rotations=len(rotations),
            n_independent=len(basis),
            strains=[("xx", "yy", "zz", "yz", "xz", "xy")[k] for k in simple],
        )
        stress = np.abs(unstrained.get_stress()).max() * EV_PER_A3_IN_GPA
        if stress > LARGE_PRESSURE_GPA:
            result.message += (
                f" The reference is under a stress of {stress:.1f} GPa: the constants are second derivatives of the "
                "energy there, not those of the relaxed crystal."
            )
        return result, _Plan(
            basis, simple, self.magnitudes, gradients, [_deformed(unstrained, f) for f in gradients]
        )


def _deformed(atoms: Atoms, gradient: Float[np.ndarray, "3 3"]) -> Atoms:
    """The structure after a pure strain; moments stay as they are."""
    image = atoms.copy()
    image.set_cell(atoms.cell.array @ gradient.T, scale_atoms=True)
    return image


def _largest_change(reference: Atoms, points: Sequence[PointResult]) -> float:
    """Largest change of any moment in the strained cells, in μB."""
    unstrained = get_magmoms(reference)
    changes = [np.linalg.norm(p.magmoms - unstrained, axis=1).max() for p in points if p.magmoms is not None]
    return float(max(changes, default=0.0))


def _analyse(result: ElasticResult, plan: _Plan, mode: str) -> None:
    """Fit the constants to what was computed."""
    points, reference = result.points[mode], known(result.reference)
    change = _largest_change(reference, points)
    if change > RUNAWAY:
        result.status = ElasticStatus.FAILED
        result.message = (
            f"a moment changes by {change:.2f} μB in a strained cell: the moments of the unstrained crystal are at no "
            "minimum and slide to another state. Start from another magnetic order, keep their axis (--collinear), or "
            "keep them (--magmoms fixed)."
        )
        return
    good, problem = converged(points), first_problem(points)
    stresses = np.array([np.full((3, 3), np.nan) if p.stress is None else p.stress for p in points])
    inverse = np.linalg.inv(plan.gradients)
    volumes = np.linalg.det(plan.gradients)[:, None, None]
    piola = to_mandel(volumes * (inverse @ stresses @ inverse.transpose(0, 2, 1)))
    pairs = (good[::2] & good[1::2]).reshape(-1, len(plan.magnitudes))
    odd = 0.5 * EV_PER_A3_IN_GPA * (piola[::2] - piola[1::2]).reshape(*pairs.shape, 6)
    measured = pairs.any(axis=1)
    found = [
        slopes(plan.magnitudes[ok], values[ok]) for ok, values in zip(pairs, odd, strict=True) if ok.any()
    ]
    columns = np.array([column for column, _ in found]).reshape(-1, 6)
    fitted = fit_constants(plan.basis, np.eye(6)[plan.simple][measured], columns)
    if fitted is None:
        result.status = ElasticStatus.FAILED
        result.message = f"too few of the strained cells converged with {mode} moments ({problem})"
        return
    if not good.all():
        result.status = ElasticStatus.INCOMPLETE
        result.message += f" {np.sum(~good)} of {len(good)} strained cells are left out ({problem})"
    constants, asymmetry = fitted
    relaxation = relaxation_error_gpa(reference, points, pairs, plan.magnitudes)
    voigt = constants / np.outer(MANDEL_WEIGHTS, MANDEL_WEIGHTS)
    error = float(np.linalg.norm([asymmetry, relaxation, max(series for _, series in found)]))
    result.constants[mode] = ElasticConstants.from_voigt(voigt, reference, error)
    if not result.constants[mode].stable:
        result.message += (
            f" Mechanically unstable with {mode} moments (Born): an eigenvalue of C is negative."
        )
    if error > LARGE_ERROR * float(np.abs(constants).max()):
        result.message += (
            f" The constants are uncertain by {error:.1f} GPa with {mode} moments: "
            "take smaller tolerances or strains."
        )
    result.message = result.message.strip()
