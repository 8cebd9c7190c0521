"""Public test tools: toy models with known answers, identities that every magnetic model obeys, strategies.

A new model is tested by inheriting `MagneticModelConformance`; see there. ``hypothesis`` and ``pytest`` are
needed for that class and for the strategies only.
"""

from mmace_sim.base.lazy import lazy_names

_WHERE = {
    "CalculatorProbe": ".calculator_probe",
    "IDENTITIES": ".identities",
    "HeisenbergModel": ".toys",
    "HostReads": ".host_reads",
    "Identity": ".identities",
    "MagneticModelConformance": ".conformance",
    "ModelProbe": ".probe",
    "PretendedGpu": ".pretended",
    "SingleIonModel": ".single_ion",
    "SpinModel": ".spin_models",
    "TensorExchangeModel": ".toys",
    "Violation": ".prediction",
    "assert_model_calculator_consistency": ".consistency",
    "magnetic_structures": ".strategies",
    "measure_identities": ".identities",
    "random_structure": ".structures",
    "standard_structures": ".structures",
}
__all__ = list(_WHERE)
__getattr__, __dir__ = lazy_names(__name__, _WHERE)
