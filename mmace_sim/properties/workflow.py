"""What the classes behind the properties have in common: settings in the constructor, structures in the call."""

from typing import Any

import torch

from mmace_sim.base.settings import Settings
from mmace_sim.properties.relax.relaxation import ModelLike


class Workflow[S: Settings]:
    """Computes a property of many structures in batches: settings here, structures in ``run``.

    Args:
        model: Model, its name or path, or any TorchSim model that gives magforces.
        settings: All settings; or give them one by one.
        device: Where to run.
        dtype: Floating-point type.
        max_batch_atoms: Largest number of atoms in one batch; by default estimated from the memory.
        **keywords: Fields of the settings.

    Attributes:
        kind: Class of the settings.

    Raises:
        ConfigError: If a setting is unknown or impossible.
    """

    kind: type[S]
    settings: S

    def __init__(
        self,
        model: ModelLike = "default",
        settings: S | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        max_batch_atoms: int | None = None,
        **keywords: Any,
    ) -> None:
        self.settings = settings or self.kind.of(keywords, type(self).__name__)
        self.set_up(model, device=device, dtype=dtype, max_batch_atoms=max_batch_atoms)

    def set_up(self, model: ModelLike, **where: Any) -> None:
        """Make what computes.

        Args:
            model: The model.
            **where: `device`, `dtype` and `max_batch_atoms` for whatever loads the model.
        """
        raise NotImplementedError
