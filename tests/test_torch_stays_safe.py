"""Using this package does not let torch run code that a pickle names."""

import os
import subprocess
import sys

CODE = """
import importlib, os, pathlib, pickle, pkgutil, sys, warnings

warnings.simplefilter("ignore")
import mmace_sim

for module in pkgutil.walk_packages(mmace_sim.__path__, "mmace_sim."):
    if module.name != "mmace_sim.__main__":
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as missing:  # optional hosts
            assert not missing.name.startswith("mmace_sim"), missing
import torch
from ase.build import bulk
from mmace_sim import load_model
from mmace_sim.calculator import MMACECalculator

model = load_model()
atoms = bulk("Fe")
atoms.calc = MMACECalculator(model=model)
atoms.get_potential_energy()
assert not {"mace", "e3nn"} & set(sys.modules), "mace or e3nn was imported"

from mmace_sim.interop.from_mace import download_foundation

try:
    download_foundation("no such name")
except mmace_sim.errors.ModelFileError:
    pass
assert "mace" in sys.modules
assert os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD") is None

class Evil:
    def __reduce__(self):
        return os.mkdir, (sys.argv[1],)

torch.save(Evil(), sys.argv[2])
try:
    torch.load(sys.argv[2])
except pickle.UnpicklingError:
    print("refused")
print(os.path.exists(sys.argv[1]))
"""


def test_pickles_are_refused_after_everything_was_imported(tmp_path):
    env = {k: v for k, v in os.environ.items() if k != "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"}
    arguments = [sys.executable, "-c", CODE, str(tmp_path / "ran"), str(tmp_path / "evil.pt")]
    done = subprocess.run(arguments, capture_output=True, text=True, env=env, check=False)
    assert done.stdout.split()[-2:] == ["refused", "False"], done.stderr
