"""Molecular dynamics of atoms and magnetic moments."""

from mmace_sim.workflows.md.dynamics import MolecularDynamics
from mmace_sim.workflows.md.frames import Checkpoint, Frame
from mmace_sim.workflows.md.simulation import MDResult, MDStatus

__all__ = ["Checkpoint", "Frame", "MDResult", "MDStatus", "MolecularDynamics"]
