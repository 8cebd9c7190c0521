"""States that solvers make at every step, without the checks that TorchSim makes of those that users give.

The checks read the indices of systems several times; a GPU would wait for each.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch_sim.state import SimState

from mmace_sim.base.quantities import TORCHSIM_MAGMOMS


class CountedState(SimState):
    """A state that knows the number of its systems from the shape of its cells."""

    @property
    def n_systems(self) -> int:
        """Number of systems."""
        return self.cell.shape[0]

    @property
    def n_atoms_per_system(self) -> Int[Tensor, " n_systems"]:
        """Number of atoms of each system."""
        return count_atoms(self)


def count_atoms(state: SimState) -> Int[Tensor, " n_systems"]:
    """Number of atoms of each system, without asking the host as TorchSim's own count does."""
    ones = torch.ones_like(state.system_idx)
    zeros = torch.zeros(state.cell.shape[0], dtype=ones.dtype, device=ones.device)
    return zeros.index_add(0, state.system_idx, ones)


def next_state[State: SimState](state: State) -> State:
    """A state for the next step: the same tensors, so that what is assigned to it leaves the given one as it is."""
    extras = {name: dict(getattr(state, name)) for name in ("_atom_extras", "_system_extras")}
    return _made(type(state), **{**state.__dict__, **extras})


def trial_state(
    state: SimState,
    magmoms: Float[Tensor, "n_atoms 3"],
    *,
    positions: Float[Tensor, "n_atoms 3"] | None = None,
    cell: Float[Tensor, "n_systems 3 3"] | None = None,
    bare: bool = False,
) -> CountedState:
    """A plain state of the same atoms elsewhere, without constraints and momenta.

    Args:
        state: Any state.
        magmoms: Moments, in μB.
        positions: In Å; by default those of the state.
        cell: Cell vectors as columns, in Å; by default those of the state.
        bare: Leave out all extras but the moments.
    """
    extras = {} if bare else state.atom_extras
    return _made(
        CountedState,
        positions=state.positions if positions is None else positions,
        masses=state.masses,
        cell=state.cell if cell is None else cell,
        pbc=state.pbc,
        atomic_numbers=state.atomic_numbers,
        system_idx=state.system_idx,
        _constraints=[],
        _system_extras={} if bare else dict(state.system_extras),
        _atom_extras={**extras, TORCHSIM_MAGMOMS: magmoms},
        _rng=None,
    )


def solver_state[State: SimState](kind: type[State], plain: CountedState, **fields: Any) -> State:
    """The state of a solver, made of a plain one.

    Args:
        kind: Its class.
        plain: From `trial_state`.
        **fields: What the solver has beside.
    """
    return _made(kind, **plain.__dict__, **fields)


def _made[State: SimState](kind: type[State], **values: Any) -> State:
    made = kind.__new__(kind)
    made.__dict__.update(values)  # no assignment: TorchSim checks each
    return made


def small_exponential(matrices: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 3 3"]:
    """Matrix exponentials of strains by Taylor's series of the sixteenth part, squared four times.

    torch.matrix_exp asks the host how large each matrix is.

    Args:
        matrices: Of norm 3 at most.

    Returns:
        Their exponentials, to rounding.
    """
    scaled = matrices / 16.0
    one = torch.eye(3, dtype=matrices.dtype, device=matrices.device)
    result = one.expand_as(matrices)
    for k in range(12, 0, -1):  # Horner: 1 + A (1 + A/2 (1 + A/3 …))
        result = one + scaled @ result / k
    for _ in range(4):
        result = result @ result
    return result
