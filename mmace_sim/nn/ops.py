"""Operations shared by the blocks: linear maps, a bias-free network, and the sum over neighbours."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from mmace_sim.base.devices import uploaded

SILU_NORM: float = 1.6790
"""1/sqrt of the second moment of silu under a normal distribution: keeps variances at one."""

PADDING_WORTH_A_SPLIT: float = 0.1
"""A group of atoms is split where that saves at least this share of the padded pairs."""


class Float64Module(nn.Module):
    """Keeps its buffers in float64 whatever the model that it belongs to is cast to."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Float64Module":  # noqa: ARG002
        """Move with the model, but not to another type."""
        for name, buffer in self._buffers.items():
            self._buffers[name] = buffer if buffer is None else buffer.to(fn(buffer).device)
        return self


_groups: WeakIdKeyDictionary = WeakIdKeyDictionary()
_on_host: WeakIdKeyDictionary = WeakIdKeyDictionary()


def element_groups(species: Int[Tensor, " n_atoms"]) -> list[tuple[int, Int[Tensor, " n_members"]]]:
    """Atoms of each element that occurs; the host reads the array once, and remembers what it found.

    Args:
        species: Index of each atom's element.

    Returns:
        Index of the element, ascending, and numbers of its atoms.
    """
    found = _groups.get(species)
    if found is None:
        values = _on_host.get(species)
        if values is None:
            values = _on_host[species] = np.array(species.tolist(), dtype=np.int64)
        with torch.inference_mode(mode=False):
            found = [
                (z, uploaded(np.flatnonzero(values == z), species.device)) for z in np.unique(values).tolist()
            ]
        _groups[species] = found
    return found


def inherit_elements(
    species: Int[Tensor, " n_atoms"], part: Int[Tensor, " n_some"], atoms: Int[np.ndarray, " n_some"]
) -> None:
    """Let `element_groups` know some atoms of an array that it may have read, so that it need not read them again.

    Args:
        species: Index of each atom's element.
        part: The same of some of the atoms.
        atoms: Their numbers.
    """
    values = _on_host.get(species)
    if values is not None:
        _on_host[part] = values[atoms]


class Modules[M: nn.Module](nn.ModuleList):
    """`torch.nn.ModuleList` whose items are of one known class."""

    if TYPE_CHECKING:

        def __init__(self, modules: Iterable[M]) -> None: ...

        def __iter__(self) -> Iterator[M]: ...

        def __getitem__(self, idx: int) -> M: ...  # type: ignore[override]  # no slices


class ChannelLinear(nn.Module):
    """Mixes channels and leaves the components of each channel alone; no bias.

    Args:
        n_in: Channels in.
        n_out: Channels out.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in))
        self.norm = 1.0 / math.sqrt(n_in)

    def forward(self, x: Float[Tensor, "n_atoms n_in n_comp"]) -> Float[Tensor, "n_atoms n_out n_comp"]:
        """Apply to features of any number of components."""
        return torch.matmul(self.weight * self.norm, x)


class SpeciesLinear(nn.Module):
    """A :class:`ChannelLinear` with its own weights for each element.

    Args:
        n_species: Number of elements.
        n_in: Channels in.
        n_out: Channels out.
    """

    def __init__(self, n_species: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_species, n_out, n_in))
        self.norm = 1.0 / math.sqrt(n_in)

    def forward(
        self, x: Float[Tensor, "n_atoms n_in n_comp"], species: Int[Tensor, " n_atoms"]
    ) -> Float[Tensor, "n_atoms n_out n_comp"]:
        """Apply the weights of each atom's element (its index, not its atomic number)."""
        if self.weight.shape[0] == 1:
            return torch.matmul(self.weight[0] * self.norm, x)
        return torch.matmul(self.weight[species] * self.norm, x)


