"""One property in each folder: what is computed, its settings, its results, its figures."""
