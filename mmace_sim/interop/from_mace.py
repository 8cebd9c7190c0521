"""Weights of the published magnetic MACE code, put into a :class:`~mmace_sim.architectures.paper_mmace.PaperMMACE`."""

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmace_sim.architectures.paper_interaction import DensityKind, coupling_paths
from mmace_sim.architectures.paper_mmace import PaperConfig, PaperLayer, PaperMMACE
from mmace_sim.architectures.paper_product import SELF_MLP
from mmace_sim.errors import ModelFileError
from mmace_sim.hub.foundations import fetch_foundation, foundation
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
    layer_shapes,
    number_of_heads,
)
from mmace_sim.interop.one_body_weights import fill_one_body, one_body_fields
from mmace_sim.nn.mace_blocks import FoundationRadialBasis

_log = logging.getLogger(__name__)


def from_upstream(
    config: Mapping[str, Any], state_dict: Mapping[str, np.ndarray], *, head: int = 0
) -> PaperMMACE:
    """Convert weights of the published code.

    All sizes are read off the arrays. `config` adds what those cannot tell ("clamp_moments", and the repairs
    "time_reversal", "saturate", "smooth_cutoff") and is checked against them.

    Args:
        config: Hyper-parameters by upstream's names.
        state_dict: Arrays by upstream's names.
        head: Number of the head to keep, for models with several.

    Returns:
        The model in float64, with the function of the upstream model.

    Raises:
        ModelFileError: If a weight is missing, unknown or of the wrong size, or contradicts `config`.
    """
    weights = UpstreamWeights(state_dict)
    n_heads = number_of_heads(weights)
    if not 0 <= head < n_heads:
        raise ModelFileError(f"the upstream model has {n_heads} head(s); there is no head number {head}.")
    model = PaperMMACE(read_config(weights, config))
    numbers = _element_numbers(weights)
    rows = [numbers.index(z) for z in model.elements]
    with torch.no_grad():
        _fill_atoms(model, weights, head, rows)
        for k, layer in enumerate(model.layers):
            _fill_layer(layer, weights, k, model.config, rows)
            fill_readout(model.readouts[k], weights, f"readouts.{k}", head, n_heads)
    unknown = weights.leftover()
    if unknown:
        raise ModelFileError(
            f"the upstream model holds weights that this architecture does not have: {', '.join(unknown[:5])}"
            f"{' ...' if len(unknown) > 5 else ''}. It is another architecture than the published one."
        )
    return model


def read_config(weights: UpstreamWeights, config: Mapping[str, Any]) -> PaperConfig:
    """Hyper-parameters of an upstream model, from the shapes of its weights.

    Args:
        weights: Weights.
        config: What the shapes do not tell, and what they are checked against.

    Raises:
        ModelFileError: If the weights are of another architecture or contradict `config`.
    """
    numbers = _element_numbers(weights)
    fields = common_fields(weights, len(numbers))
    n_features = layer_shapes(weights, "interactions.0.conv_tp_weights")[0][0]
    values = fields | {
        "atomic_numbers": sorted(numbers),
        "max_m_ell": _max_m_ell(weights, fields["max_ell"], int(fields["hidden_irreps"].split("x")[0])),
        "max_moment": dict(zip(numbers, weights("m_max").flatten().tolist(), strict=True)),
        "num_moment_basis": n_features - fields["num_bessel"],
        "distance_transform": "agnesi" if f"{TRANSFORM}.q" in weights else "none",
        "pair_repulsion": bool(config.get("pair_repulsion", f"{REPULSION}.c" in weights)),
        "stored_bessel": not _usual_bessel(weights, fields),
        "first_density": _density(weights, 0, fields["num_bessel"]),
        "later_density": _later_density(weights, fields),
        **one_body_fields(weights),
        "clamp": bool(config.get("clamp_moments", False)),
        "time_reversal": bool(config.get("time_reversal", False)),
        "saturate": bool(config.get("saturate", False)),
        "smooth_cutoff": bool(config.get("smooth_cutoff", False)),
    }
    for ours, theirs in _SAME.items():
        if theirs in config and not _equal(
            config[theirs], numbers if ours == "atomic_numbers" else values[ours]
        ):
            raise ModelFileError(
                f"the upstream configuration says {theirs} = {config[theirs]}, but the weights say {values[ours]}."
            )
    return PaperConfig.model_validate(values)


