"""The engines: each knows one code."""
