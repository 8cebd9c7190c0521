"""Errors of mmace-3d-pbe against the number of calculations: python docs/models/learning_3d.py [FRACTION...].

Trains as `make model` does on parts of the training set (by a hash of each id; the larger ones hold the smaller) and
writes errors on the test set to docs/models/mmace-3d-pbe-learning.json.
"""

import hashlib
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from ase.io import read, write
from measure_3d import DATA, HERE, test_errors

import mmace_sim
from mmace_sim.training.config import TrainConfig
from mmace_sim.training.trainer import train

FRACTIONS = (0.25, 0.5)
NAME = "mmace-3d-pbe"
PATH = HERE / f"{NAME}-learning.json"


def place(config_id: str) -> float:
    """A number between 0 and 1 for each calculation."""
    return int.from_bytes(hashlib.sha256(f"curve {config_id}".encode()).digest()[:8]) / 2**64


def main() -> None:
    """Train and write."""
    frames = read(DATA / "train.extxyz.xz", ":")
    config = yaml.safe_load((DATA.parent / f"{NAME}.yaml").read_text(encoding="utf-8"))
    config["trainer"] |= {"stability_test": False, "figures": False, "device": "cpu", "num_threads": 1}
    rows = [{"train": len(frames), "errors": test_errors(mmace_sim.load_model(NAME))}]
    for fraction in [float(text) for text in sys.argv[1:]] or FRACTIONS:
        part = [frame for frame in frames if place(frame.info["config_id"]) < fraction]
        with TemporaryDirectory() as folder:
            write(Path(folder) / "train.extxyz", part)
            config["data"]["train_file"] = [f"{folder}/train.extxyz"]
            train(TrainConfig(**config), Path(folder))
            model = mmace_sim.load_model(str(Path(folder) / "model.safetensors"))
        rows.append({"train": len(part), "errors": test_errors(model)})
    rows.sort(key=lambda row: row["train"])
    PATH.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
