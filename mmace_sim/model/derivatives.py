"""Forces, stress and magforces of an energy model in one backward pass."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from mmace_sim.errors import UnsupportedElementError
from mmace_sim.graph.batch import MagneticGraph, sum_by_system

EnergyModel = Callable[..., dict[str, Tensor]]
"""Gives "energy" (n_systems,) and "node_energy" (n_atoms,), in eV, as a differentiable function of pair vectors and
of the moments of the graph: ``model(graph, edge_vectors)``."""


def evaluate(
    model: EnergyModel,
    graph: MagneticGraph,
    *,
    compute_forces: bool = True,
    compute_stress: bool = True,
    compute_magforces: bool = True,
    training: bool = False,
) -> dict[str, Tensor]:
    """Energy and its derivatives.

    The energy depends on positions and cell through the pair vectors alone, so one gradient by those gives the
    forces −∂E/∂r and the stress (1/V) Σ_ij sym(∂E/∂r_ij ⊗ r_ij); moments do not change under strain.

    Args:
        model: The energy model.
        graph: The batch.
        compute_forces: Whether to return forces.
        compute_stress: Whether to return stresses.
        compute_magforces: Whether to return magforces.
        training: Keep the graph of the derivatives, so that losses of them can be differentiated.

    Returns:
        "energy" (n_systems,) and "node_energy" (n_atoms,) in eV and float64, and as asked "forces" (n_atoms, 3)
        in eV/Å, "stress" (n_systems, 3, 3) in eV/Å³ with tension positive (zero where the cell has no volume),
        "magforces" = −∂E/∂m (n_atoms, 3) in eV/μB.

    Raises:
        UnsupportedElementError: If the graph holds an element that the model was not made for.
    """
    check_graph(model, graph)
    with torch.inference_mode(mode=False), torch.enable_grad():
        graph = graph.map(ordinary)
        vectors = graph.edge_vectors().detach().requires_grad_(compute_forces or compute_stress)
        magmoms = graph.magmoms.detach().requires_grad_(compute_magforces)
        out = model(replace(graph, magmoms=magmoms), vectors)
        variables = [v for v in (vectors, magmoms) if v.requires_grad]
        gradients: dict[int, Tensor] = {}
        if variables:
            grads = torch.autograd.grad(
                out["energy"].sum(),
                variables,
                create_graph=training,
                retain_graph=training,
                materialize_grads=True,
                allow_unused=True,
            )
            gradients = {id(v): g for v, g in zip(variables, grads, strict=True)}
        result = dict(out) if training else {key: value.detach() for key, value in out.items()}
        if compute_magforces:
            result["magforces"] = -gradients[id(magmoms)]
        if compute_forces:
            result["forces"] = _forces(graph, gradients[id(vectors)])
        if compute_stress:
            result["stress"] = _stress(graph, vectors.detach(), gradients[id(vectors)])
    return result


def check_graph(model: EnergyModel, graph: MagneticGraph) -> None:
    """`check_elements`, once for graphs that share their elements.

    Raises:
        UnsupportedElementError: If the model was not made for an element.
    """
    table, numbers = getattr(model, "species_table", None), graph.atomic_numbers

    def check() -> bool:
        check_elements(model, numbers)
        return True

    graph.kept.get("known elements", (table, numbers), check)


def check_elements(model: EnergyModel, atomic_numbers: Tensor) -> None:
    """Make sure that a model was made for all elements.

    Args:
        model: A model with a table of species; one without, which takes all elements, is not checked.
        atomic_numbers: Of the atoms.

    Raises:
        UnsupportedElementError: If it was not.
    """
    table = getattr(model, "species_table", None)
    if table is None:
        return
    inside = (atomic_numbers >= 0) & (atomic_numbers < len(table))
    species = table[torch.where(inside, atomic_numbers, 0).long()]
    unknown = ~inside | (species < 0)
    if bool(unknown.any()):
        raise UnsupportedElementError(
            f"atomic numbers {sorted(set(atomic_numbers[unknown].tolist()))} are not among the model's elements "
            f"{getattr(model, 'elements', '')}."
        )


def ordinary(tensor: Tensor) -> Tensor:
    """A tensor that may take part in derivatives: those made in ``torch.inference_mode`` may not.

    Returns:
        The same, or a copy.
    """
    with torch.inference_mode(mode=False):
        return tensor.clone() if tensor.is_inference() else tensor


def _forces(graph: MagneticGraph, gradient: Tensor) -> Tensor:
    sender, receiver = graph.edge_index
    zeros = torch.zeros_like(graph.positions)
    return zeros.index_add(0, receiver, gradient) - zeros.index_add(0, sender, gradient)


def _stress(graph: MagneticGraph, vectors: Tensor, gradient: Tensor) -> Tensor:
    system = graph.system_idx[graph.edge_index[1]]
    products = gradient[:, :, None] * vectors[:, None, :]
    virial = sum_by_system(products, system, graph.n_systems)
    volume = torch.linalg.det(graph.cell).abs()[:, None, None]
    stress = 0.5 * (virial + virial.mT) / volume.clamp(min=1e-30)
    return torch.where(volume > 1e-10, stress, torch.zeros_like(stress))
