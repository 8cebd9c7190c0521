"""The architectures that model files and training configurations name; each registers itself by an entry point."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from mmace_sim.errors import ModelFileError
from mmace_sim.model.base import MagneticModel
from mmace_sim.model.config import ArchitectureConfig

ENTRY_POINT_GROUP: str = "mmace_sim.architectures"
"""Entry points of this group are objects of `Architecture`, by the name that model files give."""

DEFAULT_ARCHITECTURE: str = "MagneticMACE"


@dataclass(frozen=True)
class Architecture:
    """An energy model and its hyper-parameters.

    Attributes:
        config: Class of the hyper-parameters.
        model: Class of the model, made from them.
    """

    config: type[ArchitectureConfig]
    model: type[MagneticModel]


class _Architectures(Mapping[str, Architecture]):
    """All that are installed, each imported when it is first asked for."""

    def __getitem__(self, name: str) -> Architecture:
        return _load(name)

    def __contains__(self, name: object) -> bool:
        return name in _entries()

    def __iter__(self) -> Iterator[str]:
        return iter(_entries())

    def __len__(self) -> int:
        return len(_entries())


ARCHITECTURES: Mapping[str, Architecture] = _Architectures()


@cache
def _entries() -> dict[str, EntryPoint]:
    own = EntryPoint(DEFAULT_ARCHITECTURE, "mmace_sim.model.magnetic_mace:ARCHITECTURE", ENTRY_POINT_GROUP)
    found = {own.name: own} | {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    return dict(sorted(found.items(), key=lambda item: item[0] != DEFAULT_ARCHITECTURE))


@cache
def _load(name: str) -> Architecture:
    entry = _entries()[name]
    try:
        return entry.load()
    except Exception as error:
        raise ModelFileError(
            f"architecture '{name}' of {entry.dist.name if entry.dist else 'a plugin'} cannot be imported: {error}. "
            "Reinstall or remove that package."
        ) from error
