"""``mmace-sim curie`` from files to files."""

import csv

import ase.io
import numpy as np
import pytest
from cli_tools import bcc, mmace_sim, molecule, summary_of, write_tiny_model

FIGURES = {
    f"{key}.{end}" for key in ("order", "susceptibility", "heat_capacity", "binder") for end in ("png", "svg")
}
SHORT = (
    "--sizes",
    "2,3",
    "--temperatures",
    "20:100:40",
    "--sweeps",
    20,
    "--magmoms",
    "fixed",
    "--cutoff",
    2.6,
)


@pytest.fixture
def iron(tmp_path):
    ase.io.write(tmp_path / "iron.extxyz", bcc())
    return tmp_path / "iron.extxyz"


def exchange_run(folder, sign=1.0):
    """What ``mmace-sim exchange`` leaves behind, with exchange of 20 meV between nearest neighbours."""
    rows = ["first,second,cell_a,cell_b,cell_c,x,y,z,Jxx,Jyy,Jzz"]
    cell = 1.435 * np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    for shift in np.array(np.meshgrid(*[[-1, 0, 1]] * 3)).reshape(3, -1).T:
        vector = shift @ cell
        if abs(np.linalg.norm(vector) - 1.435 * 3**0.5) < 1e-6:
            numbers = [1, 1, *shift, *vector, *[20.0 * sign] * 3]
            rows.append(",".join(map(str, numbers)))
    (folder / "iron").mkdir(parents=True)
    (folder / "iron" / "pairs.csv").write_text("\n".join(rows) + "\n")
    summary = '{"command": "exchange", "structures": [{"name": "iron.extxyz", "moments": [2.2]}]}'
    (folder / "summary.json").write_text(summary)
    return folder


def test_earlier_exchange_from_file_to_files_and_resumed(model, iron, tmp_path):
    out, source = tmp_path / "run", exchange_run(tmp_path / "exchange")
    arguments = ("curie", iron, "-m", model, "-o", out, "--from", source, "--sizes", "3,4", "--sweeps", 150,
                 "--temperatures", "100,300,400,450,480,520,560,620,700")  # fmt: skip
    result = mmace_sim(*arguments)
    assert result.exit_code in (0, 3), result.output
    (entry,) = summary_of(out)["structures"]
    assert entry["status"] in ("converged", "not_equilibrated")
    assert (result.exit_code == 0) == (entry["status"] == "converged")
    assert entry["n_spins"] == [54, 128]
    (row,) = csv.DictReader((out / "summary.csv").read_text().splitlines())
    assert row["n_spins"] == "128"
    assert entry["mean_field_temperature"] == pytest.approx(8 / 3 * 0.02 / 8.617333e-5, rel=1e-4)
    assert entry["curie_temperature"] == pytest.approx(2.054 * 0.02 / 8.617333e-5, rel=0.1)
    assert "J' > 0 ferromagnetic" in entry["convention"]
    assert len(entry["points"]) == 18
    folder = out / "iron"
    assert {path.name for path in folder.iterdir()} == FIGURES | {"points.csv", "samples-1.npz"}
    table = (folder / "points.csv").read_bytes()

    refused = mmace_sim(*arguments)
    assert refused.exit_code == 2
    assert "--resume" in refused.output
    samples = (folder / "samples-1.npz").stat().st_mtime_ns
    assert mmace_sim(*arguments, "--resume", "-q").exit_code == result.exit_code
    assert (folder / "samples-1.npz").stat().st_mtime_ns == samples  # all was there
    assert (folder / "points.csv").read_bytes() == table
    other = mmace_sim(*arguments, "--seed", 1, "--resume")
    assert other.exit_code == 2
    assert "config differs: seed" in other.output
    other = mmace_sim(*arguments, "-m", write_tiny_model(tmp_path / "other.safetensors", seed=1), "--resume")
    assert other.exit_code == 2
    assert "config differs" in other.output
    assert (folder / "points.csv").read_bytes() == table  # nothing was touched
    again = mmace_sim("curie", "-c", out / "config.yaml", "--force", "--no-figures", "-q")
    assert again.exit_code == result.exit_code
    assert (folder / "samples-1.npz").stat().st_mtime_ns > samples
    assert (folder / "points.csv").read_bytes() == table
    assert not list(folder.glob("*.png"))
    assert mmace_sim(*arguments, "--force", "--resume").exit_code == 2


