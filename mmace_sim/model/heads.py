"""Heads: one network for several data sets, each with isolated-atom and one-body energies of its own."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mmace_sim.errors import ModelFileError
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.config import ArchitectureConfig

HEAD_TABLES: tuple[str, ...] = tuple(
    f"reference.{name}" for name in ("atomic_energies", "one_body", "knots", "barrier")
)
"""Tensors of a model with one row for each element of each head."""


def with_heads(model: MagneticModel, sources: Mapping[str, str]) -> MagneticModel:
    """A copy of a model with other heads, each with the energies of an old one.

    Args:
        model: The model.
        sources: Name of the old head behind each new one.

    Raises:
        ModelFileError: If an old one does not exist.
    """
    config, tensors = choose_heads(model.config, model.state_dict(), sources)
    with torch.random.fork_rng(devices=[]):  # its first weights, which are overwritten, are random numbers
        copy = type(model)(config)
    copy.to(device=model.device, dtype=model.dtype).load_state_dict(tensors)
    copy.metadata = dict(model.metadata)
    copy.uncertainty = model.uncertainty
    return copy.train(model.training)


def choose_heads(
    config: ArchitectureConfig, tensors: Mapping[str, Tensor], sources: Mapping[str, str]
) -> tuple[ArchitectureConfig, dict[str, Tensor]]:
    """Hyper-parameters and weights of a model with other heads.

    Args:
        config: Hyper-parameters of the model.
        tensors: Its weights.
        sources: Name of the old head behind each new one.

    Raises:
        ModelFileError: If an old one does not exist.
    """
    n_elements = len(config.atomic_numbers)
    rows: list[int] = []
    for name in sources.values():
        if name not in config.heads:
            raise ModelFileError(f"the model has no head '{name}'; its heads are {', '.join(config.heads)}.")
        rows += range(
            n_elements * list(config.heads).index(name), n_elements * (list(config.heads).index(name) + 1)
        )
    heads = {new: config.heads[old] for new, old in sources.items()}
    chosen = {key: tensor[rows] if key in HEAD_TABLES else tensor for key, tensor in tensors.items()}
    return config.model_copy(update={"heads": heads}), chosen