class Mlp(nn.Module):
    """Bias-free network with silu between its layers; zero in, zero out.

    Args:
        widths: Number of features from the input to the output.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.randn(n_in, n_out) for n_in, n_out in pairwise(widths))

    def forward(self, x: Float[Tensor, "n n_in"]) -> Float[Tensor, "n n_out"]:
        """Apply to rows of features."""
        for k, weight in enumerate(self.weights):
            if k:
                x = nn.functional.silu(x)
            x = x @ (weight * ((SILU_NORM if k else 1.0) / math.sqrt(weight.shape[0])))
        return x


@dataclass
class NeighborLayout:
    """Pairs regrouped so that all neighbours of an atom stand in one row of equal length.

    Atoms with similar numbers of neighbours share a group; short rows are filled up with repeated pairs
    that `mask` switches off. The sum over neighbours then is a batched matrix product, and no
    array with an entry for each pair, channel and component is ever built.

    Attributes:
        pairs: Original index of each padded pair.
        mask: 1 for true pairs and 0 for filling.
        groups: Number of atoms and of pairs per atom, for each group.
        order: Position of each atom in the concatenation of the groups; None if it is the identity.
    """

    pairs: Int[Tensor, " n_padded"]
    mask: Float[Tensor, "n_padded 1"]
    groups: list[tuple[int, int]]
    order: Int[Tensor, " n_atoms"] | None

    @property
    def n_atoms(self) -> int:
        """Number of centres."""
        return sum(n for n, _ in self.groups)

    @classmethod
    def build(cls, receiver: Int[Tensor, " n_edges"], n_atoms: int, dtype: torch.dtype) -> "NeighborLayout":
        """Group the atoms of a pair list that is sorted by receiver; the host reads the list once."""
        ones = torch.ones_like(receiver)
        read = torch.zeros(n_atoms, dtype=ones.dtype, device=ones.device).index_add(0, receiver, ones)
        return cls.of_counts(np.array(read.tolist(), dtype=np.int64), dtype, receiver.device)

    @classmethod
    def of_counts(
        cls, counts: Int[np.ndarray, " n_atoms"], dtype: torch.dtype, device: torch.device
    ) -> "NeighborLayout":
        """Group the atoms of a pair list that is sorted by receiver.

        Args:
            counts: Number of pairs of each centre.
            dtype: Of the mask.
            device: Where the pairs are.
        """
        first = np.cumsum(counts) - counts
        rank = np.argsort(counts, kind="stable")
        pairs, masks, groups = [], [], []
        for start, stop in _group_bounds(counts[rank].tolist()):
            members = rank[start:stop]
            width = int(counts[members[-1]])
            slot = np.arange(width)
            valid = slot < counts[members, None]
            pairs.append(np.where(valid, first[members, None] + slot, 0).ravel())
            masks.append(valid.ravel())
            groups.append((stop - start, width))
        same = len(groups) == 1 and bool((counts == counts[0]).all())
        order = None if same else uploaded(np.argsort(rank), device)
        mask = uploaded(np.concatenate(masks)[:, None], device, dtype=dtype)
        found = uploaded(np.concatenate(pairs).astype(np.int64), device)
        return cls(pairs=found, mask=mask, groups=groups, order=order)

    def arrange(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Values of the pairs in the order of the layout."""
        if self.order is None:  # all atoms have equally many neighbours: nothing moves, nothing is filled up
            return values
        return tuple(value.index_select(0, self.pairs) for value in values)

    def sum_neighbors(
        self, weights: Float[Tensor, "n_padded n_channels"], basis: Float[Tensor, "n_padded n_comp"]
    ) -> Float[Tensor, "n_atoms n_channels n_comp"]:
        """Σ_j weights_ij ⊗ basis_ij for every centre i; `basis` must vanish on the filling."""
        sums, start = [], 0
        for n, width in self.groups:
            stop = start + n * width
            w = weights[start:stop].reshape(n, width, weights.shape[1])
            b = basis[start:stop].reshape(n, width, basis.shape[1])
            sums.append(torch.bmm(w.mT, b))
            start = stop
        total = torch.cat(sums) if len(sums) > 1 else sums[0]
        return total if self.order is None else total.index_select(0, self.order)


@dataclass
class PairScatter:
    """Pairs that stand anyhow: in place of a `NeighborLayout` where atoms have a pair or two.

    Attributes:
        receiver: Centre of each pair.
        n_atoms: Number of centres.
        mask: There is no filling.
    """

    receiver: Int[Tensor, " n_pairs"]
    n_atoms: int
    mask: float = 1.0

    def sum_neighbors(
        self, weights: Float[Tensor, "n_pairs n_channels"], basis: Float[Tensor, "n_pairs n_comp"]
    ) -> Float[Tensor, "n_atoms n_channels n_comp"]:
        """Σ_j weights_ij ⊗ basis_ij for every centre i."""
        products = weights[:, :, None] * basis[:, None, :]
        return products.new_zeros(self.n_atoms, *products.shape[1:]).index_add(0, self.receiver, products)


def _group_bounds(counts: list[int]) -> list[tuple[int, int]]:
    """Split ascending counts into groups wherever that saves enough padding."""
    total = sum(counts) or 1
    distinct = [k for k in range(1, len(counts)) if counts[k] != counts[k - 1]]

    def split(start: int, stop: int, depth: int) -> list[tuple[int, int]]:
        candidates = [k for k in distinct if start < k < stop] if depth else []
        if not candidates:
            return [(start, stop)]
        best = max(candidates, key=lambda k: (k - start) * (counts[stop - 1] - counts[k - 1]))
        saved = (best - start) * (counts[stop - 1] - counts[best - 1])
        if saved < PADDING_WORTH_A_SPLIT * total:
            return [(start, stop)]
        return split(start, best, depth - 1) + split(best, stop, depth - 1)

    return split(0, len(counts), 3)
