"""What several properties write alike: structures that say whose they are, a figure for each structure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ase import Atoms

from mmace_sim.engine.computation import Computed
from mmace_sim.engine.run import Run
from mmace_sim.io.writing import file_names


def labelled(atoms: Atoms, **labels: Any) -> Atoms:
    """A copy with its results and further entries of ``info``.

    Args:
        atoms: What was computed.
        **labels: Such as its name and status.
    """
    copy = atoms.copy()
    copy.calc = atoms.calc
    copy.info |= labels
    return copy


def some_folders(run: Run) -> list[str]:
    """Folders of the first structures, to be named among the files of a run whose structures have one each.

    Args:
        run: The run.
    """
    return [f"{folder.name}/" for folder in run.folders.values()][:3]


def draw_each(run: Run, computed: Computed[Any], draw: Callable[[Any, Path], object]) -> str:
    """Draw every result into ``figures/``.

    Args:
        run: The run.
        computed: Structures and results.
        draw: Draws a result, given the path of its figures without what ends them.

    Returns:
        What to call it among the files of the run.
    """
    folder = run.folder / "figures"
    folder.mkdir(exist_ok=True)
    stems = file_names([item.name for item, _ in computed])
    for stem, (_, result) in zip(stems, computed, strict=True):
        draw(result, folder / stem)
    return "figures/"
