"""Birch–Murnaghan equations of state from energies and pressures, with the window of volumes chosen by what they leave.

The equation of order n is a polynomial of that degree in the Eulerian strain f,

    E(V) = E₀ + (9/2) V₀ B₀ f² [1 + (B₀′ − 4) f + …],    f = [(V₀/V)^(2/3) − 1]/2,    P = −dE/dV,

and so it is in the strain from any other volume, which makes the fit linear. Pressures are derivatives of the same
energy (of its minimum over the moments too, by the theorem of Hellmann and Feynman): both are fitted together.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from math import comb

import numpy as np
from jaxtyping import Float

from mmace_sim.units import EV_PER_A3_IN_GPA

MIN_POINTS: int = 5
"""Volumes that a fit needs."""

FIT_WINDOW: float = 0.12
"""Volumes further than this fraction from that of the lowest energy are not fitted: no equation holds that far."""

ORDERS: tuple[int, ...] = (3, 4)
"""Orders of the equation that are tried."""

LARGEST_RESIDUAL: float = 1e-3
"""Root mean square of what a good fit leaves, of energies and of pressures, relative to their range in the window. For
curves of iron from 160 to 340 GPa, B₀ is then that of the curvature at the minimum within 1 %."""

POOR_FIT: float = 0.05
"""Relative uncertainty of B₀ from which on it counts as not determined."""

USUAL_DERIVATIVE: tuple[float, float] = (2.0, 8.0)
"""Where B₀′ of crystals lies."""


class EosStatus(StrEnum):
    """How the equation of state of one curve ended."""

    CONVERGED = "converged"
    INCOMPLETE = "incomplete"
    POOR_FIT = "poor_fit"
    OUTSIDE = "minimum_outside_range"
    TOO_FEW = "too_few_points"
    FAILED = "failed"


@dataclass(frozen=True)
class BirchMurnaghanFit:
    """Birch–Murnaghan equation of state.

    Attributes:
        volume: V₀, in Å³/atom.
        energy: E₀, in eV/atom.
        bulk_modulus_gpa: B₀, in GPa.
        bulk_modulus_derivative: B₀′ = dB/dP.
        moment: Mean length of the moments at V₀, in μB.
        rms_error: Root mean square of what the fit leaves of the energies, in eV/atom.
        volume_range: Smallest and largest volume that were fitted, in Å³/atom.
        order: 3 or 4.
        n_points: Number of volumes that were fitted.
        residual: Larger of the root mean squares that are left of energies and pressures, relative to their range.
        bulk_modulus_error_gpa: How much B₀ changes with the next order, in the same window, in GPa; NaN if there are
            too few points for that.
        coefficients: c_k of E = Σ c_k f^k, in eV/atom.
    """

    volume: float
    energy: float
    bulk_modulus_gpa: float
    bulk_modulus_derivative: float
    moment: float
    rms_error: float
    volume_range: tuple[float, float]
    order: int
    n_points: int
    residual: float
    bulk_modulus_error_gpa: float
    coefficients: tuple[float, ...]

    @property
    def determined(self) -> bool:
        """Whether the equation describes the points, so that B₀ is known within a few per cent."""
        uncertain = self.bulk_modulus_error_gpa > POOR_FIT * self.bulk_modulus_gpa
        return self.residual <= 10 * LARGEST_RESIDUAL and not uncertain

    def energies(self, volumes: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Energy of the equation, in eV/atom.

        Args:
            volumes: In Å³/atom.
        """
        return _values(np.array(self.coefficients), _strain(volumes, self.volume))

    def remark(self) -> str:
        """What to know of the fit; empty if nothing."""
        low, high = USUAL_DERIVATIVE
        if not self.determined:
            return (
                f"no smooth equation describes the points near the minimum (it leaves {100 * self.residual:.1f} % of "
                f"them; B₀ is uncertain by {self.bulk_modulus_error_gpa:.0f} GPa): the moments may change abruptly "
                "there. Take more volumes in a narrower range."
            )
        if not low <= self.bulk_modulus_derivative <= high:
            return (
                f"B₀′ is {self.bulk_modulus_derivative:.2f}, while {low:.0f} to {high:.0f} is usual: the curve is "
                "strongly anharmonic, or the model is."
            )
        return ""


