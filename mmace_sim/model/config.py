"""Hyper-parameters of a model."""

from typing import Annotated

from ase import data as ase_data
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

DEFAULT_HEAD: str = "default"
"""Name of the only head of a model that was trained on one data set."""
SMALL_MOMENT: float = 0.1
"""Largest moments up to this many μB set no scale: such an element counts as non-magnetic."""


class ArchitectureConfig(BaseModel):
    """Hyper-parameters that every architecture has."""

    model_config = ConfigDict(extra="forbid")

    atomic_numbers: list[int] = Field(min_length=1)
    """Elements, as atomic numbers or symbols; kept sorted."""
    r_max: float = Field(default=5.0, gt=0)
    """Cutoff radius, in Å."""
    num_bessel: int = Field(default=8, ge=1)
    """Number of radial Bessel functions."""
    num_polynomial_cutoff: int = Field(default=5, ge=2)
    """Order of the polynomial cutoff."""
    max_ell: int = Field(default=3, ge=0, le=4)
    """Highest degree of the spherical harmonics."""
    hidden_irreps: str = "32x0e"
    """Hidden features, the same number of channels for each degree: "Kx0e", "Kx0e+Kx1o"."""
    num_interactions: int = Field(default=2, ge=1)
    """Number of message-passing layers."""
    correlation: int = Field(default=3, ge=1, le=3)
    """Highest body order minus one of the symmetric product."""
    radial_mlp: list[Annotated[int, Field(ge=1)]] = [64, 64]
    """Widths of the radial network."""
    MLP_irreps: str = "16x0e"
    """Hidden features of the last readout, "Kx0e"."""
    max_moment: dict[int, float] = {}
    """Largest moment of the training data for each atomic number, in μB; moments saturate above."""
    heads: dict[str, dict[int, float]] = Field(default={DEFAULT_HEAD: {}}, min_length=1)
    """Names of the data sets with isolated-atom and one-body energies of their own. Each with the largest moments, in
    μB, of the elements whose moments stay below `max_moment` in it: its wall stands there."""

    @field_validator("atomic_numbers", mode="before")
    @classmethod
    def _numbers(cls, value: list[int | str]) -> list[int]:
        return sorted(
            {ase_data.atomic_numbers[v] if isinstance(v, str) and not v.isdigit() else int(v) for v in value}
        )

    @field_validator("max_moment", mode="before")
    @classmethod
    def _moments(cls, value: dict[int | str, float]) -> dict[int, float]:
        return {
            ase_data.atomic_numbers[k] if isinstance(k, str) and not k.isdigit() else int(k): float(v)
            for k, v in value.items()
        }

    @field_validator("heads", mode="before")
    @classmethod
    def _heads(cls, value: dict[str, dict[int | str, float]]) -> dict[str, dict[int, float]]:
        return {check_head(name): cls._moments(moments) for name, moments in value.items()}

    @field_validator("hidden_irreps", "MLP_irreps")
    @classmethod
    def _irreps(cls, value: str) -> str:
        terms = value.replace(" ", "").split("+")
        if not terms[0].endswith("x0e") or not terms[0][:-3].isdigit() or int(terms[0][:-3]) < 1:
            raise ValueError(f'irreps are "{value}", expected "Kx0e", "Kx0e+Kx1o", ... with one K for all')
        natural = [f"{terms[0][:-3]}x{ell}{'eo'[ell % 2]}" for ell in range(len(terms))]
        if terms != natural:
            raise ValueError(f'irreps are "{value}", expected "{"+".join(natural)}": one K for all degrees')
        return "+".join(terms)

    @model_validator(mode="after")
    def _known_elements(self) -> "ArchitectureConfig":
        unknown = set(self.max_moment).union(*self.heads.values()) - set(self.atomic_numbers)
        if unknown:
            raise ValueError(
                f"max_moment or heads name elements {sorted(unknown)} that are not in atomic_numbers"
            )
        return self

    @property
    def num_channels(self) -> int:
        """Channels of the hidden features of each degree."""
        return int(self.hidden_irreps.split("x")[0])

    @property
    def hidden_ell(self) -> int:
        """Highest degree of the hidden features."""
        return self.hidden_irreps.count("+")

    @property
    def readout_channels(self) -> int:
        """Width of the last readout."""
        return int(self.MLP_irreps.split("x")[0])

    def moment_scale(self, atomic_number: int) -> float:
        """Moment that the basis of an element is scaled to, in μB; 1 where the data have (almost) none."""
        moment = self.max_moment.get(atomic_number, 0.0)
        return moment if moment > SMALL_MOMENT else 1.0

    def reference_moments(self) -> list[float]:
        """Largest moment of each element in each head, one head after the other, in μB."""
        return [
            moments.get(z, self.moment_scale(z))
            for moments in self.heads.values()
            for z in self.atomic_numbers
        ]


def check_head(name: str) -> str:
    """The name of a head, if it can stand after ``#`` behind the name of a model.

    Args:
        name: Name to check.

    Raises:
        ValueError: If it cannot.
    """
    if not name or not all(c.isalnum() or c in "-_." for c in name):
        raise ValueError(f"head {name!r} has a name that is not made of letters, digits, '-', '_' and '.'")
    return name


class ModelConfig(ArchitectureConfig):
    """Everything that defines a :class:`~mmace_sim.model.magnetic_mace.MagneticMACE` apart from its weights."""

    avg_num_neighbors: float = Field(default=50.0, gt=0)
    """Typical number of neighbours; a constant that normalises their sums."""
    num_moment_basis: int = Field(default=6, ge=1)
    """Number of basis functions in m·m."""
    num_one_body: int = Field(default=6, ge=1)
    """Number of basis functions of the one-body energy."""
    spin_channels: int = Field(default=16, ge=1)
    """Channels of the spin vectors."""
    spin_max_ell: int = Field(default=2, ge=0)
    """Highest degree at which spin vectors see their surroundings."""
    spin_orbit: bool = False
    """Whether the model has a spin–orbit term; without it anisotropies are zero by construction."""
    spin_orbit_channels: int = Field(default=8, ge=1)
    """Channels of the spin–orbit term."""

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        if self.spin_max_ell > self.max_ell:
            raise ValueError(f"spin_max_ell = {self.spin_max_ell} is above max_ell = {self.max_ell}")
        if self.hidden_ell > 1:
            raise ValueError(f'hidden_irreps are "{self.hidden_irreps}", expected "Kx0e" or "Kx0e+Kx1o"')
        return self

    @property
    def convolution_floats(self) -> int:
        """Numbers per neighbour pair that a layer's convolutions keep for their gradients."""
        n_paths = (self.max_ell + 1) * (3 if self.hidden_ell else 1)
        spin = (self.spin_max_ell + 1) * self.spin_channels * 4
        return 4 * (n_paths * self.num_channels + spin)
