"""Monte Carlo on one batched state: Heisenberg models and the energy of a model at finite temperature."""
