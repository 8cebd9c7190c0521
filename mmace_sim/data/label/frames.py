"""Labels as a structure that `train` reads."""

from typing import Any

import numpy as np
from ase import Atoms

from mmace_sim.base.labels import LabelKeys
from mmace_sim.data.label.calculation import HOLD, Calculation
from mmace_sim.data.label.checks import moment_error
from mmace_sim.data.label.engine import Labels
from mmace_sim.io.base import put_labels

KEYS = LabelKeys()


def labelled_frame(calculation: Calculation, labels: Labels, info: dict[str, Any]) -> Atoms:
    """The candidate with its labels, and everything that says what they are.

    Args:
        calculation: What was asked for.
        labels: What came of it.
        info: What the run knows: engine, kinds, cost.

    Returns:
        Structure with ``REF_energy``, ``REF_forces``, ...; the array ``hold_moment`` says which moments were held.
    """
    atoms = calculation.atoms.copy()
    held = calculation.held
    symbols = np.array(atoms.get_chemical_symbols())
    atoms.info.setdefault("config_type", "default")
    atoms.info.update(
        {
            "config_id": calculation.config_id,
            "mode": str(calculation.mode),
            "constrained": bool(held.any()),
            "constrained_species": ",".join(sorted(set(symbols[held].tolist()))) or "none",
        }
    )
    if held.any():
        atoms.info["moment_error"] = round(moment_error(calculation, labels), 6)
    atoms.info.update(info | labels.info)
    atoms.set_array(HOLD, held)
    found = {
        "energy": float(labels.energy),
        "forces": labels.forces,
        "stress": None
        if labels.stress is None
        else labels.stress.ravel(),  # nine numbers, as other tools read it
        "magmoms": labels.magmoms,
        "magforces": labels.magforces,
    }
    return put_labels(atoms, KEYS, found)
