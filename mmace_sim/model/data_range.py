"""What the data of a model know: the ranges outside of which its results mean nothing."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, ValidationError

from mmace_sim.model.base import MagneticModel

DATA_RANGE_KEY: str = "data_range"
"""Where the metadata of a model keep it; with several heads, under the name of each."""


class DataRange(BaseModel):
    """Smallest and largest values of the structures that a model was trained on.

    Energies are measured from isolated atoms without moments (E0 of each element), so that they compare
    structures of any composition.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    interaction_energy_per_atom: tuple[float, float]
    """Energy above isolated atoms, in eV/atom."""
    shortest_distances: dict[str, float]
    """Shortest distance of each pair of elements, in Å, by names such as "Al-Fe" (alphabetical)."""
    volume_per_atom: tuple[float, float] | None = None
    """Of the periodic structures, in Å³; None if there are none."""
    largest_moments: dict[str, float]
    """Largest moment of each element, in μB."""

    @property
    def energy_width(self) -> float:
        """Distance of the lowest and the highest energy, in eV/atom."""
        low, high = self.interaction_energy_per_atom
        return high - low


def data_range(model: object) -> DataRange | None:
    """The range of the data of a model (of its first head, which is the chosen one of a loaded model).

    Args:
        model: A model, or a wrapper with the model as its attribute `model`.

    Returns:
        None if the model does not tell, as files of earlier versions.
    """
    model = model if hasattr(model, "metadata") else getattr(model, "model", None)
    told = getattr(model, "metadata", {}).get(DATA_RANGE_KEY)
    if isinstance(told, dict) and "interaction_energy_per_atom" not in told:
        told = told.get(getattr(model, "heads", [None])[0])
    try:
        return None if told is None else DataRange.model_validate(told)
    except ValidationError:
        return None


def interaction_energy_per_atom(
    model: MagneticModel, energy: float, atomic_numbers: Sequence[int], head: str | None = None
) -> float:
    """Energy of a structure above isolated atoms without moments, in eV/atom: comparable with `DataRange`.

    Args:
        model: The model that gave the energy, or that will learn it.
        energy: Total energy, in eV.
        atomic_numbers: Elements of its atoms.
        head: Data set of the energy; default: the first.
    """
    start = 0 if head is None else model.heads.index(head) * len(model.elements)
    energies = model.reference.atomic_energies.tolist()
    alone = sum(energies[start + model.elements.index(int(z))] for z in atomic_numbers)
    return (energy - alone) / len(atomic_numbers)
