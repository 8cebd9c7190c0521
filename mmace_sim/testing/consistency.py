"""Agreement of a TorchSim model with an ASE calculator, moments included."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from mmace_sim.base.hosts import ts
from mmace_sim.graph.cells import physical_stress
from mmace_sim.torchsim.state import initialize_state


def assert_model_calculator_consistency(
    model: ts.models.interface.ModelInterface,
    calculator: BaseCalculator,
    structures: Sequence[Atoms],
    *,
    tolerance: float = 1e-9,
) -> None:
    """Compare energy, forces, stress and magforces of a TorchSim model, in one batch, with an ASE calculator's.

    TorchSim's function of the same name forgets moments on the way.

    Args:
        model: TorchSim model that gives magforces.
        calculator: ASE calculator that gives magforces.
        structures: Structures with moments.
        tolerance: Largest absolute difference, in eV, eV/Å, eV/Å³ and eV/μB.

    Raises:
        AssertionError: If they differ.
    """
    state = initialize_state(list(structures), device=model.device, dtype=model.dtype)
    output = {name: value.detach().double().cpu().numpy() for name, value in model(state).items()}
    ends = np.cumsum([len(atoms) for atoms in structures])
    for index, (original, end) in enumerate(zip(structures, ends, strict=True)):
        atoms, rows = original.copy(), slice(end - len(original), end)
        atoms.calc = calculator
        pairs = {
            "energy": (output["energy"][index], atoms.get_potential_energy()),
            "forces": (output["forces"][rows], atoms.get_forces(apply_constraint=False)),
            "magforces": (output["magforces"][rows], calculator.results["magforces"]),
        }
        stress = physical_stress(output["stress"][index], atoms)
        if stress is not None:
            theirs = atoms.get_stress(apply_constraint=False)
            pairs["stress"] = (full_3x3_to_voigt_6_stress(stress), theirs)
        for name, (ours, theirs) in pairs.items():
            np.testing.assert_allclose(
                ours, theirs, rtol=0, atol=tolerance, err_msg=f"{name} of structure {index}"
            )
