"""What several properties write alike: structures that say whose they are, figures of each structure."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ase import Atoms

from mmace_sim.engine.computation import Computed
from mmace_sim.engine.run import Run
from mmace_sim.io.writing import file_names
from mmace_sim.plots import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Figures = Mapping[str, Callable[[Any], "Figure | None"]]
"""Draw a result, by what the names of their files end with; None where there is nothing to draw."""


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


def save_figures(result: Any, stem: str | Path, figures: Figures) -> list[Path]:
    """Draw a result.

    Args:
        result: What was computed.
        stem: Path of the figures without what ends their names.
        figures: Which.

    Returns:
        Files written.

    Raises:
        OutputError: If a file cannot be written.
    """
    drawn = {ending: draw(result) for ending, draw in figures.items()}
    saved = [save_figure(figure, f"{stem}{ending}") for ending, figure in drawn.items() if figure is not None]
    return [path for paths in saved for path in paths]


def draw_each(run: Run, computed: Computed[Any], figures: Figures) -> list[str]:
    """Draw every result into ``figures/``, if figures are asked for.

    Args:
        run: The run.
        computed: Structures and results.
        figures: Of each result.

    Returns:
        What to call that among the files of the run.
    """
    if not run.settings.figures:  # type: ignore[attr-defined]
        return []
    folder = run.folder / "figures"
    folder.mkdir(exist_ok=True)
    stems = file_names([item.name for item, _ in computed])
    for stem, (_, result) in zip(stems, computed, strict=True):
        save_figures(result, folder / stem, figures)
    return ["figures/"]
