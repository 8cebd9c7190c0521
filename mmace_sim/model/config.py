"""Hyper-parameters of a model."""

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from mmace_sim.base.quantities import DEFAULT_HEAD

SMALL_MOMENT: float = 0.1
"""An element whose moments stay below this many μB in the data counts as non-magnetic."""


def atomic_number(value: object) -> Any:
    """The atomic number of a symbol or of digits; anything else as it is."""
    from ase import data as ase_data  # heavy, and not needed for --help

    if not isinstance(value, str):
        return value
    return ase_data.atomic_numbers.get(value, value)


def check_head(name: str) -> str:
    """The name of a head, if it can stand after ``#`` behind the name of a model.

    Raises:
        ValueError: If it cannot.
    """
    if not name or not all(c.isalnum() or c in "-_." for c in name):
        raise ValueError(f"head {name!r} has a name that is not made of letters, digits, '-', '_' and '.'")
    return name


def pair_name(first: int | str, second: int | str) -> str:
    """Name of a pair of elements, in alphabetical order.

    Args:
        first: Atomic number or symbol.
        second: The other one.
    """
    from ase import data as ase_data  # heavy, and not needed for --help

    symbols = [z if isinstance(z, str) else ase_data.chemical_symbols[z] for z in (first, second)]
    return "-".join(sorted(symbols))


def check_pair(name: str) -> str:
    """The name of a pair of elements, in alphabetical order.

    Args:
        name: Two symbols with a hyphen between.

    Raises:
        ValueError: If it is something else.
    """
    from ase import data as ase_data  # heavy, and not needed for --help

    symbols = name.split("-")
    if len(symbols) != 2 or not set(symbols) <= set(ase_data.chemical_symbols[1:]):
        raise ValueError(f"{name!r} is no pair of elements such as Al-Fe")
    return pair_name(*symbols)


def _holds_boolean(value: object) -> bool:
    if isinstance(value, dict | list | tuple):
        return any(map(_holds_boolean, value.values() if isinstance(value, dict) else value))
    return isinstance(value, bool)


# What a field may hold at most: far above any sensible model, and small enough for a file that is damaged or hostile.
MAX_CHANNELS: int = 4096
Element = Annotated[int, BeforeValidator(atomic_number), Field(ge=1, le=118)]
Moment = Annotated[float, Field(ge=0, le=100)]
Width = Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
Basis = Annotated[int, Field(ge=1, le=256)]
Pair = Annotated[str, Field(max_length=5), AfterValidator(check_pair)]
Onset = Annotated[float, Field(gt=0, le=30)]
Crowding = Annotated[float, Field(gt=0, le=1e9)]
Ceiling = Annotated[float, Field(ge=0, le=1e6)]
Floor = Annotated[float, Field(ge=-1e6, le=0)]
Head = Annotated[str, Field(max_length=100), AfterValidator(check_head)]


