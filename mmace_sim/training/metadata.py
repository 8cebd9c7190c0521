"""What a model file says about itself."""

from datetime import UTC, datetime
from typing import Any

from ase.data import chemical_symbols

from mmace_sim.io.frames import file_sha256
from mmace_sim.model.base import MagneticModel
from mmace_sim.training.config import TrainConfig
from mmace_sim.training.evaluation.evaluate import Evaluation
from mmace_sim.training.evaluation.metrics import table_as_dict


def model_metadata(
    config: TrainConfig, model: MagneticModel, errors: dict[str, Evaluation], best_epoch: int
) -> dict[str, Any]:
    """What the model file says about itself: elements, data, errors, licence, citation."""
    data = config.data
    files = [
        {"role": role, "file": path.name, "sha256": file_sha256(path)}
        | ({"head": head} if data.heads else {})
        for head, source in data.sources().items()
        for role in ("train", "valid", "test")
        for path in getattr(source, f"{role}_file")
    ]
    source = model.metadata  # of the model that training started from, if any
    return _inherited(source) | {
        "name": config.name,
        "description": config.description,
        "elements": [chemical_symbols[z] for z in model.elements],
        "training_data": {
            "files": files,
            "n_structures": {name: result.n_structures for name, result in errors.items()},
        },
        "errors": {name: table_as_dict(result.overall) for name, result in errors.items()},
        "best_epoch": best_epoch,
        "training_config": config.model_dump(mode="json", exclude={"model": True, "data": _PATHS}),
        "license": data.licence,
        "citation": data.citation,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _inherited(source: dict[str, Any]) -> dict[str, Any]:
    if not source:
        return {}
    told = ("name", "license", "citation", "upstream", "foundation", "started_from")
    inherited = {"started_from": {key: source[key] for key in told if key in source}}
    # what an architecture violates, training does not change
    return inherited | ({"violations": source["violations"]} if source.get("violations") else {})


_FILES = {"train_file": True, "valid_file": True, "test_file": True}
_PATHS = _FILES | {"heads": {"__all__": _FILES}}
