"""A property for tests of workers: as slow as told, and deadly for those structures that say so."""

import os
import signal
import time
from pathlib import Path
from typing import Annotated, Any, override

from pydantic import Field

from mmace_sim.base.settings import Flag, Settings
from mmace_sim.engine.computation import Computation
from mmace_sim.engine.declaration import Column, Property, head
from mmace_sim.engine.output import entry_head, write_csv
from mmace_sim.engine.settings import NOT_PHYSICS, run_settings
from mmace_sim.properties.singlepoint import SinglePoint


class SlowSettings(Settings):
    """Settings of a slow property."""

    seconds: Annotated[float, Flag()] = Field(default=0.0, ge=0)
    """Seconds that each structure takes."""


SLOW = Property(
    name="slow",
    help="A slow property.",
    settings=run_settings("slow", SlowSettings),
    columns=(*head("name", "status"), Column(key="energy", text="energy", unit="eV"), *head("message")),
    computation="slow_property:SlowComputation",
    may_differ=NOT_PHYSICS | {"seconds"},
)


class SlowComputation(Computation[Any, Any]):
    """Energies; `info["deadly"]` ends the process, always or once; `info["raises"]` raises."""

    verb = "Waiting"

    @override
    def compute(self, part, store, advance):
        points = SinglePoint(part.model)
        for index, item in enumerate(part.pending):
            time.sleep(self.settings.seconds)
            info, mark = item.atoms.info, Path(self.settings.output) / f"{item.index}.died"
            if info.get("deadly") == "always" or (info.get("deadly") == "once" and not mark.exists()):
                mark.touch()
                time.sleep(1.0)  # Parsl must have handed out the result before, or a lock of it dies too
                os.kill(os.getpid(), signal.SIGKILL)
            if "raises" in info:
                raise RuntimeError("this one breaks the loop")
            store(index, points.run([item.atoms])[0])

    @override
    def entry(self, item, result):
        return entry_head(item, "finished") | {
            "energy": result.energy,
            "pid": os.getpid(),
            "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
        }

    @override
    def finish(self, item, result, part):
        folder = part.folders[item.name]
        folder.mkdir(exist_ok=True)
        write_csv(folder / "energy.csv", ("energy",), [{"energy": result.energy}])
        return self.entry(item, result), None
