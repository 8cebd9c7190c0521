"""Where and with what a benchmark ran, and its JSON file."""

import datetime
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

FOLDER = Path(__file__).parents[2] / "docs" / "benchmarks"
MODEL = os.environ.get("MMACE_BENCHMARK_MODEL", "mmace-fe-pbe")
"""What is measured on iron: the embedded model of iron alone, as the pages say, unless the environment names another."""

PACKAGES = ("mmace-sim", "torch", "torch-sim-atomistic", "mace-torch", "e3nn", "ase")


def environment() -> dict:
    """Versions, commit and device."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "cpu": cpu,
        "gpu": gpu,
        "threads": torch.get_num_threads(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:  # a checkout beside the packages of another machine
        return None


def write(name: str, results: dict) -> Path:
    """Write docs/benchmarks/<name>.json."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps({"benchmark": name, **environment(), **results}, indent=1) + "\n")
    return path
