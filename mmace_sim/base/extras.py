"""Libraries of single features: which extra of the package brings them, and what is said when they are missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

from mmace_sim.errors import MissingExtraError

EXTRAS: dict[str, tuple[str, ...]] = {
    "data": ("ase_ga",),
    "databases": ("lmdb", "orjson"),
    "parallel": ("parsl",),
    "phonons": ("seekpath",),
    "tables": ("pyarrow",),
    "train": ("lightning",),
}
"""Libraries of each extra, by the names under which they are imported; ``mmace-sim[all]`` joins them."""


@contextmanager
def extra(name: str, feature: str) -> Iterator[None]:
    """Import the libraries of an extra within this context.

    Args:
        name: The extra, a key of `EXTRAS`.
        feature: What needs them, as the first words of the message.

    Raises:
        MissingExtraError: If one of its libraries is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS[name]:
            raise
        raise MissingExtraError(
            f"{feature} needs {library}, which is not installed. Install it: pip install 'mmace-sim[{name}]' "
            "(or 'mmace-sim[all]' for every feature)."
        ) from error


def require(name: str, feature: str) -> None:
    """Make sure, before anything long starts, that the libraries of an extra are there.

    Args:
        name: The extra, a key of `EXTRAS`.
        feature: What needs them, as the first words of the message.

    Raises:
        MissingExtraError: If one of its libraries is not installed.
    """
    with extra(name, feature):
        for library in EXTRAS[name]:
            import_module(library)
