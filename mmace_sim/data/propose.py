"""Makes candidates of structures by recipes; those that are no states of matter, and copies, are left out."""

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from mmace_sim.data.candidates import Distinct, named, refusal
from mmace_sim.data.recipes import RECIPES, find_make
from mmace_sim.data.recipes.kitchen import Kitchen
from mmace_sim.data.settings import ProposeSettings
from mmace_sim.errors import ConfigError, DataError, StructureError
from mmace_sim.graph.atoms import get_magmoms, set_magmoms
from mmace_sim.io.collection import FailedStructure, load_structures
from mmace_sim.io.writing import file_names
from mmace_sim.structures.checks import check_structure
from mmace_sim.structures.initial_moments import initial_magmoms
from mmace_sim.structures.magnetic_order import MagneticOrder, classify_order

if TYPE_CHECKING:
    from mmace_sim.properties.relax.relaxation import ModelLike

_log = logging.getLogger(__name__)


@dataclass
class Proposal:
    """What came out.

    Attributes:
        candidates: Candidates with names, all different.
        made: Number that each recipe made.
        copies: Number of those that were there before.
        refused: Number of those that are no states of matter.
        problems: One message per structure or recipe that could not be used.
    """

    candidates: list[Atoms] = field(default_factory=list)
    made: dict[str, int] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def kept(self, recipe: str) -> int:
        """Number of candidates of a recipe that are left."""
        return self.made[recipe] - self.copies[recipe] - self.refused[recipe]


def read_parents(settings: ProposeSettings) -> tuple[dict[str, Atoms], list[str]]:
    """Structures that candidates are made of, by short names, each with moments.

    Args:
        settings: Which files, and how moments start.

    Returns:
        The structures, and one message for each that cannot be used.

    Raises:
        DataError: If there is none.
    """
    items = load_structures(settings.paths)
    problems = [item.message for item in items if isinstance(item, FailedStructure)]
    found, names = [], []
    for item in items:
        if isinstance(item, FailedStructure):
            continue
        try:
            set_magmoms(item.atoms, initial_magmoms(item.atoms, settings.initial_magmoms)[0])
            check_structure(item.atoms, None, item.name)
            _check_collinear(item.atoms, settings)
        except StructureError as error:
            problems.append(f"{item.name}: {error}")
            continue
        found.append(item.atoms)
        names.append(item.name)
    if not found:
        told = f" ({problems[0]})" if problems else ""
        raise DataError(
            f"no structure in {', '.join(settings.paths) or 'nothing'}{told}. Name files or folders."
        )
    return dict(zip(file_names(names), found, strict=True)), problems


def propose(
    parents: dict[str, Atoms],
    settings: ProposeSettings,
    *,
    model: "ModelLike | None" = None,
    distinct: Distinct | None = None,
) -> Proposal:
    """Make candidates.

    Args:
        parents: Structures with moments, by short names.
        settings: Recipes, sizes, seed. The same settings give the same candidates with the same names.
        model: Energy model for recipes that ask one; None: the one of the settings.
        distinct: Candidates that are there already; new ones are added.

    Returns:
        The candidates, and what was left out.

    Raises:
        ConfigError: If a recipe needs a model and there is none.
        ModelFileError: If the model cannot be loaded.
    """
    recipes = settings.recipes()
    needing = [name for name in recipes if RECIPES[name].needs_model]
    if needing and model is None:
        model = _load(settings, needing)
    distinct = Distinct() if distinct is None else distinct
    proposal = Proposal()
    for name, count in recipes.items():
        sources = _together(parents) if RECIPES[name].once else parents
        for counts in (proposal.made, proposal.copies, proposal.refused):
            counts[name] = 0
        for parent, atoms in sources.items():
            seeds = [settings.seed, *(zlib.crc32(text.encode()) for text in (parent, name))]
            kitchen = Kitchen(atoms, count, settings, np.random.default_rng(seeds), model)
            try:
                _cook(name, parent, kitchen, distinct, proposal)
            except StructureError as error:
                proposal.problems.append(f"{parent}, {name}: {error}")
    return proposal


def _cook(name: str, parent: str, kitchen: Kitchen, distinct: Distinct, proposal: Proposal) -> None:
    """Candidates of one recipe and one structure."""
    for atoms in islice(find_make(name)(kitchen), kitchen.count):
        proposal.made[name] += 1
        reason = refusal(atoms)
        if reason:
            proposal.refused[name] += 1
            _log.info("%s, %s: left out, %s", parent, name, reason)
        elif not distinct.is_new(atoms, turned=RECIPES[name].turned):
            proposal.copies[name] += 1
        else:
            proposal.candidates.append(named(atoms, parent, name))


def _together(parents: dict[str, Atoms]) -> dict[str, Atoms]:
    """One structure with all elements, which is all that some recipes look at."""
    numbers = sorted({z for atoms in parents.values() for z in atoms.numbers.tolist()})
    return {"".join(Atoms(numbers).get_chemical_symbols()): Atoms(numbers)}


def _load(settings: ProposeSettings, needing: Sequence[str]) -> "ModelLike":
    if settings.model is None:
        raise ConfigError(f"recipe {', '.join(needing)}: needs a model; name one with --model.")
    from mmace_sim.engine.machine import pick_device
    from mmace_sim.torchsim.model import MagneticMaceModel

    return MagneticMaceModel(settings.model, device=pick_device(None, settings.threads))


def _check_collinear(atoms: Atoms, settings: ProposeSettings) -> None:
    if settings.collinear and classify_order(get_magmoms(atoms)) == MagneticOrder.NON_COLLINEAR:
        raise StructureError(
            "its moments are not collinear, and --collinear asks for such states. Start with --initial-magmoms fm."
        )
