"""Exchange constants of collinear magnets by three routes: second derivatives, four states, spin spirals."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, override

import numpy as np
from ase import Atoms
from jaxtyping import Float, Int

from mmace_sim.engine.outcomes import UNUSABLE
from mmace_sim.errors import StructureError, UnsupportedOptionError
from mmace_sim.graph.atoms import bare_copy
from mmace_sim.properties.exchange.declaration import ExchangeSettings
from mmace_sim.properties.exchange.hessian import (
    anisotropy_tensors,
    beyond,
    exchange_from_hessians,
    relax_lengths,
    single_ion_anisotropy,
    spin_hessian,
    sum_rule_error,
)
from mmace_sim.properties.exchange.magnons import (
    MagnonPath,
    Stiffness,
    magnon_path,
    stiffness,
)
from mmace_sim.properties.exchange.states import FourStates, Spirals, four_states, spin_spirals
from mmace_sim.properties.relax.relaxation import ModelLike, Status
from mmace_sim.properties.results import known
from mmace_sim.properties.singlepoint import PointResult, converged
from mmace_sim.properties.turned import TurnedWorkflow, lacking, resting_and_turned
from mmace_sim.sampling.hamiltonian import SpinHamiltonian
from mmace_sim.structures.spin_lattice import Pairs, SpinLattice, find_pairs, spin_lattice
from mmace_sim.structures.supercells import choose_supercell

_DIFFERENT = 0.1
"""Difference of the routes, relative to the largest J', from which on a result says so."""
_BROKEN = 0.05
"""Change by averaging over symmetry, relative to the largest J', from which on a result says so."""


def dmi_vectors(tensors: Float[np.ndarray, "*pairs 3 3"]) -> Float[np.ndarray, "*pairs 3"]:
    """Vectors D from the antisymmetric part of exchange tensors, in their unit."""
    turned = 0.5 * (tensors - tensors.swapaxes(-1, -2))
    return turned[..., [1, 2, 0], [2, 0, 1]]


