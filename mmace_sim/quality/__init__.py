"""Whether data and models can be trusted: preflight of data, check of a model, the test that ends a training."""
