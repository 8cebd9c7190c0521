"""Exchange tensors from second derivatives of the energy by moments: Hessian-vector products of a supercell."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Complex, Float, Int

from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.model.interface import Potential
from mmace_sim.structures.lattice_points import cell_numbers
from mmace_sim.structures.spin_lattice import Pairs, SpinLattice


@dataclass(frozen=True)
class SpinHessian:
    """Second derivatives of the energy of one magnetic order by the directions and lengths of its moments.

    Attributes:
        frame: Two unit vectors perpendicular to the moments, and their axis.
        matrix: Axis-aligned supercell, diagonal.
        blocks: ∂²E/∂x_aα(0) ∂x_bβ(R) in eV, [site a, site b, cell R, α, β]: α = 0, 1 turns the unit vector along the
            frame, α = 2 changes the length relative to itself.
    """

    frame: Float[np.ndarray, "3 3"]
    matrix: Int[np.ndarray, "3 3"]
    blocks: Float[np.ndarray, "n_sites n_sites n_cells 3 3"]


def transverse_frame(axis: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Two unit vectors perpendicular to an axis, and the axis, right-handed.

    Args:
        axis: Unit vector.

    Returns:
        Rows u, v, axis; Cartesian unit vectors in cyclic order if the axis is one.
    """
    k = int(np.argmax(np.abs(axis)))
    u = np.roll(np.eye(3), -k - 1, axis=0)[0]
    u = u - (u @ axis) * axis
    u /= np.linalg.norm(u)
    return np.array([u, np.cross(axis, u), axis])


def spin_hessian(
    model: Potential, lattice: SpinLattice, matrix: Int[np.ndarray, "3 3"], axis: Float[np.ndarray, "3"]
) -> SpinHessian:
    """Second derivatives at the magnetic order turned to an axis.

    A unit vector that turns by u ⊥ e is e + u − ½u²e, so that the block of one site has the term −δ |m| e·∂E/∂m of
    the constraint |e| = 1 beside |m|² ∂²E/∂m∂m. One product with the Hessian of the supercell for each site and
    direction.

    Args:
        model: Energy model.
        lattice: The magnet.
        matrix: Diagonal supercell; no pair of interest may fit into it twice.
        axis: Unit vector to turn all moments to.

    Returns:
        The derivatives.
    """
    frame = transverse_frame(axis)
    n_cells = int(np.diag(matrix).prod())
    n_sites = len(lattice.sites)
    directions = np.broadcast_to((lattice.signs[:, None] * axis)[:, None], (n_sites, n_cells, 3))
    gradient, products = _products(
        model, lattice.supercell(matrix, directions), [int(site) * n_cells for site in lattice.sites], frame
    )
    moving = gradient.reshape(-1, n_cells, 3)[lattice.sites]
    hessian = products.reshape(n_sites, 3, -1, n_cells, 3)[:, :, lattice.sites]
    # a change of length is along the moment itself
    scale = np.stack([lattice.lengths, lattice.lengths, lattice.signs * lattice.lengths], axis=1)
    blocks = np.einsum("aibnj,ai,bj->abnij", hessian @ frame.T, scale, scale)
    local = moving[:, 0] @ frame.T * lattice.lengths[:, None]
    for a in range(n_sites):
        blocks[a, a, 0, [0, 1], [0, 1]] -= local[a, 2] * lattice.signs[a]
        blocks[a, a, 0, :2, 2] += local[a, :2]
        blocks[a, a, 0, 2, :2] += local[a, :2]
    return SpinHessian(frame, matrix, blocks)


def _products(
    model: Potential, atoms: Atoms, moved: Sequence[int], frame: Float[np.ndarray, "3 3"]
) -> tuple[Float[np.ndarray, "n_atoms 3"], Float[np.ndarray, "n_moved 3 n_atoms 3"]]:
    """∂E/∂m in eV/μB, and ∂²E/∂m∂m in eV/μB² with the moments of some atoms along the vectors of a frame."""
    graph = graph_from_atoms(atoms, model.r_max, device=model.device, dtype=model.dtype)
    with torch.enable_grad():
        magmoms = graph.magmoms.detach().requires_grad_()
        energy = model(replace(graph, magmoms=magmoms))["energy"].sum()
        (gradient,) = torch.autograd.grad(energy, magmoms, create_graph=True)
        rows = []
        for atom in moved:
            for direction in torch.as_tensor(frame, dtype=magmoms.dtype, device=magmoms.device):
                (row,) = torch.autograd.grad(gradient[atom] @ direction, magmoms, retain_graph=True)
                rows.append(row.detach().double().cpu().numpy())
    return gradient.detach().double().cpu().numpy(), np.array(rows).reshape(len(moved), 3, -1, 3)


