"""Weights of the published magnetic MACE code, put into a :class:`~mmace_sim.model.paper_mmace.PaperMMACE`."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmace_sim.errors import ModelFileError
from mmace_sim.model.paper_mmace import PaperConfig, PaperLayer, PaperMMACE
from mmace_sim.nn.angular import symmetric_couplings
from mmace_sim.nn.ops import SILU_NORM, ChannelLinear, Mlp, SpeciesLinear
from mmace_sim.nn.paper_interaction import coupling_paths
from mmace_sim.nn.paper_product import SELF_MLP
from mmace_sim.nn.product import SymmetricContraction

E3NN_SILU_NORM: float = 1.6791767923989418
"""Factor that e3nn puts behind silu (a Monte Carlo estimate with a fixed seed)."""

_INERT = re.compile(
    r"(\.bias|\.output_mask|\.conv_tp\.weight|\.magmom_conv_tp\.weight|\._w3j_\d_\d_\d|\.U_matrix_\d|\.n"
    r"|bessel_fn\.(r_max|prefactor)|cutoff_fn\.r_max|\.weights_(max|\d+)_zeroed)$|^num_interactions$"
    r"|^(magmom_products|magmom_readouts|spherical_harmonics|mag_solid_harmoics)\."
)
"""Entries that hold no weight of their own: masks, coupling coefficients, unused modules."""


class UpstreamWeights:
    """Arrays by upstream's names, that remembers which were used.

    Args:
        arrays: The state dictionary.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = arrays
        self.used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def __call__(self, name: str, *shape: int) -> Tensor:
        """An array as float64, in a shape if one is given.

        Raises:
            ModelFileError: If there is no such array or its size is another.
        """
        if name not in self.arrays:
            raise ModelFileError(
                f"the upstream model has no weight '{name}', which this architecture needs; it is another "
                "architecture than the published spin-orbit-coupled one."
            )
        self.used.add(name)
        array = torch.as_tensor(np.array(self.arrays[name], dtype=np.float64))
        if shape and array.numel() != math.prod(shape):
            raise ModelFileError(
                f"upstream weight '{name}' has shape {tuple(array.shape)}, expected {shape}: the model has another "
                "size or architecture than its other weights say."
            )
        return array.reshape(shape) if shape else array

    def count(self, pattern: str) -> int:
        """How many consecutive numbers from zero a name pattern with ``{}`` goes through."""
        k = 0
        while any(name.startswith(pattern.format(k)) for name in self.arrays):
            k += 1
        return k

    def leftover(self) -> list[str]:
        """Names of arrays that hold weights and were not used."""
        return sorted(
            name
            for name, array in self.arrays.items()
            if name not in self.used and np.size(array) and not _INERT.search(name)
        )


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
    n_heads = _number_of_heads(weights)
    if not 0 <= head < n_heads:
        raise ModelFileError(f"the upstream model has {n_heads} head(s); there is no head number {head}.")
    model = PaperMMACE(read_config(weights, config))
    with torch.no_grad():
        _fill_atoms(model, weights, head)
        for k, layer in enumerate(model.layers):
            _fill_layer(layer, weights, k, model.config)
            _fill_readout(model.readouts[k], weights, f"readouts.{k}", head, n_heads)
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
    numbers = [int(z) for z in weights("atomic_numbers")]
    if numbers != sorted(numbers):
        raise ModelFileError(f"atomic_numbers {numbers} of the upstream model are not ascending.")
    K = weights("node_embedding.linear.weight").numel() // len(numbers)
    product = "products.0.symmetric_contractions.contractions"
    out_ell = weights.count(product + ".{}.") - 1
    n_bessel = weights("radial_embedding.bessel_fn.bessel_weights").numel()
    first_weights = _layer_shapes(weights, "interactions.0.conv_tp_weights")
    n_features, n_first = first_weights[0][0], first_weights[-1][1] // K
    max_ell = n_first - 1  # one path per degree of Y from scalars
    n_layers = weights.count("interactions.{}.")
    values = {
        "atomic_numbers": numbers,
        "r_max": float(weights("r_max")),
        "num_bessel": n_bessel,
        "num_polynomial_cutoff": int(weights("radial_embedding.cutoff_fn.p")),
        "max_ell": max_ell,
        "max_m_ell": _max_m_ell(weights, max_ell, K),
        "hidden_irreps": "+".join(f"{K}x{ell}{'eo'[ell % 2]}" for ell in range(out_ell + 1)),
        "num_interactions": n_layers,
        "correlation": 1 + weights.count(product + ".0.weights.{}"),
        "radial_mlp": [shape[1] for shape in first_weights[:-1]],
        "MLP_irreps": f"{_readout_channels(weights, n_layers)}x0e",
        "max_moment": dict(zip(numbers, weights("m_max").flatten().tolist(), strict=True)),
        "num_moment_basis": n_features - n_bessel,
        "num_one_body": max(weights("onebody_magmombasis_coeffs").shape[1] - 1, 1)
        if "onebody_magmombasis_coeffs" in weights
        else 1,
        "clamp": bool(config.get("clamp_moments", False)),
        "time_reversal": bool(config.get("time_reversal", False)),
        "saturate": bool(config.get("saturate", False)),
        "smooth_cutoff": bool(config.get("smooth_cutoff", False)),
    }
    for ours, theirs in _SAME.items():
        if theirs in config and not _equal(config[theirs], values[ours]):
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


