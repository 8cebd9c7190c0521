"""What a model does not know: the sizes of its errors, and how far a structure is from its data.

Two things are fitted by :mod:`mmace_sim.training.calibration.calibrate`, both functions of invariants of the
surroundings of an atom (`mmace_sim.nn.surroundings`) and of what one evaluation gives anyway: the distance to the
nearest atom of the calibration data, and the size of the errors, whose logarithm is a regression.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import torch
from ase.data import chemical_symbols
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from mmace_sim.base.quantities import UNCERTAINTIES
from mmace_sim.errors import UncalibratedModelError
from mmace_sim.graph.batch import MagneticGraph
from mmace_sim.model.config import Element
from mmace_sim.model.derivatives import evaluate, ordinary
from mmace_sim.model.error_sizes import (
    N_SIZES,
    collinear,
    log_distance,
    log_sizes,
    max_of_systems,
    mean_of_systems,
    predictors,
    regress,
    structure_predictors,
)
from mmace_sim.model.interface import Potential
from mmace_sim.nn.surroundings import N_SURROUNDINGS, surroundings

UNCERTAINTY_KEY: str = "uncertainty"
"""Where the header of a model file keeps the facts; the same with a dot before the names of the tensors."""

Target = Literal["energy", "stress", "forces", "magforces_length", "magforces_transverse"]
ATOM_TARGETS: tuple[Target, ...] = ("forces", "magforces_length", "magforces_transverse")
STRUCTURE_TARGETS: tuple[Target, ...] = ("energy", "stress")
TARGETS: tuple[Target, ...] = STRUCTURE_TARGETS + ATOM_TARGETS
"""What has an uncertainty, each of one component: of the energy per atom, of a component of a force, and so on."""

UNITS: dict[str, str] = {
    "energy": "meV/atom",
    "stress": "meV/Å³",
    "forces": "meV/Å",
    "magforces_length": "meV/μB",
    "magforces_transverse": "meV/μB",
}
"""Units in which uncertainties are told."""

EDGE: float = 1.0
OUTSIDE: float = 2.0
FAR: float = 99.0
"""Distance of an atom whose element the calibration data do not have, and the largest there is."""


class Domain(StrEnum):
    """Where a structure lies, seen from the data of the model."""

    INSIDE = "inside"
    EDGE = "edge"
    OUTSIDE = "outside"

    @classmethod
    def at(cls, distance: float) -> "Domain":
        """The verdict for a distance.

        Args:
            distance: In units of that which the data have among themselves.
        """
        if not distance <= OUTSIDE:  # NaN too
            return cls.OUTSIDE
        return cls.INSIDE if distance <= EDGE else cls.EDGE


class UncertaintyFacts(BaseModel):
    """What a model file says about its uncertainties; enough to know the sizes of their tensors."""

    model_config = ConfigDict(allow_inf_nan=False, strict=True)

    elements: list[Element] = Field(min_length=1, max_length=118)
    """Elements of the calibration data, ascending."""
    n_landmarks: int = Field(ge=1, le=100_000)
    """Atoms that distances are measured from."""
    known: list[Target] = Field(min_length=1, max_length=len(TARGETS))
    """Which of `TARGETS` the calibration data had labels for."""
    n_structures: int = Field(ge=1)
    """Structures of the calibration data."""
    n_held_out: int = Field(ge=0)
    """How many of them the model has not seen: they decide the scale."""
    calibration: dict[str, dict[str, float | int | None]] = {}
    """For each of `known`: how many components there were, the rank correlation of σ and error, and the median of σ,
    all from structures that the regression had not seen."""
    note: str = Field(default="", max_length=1000)
    """What a reader has to know about the calibration data."""

    @field_validator("elements")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        if value != sorted(set(value)):
            raise ValueError(f"{value} are not in ascending order")
        return value

    def in_words(self) -> list[str]:
        """Lines for a log or a table."""
        symbols = ", ".join(chemical_symbols[z] for z in self.elements)
        lines = [
            f"calibrated with {self.n_structures} structures of {symbols}, {self.n_held_out} of them held out; "
            f"{self.n_landmarks} atoms remembered"
        ]
        for target in TARGETS:
            if target not in self.known:
                lines.append(f"{target}: nothing known, no labels that tell")
                continue
            told = self.calibration.get(target, {})
            rank = "–" if told.get("spearman") is None else f"{told['spearman']:.2f}"
            lines.append(
                f"{target}: typical σ {1000 * (told.get('median') or 0.0):.3g} {UNITS[target]}, rank correlation with "
                f"the error {rank} ({told.get('count', 0)} values)"
            )
        return lines

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor."""
        n, d = len(self.elements), N_SURROUNDINGS
        linear = N_SIZES + 1 + n + d
        return {
            "numbers": (self.n_landmarks,),
            "landmarks": (self.n_landmarks, d),
            "means": (n, d),
            "whitening": (d, d),
            "spread": (d,),
            "atom_weights": (linear + d, len(ATOM_TARGETS)),
            "atom_limits": (3, len(ATOM_TARGETS)),
            "structure_weights": (
                linear + 1,
                len(STRUCTURE_TARGETS),
            ),  # mean of the logarithm, and of the distance
            "structure_limits": (3, len(STRUCTURE_TARGETS)),
        }


