"""Molecular dynamics of atoms and magnetic moments."""

from mmace_sim.properties.md.dynamics import MolecularDynamics
from mmace_sim.properties.md.frames import Checkpoint, Frame
from mmace_sim.properties.md.simulation import MDResult, MDStatus

__all__ = ["Checkpoint", "Frame", "MDResult", "MDStatus", "MolecularDynamics"]
