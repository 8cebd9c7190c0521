"""Blocks of the network: tensors in, tensors out; they know nothing of files, hosts or derivatives."""
