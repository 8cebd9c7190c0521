"""Hybrid Monte Carlo on the energy of a model: all moments (and atoms) move at once, by its gradients, exactly."""

from dataclasses import dataclass, fields
from typing import override

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmace_sim.base.devices import uploaded
from mmace_sim.errors import UnsupportedOptionError
from mmace_sim.sampling.chains import Sampler
from mmace_sim.sampling.surface import RECORDS, Supercells

LENGTHS: tuple[str, ...] = ("fixed", "variable")
LATTICES: tuple[str, ...] = ("fixed", "moving", "free")

POSITION_SCALE: float = 0.2
"""Å that an atom moves while a moment turns by 1 rad or changes by 1 μB: about the ratio of their thermal widths."""
Point = tuple[Float[Tensor, " n_systems"], Tensor, Tensor]
"""Energies, magforces and forces."""

_TARGET = 0.75
_GAIN = 0.5
_OUTER = 0.1931833
"""Share of the kicks of two steps that the first and the last of them take (Omelyan's λ)."""
_LEAPFROG = 0.25
"""The same for leapfrog."""
_MANY = 50
"""Smaller cells take steps that are so long that leapfrog is better."""
_CALM = 0.1
"""kT per atom by which a trajectory may miss its energy while a chain warms up."""


@dataclass(frozen=True)
class _Phase:
    """Where trajectories are: coordinates, momenta, and the energies and gradients there."""

    moments: Tensor
    positions: Tensor
    kicks: Tensor
    pushes: Tensor | None
    point: Point


