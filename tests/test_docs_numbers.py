"""One number for one quantity: what the pages say agrees with the files it comes from."""

import json
import re
from datetime import datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def rows(name):
    """First cells of the lines of all tables of a page, and their other cells."""
    cells = [
        [c.strip(" *") for c in line.strip("|").split("|")]
        for line in text(name).splitlines()
        if line[:1] == "|"
    ]
    return {row[0]: row[1:] for row in reversed(cells) if len(row) > 1}


def first_number(cell):
    return float(re.search(r"[−-]?\d+(\.\d+)?", cell)[0].replace("−", "-"))


def benchmark(name):
    return json.loads(text(f"docs/benchmarks/{name}.json"))


@pytest.mark.parametrize(
    ("atoms", "cell", "start"),
    [(17, "fixed", "symmetric"), (17, "fixed", "shaken"), (17, "free", "symmetric"), (17, "free", "shaken"),
     (55, "fixed", "symmetric"), (55, "free", "symmetric")],
)  # fmt: skip
def test_self_interstitials_of_the_page_on_limits(atoms, cell, start):
    chosen = [
        row
        for row in benchmark("limits_interstitials")["rows"]
        if (row["atoms"], row["cell"], row["start"]) == (atoms, cell, start)
    ]
    assert len(chosen) == 6
    assert {row["status"] for row in chosen} <= {"converged", "saddle"}
    assert {row["domain"] for row in chosen} == {"outside"}
    energies = [row["formation_energy"] for row in chosen]
    expected = [f"{min(energies):.1f}", f"{max(energies):.1f}", str(max(row["steps"] for row in chosen))]
    lines = [
        line
        for line in text("docs/limits.md").splitlines()
        if line.startswith(f"| {atoms - 1} + 1 atoms, {cell} | {start}")
    ]
    assert [cell.strip() for cell in lines[0].strip("|").split("|")][2:] == expected


def test_random_cells_of_the_page_on_limits():
    found = benchmark("limits_random_cells")
    assert f"{found['cells']} random iron cells" in text("docs/limits.md")
    assert sum(found["statuses"].values()) == found["cells"]
    assert set(found["statuses"]) <= {"converged", "saddle"}
    assert found["below_bcc_by_more_than_1_meV"] == 0
    assert found["lowest_above_bcc"] > -1e-5


PAIRS = benchmark("curie_errors_pair")["rows"]
AR1 = benchmark("curie_errors_ar1")["rows"]
SPAN = (20, 50, 100, 300, 1000)
MOSTLY = 0.5
"""Fewer series than this with a bar: those that have one are chosen by chance."""


def coverage_lines():
    """Lines of the table of coverages in docs/curie.md."""
    series = {}
    for row in AR1:
        name = f"AR(1), τ = {row['time']:.0f}, {row['replicas']} chain{'s' if row['replicas'] > 1 else ''}"
        for what, covered, given in (
            ("mean", row["covered"], 1),
            ("variance", row["variance_covered"], row["variance_given"]),
        ):
            series.setdefault((name, what), {})[row["length_in_times"]] = covered, given
    for row in PAIRS:
        name = f"pair, {row['sampler']}, J'/kT = {row['J_over_kT']:g}, τ = {row['time']:.0f}"
        for what, covered in row["covered"].items():
            series.setdefault((name, what), {})[row["length_in_times"]] = covered, row["given"][what]
    for (name, what), found in series.items():
        cells = []
        for length in SPAN:
            covered, given = found.get(length, (None, 0))
            if length not in found:
                cells.append("not run")
            elif given < MOSTLY:
                cells.append(f"no bar ({1 - given:.0%})")
            else:
                cells.append(f"{100 * covered:.1f}" + ("" if given > 0.995 else f" ({given:.0%})"))
        yield f"| {name}: {what.replace('_', ' ')} | {' | '.join(cells)} |"


def test_coverage_of_errors_of_the_page_on_curie():
    written = text("docs/curie.md")
    missing = [line for line in coverage_lines() if line not in written]
    assert not missing, missing


