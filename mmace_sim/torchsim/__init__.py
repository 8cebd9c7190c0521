"""Magnetic models in TorchSim: model, state, batched relaxation of moments."""