_SAME = {
    "atomic_numbers": "atomic_numbers",
    "r_max": "r_max",
    "num_bessel": "num_bessel",
    "num_polynomial_cutoff": "num_polynomial_cutoff",
    "max_ell": "max_ell",
    "max_m_ell": "max_m_ell",
    "hidden_irreps": "hidden_irreps",
    "num_interactions": "num_interactions",
    "correlation": "correlation",
    "radial_mlp": "radial_MLP",
    "num_moment_basis": "num_mag_radial_basis",
}
"""Our hyper-parameters whose upstream counterparts have the same value."""


def _element_numbers(weights: UpstreamWeights) -> list[int]:
    """Atomic numbers in upstream's order, which need not be ascending."""
    numbers = [int(z) for z in weights("atomic_numbers")]
    if len(set(numbers)) < len(numbers):
        raise ModelFileError(f"atomic_numbers {numbers} of the upstream model name an element twice.")
    return numbers


def _equal(theirs: Any, ours: object) -> bool:
    if isinstance(ours, str):
        return str(theirs).replace(" ", "") == ours
    if isinstance(ours, float):
        return bool(np.isclose(float(theirs), ours, rtol=1e-6))
    return theirs == ours


def _max_m_ell(weights: UpstreamWeights, max_ell: int, n_channels: int) -> int:
    n_paths = layer_shapes(weights, "interactions.0.conv_tp_weights_magmom")[0][1] // n_channels
    for max_m_ell in range(4):
        if len(coupling_paths(range(max_ell + 1), max_m_ell, max_ell)) == n_paths:
            return max_m_ell
    raise ModelFileError(
        f"interactions.0.conv_tp_weights_magmom has weights for {n_paths} paths, which no degree of the moments' "
        f"harmonics up to 3 gives with max_ell = {max_ell}."
    )


def _usual_bessel(weights: UpstreamWeights, fields: Mapping[str, Any]) -> bool:
    """Whether the radial functions are those of n π / r_max to the last digit."""
    usual = FoundationRadialBasis(fields["r_max"], fields["num_bessel"], 2, None)
    name = "radial_embedding.bessel_fn"
    pairs = (("bessel_weights", usual.frequencies), ("prefactor", usual.prefactor.reshape(1)))
    return all(
        torch.allclose(weights(f"{name}.{key}").flatten(), value, rtol=1e-14, atol=0.0)
        for key, value in pairs
    )


def _density(weights: UpstreamWeights, layer: int, num_bessel: int) -> DensityKind:
    """What the messages of a layer are divided by."""
    if f"interactions.{layer}.density_gate.layer0.weight" in weights:
        return "gated"
    n_features = layer_shapes(weights, f"interactions.{layer}.density_fn")[0][0]
    return "distance" if n_features == num_bessel else "moment"


def _later_density(weights: UpstreamWeights, fields: Mapping[str, Any]) -> DensityKind:
    kinds = {_density(weights, k, fields["num_bessel"]) for k in range(1, fields["num_interactions"])}
    if len(kinds) > 1:
        raise ModelFileError("the layers after the first divide their messages by different densities.")
    return kinds.pop() if kinds else "distance"