def test_coverage_of_errors_of_the_page_on_limits():
    means = [
        100 * row["covered"][key]
        for row in PAIRS
        for key in ("energy", "order")
        if row["sampler"] != "walk" and row["length_in_times"] >= 20
    ]
    fluctuations = [
        100 * row["covered"][key]
        for row in PAIRS
        for key in ("susceptibility", "heat_capacity", "binder")
        if row["sampler"] != "walk" and row["length_in_times"] >= 20 and row["given"][key] >= MOSTLY
    ]
    ar1 = [100 * row["covered"] for row in AR1 if row["length_in_times"] >= 20 and row["trials"] >= 600]
    for what, found in (("means", means), ("fluctuations", fluctuations), ("AR(1) series", ar1)):
        assert f"{what} {min(found):.0f}–{max(found):.0f} %" in LIMITS, (what, min(found), max(found))
    assert all(row["trials"] >= 1000 for row in PAIRS)


LIMITS = " ".join(text("docs/limits.md").split())


def test_wells_of_the_page_on_limits():
    found = benchmark("limits_langevin")
    assert all(row["unsolved"] == 0 for row in found["rows"])
    worst = [max(abs(row[f"{key}_over_exact"] - 1) for row in found["rows"]) for key in ("mean", "width")]
    assert f"means within {100 * worst[0]:.1f} %, widths within {100 * worst[1]:.1f} %" in LIMITS
    low = [f"{100 * (1 - row['cosine_over_exact']):.1f}" for row in found["pairs"]]
    assert f"{low[0]}, {low[1]} and {low[2]} % low at 1, 2 and 4 fs" in LIMITS


def test_ordering_temperatures_of_the_page_on_limits():
    found = benchmark("limits_curie_grids")
    assert f"Heisenberg lattice ({found['exact']:.1f} K)" in LIMITS
    said = [(row["curie_temperature"], row["curie_temperature_error"]) for row in found["rows"]]
    assert f"{said[0][0]:.1f} ± {said[0][1]:.1f} and {said[1][0]:.1f} ± {said[1][1]:.1f} K" in LIMITS
    assert ", ".join(f"{value:.0f} ± {error:.0f}" for value, error in said[2:]) + " K" in LIMITS
    assert all(abs(value - found["exact"]) < 2 * error for value, error in said)


LEARN = " ".join(text("docs/learn.md").split())


@pytest.mark.parametrize("choose", ["informative", "varied", "random"])
def test_errors_of_the_page_on_learning(choose):
    rounds = benchmark("learning")["test mean absolute errors"][choose]
    first, last = rounds[1], rounds[-1]
    assert (first["n_training"], last["n_training"]) == (34, 98)
    values = [
        f"{last['energy']:.1f}",
        f"{last['forces']:.0f}",
        f"{last['stress']:.1f}",
        f"{last['magforces']:.1f}",
    ]
    early = f"{first['energy']:.1f}, {first['forces']:.0f}, {first['magforces']:.1f}"
    assert f"| {choose} | {' | '.join(values)} | {early} |" in LEARN


def test_gain_of_the_page_on_learning():
    found = benchmark("learning")["test mean absolute errors"]
    chosen, random = found["informative"], found["random"][-1]
    gains = [100 * (1 - chosen[-1][label] / random[label]) for label in ("energy", "forces")]
    assert f"Energies and forces are {gains[0]:.0f} % and {gains[1]:.0f} % better" in LEARN
    enough = [
        next(r["n_training"] for r in chosen if r[label] <= random[label]) for label in ("energy", "forces")
    ]
    assert (
        f"energies that the loop has with {enough[0]}, and for forces that it has with {enough[1]}" in LEARN
    )


