"""Going on from a trained model."""