def relax_lengths(hessian: SpinHessian) -> SpinHessian:
    """Second derivatives by directions if the lengths follow: H_tt − H_tl H_ll⁻¹ H_lt, wave vector by wave vector.

    In a collinear order without spin–orbit coupling H_tl = 0 and nothing changes.

    Args:
        hessian: Derivatives by directions and lengths.

    Returns:
        The same with the lengths taken out; their own blocks are zero.
    """
    counts = tuple(np.diag(hessian.matrix).tolist())
    n = len(hessian.blocks)
    waves = np.fft.fftn(hessian.blocks.reshape(n, n, *counts, 3, 3), axes=(2, 3, 4))
    full: Complex[np.ndarray, "n_q n_sites 3 n_sites 3"] = waves.reshape(n, n, -1, 3, 3).transpose(
        2, 0, 3, 1, 4
    )
    n_q = len(full)
    turning = full[:, :, :2, :, :2].reshape(n_q, 2 * n, 2 * n)
    mixed = full[:, :, :2, :, 2].reshape(n_q, 2 * n, n)
    back = full[:, :, 2, :, :2].reshape(n_q, n, 2 * n)
    stretching = full[:, :, 2, :, 2]
    reduced = (turning - mixed @ np.linalg.solve(stretching, back)).reshape(n_q, n, 2, n, 2)
    lattice = np.fft.ifftn(reduced.transpose(1, 3, 0, 2, 4).reshape(n, n, *counts, 2, 2), axes=(2, 3, 4)).real
    blocks = np.zeros_like(hessian.blocks)
    blocks[..., :2, :2] = lattice.reshape(n, n, n_q, 2, 2)
    return SpinHessian(hessian.frame, hessian.matrix, blocks)


def exchange_from_hessians(
    hessians: Sequence[SpinHessian], pairs: Pairs, *, spin_orbit: bool
) -> Float[np.ndarray, "n_pairs 3 3"]:
    """J'_ij = −∂²E/∂e_i∂e_j of each pair, before any averaging over symmetry.

    Args:
        hessians: Of the order turned to one axis, or with spin–orbit coupling to x, y and z: each gives the components
            perpendicular to its axis.
        pairs: Pairs, each of which fits once into the supercell.
        spin_orbit: Whether moments know the lattice. If not, tensors are multiples of the unit matrix.

    Returns:
        Tensors in eV.
    """
    total, count = np.zeros((len(pairs), 3, 3)), np.zeros((3, 3))
    for hessian in hessians:
        cells = cell_numbers(pairs.shifts, hessian.matrix)
        local = -hessian.blocks[pairs.first, pairs.second, cells][:, :2, :2]
        if not spin_orbit:
            isotropic = 0.5 * np.trace(local, axis1=1, axis2=2)
            return isotropic[:, None, None] * np.eye(3)
        vectors = hessian.frame[:2]
        total += np.einsum("ia,pij,jb->pab", vectors, local, vectors)
        count += np.einsum("ia,jb->ab", np.abs(vectors), np.abs(vectors)) > 0.5
    return total / count


def sum_rule_error(hessian: SpinHessian, signs: Float[np.ndarray, " n_sites"]) -> float:
    """How far the energy is from unchanged when all moments turn together: Σ_j ∂²E/∂u_i∂u_j s_j = 0 without spin–orbit.

    Args:
        hessian: Derivatives.
        signs: Signs of the sites.

    Returns:
        Largest violation, in eV.
    """
    total = np.einsum("abnij,b->aij", hessian.blocks[..., :2, :2], signs)
    return float(np.abs(total).max())


