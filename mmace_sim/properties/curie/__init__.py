"""Magnets at finite temperature: Monte Carlo of Heisenberg models and of the energy of a model itself."""
