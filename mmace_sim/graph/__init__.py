"""Batches of structures as graphs, neighbour lists, and the moments of ``ase.Atoms``."""
