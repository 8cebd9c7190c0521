import json

import pytest
import yaml
from training_toys import TINY_MODEL, toy_frames, write_toys
from typer.testing import CliRunner

from mmace_sim.cli.app import app

runner = CliRunner()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    write_toys(folder / "toys.extxyz", n=12)
    config = {"data": {"valid_fraction": 0.2}, "model": TINY_MODEL}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    arguments = ["train", str(folder / "config.yaml"), "--train-file", str(folder / "toys.extxyz")]
    arguments += [
        "--max-epochs",
        "2",
        "--batch-size",
        "4",
        "-o",
        str(folder / "run"),
        "--name",
        "toy",
        "--device",
        "cpu",
    ]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return folder, result.output


def test_train_writes_one_folder(trained):
    folder, output = trained
    assert {p.name for p in (folder / "run").iterdir()} == {
        "config.yaml", "log.txt", "metrics.csv", "model.safetensors", "summary.json", "checkpoints",
    }  # fmt: skip
    merged = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    assert merged["trainer"]["max_epochs"] == 2
    assert merged["name"] == "toy"
    assert merged["model"]["atomic_numbers"] == [26]
    assert "epoch 1" in (folder / "run" / "log.txt").read_text()
    assert "2 epochs" in output


def test_train_does_not_overwrite(trained):
    folder, _ = trained
    again = ["train", "--train-file", str(folder / "toys.extxyz"), "-o", str(folder / "run")]
    result = runner.invoke(app, again)
    assert result.exit_code == 2
    assert "--force" in result.output


def test_train_resumes(trained):
    folder, _ = trained
    result = runner.invoke(app, ["train", "--resume", "-o", str(folder / "run"), "--max-epochs", "3"])
    assert result.exit_code == 0, result.output
    assert len((folder / "run" / "metrics.csv").read_text().splitlines()) == 4


def test_train_refuses_bad_usage(tmp_path):
    assert runner.invoke(app, ["train", "-o", str(tmp_path / "a")]).exit_code == 2
    (tmp_path / "bad.yaml").write_text("trainer: {epochs: 3}\n")
    result = runner.invoke(app, ["train", str(tmp_path / "bad.yaml"), "-o", str(tmp_path / "a")])
    assert result.exit_code == 2
    assert "trainer.epochs" in result.output
    assert not (tmp_path / "a").exists()


def test_evaluate_writes_tables_and_plots(trained, tmp_path):
    folder, _ = trained
    out = tmp_path / "eval"
    arguments = [
        "evaluate",
        str(folder / "run" / "model.safetensors"),
        str(folder / "toys.extxyz"),
        "-o",
        str(out),
    ]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    labels = ("energy", "forces", "stress", "magforces")
    plots = {f"parity_{label}.{suffix}" for label in labels for suffix in ("png", "svg")}
    assert {p.name for p in out.iterdir()} == plots | {"summary.json", "config.yaml", "log.txt"}
    summary = json.loads((out / "summary.json").read_text())
    assert summary["n_structures"] == 12
    assert set(summary["by_config_type"]) == {"even", "odd"}
    assert summary["overall"]["forces"]["unit"] == "meV/Å"
    assert "meV/μB" in result.output
    assert runner.invoke(app, arguments).exit_code == 2
    assert runner.invoke(app, [*arguments, "--force", "--no-plots"]).exit_code == 0


def test_evaluate_reports_what_it_cannot_do(trained, tmp_path):
    from ase.io import write

    folder, _ = trained
    frames = toy_frames(4)
    frames[1].symbols[:] = "Ni"
    del frames[2].arrays["REF_magmom"]
    write(tmp_path / "mixed.extxyz", frames, format="extxyz")
    model = str(folder / "run" / "model.safetensors")
    result = runner.invoke(
        app, ["evaluate", model, str(tmp_path / "mixed.extxyz"), "-o", str(tmp_path / "e"), "--no-plots"]
    )
    assert result.exit_code == 3
    assert "Ni unknown to the model" in " ".join(result.output.split())
    summary = json.loads((tmp_path / "e" / "summary.json").read_text())
    assert summary["n_structures"] == 2
    assert summary["n_skipped"] == 2


def test_evaluate_without_any_usable_structure(trained, tmp_path):
    from ase.io import write

    folder, _ = trained
    frames = toy_frames(1, symbol="Ni")
    write(tmp_path / "foreign.extxyz", frames, format="extxyz")
    model = str(folder / "run" / "model.safetensors")
    result = runner.invoke(
        app, ["evaluate", model, str(tmp_path / "foreign.extxyz"), "-o", str(tmp_path / "e")]
    )
    assert result.exit_code == 2
    assert "no structure could be evaluated" in result.output


def test_evaluate_with_an_unknown_model_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, ["evaluate", "nonsense", "data.extxyz"])
    assert result.exit_code == 2
    assert "no model 'nonsense'" in result.output
    assert not any(tmp_path.iterdir())
