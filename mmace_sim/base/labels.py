"""Names of the labels in files."""

from pydantic import BaseModel, ConfigDict

from mmace_sim.base.quantities import QUANTITIES


class LabelKeys(BaseModel):
    """Names of the labels in extended XYZ files and databases."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    energy: str = str(QUANTITIES["energy"].extxyz)
    forces: str = str(QUANTITIES["forces"].extxyz)
    stress: str = str(QUANTITIES["stress"].extxyz)
    magmoms: str = str(QUANTITIES["magmoms"].extxyz)
    magforces: str = str(QUANTITIES["magforces"].extxyz)
    config_type: str = "config_type"
