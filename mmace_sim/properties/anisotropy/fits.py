"""Fits of energies on a sphere: harmonics, anisotropy constants, easy and hard directions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import sph_harm_y

from mmace_sim.properties.anisotropy.symmetry import Term

_OVERSAMPLING = 1.3
"""Least number of energies for each harmonic."""
_N_TRIALS = 2000
_LEFT = 1e-4
"""Residual of a fit without the highest orders, relative to the range of the energies, up to which it is taken."""
_ROUNDING = 1e-13


def _real_harmonics(
    directions: Float[np.ndarray, "n 3"], degrees: list[tuple[int, int]]
) -> Float[np.ndarray, "n n_functions"]:
    """Real spherical harmonics (l, m) of unit vectors, orthonormal on the sphere; m < 0 are those with sin |m|φ."""
    theta = np.arccos(np.clip(directions[:, 2], -1.0, 1.0))
    phi = np.arctan2(directions[:, 1], directions[:, 0])
    ell, m = np.array(degrees).T
    values = sph_harm_y(ell, np.abs(m), theta[:, None], phi[:, None])
    factors = np.where(m == 0, 1.0, (-1.0) ** m * 2**0.5)
    return factors * np.where(m < 0, values.imag, values.real)


@dataclass(frozen=True)
class Surface:
    """E(n) as a sum of real harmonics of the direction in a frame.

    Attributes:
        frame: Axes x, y, z as rows.
        degrees: Pairs (l, m).
        coefficients: In eV per cell.
        residual: Root mean square of what is left of the energies, in eV per cell.
    """

    frame: Float[np.ndarray, "3 3"]
    degrees: list[tuple[int, int]]
    coefficients: Float[np.ndarray, " n_functions"]
    residual: float

    def __call__(self, directions: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Energies in Cartesian directions, in eV per cell, on the zero of the fitted energies."""
        return _real_harmonics(directions @ self.frame.T, self.degrees) @ self.coefficients

    def tensor(self) -> Float[np.ndarray, "3 3"]:
        """Symmetric traceless A of the part n·A·n of second degree, Cartesian, in eV per cell."""
        second = [k for k, (ell, _) in enumerate(self.degrees) if ell == 2]
        n = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=float)
        n /= np.linalg.norm(n, axis=1, keepdims=True)
        values = _real_harmonics(n, [self.degrees[k] for k in second]) @ self.coefficients[second]
        x, y, z = values[:3]
        yz, xz, xy = values[3] - (y + z) / 2, values[4] - (x + z) / 2, values[5] - (x + y) / 2
        inside = np.array([[x, xy, xz], [xy, y, yz], [xz, yz, z]])
        return self.frame.T @ inside @ self.frame


def fit_surface(
    directions: Float[np.ndarray, "n 3"],
    energies: Float[np.ndarray, " n"],
    frame: Float[np.ndarray, "3 3"],
    *,
    max_ell: int,
    even: bool,
) -> Surface:
    """Least squares of harmonics, of the least norm where directions do not determine them (in a plane).

    Args:
        directions: Unit vectors.
        energies: In eV per cell.
        frame: Axes as rows.
        max_ell: Highest degree; lowered where there are too few energies.
        even: Take even degrees only, as time reversal asks for.
    """
    step = 2 if even else 1
    ells = list(range(0, max_ell + 1, step))
    while len(ells) > 2 and _OVERSAMPLING * sum(2 * ell + 1 for ell in ells) > len(energies):
        ells.pop()
    degrees = [(ell, m) for ell in ells for m in range(-ell, ell + 1)]
    design = _real_harmonics(directions @ frame.T, degrees)
    mean = energies.mean()
    coefficients = np.linalg.lstsq(design, energies - mean, rcond=1e-10)[0]
    residual = float(np.sqrt(np.mean((design @ coefficients + mean - energies) ** 2)))
    coefficients[0] += mean * (4 * np.pi) ** 0.5
    return Surface(frame, degrees, coefficients, residual)


@dataclass(frozen=True)
class Constants:
    """Anisotropy constants of a form.

    Attributes:
        form: "uniaxial" or "cubic".
        functions: The function of each constant, as text.
        values: Constants, in eV per cell.
        errors: Standard errors of the fit, in eV per cell.
        residual: Root mean square of what is left of the energies, in eV per cell.
        order: Highest degree of the functions: 6 (cubic: 8), or less where directions determine no more.
    """

    form: str
    functions: dict[str, str]
    values: dict[str, float]
    errors: dict[str, float]
    residual: float
    order: int

    def get(self, name: str) -> float | None:
        """A constant in eV per cell; None if the form has none of that name."""
        return self.values.get(name)

    @property
    def easy(self) -> str:
        """Easy directions that K1, K2 and K3 alone ask for (cubic: of those of high symmetry)."""
        k1, k2, k3 = (self.values.get(name, 0.0) for name in ("K1", "K2", "K3"))
        if self.form == "cubic":
            energies = {"<100>": 0.0, "<110>": k1 / 4 + k3 / 16, "<111>": k1 / 3 + k2 / 27 + k3 / 9}
            return min(energies, key=lambda name: energies[name])
        return {0.0: "axis", 1.0: "plane"}.get(self._easy_square(), "cone")

    @property
    def cone_angle(self) -> float | None:
        """Angle of an easy cone to the axis, in degrees."""
        if self.form == "cubic" or self.easy != "cone":
            return None
        return float(np.degrees(np.arcsin(self._easy_square() ** 0.5)))

    def _easy_square(self) -> float:
        """sin²θ where K1 sin²θ + K2 sin⁴θ + K3 sin⁶θ is lowest."""
        k1, k2, k3 = (self.values.get(name, 0.0) for name in ("K1", "K2", "K3"))
        energy = np.polynomial.Polynomial([0.0, k1, k2, k3])
        flat = energy.deriv().roots()
        inside = flat.real[(np.abs(flat.imag) < 1e-9) & (flat.real > 0) & (flat.real < 1)]
        return min([0.0, 1.0, *inside.tolist()], key=energy)


