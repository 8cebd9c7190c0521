"""What a model gets wrong on labelled structures, atom by atom, next to what its surroundings look like."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmace_sim.io.frames import Frame
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.derivatives import evaluate
from mmace_sim.model.error_sizes import SMALLEST_MOMENT, log_sizes, moment_directions
from mmace_sim.nn.surroundings import surroundings
from mmace_sim.training.data.dataset import GraphDataset, LabelledBatch, make_loader

ZERO: dict[str, float] = {"stress": 1e-6, "forces": 1e-4, "magforces": 1e-4}
"""Components whose label and prediction are both below this are zero by symmetry: they tell nothing of errors."""


@dataclass
class Evidence:
    """Structures as the calibration sees them.

    Attributes:
        rows: Surroundings of each atom.
        numbers: Its atomic number.
        sizes: From `mmace_sim.model.uncertainty.log_sizes`.
        system: Its structure.
        composition: Number of atoms of each of the model's elements, for each structure.
        errors: By target (`mmace_sim.model.uncertainty.TARGETS`), one row for each atom or structure and one column for
            each component; NaN without a label, and where symmetry makes it zero.
    """

    rows: Float[Tensor, "n_atoms n_surroundings"]
    numbers: Int[Tensor, " n_atoms"]
    sizes: Float[Tensor, "n_atoms n_sizes"]
    system: Int[Tensor, " n_atoms"]
    composition: Float[Tensor, "n_systems n_elements"]
    errors: dict[str, Tensor]

    @property
    def n_systems(self) -> int:
        """Number of structures."""
        return len(self.composition)

    def fit_zero(self) -> None:
        """Take off the errors of energies what is a sum over the elements of a structure: another zero of energy."""
        sizes = self.composition.sum(dim=1, keepdim=True)
        fractions, errors = self.composition / sizes, self.errors["energy"]
        known = ~torch.isnan(errors[:, 0])
        if known.any():
            shifts = torch.linalg.lstsq(fractions[known], errors[known], driver="gelsd").solution
            self.errors["energy"] = errors - fractions @ shifts


def gather(
    model: MagneticModel,
    frames: Sequence[Frame],
    *,
    magforce_elements: Sequence[str] | None = None,
    batch_size: int = 8,
) -> Evidence:
    """Evaluate a model on labelled structures.

    Args:
        model: The model; if it has several heads, those of the structures count.
        frames: Structures, all of whose elements the model knows.
        magforce_elements: Symbols of the elements whose magnetic forces are labels; None means all.
        batch_size: Structures per batch.
    """
    heads = dict.fromkeys(model.heads, 1.0) if len(model.heads) > 1 else None
    dataset = GraphDataset(
        frames,
        model.r_max,
        dtype=model.dtype,
        magforce_elements=magforce_elements,
        heads=heads,
        keep=False,
    )
    parts, first = [], 0
    for batch in make_loader(dataset, batch_size, num_workers=0):
        parts.append(_of_batch(model, batch.to(model.device), first))
        first += len(batch.n_atoms)
    names = ("rows", "numbers", "sizes", "system", "composition")
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    errors = {target: torch.cat([part.errors[target] for part in parts]) for target in parts[0].errors}
    return Evidence(**joined, errors=errors)


def _of_batch(model: MagneticModel, batch: LabelledBatch, first: int) -> Evidence:
    graph, output = batch.graph, evaluate(model, batch.graph)
    finite = {k: torch.nan_to_num(output[k]) for k in ("forces", "magforces")}
    rows = surroundings(
        graph.edge_vectors(), graph.edge_index, graph.atomic_numbers, graph.magmoms, model.r_max
    )
    species = model.species_table[graph.atomic_numbers]
    counts = torch.zeros(len(batch.n_atoms), len(model.elements), dtype=torch.float64, device=rows.device)
    counts.index_put_((graph.system_idx, species), torch.ones_like(counts[0, 0]), accumulate=True)
    part = Evidence(
        rows=rows,
        numbers=graph.atomic_numbers,
        sizes=log_sizes(finite["forces"], finite["magforces"], graph.magmoms),
        system=graph.system_idx + first,
        composition=counts,
        errors=_errors(batch, output),
    )
    for name in ("rows", "sizes"):
        setattr(part, name, getattr(part, name).double().cpu())
    part.numbers, part.system, part.composition = part.numbers.cpu(), part.system.cpu(), counts.cpu()
    part.errors = {target: error.double().cpu() for target, error in part.errors.items()}
    return part


def _errors(batch: LabelledBatch, output: dict[str, Tensor]) -> dict[str, Tensor]:
    """Errors of every target by components."""
    moments = batch.graph.magmoms.double()
    unit = moment_directions(moments)
    told = torch.linalg.norm(moments, dim=1) >= SMALLEST_MOMENT
    axes = torch.stack([unit, *_perpendicular(unit)], dim=1)
    label, found = (
        torch.where(told[:, None], torch.einsum("nij,nj->ni", axes, value.double()), torch.nan)
        for value in (batch.magforces, output["magforces"])
    )
    stress, found_stress = (value.double()[:, *_UPPER] for value in (batch.stress, output["stress"]))
    turned = _difference(label, found, "magforces")
    return {
        "energy": ((output["energy"] - batch.energy) / batch.n_atoms)[:, None],
        "stress": _difference(stress, found_stress, "stress"),
        "forces": _difference(batch.forces.double(), output["forces"].double(), "forces"),
        "magforces_length": turned[:, :1],
        "magforces_transverse": turned[:, 1:],
    }


_UPPER = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])


def _difference(label: Tensor, found: Tensor, kind: str) -> Tensor:
    """Errors of components; NaN where both are zero."""
    zero = (label.abs() < ZERO[kind]) & (found.abs() < ZERO[kind])
    return torch.where(zero, torch.nan, found - label)


def _perpendicular(unit: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """Two unit vectors perpendicular to each and to one another."""
    least = torch.nn.functional.one_hot(unit.abs().argmin(dim=1), 3).to(unit)
    first = torch.linalg.cross(unit, least)
    first = first / torch.linalg.norm(first, dim=1, keepdim=True).clamp(min=1e-12)
    return first, torch.linalg.cross(unit, first)
