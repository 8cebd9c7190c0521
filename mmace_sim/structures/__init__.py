"""Structures made ready: starting moments, magnetic states and orders, supercells, checks, and the model for each."""
