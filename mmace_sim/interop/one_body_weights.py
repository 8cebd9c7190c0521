"""One-body energies of upstream models, each kind by the names of its weights."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmace_sim.architectures.paper_reference import PaperReference, SplineReference
from mmace_sim.errors import ModelFileError
from mmace_sim.interop.mace_weights import UpstreamWeights

EACH_ELEMENT = "onebody_magmombasis_coeffs"
"""Chebyshev coefficients for each element and head."""
ALL_ELEMENTS = "onebody_magmombasis_list.{}.layer0.weight"
"""The same coefficients for all elements, once for each layer, of which the last counts."""
CONSTANT = "one_body_magmom_const_correction"
"""What is taken off, so that E1 may vanish without a moment."""
KNOTS, VALUES = "E_m_spline.u_knots.{}", "E_m_spline.y.{}"
BARRIER = "saturation"


def one_body_fields(weights: UpstreamWeights) -> dict[str, Any]:
    """Hyper-parameters of the one-body energy."""
    if VALUES.format(0) in weights:
        return {"one_body": "spline", "num_one_body": weights(VALUES.format(0)).numel()}
    if EACH_ELEMENT in weights:
        return {"one_body": "chebyshev", "num_one_body": max(weights(EACH_ELEMENT).shape[1] - 1, 1)}
    n_layers = weights.count("onebody_magmombasis_list.{}.")
    if n_layers:
        return {
            "one_body": "chebyshev",
            "num_one_body": max(weights(ALL_ELEMENTS.format(n_layers - 1)).shape[0] - 1, 1),
        }
    return {"one_body": "chebyshev"}  # none: zeros, as many as fine-tuning usually fits


def fill_one_body(
    reference: PaperReference, weights: UpstreamWeights, head: int, scale: Tensor, rows: Sequence[int]
) -> Tensor | float:
    """Put the one-body energy into a model.

    Args:
        reference: Reference energies to fill.
        weights: Weights.
        head: Number of the head to keep.
        scale: Scale of the network, which Chebyshev functions are inside of.
        rows: Where upstream has our elements.

    Returns:
        What it adds to the energy of each element without a moment, in eV.
    """
    if isinstance(reference, SplineReference):
        return _fill_spline(reference, weights, rows)
    n_layers = weights.count("onebody_magmombasis_list.{}.")
    if EACH_ELEMENT in weights:
        coefficients = weights(EACH_ELEMENT)[rows, :, head]
        constant = weights(CONSTANT)[rows, head]
    elif n_layers:
        lists = [weights(ALL_ELEMENTS.format(k)) for k in range(n_layers)]
        if head or lists[-1].shape[1] != 1:
            raise ModelFileError("the one-body energy of all elements together has one head only.")
        coefficients = lists[-1].T / lists[-1].shape[0] ** 0.5
        constant = weights(CONSTANT)
        constant = constant[rows] if constant.numel() > 1 else constant
    else:
        return 0.0
    reference.one_body[:, : coefficients.shape[1] - 1] = scale * coefficients[:, 1:]
    return scale * (coefficients.sum(dim=1) - constant)  # all T_n are 1 for a zero moment


def _fill_spline(reference: SplineReference, weights: UpstreamWeights, rows: Sequence[int]) -> Tensor:
    n_knots, n_species = reference.num_basis, len(rows)
    knots = torch.stack([weights(KNOTS.format(k), n_knots) for k in rows])
    if not (knots.diff(dim=1) > 0).all():
        raise ModelFileError("the knots E_m_spline.u_knots of the one-body energy do not ascend.")
    reference.set_knots(knots)
    reference.one_body.copy_(torch.stack([weights(VALUES.format(k), n_knots) for k in rows]))
    names = ("m_max", "E1", "E2", "prefactor")
    barrier = torch.stack([weights(f"{BARRIER}.{name}", n_species)[rows] for name in names], dim=1)
    constants = [weights(f"{BARRIER}.{name}").reshape(()) for name in ("lambda_sat", "eps")]
    present = (barrier[:, 3].abs() > 1e-8).any().double()  # upstream's way to switch it on
    reference.barrier.copy_(barrier)
    reference.barrier_constants.copy_(torch.stack([present, *constants]))
    at_zero = (reference.origin * reference.one_body).sum(dim=1)
    return at_zero - weights(CONSTANT, n_species, 1)[rows, 0]