@pytest.mark.parametrize("method", ["heisenberg", "direct"])
def test_a_run_may_be_longer_than_the_earlier_one(method, model, iron, tmp_path):
    source = ["--from", exchange_run(tmp_path / "exchange")] if method == "heisenberg" else ["--n-steps", 2]
    some = ("curie", iron, "-m", model, "--method", method, *source, "--temperatures", "300,500", "--sizes", 2,
            "--equilibration", 5, "--no-figures", "-q")  # fmt: skip
    block, n_first, n_more = {"heisenberg": (200, 2, 3), "direct": (5, 5, 8)}[method]
    first, more = (n_first * block - 5, n_more * block - 5)
    assert mmace_sim(*some, "-o", tmp_path / "parts", "--sweeps", first).exit_code in (0, 3)
    assert mmace_sim(*some, "-o", tmp_path / "parts", "--sweeps", more, "--resume").exit_code in (0, 3)
    assert mmace_sim(*some, "-o", tmp_path / "whole", "--sweeps", more).exit_code in (0, 3)
    parts, whole = (summary_of(tmp_path / name)["structures"][0] for name in ("parts", "whole"))
    assert parts["n_sweeps"] == more
    for key in ("energy", "order", "susceptibility", "binder"):
        one, other = ([point[key] for point in entry["points"]] for entry in (parts, whole))
        assert one == pytest.approx(other, rel=1e-9)
    log = (tmp_path / "parts" / "log.txt").read_text()
    assert f"going on after {first + 5} of {more + 5} sweeps" in log
    other = mmace_sim(
        *some[:-1], "-o", tmp_path / "parts", "--sweeps", more + 5, "--resume", "--equilibration", 9
    )
    assert other.exit_code == 2
    assert "config differs: equilibration" in other.output


def test_direct_method_and_failures_are_told(model, iron, tmp_path):
    ase.io.write(tmp_path / "fe2.extxyz", molecule())
    out = tmp_path / "run"
    short = ("--temperatures", "50,100", "--sizes", 2, "--sweeps", 10, "--n-steps", 2, "--magmoms", "fixed")
    result = mmace_sim("curie", iron, "-m", model, "-o", out, "--method", "direct", *short, "--no-figures")
    assert result.exit_code == 3, result.output
    (entry,) = summary_of(out)["structures"]
    assert entry["status"] == "not_equilibrated"
    assert "raise --sweeps" in entry["message"]
    assert entry["points"][0]["n_spins"] == 16
    both = mmace_sim(
        "curie", iron, tmp_path / "fe2.extxyz", "-m", model, "-o", tmp_path / "b", *SHORT, "--no-figures"
    )
    assert both.exit_code == 3
    entries = {entry["name"]: entry for entry in summary_of(tmp_path / "b")["structures"]}
    assert "periodic" in entries["fe2.extxyz"]["message"]


def test_bad_options_are_usage_errors(model, iron, tmp_path):
    common = ("curie", iron, "-m", model, "-o", tmp_path / "run")
    for bad in (
        ("--temperatures", "100:50:10"),
        ("--temperatures", "0,100"),
        ("--sizes", "0"),
        ("--method", "guess"),
        ("--from", tmp_path / "nothing"),
        ("--method", "direct", "--moves", "local", "--lattice", "moving"),
        ("--lattice", "moving"),
        ("--method", "direct", "--cutoff", 3),
        ("--from", "uppasd", "--cutoff", 3),
        ("--temperatures", "1:9:1e-9"),
    ):
        result = mmace_sim(*common, *bad)
        assert result.exit_code == 2, (bad, result.output)
    source = exchange_run(tmp_path / "exchange")
    ase.io.write(tmp_path / "other.extxyz", bcc())
    result = mmace_sim(
        "curie", tmp_path / "other.extxyz", "-m", model, "-o", tmp_path / "c", "--from", source
    )
    assert result.exit_code == 2
    assert "no exchange of other.extxyz" in result.output
    assert mmace_sim("curie").exit_code == 2
