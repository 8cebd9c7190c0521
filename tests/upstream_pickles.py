"""Checkpoints as the published code pickles them, made from stand-in classes under upstream's module names."""

import contextlib
import sys
import types

import torch
from paper_tools import parity_arrays

FORK_CLASS = "MagneticSolidHarmonicsSpinOrbitCoupledWithOneBodyMultiSpeciesGinzburgSelfMagmomScaleShiftMACE"
FORK = "MagneticSolidHarmonicsSpinOrbitCoupledWith{}SelfMagmomScaleShiftMACE"
DENSITIES = ("Density", "MagmomDensity", "DensityWithMagmom")
CLASSES = {
    "mace.modules.models": (
        *map(
            FORK.format,
            ("", "OneBodyGinzburg", "OneBodyMultiSpeciesGinzburg", "OneBodyMultiSpeciesEvenSpline"),
        ),
        FORK.format("OneBodyReadout"),
        "MagneticScaleShiftMACE",
        "ScaleShiftMACE",
    ),
    "mace.modules.radial": ("BesselBasis", "PolynomialCutoff", "AgnesiTransform", "SoftTransform"),
    "mace.modules.extensions": (
        "MagneticScaleShiftMACE",
        "MagneticSCFMACE",
        "TimeReversalSymmetrizedMACE",
    ),
    "mace.modules.blocks": (
        *(f"MagneticRealAgnosticSpinOrbitCoupled{density}InteractionBlock" for density in DENSITIES),
        *(f"MagneticRealAgnosticResidueSpinOrbitCoupled{density}InteractionBlock" for density in DENSITIES),
        "LinearReadoutBlock",
        "NonLinearReadoutBlock",
        "NonLinearBiasReadoutBlock",
        "MagneticRealAgnosticFlexibleSpinOrbitCoupledDensityInteractionBlock",
        "EquivariantProductBasisWithSelfMagmomBlock",
        "Plain",
    ),
}


@contextlib.contextmanager
def upstream_classes():
    """Stand-in classes in place of upstream's modules, by their names."""
    classes, kept = {}, {name: sys.modules.get(name) for name in CLASSES}
    for module, names in CLASSES.items():
        sys.modules[module] = types.ModuleType(module)
        for name in names:
            cls = type(name, (torch.nn.Module,), {"__module__": module})
            setattr(sys.modules[module], name, cls)
            classes[module, name] = cls
    try:
        yield classes
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def build(classes, root, arrays, **changes):
    """A tree of stand-in modules with the arrays as parameters and buffers, as upstream's modules hold them."""
    model = classes[root]()
    plain = classes["mace.modules.blocks", "Plain"]
    for name, array in arrays.items():
        *path, leaf = name.split(".")
        module = model
        for depth, part in enumerate(path):
            if part not in module._modules:
                place = ".".join(path[: depth + 1])
                module.add_module(part, classes.get(_block(place, changes), plain)())
            module = module._modules[part]
        tensor = torch.as_tensor(array)
        if leaf.startswith(("weight", "bias")) and tensor.is_floating_point():
            module.register_parameter(leaf, torch.nn.Parameter(tensor))
        else:
            module.register_buffer(leaf, tensor)
    model.heads = changes.get("heads", ["Default"])
    model.edge_irreps = None
    model.magmom_readouts = None
    nonlinear = model.readouts._modules.get(str(len(model.readouts._modules) - 1))
    if hasattr(nonlinear, "linear_1"):
        nonlinear.non_linearity, nonlinear.non_linearity.acts = plain(), plain()
        nonlinear.non_linearity.acts.add_module("0", plain())
        nonlinear.non_linearity.acts._modules["0"].f = changes.get("gate", torch.nn.functional.silu)
    return model


def _block(place, changes):
    name = {
        "interactions.0": "MagneticRealAgnosticSpinOrbitCoupledDensityInteractionBlock",
        "interactions.1": "MagneticRealAgnosticResidueSpinOrbitCoupledDensityInteractionBlock",
        "products.0": "EquivariantProductBasisWithSelfMagmomBlock",
        "products.1": "EquivariantProductBasisWithSelfMagmomBlock",
        "readouts.0": "LinearReadoutBlock",
        "readouts.1": "NonLinearReadoutBlock",
        "radial_embedding.bessel_fn": "BesselBasis",
        "radial_embedding.cutoff_fn": "PolynomialCutoff",
        "radial_embedding.distance_transform": "AgnesiTransform",
    }.get(place)
    name = changes.get(place, name)
    return ("mace.modules.radial" if place.startswith("radial") else "mace.modules.blocks", name)


def write_checkpoint(
    path, name="one_layer_lm1", *, root=("mace.modules.models", FORK_CLASS), wrappers=(), drop=(), **changes
):
    """Pickle a model of the parity data (or of `arrays`) with torch.save; returns the path."""
    arrays = changes.pop("arrays", None) or parity_arrays(name)
    arrays = {key: a for key, a in arrays.items() if key not in drop} | changes.get("add", {})
    with upstream_classes() as classes:
        model = build(classes, root, arrays, **changes)
        for key, value in changes.get("attributes", {}).items():
            setattr(model, key, value)
        for wrapper, child in wrappers:
            outer = classes["mace.modules.extensions", wrapper]()
            outer.add_module(child, model)
            model = outer
        torch.save(model, path)
    return path
