"""A batch that structures enter and leave one by one, and that survives the failure of any; results in any order."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from ase import Atoms

from mmace_sim.base.hosts import ts
from mmace_sim.errors import StructureError
from mmace_sim.structures.checks import check_structure
from mmace_sim.structures.moment_range import check_moment_range
from mmace_sim.torchsim.memory import is_out_of_memory, memory_scaler
from mmace_sim.torchsim.state import join_states

logger = logging.getLogger(__name__)


class Outcomes[Result]:
    """Results of structures that finish in any order: call it with the index and the result of each.

    Args:
        n_structures: How many there are.
        on_finished: Told of each as soon as it is there.

    Attributes:
        results: Result of each structure; None where there is none yet.
        n_finished: How many there are.
    """

    def __init__(self, n_structures: int, on_finished: Callable[[int, Result], None] | None = None) -> None:
        self.results: list[Result | None] = [None] * n_structures
        self.n_finished = 0
        self._on_finished = on_finished

    def __call__(self, index: int, result: Result) -> None:
        """Store a result."""
        self.n_finished += self.results[index] is None
        self.results[index] = result
        if self._on_finished is not None:
            self._on_finished(index, result)

    def in_order(self) -> list[Result]:
        """The results in the order of the structures."""
        return [result for result in self.results if result is not None]


class RefillingBatch[State: ts.SimState]:
    """Keeps as many systems under way as fit, in one TorchSim state.

    An exception in a batch (no memory, a system that the model cannot take) halves the batch until the culprit is
    alone; only that one fails.

    Args:
        indices: The structures to run.
        start: Makes the plain state of a structure.
        init: Makes the solver's state of a plain one.
        step: Advances a solver's state; must leave it untouched if it raises.
        fail: Told the index of a structure that raised, and the error.
        max_scaler: Largest Σ n_atoms × density of a batch, in atoms²/nm³.
        max_atoms: Largest number of atoms of a batch.
        check: Raises for the plain state of a structure that cannot be run even alone.
    """

    def __init__(
        self,
        indices: Iterable[int],
        start: Callable[[int], ts.SimState],
        *,
        init: Callable[[ts.SimState], State],
        step: Callable[[State], State],
        fail: Callable[[int, Exception], None],
        max_scaler: float = float("inf"),
        max_atoms: int | None = None,
        check: Callable[[ts.SimState], None] = lambda _: None,
    ) -> None:
        self._waiting = deque(indices)
        self._parked: deque[tuple[list[int], State]] = deque()
        # the one that did not fit, so that it is not made at every step
        self._next: dict[int, ts.SimState] = {}
        # whether nothing more fits until one leaves, so that sizes are not read at every step
        self._full = False
        self._start, self._init, self._step, self._fail = start, init, step, fail
        self._check = check
        self._max_scaler, self._max_atoms = max_scaler, max_atoms or float("inf")
        self.state: State | None = None
        self.indices: list[int] = []

    @property
    def n_active(self) -> int:
        """Number of systems under way."""
        return len(self.indices)

    def refill(self) -> bool:
        """Add systems while they fit; False when nothing is left."""
        while True:
            if not self.indices and self._parked:
                self.indices, self.state = self._parked.popleft()
            if self._waiting and not self._parked and not (self._full and self.indices):
                self._admit()
            if self.indices:
                return True
            if not (self._waiting or self._parked):
                return False

    def under_way(self) -> list[tuple[list[int], State]]:
        """All that was started and is not finished: indices and solver's states of batches."""
        current = [] if self.state is None else [(self.indices, self.state)]
        return [*current, *self._parked]

    def go_on_with(self, find: Callable[..., Iterable[tuple[list[int], State]]]) -> None:
        """Take over what another batch had `under_way`, before anything else is started.

        Args:
            find: Gives indices and solver's states of it, from the indices of all structures, `start` and `init`.
        """
        self._parked.extend(find(list(self._waiting), self._start, self._init))
        started = {index for indices, _ in self._parked for index in indices}
        self._waiting = deque(index for index in self._waiting if index not in started)

    def _admit(self) -> None:
        """Start waiting systems while they fit; at least one is started, or fails."""
        plain, new = [], []
        scaler = memory_scaler(self.state) if self.state is not None else 0.0
        n_atoms = self.state.n_atoms if self.state is not None else 0
        while self._waiting:
            index = self._waiting[0]
            held = self._next.pop(index, None)
            candidate, error = (held, None) if held is not None else _attempt(self._checked_start, index)
            if candidate is None:  # one structure must not stop the others
                self._fail(self._waiting.popleft(), error)
                continue
            scaler += memory_scaler(candidate)
            n_atoms += candidate.n_atoms
            if (self.indices or new) and (scaler > self._max_scaler or n_atoms > self._max_atoms):
                self._next, self._full = {index: candidate}, True
                break
            new.append(self._waiting.popleft())
            plain.append(candidate)
        for indices, state in self._initialized(new, plain):
            joined, error = (
                (state, None) if self.state is None else _attempt(ts.concatenate_states, [self.state, state])
            )
            if error is None:
                self.state = joined
                self.indices += indices
            else:  # they do not go together: one after the other
                self._parked.append((indices, state))

    def _checked_start(self, index: int) -> ts.SimState:
        state = self._start(index)
        self._check(state)
        return state

    def pop(self, positions: list[int]) -> Iterator[tuple[int, int, State]]:
        """Take finished systems out: their positions in the batch, indices and states."""
        if not positions or self.state is None:
            return
        taken, out = [self.indices[k] for k in positions], set(positions)
        keep = [k for k in range(len(self.indices)) if k not in out]
        self._full = False
        states = self.state[positions].split()
        self.state = self.state[keep] if keep else None
        self.indices = [self.indices[k] for k in keep]
        yield from zip(positions, taken, states, strict=True)

    def advance(self) -> None:
        """One step of all systems under way."""
        if self.state is None:
            return
        state, error = _attempt(self._step, self.state)
        if error is None:
            self.state = state
        else:
            self._halve(error)

    def _halve(self, error: Exception) -> None:
        """Go on with half of the batch and keep the rest for later."""
        logger.warning(
            "a batch of %d structures raised %s: %s", len(self.indices), type(error).__name__, error
        )
        self._after(error, memory_scaler(self.state))
        self._full = False
        if len(self.indices) == 1:
            self._fail(self.indices[0], error)
            self.indices, self.state = [], None
            return
        half = len(self.indices) // 2
        rest = list(range(half, len(self.indices)))
        self._parked.append((self.indices[half:], self.state[rest]))
        self.indices, self.state = self.indices[:half], self.state[list(range(half))]

    def _initialized(self, indices: list[int], plain: list[ts.SimState]) -> Iterator[tuple[list[int], State]]:
        """Solver states of new systems, halving where that raises."""
        left = [(indices, plain)] if indices else []
        while left:
            indices, plain = left.pop()
            state, error = _attempt(lambda states: self._init(join_states(states)), plain)
            if error is None:
                yield indices, state
                continue
            self._after(error, sum(map(memory_scaler, plain)))
            if len(indices) == 1:
                self._fail(indices[0], error)
                continue
            half = len(indices) // 2
            left += [(indices[half:], plain[half:]), (indices[:half], plain[:half])]

    def _after(self, error: Exception, scaler: float) -> None:
        """Take smaller batches from now on if the memory did not suffice for one of this size."""
        if is_out_of_memory(error):
            self._max_scaler = min(self._max_scaler, 0.5 * scaler)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def failure_message(error: Exception) -> str:
    """What to say of a structure that raised.

    Args:
        error: What it raised.

    Returns:
        What is wrong, and what to do where that is known.
    """
    if isinstance(error, StructureError):
        return str(error)
    if is_out_of_memory(error):
        return (
            f"the memory does not suffice for this structure alone ({error}). "
            "Take a smaller cell, --dtype float32, or a machine with more memory."
        )
    return f"the model failed: {type(error).__name__}: {error}"


