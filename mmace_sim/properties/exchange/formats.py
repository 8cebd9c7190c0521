"""What the files of all codes are made of: links, sites, anisotropy axes, numbers as text."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from mmace_sim.properties.exchange.constants import ExchangeResult
from mmace_sim.properties.results import known

SMALL = 1e-9  # eV; smaller ones are not written


@dataclass(frozen=True)
class Links:
    """Pairs as files list them: from both ends."""

    first: Int[np.ndarray, " n"]
    second: Int[np.ndarray, " n"]
    shifts: Int[np.ndarray, "n 3"]
    tensors: Float[np.ndarray, "n 3 3"]


class Exported:
    """Exchange of one crystal as files need it.

    Args:
        result: The exchange.
    """

    def __init__(self, result: ExchangeResult) -> None:
        self.result, self.lattice = result, known(result.lattice)
        n = len(self.lattice.sites)
        self.anisotropy = np.zeros((n, 3, 3)) if result.anisotropy is None else result.anisotropy

    @property
    def links(self) -> Links:
        """Pairs that are coupled, from both ends."""
        pairs, tensors = known(self.result.pairs), self.result.tensors[self.result.route]
        kept = np.abs(tensors).max(axis=(1, 2)) > SMALL
        return Links(pairs.first[kept], pairs.second[kept], pairs.shifts[kept], tensors[kept])

    @property
    def scaled_sites(self) -> Float[np.ndarray, "n_sites 3"]:
        """Places of the sites in vectors of the cell."""
        return self.lattice.atoms.positions[self.lattice.sites] @ np.linalg.inv(self.lattice.cell)

    @property
    def unit_moments(self) -> Float[np.ndarray, "n_sites 3"]:
        """Directions of the moments."""
        return self.lattice.signs[:, None] * self.lattice.axis

    @property
    def site_kinds(self) -> tuple[list[int], list[int]]:
        """Number of the kind of each site, and a site of each kind.

        Sites are of one kind if an operation of the crystal makes one of the other and length, sign and anisotropy are
        the same.
        """
        lattice = self.lattice
        orbits = lattice.images[:, lattice.sites].min(axis=0).tolist()
        rounded = (np.round(self.anisotropy.reshape(-1, 9) / SMALL) + 0.0).tolist()
        lengths = np.round(lattice.lengths, 3).tolist()
        keys = list(zip(orbits, lengths, lattice.signs.tolist(), map(tuple, rounded), strict=True))
        kinds = list(dict.fromkeys(keys))
        return [kinds.index(key) for key in keys], [keys.index(kind) for kind in kinds]

    @property
    def anisotropy_axes(self) -> list[list[tuple[float, Float[np.ndarray, "3"]]]]:
        """Single-ion anisotropy as formats take it: Σ K (e·n)² up to a constant, with at most two axes for each site.

        For each site K in eV, negative for an easy axis, and n; the largest |K| first.
        """
        out = []
        for tensor in self.anisotropy:
            values, vectors = np.linalg.eigh(tensor)
            axes = [(float(values[k] - values[1]), vectors[:, k]) for k in (0, 2)]
            axes = [(k, _upward(axis)) for k, axis in axes if abs(k) > SMALL]
            out.append(sorted(axes, key=lambda pair: -abs(pair[0])))
        return out


def line_of(values: ArrayLike, form: str = "{: .10f}") -> str:
    """Numbers in one line.

    Args:
        values: Of any shape.
        form: Format of each.
    """
    return " ".join(form.format(x) for x in np.ravel(values))


def _upward(axis: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """The one of ±n whose last component that is not zero is positive."""
    return axis * np.sign(axis[np.flatnonzero(np.abs(axis) > 1e-9)[-1]])


def axes_line(turn: Float[np.ndarray, "3 3"] | None = None) -> str:
    """What x, y and z of a file are.

    Args:
        turn: Rows: axes of the file in Cartesian components of the structure; None if they are the same.
    """
    if turn is None or np.allclose(turn, np.eye(3), atol=1e-6):
        return "# Axes: x, y, z are those of the structure that was read; the cell is not rotated"
    rows = ", ".join("[" + line_of(axis, "{:.10f}") + "]" for axis in turn)
    return f"# Axes: the cell and the moments are rotated; x, y, z here are {rows} of the structure that was read"
