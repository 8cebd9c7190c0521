"""The energy model, its derivatives, its reference energies and its file format."""