@dataclass
class Uncertainty:
    """Sizes of errors and distances from the data, fitted for one model.

    Attributes:
        facts: What is known of it.
        tensors: See `UncertaintyFacts.shapes`: elements and coordinates of the landmarks; mean surroundings of each
            element and the matrix that makes coordinates of them, in which data are `EDGE` apart; standard deviations
            of the coordinates; weights of the regressions, and their constant, smallest and largest value.
    """

    facts: UncertaintyFacts
    tensors: dict[str, Tensor]
    _cache: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def on(self, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        """The tensors where they are needed.

        Args:
            device: Device of a graph.
            dtype: Its floating-point type.
        """
        if (device, dtype) not in self._cache:
            self._cache[device, dtype] = {
                k: v.to(device=device, dtype=dtype if v.is_floating_point() else v.dtype)
                for k, v in self.tensors.items()
            }
        return self._cache[device, dtype]

    @torch.no_grad()
    def estimate(
        self, graph: MagneticGraph, output: Mapping[str, Tensor], r_max: float, *, spin_orbit: bool = True
    ) -> dict[str, Tensor]:
        """Uncertainties of what a model gave for a batch.

        Args:
            graph: The batch.
            output: "forces" and "magforces" of the model.
            r_max: Cutoff radius of the model, in Å.
            spin_orbit: Whether the directions of moments couple to space; if not, transverse magnetic forces of
                collinear structures are exactly zero, and so is their uncertainty.

        Returns:
            By the names of `mmace_sim.base.quantities.UNCERTAINTIES`, standard deviations, one component each: of the
            energy per atom and of the stress (n_systems,), of forces and of the two parts of magnetic forces
            (n_atoms,), NaN where nothing is known; and the distance from the data, of each atom ("atom_distance") and
            of each structure ("distance"), whose farthest atom counts.
        """
        graph = graph.map(ordinary)
        rows = surroundings(
            graph.edge_vectors(), graph.edge_index, graph.atomic_numbers, graph.magmoms, r_max
        )
        sizes = log_sizes(output["forces"], output["magforces"], graph.magmoms)
        found = self.predict(rows, graph.atomic_numbers, sizes, graph.system_idx, graph.n_systems)
        if not spin_orbit:
            still = collinear(graph.magmoms, graph.system_idx, graph.n_systems)[graph.system_idx]
            found[UNCERTAINTIES["magforces_transverse"]][still] = 0.0
        return found

    def predict(
        self,
        rows: Float[Tensor, "n_atoms n_surroundings"],
        atomic_numbers: Int[Tensor, " n_atoms"],
        sizes: Float[Tensor, "n_atoms n_sizes"],
        system_idx: Int[Tensor, " n_atoms"],
        n_systems: int,
    ) -> dict[str, Tensor]:
        """The same from the surroundings of the atoms, without what symmetry says.

        Args:
            rows: From `mmace_sim.nn.surroundings.surroundings`.
            atomic_numbers: Elements.
            sizes: From `log_sizes`.
            system_idx: Structure of each atom.
            n_systems: Number of structures.
        """
        tensors = self.on(rows.device, rows.dtype)
        coordinates, species = self.coordinates(rows, atomic_numbers)
        distance = self.distances(coordinates, atomic_numbers)
        sizes = torch.cat([sizes, log_distance(distance)], dim=1)
        table = predictors(coordinates, species, sizes, tensors["spread"], len(self.facts.elements))
        growth = distance.clamp(min=EDGE) / EDGE
        atoms = regress(table, tensors["atom_weights"], tensors["atom_limits"]) * growth[:, None]
        table = structure_predictors(table, distance, system_idx, n_systems)
        growth = mean_of_systems(growth.square()[:, None], system_idx, n_systems).sqrt()
        structures = regress(table, tensors["structure_weights"], tensors["structure_limits"]) * growth
        columns = dict(zip(STRUCTURE_TARGETS, structures.unbind(1), strict=True))
        columns |= dict(zip(ATOM_TARGETS, atoms.unbind(1), strict=True))
        found = {
            UNCERTAINTIES[target]: column.clone()
            if target in self.facts.known
            else torch.full_like(column, torch.nan)
            for target, column in columns.items()
        }
        farthest = max_of_systems(distance, system_idx, n_systems)
        return found | {"atom_distance": distance, "distance": farthest}

    def coordinates(
        self, rows: Float[Tensor, "n_atoms n_surroundings"], atomic_numbers: Int[Tensor, " n_atoms"]
    ) -> tuple[Float[Tensor, "n_atoms n_surroundings"], Int[Tensor, " n_atoms"]]:
        """Coordinates of atoms, in which the data are `EDGE` apart, and the index of their element (−1: none).

        Args:
            rows: Surroundings of the atoms.
            atomic_numbers: Their elements.
        """
        tensors = self.on(rows.device, rows.dtype)
        elements = torch.tensor(self.facts.elements, device=rows.device)
        species = torch.searchsorted(elements, atomic_numbers).clamp(max=len(elements) - 1)
        strange = elements[species] != atomic_numbers
        coordinates = (rows - tensors["means"][species]) @ tensors["whitening"]
        return coordinates, torch.where(strange, -1, species)

    def distances(
        self, coordinates: Float[Tensor, "n_atoms n_surroundings"], numbers: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, " n_atoms"]:
        """Distance of atoms to the nearest landmark of their element.

        Args:
            coordinates: Of the atoms.
            numbers: Their atomic numbers.
        """
        tensors = self.on(coordinates.device, coordinates.dtype)
        result = torch.full_like(coordinates[:, 0], FAR)
        for z in torch.unique(numbers).tolist():
            marks = tensors["landmarks"][tensors["numbers"] == z]
            if len(marks):
                mine = numbers == z
                result[mine] = torch.cdist(coordinates[mine], marks).amin(dim=1).clamp(max=FAR)
        return result


def evaluate_with_uncertainty(
    model: Potential, graph: MagneticGraph, output: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Energy and derivatives of a batch with their uncertainties, in one evaluation.

    Args:
        model: A calibrated model.
        graph: The batch.
        output: "forces" and "magforces" of the model, if they are known.

    Returns:
        What :func:`~mmace_sim.model.derivatives.evaluate` and :meth:`Uncertainty.estimate` give.

    Raises:
        UncalibratedModelError: If the model has no uncertainties.
    """
    uncertainty = require_uncertainty(model)
    output = evaluate(model, graph) if output is None else dict(output)
    return output | uncertainty.estimate(
        graph, output, model.r_max, spin_orbit=getattr(model, "spin_orbit", True)
    )


def require_uncertainty(model: object) -> Uncertainty:
    """The uncertainties of a model.

    Raises:
        UncalibratedModelError: If it has none.
    """
    uncertainty = getattr(model, "uncertainty", None)
    if uncertainty is None:
        raise UncalibratedModelError(
            "the model cannot tell what it does not know: its file has no uncertainties. Add them with "
            "`mmace-sim calibrate MODEL DATA -o NEW`, with labelled structures like those you compute."
        )
    return uncertainty