def _fill_atoms(model: PaperMMACE, weights: UpstreamWeights, head: int, rows: Sequence[int]) -> None:
    """Embedding, radial basis, repulsion, reference energies and scale."""
    config = model.config
    n_species, K = len(config.atomic_numbers), config.num_channels
    embedding = weights("node_embedding.linear.weight", n_species, K)
    model.embedding.copy_(embedding[rows] / math.sqrt(n_species))
    if config.stored_bessel:
        fill_bessel(model.radial_basis, weights)
    if model.radial_basis.transform is not None:
        fill_table(model.radial_basis.transform, weights, TRANSFORM, model.elements)
    if model.repulsion is not None:
        fill_table(model.repulsion, weights, REPULSION, model.elements)
    scale = weights("scale_shift.scale").flatten()
    shift = weights("scale_shift.shift").flatten()
    scale, shift = scale[head if len(scale) > 1 else 0], shift[head if len(shift) > 1 else 0]
    model.scale.copy_(scale)
    energies = torch.atleast_2d(weights("atomic_energies_fn.atomic_energies"))[head][rows] + shift
    energies = energies + fill_one_body(model.reference, weights, head, scale, rows)
    model.reference.atomic_energies.copy_(energies)


def _fill_layer(
    layer: PaperLayer, weights: UpstreamWeights, k: int, config: PaperConfig, rows: Sequence[int]
) -> None:
    n_species = len(config.atomic_numbers)
    block, interaction = f"interactions.{k}", layer.interaction
    fill_linears(interaction.linears_up, weights, f"{block}.linear_up.weight")
    fill_mlp(
        [*interaction.radial.weights, interaction.first_weights.weight], weights, f"{block}.conv_tp_weights"
    )
    fill_mlp([interaction.second_weights.weight], weights, f"{block}.conv_tp_weights_magmom")
    fill_mlp(interaction.density.weights, weights, f"{block}.density_fn")
    if interaction.moment_density is not None and interaction.density_gate is not None:
        fill_mlp(interaction.moment_density.weights, weights, f"{block}.density_fn_magmom")
        fill_mlp(interaction.density_gate.weights, weights, f"{block}.density_gate")
    fill_linears(interaction.mix, weights, f"{block}.magmom_linear.weight")
    if interaction.species_mix is not None:
        fill_species(interaction.species_mix, weights, f"{block}.magmom_skip_tp.weight", n_species, rows)
    if layer.skip is not None:
        fill_species(layer.skip, weights, f"{block}.skip_tp.weight", n_species, rows)
    block, product = f"products.{k}", layer.product
    for ell, contraction in enumerate(product.contractions):
        fill_contraction(
            contraction, weights, f"{block}.symmetric_contractions.contractions.{ell}", config, ell, rows
        )
    if [shape[1] for shape in layer_shapes(weights, f"{block}.conv_tp_weights")[:-1]] != list(SELF_MLP):
        raise ModelFileError(f"{block}.conv_tp_weights has other widths than the published {list(SELF_MLP)}.")
    fill_mlp(product.moment_network.weights, weights, f"{block}.conv_tp_weights")
    fill_linears(product.linears_moment, weights, f"{block}.linear.weight")
    fill_linears(product.linears, weights, f"{block}.linear_ori.weight")


def download_foundation(name: str) -> Path:
    """Checkpoint of a foundation model by its name, from the cache of mace-torch or fetched into it.

    Args:
        name: Name in mace-torch's list of MACE-MP models.

    Raises:
        ModelFileError: If there is no such name, or it cannot be fetched.
    """
    with _torch_as_safe_as_before():
        from mace.calculators import foundations_models  # heavy, and only needed for names
        from mace.tools.utils import get_cache_dir

    urls = foundations_models.mace_mp_urls
    _log.warning("foundation %s: licence %s", name, foundation(name, urls).license)
    return fetch_foundation(name, urls, Path(get_cache_dir()))


@contextmanager
def _torch_as_safe_as_before() -> Iterator[None]:
    """Put back the switch with which mace-torch, when imported, lets `torch.load` run any code in the whole process."""
    switch = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(switch)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(switch, None)
        else:
            os.environ[switch] = before
