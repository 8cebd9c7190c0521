"""Which magnetic order is lowest: many starts of many structures, relaxed in one batch, ranked and compared."""

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float

from mmace_sim.errors import StructureError, UnsupportedOptionError
from mmace_sim.graph.atoms import get_magmoms
from mmace_sim.properties.order.axes import symmetry_of_moments
from mmace_sim.properties.order.starts import OrderStart, order_starts
from mmace_sim.properties.order.states import cluster_states, keeps_order, state_fingerprint
from mmace_sim.properties.relax.relaxation import ModelLike, Relaxation, Status, StructureResult, as_atoms
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


class OrderSearch:
    """Looks for the lowest magnetic order: settings here, structures in :meth:`run`.

    Every structure is reduced to its primitive cell; collinear orders are enumerated, see
    `mmace_sim.properties.order.enumeration.enumerate_collinear`. All starts of all structures are relaxed in one batch.

    A collinear order keeps its symmetry while it relaxes: it ends at the best state of this symmetry, which need not be
    stable. With `tilt`, what is unstable leaves it. Without spin–orbit coupling, relaxed moments are turned together to
    the axes that leave most magnetic symmetry.

    Args:
        model: Model, its name or path, or any TorchSim model that gives magforces.
        max_supercell: Largest number of primitive cells in a magnetic cell.
        max_orders: Largest number of collinear orders of a structure.
        non_magnetic: Whether to add a start without moments.
        n_random: Number of starts with random directions.
        spirals: Whether to add the spin spirals that fit into a supercell.
        seed: Seed of random directions and tilts.
        tilt: Turn every moment of every start by a random angle of this size, in degrees.
        relax_positions: Whether atoms may move.
        relax_cell: Whether the cell may change.
        fmax: Largest force at convergence, in eV/Å.
        stress_tol: Largest component of the stress at convergence, in GPa.
        magforce_tol: Largest magforce at convergence, in eV/μB.
        max_steps: Largest number of steps.
        energy_tol: States closer than this, in eV/atom, and alike are one.
        symprec: Tolerance of positions for symmetry, in Å.
        **settings: `magmoms`, `collinear`, `fix_magnitude`, `device`, `dtype`, `max_batch_atoms` of
            :class:`~mmace_sim.properties.relax.relaxation.Relaxation`.

    Raises:
        UnsupportedOptionError: If a setting is impossible.
    """

    def __init__(
        self,
        model: ModelLike = "default",
        *,
        max_supercell: int = 2,
        max_orders: int = 32,
        non_magnetic: bool = True,
        n_random: int = 0,
        spirals: bool = False,
        seed: int = 0,
        tilt: float = 0.0,
        relax_positions: bool = True,
        relax_cell: bool = True,
        fmax: float = 0.01,
        stress_tol: float = 0.1,
        magforce_tol: float = 1e-3,
        max_steps: int = 1000,
        energy_tol: float = 1e-3,
        symprec: float = 0.01,
        **settings: Any,
    ) -> None:
        if min(max_supercell, max_orders) < 1 or n_random < 0 or not 0 <= tilt < 90:
            raise UnsupportedOptionError(
                f"max_supercell = {max_supercell}, max_orders = {max_orders}, n_random = {n_random}, tilt = {tilt}: "
                "expected at least 1, 1 and 0, and an angle below 90 degrees."
            )
        self.energy_tol, self.symprec = energy_tol, symprec
        self.starts: dict[str, Any] = {
            "max_supercell": max_supercell,
            "max_orders": max_orders,
            "non_magnetic": non_magnetic,
            "n_random": n_random,
            "spirals": spirals,
            "seed": seed,
            "tilt": tilt,
            "symprec": symprec,
        }
        self.relaxation = Relaxation(
            model,
            stability=False,
            relax_positions=relax_positions,
            relax_cell=relax_cell,
            fmax=fmax,
            stress_tol=stress_tol,
            magforce_tol=magforce_tol,
            max_steps=max_steps,
            **settings,
        )
        bare = getattr(self.relaxation.bare_model, "model", None)
        self.spin_orbit = bool(getattr(bare, "spin_orbit", True))

    def run(
        self, structures: Any, *, on_finished: Callable[[int, int], None] | None = None
    ) -> list[OrderResult]:
        """Relax all starts of all structures; a start or structure that fails does not stop the others.

        Args:
            structures: Structures with moments, whose lengths the starts take over.
            on_finished: Called after each start with the number of finished starts and of all.

        Returns:
            One result for each structure, in the same order.
        """
        results, starts = [], []
        for atoms in as_atoms(structures):
            try:
                own, note = order_starts(atoms, **self.starts)
            except StructureError as error:
                own, note = [], ""
                results.append(OrderResult(atoms, message=str(error)))
            else:
                results.append(OrderResult(atoms, note=note))
            starts.append(own)
        names = [f"structure {k}, {start.name}" for k, own in enumerate(starts) for start in own]
        n_finished = itertools.count(1)

        def finish(index: int, outcome: StructureResult) -> None:
            per_atom = outcome.energy / len(outcome.atoms)
            _log.info("%s: %s, %d steps, %.6f eV/atom", names[index], outcome.status, outcome.steps, per_atom)
            if on_finished is not None:
                on_finished(next(n_finished), len(names))

        images = [start.atoms for own in starts for start in own]
        relaxed = iter(self.relaxation.run(images, on_finished=finish))
        for result, own in zip(results, starts, strict=True):
            result.orders = [self._order(start, next(relaxed)) for start in own]
            _compare(result, self.energy_tol)
            for order in result.states:
                order.symmetry = self._symmetry(order)
            symmetries = {order.name: order.symmetry for order in result.states}
            for order in result.orders:
                order.symmetry = symmetries.get(order.state or "")
        _compare_compositions(results)
        return results

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
                order.atoms, order.magmoms, turn=not self.spin_orbit, symprec=factor * self.symprec
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
    compositions = [str(result.atoms.symbols.formula.reduce()[0].convert("metal")) for result in results]
    lowest: dict[str, float] = {}
    for composition, result in zip(compositions, results, strict=True):
        energies = [order.energy for order in result.states]
        lowest[composition] = min([lowest.get(composition, np.inf), *energies])
    for composition, result in zip(compositions, results, strict=True):
        for order in result.orders:
            order.energy_above_lowest = order.energy - lowest[composition]
