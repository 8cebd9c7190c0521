"""Magnetic models behind TorchSim's model interface."""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from mmace_sim.base.quantities import TORCHSIM_MAGFORCES, TORCHSIM_MAGMOMS, UNCERTAINTIES
from mmace_sim.errors import MissingMomentsError, PhysicsWarning
from mmace_sim.graph.batch import MagneticGraph
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.checkpoint import load_model
from mmace_sim.model.derivatives import check_graph, evaluate
from mmace_sim.model.interface import Potential
from mmace_sim.model.moment_limits import TOLERANCE, moment_beyond
from mmace_sim.model.uncertainty import STRUCTURE_TARGETS, require_uncertainty
from mmace_sim.torchsim.pairs import PairKeeper


class MagneticMaceModel(ModelInterface):
    """A magnetic model for TorchSim: moments in the state, magforces among the outputs.

    Reads the moments from the atom extra "magnetic_moments" and gives, besides TorchSim's "energy" (float64),
    "forces" and "stress", "magforces" = −∂E/∂m in eV/μB. It never changes moments: an optimiser does
    (`mmace_sim.torchsim.fire`), or :class:`~mmace_sim.torchsim.adiabatic.AdiabaticModel`.

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
        skin: Pairs beyond the cutoff by less than this, in Å, are kept, so that they need not be found again at each
            step; by default `mmace_sim.torchsim.pairs.GPU_SKIN` on a GPU and none on a CPU.
        backend: Who finds pairs, see `mmace_sim.graph.neighbors`.

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
        skin: float | None = None,
        backend: str | None = None,
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
        self.pairs = PairKeeper(self.model.r_max, skin=0.0 if uncertainty else skin, backend=backend)
        limits = {
            z: limit * (1.0 + TOLERANCE)
            for z, limit in (getattr(self.model, "moment_limits", None) or {}).items()
        }
        of_elements = [limits.get(z, float("inf")) for z in range(120)]
        self._limits = torch.tensor(of_elements, dtype=torch.float64, device=self._device)
        self._beyond: Tensor | None = None

    @ModelInterface.compute_forces.setter  # type: ignore[attr-defined] # an abstract property
    def compute_forces(self, value: bool) -> None:
        """Switch forces on or off."""
        self._compute_forces = value

    @ModelInterface.compute_stress.setter  # type: ignore[attr-defined]
    def compute_stress(self, value: bool) -> None:
        """Switch stresses on or off."""
        self._compute_stress = value

    def forward(
        self,
        state: SimState,
        *,
        moments_only: bool = False,
        fixed_moments: bool = False,
        systems: Sequence[int] | None = None,
        **_kwargs: object,
    ) -> dict[str, Tensor]:
        """Energy, forces, stress and magforces of a state with moments.

        Args:
            state: State whose atom extra "magnetic_moments" has shape (n_atoms, 3), in μB.
            moments_only: Leave out forces and stress, for solvers that move moments alone: half the time.
            fixed_moments: Leave out magforces, for solvers that move atoms and cells alone.
            systems: Numbers of the systems to evaluate, ascending; what is given for others is NaN. All by default.

        Raises:
            MissingMomentsError: If the state carries no moments.
            UnsupportedElementError: If it holds an element that the model was not made for.
        """
        graph = self.graph(state)
        beyond = self._beyond
        wanted = {"lattice": not moments_only, "moments": not fixed_moments}
        if systems is None or len(systems) == graph.n_systems or self._uncertainty is not None:
            output = self._evaluate(graph, **wanted)
        else:
            output = self._of_part(graph, systems, wanted)
        if beyond is not None:
            output["energy"] = torch.where(beyond, torch.nan, output["energy"])
        return output | self._estimates(graph, output)

    def _evaluate(self, graph: MagneticGraph, *, lattice: bool, moments: bool) -> dict[str, Tensor]:
        doubted = self._uncertainty is not None
        return evaluate(
            self.model,
            graph,
            compute_forces=(lattice and self._compute_forces) or doubted,
            compute_stress=lattice and self._compute_stress,
            compute_magforces=moments or doubted,
        )

    def _of_part(
        self, graph: MagneticGraph, systems: Sequence[int], wanted: dict[str, bool]
    ) -> dict[str, Tensor]:
        """Output for some systems of a graph, in arrays for all."""
        part = self.pairs.part(graph, systems)
        if isinstance(self.model, MagneticModel):
            self.model.inherit(graph, part.graph, part.atoms, part.edges)
        output = {}
        for name, value in self._evaluate(part.graph, **wanted).items():
            of_atoms = name in ("forces", TORCHSIM_MAGFORCES, "node_energy")
            n, where = (graph.n_atoms, part.rows) if of_atoms else (graph.n_systems, part.numbers)
            found = value if of_atoms else value[part.numbers]
            output[name] = value.new_full((n, *value.shape[1:]), float("nan")).index_copy(0, where, found)
        return output

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

    def graph(self, state: SimState) -> MagneticGraph:
        """The neighbour graph of a state; pairs are kept while they hold."""
        if not state.has_extras(TORCHSIM_MAGMOMS):
            raise MissingMomentsError(
                f"the state has no atom extra '{TORCHSIM_MAGMOMS}'. Build it with "
                "mmace_sim.torchsim.initialize_state, which keeps moments (TorchSim's own drops them)."
            )
        magmoms = getattr(state, TORCHSIM_MAGMOMS)
        self._beyond = self._look_beyond(state, magmoms)
        n_searches = self.pairs.n_searches
        graph = self.pairs.graph(state, magmoms)
        check_graph(self.model, graph)
        if self.pairs.n_searches > n_searches:
            self.pairs.questions.settle()
        return graph

    def _look_beyond(self, state: SimState, magmoms: Tensor) -> Tensor | None:
        """Which systems have a moment above what the model was made for: energies are NaN, and a warning says so."""
        if not getattr(self.model, "moment_limits", None):  # toys have none
            return None
        limits = self._limits[state.atomic_numbers.long()]
        beyond = torch.linalg.norm(magmoms.detach().double(), dim=1) > limits
        count = torch.zeros(state.cell.shape[0], dtype=torch.int64, device=magmoms.device)
        systems = count.index_add(0, state.system_idx, beyond.long()) > 0
        numbers, moments = state.atomic_numbers, magmoms.detach().clone()

        def warn() -> None:
            arrays = numbers.cpu().numpy(), moments.double().cpu().numpy()
            message = moment_beyond(self.model, *arrays)
            if message:
                warnings.warn(message, PhysicsWarning, stacklevel=5)

        self.pairs.questions.ask(beyond.any(), warn)
        return systems
