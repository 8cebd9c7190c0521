"""Weights of MACE models as upstream stores them, put into our modules."""

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmace_sim.errors import ModelFileError
from mmace_sim.model.config import ArchitectureConfig
from mmace_sim.nn.angular import symmetric_couplings
from mmace_sim.nn.mace_blocks import ElementTable, FoundationRadialBasis, PairRepulsion
from mmace_sim.nn.ops import SILU_NORM, ChannelLinear, Mlp, SpeciesLinear
from mmace_sim.nn.product import SymmetricContraction
from mmace_sim.nn.readout import Readout

E3NN_SILU_NORM: float = 1.6791767923989418
"""Factor that e3nn puts behind silu (a Monte Carlo estimate with a fixed seed)."""

ALL_ELEMENTS: slice = slice(None)

TRANSFORM: str = "radial_embedding.distance_transform"
REPULSION: str = "pair_repulsion_fn"

_INERT = re.compile(
    r"(\.bias|\.output_mask|\.conv_tp\.weight|\.magmom_conv_tp\.weight|\._w3j_\d_\d_\d|\.U_matrix_\d|\.n"
    r"|bessel_fn\.(r_max|prefactor)|cutoff_fn\.r_max|\.weights_(max|\d+)_zeroed)$|^num_interactions$"
    r"|^pair_repulsion_fn\.(cutoff\.p|cutoff\.r_max|r_max)$|^one_body_magmom_exp_scaling$"
    r"|^(magmom_products|magmom_readouts|spherical_harmonics|mag_solid_harmoics|joint_embedding|embedding_readout)\."
)
"""Entries that hold no weight of their own: masks, coupling coefficients, modules that are not called, and what older
versions left behind."""


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


def layer_shapes(weights: UpstreamWeights, name: str) -> list[tuple[int, int]]:
    """Shapes of the layers of an e3nn network."""
    n_layers = weights.count(name + ".layer{}.")
    if n_layers == 0:
        weights(f"{name}.layer0.weight")  # raises
    shapes = [weights(f"{name}.layer{k}.weight").shape for k in range(n_layers)]
    return [(shape[0], shape[1]) for shape in shapes]


def number_of_heads(weights: UpstreamWeights) -> int:
    """Number of heads of the model."""
    return torch.atleast_2d(weights("atomic_energies_fn.atomic_energies")).shape[0]


def readout_channels(weights: UpstreamWeights, n_layers: int) -> int:
    """Width of one head of the last readout; 16 where that is linear."""
    name = f"readouts.{n_layers - 1}.linear_2.weight"
    if name not in weights:
        return 16
    return weights(name).numel() // number_of_heads(weights) ** 2


def common_fields(weights: UpstreamWeights, n_species: int) -> dict[str, Any]:
    """Hyper-parameters that every MACE has, from the shapes of its weights."""
    product = "products.0.symmetric_contractions.contractions"
    K = weights("node_embedding.linear.weight").numel() // n_species
    hidden_ell = weights.count(product + ".{}.") - 1
    shapes = layer_shapes(weights, "interactions.0.conv_tp_weights")
    n_layers = weights.count("interactions.{}.")
    return {
        "r_max": float(weights("r_max")),
        "num_bessel": weights("radial_embedding.bessel_fn.bessel_weights").numel(),
        "num_polynomial_cutoff": int(weights("radial_embedding.cutoff_fn.p")),
        "max_ell": shapes[-1][1] // K - 1,  # one path per degree of Y from scalars
        "hidden_irreps": "+".join(f"{K}x{ell}{'eo'[ell % 2]}" for ell in range(hidden_ell + 1)),
        "num_interactions": n_layers,
        "correlation": 1 + weights.count(product + ".0.weights.{}"),
        "radial_mlp": [shape[1] for shape in shapes[:-1]],
        "MLP_irreps": f"{readout_channels(weights, n_layers)}x0e",
    }


def fill_readout(readout: Readout, weights: UpstreamWeights, name: str, head: int, n_heads: int) -> None:
    """A readout, of which one head is kept."""
    if isinstance(readout, Mlp):
        first, second = readout.weights
        n_in, n_hidden = first.shape
        first.copy_(weights(f"{name}.linear_1.weight", n_in, n_heads, n_hidden)[:, head])
        last = weights(f"{name}.linear_2.weight", n_heads, n_hidden, n_heads)[head, :, head]
        second.copy_(last[:, None] * (E3NN_SILU_NORM / SILU_NORM / math.sqrt(n_heads)))
    else:
        readout.weight.copy_(weights(f"{name}.linear.weight", readout.weight.numel(), n_heads)[:, head])


def fill_linears(linears: Iterable[ChannelLinear], weights: UpstreamWeights, name: str) -> None:
    """Linear maps of each degree, which upstream stores one after another, transposed."""
    linears = list(linears)
    flat = weights(name, sum(linear.weight.numel() for linear in linears))
    for linear, part in zip(linears, flat.split([x.weight.numel() for x in linears]), strict=True):
        linear.weight.copy_(part.view(linear.weight.shape[1], linear.weight.shape[0]).T)


