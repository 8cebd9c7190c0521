"""Magnetic models from checkpoints of non-magnetic MACE models."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ase.data import chemical_symbols
from pydantic import ValidationError

from mmace_sim.architectures.foundation_mmace import MAGNETIC_FIELDS, FoundationConfig, FoundationMMACE
from mmace_sim.errors import ConfigError, ModelFileError
from mmace_sim.interop.foundation_weights import backbone_fields, element_numbers, fill_foundation
from mmace_sim.interop.from_mace import download_foundation
from mmace_sim.interop.mace_weights import UpstreamWeights
from mmace_sim.interop.unpickle import PickledObject, read_pickled_module
from mmace_sim.interop.upstream_file import OPTIONS, activations, check_name, check_options, check_radial
from mmace_sim.model.registry import is_file, split_head

CLASSES: tuple[str, ...] = ("MACE", "ScaleShiftMACE")
"""Classes of mace-torch whose function we have."""

BLOCKS: dict[str, bool] = {
    "RealAgnosticInteractionBlock": False,
    "RealAgnosticDensityInteractionBlock": False,
    "RealAgnosticResidualInteractionBlock": True,
    "RealAgnosticDensityResidualInteractionBlock": True,
}
"""Supported interaction blocks, and whether they have a residual connection."""

_OPTIONS: dict[str, tuple[Any, ...]] = OPTIONS | {
    "apply_cutoff": (None, True),
    "use_so3": (None, False),
    "use_agnostic_product": (None, False),
}

_PARTS: dict[str, tuple[str, ...]] = {
    "products": ("EquivariantProductBasisBlock",),
    "readouts": ("LinearReadoutBlock", "NonLinearReadoutBlock"),
}


class FoundationFile:
    """A checkpoint of a non-magnetic MACE, read without importing or running anything that it names.

    Args:
        name_or_path: File of ``torch.save(model)``, or name of a foundation model (see :func:`find_foundation`), with
            ``#HEAD`` behind it to choose one of several heads.

    Attributes:
        path: The file.
        heads: Names of its heads.
        elements: Its elements.
        r_max: Its cutoff radius, in Å.

    Raises:
        ModelFileError: If the file cannot be read, or its model is of another architecture.
    """

    def __init__(self, name_or_path: str | Path) -> None:
        self.path = find_foundation(name_or_path)
        self._chosen = split_head(name_or_path)[1]
        self.record = read_pickled_module(self.path)
        try:
            _check_class(self.record)
            blocks = _check_blocks(self.record)
            arrays = {name: tensor.numpy(force=True) for name, tensor in self.record.tensors()}
            self._weights = UpstreamWeights(arrays)
            self.elements = element_numbers(self._weights)
            self._fields = backbone_fields(self._weights, residual_first=BLOCKS[blocks[0]])
            self._fields["avg_num_neighbors"] = _neighbors(self.record)
        except ModelFileError as error:
            raise ModelFileError(f"{self.path}: {error}") from error
        self.heads = [str(head) for head in self.record.get("heads") or ["default"]]
        self.r_max: float = self._fields["r_max"]

    def config(
        self,
        *,
        elements: Sequence[int | str],
        max_moment: Mapping[int | str, float] | None = None,
        **fields: Any,
    ) -> FoundationConfig:
        """Hyper-parameters of a magnetic model around this one.

        Args:
            elements: Elements to keep, as atomic numbers or symbols.
            max_moment: Largest moment of each, in μB.
            **fields: Those of `mmace_sim.architectures.foundation_mmace.MAGNETIC_FIELDS`, and "heads".

        Raises:
            ConfigError: If an element is not in the foundation, or a field is unknown or impossible.
        """
        unknown = sorted(set(fields) - set(MAGNETIC_FIELDS) - {"heads"})
        if unknown:
            raise ConfigError(
                f"{', '.join(unknown)}: fixed by the foundation or unknown; free are {', '.join(MAGNETIC_FIELDS)}"
            )
        given = {"atomic_numbers": list(elements), "max_moment": dict(max_moment or {}), **fields}
        try:
            config = FoundationConfig.model_validate({**self._fields, **given})
        except ValidationError as error:
            clauses = [f"model.{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors()]
            raise ConfigError("; ".join(clauses)) from error
        foreign = [chemical_symbols[z] for z in config.atomic_numbers if z not in self.elements]
        if foreign:
            known = ", ".join(chemical_symbols[z] for z in self.elements)
            raise ConfigError(f"{self.path} does not know {', '.join(foreign)}; its elements are {known}")
        return config

    def model(self, config: FoundationConfig, head: str | None = None) -> FoundationMMACE:
        """The magnetic model: this one for every moment, with a magnetic part that is zero.

        Args:
            config: Hyper-parameters from :meth:`config`.
            head: Name of the foundation's head; may be left out if there is but one.

        Raises:
            ModelFileError: If there is no such head, or the file holds weights that are not supported.
        """
        chosen = self._head(head)
        model = FoundationMMACE(config)
        try:
            fill_foundation(model, self._weights, self.heads.index(chosen))
        except ModelFileError as error:
            raise ModelFileError(f"{self.path}: {error}") from error
        model.metadata = {
            "name": self.path.stem,
            "description": f"magnetic model around {self.path.name}, not trained",
            "elements": [chemical_symbols[z] for z in model.elements],
            "foundation": {
                "file": self.path.name,
                "sha256": hashlib.sha256(self.path.read_bytes()).hexdigest(),
                "class": self.record.name,
                "head": chosen,
            },
        }
        return model.eval()

    def _head(self, head: str | None) -> str:
        names, head = ", ".join(self.heads), head or self._chosen
        if head is None and len(self.heads) > 1:
            raise ModelFileError(
                f"{self.path}: the foundation has the heads {names}; choose one as in {self.path.name}#{self.heads[0]}."
            )
        if head is not None and head not in self.heads:
            raise ModelFileError(f"{self.path}: there is no head '{head}'; the foundation has {names}.")
        return head or self.heads[0]


def from_foundation(
    name_or_path: str | Path,
    *,
    elements: Sequence[int | str],
    max_moment: Mapping[int | str, float] | None = None,
    head: str | None = None,
    **fields: Any,
) -> FoundationMMACE:
    """A magnetic model that starts as a non-magnetic MACE: its energies, forces and stress, for every moment.

    Args:
        name_or_path: Checkpoint of mace-torch, or name of a foundation model.
        elements: Elements to keep, as atomic numbers or symbols.
        max_moment: Largest moment of each element that training will see, in μB; 1 where it is not given.
        head: Head of the foundation to keep, if it has several.
        **fields: Hyper-parameters of the magnetic part, see
            `mmace_sim.architectures.foundation_mmace.MAGNETIC_FIELDS`.

    Returns:
        The model in float64.

    Raises:
        ModelFileError: If the checkpoint cannot be read, is not supported or has no such head.
        ConfigError: If an element is not in it, or a hyper-parameter is unknown or impossible.
    """
    file = FoundationFile(name_or_path)
    return file.model(file.config(elements=elements, max_moment=max_moment, **fields), head)


def find_foundation(name_or_path: str | Path) -> Path:
    """File of a foundation: a path, or a name that mace-torch knows ("small", "medium-mpa-0", …) and downloads.

    Args:
        name_or_path: Either, perhaps with ``#HEAD`` behind it.

    Raises:
        ModelFileError: If it is neither, or cannot be downloaded.
    """
    name = split_head(name_or_path)[0]
    return Path(name) if is_file(name) else download_foundation(name)


def _check_class(record: PickledObject) -> None:
    if record.module != "mace.modules.models" or record.name not in CLASSES:
        raise ModelFileError(
            f"holds a {record.module}.{record.name}, which is not supported as a foundation. Supported are "
            f"{', '.join(CLASSES)} of mace.modules.models (published magnetic models: `mmace-sim convert`)."
        )
    check_options(record, _OPTIONS)
    if "joint_embedding" in record.children:
        raise ModelFileError("embeds charges, spins or fields (joint_embedding), which is not supported.")


def _check_blocks(record: PickledObject) -> list[str]:
    """Names of the interaction blocks, if all parts are supported."""
    for group, known in _PARTS.items():
        for name, part in _part(record, group).children.items():
            check_name(f"{group}.{name}", part.name, known)
    check_radial(record)
    blocks = [part.name for part in _part(record, "interactions").children.values()]
    for k, block in enumerate(blocks):
        check_name(f"interactions.{k}", block, [b for b in BLOCKS if BLOCKS[b] or k == 0])
    if any(("Density" in block) != ("Density" in blocks[0]) for block in blocks):
        raise ModelFileError(f"mixes interaction blocks ({', '.join(blocks)}), which is not supported.")
    for activation in activations(record):
        check_name("the gate of a readout", activation, ("silu",))
    return blocks


def _part(record: PickledObject, name: str) -> PickledObject:
    if name not in record.children:
        raise ModelFileError(f"the model has no '{name}'; the file is incomplete.")
    return record.children[name]


def _neighbors(record: PickledObject) -> float:
    """Average number of neighbours, the same in all layers."""
    blocks = record.children["interactions"].children.values()
    values = [float(block.get("avg_num_neighbors") or 0.0) for block in blocks]
    if min(values) <= 0.0 or max(values) != min(values):
        raise ModelFileError(f"avg_num_neighbors of the layers is {values}, expected one positive number.")
    return values[0]
