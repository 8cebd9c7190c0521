"""The right model for a structure, by the elements that it holds."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.formula import Formula

from mmace_sim.base.quantities import DEFAULT_HEAD
from mmace_sim.errors import ModelFileError, UnsupportedElementError
from mmace_sim.hub.catalogue import read_catalogue
from mmace_sim.model.checkpoint import read_metadata
from mmace_sim.model.registry import DEFAULT_MODEL, fetch_command, list_models

AUTO: str = "auto"
"""In place of the name of a model: the one that `choose_model` takes for each structure."""


def choose_model(numbers: Iterable[int]) -> str:
    """The default model if it knows all elements, else the one at hand with the fewest elements that does.

    Args:
        numbers: Atomic numbers of a structure.

    Raises:
        UnsupportedElementError: If no model at hand knows them all; the message says how to get one.
    """
    wanted = frozenset(int(z) for z in numbers)
    fitting = _fitting(wanted)
    if not fitting:
        symbols = ", ".join(chemical_symbols[z] for z in sorted(wanted))
        together = " together" if len(wanted) > 1 else ""
        raise UnsupportedElementError(f"no model at hand knows {symbols}{together}. {which_model(wanted)}")
    return fitting[0]


def one_model(formulas: Iterable[str]) -> str | None:
    """The model for all elements of some formulas together, if there is one."""
    symbols = {symbol for formula in formulas for symbol in Formula(formula).count()}
    fitting = _fitting(frozenset(atomic_numbers[symbol] for symbol in symbols))
    return fitting[0] if fitting else None


def _fitting(wanted: frozenset[int]) -> list[str]:
    """Models at hand that know some elements: the default one first, then those with the fewest elements."""
    fitting = (
        (name != DEFAULT_MODEL, len(known), name) for name, known in models_at_hand() if wanted <= known
    )
    return [name for *_, name in sorted(fitting)]


def group_by_model(
    images: Sequence[Atoms],
) -> tuple[dict[str, list[int]], dict[int, UnsupportedElementError]]:
    """Structures by the model for their elements.

    Returns:
        Their indices by the name of the model, and why there is none, by index.
    """
    groups: dict[str, list[int]] = {}
    unknown = {}
    known: dict[frozenset[int], str | UnsupportedElementError] = {}
    for index, atoms in enumerate(images):
        elements = frozenset(atoms.numbers.tolist())
        if elements not in known:
            try:
                known[elements] = choose_model(elements)
            except UnsupportedElementError as error:
                known[elements] = error
        chosen = known[elements]
        if isinstance(chosen, str):
            groups.setdefault(chosen, []).append(index)
        else:
            unknown[index] = chosen
    return groups, unknown


def which_model(numbers: Iterable[int]) -> str:
    """Which model to take for a set of elements, as lines to copy.

    Args:
        numbers: Atomic numbers.

    Returns:
        Models at hand that know them all; else what to fetch; else how to train one.
    """
    wanted = frozenset(int(z) for z in numbers)
    if fitting := _fitting(wanted):
        return f"Models that know them all: {', '.join(fitting)} (--model NAME)."
    them = "them all" if len(wanted) > 1 else "it"
    try:
        remote = fetchable(wanted)
    except ModelFileError as error:  # a broken catalogue must not hide what is wrong here
        return f"What can be fetched is not known: {error}"
    if remote is not None:
        return f"Get one that knows {them}: {fetch_command(remote)}, then run the same command again."
    return (
        f"No model that is known here has {them} (`mmace-sim models`): train one with `mmace-sim train`, or add a "
        "file that you have with `mmace-sim models add FILE`."
    )


@lru_cache(maxsize=256)
def beyond_its_data(numbers: frozenset[int], name: str | None) -> str:
    """What to do where a structure is outside of the data of a model, as a sentence with lines to copy.

    Args:
        numbers: Atomic numbers.
        name: Name of the model, or None.
    """
    others = [other for other in _fitting(numbers) if other != name]
    ways = [f"--model {other}" for other in others]
    with suppress(ModelFileError):  # a broken catalogue is told where it matters
        remote = fetchable(numbers)
        if remote not in (None, name, *others):
            ways.append(f"{fetch_command(remote)}, then --model {remote}")
    compare = f" Compare with another model: {', or '.join(ways)}." if ways else ""
    return (
        f"outside of the data of {name or 'the model'} (column domain): its errors there are not known.{compare} "
        "`mmace-sim learn` makes a model by DFT."
    )


def fetchable(numbers: Iterable[int]) -> str | None:
    """The model of the catalogue with the fewest elements that knows all of some, if there is one.

    Args:
        numbers: Atomic numbers.

    Raises:
        ModelFileError: If a catalogue cannot be read.
    """
    wanted = {chemical_symbols[int(z)] for z in numbers}
    catalogue = read_catalogue().items()
    fitting = [(len(model.elements), name) for name, model in catalogue if wanted <= set(model.elements)]
    return min(fitting)[1] if fitting else None


def models_at_hand() -> Iterator[tuple[str, frozenset[int]]]:
    """Names and elements of all models that can be used by their names alone; broken ones are left out."""
    for name, path in list_models().items():
        if name == "default" or not path.is_file():
            continue
        with suppress(ModelFileError):
            heads, elements = _facts(path, path.stat().st_mtime_ns)
            if DEFAULT_HEAD in heads or len(heads) == 1:
                yield name, elements


@lru_cache(maxsize=256)
def _facts(path: Path, _changed: int) -> tuple[frozenset[str], frozenset[int]]:
    """Heads and elements of a model file."""
    config = read_metadata(path)["config"]
    return frozenset(config.get("heads", {DEFAULT_HEAD: {}})), frozenset(map(int, config["atomic_numbers"]))
