"""``mmace-sim evaluate`` from end to end, with a tiny model."""

from ase.io import write
from cli_tools import csv_rows, mmace_sim, names_in, summary_of
from training_toys import toy_frames, write_toys

FIGURES = {
    f"{kind}_{label}"
    for kind in ("parity", "errors")
    for label in ("energy", "forces", "stress", "magforces")
} | {"parity_energy_shifted", "magforce_angles"}


def test_evaluate_writes_tables_figures_and_a_page(model, tmp_path):
    out, frames = tmp_path / "eval", toy_frames(12)
    frames[0].info["config_type"] = "<b>bold</b>"
    write(tmp_path / "toys.extxyz", frames, format="extxyz")
    arguments = ["evaluate", model, tmp_path / "toys.extxyz", "-o", out, "--device", "cpu"]
    result = mmace_sim(*arguments)
    assert result.exit_code == 0, result.output
    files = names_in(out)
    assert files == {
        "config.yaml",
        "figures",
        "log.txt",
        "report.html",
        "structures.csv",
        "summary.json",
        "finished.jsonl",
    }
    drawn = {path.name for path in (out / "figures").iterdir()}
    assert drawn == {f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "svg")}
    summary = summary_of(out)
    assert summary["n_structures"] == 12
    assert set(summary["by_config_type"]) == {"<b>bold</b>", "even", "odd"}
    assert set(summary["by_order"]) == {"non-collinear"}
    assert set(summary["by_element"]) == {"Fe"}
    assert summary["overall"]["forces"]["unit"] == "meV/Å"
    assert summary["overall"]["torque"]["unit"] == "meV"
    assert summary["overall"]["energy"]["mae"] > 1e6  # the toys' zero of energy is another one
    assert summary["overall"]["energy_shifted"]["mae"] < 1e4
    assert summary["timing"]["n_atoms"] == 24
    assert summary["ranking"]["spearman_all"]["Fe"]["n_structures"] == 12
    assert "meV/μB" in result.output
    rows = csv_rows(out / "structures.csv")
    assert len(rows) == 12
    assert float(rows[3]["magforces_rmse"]) > 0
    check_page(out)
    assert mmace_sim(*arguments).exit_code == 2
    assert mmace_sim(*arguments, "--force", "--no-figures", "--no-report").exit_code == 0
    assert names_in(out) == files - {"report.html"}
    assert not list((out / "figures").iterdir())


def check_page(out):
    """It holds what was found, and can be made later."""
    page = (out / "report.html").read_text()
    for text in (
        "magnetic force longitudinal",
        "MAE / RMSE per order",
        "toys.extxyz@",
        "data:image/",
        "meV/atom",
    ):
        assert text in page
    assert "<b>bold" not in page
    (out / "report.html").unlink()
    assert mmace_sim("report", out).exit_code == 0
    assert (out / "report.html").read_text() == page


def test_a_configuration_gives_the_same_errors(model, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    data = write_toys(tmp_path / "toys.extxyz", n=3)
    assert (
        mmace_sim("evaluate", model, data, "-o", first, "--no-figures", "--angle-threshold", "0.5").exit_code
        == 0
    )
    result = mmace_sim("evaluate", "--config", first / "config.yaml", "-o", second)
    assert result.exit_code == 0, result.output
    assert summary_of(first)["overall"] == summary_of(second)["overall"]
    (tmp_path / "bad.yaml").write_text("batchsize: 3\n")
    result = mmace_sim("evaluate", model, data, "--config", tmp_path / "bad.yaml")
    assert result.exit_code == 2
    assert "batch_size" in result.output


def test_other_names_of_labels_and_unconstrained_elements(model, tmp_path):
    frames = toy_frames(3)
    for atoms in frames:
        atoms.info["dft"] = atoms.info.pop("REF_energy")
        atoms.symbols[1] = "Al"
    write(tmp_path / "toys.extxyz", frames, format="extxyz")
    options = ["--keys", "energy=dft", "--magforce-elements", "Fe", "-o", tmp_path / "eval"]
    options += ["--no-figures", "--no-report"]
    assert mmace_sim("evaluate", model, tmp_path / "toys.extxyz", *options).exit_code == 0
    summary = summary_of(tmp_path / "eval")
    assert summary["overall"]["energy"]["count"] == 3
    assert summary["overall"]["magforces"]["count"] == 9
    assert set(summary["by_element"]) == {"Al", "Fe"}


def test_evaluate_reports_what_it_cannot_do(model, tmp_path):
    frames = toy_frames(4)
    frames[1].symbols[:] = "Ni"
    del frames[2].arrays["REF_magmom"]
    write(tmp_path / "mixed.extxyz", frames, format="extxyz")
    result = mmace_sim("evaluate", model, tmp_path / "mixed.extxyz", "-o", tmp_path / "e", "--no-figures")
    assert result.exit_code == 3
    assert "Ni unknown to the model" in " ".join(result.output.split())
    summary = summary_of(tmp_path / "e")
    assert (summary["n_structures"], summary["n_skipped"]) == (2, 2)
    assert "Ni unknown to the model" in (tmp_path / "e" / "report.html").read_text()


def test_evaluate_without_any_usable_structure(model, tmp_path):
    write(tmp_path / "foreign.extxyz", toy_frames(1, symbol="Ni"), format="extxyz")
    result = mmace_sim("evaluate", model, tmp_path / "foreign.extxyz", "-o", tmp_path / "e")
    assert result.exit_code == 2
    assert "no structure could be evaluated" in result.output


def test_bad_usage_leaves_no_folder(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        (["nonsense", "data.extxyz"], "no model 'nonsense'"),
        ([model, "data.extxyz"], "data.extxyz"),
        ([model], "at least one file"),
        ([model, "data.extxyz", "--keys", "colour=red"], "colour"),
    ):
        result = mmace_sim("evaluate", *arguments)
        assert result.exit_code == 2
        assert message in result.output
        assert not any(tmp_path.iterdir())


def test_a_dry_run_tells_what_would_be_compared_and_writes_nothing(model, tmp_path):
    atoms = toy_frames(1)[0]
    atoms.symbols[:] = "Cr"
    write(tmp_path / "foreign.extxyz", atoms)
    data = (write_toys(tmp_path / "toys.extxyz", n=12), tmp_path / "foreign.extxyz")
    result = mmace_sim("evaluate", model, *data, "-o", tmp_path / "eval", "--device", "cpu", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "12 structures with 24 atoms in batches of 16" in result.output
    assert "forces of 12" in result.output
    assert "magforces of 12" in result.output
    assert "foreign.extxyz@0: element(s) Cr unknown" in result.output
    assert not (tmp_path / "eval").exists()