def _attempt[Argument, Result](
    function: Callable[[Argument], Result], argument: Argument
) -> tuple[Result | None, Exception | None]:
    """What a function returns, or what it raised, without the frames that keep the tensors of the attempt alive."""
    try:
        return function(argument), None
    except Exception as error:
        failure: Exception = error
    link: BaseException | None = failure
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return None, failure


def usable_groups(
    images: Sequence[Atoms],
    model: Any,
    refuse: Callable[[int, str], None],
    check: Callable[[Atoms], None] = lambda _: None,
) -> list[list[int]]:
    """Indices of usable structures, grouped by periodicity (a TorchSim batch has only one).

    Args:
        images: Structures.
        model: TorchSim model.
        refuse: Told the index of a structure that cannot be used, and why.
        check: Raises `StructureError` for what else cannot be used.
    """
    groups: dict[tuple[bool, ...], list[int]] = {}
    elements = getattr(getattr(model, "model", None), "elements", None)
    for index, atoms in enumerate(images):
        try:
            check_structure(atoms, elements)
            check_moment_range(atoms, model)
            check(atoms)
        except StructureError as error:
            refuse(index, str(error))
        else:
            groups.setdefault(tuple(bool(p) for p in atoms.pbc), []).append(index)
    return list(groups.values())


def run_groups[Result](
    run: Callable[..., Any],
    groups: Sequence[Sequence[Any]],
    on_finished: Callable[[int, list[Result]], None],
    on_member: Callable[[int], None] | None = None,
    on_each: Callable[[int, int, Result], None] | None = None,
) -> None:
    """Compute groups of structures, all in one batch.

    Args:
        run: Computes a list of structures; tells `on_finished` the index and the result of each.
        groups: Structures of each group; a group may be empty.
        on_finished: Called with the number and the results of a group as soon as all of it is there.
        on_member: Called with 1 after each member of a group.
        on_each: Called with the number of a group, that of a member within it, and the member's result.
    """
    places = [(g, k) for g, group in enumerate(groups) for k in range(len(group))]
    results: list[list[Any]] = [[None] * len(group) for group in groups]
    left = [len(group) for group in groups]
    for number, group in enumerate(groups):
        if not group:
            on_finished(number, [])

    def store(index: int, result: Result) -> None:
        group, k = places[index]
        results[group][k] = result
        left[group] -= 1
        if on_member is not None:
            on_member(1)
        if on_each is not None:
            on_each(group, k, result)
        if not left[group]:
            on_finished(group, results[group])
            results[group] = []

    if places:
        run([structure for group in groups for structure in group], on_finished=store)
