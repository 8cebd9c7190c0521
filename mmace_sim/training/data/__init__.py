"""Labelled structures of a training: reading, splitting, limits, batches."""