def test_feco_of_the_page_on_learning():
    found = benchmark("learning_feco")
    first, last = found["rounds"][0], found["rounds"][-1]
    errors = [
        [f"{r['errors'][label]:.1f}" for label in ("energy", "forces", "magforces")] for r in (first, last)
    ]
    assert f"{last['n_calculations']} calculations took {last['cpu_hours']:.2f} CPU hours" in LEARN
    assert sum(r["n_failed"] for r in found["rounds"]) == 0
    started, finished = (datetime.fromisoformat(found[key]) for key in ("created", "finished"))
    assert f"the whole loop {(finished - started).total_seconds() / 60:.0f} minutes" in LEARN
    e, f, m = errors[0]
    assert f"{e} meV/atom, {f} meV/Å and {m} meV/μB ({first['n_training']} structures)" in LEARN
    e, f, m = errors[1]
    assert f"to {e}, {f} and {m} ({last['n_training']} structures)" in LEARN
    dft, model = found["B2 by the same DFT"], found["B2 by the model"]
    lifted = dft["energy_above_the_smooth_curve_with_4x4x4"], dft["moment_above_with_4x4x4"]
    assert (
        f"lifts the energy by {1000 * lifted[0]:.0f} meV/atom and the moment of iron by {lifted[1]:.2f} μB"
        in LEARN
    )
    assert (
        f"by the model {model['lattice_constant']:.3f} Å, by the same DFT {dft['lattice_constant']:.3f} Å"
        in LEARN
    )
    ours, theirs = (f"{x['moments']['Fe']:.2f} and {x['moments']['Co']:.2f} μB" for x in (model, dft))
    assert f"moments {ours}, by DFT {theirs}" in LEARN
    assert f"modulus ({model['bulk_modulus_gpa']:.0f} GPa)" in LEARN


def test_rate_of_the_page_on_workers():
    found = benchmark("workers")
    one, two = found["one"]["seconds"], found["two"]["seconds"]
    assert f"{found['structures']} two-atom cells" in text("docs/parallel.md")
    assert f"{two:.0f} s against {one:.0f} s, {found['ratio']:.1f} times as fast" in " ".join(
        text("docs/parallel.md").split()
    )


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("cell list in torch", "torch_ms"),
        ("matscipy", "matscipy_ms"),
        ("TorchSim's default", "torchsim_default_ms"),
    ],
)
def test_neighbour_lists_of_the_page_on_performance(name, key):
    measured = [
        str(row.get(key, "–")) for row in json.loads(text("docs/benchmarks/neighbor_lists.json"))["rows"]
    ]
    assert rows("docs/performance.md")[f"{name}, ms"] == measured