def _equal(theirs: Any, ours: Any) -> bool:
    if isinstance(ours, str):
        return str(theirs).replace(" ", "") == ours
    if isinstance(ours, float):
        return bool(np.isclose(float(theirs), ours, rtol=1e-6))
    return theirs == ours


def _layer_shapes(weights: UpstreamWeights, name: str) -> list[tuple[int, int]]:
    n_layers = weights.count(name + ".layer{}.")
    if n_layers == 0:
        weights(f"{name}.layer0.weight")  # raises
    return [tuple(weights(f"{name}.layer{k}.weight").shape) for k in range(n_layers)]


def _max_m_ell(weights: UpstreamWeights, max_ell: int, n_channels: int) -> int:
    n_paths = _layer_shapes(weights, "interactions.0.conv_tp_weights_magmom")[0][1] // n_channels
    for max_m_ell in range(4):
        if len(coupling_paths(range(max_ell + 1), max_m_ell, max_ell)) == n_paths:
            return max_m_ell
    raise ModelFileError(
        f"interactions.0.conv_tp_weights_magmom has weights for {n_paths} paths, which no degree of the moments' "
        f"harmonics up to 3 gives with max_ell = {max_ell}."
    )


def _number_of_heads(weights: UpstreamWeights) -> int:
    return torch.atleast_2d(weights("atomic_energies_fn.atomic_energies")).shape[0]


def _readout_channels(weights: UpstreamWeights, n_layers: int) -> int:
    name = f"readouts.{n_layers - 1}.linear_2.weight"
    if name not in weights:
        return 16
    return weights(name).numel() // _number_of_heads(weights) ** 2


def _fill_atoms(model: PaperMMACE, weights: UpstreamWeights, head: int) -> None:
    """Embedding, reference energies and scale; the radial basis is checked only."""
    config = model.config
    n_species, K = len(config.atomic_numbers), config.num_channels
    model.embedding.copy_(weights("node_embedding.linear.weight", n_species, K) / math.sqrt(n_species))
    frequencies = weights("radial_embedding.bessel_fn.bessel_weights")
    if not torch.allclose(frequencies, model.radial_basis.frequencies, rtol=1e-5):
        raise ModelFileError(
            "radial_embedding.bessel_fn.bessel_weights of the upstream model were trained; only n π / r_max is "
            "supported."
        )
    scale = weights("scale_shift.scale").flatten()
    shift = weights("scale_shift.shift").flatten()
    scale, shift = scale[head if len(scale) > 1 else 0], shift[head if len(shift) > 1 else 0]
    model.scale.copy_(scale)
    reference = model.reference
    energies = torch.atleast_2d(weights("atomic_energies_fn.atomic_energies"))[head] + shift
    if "onebody_magmombasis_coeffs" in weights:
        coefficients = weights("onebody_magmombasis_coeffs")[:, :, head]
        constant = coefficients.sum(dim=1) - weights("one_body_magmom_const_correction")[:, head]
        energies = energies + scale * constant  # all T_n are 1 for a zero moment
        reference.one_body[:, : coefficients.shape[1] - 1] = scale * coefficients[:, 1:]
    reference.atomic_energies.copy_(energies)


def _fill_layer(layer: PaperLayer, weights: UpstreamWeights, k: int, config: PaperConfig) -> None:
    n_species = len(config.atomic_numbers)
    block, interaction = f"interactions.{k}", layer.interaction
    _fill_linears(interaction.linears_up, weights, f"{block}.linear_up.weight")
    _fill_mlp(
        [*interaction.radial.weights, interaction.first_weights.weight], weights, f"{block}.conv_tp_weights"
    )
    _fill_mlp([interaction.second_weights.weight], weights, f"{block}.conv_tp_weights_magmom")
    _fill_mlp(interaction.density.weights, weights, f"{block}.density_fn")
    _fill_linears(interaction.mix, weights, f"{block}.magmom_linear.weight")
    if interaction.species_mix is not None:
        _fill_species(interaction.species_mix, weights, f"{block}.magmom_skip_tp.weight", n_species)
    if layer.skip is not None:
        _fill_species(layer.skip, weights, f"{block}.skip_tp.weight", n_species)
    block, product = f"products.{k}", layer.product
    for ell, contraction in enumerate(product.contractions):
        _fill_contraction(
            contraction, weights, f"{block}.symmetric_contractions.contractions.{ell}", config, ell
        )
    if [shape[1] for shape in _layer_shapes(weights, f"{block}.conv_tp_weights")[:-1]] != list(SELF_MLP):
        raise ModelFileError(f"{block}.conv_tp_weights has other widths than the published {list(SELF_MLP)}.")
    _fill_mlp(product.moment_network.weights, weights, f"{block}.conv_tp_weights")
    _fill_linears(product.linears_moment, weights, f"{block}.linear.weight")
    _fill_linears(product.linears, weights, f"{block}.linear_ori.weight")