class HybridMonteCarlo(Sampler):
    """Samples exp(−E/kT) by trajectories that end in one Metropolis decision each.

    Every moment (and atom) gets a Gaussian momentum, follows −∂(E/kT) for `n_steps` steps of one gradient each, and the
    change of the whole Hamiltonian is accepted or not: exact for any step. Two steps are three kicks and two drifts; in
    cells of 50 atoms or more the kicks are those of the least error, in smaller ones leapfrog. Moments of fixed length
    move on great circles, those of variable length in ℝ³ with the measure d³m (that is m² dm dΩ). One gradient moves
    all atoms.

    In the first half of `n_adapt` whatever keeps its energy roughly is accepted: large cells begin far from
    equilibrium, where the error of a step grows as the number of atoms, not as its root.

    Args:
        cells: Supercells at their temperatures; changed in place.
        lengths: "fixed" or "variable" |m|.
        lattice: "fixed": atoms stay. "moving": they are sampled too (canonical). "free": the volume too, by isotropic
            strains at zero pressure.
        n_steps: Steps of a trajectory; an odd number counts as the next even one.
        step: First step of all systems; it adapts to an acceptance of 75 %.
        n_adapt: Trajectories in which steps adapt; they must not count.

    Raises:
        UnsupportedOptionError: If an option is unknown.

    References:
        Duane et al., Phys. Lett. B 195, 216 (1987); on spheres: Byrne & Girolami, Scand. J. Stat. 40, 825 (2013);
        steps: Omelyan, Mryglod & Folk, Comput. Phys. Commun. 151, 272 (2003), doi:10.1016/S0010-4655(02)00754-3.
    """

    records = RECORDS

    def __init__(
        self,
        cells: Supercells,
        *,
        lengths: str = "fixed",
        lattice: str = "fixed",
        n_steps: int = 10,
        step: float = 0.2,
        n_adapt: int = 0,
    ) -> None:
        if lengths not in LENGTHS or lattice not in LATTICES:
            raise UnsupportedOptionError(
                f"lengths = {lengths!r}, lattice = {lattice!r}: expected one of {', '.join(LENGTHS)}, and one of "
                f"{', '.join(LATTICES)}."
            )
        self.cells, self.n_steps, self.n_adapt = cells, n_steps, n_adapt
        self.on_sphere, self.moving, self.free = lengths == "fixed", lattice != "fixed", lattice == "free"
        self.log_step = torch.full((len(cells),), float(np.log(step)), dtype=torch.float64)
        self.log_strain = torch.full((len(cells),), float(np.log(0.01)), dtype=torch.float64)
        self.n_done = 0
        self._sizes = torch.tensor(cells.sizes, dtype=torch.float64)
        outer = [_OUTER if n >= _MANY else _LEAPFROG for n in cells.sizes]
        self._outer = self._of_atoms(torch.tensor(outer))

    @override
    def _advance(self, block: int, n_sweeps: int) -> Float[np.ndarray, "n_sweeps n_records n_sizes n_chains"]:
        generators = self.cells.generators(block)
        current = self._evaluate(self.cells.moments, self.cells.positions)
        observed = []
        for _ in range(n_sweeps):
            current, accepted = self._trajectory(current, generators)
            if self.free:
                current = self._strain(current, generators)
            observed.append(self.cells.observe(current[0], accepted))
            self.n_done += 1
        return np.array(observed)

    def _evaluate(self, moments: Tensor, positions: Tensor) -> Point:
        return self.cells.evaluate(
            moments,
            positions if self.moving else None,
            self.cells.cells if self.free else None,
            same_lengths=self.on_sphere,
        )

    def _trajectory(self, current: Point, generators: list[torch.Generator]) -> tuple[Point, Tensor]:
        cells, beta = self.cells, self.cells.beta
        spread = torch.stack([torch.rand((), generator=g) for g in generators])
        steps = self._of_atoms(torch.exp(self.log_step) * (0.8 + 0.4 * spread))
        kicks = self._tangent(self._normal(generators), cells.moments)
        pushes = self._normal(generators) if self.moving else None
        before = self._kinetic(kicks, pushes) + beta * current[0]
        start = _Phase(cells.moments, cells.positions, kicks, pushes, current)
        end = self._follow(start, steps)
        change = self._kinetic(end.kicks, end.pushes) + beta * end.point[0] - before
        accepted, probability = _decided(change, generators)
        n_warming = self.n_adapt // 2
        if self.n_done < n_warming:
            accepted = change.abs() < _CALM * uploaded(self._sizes, change.device)
        atoms = accepted[cells.system_idx, None]
        cells.moments = torch.where(atoms, end.moments, cells.moments)
        if self.moving:
            cells.positions = torch.where(atoms, end.positions, cells.positions)
        if self.n_done < n_warming:
            self.log_step -= _GAIN * (~accepted).cpu()
        elif self.n_done < self.n_adapt:
            self.log_step += _GAIN * (self.n_done - n_warming + 1) ** -0.5 * (probability - _TARGET)
        return self._merged(current, end.point, accepted), accepted.double()

    def _follow(self, start: "_Phase", steps: Float[Tensor, "n_atoms 1"]) -> "_Phase":
        """A trajectory: pairs of steps, each of three kicks and two drifts."""
        moments, positions, kicks, pushes, point = (getattr(start, key.name) for key in fields(start))
        for _ in range((self.n_steps + 1) // 2):
            for share in (self._outer, 1 - 2 * self._outer):
                kicks, pushes = self._push(kicks, pushes, moments, point, 2 * share * steps)
                moments, kicks = self._drift(moments, kicks, steps)
                if pushes is not None:
                    positions = positions + POSITION_SCALE * steps * pushes
                point = self._evaluate(moments, positions)
            kicks, pushes = self._push(kicks, pushes, moments, point, 2 * self._outer * steps)
        return _Phase(moments, positions, kicks, pushes, point)

    def _of_atoms(self, values: Tensor) -> Tensor:
        """Values of systems at their atoms, as the model takes them."""
        return self._sent(values)[self.cells.system_idx, None]

    def _sent(self, values: Tensor) -> Tensor:
        return uploaded(values, self.cells.moments.device, dtype=self.cells.moments.dtype)

    def _merged(self, old: Point, new: Point, accepted: Tensor) -> Point:
        """New energies and gradients where a move was accepted."""
        atoms = accepted[self.cells.system_idx, None]
        energy = torch.where(accepted, new[0], old[0])
        magforces, forces = (
            torch.where(atoms, b, a) if len(a) == len(b) == len(atoms) else a
            for a, b in zip(old[1:], new[1:], strict=True)
        )
        return energy, magforces, forces

    def _normal(self, generators: list[torch.Generator]) -> Float[Tensor, "n_atoms 3"]:
        """Random numbers of each supercell, which do not depend on the others."""
        sizes = zip(self.cells.sizes, generators, strict=True)
        parts = [torch.randn((n, 3), generator=g, dtype=torch.float64) for n, g in sizes]
        return self._sent(torch.cat(parts))

    def _tangent(self, vectors: Tensor, moments: Tensor) -> Tensor:
        """On spheres, the part perpendicular to the moments; nothing where there is no moment to turn."""
        if not self.on_sphere:
            return vectors
        square = (moments * moments).sum(dim=1, keepdim=True)
        along = (vectors * moments).sum(dim=1, keepdim=True)
        return torch.where(square > 0, vectors - moments * (along / square.clamp(min=1e-30)), 0.0)

    def _push(
        self, kicks: Tensor, pushes: Tensor | None, moments: Tensor, point: Point, steps: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Momenta after a kick. On spheres coordinates are angles: ∂/∂e = |m| ∂/∂m."""
        kick = steps * self._of_atoms(self.cells.beta)
        scale = torch.linalg.norm(moments, dim=1, keepdim=True) if self.on_sphere else 1.0
        kicks = kicks + kick * scale * self._tangent(point[1], moments)
        return kicks, None if pushes is None else pushes + kick * POSITION_SCALE * point[2]

    def _drift(self, moments: Tensor, kicks: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the coordinates: along great circles or straight."""
        if not self.on_sphere:
            return moments + steps * kicks, kicks
        lengths = torch.linalg.norm(self.cells.reference, dim=1, keepdim=True)  # rounding does not add up
        unit = moments / torch.linalg.norm(moments, dim=1, keepdim=True).clamp(min=1e-30)
        speed = torch.linalg.norm(kicks, dim=1, keepdim=True).clamp(min=1e-30)
        cosine, sine = torch.cos(speed * steps), torch.sin(speed * steps)
        new = unit * cosine + kicks / speed * sine
        return lengths * new, kicks * cosine - unit * speed * sine

    def _kinetic(self, kicks: Tensor, pushes: Tensor | None) -> Float[Tensor, " n_systems"]:
        parts = 0.5 * kicks.double().square().sum(dim=1)
        if pushes is not None:
            parts = parts + 0.5 * pushes.double().square().sum(dim=1)
        return torch.zeros_like(self.cells.beta).index_add(0, self.cells.system_idx, parts)

    def _strain(self, current: Point, generators: list[torch.Generator]) -> Point:
        """One move of ln V at zero pressure: accept with exp(−βΔE + (N + 1) Δ ln V); fractional coordinates stay."""
        cells = self.cells
        shifts = torch.exp(self.log_strain) * torch.stack([torch.randn((), generator=g) for g in generators])
        factors = torch.exp(shifts / 3)
        positions = self._of_atoms(factors) * cells.positions
        boxes = self._sent(factors)[:, None, None] * cells.cells
        point = cells.evaluate(cells.moments, positions, boxes)
        gains = uploaded((self._sizes + 1) * shifts, cells.beta.device)
        accepted, probability = _decided(cells.beta * (point[0] - current[0]) - gains, generators)
        cells.positions = torch.where(accepted[cells.system_idx, None], positions, cells.positions)
        cells.cells = torch.where(accepted[:, None, None], boxes, cells.cells)
        if self.n_done < self.n_adapt:
            self.log_strain += _GAIN * (self.n_done + 1) ** -0.5 * (probability - 0.45)
        return self._merged(current, point, accepted)

    @override
    def state(self) -> dict[str, np.ndarray]:
        steps = {"log_step": self.log_step.numpy(), "log_strain": self.log_strain.numpy()}
        return self.cells.state() | steps | {"n_done": np.array(self.n_done)}

    @override
    def load_state(self, state: dict[str, np.ndarray]) -> None:
        self.cells.load_state(state)
        self.log_step = torch.as_tensor(state["log_step"])
        self.log_strain = torch.as_tensor(state["log_strain"])
        self.n_done = int(state["n_done"])


def _decided(
    change: Float[Tensor, " n_systems"], generators: list[torch.Generator]
) -> tuple[Bool[Tensor, " n_systems"], Float[Tensor, " n_systems"]]:
    """Which moves are accepted, where the change is; and their probabilities, on the CPU."""
    probability = torch.exp(-change.nan_to_num(nan=torch.inf)).clamp(max=1.0).cpu()
    uniform = torch.stack([torch.rand((), generator=g) for g in generators])
    return uploaded(uniform < probability, change.device), probability
