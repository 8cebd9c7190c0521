"""Names of the labels in files."""

from pydantic import BaseModel, ConfigDict


class LabelKeys(BaseModel):
    """Names of the labels in extended XYZ files and databases."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    energy: str = "REF_energy"
    forces: str = "REF_forces"
    stress: str = "REF_stress"
    magmoms: str = "REF_magmom"
    magforces: str = "REF_magforces"
    config_type: str = "config_type"
