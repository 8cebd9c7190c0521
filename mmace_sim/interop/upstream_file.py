"""Checkpoints of the published magnetic MACE code: what they hold, and which of them we can run."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from mmace_sim.architectures.paper_mmace import PaperMMACE
from mmace_sim.errors import ModelFileError
from mmace_sim.interop.from_mace import from_upstream
from mmace_sim.interop.unpickle import PickledObject, read_pickled_module

_FORK = "MagneticSolidHarmonicsSpinOrbitCoupledWith{}SelfMagmomScaleShiftMACE"
_ONE_BODY = ("", "OneBodyGinzburg", "OneBodyMultiSpeciesGinzburg", "OneBodyMultiSpeciesEvenSpline")

MODELS: dict[tuple[str, str], dict[str, Any]] = {
    **{("mace.modules.models", _FORK.format(kind)): {} for kind in _ONE_BODY},
    ("mace.modules.extensions", "MagneticMACE"): {"clamp_moments": True},
    ("mace.modules.extensions", "MagneticScaleShiftMACE"): {"clamp_moments": True},
}
"""Module and class of the models that have the published function, and what their weights do not tell.

The published weights (MATPES-PBE) are of the first, without a one-body energy; the next three add one. The merged code
keeps Chebyshev functions constant above the largest moment; the fork of the paper does not.
"""

WRAPPERS: dict[str, tuple[str, dict[str, bool]]] = {
    "MagneticSCFMACE": ("magmom_mace", {}),
    "TimeReversalSymmetrizedMACE": ("model", {"time_reversal": True}),
}
"""Modules around a model: the name of the model in them, and what they change of its function."""

_DENSITIES = ("Density", "MagmomDensity", "DensityWithMagmom")
_FIRST = tuple(f"MagneticRealAgnosticSpinOrbitCoupled{density}InteractionBlock" for density in _DENSITIES)
_LATER = tuple(
    f"MagneticRealAgnosticResidueSpinOrbitCoupled{density}InteractionBlock" for density in _DENSITIES
)

PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "interactions": (_FIRST, _LATER),
    "products": (("EquivariantProductBasisWithSelfMagmomBlock",),) * 2,
    "readouts": (("LinearReadoutBlock", "NonLinearReadoutBlock"),) * 2,
}
"""Parts of a model, and the blocks that we have of each in the first layer and in the others."""

RADIAL: dict[str, tuple[str, ...]] = {
    "bessel_fn": ("BesselBasis",),
    "cutoff_fn": ("PolynomialCutoff",),
    "distance_transform": ("AgnesiTransform",),
}
"""Parts of the radial embedding, and the classes that we have of each."""

OPTIONS: dict[str, tuple[Any, ...]] = {"use_last_readout_only": (None, False)}
"""Options of upstream models that change the function without changing a weight, and the values we support.

The magnetic classes take apply_cutoff, use_so3 and use_agnostic_product too, and then use none of them.
"""


@dataclass
class UpstreamFile:
    """A checkpoint of the published code.

    Attributes:
        path: The file.
        record: What it says of the model, without wrappers.
        heads: Names of the heads.
        options: What class and wrappers say beyond the weights.
        wrappers: Names of the modules around the model.
    """

    path: Path
    record: PickledObject
    heads: list[str]
    options: dict[str, Any] = field(default_factory=dict)
    wrappers: list[str] = field(default_factory=list)

    def model(self, head: str | None = None, **repairs: bool) -> PaperMMACE:
        """The model with one head, and with metadata on where it came from.

        Args:
            head: Name of the head; may be left out if there is but one.
            **repairs: "time_reversal", "saturate" and "smooth_cutoff", see
                :class:`~mmace_sim.architectures.paper_mmace.PaperConfig`.

        Raises:
            ModelFileError: If there is no such head, or the weights are not of the published architecture.
        """
        chosen = self._head(head)
        arrays = {name: tensor.numpy(force=True) for name, tensor in _weights(self.record)}
        options = self.options | {name: True for name, wanted in repairs.items() if wanted}
        try:
            model = from_upstream(options, arrays, head=self.heads.index(chosen))
        except ModelFileError as error:
            raise ModelFileError(f"{self.path}: {error}") from error
        model.metadata = {
            "name": self.path.stem,
            "description": f"converted from {self.path.name}",
            "elements": [chemical_symbols[z] for z in model.elements],
            "upstream": {
                "file": self.path.name,
                "sha256": hashlib.sha256(self.path.read_bytes()).hexdigest(),
                "class": self.record.name,
                "wrappers": self.wrappers,
                "head": chosen,
            },
            "citation": "arXiv 2604.08143",
        }
        return model.eval()

    def _head(self, head: str | None) -> str:
        names = ", ".join(self.heads)
        if head is None and len(self.heads) > 1:
            raise ModelFileError(
                f"{self.path}: the model has the heads {names}; choose one with --head NAME."
            )
        if head is not None and head not in self.heads:
            raise ModelFileError(f"{self.path}: there is no head '{head}'; the model has {names}.")
        return head or self.heads[0]


def read_upstream_file(path: str | Path) -> UpstreamFile:
    """Read a checkpoint without importing or running anything that it names.

    Args:
        path: File of ``torch.save(model, path)``, usually ``*.model``.

    Raises:
        ModelFileError: If the file cannot be read, or its model is not of the published architecture.
    """
    path = Path(path)
    record = read_pickled_module(path)
    options: dict[str, bool] = {}
    wrappers: list[str] = []
    while record.name in WRAPPERS:
        child, changes = WRAPPERS[record.name]
        if child not in record.children:
            raise ModelFileError(f"{path}: {record.name} holds no module '{child}'.")
        wrappers.append(record.name)
        options |= changes
        record = record.children[child]
    known = MODELS.get((record.module, record.name))
    if known is None:
        supported = "; ".join(f"{module}.{name}" for module, name in MODELS)
        raise ModelFileError(
            f"{path}: holds a {record.module}.{record.name}, which is not supported. Supported are {supported}, alone "
            f"or inside of {', '.join(WRAPPERS)}.{_advice(record)}"
        )
    try:
        _check_function(record)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    options |= {"pair_repulsion": bool(record.get("pair_repulsion"))}
    heads = record.get("heads") or ["default"]
    return UpstreamFile(path, record, [str(head) for head in heads], options | known, wrappers)


def check_options(record: PickledObject, options: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse options whose function differs although the weights have the same names.

    Args:
        record: A model.
        options: Values that are supported of each option.

    Raises:
        ModelFileError: If there is one.
    """
    for option, supported in options.items():
        if record.get(option) not in supported:
            raise ModelFileError(f"{option} = {record.get(option)} is not supported.")


