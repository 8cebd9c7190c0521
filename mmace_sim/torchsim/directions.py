"""A TorchSim constraint for atoms that may move in some directions only: T T F of a POSCAR, planes and lines."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch_sim.constraints import AtomConstraint, Constraint
from torch_sim.state import SimState


class FixDirections(AtomConstraint):
    """Atoms that keep some of their coordinates.

    What is left of a displacement or force is its projection on the directions that are free. Fractional coordinates
    are kept along lattice vectors (selective dynamics: with T T F an atom moves in the plane of a and b), so that an
    atom follows its cell when that changes, as in VASP; Cartesian directions stay where they are.

    Args:
        atom_idx: Atoms.
        free_axes: True for each fractional coordinate that may change.
        allowed: Projector on the Cartesian directions that are free; not used for atoms with a False in `free_axes`.
    """

    def __init__(
        self,
        atom_idx: Int[Tensor, " n"],
        free_axes: Bool[Tensor, "n 3"],
        allowed: Float[Tensor, "n 3 3"],
    ) -> None:
        super().__init__(atom_idx=atom_idx)
        self.free_axes, self.allowed = free_axes, allowed

    @property
    def follows_cell(self) -> Bool[Tensor, " n"]:
        """Which of the atoms keep fractional coordinates."""
        return ~self.free_axes.all(dim=1)

    def projectors(self, state: SimState) -> Float[Tensor, "n 3 3"]:
        """Projectors on what is free, in the cells of a state."""
        vectors = state.cell[state.system_idx[self.atom_idx]] * self.free_axes[:, None, :]  # columns
        along_lattice = vectors @ torch.linalg.pinv(vectors)
        return torch.where(self.follows_cell[:, None, None], along_lattice, self.allowed.to(vectors.dtype))

    def adjust_forces(self, state: SimState, forces: Tensor) -> None:
        """Leave of forces, in place, what acts along free directions."""
        forces[self.atom_idx] = torch.einsum("nij,nj->ni", self.projectors(state), forces[self.atom_idx])

    def adjust_positions(self, state: SimState, new_positions: Tensor) -> None:
        """Leave of a displacement, in place, what goes along free directions."""
        moved = new_positions[self.atom_idx] - state.positions[self.atom_idx]
        new_positions[self.atom_idx] = state.positions[self.atom_idx] + torch.einsum(
            "nij,nj->ni", self.projectors(state), moved
        )

    def get_removed_dof(self, state: SimState) -> Tensor:
        """Number of coordinates that each system cannot change."""
        rank = torch.diagonal(self.projectors(state), dim1=1, dim2=2).sum(dim=1).round().long()
        removed = torch.zeros(state.n_systems, dtype=torch.long, device=rank.device)
        return removed.index_add(0, state.system_idx[self.atom_idx], 3 - rank)

    def select_constraint(self, atom_mask: Tensor, system_mask: Tensor) -> "FixDirections | None":  # noqa: ARG002
        """The constraint of the atoms that stay."""
        chosen = atom_mask[self.atom_idx]
        places = torch.cumsum(atom_mask, dim=0) - 1
        return self._part(chosen, places[self.atom_idx[chosen]])

    def select_sub_constraint(self, atom_idx: Tensor, sys_idx: int) -> "FixDirections | None":  # noqa: ARG002
        """The constraint of one system."""
        chosen = torch.isin(self.atom_idx, atom_idx)
        return self._part(chosen, self.atom_idx[chosen] - atom_idx.min())

    def _part(self, chosen: Tensor, atom_idx: Tensor) -> "FixDirections | None":
        if len(atom_idx) == 0:
            return None
        return type(self)(atom_idx, self.free_axes[chosen], self.allowed[chosen])

    def reindex(self, atom_offset: int, system_offset: int) -> "FixDirections":  # noqa: ARG002
        """The constraint of atoms that are counted from elsewhere."""
        return type(self)(self.atom_idx + atom_offset, self.free_axes, self.allowed)

    @classmethod
    def merge(cls, constraints: list[Constraint]) -> "FixDirections":
        """One constraint of several."""
        mine = [constraint for constraint in constraints if isinstance(constraint, cls)]
        return cls(
            torch.cat([one.atom_idx for one in mine]),
            torch.cat([one.free_axes for one in mine]),
            torch.cat([one.allowed for one in mine]),
        )

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> "FixDirections":
        """A copy on another device or in another precision."""
        return type(self)(
            self.atom_idx.to(device=device), self.free_axes.to(device=device), self.allowed.to(device, dtype)
        )
