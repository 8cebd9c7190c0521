"""Foreign checkpoints and models from the web: read without running anything in them, converted to model files."""