def _advice(record: PickledObject) -> str:
    """What else there is for a model that is refused; nothing for another magnetic one."""
    if record.module.partition(".")[0] != "mace" or is_magnetic(record):
        return ""
    return " A non-magnetic MACE can be trained to a magnetic model: see `mmace-sim finetune --foundation`."


def is_magnetic(record: PickledObject) -> bool:
    """Whether a model takes magnetic moments.

    Args:
        record: The model, or a module around one.
    """
    if any(word in record.name.lower() for word in ("magn", "magmom")):
        return True
    return any("mag" in name.lower() or is_magnetic(child) for name, child in record.children.items())


def _check_function(record: PickledObject) -> None:
    """Refuse blocks and options whose function differs although the weights have the same names."""
    check_options(record, OPTIONS)
    if record.get("pair_repulsion") and "pair_repulsion_fn" not in record.children:
        raise ModelFileError("pair_repulsion = True, but the model holds no pair_repulsion_fn.")
    for group, known in PARTS.items():
        if group not in record.children:
            raise ModelFileError(f"the model has no '{group}'; the file is incomplete.")
        for name, block in record.children[group].children.items():
            check_name(f"{group}.{name}", block.name, known[0 if name == "0" else 1])
    check_radial(record)
    for activation in activations(record):
        check_name("the gate of a readout", activation, ("silu",))


def check_radial(record: PickledObject) -> None:
    """Refuse other radial functions than Bessel functions, of distances as they are or of Agnesi's.

    Args:
        record: A model.

    Raises:
        ModelFileError: If it has others.
    """
    if "radial_embedding" not in record.children:
        raise ModelFileError("the model has no 'radial_embedding'; the file is incomplete.")
    for name, part in record.children["radial_embedding"].children.items():
        check_name(f"radial_embedding.{name}", part.name, RADIAL.get(name, ()))


def check_name(place: str, name: str, known: Sequence[str]) -> None:
    """Refuse a part that is none of ours.

    Args:
        place: Where it is.
        name: Its class.
        known: Classes that we have.

    Raises:
        ModelFileError: If it is not one of them.
    """
    if name not in known:
        raise ModelFileError(
            f"{place} is {name}, which is not supported; supported are {', '.join(known) or 'none'}."
        )


def activations(record: PickledObject) -> list[str]:
    """Names of the gates of the nonlinear readouts."""
    readouts = record.children.get("readouts")
    found = []
    for readout in readouts.children.values() if readouts is not None else ():
        gate = readout.children.get("non_linearity")
        acts = gate.children.get("acts") if gate is not None else None
        for act in acts.children.values() if acts is not None else ():
            function = act.get("f")
            # functions of torch's C++ part are pickled as getattr(owner, name)
            name = function.args[-1] if isinstance(function, PickledObject) else getattr(function, "name", "")
            found.append(str(name) or "an unknown activation")
    return found


def _weights(record: PickledObject) -> list[tuple[str, Any]]:
    return [(name, tensor) for name, tensor in record.tensors() if np.prod(tensor.shape) > 0]
