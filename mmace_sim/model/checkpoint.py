"""The model file: one safetensors file with the weights and, as JSON, everything else."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmace_sim import __version__
from mmace_sim.base.quantities import DEFAULT_HEAD
from mmace_sim.errors import ModelFileError, PhysicsWarning
from mmace_sim.files import replacing
from mmace_sim.model.architectures import ARCHITECTURES
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.config import ArchitectureConfig
from mmace_sim.model.header import FORMAT_VERSION, read_header
from mmace_sim.model.heads import choose_heads
from mmace_sim.model.registry import resolve_model, split_head
from mmace_sim.model.uncertainty import UNCERTAINTY_KEY, Uncertainty, UncertaintyFacts
from mmace_sim.nn.shapes import ShapesOnly

_KEY = "mmace_sim"
_PREFIX = f"{UNCERTAINTY_KEY}."
_FLOATS: dict[str, torch.dtype] = {"F64": torch.float64, "F32": torch.float32}
"""Types that weights may have, by the names of safetensors."""
_DTYPES: dict[str, torch.dtype] = _FLOATS | {"I64": torch.int64}


def save_model(model: MagneticModel, path: str | Path, metadata: dict[str, Any] | None = None) -> Path:
    """Write a model to one safetensors file.

    Args:
        model: The model.
        path: File to write; an existing one is replaced at once, never half.
        metadata: JSON-able facts to keep with it ("name", "training_data", "errors", "license", "citation", …); without
            it the model's own metadata.
    """
    path = Path(path)
    config = model.config.model_dump(mode="json")
    if plain := model.heads == [DEFAULT_HEAD] and not config["heads"][DEFAULT_HEAD]:
        del config["heads"]
    if config["repulsion"] is None:
        for name in ("repulsion", "max_crowding", "energy_floor", "energy_ceiling"):
            del config[name]
    if not config.get("nonmagnetic"):
        config.pop("nonmagnetic", None)
    told = dict(model.metadata if metadata is None else metadata)
    told.pop(UNCERTAINTY_KEY, None)
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if model.uncertainty is not None:
        told[UNCERTAINTY_KEY] = model.uncertainty.facts.model_dump(mode="json")
        tensors |= {f"{UNCERTAINTY_KEY}.{k}": v.contiguous() for k, v in model.uncertainty.tensors.items()}
    header = {
        **told,
        "format_version": _format_version(told, config, plain=plain),
        "architecture": type(model).__name__,
        "config": config,
        "mmace_sim_version": __version__,
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: json.dumps(header)})
        temporary.chmod(0o644)  # safetensors makes files that only their owner can read
    return path


def _format_version(told: dict[str, Any], config: dict[str, Any], *, plain: bool) -> int:
    """The oldest format that holds everything."""
    if UNCERTAINTY_KEY in told:
        return FORMAT_VERSION
    if {"repulsion", "nonmagnetic"} & set(config):
        return 3
    return 1 if plain else 2


def read_metadata(name_or_path: str | Path) -> dict[str, Any]:
    """Metadata of a model file without reading its weights.

    Args:
        name_or_path: Name in the registry or path of a file.

    Raises:
        ModelFileError: If there is no such model or the file cannot be used.
    """
    path = resolve_model(name_or_path)
    with _ModelFile(path) as file:
        file.check_sizes()
        return file.header


@torch.inference_mode(mode=False)
def load_model(
    name_or_path: str | Path = "default",
    *,
    head: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> MagneticModel:
    """Load a model for inference.

    A model that was trained on several data sets has a head for each: one of them has to be chosen, here or behind
    the name (``iron.safetensors#fcc``), unless one of them is called "default".

    A model whose file says that it violates physical identities (see ``mmace-sim convert``) is loaded
    with a :class:`~mmace_sim.errors.PhysicsWarning` that names them.

    Args:
        name_or_path: Name in the registry ("default", see ``mmace-sim models``) or path of a file.
        head: Data set whose zero of energy and one-body energies to use.
        device: Where to put it.
        dtype: ``torch.float32`` or ``torch.float64``; energies are float64 in any case.

    Returns:
        The model in evaluation mode, its parameters frozen, with the file's ``metadata``.

    Raises:
        ModelFileError: If there is no such model or head, a head has to be chosen, or the file is truncated, corrupted,
            foreign or of a newer format.
    """
    path = resolve_model(name_or_path)
    with _ModelFile(path) as file:
        model = file.model(_choose_head(path, file.config, head or split_head(name_or_path)[1]))
    return model.to(device=device, dtype=dtype)


def load_all_heads(name_or_path: str | Path) -> MagneticModel:
    """Load a model with all its heads, to go on training; the graphs must say which one counts.

    Args:
        name_or_path: Name in the registry or path of a file.

    Raises:
        ModelFileError: As for :func:`load_model`.
    """
    with _ModelFile(resolve_model(name_or_path)) as file:
        return file.model(head=None)


def _choose_head(path: Path, config: ArchitectureConfig, head: str | None) -> str | None:
    """Head to load; None if the file has only one and none was asked for."""
    heads = list(config.heads)
    chosen = head or DEFAULT_HEAD
    if len(heads) == 1 and head is None:
        return None
    if chosen not in heads:
        problem = f"has no head '{head}'" if head else "was trained on several data sets"
        raise ModelFileError(
            f"{path}: {problem}; choose one of its heads {', '.join(heads)} as in {path.name}#{heads[0]}."
        )
    return chosen


class _ModelFile:
    """An open model file: first what it says, then the sizes of its weights, then the weights themselves.

    Nothing is allocated for a file that does not hold what it claims to.

    Attributes:
        header: Everything but the weights.
        config: Hyper-parameters.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = safe_open(path, framework="pt")
            raw = (self._file.metadata() or {}).get(_KEY)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelFileError(
                f"{path}: not a readable safetensors file ({error}). It is truncated or not a model of mmace_sim; "
                "copy it again, or convert other models first."
            ) from error
        if raw is None:
            raise ModelFileError(
                f"{path}: a safetensors file, but not one of mmace_sim (no '{_KEY}' entry in its header)."
            )
        self.header, self.config = read_header(path, raw)

    def __enter__(self) -> "_ModelFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.__exit__(None, None, None)

    def model(self, head: str | None) -> MagneticModel:
        """The model with one of its heads or (None) with all of them, frozen."""
        self.check_sizes()
        config, tensors = self.config, self._tensors()
        if head is not None:
            config, tensors = choose_heads(config, tensors, {head: head})
        model = ARCHITECTURES[self.header["architecture"]].model(config)
        model.load_state_dict(tensors)
        model.metadata = self.header
        model.uncertainty = self.uncertainty()
        model.requires_grad_(requires_grad=False)
        if self.header.get("violations"):
            described = "; ".join(self.header["violations"].values())
            warnings.warn(f"{self.path.name} violates: {described}.", PhysicsWarning, stacklevel=4)
        return model.eval()

    def check_sizes(self) -> None:
        """Compare names, shapes and types of the weights with those of the model, built without memory."""
        with ShapesOnly():
            model = ARCHITECTURES[self.header["architecture"]].model(self.config)
        found = {name: self._file.get_slice(name) for name in self._names()}
        dtype = _FLOATS.get(found["scale"].get_dtype()) if "scale" in found else None
        expected = dict(model.to(dtype or torch.float64).state_dict()) | self._expected_uncertainty()
        if missing := sorted(expected.keys() - found.keys()):
            raise self._misfit(f"it has no weight '{missing[0]}'")
        if foreign := sorted(found.keys() - expected.keys()):
            raise self._misfit(f"there is no place for its weight '{foreign[0]}'")
        for name, tensor in expected.items():
            shape, kind = tuple(found[name].get_shape()), found[name].get_dtype()
            if shape != tuple(tensor.shape):
                raise self._misfit(f"'{name}' has shape {shape}, expected {tuple(tensor.shape)}")
            if _DTYPES.get(kind) != tensor.dtype:
                wanted = str(tensor.dtype).removeprefix("torch.")
                raise self._misfit(f"'{name}' holds numbers of type {kind}, expected {wanted}")

    def uncertainty(self) -> Uncertainty | None:
        """What the file knows of the errors of its model."""
        if self._facts is None:
            return None
        tensors = self._tensors(_PREFIX)
        if foreign := set(tensors[f"{_PREFIX}numbers"].tolist()) - set(self._facts.elements):
            raise self._misfit(f"its uncertainties remember atoms of elements {_first(foreign)}")
        return Uncertainty(self._facts, {name.removeprefix(_PREFIX): t for name, t in tensors.items()})

    @property
    def _facts(self) -> UncertaintyFacts | None:
        told = self.header.get(UNCERTAINTY_KEY)
        return None if told is None else UncertaintyFacts.model_validate(told)

    def _expected_uncertainty(self) -> dict[str, Tensor]:
        if self._facts is None:
            return {}
        if foreign := set(self._facts.elements) - set(self.config.atomic_numbers):
            raise self._misfit(f"its uncertainties are of elements {sorted(foreign)}, which it does not have")
        return {
            f"{_PREFIX}{name}": torch.empty(
                shape, dtype=torch.int64 if name == "numbers" else torch.float32, device="meta"
            )
            for name, shape in self._facts.shapes().items()
        }

    def _names(self, prefix: str = "") -> list[str]:
        return [name for name in self._file.keys() if name.startswith(prefix)]  # noqa: SIM118

    def _tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """Weights, or with a prefix the tensors whose names begin with it."""
        names = [n for n in self._names(prefix) if prefix or not n.startswith(_PREFIX)]
        tensors = {name: self._file.get_tensor(name) for name in names}
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise self._misfit(f"'{name}' holds numbers that are not finite")
        return tensors

    def _misfit(self, problem: str) -> ModelFileError:
        return ModelFileError(
            f"{self.path}: weights and configuration do not fit together ({problem}). "
            "The file is damaged or was not written by mmace_sim; download or train it again."
        )


def _first(numbers: set[int]) -> str:
    """Some numbers for a message."""
    text = ", ".join(map(str, sorted(numbers)[:3]))
    return text if len(numbers) <= 3 else f"{text}, ..."
