"""ASE calculator for magnetic models."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress

from mmace_sim.errors import StructureError, UnsupportedElementError
from mmace_sim.graph.atoms import INITIAL_MAGMOMS, check_atomic_numbers, get_magmoms, has_magmoms
from mmace_sim.graph.batch import graph_from_atoms
from mmace_sim.graph.cells import physical_stress
from mmace_sim.model.checkpoint import load_model
from mmace_sim.model.derivatives import evaluate
from mmace_sim.model.interface import Potential
from mmace_sim.model.moment_limits import moment_beyond


class MMACECalculator(Calculator):
    """Energy, forces, stress and magforces of a magnetic model, for the moments that the structure carries.

    Moments are an input like positions: `mmace_sim.graph.atoms.set_magmoms` sets them, and the calculator evaluates at
    these moments without relaxing them. The results "magmoms" are the moments that went in, "magforces" = −∂E/∂m
    what acts on them. Forces and stress are partial derivatives at fixed moments. A molecule has no stress, a layer one
    within its plane.

    Args:
        model: Name or path of a model, or the model itself.
        device: Where to run; by default where the model is, or the CPU for names and paths.
        dtype: ``torch.float32`` or ``torch.float64`` or their names; by default the model's, or float64 for names.
        **kwargs: Passed to ASE's `Calculator`.

    Example:
        >>> atoms.calc = MMACECalculator()  # doctest: +SKIP
        >>> atoms.get_potential_energy()  # doctest: +SKIP
        >>> atoms.calc.get_property("magforces", atoms)  # doctest: +SKIP
    """

    implemented_properties: ClassVar[list[str]] = [  # type: ignore[misc] # an attribute of the class in ASE too
        "energy",
        "free_energy",
        "energies",
        "forces",
        "stress",
        "magmoms",
        "magforces",
    ]
    name = "mmace"

    def __init__(
        self,
        model: Potential | str | Path = "default",
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        **kwargs: object,
    ) -> None:
        super().__init__(**kwargs)
        asked: torch.dtype | None = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        if isinstance(model, str | Path):
            model = load_model(model, device=device or "cpu", dtype=asked or torch.float64)
        where, precision = torch.device(device or model.device), asked or model.dtype
        if (where, precision) != (model.device, model.dtype):
            model = copy.deepcopy(model).to(device=where, dtype=precision)  # the caller's stays as it is
        self.model: Potential = model

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """List what has changed since the last calculation, moments under any name included.

        Args:
            atoms: Structure to compare with the last one.
            tol: Largest change that does not count.

        Returns:
            Names of what has changed.
        """
        changes = super().check_state(atoms, tol=tol)
        if self.atoms is None or INITIAL_MAGMOMS in changes or "numbers" in changes:
            return changes
        bare = atoms.copy()  # without calculator, whose results are those of the last structure
        same = (
            has_magmoms(bare)
            and has_magmoms(self.atoms)
            and np.allclose(get_magmoms(bare), get_magmoms(self.atoms), rtol=0, atol=tol)
        )
        return changes if same else [*changes, INITIAL_MAGMOMS]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Evaluate the model; all results come from one pass, whatever was asked for.

        Args:
            atoms: Structure with moments.
            properties: What is asked for.
            system_changes: What has changed since the last calculation.

        Raises:
            MissingMomentsError: If the structure carries no moments of its own; the results of a calculator that was
                attached before do not count.
            UnsupportedElementError: If it holds an element that the model was not made for.
            StructureError: If a moment is above what a converted model was made for.
        """
        super().calculate(atoms, properties, system_changes)
        current = cast(Atoms, self.atoms)  # set by ASE
        self._check_elements(current)
        if problem := moment_beyond(self.model, current.numbers, get_magmoms(current)):
            raise StructureError(problem)
        has_volume = bool(current.cell.rank == 3 and current.pbc.any())
        graph = graph_from_atoms(current, self.model.r_max, device=self.model.device, dtype=self.model.dtype)
        output = {
            name: value.double().cpu().numpy()
            for name, value in evaluate(self.model, graph, compute_stress=has_volume).items()
        }
        energy = float(output["energy"][0])
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": output["node_energy"],
            "forces": output["forces"],
            "magforces": output["magforces"],
            "magmoms": get_magmoms(current),
        }
        if has_volume:
            stress = physical_stress(output["stress"][0], current)
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)

    def _check_elements(self, atoms: Atoms) -> None:
        check_atomic_numbers(atoms.numbers)
        unknown = sorted(set(atoms.numbers.tolist()) - set(self.model.elements))
        if unknown:
            name = getattr(self.model, "metadata", {}).get("name", "the model")
            raise UnsupportedElementError(
                f"{atoms.get_chemical_formula()} holds {', '.join(chemical_symbols[z] for z in unknown)}, but {name} "
                f"was made for {', '.join(chemical_symbols[z] for z in self.model.elements)}."
            )