def fit_constants(
    form: str,
    terms: Mapping[str, Term],
    directions: Float[np.ndarray, "n 3"],
    energies: Float[np.ndarray, " n"],
    frame: Float[np.ndarray, "3 3"],
) -> Constants | None:
    """Least squares of the functions of a form, of as high an order as the directions determine and check.

    Directions that the functions do not tell apart count as one: each fit has at least one more of them than constants.
    A fit that had to leave out orders is taken only if it leaves next to nothing of the energies.

    Args:
        form: Name of the form.
        terms: Functions besides the constant, by the names of their constants.
        directions: Unit vectors.
        energies: In eV per cell.
        frame: Axes as rows, in which the functions are written.

    Returns:
        The constants; None without terms, or if the directions do not determine them.
    """
    inside = directions @ frame.T
    complete = max((term.degree for term in terms.values()), default=0)
    every = np.stack([np.ones(len(inside)), *(term.function(inside) for term in terms.values())], axis=1)
    n_different = len(np.unique(np.round(every, 6) + 0.0, axis=0))
    for order in range(complete, 0, -2):
        chosen = {name: term for name, term in terms.items() if term.degree <= order}
        if not chosen:
            return None
        design = every[:, [0, *(1 + list(terms).index(name) for name in chosen)]]
        n_terms = design.shape[1]
        if n_different <= n_terms or np.linalg.matrix_rank(design, tol=1e-6) < n_terms:
            continue
        found = _least_squares(form, chosen, design, energies, n_different)
        small = max(_LEFT * float(np.ptp(energies)), _ROUNDING * float(np.abs(energies).max()))
        return found if order == complete or found.residual <= small else None
    return None


def _least_squares(
    form: str,
    terms: Mapping[str, Term],
    design: Float[np.ndarray, "n n_terms"],
    energies: Float[np.ndarray, " n"],
    n_different: int,
) -> Constants:
    """The fit; equivalent directions have the same energy and count once in the errors."""
    mean, n_terms = energies.mean(), design.shape[1]
    solution = np.linalg.lstsq(design, energies - mean, rcond=None)[0]
    left = design @ solution + mean - energies
    variance = (left**2).mean() * n_different / (n_different - n_terms)
    covariance = np.linalg.inv(design.T @ design / len(design)) / n_different
    names = ["K0", *terms]
    return Constants(
        form=form,
        functions={"K0": "1"} | {name: term.text for name, term in terms.items()},
        values=dict(zip(names, solution.tolist(), strict=True)) | {"K0": float(solution[0] + mean)},
        errors=dict(zip(names, np.sqrt(variance * covariance.diagonal()).tolist(), strict=True)),
        residual=float(np.sqrt(np.mean(left**2))),
        order=max(term.degree for term in terms.values()),
    )


def lowest_direction(
    function: Callable[[Float[np.ndarray, "n 3"]], Float[np.ndarray, " n"]],
    *,
    axes: tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"]] | None = None,
) -> Float[np.ndarray, " 3"]:
    """Where a smooth function of the direction is lowest: the best of many points, and downhill from there.

    Args:
        function: Energies of unit vectors.
        axes: Two perpendicular unit vectors, to search their plane only.

    Returns:
        A unit vector.
    """
    if axes is None:
        k = np.arange(_N_TRIALS) + 0.5
        z, phi = 1 - 2 * k / _N_TRIALS, np.pi * (1 + 5**0.5) * k
        trials = np.stack([np.sqrt(1 - z * z) * np.cos(phi), np.sqrt(1 - z * z) * np.sin(phi), z], axis=1)
        trials = np.concatenate([np.eye(3), trials])
    else:
        phi = np.linspace(0, 2 * np.pi, _N_TRIALS)
        trials = np.cos(phi)[:, None] * axes[0] + np.sin(phi)[:, None] * axes[1]
    energies = function(trials)
    start, size = trials[int(np.argmin(energies))], max(float(np.ptp(energies)), 1e-300)
    sides = np.linalg.svd(start[None])[2][1:] if axes is None else np.cross(np.cross(*axes), start)[None]

    def along(x: Float[np.ndarray, " k"]) -> float:
        moved = start + x @ sides
        return float((function((moved / np.linalg.norm(moved))[None])[0] - energies.min()) / size)

    found = minimize(
        along, np.zeros(len(sides)), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-14}
    )
    direction = start + found.x @ sides
    return direction / np.linalg.norm(direction)
