"""Equations of motion of magnetic moments, one step at fixed atoms.

With B = −∂E/∂m (eV/μB), γ = g/ħ (rad/fs per eV/μB), α the Gilbert damping and η the friction of lengths, the moments
obey, in the sense of Stratonovich,

    dm/dt = −γ' m×(B + b) − γ' (α/|m|) m×(m×B) + η B + ζ,    γ' = γ/(1 + α²),
    ⟨b_μ(t) b_ν(t')⟩ = 2 α k_BT/(γ' |m|) δ_μν δ(t−t'),    ⟨ζ_μ(t) ζ_ν(t')⟩ = 2 η k_BT δ_μν δ(t−t').

The first two terms keep |m| and sample exp(−E/k_BT) over directions; the last two let |m| fluctuate and sample
exp(−E/k_BT) d³m. The sign is that of the electron: the moment turns counter-clockwise about a field.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmace_sim.errors import UnsupportedOptionError
from mmace_sim.torchsim.freedom import perpendicular

HBAR_EV_FS: float = 0.6582119569
"""ħ in eV fs (CODATA 2018)."""

SOLVERS: tuple[str, ...] = ("midpoint", "sib")
"""How the implicit step is solved."""

SMALL_MOMENT: float = 0.05
"""Below this length, in μB, damping and its noise fade: their ratio stays, and nothing is divided by zero."""

PASSES: int = 3
"""Passes over the implicit equation between two evaluations of the magforces."""

BATH_SLACK: float = 50.0
"""The bath's equation is iterated to this many tolerances: an iteration leaves some per cent of its change, and no law
of conservation hangs on it."""

NOISE_COLUMNS: int = 9
"""Normal numbers that a step takes for each moment: turns before friction, kicks, turns after friction."""

Fields = Callable[[Float[Tensor, "n_atoms 3"]], Float[Tensor, "n_atoms 3"]]
"""Magforces at given moments."""


@dataclass(frozen=True)
class MomentDynamics:
    """How moments move.

    Attributes:
        damping: Gilbert's α; 0 is pure precession.
        length_friction: η in μB²/(eV fs); 0 keeps all lengths.
        solver: "midpoint": implicit midpoints, iterated until no moment changes by more than `tolerance`. "sib": one
            predictor and one corrector, two evaluations of the magforces.
        tolerance: In μB.
        max_iterations: After which the step is taken as it is.
    """

    damping: float = 0.0
    length_friction: float = 0.0
    solver: str = "midpoint"
    tolerance: float = 1e-5
    max_iterations: int = 40

    def __post_init__(self) -> None:
        positive = self.damping >= 0 and self.length_friction >= 0 and self.tolerance > 0
        if not positive or self.solver not in SOLVERS or self.max_iterations < 1:
            raise UnsupportedOptionError(
                f"{self}: expected a solver {' or '.join(SOLVERS)}, frictions that are not negative, a positive "
                "tolerance and at least one iteration."
            )


@dataclass
class MomentStep:
    """What a step did.

    Attributes:
        magmoms: New moments, in μB.
        fields: Magforces at the last midpoint, in eV/μB.
        residual: Largest change of the moments of each system in a last iteration, in μB; of the bath's over
            `BATH_SLACK`.
        n_evaluations: Evaluations of the magforces.
    """

    magmoms: Float[Tensor, "n_atoms 3"]
    fields: Float[Tensor, "n_atoms 3"]
    residual: Float[Tensor, " n_systems"]
    n_evaluations: int


@dataclass(frozen=True)
class Spins:
    """Moments that move, and what belongs to each of them.

    Attributes:
        magmoms: Moments, in μB.
        gamma: γ of each atom, in rad/fs per eV/μB.
        thermal: k_BT of the bath of each atom, in eV.
        system_idx: System of each atom.
        n_systems: Number of systems.
    """

    magmoms: Float[Tensor, "n_atoms 3"]
    gamma: Float[Tensor, " n_atoms"]
    thermal: Float[Tensor, " n_atoms"]
    system_idx: Int[Tensor, " n_atoms"]
    n_systems: int


def gyromagnetic_ratio(g_factor: float) -> float:
    """γ = g/ħ.

    Args:
        g_factor: Of a moment, about 2.

    Returns:
        In rad/fs per eV/μB.
    """
    return g_factor / HBAR_EV_FS


def moment_step(
    spins: Spins,
    fields: Fields,
    dynamics: MomentDynamics,
    *,
    dt: float | Tensor,
    noise: Float[Tensor, "n_atoms 9"],
    guess: Float[Tensor, "n_atoms 3"] | None = None,
) -> MomentStep:
    """Advance moments at fixed atoms.

    The step is the composition of two motions, each of which keeps exp(−E/k_BT) to second order in the time step, so
    that averages are of second order too.

    The bath (damping, friction, noise; left out if there is none of them): half of the random turns, then damping and
    friction by the trapezoidal rule with the noise ζ in it, then the other half of the turns. For m' = m + η [B(m) +
    B(m')] dt/2 + ζ, as it is without damping, the stationary distribution is exact for harmonic energies at any
    stiffness and any time step. (It is for the midpoint rule too, but that is of first order for other energies: it
    sees E − η k_BT dt ∇²E/4.)

    Precession at fixed lengths: every iteration turns each moment exactly about the field at the last midpoint on the
    sphere, |m| (m + m')/|m + m'|, by Cayley's formula, so that lengths are conserved to rounding even where the
    iteration is cut short. Converged, it is symplectic, and total moment is conserved wherever the energy does not
    change when all moments turn together and all g are alike.

    They are solved apart for two reasons. What holds a length (some eV/μB) turns nothing, yet would at the next
    iterate, where the moment has another direction. And the torque at a midpoint is smaller than at its ends, so that
    damping there would be too weak for its noise.

    Args:
        spins: The moments.
        fields: Magforces at given moments, in eV/μB.
        dynamics: Settings.
        dt: Time step, in fs; a number or one for each atom.
        noise: Standard normal numbers, see `NOISE_COLUMNS`.
        guess: Magforces expected at the midpoint if there is no bath; without, those at the moments are evaluated. Not
            used by "sib".

    References:
        McLachlan, Modin, Verdier, 10.1103/PhysRevE.89.061301 (midpoint on the sphere); Mentink et al.,
        10.1088/0953-8984/22/17/176001 (predictor and corrector); Ma, Dudarev, 10.1103/PhysRevB.86.054416 (lengths);
        Abdulle, Vilmart, Zygalakis, 10.1137/140962644 (compositions and stationary distributions).
    """
    magmoms, gamma = spins.magmoms, spins.gamma
    iteration = _Iteration(fields, dynamics, spins.system_idx, spins.n_systems)
    guess = guess if dynamics.solver == "midpoint" else None
    if dynamics.damping or dynamics.length_friction:
        bath = _Bath(dynamics, dt=dt, kT=spins.thermal, gamma=gamma)
        magmoms = bath.turned(magmoms, noise[:, :3])
        before = iteration.evaluate(magmoms)
        magmoms, guess = iteration.solve(bath.friction(magmoms, before, noise[:, 3:6]), before)
        magmoms = bath.turned(magmoms, noise[:, 6:])
    if guess is None:
        guess = iteration.evaluate(magmoms)
    magmoms, middle = iteration.solve(_Turn(magmoms, dynamics, dt=dt, gamma=gamma), guess)
    return MomentStep(magmoms, middle, iteration.residual, iteration.n_evaluations)


class _Iteration:
    """Solves the implicit equations of a step, one after the other.

    Every system goes on until it is converged by itself, so that none depends on how fast others converge.
    """

    def __init__(self, fields: Fields, dynamics: MomentDynamics, system_idx: Tensor, n_systems: int) -> None:
        self.fields, self.dynamics = fields, dynamics
        self.system_idx, self.n_systems = system_idx, n_systems
        self.residual: Tensor = torch.zeros(n_systems, dtype=torch.double, device=system_idx.device)
        self.n_evaluations = 0

    def evaluate(self, magmoms: Tensor) -> Tensor:
        """Magforces, counted."""
        self.n_evaluations += 1
        return self.fields(magmoms)

    def solve(self, equation: "_Turn | _Friction", guess: Tensor) -> tuple[Tensor, Tensor]:
        """Moments after one of the motions, and the field that brought them there, from a guess of it."""
        start, field, tolerance = equation.magmoms, guess, equation.slack * self.dynamics.tolerance
        new = equation.solve(start, equation.relevant(field, start))
        active = torch.ones(self.n_systems, dtype=torch.bool, device=start.device)
        residual = start.new_full((self.n_systems,), float("inf"))
        mixing, converge = _Mixing(self.system_idx, self.n_systems), self.dynamics.solver == "midpoint"
        for _ in range(self.dynamics.max_iterations if converge else 1):
            place = equation.place(new)
            found = self.evaluate(place)
            relevant = equation.relevant(found, place)
            better = equation.solve(new, relevant)
            change = torch.linalg.norm(better - new, dim=1)
            latest = change.new_zeros(self.n_systems).scatter_reduce(0, self.system_idx, change, "amax")
            residual = torch.where(active, latest, residual)
            rows, active = active[self.system_idx], active & ~(latest <= tolerance)
            before, field, new = new, _where(rows, found, field), _where(rows, better, new)
            if not converge or not bool(active.any()):
                break
            mixed = mixing(better - before, relevant)
            new = _where(active[self.system_idx], equation.solve(before, mixed), new)
        self.residual = torch.maximum(self.residual.to(residual), residual / equation.slack)
        return new, field


class _Mixing:
    """Anderson's acceleration of the iteration x → g(x), for each system alone.

    References:
        Walker, Ni, 10.1137/10078356X.
    """

    depth = 6

    def __init__(self, system_idx: Tensor, n_systems: int) -> None:
        self.system_idx, self.n_systems = system_idx, n_systems
        self.found: list[Tensor] = []
        self.residuals: list[Tensor] = []

    def __call__(self, residual: Tensor, found: Tensor) -> Tensor:
        """What to try next after g(x) = found, from what of found − x matters."""
        self.found = [*self.found[-self.depth :], found]
        self.residuals = [*self.residuals[-self.depth :], residual]
        if len(self.found) == 1:
            return found
        steps = torch.stack([b - a for a, b in itertools.pairwise(self.residuals)], dim=1)
        answers = torch.stack([b - a for a, b in itertools.pairwise(self.found)], dim=1)
        gram = self._sum(torch.einsum("nia,nja->nij", steps, steps))
        right = self._sum(torch.einsum("nia,na->ni", steps, self.residuals[-1]))
        small = torch.finfo(gram.dtype).eps ** 0.75
        gram = gram + torch.diag_embed(small * gram.diagonal(dim1=1, dim2=2) + 1e-30)
        weights, failed = torch.linalg.solve_ex(gram, right)
        weights = torch.where(failed[:, None] == 0, weights, 0.0)
        return found - torch.einsum("ni,nia->na", weights[self.system_idx], answers)

    def _sum(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.n_systems, *values.shape[1:]).index_add(0, self.system_idx, values)


class _Turn:
    """Precession at fixed lengths, m' − m = (m + m') × w; vectors of atoms are (n_atoms, 3)."""

    slack = 1.0

    def __init__(
        self, magmoms: Tensor, dynamics: MomentDynamics, *, dt: float | Tensor, gamma: Tensor
    ) -> None:
        self.magmoms = magmoms
        self.lengths = torch.linalg.norm(magmoms, dim=1, keepdim=True)
        rate, _ = _damped(self.lengths, dynamics.damping, gamma[:, None])
        self.half_angle = 0.5 * torch.as_tensor(dt).to(magmoms).reshape(-1, 1) * rate

    def place(self, new: Tensor) -> Tensor:
        """Where the field is taken: the middle of the old moments and the new ones, on the sphere."""
        middle = 0.5 * (self.magmoms + new)
        chord = torch.linalg.norm(middle, dim=1, keepdim=True)
        return middle * self._stretch(chord)

    def relevant(self, field: Tensor, middle: Tensor) -> Tensor:
        """What of a field moves moments: what is across them."""
        return perpendicular(field, middle)

    def solve(self, new: Tensor, field: Tensor) -> Tensor:
        """New moments for a given field, which costs nothing beside an evaluation of the model.

        A fixed number of passes, so that no system depends on how fast others converge.
        """
        for _ in range(PASSES):
            new = self._cayley(new, field)
        return new

    def _cayley(self, new: Tensor, field: Tensor) -> Tensor:
        """Solved for m' exactly, with w from the field and an estimate of the new moments."""
        middle = 0.5 * (self.magmoms + new)
        stretch = self._stretch(torch.linalg.norm(middle, dim=1, keepdim=True))
        w = -self.half_angle * stretch * field
        right = self.magmoms + torch.linalg.cross(self.magmoms, w)
        along = (w * right).sum(dim=1, keepdim=True) * w
        square = (w * w).sum(dim=1, keepdim=True)
        return (right - torch.linalg.cross(w, right) + along) / (1.0 + square)

    def _stretch(self, chord: Tensor) -> Tensor:
        """|m| over the length of the middle of the chord."""
        return torch.where(chord > 1e-3 * self.lengths, self.lengths / chord.clamp(min=1e-30), 1.0)


class _Friction:
    """Damping, which turns moments, and friction with its noise, which shifts them, both from fields at the two ends.

    m' = R(θ) (m + a/2) + a/2, with the rotation vector θ = [Ω(m) + Ω(m')] dt/2, Ω = γ' (α/|m|) m×B, and the shift
    a = η [B(m) + B(m')] dt/2 + ζ: symmetric in time, and exact in lengths where there is no friction.
    """

    slack = BATH_SLACK

    def __init__(self, magmoms: Tensor, before: Tensor, bath: "_Bath", kick: Tensor) -> None:
        self.magmoms, self.bath, self.kick = magmoms, bath, kick
        self.before = self.relevant(before, magmoms)

    def place(self, new: Tensor) -> Tensor:
        """Where the field is taken: at the new moments; that at the old ones is known."""
        return new

    def relevant(self, field: Tensor, place: Tensor) -> Tensor:
        """What a field does to moments at a place: the turn, and the shift."""
        shift = self.bath.mobility * field
        return torch.cat([self.bath.damping_turn(place, field), shift], dim=1)

    def solve(self, _new: Tensor, motion: Tensor) -> Tensor:
        """New moments for what the field at them does."""
        turn, shift = (0.5 * (self.before + motion)).split(3, dim=1)
        half = 0.5 * (shift + self.kick)
        return _rotated(self.magmoms + half, turn) + half


class _Bath:
    """Random turns, damping and friction of one step."""

    def __init__(self, dynamics: MomentDynamics, *, dt: float | Tensor, kT: Tensor, gamma: Tensor) -> None:
        self.alpha, self.gamma, self.kT = dynamics.damping, gamma[:, None], kT[:, None]
        self.dt = torch.as_tensor(dt).to(kT).reshape(-1, 1)
        self.mobility = dynamics.length_friction * self.dt

    def turned(self, magmoms: Tensor, noise: Tensor) -> Tensor:
        """Moments turned by the random field of half a step.

        A rotation about a normal vector with variance s per component spreads directions as diffusion with the variance
        s + s²/12 does, to this order, and is made smaller by as much.
        """
        if self.alpha == 0.0:
            return magmoms
        rate, damping = _damped(torch.linalg.norm(magmoms, dim=1, keepdim=True), self.alpha, self.gamma)
        variance = rate * damping * self.kT * self.dt
        return _rotated(magmoms, (variance / (1.0 + variance / 12.0)).sqrt() * noise)

    def damping_turn(self, magmoms: Tensor, field: Tensor) -> Tensor:
        """Rotation vector Ω dt of the damping."""
        rate, damping = _damped(torch.linalg.norm(magmoms, dim=1, keepdim=True), self.alpha, self.gamma)
        return self.dt * rate * damping * torch.linalg.cross(magmoms, field)

    def friction(self, magmoms: Tensor, field: Tensor, noise: Tensor) -> _Friction:
        """Damping and friction of the whole step with its noise, from the field at the moments."""
        return _Friction(magmoms, field, self, (2.0 * self.mobility * self.kT).sqrt() * noise)


def _damped(lengths: Tensor, alpha: float, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """γ' and α/|m|, which below `SMALL_MOMENT` stops growing."""
    damping = alpha / lengths.clamp(min=SMALL_MOMENT)
    return gamma / (1.0 + (damping * lengths) ** 2), damping


def _rotated(vectors: Tensor, rotations: Tensor) -> Tensor:
    """Vectors after rotations by rotation vectors, in rad."""
    angle = torch.linalg.norm(rotations, dim=1, keepdim=True)
    axis = rotations / angle.clamp(min=1e-30)
    along = (axis * vectors).sum(dim=1, keepdim=True) * axis
    return along + angle.cos() * (vectors - along) + angle.sin() * torch.linalg.cross(axis, vectors)


def _where(rows: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(rows[:, None], new, old)
