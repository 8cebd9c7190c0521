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
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmace_sim.errors import UnsupportedOptionError
from mmace_sim.torchsim.freedom import perpendicular

HBAR_EV_FS: float = 0.6582119569
"""ħ in eV fs (CODATA 2018)."""

ELECTRON_G: float = 2.00231930436
"""Magnitude of the g factor of the free electron (CODATA 2018); γ = g/ħ = 3.042 rad/fs per eV/μB, 28.02 GHz/T."""

SOLVERS: tuple[str, ...] = ("midpoint", "sib")
"""How the implicit step is solved."""

SMALL_MOMENT: float = 0.05
"""Below this length, in μB, damping and its noise fade: their ratio stays, and nothing is divided by zero."""

PASSES: int = 3
"""Passes over the implicit equation between two evaluations of the magforces."""

NOISE_COLUMNS: int = 12
"""Normal numbers that a step takes for each moment: turns before, kicks before, kicks after, turns after."""

Fields = Callable[[Float[Tensor, "n_atoms 3"]], Float[Tensor, "n_atoms 3"]]
"""Magforces at given moments."""


@dataclass(frozen=True)
class MomentDynamics:
    """How moments move.

    Attributes:
        damping: Gilbert's α; 0 is pure precession.
        length_friction: η in μB²/(eV fs); 0 keeps all lengths.
        solver: "midpoint": implicit midpoint on the sphere, iterated until no moment changes by more than
            `tolerance`. "sib": one predictor and one corrector, two evaluations of the magforces.
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
        fields: Magforces at the midpoint, in eV/μB.
        residual: Change of the moments of each system in the last iteration, in μB.
        n_evaluations: Evaluations of the magforces.
    """

    magmoms: Float[Tensor, "n_atoms 3"]
    fields: Float[Tensor, "n_atoms 3"]
    residual: Float[Tensor, " n_systems"]
    n_evaluations: int


def gyromagnetic_ratio(g_factor: float) -> float:
    """γ = g/ħ.

    Args:
        g_factor: Of a moment, about 2.

    Returns:
        In rad/fs per eV/μB.
    """
    return g_factor / HBAR_EV_FS