@pytest.mark.parametrize("code", ["fork of the paper", "merged code"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_parity_with_the_authors_code(code, precision):
    measured = next(
        rows
        for label, rows in json.loads(text("docs/benchmarks/upstream_parity.json")).items()
        if label.startswith(code)
    )
    line = next(
        line
        for line in text("docs/paper-model.md").splitlines()
        if line.startswith(f"| {code}") and f"| {precision} |" in line
    )
    said = [cell.strip() for cell in line.strip("|").split("|")][2:]
    for key, cell in zip(("energy", "forces", "stress", "magforces"), said, strict=True):
        largest = max(row[key] for row in measured if row["precision"] == precision)
        assert cell == f"{largest:.0e}"


def test_costs_of_the_page_on_molecular_dynamics():
    names = {
        "ordinary MACE": "mace",
        "frozen": "frozen",
        "adiabatic (10⁻³ eV/μB)": "adiabatic",
        "llg, midpoint 10⁻⁵ μB": "llg",
        "llg, sib": "llg, sib",
        "llg, `--lengths langevin`, bath": "llg, lengths",
    }
    page, sizes = rows("docs/md.md"), benchmark("md")["rows"]
    assert page["moments"][1:] == [f"{row['atoms']} atoms" for row in sizes]
    for name, key in names.items():
        measured = [row[key] for row in sizes]
        evaluations, *costs = page[name]
        for cell, ratio in zip(costs, [one["ratio"] for one in measured], strict=True):
            digits = 0 if ratio >= 10 or key == "mace" else 1
            assert cell.partition(" ")[0] == f"{ratio:.{digits}f}", name
        more = [one["evaluations_of_magforces_per_step"] for one in measured]
        said = re.findall(r"1 \+ ([\d.]+)", evaluations)
        assert said == [f"{x:.{int(x < 10)}f}" for x in more if x], name
    small, large = sizes
    one, other = (round(row["mace"]["cpu_ms_per_step"]) for row in sizes)
    for sentence in (
        f"{one} and {other} ms a step of the ordinary MACE",
        f"of {small['steps']} steps with {small['atoms']} atoms and {large['steps']} with {large['atoms']}",
    ):
        assert sentence in " ".join(text("docs/md.md").split()), sentence


def test_numbers_of_the_page_on_large_runs():
    page = " ".join(text("docs/large-runs.md").split())
    driver, real, rates, files = (
        benchmark(f"million_{name}") for name in ("driver", "real", "rates", "files")
    )
    one, two = rates["workers"]["1"], rates["workers"]["2"]
    for said in (
        f"in a file of {driver['input_mb']} MB, whose {driver['volumes']} volumes",
        f"{driver['seconds']:.0f} s from the start to the end, all in all {driver['memory_mb']} MB",
        f"`summary.parquet` has {driver['table_mb']:.0f} MB",
        f"{real['steps']} steps on average",
        f"{real['cpu_ms_per_structure']} ms of one core",
        f"{two['structures']:,} two-atom cells",
        f"{two['volumes']} volumes, {two['seconds']:.0f} s by two workers on two free cores, {two['per_second']:.0f} structures",
        f"One worker did {one['per_second']:.0f} a second ({one['structures']:,} structures)",
        f"{rates['ratio'] / 2:.2f} times twice the rate of one",
        f"while they compute {two['per_second_of_computing'] / one['per_second_of_computing'] / 2:.2f}",
        f"{two['cpu_ms_per_structure']} ms of the processor",
        f"{two['memory_mb']['driver']} MB for the process that was started, {two['memory_mb']['largest worker']} MB",
        f"{files['files']:,} files of two atoms each: {round(files['cpu_seconds'] + 0.01)} s of the processor",
        f"{files['memory_mb'] - files['before_mb']} MB of memory on top",
    ):
        assert said in page, said


def test_relaxations_of_the_page_on_performance():
    measured, table = json.loads(text("docs/benchmarks/batched_relaxation.json")), rows("docs/performance.md")
    names = {
        "64 one after another, ASE FIRE, moments fixed": "one_by_one_fixed",
        "64 in one run, moments fixed": "batch_fixed",
        "1,000 in one run, moments fixed": "batch_of_1000_fixed",
        "64 in one run, moments adiabatic": "batch_adiabatic",
    }
    for name, key in names.items():
        assert first_number(table[name][0]) == measured["seconds_median"][key]
    for name, key in (list(names.items()))[1:3]:
        assert first_number(table[name][2]) == measured["speedup"][key]


def test_adiabatic_against_joint_of_the_page_on_performance():
    measured, table = benchmark("batched_relaxation"), rows("docs/performance.md")
    seconds = [
        first_number(table[f"64 in one run, moments {how}"][0])
        for how in ("adiabatic", "relaxed too (to 3·10⁻⁴ eV/μB)")
    ]
    assert seconds[0] / seconds[1] == pytest.approx(measured["adiabatic_over_joint"], abs=0.01)
    page = " ".join(text("docs/performance.md").split())
    assert f"{measured['adiabatic_over_joint']} times as long as with joint moments" in page


@pytest.mark.parametrize("row", benchmark("moment_solvers")["rows"], ids=lambda row: row["name"])
def test_evaluations_of_the_page_on_moments(row):
    tolerance = {1e-3: "10⁻³", 1e-6: "10⁻⁶"}[row["magforce_tol"]]
    cells = (row["name"], row["starts"], tolerance, row["lbfgs"], row["fire"])
    assert f"| {' | '.join(map(str, cells))} |" in text("docs/moments.md")
    assert row["lbfgs_converged"] == row["fire_converged"] == row["starts"]
    assert max(row["lbfgs_spread_mev"], row["fire_spread_mev"]) < 0.1


def test_routes_of_the_page_on_exchange():
    found, page = benchmark("exchange_iron"), " ".join(text("docs/exchange.md").split())
    first = {name: values[0] for name, values in found["columns"].items()}
    ours = first["derivatives, rigid"]
    four, spirals = (first[f"{route}, rigid, 10°"] - ours for route in ("four-state", "spirals"))
    assert f"by {four:.2f} meV of {ours:.1f} (four states) and {spirals:.2f} meV (spirals) at 10°" in page
    assert first["four-state, rigid, 90°"] / ours == pytest.approx(2, abs=0.2)
    gains = {
        route: 100 * (first[f"{route}, relaxed, 90°"] / first[f"{route}, rigid, 90°"] - 1)
        for route in ("four-state", "spirals")
    }
    assert f"takes {-gains['spirals']:.0f} % off J1 of planar spirals" in page
    assert f"adds {gains['four-state']:.0f} % to that of four states" in page
    rigid, relaxed = (
        found["columns"][f"four-state, {lengths}, 10°"][:-1] for lengths in ("rigid", "relaxed")
    )
    assert max(abs(one - other) for one, other in zip(rigid, relaxed, strict=True)) < 0.06
    seconds = {name: f"{run['seconds']:.0f} s" for name, run in found["runs"].items()}
    for run, said in (
        ("rigid, 10°", "take {} of processor time"),
        ("relaxed, 10°", "{} at 10°;"),
        ("relaxed, 90°", "at 90° take {}"),
    ):
        assert said.format(seconds[run]) in page


def test_fuzz_examples_of_the_page_on_limits():
    checks = benchmark("fuzz")["checks"]
    assert f"ran {sum(check['examples'] for check in checks.values()):,} examples" in LIMITS
    assert not sum(check["failures"] for check in checks.values())
    for name, words in {
        "relaxations": "whole relaxations", "structure_files": "mutated structure files", "symmetries": "crystals whose",
        "journals": "journals", "model_files": "model files", "frames": "frames",
    }.items():  # fmt: skip
        assert f"{checks[name]['examples']:,} {words}" in LIMITS


def test_measured_loops_of_the_page_on_learning():
    page = text("docs/learn.md")

    def listed(errors, digits):
        return [f"{errors[name]:.{digits}f}" for name in ("energy", "forces", "magforces")]

    pool = json.loads(text("docs/benchmarks/learning_3d.json"))["test mean absolute errors"]
    for one, other in zip(pool["informative"], pool["random"], strict=True):
        cells = (", ".join(listed(one, 0)), ", ".join(listed(other, 0)))
        assert f"| {one['n_training']} | {' | '.join(cells)} |" in page
    loop = json.loads(text("docs/benchmarks/learning_mnal.json"))
    for row in loop["rounds"]:
        cells = [str(row["n_training"]), f"{row['cpu_hours']:.2f}", *listed(row["errors"], 1)]
        assert f"| {' | '.join(cells)} |" in page
    for name, symbol in (("L10", "L1₀"), ("B2", "B2")):
        sides = [loop["phases"][f"{name} {side}"] for side in ("dft", "model")]
        cells = [f"{s['volume']:.2f}, {s['bulk_modulus']:.0f}, {s['moments'][0]:.2f}" for s in sides]
        assert f"| {symbol} | {' | '.join(cells)} |" in page
    last = loop["rounds"][-1]
    told = f"{last['n_calculations']} calculations (14 the test) took {last['cpu_hours']:.2f} CPU hours"
    assert told in page


IDENTITIES = (
    "joint_rotation", "inversion", "time_reversal", "no_field_without_moments", "spin_rotation", "no_jump_at_cutoff",
    "isolated_atom", "translation", "permutation", "supercell", "batch_equals_single", "forces", "stress", "magforces",
    "smooth_through_zero", "smooth_rotation", "training_gradient", "growth_above_max_moment",
)  # fmt: skip


def test_identities_of_the_page_on_theory():
    table = text("docs/theory.md").split("| Identity | Holds |")[1].splitlines()[2 : 2 + len(IDENTITIES)]
    measured = json.loads(text("docs/models/mmace-fe-pbe.json"))["identities"]
    assert set(IDENTITIES) == set(measured)
    for line, name in zip(table, IDENTITIES, strict=True):
        assert float(line.split(" | ")[-2]) == pytest.approx(measured[name], rel=0.05), line
