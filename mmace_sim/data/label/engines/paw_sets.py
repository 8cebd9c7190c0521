"""PAW sets in the XML format of GPAW, which ABINIT reads too."""

import gzip
import importlib.util
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmace_sim.data.label.settings import LabelSettings
from mmace_sim.errors import ConfigError

NAMES: tuple[str, ...] = ("{}.PBE.gz", "{}.PBE", "{}.xml", "{}.xml.gz")
"""Names of the file of an element, in order of precedence."""

_PYTHON = "import gpaw_data, json; print(json.dumps(str(gpaw_data.datapath())))"


@dataclass(frozen=True)
class PawSet:
    """The PAW set of an element.

    Attributes:
        text: Its XML.
        n_electrons: Electrons in the valence.
        radius: Largest radius of its partial waves, in Bohr.
    """

    text: str
    n_electrons: float
    radius: float


def find_sets(settings: LabelSettings) -> Path:
    """The folder of PAW sets: the one that the user names, else that of gpaw-data.

    Raises:
        ConfigError: If there is none.
    """
    from mmace_sim.data.label.engines.gpaw import PYTHON_VARIABLE

    if settings.potentials is not None:
        folder = Path(settings.potentials)
        if not folder.is_dir():
            raise ConfigError(f"--potentials {folder}: no such folder.")
        return folder
    found = _installed(settings.gpaw_python or os.environ.get(PYTHON_VARIABLE) or sys.executable)
    if found is None:
        raise ConfigError(
            "no PAW sets: `pip install gpaw-data` brings those of GPAW, or name a folder with Fe.xml, ... by "
            "--potentials."
        )
    return found


@cache
def _installed(python: str) -> Path | None:
    if python == sys.executable:
        spec = importlib.util.find_spec("gpaw_data")
        return None if spec is None or spec.origin is None else Path(spec.origin).parent / "setups"
    try:
        done = subprocess.run(
            [python, "-c", _PYTHON], capture_output=True, text=True, timeout=120, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return Path(json.loads(done.stdout))


@cache
def paw_set(folder: Path, symbol: str) -> PawSet:
    """The PAW set of an element.

    Args:
        folder: From `find_sets`.
        symbol: The element.

    Raises:
        ConfigError: If there is none, or it cannot be read.
    """
    path = next(
        (folder / name.format(symbol) for name in NAMES if (folder / name.format(symbol)).is_file()), None
    )
    if path is None:
        raise ConfigError(f"{folder}: has no PAW set of {symbol} ({', '.join(NAMES).format(*[symbol] * 4)}).")
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    head = text[: text.find("<shape_function")]
    valence = re.search(r'valence="\s*([\d.]+)"', head)
    radii = [float(radius) for radius in re.findall(r'\brc="\s*([\d.]+)"', head)]
    if valence is None or not radii:
        raise ConfigError(f"{path}: is no PAW set in XML.")
    return PawSet(text, float(valence[1]), max(radii))
