"""How uncertain a model is about the systems of a batch, from the forces that it has given already."""

from typing import Any

from torch import Tensor
from torch_sim.models.interface import ModelInterface

from mmace_sim.base.hosts import ts
from mmace_sim.base.quantities import TORCHSIM_MAGFORCES, UNCERTAINTIES
from mmace_sim.errors import UncalibratedModelError, UnsupportedOptionError
from mmace_sim.model.error_sizes import max_of_systems
from mmace_sim.model.uncertainty import require_uncertainty
from mmace_sim.torchsim.model import MagneticMaceModel


class Doubt:
    """Asks a calibrated model about states, at a few hundredths of the cost of an evaluation.

    Args:
        model: TorchSim model.
        limit: Uncertainty of a component of a force, in eV/Å, beyond which a system is doubtful; None: there is none.

    Raises:
        UncalibratedModelError: If there is a limit and the model does not tell what it does not know.
        UnsupportedOptionError: If there is a limit and the model is none of ours.
    """

    def __init__(self, model: ModelInterface, limit: float | None = None) -> None:
        self.limit = limit
        self.uncertainty = None
        self._model: Any = model
        if isinstance(model, MagneticMaceModel):
            self.uncertainty = getattr(model.model, "uncertainty", None)
            if limit is not None:
                self.uncertainty = require_uncertainty(model.model)
                if "forces" not in self.uncertainty.facts.known:
                    raise UncalibratedModelError(
                        "max_uncertainty: the data that the model was calibrated with had no forces. Leave it out."
                    )
        elif limit is not None:
            raise UnsupportedOptionError(
                f"max_uncertainty: {type(model).__name__} does not tell what it does not know. Leave it out."
            )

    def measure(self, state: ts.SimState) -> tuple[Tensor, Tensor] | None:
        """Uncertainty of the least certain force of each system, and its distance from the data.

        Args:
            state: State with forces and magforces of the model.

        Returns:
            In eV/Å, and in units of the domain (`mmace_sim.model.uncertainty`); None if the model cannot tell.
        """
        if self.uncertainty is None:
            return None
        model = self._model.model
        output = {"forces": state.forces, "magforces": getattr(state, TORCHSIM_MAGFORCES)}
        found = self.uncertainty.estimate(
            self._model.graph(state), output, model.r_max, spin_orbit=getattr(model, "spin_orbit", True)
        )
        forces = max_of_systems(found[UNCERTAINTIES["forces"]], state.system_idx, state.n_systems)
        return forces, found["distance"]

    def doubtful(self, state: ts.SimState) -> list[float | None]:
        """The uncertainty of each system that is beyond the limit, in eV/Å; None for the others.

        Args:
            state: State with forces and magforces of the model.
        """
        measured = None if self.limit is None else self.measure(state)
        if measured is None or self.limit is None:
            return [None] * state.n_systems
        return [size if size > self.limit else None for size in measured[0].tolist()]


def doubt_message(size: float, limit: float, step: int) -> str:
    """What to say of a system that was stopped.

    Args:
        size: Its uncertainty, in eV/Å.
        limit: The largest that was asked for.
        step: When it was stopped.
    """
    return (
        f"stopped at step {step}: the model knows a force to ±{size:.3g} eV/Å only, --max-uncertainty is {limit:g}. "
        "The structure is in candidates.extxyz: compute it (mmace-sim label) and train on it, or allow more."
    )