def single_ion_anisotropy(
    hessian: SpinHessian, lattice: SpinLattice, pairs: Pairs, tensors: Float[np.ndarray, "n_pairs 3 3"]
) -> Float[np.ndarray, "n_sites 2 2"]:
    """What of the second derivatives of one site is not the field of the others: ∂²E/∂u∂u − Σ_c s_a s_c n·J'_ac·n.

    Args:
        hessian: Of the order turned to any axis n.
        lattice: The magnet.
        pairs: Pairs within the cutoff.
        tensors: Their J' in eV. Of those beyond the cutoff the components along the moments are not known; they count
            as isotropic.

    Returns:
        In the frame of the Hessian, in eV: 2K times the unit matrix for −K (e·n)².
    """
    n, axis, signs = len(lattice.sites), hessian.frame[2], lattice.signs
    rest = -0.5 * np.trace(hessian.blocks[..., :2, :2], axis1=-2, axis2=-1)
    rest[pairs.first, pairs.second, cell_numbers(pairs.shifts, hessian.matrix)] = 0.0
    rest[np.arange(n), np.arange(n), 0] = 0.0
    field = signs * (rest.sum(axis=2) @ signs)
    along = np.einsum("a,pab,b->p", axis, tensors, axis) * signs[pairs.first] * signs[pairs.second]
    field += np.bincount(pairs.first, weights=along, minlength=n)
    return hessian.blocks[np.arange(n), np.arange(n), 0, :2, :2] - field[:, None, None] * np.eye(2)


def anisotropy_tensors(
    frames: Sequence[Float[np.ndarray, "3 3"]],
    derivatives: Sequence[Float[np.ndarray, "n_sites 2 2"]],
    lattice: SpinLattice,
    *,
    symmetrize: bool = True,
) -> tuple[Float[np.ndarray, "n_sites 3 3"], float]:
    """Anisotropy Σ_i e_i·A_i·e_i of the sites from its second derivatives at several axes.

    A unit vector that turns by u ⊥ n is n + u − ½u²n, so that the derivatives are 2 (u·A·v − u·v n·A·n).

    Args:
        frames: Vectors u, v and the axis n as rows, one for each axis.
        derivatives: From `single_ion_anisotropy`, in eV.
        lattice: The magnet.
        symmetrize: Average over the symmetry of the crystal.

    Returns:
        Symmetric traceless tensors in eV, and the largest part of the derivatives that they do not give, in eV
        (anisotropy of higher order).
    """
    basis = np.zeros((5, 3, 3))
    for k, (i, j) in enumerate(((0, 1), (0, 2), (1, 2))):
        basis[k, i, j] = basis[k, j, i] = 1.0
    basis[3], basis[4] = np.diag([1.0, -1.0, 0.0]), np.diag([-1.0, -1.0, 2.0])
    design = []
    for frame in frames:
        local = np.einsum("ia,kab,jb->kij", frame, basis, frame)
        design.append(2 * (local[:, :2, :2] - local[:, 2, 2, None, None] * np.eye(2)))
    columns = np.stack(design, axis=1).reshape(5, -1).T
    known = np.stack(derivatives, axis=1).reshape(len(lattice.sites), -1).T
    tensors = np.einsum("kn,kab->nab", np.linalg.lstsq(columns, known, rcond=None)[0], basis)
    if symmetrize:
        site_of = {int(atom): k for k, atom in enumerate(lattice.sites)}
        moved = np.array([[site_of[int(atom)] for atom in row[lattice.sites]] for row in lattice.images])
        tensors = np.einsum("gba,gnbc,gcd->gnad", lattice.rotations, tensors[moved], lattice.rotations).mean(
            0
        )
    coefficients = np.einsum("nab,kab->kn", tensors, basis) / (basis**2).sum(axis=(1, 2))[:, None]
    return tensors, float(np.abs(columns @ coefficients - known).max())


def beyond(hessian: SpinHessian, pairs: Pairs) -> float:
    """The largest exchange in the supercell between sites that are no pair within the cutoff.

    Args:
        hessian: Derivatives.
        pairs: Pairs within the cutoff.

    Returns:
        Largest |J'|, in eV.
    """
    rest = np.abs(hessian.blocks[..., 0, 0])
    rest[pairs.first, pairs.second, cell_numbers(pairs.shifts, hessian.matrix)] = 0.0
    rest[np.arange(len(rest)), np.arange(len(rest)), 0] = 0.0
    return float(rest.max())
