"""Which magnetic order is lowest: many starts of many structures, relaxed in one batch, ranked and compared."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, override

import numpy as np
from ase import Atoms
from ase.formula import Formula
from jaxtyping import Float

from mmace_sim.engine.batching import Outcomes, run_groups
from mmace_sim.engine.computation import Advance
from mmace_sim.engine.kept import Kept
from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.properties.order.axes import symmetry_of_moments
from mmace_sim.properties.order.declaration import OrderSettings
from mmace_sim.properties.order.starts import OrderStart, order_starts
from mmace_sim.properties.order.states import cluster_states, keeps_order, state_fingerprint
from mmace_sim.properties.relax.declaration import RelaxSettings
from mmace_sim.properties.relax.relaxation import ModelLike, Relaxation, Status, StructureResult
from mmace_sim.properties.workflow import BatchWorkflow
from mmace_sim.structures.magnetic_order import (
    MagneticOrder,
    MagneticSymmetry,
    classify_order,
)

_SYMPREC_FACTORS = (3.0, 1.0, 6.0)
"""Relaxed positions are less exact than given ones; where spglib names no group, other tolerances are tried."""

_log = logging.getLogger(__name__)


class OrderStatus(StrEnum):
    """How the search ended for one structure."""

    CONVERGED = "converged"
    INCOMPLETE = "incomplete"
    FAILED = "failed"


@dataclass
class RelaxedOrder:
    """What became of one start.

    Attributes:
        start: The start.
        status: How its relaxation ended.
        message: What to know or do; empty if all is well.
        atoms: Relaxed structure, moments in ``initial_magmoms``, results on a ``SinglePointCalculator``; the start if
            it failed.
        energy: In eV/atom; NaN if there is none.
        energy_above_best: Above the lowest converged order of the same structure, in eV/atom.
        energy_above_lowest: Above the lowest converged order of all structures of the same composition, in eV/atom.
        steps: Number of steps.
        order_initial: Name of the order at the start.
        order_final: Name of the order at the end; None if there is none.
        is_kept: Whether the moments still stand to each other as at the start.
        state: Name of the start that stands for the state where this one ended; None if it did not converge.
        symmetry: Magnetic space group of the state; None for what is not a crystal or did not converge.
    """

    start: OrderStart
    status: Status
    message: str
    atoms: Atoms
    energy: float = float("nan")
    energy_above_best: float = float("nan")
    energy_above_lowest: float = float("nan")
    steps: int = 0
    order_initial: MagneticOrder = MagneticOrder.NON_MAGNETIC
    order_final: MagneticOrder | None = None
    is_kept: bool = False
    state: str | None = None
    symmetry: MagneticSymmetry | None = None

    @property
    def name(self) -> str:
        """Name of the start."""
        return self.start.name

    @property
    def magmoms(self) -> Float[np.ndarray, "n_atoms 3"]:
        """Moments at the end, in μB."""
        return get_magmoms(self.atoms)

    @property
    def outcome(self) -> str:
        """In words, where the start ended if that is not itself."""
        if self.state is None:
            return ""
        if self.state != self.name:
            return f"same as {self.state}" if self.is_kept else f"became {self.state}"
        return "" if self.is_kept else f"new state, {self.order_final}"


@dataclass
class OrderResult:
    """All orders of one structure.

    Attributes:
        atoms: The structure as it was given.
        orders: One for each start, the ferromagnet first.
        message: Why there are none, or what is wrong with some.
        note: What is missing among the starts, or "".
    """

    atoms: Atoms
    orders: list[RelaxedOrder] = field(default_factory=list)
    message: str = ""
    note: str = ""

    @property
    def status(self) -> OrderStatus:
        """CONVERGED if all starts are, FAILED if none is."""
        converged = sum(order.status is Status.CONVERGED for order in self.orders)
        if converged == 0:
            return OrderStatus.FAILED
        return OrderStatus.CONVERGED if converged == len(self.orders) else OrderStatus.INCOMPLETE

    @property
    def states(self) -> list[RelaxedOrder]:
        """One start for each different state, the lowest first."""
        leaders = [order for order in self.orders if order.state == order.name]
        return sorted(leaders, key=lambda order: order.energy)

    @property
    def best(self) -> RelaxedOrder | None:
        """The lowest state; None if nothing converged."""
        return next(iter(self.states), None)


class OrderSearch(BatchWorkflow[OrderSettings, OrderResult]):
    """Looks for the lowest magnetic order: settings here, structures in :meth:`run`.

    Every structure is reduced to its primitive cell; collinear orders are enumerated, see
    `mmace_sim.properties.order.enumeration.enumerate_collinear`. All starts of all structures are relaxed in one batch.

    A collinear order keeps its symmetry while it relaxes: it ends at the best state of this symmetry, which need not be
    stable. With `tilt`, what is unstable leaves it. Without spin–orbit coupling, relaxed moments are turned together to
    the axes that leave most magnetic symmetry. Energies relative to other structures are known only when all are there.

    Its settings are :class:`~mmace_sim.properties.order.declaration.OrderSettings`.
    """

    kind = OrderSettings

    @override
    def set_up(self, model: ModelLike, **where: Any) -> None:
        settings = self.settings
        shared = set(RelaxSettings.model_fields) & set(OrderSettings.model_fields)
        alike = RelaxSettings(stability=False, **{name: getattr(settings, name) for name in shared})
        self.relaxation = Relaxation(model, alike, relax_positions=settings.relax_positions, **where)
        self.spin_orbit = not self.relaxation.rotates_freely

    @override
    def _compute(
        self, images: list[Atoms], finish: Outcomes[OrderResult], kept: Kept[Any], on_point: Advance
    ) -> None:
        results, starts = [], []
        for atoms in images:
            try:
                own, note = order_starts(atoms, self.settings)
            except StructureError as error:
                own, note = [], ""
                results.append(OrderResult(atoms, message=str(error)))
            else:
                results.append(OrderResult(atoms, note=note))
            starts.append(own)
        n_starts = sum(map(len, starts))

        def tell(group: int, k: int, outcome: StructureResult) -> None:
            per_atom, name = outcome.energy / len(outcome.atoms), starts[group][k].name
            _log.info(
                "structure %d, %s: %s, %d steps, %.6f eV/atom",
                group, name, outcome.status, outcome.steps, per_atom,
            )  # fmt: skip
            on_point(1, total=n_starts)

        def analyse(index: int, outcomes: list[StructureResult]) -> None:
            result = results[index]
            result.orders = list(map(self._order, starts[index], outcomes))
            _compare(result, self.settings.energy_tol)
            for order in result.states:
                order.symmetry = self._symmetry(order)
            symmetries = {order.name: order.symmetry for order in result.states}
            for order in result.orders:
                order.symmetry = symmetries.get(order.state or "")
            finish(index, result)

        groups = [[start.atoms for start in own] for own in starts]
        run_groups(partial(kept.run, self.relaxation.run), groups, analyse, on_each=tell)
        _compare_compositions(results)

    def _order(self, start: OrderStart, outcome: StructureResult) -> RelaxedOrder:
        """What a relaxation made of a start."""
        order = RelaxedOrder(
            start=start,
            status=outcome.status,
            message="" if outcome.status is Status.CONVERGED else outcome.message,
            atoms=outcome.atoms,
            energy=outcome.energy / len(outcome.atoms),
            steps=outcome.steps,
            order_initial=classify_order(get_magmoms(start.atoms)),
        )
        if outcome.status in (Status.CONVERGED, Status.MAX_STEPS):
            order.order_final = classify_order(order.magmoms)
            order.is_kept = keeps_order(get_magmoms(start.atoms), order.magmoms)
        return order

    def _symmetry(self, order: RelaxedOrder) -> MagneticSymmetry | None:
        """Magnetic space group, the tolerance such that the rest of forces and stress does not matter."""
        for factor in _SYMPREC_FACTORS:
            symmetry = symmetry_of_moments(
                order.atoms, order.magmoms, turn=not self.spin_orbit, symprec=factor * self.settings.symprec
            )
            if symmetry is not None:
                return symmetry
        return None


def _compare(result: OrderResult, energy_tol: float) -> None:
    """Find out which starts ended in the same state, and rank them."""
    converged = [order for order in result.orders if order.status is Status.CONVERGED]
    problems = [f"{order.name} {order.status}" for order in result.orders if order not in converged]
    if problems:
        result.message = (
            f"{len(problems)} of {len(result.orders)} starts did not converge: {', '.join(problems)}"
        )
    if not converged:
        return
    energies = [order.energy for order in converged]
    groups = cluster_states(
        energies,
        [state_fingerprint(order.atoms, order.magmoms) for order in converged],
        energy_tol=energy_tol,
    )
    for number in set(groups):
        members = [order for order, group in zip(converged, groups, strict=True) if group == number]
        leader = next((order for order in members if order.is_kept), members[0])
        for order in members:
            order.state = leader.name
    best = result.states[0].energy
    for order in result.orders:
        order.energy_above_best = order.energy - best


def _compare_compositions(results: Sequence[OrderResult]) -> None:
    """Energies relative to the lowest of all structures of the same composition."""
    formulas = [composition(result.atoms.get_chemical_formula()) for result in results]
    lowest: dict[str, float] = {}
    for formula, result in zip(formulas, results, strict=True):
        energies = [order.energy for order in result.states]
        lowest[formula] = min([lowest.get(formula, np.inf), *energies])
    for formula, result in zip(formulas, results, strict=True):
        for order in result.orders:
            order.energy_above_lowest = order.energy - lowest[formula]


def composition(formula: str) -> str:
    """What structures have in common whose energies per atom can be compared.

    Args:
        formula: Of a structure.

    Returns:
        Its smallest formula.
    """
    return str(Formula(formula).reduce()[0].convert("metal"))
