"""Hybrid Monte Carlo on the energy of a model: all moments (and atoms) move at once, by its gradients, exactly."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmace_sim.errors import UnsupportedOptionError
from mmace_sim.sampling.chains import by_record
from mmace_sim.sampling.surface import RECORDS, Supercells

LENGTHS: tuple[str, ...] = ("fixed", "variable")
LATTICES: tuple[str, ...] = ("fixed", "moving", "free")

POSITION_SCALE: float = 0.2
"""Å that an atom moves while a moment turns by 1 rad or changes by 1 μB: about the ratio of their thermal widths."""
_TARGET = 0.75
_GAIN = 0.5


class HybridMonteCarlo:
    """Samples exp(−E/kT) by trajectories that end in one Metropolis decision each.

    Every moment (and atom) gets a Gaussian momentum, follows −∂(E/kT) for `n_steps` leapfrog steps, and the change of
    the whole Hamiltonian is accepted or not: exact for any step. Moments of fixed length move on great circles, those
    of variable length in ℝ³ with the measure d³m (that is m² dm dΩ). One gradient moves all atoms.

    Args:
        cells: Supercells at their temperatures; changed in place.
        lengths: "fixed" or "variable" |m|.
        lattice: "fixed": atoms stay. "moving": they are sampled too (canonical). "free": the volume too, by isotropic
            strains at zero pressure.
        n_steps: Leapfrog steps of a trajectory.
        step: First leapfrog step of all systems; it adapts to an acceptance of 75 %.
        n_adapt: Trajectories in which steps adapt; they must not count.

    Raises:
        UnsupportedOptionError: If an option is unknown.

    References:
        Duane et al., Phys. Lett. B 195, 216 (1987); on spheres: Byrne & Girolami, Scand. J. Stat. 40, 825 (2013).
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

    def advance(self, block: int, n_sweeps: int) -> dict[str, Float[np.ndarray, "n_sweeps n_sizes n_chains"]]:
        """Run trajectories and observe after each.

        Args:
            block: Number of the block, from 0; it decides the random numbers.
            n_sweeps: Trajectories.

        Returns:
            See `Supercells.observe`.
        """
        generators = self.cells.generators(block)
        current = self._evaluate(self.cells.moments, self.cells.positions)
        observed = []
        for _ in range(n_sweeps):
            current, accepted = self._trajectory(current, generators)
            if self.free:
                current = self._strain(current, generators)
            observed.append(self.cells.observe(current[0], accepted))
            self.n_done += 1
        return by_record(self.records, np.array(observed))

    def _evaluate(self, moments: list[Tensor], positions: list[Tensor]) -> tuple[Tensor, list, list]:
        return self.cells.evaluate(moments, positions if self.moving else None, self.cells.cells)

    def _trajectory(
        self, current: tuple[Tensor, list, list], generators: list[torch.Generator]
    ) -> tuple[tuple[Tensor, list, list], Tensor]:
        cells, beta = self.cells, self.cells.beta
        steps = [
            float(torch.exp(log) * (0.8 + 0.4 * torch.rand((), generator=g)))
            for log, g in zip(self.log_step, generators, strict=True)
        ]
        moments, positions = list(cells.moments), list(cells.positions)
        kicks = [self._normal(m, g) for m, g in zip(moments, generators, strict=True)]
        pushes = [
            self._normal(r, g) if self.moving else None for r, g in zip(positions, generators, strict=True)
        ]
        kicks = [self._tangent(p, m) for p, m in zip(kicks, moments, strict=True)]
        before = self._kinetic(kicks, pushes) + beta * current[0]
        point = current
        for _ in range(self.n_steps):
            self._push(kicks, pushes, moments, point, steps)
            for k, step in enumerate(steps):
                moments[k], kicks[k] = self._drift(moments[k], kicks[k], step)
                if self.moving:
                    positions[k] = positions[k] + POSITION_SCALE * step * pushes[k]
            point = self._evaluate(moments, positions)
            self._push(kicks, pushes, moments, point, steps)
        change = self._kinetic(kicks, pushes) + beta * point[0] - before
        probability = torch.exp(-change.nan_to_num(nan=torch.inf)).clamp(max=1.0).cpu()
        accepted = torch.tensor([float(torch.rand((), generator=g)) for g in generators]) < probability
        for k in torch.nonzero(accepted).flatten().tolist():
            cells.moments[k], cells.positions[k] = moments[k], positions[k]
        if self.n_done < self.n_adapt:
            self.log_step += _GAIN * (self.n_done + 1) ** -0.5 * (probability - _TARGET)
        return self._merged(current, point, accepted), accepted.double()

    def _merged(
        self, old: tuple[Tensor, list, list], new: tuple[Tensor, list, list], accepted: Tensor
    ) -> tuple[Tensor, list, list]:
        """New energies and gradients where a move was accepted."""
        flags = accepted.tolist()
        energy = torch.where(accepted.to(old[0].device), new[0], old[0])
        merged = [
            [b if flag else a for a, b, flag in zip(old[i], new[i], flags, strict=False)] for i in (1, 2)
        ]
        return energy, merged[0], merged[1]

    def _normal(self, like: Tensor, generator: torch.Generator) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)

    def _tangent(self, vectors: Tensor, moments: Tensor) -> Tensor:
        """On spheres, the part perpendicular to the moments; nothing where there is no moment to turn."""
        if not self.on_sphere:
            return vectors
        square = (moments * moments).sum(dim=1, keepdim=True)
        along = (vectors * moments).sum(dim=1, keepdim=True)
        return torch.where(square > 0, vectors - moments * (along / square.clamp(min=1e-30)), 0.0)

    def _push(
        self, kicks: list, pushes: list, moments: list, point: tuple[Tensor, list, list], steps: list[float]
    ) -> None:
        """Half a step of the momenta, in place. On spheres coordinates are angles: ∂/∂e = |m| ∂/∂m."""
        for k, step in enumerate(steps):
            half = 0.5 * step * float(self.cells.beta[k])
            scale = torch.linalg.norm(moments[k], dim=1, keepdim=True) if self.on_sphere else 1.0
            kicks[k] = kicks[k] + half * scale * self._tangent(point[1][k], moments[k])
            if self.moving:
                pushes[k] = pushes[k] + half * POSITION_SCALE * point[2][k]

    def _drift(self, moments: Tensor, kicks: Tensor, step: float) -> tuple[Tensor, Tensor]:
        """One step of the coordinates: along great circles or straight."""
        if not self.on_sphere:
            return moments + step * kicks, kicks
        lengths = torch.linalg.norm(moments, dim=1, keepdim=True)
        unit = moments / lengths.clamp(min=1e-30)
        speed = torch.linalg.norm(kicks, dim=1, keepdim=True).clamp(min=1e-30)
        cosine, sine = torch.cos(speed * step), torch.sin(speed * step)
        new = unit * cosine + kicks / speed * sine
        return lengths * new, kicks * cosine - unit * speed * sine

    def _kinetic(self, kicks: list, pushes: list) -> Float[Tensor, " n_systems"]:
        parts = [0.5 * (p.double() ** 2).sum() for p in kicks]
        if self.moving:
            parts = [a + 0.5 * (p.double() ** 2).sum() for a, p in zip(parts, pushes, strict=True)]
        return torch.stack(parts)

    def _strain(self, current: tuple[Tensor, list, list], generators: list[torch.Generator]) -> Any:
        """One move of ln V at zero pressure: accept with exp(−βΔE + (N + 1) Δ ln V); fractional coordinates stay."""
        cells = self.cells
        shifts = [
            float(torch.exp(log) * torch.randn((), generator=g))
            for log, g in zip(self.log_strain, generators, strict=True)
        ]
        factors = [float(np.exp(shift / 3)) for shift in shifts]
        positions = [f * r for f, r in zip(factors, cells.positions, strict=True)]
        boxes = [f * c for f, c in zip(factors, cells.cells, strict=True)]
        point = cells.evaluate(cells.moments, positions, boxes)
        gains = torch.tensor([(n + 1) * s for n, s in zip(cells.sizes, shifts, strict=True)]).to(cells.beta)
        change = cells.beta * (point[0] - current[0]) - gains
        probability = torch.exp(-change.nan_to_num(nan=torch.inf)).clamp(max=1.0).cpu()
        accepted = torch.tensor([float(torch.rand((), generator=g)) for g in generators]) < probability
        for k in torch.nonzero(accepted).flatten().tolist():
            cells.positions[k], cells.cells[k] = positions[k], boxes[k]
        if self.n_done < self.n_adapt:
            self.log_strain += _GAIN * (self.n_done + 1) ** -0.5 * (probability - 0.45)
        return self._merged(current, point, accepted)

    def state(self) -> dict[str, np.ndarray]:
        """Moments, positions, cells, steps."""
        steps = {"log_step": self.log_step.numpy(), "log_strain": self.log_strain.numpy()}
        return self.cells.state() | steps | {"n_done": np.array(self.n_done)}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Go on from what `state` gave.

        Args:
            state: Moments, positions, cells, steps.
        """
        self.cells.load_state(state)
        self.log_step = torch.as_tensor(state["log_step"])
        self.log_strain = torch.as_tensor(state["log_strain"])
        self.n_done = int(state["n_done"])
