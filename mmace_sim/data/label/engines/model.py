"""A magnetic model as the engine: exact by definition, for distillation and to try a loop without DFT."""

from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms

from mmace_sim.data.label.calculation import Calculation, Mode
from mmace_sim.data.label.engine import MODEL, EngineError, Labels
from mmace_sim.data.label.settings import LabelSettings
from mmace_sim.engine.inputs import load_run_model
from mmace_sim.engine.settings import ModelSettings
from mmace_sim.errors import StructureError
from mmace_sim.graph.atoms import set_magmoms
from mmace_sim.properties.singlepoint import PointResult, SinglePoint
from mmace_sim.structures.checks import check_geometry
from mmace_sim.structures.moment_range import check_moment_range


class ModelEngine:
    """Labels by a model, in one batch.

    Where any moment is held, all are: the labels are exact derivatives at the moments of the candidate. Where none is,
    they relax.
    """

    moment_kind = "as in the data of the model"
    energy_kind = "energy of the model"
    moment_tol = 1e-6

    def __init__(self, settings: LabelSettings) -> None:
        self.name = settings.engine
        self._file = settings.engine.removeprefix(MODEL)
        self.model = load_run_model(ModelSettings(model=self._file, device=settings.device))

    def refuse(self, calculation: Calculation) -> str:
        """Why the model cannot compute this; "" if it can."""
        atoms = _with_moments(calculation)
        try:
            check_geometry(atoms, self.model.elements)
            check_moment_range(atoms, self.model)
        except StructureError as error:
            return str(error)
        return ""

    def compute(
        self,
        calculations: Sequence[Calculation],
        store: Callable[[Calculation, Labels | EngineError], None],
    ) -> None:
        """Compute all, those with free moments last."""
        free = [c for c in calculations if c.mode is not Mode.NONMAGNETIC and not c.held.any()]
        fixed = [c for c in calculations if not any(c is other for other in free)]
        for members, magmoms in ((fixed, "fixed"), (free, "relaxed")):
            if members:
                self._compute(members, magmoms, store)

    def _compute(
        self,
        members: Sequence[Calculation],
        magmoms: str,
        store: Callable[[Calculation, Labels | EngineError], None],
    ) -> None:
        point = SinglePoint(self.model, magmoms=magmoms, device=self.model.device, dtype=self.model.dtype)

        def finished(index: int, result: PointResult) -> None:
            store(members[index], self._labels(result))

        point.run([_with_moments(c) for c in members], on_finished=finished)

    def _labels(self, result: PointResult) -> Labels | EngineError:
        if result.message or result.magmoms is None:
            return EngineError(f"{result.status}: {result.message}")
        info = {"engine": "mmace-sim model", "model": self._file}
        stress = None if result.stress is None else np.asarray(result.stress)
        return Labels(result.energy, result.magmoms, result.forces, stress, result.magforces, info)


def _with_moments(calculation: Calculation) -> Atoms:
    atoms = calculation.atoms.copy()
    set_magmoms(atoms, calculation.magmoms)
    return atoms
