"""Batched properties: settings in, typed results out, one status per structure."""
