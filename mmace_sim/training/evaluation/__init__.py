"""Errors of models on labelled structures."""
