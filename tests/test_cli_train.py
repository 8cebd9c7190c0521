import json

import pytest
import yaml
from cli_tools import names_in
from training_toys import TINY_MODEL, write_toys
from typer.testing import CliRunner

from mmace_sim.cli.app import app
from mmace_sim.model.checkpoint import read_metadata

runner = CliRunner()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    write_toys(folder / "toys.extxyz", n=12)
    config = {"data": {"valid_fraction": 0.2}, "model": TINY_MODEL}
    config["trainer"] = {"stability_test": False}  # what is trained for two epochs is no model
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
    assert names_in(folder / "run") == {
        "config.yaml", "log.txt", "metrics.csv", "model.safetensors", "summary.json", "checkpoints",
        "one_body.png", "one_body.svg",
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
    command = ["train", "--resume", "-o", str(folder / "run"), "--max-epochs", "3", "--json"]
    result = runner.invoke(app, command)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((folder / "run" / "summary.json").read_text())
    assert len((folder / "run" / "metrics.csv").read_text().splitlines()) == 4


def test_an_interrupted_run_says_how_to_go_on(trained, tmp_path, monkeypatch):
    folder, _ = trained

    run = tmp_path / "run"
    command = ["train", "--train-file", str(folder / "toys.extxyz"), "-o", str(run)]

    def interrupted(_config, output, **_):
        if (tmp_path / "far").exists():
            (output / "checkpoints").mkdir()
            for name in ("checkpoints/last.ckpt", "metrics.csv"):
                (output / name).write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr("mmace_sim.training.trainer.train", interrupted)
    early = runner.invoke(app, command)  # while the data are being read
    assert early.exit_code == 130
    assert "no checkpoint" in early.output
    assert "--resume" not in early.output
    assert not run.exists()
    (tmp_path / "far").touch()
    late = runner.invoke(app, command)
    assert late.exit_code == 130
    assert f"mmace-sim train --resume -o {run}" in late.output
    assert (run / "log.txt").is_file()


def test_a_dry_run_tells_what_would_happen_and_writes_nothing(trained, tmp_path):
    folder, _ = trained
    before = sorted(folder.rglob("*"))
    command = ["train", str(folder / "config.yaml"), "--train-file", str(folder / "toys.extxyz"), "--dry-run"]
    flags = [
        "--device",
        "cpu",
        "--r-max",
        "3.4",
        "--hidden-irreps",
        "6x0e",
        "--batch-size",
        "3",
        "--max-epochs",
        "7",
    ]
    result = runner.invoke(app, [*command, *flags, "-o", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    assert sorted(folder.rglob("*")) == before
    assert not any(tmp_path.iterdir())
    text = " ".join(result.output.split())
    for part in (
        "magforces",
        "reference energies (eV): Fe -338",
        "neighbours per atom",
        "MB",
        "7 epochs",
        "per step",
    ):
        assert part in text


def test_more_channels_are_more_weights(trained):
    from mmace_sim.training.config import load_train_config
    from mmace_sim.training.dry_run import dry_run

    folder, _ = trained
    data = {
        "data": {"train_file": str(folder / "toys.extxyz"), "valid_fraction": 0.2},
        "trainer": {"device": "cpu"},
    }
    sizes = []
    for irreps in ("2x0e", "4x0e"):
        plan = dry_run(load_train_config(None, data | {"model": TINY_MODEL | {"hidden_irreps": irreps}}))
        sizes.append(plan.n_weights)
    assert sizes[1] > sizes[0]
    assert plan.sets["train"]["structures"] + plan.sets["valid"]["structures"] == 12
    assert plan.run_seconds == pytest.approx(300 * plan.epoch_seconds)
    assert plan.epoch_seconds > plan.steps * plan.step_seconds


def test_the_progress_display_shows_rates_and_errors():
    from io import StringIO

    from rich.console import Console

    from mmace_sim.cli.train_run import TrainingProgress
    from mmace_sim.training.callbacks import StepReport

    console = Console(file=StringIO(), width=100)
    progress = TrainingProgress(5, console=console)
    with progress:
        progress.step(StepReport(epoch=1, step=1, n_steps=4, rate=123.4))
        progress({"epoch": 1, "train_loss": 0.5, "valid_energy_mae": 4.25, "valid_forces_mae": 55.0})
    shown = console.file.getvalue()
    assert "2/5" in shown
    assert "123 structures/s" in shown
    assert "E 4.2 meV/atom  F 55.0 meV/Å" in shown


def test_train_refuses_bad_usage(tmp_path):
    assert runner.invoke(app, ["train", "-o", str(tmp_path / "a")]).exit_code == 2
    (tmp_path / "bad.yaml").write_text("trainer: {epochs: 3}\n")
    result = runner.invoke(app, ["train", str(tmp_path / "bad.yaml"), "-o", str(tmp_path / "a")])
    assert result.exit_code == 2
    assert "trainer.epochs" in result.output
    assert not (tmp_path / "a").exists()


def test_a_refused_run_leaves_nothing_behind(trained, tmp_path):
    folder, _ = trained
    run = tmp_path / "run"
    (tmp_path / "bad.extxyz").write_text("1\nREF_energy=1\nFe 0 0 0\n")
    command = ["train", str(folder / "config.yaml"), "-o", str(run), "--train-file"]
    assert runner.invoke(app, [*command, str(tmp_path / "bad.extxyz")]).exit_code != 0  # no moments
    assert not run.exists()
    run.mkdir()
    empty = runner.invoke(app, [*command, str(folder / "toys.extxyz"), "--valid-fraction", "1e-9"])
    text = " ".join(empty.output.split())
    assert "validation set is empty" in text
    assert "valid_fraction: 0" in text
    assert list(run.iterdir()) == []


@pytest.mark.parametrize("command", ["train", "finetune"])
def test_resuming_where_nothing_is(tmp_path, command):
    result = runner.invoke(app, [command, "--resume", "-o", str(tmp_path / "none")])
    assert result.exit_code != 0
    assert "there is no such folder" in result.output
    assert not (tmp_path / "none").exists()
    result = runner.invoke(app, [command, "--resume", "-o", str(tmp_path)])
    assert "holds no checkpoints/last.ckpt" in result.output


def test_errors_of_a_model_with_heads_are_listed():
    from mmace_sim.cli.model_tables import format_errors

    one = {"energy": {"mae": 2.0, "unit": "meV/atom"}}
    assert format_errors({"train/a": one, "test/a": one, "test/b": one}) == (
        "a:\nenergy 2 meV/atom\nb:\nenergy 2 meV/atom"
    )
    assert format_errors({"valid": one}) == "(valid set)\nenergy 2 meV/atom"


def test_force_removes_nothing_that_is_read_or_before_the_data_exist(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "log.txt").write_text("an earlier run\n")
    model = folder / "model.safetensors"
    model.write_text("its model\n")
    missing = runner.invoke(
        app, ["train", "--train-file", str(tmp_path / "none.extxyz"), "-o", str(folder), "--force"]
    )
    assert missing.exit_code != 0
    assert "none.extxyz: no such file" in missing.output.replace("\n", "")
    data = folder / "data.extxyz"
    data.write_text("1\n\nFe 0 0 0\n")
    inside = runner.invoke(app, ["finetune", str(model), str(data), "-o", str(folder), "--force"])
    assert inside.exit_code != 0
    assert "which this run reads" in inside.output.replace("\n", " ")
    assert model.read_text() == "its model\n"


def test_a_model_that_must_not_be_used_says_so(trained, tmp_path, monkeypatch):
    """On the terminal, by the exit code, in the summary and in the model file."""
    from mmace_sim.quality import stability

    folder, _ = trained
    command = [
        "train",
        str(folder / "config.yaml"),
        "--train-file",
        str(folder / "toys.extxyz"),
        "--stability-test",
    ]
    command += ["--max-epochs", "1", "--device", "cpu", "--quiet"]
    seen = []

    def verdict(models, structures, **_):
        seen.append((models, structures))
        problems = ["Fe2 falls by 55,000 eV/atom"] if len(seen) == 1 else []
        return stability.StabilityReport(problems, 10, 20, 0.0, 1.0)

    monkeypatch.setattr(stability, "check_stability", verdict)
    result = runner.invoke(app, [*command, "-o", str(tmp_path / "bad")])
    assert result.exit_code == 3
    assert "Do not use it, because Fe2 falls by 55,000 eV/atom" in " ".join(result.output.split())
    summary = json.loads((tmp_path / "bad" / "summary.json").read_text())
    assert summary["stability"]["passed"] is False
    assert read_metadata(tmp_path / "bad" / "model.safetensors")["stability"] == summary["stability"]
    assert "do not use it" in (tmp_path / "bad" / "log.txt").read_text()
    assert len(seen[0][1]["default"]) == 10
    good = runner.invoke(app, [*command, "-o", str(tmp_path / "good")])
    assert good.exit_code == 0, good.output
    assert read_metadata(tmp_path / "good" / "model.safetensors")["stability"]["passed"] is True
