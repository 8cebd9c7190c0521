"""What the classes behind the properties have in common: settings in the constructor, structures in the call."""

from collections.abc import Callable
from typing import Any, ClassVar, override

import torch
from ase import Atoms

from mmace_sim.base.settings import Settings
from mmace_sim.engine.batching import Outcomes
from mmace_sim.engine.computation import Advance, Computation, Part, Store
from mmace_sim.engine.kept import Kept
from mmace_sim.properties.relax.relaxation import ModelLike, as_atoms
from mmace_sim.torchsim.state import StructuresLike


class Workflow[S: Settings]:
    """Computes a property of many structures in batches: settings here, structures in ``run``.

    Args:
        model: Model, its name or path, or any TorchSim model that gives magforces.
        settings: All settings; or give them one by one.
        device: Where to run.
        dtype: Floating-point type.
        max_batch_atoms: Largest number of atoms in one batch; by default estimated from the memory.
        **keywords: Fields of the settings.

    Attributes:
        kind: Class of the settings.

    Raises:
        ConfigError: If a setting is unknown or impossible.
    """

    kind: type[S]
    settings: S

    def __init__(
        self,
        model: Any = "default",  # `ModelLike`, or whatever else `set_up` takes
        settings: S | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        max_batch_atoms: int | None = None,
        **keywords: Any,
    ) -> None:
        self.settings = settings or self.kind.of(keywords, type(self).__name__)
        self.set_up(model, device=device, dtype=dtype, max_batch_atoms=max_batch_atoms)

    def set_up(self, model: ModelLike, **where: Any) -> None:
        """Make what computes.

        Args:
            model: The model.
            **where: `device`, `dtype` and `max_batch_atoms` for whatever loads the model.
        """
        raise NotImplementedError


class BatchWorkflow[S: Settings, R](Workflow[S]):
    """A workflow that has one result for each structure."""

    def run(
        self,
        structures: StructuresLike,
        *,
        kept: Kept[Any] | None = None,
        on_finished: Callable[[int, R], None] | None = None,
        on_point: Advance | None = None,
    ) -> list[R]:
        """Compute structures in one batch; one that fails does not stop the others.

        Args:
            structures: ASE, pymatgen or phonopy structures, or names of files, one or many, each with moments.
            kept: What is relaxed already on the way to the results, where there is such a thing; takes what follows.
            on_finished: Called with the index and the result of each structure as soon as it is finished.
            on_point: Called with 1 after each point, where results are made of points; also with their number
                (``total=``) if only the structures tell it, and with what else is under way (``detail=``).

        Returns:
            One result for each structure, in the same order.
        """
        images = as_atoms(structures)
        finish = Outcomes(len(images), on_finished)
        self._compute(images, finish, kept or Kept(), on_point or (lambda *_, **__: None))
        return finish.in_order()

    def _compute(self, images: list[Atoms], finish: Outcomes[R], kept: Kept[Any], on_point: Advance) -> None:
        """Compute structures, and tell `finish` the index and the result of each; the rest is as in `run`."""
        raise NotImplementedError


class WorkflowComputation[R](Computation[Any, R]):
    """What a workflow computes, for the structures of a run.

    Attributes:
        workflow: Class of the workflow.
        keeps: Name and class of what it keeps on the way to its results; None: nothing.
    """

    workflow: ClassVar[type[BatchWorkflow]]
    keeps: ClassVar[tuple[str, type] | None] = None

    _n_points = 0  # of the structures of all models up to now

    @override
    def compute(self, part: Part, store: Store[R], advance: Advance) -> None:
        before = self._n_points

        def count(n: int, *, total: int | None = None, detail: str | None = None) -> None:
            if total is not None:
                self._n_points = total = before + total
            advance(n, total=total, detail=detail)

        workflow = self.workflow(part.model, self.settings, max_batch_atoms=self.settings.max_batch_atoms)
        images = [item.atoms for item in part.pending]
        keeping: Kept[Any] = Kept.of(part, *self.keeps) if self.keeps else Kept()
        with keeping as kept:
            workflow.run(images, kept=kept, on_finished=store, on_point=count)
