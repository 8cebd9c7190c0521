"""Hyper-parameters of the paper by name."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from mmace_sim.base.yamlfile import read_yaml
from mmace_sim.errors import ConfigError

FILE: Path = Path(__file__).with_name("presets.yaml")


@lru_cache(maxsize=1)
def presets() -> dict[str, dict[str, Any]]:
    """All presets: a part of a training configuration and a ``description``, by name."""
    return read_yaml(FILE)


def preset(name: str) -> dict[str, Any]:
    """The part of a training configuration that a preset stands for.

    Raises:
        ConfigError: If there is none of this name.
    """
    known = presets()
    if name not in known:
        told = "; ".join(f"{key} ({value['description']})" for key, value in known.items())
        raise ConfigError(f"no preset '{name}'; there are {told}.")
    return {key: value for key, value in known[name].items() if key != "description"}
