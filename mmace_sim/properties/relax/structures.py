"""`mmace_sim.relax`: structures relaxed in one call, by one model or each by the model for its elements."""

from collections.abc import Callable
from typing import Any

from mmace_sim.engine.batching import Outcomes
from mmace_sim.engine.checkpoint import BatchCheckpoint
from mmace_sim.engine.outcomes import RelaxProgress, RelaxResult, Status, StructureResult
from mmace_sim.properties.relax.relaxation import ModelLike, Relaxation
from mmace_sim.structures.model_choice import AUTO, group_by_model
from mmace_sim.torchsim.state import StructuresLike, as_atoms


def relax(
    structures: StructuresLike,
    model: ModelLike = "default",
    *,
    on_finished: Callable[[int, StructureResult], None] | None = None,
    on_step: Callable[[RelaxProgress], None] | None = None,
    checkpoint: BatchCheckpoint | None = None,
    **settings: Any,
) -> RelaxResult:
    """Relax positions, cell and magnetic moments of many structures in one batch.

    Args:
        structures: ASE, pymatgen or phonopy structures, or names of files, one or many, each with moments.
        model: Model, its name or path, or any TorchSim model that gives magforces; "auto": for each structure the
            default model or the installed one that knows its elements, see `mmace_sim.structures.model_choice`.
        on_finished: Called with the index and the result of each structure as soon as it is finished.
        on_step: Called after every step.
        checkpoint: Keeps what is under way, so that a killed run can go on with it; for one model.
        **settings: Fields of :class:`~mmace_sim.properties.relax.declaration.RelaxSettings` (`relax_cell`, `magmoms`,
            `force_tol`, `stress_tol`, …), and `device`, `dtype` and `max_batch_atoms` of :class:`Relaxation`.

    Returns:
        One :class:`StructureResult` for each structure, in the same order. Look at its `status`.
    """
    if model != AUTO:
        return Relaxation(model, **settings).run(
            structures, on_finished=on_finished, on_step=on_step, checkpoint=checkpoint
        )
    images = as_atoms(structures)
    finish = Outcomes(len(images), on_finished)
    groups, unknown = group_by_model(images)
    for index, error in unknown.items():
        finish(index, StructureResult(images[index], images[index], Status.FAILED, str(error)))
    for name, indices in groups.items():

        def store(k: int, result: StructureResult, indices: list[int] = indices) -> None:
            finish(indices[k], result)

        group = [images[index] for index in indices]
        Relaxation(name, **settings).run(group, on_finished=store, on_step=on_step)
    return RelaxResult(finish.in_order())
