"""Recipes: what is done to a structure so that a calculation of the result teaches a model something."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmace_sim.errors import ConfigError

if TYPE_CHECKING:
    from mmace_sim.data.recipes.kitchen import Make


@dataclass(frozen=True)
class Recipe:
    """One recipe.

    Attributes:
        teaches: What a model learns from the candidates.
        make: ``module:function`` under this package, see `mmace_sim.data.recipes.kitchen`; "" if it stands for others.
        needs_model: It asks a model.
        once: Works on all structures at once rather than on each.
        turned: A common rotation of all moments makes another candidate.
        parts: Recipes that it stands for.
    """

    teaches: str
    make: str = ""
    needs_model: bool = False
    once: bool = False
    turned: bool = False
    parts: tuple[str, ...] = ()


RECIPES: dict[str, Recipe] = {
    "volumes": Recipe("energy and moment against volume: lattice constants, bulk modulus", "lattice:volumes"),
    "strains": Recipe("stress of sheared and stretched cells: elastic constants", "lattice:strains"),
    "rattles": Recipe("forces on displaced atoms: phonons", "lattice:rattles"),
    "vacancies": Recipe("atoms that lack a neighbour: defects, surfaces", "lattice:vacancies"),
    "orders": Recipe("energies of collinear magnetic orders, each once", "moments:orders"),
    "lengths": Recipe("the energy of the length of moments: Stoner, Landau", "moments:lengths"),
    "rotations": Recipe("single moments turned (collinear: reversed): exchange", "moments:rotations"),
    "spirals": Recipe("moments that turn from cell to cell: exchange over long distances", "moments:spirals"),
    "mixed": Recipe("everything at once: coupling of strain, displacements and moments", "moments:mixed"),
    "frames": Recipe("all moments turned together (spin–orbit coupling): anisotropy", "moments:frames", turned=True),
    "random": Recipe("random cells of the elements: nothing better lies elsewhere", "anything:random", once=True),
    "md": Recipe("what the present model visits at a temperature", "snapshots:md", needs_model=True),
    "relax": Recipe("where the present model relaxes to, false minima above all", "snapshots:relax", needs_model=True),
    "paper-feni": Recipe("distorted cells in all collinear orders, as for FeNi", parts=("orders", "strains", "mixed")),
    "paper-mn3pt": Recipe(
        "moments of a fixed crystal, each turned by U[0, π] and scaled by U[0, 1.5], as for Mn3Pt", "moments:scattered"
    ),
    "paper-anisotropy": Recipe("all moments turned together, as for anisotropy energies", parts=("frames",)),
    "paper-random": Recipe("random cells with random moments, as for structure search", parts=("random",)),
}  # fmt: skip
"""All recipes. Those called ``paper-`` follow arXiv 2604.08143."""

STANDARD: tuple[str, ...] = ("volumes", "orders", "strains", "rattles", "lengths", "rotations", "mixed")
"""Recipes that are taken if none is named."""


def parse_recipe(text: str) -> tuple[str, int | None]:
    """Name and number of a recipe.

    Args:
        text: ``NAME`` or ``NAME:N``.

    Returns:
        The name, and the number or None.

    Raises:
        ValueError: If there is no such recipe, or the number is none.
    """
    name, colon, number = text.partition(":")
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; choose from {', '.join(RECIPES)}")
    if colon and not (number.isascii() and number.isdigit() and 0 < int(number[:9]) <= 100_000):
        raise ValueError(f"{text!r}: the number must lie between 1 and 100000")
    return name, int(number) if colon else None


def find_make(name: str) -> "Make":
    """The function of a recipe.

    Args:
        name: One of `RECIPES` that stands for itself.

    Raises:
        ConfigError: If there is none.
    """
    from importlib import import_module

    module, _, function = RECIPES[name].make.partition(":")
    if not module:
        raise ConfigError(f"recipe {name!r} stands for {', '.join(RECIPES[name].parts)}.")
    return getattr(import_module(f"{__name__}.{module}"), function)
