"""The registry of every quantity: its shape, unit, symmetry and its name in each host. The only translator of names."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """One physical quantity.

    Attributes:
        name: Our name.
        shape: Shape in words.
        unit: Unit.
        parity: +1 if unchanged by inversion of space, -1 if it changes sign (per component of a vector).
        time_reversal: +1 if unchanged by reversal of time, -1 if it changes sign.
        description: One line.
        torchsim: Name in a TorchSim state or model output, if it has one.
        ase: Name in ASE's results or arrays, if it has one.
        extxyz: Key of the reference label in extended XYZ training files, if it has one.
        read_from: Names that arrays and site properties of files have for it, in order of precedence.
    """

    name: str
    shape: str
    unit: str
    parity: int
    time_reversal: int
    description: str
    torchsim: str | None = None
    ase: str | None = None
    extxyz: str | None = None
    read_from: tuple[str, ...] = ()


QUANTITIES: dict[str, Quantity] = {
    q.name: q
    for q in (
        Quantity("positions", "(n_atoms, 3)", "Å", -1, 1, "Cartesian positions", "positions", "positions"),
        Quantity("cell", "(3, 3)", "Å", -1, 1, "cell vectors as rows (TorchSim: as columns)", "cell", "cell"),
        Quantity("energy", "()", "eV", 1, 1, "total energy of the cell", "energy", "energy", "REF_energy"),
        Quantity("forces", "(n_atoms, 3)", "eV/Å", -1, 1, "forces −∂E/∂r", "forces", "forces", "REF_forces"),
        Quantity(
            "stress", "(3, 3)", "eV/Å³", 1, 1, "stress (1/V) ∂E/∂ε, tension positive", "stress", "stress", "REF_stress"
        ),
        Quantity(
            "magmoms", "(n_atoms, 3)", "μB", 1, -1, "magnetic moments, axial vectors", "magnetic_moments", "magmoms",
            "REF_magmom", ("magmoms", "magmom", "final_magmom", "REF_magmom", "magnetic_moments"),
        ),
        Quantity(
            "magforces", "(n_atoms, 3)", "eV/μB", 1, -1, "magnetic forces −∂E/∂m", "magforces", "magforces",
            "REF_magforces",
        ),
    )
}  # fmt: skip

PER_ATOM: tuple[str, ...] = tuple(q.name for q in QUANTITIES.values() if q.extxyz and "n_atoms" in q.shape)
"""Labels with a value for each atom."""

PER_STRUCTURE: tuple[str, ...] = tuple(
    q.name for q in QUANTITIES.values() if q.extxyz and "n_atoms" not in q.shape
)
"""Labels of a whole structure."""

TORCHSIM_MAGMOMS: str = str(QUANTITIES["magmoms"].torchsim)
TORCHSIM_MAGFORCES: str = str(QUANTITIES["magforces"].torchsim)

UNCERTAINTIES: dict[str, str] = {
    "energy": "energy_uncertainty",
    "stress": "stress_uncertainty",
    "forces": "forces_uncertainty",
    "magforces_length": "magforces_length_uncertainty",
    "magforces_transverse": "magforces_transverse_uncertainty",
}
"""Names of standard deviations of errors, one component each; energies per atom."""

DEFAULT_HEAD: str = "default"
"""Name of the one data set of a model without heads."""
