"""Energy against volume of many structures and magnetic states in one batch."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, override

import numpy as np
from ase import Atoms
from jaxtyping import Float

from mmace_sim.engine.batching import Outcomes, run_groups
from mmace_sim.engine.outcomes import StructureResult
from mmace_sim.errors import StructureError
from mmace_sim.graph.cells import check_crystal
from mmace_sim.properties.eos.analysis import Crossing, MomentJump, branches, crossings, moment_jumps
from mmace_sim.properties.eos.birch_murnaghan import BirchMurnaghanFit, EosStatus, fit_birch_murnaghan
from mmace_sim.properties.eos.declaration import EosSettings
from mmace_sim.properties.relax.relaxation import ModelLike, Relaxation, as_atoms
from mmace_sim.properties.results import known
from mmace_sim.properties.singlepoint import (
    PointResult,
    converged,
    energies_and_moments,
    first_problem,
    not_computed,
    point_result,
    point_settings,
    pressures_gpa,
    starting_state,
)
from mmace_sim.properties.workflow import Workflow
from mmace_sim.structures.magnetic_order import classify_order
from mmace_sim.torchsim.state import StructuresLike

MESSAGES: dict[EosStatus, str] = {
    EosStatus.CONVERGED: "",
    EosStatus.INCOMPLETE: "",
    EosStatus.POOR_FIT: "",
    EosStatus.OUTSIDE: "no minimum within the volumes {low:.2f}–{high:.2f} Å³/atom; the lowest energy is at {at:.2f}. "
    "Widen the range of volumes.",
    EosStatus.TOO_FEW: "too few usable points around the minimum for a fit; add volumes.",
    EosStatus.FAILED: "",
}


@dataclass
class EosCurve:
    """Energy against volume in one magnetic state.

    Attributes:
        state: Name of the state.
        status: How it ended.
        message: What to know or do; empty if all is well.
        note: How the state was made, such as a larger cell.
        volumes: In ascending order, in Å³/atom.
        energies: In eV/atom; NaN where a point failed or did not converge, as in the arrays below.
        moments: Mean length of all moments, in μB.
        pressures_gpa: In GPa, positive under compression.
        orders: Name of the magnetic order at each volume, which may differ from the one at the start.
        points: What was computed at each volume.
        jumps: Where the moment jumps.
        fits: Equation of state of every piece between two jumps that has a minimum, such as the low-spin and the
            high-spin one, in the order of their energies.
    """

    state: str
    status: EosStatus
    message: str = ""
    note: str = ""
    volumes: Float[np.ndarray, " n_points"] = field(default_factory=lambda: np.zeros(0))
    energies: Float[np.ndarray, " n_points"] = field(default_factory=lambda: np.zeros(0))
    moments: Float[np.ndarray, " n_points"] = field(default_factory=lambda: np.zeros(0))
    pressures_gpa: Float[np.ndarray, " n_points"] = field(default_factory=lambda: np.zeros(0))
    orders: list[str | None] = field(default_factory=list)
    points: list[PointResult] = field(default_factory=list)
    jumps: list[MomentJump] = field(default_factory=list)
    fits: list[BirchMurnaghanFit] = field(default_factory=list)

    def order_at(self, volume: float) -> str | None:
        """Name of the magnetic order at the nearest volume that was computed.

        Args:
            volume: In Å³/atom.

        Returns:
            The order, such as ``FM``; a state may have lost that which it started from. None if nothing was computed.
        """
        known = [k for k, order in enumerate(self.orders) if order is not None]
        return self.orders[min(known, key=lambda k: abs(self.volumes[k] - volume))] if known else None


@dataclass
class EosResult:
    """Curves of one structure.

    Attributes:
        atoms: The structure as it was given.
        curves: One for each state.
        crossings: Volumes where two states have the same energy.
    """

    atoms: Atoms
    curves: list[EosCurve]
    crossings: list[Crossing]

    @property
    def status(self) -> EosStatus:
        """CONVERGED if all curves are, else the first other status."""
        return next(
            (c.status for c in self.curves if c.status is not EosStatus.CONVERGED), EosStatus.CONVERGED
        )

    @property
    def lowest(self) -> EosCurve | None:
        """The curve with the lowest minimum."""
        fitted = [curve for curve in self.curves if curve.fits]
        return min(fitted, key=lambda curve: curve.fits[0].energy, default=None)


class EquationOfState(Workflow[EosSettings]):
    """Energy against volume: settings here, structures in :meth:`run`.

    The cell keeps its shape. Every point starts from the moments of its state, so that a metastable state is followed
    as far as it exists, and all points of all states of all structures are computed in one batch.

    Its settings are :class:`~mmace_sim.properties.eos.declaration.EosSettings`.
    """

    kind = EosSettings

    @override
    def set_up(self, model: ModelLike, **where: Any) -> None:
        self.relaxation = Relaxation(
            model, point_settings(self.settings), relax_positions=self.settings.relax_positions, **where
        )

    def run(
        self,
        structures: StructuresLike,
        *,
        on_finished: Callable[[int, EosResult], None] | None = None,
        on_point: Callable[[int], None] | None = None,
    ) -> list[EosResult]:
        """Compute the curves; a structure or state that fails does not stop the others.

        Args:
            structures: Crystals, with moments if the state "file" is asked for.
            on_finished: Called with the index and the result of each structure as soon as it is finished.
            on_point: Called with 1 after each point.

        Returns:
            One result for each structure, in the same order.
        """
        images = as_atoms(structures)
        curves = [[self._start(atoms, name) for name in self.settings.states] for atoms in images]
        points = [[point.atoms for curve in row for point in curve.points] for row in curves]
        finish = Outcomes(len(images), on_finished)

        def analyse(index: int, results: list[StructureResult]) -> None:
            rest = iter(map(point_result, results))
            for curve in curves[index]:
                if curve.points:
                    _finish_curve(curve, list(itertools.islice(rest, len(curve.points))))
            finish(index, EosResult(images[index], curves[index], _all_crossings(curves[index])))

        run_groups(self.relaxation, points, analyse, on_point)
        return finish.in_order()

    @property
    def _factors(self) -> Float[np.ndarray, " n_volumes"]:
        return np.linspace(self.settings.volume_min, self.settings.volume_max, self.settings.n_volumes)

    def _start(self, atoms: Atoms, name: str) -> EosCurve:
        """A curve whose points are still to be computed, or one that failed."""
        try:
            check_crystal(atoms, "an equation of state needs")
            state, note = starting_state(atoms, name, self.relaxation.bare_model)
        except StructureError as error:
            return EosCurve(name, EosStatus.FAILED, str(error))
        points = []
        for factor in self._factors:
            image = state.copy()
            image.set_cell(state.cell.array * factor ** (1 / 3), scale_atoms=True)
            points.append(not_computed(image))
        volumes = self._factors * state.cell.volume / len(state)
        return EosCurve(name, EosStatus.FAILED, note=note, volumes=volumes, points=points)


def _finish_curve(curve: EosCurve, points: list[PointResult]) -> None:
    """Fill in what was computed, and analyse it."""
    curve.points = points
    good, problem = converged(points), first_problem(points)
    curve.energies, curve.moments = energies_and_moments(points)
    curve.pressures_gpa = pressures_gpa(points)
    curve.orders = [
        str(classify_order(known(p.magmoms))) if ok else None for p, ok in zip(points, good, strict=True)
    ]
    if not good.any():
        curve.status, curve.message = EosStatus.FAILED, f"no point converged ({problem})"
        return
    curve.jumps = moment_jumps(curve.volumes, curve.moments)
    lowest, remarks = int(np.nanargmin(curve.energies)), []
    for piece in branches(curve.volumes, curve.jumps):
        values = (curve.volumes, curve.energies, curve.moments, curve.pressures_gpa)
        status, fit = fit_birch_murnaghan(*(column[piece] for column in values))
        main = piece.start <= lowest < piece.stop
        if main:
            curve.status = status
        if fit is not None and (main or fit.determined):
            curve.fits.append(fit)
            remarks += [f"at {fit.volume:.2f} Å³/atom {fit.remark()}"] if fit.remark() else []
    curve.fits.sort(key=lambda fit: fit.energy)
    said = MESSAGES[curve.status].format(
        low=curve.volumes[0], high=curve.volumes[-1], at=curve.volumes[lowest]
    )
    if curve.status in (EosStatus.CONVERGED, EosStatus.POOR_FIT) and not good.all():
        curve.status = EosStatus.INCOMPLETE if curve.status is EosStatus.CONVERGED else curve.status
        said = f"{np.sum(~good)} of {len(points)} points are left out ({problem})"
    elif lowest in (1, len(points) - 2) and curve.fits:
        remarks.append("The lowest energy is next to the edge of the range of volumes: widen it.")
    curve.message = " ".join(part for part in (said, *remarks) if part)


def _all_crossings(curves: Sequence[EosCurve]) -> list[Crossing]:
    """Crossings of every pair of states that were computed."""
    computed = [curve for curve in curves if len(curve.energies)]
    found = [
        crossing
        for a, b in itertools.combinations(computed, 2)
        for crossing in crossings((a.state, b.state), a.volumes, a.energies, b.energies)
    ]
    return sorted(found, key=lambda crossing: crossing.volume)
