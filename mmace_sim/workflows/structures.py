"""What workflows and commands need of structures: reading, starting moments, and the checks before anything runs."""

from mmace_sim.io.collection import (
    FailedStructure,
    LoadedStructure,
    find_structures,
    is_run_folder,
    load_structures,
    read_files,
    read_structures,
)
from mmace_sim.workflows.checks import StructureCheck, check_structure
from mmace_sim.workflows.initial_moments import initial_magmoms

__all__ = [
    "FailedStructure",
    "LoadedStructure",
    "StructureCheck",
    "check_structure",
    "find_structures",
    "initial_magmoms",
    "is_run_folder",
    "load_structures",
    "read_files",
    "read_structures",
]
