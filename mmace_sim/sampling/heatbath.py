"""Monte Carlo of classical Heisenberg models: exact heat bath by colors, over-relaxation, all temperatures at once."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, override

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from mmace_sim.sampling.chains import Chain, Sampler, block_generator
from mmace_sim.sampling.hamiltonian import SpinNetwork
from mmace_sim.units import BOLTZMANN_EV_PER_K

_VECTOR = 64
"""A multiple of the numbers that a vector instruction takes."""
_NO_FIELD = 1e-20
"""eV; weaker fields count as none."""


class HeatBath(Sampler):
    """Chains of one Heisenberg model of several sizes, at many temperatures.

    A sweep draws every spin from its distribution in the field of its neighbours, H_i = Σ_j J'_ij e_j + B:
    p(e_i) ∝ exp(β e_i·H_i), color by color, without rejection; and then turns every spin by 180° about its field
    `n_over` times, which costs no energy and moves waves of spins on. Spins are kept in single precision, sums in
    double. All sizes are one network of separate parts, sorted by color, and all chains its columns. Random numbers of
    a chain depend on the chain, its size and the number of the block only.

    Args:
        networks: One network for each size.
        chains: Temperature and replica of each chain.
        n_over: Over-relaxation sweeps after each heat-bath sweep.
        field: B in eV: −B·e_i is added to the energy of each spin.
        device: Where to compute.

    References:
        Miyatake et al., J. Phys. C 19, 2539 (1986) (heat bath); Creutz, Phys. Rev. D 36, 515 (1987) (over-relaxation).
    """

    records = ("energy", "order", "magnetization")
    """Per spin: in eV, |Σ s_i e_i|, |Σ m_i| in μB."""

    def __init__(
        self,
        networks: Sequence[SpinNetwork],
        chains: Sequence[Chain],
        *,
        n_over: int = 3,
        field: Sequence[float] = (0.0, 0.0, 0.0),
        device: torch.device | str = "cpu",
    ) -> None:
        self.chains, self.n_over = list(chains), n_over
        self.sizes = [len(network) for network in networks]
        self.device = torch.device(device)
        self.beta = self._tensor([1 / (BOLTZMANN_EV_PER_K * chain.temperature) for chain in chains])
        self.field = self._tensor(field)[:, None]
        self._sort(networks)
        self.spins = torch.zeros(sum(self.sizes), 3, len(chains), device=self.device)
        self.spins[:, 2] = self._signs[:, None]
        self._energy = self.energies()

    def _tensor(self, values: Any) -> Float[Tensor, "..."]:
        return torch.as_tensor(np.asarray(values), dtype=torch.float32, device=self.device)

    def _sort(self, networks: Sequence[SpinNetwork]) -> None:
        """All networks as one: spins of one color are neighbours in memory, whatever network they belong to."""
        starts = np.cumsum([0, *self.sizes])
        width = max(network.neighbors.shape[1] for network in networks)
        fills = [((0, 0), (0, width - network.neighbors.shape[1])) for network in networks]
        neighbors = np.concatenate(
            [
                np.pad(net.neighbors, fill) + start
                for net, fill, start in zip(networks, fills, starts, strict=False)
            ]
        )
        exchange = np.concatenate(
            [np.pad(net.exchange, fill) for net, fill in zip(networks, fills, strict=True)]
        )
        signs, lengths = (
            np.concatenate([getattr(net, key) for net in networks]) for key in ("signs", "lengths")
        )
        colors = np.concatenate(
            [np.repeat(np.arange(len(net.bounds) - 1), np.diff(net.bounds)) for net in networks]
        )
        order = np.argsort(colors, kind="stable")
        place = np.argsort(order)
        self._places = [torch.as_tensor(place[a:b], device=self.device) for a, b in pairwise(starts)]
        self._neighbors = torch.as_tensor(place[neighbors[order]], device=self.device)
        self._constants = torch.tensor([[net.constant * len(net)] for net in networks], device=self.device)
        self._exchange, self._signs = self._tensor(exchange[order]), self._tensor(signs[order])
        self._lengths = self._tensor(lengths[order])
        self._colors = [slice(int(a), int(b)) for a, b in pairwise([0, *np.cumsum(np.bincount(colors))])]

    def _fields(self, color: slice) -> Float[Tensor, "n 3 n_chains"]:
        """H of the spins of one color, in eV."""
        rows, neighbors, exchange = self.spins.flatten(1), self._neighbors[color], self._exchange[color]
        sums = embedding_bag(neighbors, rows, mode="sum", per_sample_weights=exchange)
        return sums.view(-1, 3, len(self.chains)) + self.field

    def energies(self) -> Float[Tensor, "n_sizes n_chains"]:
        """Energy of each chain, in eV, computed afresh.

        Returns:
            Each pair once, in double precision.
        """
        inside = self._fields(slice(0, len(self.spins))) + self.field
        return self._constants - 0.5 * self._sums(_dot(self.spins, inside).double())

    def _sums(
        self, rows: Float[Tensor, "n_spins n_columns"], weights: Float[Tensor, " n_spins"] | None = None
    ) -> Float[Tensor, "n_sizes n_columns"]:
        """Weighted sums over the spins of each network, in an order that does not depend on the columns."""
        order = torch.cat(self._places)
        starts = torch.tensor(np.cumsum([0, *self.sizes[:-1]]), device=self.device)
        weights = None if weights is None else weights[order]
        return embedding_bag(order, rows, starts, mode="sum", per_sample_weights=weights)

    @override
    def _advance(self, block: int, n_sweeps: int) -> Float[np.ndarray, "n_sweeps n_records n_sizes n_chains"]:
        generators = [
            [block_generator(chain, n, block, self.device) for chain in self.chains] for n in self.sizes
        ]
        self._energy = self.energies()
        observed = []
        for _ in range(n_sweeps):
            uniform = self._uniform(generators)
            change = torch.cat([self._heat_bath(color, uniform) for color in self._colors])
            self._energy = self._energy + self._sums(change.double())
            for _ in range(self.n_over):
                for color in self._colors:
                    self._reflect(color)
            observed.append(self._observe())
        return torch.stack(observed).cpu().numpy()

    def _uniform(self, generators: list[list[torch.Generator]]) -> Float[Tensor, "2 n_spins n_chains"]:
        """Two uniform numbers for each spin, each chain from its own generators."""
        out = torch.empty(2, sum(self.sizes), len(self.chains), device=self.device)
        for n, places, row in zip(self.sizes, self._places, generators, strict=True):
            drawn = [torch.rand(2, n, generator=g, device=self.device) for g in row]
            out[:, places] = torch.stack(drawn, dim=-1)
        return out

    def _heat_bath(
        self, color: slice, uniform: Float[Tensor, "2 n_spins n_chains"]
    ) -> Float[Tensor, "n n_chains"]:
        """Draw the spins of one color; returns the changes of energy."""
        fields, old = self._fields(color), self.spins[color]
        new = draw_spins(fields, self.beta, uniform[:, color])
        change = _dot(old - new, fields)
        self.spins[color] = new
        return change

    def _reflect(self, color: slice) -> None:
        """Turn the spins of one color by 180° about their fields."""
        fields, old = self._fields(color), self.spins[color]
        scale = 2 * _dot(old, fields) / _dot(fields, fields).clamp(min=1e-30)
        self.spins[color] = scale[:, None] * fields - old

    def _observe(self) -> Float[Tensor, "3 n_sizes n_chains"]:
        n = torch.tensor(self.sizes, device=self.device)[:, None]
        rows = self.spins.flatten(1).double()
        sums = [self._sums(rows, w.double()).view(len(n), 3, -1) for w in (self._signs, self._lengths)]
        return torch.stack([self._energy / n, *[torch.sqrt(_dot(v, v)) / n for v in sums]])

    @override
    def state(self) -> dict[str, np.ndarray]:
        return {"spins": self.spins.cpu().numpy()}

    @override
    def load_state(self, state: dict[str, np.ndarray]) -> None:
        self.spins = torch.as_tensor(state["spins"], device=self.device)


def draw_spins(
    fields: Float[Tensor, "n 3 n_chains"],
    beta: Float[Tensor, " n_chains"],
    uniform: Float[Tensor, "2 n n_chains"],
) -> Float[Tensor, "n 3 n_chains"]:
    """Unit vectors with p(e) ∝ exp(β e·H).

    Args:
        fields: H in eV.
        beta: 1/kT in 1/eV.
        uniform: Uniform numbers in [0, 1).

    Returns:
        cos θ = 1 + ln(1 − u (1 − e^{−2βH}))/(βH) by inversion, and a uniform azimuth about H; uniform on the sphere
        without a field.
    """
    strength = torch.sqrt(_dot(fields, fields)).clamp(min=_NO_FIELD)
    a = (beta * strength).clamp(min=1e-6)
    cosine = (1 + _full(torch.log1p, uniform[0] * _full(torch.expm1, -2 * a)) / a).clamp(-1, 1)
    sine = torch.sqrt((1 - cosine) * (1 + cosine))
    azimuth = (2 * torch.pi) * uniform[1]
    x, y = sine * _full(torch.cos, azimuth), sine * _full(torch.sin, azimuth)
    nx, ny, nz = (fields / strength[:, None]).unbind(dim=1)
    nz = torch.where(strength > _NO_FIELD, nz, 1.0)  # any axis will do
    # branchless frame about the field: Duff et al., J. Comput. Graph. Tech. 6, 1 (2017)
    sign = torch.copysign(torch.ones_like(nz), nz)
    c = -1 / (sign + nz)
    d = nx * ny * c
    out = torch.stack(
        [
            x * (1 + sign * nx * nx * c) + y * d + cosine * nx,
            x * sign * d + y * (sign + ny * ny * c) + cosine * ny,
            -x * sign * nx - y * ny + cosine * nz,
        ],
        dim=1,
    )
    return out / torch.sqrt(_dot(out, out))[:, None]


def _dot(a: Float[Tensor, "n 3 n_chains"], b: Float[Tensor, "n 3 n_chains"]) -> Float[Tensor, "n n_chains"]:
    """Scalar products; a sum over a dimension would take an order that depends on the number of chains."""
    return a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2]


def _full(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "n n_chains"]
) -> Float[Tensor, "n n_chains"]:
    """A function of each number, all by the same vector instructions.

    Torch computes what is left over at the end of an array by other code, so that the last bit of a number would depend
    on its place, and a chain on the others.
    """
    flat = pad(x.flatten(), (0, -x.numel() % _VECTOR))
    return function(flat)[: x.numel()].view(x.shape)
