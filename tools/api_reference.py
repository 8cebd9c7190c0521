"""Pages of the Python reference: one for each public module, written by ``tools/reference_pages.py``.

A page shows the classes and functions that its package names in ``__all__`` and the other objects listed here: parts of
results, constants, functions that no package re-exports. Sphinx
fills in signatures and docstrings.
"""

from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from mmace_sim.properties.workflow import Workflow


@dataclass(frozen=True)
class ApiPage:
    """What one page shows.

    Attributes:
        title: Its heading.
        packages: Packages of which everything in ``__all__`` is shown.
        others: Full names of further objects.
        command: The command whose options are the settings of it.
    """

    title: str
    packages: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    command: str | None = None


def _property(name: str, title: str, *others: str, command: str | None = None) -> ApiPage:
    package = f"mmace_sim.properties.{name}"
    full = tuple(
        f"{package}.{other}" if other[0].islower() and "mmace_sim" not in other else other for other in others
    )
    return ApiPage(title, (package,), full, command or name)


PAGES: dict[str, ApiPage] = {
    "relax": _property(
        "relax",
        "Relaxation",
        "mmace_sim.engine.outcomes.RelaxResult",
        "mmace_sim.engine.outcomes.StructureResult",
        "mmace_sim.engine.outcomes.RelaxProgress",
        "mmace_sim.engine.outcomes.Status",
        "mmace_sim.engine.outcomes.Curvature",
    ),
    "eos": _property(
        "eos",
        "Equations of state",
        "birch_murnaghan.BirchMurnaghanFit",
        "birch_murnaghan.EosStatus",
        "analysis.MomentJump",
        "analysis.Crossing",
        "mmace_sim.properties.states.StatePoints",
    ),
    "bain": _property("bain", "Bain paths"),
    "elastic": _property(
        "elastic", "Elastic constants", "moduli.ElasticConstants", "plots.directional_young_gpa"
    ),
    "phonons": _property("phonons", "Phonons", "bands.BandPath", "bands.ImaginaryMode"),
    "order": _property(
        "order",
        "Magnetic orders",
        "starts.OrderStart",
        "enumeration.enumerate_collinear",
        "mmace_sim.graph.magnetic_order.MagneticOrder",
        "mmace_sim.structures.magnetic_order.MagneticSymmetry",
        "mmace_sim.structures.magnetic_order.classify_order",
        "mmace_sim.structures.magnetic_states.magnetic_state",
    ),
    "moments": _property("moments", "Minima of the moments", "relax.Descent"),
    "exchange": _property(
        "exchange",
        "Exchange constants",
        "declaration.CONVENTION",
        "magnons.MagnonPath",
        "magnons.Stiffness",
        "mmace_sim.structures.spin_lattice.SpinLattice",
        "mmace_sim.structures.spin_lattice.Pairs",
    ),
    "anisotropy": _property(
        "anisotropy",
        "Magnetic anisotropy",
        "declaration.CONVENTION",
        "symmetry.DirectionSymmetry",
        "symmetry.crystal_direction",
        "energies.PlaneCurve",
        "fits.Surface",
        "fits.Constants",
    ),
    "curie": _property(
        "curie",
        "Curie temperatures",
        "estimators.CurieTemperature",
        "mmace_sim.sampling.hamiltonian.SpinHamiltonian",
        "mmace_sim.sampling.statistics.CurieStatus",
        "mmace_sim.sampling.statistics.Point",
    ),
    "md": _property("md", "Spin–lattice dynamics"),
    "singlepoint": ApiPage(
        "Energies and their derivatives of many structures",
        others=(
            "mmace_sim.properties.singlepoint.SinglePoint",
            "mmace_sim.properties.singlepoint.SinglePointSettings",
            "mmace_sim.properties.singlepoint.PointResult",
            "mmace_sim.model.derivatives.evaluate",
            "mmace_sim.model.uncertainty.evaluate_with_uncertainty",
            "mmace_sim.model.uncertainty.Domain",
        ),
    ),
    "models": ApiPage(
        "Models",
        others=(
            "mmace_sim.load_model",
            "mmace_sim.save_model",
            "mmace_sim.model.registry.list_models",
            "mmace_sim.model.base.MagneticModel",
            "mmace_sim.model.reference.ReferenceEnergy",
            "mmace_sim.MagneticMACE",
            "mmace_sim.ModelConfig",
            "mmace_sim.PaperMMACE",
            "mmace_sim.PaperConfig",
            "mmace_sim.FoundationMMACE",
            "mmace_sim.interop.foundation.from_foundation",
            "mmace_sim.interop.convert.convert",
            "mmace_sim.interop.from_mace.from_upstream",
            "mmace_sim.interop.install.get_model",
            "mmace_sim.interop.install.add_model",
        ),
    ),
    "calculator": ApiPage(
        "ASE calculator, moments of a structure",
        others=(
            "mmace_sim.MMACECalculator",
            "mmace_sim.graph.atoms.get_magmoms",
            "mmace_sim.graph.atoms.set_magmoms",
            "mmace_sim.graph.atoms.has_magmoms",
            "mmace_sim.graph.atoms.widen_collinear",
            "mmace_sim.structures.initial_moments.initial_magmoms",
            "mmace_sim.io.collection.load_structures",
            "mmace_sim.io.collection.read_structures",
            "mmace_sim.io.collection.LoadedStructure",
        ),
    ),
    "torchsim": ApiPage(
        "TorchSim",
        ("mmace_sim.torchsim",),
        (
            "mmace_sim.torchsim.fire.MagneticFireState",
            "mmace_sim.torchsim.zeeman.ZeemanModel",
        ),
    ),
    "training": ApiPage(
        "Training and evaluation",
        others=(
            "mmace_sim.training.config.TrainConfig",
            "mmace_sim.training.config.load_train_config",
            "mmace_sim.training.trainer.train",
            "mmace_sim.training.finetuning.finetune.finetune",
            "mmace_sim.training.finetuning.finetune.load_finetune_config",
            "mmace_sim.training.loss.LabelLoss",
            "mmace_sim.training.evaluation.evaluate.Evaluation",
            "mmace_sim.training.evaluation.errors.Samples",
            "mmace_sim.training.evaluation.errors.StructureErrors",
            "mmace_sim.training.evaluation.timing.Timing",
            "mmace_sim.training.evaluation.metrics.LabelError",
            "mmace_sim.training.evaluation.evaluate.evaluate_files",
            "mmace_sim.training.evaluation.evaluate.evaluate_frames",
            "mmace_sim.training.evaluation.metrics.error_line",
        ),
        command="train",
    ),
    "data": ApiPage(
        "Proposing, choosing and computing data",
        ("mmace_sim.data.label",),
        (
            "mmace_sim.data.propose.propose",
            "mmace_sim.data.propose.Proposal",
            "mmace_sim.data.settings.ProposeSettings",
            "mmace_sim.data.select.select",
            "mmace_sim.data.select.score",
            "mmace_sim.data.learn.run.learn",
            "mmace_sim.data.learn.run.LearnOutcome",
            "mmace_sim.data.learn.rounds.Round",
            "mmace_sim.data.learn.settings.LearnSettings",
        ),
        command="learn",
    ),
    "quality": ApiPage(
        "Examining models and data",
        ("mmace_sim.quality.check", "mmace_sim.quality.preflight"),
        (
            "mmace_sim.quality.check.checks.CheckResult",
            "mmace_sim.quality.check.checks.CHECKS",
            "mmace_sim.quality.preflight.work.WorkFit",
        ),
        command="check",
    ),
    "testing": ApiPage(
        "Toy models and conformance of other models",
        ("mmace_sim.testing",),
        ("mmace_sim.testing.identities.IDENTITIES",),
    ),
    "declaring": ApiPage(
        "Declaring a property",
        others=(
            "mmace_sim.engine.declaration.Property",
            "mmace_sim.engine.declaration.Column",
            "mmace_sim.engine.declaration.OutputFile",
            "mmace_sim.engine.computation.Computation",
            "mmace_sim.engine.computation.Part",
            "mmace_sim.base.settings.Settings",
            "mmace_sim.engine.settings.RunSettings",
            "mmace_sim.executors.interface.Executor",
        ),
    ),
    "errors": ApiPage(
        "Errors, units and pages", ("mmace_sim.report",), ("mmace_sim.errors", "mmace_sim.units")
    ),
}
"""Every page by its name."""


