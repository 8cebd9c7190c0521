"""Does the loop beat random choice? Errors against the number of calculations, by each way to choose, in one run.

    python tests/benchmarks/learning.py CONFIG.yaml -o FOLDER [--choose informative random varied] [--seeds 0 1] [--name learning]

The configuration is one of `mmace-sim learn`. With ``label: {engine: "model:mmace-fe-pbe"}`` the model of the package stands
for the calculations, which takes an hour for three choices and one seed on one core; with a DFT engine every candidate
that several runs choose is computed once. Runs that are finished are not repeated. Writes docs/benchmarks/NAME.json and
its figure: the means over the seeds.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import record
import yaml

from mmace_sim.data.learn.figures import curve_figure
from mmace_sim.data.learn.rounds import Round
from mmace_sim.data.learn.run import learn
from mmace_sim.data.learn.settings import LearnSettings
from mmace_sim.plots import save_figure
from mmace_sim.training.evaluation.metrics import UNITS


def labelled(folder: Path) -> list[str]:
    """Files with labels of the runs so far."""
    return [str(file) for file in sorted(folder.glob("*/**/labelled.extxyz"))]


def one_run(content: dict, folder: Path, choose: str, seed: int) -> list[Round]:
    """The rounds of one run, computed unless it is finished."""
    output = folder / f"{choose}-{seed}"
    if (output / "summary.json").exists():
        return [Round.of(r) for r in json.loads((output / "summary.json").read_text())["rounds"]]
    labels = content.get("labels", []) + labelled(folder)
    settings = LearnSettings.model_validate(
        content | {"choose": choose, "seed": seed, "output": str(output), "labels": labels}
    )
    return learn(settings, resume=(output / "finished.jsonl").exists(), tell=print).rounds


def mean_of(runs: list[list[Round]]) -> list[Round]:
    """Rounds with the mean errors of several seeds."""
    n_rounds = min(map(len, runs))
    return [
        Round(
            k,
            n_training=round(np.mean([run[k].n_training for run in runs])),
            n_calculations=round(np.mean([run[k].n_calculations for run in runs])),
            errors={
                name: float(np.mean([run[k].errors[name] for run in runs])) for name in runs[0][k].errors
            },
        )
        for k in range(n_rounds)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--choose", nargs="+", default=["informative", "random", "varied"])
    parser.add_argument("--name", default="learning")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    options = parser.parse_args()
    content = yaml.safe_load(options.config.read_text())
    options.output.mkdir(exist_ok=True)
    runs: dict[str, list[list[Round]]] = {choose: [] for choose in options.choose}
    for seed in options.seeds:
        for choose in options.choose:
            runs[choose].append(one_run(content, options.output, choose, seed))
    means = {choose: mean_of(rounds) for choose, rounds in runs.items()}
    errors = {
        choose: [
            {"n_training": r.n_training, "cpu_hours": run.cpu_hours, **r.errors}
            for r, run in zip(rounds, runs[choose][0], strict=False)
        ]
        for choose, rounds in means.items()
    }
    record.write(
        options.name,
        {"config": content, "seeds": options.seeds, "units": UNITS, "test mean absolute errors": errors},
    )
    save_figure(curve_figure(means), record.FOLDER / options.name)


if __name__ == "__main__":
    main()