def fill_species(
    linears: Iterable[SpeciesLinear],
    weights: UpstreamWeights,
    name: str,
    n_species: int,
    rows: Sequence[int] | slice = ALL_ELEMENTS,
) -> None:
    """Linear maps of each element, stored as (in, element, out) and normalised by the number of elements too.

    Args:
        linears: Maps of each degree, to fill.
        weights: Weights.
        name: Name of the array.
        n_species: Number of upstream's elements.
        rows: Which of them to keep.
    """
    linears = list(linears)
    sizes = [n_species * linear.weight[0].numel() for linear in linears]
    flat = weights(name, sum(sizes))
    for linear, part in zip(linears, flat.split(sizes), strict=True):
        n_out, n_in = linear.weight.shape[1:]
        kept = part.view(n_in, n_species, n_out).permute(1, 2, 0)[rows]
        linear.weight.copy_(kept / math.sqrt(n_species))


def fill_mlp(layers: Iterable[nn.Parameter], weights: UpstreamWeights, name: str) -> None:
    """Layers of a network; the last digits of e3nn's factor behind silu go into the layer after it."""
    for k, weight in enumerate(layers):
        factor = E3NN_SILU_NORM / SILU_NORM if k else 1.0
        weight.copy_(weights(f"{name}.layer{k}.weight", *weight.shape) * factor)


def fill_contraction(
    contraction: SymmetricContraction,
    weights: UpstreamWeights,
    name: str,
    config: ArchitectureConfig,
    ell: int,
    rows: Sequence[int] | slice = ALL_ELEMENTS,
) -> None:
    """Weights of the symmetric contraction, from upstream's over-complete couplings to our independent ones.

    Args:
        contraction: Contraction to fill.
        weights: Weights.
        name: Name of upstream's contraction.
        config: Hyper-parameters of our model.
        ell: Degree of the result.
        rows: Which of upstream's elements to keep.
    """
    K = config.num_channels
    for nu, weight in enumerate(contraction.weights, start=1):
        # upstream keeps the highest order apart, then goes down
        ours = symmetric_couplings(config.max_ell, nu, ell).flatten(1)
        index = config.correlation - nu - 1
        source = f"{name}.weights_max" if index < 0 else f"{name}.weights.{index}"
        theirs = weights(source)
        if theirs.shape[2:] != (K,) or len(theirs[rows]) != len(weight):
            raise ModelFileError(
                f"upstream weight '{source}' has shape {tuple(theirs.shape)}, expected (n_species, n_paths, {K})."
            )
        couplings = _upstream_couplings(weights, f"{name}.U_matrix_{nu}", config.max_ell, nu, ell)
        if couplings.shape[0] != theirs.shape[1]:
            raise ModelFileError(
                f"upstream weight '{source}' has {theirs.shape[1]} paths, but there are {couplings.shape[0]} couplings."
            )
        projection = torch.linalg.lstsq(ours.T, couplings.flatten(1).T).solution
        if not torch.allclose(ours.T @ projection, couplings.flatten(1).T, atol=1e-5):
            raise ModelFileError(f"the couplings '{name}.U_matrix_{nu}' are not those of MACE.")
        weight.copy_(torch.einsum("qp,zpk->zqk", projection, theirs[rows]))


def _upstream_couplings(weights: UpstreamWeights, name: str, max_ell: int, nu: int, ell: int) -> Tensor:
    """MACE's couplings, symmetrised in their arguments, of shape (n_paths, 2·ell+1, n, …)."""
    if name not in weights:
        raise ModelFileError(f"the upstream model has no '{name}', without which its weights mean nothing.")
    n = (max_ell + 1) ** 2
    tensor = weights(name)
    tensor = tensor.reshape(2 * ell + 1, *[n] * nu, tensor.shape[-1]).movedim(-1, 0)
    reordered = [tensor.permute(0, 1, *order) for order in itertools.permutations(range(2, nu + 2))]
    return reduce(torch.add, reordered) / len(reordered)


def fill_bessel(basis: FoundationRadialBasis, weights: UpstreamWeights) -> None:
    """Frequencies and prefactor of the radial functions, and the transformation of distances."""
    name = "radial_embedding.bessel_fn"
    basis.frequencies.copy_(weights(f"{name}.bessel_weights", *basis.frequencies.shape))
    basis.prefactor.copy_(weights(f"{name}.prefactor").reshape(()))


def fill_table(table: ElementTable, weights: UpstreamWeights, name: str, elements: Sequence[int]) -> None:
    """A formula of pairs of elements: covalent radii and constants.

    Args:
        table: `AgnesiTransform` or `PairRepulsion` to fill.
        weights: Weights.
        name: Where upstream has it.
        elements: Atomic numbers of our elements.

    Raises:
        ModelFileError: If the repulsion is cut off by another polynomial than the radial functions.
    """
    table.covalent_radii.copy_(weights(f"{name}.covalent_radii")[list(elements)])
    for key, buffer in table.named_buffers():
        if key not in ("covalent_radii", "charges"):
            buffer.copy_(weights(f"{name}.{key}").reshape(buffer.shape))
    if isinstance(table, PairRepulsion):
        table.charges.copy_(torch.tensor(elements))
        if int(weights(f"{name}.p")) != table.p:
            raise ModelFileError(f"{name}.p is another than that of the radial cutoff.")
