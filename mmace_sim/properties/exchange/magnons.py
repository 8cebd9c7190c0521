"""What follows from exchange: magnons from tensors, spin stiffness from isotropic J'."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Complex, Float

from mmace_sim.base.extras import extra
from mmace_sim.properties.exchange.hessian import transverse_frame
from mmace_sim.properties.phonons.bands import zone_path
from mmace_sim.structures.spin_lattice import Pairs, SpinLattice

_UNCOUPLED = 1e-6
"""Exchange that is smaller than this, relative to the largest, couples nothing."""


@dataclass(frozen=True)
class MagnonPath:
    """Magnons along a path through the Brillouin zone.

    Attributes:
        qpoints: Wave vectors in reciprocal vectors of the primitive cell.
        lengths: Length of the path up to each, in 1/Å (with 2π).
        energies: ħω of each branch, in eV, ascending.
        ticks: Position and name of the special points.
        stable: Whether the order is a minimum for all these waves.
    """

    qpoints: Float[np.ndarray, "n_q 3"]
    lengths: Float[np.ndarray, " n_q"]
    energies: Float[np.ndarray, "n_q n_sites"]
    ticks: list[tuple[float, str]]
    stable: bool


def spin_waves(
    lattice: SpinLattice,
    pairs: Pairs,
    tensors: Float[np.ndarray, "n_pairs 3 3"],
    qpoints: Float[np.ndarray, "n_q 3"],
    single_ion: Float[np.ndarray, "n_sites 2 2"] | None = None,
) -> tuple[Float[np.ndarray, "n_q n_sites"], Float[np.ndarray, " n_q"]]:
    """Linear spin waves e^{i(q·r − ωt)} of a collinear magnet with g = 2.

    With e_a = s_a n + u_a, u_a ⊥ n, the energy is ½ Σ u·H·u, H_ab(q) = δ_ab (A_a + Σ_c s_a s_c n·J'_ac(0)·n) − J'_ab(q)
    in the plane perpendicular to n, J'_ab(q) = Σ_R J'_ab(R) e^{iq·r}, and ħ du_a/dt = (2/m_a) s_a n × (H u)_a: ħω are i
    times the eigenvalues of that, one positive for each site. With one site, isotropic exchange and vectors D of the
    Dzyaloshinskii–Moriya interaction, ħω = (2/m) Σ_R [J' (1 − cos q·R) + D·n sin q·R].

    Args:
        lattice: The magnet.
        pairs: Pairs within the cutoff.
        tensors: J' of each pair, in eV.
        qpoints: Wave vectors in reciprocal vectors.
        single_ion: A of each site in the frame of `transverse_frame`, in eV; none by default.

    Returns:
        Energies in eV, ascending, and the lowest eigenvalue of H(q) in eV: negative where the order is unstable.
    """
    n = len(lattice.sites)
    frame = transverse_frame(lattice.axis)
    local = np.einsum("ia,pab,jb->pij", frame, tensors, frame)
    a, b = pairs.first, pairs.second
    phases = 2 * np.pi * qpoints @ np.linalg.inv(lattice.cell).T @ pairs.vectors.T
    hessian: Complex[np.ndarray, "n_q n_sites n_sites 2 2"] = np.zeros(
        (len(qpoints), n, n, 2, 2), dtype=complex
    )
    every = (slice(None), a, b)
    np.add.at(hessian, every, -np.exp(1j * phases)[:, :, None, None] * local[:, :2, :2])  # type: ignore[arg-type]  # NumPy's types leave slices out
    field = np.bincount(a, weights=local[:, 2, 2] * lattice.signs[a] * lattice.signs[b], minlength=n)
    own = field[:, None, None] * np.eye(2) + (0.0 if single_ion is None else single_ion)
    hessian[:, np.arange(n), np.arange(n)] += own
    precession = (2 * lattice.signs / lattice.lengths)[:, None, None] * np.array([[0.0, -1.0], [1.0, 0.0]])
    dynamic = np.einsum("aij,qabjk->qaibk", precession, hessian).reshape(-1, 2 * n, 2 * n)
    energies = np.sort((1j * np.linalg.eigvals(dynamic)).real, axis=1)[:, n:]
    matrix = hessian.transpose(0, 1, 3, 2, 4).reshape(-1, 2 * n, 2 * n)
    return energies, np.linalg.eigvalsh(matrix)[:, 0]


@dataclass(frozen=True)
class Stiffness:
    """ħω = Σ_ab D_ab q_a q_b of a ferromagnet at small q.

    Attributes:
        tensor: D in eV Å², Cartesian; zero across layers and chains.
        dimensions: Number of dimensions that the exchange couples in: 3 for a crystal, 2 for layers, 1 for chains.
    """

    tensor: Float[np.ndarray, "3 3"]
    dimensions: int

    @property
    def mean(self) -> float:
        """D in eV Å² averaged over the directions of those dimensions."""
        return float(np.trace(self.tensor)) / self.dimensions


def stiffness(
    lattice: SpinLattice, pairs: Pairs, isotropic: Float[np.ndarray, " n_pairs"]
) -> Stiffness | None:
    """D of ħω = q·D·q at small q, D = (1/m) Σ_j J'_0j R R for one site of moment m.

    From ħω = (2/m) Σ J'(1 − cos q·R), whose second order is (1/m) Σ J' (q·R)². The mean over directions in d dimensions
    is 1/d of the trace, D = (1/dm) Σ J' R².

    Args:
        lattice: The magnet.
        pairs: Pairs within the cutoff.
        isotropic: J' of each pair, in eV.

    Returns:
        The stiffness; None for an order that is no ferromagnet, and for spins that no translation couples.
    """
    if (lattice.signs != lattice.signs[0]).any():
        return None
    span = _coupled(lattice, pairs, isotropic)
    dimensions = round(float(np.trace(span)))
    if dimensions == 0:
        return None
    n = len(lattice.sites)
    second = np.einsum("p,pa,pb->ab", isotropic, pairs.vectors, pairs.vectors)
    # second-order perturbation: sites of one cell may lag behind, which lowers D
    force = np.zeros((n, 3))
    np.add.at(force, pairs.first, isotropic[:, None] * pairs.vectors)
    laplacian = np.diag(np.bincount(pairs.first, weights=isotropic, minlength=n))
    np.add.at(laplacian, (pairs.first, pairs.second), -isotropic)
    lag = 2 * force.T @ np.linalg.pinv(laplacian, rcond=1e-10) @ force
    return Stiffness(span @ (second - lag) @ span / lattice.lengths.sum(), dimensions)


def _coupled(
    lattice: SpinLattice, pairs: Pairs, isotropic: Float[np.ndarray, " n_pairs"]
) -> Float[np.ndarray, "3 3"]:
    """Projector on the directions in which exchange leads from a site to its own images."""
    strong = np.abs(isotropic) > _UNCOUPLED * np.abs(isotropic).max(initial=0.0)
    ends = (pairs.first[strong].tolist(), pairs.second[strong].tolist(), pairs.shifts[strong])
    links: list[list[tuple[int, np.ndarray]]] = [[] for _ in lattice.sites]
    for i, j, shift in zip(*ends, strict=True):
        links[i].append((j, shift))
    cells: dict[int, np.ndarray] = {}
    for start in range(len(links)):
        reached = [] if start in cells else [start]
        cells.setdefault(start, np.zeros(3, dtype=int))
        while reached:
            i = reached.pop()
            new = {j: cells[i] + shift for j, shift in links[i] if j not in cells}
            cells |= new
            reached += new
    loops = {tuple((cells[i] + shift - cells[j]).tolist()) for i, j, shift in zip(*ends, strict=True)}
    vectors = np.array(sorted(loops), dtype=float).reshape(-1, 3) @ lattice.cell
    _, sizes, axes = np.linalg.svd(np.concatenate([vectors, np.zeros((3, 3))]))
    kept = axes[sizes > 1e-6]
    return kept.T @ kept


def magnon_path(
    lattice: SpinLattice,
    pairs: Pairs,
    tensors: Float[np.ndarray, "n_pairs 3 3"],
    single_ion: Float[np.ndarray, "n_sites 2 2"] | None = None,
    *,
    n_points: int = 60,
) -> MagnonPath:
    """Magnons along the path of Hinuma et al. for the magnetic primitive cell.

    Args:
        lattice: The magnet.
        pairs: Pairs within the cutoff.
        tensors: J' of each pair, in eV.
        single_ion: As in `spin_waves`.
        n_points: Points on the longest segment.

    Returns:
        The magnons.

    References:
        Y. Hinuma et al., Comput. Mater. Sci. 128, 140 (2017), doi:10.1016/j.commatsci.2016.10.015.
    """
    atoms = lattice.atoms
    kinds = [10 * int(number) for number in atoms.numbers]
    for site, sign in zip(lattice.sites, lattice.signs, strict=True):
        kinds[site] += 1 + int(sign < 0)
    with extra("phonons", "The path of magnons"):
        names, _, segments = zone_path(
            atoms.cell.array, atoms.get_scaled_positions(), kinds, n_points=n_points
        )
    reciprocal = 2 * np.pi * np.linalg.inv(lattice.cell).T
    spans = [np.linalg.norm((segment[-1] - segment[0]) @ reciprocal) for segment in segments]
    qpoints = np.concatenate(segments)
    starts = np.concatenate([[0.0], np.cumsum(spans)])
    lengths = np.concatenate(
        [np.linspace(*ends, len(segment)) for ends, segment in zip(pairwise(starts), segments, strict=True)]
    )
    energies, lowest = spin_waves(lattice, pairs, tensors, qpoints, single_ion)
    stable = bool(lowest.min() > -1e-6 - 1e-3 * np.abs(tensors).max())
    return MagnonPath(qpoints, lengths, energies, _ticks(names, starts), stable)


def _ticks(path: list[tuple[str, str]], starts: Float[np.ndarray, " n"]) -> list[tuple[float, str]]:
    names = [path[0][0]]
    for (_, end), (start, _) in pairwise(path):
        names.append(end if end == start else f"{end}|{start}")
    names.append(path[-1][1])
    return list(zip(starts.tolist(), names, strict=True))