def moment_step(
    magmoms: Float[Tensor, "n_atoms 3"],
    fields: Fields,
    dynamics: MomentDynamics,
    *,
    dt: Any,
    kT: Float[Tensor, " n_atoms"],
    gamma: Float[Tensor, " n_atoms"],
    noise: Float[Tensor, "n_atoms 12"],
    system_idx: Int[Tensor, " n_atoms"],
    n_systems: int,
    guess: Float[Tensor, "n_atoms 3"] | None = None,
) -> MomentStep:
    """Advance moments at fixed atoms.

    Every iteration turns each moment exactly about the field at the last midpoint by Cayley's formula, so that lengths
    are conserved to rounding even where the iteration is cut short. While lengths are fixed the field is taken at the
    midpoint on the sphere, |m| (m + m')/|m + m'|, which makes the converged step symplectic; total moment is conserved
    wherever the energy does not change when all moments turn together and all g are alike. Otherwise it is taken at
    (m + m')/2. All noise acts outside of this, half of it before and the mirror image after: the random field turns
    moments, the noise of the lengths shifts them. Averages are therefore of second order in the time step.

    Args:
        magmoms: Moments, in μB.
        fields: Magforces at given moments, in eV/μB.
        dynamics: Settings.
        dt: Time step, in fs; a number or one for each atom.
        kT: Temperature of the bath of each atom, in eV.
        gamma: γ of each atom, in rad/fs per eV/μB.
        noise: Standard normal numbers, see `NOISE_COLUMNS`.
        system_idx: System of each atom.
        n_systems: Number of systems.
        guess: Magforces expected at the midpoint; without, those at `magmoms` are evaluated. Not used by "sib".

    Returns:
        The step.

    References:
        McLachlan, Modin, Verdier, 10.1103/PhysRevE.89.061301 (midpoint on the sphere); Mentink et al.,
        10.1088/0953-8984/22/17/176001 (predictor and corrector); Ma, Dudarev, 10.1103/PhysRevB.86.054416 (lengths).
    """
    bath = _HalfBath(dynamics, dt=dt, kT=kT, gamma=gamma)
    magmoms = bath.shifted(bath.turned(magmoms, noise[:, :3]), noise[:, 3:6])
    turn = _Turn(magmoms, dynamics, dt=dt, gamma=gamma)
    converge = dynamics.solver == "midpoint"
    n_evaluations = int(guess is None or not converge)
    field = turn.relevant(fields(magmoms), magmoms) if n_evaluations else guess
    new = turn.solve(magmoms, field)
    active = torch.ones(n_systems, dtype=torch.bool, device=magmoms.device)
    residual = magmoms.new_full((n_systems,), float("inf"))
    mixing = _Mixing(system_idx, n_systems)
    for _ in range(dynamics.max_iterations if converge else 1):
        middle = turn.midpoint(new)
        found = turn.relevant(fields(middle), middle)
        n_evaluations += 1
        better = turn.solve(new, found)
        change = torch.linalg.norm(better - new, dim=1)
        latest = change.new_zeros(n_systems).scatter_reduce(0, system_idx, change, "amax")
        residual = torch.where(active, latest, residual)
        rows, active = active[system_idx], active & (latest > dynamics.tolerance)
        if converge and bool(active.any()):
            mixed = mixing(better - new, found)
            going = active[system_idx]
            found = _where(going, mixed, found)
            better = _where(going, turn.solve(new, mixed), better)
        field, new = _where(rows, found, field), _where(rows, better, new)
        if not bool(active.any()):
            break
    new = bath.turned(bath.shifted(new, noise[:, 6:9]), noise[:, 9:])
    return MomentStep(new, field, residual, n_evaluations)


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
    """The implicit equation of one step, solved for given fields; vectors of atoms are (n_atoms, 3)."""

    def __init__(
        self,
        magmoms: Tensor,
        dynamics: MomentDynamics,
        *,
        dt: Any,
        gamma: Tensor,
    ) -> None:
        self.magmoms = magmoms
        self.lengths = torch.linalg.norm(magmoms, dim=1, keepdim=True)
        self.fixed = dynamics.length_friction == 0.0
        self.alpha, self.gamma = dynamics.damping, gamma[:, None]
        self.dt = torch.as_tensor(dt).to(magmoms).reshape(-1, 1)
        self.mobility = dynamics.length_friction * self.dt

    def midpoint(self, new: Tensor) -> Tensor:
        """Where fields are taken between the old moments and the new ones."""
        middle = 0.5 * (self.magmoms + new)
        return middle * self._stretch(middle) if self.fixed else middle

    def solve(self, new: Tensor, field: Tensor) -> Tensor:
        """New moments for a given field, which costs nothing beside an evaluation of the model.

        A fixed number of passes, so that no system depends on how fast others converge.
        """
        for _ in range(PASSES):
            new = self(new, field)
        return new

    def __call__(self, new: Tensor, field: Tensor) -> Tensor:
        """New moments from the field at the midpoint of the old ones and of an estimate of the new ones.

        m' − m = (m + m') × w + η B dt, solved for m' exactly; w follows from the estimate. A field along the
        midpoint turns nothing and is left out: what holds a length (eV/μB) then does not slow down the iteration.
        """
        middle = 0.5 * (self.magmoms + new)
        stretch = self._stretch(middle) if self.fixed else 1.0
        across = stretch * (field if self.fixed else perpendicular(field, middle))
        turned = torch.linalg.cross(stretch * middle, across)
        lengths = self.lengths if self.fixed else torch.linalg.norm(middle, dim=1, keepdim=True)
        rate, damping = _damped(lengths, self.alpha, self.gamma)
        w = -0.5 * self.dt * rate * (across + damping * turned)
        right = self.magmoms + torch.linalg.cross(self.magmoms, w)
        if not self.fixed:
            right = right + self.mobility * field
        along = (w * right).sum(dim=1, keepdim=True) * w
        square = (w * w).sum(dim=1, keepdim=True)
        return (right - torch.linalg.cross(w, right) + along) / (1.0 + square)

    def relevant(self, field: Tensor, middle: Tensor) -> Tensor:
        """What of a field moves moments: while lengths are fixed, what is across them."""
        return perpendicular(field, middle) if self.fixed else field

    def _stretch(self, middle: Tensor) -> Tensor:
        """|m| over the length of the middle of the chord."""
        chord = torch.linalg.norm(middle, dim=1, keepdim=True)
        return torch.where(chord > 1e-3 * self.lengths, self.lengths / chord.clamp(min=1e-30), 1.0)


class _HalfBath:
    """The noise of half a step, in which the magforces have no part."""

    def __init__(self, dynamics: MomentDynamics, *, dt: Any, kT: Tensor, gamma: Tensor) -> None:
        self.alpha, self.gamma, self.kT = dynamics.damping, gamma[:, None], kT[:, None]
        self.dt = torch.as_tensor(dt).to(kT).reshape(-1, 1)
        self.mobility = dynamics.length_friction * self.dt

    def turned(self, magmoms: Tensor, noise: Tensor) -> Tensor:
        """Moments turned by the random field.

        A rotation about a normal vector with variance s per component spreads directions as diffusion with the variance
        s + s²/12 does, to this order, and is made smaller by as much.
        """
        if self.alpha == 0.0:
            return magmoms
        lengths = torch.linalg.norm(magmoms, dim=1, keepdim=True)
        rate, damping = _damped(lengths, self.alpha, self.gamma)
        variance = rate * damping * self.kT * self.dt
        return _rotated(magmoms, (variance / (1.0 + variance / 12.0)).sqrt() * noise)

    def shifted(self, magmoms: Tensor, noise: Tensor) -> Tensor:
        """Moments with the noise that belongs to the friction of lengths."""
        return magmoms + (self.mobility * self.kT).sqrt() * noise


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
