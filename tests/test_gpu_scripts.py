"""What measures on a GPU, as far as one can see without: parts that fail, hang or break cost only themselves."""

import ast
import importlib.util
import json
from pathlib import Path

GPU = Path(__file__).parent / "gpu"

PARTS = """
import json, os, sys, time
name, rows = sys.argv[1], open(sys.argv[sys.argv.index("--rows") + 1], "w")

def say(**entry):
    rows.write(json.dumps(entry) + "\\n")
    rows.flush()

say(environment={"gpu": name})
say(row={"number": 1})
if name == "neighbours":
    say(end="failed", why="ValueError: no")
elif name == "evaluation":
    print("CUDA error: an illegal memory access", flush=True)
    rows.write('{"row": {"torn')
    rows.flush()
    os.abort()
elif name == "training":
    time.sleep(600)
else:
    say(end="done")
"""


def load():
    spec = importlib.util.spec_from_file_location("gpu_measure", GPU / "measure.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_limits_together_are_below_eight_minutes():
    limits = load().LIMITS
    assert sum(limits.values()) < 480
    assert list(limits)[-1] == "compiled"
    written = [(GPU / f"{name}.py").read_text(encoding="utf-8") for name in ("parts", "against_mace")]
    body = [node for text in written for node in ast.parse(text).body]
    assert set(limits) <= {node.name for node in body if isinstance(node, ast.FunctionDef)}


def test_a_part_costs_only_itself(tmp_path, monkeypatch):
    (tmp_path / "parts.py").write_text(PARTS)
    monkeypatch.setenv("MMACE_GPU_PARTS", str(tmp_path / "parts.py"))
    measure = load()
    limits = {"training": 2.0} | dict.fromkeys(("same_numbers", "neighbours", "evaluation", "compiled"), 60.0)
    monkeypatch.setattr(measure, "LIMITS", limits)
    monkeypatch.setattr(measure, "figure", lambda found, _: found["nothing to draw"])
    measure.run(measure.parse(["--out", str(tmp_path)]), tmp_path)
    found = json.loads((tmp_path / "gpu.json").read_text())
    states = {name: entry["state"] for name, entry in found["states"].items()}
    assert states == {
        "training": "out of time",
        "same_numbers": "done",
        "neighbours": "failed",
        "evaluation": "broken (exit code -6)",
        "compiled": "done",
    }
    assert all(found[name] == [{"number": 1}] for name in states if name != "training")
    assert found["states"]["neighbours"]["why"] == "ValueError: no"
    assert "illegal memory access" in found["states"]["evaluation"]["printed"]
    assert found["environment"]["gpu"] in states
    assert found["figure"].startswith("KeyError")  # costs no part


def test_a_figure_of_what_is_there(tmp_path):
    measure = load()
    measure.figure({}, tmp_path)
    assert not list(tmp_path.iterdir())
    rows = [
        {"size": "a", "atoms": 54, "model": "ours", "ms": 2.0},
        {"size": "a", "atoms": 54, "model": "mace", "failed": "no memory"},
        {"size": "a", "atoms": 54, "model": "mace, cuEquivariance", "missing": "not installed"},
    ]
    relaxed = [{"structures": 8, "magmoms": "joint", "per_second": 3.0}]
    measure.figure({"evaluation": rows, "relaxations": relaxed}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"gpu.png", "gpu.svg"}