@dataclass(frozen=True)
class _Points:
    """Usable points of one piece of a curve; pressures in eV/Å³, NaN where there are none."""

    volumes: Float[np.ndarray, " n"]
    energies: Float[np.ndarray, " n"]
    pressures: Float[np.ndarray, " n"]
    moments: Float[np.ndarray, " n"]

    def __getitem__(self, piece: slice | np.ndarray) -> "_Points":
        return _Points(self.volumes[piece], self.energies[piece], self.pressures[piece], self.moments[piece])

    def __len__(self) -> int:
        return len(self.volumes)


def fit_birch_murnaghan(
    volumes: Float[np.ndarray, " n_points"],
    energies: Float[np.ndarray, " n_points"],
    moments: Float[np.ndarray, " n_points"],
    pressures_gpa: Float[np.ndarray, " n_points"] | None = None,
) -> tuple[EosStatus, BirchMurnaghanFit | None]:
    """Fit the Birch–Murnaghan equation around the lowest point.

    All runs of at least `MIN_POINTS` neighbouring volumes around the lowest point, within ±`FIT_WINDOW`, are fitted in
    all `ORDERS`. Of those that leave no more than `LARGEST_RESIDUAL` the one is taken with the most volumes on the
    poorer side of the minimum, then with the most volumes, then of the lower order. If there is none, the one that
    leaves the least.

    Args:
        volumes: In ascending order, in Å³/atom.
        energies: In eV/atom; points that are NaN are left out.
        moments: Mean length of the moments, in μB.
        pressures_gpa: −dE/dV, in GPa; None or NaN where unknown, then energies alone are fitted.

    Returns:
        CONVERGED and the fit, or POOR_FIT and the fit if B₀ is not determined; TOO_FEW or OUTSIDE and None if there are
        too few points, or no minimum among them.
    """
    pressures = np.full(len(volumes), np.nan) if pressures_gpa is None else pressures_gpa / EV_PER_A3_IN_GPA
    points = _Points(volumes, energies, pressures, moments)[np.isfinite(energies)]
    if len(points) == 0 or int(np.argmin(points.energies)) in (0, len(points) - 1):
        return EosStatus.OUTSIDE, None
    points = points[np.abs(points.volumes / points.volumes[np.argmin(points.energies)] - 1.0) <= FIT_WINDOW]
    if len(points) < MIN_POINTS:
        return EosStatus.TOO_FEW, None
    fits = [fit for window in _windows(points) for fit in _fits(window)]
    if not fits:
        return EosStatus.OUTSIDE, None
    fine = [fit for fit in fits if fit.residual <= LARGEST_RESIDUAL]
    best = max(fine or fits, key=partial(_preference, points.volumes) if fine else lambda fit: -fit.residual)
    return (EosStatus.CONVERGED if best.determined else EosStatus.POOR_FIT), best


def _preference(volumes: Float[np.ndarray, " n"], fit: BirchMurnaghanFit) -> tuple[float, ...]:
    """Points on the poorer side of the minimum, points, order (low), residual (small)."""
    low = fit.volume_range[0]
    below = int(np.count_nonzero((volumes >= low) & (volumes < fit.volume)))
    return min(below, fit.n_points - below), fit.n_points, -fit.order, -fit.residual


def _windows(points: _Points) -> Iterator[_Points]:
    """Runs of neighbouring points with the lowest one inside."""
    lowest = int(np.argmin(points.energies))
    for first, last in itertools.product(range(lowest), range(lowest + 1, len(points))):
        if last - first + 1 >= MIN_POINTS:
            yield points[first : last + 1]


@dataclass(frozen=True)
class _Equation:
    """E = Σ c_k f^k of some points: V₀ (Å³/atom), c_k (eV/atom), and the relative residual, None if nothing is left."""

    volume: float
    coefficients: Float[np.ndarray, " n"]
    residual: float | None

    @property
    def bulk_modulus(self) -> float:
        """B₀ in GPa."""
        return float(2.0 * self.coefficients[2] / (9.0 * self.volume)) * EV_PER_A3_IN_GPA


