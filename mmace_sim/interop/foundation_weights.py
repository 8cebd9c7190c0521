"""Weights of non-magnetic MACE models, put into :class:`~mmace_sim.architectures.foundation_mmace.FoundationMMACE`."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmace_sim.architectures.foundation_mmace import FoundationLayer, FoundationMMACE
from mmace_sim.errors import ModelFileError
from mmace_sim.interop.mace_weights import (
    REPULSION,
    TRANSFORM,
    UpstreamWeights,
    common_fields,
    fill_bessel,
    fill_contraction,
    fill_linears,
    fill_mlp,
    fill_readout,
    fill_species,
    fill_table,
    number_of_heads,
)

PRODUCT = "products.{}.symmetric_contractions.contractions"


def backbone_fields(weights: UpstreamWeights, *, residual_first: bool) -> dict[str, Any]:
    """Hyper-parameters of a MACE model, from the shapes of its weights.

    Args:
        weights: Weights.
        residual_first: Whether the first layer has a residual connection.

    Raises:
        ModelFileError: If the weights are of another architecture.
    """
    return common_fields(weights, len(element_numbers(weights))) | {
        "density_normalization": "interactions.0.density_fn.layer0.weight" in weights,
        "residual_first": residual_first,
        "distance_transform": "agnesi" if f"{TRANSFORM}.q" in weights else "none",
        "pair_repulsion": f"{REPULSION}.c" in weights,
    }


def element_numbers(weights: UpstreamWeights) -> list[int]:
    """Atomic numbers of the model, in its order."""
    return [int(z) for z in weights("atomic_numbers")]


@torch.no_grad()
def fill_foundation(model: FoundationMMACE, weights: UpstreamWeights, head: int) -> None:
    """Put the weights into a model, for its elements only.

    Args:
        model: Model of the right size.
        weights: Weights.
        head: Number of the head to keep.

    Raises:
        ModelFileError: If a weight is missing, unknown or of the wrong size.
    """
    numbers, n_heads = element_numbers(weights), number_of_heads(weights)
    rows = [numbers.index(z) for z in model.elements]
    embedding = weights("node_embedding.linear.weight", len(numbers), model.config.num_channels)
    model.embedding.copy_(embedding[rows] / math.sqrt(len(numbers)))
    fill_bessel(model.radial_basis, weights)
    if model.radial_basis.transform is not None:
        fill_table(model.radial_basis.transform, weights, TRANSFORM, model.elements)
    if model.repulsion is not None:
        fill_table(model.repulsion, weights, REPULSION, model.elements)
    for k, layer in enumerate(model.layers):
        _fill_layer(layer, weights, k, model, rows)
        fill_readout(model.readouts[k], weights, f"readouts.{k}", head, n_heads)
    _fill_energies(model, weights, head, rows)
    unknown = weights.leftover()
    if unknown:
        raise ModelFileError(
            f"the model holds weights that are not supported: {', '.join(unknown[:5])}"
            f"{' ...' if len(unknown) > 5 else ''}."
        )


def _fill_layer(
    layer: FoundationLayer, weights: UpstreamWeights, k: int, model: FoundationMMACE, rows: Sequence[int]
) -> None:
    config, block = model.config, f"interactions.{k}"
    interaction, n_species = layer.interaction, len(element_numbers(weights))
    fill_linears(interaction.space.linears_up, weights, f"{block}.linear_up.weight")
    out = interaction.radial_out.weights[0]
    fill_mlp([*interaction.radial.weights, out], weights, f"{block}.conv_tp_weights")
    _order_paths(out, interaction.space.paths, config.num_channels)
    fill_linears(interaction.mix, weights, f"{block}.linear.weight")
    # our harmonics are divided by the square root of the average number of neighbours
    if interaction.density is not None:
        fill_mlp(interaction.density.weights, weights, f"{block}.density_fn")
    power = -0.5 if interaction.density is None else 0.5
    for mix in interaction.mix:
        mix.weight.mul_(config.avg_num_neighbors**power)
    if interaction.species_mix is not None:
        fill_species(interaction.species_mix, weights, f"{block}.skip_tp.weight", n_species, rows)
    if len(layer.skip):
        fill_species(layer.skip, weights, f"{block}.skip_tp.weight", n_species, rows)
    for ell, contraction in enumerate(layer.product.contractions):
        fill_contraction(contraction, weights, f"{PRODUCT.format(k)}.{ell}", config, ell, rows)
    fill_linears(layer.product.linears, weights, f"products.{k}.linear.weight")


def _order_paths(weight: Tensor, paths: Sequence[tuple[int, int, int]], n_channels: int) -> None:
    """Bring the radial weights of the paths from upstream's order, by the degree of the result, into ours."""
    theirs = sorted(paths, key=lambda path: path[2])
    blocks = weight.clone().split(n_channels, dim=1)
    weight.copy_(torch.cat([blocks[theirs.index(path)] for path in paths], dim=1))


def _fill_energies(model: FoundationMMACE, weights: UpstreamWeights, head: int, rows: Sequence[int]) -> None:
    """Scale, and energies of isolated atoms, to which the network contributes."""
    scale, shift = torch.ones(()), torch.zeros(())
    if "scale_shift.scale" in weights:
        scales, shifts = (weights(f"scale_shift.{name}").flatten() for name in ("scale", "shift"))
        scale, shift = scales[head if len(scales) > 1 else 0], shifts[head if len(shifts) > 1 else 0]
    model.scale.copy_(scale)
    energies = torch.atleast_2d(weights("atomic_energies_fn.atomic_energies"))[head, rows]
    isolated = model._isolated()
    energies = energies + shift + model.scale * isolated
    model.reference.atomic_energies.copy_(energies.repeat(len(model.heads)))
