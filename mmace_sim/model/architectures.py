"""The architectures that model files and training configurations name."""

from dataclasses import dataclass

from mmace_sim.model.config import ArchitectureConfig, ModelConfig
from mmace_sim.model.foundation_mmace import FoundationConfig, FoundationMMACE
from mmace_sim.model.magnetic_mace import MagneticMACE
from mmace_sim.model.paper_mmace import PaperConfig, PaperMMACE

AnyModel = MagneticMACE | PaperMMACE | FoundationMMACE
"""Any of our energy models."""


@dataclass(frozen=True)
class Architecture:
    """An energy model and its hyper-parameters.

    Attributes:
        config: Class of the hyper-parameters.
        model: Class of the model, made from them.
    """

    config: type[ArchitectureConfig]
    model: type[AnyModel]


DEFAULT_ARCHITECTURE: str = "MagneticMACE"
ARCHITECTURES: dict[str, Architecture] = {
    "MagneticMACE": Architecture(ModelConfig, MagneticMACE),
    "PaperMMACE": Architecture(PaperConfig, PaperMMACE),
    "FoundationMMACE": Architecture(FoundationConfig, FoundationMMACE),
}
