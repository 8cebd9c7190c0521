"""Public test tools: toy models with known answers, identities that every magnetic model obeys, strategies.

A new model is tested by inheriting `MagneticModelConformance`; see there. ``hypothesis`` and ``pytest`` are
needed for that class and for the strategies only.
"""

from importlib import import_module
from typing import Any

_LAZY = {
    "CalculatorProbe": "mmace_sim.testing.calculator_probe",
    "IDENTITIES": "mmace_sim.testing.identities",
    "HeisenbergModel": "mmace_sim.testing.toys",
    "HostReads": "mmace_sim.testing.host_reads",
    "Identity": "mmace_sim.testing.identities",
    "MagneticModelConformance": "mmace_sim.testing.conformance",
    "ModelProbe": "mmace_sim.testing.probe",
    "PretendedGpu": "mmace_sim.testing.pretended",
    "SingleIonModel": "mmace_sim.testing.single_ion",
    "SpinModel": "mmace_sim.testing.spin_models",
    "TensorExchangeModel": "mmace_sim.testing.toys",
    "Violation": "mmace_sim.testing.prediction",
    "assert_model_calculator_consistency": "mmace_sim.testing.consistency",
    "magnetic_structures": "mmace_sim.testing.strategies",
    "measure_identities": "mmace_sim.testing.identities",
    "random_structure": "mmace_sim.testing.structures",
    "standard_structures": "mmace_sim.testing.structures",
}

__all__ = [
    "IDENTITIES",
    "CalculatorProbe",
    "HeisenbergModel",
    "HostReads",
    "Identity",
    "MagneticModelConformance",
    "ModelProbe",
    "PretendedGpu",
    "SingleIonModel",
    "SpinModel",
    "TensorExchangeModel",
    "Violation",
    "assert_model_calculator_consistency",
    "magnetic_structures",
    "measure_identities",
    "random_structure",
    "standard_structures",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'mmace_sim.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