def _fill_readout(readout: nn.Module, weights: UpstreamWeights, name: str, head: int, n_heads: int) -> None:
    if isinstance(readout, Mlp):
        first, second = readout.weights
        n_in, n_hidden = first.shape
        first.copy_(weights(f"{name}.linear_1.weight", n_in, n_heads, n_hidden)[:, head])
        last = weights(f"{name}.linear_2.weight", n_heads, n_hidden, n_heads)[head, :, head]
        second.copy_(last[:, None] * (E3NN_SILU_NORM / SILU_NORM / math.sqrt(n_heads)))
    else:
        readout.weight.copy_(weights(f"{name}.linear.weight", readout.weight.numel(), n_heads)[:, head])


def _fill_linears(linears: Iterable[ChannelLinear], weights: UpstreamWeights, name: str) -> None:
    """Linear maps of each degree, which upstream stores one after another, transposed."""
    linears = list(linears)
    flat = weights(name, sum(linear.weight.numel() for linear in linears))
    for linear, part in zip(linears, flat.split([x.weight.numel() for x in linears]), strict=True):
        linear.weight.copy_(part.view(linear.weight.shape[1], linear.weight.shape[0]).T)


def _fill_species(
    linears: Iterable[SpeciesLinear], weights: UpstreamWeights, name: str, n_species: int
) -> None:
    """Linear maps of each element, stored as (in, element, out) and normalised by the number of elements too."""
    linears = list(linears)
    flat = weights(name, sum(linear.weight.numel() for linear in linears))
    for linear, part in zip(linears, flat.split([x.weight.numel() for x in linears]), strict=True):
        n_out, n_in = linear.weight.shape[1:]
        linear.weight.copy_(part.view(n_in, n_species, n_out).permute(1, 2, 0) / math.sqrt(n_species))


def _fill_mlp(layers: Iterable[nn.Parameter], weights: UpstreamWeights, name: str) -> None:
    """Layers of a network; the last digits of e3nn's factor behind silu go into the layer after it."""
    for k, weight in enumerate(layers):
        factor = E3NN_SILU_NORM / SILU_NORM if k else 1.0
        weight.copy_(weights(f"{name}.layer{k}.weight", *weight.shape) * factor)


def _fill_contraction(
    contraction: SymmetricContraction, weights: UpstreamWeights, name: str, config: PaperConfig, ell: int
) -> None:
    """Weights of the symmetric contraction, from upstream's over-complete couplings to our independent ones."""
    n_species, K = len(config.atomic_numbers), config.num_channels
    for nu, weight in enumerate(contraction.weights, start=1):
        # upstream keeps the highest order apart, then goes down
        ours = symmetric_couplings(config.max_ell, nu, ell).flatten(1)
        index = config.correlation - nu - 1
        source = f"{name}.weights_max" if index < 0 else f"{name}.weights.{index}"
        theirs = weights(source)
        if theirs.shape[::2] != (n_species, K):
            raise ModelFileError(
                f"upstream weight '{source}' has shape {tuple(theirs.shape)}, expected ({n_species}, n_paths, {K})."
            )
        couplings = _upstream_couplings(weights, f"{name}.U_matrix_{nu}", config.max_ell, nu, ell)
        if couplings.shape[0] != theirs.shape[1]:
            raise ModelFileError(
                f"upstream weight '{source}' has {theirs.shape[1]} paths, but there are {couplings.shape[0]} couplings."
            )
        projection = torch.linalg.lstsq(ours.T, couplings.flatten(1).T).solution
        if not torch.allclose(ours.T @ projection, couplings.flatten(1).T, atol=1e-5):
            raise ModelFileError(f"the couplings '{name}.U_matrix_{nu}' are not those of MACE.")
        weight.copy_(torch.einsum("qp,zpk->zqk", projection, theirs))


def _upstream_couplings(weights: UpstreamWeights, name: str, max_ell: int, nu: int, ell: int) -> Tensor:
    """MACE's couplings, symmetrised in their arguments, of shape (n_paths, 2·ell+1, n, …)."""
    if name not in weights:
        raise ModelFileError(f"the upstream model has no '{name}', without which its weights mean nothing.")
    n = (max_ell + 1) ** 2
    tensor = weights(name)
    tensor = tensor.reshape(2 * ell + 1, *[n] * nu, tensor.shape[-1]).movedim(-1, 0)
    reordered = [tensor.permute(0, 1, *order) for order in itertools.permutations(range(2, nu + 2))]
    return sum(reordered) / len(reordered)
