import pytest
import yaml
from training_toys import TINY_MODEL, write_toys
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
