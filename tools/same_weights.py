"""Compare the weights of two model files: python tools/same_weights.py ONE TWO.

Exit code 0 if all are the same to the last bit, 1 with the largest difference if not. The text of the files (dates,
versions) may differ.
"""

import sys

import torch
from safetensors.torch import load_file


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest difference of any number; infinite if names, shapes or types differ."""
    if {k: (v.shape, v.dtype) for k, v in one.items()} != {k: (v.shape, v.dtype) for k, v in other.items()}:
        return float("inf")
    return max(
        (float((one[name].double() - other[name].double()).abs().max()) for name in one if one[name].numel()),
        default=0.0,
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    largest = difference(*(load_file(path) for path in sys.argv[1:]))
    print("the same weights" if largest == 0 else f"weights differ by up to {largest:.1e}")
    sys.exit(largest > 0)
