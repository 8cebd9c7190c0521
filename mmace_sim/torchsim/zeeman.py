"""Moments in an applied magnetic field."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from mmace_sim.base.quantities import TORCHSIM_MAGFORCES, TORCHSIM_MAGMOMS
from mmace_sim.errors import UnsupportedOptionError
from mmace_sim.units import BOHR_MAGNETON_EV_PER_T


class ZeemanModel(ModelInterface):
    """A model in a uniform field: E − μB B·Σ_i m_i, magforces + μB B, with m in μB and B in tesla.

    Positive m along B lowers the energy: moments, not spins, align with the field. The field is fixed in space and acts
    on the moments only. 1 meV/μB is 17.3 T.

    Args:
        model: A model that gives magforces.
        field: B in tesla, three components.

    Raises:
        UnsupportedOptionError: If the field is not three finite numbers.
    """

    def __init__(self, model: ModelInterface, field: Sequence[float] | np.ndarray) -> None:
        super().__init__()
        tesla = torch.as_tensor(np.asarray(field, dtype=float))
        if tesla.shape != (3,) or not bool(torch.isfinite(tesla).all()):
            raise UnsupportedOptionError(f"field = {field}, expected three finite components in tesla.")
        self.model = model
        self._device, self._dtype = model.device, model.dtype
        self._compute_forces, self._compute_stress = model.compute_forces, model.compute_stress
        self._memory_scales_with = model.memory_scales_with
        self._field: Float[Tensor, " 3"] = (BOHR_MAGNETON_EV_PER_T * tesla).to(model.device)

    def forward(self, state: SimState, **how: object) -> dict[str, Tensor]:
        """Outputs of the model with the energy of the moments in the field, forces and stress unchanged."""
        out = dict(self.model(state, **how))
        magmoms = getattr(state, TORCHSIM_MAGMOMS)
        along = magmoms.to(out["energy"].dtype) @ self._field.to(out["energy"].dtype)
        out["energy"] = out["energy"].index_add(0, state.system_idx, -along)
        if TORCHSIM_MAGFORCES in out:
            out[TORCHSIM_MAGFORCES] = out[TORCHSIM_MAGFORCES] + self._field.to(magmoms.dtype)
        return out