class ArchitectureConfig(BaseModel):
    """Hyper-parameters that every architecture has."""

    model_config = ConfigDict(use_attribute_docstrings=True, extra="forbid", allow_inf_nan=False)

    atomic_numbers: list[Element] = Field(min_length=1, max_length=118)
    """Elements, as atomic numbers or symbols; kept sorted."""
    r_max: float = Field(default=5.0, gt=0, le=30)
    """Cutoff radius, in Å."""
    num_bessel: Basis = 8
    """Number of radial Bessel functions."""
    num_polynomial_cutoff: int = Field(default=5, ge=2, le=100)
    """Order of the polynomial cutoff."""
    max_ell: int = Field(default=3, ge=0, le=4)
    """Highest degree of the spherical harmonics."""
    hidden_irreps: str = Field(default="32x0e", max_length=60)
    """Hidden features, the same number of channels for each degree: "Kx0e", "Kx0e+Kx1o"."""
    num_interactions: int = Field(default=2, ge=1, le=32)
    """Number of message-passing layers."""
    correlation: int = Field(default=3, ge=1, le=3)
    """Highest body order minus one of the symmetric product."""
    radial_mlp: list[Width] = Field(default=[64, 64], min_length=1, max_length=16)
    """Widths of the radial network."""
    MLP_irreps: str = Field(default="16x0e", max_length=60)
    """Hidden features of the last readout, "Kx0e"."""
    max_moment: dict[Element, Moment] = {}
    """Largest moment of the training data for each atomic number, in μB; moments saturate above."""
    heads: dict[Head, dict[Element, Moment]] = Field(
        default={DEFAULT_HEAD: {}}, min_length=1, max_length=1000
    )
    """Names of the data sets with isolated-atom and one-body energies of their own. Each with the largest moments, in
    μB, of the elements whose moments stay below `max_moment` in it: its wall stands there."""

    repulsion: dict[Pair, Onset] | None = Field(default=None, max_length=10_000)
    """Distance of each pair of elements ("Al-Fe", in Å) below which a repulsion of known form replaces the network. The
    sum of covalent radii for pairs that are left out; null: no repulsion, as in files of earlier versions."""
    max_crowding: dict[Element, Crowding] = {}
    """Crowding of each element, in Å³ (see `mmace_sim.nn.repulsion.ShortRange`), above which a wall rises; with
    `repulsion` only. Found after the training, 5 % above all that the data know."""
    energy_floor: dict[Element, Floor] = {}
    """Energy of each element, in eV, below which what the network gives an atom comes to rest; with `repulsion` only.
    Found after the training, well below all that the data know."""
    energy_ceiling: dict[Element, Ceiling] = {}
    """The same above all that the data know: what rises higher there is the repulsion."""

    @model_validator(mode="before")
    @classmethod
    def _no_booleans(cls, values: object) -> Any:
        if isinstance(values, dict):
            for name, value in values.items():
                field = cls.model_fields.get(name)
                if field is not None and field.annotation is not bool and _holds_boolean(value):
                    raise ValueError(f"{name} is {value}, expected no true or false")
        return values

    @field_validator("atomic_numbers")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        return sorted(set(value))

    @field_validator("hidden_irreps", "MLP_irreps")
    @classmethod
    def _irreps(cls, value: str) -> str:
        terms = value.replace(" ", "").split("+")
        if not terms[0].endswith("x0e") or not terms[0][:-3].isdigit() or int(terms[0][:-3]) < 1:
            raise ValueError(f'irreps are "{value}", expected "Kx0e", "Kx0e+Kx1o", ... with one K for all')
        natural = [f"{terms[0][:-3]}x{ell}{'eo'[ell % 2]}" for ell in range(len(terms))]
        if terms != natural:
            raise ValueError(f'irreps are "{value}", expected "{"+".join(natural)}": one K for all degrees')
        if int(terms[0][:-3]) > MAX_CHANNELS or len(terms) > 5:
            raise ValueError(f'irreps are "{value}", expected at most {MAX_CHANNELS} channels and degree 4')
        return "+".join(terms)

    @model_validator(mode="after")
    def _known_elements(self) -> "ArchitectureConfig":
        limits = (self.max_crowding, self.energy_floor, self.energy_ceiling)
        named = set(self.max_moment).union(*limits, *self.heads.values())
        if unknown := named - set(self.atomic_numbers):
            raise ValueError(
                f"max_moment, max_crowding, energy limits or heads name elements {sorted(unknown)} that are not in "
                "atomic_numbers"
            )
        return self

    def repulsion_onset(self, first: int, second: int) -> float:
        """Distance of two elements below which the repulsion acts, in Å.

        Args:
            first: Atomic number.
            second: The other one.
        """
        from ase import data as ase_data  # heavy, and not needed for --help

        covalent = float(ase_data.covalent_radii[first] + ase_data.covalent_radii[second])
        return min((self.repulsion or {}).get(pair_name(first, second), covalent), self.r_max)

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


class ModelConfig(ArchitectureConfig):
    """Everything that defines a :class:`~mmace_sim.model.magnetic_mace.MagneticMACE` apart from its weights."""

    avg_num_neighbors: float = Field(default=50.0, gt=0, le=1e6)
    """Typical number of neighbours; a constant that normalises their sums."""
    num_moment_basis: Basis = 6
    """Number of basis functions in m·m."""
    num_one_body: Basis = 6
    """Number of basis functions of the one-body energy."""
    spin_channels: Width = 16
    """Channels of the spin vectors."""
    spin_max_ell: int = Field(default=2, ge=0)
    """Highest degree at which spin vectors see their surroundings."""
    spin_orbit: bool = False
    """Whether the model has a spin–orbit term; without it anisotropies are zero by construction."""
    nonmagnetic: list[Element] = Field(default=[], max_length=118)
    """Elements without moments of their own: the network does not see the moments of their atoms, which cost a spring
    energy up to a wall, at 0.2 μB or at twice the largest moment that their neighbours give them in the data."""
    spin_orbit_channels: Width = 8
    """Channels of the spin–orbit term."""

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        if self.spin_max_ell > self.max_ell:
            raise ValueError(f"spin_max_ell = {self.spin_max_ell} is above max_ell = {self.max_ell}")
        if self.hidden_ell > 1:
            raise ValueError(f'hidden_irreps are "{self.hidden_irreps}", expected "Kx0e" or "Kx0e+Kx1o"')
        return self

    def moment_scale(self, atomic_number: int) -> float:
        """Moment that the basis of an element is scaled to, in μB."""
        if atomic_number in self.nonmagnetic:
            return max(SMALL_MOMENT, self.max_moment.get(atomic_number, 0.0))
        return super().moment_scale(atomic_number)

    def wall_moments(self) -> list[float]:
        """Where the walls of `reference_moments` stand: of elements without moments of their own at 0.2 μB at least."""
        free = [z in self.nonmagnetic for z in self.atomic_numbers] * len(self.heads)
        return [
            max(moment, 2.0 * SMALL_MOMENT) if is_free else moment
            for moment, is_free in zip(self.reference_moments(), free, strict=True)
        ]

    @property
    def convolution_floats(self) -> int:
        """Numbers per neighbour pair that a layer's convolutions keep for their gradients."""
        n_paths = (self.max_ell + 1) * (3 if self.hidden_ell else 1)
        spin = (self.spin_max_ell + 1) * self.spin_channels * 4
        return 4 * (n_paths * self.num_channels + spin)
