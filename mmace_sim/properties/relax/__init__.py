"""Relaxation of positions, cell and magnetic moments."""