def _fits(points: _Points) -> Iterator[BirchMurnaghanFit]:
    """The equations of all orders that the points determine and that have a minimum among them."""
    equations = {order: _solve(points, order) for order in {*ORDERS, *(order + 1 for order in ORDERS)}}
    for order in ORDERS:
        equation, higher = equations[order], equations[order + 1]
        if equation is None or equation.residual is None:
            continue
        volume, coefficients = equation.volume, equation.coefficients
        left = _values(coefficients, _strain(points.volumes, volume)) - points.energies
        bulk, other = equation.bulk_modulus, np.nan if higher is None else higher.bulk_modulus
        yield BirchMurnaghanFit(
            volume=volume,
            energy=float(coefficients[0]),
            bulk_modulus_gpa=bulk,
            bulk_modulus_derivative=float(4.0 + coefficients[3] / coefficients[2]),
            moment=float(np.interp(volume, points.volumes, points.moments)),
            rms_error=float(np.sqrt(np.mean(left**2))),
            volume_range=(float(points.volumes[0]), float(points.volumes[-1])),
            order=order,
            n_points=len(points),
            residual=equation.residual,
            bulk_modulus_error_gpa=abs(other - bulk),
            coefficients=tuple(coefficients.tolist()),
        )


def _solve(points: _Points, order: int) -> _Equation | None:
    """The polynomial in the strain that energies and pressures determine; None if there is no minimum among them.

    Least squares of both, each in units of its range; nothing is left to say where there are as many unknowns.
    """
    zero, reference = points.energies.min(), float(points.volumes.mean())
    strain, powers = _strain(points.volumes, reference), np.arange(order + 1)
    energies = strain[:, None] ** powers
    slopes = powers * strain[:, None] ** np.maximum(powers - 1, 0)
    pressures = slopes * ((1.0 + 2.0 * strain) / (3.0 * points.volumes))[:, None]
    known = np.isfinite(points.pressures)
    ranges = np.ptp(points.energies), np.ptp(points.pressures[known]) if known.any() else 1.0
    design = np.concatenate([energies / ranges[0], pressures[known] / ranges[1]])
    right = np.concatenate([(points.energies - zero) / ranges[0], points.pressures[known] / ranges[1]])
    spare = len(right) - len(powers)
    if spare < 0:
        return None
    coefficients = np.linalg.lstsq(design, right, rcond=None)[0]
    squares = (design @ coefficients - right) ** 2
    parts = (squares[: len(points)], squares[len(points) :])
    mean = max(part.mean() for part in parts if len(part))
    residual = float(np.sqrt(mean * len(right) / spare)) if spare else None
    slope = powers[1:] * coefficients[1:]
    roots = np.roots(slope[::-1])
    roots = roots.real[(abs(roots.imag) < 1e-9) & (strain.min() < roots.real) & (roots.real < strain.max())]
    minima = roots[_values(powers[1:-1] * slope[1:], roots) > 0]
    if not len(minima):
        return None
    lowest = float(minima[np.argmin(_values(coefficients, minima))])
    coefficients[0] += zero
    volume = reference * (1.0 + 2.0 * lowest) ** -1.5
    return _Equation(volume, _moved(coefficients, lowest), residual)


def _values(
    coefficients: Float[np.ndarray, " n_powers"], strain: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Σ c_k f^k."""
    return strain[:, None] ** np.arange(len(coefficients)) @ coefficients


def _moved(coefficients: Float[np.ndarray, " n"], origin: float) -> Float[np.ndarray, " n"]:
    """The polynomial in the strain g from another volume, f = origin + (1 + 2 origin) g."""
    powers = range(len(coefficients))
    shift = [[comb(j, k) * origin ** (j - k) if j >= k else 0.0 for j in powers] for k in powers]
    return (1.0 + 2.0 * origin) ** np.arange(len(coefficients)) * (np.array(shift) @ coefficients)


def _strain(volumes: Float[np.ndarray, " n"], reference: float) -> Float[np.ndarray, " n"]:
    """Eulerian strain from a reference volume; 1 + 2f is a product, so that a change of reference is linear in f."""
    return 0.5 * ((reference / volumes) ** (2 / 3) - 1.0)
