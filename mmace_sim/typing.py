"""Shape aliases used in annotations (checked at run time in tests only)."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

AtomVectors = Float[Tensor, "n_atoms 3"]
AtomScalars = Float[Tensor, " n_atoms"]
SystemScalars = Float[Tensor, " n_systems"]
SystemMatrices = Float[Tensor, "n_systems 3 3"]
AtomIndex = Int[Tensor, " n_atoms"]
EdgeIndex = Int[Tensor, "2 n_edges"]
EdgeVectors = Float[Tensor, "n_edges 3"]
PeriodicFlags = Bool[Tensor, "n_systems 3"]

__all__ = [
    "AtomIndex",
    "AtomScalars",
    "AtomVectors",
    "EdgeIndex",
    "EdgeVectors",
    "PeriodicFlags",
    "SystemMatrices",
    "SystemScalars",
]
