"""Training, fine-tuning and evaluation of magnetic models."""
