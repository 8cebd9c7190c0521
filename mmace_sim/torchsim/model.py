"""Magnetic models behind TorchSim's model interface."""

import copy
import warnings
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from mmace_sim.base.quantities import TORCHSIM_MAGMOMS, UNCERTAINTIES
from mmace_sim.errors import MissingMomentsError, PhysicsWarning
from mmace_sim.graph.batch import MagneticGraph, build_graph
from mmace_sim.model.checkpoint import load_model
from mmace_sim.model.derivatives import check_elements, evaluate
from mmace_sim.model.interface import Potential
from mmace_sim.model.moment_limits import beyond_limits, moment_beyond
from mmace_sim.model.uncertainty import STRUCTURE_TARGETS, require_uncertainty


class MagneticMaceModel(ModelInterface):
    """A magnetic model for TorchSim: moments in the state, magforces among the outputs.

    Reads the moments from the atom extra "magnetic_moments" and gives, besides TorchSim's "energy" (float64),
    "forces" and "stress", "magforces" = −∂E/∂m in eV/μB. It never changes moments: an optimiser does
    (:mod:`mmace_sim.torchsim.fire`), or :class:`~mmace_sim.torchsim.adiabatic.AdiabaticModel`.

    Args:
        model: An energy model such as :class:`~mmace_sim.model.magnetic_mace.MagneticMACE` or
            ``mmace_sim.testing.HeisenbergModel``, or the name or path of a model file.
        device: Where to run; by default where the model is, or the CPU for names and paths.
        dtype: Floating-point type; by default the model's, or float64 for names and paths.
        compute_forces: Whether to compute forces.
        compute_stress: Whether to compute stresses.
        uncertainty: Whether to give what the model does not know too, for each atom: the entries of
            `mmace_sim.base.quantities.UNCERTAINTIES` (those of structures stand at each of their atoms) and
            "atom_distance" (see `mmace_sim.model.uncertainty`).

    Raises:
        UncalibratedModelError: If the model cannot tell.
    """

    def __init__(
        self,
        model: Potential | str | Path = "default",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        compute_forces: bool = True,
        compute_stress: bool = True,
        uncertainty: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(model, str | Path):
            model = load_model(model, device=device or "cpu", dtype=dtype or torch.float64)
        if (dtype or model.dtype, torch.device(device or model.device)) != (model.dtype, model.device):
            model = copy.deepcopy(model).to(device=device or model.device, dtype=dtype or model.dtype)
        self.model: Potential = model
        self._device = self.model.device
        self._dtype = self.model.dtype
        self._compute_forces = compute_forces
        self._compute_stress = compute_stress
        self._memory_scales_with = "n_atoms_x_density"
        self._uncertainty = require_uncertainty(self.model) if uncertainty else None
        self._last_graph: MagneticGraph | None = None
        self._last_pbc: Tensor | None = None

    @ModelInterface.compute_forces.setter  # type: ignore[attr-defined] # an abstract property
    def compute_forces(self, value: bool) -> None:
        """Switch forces on or off."""
        self._compute_forces = value

    @ModelInterface.compute_stress.setter  # type: ignore[attr-defined]
    def compute_stress(self, value: bool) -> None:
        """Switch stresses on or off."""
        self._compute_stress = value

    def forward(self, state: SimState, **_kwargs: object) -> dict[str, Tensor]:
        """Energy, forces, stress and magforces of a state with moments.

        Args:
            state: State whose atom extra "magnetic_moments" has shape (n_atoms, 3), in μB.

        Raises:
            MissingMomentsError: If the state carries no moments.
            UnsupportedElementError: If it holds an element that the model was not made for.
        """
        graph = self.graph(state)
        output = evaluate(
            self.model,
            graph,
            compute_forces=self._compute_forces or self._uncertainty is not None,
            compute_stress=self._compute_stress,
        )
        self._give_up_beyond(graph, output)
        return output | self._estimates(graph, output)

    def _estimates(self, graph: MagneticGraph, output: dict[str, Tensor]) -> dict[str, Tensor]:
        """Uncertainties, all of them for each atom: TorchSim cannot tell values of systems from those of atoms."""
        if self._uncertainty is None:
            return {}
        spin_orbit = getattr(self.model, "spin_orbit", True)
        found = self._uncertainty.estimate(graph, output, self.model.r_max, spin_orbit=spin_orbit)
        del found["distance"]
        for target in STRUCTURE_TARGETS:
            found[UNCERTAINTIES[target]] = found[UNCERTAINTIES[target]][graph.system_idx]
        return found

    def _give_up_beyond(self, graph: MagneticGraph, output: dict[str, Tensor]) -> None:
        """NaN as the energy of structures with a moment above what the model was made for."""
        if not getattr(self.model, "moment_limits", None):  # toys have none
            return
        numbers, magmoms = graph.atomic_numbers.cpu().numpy(), graph.magmoms.detach().double().cpu().numpy()
        beyond = beyond_limits(self.model, numbers, magmoms)
        if beyond:
            warnings.warn(moment_beyond(self.model, numbers, magmoms), PhysicsWarning, stacklevel=3)
            output["energy"] = output["energy"].clone()
            output["energy"][graph.system_idx[beyond]] = float("nan")

    @torch.inference_mode(mode=False)
    def graph(self, state: SimState) -> MagneticGraph:
        """The neighbour graph of a state; the pairs are kept while positions and cell stay the same."""
        if not state.has_extras(TORCHSIM_MAGMOMS):
            raise MissingMomentsError(
                f"the state has no atom extra '{TORCHSIM_MAGMOMS}'. Build it with "
                "mmace_sim.torchsim.initialize_state, which keeps moments (TorchSim's own drops them)."
            )
        last = self._last_graph
        cell, magmoms = state.cell.mT.contiguous(), getattr(state, TORCHSIM_MAGMOMS)
        if (
            last is not None
            and self._last_pbc is not None
            and torch.equal(self._last_pbc, state.pbc)
            and torch.equal(last.positions, state.positions)
            and torch.equal(last.cell, cell)
            and torch.equal(last.system_idx, state.system_idx)
            and torch.equal(last.atomic_numbers, state.atomic_numbers)
        ):
            return replace(last, magmoms=magmoms)
        check_elements(self.model, state.atomic_numbers)
        self._last_pbc = state.pbc.clone()
        self._last_graph = build_graph(
            state.positions.detach().clone(),
            cell,
            state.pbc,
            state.atomic_numbers,
            magmoms,
            state.system_idx.clone(),
            self.model.r_max,
        )
        return self._last_graph
