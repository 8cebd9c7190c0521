"""Energy against volume of many structures and magnetic states in one batch."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import override

import numpy as np
from ase import Atoms
from jaxtyping import Float

from mmace_sim.graph.cells import check_crystal
from mmace_sim.properties.eos.analysis import Crossing, MomentJump, branches, crossings, moment_jumps
from mmace_sim.properties.eos.birch_murnaghan import BirchMurnaghanFit, EosStatus, fit_birch_murnaghan
from mmace_sim.properties.eos.declaration import EosSettings
from mmace_sim.properties.results import known
from mmace_sim.properties.singlepoint import converged, first_problem, pressures_gpa
from mmace_sim.properties.states import StatePoints, StatesWorkflow, common_status
from mmace_sim.structures.magnetic_order import classify_order

MESSAGES: dict[EosStatus, str] = {
    EosStatus.OUTSIDE: "no minimum within the volumes {low:.2f}–{high:.2f} Å³/atom; the lowest energy is at {at:.2f}. "
    "Widen the range of volumes.",
    EosStatus.TOO_FEW: "too few usable points around the minimum for a fit; add volumes.",
}


@dataclass
class EosCurve(StatePoints):
    """Energy against volume in one magnetic state; what is not said here is said of its base, `StatePoints`.

    Attributes:
        volumes: In ascending order, in Å³/atom.
        pressures_gpa: In GPa, positive under compression; NaN where a point failed or did not converge.
        orders: Name of the magnetic order at each volume, which may differ from the one at the start.
        jumps: Where the moment jumps.
        fits: Equation of state of every piece between two jumps that has a minimum, such as the low-spin and the
            high-spin one, in the order of their energies.
    """

    volumes: Float[np.ndarray, " n_points"] = field(default_factory=lambda: np.zeros(0))
    pressures_gpa: Float[np.ndarray, " n_points"] = field(default_factory=lambda: np.zeros(0))
    orders: list[str | None] = field(default_factory=list)
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
        return common_status(self.curves)

    @property
    def lowest(self) -> EosCurve | None:
        """The curve with the lowest minimum."""
        fitted = [curve for curve in self.curves if curve.fits]
        return min(fitted, key=lambda curve: curve.fits[0].energy, default=None)


class EquationOfState(StatesWorkflow[EosSettings, EosCurve, EosResult]):
    """Energy against volume: settings here, structures in :meth:`run`. The cell keeps its shape.

    Its settings are :class:`~mmace_sim.properties.eos.declaration.EosSettings`.
    """

    kind = EosSettings
    part = EosCurve

    @override
    def _check(self, atoms: Atoms) -> None:
        check_crystal(atoms, "an equation of state needs")

    @override
    def _cells(self, atoms: Atoms, state: Atoms) -> list[Float[np.ndarray, "3 3"]]:
        settings = self.settings
        factors = np.linspace(settings.volume_min, settings.volume_max, settings.n_volumes)
        return [state.cell.array * factor ** (1 / 3) for factor in factors]

    @override
    def _result(self, atoms: Atoms, states: list[EosCurve]) -> EosResult:
        for curve in states:
            if curve.points:
                _finish_curve(curve)
        return EosResult(atoms, states, _all_crossings(states))


def _finish_curve(curve: EosCurve) -> None:
    """Analyse what was computed."""
    points, good = curve.points, converged(curve.points)
    curve.volumes = np.array([point.atoms.cell.volume / len(point.atoms) for point in points])
    curve.pressures_gpa = pressures_gpa(points)
    curve.orders = [
        str(classify_order(known(p.magmoms))) if ok else None for p, ok in zip(points, good, strict=True)
    ]
    if not good.any():
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
    said = MESSAGES.get(curve.status, "").format(
        low=curve.volumes[0], high=curve.volumes[-1], at=curve.volumes[lowest]
    )
    if curve.status in (EosStatus.CONVERGED, EosStatus.POOR_FIT) and not good.all():
        curve.status = EosStatus.INCOMPLETE if curve.status is EosStatus.CONVERGED else curve.status
        said = f"{np.sum(~good)} of {len(points)} points are left out ({first_problem(points)})"
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