def api_pages() -> dict[str, str]:
    """Text of each page by its name in the folder of the reference."""
    return {f"api/{name}.md": _text(page) for name, page in PAGES.items()}


def shown(page: ApiPage) -> list[str]:
    """Full names of the objects that a page shows, in order.

    Args:
        page: The page.
    """
    named = [
        f"{package}.{name}"
        for package in page.packages
        for name in import_module(package).__all__
        if callable(getattr(import_module(package), name)) and not name.isupper()
    ]
    return [*named, *page.others]


def _text(page: ApiPage) -> str:
    parts = [f"# {page.title}\n"]
    if page.command:
        link = f"[`mmace-sim {page.command}`](../commands/{page.command}.md)"
        parts.append(f"Settings, as keyword arguments or fields, are the keys of {link}.\n")
    directives = "\n".join(_directive(name) for name in shown(page))
    return "\n".join([*parts, f"```{{eval-rst}}\n{directives}```\n"])


def found(name: str) -> Any:
    """A module, or an object in one.

    Args:
        name: Full name.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError:
        module, _, last = name.rpartition(".")
        return getattr(import_module(module), last)


def _directive(name: str) -> str:
    """How Sphinx shows an object, by what it is."""
    thing = found(name)
    if isinstance(thing, ModuleType):
        return f".. automodule:: {name}\n   :members:\n   :show-inheritance:\n"
    if isinstance(thing, type):
        inherited = "   :inherited-members:\n" if issubclass(thing, Workflow) else ""  # `run` is theirs
        return f".. autoclass:: {name}\n   :members:\n{inherited}"
    return f".. auto{'function' if callable(thing) else 'data'}:: {name}\n"