@dataclass
class ExchangeResult:
    """Exchange of one crystal.

    Attributes:
        atoms: The structure with the moments that the constants belong to.
        status: CONVERGED if all routes gave a result.
        message: What to know or do; empty if all is well.
        lattice: Magnetic primitive cell; None if it failed, as for `pairs` and `magnons`.
        pairs: Pairs within the cutoff.
        tensors: J'_ij of each route in eV, for each pair: [α, β] couples component α of the first with β of the second.
        spread: Largest change of a tensor of the first route by averaging over symmetry, in eV.
        sum_rule_error: Σ_j ∂²E/∂u_i∂u_j s_j, in eV: zero where the energy does not change when all moments turn.
        beyond_cutoff: Largest |J'| in the supercell between sites farther apart than the cutoff, in eV.
        supercell: Multiples of the primitive cell vectors.
        spirals: Wave vectors in reciprocal vectors, E(q) per cell in eV, of the spirals of all sites; None without.
        single_ion: Anisotropy of each site itself, from second derivatives: ∂²E/∂u∂u in eV perpendicular to the moments
            (2K for −K cos²θ); None without spin–orbit coupling or second derivatives.
        anisotropy: Single-ion anisotropy of each site as a symmetric traceless tensor A in eV, E = Σ e·A·e; None as for
            `single_ion`.
        anisotropy_error: Largest part of its second derivatives at several axes that A does not give, in eV.
        magnons: Linear spin waves from the tensors of the first route and `single_ion`.
        stiffness: D in eV Å² for ferromagnets, averaged over the directions that the exchange couples in.
        stiffness_tensor: The same as a tensor, and the number of dimensions.
        temperature: Mean-field ordering temperature in K.
        spin_orbit: Whether the model couples moments to the lattice.
        images: What the constants stand for: the crystal, and of the turned states those that differ most from it.
    """

    atoms: Atoms
    status: Status
    message: str = ""
    lattice: SpinLattice | None = None
    pairs: Pairs | None = None
    tensors: dict[str, Float[np.ndarray, "n_pairs 3 3"]] = field(default_factory=dict)
    spread: float = 0.0
    sum_rule_error: float | None = None
    beyond_cutoff: float | None = None
    supercell: tuple[int, int, int] | None = None
    spirals: tuple[np.ndarray, np.ndarray] | None = None
    single_ion: Float[np.ndarray, "n_sites 2 2"] | None = None
    anisotropy: Float[np.ndarray, "n_sites 3 3"] | None = None
    anisotropy_error: float = 0.0
    magnons: MagnonPath | None = None
    stiffness: float | None = None
    stiffness_tensor: Stiffness | None = None
    temperature: float | None = None
    spin_orbit: bool = False
    images: list[Atoms] = field(default_factory=list)

    @property
    def breaks_symmetry(self) -> bool:
        """Whether averaging over symmetry changed more than rounding and small distortions can explain."""
        return self.spread > 0 and bool(self.spread > _BROKEN * np.nanmax(np.abs(self.isotropic())))

    @property
    def route(self) -> str:
        """The route that everything derived comes from: the first one that was asked for."""
        return next(iter(self.tensors))

    def isotropic(self, route: str | None = None) -> Float[np.ndarray, " n_pairs"]:
        """J' of each pair, in eV: a third of the trace.

        Args:
            route: One of `ROUTE_COLUMNS`; by default the first one.
        """
        return np.trace(self.tensors[route or self.route], axis1=1, axis2=2) / 3

    def spin_model(self) -> SpinHamiltonian:
        """The isotropic part as a Heisenberg model.

        Raises:
            StructureError: If there is no exchange.
        """
        if self.lattice is None or self.pairs is None or not np.isfinite(self.isotropic()).all():
            raise StructureError(f"no exchange constants: {self.message}")
        sites = (self.lattice.cell, self.lattice.signs, self.lattice.lengths)
        links = (self.pairs.first, self.pairs.second, self.pairs.shifts)
        return SpinHamiltonian(*sites, *links, self.isotropic())

    def dmi(self, route: str | None = None) -> Float[np.ndarray, "n_pairs 3"]:
        """Vector D of each pair, in eV, from the antisymmetric part.

        Args:
            route: One of `ROUTE_COLUMNS`; by default the first one.
        """
        return dmi_vectors(self.tensors[route or self.route])

    def anisotropic(self, route: str | None = None) -> Float[np.ndarray, "n_pairs 3 3"]:
        """Symmetric traceless tensor G of each pair, in eV.

        Args:
            route: One of `ROUTE_COLUMNS`; by default the first one.
        """
        t = self.tensors[route or self.route]
        return 0.5 * (t + t.swapaxes(1, 2)) - self.isotropic(route)[:, None, None] * np.eye(3)

    def difference(self) -> float | None:
        """Largest difference of isotropic exchange between two routes, in eV; None with a single route."""
        if len(self.tensors) < 2:
            return None
        return float(np.ptp([self.isotropic(route) for route in self.tensors], axis=0).max())


@dataclass
class _Job:
    result: ExchangeResult
    states: FourStates | None = None
    spirals: Spirals | None = None

    @property
    def images(self) -> list[Atoms]:
        return [s for part in (self.states, self.spirals) if part is not None for s in part.structures]


