"""Data that a model does not have yet: propose, select, label, learn."""
