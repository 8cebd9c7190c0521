"""An engine with files, whose program is a few lines of Python."""

import json
import sys

import numpy as np

from mmace_sim.data.label.engine import Labels, MissingOutputError, NotConvergedError
from mmace_sim.data.label.processes import run_program

PROGRAM = """
import json, os, sys, time
open("pid", "w").write(str(os.getpid()))
job = json.load(open("job.json"))
if job["sleep"]:
    time.sleep(job["sleep"])
open("big.wfk", "w").write("scratch")
if job["crash"]:
    sys.exit("segmentation fault")
moments = job["moments"]
converged = job["attempt"] >= job["needs"]
json.dump({"converged": converged, "energy": sum(m * m for v in moments for m in v), "moments": moments}, open("result.json", "w"))
"""


class Toy:
    """E = Σ m², so −∂E/∂m = −2 m."""

    name, moment_kind, energy_kind, moment_tol, attempts = "toy", "toy", "toy", 1e-6, 3
    keeps = ("job.json", "result.json")

    def __init__(self, given):
        self.given = given

    def refuse(self, calculation):
        return "" if len(calculation.atoms) < 5 else "too many atoms for a toy"

    def write(self, calculation, folder, attempt=0):
        info = calculation.atoms.info
        job = {"moments": calculation.magmoms.tolist(), "attempt": attempt}
        job |= {key: int(info.get(key, 0)) for key in ("sleep", "crash", "needs")}
        (folder / "job.json").write_text(json.dumps(job))

    def script(self, folder):
        (folder / "run.sh").write_text("#!/bin/sh\n")

    def run(self, folder, limits):
        run_program([sys.executable, "-c", PROGRAM], folder, limits, log="run.log")

    def collect(self, calculation, folder):  # noqa: ARG002 - the names of the protocol
        if not (folder / "result.json").exists():
            raise MissingOutputError("no result.json")
        found = json.loads((folder / "result.json").read_text())
        if not found["converged"]:
            raise NotConvergedError("not converged")
        moments = np.array(found["moments"])
        n = len(moments)
        return Labels(
            found["energy"], moments, np.zeros((n, 3)), np.zeros((3, 3)), -2 * moments, {"engine": "toy 1"}
        )