class Exchange(TurnedWorkflow[ExchangeSettings, ExchangeResult]):
    """Exchange constants of many magnets: settings here, structures in :meth:`run`.

    1. "derivatives": J'_ij = −∂²E/∂e_i∂e_j by Hessian-vector products; exact at the given order.
    2. "four-state": E of four states of each kind of pair, tilted by ± `angle`.
    3. "spirals": E(q) of cones of `angle` for all waves of the supercell, and a fit. Isotropic exchange only.

    The supercell is the same for all and so large that no pair within the cutoff fits into it twice. All total energies
    of all crystals are one batch. With a small angle the routes agree for any model; with 90° they agree for Heisenberg
    models, and their difference measures how far the model is from one.

    Its settings are :class:`~mmace_sim.properties.exchange.declaration.ExchangeSettings`.

    Raises:
        UnsupportedOptionError: If the model has no second derivatives.
    """

    kind = ExchangeSettings
    outcome = ExchangeResult

    @override
    def set_up(self, model: ModelLike, **where: Any) -> None:
        self.angle = np.radians(self.settings.angle)
        self.rest, self.turned = resting_and_turned(model, self.settings, **where)
        host = self.turned.relaxation.bare_model
        self.model: Any = getattr(host, "model", None)
        if self.model is None or not hasattr(self.model, "spin_orbit"):
            raise UnsupportedOptionError(
                f"{type(host).__name__} is no energy model of this package: exchange needs its second derivatives."
            )
        self.spin_orbit = bool(self.model.spin_orbit)

    @override
    def _at_rest(self, images: list[Atoms]) -> list[PointResult]:
        return self.rest.run(images)

    @override
    def _prepare(self, start: PointResult) -> _Job:
        """Second derivatives, and the structures whose energies are needed."""
        point = start
        if point.status in UNUSABLE:
            raise StructureError(point.message)
        lattice = spin_lattice(point.atoms)
        pairs = find_pairs(lattice, self.settings.cutoff)
        matrix = self._supercell(lattice)
        axes = np.eye(3) if self.spin_orbit else lattice.axis[None]
        result = ExchangeResult(
            point.atoms, point.status, point.message, lattice, pairs, spin_orbit=self.spin_orbit
        )
        a, b, c = (int(n) for n in np.diag(matrix))
        result.supercell = (a, b, c)
        job = _Job(result)
        result.images.append(bare_copy(point.atoms))
        for route in self.settings.routes:
            result.tensors[route] = np.full((len(pairs), 3, 3), np.nan)
        angle = float(self.angle)
        if "derivatives" in self.settings.routes:
            hessians = [spin_hessian(self.model, lattice, matrix, axis) for axis in axes]
            result.sum_rule_error = None if self.spin_orbit else sum_rule_error(hessians[0], lattice.signs)
            result.beyond_cutoff = beyond(hessians[0], pairs)
            follow = relax_lengths if self.settings.lengths == "relaxed" else lambda hessian: hessian
            hessians = [follow(hessian) for hessian in hessians]
            raw = exchange_from_hessians(hessians, pairs, spin_orbit=self.spin_orbit)
            mean = self._averaged(result, raw)
            result.spread = float(np.abs(mean - raw).max())
            result.tensors["derivatives"] = mean
            if self.spin_orbit:
                own = follow(spin_hessian(self.model, lattice, matrix, lattice.axis))
                every = [own, *hessians]
                parts = [single_ion_anisotropy(hessian, lattice, pairs, mean) for hessian in every]
                result.single_ion = parts[0]
                result.anisotropy, result.anisotropy_error = anisotropy_tensors(
                    [hessian.frame for hessian in every], parts, lattice, symmetrize=self.settings.symmetrize
                )
        if "four-state" in self.settings.routes:
            job.states = four_states(
                lattice, pairs, matrix, angle=angle, axes=axes, spin_orbit=self.spin_orbit
            )
            result.images += job.states.structures[:3:2]  # nearest pair, turned alike and against
        if "spirals" in self.settings.routes:
            job.spirals = spin_spirals(lattice, matrix, angle=angle, axes=axes, spin_orbit=self.spin_orbit)
            one_of_each = job.spirals.structures[:: job.spirals.n_turned]
            result.images += [one_of_each[k] for k in np.flatnonzero(job.spirals.turned.all(axis=1))]
        return job

    def _averaged(
        self, result: ExchangeResult, tensors: Float[np.ndarray, "n_pairs 3 3"]
    ) -> Float[np.ndarray, "n_pairs 3 3"]:
        if not self.settings.symmetrize:
            return tensors
        return known(result.pairs).average(tensors, known(result.lattice).rotations)

    def _supercell(self, lattice: SpinLattice) -> Int[np.ndarray, "3 3"]:
        """The smallest in which no pair within the cutoff is there twice; or the given one, if it will do."""
        least = 2 * self.settings.cutoff + 0.05
        if self.settings.supercell is None:
            return choose_supercell(lattice.cell, least)
        from ase.geometry import minkowski_reduce

        matrix = np.diag(np.asarray(self.settings.supercell, dtype=int))
        shortest = np.linalg.norm(minkowski_reduce(matrix @ lattice.cell)[0], axis=1).min()
        if shortest < 2 * self.settings.cutoff:
            raise StructureError(
                f"an atom is {shortest:.2f} Å from its image in the supercell {self.settings.supercell}, expected "
                f"twice the cutoff of {self.settings.cutoff} Å. Take a larger supercell or a smaller cutoff."
            )
        return matrix

    @override
    def _finish(self, job: _Job, points: Sequence[PointResult]) -> ExchangeResult:
        """Tensors from energies, and everything that follows from tensors."""
        result = job.result
        lattice, pairs = known(result.lattice), known(result.pairs)
        good = converged(points)
        if not good.all():
            result.status, result.message = lacking(points, "tilted states")
        energies = np.where(good, [point.energy for point in points], np.nan)
        n_states = len(job.states.structures) if job.states else 0
        if job.states is not None:
            raw = job.states.tensors(energies[:n_states], len(pairs), spin_orbit=self.spin_orbit)
            filled = pairs.average(raw, lattice.rotations)
            result.tensors["four-state"] = filled
        if job.spirals is not None and np.isfinite(energies[n_states:]).all():
            isotropic = job.spirals.fit(energies[n_states:], lattice, pairs)[pairs.orbits]
            result.tensors["spirals"] = isotropic[:, None, None] * np.eye(3)
            every = job.spirals.turned.all(axis=1)
            result.spirals = (job.spirals.waves[every], job.spirals.energies(energies[n_states:])[every])
        self._derive(result)
        return result

    def _derive(self, result: ExchangeResult) -> None:
        lattice, pairs, isotropic = known(result.lattice), known(result.pairs), result.isotropic()
        if np.isfinite(isotropic).all():
            result.magnons = magnon_path(lattice, pairs, result.tensors[result.route], result.single_ion)
            found = stiffness(lattice, pairs, isotropic)
            result.stiffness_tensor, result.stiffness = found, None if found is None else found.mean
            result.temperature = max(result.spin_model().mean_field_temperature, 0.0)
        else:
            result.status = Status.FAILED if result.status is Status.CONVERGED else result.status
            result.message = (
                f"{result.message} {result.route} does not determine all exchange constants.".strip()
            )
        notes = []
        if result.magnons is not None and not result.magnons.stable:
            notes.append("the magnetic order is unstable: spin waves with negative energy.")
        if result.breaks_symmetry:
            notes.append(
                f"averaging over symmetry changed exchange by up to {1000 * result.spread:.3g} meV: the energy has not "
                "the symmetry that was found for the structure; relax it, or do not trust the shells."
            )
        if result.stiffness_tensor is not None and result.stiffness_tensor.dimensions < 3:
            shape = "layers" if result.stiffness_tensor.dimensions == 2 else "chains"
            notes.append(
                f"the exchange couples {shape} only: the stiffness is that along them, and without anisotropy they "
                "have no order above 0 K."
            )
        difference = result.difference()
        if difference is not None and difference > _DIFFERENT * np.nanmax(np.abs(isotropic)):
            notes.append(
                f"routes differ by up to {1000 * difference:.1f} meV: the energy is no Heisenberg model at this angle."
            )
        result.message = " ".join(text for text in (result.message, *notes) if text)
