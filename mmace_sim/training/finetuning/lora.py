"""Which weights are trained: parts that are frozen, and low-rank adapters on the linear maps of the rest."""

import logging
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mmace_sim.architectures.paper_interaction import PathLinear
from mmace_sim.errors import ConfigError
from mmace_sim.nn.ops import ChannelLinear, Mlp, SpeciesLinear
from mmace_sim.training.config import OptimizerConfig

logger = logging.getLogger(__name__)


def choose_trained(model: nn.Module, config: OptimizerConfig, seed: int) -> None:
    """Freeze the parts and add the adapters that a configuration asks for.

    Args:
        model: The model, changed in place.
        config: Its `freeze` and `lora`.
        seed: Seed of the adapters.
    """
    if config.freeze:
        freeze_parts(model, config.freeze)
    if config.lora is not None:
        add_adapters(model, config.lora, seed)
    if config.freeze or config.lora is not None:
        logger.info("%d weights are trained", sum(p.numel() for p in model.parameters() if p.requires_grad))


def freeze_parts(model: nn.Module, names: Sequence[str]) -> None:
    """Keep some weights as they are.

    Args:
        model: The model; all its parameters that are not frozen are trained.
        names: Parts, each a word or a dotted row of words of the parameters' names: "embedding", "radial" (of all
            layers), "layers.0", "layers.0.interaction", "readouts".

    Raises:
        ConfigError: If a name fits no parameter, or nothing is left to train.
    """
    parameters = dict(model.named_parameters())
    for name in names:
        frozen = [p for key, p in parameters.items() if f".{name}." in f".{key}."]
        if not frozen:
            raise ConfigError(
                f"the model has no part {name!r} to freeze; parts: {', '.join(part_names(model))}"
            )
        for parameter in frozen:
            parameter.requires_grad_(False)
    if not any(p.requires_grad for p in parameters.values()):
        raise ConfigError(f"freezing {', '.join(names)} leaves no weight to train")


def part_names(model: nn.Module) -> list[str]:
    """Names of the parts that can be frozen: layers, and words of the parameters' names."""
    names: dict[str, None] = {}
    for key, _ in model.named_parameters():
        words = key.split(".")
        if len(words) > 1 and words[1].isdigit():
            names[".".join(words[:2])] = None
        names |= dict.fromkeys(
            word for word in words if not word.isdigit() and word not in ("weight", "weights")
        )
    return sorted(names)


class LowRank(nn.Module):
    """W + B A / sqrt(rank): a matrix (or one for each element) with a low-rank change that starts at zero.

    Args:
        weight: The matrix, which itself stays as it is.
        rank: Columns of B and rows of A.
        generator: Draws A.

    References:
        Hu et al., arXiv 2106.09685, eq. 3; scaling by the root of the rank: Kalajdzievski, arXiv 2312.03732.
    """

    def __init__(self, weight: Float[Tensor, "... n m"], rank: int, generator: torch.Generator) -> None:
        super().__init__()
        rank = min(rank, *weight.shape[-2:])
        first = torch.randn(*weight.shape[:-2], rank, weight.shape[-1], generator=generator)
        self.first = nn.Parameter(first.to(weight))
        self.second = nn.Parameter(weight.new_zeros(*weight.shape[:-1], rank))
        self.norm = 1.0 / math.sqrt(rank)

    def forward(self, weight: Float[Tensor, "... n m"]) -> Float[Tensor, "... n m"]:
        """The matrix with its change."""
        return weight + self.norm * (self.second @ self.first)


def add_adapters(model: nn.Module, rank: int, seed: int = 0) -> int:
    """Freeze all weights, and put low-rank adapters on the linear maps that were not frozen before.

    The model's function is unchanged until the adapters are trained.

    Args:
        model: The model, changed in place.
        rank: Rank of each adapter.
        seed: Seed of their first weights.

    Returns:
        Number of weights that are trained now.

    Raises:
        ConfigError: If there is no linear map to adapt.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = [(owner, name) for owner, name in _linear_weights(model) if getattr(owner, name).requires_grad]
    if not chosen:
        raise ConfigError("no linear map is left to adapt; freeze fewer parts, or leave out lora")
    model.requires_grad_(requires_grad=False)
    n_trained = 0
    for owner, name in chosen:
        adapter = LowRank(getattr(owner, name), rank, generator)
        parametrize.register_parametrization(owner, name, adapter)
        n_trained += adapter.first.numel() + adapter.second.numel()
    return n_trained


def merge_adapters(model: nn.Module) -> None:
    """Put the change of every adapter into its matrix, so that an ordinary model is left.

    Args:
        model: The model, changed in place; one without adapters stays as it is.
    """
    for owner, name in _linear_weights(model):
        if parametrize.is_parametrized(owner, name):
            parametrize.remove_parametrizations(owner, name, leave_parametrized=True)


def _linear_weights(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Owner and name of every matrix of a linear map."""
    found: list[tuple[nn.Module, str]] = []
    for module in model.modules():
        if isinstance(module, ChannelLinear | SpeciesLinear | PathLinear):
            found.append((module, "weight"))
        elif isinstance(module, Mlp):
            found += [(module.weights, str(k)) for k in range(len(module.weights))]
    return found
